//! The callers of a world's shards, kept under the ids that the shards know them by.

use std::cell::RefCell;
use std::rc::Rc;

use smallvec::smallvec;

use super::*;
use crate::shard::at_once::AtOnce;

/// A caller that waits for a `T`, as the body of a shard keeps one.
pub(super) struct Waits<T>(Rc<RefCell<Option<T>>>);

impl<T> Waits<T> {
    /// A caller, and the end at which it is answered.
    pub(super) fn new() -> (Rc<RefCell<Option<T>>>, Self) {
        let answer = Rc::default();
        (Rc::clone(&answer), Self(answer))
    }
}

/// Where a caller is answered.
pub(super) enum Caller {
    Whole(Rc<RefCell<Option<Answer>>>),
    Each(Rc<RefCell<Option<Each>>>),
}

impl World {
    /// Answers a caller, which must not have been answered before.
    pub(super) fn answer(&mut self, reply: ReplyId, answer: Result<Answer, Each>) {
        match (self.callers.remove(&reply).expect("a caller that waits"), answer) {
            (Caller::Whole(to), Ok(answer)) => drop(to.replace(Some(answer))),
            (Caller::Each(to), Err(answers)) => drop(to.replace(Some(answers))),
            _ => panic!("a caller of one kind was answered as one of the other"),
        }
    }

    pub(super) fn wait(&mut self, caller: Caller) -> ReplyId {
        self.calls += 1;
        let reply = ReplyId { slot: self.calls % 7, generation: self.calls };
        self.callers.insert(reply, caller);
        reply
    }

    /// A caller that waits for a check, a peek or a batch that passes or fails as one.
    pub(super) fn waits(&mut self) -> (ReplyId, Waits<Answer>) {
        let (to, waits) = Waits::new();
        (self.wait(Caller::Whole(to)), waits)
    }

    /// What `shard` answers a check: by the fast path where that has an answer, as the body does.
    pub(super) fn start_at(&mut self, shard: usize, check: &Check) -> Waits<Answer> {
        let (question, (reply, waits)) = (self.question(check), self.waits());
        let decided = self.on(shard, |s, now, out| match s.at_once(question, now) {
            AtOnce::Decided(decided) => Some(decided),
            AtOnce::NotMine(question) => {
                s.check(question, reply, now, out);
                None
            }
        });
        if let Some(decided) = decided {
            self.answer(reply, Ok(decided.map(|decision| smallvec![decision])));
        }
        waits
    }
}

/// The answer, if it is there and was not taken before.
pub(super) fn answered<T>(answer: &mut Waits<T>) -> Option<T> {
    answer.0.take()
}

/// The answer, which is there.
pub(super) fn now<T>(answer: &mut Waits<T>) -> T {
    answered(answer).expect("it has been answered")
}
