//! How answers look: the section `[responses]`, which changes no decision.
//!
//! ```toml
//! [responses]
//! headers = ["draft8", "legacy"]       # the forms of rate limit headers that an answer has, side by side
//! x_reset = "delta"                    # X-RateLimit-Reset in seconds from now instead of Unix seconds
//! denial_body = "enveloped_code"       # where a denial is sent as 429
//! ```
//!
//! What each form holds is written down where it is made, in `http::headers` and `http::denial`.

use serde_json::{Map, Value, json};

use crate::input::{Reader, Tree};

/// The section, valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Responses {
    /// The forms of rate limit headers.
    pub headers: Dialects,
    /// What `X-RateLimit-Reset` means.
    pub x_reset: XReset,
    /// The body of a denial that is sent as 429.
    pub denial_body: DenialBody,
}

/// How many forms of rate limit headers there are.
pub const DIALECTS_MAX: usize = 4;

/// One form of rate limit headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `RateLimit-Policy` and `RateLimit`: every limit.
    Draft8,
    /// `RateLimit-Limit`, `-Remaining` and `-Reset`: the tightest limit.
    Legacy,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`, `-Used` and `-Scope`: the tightest limit.
    X,
    /// `X-RateLimit-Limit-Minute`, `-Remaining-Minute` and so on: the limits of a minute, of an
    /// hour, and in flight.
    PerWindow,
}

impl Dialect {
    /// All of them by the word that the document has for each, in the order in which it shows them.
    const WORDS: [(&str, Self); DIALECTS_MAX] = [
        ("draft8", Self::Draft8),
        ("legacy", Self::Legacy),
        ("x", Self::X),
        ("per_window", Self::PerWindow),
    ];
}

/// Some dialects, each at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialects(u8);

impl Dialects {
    /// No rate limit headers.
    pub const NONE: Self = Self(0);

    /// These and `dialect`.
    pub fn with(self, dialect: Dialect) -> Self {
        Self(self.0 | (1 << dialect as u8))
    }

    /// Whether `dialect` is one of them.
    pub fn has(self, dialect: Dialect) -> bool {
        self.0 & (1 << dialect as u8) != 0
    }
}

impl Default for Dialects {
    fn default() -> Self {
        Self::NONE.with(Dialect::Draft8)
    }
}

/// What `X-RateLimit-Reset` means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XReset {
    /// Unix time, in seconds.
    #[default]
    Epoch,
    /// Seconds from now.
    Delta,
}

impl XReset {
    const WORDS: [(&str, Self); 2] = [("epoch", Self::Epoch), ("delta", Self::Delta)];
}

/// The body of a denial that is sent as 429.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenialBody {
    /// A problem document (RFC 9457) with the members of the decision.
    #[default]
    Problem,
    /// `{"error":{"type","title","detail","retry_after","instance"}}`.
    EnvelopedProblem,
    /// `{"error":{"code","message","retry_after","scope"}}`.
    EnvelopedCode,
}

impl DenialBody {
    const WORDS: [(&str, Self); 3] = [
        ("problem", Self::Problem),
        ("enveloped_problem", Self::EnvelopedProblem),
        ("enveloped_code", Self::EnvelopedCode),
    ];
}

impl Responses {
    /// The section as the document shows it; none where all of it is as without the section.
    pub fn to_json(self) -> Option<Value> {
        let usual = Self::default();
        let mut out = Map::new();
        if self.headers != usual.headers {
            let words = Dialect::WORDS.iter().filter(|(_, dialect)| self.headers.has(*dialect));
            out.insert("headers".into(), words.map(|(word, _)| json!(word)).collect());
        }
        if self.x_reset != usual.x_reset {
            out.insert("x_reset".into(), json!(word(&XReset::WORDS, self.x_reset)));
        }
        if self.denial_body != usual.denial_body {
            out.insert("denial_body".into(), json!(word(&DenialBody::WORDS, self.denial_body)));
        }
        (!out.is_empty()).then_some(Value::Object(out))
    }
}

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> Option<&'static str> {
    words.iter().find(|(_, of)| *of == value).map(|(word, _)| *word)
}

/// The section; every member may be left out.
pub fn responses(r: &mut Reader, tree: &Tree) -> Option<Responses> {
    let mut fields = r.fields(tree)?;
    let section = Responses {
        headers: fields.optional(r, "headers", dialects).unwrap_or_default(),
        x_reset: fields
            .optional(r, "x_reset", |r, t| r.choice(t, &XReset::WORDS))
            .unwrap_or_default(),
        denial_body: fields
            .optional(r, "denial_body", |r, t| r.choice(t, &DenialBody::WORDS))
            .unwrap_or_default(),
    };
    fields.finish(r);
    Some(section)
}

fn dialects(r: &mut Reader, tree: &Tree) -> Option<Dialects> {
    let mut found = Dialects::NONE;
    r.list(tree, Dialect::WORDS.len(), |r, t| {
        let dialect = r.choice(t, &Dialect::WORDS)?;
        if found.has(dialect) {
            r.fault(format!("{t} is in the list twice"));
        }
        found = found.with(dialect);
        Some(())
    })?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{DiffOp, Document, differences};

    fn document(section: &str) -> Result<Document, Vec<String>> {
        let toml = format!("default_tier = \"free\"\n[tiers.free]\n{section}");
        let faults =
            |faults: Vec<crate::input::Fault>| faults.iter().map(ToString::to_string).collect();
        Document::from_toml(toml.as_bytes()).map_err(faults)
    }

    #[test]
    fn every_choice_reads_back_from_the_documents_json_and_toml() {
        for headers in 0..1 << Dialect::WORDS.len() {
            for (_, x_reset) in XReset::WORDS {
                for (_, denial_body) in DenialBody::WORDS {
                    let responses = Responses { headers: Dialects(headers), x_reset, denial_body };
                    let document = Document { responses, ..crate::policy::builtin() };
                    let json = document.to_json().to_string();
                    assert_eq!(Document::from_json(json.as_bytes()).unwrap(), document, "{json}");
                    assert_eq!(
                        Document::from_toml(document.to_toml().as_bytes()).unwrap(),
                        document
                    );
                }
            }
        }
    }

    #[test]
    fn without_the_section_answers_have_the_drafts_headers_unix_seconds_and_problem_documents() {
        let usual = document("").unwrap();
        let spelt_out = r#"headers = ["draft8"]
            x_reset = "epoch"
            denial_body = "problem""#;
        assert_eq!(document(&format!("[responses]\n{spelt_out}")).unwrap(), usual);
        assert_eq!(usual.to_json().get("responses"), None);
    }

    #[test]
    fn the_order_of_the_dialects_makes_no_difference_and_none_of_them_is_a_choice_too() {
        let both = |headers: &str| document(&format!("[responses]\nheaders = {headers}")).unwrap();
        assert_eq!(both(r#"["x", "draft8"]"#), both(r#"["draft8", "x"]"#));
        assert_eq!(both("[]").to_json()["responses"], json!({"headers": []}));
    }

    #[test]
    fn every_fault_of_the_section_has_its_path() {
        let section = r#"[responses]
            headers = ["x", "draft6", "x"]
            x_reset = "iso"
            denial_body = 429
            header = "x""#;
        assert_eq!(
            document(section).unwrap_err(),
            [
                "responses.headers[1]: \"draft6\" is not one of draft8, legacy, x, per_window",
                "responses.headers[2]: \"x\" is in the list twice",
                "responses.x_reset: \"iso\" is not one of epoch, delta",
                "responses.denial_body: 429 is not a string",
                "responses.header: unknown member; did you mean headers?",
            ]
        );
        assert!(document("[responses]\nheaders = \"x\"").is_err());
    }

    #[test]
    fn a_change_of_the_section_is_a_difference_like_any_other() {
        let json = |section| document(section).unwrap().to_json();
        let (old, new) =
            (json("[responses]\nheaders = [\"x\"]"), json("[responses]\nheaders = []"));
        let found = differences(&old, &new);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].op), ("responses.headers", DiffOp::Change));
    }
}
