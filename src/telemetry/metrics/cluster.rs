//! What a node's metrics say of its cluster: how it stands, the links to the other nodes, and what
//! passes over them.
//!
//! This room knows no cluster: whoever scrapes brings plain numbers. Peers are named in labels, and
//! there are at most 255 of them, with five series each.

use super::{Families, Scrape, histogram, seconds};

/// How the cluster stands, as this node sees it.
#[derive(Clone, Debug, Default)]
pub struct ClusterLevels {
    /// Raft's term.
    pub term: u64,
    /// The last entry of the log that this node has applied.
    pub applied: u64,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Whether a majority was heard of lately enough for a leader to be there.
    pub has_quorum: bool,
    /// Milliseconds since this node last knew that a majority is with it; none if it never did.
    pub contact_ms: Option<u64>,
    /// The entry of the log that last changed the placement; none before partitions are placed.
    pub placement_version: Option<u64>,
    /// How many members are in each state, by the state's word.
    pub members: Vec<(&'static str, usize)>,
    /// Members that vote.
    pub voters: usize,
    /// Partitions that this node owns.
    pub owned: usize,
    /// The links to the other nodes.
    pub links: Vec<LinkLevels>,
    /// What has become of the partitions that were to move away from this node.
    pub handoffs: HandOffLevels,
}

/// What has become of the partitions that were to move away from a node, since the process began.
#[derive(Clone, Debug, Default)]
pub struct HandOffLevels {
    /// Partitions that have moved.
    pub moved: u64,
    /// Partitions that stayed after all.
    pub stayed: u64,
    /// Bytes of counts that were sent.
    pub bytes: u64,
    /// Upper bounds of the slots of `frozen`, nanoseconds.
    pub bounds: Vec<u64>,
    /// Batches by how long they were frozen; one slot more than there are bounds.
    pub frozen: Vec<u64>,
    /// All of that together, nanoseconds.
    pub frozen_nanos: u128,
}

/// How the link to one other node stands.
#[derive(Clone, Debug)]
pub struct LinkLevels {
    /// The peer's name.
    pub peer: String,
    /// Its breaker's state, one of [`BREAKER_STATES`].
    pub breaker: &'static str,
    /// Times that its breaker has opened.
    pub opened: u64,
    /// Whether there is a connection.
    pub connected: bool,
}

/// What the state of a breaker can be.
const BREAKER_STATES: [&str; 3] = ["closed", "open", "half_open"];

/// What passed between this node and others for the sake of checks, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardCounts {
    /// Checks that this node forwarded to their owner, and that were answered.
    pub forwarded: u64,
    /// Checks whose owner couldn't be asked in time.
    pub unreachable: u64,
    /// Forwards that were sent again under the same number, since the first may have been charged.
    pub resent: u64,
    /// Forwards that an owner declined, because it isn't (under that epoch), and that went on
    /// elsewhere.
    pub moved: u64,
    /// Forwards of others that were decided here.
    pub received: u64,
    /// Forwards of others that came again and were answered as before.
    pub repeated: u64,
    /// Forwards of others that this node declined, because it isn't the owner under their epoch.
    pub not_owner: u64,
    /// Forwards of others whose number is too old to be told from a repetition.
    pub too_old: u64,
    /// Forwards of others that had to wait until this node went by what the sender went by.
    pub caught_up: u64,
    /// Questions of this node to limits that tenants share, on other nodes.
    pub shared_asks: u64,
    /// Questions of other nodes to limits that tenants share, here.
    pub shared_asked: u64,
}

impl Families {
    pub(super) fn cluster(&mut self, scrape: &Scrape) -> Result<(), prometheus::Error> {
        let levels = &scrape.cluster;
        let one_if = |yes: bool| f64::from(u8::from(yes));
        for (name, help, level) in [
            (
                "tidegate_raft_term",
                "Raft's term, which rises with each election.",
                levels.term as f64,
            ),
            (
                "tidegate_raft_applied_index",
                "The last entry of the log that this node has applied.",
                levels.applied as f64,
            ),
            ("tidegate_raft_is_leader", "1 on the node that leads.", one_if(levels.is_leader)),
            (
                "tidegate_quorum",
                "1 while this node has heard of a majority lately enough for a leader to be there.",
                one_if(levels.has_quorum),
            ),
            ("tidegate_voters", "Members that vote.", levels.voters as f64),
        ] {
            self.gauge(name, help, level)?;
        }
        // What isn't known has no series: a zero would look like a fresh contact, or like a first
        // placement.
        let age = levels.contact_ms.map(|ms| ([], ms as f64 / 1_000.0));
        self.gauges(
            "tidegate_quorum_contact_age_seconds",
            "Time since this node last knew that a majority is with it; nothing if it never did.",
            [],
            age,
        )?;
        self.gauges(
            "tidegate_placement_version",
            "The entry of the log that last changed which node owns what; nothing before that.",
            [],
            levels.placement_version.map(|version| ([], version as f64)),
        )?;
        let members =
            levels.members.iter().map(|(state, count)| ([state.to_string()], *count as f64));
        self.gauges("tidegate_members", "Members by how this node sees them.", ["state"], members)?;
        let roles = [("owner", levels.owned)];
        self.gauges(
            "tidegate_partitions",
            "Partitions of this node, of 4096, by what it is to them.",
            ["role"],
            roles.map(|(role, count)| ([role.to_string()], count as f64)),
        )?;
        self.links(&levels.links)?;
        self.handoffs(&levels.handoffs)?;
        self.forwards(&scrape.forwards)
    }

    fn links(&mut self, links: &[LinkLevels]) -> Result<(), prometheus::Error> {
        let states = links.iter().flat_map(|link| {
            BREAKER_STATES.map(|state| {
                let is_so = f64::from(u8::from(link.breaker == state));
                ([link.peer.clone(), state.to_string()], is_so)
            })
        });
        self.gauges(
            "tidegate_peer_breaker_state",
            "1 for the state that the breaker of the link to a peer is in, 0 for the others.",
            ["peer", "state"],
            states,
        )?;
        self.counters(
            "tidegate_peer_breaker_openings_total",
            "How often the breaker of the link to a peer has opened.",
            ["peer"],
            links.iter().map(|link| ([link.peer.clone()], link.opened)),
        )?;
        self.gauges(
            "tidegate_peer_connected",
            "1 while there is a connection to a peer.",
            ["peer"],
            links.iter().map(|link| ([link.peer.clone()], f64::from(u8::from(link.connected)))),
        )
    }

    fn handoffs(&mut self, levels: &HandOffLevels) -> Result<(), prometheus::Error> {
        let results = [("moved", levels.moved), ("stayed", levels.stayed)];
        self.counters(
            "tidegate_handoff_partitions_total",
            "Partitions that were to move away from this node, by what became of it.",
            ["result"],
            results.map(|(result, count)| ([result.to_string()], count)),
        )?;
        self.counters(
            "tidegate_handoff_bytes_total",
            "Bytes of counts that this node has sent to the next owners of its partitions.",
            [],
            [([], levels.bytes)],
        )?;
        self.histograms(
            "tidegate_handoff_frozen_seconds",
            "How long checks waited at most for partitions on their way from this node: the time \
             that a batch of them was frozen.",
            [],
            [([], histogram(&levels.bounds, &levels.frozen, seconds(levels.frozen_nanos)))],
        )
    }

    fn forwards(&mut self, counts: &ForwardCounts) -> Result<(), prometheus::Error> {
        let by = |list: &[(&str, u64)]| -> Vec<([String; 1], u64)> {
            list.iter().map(|(word, count)| ([word.to_string()], *count)).collect()
        };
        self.counters(
            "tidegate_forwarded_checks_total",
            "Checks that this node passed on to their owner, by what became of it.",
            ["result"],
            by(&[("answered", counts.forwarded), ("unreachable", counts.unreachable)]),
        )?;
        self.counters(
            "tidegate_received_checks_total",
            "Checks that other nodes passed on to this one, by what became of it.",
            ["result"],
            by(&[
                ("decided", counts.received),
                ("repeated", counts.repeated),
                ("not_owner", counts.not_owner),
                ("too_old", counts.too_old),
            ]),
        )?;
        self.counters(
            "tidegate_shared_limit_asks_total",
            "Questions between nodes to limits that tenants share.",
            ["direction"],
            by(&[("sent", counts.shared_asks), ("received", counts.shared_asked)]),
        )?;
        for (name, help, count) in [
            (
                "tidegate_forwards_resent_total",
                "Forwards that were sent again, since the first may have been charged.",
                counts.resent,
            ),
            (
                "tidegate_forwards_moved_total",
                "Forwards that went on to another node, since the first was not the owner.",
                counts.moved,
            ),
            (
                "tidegate_received_checks_waited_total",
                "Checks of other nodes that waited for the policy or the placement they were sent \
                 under.",
                counts.caught_up,
            ),
        ] {
            self.counters(name, help, [], [([], count)])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{ResourceLevels, render};
    use super::*;
    use crate::clock::{ManualClock, Now, SECOND};
    use crate::random::Seed;
    use crate::telemetry::Telemetry;

    fn rendered(cluster: ClusterLevels, forwards: ForwardCounts) -> String {
        let clock = ManualClock::at(Now { boot: SECOND, wall: 1_000_000 * SECOND });
        let telemetry =
            Telemetry::new(Arc::new(clock), Seed::from_number(1).fork("request ids", 0), None);
        let observed = telemetry.observe(Vec::new(), Default::default());
        let scrape = Scrape {
            observed,
            depths: Vec::new(),
            policy_version: 1,
            list_entries: 0,
            enforce: true,
            ready: true,
            resources: ResourceLevels::default(),
            cluster,
            forwards,
        };
        render(&telemetry, &scrape).unwrap().0
    }

    #[test]
    fn each_link_has_one_state_and_what_is_not_known_has_no_series() {
        let link = |peer: &str, breaker| LinkLevels {
            peer: peer.into(),
            breaker,
            opened: 2,
            connected: breaker == "closed",
        };
        let links = vec![link("n2", "closed"), link("n3", "half_open")];
        let text =
            rendered(ClusterLevels { links, ..Default::default() }, ForwardCounts::default());
        for line in [
            r#"tidegate_peer_breaker_state{peer="n2",state="closed"} 1"#,
            r#"tidegate_peer_breaker_state{peer="n2",state="open"} 0"#,
            r#"tidegate_peer_breaker_state{peer="n2",state="half_open"} 0"#,
            r#"tidegate_peer_breaker_state{peer="n3",state="closed"} 0"#,
            r#"tidegate_peer_breaker_state{peer="n3",state="half_open"} 1"#,
            r#"tidegate_peer_breaker_openings_total{peer="n3"} 2"#,
            r#"tidegate_peer_connected{peer="n2"} 1"#,
            r#"tidegate_peer_connected{peer="n3"} 0"#,
            "tidegate_quorum 0",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in {text}");
        }
        for nothing in ["tidegate_quorum_contact_age_seconds", "tidegate_placement_version"] {
            assert!(!text.contains(nothing), "{text}");
        }
    }

    #[test]
    fn a_clusters_levels_and_counts_are_what_was_given() {
        let levels = ClusterLevels {
            term: 7,
            applied: 123,
            is_leader: true,
            has_quorum: true,
            contact_ms: Some(12),
            placement_version: Some(9),
            members: vec![("up", 2), ("draining", 0), ("unreachable", 1)],
            voters: 3,
            owned: 1366,
            links: Vec::new(),
            handoffs: HandOffLevels {
                moved: 64,
                stayed: 3,
                bytes: 4_096,
                bounds: vec![SECOND / 1_000, SECOND],
                frozen: vec![5, 2, 1],
                frozen_nanos: 4 * u128::from(SECOND),
            },
        };
        let forwards = ForwardCounts {
            forwarded: 1,
            unreachable: 2,
            resent: 3,
            moved: 4,
            received: 5,
            repeated: 6,
            not_owner: 7,
            too_old: 8,
            caught_up: 9,
            shared_asks: 10,
            shared_asked: 11,
        };
        let text = rendered(levels, forwards);
        for line in [
            "tidegate_raft_term 7",
            "tidegate_raft_applied_index 123",
            "tidegate_raft_is_leader 1",
            "tidegate_quorum 1",
            "tidegate_quorum_contact_age_seconds 0.012",
            "tidegate_placement_version 9",
            "tidegate_voters 3",
            r#"tidegate_members{state="unreachable"} 1"#,
            r#"tidegate_partitions{role="owner"} 1366"#,
            r#"tidegate_handoff_partitions_total{result="moved"} 64"#,
            r#"tidegate_handoff_partitions_total{result="stayed"} 3"#,
            "tidegate_handoff_bytes_total 4096",
            r#"tidegate_handoff_frozen_seconds_bucket{le="0.001"} 5"#,
            r#"tidegate_handoff_frozen_seconds_bucket{le="1"} 7"#,
            r#"tidegate_handoff_frozen_seconds_bucket{le="+Inf"} 8"#,
            "tidegate_handoff_frozen_seconds_sum 4",
            r#"tidegate_forwarded_checks_total{result="answered"} 1"#,
            r#"tidegate_forwarded_checks_total{result="unreachable"} 2"#,
            "tidegate_forwards_resent_total 3",
            "tidegate_forwards_moved_total 4",
            r#"tidegate_received_checks_total{result="decided"} 5"#,
            r#"tidegate_received_checks_total{result="repeated"} 6"#,
            r#"tidegate_received_checks_total{result="not_owner"} 7"#,
            r#"tidegate_received_checks_total{result="too_old"} 8"#,
            "tidegate_received_checks_waited_total 9",
            r#"tidegate_shared_limit_asks_total{direction="sent"} 10"#,
            r#"tidegate_shared_limit_asks_total{direction="received"} 11"#,
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in {text}");
        }
    }
}
