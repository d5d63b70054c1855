//! Lists that a node gives out page by page, put together.
//!
//! Nothing is handed on before all of it is there, so that half a list is never taken for the
//! whole.

use serde_json::{Map, Value};

use super::client::{Client, Request, encode};
use super::failure::Failure;
use super::output::Output;

/// Items asked for in one page.
const PAGE_ITEMS_MAX: u64 = 1_000;

/// A list, or its beginning.
pub struct Pages {
    /// What is listed.
    pub items: Vec<Value>,
    /// Where more of it begins; none where this is all.
    pub next: Option<String>,
}

impl Pages {
    /// All items of the list at `path` (with its query, if it has one), or the first `limit` of
    /// them. An answer has them in the member `items`.
    pub fn read(
        client: &Client,
        path: &str,
        items: &str,
        limit: Option<u64>,
    ) -> Result<Self, Failure> {
        let mut pages = Self { items: Vec::new(), next: None };
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let wanted =
                limit.map_or(u64::MAX, |limit| limit.saturating_sub(pages.items.len() as u64));
            let mut page = format!("{path}{separator}limit={}", wanted.min(PAGE_ITEMS_MAX));
            if let Some(after) = &pages.next {
                page.push_str(&format!("&after={}", encode(after)));
            }
            let mut page: Map<String, Value> = client.send(Request::get(page))?.read()?;
            let Some(Value::Array(found)) = page.remove(items) else {
                let why = format!("the node's answer is not what was expected: it has no {items}");
                return Err(Failure::Failed(why));
            };
            let next = page.get("next").and_then(Value::as_str).map(str::to_string);
            if next.is_some() && next == pages.next {
                // It would go on for ever.
                return Err(Failure::Failed(format!(
                    "the node's list of {items} makes no progress"
                )));
            }
            let complete = found.len() as u64 >= wanted;
            pages.items.extend(found);
            pages.next = next;
            if complete || pages.next.is_none() {
                return Ok(pages);
            }
        }
    }

    /// Says on standard error that there may be more, where that is so.
    pub fn note(&self, out: &mut Output<'_>) {
        if self.next.is_some() {
            out.note(&format!("the first {}; more may follow", self.items.len()));
        }
    }
}
