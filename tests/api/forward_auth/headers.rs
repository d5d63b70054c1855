//! What is read of the headers of a request, by which names.

use serde_json::json;

use super::{ACME, PATH, POLICY, ask, fault_path, left, left_of, start};
use crate::rig::Home;

#[test]
fn limits_are_keyed_by_what_the_headers_say() {
    let node = start("");
    let headers = |client, action| [ACME, ("X-Client-ID", client), ("x-action", action)];
    let answer = ask(&node, &headers("ann", "read"));
    assert_eq!(answer.header("ratelimit"), Some("\"action\";r=5;t=3600, \"hour\";r=9;t=3600"));
    let answer = ask(&node, &headers("ann", "wr\u{ef}te"));
    assert_eq!(answer.header("ratelimit"), Some("\"action\";r=5;t=3600, \"hour\";r=8;t=3600"));
    let answer = ask(&node, &headers("ann", "read"));
    assert_eq!(answer.header("ratelimit"), Some("\"action\";r=4;t=3600, \"hour\";r=7;t=3600"));
}

#[test]
fn the_names_of_the_headers_can_be_chosen_and_none_be_read() {
    let node = start(
        "[forward_auth]\ntenant_header = \"X-Org\"\nclient_header = \"\"\naction_header = \
         \"X_Verb\"\napi_key_header = \"X-Secret\"\ntier_header = \"X-Plan\"",
    );
    let headers =
        [("x-org", "acme"), ("x-tenant-id", "other"), ("x-client-id", "a"), ("x_verb", "read")];
    assert_eq!(ask(&node, &headers).status, 200);
    let check = json!({"tenant": "acme", "action": "read"}).to_string();
    let peeked = node.call("POST", "/v1/peek", check).json();
    assert_eq!(
        (&peeked["limits"][0]["name"], &peeked["limits"][0]["remaining"]),
        (&json!("action"), &json!(5))
    );
    assert_eq!((left(&node, "acme"), left(&node, "other")), (9, 10));

    let limits = ask(&node, &[("x-org", "b"), ("x-plan", "tiny"), ("x-secret", "k")]);
    assert_eq!(limits.header("ratelimit"), Some("\"hour\";r=1;t=3600, \"key\";r=4;t=3600"));
    assert_eq!(fault_path(&ask(&node, &[("x-org", "b"), ("x-plan", "huge")])), "X-Plan");
    assert_eq!(fault_path(&ask(&node, &[("x-org", "b"), ("x-plan", "a b")])), "X-Plan");
}

#[test]
fn a_header_that_cannot_be_read_is_named_and_nobody_is_charged() {
    let node = start("[forward_auth]\nrequest_id_header = \"X-Request-ID\"");
    let long = "x".repeat(300);
    for (name, value) in [
        ("X-Tenant-ID", "a b"),
        ("X-Tenant-ID", "anonymous@192.0.2.1"),
        ("X-Tenant-ID", "acme,other"),
        ("X-Tenant-ID", "\u{e9}"),
        ("X-Tenant-ID", &long),
        ("X-Client-ID", &long),
        ("X-Client-ID", "a\tb"),
        ("X-Action", &long),
        ("X-API-Key", &"k".repeat(1025)),
        ("X-Request-ID", "a b"),
        ("X-Forwarded-For", "unknown"),
        ("X-Real-IP", "::1::"),
        ("X-Forwarded-Method", "G T"),
        ("X-Forwarded-Uri", "no/slash"),
        ("X-Forwarded-Uri", "/health#/secret"),
        ("X-Forwarded-Uri", &format!("/{}", "x".repeat(2048))),
    ] {
        let answer = match name {
            "X-Tenant-ID" => ask(&node, &[(name, value)]),
            _ => ask(&node, &[ACME, (name, value)]),
        };
        assert_eq!(fault_path(&answer), name, "{name}: {value}");
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!((left(&node, "acme"), left_of(&node, "anonymous", "127.0.0.1")), (10, 10));
    assert_eq!((left(&node, "other"), left_of(&node, "anonymous", "192.0.2.1")), (10, 10));
}

#[test]
fn bytes_that_are_no_text_are_named_too() {
    let node = start("");
    for name in ["X-Tenant-ID", "X-Client-ID", "X-API-Key", "X-Forwarded-Uri", "X-Forwarded-For"] {
        let request =
            [format!("GET {PATH} HTTP/1.1\r\nhost: test\r\n{name}: a").as_bytes(), b"\xff\r\n\r\n"]
                .concat();
        assert_eq!(fault_path(&node.connect().ask(request).unwrap()), name);
    }
}

#[test]
fn a_header_that_stands_there_twice_is_a_fault_since_one_may_be_the_clients() {
    let node =
        start("[forward_auth]\nrequest_id_header = \"X-Request-ID\"\ntier_header = \"X-Plan\"");
    for name in [
        "X-Tenant-ID",
        "X-Client-ID",
        "X-Action",
        "X-API-Key",
        "X-Plan",
        "X-Request-ID",
        "X-Real-IP",
        "X-Forwarded-Method",
        "X-Forwarded-Uri",
    ] {
        assert_eq!(fault_path(&ask(&node, &[(name, "tiny"), (name, "tiny")])), name);
    }
}

#[test]
fn an_empty_header_counts_as_absent() {
    let node =
        start("[forward_auth]\nrequest_id_header = \"X-Request-ID\"\ntier_header = \"X-Plan\"");
    let names = [
        "x-client-id",
        "x-action",
        "x-api-key",
        "x-plan",
        "x-request-id",
        "x-tenant-id",
        "x-real-ip",
    ];
    let more = ["x-forwarded-for", "x-forwarded-method", "x-forwarded-uri"];
    let headers: Vec<_> = names.into_iter().chain(more).map(|name| (name, "")).collect();
    assert_eq!(ask(&node, &headers).status, 200);
    assert_eq!(left_of(&node, "anonymous", "127.0.0.1"), 9);
}

#[test]
fn an_api_key_comes_in_a_header_or_in_the_query_of_the_original_request() {
    let node = start("");
    let left_of_key = |key: &str| {
        let check = json!({"tenant": "friends-of-keys", "api_key": key}).to_string();
        let answer = node.call("POST", "/v1/peek", check).json();
        let limits = answer["limits"].as_array().unwrap();
        limits.iter().find(|limit| limit["name"] == "key").unwrap()["remaining"].as_u64().unwrap()
    };
    let uri = |uri| ("x-forwarded-uri", uri);
    assert_eq!(ask(&node, &[ACME, ("x-api-key", "k 1")]).status, 200);
    assert_eq!(ask(&node, &[ACME, uri("/a?x=1&api_key=k%201&y")]).status, 200);
    assert_eq!(ask(&node, &[ACME, uri("/a?api%5Fkey=k+1")]).status, 200);
    assert_eq!(ask(&node, &[ACME, ("x-api-key", "k 1"), uri("/a?api_key=k%201")]).status, 200);
    assert_eq!(ask(&node, &[ACME, uri("/a?api_key=&API_KEY=k%201")]).status, 200);
    assert_eq!((left_of_key("k 1"), left(&node, "acme")), (1, 5));

    // Of two keys the app may take the one that isn't charged.
    assert_eq!(fault_path(&ask(&node, &[ACME, uri("/a?api_key=k2&api_key=k3")])), "api_key");
    assert_eq!(
        fault_path(&ask(&node, &[ACME, ("x-api-key", "k2"), uri("/a?api_key=k3")])),
        "api_key"
    );
    assert_eq!(fault_path(&ask(&node, &[ACME, uri("/a?api_key=%00")])), "api_key");
    assert_eq!((left_of_key("k2"), left_of_key("k3"), left(&node, "acme")), (5, 5, 5));
}

#[test]
fn no_log_line_and_no_answer_holds_an_api_key_or_a_token() {
    let home = Home::new(
        POLICY,
        "[auth]\nadmin_tokens = [\"root-open-sesame\"]\ncheck_tokens = [\"proxy-open-sesame\"]",
    );
    let mut node = home.set_variable("TIDEGATE_LOG", "trace").start();
    for token in ["proxy-open-sesame", "root-open-sesame"] {
        for (name, value) in [
            ("x-api-key", "canary-1"),
            ("x-forwarded-uri", "/a?api_key=canary-2"),
            ("x-forwarded-uri", "/a?api_key=canary-3&api_key=canary-4"),
            ("x-api-key", &"canary-5".repeat(200)),
        ] {
            let answer = ask(&node, &[("x-tidegate-token", token), ACME, (name, value)]);
            assert!(!answer.text().contains("canary"), "{answer:?}");
        }
    }
    assert!(node.process.is_running());
    let log = node.process.log();
    assert!(log.contains("could not be judged"), "{log}");
    assert!(!log.contains("canary") && !log.contains("sesame"));
}

#[test]
fn a_request_id_is_read_only_from_the_header_that_is_configured_and_charged_once() {
    let node = start("");
    for _ in 0..2 {
        ask(&node, &[ACME, ("idempotency-key", "\"r1\""), ("x-request-id", "r1")]);
    }
    assert_eq!(left(&node, "acme"), 8);

    let node = start("[forward_auth]\nrequest_id_header = \"Idempotency-Key\"");
    for id in ["\"r1\"", "r1", "\"r1\""] {
        assert_eq!(ask(&node, &[ACME, ("idempotency-key", id)]).status, 200);
    }
    assert_eq!(left(&node, "acme"), 9);
    let another = [ACME, ("idempotency-key", "r1"), ("x-client-id", "ann")];
    assert_eq!(fault_path(&ask(&node, &another)), "Idempotency-Key");
    assert_eq!(left(&node, "acme"), 9);
}
