//! `[forward_auth]`: how a request is read that a reverse proxy asks about.
//!
//! ```toml
//! [forward_auth]
//! tenant_header   = "X-Tenant-ID"                  # "" reads none
//! trusted_proxies = ["127.0.0.0/8", "::1/128"]     # whose X-Forwarded-… are believed
//! bypass          = ["/health"]                    # /health and /health/live, not /healthy
//! original        = "forwarded"                    # where method and path of the original request are told
//! ```

use std::net::IpAddr;

use axum::http::HeaderName;
use ipnet::IpNet;

use crate::check::Path;
use crate::input::{Reader, Tree};
use crate::policy::{canonical_ip, parse_network};

/// Ranges in `trusted_proxies`.
const PROXIES_MAX: usize = 1_024;
/// Prefixes in `bypass`.
const BYPASS_MAX: usize = 256;
/// The longest name of a header, in bytes.
const HEADER_BYTES_MAX: usize = 128;

/// How forward-auth reads a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Who is limited; a request without it is of the tenant `anonymous`.
    pub tenant_header: Option<Header>,
    /// The tenant's user.
    pub client_header: Option<Header>,
    /// What is to be done.
    pub action_header: Option<Header>,
    /// The API key, which may also be `?api_key=` of the original request.
    pub api_key_header: Option<Header>,
    /// The tier, used where the policy lets it.
    pub tier_header: Option<Header>,
    /// By which a repetition is known.
    pub request_id_header: Option<Header>,
    /// Who is believed about the original request; canonical.
    pub trusted_proxies: Vec<IpNet>,
    /// Paths that are let pass unasked, with all below them; none ends with a slash.
    pub bypass: Vec<String>,
    /// Where method and path of the original request are told.
    pub original: Origin,
}

/// Where method and path of the original request are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `X-Forwarded-Method` and `X-Forwarded-Uri`.
    Forwarded,
    /// `X-Original-Method`, and `X-Original-URI` or `X-Original-URL`.
    Original,
    /// The request's own method, and what follows `/v1/forward-auth` in its path.
    Suffix,
    /// The first of these that names a path.
    Auto,
}

/// The name of a header: as it was written, for people, and as names are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    written: String,
    name: HeaderName,
}

impl Header {
    const EXPECTED: &str =
        "the name of a header: up to 128 letters, digits, - or _ (\"\" reads none)";

    /// The header of that name, if it can be one.
    pub fn new(text: &str) -> Option<Self> {
        // HTTP would allow more, which nobody writes.
        let usual = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| usual)?;
        (text.len() <= HEADER_BYTES_MAX).then(|| Self { written: text.into(), name })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// As it is looked up.
    pub fn name(&self) -> &HeaderName {
        &self.name
    }
}

impl Default for ForwardAuth {
    fn default() -> Self {
        let range = |text| parse_network(text).unwrap_or_else(|| unreachable!("{text} is a range"));
        Self {
            tenant_header: Header::new("X-Tenant-ID"),
            client_header: Header::new("X-Client-ID"),
            action_header: Header::new("X-Action"),
            api_key_header: Header::new("X-API-Key"),
            tier_header: None,
            request_id_header: None,
            trusted_proxies: vec![range("127.0.0.0/8"), range("::1/128")],
            bypass: ["/health", "/metrics", "/docs", "/openapi.json"].map(String::from).into(),
            original: Origin::Forwarded,
        }
    }
}

impl ForwardAuth {
    /// Whether `ip` is the address of a proxy that is believed.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = canonical_ip(ip);
        self.trusted_proxies.iter().any(|range| range.contains(&ip))
    }
}

/// Reads the section; what it doesn't name is as by default.
pub fn read(r: &mut Reader, tree: &Tree) -> Option<ForwardAuth> {
    let mut fields = r.fields(tree)?;
    let default = ForwardAuth::default();
    let mut header =
        |r: &mut Reader, name, default| fields.optional(r, name, header).unwrap_or(default);
    let tenant_header = header(r, "tenant_header", default.tenant_header);
    let client_header = header(r, "client_header", default.client_header);
    let action_header = header(r, "action_header", default.action_header);
    let api_key_header = header(r, "api_key_header", default.api_key_header);
    let tier_header = header(r, "tier_header", default.tier_header);
    let request_id_header = header(r, "request_id_header", default.request_id_header);
    let range = |r: &mut Reader, t: &Tree| {
        r.parsed(t, "an IP address or a range of them, such as 10.0.0.0/8", parse_network)
    };
    let trusted_proxies =
        fields.optional(r, "trusted_proxies", |r, t| r.list(t, PROXIES_MAX, range));
    let bypass = fields.optional(r, "bypass", |r, t| r.list(t, BYPASS_MAX, prefix));
    let words = [
        ("forwarded", Origin::Forwarded),
        ("original", Origin::Original),
        ("suffix", Origin::Suffix),
        ("auto", Origin::Auto),
    ];
    let original = fields.optional(r, "original", |r, t| r.choice(t, &words));
    fields.finish(r);
    Some(ForwardAuth {
        tenant_header,
        client_header,
        action_header,
        api_key_header,
        tier_header,
        request_id_header,
        trusted_proxies: trusted_proxies.unwrap_or(default.trusted_proxies),
        bypass: bypass.unwrap_or(default.bypass),
        original: original.unwrap_or(default.original),
    })
}

/// A header's name; the empty one is none.
fn header(r: &mut Reader, tree: &Tree) -> Option<Option<Header>> {
    let none = *tree == Tree::Text(String::new());
    if none { Some(None) } else { r.parsed(tree, Header::EXPECTED, Header::new).map(Some) }
}

/// A prefix of paths, without the slash at its end.
fn prefix(r: &mut Reader, tree: &Tree) -> Option<String> {
    let path = r.parsed(tree, Path::EXPECTED, Path::new)?;
    let prefix = path.as_str().trim_end_matches('/');
    if prefix.is_empty() {
        r.fault("would let every request pass");
        return None;
    }
    let strange = |part: &str| part.is_empty() || part.bytes().all(|b| b == b'.');
    if prefix.contains(['%', '?', '#', ';', '\\']) || prefix.split('/').skip(1).any(strange) {
        r.fault(format!(
            "{tree} is not a plain path: no query, no escapes, no empty or dotted parts"
        ));
        return None;
    }
    Some(prefix.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(toml: &str) -> Result<ForwardAuth, Vec<String>> {
        let mut r = Reader::within("forward_auth");
        let tree = Tree::from_toml(toml.as_bytes()).unwrap();
        let read = read(&mut r, &tree);
        r.finish(read).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_said_is_as_by_default() {
        let read = section("tier_header = \"X-Plan\"\nclient_header = \"\"").unwrap();
        assert_eq!(read.tier_header.unwrap().name().as_str(), "x-plan");
        assert_eq!(read.client_header, None);
        assert_eq!(read.tenant_header.unwrap().as_str(), "X-Tenant-ID");
        assert_eq!((read.original, read.bypass.len()), (Origin::Forwarded, 4));
    }

    #[test]
    fn the_sample_file_shows_the_defaults() {
        let sample = include_str!("../../cluster.toml");
        let from = sample.split("# [forward_auth]\n").nth(1).unwrap();
        let shown: Vec<_> = from.lines().map_while(|line| line.strip_prefix("# ")).collect();
        assert_eq!(section(&shown.join("\n")), Ok(ForwardAuth::default()));
        assert_eq!(shown.iter().filter(|line| line.contains(" = ")).count(), 9);
    }

    #[test]
    fn a_proxy_is_trusted_by_its_address_whatever_clothes_it_wears() {
        let read =
            section(r#"trusted_proxies = ["10.0.0.0/8", "192.0.2.7", "::ffff:198.51.100.0/120"]"#)
                .unwrap();
        for (ip, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("198.51.100.9", true),
            ("127.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(read.trusts(ip.parse().unwrap()), trusted, "{ip}");
        }
    }

    #[test]
    fn faults_are_named_by_their_path() {
        let faults = section(
            r#"
            tenant_header = "X Tenant"
            tennant_header = "X-Tenant"
            trusted_proxies = ["10.0.0.0/8", "proxy.example"]
            bypass = ["/health/", "health", "/", "/a/../b", "/a%20b"]
            original = "path"
            "#,
        )
        .unwrap_err();
        let starts = [
            "forward_auth.tenant_header: \"X Tenant\" is not the name of a header",
            "forward_auth.trusted_proxies[1]: \"proxy.example\" is not an IP address or a range",
            "forward_auth.bypass[1]: \"health\" is not a path",
            "forward_auth.bypass[2]: would let every request pass",
            "forward_auth.bypass[3]: \"/a/../b\" is not a plain path",
            "forward_auth.bypass[4]: \"/a%20b\" is not a plain path",
            "forward_auth.original: \"path\" is not one of forwarded, original, suffix, auto",
            "forward_auth.tennant_header: unknown member; did you mean tenant_header?",
        ];
        assert_eq!(faults.len(), starts.len(), "{faults:?}");
        for (fault, start) in faults.iter().zip(starts) {
            assert!(fault.starts_with(start), "{fault} should start with {start}");
        }
    }
}
