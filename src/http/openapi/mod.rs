//! The description of every call that the node answers, in OpenAPI 3.1: what `/openapi.json` says.
//!
//! Bodies are read and written by hand, so that every fault is found and named. What they look like
//! is said here once more, by types that nothing ever holds: one file a resource, with its schemas
//! and its calls. The bounds are the constants that the readers use. Tests hold all of it to a node
//! that runs: every route is described, every described call is routed, and answers have the shape
//! that is promised.
//!
//! A new call takes three steps: a `#[derive(ToSchema)]` type for each body, a [`Call`] in the
//! `calls()` of its resource, and, if the resource is new, a line in [`TAGS`] and in [`calls`].

// These types are looked at by their derived descriptions alone.
#![allow(dead_code, reason = "they describe; nothing holds them")]
#![allow(missing_docs, reason = "a word of a list is described with the list")]

mod access;
mod admin;
mod api;
mod call;
mod check;
mod cluster;
mod decision;
mod denial;
mod document;
mod forward_auth;
mod limit;
mod observe;
mod ops;
mod permits;
mod policy;
mod problem;
mod tenants;
mod viewer;
mod words;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::path::Paths;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Server};

use call::{BEARER, Call, HEADER, Schemas, collect};

/// The resources, in the order in which a reader meets them.
const TAGS: [(&str, &str); 11] = [
    (check::DECISIONS, "May this tenant do this now, at this cost?"),
    (
        forward_auth::FORWARD_AUTH,
        "The check that a reverse proxy asks for, about a request that it is about to pass on.",
    ),
    (
        permits::PERMITS,
        "Concurrency slots that a check granted. An id names its place, so any node takes it.",
    ),
    (
        policy::POLICY,
        "The one versioned document of tiers, limits, costs and lists, whole or by tier. Needs a \
         token where any is configured.",
    ),
    (
        access::ACCESS,
        "The allow and deny lists, entry by entry. Needs a token where any is configured.",
    ),
    (
        tenants::TENANTS,
        "Tenants: rules of their own, and how they stand. Needs a token where any is configured.",
    ),
    (
        observe::OBSERVING,
        "What was decided lately, and what to look at. Needs a token where any is configured.",
    ),
    (
        cluster::CLUSTER,
        "The nodes, and this node's links to the others. Needs a token where any is configured.",
    ),
    (ops::OPERATIONS, "For operators, balancers and supervisors. Nothing here needs a token."),
    (
        api::API,
        "Decisions by a limit that is sent along, for callers that know no policy; and the limits \
         that stand in for it.",
    ),
    (
        admin::ADMIN,
        "Native calls under the paths of another system. Needs a token where any is configured.",
    ),
];

fn calls() -> impl Iterator<Item = Call> {
    let resources = [
        check::calls,
        forward_auth::calls,
        permits::calls,
        policy::calls,
        access::calls,
        tenants::calls,
        observe::calls,
        cluster::calls,
        ops::calls,
        api::calls,
        admin::calls,
    ];
    resources.into_iter().flat_map(|calls| calls())
}

const ABOUT: &str = "\
Tidegate is a self-hosted, in-memory, multi-tenant rate limiter. Services ask it: *may this tenant do this now, at this cost?*

**Bodies** are JSON objects in UTF-8. Members that are not described here are errors, as is a member named twice; `null` is the \
same as leaving a member out. Whole numbers are written without fraction or exponent. Durations in members that end in `_ms` are \
milliseconds; clocks never travel. Answers may gain members in later versions: ignore those you don't know.

**Errors** are problem documents (RFC 9457) with every fault named by its path. A denial is not an error. A path that is none is \
404 and a method that a path doesn't take 405 with `Allow`, both as problem documents; `GET` also answers `HEAD`. Only what is no \
readable HTTP (400), or has too large a head (431), is answered without a body.

**Access.** Tokens have roles: `check` decides, `read` sees, `admin` does all. A token travels as `Authorization: Bearer …` or as \
`X-Tidegate-Token`, which comes first. Calls that decide need none, unless a token with the role `check` is configured; calls that \
see need `read`, calls that change need `admin`. Where no token is configured at all the node listens on loopback only, and \
everything is open, except changes that a browser's page asks for.

**Versions.** Every change of the policy makes the next version, which writes answer in `ETag`. `If-Match` makes a write \
conditional.

**Requests have names.** `X-Request-Id` is taken over from the caller, or made, and given back.";

/// The whole document.
fn document() -> OpenApi {
    let mut schemas: Schemas = Vec::new();
    let mut paths = Paths::new();
    for mut call in calls() {
        schemas.append(&mut call.schemas);
        let path = call.path;
        let item = call.item();
        match paths.paths.get_mut(path) {
            Some(known) => known.merge_operations(item),
            None => drop(paths.paths.insert(path.into(), item)),
        }
    }
    collect::<problem::Problem>(&mut schemas);
    let mut components = Components::new();
    for (name, answer) in problem::shared() {
        let (response, mut referred_to) = answer.identified().into_parts();
        schemas.append(&mut referred_to);
        components.responses.insert(name.into(), response.into());
    }
    components.schemas = schemas.into_iter().collect::<BTreeMap<_, _>>();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of the configuration, in `Authorization: Bearer …`."));
    let says = "The same token in a header of its own, for where `Authorization` belongs to \
                somebody else. It comes first.";
    let header = ApiKey::Header(ApiKeyValue::with_description("X-Tidegate-Token", says));
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    components.add_security_scheme(HEADER, SecurityScheme::ApiKey(header));
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0"));
    let info = InfoBuilder::new()
        .title("Tidegate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(license.build()));
    let tags =
        TAGS.map(|(name, says)| TagBuilder::new().name(name).description(Some(says)).build());
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new("/")]))
        .tags(Some(tags))
        .paths(paths)
        .components(Some(components))
        .build()
}

/// The document as it is served. It depends on nothing but the program.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    // A document of strings, numbers and maps has nothing that JSON can't say.
    Bytes::from(serde_json::to_vec(&document()).unwrap_or_default())
});

async fn serve() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, DOCUMENT.clone())
}

/// `/openapi.json`, and `/docs` to read it.
pub fn routes<S: Clone + Send + Sync + 'static>() -> axum::Router<S> {
    axum::Router::new()
        .route("/openapi.json", get(serve))
        .route("/docs", get(viewer::redirect))
        .route("/docs/", get(viewer::page))
        .route("/docs/{file}", get(viewer::file))
}
