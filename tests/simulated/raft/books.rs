//! What the lives of nodes and clients show, and how it is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tidegate::check::TenantId;
use tidegate::cluster::raft::{Medium, View};
use tidegate::placement::NodeId;

use super::NODES;
use crate::sim::Trace;

/// What all lives of all nodes and clients have to show, and whoever judges them.
#[derive(Clone)]
pub(super) struct Books {
    pub(super) trace: Trace,
    pub(super) seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) lives: [u64; NODES],
    /// Who has led, by term.
    pub(super) leaders: BTreeMap<u64, BTreeSet<NodeId>>,
    /// States, encoded, by the last entry applied.
    pub(super) states: BTreeMap<u64, Vec<u8>>,
    /// What each node has applied in its life.
    pub(super) views: [Arc<View>; NODES],
    /// Commands that were answered as done: the tenant of each, and the version that it made.
    pub(super) done: BTreeMap<u64, TenantId>,
    /// Tenants that no log may ever hold.
    pub(super) never: Vec<TenantId>,
    /// The next node that gives its vote loses its power right after the answer.
    pub(super) armed: bool,
    /// Who did, and whom it voted for.
    pub(super) voted: Option<(usize, usize)>,
    /// The faults are over: each client says one last thing.
    pub(super) healed: bool,
    pub(super) last_words: [bool; NODES],
}

impl Books {
    pub(super) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(super) fn check(&self, holds: bool, otherwise: impl Fn() -> String) {
        if !holds {
            self.trace.violation(otherwise());
        }
    }

    /// A node says that it leads. A vote is for a term and a number, and is only ever changed for a
    /// higher one: within a term, whoever comes to lead later has the higher number.
    pub(super) fn leads(&self, term: u64, leader: NodeId) {
        let mut seen = self.seen();
        let known = seen.leaders.entry(term).or_default();
        let before = known.last().copied();
        let is_new = known.insert(leader);
        drop(seen);
        let fine = !is_new || before.is_none_or(|before| before < leader);
        self.check(fine, || format!("in term {term}, {leader} comes to lead after {before:?}"));
    }

    /// A node has applied entries.
    pub(super) fn applied(&self, node: usize, view: Arc<View>) {
        let (index, version) = (view.applied.0, version(&view));
        self.trace.note(format_args!("n{} has applied {index}, version {version}", node + 1));
        let state = view.state.encode().unwrap();
        let mut seen = self.seen();
        let same = *seen.states.entry(index).or_insert_with(|| state.clone()) == state;
        let before = std::mem::replace(&mut seen.views[node], view);
        drop(seen);
        let before = (before.applied.0, self::version(&before));
        self.check(same, || format!("after entry {index}, two nodes have different states"));
        let rises = before.0 < index && before.1 <= version;
        self.check(rises, || {
            format!("n{} goes from {before:?} to {:?}", node + 1, (index, version))
        });
    }

    /// A node's process has begun: what it has applied begins anew.
    pub(super) fn begins(&self, node: usize) -> u64 {
        let mut seen = self.seen();
        seen.views[node] = Arc::default();
        seen.lives[node] += 1;
        self.trace.note(format_args!("n{} begins life {}", node + 1, seen.lives[node]));
        seen.lives[node]
    }

    /// A client was told that its command made a version; it had begun when `newest` was the newest
    /// that anybody knew of.
    pub(super) fn done(&self, tenant: TenantId, version: u64, newest: u64) {
        let other = self.seen().done.insert(version, tenant);
        self.check(other.is_none(), || format!("version {version} was made twice"));
        self.check(version > newest, || {
            format!("a command began after version {newest} and made {version}")
        });
    }

    /// A node's term has risen with what `candidate` asked of it, and it has answered.
    pub(super) fn votes(&self, voter: usize, candidate: usize, medium: &Medium) {
        let mut seen = self.seen();
        if std::mem::take(&mut seen.armed) {
            medium.cut_power(0, 0);
            seen.voted = Some((voter, candidate));
            self.trace.note(format_args!("n{} has voted for n{}", voter + 1, candidate + 1));
        }
    }

    pub(super) fn newest(&self) -> u64 {
        self.seen().done.last_key_value().map_or(0, |(version, _)| *version)
    }

    /// Whether everybody has spoken, and has come as far as everybody else.
    pub(super) fn is_whole(&self) -> bool {
        let seen = self.seen();
        let reached: BTreeSet<_> = seen.views.iter().map(|view| view.applied).collect();
        seen.last_words.iter().all(|spoken| *spoken) && reached.len() == 1
    }

    /// What must hold once everybody has come to the end.
    pub(super) fn judge(&self) {
        let seen = self.seen();
        let agreed = seen.views[0].state.agreed().unwrap();
        let tenants = &agreed.document.tenants;
        for (version, tenant) in &seen.done {
            let there = *version <= agreed.version && tenants.contains_key(tenant);
            self.check(there, || format!("{tenant} was done in version {version}, and is lost"));
        }
        for tenant in &seen.never {
            self.check(!tenants.contains_key(tenant), || {
                format!("{tenant} was not to be done, and is there")
            });
        }
        let made = agreed.version - 1;
        let once = made == tenants.len() as u64;
        self.check(once, || format!("{made} versions were made of {} commands", tenants.len()));
        let busy = seen.done.len() > 30 && !seen.leaders.is_empty();
        self.check(busy, || {
            format!("only {} commands were done: this shows nothing", seen.done.len())
        });
    }
}

pub(super) fn version(view: &View) -> u64 {
    view.state.agreed().map_or(0, |agreed| agreed.version)
}
