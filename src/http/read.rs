//! From a body to a [`Check`], with every fault named.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;

use crate::check::{
    API_KEY_BYTES_MAX, ATTRIBUTES_MAX, ApiKeyDigest, Check, Cost, DEADLINE_MS, DEADLINE_MS_DEFAULT,
    Label, Method, Name, PERMIT_TTL_MS, PERMIT_TTL_UNSAID, Path, REQUEST_LIMITS_MAX, RequestId,
    TenantId,
};
use crate::input::{Fault, Reader, Tree};
use crate::policy::{canonical_ip, read_limit};

/// One check, from the body of a call or an item of a batch.
pub fn check(r: &mut Reader, tree: &Tree) -> Option<Check> {
    let mut fields = r.fields(tree)?;
    let label = |r: &mut Reader, t: &Tree| r.parsed(t, Label::EXPECTED, Label::new);
    let tenant =
        fields.required(r, "tenant", |r, t| r.parsed(t, TenantId::EXPECTED, TenantId::new));
    let tier = fields.optional(r, "tier", |r, t| r.parsed(t, Name::EXPECTED, Name::new));
    let client = fields.optional(r, "client", label);
    let action = fields.optional(r, "action", label);
    let method = fields.optional(r, "method", |r, t| r.parsed(t, Method::EXPECTED, Method::new));
    let path = fields.optional(r, "path", |r, t| r.parsed(t, Path::EXPECTED, path));
    let ip = fields.optional(r, "ip", |r, t| r.parsed(t, "an IP address", address));
    let api_key = fields.optional(r, "api_key", api_key);
    let attributes = fields.optional(r, "attributes", |r, t| {
        let fields = r.fields(t)?;
        if fields.entries().count() > ATTRIBUTES_MAX {
            r.fault(format!("at most {ATTRIBUTES_MAX} attributes are allowed"));
        }
        let read = |(name, tree)| {
            r.member(name, |r| {
                let known = Name::new(name);
                if known.is_none() {
                    r.fault(format!("its name is not {}", Name::EXPECTED));
                }
                Some((known?, label(r, tree)?))
            })
        };
        Some(fields.entries().filter_map(read).collect())
    });
    let cost = fields.optional(r, "cost", |r, t| r.whole(t, 1..=u64::from(u32::MAX)));
    fields.optional(r, "wait_ms", |r, t| {
        // Waiting in a queue is not part of this version; a check that is willing to wait must not
        // be told a lie.
        let waits = r.whole(t, 0..=60_000)?;
        if waits > 0 {
            r.fault("only 0 is possible: this version doesn't queue checks");
        }
        Some(waits)
    });
    let deadline_ms = fields.optional(r, "deadline_ms", |r, t| r.whole(t, DEADLINE_MS));
    let request_id =
        fields.optional(r, "request_id", |r, t| r.parsed(t, RequestId::EXPECTED, RequestId::new));
    let permit_ttl_ms = fields.optional(r, "permit", ttl_ms);
    let limits = fields.optional(r, "limits", limits).unwrap_or_default();
    fields.finish(r);
    Some(Check {
        tenant: tenant?,
        tier,
        client,
        action,
        method,
        path,
        ip,
        api_key,
        attributes: attributes.unwrap_or_default(),
        cost: cost.and_then(|cost| Cost::new(u32::try_from(cost).ok()?)),
        deadline_ms: deadline_ms.unwrap_or(DEADLINE_MS_DEFAULT),
        request_id,
        permit_ttl_ms,
        limits,
    })
}

/// What stands before the query, if it is a path.
pub fn path(text: &str) -> Option<Path> {
    Path::new(text.split(['?', '#']).next().unwrap_or_default())
}

/// An IP address; IPv4 in IPv6 clothes is IPv4.
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(canonical_ip)
}

/// The key itself never leaves this function, not even in a fault.
pub fn api_key(r: &mut Reader, tree: &Tree) -> Option<ApiKeyDigest> {
    let Tree::Text(key) = tree else {
        r.fault("is not a string");
        return None;
    };
    let digest = digest(key);
    if digest.is_none() {
        r.fault(format!(
            "is not text of 1 to {API_KEY_BYTES_MAX} bytes without control characters"
        ));
    }
    digest
}

/// The digest of an API key, if that is one.
pub fn digest(key: &str) -> Option<ApiKeyDigest> {
    let valid = (1..=API_KEY_BYTES_MAX).contains(&key.len()) && !key.chars().any(char::is_control);
    valid.then(|| ApiKeyDigest::of(key))
}

/// The time in `{"ttl_ms": …}`; [`PERMIT_TTL_UNSAID`] where it has none.
pub fn ttl_ms(r: &mut Reader, tree: &Tree) -> Option<u64> {
    let mut fields = r.fields(tree)?;
    let ttl_ms = match fields.has("ttl_ms") {
        true => fields.optional(r, "ttl_ms", |r, t| r.whole(t, PERMIT_TTL_MS)),
        false => fields.optional(r, "ttl_ms", |_, _| Some(0)).or(Some(PERMIT_TTL_UNSAID)),
    };
    fields.finish(r);
    ttl_ms
}

fn limits(r: &mut Reader, tree: &Tree) -> Option<Vec<Arc<crate::check::Limit>>> {
    let mut seen = std::collections::BTreeSet::new();
    r.list(tree, REQUEST_LIMITS_MAX, |r, t| {
        let limit = read_limit(r, t)?;
        if !seen.insert(limit.name.clone()) {
            r.fault_at("name", format!("there is a limit {} here already", limit.name));
        }
        Some(Arc::new(limit))
    })
}

/// Takes the request id from the `Idempotency-Key` header: a quoted string, or bare.
pub fn idempotency_key(headers: &HeaderMap, check: &mut Check) -> Result<(), Fault> {
    let Some(header) = headers.get("idempotency-key") else {
        return Ok(());
    };
    let name = "Idempotency-Key";
    let text = header.to_str().map_err(|_| Fault::new(name, "is not visible ASCII"))?.trim();
    let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let id = RequestId::new(bare)
        .ok_or_else(|| Fault::new(name, format!("is not {}", RequestId::EXPECTED)))?;
    match &check.request_id {
        Some(other) if *other != id => Err(Fault::new(name, "differs from request_id in the body")),
        _ => {
            check.request_id = Some(id);
            Ok(())
        }
    }
}

/// Reads any bytes as a check's body: what a fuzzer calls. A check that was read prints nothing
/// that its own rules forbid, and the short way reads nothing else than the long one.
pub fn fuzz_check_body(bytes: &[u8]) {
    let plain = super::plain::check(bytes);
    let Ok(tree) = Tree::from_json(bytes) else {
        return assert_eq!(plain, None);
    };
    let mut r = Reader::default();
    let read = check(&mut r, &tree);
    let read = r.finish(read);
    assert!(plain.is_none() || plain.as_ref() == read.as_ref().ok());
    match read {
        Ok(check) => {
            assert!(TenantId::new(check.tenant.as_str()).is_some());
            assert!(DEADLINE_MS.contains(&check.deadline_ms));
            assert!(check.limits.iter().all(|limit| limit.rule.capacity() > 0));
        }
        Err(faults) => assert!(!faults.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Check, Vec<String>> {
        let tree = Tree::from_json(json.as_bytes()).map_err(|f| vec![f.to_string()])?;
        let mut r = Reader::default();
        let found = check(&mut r, &tree);
        r.finish(found).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_whole_body_of_the_contract_is_read() {
        let check = read(
            r#"{"tenant":"acme","tier":"pro","client":"user-1","action":"api_call","method":"POST",
            "path":"/ocr/process?x=1","ip":"::ffff:203.0.113.9","api_key":"s3cret","attributes":{"region":"eu"},"cost":3,
            "wait_ms":0,"deadline_ms":100,"request_id":"r-1","permit":{"ttl_ms":30000},
            "limits":[{"name":"adhoc","per":["tenant","client"],"algorithm":"sliding_log","limit":10,"window":"1m"}]}"#,
        )
        .unwrap();
        assert_eq!(check.path.unwrap().as_str(), "/ocr/process");
        assert_eq!(check.ip.unwrap().to_string(), "203.0.113.9");
        assert_eq!((check.cost.unwrap().get(), check.permit_ttl_ms), (3, Some(30_000)));
        assert_eq!(check.limits[0].rule.capacity(), 10);
    }

    #[test]
    fn nonsense_is_named_by_the_member_it_is_in() {
        for (json, path) in [
            (r#"{}"#, "tenant"),
            (r#"{"tenant":""}"#, "tenant"),
            (r#"{"tenant":5}"#, "tenant"),
            (r#"{"tenant":"a\u0000"}"#, "tenant"),
            (r#"{"tenant":"a","cost":0}"#, "cost"),
            (r#"{"tenant":"a","cost":-1}"#, "cost"),
            (r#"{"tenant":"a","cost":1.5}"#, "cost"),
            (r#"{"tenant":"a","cost":1e3}"#, "cost"),
            (r#"{"tenant":"a","cost":"3"}"#, "cost"),
            (r#"{"tenant":"a","cost":1000000000000000000000000000000}"#, "cost"),
            (r#"{"tenant":"a","cost":1e309}"#, "cost"),
            (r#"{"tenant":"a","cost":NaN}"#, "cost"),
            (r#"{"tenant":"a","cost":1,"cost":2}"#, "cost"),
            (r#"{"tenant":"a","coost":1}"#, "coost"),
            (r#"{"tenant":"a","client":"x\ny"}"#, "client"),
            (r#"{"tenant":"a","ip":"1.2.3"}"#, "ip"),
            (r#"{"tenant":"a","path":"x"}"#, "path"),
            (r#"{"tenant":"a","permit":{"ttl_ms":999}}"#, "permit.ttl_ms"),
            (r#"{"tenant":"a","wait_ms":5}"#, "wait_ms"),
            (r#"{"tenant":"a","attributes":{"a b":"x"}}"#, "attributes.\"a b\""),
            (
                r#"{"tenant":"a","limits":[{"name":"x","algorithm":"fixed_window","limit":1,"window":"0s"}]}"#,
                "limits[0].window",
            ),
        ] {
            let faults = read(json).unwrap_err();
            assert!(faults[0].starts_with(&format!("{path}: ")), "{json}: {faults:?}");
        }
    }

    #[test]
    fn a_fault_never_repeats_an_api_key() {
        let faults =
            read(&format!(r#"{{"tenant":"a","api_key":"{}"}}"#, "canary".repeat(300))).unwrap_err();
        assert!(!faults.join(" ").contains("canary"));
    }
}
