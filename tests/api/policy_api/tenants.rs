//! Tenants: listed, shown, reset.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::POLICY;
use crate::support::{self, Node, Request, Setup, node, version};

/// All pages of the tenants, `most` on each.
fn pages(node: &Node, most: usize) -> Vec<Vec<Value>> {
    let (mut pages, mut path) = (Vec::new(), format!("/v1/tenants?limit={most}"));
    loop {
        let page = node.get(&path).json();
        pages.push(page["tenants"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/tenants?limit={most}&after={next}"),
            None => return pages,
        }
        assert!(pages.len() < 100, "the pages don't end: {page}");
    }
}

#[test]
fn tenants_are_listed_once_page_by_page_the_named_ones_first_and_in_order() {
    let node = Setup::policy(POLICY).section("[limits]\nworkers = 4").start();
    for name in ["m3", "m1", "m2", "m4"] {
        node.put(&format!("/v1/tenants/{name}"), json!({})).version();
    }
    for tenant in ["z1", "b2", "m2", "ent-3", "b4", "z5", "b6"] {
        node.check(json!({"tenant": tenant}));
    }
    let tenant = |id: &str, tier: &str, named: bool, active: bool| json!({"id": id, "tier": tier, "named": named, "active": active});
    let named = [
        tenant("acme", "pro", true, false),
        tenant("m1", "free", true, false),
        tenant("m2", "free", true, true),
        tenant("m3", "free", true, false),
        tenant("m4", "free", true, false),
    ];
    for most in [1, 2, 3, 5, 7, 100] {
        let pages = pages(&node, most);
        assert!(pages.iter().all(|page| page.len() <= most), "{most}");
        let all: Vec<_> = pages.into_iter().flatten().collect();
        assert_eq!(all[..5], named, "{most}");
        let others: BTreeSet<_> =
            all[5..].iter().map(|tenant| tenant["id"].as_str().unwrap()).collect();
        assert_eq!(
            (all.len(), others),
            (11, BTreeSet::from(["b2", "b4", "b6", "ent-3", "z1", "z5"])),
            "{most}"
        );
        assert!(all[5..].iter().all(|tenant| tenant["named"] == false && tenant["active"] == true));
        assert!(all.contains(&tenant("ent-3", "pro", false, true)));
    }
}

#[test]
fn a_page_that_is_none_is_400() {
    let node = node(POLICY);
    for (query, fault) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("after=x", "after"),
        ("after=active:x:1", "after"),
    ] {
        assert_eq!(node.get(&format!("/v1/tenants?{query}")).fault_paths(400), [fault], "{query}");
    }
    // A cursor beyond the end is the end.
    assert_eq!(
        node.get("/v1/tenants?after=active:99:9:9").json(),
        json!({"tenants": [], "next": null})
    );
}

#[test]
fn a_tenant_is_shown_with_its_rules_and_how_it_stands() {
    let node = node(POLICY);
    node.check(
        json!({"tenant": "acme", "cost": 7, "permit": {"ttl_ms": 300_000}, "request_id": "r-1"}),
    );
    let answer = node.get("/v1/tenants/acme");
    assert_eq!((answer.status, answer.header("etag")), (200, "\"1\""));
    let mut shown = answer.json();
    let resets: Vec<_> = (0..2)
        .map(|i| support::take_number(&mut shown["state"]["limits"][i], "reset_after_ms"))
        .collect();
    assert!(resets.iter().all(|ms| (200_000..=3_600_000).contains(ms)), "{resets:?}");
    assert_eq!(
        shown,
        json!({"tenant": "acme", "policy": {"tier": "pro"}, "state": {
        "tier": "pro", "tier_source": "tenant", "permits": 1, "keys": 1, "request_ids": 1,
        "limits": [
            {"name": "log", "scope": ["tenant"], "algorithm": "sliding_log", "limit": 1000,
                 "window_ms": 3_600_000, "remaining": 993, "mode": "exact"},
            {"name": "concurrency", "scope": ["tenant"], "algorithm": "concurrency", "limit": 9,
                 "window_ms": null, "remaining": 8, "mode": "exact"},
        ]}})
    );
    // Looking takes nothing, and nobody has to be known to be looked at.
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 993);
    let unknown = node.get("/v1/tenants/ent-9").json();
    assert_eq!(unknown["policy"], json!(null));
    assert_eq!(
        (&unknown["state"]["tier_source"], &unknown["state"]["keys"]),
        (&json!("pattern"), &json!(0))
    );
    node.get("/v1/tenants/a%20b").problem(400);
}

#[test]
fn a_reset_forgets_what_one_tenant_has_spent_and_leaves_permits_out() {
    let node = node(POLICY);
    for tenant in ["acme", "globex"] {
        node.check(json!({"tenant": tenant, "cost": 60, "permit": {}}));
    }
    assert_eq!(node.post("/v1/tenants/acme/reset", json!({})).status, 200);
    assert_eq!(node.send(&Request::new("POST", "/v1/tenants/nobody/reset")).status, 200);
    let state = node.get("/v1/tenants/acme").json()["state"].clone();
    assert_eq!((&state["limits"][0]["remaining"], &state["permits"]), (&json!(1000), &json!(1)));
    assert_eq!(node.peek(json!({"tenant": "globex"}))["remaining"], 40);
    assert_eq!(version(&node), 1);
}
