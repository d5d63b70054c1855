//! Seeds: how many are run, how a single one is run again, and what follows from one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tidegate::random::Seed;

/// Runs `one` for the seeds 0 to `usual`, or for those that the environment asks for. Where one fails, says how to run it
/// again.
pub fn each_seed(test: &str, usual: u64, one: impl Fn(u64)) {
    let asked = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match asked("TIDEGATE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("TIDEGATE_SIM_SEEDS").unwrap_or(usual),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| one(seed))) {
            let file = env!("CARGO_CRATE_NAME");
            eprintln!("seed {seed} fails; to see it again:");
            eprintln!("    TIDEGATE_SIM_SEED={seed} cargo test --test {file} -- --exact {test}");
            resume_unwind(panic);
        }
    }
}

/// The seed of a node, in one of its lives.
pub fn node_seed(seed: u64, node: u64, life: u64) -> Seed {
    Seed::from_number(Seed::from_number(seed).fork("nodes", node << 32 | life).next_u64())
}
