//! Checks, batches and compatible calls that are wrong.

use super::tables::{bad_bodies, bad_members};
use super::{all_that_is_left, call, has_fault, names, refuses, start};

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
