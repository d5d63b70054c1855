//! What the nodes agree on: the policy and its version, who the members are, who owns which
//! partition, and the secret under which keys are hashed.
//!
//! `state` is all that and how an entry of the log changes it, pure; `raft` is the log. `claim`
//! says who a node is, `links` are the ways to the other members, `readiness` says when this node
//! may be asked, `settings` are the values that operators set for all nodes, `handoff` moves
//! partitions between them, `member` is this node's part: it proposes, and puts what was agreed on
//! into force (`in_force`), which is what shards and routing go by. `lost` makes sure that nobody
//! begins anew whose data is lost, `admin` takes orders about the members, `reconcile` carries them
//! out on the leader, and `voters` says who should vote; `peer_keys` are the keys by which nodes
//! know each other; nodes tell each other in `whereabouts` where they are when the log doesn't know
//! it yet. `anew` recovers a cluster from one node that is left, or from a back-up, which `backup`
//! reads and writes. The door sees the cluster through three traits: [`PolicyStore`],
//! [`Membership`], and [`backup::BackUp`].

mod acquaintances;
mod admin;
pub mod anew;
pub mod backup;
pub mod claim;
#[cfg(test)]
mod golden;
pub mod handoff;
mod in_force;
pub mod links;
mod lost;
mod member;
pub mod peer_keys;
mod policy_store;
mod quorum;
pub mod raft;
mod readiness;
mod reconcile;
mod settings;
mod status;
mod whereabouts;

pub use crate::peer::{Lineage, RECOVERIES_MAX};
pub use admin::{Administering, Denied, Granted, Order, OrderAsk, RelayAsk};
pub use in_force::InForce;
pub use lost::{Known, KnownAsk, Newcomer};
pub use member::{InForceAsk, Initial, Member, MemberArgs, MemberError, SeedNode};
pub use policy_store::{
    AuditEntry, Noting, PastVersion, PolicyStore, Proposal, Wanted, WriteError, Writing, Written,
};
pub use quorum::RoundTrip;
pub use readiness::{Purpose, Readiness};
pub use settings::{SetOutcome, SettingChange, SettingsStatus};
pub use status::{
    BreakerStatus, ClusterStatus, Looking, Membership, MovesStatus, NodeState, NodeStatus,
    SettingLater,
};
pub use tidegate_core::{membership, state};
pub use whereabouts::WhereaboutsAsk;
