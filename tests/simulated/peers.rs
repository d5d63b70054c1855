//! Links on a simulated network: a partition fails the calls on the way within their deadlines, and
//! its end brings the link back without anybody's help.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidegate::check::Name;
use tidegate::clock::ManualClock;
use tidegate::net::{self, Network};
use tidegate::peer::{
    self, BootId, Call, CallError, Class, Failure, Handler, Hello, Identity, Kind, Lineage,
    LinkArgs, LinkState, Opaque, VERSIONS, link,
};
use tidegate::random::Seed;

use crate::sim;

const PORT: u16 = 7171;

struct Echo;

impl Handler for Echo {
    fn admits(&self, hello: &Hello) -> bool {
        hello.who.node.as_str() == "n1"
    }
    async fn handle(&self, call: Call) -> Result<Opaque, Failure> {
        Ok(call.request)
    }
}

/// Serves on the host that calls, which is n2, with one worker.
async fn serve_echo() -> io::Result<()> {
    let listener = sim::SimulatedListener::bind(PORT).await?;
    let (workers, mut parcels) = net::handover(1);
    let (_stop, never) = tidegate::watch::channel(false);
    let clock = Arc::new(ManualClock::default());
    let serving = peer::serve(
        parcels.remove(0),
        identity("n2"),
        Arc::new(Echo),
        Default::default(),
        clock,
        never.clone(),
    );
    tokio::join!(peer::accept(listener, workers, never), serving);
    Ok(())
}

fn identity(node: &str) -> Identity {
    let name = |text| Name::new(text).unwrap();
    Identity {
        cluster: name("demo"),
        node: name(node),
        boot: BootId(1),
        versions: VERSIONS,
        lineage: Lineage::default(),
        level: tidegate::placement::FormatLevel::OWN,
    }
}

/// Whether a caller on n1 is answered, call after call, where the network between n1 and n2 is
/// whole; between the rounds it is cut for a while.
fn run_seed(seed: u64, rounds: usize) -> Vec<bool> {
    let _alone = sim::alone();
    let (seen, trace) = (Arc::new(std::sync::Mutex::new(Vec::new())), sim::Trace::default());
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(120))
        .build();
    sim.host("n2", || async { Ok(serve_echo().await?) });
    let (says, noted) = (seen.clone(), trace.clone());
    sim.client("n1", async move {
        let (link, driver) = link(LinkArgs {
            us: identity("n1"),
            guard: Default::default(),
            peer: Name::new("n2").unwrap(),
            class: Class::Checks,
            dial: sim::Simulated.dial("n2:7171").unwrap(),
            clock: Arc::new(ManualClock::default()),
            chance: Seed::from_number(seed).fork("links", 0),
            breaker: None,
        });
        tokio::spawn(driver);
        let ask = |text: String| {
            let (link, noted) = (link.clone(), noted.clone());
            async move {
                let request = Opaque { kind: Kind(1), bytes: text.into() };
                let answer = link.call(request.clone(), Duration::from_millis(500)).await;
                assert!(answer.as_ref().map_or(true, |answer| *answer == request));
                noted.note(format_args!("{answer:?}"));
                answer
            }
        };
        for round in 0..rounds {
            link.connected().await;
            for i in 0..20 {
                let answer = ask(format!("{round}.{i}")).await;
                says.lock().unwrap().push(answer.is_ok());
            }
            turmoil::partition("n1", "n2");
            let error = ask("cut off".into()).await.unwrap_err();
            assert!(matches!(error, CallError::DeadlinePassed(_)), "{error}");
            // The link itself notices, and then says so at once.
            let mut states = link.states();
            let down = states.wait_for(|state| matches!(state, LinkState::Connecting { .. }));
            tokio::time::timeout(Class::Checks.silence_max() * 3 / 2, down).await??;
            assert!(matches!(ask("down".into()).await, Err(CallError::NotConnected(_))));
            tokio::time::sleep(Duration::from_secs(5)).await;
            turmoil::repair("n1", "n2");
            // A dial that was on its way may have to time out first; then come a back-off and a
            // handshake.
            tokio::time::timeout(Duration::from_secs(4), link.connected()).await?;
            let answer = ask(format!("{round} back")).await;
            says.lock().unwrap().push(answer.is_ok());
        }
        Ok(())
    });
    sim.run().unwrap();
    trace.end();
    seen.lock().unwrap().clone()
}

#[test]
fn a_link_outlives_partitions() {
    for seed in 0..5 {
        let seen = run_seed(seed, 3);
        assert_eq!(seen.len(), 63);
        assert!(seen.iter().all(|answered| *answered), "seed {seed}: {seen:?}");
    }
}

#[test]
fn a_peer_that_crashes_and_comes_back_is_found_again() {
    let _alone = sim::alone();
    let mut sim =
        turmoil::Builder::new().rng_seed(1).simulation_duration(Duration::from_secs(60)).build();
    sim.host("n2", || async { Ok(serve_echo().await?) });
    let (calls, trace) = (Arc::new(std::sync::Mutex::new(Vec::new())), sim::Trace::default());
    let (made, noted) = (calls.clone(), trace.clone());
    sim.client("n1", async move {
        let (link, driver) = link(LinkArgs {
            us: identity("n1"),
            guard: Default::default(),
            peer: Name::new("n2").unwrap(),
            class: Class::Raft,
            dial: sim::Simulated.dial("n2:7171").unwrap(),
            clock: Arc::new(ManualClock::default()),
            chance: Seed::from_number(1).fork("links", 0),
            breaker: None,
        });
        tokio::spawn(driver);
        link.connected().await;
        for _ in 0..100 {
            let request = Opaque { kind: Kind(1), bytes: "x".into() };
            let answer = link.call(request, Duration::from_millis(500)).await;
            noted.note(format_args!("{answer:?}"));
            made.lock().unwrap().push(answer.is_ok());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    });
    let mut crashed = false;
    while !sim.step().unwrap() {
        let so_far = calls.lock().unwrap().len();
        if so_far >= 20 && !crashed {
            crashed = true;
            sim.crash("n2");
        } else if so_far >= 40 && crashed && !sim.is_host_running("n2") {
            sim.bounce("n2");
        }
    }
    trace.end();
    let calls = calls.lock().unwrap();
    assert!(calls[..20].iter().all(|good| *good), "{calls:?}");
    assert!(calls[21..40].iter().all(|good| !good), "{calls:?}");
    assert!(calls[60..].iter().all(|good| *good), "{calls:?}");
}
