//! Request ids and log lines: who asked for which change and how it ended, and never a secret.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{self, Node, Request, Setup, node};

const POLICY: &str = "default_tier = \"free\"\n[tiers.free]\n";
const TOKENS: &str = r#"
[auth]
[[auth.tokens]]
name = "operator"
role = "admin"
value = "canary-of-the-admin"
[[auth.tokens]]
name = "dashboard"
role = "read"
value = "canary-of-the-read"
[[auth.tokens]]
name = "gateway"
role = "check"
value = "canary-of-the-check"
"#;

fn check() -> Request {
    Request::new("POST", "/v1/check").json(&json!({"tenant": "acme"}))
}

/// One call of each kind: deciding, changing, reading, open, and some that fail.
fn calls() -> Vec<Request> {
    vec![
        check(),
        Request::new("POST", "/v1/check").body("not JSON"),
        Request::new("PUT", "/v1/tenants/acme").json(&json!({})),
        Request::new("PUT", "/v1/tenants/acme").json(&json!({"tire": "x"})),
        Request::new("GET", "/v1/policy"),
        Request::new("GET", "/livez"),
        Request::new("GET", "/metrics"),
        Request::new("GET", "/v1/nothing"),
        Request::new("DELETE", "/v1/check"),
    ]
}

fn id_of(node: &Node, request: &Request) -> String {
    node.send(request).header("x-request-id").to_string()
}

#[test]
fn an_id_comes_back_with_every_answer_errors_included() {
    let node = node(POLICY);
    for request in calls() {
        assert_eq!(
            id_of(&node, &request.clone().header("X-Request-Id", "req-1/2")),
            "req-1/2",
            "{request:?}"
        );
    }
}

#[test]
fn an_id_that_could_spoil_a_log_is_replaced() {
    let node = node(POLICY);
    for request in calls() {
        for unfit in ["a b", "", "\u{e4}", &"x".repeat(129)] {
            let id = id_of(&node, &request.clone().header("X-Request-Id", unfit));
            let made = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(made, "{unfit:?} became {id:?} for {request:?}");
        }
    }
}

#[test]
fn all_calls_but_decisions_have_an_id_made_and_no_two_the_same() {
    let node = node(POLICY);
    assert_eq!(id_of(&node, &check()), "");
    let others: Vec<_> = calls().into_iter().skip(2).collect();
    let mut ids: Vec<_> =
        others.iter().chain(&others).map(|request| id_of(&node, request)).collect();
    // The last is a method that a decision's path doesn't take, and so no decision.
    assert!(ids.iter().all(|id| id.len() == 32), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2 * others.len());
}

/// The log, a line each, where it is JSON.
fn lines(node: &Node) -> Vec<Value> {
    let log = node.stderr();
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn a_change_is_logged_with_who_what_and_how_it_ended() {
    let node =
        Setup::policy(POLICY).section(TOKENS).variable("TIDEGATE_LOG_FORMAT", "json").start();
    let put = |body: Value, id: &str| {
        let request = Request::new("PUT", "/v1/tenants/acme?dry_run=false").json(&body);
        node.send(
            &request.header("x-tidegate-token", "canary-of-the-admin").header("x-request-id", id),
        )
        .status
    };
    assert_eq!(
        (put(json!({"tier": "free"}), "good"), put(json!({"tier": "gone"}), "bad")),
        (200, 422)
    );
    for (id, status) in [("good", 200), ("bad", 422)] {
        let all = lines(&node);
        let line = all.iter().find(|line| line["fields"]["request_id"] == id);
        let line = line.unwrap_or_else(|| panic!("no line of {id} in {all:#?}"));
        let fields = &line["fields"];
        assert_eq!((&line["level"], &fields["by"]), (&json!("INFO"), &json!("operator")));
        assert_eq!((&fields["method"], &fields["status"]), (&json!("PUT"), &json!(status)));
        assert_eq!(fields["path"], "\"/v1/tenants/acme\"");
        assert!(fields["ms"].is_u64(), "{line}");
    }
}

#[test]
fn neither_decisions_nor_looks_nor_strangers_fill_the_log() {
    let node = Setup::policy(POLICY).section(TOKENS).start();
    let before = node.stderr();
    for _ in 0..10 {
        node.send(&check().header("x-tidegate-token", "canary-of-the-check"));
        node.send(&check());
        node.send(
            &Request::new("GET", "/v1/policy").header("x-tidegate-token", "canary-of-the-read"),
        );
        node.send(
            &Request::new("PUT", "/v1/policy").header("x-tidegate-token", "nobody").body("x"),
        );
    }
    assert_eq!(node.stderr(), before);
}

#[test]
fn whoever_looks_for_decisions_finds_them() {
    let node = Setup::policy(POLICY).variable("TIDEGATE_LOG", "tidegate=debug").start();
    node.check(json!({"tenant": "acme", "client": "ann"}));
    support::eventually("the decision is logged", || {
        node.stderr().lines().any(|line| line.contains("decided") && line.contains("tenant=acme"))
    });
}

#[test]
fn no_secret_is_ever_logged_whatever_the_call_and_the_level() {
    let node = Setup::policy(POLICY)
        .section(TOKENS)
        .variable("TIDEGATE_LOG", "trace")
        .variable("TIDEGATE_LOG_FORMAT", "json")
        .start();
    for token in
        ["canary-of-the-admin", "canary-of-the-read", "canary-of-the-check", "canary-stranger"]
    {
        for (header, value) in [
            ("x-tidegate-token", token.to_string()),
            ("authorization", format!("Bearer {token}")),
            ("authorization", format!("Basic {token}")),
            ("x-api-key", token.to_string()),
            ("cookie", format!("session={token}")),
        ] {
            for request in calls() {
                node.send(&request.header(header, &value));
            }
        }
    }
    for path in ["/v1/check?api_key=canary-query", "/v1/peek?token=canary-query"] {
        for key in ["canary-key".to_string(), "canary-key".repeat(200), "canary-key\u{7}".into()] {
            let body = json!({"tenant": "acme", "api_key": key, "cost": 1});
            node.send(
                &Request::new("POST", path)
                    .header("x-tidegate-token", "canary-of-the-check")
                    .json(&body),
            );
        }
    }
    for path in
        ["/v1/stats?token=canary-query", "/v1/policy?api_key=canary-query", "/?canary-query"]
    {
        for method in ["GET", "PUT", "DELETE"] {
            let request =
                Request::new(method, path).header("x-tidegate-token", "canary-of-the-admin");
            node.send(&request.body("{}"));
        }
    }
    let log = node.stderr();
    assert!(log.contains("\"decided\"") && log.contains("operator"), "{log}");
    let leaks: Vec<_> = log.lines().filter(|line| line.contains("canary")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[test]
fn what_http2_cannot_read_is_not_logged_either() {
    let node = Setup::policy(POLICY).variable("TIDEGATE_LOG", "trace").start();
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    // GET, http, and a path that is none; then a header that may not be there.
    let bad_path = [&[0x82, 0x86, 0x04], &text("/ ?api_key=canary-path")[..]].concat();
    let bad_header = [&[0x82, 0x86, 0x84, 0x00], &text("te")[..], &text("canary-header")].concat();
    for fields in [bad_path, bad_header] {
        let mut stream = TcpStream::connect(node.http).unwrap();
        let (settings, headers) = (frame(4, 0, 0, &[]), frame(1, 0x5, 1, &fields));
        stream
            .write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &headers].concat())
            .unwrap();
        // The stream is reset once it was looked at.
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            stream.read_exact(&mut vec![0; length as usize]).unwrap();
            if head[3] == 3 {
                break;
            }
        }
    }
    assert!(!node.stderr().contains("canary"), "{}", node.stderr());
}

#[test]
fn a_format_or_filter_that_means_nothing_is_refused_with_exit_2() {
    for (name, value) in [("TIDEGATE_LOG", "tidegate=loud"), ("TIDEGATE_LOG_FORMAT", "xml")] {
        let (code, stderr) = Setup::policy(POLICY).variable(name, value).place().refuse();
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(value), "{stderr}");
    }
}
