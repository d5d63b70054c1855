//! What goes on when a node is gone, and what its next life knows.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, HUNDRED_A_DAY};
use crate::rig::{instant, until};

#[test]
fn with_any_one_node_killed_the_two_others_read_and_write_and_decide_what_they_own() {
    for dead in 0..3 {
        let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
        let alive: Vec<_> = (0..3).filter(|i| *i != dead).collect();
        let owned: Vec<_> = (0..3).map(|owner| cluster.tenant_of(owner, 0, "t")).collect();
        cluster.kill(dead);
        let name = format!("n{}", dead + 1);
        for &through in &alive {
            // A leader that was killed is replaced within a few elections; until then the write
            // waits.
            let (status, said) = cluster.edit(through, &format!("w{through}"));
            assert_eq!((status, &said["pending"]), (200, &json!([name])), "{said}");
            for &owner in &alive {
                assert_eq!(
                    cluster.check(through, json!({"tenant": owned[owner]}))["allowed"],
                    true
                );
            }
            assert!(
                cluster.get(through, "/v1/policy")["tenants"].get(format!("w{through}")).is_some()
            );
            // What the dead one owns is an honest refusal, in time.
            let (deadline, begun) = (300, instant());
            let check = json!({"tenant": owned[dead], "deadline_ms": deadline});
            let refused = cluster.call(through, "POST", "/v1/check", check);
            let took = instant() - begun;
            assert!(took < Duration::from_millis(deadline + 700), "{took:?}");
            assert_eq!(
                (refused.status, refused.header("retry-after")),
                (503, Some("1")),
                "{}",
                refused.text()
            );
            assert_eq!(refused.problem(503)["type"], "urn:tidegate:problem:unreachable");
            let nodes = cluster.status(through);
            assert_eq!(nodes["nodes"][dead]["state"], "unreachable", "{nodes}");
        }
        cluster.begin(dead);
        cluster.wait_ready(dead);
        // It is back, catches up, and is asked again.
        until("the node that is back decides what it owns", || {
            let check = json!({"tenant": owned[dead]});
            let answer = cluster.call(alive[0], "POST", "/v1/check", check);
            (answer.status == 200 && answer.json()["node"] == name).then_some(())
        });
        assert_eq!(cluster.get(dead, "/v1/policy"), cluster.get(alive[0], "/v1/policy"));
        let (status, said) = cluster.edit(dead, "again");
        assert_eq!((status, &said["pending"]), (200, &json!([])), "{said}");
    }
}

#[test]
fn a_process_that_was_killed_and_is_back_at_once_decides_under_a_higher_epoch() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let tenant = cluster.tenant_of(1, 0, "t");
    let before = cluster.check(0, json!({"tenant": tenant}));
    cluster.kill(1);
    cluster.begin(1);
    let after = until("its next life decides", || {
        let answer = cluster.call(0, "POST", "/v1/check", json!({"tenant": tenant}));
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&after["node"], &before["node"]), (&json!("n2"), &json!("n2")));
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64(), "{before} {after}");
}

#[test]
fn a_node_that_was_stopped_knows_what_was_spent() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let tenants: Vec<_> = (0..3).map(|owner| cluster.tenant_of(owner, 0, "t")).collect();
    for tenant in &tenants {
        assert_eq!(cluster.check(0, json!({"tenant": tenant, "cost": 60}))["remaining"], 40);
    }
    for i in [1, 0, 2] {
        cluster.stop(i);
        cluster.begin(i);
        cluster.wait_ready(i);
    }
    for (through, tenant) in tenants.iter().enumerate() {
        let left = until("the owner decides again", || {
            let answer = cluster.call(through, "POST", "/v1/peek", json!({"tenant": tenant}));
            (answer.status == 200).then(|| answer.json()["remaining"].clone())
        });
        assert_eq!(left, 40, "{tenant}");
    }
}

#[test]
fn a_cluster_that_was_stopped_whole_knows_what_was_spent_and_agreed() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let tenants: Vec<_> = (0..3).map(|owner| cluster.tenant_of(owner, 0, "t")).collect();
    assert_eq!(cluster.edit(1, "acme").0, 200);
    for tenant in &tenants {
        cluster.check(2, json!({"tenant": tenant, "cost": 60}));
    }
    for _ in 0..2 {
        (0..3).for_each(|i| cluster.stop(i));
        (0..3).for_each(|i| cluster.begin(i));
        (0..3).for_each(|i| cluster.wait_ready(i));
        for tenant in &tenants {
            assert_eq!(
                cluster.call(1, "POST", "/v1/peek", json!({"tenant": tenant})).json()["remaining"],
                40
            );
        }
        assert!(cluster.get(0, "/v1/policy")["tenants"].get("acme").is_some());
    }
}

#[test]
fn without_a_majority_a_node_is_not_ready_and_says_why_and_decides_what_it_owns() {
    let mut cluster = Cluster::start(3, HUNDRED_A_DAY);
    let own = cluster.tenant_of(0, 0, "t");
    cluster.kill(1);
    cluster.kill(2);
    let said = until("the node notices", || {
        let answer = cluster.call(0, "GET", "/readyz", Value::Null);
        (answer.status == 503).then(|| answer.text())
    });
    assert!(said.contains("no leader"), "{said}");
    assert_eq!(cluster.call(0, "GET", "/livez", Value::Null).status, 200);
    // Nobody else may decide it, so its owner still does.
    assert_eq!(cluster.check(0, json!({"tenant": own}))["allowed"], true);
    let status = cluster.status(0);
    assert_eq!((&status["leader"], &status["quorum"]), (&Value::Null, &json!(false)), "{status}");
    let (refused, problem) = cluster.edit(0, "acme");
    assert_eq!(refused, 503, "{problem}");
    for i in [1, 2] {
        cluster.begin(i);
    }
    (0..3).for_each(|i| cluster.wait_ready(i));
}

#[test]
fn a_killed_owner_grants_no_permit_beyond_the_maximum_and_knows_renewed_ones() {
    let policy = r#"
        default_tier = "free"
        [tiers.free]
        max_concurrent = 5
        max_permit_ttl = "1m"
    "#;
    let mut cluster = Cluster::start(3, policy);
    let tenant = cluster.tenant_of(1, 0, "t");
    let asking = json!({"tenant": tenant, "permit": {"ttl_ms": 60_000}});
    let granted = |cluster: &Cluster| cluster.check(0, asking.clone())["permit"]["id"].clone();
    let ids: Vec<_> = (0..5).map(|_| granted(&cluster).as_str().unwrap().to_string()).collect();
    let expired_by = instant() + Duration::from_secs(60);
    cluster.kill(1);
    cluster.begin(1);
    // Through a node that isn't the owner: what its answer says has come over the wire.
    let denied = until("the next life answers", || {
        let answer = cluster.call(0, "POST", "/v1/check", asking.clone());
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&denied["allowed"], &denied["node"]), (&json!(false), &json!("n2")), "{denied}");
    assert_eq!(denied["degraded"], json!({"reason": "cold_start", "share": "0"}), "{denied}");
    let denied_by = json!({"name": "concurrency", "scope": ["tenant"], "reason": "concurrency"});
    assert_eq!((&denied["denied_by"], &denied["remaining"]), (&denied_by, &json!(0)));
    let wait = denied["retry_after_ms"].as_u64().unwrap();
    assert!(instant() + Duration::from_millis(wait) >= expired_by, "{denied}");
    let renew = |through: usize, id: &str, ttl_ms: u64| {
        let path = format!("/v1/permits/{id}/renew");
        cluster.call(through, "POST", &path, json!({"ttl_ms": ttl_ms}))
    };
    assert_eq!(renew(2, &ids[0], 60_001).status, 422);
    for (i, id) in ids.iter().enumerate() {
        let renewed = renew(i % 3, id, 60_000);
        assert_eq!((renewed.status, &renewed.json()["expires_in_ms"]), (200, &json!(60_000)));
    }
    let state = cluster.get(2, &format!("/v1/tenants/{tenant}"));
    assert_eq!(state["state"]["permits"], 5, "{state}");
    // What a drain moves goes on to wait where it goes.
    assert_eq!(cluster.call(0, "POST", "/v1/cluster/nodes/n2/drain", Value::Null).status, 202);
    let moved = until("the partition has moved", || {
        let answer = cluster.call(0, "POST", "/v1/check", asking.clone());
        (answer.status == 200 && answer.json()["node"] != "n2").then(|| answer.json())
    });
    assert_eq!(
        (&moved["allowed"], &moved["denied_by"]["reason"]),
        (&json!(false), &json!("concurrency"))
    );
    assert!(moved["retry_after_ms"].as_u64().unwrap() <= wait.max(60_000), "{moved}");
}
