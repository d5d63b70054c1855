//! `/v1/cluster/settings`: values that hold for all nodes and that operators change while they run.
//!
//! ```text
//! GET /v1/cluster/settings     200 ETag "1"  {"version":1,"round_trip_ms":100,"restart":[]}
//! PUT /v1/cluster/settings     200 ETag "2"  restart names the nodes that use it once they are
//!     {"round_trip_ms":200}                  restarted
//! ```
//!
//! The settings have a version of their own: `If-Match` names it, not the policy's.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::auth::Caller;
use super::policy::{matching, versioned};
use super::problem::Problem;
use super::query::Query;
use super::{App, body};
use crate::cluster::state::Setting;
use crate::cluster::{SetOutcome, SettingChange, SettingsStatus, WriteError};
use crate::input::{Fault, Reader};
use crate::net::ROUND_TRIP_MS_BOUNDS;
use crate::policy::differences;

/// The member of a body that names the round trip.
const ROUND_TRIP: &str = "round_trip_ms";
/// Every whole number: what is out of a setting's bounds is well-formed, and can't be.
const ANY: RangeInclusive<u64> = 0..=u64::MAX;

/// `GET /v1/cluster/settings`.
pub async fn get(State(app): State<Arc<App>>) -> Response {
    let settings = app.cluster.settings();
    versioned(settings.version, of_settings(&settings))
}

/// `PUT /v1/cluster/settings`; with `?dry_run` it answers with what would change.
pub async fn put(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    mut request: Request,
) -> Result<Response, Problem> {
    let dry_run = Query::of(request.uri())?.flag("dry_run")?;
    let expected = fresh(&app, request.headers())?;
    let tree = body::json(&app, &mut request, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let ms = r.fields(&tree).and_then(|mut fields| {
        let ms = fields.required(&mut r, ROUND_TRIP, |r, t| r.whole(t, ANY));
        fields.finish(&mut r);
        ms
    });
    let ms = within_bounds(r.finish(ms).map_err(Problem::bad_input)?)?;
    if dry_run {
        return Ok(what_would_change(&app, ms));
    }
    let setting = Setting::RoundTripMs(ms);
    let SetOutcome { settings, changed, pending } =
        app.cluster.set(SettingChange { setting, expected, by: by.0 }).await?;
    let mut answer = of_settings(&settings);
    answer["pending"] = json!(pending);
    if !changed {
        answer["unchanged"] = json!(true);
    }
    Ok(versioned(settings.version, answer))
}

fn within_bounds(ms: u64) -> Result<u64, Problem> {
    let bounds = ROUND_TRIP_MS_BOUNDS;
    if bounds.contains(&ms) {
        return Ok(ms);
    }
    let fault =
        Fault::new(ROUND_TRIP, format!("is not from {} to {}", bounds.start(), bounds.end()));
    Err(Problem::impossible(fault.to_string(), vec![fault]))
}

/// The version that `If-Match` names, if the settings are still at it. Judged before the body.
pub fn fresh(app: &App, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let actual = app.cluster.settings().version;
    matching(headers, actual, "the settings", |expected| WriteError::StaleSettings {
        expected,
        actual,
    })
}

fn what_would_change(app: &App, ms: u64) -> Response {
    let settings = app.cluster.settings();
    let changes =
        differences(&json!({ROUND_TRIP: settings.round_trip_ms}), &json!({ROUND_TRIP: ms}));
    Json(json!({"dry_run": true, "version": settings.version, "changes": changes})).into_response()
}

/// The settings as members of an answer.
pub fn of_settings(settings: &SettingsStatus) -> Value {
    let SettingsStatus { version, round_trip_ms, restart } = settings;
    json!({"version": version, ROUND_TRIP: round_trip_ms, "restart": restart})
}
