//! Names for requests (`X-Request-Id`): as the caller gives them, or made here.

use std::sync::{Mutex, PoisonError};

use crate::random::Generator;

/// The longest request id that is taken over, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Where request ids come from that no caller gave.
pub struct RequestIds(Mutex<Generator>);

impl RequestIds {
    /// From this generator.
    pub fn new(generator: Generator) -> Self {
        Self(Mutex::new(generator))
    }

    /// Whether an id that a caller gave can stand as it is: 1 to 128 visible ASCII characters.
    /// Others could break a log's lines, or fill them.
    pub fn is_fit(id: &[u8]) -> bool {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
    }

    /// A new one: 32 hexadecimal digits.
    pub fn fresh(&self) -> String {
        let mut generator = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{:032x}", generator.next_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    #[test]
    fn visible_ascii_of_up_to_128_bytes_stands_and_nothing_else_does() {
        for fit in ["a", "req-1/2:3", &"x".repeat(128)] {
            assert!(RequestIds::is_fit(fit.as_bytes()), "{fit}");
        }
        for unfit in ["", "a b", "a\tb", "ä", &"x".repeat(129)] {
            assert!(!RequestIds::is_fit(unfit.as_bytes()), "{unfit}");
        }
    }

    #[test]
    fn fresh_ids_differ_and_are_fit() {
        let ids = RequestIds::new(Seed::from_number(1).fork("request ids", 0));
        let (a, b) = (ids.fresh(), ids.fresh());
        assert!(a != b && RequestIds::is_fit(a.as_bytes()) && a.len() == 32);
    }
}
