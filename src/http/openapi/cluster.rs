//! The cluster as one of its nodes sees it, and the breakers of that node's links.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::{Get, Post};
use utoipa::openapi::schema::ArrayBuilder;

use super::call::{Access, Answer, Call};
use super::ops::NodeId;
use super::words::{Millis, NAME, Shown, at_least, components, reference, text};
use crate::check::NAME_BYTES_MAX;
use crate::config::{ADDRESS_BYTES_MAX, NODES_MAX};

/// The tag of these calls.
pub const CLUSTER: &str = "cluster";

components! {
    /// The name of the cluster.
    ClusterName = text(1..=NAME_BYTES_MAX, NAME), "demo";
    /// A host and a port.
    Address = text(3..=ADDRESS_BYTES_MAX, r"^[!-~]+:[0-9]+$"), "127.0.0.1:7071";
    /// An entry of the log, counted from its beginning.
    LogIndex = at_least(0), 4711;
    /// Raft's term: it rises with each election.
    Term = at_least(0), 3;
    /// The run of a process, in hexadecimal.
    Boot = text(1..=32, "^[0-9a-f]+$"), "9f86d081884c7d65";
    /// Some of the 4096 partitions of all tenants.
    Partitions = at_least(0), 1366;
    /// The members, by their number.
    Members [Member] = ArrayBuilder::new().items(reference::<Member>()).max_items(Some(NODES_MAX)),
        [{"id": "n1", "number": 1, "http": "127.0.0.1:7071", "peer": "127.0.0.1:7171", "state": "up", "voter": true,
          "leader": true, "boot": "9f86d081884c7d65", "partitions": 1366, "replicas": 1365}];
    /// What is unwise about the cluster as it is, in whole sentences.
    Warnings [Warning] = ArrayBuilder::new().items(reference::<Warning>()), ["of two nodes only n1 votes"];
    /// A sentence.
    Warning = super::words::of_format("sentence"), "of two nodes only n1 votes";
    /// The breakers of the links to all other nodes.
    Breakers [Breaker] = ArrayBuilder::new().items(reference::<Breaker>()).max_items(Some(NODES_MAX)),
        [{"id": "n2", "state": "open", "failures": 5, "opened": 1, "retry_after_ms": 250, "connected": false,
          "why": "connection refused"}];
}

/// How the cluster stands, as this node sees it.
#[derive(ToSchema)]
pub struct ClusterView {
    /// What it is called.
    name: ClusterName,
    /// The node that says so.
    node: NodeId,
    /// Who leads, as far as this node knows and as long as it hears of a majority; null if it doesn't.
    #[schema(required)]
    leader: Option<NodeId>,
    /// The term it is in.
    term: Term,
    /// The last entry that this node has applied.
    applied: LogIndex,
    /// Since it last knew that a majority is with it; null if it never did.
    #[schema(required)]
    contact_ms: Option<Millis>,
    /// Whether that is recent enough for a leader to be there.
    #[schema(examples(true))]
    quorum: bool,
    /// The version of the policy in force on this node; 0 before the cluster has begun.
    #[schema(examples(12), minimum = 0)]
    policy_version: u64,
    /// The entry that last changed which node owns what; null before anything is placed.
    #[schema(required)]
    placement_version: Option<LogIndex>,
    /// The nodes.
    nodes: Members,
    /// What to look at; empty is well.
    warnings: Warnings,
}

/// One node of the cluster.
#[derive(ToSchema)]
pub struct Member {
    /// What it is called.
    id: NodeId,
    /// Its number in the log, never given again.
    #[schema(examples(1), minimum = 1)]
    number: u64,
    /// Where people and programs reach it.
    http: Address,
    /// Where the other nodes reach it; null for a node alone.
    #[schema(required)]
    peer: Option<Address>,
    /// How this node sees it.
    state: MemberState,
    /// Whether it votes; else it only gets the log.
    #[schema(examples(true))]
    voter: bool,
    /// Whether it leads.
    #[schema(examples(true))]
    leader: bool,
    /// The run of its process that owns its partitions; null where it has none yet.
    #[schema(required)]
    boot: Option<Boot>,
    /// Those that it owns.
    partitions: Partitions,
    /// Those whose replica it is to keep.
    replicas: Partitions,
}

/// It is this node, or there is a connection to it; it is up and to own nothing any more; there is no connection to it.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("up"))]
pub enum MemberState {
    Up,
    Draining,
    Unreachable,
}

/// The breakers of one node.
#[derive(ToSchema)]
pub struct BreakerList {
    /// The node whose they are.
    node: NodeId,
    /// By peer.
    breakers: Breakers,
}

/// The breaker of the link to one peer.
#[derive(ToSchema)]
pub struct Breaker {
    /// The peer.
    id: NodeId,
    /// What it does with calls.
    state: BreakerState,
    /// Failures in a row.
    #[schema(examples(0), minimum = 0)]
    failures: u32,
    /// How often it has opened since the process began.
    #[schema(examples(0), minimum = 0)]
    opened: u64,
    /// Until it lets a call through again; null unless it is open.
    #[schema(required)]
    retry_after_ms: Option<Millis>,
    /// Whether there is a connection.
    #[schema(examples(true))]
    connected: bool,
    /// Why there is none, or why the last call failed; null if nothing did.
    #[schema(required, examples("connection refused"))]
    why: Option<String>,
}

/// Lets all pass; none; one, to see.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("closed"))]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// A breaker that was reset.
#[derive(ToSchema)]
pub struct BreakerReset {
    /// The peer.
    id: NodeId,
    /// Always true.
    #[schema(examples(true))]
    reset: bool,
}

/// The calls.
pub fn calls() -> Vec<Call> {
    vec![
        Call::new(Get, "/v1/cluster", "getCluster", CLUSTER)
            .open_to(Access::See)
            .does(
                "See how the cluster stands",
                "One node's word: another may reach whom this one doesn't, and that is often what is looked for.",
            )
            .answers(200, Answer::json::<ClusterView>("How it stands.")),
        Call::new(Get, "/v1/cluster/breakers", "listBreakers", CLUSTER)
            .open_to(Access::See)
            .does(
                "See the breakers of this node's links",
                "While one is open, nothing is sent to that peer.",
            )
            .answers(200, Answer::json::<BreakerList>("The breakers.")),
        Call::new(Post, "/v1/cluster/breakers/{id}/reset", "resetBreaker", CLUSTER)
            .open_to(Access::Change)
            .does("Close a breaker", "The next call to that peer is tried. On this node alone.")
            .part::<NodeId>("id", "The peer.")
            .answers(200, Answer::json::<BreakerReset>("It is closed."))
            .fails(&[404]),
    ]
}
