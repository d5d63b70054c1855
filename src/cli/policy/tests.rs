//! Tests of `policy`.

use super::super::testing::{Ran, Reply, Server, run_words, words};
use super::*;

const CHANGES: &str = r#"{"dry_run":true,"version":12,"changes":[
        {"path":"tenants.acme","op":"add","to":{"tier":"pro"}},
        {"path":"tiers.old","op":"remove","from":{"limits":[]}},
        {"path":"tiers.pro.limits[minute].limit","op":"change","from":100,"to":200}]}"#;
const POLICY: &str = "default_tier = \"free\"\n[tiers.free]\nlimits = []\n";

/// A file of its own with this text.
fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn run_on(path: &Path, verb: &str, rest: &str) -> Ran {
    let mut line = words(&format!("tidegate policy {verb}"));
    line.push(path.into());
    line.extend(words(rest));
    run_words(line)
}

#[test]
fn validate_accepts_toml_and_json_by_name_or_content_without_a_node() {
    let json = r#" {"default_tier": "free", "tiers": {"free": {"limits": []}}}"#;
    for (name, text) in
        [("p.toml", POLICY), ("p.JSON", json), ("policy", POLICY), ("policy.txt", json)]
    {
        let (_folder, path) = file(name, text);
        let ran = run_on(&path, "validate", "--url nonsense");
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        assert_eq!(
            ran.data,
            format!("{}: valid, 1 tiers and 0 tenants with rules\n", path.display())
        );
    }
}

#[test]
fn validate_prints_every_fault_with_its_path_and_exits_1() {
    let text = "default_tier = \"free\"\n[tiers.free]\nweigth = \"1\"\nmax_concurrent = \
                0\nlimits = []\n";
    let (_folder, path) = file("p.toml", text);
    let ran = run_on(&path, "validate", "");
    assert_eq!(ran.exit, Exit::Failed);
    let paths: Vec<_> = ran.data.lines().filter_map(|line| line.split_once(": ")).collect();
    let paths: Vec<_> = paths.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, ["tiers.free.max_concurrent", "tiers.free.weigth"], "{}", ran.data);
    assert!(ran.notes.ends_with("p.toml is invalid: 2 faults\n"), "{}", ran.notes);

    let ran = run_on(&path, "validate", "-o json");
    assert_eq!(ran.exit, Exit::Failed);
    let printed: Value = serde_json::from_str(&ran.data).unwrap();
    assert_eq!(printed["valid"], json!(false));
    assert_eq!(printed["errors"][1]["path"], json!("tiers.free.weigth"));
}

#[test]
fn what_is_not_there_or_not_a_document_fails() {
    let (folder, path) = file("p.json", "{");
    assert_eq!(run_on(&path, "validate", "").exit, Exit::Failed);
    let missing = folder.path().join("missing.toml");
    let ran = run_on(&missing, "validate", "");
    assert_eq!(ran.exit, Exit::Failed);
    assert!(
        ran.notes.contains("can't read") && ran.notes.contains("missing.toml"),
        "{}",
        ran.notes
    );
}

#[test]
fn get_prints_toml_as_it_is_or_json_in_lines() {
    let server = Server::replying([Reply::ok(POLICY), Reply::ok(r#"{"default_tier":"free"}"#)]);
    assert_eq!(server.run("tidegate policy get").data, POLICY);
    assert_eq!(
        server.run("tidegate policy get -o json").data,
        "{\n  \"default_tier\": \"free\"\n}\n"
    );
    let seen = server.seen();
    assert_eq!(seen[0].line, "GET /v1/policy");
    assert_eq!(seen[0].header("accept"), Some("application/toml"));
    assert_eq!(seen[1].header("accept"), Some("application/json"));
}

#[test]
fn diff_prints_a_line_for_each_change_and_exits_1() {
    let (_folder, path) = file("p.toml", POLICY);
    let server = Server::replying([Reply::ok(CHANGES)]);
    let ran = run_on(&path, "diff", &format!("--url {}", server.url));
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(
        ran.data,
        "tiers:\n- tiers.old: { limits = [] }\n~ tiers.pro.limits.minute.limit: 100 → 200  \
         (spent stays spent)\n\ntenants:\n+ tenants.acme: { tier = \"pro\" }\n\n1 added, 1 \
         changed, 1 removed\n"
    );
    assert_eq!(ran.notes, "compared with policy version 12\n");
    let seen = server.seen();
    assert_eq!(seen[0].line, "PUT /v1/policy?dry_run=true");
    assert_eq!(seen[0].header("content-type"), Some("application/toml"));
    assert_eq!(seen[0].body, POLICY);
}

#[test]
fn diff_exits_0_when_nothing_differs_and_2_when_there_is_no_comparison() {
    let (_folder, path) = file("p.json", "{}");
    let server = Server::replying([
        Reply::ok(r#"{"dry_run":true,"version":12,"changes":[]}"#),
        Reply::status(
            422,
            r#"{"title":"Invalid policy","errors":[{"path":"default_tier","detail":"is required"}]}"#,
        ),
    ]);
    let url = format!("--url {}", server.url);
    let same = run_on(&path, "diff", &url);
    assert_eq!((same.exit, same.data.as_str()), (Exit::Done, "no differences\n"));
    let invalid = run_on(&path, "diff", &url);
    assert_eq!((invalid.exit, invalid.data.as_str()), (Exit::Usage, ""));
    assert_eq!(invalid.notes, "error: Invalid policy (HTTP 422)\n  default_tier: is required\n");
    let gone = run_on(&path, "diff", &url);
    assert_eq!(gone.exit, Exit::Unreachable);
}

#[test]
fn apply_says_which_version_it_made_and_who_lacks_it() {
    let (_folder, path) = file("p.toml", POLICY);
    let server = Server::replying([
        Reply::ok(r#"{"version":13,"pending":[]}"#),
        Reply::ok(r#"{"version":14,"pending":["n2","n3"]}"#),
    ]);
    let url = format!("--url {}", server.url);
    let ran = run_on(&path, "apply", &url);
    assert_eq!((ran.exit, ran.data.as_str()), (Exit::Done, "policy version 13\n"));
    let ran = run_on(&path, "apply", &format!("--if-version 13 {url}"));
    assert_eq!(ran.data, "policy version 14\npending on n2, n3, which will follow once reached\n");
    let seen = server.seen();
    assert_eq!(seen[0].line, "PUT /v1/policy");
    assert_eq!(seen[0].header("if-match"), None);
    assert_eq!(seen[1].header("if-match"), Some("\"13\""));
}

#[test]
fn a_dry_run_of_apply_prints_the_changes_and_exits_0() {
    let (_folder, path) = file("p.toml", POLICY);
    let server = Server::replying([Reply::ok(CHANGES)]);
    let ran = run_on(&path, "apply", &format!("--dry-run --url {}", server.url));
    assert_eq!(ran.exit, Exit::Done);
    assert!(ran.data.ends_with("\n1 added, 1 changed, 1 removed\n"), "{}", ran.data);
    assert_eq!(ran.notes, "a dry run: policy version 12 stays in force\n");
    assert_eq!(server.seen()[0].line, "PUT /v1/policy?dry_run=true");
}

#[test]
fn get_prints_an_earlier_version_where_one_is_named() {
    let server = Server::replying([Reply::ok(POLICY)]);
    assert_eq!(server.run("tidegate policy get --at-version 7").data, POLICY);
    assert_eq!(server.seen()[0].line, "GET /v1/policy?version=7");
}

#[test]
fn history_prints_a_line_for_each_version() {
    let answer = r#"{"version":10,"versions":[
            {"version":10,"time":"2026-01-02T00:00:00Z","by":"ops","what":"put tier pro"},
            {"version":9,"time":"2026-01-01T00:00:00Z","by":"admin-1","what":"replaced\u001b the policy"}]}"#;
    let server = Server::replying([Reply::ok(answer), Reply::ok(answer)]);
    assert_eq!(
        server.run("tidegate policy history").data,
        "VERSION  TIME                  BY       WHAT\n     \
         10  2026-01-02T00:00:00Z  ops      put tier pro\n      \
         9  2026-01-01T00:00:00Z  admin-1  replaced\u{fffd} the policy\n"
    );
    let ran = server.run("tidegate policy history -o json");
    assert!(serde_json::from_str::<Value>(&ran.data).is_ok_and(|printed| printed["version"] == 10));
}

#[test]
fn rollback_names_the_version_and_prints_what_would_change_if_asked() {
    let server =
        Server::replying([Reply::ok(CHANGES), Reply::ok(r#"{"version":13,"pending":[]}"#)]);
    let ran = server.run("tidegate policy rollback 7 --dry-run");
    assert!(ran.data.ends_with("\n1 added, 1 changed, 1 removed\n"), "{}", ran.data);
    assert_eq!(ran.notes, "a dry run: policy version 12 stays in force\n");
    let ran = server.run("tidegate policy rollback 7 --if-version 12");
    assert_eq!((ran.exit, ran.data.as_str()), (Exit::Done, "policy version 13\n"));
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /v1/policy/rollback?dry_run=true");
    assert_eq!(
        (seen[1].line.as_str(), seen[1].json()),
        ("POST /v1/policy/rollback", json!({"version": 7}))
    );
    assert_eq!(seen[1].header("if-match"), Some("\"12\""));
}

#[test]
fn enforce_throws_the_switch_and_says_what_that_means() {
    let written = || Reply::ok(r#"{"version":13,"pending":[]}"#);
    let server = Server::replying([written(), written(), written()]);
    let off = server.run("tidegate policy enforce off");
    assert_eq!((off.exit, off.data.as_str()), (Exit::Done, "policy version 13\n"));
    assert_eq!(off.notes, "no limit denies any more; the deny list still does\n");
    assert_eq!(server.run("tidegate policy enforce on --if-version 13").notes, "");
    assert_eq!(server.run("tidegate policy enforce off -o json").notes, "");
    let seen = server.seen();
    assert_eq!(
        (seen[0].line.as_str(), seen[0].json()),
        ("PUT /v1/policy/enforce", json!({"enforce": false}))
    );
    assert_eq!(
        (seen[1].json(), seen[1].header("if-match")),
        (json!({"enforce": true}), Some("\"13\""))
    );
}

#[test]
fn a_stale_version_fails() {
    let (_folder, path) = file("p.toml", POLICY);
    let server = Server::replying([Reply::status(
        412,
        r#"{"title":"Stale","detail":"policy is at version 14, the change expects 13"}"#,
    )]);
    let ran = run_on(&path, "apply", &format!("--if-version 13 --url {}", server.url));
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(
        ran.notes,
        "error: Stale: policy is at version 14, the change expects 13 (HTTP 412)\n"
    );
}
