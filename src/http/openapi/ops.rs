//! What operators and their tools ask.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::Get;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Type};

use super::call::{Access, Answer, Call};
use super::policy::Flag;
use super::words::{NAME, PolicyVersion, Shown, components, only, text};
use crate::check::NAME_BYTES_MAX;

/// The tag of these calls.
pub const OPERATIONS: &str = "operations";

components! {
    /// The id of a node.
    NodeId = text(1..=NAME_BYTES_MAX, NAME), "n1";
    /// An OpenAPI document.
    OpenApi = ObjectBuilder::new().schema_type(Type::Object).required("openapi").additional_properties(Some(AdditionalProperties::FreeForm(true))),
        {"openapi": "3.1.0", "info": {"title": "Tidegate", "version": "0.1.0"}, "paths": {}};
}

/// What answers here.
#[derive(ToSchema)]
pub struct Version {
    #[schema(schema_with = product)]
    name: String,
    /// Its version.
    #[schema(examples("0.1.0"))]
    version: String,
    /// The node.
    node: NodeId,
}

fn product() -> utoipa::openapi::schema::ObjectBuilder {
    only("tidegate", "The product.")
}

/// How the node stands.
#[derive(ToSchema)]
pub struct Readiness {
    /// Whether it takes new work.
    #[schema(examples(true))]
    ready: bool,
    /// What that rests on.
    checks: ReadinessChecks,
}

/// How each part of the node stands.
#[derive(ToSchema)]
pub struct ReadinessChecks {
    /// The door.
    accepting: AcceptingCheck,
    /// Whether the cluster has a leader, and this node hears of it.
    leader: LeaderCheck,
    /// What the cluster has agreed on.
    log: LogCheck,
    /// Where the policy is kept.
    store: StoreCheck,
    /// What decides.
    shards: ShardsCheck,
    /// How much there is to do. What is too much is for whoever looks to say.
    load: LoadLevels,
}

/// The door.
#[derive(ToSchema)]
pub struct AcceptingCheck {
    /// Whether it is open for new work.
    #[schema(examples(true))]
    ok: bool,
}

/// Whether the cluster has a leader.
#[derive(ToSchema)]
pub struct LeaderCheck {
    /// Whether it is known, and a majority was heard of lately.
    #[schema(examples(true))]
    ok: bool,
}

/// What the cluster has agreed on.
#[derive(ToSchema)]
pub struct LogCheck {
    /// Whether it is applied, up to what was committed when the process began.
    #[schema(examples(true))]
    ok: bool,
}

/// Where the policy is kept.
#[derive(ToSchema)]
pub struct StoreCheck {
    /// Whether changes can be stored.
    #[schema(examples(true))]
    ok: bool,
    /// The version in force.
    policy_version: PolicyVersion,
}

/// What decides.
#[derive(ToSchema)]
pub struct ShardsCheck {
    /// Whether all of them answered.
    #[schema(examples(true))]
    ok: bool,
    /// How many there are.
    #[schema(examples(4))]
    count: u64,
    /// How many of them didn't answer in time.
    #[schema(examples(0))]
    silent: u64,
    /// The oldest version that any of them decides by.
    #[schema(examples(12))]
    policy_version: u64,
}

/// How much there is to do.
#[derive(ToSchema)]
pub struct LoadLevels {
    /// Tenants in memory.
    #[schema(examples(120))]
    active_tenants: u64,
    /// Checks that wait for a shared limit.
    #[schema(examples(0))]
    open_checks: u64,
    /// Questions that wait in the fullest mailbox.
    #[schema(examples(0))]
    mailbox_depth_max: u64,
    /// Connections.
    #[schema(examples(12))]
    connections: u64,
}

/// The calls.
pub fn calls() -> Vec<Call> {
    vec![
        Call::new(Get, "/livez", "livez", OPERATIONS)
            .open_to(Access::Open)
            .does("Ask whether the process answers", "For supervisors: restart it if it doesn't.")
            .answers(200, Answer::text("It answers.", "text/plain", "ok\n")),
        Call::new(Get, "/readyz", "readyz", OPERATIONS)
            .open_to(Access::Open)
            .does(
                "Ask whether the node takes new work",
                "For balancers. A node takes new work while it knows of a leader, has applied the log and wasn't told to stop, \
                 whatever it owns. At a stop it says so before connections are refused. With `?verbose`, what that rests on; \
                 the status is the same.",
            )
            .query::<Flag>("verbose", "Answer with what it rests on.")
            .answers(200, Answer::text("It takes work.", "text/plain", "ready\n").also::<Readiness>("application/json"))
            .answers(503, Answer::text("`stopping`, `no leader` or `log not applied`.", "text/plain", "no leader\n").also::<Readiness>("application/json"))
            .fails(&[500]),
        Call::new(Get, "/version", "version", OPERATIONS)
            .open_to(Access::Open)
            .does("See what answers here", "The product, its version and the node's id.")
            .answers(200, Answer::json::<Version>("It.")),
        Call::new(Get, "/openapi.json", "openapi", OPERATIONS)
            .open_to(Access::Open)
            .does("See this document", "The same on every node of one version.")
            .answers(200, Answer::json::<OpenApi>("This document.")),
        Call::new(Get, "/docs", "docs", OPERATIONS)
            .open_to(Access::Open)
            .does("Read this document in a browser", "Leads to `/docs/`.")
            .answers(
                308,
                Answer::empty("Go to `/docs/`.")
                    .header::<Location>("Location", "Where the page is, seen from here."),
            ),
        Call::new(Get, "/docs/", "docsPage", OPERATIONS)
            .open_to(Access::Open)
            .does("Read this document in a browser", "A page that loads nothing from elsewhere.")
            .answers(200, Answer::text("The page.", "text/html", "<!DOCTYPE html>…")),
    ]
}

components! {
    /// A relative reference.
    Location = only("docs/", ""), "docs/";
}
