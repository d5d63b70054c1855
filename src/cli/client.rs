//! Asks a node over HTTP.
//!
//! A [`Request`] is a method, a path and what goes with them; the [`Client`] adds the base URL and
//! the token, and gives back an [`Answer`] with a 2xx status or a [`Failure`].
//!
//! Neither proxies named by the environment nor redirects are followed: the token is for the node
//! that the user named and for nobody else. With an https URL the node has to show a certificate
//! that an authority of `--ca-cert` has signed; there is no other list of authorities.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::failure::{Failure, Problem};

/// How long a connection may take to come about, name look-up included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node may take to begin its answer, beyond the wait that the request itself asks for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one read or write may make no progress: bodies may be long, silence may not.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read. A policy that names a million tenants is about a third of this.
const ANSWER_BYTES_MAX: u64 = 512 << 20;
/// The longest answer that is read where a line is expected.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// JSON's content type.
pub const JSON: &str = "application/json";
/// TOML's content type.
pub const TOML: &str = "application/toml";

/// The node that is asked where nothing is said.
pub const URL_DEFAULT: &str = "http://127.0.0.1:7070";

/// Which node to ask, and as whom.
#[derive(clap::Args)]
pub struct ServerArgs {
    /// The node to ask
    #[arg(
        long,
        global = true,
        default_value = URL_DEFAULT,
        env = "TIDEGATE_URL",
        help_heading = "Global options"
    )]
    pub url: String,
    /// The token to show it
    ///
    /// Other users of the machine can see the flag in the list of processes; they can't see the
    /// variable.
    #[arg(
        long,
        global = true,
        env = "TIDEGATE_TOKEN",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub token: Option<String>,
    /// With an https URL: the certificates of those whose signature on the node's is believed (PEM)
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "TIDEGATE_CACERT",
        help_heading = "Global options"
    )]
    pub ca_cert: Option<PathBuf>,
}

impl ServerArgs {
    /// A client for that node. It connects with the first request.
    pub fn client(&self) -> Result<Client, Failure> {
        let base = base_of(&self.url)?;
        let trusted = match (base.starts_with("https:"), &self.ca_cert) {
            (false, _) => Vec::new(),
            (true, Some(path)) => authorities(path)?,
            (true, None) => {
                let why = format!(
                    "{base} asks for TLS: say with --ca-cert whose certificates to believe"
                );
                return Err(Failure::Usage(why));
            }
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(tidegate::net::tls::provider())
            .root_certs(RootCerts::new_with_certs(&trusted));
        let config = ureq::Agent::config_builder()
            .tls_config(tls.build())
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
            base,
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
        // It would be shown in messages, and sent beside the token.
        (Some(_), Some(authority)) if authority.as_str().contains('@') => {
            Err(Failure::Usage("the URL holds a user's name; use --token".into()))
        }
        (Some(uri), Some(_))
            if matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() =>
        {
            let (scheme, rest) = url.split_once(':').unwrap_or_default();
            Ok(format!("{}:{}", scheme.to_ascii_lowercase(), rest.trim_end_matches('/')))
        }
        _ => usage("is not a URL like http://127.0.0.1:7070"),
    }
}

/// The certificates in a file.
fn authorities(path: &Path) -> Result<Vec<ureq::tls::Certificate<'static>>, Failure> {
    let usage = |why: String| Failure::Usage(format!("{} (--ca-cert) {why}", path.display()));
    let pem = std::fs::read(path)
        .map_err(|e| Failure::Usage(format!("{} (--ca-cert): {e}", path.display())))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(usage(format!("is not PEM: {error}"))),
        }
    }
    if found.is_empty() {
        return Err(usage("has no certificate in it".into()));
    }
    Ok(found)
}

fn authorization_of(token: &str) -> Result<Option<String>, Failure> {
    let token = token.trim();
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::Usage(
            "the token (--token) holds characters that can't be sent".into(),
        ));
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
        Self {
            method,
            path: path.into(),
            accept: JSON,
            body: None,
            if_match: None,
            wait: Duration::ZERO,
        }
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
        serde_json::from_str(&self.text).map_err(|e| {
            Failure::Failed(format!("the node's answer is not what was expected: {e}"))
        })
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
        let (bytes, etag) = self.fetch(request, ANSWER_BYTES_MAX)?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Failure::Failed("the node's answer is not what was expected: it is no text".into())
        })?;
        Ok(Answer { text, etag })
    }

    /// The same for an answer of any bytes, at most so many; and its tag.
    pub fn fetch(&self, request: Request, most: u64) -> Result<(Vec<u8>, Option<String>), Failure> {
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
        let body = response.body_mut().with_config().limit(most);
        let bytes = body.read_to_vec().map_err(|e| self.failure(e, writes))?;
        if status.is_success() {
            return Ok((bytes, etag));
        }
        let mut problem = Problem::read(status, &String::from_utf8_lossy(&bytes));
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

    /// Sends a request whose answer is text under any status. Returns both; errs where no answer
    /// came.
    pub fn text(&self, request: Request) -> Result<(u16, String), Failure> {
        let mut response = self.exchange(request).map_err(|e| self.failure(e, false))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(TEXT_BYTES_MAX);
        let bytes = body.read_to_vec().map_err(|e| self.failure(e, false))?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
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
                let request =
                    builder.header(http::header::CONTENT_TYPE, content_type).body(bytes)?;
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

    /// A failure to get any answer. After a write that was sent it matters that nobody knows what
    /// became of it.
    fn failure(&self, error: ureq::Error, writes: bool) -> Failure {
        use ureq::Timeout::{Connect, Resolve};
        if let Some(why) = tls_error(&error) {
            return Failure::Failed(format!("{}: {why}", self.base));
        }
        let (why, sent) = match &error {
            ureq::Error::HostNotFound => ("no such host".to_string(), false),
            ureq::Error::ConnectionFailed => ("no connection".to_string(), false),
            ureq::Error::Timeout(Connect | Resolve) => {
                (format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()), false)
            }
            ureq::Error::Timeout(_) => ("no answer in time".to_string(), true),
            ureq::Error::Io(e) => (e.to_string(), broke_off(e)),
            ureq::Error::Protocol(why) if self.base.starts_with("http:") => {
                let hint = "where a node has TLS, its URL begins with https:";
                return Failure::Failed(format!("{}: {why}; {hint}", self.base));
            }
            // It is reached, but speaks no HTTP or too much of it.
            other => return Failure::Failed(format!("{}: {other}", self.base)),
        };
        let unknown = if sent && writes { "; it may have taken effect all the same" } else { "" };
        Failure::Unreachable(format!("{}: {why}{unknown}", self.base))
    }
}

/// What went wrong in TLS's handshake, if it was that.
fn tls_error(error: &ureq::Error) -> Option<String> {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    let error = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    Some(match error {
        InvalidCertificate(UnknownIssuer | BadSignature) => {
            "its certificate is signed by nobody whose certificate is in the file of --ca-cert"
                .into()
        }
        InvalidMessage(_) => "it speaks no TLS; without, its URL begins with http:".into(),
        error => error.to_string(),
    })
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
        let server = ServerArgs { url: url.into(), token: token.map(Into::into), ca_cert: None };
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
        assert_eq!(
            refusal(),
            "Unauthorized (HTTP 401)\n  give a token with --token or TIDEGATE_TOKEN"
        );
        assert_eq!(refusal(), "No leader (HTTP 503)\n  try again in 2 s");
        assert_eq!(
            refusal(),
            "Moved Permanently (HTTP 301)\n  redirects are not followed; this one leads to \
             https://h/"
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
        let written =
            client.send(Request::put("/v1/policy").body(JSON, b"{}".to_vec())).unwrap_err();
        assert_eq!(written.exit(), Exit::Unreachable);
        assert!(
            written.to_string().ends_with("it may have taken effect all the same"),
            "{written}"
        );
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
            "https://",
            "http://h:1/?a=b",
            "http://u:secret@h:1",
            "https://u:secret@h:1",
        ] {
            let failure = base_of(url).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage, "{url}");
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
        assert_eq!(base_of("http://h:1/gate/").unwrap(), "http://h:1/gate");
        assert_eq!(base_of("HTTPS://h").unwrap(), "https://h");
        assert_eq!(authorization_of("a\u{7f}").unwrap_err().exit(), Exit::Usage);
        assert_eq!(authorization_of("").unwrap(), None);
    }

    #[test]
    fn tls_takes_somebody_to_be_believed() {
        let asked = |ca_cert: Option<&Path>| {
            let ca_cert = ca_cert.map(Into::into);
            ServerArgs { url: "https://h:1".into(), token: None, ca_cert }.client().err().unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let (none, empty) = (folder.path().join("none.pem"), folder.path().join("empty.pem"));
        std::fs::write(&empty, "nothing").unwrap();
        for (ca_cert, why) in [
            (None, "https://h:1 asks for TLS: say with --ca-cert whose certificates to believe"),
            (Some(&none), "none.pem (--ca-cert): No such file or directory (os error 2)"),
            (Some(&empty), "empty.pem (--ca-cert) has no certificate in it"),
        ] {
            let failure = asked(ca_cert.map(PathBuf::as_path));
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.to_string().ends_with(why), "{failure}");
        }
        // Without TLS nobody looks for it.
        let server = ServerArgs { url: "http://h:1".into(), token: None, ca_cert: Some(none) };
        assert!(server.client().is_ok());
    }

    #[test]
    fn a_path_part_is_encoded_so_that_it_stays_one_part() {
        assert_eq!(encode("acme-1.eu_x~"), "acme-1.eu_x~");
        assert_eq!(encode("a/b?c#d e:é%"), "a%2Fb%3Fc%23d%20e%3A%C3%A9%25");
    }
}
