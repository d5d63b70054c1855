//! Where nodes are when the log doesn't know it yet: told by the nodes themselves, as they meet.
//!
//! The log has each member's address, and a node that starts elsewhere has it changed
//! ([`Seating`](super::state::Seating)). That takes a leader and its majority, which may need just
//! that node; and a leader reaches a node only at an address that it knows.
//!
//! ```text
//! n3 was stopped, and starts at a new address     it dials n1, where it has always been
//! n3 -> n1     "I am at 10.0.0.9:7171"            n1 dials it there from now on, and raft goes on
//! n1 -> n3     "n2 is at 10.0.0.7:7171"           n2 moved while n3 was away: n3 dials it there too
//! n3           Seat(3, …, 10.0.0.9:7171)          committed: every member has the new address in its log
//! ```
//!
//! What is told is only tried beside what the log says: the handshake tells whether the right node
//! answers. An earlier version of the program doesn't know the question, and says so; it finds the
//! node once the log has the address.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::member::Member;
use super::state::{ADDRESS_BYTES_MAX, MEMBERS_MAX};
use crate::check::Name;
use crate::peer::{Ask, BootId, Kind, LinkState};
use crate::placement::NodeId;

/// How often a node looks whether it has met another one.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long another node is given to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// After how many looks all are told again while no leader is heard of: others may have moved
/// meanwhile.
const AGAIN_AFTER: u32 = 20;

/// Says where the node that asks is reached, and asks where the others are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhereaboutsAsk {
    /// Where other nodes reach it.
    pub peer: String,
}

impl Ask for WhereaboutsAsk {
    const KIND: Kind = Kind(Kind::RAFT.0 + 0x38);
    /// The members that the other node knows, and where it has them.
    type Answer = Vec<(NodeId, String)>;
}

impl Member {
    /// Takes note of where the node `from` is, and returns where this node has the others.
    pub fn hear_whereabouts(&self, from: &Name, ask: &WhereaboutsAsk) -> Vec<(NodeId, String)> {
        if is_address(&ask.peer) && self.links.is_at(from, &ask.peer) {
            tracing::info!(peer = %from, address = ask.peer, "a peer is at a new address");
        }
        let mut known = self.links.addresses();
        known.truncate(MEMBERS_MAX);
        known
    }

    /// Tells each node that it meets where it is, and hears where the others are.
    pub(super) async fn meet(&self) {
        if self.own.peer.is_empty() {
            return;
        }
        let mut met: BTreeMap<NodeId, (u64, BootId)> = BTreeMap::new();
        let mut ticker = tokio::time::interval(LOOK_EVERY);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 1u32.. {
            ticker.tick().await;
            if turn.is_multiple_of(AGAIN_AFTER) && !self.has_quorum() {
                met.clear();
            }
            let up = self.links.states().into_iter().filter_map(|state| match state.raft {
                LinkState::Connected { since, boot, .. } => Some((state.number, (since, boot))),
                LinkState::Connecting { .. } => None,
            });
            let up: BTreeMap<_, _> = up.collect();
            let news: Vec<_> = up
                .iter()
                .filter(|(id, life)| met.get(id) != Some(life))
                .map(|(id, _)| *id)
                .collect();
            futures_util::future::join_all(news.into_iter().map(|id| self.tell_whereabouts(id)))
                .await;
            met = up;
        }
    }

    async fn tell_whereabouts(&self, to: NodeId) {
        let Some(peer) = self.links.peer(to) else { return };
        let ask = WhereaboutsAsk { peer: self.own.peer.clone() };
        // A node that doesn't answer is told again when it is met again, or no leader is heard of.
        let Ok(known) = peer.raft().ask(&ask, ANSWER_WITHIN).await else { return };
        for (id, address) in
            known.into_iter().take(MEMBERS_MAX).filter(|(_, address)| is_address(address))
        {
            self.links.is_said_to_be_at(id, &address);
        }
    }
}

fn is_address(text: &str) -> bool {
    (1..=ADDRESS_BYTES_MAX).contains(&text.len())
}
