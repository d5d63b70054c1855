//! Concurrency beside a list of everybody's permits.

use proptest::collection::vec;
use proptest::prelude::*;

use super::config;
use crate::limit::{Outcome, Permits};
use crate::permit::PermitId;
use crate::time::SECOND;

#[derive(Clone, Debug)]
enum Turn {
    /// Time passes, in nanoseconds.
    Pass(u64),
    /// A check of so many slots under a maximum of its own, beside so many held; granted for so
    /// long if it passes, under that id and those after it.
    Ask {
        max: u64,
        slots: u64,
        held: u64,
        id: u128,
        ttl: u64,
    },
    /// Granted without asking: a renewal, if it is out.
    Grant {
        id: u128,
        ttl: u64,
    },
    Release {
        id: u128,
    },
    /// The boot clock starts over.
    Shift(i128),
}

fn turn() -> impl Strategy<Value = Turn> {
    let ttl = || prop_oneof![0..=5u64, 0..=10 * SECOND];
    prop_oneof![
        2 => prop_oneof![0..=5u64, 0..=10 * SECOND].prop_map(Turn::Pass),
        5 => (1..=5u64, slots(), 0..=3u64, 0..8u128, ttl())
            .prop_map(|(max, slots, held, id, ttl)| Turn::Ask { max, slots, held, id, ttl }),
        2 => (0..8u128, ttl()).prop_map(|(id, ttl)| Turn::Grant { id, ttl }),
        2 => (0..8u128).prop_map(|id| Turn::Release { id }),
        1 => (-100..=100i128).prop_map(Turn::Shift),
    ]
}

fn slots() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(1), 1 => 2..=7u64]
}

fn id(secret: u128) -> PermitId {
    PermitId { partition: 7, secret }
}

/// Everybody's permit and the instant it ends, in no order, ended ones among them.
#[derive(Clone, Default)]
struct List(Vec<(PermitId, u64)>);

impl List {
    fn flying(&self, boot: u64) -> u64 {
        self.0.iter().filter(|(_, until)| *until > boot).count() as u64
    }

    /// Takes a permit off the list; whether it was out.
    fn release(&mut self, id: PermitId, boot: u64) -> bool {
        let out = self.0.iter().any(|(other, until)| *other == id && *until > boot);
        self.0.retain(|(other, _)| *other != id);
        out
    }

    fn grant(&mut self, id: PermitId, until: u64, boot: u64) {
        self.release(id, boot);
        self.0.push((id, until));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn permits_agree_with_a_list_of_them_all(turns in vec(turn(), 1..60)) {
        let (mut permits, mut list) = (Permits::default(), List::default());
        let mut boot = 1_000;
        for turn in turns {
            permits.advance(boot);
            match turn {
                Turn::Pass(nanos) => {
                    boot += nanos;
                    permits.advance(boot);
                }
                Turn::Ask { max, slots, held, id: first, ttl } => {
                    let flying = list.flying(boot);
                    match permits.judge(max, slots, held, boot) {
                        Outcome::Pass => {
                            prop_assert!(flying + held + slots <= max);
                            for secret in first..first + u128::from(slots) {
                                permits.grant(id(secret), boot + ttl);
                                list.grant(id(secret), boot + ttl, boot);
                            }
                        }
                        Outcome::Held => prop_assert!(flying + slots <= max && flying + held + slots > max),
                        Outcome::Wait(wait) => {
                            prop_assert!(slots <= max && flying + slots > max && wait > 0);
                            let (then, sooner) = (list.flying(boot + wait), list.flying(boot + wait - 1));
                            prop_assert!(then + slots <= max, "too few are free after {wait}");
                            prop_assert!(sooner + slots > max, "enough are free before {wait}");
                        }
                        Outcome::Never => prop_assert!(slots > max, "enough come free some day"),
                    }
                }
                Turn::Grant { id: secret, ttl } => {
                    permits.grant(id(secret), boot + ttl);
                    list.grant(id(secret), boot + ttl, boot);
                }
                Turn::Release { id: secret } => {
                    prop_assert_eq!(permits.release(id(secret)), list.release(id(secret), boot));
                }
                Turn::Shift(by) => {
                    let moved = |at: u64| u64::try_from((i128::from(at) + by).max(0)).unwrap();
                    permits.shift_boot(by);
                    list.0.retain(|(_, until)| *until > boot);
                    list.0.iter_mut().for_each(|(_, until)| *until = moved(*until));
                    boot = moved(boot);
                }
            }
            permits.advance(boot);
            prop_assert_eq!(permits.flying(), list.flying(boot));
            let mut out: Vec<_> = list.0.iter().filter(|(_, until)| *until > boot).collect();
            out.sort();
            prop_assert!(permits.ids().eq(out.iter().map(|(id, _)| *id)));
            let last = out.iter().map(|(_, until)| until - boot).max().unwrap_or(0);
            prop_assert_eq!(permits.reset_after(boot), last);
        }
    }

    #[test]
    fn one_large_step_ends_the_same_permits_as_many_small_ones(
        grants in vec((0..20u128, 0..=1_000u64), 0..20),
        steps in vec(0..=200u64, 0..10),
    ) {
        let mut large = Permits::default();
        grants.iter().for_each(|(secret, until)| large.grant(id(*secret), *until));
        let mut small = large.clone();
        let mut boot = 0;
        for step in steps {
            boot += step;
            small.advance(boot);
        }
        large.advance(boot);
        large.advance(boot);
        small.advance(boot);
        prop_assert_eq!(large, small);
    }

    #[test]
    fn no_more_fly_at_once_than_the_maximum(
        max in 1..=5u64,
        asks in vec((0..=300u64, 1..=1_000u64, slots()), 1..60),
    ) {
        let mut permits = Permits::default();
        let (mut boot, mut granted) = (0, Vec::new());
        for (gap, ttl, slots) in asks {
            boot += gap;
            permits.advance(boot);
            if permits.judge(max, slots, 0, boot) == Outcome::Pass {
                for _ in 0..slots {
                    permits.grant(id(granted.len() as u128), boot + ttl);
                    granted.push((boot, boot + ttl));
                }
            }
        }
        for (start, _) in &granted {
            let flying = granted.iter().filter(|(from, until)| from <= start && start < until).count();
            prop_assert!(flying as u64 <= max, "{flying} at {start}");
        }
    }

    #[test]
    fn permits_at_the_ends_of_time_break_nothing(
        times in vec(prop_oneof![0..=3u64, u64::MAX - 3..=u64::MAX], 1..40),
        max in 1..=3u64,
    ) {
        let mut permits = Permits::default();
        for (number, pair) in times.windows(2).enumerate() {
            permits.advance(pair[0]);
            permits.judge(max, u64::MAX, u64::MAX, pair[0]);
            permits.judge(max, 1, u64::MAX, pair[0]);
            if permits.judge(max, 1, 0, pair[0]) == Outcome::Pass {
                permits.grant(id(number as u128), pair[1]);
            }
            prop_assert!(permits.flying() <= max);
            permits.shift_boot(i128::from(pair[1]) - i128::from(pair[0]));
            let _ = permits.reset_after(pair[1]);
        }
    }
}
