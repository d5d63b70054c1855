//! What a shard remembers of one tenant: its buckets, its permits, the request ids it has answered,
//! its open checks.
//!
//! Most accounts have one or two buckets and nothing else, so those lie in the account itself; an
//! account of two buckets is two and a half cache lines. What few need is behind one pointer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::check::{ANONYMOUS, Decision, RequestId, TenantId};
use crate::limit::{Permits, State};
use crate::placement::AccountHash;
use crate::policy::Plan;

use super::op::{Op, OpId};

/// A bucket of an account, found by the keyed hash of its limit's name, algorithm and values.
#[derive(Clone, Debug)]
pub struct Slot {
    pub key: u64,
    pub state: State,
}

/// Buckets up to this many are searched one by one; a tenant with more of them (one per client,
/// say) gets a map.
const SLOTS_SEARCHED_MAX: usize = 8;

/// The buckets of one account.
pub enum Buckets {
    /// In the account itself. An empty place takes no more room than a full one, and no count of
    /// them is kept.
    Few([Option<Slot>; 2]),
    Several(Vec<Slot>),
    Many(Box<Many>),
}

/// Many buckets, and the key from which the next search for one to forget begins.
#[derive(Default)]
pub struct Many {
    states: BTreeMap<u64, State>,
    hand: u64,
}

impl Buckets {
    pub fn new() -> Self {
        Self::Few([None, None])
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Few(slots) => slots.iter().flatten().count(),
            Self::Several(slots) => slots.len(),
            Self::Many(many) => many.states.len(),
        }
    }

    pub fn get(&self, key: u64) -> Option<&State> {
        match self {
            Self::Few(slots) => {
                slots.iter().flatten().find(|slot| slot.key == key).map(|slot| &slot.state)
            }
            Self::Several(slots) => {
                slots.iter().find(|slot| slot.key == key).map(|slot| &slot.state)
            }
            Self::Many(many) => many.states.get(&key),
        }
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut State> {
        let slot = match self {
            Self::Few(slots) => slots.iter_mut().flatten().find(|slot| slot.key == key),
            Self::Several(slots) => slots.iter_mut().find(|slot| slot.key == key),
            Self::Many(many) => return many.states.get_mut(&key),
        };
        slot.map(|slot| &mut slot.state)
    }

    /// Keeps a bucket under a key that has none yet.
    pub fn insert(&mut self, key: u64, state: State) {
        let slot = Slot { key, state };
        match self {
            Self::Few(slots) => match slots.iter_mut().find(|slot| slot.is_none()) {
                Some(free) => *free = Some(slot),
                None => {
                    *self = Self::Several(
                        slots.iter_mut().filter_map(Option::take).chain([slot]).collect(),
                    )
                }
            },
            Self::Several(slots) if slots.len() < SLOTS_SEARCHED_MAX => slots.push(slot),
            Self::Several(slots) => {
                let states =
                    slots.drain(..).chain([slot]).map(|slot| (slot.key, slot.state)).collect();
                *self = Self::Many(Box::new(Many { states, hand: 0 }));
            }
            Self::Many(many) => drop(many.states.insert(key, slot.state)),
        }
    }

    /// Drops a bucket, if it is there.
    pub fn remove(&mut self, key: u64) {
        match self {
            Self::Few(slots) => {
                for slot in slots {
                    slot.take_if(|slot| slot.key == key);
                }
            }
            Self::Several(slots) => slots.retain(|slot| slot.key != key),
            Self::Many(many) => drop(many.states.remove(&key)),
        }
    }

    /// Looks at the next `most` buckets and drops those that `fresh` says hold no information.
    /// Answers how many went.
    pub fn forget(&mut self, most: usize, fresh: impl Fn(u64, &State) -> bool) -> usize {
        let before = self.len();
        match self {
            Self::Few(slots) => {
                for slot in slots {
                    slot.take_if(|slot| fresh(slot.key, &slot.state));
                }
            }
            Self::Several(slots) => slots.retain(|slot| !fresh(slot.key, &slot.state)),
            Self::Many(many) => {
                let ahead = many.states.range(many.hand..).take(most);
                let looked_at: SmallVec<[(u64, bool); 16]> =
                    ahead.map(|(k, s)| (*k, fresh(*k, s))).collect();
                many.hand = match looked_at.last() {
                    Some((last, _)) if looked_at.len() == most => last.wrapping_add(1),
                    _ => 0,
                };
                for (key, _) in looked_at.iter().filter(|(_, gone)| *gone) {
                    many.states.remove(key);
                }
            }
        }
        before - self.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &State)> {
        let (few, several, many) = match self {
            Self::Few(slots) => (&slots[..], &[][..], None),
            Self::Several(slots) => (&[][..], &slots[..], None),
            Self::Many(many) => (&[][..], &[][..], Some(&many.states)),
        };
        let slots = few.iter().flatten().chain(several).map(|slot| (slot.key, &slot.state));
        slots.chain(many.into_iter().flatten().map(|(key, state)| (*key, state)))
    }
}

/// A request id and the hash of whose it is: beyond a cap, strangers share an account.
pub type ReplayKey = (u64, RequestId);

/// An allowed answer that a repetition of its request id gets again.
pub struct Replay {
    /// Of the check it answered.
    pub fingerprint: u64,
    /// Boot nanoseconds.
    pub expires: u64,
    pub decision: Box<Decision>,
}

/// Units that an open check of this account holds until its other limits have answered.
pub struct OwnHold {
    pub op: OpId,
    pub keys: SmallVec<[(u64, u64); 4]>,
    pub slots: u64,
    pub request_ids: SmallVec<[ReplayKey; 1]>,
}

/// What few accounts need.
#[derive(Default)]
pub struct Extras {
    pub permits: Permits,
    pub replays: BTreeMap<ReplayKey, Replay>,
    /// Request ids in the order of their expiry; an id that was replaced stands here twice.
    pub replay_order: VecDeque<(u64, ReplayKey)>,
    pub holds: Vec<OwnHold>,
    /// Checks that wait for an open one of the same account.
    pub parked: VecDeque<Box<Op>>,
}

/// One tenant's state.
pub struct Account {
    /// Up to 24 bytes of it lie here, as most ids do.
    pub id: CompactString,
    pub hash: AccountHash,
    /// Whether the policy names it; named and unknown accounts have caps of their own.
    pub named: bool,
    /// Under which of the two caps it is counted.
    pub counted_as_named: bool,
    /// Whether it is as the copy says that was made of its partition last.
    pub copied: bool,
    pub plan: Option<Arc<Plan>>,
    pub buckets: Buckets,
    pub extras: Option<Box<Extras>>,
}

impl Account {
    pub fn new(id: CompactString, hash: AccountHash, named: bool) -> Self {
        Self {
            id,
            hash,
            named,
            counted_as_named: named,
            copied: false,
            plan: None,
            buckets: Buckets::new(),
            extras: None,
        }
    }

    pub fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// The tenant whose account it is; none where it is no tenant's.
    pub fn tenant(&self) -> Option<TenantId> {
        TenantId::new(self.id.split('@').next().unwrap_or(ANONYMOUS))
    }

    /// Request ids that are remembered.
    pub fn replays(&self) -> usize {
        self.extras.as_ref().map_or(0, |extras| extras.replays.len())
    }

    /// Permits that are out.
    pub fn permits(&self) -> u64 {
        self.extras.as_ref().map_or(0, |extras| extras.permits.flying())
    }

    /// Units that open checks hold of bucket `key`.
    pub fn held(&self, key: u64) -> u64 {
        let Some(extras) = &self.extras else { return 0 };
        let held = extras.holds.iter().flat_map(|hold| &hold.keys).filter(|(k, _)| *k == key);
        held.fold(0, |sum, (_, cost)| sum.saturating_add(*cost))
    }

    /// The keys of the buckets that open checks hold units of.
    pub fn held_keys(&self) -> SmallVec<[u64; 4]> {
        let holds = self.extras.iter().flat_map(|extras| &extras.holds);
        holds.flat_map(|hold| &hold.keys).map(|(key, _)| *key).collect()
    }

    /// Permits that open checks are about to be given.
    pub fn held_slots(&self) -> u64 {
        self.extras.as_ref().map_or(0, |extras| extras.holds.iter().map(|hold| hold.slots).sum())
    }

    /// Drops permits and request ids whose time is up. Answers how many request ids went.
    pub fn expire(&mut self, boot: u64) -> usize {
        let Some(extras) = &mut self.extras else { return 0 };
        extras.permits.advance(boot);
        let before = extras.replays.len();
        while let Some((expires, id)) = extras.replay_order.front() {
            if *expires > boot {
                break;
            }
            if extras.replays.get(id).is_some_and(|replay| replay.expires <= boot) {
                extras.replays.remove(id);
            }
            extras.replay_order.pop_front();
        }
        let gone = before - extras.replays.len();
        if extras.permits.flying() == 0
            && extras.replays.is_empty()
            && extras.holds.is_empty()
            && extras.parked.is_empty()
        {
            self.extras = None;
        }
        gone
    }

    /// Whether nothing is in it. What was taken of a bucket can matter again under other numbers,
    /// even where it is like a fresh one under its own.
    pub fn is_blank(&self) -> bool {
        self.extras.is_none() && self.buckets.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_of_two_buckets_takes_two_and_a_half_cache_lines() {
        assert!(size_of::<Option<Account>>() <= 168, "{}", size_of::<Option<Account>>());
    }
}
