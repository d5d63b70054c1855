//! A value that somebody changes and others watch: the newest counts, none is queued.
//!
//! It is like tokio's channel of that name but for one thing. There, those who wait are woken in an
//! order that is drawn by lot, by a generator that can't be given a seed; here, in the order in
//! which they began to wait. So a simulation that wakes several at once runs the same way twice.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

/// Changes the value. It is closed when the last copy of it is dropped.
pub struct Sender<T>(Arc<Shared<T>>);

/// Watches the value. A copy has seen what its original had.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The number of the last change that was seen.
    seen: u64,
}

/// A look at the value. It can't be changed meanwhile: not to be held for long, and never over an
/// await.
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

/// The value won't change any more: all senders are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody is left to change the value")]
pub struct Closed;

/// Nobody watches: all receivers are gone. The value is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody watches the value")]
pub struct Unwatched;

struct Shared<T> {
    value: RwLock<T>,
    /// Rises by one with each change, while the value is locked.
    changes: AtomicU64,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    unwatched: Notify,
}

/// The two ends of a value that is `first` in the beginning; the receiver has seen that.
pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(first);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        // Whoever panics while he changes the value leaves it as he left it; others go on with
        // that.
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.value.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.senders.load(Ordering::Acquire) == 0
    }
}

impl<T> Sender<T> {
    /// The sending end of a value that is `first` in the beginning.
    pub fn new(first: T) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(first),
            changes: AtomicU64::new(0),
            changed: Notify::new(),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            unwatched: Notify::new(),
        }))
    }

    /// Makes `value` the value, if anybody watches.
    pub fn send(&self, value: T) -> Result<(), Unwatched> {
        if self.receiver_count() == 0 {
            return Err(Unwatched);
        }
        self.send_replace(value);
        Ok(())
    }

    /// Makes `value` the value, whether anybody watches or not; what it was before.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|current| std::mem::swap(current, &mut value));
        value
    }

    /// Changes the value where it is.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value where it is; nobody is told unless `change` says that it did.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.0.write();
        let changed = change(&mut value);
        if changed {
            self.0.changes.fetch_add(1, Ordering::Release);
        }
        drop(value);
        if changed {
            self.0.changed.notify_waiters();
        }
        changed
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    /// A receiver that has seen the value as it is.
    pub fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        let shared = self.0.clone();
        Receiver { seen: shared.changes.load(Ordering::Acquire), shared }
    }

    /// How many watch.
    pub fn receiver_count(&self) -> usize {
        self.0.receivers.load(Ordering::Acquire)
    }

    /// Waits until nobody does.
    pub async fn closed(&self) {
        loop {
            let unwatched = self.0.unwatched.notified();
            if self.receiver_count() == 0 {
                return;
            }
            unwatched.await;
        }
    }
}

impl<T> Receiver<T> {
    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// The value, which is seen with that.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        self.seen = self.shared.changes.load(Ordering::Acquire);
        Ref(value)
    }

    /// Whether there was a change that wasn't seen.
    pub fn has_changed(&self) -> Result<bool, Closed> {
        let changed = self.shared.changes.load(Ordering::Acquire) != self.seen;
        if !changed && self.shared.is_closed() { Err(Closed) } else { Ok(changed) }
    }

    /// Waits for a change that wasn't seen, which is seen with that.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Before the look: whatever happens after it wakes this.
            let changed = self.shared.changed.notified();
            let closed = self.shared.is_closed();
            let changes = self.shared.changes.load(Ordering::Acquire);
            if changes != self.seen {
                self.seen = changes;
                return Ok(());
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }

    /// Waits until the value fits; it may do so at once.
    pub async fn wait_for(
        &mut self,
        mut fits: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, Closed> {
        loop {
            let changed = self.shared.changed.notified();
            let closed = self.shared.is_closed();
            {
                let value = self.shared.read();
                self.seen = self.shared.changes.load(Ordering::Acquire);
                if fits(&value) {
                    return Ok(Ref(value));
                }
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.shared.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.unwatched.notify_waiters();
        }
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.borrow()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken_in_the_order_in_which_he_began_to() {
        let (sender, receiver) = channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (0..100)
            .map(|i| {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    woken.lock().unwrap().push(i);
                })
            })
            .collect();
        // The runtime comes back to this task before it has begun all hundred.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        sender.send(1).unwrap();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert!(woken.lock().unwrap().iter().copied().eq(0..100));
    }

    #[tokio::test]
    async fn only_the_newest_value_is_seen_and_once() {
        let (sender, mut receiver) = channel("a");
        assert_eq!((receiver.has_changed(), *receiver.borrow()), (Ok(false), "a"));
        assert_eq!(sender.send_replace("b"), "a");
        sender.send_modify(|value| *value = "c");
        assert_eq!(receiver.has_changed(), Ok(true));
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), "c");
        assert_eq!(receiver.has_changed(), Ok(false));
        assert!(!sender.send_if_modified(|_| false));
        let mut later = sender.subscribe();
        for receiver in [&mut receiver, &mut later] {
            assert!(poll!(std::pin::pin!(receiver.changed())).is_pending());
        }
        sender.send("d").unwrap();
        assert_eq!(*receiver.wait_for(|value| *value > "c").await.unwrap(), "d");
        assert_eq!(receiver.has_changed(), Ok(false));
    }

    #[tokio::test]
    async fn each_end_hears_of_the_end_of_the_other() {
        let (sender, mut receiver) = channel(0);
        let other = sender.clone();
        drop(sender);
        assert!(poll!(std::pin::pin!(receiver.changed())).is_pending());
        let mut waiting = receiver.clone();
        let waiting =
            tokio::spawn(
                async move { waiting.wait_for(|value| *value == 9).await.map(|value| *value) },
            );
        tokio::task::yield_now().await;
        other.send(1).unwrap();
        tokio::task::yield_now().await;
        drop(other);
        assert_eq!(waiting.await.unwrap(), Err(Closed));
        // What was sent before the end is seen first.
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!((receiver.changed().await, receiver.has_changed()), (Err(Closed), Err(Closed)));

        let (sender, receiver) = channel(0);
        let other = receiver.clone();
        drop(receiver);
        assert!(poll!(std::pin::pin!(sender.closed())).is_pending());
        drop(other);
        sender.closed().await;
        assert_eq!((sender.send(1), *sender.borrow()), (Err(Unwatched), 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_change_is_missed_by_many_threads() {
        let sender = Sender::new(0u64);
        let watchers: Vec<_> = (0..8)
            .map(|_| {
                let mut receiver = sender.subscribe();
                tokio::spawn(async move {
                    let mut last = 0;
                    while receiver.changed().await.is_ok() {
                        let value = *receiver.borrow_and_update();
                        assert!(value >= last);
                        last = value;
                    }
                    last
                })
            })
            .collect();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    for _ in 0..1_000 {
                        sender.send_modify(|value| *value += 1);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in senders {
            task.await.unwrap();
        }
        drop(sender);
        for watcher in watchers {
            let last =
                tokio::time::timeout(Duration::from_secs(10), watcher).await.unwrap().unwrap();
            assert_eq!(last, 4_000);
        }
    }
}
