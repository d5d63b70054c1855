//! What operators look at: `/metrics`, `/v1/stats`, `/v1/alerts`. `/api/stats` and `/api/alerts`
//! are the same calls.
//!
//! All of it is asked of the shards when somebody looks, on the control runtime, so an answer is
//! never older than itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::App;
use super::ops::unready;
use super::problem::Problem;
use super::query::Query;
use crate::clock::SECOND;
use crate::cluster::handoff::{FROZEN_BOUNDS, HandOffs};
use crate::cluster::{BreakerStatus, ClusterStatus, NodeState, Purpose};
use crate::input::Fault;
use crate::net::tls::Expiries;
use crate::policy::print_instant;
use crate::routing;
use crate::shard::Outcomes;
use crate::telemetry::{
    Alert, ClusterLevels, DATES_MAX, ForwardCounts, HandOffLevels, LinkLevels, Observed, Period,
    ResourceLevels, Scrape, Slice, Summary, alerts, block_rate, render,
};

/// How long a scrape waits for the file system of the data directory.
const DISK_WITHIN: Duration = Duration::from_millis(500);
/// What a date looks like, for error messages.
const DATE: &str = "a date, such as 2027-01-31";

impl App {
    /// Asks the shards what they have counted, and takes that into the statistics.
    pub async fn observe(&self) -> Observed {
        let tallies = self.router.tallies().await;
        self.telemetry.observe(tallies, self.router.list_counts())
    }
}

/// `GET /metrics`. They name tenants, so `[auth] metrics` says whether they need a token.
pub async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    app.tokens.admit_metrics(&headers)?;
    let failed = || Problem::new(500, "the metrics can't be written", "internal-error");
    let control = app.control.clone();
    let rendered = control.spawn(async move {
        let policy = app.store.current();
        let scrape = Scrape {
            observed: app.observe().await,
            depths: app.router.depths(),
            policy_version: policy.version(),
            list_entries: policy.document().access.len(),
            enforce: policy.document().enforce,
            ready: unready(&app, Purpose::Everything).is_none(),
            resources: resource_levels(&app).await,
            cluster: cluster_levels(
                &app.cluster.status().await,
                &app.cluster.breakers(),
                app.cluster.handoffs(),
            ),
            forwards: forward_counts(app.router.forwards()),
        };
        render(&app.telemetry, &scrape)
    });
    match rendered.await {
        Ok(Ok((text, kind))) => {
            Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response())
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the metrics can't be written");
            Err(failed())
        }
        Err(_) => Err(failed()),
    }
}

/// What metrics show of the node's caps, disk and certificates.
///
/// A disk that hangs must not stop the control runtime, which drives Raft: the file system is asked
/// on a thread that may wait, and a disk that does not answer in time has no series.
async fn resource_levels(app: &App) -> ResourceLevels {
    let disk = app.disk.clone();
    let asked = tokio::task::spawn_blocking(move || disk.levels());
    let disk = tokio::time::timeout(DISK_WITHIN, asked).await;
    let expiries = app.tls.iter().flat_map(|tls| {
        let Expiries { peers, clients } = tls.tls.expiries();
        [("peer", peers), ("http", clients.filter(|_| tls.http))]
    });
    ResourceLevels {
        limits: app.limits.clone(),
        disk: disk.ok().and_then(Result::ok).flatten(),
        certificates: expiries.filter_map(|(shown, at)| Some((shown, at?.as_second()))).collect(),
    }
}

/// What metrics show of the cluster.
fn cluster_levels(
    status: &ClusterStatus,
    breakers: &[BreakerStatus],
    handoffs: HandOffs,
) -> ClusterLevels {
    let own = status.nodes.iter().find(|node| node.id == status.node);
    let of_state = |state| status.nodes.iter().filter(|node| node.state == state).count();
    let link = |breaker: &BreakerStatus| LinkLevels {
        peer: breaker.id.to_string(),
        breaker: breaker.state,
        opened: breaker.opened,
        connected: breaker.connected,
    };
    ClusterLevels {
        term: status.term,
        applied: status.applied,
        is_leader: status.leader.as_ref() == Some(&status.node),
        has_quorum: status.quorum,
        contact_ms: status.contact_ms,
        placement_version: status.placement_version,
        members: NodeState::ALL.map(|state| (state.word(), of_state(state))).into(),
        voters: status.nodes.iter().filter(|node| node.voter).count(),
        owned: own.map_or(0, |own| own.partitions),
        links: breakers.iter().map(link).collect(),
        handoffs: HandOffLevels {
            moved: handoffs.moved,
            stayed: handoffs.stayed,
            bytes: handoffs.bytes,
            bounds: FROZEN_BOUNDS.into(),
            frozen: handoffs.frozen.into(),
            frozen_nanos: handoffs.frozen_nanos,
        },
    }
}

/// What metrics show of checks between nodes.
fn forward_counts(counts: &routing::ForwardCounts) -> ForwardCounts {
    ForwardCounts {
        forwarded: counts.forwarded.read(),
        unreachable: counts.unreachable.read(),
        resent: counts.resent.read(),
        moved: counts.moved.read(),
        received: counts.received.read(),
        repeated: counts.repeated.read(),
        not_owner: counts.not_owner.read(),
        too_old: counts.too_old.read(),
        caught_up: counts.caught_up.read(),
        shared_asks: counts.shared_asks.read(),
        shared_asked: counts.shared_asked.read(),
    }
}

/// `GET /v1/stats`: all periods, or with `?period=` one of them, or with `?date=` a day.
pub async fn stats(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query = Query::of(&uri)?;
    let wanted = wanted(&query)?;
    app.observe().await;
    Ok(Json(match wanted {
        Wanted::All => {
            let periods =
                Period::ALL.map(|(name, period)| (name.to_string(), of_period(&app, name, period)));
            json!({"periods": Map::from_iter(periods)})
        }
        Wanted::Period(name, period) => of_period(&app, name, period),
        Wanted::Date(text, day) => {
            let summary = app.telemetry.on(day).ok_or_else(|| {
                let detail =
                    format!("statistics are kept for today and {DATES_MAX} days before, in UTC");
                Problem::impossible(format!("date: {detail}"), vec![Fault::new("date", detail)])
            })?;
            with("date", text, &summary)
        }
    }))
}

enum Wanted {
    All,
    Period(&'static str, Period),
    /// Days since the Unix epoch.
    Date(String, u64),
}

fn wanted(query: &Query) -> Result<Wanted, Problem> {
    let bad =
        |member: &str, detail: String| Err(Problem::bad_input(vec![Fault::new(member, detail)]));
    match (query.get("period"), query.get("date")) {
        (None, None) => Ok(Wanted::All),
        (Some(_), Some(_)) => bad("date", "a date and a period can't be asked for together".into()),
        (Some(text), None) => match Period::ALL.into_iter().find(|(name, _)| *name == text) {
            Some((name, period)) => Ok(Wanted::Period(name, period)),
            None => bad("period", format!("{text:?} is not one of 1h, 24h, 7d")),
        },
        (None, Some(text)) => match day(text) {
            Some(day) => Ok(Wanted::Date(text.into(), day)),
            None => bad("date", format!("{text:?} is not {DATE}")),
        },
    }
}

/// Days from the Unix epoch to a date.
fn day(text: &str) -> Option<u64> {
    let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let date: jiff::civil::Date = plain.then(|| text.parse().ok()).flatten()?;
    let days = date.since((jiff::Unit::Day, jiff::civil::date(1970, 1, 1))).ok()?.get_days();
    u64::try_from(days).ok()
}

fn of_period(app: &App, name: &str, period: Period) -> Value {
    with("period", name.into(), &app.telemetry.over(period))
}

fn with(member: &str, value: String, summary: &Summary) -> Value {
    let Slice { decisions, lists, tiers, denied_by_scope } = &summary.slice;
    let tiers = tiers.iter().map(|(tier, outcomes)| (tier.clone(), amounts(*outcomes)));
    let scopes =
        denied_by_scope.iter().map(|(scope, denied)| (scope.as_str().into(), json!(denied)));
    let mut document = amounts(*decisions);
    document[member] = json!(value);
    document["from"] = json!(print_instant(summary.from));
    document["to"] = json!(second(summary.to));
    document["by_tier"] = Value::Object(tiers.collect());
    document["by_list"] = json!({"allow": lists.allowed, "deny": lists.denied});
    document["blocked_by_scope"] = Value::Object(scopes.collect());
    document
}

/// An instant to the second: as exact as statistics are, and as people read a list of changes.
pub fn second(wall: u64) -> String {
    print_instant(wall - wall % SECOND)
}

fn amounts(outcomes: Outcomes) -> Value {
    json!({
        "total": outcomes.total(),
        "allowed": outcomes.allowed,
        "blocked": outcomes.denied,
        "block_rate": block_rate(outcomes),
    })
}

/// `GET /v1/alerts`: judged now, over the last hour.
pub async fn get_alerts(State(app): State<Arc<App>>) -> Json<Value> {
    app.observe().await;
    let hour = app.telemetry.over(Period::Hour);
    let enforce = app.store.current().document().enforce;
    let alerts: Vec<_> = alerts(&hour.slice, enforce).iter().map(of_alert).collect();
    Json(json!({"from": print_instant(hour.from), "to": second(hour.to), "alerts": alerts}))
}

fn of_alert(alert: &Alert) -> Value {
    json!({
        "severity": alert.severity.to_string(),
        "name": alert.name,
        "detail": alert.detail,
        "value": alert.value,
        "threshold": alert.threshold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_a_number_of_days_and_nothing_else_is_a_date() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2024-02-29", Some(19_782)),
            ("2023-02-29", None),
            ("1969-12-31", None),
        ] {
            assert_eq!(day(text), expected, "{text}");
        }
        for bad in ["", "2024-2-9", "20240209", "2024-02-09T00", "2024-02-09 "] {
            assert_eq!(day(bad), None, "{bad}");
        }
    }
}
