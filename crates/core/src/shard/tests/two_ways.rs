//! The short way and the long one say the same.

use super::*;

const POLICY: &str = r#"
    default_tier = "free"
    default_cost = 2
    [tiers.free]
    max_concurrent = 5
    cost_multiplier = "1.5"
    limits = [
        { name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "3/s", burst = 20 },
        { name = "minute", per = ["tenant"], algorithm = "sliding_window", limit = 60, window = "1m" },
        { name = "client", per = ["tenant", "client"], algorithm = "sliding_log", limit = 9, window = "10s" },
        { name = "shadow", per = ["tenant"], algorithm = "fixed_window", limit = 5, window = "1m", enforce = false },
    ]
    [tiers.slow]
    limits = [{ name = "smooth", per = ["tenant"], algorithm = "leaky_bucket", rate = "10/m", burst = 3 }]
    [tiers.closed]
    request_limits = "refuse"
    [tiers.open]
    [tenants.t1]
    limits = [{ name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "1/s", burst = 4 }]
    [tenants.t2]
    tier = "slow"
    [tenants.t3]
    tier = "closed"
"#;

/// A request id that nobody has used makes a check take the long way, and changes nothing else
/// about it.
#[test]
fn the_short_way_answers_what_the_long_one_would() {
    for seed in seeds(20) {
        let (mut short, mut long) =
            (World::new(1, POLICY, ROOM, seed), World::new(1, POLICY, ROOM, seed));
        for i in 0..300 {
            let mut check = of(&format!("t{}", short.below(4)));
            check.client =
                (short.below(3) > 0).then(|| Label::new(&format!("c{}", short.below(3))).unwrap());
            check.cost =
                (short.below(3) > 0).then(|| Cost::new(1 + short.below(6) as u32).unwrap());
            check.tier = (short.below(4) == 0)
                .then(|| Name::new(["slow", "open", "none"][short.below(3) as usize]).unwrap());
            if short.below(5) == 0 {
                let rule = Rule::FixedWindow(Window { limit: 7, length: MINUTE });
                let (name, per) = (Name::new("adhoc").unwrap(), vec![Dimension::Tenant]);
                let limit = Limit { name, per, when: Match::default(), rule, enforce: true };
                check.limits = vec![Arc::new(limit)];
            }
            let (mut here, mut there) =
                (short.start(&check), long.start(&with_id(&format!("r{i}"), &check)));
            let (one, other) = (only(now(&mut here)), only(now(&mut there)));
            assert_eq!(
                format!("{one:?}"),
                format!("{other:?}"),
                "check {i} of seed {seed}: {check:?}"
            );
            let pause = short.below(2_000) * 1_000_000;
            short.now = Now { boot: short.now.boot + pause, wall: short.now.wall + pause };
            long.now = short.now;
        }
    }
}

#[test]
fn a_batch_of_which_some_must_wait_is_answered_whole_and_in_order() {
    let mut world = World::alone(POLICY);
    let checks = [of("t8"), with_id("a", &of("t8")), of("t2"), with_id("a", &of("t8")), of("t9")];
    let mut answer = world.start_each(&checks);
    let answers = now(&mut answer);
    let tenants: Vec<_> = answers.iter().map(|a| a.as_ref().unwrap().tenant.to_string()).collect();
    assert_eq!(tenants, ["t8", "t8", "t2", "t8", "t9"]);
    let replayed: Vec<_> = answers.iter().map(|a| a.as_ref().unwrap().replayed).collect();
    assert_eq!(replayed, [false, false, false, true, false]);
}
