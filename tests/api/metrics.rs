//! `/metrics`: what Prometheus reads is well-formed, and the numbers are those of the checks that
//! were made.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::rig::needs;
use crate::support::{self, Node, Request, Setup, node, unix_seconds};

/// Three an hour for everybody, ten units for `pro`, and shadows that would deny at once.
const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [
    { name = "rate", algorithm = "token_bucket", rate = "1/h", burst = 3 },
    { name = "trial", algorithm = "token_bucket", rate = "1/h", burst = 1, enforce = false },
]
[tiers.pro]
max_concurrent = 2
limits = [{ name = "address", per = ["ip"], algorithm = "fixed_window", limit = 10, window = "520w" }]
[tenants.globex]
tier = "pro"
[access.office]
list = "allow"
ip = "192.0.2.0/24"
[access.banned]
list = "deny"
tenant = "mallory"
"#;

/// The values of a scrape, by their series as written: `name{label="value"}`.
struct Scraped(BTreeMap<String, f64>);

impl Scraped {
    fn of(node: &Node) -> Self {
        let text = scrape(node);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut values = BTreeMap::new();
        for line in lines {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let twice = values.insert(series.to_string(), value.parse().unwrap());
            assert_eq!(twice, None, "{series} is there twice");
        }
        Self(values)
    }

    fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// All series of a metric.
    fn series(&self, metric: &str) -> Vec<(&str, f64)> {
        let of = |series: &str| series == metric || series.starts_with(&format!("{metric}{{"));
        self.0
            .iter()
            .filter(|(series, _)| of(series))
            .map(|(series, value)| (series.as_str(), *value))
            .collect()
    }

    fn sum(&self, metric: &str) -> f64 {
        self.series(metric).into_iter().map(|(_, value)| value).sum()
    }
}

fn scrape(node: &Node) -> String {
    let answer = node.get("/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4"));
    answer.body
}

/// A node with something in every metric.
fn worked() -> Node {
    let node = node(POLICY);
    assert_eq!(node.allowed_of(5, json!({"tenant": "acme"})), 3);
    let permit =
        json!({"tenant": "globex", "ip": "198.51.100.1", "cost": 4, "permit": {"ttl_ms": 60_000}});
    assert_eq!(node.allowed_of(4, permit), 2);
    assert_eq!(
        node.check(json!({"tenant": "globex", "ip": "198.51.100.1", "cost": 11}))["allowed"],
        false
    );
    node.check(json!({"tenant": "initech", "ip": "192.0.2.7"}));
    node.check(json!({"tenant": "mallory"}));
    for _ in 0..3 {
        node.check(json!({"tenant": "hooli", "request_id": "r-1"}));
    }
    node.peek(json!({"tenant": "acme"}));
    node.post("/v1/check", json!({"tenant": "acme", "tier": "none-such"})).problem(422);
    let batch = json!({"checks": [{"tenant": "hooli"}, {"tenant": "mallory"}]});
    assert_eq!(node.post("/v1/check/batch", batch).status, 200);
    node
}

#[test]
fn what_is_scraped_passes_promtool_with_nothing_to_say() {
    let Some(promtool) = needs("promtool") else { return };
    let text = scrape(&worked());
    let mut promtool = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}

#[test]
fn alert_rules_pass_their_unit_tests() {
    let Some(promtool) = needs("promtool") else { return };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    for words in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let ran = Command::new(&promtool).args(words).current_dir(folder).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{words:?}: {said}");
    }
}

/// The metrics that the README lists, without `process_*`.
fn documented() -> BTreeSet<String> {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let names = docs.split('`').filter(|word| word.starts_with("tidegate_"));
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    names.filter(|name| name.chars().all(is_part)).map(String::from).collect()
}

#[test]
fn every_family_in_the_docs_is_printed_from_the_start() {
    let text = scrape(&node("default_tier = \"free\"\n[tiers.free]\n"));
    let families =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE tidegate_")?.split_once(' '));
    let printed: BTreeSet<_> = families.map(|(name, _)| format!("tidegate_{name}")).collect();
    // A node that is alone has no links to other nodes, and without [tls] no certificates.
    let of_others = |name: &String| {
        name.starts_with("tidegate_peer_") || name.starts_with("tidegate_certificate_")
    };
    let documented: BTreeSet<_> =
        documented().into_iter().filter(|name| !of_others(name)).collect();
    assert_eq!(printed, documented);
}

#[test]
fn alerts_name_documented_metrics_and_each_has_a_unit_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    let alerts = std::fs::read_to_string(format!("{folder}/alerts.yml")).unwrap();
    let tests = std::fs::read_to_string(format!("{folder}/alerts_test.yml")).unwrap();
    let words = alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics: BTreeSet<_> = words.filter(|word| word.starts_with("tidegate_")).collect();
    assert!(metrics.len() > 8, "{metrics:?}");
    let documented = documented();
    for metric in metrics {
        let family = metric.strip_suffix("_bucket").unwrap_or(metric);
        assert!(documented.contains(family), "README.md lists no {family}");
    }
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {name}\n")), "no unit test of {name}");
    }
}

#[test]
fn the_counts_are_those_of_the_checks_that_were_made() {
    let m = Scraped::of(&worked());
    for (series, expected) in [
        (r#"tidegate_decisions_total{decision="allowed",tier="free",mode="exact"}"#, 3.0 + 2.0),
        (r#"tidegate_decisions_total{decision="denied",tier="free",mode="exact"}"#, 2.0),
        (r#"tidegate_decisions_total{decision="allowed",tier="pro",mode="exact"}"#, 2.0),
        (r#"tidegate_decisions_total{decision="denied",tier="pro",mode="exact"}"#, 3.0),
        (r#"tidegate_decisions_total{decision="allowed",tier="",mode="exact"}"#, 1.0),
        (r#"tidegate_decisions_total{decision="denied",tier="",mode="exact"}"#, 2.0),
        (r#"tidegate_denials_total{reason="rate",scope="tenant"}"#, 2.0),
        (r#"tidegate_denials_total{reason="cost_exceeds_capacity",scope="ip"}"#, 1.0),
        (r#"tidegate_denials_total{reason="deny_list",scope="tenant"}"#, 2.0),
        (r#"tidegate_list_decisions_total{list="allow"}"#, 1.0),
        (r#"tidegate_list_decisions_total{list="deny"}"#, 2.0),
        (r#"tidegate_tenant_decisions_total{tenant="acme",decision="allowed"}"#, 3.0),
        (r#"tidegate_tenant_decisions_total{tenant="acme",decision="denied"}"#, 2.0),
        (r#"tidegate_tenant_decisions_total{tenant="hooli",decision="allowed"}"#, 2.0),
        (r#"tidegate_tenant_decisions_total{tenant="_other",decision="allowed"}"#, 0.0),
        (r#"tidegate_refusals_total{reason="unknown_tier"}"#, 1.0),
        (r#"tidegate_peeks_total{decision="denied"}"#, 1.0),
        ("tidegate_replays_total", 2.0),
        // The second of three to acme, the other two denied; the second to hooli.
        ("tidegate_shadow_denials_total", 4.0 + 1.0),
        ("tidegate_cost_taken_total", 3.0 + 2.0 * 4.0 + 2.0),
        ("tidegate_permits_granted_total", 2.0),
        ("tidegate_permits", 2.0),
        ("tidegate_request_ids", 1.0),
        ("tidegate_active_tenants", 3.0),
        ("tidegate_tenants_folded", 0.0),
        // Two limits each of acme and hooli.
        ("tidegate_buckets", 4.0),
        ("tidegate_shared_buckets", 1.0),
        ("tidegate_open_checks", 0.0),
        ("tidegate_list_entries", 2.0),
        ("tidegate_policy_version", 1.0),
        ("tidegate_shards_silent", 0.0),
        ("tidegate_enforce", 1.0),
        ("tidegate_ready", 1.0),
        // It is its whole cluster.
        ("tidegate_raft_is_leader", 1.0),
        ("tidegate_quorum", 1.0),
        ("tidegate_voters", 1.0),
        (r#"tidegate_members{state="up"}"#, 1.0),
        (r#"tidegate_members{state="unreachable"}"#, 0.0),
        (r#"tidegate_partitions{role="owner"}"#, 4096.0),
        (r#"tidegate_forwarded_checks_total{result="answered"}"#, 0.0),
        (r#"tidegate_received_checks_total{result="decided"}"#, 0.0),
        // Eleven checks of their own, three of one id, and one that got no decision.
        (r#"tidegate_decision_duration_seconds_count{call="check"}"#, 16.0),
        (r#"tidegate_decision_duration_seconds_count{call="peek"}"#, 1.0),
        (r#"tidegate_decision_duration_seconds_count{call="batch"}"#, 1.0),
        (r#"tidegate_decision_duration_seconds_bucket{call="check",le="+Inf"}"#, 16.0),
    ] {
        assert_eq!(m.get(series), expected, "{series} in {:#?}", m.0);
    }
    assert_eq!(m.sum("tidegate_decisions_total"), 15.0);
    assert_eq!(m.sum("tidegate_denials_total"), 7.0);
    // Those two of acme wait an hour or less; two of globex ten years or less, and whoever can't
    // ever pass doesn't wait.
    assert_eq!(m.get("tidegate_block_duration_seconds_count"), 4.0);
    assert_eq!(m.get(r#"tidegate_block_duration_seconds_bucket{le="3600"}"#), 2.0);
    assert!(m.get("process_resident_memory_bytes") > 0.0);
    assert_eq!(m.series("tidegate_build_info").len(), 1);
    for there in
        ["tidegate_uptime_seconds", "tidegate_raft_term", "tidegate_quorum_contact_age_seconds"]
    {
        assert!(m.0.contains_key(there), "{there} in {:#?}", m.0);
    }
    assert_eq!(m.series("tidegate_peer_breaker_state"), []);
}

#[test]
fn requests_refused_for_host_or_origin_are_counted() {
    let node = node(POLICY);
    let refused = |reason: &str| {
        Scraped::of(&node).get(&format!("tidegate_requests_refused_total{{reason=\"{reason}\"}}"))
    };
    assert_eq!((refused("host"), refused("origin")), (0.0, 0.0));
    let ask = |name: &str, value: &str| {
        node.client().send(&Request::new("GET", "/v1/policy").header(name, value)).status
    };
    assert_eq!(ask("origin", "https://evil.example"), 403);
    assert_eq!(ask("sec-fetch-site", "cross-site"), 403);
    let rebound = b"GET /v1/policy HTTP/1.1\r\nhost: evil.example\r\n\r\n";
    assert_eq!(node.client().send_raw(rebound).status, 421);
    // A Host that means nothing is a fault of the request, not of a page.
    let nonsense = b"GET /v1/policy HTTP/1.1\r\nhost: a b\r\n\r\n";
    assert_eq!(node.client().send_raw(nonsense).status, 400);
    assert_eq!((refused("host"), refused("origin")), (1.0, 2.0));
}

#[test]
fn a_permit_that_is_released_or_has_expired_is_out_no_longer() {
    let node = node("default_tier = \"free\"\n[tiers.free]\nmax_concurrent = 10\n");
    let permit = |ttl_ms: u64| {
        let decision = node.check(json!({"tenant": "acme", "permit": {"ttl_ms": ttl_ms}}));
        decision["permit"]["id"].as_str().unwrap().to_string()
    };
    let released = permit(60_000);
    permit(60_000);
    permit(1_000);
    assert_eq!(Scraped::of(&node).get("tidegate_permits"), 3.0);
    for _ in 0..2 {
        assert_eq!(node.delete(&format!("/v1/permits/{released}")).status, 204);
    }
    assert_eq!(Scraped::of(&node).get("tidegate_permits"), 2.0);
    support::wait_ms(1_100);
    node.check(json!({"tenant": "acme"}));
    assert_eq!(Scraped::of(&node).get("tidegate_permits"), 1.0);
}

#[test]
fn a_flood_of_tenants_adds_no_series_beyond_the_bound() {
    let node = Setup::policy("default_tier = \"free\"\n[tiers.free]\n")
        .section("[limits]\nworkers = 2")
        .start();
    let mut client = node.client();
    let batch = |tenants: Vec<String>| {
        let checks: Vec<_> = tenants.iter().map(|tenant| json!({"tenant": tenant})).collect();
        Request::new("POST", "/v1/check/batch").json(&json!({"checks": checks}))
    };
    let large = |n: usize| vec![format!("large-{n}"); 1_000];
    for n in 0..2 {
        assert_eq!(client.send(&batch(large(n))).status, 200);
    }
    for flood in 0..5 {
        let tenants = (0..1_000).map(|i| format!("flood-{flood}-{i}")).collect();
        assert_eq!(client.send(&batch(tenants)).status, 200);
    }
    let m = Scraped::of(&node);
    assert_eq!(m.sum("tidegate_decisions_total"), 7_000.0);
    let series = m.series("tidegate_tenant_decisions_total");
    assert!(series.len() <= 2 * (100 + 1), "{}", series.len());
    for tenant in ["large-0", "large-1"] {
        let allowed =
            format!(r#"tidegate_tenant_decisions_total{{tenant="{tenant}",decision="allowed"}}"#);
        assert_eq!(m.get(&allowed), 1_000.0);
    }
    let others = m.get(r#"tidegate_tenant_decisions_total{tenant="_other",decision="allowed"}"#);
    assert!((4_900.0..=5_000.0).contains(&others), "{others}");
    let named = series.len() as f64 / 2.0 - 1.0;
    assert_eq!(m.get("tidegate_tenants_folded"), m.get("tidegate_active_tenants") - named);
}

#[test]
fn tenants_and_tiers_that_are_called_like_the_others_make_no_second_series() {
    let node = node("default_tier = \"_other\"\n[tiers._other]\n");
    for tenant in ["_other", "_other", "acme"] {
        node.check(json!({"tenant": tenant}));
    }
    let m = Scraped::of(&node);
    assert_eq!(
        m.get(r#"tidegate_tenant_decisions_total{tenant="_other",decision="allowed"}"#),
        2.0
    );
    assert_eq!(
        m.get(r#"tidegate_decisions_total{decision="allowed",tier="_other",mode="exact"}"#),
        3.0
    );
}

#[test]
fn decisions_of_a_bucket_that_stands_in_beyond_a_cap_are_counted_as_approximate() {
    let policy = r#"
        default_tier = "free"
        [tiers.free]
        limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/h", burst = 2 }]
    "#;
    let node = Setup::policy(policy).section("[limits]\nworkers = 1\nunknown_tenants = 1").start();
    for tenant in ["first", "second", "third", "fourth"] {
        node.check(json!({"tenant": tenant}));
    }
    let m = Scraped::of(&node);
    let count = |decision, mode| {
        m.get(&format!(
            r#"tidegate_decisions_total{{decision="{decision}",tier="free",mode="{mode}"}}"#
        ))
    };
    assert_eq!((count("allowed", "exact"), count("denied", "exact")), (1.0, 0.0));
    assert_eq!((count("allowed", "approximate"), count("denied", "approximate")), (2.0, 1.0));
}

#[test]
fn a_check_in_a_batch_of_all_or_nothing_is_a_decision_of_its_own() {
    let node = node(POLICY);
    let batch = |count: usize| {
        let checks = vec![json!({"tenant": "acme"}); count];
        node.post("/v1/check/batch", json!({"mode": "all_or_nothing", "checks": checks})).json()
    };
    assert_eq!(
        (batch(3)["allowed"].clone(), batch(2)["allowed"].clone()),
        (json!(true), json!(false))
    );
    let m = Scraped::of(&node);
    assert_eq!(
        m.get(r#"tidegate_decisions_total{decision="allowed",tier="free",mode="exact"}"#),
        3.0
    );
    assert_eq!(
        m.get(r#"tidegate_decisions_total{decision="denied",tier="free",mode="exact"}"#),
        2.0
    );
    assert_eq!(m.get("tidegate_cost_taken_total"), 3.0);
}

#[test]
fn open_connections_are_counted_while_they_are_open() {
    let node = node(POLICY);
    let open = |node: &Node| Scraped::of(node).get("tidegate_connections_open");
    let idle: Vec<_> = (0..5).map(|_| node.client()).collect();
    // One more is the scrape's own; those of earlier calls may take a moment to end.
    support::eventually("five are open, and one that asks", || open(&node) == 6.0);
    drop(idle);
    support::eventually("they are closed", || open(&node) == 1.0);
}

#[test]
fn readyz_tells_what_it_rests_on_when_asked_to() {
    let node = worked();
    assert_eq!((node.get("/readyz").body.as_str(), node.get("/readyz").status), ("ready\n", 200));
    let answer = node.get("/readyz?verbose");
    assert_eq!(answer.status, 200);
    let document = answer.json();
    assert_eq!(document["ready"], true);
    let checks = &document["checks"];
    for check in ["accepting", "leader", "log", "store", "shards"] {
        assert_eq!(checks[check]["ok"], true, "{check} in {document}");
    }
    assert_eq!(checks["store"]["policy_version"], 1);
    assert_eq!(checks["load"]["active_tenants"], 3);
    assert_eq!(checks["load"]["open_checks"], 0);
}

#[test]
fn caps_and_what_is_used_of_them_are_scraped_side_by_side() {
    let bounds = "[limits]\nkeys = 1_000\nshared_keys = 77\nunknown_tenants = 10";
    let node = Setup::policy(POLICY).section(bounds).start();
    for tenant in ["a", "b", "c", "globex"] {
        node.check(json!({"tenant": tenant, "ip": "198.51.100.1"}));
    }
    let m = Scraped::of(&node);
    for (cap, used, most) in [
        ("unknown_tenants", 3.0, 10.0),
        ("named_tenants", 1.0, 1_000_000.0),
        ("keys", 6.0, 1_000.0),
    ] {
        assert_eq!(m.get(&format!("tidegate_cap_used{{cap=\"{cap}\"}}")), used, "{cap}");
        assert_eq!(m.get(&format!("tidegate_cap{{cap=\"{cap}\"}}")), most, "{cap}");
    }
    assert_eq!(m.get("tidegate_cap{cap=\"shared_keys\"}"), 77.0);
    assert!(m.get("tidegate_cap_used{cap=\"connections\"}") >= 1.0);
}

#[test]
fn the_disk_and_the_clock_are_those_of_the_machine() {
    let m = Scraped::of(&node(POLICY));
    let (free, size) = (m.get("tidegate_disk_free_bytes"), m.get("tidegate_disk_size_bytes"));
    assert!(0.0 < free && free <= size, "{free} of {size}");
    let now = unix_seconds() as f64;
    assert!((m.get("tidegate_time_seconds") - now).abs() < 60.0);
    assert_eq!(m.series("tidegate_certificate_expiry_seconds"), []);
}
