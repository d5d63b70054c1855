//! The allow and deny lists over HTTP, entry by entry: added, listed, seen, deleted, and what they
//! do to the next check.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate::check::ApiKeyDigest;

use crate::support::{Answer, Node, Request, Setup, eventually, instant_in_ms, node, version};

const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "log", algorithm = "sliding_log", limit = 100, window = "1h" }]
"#;

fn add(node: &Node, entry: Value) -> Answer {
    node.post("/v1/access", entry)
}

/// The id of an entry that was added.
fn added(node: &Node, entry: Value) -> String {
    let answer = add(node, entry);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_string()
}

#[test]
fn an_entry_of_each_kind_acts_on_the_next_check_until_it_is_deleted() {
    let node = node(POLICY);
    let digest = ApiKeyDigest::of("sesame").to_string();
    for (entry, check) in [
        (json!({"tenant": "acme"}), json!({"tenant": "acme"})),
        (json!({"client": "ann ä"}), json!({"tenant": "x", "client": "ann ä"})),
        (json!({"ip": "192.0.2.7"}), json!({"tenant": "x", "ip": "192.0.2.7"})),
        (json!({"ip": "198.51.100.0/24"}), json!({"tenant": "x", "ip": "198.51.100.9"})),
        (json!({"ip": "2001:db8::/32"}), json!({"tenant": "x", "ip": "2001:db8::7"})),
        (json!({"api_key": "sesame"}), json!({"tenant": "x", "api_key": "sesame"})),
        (json!({"api_key_sha256": digest}), json!({"tenant": "x", "api_key": "sesame"})),
    ] {
        let mut deny = entry.clone();
        (deny["list"], deny["reason"]) = (json!("deny"), json!("abuse"));
        let id = added(&node, deny);
        let denied = node.check(check.clone());
        assert_eq!(
            (&denied["allowed"], &denied["denied_by"]["reason"]),
            (&json!(false), &json!("deny_list"))
        );
        assert_eq!(denied["denied_by"]["name"], id, "{entry}");
        node.delete(&format!("/v1/access/{id}")).version();
        assert_eq!(node.check(check.clone())["allowed"], true, "{entry}");

        let mut allow = entry.clone();
        (allow["list"], allow["reason"]) = (json!("allow"), json!("our own"));
        let id = added(&node, allow);
        let passed = node.check(check.clone());
        assert_eq!(passed["bypass"], json!({"list": id, "reason": "our own"}), "{entry}");
        node.delete(&format!("/v1/access/{id}")).version();
        assert_eq!(node.check(check)["bypass"], Value::Null, "{entry}");
    }
}

#[test]
fn an_added_entry_is_answered_with_its_id_its_place_and_the_version_it_made() {
    let node = node(POLICY);
    let answer = add(&node, json!({"id": "office", "list": "allow", "ip": "::ffff:192.0.2.9/120"}));
    assert_eq!(
        (answer.status, answer.header("etag"), answer.header("location")),
        (201, "\"2\"", "/v1/access/office")
    );
    assert_eq!(answer.json(), json!({"id": "office", "version": 2, "pending": []}));
    let seen = node.get("/v1/access/office");
    assert_eq!((seen.status, seen.header("etag")), (200, "\"2\""));
    let mut seen = seen.json();
    seen.as_object_mut().unwrap().remove("added_at").unwrap();
    assert_eq!(
        seen,
        json!({"id": "office", "list": "allow", "ip": "192.0.2.0/24", "reason": "", "added_by": "anyone"})
    );
    // An id that nobody chose is a name too, and another each time.
    let made: BTreeSet<_> =
        (0..5).map(|_| added(&node, json!({"list": "deny", "tenant": "acme"}))).collect();
    assert_eq!(made.len(), 5);
    for id in &made {
        assert_eq!(node.get(&format!("/v1/access/{id}")).json()["tenant"], "acme");
    }
}

#[test]
fn who_added_an_entry_and_when_is_for_the_node_to_say() {
    let auth =
        "[[auth.tokens]]\nname = \"ops\"\nrole = \"admin\"\nvalue = \"open-sesame-for-ops\"\n";
    let node = Setup::policy(POLICY).section(auth).start();
    let send = |body: Value| {
        let request =
            Request::new("POST", "/v1/access").header("x-tidegate-token", "open-sesame-for-ops");
        node.send(&request.json(&body))
    };
    let before = instant_in_ms(-1_000);
    let answer = send(
        json!({"id": "a", "list": "deny", "tenant": "acme", "expires": "2100-01-01T00:00:00Z"}),
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    let get = Request::new("GET", "/v1/access/a").header("x-tidegate-token", "open-sesame-for-ops");
    let entry = node.send(&get).json();
    let at = entry["added_at"].as_str().unwrap();
    assert!(at.ends_with('Z') && *before <= *at && *at <= *instant_in_ms(1_000), "{at}");
    assert_eq!(
        (&entry["added_by"], &entry["expires"]),
        (&json!("ops"), &json!("2100-01-01T00:00:00Z"))
    );
    // A whole document may say it, as a record of what was; nobody else may.
    for (member, value) in [("added_by", "me"), ("added_at", "2026-01-01T00:00:00Z")] {
        let mut body = json!({"list": "deny", "tenant": "acme"});
        body[member] = json!(value);
        assert_eq!(send(body).fault_paths(422), [member]);
    }
}

#[test]
fn every_fault_of_an_entry_is_named_by_its_path_and_changes_nothing() {
    let node = node(POLICY);
    let whole = "";
    for (body, faults) in [
        (json!({}), vec!["list", whole]),
        (json!({"list": "grey", "tenant": "a b"}), vec!["list", "tenant"]),
        (json!({"list": "deny", "ip": "192.0.2.1", "tenant": "acme"}), vec![whole]),
        (json!({"list": "deny", "api_key": "k", "api_key_sha256": "0".repeat(64)}), vec![whole]),
        (json!({"list": "deny", "ip": "192.0.2.1/33"}), vec!["ip"]),
        (json!({"list": "deny", "ip": "192.0.2.256"}), vec!["ip"]),
        (json!({"list": "deny", "api_key": ""}), vec!["api_key"]),
        (json!({"list": "deny", "api_key_sha256": "sesame"}), vec!["api_key_sha256"]),
        (json!({"list": "deny", "client": "a\nb"}), vec!["client"]),
        (json!({"list": "deny", "tenant": "a", "id": "a b"}), vec!["id"]),
        (json!({"list": "deny", "tenant": "a", "id": ""}), vec!["id"]),
        (json!({"list": "deny", "tenant": "a", "reason": "x".repeat(1_025)}), vec!["reason"]),
        (json!({"list": "deny", "tenant": "a", "expires": "soon"}), vec!["expires"]),
        (
            json!({"list": "deny", "tenant": "a", "expires": "2020-01-01T00:00:00Z"}),
            vec!["expires"],
        ),
        (json!({"list": "deny", "tenant": "a", "colour": 1}), vec!["colour"]),
        (json!({"list": "deny", "tenants": "a"}), vec![whole, "tenants"]),
        (json!([]), vec![whole]),
    ] {
        assert_eq!(add(&node, body.clone()).fault_paths(422), faults, "{body}");
    }
    node.send(&Request::new("POST", "/v1/access").body("{")).problem(400);
    node.send(&Request::new("POST", "/v1/access")).problem(400);
    let twice = r#"{"list":"deny","tenant":"a","id":"x","id":"y"}"#;
    assert_eq!(node.send(&Request::new("POST", "/v1/access").body(twice)).fault_paths(422), ["id"]);
    assert_eq!(version(&node), 1);
}

#[test]
fn an_id_that_is_taken_is_refused_and_the_entry_stays() {
    let node = node(POLICY);
    added(&node, json!({"id": "a", "list": "deny", "tenant": "acme"}));
    let again = add(&node, json!({"id": "a", "list": "allow", "tenant": "acme"}));
    assert_eq!(again.fault_paths(422), ["id"]);
    assert_eq!(node.get("/v1/access/a").json()["list"], "deny");
    assert_eq!(version(&node), 2);
    // Of many at once that want the same id, one gets it.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|i| {
                let node = &node;
                let entry = json!({"id": "b", "list": "deny", "tenant": format!("t{i}")});
                scope.spawn(move || add(node, entry).status)
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 201).count(), 1, "{answers:?}");
}

#[test]
fn a_write_for_another_version_is_412_whatever_its_body() {
    let node = node(POLICY);
    added(&node, json!({"id": "a", "list": "deny", "tenant": "acme"}));
    for (method, path) in [("POST", "/v1/access"), ("DELETE", "/v1/access/a")] {
        let stale = Request::new(method, path).header("if-match", "\"1\"").body("{ not even JSON");
        let answer = node.send(&stale);
        answer.problem(412);
        assert_eq!(answer.header("etag"), "\"2\"");
    }
    let entry = json!({"list": "deny", "tenant": "globex"});
    let fresh = Request::new("POST", "/v1/access").header("if-match", "\"2\"").json(&entry);
    assert_eq!(node.send(&fresh).status, 201);
    assert_eq!(
        node.send(&Request::new("DELETE", "/v1/access/a").header("if-match", "\"3\"")).version(),
        4
    );
}

#[test]
fn entries_are_listed_once_page_by_page_in_the_order_of_their_ids_of_both_lists_or_one() {
    let node = node(POLICY);
    for (id, list) in
        [("m3", "deny"), ("m1", "allow"), ("M2", "deny"), ("m2", "deny"), ("z", "allow")]
    {
        added(&node, json!({"id": id, "list": list, "tenant": "acme"}));
    }
    let pages = |most: usize, filter: &str| {
        let (mut all, mut pages, mut after) = (Vec::new(), 0, String::new());
        loop {
            let answer = node.get(&format!("/v1/access?limit={most}&after={after}{filter}"));
            assert_eq!((answer.status, answer.header("etag")), (200, "\"6\""));
            let page = answer.json();
            let ids = page["entries"].as_array().unwrap();
            assert!(ids.len() <= most);
            all.extend(ids.iter().map(|entry| entry["id"].as_str().unwrap().to_string()));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => after = next.to_string(),
                None => return (all, pages),
            }
        }
    };
    for (most, count) in [(1, 5), (2, 3), (5, 1), (100, 1)] {
        let ids = ["M2", "m1", "m2", "m3", "z"].map(String::from).to_vec();
        assert_eq!(pages(most, ""), (ids, count), "{most}");
    }
    for (filter, ids) in [("&list=deny", vec!["M2", "m2", "m3"]), ("&list=allow", vec!["m1", "z"])]
    {
        assert_eq!(pages(2, filter).0, ids, "{filter}");
        assert_eq!(
            pages(1, filter),
            (ids.iter().map(ToString::to_string).collect(), ids.len()),
            "{filter}"
        );
    }
    for (query, fault) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("after=a%20b", "after"),
        ("list=grey", "list"),
    ] {
        assert_eq!(node.get(&format!("/v1/access?{query}")).fault_paths(400), [fault], "{query}");
    }
}

#[test]
fn an_entry_that_is_not_there_is_404_and_an_id_that_is_none_400() {
    let node = node(POLICY);
    for method in ["GET", "DELETE"] {
        node.send(&Request::new(method, "/v1/access/nobody")).problem(404);
        let strange = node.send(&Request::new(method, "/v1/access/a%20b"));
        assert_eq!(strange.fault_paths(400), ["id"]);
    }
    assert_eq!(version(&node), 1);
}

#[test]
fn an_entry_counts_until_it_expires() {
    let node = node(POLICY);
    let id =
        added(&node, json!({"list": "deny", "tenant": "acme", "expires": instant_in_ms(3_000)}));
    let denied = node.check(json!({"tenant": "acme"}));
    assert_eq!(denied["denied_by"]["name"], id);
    assert!((1..=3_000).contains(&denied["retry_after_ms"].as_u64().unwrap()), "{denied}");
    eventually("the entry's time is up", || {
        node.check(json!({"tenant": "acme"}))["allowed"] == true
    });
}

#[test]
fn entries_that_have_expired_are_cleaned_up_by_the_cluster_in_one_change_and_come_back_with_a_rollback()
 {
    let node = node(POLICY);
    added(
        &node,
        json!({"id": "stays", "list": "deny", "tenant": "globex", "expires": "2100-01-01T00:00:00Z"}),
    );
    let soon = instant_in_ms(5_000);
    for id in ["a", "b"] {
        added(&node, json!({"id": id, "list": "deny", "tenant": "acme", "expires": soon}));
    }
    let left = || -> Vec<String> {
        let entries = node.get("/v1/access").json()["entries"].as_array().unwrap().clone();
        entries.iter().map(|entry| entry["id"].as_str().unwrap().to_string()).collect()
    };
    eventually("what has expired is gone", || left() == ["stays"]);
    let audit = node.get("/v1/audit?limit=1").json();
    assert_eq!(audit["entries"][0]["what"], "deleted 2 expired list entries");
    assert_eq!(version(&node), 5);
    let body = json!({"version": 4});
    let dry_run = node.post("/v1/policy/rollback?dry_run=true", body).json();
    let paths: Vec<_> =
        dry_run["changes"].as_array().unwrap().iter().map(|change| &change["path"]).collect();
    assert_eq!(paths, ["access.a", "access.b"]);
}

#[test]
fn an_api_key_is_hashed_at_the_door_and_kept_nowhere() {
    let node = Setup::policy(POLICY).variable("TIDEGATE_LOG", "trace").start();
    let key = "canary-key-4711";
    let answer = add(&node, json!({"id": "k", "list": "deny", "api_key": key}));
    assert_eq!(answer.status, 201, "{answer:?}");
    let wrong = add(&node, json!({"list": "deny", "api_key": format!("{key}\n")}));
    assert_eq!(wrong.fault_paths(422), ["api_key"]);
    let digest = ApiKeyDigest::of(key).to_string();
    let (seen, document) = (node.get("/v1/access/k"), node.get("/v1/policy"));
    assert_eq!(seen.json()["api_key_sha256"], digest);
    assert_eq!(document.json()["access"]["k"]["api_key_sha256"], digest);
    for text in [answer.body, wrong.body, seen.body, document.body, node.stderr()] {
        assert!(!text.contains(key), "{text}");
    }
}

#[test]
fn entries_outlast_a_kill_9_right_after_their_answer() {
    let mut node = node(POLICY);
    for i in 0..3 {
        added(&node, json!({"id": format!("e{i}"), "list": "deny", "tenant": format!("t{i}")}));
        node = node.kill().start();
        for j in 0..=i {
            assert_eq!(node.check(json!({"tenant": format!("t{j}")}))["allowed"], false);
        }
    }
}

/// Two for each address and five for each tenant; IPv4 counts by 24 bits.
const PER_ADDRESS: &str = r#"
ipv4_prefix = 24
default_tier = "free"
[[limits]]
name = "per-ip"
per = ["ip", "action"]
algorithm = "sliding_log"
limit = 2
window = "1h"
[tiers.free]
limits = [{ name = "log", algorithm = "sliding_log", limit = 5, window = "1h" }]
[access.bad]
list = "deny"
ip = "2001:db8:1:2::bad"
"#;

#[test]
fn addresses_count_by_prefix_and_lists_name_them_one_by_one() {
    let node = node(PER_ADDRESS);
    let asks = |tenant: &str, action: &str, ip: &str| {
        node.check(json!({"tenant": tenant, "action": action, "ip": ip}))
    };
    // The first two share the limit of their network; the third is denied, and another network is
    // not.
    for (ips, other) in [
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:2::3"], "2001:db8:1:3::1"),
        (["192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3"], "192.0.3.1"),
    ] {
        let said = [0, 1, 2].map(|i: usize| asks(&format!("t{i}"), "a", ips[i]));
        assert_eq!(said.each_ref().map(|said| &said["allowed"]), [true, true, false], "{said:?}");
        assert_eq!(said[2]["denied_by"]["name"], "per-ip");
        assert_eq!(asks("t", "a", other)["allowed"], true);
    }
    // A list names the one address of the network, and no limit was asked.
    assert_eq!(asks("t", "b", "2001:db8:1:2::bad")["denied_by"]["reason"], "deny_list");
    assert_eq!(asks("t", "b", "2001:db8:1:2::1d")["allowed"], true);
    // `anonymous` has an account for each network.
    let anonymous = |host: &str, i: usize| {
        asks("anonymous", &format!("c{i}"), &format!("2001:db8:9::{host}"))["allowed"] == true
    };
    assert_eq!((0..4).filter(|i| anonymous("1", *i)).count(), 4);
    assert_eq!((4..8).filter(|i| anonymous("2", *i)).count(), 1);
    let active = node.get("/v1/tenants").json();
    let ids: Vec<_> =
        active["tenants"].as_array().unwrap().iter().map(|t| t["id"].clone()).collect();
    assert!(ids.contains(&json!("anonymous@2001:db8:9::")), "{ids:?}");
}

#[test]
fn a_changed_prefix_counts_from_the_next_check_on() {
    let node = node(PER_ADDRESS);
    let asks =
        |ip: &str| node.check(json!({"tenant": "t", "action": "a", "ip": ip}))["allowed"] == true;
    assert_eq!(
        [asks("2001:db8::1"), asks("2001:db8::2"), asks("2001:db8::3")],
        [true, true, false]
    );
    let mut policy = node.get("/v1/policy").json();
    assert_eq!((&policy["ipv4_prefix"], policy.get("ipv6_prefix")), (&json!(24), None));
    policy["ipv6_prefix"] = json!(128);
    node.put("/v1/policy", policy.clone()).version();
    assert_eq!([asks("2001:db8::1"), asks("2001:db8::2")], [true; 2]);
    policy["ipv6_prefix"] = json!(129);
    assert_eq!(node.put("/v1/policy", policy).fault_paths(422), ["ipv6_prefix"]);
}
