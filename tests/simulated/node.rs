//! The same node that runs on sockets and threads runs on a simulated network, with one worker, a
//! clock that the test holds and a seed: what a seeded simulation of a cluster stands on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::{ManualClock, Now, SECOND};
use tidegate::cluster::Newcomer;
use tidegate::cluster::raft::Place;
use tidegate::config::Config;
use tidegate::node::{Node, Parts, Workers};
use tidegate::random::Seed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sim;

/// One request on a connection of its own; the body of the answer.
async fn ask(body: &str) -> io::Result<String> {
    let mut stream = turmoil::net::TcpStream::connect(("node", 7070)).await?;
    let head = format!(
        "POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_string())
}

/// Twelve checks of a bucket of ten, each with a permit so that chance shows in the answers; one
/// more half a second later.
fn run_seed(seed: u64) -> Vec<String> {
    let _alone = sim::alone();
    let clock = ManualClock::at(Now { boot: 10 * SECOND, wall: 1_000_000 * SECOND });
    let (answers, trace) = (Arc::new(std::sync::Mutex::new(Vec::new())), sim::Trace::default());
    let mut sim =
        turmoil::Builder::new().rng_seed(seed).simulation_duration(Duration::from_secs(60)).build();
    let node_clock = clock.clone();
    sim.host("node", move || {
        let clock = node_clock.clone();
        async move {
            let seed = Seed::from_number(seed);
            let mut config = Config::standalone();
            config.limits.workers = 1;
            let node = Node::start(Parts {
                config,
                listener: sim::SimulatedListener::bind(7070).await?,
                peers: None::<sim::SimulatedListener>,
                network: sim::Simulated,
                clock: Arc::new(clock),
                seed,
                place: Place::Memory,
                initial: Box::new(|| Ok(tidegate::policy::builtin())),
                newcomer: Newcomer::default(),
                peer_keys: Default::default(),
                state_file: None,
                statistics_file: None,
                workers: Workers::Tasks,
            });
            node.await?.run(std::future::pending()).await?;
            Ok(())
        }
    });
    let (said, noted) = (answers.clone(), trace.clone());
    sim.client("caller", async move {
        let say = |answer: String| {
            noted.note(&answer);
            said.lock().unwrap().push(answer);
        };
        // Until its log says that it is there, a node decides nothing.
        while !ask(r#"{"tenant":"first"}"#).await?.contains("\"allowed\":true") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..12 {
            let answer = ask(r#"{"tenant":"acme","permit":{"ttl_ms":60000}}"#).await?;
            say(answer);
        }
        clock.advance(SECOND / 2);
        let answer = ask(r#"{"tenant":"acme"}"#).await?;
        say(answer);
        Ok(())
    });
    sim.run().unwrap();
    trace.end();
    answers.lock().unwrap().clone()
}

#[test]
fn a_simulated_node_decides_by_the_clock_it_is_given() {
    let allowed: Vec<_> =
        run_seed(7).iter().map(|answer| answer.contains("\"allowed\":true")).collect();
    assert_eq!(allowed[..12], [[true; 10].as_slice(), &[false; 2]].concat());
    // Half a second at 5/s is two and a half tokens.
    assert!(allowed[12]);
}

#[test]
fn the_same_seed_gives_the_same_answers_to_the_last_byte() {
    assert_eq!(run_seed(11), run_seed(11));
    assert_ne!(run_seed(11), run_seed(12));
}
