//! Faults that are aimed at partitions on their way: as soon as some move, a link between their two
//! ends breaks, or one of the two is cut off or dies.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate::random::Generator;

use crate::sim::Fault;

/// Between two of them, in milliseconds; and how long it takes from the first sight of a move,
/// since it has several steps.
const PAUSE_MS: std::ops::Range<u64> = 100..3_000;
const AFTER_MS: std::ops::Range<u64> = 0..120;
/// How long such a fault lasts.
const LASTS_MS: std::ops::Range<u64> = 20..1_500;

/// Waits for partitions that move.
pub struct Aim {
    chance: Generator,
    deaths: bool,
    /// Not before that.
    from: Duration,
    /// What comes next, and when.
    next: Vec<(Duration, Fault)>,
}

impl Aim {
    pub fn new(chance: Generator, deaths: bool, from: Duration) -> Self {
        Self { chance, deaths, from, next: Vec::new() }
    }

    fn ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.chance.next_u64() % (range.end - range.start))
    }

    /// What is to go wrong, or right again, at `now`.
    pub fn next(&mut self, now: Duration, moving: &BTreeSet<(usize, usize)>) -> Option<Fault> {
        if self.next.is_empty() && now >= self.from && !moving.is_empty() {
            let nth = (self.chance.next_u64() % moving.len() as u64) as usize;
            let (source, target) = moving.iter().nth(nth).copied()?;
            let at = now + self.ms(AFTER_MS);
            let until = at + self.ms(LASTS_MS);
            let (fault, end) = self.some_fault(source, target);
            self.next = vec![(at, fault), (until, end)];
            self.from = until + self.ms(PAUSE_MS);
        }
        let is_due = self.next.first().is_some_and(|(at, _)| *at <= now);
        is_due.then(|| self.next.remove(0).1)
    }

    fn some_fault(&mut self, source: usize, target: usize) -> (Fault, Fault) {
        let one = if self.chance.next_u64().is_multiple_of(2) { source } else { target };
        let cut = match self.chance.next_u64() % 10 {
            0..2 => Fault::Cut(source, target),
            2 => Fault::CutOneWay(source, target),
            3 => Fault::CutOneWay(target, source),
            4 => Fault::Stall(source, target),
            5 => Fault::Isolate(one),
            6..8 if self.deaths => return (Fault::Kill(one), Fault::Start(one)),
            8..10 if self.deaths => {
                let after = (self.chance.next_u64() % 20) as usize;
                return (Fault::CutPower { node: one, after, kept: 0 }, Fault::Start(one));
            }
            _ => Fault::Cut(source, target),
        };
        (cut, Fault::Heal)
    }
}
