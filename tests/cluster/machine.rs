//! The machine's processors: clusters of different tests share them, and a test that needs all of
//! them waits until no other cluster runs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

static MACHINE: Mutex<Machine> =
    Mutex::new(Machine { shared: Vec::new(), alone: None, waiting: 0 });
static CHANGED: Condvar = Condvar::new();

struct Machine {
    /// The test of each cluster, by the thread that made it.
    shared: Vec<ThreadId>,
    /// The test that has the machine for itself.
    alone: Option<ThreadId>,
    /// How many tests wait to have it for themselves.
    waiting: usize,
}

/// A cluster's part of the machine, until it is dropped.
pub struct Share(ThreadId);

/// The whole machine, until it is dropped.
pub struct Whole(());

/// Waits until no other test has the machine for itself, or waits for that. A test that has a
/// share gets another one at once: it could wait for itself.
pub fn share() -> Share {
    let test = thread::current().id();
    let mut machine = wait_while(machine(), |machine| {
        let is_known = machine.alone == Some(test) || machine.shared.contains(&test);
        !is_known && (machine.alone.is_some() || machine.waiting > 0)
    });
    machine.shared.push(test);
    Share(test)
}

/// Waits until no cluster runs, and lets no other test make one until the machine is dropped. The
/// test must not have a cluster yet.
pub fn whole() -> Whole {
    let mut machine = machine();
    machine.waiting += 1;
    let mut machine =
        wait_while(machine, |machine| machine.alone.is_some() || !machine.shared.is_empty());
    machine.waiting -= 1;
    machine.alone = Some(thread::current().id());
    Whole(())
}

fn machine() -> MutexGuard<'static, Machine> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_while(
    machine: MutexGuard<'static, Machine>,
    is_taken: impl Fn(&Machine) -> bool,
) -> MutexGuard<'static, Machine> {
    let waited = CHANGED.wait_while(machine, |machine| is_taken(machine));
    waited.unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut machine = machine();
        if let Some(at) = machine.shared.iter().position(|test| *test == self.0) {
            machine.shared.swap_remove(at);
        }
        CHANGED.notify_all();
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        machine().alone = None;
        CHANGED.notify_all();
    }
}
