//! The benchmark as a whole, on few tenants and for a second: that it measures, and that it refuses to measure the
//! wrong thing. The node is played by the benchmark's own bare service, behind a script that reads the port from
//! the configuration that a node would be given.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BENCH: &str = env!("CARGO_BIN_EXE_tidegate-bench");

fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH)
        .args(["--rounds", "1", "--seconds", "1", "--connections", "3", "--tenants", "25"])
        .args(arguments)
        .output()
        .unwrap()
}

/// A node whose every answer is that of `tier`.
fn stand_in(folder: &Path, tier: &str) -> PathBuf {
    let script = folder.join("node");
    let text = format!(
        r#"#!/bin/sh
echo "serving under $*"
port=$(sed -n 's/^http = "127.0.0.1:\([0-9]*\)"$/\1/p' cluster.toml)
exec '{BENCH}' bare --port "$port" --tier {tier}
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
        assert!(result["to_bare"]["p50"].as_f64().unwrap() > 0.0);
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
