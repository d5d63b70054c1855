//! `tidegate access`: the allow and deny lists, entry by entry.
//!
//! ```text
//! $ tidegate access add deny --ip 198.51.100.0/24 --reason abuse --expires 2027-01-01T00:00:00Z
//! added 5f3c0a1be2d47796
//! policy version 13
//! ```
//!
//! An API key is hashed here: what travels, and what the lists hold, is its SHA-256.

use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate::check::ApiKeyDigest;

use super::Exit;
use super::client::{Client, Request, ServerArgs, encode};
use super::failure::Failure;
use super::output::{Column, Output, plain};
use super::pages::Pages;
use super::policy::print_applied;

/// Digits of an API key's digest that the table shows: enough to tell any two keys of a list apart.
const DIGEST_DIGITS_SHOWN: usize = 12;

/// The allow and deny lists: who passes unjudged, and who not at all
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate access list --list deny
  tidegate access add deny --ip 198.51.100.0/24 --reason abuse
  tidegate access remove office")]
pub struct AccessArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List the entries
    #[command(after_help = "\
An entry that has expired is listed until it is cleaned up; it doesn't count any more.

Examples:
  tidegate access list
  tidegate access list --list deny --limit 20
  tidegate access list -o json")]
    List {
        /// Of one list only
        #[arg(long, value_enum, value_name = "LIST")]
        list: Option<List>,
        /// At most this many; without it, all
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Add an entry for a tenant, a client, addresses or an API key
    #[command(after_help = "\
Who is on both lists is denied. The node notes who added the entry, and when.

Examples:
  tidegate access add deny --ip 198.51.100.0/24 --reason abuse --expires 2100-01-01T00:00:00Z
  tidegate access add allow --tenant acme --id partner --reason contract
  tidegate access add deny --api-key k-3f9c2a --reason leaked")]
    Add(Box<AddArgs>),
    /// Remove an entry
    #[command(after_help = "\
Examples:
  tidegate access remove partner")]
    Remove {
        /// The entry
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },
}

/// One of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum List {
    /// Passes unjudged
    Allow,
    /// Is denied at once
    Deny,
}

impl List {
    fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What a new entry says.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).multiple(false)
    .args(["tenant", "client", "ip", "api_key", "api_key_sha256"]))]
struct AddArgs {
    /// The list
    #[arg(value_enum)]
    list: List,
    /// The tenant it names
    #[arg(long)]
    tenant: Option<String>,
    /// The client it names, whatever its tenant
    #[arg(long)]
    client: Option<String>,
    /// The address or CIDR range it names
    #[arg(long, value_name = "RANGE")]
    ip: Option<String>,
    /// The API key it names
    ///
    /// Other users of the machine can see it in the list of processes; --api-key-sha256 shows them
    /// nothing.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// The SHA-256 of the API key it names
    #[arg(long, value_name = "HEX")]
    api_key_sha256: Option<String>,
    /// Why; shown in answers that the entry decides
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// When it stops counting, as in 2027-01-01T00:00:00Z
    #[arg(long, value_name = "INSTANT")]
    expires: Option<String>,
    /// What the entry is to be called; without it, the node makes an id
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
}

impl AccessArgs {
    /// Does what the verb says.
    pub fn run(self, server: &ServerArgs, out: &mut Output<'_>) -> Result<Exit, Failure> {
        let client = server.client()?;
        match self.verb {
            Verb::List { list: of, limit } => list(&client, of, limit, out)?,
            Verb::Add(entry) => add(&client, *entry, out)?,
            Verb::Remove { id } => {
                let answer = client.send(Request::delete(format!("/v1/access/{}", encode(&id))))?;
                print_applied(&answer, out)?;
            }
        }
        Ok(Exit::Done)
    }
}

/// An entry as far as the table shows it.
#[derive(Deserialize)]
struct Listed {
    id: String,
    list: String,
    tenant: Option<String>,
    client: Option<String>,
    ip: Option<String>,
    api_key_sha256: Option<String>,
    #[serde(default)]
    reason: String,
    added_by: Option<String>,
    added_at: Option<String>,
    expires: Option<String>,
}

fn list(
    client: &Client,
    of: Option<List>,
    limit: Option<u64>,
    out: &mut Output<'_>,
) -> Result<(), Failure> {
    let path = of.map_or("/v1/access".into(), |of| format!("/v1/access?list={}", of.word()));
    let pages = Pages::read(client, &path, "entries", limit)?;
    pages.note(out);
    if out.is_json() {
        return out.json(&json!({"entries": pages.items, "next": pages.next}).to_string());
    }
    let columns =
        ["ID", "LIST", "NAMES", "ADDED BY", "ADDED AT", "EXPIRES", "REASON"].map(Column::Left);
    let rows: Result<Vec<_>, Failure> = pages.items.into_iter().map(row).collect();
    out.table(&columns, &rows?)
}

fn row(entry: Value) -> Result<Vec<String>, Failure> {
    let strange = |e| Failure::Failed(format!("the node's answer is not what was expected: {e}"));
    let entry: Listed = serde_json::from_value(entry).map_err(strange)?;
    let key =
        entry.api_key_sha256.map(|digest| match digest.char_indices().nth(DIGEST_DIGITS_SHOWN) {
            Some((at, _)) => format!("{}…", &digest[..at]),
            None => digest,
        });
    let named =
        [("tenant", entry.tenant), ("client", entry.client), ("ip", entry.ip), ("api key", key)];
    let named = named.into_iter().find_map(|(kind, value)| Some(format!("{kind} {}", value?)));
    let or_dash =
        |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
    Ok(vec![
        entry.id,
        entry.list,
        or_dash(named),
        or_dash(entry.added_by),
        or_dash(entry.added_at),
        or_dash(entry.expires),
        or_dash(Some(entry.reason)),
    ])
}

/// What adding an entry answers, beside what every change answers.
#[derive(Deserialize)]
struct Added {
    id: String,
}

fn add(client: &Client, entry: AddArgs, out: &mut Output<'_>) -> Result<(), Failure> {
    let digest = entry.api_key.map(|key| ApiKeyDigest::of(&key).to_string());
    let members = [
        ("list", Some(entry.list.word().to_string())),
        ("tenant", entry.tenant),
        ("client", entry.client),
        ("ip", entry.ip),
        ("api_key_sha256", digest.or(entry.api_key_sha256)),
        ("reason", entry.reason),
        ("expires", entry.expires),
        ("id", entry.id),
    ];
    let said =
        members.into_iter().filter_map(|(member, value)| Some((member.to_string(), json!(value?))));
    let body = Value::Object(said.collect::<Map<_, _>>());
    let answer = client.send(Request::post("/v1/access").json(&body))?;
    if !out.is_json() {
        out.line(&format!("added {}", plain(&answer.read::<Added>()?.id)))?;
    }
    print_applied(&answer, out)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Reply, Server, run_words, words};
    use super::*;

    #[test]
    fn add_sends_what_was_said_and_an_api_key_as_its_digest() {
        let added = || Reply::status(201, r#"{"id":"e1","version":13,"pending":[]}"#);
        let server = Server::replying([added(), added(), added()]);
        let ran = server.run(
            "tidegate access add deny --ip 192.0.2.0/24 --reason abuse --expires \
             2100-01-01T00:00:00Z",
        );
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Done, "added e1\npolicy version 13\n"));
        let ran = server.run("tidegate access add allow --tenant acme --id e1 -o json");
        assert_eq!(ran.data, "{\n  \"id\": \"e1\",\n  \"version\": 13,\n  \"pending\": []\n}\n");
        server.run("tidegate access add deny --api-key sesame");
        let seen = server.seen();
        assert!(seen.iter().all(|seen| seen.line == "POST /v1/access"));
        assert_eq!(
            seen[0].json(),
            json!({"list": "deny", "ip": "192.0.2.0/24", "reason": "abuse", "expires": "2100-01-01T00:00:00Z"})
        );
        assert_eq!(seen[1].json(), json!({"list": "allow", "tenant": "acme", "id": "e1"}));
        let digest = ApiKeyDigest::of("sesame").to_string();
        assert_eq!(seen[2].json(), json!({"list": "deny", "api_key_sha256": digest}));
    }

    #[test]
    fn an_entry_for_nobody_or_for_two_is_misuse() {
        for line in [
            "tidegate access add deny",
            "tidegate access add deny --tenant a --ip 192.0.2.1",
            "tidegate access add grey --tenant a",
        ] {
            let refused = super::super::Line::read(words(line)).err().unwrap();
            assert_eq!(refused.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn list_shows_whom_an_entry_names_and_follows_the_pages() {
        let server = Server::replying([
            Reply::ok(
                r#"{"entries":[{"id":"a","list":"allow","tenant":"acme","reason":"","added_by":"ops",
                "added_at":"2026-01-01T00:00:00Z"}],"next":"a"}"#,
            ),
            Reply::ok(
                r#"{"entries":[{"id":"b","list":"deny","api_key_sha256":"2c26b46b68ffc68ff99b","reason":"leaked",
                "expires":"2100-01-01T00:00:00Z"}],"next":null}"#,
            ),
        ]);
        let ran = server.run("tidegate access list");
        assert_eq!(
            ran.data,
            "ID  LIST   NAMES                  ADDED BY  ADDED AT              \
             EXPIRES               REASON\na   allow  tenant acme            ops       \
             2026-01-01T00:00:00Z  -                     -\nb   deny   api key 2c26b46b68ff…  \
             -         -                     2100-01-01T00:00:00Z  leaked\n"
        );
        let lines: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
        assert_eq!(lines, ["GET /v1/access?limit=1000", "GET /v1/access?limit=1000&after=a"]);
    }

    #[test]
    fn list_of_one_list_stops_at_its_limit() {
        let server =
            Server::replying([Reply::ok(r#"{"entries":[{"id":"a","list":"deny"}],"next":"a"}"#)]);
        let ran = server.run("tidegate access list --list deny --limit 1");
        assert_eq!(ran.notes, "the first 1; more may follow\n");
        assert_eq!(server.seen()[0].line, "GET /v1/access?list=deny&limit=1");
    }

    #[test]
    fn remove_names_one_entry_and_keeps_it_one_part_of_the_path() {
        let server = Server::replying([Reply::ok(r#"{"version":14,"pending":["n2"]}"#)]);
        let mut line = words("tidegate access remove");
        line.extend(["a/b".into(), "--url".into(), server.url.clone().into()]);
        let ran = run_words(line);
        assert_eq!(ran.data, "policy version 14\npending on n2, which will follow once reached\n");
        assert_eq!(server.seen()[0].line, "DELETE /v1/access/a%2Fb");
    }
}
