//! `/api/config…` (H2): the limits that stand in for those that requests under `/api/` send.
//!
//! They are limits of the policy like any other, named `api`: the global one stands among the
//! limits for everybody, the others with their tenant, where the most specific counts (client over
//! action over tenant over global).
//!
//! ```text
//! PUT /api/config/global                                 [[limits]]      name = "api"
//! PUT /api/config/tenant/acme/action/export              [tenants.acme]  name = "api", match = { action = "export" }
//! PUT /api/config/tenant/acme/client/ann/action/export   [tenants.acme]  …, match = { client = "ann", action = "export" }
//! ```

use std::ops::Bound;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::super::auth::Caller;
use super::super::policy::{Terms, make_or_show, outcome, versioned};
use super::super::problem::{PathOf, Problem};
use super::super::query::Query;
use super::super::{App, body};
use super::api::{LIMIT_NAME, Quantity, limit_name, part};
use crate::check::{Label, Limit, Match, TenantId};
use crate::clock::SECOND;
use crate::input::{Fault, Reader, Tree};
use crate::policy::{Change, Tenant};

/// Tenants on one page.
pub const PAGE_MAX: u64 = 1_000;
/// Tenants on a page where nothing else is said.
pub const PAGE_DEFAULT: u64 = 100;
/// Tenants that are looked at for one page: few of a million may have a limit of this name.
const LOOKED_AT_MAX: usize = 20_000;
/// What the documented call sets besides, and this version can't do.
const UNSUPPORTED: [&str; 2] = ["max_global_concurrent_requests", "max_tenant_queue_size"];

/// `GET /api/config`: the global limit, and the tenants with limits of this name.
pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::of(&uri)?;
    let mut r = Reader::default();
    let most = query.whole(&mut r, "limit", 1..=PAGE_MAX).unwrap_or(PAGE_DEFAULT) as usize;
    let after = query.get("after").filter(|after| !after.is_empty());
    if after.is_some_and(|after| TenantId::new(after).is_none()) {
        r.fault_at("after", "is not a cursor of an earlier page");
    }
    r.finish(Some(())).map_err(Problem::bad_input)?;
    let policy = app.store.current();
    let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    let mut tenants =
        policy.document().tenants.range::<(Bound<&str>, Bound<&str>), str>(from).peekable();
    let (mut page, mut last, mut looked_at) = (Vec::new(), None, 0);
    while page.len() < most && looked_at < LOOKED_AT_MAX {
        let Some((id, tenant)) = tenants.next() else { break };
        let overrides = overrides(tenant);
        if !overrides.is_empty() {
            page.push(json!({"tenant_id": id, "overrides": overrides}));
        }
        (last, looked_at) = (Some(id), looked_at + 1);
    }
    let next = tenants.peek().and(last);
    let shared = policy.document().limits.iter();
    let mut global = shared.filter(|limit| is_api(limit) && limit.when == Match::default());
    let global = global.next().map(|limit| Value::Object(quantity_of(limit)));
    Ok(versioned(policy.version(), json!({"global": global, "tenants": page, "next": next})))
}

/// `GET /api/config/tenant/{tenant}`.
pub async fn get(
    State(app): State<Arc<App>>,
    PathOf(tenant): PathOf<String>,
) -> Result<Response, Problem> {
    let mut r = Reader::default();
    let tenant = part(&mut r, "tenant", tenant, TenantId::EXPECTED, TenantId::new);
    let tenant = r.finish(tenant).map_err(Problem::bad_input)?;
    let policy = app.store.current();
    let overrides = policy.document().tenants.get(&tenant).map(|tenant| overrides(tenant));
    let answer = json!({"tenant_id": tenant, "overrides": overrides.unwrap_or_default()});
    Ok(versioned(policy.version(), answer))
}

fn is_api(limit: &Limit) -> bool {
    limit.name.as_str() == LIMIT_NAME
}

/// A tenant's limits of this name, the most specific first.
fn overrides(tenant: &Tenant) -> Vec<Value> {
    let mut limits: Vec<_> = tenant.limits.iter().filter(|limit| is_api(limit)).collect();
    limits.sort_by_key(|limit| std::cmp::Reverse(limit.when.rank()));
    let shown = |limit: &&Arc<Limit>| {
        let mut shown = quantity_of(limit);
        shown.insert("client_id".into(), json!(limit.when.client));
        shown.insert("action_type".into(), json!(limit.when.action));
        Value::Object(shown)
    };
    limits.iter().map(shown).collect()
}

/// A limit in this system's words. One that the policy has with another algorithm shows its
/// capacity and how long that lasts, in seconds rounded up; a calendar quota has no such length.
fn quantity_of(limit: &Limit) -> Map<String, Value> {
    let members = json!({
        "max_requests": limit.rule.capacity(),
        "window_duration_seconds": limit.rule.window().map(|nanos| nanos.div_ceil(SECOND)),
        "algorithm": limit.rule.algorithm(),
    });
    members.as_object().cloned().unwrap_or_default()
}

/// `PUT /api/config/global`: the limit of whoever has no more specific one.
pub async fn put_global(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (quantity, terms) = quantity(&app, request, &UNSUPPORTED).await?;
    let limit = quantity.limit(Match::default());
    let answer = quantity_of(&limit);
    change(&app, by, Change::PutLimit(Box::new(limit)), terms, "updated", answer).await
}

/// The numbers in a body, and how the write is meant. Members in `unsupported` are refused by name,
/// whatever else is there: they mean something, and it can't be done.
async fn quantity(
    app: &App,
    mut request: Request,
    unsupported: &[&'static str],
) -> Result<(Quantity, Terms), Problem> {
    let terms = Terms::of(app, request.uri(), request.headers())?;
    let tree = body::json(app, &mut request, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let read = |r: &mut Reader, tree: &Tree| {
        let mut fields = r.fields(tree)?;
        let asked = unsupported
            .iter()
            .filter(|member| fields.optional(r, member, |_, _| Some(())).is_some());
        let fault =
            |member: &&str| Fault::new(*member, "is not supported in this version; leave it out");
        let faults: Vec<_> = asked.map(fault).collect();
        if !faults.is_empty() {
            return Some(Err(faults));
        }
        let quantity = Quantity::read(r, &mut fields);
        fields.finish(r);
        quantity.map(Ok)
    };
    let read = read(&mut r, &tree);
    match r.finish(read).map_err(Problem::bad_input)? {
        Ok(quantity) => Ok((quantity, terms)),
        Err(faults) => {
            let detail = faults.first().map(ToString::to_string).unwrap_or_default();
            Err(Problem::impossible(detail, faults))
        }
    }
}

/// Makes a change, and answers with what became of it and what it was about.
async fn change(
    app: &App,
    by: Caller,
    change: Change,
    terms: Terms,
    status: &str,
    mut about: Map<String, Value>,
) -> Result<Response, Problem> {
    let written = match make_or_show(app, by, change, terms).await? {
        Ok(written) => written,
        Err(shown) => return Ok(shown),
    };
    about.insert("status".into(), json!(status));
    about.extend(outcome(&written));
    Ok(versioned(written.version, Value::Object(about)))
}

/// What an override is for, in the path of a call.
struct Place {
    tenant: TenantId,
    when: Match,
}

impl Place {
    fn read(tenant: String, client: Option<String>, action: String) -> Result<Self, Problem> {
        let mut r = Reader::default();
        let tenant = part(&mut r, "tenant", tenant, TenantId::EXPECTED, TenantId::new);
        let client =
            client.map(|client| part(&mut r, "client", client, Label::EXPECTED, Label::new));
        let action = part(&mut r, "action", action, Label::EXPECTED, Label::new);
        let place =
            tenant.map(|tenant| Self { tenant, when: Match { action, client: client.flatten() } });
        r.finish(place).map_err(Problem::bad_input)
    }

    /// The members that say it in an answer.
    fn shown(&self) -> Map<String, Value> {
        let mut shown = Map::new();
        shown.insert("tenant_id".into(), json!(self.tenant));
        shown.insert("client_id".into(), json!(self.when.client));
        shown.insert("action_type".into(), json!(self.when.action));
        shown
    }

    async fn put(self, app: &App, by: Caller, request: Request) -> Result<Response, Problem> {
        let (quantity, terms) = quantity(app, request, &[]).await?;
        let mut about = self.shown();
        let limit = quantity.limit(self.when);
        about.extend(quantity_of(&limit));
        change(
            app,
            by,
            Change::PutTenantLimit(self.tenant, Box::new(limit)),
            terms,
            "updated",
            about,
        )
        .await
    }

    async fn delete(self, app: &App, by: Caller, terms: Terms) -> Result<Response, Problem> {
        let about = self.shown();
        let delete = Change::DeleteTenantOverride(self.tenant, limit_name(), self.when);
        change(app, by, delete, terms, "deleted", about).await
    }
}

/// `PUT /api/config/tenant/{tenant}/action/{action}`.
pub async fn put_action(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf((tenant, action)): PathOf<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    Place::read(tenant, None, action)?.put(&app, by, request).await
}

/// `DELETE /api/config/tenant/{tenant}/action/{action}`.
pub async fn delete_action(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf((tenant, action)): PathOf<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Place::read(tenant, None, action)?.delete(&app, by, Terms::of(&app, &uri, &headers)?).await
}

/// `PUT /api/config/tenant/{tenant}/client/{client}/action/{action}`.
pub async fn put_client_action(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf((tenant, client, action)): PathOf<(String, String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    Place::read(tenant, Some(client), action)?.put(&app, by, request).await
}

/// `DELETE /api/config/tenant/{tenant}/client/{client}/action/{action}`.
pub async fn delete_client_action(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf((tenant, client, action)): PathOf<(String, String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Place::read(tenant, Some(client), action)?
        .delete(&app, by, Terms::of(&app, &uri, &headers)?)
        .await
}
