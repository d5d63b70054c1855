//! However many ask at once, exactly the limit's number is admitted, and who is denied by one limit
//! takes nothing from any other.
//!
//! The nodes here have four shards, so that tenants, the limits they share and the connections that
//! ask lie apart. A check may wait for limits that are shared for as long as a busy machine needs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Node, Request, Setup, limit, log, patient, policy};

const TENANT: &str = r#"["tenant"]"#;
const IP: &str = r#"["ip"]"#;
const EVERYBODY: &str = "[]";

/// Callers that ask at the same time, each on a connection of its own.
const CALLERS: usize = 64;

fn four_shards(policy: &str) -> Node {
    Setup::policy(policy).section("[limits]\nworkers = 4").start()
}

/// Every caller asks `calls` times: `checks(caller)` in turn. `seen` hears the number of the check
/// and whether it was allowed.
fn ask(
    node: &Node,
    calls: usize,
    checks: impl Fn(usize) -> Vec<Value> + Sync,
    seen: impl Fn(usize, usize, bool) + Sync,
) {
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (checks, seen) = (&checks, &seen);
            scope.spawn(move || {
                let requests: Vec<_> = checks(caller)
                    .iter()
                    .map(|check| Request::new("POST", "/v1/check").json(&patient(check)))
                    .collect();
                let mut client = node.client();
                for call in 0..calls {
                    let answer = client.send(&requests[call % requests.len()]);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    seen(caller, call % requests.len(), answer.body.contains("\"allowed\":true"));
                }
            });
        }
    });
}

/// How many of such calls are allowed.
fn allowed(node: &Node, calls: usize, checks: impl Fn(usize) -> Vec<Value> + Sync) -> usize {
    let allowed = AtomicUsize::new(0);
    ask(node, calls, checks, |_, _, yes| {
        allowed.fetch_add(usize::from(yes), Ordering::Relaxed);
    });
    allowed.into_inner()
}

/// What `limits` have left, as `check` sees them.
fn left<const N: usize>(node: &Node, check: Value, limits: [&str; N]) -> [u64; N] {
    let peeked = node.peek(check);
    limits.map(|name| limit(&peeked, name)["remaining"].as_u64().unwrap())
}

#[test]
fn sixty_four_callers_of_two_thousand_calls_each_pass_exactly_the_smaller_of_two_limits() {
    let node = four_shards(
        r#"
default_tier = "free"
[tiers.free]
limits = [
  { name = "hour", algorithm = "sliding_log", limit = 10000, window = "1h" },
  { name = "month", algorithm = "quota", limit = 70000, period = "month" },
]
"#,
    );
    let acme = json!({"tenant": "acme"});
    assert_eq!(allowed(&node, 2_000, |_| vec![acme.clone()]), 10_000);
    assert_eq!(left(&node, acme, ["hour", "month"]), [0, 60_000]);
}

#[test]
fn many_tenants_at_once_pass_exactly_what_everybody_together_may() {
    let node = four_shards(&policy(&[log("everybody", EVERYBODY, 3_000)], &[]));
    let tenant = |caller: usize| vec![json!({"tenant": format!("t{caller}")})];
    assert_eq!(allowed(&node, 100, tenant), 3_000);
    assert_eq!(left(&node, json!({"tenant": "other"}), ["everybody"]), [0]);
}

#[test]
fn many_tenants_at_once_pass_exactly_what_each_address_may() {
    let node = four_shards(&policy(&[log("per-ip", IP, 300)], &[]));
    let by_address: [AtomicU64; 8] = Default::default();
    let checks = |caller: usize| {
        (0..8)
            .map(|ip| json!({"tenant": format!("t{caller}"), "ip": format!("192.0.2.{ip}")}))
            .collect()
    };
    ask(&node, 64, checks, |_, ip, yes| {
        by_address[ip].fetch_add(u64::from(yes), Ordering::Relaxed);
    });
    assert_eq!(by_address.map(AtomicU64::into_inner), [300; 8]);
}

#[test]
fn who_is_denied_by_everybodys_limit_takes_nothing_from_its_address_or_its_tenant() {
    // Eight addresses of 300 would let 2,400 pass, sixteen tenants of 200 let 3,200 pass; together
    // they may pass 2,000.
    let node = four_shards(&policy(
        &[log("everybody", EVERYBODY, 2_000), log("per-ip", IP, 300)],
        &[log("tenant", TENANT, 200)],
    ));
    let check = |tenant: usize, ip: usize| json!({"tenant": format!("t{tenant}"), "ip": format!("192.0.2.{ip}")});
    let checks = |caller: usize| (0..8).map(|ip| check(caller % 16, (caller + ip) % 8)).collect();
    assert_eq!(allowed(&node, 64, checks), 2_000);
    assert_eq!(left(&node, check(0, 0), ["everybody"]), [0]);
    let of_addresses: u64 = (0..8).map(|ip| left(&node, check(0, ip), ["per-ip"])[0]).sum();
    let of_tenants: u64 = (0..16).map(|tenant| left(&node, check(tenant, 0), ["tenant"])[0]).sum();
    assert_eq!((of_addresses, of_tenants), (2_400 - 2_000, 3_200 - 2_000));
}

#[test]
fn who_is_denied_by_its_tenants_limit_takes_nothing_from_everybodys_or_its_address() {
    let node = four_shards(&policy(
        &[log("everybody", EVERYBODY, 10_000), log("per-ip", IP, 10_000)],
        &[log("tenant", TENANT, 50)],
    ));
    let check = |tenant: usize| json!({"tenant": format!("t{tenant}"), "ip": "192.0.2.1"});
    assert_eq!(allowed(&node, 40, |caller| vec![check(caller % 16)]), 16 * 50);
    assert_eq!(left(&node, check(99), ["everybody", "per-ip"]), [10_000 - 800, 10_000 - 800]);
}

#[test]
fn a_denial_by_one_limit_leaves_the_others_count_untouched_either_way_round() {
    let acme = json!({"tenant": "acme", "ip": "192.0.2.1"});
    // What each of the two limits is per.
    for (per_a, per_b) in [(TENANT, TENANT), (TENANT, EVERYBODY), (IP, TENANT), (EVERYBODY, IP)] {
        for (most_a, most_b) in [(100, 1_000), (1_000, 100)] {
            let (a, b) = (log("a", per_a, most_a), log("b", per_b, most_b));
            // The order in which they are written makes no difference.
            let node = four_shards(&policy(&[b, a], &[]));
            assert_eq!(allowed(&node, 10, |_| vec![acme.clone()]), 100, "{per_a} {per_b}");
            let expected = [most_a - 100, most_b - 100];
            assert_eq!(left(&node, acme.clone(), ["a", "b"]), expected, "{per_a} {per_b}");
        }
    }
}

#[test]
fn the_units_that_pass_and_those_that_are_left_are_the_limits_whatever_each_check_costs() {
    let node = four_shards(&policy(
        &[log("everybody", EVERYBODY, 1_500)],
        &[log("tenant", TENANT, 2_000)],
    ));
    let taken = AtomicU64::new(0);
    let checks = |_| (1..=7).map(|cost| json!({"tenant": "acme", "cost": cost})).collect();
    ask(&node, 21, checks, |_, i, yes| {
        taken.fetch_add(if yes { i as u64 + 1 } else { 0 }, Ordering::Relaxed);
    });
    // Those that cost 1 asked to the last, so nothing is left where all of them fit.
    let [tenant, everybody] = left(&node, json!({"tenant": "acme"}), ["tenant", "everybody"]);
    assert_eq!((taken.into_inner(), everybody, tenant), (1_500, 0, 500));
}

#[test]
fn batches_that_pass_together_or_not_at_all_never_leave_a_part_behind() {
    let node = four_shards(&policy(&[log("per-ip", IP, 100)], &[log("tenant", TENANT, 1_000)]));
    let check = patient(&json!({"tenant": "acme", "ip": "192.0.2.1"}));
    let checks = json!([check, check, patient(&json!({"tenant": "acme"}))]);
    let batch = Request::new("POST", "/v1/check/batch")
        .json(&json!({"mode": "all_or_nothing", "checks": checks}));
    let passed: usize = std::thread::scope(|scope| {
        let caller = || {
            let mut client = node.client();
            (0..4).filter(|_| client.send(&batch).json()["allowed"] == true).count()
        };
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    // Two units of the address each: fifty fit.
    assert_eq!((passed, left(&node, check, ["tenant", "per-ip"])), (50, [850, 0]));
}

#[test]
fn never_more_permits_are_out_than_may_be_however_fast_they_come_and_go() {
    let node = four_shards("default_tier = \"free\"\n[tiers.free]\nmax_concurrent = 5\n");
    let (out, granted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let request = Request::new("POST", "/v1/check")
        .json(&json!({"tenant": "acme", "permit": {"ttl_ms": 300_000}}));
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut client = node.client();
                for _ in 0..20 {
                    let decision = client.send(&request).json();
                    let Some(id) = decision["permit"]["id"].as_str() else {
                        assert_eq!(decision["denied_by"]["reason"], "concurrency", "{decision}");
                        continue;
                    };
                    granted.fetch_add(1, Ordering::SeqCst);
                    assert!(out.fetch_add(1, Ordering::SeqCst) < 5);
                    out.fetch_sub(1, Ordering::SeqCst);
                    let released =
                        client.send(&Request::new("DELETE", &format!("/v1/permits/{id}")));
                    assert_eq!(released.status, 204);
                }
            });
        }
    });
    assert!(granted.into_inner() >= 20);
    assert_eq!(node.get("/v1/tenants/acme").json()["state"]["permits"], 0);
    assert_eq!(node.allowed_of(10, json!({"tenant": "acme", "permit": {}})), 5);
}
