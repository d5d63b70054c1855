//! What this node goes by: the policy and the placement in force, and the secret of the hashes.
//!
//! The cluster writes it as the log is applied; shards and routing read it, without a lock, for
//! every check. Whoever finds it older than what another node goes by waits here until it isn't.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::actor::{PlacesCell, PolicyCell};
use crate::placement::{Places, Seat, Secret};
use crate::policy::Policy;
use crate::watch;

/// See the module.
pub struct InForce {
    policy: Arc<PolicyCell>,
    places: Arc<PlacesCell>,
    secret: OnceLock<Secret>,
    /// What this node lacks before its first answer, in words; none once it has started.
    missing: ArcSwapOption<String>,
    changes: watch::Sender<()>,
}

impl InForce {
    /// Nothing is agreed on yet: `me` owns nothing, and goes by `policy` once anything is decided,
    /// which it isn't.
    pub fn new(me: Seat, policy: Policy) -> Self {
        Self {
            policy: Arc::new(PolicyCell::new(Arc::new(policy))),
            places: Arc::new(PlacesCell::new(Places::unplaced(me))),
            secret: OnceLock::new(),
            missing: ArcSwapOption::empty(),
            changes: watch::Sender::new(()),
        }
    }

    /// The policy in force; also for shards to hold.
    pub fn policy(&self) -> &Arc<PolicyCell> {
        &self.policy
    }

    /// The placement in force; also for shards to hold.
    pub fn places(&self) -> &Arc<PlacesCell> {
        &self.places
    }

    /// The key of every hash that outsiders can feed; none before the cluster has begun.
    pub fn secret(&self) -> Option<Secret> {
        self.secret.get().copied()
    }

    /// Takes the secret, the first time; it never changes.
    pub fn begin(&self, secret: Secret) {
        let _ = self.secret.set(secret);
    }

    /// Notes what this node lacks before its first answer.
    pub fn say_missing(&self, missing: Option<String>) {
        let is_new = self.missing.load().as_deref() != missing.as_ref();
        if is_new {
            self.missing.store(missing.map(Arc::new));
        }
    }

    /// What this node lacks before its first answer, in words; none once it has started.
    pub fn missing(&self) -> Option<Arc<String>> {
        self.missing.load_full()
    }

    /// Says that something has changed.
    pub fn announce(&self) {
        self.changes.send_replace(());
    }

    /// Changes from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Waits until this node goes by something that fits. Who waits bounds it.
    pub async fn until(&self, fits: impl Fn(&Self) -> bool) {
        let mut changes = self.changes();
        while !fits(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the log names this incarnation as the owner of all that is placed on this node.
    pub fn is_registered(&self) -> bool {
        let places = self.places.load();
        // A member that is placed to own nothing is registered once it is known, which its cluster
        // says with the first table.
        places.version().0 > 0
            && places.table().owned_by(places.me().node).all(|p| places.is_here(p))
    }
}
