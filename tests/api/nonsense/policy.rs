//! Policies that are wrong, and parts of one.

use super::tables::{ANYWHERE, bad_limits, in_list};
use super::{ADMIN_TOKEN, call, names, start};

#[test]
fn a_bad_policy_is_refused_by_the_path_of_every_fault_and_nothing_changes() {
    let node = start();
    let before = call(&node, "GET", "/v1/policy", b"");
    let base = |rest: &str| format!(r#"{{"default_tier":"free","tiers":{{"free":{{}}}}{rest}}}"#);
    let tier =
        |member: &str| format!(r#"{{"default_tier":"free","tiers":{{"free":{{{member}}}}}}}"#);
    let mut table: Vec<(String, &str)> = [
        (r#"{}"#, "default_tier"),
        (r#"{}"#, "tiers"),
        (r#"{"default_tier":"free"}"#, "tiers"),
        (r#"{"default_tier":"gold","tiers":{"free":{}}}"#, "default_tier"),
        (r#"{"default_tier":7,"tiers":{}}"#, "default_tier"),
        (r#"{"default_tier":"free","tiers":[]}"#, "tiers"),
        (r#"{"default_tier":"free","tiers":{"fr ee":{}}}"#, r#"tiers."fr ee""#),
        (r#"{"default_tier":"free","tiers":{"free":{},"free":{}}}"#, "tiers.free"),
        (
            r#"{"default_tier":"free","tiers":{"free":{},"x\r\nFORGED":{}}}"#,
            r#"tiers."x\r\nFORGED""#,
        ),
        (r#"[]"#, ""),
        (r#"7"#, ""),
    ]
    .iter()
    .map(|(text, path)| (text.to_string(), *path))
    .collect();
    for (rest, path) in [
        (r#","default_cost":0"#, "default_cost"),
        (r#","enforce":"no""#, "enforce"),
        (r#","request_tier":"sometimes""#, "request_tier"),
        (r#","environments":{"dev":{"multiplier":0.5}}"#, "environments.dev.multiplier"),
        (r#","environments":{"dev":{"multiplier":"0"}}"#, "environments.dev.multiplier"),
        (r#","environments":{"dev":{"multiplier":"1e3"}}"#, "environments.dev.multiplier"),
        (r#","environments":{"dev":{"multiplier":"NaN"}}"#, "environments.dev.multiplier"),
        (r#","environments":{"dev":{"multiplier":"0.1234567"}}"#, "environments.dev.multiplier"),
        (
            r#","limits":[{"name":"g","algorithm":"fixed_window","limit":1,"window":"1m"}]"#,
            "limits[0].per",
        ),
        (r#","tier_patterns":[{"pattern":"","tier":"free"}]"#, "tier_patterns[0].pattern"),
        (r#","tier_patterns":[{"pattern":"x*","tier":"lead"}]"#, "tier_patterns[0].tier"),
        (r#","tenants":{"acme":{"tier":"iron"}}"#, "tenants.acme.tier"),
        (r#","tenants":{"a\u0000":{}}"#, r#"tenants."a\0""#),
        (
            r#","tenants":{"acme":{"tier":"free","tier_expires":"tomorrow"}}"#,
            "tenants.acme.tier_expires",
        ),
        (r#","tenants":{"acme":{"max_concurrent":0}}"#, "tenants.acme.max_concurrent"),
        (r#","tenants":{"acme":{"on_isolation":"panic"}}"#, "tenants.acme.on_isolation"),
        (r#","costs":[{"path":"x","cost":1}]"#, "costs[0].path"),
        (r#","costs":[{"path":"/x","cost":0}]"#, "costs[0].cost"),
        (r#","costs":[{"path":"/x","cost":1,"method":"G T"}]"#, "costs[0].method"),
        (r#","costs":[{"path":"/x/{a","cost":1}]"#, "costs[0].path"),
        (r#","access":{"e":{"list":"grey","tenant":"a"}}"#, "access.e.list"),
        (r#","access":{"e":{"list":"deny"}}"#, "access.e"),
        (r#","access":{"e":{"list":"deny","ip":"10.0.0.0/33"}}"#, "access.e.ip"),
        (
            r#","access":{"e":{"list":"deny","api_key_sha256":"canary-key-c0ffee"}}"#,
            "access.e.api_key_sha256",
        ),
        (
            r#","access":{"e":{"list":"deny","tenant":"a","reason":"x\r\nFORGED"}}"#,
            "access.e.reason",
        ),
        (r#","defaul_tier":"x""#, "defaul_tier"),
        (r#","enforce":true,"enforce":false"#, "enforce"),
    ] {
        table.push((base(rest), path));
    }
    for (member, path) in [
        (r#""weight":"heavy""#, "tiers.free.weight"),
        (r#""weight":1"#, "tiers.free.weight"),
        (r#""cost_multiplier":"-1""#, "tiers.free.cost_multiplier"),
        (r#""max_concurrent":1.5"#, "tiers.free.max_concurrent"),
        (r#""request_limits":"perhaps""#, "tiers.free.request_limits"),
        (r#""limitz":[]"#, "tiers.free.limitz"),
        (
            r#""limits":[{"name":"concurrency","algorithm":"fixed_window","limit":1,"window":"1m"}]"#,
            "tiers.free.limits[0].name",
        ),
    ] {
        table.push((tier(member), path));
    }
    for (limit, path) in bad_limits() {
        table.push((
            tier(&format!(r#""limits":[{limit}]"#)),
            format!("tiers.free.{}", in_list(path)).leak(),
        ));
    }
    for (document, path) in &table {
        let answer = call(&node, "PUT", "/v1/policy", document.as_bytes());
        if *path != ANYWHERE {
            names(&answer, 422, path, document);
        }
        // A dry run of nonsense is nonsense too.
        let dry = call(&node, "PUT", "/v1/policy?dry_run=true", document.as_bytes());
        assert_eq!((dry.status, dry.body), (422, answer.body), "{document}");
    }
    for body in [
        "",
        "{",
        r#"{"default_tier":"free",}"#,
        "default_tier = \"free\"",
        "\u{feff}{}",
        "{\"a\":1e309}",
    ] {
        let answer = call(&node, "PUT", "/v1/policy", body.as_bytes());
        assert!(answer.problem(400)["errors"][0]["path"].is_string(), "{body}");
    }
    let nested = ["[".repeat(5_000), "]".repeat(5_000)].concat();
    call(&node, "PUT", "/v1/policy", nested.as_bytes()).problem(400);
    call(&node, "PUT", "/v1/policy", b"\xff\xfe").problem(400);

    let after = call(&node, "GET", "/v1/policy", b"");
    assert_eq!((after.header("etag"), &after.body), (before.header("etag"), &before.body));
}

#[test]
fn a_bad_policy_in_toml_is_refused_too() {
    let node = start();
    let put = |text: &[u8]| {
        let headers = [
            ("authorization", &*format!("Bearer {ADMIN_TOKEN}")),
            ("content-type", "application/toml"),
        ];
        node.connect().call("PUT", "/v1/policy", &headers, text)
    };
    for text in [
        "default_tier = ",
        "default_tier = \"a\"\ndefault_tier = \"b\"",
        "[tiers.free]\n[tiers.free]",
        "{\"default_tier\":\"free\"}",
        "default_tier = \"free\r\rFORGED",
        "x = 1e999999999999999999999\n[",
    ] {
        let problem = put(text.as_bytes()).problem(400);
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("TOML"), "{problem}");
    }
    let nested = format!("x = {}{}", "[".repeat(10_000), "]".repeat(10_000));
    put(nested.as_bytes()).problem(400);
    put(b"default_tier = \"\xff\"").problem(400);
    for (text, path) in [
        ("default_tier = nan\n[tiers]", "default_tier"),
        ("default_tier = 2026-01-01\n[tiers]", "default_tier"),
        ("default_tier = \"free\"\ndefault_cost = inf\n[tiers.free]", "default_cost"),
        ("default_tier = \"free\"\ndefault_cost = 0x0\n[tiers.free]", "default_cost"),
        ("default_tier = \"free\"\n[tiers.free]\nmax_concurrent = -1", "tiers.free.max_concurrent"),
        ("default_tier = \"free\"\n[tiers.free]\n\"a\\u0000\" = 1", r#"tiers.free."a\0""#),
    ] {
        names(&put(text.as_bytes()), 422, path, text);
    }
    assert_eq!(call(&node, "GET", "/v1/policy", b"").header("etag"), Some("\"1\""));
}

#[test]
fn a_bad_part_of_the_policy_is_refused_and_nothing_changes() {
    let node = start();
    let put = |path: &str, body: &str, status: u16, fault: &str| {
        let answer = call(&node, "PUT", path, body.as_bytes());
        names(&answer, status, fault, &format!("{path} {body}"));
    };
    for (body, fault) in [
        (r#"{"tier":"nowhere"}"#, "tier"),
        (r#"{"tier":""}"#, "tier"),
        (r#"{"tier":5}"#, "tier"),
        (r#"{"tier_expires":"2027-01-01T00:00:00Z"}"#, "tier_expires"),
        (r#"{"max_concurrent":-1}"#, "max_concurrent"),
        (r#"{"max_concurrent":1e30}"#, "max_concurrent"),
        (r#"{"limits":5}"#, "limits"),
        (r#"{"teir":"free"}"#, "teir"),
        (r#"{"tier":"free","tier":"free"}"#, "tier"),
        ("[]", ""),
    ] {
        put("/v1/tenants/x", body, 422, fault);
    }
    for (limit, fault) in bad_limits() {
        put("/v1/tenants/x", &format!(r#"{{"limits":[{limit}]}}"#), 422, in_list(fault));
        put("/v1/tenants/x/limits/n", &limit, 422, fault);
    }
    put(
        "/v1/tenants/x/limits/other",
        r#"{"name":"n","algorithm":"token_bucket","rate":"1/s"}"#,
        422,
        "name",
    );
    put(
        "/v1/tenants/x/limits/n",
        r#"{"name":7,"algorithm":"token_bucket","rate":"1/s"}"#,
        422,
        "name",
    );
    put("/v1/tiers/x", r#"{"weight":"0"}"#, 422, "weight");
    put("/v1/policy/enforce", r#"{"enforce":1}"#, 422, "enforce");
    put(
        "/api/config/global",
        r#"{"max_requests":1e3,"window_duration_seconds":60}"#,
        400,
        "max_requests",
    );
    for (method, path) in [
        ("PUT", "/v1/tenants/x"),
        ("PUT", "/v1/tenants/x/limits/n"),
        ("PUT", "/v1/tiers/x"),
        ("PUT", "/v1/policy/enforce"),
        ("POST", "/v1/policy/rollback"),
        ("POST", "/v1/access"),
        ("PUT", "/api/config/global"),
        ("PUT", "/api/config/tenant/x/action/y"),
        ("PUT", "/api/config/tenant/x/client/c/action/y"),
    ] {
        for body in ["", "{", "{\"a\":1e309}", "{}{}", "\u{feff}{}"] {
            let answer = call(&node, method, path, body.as_bytes());
            assert!(answer.problem(400)["errors"][0]["path"].is_string(), "{path} {body}");
        }
        call(&node, method, path, b"{\"tier\":\"\xff\"}").problem(400);
        let nested = ["[".repeat(1_500), "]".repeat(1_500)].concat();
        call(&node, method, path, nested.as_bytes()).problem(400);
        call(&node, method, path, &[b' '; 65_537]).problem(413);
    }
    assert_eq!(call(&node, "GET", "/v1/policy", b"").header("etag"), Some("\"1\""));
}
