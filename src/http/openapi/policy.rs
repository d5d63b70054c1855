//! The policy, whole or by tier, and its history.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::{Delete, Get, Post, Put};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};

use super::call::{Access, Answer, Call, ETag};
use super::document::{Policy, Tier};
use super::words::{
    Instant, Name, PolicyVersion, Shown, TierName, components, form, of_format, one_of, reference,
    whole,
};
use crate::cluster::state::HISTORY_MAX;
use crate::http::policy::VERSION_MAX;

/// The tag of these calls.
pub const POLICY: &str = "policy";

components! {
    /// One or more versions of the policy, or `*` for whatever there is.
    IfMatch = form("^(\\*|\"[0-9]+\"(, ?\"[0-9]+\")*)$", "entity-tags"), "\"12\"";
    /// `true` or `1`, also without a value: yes. `false` or `0`: no.
    Flag = one_of(["true", "false", "1", "0", ""]), "true";
    /// The media types that are wanted. TOML if it begins with `application/toml`, otherwise JSON.
    PolicyKind = of_format("media-range"), "application/toml";
    /// Any value that a policy has.
    PolicyValue = ObjectBuilder::new().schema_type(SchemaType::AnyValue), 100;
    /// Always true.
    Unchanged = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])), true;
    /// Nodes that hadn't put a change into force when it was answered.
    Pending [Name] = ArrayBuilder::new().items(reference::<Name>()), [];
    /// Everything that differs, in the order of the paths.
    Differences [Difference] = ArrayBuilder::new().items(reference::<Difference>()),
        [{"path": "tiers.pro.limits[minute].limit", "op": "change", "from": 100, "to": 200}];
    /// A version of the policy that was.
    EarlierVersion = whole(1..=VERSION_MAX), 7;
    /// What made each version, newest first. The document as it was before the last of them can be
    /// had too.
    PastVersions [PastVersion] = ArrayBuilder::new().items(reference::<PastVersion>()).max_items(Some(HISTORY_MAX)),
        [{"version": 12, "time": "2027-01-31T12:00:00Z", "by": "ops", "what": "put tier pro"}];
    /// What a change answers: what was written, or with `dry_run` what would be.
    PolicyOutcome [Written, DryRun] = either::<Written, DryRun>(),
        {"version": 12, "pending": []};
}

/// A change that was made. Every check asked after this answer is decided by this version or a
/// later one, on every node that is not `pending`.
#[derive(ToSchema)]
#[schema(examples(json!({"version": 12, "pending": []})))]
pub struct Written {
    /// The version it made; where it changed nothing, the version that there is.
    version: PolicyVersion,
    /// Where it isn't in force yet.
    pending: Pending,
    /// True where the policy said this already, so that no version was made; else absent.
    #[schema(nullable = false)]
    unchanged: Option<Unchanged>,
}

/// What a change would change. Nothing was written.
#[derive(ToSchema)]
#[schema(examples(json!({"dry_run": true, "version": 11, "changes": []})))]
pub struct DryRun {
    /// Always true.
    #[schema(examples(true))]
    dry_run: bool,
    /// The version it was compared with.
    version: PolicyVersion,
    /// What differs.
    changes: Differences,
}

/// One part of a policy that differs.
#[derive(ToSchema)]
pub struct Difference {
    /// Which: members joined by dots, limits by their names.
    #[schema(examples("tiers.pro.limits[minute].limit"))]
    path: String,
    /// What becomes of it.
    op: DifferenceKind,
    /// Its value before; absent where it is new.
    #[schema(nullable = false)]
    from: Option<PolicyValue>,
    /// Its value after; absent where it is gone.
    #[schema(nullable = false)]
    to: Option<PolicyValue>,
}

/// A part is new, has another value, or is gone.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(examples("change"))]
pub enum DifferenceKind {
    Add,
    Change,
    Remove,
}

/// The kill switch.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"enforce": false})))]
pub struct Enforcement {
    /// False: everything is judged and reported, and nothing but the deny list denies.
    #[schema(examples(false))]
    enforce: bool,
}

/// The versions that are remembered.
#[derive(ToSchema)]
pub struct History {
    /// The version in force.
    version: PolicyVersion,
    /// How it came about.
    versions: PastVersions,
}

/// A version, and what made it.
#[derive(ToSchema)]
pub struct PastVersion {
    /// The version.
    version: PolicyVersion,
    /// When it was made.
    time: Instant,
    /// The name of the token that asked for it.
    #[schema(examples("ops"))]
    by: String,
    /// What was done.
    #[schema(examples("put tier pro"))]
    what: String,
}

/// Which version to go back to.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"version": 7})))]
pub struct RollbackBody {
    /// The version.
    version: EarlierVersion,
}

/// One of two shapes.
pub fn either<A: ToSchema, B: ToSchema>() -> OneOfBuilder {
    OneOfBuilder::new().item(reference::<A>()).item(reference::<B>())
}

/// A call that changes the policy.
pub fn writes(call: Call) -> Call {
    call.open_to(Access::Change)
        .header::<IfMatch>(
            "If-Match",
            "The version that the change was made for, as `ETag` said it; 412 if there is another. \
             Without it, or with `*`, whatever is there is changed.",
        )
        .query::<Flag>("dry_run", "Only answer with what would change.")
        .fails(&[409, 412, 422, 503])
}

/// What it answers.
pub fn written() -> Answer {
    outcome::<PolicyOutcome>()
}

/// What it answers where that is more than the version: either of `T`'s forms.
pub fn outcome<T: ToSchema>() -> Answer {
    Answer::json::<T>("The change is in force; or, with `dry_run`, what would change.")
        .header::<ETag>("ETag", "The version that was made; not with `dry_run`.")
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let tier = |call: Call| call.part::<TierName>("tier", "The tier.");
    vec![
        Call::new(Get, "/v1/policy", "getPolicy", POLICY)
            .open_to(Access::See)
            .does(
                "See the whole policy",
                "As JSON, or as TOML if `Accept` begins with `application/toml`. Put as it is, it \
                 makes the same policy again, and is shown as the same bytes.",
            )
            .header::<PolicyKind>("Accept", "JSON or TOML.")
            .query::<EarlierVersion>(
                "version",
                "The policy as it was at that version; 404 if that isn't remembered.",
            )
            .answers(
                200,
                Answer::json::<Policy>("The policy.")
                    .also::<Policy>("application/toml")
                    .versioned(),
            )
            .fails(&[404]),
        writes(Call::new(Put, "/v1/policy", "putPolicy", POLICY))
            .does(
                "Replace the whole policy",
                "Checked whole: an invalid one is refused with every fault. JSON, or TOML if \
                 `Content-Type` begins with `application/toml`. Spent stays spent: a changed limit \
                 moves the ceiling and not the count.",
            )
            .takes_toml_too::<Policy>(
                "The policy; at most `policy_body_bytes` (64 MiB by default).",
            )
            .answers(200, written()),
        writes(Call::new(Put, "/v1/policy/enforce", "putEnforce", POLICY))
            .does(
                "Throw the kill switch, or take it back",
                "With `false`, every limit is judged and reported and none denies; the deny list \
                 still does. The same as the policy's member `enforce`, by itself: one small \
                 change of its own in the audit log.",
            )
            .takes::<Enforcement>("On or off.")
            .answers(200, written()),
        Call::new(Get, "/v1/policy/history", "getPolicyHistory", POLICY)
            .open_to(Access::See)
            .does(
                "See what made the versions",
                "Newest first; older ones than these are forgotten. `/v1/policy?version=` has the \
                 documents.",
            )
            .answers(200, Answer::json::<History>("The versions.").versioned()),
        writes(Call::new(Post, "/v1/policy/rollback", "rollBackPolicy", POLICY))
            .does(
                "Go back to an earlier version",
                "Its document becomes a new version; what lies between stays in the history. 422 \
                 if it isn't remembered.",
            )
            .takes::<RollbackBody>("The version.")
            .answers(200, written()),
        tier(Call::new(Get, "/v1/tiers/{tier}", "getTier", POLICY))
            .open_to(Access::See)
            .does("See a tier", "As the policy has it.")
            .answers(200, Answer::json::<Tier>("The tier.").versioned())
            .fails(&[404]),
        tier(writes(Call::new(Put, "/v1/tiers/{tier}", "putTier", POLICY)))
            .does("Put a tier", "New, or in place of the one of that name.")
            .takes::<Tier>("The tier; at most `batch_body_bytes` (1 MiB by default).")
            .answers(200, written()),
        tier(writes(Call::new(Delete, "/v1/tiers/{tier}", "deleteTier", POLICY)))
            .does("Delete a tier", "422 while anything in the policy names it.")
            .answers(200, written())
            .fails(&[404]),
    ]
}
