//! Asks a node over HTTP.
//!
//! A [`Request`] is a method, a path and what goes with them; the [`Client`] adds the base URL and the token, and gives
//! back an [`Answer`] with a 2xx status or a [`Failure`].
//!
//! Neither proxies named by the environment nor redirects are followed: the token is for the node that the user named and
//! for nobody else. There is no TLS here; a node behind TLS is asked from where it can be reached without.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http;

use super::failure::{Failure, Problem};

/// How long a connection may take to come about, name look-up included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node may take to begin its answer, beyond the wait that the request itself asks for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one read or write may make no progress: bodies may be long, silence may not.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read. A policy that names a million tenants is about a third of this.
const ANSWER_BYTES_MAX: u64 = 512 << 20;

/// JSON's content type.
pub const JSON: &str = "application/json";
/// TOML's content type.
pub const TOML: &str = "application/toml";

/// Which node to ask, and as whom.
#[derive(clap::Args)]
pub struct ServerArgs {
    /// The node to ask
    #[arg(
        long,
        global = true,
        default_value = "http://127.0.0.1:7070",
        env = "TIDEGATE_URL",
        help_heading = "Global options"
    )]
    pub url: String,
    /// The token to show it
    ///
    /// Other users of the machine can see the flag in the list of processes; they can't see the variable.
    #[arg(
        long,
        global = true,
        env = "TIDEGATE_TOKEN",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub token: Option<String>,
}

impl ServerArgs {
    /// A client for that node. It connects with the first request.
    pub fn client(&self) -> Result<Client, Failure> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(STALL_TIMEOUT))
            .timeout_per_write(Some(STALL_TIMEOUT))
            .build();
        Ok(Client {
            agent: config.new_agent(),
            base: base_of(&self.url)?,
            authorization: authorization_of(self.token.as_deref().unwrap_or_default())?,
        })
    }
}

/// The URL without its last slash, if a request can be sent there.
fn base_of(url: &str) -> Result<String, Failure> {
    let parsed = url.parse::<http::Uri>().ok();
    let authority = parsed.as_ref().and_then(http::Uri::authority);
    let usage = |why: &str| Err(Failure::Usage(format!("{url:?} (--url) {why}")));
    match (&parsed, authority) {
        (Some(uri), Some(_)) if uri.scheme_str() == Some("https") => {
            usage("asks for TLS, which this command lacks")
        }
        // It would be shown in messages, and sent beside the token.
        (Some(_), Some(authority)) if authority.as_str().contains('@') => {
            Err(Failure::Usage("the URL holds a user's name; use --token".into()))
        }
        (Some(uri), Some(_)) if uri.scheme_str() == Some("http") && uri.query().is_none() => {
            Ok(url.trim_end_matches('/').to_string())
        }
        _ => usage("is not a URL like http://127.0.0.1:7070"),
    }
}

fn authorization_of(token: &str) -> Result<Option<String>, Failure> {
    let token = token.trim();
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::Usage("the token (--token) holds characters that can't be sent".into()));
    }
    Ok((!token.is_empty()).then(|| format!("Bearer {token}")))
}

/// One part of a path, with everything but letters, digits and `-._~` as `%XX`.
pub fn encode(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// One request to be.
pub struct Request {
    method: http::Method,
    path: String,
    accept: &'static str,
    body: Option<(&'static str, Vec<u8>)>,
    if_match: Option<String>,
    wait: Duration,
}

impl Request {
    fn new(method: http::Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), accept: JSON, body: None, if_match: None, wait: Duration::ZERO }
    }

    /// `GET` of a path that begins with a slash.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(http::Method::GET, path)
    }

    /// `POST`, for now without a body.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(http::Method::POST, path)
    }

    /// `PUT`, for now without a body.
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(http::Method::PUT, path)
    }

    /// `DELETE`.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(http::Method::DELETE, path)
    }

    /// With a JSON body.
    pub fn json(self, value: &Value) -> Self {
        self.body(JSON, value.to_string().into_bytes())
    }

    /// With a body as it is.
    pub fn body(mut self, content_type: &'static str, bytes: Vec<u8>) -> Self {
        self.body = Some((content_type, bytes));
        self
    }

    /// For an answer of this content type, rather than JSON.
    pub fn accept(mut self, content_type: &'static str) -> Self {
        self.accept = content_type;
        self
    }

    /// Only if what is written to still has this tag.
    pub fn if_match(mut self, tag: impl Into<String>) -> Self {
        self.if_match = Some(tag.into());
        self
    }

    /// With patience for an answer that the node itself may delay by `wait`.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// What a node said to a request that it granted.
#[derive(Debug)]
pub struct Answer {
    /// The body.
    pub text: String,
    /// The `ETag` header.
    pub etag: Option<String>,
}

impl Answer {
    /// The body, understood.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text)
            .map_err(|e| Failure::Failed(format!("the node's answer is not what was expected: {e}")))
    }
}

/// Asks one node.
pub struct Client {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
}

impl Client {
    /// Sends a request and waits for the answer.
    pub fn send(&self, request: Request) -> Result<Answer, Failure> {
        let writes = request.method != http::Method::GET;
        let mut response = self.exchange(request).map_err(|e| self.failure(e, writes))?;
        let header = |name: http::HeaderName| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_string)
        };
        let etag = header(http::header::ETAG);
        let retry_after = header(http::header::RETRY_AFTER);
        let location = header(http::header::LOCATION);
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|e| self.failure(e, writes))?;
        if status.is_success() {
            return Ok(Answer { text, etag });
        }
        let mut problem = Problem::read(status, &text);
        if let Some(seconds) = retry_after {
            problem.hint(format!("try again in {seconds} s"));
        }
        if let Some(elsewhere) = location.filter(|_| status.is_redirection()) {
            problem.hint(format!("redirects are not followed; this one leads to {elsewhere}"));
        }
        if status == http::StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            problem.hint("give a token with --token or TIDEGATE_TOKEN");
        }
        Err(Failure::Problem(problem))
    }

    fn exchange(&self, request: Request) -> Result<http::Response<ureq::Body>, ureq::Error> {
        let mut builder = http::Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.base, request.path))
            .header(http::header::ACCEPT, request.accept);
        if let Some(authorization) = &self.authorization {
            builder = builder.header(http::header::AUTHORIZATION, authorization);
        }
        if let Some(tag) = &request.if_match {
            builder = builder.header(http::header::IF_MATCH, tag);
        }
        let patience = Some(ANSWER_TIMEOUT.saturating_add(request.wait));
        // The stall may be as long as the answer may take to begin, and no shorter.
        let stall = patience.max(Some(STALL_TIMEOUT));
        match request.body {
            Some((content_type, bytes)) => {
                let request = builder.header(http::header::CONTENT_TYPE, content_type).body(bytes)?;
                let configured = self.agent.configure_request(request);
                let configured = configured.timeout_recv_response(patience).timeout_per_read(stall);
                self.agent.run(configured.build())
            }
            None => {
                let configured = self.agent.configure_request(builder.body(())?);
                let configured = configured.timeout_recv_response(patience).timeout_per_read(stall);
                self.agent.run(configured.build())
            }
        }
    }

    /// A failure to get any answer. After a write that was sent it matters that nobody knows what became of it.
    fn failure(&self, error: ureq::Error, writes: bool) -> Failure {
        use ureq::Timeout::{Connect, Resolve};
        let (why, sent) = match &error {
            ureq::Error::HostNotFound => ("no such host".to_string(), false),
            ureq::Error::ConnectionFailed => ("no connection".to_string(), false),
            ureq::Error::Timeout(Connect | Resolve) => {
                (format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()), false)
            }
            ureq::Error::Timeout(_) => ("no answer in time".to_string(), true),
            ureq::Error::Io(e) => (e.to_string(), broke_off(e)),
            // It is reached, but speaks no HTTP or too much of it.
            other => return Failure::Failed(format!("{}: {other}", self.base)),
        };
        let unknown = if sent && writes { "; it may have taken effect all the same" } else { "" };
        Failure::Unreachable(format!("{}: {why}{unknown}", self.base))
    }
}

/// Whether a connection was there and then ended; everything else happens before a byte is sent.
fn broke_off(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::super::testing::{Reply, Server};
    use super::*;

    fn client(url: &str, token: Option<&str>) -> Client {
        let server = ServerArgs { url: url.into(), token: token.map(Into::into) };
        server.client().unwrap()
    }

    #[test]
    fn a_request_carries_the_token_the_tag_and_the_body() {
        let server = Server::replying([Reply::ok("{}").header("ETag", "\"7\"")]);
        let answer = client(&format!("{}/", server.url), Some(" secret\n"))
            .send(Request::put("/v1/policy").body(TOML, b"a = 1".to_vec()).if_match("\"6\""))
            .unwrap();
        assert_eq!(answer.etag.as_deref(), Some("\"7\""));
        let seen = server.seen();
        assert_eq!(seen[0].line, "PUT /v1/policy");
        assert_eq!(seen[0].header("authorization"), Some("Bearer secret"));
        assert_eq!(seen[0].header("if-match"), Some("\"6\""));
        assert_eq!(seen[0].header("content-type"), Some("application/toml"));
        assert_eq!(seen[0].body, "a = 1");
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it_where_that_is_known() {
        let replies = [
            Reply::status(401, ""),
            Reply::status(503, r#"{"title":"No leader"}"#).header("Retry-After", "2"),
            Reply::status(301, "").header("Location", "https://h/"),
        ];
        let server = Server::replying(replies);
        let client = client(&server.url, None);
        let refusal = || client.send(Request::get("/v1/policy")).unwrap_err().to_string();
        assert_eq!(refusal(), "Unauthorized (HTTP 401)\n  give a token with --token or TIDEGATE_TOKEN");
        assert_eq!(refusal(), "No leader (HTTP 503)\n  try again in 2 s");
        assert_eq!(
            refusal(),
            "Moved Permanently (HTTP 301)\n  redirects are not followed; this one leads to https://h/"
        );
    }

    #[test]
    fn a_refusal_as_unsafe_has_an_exit_of_its_own() {
        let server = Server::replying([Reply::status(409, r#"{"title":"Would lose the quorum"}"#)]);
        let failure = client(&server.url, None).send(Request::post("/v1/x")).unwrap_err();
        assert_eq!(failure.exit(), Exit::Unsafe);
    }

    #[test]
    fn nobody_there_is_unreachable_and_nothing_took_effect() {
        let server = Server::replying([]);
        let failure = client(&server.url, None).send(Request::post("/v1/check")).unwrap_err();
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert!(failure.to_string().starts_with("unreachable: http://127.0.0.1:"), "{failure}");
        assert!(!failure.to_string().contains("taken effect"), "{failure}");
    }

    #[test]
    fn a_write_whose_answer_never_came_may_have_taken_effect() {
        let server = Server::replying([Reply::hang_up(), Reply::hang_up()]);
        let client = client(&server.url, None);
        let written = client.send(Request::put("/v1/policy").body(JSON, b"{}".to_vec())).unwrap_err();
        assert_eq!(written.exit(), Exit::Unreachable);
        assert!(written.to_string().ends_with("it may have taken effect all the same"), "{written}");
        let read = client.send(Request::get("/v1/policy")).unwrap_err();
        assert!(!read.to_string().contains("taken effect"), "{read}");
    }

    #[test]
    fn what_speaks_no_http_is_reached_but_fails() {
        let server = Server::replying([Reply::raw("SSH-2.0-x\r\n")]);
        let failure = client(&server.url, None).send(Request::get("/v1/policy")).unwrap_err();
        assert_eq!(failure.exit(), Exit::Failed, "{failure}");
    }

    #[test]
    fn a_url_that_cant_be_asked_is_misuse() {
        for url in [
            "",
            "h:1",
            "127.0.0.1:7070",
            "ftp://h",
            "http://",
            "https://h:1",
            "http://h:1/?a=b",
            "http://u:secret@h:1",
        ] {
            let failure = base_of(url).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage, "{url}");
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
        assert_eq!(base_of("http://h:1/gate/").unwrap(), "http://h:1/gate");
        assert_eq!(authorization_of("a\u{7f}").unwrap_err().exit(), Exit::Usage);
        assert_eq!(authorization_of("").unwrap(), None);
    }

    #[test]
    fn a_path_part_is_encoded_so_that_it_stays_one_part() {
        assert_eq!(encode("acme-1.eu_x~"), "acme-1.eu_x~");
        assert_eq!(encode("a/b?c#d e:é%"), "a%2Fb%3Fc%23d%20e%3A%C3%A9%25");
    }
}
