//! From a [`Decision`] to the members of an answer.
//!
//! Every check ends here, so the members are written straight into the answer's bytes, each piece
//! of fixed text as it stands. What is quoted without a look at it can hold nothing that JSON would
//! escape: tenant ids, names and dimensions are a few ASCII characters each ([`crate::check`] sees
//! to that). Free text goes through `serde_json`.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::check::{Decision, Dimension, Exactness, Reason, Verdict};
use crate::clock::MS;
use crate::limit::Outcome;

/// Bytes of one decision, for which room is made beforehand: most take less, and the rest grow.
pub const DECISION_BYTES: usize = 1_024;

/// Nanoseconds as whole milliseconds, rounded up, so that whoever waits for them has waited long
/// enough.
pub fn ms(nanos: u64) -> u64 {
    nanos.div_ceil(MS)
}

/// A decision as an object, given by `node` unless it says that another gave it.
pub fn decision(out: &mut Vec<u8>, decision: &Decision, node: &str) {
    out.push(b'{');
    members(out, decision, node);
    out.push(b'}');
}

/// The members of that object, to stand among others.
pub fn members(out: &mut Vec<u8>, decision: &Decision, node: &str) {
    let tightest = decision.tightest();
    raw(
        out,
        if decision.allowed {
            r#""allowed":true,"tenant":"#
        } else {
            r#""allowed":false,"tenant":"#
        },
    );
    quoted(out, decision.tenant.as_str());
    raw(out, r#","tier":"#);
    match &decision.tier {
        Some(tier) => quoted(out, tier.as_str()),
        None => raw(out, "null"),
    }
    raw(out, r#","cost":"#);
    number(out, decision.cost);
    raw(out, r#","limit":"#);
    match tightest {
        Some(verdict) => number(out, verdict.limit.rule.capacity()),
        None => raw(out, if decision.allowed { r#""unlimited""# } else { "0" }),
    }
    raw(out, r#","remaining":"#);
    let none_left = (!decision.allowed).then_some(0);
    number_or_null(out, tightest.map(|verdict| verdict.remaining).or(none_left));
    raw(out, r#","reset_after_ms":"#);
    number_or_null(out, tightest.map(|verdict| ms(verdict.reset_after)));
    raw(out, r#","retry_after_ms":"#);
    number_or_null(out, decision.retry_after.map(ms));
    raw(out, r#","denied_by":"#);
    match &decision.denied_by {
        Some(by) => {
            raw(out, r#"{"name":"#);
            quoted(out, by.name.as_str());
            raw(out, r#","scope":"#);
            scope(out, &by.scope);
            raw(out, r#","reason":"#);
            quoted(out, word(by.reason));
            raw(out, "}");
        }
        None => raw(out, "null"),
    }
    raw(out, r#","limits":"#);
    limits(out, decision);
    raw(out, r#","permit":"#);
    match &decision.permit {
        Some(permit) => {
            raw(out, r#"{"id":"#);
            quoted(out, &permit.id.to_string());
            raw(out, r#","expires_in_ms":"#);
            number(out, ms(permit.expires_in));
            raw(out, "}");
        }
        None => raw(out, "null"),
    }
    raw(
        out,
        if decision.replayed {
            r#","replayed":true,"mode":"#
        } else {
            r#","replayed":false,"mode":"#
        },
    );
    quoted(out, mode(decision.exactness()));
    match decision.exactness() {
        Exactness::Exact => {}
        Exactness::KeyCap => raw(out, r#","degraded":{"reason":"key_cap","share":null}"#),
        Exactness::ColdStart => raw(out, r#","degraded":{"reason":"cold_start","share":"0"}"#),
    }
    if let Some(bypass) = &decision.bypass {
        raw(out, r#","bypass":{"list":"#);
        quoted(out, bypass.list.as_str());
        raw(out, r#","reason":"#);
        json(out, &bypass.reason);
        raw(out, "}");
    }
    raw(out, r#","node":"#);
    json(out, decision.node.as_ref().map_or(node, |node| node.as_str()));
    raw(out, r#","epoch":"#);
    number(out, decision.epoch);
    raw(out, r#","policy_version":"#);
    number(out, decision.policy_version);
}

/// The verdicts of a decision as JSON values.
pub fn limit_values(decision: &Decision) -> Value {
    let mut out = Vec::new();
    limits(&mut out, decision);
    serde_json::from_slice(&out).unwrap_or_default()
}

fn limits(out: &mut Vec<u8>, decision: &Decision) {
    list(out, &decision.verdicts, limit);
}

/// One limit of an answer.
fn limit(out: &mut Vec<u8>, verdict: &Verdict) {
    let (limit, rule) = (&verdict.limit, &verdict.limit.rule);
    raw(out, r#"{"name":"#);
    quoted(out, limit.name.as_str());
    raw(out, r#","scope":"#);
    scope(out, &limit.per);
    raw(out, r#","algorithm":"#);
    quoted(out, rule.algorithm());
    raw(out, r#","limit":"#);
    number(out, rule.capacity());
    raw(out, r#","window_ms":"#);
    number_or_null(out, rule.window().map(ms));
    raw(out, r#","remaining":"#);
    number(out, verdict.remaining);
    raw(out, r#","reset_after_ms":"#);
    number(out, ms(verdict.reset_after));
    raw(out, r#","mode":"#);
    quoted(out, mode(verdict.exactness));
    if !limit.enforce {
        // Only for shadow limits: whether it would have denied.
        let would_deny = verdict.outcome != Outcome::Pass;
        raw(out, if would_deny { r#","would_deny":true"# } else { r#","would_deny":false"# });
    }
    raw(out, "}");
}

fn mode(exactness: Exactness) -> &'static str {
    if exactness == Exactness::Exact { "exact" } else { "approximate" }
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Rate => "rate",
        Reason::Concurrency => "concurrency",
        Reason::Quota => "quota",
        Reason::DenyList => "deny_list",
        Reason::CostExceedsCapacity => "cost_exceeds_capacity",
    }
}

/// The dimensions of a bucket, as a list of their names.
fn scope(out: &mut Vec<u8>, dimensions: &[Dimension]) {
    list(out, dimensions, |out, dimension| match dimension.word() {
        Some(word) => quoted(out, word),
        None => quoted(out, &dimension.to_string()),
    });
}

/// The same for documents that aren't written here.
pub struct Scope<'a>(pub &'a [Dimension]);

impl Serialize for Scope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

/// A list, its items separated.
pub fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, each) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item(out, each);
    }
    out.push(b']');
}

/// Anything else.
pub fn json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Writing to memory doesn't fail, and no value here holds what JSON can't say.
    let _ = serde_json::to_writer(out, value);
}

fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    debug_assert!(
        text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'),
        "{text:?}"
    );
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, number: u64) {
    raw(out, itoa::Buffer::new().format(number));
}

fn number_or_null(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        Some(value) => number(out, value),
        None => raw(out, "null"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::check::{Bypass, Limit, Match, Name, Permit, PermitId, TenantId, Verdicts};
    use crate::clock::SECOND;
    use crate::limit::{Rule, Window};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn shown(of: &Decision) -> Value {
        let mut out = Vec::new();
        decision(&mut out, of, "n1");
        serde_json::from_slice(&out).unwrap()
    }

    fn unlimited() -> Decision {
        Decision {
            allowed: true,
            tenant: TenantId::new("acme:1").unwrap(),
            tier: None,
            cost: 3,
            verdicts: Verdicts::new(),
            denied_by: None,
            retry_after: None,
            permit: None,
            replayed: false,
            bypass: None,
            policy_version: 12,
            epoch: 1,
            node: None,
        }
    }

    fn verdict(enforce: bool, outcome: Outcome) -> Verdict {
        let rule = Rule::SlidingLog(Window { limit: 10, length: 60 * SECOND });
        let per = vec![Dimension::Tenant, Dimension::Attribute(name("region"))];
        let limit = Limit { name: name("minute"), per, when: Match::default(), rule, enforce };
        Verdict {
            limit: Arc::new(limit),
            outcome,
            remaining: 7,
            reset_after: 1_000_001,
            exactness: Exactness::Exact,
        }
    }

    #[test]
    fn an_unlimited_answer_says_so_and_names_who_let_it_pass_whatever_characters_the_reason_has() {
        let bypass = Bypass { list: name("partners"), reason: "a \"friend\"\n\u{1F600} \\".into() };
        assert_eq!(
            shown(&Decision { bypass: Some(Box::new(bypass)), ..unlimited() }),
            json!({
                "allowed": true, "tenant": "acme:1", "tier": null, "cost": 3, "limit": "unlimited", "remaining": null,
                "reset_after_ms": null, "retry_after_ms": null, "denied_by": null, "limits": [], "permit": null,
                "replayed": false, "mode": "exact",
                "bypass": {"list": "partners", "reason": "a \"friend\"\n\u{1F600} \\"},
                "node": "n1", "epoch": 1, "policy_version": 12,
            })
        );
    }

    #[test]
    fn a_denial_shows_its_limits_its_shadows_and_its_wait_rounded_up() {
        let verdicts = [verdict(true, Outcome::Wait(29_000_001)), verdict(false, Outcome::Never)];
        let permit = Permit { id: PermitId { partition: 1, secret: 2 }, expires_in: SECOND };
        let mut denied =
            Decision { verdicts: verdicts.into(), permit: Some(permit), ..unlimited() };
        denied.deny();
        let limit = json!({
            "name": "minute", "scope": ["tenant", "attribute:region"], "algorithm": "sliding_log", "limit": 10,
            "window_ms": 60_000, "remaining": 7, "reset_after_ms": 2, "mode": "exact",
        });
        let mut shadow = limit.clone();
        shadow["would_deny"] = json!(true);
        let answer = shown(&denied);
        assert_eq!(answer["limits"], json!([limit, shadow]));
        assert_eq!(answer["retry_after_ms"], 30);
        let by =
            json!({"name": "minute", "scope": ["tenant", "attribute:region"], "reason": "rate"});
        assert_eq!(answer["denied_by"], by);
        assert_eq!(answer["permit"], json!({"id": permit.id.to_string(), "expires_in_ms": 1_000}));
        assert_eq!((&answer["limit"], &answer["remaining"]), (&json!(10), &json!(7)));
        assert_eq!(limit_values(&denied), answer["limits"]);
    }

    #[test]
    fn what_a_shared_overflow_bucket_said_is_approximate() {
        let verdicts = [Verdict { exactness: Exactness::KeyCap, ..verdict(true, Outcome::Pass) }];
        let answer = shown(&Decision { verdicts: Verdicts::from_iter(verdicts), ..unlimited() });
        assert_eq!(answer["mode"], "approximate");
        assert_eq!(answer["degraded"], json!({"reason": "key_cap", "share": null}));
        assert_eq!(answer["limits"][0]["mode"], "approximate");
    }

    #[test]
    fn reasons_have_the_words_by_which_they_are_stored() {
        use Reason::{Concurrency, CostExceedsCapacity, DenyList, Quota, Rate};
        for reason in [Rate, Concurrency, Quota, DenyList, CostExceedsCapacity] {
            assert_eq!(json!(reason), word(reason));
        }
    }
}
