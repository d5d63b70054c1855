//! Tests of `read`.

use super::*;

fn faults(toml: &str) -> Vec<String> {
    Document::from_toml(toml.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn all_faults_of_a_document_come_at_once_each_with_its_path() {
    let found = faults(
        r#"
            default_tier = "gold"
            reqest_tier = "always"
            [environments.development]
            multiplier = 0.5
            [[limits]]
            name = "global"; algorithm = "fixed_window"; limit = 0; window = "1m"
            "#
        .replace("; ", "\n")
        .as_str(),
    );
    assert_eq!(
        found,
        [
            "environments.development.multiplier: 0.5 is not a string",
            "limits[0].per: is required",
            "limits[0].limit: 0 is not a whole number from 1 to 999999999999999",
            "tiers: is required",
            "reqest_tier: unknown member; did you mean request_tier?",
        ]
    );
    let found = faults(
        r#"
            default_tier = "gold"
            [tiers.pro]
            limits = [
              { name = "a", algorithm = "token_bucket", rate = "5/s" },
              { name = "b", algorithm = "fixed_window", limit = 1, window = "5 mins" },
              { name = "a", algorithm = "sliding_log", limit = 10001, window = "1m" },
            ]
            [[tier_patterns]]
            pattern = "x*"
            tier = "lead"
            [tenants.acme]
            tier = "iron"
            tier_expires = "tomorrow"
            "#,
    );
    assert_eq!(
        found,
        [
            "tiers.pro.limits[1].window: \"5 mins\" is not a duration: a whole number and ms, \
             s, m, h, d or w, at most ten years",
            "tiers.pro.limits[2].limit: a sliding_log is exact up to 10000; above that, take \
             sliding_window",
            "tiers.pro.limits[2].name: there is a limit a with the same match here already",
            "tenants.acme.tier_expires: \"tomorrow\" is not an instant, such as \
             2027-01-01T00:00:00Z",
            "default_tier: there is no tier gold",
            "tier_patterns[0].tier: there is no tier lead",
            "tenants.acme.tier: there is no tier iron",
        ]
    );
}

#[test]
fn a_documents_json_and_toml_read_back_as_the_same_document() {
    let document = crate::policy::builtin();
    assert_eq!(Document::from_toml(document.to_toml().as_bytes()).unwrap(), document);
    assert_eq!(Document::from_json(document.to_json().to_string().as_bytes()).unwrap(), document);
}

#[test]
fn an_address_has_one_spelling() {
    let net = |s: &str| network(s).map(|n| n.to_string());
    assert_eq!(net("::ffff:192.0.2.9").as_deref(), Some("192.0.2.9/32"));
    assert_eq!(net("192.0.2.9/24").as_deref(), Some("192.0.2.0/24"));
    assert_eq!(net("2001:db8::1/48").as_deref(), Some("2001:db8::/48"));
    assert_eq!(net("192.0.2.256"), None);
}
