//! Host, Origin and Sec-Fetch-Site: how a node without tokens keeps web pages out.
//!
//! Without `[auth]` every program that reaches the node may ask it anything. A browser on the same
//! machine is such a program, and it sends what pages of any web site tell it to send. A node
//! without tokens therefore refuses two kinds of requests before it looks at anything else:
//!
//! ```text
//! Host: evil.example:7070        421  DNS rebinding: the page's own name now resolves to this node
//! Origin: https://evil.example   403  a page of another site sends it
//! Sec-Fetch-Site: cross-site     403  likewise, also where the browser sends no Origin
//! ```
//!
//! A Host is accepted if it is an IP address, `localhost`, a name that the configuration
//! advertises, or one of `[http] hosts`: none of these can be pointed here by a stranger's DNS.
//! Where there are tokens nothing is judged here, since a page has none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName, Request, Version, header};

use super::forward_auth;
use super::problem::Problem;
use crate::config::Config;
use crate::input::Fault;
use crate::telemetry::Foreign;

/// Where the request comes from, as the browser sees it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Bytes of a Host that are repeated in the answer: as long as a name in DNS can be.
const SHOWN_BYTES_MAX: usize = 255;

/// Judges who may talk to a node that has no tokens.
pub struct SiteGuard {
    /// Names of this node, lower case, without ports.
    names: Vec<String>,
    /// Where browsers find this node: names with their ports. An origin of these is not foreign.
    origins: Vec<(String, u16)>,
    /// `[http] hosts`, lower case: an origin of these is not foreign, whatever its port.
    hosts: Vec<String>,
}

/// A Host or the rest of an Origin, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Authority<'t> {
    host: Host<'t>,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
enum Host<'t> {
    Address(IpAddr),
    /// Without the dot that may end it.
    Name(&'t str),
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Name(one), Self::Name(other)) => one.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

impl<'t> Authority<'t> {
    /// Returns none for bytes that are no `host[:port]`.
    fn parse(bytes: &'t [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                (Host::Address(address.into()), port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                // The characters that a registered name may have (RFC 3986).
                let is_named =
                    |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b);
                if !host.bytes().all(is_named) {
                    return None;
                }
                match host.parse::<Ipv4Addr>() {
                    Ok(address) => (Host::Address(address.into()), port),
                    Err(_) => (Host::Name(host.strip_suffix('.').unwrap_or(host)), port),
                }
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    fn is_at(&self, other: &Self, port_default: u16) -> bool {
        self.host == other.host
            && self.port.unwrap_or(port_default) == other.port.unwrap_or(port_default)
    }
}

impl SiteGuard {
    /// The guard of a node of this configuration; none where there are tokens.
    pub fn of(config: &Config) -> Option<Self> {
        if !config.tokens.is_empty() {
            return None;
        }
        let advertised = config.nodes.iter().chain(&config.unlisted).map(|node| node.http.as_str());
        Some(Self::new(advertised, &config.hosts))
    }

    fn new<'t>(advertised: impl Iterator<Item = &'t str>, hosts: &[String]) -> Self {
        let hosts: Vec<_> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let mut names = hosts.clone();
        let mut origins = Vec::new();
        for address in advertised {
            let Some((host, port)) = address.rsplit_once(':') else { continue };
            let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            origins.extend(port.parse().ok().map(|port| (host.clone(), port)));
            names.push(host);
        }
        Self { names, origins, hosts }
    }

    /// Returns an error for a request that is not addressed to this node by a name of its own, or
    /// that a page of another site sends. The caller must not do anything else for such a request.
    pub fn judge<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        if is_exempt(request.uri().path()) {
            return Ok(());
        }
        let own = self.judge_host(request)?;
        judge_fetch(request.headers()).map_err(Refused::origin)?;
        for origin in request.headers().get_all(header::ORIGIN) {
            if !self.is_own_origin(origin.as_bytes(), own) {
                let detail = "a page of another site sent this request, and without [auth] the \
                              node takes none from web pages but its own";
                let problem = Problem::new(403, format!("Origin: {detail}"), "forbidden");
                return Err(Refused::origin(problem));
            }
        }
        Ok(())
    }

    /// Returns the Host that the request names; none under HTTP/1.0 without one.
    fn judge_host<'r, B>(&self, request: &'r Request<B>) -> Result<Option<Authority<'r>>, Refused> {
        let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let mut sent = request.headers().get_all(header::HOST).iter();
        let (host, again) = (sent.next().map(|host| host.as_bytes()), sent.next());
        if again.is_some() {
            return Err(malformed("there are several"));
        }
        // HTTP/2 and proxies name the host in the request's target. Both count where both are
        // there.
        let mut own = None;
        for named in target.into_iter().chain(host) {
            let authority =
                Authority::parse(named).ok_or_else(|| malformed("is not HOST or HOST:PORT"))?;
            if !self.is_own_host(authority.host) {
                return Err(foreign(named));
            }
            own = own.or(Some(authority));
        }
        let is_needed = match request.version() {
            Version::HTTP_09 | Version::HTTP_10 => false,
            Version::HTTP_11 => host.is_none(),
            _ => own.is_none(),
        };
        if is_needed {
            return Err(malformed("is required"));
        }
        Ok(own)
    }

    fn is_own_host(&self, host: Host<'_>) -> bool {
        match host {
            Host::Address(_) => true,
            Host::Name(name) => {
                name.eq_ignore_ascii_case("localhost")
                    || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
            }
        }
    }

    /// Whether a page of this origin came from this node: it has the host and the port that the
    /// request names, or those that are advertised, or one of `[http] hosts`.
    fn is_own_origin(&self, origin: &[u8], own: Option<Authority<'_>>) -> bool {
        let of_scheme = |scheme: &str, port| Some((origin.strip_prefix(scheme.as_bytes())?, port));
        let Some((rest, port)) = of_scheme("http://", 80).or_else(|| of_scheme("https://", 443))
        else {
            return false;
        };
        let Some(origin) = Authority::parse(rest) else { return false };
        let is_advertised = |(host, at): &(String, u16)| {
            Authority::parse(host.as_bytes())
                .is_some_and(|own| own.host == origin.host && *at == origin.port.unwrap_or(port))
        };
        own.is_some_and(|own| origin.is_at(&own, port))
            || self.origins.iter().any(is_advertised)
            || matches!(origin.host, Host::Name(name) if self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name)))
    }
}

/// A request that the guard refuses.
#[derive(Debug)]
pub struct Refused {
    /// The answer.
    pub problem: Problem,
    /// What makes it foreign; none where its Host is malformed.
    pub foreign: Option<Foreign>,
}

impl Refused {
    fn origin(problem: Problem) -> Self {
        Self { problem, foreign: Some(Foreign::Origin) }
    }
}

/// Whether this is a call that proxies and balancers make: proxies pass on the end user's Host,
/// Origin and Sec-Fetch-Site, and none of these calls shows what a page may not know.
pub fn is_exempt(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/version")
        || path
            .strip_prefix(forward_auth::PATH)
            .is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('/'))
}

fn judge_fetch(headers: &HeaderMap) -> Result<(), Problem> {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if sites.any(|site| site.as_bytes().trim_ascii().eq_ignore_ascii_case(b"cross-site")) {
        let detail = "Sec-Fetch-Site: a page of another site sent this request, and without [auth] \
                      the node takes none from web pages but its own";
        return Err(Problem::new(403, detail, "forbidden"));
    }
    Ok(())
}

fn malformed(detail: &str) -> Refused {
    Refused { problem: Problem::bad_input(vec![Fault::new("Host", detail)]), foreign: None }
}

fn foreign(host: &[u8]) -> Refused {
    let shown = match std::str::from_utf8(host) {
        Ok(host) if host.len() <= SHOWN_BYTES_MAX => format!("{host:?}"),
        _ => "a name of that length".into(),
    };
    let detail = format!(
        "Host: {shown} is not a name of this node; without [auth] it answers to IP addresses, \
         localhost, its http_advertise and what [http] hosts lists (TIDEGATE_HTTP_HOSTS)"
    );
    Refused { problem: Problem::new(421, detail, "misdirected"), foreign: Some(Foreign::Host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> SiteGuard {
        let advertised = ["127.0.0.1:7070", "Gateway.example:7071", "[2001:db8::7]:80"];
        SiteGuard::new(advertised.into_iter(), &["listed.example".into()])
    }

    /// The status of a refusal; 0 is none.
    fn status(request: axum::http::request::Builder) -> u16 {
        let judged = guard().judge(&request.body(()).unwrap());
        judged.err().map_or(0, |refused| refused.problem.answer().status().as_u16())
    }

    fn get(host: &str) -> axum::http::request::Builder {
        Request::builder().uri("/v1/policy").header("host", host)
    }

    #[test]
    fn a_host_is_an_address_localhost_or_a_name_of_the_node() {
        for (host, expected) in [
            ("127.0.0.1", 0),
            ("127.0.0.1:7070", 0),
            ("127.0.0.1:1", 0),
            ("192.0.2.9:80", 0),
            ("[::1]", 0),
            ("[::1]:7070", 0),
            ("[2001:DB8::1]:", 0),
            ("localhost", 0),
            ("localhost:7070", 0),
            ("LocalHost.:7070", 0),
            ("gateway.example", 0),
            ("GATEWAY.EXAMPLE.:9", 0),
            ("listed.example:443", 0),
            ("evil.example", 421),
            ("evil.example:7070", 421),
            ("localhost.evil.example", 421),
            ("gateway.example.evil.example", 421),
            ("xgateway.example", 421),
            ("localhost..", 421),
            ("127.0.0.1.evil.example", 421),
            // Browsers read this as the address 127.0.0.1.
            ("127.0.0.1.", 0),
            ("127.1", 421),
            ("2130706433", 421),
            ("0x7f.0.0.1", 421),
            ("%6cocalhost", 421),
            ("", 421),
            (".", 421),
            (":7070", 421),
            ("a,b", 421),
            ("user@localhost", 400),
            ("localhost:7070@evil.example", 400),
            ("localhost@evil.example", 400),
            ("http://localhost", 400),
            ("localhost/", 400),
            ("localhost:http", 400),
            ("localhost:65536", 400),
            ("localhost:-1", 400),
            ("localhost:7070:7070", 400),
            ("localhost, evil.example", 400),
            ("::1", 400),
            ("[::1", 400),
            ("[::1]7070", 400),
            ("[::1%25lo]", 400),
            ("[127.0.0.1]", 400),
            ("[localhost]", 400),
            ("local\thost", 400),
        ] {
            assert_eq!(status(get(host)), expected, "{host:?}");
        }
        assert_eq!(status(get("localhost").header("host", "localhost")), 400);
        let long = format!("{}.example", "x".repeat(5_000));
        assert_eq!(status(get(&long)), 421);
    }

    #[test]
    fn a_host_may_be_absent_under_http_1_0_alone() {
        let absent = |version| status(Request::builder().uri("/v1/policy").version(version));
        assert_eq!(absent(Version::HTTP_10), 0);
        assert_eq!(absent(Version::HTTP_11), 400);
        assert_eq!(absent(Version::HTTP_2), 400);
        assert_eq!(status(get("evil.example").version(Version::HTTP_10)), 421);
    }

    #[test]
    fn the_authority_of_a_target_is_judged_as_a_host_is() {
        let at = |uri: &str, version| Request::builder().uri(uri).version(version);
        let h2 = |uri| status(at(uri, Version::HTTP_2));
        assert_eq!(h2("http://localhost:7070/v1/policy"), 0);
        assert_eq!(h2("https://gateway.example/v1/policy"), 0);
        assert_eq!(h2("http://evil.example/v1/policy"), 421);
        assert_eq!(h2("http://user@localhost/v1/policy"), 400);
        let both = at("http://localhost/v1/policy", Version::HTTP_2).header("host", "evil.example");
        assert_eq!(status(both), 421);
        let target =
            |host| at("http://evil.example/v1/policy", Version::HTTP_11).header("host", host);
        assert_eq!(status(target("localhost")), 421);
        assert_eq!(status(at("http://localhost/v1/policy", Version::HTTP_11)), 400);
    }

    #[test]
    fn an_origin_is_the_nodes_own_or_refused() {
        for (host, origin, expected) in [
            ("localhost:7070", "http://localhost:7070", 0),
            ("LOCALHOST:7070", "http://localhost:7070", 0),
            ("localhost", "http://localhost", 0),
            ("localhost", "http://localhost:80", 0),
            ("[::1]:7070", "http://[::1]:7070", 0),
            ("gateway.example", "https://gateway.example", 0),
            // Advertised, and behind a proxy that names the node by its address.
            ("localhost:7070", "http://127.0.0.1:7070", 0),
            ("127.0.0.1:7070", "http://gateway.example:7071", 0),
            ("127.0.0.1:7070", "https://listed.example", 0),
            ("127.0.0.1:7070", "https://listed.example:8443", 0),
            // Another program's page on this machine, or on the machine of that name.
            ("localhost:7070", "http://localhost:3000", 403),
            ("localhost:7070", "http://localhost", 403),
            ("192.0.2.9:7070", "http://127.0.0.1:8080", 403),
            ("127.0.0.1:7070", "http://gateway.example:9", 403),
            ("127.0.0.1:7070", "https://evil.example", 403),
            ("127.0.0.1:7070", "http://127.0.0.1:7070.evil.example", 403),
            ("127.0.0.1:7070", "http://127.0.0.1:7070@evil.example", 403),
            ("127.0.0.1:7070", "null", 403),
            ("127.0.0.1:7070", "", 403),
            ("127.0.0.1:7070", "file://", 403),
            ("127.0.0.1:7070", "127.0.0.1:7070", 403),
            ("127.0.0.1:7070", "chrome-extension://abcdef", 403),
            ("127.0.0.1:7070", "http://127.0.0.1:7070 http://evil.example", 403),
        ] {
            assert_eq!(
                status(get(host).header("origin", origin)),
                expected,
                "{origin:?} at {host}"
            );
        }
        let two = get("localhost")
            .header("origin", "http://localhost")
            .header("origin", "http://e.example");
        assert_eq!(status(two), 403);
        let without_host = Request::builder().uri("/v1/policy").version(Version::HTTP_10);
        assert_eq!(status(without_host.header("origin", "http://localhost")), 403);
    }

    #[test]
    fn what_a_browser_sends_for_another_site_is_refused() {
        let from = |site: &str| status(get("localhost").header("sec-fetch-site", site));
        for (site, expected) in [
            ("cross-site", 403),
            ("CROSS-SITE", 403),
            ("same-origin", 0),
            ("same-site", 0),
            ("none", 0),
        ] {
            assert_eq!(from(site), expected, "{site}");
        }
        let two = get("localhost")
            .header("sec-fetch-site", "none")
            .header("sec-fetch-site", "cross-site");
        assert_eq!(status(two), 403);
    }

    #[test]
    fn the_host_is_judged_before_where_the_page_is_from() {
        assert_eq!(status(get("evil.example").header("origin", "https://evil.example")), 421);
        assert_eq!(status(get("evil.example").header("sec-fetch-site", "cross-site")), 421);
    }

    #[test]
    fn what_proxies_and_balancers_ask_is_exempt() {
        for (path, expected) in [
            ("/livez", 0),
            ("/readyz", 0),
            ("/readyz?verbose", 0),
            ("/version", 0),
            ("/v1/forward-auth", 0),
            ("/v1/forward-auth/", 0),
            ("/v1/forward-auth/a/b?c", 0),
            ("/v1/forward-authority", 421),
            ("/livez/", 421),
            ("/version/../v1/policy", 421),
            ("/metrics", 421),
            ("/openapi.json", 421),
            ("/docs/", 421),
            ("/api/health", 421),
            ("/v1/check", 421),
        ] {
            let request = get("evil.example").uri(path).header("origin", "https://evil.example");
            assert_eq!(status(request.header("sec-fetch-site", "cross-site")), expected, "{path}");
        }
    }

    #[test]
    fn a_refusal_names_the_host_and_what_to_configure() {
        let refused = guard().judge(&get("evil.example").body(()).unwrap()).unwrap_err();
        let document = refused.problem.document();
        let detail = document["detail"].as_str().unwrap();
        assert!(
            detail.contains("\"evil.example\"") && detail.contains("TIDEGATE_HTTP_HOSTS"),
            "{detail}"
        );
        assert_eq!(document["type"], "urn:tidegate:problem:misdirected");
    }
}
