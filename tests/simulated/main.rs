//! Simulations, and nothing else: tasks are numbered through the whole process, and a seed replays
//! only where no test takes numbers outside of its turn ([`sim::alone`]).

mod sim;

mod cluster;
mod node;
mod peers;
mod raft;
