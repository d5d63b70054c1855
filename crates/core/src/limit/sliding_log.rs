//! The sliding log (A2): every admission remembered until it is a window old; exact at any instant.
//!
//! An entry is the instant of an admission and the running total of units up to and including it,
//! so the units within the window are a subtraction, and the entry whose expiry frees enough for a
//! denied cost is a binary search. An admission appends one entry and each entry is dropped once:
//! O(1) amortised; a denial searches, O(log n).
//!
//! An entry takes 16 bytes, and there is at most one for each unit spent in the last window; their
//! room grows by doubling, so a log of limit L takes at most 32·L bytes, the largest allowed
//! (10,000) 262 kB, and an idle one nothing. Admissions of one instant share an entry.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Algorithm, Outcome, Window, changed_at, shifted};
use crate::time::Now;

/// The largest limit a log may have; above it, `sliding_window` answers nearly the same in 32
/// bytes.
pub const ENTRIES_MAX: u64 = 10_000;

/// The admissions of the last window, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    length: u64,
    /// The running total before the oldest entry.
    dropped: u64,
    entries: VecDeque<Entry>,
    /// Boot time at which it was last touched.
    at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    at: u64,
    total: u64,
}

impl Log {
    /// The window that it was kept by, in nanoseconds.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn fresh(window: &Window, now: Now) -> Self {
        Self { length: window.length, dropped: 0, entries: VecDeque::new(), at: now.boot }
    }

    fn total(&self) -> u64 {
        self.entries.back().map_or(self.dropped, |newest| newest.total)
    }

    /// Units within the window.
    fn taken(&self) -> u64 {
        self.total() - self.dropped
    }

    /// Drops what has left the window.
    fn forget(&mut self, now: Now) {
        while let Some(oldest) = self.entries.front() {
            if now.boot.checked_sub(oldest.at).is_none_or(|age| age < self.length) {
                break;
            }
            self.dropped = oldest.total;
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            // Totals start over with an empty log, so they never outgrow a u64; the memory goes
            // back.
            (self.dropped, self.entries) = (0, VecDeque::new());
        }
    }

    fn expires_after(&self, entry: &Entry, now: Now) -> u64 {
        entry.at.saturating_add(self.length).saturating_sub(now.boot)
    }

    pub(super) fn is_fresh(&self, now: Now) -> bool {
        self.entries.back().is_none_or(|newest| {
            now.boot.checked_sub(newest.at).is_some_and(|age| age >= self.length)
        })
    }

    pub(super) fn shift_boot(&mut self, forward: i128) {
        self.at = shifted(self.at, forward);
        self.entries.iter_mut().for_each(|entry| entry.at = shifted(entry.at, forward));
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.entries.capacity() * size_of::<Entry>()
    }
}

impl Algorithm<Window> for Log {
    fn advance(&mut self, window: &Window, since: u64, now: Now) {
        if window.length != self.length {
            // What the old window had forgotten by the change stays forgotten.
            self.forget(changed_at(since, self.at, now));
            self.length = window.length;
        }
        self.forget(now);
        self.at = self.at.max(now.boot);
    }

    fn judge(&self, window: &Window, cost: u64, now: Now) -> Outcome {
        let taken = self.taken();
        if taken.saturating_add(cost) <= window.limit {
            return Outcome::Pass;
        }
        let Some(room) = window.limit.checked_sub(cost) else {
            return Outcome::Never;
        };
        // The first entry by whose end at most `room` units are left.
        let enough = self.dropped + (taken - room);
        let freeing = self.entries.partition_point(|entry| entry.total < enough);
        self.entries
            .get(freeing)
            .map_or(Outcome::Never, |entry| Outcome::Wait(self.expires_after(entry, now)))
    }

    fn take(&mut self, _window: &Window, cost: u64, now: Now) {
        let total = self.total().saturating_add(cost);
        match self.entries.back_mut() {
            // Entries stay in order even where the clock goes back.
            Some(newest) if newest.at >= now.boot => newest.total = total,
            _ => self.entries.push_back(Entry { at: now.boot, total }),
        }
    }

    fn remaining(&self, window: &Window, _now: Now) -> u64 {
        window.limit.saturating_sub(self.taken())
    }

    fn reset_after(&self, _window: &Window, taking: u64, now: Now) -> u64 {
        if taking > 0 {
            return self.length;
        }
        self.entries.back().map_or(0, |newest| self.expires_after(newest, now))
    }
}

#[cfg(test)]
mod tests {
    use crate::limit::{Outcome, Rule, State, Window};
    use crate::time::{Now, SECOND};

    fn at(boot: u64) -> Now {
        Now { boot, wall: 0 }
    }

    #[test]
    fn an_admission_leaves_the_window_to_the_nanosecond() {
        let rule = Rule::SlidingLog(Window { limit: 2, length: SECOND });
        let mut state = State::fresh(&rule, at(10));
        state.take(&rule, 1, at(10));
        state.take(&rule, 1, at(400));
        assert_eq!(state.judge(&rule, 1, 0, at(500)), Outcome::Wait(SECOND - 490));
        assert_eq!(state.judge(&rule, 2, 0, at(500)), Outcome::Wait(SECOND - 100));
        state.advance(&rule, 0, at(SECOND + 9));
        assert_eq!(state.judge(&rule, 1, 0, at(SECOND + 9)), Outcome::Wait(1));
        state.advance(&rule, 0, at(SECOND + 10));
        assert_eq!(state.judge(&rule, 1, 0, at(SECOND + 10)), Outcome::Pass);
    }

    #[test]
    fn an_idle_log_holds_no_memory() {
        let rule = Rule::SlidingLog(Window { limit: 100, length: SECOND });
        let mut state = State::fresh(&rule, at(0));
        for i in 0..100 {
            state.take(&rule, 1, at(i));
        }
        let busy = state.bytes();
        assert!(busy >= 1_600, "{busy}");
        assert!(!state.is_fresh(at(SECOND)) && state.is_fresh(at(SECOND + 99)));
        state.advance(&rule, 0, at(2 * SECOND));
        assert!(state.bytes() < 200);
    }

    #[test]
    fn a_limit_lowered_below_what_is_spent_frees_up_entry_by_entry() {
        let rule = |limit| Rule::SlidingLog(Window { limit, length: SECOND });
        let mut state = State::fresh(&rule(100), at(0));
        for i in 0..60 {
            state.take(&rule(100), 1, at(i));
        }
        assert_eq!(state.remaining(&rule(200), at(60)), 140);
        assert_eq!(state.remaining(&rule(50), at(60)), 0);
        // Eleven of the sixty must leave before one more fits.
        assert_eq!(state.judge(&rule(50), 1, 0, at(60)), Outcome::Wait(SECOND + 10 - 60));
    }
}
