//! `/api/…`: calls with a limit of their own, judged by a sliding log, and those that configure it.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::{Delete, Get, Post, Put};
use utoipa::openapi::schema::ArrayBuilder;

use super::call::{Access, Answer, Call};
use super::denial::with_rate_limits;
use super::ops::{BreakerStates, NodeId, Percent};
use super::policy::{DryRun, Pending, Unchanged, either, outcome, writes};
use super::words::{
    Action, Client, PolicyVersion, Shown, TenantId, Units, UnitsOrNone, components, form, one_of,
    only, reference, whole,
};
use crate::check::TENANT_BYTES_MAX;
use crate::clock::SECOND;
use crate::http::compat::api::SECONDS_MAX;
use crate::http::compat::config::{PAGE_DEFAULT, PAGE_MAX};
use crate::policy::LIMITS_MAX;

/// The tag of these calls.
pub const API: &str = "api";

components! {
    /// The length of the window, in seconds: at most ten years.
    WindowSeconds = whole(1..=SECONDS_MAX), 60;
    /// Seconds since the Unix epoch, rounded up.
    UnixSeconds = whole(0..=u64::MAX / SECOND + 1), 1_678_886_400;
    /// Tenants on one page, at most.
    ConfigPageLimit = whole(1..=PAGE_MAX).default(Some(serde_json::json!(PAGE_DEFAULT))), 100;
    /// Where the next page begins: what `next` said, unchanged. Empty is the beginning.
    ConfigCursor = form(&format!("^([A-Za-z0-9._:-]{{1,{TENANT_BYTES_MAX}}})?$"), "cursor"), "acme";
    /// How it counts: a sliding log up to 10,000 requests and a sliding window above; another where
    /// the policy was written by hand.
    ConfiguredAlgorithm =
        one_of(["token_bucket", "leaky_bucket", "fixed_window", "sliding_window", "sliding_log", "quota"]), "sliding_log";
    /// A tenant's limits named `api`, the most specific first.
    Overrides [Override] = ArrayBuilder::new().items(reference::<Override>()).max_items(Some(LIMITS_MAX)),
        [{"client_id": null, "action_type": "export", "max_requests": 5, "window_duration_seconds": 60,
          "algorithm": "sliding_log"}];
    /// The tenants on a page.
    ConfiguredTenants [ConfiguredTenant] =
        ArrayBuilder::new().items(reference::<ConfiguredTenant>()).max_items(Some(PAGE_MAX as usize)),
        [{"tenant_id": "acme", "overrides": []}];
    /// What setting the global limit answers: what was set, or with `dry_run` what would change.
    GlobalOutcome [GlobalSet, DryRun] = either::<GlobalSet, DryRun>(),
        {"dry_run": true, "version": 11, "changes": []};
    /// What setting a tenant's limit answers: what was set, or with `dry_run` what would change.
    OverrideOutcome [OverrideSet, DryRun] = either::<OverrideSet, DryRun>(),
        {"dry_run": true, "version": 11, "changes": []};
    /// What deleting a tenant's limit answers: what was deleted, or with `dry_run` what would
    /// change.
    DeletionOutcome [OverrideDeleted, DryRun] = either::<OverrideDeleted, DryRun>(),
        {"dry_run": true, "version": 11, "changes": []};
}

/// Numbers for the limit `api`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"max_requests": 100, "window_duration_seconds": 60})))]
pub struct QuantityBody {
    /// Requests in any one window.
    max_requests: Units,
    /// The length of the window.
    window_duration_seconds: WindowSeconds,
}

/// The numbers of a limit `api`.
#[derive(ToSchema)]
#[schema(examples(json!({"max_requests": 100, "window_duration_seconds": 60, "algorithm": "sliding_log"})))]
pub struct Quantity {
    /// Requests in any one window.
    max_requests: Units,
    /// The length of the window, rounded up; null for a calendar quota that the policy has under
    /// this name.
    #[schema(required)]
    window_duration_seconds: Option<WindowSeconds>,
    /// How it counts.
    algorithm: ConfiguredAlgorithm,
}

/// A limit `api` of a tenant.
#[derive(ToSchema)]
pub struct Override {
    /// The client it is for; null is any.
    #[schema(required)]
    client_id: Option<Client>,
    /// The action it is for; null is any.
    #[schema(required)]
    action_type: Option<Action>,
    /// Requests in any one window.
    max_requests: Units,
    /// The length of the window, rounded up; null for a calendar quota that the policy has under
    /// this name.
    #[schema(required)]
    window_duration_seconds: Option<WindowSeconds>,
    /// How it counts.
    algorithm: ConfiguredAlgorithm,
}

/// A tenant with limits `api` of its own.
#[derive(ToSchema)]
pub struct ConfiguredTenant {
    /// Who it is.
    tenant_id: TenantId,
    /// Its limits.
    overrides: Overrides,
}

/// What is configured.
#[derive(ToSchema)]
pub struct ConfigPage {
    /// The limit of whoever has no more specific one; null where there is none.
    #[schema(required)]
    global: Option<Quantity>,
    /// The tenants with limits of their own. Beside a `next`, a page may be short or empty.
    tenants: ConfiguredTenants,
    /// What `after` takes for the next page; null on the last.
    #[schema(required)]
    next: Option<TenantId>,
}

/// The limit for everybody was set.
#[derive(ToSchema)]
pub struct GlobalSet {
    #[schema(schema_with = updated)]
    status: String,
    /// Requests in any one window.
    max_requests: Units,
    /// The length of the window.
    window_duration_seconds: WindowSeconds,
    /// How it counts.
    algorithm: ConfiguredAlgorithm,
    /// The version of the policy that it made; where it changed nothing, the version that there is.
    version: PolicyVersion,
    /// Where it isn't in force yet.
    pending: Pending,
    /// True where the policy said this already, so that no version was made; else absent.
    #[schema(nullable = false)]
    unchanged: Option<Unchanged>,
}

/// An override was set.
#[derive(ToSchema)]
pub struct OverrideSet {
    #[schema(schema_with = updated)]
    status: String,
    /// Whose it is.
    tenant_id: TenantId,
    /// The client it is for; null is any.
    #[schema(required)]
    client_id: Option<Client>,
    /// The action it is for.
    action_type: Action,
    /// Requests in any one window.
    max_requests: Units,
    /// The length of the window.
    window_duration_seconds: WindowSeconds,
    /// How it counts.
    algorithm: ConfiguredAlgorithm,
    /// The version of the policy that it made; where it changed nothing, the version that there is.
    version: PolicyVersion,
    /// Where it isn't in force yet.
    pending: Pending,
    /// True where the policy said this already, so that no version was made; else absent.
    #[schema(nullable = false)]
    unchanged: Option<Unchanged>,
}

/// An override was deleted.
#[derive(ToSchema)]
pub struct OverrideDeleted {
    #[schema(schema_with = deleted)]
    status: String,
    /// Whose it was.
    tenant_id: TenantId,
    /// The client it was for; null is any.
    #[schema(required)]
    client_id: Option<Client>,
    /// The action it was for.
    action_type: Action,
    /// The version of the policy that it made.
    version: PolicyVersion,
    /// Where it isn't in force yet.
    pending: Pending,
}

fn updated() -> utoipa::openapi::schema::ObjectBuilder {
    only("updated", "It is in force.")
}

fn deleted() -> utoipa::openapi::schema::ObjectBuilder {
    only("deleted", "It is gone.")
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
#[schema(examples(json!({"allowed": true, "remaining_requests": 9, "reset_time_seconds": 1_678_886_400, "status": "processed"})))]
pub struct ConsumeAnswer {
    /// Whether it may be done.
    #[schema(examples(true))]
    allowed: bool,
    /// Requests left; null where an allow list let it pass.
    #[schema(required)]
    remaining_requests: Option<UnitsOrNone>,
    /// When it was denied, the moment from which on it would be allowed; else the moment at which
    /// the limit is whole again. In Unix seconds.
    reset_time_seconds: UnixSeconds,
    /// That it was decided; `allowed` says how.
    #[schema(schema_with = processed)]
    status: String,
}

fn processed() -> utoipa::openapi::schema::ObjectBuilder {
    only("processed", "It was decided.")
}

/// Whether the node takes new work.
#[derive(ToSchema)]
pub struct Healthy {
    #[schema(schema_with = healthy)]
    status: String,
    /// The node.
    node: NodeId,
    /// Whether limits are enforced: false while the kill switch is thrown, when nothing is denied.
    #[schema(examples(true))]
    enforce: bool,
    /// The breakers of its links to the other nodes.
    breakers: BreakerStates,
    /// Of the processor time that all cores had in the last seconds.
    cpu_percent: Percent,
    /// Its resident memory, of the least limit that holds for it.
    memory_percent: Percent,
    /// Tenants in memory.
    #[schema(examples(120))]
    active_tenants: u64,
}

/// A node that takes no new work.
#[derive(ToSchema)]
pub struct Unhealthy {
    /// What it lacks, in words.
    #[schema(examples("log not applied"))]
    status: String,
    /// The node.
    node: NodeId,
    /// Whether limits are enforced: false while the kill switch is thrown, when nothing is denied.
    #[schema(examples(true))]
    enforce: bool,
    /// The breakers of its links to the other nodes.
    breakers: BreakerStates,
    /// Of the processor time that all cores had in the last seconds.
    cpu_percent: Percent,
    /// Its resident memory, of the least limit that holds for it.
    memory_percent: Percent,
    /// Tenants in memory.
    #[schema(examples(120))]
    active_tenants: u64,
}

fn healthy() -> utoipa::openapi::schema::ObjectBuilder {
    only("healthy", "It takes work.")
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let limit = "A limit named `api` that the policy has for the tenant, client or action (or for \
                 everybody) takes the place of the one sent. Above 10,000 requests a sliding \
                 window stands in for the sliding log.";
    vec![
        Call::new(Post, "/api/check_and_consume", "apiCheckAndConsume", API)
            .open_to(Access::Decide)
            .does("Decide by a limit sent along", limit)
            .takes::<ConsumeBody>(
                "The question and its limit; at most `body_bytes` (16 KiB by default).",
            )
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
    .into_iter()
    .chain(configuring())
    .collect()
}

/// The calls that configure.
fn configuring() -> Vec<Call> {
    const ACTION: &str = "/api/config/tenant/{tenant}/action/{action}";
    const CLIENT: &str = "/api/config/tenant/{tenant}/client/{client}/action/{action}";
    let action = |call: Call| {
        call.part::<TenantId>("tenant", "Whose it is.")
            .part::<Action>("action", "The action it is for.")
    };
    let client = |call: Call| action(call).part::<Client>("client", "The client it is for.");
    let put = |call: Call| {
        writes(call)
            .does(
                "Set a limit of a tenant",
                "It takes the place of those that requests send: client and action over action \
                 over global. The policy has it among the tenant's limits, named `api`. Spent \
                 stays spent.",
            )
            .takes::<QuantityBody>("Its numbers.")
            .answers(200, outcome::<OverrideOutcome>())
    };
    let delete = |call: Call| {
        writes(call)
            .does(
                "Delete a limit of a tenant",
                "The next more general one holds, or what requests send.",
            )
            .answers(200, outcome::<DeletionOutcome>())
            .fails(&[404])
    };
    vec![
        Call::new(Get, "/api/config", "apiConfig", API)
            .open_to(Access::See)
            .does(
                "See the configured limits",
                "The limits named `api` of the policy: the one for everybody, and those of \
                 tenants, in the order of their ids. Follow `next` until it is null.",
            )
            .query::<ConfigPageLimit>("limit", "How many tenants.")
            .query::<ConfigCursor>("after", "Where to go on.")
            .answers(200, Answer::json::<ConfigPage>("A page.").versioned()),
        writes(Call::new(Put, "/api/config/global", "apiPutGlobal", API))
            .does(
                "Set the limit of whoever has no more specific one",
                "It takes the place of those that requests send. It is a limit for everybody in \
                 the policy, named `api`, for each tenant, client and action: checks by the native \
                 calls are judged by it too. `max_global_concurrent_requests` and \
                 `max_tenant_queue_size` are refused with 422: this version has neither.",
            )
            .takes::<QuantityBody>("Its numbers.")
            .answers(200, outcome::<GlobalOutcome>()),
        Call::new(Get, "/api/config/tenant/{tenant}", "apiTenantConfig", API)
            .open_to(Access::See)
            .does(
                "See the configured limits of a tenant",
                "None for a tenant that nobody has configured.",
            )
            .part::<TenantId>("tenant", "The tenant.")
            .answers(200, Answer::json::<ConfiguredTenant>("Its limits.").versioned()),
        put(action(Call::new(Put, ACTION, "apiPutAction", API))),
        delete(action(Call::new(Delete, ACTION, "apiDeleteAction", API))),
        put(client(Call::new(Put, CLIENT, "apiPutClientAction", API))),
        delete(client(Call::new(Delete, CLIENT, "apiDeleteClientAction", API))),
    ]
}
