//! What the commands print, byte by byte: the files in `tests/golden`, `.json` for `-o json`,
//! `.txt` for people, `.err` for what went to standard error.
//!
//! One node runs the whole play, in order; scripts that parse `-o json` rely on each of its
//! members, so a change of shape fails here first. A change that is meant is written down by
//!
//! ```text
//! TIDEGATE_UPDATE_GOLDEN=1 cargo test --test house -- golden
//! ```
//!
//! and read in the diff. What differs from run to run is replaced in one place, [`Stage::settled`].
//! The limits last for weeks and none is aligned to a calendar, so what is left and how long it
//! takes, in words, is the same on every day and machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::rig;
use crate::support::{Node, Setup};

const POLICY: &str = r#"
default_tier = "free"
[[limits]]
name = "everybody"
per = []
algorithm = "sliding_log"
limit = 1000
window = "30d"
[tiers.free]
limits = [{ name = "month", algorithm = "sliding_log", limit = 10, window = "30d" }]
[tiers.pro]
max_concurrent = 5
limits = [
  { name = "rate", per = ["tenant", "client"], algorithm = "token_bucket", rate = "1/30d", burst = 20 },
  { name = "watched", algorithm = "sliding_log", limit = 2, window = "30d", enforce = false },
]
[[tier_patterns]]
pattern = "ent-*"
tier = "pro"
[tenants.acme]
tier = "free"
[tenants.big]
tier = "pro"
tier_expires = "2100-01-01T00:00:00Z"
limits = [{ name = "rate", match = { action = "export" }, algorithm = "sliding_log", limit = 3, window = "30d" }]
[[costs]]
method = "POST"
path = "/ocr/{page}"
cost = 4
[access.partner]
list = "allow"
tenant = "partner"
reason = "has a contract"
[access.spam]
list = "deny"
client = "spammer"
reason = "sends spam"
"#;

/// A document with something of each kind to be told.
const NEXT: &str = r#"
default_tier = "pro"
[[limits]]
name = "everybody"
per = []
algorithm = "sliding_window"
limit = 2000
window = "30d"
[tiers.free]
limits = [{ name = "month", per = ["tenant", "client"], algorithm = "sliding_log", limit = 12, window = "30d" }]
[tiers.pro]
max_concurrent = 6
limits = [
  { name = "rate", per = ["client", "tenant"], algorithm = "token_bucket", rate = "1/15d", burst = 20 },
  { name = "fresh", algorithm = "quota", limit = 100, period = "month" },
]
[[tier_patterns]]
pattern = "gold-*"
tier = "pro"
[tenants.acme]
tier = "free"
limits = [{ name = "month", match = { action = "export" }, algorithm = "sliding_log", limit = 3, window = "30d" }]
[tenants.big]
tier = "pro"
tier_expires = "2101-01-01T00:00:00Z"
limits = [{ name = "rate", match = { action = "export" }, algorithm = "sliding_log", limit = 4, window = "30d" }]
[[costs]]
method = "POST"
path = "/ocr/{page}"
cost = 5
[access.partner]
list = "allow"
tenant = "partner"
reason = "has a contract"
[environments.development]
multiplier = "0.5"
"#;

const INVALID: &str = r#"
default_tier = "gold"
[tiers.free]
weigth = "1"
limits = [{ name = "month", algorithm = "sliding_log", limit = 0, window = "1 month" }]
"#;

/// The play: a file's name, the exit code, the line. `NOBODY` is a URL where nobody listens.
const PLAY: &[(&str, i32, &str)] = &[
    ("version", 0, "--version"),
    // What needs no node.
    ("validate", 0, "policy validate policy.toml -o json"),
    ("validate", 0, "policy validate policy.toml"),
    ("validate-faults", 1, "policy validate invalid.toml -o json"),
    ("validate-faults", 1, "policy validate invalid.toml"),
    ("validate-missing", 1, "policy validate missing.toml -o json"),
    ("man", 0, "man pages -o json"),
    ("man", 0, "man pages"),
    // Checks.
    ("check-allowed", 0, "check acme --cost 3 -o json"),
    ("check-allowed", 0, "check acme --cost 3"),
    ("check-denied", 3, "check acme --cost 5 -o json"),
    ("check-denied", 3, "check acme --cost 5"),
    ("check-too-costly", 3, "check acme --cost 11 -o json"),
    ("check-too-costly", 3, "check acme --cost 11"),
    (
        "check-endpoint",
        0,
        "-o json check acme --method POST --path /ocr/7 --ip 203.0.113.9 --api-key sesame",
    ),
    ("check-override", 0, "check big --client ann --action export -o json"),
    ("check-override", 0, "check big --client ann --action export"),
    ("check-shadow", 0, "check big --client ben --cost 3 -o json"),
    ("check-shadow", 0, "check big --client ben --cost 3"),
    ("check-deny-list", 3, "check acme --client spammer -o json"),
    ("check-deny-list", 3, "check acme --client spammer"),
    ("check-allow-list", 0, "check partner -o json"),
    ("check-allow-list", 0, "check partner"),
    ("check-tier", 0, "check passer-by --tier pro -o json"),
    ("check-named", 0, "check big --client cay --request-id r1 -o json"),
    ("check-replayed", 0, "check big --client cay --request-id r1 -o json"),
    ("check-replayed", 0, "check big --client cay --request-id r1"),
    ("check-unknown-tier", 1, "check passer-by --tier gold -o json"),
    ("check-faults", 1, "check ac/me --method G=T --wait 5 -o json"),
    // Tenants.
    ("tenant-list", 0, "tenant list -o json"),
    ("tenant-list", 0, "tenant list"),
    ("tenant-list-limited", 0, "tenant list --limit 1 -o json"),
    ("tenant-list-limited", 0, "tenant list --limit 1"),
    ("tenant-show", 0, "tenant show big -o json"),
    ("tenant-show", 0, "tenant show big"),
    ("tenant-show-unknown", 0, "tenant show nobody -o json"),
    ("tenant-show-unknown", 0, "tenant show nobody"),
    ("tenant-show-faults", 1, "tenant show ac/me -o json"),
    ("tenant-set-tier", 0, "tenant set-tier acme pro --expires 2100-01-01T00:00:00Z -o json"),
    ("tenant-set-tier", 0, "tenant set-tier acme free"),
    ("tenant-set-tier-unknown", 1, "tenant set-tier acme gold -o json"),
    ("tenant-reset", 0, "tenant reset acme -o json"),
    ("tenant-reset", 0, "tenant reset acme"),
    ("tenant-show-reset", 0, "tenant show acme -o json"),
    // The policy.
    ("policy-get", 0, "policy get -o json"),
    ("policy-get", 0, "policy get"),
    ("diff", 1, "policy diff next.toml -o json"),
    ("diff", 1, "policy diff next.toml"),
    ("diff-same", 0, "policy diff policy.toml -o json"),
    ("diff-same", 0, "policy diff policy.toml"),
    ("diff-faults", 2, "policy diff invalid.toml -o json"),
    ("apply-dry-run", 0, "policy apply next.toml --dry-run -o json"),
    ("apply-dry-run", 0, "policy apply next.toml --dry-run"),
    ("apply-stale", 1, "policy apply next.toml --if-version 1 -o json"),
    ("apply-faults", 1, "policy apply invalid.toml -o json"),
    ("apply", 0, "policy apply next.toml --if-version 3 -o json"),
    ("apply", 0, "policy apply next.toml"),
    ("enforce", 0, "policy enforce off -o json"),
    ("enforce", 0, "policy enforce off"),
    ("enforce-on", 0, "policy enforce on"),
    // The lists.
    (
        "access-add",
        0,
        "access add deny --ip 198.51.100.0/24 --reason abuse --expires 2100-01-01T00:00:00Z --id \
         abuse -o json",
    ),
    ("access-add", 0, "access add deny --api-key sesame --id leaked"),
    ("access-add-taken", 1, "access add allow --tenant acme --id abuse -o json"),
    ("access-add-faults", 1, "access add allow --tenant ac/me --expires soon -o json"),
    ("access-list", 0, "access list -o json"),
    ("access-list", 0, "access list"),
    ("access-list-limited", 0, "access list --list deny --limit 1"),
    ("access-remove", 0, "access remove abuse -o json"),
    ("access-remove", 0, "access remove leaked"),
    ("access-remove-unknown", 1, "access remove abuse -o json"),
    // The versions before.
    ("history", 0, "policy history -o json"),
    ("history", 0, "policy history"),
    ("policy-get-earlier", 0, "policy get --at-version 3"),
    ("rollback-dry-run", 0, "policy rollback 3 --dry-run -o json"),
    ("rollback-dry-run", 0, "policy rollback 3 --dry-run"),
    ("rollback", 0, "policy rollback 3 -o json"),
    ("rollback", 0, "policy rollback 4"),
    ("rollback-unknown", 1, "policy rollback 99 -o json"),
    // The cluster.
    ("cluster-status", 0, "cluster status -o json"),
    ("cluster-status", 0, "cluster status"),
    ("cluster-leave-last", 5, "cluster leave n1 -o json"),
    ("cluster-leave-last", 5, "cluster leave n1"),
    ("cluster-leave-unknown", 1, "cluster leave n9 --wait -o json"),
    ("cluster-leave-unknown", 1, "cluster leave n9 --wait"),
    ("cluster-drain-last", 5, "cluster drain n1 -o json"),
    ("cluster-drain-end", 0, "cluster drain n1 --end -o json"),
    ("cluster-drain-end", 0, "cluster drain n1 --end"),
    ("cluster-weight", 0, "cluster weight n1 1 -o json"),
    ("cluster-weight", 0, "cluster weight n1 1"),
    ("cluster-weight-seventeen", 2, "cluster weight n1 17"),
    ("cluster-weight-last", 5, "cluster weight n1 0 -o json"),
    ("cluster-weight-last", 5, "cluster weight n1 0"),
    ("cluster-set", 0, "cluster set round_trip_ms=200 -o json"),
    ("cluster-set", 0, "cluster set round_trip_ms=300"),
    ("cluster-set-dry-run", 0, "cluster set round_trip_ms=100 --dry-run -o json"),
    ("cluster-set-dry-run", 0, "cluster set round_trip_ms=100 --dry-run"),
    ("cluster-set-stale", 1, "cluster set round_trip_ms=100 --if-version 1 -o json"),
    ("cluster-set-unknown", 2, "cluster set round_trip=100"),
    ("cluster-breakers", 0, "cluster breakers -o json"),
    ("cluster-breakers", 0, "cluster breakers"),
    ("cluster-breakers-reset", 1, "cluster breakers --reset n9 -o json"),
    ("cluster-breakers-reset", 1, "cluster breakers --reset n9"),
    ("cluster-certs", 0, "cluster certs --cluster demo n1 n2 -o json"),
    ("cluster-certs", 0, "cluster certs --cluster demo --host gateway.example n3"),
    ("cluster-certs-there", 1, "cluster certs --cluster demo n4 n2 -o json"),
    ("cluster-certs-faults", 2, "cluster certs n1 ca -o json"),
    // What a cluster is made anew of, and how.
    ("cluster-backup", 0, "cluster backup a.backup -o json"),
    ("cluster-backup", 0, "cluster backup a.backup"),
    ("cluster-backup-show", 0, "cluster backup --show a.backup"),
    ("cluster-backup-faults", 1, "cluster backup --show policy.toml -o json"),
    ("cluster-backup-role", 1, "cluster backup b.backup -o json --token read-open-sesame"),
    (
        "cluster-restore",
        0,
        "cluster restore a.backup --node n7 --http 127.0.0.1:7077 --peer 127.0.0.1:7177 --data-dir \
         r7 -o json",
    ),
    (
        "cluster-restore",
        0,
        "cluster restore a.backup --node n8 --http 127.0.0.1:7078 --peer 127.0.0.1:7178 --data-dir \
         r8",
    ),
    (
        "cluster-restore-there",
        5,
        "cluster restore a.backup --node n7 --http 127.0.0.1:7077 --peer 127.0.0.1:7177 --data-dir \
         r7",
    ),
    ("backup", 0, "backup c.backup --data-dir r7 -o json"),
    ("backup", 0, "backup c.backup --data-dir r7"),
    ("backup-running", 5, "backup d.backup --data-dir data/n1 -o json"),
    ("backup-nothing", 2, "backup d.backup --data-dir r9 -o json"),
    ("cluster-restore-nobody", 2, "cluster restore a.backup --node n7"),
    ("cluster-recover-unsure", 5, "cluster recover --data-dir r7"),
    ("cluster-recover", 0, "cluster recover --data-dir r7 --force -o json"),
    ("cluster-recover", 0, "cluster recover --data-dir r8 --force"),
    ("cluster-recover-nothing", 2, "cluster recover --data-dir r9 -o json"),
    // What goes wrong before a node is asked, or because it is not there or not for everybody.
    ("no-token", 1, "policy get -o json --token="),
    ("unknown-token", 1, "policy get -o json --token nonsense"),
    ("wrong-role", 1, "tenant reset acme -o json --token read-open-sesame"),
    ("unreachable", 4, "check acme -o json --url NOBODY"),
    ("health", 0, "health -o json"),
    ("health", 0, "health"),
    ("health-live", 0, "health --live"),
    ("health-unreachable", 4, "health --url NOBODY"),
    ("unreachable-cluster", 4, "cluster status --url NOBODY"),
    ("unreachable-diff", 4, "policy diff next.toml --url NOBODY"),
    ("usage-flag", 2, "check acme --costs 3 -o json"),
    ("usage-value", 2, "check acme --cost 0 -o json"),
    ("usage-format", 2, "policy get -o yaml"),
    ("usage-url", 2, "policy get -o json --url ftp://127.0.0.1"),
    ("usage-ca-cert", 2, "policy get -o json --url https://127.0.0.1"),
    ("usage-misplaced", 2, "--node n1 tenant list -o json"),
];

/// Commands that print nothing with a shape (a log, a script for a shell), or that go on until they
/// are stopped (`tests/api/dev.rs`).
const SHAPELESS: [&str; 3] = ["serve", "dev", "completions"];

/// What a line printed: standard output, standard error, the exit code.
struct Printed(String, String, Option<i32>);

/// Where the lines are run: a folder with their files, and the URLs that they name.
struct Stage {
    folder: PathBuf,
    node: String,
    nobody: String,
}

impl Stage {
    fn run(&self, line: &str) -> Printed {
        let words =
            line.split_whitespace().map(|word| if word == "NOBODY" { &self.nobody } else { word });
        let ran = rig::program()
            .args(words)
            .env("TIDEGATE_URL", &self.node)
            .env("TIDEGATE_TOKEN", "admin-open-sesame")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| self.settled(&String::from_utf8(bytes).unwrap());
        Printed(text(ran.stdout), text(ran.stderr), ran.status.code())
    }

    /// What was printed, with placeholders for all that depends on time, ports and the version.
    fn settled(&self, text: &str) -> String {
        let lines: String = text.split_inclusive('\n').map(settled_line).collect();
        let version = format!("tidegate {}", env!("CARGO_PKG_VERSION"));
        let version_in_words = format!("with Tidegate {}", env!("CARGO_PKG_VERSION"));
        let address = self.node.trim_start_matches("http://");
        lines
            .replace(&self.node, "NODE")
            .replace(address, "ADDRESS")
            .replace(&self.nobody, "NOBODY")
            .replace(&version, "tidegate VERSION")
            .replace(&version_in_words, "with Tidegate VERSION")
    }
}

/// Instants of this run with others in their places that are as long; those that the files
/// themselves name are far ahead.
fn settled_instants(line: &str) -> String {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
    let is_one = |bytes: &[u8]| {
        let fits = |(byte, shape): (&u8, &u8)| {
            if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape }
        };
        bytes.len() == SHAPE.len() && bytes.iter().zip(SHAPE).all(fits) && bytes < &b"2100"[..]
    };
    let mut settled = line.as_bytes().to_vec();
    for at in 0..settled.len().saturating_sub(SHAPE.len() - 1) {
        if is_one(&settled[at..at + SHAPE.len()]) {
            settled[at..at + SHAPE.len()].copy_from_slice(SHAPE);
        }
    }
    String::from_utf8(settled).unwrap()
}

/// A line of laid out JSON with a member that counts milliseconds; the line that says when a
/// majority was heard of; or any other line, but for instants as it is.
fn settled_line(line: &str) -> String {
    const TIMES: [&str; 3] = ["\"reset_after_ms\"", "\"retry_after_ms\"", "\"expires_in_ms\""];
    if let Some((before, after)) = line.split_once(" heard of ")
        && after.ends_with(" ago\n")
    {
        return format!("{before} heard of A MOMENT ago\n");
    }
    match line.split_once(": ") {
        // What a cluster says of itself differs with every run, zero included; null is said in
        // every run or in none.
        Some((member, value)) if !value.starts_with("null") && of_a_run(member).is_some() => {
            let end = if value.ends_with(",\n") { ",\n" } else { "\n" };
            format!("{member}: {:?}{end}", of_a_run(member).unwrap_or_default())
        }
        Some((member, value)) if TIMES.contains(&member.trim_start()) => {
            let end = value.trim_start_matches(|c: char| c.is_ascii_digit());
            // No number is no time, and nothing to wait for is nothing on every machine.
            let is_time = end.len() < value.len() && !value.starts_with('0');
            if is_time { format!("{member}: \"MILLISECONDS\"{end}") } else { line.to_string() }
        }
        _ => settled_instants(&settled_numbers(line)),
    }
}

/// Entries of the log, and the numbers of nodes that were given by it: those that the first nodes
/// have are below ten.
fn settled_numbers(line: &str) -> String {
    let mut settled = line.to_string();
    for (before, entry) in
        [(" entry ", "ENTRY"), ("(node ", "ENTRY"), ("\"number\": ", "\"ENTRY\"")]
    {
        let Some((head, tail)) = settled.split_once(before) else { continue };
        let end = tail.trim_start_matches(|c: char| c.is_ascii_digit());
        if tail.len() - end.len() > 1 {
            settled = format!("{head}{before}{entry}{end}");
        }
    }
    settled
}

/// What stands for a member of one run's cluster.
fn of_a_run(member: &str) -> Option<&'static str> {
    match member.trim_start() {
        "\"contact_ms\"" => Some("MILLISECONDS"),
        "\"applied\"" | "\"placement_version\"" | "\"last\"" => Some("ENTRY"),
        "\"program\"" => Some("VERSION"),
        "\"boot\"" => Some("BOOT"),
        _ => None,
    }
}

fn folder_of_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn node() -> Node {
    let tokens =
        "[auth]\nadmin_tokens = [\"admin-open-sesame\"]\nread_tokens = [\"read-open-sesame\"]";
    let node = Setup::policy(POLICY).section(tokens).start();
    fs::write(node.file("next.toml"), NEXT).unwrap();
    fs::write(node.file("invalid.toml"), INVALID).unwrap();
    node
}

/// An address of this machine at which nobody listens any more.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn every_command_prints_what_its_file_says() {
    let node = node();
    let stage =
        Stage { folder: node.file(""), node: format!("http://{}", node.http), nobody: nobody() };
    let update = std::env::var_os("TIDEGATE_UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let (mut differ, mut known) = (Vec::new(), BTreeSet::new());
    for (name, exit, line) in PLAY {
        let Printed(data, notes, code) = stage.run(line);
        assert_eq!(code, Some(*exit), "`tidegate {line}` printed {data}{notes}");
        let is_json = line.contains("-o json");
        if is_json && !data.is_empty() {
            let read = serde_json::from_str::<serde_json::Value>(&data);
            assert!(read.is_ok(), "`tidegate {line}` printed {data}");
        }
        let kind = if is_json { "json" } else { "txt" };
        for (file, printed) in
            [(format!("{name}.{kind}"), data), (format!("{name}.{kind}.err"), notes)]
        {
            let path = folder_of_files().join(&file);
            let expected = fs::read_to_string(&path).unwrap_or_default();
            if printed != expected {
                differ.push(format!(
                    "`tidegate {line}`: {file}\n{}",
                    first_difference(&expected, &printed)
                ));
            }
            if printed.is_empty() {
                continue;
            }
            if update {
                fs::write(path, printed).unwrap();
            }
            assert!(known.insert(file), "{name} is there twice");
        }
    }
    let entries = fs::read_dir(folder_of_files()).unwrap().flatten();
    // Folders hold golden files of other tests.
    for entry in entries.filter(|entry| entry.path().is_file()) {
        let file = entry.file_name().into_string().unwrap();
        if !known.contains(&file) {
            differ.push(format!("nothing prints {file}"));
            if update {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    let how = "If it is meant: TIDEGATE_UPDATE_GOLDEN=1 cargo test --test house -- golden";
    assert!(update || differ.is_empty(), "{}\n{how}", differ.join("\n"));
}

/// The first line in which two texts differ, for people.
fn first_difference(expected: &str, printed: &str) -> String {
    let (mut left, mut right) = (expected.lines(), printed.lines());
    for number in 1.. {
        match (left.next(), right.next()) {
            (None, None) => break,
            (expected, printed) if expected == printed => {}
            (expected, printed) => {
                let shown = |line: Option<&str>| {
                    line.map_or("(the end)".to_string(), |line| format!("{line:?}"))
                };
                return format!(
                    "  line {number} is {}, and was {}",
                    shown(printed),
                    shown(expected)
                );
            }
        }
    }
    "  the ends of lines differ".into()
}

/// The pages of the manual are a list of all commands.
#[test]
fn every_command_with_a_shape_is_in_the_play() {
    let folder = tempfile::tempdir().unwrap();
    let unused = "http://127.0.0.1:1".to_string();
    let stage = Stage { folder: folder.path().into(), node: unused.clone(), nobody: unused };
    let Printed(pages, _, code) = stage.run("man pages");
    assert_eq!(code, Some(0));
    let name = |line: &str| -> Option<String> {
        Some(line.strip_prefix("pages/tidegate-")?.strip_suffix(".1")?.to_string())
    };
    let commands: Vec<_> = pages.lines().filter_map(name).collect();
    assert!(commands.len() > 10, "{pages}");
    for command in &commands {
        let is_group = commands.iter().any(|other| other.starts_with(&format!("{command}-")));
        if is_group || SHAPELESS.contains(&command.as_str()) {
            continue;
        }
        // `tenant-set-tier` is `tenant set-tier`: a verb may have a dash, a group has none.
        let words = format!("{} ", command.replacen('-', " ", 1));
        let played = |json: bool| {
            PLAY.iter().any(|(_, exit, line)| {
                let line = format!("{line} ");
                let starts = line.trim_start_matches("-o json ").starts_with(&words);
                starts && line.contains("-o json") == json && [0, 1, 3].contains(exit)
            })
        };
        assert!(
            played(true),
            "`tidegate {words}-o json` is not in the play: add it, and write its file"
        );
        assert!(played(false), "`tidegate {words}` is not in the play: add it, and write its file");
    }
}
