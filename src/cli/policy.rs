//! `tidegate policy`: the one document of rules, validated here, fetched, compared and applied.
//!
//! ```text
//! $ tidegate policy validate policy.toml
//! policy.toml: valid, 4 tiers and 1 tenants with rules
//! $ tidegate policy apply policy.toml
//! policy version 3
//! ```
//!
//! `validate` needs no node: it is the same reader that a node uses. What `diff` and `apply` send
//! is the file as it is; whether it is TOML or JSON is told by its name, and where that says
//! nothing, by its first character.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::policy::Document;

use super::Exit;
use super::client::{Answer, JSON, Request, ServerArgs, TOML};
use super::diff::DryRun;
use super::failure::Failure;
use super::output::{Column, Output, plain};

/// The longest document that is read. One that names a million tenants is about a third of this.
const DOCUMENT_BYTES_MAX: u64 = 512 << 20;

/// The policy document: check it, print it, compare it, put it in force, go back
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate policy get > policy.toml
  tidegate policy validate policy.toml
  tidegate policy diff policy.toml
  tidegate policy apply policy.toml
  tidegate policy rollback 12")]
pub struct PolicyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Look for faults in a document, without a node
    #[command(after_help = "\
Prints every fault with its path. Exit codes: 0 valid, 1 invalid or unreadable.

Examples:
  tidegate policy validate policy.toml
  tidegate policy validate policy.json -o json
  cat policy.toml | tidegate policy validate -")]
    Validate {
        /// The document, TOML or JSON; - for stdin
        file: PathBuf,
    },
    /// Print the policy in force: TOML, or JSON with -o json
    #[command(after_help = "\
What is printed can be applied again: it makes the same policy, which prints as the same bytes.

Examples:
  tidegate policy get > policy.toml
  tidegate policy get -o json
  tidegate policy get --at-version 12")]
    Get {
        /// As it was at this version
        #[arg(long, value_name = "N")]
        at_version: Option<u64>,
    },
    /// Show what applying a document would change
    #[command(after_help = "\
Prints a line for each part that differs, by section: + added, ~ changed, - removed; the first 200, then how
many more. A line says what becomes of the counts where a change touches them. -o json has everything.
Exit codes, as diff tools have them: 0 the same, 1 different, 2 no comparison (the document is invalid, a
token is missing, …), 4 unreachable.

Examples:
  tidegate policy diff policy.toml
  tidegate policy diff policy.toml -o json
  generate-policy | tidegate policy diff -")]
    Diff {
        /// The document, TOML or JSON; - for stdin
        file: PathBuf,
    },
    /// Put a document in force, whole or not at all
    #[command(after_help = "\
It is in force on every node that can be reached once the command ends; nodes that will follow are named as pending.

Examples:
  tidegate policy apply policy.toml --dry-run
  tidegate policy apply policy.toml
  tidegate policy apply policy.toml --if-version 12
  generate-policy | tidegate policy apply -")]
    Apply {
        /// The document, TOML or JSON; - for stdin
        file: PathBuf,
        /// Change nothing; print what would change
        #[arg(long)]
        dry_run: bool,
        /// Only if the policy in force is still this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Show what made the versions, the newest first
    #[command(after_help = "\
Older versions than these are forgotten. `policy get --at-version` prints one, `policy rollback` goes back to it.

Examples:
  tidegate policy history
  tidegate policy history -o json")]
    History,
    /// Put an earlier version in force again, as a new one
    #[command(after_help = "\
Nothing is lost: what lies between stays in the history, and can be gone back to in turn.

Examples:
  tidegate policy rollback 12 --dry-run
  tidegate policy rollback 12
  tidegate policy rollback 12 --if-version 14")]
    Rollback {
        /// The version to be had again
        #[arg(value_name = "VERSION")]
        to: u64,
        /// Change nothing; print what would change
        #[arg(long)]
        dry_run: bool,
        /// Only if the policy in force is still this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Let limits deny, or throw the kill switch
    #[command(after_help = "\
Off, every limit is judged, counted and reported, and none denies; the deny list still does. It is one small
change of the policy, in force at once on every node that can be reached, and in its history like any other.

Examples:
  tidegate policy enforce off
  tidegate policy enforce on")]
    Enforce {
        /// Whether limits deny
        #[arg(value_enum)]
        switch: Switch,
        /// Only if the policy in force is still this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
}

/// Whether limits deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    /// Limits deny
    On,
    /// No limit denies
    Off,
}

impl PolicyArgs {
    /// Does what the verb says.
    pub fn run(self, server: &ServerArgs, out: &mut Output<'_>) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Validate { file } => validate(&file, out),
            Verb::Get { at_version } => get(at_version, server, out),
            Verb::Diff { file } => diff(&file, server, out),
            Verb::Apply { file, dry_run, if_version } => {
                change(Written::read(&file)?.request(dry_run), dry_run, if_version, server, out)
            }
            Verb::History => history(server, out),
            Verb::Rollback { to, dry_run, if_version } => {
                let path = if dry_run {
                    "/v1/policy/rollback?dry_run=true"
                } else {
                    "/v1/policy/rollback"
                };
                let request = Request::post(path).json(&json!({"version": to}));
                change(request, dry_run, if_version, server, out)
            }
            Verb::Enforce { switch, if_version } => enforce(switch, if_version, server, out),
        }
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// What messages call it.
fn name_of(file: &Path) -> impl std::fmt::Display {
    if is_stdin(file) { Path::new("stdin").display() } else { file.display() }
}

/// A document as it was found, and what it is written in.
struct Written {
    bytes: Vec<u8>,
    content_type: &'static str,
}

impl Written {
    fn read(file: &Path) -> Result<Self, Failure> {
        let unreadable =
            |e: std::io::Error| Failure::Failed(format!("can't read {}: {e}", name_of(file)));
        let source: Box<dyn Read> = if is_stdin(file) {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(file).map_err(unreadable)?)
        };
        let mut bytes = Vec::new();
        source.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let why = format!("{} is over {} MiB", name_of(file), DOCUMENT_BYTES_MAX >> 20);
            return Err(Failure::Failed(why));
        }
        let content_type = content_type_of(file, &bytes);
        Ok(Self { bytes, content_type })
    }

    /// A request to put it in force, or to judge what that would do.
    fn request(self, dry_run: bool) -> Request {
        let path = if dry_run { "/v1/policy?dry_run=true" } else { "/v1/policy" };
        Request::put(path).body(self.content_type, self.bytes)
    }
}

/// No TOML document begins with a brace, and every JSON object does.
fn content_type_of(file: &Path, bytes: &[u8]) -> &'static str {
    let extension = file.extension().and_then(|extension| extension.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("json") => JSON,
        Some("toml") => TOML,
        _ if bytes.trim_ascii_start().starts_with(b"{") => JSON,
        _ => TOML,
    }
}

fn validate(file: &Path, out: &mut Output<'_>) -> Result<Exit, Failure> {
    let written = Written::read(file)?;
    let document = if written.content_type == JSON {
        Document::from_json(&written.bytes)
    } else {
        Document::from_toml(&written.bytes)
    };
    let name = name_of(file);
    if out.is_json() {
        let faults = document.as_ref().err().map(Vec::as_slice).unwrap_or_default();
        out.json(&json!({"valid": document.is_ok(), "errors": faults}).to_string())?;
    }
    match document {
        Ok(document) => {
            if !out.is_json() {
                let (tiers, tenants) = (document.tiers.len(), document.tenants.len());
                out.line(&format!(
                    "{name}: valid, {tiers} tiers and {tenants} tenants with rules"
                ))?;
            }
            Ok(Exit::Done)
        }
        Err(faults) => {
            if !out.is_json() {
                for fault in &faults {
                    // A parser's message may have lines that point into the document.
                    let lines: Vec<_> =
                        fault.to_string().lines().map(|line| plain(line).into_owned()).collect();
                    out.line(&lines.join("\n"))?;
                }
            }
            Err(Failure::Failed(match faults.len() {
                1 => format!("{name} is invalid: 1 fault"),
                n => format!("{name} is invalid: {n} faults"),
            }))
        }
    }
}

fn get(
    at_version: Option<u64>,
    server: &ServerArgs,
    out: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let accept = if out.is_json() { JSON } else { TOML };
    let path =
        at_version.map_or("/v1/policy".into(), |version| format!("/v1/policy?version={version}"));
    let answer = server.client()?.send(Request::get(path).accept(accept))?;
    if out.is_json() {
        out.json(&answer.text)?;
    } else {
        out.line(&answer.text)?;
    }
    Ok(Exit::Done)
}

fn diff(file: &Path, server: &ServerArgs, out: &mut Output<'_>) -> Result<Exit, Failure> {
    let compared = Written::read(file)
        .and_then(|written| server.client()?.send(written.request(true)))
        .and_then(|answer| print_changes(&answer, out));
    match compared {
        Ok(dry_run) => {
            if !out.is_json() {
                out.note(&format!("compared with {}", dry_run.base()));
            }
            Ok(if dry_run.is_empty() { Exit::Done } else { Exit::Failed })
        }
        Err(failure) if failure.exit() == Exit::Failed => {
            // 1 says that the two differ: a script that asks must not take trouble for that.
            out.note(&format!("error: {failure}"));
            Ok(Exit::Usage)
        }
        Err(failure) => Err(failure),
    }
}

/// Prints a dry run's answer.
fn print_changes(answer: &Answer, out: &mut Output<'_>) -> Result<DryRun, Failure> {
    let dry_run: DryRun = answer.read()?;
    if out.is_json() {
        out.json(&answer.text)?;
    } else {
        dry_run.print(out)?;
    }
    Ok(dry_run)
}

/// What a write answers.
#[derive(Deserialize)]
struct Applied {
    version: u64,
    #[serde(default)]
    pending: Vec<Value>,
    #[serde(default)]
    unchanged: bool,
}

/// The request under the condition that there is still this version.
fn conditional(request: Request, if_version: Option<u64>) -> Request {
    match if_version {
        Some(version) => request.if_match(format!("\"{version}\"")),
        None => request,
    }
}

/// Makes a change of the whole document, or prints what it would change.
fn change(
    request: Request,
    dry_run: bool,
    if_version: Option<u64>,
    server: &ServerArgs,
    out: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let request = conditional(request, if_version);
    let answer = server.client()?.send(request)?;
    if dry_run {
        let base = print_changes(&answer, out)?.base();
        if !out.is_json() {
            out.note(&format!("a dry run: {base} stays in force"));
        }
    } else {
        print_applied(&answer, out)?;
    }
    Ok(Exit::Done)
}

/// What made the versions, as a node tells it.
#[derive(Deserialize)]
struct History {
    versions: Vec<Past>,
}

#[derive(Deserialize)]
struct Past {
    version: u64,
    #[serde(default)]
    time: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    what: String,
}

fn history(server: &ServerArgs, out: &mut Output<'_>) -> Result<Exit, Failure> {
    let answer = server.client()?.send(Request::get("/v1/policy/history"))?;
    if out.is_json() {
        out.json(&answer.text)?;
        return Ok(Exit::Done);
    }
    let columns =
        [Column::Right("VERSION"), Column::Left("TIME"), Column::Left("BY"), Column::Left("WHAT")];
    let row = |past: Past| vec![past.version.to_string(), past.time, past.by, past.what];
    let rows: Vec<_> = answer.read::<History>()?.versions.into_iter().map(row).collect();
    out.table(&columns, &rows)?;
    Ok(Exit::Done)
}

fn enforce(
    switch: Switch,
    if_version: Option<u64>,
    server: &ServerArgs,
    out: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let request =
        Request::put("/v1/policy/enforce").json(&json!({"enforce": switch == Switch::On}));
    print_applied(&server.client()?.send(conditional(request, if_version))?, out)?;
    if switch == Switch::Off && !out.is_json() {
        out.note("no limit denies any more; the deny list still does");
    }
    Ok(Exit::Done)
}

/// Prints the version that a write made, and which nodes don't know it yet.
pub fn print_applied(answer: &Answer, out: &mut Output<'_>) -> Result<(), Failure> {
    let applied: Applied = answer.read()?;
    if out.is_json() {
        return out.json(&answer.text);
    }
    let unchanged = if applied.unchanged { ", unchanged" } else { "" };
    out.line(&format!("policy version {}{unchanged}", applied.version))?;
    if !applied.pending.is_empty() {
        let nodes = applied.pending.iter().map(|node| match node {
            Value::String(id) => plain(id).into_owned(),
            other => other.to_string(),
        });
        let nodes = nodes.collect::<Vec<_>>().join(", ");
        out.line(&format!("pending on {nodes}, which will follow once reached"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
