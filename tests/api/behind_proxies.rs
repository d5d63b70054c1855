//! Real proxies in front of a real node, configured by the files in `docs/proxies`, of which only
//! addresses are changed.
//!
//! A machine without caddy or nginx skips that proxy's part: `apt-get install -y caddy
//! nginx-light`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::rig::{Answer, Home, Node, Wire, needs, until};

const POLICY: &str = r#"
default_tier = "free"
[tiers.free]
limits = [{ name = "hour", algorithm = "sliding_log", limit = 1000, window = "1h" }]
[tiers.tiny]
limits = [{ name = "hour", algorithm = "sliding_log", limit = 5, window = "1h" }]
[tenants.small]
tier = "tiny"
[[limits]]
name = "key"
per = ["api_key"]
algorithm = "sliding_log"
limit = 3
window = "1h"
"#;

/// Starts of a proxy that find their port taken.
const TRIES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Caddy,
    Nginx,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::Caddy => "Caddyfile",
            Self::Nginx => "nginx.conf",
        }
    }

    /// The file as it is printed in the docs.
    fn config(self) -> String {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies");
        std::fs::read_to_string(docs.join(self.file())).unwrap()
    }

    /// The file without what lets requests pass while no node answers.
    fn strict(self) -> String {
        let config = self.config();
        let strict = match self {
            Self::Caddy => {
                let (before, block) = config.split_once("\thandle_errors {").unwrap();
                let (_, after) = block.split_once("\n\t}\n").unwrap();
                [before, after].concat()
            }
            Self::Nginx => {
                let open = |line: &&str| {
                    !line.contains("intercept_errors") && !line.contains("=204 @unasked")
                };
                config.lines().filter(open).collect::<Vec<_>>().join("\n")
            }
        };
        assert!(strict.len() < config.len());
        strict
    }

    fn program(self) -> &'static str {
        match self {
            Self::Caddy => "caddy",
            Self::Nginx => "nginx",
        }
    }

    /// Runs `program` with the configuration in `dir`.
    fn command(self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::Caddy => {
                command
                    .args(["run", "--adapter", "caddyfile", "--config"])
                    .arg(dir.join(self.file()));
                command.env("XDG_CONFIG_HOME", dir).env("XDG_DATA_HOME", dir).env("HOME", dir);
            }
            Self::Nginx => {
                // One process, so that its end is the end of all of it.
                command
                    .args(["-e", "stderr", "-g", "daemon off; master_process off;", "-p"])
                    .arg(dir);
                command.arg("-c").arg(dir.join(self.file()));
            }
        }
        command
    }
}

/// The proxies to be tested: those that this machine has.
fn kinds() -> Vec<Kind> {
    [Kind::Caddy, Kind::Nginx].into_iter().filter(|kind| needs(kind.program()).is_some()).collect()
}

/// A proxy that is running. Its process doesn't outlive it.
struct Proxy {
    child: Child,
    addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts `kind` with `config`, in which the addresses of this test stand in for the docs'.
    fn start(kind: Kind, config: &str, node: SocketAddr, app: SocketAddr) -> Self {
        let program = needs(kind.program()).unwrap();
        for _ in 0..TRIES {
            let dir = tempfile::tempdir().unwrap();
            let addr = free_addr();
            let mut config = config.to_string();
            for (printed, here) in [
                ("127.0.0.1:7070", node.to_string()),
                ("127.0.0.1:9000", app.to_string()),
                (":8080", format!(":{}", addr.port())),
            ] {
                assert!(config.contains(printed), "{} has no {printed}", kind.file());
                config = config.replace(printed, &here);
            }
            std::fs::write(dir.path().join(kind.file()), config).unwrap();
            let log = File::create(dir.path().join("log")).unwrap();
            let mut command = kind.command(&program, dir.path());
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            let child = command.spawn().unwrap();
            let mut proxy = Self { child, addr, dir };
            if proxy.serves() {
                return proxy;
            }
            eprintln!("{kind:?} ended at once: {}", proxy.log());
        }
        panic!("{kind:?} ended {TRIES} times");
    }

    /// Waits until it takes connections; false where it ends instead.
    fn serves(&mut self) -> bool {
        until("the proxy takes connections", || match self.child.try_wait().unwrap() {
            Some(_) => Some(false),
            None => TcpStream::connect(self.addr).ok().map(|_| true),
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn ask(&self, request: &Request) -> Answer {
        let answer = Wire::to(self.addr).unwrap().ask(request.bytes());
        answer.unwrap_or_else(|| panic!("no answer to {request:?}: {}", self.log()))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on.
fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The app behind the proxy: answers 200, or 404 at `/status/404`, and remembers what it was asked.
struct App {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: String,
    uri: String,
    body: String,
}

impl App {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let app = Self { addr: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = app.seen.clone();
        // It ends with the process that tests it.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = seen.clone();
                thread::spawn(move || serve(stream, &seen));
            }
        });
        app
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> u64 {
        self.seen.lock().unwrap().len() as u64
    }
}

/// One request of a connection; none where it ends or is no request.
fn serve(stream: TcpStream, seen: &Mutex<Vec<Seen>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.strip_suffix("\r\n")?.to_string())
    };
    let first = line()?;
    let mut length = 0;
    loop {
        let header = line()?.to_ascii_lowercase();
        match header.split_once(": ") {
            None => break,
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = first.split(' ');
    let (method, uri) = (words.next()?.to_string(), words.next()?.to_string());
    let status = uri.strip_prefix("/status/").unwrap_or("200");
    let answer =
        format!("HTTP/1.1 {status} Said\r\ncontent-length: 6\r\nconnection: close\r\n\r\n");
    let text = if method == "HEAD" { "" } else { "served" };
    seen.lock().unwrap().push(Seen { method, uri, body: String::from_utf8(body).ok()? });
    reader.get_mut().write_all([&answer, text].concat().as_bytes()).ok()
}

/// A client's request.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    host: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn new(method: &str, uri: &str, tenant: &str) -> Self {
        let line = format!("{method} {uri} HTTP/1.1");
        Self {
            line,
            host: format!("{tenant}.api.example.com"),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    fn get(tenant: &str) -> Self {
        Self::new("GET", "/orders/7?page=2", tenant)
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn body(self, body: &str) -> Self {
        Self { body: body.into(), ..self }
    }

    fn bytes(&self) -> String {
        let mut text = format!("{}\r\nHost: {}\r\n", self.line, self.host);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text + "\r\n" + &self.body
    }
}

/// Units that a tenant has spent.
fn spent(node: &Node, tenant: &str) -> u64 {
    let check = json!({"tenant": tenant, "ip": "127.0.0.1"}).to_string();
    let answer = node.call("POST", "/v1/peek", check).json();
    answer["limit"].as_u64().unwrap() - answer["remaining"].as_u64().unwrap()
}

/// A node, an app, and the proxy between them, as the docs say.
fn chain(kind: Kind) -> (Node, App, Proxy) {
    let (node, app) = (Home::new(POLICY, "").start(), App::start());
    let proxy = Proxy::start(kind, &kind.config(), node.addr, app.addr);
    (node, app, proxy)
}

#[test]
fn what_is_allowed_reaches_the_app_unchanged_and_the_client_sees_the_headers() {
    for kind in kinds() {
        let (node, app, proxy) = chain(kind);
        let request = Request::new("POST", "/a%20b/c?x=1&y=%2F", "acme").body("{\"hello\":1}");
        let answer = proxy.ask(&request);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "served"),
            "{kind:?}: {}",
            proxy.log()
        );
        assert_eq!(answer.header("ratelimit-policy"), Some("\"hour\";q=1000;w=3600"), "{kind:?}");
        assert_eq!(answer.header("ratelimit"), Some("\"hour\";r=999;t=3600"), "{kind:?}");
        let uri = "/a%20b/c?x=1&y=%2F".to_string();
        assert_eq!(
            app.seen(),
            [Seen { method: "POST".into(), uri, body: request.body }],
            "{kind:?}"
        );
        assert_eq!(spent(&node, "acme"), 1, "{kind:?}");
    }
}

#[test]
fn a_denial_is_the_clients_answer_and_the_app_is_not_asked() {
    for kind in kinds() {
        let (_node, app, proxy) = chain(kind);
        for _ in 0..5 {
            assert_eq!(proxy.ask(&Request::get("small")).status, 200, "{kind:?}");
        }
        for request in [Request::get("small"), Request::new("POST", "/a", "small").body("hello")] {
            let answer = proxy.ask(&request);
            let problem = answer.problem_type();
            assert_eq!(
                problem, "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "{kind:?}"
            );
            let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((3_000..=3_600).contains(&retry_after), "{kind:?}: {answer:?}");
            assert!(
                answer.header("ratelimit").unwrap().starts_with("\"hour\";r=0;t="),
                "{kind:?}: {answer:?}"
            );
            assert_eq!(answer.header("ratelimit-policy"), Some("\"hour\";q=5;w=3600"), "{kind:?}");
        }
        assert_eq!(app.count(), 5, "{kind:?}");
        assert!(!proxy.log().contains("unexpected status"), "{kind:?}: {}", proxy.log());
    }
}

impl Answer {
    /// The type of a problem document; the proxy may have shortened the rest.
    fn problem_type(&self) -> String {
        assert_eq!(
            (self.status, self.header("content-type")),
            (429, Some("application/problem+json")),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(
            (&problem["status"], &problem["title"]),
            (&json!(429), &json!("Quota exceeded")),
            "{problem}"
        );
        problem["type"].as_str().unwrap().into()
    }
}

#[test]
fn what_the_app_itself_answers_passes_unchanged() {
    for kind in kinds() {
        let (node, app, proxy) = chain(kind);
        for (i, status) in [201, 301, 401, 403, 404, 429, 500, 502, 503].into_iter().enumerate() {
            let answer = proxy.ask(&Request::new("GET", &format!("/status/{status}"), "acme"));
            assert_eq!((answer.status, answer.text().as_str()), (status, "served"), "{kind:?}");
            let left = format!("\"hour\";r={};t=3600", 999 - i);
            assert_eq!(answer.header("ratelimit"), Some(left.as_str()), "{kind:?} {status}");
        }
        assert_eq!((app.count(), spent(&node, "acme")), (9, 9), "{kind:?}");
    }
}

#[test]
fn every_request_is_charged_once_whatever_its_method_and_connection() {
    for kind in kinds() {
        let (node, app) = (Home::new(POLICY, "").start(), App::start());
        // Two peers, so that the proxy has somebody else to ask.
        let config = match kind {
            Kind::Caddy => {
                kind.config().replace("127.0.0.1:7070 {", "127.0.0.1:7070 127.0.0.1:7070 {")
            }
            Kind::Nginx => {
                let server = "server 127.0.0.1:7070 max_fails=0;";
                kind.config().replace(server, &format!("{server} {server}"))
            }
        };
        assert_ne!(config, kind.config());
        let proxy = Proxy::start(kind, &config, node.addr, app.addr);
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut wire = Wire::to(proxy.addr).unwrap();
                    for i in 0..24 {
                        let mut request = Request::new(methods[i % methods.len()], "/a", "acme");
                        if i % 6 != 0 {
                            request = request.body("0123456789");
                        }
                        let answer = wire.ask(request.bytes()).unwrap();
                        assert_eq!(
                            (answer.status, answer.text().as_str()),
                            (200, "served"),
                            "{kind:?}"
                        );
                    }
                });
            }
        });
        let mut wire = Wire::to(proxy.addr).unwrap();
        for _ in 0..4 {
            wire.send(Request::new("HEAD", "/a", "acme").bytes()).unwrap();
            assert_eq!(wire.answer_head().unwrap().0, 200, "{kind:?}");
        }
        assert_eq!((spent(&node, "acme"), app.count()), (100, 100), "{kind:?}: {}", proxy.log());
    }
}

#[test]
fn paths_of_the_bypass_pass_unasked_and_what_only_looks_like_them_does_not() {
    for kind in kinds() {
        let (node, app, proxy) = chain(kind);
        for uri in ["/health", "/health/live?verbose", "/docs/a.html", "/openapi.json"] {
            let answer = proxy.ask(&Request::new("GET", uri, "acme"));
            assert_eq!(
                (answer.status, answer.header("ratelimit")),
                (200, None),
                "{kind:?} {uri}: {answer:?}"
            );
            assert_eq!(answer.header("ratelimit-policy"), None, "{kind:?} {uri}: {answer:?}");
        }
        assert_eq!((app.count(), spent(&node, "acme")), (4, 0), "{kind:?}");
        for (i, uri) in
            ["/healthy", "/health/../a", "/health/%2e%2e/a", "//health", "/health/..%2fa"]
                .iter()
                .enumerate()
        {
            proxy.ask(&Request::new("GET", uri, "acme"));
            assert_eq!(spent(&node, "acme"), i as u64 + 1, "{kind:?}: {uri}");
        }
    }
}

#[test]
fn nothing_that_a_client_sends_changes_who_is_charged_or_for_what() {
    for kind in kinds() {
        let (node, app, proxy) = chain(kind);
        let forged = |mut request: Request| {
            for (name, value) in [
                ("X-Tenant-ID", "victim"),
                ("X-Client-ID", "victim"),
                ("X-Action", "\u{1}"),
                ("X-Forwarded-For", "203.0.113.9"),
                ("X-Real-IP", "203.0.113.9"),
                ("X-Forwarded-Method", "G T"),
                ("X-Forwarded-Uri", "/health"),
                ("X-Forwarded-Host", "victim.api.example.com"),
                ("X-Original-URI", "/health"),
                ("X-Original-URL", "/health"),
                ("X-Tidegate-Token", "x"),
                ("Connection", "x-tenant-id, x-forwarded-uri, x-forwarded-for, x-forwarded-method"),
            ] {
                let value = value.replace('\u{1}', &"x".repeat(300));
                request = request.header(name, &value);
            }
            request
        };
        for tenant in ["acme", "acme", "other.zone", "other.zone", "other.zone"] {
            let answer = proxy.ask(&forged(Request::new("GET", "/orders?deny_status=500", tenant)));
            assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
        }
        // The second host names no customer: its requests are nobody's, and counted by address.
        assert_eq!((spent(&node, "acme"), spent(&node, "anonymous")), (2, 3), "{kind:?}");
        assert_eq!((spent(&node, "victim"), app.count()), (0, 5), "{kind:?}");
    }
}

#[test]
fn a_limit_per_api_key_holds_for_the_header_and_the_query() {
    for kind in kinds() {
        let (_node, _app, proxy) = chain(kind);
        let by_header = Request::get("acme").header("X-API-Key", "k1");
        let by_query = Request::new("GET", "/a?api_key=k1", "acme");
        let statuses: Vec<_> = [&by_header, &by_query, &by_header, &by_query, &by_header]
            .map(|request| proxy.ask(request).status)
            .into();
        assert_eq!(statuses, [200, 200, 200, 429, 429], "{kind:?}");
        assert_eq!(proxy.ask(&Request::get("acme")).status, 200, "{kind:?}");
    }
}

#[test]
fn while_no_node_answers_requests_pass_or_fail_as_the_file_says() {
    for kind in kinds() {
        let app = App::start();
        let post = Request::new("POST", "/a?b", "acme").body("hello");
        let open = Proxy::start(kind, &kind.config(), free_addr(), app.addr);
        let answer = open.ask(&post);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "served"),
            "{kind:?}: {}",
            open.log()
        );
        assert_eq!(answer.header("ratelimit"), None, "{kind:?}: {answer:?}");
        let seen = Seen { method: "POST".into(), uri: "/a?b".into(), body: "hello".into() };
        assert_eq!(app.seen(), [seen], "{kind:?}");

        let strict = Proxy::start(kind, &kind.strict(), free_addr(), app.addr);
        let answer = strict.ask(&post);
        assert!(matches!(answer.status, 500..=504), "{kind:?}: {answer:?}");
        assert_eq!(app.count(), 1, "{kind:?}");
    }
}

#[test]
fn a_request_that_is_too_large_to_be_asked_about_does_not_slip_through() {
    for kind in kinds() {
        let (node, app, proxy) = chain(kind);
        let mut served = 0;
        let mut send = |request: Request| {
            let answer = Wire::to(proxy.addr).unwrap().ask(request.bytes());
            served += u64::from(answer.is_some_and(|answer| answer.status == 200));
        };
        for size in [
            1_000, 3_000, 4_000, 5_000, 6_900, 8_000, 10_000, 12_000, 15_000, 17_000, 40_000,
            200_000,
        ] {
            let long = "a".repeat(size);
            send(Request::get("acme").header("X-Padding", &long));
            send(Request::get("acme").header("Cookie", &long));
            send(Request::get("acme").header("X-API-Key", &long));
            send(Request::new("GET", &format!("/{long}"), "acme"));
            send(Request::new("GET", &format!("/?{long}"), "acme"));
            // What a proxy escapes grows to three times its size.
            send(Request::new("GET", &format!("/?{}", "\"".repeat(size)), "acme"));
            send(Request::new("GET", &format!("/?{long}"), "acme").header("X-API-Key", &long));
            send(Request { host: format!("{long}.api.example.com"), ..Request::get("acme") });
        }
        for count in [30, 60, 70, 100, 200] {
            let many = (0..count)
                .fold(Request::get("acme"), |r, i| r.header(&format!("X-Padding-{i}"), "a"));
            send(many);
        }
        // A node that refuses a head closes while the proxy is still sending: to the proxy that may
        // look like a failure, now and then. So large ones come in numbers, and from several sides.
        let large = Request::get("acme").header("X-API-Key", &"a".repeat(60_000)).bytes();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..40).for_each(|_| drop(Wire::to(proxy.addr).unwrap().ask(&large)))
                });
            }
        });
        let charged = spent(&node, "acme") + spent(&node, "anonymous");
        assert_eq!(app.count(), served, "{kind:?}");
        assert!((10..60).contains(&served), "{kind:?}: {served}");
        assert_eq!(charged, served, "{kind:?}: {}", proxy.log());
    }
}
