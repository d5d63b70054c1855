//! `/v1/forward-auth`: what a reverse proxy asks before it passes a request on. The proxies
//! themselves are in `behind_proxies.rs`; here each header is sent by hand.

use serde_json::json;

use crate::rig::{Answer, Home, Node, head};

/// Ten an hour for each tenant; an expensive endpoint; limits per client and per API key that are
/// never reached here.
const POLICY: &str = r#"
default_tier = "free"
costs = [{ method = "POST", path = "/ocr/process", cost = 4 }]
limits = [{ name = "key", per = ["api_key"], algorithm = "sliding_log", limit = 5, window = "1h" }]
[tiers.free]
limits = [
  { name = "hour", per = ["tenant"], algorithm = "sliding_log", limit = 10, window = "1h" },
  { name = "action", per = ["tenant", "client", "action"], algorithm = "sliding_log", limit = 6, window = "1h" },
]
[tiers.tiny]
max_concurrent = 1
limits = [{ name = "hour", algorithm = "sliding_log", limit = 2, window = "1h" }]
[tenants.small]
tier = "tiny"
[access.banned]
list = "deny"
tenant = "banned"
[access.friend]
list = "allow"
tenant = "friend"
"#;

const PATH: &str = "/v1/forward-auth";
const ACME: (&str, &str) = ("x-tenant-id", "acme");

fn start(section: &str) -> Node {
    Home::new(POLICY, section).start()
}

fn ask(node: &Node, headers: &[(&str, &str)]) -> Answer {
    ask_at(node, "GET", PATH, headers)
}

fn ask_at(node: &Node, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    node.connect().call(method, path, headers, b"")
}

/// What the limit `hour` has left for a tenant, of an address where it is `anonymous`.
fn left_of(node: &Node, tenant: &str, ip: &str) -> u64 {
    let answer =
        node.call("POST", "/v1/peek", json!({"tenant": tenant, "ip": ip}).to_string()).json();
    let limits = answer["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["name"] == "hour").unwrap()["remaining"].as_u64().unwrap()
}

fn left(node: &Node, tenant: &str) -> u64 {
    left_of(node, tenant, "192.0.2.1")
}

/// The only fault of a denial that is about the question itself.
fn fault_path(answer: &Answer) -> String {
    let problem = answer.problem(429);
    assert_eq!(problem["type"], "urn:tidegate:problem:bad-input", "{problem}");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
    let path = problem["errors"][0]["path"].as_str().unwrap();
    assert!(problem["detail"].as_str().unwrap().starts_with(path), "{problem}");
    path.into()
}

// -----------------------------------------------------------------------------------------------------------
// answers

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

// -----------------------------------------------------------------------------------------------------------
// headers

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
        "[forward_auth]\ntenant_header = \"X-Org\"\nclient_header = \
                      \"\"\naction_header = \"X_Verb\"\napi_key_header = \"X-Secret\"\ntier_header \
                      = \"X-Plan\"",
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

// -----------------------------------------------------------------------------------------------
// who asks about what

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

// ------------------------------------------------------------------------------------------------------------
// bypass

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

// ------------------------------------------------------------------------------------------------------------
// access

#[test]
fn a_check_token_is_asked_for_in_our_own_header_alone() {
    let tokens = "[auth]\nadmin_tokens = [\"root-open-sesame\"]\nread_tokens = \
                  [\"eyes-open-sesame\"]\ncheck_tokens = [\"proxy-open-sesame\"]";
    let node = start(tokens);
    let (own, authorization) = ("x-tidegate-token", "authorization");
    for (headers, expected) in [
        (&[][..], 401),
        (&[(own, "proxy-open-sesame")], 200),
        (&[(own, "root-open-sesame")], 200),
        (&[(own, "eyes-open-sesame")], 403),
        (&[(own, "nobody")], 401),
        (&[(authorization, "Bearer proxy-open-sesame")], 401),
        (&[(own, "proxy-open-sesame"), (authorization, "Bearer of an end user")], 200),
    ] {
        let headers: Vec<_> = headers.iter().copied().chain([("x-tenant-id", "friend")]).collect();
        for path in ["", "/a/b", "?deny_status=403"] {
            let answer = ask_at(&node, "GET", &format!("{PATH}{path}"), &headers);
            assert_eq!(answer.status, expected, "{headers:?}");
        }
    }
}

#[test]
fn without_a_check_token_whatever_the_end_user_sends_is_ignored() {
    let node = start("[auth]\nadmin_tokens = [\"root-open-sesame\"]");
    for name in ["authorization", "x-tidegate-token"] {
        assert_eq!(ask(&node, &[ACME, (name, "Bearer nobody")]).status, 200);
    }
}

#[test]
fn a_section_with_faults_is_refused_at_start() {
    let section = "[forward_auth]\ntenant_header = \"X Tenant\"\nbypas = []\ntrusted_proxies = \
                   [\"10.0.0.0/33\"]";
    let mut process = Home::new(POLICY, section).run();
    assert_eq!(process.end().code(), Some(2));
    for path in
        ["tenant_header", "trusted_proxies[0]", "bypas: unknown member; did you mean bypass?"]
    {
        assert!(process.log().contains(&format!("forward_auth.{path}")), "{}", process.log());
    }
}

#[test]
fn many_questions_on_one_connection_are_charged_one_by_one() {
    let node = start("");
    let mut wire = node.connect();
    let statuses: Vec<_> = (0..12)
        .map(|_| {
            wire.call("GET", PATH, &[("x-tenant-id", "one"), ("x-client-id", "c")], b"").status
        })
        .collect();
    assert_eq!(statuses, [[200; 6].as_slice(), &[429; 6]].concat());
    assert_eq!(left(&node, "one"), 4);
}
