//! A fake node for tests: a loopback server that gives prepared replies and remembers what it was
//! asked.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::output::Output;
use super::{Exit, Line, ask};

/// A prepared reply.
pub struct Reply {
    bytes: String,
}

impl Reply {
    /// 200 with a body.
    pub fn ok(body: &str) -> Self {
        Self::status(200, body)
    }

    /// Any status with a body.
    pub fn status(status: u16, body: &str) -> Self {
        let length = body.len();
        Self {
            bytes: format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        }
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.bytes = self.bytes.replacen("\r\n", &format!("\r\n{name}: {value}\r\n"), 1);
        self
    }

    /// These bytes, whatever they are.
    pub fn raw(bytes: &str) -> Self {
        Self { bytes: bytes.into() }
    }

    /// Nothing: the connection is closed after the request.
    pub fn hang_up() -> Self {
        Self::raw("")
    }
}

/// A request that the fake node got.
pub struct Seen {
    /// `GET /v1/policy`.
    pub line: String,
    /// Its headers, the names in small letters.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A fake node. It takes one request a connection, as many as it has replies, and then refuses
/// connections.
pub struct Server {
    /// Where it listens.
    pub url: String,
    requests: Receiver<Seen>,
}

impl Server {
    /// A node that gives these replies in turn.
    pub fn replying(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let replies: Vec<_> = replies.into_iter().collect();
        let (sender, requests) = channel();
        if !replies.is_empty() {
            std::thread::spawn(move || {
                for reply in replies {
                    let (connection, _) = listener.accept().unwrap();
                    answer(connection, &reply, &sender);
                }
            });
        }
        Self { url, requests }
    }

    /// What it was asked until now.
    pub fn seen(&self) -> Vec<Seen> {
        self.requests.try_iter().collect()
    }

    /// Runs a command line against it.
    pub fn run(&self, line: &str) -> Ran {
        let mut words = words(line);
        words.extend(["--url".into(), self.url.clone().into()]);
        run_words(words)
    }
}

fn answer(mut connection: TcpStream, reply: &Reply, seen: &Sender<Seen>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_string());
    }
    let first = head.first().cloned().unwrap_or_default();
    let mut request = Seen {
        line: first.trim_end_matches(" HTTP/1.1").to_string(),
        headers: head
            .iter()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
            .collect(),
        body: String::new(),
    };
    let length = request.header("content-length").map_or(0, |n| n.parse().unwrap());
    reader.take(length).read_to_string(&mut request.body).unwrap();
    // Before the reply, so that whoever has the reply finds the request.
    let _ = seen.send(request);
    let _ = connection.write_all(reply.bytes.as_bytes());
}

/// What became of a command.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub exit: Exit,
    /// Its stdout.
    pub data: String,
    /// Its stderr.
    pub notes: String,
}

/// A line's words: what a shell would make of it, without quotes.
pub fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(Into::into).collect()
}

/// Runs a command line given as words.
pub fn run_words(words: Vec<OsString>) -> Ran {
    let cli = Line::read(words).unwrap_or_else(|e| panic!("{e}")).0;
    let (mut data, mut notes) = (Vec::new(), Vec::new());
    let mut out = Output::new(cli.output, false, &mut data, &mut notes);
    let exit = ask(cli.command.unwrap(), &cli.server, &mut out);
    Ran { exit, data: String::from_utf8(data).unwrap(), notes: String::from_utf8(notes).unwrap() }
}
