//! What operators and their tools ask.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::Get;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Type};

use super::call::{Access, Answer, Call};
use super::cluster::BreakerState;
use super::policy::Flag;
use super::words::{NAME, PolicyVersion, Shown, components, one_of, only, reference, text};
use crate::check::NAME_BYTES_MAX;
use crate::config::NODES_MAX;

/// The tag of these calls.
pub const OPERATIONS: &str = "operations";

components! {
    /// The id of a node.
    NodeId = text(1..=NAME_BYTES_MAX, NAME), "n1";
    /// Nodes.
    NodeIds [NodeId] = ArrayBuilder::new().items(reference::<NodeId>()).max_items(Some(NODES_MAX)), ["n2"];
    /// The breakers of a node's links.
    BreakerStates [BreakerOfLink] = ArrayBuilder::new().items(reference::<BreakerOfLink>()).max_items(Some(NODES_MAX)),
        [{"id": "n2", "state": "closed"}];
    /// A share of a hundred.
    Percent = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(100)), 12.5;
    /// What is asked about: all that a node does, or checks alone.
    ReadyFor = one_of(["everything", "checks"]), "checks";
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
    /// Whether it takes work of the kind that was asked about.
    #[schema(examples(true))]
    ready: bool,
    /// What it lacks; null where it takes work.
    #[schema(required, examples("log not applied"))]
    missing: Option<String>,
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
    /// What that rests on.
    checks: ReadinessChecks,
}

/// The breaker of a link.
#[derive(ToSchema)]
pub struct BreakerOfLink {
    /// The node at the other end.
    id: NodeId,
    /// Whether calls go through.
    state: BreakerState,
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
    /// Whether the log names this process as the owner of what is placed on the node.
    registered: RegisteredCheck,
    /// Whether the node has started.
    started: StartedCheck,
    /// Whether it can dial other nodes.
    dialling: DiallingCheck,
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

/// Whether the log names this process as the owner of what is placed on the node.
#[derive(ToSchema)]
pub struct RegisteredCheck {
    /// Whether it does.
    #[schema(examples(true))]
    ok: bool,
}

/// Whether the node has started: after that it waits for no other node.
#[derive(ToSchema)]
pub struct StartedCheck {
    /// Whether it has.
    #[schema(examples(true))]
    ok: bool,
    /// The owners that it waits for, for two seconds at most.
    waiting_for: NodeIds,
}

/// Whether the node can dial others.
#[derive(ToSchema)]
pub struct DiallingCheck {
    /// False where others reach it and it can dial none of them.
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
                "For balancers. A node takes work once it has started: its cluster has formed, the \
                 log is applied, the log names this process as an owner, its counts are loaded, \
                 and the other owners that are up are connected. It goes on while it has contact \
                 with a majority and wasn't told to stop; the death of another node changes \
                 nothing. With `?for=checks` a majority isn't needed: a node without one still \
                 decides what it owns. At a stop it answers 503 before connections are refused. \
                 With `?verbose`, what that rests on; the status is the same.",
            )
            .query::<ReadyFor>("for", "What for: `everything` (without this), or `checks` alone.")
            .query::<Flag>("verbose", "Answer with what it rests on.")
            .answers(
                200,
                Answer::text("It takes work.", "text/plain", "ready\n")
                    .also::<Readiness>("application/json"),
            )
            .answers(
                503,
                Answer::text(
                    "What it lacks, in words.",
                    "text/plain",
                    "the cluster has not formed: waiting for n2, n3\n",
                )
                .also::<Readiness>("application/json"),
            )
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
