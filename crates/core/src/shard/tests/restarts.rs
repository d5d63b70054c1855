//! Restarts: what was spent is known to the next process, whatever the number of its shards.

use super::*;

/// Twenty for everybody, five for each tenant, three for each of its clients, two in flight.
const POLICY: &str = r#"
    default_tier = "t"
    limits = [
        { name = "address", per = ["ip"], algorithm = "sliding_log", limit = 4, window = "1d" },
        { name = "everybody", per = [], algorithm = "fixed_window", limit = 1000, window = "1d" },
    ]
    [tiers.t]
    max_concurrent = 2
    limits = [
        { name = "client", per = ["tenant", "client"], algorithm = "sliding_log", limit = 3, window = "1d" },
        { name = "rate", algorithm = "token_bucket", rate = "1/1h", burst = 5 },
    ]
"#;

impl World {
    fn saved(&mut self) -> PartitionSnapshot {
        let now = self.now;
        let mut all = PartitionSnapshot::at(now);
        self.shards.iter_mut().for_each(|shard| all.add(shard.save(now)));
        all
    }

    /// A new process on the same machine and with the same secret, with so many shards.
    fn restarted(
        &self,
        shards: usize,
        policy: &str,
        caps: Caps,
        saved: &PartitionSnapshot,
    ) -> Self {
        let mut next = Self::living(2, false, shards, policy, caps, self.seed);
        next.now = self.now;
        for shard in &mut next.shards {
            shard.restore(saved, self.now);
        }
        next
    }
}

#[test]
fn another_number_of_shards_knows_what_was_spent_and_which_permits_are_out() {
    for (before, after) in [(1, 1), (1, 3), (3, 1), (2, 3), (3, 3)] {
        let mut world = World::together(before, POLICY, ROOM, 8);
        let check = |i: u64| {
            let client = by_client(["ann", "bob"][i as usize % 2], &of(&format!("t{}", i % 10)));
            from_ip(&format!("192.0.2.{}", i % 7), &client)
        };
        let mut permits = Vec::new();
        for i in 0..100 {
            let ttl = 3_600_000;
            let check = if i % 3 == 0 { with_permit(ttl, &check(i)) } else { check(i) };
            permits.extend(world.decide(&check).permit.map(|permit| permit.id));
        }
        let saved = world.saved();
        let mut next = world.restarted(after, POLICY, ROOM, &saved);
        assert_eq!((next.tenants(), next.buckets()), (world.tenants(), world.buckets()));
        for i in 0..100 {
            let check = with_permit(1_000, &costing(1 + i as u32 % 2, &check(i)));
            let say = |d: Decision| {
                let left: Vec<_> =
                    d.verdicts.iter().map(|v| (v.remaining, v.reset_after)).collect();
                (d.allowed, d.denied_by, d.retry_after, left)
            };
            assert_eq!(say(next.peek(&check)), say(world.peek(&check)));
        }
        for id in permits {
            assert!(next.renew(id, 1_000));
            next.release(id);
            assert!(!next.renew(id, 1_000));
        }
    }
}

#[test]
fn a_restart_of_the_machine_moves_permits_and_logs_to_the_new_boot_clock() {
    let mut world = World::alone(POLICY);
    let check = from_ip("192.0.2.1", &by_client("ann", &of("acme")));
    let permit = world.decide(&with_permit(60_000, &costing(3, &check))).permit.unwrap();
    let mut saved = world.saved();

    // Ten seconds later, of which the new boot clock has seen all and a year more.
    let now = Now { boot: 366 * DAY, wall: world.now.wall + 10 * SECOND };
    saved.rebase(now);
    world.now = now;
    let mut next = world.restarted(2, POLICY, ROOM, &saved);
    let denied = next.decide(&check);
    assert_eq!((denier(&denied), denied.retry_after), ("client", Some(DAY - 10 * SECOND)));
    next.pass(50 * SECOND - 1);
    assert!(next.renew(permit.id, 1_000));
    next.pass(SECOND);
    assert!(!next.renew(permit.id, 1_000));
}

#[test]
fn the_crowds_of_three_shards_become_one() {
    let tight = Caps { unknown_tenants: 2, shared_keys: 2, ..ROOM };
    let mut world = World::together(3, POLICY, tight, 0);
    let check = |i: usize| from_ip(&format!("10.0.0.{i}"), &of(&format!("t{i}")));
    (0..200).for_each(|i| drop(world.decide(&check(i))));
    let saved = world.saved();
    let mut next = world.restarted(1, POLICY, tight, &saved);
    next.assert_counts_agree();
    assert!(next.tenants() <= 2);
    // All three have given all they had, and so has the one.
    let decisions: Vec<_> = (0..200).map(|i| next.decide(&check(i))).collect();
    assert_eq!(decisions.iter().filter(|d| d.approximate() && d.allowed).count(), 0);
}

#[test]
fn what_somebody_owned_in_between_is_not_taken_over() {
    let mut world = World::together(2, POLICY, ROOM, 0);
    let check = costing(3, &of("acme"));
    assert!(world.decide(&check).allowed);
    let saved = world.saved();
    // Life 3 comes after life 2, which owned the partitions and saved nothing.
    for (life, allowed) in [(2, false), (3, true)] {
        let mut next = World::living(life, false, 2, POLICY, ROOM, 0);
        next.now = world.now;
        if life == 3 {
            let twice = super::places(0, 1, 2)
                .table()
                .seat(NodeId(1), seat(0, 3).boot, TableVersion(9))
                .unwrap();
            let places = Arc::new(Places::new(seat(0, 3), Arc::new(twice)));
            next.shards.iter_mut().for_each(|shard| shard.places = places.clone());
        }
        next.shards.iter_mut().for_each(|shard| shard.restore(&saved, world.now));
        assert_eq!(next.decide(&check).allowed, allowed, "life {life}");
    }
}

#[test]
fn beyond_the_caps_too_a_restart_refunds_nobody() {
    let tight = Caps { unknown_tenants: 2, shared_keys: 2, ..ROOM };
    for seed in seeds(5) {
        let mut world = World::together(3, POLICY, tight, seed);
        let check =
            |i: usize| from_ip(&format!("10.0.{}.{}", i / 256, i % 256), &of(&format!("t{i}")));
        for i in 0..300 {
            world.decide(&check(i));
        }
        let saved = world.saved();
        let mut next = world.restarted(3, POLICY, tight, &saved);
        for i in 0..300 {
            let (before, after) = (world.peek(&check(i)), next.peek(&check(i)));
            let left = |d: &Decision, limit: &str| verdict(d, limit).remaining;
            for limit in ["address", "rate"] {
                assert_eq!(left(&after, limit), left(&before, limit), "{limit} of {i}");
            }
            assert_eq!(after.approximate(), before.approximate());
            let allowed = next.decide(&check(i)).allowed;
            assert!(!allowed || world.decide(&check(i)).allowed, "{i} is refunded");
        }
    }
}

#[test]
fn a_restart_remembers_request_ids_and_their_answers() {
    for (before, after) in [(1, 1), (1, 3), (3, 2)] {
        let mut world = World::together(before, POLICY, ROOM, 8);
        let check = |i: u64| with_id("r", &costing(2, &of(&format!("t{i}"))));
        let first: Vec<_> = (0..10).map(|i| world.decide(&check(i))).collect();
        let saved = world.saved();
        world.pass(20 * SECOND);
        let mut next = world.restarted(after, POLICY, ROOM, &saved);
        next.assert_counts_agree();
        assert_eq!(next.request_ids(), 10);
        for (i, first) in (0..10).zip(first) {
            assert_eq!(next.decide(&check(i)), Decision { replayed: true, ..first });
            let other = with_id("r", &of(&format!("t{i}")));
            assert_eq!(next.ask(&other).unwrap_err(), Refusal::RequestIdReused);
            assert_eq!(verdict(&next.peek(&of(&format!("t{i}"))), "rate").remaining, 3);
        }
        // A minute after the first answer, of which the restart took none away.
        next.pass(40 * SECOND);
        assert!(!next.decide(&check(0)).replayed);
    }
}

#[test]
fn a_restart_drops_request_ids_that_expired_meanwhile() {
    let mut world = World::alone(POLICY);
    world.decide(&with_id("old", &of("acme")));
    world.pass(30 * SECOND);
    world.decide(&with_id("new", &of("acme")));
    let saved = world.saved();
    world.pass(30 * SECOND);
    let next = world.restarted(1, POLICY, ROOM, &saved);
    assert_eq!((world.request_ids(), next.request_ids()), (2, 1));
    next.assert_counts_agree();
}

#[test]
fn a_restart_under_a_lower_cap_keeps_the_newest_request_ids() {
    let mut world = World::alone(POLICY);
    let check = |i: u64| with_id(&i.to_string(), &of("acme"));
    for i in 0..3 {
        assert!(world.decide(&check(i)).allowed);
        world.pass(SECOND);
    }
    let saved = world.saved();
    let tight = Caps { request_ids: 2, ..ROOM };
    let mut next = world.restarted(1, POLICY, tight, &saved);
    assert_eq!(next.request_ids(), 2);
    assert!(next.decide(&check(1)).replayed && next.decide(&check(2)).replayed);
    assert!(!next.decide(&check(0)).replayed);
    next.assert_counts_agree();
}

#[test]
fn permits_beyond_the_caps_of_all_shards_are_still_out() {
    let tight = Caps { unknown_tenants: 0, ..ROOM };
    let mut world = World::together(3, POLICY, tight, 0);
    let tenants = [0, 1, 2].map(|shard| with_permit(60_000, &world.tenant_of(shard)));
    let permits = tenants.map(|check| world.decide(&check).permit.unwrap().id);
    let saved = world.saved();
    let mut next = world.restarted(1, POLICY, tight, &saved);
    next.assert_counts_agree();
    assert!(permits.into_iter().all(|id| next.renew(id, 1_000)));
}
