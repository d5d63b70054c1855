//! `/docs/`: the document for people. Swagger UI as it was released, from inside the program.
//!
//! The page may load nothing from anywhere else, and nobody may frame it: its policy says so to the
//! browser. Paths are relative, so that it works behind a proxy that serves the node under a
//! prefix.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_swagger_ui::Config;

use crate::http::problem::{PathOf, Problem};

/// Styles and small images are written into the page by its own script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action \
                      'none'; frame-ancestors 'none'";

/// `GET /docs`: the page's files are named relative to `/docs/`.
pub async fn redirect() -> (StatusCode, [(HeaderName, &'static str); 1]) {
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "docs/")])
}

/// `GET /docs/`.
pub async fn page() -> Result<Response, Problem> {
    serve("index.html")
}

/// `GET /docs/{file}`: a script, a style, an icon.
pub async fn file(PathOf(name): PathOf<String>) -> Result<Response, Problem> {
    serve(&name)
}

fn serve(name: &str) -> Result<Response, Problem> {
    // "none" keeps it from asking a public service whether the document is valid.
    let config = Config::from("../openapi.json").validator_url("none").use_base_layout();
    let found = utoipa_swagger_ui::serve(name, Arc::new(config)).ok().flatten();
    let Some(found) = found else {
        return Err(Problem::not_found(format!("{name:?} among the files of the documentation")));
    };
    let kind = HeaderValue::from_str(&found.content_type);
    let mut response = found.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(kind) = kind {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if found.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
