//! A count is one count, through whichever node it is asked.

use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::rig::until;

/// A hundred a day for each tenant; 150 for everybody and ten for each address where a check says
/// so.
const POLICY: &str = r#"
    default_tier = "free"
    [tiers.free]
    limits = [{ name = "day", algorithm = "fixed_window", limit = 100, window = "1d" }]
    [tiers.two]
    limits = [
        { name = "minute", algorithm = "sliding_log", limit = 700, window = "1d" },
        { name = "client", per = ["tenant", "client"], algorithm = "fixed_window", limit = 90, window = "1d" },
    ]
    [[limits]]
    name = "everybody"
    per = ["attribute:all"]
    algorithm = "fixed_window"
    limit = 150
    window = "1d"
    [[limits]]
    name = "address"
    per = ["ip"]
    algorithm = "sliding_log"
    limit = 10
    window = "1d"
"#;

#[test]
fn forty_eight_callers_over_all_nodes_get_exactly_the_limit_of_one_tenant() {
    let cluster = Cluster::start(3, POLICY);
    for tenant in ["acme", "other", "third"] {
        assert_eq!(cluster.admitted(48, 480, |_| json!({"tenant": tenant})), 100, "{tenant}");
    }
    // Every node says the same of what is left, and who decided it.
    let owners: Vec<_> = (0..3).map(|i| cluster.check(i, json!({"tenant": "acme"}))).collect();
    assert!(
        owners.iter().all(|said| said["node"] == owners[0]["node"] && said["remaining"] == 0),
        "{owners:?}"
    );
}

#[test]
fn limits_that_tenants_share_are_exact_across_nodes() {
    let cluster = Cluster::start(3, POLICY);
    let everybody =
        |i: usize| json!({"tenant": format!("t{}", i % 60), "attributes": {"all": "x"}});
    assert_eq!(cluster.admitted(48, 600, everybody), 150);
    let address = |i: usize| json!({"tenant": format!("t{}", i % 60), "ip": "203.0.113.9"});
    assert_eq!(cluster.admitted(48, 480, address), 10);
    // Denied by one limit, a check takes nothing from the other.
    let both = |i: usize| json!({"tenant": format!("u{}", i % 60), "ip": "203.0.113.8", "attributes": {"all": "y"}});
    assert_eq!(cluster.admitted(48, 480, both), 10);
    // Its hold is cancelled after the answer, on another node: soon, not at once.
    let check = json!({"tenant": "v", "attributes": {"all": "y"}});
    until("140 units left for everybody", || {
        let left = cluster.call(0, "POST", "/v1/peek", check.clone()).json();
        let limits = left["limits"].as_array()?;
        limits
            .iter()
            .find(|limit| limit["name"] == "everybody" && limit["remaining"] == 140)
            .map(drop)
    });
}

#[test]
fn two_thousand_calls_over_two_limits_are_answered_as_by_one_node() {
    let (three, one) = (Cluster::start(3, POLICY), Cluster::start(1, POLICY));
    let check = |i: usize| json!({"tenant": "acme", "tier": "two", "client": format!("c{}", i * 7 % 11), "cost": 1 + i % 3});
    let shown = |said: Value| {
        let left = |limit: &Value| (limit["name"].clone(), limit["remaining"].clone());
        let left: Vec<_> = said["limits"].as_array().unwrap().iter().map(left).collect();
        (said["allowed"].clone(), said["denied_by"].clone(), left)
    };
    for i in 0..2_000 {
        let (of_three, of_one) = (three.check(i % 3, check(i)), one.check(0, check(i)));
        assert_eq!(shown(of_three), shown(of_one), "call {i}");
    }
}

#[test]
fn batches_permits_and_request_ids_work_through_any_node() {
    let cluster = Cluster::start(3, POLICY);
    let checks: Vec<_> = (0..100).map(|i| json!({"tenant": format!("b{i}")})).collect();
    let answer = cluster.call(1, "POST", "/v1/check/batch", json!({"checks": checks})).json();
    let decisions = answer["decisions"].as_array().unwrap();
    let in_order = (0..100).all(|i| decisions[i]["tenant"] == format!("b{i}"));
    assert!(answer["allowed"] == true && in_order, "{answer}");
    let mut nodes: Vec<_> = decisions.iter().map(|decision| decision["node"].to_string()).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes, ["\"n1\"", "\"n2\"", "\"n3\""]);
    // Three that pass together or not at all.
    let all = |cost: u32| {
        let checks = vec![json!({"tenant": "whole", "cost": cost}); 3];
        json!({"mode": "all_or_nothing", "checks": checks})
    };
    for (i, cost, allowed, left) in [(0, 30, true, 10), (1, 4, false, 10), (2, 3, true, 1)] {
        let answer = cluster.call(i, "POST", "/v1/check/batch", all(cost)).json();
        assert_eq!(answer["allowed"], allowed, "{answer}");
        assert_eq!(
            cluster.call(i, "POST", "/v1/peek", json!({"tenant": "whole"})).json()["remaining"],
            left
        );
    }
    // A permit is found by any node, and released once.
    let granted = cluster.check(0, json!({"tenant": "p", "permit": {"ttl_ms": 60_000}}));
    let permit = format!("/v1/permits/{}", granted["permit"]["id"].as_str().unwrap());
    let renewed =
        |i| cluster.call(i, "POST", &format!("{permit}/renew"), json!({"ttl_ms": 60_000})).status;
    assert_eq!([0, 1, 2].map(renewed), [200; 3]);
    assert_eq!(cluster.call(2, "DELETE", &permit, Value::Null).status, 204);
    assert_eq!([0, 1, 2].map(renewed), [404; 3]);
    // The same id through three nodes is charged once.
    let ask = |i| cluster.check(i, json!({"tenant": "once", "request_id": "r1", "cost": 7}));
    let replayed: Vec<_> = (0..3).map(|i| ask(i)["replayed"].clone()).collect();
    assert_eq!(replayed, [false, true, true]);
    assert_eq!(cluster.check(1, json!({"tenant": "once"}))["remaining"], 92);
}

#[test]
fn tenants_are_seen_and_reset_through_any_node() {
    let cluster = Cluster::start(3, POLICY);
    for i in 0..30 {
        cluster.check(i % 3, json!({"tenant": format!("t{i}"), "cost": 40}));
    }
    for i in 0..3 {
        let mut seen = Vec::new();
        let mut path = "/v1/tenants?limit=7".to_string();
        loop {
            let page = cluster.get(i, &path);
            let ids = page["tenants"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t["id"].as_str().unwrap().to_string());
            seen.extend(ids);
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/tenants?limit=7&after={next}");
        }
        seen.sort();
        let mut expected: Vec<_> = (0..30).map(|i| format!("t{i}")).collect();
        expected.sort();
        assert_eq!(seen, expected, "through node {i}");
        let state = cluster.get(i, "/v1/tenants/t7");
        assert_eq!(state["state"]["limits"][0]["remaining"], 60, "{state}");
    }
    assert_eq!(cluster.call(1, "POST", "/v1/tenants/t7/reset", Value::Null).status, 200);
    assert!(
        (0..3).all(|i| cluster.get(i, "/v1/tenants/t7")["state"]["limits"][0]["remaining"] == 100)
    );
}
