//! The forwards that were answered a moment ago, so that one that comes again is answered again and
//! charged once.
//!
//! A router numbers what it forwards: (router, boot, sequence). If the connection breaks before the
//! answer is there, the router doesn't know whether its check was charged, and sends it again under
//! the same number. The owner keeps the last [`WINDOW`] answers of each router, those that are
//! still being worked out included: whoever asks again waits for the same one. A number that is too
//! old to be remembered is refused, since a repetition can't be told from a first time.
//!
//! What was answered is remembered where it was charged, also when the partition has moved since: a
//! router that doesn't know what became of a forward asks first whom it has asked before, and only
//! goes after the partition if that one knows nothing of it.
//!
//! ```text
//! n2 in boot 7f…   301 decided: allowed   302 being decided   303 decided: denied
//! 302 again        waits for the answer to the first 302
//! 301 again        allowed, as before; nothing is charged
//! n2 in boot a0…   1: another life, another window
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::check::Name;
use crate::peer::BootId;
use crate::peer::check::Source;

/// Answers remembered for each router: as many as are under way in a few milliseconds of
/// saturation, and a router sends a check again at once or not at all.
pub const WINDOW: usize = 4_096;
/// Routers that have a window: as many as a cluster has members.
const ROUTERS_MAX: usize = 256;

/// What becomes of a forward.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// It is new. What was made for it is kept, and is this.
    First(T),
    /// It was there before: this was made for it then.
    Again(T),
    /// Its number is older than what is remembered.
    TooOld,
}

/// The windows of all routers; `T` is an answer, or the promise of one, and cheap to clone.
pub struct Windows<T>(Mutex<BTreeMap<Name, Window<T>>>);

struct Window<T> {
    boot: BootId,
    highest: u64,
    /// The place of a number is its remainder; what stands there may be another's that is older.
    places: Vec<Option<(u64, T)>>,
}

impl<T: Clone> Windows<T> {
    /// No router yet.
    pub fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Looks `source` up. If it is new, `make` makes what is kept for it; nobody else gets in
    /// between, so it must be quick.
    pub fn see(&self, source: &Source, make: impl FnOnce() -> T) -> Seen<T> {
        // A window is whole between any two statements: what panicked while holding the lock left
        // it so.
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match windows.get_mut(&source.router) {
            Some(window) if window.boot == source.boot => window.see(source.sequence, make),
            _ => {
                if windows.len() >= ROUTERS_MAX {
                    // Only members get this far: whoever is pushed out has been replaced by
                    // somebody.
                    windows.pop_first();
                }
                let mut window = Window::new(source.boot);
                let seen = window.see(source.sequence, make);
                windows.insert(source.router.clone(), window);
                seen
            }
        }
    }
}

impl<T: Clone> Windows<T> {
    /// What was made for `source`, if it was here before and is remembered.
    pub fn find(&self, source: &Source) -> Option<T> {
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows
            .get(&source.router)
            .filter(|window| window.boot == source.boot)?
            .find(source.sequence)
    }

    /// Forgets what was made for `source`: it comes for the first time once more.
    pub fn forget(&self, source: &Source) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) =
            windows.get_mut(&source.router).filter(|window| window.boot == source.boot)
        {
            let place = &mut window.places[(source.sequence % WINDOW as u64) as usize];
            place.take_if(|(kept, _)| *kept == source.sequence);
        }
    }
}

impl<T: Clone> Window<T> {
    fn new(boot: BootId) -> Self {
        Self { boot, highest: 0, places: vec![None; WINDOW] }
    }

    fn find(&self, sequence: u64) -> Option<T> {
        let place = self.places[(sequence % WINDOW as u64) as usize].as_ref();
        place.filter(|(kept, _)| *kept == sequence).map(|(_, kept)| kept.clone())
    }

    fn see(&mut self, sequence: u64, make: impl FnOnce() -> T) -> Seen<T> {
        if sequence.saturating_add(WINDOW as u64) <= self.highest {
            return Seen::TooOld;
        }
        if let Some(kept) = self.find(sequence) {
            return Seen::Again(kept);
        }
        let made = make();
        self.places[(sequence % WINDOW as u64) as usize] = Some((sequence, made.clone()));
        self.highest = self.highest.max(sequence);
        Seen::First(made)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn source(boot: u64, sequence: u64) -> Source {
        Source { router: Name::new("n2").unwrap(), boot: BootId(boot), sequence }
    }

    #[test]
    fn what_comes_again_is_answered_as_before_and_another_life_is_another_router() {
        let windows = Windows::new();
        assert_eq!(windows.see(&source(1, 5), || "a"), Seen::First("a"));
        assert_eq!(windows.see(&source(1, 5), || "b"), Seen::Again("a"));
        assert_eq!(windows.see(&source(2, 5), || "c"), Seen::First("c"));
        assert_eq!((windows.find(&source(2, 5)), windows.find(&source(2, 6))), (Some("c"), None));
        assert_eq!(windows.find(&source(1, 5)), None);
        // The old life is over: what still comes of it begins a window of its own.
        assert_eq!(windows.see(&source(2, 5), || "d"), Seen::Again("c"));
    }

    #[test]
    fn a_number_that_may_have_been_forgotten_is_refused() {
        let windows = Windows::new();
        let at = |sequence| windows.see(&source(1, sequence), || sequence);
        assert_eq!(at(WINDOW as u64 + 10), Seen::First(WINDOW as u64 + 10));
        assert_eq!(at(10), Seen::TooOld);
        assert_eq!(at(11), Seen::First(11));
    }

    proptest! {
        #[test]
        fn nothing_is_made_twice_for_one_number(order in proptest::collection::vec(0u64..20_000, 1..400)) {
            let windows = Windows::new();
            let mut made = BTreeSet::new();
            for sequence in order {
                match windows.see(&source(1, sequence), || sequence) {
                    Seen::First(kept) => prop_assert!(made.insert(kept) && kept == sequence),
                    Seen::Again(kept) => prop_assert!(made.contains(&sequence) && kept == sequence),
                    Seen::TooOld => prop_assert!(made.iter().any(|made| *made >= sequence + WINDOW as u64)),
                }
            }
        }
    }
}
