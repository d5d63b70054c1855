//! One simulation at a time, and each from the same beginning.
//!
//! Tokio numbers tasks through the whole process and keeps them in four lists by their numbers;
//! when a host crashes, its tasks are dropped list by list, and their connections end in that
//! order. So that a seed is the same run whatever was run before it, a simulation begins at a
//! multiple of [`TURN`], and nobody else takes numbers meanwhile.
//!
//! What the nodes of the simulation log is shown where the environment asks for it, with the
//! simulation's time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// A multiple of the number of lists that a runtime of one thread has, with room for it to grow.
const TURN: u64 = 64;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// As long as it is held, no other simulation of this process runs.
pub struct Alone {
    _turn: MutexGuard<'static, ()>,
    _logs: Option<DefaultGuard>,
}

/// Waits until no other simulation of this process runs, and keeps others from running.
pub fn alone() -> Alone {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let number = |runtime: &tokio::runtime::Runtime| {
        let id = runtime.spawn(std::future::ready(())).id().to_string();
        id.parse::<u64>().expect("a task's id is a number")
    };
    while number(&runtime) % TURN != 0 {}
    Alone { _turn: turn, _logs: logs() }
}

/// A simulation is one thread, and so are its logs.
fn logs() -> Option<DefaultGuard> {
    let filter = EnvFilter::new(std::env::var("TIDEGATE_SIM_LOG").ok()?);
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_timer(SimulatedTime);
    Some(tracing::subscriber::set_default(logs.with_writer(std::io::stderr).finish()))
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        let time = turmoil::sim_elapsed().unwrap_or_default();
        write!(to, "{:>10.3} s ", time.as_secs_f64())
    }
}
