//! The direction in which the rooms of the house know each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every room, and the rooms it may use. Who isn't listed on the right is out of reach.
const HOUSE: [(&str, &[&str]); 25] = [
    ("time", &[]),
    ("permit", &[]),
    ("clock", &[]),
    ("random", &[]),
    ("codec", &[]),
    ("watch", &[]),
    ("files", &[]),
    ("net", &["check", "watch"]),
    ("input", &[]),
    ("limit", &["permit", "time"]),
    ("check", &["limit", "permit"]),
    ("placement", &[]),
    ("membership", &["check", "placement", "state", "time"]),
    ("state", &["check", "codec", "input", "placement", "policy", "time"]),
    ("policy", &["check", "input", "limit", "placement", "time"]),
    ("plain", &["check", "limit", "placement"]),
    ("shard", &["check", "limit", "placement", "plain", "policy", "random", "time"]),
    ("actor", &["check", "clock", "codec", "files", "placement", "policy", "random", "shard"]),
    (
        "peer",
        &[
            "check",
            "clock",
            "codec",
            "limit",
            "net",
            "placement",
            "plain",
            "policy",
            "random",
            "shard",
            "watch",
        ],
    ),
    (
        "cluster",
        &[
            "actor",
            "check",
            "clock",
            "codec",
            "files",
            "input",
            "limit",
            "net",
            "peer",
            "placement",
            "policy",
            "random",
            "shard",
            "watch",
        ],
    ),
    (
        "routing",
        &["actor", "check", "clock", "cluster", "codec", "peer", "placement", "policy", "shard"],
    ),
    ("config", &["check", "input", "net", "placement", "policy"]),
    ("telemetry", &["check", "clock", "codec", "config", "files", "input", "random", "shard"]),
    (
        "http",
        &[
            "check",
            "clock",
            "cluster",
            "config",
            "input",
            "limit",
            "net",
            "placement",
            "policy",
            "routing",
            "shard",
            "telemetry",
            "watch",
        ],
    ),
    (
        "node",
        &[
            "actor",
            "clock",
            "cluster",
            "config",
            "http",
            "net",
            "peer",
            "placement",
            "random",
            "routing",
            "shard",
            "telemetry",
            "watch",
        ],
    ),
];

/// Rooms that know neither a runtime nor a clock nor chance: the same question gets the same
/// answer, always.
const PURE: [&str; 12] = [
    "check",
    "codec",
    "input",
    "limit",
    "membership",
    "permit",
    "placement",
    "plain",
    "policy",
    "shard",
    "state",
    "time",
];
const IMPURE: [&str; 8] = [
    "tokio",
    "SystemClock",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::net::Tcp",
    "getrandom",
    "std::thread",
];

/// Where rooms are: those of the node, and those of the core.
fn roots() -> [PathBuf; 2] {
    ["src", "crates/core/src"].map(|root| Path::new(env!("CARGO_MANIFEST_DIR")).join(root))
}

fn sources(room: &str) -> Vec<PathBuf> {
    let files = roots().map(|root| root.join(format!("{room}.rs")));
    let mut found: Vec<_> = files.into_iter().filter(|file| file.exists()).collect();
    let mut folders = Vec::from(roots().map(|root| root.join(room)));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|e| e == "rs") => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// The code of a file without comments and without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().contains("tests"))
}

#[test]
fn imports_point_one_way() {
    for (room, may_use) in HOUSE {
        let files = sources(room);
        assert!(!files.is_empty(), "there is no room {room}");
        for file in files.iter().filter(|file| !is_test(file)) {
            for (at, _) in code(file).match_indices("crate::") {
                let code = code(file);
                let used: String = code[at + 7..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let fine = used == room || used.is_empty() || may_use.contains(&used.as_str());
                assert!(fine, "{} uses crate::{used}, which {room} must not know", file.display());
            }
        }
    }
}

#[test]
fn the_rooms_import_each_other_in_no_circle() {
    let mut left: BTreeMap<_, _> = HOUSE.into_iter().collect();
    let is_lowest = |left: &BTreeMap<_, &[&str]>, uses: &[&str]| {
        uses.iter().all(|used| !left.contains_key(used))
    };
    while let Some(room) = left.iter().find(|(_, uses)| is_lowest(&left, uses)).map(|(r, _)| *r) {
        left.remove(room);
    }
    assert!(left.is_empty(), "a circle among {:?}", left.keys());
}

#[test]
fn the_core_depends_on_no_runtime() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "tidegate-core", "--edges", "normal,build", "--locked"])
        .args(["--offline", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tree.stdout) + String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success() && said.contains("tidegate-core"), "{said}");
    for runtime in ["tokio", "async-std", "smol", "futures", "hyper", "rustix", "getrandom"] {
        let named = said.lines().find(|line| line.split(' ').next() == Some(runtime));
        assert_eq!(named, None, "{said}");
    }
}

#[test]
fn every_room_has_its_place_in_the_house() {
    let entries = roots().map(|root| fs::read_dir(root).unwrap().flatten());
    for entry in entries.into_iter().flatten() {
        let name = entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        let known = ["lib", "main", "cli"].contains(&name.as_str())
            || HOUSE.iter().any(|(room, _)| *room == name);
        assert!(known, "src/{name} is not in the list of rooms");
    }
}

#[test]
fn the_core_knows_no_runtime_no_clock_and_no_chance() {
    for room in PURE {
        for file in sources(room).iter().filter(|file| !is_test(file)) {
            let code = code(file);
            for word in IMPURE {
                assert!(!code.contains(word), "{} names {word}", file.display());
            }
        }
    }
}

/// The command line waits for signals and for its children; no simulation runs it.
#[test]
fn whoever_selects_says_what_comes_first() {
    for (room, _) in HOUSE {
        for file in sources(room).iter().filter(|file| !is_test(file)) {
            let code = code(file);
            for (at, select) in code.match_indices("select! {") {
                let rest = code[at + select.len()..].trim_start();
                assert!(
                    rest.starts_with("biased;"),
                    "{} selects by lot: say `biased;`",
                    file.display()
                );
            }
        }
    }
}
