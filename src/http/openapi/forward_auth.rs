//! The check that a reverse proxy asks for: read from headers, with any method.

use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::AnyOfBuilder;

use super::call::{Access, Answer, Call};
use super::denial::{Denial, DenialEnvelope, with_rate_limits};
use super::problem::Problem;
use super::words::{
    NO_CONTROLS, Shown, bytes, components, form, of_format, one_of, reference, text,
};
use crate::check::{
    API_KEY_BYTES_MAX, LABEL_BYTES_MAX, METHOD_BYTES_MAX, PATH_BYTES_MAX, TENANT_BYTES_MAX,
};

/// The tag of these calls.
pub const FORWARD_AUTH: &str = "forward-auth";

/// Any method.
const METHODS: [(HttpMethod, &str); 8] = [
    (HttpMethod::Get, "Get"),
    (HttpMethod::Put, "Put"),
    (HttpMethod::Post, "Post"),
    (HttpMethod::Delete, "Delete"),
    (HttpMethod::Options, "Options"),
    (HttpMethod::Head, "Head"),
    (HttpMethod::Patch, "Patch"),
    (HttpMethod::Trace, "Trace"),
];

components! {
    /// Which status a denial has.
    DenyStatus = one_of(["429", "403"]).default(Some(serde_json::json!("429"))), "403";
    /// The path of the original request, which a proxy appended.
    Suffix = of_format("path"), "ocr/process";
    /// Who is limited. Empty counts as absent, here and in the headers below: some proxies write a
    /// name for nothing.
    TenantHeader = text(0..=TENANT_BYTES_MAX, "^[A-Za-z0-9._:-]*$"), "acme";
    /// Text of at most 256 bytes of UTF-8, or empty.
    LabelHeader = text(0..=LABEL_BYTES_MAX, NO_CONTROLS).format(Some(bytes(LABEL_BYTES_MAX))), "user-1";
    /// An API key of at most 1024 bytes of UTF-8, or empty.
    ApiKeyHeader = text(0..=API_KEY_BYTES_MAX, NO_CONTROLS).format(Some(bytes(API_KEY_BYTES_MAX))).write_only(true),
        "k-3f9c2a";
    /// A method, or empty.
    MethodHeader = text(0..=METHOD_BYTES_MAX, "^[A-Za-z0-9-]*$"), "POST";
    /// Path and query of a request, or empty.
    UriHeader = text(0..=PATH_BYTES_MAX, "^(/[!-~]*)?$"), "/ocr/process?page=2";
    /// Addresses, the nearest last, or empty.
    AddressesHeader = form("^[0-9A-Fa-f:., ]*$", "addresses"), "203.0.113.9";
    /// An address, or empty.
    AddressHeader = of_format("address"), "203.0.113.9";
    /// Why it is denied: by a limit, or because a header can't be read or no decision came in time.
    Refused [Denial, Problem] =
        AnyOfBuilder::new().item(reference::<Denial>()).item(reference::<Problem>()),
        {"type": "urn:tidegate:problem:bad-input", "title": "Too Many Requests", "status": 429,
         "detail": "X-Tenant-ID: \"a b\" is not a tenant id",
         "errors": [{"path": "X-Tenant-ID", "detail": "\"a b\" is not a tenant id"}]};
}

/// One call for each method and path.
pub fn calls() -> Vec<Call> {
    METHODS
        .into_iter()
        .flat_map(|(method, name)| [call(&method, name, false), call(&method, name, true)])
        .collect()
}

fn call(method: &HttpMethod, name: &str, suffixed: bool) -> Call {
    let (path, id) = match suffixed {
        false => ("/v1/forward-auth", format!("forwardAuth{name}")),
        true => ("/v1/forward-auth/{suffix}", format!("forwardAuth{name}Below")),
    };
    let denied = |says: &str| {
        with_rate_limits(Answer::problem::<Refused>(says))
            .also::<DenialEnvelope>("application/json")
    };
    let call = Call::new(method.clone(), path, &id, FORWARD_AUTH)
        .open_to(Access::Forward)
        .does(
            "Decide about a request that a proxy is about to pass on",
            "The check is read from headers, whose names are those of `[forward_auth]` in the \
             configuration; described here are the defaults. 200: pass it on. 429: answer with \
             that. What can't be decided or read is denied, too. Bodies are not looked at, and \
             permits are not given. Paths in `bypass` pass unasked.",
        )
        .query::<DenyStatus>(
            "deny_status",
            "Which status a denial has, for proxies that can't pass a 429 on quietly.",
        )
        .header::<TenantHeader>(
            "X-Tenant-ID",
            "Who is limited; without it `anonymous`, an account for each address.",
        )
        .header::<LabelHeader>("X-Client-ID", "The user of the tenant.")
        .header::<LabelHeader>("X-Action", "What is to be done.")
        .header::<ApiKeyHeader>("X-API-Key", "The API key; or `?api_key=` of the original request.")
        .header::<MethodHeader>(
            "X-Forwarded-Method",
            "The method of the original request. Believed of trusted proxies alone.",
        )
        .header::<UriHeader>(
            "X-Forwarded-Uri",
            "Its path and query. Believed of trusted proxies alone.",
        )
        .header::<AddressesHeader>(
            "X-Forwarded-For",
            "Where it comes from. Believed of trusted proxies alone.",
        )
        .header::<AddressHeader>("X-Real-IP", "The same, where the header before is absent.")
        .answers(200, with_rate_limits(Answer::empty("Pass it on.")))
        .answers(
            403,
            denied(
                "Denied, and `?deny_status=403` was asked for; or the token's role is not for \
                 this.",
            ),
        )
        .answers(429, denied("Denied."));
    match suffixed {
        true => call.part::<Suffix>(
            "suffix",
            "The path of the original request, of any number of parts. Looked at where `original` \
             in the configuration says so.",
        ),
        false => call,
    }
}
