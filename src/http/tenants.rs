//! `/v1/tenants`: a tenant's rules and its state.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::auth::Caller;
use super::compat::api::limit_name;
use super::policy::{Terms, make_or_show, name, outcome, part, versioned, write};
use super::problem::{PathOf, Problem};
use super::query::Query;
use super::read::address;
use super::render::limit_values;
use super::{App, body};
use crate::check::{Label, Limit, Name, TenantId};
use crate::cluster::{WriteError, Written};
use crate::input::{Fault, Reader, Tree};
use crate::policy::{Change, read_limit, read_tenant};
use crate::routing::ListPlace;
use crate::shard::{Forget, ForgottenLimit, SpentPart};

/// Tenants on one page.
pub const PAGE_MAX: u64 = 1_000;
/// Tenants on a page where nothing else is said.
pub const PAGE_DEFAULT: u64 = 100;

fn tenant(text: &str) -> Result<TenantId, Problem> {
    let fault = || {
        Problem::bad_input(vec![Fault::new(
            "tenant",
            format!("{text:?} is not {}", TenantId::EXPECTED),
        )])
    };
    TenantId::new(text).ok_or_else(fault)
}

/// `GET /v1/tenants/{tenant}`: what the policy says of it, and how it stands.
pub async fn get(
    State(app): State<Arc<App>>,
    PathOf(id): PathOf<String>,
) -> Result<Response, Problem> {
    let tenant = tenant(&id)?;
    let policy = app.store.current();
    let rule = policy.document().tenants.get(&tenant).map(|rule| rule.to_json());
    let (state, decision) = app.router.inspect(&tenant).await?;
    let state = json!({
        "tier": state.tier,
        "tier_source": state.source,
        "limits": limit_values(&decision),
        "permits": state.permits,
        "keys": state.keys,
        "request_ids": state.request_ids,
    });
    Ok(versioned(policy.version(), json!({"tenant": tenant, "policy": rule, "state": state})))
}

/// `PUT /v1/tenants/{tenant}`: replaces its rules.
pub async fn put(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = tenant(&id)?;
    let (rule, terms) = part(&app, request, read_tenant).await?;
    write(&app, by, Change::PutTenant(id, Box::new(rule)), terms).await
}

/// `DELETE /v1/tenants/{tenant}`: deletes its rules and all its state; with `?keep_state=true` its
/// rules alone.
pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = tenant(&id)?;
    let keeps_state = Query::of(&uri)?.flag("keep_state")?;
    let terms = Terms::of(&app, &uri, &headers)?;
    let change = Change::DeleteTenant(id.clone());
    let has_rules = app.store.current().document().tenants.contains_key(&id);
    let mut answer = match keeps_state || has_rules || terms.is_dry_run() {
        true => match make_or_show(&app, by.clone(), change, terms).await? {
            Ok(written) => outcome(&written),
            Err(shown) => return Ok(shown),
        },
        // There may be state of a tenant that has no rules.
        false => {
            let version = app.store.current().version();
            outcome(&Written { version, changed: false, pending: Vec::new() })
        }
    };
    if !keeps_state {
        if !has_rules {
            let (state, _) = app.router.inspect(&id).await?;
            if state.keys == 0 && state.permits == 0 && state.request_ids == 0 {
                return Err(Problem::not_found(format!(
                    "rule for tenant {id}, and nothing is kept of it"
                )));
            }
            audit(&app, &by, format!("deleted all state of tenant {id}"), false).await?;
        }
        app.router.forget(&id, Forget::All).await?;
        tracing::info!(tenant = %id, by = by.0, "all state of a tenant deleted");
    }
    answer.insert("state".into(), json!(if keeps_state { "kept" } else { "deleted" }));
    let version = answer["version"].as_u64().unwrap_or_default();
    Ok(versioned(version, Value::Object(answer)))
}

/// `PUT /v1/tenants/{tenant}/limits/{name}`: one limit, new or changed.
pub async fn put_limit(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf((id, limit)): PathOf<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, name) = (tenant(&id)?, name("name", &limit)?);
    let (limit, terms) = part(&app, request, |r, tree| named_limit(r, tree, name.as_str())).await?;
    write(&app, by, Change::PutTenantLimit(id, Box::new(limit)), terms).await
}

/// A limit whose name stands in the path; the body may repeat it, and nothing else.
fn named_limit(r: &mut Reader, tree: &Tree, name: &str) -> Option<Limit> {
    let mut tree = tree.clone();
    if let Tree::Map(entries) = &mut tree {
        match entries.iter().find(|(key, _)| key == "name") {
            Some((_, Tree::Text(said))) if said == name => {}
            Some((_, said)) => {
                r.fault_at("name", format!("{said} is not {name:?}, the name in the path"))
            }
            None => entries.push(("name".into(), Tree::Text(name.into()))),
        }
    }
    read_limit(r, &tree)
}

/// `DELETE /v1/tenants/{tenant}/limits/{name}`.
pub async fn delete_limit(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf((id, limit)): PathOf<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (id, name) = (tenant(&id)?, name("name", &limit)?);
    let terms = Terms::of(&app, &uri, &headers)?;
    write(&app, by, Change::DeleteTenantLimit(id, name), terms).await
}

/// `POST /v1/tenants/{tenant}/reset`: forgets what it has spent, or of that what the body names.
/// Permits that are out stay out.
pub async fn reset(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
    mut request: Request,
) -> Result<Response, Problem> {
    let id = tenant(&id)?;
    let tree = body::optional(&app, &mut request, app.limits.body_bytes).await?;
    let mut r = Reader::default();
    let part = spent_part(&mut r, &tree);
    match r.finish(part).map_err(Problem::bad_input)? {
        part if part == SpentPart::default() => reset_spent(&app, by, id).await,
        part => reset_part(&app, by, id, part).await,
    }
}

/// `DELETE /admin/ratelimit/tenants/{tenant}/reset`: the same for all that it has spent.
pub async fn reset_whole(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Caller>,
    PathOf(id): PathOf<String>,
) -> Result<Response, Problem> {
    reset_spent(&app, by, tenant(&id)?).await
}

/// Writes into the audit log what is about to be forgotten. A cluster whose members don't all know
/// such lines yet forgets all the same what older members can forget too; its nodes' logs say so.
async fn audit(app: &App, by: &Caller, what: String, older_can: bool) -> Result<(), Problem> {
    match app.store.note(what, by.0.clone()).await {
        Err(WriteError::OlderMembers(older)) if older_can => {
            tracing::warn!(%older, "a reset is not in the audit log");
            Ok(())
        }
        noted => Ok(noted?),
    }
}

async fn reset_spent(app: &App, by: Caller, id: TenantId) -> Result<Response, Problem> {
    audit(app, &by, format!("reset tenant {id}"), true).await?;
    app.router.forget(&id, Forget::Spent).await?;
    tracing::info!(tenant = %id, by = by.0, "tenant reset");
    Ok(Json(json!({"tenant": id, "reset": true})).into_response())
}

async fn reset_part(
    app: &App,
    by: Caller,
    id: TenantId,
    part: SpentPart,
) -> Result<Response, Problem> {
    // Limits that requests bring along are in no policy: those of this name, or those that `/api`
    // calls send.
    let sent = part.limit.clone().unwrap_or_else(limit_name);
    let (named, part) = (part.to_string(), SpentPart { sent: vec![sent], ..part });
    audit(app, &by, format!("reset {named} of tenant {id}"), false).await?;
    let forgotten = app.router.forget(&id, Forget::Part(Box::new(part))).await?;
    let scope =
        |limit: &ForgottenLimit| limit.scope.iter().map(ToString::to_string).collect::<Vec<_>>();
    let shown = |limits: &[ForgottenLimit]| -> Vec<Value> {
        limits.iter().map(|limit| json!({"name": limit.name, "scope": scope(limit)})).collect()
    };
    if forgotten.limits.is_empty() {
        let per =
            |limit: &ForgottenLimit| format!("{} is per {}", limit.name, scope(limit).join(", "));
        let kept: Vec<_> = forgotten.kept.iter().map(per).collect();
        let why = if kept.is_empty() { String::new() } else { format!(": {}", kept.join("; ")) };
        let detail = format!("no limit of tenant {id} is kept by {named} alone{why}");
        return Err(Problem::impossible(&detail, vec![Fault::new("", &detail)]));
    }
    tracing::info!(tenant = %id, part = named, by = by.0, "tenant reset");
    let (limits, kept) = (shown(&forgotten.limits), shown(&forgotten.kept));
    Ok(Json(json!({"tenant": id, "reset": true, "limits": limits, "kept": kept})).into_response())
}

/// The values in `{"client": …, "action": …, "ip": …, "limit": …}`, each of which may be left out.
fn spent_part(r: &mut Reader, tree: &Tree) -> Option<SpentPart> {
    let mut fields = r.fields(tree)?;
    let label = |r: &mut Reader, t: &Tree| r.parsed(t, Label::EXPECTED, Label::new);
    let client = fields.optional(r, "client", label);
    let action = fields.optional(r, "action", label);
    let ip = fields.optional(r, "ip", |r, t| r.parsed(t, "an IP address", address));
    let limit = fields.optional(r, "limit", |r, t| r.parsed(t, Name::EXPECTED, Name::new));
    fields.finish(r);
    Some(SpentPart { client, action, ip, limit, sent: Vec::new() })
}

/// Where a page begins: after a tenant that the policy names, or at a place in some node's memory.
enum Cursor {
    Named(String),
    Active(ListPlace),
}

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("named", after) => Some(Self::Named(after.into())),
            ("active", place) => Some(Self::Active(ListPlace::parse(place)?)),
            _ => None,
        }
    }
}

/// `GET /v1/tenants`: those the policy names, in the order of their ids, then the others in memory.
pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    let query = Query::of(&uri)?;
    let mut r = Reader::default();
    let most = query.whole(&mut r, "limit", 1..=PAGE_MAX).unwrap_or(PAGE_DEFAULT) as usize;
    let cursor = query.get("after").filter(|after| !after.is_empty()).map(Cursor::parse);
    if let Some(None) = cursor {
        r.fault_at("after", "is not a cursor of an earlier page");
    }
    let cursor = r.finish(Some(cursor)).map_err(Problem::bad_input)?.flatten();
    let policy = app.store.current();
    let wall = app.router.wall();
    let item = |id: &TenantId, named: bool, active: bool| {
        let (tier, ..) = policy.tier_of(id, wall);
        json!({"id": id, "tier": tier, "named": named, "active": active})
    };
    let mut page: Vec<Value> = Vec::new();
    let mut place = ListPlace::default();
    match cursor {
        Some(Cursor::Active(at)) => place = at,
        named => {
            let after = match named {
                Some(Cursor::Named(after)) => std::ops::Bound::Excluded(after),
                _ => std::ops::Bound::Unbounded,
            };
            let bounds = (after.as_ref().map(String::as_str), std::ops::Bound::Unbounded);
            for (id, _) in policy
                .document()
                .tenants
                .range::<(std::ops::Bound<&str>, std::ops::Bound<&str>), str>(bounds)
            {
                if page.len() == most {
                    let last = page
                        .last()
                        .and_then(|item| item["id"].as_str())
                        .unwrap_or_default()
                        .to_string();
                    return Ok(Json(json!({"tenants": page, "next": format!("named:{last}")}))
                        .into_response());
                }
                page.push(item(id, true, app.router.is_active(id).await));
            }
        }
    }
    while page.len() < most {
        let (listed, next) = app.router.list(place, most - page.len()).await?;
        // An account of `anonymous` at an address is listed by its own id, and never named.
        for id in listed.ids {
            match TenantId::new(&id) {
                Some(tenant) if policy.names(&tenant) => {}
                Some(tenant) => page.push(item(&tenant, false, true)),
                None => {
                    page.push(json!({"id": &*id, "tier": null, "named": false, "active": true}))
                }
            }
        }
        let Some(next) = next else {
            return Ok(Json(json!({"tenants": page, "next": null})).into_response());
        };
        place = next;
    }
    Ok(Json(json!({"tenants": page, "next": format!("active:{place}")})).into_response())
}
