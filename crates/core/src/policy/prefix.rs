//! How much of an IP address counts: limits per address, and accounts of `anonymous`, are keyed by
//! its first bits.
//!
//! A provider gives every customer a whole IPv6 network of 64 bits or more, so a limit keyed by
//! single addresses would give each customer 2^64 budgets. An IPv4 address counts whole unless the
//! policy says otherwise. Lists name addresses and ranges as they are written, and know no prefix.
//!
//! ```text
//! ipv6_prefix = 64     2001:db8:1:2:a::7 and 2001:db8:1:2:b::9 count as 2001:db8:1:2::
//! ipv4_prefix = 24     192.0.2.9, and also ::ffff:192.0.2.9, counts as 192.0.2.0
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::document::canonical_ip;
use crate::input::{Fields, Reader};

/// The bits of addresses that count, from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPrefixes {
    v4: u8,
    v6: u8,
}

impl Default for IpPrefixes {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl IpPrefixes {
    /// The members of a document that say them.
    pub const MEMBERS: [&str; 2] = ["ipv4_prefix", "ipv6_prefix"];

    /// Reads the members; the default for each that is absent.
    pub(super) fn read(r: &mut Reader, fields: &mut Fields<'_>) -> Self {
        let mut bits = |name, most: u8, unsaid| {
            let read = fields.optional(r, name, |r, t| r.whole(t, 1..=u64::from(most)));
            read.and_then(|bits| u8::try_from(bits).ok()).unwrap_or(unsaid)
        };
        let unsaid = Self::default();
        let [v4, v6] = Self::MEMBERS;
        Self { v4: bits(v4, 32, unsaid.v4), v6: bits(v6, 128, unsaid.v6) }
    }

    /// The members that differ from the default.
    pub(super) fn to_json(self) -> impl Iterator<Item = (String, Value)> {
        let unsaid = Self::default();
        let all = Self::MEMBERS.into_iter().zip([(self.v4, unsaid.v4), (self.v6, unsaid.v6)]);
        let said = all.filter(|(_, (bits, unsaid))| bits != unsaid);
        said.map(|(name, (bits, _))| (name.to_string(), json!(bits)))
    }

    /// The address as which `ip` counts: the first of all that have its prefix.
    pub fn counted(self, ip: IpAddr) -> IpAddr {
        match canonical_ip(ip) {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.v4)).unwrap_or(0);
                Ipv4Addr::from(u32::from(v4) & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.v6)).unwrap_or(0);
                Ipv6Addr::from(u128::from(v6) & mask).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Document;

    const BARE: &str = "default_tier = \"t\"\n[tiers.t]\n";

    fn counted(members: &str, ip: &str) -> String {
        let document = Document::from_toml(format!("{members}\n{BARE}").as_bytes()).unwrap();
        document.ip_prefixes.counted(ip.parse().unwrap()).to_string()
    }

    #[test]
    fn an_address_counts_by_its_prefix() {
        for (members, ip, as_which) in [
            ("", "2001:db8:1:2:a::7", "2001:db8:1:2::"),
            ("", "192.0.2.9", "192.0.2.9"),
            ("", "::ffff:192.0.2.9", "192.0.2.9"),
            ("ipv6_prefix = 48", "2001:db8:1:2:a::7", "2001:db8:1::"),
            ("ipv6_prefix = 128", "2001:db8::7", "2001:db8::7"),
            ("ipv6_prefix = 1", "2001:db8::7", "::"),
            ("ipv4_prefix = 24", "192.0.2.9", "192.0.2.0"),
            ("ipv4_prefix = 24", "::ffff:192.0.2.9", "192.0.2.0"),
            ("ipv4_prefix = 24", "2001:db8:1:2:a::7", "2001:db8:1:2::"),
        ] {
            assert_eq!(counted(members, ip), as_which, "{members} {ip}");
        }
    }

    #[test]
    fn a_prefix_has_bounds_and_a_default_is_not_shown() {
        for members in
            ["ipv4_prefix = 0", "ipv4_prefix = 33", "ipv6_prefix = 129", "ipv6_prefix = 0"]
        {
            let faults = Document::from_toml(format!("{members}\n{BARE}").as_bytes()).unwrap_err();
            assert_eq!(faults.len(), 1, "{members}");
        }
        let shown = |members: &str| {
            let document = Document::from_toml(format!("{members}\n{BARE}").as_bytes()).unwrap();
            document.to_json().to_string()
        };
        assert!(!shown("ipv4_prefix = 32\nipv6_prefix = 64").contains("prefix"));
        assert!(shown("ipv6_prefix = 56").contains("\"ipv6_prefix\":56"));
    }
}
