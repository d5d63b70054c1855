//! The breaker of a link: it stops asking a peer that doesn't answer, so that callers go another
//! way at once.
//!
//! ```text
//! closed      every call goes through
//! open        none does: after 5 failures in a row, or where 50 % of at least 20 calls in a second failed;
//!             for 250 ms, and twice as long each further time, up to 5 s, a fifth of it by chance
//! half-open   one call at a time goes through and is watched: 3 good ones in a row close, a bad one opens again
//! ```
//!
//! A connection that comes up makes an open breaker half-open at once and forgets how long it was
//! to stay open: the peer is there again, or is another process.
//!
//! It speaks of the peer, not of the answers: whatever comes back is a success, also "busy"; no
//! connection, one that broke, or no answer in time is a failure ([`Outcome::of`]). It is quick and
//! forgets quickly, and nothing rests on it but the way of a call: who owns what is the business of
//! leases.
//!
//! It is asked for every check that is passed on, by all workers. While it is closed that costs
//! them a few atomics and no lock; the changes between its states, and the probes, happen under
//! one. Failures of a second are counted in ten slots of 100 ms; outcomes of calls that began
//! before its state changed count for nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::CallError;
use crate::clock::MS;
use crate::random::Generator;

/// Failures in a row that open it.
pub(super) const FAILURES_IN_ROW: u32 = 5;
/// Calls of the last second that say enough to judge the peer by the part that failed.
pub(super) const CALLS_TO_JUDGE: u32 = 20;
/// Good probes that close it.
pub(super) const PROBES_TO_CLOSE: u32 = 3;
/// How long it is open the first time, and at most, in nanoseconds.
pub(super) const OPEN_MIN: u64 = 250 * MS;
pub(super) const OPEN_MAX: u64 = 5_000 * MS;
/// The part of that which is left to chance: breakers that opened together don't probe together.
const CHANCE_PART: u64 = 5;

/// Slots of the window, and how long each is, in nanoseconds.
pub(super) const SLOTS: usize = 10;
pub(super) const SLOT: u64 = 100 * MS;

/// `shut_until` of a breaker that is closed.
const CLOSED: u64 = 0;

/// What a call says about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Good,
    /// It can't be reached, or is silent.
    Bad,
    /// Nothing: the call wasn't sent for a reason of this end's, or nobody waited for the answer.
    Nothing,
}

impl Outcome {
    /// What the end of a call says.
    pub fn of<T>(ended: &Result<T, CallError>) -> Self {
        match ended {
            Ok(_) | Err(CallError::Failed(..) | CallError::Unreadable(..)) => Self::Good,
            Err(CallError::NotConnected(_) | CallError::Lost(_) | CallError::DeadlinePassed(_)) => {
                Self::Bad
            }
            Err(CallError::Busy(_) | CallError::TooLong { .. } | CallError::Encode(_)) => {
                Self::Nothing
            }
        }
    }
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// None does, for so many nanoseconds.
    Open {
        /// Until one is let through.
        left: u64,
    },
    /// One at a time does.
    HalfOpen,
}

impl BreakerState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A look at a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// How it stands.
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// Times that it has opened.
    pub opened: u64,
}

/// See the module.
pub struct Breaker {
    /// [`CLOSED`], or the boot time, in nanoseconds, before which nothing goes through.
    shut_until: AtomicU64,
    /// Rises with every change of state, under the lock.
    era: AtomicU64,
    in_row: AtomicU32,
    opened: AtomicU64,
    window: Window,
    rest: Mutex<Rest>,
}

/// What only matters when it isn't closed, or ceases to be.
struct Rest {
    chance: Generator,
    /// How long it is open the next time.
    open_for: u64,
    probing: bool,
    good_probes: u32,
}

/// Leave to make one call. [`Pass::end`] says how it went; one that is dropped says nothing.
#[must_use]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    era: u64,
    probe: bool,
}

impl Breaker {
    /// A closed one; `chance` is for the times that it is open.
    pub fn new(chance: Generator) -> Self {
        Self {
            shut_until: AtomicU64::new(CLOSED),
            era: AtomicU64::new(0),
            in_row: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            window: Window::default(),
            rest: Mutex::new(Rest { chance, open_for: OPEN_MIN, probing: false, good_probes: 0 }),
        }
    }

    /// Asks for leave to make a call at `now`, in nanoseconds of boot time; none where it is open,
    /// or half-open with a probe on its way.
    pub fn ask(&self, now: u64) -> Option<Pass<'_>> {
        // Before the state: a pass of an era that has passed counts for nothing, one of an era to
        // come would count there.
        let era = self.era.load(Ordering::Acquire);
        match self.shut_until.load(Ordering::Acquire) {
            CLOSED => Some(Pass { breaker: self, era, probe: false }),
            until if now < until => None,
            _ => self.ask_half_open(now),
        }
    }

    fn ask_half_open(&self, now: u64) -> Option<Pass<'_>> {
        let mut rest = self.rest();
        let (until, era) =
            (self.shut_until.load(Ordering::Relaxed), self.era.load(Ordering::Relaxed));
        if until == CLOSED {
            return Some(Pass { breaker: self, era, probe: false });
        }
        if now < until || rest.probing {
            return None;
        }
        rest.probing = true;
        Some(Pass { breaker: self, era, probe: true })
    }

    /// Closes it, whatever the peer does; what it knew is forgotten, but for how often it opened.
    pub fn reset(&self) {
        let mut rest = self.rest();
        self.close(&mut rest);
    }

    /// Lets the next call through as a probe if it is open at `now`, in nanoseconds of boot time;
    /// to be called when a connection to the peer comes up. Does nothing unless it is open.
    pub fn half_open(&self, now: u64) {
        let mut rest = self.rest();
        let until = self.shut_until.load(Ordering::Relaxed);
        if until != CLOSED {
            rest.open_for = OPEN_MIN;
            // A probe that is on its way went over the connection before this one.
            (rest.probing, rest.good_probes) = (false, 0);
            self.enter(until.min(now.max(CLOSED + 1)));
        }
    }

    /// How it stands at `now`, in nanoseconds of boot time.
    pub fn view(&self, now: u64) -> BreakerView {
        let state = match self.shut_until.load(Ordering::Acquire) {
            CLOSED => BreakerState::Closed,
            until if now < until => BreakerState::Open { left: until - now },
            _ => BreakerState::HalfOpen,
        };
        let (failures, opened) =
            (self.in_row.load(Ordering::Relaxed), self.opened.load(Ordering::Relaxed));
        BreakerView { state, failures, opened }
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        // Whole between any two statements: what panicked while holding the lock left it so.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_of(&self, era: u64) -> bool {
        self.era.load(Ordering::Acquire) == era
    }

    /// A call that went through while it was closed has ended.
    fn ended(&self, era: u64, good: bool, now: u64) {
        if !self.is_of(era) {
            return;
        }
        self.window.count(now, good);
        if good {
            // Read before it is written: all workers would else take the line from each other for
            // nothing.
            if self.in_row.load(Ordering::Relaxed) != 0 {
                self.in_row.store(0, Ordering::Relaxed);
            }
            return;
        }
        let in_row = self.in_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // Judged where a call fails: the others needn't add anything up.
        let Counts { calls, bad } = self.window.counts(now);
        if in_row >= FAILURES_IN_ROW || (calls >= CALLS_TO_JUDGE && bad * 2 >= calls) {
            let mut rest = self.rest();
            if self.is_of(era) {
                self.open(&mut rest, now);
            }
        }
    }

    /// A probe has ended.
    fn probed(&self, era: u64, outcome: Outcome, now: u64) {
        let mut rest = self.rest();
        if !self.is_of(era) {
            return;
        }
        rest.probing = false;
        match outcome {
            Outcome::Nothing => {}
            Outcome::Bad => {
                self.in_row.fetch_add(1, Ordering::Relaxed);
                self.open(&mut rest, now);
            }
            Outcome::Good => {
                self.in_row.store(0, Ordering::Relaxed);
                rest.good_probes += 1;
                if rest.good_probes >= PROBES_TO_CLOSE {
                    self.close(&mut rest);
                }
            }
        }
    }

    fn open(&self, rest: &mut Rest, now: u64) {
        let by_chance = rest.open_for / CHANCE_PART;
        let wait = rest.open_for - by_chance + rest.chance.next_u64() % (by_chance + 1);
        rest.open_for = (rest.open_for * 2).min(OPEN_MAX);
        (rest.probing, rest.good_probes) = (false, 0);
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.enter(now.saturating_add(wait));
    }

    fn close(&self, rest: &mut Rest) {
        rest.open_for = OPEN_MIN;
        (rest.probing, rest.good_probes) = (false, 0);
        self.in_row.store(0, Ordering::Relaxed);
        self.window.clear();
        self.enter(CLOSED);
    }

    fn enter(&self, shut_until: u64) {
        self.shut_until.store(shut_until, Ordering::Release);
        // Last, as it is read first: who sees the new era sees the new state.
        self.era.fetch_add(1, Ordering::AcqRel);
    }
}

impl Pass<'_> {
    /// The call has ended, at `now`.
    pub fn end(mut self, outcome: Outcome, now: u64) {
        if std::mem::take(&mut self.probe) {
            self.breaker.probed(self.era, outcome, now);
        } else if outcome != Outcome::Nothing {
            self.breaker.ended(self.era, outcome == Outcome::Good, now);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // A probe that nobody waited for leaves its place to the next.
        if self.probe {
            self.breaker.probed(self.era, Outcome::Nothing, 0);
        }
    }
}

/// Calls of the last second, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    calls: u32,
    bad: u32,
}

/// The slots: the number of the slot's time (32 bits), then calls and failures in it (16 bits
/// each), in one word, so that none is ever seen half. A slot that is full counts no more, of
/// either.
#[derive(Default)]
struct Window([AtomicU64; SLOTS]);

impl Window {
    fn count(&self, now: u64, good: bool) {
        let tick = (now / SLOT) as u32;
        let slot = &self.0[tick as usize % SLOTS];
        let counted = |word: u64| {
            let (of, calls, bad) = unpack(word);
            match tick.wrapping_sub(of) {
                0 => Some(pack(tick, calls.checked_add(1)?, bad + u16::from(!good))),
                // Another thread, whose reading of the clock was later, has turned the slot over
                // already.
                age if age > u32::MAX / 2 => None,
                _ => Some(pack(tick, 1, u16::from(!good))),
            }
        };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    fn counts(&self, now: u64) -> Counts {
        let tick = (now / SLOT) as u32;
        let mut counts = Counts::default();
        for slot in &self.0 {
            let (of, calls, bad) = unpack(slot.load(Ordering::Relaxed));
            if tick.wrapping_sub(of) < SLOTS as u32 {
                counts.calls += u32::from(calls);
                counts.bad += u32::from(bad);
            }
        }
        counts
    }

    fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }
}

fn pack(tick: u32, calls: u16, bad: u16) -> u64 {
    u64::from(tick) << 32 | u64::from(calls) << 16 | u64::from(bad)
}

fn unpack(word: u64) -> (u32, u16, u16) {
    ((word >> 32) as u32, (word >> 16) as u16, word as u16)
}
