//! Whether this node is in contact with a majority, how long messages to a majority take, and what
//! a leader does whose own links are too slow.
//!
//! Raft's timers allow a round trip of a bounded length. Two cases lie beyond it:
//!
//! ```text
//! the leader's links alone    it hands leadership to a voter whose links are fast enough; where that
//!                             fails, its followers elect one, since it falls silent without a majority
//! every link                  no voter does better: the leader stays as long as it can; status,
//!                             readiness and the log say how long the round trip is and what is allowed
//! ```
//!
//! Round trips are those of the pings on the links for Raft. That of a node is the time in which it
//! reaches a majority of the voters, itself among them if it votes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::member::Member;
use super::raft::Missing;
use crate::clock::SECOND;
use crate::placement::NodeId;

/// For how long a leader's links have to be too slow until it hands leadership over, in
/// nanoseconds.
const SLOW_FOR: u64 = SECOND;
/// How long the voters are given to say how fast their links are.
const ASK_WITHIN: Duration = Duration::from_millis(800);
/// How long a leader that handed leadership over in vain waits before it tries again, in
/// nanoseconds.
const HAND_OVER_AGAIN: u64 = 5 * SECOND;
/// Between two log lines about slow links, in nanoseconds.
const SAY_AGAIN: u64 = 30 * SECOND;

/// The round trip between this node and a majority of the voters, and what the timers allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// Milliseconds; none where too few voters are connected to know it.
    pub ms: Option<u64>,
    /// The most that Raft's timers allow.
    pub allowed_ms: u64,
}

impl RoundTrip {
    /// Returns the sentence about a round trip that is too long; none if it is not.
    pub fn excess(self) -> Option<String> {
        let (ms, allowed) = (self.ms?, self.allowed_ms);
        let text = || format!("round trip {ms} ms exceeds the {allowed} ms that the timers allow");
        (ms > allowed).then(text)
    }
}

/// What the task knows that watches the round trip.
#[derive(Default)]
struct Watching {
    /// Since when the round trip has been too long, in nanoseconds of boot time.
    slow_since: Option<u64>,
    said: Option<u64>,
    handed_over: Option<u64>,
    /// Whether this node has stopped its heartbeats so that another leads.
    is_silent: bool,
}

impl Member {
    /// Keeps up what this node knows of its contact with a majority: asks the leader, once a
    /// heartbeat, and watches the round trips.
    pub(super) async fn keep_contact(&self) {
        let within = Duration::from_millis(self.timers.election_ms_max);
        let every = Duration::from_millis(self.timers.heartbeat_ms);
        let mut ticker = tokio::time::interval(every);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticker.tick().await;
            self.raft.ask_contact(within).await;
        }
    }

    /// Watches the round trip to a majority, and hands leadership over where only this node's is
    /// too long.
    pub(super) async fn watch_round_trip(&self) {
        let mut watching = Watching::default();
        let mut ticker = tokio::time::interval(Duration::from_millis(self.timers.heartbeat_ms));
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticker.tick().await;
            let round_trip = self.round_trip();
            self.raft.say_round_trip(round_trip.ms);
            let now = self.clock.now().boot;
            if watching.is_silent && !self.raft.is_leader() {
                self.raft.send_heartbeats(true);
                watching.is_silent = false;
            }
            let Some(excess) = round_trip.excess() else {
                if watching.slow_since.take().is_some() && watching.said.is_some() {
                    tracing::info!(
                        round_trip_ms = round_trip.ms,
                        "round trip within what the timers allow"
                    );
                    watching.said = None;
                }
                continue;
            };
            let since = *watching.slow_since.get_or_insert(now);
            if now.saturating_sub(since) < SLOW_FOR {
                continue;
            }
            if watching.said.is_none_or(|said| now.saturating_sub(said) >= SAY_AGAIN) {
                tracing::warn!(
                    "{excess}: if the links stay that slow, raise it with tidegate cluster set \
                     round_trip_ms=N"
                );
                watching.said = Some(now);
            }
            let is_due =
                watching.handed_over.is_none_or(|at| now.saturating_sub(at) >= HAND_OVER_AGAIN);
            if self.raft.is_leader() && is_due {
                watching.handed_over = Some(now);
                watching.is_silent |= self.lead_elsewhere(round_trip).await;
            }
        }
    }

    /// Hands leadership to the voter that reaches a majority soonest, if it is fast enough. Returns
    /// whether there is one.
    async fn lead_elsewhere(&self, own: RoundTrip) -> bool {
        let said = self.raft.ask_round_trips(ASK_WITHIN).await;
        let fast = said.into_iter().filter(|(_, ms)| *ms <= own.allowed_ms);
        let Some((to, ms)) = fast.min_by_key(|(id, ms)| (*ms, *id)) else { return false };
        tracing::warn!(
            own_ms = own.ms,
            %to,
            its_ms = ms,
            "this leader's links are slower than the timers allow: another voter is to lead"
        );
        if let Err(error) = self.raft.hand_leadership_to(to).await {
            tracing::warn!(%error, %to, "leadership was not handed over");
        }
        // Should the other not have heard of it, the followers elect one of themselves.
        self.raft.send_heartbeats(false);
        true
    }

    /// Returns the round trip between this node and a majority of the voters.
    pub(super) fn round_trip(&self) -> RoundTrip {
        let voters = self.raft.roster().voters;
        let own = self.me().node;
        let known = voters.iter().filter_map(|id| match *id == own {
            true => Some(Duration::ZERO),
            false => self.links.round_trip(*id),
        });
        let ms = within_which_a_majority_is_reached(known.collect(), voters.len());
        let ms = ms.map(|took| u64::try_from(took.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX));
        RoundTrip { ms, allowed_ms: self.timers.round_trip_ms_max() }
    }

    /// Returns why no majority is known to be with the leader, in words; none if one is.
    pub(super) fn why_no_quorum(&self) -> Option<String> {
        if self.has_quorum() {
            return None;
        }
        let named = |id: NodeId| match self.links.name(id) {
            Some(name) => name.to_string(),
            None => format!("node {id}"),
        };
        let heard = match self.contact() {
            Some(ms) => format!("the last word of one is {ms} ms old"),
            None => "this node has never heard of one".into(),
        };
        let why = match self.raft.missing() {
            Missing::Leader => "no leader is known".into(),
            Missing::Own => format!("this node leads without a majority: {heard}"),
            Missing::Answer(leader) => {
                format!("the leader {} does not answer: {heard}", named(leader))
            }
            Missing::Majority(leader) => {
                format!("the leader {} has no majority: {heard}", named(leader))
            }
        };
        let refused = self.links.refused().map(|(peer, why)| format!("node {peer}: {why}"));
        let also = self.round_trip().excess().map(|excess| excess.to_string()).or(refused);
        match also {
            Some(also) => Some(format!("{why}; {also}")),
            None => Some(why),
        }
    }

    /// Whether a majority is known to be with the leader, recently enough.
    pub(super) fn has_quorum(&self) -> bool {
        self.contact().is_some_and(|ms| ms <= self.timers.election_ms_max)
            && self.raft.leader().is_some()
    }

    /// Returns how long ago a majority was known to be with the leader, in milliseconds; none if
    /// never.
    pub(super) fn contact(&self) -> Option<u64> {
        Some(self.contact_ms.load(Ordering::Relaxed)).filter(|ms| *ms != super::member::NO_CONTACT)
    }
}

/// Returns the time in which a majority of so many voters is reached, from the round trips that are
/// known; none where too few are.
fn within_which_a_majority_is_reached(mut known: Vec<Duration>, voters: usize) -> Option<Duration> {
    known.sort_unstable();
    known.get(voters / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(known: &[u64], voters: usize) -> Option<u64> {
        let known = known.iter().map(|ms| Duration::from_millis(*ms)).collect();
        let took = within_which_a_majority_is_reached(known, voters);
        took.map(|took| u64::try_from(took.as_millis()).unwrap())
    }

    #[test]
    fn a_majority_is_reached_with_the_slowest_that_it_needs() {
        assert_eq!(reached(&[0, 120, 80], 3), Some(80), "the third may be as slow as it likes");
        assert_eq!(reached(&[0, 120, 130], 3), Some(120));
        assert_eq!(reached(&[0, 5, 300, 7, 400], 5), Some(7));
        assert_eq!(reached(&[0], 1), Some(0), "a voter alone");
        assert_eq!(reached(&[0], 3), None, "too few are connected");
    }

    #[test]
    fn a_round_trip_that_is_too_long_says_what_is_allowed() {
        let round_trip = |ms| RoundTrip { ms, allowed_ms: 115 };
        assert_eq!(round_trip(Some(115)).excess(), None);
        assert_eq!(round_trip(None).excess(), None);
        let said = round_trip(Some(160)).excess().unwrap();
        assert_eq!(said, "round trip 160 ms exceeds the 115 ms that the timers allow");
    }
}
