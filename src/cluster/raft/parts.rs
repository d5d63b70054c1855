//! Messages in parts: a frame between nodes has a bound, a snapshot or a policy of a million
//! tenants has not.
//!
//! A message goes as one frame if it fits, else in parts of [`PART_BYTES`], one after another, each
//! waiting for the answer to the one before; the answer to the last is the answer to the message. A
//! sender that gives up starts from the first part.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::placement::NodeId;

/// Bytes of a message in one frame; the frame is a few bytes longer.
pub const PART_BYTES: usize = 512 << 10;
/// Bytes of a message in all its parts.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// Messages that are arriving in parts at a time: one from each of the few who send that much, and
/// what they gave up.
const ARRIVING_MAX: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Frame {
    Whole(Vec<u8>),
    Part { message: u64, index: u32, last: bool, bytes: Vec<u8> },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FrameReply {
    /// The answer to the message.
    Answer(Vec<u8>),
    /// The part is here, the next may come.
    More,
    /// It can't be taken.
    Refused(String),
}

/// Cuts `message`, number `number` of this sender, into frames.
pub(super) fn cut(message: Vec<u8>, number: u64) -> Vec<Frame> {
    if message.len() <= PART_BYTES {
        return vec![Frame::Whole(message)];
    }
    let parts = message.len().div_ceil(PART_BYTES);
    let frame = |(index, bytes): (usize, &[u8])| Frame::Part {
        message: number,
        index: u32::try_from(index).unwrap_or(u32::MAX),
        last: index + 1 == parts,
        bytes: bytes.to_vec(),
    };
    message.chunks(PART_BYTES).enumerate().map(frame).collect()
}

/// Messages that are arriving.
#[derive(Default)]
pub(super) struct Arriving {
    messages: BTreeMap<(NodeId, u64), (u64, u32, Vec<u8>)>,
    parts_seen: u64,
}

impl Arriving {
    /// Takes a frame; answers with the message if it is complete.
    pub(super) fn take(&mut self, from: NodeId, frame: Frame) -> Result<Option<Vec<u8>>, String> {
        let (message, index, last, bytes) = match frame {
            Frame::Whole(bytes) => return Ok(Some(bytes)),
            Frame::Part { message, index, last, bytes } => (message, index, last, bytes),
        };
        self.parts_seen += 1;
        let key = (from, message);
        if index == 0 {
            self.messages.remove(&key);
            if self.messages.len() >= ARRIVING_MAX {
                // The one that has been silent longest was given up.
                let silent =
                    self.messages.iter().min_by_key(|(_, (seen, ..))| *seen).map(|(key, _)| *key);
                silent.and_then(|key| self.messages.remove(&key));
            }
            self.messages.insert(key, (self.parts_seen, 0, Vec::new()));
        }
        let Some((seen, next, taken)) = self.messages.get_mut(&key) else {
            return Err(format!("part {index} of a message whose beginning is gone"));
        };
        if *next != index {
            let expected = *next;
            self.messages.remove(&key);
            return Err(format!("part {index} came where part {expected} was expected"));
        }
        if taken.len() + bytes.len() > MESSAGE_BYTES_MAX {
            self.messages.remove(&key);
            return Err(format!("a message of more than {MESSAGE_BYTES_MAX} bytes"));
        }
        (*seen, *next) = (self.parts_seen, index + 1);
        taken.extend_from_slice(&bytes);
        Ok(if last { self.messages.remove(&key).map(|(_, _, whole)| whole) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: usize) -> Vec<u8> {
        (0..parts * PART_BYTES - 7).map(|i| i as u8).collect()
    }

    #[test]
    fn a_large_message_arrives_whole_and_beside_others() {
        let mut arriving = Arriving::default();
        let (a, b) = (cut(message(3), 1), cut(message(3), 2));
        assert_eq!((a.len(), b.len()), (3, 3));
        let mut whole = Vec::new();
        for (a, b) in a.into_iter().zip(b) {
            whole.push(arriving.take(NodeId(1), a).unwrap());
            whole.push(arriving.take(NodeId(2), b).unwrap());
        }
        assert_eq!(whole, [None, None, None, None, Some(message(3)), Some(message(3))]);
        assert!(arriving.messages.is_empty());
    }

    #[test]
    fn a_part_out_of_order_is_refused_and_the_message_can_start_again() {
        let mut arriving = Arriving::default();
        let mut parts = cut(message(3), 1);
        parts.swap(1, 2);
        let outcomes: Vec<_> =
            parts.into_iter().map(|part| arriving.take(NodeId(1), part).is_ok()).collect();
        assert_eq!(outcomes, [true, false, false]);
        let again: Vec<_> = cut(message(3), 1)
            .into_iter()
            .map(|part| arriving.take(NodeId(1), part).unwrap())
            .collect();
        assert_eq!(again[2], Some(message(3)));
    }

    #[test]
    fn messages_that_were_given_up_take_a_bounded_place() {
        let mut arriving = Arriving::default();
        for number in 0..100 {
            let first = cut(message(2), number).remove(0);
            assert_eq!(arriving.take(NodeId(1), first), Ok(None));
        }
        assert_eq!(arriving.messages.len(), ARRIVING_MAX);
    }
}
