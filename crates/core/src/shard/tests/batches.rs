//! Batches: one tenant's checks that pass together or not at all, and checks that are merely asked
//! together.

use super::*;
use crate::check::Reason;

/// Five for each tenant, three for each client, eight for everybody.
const POLICY: &str = r#"
    default_tier = "t"
    limits = [{ name = "everybody", per = [], algorithm = "fixed_window", limit = 8, window = "1d" }]
    [tiers.t]
    max_concurrent = 4
    limits = [
        { name = "client", per = ["tenant", "client"], algorithm = "fixed_window", limit = 3, window = "1d" },
        { name = "rate", algorithm = "sliding_log", limit = 5, window = "1d" },
    ]
"#;

/// Checks of `tenant` by clients of these names.
fn clients(names: &[&str], tenant: &Check) -> Vec<Check> {
    names.iter().map(|name| by_client(name, tenant)).collect()
}

fn left(world: &mut World, check: &Check) -> [u64; 3] {
    let decision = world.peek(&costing(1_000, check));
    ["everybody", "rate", "client"].map(|limit| verdict(&decision, limit).remaining)
}

#[test]
fn a_batch_passes_whole_or_takes_nothing_from_own_and_shared_limits() {
    for seed in seeds(10) {
        let mut world = World::new(2, POLICY, ROOM, seed);
        let [near, far] = world.near_and_far();
        for tenant in [&near, &far] {
            let before = left(&mut world, tenant)[0];
            assert!(world.ask_all(&clients(&["ann", "ann", "bob"], tenant)).unwrap()[0].allowed);
            let ann = by_client("ann", tenant);
            assert_eq!(left(&mut world, &ann), [before - 3, 2, 1]);
            // Ann has one left, so that two of hers don't pass, and bob's doesn't pass with them.
            for denied in world.ask_all(&clients(&["bob", "ann", "ann"], tenant)).unwrap() {
                assert!(!denied.allowed && denied.permit.is_none());
            }
            assert_eq!(left(&mut world, &ann), [before - 3, 2, 1]);
        }
        // Everybody has two left and a third tenant five: three at once are too many, two are not.
        let third = world.tenants_of(1).nth(1).unwrap();
        for denied in world.ask_all(&clients(&["ann", "ann", "bob"], &third)).unwrap() {
            assert_eq!(denier(&denied), "everybody");
        }
        assert!(world.ask_all(&clients(&["ann", "bob"], &third)).unwrap()[1].allowed);
        assert_eq!(left(&mut world, &by_client("bob", &third)), [0, 3, 2]);
    }
}

#[test]
fn a_check_that_would_pass_alone_names_the_limit_that_denied_its_batch() {
    let mut world = World::alone(POLICY);
    assert_eq!(world.admits(&by_client("ann", &of("acme")), 3), 3);
    let decisions = world.ask_all(&clients(&["bob", "ann"], &of("acme"))).unwrap();
    assert_eq!(decisions[0].denied_by, decisions[1].denied_by);
    assert_eq!((denier(&decisions[0]), decisions[0].retry_after), ("client", Some(23 * HOUR)));
    assert_eq!(verdict(&decisions[0], "client").outcome, Outcome::Pass);
}

#[test]
fn a_batch_that_costs_more_than_a_limit_can_hold_is_told_never() {
    let mut world = World::alone(POLICY);
    let decisions = world.ask_all(&clients(&["a", "b", "c", "d", "e", "f"], &of("acme"))).unwrap();
    for denied in decisions {
        assert_eq!((denier(&denied), denied.retry_after), ("rate", None));
        assert_eq!(denied.denied_by.unwrap().reason, Reason::CostExceedsCapacity);
    }
}

#[test]
fn decisions_come_in_the_order_of_the_checks() {
    let mut world = World::alone(POLICY);
    let batch = [2, 1, 1].map(|cost| costing(cost, &of("acme")));
    let costs = |decisions: Decisions| decisions.iter().map(|d| d.cost).collect::<Vec<_>>();
    assert_eq!(costs(world.ask_all(&batch).unwrap()), [2, 1, 1]);
}

#[test]
fn checks_asked_one_by_one_are_answered_in_their_order_each_with_its_own_outcome() {
    for seed in seeds(10) {
        let mut world = World::together(2, POLICY, ROOM, seed);
        let nobody = Check { tier: Some(name("nope")), ..of("x") };
        for tenant in world.near_and_far() {
            let ann = by_client("ann", &tenant);
            let checks = [
                costing(2, &ann),
                costing(2, &ann),
                by_client("bob", &tenant),
                nobody.clone(),
                ann,
            ];
            let answers = world.ask_each(&checks);
            let said: Vec<_> =
                answers.iter().map(|a| a.as_ref().map(|d| (d.allowed, d.cost))).collect();
            let unknown = Refusal::UnknownTier(name("nope"));
            let expected =
                [Ok((true, 2)), Ok((false, 2)), Ok((true, 1)), Err(&unknown), Ok((true, 1))];
            assert_eq!(said, expected);
        }
    }
}

#[test]
fn an_empty_batch_is_answered_at_once() {
    let mut world = World::alone(POLICY);
    assert_eq!(world.ask_each(&[]).len(), 0);
    let (reply, mut answer) = world.waits();
    world.on(0, |s, now, out| s.check_all(Vec::new(), reply, now, out));
    assert_eq!(now(&mut answer).unwrap().len(), 0);
}

#[test]
fn an_answer_names_the_op_or_batch_that_took_what_it_reports() {
    let mut world = World::alone(
        r#"
        default_tier = "t"
        [tiers.t]
        limits = [{ name = "day", algorithm = "fixed_window", limit = 10, window = "1d" }]"#,
    );
    let questions = |world: &World, checks: &[Check]| -> Vec<_> {
        checks.iter().map(|check| world.question(check)).collect()
    };
    let by = |world: &mut World, checks: &[Check]| {
        let (each, now, mut effects) = (questions(world, checks), world.now, Vec::new());
        let reply = ReplyId { slot: 0, generation: 0 };
        world.shards[0].check_each(each, reply, now, &mut effects);
        match effects.pop() {
            Some(Effect::AnswerEach { answers, by, .. }) => (answers.len(), by.is_some()),
            _ => panic!("a batch is answered"),
        }
    };
    // Decided within the call, and by an op of its own.
    assert_eq!(by(&mut world, &[of("acme"), of("acme")]), (2, false));
    assert_eq!(by(&mut world, &[of("acme"), with_id("a", &of("acme"))]), (2, true));
    let (question, now, mut effects) =
        (world.question(&with_id("b", &of("acme"))), world.now, Vec::new());
    let reply = ReplyId { slot: 3, generation: 9 };
    world.shards[0].check(question, reply, now, &mut effects);
    let [Effect::Answer { reply: to, by: Some(_), .. }] = &effects[..] else {
        panic!("a check is answered once, by its op");
    };
    assert_eq!(*to, reply);
}

#[test]
fn a_batch_gets_all_of_its_permits_or_none() {
    let mut world = World::alone(POLICY);
    let permits = |client, count| vec![with_permit(60_000, &by_client(client, &of("acme"))); count];
    let granted = world.ask_all(&permits("ann", 3)).unwrap();
    let mut ids: Vec<_> = granted.iter().map(|d| d.permit.unwrap().id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    // One slot is left.
    for denied in world.ask_all(&permits("bob", 2)).unwrap() {
        assert_eq!((denier(&denied), denied.permit), ("concurrency", None));
    }
    assert_eq!(world.describe(&of("acme")).permits, 3);
}

#[test]
fn a_batch_with_a_check_that_is_refused_is_refused_whole() {
    let mut world = World::alone(POLICY);
    let bad = Check { tier: Some(name("nope")), ..of("acme") };
    assert_eq!(
        world.ask_all(&[of("acme"), bad]).unwrap_err(),
        Refusal::InBatch(1, Box::new(Refusal::UnknownTier(name("nope"))))
    );
    assert_eq!(left(&mut world, &of("acme")), [8, 5, 3]);
}

#[test]
fn a_repeated_batch_is_replayed_and_charged_once() {
    let mut world = World::alone(POLICY);
    let batch = [with_id("a", &of("acme")), with_id("b", &of("acme"))];
    for replayed in [false, true] {
        let decisions = world.ask_all(&batch).unwrap();
        assert!(decisions.iter().all(|d| d.allowed && d.replayed == replayed));
        assert_eq!(left(&mut world, &of("acme")), [6, 3, 1]);
    }
}

#[test]
fn in_a_batch_that_is_denied_even_a_check_that_was_allowed_before_does_not_say_allowed() {
    let mut world = World::alone(POLICY);
    let before = with_id("a", &by_client("ann", &of("acme")));
    assert!(world.decide(&before).allowed);
    let decisions = world.ask_all(&[before, costing(4, &of("acme"))]).unwrap();
    assert!(decisions.iter().all(|d| !d.allowed && d.denied_by.is_some()));
    assert_eq!(left(&mut world, &of("acme")), [7, 4, 3]);
}

#[test]
fn a_request_id_that_stands_twice_in_a_batch_is_charged_at_most_once() {
    let mut world = World::alone(POLICY);
    let twice = with_id("a", &of("acme"));
    let _ = world.ask_all(&[twice.clone(), twice]);
    let charged = 5 - left(&mut world, &of("acme"))[1];
    assert!(charged <= 1, "{charged}");
}
