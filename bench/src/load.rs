//! The load generator: a fixed number of keep-alive connections, each of which asks, waits for the
//! answer, and asks again.
//!
//! It talks to the socket itself, with requests built beforehand and a reader that knows only
//! `Content-Length`, because it shares the machine with the server: what it burns, the server can't
//! use. One thread a core, each with its own current-thread runtime and its share of the
//! connections, so that no connection ever changes threads.
//!
//! The loop is closed: a slow answer delays the next question on that connection. Latencies are
//! therefore those of callers who wait, not those of arrivals at a fixed rate, and a stall counts
//! once per connection. With a rate each connection asks at fixed times, and a call that had to
//! wait for the one before it is timed from when it was due: whoever stalls pays for all that it
//! held up.
//!
//! Tenants are drawn by a seeded generator, a seed per connection: every run asks for the same
//! tenants in the same order.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::answer::{self, Outcomes};
use crate::clock;
use crate::interrupt;
use crate::response::ResponseReader;
use crate::scenario::{Call, Request, Tier};
use crate::server::node_name;
use crate::stats::Latencies;

/// More threads than this would need more connections than a run has.
const THREADS_MAX: usize = 16;
/// How long after its planned end a phase may last before its server counts as stuck.
const OVERTIME_MAX: Duration = Duration::from_secs(10);
/// Ten million tenants at a modest 33,000 answers a second.
const FILL_WAIT_MAX: Duration = Duration::from_secs(300);
/// What an error shows of an answer.
const COMPLAINT_BYTES_MAX: usize = 300;
/// Of the scenario that denies, this share must be denials. Everything was used up before, so
/// nearly all are.
const DENIED_SHARE_MIN: f64 = 0.9;

/// One stretch of a run.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// Ask for every tenant once, so that no later phase pays for their creation.
    Fill,
    /// Ask for random tenants for so long.
    For(Duration),
}

/// The tenants that checks spread over.
#[derive(Clone, Debug)]
pub enum Tenants {
    /// So many, from the first on.
    First(u32),
    /// These.
    These(Arc<[u32]>),
}

impl Tenants {
    pub fn count(&self) -> u32 {
        match self {
            Self::First(count) => *count,
            Self::These(tenants) => u32::try_from(tenants.len()).unwrap_or(u32::MAX),
        }
    }

    /// The tenant with that index, below `count`.
    fn at(&self, index: u32) -> u32 {
        match self {
            Self::First(_) => index,
            Self::These(tenants) => tenants[index as usize],
        }
    }
}

/// Who must have decided, for a run to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deciders {
    /// Any node.
    Any,
    /// The node that was asked, always.
    Asked,
    /// Another one, always.
    Others,
}

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub struct Plan {
    pub call: Call,
    pub tier: Tier,
    /// Those that all servers are asked for, or a part for each server.
    pub tenants: Vec<Tenants>,
    pub deciders: Deciders,
    /// Over all servers together, each with one call under way. At least 1.
    pub connections: u32,
    /// Calls a second, over all connections together, in phases that ask for random tenants;
    /// without it each connection asks as soon as it is answered.
    pub rate: Option<u32>,
}

/// What a phase saw.
#[derive(Clone, Debug)]
pub struct Tally {
    /// From the first question to the last answer.
    pub elapsed: Duration,
    /// Calls answered 200.
    pub answers: u64,
    /// Checks decided by those calls.
    pub decisions: u64,
    /// Heads and bodies of those calls.
    pub bytes: u64,
    /// Of every single check, and of the batches that were read whole.
    pub outcomes: Outcomes,
    pub latencies: Latencies,
    /// Answers other than 200.
    refused: u64,
    /// The first of them, or the first that wasn't what was asked for.
    complaint: Option<String>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            elapsed: Duration::ZERO,
            answers: 0,
            decisions: 0,
            bytes: 0,
            outcomes: Outcomes::default(),
            latencies: Latencies::new(),
            refused: 0,
            complaint: None,
        }
    }

    /// Adds what another phase, or another thread in the same one, saw.
    pub fn merge(&mut self, other: Self) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.answers += other.answers;
        self.decisions += other.decisions;
        self.bytes += other.bytes;
        self.outcomes.add(other.outcomes);
        self.latencies.merge(&other.latencies);
        self.refused += other.refused;
        if self.complaint.is_none() {
            self.complaint = other.complaint;
        }
    }

    /// An error unless every call was answered, by whom it had to be, and as the tier must.
    fn judge(&self, phase: Phase, plan: &Plan) -> Result<(), Box<dyn Error + Send + Sync>> {
        if let Some(complaint) = &self.complaint {
            let Self { refused, answers, .. } = self;
            return Err(format!(
                "{refused} calls were refused and {answers} answered; the first fault: {complaint}"
            )
            .into());
        }
        let denied = self.outcomes.denied_share().ok_or("no call was answered at all")?;
        let forwarded = self.outcomes.forwarded_share().unwrap_or(0.0);
        match (plan.tier, phase) {
            _ if plan.deciders == Deciders::Asked && forwarded > 0.0 => Err(format!(
                "{:.2} % of the checks were decided by another node than the one asked",
                forwarded * 100.0
            )
            .into()),
            _ if plan.deciders == Deciders::Others && forwarded < 1.0 => Err(format!(
                "{:.2} % of the checks were decided by the node that was asked",
                (1.0 - forwarded) * 100.0
            )
            .into()),
            (Tier::One | Tier::Two, _) if denied > 0.0 => Err(format!(
                "{:.2} % of the checks were denied under limits that none can reach",
                denied * 100.0
            )
            .into()),
            (Tier::Denied, Phase::For(_)) if denied < DENIED_SHARE_MIN => Err(format!(
                "{:.2} % of the checks were denied, although every tenant had used up its limit",
                denied * 100.0
            )
            .into()),
            _ => Ok(()),
        }
    }
}

/// Connections to one server or to the nodes of a cluster, open until dropped.
#[derive(Debug)]
pub struct Load {
    threads: Vec<Thread>,
    plan: Plan,
}

#[derive(Debug)]
struct Thread {
    runtime: Runtime,
    connections: Vec<Connection>,
}

impl Load {
    /// Opens the plan's connections to `servers` in turn, of which there is at least one.
    pub fn connect(
        servers: &[SocketAddr],
        plan: Plan,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let count =
            std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX);
        let mut threads = Vec::new();
        for _ in 0..count {
            threads.push(Thread {
                runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
                connections: Vec::new(),
            });
        }
        for (index, (of, server)) in (0..plan.connections).zip(servers.iter().enumerate().cycle()) {
            let thread = &mut threads[index as usize % count];
            let opening = clock::within(OVERTIME_MAX, TcpStream::connect(server));
            let stream = thread
                .runtime
                .block_on(opening)
                .ok_or_else(|| format!("{server} took no connection within {OVERTIME_MAX:?}"))??;
            stream.set_nodelay(true)?;
            thread.connections.push(Connection {
                stream,
                request: Request::new(plan.call),
                reader: ResponseReader::default(),
                random: XorShift::seeded(u64::from(index)),
                asks: Asks::new(&plan, index, of, servers.len()),
                pace: Pace::new(&plan, index),
            });
        }
        Ok(Self { threads, plan })
    }

    /// Runs one phase on all connections and returns when the last answer is in. An error if any
    /// call failed, was refused or was answered otherwise than the plan has it.
    pub fn run(&mut self, phase: Phase) -> Result<Tally, Box<dyn Error + Send + Sync>> {
        let start = clock::now();
        let tallies: Vec<Result<Tally, Box<dyn Error + Send + Sync>>> =
            std::thread::scope(|scope| {
                let running: Vec<_> = self
                    .threads
                    .iter_mut()
                    .map(|thread| scope.spawn(move || thread.run(phase, start)))
                    .collect();
                running
                    .into_iter()
                    .map(|thread| {
                        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    })
                    .collect()
            });
        let mut all = Tally::new();
        for tally in tallies {
            all.merge(tally?);
        }
        all.judge(phase, &self.plan)?;
        Ok(all)
    }
}

impl Thread {
    fn run(&mut self, phase: Phase, start: Instant) -> Result<Tally, Box<dyn Error + Send + Sync>> {
        let connections = std::mem::take(&mut self.connections);
        let (connections, tally) = self.runtime.block_on(run_all(connections, phase, start))?;
        self.connections = connections;
        Ok(tally)
    }
}

async fn run_all(
    connections: Vec<Connection>,
    phase: Phase,
    start: Instant,
) -> Result<(Vec<Connection>, Tally), Box<dyn Error + Send + Sync>> {
    let limit = match phase {
        Phase::Fill => FILL_WAIT_MAX,
        Phase::For(length) => length + OVERTIME_MAX,
    };
    let mut running = JoinSet::new();
    for connection in connections {
        running.spawn(connection.run(phase, start));
    }
    let collect = async {
        let mut connections = Vec::with_capacity(running.len());
        let mut all = Tally::new();
        while let Some(joined) = running.join_next().await {
            let (connection, tally) = joined??;
            connections.push(connection);
            all.merge(tally);
        }
        all.elapsed = clock::now() - start;
        Ok((connections, all))
    };
    tokio::select! {
        collected = clock::within(limit, collect) => {
            collected.ok_or_else(|| format!("not all answers came within {limit:?}"))?
        }
        () = interrupt::asked() => Err("interrupted".into()),
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    request: Request,
    reader: ResponseReader,
    random: XorShift,
    asks: Asks,
    pace: Option<Pace>,
}

/// When a connection asks: first after `first`, and then at every `every`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    first: Duration,
    every: Duration,
}

impl Pace {
    /// That of the connection with that index: all of them take turns.
    fn new(plan: &Plan, index: u32) -> Option<Self> {
        let turn = Duration::from_secs(1) / plan.rate?.max(1);
        Some(Self { first: turn * index, every: turn * plan.connections })
    }
}

/// What a connection asks for and of whom, and which of all that ask for the same it is.
#[derive(Clone, Debug)]
struct Asks {
    call: Call,
    tier: Tier,
    tenants: Tenants,
    node: String,
    index: u32,
    of: u32,
}

impl Connection {
    async fn run(
        mut self,
        phase: Phase,
        start: Instant,
    ) -> Result<(Self, Tally), Box<dyn Error + Send + Sync>> {
        let mut tally = Tally::new();
        match phase {
            Phase::Fill => {
                let mut walk = self.asks.clone().walk();
                let mut sent = start;
                while let Some(first) = walk.next() {
                    let mut tenants = std::iter::once(first).chain(&mut walk);
                    // Where a batch is longer than what is left, it repeats its first tenant.
                    self.request.aim(|| tenants.next().unwrap_or(first));
                    sent = self.call(sent, &mut tally).await?;
                    if tally.complaint.is_some() {
                        break;
                    }
                }
            }
            Phase::For(length) => {
                let mut due = self.pace.map_or_else(clock::now, |pace| start + pace.first);
                while due - start < length && tally.complaint.is_none() {
                    let tenants = &self.asks.tenants;
                    self.request.aim(|| tenants.at(self.random.below(tenants.count())));
                    let came = self.call(clock::at(due).await, &mut tally).await?;
                    due = self.pace.map_or(came, |pace| due + pace.every);
                }
            }
        }
        Ok((self, tally))
    }

    /// Sends the request, reads the answer, and returns when it had come, which is also when the
    /// next one is sent: one reading of the clock per call.
    async fn call(
        &mut self,
        sent: Instant,
        tally: &mut Tally,
    ) -> Result<Instant, Box<dyn Error + Send + Sync>> {
        self.stream.write_all(self.request.bytes()).await?;
        let head = loop {
            let bytes = self.stream.read(self.reader.spare()).await?;
            if bytes == 0 {
                return Err("the server closed a connection".into());
            }
            self.reader.advance(bytes);
            if let Some(head) = self.reader.next()? {
                break head;
            }
        };
        let came = clock::now();
        tally.latencies.record(came - sent);
        let body = self.reader.body();
        if head.status != 200 {
            tally.refused += 1;
            tally.complaint = Some(format!("{}: {}", head.status, excerpt(body)));
            return Ok(came);
        }
        let whole = tally.answers.is_multiple_of(answer::READ_EVERY);
        tally.answers += 1;
        let Asks { call, tier, .. } = self.asks;
        tally.decisions += call.checks() as u64;
        tally.bytes += head.response_bytes() as u64;
        let read = match call {
            _ if whole => answer::read(body, call, tier, &self.asks.node)
                .map(|outcomes| tally.outcomes.add(outcomes)),
            Call::Peek | Call::Single => {
                answer::glance(body).map(|allowed| tally.outcomes.count(allowed))
            }
            Call::Batch(_) => Ok(()),
        };
        if let Err(error) = read {
            tally.complaint = Some(format!("{error}: {}", excerpt(body)));
        }
        Ok(came)
    }
}

impl Asks {
    /// What the connection with that index asks, to the server with that number of `servers`.
    fn new(plan: &Plan, index: u32, server: usize, servers: usize) -> Self {
        let (call, tier) = (plan.call, plan.tier);
        let (tenants, index, of) = match &plan.tenants[..] {
            [all] => (all.clone(), index, plan.connections),
            parts => {
                let (servers, first) = (servers as u32, server as u32);
                (
                    parts[server].clone(),
                    index / servers,
                    (plan.connections - first).div_ceil(servers),
                )
            }
        };
        Self { call, tier, tenants, node: node_name(server), index, of }
    }

    /// This connection's share of all tenants: every `of`-th, from its index on.
    fn walk(self) -> impl Iterator<Item = u32> {
        let Self { tenants, index, of, .. } = self;
        (index..tenants.count()).step_by(of.max(1) as usize).map(move |index| tenants.at(index))
    }
}

fn excerpt(body: &[u8]) -> String {
    let shown = &body[..body.len().min(COMPLAINT_BYTES_MAX)];
    String::from_utf8_lossy(shown).into_owned()
}

/// Marsaglia's xorshift with 64 bits of state (2003; shifts 13, 7, 17): a nanosecond a number, and
/// random enough to pick tenants.
#[derive(Clone, Debug)]
struct XorShift(u64);

impl XorShift {
    fn seeded(seed: u64) -> Self {
        // Neighbouring seeds must not start alike, and the state must not be zero.
        let mut random = Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 up to, not including, `bound`; 0 for a bound of 0.
    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests;
