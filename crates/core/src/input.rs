//! What comes from outside, read so that every fault is found at once and named by its path.
//!
//! A check's body, the policy document and `cluster.toml` are all parsed into a [`Tree`] first and
//! then walked with a [`Reader`], which knows where it is and collects faults instead of stopping
//! at the first:
//!
//! ```text
//! tiers.pro.limits[1].window: "5 mins" is not a duration: a whole number and ms, s, m, h, d or w
//! tiers.pro.limitz: unknown member; did you mean limits?
//! ```
//!
//! JSON with a member named twice is refused, as is a number that is not what it seems (`1e3` where
//! a whole number belongs).

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Faults reported of one document; whoever has more learns of the rest after mending these.
pub const FAULTS_MAX: usize = 100;

/// One thing wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where: `limits[0].window`; empty for the whole.
    pub path: String,
    /// What is wrong, with the value that is.
    pub detail: String,
}

impl Fault {
    /// A fault at `path`.
    pub fn new(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), detail: detail.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.detail)
        } else {
            write!(f, "{}: {}", self.path, self.detail)
        }
    }
}

/// A parsed document without a meaning yet. Maps keep their order and their duplicates.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// JSON's null: the same as leaving the member out.
    Null,
    /// True or false.
    Bool(bool),
    /// A number written without fraction or exponent that fits 128 bits.
    Whole(i128),
    /// Any other number.
    Fraction(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Tree>),
    /// An object or table.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Parses JSON. What can't be parsed is one fault, at the path where parsing stopped.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Fault> {
        let mut parser = serde_json::Deserializer::from_slice(bytes);
        let tree: Self = serde_path_to_error::deserialize(&mut parser).map_err(|e| {
            // A question mark stands for a member whose name hadn't come yet.
            let path = e.path().to_string();
            let path = path.trim_end_matches('?').trim_end_matches('.');
            Fault::new(path, format!("not JSON: {}", e.inner()))
        })?;
        parser.end().map_err(|e| Fault::new("", format!("not JSON: {e}")))?;
        Ok(tree)
    }

    /// Parses TOML.
    pub fn from_toml(bytes: &[u8]) -> Result<Self, Fault> {
        let text =
            std::str::from_utf8(bytes).map_err(|e| Fault::new("", format!("not UTF-8: {e}")))?;
        let mut tree: Self = toml::from_str(text).map_err(|e: toml::de::Error| {
            // The message alone: the line that the error could show may hold a secret.
            let before = &text[..e.span().map_or(0, |span| span.start.min(text.len()))];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            Fault::new("", format!("not TOML: {} at line {line} column {column}", e.message()))
        })?;
        undate(&mut tree);
        Ok(tree)
    }
}

/// The member by which the `toml` crate hands on a date: an object of nothing else.
const TOML_DATE: &str = "$__toml_private_datetime";

/// Turns dates that a TOML document has bare into the text that they are in JSON.
fn undate(tree: &mut Tree) {
    match tree {
        Tree::Map(entries) => match entries.as_mut_slice() {
            [(name, Tree::Text(date))] if name == TOML_DATE => {
                *tree = Tree::Text(std::mem::take(date))
            }
            entries => entries.iter_mut().for_each(|(_, tree)| undate(tree)),
        },
        Tree::List(items) => items.iter_mut().for_each(undate),
        _ => {}
    }
}

/// Prints a value for an error message: short, and without line breaks.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Fraction(number) => write!(f, "{number:?}"),
            Self::Text(text) if text.chars().count() > 40 => {
                write!(f, "{:?}…", text.chars().take(40).collect::<String>())
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TreeVisitor;
        impl<'de> Visitor<'de> for TreeVisitor {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_bool<E>(self, yes: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(yes))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
                Ok(Tree::Whole(number.into()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
                Ok(Tree::Whole(number.into()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
                Ok(Tree::Fraction(number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.into()))
            }
            fn visit_string<E>(self, text: String) -> Result<Tree, E> {
                Ok(Tree::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Tree::Map(entries))
            }
        }
        deserializer.deserialize_any(TreeVisitor)
    }
}

/// Members of an object up to which each is compared with those before it.
const FIELDS_SEARCHED_MAX: usize = 16;

/// Walks a [`Tree`], knows where it is, and remembers what is wrong.
#[derive(Default)]
pub struct Reader {
    path: String,
    faults: Vec<Fault>,
}

impl Reader {
    /// A reader whose paths all begin with `path`.
    pub fn within(path: impl Into<String>) -> Self {
        Self { path: path.into(), faults: Vec::new() }
    }

    /// Notes that what is being read is wrong.
    pub fn fault(&mut self, detail: impl Into<String>) {
        self.faults.push(Fault::new(self.path.clone(), detail));
        // Whoever sends a million faults hears of the first hundred.
        self.faults.truncate(FAULTS_MAX);
    }

    /// Notes a fault of the member `name` of what is being read.
    pub fn fault_at(&mut self, name: &str, detail: impl Into<String>) {
        self.member(name, |r| r.fault(detail));
    }

    /// Notes that `name`, a `kind` of word ("member"), is none of those that are known here;
    /// suggests the nearest of them.
    pub fn unknown(&mut self, name: &str, kind: &str, known: &[&str]) {
        let detail = match nearest(name, known.iter().copied()) {
            Some(nearest) => format!("unknown {kind}; did you mean {nearest}?"),
            None if known.is_empty() => format!("unknown {kind}; none is read here"),
            None => format!("unknown {kind}; known are {}", known.join(", ")),
        };
        self.fault_at(name, detail);
    }

    /// Whether nothing was wrong so far.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The value, if nothing was wrong; otherwise all faults.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Fault>> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(self.faults),
        }
    }

    /// Reads within the member `name`.
    pub fn member<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        if !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        {
            self.path.push_str(name);
        } else {
            self.path.push_str(&format!("{name:?}"));
        }
        let value = read(self);
        self.path.truncate(length);
        value
    }

    /// Reads within item `index`.
    pub fn item<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let value = read(self);
        self.path.truncate(length);
        value
    }

    /// The members of an object.
    pub fn fields<'t>(&mut self, tree: &'t Tree) -> Option<Fields<'t>> {
        let Tree::Map(entries) = tree else {
            self.fault(format!("{tree} is not an object"));
            return None;
        };
        // Most objects are small: looking through them is quicker than keeping a set.
        let mut seen = std::collections::BTreeSet::new();
        for (i, (name, _)) in entries.iter().enumerate() {
            let repeated = match entries.len() {
                ..=FIELDS_SEARCHED_MAX => entries[..i].iter().any(|(earlier, _)| earlier == name),
                _ => !seen.insert(name),
            };
            if repeated {
                self.fault_at(name, "named twice");
            }
        }
        Some(Fields { entries, known: Vec::new() })
    }

    /// The items of a list of at most `most`, each read by `read`; items with faults are left out.
    pub fn list<T>(
        &mut self,
        tree: &Tree,
        most: usize,
        mut read: impl FnMut(&mut Self, &Tree) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Tree::List(items) = tree else {
            self.fault(format!("{tree} is not a list"));
            return None;
        };
        if items.len() > most {
            self.fault(format!("has {} items; at most {most} are allowed", items.len()));
            return None;
        }
        Some(
            items
                .iter()
                .enumerate()
                .filter_map(|(i, item)| self.item(i, |r| read(r, item)))
                .collect(),
        )
    }

    /// A string.
    pub fn text<'t>(&mut self, tree: &'t Tree) -> Option<&'t str> {
        let Tree::Text(text) = tree else {
            self.fault(format!("{tree} is not a string"));
            return None;
        };
        Some(text)
    }

    /// A string that `parse` understands; `expected` says what that takes.
    pub fn parsed<T>(
        &mut self,
        tree: &Tree,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(tree)?;
        let value = parse(text);
        if value.is_none() {
            self.fault(format!("{tree} is not {expected}"));
        }
        value
    }

    /// A whole number within bounds.
    pub fn whole(&mut self, tree: &Tree, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        if let Tree::Whole(number) = tree
            && let Some(number) =
                u64::try_from(*number).ok().filter(|number| bounds.contains(number))
        {
            return Some(number);
        }
        self.fault(format!(
            "{tree} is not a whole number from {} to {}",
            bounds.start(),
            bounds.end()
        ));
        None
    }

    /// True or false.
    pub fn boolean(&mut self, tree: &Tree) -> Option<bool> {
        let Tree::Bool(yes) = tree else {
            self.fault(format!("{tree} is not true or false"));
            return None;
        };
        Some(*yes)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, tree: &Tree, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(tree)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let list = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            self.fault(format!("{tree} is not one of {list}"));
        }
        found
    }
}

/// Bytes of a name up to which similar ones are looked for: comparing costs the product of both
/// lengths.
const SUGGESTED_BYTES_MAX: usize = 64;

/// The known word that `name` most likely means: the nearest, at most two edits away. None where no
/// word is that near.
pub fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > SUGGESTED_BYTES_MAX {
        return None;
    }
    let by_distance = known.map(|known| (strsim::damerau_levenshtein(known, name), known));
    by_distance
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The members of one object, taken one by one; what is left over at the end is unknown.
pub struct Fields<'t> {
    entries: &'t [(String, Tree)],
    known: Vec<&'static str>,
}

impl<'t> Fields<'t> {
    /// The member `name`, read by `read`, if it is there; null counts as absent.
    pub fn optional<T>(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
        read: impl FnOnce(&mut Reader, &'t Tree) -> Option<T>,
    ) -> Option<T> {
        self.known.push(name);
        let (_, tree) =
            self.entries.iter().find(|(key, tree)| key == name && *tree != Tree::Null)?;
        reader.member(name, |r| read(r, tree))
    }

    /// The member `name`, which has to be there.
    pub fn required<T>(
        &mut self,
        reader: &mut Reader,
        name: &'static str,
        read: impl FnOnce(&mut Reader, &'t Tree) -> Option<T>,
    ) -> Option<T> {
        if !self.has(name) {
            self.known.push(name);
            reader.fault_at(name, "is required");
            return None;
        }
        self.optional(reader, name, read)
    }

    /// Whether the member is there and not null.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, tree)| key == name && *tree != Tree::Null)
    }

    /// All members as they stand: for maps whose keys are data.
    pub fn entries(&self) -> impl Iterator<Item = (&'t str, &'t Tree)> {
        self.entries.iter().map(|(key, tree)| (key.as_str(), tree))
    }

    /// Faults every member that nobody asked for, with the nearest name that would have been known.
    pub fn finish(self, reader: &mut Reader) {
        for (name, _) in self.entries {
            if self.known.contains(&name.as_str()) {
                continue;
            }
            reader.unknown(name, "member", &self.known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_and_named_by_its_path() {
        let tree =
            Tree::from_json(br#"{"a": -1, "b": [1, "x", 2.5], "colour": true, "else.where": 1}"#)
                .unwrap();
        let mut r = Reader::default();
        let mut fields = r.fields(&tree).unwrap();
        fields.required(&mut r, "a", |r, t| r.whole(t, 1..=10));
        fields.optional(&mut r, "b", |r, t| r.list(t, 5, |r, t| r.whole(t, 0..=9)));
        fields.required(&mut r, "color", |r, t| r.boolean(t));
        fields.finish(&mut r);
        let faults = r.finish(Some(())).unwrap_err();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "a: -1 is not a whole number from 1 to 10",
                "b[1]: \"x\" is not a whole number from 0 to 9",
                "b[2]: 2.5 is not a whole number from 0 to 9",
                "color: is required",
                "colour: unknown member; did you mean color?",
                "\"else.where\": unknown member; known are a, b, color",
            ]
        );
    }

    #[test]
    fn json_that_breaks_off_is_named_by_the_member_it_broke_in() {
        let fault = Tree::from_json(br#"{"tenant":"a","cost":NaN}"#).unwrap_err();
        assert_eq!(fault.path, "cost");
        let fault = Tree::from_json(br#"{"limits":[{"window": 1e999}]}"#).unwrap_err();
        assert_eq!(fault.path, "limits[0].window");
        assert!(Tree::from_json(b"{} x").is_err() && Tree::from_json(b"").is_err());
    }

    #[test]
    fn a_date_that_toml_has_bare_is_its_text() {
        let tree = Tree::from_toml(b"when = 2027-01-01T00:00:00Z\n[a]\nb = [1979-05-27]").unwrap();
        let text = |text: &str| Tree::Text(text.into());
        let a = Tree::Map(vec![("b".into(), Tree::List(vec![text("1979-05-27")]))]);
        assert_eq!(
            tree,
            Tree::Map(vec![("a".into(), a), ("when".into(), text("2027-01-01T00:00:00Z"))])
        );
    }

    #[test]
    fn a_member_named_twice_is_a_fault() {
        let tree = Tree::from_json(br#"{"cost":1,"cost":2}"#).unwrap();
        let mut r = Reader::default();
        r.fields(&tree);
        assert_eq!(r.finish(Some(())).unwrap_err(), [Fault::new("cost", "named twice")]);
    }
}
