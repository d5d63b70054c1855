//! The policy over HTTP: read, replaced, edited part by part, and what survives a stop and a crash.

mod writes;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rig;
use crate::support::{
    self, Node, Request, Setup, eventually, instant_in_ms, limit, log, node, sent,
};

/// Two tiers, a tenant by name, a pattern.
const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "log", algorithm = "sliding_log", limit = 100, window = "1h" }]
[tiers.pro]
max_concurrent = 9
limits = [{ name = "log", algorithm = "sliding_log", limit = 1000, window = "1h" }]
[tiers.spare]
[[tier_patterns]]
pattern = "ent-*"
tier = "pro"
[tenants.acme]
tier = "pro"
"#;

fn document(node: &Node) -> Value {
    node.get("/v1/policy").json()
}

fn version(node: &Node) -> u64 {
    let answer = node.get("/v1/policy");
    answer.header("etag").trim_matches('"').parse().unwrap()
}

fn with_if_match(method: &str, path: &str, tag: &str, body: &Value) -> Request {
    Request::new(method, path).header("If-Match", tag).json(body)
}

// -------------------------------------------------------------------------------- the whole
// document

#[test]
fn the_policy_is_read_as_json_with_its_version_as_etag() {
    let node = node(POLICY);
    let answer = node.get("/v1/policy");
    assert_eq!(
        (answer.status, answer.header("etag"), answer.header("content-type")),
        (200, "\"1\"", "application/json")
    );
    assert_eq!(
        answer.json(),
        json!({
            "default_tier": "free",
            "tiers": {
                "free": {"limits": [{"name": "log", "per": ["tenant"], "algorithm": "sliding_log",
                                     "limit": 100, "window": "1h"}]},
                "pro": {"max_concurrent": 9,
                        "limits": [{"name": "log", "per": ["tenant"], "algorithm": "sliding_log",
                                     "limit": 1000, "window": "1h"}]},
                "spare": {"limits": []},
            },
            "tier_patterns": [{"pattern": "ent-*", "tier": "pro"}],
            "tenants": {"acme": {"tier": "pro"}},
        })
    );
}

#[test]
fn the_policy_is_read_as_toml_where_accept_says_so_and_means_the_same() {
    let node = node(POLICY);
    let toml = node.send(&Request::new("GET", "/v1/policy").header("accept", "application/toml"));
    assert_eq!((toml.header("content-type"), toml.header("etag")), ("application/toml", "\"1\""));
    let before = document(&node);
    let put = Request::new("PUT", "/v1/policy")
        .header("content-type", "application/toml")
        .body(toml.body);
    assert_eq!(node.send(&put).version(), 1);
    assert_eq!(document(&node), before);
}

#[test]
fn every_sample_policy_is_taken_as_it_is_and_as_the_node_prints_it() {
    let node = node(POLICY);
    for file in [
        "builtin.toml",
        "burst-and-sustained.toml",
        "metered-api.toml",
        "minute-and-hour-windows.toml",
        "multi-level.toml",
        "requests-per-minute.toml",
    ] {
        let put = |kind: &str, body: String| {
            node.send(&Request::new("PUT", "/v1/policy").header("content-type", kind).body(body))
                .version()
        };
        put("application/toml", support::sample(file));
        let printed = document(&node);
        put("application/json", printed.to_string());
        assert_eq!(document(&node), printed, "{file}");
    }
}

#[test]
fn a_put_replaces_the_whole_document_and_answers_with_its_version() {
    let node = node(POLICY);
    let answer = node.put("/v1/policy", json!({"default_tier": "only", "tiers": {"only": {}}}));
    assert_eq!(answer.version(), 2);
    assert_eq!(answer.json(), json!({"version": 2, "pending": []}));
    assert_eq!(document(&node), json!({"default_tier": "only", "tiers": {"only": {"limits": []}}}));
    let decision = node.check(json!({"tenant": "acme"}));
    assert_eq!(
        (&decision["policy_version"], &decision["tier"], &decision["limit"]),
        (&json!(2), &json!("only"), &json!("unlimited"))
    );
}

#[test]
fn a_write_for_another_version_is_412_whatever_its_body_and_says_which_there_is() {
    let node = node(POLICY);
    node.put("/v1/tiers/spare", json!({"max_concurrent": 2})).version();
    for (method, path) in [
        ("PUT", "/v1/policy"),
        ("PUT", "/v1/policy?dry_run=true"),
        ("PUT", "/v1/policy/enforce"),
        ("POST", "/v1/policy/rollback"),
        ("POST", "/v1/policy/rollback?dry_run=true"),
        ("PUT", "/v1/tiers/spare"),
        ("DELETE", "/v1/tiers/spare"),
        ("PUT", "/v1/tenants/acme"),
        ("DELETE", "/v1/tenants/acme"),
        ("PUT", "/v1/tenants/acme/limits/log"),
        ("DELETE", "/v1/tenants/acme/limits/log"),
    ] {
        for tag in ["\"1\"", "1", "\"3\"", "\"x\"", "W/\"2\""] {
            let answer = node
                .send(&Request::new(method, path).header("If-Match", tag).body("{ not even JSON"));
            answer.problem(412);
            assert_eq!(answer.header("etag"), "\"2\"", "{method} {path} {tag}");
        }
    }
    assert_eq!(version(&node), 2);
}

#[test]
fn a_write_for_the_current_version_or_for_any_is_made() {
    let node = node(POLICY);
    for (tag, expected) in [("\"1\"", 2), ("2", 3), ("*", 4), ("\"4\"", 5)] {
        assert_eq!(
            node.send(&with_if_match(
                "PUT",
                "/v1/tiers/spare",
                tag,
                &json!({"max_concurrent": expected})
            ))
            .version(),
            expected,
            "{tag}"
        );
    }
}

#[test]
fn of_many_writes_for_one_version_one_is_made() {
    let node = node(POLICY);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let node = &node;
        let put = |i: usize| {
            node.send(&with_if_match("PUT", &format!("/v1/tiers/t{i}"), "\"1\"", &json!({}))).status
        };
        let writers: Vec<_> = (0..16).map(|i| scope.spawn(move || put(i))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let count = |status: u16| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(200), count(412), version(&node)), (1, 15, 2));
    assert_eq!(document(&node)["tiers"].as_object().unwrap().len(), 4);
}

#[test]
fn many_writes_at_once_are_all_made_each_under_a_version_of_its_own() {
    let node = node(POLICY);
    let versions: BTreeSet<u64> = std::thread::scope(|scope| {
        let node = &node;
        let put =
            |i: usize| node.put(&format!("/v1/tenants/t{i}"), json!({"tier": "free"})).version();
        let writers: Vec<_> = (0..16).map(|i| scope.spawn(move || put(i))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(versions, (2..=17).collect());
    assert_eq!(document(&node)["tenants"].as_object().unwrap().len(), 17);
}

#[test]
fn a_dry_run_says_what_would_differ_and_changes_nothing() {
    let node = node(POLICY);
    let mut next = document(&node);
    next["tiers"]["free"]["limits"][0]["limit"] = json!(50);
    next["tiers"]["gold"] = json!({"limits": []});
    next.as_object_mut().unwrap().remove("tier_patterns");
    let answer = node.put("/v1/policy?dry_run=true", next);
    assert_eq!(answer.status, 200, "{answer:?}");
    let (answer, before) = (answer.json(), json!({"pattern": "ent-*", "tier": "pro"}));
    assert_eq!(
        answer,
        json!({"dry_run": true, "version": 1, "changes": [
            {"path": "tier_patterns[ent-*]", "op": "remove", "from": before},
            {"path": "tiers.free.limits[log].limit", "op": "change", "from": 100, "to": 50},
            {"path": "tiers.gold", "op": "add", "to": {"limits": []}},
        ]})
    );
    assert_eq!(version(&node), 1);
    assert_eq!(node.check(json!({"tenant": "other"}))["limit"], 100);
    let same = node.put("/v1/policy?dry_run=true", document(&node)).json();
    assert_eq!(same["changes"], json!([]));
}

#[test]
fn a_document_that_can_not_be_is_422_with_the_path_of_every_fault_and_changes_nothing() {
    let node = node(POLICY);
    let bad = json!({
        "default_tier": "gold",
        "reqest_tier": "always",
        "environments": {"development": {"multiplier": 0.5}},
        "limits": [{"name": "global", "algorithm": "fixed_window", "limit": 0, "window": "1m"}],
        "tiers": {"pro": {"limits": [
            {"name": "a", "algorithm": "token_bucket", "rate": "5/s"},
            {"name": "b", "algorithm": "fixed_window", "limit": 1, "window": "5 mins"},
            {"name": "c", "algorithm": "sliding_log", "limit": 10_001, "window": "1m"}]}},
    });
    for path in ["/v1/policy", "/v1/policy?dry_run=true"] {
        let faults: BTreeSet<_> =
            node.put(path, bad.clone()).fault_paths(422).into_iter().collect();
        let expected = [
            "default_tier",
            "environments.development.multiplier",
            "limits[0].limit",
            "limits[0].per",
            "reqest_tier",
            "tiers.pro.limits[1].window",
            "tiers.pro.limits[2].limit",
        ];
        assert_eq!(faults, expected.map(String::from).into_iter().collect(), "{path}");
    }
    // Every tier that is named has to exist.
    let dangling = json!({"default_tier": "gold", "tiers": {"pro": {}}, "tenants": {"acme": {"tier": "iron"}},
                          "tier_patterns": [{"pattern": "x*", "tier": "lead"}]});
    assert_eq!(
        node.put("/v1/policy", dangling).fault_paths(422),
        ["default_tier", "tier_patterns[0].tier", "tenants.acme.tier"]
    );
    assert_eq!(version(&node), 1);
}

#[test]
fn a_body_that_can_not_be_read_is_400() {
    let node = node(POLICY);
    for (kind, body) in [
        ("application/json", "{"),
        ("application/json", ""),
        ("application/toml", "a ="),
        ("", "default_tier = 1"),
    ] {
        node.send(&Request::new("PUT", "/v1/policy").header("content-type", kind).body(body))
            .problem(400);
    }
    node.send(&Request::new("PUT", "/v1/tiers/pro").body("{")).problem(400);
    assert_eq!(version(&node), 1);
}

/// A document with something of everything that there is to say.
const EVERYTHING: &str = r#"
default_tier = "free"
default_cost = 2
enforce = false
request_tier = "always"
[responses]
headers = ["x", "legacy"]
x_reset = "delta"
denial_body = "enveloped_code"
[environments.development]
multiplier = "0.125000"
[[limits]]
name = "per-ip"
per = ["ip"]
algorithm = "fixed_window"
limit = 999999999999999
window = "10080m"
[[limits]]
name = "everybody"
per = []
match = { action = "export \u00e4 \"quoted\"" }
algorithm = "leaky_bucket"
rate = "10/60s"
[tiers.free]
weight = "0.50"
max_concurrent = 50
cost_multiplier = "1.5"
on_isolation = "deny"
request_limits = "refuse"
[[tiers.free.limits]]
name = "burst"
algorithm = "token_bucket"
rate = "1/10s"
burst = 7
initial = 3
[[tiers.free.limits]]
name = "month"
algorithm = "quota"
limit = 100
period = "month"
anchor_day = 31
time_zone = "Europe/Berlin"
on_exceeded = "count"
[tiers."eu.1"]
[[tier_patterns]]
pattern = "ent-*"
tier = "eu.1"
[[tier_patterns]]
pattern = "e*"
tier = "free"
[tenants."eu:acme"]
tier = "eu.1"
tier_expires = 2100-01-01T01:02:03.000000004+01:00
max_concurrent = 3
on_isolation = "open"
limits = [
  { name = "b", match = { client = "'a" }, algorithm = "sliding_log", limit = 3, window = "90s", enforce = false },
  { name = "a", per = ["attribute:region", "tenant"], algorithm = "sliding_window", limit = 3, window = "1500ms" },
]
[tenants.plain]
[[costs]]
method = "post"
path = "/ocr/{page}/ü"
cost = 4294967295
[[costs]]
method = "*"
path = "/files/{*rest}"
cost = 1
[access.office]
list = "allow"
ip = "::ffff:192.0.2.9/120"
reason = "tab, \"quotes\", \\ and 日本"
added_by = "ops"
added_at = "2026-01-01T00:00:00.5Z"
[access.key]
list = "deny"
api_key_sha256 = "2C26B46B68FFC68FF99B453C1D30413413422D706483BFA0F98A5E886266E7AE"
expires = "2100-01-01T00:00:00Z"
[access.c]
list = "deny"
client = "tenants = {}"
"#;

#[test]
fn what_is_printed_and_put_again_is_printed_as_the_same_bytes() {
    let node = node(POLICY);
    let print =
        |kind: &str| node.send(&Request::new("GET", "/v1/policy").header("accept", kind)).body;
    let put = |kind: &str, body: &str| {
        node.send(&Request::new("PUT", "/v1/policy").header("content-type", kind).body(body))
            .version()
    };
    let samples = ["builtin.toml", "metered-api.toml", "multi-level.toml"].map(support::sample);
    for policy in samples.iter().map(String::as_str).chain([EVERYTHING]) {
        put("application/toml", policy);
        let (toml, json) = (print("application/toml"), print("application/json"));
        for (kind, text) in [("application/toml", &toml), ("application/json", &json)] {
            put(kind, text);
            assert_eq!((&print("application/toml"), &print("application/json")), (&toml, &json));
        }
    }
}

#[test]
fn what_the_command_line_gets_and_applies_again_it_gets_as_the_same_bytes() {
    let node = node(EVERYTHING);
    let tidegate = |line: &str| {
        let ran = rig::program()
            .args(line.split_whitespace())
            .env("TIDEGATE_URL", format!("http://{}", node.http))
            .current_dir(node.file(""))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{line}: {ran:?}");
        ran.stdout
    };
    for (file, get) in
        [("p.toml", "policy get"), ("p.json", "policy get -o json"), ("p", "policy get")]
    {
        let before = tidegate(get);
        std::fs::write(node.file(file), &before).unwrap();
        node.put("/v1/policy", json!({"default_tier": "only", "tiers": {"only": {}}})).version();
        tidegate(&format!("policy apply {file}"));
        assert_eq!(tidegate(get), before, "{file}");
        assert_eq!(tidegate(&format!("policy diff {file}")), b"no differences\n", "{file}");
    }
}

#[test]
fn the_kill_switch_is_thrown_and_taken_back_by_itself() {
    let lists = "[access.bad]\nlist = \"deny\"\ntenant = \"bad\"\n";
    let shared = format!("limits = [{}]\n{POLICY}{lists}", log("per-ip", r#"["ip"]"#, 50));
    let node = node(&shared);
    let costly = json!({"tenant": "x", "cost": 90, "ip": "192.0.2.1"});
    assert_eq!(node.check(costly.clone())["allowed"], false);
    assert_eq!(node.put("/v1/policy/enforce", json!({"enforce": false})).version(), 2);
    assert_eq!(document(&node)["enforce"], false);
    // Judged, counted and reported as a limit in shadow mode is, and never denied; but for the deny
    // list.
    for denies in [false, true] {
        let passed = node.check(costly.clone());
        assert_eq!((&passed["allowed"], &passed["denied_by"]), (&json!(true), &json!(null)));
        assert_eq!(limit(&passed, "log")["would_deny"], denies);
        assert_eq!(limit(&passed, "per-ip")["would_deny"], true);
    }
    let permit = json!({"tenant": "acme", "permit": {}});
    let would_deny: Vec<_> = (0..11)
        .map(|_| limit(&node.check(permit.clone()), "concurrency")["would_deny"].as_bool().unwrap())
        .collect();
    assert_eq!(would_deny.iter().filter(|denies| **denies).count(), 2, "{would_deny:?}");
    let sent = node.check(json!({"tenant": "y", "cost": 9, "limits": [sent("own", 5)]}));
    assert_eq!(
        (&sent["allowed"], &limit(&sent, "own")["would_deny"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(node.check(json!({"tenant": "bad"}))["denied_by"]["reason"], "deny_list");
    // What was taken meanwhile was taken.
    assert_eq!(node.put("/v1/policy/enforce", json!({"enforce": true})).version(), 3);
    assert_eq!(document(&node).get("enforce"), None);
    assert_eq!(node.check(json!({"tenant": "x", "cost": 90}))["allowed"], false);
}

#[test]
fn a_kill_switch_that_is_neither_on_nor_off_stays_where_it_is() {
    let node = node(POLICY);
    for (body, faults) in [
        (json!({}), vec!["enforce"]),
        (json!({"enforce": null}), vec!["enforce"]),
        (json!({"enforce": "off"}), vec!["enforce"]),
        (json!({"enforce": 0}), vec!["enforce"]),
        (json!({"enforce": false, "for": "1h"}), vec!["for"]),
        (json!(false), vec![""]),
    ] {
        assert_eq!(node.put("/v1/policy/enforce", body.clone()).fault_paths(422), faults, "{body}");
    }
    node.send(&Request::new("PUT", "/v1/policy/enforce").body("off")).problem(400);
    assert_eq!(version(&node), 1);
}

// -------------------------------------------------------------------------------- part by part

#[test]
fn a_tier_is_put_read_and_deleted() {
    let node = node(POLICY);
    let gold = json!({"max_concurrent": 5, "weight": "1.5", "limits": [sent("log", 7)]});
    assert_eq!(node.put("/v1/tiers/gold", gold).version(), 2);
    let read = node.get("/v1/tiers/gold");
    assert_eq!((read.status, read.header("etag")), (200, "\"2\""));
    assert_eq!(
        read.json(),
        json!({"max_concurrent": 5, "weight": "1.5",
               "limits": [{"name": "log", "per": ["tenant"], "algorithm": "sliding_log", "limit": 7, "window": "1h"}]})
    );
    assert_eq!(node.check(json!({"tenant": "x", "tier": "gold"}))["limit"], 7);
    assert_eq!(node.put("/v1/tiers/gold", json!({})).version(), 3);
    assert_eq!(node.check(json!({"tenant": "x", "tier": "gold"}))["limit"], "unlimited");
    assert_eq!(node.delete("/v1/tiers/gold").version(), 4);
    node.get("/v1/tiers/gold").problem(404);
    node.delete("/v1/tiers/gold").problem(404);
    node.post("/v1/check", json!({"tenant": "x", "tier": "gold"})).problem(422);
}

#[test]
fn a_tier_that_is_used_can_not_be_deleted() {
    let node = node(POLICY);
    assert_eq!(node.delete("/v1/tiers/free").fault_paths(422), ["default_tier"]);
    assert_eq!(
        node.delete("/v1/tiers/pro").fault_paths(422),
        ["tier_patterns[0].tier", "tenants.acme.tier"]
    );
    assert_eq!(version(&node), 1);
    assert_eq!(node.delete("/v1/tiers/spare").version(), 2);
}

#[test]
fn a_tenants_rules_are_put_and_deleted_and_act_on_the_next_check() {
    let node = node(POLICY);
    let limit_of = |tenant: &str| node.check(json!({"tenant": tenant}))["limit"].clone();
    assert_eq!(limit_of("globex"), 100);
    assert_eq!(node.put("/v1/tenants/globex", json!({"tier": "pro"})).version(), 2);
    assert_eq!(limit_of("globex"), 1000);
    assert_eq!(node.delete("/v1/tenants/globex").version(), 3);
    assert_eq!(limit_of("globex"), 100);
    node.delete("/v1/tenants/globex?keep_state").problem(404);
    assert_eq!(node.put("/v1/tenants/globex", json!({"tier": "gold"})).fault_paths(422), ["tier"]);
    assert_eq!(version(&node), 3);
}

#[test]
fn a_tenants_limit_is_put_replaced_and_deleted() {
    let node = node(POLICY);
    let limits = |tenant: &str| document(&node)["tenants"][tenant]["limits"].clone();
    assert_eq!(node.put("/v1/tenants/globex/limits/log", sent("log", 5)).version(), 2);
    assert_eq!(node.check(json!({"tenant": "globex"}))["limit"], 5);
    // One for an action stands beside the one for all.
    let mut export = sent("log", 2);
    export["match"] = json!({"action": "export"});
    node.put("/v1/tenants/globex/limits/log", export).version();
    node.put("/v1/tenants/globex/limits/log", sent("log", 6)).version();
    assert_eq!(limits("globex").as_array().unwrap().len(), 2);
    assert_eq!(node.check(json!({"tenant": "globex"}))["limit"], 6);
    assert_eq!(node.check(json!({"tenant": "globex", "action": "export"}))["limit"], 2);
    // Both are gone with the name.
    node.delete("/v1/tenants/globex/limits/log").version();
    assert_eq!(limits("globex"), json!(null));
    assert_eq!(node.check(json!({"tenant": "globex", "action": "export"}))["limit"], 100);
    node.delete("/v1/tenants/globex/limits/log").problem(404);
    node.delete("/v1/tenants/nobody/limits/log").problem(404);
}

#[test]
fn the_faults_of_a_part_are_named_by_their_paths_in_it() {
    let node = node(POLICY);
    for (path, body, faults) in [
        ("/v1/tenants/a/limits/log", sent("other", 5), vec!["name"]),
        (
            "/v1/tenants/a/limits/log",
            json!({"algorithm": "sliding_log", "limit": 0, "window": "1"}),
            vec!["limit", "window"],
        ),
        ("/v1/tenants/a/limits/concurrency", sent("concurrency", 5), vec!["name"]),
        (
            "/v1/tenants/a",
            json!({"tier": "pro", "tire": 1, "tier_expires": "soon"}),
            vec!["tier_expires", "tire"],
        ),
        ("/v1/tenants/a", json!({"tier_expires": "2030-01-01T00:00:00Z"}), vec!["tier_expires"]),
        (
            "/v1/tiers/a",
            json!({"max_concurrent": 0, "weight": 2}),
            vec!["weight", "max_concurrent"],
        ),
    ] {
        assert_eq!(node.put(path, body.clone()).fault_paths(422), faults, "{path} {body}");
    }
    for path in ["/v1/tenants/a%20b", "/v1/tiers/a:b", "/v1/tenants/a/limits/a%2Fb"] {
        node.put(path, json!({})).problem(400);
    }
    assert_eq!(version(&node), 1);
}

#[test]
fn a_changed_limit_acts_on_the_next_check_and_what_is_spent_stays_spent() {
    for (most_is, rule) in [
        ("limit", json!({"algorithm": "sliding_log", "window": "1h"})),
        ("limit", json!({"algorithm": "fixed_window", "window": "52w"})),
        ("limit", json!({"algorithm": "sliding_window", "window": "52w"})),
        ("limit", json!({"algorithm": "quota", "period": "month"})),
        ("burst", json!({"algorithm": "token_bucket", "rate": "1/d"})),
        ("burst", json!({"algorithm": "leaky_bucket", "rate": "1/d"})),
    ] {
        let node = node(POLICY);
        let put = |most: u64| {
            let mut rule = rule.clone();
            rule[most_is] = json!(most);
            node.put("/v1/tenants/acme/limits/log", rule).version();
        };
        put(100);
        assert_eq!(node.check(json!({"tenant": "acme", "cost": 60}))["remaining"], 40, "{rule}");
        put(200);
        assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 140, "{rule}");
        put(50);
        let denied = node.check(json!({"tenant": "acme"}));
        assert_eq!(
            (&denied["allowed"], &denied["remaining"]),
            (&json!(false), &json!(0)),
            "{rule}"
        );
        put(61);
        assert_eq!(node.allowed_of(3, json!({"tenant": "acme"})), 1, "{rule}");
    }
}

#[test]
fn once_a_write_is_answered_every_connection_is_decided_by_it() {
    let node = Setup::policy(POLICY).section("[limits]\nworkers = 4").start();
    let mut clients: Vec<_> = (0..8).map(|_| node.client()).collect();
    for round in 1..=20 {
        let version = node.put("/v1/tenants/acme/limits/log", sent("log", 1_000 + round)).version();
        for client in &mut clients {
            let decision = client.check(&json!({"tenant": "acme"}));
            assert_eq!(
                (&decision["policy_version"], &decision["limit"]),
                (&json!(version), &json!(1_000 + round))
            );
        }
    }
}

#[test]
fn a_tier_with_an_expiry_ends_then_and_the_rest_of_the_rules_stays() {
    let node = node(POLICY);
    let rules =
        |expires: String| json!({"tier": "pro", "tier_expires": expires, "max_concurrent": 3});
    node.put("/v1/tenants/globex", rules(instant_in_ms(3_600_000))).version();
    assert_eq!(node.check(json!({"tenant": "globex"}))["tier"], "pro");
    // Until then the request's own word doesn't count; from then on it does.
    assert_eq!(node.check(json!({"tenant": "globex", "tier": "spare"}))["tier"], "pro");
    node.put("/v1/tenants/globex", rules(instant_in_ms(-1_000))).version();
    assert_eq!(node.check(json!({"tenant": "globex"}))["tier"], "free");
    assert_eq!(node.check(json!({"tenant": "globex", "tier": "spare"}))["tier"], "spare");
    node.put("/v1/tenants/globex", rules(instant_in_ms(1_500))).version();
    eventually("the tier ends", || node.check(json!({"tenant": "globex"}))["tier"] == "free");
    let permit = node.check(json!({"tenant": "globex", "permit": {}}));
    assert_eq!(limit(&permit, "concurrency")["limit"], 3);
}

// -------------------------------------------------------------------------------- tenants

/// All pages of the tenants, `most` on each.
fn pages(node: &Node, most: usize) -> Vec<Vec<Value>> {
    let (mut pages, mut path) = (Vec::new(), format!("/v1/tenants?limit={most}"));
    loop {
        let page = node.get(&path).json();
        pages.push(page["tenants"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/tenants?limit={most}&after={next}"),
            None => return pages,
        }
        assert!(pages.len() < 100, "the pages don't end: {page}");
    }
}

#[test]
fn tenants_are_listed_once_page_by_page_the_named_ones_first_and_in_order() {
    let node = Setup::policy(POLICY).section("[limits]\nworkers = 4").start();
    for name in ["m3", "m1", "m2", "m4"] {
        node.put(&format!("/v1/tenants/{name}"), json!({})).version();
    }
    for tenant in ["z1", "b2", "m2", "ent-3", "b4", "z5", "b6"] {
        node.check(json!({"tenant": tenant}));
    }
    let tenant = |id: &str, tier: &str, named: bool, active: bool| json!({"id": id, "tier": tier, "named": named, "active": active});
    let named = [
        tenant("acme", "pro", true, false),
        tenant("m1", "free", true, false),
        tenant("m2", "free", true, true),
        tenant("m3", "free", true, false),
        tenant("m4", "free", true, false),
    ];
    for most in [1, 2, 3, 5, 7, 100] {
        let pages = pages(&node, most);
        assert!(pages.iter().all(|page| page.len() <= most), "{most}");
        let all: Vec<_> = pages.into_iter().flatten().collect();
        assert_eq!(all[..5], named, "{most}");
        let others: BTreeSet<_> =
            all[5..].iter().map(|tenant| tenant["id"].as_str().unwrap()).collect();
        assert_eq!(
            (all.len(), others),
            (11, BTreeSet::from(["b2", "b4", "b6", "ent-3", "z1", "z5"])),
            "{most}"
        );
        assert!(all[5..].iter().all(|tenant| tenant["named"] == false && tenant["active"] == true));
        assert!(all.contains(&tenant("ent-3", "pro", false, true)));
    }
}

#[test]
fn a_page_that_is_none_is_400() {
    let node = node(POLICY);
    for (query, fault) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("after=x", "after"),
        ("after=active:x:1", "after"),
    ] {
        assert_eq!(node.get(&format!("/v1/tenants?{query}")).fault_paths(400), [fault], "{query}");
    }
    // A cursor beyond the end is the end.
    assert_eq!(
        node.get("/v1/tenants?after=active:99:9:9").json(),
        json!({"tenants": [], "next": null})
    );
}

#[test]
fn a_tenant_is_shown_with_its_rules_and_how_it_stands() {
    let node = node(POLICY);
    node.check(
        json!({"tenant": "acme", "cost": 7, "permit": {"ttl_ms": 300_000}, "request_id": "r-1"}),
    );
    let answer = node.get("/v1/tenants/acme");
    assert_eq!((answer.status, answer.header("etag")), (200, "\"1\""));
    let mut shown = answer.json();
    let resets: Vec<_> = (0..2)
        .map(|i| support::take_number(&mut shown["state"]["limits"][i], "reset_after_ms"))
        .collect();
    assert!(resets.iter().all(|ms| (200_000..=3_600_000).contains(ms)), "{resets:?}");
    assert_eq!(
        shown,
        json!({"tenant": "acme", "policy": {"tier": "pro"}, "state": {
        "tier": "pro", "tier_source": "tenant", "permits": 1, "keys": 1, "request_ids": 1,
        "limits": [
            {"name": "log", "scope": ["tenant"], "algorithm": "sliding_log", "limit": 1000,
                 "window_ms": 3_600_000, "remaining": 993, "mode": "exact"},
            {"name": "concurrency", "scope": ["tenant"], "algorithm": "concurrency", "limit": 9,
                 "window_ms": null, "remaining": 8, "mode": "exact"},
        ]}})
    );
    // Looking takes nothing, and nobody has to be known to be looked at.
    assert_eq!(node.peek(json!({"tenant": "acme"}))["remaining"], 993);
    let unknown = node.get("/v1/tenants/ent-9").json();
    assert_eq!(unknown["policy"], json!(null));
    assert_eq!(
        (&unknown["state"]["tier_source"], &unknown["state"]["keys"]),
        (&json!("pattern"), &json!(0))
    );
    node.get("/v1/tenants/a%20b").problem(400);
}

#[test]
fn a_reset_forgets_what_one_tenant_has_spent_and_leaves_permits_out() {
    let node = node(POLICY);
    for tenant in ["acme", "globex"] {
        node.check(json!({"tenant": tenant, "cost": 60, "permit": {}}));
    }
    assert_eq!(node.post("/v1/tenants/acme/reset", json!({})).status, 200);
    assert_eq!(node.send(&Request::new("POST", "/v1/tenants/nobody/reset")).status, 200);
    let state = node.get("/v1/tenants/acme").json()["state"].clone();
    assert_eq!((&state["limits"][0]["remaining"], &state["permits"]), (&json!(1000), &json!(1)));
    assert_eq!(node.peek(json!({"tenant": "globex"}))["remaining"], 40);
    assert_eq!(version(&node), 1);
}

// -------------------------------------------------------------------------------- stops and
// crashes

/// A limit that tenants share, beside the policy above.
fn shared() -> String {
    format!("limits = [{}]\n{POLICY}", log("per-ip", r#"["ip"]"#, 50))
}

#[test]
fn after_a_graceful_stop_the_policy_and_what_was_spent_are_there_again() {
    let node = Setup::policy(&shared()).section("[limits]\nworkers = 3").start();
    node.put("/v1/tenants/globex", json!({"tier": "pro"})).version();
    for i in 0..20 {
        node.check(json!({"tenant": format!("t{i}"), "cost": i + 1, "ip": "192.0.2.1"}));
    }
    let spent = node.check(json!({"tenant": "globex", "cost": 30, "ip": "192.0.2.2"}));
    assert_eq!(spent["allowed"], true);
    let (before, left) = (
        document(&node),
        node.get("/v1/tenants/t4").json()["state"]["limits"][0]["remaining"].clone(),
    );
    let node = node.stop().start();
    assert_eq!((version(&node), document(&node)), (2, before));
    assert_eq!(node.get("/v1/tenants/t4").json()["state"]["limits"][0]["remaining"], left);
    let again = node.peek(json!({"tenant": "globex", "ip": "192.0.2.2"}));
    assert_eq!(
        (&limit(&again, "log")["remaining"], &limit(&again, "per-ip")["remaining"]),
        (&json!(970), &json!(20))
    );
}

#[test]
fn what_was_spent_is_found_again_by_another_number_of_workers() {
    let node = Setup::policy(&shared()).section("[limits]\nworkers = 1").start();
    let check =
        |i: u64| json!({"tenant": format!("t{i}"), "cost": i + 1, "ip": format!("192.0.2.{i}")});
    for i in 0..20 {
        assert_eq!(node.check(check(i))["allowed"], true);
    }
    let place = node.stop();
    let config = std::fs::read_to_string(place.file("cluster.toml")).unwrap();
    std::fs::write(place.file("cluster.toml"), config.replace("workers = 1", "workers = 4"))
        .unwrap();
    let node = place.start();
    for i in 0..20 {
        let left = node.peek(check(i));
        assert_eq!(limit(&left, "log")["remaining"], 99 - i);
        assert_eq!(limit(&left, "per-ip")["remaining"], 49 - i);
    }
}

#[test]
fn the_policy_survives_a_kill_9_right_after_each_answer() {
    let mut node = node(POLICY);
    for round in 1..=5 {
        let version = node.put(&format!("/v1/tenants/t{round}"), json!({"tier": "pro"})).version();
        let before = document(&node);
        node = node.kill().start();
        let answer = node.get("/v1/policy");
        assert_eq!(
            (answer.header("etag"), answer.json()),
            (format!("\"{version}\"").as_str(), before)
        );
        assert_eq!(node.check(json!({"tenant": format!("t{round}")}))["tier"], "pro");
    }
}

#[test]
fn the_policy_file_is_read_at_the_very_first_start_only() {
    let node = node(POLICY);
    node.put("/v1/tiers/gold", json!({})).version();
    let place = node.stop();
    std::fs::write(place.file("policy.toml"), "this is not even TOML").unwrap();
    let node = place.start();
    assert_eq!(version(&node), 2);
    assert_eq!(node.get("/v1/tiers/gold").status, 200);
}

#[test]
fn a_policy_file_with_faults_is_refused_at_the_start_with_all_of_them() {
    let place =
        Setup::policy("default_tier = \"gold\"\ntires = 1\n[tiers.pro]\nmax_concurrent = 0\n")
            .place();
    let (code, stderr) = place.refuse();
    assert_eq!(code, 2, "{stderr}");
    for path in ["tires: ", "tiers.pro.max_concurrent: "] {
        assert!(stderr.contains(path), "{stderr}");
    }
}

#[test]
fn a_second_process_on_the_same_data_exits_1_and_says_why() {
    let first = node(POLICY);
    let data = first.file("data/n1");
    let second = Setup::policy(POLICY).place();
    let config = std::fs::read_to_string(second.file("cluster.toml")).unwrap();
    let config = config
        .replace("id = \"n1\"", &format!("id = \"n1\"\ndata_dir = {:?}", data.to_str().unwrap()));
    std::fs::write(second.file("cluster.toml"), config).unwrap();
    let (code, stderr) = second.refuse();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("in use by another process"), "{stderr}");
    assert_eq!(first.check(json!({"tenant": "acme"}))["allowed"], true);
}

#[test]
fn a_second_process_on_the_same_port_exits_1_and_says_why() {
    let first = node(POLICY);
    let (code, stderr) = Setup::policy(POLICY).http(&first.http.to_string()).place().refuse();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&format!("can't listen on {}", first.http)), "{stderr}");
}
