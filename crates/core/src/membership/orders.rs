//! Orders about members: what administrators ask for, and when the leader must refuse it.
//!
//! An order is refused where it would cost what can't be had back: the majority, the last node that
//! may own partitions, or counts that a node could still hand over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reconciler::{Facts, GIVEN_UP_AFTER, Reconciler, SILENT_AFTER};
use super::voters::needs_vote_of;
use crate::check::Name;
use crate::placement::{NodeId, Weight};
use crate::state::{Agreed, Leaving, LogIndex, Member, NewMember, Refusal};

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// A node is to become a member.
    Admit(NewMember),
    /// A member is to leave.
    Leave {
        /// Its name.
        node: Name,
        /// With what it owns handed over, or given up.
        how: Leaving,
    },
    /// A member is to own nothing any more; or may again, and stays if it was leaving.
    Drain {
        /// Its name.
        node: Name,
        /// Which of both.
        draining: bool,
    },
    /// A member is to take more of the load, or less.
    Weigh {
        /// Its name.
        node: Name,
        /// With none it owns nothing.
        weight: Weight,
    },
}

/// An order that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The member that it is about.
    pub node: NodeId,
    /// The entry of the log that says so, or a later one.
    pub at: LogIndex,
    /// It wasn't so before.
    pub is_new: bool,
}

/// Why an order was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Denied {
    /// Nobody could judge it. Nothing was changed.
    #[error("the cluster has no leader at the moment; nothing was changed")]
    NoLeader,
    /// The time was up while it was on its way.
    #[error("whether it was done is not known: look at the members before asking again")]
    Unknown,
    /// There is nobody of that name.
    #[error("there is no node {0}")]
    NoSuchNode(Name),
    /// It can't be, whatever becomes of the cluster.
    #[error("{detail}")]
    Impossible {
        /// The member of the order that is at fault; empty for the whole.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// It could be done, and would cost what can't be had back.
    #[error("{0}")]
    Unsafe(String),
}

/// Returns the member of that name; errs where there is none.
pub fn named<'a>(agreed: &'a Agreed, name: &Name) -> Result<(NodeId, &'a Member), Denied> {
    let found = agreed.members.iter().find(|(_, member)| member.name == *name);
    found.ok_or_else(|| Denied::NoSuchNode(name.clone()))
}

/// What a node is that asks to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// No member yet.
    New,
    /// A member that has never been there.
    Is(NodeId),
    /// The same, at other addresses: its container was restarted before its first start was
    /// through.
    Moves(NodeId),
}

/// Returns what becomes of the request; errs where the node can't be admitted.
pub fn judge_admission(agreed: &Agreed, new: &NewMember) -> Result<Admission, Denied> {
    let impossible =
        |path: &str, detail: String| Err(Denied::Impossible { path: path.into(), detail });
    let same = named(agreed, &new.name).ok();
    match same {
        Some((id, member)) if member.was_there() => {
            return impossible("id", format!("{} is a member already, as node {id}", new.name));
        }
        Some((id, member)) if (&member.http, &member.peer) == (&new.http, &new.peer) => {
            return Ok(Admission::Is(id));
        }
        _ => {}
    }
    for (_, member) in
        agreed.members.iter().filter(|(id, _)| same.is_none_or(|(same, _)| same != *id))
    {
        for (path, theirs, ours) in
            [("http", &member.http, &new.http), ("peer", &member.peer, &new.peer)]
        {
            if theirs == ours {
                return impossible(
                    path,
                    format!("{ours} is the {path} address of {} already", member.name),
                );
            }
        }
        if member.peer.is_empty() {
            let detail = format!(
                "{} is alone: it has no peer address where others could reach it",
                member.name
            );
            return impossible("", detail);
        }
    }
    Ok(same.map_or(Admission::New, |(id, _)| Admission::Moves(id)))
}

/// The number of the member that may leave, and whether that is news.
pub fn judge_leaving(
    reconciler: &Reconciler,
    facts: &Facts<'_>,
    name: &Name,
    how: Leaving,
) -> Result<(NodeId, bool), Denied> {
    let (id, member) = named(facts.agreed, name)?;
    if member.leaving == Some(how) || member.leaving == Some(Leaving::Abandoned) {
        return Ok((id, false));
    }
    facts.agreed.spare(id).map_err(|refusal| refused(name, &refusal))?;
    let silence = if id == facts.me { Duration::ZERO } else { reconciler.silence(facts, id) };
    let owned = facts.agreed.owned_by(id);
    match how {
        Leaving::Abandoned if silence < GIVEN_UP_AFTER => {
            return Err(Denied::Unsafe(match id == facts.me || reconciler.has_heard(facts, id) {
                true => format!(
                    "{name} was heard of in the last {GIVEN_UP_AFTER:?}: it can hand over what it \
                     has counted; only a node that is gone is given up"
                ),
                false => format!(
                    "{name} may still run: the leader has led for {silence:.1?} and has not heard \
                     of it in that time; only a node that was silent for {GIVEN_UP_AFTER:?} is \
                     given up: ask again in a few seconds"
                ),
            }));
        }
        Leaving::HandingOver if silence > SILENT_AFTER && owned > 0 => {
            return Err(Denied::Unsafe(format!(
                "{name} can't be reached, so the {owned} partitions that it owns can't be handed \
                 over: bring it back, or give it up, and they begin as spent elsewhere"
            )));
        }
        Leaving::Abandoned | Leaving::HandingOver => {}
    }
    match needs_vote_of(&reconciler.standings(facts), id) {
        Some(why) => {
            Err(Denied::Unsafe(format!("the cluster can't do without the vote of {name}: {why}")))
        }
        None => Ok((id, true)),
    }
}

/// What the log refuses, in the words of people.
pub fn refused(name: &Name, refusal: &Refusal) -> Denied {
    match refusal {
        Refusal::NoSuchMember(_) => Denied::NoSuchNode(name.clone()),
        Refusal::LastMember(_) => Denied::Unsafe(format!("{name} is the last member")),
        Refusal::LastOwner(_) => Denied::Unsafe(format!(
            "{name} is the last node that may own partitions: nobody could decide"
        )),
        Refusal::NotBegun => Denied::NoLeader,
        other => Denied::Impossible { path: String::new(), detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::membership::{Following, Roster};
    use crate::placement::{BootId, Secret};
    use crate::state::{Command, RequestId, Seating, State, What};
    use crate::time::SECOND;

    fn name(node: u64) -> Name {
        Name::new(&format!("n{node}")).unwrap()
    }

    fn new(node: u64) -> NewMember {
        NewMember {
            name: name(node),
            http: format!("h{node}:1"),
            peer: format!("p{node}:1"),
            weight: Weight::ONE,
        }
    }

    /// Nodes 1 to 3, all there, and node 4, which was admitted and hasn't come.
    fn agreed() -> State {
        let document = r#"{"default_tier":"t0","tiers":{"t0":{"limits":[]}}}"#.into();
        let begin = What::Begin {
            secret: Secret::new(1, 2).into(),
            document,
            members: [1, 2, 3].map(new).into(),
        };
        let seat = |node| {
            let seating =
                Seating { boot: BootId(1), http: format!("h{node}:1"), peer: format!("p{node}:1") };
            What::Seat(NodeId(node), seating)
        };
        let mut state = State::default();
        for (at, what) in (3..).zip([begin, seat(1), seat(2), seat(3), What::Admit(new(4))]) {
            let command =
                Command { request: RequestId(at.into()), time: 1, by: "ops".into(), what };
            state.apply(LogIndex(at), &command).unwrap();
        }
        state
    }

    #[test]
    fn whoever_asks_again_before_it_has_been_there_is_answered_the_same() {
        let state = agreed();
        let judged = |new: &NewMember| match judge_admission(state.agreed().unwrap(), new) {
            Ok(admission) => format!("{admission:?}"),
            Err(denied) => denied.to_string(),
        };
        assert_eq!(judged(&new(4)), "Is(NodeId(7))");
        assert_eq!(judged(&new(5)), "New");
        let other = |node, http: &str, peer: &str| NewMember {
            name: name(node),
            http: http.into(),
            peer: peer.into(),
            weight: Weight::ONE,
        };
        // Its container may have got another address before it was ever there.
        assert_eq!(judged(&other(4, "h4:1", "p9:1")), "Moves(NodeId(7))");
        for (wanted, why) in [
            (other(4, "h4:1", "p3:1"), "p3:1 is the peer address of n3 already"),
            (new(2), "n2 is a member already, as node 2"),
            (other(5, "h3:1", "p5:1"), "h3:1 is the http address of n3 already"),
            (other(5, "h5:1", "p4:1"), "p4:1 is the peer address of n4 already"),
        ] {
            assert_eq!(judged(&wanted), why);
        }
    }

    const NEVER_HEARD: u64 = u64::MAX;

    /// What becomes of the order that node `node` leave, where each of the others has been silent
    /// for so many seconds.
    fn leaving(node: u64, how: Leaving, silent: [u64; 3]) -> String {
        let state = agreed();
        let heard = |(id, silent): (u64, u64)| {
            let silent = (silent != NEVER_HEARD).then(|| Duration::from_secs(silent));
            (NodeId(id), Following { behind: 0, silent })
        };
        let following: BTreeMap<_, _> = (2..).zip(silent).map(heard).collect();
        let roster = Roster {
            nodes: BTreeMap::new(),
            voters: [1, 2, 3].map(NodeId).into(),
            is_joint: false,
            is_settled: true,
        };
        let agreed = state.agreed().unwrap();
        let facts = Facts {
            me: NodeId(1),
            agreed,
            roster: &roster,
            following: &following,
            now: 100 * SECOND,
        };
        match judge_leaving(&Reconciler::default(), &facts, &name(node), how) {
            Ok((id, is_new)) => format!("{id} {is_new}"),
            Err(denied) => denied.to_string(),
        }
    }

    #[test]
    fn who_answers_hands_over_and_who_does_not_is_given_up() {
        for node in 1..=3 {
            assert_eq!(leaving(node, Leaving::HandingOver, [0, 0, 0]), format!("{node} true"));
        }
        assert_eq!(leaving(9, Leaving::HandingOver, [0, 0, 0]), "there is no node n9");
        let why = leaving(3, Leaving::HandingOver, [0, 2, 0]);
        assert!(why.starts_with("n3 can't be reached, so the 136"), "{why}");
        for silent in [0, 4] {
            let why = leaving(3, Leaving::Abandoned, [0, silent, 0]);
            assert!(why.starts_with("n3 was heard of in the last 5s"), "{why}");
        }
        assert_eq!(leaving(3, Leaving::Abandoned, [0, 5, 0]), "3 true");
        let why = leaving(3, Leaving::Abandoned, [0, NEVER_HEARD, 0]);
        assert!(why.starts_with("n3 may still run: the leader has led for 0.0"), "{why}");
        assert!(leaving(1, Leaving::Abandoned, [0, 0, 0]).starts_with("n1 was heard of"));
    }

    #[test]
    fn nobody_leaves_whose_vote_the_majority_needs() {
        let why = "the cluster can't do without the vote of n3: of the 2 others that vote 1 can be \
                   reached, and 2 of 3 are the majority";
        assert_eq!(leaving(3, Leaving::HandingOver, [9, 0, 0]), why);
        assert_eq!(leaving(2, Leaving::Abandoned, [9, 9, 0]), why.replace("n3", "n2"));
    }
}
