//! What differs between two documents, part by part: what an operator reads before a change is
//! made.
//!
//! Lists are compared by what their items are called (limits by name and match, costs by endpoint,
//! patterns by themselves), so a limit put in the middle is one addition. A section that isn't
//! there is an empty one: the first tenant of a policy is `tenants.acme`, and not all of `tenants`.
//!
//! ```text
//! tiers.pro.limits[minute].limit               change  100  200
//! tiers.pro.limits[rate {"action":"export"}]   add          {"name":"rate",…}
//! costs[POST /ocr/process].cost                change  10   12
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

/// What became of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffOp {
    /// It is new.
    Add,
    /// It has another value.
    Change,
    /// It is gone.
    Remove,
}

/// One part that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Which: `tiers.pro.limits[minute].window`.
    pub path: String,
    /// What became of it.
    pub op: DiffOp,
    /// Its old value; absent where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Its new value; absent where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// All differences from `old` to `new`, in the order of their paths.
pub fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&mut String::new(), Some(old), Some(new), false, &mut found);
    found
}

/// `optional`: it may be left out, which says the same as an empty one.
fn compare(
    path: &mut String,
    old: Option<&Value>,
    new: Option<&Value>,
    optional: bool,
    found: &mut Vec<Difference>,
) {
    if old == new {
        return;
    }
    let absent = || optional.then(BTreeMap::new);
    let (parts_old, parts_new) = (old.map_or_else(absent, parts), new.map_or_else(absent, parts));
    if let (Some(parts_old), Some(parts_new)) = (parts_old, parts_new)
        && !reordered(old, new)
    {
        let is_document = path.is_empty();
        let keys: BTreeSet<_> = parts_old.keys().chain(parts_new.keys()).collect();
        for key in keys {
            let length = path.len();
            if !key.starts_with('[') && length > 0 {
                path.push('.');
            }
            path.push_str(key);
            let (part_old, part_new) = (parts_old.get(key).copied(), parts_new.get(key).copied());
            // A tier may be called `limits`, and isn't a list.
            let is_limits = key == "limits" && part_old.or(part_new).is_some_and(Value::is_array);
            compare(path, part_old, part_new, is_document || is_limits, found);
            path.truncate(length);
        }
        return;
    }
    let op = match (old, new) {
        (None, _) => DiffOp::Add,
        (_, None) => DiffOp::Remove,
        _ => DiffOp::Change,
    };
    found.push(Difference { path: path.clone(), op, from: old.cloned(), to: new.cloned() });
}

/// The parts of a value that are compared one by one: an object's members, or a list's items by
/// what they are called.
fn parts(value: &Value) -> Option<BTreeMap<String, &Value>> {
    match value {
        Value::Object(members) => {
            Some(members.iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => {
            let named: Option<BTreeMap<_, _>> =
                items.iter().map(|item| Some((format!("[{}]", label(item)?), item))).collect();
            named.filter(|named| named.len() == items.len())
        }
        _ => None,
    }
}

/// What tells an item from its neighbours: a limit's name, and its match if it has one; a cost's
/// endpoint; a pattern.
fn label(item: &Value) -> Option<String> {
    let text = |member: &str| item.get(member).and_then(Value::as_str);
    if let Some(pattern) = text("pattern") {
        return Some(pattern.to_string());
    }
    let (what, detail) = match (text("name"), text("path")) {
        (Some(name), _) => (name, item.get("match").map(Value::to_string)),
        (None, Some(path)) => (text("method").unwrap_or("*"), Some(path.to_string())),
        (None, None) => return None,
    };
    Some(detail.map_or_else(|| what.to_string(), |detail| format!("{what} {detail}")))
}

/// Whether patterns changed places among each other: the first that fits counts, so that is a
/// change of the whole list.
fn reordered(old: Option<&Value>, new: Option<&Value>) -> bool {
    let patterns = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| Some(item.get("pattern")?.as_str()?.to_string())).collect()
    };
    let (old, new) = (patterns(old), patterns(new));
    let (in_old, in_new): (BTreeSet<_>, BTreeSet<_>) = (old.iter().collect(), new.iter().collect());
    old.iter().filter(|p| in_new.contains(p)).ne(new.iter().filter(|p| in_old.contains(p)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_names_the_smallest_part_that_differs() {
        let old = json!({"tiers": {"a": {"limits": [{"name": "m", "limit": 1}, {"name": "h", "limit": 2}]}}});
        let new = json!({"tiers": {"a": {"limits": [{"name": "d", "limit": 9}, {"name": "m", "limit": 5}, {"name": "h", "limit": 2}]}, "b": {}}});
        let found: Vec<_> = differences(&old, &new).into_iter().map(|d| (d.path, d.op)).collect();
        assert_eq!(
            found,
            [
                ("tiers.a.limits[d]".to_string(), DiffOp::Add),
                ("tiers.a.limits[m].limit".to_string(), DiffOp::Change),
                ("tiers.b".to_string(), DiffOp::Add),
            ]
        );
        assert_eq!(differences(&old, &old), []);
    }
    fn lines(old: Value, new: Value) -> Vec<String> {
        let line = |d: Difference| {
            let word = serde_json::to_value(d.op).unwrap();
            format!("{} {}", word.as_str().unwrap(), d.path)
        };
        differences(&old, &new).into_iter().map(line).collect()
    }

    #[test]
    fn a_section_that_is_not_there_is_an_empty_one() {
        let full = json!({"default_tier": "a", "enforce": false, "responses": {"headers": ["x"]},
            "tiers": {"limits": {"limits": []}, "a": {"limits": [{"name": "m"}]}},
            "tenants": {"acme": {"limits": [{"name": "m"}]}, "b": {}}, "costs": [{"path": "/a", "cost": 2}]});
        let mut bare = json!({"default_tier": "a", "tiers": {"a": {"limits": [{"name": "m"}]}}});
        assert_eq!(
            lines(bare.clone(), full.clone()),
            [
                "add costs[* /a]",
                "add enforce",
                "add responses.headers",
                "add tenants.acme",
                "add tenants.b",
                "add tiers.limits"
            ]
        );
        bare["tenants"] = json!({"acme": {}, "b": {"limits": []}});
        assert_eq!(
            lines(full, bare),
            [
                "remove costs[* /a]",
                "remove enforce",
                "remove responses.headers",
                "remove tenants.acme.limits[m]",
                "remove tiers.limits"
            ]
        );
    }

    #[test]
    fn a_limit_is_told_by_its_name_and_match_and_a_cost_by_its_endpoint() {
        let old = json!({"limits": [{"name": "m", "limit": 1}, {"name": "m", "match": {"action": "x"}, "limit": 1}],
            "costs": [{"method": "GET", "path": "/a", "cost": 1}, {"path": "/a", "cost": 1}]});
        let new = json!({"limits": [{"name": "m", "limit": 1}, {"name": "m", "match": {"action": "x"}, "limit": 2}],
            "costs": [{"path": "/a", "cost": 2}, {"method": "GET", "path": "/b", "cost": 1}]});
        assert_eq!(
            lines(old, new),
            [
                "change costs[* /a].cost",
                "remove costs[GET /a]",
                "add costs[GET /b]",
                "change limits[m {\"action\":\"x\"}].limit"
            ]
        );
    }

    #[test]
    fn patterns_that_changed_places_are_a_change_of_the_list() {
        let list = |patterns: &[&str]| {
            let items: Vec<_> =
                patterns.iter().map(|p| json!({"pattern": p, "tier": "t"})).collect();
            json!({"tier_patterns": items})
        };
        assert_eq!(lines(list(&["a*", "b*"]), list(&["b*", "a*"])), ["change tier_patterns"]);
        assert_eq!(
            lines(list(&["a*", "b*"]), list(&["a*", "c*", "b*"])),
            ["add tier_patterns[c*]"]
        );
        assert_eq!(lines(list(&["a*"]), json!({})), ["remove tier_patterns[a*]"]);
    }
}
