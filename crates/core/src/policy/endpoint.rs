//! Endpoints (P6): what a call costs by method and path, and how a path with ids in it is folded
//! into one endpoint.

use std::collections::BTreeMap;

use super::document::EndpointCost;
use crate::check::{Cost, Method, Path};

/// A longer part of a path than this, with a digit in it, is taken for an id.
const ID_LENGTH: usize = 10;

/// Looks up what an endpoint costs. An entry for the method comes before one for any; within those,
/// literal parts come before `{name}` or `{*rest}`. Two patterns of one method that differ only in
/// which of these they have are refused.
#[derive(Clone, Default)]
pub struct CostTable {
    by_method: BTreeMap<String, matchit::Router<Cost>>,
    any: matchit::Router<Cost>,
}

impl CostTable {
    /// The table of all `entries`, which were valid together when the document was read.
    pub fn new(entries: &[EndpointCost]) -> Self {
        let mut table = Self::default();
        for entry in entries {
            let inserted = table.insert(entry);
            debug_assert!(inserted.is_ok());
        }
        table
    }

    /// Adds an entry; says why where its pattern is malformed or can't be told apart from another
    /// one.
    pub fn insert(&mut self, entry: &EndpointCost) -> Result<(), String> {
        let router = match &entry.method {
            Some(method) => self.by_method.entry(method.as_str().to_ascii_uppercase()).or_default(),
            None => &mut self.any,
        };
        router.insert(entry.path.clone(), entry.cost).map_err(|e| format!("{:?}: {e}", entry.path))
    }

    /// The cost of a call, if an entry is for it.
    pub fn cost(&self, method: Option<&Method>, path: &Path) -> Option<Cost> {
        let specific = method.and_then(|method| match self.by_method.get(method.as_str()) {
            None => self.by_method.get(&method.as_str().to_ascii_uppercase()),
            found => found,
        });
        let path = path.as_str();
        let found =
            specific.and_then(|router| router.at(path).ok()).or_else(|| self.any.at(path).ok());
        found.map(|found| *found.value)
    }
}

/// The endpoint of a call: the method and the path with its ids folded, `GET /users/{id}`.
pub fn endpoint_of(method: Option<&Method>, path: &Path) -> String {
    let mut endpoint = String::with_capacity(path.as_str().len() + 8);
    if let Some(method) = method {
        endpoint.push_str(&method.as_str().to_ascii_uppercase());
        endpoint.push(' ');
    }
    for (i, part) in path.as_str().split('/').enumerate() {
        if i > 0 {
            endpoint.push('/');
        }
        endpoint.push_str(if is_id(part) { "{id}" } else { part });
    }
    endpoint
}

/// A UUID, all digits, or over ten alphanumerics with a digit among them (so `/organizations`
/// stays).
fn is_id(part: &str) -> bool {
    if part.is_empty() {
        return false;
    }
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let alphanumeric = part.bytes().all(|b| b.is_ascii_alphanumeric());
    digits == part.len() || (alphanumeric && part.len() > ID_LENGTH && digits > 0) || is_uuid(part)
}

fn is_uuid(part: &str) -> bool {
    part.len() == 36
        && part.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_path_are_folded_and_words_stay() {
        let get = Method::new("get").unwrap();
        for (path, endpoint) in [
            ("/users/123", "GET /users/{id}"),
            ("/users/550e8400-e29b-41d4-a716-446655440000/x", "GET /users/{id}/x"),
            ("/files/abc123def456", "GET /files/{id}"),
            ("/organizations", "GET /organizations"),
            ("/v1/abc12", "GET /v1/abc12"),
            ("/", "GET /"),
            ("//", "GET //"),
        ] {
            assert_eq!(endpoint_of(Some(&get), &Path::new(path).unwrap()), endpoint);
        }
    }

    #[test]
    fn the_most_specific_cost_counts() {
        let entry = |method: Option<&str>, path: &str, cost| EndpointCost {
            method: method.map(|m| Method::new(m).unwrap()),
            path: path.into(),
            cost: Cost::new(cost).unwrap(),
        };
        let table = CostTable::new(&[
            entry(Some("POST"), "/ocr/process", 10),
            entry(Some("POST"), "/ocr/{kind}", 5),
            entry(None, "/ocr/{*rest}", 2),
        ]);
        let cost = |method: &str, path: &str| {
            table
                .cost(Some(&Method::new(method).unwrap()), &Path::new(path).unwrap())
                .map(Cost::get)
        };
        assert_eq!(cost("post", "/ocr/process"), Some(10));
        assert_eq!(cost("POST", "/ocr/other"), Some(5));
        assert_eq!(cost("GET", "/ocr/process"), Some(2));
        assert_eq!(cost("POST", "/ocr/a/b"), Some(2));
        assert_eq!(cost("GET", "/elsewhere"), None);
    }
}
