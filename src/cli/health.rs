//! `tidegate health`: is this node ready, for containers and scripts.
//!
//! ```text
//! $ tidegate health ; echo $?
//! the cluster has not formed: waiting for n2, n3
//! 1
//! ```
//!
//! It sends no token: the calls behind it never need one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::json;
use ureq::http::Uri;

use super::Exit;
use super::client::{Request, ServerArgs, URL_DEFAULT};
use super::failure::Failure;
use super::output::{Output, plain};

/// Where a node says that it listens for HTTP: a container has one environment for both.
const LISTENS_AT: &str = "TIDEGATE_HTTP";

/// Ask whether a node is ready (or, with --live, alive)
#[derive(clap::Args)]
#[command(after_help = "\
Prints what the node says. Without --url and TIDEGATE_URL it asks where TIDEGATE_HTTP says that the node listens; an address
such as 0.0.0.0, which means all interfaces, is asked at the loopback address. No token is sent.

Exit codes: 0 ready, 1 not ready, 2 usage, 4 unreachable.

Examples:
  tidegate health
  tidegate health --for checks
  tidegate health --live --url http://0.0.0.0:7070")]
pub struct HealthArgs {
    /// Ask whether its process answers at all, rather than whether it is ready
    #[arg(long)]
    live: bool,
    /// Ask whether it is ready for everything, or for checks alone, which need no majority
    #[arg(
        long = "for",
        value_enum,
        value_name = "PURPOSE",
        default_value = "everything",
        conflicts_with = "live"
    )]
    purpose: Purpose,
}

/// What the node is to be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Purpose {
    /// Checks, and changes that need a majority
    Everything,
    /// Checks alone
    Checks,
}

impl HealthArgs {
    /// Asks, and prints the answer. Errs where no node answers.
    pub fn run(self, server: &ServerArgs, out: &mut Output<'_>) -> Result<Exit, Failure> {
        let listens_at = std::env::var(LISTENS_AT).ok();
        let url = url_of(&server.url, listens_at.as_deref());
        let server = ServerArgs { url, token: None, ca_cert: server.ca_cert.clone() };
        let path = match (self.live, self.purpose) {
            (true, _) => "/livez",
            (false, Purpose::Everything) => "/readyz",
            (false, Purpose::Checks) => "/readyz?for=checks",
        };
        let (status, text) = server.client()?.text(Request::get(path))?;
        let (is_ok, text) = ((200..300).contains(&status), text.trim_end());
        if !is_ok && status != 503 {
            return Err(Failure::Failed(format!(
                "{path} was answered with HTTP {status}: {}",
                plain(text)
            )));
        }
        match out.is_json() {
            true => out.json(&json!({"ok": is_ok, "text": text}).to_string())?,
            false => out.line(&plain(text))?,
        }
        Ok(if is_ok { Exit::Done } else { Exit::Failed })
    }
}

/// The URL to ask: `url`, or where the node says that it listens if that is only the default. An
/// address that means all interfaces becomes the loopback address.
fn url_of(url: &str, listens_at: Option<&str>) -> String {
    let own: Option<SocketAddr> = listens_at.and_then(|address| address.parse().ok());
    let url = match own {
        Some(own) if url == URL_DEFAULT => format!("http://{own}"),
        _ => url.into(),
    };
    let parsed = url.parse::<Uri>().ok();
    let host = parsed.as_ref().and_then(Uri::host);
    let address = host.and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    match (host, address) {
        (Some(host), Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED))) => url.replacen(host, "127.0.0.1", 1),
        (Some(host), Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))) => url.replacen(host, "[::1]", 1),
        _ => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{Reply, Server};

    #[test]
    fn the_exit_says_whether_the_node_is_ready_and_the_text_why_not() {
        for (status, text, line, exit, asked) in [
            (200, "ready\n", "tidegate health", Exit::Done, "GET /readyz"),
            (503, "log not applied\n", "tidegate health", Exit::Failed, "GET /readyz"),
            (200, "ready\n", "tidegate health --for checks", Exit::Done, "GET /readyz?for=checks"),
            (200, "ok\n", "tidegate health --live --token secret", Exit::Done, "GET /livez"),
        ] {
            let node = Server::replying([Reply::status(status, text)]);
            let ran = node.run(line);
            assert_eq!(
                (ran.exit, ran.data.as_str(), ran.notes.as_str()),
                (exit, text, ""),
                "{line}"
            );
            let seen = node.seen();
            assert_eq!((seen[0].line.as_str(), seen[0].header("authorization")), (asked, None));
        }
    }

    #[test]
    fn no_answer_is_an_exit_of_its_own_and_a_strange_one_a_failure() {
        let ran = Server::replying([]).run("tidegate health");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Unreachable, ""));
        let ran = Server::replying([Reply::status(404, "what?")]).run("tidegate health");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Failed, ""));
        assert!(ran.notes.contains("/readyz was answered with HTTP 404: what?"), "{}", ran.notes);
    }

    #[test]
    fn as_json_it_says_both() {
        let ran =
            Server::replying([Reply::status(503, "stopping\n")]).run("tidegate health -o json");
        let said: serde_json::Value = serde_json::from_str(&ran.data).unwrap();
        assert_eq!((ran.exit, said), (Exit::Failed, json!({"ok": false, "text": "stopping"})));
    }

    #[test]
    fn addresses_that_mean_all_interfaces_are_asked_at_loopback() {
        for (url, listens_at, expected) in [
            ("http://10.0.0.2:7070", None, "http://10.0.0.2:7070"),
            ("http://0.0.0.0:7071", None, "http://127.0.0.1:7071"),
            ("https://[::]:7071/x", None, "https://[::1]:7071/x"),
            (URL_DEFAULT, Some("0.0.0.0:8080"), "http://127.0.0.1:8080"),
            (URL_DEFAULT, Some("[::]:8080"), "http://[::1]:8080"),
            (URL_DEFAULT, Some("nonsense"), URL_DEFAULT),
            ("http://10.0.0.2:7070", Some("0.0.0.0:8080"), "http://10.0.0.2:7070"),
        ] {
            assert_eq!(url_of(url, listens_at), expected);
        }
    }
}
