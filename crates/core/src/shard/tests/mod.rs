//! A few shards without a runtime: their effects wait in queues, and a seed decides which is
//! delivered next.
//!
//! With an even seed all shards are on one node; with an odd one each is on a node of its own, and
//! what they say to each other goes from node to node. Between two shards messages keep their
//! order; across pairs any interleaving happens, as with the actors' mailboxes. Time stands unless
//! a test lets it pass. A failing run prints its seed; `TIDEGATE_TEST_SEED` plays that one alone.

mod batches;
mod books;
mod callers;
mod caps;
mod cold;
mod counts;
mod forgetting;
mod ids;
mod lost;
mod moving;
mod peeks;
mod permits;
mod pieces;
mod policies;
mod restarts;
mod run;
mod two_ways;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::core::{Caps, Shard, TenantState};
use super::effect::{Effect, ReplyId};
use super::op::{Answer, Decisions, Home, OpRef};
use super::shared::{Ask, Reply};
use super::{PartitionSnapshot, Question, Refusal};
use crate::check::{
    Check, Cost, Decision, Dimension, Label, Limit, Match, Name, PermitId, RequestId, TenantId,
    Verdict,
};
use crate::limit::{Outcome, Rule, Window};
use crate::placement::{
    BootId, Epoch, NodeId, Partition, Places, Seat, Secret, Table, TableVersion,
};
use crate::policy::{Document, Policy};
use crate::random::{Generator, Seed};
use crate::time::{Now, SECOND};
use callers::{Caller, Waits, answered, now};

const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// More than any test fills that isn't about caps.
const ROOM: Caps = Caps {
    named_tenants: 1_000,
    unknown_tenants: 1_000,
    keys_per_tenant: 1_000,
    keys: 100_000,
    shared_keys: 1_000,
    request_ids: 100_000,
};

/// A message between two shards.
enum Message {
    Ask(Ask),
    Reply(Reply),
    Settle { op: OpRef, key: u128, take: bool },
}

/// The node of each shard in its `life`, one or several.
fn seat(node: usize, life: u64) -> Seat {
    Seat { node: NodeId(node as u64 + 1), boot: BootId(life * 1_000 + node as u64 + 1) }
}

/// The placement as node `me` of `nodes` sees it: partitions in turn, under the epoch that has the
/// number of its life.
fn places(me: usize, nodes: usize, life: u64) -> Arc<Places> {
    let owner = |life| Partition::all().map(move |p| (seat(p.shard(nodes), life), None));
    let first = Table::new(TableVersion(1), owner(1)).unwrap();
    let seated = |table: Table, node| {
        table.seat(NodeId(node as u64 + 1), seat(node, life).boot, TableVersion(node as u64 + 2))
    };
    let table = (0..nodes).fold(first, |table, node| seated(table, node).unwrap());
    Arc::new(Places::new(seat(me, life), Arc::new(table)))
}

type Each = Vec<Result<Decision, Refusal>>;

/// Some shards that know each other, and the messages between them.
struct World {
    seed: u64,
    /// Each shard is on a node of its own.
    apart: bool,
    shards: Vec<Shard>,
    secret: Secret,
    now: Now,
    links: BTreeMap<(usize, usize), VecDeque<Message>>,
    chance: Generator,
    /// Callers that have no answer yet.
    callers: BTreeMap<ReplyId, Caller>,
    calls: u32,
}

impl World {
    fn new(shards: usize, policy: &str, caps: Caps, seed: u64) -> Self {
        Self::living(1, seed % 2 == 1, shards, policy, caps, seed)
    }

    /// All on one node, whatever the seed.
    fn together(shards: usize, policy: &str, caps: Caps, seed: u64) -> Self {
        Self::living(1, false, shards, policy, caps, seed)
    }

    /// The nodes in that life of theirs.
    fn living(life: u64, apart: bool, shards: usize, policy: &str, caps: Caps, seed: u64) -> Self {
        let mut chance = Seed::from_number(seed).fork("world", 0);
        let secret = Secret::new(chance.next_u64(), chance.next_u64());
        let policy = compiled(1, policy);
        let shard = |index| {
            let generator = Seed::from_number(seed).fork("permits", index as u64);
            let (node, nodes) = if apart { (index, shards) } else { (0, 1) };
            let (index, shards) = if apart { (0, 1) } else { (index, shards) };
            let places = places(node, nodes, life);
            Shard::new(index, shards, caps, secret, places, policy.clone(), generator)
        };
        Self {
            seed,
            apart,
            shards: (0..shards).map(shard).collect(),
            secret,
            // An hour into a day, so that neither days nor minutes end by surprise.
            now: Now { boot: 5_000 * SECOND, wall: 20_000 * DAY + HOUR },
            links: BTreeMap::new(),
            chance,
            callers: BTreeMap::new(),
            calls: 0,
        }
    }

    /// One shard with room for everything.
    fn alone(policy: &str) -> Self {
        Self::new(1, policy, ROOM, 0)
    }

    // -------------------------------------------------------------------------------------------------
    // questions

    fn question(&self, check: &Check) -> Question {
        let epoch = Epoch::FIRST;
        Question { hash: self.secret.account(&check.account()), epoch, check: check.clone() }
    }

    fn home(&self, check: &Check) -> usize {
        let hash = self.secret.account(&check.account());
        hash.partition().shard(self.shards.len())
    }

    /// Lets a shard work, and puts what it wants done on its links.
    fn on<T>(
        &mut self,
        shard: usize,
        work: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let done = work(&mut self.shards[shard], self.now, &mut effects);
        for effect in effects {
            let (to, message) = match effect {
                Effect::Answer { reply, answer, .. } => {
                    self.answer(reply, Ok(answer));
                    continue;
                }
                Effect::AnswerEach { reply, answers, .. } => {
                    self.answer(reply, Err(answers));
                    continue;
                }
                Effect::Ask(to, ask) => (self.at(to), Message::Ask(ask)),
                // For a shard elsewhere the bucket is where the partitions of whoever answers are.
                Effect::Reply(reply) if self.apart => {
                    let from = Home::Far(Partition::new(shard as u16).unwrap());
                    (
                        (reply.op.boot.0 % 1_000 - 1) as usize,
                        Message::Reply(Reply { from, ..reply }),
                    )
                }
                Effect::Reply(reply) => (reply.op.shard as usize, Message::Reply(reply)),
                Effect::Settle { home, op, key, take } => {
                    (self.at(home), Message::Settle { op, key, take })
                }
            };
            assert_ne!(to, shard, "a shard sends itself nothing");
            self.links.entry((shard, to)).or_default().push_back(message);
        }
        done
    }

    /// The shard that keeps what is at home there.
    fn at(&self, home: Home) -> usize {
        match home {
            Home::Here(shard) => shard,
            Home::Far(partition) => partition.shard(self.shards.len()),
        }
    }

    fn start(&mut self, check: &Check) -> Waits<Answer> {
        self.start_at(self.home(check), check)
    }

    fn start_all(&mut self, all: &[Check]) -> Waits<Answer> {
        let (questions, (reply, waits)) =
            (all.iter().map(|c| self.question(c)).collect(), self.waits());
        self.on(self.home(&all[0]), |s, now, out| s.check_all(questions, reply, now, out));
        waits
    }

    fn start_each(&mut self, each: &[Check]) -> Waits<Each> {
        let home = each.first().map_or(0, |first| self.home(first));
        let (questions, (to, waits)) =
            (each.iter().map(|c| self.question(c)).collect(), Waits::new());
        let reply = self.wait(Caller::Each(to));
        self.on(home, |s, now, out| s.check_each(questions, reply, now, out));
        waits
    }

    fn start_peek(&mut self, check: &Check) -> Waits<Answer> {
        let (question, (reply, waits)) = (self.question(check), self.waits());
        self.on(self.home(check), |s, now, out| s.peek(question, reply, now, out));
        waits
    }

    /// Asks, and delivers everything until the answer is there.
    fn ask(&mut self, check: &Check) -> Result<Decision, Refusal> {
        let mut answer = self.start(check);
        self.deliver_all();
        only(now(&mut answer))
    }

    /// As [`World::ask`], for a check that is not refused.
    fn decide(&mut self, check: &Check) -> Decision {
        self.ask(check).unwrap()
    }

    /// How many of `count` such checks are allowed, one after another.
    fn admits(&mut self, check: &Check, count: usize) -> usize {
        (0..count).filter(|_| self.decide(check).allowed).count()
    }

    /// As [`World::admits`], while all messages under way stay where they are.
    fn admits_now(&mut self, check: &Check, count: usize) -> usize {
        let allowed = |world: &mut Self| only(now(&mut world.start(check))).unwrap().allowed;
        (0..count).filter(|_| allowed(self)).count()
    }

    fn ask_all(&mut self, all: &[Check]) -> Answer {
        let mut answer = self.start_all(all);
        self.deliver_all();
        now(&mut answer)
    }

    fn ask_each(&mut self, each: &[Check]) -> Each {
        let mut answer = self.start_each(each);
        self.deliver_all();
        now(&mut answer)
    }

    fn peek(&mut self, check: &Check) -> Decision {
        let mut answer = self.start_peek(check);
        self.deliver_all();
        only(now(&mut answer)).unwrap()
    }

    /// Where any node finds a permit: by the partition in its id.
    fn permit_home(&self, id: PermitId) -> usize {
        Partition::new(id.partition).unwrap().shard(self.shards.len())
    }

    fn release(&mut self, id: PermitId) {
        self.on(self.permit_home(id), |s, now, out| s.release(id, now, out));
        self.deliver_all();
    }

    fn renew(&mut self, id: PermitId, ttl_ms: u64) -> bool {
        let renewed = self.on(self.permit_home(id), |s, now, _| s.renew(id, ttl_ms, now));
        renewed.unwrap().is_some()
    }

    fn describe(&mut self, check: &Check) -> TenantState {
        let hash = self.secret.account(&check.account());
        self.on(self.home(check), |s, now, _| s.describe(&check.tenant, hash, now))
    }

    fn set_policy(&mut self, policy: &str) {
        (0..self.shards.len()).for_each(|shard| self.change_policy(shard, policy));
    }

    /// One shard has heard of the next version; the others may go on by theirs.
    fn change_policy(&mut self, shard: usize, policy: &str) {
        let shard = &mut self.shards[shard];
        shard.set_policy(compiled(shard.policy_version() + 1, policy), self.now);
    }

    // -------------------------------------------------------------------------------------------------
    // deliveries

    /// Takes the next message off a link that chance picks.
    fn next_message(&mut self) -> Option<(usize, Message)> {
        let waiting: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.is_empty()).map(|(ends, _)| *ends).collect();
        if waiting.is_empty() {
            return None;
        }
        let ends = waiting[self.below(waiting.len() as u64) as usize];
        let message = self.links.get_mut(&ends)?.pop_front()?;
        Some((ends.1, message))
    }

    fn hand(&mut self, to: usize, message: Message) {
        self.on(to, |shard, now, out| match message {
            Message::Ask(ask) => shard.asked(ask, now, out),
            Message::Reply(reply) => shard.replied(reply, now, out),
            Message::Settle { op, key, take } => shard.settled(op, key, take, now, out),
        });
    }

    /// Delivers one message; false where there is none.
    fn deliver(&mut self) -> bool {
        let next = self.next_message();
        next.is_some_and(|(to, message)| {
            self.hand(to, message);
            true
        })
    }

    fn deliver_all(&mut self) {
        while self.deliver() {}
    }

    /// Delivers everything but the messages that get lost. Answers how many those were.
    fn deliver_all_but(&mut self, lost: impl Fn(&Message) -> bool) -> usize {
        let mut count = 0;
        while let Some((to, message)) = self.next_message() {
            if lost(&message) {
                count += 1;
            } else {
                self.hand(to, message);
            }
        }
        count
    }

    /// Delivers every question that is under way, and no answer.
    fn deliver_asks(&mut self) {
        let links: Vec<_> =
            self.links.iter_mut().map(|(ends, link)| (ends.1, std::mem::take(link))).collect();
        for (to, link) in links {
            for message in link {
                assert!(matches!(message, Message::Ask(_)));
                self.hand(to, message);
            }
        }
    }

    /// Loses every message that is under way. Answers how many that were.
    fn lose_all(&mut self) -> usize {
        self.links.values_mut().map(|link| link.drain(..).count()).sum()
    }

    /// Lets time pass on both clocks; shards that are busy look at it, as their actors do every few
    /// milliseconds.
    fn pass(&mut self, nanos: u64) {
        self.now.boot += nanos;
        self.now.wall += nanos;
        for shard in 0..self.shards.len() {
            if self.shards[shard].is_busy() {
                self.on(shard, |s, now, out| s.tick(false, now, out));
            }
        }
    }

    /// Lets every shard look at all of its accounts and buckets for ones to forget.
    fn sweep(&mut self) {
        for shard in 0..self.shards.len() {
            self.on(shard, |s, now, out| s.tick(true, now, out));
        }
    }

    // -------------------------------------------------------------------------------------------------
    // what is there

    fn is_busy(&self) -> bool {
        self.shards.iter().any(Shard::is_busy)
    }

    fn tenants(&self) -> usize {
        self.shards.iter().map(Shard::tenants).sum()
    }

    fn buckets(&self) -> usize {
        self.shards.iter().map(|s| s.accounts.buckets).sum()
    }

    fn shared_keys(&self) -> usize {
        self.shards.iter().map(Shard::shared_keys).sum()
    }

    fn request_ids(&self) -> usize {
        self.shards.iter().map(|s| s.accounts.request_ids).sum()
    }

    /// What the shards count as they go is what is there.
    fn assert_counts_agree(&self) {
        for shard in &self.shards {
            let accounts = || (0..shard.accounts.positions()).filter_map(|i| shard.accounts.at(i));
            let buckets: usize = accounts().map(|account| account.buckets.len()).sum();
            let ids: usize = accounts().map(|account| account.replays()).sum();
            let permits: u64 = accounts().map(|account| account.permits()).sum();
            let kept = (shard.accounts.buckets, shard.accounts.request_ids, shard.accounts.permits);
            assert_eq!(kept, (buckets, ids, permits));
            for account in accounts() {
                let mut keys: Vec<_> = account.buckets.iter().map(|(key, _)| key).collect();
                keys.sort();
                keys.dedup();
                assert_eq!(
                    keys.len(),
                    account.buckets.len(),
                    "a key stands twice in {}",
                    account.id
                );
            }
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.chance.next_u64() % n
    }

    /// The first of `t0`, `t1`, … whose home is `shard`.
    fn tenant_of(&self, shard: usize) -> Check {
        self.tenants_of(shard).next().unwrap()
    }

    /// A tenant in the shard that keeps the global bucket, and one in another.
    fn near_and_far(&mut self) -> [Check; 2] {
        let shards = 0..self.shards.len();
        let near = |world: &mut Self, shard: &usize| {
            let at_once = answered(&mut world.start_peek(&world.tenant_of(*shard))).is_some();
            world.deliver_all();
            at_once
        };
        let (near, far): (Vec<_>, Vec<_>) = shards.partition(|shard| near(self, shard));
        [self.tenant_of(near[0]), self.tenant_of(far[0])]
    }

    fn tenants_of(&self, shard: usize) -> impl Iterator<Item = Check> {
        let (secret, shards) = (self.secret, self.shards.len());
        (0..)
            .map(|i| of(&format!("t{i}")))
            .filter(move |c| secret.account(&c.account()).partition().shard(shards) == shard)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}; TIDEGATE_TEST_SEED={0} plays it alone", self.seed);
        }
    }
}

/// The seeds of one test: `count` of them, or the one that is asked for.
#[allow(clippy::disallowed_methods, reason = "a failing seed is replayed by a variable")]
fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("TIDEGATE_TEST_SEED").map(|seed| seed.parse::<u64>()) {
        Ok(Ok(seed)) => seed..seed + 1,
        _ => 0..count,
    }
}

fn compiled(version: u64, toml: &str) -> Arc<Policy> {
    Arc::new(Policy::new(version, Document::from_toml(toml.as_bytes()).unwrap(), None))
}

fn only(answer: Answer) -> Result<Decision, Refusal> {
    answer.map(|decisions| {
        let [decision] = decisions.into_inner().expect("one decision");
        decision
    })
}

// -----------------------------------------------------------------------------------------------------
// checks

fn of(tenant: &str) -> Check {
    Check { deadline_ms: 60_000, ..Check::of(TenantId::new(tenant).unwrap()) }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn costing(units: u32, check: &Check) -> Check {
    Check { cost: Cost::new(units), ..check.clone() }
}

fn by_client(client: &str, check: &Check) -> Check {
    Check { client: Label::new(client), ..check.clone() }
}

fn from_ip(ip: &str, check: &Check) -> Check {
    Check { ip: Some(ip.parse::<IpAddr>().unwrap()), ..check.clone() }
}

fn with_id(id: &str, check: &Check) -> Check {
    Check { request_id: RequestId::new(id), ..check.clone() }
}

fn with_permit(ttl_ms: u64, check: &Check) -> Check {
    Check { permit_ttl_ms: Some(ttl_ms), ..check.clone() }
}

fn within(deadline_ms: u64, check: &Check) -> Check {
    Check { deadline_ms, ..check.clone() }
}

fn with_limits(limits: &[Limit], check: &Check) -> Check {
    Check { limits: limits.iter().cloned().map(Arc::new).collect(), ..check.clone() }
}

/// A fixed window of a day, as a request would bring it along.
fn sent(limit_name: &str, per: &[Dimension], limit: u64) -> Limit {
    Limit {
        name: name(limit_name),
        per: per.to_vec(),
        when: Match::default(),
        rule: Rule::FixedWindow(Window { limit, length: DAY }),
        enforce: true,
    }
}

// -----------------------------------------------------------------------------------------------------
// decisions

fn verdict<'d>(decision: &'d Decision, limit: &str) -> &'d Verdict {
    let found = decision.verdicts.iter().find(|v| v.limit.name.as_str() == limit);
    found.unwrap_or_else(|| panic!("{limit} was asked"))
}

fn denier(decision: &Decision) -> &str {
    assert!(!decision.allowed);
    decision.denied_by.as_ref().expect("a denial names its limit").name.as_str()
}

/// Whether a limit said no, rather than that somebody holds what is left.
fn says_no(verdict: &Verdict) -> bool {
    verdict.limit.enforce && matches!(verdict.outcome, Outcome::Wait(_) | Outcome::Never)
}
