//! The kill switch.

use serde_json::json;

use super::POLICY;
use crate::support::{Request, document, limit, log, node, sent, version};

#[test]
fn the_kill_switch_is_thrown_and_taken_back_by_itself() {
    let lists = "[access.bad]\nlist = \"deny\"\ntenant = \"bad\"\n";
    let shared = format!("limits = [{}]\n{POLICY}{lists}", log("per-ip", r#"["ip"]"#, 50));
    let node = node(&shared);
    let costly = json!({"tenant": "x", "cost": 90, "ip": "192.0.2.1"});
    assert_eq!(node.check(costly.clone())["allowed"], false);
    assert_eq!(node.put("/v1/policy/enforce", json!({"enforce": false})).version(), 2);
    assert_eq!(document(&node)["enforce"], false);
    // Judged, counted and reported as a limit in shadow mode is, and never denied; but for the deny
    // list.
    for denies in [false, true] {
        let passed = node.check(costly.clone());
        assert_eq!((&passed["allowed"], &passed["denied_by"]), (&json!(true), &json!(null)));
        assert_eq!(limit(&passed, "log")["would_deny"], denies);
        assert_eq!(limit(&passed, "per-ip")["would_deny"], true);
    }
    let permit = json!({"tenant": "acme", "permit": {}});
    let would_deny: Vec<_> = (0..11)
        .map(|_| limit(&node.check(permit.clone()), "concurrency")["would_deny"].as_bool().unwrap())
        .collect();
    assert_eq!(would_deny.iter().filter(|denies| **denies).count(), 2, "{would_deny:?}");
    let sent = node.check(json!({"tenant": "y", "cost": 9, "limits": [sent("own", 5)]}));
    assert_eq!(
        (&sent["allowed"], &limit(&sent, "own")["would_deny"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(node.check(json!({"tenant": "bad"}))["denied_by"]["reason"], "deny_list");
    // What was taken meanwhile was taken.
    assert_eq!(node.put("/v1/policy/enforce", json!({"enforce": true})).version(), 3);
    assert_eq!(document(&node).get("enforce"), None);
    assert_eq!(node.check(json!({"tenant": "x", "cost": 90}))["allowed"], false);
}

#[test]
fn a_kill_switch_that_is_neither_on_nor_off_stays_where_it_is() {
    let node = node(POLICY);
    for (body, faults) in [
        (json!({}), vec!["enforce"]),
        (json!({"enforce": null}), vec!["enforce"]),
        (json!({"enforce": "off"}), vec!["enforce"]),
        (json!({"enforce": 0}), vec!["enforce"]),
        (json!({"enforce": false, "for": "1h"}), vec!["for"]),
        (json!(false), vec![""]),
    ] {
        assert_eq!(node.put("/v1/policy/enforce", body.clone()).fault_paths(422), faults, "{body}");
    }
    node.send(&Request::new("PUT", "/v1/policy/enforce").body("off")).problem(400);
    assert_eq!(version(&node), 1);
}
