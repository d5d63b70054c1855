//! Words that a call does not know, in its query and in its body: each is refused by name, on every
//! call of the document.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use super::{POLICY, document, filled, operations, resolved};
use crate::rig::{Answer, Home, Node};

/// Calls that take any query: probes, scrapers, a browser's pages, and what an end user sent to a
/// proxy.
const LENIENT: [&str; 7] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/docs",
    "/docs/",
    "/v1/forward-auth",
    "/v1/forward-auth/{suffix}",
];

/// A call of the document, and the words that it documents.
#[derive(Clone, Debug)]
struct Operation {
    method: String,
    path: String,
    query: Vec<String>,
    members: Vec<String>,
    has_body: bool,
}

fn names_in(parameters: &Value) -> Vec<String> {
    let all = parameters.as_array().into_iter().flatten();
    let queries = all.filter(|parameter| parameter["in"] == "query");
    queries.map(|parameter| parameter["name"].as_str().unwrap().to_string()).collect()
}

/// The members that an object of the schema may have, in all its forms.
fn members(document: &Value, schema: &Value) -> Vec<String> {
    let schema = resolved(document, schema);
    let own = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let forms = ["oneOf", "anyOf", "allOf"].iter().filter_map(|kind| schema.get(kind)?.as_array());
    own.chain(forms.flatten().flat_map(|form| members(document, form))).collect()
}

fn described(document: &Value) -> Vec<Operation> {
    let of = |(path, method, operation): (&str, &str, &Value)| {
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        Operation {
            method: method.to_uppercase(),
            path: path.into(),
            query: names_in(&operation["parameters"]),
            members: members(document, body),
            has_body: !body.is_null(),
        }
    };
    // An answer to HEAD says how long its body would be, and has none to read.
    operations(document).into_iter().filter(|(_, method, _)| *method != "head").map(of).collect()
}

/// A documented name with a mistake, or any text at all.
fn names(documented: Vec<String>) -> impl Strategy<Value = String> {
    let camel = |name: String| {
        let mut parts = name.split('_');
        let first = parts.next().unwrap_or_default().to_string();
        parts.fold(first, |name, part| name + &part[..1].to_uppercase() + &part[1..])
    };
    let known = prop::sample::select(documented);
    prop_oneof![
        known.clone(),
        known.clone().prop_map(camel),
        known.clone().prop_map(|name| name.to_uppercase()),
        known.clone().prop_map(|name| name.replace('_', "-")),
        (known.clone(), any::<prop::sample::Index>()).prop_map(|(mut name, at)| {
            name.remove(at.index(name.len()));
            name
        }),
        (known, "[a-z]{1,3}").prop_map(|(name, more)| name + &more),
        "[A-Za-z0-9_.$-]{1,24}",
        "\\PC{1,12}",
    ]
}

/// The path by which a fault names a query name or a member.
fn shown(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !name.is_empty() && name.bytes().all(plain) { name.into() } else { format!("{name:?}") }
}

fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Whether a fault says that this word is unknown.
fn is_called_unknown(answer: &Answer, name: &str) -> bool {
    if answer.header("content-type") != Some("application/problem+json") {
        return false;
    }
    let problem = answer.json();
    let faults = problem["errors"].as_array().into_iter().flatten();
    let mut named = faults.filter(|fault| fault["path"] == shown(name).as_str());
    named.any(|fault| fault["detail"].as_str().is_some_and(|detail| detail.starts_with("unknown ")))
}

const TOKEN: &str = "a-token-for-every-call";

/// A node that takes back-ups, which one without tokens refuses before it reads anything.
fn node() -> Node {
    Home::new(POLICY, &format!("[auth]\nadmin_tokens = [{TOKEN:?}]\n")).start()
}

fn call(node: &Node, method: &str, path: &str, body: &str) -> Answer {
    node.connect().call(method, path, &[("x-tidegate-token", TOKEN)], body.as_bytes())
}

fn ask(node: &Node, operation: &Operation, query: &str, body: &str) -> Answer {
    call(node, &operation.method, &format!("{}{query}", filled(&operation.path)), body)
}

/// Tries each of so many cases at an operation and a name.
fn for_each_case(
    cases: u32,
    operations: Vec<Operation>,
    documented: Vec<String>,
    look: impl Fn(&Operation, &str) -> Result<(), TestCaseError>,
) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let cases = (prop::sample::select(operations), names(documented));
    let judged = TestRunner::new(config).run(&cases, |(operation, name)| look(&operation, &name));
    judged.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_query_name_is_documented_or_refused_by_name() {
    let node = node();
    let document = document(&node);
    let operations = described(&document);
    let documented: Vec<_> =
        operations.iter().flat_map(|operation| operation.query.clone()).collect();
    assert!(documented.len() > 20, "{documented:?}");
    // Whatever else is wrong with the call, an unknown name is refused before anything is done.
    let strict = operations.iter().filter(|operation| !LENIENT.contains(&operation.path.as_str()));
    for_each_case(1_500, strict.cloned().collect(), documented, |operation, name| {
        let is_documented = operation.query.iter().any(|known| known == name);
        let answer = ask(&node, operation, &format!("?{}=1&certainly-unknown", encoded(name)), "");
        prop_assert_eq!(answer.status, 400, "{:?} {} {}", operation, name, answer.text());
        prop_assert!(is_called_unknown(&answer, "certainly-unknown"), "{:?}", operation);
        prop_assert_ne!(
            is_called_unknown(&answer, name),
            is_documented,
            "{:?} {}",
            operation,
            name
        );
        Ok(())
    });
    for operation in
        operations.iter().filter(|operation| LENIENT.contains(&operation.path.as_str()))
    {
        let answer = ask(&node, operation, "?certainly-unknown=1", "");
        assert_ne!(answer.status, 400, "{operation:?} {}", answer.text());
        assert!(
            !is_called_unknown(&answer, "certainly-unknown"),
            "{operation:?} {}",
            answer.text()
        );
    }
}

#[test]
fn a_query_name_that_is_there_twice_is_refused() {
    let node = node();
    for path in [
        "/v1/tenants?limit=1&limit=2",
        "/v1/audit?before=5&before=5",
        "/v1/policy?version=1&version=1",
    ] {
        let problem = call(&node, "GET", path, "").problem(400);
        assert_eq!(problem["errors"][0]["detail"], "named twice", "{path}: {problem}");
    }
}

#[test]
fn a_member_of_a_body_is_documented_or_refused_by_name() {
    let node = node();
    let document = document(&node);
    let lenient = |operation: &Operation| LENIENT.contains(&operation.path.as_str());
    let operations = described(&document).into_iter().filter(|operation| !lenient(operation));
    let operations: Vec<_> = operations.collect();
    let documented: Vec<_> =
        operations.iter().flat_map(|operation| operation.members.clone()).collect();
    assert!(documented.len() > 50, "{documented:?}");
    for_each_case(1_500, operations, documented, |operation, name| {
        let is_documented = operation.members.iter().any(|known| known == name);
        let body = json!({"certainly-unknown": 1, name: {}});
        let answer = ask(&node, operation, "", &body.to_string());
        // A part of the policy that can't be is 422, as the whole document.
        let refused = answer.status == 400 || answer.status == 422 && operation.has_body;
        prop_assert!(refused, "{:?} {}: {} {}", operation, body, answer.status, answer.text());
        prop_assert!(
            is_called_unknown(&answer, "certainly-unknown"),
            "{:?} {}",
            operation,
            answer.text()
        );
        // Which members a limit has, its algorithm says, and these bodies name none.
        if !is_documented || !operation.path.ends_with("/limits/{name}") {
            let is_unknown = is_called_unknown(&answer, name);
            prop_assert_ne!(
                is_unknown,
                is_documented,
                "{:?} {} {}",
                operation,
                name,
                answer.text()
            );
        }
        Ok(())
    });
}

#[test]
fn a_body_that_is_not_read_is_refused_unless_it_is_empty() {
    let node = node();
    let operations: Vec<_> = described(&document(&node))
        .into_iter()
        .filter(|operation| !operation.has_body && !LENIENT.contains(&operation.path.as_str()))
        .collect();
    assert!(operations.len() > 20, "{operations:?}");
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000));
    for operation in &operations {
        for nothing in ["", " \n", "{}", " { } ", "null"] {
            let answer = ask(&node, operation, "", nothing);
            let text = answer.text();
            assert!(!text.contains("reads no body"), "{operation:?} {nothing:?}: {text}");
        }
        for something in ["[]", "0", "\"\"", "x", "\0", &long] {
            let answer = ask(&node, operation, "", something);
            let problem = answer.problem(400);
            let first = &problem["errors"][0];
            assert_eq!(
                *first,
                json!({"path": "", "detail": "this call reads no body"}),
                "{operation:?}"
            );
        }
    }
}

#[test]
fn a_name_that_is_nearly_right_is_answered_with_the_right_one() {
    let node = node();
    for (method, path, hint) in [
        ("PUT", "/v1/policy?dryRun=true", "did you mean dry_run?"),
        ("POST", "/v1/check?staus=429", "did you mean status?"),
        ("POST", "/v1/check/batch?status=429", "none is read here"),
        ("GET", "/v1/access?type=ip", "known are limit, after, list"),
        ("GET", "/api/stats?time_range=24h", "known are period, date"),
        ("DELETE", "/v1/cluster/nodes/n9?forced", "did you mean force?"),
        ("PUT", "/v1/cluster/settings?dryrun", "did you mean dry_run?"),
    ] {
        let problem = call(&node, method, path, "{}").problem(400);
        let detail = problem["errors"][0]["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("unknown query name; ") && detail.ends_with(hint),
            "{path}: {detail}"
        );
    }
}
