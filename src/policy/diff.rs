//! What differs between two documents, part by part: what an operator reads before a change is made.
//!
//! Lists whose items have names (limits) are compared by name, so a limit put in the middle is one addition.

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
    compare(&mut String::new(), Some(old), Some(new), &mut found);
    found
}

fn compare(path: &mut String, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let (parts_old, parts_new) = (old.and_then(parts), new.and_then(parts));
    if let (Some(parts_old), Some(parts_new)) = (parts_old, parts_new) {
        let keys: std::collections::BTreeSet<_> = parts_old.keys().chain(parts_new.keys()).collect();
        for key in keys {
            let length = path.len();
            if !key.starts_with('[') && length > 0 {
                path.push('.');
            }
            path.push_str(key);
            compare(path, parts_old.get(key).copied(), parts_new.get(key).copied(), found);
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

/// The parts of a value that are compared one by one: an object's members, or a list's items by their names.
fn parts(value: &Value) -> Option<std::collections::BTreeMap<String, &Value>> {
    match value {
        Value::Object(members) => Some(members.iter().map(|(key, value)| (key.clone(), value)).collect()),
        Value::Array(items) => {
            let named: Option<std::collections::BTreeMap<_, _>> =
                items.iter().map(|item| Some((format!("[{}]", label(item)?), item))).collect();
            named.filter(|named| named.len() == items.len())
        }
        _ => None,
    }
}

/// What tells a limit from its neighbours: its name, and its match if it has one.
fn label(item: &Value) -> Option<String> {
    let name = item.get("name")?.as_str()?;
    Some(match item.get("match") {
        Some(when) => format!("{name} {when}"),
        None => name.to_string(),
    })
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
}
