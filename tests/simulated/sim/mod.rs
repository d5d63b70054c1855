//! What simulations stand on: turmoil's network under the seam that real nodes use, its time behind
//! their clock, faults as plain data that a seed yields, a trace that two runs of a seed can be
//! compared by.
//!
//! A simulation runs on one thread. Whatever happens in it follows from its seed: the network's
//! delays from turmoil's generator, the nodes' choices from theirs ([`node_seed`]), the faults from
//! the plan. So a failing seed fails again, alone:
//!
//! ```text
//! TIDEGATE_SIM_SEED=17 cargo test --test simulated -- NAME       seed 17 of the test NAME
//! TIDEGATE_SIM_SEEDS=1000 cargo test --test simulated -- raft::  seeds 0 to 999
//! TIDEGATE_SIM_SEEDS=1000..2000 …                                the next thousand
//! TIDEGATE_SIM_LOG=tidegate=debug …                              what the nodes log, too
//! TIDEGATE_SIM_LINES=100000 …                                    a failing seed's whole trace
//! TIDEGATE_SIM_DIGEST=1 … -- --nocapture                         a digest of each trace
//! ```

mod alone;
mod clock;
mod faults;
mod net;
mod seeds;
mod trace;

pub use alone::alone;
pub use clock::SimulatedClock;
pub use faults::{Fault, Nemesis, Plan, between};
pub use net::{Simulated, SimulatedListener};
pub use seeds::{each_seed, node_seed};
pub use trace::Trace;
