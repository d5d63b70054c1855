//! Tests of `load`.

use super::*;

fn plan(tenants: Vec<Tenants>, connections: u32) -> Plan {
    Plan {
        call: Call::Single,
        tier: Tier::Two,
        tenants,
        deciders: Deciders::Any,
        connections,
        rate: None,
    }
}

/// Every tenant that is asked for, with the server that is.
fn walked(tenants: Vec<Tenants>, connections: u32, servers: usize) -> Vec<(usize, u32)> {
    let plan = plan(tenants, connections);
    let walk = |index: u32| {
        let server = index as usize % servers;
        Asks::new(&plan, index, server, servers).walk().map(move |tenant| (server, tenant))
    };
    let mut seen: Vec<_> = (0..connections).flat_map(walk).collect();
    seen.sort_unstable_by_key(|(_, tenant)| *tenant);
    seen
}

#[test]
fn the_connections_together_walk_over_every_tenant_once() {
    for (tenants, connections, servers) in [(100, 7, 1), (3, 64, 3), (1, 1, 1)] {
        let walked = walked(vec![Tenants::First(tenants)], connections, servers);
        let seen: Vec<_> = walked.into_iter().map(|(_, tenant)| tenant).collect();
        assert_eq!(seen, (0..tenants).collect::<Vec<_>>());
    }
    let of = |tenants: &[u32]| Tenants::These(tenants.into());
    let each = walked(vec![of(&[1, 2, 5]), of(&[3]), of(&[4, 6])], 7, 3);
    assert_eq!(each, [(0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (2, 6)]);
}

#[test]
fn connections_that_keep_a_rate_take_turns() {
    assert_eq!(Pace::new(&plan(vec![Tenants::First(1)], 4), 0), None);
    let plan = Plan { rate: Some(100), ..plan(vec![Tenants::First(1)], 4) };
    let of = |index| {
        Pace::new(&plan, index).map(|pace| (pace.first.as_millis(), pace.every.as_millis()))
    };
    assert_eq!([0, 1, 3].map(of), [Some((0, 40)), Some((10, 40)), Some((30, 40))]);
}

#[test]
fn random_tenants_are_within_bounds_and_spread() {
    let mut random = XorShift::seeded(0);
    let mut hits = [0_u32; 10];
    for _ in 0..100_000 {
        hits[random.below(10) as usize] += 1;
    }
    assert!(hits.iter().all(|hit| (9_000..11_000).contains(hit)), "{hits:?}");
    assert_eq!(random.below(1), 0);
}

#[test]
fn a_seed_gives_the_same_tenants_again_and_another_seed_others() {
    let draw = |seed| -> Vec<u32> {
        let mut random = XorShift::seeded(seed);
        (0..8).map(|_| random.below(100_000)).collect()
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

fn tally(allowed: u64, denied: u64) -> Tally {
    Tally { outcomes: Outcomes { allowed, denied, ..Outcomes::default() }, ..Tally::new() }
}

#[test]
fn a_run_is_accepted_only_if_its_outcomes_are_those_of_its_tier() {
    let measured = Phase::For(Duration::from_secs(1));
    let cases = [
        (tally(10, 0), measured, Tier::Two, true),
        (tally(10, 1), measured, Tier::Two, false),
        (tally(0, 0), measured, Tier::Two, false),
        (tally(1, 99), measured, Tier::Denied, true),
        (tally(50, 50), measured, Tier::Denied, false),
        (tally(50, 0), Phase::Fill, Tier::Denied, true),
    ];
    for (tally, phase, tier, accepted) in cases {
        let judged = tally.judge(phase, &Plan { tier, ..plan(vec![Tenants::First(1)], 1) });
        assert_eq!(judged.is_ok(), accepted, "{tier:?} {phase:?}: {judged:?}");
    }
}

#[test]
fn a_run_is_accepted_only_if_those_decided_who_had_to() {
    let decided = |by_asked, by_other| Tally {
        outcomes: Outcomes { allowed: 100, denied: 0, by_asked, by_other },
        ..Tally::new()
    };
    let cases = [
        (decided(5, 0), Deciders::Asked, true),
        (decided(5, 1), Deciders::Asked, false),
        (decided(0, 5), Deciders::Others, true),
        (decided(1, 5), Deciders::Others, false),
        (decided(1, 5), Deciders::Any, true),
    ];
    for (tally, deciders, accepted) in cases {
        let plan = Plan { deciders, ..plan(vec![Tenants::First(1)], 1) };
        let judged = tally.judge(Phase::For(Duration::from_secs(1)), &plan);
        assert_eq!(judged.is_ok(), accepted, "{deciders:?}: {judged:?}");
    }
}

#[test]
fn one_refused_call_fails_the_run_and_is_quoted() {
    let mut all = tally(1000, 0);
    all.merge(Tally { refused: 1, complaint: Some("503: busy".to_owned()), ..Tally::new() });
    let error =
        all.judge(Phase::For(Duration::ZERO), &plan(vec![Tenants::First(1)], 1)).unwrap_err();
    assert!(error.to_string().ends_with("503: busy"), "{error}");
}
