//! `tidegate check`: one decision, for people and for shell scripts.
//!
//! ```text
//! $ tidegate check acme --cost 3 && ./expensive-thing
//! allowed: acme (tier pro, cost 3)
//! LIMIT   PER     ALGORITHM     LEFT   OF  WINDOW  RESET  MODE
//! minute  tenant  token_bucket    97  100  1m 00s   1.8s  exact
//! ```
//!
//! It is a real check: what it takes is taken. A denial is an answer, so it is printed on stdout as
//! data; only the exit code (3) tells it from the other answer.

use std::net::IpAddr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Exit;
use super::client::{Request, ServerArgs};
use super::failure::Failure;
use super::limits::{self, LimitState, scope_words};
use super::output::{Colour, Output, plain, span};

/// The longest wait that can be asked for, in milliseconds: an hour. What the node allows is less,
/// and its own affair.
const WAIT_MS_MAX: u64 = 3_600_000;

/// Ask whether a tenant may do a thing now
#[derive(clap::Args)]
#[command(after_help = "\
Exit codes: 0 allowed, 3 denied; 1 failed, 2 usage, 4 unreachable.

Examples:
  tidegate check acme
  tidegate check acme --client user-1 --action export --cost 3
  tidegate check acme --method POST --path /ocr/process --ip 203.0.113.9
  tidegate check acme --request-id 7f3a -o json")]
pub struct CheckArgs {
    /// Who asks
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: String,
    /// The user of the tenant
    #[arg(long)]
    client: Option<String>,
    /// What is to be done
    #[arg(long)]
    action: Option<String>,
    /// The method of the request behind the check
    #[arg(long)]
    method: Option<String>,
    /// Its path
    #[arg(long)]
    path: Option<String>,
    /// The address it comes from
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Units to take; without it, what the policy says the endpoint costs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cost: Option<u32>,
    /// Milliseconds to wait rather than to be denied, where the node queues checks
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=WAIT_MS_MAX))]
    wait: Option<u64>,
    /// The tier to judge by, where the policy lets a request name one
    #[arg(long)]
    tier: Option<String>,
    /// The API key
    ///
    /// Other users of the machine can see the flag in the list of processes; they can't see the
    /// variable.
    #[arg(long, value_name = "KEY", env = "TIDEGATE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// A name for this check: the same one within a minute is the same check and takes nothing more
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// The parts of an answer that the table shows.
#[derive(Deserialize)]
struct Decision {
    allowed: bool,
    tenant: String,
    tier: Option<String>,
    cost: Option<u64>,
    #[serde(default)]
    limits: Vec<LimitState>,
    retry_after_ms: Option<u64>,
    denied_by: Option<DeniedBy>,
    bypass: Option<Bypass>,
    mode: Option<String>,
    degraded: Option<Degraded>,
    #[serde(default)]
    replayed: bool,
}

#[derive(Deserialize)]
struct DeniedBy {
    name: String,
    #[serde(default)]
    scope: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
struct Bypass {
    list: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Degraded {
    reason: String,
}

impl CheckArgs {
    /// Asks and prints the answer.
    pub fn run(self, server: &ServerArgs, out: &mut Output<'_>) -> Result<Exit, Failure> {
        let wait = Duration::from_millis(self.wait.unwrap_or(0));
        let request = Request::post("/v1/check").json(&self.into_body()).wait(wait);
        let answer = server.client()?.send(request)?;
        let decision: Decision = answer.read()?;
        if out.is_json() {
            out.json(&answer.text)?;
        } else {
            decision.print(out)?;
        }
        Ok(if decision.allowed { Exit::Done } else { Exit::Denied })
    }

    /// The check as the API takes it: only what was given, so that the node's defaults stay the
    /// node's.
    fn into_body(self) -> Value {
        let mut body = Map::from_iter([("tenant".to_string(), json!(self.tenant))]);
        let texts = [
            ("client", self.client),
            ("action", self.action),
            ("method", self.method),
            ("path", self.path),
            ("ip", self.ip.map(|ip| ip.to_string())),
            ("tier", self.tier),
            ("api_key", self.api_key),
            ("request_id", self.request_id),
        ];
        body.extend(
            texts.into_iter().filter_map(|(name, text)| Some((name.to_string(), json!(text?)))),
        );
        let numbers = [("cost", self.cost.map(u64::from)), ("wait_ms", self.wait)];
        body.extend(
            numbers.into_iter().filter_map(|(name, n)| Some((name.to_string(), json!(n?)))),
        );
        Value::Object(body)
    }
}

impl Decision {
    fn print(&self, out: &mut Output<'_>) -> Result<(), Failure> {
        let word = if self.allowed {
            out.painted(Colour::Green, "allowed")
        } else {
            out.painted(Colour::Red, "denied")
        };
        let tier = self.tier.as_ref().map(|tier| format!("tier {tier}"));
        let cost = self.cost.map(|cost| format!("cost {cost}"));
        let about: Vec<_> = [tier, cost].into_iter().flatten().collect();
        let about =
            if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
        out.line(&format!("{word}: {}{}", plain(&self.tenant), plain(&about)))?;
        for line in self.remarks() {
            out.line(&plain(&line))?;
        }
        if self.limits.is_empty() {
            return Ok(());
        }
        limits::print(&self.limits, out)
    }

    /// What there is to know beyond the word and the table.
    fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(by) = &self.denied_by {
            let retry = match self.retry_after_ms {
                Some(ms) => format!("retry in {}", span(ms)),
                None => "waiting won't help".into(),
            };
            let scope = scope_words(&by.scope);
            lines.push(format!("by {} (per {scope}), reason {}; {retry}", by.name, by.reason));
        }
        match &self.bypass {
            Some(bypass) => {
                lines.push(format!("by the allow list's {}: {}", bypass.list, bypass.reason))
            }
            None if self.allowed && self.limits.is_empty() => lines.push("no limit applies".into()),
            None => {}
        }
        if let Some(mode) = self.mode.as_ref().filter(|mode| *mode != "exact") {
            let why = self.degraded.as_ref().map(|d| format!(" ({})", d.reason));
            lines.push(format!("mode {mode}{}", why.unwrap_or_default()));
        }
        if self.replayed {
            lines.push("the answer to an earlier check of this request id".into());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Reply, Server};
    use super::*;

    const ALLOWED: &str = r#"{"allowed":true,"tenant":"acme","tier":"pro","cost":3,"limit":100,"remaining":97,"reset_after_ms":1800,
        "retry_after_ms":null,"denied_by":null,"limits":[{"name":"minute","scope":["tenant"],"algorithm":"token_bucket",
        "limit":100,"window_ms":60000,"remaining":97,"reset_after_ms":1800,"mode":"exact"}],"permit":null,
        "replayed":false,"mode":"exact","node":"n2","epoch":5,"policy_version":12}"#;
    const DENIED: &str = r#"{"allowed":false,"tenant":"acme","tier":"free","cost":1,"limits":[],"retry_after_ms":1201,
        "denied_by":{"name":"rate","scope":["tenant","client"],"reason":"rate"},"mode":"approximate",
        "degraded":{"reason":"key_cap","share":"0.5"},"replayed":true}"#;

    #[test]
    fn an_allowed_check_is_a_line_and_a_table_and_exits_0() {
        let server = Server::replying([Reply::ok(ALLOWED)]);
        let ran = server.run("tidegate check acme");
        assert_eq!(ran.exit, Exit::Done);
        assert_eq!(
            ran.data,
            "allowed: acme (tier pro, cost 3)\n\
             LIMIT   PER     ALGORITHM     LEFT   OF  WINDOW  RESET  MODE\n\
             minute  tenant  token_bucket    97  100  1m 00s   1.8s  exact\n"
        );
        assert_eq!(ran.notes, "");
    }

    #[test]
    fn a_denied_check_says_by_what_and_for_how_long_on_stdout_and_exits_3() {
        let server = Server::replying([Reply::ok(DENIED)]);
        let ran = server.run("tidegate check acme");
        assert_eq!(ran.exit, Exit::Denied);
        assert_eq!(
            ran.data,
            "denied: acme (tier free, cost 1)\n\
             by rate (per tenant+client), reason rate; retry in 1.3s\n\
             mode approximate (key_cap)\n\
             the answer to an earlier check of this request id\n"
        );
        assert_eq!(ran.notes, "");
    }

    #[test]
    fn never_and_unlimited_have_words_of_their_own() {
        let server = Server::replying([
            Reply::ok(
                r#"{"allowed":false,"tenant":"a","cost":900,"retry_after_ms":null,"denied_by":{"name":"rate","scope":[],
                    "reason":"cost_exceeds_capacity"}}"#,
            ),
            Reply::ok(
                r#"{"allowed":true,"tenant":"a","tier":"vip","cost":1,"limit":"unlimited","remaining":null,"limits":[]}"#,
            ),
            Reply::ok(
                r#"{"allowed":true,"tenant":"a","limit":"unlimited","limits":[],"bypass":{"list":"staff","reason":"us"}}"#,
            ),
        ]);
        assert_eq!(
            server.run("tidegate check a --cost 900").data,
            "denied: a (cost 900)\nby rate (per everybody), reason cost_exceeds_capacity; waiting \
             won't help\n"
        );
        assert_eq!(
            server.run("tidegate check a").data,
            "allowed: a (tier vip, cost 1)\nno limit applies\n"
        );
        assert_eq!(
            server.run("tidegate check a").data,
            "allowed: a\nby the allow list's staff: us\n"
        );
    }

    #[test]
    fn json_is_the_nodes_answer_with_the_same_exit_code() {
        let server = Server::replying([Reply::ok(DENIED)]);
        let ran = server.run("tidegate check acme -o json");
        assert_eq!(ran.exit, Exit::Denied);
        assert!(
            ran.data.starts_with("{\n  \"allowed\": false,\n  \"tenant\": \"acme\",\n"),
            "{}",
            ran.data
        );
        let printed: Value = serde_json::from_str(&ran.data).unwrap();
        assert_eq!(printed, serde_json::from_str::<Value>(DENIED).unwrap());
    }

    #[test]
    fn only_what_was_given_is_sent() {
        let server = Server::replying([Reply::ok(ALLOWED), Reply::ok(ALLOWED)]);
        server.run("tidegate check acme --token t");
        server.run(
            "tidegate check acme --client u --action a --method POST --path /x --ip ::1 --cost 3 \
             --wait 20 --tier pro --api-key k --request-id r",
        );
        let seen = server.seen();
        assert_eq!(seen[0].line, "POST /v1/check");
        assert_eq!(seen[0].header("authorization"), Some("Bearer t"));
        assert_eq!(seen[0].json(), json!({"tenant": "acme"}));
        assert_eq!(
            seen[1].json(),
            json!({"tenant": "acme", "client": "u", "action": "a", "method": "POST", "path": "/x", "ip": "::1",
                "cost": 3, "wait_ms": 20, "tier": "pro", "api_key": "k", "request_id": "r"})
        );
    }

    #[test]
    fn an_answer_that_is_no_decision_is_a_failure() {
        let server = Server::replying([Reply::ok("<html>"), Reply::ok("{}")]);
        for _ in 0..2 {
            let ran = server.run("tidegate check acme");
            assert_eq!((ran.exit, ran.data.as_str()), (Exit::Failed, ""));
            assert!(
                ran.notes.starts_with("error: the node's answer is not what was expected"),
                "{}",
                ran.notes
            );
        }
    }
}
