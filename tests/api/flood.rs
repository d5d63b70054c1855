//! A flood of invented keys fills its own cap and then shares one bucket a limit: memory stays
//! bounded, nobody is refunded, and tenants that the policy names don't notice.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use crate::rig::{Home, Node};

/// Three units of each bucket, and no more while a test runs.
const POLICY: &str = r#"
default_tier = "free"
[[limits]]
name = "per-ip"
per = ["ip"]
algorithm = "token_bucket"
rate = "1/h"
burst = 3
[tiers.free]
limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/h", burst = 3 }]
[tiers.clients]
limits = [{ name = "rate", per = ["tenant", "client"], algorithm = "token_bucket", rate = "1/h", burst = 3 }]
[tiers.large]
limits = [{ name = "rate", algorithm = "fixed_window", limit = 100000, window = "520w" }]
[tiers.open]
[tenants.acme]
tier = "large"
[tenants.newcomer]
tier = "large"
[tenants.crowded]
tier = "clients"
[tenants.gateway]
tier = "open"
"#;

/// The cap, and how many keys are sent that have to fit under it.
const CAP: usize = 1_000;
const FLOOD: usize = 10 * CAP;
const BATCH: usize = 1_000;
/// As many accounts as would be seen in the memory, were they kept, and what it may grow by for
/// reasons of its own.
const GREAT_FLOOD: usize = 60 * CAP;
const GROWTH_MAX: u64 = 9 << 20;

fn start(caps: &str) -> Node {
    let limits = "workers = 2\nnamed_tenants = 100\nbatch_body_bytes = 4194304";
    Home::new(POLICY, &format!("[limits]\n{limits}\n{caps}")).start()
}

/// As much of an answer as these tests look at, tens of thousands of times.
#[derive(Debug, Deserialize)]
struct Said {
    allowed: bool,
    remaining: u64,
    replayed: bool,
    mode: String,
    degraded: Option<Degraded>,
}

#[derive(Debug, Deserialize)]
struct Degraded {
    reason: String,
}

impl Said {
    fn is_approximate(&self) -> bool {
        let capped = self.degraded.as_ref().is_some_and(|degraded| degraded.reason == "key_cap");
        assert_eq!(self.mode, if capped { "approximate" } else { "exact" }, "{self:?}");
        capped
    }
}

#[derive(Deserialize)]
struct Batch {
    decisions: Vec<Said>,
}

/// The check with as much time for limits that are shared as a busy machine may need.
fn patient(check: &str) -> String {
    check.replacen('{', r#"{"deadline_ms":60000,"#, 1)
}

fn check(node: &Node, check: &str) -> Said {
    let answer = node.call("POST", "/v1/check", patient(check));
    serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.text()))
}

/// Sends checks in batches; the answers in their order.
fn check_each(node: &Node, checks: impl Iterator<Item = String>) -> Vec<Said> {
    let mut wire = node.connect();
    let checks: Vec<_> = checks.map(|check| patient(&check)).collect();
    let mut answers = Vec::new();
    for batch in checks.chunks(BATCH) {
        let body = format!(r#"{{"checks":[{}]}}"#, batch.join(","));
        let answer = wire.call("POST", "/v1/check/batch", &[], body.as_bytes());
        let read: Result<Batch, _> = serde_json::from_slice(&answer.body);
        answers.extend(read.unwrap_or_else(|e| panic!("{e}: {}", answer.text())).decisions);
    }
    assert_eq!(answers.len(), checks.len());
    answers
}

/// Spends all three units of a bucket, and is denied.
fn use_up(node: &Node, victim: &str) {
    let spent: Vec<_> = (0..4).map(|_| check(node, victim)).collect();
    let allowed: Vec<_> = spent.iter().map(|said| said.allowed).collect();
    assert_eq!(allowed, [true, true, true, false], "{victim}");
    assert!(!spent[3].is_approximate());
}

/// Whoever has used up his bucket finds it so.
fn is_still_denied(node: &Node, victim: &str) {
    let said = check(node, victim);
    assert!(!said.allowed && !said.is_approximate(), "{said:?}");
}

const ACME: &str = r#"{"tenant":"acme"}"#;

/// The named tenant has all of its 100,000 but what it spent itself.
fn acme_has_spent(node: &Node, spent: u64) {
    let said = check(node, ACME);
    assert!(said.allowed && !said.is_approximate(), "{said:?}");
    assert_eq!(said.remaining, 100_000 - spent);
}

fn exact(answers: &[Said]) -> usize {
    answers.iter().filter(|said| !said.is_approximate()).count()
}

/// Those that found something left in a bucket shared with others.
fn lucky(answers: &[Said]) -> usize {
    answers.iter().filter(|said| said.is_approximate() && said.allowed).count()
}

/// A flood of what `key` makes of a number, after `victim` has used up its own. It has to find the
/// cap and to share what lies beyond it; whoever came before has to keep what is his.
fn flood(node: &Node, victim: &str, count: usize, key: impl Fn(usize) -> String) {
    use_up(node, victim);
    (1..=40).for_each(|spent| acme_has_spent(node, spent));
    let first = check_each(node, (0..FLOOD).map(&key));
    let at_cap = node.process.resident_bytes();
    let more = check_each(node, (FLOOD..count).map(&key));
    let grown = node.process.resident_bytes().saturating_sub(at_cap);
    assert!(grown < GROWTH_MAX, "{grown} bytes more for {count} keys");

    let own = exact(&first) + exact(&more);
    assert!((CAP / 2..=CAP).contains(&own), "{own}");
    // A key that was denied by another limit leaves its place to a later one; beside that, all
    // places are taken.
    assert!(exact(&more) <= CAP / 50, "{}", exact(&more));
    // What the others share is a bucket of three for each of two limits in each of two shards.
    assert!(lucky(&first) + lucky(&more) <= 12, "{} {}", lucky(&first), lucky(&more));
    // Nobody who had a bucket was pushed out of it: after two more of the three units there is
    // nothing left.
    let early: Vec<_> = (0..100).filter(|i| !first[*i].is_approximate()).collect();
    assert!(early.len() >= 50);
    for (round, allowed) in [(1, true), (2, true), (3, false)] {
        for said in check_each(node, early.iter().map(|i| key(*i))) {
            assert!(said.allowed == allowed && !said.is_approximate(), "round {round}: {said:?}");
        }
    }
    is_still_denied(node, victim);
    acme_has_spent(node, 41);
}

/// What the node says it keeps of a tenant.
fn kept(node: &Node, tenant: &str, what: &str) -> usize {
    let tenant = node.call("GET", &format!("/v1/tenants/{tenant}"), "").json();
    tenant["state"][what].as_u64().unwrap() as usize
}

/// The ids of all tenants in memory or in the policy.
fn listed(node: &Node) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut after = String::new();
    for _ in 0..1_000 {
        let page = node.call("GET", &format!("/v1/tenants?limit=1000&after={after}"), "").json();
        let tenants = page["tenants"].as_array().unwrap();
        ids.extend(tenants.iter().map(|tenant| tenant["id"].as_str().unwrap().to_string()));
        match page["next"].as_str() {
            Some(next) => after = next.into(),
            None => return ids,
        }
    }
    panic!("the list of tenants has no end")
}

/// A check of a tenant whose id is as long as they may be.
fn long(i: usize) -> String {
    format!(r#"{{"tenant":"{i:0>128}"}}"#)
}

#[test]
fn a_flood_of_unknown_tenants_is_bounded_by_their_cap() {
    let node = start(&format!("unknown_tenants = {CAP}"));
    flood(&node, r#"{"tenant":"victim"}"#, GREAT_FLOOD, long);
    // A named tenant that comes only now finds room.
    let late = check(&node, r#"{"tenant":"newcomer"}"#);
    assert!(late.remaining == 99_999 && !late.is_approximate(), "{late:?}");
    // Looking at somebody who isn't there shows what he would find alone, and leaves nothing
    // behind.
    let seen = node.call("POST", "/v1/peek", r#"{"tenant":"never-seen"}"#).json();
    assert_eq!((&seen["remaining"], &seen["mode"]), (&json!(3), &json!("exact")));
    let listed = listed(&node);
    assert!(listed.len() <= CAP + 4 && !listed.contains("never-seen"), "{}", listed.len());
}

#[test]
fn a_flood_of_addresses_without_a_tenant_is_bounded_too() {
    let node = start(&format!("unknown_tenants = {CAP}\nshared_keys = {CAP}"));
    flood(&node, r#"{"tenant":"anonymous","ip":"2001:db8::1"}"#, FLOOD, |i| {
        format!(r#"{{"tenant":"anonymous","ip":"2001:db8:1:{i:x}::1"}}"#)
    });
}

#[test]
fn a_flood_of_shared_keys_is_bounded_and_refunds_no_address() {
    let node = start(&format!("shared_keys = {CAP}"));
    flood(&node, r#"{"tenant":"gateway","ip":"203.0.113.9"}"#, FLOOD, |i| {
        format!(r#"{{"tenant":"gateway","ip":"2001:db8:1:{i:x}::1"}}"#)
    });
}

#[test]
fn a_flood_of_buckets_is_bounded_by_the_cap_on_all_keys() {
    // Each has an account, of which there may be a million, but not each has a bucket.
    let node = start(&format!("keys = {CAP}"));
    let victim = r#"{"tenant":"victim"}"#;
    use_up(&node, victim);
    acme_has_spent(&node, 1);
    let answers = check_each(&node, (0..FLOOD).map(|i| format!(r#"{{"tenant":"t{i}"}}"#)));
    assert!(exact(&answers) <= CAP, "{}", exact(&answers));
    is_still_denied(&node, victim);
    acme_has_spent(&node, 2);
}

#[test]
fn a_flood_of_one_tenants_clients_is_bounded_and_is_that_tenants_alone() {
    let node = start(&format!("keys_per_tenant = {CAP}"));
    let of = |client: &str| format!(r#"{{"tenant":"crowded","client":"{client}"}}"#);
    use_up(&node, &of("victim"));
    let answers = check_each(&node, (0..FLOOD).map(|i| of(&i.to_string())));
    // The victim has one of the places.
    assert_eq!(exact(&answers), CAP - 1);
    assert!(lucky(&answers) <= 3, "{}", lucky(&answers));
    assert!(kept(&node, "crowded", "keys") <= CAP + 1);
    is_still_denied(&node, &of("victim"));
    let other = check(&node, r#"{"tenant":"somebody","tier":"clients","client":"new"}"#);
    assert!(other.allowed && !other.is_approximate(), "{other:?}");
}

#[test]
fn a_flood_of_limit_names_sent_with_checks_is_bounded() {
    let node = start(&format!("keys_per_tenant = {CAP}\nunknown_tenants = {CAP}"));
    let of = |tenant: &str, name: &str| {
        let limit =
            format!(r#"{{"name":"{name}","algorithm":"token_bucket","rate":"1/h","burst":3}}"#);
        format!(r#"{{"tenant":"{tenant}","limits":[{limit}]}}"#)
    };
    let victim = of("inventive", "victim");
    use_up(&node, &victim);
    // By one tenant, and by more tenants than there is room for.
    let answers = check_each(&node, (0..FLOOD).map(|i| of("inventive", &format!("l{i}"))));
    assert_eq!(exact(&answers), CAP - 1);
    assert!(kept(&node, "inventive", "keys") <= CAP + 1);
    let answers = check_each(&node, (0..FLOOD).map(|i| of(&format!("t{i}"), &format!("l{i}"))));
    assert!(exact(&answers) <= CAP, "{}", exact(&answers));
    assert!(lucky(&answers) <= 6, "{}", lucky(&answers));
    is_still_denied(&node, &victim);
}

#[test]
fn a_flood_of_request_ids_is_bounded() {
    // A thousand ids a tenant may be remembered; so many tenants send so many that the cap of all
    // comes first.
    let node = start(&format!("request_ids = {CAP}"));
    let of = |i: usize| format!(r#"{{"tenant":"t{}","tier":"large","request_id":"r{i}"}}"#, i % 20);
    let answers = check_each(&node, (0..FLOOD).map(of));
    assert!(answers.iter().all(|said| said.allowed && !said.replayed));
    let remembered: usize = (0..20).map(|i| kept(&node, &format!("t{i}"), "request_ids")).sum();
    assert!((1..=CAP).contains(&remembered), "{remembered}");
}
