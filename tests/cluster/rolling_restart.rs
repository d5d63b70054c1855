//! A rolling restart under load: each node is asked the moment it says ready, directly and through
//! balancers that are configured by the files in `docs/balancers`, of which only addresses are
//! changed. Every check is answered.
//!
//! It has the machine for itself: nodes, balancers and callers are as much as two processors bear.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::{Cluster, PLENTY_A_DAY};
use crate::machine;
use crate::rig::{self, Wire, instant, needs, until};

/// Longer than haproxy.cfg takes to notice: its interval times fall, and a check's own time-out.
const SECTIONS: &str = "[limits]\nnotice_ms = 2000\nworkers = 2\n";
/// Checks a second, over all ways.
const RATE: u32 = 1_000;
/// Callers on each way.
const CALLERS: u32 = 4;
/// The deadline of a check; less than the three seconds that the balancers wait for an answer.
const DEADLINE_MS: u64 = 2_500;
/// Failures that are kept to be shown.
const SHOWN_MAX: usize = 10;

/// A balancer of the documentation.
#[derive(Clone, Copy, Debug)]
enum Kind {
    HaProxy,
    Nginx,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::HaProxy => "haproxy.cfg",
            Self::Nginx => "nginx.conf",
        }
    }

    /// The program, if it is installed.
    fn program(self) -> Option<PathBuf> {
        needs(match self {
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
        })
    }

    fn command(self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            // Without a master each is one process, so that its end is the end of all of it.
            Self::HaProxy => command.arg("-db").arg("-f").arg(dir.join(self.file())),
            Self::Nginx => command
                .args(["-e", "stderr", "-g", "daemon off; master_process off;", "-p"])
                .arg(dir)
                .arg("-c")
                .arg(dir.join(self.file())),
        };
        command
    }
}

/// A balancer that runs. Its process doesn't outlive it.
struct Balancer {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Balancer {
    /// Starts `kind` before these nodes; none where it isn't installed.
    fn start(kind: Kind, nodes: &[SocketAddr; 3]) -> Option<Self> {
        let program = kind.program()?;
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/balancers");
        let mut config = std::fs::read_to_string(docs.join(kind.file())).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let printed = (7_071..).map(|port| format!("127.0.0.1:{port}"));
        let replaced = printed.zip(nodes.iter().map(SocketAddr::to_string));
        let listens = ("127.0.0.1:8080".to_string(), address.to_string());
        for (printed, here) in replaced.chain([listens]) {
            assert!(config.contains(&printed), "{} has no {printed}", kind.file());
            config = config.replace(&printed, &here);
        }
        std::fs::write(dir.path().join(kind.file()), config).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let mut command = kind.command(&program, dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut balancer = Self { child: command.spawn().unwrap(), address, dir };
        until("the balancer takes connections", || {
            assert!(balancer.child.try_wait().unwrap().is_none(), "{kind:?}: {}", balancer.log());
            TcpStream::connect(address).ok()
        });
        Some(balancer)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// What callers saw on one way.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Seen {
    fn fail(&self, what: String) {
        self.failed.lock().unwrap().push(what);
    }
}

/// Asks at `rate` a second until `over`, on connections that are kept; `way` says where to, for the
/// i-th check.
fn ask(
    seen: &Seen,
    over: &AtomicBool,
    rate: u32,
    caller: u32,
    way: impl Fn(usize) -> Option<SocketAddr>,
) {
    let begun = instant();
    let mut kept: Option<(SocketAddr, Wire)> = None;
    for i in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let due = Duration::from_secs(1) / rate * i;
        std::thread::sleep(due.saturating_sub(instant() - begun));
        let Some(address) = way(i as usize) else { continue };
        // How long a check takes is not what is tested: the machine may be busy with other tests.
        let check =
            json!({"tenant": format!("t{}", (i * 7 + caller) % 60), "deadline_ms": DEADLINE_MS})
                .to_string();
        let mut wire = match kept.take() {
            Some((to, wire)) if to == address => wire,
            _ => match Wire::to(address) {
                Ok(wire) => wire,
                Err(error) => {
                    seen.fail(format!("{address}: {error}"));
                    continue;
                }
            },
        };
        let head = rig::head("POST", "/v1/check", &[], check.len());
        match wire.ask(head + &check) {
            Some(answer) if answer.status == 200 => {
                seen.answered.fetch_add(1, Ordering::Relaxed);
                if answer.header("connection") != Some("close") {
                    kept = Some((address, wire));
                }
            }
            Some(answer) => seen.fail(format!("{address}: {} {}", answer.status, answer.text())),
            None => seen.fail(format!("{address}: the connection was closed without an answer")),
        }
    }
}

#[test]
fn a_rolling_restart_under_load_leaves_no_check_unanswered() {
    let _machine = machine::whole();
    let cluster = Mutex::new(Cluster::start_with(3, PLENTY_A_DAY, SECTIONS));
    let nodes = [0, 1, 2].map(|i| cluster.lock().unwrap().http(i));
    let balancers: Vec<_> = [Kind::HaProxy, Kind::Nginx]
        .into_iter()
        .filter_map(|kind| Some((kind, Balancer::start(kind, &nodes)?)))
        .collect();
    let ready = [(); 3].map(|()| AtomicBool::new(true));
    let (over, direct) = (AtomicBool::new(false), Seen::default());
    let through: Vec<_> = balancers.iter().map(|_| Seen::default()).collect();
    let mut logs = Vec::new();
    let rate = RATE / (CALLERS * (1 + balancers.len() as u32));
    std::thread::scope(|scope| {
        // Three that watch whether a node is ready, as a client with a list of nodes does.
        for (node, ready) in nodes.iter().zip(&ready) {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let asked = Wire::to(*node).ok().and_then(|mut wire| {
                        wire.ask(rig::head("GET", "/readyz?for=checks", &[], 0))
                    });
                    ready
                        .store(asked.is_some_and(|answer| answer.status == 200), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        for caller in 0..CALLERS {
            let (direct, over, ready) = (&direct, &over, &ready);
            let way = move |i: usize| {
                let turn = (i / 4) + caller as usize;
                (0..3)
                    .map(|next| (turn + next) % 3)
                    .find(|i| ready[*i].load(Ordering::Relaxed))
                    .map(|i| nodes[i])
            };
            scope.spawn(move || ask(direct, over, rate, caller, way));
            for ((_, balancer), seen) in balancers.iter().zip(&through) {
                scope.spawn(move || ask(seen, over, rate, caller, |_| Some(balancer.address)));
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        for i in 0..3 {
            let node = cluster.lock().unwrap().take_away(i);
            let (status, log) = node.stop();
            assert!(status.success(), "{log}");
            logs.push(log);
            let process = cluster.lock().unwrap().home().run_as(&format!("n{}", i + 1));
            let node = process.started();
            until("it is ready", || (node.call("GET", "/readyz", "").status == 200).then_some(()));
            cluster.lock().unwrap().put(i, node);
        }
        std::thread::sleep(Duration::from_secs(1));
        over.store(true, Ordering::Relaxed);
    });
    for (i, log) in logs.iter().enumerate() {
        for line in log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")) {
            eprintln!("n{}: {line}", i + 1);
        }
    }
    let names = balancers.iter().map(|(kind, _)| kind.file()).zip(&through);
    for (name, seen) in names.chain([("direct", &direct)]) {
        let failed = seen.failed.lock().unwrap();
        let (answered, shown) =
            (seen.answered.load(Ordering::Relaxed), &failed[..failed.len().min(SHOWN_MAX)]);
        eprintln!("{name}: {answered} checks were answered");
        assert!(
            failed.is_empty(),
            "{name}: {} of {}: {shown:#?}",
            failed.len(),
            answered + failed.len()
        );
    }
}
