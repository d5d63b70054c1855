//! The fixed window (A1): a count that starts anew with every window of the wall clock.
//!
//! Windows are aligned to multiples of their length since the Unix epoch: one-minute windows begin
//! with the minute. Twice the limit can pass around a window's end; who minds takes
//! `sliding_window`. The index of the window never goes back, whatever the clock does.

use serde::{Deserialize, Serialize};

use super::{Algorithm, Outcome, Window, changed_at, shifted};
use crate::time::Now;

/// Units taken in window number `index` of `length` nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    length: u64,
    index: u64,
    taken: u64,
    /// Boot time at which it was last touched.
    at: u64,
}

impl Count {
    /// The window that it was kept by, in nanoseconds.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn fresh(window: &Window, now: Now) -> Self {
        Self { length: window.length, index: now.wall / window.length, taken: 0, at: now.boot }
    }

    fn roll(&mut self, now: Now) {
        let index = now.wall / self.length;
        if index > self.index {
            (self.index, self.taken) = (index, 0);
        }
    }

    /// See [`super::State::shift_boot`].
    pub(super) fn shift_boot(&mut self, forward: i128) {
        self.at = shifted(self.at, forward);
    }

    pub(super) fn is_fresh(&self, now: Now) -> bool {
        self.taken == 0 || now.wall / self.length > self.index
    }
}

/// Nanoseconds until window number `index` ends.
pub(super) fn ends_after(index: u64, length: u64, now: Now) -> u64 {
    index.saturating_add(1).saturating_mul(length).saturating_sub(now.wall)
}

impl Algorithm<Window> for Count {
    fn advance(&mut self, window: &Window, since: u64, now: Now) {
        if window.length != self.length {
            // What the window has spent at the change is spent in the new one too.
            let then = changed_at(since, self.at, now);
            self.roll(then);
            (self.length, self.index) = (window.length, then.wall / window.length);
        }
        self.roll(now);
        self.at = self.at.max(now.boot);
    }

    fn judge(&self, window: &Window, cost: u64, now: Now) -> Outcome {
        if self.taken.saturating_add(cost) <= window.limit {
            return Outcome::Pass;
        }
        if cost > window.limit {
            return Outcome::Never;
        }
        Outcome::Wait(ends_after(self.index, self.length, now))
    }

    fn take(&mut self, _window: &Window, cost: u64, _now: Now) {
        self.taken = self.taken.saturating_add(cost);
    }

    fn remaining(&self, window: &Window, _now: Now) -> u64 {
        window.limit.saturating_sub(self.taken)
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
    fn a_window_begins_with_the_minute_of_the_wall_clock() {
        let rule = Rule::FixedWindow(Window { limit: 2, length: 60 * SECOND });
        let now = at(1_000_000_019 * SECOND);
        let mut state = State::fresh(&rule, now);
        state.take(&rule, 2, now);
        // 1,000,000,019 is 59 s into its minute.
        assert_eq!(state.judge(&rule, 1, 0, now), Outcome::Wait(SECOND));
        let next = at(1_000_000_020 * SECOND);
        state.advance(&rule, 0, next);
        assert_eq!(state.judge(&rule, 2, 0, next), Outcome::Pass);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_back() {
        let rule = Rule::FixedWindow(Window { limit: 1, length: SECOND });
        let mut state = State::fresh(&rule, at(100 * SECOND));
        state.take(&rule, 1, at(100 * SECOND));
        state.advance(&rule, 0, at(50 * SECOND));
        assert_eq!(state.judge(&rule, 1, 0, at(50 * SECOND)), Outcome::Wait(51 * SECOND));
    }

    #[test]
    fn spent_stays_spent_when_the_window_changes() {
        let (minute, hour) = (
            Rule::FixedWindow(Window { limit: 100, length: 60 * SECOND }),
            Rule::FixedWindow(Window { limit: 200, length: 3_600 * SECOND }),
        );
        let mut state = State::fresh(&minute, at(30 * SECOND));
        state.take(&minute, 60, at(30 * SECOND));
        state.advance(&hour, 0, at(31 * SECOND));
        assert_eq!(state.remaining(&hour, at(31 * SECOND)), 140);
    }
}
