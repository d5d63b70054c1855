//! Who is in the cluster, who votes, and what moves: decisions about members, without doing any of
//! it.
//!
//! `roster` is what Raft's records say; [`wanted_voters`] says who should vote; the [`Reconciler`]
//! decides the leader's next step; [`orders`] says which orders of administrators are carried out;
//! [`next_moves`] says which partitions move; [`handoff`] is what the source of a move does.

pub mod handoff;
pub mod orders;
mod rebalance;
mod reconciler;
mod roster;
mod voters;

pub use rebalance::{Flow, MOVES_AT_ONCE, flows, next_moves};
pub use reconciler::{
    Facts, GIVEN_UP_AFTER, Reconciler, SILENT_AFTER, STEADY_AFTER, Step, is_going,
};
pub use roster::{Address, Following, Roster};
pub use voters::{Standing, initial_voters, needs_vote_of, wanted_voters};
