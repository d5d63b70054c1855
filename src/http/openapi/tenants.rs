//! Tenants: rules of their own and how they stand.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::{Delete, Get, Post, Put};
use utoipa::openapi::schema::ArrayBuilder;

use super::call::{Access, Answer, Call};
use super::decision::{Scope, Verdicts};
use super::document::Tenant;
use super::limit::{LimitName, NamedLimit};
use super::policy::{DryRun, Flag, Pending, Unchanged, either, outcome, writes, written};
use super::words::{
    Action, Client, IpAddress, PolicyVersion, Shown, TenantId, TierName, components, form,
    reference, whole,
};
use crate::http::tenants::{PAGE_DEFAULT, PAGE_MAX};

/// The tag of these calls.
pub const TENANTS: &str = "tenants";

components! {
    /// Tenants on one page, at most.
    PageLimit = whole(1..=PAGE_MAX).default(Some(serde_json::json!(PAGE_DEFAULT))), 100;
    /// Where the next page begins: what `next` said, unchanged. Empty is the beginning.
    Cursor = form("^(|named:.*|active:[0-9]+:[0-9]+:[0-9]+)$", "cursor"), "named:acme";
    /// The tenants on a page.
    Page [TenantItem] = ArrayBuilder::new().items(reference::<TenantItem>()).max_items(Some(PAGE_MAX as usize)),
        [{"id": "acme", "tier": "pro", "named": true, "active": true}];
    /// What deleting a tenant answers: what was deleted, or with `dry_run` what would change.
    DeletedTenant [TenantDeleted, DryRun] = either::<TenantDeleted, DryRun>(),
        {"version": 12, "pending": [], "state": "deleted"};
    /// Limits of a reset.
    ResetLimits [ResetLimit] = ArrayBuilder::new().items(reference::<ResetLimit>()),
        [{"name": "burst", "scope": ["tenant", "client"]}];
}

/// One page of tenants: first those that the policy names, in the order of their ids, then the
/// others in memory.
#[derive(ToSchema)]
pub struct TenantPage {
    /// The tenants.
    tenants: Page,
    /// What `after` takes for the next page; null on the last.
    #[schema(required, examples("named:acme"))]
    next: Option<String>,
}

/// A tenant in a list.
#[derive(ToSchema)]
pub struct TenantItem {
    /// Its id; `anonymous@ADDRESS` for an account of the tenant `anonymous`.
    #[schema(examples("acme"))]
    id: String,
    /// Its tier; null for an account of `anonymous`.
    #[schema(required)]
    tier: Option<TierName>,
    /// Whether the policy names it.
    #[schema(examples(true))]
    named: bool,
    /// Whether it is in memory, because it was asked for lately.
    #[schema(examples(true))]
    active: bool,
}

/// A tenant: its rules, and how it stands.
#[derive(ToSchema)]
pub struct TenantView {
    /// Who it is.
    tenant: TenantId,
    /// What the policy says of it; null where it doesn't name it.
    #[schema(required)]
    policy: Option<Tenant>,
    /// How it stands.
    state: TenantState,
}

/// How a tenant stands now. Nothing was taken to find out.
#[derive(ToSchema)]
pub struct TenantState {
    /// The tier in force.
    tier: TierName,
    /// Where the tier comes from.
    tier_source: TierSource,
    /// Its limits, without those keyed by more than the tenant.
    limits: Verdicts,
    /// Permits that are out.
    #[schema(examples(2), minimum = 0)]
    permits: u64,
    /// Buckets in memory.
    #[schema(examples(3), minimum = 0)]
    keys: u64,
    /// Request ids that are remembered.
    #[schema(examples(0), minimum = 0)]
    request_ids: u64,
}

/// Where a tenant's tier comes from: its own rule, a pattern, the check, or the default.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("tenant"))]
pub enum TierSource {
    Tenant,
    Pattern,
    Request,
    Default,
}

/// A tenant that was deleted.
#[derive(ToSchema)]
#[schema(examples(json!({"version": 12, "pending": [], "state": "deleted"})))]
pub struct TenantDeleted {
    /// The version it made; where there were no rules to delete, the version that there is.
    version: PolicyVersion,
    /// Where it isn't in force yet.
    pending: Pending,
    /// True where there were no rules to delete; else absent.
    #[schema(nullable = false)]
    unchanged: Option<Unchanged>,
    /// What became of its state.
    state: StateFate,
}

/// The state of a tenant was deleted, or kept.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("deleted"))]
pub enum StateFate {
    Deleted,
    Kept,
}

/// What of that which a tenant has spent is to be forgotten: all of it if nothing is named, else
/// the buckets of the limits that are per everything that is named and per nothing else but the
/// tenant.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"client": "user-1", "limit": "burst"})))]
pub struct ResetBody {
    /// Of this client.
    client: Option<Client>,
    /// Of this action.
    action: Option<Action>,
    /// Of this address.
    ip: Option<IpAddress>,
    /// Of the limits of this name, also of one that requests have sent.
    limit: Option<LimitName>,
}

/// A tenant that was reset.
#[derive(ToSchema)]
pub struct ResetDone {
    /// Who it is.
    tenant: TenantId,
    /// Always true.
    #[schema(examples(true))]
    reset: bool,
    /// The limits whose buckets were forgotten; only where something was named.
    #[schema(nullable = false)]
    limits: Option<ResetLimits>,
    /// Limits that are per what was named and per more, so that their buckets were kept; only where
    /// something was named.
    #[schema(nullable = false)]
    kept: Option<ResetLimits>,
}

/// One limit of a reset.
#[derive(ToSchema)]
#[schema(examples(json!({"name": "burst", "scope": ["tenant", "client"]})))]
pub struct ResetLimit {
    /// Its name.
    name: LimitName,
    /// What it is per.
    scope: Scope,
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let tenant = |call: Call| call.part::<TenantId>("tenant", "The tenant.");
    let limit = |call: Call| tenant(call).part::<LimitName>("name", "The limit.");
    vec![
        Call::new(Get, "/v1/tenants", "listTenants", TENANTS)
            .open_to(Access::See)
            .does(
                "List tenants",
                "Those that the policy names, in the order of their ids, then the others in \
                 memory. Follow `next` until it is null. A tenant that comes or goes meanwhile may \
                 be missed.",
            )
            .query::<PageLimit>("limit", "How many.")
            .query::<Cursor>("after", "Where to go on.")
            .answers(200, Answer::json::<TenantPage>("A page."))
            .fails(&[503]),
        tenant(Call::new(Get, "/v1/tenants/{tenant}", "getTenant", TENANTS))
            .open_to(Access::See)
            .does(
                "See a tenant",
                "Its rules and its state. A tenant that nobody has asked for yet is at rest.",
            )
            .answers(200, Answer::json::<TenantView>("The tenant.").versioned())
            .fails(&[503]),
        tenant(writes(Call::new(Put, "/v1/tenants/{tenant}", "putTenant", TENANTS)))
            .does("Put a tenant's rules", "New, or in place of all that it had.")
            .takes::<Tenant>("Its rules; at most `batch_body_bytes` (1 MiB by default).")
            .answers(200, written()),
        tenant(writes(Call::new(Delete, "/v1/tenants/{tenant}", "deleteTenant", TENANTS)))
            .does(
                "Delete a tenant",
                "Its rules, and all that is kept of it: what it has spent, its permits and request \
                 ids. With `keep_state` its rules alone: what it has spent stays spent. 404 where \
                 there is neither.",
            )
            .query::<Flag>("keep_state", "Whether its state is kept.")
            .answers(200, outcome::<DeletedTenant>())
            .fails(&[404]),
        limit(writes(Call::new(
            Put,
            "/v1/tenants/{tenant}/limits/{name}",
            "putTenantLimit",
            TENANTS,
        )))
        .does(
            "Put one limit of a tenant",
            "New, or in place of the one with the same name and `match`.",
        )
        .takes::<NamedLimit>("The limit; at most `batch_body_bytes` (1 MiB by default).")
        .answers(200, written()),
        limit(writes(Call::new(
            Delete,
            "/v1/tenants/{tenant}/limits/{name}",
            "deleteTenantLimit",
            TENANTS,
        )))
        .does("Delete one limit of a tenant", "All of that name, whatever their `match`.")
        .answers(200, written())
        .fails(&[404]),
        tenant(Call::new(Post, "/v1/tenants/{tenant}/reset", "resetTenant", TENANTS))
            .open_to(Access::Change)
            .does(
                "Forget what a tenant has spent",
                "All of it, or what the body names; 422 if no limit is per what it names alone. \
                 Permits that are out stay out.",
            )
            .may_take::<ResetBody>("What to forget; everything if it is left out.")
            .answers(200, Answer::json::<ResetDone>("It has spent nothing."))
            .fails(&[409, 422, 503]),
    ]
}
