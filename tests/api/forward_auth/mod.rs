//! `/v1/forward-auth`: what a reverse proxy asks before it passes a request on. The proxies
//! themselves are in `behind_proxies.rs`; here each header is sent by hand.

mod answers;
mod headers;
mod paths;

use serde_json::json;

use crate::rig::{Answer, Home, Node};

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
