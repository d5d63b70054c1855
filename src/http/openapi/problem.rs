//! Problem documents (RFC 9457): one shape for all errors, and the statuses that calls share.

use utoipa::ToSchema;
use utoipa::openapi::schema::ArrayBuilder;

use super::call::{Answer, ETag};
use super::words::{Shown, components, form, only, reference, whole};
use crate::input::FAULTS_MAX;

/// A problem document (RFC 9457). Programs tell problems apart by `type`, people by `detail`.
#[derive(ToSchema)]
#[schema(examples(json!({
    "type": "urn:tidegate:problem:bad-input",
    "title": "Bad Request",
    "status": 400,
    "detail": "cost: 0 is not a whole number from 1 to 4294967295",
    "errors": [{"path": "cost", "detail": "0 is not a whole number from 1 to 4294967295"}]
})))]
pub struct Problem {
    /// What kind of problem it is.
    #[schema(rename = "type")]
    kind: ProblemType,
    /// The status in words.
    #[schema(examples("Bad Request"))]
    title: String,
    /// The status of the answer.
    status: Status,
    /// What is wrong, in words.
    #[schema(examples("cost: 0 is not a whole number from 1 to 4294967295"))]
    detail: String,
    /// Every fault of the input; absent where the input is not at fault.
    #[schema(nullable = false)]
    errors: Option<Faults>,
}

components! {
    /// What kind of problem it is: a URN that ends in a word for it.
    ProblemType = form("^urn:tidegate:problem:[a-z-]+$", "uri"), "urn:tidegate:problem:bad-input";
    /// An HTTP status.
    Status = whole(400..=599), 400;
    /// Every fault that was found in the input. Whoever has more learns of the rest after mending
    /// these.
    Faults [Fault] = ArrayBuilder::new().items(reference::<Fault>()).max_items(Some(FAULTS_MAX)),
        [{"path": "limits[0].window", "detail": "\"5 mins\" is not a duration"}];
    /// Whole seconds.
    Seconds = whole(1..=u64::from(u32::MAX)), 1;
    /// How to authenticate.
    Challenge = only("Bearer", ""), "Bearer";
}

/// One fault of an input.
#[derive(ToSchema)]
pub struct Fault {
    /// Where: members joined by dots, items by their index; empty for the whole.
    #[schema(examples("limits[0].window"))]
    path: String,
    /// What is wrong there. Values that may be secret are not repeated.
    #[schema(examples(
        "\"5 mins\" is not a duration: a whole number and ms, s, m, h, d or w, at most ten years"
    ))]
    detail: String,
}

/// The name of the component that describes a status.
pub fn name_of(status: u16) -> &'static str {
    SHARED.iter().find(|(known, ..)| *known == status).map_or("Internal", |(_, name, _)| *name)
}

const SHARED: [(u16, &str, &str); 12] = [
    (400, "BadInput", "The request is malformed. `errors` names every fault by its path."),
    (401, "Unauthorized", "A token is needed, or the one that came is not known."),
    (
        403,
        "Forbidden",
        "The token's role is not for this call. On a node without `[auth]`: a page of another web \
         site sent it (`Origin`, `Sec-Fetch-Site`), or it is for a back-up.",
    ),
    (404, "NotFound", "What the path names is not there."),
    (408, "Timeout", "The body didn't arrive in time (`body_ms`, 5 s by default)."),
    (
        409,
        "Unsafe",
        "It could be done, and would cost what can't be had back: the majority, the last node that \
         may own partitions, or what a node could still hand over. Or members run an older program \
         that can't read the change; `detail` names them (`type` ends in `older-members`). Nothing \
         has changed.",
    ),
    (
        412,
        "Stale",
        "`If-Match` names another version than the current one. Judged before the body is looked \
         at; nothing has changed.",
    ),
    (413, "TooLarge", "The body has too many bytes, or the batch too many checks."),
    (
        421,
        "Misdirected",
        "`Host` (HTTP/2: `:authority`) is not a name of this node. It is judged on nodes without \
         `[auth]` alone: they answer to IP addresses, `localhost`, their `http_advertise` and what \
         `[http] hosts` lists.",
    ),
    (
        422,
        "Impossible",
        "Well-formed, but it can't be: an unknown tier, a request id used for another check, a \
         policy that would not be valid, a node that doesn't answer.",
    ),
    (500, "Internal", "The node failed."),
    (
        503,
        "Unavailable",
        "No decision in time; the cluster hasn't begun or has no leader; or the change can't be \
         stored. Nothing was taken. Nothing has changed, unless `type` ends in `outcome-unknown`.",
    ),
];

/// The answers that calls share, by the names of their components.
pub fn shared() -> impl Iterator<Item = (&'static str, Answer)> {
    SHARED.iter().map(|(status, name, says)| {
        let answer = Answer::problem::<Problem>(says);
        let answer = match status {
            401 => answer.header::<Challenge>("WWW-Authenticate", "How to authenticate."),
            412 => answer.header::<ETag>("ETag", "The current version of the policy."),
            503 => answer.header::<Seconds>("Retry-After", "Seconds after which to try again."),
            _ => answer,
        };
        (*name, answer)
    })
}
