//! A printed document is taken again as it is.

use serde_json::json;

use super::POLICY;
use crate::rig;
use crate::support::{self, Request, node};

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
