//! Whatever is sent instead of a request is refused by the name of what is wrong with it, takes
//! nothing, and gives nothing away.

use serde_json::{Value, json};

use crate::rig::{Answer, Home, Node};

/// Secrets that no answer and no line of the log may repeat.
const ADMIN_TOKEN: &str = "canary-admin-7f3a9c";
const CHECK_TOKEN: &str = "canary-check-81b2d4";
const UNKNOWN_TOKEN: &str = "canary-unknown-5e60aa";
const API_KEY: &str = "canary-key-c0ffee";
const CANARY: &str = "canary";
/// What a line would begin with that a caller had smuggled into the log.
const FORGED: &str = "FORGED";

const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/h", burst = 1000 }]
[tiers.strict]
request_limits = "refuse"
[tenants.strict]
tier = "strict"
"#;

fn start() -> Node {
    let auth = format!(
        "[auth]\nadmin_tokens = [\"{ADMIN_TOKEN}\"]\ncheck_tokens = [\"{CHECK_TOKEN}\"]\n\
         [limits]\nbody_bytes = 4096\nbatch_body_bytes = 65536\npolicy_body_bytes = 65536"
    );
    Home::new(POLICY, &auth).set_variable("TIDEGATE_LOG", "trace").start()
}

/// A call with the token it needs; its answer has to keep the secrets.
fn call(node: &Node, method: &str, path: &str, body: &[u8]) -> Answer {
    let guarded = ["/v1/policy", "/v1/t", "/v1/access", "/v1/audit", "/api/config", "/admin"];
    let token =
        if guarded.iter().any(|start| path.starts_with(start)) { ADMIN_TOKEN } else { CHECK_TOKEN };
    let bearer = format!("Bearer {token}");
    let answer = node.connect().call(method, path, &[("authorization", &bearer)], body);
    keeps_secrets(&answer);
    answer
}

fn keeps_secrets(answer: &Answer) {
    let shown = format!("{:?} {}", answer.headers, answer.text());
    assert!(!shown.contains(CANARY), "{shown}");
}

/// The answer has to be a problem document that names `path`.
fn names(answer: &Answer, status: u16, path: &str, sent: &str) {
    let problem = answer.problem(status);
    has_fault(&problem, path, sent);
}

fn has_fault(problem: &Value, path: &str, sent: &str) {
    let faults = problem["errors"].as_array();
    let faults = faults.unwrap_or_else(|| panic!("{sent}: no errors in {problem}"));
    let found = faults.iter().any(|fault| {
        assert!(!fault["detail"].as_str().unwrap().is_empty(), "{problem}");
        fault["path"] == path
    });
    assert!(found, "{sent}: {path:?} is not named in {problem}");
}

/// What is left of every tenant that the bodies name.
fn all_that_is_left(node: &Node) -> Vec<Value> {
    ["a", "strict", "b"]
        .iter()
        .map(|tenant| {
            let question = json!({"tenant": tenant, "client": "c", "action": "x"}).to_string();
            call(node, "POST", "/v1/peek", question.as_bytes()).json()
        })
        .collect()
}

/// Members of a check that are wrong, and the path of the fault.
fn bad_members() -> Vec<(String, &'static str)> {
    let long = |count: usize| "x".repeat(count);
    let mut table: Vec<(String, &str)> = [
        // Numbers that are none, or not these.
        (r#""cost":0"#, "cost"),
        (r#""cost":-1"#, "cost"),
        (r#""cost":-0.5"#, "cost"),
        (r#""cost":1.5"#, "cost"),
        (r#""cost":1.0"#, "cost"),
        (r#""cost":1e3"#, "cost"),
        (r#""cost":1e30"#, "cost"),
        (r#""cost":1e309"#, "cost"),
        (r#""cost":-1e309"#, "cost"),
        (r#""cost":NaN"#, "cost"),
        (r#""cost":Infinity"#, "cost"),
        (r#""cost":4294967296"#, "cost"),
        (r#""cost":18446744073709551616"#, "cost"),
        (r#""cost":340282366920938463463374607431768211456"#, "cost"),
        (r#""cost":"3""#, "cost"),
        (r#""cost":true"#, "cost"),
        (r#""cost":[1]"#, "cost"),
        (r#""cost":{}"#, "cost"),
        (r#""cost":01"#, "cost"),
        (r#""cost":+1"#, "cost"),
        (r#""deadline_ms":0"#, "deadline_ms"),
        (r#""deadline_ms":-100"#, "deadline_ms"),
        (r#""deadline_ms":60001"#, "deadline_ms"),
        (r#""deadline_ms":"1s""#, "deadline_ms"),
        (r#""wait_ms":-1"#, "wait_ms"),
        (r#""wait_ms":60001"#, "wait_ms"),
        (r#""wait_ms":0.1"#, "wait_ms"),
        // Text that is none, or not this.
        (r#""tier":"""#, "tier"),
        (r#""tier":"a b""#, "tier"),
        (r#""tier":7"#, "tier"),
        (r#""client":"""#, "client"),
        (r#""client":"x\ny""#, "client"),
        (r#""client":"x\u0000""#, "client"),
        (r#""client":"x\u0085""#, "client"),
        (r#""client":7"#, "client"),
        (r#""client":["c"]"#, "client"),
        (r#""action":"""#, "action"),
        (r#""action":"\r\nFORGED: yes""#, "action"),
        (r#""action":false"#, "action"),
        (r#""method":"""#, "method"),
        (r#""method":"GE T""#, "method"),
        (r#""method":"GET\r\n""#, "method"),
        (r#""path":"x""#, "path"),
        (r#""path":"""#, "path"),
        (r#""path":"/\u0000""#, "path"),
        (r#""path":9"#, "path"),
        (r#""ip":"1.2.3""#, "ip"),
        (r#""ip":"1.2.3.256""#, "ip"),
        (r#""ip":"1.2.3.4:80""#, "ip"),
        (r#""ip":"::1%lo""#, "ip"),
        (r#""ip":"""#, "ip"),
        (r#""ip":16909060"#, "ip"),
        (r#""request_id":"""#, "request_id"),
        (r#""request_id":"a b""#, "request_id"),
        (r#""request_id":"a\u0000""#, "request_id"),
        (r#""request_id":5"#, "request_id"),
        (r#""api_key":"""#, "api_key"),
        (r#""api_key":"canary-key-c0ffee\n""#, "api_key"),
        (r#""api_key":["canary-key-c0ffee"]"#, "api_key"),
        (r#""api_key":{"canary-key-c0ffee":1}"#, "api_key"),
        // Objects and lists.
        (r#""attributes":[]"#, "attributes"),
        (r#""attributes":"region""#, "attributes"),
        (r#""attributes":{"a b":"x"}"#, r#"attributes."a b""#),
        (r#""attributes":{"":"x"}"#, r#"attributes."""#),
        (r#""attributes":{"region":5}"#, "attributes.region"),
        (r#""attributes":{"region":""}"#, "attributes.region"),
        (r#""attributes":{"region":"eu","region":"us"}"#, "attributes.region"),
        (r#""permit":5"#, "permit"),
        (r#""permit":true"#, "permit"),
        (r#""permit":{"ttl_ms":999}"#, "permit.ttl_ms"),
        (r#""permit":{"ttl_ms":3600001}"#, "permit.ttl_ms"),
        (r#""permit":{"ttl_ms":-1}"#, "permit.ttl_ms"),
        (r#""permit":{"ttl":1000}"#, "permit.ttl"),
        (r#""limits":{}"#, "limits"),
        (r#""limits":"none""#, "limits"),
        (r#""limits":[5]"#, "limits[0]"),
        (r#""limits":[{}]"#, "limits[0].name"),
        (r#""limits":[{}]"#, "limits[0].algorithm"),
        // Members that nobody knows, or that come twice.
        (r#""coost":1"#, "coost"),
        (r#""Cost":1"#, "Cost"),
        (r#""__proto__":{}"#, "__proto__"),
        (r#""a.b":1"#, r#""a.b""#),
        (r#""x\r\nFORGED":1"#, r#""x\r\nFORGED""#),
        (r#""cost":1,"cost":1"#, "cost"),
        (r#""tenant":"a""#, "tenant"),
    ]
    .iter()
    .map(|(text, path)| (text.to_string(), *path))
    .collect();
    table.extend([
        (format!(r#""tier":"{}""#, long(65)), "tier"),
        (format!(r#""client":"{}""#, long(257)), "client"),
        (format!(r#""action":"{}""#, long(257)), "action"),
        (format!(r#""method":"{}""#, long(33)), "method"),
        (format!(r#""path":"/{}""#, long(2048)), "path"),
        (format!(r#""request_id":"{}""#, long(257)), "request_id"),
        (format!(r#""api_key":"{}""#, CANARY.repeat(200)), "api_key"),
    ]);
    let many: Vec<_> = (0..17).map(|i| format!(r#""k{i}":"v""#)).collect();
    table.push((format!(r#""attributes":{{{}}}"#, many.join(",")), "attributes"));
    let limit =
        |i| format!(r#"{{"name":"l{i}","algorithm":"fixed_window","limit":1,"window":"1s"}}"#);
    let many: Vec<_> = (0..17).map(limit).collect();
    table.push((format!(r#""limits":[{}]"#, many.join(",")), "limits"));
    let twice = format!(r#""limits":[{},{}]"#, limit(1), limit(1));
    table.push((twice, "limits[1].name"));
    for (limit, path) in bad_limits() {
        table.push((format!(r#""limits":[{limit}]"#), in_list(path)));
    }
    table
}

/// `limits[0].` and the path; leaked, as a table's constants are.
fn in_list(path: &str) -> &'static str {
    format!("limits[0].{path}").leak()
}

/// Limits that are wrong, and the path of the fault within each.
fn bad_limits() -> Vec<(String, &'static str)> {
    let named = |rest: &str| format!(r#"{{"name":"n",{rest}}}"#);
    let of = |algorithm: &str, rest: &str| named(&format!(r#""algorithm":"{algorithm}",{rest}"#));
    vec![
        (named(r#""limit":1,"window":"1s""#), "algorithm"),
        (of("leaky_bukket", r#""rate":"1/s""#), "algorithm"),
        (of("", r#""rate":"1/s""#), "algorithm"),
        (named(r#""algorithm":7"#), "algorithm"),
        (of("fixed_window", r#""limit":1"#), "window"),
        (of("fixed_window", r#""window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":0,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":-1,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":1.5,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":1e30,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":"9","window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":9999999999999999,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":1,"window":"0s""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"5 mins""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"-1s""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"1.5s""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"1S""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"""#), "window"),
        (of("fixed_window", r#""limit":1,"window":60"#), "window"),
        (of("fixed_window", r#""limit":1,"window":"99999999999999999999w""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"11000d""#), "window"),
        (of("sliding_window", r#""limit":1,"window":"٣s""#), "window"),
        (of("sliding_log", r#""limit":10001,"window":"1m""#), "limit"),
        (of("fixed_window", r#""limit":1,"window":"1s","rate":"1/s""#), "rate"),
        (of("token_bucket", r#""burst":5"#), "rate"),
        (of("token_bucket", r#""rate":"5""#), "rate"),
        (of("token_bucket", r#""rate":"0/s""#), "rate"),
        (of("token_bucket", r#""rate":"-5/s""#), "rate"),
        (of("token_bucket", r#""rate":"5/0s""#), "rate"),
        (of("token_bucket", r#""rate":"5/s/s""#), "rate"),
        (of("token_bucket", r#""rate":"1.5/s""#), "rate"),
        (of("token_bucket", r#""rate":"five/s""#), "rate"),
        (of("token_bucket", r#""rate":"5/fortnight""#), "rate"),
        (of("token_bucket", r#""rate":5"#), "rate"),
        (of("token_bucket", r#""rate":"5/s","burst":0"#), "burst"),
        (of("token_bucket", r#""rate":"5/s","burst":-1"#), "burst"),
        (of("token_bucket", r#""rate":"5/s","burst":2,"initial":3"#), "initial"),
        (of("leaky_bucket", r#""rate":"5/s","burst":0.5"#), "burst"),
        (of("quota", r#""limit":1,"period":"century""#), "period"),
        (of("quota", r#""limit":1"#), "period"),
        (of("quota", r#""period":"day""#), "limit"),
        (of("token_bucket", r#""rate":"5/s","per":"tenant""#), "per"),
        (of("token_bucket", r#""rate":"5/s","per":["planet"]"#), "per[0]"),
        (of("token_bucket", r#""rate":"5/s","per":["tenant","tenant"]"#), "per"),
        (of("token_bucket", r#""rate":"5/s","per":["attribute:"]"#), "per[0]"),
        (of("token_bucket", r#""rate":"5/s","match":{"planet":"x"}"#), "match.planet"),
        (of("token_bucket", r#""rate":"5/s","match":{"action":""}"#), "match.action"),
        (of("token_bucket", r#""rate":"5/s","enforce":"yes""#), "enforce"),
        (of("token_bucket", r#""rate":"5/s","burts":5"#), "burts"),
        (of("token_bucket", r#""rate":"5/s","rate":"6/s""#), "rate"),
    ]
}

/// Bodies that are no JSON, or whose JSON is no check; all of them faults of the whole or of
/// `tenant`.
fn bad_bodies() -> Vec<(Vec<u8>, &'static str)> {
    let deep = |open: &str, close: &str| [open.repeat(300), close.repeat(300)].concat();
    let mut table: Vec<(Vec<u8>, &str)> = [
        ("", ""),
        (" ", ""),
        ("null", ""),
        ("true", ""),
        ("5", ""),
        ("NaN", ""),
        (r#""tenant""#, ""),
        ("[]", ""),
        (r#"[{"tenant":"a"}]"#, ""),
        ("{", ""),
        (r#"{"tenant":"a""#, ""),
        (r#"{"tenant":"a",}"#, ""),
        (r#"{"tenant":"a"} {"tenant":"a"}"#, ""),
        (r#"{"tenant":"a"},"#, ""),
        (r#"{'tenant':'a'}"#, ""),
        (r#"{tenant:"a"}"#, ""),
        (r#"{"tenant":"a","cost":0x10}"#, ""),
        ("tenant=a&cost=1", ""),
        ("<check tenant=\"a\"/>", ""),
        ("\u{feff}{\"tenant\":\"a\"}", ""),
        ("{}", "tenant"),
        (r#"{"cost":1}"#, "tenant"),
        (r#"{"tenant":null}"#, "tenant"),
        (r#"{"tenant":""}"#, "tenant"),
        (r#"{"tenant":5}"#, "tenant"),
        (r#"{"tenant":["a"]}"#, "tenant"),
        (r#"{"tenant":{"id":"a"}}"#, "tenant"),
        (r#"{"tenant":"a b"}"#, "tenant"),
        (r#"{"tenant":"a/b"}"#, "tenant"),
        (r#"{"tenant":"a@b"}"#, "tenant"),
        (r#"{"tenant":"*"}"#, "tenant"),
        (r#"{"tenant":"ä"}"#, "tenant"),
        (r#"{"tenant":"a\u0000"}"#, "tenant"),
        (r#"{"tenant":"a\r\nFORGED"}"#, "tenant"),
        (r#"{"tenant":"a\ud800"}"#, "tenant"),
        (r#"{"tenant":"a","tenant":"b"}"#, "tenant"),
    ]
    .iter()
    .map(|(text, path)| (text.as_bytes().to_vec(), *path))
    .collect();
    table.extend([
        (format!(r#"{{"tenant":"{}"}}"#, "a".repeat(129)).into_bytes(), "tenant"),
        (b"{\"tenant\":\"a\nb\"}".to_vec(), "tenant"),
        (b"{\"tenant\":\"a\0\"}".to_vec(), "tenant"),
        (b"{\"tenant\":\"\xff\xfe\"}".to_vec(), "tenant"),
        // An overlong spelling of `a`, and half of a surrogate pair.
        (b"{\"tenant\":\"\xc1\xa1\"}".to_vec(), "tenant"),
        (b"{\"tenant\":\"\xed\xa0\x80\"}".to_vec(), "tenant"),
        (b"\0\0\0\0".to_vec(), ""),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), ""),
    ]);
    for body in [deep("[", "]"), deep(r#"{"tenant":"#, "}")] {
        table.push((body.into_bytes(), ANYWHERE));
    }
    table
}

/// Stands for a path of which no more is asked than that there is a fault.
const ANYWHERE: &str = "anywhere";

fn refuses(node: &Node, path: &str, body: &[u8], fault: &str) {
    let sent = String::from_utf8_lossy(body).chars().take(200).collect::<String>();
    let answer = call(node, "POST", path, body);
    if fault == ANYWHERE {
        assert!(answer.problem(400)["errors"][0]["detail"].is_string(), "{sent}");
    } else {
        names(&answer, 400, fault, &format!("{path} {sent}"));
    }
}

#[test]
fn a_bad_check_is_refused_by_the_name_of_what_is_wrong_and_takes_nothing() {
    let node = start();
    let before = all_that_is_left(&node);
    for path in ["/v1/check", "/v1/peek"] {
        for (member, fault) in bad_members() {
            let body = format!(r#"{{"tenant":"a","client":"c",{member}}}"#);
            let body =
                if fault == "client" { body.replacen(r#""client":"c","#, "", 1) } else { body };
            refuses(&node, path, body.as_bytes(), fault);
        }
        for (body, fault) in bad_bodies() {
            refuses(&node, path, &body, fault);
        }
    }
    assert_eq!(all_that_is_left(&node), before);
}

#[test]
fn a_bad_check_in_a_batch_spoils_its_own_place_or_where_all_belong_together_all() {
    let node = start();
    let before = all_that_is_left(&node);
    let mut bodies: Vec<(String, &str)> = Vec::new();
    for (member, fault) in bad_members() {
        let client = if fault == "client" { "" } else { r#""client":"c","# };
        bodies.push((format!(r#"{{"tenant":"a",{client}{member}}}"#), fault));
    }
    for (body, fault) in bad_bodies() {
        if fault == "tenant"
            && let Ok(body) = String::from_utf8(body)
        {
            bodies.push((body, fault));
        }
    }
    for (body, fault) in bodies {
        let fault = format!("checks[1].{fault}");
        let batch = |mode: &str| {
            let body = format!(r#"{{"mode":"{mode}","checks":[{{"tenant":"good"}},{body}]}}"#);
            call(&node, "POST", "/v1/check/batch", body.as_bytes())
        };
        let whole = batch("all_or_nothing");
        names(&whole, 400, &fault, &body);
        // What isn't JSON can't be told apart into checks.
        if whole.json()["detail"].as_str().unwrap().contains("not JSON") {
            names(&batch("independent"), 400, &fault, &body);
            continue;
        }
        let each = batch("independent");
        assert_eq!(each.status, 200, "{body}: {}", each.text());
        let answer = each.json();
        assert_eq!(answer["allowed"], false, "{body}");
        assert_eq!(answer["decisions"][0]["allowed"], true, "{body}");
        assert_eq!(answer["decisions"][1]["error"]["status"], 400, "{body}");
        has_fault(&answer["decisions"][1]["error"], &fault, &body);
    }
    assert_eq!(all_that_is_left(&node), before);
}

#[test]
fn a_bad_batch_is_refused_as_a_whole() {
    let node = start();
    let before = all_that_is_left(&node);
    for (body, fault) in [
        ("", ""),
        ("[]", ""),
        ("{}", "checks"),
        (r#"{"checks":null}"#, "checks"),
        (r#"{"checks":{}}"#, "checks"),
        (r#"{"checks":[]}"#, "checks"),
        (r#"{"checks":[{"tenant":"a"}],"mode":"most"}"#, "mode"),
        (r#"{"checks":[{"tenant":"a"}],"mode":1}"#, "mode"),
        (r#"{"checks":[{"tenant":"a"}],"modus":"independent"}"#, "modus"),
        (r#"{"checks":[{"tenant":"a"}],"checks":[{"tenant":"a"}]}"#, "checks"),
        (
            r#"{"mode":"all_or_nothing","checks":[{"tenant":"a"},{"tenant":"b"}]}"#,
            "checks[1].tenant",
        ),
        (r#"{"mode":"all_or_nothing","checks":[5]}"#, "checks[0]"),
        (
            r#"{"mode":"all_or_nothing","checks":[{"tenant":"a","request_id":"r"},{"tenant":"a","request_id":"r"}]}"#,
            "checks[1].request_id",
        ),
    ] {
        refuses(&node, "/v1/check/batch", body.as_bytes(), fault);
    }
    assert_eq!(all_that_is_left(&node), before);
}

#[test]
fn a_bad_compatible_call_is_refused_by_the_name_of_what_is_wrong_and_takes_nothing() {
    let node = start();
    let status = "/api/status/a/c/x?max_requests=5&window_duration_seconds=60";
    let before = call(&node, "GET", status, b"").json();
    let good = [
        ("tenant_id", r#""a""#),
        ("client_id", r#""c""#),
        ("action_type", r#""x""#),
        ("max_requests", "5"),
        ("window_duration_seconds", "60"),
    ];
    let with = |member: &str, value: Option<&str>| {
        let members = good.iter().filter_map(|(name, text)| {
            let text = if *name == member { value? } else { text };
            Some(format!("\"{name}\":{text}"))
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    };
    let text = ["null", "5", r#""""#, r#""x\ny""#, r#""x\u0000""#, "[]", "true"];
    let number = [
        "null",
        "0",
        "-1",
        "1.5",
        "1e3",
        "1e30",
        "1e309",
        "NaN",
        r#""5""#,
        "true",
        "[5]",
        "99999999999999999999",
    ];
    for (member, _) in good {
        let bad: &[&str] =
            if member.ends_with("d") && !member.starts_with("window") || member == "action_type" {
                &text
            } else {
                &number
            };
        let missing = with(member, None);
        refuses(&node, "/api/check_and_consume", missing.as_bytes(), member);
        for value in bad {
            refuses(&node, "/api/check_and_consume", with(member, Some(value)).as_bytes(), member);
        }
        let twice =
            with(member, None).replacen('{', &format!("{{\"{member}\":1,\"{member}\":1,"), 1);
        refuses(&node, "/api/check_and_consume", twice.as_bytes(), member);
    }
    let unknown = with("", None).replacen('{', r#"{"cost":1,"#, 1);
    refuses(&node, "/api/check_and_consume", unknown.as_bytes(), "cost");
    for (body, fault) in bad_bodies().into_iter().filter(|(_, fault)| *fault != "tenant") {
        refuses(&node, "/api/check_and_consume", &body, fault);
    }
    for (query, fault) in [
        ("", "max_requests"),
        ("?max_requests=5", "window_duration_seconds"),
        ("?max_requests=0&window_duration_seconds=60", "max_requests"),
        ("?max_requests=-1&window_duration_seconds=60", "max_requests"),
        ("?max_requests=5&window_duration_seconds=1e3", "window_duration_seconds"),
        ("?max_requests=&window_duration_seconds=60", "max_requests"),
    ] {
        names(&call(&node, "GET", &format!("/api/status/a/c/x{query}"), b""), 400, fault, query);
    }
    assert_eq!(call(&node, "GET", status, b"").json(), before);
}

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

#[test]
fn a_bad_id_in_a_path_is_refused_as_a_problem() {
    let node = start();
    let long = "a".repeat(129);
    let bad = [
        "a%20b",
        "a%00",
        "a%0D%0AFORGED",
        "a%2Fb",
        "%C3%A4",
        "%FF",
        "%ED%A0%80",
        "a%40b",
        "*",
        "a+b",
        &long,
    ];
    for id in bad {
        for (method, path) in [
            ("GET", format!("/v1/tenants/{id}")),
            ("PUT", format!("/v1/tenants/{id}")),
            ("DELETE", format!("/v1/tenants/{id}")),
            ("POST", format!("/v1/tenants/{id}/reset")),
            ("PUT", format!("/v1/tenants/{id}/limits/n")),
            ("PUT", format!("/v1/tenants/x/limits/{id}")),
            ("DELETE", format!("/v1/tenants/x/limits/{id}")),
            ("GET", format!("/v1/tiers/{id}")),
            ("PUT", format!("/v1/tiers/{id}")),
            ("GET", format!("/v1/access/{id}")),
            ("DELETE", format!("/v1/access/{id}")),
            ("GET", format!("/api/config/tenant/{id}")),
            ("DELETE", format!("/api/config/tenant/{id}/action/x")),
            ("DELETE", format!("/api/config/tenant/{id}/client/c/action/x")),
            ("GET", format!("/admin/ratelimit/tenants/{id}")),
            ("DELETE", format!("/admin/ratelimit/tenants/{id}/reset")),
            ("DELETE", format!("/v1/permits/{id}")),
            ("POST", format!("/v1/permits/{id}/renew")),
            ("GET", format!("/api/status/{id}/c/x?max_requests=1&window_duration_seconds=1")),
        ] {
            let problem = call(&node, method, &path, b"{}").problem(400);
            assert!(problem["errors"][0]["path"].is_string(), "{method} {path}: {problem}");
        }
    }
    let control = "/api/status/a/%0AFORGED/x?max_requests=1&window_duration_seconds=1";
    names(&call(&node, "GET", control, b""), 400, "client", control);
    assert_eq!(call(&node, "GET", "/v1/policy", b"").header("etag"), Some("\"1\""));
}

#[test]
fn a_bad_renewal_extends_nothing() {
    let node = start();
    let check = r#"{"tenant":"b","permit":{"ttl_ms":60000}}"#;
    let permit = call(&node, "POST", "/v1/check", check.as_bytes()).json()["permit"]["id"].clone();
    let path = format!("/v1/permits/{}/renew", permit.as_str().unwrap());
    for (body, fault) in [
        (r#"{"ttl_ms":0}"#, "ttl_ms"),
        (r#"{"ttl_ms":999}"#, "ttl_ms"),
        (r#"{"ttl_ms":-1}"#, "ttl_ms"),
        (r#"{"ttl_ms":3600001}"#, "ttl_ms"),
        (r#"{"ttl_ms":1e30}"#, "ttl_ms"),
        (r#"{"ttl_ms":1.5}"#, "ttl_ms"),
        (r#"{"ttl_ms":"1m"}"#, "ttl_ms"),
        (r#"{"ttl_ms":60000,"ttl_ms":60000}"#, "ttl_ms"),
        (r#"{"tll_ms":60000}"#, "tll_ms"),
        ("[]", ""),
        ("60000", ""),
        ("{", ""),
    ] {
        refuses(&node, &path, body.as_bytes(), fault);
    }
    for id in [
        "p",
        "q00000000000000000000000000000000000",
        &"p0".repeat(18),
        "p0000000000000000000000000000000000G",
    ] {
        let answer = call(&node, "POST", &format!("/v1/permits/{id}/renew"), b"");
        names(&answer, 400, "id", id);
    }
    let nobodys = format!("/v1/permits/p{}/renew", "0".repeat(35));
    call(&node, "POST", &nobodys, b"").problem(404);
    assert_eq!(call(&node, "POST", &path, b"").status, 200);
}

#[test]
fn bad_parameters_and_headers_are_refused_by_name() {
    let node = start();
    let before = all_that_is_left(&node);
    for (method, path, fault) in [
        ("POST", "/v1/check?status=500", "status"),
        ("POST", "/v1/check?status=%FF", ANYWHERE),
        ("GET", "/v1/tenants?limit=0", "limit"),
        ("GET", "/v1/tenants?limit=-5", "limit"),
        ("GET", "/v1/tenants?limit=1001", "limit"),
        ("GET", "/v1/tenants?limit=99999999999999999999", "limit"),
        ("GET", "/v1/tenants?after=FORGED", "after"),
        ("GET", "/v1/tenants?after=active:-1:0", "after"),
        ("GET", "/v1/access?limit=99999999999999999999", "limit"),
        ("GET", "/v1/access?after=%0AFORGED", "after"),
        ("GET", "/v1/access?list=%00", "list"),
        ("GET", "/v1/audit?before=1e3", "before"),
        ("GET", "/v1/policy?version=99999999999999999999", "version"),
        ("GET", "/v1/policy?version=%FF", ANYWHERE),
        ("GET", "/api/config?after=%0AFORGED", "after"),
    ] {
        let body = if method == "POST" { &br#"{"tenant":"a"}"#[..] } else { b"" };
        let answer = call(&node, method, path, body);
        match fault {
            ANYWHERE => drop(answer.problem(400)),
            fault => names(&answer, 400, fault, path),
        }
    }
    let bearer = format!("Bearer {CHECK_TOKEN}");
    for key in ["", "a b", "\"\"", "\"a b\"", "\u{e4}", &"k".repeat(257)] {
        let headers = [("authorization", &*bearer), ("idempotency-key", key)];
        let answer = node.connect().call("POST", "/v1/check", &headers, br#"{"tenant":"a"}"#);
        names(&answer, 400, "Idempotency-Key", key);
    }
    let headers = [("authorization", &*bearer), ("idempotency-key", "one")];
    let answer = node.connect().call(
        "POST",
        "/v1/check",
        &headers,
        br#"{"tenant":"a","request_id":"other"}"#,
    );
    names(&answer, 400, "Idempotency-Key", "one");
    // Well-formed, but impossible.
    for (body, fault) in [
        (r#"{"tenant":"a","tier":"nowhere"}"#, "tier"),
        (
            r#"{"tenant":"strict","limits":[{"name":"n","algorithm":"token_bucket","rate":"1/s"}]}"#,
            "limits",
        ),
    ] {
        for path in ["/v1/check", "/v1/peek"] {
            names(&call(&node, "POST", path, body.as_bytes()), 422, fault, body);
        }
    }
    assert_eq!(all_that_is_left(&node), before);
}

#[test]
fn no_answer_and_no_line_of_the_log_holds_a_key_a_token_or_a_forged_line() {
    let node = start();
    let bearer = |token: &str| format!("Bearer {token}");
    let key = format!(r#"{{"tenant":"a","api_key":"{API_KEY}"}}"#);
    let spoilt = format!(r#"{{"tenant":"a","api_key":"{API_KEY}","cost":-1}}"#);
    let broken = format!(r#"{{"tenant":"a","api_key":"{API_KEY}"#);
    let listed = format!(r#"{{"list":"deny","api_key":"{API_KEY}"}}"#);
    for token in [ADMIN_TOKEN, CHECK_TOKEN, UNKNOWN_TOKEN] {
        for (method, path) in [
            ("POST", "/v1/check"),
            ("POST", "/v1/peek"),
            ("GET", "/v1/policy"),
            ("PUT", "/v1/policy"),
            ("PUT", "/v1/tenants/x"),
            ("POST", "/v1/access"),
            ("PUT", "/api/config/global"),
            ("POST", "/v1/tenants/x/reset"),
            ("GET", "/livez"),
            ("GET", "/nowhere"),
            ("DELETE", "/v1/check"),
        ] {
            for body in [&key, &spoilt, &broken, &listed] {
                for name in ["authorization", "x-tidegate-token"] {
                    let value =
                        if name == "authorization" { bearer(token) } else { token.to_string() };
                    let answer =
                        node.connect().call(method, path, &[(name, &value)], body.as_bytes());
                    keeps_secrets(&answer);
                }
            }
        }
    }
    let forged: [(&str, &str, &[u8]); 6] = [
        ("POST", "/v1/tenants/a%0D%0AFORGED%00/reset", b""),
        ("PUT", "/v1/tenants/a%0AFORGED", b"{}"),
        ("DELETE", "/v1/tiers/%0AFORGED", b""),
        ("GET", "/v1/tenants?after=%0D%0AFORGED%00", b""),
        ("POST", "/v1/check", b"{\"tenant\":\"a\\r\\nFORGED\\u0000\"}"),
        ("POST", "/v1/check", b"{\"tenant\":\"a\",\"action\":\"\\nFORGED\",\"\\nFORGED\":1}"),
    ];
    for (method, path, body) in forged {
        let answer = call(&node, method, path, body);
        assert!((400..500).contains(&answer.status), "{method} {path}");
        assert!(!answer.headers.iter().any(|(_, value)| value.contains(FORGED)));
        assert!(!answer.body.iter().any(|byte| *byte < b' '), "{}", answer.text());
    }
    // A forged line needs no good request: here the head itself is spoilt.
    for head in [
        "GET /\u{7f}\0FORGED HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: x\0FORGED\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost\0FORGED: x\r\n\r\n",
        "FORGED\r\n\r\n",
    ] {
        if let Some(answer) = node.connect().ask(head) {
            assert!((400..500).contains(&answer.status), "{head:?}");
        }
    }
    // Something is logged at all, so that silence proves something.
    assert_eq!(call(&node, "POST", "/v1/tenants/x/reset", b"").status, 200);
    let (_, log) = node.stop();
    assert!(log.contains("tenant reset"), "{log}");
    assert!(!log.contains(CANARY), "{log}");
    for line in log.lines() {
        assert!(!line.starts_with(FORGED), "{line}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}
