//! What a node keeps on its disk, and who may read it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::POLICY;
use crate::rig::{self, Home, Node};

/// All that lies in a folder, with the modes; what the test itself writes down of its processes is
/// left out.
fn tree(folder: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_string();
            if name.starts_with("out-") || name.starts_with("log-") {
                continue;
            }
            if metadata.is_dir() {
                folders.push(path);
            }
            found.insert(name, metadata.mode() & 0o7777);
        }
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A node with an administrator's token in a file, under a umask that takes nothing away.
fn run_with_wide_umask(home: &Home) -> Node {
    let program = env!("CARGO_BIN_EXE_tidegate");
    let line = format!("umask 000; exec {program} serve --config cluster.toml");
    home.run_program("sh", &["-c", &line]).started()
}

#[test]
fn what_a_node_keeps_is_for_its_user_alone() {
    let home = Home::new(POLICY, "[auth]\nadmin_tokens = [\"file:token\"]\n");
    home.write("token", b"a-token-of-an-administrator\n");
    set_mode(&home.path("token"), 0o644);
    let node = run_with_wide_umask(&home);
    let warned = node.process.log().lines().filter(|line| line.contains("the token file ")).count();
    assert_eq!(warned, 1, "{}", node.process.log());
    let (status, log) = node.stop();
    assert!(status.success(), "{log}");
    let kept = |mode: fn(&str) -> u32| {
        let names =
            ["data", "data/counts.state", "data/peers.keys", "data/raft.redb", "data/stats.redb"];
        names.map(|name| (name.to_string(), mode(name))).into_iter().collect::<BTreeMap<_, _>>()
    };
    let private = kept(|name| if name == "data" { 0o700 } else { 0o600 });
    let data = |home: &Home| {
        tree(&home.path(""))
            .into_iter()
            .filter(|(name, _)| name.starts_with("data"))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(data(&home), private);
    // What an earlier program left is narrowed; the files beside the directory are left alone.
    for name in private.keys() {
        set_mode(&home.path(name), if name == "data" { 0o755 } else { 0o644 });
    }
    set_mode(&home.path("token"), 0o600);
    let node = run_with_wide_umask(&home);
    assert!(!node.process.log().contains("the token file "), "{}", node.process.log());
    let (status, log) = node.stop();
    assert!(status.success(), "{log}");
    assert_eq!(data(&home), private);
}

#[test]
fn a_node_writes_nothing_outside_its_data_directory() {
    let home = Home::new(POLICY, "");
    let before = tree(&home.path(""));
    let node = home.start();
    node.check(r#"{"tenant": "acme"}"#);
    assert!(node.stop().0.success());
    let after = tree(&home.path("")).into_iter().filter(|(name, _)| !name.starts_with("data"));
    assert_eq!(after.collect::<BTreeMap<_, _>>(), before);
}

#[test]
fn a_data_directory_of_another_user_is_told_with_the_cure() {
    // Only root can become another user.
    if !rustix::process::geteuid().is_root() {
        return rig::skip_for_want_of("root");
    }
    let Some(setpriv) = rig::needs("setpriv") else { return };
    let setpriv = setpriv.to_str().unwrap();
    let home = Home::new(POLICY, "");
    let folder = home.path("");
    set_mode(&folder, 0o755);
    // A copy, since the folder of the program may be root's alone.
    let program = home.path("tidegate");
    fs::copy(env!("CARGO_BIN_EXE_tidegate"), &program).unwrap();
    set_mode(&program, 0o755);
    fs::create_dir(home.path("data")).unwrap();
    let program = program.to_str().unwrap();
    let words = [
        "--reuid=65532",
        "--regid=65532",
        "--clear-groups",
        program,
        "serve",
        "--config",
        "cluster.toml",
    ];
    let mut refused = home.run_program(setpriv, &words);
    assert_eq!(refused.end().code(), Some(1), "{}", refused.log());
    let data = home.path("data");
    let cure = format!("belongs to uid 0: chown -R 65532:65532 {}", data.display());
    let log = refused.log();
    assert!(log.contains("this process runs as uid 65532") && log.contains(&cure), "{log}");
    // With a directory of its own it runs where it can write nothing else.
    std::os::unix::fs::chown(&data, Some(65532), Some(65532)).unwrap();
    let node = home.run_program(setpriv, &words).started();
    node.check(r#"{"tenant": "acme"}"#);
    let (status, log) = node.stop();
    assert!(status.success() && !log.contains("WARN"), "{log}");
}
