//! One call as the document describes it.
//!
//! ```text
//! Call::new(Post, "/v1/peek", "peek", DECISIONS)
//!     .open_to(Access::Decide)                       // security, 401 and 403
//!     .takes::<CheckBody>("The question.")           // body, 400, 408 and 413
//!     .answers(200, Answer::json::<Decision>("What a check would be answered."))
//!     .fails(&[422, 503])
//! ```
//!
//! Every schema that a call refers to is collected with it, so no list of components has to be
//! kept.

use serde_json::Value;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{
    Content, Ref, RefOr, Required, Response, ResponseBuilder, Schema, SecurityRequirement,
};
use utoipa::{PartialSchema, ToSchema};

use super::problem;
use super::words::{Shown, components, form, of_format, reference, text};
use crate::http::site;

/// The two ways in which a token travels.
pub const BEARER: &str = "bearer";
pub const HEADER: &str = "tidegateToken";
/// The header that names a request.
const CALL_ID: &str = "X-Request-Id";

/// Who may make a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody; tokens are not looked at.
    Open,
    /// Anybody, or the roles `check` and `admin` where there is a token with the role `check`.
    Decide,
    /// As to decide; only `X-Tidegate-Token` is looked at, since proxies pass on the end user's
    /// `Authorization`.
    Forward,
    /// Any caller, or the roles `read` and `admin` where `[auth] metrics` says so.
    Scrape,
    /// The roles `read` and `admin`.
    See,
    /// The role `admin`.
    Change,
}

/// The components that calls refer to.
pub type Schemas = Vec<(String, RefOr<Schema>)>;

/// Adds a type and all that it refers to.
pub fn collect<T: ToSchema>(schemas: &mut Schemas) {
    schemas.push((T::name().into(), T::schema()));
    T::schemas(schemas);
}

/// One call.
pub struct Call {
    method: HttpMethod,
    /// As the router has it.
    pub path: &'static str,
    operation: OperationBuilder,
    /// What it refers to.
    pub schemas: Schemas,
}

impl Call {
    /// A call named `id`, of the resource `tag`.
    pub fn new(method: HttpMethod, path: &'static str, id: &str, tag: &str) -> Self {
        let operation = OperationBuilder::new().operation_id(Some(id)).tag(tag);
        let call = Self { method, path, operation, schemas: Vec::new() };
        // Any call can come with a head that is refused before anybody looks at it.
        let says = "A name for this request, given back with the answer and found in the log. One \
                    that is not 1 to 128 visible ASCII characters is replaced.";
        let call = call.header::<CallIdWish>(CALL_ID, says).fails(&[400]);
        // Without tokens, a call that is not exempt can be refused for where it comes from.
        if site::is_exempt(path) { call } else { call.fails(&[403, 421]) }
    }

    /// The call as the paths of a document have it.
    pub fn item(self) -> PathItem {
        PathItem::new(self.method, self.operation.build())
    }

    fn with(mut self, change: impl FnOnce(OperationBuilder) -> OperationBuilder) -> Self {
        self.operation = change(self.operation);
        self
    }

    fn collecting<T: ToSchema>(mut self) -> Self {
        collect::<T>(&mut self.schemas);
        self
    }

    /// What it does, in a line and in full.
    pub fn does(self, summary: &str, description: &str) -> Self {
        self.with(|operation| operation.summary(Some(summary)).description(Some(description)))
    }

    /// Who may make it.
    pub fn open_to(self, access: Access) -> Self {
        let none: [String; 0] = [];
        let token = |name: &str| SecurityRequirement::new(name, none.clone());
        let ways = match access {
            Access::Open => vec![],
            Access::Decide | Access::Scrape => {
                vec![SecurityRequirement::default(), token(BEARER), token(HEADER)]
            }
            Access::Forward => vec![SecurityRequirement::default(), token(HEADER)],
            Access::See | Access::Change => vec![token(BEARER), token(HEADER)],
        };
        let failing: &[u16] = match access {
            Access::Open => &[],
            Access::Decide | Access::Scrape => &[401, 403],
            Access::Forward => &[401],
            // These run as a task of their own, and a task can fail; and there is nothing to see
            // before the cluster has begun.
            Access::See | Access::Change => &[401, 403, 500, 503],
        };
        self.with(|operation| operation.securities(Some(ways))).fails(failing)
    }

    fn parameter<T: ToSchema>(
        self,
        place: ParameterIn,
        required: Required,
        name: &str,
        says: &str,
    ) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(required)
            .description(Some(says))
            .schema(Some(reference::<T>()));
        self.with(|operation| operation.parameter(parameter)).collecting::<T>()
    }

    /// A part of its path.
    pub fn part<T: ToSchema>(self, name: &str, says: &str) -> Self {
        self.parameter::<T>(ParameterIn::Path, Required::True, name, says).fails(&[400])
    }

    /// A parameter of its query string that may be left out.
    pub fn query<T: ToSchema>(self, name: &str, says: &str) -> Self {
        self.parameter::<T>(ParameterIn::Query, Required::False, name, says).fails(&[400])
    }

    /// A parameter of its query string that has to be there.
    pub fn required_query<T: ToSchema>(self, name: &str, says: &str) -> Self {
        self.parameter::<T>(ParameterIn::Query, Required::True, name, says).fails(&[400])
    }

    /// A header that it looks at, if it is there.
    pub fn header<T: ToSchema>(self, name: &str, says: &str) -> Self {
        self.parameter::<T>(ParameterIn::Header, Required::False, name, says)
    }

    /// A body of JSON that it needs.
    pub fn takes<T: ToSchema>(self, says: &str) -> Self {
        self.body::<T>(reference::<T>().into(), says, Required::True, &["application/json"])
    }

    /// A body of JSON that may be left out; `null` is no body either.
    pub fn may_take<T: ToSchema>(self, says: &str) -> Self {
        let none = ObjectBuilder::new().schema_type(Type::Null);
        let schema: Schema = OneOfBuilder::new().item(none).item(reference::<T>()).into();
        self.body::<T>(schema.into(), says, Required::False, &["application/json"])
    }

    /// A body that may be JSON or TOML, of the same shape.
    pub fn takes_toml_too<T: ToSchema>(self, says: &str) -> Self {
        self.body::<T>(
            reference::<T>().into(),
            says,
            Required::True,
            &["application/json", "application/toml"],
        )
    }

    fn body<T: ToSchema>(
        self,
        schema: RefOr<Schema>,
        says: &str,
        required: Required,
        kinds: &[&str],
    ) -> Self {
        let body = RequestBodyBuilder::new().description(Some(says)).required(Some(required));
        let content = |body: RequestBodyBuilder, kind: &&str| {
            body.content(*kind, Content::new(Some(schema.clone())))
        };
        let body = kinds.iter().fold(body, content);
        self.with(|operation| operation.request_body(Some(body.build())))
            .collecting::<T>()
            .fails(&[400, 408, 413])
    }

    /// An answer.
    pub fn answers(mut self, status: u16, answer: Answer) -> Self {
        let (response, mut referred_to) = answer.identified().into_parts();
        self.schemas.append(&mut referred_to);
        self.with(|operation| operation.response(status.to_string(), response))
    }

    /// Problem documents with these statuses, each described once for all calls.
    pub fn fails(self, statuses: &[u16]) -> Self {
        let add = |operation: OperationBuilder, status: &u16| {
            operation
                .response(status.to_string(), Ref::from_response_name(problem::name_of(*status)))
        };
        self.with(|operation| statuses.iter().fold(operation, add))
    }
}

/// One answer of a call.
pub struct Answer {
    response: ResponseBuilder,
    schemas: Schemas,
}

impl Answer {
    /// Without a body.
    pub fn empty(says: &str) -> Self {
        Self { response: ResponseBuilder::new().description(says), schemas: Vec::new() }
    }

    /// A body of JSON.
    pub fn json<T: ToSchema>(says: &str) -> Self {
        Self::empty(says).also::<T>("application/json")
    }

    /// A problem document.
    pub fn problem<T: ToSchema>(says: &str) -> Self {
        Self::empty(says).also::<T>("application/problem+json")
    }

    /// Text of a kind.
    pub fn text(says: &str, kind: &str, example: &str) -> Self {
        let schema =
            ObjectBuilder::new().schema_type(Type::String).examples([Value::from(example)]);
        let mut text = Self::empty(says);
        text.response =
            text.response.content(kind, Content::new(Some(Schema::from(schema.build()))));
        text
    }

    /// A body of this kind, beside those it has.
    pub fn also<T: ToSchema>(mut self, kind: &str) -> Self {
        self.response = self.response.content(kind, Content::new(Some(reference::<T>())));
        collect::<T>(&mut self.schemas);
        self
    }

    /// The answer as a document has it, and the components it refers to.
    pub fn into_parts(self) -> (Response, Schemas) {
        (self.response.build(), self.schemas)
    }

    /// With a header.
    pub fn header<T: PartialSchema>(mut self, name: &str, says: &str) -> Self {
        let header = HeaderBuilder::new().schema(Some(T::schema())).description(Some(says));
        self.response = self.response.header(name, header.build());
        self
    }

    /// With the name of the request.
    pub fn identified(self) -> Self {
        self.header::<CallId>(
            CALL_ID,
            "The name of the request, as it came or was made. A decision has one only where it \
             came with one.",
        )
    }

    /// With the version of the policy that it belongs to.
    pub fn versioned(self) -> Self {
        self.header::<ETag>("ETag", "The version of the policy, for `If-Match`.")
    }
}

components! {
    /// A name for one request: visible ASCII.
    CallId = text(1..=crate::telemetry::REQUEST_ID_BYTES_MAX, "^[!-~]+$"), "0b7c1d5e9f3a4c62b8d0e1f2a3b4c5d6";
    /// A name for one request. What is not 1 to 128 visible ASCII characters is replaced.
    CallIdWish = of_format("call-id"), "order-4711";
    /// A version of the policy in quotes.
    ETag = form("^\"[0-9]+\"$", "entity-tag"), "\"12\"";
}
