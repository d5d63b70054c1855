//! Faults made by what happens, beside a plan.

use std::time::Duration;

use tidegate::random::Generator;

use super::FAULTS_FROM;
use super::books::Books;
use crate::sim::Fault;

/// Takes the power of whoever has just voted, and lets the others vote again. The leader dies; of
/// the two that are left, one votes for the other, and a vote that isn't on its disk is gone. The
/// other leads by it, cut off. The two that died come back: if they don't know of the vote, they
/// agree on entries that the cut-off leader then replaces.
pub(super) struct LostVotes {
    chance: Generator,
    /// When the next leader dies.
    next: Duration,
    leader: usize,
    todo: Vec<(Duration, Fault)>,
    /// Votes after which the power failed.
    votes: u64,
}

/// Between the end of one such election and the next.
const ELECTION_EVERY: Duration = Duration::from_millis(1_500);
/// How long it may take until somebody votes.
const ELECTED_WITHIN: Duration = Duration::from_secs(4);

/// Makes faults by what happens, beside the plan.
pub(super) trait Director {
    /// What is to happen at `now`.
    fn next(&mut self, now: Duration, books: &Books) -> Option<Fault>;
    /// Whether enough of what it is about has happened.
    fn has_shown(&self) -> bool;
}

impl LostVotes {
    pub(super) fn new(seed: u64) -> Self {
        let chance = tidegate::random::Seed::from_number(seed).fork("lost votes", 0);
        Self { chance, next: FAULTS_FROM, leader: 0, todo: Vec::new(), votes: 0 }
    }
}

impl Director for LostVotes {
    fn has_shown(&self) -> bool {
        self.votes > 3
    }

    fn next(&mut self, now: Duration, books: &Books) -> Option<Fault> {
        let mut seen = books.seen();
        if let Some((voter, candidate)) = seen.voted.take() {
            self.votes += 1;
            let mut later = |from: u64, to: u64| {
                now + Duration::from_millis(from + self.chance.next_u64() % (to - from))
            };
            let (back, healed) = (later(15, 60), later(1_500, 3_000));
            self.todo = vec![
                (now + Duration::from_millis(8), Fault::Isolate(candidate)),
                (back, Fault::Start(voter)),
                (back, Fault::Start(self.leader)),
                (healed, Fault::Heal),
            ];
            self.next = healed + ELECTION_EVERY;
        }
        if self.todo.is_empty() && now >= self.next {
            if seen.armed {
                // Nobody voted. Then all are to be there before it is tried again.
                seen.armed = false;
                self.next = now + ELECTION_EVERY;
                return Some(Fault::Start(self.leader));
            }
            self.leader = seen.leaders.last_key_value()?.1.last()?.0 as usize - 1;
            self.next = now + ELECTED_WITHIN;
            seen.armed = true;
            return Some(Fault::Kill(self.leader));
        }
        let is_due = self.todo.first().is_some_and(|(at, _)| *at <= now);
        is_due.then(|| self.todo.remove(0).1)
    }
}

/// Slows all links of the leader down for a while, again and again. Commands keep the contact with
/// a majority alive where heartbeats are too late, so another leader is allowed, and not asked for.
pub(super) struct SlowLeaders {
    chance: Generator,
    /// When the next leader gets slow.
    next: Duration,
    slow: Option<Slow>,
    times: u64,
}

/// A leader whose links are slow.
struct Slow {
    node: usize,
    until: Duration,
    /// The newest version, and since when it has been that.
    newest: (u64, Duration),
}

/// How long it may take until a command is done, though the leader's links are slow.
const GOES_ON_WITHIN: Duration = Duration::from_secs(5);
/// How long they are slow, and how long they are quick then.
const SLOW_FOR: Duration = Duration::from_secs(7);
const QUICK_FOR: Duration = Duration::from_secs(2);
/// How long a message on a link of a slow leader takes, each way, in milliseconds.
const SLOW_MS: [u64; 4] = [40, 60, 80, 150];
/// The same on any other link.
const QUICK_MS: u64 = 3;

impl SlowLeaders {
    pub(super) fn new(seed: u64) -> Self {
        let chance = tidegate::random::Seed::from_number(seed).fork("slow leaders", 0);
        Self { chance, next: FAULTS_FROM, slow: None, times: 0 }
    }
}

impl Director for SlowLeaders {
    fn has_shown(&self) -> bool {
        self.times >= 3
    }

    fn next(&mut self, now: Duration, books: &Books) -> Option<Fault> {
        let newest = books.newest();
        let Some(slow) = &mut self.slow else {
            let leader =
                books.seen().leaders.last_key_value().and_then(|(_, by)| by.last().copied())?;
            if now < self.next {
                return None;
            }
            let ms = SLOW_MS[(self.chance.next_u64() % SLOW_MS.len() as u64) as usize];
            let node = leader.0 as usize - 1;
            self.slow = Some(Slow { node, until: now + SLOW_FOR, newest: (newest, now) });
            return Some(Fault::SlowLinks(node, ms));
        };
        if newest > slow.newest.0 {
            slow.newest = (newest, now);
        }
        let silent = now - slow.newest.1;
        let node = slow.node;
        books.check(silent <= GOES_ON_WITHIN, || {
            format!("nothing is done while n{} is slow", node + 1)
        });
        if now < slow.until {
            return None;
        }
        (self.slow, self.next, self.times) = (None, now + QUICK_FOR, self.times + 1);
        Some(Fault::SlowLinks(node, QUICK_MS))
    }
}
