//! What deciding costs without HTTP: each algorithm, the resolution of a policy, a decision inside
//! a shard, and the round trip to one, beside governor's keyed limiter on the same keys; and who
//! owns a partition, and planning that.
//!
//! Every figure is the thread's own processor time per operation, so that other processes disturb
//! little. Cases take turns (A B C A B C …) and the median of the rounds counts. What a case needs
//! is made before its clock starts. Keys are asked in an order that jumps over memory, or all the
//! same (`hot`): the first costs cache misses, the second arithmetic.

mod cases;
mod placement;
mod policies;

use std::error::Error;
use std::hint::black_box;

use clap::{Args, value_parser};

use crate::clock;
use crate::stats::median;

/// Times deciding alone
#[derive(Args)]
pub struct Settings {
    /// How often every case is measured
    #[arg(long, default_value_t = 7, value_parser = value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Tenants the checks spread over
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1..=10_000_000))]
    tenants: u32,
    /// Measure only cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// One thing that is timed.
struct Case {
    name: String,
    /// Operations in one turn.
    operations: u64,
    /// Does them, and answers with the nanoseconds of processor time that they took.
    turn: Box<dyn FnMut() -> u64>,
}

impl Case {
    fn new(
        name: impl Into<String>,
        operations: usize,
        turn: impl FnMut() -> u64 + 'static,
    ) -> Self {
        Self { name: name.into(), operations: operations as u64, turn: Box::new(turn) }
    }
}

/// Runs all cases and prints a table: nanoseconds per operation, and the ratio to governor's on the
/// same keys.
pub fn run(settings: &Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    if cfg!(debug_assertions) {
        eprintln!(
            "warning: this is a debug build; its figures say nothing (build with --profile dist)"
        );
    }
    let mut cases = cases::all(settings.tenants as usize)?;
    cases.extend(policies::all()?);
    cases.extend(placement::all()?);
    let wanted = |case: &Case| settings.only.as_ref().is_none_or(|text| case.name.contains(text));
    cases.retain(wanted);
    let mut took: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for round in 0..=settings.rounds {
        for (case, took) in cases.iter_mut().zip(&mut took) {
            let nanos = (case.turn)() as f64 / case.operations as f64;
            // The first round fills caches and memory.
            if round > 0 {
                took.push(nanos);
            }
        }
    }
    println!("{:<58} {:>12}", "case", "ns per op");
    for (case, took) in cases.iter().zip(took) {
        println!("{:<58} {:>12.1}", case.name, median(took).unwrap_or(f64::NAN));
    }
    println!(
        "\nMedians of {} rounds, thread CPU time, {} tenants.",
        settings.rounds, settings.tenants
    );
    Ok(())
}

/// Nanoseconds of this thread's processor time that `work` takes.
fn timed<T>(work: impl FnOnce() -> T) -> u64 {
    let before = clock::spent_by_thread();
    black_box(work());
    clock::spent_by_thread() - before
}
