//! Concurrency (A6): at most so many in flight.
//!
//! Each admission that asks for one holds a permit until it is released or its time is up; renewing
//! moves its end. The permits out are the whole state, so a changed maximum needs no conversion:
//! whoever has a permit keeps it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Outcome, shifted};
use crate::permit::PermitId;

/// The largest number that may be in flight for one tenant: a permit is remembered in about 100
/// bytes.
pub const MAX_CONCURRENT_MAX: u64 = 1_000_000;

/// The permits of one tenant that are out, with the boot nanoseconds at which they expire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Permits {
    expiry: BTreeMap<PermitId, u64>,
    by_expiry: BTreeSet<(u64, PermitId)>,
}

impl Permits {
    /// Drops the permits whose time is up.
    pub fn advance(&mut self, boot: u64) {
        while let Some(&(at, id)) = self.by_expiry.first() {
            if at > boot {
                break;
            }
            self.by_expiry.pop_first();
            self.expiry.remove(&id);
        }
    }

    /// Whether `slots` more may fly while other open checks hold `held` slots.
    pub fn judge(&self, max: u64, slots: u64, held: u64, boot: u64) -> Outcome {
        let Some(room) = max.checked_sub(slots) else {
            return Outcome::Never;
        };
        let flying = self.flying();
        if flying.saturating_add(held) <= room {
            Outcome::Pass
        } else if flying <= room {
            Outcome::Held
        } else {
            // The expiry that leaves enough slots free; earlier, if somebody releases.
            let surplus = usize::try_from(flying - room - 1).unwrap_or(usize::MAX);
            let frees =
                self.by_expiry.iter().nth(surplus).map_or(0, |(at, _)| at.saturating_sub(boot));
            Outcome::Wait(frees)
        }
    }

    /// Permits that are out.
    pub fn flying(&self) -> u64 {
        self.expiry.len() as u64
    }

    /// Hands out `id` until boot time `until`.
    pub fn grant(&mut self, id: PermitId, until: u64) {
        self.release(id);
        self.expiry.insert(id, until);
        self.by_expiry.insert((until, id));
    }

    /// Whether `id` is out.
    pub fn contains(&self, id: PermitId) -> bool {
        self.expiry.contains_key(&id)
    }

    /// Takes `id` back; false where it was not out.
    pub fn release(&mut self, id: PermitId) -> bool {
        let Some(at) = self.expiry.remove(&id) else {
            return false;
        };
        self.by_expiry.remove(&(at, id));
        true
    }

    /// Those that are out, and the boot times until which they are.
    pub fn out(&self) -> impl Iterator<Item = (PermitId, u64)> {
        self.expiry.iter().map(|(id, until)| (*id, *until))
    }

    /// Adds those that others have handed out.
    pub fn add(&mut self, others: Self) {
        others.expiry.into_iter().for_each(|(id, until)| self.grant(id, until));
    }

    /// Nanoseconds until the last permit that is out has expired.
    pub fn reset_after(&self, boot: u64) -> u64 {
        self.by_expiry.last().map_or(0, |(at, _)| at.saturating_sub(boot))
    }

    /// The ids that are out.
    pub fn ids(&self) -> impl Iterator<Item = PermitId> {
        self.expiry.keys().copied()
    }

    /// See [`super::State::shift_boot`].
    pub fn shift_boot(&mut self, forward: i128) {
        for (_, at) in self.expiry.iter_mut() {
            *at = shifted(*at, forward);
        }
        self.by_expiry = self.expiry.iter().map(|(id, at)| (*at, *id)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(secret: u128) -> PermitId {
        PermitId { partition: 0, secret }
    }

    #[test]
    fn a_permit_is_out_until_it_is_released_or_its_time_is_up() {
        let mut permits = Permits::default();
        permits.grant(id(1), 100);
        permits.grant(id(2), 200);
        assert_eq!(permits.judge(2, 1, 0, 50), Outcome::Wait(50));
        assert_eq!(permits.judge(3, 1, 0, 50), Outcome::Pass);
        assert_eq!(permits.judge(3, 1, 1, 50), Outcome::Held);
        assert!(permits.release(id(1)) && !permits.release(id(1)));
        assert_eq!(permits.judge(2, 1, 0, 50), Outcome::Pass);
        permits.advance(199);
        assert_eq!(permits.flying(), 1);
        permits.advance(200);
        assert_eq!(permits.flying(), 0);
    }

    #[test]
    fn a_lowered_maximum_waits_for_as_many_expiries_as_it_takes() {
        let mut permits = Permits::default();
        (1..=5).for_each(|n| permits.grant(id(n), n as u64 * 100));
        assert_eq!(permits.judge(3, 1, 0, 0), Outcome::Wait(300));
    }
}
