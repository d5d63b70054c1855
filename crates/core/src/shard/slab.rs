//! Accounts side by side, in chunks that never move.
//!
//! One long vector would be copied as it grows: with a million accounts that takes a tenth of a
//! second, in which nobody is answered. A chunk is small enough that nobody notices how one more is
//! made.

use super::account::Account;

/// Bytes of a chunk: a size that the allocator has, so that nothing is left over behind it.
const CHUNK_BYTES: usize = 160 << 10;
/// Accounts in one chunk.
const CHUNK: usize = CHUNK_BYTES / size_of::<Option<Account>>();

/// Accounts by their position; a place that is empty may be used again.
#[derive(Default)]
pub struct Slab {
    chunks: Vec<Box<[Option<Account>]>>,
    len: usize,
}

impl Slab {
    /// How many positions there are, those that are empty included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What lies at a position; nothing beyond the last.
    pub fn get(&self, position: usize) -> Option<&Account> {
        self.chunks.get(position / CHUNK)?[position % CHUNK].as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, position: usize) -> Option<&mut Account> {
        self.chunks.get_mut(position / CHUNK)?[position % CHUNK].as_mut()
    }

    /// Puts an account at the end; its position.
    pub fn push(&mut self, account: Account) -> usize {
        let position = self.len;
        if position / CHUNK == self.chunks.len() {
            self.chunks.push((0..CHUNK).map(|_| None).collect());
        }
        self.len += 1;
        self.put(position, account);
        position
    }

    /// Puts an account where another was.
    pub fn put(&mut self, position: usize, account: Account) {
        self.chunks[position / CHUNK][position % CHUNK] = Some(account);
    }

    /// Takes away what lies at a position.
    pub fn take(&mut self, position: usize) -> Option<Account> {
        self.chunks.get_mut(position / CHUNK)?[position % CHUNK].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::AccountHash;

    #[test]
    fn accounts_stay_where_they_are_put_however_many_come() {
        let account =
            |i: usize| Account::new(format!("t-{i}").as_str().into(), AccountHash(i as u64), false);
        let mut slab = Slab::default();
        assert!(slab.get(0).is_none());
        for i in 0..3 * CHUNK {
            assert_eq!(slab.push(account(i)), i);
        }
        assert_eq!(slab.len(), 3 * CHUNK);
        assert_eq!(slab.take(CHUNK).unwrap().hash, AccountHash(CHUNK as u64));
        assert!(slab.get(CHUNK).is_none() && slab.take(CHUNK).is_none());
        slab.put(CHUNK, account(7));
        slab.get_mut(CHUNK).unwrap().named = true;
        let read = |at: usize| slab.get(at).map(|account| (account.hash.0, account.named));
        assert_eq!(
            [CHUNK - 1, CHUNK, CHUNK + 1].map(read),
            [Some((CHUNK as u64 - 1, false)), Some((7, true)), Some((CHUNK as u64 + 1, false))]
        );
        assert!(slab.get(3 * CHUNK).is_none() && slab.get(usize::MAX).is_none());
    }
}
