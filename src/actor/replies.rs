//! The callers that wait for an answer of one shard, by the id under which its mind knows them.

use tokio::sync::oneshot;

use crate::shard::ReplyId;

/// One slot: the generation of its present or next caller, and the caller.
struct Slot<T> {
    generation: u32,
    caller: Option<oneshot::Sender<T>>,
}

/// The callers that wait for a `T`. As many at most as the mind has open checks and batches.
///
/// Slots are used again, so that a table that has once grown allocates no more.
pub(super) struct Replies<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Replies<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Replies<T> {
    /// Keeps `caller` until [`Replies::send`] answers it.
    pub(super) fn insert(&mut self, caller: oneshot::Sender<T>) -> ReplyId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, caller: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.caller = Some(caller);
        ReplyId { slot, generation: place.generation }
    }

    /// Answers the caller under `reply`, which waits no longer. A second answer to an id is
    /// dropped.
    pub(super) fn send(&mut self, reply: ReplyId, answer: T) {
        let Some(place) = self.slots.get_mut(reply.slot as usize) else { return };
        if place.generation != reply.generation {
            return;
        }
        let Some(caller) = place.caller.take() else { return };
        place.generation = place.generation.wrapping_add(1);
        self.free.push(reply.slot);
        // A caller that has stopped waiting doesn't need the answer.
        let _ = caller.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_used_again_has_another_id() {
        let mut replies = Replies::default();
        let (to, mut first) = oneshot::channel();
        let before = replies.insert(to);
        replies.send(before, 1);
        let (to, mut second) = oneshot::channel();
        let after = replies.insert(to);
        assert_eq!((before.slot, after.slot), (0, 0));
        // Too late for the first, which has its answer, and not for the second.
        replies.send(before, 2);
        assert!(second.try_recv().is_err());
        replies.send(after, 3);
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(1), Ok(3)));
    }
}
