//! Whether a node may be asked: what it needs once, before its first answer, and what it needs at
//! every moment after that.
//!
//! ```text
//! start   the cluster has formed, the log is applied, this incarnation is registered as an owner,
//!         its shards run, and every other owner that is up is connected; one that is down is
//!         waited for 2 s at most
//! stay    the log is applied, this incarnation is registered, a majority was in contact a moment
//!         ago, and this node can dial others
//! ```
//!
//! The start condition is met once and then stays met. The death of another node, an open breaker
//! or a partition without an owner never makes a node unready: the node still does its own part. An
//! election after the death of a leader is bridged by `MAJORITY_GRACE`, unless this node's links
//! are slower than the timers allow: then leaders come and go, and each gap is said with its
//! reason.
//!
//! A balancer asks for checks alone ([`Purpose::Checks`]): a node without a majority still decides
//! what it owns, so a lost majority must not empty every pool.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::member::Member;
use super::state::Agreed;
use crate::check::Name;
use crate::clock::{MS, SECOND};
use crate::peer::LinkState;
use crate::placement::BootId;
use crate::watch;

/// How long another owner is waited for before the first answer, in nanoseconds: since it was
/// found to be unconnected, and since this node had all else that it needs.
const OWNER_PATIENCE: u64 = 2 * SECOND;
/// How often a node that starts looks whether it may answer.
const START_TICK: Duration = Duration::from_millis(10);
/// How often a node that can't start yet logs why.
const START_LOG_EVERY: u64 = 30 * SECOND;
/// For how many of the longest election timeouts a node stays ready without a majority: a leader
/// that dies is replaced within two or three of them.
const MAJORITY_GRACE: u64 = 5;

/// What a caller wants of a node that says it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Everything: checks, and changes that need a majority.
    Everything,
    /// Checks alone.
    Checks,
}

/// What being ready rests on, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// What the first start of the cluster waits for; none once the cluster has formed.
    pub unformed: Option<String>,
    /// A leader with a majority was heard of, now or within the grace of an election.
    pub majority: bool,
    /// Why no majority is with the leader at this moment, in words; none if one is.
    pub no_quorum: Option<String>,
    /// The log is applied up to where it was known to be committed when this process began.
    pub recovered: bool,
    /// The log names this incarnation as the owner of what is placed on this node.
    pub registered: bool,
    /// The shards run, with what an earlier process has saved.
    pub loaded: bool,
    /// The start condition was met.
    pub started: bool,
    /// Owners that the start waits for: those without a connection, and those whose new
    /// incarnation the log doesn't name yet. Empty after the start.
    pub waiting_for: Vec<Name>,
    /// Why this node can dial no other node, though others reach it; none where it can.
    pub cut_off: Option<String>,
    /// Whether this node owns partitions or is connected to another owner.
    pub decides: bool,
}

impl Readiness {
    /// A node that lacks nothing.
    pub const READY: Self = Self {
        unformed: None,
        majority: true,
        no_quorum: None,
        recovered: true,
        registered: true,
        loaded: true,
        started: true,
        waiting_for: Vec::new(),
        cut_off: None,
        decides: true,
    };

    /// What the node lacks for `purpose`, in words; none if it is ready.
    pub fn missing(&self, purpose: Purpose) -> Option<String> {
        let needs_majority = purpose == Purpose::Everything || !self.started;
        if let Some(unformed) = &self.unformed {
            return Some(unformed.clone());
        }
        let missing = match () {
            () if needs_majority && !self.majority => {
                let why = self.no_quorum.as_deref().unwrap_or("no contact with one");
                return Some(match why.starts_with("no leader") {
                    true => why.into(),
                    false => format!("no leader with a majority: {why}"),
                });
            }
            () if !self.recovered => "log not applied",
            () if !self.registered => "not registered as an owner",
            () if !self.loaded => "the saved counts are not loaded yet",
            () if !self.started => match self.waiting_for.as_slice() {
                [] => "starting",
                names => {
                    return Some(format!(
                        "not connected to other owners yet: waiting for {}",
                        list(names)
                    ));
                }
            },
            () if self.cut_off.is_some() => return self.cut_off.clone(),
            () if !self.decides => "no owner can be reached, and this node owns no partition",
            () => return None,
        };
        Some(missing.into())
    }
}

/// Names in a sentence.
fn list(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

/// How far the start of a member has come.
#[derive(Debug)]
pub(super) struct Startup {
    loaded: AtomicBool,
    started: watch::Sender<bool>,
    /// Boot time at which a majority was last known to be in contact; 0 is never.
    majority_at: AtomicU64,
}

impl Startup {
    /// Nothing of it is done.
    pub fn new() -> Self {
        Self {
            loaded: AtomicBool::new(false),
            started: watch::Sender::new(false),
            majority_at: AtomicU64::new(0),
        }
    }

    /// Notes that a majority is in contact at boot time `now`.
    pub fn note_majority(&self, now: u64) {
        self.majority_at.store(now.max(1), Ordering::Relaxed);
    }

    fn had_majority(&self, now: u64, grace: u64) -> bool {
        let at = self.majority_at.load(Ordering::Relaxed);
        at != 0 && now.saturating_sub(at) <= grace
    }
}

impl Member {
    /// What being ready rests on, now.
    pub(super) fn look_at_readiness(&self) -> Readiness {
        let now = self.clock.now().boot;
        let view = self.raft.view();
        let agreed = view.state.agreed();
        let started = *self.startup.started.borrow();
        let grace = self.timers.election_ms_max.saturating_mul(MAJORITY_GRACE).saturating_mul(MS);
        let no_quorum = self.why_no_quorum();
        let is_bridged =
            self.round_trip().excess().is_none() && self.startup.had_majority(now, grace);
        let waiting_for = match agreed {
            Some(agreed) if !started => self.awaited_owners(agreed, now),
            _ => Vec::new(),
        };
        Readiness {
            unformed: agreed.is_none().then(|| self.unformed()).flatten(),
            majority: no_quorum.is_none() || (started && is_bridged),
            no_quorum,
            recovered: self.recovered.load(Ordering::Relaxed),
            registered: self.in_force.is_registered()
                && agreed.is_some_and(|agreed| {
                    agreed
                        .members
                        .get(self.me.node)
                        .is_some_and(|member| member.boot == self.me.boot)
                }),
            loaded: self.startup.loaded.load(Ordering::Relaxed),
            started,
            waiting_for,
            cut_off: agreed.and_then(|agreed| self.cut_off(agreed, now)),
            decides: agreed.is_some_and(|agreed| self.decides(agreed)),
        }
    }

    /// Waits until the start condition is met, and makes this node ready then. `loaded` resolves
    /// when the shards run; they do so once this incarnation is registered.
    pub async fn start_up(&self, loaded: impl Future<Output = ()>) {
        let (mut own_since, mut logged) = (None, (String::new(), self.clock.now().boot));
        let mut loaded = std::pin::pin!(loaded);
        loop {
            let readiness = self.look_at_readiness();
            let now = self.clock.now().boot;
            self.in_force.say_missing(readiness.missing(Purpose::Everything));
            let has_own = readiness.unformed.is_none()
                && readiness.majority
                && readiness.recovered
                && readiness.registered
                && readiness.loaded;
            let since = *own_since.get_or_insert(now);
            if !has_own {
                own_since = None;
            } else if readiness.waiting_for.is_empty()
                || now.saturating_sub(since) >= OWNER_PATIENCE
            {
                break;
            }
            let why = readiness.missing(Purpose::Everything).unwrap_or_default();
            let since_logged = now.saturating_sub(logged.1);
            if (logged.0 != why && since_logged >= SECOND) || since_logged >= START_LOG_EVERY {
                tracing::info!(%why, "this node is not ready yet");
                logged = (why, now);
            }
            if self.startup.loaded.load(Ordering::Relaxed) {
                tokio::time::sleep(START_TICK).await;
            } else if tokio::time::timeout(START_TICK, &mut loaded).await.is_ok() {
                self.startup.loaded.store(true, Ordering::Relaxed);
            }
        }
        self.startup.started.send_replace(true);
        self.in_force.say_missing(None);
        tracing::info!("this node is ready");
    }

    /// Resolves once the start condition has been met.
    pub async fn started(&self) {
        // Its sender lives as long as this node takes part.
        let _ = self.startup.started.subscribe().wait_for(|started| *started).await;
    }

    /// What the first start of the cluster waits for; none on a node that knows of a cluster.
    pub(super) fn unformed(&self) -> Option<String> {
        if self.knows_cluster {
            return None;
        }
        let unconnected = |name: &Name| {
            let states = self.links.states();
            let state = states.into_iter().find(|state| state.name == *name);
            state.is_none_or(|state| !matches!(state.raft, LinkState::Connected { .. }))
        };
        let others =
            self.seeds.iter().map(|seed| &seed.name).filter(|name| **name != self.own.name);
        let waiting: Vec<_> = others.filter(|name| unconnected(name)).cloned().collect();
        let first = self.seeds.first().filter(|first| first.name != self.own.name);
        let refused = self.links.refused().map(|(peer, why)| format!("; node {peer}: {why}"));
        let unformed = match (waiting.as_slice(), first) {
            ([], None) => "the cluster has not formed yet".into(),
            ([], Some(first)) => {
                format!("the cluster has not formed: waiting for {} to begin it", first.name)
            }
            (waiting, _) => format!("the cluster has not formed: waiting for {}", list(waiting)),
        };
        Some(unformed + &refused.unwrap_or_default())
    }

    /// The other owners that this node waits for before its first answer.
    fn awaited_owners(&self, agreed: &Agreed, now: u64) -> Vec<Name> {
        let is_awaited = |boot: BootId, state: LinkState| match state {
            LinkState::Connecting { since, .. } => now.saturating_sub(since) < OWNER_PATIENCE,
            // The process that answers is about to register: until then its partitions have no
            // owner that decides.
            LinkState::Connected { since, boot: answers, .. } => {
                answers != boot && now.saturating_sub(since) < OWNER_PATIENCE
            }
        };
        let others = agreed.members.iter().filter(|(id, _)| *id != self.me.node);
        let awaited = others.filter(|(id, member)| {
            let state = self.links.peer(*id).map(|peer| peer.checks().state());
            state.is_some_and(|state| is_awaited(member.boot, state))
        });
        awaited.map(|(_, member)| member.name.clone()).collect()
    }

    /// Why this node can dial no other member, though one of them reaches this node.
    fn cut_off(&self, agreed: &Agreed, now: u64) -> Option<String> {
        if self.reaches_another(agreed) {
            return None;
        }
        let (peer, why) = self.links.one_sided(now).into_iter().next()?;
        Some(format!("this node can dial no other node: {peer} reaches this node, but {why}"))
    }

    /// Whether a check could be decided at all: this node owns something, or another owner is
    /// connected.
    fn decides(&self, agreed: &Agreed) -> bool {
        self.in_force.places().load().count_here() > 0 || self.reaches_another(agreed)
    }

    fn reaches_another(&self, agreed: &Agreed) -> bool {
        let mut others = agreed.members.iter().filter(|(id, _)| *id != self.me.node);
        others.any(|(id, _)| self.links.peer(id).is_some_and(|peer| peer.carries_checks()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_node_says_the_first_thing_that_it_lacks() {
        let ready = Readiness::READY;
        let starting = Readiness { started: false, ..ready.clone() };
        let table = [
            (ready.clone(), None),
            (
                Readiness {
                    unformed: Some("the cluster has not formed: waiting for n2".into()),
                    majority: false,
                    ..starting.clone()
                },
                Some("the cluster has not formed: waiting for n2"),
            ),
            (
                Readiness {
                    majority: false,
                    no_quorum: Some("the leader n1 has no majority".into()),
                    ..ready.clone()
                },
                Some("no leader with a majority: the leader n1 has no majority"),
            ),
            (
                Readiness { majority: false, recovered: false, ..starting.clone() },
                Some("no leader with a majority: no contact with one"),
            ),
            (Readiness { recovered: false, ..starting.clone() }, Some("log not applied")),
            (
                Readiness { registered: false, loaded: false, ..ready.clone() },
                Some("not registered as an owner"),
            ),
            (
                Readiness { loaded: false, ..starting.clone() },
                Some("the saved counts are not loaded yet"),
            ),
            (
                Readiness { waiting_for: vec![name("n2"), name("n3")], ..starting.clone() },
                Some("not connected to other owners yet: waiting for n2, n3"),
            ),
            (starting, Some("starting")),
            (Readiness { cut_off: Some("cut off".into()), ..ready }, Some("cut off")),
        ];
        for (readiness, expected) in table {
            assert_eq!(
                readiness.missing(Purpose::Everything).as_deref(),
                expected,
                "{readiness:?}"
            );
        }
    }

    #[test]
    fn without_a_majority_a_node_that_started_is_ready_for_checks() {
        let lost = Readiness { majority: false, ..Readiness::READY };
        assert!(lost.missing(Purpose::Everything).is_some());
        assert_eq!(lost.missing(Purpose::Checks), None);
        // Before the start the majority is what tells a node what it owns.
        let starting = Readiness { started: false, ..lost.clone() };
        assert!(starting.missing(Purpose::Checks).is_some());
        let alone = Readiness { decides: false, ..lost };
        let expected = "no owner can be reached, and this node owns no partition";
        assert_eq!(alone.missing(Purpose::Checks).as_deref(), Some(expected));
        let alone = Readiness { majority: true, ..alone };
        assert_eq!(alone.missing(Purpose::Everything).as_deref(), Some(expected));
    }

    #[test]
    fn a_majority_that_is_lost_counts_until_an_election_is_over() {
        let startup = Startup::new();
        assert!(!startup.had_majority(5, 10));
        startup.note_majority(100);
        assert!(startup.had_majority(110, 10) && !startup.had_majority(111, 10));
    }
}
