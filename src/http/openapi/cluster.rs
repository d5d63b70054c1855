//! The cluster as one of its nodes sees it, and the breakers of that node's links.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::{Delete, Get, Post, Put};
use utoipa::openapi::schema::ArrayBuilder;

use super::call::{Access, Answer, Call, ETag};
use super::ops::NodeId;
use super::policy::{Differences, Flag, IfMatch, Pending, Unchanged, either};
use super::words::{Millis, NAME, Shown, at_least, components, form, reference, text, whole};
use crate::check::NAME_BYTES_MAX;
use crate::cluster::RECOVERIES_MAX;
use crate::config::{ADDRESS_BYTES_MAX, NODES_MAX, TOKENS_MAX};
use crate::net::ROUND_TRIP_MS_BOUNDS;
use crate::placement::WEIGHT_MAX;

/// The tag of these calls.
pub const CLUSTER: &str = "cluster";

components! {
    /// A version of the cluster's settings; 0 before the first value, while each node goes by its
    /// configuration.
    SettingsVersion = at_least(0), 2;
    /// The longest round trip between nodes in milliseconds; Raft's timers are multiples of it.
    RoundTripMs = whole(ROUND_TRIP_MS_BOUNDS), 200;
    /// Nodes that run with another round trip until they are restarted.
    AwaitingRestart [NodeId] = ArrayBuilder::new().items(reference::<NodeId>()).max_items(Some(NODES_MAX)), ["n1"];
    /// What a change of the settings answers: what was set, or with `dry_run` what would be.
    SettingsOutcome [SettingsSet, SettingsDryRun] = either::<SettingsSet, SettingsDryRun>(),
        {"version": 2, "round_trip_ms": 200, "restart": ["n1"], "pending": []};
    /// The name of the cluster.
    ClusterName = text(1..=NAME_BYTES_MAX, NAME), "demo";
    /// A host and a port.
    Address = text(3..=ADDRESS_BYTES_MAX, r"^[!-~]+:[0-9]+$"), "127.0.0.1:7071";
    /// A host and a port, of at most 256 bytes.
    Reached = form(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$", "host-and-port"), "127.0.0.1:7074";
    /// An entry of the log, counted from its beginning.
    LogIndex = at_least(0), 4711;
    /// Raft's term: it rises with each election.
    Term = at_least(0), 3;
    /// Drawn whenever the cluster is made anew: nodes speak with each other only under the same
    /// one.
    LineageNumber = text(16..=16, "^[0-9a-f]{16}$"), "9f86d081884c7d65";
    /// The numbers under which the cluster was made anew, newest first.
    LineageNumbers [LineageNumber] = ArrayBuilder::new().items(reference::<LineageNumber>()).max_items(Some(RECOVERIES_MAX)),
        ["9f86d081884c7d65"];
    /// The run of a process, in hexadecimal.
    Boot = text(1..=32, "^[0-9a-f]+$"), "9f86d081884c7d65";
    /// Some of the 4096 partitions of all tenants.
    Partitions = at_least(0), 1366;
    /// The members, by their number.
    Members [Member] = ArrayBuilder::new().items(reference::<Member>()).max_items(Some(NODES_MAX)),
        [{"id": "n1", "number": 1, "http": "127.0.0.1:7071", "peer": "127.0.0.1:7171", "state": "up", "waits_for": null,
          "voter": true, "leader": true, "boot": "9f86d081884c7d65", "partitions": 1366, "weight": 1}];
    /// What is unwise about the cluster as it is, in whole sentences.
    Warnings [Warning] = ArrayBuilder::new().items(reference::<Warning>()), ["of two nodes only n1 \
                                                                              votes"];
    /// A sentence.
    Warning = super::words::of_format("sentence"), "of two nodes only n1 votes";
    /// The members that a new node may speak with, itself among them.
    Acquaintances [Acquaintance] = ArrayBuilder::new().items(reference::<Acquaintance>()).max_items(Some(NODES_MAX)),
        [{"id": "n1", "number": 1, "peer": "127.0.0.1:7171"}];
    /// The tokens of the node that answered, without their secrets; none where anybody may do
    /// everything.
    Tokens [TokenDigest] = ArrayBuilder::new().items(reference::<TokenDigest>()).max_items(Some(TOKENS_MAX)),
        [{"name": "admin-1", "role": "admin", "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}];
    /// The keys by which the nodes know each other: the new node keeps them. None where the cluster
    /// has none, or no tokens.
    PeerKeys [PeerKey] = ArrayBuilder::new().items(reference::<PeerKey>()).max_items(Some(64)), [];
    /// A key that is derived from a secret, in hexadecimal.
    PeerKey = text(64..=64, "^[0-9a-f]{64}$"), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    /// The SHA-256 of a secret, in hexadecimal.
    Sha256 = text(64..=64, "^[0-9a-f]{64}$"), "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    /// The number of a member in the log, never given again.
    Number = at_least(1), 57;
    /// How much of the load a node takes, beside the others; with 0 it owns nothing.
    Weight = whole(0..=u64::from(WEIGHT_MAX)), 2;
    /// From one node to another, by their names.
    Moves [Flow] = ArrayBuilder::new().items(reference::<Flow>()).max_items(Some(NODES_MAX * NODES_MAX)),
        [{"from": "n1", "to": "n4", "moving": 64, "waiting": 277}];
    /// What keeps a node that is drained or leaves, in words.
    WaitsFor = super::words::of_format("sentence"), "1365 partitions are to be handed over";
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
    /// Numbers that were drawn as the cluster was recovered or restored, newest first; none if it
    /// never was.
    lineage: LineageNumbers,
    /// Who leads, as far as this node knows and as long as it hears of a majority; null if it
    /// doesn't.
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
    /// How long messages between this node and a majority of the voters take, there and back; null
    /// where too few of them are connected.
    #[schema(required)]
    round_trip_ms: Option<Millis>,
    /// The most that the cluster's timers allow.
    round_trip_ms_max: Millis,
    /// What operators have set for all nodes.
    settings: ClusterSettings,
    /// The version of the policy in force on this node; 0 before the cluster has begun.
    #[schema(examples(12), minimum = 0)]
    policy_version: u64,
    /// Whether limits deny; false while the policy's kill switch is thrown.
    #[schema(examples(true))]
    enforce: bool,
    /// The entry that last changed which node owns what; null before anything is placed.
    #[schema(required)]
    placement_version: Option<LogIndex>,
    /// The nodes.
    nodes: Members,
    /// What moves; empty where every partition is where it should be.
    moves: Moves,
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
    /// What keeps it from being drained or gone; null where nothing does.
    #[schema(required)]
    waits_for: Option<WaitsFor>,
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
    /// How much of the load it takes: of nodes of weight 1 and 2, one third and two.
    weight: Weight,
}

/// Partitions that move from one node to another.
#[derive(ToSchema)]
pub struct Flow {
    /// Who owns them.
    from: NodeId,
    /// Who is to own them.
    to: NodeId,
    /// Those on their way.
    moving: Partitions,
    /// Those that are still to begin.
    waiting: Partitions,
}

/// How much of the load a node is to take.
#[derive(ToSchema)]
#[schema(examples(json!({"weight": 2})))]
#[serde(deny_unknown_fields)]
pub struct NewWeight {
    /// How much.
    weight: Weight,
}

/// It is this node, or there is a connection to it; it is up and to own nothing any more; it is to
/// be no member any more; there is no connection to it.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("up"))]
pub enum MemberState {
    Up,
    Draining,
    Leaving,
    Unreachable,
}

/// A node that wants to become a member.
#[derive(ToSchema)]
#[schema(examples(json!({"id": "n4", "http": "127.0.0.1:7074", "peer": "127.0.0.1:7174"})))]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// What it is called; no member has that name.
    id: NodeId,
    /// Where people and programs reach it.
    http: Reached,
    /// Where the other nodes reach it. It has to answer there already.
    peer: Reached,
    /// How much of the load it is to take; 1 where nothing is said.
    weight: Option<Weight>,
}

/// What a node that was admitted needs to begin.
#[derive(ToSchema)]
pub struct Admission {
    /// What it is called.
    id: NodeId,
    /// Its number.
    number: Number,
    /// Where people and programs reach it.
    http: Address,
    /// Where the other nodes reach it.
    peer: Address,
    /// What the cluster is called.
    cluster: ClusterName,
    /// Which of the policy's environments the node that answered runs in.
    #[schema(examples("production"))]
    environment: String,
    /// The round trip that its timers are to allow, as the log says; null where the log says none
    /// yet.
    #[schema(required)]
    round_trip_ms: Option<RoundTripMs>,
    /// Whom it may speak with.
    members: Acquaintances,
    /// Who may do what.
    tokens: Tokens,
    /// The keys by which the nodes know each other.
    peer_keys: PeerKeys,
}

/// A member that a new node may speak with.
#[derive(ToSchema)]
pub struct Acquaintance {
    /// What it is called.
    id: NodeId,
    /// Its number.
    number: Number,
    /// Where the other nodes reach it.
    #[schema(required)]
    peer: Option<Address>,
}

/// A token, without its secret.
#[derive(ToSchema)]
pub struct TokenDigest {
    /// By which logs and the audit know it.
    #[schema(examples("admin-1"))]
    name: String,
    /// What it may do.
    role: TokenRole,
    /// By which its secret is known.
    sha256: Sha256,
}

/// Decide; see; do all.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("admin"))]
pub enum TokenRole {
    Check,
    Read,
    Admin,
}

/// The cluster's settings.
#[derive(ToSchema)]
#[schema(examples(json!({"version": 1, "round_trip_ms": 100, "restart": []})))]
pub struct ClusterSettings {
    /// Their version.
    version: SettingsVersion,
    /// The round trip that Raft's timers are to allow; null at version 0.
    #[schema(required)]
    round_trip_ms: Option<RoundTripMs>,
    /// Who uses it only after a restart.
    restart: AwaitingRestart,
}

/// New values of the cluster's settings.
#[derive(ToSchema)]
#[schema(examples(json!({"round_trip_ms": 200})))]
#[serde(deny_unknown_fields)]
pub struct NewSettings {
    /// The round trip that Raft's timers are to allow.
    round_trip_ms: RoundTripMs,
}

/// A change of the settings that was made.
#[derive(ToSchema)]
#[schema(examples(json!({"version": 2, "round_trip_ms": 200, "restart": ["n1"], "pending": []})))]
pub struct SettingsSet {
    /// The version it made; where it changed nothing, the version that there is.
    version: SettingsVersion,
    /// The round trip that Raft's timers are to allow.
    round_trip_ms: RoundTripMs,
    /// Who uses it only after a restart.
    restart: AwaitingRestart,
    /// Who hasn't written it down yet.
    pending: Pending,
    /// True where the settings said this already, so that no version was made; else absent.
    #[schema(nullable = false)]
    unchanged: Option<Unchanged>,
}

/// What a change of the settings would change. Nothing was set.
#[derive(ToSchema)]
#[schema(examples(json!({"dry_run": true, "version": 1, "changes": []})))]
pub struct SettingsDryRun {
    /// Always true.
    #[schema(examples(true))]
    dry_run: bool,
    /// The version it was compared with.
    version: SettingsVersion,
    /// What differs.
    changes: Differences,
}

/// How a node stands that is drained or leaves.
#[derive(ToSchema)]
pub struct MemberProgress {
    /// What it is called.
    id: NodeId,
    /// Its number.
    number: Number,
    /// How this node sees it.
    state: ProgressState,
    /// Whether it votes.
    #[schema(examples(true))]
    voter: bool,
    /// Those that it still owns.
    partitions: Partitions,
    /// How much of the load it takes.
    weight: Weight,
    /// What keeps it; null where nothing does.
    #[schema(required)]
    waits_for: Option<WaitsFor>,
}

/// As of a member; or it is none any more.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("leaving"))]
pub enum ProgressState {
    Up,
    Draining,
    Leaving,
    Unreachable,
    Gone,
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

/// An answer with the version of the settings.
fn settings(answer: Answer) -> Answer {
    answer.header::<ETag>(
        "ETag",
        "The version of the settings, for `If-Match`; absent from a dry run.",
    )
}

/// The calls.
pub fn calls() -> Vec<Call> {
    vec![
        Call::new(Get, "/v1/cluster", "getCluster", CLUSTER)
            .open_to(Access::See)
            .does(
                "See how the cluster stands",
                "One node's word: another may reach whom this one doesn't, and that is often what \
                 is looked for.",
            )
            .answers(200, Answer::json::<ClusterView>("How it stands.")),
        Call::new(Get, "/v1/cluster/settings", "getSettings", CLUSTER)
            .open_to(Access::See)
            .does(
                "See the cluster's settings",
                "They hold for all nodes and have a version of their own.",
            )
            .answers(200, settings(Answer::json::<ClusterSettings>("The settings."))),
        Call::new(Put, "/v1/cluster/settings", "putSettings", CLUSTER)
            .open_to(Access::Change)
            .does(
                "Change the cluster's settings",
                "`round_trip_ms` scales Raft's timers, which are fixed when a process starts: each \
                 node uses the new value from its next start on, and `restart` names those that \
                 run with another one. `[cluster] round_trip_ms` counts only when a cluster is \
                 founded.",
            )
            .query::<Flag>(
                "dry_run",
                "Whether to answer with what would change, and change nothing.",
            )
            .header::<IfMatch>(
                "If-Match",
                "The version of the settings that the change was made for.",
            )
            .takes::<NewSettings>("The new values.")
            .answers(200, settings(Answer::json::<SettingsOutcome>("It is set, or would be.")))
            .fails(&[409, 412, 422]),
        Call::new(Get, "/v1/cluster/backup", "backUp", CLUSTER)
            .open_to(Access::Change)
            .does(
                "Back the cluster up",
                "One file with the policy and its history, the lists, the audit log, the members, \
                 and what was counted of quotas and of windows of an hour or longer; `tidegate \
                 cluster restore` makes a cluster anew of it. It takes the role `admin`: the \
                 secret of the cluster's hashes is in it. A node without `[auth]` gives none: 403. \
                 Where not everybody can be asked for what he has counted, or partitions are \
                 moving, there is none: 503.",
            )
            .query::<Flag>(
                "partial",
                "Whether what can be had is enough. The file says what is missing.",
            )
            .answers(200, Answer::text("The file.", "application/octet-stream", "TGBACKUP…"))
            .fails(&[500, 503]),
        Call::new(Post, "/v1/cluster/nodes", "admitNode", CLUSTER)
            .open_to(Access::Change)
            .does(
                "Admit a node",
                "It becomes a member that gets the log, owns its share of the partitions once it \
                 is there, and votes where that is of use. It has to answer at its peer address \
                 already, as `tidegate serve --join` does. Asked again for a node that hasn't been \
                 there yet, with the same addresses, the answer is the same.",
            )
            .takes::<NewNode>("The node.")
            .answers(201, Answer::json::<Admission>("It is admitted."))
            .answers(
                200,
                Answer::json::<Admission>("It was admitted before, and has never been there."),
            )
            .fails(&[422]),
        Call::new(Delete, "/v1/cluster/nodes/{id}", "removeNode", CLUSTER)
            .open_to(Access::Change)
            .does(
                "Have a node leave",
                "It hands over what it owns, gives its vote back, and is a member no more; its \
                 process ends then. `GET /v1/cluster` shows how far that has come. With `force` a \
                 node that is gone is given up: what it owned begins elsewhere as if everything \
                 had been taken.",
            )
            .part::<NodeId>("id", "The node.")
            .query::<Flag>(
                "force",
                "Whether it is given up; only where it hasn't been heard of for five seconds.",
            )
            .answers(202, Answer::json::<MemberProgress>("It is leaving."))
            .fails(&[404, 409, 422]),
        Call::new(Post, "/v1/cluster/nodes/{id}/drain", "drainNode", CLUSTER)
            .open_to(Access::Change)
            .does(
                "Drain a node",
                "It hands over what it owns, is given nothing more, and stays a member.",
            )
            .part::<NodeId>("id", "The node.")
            .answers(202, Answer::json::<MemberProgress>("It is being drained."))
            .fails(&[404, 409, 422]),
        Call::new(Delete, "/v1/cluster/nodes/{id}/drain", "endDrain", CLUSTER)
            .open_to(Access::Change)
            .does(
                "End the draining of a node",
                "It may own partitions again. If it was leaving, it stays.",
            )
            .part::<NodeId>("id", "The node.")
            .answers(200, Answer::json::<MemberProgress>("It may own again."))
            .fails(&[404, 422]),
        Call::new(Put, "/v1/cluster/nodes/{id}/weight", "weighNode", CLUSTER)
            .open_to(Access::Change)
            .does(
                "Set a node's weight",
                "It takes so much of the load beside the others, once partitions have moved. With \
                 0 it owns nothing and answers all the same.",
            )
            .part::<NodeId>("id", "The node.")
            .takes::<NewWeight>("The weight.")
            .answers(200, Answer::json::<MemberProgress>("It has that weight."))
            .fails(&[404, 409, 422]),
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
