//! Seeds: how many are run, how a single one is run again, and what follows from one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tidegate::random::Seed;

/// Runs `one`, a closure of the test, for the seeds 0 to `usual` and for `kept`, those that have
/// found something once; or for those that the environment asks for. Where one fails, says how to
/// run it again.
pub fn each_seed<F: Fn(u64)>(usual: u64, kept: &[u64], one: F) {
    let asked = |name: &str| std::env::var(name).ok();
    let number = |text: &str| text.parse::<u64>().expect("a seed is a number");
    let seeds: Vec<_> = match (asked("TIDEGATE_SIM_SEED"), asked("TIDEGATE_SIM_SEEDS")) {
        (Some(seed), _) => vec![number(&seed)],
        (None, Some(seeds)) => match seeds.split_once("..") {
            Some((from, to)) => (number(from)..number(to)).collect(),
            None => (0..number(&seeds)).collect(),
        },
        (None, None) => {
            (0..usual).chain(kept.iter().copied().filter(|seed| *seed >= usual)).collect()
        }
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| one(seed))) {
            let closure = std::any::type_name::<F>(); // program::file::test::{{closure}}
            let test = closure.trim_end_matches("::{{closure}}");
            let (program, test) = test.split_once("::").unwrap_or((test, ""));
            eprintln!("seed {seed} fails; to see it again:");
            eprintln!("    TIDEGATE_SIM_SEED={seed} cargo test --test {program} -- --exact {test}");
            resume_unwind(panic);
        }
    }
}

/// The seed of a node, in one of its lives.
pub fn node_seed(seed: u64, node: u64, life: u64) -> Seed {
    Seed::from_number(Seed::from_number(seed).fork("nodes", node << 32 | life).next_u64())
}
