//! What the original request asks for: its method and path, and whether it passes unasked.
//!
//! One resource can be spelt in many ways (`/ocr/%70rocess`, `/x/../ocr/process`), and an app
//! behind a proxy may take any of them. So limits and costs see the normal form of RFC 3986
//! (§6.2.2): what needs no escape has none, dots are resolved. The way past all limits is as narrow
//! as it can be made: a path is let through that is under a prefix as it was sent, and that nobody,
//! decoding once or twice or not at all, could take for another one.

use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::PATH;
use super::asked::only;
use crate::check::{Method, Path};
use crate::config::Origin;
use crate::input::{Reader, Tree};

/// The original request, as far as it is known.
#[derive(Default)]
pub struct Target<'h> {
    /// Its method.
    pub method: Option<Method>,
    /// Its path in normal form.
    pub path: Option<Path>,
    /// Its query.
    pub query: Option<&'h str>,
    /// Its path as it was sent.
    sent: &'h str,
}

impl Target<'_> {
    /// Whether the path is one of `prefixes` or below, beyond any doubt.
    pub fn is_under(&self, prefixes: &[String]) -> bool {
        let under = |prefix: &String| {
            let rest = self.sent.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        prefixes.iter().any(under) && is_plain(self.sent)
    }
}

/// Reads the target from where `origin` says. What headers say counts only if the peer is
/// `trusted`.
pub fn read<'h>(r: &mut Reader, origin: Origin, parts: &'h Parts, trusted: bool) -> Target<'h> {
    let headers = &parts.headers;
    let forwarded = |r: &mut Reader| told(r, headers, "X-Forwarded-Method", &["X-Forwarded-Uri"]);
    let original = |r: &mut Reader| {
        told(r, headers, "X-Original-Method", &["X-Original-URI", "X-Original-URL"])
    };
    match origin {
        Origin::Suffix => suffix(r, parts),
        Origin::Forwarded if trusted => forwarded(r),
        Origin::Original if trusted => original(r),
        Origin::Forwarded | Origin::Original => Target::default(),
        Origin::Auto => {
            let named = |target: Target<'h>| target.path.is_some().then_some(target);
            let told =
                trusted.then(|| named(forwarded(r)).or_else(|| named(original(r)))).flatten();
            told.unwrap_or_else(|| suffix(r, parts))
        }
    }
}

/// The request's own method, and what follows our path in its own.
fn suffix<'h>(r: &mut Reader, parts: &'h Parts) -> Target<'h> {
    let sent = parts.uri.path().strip_prefix(PATH).unwrap_or_default();
    let path = (!sent.is_empty()).then(|| r.member("path", |r| path(r, sent))).flatten();
    let method = r.member("method", |r| method(r, parts.method.as_str()));
    Target { method, path, query: parts.uri.query(), sent }
}

/// What headers tell. Names for the same thing have to agree: one may be the proxy's, the other a
/// client's.
fn told<'h>(
    r: &mut Reader,
    headers: &'h HeaderMap,
    of_method: &str,
    of_uri: &[&str],
) -> Target<'h> {
    let method =
        only(r, headers, of_method).and_then(|text| r.member(of_method, |r| method(r, text)));
    let mut target = Target { method, ..Target::default() };
    for name in of_uri {
        let Some(text) = only(r, headers, name) else { continue };
        r.member(name, |r| {
            let (sent, query) = split(text);
            if target.path.is_some() && (sent, query) != (target.sent, target.query) {
                r.fault(format!("differs from {}", of_uri[0]));
            }
            target = Target { path: path(r, sent), query, sent, ..std::mem::take(&mut target) };
        });
    }
    target
}

/// Path and query of a request target, which may be a whole URL.
fn split(target: &str) -> (&str, Option<&str>) {
    let after_scheme = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    let target = match after_scheme {
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None => target,
    };
    match target.split_once('?') {
        Some(("", query)) => ("/", Some(query)),
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn method(r: &mut Reader, text: &str) -> Option<Method> {
    r.parsed(&Tree::Text(text.into()), Method::EXPECTED, Method::new)
}

fn path(r: &mut Reader, sent: &str) -> Option<Path> {
    if sent.contains('#') {
        // Servers disagree on whether the path ends there, and browsers never send it.
        r.fault("a path has no #");
        return None;
    }
    r.parsed(&Tree::Text(sent.into()), Path::EXPECTED, |sent| {
        Path::new(sent).and_then(|_| Path::new(&normal(sent)))
    })
}

/// The normal form of a path that begins with a slash.
fn normal(path: &str) -> String {
    let decoded = without_needless_escapes(path);
    let mut kept = Vec::new();
    let mut parts = decoded.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        if part == ".." {
            kept.pop();
        } else if part != "." {
            kept.push(part);
            continue;
        }
        // "/a/." and "/a/b/.." are "/a/".
        if parts.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Letters, digits, `-`, `.`, `_` and `~` mean the same with and without an escape; of others, the
/// digits' case is told.
fn without_needless_escapes(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut out = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte));
                out.push_str(&piece[2..]);
            }
            Some(byte) => out.push_str(&format!("%{byte:02X}{}", &piece[2..])),
            None => {
                out.push('%');
                out.push_str(piece);
            }
        }
    }
    out
}

/// Whether a path has one meaning, whoever reads it: nothing in it is a slash, a dot or an escape
/// after decoding that wasn't before; there is no `;`, after which some servers drop what follows,
/// and no `\`, which some take for a slash.
fn is_plain(sent: &str) -> bool {
    let Ok(decoded) = percent_encoding::percent_decode_str(sent).decode_utf8() else {
        return false;
    };
    let slashes = |text: &str| text.matches('/').count();
    let strange = |c: char| c.is_control() || matches!(c, '%' | '\\' | ';' | '?' | '#');
    let Some(parts) = decoded.strip_prefix('/') else { return false };
    // A slash at the end is fine: it leaves one empty part.
    let mut parts = parts.strip_suffix('/').unwrap_or(parts).split('/');
    let hidden = |part: &str| part.chars().all(|c| c == '.' || c.is_whitespace());
    slashes(&decoded) == slashes(sent) && !decoded.contains(strange) && !parts.any(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(sent: &str) -> Target<'_> {
        Target { sent, ..Target::default() }
    }

    fn passes(sent: &str) -> bool {
        target(sent).is_under(&["/health".into(), "/docs".into(), "/openapi.json".into()])
    }

    #[test]
    fn a_prefix_covers_what_is_below_it_and_not_what_only_begins_alike() {
        for sent in [
            "/health",
            "/health/",
            "/health/live",
            "/docs/a%20b/c.html",
            "/docs/%C3%A4",
            "/openapi.json",
        ] {
            assert!(passes(sent), "{sent}");
        }
        for sent in
            ["/healthy", "/Health", "/api/health", "/openapi.jsonx", "/", "", "health", "/doc"]
        {
            assert!(!passes(sent), "{sent}");
        }
    }

    #[test]
    fn what_another_server_could_read_as_something_else_does_not_pass() {
        for sent in [
            "/health/../secret",
            "/health/..",
            "/health/.",
            "/health/./x",
            "/health/%2e%2e/secret",
            "/health/%2E./secret",
            "/health%2f..%2fsecret",
            "/health/..%2fsecret",
            "/health/..%5csecret",
            "/health/..\\secret",
            "/health/%252e%252e/secret",
            "/health/..;/secret",
            "/health/..;x=1/secret",
            "/health;/../secret",
            "/health//secret",
            "//health",
            "/health//",
            "/secret/../health",
            "/%68ealth",
            "/health%00",
            "/health/%0a",
            "/health/%ff",
            "/health/.. /secret",
            "/health/%20/secret",
            "/health%3fx",
            "/health/%",
        ] {
            assert!(!passes(sent), "{sent}");
        }
    }

    #[test]
    fn every_spelling_of_a_path_has_one_normal_form() {
        for (sent, expected) in [
            ("/ocr/process", "/ocr/process"),
            ("/ocr/%70rocess", "/ocr/process"),
            ("/x/../ocr/./process", "/ocr/process"),
            ("/x/%2e%2E/ocr/process", "/ocr/process"),
            ("/../ocr/process", "/ocr/process"),
            ("/ocr/process/", "/ocr/process/"),
            ("/ocr/process/.", "/ocr/process/"),
            ("/ocr/process/x/..", "/ocr/process/"),
            ("/..", "/"),
            ("/", "/"),
            ("/a%2fb%c3%a4", "/a%2Fb%C3%A4"),
            ("/100%", "/100%"),
            ("/%zz%+1%é", "/%zz%+1%é"),
            ("//a", "//a"),
        ] {
            assert_eq!(normal(sent), expected, "{sent}");
        }
    }

    #[test]
    fn a_target_is_a_path_with_a_query_or_a_whole_url() {
        for (text, path, query) in [
            ("/a/b?x=1", "/a/b", Some("x=1")),
            ("/a?x=/?y", "/a", Some("x=/?y")),
            ("https://api.example.com/a?x", "/a", Some("x")),
            ("http://api.example.com", "/", None),
            ("http://api.example.com?x", "/", Some("x")),
            ("//evil/a", "//evil/a", None),
            ("ftp://host/a", "ftp://host/a", None),
        ] {
            assert_eq!(split(text), (path, query), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_unasked_is_under_its_prefix_however_often_it_is_decoded(tail in "[a-z./%;2eEfF5cC\\\\ \
                                                                                        ]{0,12}") {
            let sent = format!("/health{tail}");
            if passes(&sent) {
                let once = percent_encoding::percent_decode_str(&sent).decode_utf8_lossy().into_owned();
                let twice = percent_encoding::percent_decode_str(&once).decode_utf8_lossy().into_owned();
                for read in [&sent, &once, &twice].map(|path| normal(&path.replace('\\', "/"))) {
                    prop_assert!(read == "/health" || read.starts_with("/health/"), "{sent} is {read}");
                }
            }
        }

        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(path in "/[a-z./%2eEfF]{0,16}") {
            let once = normal(&path);
            // An escape that decoding uncovers is left alone: only servers that decode twice would
            // see it.
            prop_assume!(!path.contains("%2") || !once.contains('%'));
            prop_assert_eq!(normal(&once), once);
        }
    }
}
