//! The processes of a local cluster: started, listened to, watched, stopped.
//!
//! Everything that happens comes down one channel and is looked at by one task: a line that a node
//! logs (a thread a node reads them), whether it is ready (a task a node asks), a signal. Only
//! whether a process has ended is looked at again and again, since its id is ours for just as long
//! as nobody has asked for its end.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::super::client::{Client, Request};
use super::super::failure::Failure;
use super::super::output::Output;
use super::super::variables::{self, FOR_DEV_NODES};

/// How often it is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often a node is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Events on their way. Past it, nodes wait to log until their lines are shown.
const EVENTS_MAX: usize = 1_024;
/// Bytes of a log line; a longer one goes on as the next.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Lines of a node's log that are shown again when it fails.
const LAST_LINES_MAX: usize = 8;

/// A process to start.
pub struct Spec<'a> {
    /// Its node.
    pub id: &'a str,
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub words: &'a [OsString],
    /// Asks the node.
    pub client: Client,
}

/// See the module.
pub struct Processes {
    list: Vec<Process>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
}

struct Process {
    id: String,
    /// With its standard input, which is closed when this is dropped.
    child: Child,
    is_ready: bool,
    /// All that it wrote has been read.
    is_silent: bool,
    has_ended: bool,
    /// The last lines of its log.
    last: VecDeque<String>,
    /// Why it was not ready when it was last asked.
    why: String,
}

/// What happens. Nodes go by their place in the list.
enum Event {
    /// It logged a line.
    Said(usize, String),
    /// It has closed its log.
    Silent(usize),
    /// It is ready.
    Ready(usize),
    /// It is not ready, for this reason.
    Unready(usize, String),
    /// Its process is over.
    Ended(usize, ExitStatus),
    /// Somebody wants an end.
    Stop,
}

impl Processes {
    /// None yet. From here on SIGTERM, SIGINT and SIGHUP are heard. Called within a runtime.
    pub fn new() -> Result<Self, Failure> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
            let mut signals = signal(kind)
                .map_err(|e| Failure::Failed(format!("can't listen for signals: {e}")))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() && sender.send(Event::Stop).await.is_ok() {}
            });
        }
        Ok(Self { list: Vec::new(), events, sender })
    }

    /// Starts one, and begins to listen to it and to ask it whether it is ready.
    pub fn start(&mut self, spec: Spec<'_>) -> Result<(), Failure> {
        let Spec { id, program, words, client } = spec;
        let unstartable = |e: std::io::Error| Failure::Failed(format!("can't start {id}: {e}"));
        let mut command = Command::new(program);
        // Else TIDEGATE_DATA_DIR would have every node write there.
        for name in variables::ours().filter(|name| !FOR_DEV_NODES.contains(&name.as_str())) {
            command.env_remove(name);
        }
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for all of a terminal's group, and a node that hears it twice ends at once.
            .process_group(0)
            .spawn()
            .map_err(unstartable)?;
        let (node, log) = (self.list.len(), child.stderr.take());
        self.list.push(Process {
            id: id.into(),
            child,
            is_ready: false,
            is_silent: log.is_none(),
            has_ended: false,
            last: VecDeque::new(),
            why: "it was not asked".into(),
        });
        if let Some(log) = log {
            let sender = self.sender.clone();
            let reader = std::thread::Builder::new().name(format!("log of {id}"));
            reader.spawn(move || read_lines(node, log, &sender)).map_err(unstartable)?;
        }
        tokio::spawn(ask_until_ready(node, Arc::new(client), self.sender.clone()));
        Ok(())
    }

    /// The process ids, in the order of their start.
    pub fn pids(&self) -> Vec<u32> {
        self.list.iter().map(|process| process.child.id()).collect()
    }

    /// Waits until all are ready; false where it was told to stop before.
    pub async fn until_ready(
        &mut self,
        most: Duration,
        out: &mut Output<'_>,
    ) -> Result<bool, Failure> {
        let waited = tokio::time::timeout(most, async {
            while self.list.iter().any(|process| !process.is_ready) {
                match self.next(out).await {
                    Event::Stop => return Ok(false),
                    Event::Ended(node, status) => {
                        return Err(self
                            .failure(node, &format!("has ended ({status}) before it was ready")));
                    }
                    _ => {}
                }
            }
            Ok(true)
        });
        match waited.await {
            Ok(outcome) => outcome,
            Err(_) => {
                let late = self.list.iter().position(|process| !process.is_ready).unwrap_or(0);
                let why = self.list.get(late).map_or("", |process| process.why.as_str());
                let what = format!("was not ready within {} s: {why}", most.as_secs());
                Err(self.failure(late, &what))
            }
        }
    }

    /// Waits until it is told to stop. Fails once none is left.
    pub async fn until_stopped(&mut self, out: &mut Output<'_>) -> Result<(), Failure> {
        while self.are_some_left() {
            match self.next(out).await {
                Event::Stop => return Ok(()),
                Event::Ended(node, status) => {
                    let rest = if self.are_some_left() { "; the others go on" } else { "" };
                    out.note(&format!("{} has ended ({status}){rest}", self.list[node].id));
                }
                _ => {}
            }
        }
        Err(Failure::Failed("no node is left".into()))
    }

    /// Tells all to stop, and kills those that haven't within `most`, or as soon as it is told to
    /// stop once more.
    pub async fn stop(&mut self, most: Duration, out: &mut Output<'_>) {
        for process in self.list.iter().filter(|process| !process.has_ended) {
            // Of a process whose end nobody has asked for, the id is its own.
            let _ = kill_process(Pid::from_child(&process.child), Signal::TERM);
        }
        let _ = tokio::time::timeout(most, async {
            while self.are_some_left() && !matches!(self.next(out).await, Event::Stop) {}
        })
        .await;
        for process in self.list.iter_mut().filter(|process| !process.has_ended) {
            out.note(&format!("{} did not stop and is killed", process.id));
            let _ = process.child.kill();
            let _ = process.child.wait();
            process.has_ended = true;
        }
    }

    fn are_some_left(&self) -> bool {
        self.list.iter().any(|process| !process.has_ended)
    }

    /// The next thing that happens. Lines of logs are shown on the way.
    async fn next(&mut self, out: &mut Output<'_>) -> Event {
        loop {
            if let Some(ended) = self.ended() {
                return ended;
            }
            let Ok(Some(event)) = tokio::time::timeout(LOOK_EVERY, self.events.recv()).await else {
                continue;
            };
            match event {
                Event::Said(node, line) => {
                    let process = &mut self.list[node];
                    out.note(&format!("{} | {line}", process.id));
                    process.last.push_back(line);
                    if process.last.len() > LAST_LINES_MAX {
                        process.last.pop_front();
                    }
                }
                Event::Silent(node) => self.list[node].is_silent = true,
                Event::Unready(node, why) => self.list[node].why = why,
                Event::Ready(node) => {
                    self.list[node].is_ready = true;
                    return event;
                }
                Event::Ended(..) | Event::Stop => return event,
            }
        }
    }

    /// One that has ended since this was last asked. Its last lines come first.
    fn ended(&mut self) -> Option<Event> {
        let mut list = self.list.iter_mut().enumerate();
        list.find_map(|(node, process)| {
            if process.has_ended || !process.is_silent {
                return None;
            }
            let status = process.child.try_wait().ok()??;
            process.has_ended = true;
            Some(Event::Ended(node, status))
        })
    }

    /// What is wrong with a node, and the end of its log.
    fn failure(&self, node: usize, what: &str) -> Failure {
        let Some(process) = self.list.get(node) else { return Failure::Failed(what.into()) };
        let last: Vec<_> = process.last.iter().map(|line| format!("\n  {line}")).collect();
        Failure::Failed(format!("{} {what}{}", process.id, last.concat()))
    }
}

/// Passes on what a node logs, until it has closed its log or nobody listens.
fn read_lines(node: usize, log: ChildStderr, events: &mpsc::Sender<Event>) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        match log.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim_end().to_string();
                if events.blocking_send(Event::Said(node, text)).is_err() {
                    return;
                }
            }
        }
    }
    let _ = events.blocking_send(Event::Silent(node));
}

/// Asks a node until it is ready, and says each time what it said.
async fn ask_until_ready(node: usize, client: Arc<Client>, events: mpsc::Sender<Event>) {
    loop {
        let client = client.clone();
        let asked = tokio::task::spawn_blocking(move || client.send(Request::get("/readyz"))).await;
        let event = match asked {
            Ok(Ok(_)) => Event::Ready(node),
            Ok(Err(failure)) => Event::Unready(node, failure.to_string()),
            Err(_) => return,
        };
        let is_over = matches!(event, Event::Ready(_));
        if events.send(event).await.is_err() || is_over {
            return;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::client::ServerArgs;
    use super::super::super::output::Format;
    use super::super::super::testing::{Reply, Server};
    use super::*;

    const READY_MAX: Duration = Duration::from_secs(30);
    const STOP_MAX: Duration = Duration::from_secs(30);

    /// Runs one process until it is ready, and stops it: how it began, and what was said.
    fn begin(
        program: &str,
        words: &[&str],
        url: &str,
        most: Duration,
    ) -> (Result<bool, String>, String) {
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        let mut out = Output::new(Format::Table, false, &mut data, &mut notes);
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let began = runtime.block_on(async {
            let mut processes = Processes::new().unwrap();
            let client =
                ServerArgs { url: url.into(), token: None, ca_cert: None }.client().unwrap();
            let spec = Spec { id: "n1", program: Path::new(program), words: &words, client };
            if let Err(failure) = processes.start(spec) {
                return Err(failure.to_string());
            }
            let began = processes.until_ready(most, &mut out).await;
            processes.stop(STOP_MAX, &mut out).await;
            assert!(!processes.are_some_left());
            began.map_err(|failure| failure.to_string())
        });
        (began, String::from_utf8(notes).unwrap())
    }

    fn nobody() -> String {
        Server::replying([]).url
    }

    #[test]
    fn a_node_is_ready_once_it_says_so() {
        let server = Server::replying([Reply::status(503, "no leader\n"), Reply::ok("ready\n")]);
        let (began, notes) =
            begin("sh", &["-c", "echo hello >&2; read line"], &server.url, READY_MAX);
        assert_eq!(began, Ok(true), "{notes}");
        let asked: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
        assert_eq!(asked, ["GET /readyz", "GET /readyz"]);
    }

    #[test]
    fn a_node_that_ends_too_early_is_named_with_the_end_of_its_log() {
        let script = "for i in 1 2 3 4 5 6 7 8 9; do echo line $i >&2; done; exit 3";
        let (began, notes) = begin("sh", &["-c", script], &nobody(), READY_MAX);
        let failure = began.unwrap_err();
        let starts = "n1 has ended (exit status: 3) before it was ready\n  line 2\n";
        assert!(failure.starts_with(starts) && failure.ends_with("\n  line 9"), "{failure}");
        assert!(notes.starts_with("n1 | line 1\n"), "{notes}");
    }

    #[test]
    fn a_node_that_is_not_ready_in_time_is_named_with_its_reason() {
        let replies = std::iter::repeat_with(|| Reply::status(503, "no leader\n")).take(1_000);
        let server = Server::replying(replies.collect::<Vec<_>>());
        let (began, _) = begin("sh", &["-c", "read line"], &server.url, Duration::from_secs(1));
        let failure = began.unwrap_err();
        let expected = "n1 was not ready within 1 s: Service Unavailable: no leader (HTTP 503)";
        assert_eq!(failure, expected);
    }

    #[test]
    fn a_program_that_isnt_there_is_a_failure() {
        let (began, _) = begin("/none/such", &[], &nobody(), READY_MAX);
        assert!(began.unwrap_err().starts_with("can't start n1: "));
    }

    #[test]
    fn a_node_that_will_not_stop_is_killed() {
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        let mut out = Output::new(Format::Table, false, &mut data, &mut notes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut processes = Processes::new().unwrap();
            let client = ServerArgs { url: nobody(), token: None, ca_cert: None }.client().unwrap();
            let words = ["-c", "trap '' TERM; echo deaf >&2; while read line; do :; done"]
                .map(OsString::from);
            processes
                .start(Spec { id: "n1", program: Path::new("sh"), words: &words, client })
                .unwrap();
            while processes.list[0].last.is_empty() {
                let soon = tokio::time::timeout(LOOK_EVERY, processes.next(&mut out)).await;
                assert!(soon.is_err());
            }
            processes.stop(Duration::from_millis(200), &mut out).await;
            assert!(!processes.are_some_left());
        });
        assert_eq!(String::from_utf8(notes).unwrap(), "n1 | deaf\nn1 did not stop and is killed\n");
    }
}
