//! Terms that can't be: a message whose term is far above the node's own is refused.
//!
//! A node takes over the term of any message that names a higher one, durably, and an election adds
//! one to it. A single message of term 2^64-1 would end all elections for good. Terms rise by one
//! an election, so a node that was away for a year is behind by a few thousand.
//!
//! ```text
//! own term 7, a vote of term 8             taken
//! own term 7, a vote of term 7 + 2^20      taken: an election a second for twelve days
//! own term 7, a vote of term 2^64-1        refused and logged
//! no term yet, a leader of term 2^21       taken: a node that joins has nothing to compare it with
//! ```

use super::types::Vote;

/// How far the term of a message may be above the node's own.
pub(super) const TERM_JUMP_MAX: u64 = 1 << 20;
/// The highest term that a node takes which has none yet: it has nothing to compare it with.
const FIRST_TERM_MAX: u64 = 1 << 40;
/// The highest term that a node can start with: far from where an election can't add one.
pub(super) const TERM_MAX: u64 = 1 << 62;

/// A message with a term that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "refused a message of term {theirs}: this node's term is {own}, and elections don't raise it \
     by more than {TERM_JUMP_MAX} (see \"A term that jumped\" in docs/peers.md)"
)]
pub(super) struct TermJump {
    own: u64,
    theirs: u64,
}

/// Judges the vote of a message by the node's own term; 0 is a node that has none yet.
pub(super) fn judge(own: u64, vote: &Vote) -> Result<(), TermJump> {
    let theirs = vote.leader_id.term;
    let most = if own == 0 { FIRST_TERM_MAX } else { own.saturating_add(TERM_JUMP_MAX) };
    if theirs <= most { Ok(()) } else { Err(TermJump { own, theirs }) }
}

/// Returns the term from which the data of a stopped node goes on: that of its last vote, unless a
/// message made it jump above that of its last entry.
pub(super) fn of_data(last_entry: u64, last_vote: u64) -> u64 {
    let jumped = last_vote > TERM_MAX || last_vote.saturating_sub(last_entry) > TERM_JUMP_MAX;
    if jumped { last_entry } else { last_entry.max(last_vote) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::NodeId;

    #[test]
    fn a_term_may_rise_by_as_much_as_elections_can_raise_it() {
        let judged = |own, theirs| judge(own, &Vote::new(theirs, NodeId(2)));
        for (own, theirs, is_taken) in [
            (7, 6, true),
            (7, 8, true),
            (7, 7 + (1 << 20), true),
            (7, 8 + (1 << 20), false),
            (7, u64::MAX, false),
            (0, 1 << 21, true),
            (0, (1 << 40) + 1, false),
            (u64::MAX - 1, u64::MAX, true),
        ] {
            assert_eq!(judged(own, theirs).is_ok(), is_taken, "{own} {theirs}");
        }
        let why = judged(7, u64::MAX).unwrap_err().to_string();
        assert!(
            why.starts_with(
                "refused a message of term 18446744073709551615: this node's term is 7"
            ),
            "{why}"
        );
    }

    #[test]
    fn recovery_goes_on_from_the_last_entry_where_the_term_jumped() {
        let table =
            [(5, 5, 5), (5, 9, 9), (9, 5, 9), (5, u64::MAX, 5), (5, 6 + (1 << 20), 5), (0, 3, 3)];
        for (last_entry, last_vote, term) in table {
            assert_eq!(of_data(last_entry, last_vote), term, "{last_entry} {last_vote}");
        }
    }
}
