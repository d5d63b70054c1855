//! Every algorithm beside a naive model of itself, on random schedules.
//!
//! The algorithms are written to be small and quick: a debt is paid off in one multiplication, a
//! window is a pair of counters, a calendar is asked once a period. The models in `models` are
//! written to be plainly right: they keep every admission, or every window's count, since the
//! beginning, never advance anything, and answer each question by going over all of it. Where both
//! say the same at every step of thousands of schedules, the shortcuts are sound.
//!
//! A schedule is a list of steps: let time pass, then ask for a cost or change the numbers. It is
//! drawn so that the interesting instants are common: bursts at one instant, the very nanosecond
//! that a denial named and those beside it, ends of windows, years of silence. For example, with a
//! log of 3 a second:
//!
//! ```text
//! Ask 3 → Pass    Ask 1 → Wait(10⁹)    Told −1 ns, Ask 1 → Wait(1)    Told, Ask 1 → Pass    Limit 5, Ask 5 → Wait(10⁹)
//! ```
//!
//! `agreement` compares each algorithm with its model; `waits`, `held`, `steady`, `fresh`,
//! `changes`, `flow` and `edges` hold one kind of promise each; `permits` does all of it for
//! concurrency, whose state is a set of its own.
//!
//! A case that failed is written to `proptest-regressions/` and tried first from then on: commit it
//! with the fix. `PROPTEST_CASES=100000 cargo test model_tests` looks harder.

mod agreement;
mod calendar;
mod changes;
mod edges;
mod flow;
mod fresh;
mod held;
mod models;
mod permits;
mod schedule;
mod steady;
mod waits;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::FileFailurePersistence;

use super::{Outcome, Rule, State};
use crate::time::Now;
use schedule::{Gap, HORIZON};

/// As many cases as `PROPTEST_CASES` says, 256 unless told; failures are kept beside `src`.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    }
}

/// `now`, with both clocks `nanos` on; none beyond the end of time.
fn later(now: Now, nanos: u64) -> Option<Now> {
    Some(Now { boot: now.boot.checked_add(nanos)?, wall: now.wall.checked_add(nanos)? })
}

/// One bucket on its way through a schedule.
#[derive(Clone, Debug)]
struct Run {
    rule: Rule,
    state: State,
    now: Now,
    /// The boot time at which the numbers last changed.
    since: u64,
    /// The boot time that the last denial named.
    due: u64,
}

impl Run {
    fn start(rule: Rule, now: Now) -> Self {
        Self { state: State::fresh(&rule, now), rule, now, since: 0, due: now.boot }
    }

    /// Moves the clocks, and nothing else.
    fn pass(&mut self, gap: Gap) {
        let nanos = gap.nanos(self).min(HORIZON.saturating_sub(self.now.wall));
        self.now.boot += nanos;
        self.now.wall =
            self.now.wall.max((self.now.wall + nanos).saturating_add_signed(gap.slew(nanos)));
    }

    fn advance(&mut self) {
        self.state.advance(&self.rule, self.since, self.now);
    }

    /// New numbers from now on, which the state hears of only when it is next asked.
    fn change_unseen(&mut self, rule: Rule) {
        (self.rule, self.since) = (rule, self.now.boot);
    }

    /// New numbers from now on, and the state is there when they come: the old ones settle what
    /// was, and it hears of the new ones at once. What differs where it hears of them late is the
    /// matter of `changes`.
    fn change(&mut self, rule: Rule) {
        self.advance();
        self.change_unseen(rule);
        self.advance();
    }

    fn judge(&mut self, cost: u64) -> Outcome {
        self.advance();
        let outcome = self.state.judge(&self.rule, cost, 0, self.now);
        if let Outcome::Wait(nanos) = outcome {
            self.due = self.now.boot.saturating_add(nanos);
        }
        outcome
    }

    /// One check: takes `cost` if it may.
    fn ask(&mut self, cost: u64) -> Outcome {
        let outcome = self.judge(cost);
        if outcome == Outcome::Pass {
            self.state.take(&self.rule, cost, self.now);
        }
        outcome
    }

    fn remaining(&self) -> u64 {
        self.state.remaining(&self.rule, self.now)
    }

    /// Whether `cost` would pass at `then` if nothing happened until then.
    fn would_pass(&self, cost: u64, then: Now) -> bool {
        let mut run = Self { now: then, ..self.clone() };
        run.judge(cost) == Outcome::Pass
    }
}
