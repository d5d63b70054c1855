//! A node's answers have the shape that the document promises.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{POLICY, document, filled, node, resolved};
use crate::rig::{Answer, Home};

/// The document with nothing undescribed: an answer may not have a member that isn't in it.
fn strict(document: &Value) -> Value {
    let mut strict = document.clone();
    let schemas = strict["components"]["schemas"].as_object_mut().unwrap();
    let mut parts = BTreeSet::new();
    for schema in schemas.values() {
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            parts
                .extend(part["$ref"].as_str().and_then(|r| r.rsplit('/').next()).map(String::from));
        }
    }
    for (name, schema) in schemas {
        let object =
            schema.get("properties").is_some() && schema.get("additionalProperties").is_none();
        if object && !parts.contains(name) || schema.get("allOf").is_some() {
            schema["unevaluatedProperties"] = json!(false);
        }
    }
    strict
}

/// Holds one answer to what the document says of the call.
fn hold(document: &Value, method: &str, path: &str, answer: &Answer) {
    let at = format!("{method} {path} {}", answer.status);
    let operation = &document["paths"][path][method];
    let described = operation["responses"].get(answer.status.to_string());
    let described = resolved(
        document,
        described.unwrap_or_else(|| panic!("{at} is not described: {}", answer.text())),
    );
    let kind =
        answer.header("content-type").map(|kind| kind.split(';').next().unwrap_or_default().trim());
    match (kind, described["content"].as_object()) {
        (None, None) => assert!(answer.body.is_empty(), "{at}"),
        (Some(kind), Some(content)) => {
            let content =
                content.get(kind).unwrap_or_else(|| panic!("{at}: {kind} is not described"));
            let body =
                if kind.ends_with("json") { answer.json() } else { Value::from(answer.text()) };
            let mut root = strict(document);
            root["allOf"] = json!([content["schema"]]);
            // What stands in an allOf is open by itself, so that its neighbours may have members of
            // their own.
            root["unevaluatedProperties"] = json!(!body.is_object());
            if content["schema"]["$ref"] == "#/components/schemas/OpenApi" {
                root["unevaluatedProperties"] = json!(true);
            }
            let validator =
                jsonschema::options().should_validate_formats(true).build(&root).unwrap();
            let faults: Vec<_> = validator
                .iter_errors(&body)
                .map(|e| format!("{}: {e}", e.instance_path()))
                .collect();
            assert!(faults.is_empty(), "{at}: {faults:#?} in {body}");
        }
        (kind, content) => panic!("{at}: {kind:?} is not {content:?}"),
    }
    for (name, value) in &answer.headers {
        if ["content-type", "content-length", "date", "cache-control"].contains(&name.as_str()) {
            continue;
        }
        let headers = described["headers"].as_object().into_iter().flatten();
        let header = headers.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, header) = header.unwrap_or_else(|| panic!("{at}: {name} is not described"));
        let value = match header["schema"]["type"].as_str() {
            Some("integer") => json!(value.parse::<u64>().unwrap()),
            _ => json!(value),
        };
        let validator = jsonschema::validator_for(&header["schema"]).unwrap();
        assert!(validator.is_valid(&value), "{at}: {name}: {value} is not {}", header["schema"]);
    }
}

/// A call, and the status that it should have.
struct Ask(u16, &'static str, &'static str, &'static str, Value);

#[test]
fn answers_are_what_the_document_says() {
    let node = node();
    let document = document(&node);
    let (check, peek, batch) = ("/v1/check", "/v1/peek", "/v1/check/batch");
    let limit = json!({"algorithm": "token_bucket", "rate": "5/s", "burst": 10});
    let quantity = || json!({"max_requests": 5, "window_duration_seconds": 60});
    let asks = [
        Ask(200, "post", check, "", json!({"tenant": "acme", "cost": 3, "request_id": "r-1"})),
        Ask(200, "post", check, "", json!({"tenant": "acme", "cost": 3, "request_id": "r-1"})),
        Ask(422, "post", check, "", json!({"tenant": "acme", "cost": 2, "request_id": "r-1"})),
        Ask(200, "post", check, "", json!({"tenant": "acme"})),
        Ask(429, "post", check, "?status=429", json!({"tenant": "acme"})),
        Ask(200, "post", check, "", json!({"tenant": "acme", "cost": 4})),
        Ask(200, "post", check, "", json!({"tenant": "big", "cost": 3})),
        Ask(200, "post", check, "", json!({"tenant": "friend"})),
        Ask(200, "post", check, "", json!({"tenant": "foe"})),
        Ask(429, "post", check, "?status=429", json!({"tenant": "foe"})),
        Ask(200, "post", check, "", json!({"tenant": "slots", "permit": {"ttl_ms": 60_000}})),
        Ask(200, "post", check, "", json!({"tenant": "slots", "permit": {}})),
        Ask(
            200,
            "post",
            check,
            "",
            json!({"tenant": "own", "limits": [
                {"name": "soft", "algorithm": "quota", "limit": 1, "period": "month", "enforce": false},
                {"name": "hard", "algorithm": "leaky_bucket", "rate": "1/m", "burst": 2},
            ]}),
        ),
        Ask(422, "post", check, "", json!({"tenant": "acme", "tier": "gold"})),
        Ask(400, "post", check, "", json!({"tenant": "a b", "cost": 0, "colour": 1})),
        Ask(400, "post", check, "?status=200&status=302", json!({})),
        Ask(200, "post", peek, "", json!({"tenant": "acme"})),
        Ask(400, "post", peek, "", json!([])),
        Ask(
            200,
            "post",
            batch,
            "",
            json!({"checks": [{"tenant": "b"}, {"tenant": "b", "cost": 0}, {"tenant": "b", "tier": "gold"}]}),
        ),
        Ask(
            200,
            "post",
            batch,
            "",
            json!({"mode": "all_or_nothing", "checks": [{"tenant": "b"}, {"tenant": "b", "cost": 9}]}),
        ),
        Ask(
            422,
            "post",
            batch,
            "",
            json!({"mode": "all_or_nothing", "checks": [{"tenant": "b", "tier": "gold"}]}),
        ),
        Ask(413, "post", batch, "", json!({"checks": vec![json!({"tenant": "b"}); 1001]})),
        Ask(204, "delete", "/v1/permits/{id}", "", Value::Null),
        Ask(404, "post", "/v1/permits/{id}/renew", "", Value::Null),
        Ask(400, "post", "/v1/permits/{id}/renew", "", json!({"ttl_ms": 1})),
        Ask(
            200,
            "post",
            "/api/check_and_consume",
            "",
            json!({"tenant_id": "t", "client_id": "u", "action_type": "x", "max_requests": 1, "window_duration_seconds": 60}),
        ),
        Ask(
            200,
            "post",
            "/api/check_and_consume",
            "",
            json!({"tenant_id": "t", "client_id": "u", "action_type": "x", "max_requests": 1, "window_duration_seconds": 60}),
        ),
        Ask(400, "post", "/api/check_and_consume", "", json!({})),
        Ask(
            200,
            "get",
            "/api/status/{tenant}/{client}/{action}",
            "?max_requests=5&window_duration_seconds=60",
            Value::Null,
        ),
        Ask(400, "get", "/api/status/{tenant}/{client}/{action}", "", Value::Null),
        Ask(200, "get", "/api/health", "", Value::Null),
        Ask(200, "get", "/v1/forward-auth", "", Value::Null),
        Ask(200, "patch", "/v1/forward-auth/{suffix}", "", Value::Null),
        Ask(200, "get", "/v1/policy", "", Value::Null),
        Ask(200, "get", "/v1/tiers/{tier}", "", Value::Null),
        Ask(
            200,
            "put",
            "/v1/tiers/{tier}",
            "",
            json!({"max_concurrent": 1, "limits": [{"name": "rate", "algorithm": "sliding_log", "limit": 3, "window": "1h"}]}),
        ),
        Ask(
            422,
            "put",
            "/v1/tiers/{tier}",
            "",
            json!({"limits": [{"name": "rate", "algorithm": "quota", "limit": 3, "window": "1h"}]}),
        ),
        Ask(422, "delete", "/v1/tiers/{tier}", "", Value::Null),
        Ask(
            200,
            "put",
            "/v1/tenants/{tenant}",
            "",
            json!({"tier": "open", "tier_expires": "2100-01-01T00:00:00Z"}),
        ),
        Ask(200, "put", "/v1/tenants/{tenant}/limits/{name}", "", limit.clone()),
        Ask(200, "get", "/v1/tenants/{tenant}", "", Value::Null),
        Ask(200, "get", "/v1/tenants", "?limit=2", Value::Null),
        Ask(400, "get", "/v1/tenants", "?limit=0", Value::Null),
        Ask(200, "post", "/v1/tenants/{tenant}/reset", "", Value::Null),
        Ask(
            200,
            "put",
            "/v1/policy",
            "?dry_run=true",
            json!({"default_tier": "t", "tiers": {"t": {}}}),
        ),
        Ask(
            400,
            "put",
            "/v1/policy",
            "?dry_run=maybe",
            json!({"default_tier": "t", "tiers": {"t": {}}}),
        ),
        Ask(422, "put", "/v1/policy", "", json!({"default_tier": "t", "tiers": {}})),
        Ask(200, "put", "/v1/policy/enforce", "", json!({"enforce": true})),
        Ask(422, "put", "/v1/policy/enforce", "", json!({"enforce": "yes"})),
        Ask(200, "get", "/v1/policy", "?version=1", Value::Null),
        Ask(404, "get", "/v1/policy", "?version=999", Value::Null),
        Ask(400, "get", "/v1/policy", "?version=0", Value::Null),
        Ask(200, "get", "/v1/policy/history", "", Value::Null),
        Ask(200, "post", "/v1/policy/rollback", "?dry_run=true", json!({"version": 1})),
        Ask(200, "post", "/v1/policy/rollback", "", json!({"version": 1})),
        Ask(422, "post", "/v1/policy/rollback", "", json!({"version": 999})),
        Ask(400, "post", "/v1/policy/rollback", "", json!({"version": 0})),
        Ask(200, "get", "/v1/audit", "?limit=2", Value::Null),
        Ask(400, "get", "/v1/audit", "?limit=0", Value::Null),
        Ask(
            201,
            "post",
            "/v1/access",
            "",
            json!({"id": "p00000000000000000000000000000000000", "list": "deny", "api_key": "sesame"}),
        ),
        Ask(
            201,
            "post",
            "/v1/access",
            "",
            json!({"list": "allow", "ip": "192.0.2.0/24", "reason": "ours", "expires": "2100-01-01T00:00:00Z"}),
        ),
        Ask(422, "post", "/v1/access", "", json!({"list": "deny"})),
        Ask(200, "get", "/v1/access", "", Value::Null),
        Ask(200, "get", "/v1/access", "?list=deny&limit=1", Value::Null),
        Ask(400, "get", "/v1/access", "?list=grey", Value::Null),
        Ask(200, "get", "/v1/access/{id}", "", Value::Null),
        Ask(200, "delete", "/v1/access/{id}", "", Value::Null),
        Ask(404, "delete", "/v1/access/{id}", "", Value::Null),
        Ask(404, "get", "/v1/access/{id}", "", Value::Null),
        Ask(200, "put", "/api/config/global", "", quantity()),
        Ask(422, "put", "/api/config/global", "", json!({"max_tenant_queue_size": 1})),
        Ask(200, "put", "/api/config/tenant/{tenant}/action/{action}", "", quantity()),
        Ask(
            200,
            "put",
            "/api/config/tenant/{tenant}/client/{client}/action/{action}",
            "",
            quantity(),
        ),
        Ask(400, "put", "/api/config/tenant/{tenant}/action/{action}", "", json!({})),
        Ask(200, "get", "/api/config", "?limit=1", Value::Null),
        Ask(200, "get", "/api/config/tenant/{tenant}", "", Value::Null),
        Ask(200, "delete", "/api/config/tenant/{tenant}/action/{action}", "", Value::Null),
        Ask(404, "delete", "/api/config/tenant/{tenant}/action/{action}", "", Value::Null),
        Ask(
            200,
            "delete",
            "/api/config/tenant/{tenant}/client/{client}/action/{action}",
            "",
            Value::Null,
        ),
        Ask(200, "put", "/v1/tenants/{tenant}/limits/{name}", "", limit.clone()),
        Ask(200, "delete", "/v1/tenants/{tenant}/limits/{name}", "", Value::Null),
        Ask(404, "delete", "/v1/tenants/{tenant}/limits/{name}", "", Value::Null),
        Ask(200, "delete", "/v1/tenants/{tenant}", "", Value::Null),
        Ask(404, "delete", "/v1/tenants/{tenant}", "", Value::Null),
        Ask(200, "get", "/admin/ratelimit/tenants", "?limit=2", Value::Null),
        Ask(200, "get", "/admin/ratelimit/tenants/{tenant}", "", Value::Null),
        Ask(200, "delete", "/admin/ratelimit/tenants/{tenant}/reset", "", Value::Null),
        Ask(200, "post", "/admin/ratelimit/circuit-breaker/reset", "", Value::Null),
        Ask(200, "get", "/admin/ratelimit/quotas", "", Value::Null),
        Ask(200, "get", "/v1/stats", "", Value::Null),
        Ask(200, "get", "/v1/stats", "?period=7d", Value::Null),
        Ask(422, "get", "/api/stats", "?date=1999-12-31", Value::Null),
        Ask(200, "get", "/v1/alerts", "", Value::Null),
        Ask(200, "get", "/v1/cluster", "", Value::Null),
        Ask(200, "get", "/v1/cluster/settings", "", Value::Null),
        Ask(200, "put", "/v1/cluster/settings", "?dry_run=true", json!({"round_trip_ms": 300})),
        Ask(200, "put", "/v1/cluster/settings", "", json!({"round_trip_ms": 200})),
        Ask(200, "put", "/v1/cluster/settings", "", json!({"round_trip_ms": 200})),
        Ask(400, "put", "/v1/cluster/settings", "", json!({})),
        Ask(422, "put", "/v1/cluster/settings", "", json!({"round_trip_ms": 301})),
        Ask(400, "post", "/v1/cluster/nodes", "", json!({"id": "n4"})),
        Ask(
            422,
            "post",
            "/v1/cluster/nodes",
            "",
            json!({"id": "n4", "http": "127.0.0.1:7074", "peer": "127.0.0.1:7174"}),
        ),
        Ask(404, "delete", "/v1/cluster/nodes/{id}", "", Value::Null),
        Ask(400, "delete", "/v1/cluster/nodes/{id}", "?force=perhaps", Value::Null),
        Ask(404, "post", "/v1/cluster/nodes/{id}/drain", "", Value::Null),
        Ask(404, "delete", "/v1/cluster/nodes/{id}/drain", "", Value::Null),
        Ask(403, "get", "/v1/cluster/backup", "?partial=true", Value::Null),
        Ask(200, "get", "/v1/cluster/breakers", "", Value::Null),
        Ask(404, "post", "/v1/cluster/breakers/{id}/reset", "", Value::Null),
        Ask(200, "get", "/metrics", "", Value::Null),
        Ask(200, "get", "/livez", "", Value::Null),
        Ask(200, "get", "/readyz", "", Value::Null),
        Ask(200, "get", "/readyz", "?verbose", Value::Null),
        Ask(200, "get", "/version", "", Value::Null),
        Ask(200, "get", "/openapi.json", "", Value::Null),
        Ask(308, "get", "/docs", "", Value::Null),
    ];
    for Ask(status, method, path, query, body) in asks {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = node.call(&method.to_uppercase(), &(filled(path) + query), body);
        assert_eq!(answer.status, status, "{method} {path}{query}: {}", answer.text());
        hold(&document, method, path, &answer);
    }
}

#[test]
fn answers_in_every_dialect_and_every_envelope_are_what_the_document_says() {
    for body in ["problem", "enveloped_problem", "enveloped_code"] {
        let responses = format!(
            "[responses]\nheaders = [\"draft8\", \"legacy\", \"x\", \"per_window\"]\ndenial_body = \
             \"{body}\"\n"
        );
        let node = Home::new(
            &format!(
                "default_tier = \"free\"\n{responses}{}",
                POLICY.replacen("default_tier = \"free\"", "", 1)
            ),
            "",
        )
        .start();
        let document = document(&node);
        for (tenant, cost, status) in
            [("acme", 3, 200), ("acme", 1, 429), ("acme", 4, 429), ("foe", 1, 429), ("big", 1, 200)]
        {
            let check = json!({"tenant": tenant, "cost": cost}).to_string();
            let answer = node.call("POST", "/v1/check?status=429", check);
            assert_eq!(answer.status, status, "{}", answer.text());
            hold(&document, "post", "/v1/check", &answer);
        }
        let headers = [("x-tenant-id", "acme")];
        for query in ["", "?deny_status=403"] {
            let answer =
                node.connect().call("GET", &format!("/v1/forward-auth{query}"), &headers, b"");
            hold(&document, "get", "/v1/forward-auth", &answer);
        }
        let answer = node.connect().call("GET", "/v1/forward-auth", &[("x-tenant-id", "a b")], b"");
        assert_eq!(answer.status, 429);
        hold(&document, "get", "/v1/forward-auth", &answer);
    }
}

#[test]
fn refusals_of_a_token_or_a_version_are_what_the_document_says() {
    let auth = "[[auth.tokens]]\nname = \"c\"\nrole = \"check\"\nvalue = \
                \"check-secret-0123456789\"\n[[auth.tokens]]\nname = \"a\"\nrole = \
                \"admin\"\nvalue = \"admin-secret-0123456789\"\n";
    let node = Home::new(POLICY, auth).start();
    let document = document(&node);
    let (nobody, stale) =
        ([], [("x-tidegate-token", "admin-secret-0123456789"), ("if-match", "\"99\"")]);
    let decider = [("authorization", "Bearer check-secret-0123456789"), ("x-request-id", "abc")];
    for (status, method, path, headers) in [
        (401, "post", "/v1/check", &nobody[..]),
        (401, "get", "/v1/forward-auth", &nobody),
        (401, "get", "/v1/policy", &nobody),
        (403, "get", "/v1/policy", &decider),
        (403, "put", "/v1/tiers/{tier}", &decider),
        (412, "put", "/v1/tiers/{tier}", &stale),
        (412, "delete", "/v1/tenants/{tenant}", &stale),
    ] {
        let answer = node.connect().call(&method.to_uppercase(), &filled(path), headers, b"{}");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        hold(&document, method, path, &answer);
    }
}
