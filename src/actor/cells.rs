//! What every shard of a node goes by: the policy and the placement that are active.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::placement::Places;
use crate::policy::Policy;

/// The active policy, read by every shard as it starts a batch. What is stored here before an
/// answer is given is active for every check that is asked after that answer.
pub struct PolicyCell(ArcSwap<Policy>);

impl PolicyCell {
    /// Returns a cell that holds `policy`.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self(ArcSwap::new(policy))
    }

    /// Returns the active policy.
    pub fn load(&self) -> arc_swap::Guard<Arc<Policy>> {
        self.0.load()
    }

    /// Activates `policy`.
    pub fn store(&self, policy: Arc<Policy>) {
        self.0.store(policy);
    }
}

/// The active placement, as this node sees it; read by every shard as it starts a batch, and by the
/// router for each check.
pub struct PlacesCell(ArcSwap<Places>);

impl PlacesCell {
    /// Returns a cell that holds `places`.
    pub fn new(places: Places) -> Self {
        Self(ArcSwap::from_pointee(places))
    }

    /// Returns the active placement.
    pub fn load(&self) -> arc_swap::Guard<Arc<Places>> {
        self.0.load()
    }

    /// Activates `places`.
    pub fn store(&self, places: Places) {
        self.0.store(Arc::new(places));
    }
}
