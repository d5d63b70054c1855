//! Three whole nodes (door, Raft, placement, routing, shards) on a simulated network that breaks, asked over HTTP through any of
//! them.
//!
//! Whatever happens, nobody is admitted beyond a limit, a policy change that was answered is there in the end, and its versions only
//! rise. As long as no node dies, every tenant gets its limit to the unit: what was admitted, together with what nobody knows of
//! because its answer was lost, is no less. When the faults end, all nodes answer for every tenant again within seconds.

mod sim;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sim::{Fault, Nemesis, Plan, Simulated, SimulatedClock, SimulatedListener, Trace};
use tidegate::check::Name;
use tidegate::cluster::raft::{Medium, Place, Timers};
use tidegate::config::{Config, SeedNode};
use tidegate::node::{Node, Parts, Workers};
use tidegate::placement::Weight;
use tidegate::policy::Document;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NODES: usize = 3;
const HTTP: u16 = 7070;
const PEER: u16 = 7171;
/// What each tenant may do, and what all that come from one address may.
const LIMIT: u64 = 20;
const SHARED: u64 = 15;
const TENANTS: usize = 6;
const POLICY: &[u8] = br#"
    default_tier = "t"
    [tiers.t]
    limits = [{ name = "day", algorithm = "fixed_window", limit = 20, window = "1d" }]
    [tiers.open]
    [[limits]]
    name = "address"
    per = ["ip"]
    algorithm = "fixed_window"
    limit = 15
    window = "1d"
"#;

/// Faults come from the second to the last of these times.
const FAULTS_FROM: Duration = Duration::from_secs(3);
const FAULTS_END: Duration = Duration::from_secs(15);
/// How long it may take after that until every node answers for every tenant.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
/// How long a caller waits for an answer.
const WITHIN: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_millis(40);

#[derive(Default)]
struct Seen {
    lives: [u64; NODES],
    /// By tenant: admitted, and asked without an answer.
    tenants: BTreeMap<String, (u64, u64)>,
    shared: u64,
    /// Tenants that a change was answered for, and the version it made.
    written: BTreeMap<u64, String>,
    healed: bool,
    /// The faults are over, and everybody has answered for everything.
    done: bool,
}

#[derive(Clone, Default)]
struct Books {
    trace: Trace,
    seen: Arc<Mutex<Seen>>,
}

impl Books {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn check(&self, holds: bool, otherwise: impl Fn() -> String) {
        if !holds {
            self.trace.violation(otherwise());
        }
    }
}

fn name(node: usize) -> Name {
    Name::new(&format!("n{}", node + 1)).unwrap()
}

/// One life of one node.
async fn live(seed: u64, own: usize, medium: Medium, books: Books) -> turmoil::Result {
    let life = {
        let mut seen = books.seen();
        seen.lives[own] += 1;
        seen.lives[own]
    };
    books.trace.note(format_args!("n{} begins life {life}", own + 1));
    let mut config = Config::standalone();
    config.node = name(own);
    (config.limits.workers, config.limits.notice_ms) = (1, 0);
    let seeds = (0..NODES).map(|node| SeedNode {
        id: name(node),
        http: format!("n{}:{HTTP}", node + 1),
        peer: Some(format!("n{}:{PEER}", node + 1)),
        weight: Weight::ONE,
    });
    config.nodes = seeds.collect();
    let parts = Parts {
        config,
        listener: SimulatedListener::bind(HTTP).await?,
        peers: Some(SimulatedListener::bind(PEER).await?),
        network: Simulated,
        clock: Arc::new(SimulatedClock::up_for(Duration::from_secs(1_000 * (own as u64 + 1)))),
        seed: sim::node_seed(seed, own as u64 + 1, life),
        place: Place::Medium(medium.clone()),
        timers: Timers::default(),
        initial: Box::new(|| Document::from_toml(POLICY)),
        state_file: None,
        statistics_file: None,
        workers: Workers::Tasks,
    };
    let ended = match Node::start(parts).await {
        Ok(node) => node.run(std::future::pending()).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    // A node ends by itself only where its disk fails.
    books.check(medium.is_off(), || format!("n{} has ended: {ended:?}", own + 1));
    std::future::pending().await
}

/// One request on a connection of its own: status and body.
async fn request(node: usize, method: &str, path: &str, body: &str) -> io::Result<(u16, Value)> {
    let host = format!("n{}", node + 1);
    let asking = async {
        let mut stream = turmoil::net::TcpStream::connect((host.as_str(), HTTP)).await?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let unread = || io::Error::new(io::ErrorKind::InvalidData, "no answer");
        Ok((status.ok_or_else(unread)?, serde_json::from_str(body).unwrap_or(Value::Null)))
    };
    tokio::time::timeout(WITHIN, asking).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Asks about one tenant; whether it is known to be at its end.
async fn ask(books: &Books, node: usize, tenant: usize) -> bool {
    let id = format!("t{tenant}");
    let body = json!({"tenant": id, "deadline_ms": 1_000}).to_string();
    let answer = request(node, "POST", "/v1/check", &body).await;
    let said = match &answer {
        Ok((200, said)) => said["allowed"].as_bool(),
        _ => None,
    };
    let by = answer.as_ref().map_or(Value::Null, |(_, said)| said["node"].clone());
    books.trace.note(format_args!("{id} through n{}: {said:?} by {by}", node + 1));
    let mut seen = books.seen();
    let (admitted, unknown) = seen.tenants.entry(id.clone()).or_default();
    match said {
        Some(true) => *admitted += 1,
        Some(false) => {}
        None => *unknown += 1,
    }
    let admitted = *admitted;
    drop(seen);
    books.check(admitted <= LIMIT, || format!("{id} was admitted {admitted} times"));
    said == Some(false)
}

/// Asks as one of many tenants from one address.
async fn ask_shared(books: &Books, node: usize, i: usize) {
    let body = json!({"tenant": format!("s{}", i % 7), "tier": "open", "ip": "203.0.113.9"}).to_string();
    let allowed = match request(node, "POST", "/v1/check", &body).await {
        Ok((200, said)) => said["allowed"] == true,
        _ => false,
    };
    let mut seen = books.seen();
    seen.shared += u64::from(allowed);
    let shared = seen.shared;
    drop(seen);
    books.check(shared <= SHARED, || format!("the address was admitted {shared} times"));
}

/// Writes a tenant's rules.
async fn write(books: &Books, node: usize, i: usize) {
    let id = format!("w{i}");
    let answer = request(node, "PUT", &format!("/v1/tenants/{id}"), r#"{"tier":"open"}"#).await;
    let Ok((200, said)) = answer else { return };
    let version = said["version"].as_u64().unwrap();
    books.trace.note(format_args!("{id} through n{}: version {version}", node + 1));
    let other = books.seen().written.insert(version, id);
    books.check(other.is_none(), || format!("version {version} was made twice"));
}

/// Asks through all nodes in turn while there are faults, and then until everything is known.
async fn call(books: Books) -> turmoil::Result {
    for i in 0.. {
        if books.seen().healed {
            break;
        }
        ask(&books, i % NODES, i / 2 % TENANTS).await;
        if i % 3 == 0 {
            ask_shared(&books, i / 3 % NODES, i).await;
        }
        if i % 5 == 0 {
            write(&books, i / 5 % NODES, i).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    for node in 0..NODES {
        for tenant in 0..TENANTS {
            while !ask(&books, node, tenant).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    let written = books.seen().written.clone();
    for node in 0..NODES {
        let policy = loop {
            if let Ok((200, policy)) = request(node, "GET", "/v1/policy", "").await {
                break policy;
            }
            tokio::time::sleep(PAUSE).await;
        };
        for (version, id) in &written {
            let there = policy["tenants"].get(id).is_some();
            books.check(there, || format!("{id} of version {version} is not in force on n{}", node + 1));
        }
    }
    books.check(written.len() > 3, || format!("only {} changes were made", written.len()));
    books.seen().done = true;
    Ok(())
}

/// Runs a seed to its end; what happened. Without `deaths` no node dies.
fn run(seed: u64, deaths: bool) -> String {
    let _alone = sim::alone();
    let media: Vec<_> = (0..NODES).map(|_| Medium::default()).collect();
    let books = Books::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(FAULTS_END + HEALED_WITHIN * 2)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .repair_rate(0.1)
        .tcp_capacity(1_024)
        .build();
    for (node, medium) in media.iter().enumerate() {
        let (medium, books) = (medium.clone(), books.clone());
        sim.host(name(node).as_str(), move || live(seed, node, medium.clone(), books.clone()));
    }
    sim.client("caller", call(books.clone()));
    let hosts = (0..NODES).map(|node| name(node).to_string()).collect();
    let mut plan = Plan::of(seed, NODES, FAULTS_FROM, FAULTS_END);
    let dies = |fault: &Fault| matches!(fault, Fault::Kill(_) | Fault::CutPower { .. } | Fault::Start(_));
    plan.0.retain(|(_, fault)| deaths || !dies(fault));
    let mut nemesis = Nemesis::new(hosts, media, plan, books.trace.clone());
    let step = |sim: &mut turmoil::Sim<'_>, nemesis: &mut Nemesis| {
        nemesis.step(sim);
        if let Err(error) = sim.step() {
            books.trace.fail(&error.to_string());
        }
        books.trace.assert_sound();
    };
    while sim.elapsed() < FAULTS_END {
        step(&mut sim, &mut nemesis);
    }
    nemesis.heal(&mut sim);
    books.seen().healed = true;
    while !books.seen().done {
        if sim.elapsed() > FAULTS_END + HEALED_WITHIN {
            books.trace.fail("it doesn't heal");
        }
        step(&mut sim, &mut nemesis);
    }
    if !deaths {
        for (tenant, (admitted, unknown)) in &books.seen().tenants {
            let enough = admitted + unknown >= LIMIT;
            books
                .check(enough, || format!("{tenant} was admitted {admitted} times, {unknown} are not known"));
        }
    }
    books.trace.assert_sound();
    books.trace.text()
}

#[test]
fn while_no_node_dies_every_tenant_gets_exactly_its_limit_whatever_the_network_does() {
    let test = "while_no_node_dies_every_tenant_gets_exactly_its_limit_whatever_the_network_does";
    sim::each_seed(test, 4, |seed| drop(run(seed, false)));
}

#[test]
fn nobody_is_admitted_beyond_a_limit_and_no_policy_is_lost_though_nodes_die() {
    let test = "nobody_is_admitted_beyond_a_limit_and_no_policy_is_lost_though_nodes_die";
    sim::each_seed(test, 4, |seed| drop(run(seed, true)));
}

#[test]
fn the_same_seed_gives_the_same_run_line_by_line() {
    sim::each_seed("the_same_seed_gives_the_same_run_line_by_line", 1, |seed| {
        let (one, other) = (run(seed, true), run(seed, true));
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert!(one.len() == other.len() && one.lines().count() > 100, "seed {seed}");
    });
}
