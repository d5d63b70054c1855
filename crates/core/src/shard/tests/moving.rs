//! Partitions go from node to node, and with them counts, permits and request ids.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::check::Exactness;
use crate::placement::{Change, Row};
use crate::shard::{AccountRecord, PartitionDelta};

const POLICY: &str = r#"
    default_tier = "t"
    limits = [{ name = "address", per = ["ip"], algorithm = "fixed_window", limit = 5, window = "1d" }]
    [tiers.t]
    max_concurrent = 2
    limits = [{ name = "day", algorithm = "fixed_window", limit = 10, window = "1d" }]
"#;

/// Two nodes of one shard each, and the table that both go by.
struct Nodes {
    world: World,
    table: Arc<Table>,
}

impl Nodes {
    fn new() -> Self {
        let world = World::new(2, POLICY, ROOM, 1);
        let table = places(0, 2, 1).table().clone();
        Self { world, table }
    }

    /// All of the partitions of one node.
    fn of(&self, node: usize) -> Vec<Partition> {
        self.table.rows().filter(|(_, row)| row.owner == seat(node, 1)).map(|(p, _)| p).collect()
    }

    fn row(&self, partition: Partition) -> Row {
        *self.table.row(partition)
    }

    /// The log says so, and both nodes hear of it.
    fn log(&mut self, change: impl Fn(&Table, TableVersion) -> Table) {
        let at = TableVersion(self.table.version().0 + 1);
        self.table = Arc::new(change(&self.table, at));
        for node in 0..2 {
            let places = Arc::new(Places::new(seat(node, 1), self.table.clone()));
            self.world.on(node, |s, now, out| s.set_places(places, now, out));
        }
    }

    /// The log says so, and the source alone hears of it.
    fn log_to_source(&mut self, change: impl Fn(&Table, TableVersion) -> Table) {
        let at = TableVersion(self.table.version().0 + 1);
        self.table = Arc::new(change(&self.table, at));
        let places = Arc::new(Places::new(seat(0, 1), self.table.clone()));
        self.world.on(0, |s, now, out| s.set_places(places, now, out));
    }

    fn begin(&mut self, partitions: &[Partition]) -> TableVersion {
        let moves: Vec<_> =
            partitions.iter().map(|p| (*p, self.row(*p).epoch, seat(1, 1))).collect();
        self.log(|table, at| table.begin_moves(&moves, at).unwrap());
        self.table.version()
    }

    /// The source says what it knows, which the target lays aside.
    fn copy(&mut self, partitions: &[Partition], of: TableVersion) {
        for partition in partitions {
            let copy = self.world.on(0, |s, now, _| s.copy(*partition, of, now)).unwrap();
            self.world.on(1, |s, now, _| s.stage(partitions, of, whole(copy), false, now));
        }
    }

    /// The source freezes and hands out the rest, which the target lays aside with what it has.
    fn freeze(&mut self, partitions: &[Partition], of: TableVersion) {
        let set: BTreeSet<_> = partitions.iter().copied().collect();
        self.world.on(0, |s, _, _| s.freeze(&set, of));
        assert_eq!(self.world.shards[0].is_quiet(&set, of), Some(true));
        assert!(self.world.on(0, |s, _, _| s.close(&set, of)));
        let rest = self.world.on(0, |s, now, _| s.rest(&set, of, now)).flatten().unwrap();
        self.world.on(1, |s, now, _| s.stage(partitions, of, rest, true, now));
    }

    fn hand_over(&mut self, partitions: &[Partition], of: TableVersion) {
        self.copy(partitions, of);
        self.freeze(partitions, of);
    }

    fn commit(&mut self, partitions: &[Partition], began: TableVersion) {
        let moves: Vec<_> = partitions.iter().map(|p| (*p, began)).collect();
        self.log(|table, at| table.commit_moves(&moves, at).unwrap());
    }

    /// What `node` answers, as soon as it does.
    fn ask(&mut self, node: usize, check: &Check) -> Waits<Answer> {
        self.world.start_at(node, check)
    }

    fn decides(&mut self, node: usize, check: &Check) -> Result<Decision, Refusal> {
        let mut answer = self.ask(node, check);
        self.world.deliver_all();
        only(now(&mut answer))
    }
}

/// A copy as it goes to another node: nothing is gone since.
fn whole(known: PartitionSnapshot) -> PartitionDelta {
    PartitionDelta { known, gone: Vec::new() }
}

fn moved() -> Refusal {
    Refusal::Moved(crate::shard::Returned::new(smallvec::SmallVec::new()))
}

#[test]
fn counts_permits_and_request_ids_go_along_and_the_former_owner_forgets_them() {
    let mut nodes = Nodes::new();
    let theirs = nodes.world.tenant_of(0);
    let partitions = nodes.of(0);
    assert!(nodes.decides(0, &with_id("r", &costing(4, &theirs))).unwrap().allowed);
    let permit = nodes.decides(0, &with_permit(60_000, &theirs)).unwrap().permit.unwrap();
    let began = nodes.begin(&partitions[..]);
    nodes.hand_over(&partitions, began);
    nodes.commit(&partitions, began);
    assert_eq!(nodes.decides(0, &theirs).unwrap_err(), moved());
    let replayed = nodes.decides(1, &with_id("r", &costing(4, &theirs))).unwrap();
    assert!(replayed.replayed && replayed.allowed);
    let decision = nodes.decides(1, &theirs).unwrap();
    assert_eq!((verdict(&decision, "day").remaining, decision.epoch), (4, 1));
    // One permit is out, of two.
    assert!(nodes.decides(1, &with_permit(60_000, &theirs)).unwrap().permit.is_some());
    assert_eq!(denier(&nodes.decides(1, &with_permit(60_000, &theirs)).unwrap()), "concurrency");
    nodes.world.on(1, |s, now, out| s.release(permit.id, now, out));
    assert!(nodes.decides(1, &with_permit(60_000, &theirs)).unwrap().permit.is_some());
    // Nobody asks for them, so they are forgotten a little at a time.
    (0..partitions.len()).for_each(|_| nodes.world.pass(1));
    assert_eq!((nodes.world.shards[0].tenants(), nodes.world.shards[1].tenants()), (0, 1));
    nodes.world.assert_counts_agree();
}

#[test]
fn who_comes_while_a_partition_is_frozen_waits_and_goes_after_it_or_on_here() {
    for stays in [false, true] {
        let mut nodes = Nodes::new();
        let theirs = nodes.world.tenant_of(0);
        let partitions = nodes.of(0);
        let began = nodes.begin(&partitions);
        nodes.hand_over(&partitions, began);
        let mut waits = nodes.ask(0, &theirs);
        assert!(answered(&mut waits).is_none());
        if stays {
            let moves: Vec<_> = partitions.iter().map(|p| (*p, began)).collect();
            nodes.log(|table, at| table.abort_moves(&moves, at).unwrap());
            assert!(only(now(&mut waits)).unwrap().allowed);
            // What was laid aside is nobody's.
            assert_eq!(nodes.decides(1, &theirs).unwrap_err(), moved());
        } else {
            nodes.commit(&partitions, began);
            let Err(Refusal::Moved(back)) = now(&mut waits) else { panic!("it was decided") };
            let back: Vec<_> = back.questions().map(|question| question.check).collect();
            assert_eq!(back, std::slice::from_ref(&theirs));
        }
    }
}

#[test]
fn what_is_laid_aside_is_saved_and_true_for_the_next_life_where_the_log_has_moved_it() {
    for moves in [true, false] {
        let mut nodes = Nodes::new();
        let theirs = nodes.world.tenant_of(0);
        let partitions = nodes.of(0);
        assert!(nodes.decides(0, &costing(4, &theirs)).unwrap().allowed);
        let began = nodes.begin(&partitions);
        nodes.hand_over(&partitions, began);
        // The target stops before it hears what the log says of the move.
        let saved = nodes.world.on(1, |s, now, _| s.save(now));
        if moves {
            nodes.commit(&partitions, began);
        }
        nodes.log(|table, at| table.seat(seat(1, 1).node, seat(1, 2).boot, at).unwrap());
        let next = Places::new(seat(1, 2), nodes.table.clone());
        let there = partitions.iter().all(|p| saved.still_true(&next).contains(p));
        assert_eq!((there, next.is_here(partitions[0])), (moves, moves));
        assert_eq!(saved.accounts.iter().map(|account| account.buckets.len()).sum::<usize>(), 1);
    }
}

#[test]
fn who_waits_for_a_frozen_partition_hears_busy_at_its_deadline() {
    let mut nodes = Nodes::new();
    let theirs = within(50, &nodes.world.tenant_of(0));
    let partitions = nodes.of(0);
    let began = nodes.begin(&partitions);
    nodes.hand_over(&partitions, began);
    let mut waits = nodes.ask(0, &theirs);
    nodes.world.pass(50 * crate::time::MS - 1);
    assert!(answered(&mut waits).is_none());
    nodes.world.pass(1);
    assert_eq!(now(&mut waits).unwrap_err(), Refusal::Busy);
}

#[test]
fn a_partition_is_drained_once_nothing_is_open_or_held_in_it() {
    let mut nodes = Nodes::new();
    // Of a tenant on node 1 and an address whose bucket is on node 0.
    let theirs = nodes.world.tenant_of(1);
    let far = (1..200u8)
        .map(|i| from_ip(&format!("192.0.2.{i}"), &theirs))
        .find(|check| {
            let mut answer = nodes.ask(1, check);
            let waits = answered(&mut answer).is_none();
            nodes.world.deliver_all();
            waits
        })
        .unwrap();
    let partitions = nodes.of(0);
    let set: BTreeSet<_> = partitions.iter().copied().collect();
    let began = nodes.begin(&partitions);
    nodes.copy(&partitions, began);
    let mut open = nodes.ask(1, &far);
    nodes.world.deliver_asks();
    nodes.world.on(0, |s, _, _| s.freeze(&set, began));
    assert_eq!(nodes.world.shards[0].is_quiet(&set, began), Some(true));
    assert!(nodes.world.on(0, |s, _, _| s.close(&set, began)));
    assert!(nodes.world.on(0, |s, now, _| s.rest(&set, began, now)).is_none());
    nodes.world.deliver_all();
    assert!(only(now(&mut open)).unwrap().allowed);
    assert!(nodes.world.on(0, |s, now, _| s.rest(&set, began, now)).unwrap().is_some());
}

#[test]
fn a_shared_limit_is_asked_where_its_bucket_has_gone() {
    let mut nodes = Nodes::new();
    let here = nodes.world.tenant_of(1);
    let partitions = nodes.of(0);
    // Every address, so some whose buckets were on either node.
    let check = |i: u8| from_ip(&format!("192.0.2.{i}"), &costing(1, &here));
    for i in 0..3 {
        assert!(nodes.decides(1, &check(i)).unwrap().allowed);
    }
    let began = nodes.begin(&partitions);
    nodes.hand_over(&partitions, began);
    nodes.commit(&partitions, began);
    for i in 0..3 {
        let decision = nodes.decides(1, &check(i)).unwrap();
        assert_eq!(verdict(&decision, "address").remaining, 3, "address {i}");
    }
}

#[test]
fn what_was_not_copied_for_this_move_or_not_all_is_handed_to_nobody() {
    let mut nodes = Nodes::new();
    let theirs = nodes.world.tenant_of(0);
    let partitions = nodes.of(0);
    let set: BTreeSet<_> = partitions.iter().copied().collect();
    assert!(nodes.decides(0, &costing(4, &theirs)).unwrap().allowed);
    let began = nodes.begin(&partitions);
    nodes.copy(&partitions[1..], began);
    nodes.world.on(0, |s, _, _| s.freeze(&set, began));
    assert!(nodes.world.on(0, |s, now, _| s.rest(&set, began, now)).unwrap().is_none());
    // Another move is not under way: nothing is copied or frozen for it.
    let other = TableVersion(began.0 + 1);
    assert!(nodes.world.on(0, |s, now, _| s.copy(partitions[0], other, now)).is_none());
    assert!(!nodes.world.on(0, |s, _, _| s.close(&set, other)));
    assert_eq!(nodes.world.shards[0].is_quiet(&set, other), Some(false));
    // What was laid aside without its last part is not what was spent: it is nobody's, and what was
    // spent is lost.
    nodes.copy(&partitions, began);
    nodes.commit(&partitions, began);
    assert_eq!(nodes.world.shards[1].tenants(), 0);
    assert!(!nodes.decides(1, &theirs).unwrap().allowed);
}

#[test]
fn a_move_that_is_over_thaws_nothing_that_is_frozen_for_the_next() {
    let mut nodes = Nodes::new();
    let theirs = nodes.world.tenant_of(0);
    let partitions = nodes.of(0);
    let set: BTreeSet<_> = partitions.iter().copied().collect();
    let first = nodes.begin(&partitions);
    nodes.copy(&partitions, first);
    nodes.world.on(0, |s, _, _| s.freeze(&set, first));
    let moves: Vec<_> = partitions.iter().map(|p| (*p, first)).collect();
    // The first is given up and the second begins before the shard has looked.
    let table = nodes.table.abort_moves(&moves, TableVersion(first.0 + 1)).unwrap();
    nodes.table = Arc::new(table);
    let next = nodes.begin(&partitions);
    assert_eq!(nodes.world.shards[0].is_quiet(&set, first), Some(false));
    assert!(nodes.decides(0, &theirs).unwrap().allowed, "the second has frozen nothing yet");
    nodes.hand_over(&partitions, next);
    nodes.world.on(0, |s, now, out| s.thaw(&set, first, now, out));
    let mut waits = nodes.ask(0, &theirs);
    assert!(answered(&mut waits).is_none());
    nodes.commit(&partitions, next);
    assert_eq!(only(now(&mut waits)).unwrap_err(), moved());
    assert_eq!(verdict(&nodes.decides(1, &theirs).unwrap(), "day").remaining, 8);
}

#[test]
fn what_is_open_in_a_frozen_partition_may_still_ask_the_shared_buckets_of_one() {
    let mut nodes = Nodes::new();
    let theirs = nodes.world.tenant_of(1);
    // Of a tenant on node 1 and an address whose bucket is on node 0, where everything freezes.
    let far = (1..200u8)
        .map(|i| from_ip(&format!("192.0.2.{i}"), &theirs))
        .find(|check| {
            let mut answer = nodes.ask(1, check);
            let waits = answered(&mut answer).is_none();
            nodes.world.deliver_all();
            waits
        })
        .unwrap();
    let partitions = nodes.of(0);
    let set: BTreeSet<_> = partitions.iter().copied().collect();
    let began = nodes.begin(&partitions);
    nodes.copy(&partitions, began);
    nodes.world.on(0, |s, _, _| s.freeze(&set, began));
    let mut answer = nodes.ask(1, &far);
    nodes.world.deliver_all();
    assert!(only(now(&mut answer)).unwrap().allowed);
    // Once they are closed, who asks waits, and hears where to ask.
    assert!(nodes.world.on(0, |s, _, _| s.close(&set, began)));
    let rest = nodes.world.on(0, |s, now, _| s.rest(&set, began, now)).flatten().unwrap();
    nodes.world.on(1, |s, now, _| s.stage(&partitions, began, rest, true, now));
    nodes.commit(&partitions, began);
    assert_eq!(verdict(&nodes.decides(1, &far).unwrap(), "address").remaining, 2);
}

#[test]
fn what_a_longer_window_would_remember_goes_along_though_the_shorter_one_is_over() {
    let policy = |window: &str| {
        let limit = format!("algorithm = \"fixed_window\", limit = 10, window = \"{window}\"");
        format!("default_tier = \"t\"\n[tiers.t]\nlimits = [{{ name = \"w\", {limit} }}]")
    };
    let mut nodes = Nodes::new();
    nodes.world.set_policy(&policy("1m"));
    let theirs = nodes.world.tenant_of(0);
    assert!(nodes.decides(0, &costing(5, &theirs)).unwrap().allowed);
    nodes.world.set_policy(&policy("1d"));
    nodes.world.pass(2 * MINUTE);
    let partitions = nodes.of(0);
    let began = nodes.begin(&partitions);
    nodes.hand_over(&partitions, began);
    nodes.commit(&partitions, began);
    assert_eq!(verdict(&nodes.decides(1, &theirs).unwrap(), "w").remaining, 4);
}

#[test]
fn a_large_account_goes_in_pieces_and_is_one_again() {
    let mut world = World::together(1, SHORT_AND_LONG, ROOM, 0);
    let theirs = super::of("large");
    let clients = (0..50).map(|i| by_client(&format!("client-{i}"), &theirs));
    let limit = sent("c", &[Dimension::Tenant, Dimension::Client], 100);
    for client in clients {
        assert!(world.decide(&with_limits(std::slice::from_ref(&limit), &client)).allowed);
    }
    (0..3).for_each(|_| assert!(world.decide(&with_permit(60_000, &theirs)).permit.is_some()));
    (0..20).for_each(|i| drop(world.ask(&with_id(&format!("id-{i}"), &theirs))));
    let partition = world.question(&theirs).hash.partition();
    let moving = |me: usize, at: u64| {
        let table = places(0, 1, 1).table().clone();
        let moves = [(partition, table.row(partition).epoch, seat(1, 1))];
        Arc::new(Places::new(
            seat(me, 1),
            Arc::new(table.begin_moves(&moves, TableVersion(at)).unwrap()),
        ))
    };
    world.on(0, |s, now, out| s.set_places(moving(0, 100), now, out));
    let copy = world.on(0, |s, now, _| s.copy(partition, TableVersion(100), now)).unwrap();
    let [account] = copy.accounts.try_into().unwrap();
    let pieces = account.clone().cut(1_000);
    assert!(pieces.len() > 3, "{} pieces", pieces.len());
    assert!(pieces.iter().all(|piece| piece.bytes() <= 1_500));
    // The target had heard of an older state of it.
    let mut other = World::together(1, SHORT_AND_LONG, ROOM, 1);
    other.secret = world.secret;
    other.shards[0].secret = world.secret;
    other.on(0, |s, now, out| s.set_places(moving(1, 100), now, out));
    let old = AccountRecord { buckets: account.buckets[..2].to_vec(), ..account.clone() };
    for account in [old].into_iter().chain(pieces) {
        let mut part = PartitionDelta::at(world.now);
        part.known.accounts = vec![account];
        other.on(0, |s, now, _| s.stage(&[partition], TableVersion(100), part, false, now));
    }
    other.assert_counts_agree();
    let there = other.shards[0].accounts.of(partition).next().unwrap();
    let there = other.shards[0].accounts.get(there);
    assert_eq!(
        (there.buckets.len(), there.permits(), there.replays()),
        (account.buckets.len(), 3, account.replays.len())
    );
}

#[test]
fn a_copy_that_comes_behind_the_rest_changes_nothing() {
    let mut nodes = Nodes::new();
    let theirs = nodes.world.tenant_of(0);
    let partition = nodes.world.question(&theirs).hash.partition();
    assert!(nodes.decides(0, &costing(1, &theirs)).unwrap().allowed);
    let began = nodes.begin(&[partition]);
    let early = nodes.world.on(0, |s, now, _| s.copy(partition, began, now)).unwrap();
    nodes.copy(&[partition], began);
    assert!(nodes.decides(0, &costing(4, &theirs)).unwrap().allowed);
    nodes.freeze(&[partition], began);
    nodes.world.on(1, |s, now, _| s.stage(&[partition], began, whole(early), false, now));
    nodes.commit(&[partition], began);
    assert_eq!(verdict(&nodes.decides(1, &theirs).unwrap(), "day").remaining, 4);
    nodes.world.assert_counts_agree();
}

/// The target restores a snapshot in which both entries are done: it sees its own epoch.
#[test]
fn a_copy_of_an_aborted_move_is_not_used_when_the_source_is_gone() {
    let mut nodes = Nodes::new();
    let theirs = nodes.world.tenant_of(0);
    let partitions = nodes.of(0);
    let began = nodes.begin(&partitions);
    nodes.hand_over(&partitions, began);
    let moves: Vec<_> = partitions.iter().map(|p| (*p, began)).collect();
    nodes.log_to_source(|table, at| table.abort_moves(&moves, at).unwrap());
    // The source goes on, and admits what the copy doesn't have.
    assert!(nodes.decides(0, &costing(10, &theirs)).unwrap().allowed);
    nodes.log(|table, at| {
        let given_up = |p: &Partition| Change::hand_over(*p, table.row(*p), seat(1, 1));
        table.with(&partitions.iter().map(given_up).collect::<Vec<_>>(), at).unwrap()
    });
    assert!(!nodes.decides(1, &theirs).unwrap().allowed);
}

#[test]
fn what_another_node_was_given_up_with_begins_as_spent_here_unless_nobody_has_owned_it() {
    for was_there in [true, false] {
        let mut nodes = Nodes::new();
        let theirs = nodes.world.tenant_of(0);
        let partitions = nodes.of(0);
        if was_there {
            assert!(nodes.decides(0, &theirs).unwrap().allowed);
        } else {
            let nobody = Seat { boot: BootId::NEVER, ..seat(0, 1) };
            let owner =
                |p: Partition| if nodes.row(p).owner == seat(0, 1) { nobody } else { seat(1, 1) };
            let at = nodes.table.version();
            nodes.table =
                Arc::new(Table::new(at, Partition::all().map(|p| (owner(p), None))).unwrap());
        }
        let row = |nodes: &Nodes, partition| nodes.row(partition).epoch;
        let taken: Vec<_> = partitions
            .iter()
            .map(|p| Change {
                partition: *p,
                expected: row(&nodes, *p),
                owner: seat(1, 1),
                replica: None,
            })
            .collect();
        nodes.log(|table, at| table.with(&taken, at).unwrap());
        assert_eq!(nodes.decides(1, &theirs).unwrap().allowed, !was_there);
        let asked = nodes.decides(1, &with_permit(1_000, &theirs)).unwrap();
        let is_cold = verdict(&asked, "concurrency").exactness == Exactness::ColdStart;
        assert_eq!(is_cold, was_there);
    }
}

#[test]
fn a_cold_partition_goes_on_waiting_where_it_goes_and_renewed_permits_go_along() {
    let mut nodes = Nodes::new();
    let theirs = nodes.world.tenant_of(0);
    let asking = with_permit(60_000, &theirs);
    let id = nodes.decides(0, &asking).unwrap().permit.unwrap().id;
    let question = nodes.world.question(&theirs);
    let partition = question.hash.partition();
    // As after a crash of a node that is alone: it begins with nothing, and only permits are lost.
    nodes.world.on(0, |s, now, _| {
        let account = s.accounts.find(question.hash, theirs.tenant.as_str()).unwrap();
        s.accounts.remove(account);
        s.lost.insert_permits(partition, now.boot);
    });
    assert_eq!(nodes.world.on(0, |s, now, _| s.renew(id, 120_000, now)), Ok(Some(120_000)));
    nodes.world.pass(MINUTE);
    let began = nodes.begin(&[partition]);
    nodes.hand_over(&[partition], began);
    nodes.commit(&[partition], began);
    let permits = |nodes: &mut Nodes| {
        nodes.world.on(1, |s, now, _| s.describe(&theirs.tenant, question.hash, now)).permits
    };
    assert_eq!(permits(&mut nodes), 1);
    let denied = nodes.decides(1, &asking).unwrap();
    assert_eq!((denier(&denied), denied.retry_after), ("concurrency", Some(4 * MINUTE)));
    assert_eq!(verdict(&denied, "concurrency").exactness, Exactness::ColdStart);
    // The rate was not lost: it is judged as ever.
    assert!(nodes.decides(1, &theirs).unwrap().allowed);
    assert_eq!(permits(&mut nodes), 1);
    nodes.world.assert_counts_agree();
}

const SHORT_AND_LONG: &str = r#"
    default_tier = "t"
    limits = [{ name = "address", per = ["ip"], algorithm = "fixed_window", limit = 50, window = "1d" }]
    [tiers.t]
    max_concurrent = 3
    limits = [
        { name = "day", algorithm = "fixed_window", limit = 200, window = "1d" },
        { name = "second", algorithm = "token_bucket", rate = "5/s", burst = 5 },
    ]
"#;

/// What a node would be told of, by id and key; what is like a fresh bucket says nothing.
type Told = (BTreeMap<String, Vec<String>>, BTreeMap<u128, String>);

fn told(parts: Vec<PartitionDelta>, now: Now) -> Told {
    let (mut accounts, mut shared) = (BTreeMap::new(), BTreeMap::new());
    for part in parts {
        accounts
            .extend(part.known.accounts.into_iter().map(|account| (account.id.clone(), account)));
        part.gone.iter().for_each(|id| drop(accounts.remove(id)));
        shared.extend(part.known.shared);
    }
    let said = |mut account: AccountRecord| {
        let long = account.buckets.iter().filter(|(_, state)| !state.is_fresh(now));
        let mut said: Vec<_> = long.map(|(key, state)| format!("{key} {state:?}")).collect();
        account.permits.advance(now.boot);
        said.extend((account.permits.flying() > 0).then(|| format!("{:?}", account.permits)));
        let replays = account.replays.iter().filter(|replay| replay.expires > now.boot);
        said.extend(replays.map(|replay| format!("{:?} until {}", replay.key, replay.expires)));
        said.sort();
        said
    };
    let accounts = accounts.into_iter().map(|(id, account)| (id, said(account)));
    let shared = shared.into_iter().filter(|(_, state)| !state.is_fresh(now));
    let shared = shared.map(|(key, state)| (key, format!("{state:?}"))).collect();
    (accounts.filter(|(_, said)| !said.is_empty()).collect(), shared)
}

#[test]
fn a_copy_and_what_has_changed_since_are_together_all_that_is_known() {
    for seed in seeds(60) {
        let mut world = World::together(1, SHORT_AND_LONG, ROOM, seed);
        let partitions: BTreeSet<_> = Partition::all().collect();
        let all_to = |at: u64| {
            let table = places(0, 1, 1).table().clone();
            let moves: Vec<_> =
                partitions.iter().map(|p| (*p, table.row(*p).epoch, seat(1, 1))).collect();
            let table = table.begin_moves(&moves, TableVersion(at)).unwrap();
            Arc::new(Places::new(seat(0, 1), Arc::new(table)))
        };
        let (of, other) = (TableVersion(100), TableVersion(101));
        let (mut copies, mut permits) = (Vec::new(), Vec::new());
        for step in 0..400 {
            let tenant = super::of(&format!("tenant-{}", world.below(12)));
            let (many, some, few) = (world.below(9_000), world.below(50), world.below(3));
            match world.below(20) {
                0..8 => drop(world.ask(&costing(1 + some as u32 % 5, &tenant))),
                8..10 => drop(world.ask(&from_ip(&format!("192.0.2.{}", some % 9), &tenant))),
                10..12 => drop(world.ask(&with_id(&format!("id-{some}"), &tenant))),
                12..14 => {
                    let decision = world.ask(&with_permit(1 + many, &tenant)).unwrap();
                    permits.extend(decision.permit.map(|permit| permit.id));
                }
                14 => permits.pop().into_iter().for_each(|id| world.release(id)),
                15 => {
                    let question = world.question(&tenant);
                    world.on(0, |s, _, _| {
                        s.forget_spent(tenant.tenant.as_str(), question.hash, false)
                    });
                }
                16 => world.sweep(),
                17 => world.pass(MINUTE * few),
                _ => world.pass(SECOND * few),
            }
            if step == 200 {
                world.on(0, |s, now, out| s.set_places(all_to(of.0), now, out));
                for partition in &partitions {
                    copies
                        .push(whole(world.on(0, |s, now, _| s.copy(*partition, of, now)).unwrap()));
                }
            }
        }
        world.on(0, |s, _, _| s.freeze(&partitions, of));
        let rest = world.on(0, |s, now, _| s.rest(&partitions, of, now)).flatten().unwrap();
        world.on(0, |s, now, out| s.set_places(all_to(other.0), now, out));
        let known =
            partitions.iter().map(|p| world.on(0, |s, now, _| s.copy(*p, other, now)).unwrap());
        let known: Vec<_> = known.map(whole).collect();
        copies.push(rest);
        assert_eq!(told(copies, world.now), told(known, world.now));
    }
}
