//! The calls of one connection that wait for their answers.
//!
//! Callers on all workers put themselves in and take themselves out, the connection resolves them.
//! The calls are spread over a few maps with a lock each, held for the time of one insertion; ids
//! follow each other, so that neighbours in time never meet at one lock. Once closed it takes
//! nothing more: a call that comes while the connection ends fails as those in it do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::message::{Failure, Opaque};

/// Maps: as many as workers that could meet at one.
const MAPS: u64 = 8;

pub(super) type Answer = Result<Opaque, Failure>;
type Waiting = Option<BTreeMap<u64, oneshot::Sender<Answer>>>;

/// Calls by their id. A map that is none is closed.
pub(super) struct Pending {
    maps: [Mutex<Waiting>; MAPS as usize],
    open: AtomicUsize,
    most: usize,
}

/// Why a call wasn't taken in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    Full,
    Closed,
}

impl Pending {
    /// Room for `most` calls.
    pub(super) fn new(most: usize) -> Self {
        let maps = std::array::from_fn(|_| Mutex::new(Some(BTreeMap::new())));
        Self { maps, open: AtomicUsize::new(0), most }
    }

    fn with<T>(&self, id: u64, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let map = &self.maps[(id % MAPS) as usize];
        // A map is whole between any two statements: what panicked while holding the lock left it
        // so.
        change(&mut map.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a call in.
    pub(super) fn insert(&self, id: u64) -> Result<oneshot::Receiver<Answer>, NotTaken> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(NotTaken::Full);
        }
        let (to, answer) = oneshot::channel();
        let taken = self.with(id, |map| map.as_mut().map(|map| map.insert(id, to)).is_some());
        if !taken {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(NotTaken::Closed);
        }
        Ok(answer)
    }

    /// Takes a call out; none where it isn't in any more.
    pub(super) fn remove(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        let removed = self.with(id, |map| map.as_mut()?.remove(&id))?;
        self.open.fetch_sub(1, Ordering::Relaxed);
        Some(removed)
    }

    /// Answers a call. One that nobody waits for any more is no fault: its cancellation crossed the
    /// answer.
    pub(super) fn resolve(&self, id: u64, answer: Answer) {
        if let Some(to) = self.remove(id) {
            let _ = to.send(answer);
        }
    }

    /// Fails all calls that are in, and all that come.
    pub(super) fn close(&self) {
        for map in &self.maps {
            let waiting = map.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.open.fetch_sub(waiting.map_or(0, |waiting| waiting.len()), Ordering::Relaxed);
        }
    }

    /// Calls that are in.
    pub(super) fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_its_bound_it_takes_no_call_until_one_is_out() {
        let pending = Pending::new(2);
        let _waiting = (pending.insert(1).unwrap(), pending.insert(2).unwrap());
        assert_eq!(pending.insert(3).unwrap_err(), NotTaken::Full);
        pending.resolve(1, Err(Failure::Busy));
        assert!(pending.insert(3).is_ok());
    }

    #[test]
    fn closing_fails_the_calls_that_are_in_and_those_that_come() {
        let pending = Pending::new(100);
        let mut waiting: Vec<_> = (0..20).map(|id| pending.insert(id).unwrap()).collect();
        pending.close();
        assert_eq!(pending.len(), 0);
        assert!(
            waiting
                .iter_mut()
                .all(|answer| answer.try_recv() == Err(oneshot::error::TryRecvError::Closed))
        );
        assert_eq!(pending.insert(20).unwrap_err(), NotTaken::Closed);
        assert_eq!(pending.len(), 0);
    }
}
