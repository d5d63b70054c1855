//! Whatever is sent instead of a request is refused by the name of what is wrong with it, takes
//! nothing, and gives nothing away.

mod checks;
mod policy;
mod tables;

use serde_json::{Value, json};

use self::tables::ANYWHERE;
use crate::rig::{Answer, Home, Node};

/// Secrets that no answer and no line of the log may repeat.
const ADMIN_TOKEN: &str = "canary-admin-7f3a9c";
const CHECK_TOKEN: &str = "canary-check-81b2d4";
const UNKNOWN_TOKEN: &str = "canary-unknown-5e60aa";
const API_KEY: &str = "canary-key-c0ffee";
const CANARY: &str = "canary";
/// What a line would begin with that a caller had smuggled into the log.
const FORGED: &str = "FORGED";

const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/h", burst = 1000 }]
[tiers.strict]
request_limits = "refuse"
[tenants.strict]
tier = "strict"
"#;

fn start() -> Node {
    let auth = format!(
        "[auth]\nadmin_tokens = [\"{ADMIN_TOKEN}\"]\ncheck_tokens = [\"{CHECK_TOKEN}\"]\n\
         [limits]\nbody_bytes = 4096\nbatch_body_bytes = 65536\npolicy_body_bytes = 65536"
    );
    Home::new(POLICY, &auth).set_variable("TIDEGATE_LOG", "trace").start()
}

/// A call with the token it needs; its answer has to keep the secrets.
fn call(node: &Node, method: &str, path: &str, body: &[u8]) -> Answer {
    let guarded = ["/v1/policy", "/v1/t", "/v1/access", "/v1/audit", "/api/config", "/admin"];
    let token =
        if guarded.iter().any(|start| path.starts_with(start)) { ADMIN_TOKEN } else { CHECK_TOKEN };
    let bearer = format!("Bearer {token}");
    let answer = node.connect().call(method, path, &[("authorization", &bearer)], body);
    keeps_secrets(&answer);
    answer
}

fn keeps_secrets(answer: &Answer) {
    let shown = format!("{:?} {}", answer.headers, answer.text());
    assert!(!shown.contains(CANARY), "{shown}");
}

/// The answer has to be a problem document that names `path`.
fn names(answer: &Answer, status: u16, path: &str, sent: &str) {
    let problem = answer.problem(status);
    has_fault(&problem, path, sent);
}

fn has_fault(problem: &Value, path: &str, sent: &str) {
    let faults = problem["errors"].as_array();
    let faults = faults.unwrap_or_else(|| panic!("{sent}: no errors in {problem}"));
    let found = faults.iter().any(|fault| {
        assert!(!fault["detail"].as_str().unwrap().is_empty(), "{problem}");
        fault["path"] == path
    });
    assert!(found, "{sent}: {path:?} is not named in {problem}");
}

fn refuses(node: &Node, path: &str, body: &[u8], fault: &str) {
    let sent = String::from_utf8_lossy(body).chars().take(200).collect::<String>();
    let answer = call(node, "POST", path, body);
    if fault == ANYWHERE {
        assert!(answer.problem(400)["errors"][0]["detail"].is_string(), "{sent}");
    } else {
        names(&answer, 400, fault, &format!("{path} {sent}"));
    }
}

/// What is left of every tenant that the bodies name.
fn all_that_is_left(node: &Node) -> Vec<Value> {
    ["a", "strict", "b"]
        .iter()
        .map(|tenant| {
            let question = json!({"tenant": tenant, "client": "c", "action": "x"}).to_string();
            call(node, "POST", "/v1/peek", question.as_bytes()).json()
        })
        .collect()
}

#[test]
fn a_bad_id_in_a_path_is_refused_as_a_problem() {
    let node = start();
    let long = "a".repeat(129);
    let bad = [
        "a%20b",
        "a%00",
        "a%0D%0AFORGED",
        "a%2Fb",
        "%C3%A4",
        "%FF",
        "%ED%A0%80",
        "a%40b",
        "*",
        "a+b",
        &long,
    ];
    for id in bad {
        for (method, path) in [
            ("GET", format!("/v1/tenants/{id}")),
            ("PUT", format!("/v1/tenants/{id}")),
            ("DELETE", format!("/v1/tenants/{id}")),
            ("POST", format!("/v1/tenants/{id}/reset")),
            ("PUT", format!("/v1/tenants/{id}/limits/n")),
            ("PUT", format!("/v1/tenants/x/limits/{id}")),
            ("DELETE", format!("/v1/tenants/x/limits/{id}")),
            ("GET", format!("/v1/tiers/{id}")),
            ("PUT", format!("/v1/tiers/{id}")),
            ("GET", format!("/v1/access/{id}")),
            ("DELETE", format!("/v1/access/{id}")),
            ("GET", format!("/api/config/tenant/{id}")),
            ("DELETE", format!("/api/config/tenant/{id}/action/x")),
            ("DELETE", format!("/api/config/tenant/{id}/client/c/action/x")),
            ("GET", format!("/admin/ratelimit/tenants/{id}")),
            ("DELETE", format!("/admin/ratelimit/tenants/{id}/reset")),
            ("DELETE", format!("/v1/permits/{id}")),
            ("POST", format!("/v1/permits/{id}/renew")),
            ("GET", format!("/api/status/{id}/c/x?max_requests=1&window_duration_seconds=1")),
        ] {
            let problem = call(&node, method, &path, b"{}").problem(400);
            assert!(problem["errors"][0]["path"].is_string(), "{method} {path}: {problem}");
        }
    }
    let control = "/api/status/a/%0AFORGED/x?max_requests=1&window_duration_seconds=1";
    names(&call(&node, "GET", control, b""), 400, "client", control);
    assert_eq!(call(&node, "GET", "/v1/policy", b"").header("etag"), Some("\"1\""));
}

#[test]
fn a_bad_renewal_extends_nothing() {
    let node = start();
    let check = r#"{"tenant":"b","permit":{"ttl_ms":60000}}"#;
    let permit = call(&node, "POST", "/v1/check", check.as_bytes()).json()["permit"]["id"].clone();
    let path = format!("/v1/permits/{}/renew", permit.as_str().unwrap());
    for (body, fault) in [
        (r#"{"ttl_ms":0}"#, "ttl_ms"),
        (r#"{"ttl_ms":999}"#, "ttl_ms"),
        (r#"{"ttl_ms":-1}"#, "ttl_ms"),
        (r#"{"ttl_ms":3600001}"#, "ttl_ms"),
        (r#"{"ttl_ms":1e30}"#, "ttl_ms"),
        (r#"{"ttl_ms":1.5}"#, "ttl_ms"),
        (r#"{"ttl_ms":"1m"}"#, "ttl_ms"),
        (r#"{"ttl_ms":60000,"ttl_ms":60000}"#, "ttl_ms"),
        (r#"{"tll_ms":60000}"#, "tll_ms"),
        ("[]", ""),
        ("60000", ""),
        ("{", ""),
    ] {
        refuses(&node, &path, body.as_bytes(), fault);
    }
    for id in [
        "p",
        "q00000000000000000000000000000000000",
        &"p0".repeat(18),
        "p0000000000000000000000000000000000G",
    ] {
        let answer = call(&node, "POST", &format!("/v1/permits/{id}/renew"), b"");
        names(&answer, 400, "id", id);
    }
    let nobodys = format!("/v1/permits/p{}/renew", "0".repeat(35));
    call(&node, "POST", &nobodys, b"").problem(404);
    assert_eq!(call(&node, "POST", &path, b"").status, 200);
}

#[test]
fn bad_parameters_and_headers_are_refused_by_name() {
    let node = start();
    let before = all_that_is_left(&node);
    for (method, path, fault) in [
        ("POST", "/v1/check?status=500", "status"),
        ("POST", "/v1/check?status=%FF", ANYWHERE),
        ("GET", "/v1/tenants?limit=0", "limit"),
        ("GET", "/v1/tenants?limit=-5", "limit"),
        ("GET", "/v1/tenants?limit=1001", "limit"),
        ("GET", "/v1/tenants?limit=99999999999999999999", "limit"),
        ("GET", "/v1/tenants?after=FORGED", "after"),
        ("GET", "/v1/tenants?after=active:-1:0", "after"),
        ("GET", "/v1/access?limit=99999999999999999999", "limit"),
        ("GET", "/v1/access?after=%0AFORGED", "after"),
        ("GET", "/v1/access?list=%00", "list"),
        ("GET", "/v1/audit?before=1e3", "before"),
        ("GET", "/v1/policy?version=99999999999999999999", "version"),
        ("GET", "/v1/policy?version=%FF", ANYWHERE),
        ("GET", "/api/config?after=%0AFORGED", "after"),
    ] {
        let body = if method == "POST" { &br#"{"tenant":"a"}"#[..] } else { b"" };
        let answer = call(&node, method, path, body);
        match fault {
            ANYWHERE => drop(answer.problem(400)),
            fault => names(&answer, 400, fault, path),
        }
    }
    let bearer = format!("Bearer {CHECK_TOKEN}");
    for key in ["", "a b", "\"\"", "\"a b\"", "\u{e4}", &"k".repeat(257)] {
        let headers = [("authorization", &*bearer), ("idempotency-key", key)];
        let answer = node.connect().call("POST", "/v1/check", &headers, br#"{"tenant":"a"}"#);
        names(&answer, 400, "Idempotency-Key", key);
    }
    let headers = [("authorization", &*bearer), ("idempotency-key", "one")];
    let answer = node.connect().call(
        "POST",
        "/v1/check",
        &headers,
        br#"{"tenant":"a","request_id":"other"}"#,
    );
    names(&answer, 400, "Idempotency-Key", "one");
    // Well-formed, but impossible.
    for (body, fault) in [
        (r#"{"tenant":"a","tier":"nowhere"}"#, "tier"),
        (
            r#"{"tenant":"strict","limits":[{"name":"n","algorithm":"token_bucket","rate":"1/s"}]}"#,
            "limits",
        ),
    ] {
        for path in ["/v1/check", "/v1/peek"] {
            names(&call(&node, "POST", path, body.as_bytes()), 422, fault, body);
        }
    }
    assert_eq!(all_that_is_left(&node), before);
}

#[test]
fn no_answer_and_no_line_of_the_log_holds_a_key_a_token_or_a_forged_line() {
    let node = start();
    let bearer = |token: &str| format!("Bearer {token}");
    let key = format!(r#"{{"tenant":"a","api_key":"{API_KEY}"}}"#);
    let spoilt = format!(r#"{{"tenant":"a","api_key":"{API_KEY}","cost":-1}}"#);
    let broken = format!(r#"{{"tenant":"a","api_key":"{API_KEY}"#);
    let listed = format!(r#"{{"list":"deny","api_key":"{API_KEY}"}}"#);
    for token in [ADMIN_TOKEN, CHECK_TOKEN, UNKNOWN_TOKEN] {
        for (method, path) in [
            ("POST", "/v1/check"),
            ("POST", "/v1/peek"),
            ("GET", "/v1/policy"),
            ("PUT", "/v1/policy"),
            ("PUT", "/v1/tenants/x"),
            ("POST", "/v1/access"),
            ("PUT", "/api/config/global"),
            ("POST", "/v1/tenants/x/reset"),
            ("GET", "/livez"),
            ("GET", "/nowhere"),
            ("DELETE", "/v1/check"),
        ] {
            for body in [&key, &spoilt, &broken, &listed] {
                for name in ["authorization", "x-tidegate-token"] {
                    let value =
                        if name == "authorization" { bearer(token) } else { token.to_string() };
                    let answer =
                        node.connect().call(method, path, &[(name, &value)], body.as_bytes());
                    keeps_secrets(&answer);
                }
            }
        }
    }
    let forged: [(&str, &str, &[u8]); 6] = [
        ("POST", "/v1/tenants/a%0D%0AFORGED%00/reset", b""),
        ("PUT", "/v1/tenants/a%0AFORGED", b"{}"),
        ("DELETE", "/v1/tiers/%0AFORGED", b""),
        ("GET", "/v1/tenants?after=%0D%0AFORGED%00", b""),
        ("POST", "/v1/check", b"{\"tenant\":\"a\\r\\nFORGED\\u0000\"}"),
        ("POST", "/v1/check", b"{\"tenant\":\"a\",\"action\":\"\\nFORGED\",\"\\nFORGED\":1}"),
    ];
    for (method, path, body) in forged {
        let answer = call(&node, method, path, body);
        assert!((400..500).contains(&answer.status), "{method} {path}");
        assert!(!answer.headers.iter().any(|(_, value)| value.contains(FORGED)));
        assert!(!answer.body.iter().any(|byte| *byte < b' '), "{}", answer.text());
    }
    // A forged line needs no good request: here the head itself is spoilt.
    for head in [
        "GET /\u{7f}\0FORGED HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\0FORGED\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost\0FORGED: x\r\n\r\n",
        "FORGED\r\n\r\n",
    ] {
        if let Some(answer) = node.connect().ask(head) {
            assert!((400..500).contains(&answer.status), "{head:?}");
        }
    }
    // Something is logged at all, so that silence proves something.
    assert_eq!(call(&node, "POST", "/v1/tenants/x/reset", b"").status, 200);
    let (_, log) = node.stop();
    assert!(log.contains("tenant reset"), "{log}");
    assert!(!log.contains(CANARY), "{log}");
    for line in log.lines() {
        assert!(!line.starts_with(FORGED), "{line}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}
