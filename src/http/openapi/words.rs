//! The words that bodies, paths and headers are made of: bounded texts, numbers, lists and maps.
//!
//! Every bound is the constant that the readers validate by, so that the document can't promise
//! anything else. Lengths are counted in bytes there and in characters by JSON Schema; where a text
//! may hold more than ASCII its description says so.

use std::ops::RangeInclusive;

use serde_json::{Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder,
    SchemaFormat, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::check::{
    LABEL_BYTES_MAX, METHOD_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, PERMIT_TTL_MS,
    PERMIT_TTL_MS_DEFAULT, REQUEST_ID_BYTES_MAX, TENANT_BYTES_MAX,
};
use crate::limit::{MAX_CONCURRENT_MAX, UNITS_MAX};

/// Neither C0 nor C1 control characters, nor DEL.
pub const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// What names are made of.
pub const NAME: &str = "^[A-Za-z0-9._-]+$";

/// Text of so many bytes, all of which are ASCII or else described.
pub fn text(length: RangeInclusive<usize>, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(*length.start()))
        .max_length(Some(*length.end()))
        .pattern(Some(pattern))
}

/// Text whose form a pattern alone describes; `format` names what else holds.
pub fn form(pattern: &str, format: &str) -> ObjectBuilder {
    of_format(format).pattern(Some(pattern))
}

/// Any text, with a word for what it is.
pub fn of_format(format: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom(format.into())))
}

/// Text of which nothing is said but its format.
pub fn formatted(format: KnownFormat) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)))
}

/// One of a few words.
pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

/// A member that is always the same word, by which a shape is told from others.
pub fn only(word: &str, says: &str) -> ObjectBuilder {
    one_of([word]).description(Some(says)).examples([word])
}

/// A whole number, written without fraction or exponent.
pub fn whole(bounds: RangeInclusive<u64>) -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
    at_least(*bounds.start()).maximum(Some(*bounds.end())).format(Some(format))
}

pub fn at_least(least: u64) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least))
}

pub fn list<T: ToSchema>(length: RangeInclusive<usize>) -> ArrayBuilder {
    let (min, max) = (Some(*length.start()), Some(*length.end()));
    ArrayBuilder::new().items(reference::<T>()).min_items(min.filter(|min| *min > 0)).max_items(max)
}

/// An object whose keys are data.
pub fn map<K: PartialSchema, V: ToSchema>(most: usize) -> ObjectBuilder {
    let keys = match K::schema() {
        RefOr::T(schema) => Some(schema),
        RefOr::Ref(_) => None,
    };
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(keys)
        .max_properties(Some(most))
        .additional_properties(Some(AdditionalProperties::RefOr(reference::<V>().into())))
}

/// A reference to the component of a type.
pub fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

/// Whatever can be described and shown by an example.
pub trait Shown {
    fn shown(self, description: &str, example: Value) -> RefOr<Schema>;
}

macro_rules! shown {
    ($($builder:ty),+) => {$(
        impl Shown for $builder {
            fn shown(self, description: &str, example: Value) -> RefOr<Schema> {
                Schema::from(self.description(Some(description)).examples([example]).build()).into()
            }
        }
    )+};
}
shown!(ObjectBuilder, OneOfBuilder, AnyOfBuilder, ArrayBuilder);

/// Components that are no objects: each its doc, its schema, an example, and in brackets what it
/// refers to.
macro_rules! components {
    ($($(#[doc = $doc:literal])+ $name:ident $([$($of:ty),+])? = $schema:expr, $example:tt;)+) => {$(
        $(#[doc = $doc])+
        pub struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $schema.shown(concat!($($doc),+).trim(), serde_json::json!($example))
            }
        }

        impl utoipa::ToSchema for $name {
            fn schemas(schemas: &mut $crate::http::openapi::call::Schemas) {
                let _ = &schemas;
                $($($crate::http::openapi::call::collect::<$of>(schemas);)+)?
            }
        }
    )+};
}
pub(super) use components;

components! {
    /// Who is limited.
    TenantId = text(1..=TENANT_BYTES_MAX, "^[A-Za-z0-9._:-]+$"), "acme";
    /// The name of a tier.
    TierName = text(1..=NAME_BYTES_MAX, NAME), "pro";
    /// The name of a limit or a list entry.
    Name = text(1..=NAME_BYTES_MAX, NAME), "minute";
    /// The user of a tenant: text without control characters, at most 256 bytes of UTF-8.
    Client = label(), "user-1";
    /// What is to be done: text without control characters, at most 256 bytes of UTF-8.
    Action = label(), "export";
    /// An HTTP method. Upper and lower case are the same.
    Method = text(1..=METHOD_BYTES_MAX, "^[A-Za-z0-9-]+$"), "POST";
    /// A path, at most 2048 bytes of UTF-8 without control characters. A query or fragment behind
    /// it is cut off.
    Path = text(1..=PATH_BYTES_MAX, r"^/[^\u0000-\u001f\u007f-\u009f]*$").format(Some(bytes(PATH_BYTES_MAX))),
        "/ocr/process";
    /// An IPv4 or IPv6 address; IPv4 within IPv6 counts as the IPv4 address.
    IpAddress = OneOfBuilder::new().item(formatted(KnownFormat::Ipv4)).item(formatted(KnownFormat::Ipv6)),
        "203.0.113.9";
    /// A name that the caller gives one check, by which a repetition is known: visible ASCII.
    RequestId = text(1..=REQUEST_ID_BYTES_MAX, "^[!-~]+$"), "r-8e03978e";
    /// A unit of cost is whatever the caller counts: a request, a page, a kilobyte.
    Cost = whole(1..=u64::from(u32::MAX)), 3;
    /// Units of a limit, at most 15 digits.
    Units = whole(1..=UNITS_MAX), 100;
    /// Units, or none; at most 15 digits.
    UnitsOrNone = whole(0..=UNITS_MAX), 97;
    /// Permits out at a time, for each tenant.
    MaxConcurrent = whole(1..=MAX_CONCURRENT_MAX), 50;
    /// Milliseconds, rounded up, so that whoever waits for them has waited long enough.
    Millis = at_least(0), 1800;
    /// How long a permit lasts unless it is released or renewed, in milliseconds.
    PermitTtlMs = whole(PERMIT_TTL_MS).default(Some(json!(PERMIT_TTL_MS_DEFAULT))), 30_000;
    /// The id of a permit, unpredictable: `p` and 35 hexadecimal digits in lower case.
    PermitId = text(36..=36, "^p[0-9a-f]{35}$"), "p309309ab94d488b8edb52c92798c7d4d185";
    /// A version of the policy. Every change makes the next.
    PolicyVersion = at_least(1), 12;
    /// A decimal above 0, at most 1000000, of at most six places, as a string; computed exactly.
    Decimal = form(r"^[0-9]{1,7}(\.[0-9]{1,6})?$", "decimal-text"), "1.5";
    /// An instant with an offset, 1970 to July 2554; shown in UTC.
    Instant = formatted(KnownFormat::DateTime), "2027-01-01T00:00:00Z";
}

/// A client, an action, or the value of an attribute.
pub fn label() -> ObjectBuilder {
    text(1..=LABEL_BYTES_MAX, NO_CONTROLS).format(Some(bytes(LABEL_BYTES_MAX)))
}

/// The format of text whose length is counted in bytes.
pub fn bytes(most: usize) -> SchemaFormat {
    SchemaFormat::Custom(format!("utf8-{most}-bytes"))
}
