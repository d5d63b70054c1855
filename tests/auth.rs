//! Who may decide, see, and change.

mod support;

use serde_json::{Value, json};
use support::{Node, Request, Setup};

const POLICY: &str = "default_tier = \"free\"\n[tiers.free]\n[tiers.spare]\n[tenants.acme]\n";
const TOKENS: &str = r#"
[auth]
admin_tokens = ["env:SECRET_OF_ADMIN"]
[[auth.tokens]]
name = "dashboard"
role = "read"
value = "read-open-sesame"
[[auth.tokens]]
name = "gateway"
role = "check"
value = "check-open-sesame"
"#;
const ADMIN: &str = "admin-open-sesame";

fn with_tokens() -> Node {
    Setup::policy(POLICY).section(TOKENS).variable("SECRET_OF_ADMIN", ADMIN).start()
}

fn with_admin_token_only() -> Node {
    Setup::policy(POLICY).section("[auth]\nadmin_tokens = [\"admin-open-sesame\"]").start()
}

/// What a route is for, and so who may use it.
#[derive(Clone, Copy, Debug)]
enum For {
    Deciding,
    Reading,
    Changing,
    Everybody,
}

/// Every route, with a body that it takes. Those that change something are last.
fn routes() -> Vec<(For, &'static str, &'static str, Option<Value>)> {
    let check = || Some(json!({"tenant": "acme"}));
    let permit = "/v1/permits/p00000000000000000000000000000000000";
    let renew = "/v1/permits/p00000000000000000000000000000000000/renew";
    let quantity = || Some(json!({"max_requests": 10, "window_duration_seconds": 60}));
    let consume = json!({"tenant_id": "acme", "client_id": "ann", "action_type": "read",
                         "max_requests": 10, "window_duration_seconds": 60});
    vec![
        (For::Everybody, "GET", "/livez", None),
        (For::Everybody, "GET", "/readyz", None),
        (For::Everybody, "GET", "/readyz?verbose", None),
        (For::Everybody, "GET", "/metrics", None),
        (For::Everybody, "GET", "/openapi.json", None),
        (For::Everybody, "GET", "/version", None),
        (For::Everybody, "GET", "/api/health", None),
        (For::Deciding, "POST", "/v1/check", check()),
        (For::Deciding, "POST", "/v1/check?status=429", check()),
        (For::Deciding, "POST", "/v1/peek", check()),
        (For::Deciding, "POST", "/v1/check/batch", Some(json!({"checks": [{"tenant": "acme"}]}))),
        (For::Deciding, "DELETE", permit, None),
        (For::Deciding, "POST", renew, None),
        (For::Deciding, "POST", "/api/check_and_consume", Some(consume)),
        (For::Deciding, "GET", "/api/status/acme/ann/read?max_requests=10&window_duration_seconds=60", None),
        (For::Reading, "GET", "/v1/policy", None),
        (For::Reading, "GET", "/v1/policy?version=1", None),
        (For::Reading, "GET", "/v1/policy/history", None),
        (For::Reading, "GET", "/v1/audit", None),
        (For::Reading, "GET", "/v1/access", None),
        (For::Reading, "GET", "/v1/access/x", None),
        (For::Reading, "GET", "/api/config", None),
        (For::Reading, "GET", "/api/config/tenant/acme", None),
        (For::Reading, "GET", "/admin/ratelimit/tenants", None),
        (For::Reading, "GET", "/admin/ratelimit/tenants/acme", None),
        (For::Reading, "GET", "/admin/ratelimit/quotas", None),
        (For::Reading, "GET", "/v1/tiers/free", None),
        (For::Reading, "GET", "/v1/tenants", None),
        (For::Reading, "GET", "/v1/stats", None),
        (For::Reading, "GET", "/v1/alerts", None),
        (For::Reading, "GET", "/v1/cluster", None),
        (For::Reading, "GET", "/v1/cluster/breakers", None),
        (For::Reading, "GET", "/api/stats", None),
        (For::Reading, "GET", "/api/alerts", None),
        (For::Reading, "GET", "/v1/tenants/acme", None),
        (For::Changing, "POST", "/v1/tenants/acme/reset", None),
        (For::Changing, "DELETE", "/admin/ratelimit/tenants/acme/reset", None),
        (For::Changing, "POST", "/admin/ratelimit/circuit-breaker/reset", None),
        (For::Changing, "POST", "/v1/cluster/breakers/n2/reset", None),
        (
            For::Changing,
            "PUT",
            "/v1/tenants/acme/limits/x",
            Some(json!({"algorithm": "sliding_log", "limit": 5, "window": "1h"})),
        ),
        (For::Changing, "DELETE", "/v1/tenants/acme/limits/x", None),
        (For::Changing, "PUT", "/v1/tenants/globex", Some(json!({}))),
        (For::Changing, "DELETE", "/v1/tenants/globex", None),
        (For::Changing, "PUT", "/v1/tiers/gold", Some(json!({}))),
        (For::Changing, "DELETE", "/v1/tiers/gold", None),
        (For::Changing, "PUT", "/v1/policy/enforce", Some(json!({"enforce": true}))),
        (For::Changing, "POST", "/v1/policy/rollback?dry_run=true", Some(json!({"version": 1}))),
        (For::Changing, "POST", "/v1/access", Some(json!({"id": "x", "list": "deny", "tenant": "nobody"}))),
        (For::Changing, "DELETE", "/v1/access/x", None),
        (For::Changing, "PUT", "/api/config/global", quantity()),
        (For::Changing, "PUT", "/api/config/tenant/acme/action/read", quantity()),
        (For::Changing, "DELETE", "/api/config/tenant/acme/action/read", None),
        (For::Changing, "PUT", "/api/config/tenant/acme/client/ann/action/read", quantity()),
        (For::Changing, "DELETE", "/api/config/tenant/acme/client/ann/action/read", None),
        (
            For::Changing,
            "PUT",
            "/v1/policy?dry_run=true",
            Some(json!({"default_tier": "free", "tiers": {"free": {}}})),
        ),
        (For::Changing, "PUT", "/v1/policy", Some(json!({"default_tier": "free", "tiers": {"free": {}}}))),
    ]
}

fn call(
    node: &Node,
    method: &str,
    path: &str,
    body: Option<&Value>,
    headers: &[(&str, &str)],
) -> support::Answer {
    let mut request = Request::new(method, path);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    node.send(&request)
}

fn version(node: &Node, token: &str) -> String {
    let request = Request::new("GET", "/v1/policy").header("authorization", &format!("Bearer {token}"));
    node.send(&request).header("etag").to_string()
}

#[test]
fn every_route_lets_in_the_roles_it_is_for_and_nobody_else() {
    let node = with_tokens();
    for (token, deciding, reading, changing) in [
        (None, 401, 401, 401),
        (Some("nobody-open-sesame"), 401, 401, 401),
        (Some("check-open-sesame"), 200, 403, 403),
        (Some("read-open-sesame"), 403, 200, 403),
        (Some(ADMIN), 200, 200, 200),
    ] {
        for (kind, method, path, body) in routes() {
            let expected = match kind {
                For::Everybody => 200,
                For::Deciding => deciding,
                For::Reading => reading,
                For::Changing => changing,
            };
            let bearer = token.map(|token| format!("Bearer {token}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
            let answer = call(&node, method, path, body.as_ref(), &headers);
            let what = format!("{method} {path} with {token:?}: {answer:?}");
            if expected == 200 {
                assert!(!matches!(answer.status, 401 | 403 | 405 | 500..), "{what}");
            } else {
                answer.problem(expected);
                let challenge = if expected == 401 { "Bearer" } else { "" };
                assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
            }
        }
        // Nobody but the admin has changed anything: a limit and a tenant put and deleted, a tier and a list entry too, the kill
        // switch, a limit for all calls and two of a tenant, these deleted, and the policy.
        let expected = if token == Some(ADMIN) { "\"16\"" } else { "\"1\"" };
        assert_eq!(version(&node, ADMIN), expected, "{token:?}");
    }
}

#[test]
fn without_a_check_token_deciding_needs_none_and_ignores_what_is_sent() {
    let node = with_admin_token_only();
    for headers in [
        &[][..],
        &[("authorization", "Bearer nobody-open-sesame")],
        &[("authorization", "Basic ZW5kOnVzZXI=")],
        &[("x-tidegate-token", "nobody-open-sesame")],
    ] {
        for (kind, method, path, body) in routes() {
            let answer = call(&node, method, path, body.as_ref(), headers);
            let refused = matches!(kind, For::Reading | For::Changing);
            assert_eq!(answer.status == 401, refused, "{method} {path} with {headers:?}: {answer:?}");
        }
    }
    assert_eq!(version(&node, ADMIN), "\"1\"");
}

#[test]
fn without_auth_everybody_may_do_everything_on_loopback() {
    let node = Setup::policy(POLICY).start();
    for (_, method, path, body) in routes() {
        let answer =
            call(&node, method, path, body.as_ref(), &[("authorization", "Bearer nobody-open-sesame")]);
        assert!(!matches!(answer.status, 401 | 403 | 405 | 500..), "{method} {path}: {answer:?}");
    }
}

#[test]
fn a_page_in_a_browser_changes_nothing_where_there_are_no_tokens() {
    let node = Setup::policy(POLICY).start();
    for (kind, method, path, body) in routes() {
        let answer = call(&node, method, path, body.as_ref(), &[("origin", "https://elsewhere.example")]);
        assert_eq!(answer.status == 403, matches!(kind, For::Changing), "{method} {path}: {answer:?}");
    }
    assert_eq!(version(&node, ""), "\"1\"");
}

#[test]
fn a_header_of_our_own_may_carry_the_token_and_counts_before_authorization() {
    let node = with_tokens();
    let status = |headers: &[(&str, &str)]| call(&node, "GET", "/v1/policy", None, headers).status;
    let (own, bearer) = ("x-tidegate-token", "authorization");
    for (headers, expected) in [
        (&[(own, ADMIN)][..], 200),
        (&[(own, "read-open-sesame")], 200),
        (&[(own, "nobody-open-sesame")], 401),
        (&[(own, "")], 401),
        (&[(own, ADMIN), (bearer, "Bearer an-end-users")], 200),
        (&[(own, "nobody-open-sesame"), (bearer, "Bearer admin-open-sesame")], 401),
        (&[(bearer, "bearer admin-open-sesame")], 200),
        (&[(bearer, "Basic admin-open-sesame")], 401),
        (&[(bearer, "admin-open-sesame")], 401),
        (&[(bearer, "Bearer ")], 401),
        (&[(bearer, "Bearer admin-sesam")], 401),
        (&[(bearer, "Bearer admin-open-sesame2")], 401),
        (&[(bearer, "Bearer ADMIN-SESAME")], 401),
    ] {
        assert_eq!(status(headers), expected, "{headers:?}");
    }
}

#[test]
fn a_refusal_comes_before_any_look_at_the_body() {
    let node = with_tokens();
    for (method, path) in
        [("POST", "/v1/check"), ("POST", "/v1/check/batch"), ("PUT", "/v1/policy"), ("PUT", "/v1/tiers/a:b")]
    {
        for (token, expected) in [("nobody-open-sesame", 401), ("read-open-sesame", 403)] {
            let request =
                Request::new(method, path).header("x-tidegate-token", token).body("{ not even JSON");
            node.send(&request).problem(expected);
        }
    }
}

#[test]
fn an_open_address_without_auth_is_refused_with_exit_2_and_with_auth_it_is_not() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let (code, stderr) = Setup::policy(POLICY).http(address).place().refuse();
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("nodes[0].http") && stderr.contains("[auth]"), "{stderr}");
    }
    let node = Setup::policy(POLICY)
        .http("0.0.0.0:0")
        .section("[auth]\nadmin_tokens = [\"admin-open-sesame\"]")
        .start();
    assert_eq!(version(&node, ADMIN), "\"1\"");
    assert_eq!(version(&node, "nobody-open-sesame"), "");
}

#[test]
fn an_auth_section_that_lets_nobody_in_is_refused_with_exit_2() {
    for (section, fault) in [
        ("[auth]", "auth: "),
        ("[auth]\nadmin_tokens = []", "auth: "),
        ("[auth]\nadmin_tokens = [\"\"]", "auth.admin_tokens[0]: "),
        ("[auth]\nadmin_tokens = [\"env:SECRET_THAT_IS_NOT_SET\"]", "SECRET_THAT_IS_NOT_SET is not set"),
        ("[auth]\n[[auth.tokens]]\nname = \"x\"\nrole = \"root\"\nvalue = \"y\"", "auth.tokens[0].role: "),
    ] {
        let (code, stderr) = Setup::policy(POLICY).section(section).place().refuse();
        assert_eq!(code, 2, "{section}: {stderr}");
        assert!(stderr.contains(fault), "{section}: {stderr}");
    }
}

#[test]
fn no_log_line_at_any_level_holds_a_token_or_an_api_key() {
    let node = Setup::policy(POLICY)
        .section(TOKENS)
        .variable("SECRET_OF_ADMIN", ADMIN)
        .variable("TIDEGATE_LOG", "trace")
        .start();
    for token in [ADMIN, "read-open-sesame", "check-open-sesame", "nobody-open-sesame"] {
        for (_, method, path, body) in routes() {
            call(&node, method, path, body.as_ref(), &[("x-tidegate-token", token)]);
        }
        for cost in [0, 1] {
            let check = json!({"tenant": "acme", "api_key": "key-of-acme", "cost": cost});
            let answer = call(&node, "POST", "/v1/check", Some(&check), &[("x-tidegate-token", token)]);
            assert!(!answer.body.contains("key-of-acme"));
        }
    }
    let log = node.stderr();
    assert!(!log.is_empty());
    for secret in [ADMIN, "read-open-sesame", "check-open-sesame", "nobody-open-sesame", "key-of-acme"] {
        assert!(!log.contains(secret), "{secret}");
    }
}
