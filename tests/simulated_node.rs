//! The same node that runs on sockets and threads runs on a simulated network, with one worker, a clock that the test holds
//! and a seed: what a seeded simulation of a cluster stands on.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate::clock::{ManualClock, Now, SECOND};
use tidegate::cluster::{LocalStore, Where};
use tidegate::config::Config;
use tidegate::http::server::{Carried, Listen};
use tidegate::node::{self, Parts, Workers};
use tidegate::random::Seed;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

struct Simulated(turmoil::net::TcpListener);

struct Stream(turmoil::net::TcpStream);

impl Listen for Simulated {
    type Stream = Stream;
    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Stream(stream), peer))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Carried for Stream {
    type Parcel = Self;
    fn pack(self) -> io::Result<Self> {
        Ok(self)
    }
    fn unpack(parcel: Self) -> io::Result<Self> {
        Ok(parcel)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// One request on a connection of its own; the body of the answer.
async fn ask(body: &str) -> io::Result<String> {
    let mut stream = turmoil::net::TcpStream::connect(("node", 7070)).await?;
    let head = format!(
        "POST /v1/check HTTP/1.1\r\nhost: node\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_string())
}

/// Twelve checks of a bucket of ten, each with a permit so that chance shows in the answers; one more half a second later.
fn run_seed(seed: u64) -> Vec<String> {
    let clock = ManualClock::at(Now { boot: 10 * SECOND, wall: 1_000_000 * SECOND });
    let answers = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut sim = turmoil::Builder::new().rng_seed(seed).simulation_duration(Duration::from_secs(60)).build();
    let node_clock = clock.clone();
    sim.host("node", move || {
        let clock = node_clock.clone();
        async move {
            let listener = Simulated(turmoil::net::TcpListener::bind(("0.0.0.0", 7070)).await?);
            let seed = Seed::from_number(seed);
            let store = LocalStore::open(Where::Memory, None, &seed, || Ok(tidegate::policy::builtin()))?;
            let mut config = Config::standalone();
            config.limits.workers = 1;
            let parts = Parts {
                config,
                listener,
                clock: Arc::new(clock),
                seed,
                store,
                state_file: None,
                statistics_file: None,
                workers: Workers::Tasks,
            };
            node::run(parts, std::future::pending()).await?;
            Ok(())
        }
    });
    let said = answers.clone();
    sim.client("caller", async move {
        for _ in 0..12 {
            let answer = ask(r#"{"tenant":"acme","permit":{"ttl_ms":60000}}"#).await?;
            said.lock().unwrap().push(answer);
        }
        clock.advance(SECOND / 2);
        let answer = ask(r#"{"tenant":"acme"}"#).await?;
        said.lock().unwrap().push(answer);
        Ok(())
    });
    sim.run().unwrap();
    answers.lock().unwrap().clone()
}

#[test]
fn a_simulated_node_decides_by_the_clock_it_is_given() {
    let allowed: Vec<_> = run_seed(7).iter().map(|answer| answer.contains("\"allowed\":true")).collect();
    assert_eq!(allowed[..12], [[true; 10].as_slice(), &[false; 2]].concat());
    // Half a second at 5/s is two and a half tokens.
    assert!(allowed[12]);
}

#[test]
fn the_same_seed_gives_the_same_answers_to_the_last_byte() {
    assert_eq!(run_seed(11), run_seed(11));
    assert_ne!(run_seed(11), run_seed(12));
}
