//! What was asked, what was answered, and what must hold of it: judged with every answer, and once
//! more at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

use super::operator::Deed;
use super::{HOSTS, host_of};
use crate::sim::Trace;

/// Copies are the same ones.
#[derive(Clone, Default)]
pub struct Books {
    pub trace: Trace,
    seen: Arc<Mutex<Seen>>,
}

/// What has been seen so far.
#[derive(Default)]
pub struct Seen {
    pub nodes: [Seat; HOSTS],
    /// By the number that the log gave them.
    pub numbers: BTreeMap<u64, usize>,
    /// From whom to whom partitions move, as far as anybody knows.
    pub moving: BTreeSet<(usize, usize)>,
    /// Moves that were seen to begin.
    pub moves: u64,
    limits: BTreeMap<String, Counted>,
    /// Of each tenant, the epochs under which it was decided.
    epochs: BTreeMap<String, BTreeMap<u64, Decided>>,
    /// Tenants that a change was answered for, by the version that it made.
    pub written: BTreeMap<u64, String>,
    /// The newest version that was answered as in force on all nodes.
    everywhere: u64,
    /// Lives that ended without a word.
    died: BTreeSet<(usize, u64)>,
    /// Tenants that were found spent since their counts had died with a node.
    pub found_spent: u64,
    /// What only whoever runs the simulation can do.
    pub deeds: Vec<Deed>,
    pub orders_done: u64,
    /// The faults are over.
    pub healed: bool,
    /// The cluster is as its operator wants it, and nobody calls any more but to judge.
    pub settled: bool,
    /// Callers that have stopped.
    pub silent: usize,
    /// Everybody has answered for everything.
    pub done: bool,
}

/// A host, and the node on it.
#[derive(Clone, Copy, Default)]
pub struct Seat {
    /// It is a member, or is to become one.
    pub is_wanted: bool,
    /// It has to ask to be admitted.
    pub joins: bool,
    /// It was admitted, or there from the beginning.
    pub is_admitted: bool,
    /// It was asked to leave.
    pub leaves: bool,
    /// Its process is to stop as on SIGTERM.
    pub stops: bool,
    /// Its process has ended by itself.
    pub ended: bool,
    /// How many processes have begun.
    pub life: u64,
    /// The newest version of the policy that was seen from this life.
    version: u64,
}

/// What was taken of one limit.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    /// What it admits.
    pub limit: u64,
    /// Units that are known to have been admitted.
    pub admitted: u64,
    /// Units that may have been taken, and nobody knows.
    pub unknown: u64,
}

/// Who decided under an epoch: a node, in a life from the first of these to the last.
#[derive(Clone, Copy)]
struct Decided {
    node: usize,
    lives: (u64, u64),
}

/// What was known as a question was asked.
pub struct Asked {
    tenant: String,
    epoch: u64,
    everywhere: u64,
    nodes: [Seat; HOSTS],
}

/// A limit that a check is to be counted against.
#[derive(Clone)]
pub struct Against {
    pub key: String,
    pub limit: u64,
    /// The name of the limit, if it is one that tenants share.
    pub shared: Option<&'static str>,
}

impl Books {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub fn check(&self, holds: bool, otherwise: impl Fn() -> String) {
        if !holds {
            self.trace.violation(otherwise());
        }
    }

    /// A process begins; which one of its host. Where the one before didn't stop as it should, it
    /// died.
    pub fn begins(&self, host: usize) -> u64 {
        let mut seen = self.seen();
        let seat = &mut seen.nodes[host];
        let (before, stopped) = (seat.life, seat.stops || seat.ended);
        (seat.life, seat.version, seat.stops, seat.ended) = (before + 1, 0, false, false);
        if before > 0 && !stopped {
            seen.died.insert((host, before));
        }
        drop(seen);
        self.trace.note(format_args!("n{} begins life {}", host + 1, before + 1));
        before + 1
    }

    /// Lives that ended without a word.
    pub fn deaths(&self) -> usize {
        self.seen().died.len()
    }

    /// Tables in which partitions moved, and orders that were given.
    pub fn shown(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.moves, seen.orders_done)
    }

    pub fn asks(&self, tenant: &str) -> Asked {
        let seen = self.seen();
        let epochs = seen.epochs.get(tenant).and_then(BTreeMap::last_key_value);
        Asked {
            tenant: tenant.into(),
            epoch: epochs.map_or(0, |(epoch, _)| *epoch),
            everywhere: seen.everywhere,
            nodes: seen.nodes,
        }
    }

    /// A check was answered with `said`, or nobody knows how: counts it against its limits. Whether
    /// it was denied.
    pub fn answered(
        &self,
        asked: &Asked,
        cost: u64,
        against: &[Against],
        said: Option<&Value>,
    ) -> bool {
        let allowed = said.and_then(|said| said["allowed"].as_bool());
        let denied_by = said.and_then(|said| said["denied_by"]["name"].as_str());
        for Against { key, limit, shared } in against {
            let counted = {
                let mut seen = self.seen();
                let counted = seen.limits.entry(key.clone()).or_default();
                counted.limit = *limit;
                match allowed {
                    Some(true) => counted.admitted += cost,
                    // What another limit denied is given back to a shared one, unless that is lost
                    // on its way.
                    Some(false) if shared.is_some() && *shared != denied_by => {
                        counted.unknown += cost
                    }
                    Some(false) => {}
                    None => counted.unknown += cost,
                }
                *counted
            };
            let fine = counted.admitted <= counted.limit;
            self.check(fine, || {
                format!("{key} was admitted {} of {}", counted.admitted, counted.limit)
            });
        }
        if let Some(said) = said {
            self.decided(asked, said, allowed == Some(true), against);
        }
        allowed == Some(false)
    }

    /// One node, in one life, decides under an epoch; epochs rise, and so do the versions of the
    /// policy.
    fn decided(&self, asked: &Asked, said: &Value, allowed: bool, against: &[Against]) {
        let tenant = &asked.tenant;
        let node = said["node"].as_str().and_then(host_of);
        let (Some(node), Some(epoch)) = (node, said["epoch"].as_u64()) else {
            return self.trace.violation(format_args!("{tenant} was decided by nobody: {said}"));
        };
        self.check(epoch >= asked.epoch, || {
            format!("{tenant} was decided under epoch {epoch} after {}", asked.epoch)
        });
        let version = said["policy_version"].as_u64().unwrap_or(0);
        self.seen_from(asked, node, version);
        // Whoever shows its policy may have begun just now; whoever decides catches up first.
        self.check(version >= asked.everywhere, || {
            format!(
                "n{} decides by version {version}, and {} was in force everywhere",
                node + 1,
                asked.everywhere
            )
        });
        let mut seen = self.seen();
        let lives = (asked.nodes[node].life, seen.nodes[node].life);
        let epochs = seen.epochs.entry(tenant.clone()).or_default();
        let before = epoch.checked_sub(1).and_then(|before| epochs.get(&before)).copied();
        let decided = epochs.entry(epoch).or_insert(Decided { node, lives });
        let is_one = decided.node == node;
        decided.lives = (decided.lives.0.max(lives.0), decided.lives.1.min(lives.1));
        let (other, both) = (decided.node, decided.lives);
        // The epoch after the one under which it owned the partition is the next life's own, and
        // nobody has had it between.
        let is_next =
            |before: &Decided| before.node == node && before.lives == (lives.0 - 1, lives.0 - 1);
        let lost = lives.0 == lives.1
            && before.is_some_and(|before| is_next(&before))
            && seen.died.contains(&(node, lives.0 - 1));
        let is_limited = against.iter().any(|against| against.shared.is_none());
        if lost && is_limited {
            seen.found_spent += u64::from(!allowed);
        }
        drop(seen);
        self.check(is_one && both.0 <= both.1, || {
            format!(
                "{tenant} was decided under epoch {epoch} by n{} in life {} and by n{} in life {}",
                other + 1,
                both.0,
                node + 1,
                both.1
            )
        });
        self.check(!(lost && is_limited && allowed), || {
            format!(
                "{tenant} was admitted by n{}, though its counts died with that node's life before",
                node + 1
            )
        });
    }

    /// A node shows that it goes by a version of the policy.
    pub fn seen_from(&self, asked: &Asked, node: usize, version: u64) {
        let before = asked.nodes[node];
        let now = {
            let mut seen = self.seen();
            let seat = &mut seen.nodes[node];
            // Which of two lives has said it isn't known: then it is neither's word.
            if seat.life == before.life {
                seat.version = seat.version.max(version);
            }
            seat.life
        };
        let rises = before.life != now || version >= before.version;
        self.check(rises, || {
            format!("n{} goes by version {version} after {}", node + 1, before.version)
        });
    }

    /// A change was answered.
    pub fn wrote(&self, tenant: &str, said: &Value) {
        let version = said["version"].as_u64().unwrap_or(0);
        let mut seen = self.seen();
        let other = seen.written.insert(version, tenant.into());
        if said["pending"].as_array().is_some_and(Vec::is_empty) {
            seen.everywhere = seen.everywhere.max(version);
        }
        drop(seen);
        self.check(other.is_none() && version > 1, || format!("version {version} was made twice"));
    }

    /// What must hold of all limits once everything was asked for that there is. Where counts were
    /// lost with a node that died, less may have been admitted.
    pub fn judge(&self, is_exact: bool, at: Duration) {
        let limits = self.seen().limits.clone();
        let (mut admitted, mut most) = (0, 0);
        for (key, Counted { limit, admitted: taken, unknown }) in &limits {
            self.trace.note_at(
                at,
                format_args!("{key}: {taken} of {limit} admitted, {unknown} not known"),
            );
            (admitted, most) = (admitted + taken, most + limit);
            let enough = !is_exact || taken + unknown >= *limit;
            self.check(enough, || {
                format!("{key} was admitted {taken} of {limit}, {unknown} are not known")
            });
        }
        // What is not known must not be so much that nothing was shown.
        let shown = if is_exact { admitted * 10 >= most * 8 } else { admitted * 10 >= most };
        self.check(shown, || {
            format!("{admitted} of {most} units were admitted: this shows nothing")
        });
    }
}
