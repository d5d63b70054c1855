//! Faults as plain data, and who makes them happen.
//!
//! A [`Plan`] is a list of faults with their times; a seed yields one. The [`Nemesis`] follows it,
//! step by step of the simulation. When a plan is over, [`Nemesis::heal`] ends all faults: then
//! whatever is simulated is expected to recover.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate::cluster::raft::Medium;
use tidegate::random::{Generator, Seed};

use super::Trace;

/// Something that goes wrong, or right again. Nodes go by their place in the list of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Two don't hear each other; what was on its way is lost.
    Cut(usize, usize),
    /// The second doesn't hear the first.
    CutOneWay(usize, usize),
    /// What two say to each other is held up, until the network heals.
    Stall(usize, usize),
    /// One is cut off from all others.
    Isolate(usize),
    /// Every path is whole again.
    Heal,
    /// A process ends, and its connections with it.
    Kill(usize),
    /// A machine loses its power without a word, `after` writes to its disk; of those not synced,
    /// the first `kept` survive.
    CutPower {
        /// Whose.
        node: usize,
        /// Writes until then.
        after: usize,
        /// Of the last writes, those that survive.
        kept: usize,
    },
    /// A process is started again.
    Start(usize),
    /// Of so many messages, one breaks the path that it takes; of ten, one mends a broken one. 0
    /// ends it.
    Loss(u32),
    /// A message takes at most so many milliseconds.
    Latency(u64),
    /// A message on a link of this node takes so many milliseconds, each way.
    SlowLinks(usize, u64),
}

/// Faults, and when they happen.
#[derive(Clone, Debug)]
pub struct Plan(pub Vec<(Duration, Fault)>);

/// The times between two faults, in milliseconds: some come together, some when all is calm again.
const BETWEEN_MS: std::ops::Range<u64> = 20..2_500;

impl Plan {
    /// That of a seed, for so many hosts, until `end`.
    pub fn of(seed: u64, hosts: usize, from: Duration, end: Duration) -> Self {
        let mut chance = Seed::from_number(seed).fork("faults", 0);
        let (mut at, mut plan, mut down) = (from, Vec::new(), BTreeSet::new());
        loop {
            at += Duration::from_millis(between(&mut chance, BETWEEN_MS));
            if at >= end {
                return Self(plan);
            }
            let fault = some_fault(&mut chance, hosts, &down);
            match fault {
                Fault::Kill(node) | Fault::CutPower { node, .. } => drop(down.insert(node)),
                Fault::Start(node) => drop(down.remove(&node)),
                _ => {}
            }
            plan.push((at, fault));
        }
    }
}

/// Returns a number of the range.
pub fn between(chance: &mut Generator, range: std::ops::Range<u64>) -> u64 {
    range.start + chance.next_u64() % (range.end - range.start)
}

fn some_fault(chance: &mut Generator, hosts: usize, down: &BTreeSet<usize>) -> Fault {
    let node = between(chance, 0..hosts as u64) as usize;
    let other = (node + 1 + between(chance, 0..hosts as u64 - 1) as usize) % hosts;
    // Whoever is down comes back sooner rather than later: most of the time, more than half should
    // be there.
    if let Some(node) = down.iter().next().filter(|_| between(chance, 0..2) == 0) {
        return Fault::Start(*node);
    }
    match between(chance, 0..20) {
        0..3 => Fault::Cut(node, other),
        3..5 => Fault::CutOneWay(node, other),
        5..7 => Fault::Stall(node, other),
        7..9 => Fault::Isolate(node),
        9..13 => Fault::Heal,
        13..15 if !down.contains(&node) => Fault::Kill(node),
        15..18 if !down.contains(&node) => {
            let (after, kept) = (between(chance, 0..40) as usize, between(chance, 0..4) as usize);
            Fault::CutPower { node, after, kept }
        }
        18 => Fault::Loss([0, 0, 200, 1_000][between(chance, 0..4) as usize]),
        _ => Fault::Latency([2, 10, 50, 200][between(chance, 0..4) as usize]),
    }
}

/// The latency of a network without faults.
const LATENCY_MS: u64 = 5;
/// How long what a machine has sent is on its way after its power failed; whoever is cut off takes
/// that with him. Its disk is gone at once.
const ON_ITS_WAY: Duration = Duration::from_millis(LATENCY_MS + 1);

/// Makes a plan happen.
pub struct Nemesis {
    hosts: Vec<String>,
    media: Vec<Medium>,
    plan: std::vec::IntoIter<(Duration, Fault)>,
    /// Paths that aren't whole, from whom to whom.
    broken: BTreeMap<(usize, usize), Path>,
    /// Since when machines have been without power that are not down yet.
    powerless: BTreeMap<usize, Duration>,
    /// Hosts that nothing is to run on.
    left_alone: BTreeSet<usize>,
    /// Hosts whose links were slow at some time.
    slowed: BTreeSet<usize>,
    trace: Trace,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Cut,
    Stalled,
}

impl Nemesis {
    /// For hosts of these names, whose disks are `media`.
    pub fn new(hosts: Vec<String>, media: Vec<Medium>, plan: Plan, trace: Trace) -> Self {
        let (plan, broken, left_alone) = (plan.0.into_iter(), BTreeMap::new(), BTreeSet::new());
        let (powerless, slowed) = (BTreeMap::new(), BTreeSet::new());
        Self { hosts, media, plan, broken, powerless, left_alone, slowed, trace }
    }

    /// From now on nothing is started on a host.
    pub fn leave_alone(&mut self, node: usize) {
        self.left_alone.insert(node);
    }

    /// From now on a host is one of those that faults end for.
    pub fn take_up(&mut self, node: usize) {
        self.left_alone.remove(&node);
    }

    /// To be called between any two steps of `sim`.
    pub fn step(&mut self, sim: &mut turmoil::Sim<'_>) {
        while self.plan.as_slice().first().is_some_and(|(at, _)| *at <= sim.elapsed()) {
            let Some((_, fault)) = self.plan.next() else { return };
            self.make(sim, fault);
        }
        for node in 0..self.hosts.len() {
            if !self.media[node].is_off() || !sim.is_host_running(self.host(node)) {
                self.powerless.remove(&node);
            } else if sim.elapsed()
                >= *self.powerless.entry(node).or_insert(sim.elapsed()) + ON_ITS_WAY
            {
                self.trace
                    .note_at(sim.elapsed(), format_args!("{} has no power", self.hosts[node]));
                self.take_down_silently(sim, node);
            }
        }
    }

    /// Ends all faults, and starts who is down.
    pub fn heal(&mut self, sim: &mut turmoil::Sim<'_>) {
        self.trace.note_at(sim.elapsed(), "all faults end");
        for fault in [Fault::Heal, Fault::Loss(0), Fault::Latency(LATENCY_MS)] {
            self.happen(sim, fault);
        }
        for node in self.slowed.clone() {
            self.happen(sim, Fault::SlowLinks(node, LATENCY_MS));
        }
        for node in 0..self.hosts.len() {
            self.happen(sim, Fault::Start(node));
        }
    }

    /// Makes a fault happen, now.
    pub fn make(&mut self, sim: &mut turmoil::Sim<'_>, fault: Fault) {
        self.trace.note_at(sim.elapsed(), format_args!("{fault:?}"));
        self.happen(sim, fault);
    }

    fn happen(&mut self, sim: &mut turmoil::Sim<'_>, fault: Fault) {
        match fault {
            Fault::Start(node) if self.left_alone.contains(&node) => {}
            Fault::Cut(a, b) => self.break_paths(sim, &[(a, b), (b, a)], Path::Cut),
            Fault::CutOneWay(a, b) => self.break_paths(sim, &[(a, b)], Path::Cut),
            Fault::Stall(a, b) => self.break_paths(sim, &[(a, b), (b, a)], Path::Stalled),
            Fault::Isolate(node) => {
                for other in (0..self.hosts.len()).filter(|other| *other != node) {
                    self.break_paths(sim, &[(node, other), (other, node)], Path::Cut);
                }
            }
            Fault::Heal => {
                self.broken.clear();
                self.lay_paths(sim);
            }
            Fault::Kill(node) => sim.crash(self.host(node)),
            Fault::CutPower { node, after, kept } => self.media[node].cut_power(after, kept),
            Fault::Start(node) => {
                if self.media[node].is_off() && sim.is_host_running(self.host(node)) {
                    self.take_down_silently(sim, node);
                }
                // For want of writes it may not have failed yet; then it won't.
                self.media[node].restore_power();
                if sim.is_host_running(self.host(node)) {
                    return;
                }
                self.trace.note_at(sim.elapsed(), format_args!("{} starts", self.hosts[node]));
                sim.bounce(self.host(node));
            }
            Fault::Loss(one_in) => {
                let rate = if one_in == 0 { 0.0 } else { 1.0 / f64::from(one_in) };
                sim.set_fail_rate(rate);
                if one_in == 0 {
                    self.lay_paths(sim);
                }
            }
            Fault::SlowLinks(node, ms) => {
                self.slowed.insert(node);
                for other in (0..self.hosts.len()).filter(|other| *other != node) {
                    let took = Duration::from_millis(ms);
                    sim.set_link_latency(self.host(node), self.host(other), took);
                }
            }
            Fault::Latency(ms) => sim.set_max_message_latency(Duration::from_millis(ms)),
        }
    }

    fn host(&self, node: usize) -> &str {
        &self.hosts[node]
    }

    fn break_paths(&mut self, sim: &mut turmoil::Sim<'_>, paths: &[(usize, usize)], how: Path) {
        self.broken.extend(paths.iter().map(|path| (*path, how)));
        self.lay_paths(sim);
    }

    /// Makes every path what it is to be. Turmoil holds back both directions of a path or none, and
    /// a cut stands over that.
    fn lay_paths(&self, sim: &mut turmoil::Sim<'_>) {
        for a in 0..self.hosts.len() {
            for b in a + 1..self.hosts.len() {
                let there = self.broken.get(&(a, b));
                let back = self.broken.get(&(b, a));
                let (from, to) = (self.host(a), self.host(b));
                match (there, back) {
                    (None, None) => sim.release(from, to),
                    (Some(Path::Cut), Some(Path::Cut)) => sim.partition(from, to),
                    (Some(Path::Cut), _) => sim.partition_oneway(from, to),
                    (_, Some(Path::Cut)) => sim.partition_oneway(to, from),
                    _ => sim.hold(from, to),
                }
            }
        }
    }

    /// Takes a host down without a word to the others: not even its connections end.
    fn take_down_silently(&self, sim: &mut turmoil::Sim<'_>, node: usize) {
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            sim.partition(self.host(node), self.host(other));
        }
        sim.crash(self.host(node));
        self.lay_paths(sim);
    }
}
