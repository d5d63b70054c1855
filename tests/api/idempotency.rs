//! A request id makes a check that is sent twice one check.

use serde_json::{Value, json};

use crate::support::{Request, Setup, limit, log, node, policy, sent};

/// Ten at once, and two permits.
const TEN: &str = r#"
default_tier = "free"
[tiers.free]
max_concurrent = 2
limits = [{ name = "burst", algorithm = "token_bucket", rate = "1/h", burst = 10 }]
"#;

fn check(id: &str, cost: u64) -> Value {
    json!({"tenant": "acme", "cost": cost, "request_id": id})
}

#[test]
fn a_repeated_check_gets_the_first_answer_again_marked_as_replayed_and_is_charged_once() {
    let node = node(TEN);
    let mut first = node.check(check("r-1", 3));
    assert_eq!((&first["replayed"], &first["remaining"]), (&json!(false), &json!(7)));
    // What others take meanwhile doesn't show.
    node.check(json!({"tenant": "acme", "cost": 2}));
    let second = node.check(check("r-1", 3));
    first["replayed"] = json!(true);
    assert_eq!(second, first);
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 5);
}

#[test]
fn the_header_quoted_or_bare_and_the_body_name_the_same_id() {
    let node = node(TEN);
    let plain = json!({"tenant": "acme"});
    let with_header = |value: &str| {
        Request::new("POST", "/v1/check").header("Idempotency-Key", value).json(&plain)
    };
    let in_body =
        Request::new("POST", "/v1/check").json(&json!({"tenant": "acme", "request_id": "r-1"}));
    for (request, replayed) in [
        (with_header("\"r-1\""), false),
        (with_header("\"r-1\""), true),
        (with_header("r-1"), true),
        (in_body.clone(), true),
        (in_body.header("idempotency-key", "r-1"), true),
        (with_header("r-2"), false),
    ] {
        assert_eq!(node.send(&request).json()["replayed"], replayed);
    }
    assert_eq!(node.peek(plain)["remaining"], 8);
}

#[test]
fn a_header_that_differs_from_the_body_or_is_no_id_is_400() {
    let node = node(TEN);
    for header in ["r-2", "", "\"\"", "a b", "ä", &"x".repeat(257)] {
        let request = Request::new("POST", "/v1/check")
            .header("Idempotency-Key", header)
            .json(&check("r-1", 1));
        assert_eq!(node.send(&request).fault_paths(400), ["Idempotency-Key"], "{header:?}");
    }
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 10);
}

#[test]
fn the_same_id_with_another_body_is_422_and_takes_nothing() {
    let node = node(TEN);
    node.check(check("r-1", 1));
    for (member, value) in [
        ("cost", json!(2)),
        ("client", json!("ann")),
        ("action", json!("read")),
        ("method", json!("GET")),
        ("path", json!("/a")),
        ("ip", json!("192.0.2.1")),
        ("api_key", json!("k")),
        ("attributes", json!({"region": "eu"})),
        ("tier", json!("free")),
        ("permit", json!({})),
        ("limits", json!([sent("x", 5)])),
    ] {
        let mut other = check("r-1", 1);
        other[member] = value;
        assert_eq!(node.post("/v1/check", other).fault_paths(422), ["request_id"], "{member}");
    }
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 9);
    assert_eq!(node.check(check("r-1", 1))["replayed"], true);
}

#[test]
fn a_denial_is_not_remembered() {
    let node = node(TEN);
    node.check(json!({"tenant": "acme", "cost": 8}));
    for _ in 0..2 {
        let denied = node.check(check("r-1", 3));
        assert_eq!((&denied["allowed"], &denied["replayed"]), (&json!(false), &json!(false)));
    }
    assert_eq!(node.post("/v1/tenants/acme/reset", json!({})).status, 200);
    // The same id may even be another check now.
    let allowed = node.check(check("r-1", 4));
    assert_eq!(
        (&allowed["allowed"], &allowed["replayed"], &allowed["remaining"]),
        (&json!(true), &json!(false), &json!(6))
    );
}

#[test]
fn ids_are_each_tenants_own() {
    let node = node(TEN);
    for tenant in ["acme", "globex"] {
        let answer = node.check(json!({"tenant": tenant, "request_id": "r-1"}));
        assert_eq!(
            (&answer["replayed"], &answer["remaining"]),
            (&json!(false), &json!(9)),
            "{tenant}"
        );
    }
}

#[test]
fn a_repeated_check_is_given_the_same_permit_and_no_second_one() {
    let node = node(TEN);
    let check = json!({"tenant": "acme", "request_id": "r-1", "permit": {"ttl_ms": 60_000}});
    let (first, second) = (node.check(check.clone()), node.check(check));
    assert_eq!(second["permit"]["id"], first["permit"]["id"]);
    assert_eq!(node.allowed_of(3, json!({"tenant": "acme", "permit": {}})), 1);
}

#[test]
fn a_thousand_ids_are_remembered_and_the_oldest_goes_first() {
    let node = node(&policy(&[], &[]));
    let mut client = node.client();
    let mut replayed = |i: usize| client.check(&check(&format!("r-{i}"), 1))["replayed"] == true;
    let seen = (0..1_000).filter(|&i| replayed(i)).count();
    assert_eq!((seen, replayed(0), replayed(999)), (0, true, true));
    // One more, and r-0 is forgotten; r-1 is still known.
    assert_eq!((replayed(1_000), replayed(1), replayed(0)), (false, true, false));
}

#[test]
fn of_many_duplicates_at_once_one_is_charged_and_the_others_are_told_its_answer() {
    // Limits that tenants share lie on other shards than the tenant's, so the first is still open
    // when the others come.
    let shared = [log("everybody", "[]", 1_000), log("per-ip", r#"["ip"]"#, 1_000)];
    let own = [log("own", r#"["tenant"]"#, 10)];
    for everybodys in [&shared[..0], &shared] {
        let node =
            Setup::policy(&policy(everybodys, &own)).section("[limits]\nworkers = 4").start();
        for round in 1..=10 {
            let check =
                json!({"tenant": "acme", "ip": "192.0.2.1", "request_id": format!("r-{round}")});
            let answers: Vec<Value> = std::thread::scope(|scope| {
                let callers: Vec<_> =
                    (0..16).map(|_| scope.spawn(|| node.client().check(&check))).collect();
                callers.into_iter().map(|caller| caller.join().unwrap()).collect()
            });
            let firsts = answers.iter().filter(|answer| answer["replayed"] == false).count();
            assert_eq!(firsts, 1, "round {round}");
            assert!(
                answers
                    .iter()
                    .all(|answer| answer["allowed"] == true && answer["remaining"] == 10 - round)
            );
        }
        assert_eq!(node.peek(json!({"tenant": "acme", "ip": "192.0.2.1"}))["remaining"], 0);
        let other = node.peek(json!({"tenant": "other", "ip": "192.0.2.1"}));
        for name in ["everybody", "per-ip"].into_iter().filter(|_| !everybodys.is_empty()) {
            assert_eq!(limit(&other, name)["remaining"], 990, "{name}");
        }
    }
}
