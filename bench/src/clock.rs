//! Real time, in one place: a benchmark measures nothing else. The rest of the crate asks here, so
//! that the lint that bans ambient clocks has one exception to read.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::future::Future;
use std::time::{Duration, Instant};

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds of processor time that the calling thread has had.
pub fn spent_by_thread() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(spent.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(spent.tv_nsec).unwrap_or(0)
}

/// Blocks this thread; for the waits between two questions to a starting server.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// The same for a task.
pub async fn rest(length: Duration) {
    tokio::time::sleep(length).await;
}

/// Waits until `due` and says when that was: a little later, or `due` itself where it has passed
/// already.
pub async fn at(due: Instant) -> Instant {
    if due <= now() {
        return due;
    }
    tokio::time::sleep_until(due.into()).await;
    now()
}

/// The future's value, or `None` once `limit` has passed.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
