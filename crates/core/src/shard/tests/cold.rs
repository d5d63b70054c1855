//! Permits after a crash: an owner that lost which are in flight never lets there be more than the
//! maximum.

use std::collections::BTreeMap;

use super::*;
use crate::check::{Exactness, Reason};

/// Three in flight, each for ten minutes at most; a tier of longer permits, and one without a
/// maximum.
const POLICY: &str = r#"
    default_tier = "t"
    [tiers.t]
    max_concurrent = 3
    max_permit_ttl = "10m"
    [tiers.long]
    max_concurrent = 2
    max_permit_ttl = "1h"
    [tiers.open]
    [tenants.big]
    tier = "long"
    [tenants.boundless]
    tier = "open"
"#;
const MOST: u64 = 10 * MINUTE;

/// One node, life after life; alone, or with another that keeps the replicas.
struct Lives {
    world: World,
    table: Arc<Table>,
    life: u64,
    shards: usize,
}

impl Lives {
    fn new(shards: usize, is_alone: bool, seed: u64) -> Self {
        let replica = (!is_alone).then_some(NodeId(2));
        let never = Seat { node: NodeId(1), boot: BootId::NEVER };
        let table = Table::new(TableVersion(1), Partition::all().map(|_| (never, replica)));
        let world = World::living(1, false, shards, POLICY, ROOM, seed);
        let mut lives = Self { world, table: Arc::new(table.unwrap()), life: 0, shards };
        lives.begin(None);
        lives
    }

    /// The next life begins, with what the last one saved.
    fn begin(&mut self, saved: Option<&PartitionSnapshot>) {
        self.life += 1;
        let (me, at) = (seat(0, self.life), TableVersion(self.table.version().0 + 1));
        self.table = Arc::new(self.table.seat(me.node, me.boot, at).unwrap());
        let seed = self.world.seed + 1_000 * self.life;
        let mut next = World::living(1, false, self.shards, POLICY, ROOM, seed);
        (next.now, next.secret) = (self.world.now, self.world.secret);
        let places = Arc::new(Places::new(me, self.table.clone()));
        for shard in &mut next.shards {
            (shard.secret, shard.places) = (self.world.secret, places.clone());
            shard.find(saved, self.world.now);
        }
        self.world = next;
    }

    fn crash(&mut self) {
        self.begin(None);
    }

    fn restart(&mut self) {
        let now = self.world.now;
        let mut saved = PartitionSnapshot::at(now);
        self.world.shards.iter_mut().for_each(|shard| saved.add(shard.save(now)));
        self.begin(Some(&saved));
    }
}

fn asking(tenant: &str, ttl: u64) -> Check {
    with_permit(ttl / crate::time::MS, &of(tenant))
}

#[test]
fn after_a_crash_no_permit_is_granted_until_all_have_expired() {
    for is_alone in [true, false] {
        let mut lives = Lives::new(2, is_alone, 0);
        let check = asking("acme", MOST);
        assert_eq!(lives.world.admits(&check, 5), 3);
        lives.crash();
        let denied = lives.world.decide(&check);
        assert_eq!((denier(&denied), denied.retry_after), ("concurrency", Some(MOST)));
        assert_eq!(denied.denied_by.as_ref().unwrap().reason, Reason::Concurrency);
        let verdict = verdict(&denied, "concurrency");
        assert_eq!((verdict.exactness, verdict.remaining), (Exactness::ColdStart, 0));
        lives.world.pass(MOST - 1);
        assert_eq!(lives.world.decide(&check).retry_after, Some(1));
        lives.world.pass(1);
        assert_eq!(lives.world.admits(&check, 5), 3);
    }
}

#[test]
fn each_tier_waits_for_its_own_longest_permit() {
    let mut lives = Lives::new(1, true, 0);
    lives.crash();
    lives.world.pass(MOST);
    assert!(lives.world.decide(&asking("acme", MINUTE)).allowed);
    let denied = lives.world.decide(&asking("big", MINUTE));
    assert_eq!(denied.retry_after, Some(HOUR - MOST));
}

#[test]
fn only_permits_wait_and_only_those_of_a_tier_with_a_maximum() {
    let mut lives = Lives::new(1, true, 0);
    lives.crash();
    assert!(lives.world.decide(&of("acme")).allowed);
    assert!(lives.world.decide(&asking("boundless", MINUTE)).allowed);
}

#[test]
fn nothing_waits_at_a_first_start_or_after_a_graceful_stop() {
    let mut lives = Lives::new(2, true, 0);
    let check = asking("acme", MOST);
    assert_eq!(lives.world.admits(&check, 1), 1);
    lives.restart();
    assert_eq!(lives.world.admits(&check, 5), 2);
    lives.restart();
    assert_eq!(lives.world.admits(&check, 5), 0);
    lives.world.pass(MOST);
    assert_eq!(lives.world.admits(&check, 5), 3);
}

#[test]
fn the_wait_goes_on_over_a_graceful_stop_and_begins_again_at_a_crash() {
    for is_alone in [true, false] {
        let mut lives = Lives::new(2, is_alone, 0);
        let check = asking("acme", MOST);
        lives.crash();
        lives.world.pass(4 * MINUTE);
        lives.restart();
        assert_eq!(lives.world.decide(&check).retry_after, Some(6 * MINUTE));
        lives.world.pass(MINUTE);
        lives.crash();
        assert_eq!(lives.world.decide(&check).retry_after, Some(MOST));
        lives.world.pass(MOST);
        assert_eq!(lives.world.admits(&check, 5), 3);
    }
}

#[test]
fn a_renewed_permit_counts_again_before_and_after_its_tenant_asks() {
    for asks_first in [true, false] {
        let mut lives = Lives::new(2, true, 0);
        let check = asking("acme", MOST);
        let ids: Vec<_> = (0..3).map(|_| lives.world.decide(&check).permit.unwrap().id).collect();
        lives.crash();
        if asks_first {
            assert!(!lives.world.decide(&check).allowed);
        }
        lives.world.pass(5 * MINUTE);
        for id in &ids[..2] {
            assert!(lives.world.renew(*id, 9 * 60_000));
        }
        assert_eq!(lives.world.describe(&check).permits, 2);
        lives.world.pass(5 * MINUTE);
        assert_eq!(lives.world.admits(&check, 5), 1);
        lives.world.release(ids[0]);
        assert_eq!(lives.world.admits(&check, 5), 1);
        lives.world.pass(4 * MINUTE);
        // The other has run out by itself.
        assert!(!lives.world.renew(ids[1], 60_000));
        assert_eq!(lives.world.admits(&check, 5), 1);
        lives.world.assert_counts_agree();
    }
}

#[test]
fn renewed_permits_outlive_a_graceful_stop_though_no_check_has_named_their_tenant() {
    let mut lives = Lives::new(2, true, 0);
    let check = asking("acme", MOST);
    let id = lives.world.decide(&check).permit.unwrap().id;
    lives.crash();
    lives.world.pass(9 * MINUTE);
    assert!(lives.world.renew(id, 600_000));
    lives.restart();
    lives.world.pass(MINUTE);
    assert_eq!(lives.world.admits(&check, 5), 2);
    assert!(lives.world.renew(id, 600_000));
    lives.world.assert_counts_agree();
}

#[test]
fn of_a_known_tenant_no_more_are_entered_again_than_it_may_have() {
    let mut lives = Lives::new(1, true, 0);
    let check = asking("acme", MOST);
    let mut ids: Vec<_> = (0..3).map(|_| lives.world.decide(&check).permit.unwrap().id).collect();
    lives.world.release(ids[0]);
    ids.push(lives.world.decide(&check).permit.unwrap().id);
    lives.crash();
    assert!(!lives.world.decide(&check).allowed);
    let renewed = ids.iter().filter(|id| lives.world.renew(**id, 60_000)).count();
    assert_eq!(renewed, 3);
}

#[test]
fn a_permit_is_entered_once() {
    let mut lives = Lives::new(1, true, 0);
    let id = lives.world.decide(&asking("acme", MOST)).permit.unwrap().id;
    lives.crash();
    assert!(lives.world.renew(id, 60_000));
    lives.world.pass(MINUTE);
    // It has expired here, which is known.
    assert!(!lives.world.renew(id, 60_000));
}

#[test]
fn an_id_of_another_partition_and_one_that_was_given_back_are_not_entered() {
    let mut lives = Lives::new(1, true, 0);
    let check = asking("acme", MOST);
    let [id, other] = [0, 1].map(|_| lives.world.decide(&check).permit.unwrap().id);
    lives.crash();
    let foreign = PermitId { partition: (id.partition + 1) % 4_096, ..id };
    assert!(!lives.world.renew(foreign, 60_000));
    assert_eq!(lives.world.describe(&check).permits, 0);
    lives.world.release(other);
    assert!(!lives.world.renew(other, 60_000));
    assert!(lives.world.renew(id, 60_000));
}

#[test]
fn once_the_wait_is_over_an_unknown_permit_is_gone() {
    let mut lives = Lives::new(1, true, 0);
    let check = asking("big", HOUR);
    let id = lives.world.decide(&check).permit.unwrap().id;
    lives.crash();
    assert!(!lives.world.decide(&check).allowed);
    lives.world.pass(HOUR);
    assert!(!lives.world.renew(id, 60_000));
}

#[test]
fn a_permit_is_neither_granted_nor_renewed_beyond_its_tiers_time() {
    let mut world =
        World::alone(&POLICY.replace("default_tier", "request_tier = \"ignore\"\ndefault_tier"));
    let granted = world.decide(&asking("acme", HOUR)).permit.unwrap();
    assert_eq!(granted.expires_in, MOST);
    let renewed = |world: &mut World, id: PermitId, ttl: u64| {
        world.on(0, |s, now, _| s.renew(id, ttl / crate::time::MS, now))
    };
    assert!(matches!(
        renewed(&mut world, granted.id, MOST + SECOND),
        Err(Refusal::PermitTooLong(_))
    ));
    assert_eq!(renewed(&mut world, granted.id, MOST), Ok(Some(600_000)));
    // Without a time: half a minute.
    assert_eq!(renewed(&mut world, granted.id, 0), Ok(Some(30_000)));
}

/// What callers believe: the permits that they hold, each until it expires.
fn in_flight(held: &BTreeMap<PermitId, u64>, now: Now) -> usize {
    held.values().filter(|until| **until > now.boot).count()
}

#[test]
fn over_crashes_renewals_and_stops_no_more_are_ever_in_flight_than_the_maximum() {
    for seed in seeds(24) {
        let mut lives = Lives::new(1 + seed as usize % 3, seed % 2 == 0, seed);
        let tenants = ["acme", "globex", "initech"];
        let mut held: [BTreeMap<PermitId, u64>; 3] = Default::default();
        let mut granted = 0;
        for step in 0..200 {
            let which = lives.world.below(3) as usize;
            let ttl = SECOND * (1 + lives.world.below(MOST / SECOND));
            let now = lives.world.now;
            let mine = &mut held[which];
            mine.retain(|_, until| *until > now.boot);
            match lives.world.below(40) {
                0..12 => {
                    let decision = lives.world.decide(&asking(tenants[which], ttl));
                    if let Some(permit) = decision.permit {
                        granted += 1;
                        mine.insert(permit.id, now.boot + permit.expires_in);
                    }
                }
                12..18 => {
                    if let Some((&id, _)) = mine.iter().next() {
                        mine.remove(&id);
                        lives.world.release(id);
                    }
                }
                18..26 => {
                    if let Some((&id, _)) = mine.iter().next_back() {
                        match lives.world.renew(id, ttl / crate::time::MS) {
                            true => mine.insert(id, now.boot + ttl),
                            false => mine.remove(&id),
                        };
                    }
                }
                26..28 => lives.crash(),
                28..30 => lives.restart(),
                30 => lives.world.sweep(),
                31 => lives.world.pass(MOST),
                _ => {
                    let most = lives.world.below(MINUTE);
                    lives.world.pass(most);
                }
            }
            for held in &held {
                assert!(in_flight(held, lives.world.now) <= 3, "seed {seed} step {step}");
            }
            lives.world.assert_counts_agree();
        }
        assert!(granted > 0);
        // Whatever there was: once every permit has expired, all slots are free.
        lives.world.pass(2 * MOST);
        for tenant in tenants {
            assert_eq!(lives.world.admits(&asking(tenant, SECOND), 5), 3, "seed {seed}");
        }
    }
}
