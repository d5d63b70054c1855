//! The id of a concurrency permit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Concurrency slot granted by a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PermitId {
    /// The partition that keeps it, so that any node can find it.
    pub partition: u16,
    /// Unpredictable, so that nobody releases what isn't theirs.
    pub secret: u128,
}

impl PermitId {
    /// Parses what `Display` prints.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("p")?;
        if digits.len() != 35
            || !digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return None;
        }
        Some(Self {
            partition: u16::from_str_radix(&digits[..3], 16).ok()?,
            secret: u128::from_str_radix(&digits[3..], 16).ok()?,
        })
    }
}

impl fmt::Display for PermitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{:03x}{:032x}", self.partition, self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_id_reads_back_as_it_was_written() {
        let id = PermitId { partition: 4095, secret: 1 << 100 | 7 };
        assert_eq!(PermitId::parse(&id.to_string()), Some(id));
        for bad in [
            "",
            "p",
            "pfff",
            "x00000000000000000000000000000000000",
            "pÄÄÄ00000000000000000000000000000000",
        ] {
            assert_eq!(PermitId::parse(bad), None, "{bad}");
        }
    }
}
