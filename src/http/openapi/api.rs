//! `/api/…`: calls with a limit of their own, judged by a sliding log.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::{Get, Post};

use super::call::{Access, Answer, Call};
use super::denial::with_rate_limits;
use super::ops::NodeId;
use super::words::{Action, Client, Shown, TenantId, Units, UnitsOrNone, components, one_of, only, whole};
use crate::http::compat::api::SECONDS_MAX;

/// The tag of these calls.
pub const API: &str = "api";

components! {
    /// The length of the window, in seconds: at most ten years.
    WindowSeconds = whole(1..=SECONDS_MAX), 60;
    /// Seconds, rounded up.
    SecondsOrNone = whole(0..=u64::from(u32::MAX)), 60;
}

/// A question that brings its limit along.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "tenant_id": "acme", "client_id": "user-1", "action_type": "export", "max_requests": 10, "window_duration_seconds": 60
})))]
pub struct ConsumeBody {
    /// Who is limited.
    tenant_id: TenantId,
    /// The user of the tenant.
    client_id: Client,
    /// What is to be done.
    action_type: Action,
    /// Requests in any one window.
    max_requests: Units,
    /// The length of the window.
    window_duration_seconds: WindowSeconds,
}

/// The answer to it.
#[derive(ToSchema)]
#[schema(examples(json!({"allowed": true, "remaining_requests": 9, "reset_time_seconds": 60, "status": "allowed"})))]
pub struct ConsumeAnswer {
    /// Whether it may be done.
    #[schema(examples(true))]
    allowed: bool,
    /// Requests left; null where an allow list let it pass.
    #[schema(required)]
    remaining_requests: Option<UnitsOrNone>,
    /// When denied, seconds after which it would be allowed; else until the limit is whole again.
    reset_time_seconds: SecondsOrNone,
    /// The outcome in a word.
    status: ConsumeStatus,
}

/// Allowed or denied.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("allowed"))]
pub enum ConsumeStatus {
    Allowed,
    Denied,
}

/// Whether the node takes new work.
#[derive(ToSchema)]
pub struct Healthy {
    #[schema(schema_with = healthy)]
    status: String,
    /// The node.
    node: NodeId,
}

/// A node that takes no new work.
#[derive(ToSchema)]
pub struct Unhealthy {
    #[schema(schema_with = unhealthy)]
    status: String,
    /// The node.
    node: NodeId,
}

fn healthy() -> utoipa::openapi::schema::ObjectBuilder {
    only("healthy", "It takes work.")
}

fn unhealthy() -> utoipa::openapi::schema::ObjectBuilder {
    one_of(["stopping", "no leader", "log not applied"]).description(Some("Why.")).examples(["no leader"])
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let limit = "A limit named `api` that the policy has for the tenant, client or action (or for everybody) takes the place of \
                 the one sent. Above 10,000 requests a sliding window stands in for the sliding log.";
    vec![
        Call::new(Post, "/api/check_and_consume", "apiCheckAndConsume", API)
            .open_to(Access::Decide)
            .does("Decide by a limit sent along", limit)
            .takes::<ConsumeBody>("The question and its limit; at most `body_bytes` (16 KiB by default).")
            .answers(200, with_rate_limits(Answer::json::<ConsumeAnswer>("The decision.")))
            .fails(&[422, 503]),
        Call::new(Get, "/api/status/{tenant}/{client}/{action}", "apiStatus", API)
            .open_to(Access::Decide)
            .does("See what it would be answered", limit)
            .part::<TenantId>("tenant", "Who is limited.")
            .part::<Client>("client", "The user of the tenant.")
            .part::<Action>("action", "What is to be done.")
            .required_query::<Units>("max_requests", "Requests in any one window.")
            .required_query::<WindowSeconds>("window_duration_seconds", "The length of the window.")
            .answers(
                200,
                with_rate_limits(Answer::json::<ConsumeAnswer>(
                    "What the answer would be; nothing was taken.",
                )),
            )
            .fails(&[422, 503]),
        Call::new(Get, "/api/health", "apiHealth", API)
            .open_to(Access::Open)
            .does("Ask whether the node takes work", "The same as `/readyz`.")
            .answers(200, Answer::json::<Healthy>("It takes work."))
            .answers(503, Answer::json::<Unhealthy>("It takes none.")),
    ]
}
