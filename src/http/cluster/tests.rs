//! `/v1/cluster` over a cluster of which nothing is real.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::actor::mailboxes;
use crate::check::Name;
use crate::clock::{ManualClock, Now, SECOND};
use crate::cluster::backup::{BackUp, BackUpError, BackingUp};
use crate::cluster::handoff::HandOffs;
use crate::cluster::links::{Links, LinksArgs};
use crate::cluster::state::{Leaving, LogIndex, NewMember, Setting};
use crate::cluster::{
    Administering, AuditEntry, Denied, Granted, InForce, Looking, Membership, NodeState, Noting,
    Order, PastVersion, PolicyStore, Proposal, Readiness, RoundTrip, SetOutcome, SettingChange,
    SettingLater, SettingsStatus, WriteError, Writing,
};
use crate::config::{ForwardAuth, Limits, Role, Token};
use crate::http::{Tokens, routes};
use crate::net::Plain;
use crate::peer::{Identity, Lineage, VERSIONS};
use crate::placement::{BootId, NodeId, Seat, Secret, Weight};
use crate::policy::{Document, Policy};
use crate::random::Seed;
use crate::routing::{Forwarder, ForwarderArgs, Router};
use crate::telemetry::{DiskProbe, Telemetry};
use bytes::Bytes;

/// A cluster of two of which nothing is real.
struct Painted {
    readiness: Mutex<Readiness>,
    resets: Mutex<Vec<Name>>,
    orders: Mutex<Vec<Order>>,
    set: Mutex<Vec<SettingChange>>,
}

fn n(number: u64) -> Name {
    Name::new(&format!("n{number}")).unwrap()
}

impl Membership for Painted {
    fn status(&self) -> Looking<'_> {
        let node = |number: u64, state| NodeStatus {
            id: n(number),
            number,
            http: format!("127.0.0.1:707{number}"),
            peer: Some(format!("127.0.0.1:717{number}")),
            state,
            waits_for: (number == 2).then(|| "7 partitions are to be handed over".into()),
            voter: number == 1,
            leader: number == 1,
            boot: (number == 1).then(|| "00ff".into()),
            partitions: if number == 1 { 4089 } else { 7 },
            weight: 2,
        };
        Box::pin(async move {
            ClusterStatus {
                name: Name::new("demo").unwrap(),
                node: n(2),
                lineage: Lineage::of([0x9f86, 7]),
                leader: Some(n(1)),
                term: 7,
                applied: 123,
                contact_ms: None,
                quorum: false,
                round_trip: RoundTrip { ms: Some(42), allowed_ms: 115 },
                settings: self.settings(),
                policy_version: 12,
                enforce: false,
                placement_version: Some(9),
                nodes: vec![node(1, NodeState::Unreachable), node(2, NodeState::Draining)],
                moves: vec![MovesStatus { from: n(2), to: n(1), moving: 5, waiting: 2 }],
                warnings: vec!["of two nodes only n1 votes".into()],
            }
        })
    }

    fn breakers(&self) -> Vec<BreakerStatus> {
        vec![BreakerStatus {
            id: n(1),
            state: "open",
            failures: 5,
            opened: 2,
            retry_after_ms: Some(250),
            connected: false,
            why: Some("connection refused".into()),
        }]
    }

    fn handoffs(&self) -> HandOffs {
        HandOffs::default()
    }

    fn reset_breaker(&self, peer: &Name) -> bool {
        self.resets.lock().unwrap().push(peer.clone());
        *peer == n(1)
    }

    fn administer(&self, order: Order, by: String) -> Administering<'_> {
        let denied = match &order {
            Order::Leave { node, .. } if *node == n(1) => {
                Err(Denied::Unsafe("n1 is needed".into()))
            }
            Order::Leave { node, .. } if *node == n(9) => Err(Denied::NoSuchNode(n(9))),
            Order::Admit(new) if new.name == n(9) => {
                Err(Denied::Impossible { path: "peer".into(), detail: "nobody is there".into() })
            }
            Order::Drain { draining: false, .. } => Err(Denied::NoLeader),
            _ => Ok(Granted { node: NodeId(7), at: LogIndex(9), is_new: by == "anyone" }),
        };
        self.orders.lock().unwrap().push(order);
        Box::pin(async move { denied })
    }

    fn settings(&self) -> SettingsStatus {
        SettingsStatus { version: 3, round_trip_ms: Some(200), restart: vec![n(1)] }
    }

    fn set(&self, change: SettingChange) -> SettingLater<'_> {
        let SettingChange { setting: Setting::RoundTripMs(ms), .. } = change;
        let settings = SettingsStatus { version: 4, round_trip_ms: Some(ms), ..self.settings() };
        let outcome = match ms {
            200 => Ok(SetOutcome { settings: self.settings(), changed: false, pending: vec![] }),
            250 => Err(WriteError::StaleSettings { expected: 3, actual: 4 }),
            300 => Err(WriteError::NoLeader),
            _ => Ok(SetOutcome { settings, changed: true, pending: vec!["n2".into()] }),
        };
        self.set.lock().unwrap().push(change);
        Box::pin(async move { outcome })
    }

    fn readiness(&self) -> Readiness {
        self.readiness.lock().unwrap().clone()
    }
}

impl BackUp for Painted {
    fn back_up(&self, partial: bool) -> BackingUp<'_> {
        Box::pin(async move {
            match partial {
                true => Ok(Bytes::from_static(b"bytes")),
                false => Err(BackUpError::Missing(vec![n(1)])),
            }
        })
    }
}

impl PolicyStore for Painted {
    fn current(&self) -> Arc<Policy> {
        Arc::new(Policy::new(12, crate::policy::builtin(), None))
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn write(&self, _: Proposal) -> Writing<'_> {
        Box::pin(async { Err(WriteError::NoLeader) })
    }

    fn history(&self) -> Vec<PastVersion> {
        Vec::new()
    }

    fn document_at(&self, _: u64) -> Result<Document, WriteError> {
        Err(WriteError::NoLeader)
    }

    fn note(&self, _: String, _: String) -> Noting<'_> {
        Box::pin(async { Err(WriteError::NoLeader) })
    }
    fn audit(&self, _: Option<u64>, _: usize) -> Vec<AuditEntry> {
        Vec::new()
    }
}

/// The administrator's token of the tests that configure one.
const TOKEN: &str = "a-token-of-16-bytes-and-more";

fn app() -> (Arc<App>, Arc<Painted>) {
    app_with(&[])
}

fn app_with(tokens: &[Token]) -> (Arc<App>, Arc<Painted>) {
    let seed = Seed::from_number(1);
    let clock = Arc::new(ManualClock::at(Now { boot: SECOND, wall: 1_000_000 * SECOND }));
    let readiness = Mutex::new(Readiness::READY);
    let painted = Arc::new(Painted {
        readiness,
        resets: Mutex::default(),
        orders: Mutex::default(),
        set: Mutex::default(),
    });
    let boot = BootId(1);
    let in_force = Arc::new(InForce::new(
        Seat { node: NodeId(2), boot },
        Policy::new(12, crate::policy::builtin(), None),
    ));
    in_force.begin(Secret::new(1, 2));
    let us = Identity {
        cluster: Name::new("demo").unwrap(),
        node: n(2),
        boot,
        versions: VERSIONS,
        lineage: Lineage::default(),
        level: Default::default(),
    };
    let control = tokio::runtime::Handle::current();
    let links = Links::new(LinksArgs {
        us,
        guard: Default::default(),
        network: Plain::default(),
        clock: clock.clone(),
        seed: seed.clone(),
        control: control.clone(),
        workers: Vec::new(),
    });
    let (shards, _) = mailboxes(1);
    let forward = Arc::new(Forwarder::new(ForwarderArgs {
        shards: shards.clone(),
        in_force: in_force.clone(),
        links: Arc::new(links),
        clock: clock.clone(),
        router: n(2),
        boot,
        counts: Arc::default(),
    }));
    let app = App {
        node: "n2".into(),
        router: Router::new(shards, in_force, forward, clock.clone()),
        store: painted.clone(),
        cluster: painted.clone(),
        backups: painted.clone(),
        environment: Name::new("production").unwrap(),
        tokens: Arc::new(Tokens::new(tokens)),
        site: None,
        insecure_no_auth: false,
        peer_keys: vec![[0x5a; 32]],
        limits: Limits::default(),
        disk: Arc::new(DiskProbe::new(std::path::PathBuf::new())),
        tls: None,
        forward_auth: ForwardAuth::default(),
        ready: AtomicBool::new(true),
        telemetry: Arc::new(Telemetry::new(clock, seed.fork("request ids", 0), None)),
        control,
    };
    (Arc::new(app), painted)
}

/// Status and body of an answer.
async fn ask(app: &Arc<App>, method: &str, path: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("x-tidegate-token", TOKEN);
    let request = request.body(Body::empty()).unwrap();
    let answer = routes(app.clone()).oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn json_of(app: &Arc<App>, method: &str, path: &str) -> Value {
    let (status, body) = ask(app, method, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn the_cluster_is_shown_as_this_node_sees_it() {
    let (app, _) = app();
    let expected = json!({
        "name": "demo", "node": "n2", "lineage": ["0000000000009f86", "0000000000000007"], "leader": "n1", "term": 7, "applied": 123, "contact_ms": null,
        "quorum": false, "round_trip_ms": 42, "round_trip_ms_max": 115, "policy_version": 12,
        "settings": {"version": 3, "round_trip_ms": 200, "restart": ["n1"]},
        "enforce": false, "placement_version": 9,
        "nodes": [
            {"id": "n1", "number": 1, "http": "127.0.0.1:7071", "peer": "127.0.0.1:7171",
             "state": "unreachable", "waits_for": null, "voter": true, "leader": true, "boot": "00ff", "partitions": 4089,
             "weight": 2},
            {"id": "n2", "number": 2, "http": "127.0.0.1:7072", "peer": "127.0.0.1:7172",
             "state": "draining", "waits_for": "7 partitions are to be handed over", "voter": false,
             "leader": false, "boot": null, "partitions": 7, "weight": 2},
        ],
        "moves": [{"from": "n2", "to": "n1", "moving": 5, "waiting": 2}],
        "warnings": ["of two nodes only n1 votes"],
    });
    assert_eq!(json_of(&app, "GET", "/v1/cluster").await, expected);
}

#[tokio::test]
async fn breakers_are_shown_and_reset_by_the_name_of_the_peer() {
    let (app, painted) = app();
    let breaker = json!({"id": "n1", "state": "open", "failures": 5, "opened": 2, "retry_after_ms": 250,
        "connected": false, "why": "connection refused"});
    let expected = json!({"node": "n2", "breakers": [breaker]});
    assert_eq!(json_of(&app, "GET", "/v1/cluster/breakers").await, expected);
    let reset = json_of(&app, "POST", "/v1/cluster/breakers/n1/reset").await;
    assert_eq!(reset, json!({"id": "n1", "reset": true}));
    let (status, body) = ask(&app, "POST", "/v1/cluster/breakers/n9/reset").await;
    assert!(status == 404 && body.contains("there is no peer n9 of node n2"), "{status} {body}");
    assert_eq!(ask(&app, "POST", "/v1/cluster/breakers/a%20b/reset").await.0, 400);
    assert_eq!(*painted.resets.lock().unwrap(), [n(1), n(9)]);
}

#[tokio::test]
async fn a_back_up_that_would_lack_something_is_refused_unless_it_may() {
    let (app, _) = app_with(&[Token::new("a", Role::Admin, TOKEN)]);
    let (status, body) = ask(&app, "GET", "/v1/cluster/backup").await;
    let why = "what was counted by n1 can't be had; with partial the back-up is made without it";
    assert!(
        status == 503 && body.contains(why) && body.contains("urn:tidegate:problem:unreachable"),
        "{body}"
    );
    assert_eq!(ask(&app, "GET", "/v1/cluster/backup?partial").await, (200, "bytes".into()));
    assert_eq!(ask(&app, "GET", "/v1/cluster/backup?partial=perhaps").await.0, 400);
}

#[tokio::test]
async fn the_breakers_of_all_links_are_closed_in_one_call_under_another_systems_path() {
    let (app, painted) = app();
    let reset = json_of(&app, "POST", "/admin/ratelimit/circuit-breaker/reset").await;
    assert_eq!(reset, json!({"status": "reset", "node": "n2", "breakers": ["n1"]}));
    assert_eq!(*painted.resets.lock().unwrap(), [n(1)]);
}

#[tokio::test]
async fn a_node_is_ready_until_it_lacks_something_or_is_stopping() {
    let (app, painted) = app();
    let ready = Readiness::READY;
    let no_leader = "no leader with a majority: no contact with one";
    let n3 = vec![n(3)];
    for (stopping, readiness, word, word_for_checks) in [
        (false, ready.clone(), "ready", "ready"),
        (
            false,
            Readiness { recovered: false, ..ready.clone() },
            "log not applied",
            "log not applied",
        ),
        (false, Readiness { majority: false, ..ready.clone() }, no_leader, "ready"),
        (
            false,
            Readiness { started: false, waiting_for: n3, ..ready.clone() },
            "not connected to other owners yet: waiting for n3",
            "not connected to other owners yet: waiting for n3",
        ),
        (true, Readiness { majority: false, ..ready.clone() }, "stopping", "stopping"),
        (true, ready, "stopping", "stopping"),
    ] {
        app.ready.store(!stopping, Ordering::Relaxed);
        *painted.readiness.lock().unwrap() = readiness.clone();
        let status = |word| if word == "ready" { 200 } else { 503 };
        assert_eq!(ask(&app, "GET", "/readyz").await, (status(word), format!("{word}\n")));
        for (query, word) in [("for=checks", word_for_checks), ("for=everything", word)] {
            let asked = ask(&app, "GET", &format!("/readyz?{query}")).await;
            assert_eq!(asked, (status(word), format!("{word}\n")), "{query}");
        }
        let (told, health) = ask(&app, "GET", "/api/health").await;
        let health: Value = serde_json::from_str(&health).unwrap();
        let healthy = if word == "ready" { "healthy" } else { word };
        assert_eq!((told, &health["status"]), (status(word), &json!(healthy)));
        let (told, verbose) = ask(&app, "GET", "/readyz?verbose").await;
        let verbose: Value = serde_json::from_str(&verbose).unwrap();
        assert_eq!((told, &verbose["ready"]), (status(word), &json!(word == "ready")));
        let missing = if word == "ready" { Value::Null } else { json!(word) };
        assert_eq!(verbose["missing"], missing);
        let checks =
            ["accepting", "leader", "log", "started"].map(|check| &verbose["checks"][check]["ok"]);
        let expected = [!stopping, readiness.majority, readiness.recovered, readiness.started];
        assert_eq!(checks, expected.each_ref().map(|ok| json!(ok)).each_ref());
    }
    assert_eq!(ask(&app, "GET", "/readyz?for=writes").await.0, 400);
}

async fn send(app: &Arc<App>, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).body(body).unwrap();
    let answer = routes(app.clone()).oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_node_that_is_admitted_hears_all_that_it_needs_to_begin() {
    let (app, painted) = app();
    let body = json!({"id": "n7", "http": "127.0.0.1:7077", "peer": "127.0.0.1:7177"});
    let expected = json!({
        "id": "n7", "number": 7, "http": "127.0.0.1:7077", "peer": "127.0.0.1:7177", "cluster": "demo",
        "environment": "production", "tokens": [], "peer_keys": [], "round_trip_ms": 200,
        "members": [{"id": "n1", "number": 1, "peer": "127.0.0.1:7171"},
                    {"id": "n2", "number": 2, "peer": "127.0.0.1:7172"}],
    });
    assert_eq!(send(&app, "POST", "/v1/cluster/nodes", &body).await, (201, expected));
    let (name, http, peer) = (n(7), "127.0.0.1:7077".into(), "127.0.0.1:7177".into());
    let admit = Order::Admit(NewMember { name, http, peer, weight: Weight::ONE });
    assert_eq!(*painted.orders.lock().unwrap(), [admit]);
    for (body, status, why) in [
        (json!({"id": "n9", "http": "127.0.0.1:1", "peer": "127.0.0.1:2"}), 422, "nobody is there"),
        (
            json!({"id": "n8", "http": "198.51.100.7:1", "peer": "127.0.0.1:2"}),
            422,
            "without [auth]",
        ),
        (json!({"id": "n8", "http": "127.0.0.1:0", "peer": "127.0.0.1:2"}), 400, "http: "),
        (
            json!({"id": "n8", "http": "127.0.0.1:1", "peer": "127.0.0.1:1"}),
            422,
            "127.0.0.1:1 is the http address too",
        ),
        (json!({"id": "n8", "http": "127.0.0.1:1"}), 400, "peer: is required"),
        (
            json!({"id": "a b", "http": "127.0.0.1:1", "peer": "127.0.0.1:2", "wait": 2}),
            400,
            "id: ",
        ),
        (
            json!({"id": "n8", "http": "127.0.0.1:1", "peer": "127.0.0.1:2", "weight": 17}),
            400,
            "weight: ",
        ),
        (json!([]), 400, ""),
    ] {
        let (answered, problem) = send(&app, "POST", "/v1/cluster/nodes", &body).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(answered == status && detail.contains(why), "{body}: {answered} {detail}");
    }
}

#[tokio::test]
async fn the_settings_are_shown_and_set_by_their_own_version() {
    let (app, painted) = app();
    let path = "/v1/cluster/settings";
    let shown = json!({"version": 3, "round_trip_ms": 200, "restart": ["n1"]});
    assert_eq!(json_of(&app, "GET", path).await, shown);
    let put = async |ms: u64| send(&app, "PUT", path, &json!({"round_trip_ms": ms})).await;
    let set = json!({"version": 4, "round_trip_ms": 150, "restart": ["n1"], "pending": ["n2"]});
    assert_eq!(put(150).await, (200, set));
    let (status, unchanged) = put(200).await;
    assert_eq!((status, &unchanged["unchanged"]), (200, &json!(true)));
    let (status, stale) = put(250).await;
    let why = "the settings are at version 4, the change expects 3";
    assert_eq!((status, stale["detail"].as_str()), (412, Some(why)));
    assert_eq!(put(300).await.0, 503);
    let asked = |ms| SettingChange {
        setting: Setting::RoundTripMs(ms),
        expected: None,
        by: "anyone".into(),
    };
    assert_eq!(*painted.set.lock().unwrap(), [150, 200, 250, 300].map(asked));
}

#[tokio::test]
async fn a_setting_out_of_bounds_is_422_and_nonsense_400() {
    let (app, painted) = app();
    for (body, status, why) in [
        (json!({"round_trip_ms": 301}), 422, "round_trip_ms: is not from 50 to 300"),
        (json!({"round_trip_ms": 49}), 422, "round_trip_ms: is not from 50 to 300"),
        (json!({"round_trip_ms": -1}), 400, "round_trip_ms: "),
        (json!({"round_trip_ms": "200"}), 400, "round_trip_ms: "),
        (json!({"round_trip": 200}), 400, "unknown member; known are round_trip_ms"),
        (json!({}), 400, "round_trip_ms: is required"),
        (json!(200), 400, ""),
    ] {
        let (answered, problem) = send(&app, "PUT", "/v1/cluster/settings", &body).await;
        assert!(answered == status && problem.to_string().contains(why), "{body}: {problem}");
    }
    assert!(painted.set.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_dry_run_of_a_setting_says_what_would_change() {
    let (app, painted) = app();
    let path = "/v1/cluster/settings?dry_run";
    let (status, shown) = send(&app, "PUT", path, &json!({"round_trip_ms": 300})).await;
    let change = json!({"path": "round_trip_ms", "op": "change", "from": 200, "to": 300});
    assert_eq!((status, shown), (200, json!({"dry_run": true, "version": 3, "changes": [change]})));
    assert!(painted.set.lock().unwrap().is_empty());
}

#[tokio::test]
async fn if_match_of_the_settings_is_judged_before_the_body() {
    let (app, painted) = app();
    for (tag, status) in [("\"3\"", 400), ("*", 400), ("\"2\"", 412), ("\"12\"", 412), ("x", 412)] {
        let request = Request::builder().method("PUT").uri("/v1/cluster/settings");
        let request = request.header("if-match", tag).body(Body::from("nonsense")).unwrap();
        let answer = routes(app.clone()).oneshot(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{tag}");
        let etag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_string());
        assert_eq!(etag.as_deref(), (status == 412).then_some("\"3\""), "{tag}");
    }
    let request =
        Request::builder().method("PUT").uri("/v1/cluster/settings").header("if-match", "\"3\"");
    let request = request.body(Body::from("{\"round_trip_ms\":100}")).unwrap();
    assert_eq!(routes(app.clone()).oneshot(request).await.unwrap().status().as_u16(), 200);
    assert_eq!(painted.set.lock().unwrap()[0].expected, Some(3));
}

#[tokio::test]
async fn a_weight_is_a_number_up_to_sixteen() {
    let (app, painted) = app();
    for (body, status) in [
        (json!({"weight": 0}), 200),
        (json!({"weight": 16}), 200),
        (json!({"weight": 17}), 400),
        (json!({"weight": "2"}), 400),
        (json!({"weight": 2, "wait": true}), 400),
        (json!({}), 400),
        (json!(2), 400),
    ] {
        let (answered, stands) = send(&app, "PUT", "/v1/cluster/nodes/n2/weight", &body).await;
        assert_eq!(answered, status, "{body}: {stands}");
    }
    let weigh = |weight| Order::Weigh { node: n(2), weight: Weight::new(weight).unwrap() };
    assert_eq!(*painted.orders.lock().unwrap(), [weigh(0), weigh(16)]);
}

#[tokio::test]
async fn who_leaves_or_is_drained_is_shown_as_it_stands() {
    let (app, painted) = app();
    let stands = json!({"id": "n2", "number": 2, "state": "draining", "voter": false, "partitions": 7,
        "weight": 2, "waits_for": "7 partitions are to be handed over"});
    assert_eq!(
        send(&app, "DELETE", "/v1/cluster/nodes/n2", &Value::Null).await,
        (202, stands.clone())
    );
    assert_eq!(send(&app, "DELETE", "/v1/cluster/nodes/n2?force", &Value::Null).await.0, 202);
    assert_eq!(send(&app, "POST", "/v1/cluster/nodes/n2/drain", &Value::Null).await, (202, stands));
    // It has left already, as far as this node knows.
    let gone = json!({"id": "n3", "number": 7, "state": "gone", "voter": false, "partitions": 0, "weight": 0,
        "waits_for": null});
    assert_eq!(send(&app, "DELETE", "/v1/cluster/nodes/n3", &Value::Null).await, (202, gone));
    for (path, status, kind) in [
        ("n1", 409, "unsafe"),
        ("n9", 404, "not-found"),
        ("a%20b", 400, "bad-input"),
        ("n2?force=perhaps", 400, "bad-input"),
        ("n2/drain", 503, "no-leader"),
    ] {
        let (answered, problem) =
            send(&app, "DELETE", &format!("/v1/cluster/nodes/{path}"), &Value::Null).await;
        let expected = format!("urn:tidegate:problem:{kind}");
        assert_eq!((answered, &problem["type"]), (status, &json!(expected)), "{path}: {problem}");
    }
    let leave = |node, how| Order::Leave { node: n(node), how };
    let drain = |draining| Order::Drain { node: n(2), draining };
    let given = painted.orders.lock().unwrap();
    let expected = [
        leave(2, Leaving::HandingOver),
        leave(2, Leaving::Abandoned),
        drain(true),
        leave(3, Leaving::HandingOver),
        leave(1, Leaving::HandingOver),
        leave(9, Leaving::HandingOver),
        drain(false),
    ];
    assert_eq!(*given, expected);
}
