//! Three nodes whose Raft goes over links, on a simulated network that breaks, with disks that
//! outlive the nodes and lose power in the middle of a write.
//!
//! While faults come and go, a client on each node proposes commands. Whatever happens: a command
//! that was answered as done is in the log for good, one that was answered as not done never is,
//! versions rise with every command and never otherwise, within a term leaders' numbers only rise,
//! and nodes that have applied the same entries have the same state, to the byte. When the faults
//! end, all nodes are expected to agree again, and to do what they are asked, within seconds.

mod books;
mod directors;
mod life;

use std::sync::Arc;
use std::time::Duration;

use tidegate::cluster::raft::Medium;

use self::books::Books;
use self::directors::{Director, LostVotes, SlowLeaders};
use self::life::{live, name};
use crate::sim::{self, Nemesis, Plan, Trace};

const NODES: usize = 3;
const PORT: u16 = 7171;
const DOCUMENT: &str = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#;

/// Faults come from the second to the last of these times.
const FAULTS_FROM: Duration = Duration::from_secs(2);
const FAULTS_END: Duration = Duration::from_secs(32);
/// How long it may take after that until all agree. A link for bulk notices within some twelve
/// seconds that it leads nowhere and dials within two more; then a node gets the snapshot that it
/// needs.
const HEALED_WITHIN: Duration = Duration::from_secs(15);
/// How long a client waits for the answer to a command.
const WITHIN: Duration = Duration::from_secs(2);
/// Between two commands of a client, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..300;
/// How often a node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs a seed to its end; what happened.
fn run(seed: u64) -> String {
    run_with(seed, Plan::of(seed, NODES, FAULTS_FROM, FAULTS_END), None)
}

/// The same with these faults, and those of a director.
fn run_with(seed: u64, plan: Plan, mut director: Option<&mut dyn Director>) -> String {
    let _alone = sim::alone();
    let media: Vec<_> = (0..NODES).map(|_| Medium::default()).collect();
    let books = Books { trace: Trace::default(), seen: Arc::default() };
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .repair_rate(0.1)
        .tcp_capacity(1_024)
        .build();
    for (node, medium) in media.iter().enumerate() {
        let (medium, books) = (medium.clone(), books.clone());
        sim.host(name(node).as_str(), move || live(seed, node, medium.clone(), books.clone()));
    }
    let hosts = (0..NODES).map(|node| name(node).to_string()).collect();
    let mut nemesis = Nemesis::new(hosts, media, plan, books.trace.clone());
    let step = |sim: &mut turmoil::Sim<'_>, nemesis: &mut Nemesis| {
        nemesis.step(sim);
        if let Err(error) = sim.step() {
            books.trace.fail(&error.to_string());
        }
        books.trace.assert_sound();
    };
    while sim.elapsed() < FAULTS_END {
        if let Some(fault) =
            director.as_mut().and_then(|director| director.next(sim.elapsed(), &books))
        {
            nemesis.make(&mut sim, fault);
        }
        step(&mut sim, &mut nemesis);
    }
    books.seen().armed = false;
    nemesis.heal(&mut sim);
    books.seen().healed = true;
    while !books.is_whole() {
        if sim.elapsed() > FAULTS_END + HEALED_WITHIN {
            books.trace.fail("it doesn't heal");
        }
        step(&mut sim, &mut nemesis);
    }
    books.judge();
    let shown = director.is_none_or(|director| director.has_shown());
    books.check(shown, || {
        "what the director is about hardly ever happened: this shows nothing".into()
    });
    books.trace.end()
}

#[test]
fn what_was_agreed_on_stays_whatever_breaks() {
    sim::each_seed(8, &[], |seed| drop(run(seed)));
}

#[test]
fn a_vote_that_was_given_is_not_given_again_though_the_power_fails_right_after_it() {
    sim::each_seed(3, &[], |seed| {
        drop(run_with(seed, Plan(Vec::new()), Some(&mut LostVotes::new(seed))));
    });
}

#[test]
fn while_a_leaders_links_are_slow_commands_go_on_within_5_s() {
    sim::each_seed(3, &[], |seed| {
        drop(run_with(seed, Plan(Vec::new()), Some(&mut SlowLeaders::new(seed))));
    });
}

#[test]
fn the_same_seed_gives_the_same_run_line_by_line() {
    sim::each_seed(2, &[], |seed| {
        let (one, other) = (run(seed), run(seed));
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert!(one.len() == other.len() && one.lines().count() > 200, "seed {seed}");
    });
}
