//! `tidegate tenant`: who there is, how their limits stand, and what tier they are on.
//!
//! ```text
//! $ tidegate tenant set-tier acme pro --expires 2027-01-01T00:00:00Z
//! policy version 13
//! ```
//!
//! A tier is one member of a tenant's rule, so setting it is read, change, write. The write names
//! the version that was read (`If-Match`); where somebody else was faster it is all done again, so
//! neither change is lost.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Exit;
use super::client::{Answer, Client, Request, ServerArgs, encode};
use super::failure::Failure;
use super::limits::{self, LimitState};
use super::output::{Column, Output};
use super::pages::Pages;
use super::policy::print_applied;

/// How often a tier is set anew because the policy changed meanwhile. Each time somebody else's
/// write went through.
const SET_TIER_TRIES_MAX: usize = 5;

/// Tenants: who there is, how they stand, their tiers
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate tenant list
  tidegate tenant show acme
  tidegate tenant set-tier acme pro
  tidegate tenant reset acme")]
pub struct TenantArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List the tenants that the policy names or that are active
    #[command(after_help = "\
Examples:
  tidegate tenant list
  tidegate tenant list --limit 20
  tidegate tenant list -o json")]
    List {
        /// At most this many; without it, all
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Show a tenant's own rules and how its limits stand
    #[command(after_help = "\
Examples:
  tidegate tenant show acme
  tidegate tenant show acme -o json")]
    Show {
        /// The tenant
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        tenant: String,
    },
    /// Put a tenant on a tier
    #[command(after_help = "\
Without --expires the tenant stays on the tier; an expiry set before is dropped.

Examples:
  tidegate tenant set-tier acme pro
  tidegate tenant set-tier acme enterprise --expires 2027-01-01T00:00:00Z")]
    SetTier {
        /// The tenant
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        tenant: String,
        /// The tier
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        tier: String,
        /// When it stops counting, as in 2027-01-01T00:00:00Z
        #[arg(long, value_name = "INSTANT")]
        expires: Option<String>,
    },
    /// Make a tenant's limits whole again
    #[command(after_help = "\
Everything the tenant has spent is forgotten, quotas included; with --client, --action, --ip or --limit only what
limits have counted that are per what is named and per nothing else. Permits that are out stay out.

Examples:
  tidegate tenant reset acme
  tidegate tenant reset acme --client user-1
  tidegate tenant reset acme --client user-1 --action export --limit burst")]
    Reset(Box<ResetArgs>),
}

/// What a reset forgets.
#[derive(Args)]
struct ResetArgs {
    /// The tenant
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: String,
    /// Only what this client has spent
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    client: Option<String>,
    /// Only what was spent on this action
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    action: Option<String>,
    /// Only what this address has spent
    #[arg(long, value_name = "ADDRESS", value_parser = NonEmptyStringValueParser::new())]
    ip: Option<String>,
    /// Only what limits of this name have counted
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    limit: Option<String>,
}

impl TenantArgs {
    /// Does what the verb says.
    pub fn run(self, server: &ServerArgs, out: &mut Output<'_>) -> Result<Exit, Failure> {
        let client = server.client()?;
        match self.verb {
            Verb::List { limit } => list(&client, limit, out)?,
            Verb::Show { tenant } => show(&client, &tenant, out)?,
            Verb::SetTier { tenant, tier, expires } => {
                let answer = set_tier(&client, &tenant, &tier, expires.as_deref(), out)?;
                print_applied(&answer, out)?;
            }
            Verb::Reset(arguments) => reset(&client, *arguments, out)?,
        }
        Ok(Exit::Done)
    }
}

fn path_of(tenant: &str) -> String {
    format!("/v1/tenants/{}", encode(tenant))
}

/// One tenant of a list, as far as the table shows it.
#[derive(Deserialize)]
struct Listed {
    id: String,
    tier: Option<String>,
    #[serde(default)]
    named: bool,
    #[serde(default)]
    active: bool,
}

fn list(client: &Client, limit: Option<u64>, out: &mut Output<'_>) -> Result<(), Failure> {
    let pages = Pages::read(client, "/v1/tenants", "tenants", limit)?;
    pages.note(out);
    if out.is_json() {
        return out.json(&json!({"tenants": pages.items, "next": pages.next}).to_string());
    }
    let columns = [
        Column::Left("TENANT"),
        Column::Left("TIER"),
        Column::Left("NAMED"),
        Column::Left("ACTIVE"),
    ];
    let rows: Result<Vec<_>, Failure> = pages.items.into_iter().map(row).collect();
    out.table(&columns, &rows?)
}

fn row(tenant: Value) -> Result<Vec<String>, Failure> {
    let strange = |e| Failure::Failed(format!("the node's answer is not what was expected: {e}"));
    let tenant: Listed = serde_json::from_value(tenant).map_err(strange)?;
    let yes_or_no = |yes| if yes { "yes" } else { "no" }.to_string();
    Ok(vec![
        tenant.id,
        tenant.tier.unwrap_or_else(|| "-".into()),
        yes_or_no(tenant.named),
        yes_or_no(tenant.active),
    ])
}

/// What is known of one tenant.
#[derive(Deserialize)]
struct Shown {
    policy: Option<Map<String, Value>>,
    state: State,
}

#[derive(Deserialize)]
struct State {
    tier: Option<String>,
    tier_source: Option<String>,
    #[serde(default)]
    limits: Vec<LimitState>,
    permits: Option<u64>,
    keys: Option<u64>,
    request_ids: Option<u64>,
}

fn show(client: &Client, tenant: &str, out: &mut Output<'_>) -> Result<(), Failure> {
    let answer = client.send(Request::get(path_of(tenant)))?;
    if out.is_json() {
        return out.json(&answer.text);
    }
    let Shown { policy, state } = answer.read()?;
    let source = state.tier_source.map(|source| format!(" (by {source})"));
    let tier = format!("{}{}", state.tier.as_deref().unwrap_or("-"), source.unwrap_or_default());
    let count = |n: Option<u64>| n.map_or_else(|| "-".into(), |n| n.to_string());
    out.facts(&[
        ("tenant", tenant.to_string()),
        ("tier", tier),
        ("permits", count(state.permits)),
        ("keys", count(state.keys)),
        ("request ids", count(state.request_ids)),
    ])?;
    if !state.limits.is_empty() {
        out.line("")?;
        limits::print(&state.limits, out)?;
    }
    match policy {
        Some(rule) => {
            // As it would stand in the policy document.
            let text = toml::to_string(&rule).unwrap_or_else(|_| Value::Object(rule).to_string());
            out.line("\nrules of its own:")?;
            out.line(text.trim_end())
        }
        None => out.line("\nno rules of its own"),
    }
}

/// The part of [`Shown`] that a change needs.
#[derive(Deserialize)]
struct Ruled {
    policy: Option<Map<String, Value>>,
}

fn set_tier(
    client: &Client,
    tenant: &str,
    tier: &str,
    expires: Option<&str>,
    out: &mut Output<'_>,
) -> Result<Answer, Failure> {
    let path = path_of(tenant);
    let mut tries = 1;
    loop {
        let answer = client.send(Request::get(path.as_str()))?;
        let Some(tag) = answer.etag.clone() else {
            let why = "the node names no version (ETag) of the tenant's rule, so it can't be \
                       changed safely";
            return Err(Failure::Failed(why.into()));
        };
        let mut rule = answer.read::<Ruled>()?.policy.unwrap_or_default();
        rule.insert("tier".into(), json!(tier));
        match expires {
            Some(instant) => rule.insert("tier_expires".into(), json!(instant)),
            None => rule.remove("tier_expires"),
        };
        let write = Request::put(path.as_str()).json(&Value::Object(rule)).if_match(tag);
        match client.send(write) {
            Err(failure) if failure.is_stale() && tries < SET_TIER_TRIES_MAX => {
                out.note("the policy changed meanwhile; trying again");
                tries += 1;
            }
            done => return done,
        }
    }
}

/// The answer to a reset, as far as it is printed.
#[derive(Default, Deserialize)]
struct WasReset {
    #[serde(default)]
    limits: Vec<NamedLimit>,
    #[serde(default)]
    kept: Vec<NamedLimit>,
}

#[derive(Deserialize)]
struct NamedLimit {
    name: String,
}

fn reset(client: &Client, arguments: ResetArgs, out: &mut Output<'_>) -> Result<(), Failure> {
    let ResetArgs { tenant, client: of_client, action, ip, limit } = arguments;
    let named = [("client", of_client), ("action", action), ("ip", ip), ("limit", limit)];
    let named =
        named.into_iter().filter_map(|(member, value)| Some((member.into(), json!(value?))));
    let body: Map<String, Value> = named.collect();
    let mut request = Request::post(format!("{}/reset", path_of(&tenant)));
    if !body.is_empty() {
        request = request.json(&Value::Object(body));
    }
    let answer = client.send(request)?;
    if out.is_json() {
        return match answer.text.trim().is_empty() {
            true => Ok(()),
            false => out.json(&answer.text),
        };
    }
    let WasReset { limits, kept } = serde_json::from_str(&answer.text).unwrap_or_default();
    let names = |limits: &[NamedLimit]| {
        let names: Vec<_> = limits.iter().map(|limit| limit.name.as_str()).collect();
        names.join(", ")
    };
    match limits.is_empty() {
        true => out.line(&format!("{tenant}: reset"))?,
        false => out.line(&format!("{tenant}: reset {}", names(&limits)))?,
    }
    if !kept.is_empty() {
        out.note(&format!("kept, since they are per more than was named: {}", names(&kept)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Reply, Server};
    use super::*;

    #[test]
    fn list_follows_the_pages_to_their_end() {
        let server = Server::replying([
            Reply::ok(
                r#"{"tenants":[{"id":"acme","tier":"pro","named":true,"active":false}],"next":"ac me"}"#,
            ),
            Reply::ok(
                r#"{"tenants":[{"id":"b","tier":"free","named":false,"active":true}],"next":null}"#,
            ),
        ]);
        let ran = server.run("tidegate tenant list");
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        assert_eq!(
            ran.data,
            "TENANT  TIER  NAMED  ACTIVE\nacme    pro   yes    no\nb       free  no     yes\n"
        );
        assert_eq!(ran.notes, "");
        let lines: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
        assert_eq!(
            lines,
            ["GET /v1/tenants?limit=1000", "GET /v1/tenants?limit=1000&after=ac%20me"]
        );
    }

    #[test]
    fn list_stops_at_its_limit_and_says_that_more_may_follow() {
        let page = |id: &str| {
            Reply::ok(&format!(r#"{{"tenants":[{{"id":"{id}","tier":"free"}}],"next":"{id}"}}"#))
        };
        let server = Server::replying([page("a"), page("b")]);
        let ran = server.run("tidegate tenant list --limit 2 -o json");
        assert_eq!(ran.notes, "the first 2; more may follow\n");
        let printed: Value = serde_json::from_str(&ran.data).unwrap();
        assert_eq!(
            printed,
            json!({"tenants": [{"id": "a", "tier": "free"}, {"id": "b", "tier": "free"}], "next": "b"})
        );
        let lines: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
        assert_eq!(lines, ["GET /v1/tenants?limit=2", "GET /v1/tenants?limit=1&after=a"]);
    }

    #[test]
    fn a_list_without_end_is_given_up_and_half_a_list_is_not_printed() {
        let page = || Reply::ok(r#"{"tenants":[{"id":"a"}],"next":"a"}"#);
        let server = Server::replying([page(), page()]);
        let ran = server.run("tidegate tenant list");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Failed, ""));
        let server = Server::replying([page()]);
        let ran = server.run("tidegate tenant list");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Unreachable, ""));
    }

    #[test]
    fn show_prints_the_state_the_limits_and_the_rule() {
        let answer = r#"{"policy":{"tier":"pro","tier_expires":"2027-01-01T00:00:00Z","limits":[{"name":"m","limit":5}]},
            "state":{"tier":"pro","tier_source":"tenant","limits":[{"name":"m","scope":["tenant"],"algorithm":"fixed_window",
            "limit":5,"window_ms":60000,"remaining":4,"reset_after_ms":900,"mode":"exact"}],"permits":0,"keys":1,"request_ids":2}}"#;
        let server = Server::replying([Reply::ok(answer)]);
        let ran = server.run("tidegate tenant show a/b");
        assert_eq!(
            ran.data,
            "tenant       a/b\ntier         pro (by tenant)\npermits      0\nkeys         \
             1\nrequest ids  2\n\nLIMIT  PER     ALGORITHM     LEFT  OF  WINDOW  RESET  \
             MODE\nm      tenant  fixed_window     4   5  1m 00s  900ms  exact\n\nrules of its \
             own:\ntier = \"pro\"\ntier_expires = \"2027-01-01T00:00:00Z\"\n\n[[limits]]\nlimit = \
             5\nname = \"m\"\n"
        );
        assert_eq!(server.seen()[0].line, "GET /v1/tenants/a%2Fb");
    }

    #[test]
    fn set_tier_changes_the_tier_and_nothing_else_under_the_version_it_read() {
        let server = Server::replying([
            Reply::ok(r#"{"policy":{"tier":"free","tier_expires":"2026-01-01T00:00:00Z","max_concurrent":7},"state":{}}"#)
                .header("ETag", "\"12\""),
            Reply::ok(r#"{"version":13,"pending":[]}"#),
        ]);
        let ran = server.run("tidegate tenant set-tier acme pro");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Done, "policy version 13\n"));
        let seen = server.seen();
        assert_eq!(seen[0].line, "GET /v1/tenants/acme");
        assert_eq!(seen[1].line, "PUT /v1/tenants/acme");
        assert_eq!(seen[1].header("if-match"), Some("\"12\""));
        assert_eq!(seen[1].json(), json!({"tier": "pro", "max_concurrent": 7}));
    }

    #[test]
    fn set_tier_begins_again_when_somebody_was_faster() {
        let stale = || Reply::status(412, r#"{"title":"Stale"}"#);
        let read = |version: u8, rule: &str| {
            let body = format!(r#"{{"policy":{rule},"state":{{}}}}"#);
            Reply::ok(&body).header("ETag", &format!("\"{version}\""))
        };
        let server = Server::replying([
            read(12, "null"),
            stale(),
            read(13, r#"{"max_concurrent":9}"#),
            Reply::ok(r#"{"version":14}"#),
        ]);
        let ran = server.run("tidegate tenant set-tier acme pro --expires 2027-01-01T00:00:00Z");
        assert_eq!((ran.exit, ran.data.as_str()), (Exit::Done, "policy version 14\n"));
        assert_eq!(ran.notes, "the policy changed meanwhile; trying again\n");
        let seen = server.seen();
        assert_eq!(seen[1].json(), json!({"tier": "pro", "tier_expires": "2027-01-01T00:00:00Z"}));
        assert_eq!(seen[3].header("if-match"), Some("\"13\""));
        assert_eq!(seen[3].json()["max_concurrent"], json!(9));

        let replies = (0..SET_TIER_TRIES_MAX).flat_map(|_| [read(12, "null"), stale()]);
        let ran = Server::replying(replies).run("tidegate tenant set-tier acme pro");
        assert_eq!(ran.exit, Exit::Failed);
        assert!(ran.notes.ends_with("error: Stale (HTTP 412)\n"), "{}", ran.notes);
    }

    #[test]
    fn set_tier_writes_nothing_where_it_cant_write_safely() {
        let server = Server::replying([Reply::ok(r#"{"policy":null,"state":{}}"#)]);
        let ran = server.run("tidegate tenant set-tier acme pro");
        assert_eq!(ran.exit, Exit::Failed);
        assert_eq!(server.seen().len(), 1);
    }

    #[test]
    fn reset_asks_for_just_that() {
        let server = Server::replying([Reply::status(204, ""), Reply::ok(r#"{"reset":true}"#)]);
        assert_eq!(server.run("tidegate tenant reset acme").data, "acme: reset\n");
        assert_eq!(
            server.run("tidegate tenant reset acme -o json").data,
            "{\n  \"reset\": true\n}\n"
        );
        assert_eq!(server.seen()[0].line, "POST /v1/tenants/acme/reset");
    }
}
