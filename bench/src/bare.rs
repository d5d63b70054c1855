//! The yardstick: an axum service on the work-stealing runtime that reads a check, decides nothing,
//! and answers what a node would answer, in as many bytes and as many headers.
//!
//! It is held to the best that plain axum gives: the body goes straight into `serde_json` (axum's
//! `Json` would also trace the path of an error), unknown members are refused, what never changes
//! is built once. What it leaves out is the decision: no tenant is looked up, no clock is read,
//! nothing is remembered.
//!
//! It runs in a process of its own, as a node does, so that both are measured from outside. In
//! tests it also plays the nodes of a cluster: then it names the node that would have decided, and
//! knows how its cluster stands.

use std::error::Error;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use clap::{Args, value_parser};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::scenario::Tier;
use crate::server::node_name;

/// What the service prints in front of its address, once it listens.
pub const ADDRESS_PREFIX: &str = "listening on ";

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const DAY_MS: u64 = 86_400_000;

/// What it is started as.
#[derive(Args, Clone, Copy)]
pub struct Part {
    /// The port on the loopback address; 0 takes a free one
    #[arg(long)]
    port: u16,
    /// The tier of all tenants
    #[arg(long)]
    tier: Tier,
    /// How many nodes the cluster has of which it plays one
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(1..=9))]
    nodes: u8,
}

/// A check, with every member that the contract knows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a service that decides nothing reads members and never uses them")]
struct Check {
    tenant: String,
    tier: Option<String>,
    client: Option<String>,
    action: Option<String>,
    method: Option<String>,
    path: Option<String>,
    ip: Option<String>,
    api_key: Option<String>,
    attributes: Option<serde_json::Map<String, serde_json::Value>>,
    cost: Option<u64>,
    wait_ms: Option<u64>,
    deadline_ms: Option<u64>,
    request_id: Option<String>,
    permit: Option<serde_json::Value>,
    reserve: Option<serde_json::Value>,
    limits: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    checks: Vec<Check>,
    #[expect(dead_code, reason = "see Check")]
    mode: Option<String>,
}

#[derive(Serialize)]
struct Decision<'a> {
    allowed: bool,
    tenant: &'a str,
    tier: &'static str,
    cost: u64,
    limit: u64,
    remaining: u64,
    reset_after_ms: u64,
    retry_after_ms: Option<u64>,
    denied_by: Option<DeniedBy>,
    limits: &'static [Limit],
    permit: Option<()>,
    replayed: bool,
    mode: &'static str,
    node: &'a str,
    epoch: u64,
    policy_version: u64,
}

#[derive(Clone, Copy, Serialize)]
struct DeniedBy {
    name: &'static str,
    scope: [&'static str; 1],
    reason: &'static str,
}

#[derive(Serialize)]
struct Limit {
    name: &'static str,
    scope: [&'static str; 1],
    algorithm: &'static str,
    limit: u64,
    window_ms: u64,
    remaining: u64,
    reset_after_ms: u64,
    mode: &'static str,
}

#[derive(Serialize)]
struct Decisions<'a> {
    allowed: bool,
    decisions: Vec<Decision<'a>>,
}

const SECOND: Limit = Limit {
    name: "second",
    scope: ["tenant"],
    algorithm: "token_bucket",
    limit: 1_000_000,
    window_ms: 1000,
    remaining: 999_999,
    reset_after_ms: 1,
    mode: "exact",
};
const MINUTE: Limit = Limit {
    name: "minute",
    scope: ["tenant"],
    algorithm: "sliding_window",
    limit: 100_000_000,
    window_ms: 60_000,
    remaining: 99_999_990,
    reset_after_ms: 59_999,
    mode: "exact",
};
const DAY: Limit = Limit {
    name: "day",
    scope: ["tenant"],
    algorithm: "sliding_window",
    limit: 1_000_000_000,
    window_ms: DAY_MS,
    remaining: 999_999_990,
    reset_after_ms: DAY_MS - 1,
    mode: "exact",
};
const USED_UP: Limit = Limit {
    name: "second",
    scope: ["tenant"],
    algorithm: "token_bucket",
    limit: 1,
    window_ms: DAY_MS,
    remaining: 0,
    reset_after_ms: DAY_MS - 1000,
    mode: "exact",
};

/// What every answer of one tier has in common.
#[derive(Clone)]
struct Template {
    tier: &'static str,
    /// The names of all nodes.
    nodes: Vec<String>,
    limits: &'static [Limit],
    /// The first limit is the tightest; set where it denies.
    denied_by: Option<DeniedBy>,
    policy_header: HeaderValue,
}

impl Template {
    fn new(tier: Tier, nodes: u8) -> Result<Self, axum::http::header::InvalidHeaderValue> {
        let limits: &'static [Limit] = match tier {
            Tier::One => &[SECOND],
            Tier::Two => &[SECOND, MINUTE],
            Tier::Day => &[SECOND, DAY],
            Tier::Denied => &[USED_UP],
        };
        let denied_by = (tier == Tier::Denied).then_some(DeniedBy {
            name: "second",
            scope: ["tenant"],
            reason: "rate",
        });
        let policy: Vec<String> = limits
            .iter()
            .map(|limit| {
                let Limit { name, limit: quota, window_ms, .. } = limit;
                format!("\"{name}\";q={quota};w={}", window_ms / 1000)
            })
            .collect();
        Ok(Self {
            tier: tier.name(),
            nodes: (0..usize::from(nodes)).map(node_name).collect(),
            limits,
            denied_by,
            policy_header: HeaderValue::try_from(policy.join(", "))?,
        })
    }

    fn decision<'a>(&'a self, check: &'a Check) -> Decision<'a> {
        let tightest = &self.limits[0];
        Decision {
            allowed: self.denied_by.is_none(),
            tenant: &check.tenant,
            tier: self.tier,
            cost: check.cost.unwrap_or(1),
            limit: tightest.limit,
            remaining: tightest.remaining,
            reset_after_ms: tightest.reset_after_ms,
            retry_after_ms: self.denied_by.map(|_| tightest.reset_after_ms),
            denied_by: self.denied_by,
            limits: self.limits,
            permit: None,
            replayed: false,
            mode: "exact",
            node: self.owner(&check.tenant),
            epoch: 1,
            policy_version: 1,
        }
    }

    /// The node that owns a tenant: one by their last digits.
    fn owner(&self, tenant: &str) -> &str {
        match &self.nodes[..] {
            [alone] => alone,
            nodes => &nodes[usize::from(tenant.bytes().last().unwrap_or(0)) % nodes.len()],
        }
    }

    fn rate_limit_header(&self) -> String {
        let mut header = String::with_capacity(64);
        for limit in self.limits {
            if !header.is_empty() {
                header.push_str(", ");
            }
            // Writing to a String can't fail.
            let _ = write!(
                header,
                "\"{}\";r={};t={}",
                limit.name,
                limit.remaining,
                limit.reset_after_ms.div_ceil(1000)
            );
        }
        header
    }
}

/// Serves on the loopback address until the process is killed; the address is printed.
pub fn run(part: Part) -> Result<(), Box<dyn Error + Send + Sync>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(part))
}

async fn serve(part: Part) -> Result<(), Box<dyn Error + Send + Sync>> {
    let Part { port, tier, nodes, .. } = part;
    let template: &'static Template = Box::leak(Box::new(Template::new(tier, nodes)?));
    let service = Router::new()
        .route("/v1/check", post(check))
        .route("/v1/peek", post(check))
        .route("/v1/check/batch", post(batch))
        .route("/readyz", get(|| async {}))
        .route("/v1/cluster", get(async move || standing(part)))
        .route("/v1/cluster/breakers", get(async move || links(part)))
        .with_state(template);
    let listener =
        tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    println!("{ADDRESS_PREFIX}{}", listener.local_addr()?);
    // An answer longer than a segment must not wait for the acknowledgement of the first.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("cannot set TCP_NODELAY: {error}");
        }
    });
    axum::serve(listener, service).await?;
    Ok(())
}

/// The first node leads, for ever.
fn standing(part: Part) -> Json<Value> {
    let nodes: Vec<_> = (0..usize::from(part.nodes))
        .map(|index| json!({"id": node_name(index), "partitions": 1}))
        .collect();
    Json(json!({"leader": node_name(0), "term": 1, "nodes": nodes}))
}

fn links(part: Part) -> Json<Value> {
    Json(json!({"breakers": vec![json!({"connected": true}); usize::from(part.nodes) - 1]}))
}

async fn check(
    State(template): State<&'static Template>,
    body: Bytes,
) -> Result<Response, StatusCode> {
    let check: Check = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut response = json(&template.decision(&check))?;
    let headers = response.headers_mut();
    headers.insert(RATE_LIMIT_POLICY, template.policy_header.clone());
    headers.insert(RATE_LIMIT, value(template.rate_limit_header())?);
    if template.denied_by.is_some() {
        let seconds = template.limits[0].reset_after_ms.div_ceil(1000);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

async fn batch(
    State(template): State<&'static Template>,
    body: Bytes,
) -> Result<Response, StatusCode> {
    let batch: Batch = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    json(&Decisions {
        allowed: template.denied_by.is_none(),
        decisions: batch.checks.iter().map(|check| template.decision(check)).collect(),
    })
}

fn json(answer: &impl Serialize) -> Result<Response, StatusCode> {
    let body = serde_json::to_vec(answer).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

fn value(text: impl TryInto<HeaderValue>) -> Result<HeaderValue, StatusCode> {
    text.try_into().map_err(|_| StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer;
    use crate::scenario::Call;

    const CHECK: &[u8] = br#"{"tenant":"t-1","client":"user-1","action":"api_call","cost":3}"#;

    #[test]
    fn its_answer_is_one_that_the_benchmark_accepts() {
        for (tier, allowed) in [(Tier::One, true), (Tier::Two, true), (Tier::Denied, false)] {
            let template = Template::new(tier, 1).unwrap();
            let check: Check = serde_json::from_slice(CHECK).unwrap();
            let body = serde_json::to_vec(&template.decision(&check)).unwrap();
            assert_eq!(answer::glance(&body).unwrap(), allowed);
            assert!(answer::read(&body, Call::Single, tier, "n1").is_ok());
        }
    }

    #[test]
    fn it_names_the_tenant_and_the_cost_that_were_asked_for() {
        let template = Template::new(Tier::Two, 1).unwrap();
        let check: Check = serde_json::from_slice(CHECK).unwrap();
        let answer = serde_json::to_value(template.decision(&check)).unwrap();
        assert_eq!(answer["tenant"], "t-1");
        assert_eq!(answer["cost"], 3);
        assert_eq!(answer["remaining"], 999_999);
    }

    #[test]
    fn as_a_node_among_others_it_names_the_one_that_would_have_decided() {
        let template = Template::new(Tier::Two, 3).unwrap();
        let owners: Vec<_> =
            ["t-0", "t-1", "t-2", "t-3"].map(|tenant| template.owner(tenant)).into();
        assert_eq!(owners, ["n1", "n2", "n3", "n1"]);
    }

    #[test]
    fn its_headers_are_in_the_form_of_the_ratelimit_draft() {
        let template = Template::new(Tier::Two, 1).unwrap();
        assert_eq!(template.policy_header, r#""second";q=1000000;w=1, "minute";q=100000000;w=60"#);
        assert_eq!(
            template.rate_limit_header(),
            r#""second";r=999999;t=1, "minute";r=99999990;t=60"#
        );
    }

    #[test]
    fn it_refuses_members_it_does_not_know() {
        assert!(serde_json::from_slice::<Check>(br#"{"tenant":"t","colour":"red"}"#).is_err());
    }
}
