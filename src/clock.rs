//! The one door for time.
//!
//! A node reads two clocks. *Boot* time (CLOCK_BOOTTIME) only ever rises, counts suspends and knows
//! nothing of calendars: rates, leases, holds and permits live on it. *Wall* time (UTC) serves
//! aligned windows and quotas alone. Both are nanoseconds in a `u64`: boot since the machine
//! started, wall since the Unix epoch (good until the year 2554).
//!
//! Wall time is disciplined: it is boot time plus an offset, and the offset follows the machine's
//! wall clock by at most 500 parts per million. A clock that an administrator sets forward by a
//! minute would otherwise end sixty one-second windows at once; here the step is reported and not
//! followed. The result never goes back.
//!
//! The shard that decides reads [`Now`] once per batch and hands it down; nothing below it knows a
//! clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use tidegate_core::time::{MS, Now, SECOND};

/// Where a node reads the time. The real one is [`SystemClock`]; tests and simulations hold a
/// [`ManualClock`].
pub trait Clock: Send + Sync + 'static {
    /// Both clocks, read together.
    fn now(&self) -> Now;
}

/// A clock shared by the parts of one node.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks, wall time disciplined as the module says.
pub struct SystemClock {
    wall: Mutex<Discipline>,
    offset: AtomicU64,
    settled_at: AtomicU64,
    latest_wall: AtomicU64,
}

/// How often the wall clock's offset is looked at again: often enough to follow a slewed clock
/// closely.
const SETTLE_EVERY: u64 = 100 * MS;

impl SystemClock {
    /// Reads the machine's clocks for the first time; from here on wall time moves as boot time
    /// does.
    pub fn new() -> Self {
        let (boot, wall) =
            (read(rustix::time::ClockId::Boottime), read(rustix::time::ClockId::Realtime));
        let discipline = Discipline::new(boot, wall);
        Self {
            offset: AtomicU64::new(discipline.offset),
            settled_at: AtomicU64::new(boot),
            latest_wall: AtomicU64::new(wall),
            wall: Mutex::new(discipline),
        }
    }

    fn settle(&self, boot: u64) {
        // Whoever finds the lock taken goes on with the old offset: it is at most one period out of
        // date.
        if let Ok(mut discipline) = self.wall.try_lock() {
            if let Some(step) = discipline.follow(boot, read(rustix::time::ClockId::Realtime)) {
                tracing::warn!(
                    step_ms = step / MS as i64,
                    "the wall clock was set; windows and quotas do not follow the step"
                );
            }
            self.offset.store(discipline.offset, Ordering::Relaxed);
            self.settled_at.store(boot, Ordering::Relaxed);
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let boot = read(rustix::time::ClockId::Boottime);
        if boot.saturating_sub(self.settled_at.load(Ordering::Relaxed)) >= SETTLE_EVERY {
            self.settle(boot);
        }
        // A negative slew arrives in one piece of at most 50 µs; the maximum hides it, so that wall
        // time stands instead.
        let wall = boot.saturating_add(self.offset.load(Ordering::Relaxed));
        let latest = self.latest_wall.fetch_max(wall, Ordering::Relaxed);
        Now { boot, wall: wall.max(latest) }
    }
}

/// Nanoseconds of processor time that this process has used, on all cores together.
pub fn processor_time() -> u64 {
    read(rustix::time::ClockId::ProcessCPUTime)
}

#[allow(clippy::disallowed_methods, reason = "the one place where a node reads a clock")]
fn read(id: rustix::time::ClockId) -> u64 {
    let t = rustix::time::clock_gettime(id);
    u64::try_from(t.tv_sec)
        .unwrap_or(0)
        .saturating_mul(SECOND)
        .saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// Steers wall time: `wall = boot + offset`, where `offset` moves towards the machine's own by at
/// most 500 ppm.
#[derive(Debug)]
struct Discipline {
    offset: u64,
    last_boot: u64,
    reported: i64,
}

/// The fastest slew that NTP itself uses; slower than any window's end can be noticed to move.
const SLEW_PPM: u64 = 500;
/// A jump larger than this is an administrator's, not a drift: it is reported, and not followed.
const STEP: u64 = SECOND;

impl Discipline {
    fn new(boot: u64, wall: u64) -> Self {
        Self { offset: wall.saturating_sub(boot), last_boot: boot, reported: 0 }
    }

    /// Takes one reading. Answers with the size of a step (in nanoseconds) the first time it is
    /// seen.
    fn follow(&mut self, boot: u64, wall: u64) -> Option<i64> {
        let elapsed = boot.saturating_sub(self.last_boot);
        self.last_boot = self.last_boot.max(boot);
        let off_by = wall as i128 - (boot as i128 + self.offset as i128);
        if off_by.unsigned_abs() > STEP as u128 {
            let step = off_by.clamp(i64::MIN as i128, i64::MAX as i128) as i64;
            let news = step.abs_diff(self.reported) > STEP;
            self.reported = step;
            return news.then_some(step);
        }
        self.reported = 0;
        // The offset may shrink by at most what boot time has grown by times 500 ppm, so the sum
        // never goes back.
        let slew = i128::from(elapsed / (SECOND / MS) * SLEW_PPM / 1_000);
        let offset = self.offset as i128 + off_by.clamp(-slew, slew);
        self.offset = u64::try_from(offset).unwrap_or(0);
        None
    }
}

/// A clock that stands still until it is moved: for tests and simulations.
#[derive(Clone, Default)]
pub struct ManualClock(Arc<(AtomicU64, AtomicU64)>);

impl ManualClock {
    /// A clock at `now`.
    pub fn at(now: Now) -> Self {
        Self(Arc::new((AtomicU64::new(now.boot), AtomicU64::new(now.wall))))
    }

    /// Moves both clocks forward by `nanos`.
    pub fn advance(&self, nanos: u64) {
        self.0.0.fetch_add(nanos, Ordering::Relaxed);
        self.0.1.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        Now { boot: self.0.0.load(Ordering::Relaxed), wall: self.0.1.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_wall_clock_is_followed_slowly() {
        let mut d = Discipline::new(0, 1_000 * SECOND);
        // Ten milliseconds ahead; one second passes, so half a millisecond is made good.
        assert_eq!(d.follow(SECOND, 1_001 * SECOND + 10 * MS), None);
        assert_eq!(d.offset, 1_000 * SECOND + MS / 2);
    }

    #[test]
    fn a_step_of_the_wall_clock_is_reported_once_and_not_followed() {
        let mut d = Discipline::new(0, 1_000 * SECOND);
        assert_eq!(d.follow(SECOND, 1_062 * SECOND), Some(61 * SECOND as i64));
        assert_eq!(d.follow(2 * SECOND, 1_063 * SECOND), None);
        assert_eq!(d.offset, 1_000 * SECOND);
    }

    #[test]
    fn disciplined_time_never_goes_back() {
        let mut d = Discipline::new(0, 1_000 * SECOND);
        let mut last = 0;
        for i in 1..10_000u64 {
            let boot = i * MS;
            d.follow(boot, 1_000 * SECOND + boot - 900 * MS);
            let wall = boot + d.offset;
            assert!(wall >= last);
            last = wall;
        }
    }

    #[test]
    fn the_machines_clocks_move_forward() {
        let clock = SystemClock::new();
        let (a, b) = (clock.now(), clock.now());
        assert!(b.boot >= a.boot && b.wall >= a.wall && a.wall > 1_700_000_000 * SECOND);
    }
}
