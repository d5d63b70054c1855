//! Where a request comes from, as far as its headers can be believed.
//!
//! ```text
//! peer 10.0.0.1 (trusted)     X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.7
//!                                              forged   the client   a trusted proxy      -> 203.0.113.9
//! peer 198.51.100.4 (not)     X-Forwarded-For: 6.6.6.6                                    -> 198.51.100.4
//! ```
//!
//! Every proxy appends the address that it was asked from, so the list is believed from its right
//! end on, for as long as trusted proxies speak. What stands further left may be anybody's
//! invention.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use super::asked::only;
use crate::config::ForwardAuth;
use crate::input::{Reader, Tree};
use crate::policy::canonical_ip;

const FORWARDED_FOR: &str = "X-Forwarded-For";
const REAL_IP: &str = "X-Real-IP";
const EXPECTED: &str = "an IP address";

/// The address that is charged, canonical: the peer's, or the one that a trusted peer tells.
pub fn client(r: &mut Reader, config: &ForwardAuth, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let peer = canonical_ip(peer);
    if !config.trusts(peer) {
        return peer;
    }
    let told = forwarded_for(r, config, headers).or_else(|| {
        let text = only(r, headers, REAL_IP)?;
        r.member(REAL_IP, |r| parsed(r, text))
    });
    told.unwrap_or(peer)
}

/// The last address in the list that isn't a trusted proxy's; where all are, the first.
fn forwarded_for(r: &mut Reader, config: &ForwardAuth, headers: &HeaderMap) -> Option<IpAddr> {
    let mut farthest = None;
    for line in headers.get_all(FORWARDED_FOR).iter().rev() {
        // What isn't text isn't an address either, and is reported as such.
        let line = String::from_utf8_lossy(line.as_bytes());
        for hop in line.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
            let ip = r.member(FORWARDED_FOR, |r| parsed(r, hop))?;
            farthest = Some(ip);
            if !config.trusts(ip) {
                return farthest;
            }
        }
    }
    farthest
}

fn parsed(r: &mut Reader, text: &str) -> Option<IpAddr> {
    r.parsed(&Tree::Text(text.into()), EXPECTED, address)
}

/// An address; some proxies add a port, or brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    bare().or_else(with_port).or_else(bracketed).map(canonical_ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address that is charged where the lines of `X-Forwarded-For` and an `X-Real-IP` say so;
    /// or the first fault.
    fn charged(peer: &str, lines: &[&str], real: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        real.map(|real| headers.insert("x-real-ip", real.parse().unwrap()));
        let mut config = ForwardAuth::default();
        config.trusted_proxies.push("10.0.0.0/8".parse().unwrap());
        let mut r = Reader::default();
        let ip = client(&mut r, &config, &headers, peer.parse().unwrap());
        r.finish(Some(ip.to_string())).unwrap_or_else(|faults| faults[0].to_string())
    }

    #[test]
    fn the_list_is_believed_from_its_right_end_while_trusted_proxies_speak() {
        for (lines, expected) in [
            (&["203.0.113.9"][..], "203.0.113.9"),
            (&["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            (&["6.6.6.6, 203.0.113.9, 10.0.0.7"], "203.0.113.9"),
            (&["6.6.6.6,203.0.113.9", "10.0.0.7"], "203.0.113.9"),
            (&["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
            (&["nonsense, 203.0.113.9"], "203.0.113.9"),
            (&["10.0.0.8, 10.0.0.7"], "10.0.0.8"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]:443"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["203.0.113.9:51034"], "203.0.113.9"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            (&["203.0.113.9, ::ffff:10.0.0.7"], "203.0.113.9"),
            (&[" , 203.0.113.9,"], "203.0.113.9"),
            (&[""], "127.0.0.1"),
            (&[], "127.0.0.1"),
        ] {
            assert_eq!(charged("127.0.0.1", lines, None), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_and_nobody_understands_is_a_fault() {
        for line in
            ["unknown", "203.0.113.9, unknown", "203.0.113.9, _hidden, 10.0.0.7", "203.0.113"]
        {
            let said = charged("127.0.0.1", &[line], None);
            assert!(
                said.starts_with("X-Forwarded-For: ") && said.ends_with("is not an IP address"),
                "{said}"
            );
        }
        assert_eq!(charged("127.0.0.1", &[], Some("x")), "X-Real-IP: \"x\" is not an IP address");
    }

    #[test]
    fn x_real_ip_speaks_where_the_list_is_silent() {
        assert_eq!(charged("10.0.0.1", &[], Some("203.0.113.9")), "203.0.113.9");
        assert_eq!(charged("10.0.0.1", &["203.0.113.8"], Some("203.0.113.9")), "203.0.113.8");
    }

    #[test]
    fn nobody_else_is_believed() {
        assert_eq!(charged("198.51.100.4", &["6.6.6.6"], Some("6.6.6.6")), "198.51.100.4");
        assert_eq!(charged("::ffff:198.51.100.4", &["x"], None), "198.51.100.4");
    }
}
