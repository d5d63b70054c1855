//! What the tests stand on: the real program in a folder of its own, and bytes on a socket.
//!
//! Tests that are about what the door does with bytes, and about processes, use it as it is; those
//! that ask in JSON use `tests/support`, which is built of it. A process that is dropped is killed.

#![allow(dead_code, reason = "each program uses a part of it")]

mod needs;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each program uses a part of it")]
pub use needs::{needs, skip_for_want_of};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take before the test is given up: far more than it takes on a busy
/// machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// The machine's own time: these tests are about how long things really take.
#[allow(clippy::disallowed_methods, reason = "a test of real time measures real time")]
pub fn instant() -> Instant {
    Instant::now()
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = instant();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(instant() - start < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(POLL);
    }
}

/// The program, with nothing said to it by variables of whoever runs the tests.
pub fn program() -> Command {
    other_program(env!("CARGO_BIN_EXE_tidegate"))
}

/// The program at a path, or of a name, without those variables too.
pub fn other_program(path: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(path);
    let variables = std::env::vars_os().map(|(name, _)| name);
    for name in variables.filter(|name| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command
}

/// A folder with a configuration: `cluster.toml`, `policy.toml`, and the data of the node `n1`.
pub struct Home {
    dir: Arc<tempfile::TempDir>,
    environment: Vec<(String, String)>,
}

impl Home {
    /// `rest` is what `cluster.toml` says beside its one node.
    pub fn new(policy: &str, rest: &str) -> Self {
        let home = Self::empty();
        home.write("policy.toml", policy.as_bytes());
        home.configure("127.0.0.1:0", "data", rest);
        home
    }

    /// A folder that is still without a configuration.
    pub fn empty() -> Self {
        Self { dir: Arc::new(tempfile::tempdir().unwrap()), environment: Vec::new() }
    }

    /// Writes `cluster.toml`: one node at `http`, its data in `data_dir`.
    pub fn configure(&self, http: &str, data_dir: &str, rest: &str) {
        let config = format!(
            "[[nodes]]\nid = \"n1\"\nhttp = \"{http}\"\ndata_dir = \"{data_dir}\"\n\
             [policy]\nfile = \"policy.toml\"\n{rest}\n"
        );
        self.write("cluster.toml", config.as_bytes());
    }

    pub fn set_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Makes certificates, as `tidegate cluster certs` does with these words.
    pub fn certify(&self, words: &str) {
        let words = ["cluster", "certs"].into_iter().chain(words.split_whitespace());
        let made = program().args(words).current_dir(self.dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts the program and doesn't wait for it.
    pub fn run(&self) -> Process {
        self.run_as("n1")
    }

    /// The same as the node `id`.
    pub fn run_as(&self, id: &str) -> Process {
        self.run_line(&["serve"], id)
    }

    /// Starts the program with these words and doesn't wait for it.
    pub fn run_words(&self, words: &[&str]) -> Process {
        self.run_line(words, "n1")
    }

    /// The same as the node `id`.
    pub fn run_words_as(&self, words: &[&str], id: &str) -> Process {
        self.run_line(words, id)
    }

    fn run_line(&self, words: &[&str], id: &str) -> Process {
        let config = self.path("cluster.toml");
        let config = config.to_str().unwrap();
        self.spawn(words, &[("TIDEGATE_CONFIG", config), ("TIDEGATE_NODE", id)])
    }

    /// Starts the program with these words and no configuration, and doesn't wait for it.
    pub fn run_without_file(&self, words: &[&str]) -> Process {
        self.spawn(words, &[])
    }

    /// Starts another program, which becomes a node, and doesn't wait for it.
    pub fn run_program(&self, name: &str, words: &[&str]) -> Process {
        self.spawn_program(other_program(name), words, &[])
    }

    /// Starts another program as the node `id`, and waits until it says where it listens.
    pub fn start_other(&self, program: Command, id: &str) -> Node {
        let config = self.path("cluster.toml");
        let variables = [("TIDEGATE_CONFIG", config.to_str().unwrap()), ("TIDEGATE_NODE", id)];
        self.spawn_program(program, &["serve"], &variables).started()
    }

    fn spawn(&self, words: &[&str], variables: &[(&str, &str)]) -> Process {
        self.spawn_program(program(), words, variables)
    }

    fn spawn_program(
        &self,
        mut program: Command,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> Process {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let (out, log) = (self.path(&format!("out-{run}")), self.path(&format!("log-{run}")));
        let child = program
            .args(words)
            .envs(variables.iter().copied())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Process { child, out, log, _home: self.dir.clone() }
    }

    /// Starts the program and waits until it says where it listens.
    pub fn start(&self) -> Node {
        self.start_as("n1")
    }

    /// The same as the node `id`.
    pub fn start_as(&self, id: &str) -> Node {
        self.run_as(id).started()
    }
}

/// The program while it runs, and what it wrote. Killed when dropped.
pub struct Process {
    child: Child,
    out: PathBuf,
    log: PathBuf,
    /// Its folder stays for as long as it does.
    _home: Arc<tempfile::TempDir>,
}

impl Process {
    /// Waits until it says where it listens.
    pub fn started(mut self) -> Node {
        let addr = until("the node's address", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the node ended with {status}: {}", self.log());
            }
            let said = self.out();
            let (_, after) = said.split_once("://")?;
            after.split_once('\n')?.0.trim().parse().ok()
        });
        Node { process: self, addr }
    }

    pub fn out(&self) -> String {
        read(&self.out)
    }

    pub fn log(&self) -> String {
        read(&self.log)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        until("the process's end", || self.child.try_wait().unwrap())
    }

    /// Bytes of memory it has in use.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// A node that serves.
pub struct Node {
    pub process: Process,
    pub addr: SocketAddr,
}

impl Node {
    pub fn connect(&self) -> Wire {
        Wire::to(self.addr)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.addr, self.process.log()))
    }

    /// One call on a connection of its own.
    pub fn call(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.connect().call(method, path, &[], body.as_ref())
    }

    pub fn check(&self, body: impl AsRef<[u8]>) -> Value {
        let answer = self.call("POST", "/v1/check", body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Tells it to stop and waits for its end.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.process.signal(Signal::TERM);
        (self.process.end(), self.process.log())
    }
}

/// One answer, as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The problem document that it has to be.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{} {self:?}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        for member in ["type", "title", "detail"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{member} of {problem}");
        }
        assert_eq!(problem["status"], status, "{problem}");
        problem
    }
}

/// The head of a request with a body of `length` bytes.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

/// A connection.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub fn to(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says that nothing more will be sent, and still reads.
    pub fn end_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Sends a request and reads its answer.
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = head(method, path, headers, body.len()).into_bytes();
        request.extend_from_slice(body);
        // A node may answer and close before it has taken the whole body; the answer counts.
        let sent = self.send(request);
        self.answer().unwrap_or_else(|| panic!("no answer to {method} {path}; sending: {sent:?}"))
    }

    /// Sends these bytes and reads an answer; none where the connection is closed instead.
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Option<Answer> {
        let _ = self.send(bytes);
        self.answer()
    }

    /// The next answer; none where the connection ends.
    pub fn answer(&mut self) -> Option<Answer> {
        let (status, headers) = self.answer_head()?;
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        while self.unread.len() < length {
            self.more()?;
        }
        let body = self.unread.drain(..length).collect();
        Some(Answer { status, headers, body })
    }

    /// The next answer's status and headers, as of an answer to HEAD.
    pub fn answer_head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_string())
        };
        Some((status, lines.map(header).collect()))
    }

    /// Reads `count` bytes as they come; none where the connection ends.
    pub fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            self.more()?;
        }
        Some(self.unread.drain(..count).collect())
    }

    fn more(&mut self) -> Option<()> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => None,
            Ok(count) => {
                self.unread.extend_from_slice(&chunk[..count]);
                Some(())
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("nothing came in {PATIENCE:?}")
            }
            Err(_) => None,
        }
    }

    /// Whether the other side has closed it; doesn't wait.
    pub fn is_closed(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.read(&mut [0; 1]);
        self.stream.set_nonblocking(false).unwrap();
        match read {
            Ok(0) => true,
            Ok(_) => panic!("bytes came unasked"),
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Waits until the other side closes it, and answers how long that took.
    pub fn wait_closed(&mut self) -> Duration {
        let start = instant();
        while self.more().is_some() {}
        instant() - start
    }
}
