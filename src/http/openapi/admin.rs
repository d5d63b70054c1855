//! `/admin/ratelimit/…`: native calls under the paths that another system documents.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::{Delete, Get, Post};
use utoipa::openapi::schema::ArrayBuilder;

use super::call::{Access, Answer, Call};
use super::document::Tiers;
use super::ops::NodeId;
use super::tenants::{Cursor, PageLimit, ResetDone, TenantPage, TenantView};
use super::words::{Shown, TenantId, TierName, components, only, reference};

/// The tag of these calls.
pub const ADMIN: &str = "admin";

components! {
    /// The peers whose breakers were closed.
    ResetPeers [NodeId] = ArrayBuilder::new().items(reference::<NodeId>()), ["n2", "n3"];
}

/// The tiers with their numbers.
#[derive(ToSchema)]
pub struct Quotas {
    /// The tier of tenants that nothing else maps.
    default_tier: TierName,
    /// Every tier.
    tiers: Tiers,
}

/// The breakers were closed.
#[derive(ToSchema)]
#[schema(examples(json!({"status": "reset", "node": "n1", "breakers": ["n2", "n3"]})))]
pub struct BreakersReset {
    #[schema(schema_with = reset)]
    status: String,
    /// The node whose links they are.
    node: NodeId,
    /// The peers at the other ends.
    breakers: ResetPeers,
}

fn reset() -> utoipa::openapi::schema::ObjectBuilder {
    only("reset", "They are closed.")
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let tenant = |call: Call| call.part::<TenantId>("tenant", "The tenant.");
    vec![
        Call::new(Get, "/admin/ratelimit/tenants", "adminListTenants", ADMIN)
            .open_to(Access::See)
            .does("List tenants", "The same as `/v1/tenants`.")
            .query::<PageLimit>("limit", "How many.")
            .query::<Cursor>("after", "Where to go on.")
            .answers(200, Answer::json::<TenantPage>("A page."))
            .fails(&[503]),
        tenant(Call::new(Get, "/admin/ratelimit/tenants/{tenant}", "adminGetTenant", ADMIN))
            .open_to(Access::See)
            .does("See a tenant", "The same as `/v1/tenants/{tenant}`.")
            .answers(200, Answer::json::<TenantView>("The tenant.").versioned())
            .fails(&[503]),
        tenant(Call::new(
            Delete,
            "/admin/ratelimit/tenants/{tenant}/reset",
            "adminResetTenant",
            ADMIN,
        ))
        .open_to(Access::Change)
        .does("Forget what a tenant has spent", "The same as `POST /v1/tenants/{tenant}/reset`.")
        .answers(200, Answer::json::<ResetDone>("It has spent nothing."))
        .fails(&[503]),
        Call::new(Post, "/admin/ratelimit/circuit-breaker/reset", "adminResetBreakers", ADMIN)
            .open_to(Access::Change)
            .does(
                "Close the breakers of all links",
                "Those of this node's links to its peers: the next call to each is tried. \
                 `/v1/cluster/breakers` shows how they stand.",
            )
            .answers(200, Answer::json::<BreakersReset>("They are closed.")),
        Call::new(Get, "/admin/ratelimit/quotas", "adminQuotas", ADMIN)
            .open_to(Access::See)
            .does(
                "See the tiers with their numbers",
                "As the policy has them; an environment's multiplier is not in them.",
            )
            .answers(200, Answer::json::<Quotas>("The tiers.").versioned()),
    ]
}
