//! What a proxy is answered: its status, its headers, its body.

use serde_json::json;

use super::{ACME, PATH, ask, ask_at, fault_path, left, start};
use crate::rig::head;

#[test]
fn any_method_and_any_path_below_is_allowed_with_200_no_body_and_the_headers() {
    let node = start("");
    let methods = [
        "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "get",
    ];
    let paths = [
        "",
        "/",
        "/a",
        "/a/b.c/",
        "//",
        "/../x",
        "/%ff",
        "/%zz",
        "/a?b=c",
        "?x",
        "?policy=default",
        "?q=%ff&%zz=&&=",
        "/check",
    ];
    for (i, method) in methods.into_iter().enumerate() {
        for (j, path) in paths.into_iter().enumerate() {
            let tenant = format!("t{i}-{j}");
            let answer =
                ask_at(&node, method, &format!("{PATH}{path}"), &[("x-tenant-id", &tenant)]);
            let what = format!("{method} {path}: {answer:?}");
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{what}");
            assert_eq!(answer.header("content-length"), Some("0"), "{what}");
            assert!(answer.header("ratelimit").unwrap().contains("\"hour\";r=9;t=3600"), "{what}");
            assert!(
                answer.header("ratelimit-policy").unwrap().contains("\"hour\";q=10;w=3600"),
                "{what}"
            );
            assert_eq!(left(&node, &tenant), 9, "{what}");
        }
    }
    assert_eq!(ask_at(&node, "GET", "/v1/forward-authority", &[]).status, 404);
}

#[test]
fn a_denial_is_429_with_headers_and_a_problem_document() {
    let node = start("");
    let headers =
        [("x-tenant-id", "small"), ("x-forwarded-method", "PUT"), ("x-forwarded-uri", "/a/b?c=d")];
    for _ in 0..2 {
        assert_eq!(ask(&node, &headers).status, 200);
    }
    let answer = ask_at(&node, "POST", PATH, &headers);
    let problem = answer.problem(429);
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((&problem["instance"], &problem["tenant"]), (&json!("/a/b"), &json!("small")));
    assert_eq!(problem["violated-policies"], json!(["hour"]));
    let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&retry_after), "{answer:?}");
    assert!(answer.header("ratelimit").unwrap().starts_with("\"hour\";r=0;t="), "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), Some("\"hour\";q=2;w=3600"));
}

#[test]
fn head_is_answered_like_get_and_without_a_body() {
    let node = start("");
    for expected in [200, 200, 429, 429] {
        let mut wire = node.connect();
        wire.send(head("HEAD", PATH, &[("x-tenant-id", "small")], 0)).unwrap();
        let (status, headers) = wire.answer_head().unwrap();
        assert_eq!(status, expected);
        assert!(headers.iter().any(|(name, _)| name == "ratelimit"), "{headers:?}");
        // The connection goes on with the next answer: no byte of a body stood between.
        assert_eq!(wire.call("GET", "/livez", &[], b"").text(), "ok\n");
    }
}

#[test]
fn a_body_is_neither_read_nor_waited_for() {
    let node = start("");
    for tail in [
        "content-length: 1000000\r\n\r\n",
        "content-length: 1000000\r\nexpect: 100-continue\r\n\r\n",
        "content-length: 9\r\n\r\nnot JSON",
        "transfer-encoding: chunked\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\n{\"ten",
        "content-type: application/json\r\ncontent-length: 16\r\n\r\n{\"tenant\":\"x y\"}",
    ] {
        let request =
            format!("POST {PATH} HTTP/1.1\r\nhost: test\r\nx-tenant-id: friend\r\n{tail}");
        assert_eq!(node.connect().ask(request).unwrap().status, 200, "{tail:?}");
    }
}

#[test]
fn the_status_of_a_denial_can_be_403_for_proxies_that_pass_that_on_quietly() {
    let node = start("");
    let path = format!("{PATH}?deny_status=403");
    let headers = [("x-tenant-id", "small")];
    for expected in [200, 200, 403] {
        let answer = ask_at(&node, "GET", &path, &headers);
        assert_eq!(answer.status, expected, "{answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), expected == 403);
    }
    assert_eq!(ask_at(&node, "GET", &path, &[("x-tenant-id", "a b")]).status, 403);
    assert_eq!(ask_at(&node, "GET", &format!("{PATH}?deny_status=429"), &headers).status, 429);
    for wrong in ["200", "500", "503", "204", ""] {
        let answer = ask_at(&node, "GET", &format!("{PATH}?deny_status={wrong}"), &[ACME]);
        assert_eq!(fault_path(&answer), "deny_status");
    }
    assert_eq!(left(&node, "acme"), 10);
}

#[test]
fn lists_decide_and_permits_are_not_taken() {
    let node = start("");
    assert_eq!(
        ask(&node, &[("x-tenant-id", "banned")]).problem(429)["denied_by"]["reason"],
        "deny_list"
    );
    for _ in 0..20 {
        assert_eq!(ask(&node, &[("x-tenant-id", "friend")]).status, 200);
    }
    // Tier `tiny` has one permit.
    for _ in 0..2 {
        assert_eq!(ask(&node, &[("x-tenant-id", "small")]).status, 200);
    }
}
