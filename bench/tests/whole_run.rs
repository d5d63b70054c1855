//! The benchmark as a whole, on few tenants and for a second: that it measures, and that it refuses
//! to measure the wrong thing. A node is played by the benchmark's own bare service, behind a
//! script that reads the port from the configuration that a node would be given; so are those of a
//! cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BENCH: &str = env!("CARGO_BIN_EXE_tidegate-bench");

const SHORT: [&str; 8] =
    ["--rounds", "1", "--seconds", "1", "--connections", "3", "--tenants", "25"];

fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH).args(SHORT).args(arguments).output().unwrap()
}

fn bench_cluster(arguments: &[&str]) -> Output {
    Command::new(BENCH).arg("cluster").args(SHORT).args(arguments).output().unwrap()
}

/// A node whose every answer is that of `tier`, one of as many as are configured.
fn stand_in(folder: &Path, tier: &str) -> PathBuf {
    let script = folder.join("node");
    let text = format!(
        r#"#!/bin/sh
echo "serving under $*"
port=$(sed -n "/^id = \"$3\"$/,/^http/s/^http = \"127.0.0.1:\([0-9]*\)\"$/\1/p" cluster.toml)
exec '{BENCH}' bare --port "$port" --tier {tier} --nodes "$(grep -c '^\[\[nodes\]\]$' cluster.toml)"
"#
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn a_node_is_compared_with_the_bare_service() {
    let folder = tempfile::tempdir().unwrap();
    let node = stand_in(folder.path(), "two");
    let node = node.to_str().unwrap();
    let output = bench(&["--node-binary", node, "--scenario", "batch-10", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = report["comparisons"][0]["results"].as_array().unwrap();
    let names: Vec<_> = results.iter().map(|result| &result["candidate"]).collect();
    assert_eq!(names, ["tidegate", "bare"]);
    for result in results {
        assert!(result["median"]["decisions_per_second"].as_f64().unwrap() > 0.0);
        assert_eq!(result["median"]["denied_share"], 0.0);
        assert!(result["to_base"]["p50"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_node_that_leaves_out_a_limit_fails_the_run_and_its_log_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let node = stand_in(folder.path(), "one");
    let output = bench(&["--node-binary", node.to_str().unwrap(), "--scenario", "two-limits"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("a decision lists 1 limits, the tier has 2"), "{error}");
    assert!(error.contains("serving under serve --node n1 --config"), "{error}");
}

#[test]
fn a_cluster_is_compared_with_one_node_and_what_is_forwarded_with_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let node = stand_in(folder.path(), "two");
    let node = node.to_str().unwrap();
    let asked = ["forwarded", "cluster", "saturation"].map(|name| ["--scenario", name]).concat();
    let rest = ["--node-binary", node, "--saturation-seconds", "1", "--output", "json"];
    let output = bench_cluster(&[&asked[..], &rest[..]].concat());
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let shares = |scenario: usize| {
        let results = report["comparisons"][scenario]["results"].as_array().unwrap();
        let share = |result: &serde_json::Value| {
            let share = result["median"]["forwarded_share"].as_f64().unwrap();
            (result["candidate"].as_str().unwrap().to_owned(), share)
        };
        results.iter().map(share).collect::<Vec<_>>()
    };
    assert_eq!(shares(0), [("own".to_owned(), 0.0), ("forwarded".to_owned(), 1.0)]);
    let [alone, apart, (cluster, share)] = shares(1).try_into().unwrap();
    assert_eq!([alone, apart], ["alone", "apart"].map(|name| (name.to_owned(), 0.0)));
    assert!(cluster == "cluster" && share > 0.0 && share < 1.0, "{cluster}: {share}");
    assert_eq!(report["saturation"]["leader"], "n1");
    assert!(report["saturation"]["decisions"].as_u64().unwrap() > 0);
}
