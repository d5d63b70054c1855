//! From the headers of a proxy's question to a [`Check`], with every fault named by its header.
//!
//! A header that is there twice is a fault: one of the two may be the client's. An empty one counts
//! as absent, since some proxies write a name for nothing.

use std::net::IpAddr;

use axum::http::HeaderMap;

use super::address;
use super::target::Target;
use crate::check::{
    ANONYMOUS, API_KEY_BYTES_MAX, ApiKeyDigest, Check, Label, Name, RequestId, TenantId,
};
use crate::config::{ForwardAuth, Header};
use crate::input::{Reader, Tree};

/// The parameter of the original request that may carry the API key.
const API_KEY: &str = "api_key";

/// The check that a peer asks for, about the request for `target`.
pub fn read(
    r: &mut Reader,
    config: &ForwardAuth,
    headers: &HeaderMap,
    peer: IpAddr,
    target: Target<'_>,
) -> Option<Check> {
    let ip = address::client(r, config, headers, peer);
    let tenant = value(r, headers, &config.tenant_header, TenantId::EXPECTED, TenantId::new);
    let client = value(r, headers, &config.client_header, Label::EXPECTED, Label::new);
    let action = value(r, headers, &config.action_header, Label::EXPECTED, Label::new);
    let tier = value(r, headers, &config.tier_header, Name::EXPECTED, Name::new);
    let request_id = value(r, headers, &config.request_id_header, RequestId::EXPECTED, request_id);
    let api_key = api_key(r, config, headers, target.query);
    Some(Check {
        client,
        action,
        tier,
        request_id,
        api_key,
        method: target.method,
        path: target.path,
        ip: Some(ip),
        ..Check::of(tenant.or_else(|| TenantId::new(ANONYMOUS))?)
    })
}

/// The text of the only header of that name; none where it is absent or empty.
pub fn only<'h>(r: &mut Reader, headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        r.fault_at(name, "stands there twice");
        return None;
    }
    let text = std::str::from_utf8(value.as_bytes());
    if text.is_err() {
        r.fault_at(name, "is not UTF-8");
    }
    text.ok().filter(|text| !text.is_empty())
}

/// What the header says, if one is configured and there.
fn value<T>(
    r: &mut Reader,
    headers: &HeaderMap,
    header: &Option<Header>,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let name = header.as_ref()?.as_str();
    let text = only(r, headers, name)?;
    r.member(name, |r| r.parsed(&Tree::Text(text.into()), expected, parse))
}

/// A quoted string, or bare.
fn request_id(text: &str) -> Option<RequestId> {
    RequestId::new(text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text))
}

/// The API key of the header or of the query. It never leaves this function, not even in a fault.
fn api_key(
    r: &mut Reader,
    config: &ForwardAuth,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Option<ApiKeyDigest> {
    let header = config.api_key_header.as_ref()?.as_str();
    let sent = only(r, headers, header);
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut in_query =
        pairs.filter(|(name, key)| name == API_KEY && !key.is_empty()).map(|(_, key)| key);
    let asked = in_query.next();
    // Whichever of two keys is charged, the app may take the other.
    if in_query.next().is_some() {
        r.fault_at(API_KEY, "stands in the query twice");
    }
    if let (Some(sent), Some(asked)) = (sent, &asked)
        && sent != asked
    {
        r.fault_at(API_KEY, format!("in the query is another one than in {header}"));
    }
    let (name, key) = match (sent, &asked) {
        (Some(sent), _) => (header, sent),
        (None, Some(asked)) => (API_KEY, asked.as_ref()),
        (None, None) => return None,
    };
    if key.len() > API_KEY_BYTES_MAX || key.chars().any(char::is_control) {
        r.fault_at(
            name,
            format!("is not text of 1 to {API_KEY_BYTES_MAX} bytes without control characters"),
        );
        return None;
    }
    Some(ApiKeyDigest::of(key))
}
