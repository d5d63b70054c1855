//! From a [`Decision`] to the members of an answer.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::check::{Decision, Dimension, Reason, Verdict};
use crate::clock::MS;
use crate::limit::Outcome;

/// Nanoseconds as whole milliseconds, rounded up, so that whoever waits for them has waited long enough.
pub fn ms(nanos: u64) -> u64 {
    nanos.div_ceil(MS)
}

/// A decision as JSON shows it.
#[derive(Serialize)]
pub struct DecisionView<'a> {
    allowed: bool,
    tenant: &'a str,
    tier: Option<&'a str>,
    cost: u64,
    limit: Amount,
    remaining: Option<u64>,
    reset_after_ms: Option<u64>,
    retry_after_ms: Option<u64>,
    denied_by: Option<DeniedByView<'a>>,
    limits: Verdicts<'a>,
    permit: Option<PermitView>,
    replayed: bool,
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<DegradedView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bypass: Option<BypassView<'a>>,
    node: &'a str,
    epoch: u64,
    policy_version: u64,
}

/// A number, or the word for none.
enum Amount {
    Units(u64),
    Unlimited,
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Units(units) => serializer.serialize_u64(*units),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

#[derive(Serialize)]
struct DeniedByView<'a> {
    name: &'a str,
    scope: Scope<'a>,
    reason: Reason,
}

/// The dimensions of a bucket, as a list of their names.
pub struct Scope<'a>(pub &'a [Dimension]);

impl Serialize for Scope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|dimension| match dimension.word() {
            Some(word) => Cow::Borrowed(word),
            None => Cow::Owned(dimension.to_string()),
        }))
    }
}

/// What all limits said, each as a [`LimitView`].
struct Verdicts<'a>(&'a [Verdict]);

impl Serialize for Verdicts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(LimitView::new))
    }
}

/// One limit of an answer.
#[derive(Serialize)]
pub struct LimitView<'a> {
    name: &'a str,
    scope: Scope<'a>,
    algorithm: &'static str,
    limit: u64,
    window_ms: Option<u64>,
    remaining: u64,
    reset_after_ms: u64,
    mode: &'static str,
    /// Only for shadow limits: whether it would have denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_deny: Option<bool>,
}

impl<'a> LimitView<'a> {
    /// What a verdict shows.
    pub fn new(verdict: &'a Verdict) -> Self {
        Self {
            name: verdict.limit.name.as_str(),
            scope: Scope(&verdict.limit.per),
            algorithm: verdict.limit.rule.algorithm(),
            limit: verdict.limit.rule.capacity(),
            window_ms: verdict.limit.rule.window().map(ms),
            remaining: verdict.remaining,
            reset_after_ms: ms(verdict.reset_after),
            mode: if verdict.overflow { "approximate" } else { "exact" },
            would_deny: (!verdict.limit.enforce).then_some(verdict.outcome != Outcome::Pass),
        }
    }
}

#[derive(Serialize)]
struct PermitView {
    id: String,
    expires_in_ms: u64,
}

#[derive(Serialize)]
struct DegradedView {
    reason: &'static str,
    share: Option<&'static str>,
}

#[derive(Serialize)]
struct BypassView<'a> {
    list: &'a str,
    reason: &'a str,
}

impl<'a> DecisionView<'a> {
    /// What a decision shows, given by `node`.
    pub fn new(decision: &'a Decision, node: &'a str) -> Self {
        let tightest = decision.tightest();
        let (limit, remaining) = match tightest {
            Some(verdict) => (Amount::Units(verdict.limit.rule.capacity()), Some(verdict.remaining)),
            None if decision.allowed => (Amount::Unlimited, None),
            None => (Amount::Units(0), Some(0)),
        };
        Self {
            allowed: decision.allowed,
            tenant: decision.tenant.as_str(),
            tier: decision.tier.as_ref().map(|tier| tier.as_str()),
            cost: decision.cost,
            limit,
            remaining,
            reset_after_ms: tightest.map(|verdict| ms(verdict.reset_after)),
            retry_after_ms: decision.retry_after.map(ms),
            denied_by: decision.denied_by.as_ref().map(|by| DeniedByView {
                name: by.name.as_str(),
                scope: Scope(&by.scope),
                reason: by.reason,
            }),
            limits: Verdicts(&decision.verdicts),
            permit: decision
                .permit
                .map(|permit| PermitView { id: permit.id.to_string(), expires_in_ms: ms(permit.expires_in) }),
            replayed: decision.replayed,
            mode: if decision.approximate() { "approximate" } else { "exact" },
            degraded: decision.approximate().then_some(DegradedView { reason: "key_cap", share: None }),
            bypass: decision
                .bypass
                .as_ref()
                .map(|bypass| BypassView { list: bypass.list.as_str(), reason: &bypass.reason }),
            node,
            // One node owns everything from its first moment on.
            epoch: 1,
            policy_version: decision.policy_version,
        }
    }
}
