//! A node that stops: what it finishes, how long that may take, and signals.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{CHECK, POLICY, allowed};
use crate::rig::{self, Home, head, instant};

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
