//! The query string: a few known parameters.

use axum::http::Uri;

use super::problem::Problem;
use crate::input::{Fault, Reader};

/// The parameters of a call.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of `uri`, decoded.
    pub fn of(uri: &Uri) -> Result<Self, Problem> {
        match axum::extract::Query::try_from_uri(uri) {
            Ok(axum::extract::Query(pairs)) => Ok(Self(pairs)),
            Err(_) => {
                Err(Problem::bad_input(vec![Fault::new("", "the query string is malformed")]))
            }
        }
    }

    /// The names in it, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether `name` is there as `true`, or bare. What is neither yes nor no is a fault: whoever
    /// means "only look" must not change anything by a slip.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            Some("true" | "1" | "") => Ok(true),
            None | Some("false" | "0") => Ok(false),
            Some(other) => Err(Problem::bad_input(vec![Fault::new(
                name,
                format!("{other:?} is not one of true, false"),
            )])),
        }
    }

    /// The whole number `name`.
    pub fn whole(
        &self,
        r: &mut Reader,
        name: &str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let text = self.get(name)?;
        let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let detail = format!(
                "{text:?} is not a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            );
            r.fault_at(name, detail);
        }
        number
    }
}

/// Whether a denial is to be a 429: `?status=429`. Anything else in that place is a mistake.
pub fn wants_429(uri: &Uri) -> Result<bool, Problem> {
    if uri.query().is_none_or(str::is_empty) {
        return Ok(false);
    }
    match Query::of(uri)?.get("status") {
        None | Some("200") => Ok(false),
        Some("429") => Ok(true),
        Some(other) => Err(Problem::bad_input(vec![Fault::new(
            "status",
            format!("{other:?} is not one of 200, 429"),
        )])),
    }
}
