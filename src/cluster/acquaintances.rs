//! Whom a node looks for, and where.
//!
//! Numbers and names come from the best source there is: the members that the log names; Raft's own
//! records, which are readable before the log has been applied; what a node was given as it was
//! admitted; and only at the first start of a cluster the list of the configuration, in its order.
//! Whoever still gets the log without being a member (it has left, and is to hear of it) is one
//! too.
//!
//! Where they are comes from the same source. Where the configuration lists a node of that name
//! elsewhere it is looked for there, too, by its link (`links/reach.rs`).

use std::collections::BTreeMap;

use super::SeedNode;
use super::claim::Claim;
use super::raft::View;
use crate::check::Name;
use crate::placement::NodeId;

/// The number of a node that was there from the beginning, by its place in the list.
pub fn number(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

/// All but the node of `claim` itself: number, name and address. `listed` is what the configuration
/// says.
pub fn acquaintances(
    claim: &Claim,
    view: &View,
    listed: &[SeedNode],
) -> Vec<(NodeId, Name, String)> {
    let mut known = BTreeMap::new();
    for (id, address) in &view.nodes {
        known.extend(Name::new(&address.name).map(|name| (*id, (name, address.peer.clone()))));
    }
    if let Some(agreed) = view.state.agreed() {
        known.extend(
            agreed
                .members
                .iter()
                .map(|(id, member)| (id, (member.name.clone(), member.peer.clone()))),
        );
    }
    if known.is_empty() {
        known = at_first(claim, listed);
    }
    known.remove(&claim.node);
    known.into_iter().map(|(id, (name, peer))| (id, name, peer)).collect()
}

/// Whom a node knows that knows nothing of the log.
fn at_first(claim: &Claim, listed: &[SeedNode]) -> BTreeMap<NodeId, (Name, String)> {
    match &claim.admission {
        Some(admission) => {
            let members = admission.members.iter();
            members
                .map(|member| (member.number, (member.name.clone(), member.peer.clone())))
                .collect()
        }
        None => {
            let numbered = (0..).zip(listed);
            numbered
                .map(|(at, seed)| (number(at), (seed.name.clone(), seed.peer.clone())))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::claim::{Acquaintance, Admission};
    use crate::cluster::raft::Address;
    use crate::cluster::state::{Command, LogIndex, NewMember, RequestId, State, What};
    use crate::placement::{Secret, Weight};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn claim(node: u64) -> Claim {
        Claim::first(NodeId(node), name(&format!("n{node}")), name("demo"))
    }

    fn listed(seeds: &[(&str, &str)]) -> Vec<SeedNode> {
        let seed = |(id, peer): &(&str, &str)| SeedNode {
            name: name(id),
            http: String::new(),
            peer: peer.to_string(),
            weight: Weight::ONE,
        };
        seeds.iter().map(seed).collect()
    }

    fn shown(claim: &Claim, view: &View, listed: &[SeedNode]) -> String {
        let known = acquaintances(claim, view, listed).into_iter();
        known.map(|(id, name, peer)| format!("{id} {name} {peer}")).collect::<Vec<_>>().join(", ")
    }

    /// What is agreed on by these members, numbered from 1.
    fn agreed(members: &[(&str, &str)]) -> State {
        let member = |(id, peer): &(&str, &str)| NewMember {
            name: name(id),
            http: "h:1".into(),
            peer: peer.to_string(),
            weight: Weight::ONE,
        };
        let what = What::Begin {
            secret: Secret::new(1, 2).into(),
            document: r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#.into(),
            members: members.iter().map(member).collect(),
        };
        let mut state = State::default();
        let command = Command { request: RequestId(1), time: 1, by: "ops".into(), what };
        state.apply(LogIndex(3), &command).unwrap();
        state
    }

    #[test]
    fn at_the_first_start_the_list_numbers_the_nodes_in_its_order() {
        let list = listed(&[("n1", "a:1"), ("n2", "a:2"), ("n3", "a:3")]);
        assert_eq!(shown(&claim(2), &View::default(), &list), "1 n1 a:1, 3 n3 a:3");
    }

    #[test]
    fn a_list_in_another_order_or_of_other_nodes_numbers_nobody_once_the_log_is_there() {
        let others = listed(&[("n3", "a:3"), ("n9", "a:9"), ("n1", "b:1")]);
        let nodes = [(1, "n1", "a:1"), (2, "n2", "a:2"), (57, "n3", "a:3")];
        let nodes = nodes.map(|(id, name, peer)| (NodeId(id), Address::new(name, peer)));
        let records = View { nodes: nodes.clone().into(), ..View::default() };
        assert_eq!(shown(&claim(2), &records, &others), "1 n1 a:1, 57 n3 a:3");
        assert_eq!(shown(&claim(2), &records, &[]), "1 n1 a:1, 57 n3 a:3");
    }

    #[test]
    fn the_log_knows_where_the_members_are_and_records_know_who_has_just_left() {
        let nodes =
            [(NodeId(2), Address::new("n2", "old:2")), (NodeId(9), Address::new("n9", "a:9"))];
        let state = agreed(&[("n1", "a:1"), ("n2", "new:2")]);
        let view = View { applied: LogIndex(3), state, nodes: nodes.into() };
        assert_eq!(shown(&claim(1), &view, &[]), "2 n2 new:2, 9 n9 a:9");
        assert_eq!(shown(&claim(1), &view, &listed(&[("n2", "file:2")])), "2 n2 new:2, 9 n9 a:9");
    }

    #[test]
    fn whoever_was_admitted_knows_whom_it_was_told_of_and_no_list() {
        let acquaintance = |number, text: &str| Acquaintance {
            number: NodeId(number),
            name: name(text),
            peer: format!("{text}:7171"),
        };
        let admission = Admission {
            environment: name("production"),
            members: vec![acquaintance(1, "n1"), acquaintance(57, "n4")],
            tokens: Vec::new(),
        };
        let claim =
            Claim { node: NodeId(57), name: name("n4"), admission: Some(admission), ..claim(57) };
        assert_eq!(shown(&claim, &View::default(), &[]), "1 n1 n1:7171");
        assert_eq!(shown(&claim, &View::default(), &listed(&[("n4", "x:4")])), "1 n1 n1:7171");
    }
}
