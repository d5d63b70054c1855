//! What operators and their tools ask.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::Get;

use super::call::{Access, Answer, Call};
use super::words::{NAME, Shown, components, only, text};
use crate::check::NAME_BYTES_MAX;

/// The tag of these calls.
pub const OPERATIONS: &str = "operations";

components! {
    /// The id of a node.
    NodeId = text(1..=NAME_BYTES_MAX, NAME), "n1";
}

/// What answers here.
#[derive(ToSchema)]
pub struct Version {
    /// The product.
    #[schema(schema_with = product)]
    name: String,
    /// Its version.
    #[schema(example = "0.1.0")]
    version: String,
    /// The node.
    node: NodeId,
}

fn product() -> utoipa::openapi::schema::ObjectBuilder {
    only("tidegate")
}

/// An OpenAPI document.
#[derive(ToSchema)]
pub struct OpenApi {
    /// The version of its format.
    #[schema(example = "3.1.0")]
    openapi: String,
    /// What it describes.
    #[schema(value_type = Object, example = json!({"title": "Tidegate", "version": "0.1.0"}))]
    info: serde_json::Value,
    /// The calls, by their paths.
    #[schema(value_type = Object, example = json!({"/livez": {}}))]
    paths: serde_json::Value,
}

/// The calls.
pub fn calls() -> Vec<Call> {
    vec![
        Call::new(Get, "/livez", "livez", OPERATIONS)
            .open_to(Access::Open)
            .does("Ask whether the process answers", "For supervisors: restart it if it doesn't.")
            .answers(200, Answer::text("It answers.", "text/plain", "ok\n")),
        Call::new(Get, "/readyz", "readyz", OPERATIONS)
            .open_to(Access::Open)
            .does(
                "Ask whether the node takes new work",
                "For balancers. At a stop it says so before connections are refused.",
            )
            .answers(200, Answer::text("It takes work.", "text/plain", "ready\n"))
            .answers(503, Answer::text("It is stopping.", "text/plain", "stopping\n")),
        Call::new(Get, "/version", "version", OPERATIONS)
            .open_to(Access::Open)
            .does("See what answers here", "The product, its version and the node's id.")
            .answers(200, Answer::json::<Version>("It.")),
        Call::new(Get, "/openapi.json", "openapi", OPERATIONS)
            .open_to(Access::Open)
            .does("See this document", "The same on every node of one version.")
            .answers(200, Answer::json::<OpenApi>("This document.")),
        Call::new(Get, "/docs", "docs", OPERATIONS)
            .open_to(Access::Open)
            .does("Read this document in a browser", "Leads to `/docs/`.")
            .answers(
                308,
                Answer::empty("Go to `/docs/`.")
                    .header::<Location>("Location", "Where the page is, seen from here."),
            ),
        Call::new(Get, "/docs/", "docsPage", OPERATIONS)
            .open_to(Access::Open)
            .does("Read this document in a browser", "A page that loads nothing from elsewhere.")
            .answers(200, Answer::text("The page.", "text/html", "<!DOCTYPE html>…")),
    ]
}

components! {
    /// A relative reference.
    Location = only("docs/"), "docs/";
}
