//! The peers that are connected to this node, seen from the end that was dialled.
//!
//! A link says whether this node can dial a peer; this says whether the peer can dial this node.
//! Where the two differ for longer than a restart takes, one direction between two nodes is broken:
//! a firewall, a wrong advertised address, a certificate that one end refuses.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::check::Name;
use crate::clock::SECOND;
use crate::peer::LinkState;

/// How long both ends have to differ before it counts, in nanoseconds: longer than both need to
/// notice a peer that is gone.
const DIFFERS_AFTER: u64 = 5 * SECOND;
/// Names that are remembered: as many as a cluster has members.
const NAMES_MAX: usize = 256;

/// See the module. Counts connections for checks alone.
#[derive(Debug, Default)]
pub(super) struct Inbound(Mutex<BTreeMap<Name, Side>>);

/// One peer's connections to this node.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    connections: usize,
    /// Boot time at which the first of them came or the last of them ended.
    since: u64,
}

impl Inbound {
    /// A connection of `peer` was accepted at boot time `now`.
    pub fn connected(&self, peer: &Name, now: u64) {
        let mut sides = self.sides();
        if sides.len() >= NAMES_MAX && !sides.contains_key(peer) {
            sides.retain(|_, side| side.connections > 0);
        }
        let side = sides.entry(peer.clone()).or_default();
        side.connections += 1;
        if side.connections == 1 {
            side.since = now;
        }
    }

    /// A connection of `peer` has ended at boot time `now`.
    pub fn disconnected(&self, peer: &Name, now: u64) {
        if let Some(side) = self.sides().get_mut(peer) {
            side.connections = side.connections.saturating_sub(1);
            if side.connections == 0 {
                side.since = now;
            }
        }
    }

    /// Whether `peer` has been connected to this node for a while.
    pub fn is_up(&self, peer: &Name, now: u64) -> bool {
        let side = self.sides().get(peer).copied().unwrap_or_default();
        side.connections > 0 && now.saturating_sub(side.since) >= DIFFERS_AFTER
    }

    /// Whether `peer` has not been connected to this node for a while.
    pub fn is_down(&self, peer: &Name, now: u64) -> bool {
        let side = self.sides().get(peer).copied().unwrap_or_default();
        side.connections == 0 && now.saturating_sub(side.since) >= DIFFERS_AFTER
    }

    fn sides(&self) -> MutexGuard<'_, BTreeMap<Name, Side>> {
        // Whole between any two statements: a panic while the lock was held left it so.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a peer could not be dialled for a while; none where it can, or where that is new.
pub(super) fn undialled(state: &LinkState, now: u64) -> Option<String> {
    match state {
        LinkState::Connecting { since, why, .. } if now.saturating_sub(*since) >= DIFFERS_AFTER => {
            Some(why.clone().unwrap_or_else(|| "dialling it does not end".into()))
        }
        _ => None,
    }
}

/// Whether a link has been connected for a while.
pub(super) fn is_steady(state: &LinkState, now: u64) -> bool {
    matches!(state, LinkState::Connected { since, .. } if now.saturating_sub(*since) >= DIFFERS_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_up_or_down_only_after_it_has_been_so_for_a_while() {
        let (inbound, n2) = (Inbound::default(), Name::new("n2").unwrap());
        let then = |seconds: u64| 100 * SECOND + seconds * SECOND;
        inbound.connected(&n2, then(0));
        assert!(!inbound.is_up(&n2, then(4)) && inbound.is_up(&n2, then(5)));
        // A second connection, while the first is not known to be gone, changes nothing.
        inbound.connected(&n2, then(6));
        inbound.disconnected(&n2, then(7));
        assert!(inbound.is_up(&n2, then(8)));
        inbound.disconnected(&n2, then(9));
        assert!(!inbound.is_up(&n2, then(20)) && !inbound.is_down(&n2, then(13)));
        assert!(inbound.is_down(&n2, then(14)));
    }
}
