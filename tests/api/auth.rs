//! Who may decide, see, and change.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{self, Node, Request, Setup, eventually};

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
        (
            For::Deciding,
            "GET",
            "/api/status/acme/ann/read?max_requests=10&window_duration_seconds=60",
            None,
        ),
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
        (For::Reading, "GET", "/v1/cluster/settings", None),
        (For::Changing, "PUT", "/v1/cluster/settings", Some(json!({"round_trip_ms": 100}))),
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
        (For::Changing, "PUT", "/v1/policy/enforce", Some(json!({"enforce": false}))),
        (For::Changing, "POST", "/v1/policy/rollback?dry_run=true", Some(json!({"version": 1}))),
        (
            For::Changing,
            "POST",
            "/v1/access",
            Some(json!({"id": "x", "list": "deny", "tenant": "nobody"})),
        ),
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
        (
            For::Changing,
            "PUT",
            "/v1/policy",
            Some(json!({"default_tier": "free", "tiers": {"free": {}}})),
        ),
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
    let request =
        Request::new("GET", "/v1/policy").header("authorization", &format!("Bearer {token}"));
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
            let headers: Vec<_> =
                bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
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
        // Only the administrator has changed anything: a limit and a tenant put and deleted, a tier
        // and a list entry too, a limit for all calls and two of a tenant, these deleted, the kill
        // switch, and the policy.
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
            assert_eq!(
                answer.status == 401,
                refused,
                "{method} {path} with {headers:?}: {answer:?}"
            );
        }
    }
    assert_eq!(version(&node, ADMIN), "\"1\"");
}

#[test]
fn without_auth_everybody_may_do_everything_on_loopback() {
    let node = Setup::policy(POLICY).start();
    for (_, method, path, body) in routes() {
        let answer = call(
            &node,
            method,
            path,
            body.as_ref(),
            &[("authorization", "Bearer nobody-open-sesame")],
        );
        assert!(!matches!(answer.status, 401 | 403 | 405 | 500..), "{method} {path}: {answer:?}");
    }
}

#[test]
fn an_open_node_takes_no_request_from_a_page_of_another_site() {
    let node = Setup::policy(POLICY).start();
    for sent in [("origin", "https://elsewhere.example"), ("sec-fetch-site", "cross-site")] {
        for (_, method, path, body) in routes() {
            let answer = call(&node, method, path, body.as_ref(), &[sent]);
            match is_exempt(path) {
                true => assert_eq!(answer.status, 200, "{method} {path}: {answer:?}"),
                false => assert_eq!(answer.problem(403)["type"], "urn:tidegate:problem:forbidden"),
            }
        }
    }
    let asked =
        Request::new("GET", "/v1/forward-auth").header("origin", "https://elsewhere.example");
    assert_eq!(node.send(&asked).status, 200);
    assert_eq!(version(&node, ""), "\"1\"");
    // A page that the node has served itself is as good as any program.
    let own = format!("http://{}", node.http);
    let host =
        raw("PUT", "/v1/tenants/acme", &format!("host: {}\r\norigin: {own}\r\n", node.http), "{}");
    assert_eq!(node.client().send_raw(&host).status, 200);
}

fn is_exempt(path: &str) -> bool {
    ["/livez", "/readyz", "/version"].iter().any(|exempt| path.starts_with(exempt))
}

fn raw(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The status of a check that is asked for under this Host.
fn checked_at(node: &Node, host: &str) -> u16 {
    let check = raw("POST", "/v1/check", &format!("host: {host}\r\n"), "{\"tenant\":\"acme\"}");
    node.client().send_raw(&check).status
}

#[test]
fn an_open_node_answers_to_its_own_names_alone() {
    let node = Setup::policy(POLICY).start();
    let mut client = node.client();
    for (_, method, path, body) in routes() {
        let body = body.map_or(String::new(), |body| body.to_string());
        let answer = client.send_raw(&raw(method, path, "host: evil.example:7070\r\n", &body));
        match is_exempt(path) {
            true => assert_eq!(answer.status, 200, "{method} {path}: {answer:?}"),
            false => assert_eq!(answer.problem(421)["type"], "urn:tidegate:problem:misdirected"),
        }
    }
    assert_eq!(
        client.send_raw(&raw("GET", "/v1/forward-auth", "host: evil.example\r\n", "")).status,
        200
    );
    assert_eq!(version(&node, ""), "\"1\"");
    for (host, expected) in [
        ("127.0.0.1", 200),
        ("LOCALHOST.:1", 200),
        ("[::1]:7070", 200),
        ("localhost.evil.example", 421),
        ("", 421),
        ("user@localhost", 400),
        ("localhost\r\nhost: localhost", 400),
        ("localhost\r\nhost: evil.example", 400),
    ] {
        assert_eq!(checked_at(&node, host), expected, "{host:?}");
    }
    // The head comes first, the body last.
    let twice = "host: evil.example\r\ncontent-length: 0\r\n";
    assert_eq!(node.client().send_raw(&raw("POST", "/v1/check", twice, "")).status, 400);
    let nonsense = raw("POST", "/v1/check", "host: evil.example\r\n", "{ not even JSON");
    assert_eq!(node.client().send_raw(&nonsense).status, 421);
}

#[test]
fn http_1_0_without_a_host_goes_on_working_and_keeps_the_connection() {
    let node = Setup::policy(POLICY).start();
    let check = "{\"tenant\":\"acme\"}";
    let head = format!("POST /v1/check HTTP/1.0\r\ncontent-length: {}\r\n", check.len());
    let keeping = format!("{head}connection: keep-alive\r\n\r\n{check}");
    let mut client = node.client();
    for _ in 0..3 {
        assert_eq!(client.send_raw(keeping.as_bytes()).status, 200);
    }
    let without = raw("POST", "/v1/check", "", check);
    assert_eq!(node.client().send_raw(&without).fault_paths(400), ["Host"]);
    let foreign = format!("{head}host: evil.example\r\n\r\n{check}");
    assert_eq!(node.client().send_raw(foreign.as_bytes()).status, 421);
}

#[test]
fn names_of_an_open_node_are_advertised_listed_or_set() {
    let listed = Setup::policy(POLICY).section("[http]\nhosts = [\"Listed.example\"]").start();
    assert_eq!(checked_at(&listed, "listed.example:443"), 200);
    assert_eq!(checked_at(&listed, "set.example"), 421);
    let set = Setup::policy(POLICY)
        .section("[http]\nhosts = [\"listed.example\"]")
        .variable("TIDEGATE_HTTP_HOSTS", "set.example,other.example")
        .start();
    for (host, expected) in
        [("set.example", 200), ("other.example:1", 200), ("listed.example", 421)]
    {
        assert_eq!(checked_at(&set, host), expected, "{host}");
    }
    let (code, stderr) =
        Setup::policy(POLICY).variable("TIDEGATE_HTTP_HOSTS", "a:7070").place().refuse();
    assert!(code == 2 && stderr.contains("is not a host name without a port"), "{code} {stderr}");
}

#[test]
fn where_there_are_tokens_no_host_and_no_page_is_judged() {
    let node = with_admin_token_only();
    assert_eq!(checked_at(&node, "any.example"), 200);
    let origin = [("origin", "https://elsewhere.example"), ("sec-fetch-site", "cross-site")];
    let check = json!({"tenant": "acme"});
    assert_eq!(call(&node, "POST", "/v1/check", Some(&check), &origin).status, 200);
    assert_eq!(call(&node, "GET", "/v1/policy", None, &origin).status, 401);
}

#[test]
fn back_ups_need_a_token_and_metrics_one_where_auth_says_so() {
    let open = Setup::policy(POLICY).start();
    let refused = open.get("/v1/cluster/backup").problem(403);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("configure [auth] to take back-ups"), "{detail}");
    assert_eq!(open.get("/metrics").status, 200);

    let tokens = "[auth]\nmetrics = \"read\"\nadmin_tokens = [\"admin-of-this-node\"]\nread_tokens \
                  = [\"reader-of-this-node\"]\ncheck_tokens = [\"decider-of-this-node\"]";
    let node = Setup::policy(POLICY).section(tokens).start();
    let status = |path: &str, token: &str| {
        call(&node, "GET", path, None, &[("x-tidegate-token", token)]).status
    };
    for (token, expected) in [
        ("admin-of-this-node", 200),
        ("reader-of-this-node", 200),
        ("decider-of-this-node", 403),
        ("a-stranger-to-this-node", 401),
    ] {
        assert_eq!(status("/metrics", token), expected, "{token}");
    }
    assert_eq!(status("/v1/cluster/backup", "reader-of-this-node"), 403);
    assert_eq!(node.get("/metrics").status, 401);
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
    for (method, path) in [
        ("POST", "/v1/check"),
        ("POST", "/v1/check/batch"),
        ("PUT", "/v1/policy"),
        ("PUT", "/v1/tiers/a:b"),
    ] {
        for (token, expected) in [("nobody-open-sesame", 401), ("read-open-sesame", 403)] {
            let request = Request::new(method, path)
                .header("x-tidegate-token", token)
                .body("{ not even JSON");
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
        (
            "[auth]\nadmin_tokens = [\"env:SECRET_THAT_IS_NOT_SET\"]",
            "SECRET_THAT_IS_NOT_SET is not set",
        ),
        (
            "[auth]\n[[auth.tokens]]\nname = \"x\"\nrole = \"root\"\nvalue = \"y\"",
            "auth.tokens[0].role: ",
        ),
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
            let answer =
                call(&node, "POST", "/v1/check", Some(&check), &[("x-tidegate-token", token)]);
            assert!(!answer.body.contains("key-of-acme"));
        }
    }
    let log = node.stderr();
    assert!(!log.is_empty());
    for secret in
        [ADMIN, "read-open-sesame", "check-open-sesame", "nobody-open-sesame", "key-of-acme"]
    {
        assert!(!log.contains(secret), "{secret}");
    }
}

// --------------------------------------------------------------------------- where secrets come
// from

#[test]
fn a_variable_makes_an_admin_token_where_there_is_no_auth() {
    let place = || Setup::policy(POLICY).variable("TIDEGATE_ADMIN_TOKEN", &format!("{ADMIN}\n"));
    let node = place().http("0.0.0.0:0").start();
    assert_eq!(
        (version(&node, ADMIN).as_str(), version(&node, "nobody-open-sesame").as_str()),
        ("\"1\"", "")
    );
    let put =
        Request::new("PUT", "/v1/tiers/new").header("x-tidegate-token", ADMIN).json(&json!({}));
    assert_eq!(node.send(&put).status, 200);
    let audit = node.send(&Request::new("GET", "/v1/audit").header("x-tidegate-token", ADMIN));
    assert_eq!(audit.json()["entries"][0]["by"], "env");
    // With an [auth] of its own, that alone counts.
    let node = place().section("[auth]\nadmin_tokens = [\"another-open-sesame\"]").start();
    assert_eq!(
        (version(&node, "another-open-sesame").as_str(), version(&node, ADMIN).as_str()),
        ("\"1\"", "")
    );
    for short in ["short", "has spaces in it all over"] {
        let set = Setup::policy(POLICY).variable("TIDEGATE_ADMIN_TOKEN", short);
        let (code, stderr) = set.place().refuse();
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("the environment variable TIDEGATE_ADMIN_TOKEN holds"), "{stderr}");
        assert!(!stderr.contains(short), "{stderr}");
    }
}

#[test]
fn a_node_is_opened_to_other_machines_by_its_operators_word_alone() {
    let open = || Setup::policy(POLICY).http("0.0.0.0:0");
    let (code, stderr) = open().place().refuse();
    assert_eq!(code, 2, "{stderr}");
    for way in
        ["[auth]", "TIDEGATE_ADMIN_TOKEN", "--insecure-no-auth (TIDEGATE_INSECURE_NO_AUTH=true)"]
    {
        assert!(stderr.contains(way), "{way}: {stderr}");
    }
    let node = open().variable("TIDEGATE_INSECURE_NO_AUTH", "true").start();
    assert_eq!(node.put("/v1/tiers/new", json!({})).status, 200);
    let both = open()
        .variable("TIDEGATE_INSECURE_NO_AUTH", "true")
        .variable("TIDEGATE_ADMIN_TOKEN", ADMIN);
    let (code, stderr) = both.place().refuse();
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--insecure-no-auth is for a node without tokens"), "{stderr}");
}

#[test]
fn a_secret_that_only_looks_like_one_is_refused() {
    for literal in
        ["${ADMIN_TOKEN_FOR_ALL}", "ENV:ADMIN_TOKEN_FOR_ALL", "/run/secrets/admin-token", "short"]
    {
        let section = format!("[auth]\nadmin_tokens = [{literal:?}]");
        let (code, stderr) = Setup::policy(POLICY).section(&section).place().refuse();
        assert_eq!(code, 2, "{literal}: {stderr}");
        assert!(stderr.contains("auth.admin_tokens[0]: "), "{literal}: {stderr}");
        assert!(!stderr.contains(literal), "{literal}: {stderr}");
    }
}

#[test]
fn a_hangup_reads_tokens_in_files_again_all_or_none() {
    let section = "[auth]\nadmin_tokens = [\"file:admin\", \"file:other\"]";
    let place = Setup::policy(POLICY).section(section).place();
    let write =
        |name: &str, secret: &str| std::fs::write(place.file(name), format!("{secret}\n")).unwrap();
    let (first, second) = ("the-first-secret-of-all", "the-second-secret-of-all");
    write("admin", first);
    write("other", "another-open-sesame");
    let (admin, other) = (place.file("admin"), place.file("other"));
    let node = place.start();
    let again = |said: &str| {
        node.signal(Signal::HUP);
        eventually(said, || node.stderr().contains(said));
    };
    assert_eq!(version(&node, first), "\"1\"");
    std::fs::write(&admin, second).unwrap();
    std::fs::write(&other, "short").unwrap();
    again("holds 5 characters; at least 16 are needed");
    assert_eq!((version(&node, first).as_str(), version(&node, second).as_str()), ("\"1\"", ""));
    std::fs::write(&other, "another-open-sesame").unwrap();
    again("of which admin-1 changed");
    assert_eq!((version(&node, first).as_str(), version(&node, second).as_str()), ("", "\"1\""));
    assert!(!node.stderr().contains(second));
}

#[test]
fn a_hangup_ends_no_node_and_says_that_there_is_nothing_to_read_again() {
    let node = Setup::policy(POLICY).start();
    node.signal(Signal::HUP);
    let said = "SIGHUP: there is nothing to read again";
    eventually(said, || node.stderr().contains(said));
    assert_eq!(node.get("/readyz").status, 200);
    node.stop();
}

#[test]
fn a_hangup_reads_the_log_filter_of_the_configuration_again() {
    let node = Setup::policy(POLICY).section("[log]\nfilter = \"warn\"").start();
    let config = node.file("cluster.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let again = |filter: &str, said: &str| {
        std::fs::write(&config, text.replace("\"warn\"", &format!("{filter:?}"))).unwrap();
        node.signal(Signal::HUP);
        eventually(said, || node.stderr().contains(said));
    };
    again("debgu", "did you mean debug?");
    again("info", "SIGHUP: read again: the log filter, info");
}
