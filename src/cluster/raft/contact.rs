//! Whether a majority of the voters is with the leader, as each node knows it.
//!
//! A leader knows by the answers of its followers. A follower that hears of its leader knows only
//! that the leader is there: one that is cut off from the others goes on sending heartbeats. So
//! every follower asks its leader, once a heartbeat, how old the last word of a majority is:
//!
//! ```text
//! n3 → n1   Contact                                           sent at t
//! n1 → n3   leads, term 7, a majority acknowledged 40 ms ago   n3: a majority was there at t - 40 ms
//! ```
//!
//! A leader of the first release doesn't know the question. Then a heartbeat has to be enough, as
//! it was in that release.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::Instant as _;
use openraft::alias::InstantOf;
use openraft::async_runtime::WatchReceiver as _;
use serde::{Deserialize, Serialize};

use super::network::{Reply, Request, Traffic, TransportError};
use super::node::Node;
use super::roster::Roster;
use super::types::TypeConfig;
use crate::placement::NodeId;

/// A word of a majority that is older says nothing: far more than any timer allows.
const ACKED_MS_MAX: u64 = 60_000;

/// In place of a round trip that isn't known.
pub(super) const UNKNOWN_MS: u64 = u64::MAX;

/// What a node says of its contact with a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contact {
    /// Whether it leads.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// Milliseconds since the last message was sent that a majority has acknowledged; none if it
    /// doesn't lead or none was.
    pub acked_ms: Option<u64>,
    /// Milliseconds in which it reaches a majority of the voters and has their answers; none if it
    /// doesn't know.
    pub round_trip_ms: Option<u64>,
}

/// What is missing where no majority is known to be with the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No leader is known.
    Leader,
    /// This node leads, and has no majority.
    Own,
    /// That leader doesn't answer.
    Answer(NodeId),
    /// That leader answers, and has no majority.
    Majority(NodeId),
}

/// What a follower has heard of its leaders.
#[derive(Default)]
pub(super) struct Heard {
    /// The latest time at which a majority was with the leader of that time.
    confirmed: Option<InstantOf<TypeConfig>>,
    /// The last leader that didn't know the question.
    older: Option<NodeId>,
    /// The leader that was asked last, if it answered.
    answered: Option<NodeId>,
}

impl Node {
    /// Returns how long ago this node last knew that a majority is with the leader; none if it
    /// never did.
    ///
    /// More than the longest election timeout is bad news; roles and the name of the leader say
    /// nothing, since they stay as they were.
    pub async fn contact_age(&self) -> Option<Duration> {
        if self.is_leader() {
            return self.acked_age();
        }
        let (confirmed, older) = {
            let heard = self.heard();
            (heard.confirmed.map(|at| at.elapsed()), heard.older)
        };
        if older.is_none() || older != self.leader() {
            return confirmed;
        }
        let heard = self.raft().with_raft_state(|state| state.vote_last_modified()).await;
        heard.ok().flatten().map(|at| at.elapsed())
    }

    /// Asks the leader how long ago a majority was with it; returns when it has answered, or
    /// `within` at the latest. Returns at once on a leader, and where no leader is known.
    pub async fn ask_contact(&self, within: Duration) {
        let Some(leader) = self.leader().filter(|leader| *leader != self.id()) else { return };
        let Some(address) = self.roster().nodes.remove(&leader) else { return };
        let sent = InstantOf::<TypeConfig>::now();
        let asked =
            self.post().call(leader, &address, Traffic::Later, &Request::Contact, within).await;
        let mut heard = self.heard();
        heard.answered = matches!(asked, Ok(_) | Err(TransportError::Unknown)).then_some(leader);
        match asked {
            Ok(Reply::Contact(Contact { leads: true, term, acked_ms: Some(ms), .. }))
                if term >= self.term() =>
            {
                heard.older = None;
                // The leader counted from a moment after the question was sent, so this is no later
                // than the truth.
                if ms <= ACKED_MS_MAX {
                    heard.confirmed = heard.confirmed.max(Some(sent - Duration::from_millis(ms)));
                }
            }
            Ok(_) => heard.older = None,
            Err(TransportError::Unknown) => heard.older = Some(leader),
            Err(_) => {}
        }
    }

    /// Returns what is missing where the contact is too old.
    pub fn missing(&self) -> Missing {
        match self.leader() {
            None => Missing::Leader,
            Some(leader) if leader == self.id() => Missing::Own,
            Some(leader) if self.heard().answered == Some(leader) => Missing::Majority(leader),
            Some(leader) => Missing::Answer(leader),
        }
    }

    /// Takes note of the time in which this node reaches a majority, in milliseconds, to tell
    /// others.
    pub fn say_round_trip(&self, ms: Option<u64>) {
        self.round_trip_ms.store(ms.unwrap_or(UNKNOWN_MS), Ordering::Relaxed);
    }

    /// Asks the other voters how soon they reach a majority; returns those that know, and the
    /// milliseconds, after `within` at the latest.
    pub async fn ask_round_trips(&self, within: Duration) -> BTreeMap<NodeId, u64> {
        let Roster { nodes, voters, .. } = self.roster();
        let others = nodes.into_iter().filter(|(id, _)| *id != self.id() && voters.contains(id));
        let asked = others.map(async |(id, address)| {
            match self.post().call(id, &address, Traffic::Later, &Request::Contact, within).await {
                Ok(Reply::Contact(contact)) => Some((id, contact.round_trip_ms?)),
                Ok(_) | Err(_) => None,
            }
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Begins or ends sending heartbeats as a leader. Without them, and without entries, the
    /// followers elect another leader.
    pub fn send_heartbeats(&self, sends: bool) {
        self.raft().runtime_config().heartbeat(sends);
    }

    /// Answers that question.
    pub(super) fn contact(&self) -> Contact {
        let leads = self.is_leader();
        let acked = self.acked_age().filter(|_| leads);
        let acked_ms = acked.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let round_trip_ms = Some(self.round_trip_ms.load(Ordering::Relaxed));
        let round_trip_ms = round_trip_ms.filter(|ms| *ms != UNKNOWN_MS);
        Contact { leads, term: self.term(), acked_ms, round_trip_ms }
    }

    /// Returns how long ago the last message was sent that a majority of the voters has
    /// acknowledged, on a leader; zero where this node is the only voter.
    fn acked_age(&self) -> Option<Duration> {
        let acked = self.raft().metrics().borrow_watched().last_quorum_acked;
        let alone = self.members().values().filter(|votes| **votes).count() == 1;
        if alone { Some(Duration::ZERO) } else { acked.map(|at| at.elapsed()) }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) type HeardCell = Mutex<Heard>;
