//! Which checks share a bucket.

use serde_json::{Value, json};

use super::names;
use crate::support::{Setup, log, node, policy};

#[test]
fn a_bucket_is_kept_for_each_value_of_what_a_limit_is_per() {
    for (per, one, other) in [
        (r#"["tenant"]"#, json!({"tenant": "a"}), json!({"tenant": "b"})),
        (r#"["tenant", "client"]"#, json!({"client": "ann"}), json!({"client": "bob"})),
        (r#"["tenant", "action"]"#, json!({"action": "read"}), json!({"action": "write"})),
        (r#"["tenant", "ip"]"#, json!({"ip": "192.0.2.1"}), json!({"ip": "2001:db8::1"})),
        (r#"["tenant", "api_key"]"#, json!({"api_key": "k1"}), json!({"api_key": "k2"})),
        (r#"["tenant", "method"]"#, json!({"method": "GET"}), json!({"method": "PUT"})),
        (r#"["tenant", "path"]"#, json!({"path": "/users/1"}), json!({"path": "/users/2"})),
        (
            r#"["tenant", "endpoint"]"#,
            json!({"method": "GET", "path": "/a"}),
            json!({"method": "PUT", "path": "/a"}),
        ),
        (
            r#"["tenant", "attribute:region"]"#,
            json!({"attributes": {"region": "eu"}}),
            json!({"attributes": {"region": "us"}}),
        ),
        (
            r#"["tenant", "client", "action"]"#,
            json!({"client": "ann", "action": "read"}),
            json!({"client": "ann", "action": "write"}),
        ),
        (r#"["ip"]"#, json!({"ip": "192.0.2.1"}), json!({"ip": "192.0.2.2"})),
        (
            r#"["endpoint", "ip"]"#,
            json!({"path": "/a", "ip": "192.0.2.1"}),
            json!({"path": "/b", "ip": "192.0.2.1"}),
        ),
    ] {
        let node = node(&policy(&[], &[log("x", per, 2)]));
        let of = |check: &Value| {
            let mut check = check.clone();
            if check.get("tenant").is_none() {
                check["tenant"] = json!("acme");
            }
            check
        };
        assert_eq!(node.allowed_of(3, of(&one)), 2, "{per}");
        assert_eq!(node.allowed_of(3, of(&other)), 2, "{per}");
        assert_eq!(node.allowed_of(1, of(&one)), 0, "{per}");
    }
}

#[test]
fn a_limit_with_the_tenant_in_it_is_each_tenants_own_and_one_without_is_shared() {
    let check = |tenant: &str| json!({"tenant": tenant, "ip": "192.0.2.1", "client": "ann"});
    for (per, second) in [
        (r#"["tenant", "ip"]"#, 3),
        (r#"["tenant", "client"]"#, 3),
        (r#"["ip"]"#, 1),
        (r#"["client"]"#, 1),
        ("[]", 1),
    ] {
        let node = node(&policy(&[log("x", per, 3)], &[]));
        assert_eq!(node.allowed_of(2, check("acme")), 2, "{per}");
        assert_eq!(node.allowed_of(4, check("globex")), second, "{per}");
    }
}

#[test]
fn endpoints_that_differ_in_their_ids_share_a_bucket_and_words_do_not() {
    let node = node(&policy(&[], &[log("x", r#"["tenant", "endpoint"]"#, 9)]));
    let remaining = |path: &str| {
        node.check(json!({"tenant": "acme", "method": "GET", "path": path}))["remaining"].clone()
    };
    for (path, left) in [
        ("/users/123", 8),
        ("/users/456?page=2", 7),
        ("/users/550e8400-e29b-41d4-a716-446655440000", 6),
        ("/users/abc123def456", 5),
        ("/users/organizations", 8),
    ] {
        assert_eq!(remaining(path), left, "{path}");
    }
}

#[test]
fn an_address_has_one_bucket_however_it_is_spelled() {
    let node = node(&policy(&[log("x", r#"["ip"]"#, 9)], &[]));
    for (ip, left) in
        [("192.0.2.1", 8), ("::ffff:192.0.2.1", 7), ("2001:db8::1", 8), ("2001:0db8:0000::0001", 7)]
    {
        assert_eq!(node.check(json!({"tenant": "acme", "ip": ip}))["remaining"], left, "{ip}");
    }
}

#[test]
fn leaving_out_a_value_does_not_lift_a_tenants_limit_and_a_shared_one_is_only_for_those_who_carry_it()
 {
    let node = node(
        r#"
default_tier = "free"
[[limits]]
name = "per-ip"
per = ["ip"]
algorithm = "sliding_log"
limit = 2
window = "1h"
[tiers.free]
limits = [{ name = "per-client", per = ["tenant", "client"], algorithm = "sliding_log", limit = 2, window = "1h" }]
"#,
    );
    assert_eq!(node.allowed_of(3, json!({"tenant": "acme"})), 2);
    let decision = node.check(json!({"tenant": "globex"}));
    assert_eq!(names(&decision), ["per-client"]);
    let with_ip = node.check(json!({"tenant": "globex", "ip": "192.0.2.1", "client": "ann"}));
    assert_eq!(names(&with_ip), ["per-client", "per-ip"]);
}

#[test]
fn beyond_the_cap_on_keys_a_stand_in_decides_and_the_answer_says_so() {
    let node = Setup::policy(&policy(&[], &[log("x", r#"["tenant", "client"]"#, 5)]))
        .section("[limits]\nworkers = 1\nkeys_per_tenant = 2")
        .start();
    for client in ["ann", "bob"] {
        let decision = node.check(json!({"tenant": "acme", "client": client}));
        assert_eq!((&decision["mode"], decision.get("degraded")), (&json!("exact"), None));
    }
    // All further clients share one bucket; nobody is refunded.
    for (client, left) in [("cid", 4), ("dan", 3), ("eve", 2)] {
        let decision = node.check(json!({"tenant": "acme", "client": client}));
        assert_eq!(
            (&decision["mode"], &decision["degraded"]["reason"], &decision["remaining"]),
            (&json!("approximate"), &json!("key_cap"), &json!(left)),
            "{client}"
        );
    }
    assert_eq!(node.check(json!({"tenant": "acme", "client": "ann"}))["remaining"], 3);
}
