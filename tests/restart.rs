//! A node that stops finishes what it accepted and remembers what was spent; one that can't start
//! says why.

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rig::{Home, Node, PATIENCE, head, instant};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Limits that give nothing back while a test runs.
const POLICY: &str = r#"
default_tier = "bucket"

[[limits]]
name = "global"
per = []
match = { action = "everybody" }
algorithm = "token_bucket"
rate = "1/h"
burst = 5

[[limits]]
name = "per-ip"
per = ["ip"]
algorithm = "sliding_log"
limit = 5
window = "1h"

[tiers.bucket]
limits = [{ name = "rate", algorithm = "token_bucket", rate = "1/h", burst = 5 }]
[tiers.leak]
limits = [{ name = "rate", algorithm = "leaky_bucket", rate = "1/h", burst = 5 }]
[tiers.fixed]
limits = [{ name = "rate", algorithm = "fixed_window", limit = 5, window = "520w" }]
[tiers.sliding]
limits = [{ name = "rate", algorithm = "sliding_window", limit = 5, window = "520w" }]
[tiers.log]
limits = [{ name = "rate", algorithm = "sliding_log", limit = 5, window = "1h" }]
[tiers.quota]
limits = [{ name = "rate", algorithm = "quota", limit = 5, period = "month" }]
[tiers.slots]
max_concurrent = 1
[tiers.clients]
limits = [{ name = "rate", per = ["tenant", "client"], algorithm = "token_bucket", rate = "1/h", burst = 5 }]
[tiers.free]

[tenants.named]
tier = "log"
"#;

/// One check for each kind of state that a stop has to keep; each allows five.
fn kinds() -> Vec<Value> {
    let mut kinds: Vec<_> = ["bucket", "leak", "fixed", "sliding", "log", "quota"]
        .iter()
        .map(|tier| json!({"tenant": format!("t-{tier}"), "tier": tier}))
        .collect();
    kinds.extend([
        json!({"tenant": "named"}),
        json!({"tenant": "t-clients", "tier": "clients", "client": "one"}),
        json!({"tenant": "anonymous", "ip": "203.0.113.9"}),
        json!({"tenant": "t-global", "tier": "free", "action": "everybody"}),
        json!({"tenant": "t-ip", "tier": "free", "ip": "2001:db8::9"}),
        json!({"tenant": "t-brought", "limits":
            [{"name": "own", "algorithm": "token_bucket", "rate": "1/h", "burst": 5}]}),
    ]);
    kinds
}

fn allowed(node: &Node, check: &Value) -> bool {
    node.check(check.to_string())["allowed"].as_bool().unwrap()
}

#[test]
fn what_was_spent_before_a_restart_is_still_spent_after_it() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    for kind in kinds() {
        for i in 0..3 {
            assert!(allowed(&node, &kind), "{kind} {i}");
        }
    }
    let (status, log) = node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(home.path("data/counts.state").exists());

    let node = home.start();
    // Loaded is gone: no second process could load it too.
    assert!(!home.path("data/counts.state").exists());
    for kind in kinds() {
        let left: Vec<_> = (0..4).map(|_| allowed(&node, &kind)).collect();
        assert_eq!(left, [true, true, false, false], "{kind}");
    }
    // And once more, from counts that were loaded themselves.
    let (status, log) = node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let node = home.start();
    for kind in kinds() {
        assert!(!allowed(&node, &kind), "{kind}");
    }
}

#[test]
fn a_permit_outlives_a_restart_and_is_released_after_it() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let check = json!({"tenant": "t", "tier": "slots", "permit": {"ttl_ms": 300_000}});
    let permit = node.check(check.to_string())["permit"]["id"].clone();
    let permit = format!("/v1/permits/{}", permit.as_str().unwrap());
    node.stop();

    let node = home.start();
    assert_eq!(node.check(check.to_string())["denied_by"]["reason"], "concurrency");
    assert_eq!(node.call("POST", &format!("{permit}/renew"), "").status, 200);
    assert_eq!(node.call("DELETE", &permit, "").status, 204);
    assert!(allowed(&node, &check));
}

#[test]
fn a_request_id_is_charged_once_also_over_a_restart() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let check = json!({"tenant": "t", "cost": 2, "request_id": "r-1"});
    let mut first = node.check(check.to_string());
    assert_eq!((&first["replayed"], &first["remaining"]), (&json!(false), &json!(3)));
    node.stop();

    let node = home.start();
    first["replayed"] = json!(true);
    assert_eq!(node.check(check.to_string()), first);
    assert_eq!(node.check(json!({"tenant": "t"}).to_string())["remaining"], 2);
}

#[test]
fn a_killed_node_starts_again_with_every_change_of_the_policy_that_was_answered() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let limit = json!({"algorithm": "token_bucket", "rate": "1/h", "burst": 2});
    for i in 1..=20 {
        let answer = node.call("PUT", &format!("/v1/tenants/t{i}/limits/own"), limit.to_string());
        assert_eq!(answer.json()["version"], 1 + i);
    }
    let before = node.call("GET", "/v1/policy", "");
    let mut process = node.process;
    process.signal(Signal::KILL);
    assert_eq!(process.end().code(), None);

    let node = home.start();
    let after = node.call("GET", "/v1/policy", "");
    assert_eq!(after.header("etag"), Some("\"21\""));
    assert_eq!(after.body, before.body);
    let check = json!({"tenant": "t20"});
    let left: Vec<_> = (0..3).map(|_| allowed(&node, &check)).collect();
    assert_eq!(left, [true, true, false]);
}

#[test]
fn a_change_of_the_file_changes_nothing_after_the_first_start() {
    let home = Home::new(POLICY, "");
    home.start().stop();
    home.write("policy.toml", b"no policy at all");
    let node = home.start();
    assert_eq!(node.call("GET", "/v1/policy", "").header("etag"), Some("\"1\""));
}

// ---------------------------------------------------------------------------------------------------------
// stopping

const CHECK: &str = r#"{"tenant":"t","tier":"log"}"#;

#[test]
fn a_stopping_node_finishes_what_it_accepted_and_takes_nothing_new() {
    let home = Home::new(POLICY, "[limits]\nbody_ms = 60000\ndrain_ms = 60000");
    let mut node = home.start();
    let mut idle = node.connect();
    assert_eq!(idle.call("GET", "/readyz", &[], b"").status, 200);
    let mut accepted = node.connect();
    accepted.send(head("POST", "/v1/check", &[], CHECK.len())).unwrap();
    accepted.send(&CHECK[..5]).unwrap();
    // So that the node has it for certain.
    std::thread::sleep(Duration::from_millis(300));
    node.process.signal(Signal::TERM);

    // Idle connections are closed; a new one is refused, or at least told that the node is not
    // ready.
    assert!(idle.answer().is_none());
    if let Ok(mut late) = rig::Wire::to(node.addr) {
        let answer = late.ask(head("GET", "/readyz", &[], 0));
        assert!(answer.is_none_or(|answer| answer.status == 503));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(node.process.is_running());

    let answer = accepted.ask(&CHECK[5..]).unwrap();
    assert_eq!(answer.json()["remaining"], 4);
    assert!(accepted.answer().is_none());
    assert_eq!(node.process.end().code(), Some(0), "{}", node.process.log());
    // What was decided while stopping was saved too.
    assert_eq!(home.start().check(CHECK)["remaining"], 3);
}

#[test]
fn a_stopping_node_asks_callers_to_close_and_closes_idle_ones_last() {
    let home = Home::new(POLICY, "[limits]\nnotice_ms = 3000\nidle_ms = 60000");
    let mut node = home.start();
    let (mut idle, mut busy) = (node.connect(), node.connect());
    for wire in [&mut idle, &mut busy] {
        let answer = wire.call("GET", "/livez", &[], b"");
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    node.process.signal(Signal::TERM);
    rig::until("it is stopping", || (node.call("GET", "/readyz", "").status == 503).then_some(()));
    // An answer on a connection that was there before, and on a new one.
    let answer = busy.call("POST", "/v1/check", &[], CHECK.as_bytes());
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(busy.answer().is_none());
    let answer = node.call("POST", "/v1/check", CHECK);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    // The idle one may still be used, and is closed only as the node stops to take requests.
    assert!(!idle.is_closed() && node.process.is_running());
    let answer = idle.call("POST", "/v1/check", &[], CHECK.as_bytes());
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(node.process.end().code(), Some(0), "{}", node.process.log());
}

#[test]
fn a_client_that_closes_its_sending_half_gets_its_answer() {
    let node = Home::new(POLICY, "").start();
    let check = format!("{}{CHECK}", head("POST", "/v1/check", &[], CHECK.len()));
    let cut = check.len() - 7;
    let requests: [&[&str]; 4] = [
        &[&check],
        &[&check[..cut], &check[cut..]],
        &["GET /livez HTTP/1.0\r\n\r\n"],
        &["GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"],
    ];
    for pieces in requests {
        let mut wire = node.connect();
        for piece in pieces {
            wire.send(piece).unwrap();
        }
        wire.end_sending();
        assert_eq!(wire.answer().map(|answer| answer.status), Some(200), "{pieces:?}");
        assert!(wire.answer().is_none());
    }
    assert_eq!(node.check(CHECK)["remaining"], 2);
}

#[test]
fn signals_that_mean_nothing_do_not_end_a_node() {
    let mut node = Home::new(POLICY, "").start();
    for signal in [Signal::USR1, Signal::USR2, Signal::QUIT, Signal::PIPE] {
        node.process.signal(signal);
        std::thread::sleep(Duration::from_millis(50));
        assert!(node.process.is_running(), "{signal:?}: {}", node.process.log());
        assert_eq!(node.call("GET", "/livez", "").status, 200, "{signal:?}");
    }
    let (status, log) = node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGQUIT means nothing to a node"), "{log}");
}

/// How a shell or a program may leave the standard output and error of what it starts.
#[derive(Clone, Copy, Debug)]
enum Outputs {
    /// Closed before the program begins.
    Closed,
    /// Pipes whose other ends are closed.
    Broken,
}

#[test]
fn a_node_without_outputs_serves_and_counts_the_lines_it_lost() {
    for outputs in [Outputs::Closed, Outputs::Broken] {
        let home = Home::new(POLICY, "");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        home.configure(&port.to_string(), "data", "");
        let mut child = without_outputs(&home, outputs);
        let scraped = rig::until("it is ready", || {
            assert!(child.try_wait().unwrap().is_none(), "{outputs:?}: it has ended");
            let mut wire = rig::Wire::to(port).ok()?;
            (wire.call("GET", "/readyz", &[], b"").status == 200)
                .then(|| wire.call("GET", "/metrics", &[], b"").text())
        });
        let lost =
            scraped.lines().find_map(|line| line.strip_prefix("tidegate_log_lines_lost_total "));
        let lost: f64 = lost.unwrap().parse().unwrap();
        // What is closed before the beginning is replaced by /dev/null, which takes everything.
        assert_eq!(lost > 0.0, matches!(outputs, Outputs::Broken), "{outputs:?}: {lost}");
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM)
            .unwrap();
        assert_eq!(rig::until("its end", || child.try_wait().unwrap()).code(), Some(0));
    }
}

fn without_outputs(home: &Home, outputs: Outputs) -> std::process::Child {
    use std::process::{Command, Stdio};
    let program = rig::program();
    let mut command = match outputs {
        Outputs::Closed => {
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$0\" serve <&- >&- 2>&-"]).arg(program.get_program());
            shell
        }
        Outputs::Broken => {
            let mut program = program;
            program.arg("serve").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            program
        }
    };
    let config = home.path("cluster.toml");
    let mut child =
        command.env("TIDEGATE_CONFIG", config).env("TIDEGATE_NODE", "n1").spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    child
}

#[test]
fn a_request_that_never_ends_holds_a_stop_no_longer_than_allowed() {
    let home = Home::new(
        POLICY,
        "[limits]\nbody_ms = 60000\nheader_ms = 60000\nidle_ms = 60000\ndrain_ms = 1000",
    );
    let node = home.start();
    assert!(allowed(&node, &json!({"tenant": "t", "tier": "log"})));
    let mut endless = node.connect();
    endless.send(head("POST", "/v1/check", &[], CHECK.len())).unwrap();
    let mut headless = node.connect();
    headless.send("POST /v1/check HTTP/1.1\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let start = instant();
    let (status, log) = node.stop();
    let took = instant() - start;
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("connections were cut"), "{log}");
    assert_eq!(home.start().check(CHECK)["remaining"], 3);
}

#[test]
fn a_second_signal_ends_a_stopping_node_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let home = Home::new(POLICY, "[limits]\nbody_ms = 600000\ndrain_ms = 600000");
        let mut node = home.start();
        let mut endless = node.connect();
        endless.send(head("POST", "/v1/check", &[], CHECK.len())).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        node.process.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(300));
        assert!(node.process.is_running());
        node.process.signal(second);
        assert_eq!(node.process.end().code(), Some(1));
    }
}

// ---------------------------------------------------------------------------------------------------------
// starting

/// Runs the program to its end, which has to be `code`, and answers what it said of it.
fn fails(home: &Home, code: i32) -> String {
    let mut process = home.run();
    let status = process.end();
    let log = process.log();
    assert_eq!(status.code(), Some(code), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let log = fails(&home, 1);
    let data = home.path("data").display().to_string();
    assert!(log.contains(&format!("the data directory {data} is in use")), "{log}");
    assert_eq!(node.check(CHECK)["remaining"], 4);
    // The one that was refused has taken nothing along.
    node.stop();
    assert_eq!(home.start().check(CHECK)["remaining"], 3);
}

#[test]
fn a_second_process_on_the_same_port_is_refused_and_the_first_goes_on() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    let other = Home::new(POLICY, "");
    other.configure(&node.addr.to_string(), "data", "");
    let log = fails(&other, 1);
    assert!(log.contains(&format!("can't listen on {}", node.addr)), "{log}");
    assert!(log.contains("in use"), "{log}");
    // It is told before the log is opened.
    assert!(!other.path("data").exists());
    assert_eq!(node.check(CHECK)["remaining"], 4);
}

#[test]
fn the_first_check_after_a_node_says_that_it_is_ready_is_decided() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for start in 0..20 {
        let home = Home::new(POLICY, "");
        home.configure(&port.to_string(), "data", "");
        let mut process = home.run();
        let answer = rig::until("it says ready", || {
            assert!(process.is_running(), "{}", process.log());
            let mut wire = rig::Wire::to(port).ok()?;
            let ready = wire.call("GET", "/readyz", &[], b"");
            let check = wire.call("POST", "/v1/check", &[], CHECK.as_bytes());
            // One that was asked before may have waited for the start, and is decided too.
            assert!(ready.status == 503 || check.status == 200, "start {start}: {}", check.text());
            (ready.status == 200).then_some(check)
        });
        // Checks before it may have waited for the start and taken all that there was.
        assert!(answer.json()["allowed"].is_boolean(), "start {start}: {}", answer.text());
    }
}

#[test]
fn damaged_counts_are_refused_by_name_and_kept() {
    let home = Home::new(POLICY, "");
    let node = home.start();
    assert_eq!(node.check(CHECK)["remaining"], 4);
    node.stop();
    let path = home.path("data/counts.state");
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (damaged, why) in [
        (flipped, "the checksum differs"),
        (good[..20].to_vec(), "too short"),
        (good[..good.len() - 1].to_vec(), "the checksum differs"),
        (Vec::new(), "too short"),
        (vec![b'x'; 100], "not a state file of this version"),
    ] {
        std::fs::write(&path, &damaged).unwrap();
        let log = fails(&home, 1);
        assert!(log.contains("can't load the saved counts"), "{log}");
        assert!(log.contains(&format!("{}: {why}", path.display())), "{log}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(home.start().check(CHECK)["remaining"], 3);
}

#[test]
fn a_damaged_log_is_refused() {
    let home = Home::new(POLICY, "");
    home.start().stop();
    let path = home.path("data/raft.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.iter_mut().take(4_096).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, bytes).unwrap();
    let log = fails(&home, 1);
    assert!(log.contains("can't open the log"), "{log}");
}

#[test]
fn every_fault_of_the_configuration_is_told_and_the_exit_is_2() {
    let home = Home::new(POLICY, "");
    home.write(
        "cluster.toml",
        br#"
        environment = "pro duction"
        colour = "red"
        [[nodes]]
        id = "n1"
        http = "localhost"
        [[nodes]]
        id = "n1"
        http = "127.0.0.1:0"
        [limits]
        body_bytes = 7
        hedaer_ms = 5
        connections = -1
        workers = 1.5
        [auth]
        admin_tokens = ["env:TIDEGATE_TEST_UNSET", "canary with spaces"]
        "#,
    );
    let log = fails(&home, 2);
    for fault in [
        "environment: ",
        "colour: unknown member",
        "nodes[0].http: ",
        "nodes[0].peer: is required where there are several nodes",
        "nodes[1].http: port 0 is for a node alone",
        "limits.body_bytes: ",
        "limits.hedaer_ms: unknown member; did you mean header_ms?",
        "limits.connections: ",
        "limits.workers: ",
        "auth.admin_tokens[0]: the environment variable TIDEGATE_TEST_UNSET is not set",
        "auth.admin_tokens[1]: ",
    ] {
        assert!(log.contains(&format!("\n  {fault}")), "{fault} isn't in {log}");
    }
    assert!(!log.contains("canary"), "{log}");

    for (config, fault) in [
        (&b"[[nodes]]\nid = \"n2\"\nhttp = \"127.0.0.1:0\""[..], "nodes: there is no node n1"),
        (b"[[nodes]]\nid = \"n1\"\nhttp = \"0.0.0.0:0\"", "nodes[0].http: "),
        (b"[[nodes]]\nid = \"n1\"\nhttp = \"127.0.0.1:0\"\n[auth]", "auth: has no token"),
        (b"nodes = []", "nodes: lists no node"),
        (b"", "nodes: is required"),
        (b"nodes = ", "not TOML"),
        (b"\xff", "not UTF-8"),
        // A slip beside a secret.
        (b"[auth]\nadmin_tokens = [\"canary\", ,]", "not TOML"),
        (b"[auth]\nadmin_tokens = [\"canary]", "not TOML"),
    ] {
        home.write("cluster.toml", config);
        let log = fails(&home, 2);
        assert!(log.contains(fault), "{fault} isn't in {log}");
        assert!(!log.contains("canary"), "{log}");
    }
    std::fs::remove_file(home.path("cluster.toml")).unwrap();
    let log = fails(&home, 2);
    assert!(log.contains("cluster.toml"), "{log}");
    assert!(!home.path("data").exists());
}

#[test]
fn every_fault_of_the_first_policy_is_told_and_the_exit_is_2() {
    let home = Home::new(
        r#"
        default_tier = "gold"
        [tiers.pro]
        max_concurrent = 0
        limits = [{ name = "rate", algorithm = "fixed_window", limit = 1, window = "5 mins" }]
        [tenants.acme]
        tier = "iron"
        "#,
        "",
    );
    let log = fails(&home, 2);
    for fault in [
        "tiers.pro.max_concurrent: ",
        "tiers.pro.limits[0].window: ",
        "default_tier: there is no tier gold",
        "tenants.acme.tier: there is no tier iron",
    ] {
        assert!(log.contains(&format!("\n  {fault}")), "{fault} isn't in {log}");
    }
    std::fs::remove_file(home.path("policy.toml")).unwrap();
    let log = fails(&home, 2);
    assert!(log.contains("policy.toml"), "{log}");
    // A first start that failed leaves nothing that a second would trip over.
    home.write("policy.toml", POLICY.as_bytes());
    assert_eq!(home.start().check(CHECK)["remaining"], 4);
}

#[test]
fn systemd_hears_when_a_node_is_ready_and_when_it_stops() {
    let home = Home::new(POLICY, "");
    let path = home.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut said = [0; 512];
        let length = manager.recv(&mut said).unwrap();
        String::from_utf8(said[..length].to_vec()).unwrap()
    };
    let node = home.set_variable("NOTIFY_SOCKET", path.to_str().unwrap()).start();
    let mut said = hear();
    while said != "READY=1\n" {
        assert!(said.starts_with("STATUS="), "{said}");
        said = hear();
    }
    assert_eq!(node.call("GET", "/readyz", "").status, 200);
    let (status, log) = node.stop();
    assert!(status.success(), "{log}");
    let mut said = hear();
    while said.starts_with("STATUS=") {
        said = hear();
    }
    assert_eq!(said, "STOPPING=1\nSTATUS=stopping\n");
}

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
