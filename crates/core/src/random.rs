//! Randomness that follows from a seed.
//!
//! Everything random in a node (its secret, permit ids) comes from generators forked off one
//! [`Seed`] by name. The node draws the seed from the operating system; a simulation passes one of
//! its own and sees the same run again.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::fmt;
use std::hash::Hasher;

/// Thirty-two bytes from which a node's every random choice follows.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl fmt::Debug for Seed {
    /// It says nothing: whoever knows a seed knows what follows from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Seed {
    /// The seed of these bytes, which must be unpredictable where a network is faced.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The same seed for the same number: for tests and simulations, never for a node that faces a
    /// network.
    pub fn from_number(number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(bytes)
    }

    /// An independent generator for the use named `label`, number `index`.
    pub fn fork(&self, label: &str, index: u64) -> Generator {
        let mut seed = self.0;
        for (i, chunk) in seed.chunks_exact_mut(8).enumerate() {
            let mut hasher = siphasher::sip::SipHasher13::new_with_keys(index, i as u64);
            hasher.write(&self.0);
            hasher.write(label.as_bytes());
            chunk.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        Generator(ChaCha12Rng::from_seed(seed))
    }
}

/// A stream of unpredictable numbers (ChaCha12).
pub struct Generator(ChaCha12Rng);

impl Generator {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// The next 128 bits.
    pub fn next_u128(&mut self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_label_give_the_same_numbers_and_another_label_gives_others() {
        let seed = Seed::from_number(7);
        let (mut a, mut b, mut c) =
            (seed.fork("permits", 0), seed.fork("permits", 0), seed.fork("permits", 1));
        let (x, y, z) = (a.next_u128(), b.next_u128(), c.next_u128());
        assert_eq!(x, y);
        assert_ne!(x, z);
    }
}
