//! The document at `/openapi.json` is held to the node that serves it: every route is in it and
//! every call of it is routed, everything it refers to exists and is explained, and answers have
//! the shape it promises.

mod answers;
mod unknown_words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::rig::{Home, Node};

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
