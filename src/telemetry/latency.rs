//! How long calls take: a histogram a call, kept in stripes so that no two workers write to one
//! cache line.
//!
//! A thread takes a stripe when it first measures something and keeps it. What is read is the sum
//! over the stripes, each number of which only rises; they are not read at one instant, which a
//! histogram of running counts doesn't need.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::clock::Clock;

/// Upper bounds of the buckets, nanoseconds: 25 µs, where a check alone ends, to a second.
pub const BOUNDS: [u64; 13] = [
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];
/// Stripes; beyond so many threads, some share one.
const STRIPES: usize = 16;

/// The calls that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// One check.
    Check,
    /// Several in one call.
    Batch,
    /// A look.
    Peek,
    /// A gateway's question about a request.
    ForwardAuth,
    /// The calls under `/api/` that decide or look.
    Api,
}

impl Call {
    /// All of them, in the order in which they are kept.
    pub const ALL: [Self; 5] = [Self::Check, Self::Batch, Self::Peek, Self::ForwardAuth, Self::Api];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Batch => "batch",
            Self::Peek => "peek",
            Self::ForwardAuth => "forward_auth",
            Self::Api => "api",
        }
    }
}

#[derive(Default)]
struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// Nanoseconds; good for 584 years of waiting.
    sum: AtomicU64,
}

/// Aligned to two cache lines, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Stripe([Histogram; Call::ALL.len()]);

/// See the module.
#[derive(Default)]
pub struct Latencies([Stripe; STRIPES]);

/// The calls of one kind so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// How many took up to each bound and longer than the one before; the last took longer than
    /// all.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Nanoseconds in all.
    pub sum: u64,
}

/// The stripe of this thread.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
    MINE.with(|mine| *mine)
}

impl Latencies {
    /// Measures until the guard is dropped.
    pub fn time<'t>(&'t self, call: Call, clock: &'t dyn Clock) -> Timed<'t> {
        Timed { latencies: self, call, clock, began: clock.now().boot }
    }

    /// Notes a call that took so many nanoseconds.
    fn note(&self, call: Call, nanos: u64) {
        let histogram = &self.0[stripe()].0[call as usize];
        histogram.counts[BOUNDS.partition_point(|bound| *bound < nanos)]
            .fetch_add(1, Ordering::Relaxed);
        histogram.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The calls of one kind so far.
    pub fn took(&self, call: Call) -> Took {
        let mut took = Took::default();
        for stripe in &self.0 {
            let histogram = &stripe.0[call as usize];
            for (sum, count) in took.counts.iter_mut().zip(&histogram.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
            took.sum = took.sum.wrapping_add(histogram.sum.load(Ordering::Relaxed));
        }
        took
    }
}

/// A call that is being measured. It counts when it is dropped: also where it ends in an error.
pub struct Timed<'t> {
    latencies: &'t Latencies,
    call: Call,
    clock: &'t dyn Clock,
    began: u64,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.latencies.note(self.call, self.clock.now().boot.saturating_sub(self.began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Now};

    #[test]
    fn calls_are_kept_in_the_order_of_all() {
        for (at, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, at);
        }
    }

    #[test]
    fn a_call_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let latencies = Latencies::default();
        for (nanos, bucket) in
            [(0, 0), (25_000, 0), (25_001, 1), (1_000_000_000, 12), (1_000_000_001, 13)]
        {
            let before = latencies.took(Call::Peek);
            let clock = ManualClock::at(Now { boot: 7, wall: 7 });
            let timed = latencies.time(Call::Peek, &clock);
            clock.advance(nanos);
            drop(timed);
            let after = latencies.took(Call::Peek);
            assert_eq!(after.counts[bucket], before.counts[bucket] + 1, "{nanos}");
            assert_eq!(after.sum, before.sum + nanos);
        }
        assert_eq!(latencies.took(Call::Check), Took::default());
    }

    #[test]
    fn what_many_threads_measure_adds_up() {
        let latencies = Latencies::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..100).for_each(|_| latencies.note(Call::Check, 30_000)));
            }
        });
        assert_eq!(latencies.took(Call::Check).counts[1], 200 * STRIPES as u64);
    }
}
