//! `[http]`: the names under which callers reach this node, beside those that it advertises.
//!
//! Without `[auth]` a node answers only to names of its own (`http/site.rs` says why). IP
//! addresses, `localhost` and advertised names count without being listed; another name does so
//! from here on: that of a container or a service, or one that a proxy passes on.

use std::net::IpAddr;

use super::nodes::ADDRESS_BYTES_MAX;
use crate::input::{Reader, Tree};

/// Names in one list.
pub const HOSTS_MAX: usize = 256;
/// What a name in the list looks like.
pub const HOST: &str = "a host name without a port, such as gateway.example";

/// `[http] hosts`.
pub(super) fn read(r: &mut Reader, tree: &Tree) -> Option<Vec<String>> {
    let mut fields = r.fields(tree)?;
    let hosts =
        fields.optional(r, "hosts", |r, t| r.list(t, HOSTS_MAX, |r, t| r.parsed(t, HOST, host)));
    fields.finish(r);
    Some(hosts.unwrap_or_default())
}

/// Returns a host name in one way of writing it: lower case, without a dot at its end. An IP
/// address is none: it is accepted without being listed.
pub fn host(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_name = !name.is_empty()
        && name.len() <= ADDRESS_BYTES_MAX
        && name.split('.').all(|label| !label.is_empty())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && name.parse::<IpAddr>().is_err();
    is_name.then(|| name.to_ascii_lowercase())
}

/// Who may read `/metrics` of a node that has tokens; without any, it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// Every caller, without a token.
    Open,
    /// The roles `read` and `admin`.
    Read,
}

impl Metrics {
    /// The words for them.
    pub(super) const WORDS: [(&str, Self); 2] = [("open", Self::Open), ("read", Self::Read)];

    /// What holds at this address where `[auth] metrics` says nothing: the metrics name tenants,
    /// and off loopback strangers can ask.
    pub(super) fn at(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { Self::Open } else { Self::Read }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_has_no_port() {
        for (text, expected) in [
            ("gateway.example", Some("gateway.example")),
            ("Gateway.Example.", Some("gateway.example")),
            ("tidegate_1", Some("tidegate_1")),
            ("gateway.example:7070", None),
            ("http://gateway.example", None),
            ("127.0.0.1", None),
            ("::1", None),
            ("*.example", None),
            ("a..b", None),
            (".", None),
            ("", None),
        ] {
            assert_eq!(host(text).as_deref(), expected, "{text:?}");
        }
        assert_eq!(host(&"x".repeat(ADDRESS_BYTES_MAX + 1)), None);
    }

    #[test]
    fn metrics_are_open_on_loopback_addresses_alone() {
        for (address, expected) in [
            ("127.0.0.1", Metrics::Open),
            ("::1", Metrics::Open),
            ("::ffff:127.0.0.1", Metrics::Open),
            ("0.0.0.0", Metrics::Read),
            ("::", Metrics::Read),
            ("192.0.2.1", Metrics::Read),
        ] {
            assert_eq!(Metrics::at(address.parse().unwrap()), expected, "{address}");
        }
    }
}
