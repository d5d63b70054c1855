//! The breaker against a naive model, and what its numbers come to.

use proptest::prelude::*;

use crate::clock::{MS, SECOND};
use crate::peer::breaker::*;
use crate::peer::{CallError, Failure};
use crate::random::Seed;

fn breaker() -> Breaker {
    Breaker::new(Seed::from_number(1).fork("breakers", 0))
}

/// Some time after boot, in the middle of a slot.
const START: u64 = 1_000 * SECOND + SLOT / 2;

/// `count` calls that end so, one after another at `now`; all of them are let through.
fn calls(breaker: &Breaker, count: u32, outcome: Outcome, now: u64) {
    for _ in 0..count {
        breaker.ask(now).unwrap().end(outcome, now);
    }
}

fn left(breaker: &Breaker, now: u64) -> u64 {
    match breaker.view(now).state {
        BreakerState::Open { left } => left,
        other => panic!("it is {}", other.word()),
    }
}

#[test]
fn five_failures_in_a_row_open_it_and_four_dont() {
    let breaker = breaker();
    calls(&breaker, 4, Outcome::Bad, START);
    calls(&breaker, 1, Outcome::Good, START);
    calls(&breaker, 4, Outcome::Bad, START);
    assert_eq!(breaker.view(START).state, BreakerState::Closed);
    calls(&breaker, 1, Outcome::Bad, START);
    assert!(breaker.ask(START).is_none());
    assert_eq!((breaker.view(START).failures, breaker.view(START).opened), (5, 1));
}

#[test]
fn half_of_twenty_calls_in_a_second_open_it_and_over_a_longer_time_they_dont() {
    for (apart, opens) in [(SECOND / 20, true), (SECOND / 10, false)] {
        let breaker = breaker();
        let mut now = START;
        for i in 0..40 {
            now += apart;
            let Some(pass) = breaker.ask(now) else { break };
            pass.end(if i % 2 == 0 { Outcome::Good } else { Outcome::Bad }, now);
        }
        assert_eq!(breaker.view(now).opened, u64::from(opens), "{apart} ns apart");
    }
}

#[test]
fn less_than_half_never_opens_it() {
    let breaker = breaker();
    for i in 0..10_000u64 {
        let outcome = if i % 9 < 5 { Outcome::Good } else { Outcome::Bad };
        let now = START + i * MS;
        breaker.ask(now).unwrap().end(outcome, now);
    }
    assert_eq!(breaker.view(START + 10 * SECOND).opened, 0);
}

#[test]
fn it_is_open_for_a_quarter_of_a_second_then_twice_as_long_up_to_five_seconds() {
    let breaker = breaker();
    let mut now = START;
    calls(&breaker, 5, Outcome::Bad, now);
    for nominal in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000] {
        let wait = left(&breaker, now);
        assert!((nominal * MS * 4 / 5..=nominal * MS).contains(&wait), "{wait} ns of {nominal} ms");
        assert!(breaker.ask(now + wait - 1).is_none());
        now += wait;
        breaker.ask(now).unwrap().end(Outcome::Bad, now);
    }
    // Three good ones, and it begins at the beginning.
    now += left(&breaker, now);
    calls(&breaker, 3, Outcome::Good, now);
    assert_eq!(breaker.view(now).state, BreakerState::Closed);
    calls(&breaker, 5, Outcome::Bad, now);
    assert!(left(&breaker, now) <= OPEN_MIN);
}

#[test]
fn a_connection_that_comes_up_makes_it_half_open_at_once() {
    let breaker = breaker();
    let mut now = START;
    calls(&breaker, 5, Outcome::Bad, now);
    for _ in 0..4 {
        now += left(&breaker, now);
        breaker.ask(now).unwrap().end(Outcome::Bad, now);
    }
    assert!(left(&breaker, now) > 3 * SECOND);
    breaker.half_open(now);
    assert_eq!(breaker.view(now).state, BreakerState::HalfOpen);
    breaker.ask(now).unwrap().end(Outcome::Bad, now);
    assert!(left(&breaker, now) <= OPEN_MIN, "how long it was to stay open is forgotten");
    breaker.half_open(now);
    // A probe that went over the connection before says nothing about this one.
    let before = breaker.ask(now).unwrap();
    breaker.half_open(now);
    before.end(Outcome::Bad, now);
    calls(&breaker, 3, Outcome::Good, now);
    assert_eq!(breaker.view(now).state, BreakerState::Closed);
    breaker.half_open(now);
    assert_eq!(breaker.view(now).state, BreakerState::Closed, "a closed one stays closed");
}

#[test]
fn half_open_lets_one_probe_through_at_a_time() {
    let breaker = breaker();
    calls(&breaker, 5, Outcome::Bad, START);
    let now = START + OPEN_MIN;
    let probe = breaker.ask(now).unwrap();
    assert!(breaker.ask(now).is_none());
    probe.end(Outcome::Good, now);
    // One that is dropped, or not sent, says nothing, and makes place.
    drop(breaker.ask(now).unwrap());
    breaker.ask(now).unwrap().end(Outcome::Nothing, now);
    calls(&breaker, 1, Outcome::Good, now);
    assert_eq!(breaker.view(now).state, BreakerState::HalfOpen);
    calls(&breaker, 1, Outcome::Good, now);
    assert_eq!(breaker.view(now).state, BreakerState::Closed);
}

#[test]
fn calls_that_began_before_it_opened_neither_close_it_nor_open_it_longer() {
    let breaker = breaker();
    let mut early: Vec<_> = (0..20).map(|_| breaker.ask(START).unwrap()).collect();
    calls(&breaker, 5, Outcome::Bad, START);
    let wait = left(&breaker, START);
    for pass in early.drain(..10) {
        pass.end(Outcome::Good, START);
    }
    for pass in early {
        pass.end(Outcome::Bad, START);
    }
    assert_eq!(left(&breaker, START), wait);
    assert_eq!((breaker.view(START).opened, breaker.view(START).failures), (1, 5));
}

#[test]
fn a_reset_closes_it_and_what_was_under_way_doesnt_open_it_again() {
    let breaker = breaker();
    calls(&breaker, 5, Outcome::Bad, START);
    let now = START + OPEN_MIN;
    let probe = breaker.ask(now).unwrap();
    breaker.reset();
    probe.end(Outcome::Bad, now);
    assert_eq!(
        breaker.view(now),
        BreakerView { state: BreakerState::Closed, failures: 0, opened: 1 }
    );
    calls(&breaker, 4, Outcome::Bad, now);
    assert_eq!(breaker.view(now).state, BreakerState::Closed);
}

#[test]
fn any_answer_is_a_good_one_and_what_never_left_says_nothing() {
    let n2 = || crate::check::Name::new("n2").unwrap();
    let ended = |error| Outcome::of::<()>(&Err(error));
    assert_eq!(Outcome::of(&Ok(())), Outcome::Good);
    assert_eq!(ended(CallError::Failed(n2(), Failure::Busy)), Outcome::Good);
    assert_eq!(ended(CallError::Failed(n2(), Failure::DeadlinePassed)), Outcome::Good);
    for silent in
        [CallError::NotConnected(n2()), CallError::Lost(n2()), CallError::DeadlinePassed(n2())]
    {
        assert_eq!(ended(silent), Outcome::Bad);
    }
    assert_eq!(ended(CallError::Busy(n2())), Outcome::Nothing);
    assert_eq!(ended(CallError::TooLong { actual: 2, max: 1 }), Outcome::Nothing);
}

#[test]
fn of_many_threads_that_ask_a_half_open_one_a_single_one_gets_through() {
    for _ in 0..50 {
        let breaker = breaker();
        calls(&breaker, 5, Outcome::Bad, START);
        let now = START + OPEN_MIN;
        let passes: Vec<_> = std::thread::scope(|scope| {
            let ask = || breaker.ask(now);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(passes.len(), 1);
    }
}

#[test]
fn threads_that_fail_together_open_it_once() {
    for _ in 0..50 {
        let breaker = breaker();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let passes: Vec<_> = (0..10).filter_map(|_| breaker.ask(START)).collect();
                    passes.into_iter().for_each(|pass| pass.end(Outcome::Bad, START));
                });
            }
        });
        let view = breaker.view(START);
        assert_eq!(view.opened, 1);
        assert!(left(&breaker, START) <= OPEN_MIN);
    }
}

/// What the breaker is to do, with everything remembered.
#[derive(Default)]
struct Model {
    /// Calls since it was closed last: when they ended, and whether well.
    ended: Vec<(u64, bool)>,
    in_row: u32,
    opened: u64,
    /// Changes of state so far.
    changes: u64,
    open: Option<Open>,
    /// Times that it has opened since it was closed last.
    times: u32,
}

struct Open {
    until: u64,
    good: u32,
    probing: bool,
}

impl Model {
    fn ask(&mut self, now: u64) -> Option<u64> {
        if let Some(open) = &mut self.open {
            if now < open.until || open.probing {
                return None;
            }
            open.probing = true;
        }
        Some(self.changes)
    }

    /// Answers whether it opened.
    fn end(&mut self, asked: u64, outcome: Outcome, now: u64) -> bool {
        if asked != self.changes {
            return false;
        }
        let opens = match (&mut self.open, outcome) {
            (None, Outcome::Nothing) => return false,
            (Some(open), _) => {
                open.probing = false;
                open.good += u32::from(outcome == Outcome::Good);
                outcome == Outcome::Bad
            }
            (None, _) => {
                self.ended.push((now / SLOT, outcome == Outcome::Good));
                let recent = self.ended.iter().filter(|(slot, _)| now / SLOT - slot < SLOTS as u64);
                let (calls, good) =
                    recent.fold((0, 0), |(c, g), (_, good)| (c + 1, g + u32::from(*good)));
                let half = calls >= CALLS_TO_JUDGE && (calls - good) * 2 >= calls;
                outcome == Outcome::Bad && (self.in_row + 1 >= FAILURES_IN_ROW || half)
            }
        };
        match outcome {
            Outcome::Good => self.in_row = 0,
            Outcome::Bad => self.in_row += 1,
            Outcome::Nothing => {}
        }
        if self.open.as_ref().is_some_and(|open| open.good == PROBES_TO_CLOSE) {
            self.close();
        }
        opens
    }

    /// How long it is open is partly chance: `until` is seen, and only its bounds are known.
    fn open(&mut self, until: u64, now: u64) {
        let nominal = (OPEN_MIN << self.times.min(10)).min(OPEN_MAX);
        assert!(
            (nominal * 4 / 5..=nominal).contains(&(until - now)),
            "{} of {nominal}",
            until - now
        );
        self.open = Some(Open { until, good: 0, probing: false });
        (self.opened, self.changes, self.times) =
            (self.opened + 1, self.changes + 1, self.times + 1);
    }

    fn close(&mut self) {
        *self = Self { opened: self.opened, changes: self.changes + 1, ..Self::default() };
    }

    fn view(&self, now: u64) -> BreakerView {
        let state = match &self.open {
            None => BreakerState::Closed,
            Some(open) if now < open.until => BreakerState::Open { left: open.until - now },
            Some(_) => BreakerState::HalfOpen,
        };
        BreakerView { state, failures: self.in_row, opened: self.opened }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask,
    /// One of the calls that are under way ends.
    End(usize, Outcome),
    Wait(u64),
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = |outcome| (0..100usize).prop_map(move |which| Step::End(which, outcome));
    let step = prop_oneof![
        40 => Just(Step::Ask),
        15 => end(Outcome::Good),
        18 => end(Outcome::Bad),
        2 => end(Outcome::Nothing),
        10 => (0..30 * MS).prop_map(Step::Wait),
        3 => (0..600 * MS).prop_map(Step::Wait),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_does_as_the_model_does(steps in steps()) {
        let (breaker, mut model) = (breaker(), Model::default());
        let (mut now, mut under_way) = (START, Vec::new());
        for step in steps {
            match step {
                Step::Ask => {
                    let (pass, expected) = (breaker.ask(now), model.ask(now));
                    prop_assert_eq!(pass.is_some(), expected.is_some());
                    under_way.extend(pass.zip(expected));
                }
                Step::End(..) if under_way.is_empty() => {}
                Step::End(which, outcome) => {
                    let (pass, asked) = under_way.swap_remove(which % under_way.len());
                    // A pass that is dropped and one that ends in nothing are the same.
                    if outcome == Outcome::Nothing && which % 2 == 0 { drop(pass) } else { pass.end(outcome, now) }
                    if model.end(asked, outcome, now) {
                        model.open(now + left(&breaker, now), now);
                    }
                }
                Step::Wait(time) => now += time,
                Step::Reset => {
                    breaker.reset();
                    model.close();
                }
            }
            prop_assert_eq!(breaker.view(now), model.view(now));
        }
    }
}
