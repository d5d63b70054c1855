//! What is backed up a piece at a time is all that was counted of long limits, and nothing else.

use std::collections::BTreeSet;

use super::*;
use crate::shard::{Cursor, Export, Filter};

const POLICY: &str = r#"
    default_tier = "t"
    limits = [{ name = "address", per = ["ip"], algorithm = "fixed_window", limit = 1000, window = "1h" }]
    [tiers.t]
    limits = [
        { name = "client", per = ["tenant", "client"], algorithm = "fixed_window", limit = 10, window = "1d" },
        { name = "minute", algorithm = "fixed_window", limit = 100000, window = "1m" },
    ]
"#;
const CAPS: Caps = Caps {
    named_tenants: 20_000,
    unknown_tenants: 20_000,
    keys_per_tenant: 30_000,
    keys: 100_000,
    shared_keys: 30_000,
    request_ids: 1_000,
};

/// All pieces of a world's only shard.
fn pieces(world: &mut World) -> Vec<Export> {
    let mut pieces = Vec::new();
    let mut cursor = Some(Cursor::FIRST);
    while let Some(at) = cursor {
        let piece = world.on(0, |shard, now, _| shard.export(Filter::Long(at), now));
        cursor = piece.next;
        pieces.push(piece);
    }
    pieces
}

fn buckets(piece: &Export) -> usize {
    piece.delta.known.accounts.iter().map(|account| account.buckets.len()).sum()
}

#[test]
fn many_accounts_take_several_pieces_and_each_account_is_in_one_of_them() {
    let mut world = World::new(1, POLICY, CAPS, 0);
    for i in 0..10_000 {
        world.decide(&by_client("ann", &of(&format!("t{i}"))));
    }
    let pieces = pieces(&mut world);
    let ids = pieces
        .iter()
        .flat_map(|piece| piece.delta.known.accounts.iter().map(|account| account.id.clone()));
    let ids: Vec<_> = ids.collect();
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (10_000, 10_000));
    assert!(
        pieces.len() > 3 && pieces.iter().all(|piece| piece.delta.known.accounts.len() <= 4_096)
    );
    // The day is in it, the minute isn't.
    assert_eq!(pieces.iter().map(buckets).sum::<usize>(), 10_000);
}

#[test]
fn one_account_of_many_buckets_is_cut_and_so_are_many_shared_buckets() {
    let mut world = World::new(1, POLICY, CAPS, 0);
    for i in 0..20_000 {
        let address = format!("10.0.{}.{}", i / 256, i % 256);
        world.decide(&from_ip(&address, &by_client(&format!("c{i}"), &of("t"))));
    }
    let pieces = pieces(&mut world);
    assert!(
        pieces
            .iter()
            .all(|piece| buckets(piece) <= 16_384 && piece.delta.known.shared.len() <= 8_192)
    );
    let keys =
        pieces.iter().flat_map(|piece| piece.delta.known.accounts.iter().flat_map(|a| &a.buckets));
    let keys: Vec<_> = keys.map(|(key, _)| *key).collect();
    assert_eq!((keys.len(), keys.iter().collect::<BTreeSet<_>>().len()), (20_000, 20_000));
    let shared: Vec<_> =
        pieces.iter().flat_map(|piece| &piece.delta.known.shared).map(|(key, _)| *key).collect();
    assert_eq!((shared.len(), shared.iter().collect::<BTreeSet<_>>().len()), (20_000, 20_000));
    // Put together they are what the next one goes on from.
    let mut all =
        PartitionSnapshot::joined(pieces.into_iter().map(|piece| piece.delta.known)).unwrap();
    let mut next = World::living(2, false, 1, POLICY, CAPS, 0);
    all.epochs = world.shards[0].save(world.now).epochs;
    let now = world.now;
    next.now = now;
    next.on(0, |shard, now, _| shard.restore(&all, now));
    for i in [0, 7, 16_500, 19_999] {
        let address = format!("10.0.{}.{}", i / 256, i % 256);
        let check = from_ip(&address, &by_client(&format!("c{i}"), &of("t")));
        let left = |decision: Decision| {
            let left = |name: &str| {
                decision
                    .verdicts
                    .iter()
                    .find(|v| v.limit.name.as_str() == name)
                    .map(|v| v.remaining)
            };
            (left("client"), left("address"))
        };
        assert_eq!(left(next.peek(&check)), (Some(9), Some(999)), "{i}");
    }
}

#[test]
fn what_was_lost_is_told_and_what_is_elsewhere_is_not() {
    let mut world = World::new(2, POLICY, CAPS, 1);
    for i in 0..50 {
        world.decide(&by_client("ann", &of(&format!("t{i}"))));
    }
    let here: BTreeSet<_> =
        world.shards[0].save(world.now).epochs.into_iter().map(|(p, _)| p).collect();
    let lost = *here.iter().next().unwrap();
    let now = world.now;
    world.on(0, |shard, _, _| shard.lost.lose(std::iter::once(lost), now));
    let secret = world.secret;
    let piece = &pieces(&mut world)[0];
    assert_eq!(piece.delta.known.lost, [(lost, now)]);
    let count = piece.delta.known.accounts.len();
    assert!(count > 5 && count < 45, "{count}");
    assert!(
        piece
            .delta
            .known
            .accounts
            .iter()
            .all(|account| here.contains(&secret.account(&account.id).partition()))
    );
}
