//! What a document would change, for people: what `policy diff` and `policy apply --dry-run` print.
//!
//! ```text
//! tiers:
//! ~ tiers.pro.limits.burst.algorithm: "token_bucket" → "leaky_bucket"  (its buckets start afresh)
//! ~ tiers.pro.limits.minute.limit: 100 → 200  (spent stays spent)
//! + tiers.trial: { limits = [], max_concurrent = 5 }
//!
//! tenants:
//! - tenants.acme: { tier = "pro" }
//!
//! 1 added, 2 changed, 1 removed
//! ```
//!
//! The node compares (`PUT /v1/policy?dry_run=true`) and answers with paths and values; with `-o
//! json` that is printed as it came, complete. Here its changes are only put in order and into
//! words. What becomes of the counts is told by the member that changed: a bucket is known by its
//! limit's name, algorithm and `per`, so only a change of these begins a new one.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::output::{Colour, Output, plain};

/// Changes that are printed one by one; past it they are only counted. More is nothing to read, and
/// `-o json` has them all.
const CHANGES_SHOWN_MAX: usize = 200;
/// A value's length in characters; a longer one is cut. Two of these and a path still fit a wide
/// terminal's line or two.
const VALUE_CHARS_MAX: usize = 160;

/// The document's sections, in the order of interest, and their heads. What is in none of them is a
/// setting.
const SECTIONS: [(&str, &str); 8] = [
    ("limits", "limits for everybody"),
    ("tiers", "tiers"),
    ("tier_patterns", "tiers by pattern (the first that fits counts)"),
    ("tenants", "tenants"),
    ("costs", "costs"),
    ("access", "allow and deny lists"),
    ("environments", "environments"),
    ("responses", "responses"),
];
const SETTINGS: &str = "settings";

/// A limit's members that move its ceiling or its pace, and leave the count where it is.
const NUMBERS: [&str; 8] =
    ["limit", "rate", "burst", "window", "period", "anchor_day", "time_zone", "on_exceeded"];

/// What a dry run answers.
#[derive(Deserialize)]
pub struct DryRun {
    version: Option<u64>,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    path: String,
    op: Op,
    from: Option<Value>,
    to: Option<Value>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Op {
    Add,
    Change,
    Remove,
}

impl DryRun {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What it was compared with, for messages.
    pub fn base(&self) -> String {
        self.version.map_or_else(
            || "the policy in force".into(),
            |version| format!("policy version {version}"),
        )
    }

    /// Prints the changes by section, and how many there are.
    pub fn print(&self, out: &mut Output<'_>) -> Result<(), Failure> {
        if self.is_empty() {
            return out.line("no differences");
        }
        let afresh = self.limits_with_new_buckets();
        let (mut sections, mut shown) = (vec![SETTINGS], 0);
        sections.extend(SECTIONS.map(|(_, head)| head));
        for head in sections {
            let changes = self.changes.iter().filter(|change| change.head() == head);
            for (at, change) in changes.take(CHANGES_SHOWN_MAX - shown).enumerate() {
                if at == 0 {
                    let gap = if shown == 0 { "" } else { "\n" };
                    out.line(&format!("{gap}{head}:"))?;
                }
                let (sign, colour) = change.op.sign();
                let note =
                    change.note(&afresh).map(|note| format!("  ({note})")).unwrap_or_default();
                let line =
                    format!("{sign} {}: {}{note}", shown_path(&change.path), change.values());
                out.line(&out.painted(colour, &plain(&line)))?;
                shown += 1;
            }
        }
        if shown < self.changes.len() {
            let more = self.changes.len() - shown;
            out.line(&format!("\n… and {more} more; -o json has them all"))?;
        }
        out.line(&format!("\n{}", self.summary()))
    }

    /// `2 added, 1 changed, 1 removed`, without what there is none of.
    fn summary(&self) -> String {
        let parts = [(Op::Add, "added"), (Op::Change, "changed"), (Op::Remove, "removed")];
        let counted = parts.into_iter().filter_map(|(op, word)| {
            let count = self.changes.iter().filter(|change| change.op == op).count();
            (count > 0).then(|| format!("{count} {word}"))
        });
        counted.collect::<Vec<_>>().join(", ")
    }

    /// The limits, by their paths, whose buckets will be others than before.
    fn limits_with_new_buckets(&self) -> BTreeSet<&str> {
        let changes = self.changes.iter().filter(|change| change.makes_new_buckets());
        changes.filter_map(|change| Some(change.limit_member()?.0)).collect()
    }
}

impl Op {
    fn sign(self) -> (char, Colour) {
        match self {
            Self::Add => ('+', Colour::Green),
            Self::Change => ('~', Colour::Yellow),
            Self::Remove => ('-', Colour::Red),
        }
    }
}

impl Change {
    fn head(&self) -> &'static str {
        let section = self.path.split(['.', '[']).next().unwrap_or_default();
        SECTIONS.iter().find(|(name, _)| *name == section).map_or(SETTINGS, |(_, head)| head)
    }

    /// The limit that it is about, by its path, and the limit's member; none if it is about no
    /// limit or a whole one.
    fn limit_member(&self) -> Option<(&str, &str)> {
        // A match may hold any text. It ends at the last bracket, since no member's name has one.
        let (list, _) = self.path.split_once('[')?;
        let (limit, member) = self.path.rsplit_once("].")?;
        let is_limit = list == "limits" || list.ends_with(".limits");
        is_limit.then_some((limit, member))
    }

    fn makes_new_buckets(&self) -> bool {
        match self.limit_member() {
            Some((_, "algorithm")) => true,
            // The order of what a bucket is keyed by makes no difference.
            Some((_, "per")) => dimensions(self.from.as_ref()) != dimensions(self.to.as_ref()),
            _ => false,
        }
    }

    /// What becomes of what is counted, or of everything.
    fn note(&self, afresh: &BTreeSet<&str>) -> Option<&'static str> {
        if self.path == "enforce" {
            // Left out it is true.
            let silent = self.to == Some(Value::Bool(false));
            return Some(if silent {
                "the kill switch: no limit denies"
            } else {
                "limits deny again"
            });
        }
        if self.makes_new_buckets() {
            return Some("its buckets start afresh");
        }
        match self.limit_member() {
            Some((limit, member)) => {
                let stays = NUMBERS.contains(&member) && !afresh.contains(limit);
                stays.then_some("spent stays spent")
            }
            None => {
                let is_number =
                    self.from.as_ref().or(self.to.as_ref()).is_some_and(Value::is_number);
                let stays = is_number && self.path.ends_with(".max_concurrent");
                stays.then_some("permits that are out stay out")
            }
        }
    }

    fn values(&self) -> String {
        let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "?".into(), shown_value);
        match self.op {
            Op::Add => shown(&self.to),
            Op::Remove => shown(&self.from),
            Op::Change => format!("{} → {}", shown(&self.from), shown(&self.to)),
        }
    }
}

fn dimensions(per: Option<&Value>) -> BTreeSet<&str> {
    per.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A path as people say it: `limits[minute].limit` is `limits.minute.limit`, and a match stands in
/// braces behind the name, `limits.minute{action="export"}.limit`. What is no limit keeps its
/// brackets.
fn shown_path(path: &str) -> String {
    let parts = path.split_once('[').and_then(|(list, rest)| Some((list, rest.rsplit_once(']')?)));
    match parts {
        Some((list, (label, member))) if list == "limits" || list.ends_with(".limits") => {
            let (name, when) = label.split_once(' ').unwrap_or((label, ""));
            let when = serde_json::from_str::<Map<String, Value>>(when).unwrap_or_default();
            let when: Vec<_> =
                when.iter().map(|(member, value)| format!("{member}={value}")).collect();
            let when =
                if when.is_empty() { String::new() } else { format!("{{{}}}", when.join(",")) };
            format!("{list}.{name}{when}{member}")
        }
        _ => path.to_string(),
    }
}

/// A value on one line, as TOML has it, up to its longest length.
fn shown_value(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, &mut text);
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn write_value(value: &Value, text: &mut String) {
    if text.len() > VALUE_CHARS_MAX * 4 {
        return; // No character has more bytes, so this is cut off anyway.
    }
    match value {
        Value::Object(members) if members.is_empty() => text.push_str("{}"),
        Value::Object(members) => {
            // A name says what the rest is about.
            let (first, rest): (Vec<_>, Vec<_>) =
                members.iter().partition(|(member, _)| *member == "name");
            for (at, (member, value)) in first.into_iter().chain(rest).enumerate() {
                text.push_str(if at == 0 { "{ " } else { ", " });
                text.push_str(member);
                text.push_str(" = ");
                write_value(value, text);
            }
            text.push_str(" }");
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "[" } else { ", " });
                write_value(item, text);
            }
            text.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        word_or_number => text.push_str(&word_or_number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::output::Format;
    use super::*;

    fn printed(changes: Value) -> String {
        let dry_run: DryRun =
            serde_json::from_value(json!({"version": 1, "changes": changes})).unwrap();
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        let mut out = Output::new(Format::Table, false, &mut data, &mut notes);
        dry_run.print(&mut out).unwrap();
        assert_eq!(notes, b"");
        String::from_utf8(data).unwrap()
    }

    fn change(path: &str, from: Value, to: Value) -> Value {
        json!({"path": path, "op": "change", "from": from, "to": to})
    }

    #[test]
    fn changes_are_grouped_by_section_and_counted() {
        let text = printed(json!([
            {"path": "access.spam", "op": "add", "to": {"list": "deny", "ip": "192.0.2.1", "reason": "spam"}},
            change("costs[POST /a].cost", json!(1), json!(2)),
            change("default_tier", json!("free"), json!("pro")),
            {"path": "limits[per-ip]", "op": "add",
             "to": {"algorithm": "fixed_window", "limit": 5, "name": "per-ip", "per": ["ip"], "window": "1m"}},
            {"path": "tenants.acme", "op": "remove", "from": {}},
            change("tiers.pro.limits[m].enforce", json!(true), json!(false)),
        ]));
        assert_eq!(
            text,
            "settings:\n~ default_tier: \"free\" → \"pro\"\n\nlimits for everybody:\n+ \
             limits.per-ip: { name = \"per-ip\", algorithm = \"fixed_window\", limit = 5, per = \
             [\"ip\"], window = \"1m\" }\n\ntiers:\n~ tiers.pro.limits.m.enforce: true → \
             false\n\ntenants:\n- tenants.acme: {}\n\ncosts:\n~ costs[POST /a].cost: 1 → \
             2\n\nallow and deny lists:\n+ access.spam: { ip = \"192.0.2.1\", list = \"deny\", \
             reason = \"spam\" }\n\n2 added, 3 changed, 1 removed\n"
        );
        assert_eq!(printed(json!([])), "no differences\n");
    }

    #[test]
    fn the_kill_switch_says_what_it_does() {
        for (change, line) in [
            (
                json!({"path": "enforce", "op": "add", "to": false}),
                "+ enforce: false  (the kill switch: no limit denies)",
            ),
            (
                json!({"path": "enforce", "op": "remove", "from": false}),
                "- enforce: false  (limits deny again)",
            ),
        ] {
            assert_eq!(printed(json!([change])).lines().nth(1), Some(line));
        }
    }

    #[test]
    fn a_changed_number_of_a_limit_says_that_spent_stays_spent() {
        for (member, from, to) in
            [("limit", json!(100), json!(200)), ("rate", json!("5/s"), json!("6/s"))]
        {
            let text =
                printed(json!([change(&format!("tiers.pro.limits[minute].{member}"), from, to)]));
            assert!(text.contains(&format!("~ tiers.pro.limits.minute.{member}: ")), "{text}");
            assert!(text.contains("  (spent stays spent)\n"), "{text}");
        }
        let text = printed(json!([change("tiers.pro.max_concurrent", json!(5), json!(6))]));
        assert!(text.contains("5 → 6  (permits that are out stay out)\n"), "{text}");
    }

    #[test]
    fn a_changed_algorithm_or_key_says_that_the_buckets_start_afresh() {
        let text = printed(json!([
            change("limits[a].algorithm", json!("fixed_window"), json!("sliding_window")),
            change("limits[a].limit", json!(1), json!(2)),
            change("limits[b].limit", json!(1), json!(2)),
            change("limits[c].per", json!(["ip"]), json!(["ip", "action"])),
            change("limits[d].per", json!(["ip", "action"]), json!(["action", "ip"])),
        ]));
        let notes: Vec<_> =
            text.lines().map(|line| line.split_once("  (").map(|(_, note)| note)).collect();
        let (afresh, stays) = (Some("its buckets start afresh)"), Some("spent stays spent)"));
        // The limit `a` begins anew, so nothing that it has spent could stay.
        assert_eq!(notes[1..6], [afresh, None, stays, afresh, None], "{text}");
    }

    #[test]
    fn a_limit_with_a_match_shows_it_behind_its_name() {
        for (path, shown) in [
            (
                r#"tenants.a.limits[rate {"action":"x].y","client":"u"}].limit"#,
                r#"tenants.a.limits.rate{action="x].y",client="u"}.limit"#,
            ),
            ("tiers.eu.1.limits[a.b]", "tiers.eu.1.limits.a.b"),
            ("tier_patterns[ent-*].tier", "tier_patterns[ent-*].tier"),
            ("costs[* /limits/{a}].cost", "costs[* /limits/{a}].cost"),
            ("tenants.limits", "tenants.limits"),
        ] {
            assert_eq!(shown_path(path), shown);
        }
    }

    #[test]
    fn long_values_are_cut_and_many_changes_counted() {
        let many: Vec<_> = (0..250)
            .map(|n| json!({"path": format!("tenants.t{n:03}"), "op": "add", "to": {}}))
            .collect();
        let text = printed(json!(many));
        assert_eq!(text.lines().filter(|line| line.starts_with("+ ")).count(), CHANGES_SHOWN_MAX);
        assert!(
            text.ends_with(
                "tenants.t199: {}\n\n… and 50 more; -o json has them all\n\n250 added\n"
            ),
            "{text}"
        );

        let long = json!({"limits": vec![json!({"name": "größer"}); 10_000]});
        let text = printed(json!([{"path": "tiers.a", "op": "add", "to": long}]));
        let line = text.lines().nth(1).unwrap();
        assert!(line.ends_with('…') && line.chars().count() < VALUE_CHARS_MAX + 20, "{line}");
    }

    #[test]
    fn nothing_in_a_value_can_fake_a_line_or_a_colour() {
        let text =
            printed(json!([change("access.a\n.reason", json!("x\n+ y"), json!("\u{1b}[32m"))]));
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
