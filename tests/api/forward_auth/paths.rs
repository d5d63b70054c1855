//! Which tenant or address a request is charged to, and what it costs: addresses, original paths,
//! and the paths that may pass without a check.

use super::{ACME, PATH, ask, ask_at, fault_path, left, left_of, start};

#[test]
fn without_a_tenant_the_address_is_charged() {
    let node = start("");
    let from = |ip| [("x-forwarded-for", ip)];
    for _ in 0..6 {
        assert_eq!(ask(&node, &from("203.0.113.1")).status, 200);
    }
    assert_eq!(ask(&node, &from("203.0.113.1")).problem(429)["tenant"], "anonymous");
    assert_eq!(ask(&node, &from("6.6.6.6, ::ffff:203.0.113.1")).status, 429);
    assert_eq!(ask(&node, &from("203.0.113.2")).status, 200);
    assert_eq!(ask(&node, &[("x-real-ip", "203.0.113.2")]).status, 200);
    assert_eq!(left_of(&node, "anonymous", "203.0.113.1"), 4);
    assert_eq!(left_of(&node, "anonymous", "203.0.113.2"), 8);
    assert_eq!(left_of(&node, "anonymous", "127.0.0.1"), 10);
}

#[test]
fn who_is_no_trusted_proxy_speaks_for_himself_alone() {
    let node = start("[forward_auth]\ntrusted_proxies = [\"10.0.0.0/8\"]");
    for forged in ["203.0.113.1", "203.0.113.2", "not an address"] {
        let headers = [
            ("x-forwarded-for", forged),
            ("x-real-ip", forged),
            ("x-forwarded-uri", "/health"),
            ("x-forwarded-method", "POST"),
        ];
        assert_eq!(ask(&node, &headers).status, 200);
    }
    assert_eq!(left_of(&node, "anonymous", "203.0.113.1"), 10);
    assert_eq!(left_of(&node, "anonymous", "127.0.0.1"), 7);

    let expensive = [ACME, ("x-forwarded-method", "POST"), ("x-forwarded-uri", "/ocr/process")];
    assert_eq!(ask(&node, &expensive).status, 200);
    assert_eq!(left(&node, "acme"), 9);
}

#[test]
fn a_request_costs_what_its_endpoint_costs_however_its_path_is_spelt() {
    let node = start("");
    for (i, (method, uri, cost)) in [
        ("POST", "/ocr/process", 4),
        ("POST", "/ocr/process?page=2", 4),
        ("POST", "https://api.example.com/ocr/process", 4),
        ("POST", "/ocr/%70rocess", 4),
        ("POST", "/x/../ocr/./process", 4),
        ("POST", "/x/%2e%2e/ocr/process", 4),
        ("GET", "/ocr/process", 1),
        ("POST", "/ocr/process/x", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let tenant = format!("t{i}");
        let headers =
            [("x-tenant-id", &*tenant), ("x-forwarded-method", method), ("x-forwarded-uri", uri)];
        assert_eq!(ask(&node, &headers).status, 200);
        assert_eq!(left(&node, &tenant), 10 - cost, "{method} {uri}");
    }
}

#[test]
fn method_and_path_come_from_where_the_configuration_says_and_from_nowhere_else() {
    let ocr = |kind: &str| match kind {
        "forwarded" => vec![("x-forwarded-method", "POST"), ("x-forwarded-uri", "/ocr/process")],
        "uri" => vec![("x-original-method", "POST"), ("x-original-uri", "/ocr/process")],
        "url" => vec![
            ("x-original-method", "POST"),
            ("x-original-url", "http://a.example/ocr/process?a"),
        ],
        _ => vec![],
    };
    for (origin, read) in [
        ("forwarded", &["forwarded"][..]),
        ("original", &["uri", "url"]),
        ("suffix", &["suffix"]),
        ("auto", &["forwarded", "uri", "url", "suffix"]),
    ] {
        let node = start(&format!("[forward_auth]\noriginal = \"{origin}\""));
        for kind in ["forwarded", "uri", "url", "suffix"] {
            let mut headers = ocr(kind);
            headers.push(("x-tenant-id", kind));
            let path =
                if kind == "suffix" { format!("{PATH}/ocr/process?a=b") } else { PATH.into() };
            let method = if kind == "suffix" { "POST" } else { "GET" };
            assert_eq!(ask_at(&node, method, &path, &headers).status, 200);
            let cost = if read.contains(&kind) { 4 } else { 1 };
            assert_eq!(left(&node, kind), 10 - cost, "{origin}, told by {kind}");
        }
    }
}

#[test]
fn two_names_for_the_original_path_have_to_agree() {
    let node = start("[forward_auth]\noriginal = \"original\"");
    let told = |uri, url| ask(&node, &[ACME, ("x-original-uri", uri), ("x-original-url", url)]);
    assert_eq!(told("/a?b", "https://api.example.com/a?b").status, 200);
    assert_eq!(fault_path(&told("/health", "/secret")), "X-Original-URL");
    assert_eq!(fault_path(&told("/a?api_key=x", "/a?api_key=y")), "X-Original-URL");
}

#[test]
fn where_the_original_query_follows_ours_it_does_not_speak_to_us() {
    let node = start("[forward_auth]\noriginal = \"suffix\"\n");
    for _ in 0..2 {
        assert_eq!(
            ask_at(&node, "GET", &format!("{PATH}/a?deny_status=1"), &[("x-tenant-id", "small")])
                .status,
            200
        );
    }
    let answer =
        ask_at(&node, "GET", &format!("{PATH}/a?deny_status=403"), &[("x-tenant-id", "small")]);
    assert_eq!(answer.problem(429)["instance"], "/a");
    assert_eq!(
        ask_at(&node, "GET", &format!("{PATH}/health?x"), &[("x-tenant-id", "small")]).status,
        200
    );
}

#[test]
fn a_bypass_covers_its_path_and_what_is_below_and_charges_nobody() {
    let node = start("");
    let below =
        ["/health", "/health/live?verbose", "/metrics", "/docs/a/b.html", "/openapi.json?x=/../"];
    for uri in below {
        for tenant in ["acme", "banned", "no tenant id"] {
            let answer = ask(&node, &[("x-tenant-id", tenant), ("x-forwarded-uri", uri)]);
            assert_eq!(
                (answer.status, answer.header("ratelimit")),
                (200, None),
                "{uri}: {answer:?}"
            );
        }
    }
    assert_eq!(left(&node, "acme"), 10);
}

#[test]
fn a_path_that_only_looks_like_a_bypass_is_charged() {
    let node = start("");
    let evasions = [
        "/healthy",
        "/HEALTH",
        "/api/health",
        "/health/../secret",
        "/health/%2e%2e/secret",
        "/health/%252e%252e/secret",
        "/health/..%2fsecret",
        "/health/..\\secret",
        "/health/..;/secret",
        "/health;/../secret",
        "//health",
        "/health//secret",
        "/secret/../health",
        "/secret?/health",
    ];
    for (i, uri) in evasions.into_iter().enumerate() {
        let tenant = format!("t{i}");
        assert_eq!(ask(&node, &[("x-tenant-id", &tenant), ("x-forwarded-uri", uri)]).status, 200);
        assert_eq!(left(&node, &tenant), 9, "{uri}");
    }
}

#[test]
fn the_bypass_can_be_chosen_or_be_nothing() {
    let node = start("[forward_auth]\nbypass = [\"/static/\"]");
    ask(&node, &[ACME, ("x-forwarded-uri", "/static/a.css")]);
    ask(&node, &[ACME, ("x-forwarded-uri", "/static")]);
    assert_eq!(left(&node, "acme"), 10);
    ask(&node, &[ACME, ("x-forwarded-uri", "/health")]);
    assert_eq!(left(&node, "acme"), 9);

    let node = start("[forward_auth]\nbypass = []");
    ask(&node, &[ACME, ("x-forwarded-uri", "/health")]);
    assert_eq!(left(&node, "acme"), 9);
}
