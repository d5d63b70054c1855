//! Who should vote: decided by what is known of the members, without doing anything.
//!
//! Of the members that stay 1, 3 or 5 vote: an even number would need one more for a majority and
//! survive no more failures for it. With two members one votes. So a third member makes three
//! voters of one, in one change, once both others have kept up with the log for a while; a fourth
//! makes none; a fifth makes five of three.
//!
//! ```text
//! n1 votes; n2, n3 new            n2 and n3 steady        n1, n2, n3
//! n1, n2, n3 vote; n3 leaves      n4 steady               n1, n2, n4      one change
//! n1, n2, n3 vote; n3 leaves      n4 not steady yet       wait: two can't lose one
//! n1, n2, n3 vote; n3 leaves      there is no n4          n1
//! n1, n2, n3 vote; n3 is down                             nothing: whether it comes back is the administrator's to say
//! ```
//!
//! A change needs a majority of those who vote before it and one of those who vote after it. Where
//! either can't be had, nothing is changed: it would neither succeed nor be undone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::placement::NodeId;

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It votes.
    pub votes: bool,
    /// It goes on being a member; one that doesn't is to lose its vote.
    pub stays: bool,
    /// It answers.
    pub answers: bool,
    /// It has answered and kept up with the log for long enough to be counted on.
    pub is_steady: bool,
}

/// Who should vote instead of those who do, all changed at once; none where that is as it should be
/// or has to wait.
pub fn wanted_voters(
    members: &BTreeMap<NodeId, Standing>,
    leader: NodeId,
) -> Option<BTreeSet<NodeId>> {
    let chosen = |fits: &dyn Fn(&Standing) -> bool| {
        let mut fitting: Vec<_> = members.iter().filter(|(_, member)| fits(member)).collect();
        fitting.sort_by_key(|(id, member)| (**id != leader, Reverse(member.answers), **id));
        fitting.into_iter().map(|(id, _)| *id).collect::<Vec<_>>()
    };
    let now: BTreeSet<_> = chosen(&|member| member.votes).into_iter().collect();
    let most = initial_voters(members.values().filter(|member| member.stays).count());
    let staying = chosen(&|member| member.votes && member.stays);
    let new = chosen(&|member| !member.votes && member.stays && member.is_steady);
    // Until somebody can take its place, a voter that leaves goes on voting.
    let leaving = chosen(&|member| member.votes && !member.stays);
    let mut wanted: Vec<_> = staying.into_iter().chain(new).chain(leaving).take(most).collect();
    if wanted.len().is_multiple_of(2) {
        wanted.pop();
    }
    let wanted: BTreeSet<_> = wanted.into_iter().collect();
    let is_safe =
        !wanted.is_empty() && has_majority(members, &wanted) && has_majority(members, &now);
    (wanted != now && is_safe).then_some(wanted)
}

/// Why the cluster couldn't do without the vote of `id` at the moment; none where it can.
pub fn needs_vote_of(members: &BTreeMap<NodeId, Standing>, id: NodeId) -> Option<String> {
    let voters: BTreeSet<_> = members.iter().filter(|(_, m)| m.votes).map(|(id, _)| *id).collect();
    if !voters.contains(&id) {
        return None;
    }
    let answer = |node: &NodeId| members.get(node).is_some_and(|member| member.answers);
    let others = voters.iter().filter(|node| **node != id && answer(node)).count();
    let (all, majority) = (voters.len(), voters.len() / 2 + 1);
    if all > 1 && others < majority {
        return Some(format!(
            "of the {} others that vote {others} can be reached, and {majority} of {all} are the \
             majority",
            all - 1
        ));
    }
    let successor = members.iter().any(|(node, m)| *node != id && m.stays && m.answers);
    (!successor).then(|| "nobody can be reached who could vote in its place".into())
}

/// How many of `nodes` vote in the beginning: 1, 3 or 5. An even number would need one more for a
/// majority and survive no more failures for it.
pub fn initial_voters(nodes: usize) -> usize {
    match nodes {
        0..=2 => nodes.min(1),
        3 | 4 => 3,
        _ => 5,
    }
}

fn has_majority(members: &BTreeMap<NodeId, Standing>, voters: &BTreeSet<NodeId>) -> bool {
    let answering = voters.iter().filter(|id| members.get(id).is_some_and(|member| member.answers));
    answering.count() > voters.len() / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `1V 2v 3l 4-`: node 1 votes and leads, node 2 votes, 3 and 4 don't. `!` leaves, `?` doesn't
    /// answer; a learner with `*` is steady.
    fn members(text: &str) -> (BTreeMap<NodeId, Standing>, NodeId) {
        let (mut members, mut leader) = (BTreeMap::new(), NodeId(0));
        for word in text.split_whitespace() {
            let id = NodeId(u64::from(word.as_bytes()[0] - b'0'));
            if word.contains('V') {
                leader = id;
            }
            let (votes, answers) = (word.to_lowercase().contains('v'), !word.contains('?'));
            let is_steady = answers && (votes || word.contains('*'));
            members.insert(id, Standing { votes, stays: !word.contains('!'), answers, is_steady });
        }
        (members, leader)
    }

    fn wanted(text: &str) -> String {
        let (members, leader) = members(text);
        let wanted = wanted_voters(&members, leader).into_iter().flatten();
        wanted.map(|id| id.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_three_or_five_vote() {
        for (before, after) in [
            ("1V", ""),
            ("1V 2l*", ""),                           // with two, one votes
            ("1V 2l* 3l", ""),                        // two would be worse than one
            ("1V 2l* 3l*", "1 2 3"),                  // in one change
            ("1V 2v 3v 4l*", ""),                     // a fourth waits
            ("1V 2v 3v 4l* 5l", ""),                  // and so does a fifth, until both are steady
            ("1V 2v 3v 4l* 5l*", "1 2 3 4 5"),        //
            ("1v 2v 3V 4l 5l* 6l* 7l*", "1 2 3 5 6"), // whoever is steady, the lowest first
            ("1V 2v 3v 4v 5v 6l* 7l*", ""),           // no more than five
            ("1V 2l* 3l* 4l* 5l*", "1 2 3 4 5"),      //
        ] {
            assert_eq!(wanted(before), after, "{before}");
        }
    }

    #[test]
    fn who_leaves_is_replaced_in_one_change_or_goes_on_voting_until_it_can_be() {
        for (before, after) in [
            ("1V 2v 3v! 4l*", "1 2 4"),
            ("1V 2v 3v!? 4l*", "1 2 4"), // it is gone already
            ("1V 2v 3v! 4l", ""),        // nobody is there yet for the third vote
            ("1V 2v 3v! 4l?", ""),       //
            ("1V 2v 3v!", "1"),          // there will be two
            ("1v 2V 3v!", "2"),          // the leader stays the leader
            ("1V! 2v 3v", "2"),          //
            ("1V 2v! 3v! 4l* 5l*", "1 4 5"),
            ("1V 2v! 3v! 4l* 5l", "1 2 4"), // one after the other
            ("1V! 2l*", "2"),               // the only vote is handed over
            ("1V! 2l", ""),                 //
            ("1V! 2l?", ""),                //
            ("1V 2v 3v 4v 5v!", "1 2 3"),   // four will be there, of which three vote
            ("1V 2v 3v? 4v 5v!", "1 2 4"),  // rather those that answer
            ("1V 2v 3v 4v 5v! 6l*", "1 2 3 4 6"),
            ("1V 2v! 3v!", "1"),
        ] {
            assert_eq!(wanted(before), after, "{before}");
        }
    }

    #[test]
    fn nothing_is_changed_that_a_majority_could_not_agree_to() {
        for before in [
            "1V 2v? 3v?! 4l*",      // no majority is there
            "1V 2v? 3v",            // who is down may come back
            "1V 2v? 3v 4l*",        //
            "1V 2v? 3v? 4v 5v! 6l", // of the three that would vote, the leader alone answers
        ] {
            assert_eq!(wanted(before), "", "{before}");
        }
    }

    #[test]
    fn a_vote_is_needed_as_long_as_the_others_are_no_majority_without_it() {
        let needs =
            |text: &str, id| needs_vote_of(&members(text).0, NodeId(id)).unwrap_or_default();
        for (fine, id) in [
            ("1V 2v 3v", 3),
            ("1V 2v 3v?", 3),
            ("1V 2v 3v", 1),
            ("1V 2v? 3v 4l", 4),
            ("1V 2l", 1),
            ("1V 2v 3v? 4v 5v", 2),
        ] {
            assert_eq!(needs(fine, id), "", "{fine} {id}");
        }
        let why = "of the 2 others that vote 1 can be reached, and 2 of 3 are the majority";
        assert_eq!(needs("1V 2v? 3v", 3), why);
        assert_eq!(needs("1V 2v? 3v", 1), why);
        assert_eq!(needs("1V 2l?", 1), "nobody can be reached who could vote in its place");
    }

    fn standing() -> impl Strategy<Value = Standing> {
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(votes, stays, answers, steady)| Standing {
                votes,
                stays,
                answers,
                is_steady: answers && steady,
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_is_known_a_change_is_to_an_odd_number_and_leads_to_rest(
            standings in proptest::collection::vec(standing(), 1..9),
        ) {
            let mut members: BTreeMap<_, _> = (1..).map(NodeId).zip(standings).collect();
            let leader = NodeId(1);
            members.insert(leader, Standing { votes: true, stays: true, answers: true, is_steady: true });
            let count = |m: &BTreeMap<NodeId, Standing>| m.values().filter(|m| m.votes).count();
            let mut changes = 0;
            while let Some(wanted) = wanted_voters(&members, leader) {
                prop_assert!(wanted.len() % 2 == 1 && wanted.len() <= 5);
                prop_assert!(has_majority(&members, &wanted));
                let before = count(&members);
                let kept = |id: &NodeId| members[id].votes || members[id].is_steady && members[id].stays;
                prop_assert!(wanted.iter().all(kept));
                for (id, member) in &mut members {
                    member.votes = wanted.contains(id);
                }
                // A vote is given up only where fewer stay than there are votes, or there was an
                // even number.
                let most = initial_voters(members.values().filter(|m| m.stays).count());
                let given_up = count(&members) < before;
                prop_assert!(!given_up || count(&members) == most || before % 2 == 0 || before > most);
                changes += 1;
                prop_assert!(changes < 4);
            }
        }
    }
}
