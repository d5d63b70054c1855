//! Looking: it says what a check would be answered, and leaves no trace.

use super::*;

/// Ten for everybody, five for each address, three for each tenant and two of those in flight.
const POLICY: &str = r#"
    default_tier = "t"
    limits = [
        { name = "address", per = ["ip"], algorithm = "fixed_window", limit = 5, window = "1d" },
        { name = "everybody", per = [], algorithm = "sliding_log", limit = 10, window = "1d" },
    ]
    [tiers.t]
    max_concurrent = 2
    limits = [{ name = "rate", algorithm = "fixed_window", limit = 3, window = "1d" }]
"#;

impl World {
    /// All that the shards know; an account that holds nothing is none.
    fn everything(&mut self) -> Vec<PartitionSnapshot> {
        let now = self.now;
        let save = |shard: &mut Shard| {
            let mut saved = shard.save(now);
            saved.accounts.retain(|a| !a.buckets.is_empty() || a.permits.flying() > 0);
            saved
        };
        self.shards.iter_mut().map(save).collect()
    }

    fn counts(&self) -> [usize; 4] {
        [self.tenants(), self.buckets(), self.shared_keys(), self.request_ids()]
    }
}

#[test]
fn looking_changes_nothing() {
    for seed in seeds(10) {
        let mut world = World::new(2, POLICY, ROOM, seed);
        let seen = from_ip("192.0.2.1", &of("acme"));
        assert_eq!(world.admits(&with_permit(60_000, &seen), 2), 2);
        let (before, counts) = (world.everything(), world.counts());
        for check in [
            seen.clone(),
            with_permit(60_000, &seen),
            with_id("a", &seen),
            costing(100, &seen),
            from_ip("192.0.2.99", &of("stranger")),
        ] {
            world.peek(&check);
            assert_eq!(world.everything(), before);
            assert_eq!(world.counts(), counts);
        }
        assert!(!world.is_busy());
        assert!(!world.decide(&with_id("a", &seen)).replayed);
    }
}

/// But that it shows what is left before the check, and the check what is left after it.
#[test]
fn a_look_says_what_a_check_is_answered_right_after() {
    let say = |d: &Decision, taken: u64| {
        let verdicts: Vec<_> =
            d.verdicts.iter().map(|v| (v.remaining + taken, v.outcome)).collect();
        (d.allowed, d.cost, d.tier.clone(), d.denied_by.clone(), d.retry_after, verdicts)
    };
    for seed in seeds(10) {
        let mut world = World::new(3, POLICY, ROOM, seed);
        for i in 0..40 {
            let tenant = of(&format!("t{}", world.below(4)));
            let mut check = costing(1 + i % 3, &from_ip("192.0.2.1", &tenant));
            check.permit_ttl_ms = (i % 6 == 0).then_some(60_000);
            let looked = world.peek(&check);
            assert!(looked.permit.is_none());
            let decided = world.decide(&check);
            let taken = if decided.allowed { decided.cost } else { 0 };
            assert_eq!(say(&looked, 0), say(&decided, taken));
            world.pass(SECOND);
        }
    }
}

/// Both start empty and gain one a second from the first check on.
#[test]
fn looking_does_not_start_a_bucket_that_fills_from_its_first_check_on() {
    let bucket = r#"algorithm = "token_bucket", rate = "1/s", burst = 100, initial = 0"#;
    for policy in [
        format!(r#"limits = [{{ name = "b", per = [], {bucket} }}]"#),
        format!(r#"tiers.t.limits = [{{ name = "b", {bucket} }}]"#),
    ] {
        let tier = if policy.starts_with("limits") { "[tiers.t]" } else { "" };
        let mut world = World::alone(&format!("default_tier = \"t\"\n{policy}\n{tier}"));
        world.peek(&of("acme"));
        world.pass(10 * SECOND);
        assert_eq!(verdict(&world.decide(&of("acme")), "b").remaining, 0, "{policy}");
        world.pass(10 * SECOND);
        assert_eq!(verdict(&world.decide(&of("acme")), "b").remaining, 9);
    }
}

/// A check would wait for the outcome. A look doesn't wait; but "never" would be wrong.
#[test]
fn while_somebody_holds_what_is_left_a_look_says_yes_or_says_when() {
    let policy = POLICY.replace("limit = 3", "limit = 10");
    let mut world = World::new(2, &policy, ROOM, 0);
    let [near, far] = world.near_and_far();
    let mut holder = world.start(&costing(10, &far));
    let mut from_far = world.start_peek(&far);
    world.deliver_asks();
    let mut from_near = world.start_peek(&near);
    world.deliver_all();
    assert!(only(now(&mut holder)).unwrap().allowed);
    for look in [&mut from_near, &mut from_far] {
        let looked = only(now(look)).unwrap();
        assert!(
            looked.allowed || looked.denied_by.is_some() && looked.retry_after.is_some(),
            "{looked:?}"
        );
    }
}
