//! The document at `/openapi.json` is held to the node that serves it: every route is in it and
//! every call of it is routed, everything it refers to exists and is explained, and answers have
//! the shape it promises.

mod unknown_words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::rig::{Answer, Home, Node};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
max_concurrent = 1
limits = [{ name = "rate", per = ["tenant"], algorithm = "sliding_log", limit = 3, window = "1h" }]
[tiers.open]
[tenants.big]
tier = "open"
[access.friend]
list = "allow"
tenant = "friend"
reason = "our own"
[access.foe]
list = "deny"
tenant = "foe"
"#;

fn node() -> Node {
    Home::new(POLICY, "").start()
}

fn document(node: &Node) -> Value {
    let answer = node.call("GET", "/openapi.json", "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

/// Path, method and description of every call.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods
                .filter(|(method, _)| METHODS.contains(&method.as_str()))
                .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
        .collect()
}

/// The sources below `folder`.
fn sources(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![fs::read_to_string(path).unwrap()],
        })
        .collect()
}

/// Every route that the sources name, with its methods.
fn routes() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut routes: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for text in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")) {
        // The formatter breaks a long route into lines: the path on one of its own, and the
        // handlers on the next.
        for route in text.split(".route(").skip(1) {
            let (path, handlers) =
                route.trim_start().trim_start_matches('"').split_once("\",").unwrap();
            let handlers = handlers.trim_start().split([';', '\n']).next().unwrap();
            let takes = |method: &&str| {
                handlers.contains(&format!("{method}(")) || handlers.contains("any(")
            };
            let methods = METHODS.into_iter().filter(|method| takes(method));
            routes.entry(path.replace("{*", "{")).or_default().extend(methods);
        }
    }
    routes
}

#[test]
fn every_route_is_described_and_every_described_call_has_a_route() {
    let mut routes = routes();
    assert!(routes.len() > 20, "the sources are read wrongly: {routes:?}");
    // The same as below, with nothing below; and files of a page that a browser asks for.
    for not_a_call in ["/v1/forward-auth/", "/docs/{file}"] {
        assert!(routes.remove(not_a_call).is_some(), "{not_a_call}");
    }
    let document = document(&node());
    let mut described: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (path, method, _) in operations(&document) {
        described.entry(path.into()).or_default().insert(method);
    }
    assert_eq!(format!("{described:#?}"), format!("{routes:#?}"));
}

/// A path with something in the place of each parameter.
fn filled(path: &str) -> String {
    let values = [
        ("{id}", "p00000000000000000000000000000000000"),
        ("{tenant}", "acme"),
        ("{tier}", "free"),
        ("{name}", "rate"),
        ("{client}", "user-1"),
        ("{action}", "export"),
        ("{suffix}", "ocr/process"),
    ];
    values.iter().fold(path.to_string(), |path, (part, value)| path.replace(part, value))
}

#[test]
fn a_node_takes_exactly_the_methods_that_are_described_and_says_which_they_are() {
    let node = node();
    let document = document(&node);
    for (path, item) in document["paths"].as_object().unwrap() {
        let mut takes: BTreeSet<_> =
            METHODS.into_iter().filter(|method| item.get(method).is_some()).collect();
        if takes.contains("get") {
            takes.insert("head");
        }
        for method in METHODS.into_iter().filter(|method| *method != "head") {
            let answer = node.call(&method.to_uppercase(), &filled(path), "");
            if takes.contains(method) {
                assert_ne!(answer.status, 405, "{method} {path}");
                assert!(!answer.text().contains("there is nothing at"), "{method} {path}");
                continue;
            }
            answer.problem(405);
            let allow = answer.header("allow").unwrap_or_default().to_ascii_lowercase();
            assert_eq!(
                allow.split(',').map(str::trim).collect::<BTreeSet<_>>(),
                takes,
                "{method} {path}"
            );
        }
    }
}

/// Calls `look` with every object and list below, and where it stands.
fn walk(value: &Value, at: &str, look: &mut impl FnMut(&str, &Value)) {
    look(at, value);
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                // What stands in examples is data.
                if !["example", "examples", "default", "enum"].contains(&name.as_str())
                    || at.ends_with("/properties")
                {
                    walk(value, &format!("{at}/{}", name.replace('/', "~1")), look);
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| walk(item, &format!("{at}/{i}"), look));
        }
        _ => {}
    }
}

#[test]
fn everything_that_is_referred_to_exists_and_every_component_is_referred_to() {
    let document = document(&node());
    let mut used = BTreeSet::new();
    walk(&document, "", &mut |at, value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
            assert!(target.is_some(), "{at} refers to {reference}, which isn't there");
            used.insert(reference.to_string());
        }
    });
    for kind in ["schemas", "responses"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(
                used.contains(&format!("#/components/{kind}/{name}")),
                "nothing refers to {name}"
            );
        }
    }
}

/// The schema, or what it refers to.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Whether the schema, what it refers to, or one of its variants says this of itself.
fn says(document: &Value, schema: &Value, members: &[&str]) -> bool {
    // An object is shown by its members, each of which is looked at by itself.
    let shown = members.contains(&"example");
    let of_itself = |schema: &Value| {
        members.iter().any(|member| schema.get(member).is_some())
            || shown && schema.get("properties").is_some()
    };
    let variants = ["oneOf", "anyOf", "allOf"]
        .iter()
        .filter_map(|kind| schema.get(kind)?.as_array())
        .flatten();
    of_itself(schema)
        || of_itself(resolved(document, schema))
        || variants.into_iter().any(|variant| says(document, variant, members))
}

#[test]
fn every_member_and_every_parameter_is_explained_and_shown_by_an_example() {
    let document = document(&node());
    let (mut members, mut missing) = (0, Vec::new());
    walk(&document, "", &mut |at, value| {
        let parameter = value.get("in").is_some() && value.get("schema").is_some();
        if at.rsplit('/').nth(1) == Some("properties") {
            members += 1;
            for (what, words) in
                [("description", &["description"][..]), ("example", &["example", "examples"])]
            {
                if !says(&document, value, words) {
                    missing.push(format!("{at} has no {what}"));
                }
            }
        }
        if parameter {
            let example = says(&document, &value["schema"], &["example", "examples"]);
            if !example || value["description"].as_str().is_none_or(str::is_empty) {
                missing.push(format!("{at} is not explained"));
            }
        }
    });
    assert!(members > 100, "only {members} members were looked at");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_text_and_every_number_that_comes_in_has_bounds() {
    let document = document(&node());
    let bounded = |schema: &Value| match schema["type"].as_str() {
        Some("string") => {
            ["pattern", "enum", "format"].iter().any(|bound| schema.get(bound).is_some())
        }
        Some("integer" | "number") => {
            schema.get("minimum").is_some() && schema.get("maximum").is_some()
        }
        Some("array") => schema.get("maxItems").is_some(),
        Some("object") => {
            schema["additionalProperties"] == false || schema.get("maxProperties").is_some()
        }
        _ => true,
    };
    let mut seen = BTreeSet::new();
    let mut open: Vec<Value> = Vec::new();
    for (_, _, operation) in operations(&document) {
        open.extend(
            operation["requestBody"]["content"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, c)| c["schema"].clone()),
        );
        open.extend(
            operation["parameters"].as_array().into_iter().flatten().map(|p| p["schema"].clone()),
        );
    }
    let mut looked_at = 0;
    while let Some(schema) = open.pop() {
        // A limit for everybody is a limit that has to say what it is per.
        if schema == json!({"type": "object", "required": ["per"]})
            || !seen.insert(schema.to_string())
        {
            continue;
        }
        let schema = resolved(&document, &schema);
        assert!(bounded(schema), "has no bounds: {schema}");
        looked_at += 1;
        let variants =
            ["oneOf", "allOf"].iter().filter_map(|kind| schema.get(kind)?.as_array()).flatten();
        open.extend(variants.cloned());
        open.extend(schema.get("items").cloned());
        open.extend(schema.get("additionalProperties").filter(|more| more.is_object()).cloned());
        open.extend(
            schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, member)| member.clone()),
        );
    }
    assert!(looked_at > 60, "only {looked_at} schemas were looked at");
}

#[test]
fn every_call_has_a_name_of_its_own_a_summary_a_known_tag_and_says_how_it_fails_and_who_may_make_it()
 {
    let document = document(&node());
    let tags: BTreeSet<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .map(Value::to_string)
        .collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let at = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{at}");
        for member in ["summary", "description"] {
            assert!(
                operation[member].as_str().is_some_and(|text| !text.is_empty()),
                "{at} has no {member}"
            );
        }
        let tag = operation["tags"].as_array().unwrap();
        assert!(tag.len() == 1 && tags.contains(&tag[0].to_string()), "{at}: {tag:?}");
        let answers = operation["responses"].as_object().unwrap();
        assert!(
            answers.keys().any(|status| status.starts_with('2') || status.starts_with('3')),
            "{at}"
        );
        assert!(answers.keys().any(|status| status.starts_with('4')), "{at}");
        let guarded = answers.contains_key("401");
        assert_eq!(
            operation["security"].as_array().is_some_and(|ways| !ways.is_empty()),
            guarded,
            "{at}"
        );
        for (status, answer) in answers {
            let answer = resolved(&document, answer);
            assert!(
                answer["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{at} {status}"
            );
            if status.starts_with('4') || status == "500" {
                assert!(
                    answer["content"].get("application/problem+json").is_some(),
                    "{at} {status}"
                );
            }
        }
        // Every part of the path is a parameter, and the other way round.
        let parts: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let parameters =
            operation["parameters"].as_array().unwrap().iter().filter(|p| p["in"] == "path");
        assert_eq!(
            parameters.map(|p| p["name"].as_str().unwrap()).collect::<BTreeSet<_>>(),
            parts,
            "{at}"
        );
    }
}

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
            "[responses]\nheaders = [\"draft8\", \"legacy\", \"x\", \
                                 \"per_window\"]\ndenial_body = \"{body}\"\n"
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

/// The examples of a schema, wherever they stand, are valid by it.
#[test]
fn every_example_is_valid() {
    let document = document(&node());
    let mut shown = 0;
    walk(&document, "", &mut |at, value| {
        let examples = value.get("examples").and_then(Value::as_array).cloned().unwrap_or_default();
        let examples = examples.into_iter().chain(value.get("example").cloned());
        for example in examples.filter(|_| !at.ends_with("/properties")) {
            let mut root = document.clone();
            root["allOf"] = json!([value]);
            let validator =
                jsonschema::options().should_validate_formats(true).build(&root).unwrap();
            let faults: Vec<_> = validator.iter_errors(&example).map(|e| e.to_string()).collect();
            assert!(faults.is_empty(), "{at}: {faults:?} in {example}");
            shown += 1;
        }
    });
    assert!(shown > 100, "only {shown} examples were looked at");
}

#[test]
fn the_page_loads_nothing_from_elsewhere_and_says_so_to_the_browser() {
    let node = node();
    let page = node.call("GET", "/docs", "");
    assert_eq!((page.status, page.header("location")), (308, Some("docs/")));
    for (file, kind) in [
        ("", "text/html"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui.css", "text/css"),
        ("swagger-initializer.js", "text/javascript"),
    ] {
        let answer = node.call("GET", &format!("/docs/{file}"), "");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{file}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("http") && !policy.contains('*'), "{policy}");
    }
    let starts = node.call("GET", "/docs/swagger-initializer.js", "").text();
    assert!(
        starts.contains("../openapi.json") && starts.contains(r#""validatorUrl": "none""#),
        "{starts}"
    );
    node.call("GET", "/docs/nothing.js", "").problem(404);
    node.call("GET", "/docs/..%2f..%2fetc%2fpasswd", "").problem(404);
}
