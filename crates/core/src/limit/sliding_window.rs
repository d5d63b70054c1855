//! The sliding window counter (A3): this window's count and a falling share of the one before.
//!
//! With windows of length W aligned to the Unix epoch, `elapsed` nanoseconds into the current one,
//! a cost passes iff
//!
//! ```text
//! current·W + previous·(W − elapsed) + cost·W ≤ limit·W
//! ```
//!
//! in whole numbers, unrounded. The left side falls continuously, also across a window's end, so
//! the instant at which a denied cost would pass can be computed exactly. Two counters stand for
//! any number of admissions; the estimate takes the previous window's to have been spread evenly.

use serde::{Deserialize, Serialize};

use super::fixed_window::ends_after;
use super::rate::{quotient, quotient_up};
use super::{Algorithm, Outcome, Window, changed_at, shifted};
use crate::time::Now;

/// Units taken in window number `index` and in the one before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    length: u64,
    index: u64,
    current: u64,
    previous: u64,
    /// Boot time at which they were last touched.
    at: u64,
}

impl Counts {
    /// The window that it was kept by, in nanoseconds.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn fresh(window: &Window, now: Now) -> Self {
        Self {
            length: window.length,
            index: now.wall / window.length,
            current: 0,
            previous: 0,
            at: now.boot,
        }
    }

    fn roll(&mut self, now: Now) {
        let index = now.wall / self.length;
        if index > self.index {
            self.previous = if index - self.index == 1 { self.current } else { 0 };
            (self.index, self.current) = (index, 0);
        }
    }

    /// Nanoseconds for which the previous window still counts; the whole length where the clock
    /// went back.
    fn left(&self, now: Now) -> u64 {
        ends_after(self.index, self.length, now).min(self.length)
    }

    /// What counts as taken now, times W.
    fn weighted(&self, now: Now) -> u128 {
        u128::from(self.current) * u128::from(self.length)
            + u128::from(self.previous) * u128::from(self.left(now))
    }

    /// See [`super::State::shift_boot`].
    pub(super) fn shift_boot(&mut self, forward: i128) {
        self.at = shifted(self.at, forward);
    }

    pub(super) fn is_fresh(&self, now: Now) -> bool {
        let newer = (now.wall / self.length).saturating_sub(self.index);
        newer >= 2 || (self.current == 0 && (newer == 1 || self.previous == 0))
    }
}

impl Algorithm<Window> for Counts {
    fn advance(&mut self, window: &Window, since: u64, now: Now) {
        if window.length != self.length {
            // What counts at the change counts in the new window from its first moment: rounded up,
            // and late to leave.
            let then = changed_at(since, self.at, now);
            self.roll(then);
            let taken = quotient_up(self.weighted(then), self.length);
            *self = Self { current: taken, ..Self::fresh(window, then) };
        }
        self.roll(now);
        self.at = self.at.max(now.boot);
    }

    fn judge(&self, window: &Window, cost: u64, now: Now) -> Outcome {
        let length = u128::from(self.length);
        let Some(room) = window.limit.checked_sub(cost) else {
            return Outcome::Never;
        };
        let room = u128::from(room) * length;
        if self.weighted(now) <= room {
            return Outcome::Pass;
        }
        // How long `count`, fading over one window, takes to leave at most `room`: the largest left
        // with count·left ≤ room.
        let fades =
            |count: u64, room: u128| self.length - quotient(room, count.max(1)).min(self.length);
        let left = ends_after(self.index, self.length, now);
        let current = u128::from(self.current) * length;
        Outcome::Wait(if current <= room {
            left.saturating_sub(self.length - fades(self.previous, room - current))
        } else {
            left.saturating_add(fades(self.current, room))
        })
    }

    fn take(&mut self, _window: &Window, cost: u64, _now: Now) {
        self.current = self.current.saturating_add(cost);
    }

    fn remaining(&self, window: &Window, now: Now) -> u64 {
        let free =
            (u128::from(window.limit) * u128::from(self.length)).saturating_sub(self.weighted(now));
        quotient(free, self.length)
    }

    fn reset_after(&self, _window: &Window, _taking: u64, now: Now) -> u64 {
        ends_after(self.index, self.length, now)
    }
}

#[cfg(test)]
mod tests {
    use crate::limit::{Outcome, Rule, State, Window};
    use crate::time::{Now, SECOND};

    fn at(wall: u64) -> Now {
        Now { boot: wall, wall }
    }

    #[test]
    fn the_previous_window_counts_for_the_share_that_remains_of_it() {
        let rule = Rule::SlidingWindow(Window { limit: 100, length: 60 * SECOND });
        let mut state = State::fresh(&rule, at(0));
        state.take(&rule, 80, at(0));
        // A quarter into the next minute, three quarters of 80 still count.
        let now = at(75 * SECOND);
        state.advance(&rule, 0, now);
        assert_eq!(state.remaining(&rule, now), 40);
        assert_eq!(state.judge(&rule, 41, 0, now), Outcome::Wait(750_000_000));
    }

    #[test]
    fn a_denial_in_a_full_window_waits_into_the_next() {
        let rule = Rule::SlidingWindow(Window { limit: 10, length: 10 * SECOND });
        let mut state = State::fresh(&rule, at(0));
        state.take(&rule, 10, at(0));
        // Until the window ends, and then a tenth of the next: 10·9/10 + 1 ≤ 10.
        assert_eq!(state.judge(&rule, 1, 0, at(4 * SECOND)), Outcome::Wait(7 * SECOND));
    }

    #[test]
    fn spent_stays_spent_when_the_limit_changes() {
        let rule = |limit| Rule::SlidingWindow(Window { limit, length: 3_600 * SECOND });
        let mut state = State::fresh(&rule(100), at(0));
        state.take(&rule(100), 60, at(0));
        assert_eq!(state.remaining(&rule(200), at(0)), 140);
        assert_eq!(state.remaining(&rule(50), at(0)), 0);
    }
}
