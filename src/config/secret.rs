//! Secrets that a configuration names: written out, or where they are to be had.
//!
//! ```toml
//! admin_tokens = ["env:ADMIN_TOKEN", "file:/run/secrets/admin", "a-token-written-out"]
//! ```
//!
//! Wherever it comes from, a secret has at least [`SECRET_BYTES_MIN`] bytes of visible ASCII. One
//! newline at the end of a variable or a file is not part of it. A text that looks like a reference
//! of some other program's kind (`${TOKEN}`, `ENV:TOKEN`, a path) is refused: taken literally it
//! would be a secret that anybody can guess. No fault repeats a secret.

use std::path::{Path, PathBuf};

use crate::input::{Reader, Tree};

/// Bytes of the shortest secret.
pub const SECRET_BYTES_MIN: usize = 16;
/// Bytes of the longest secret.
pub const SECRET_BYTES_MAX: usize = 4_096;

/// Where secrets may be had.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The directory that the paths of `file:` begin in.
    pub beside: &'a Path,
    /// Looks up the variable that `env:` names.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// A secret, and the file that it was read from, if it was.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The secret.
    pub value: String,
    /// Where it is read again from.
    pub file: Option<PathBuf>,
}

/// Without the secret.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(file: {:?})", self.file)
    }
}

/// Reads a member that is a secret: `env:NAME`, `file:PATH`, or the secret itself. Faults what is
/// none, and says where it is from.
pub fn secret(r: &mut Reader, tree: &Tree, sources: Sources<'_>) -> Option<Secret> {
    let Tree::Text(text) = tree else {
        r.fault("is not a string, such as \"env:NAME\" or \"file:PATH\"");
        return None;
    };
    let found = match (text.strip_prefix("env:"), text.strip_prefix("file:")) {
        (Some(name), _) => {
            of_variable(name, sources.variable).map(|value| Secret { value, file: None })
        }
        (_, Some(path)) => {
            let path = sources.beside.join(path);
            of_file(&path).map(|value| Secret { value, file: Some(path) })
        }
        (None, None) => literal(text).map(|value| Secret { value, file: None }),
    };
    found.map_err(|detail| r.fault(detail)).ok()
}

/// The secret in an environment variable. The error names the variable.
pub fn of_variable(
    name: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let said = |why: &str| format!("the environment variable {name} {why}");
    let value = variable(name).ok_or_else(|| said("is not set"))?;
    judged(without_newline(&value)).map_err(|why| said(&why))
}

/// The words of an environment variable that are apart by white space: each is a secret, or `word`,
/// which is `None`. The error names the variable.
pub fn words_of_variable(
    name: &str,
    word: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Option<String>>, String> {
    let said = |why: &str| format!("the environment variable {name} {why}");
    let value = variable(name).unwrap_or_default();
    let read = |text: &str| match text == word {
        true => Ok(None),
        false if is_unexpanded(text) => Err(said("looks like a reference: give the secret itself")),
        false => judged(text).map(Some).map_err(|why| said(&why)),
    };
    if value.trim_ascii().is_empty() {
        return Err(said("is empty"));
    }
    value.split_ascii_whitespace().map(read).collect()
}

/// Whether a value was to be replaced by another before it came here. A path may be a secret in
/// base64.
fn is_unexpanded(text: &str) -> bool {
    ["env:", "file:"].iter().any(|start| text.starts_with(start)) || text.contains("${")
}

/// The secret in a file. The error names the file.
pub fn of_file(path: &Path) -> Result<String, String> {
    let said = |why: &dyn std::fmt::Display| format!("the file {} {why}", path.display());
    let bytes = read(path).map_err(|error| format!("the file {}: {error}", path.display()))?;
    if bytes.len() > SECRET_BYTES_MAX + 2 {
        return Err(said(&format!("has more than {SECRET_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| said(&ONLY_VISIBLE))?;
    judged(without_newline(&text)).map_err(|why| said(&why))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SECRET_BYTES_MAX as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

const ONLY_VISIBLE: &str = "holds other characters than visible ASCII";

/// The secret, if it can be one; else what is wrong with it, to follow the name of where it is
/// from.
fn judged(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty".into()),
        _ if !text.bytes().all(|b| b.is_ascii_graphic()) => Err(ONLY_VISIBLE.into()),
        short @ ..SECRET_BYTES_MIN => {
            Err(format!("holds {short} characters; at least {SECRET_BYTES_MIN} are needed"))
        }
        SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(text.into()),
        _ => Err(format!("holds more than {SECRET_BYTES_MAX} characters")),
    }
}

/// A secret that is written out.
fn literal(text: &str) -> Result<String, String> {
    if let Some(meant) = reference(text) {
        return Err(format!(
            "looks like a reference; write {meant}, or give a secret that begins so by env: or \
             file:"
        ));
    }
    judged(text).map_err(|why| format!("the text {why}"))
}

/// What is meant by a text that looks like a reference.
fn reference(text: &str) -> Option<&'static str> {
    const FILE: &str = "\"file:PATH\" for a file";
    const VARIABLE: &str = "\"env:NAME\" for an environment variable";
    let lower = text.trim_start().to_ascii_lowercase();
    let begins = |starts: &[&str]| starts.iter().any(|start| lower.starts_with(start));
    if begins(&["file:", "file=", "/", "./", "../", "~/", "@/", "@file"]) {
        return Some(FILE);
    }
    let templated = ["${", "{{", "$("].iter().any(|open| lower.contains(open));
    let percent = lower.len() > 2 && lower.starts_with('%') && lower.ends_with('%');
    let prefixed = begins(&["$", "env:", "env=", "env.", "env ", "environment:", "var:", "<"]);
    (templated || percent || prefixed).then_some(VARIABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(text: &str, variable: &str) -> Result<Secret, String> {
        let variable = |name: &str| (name == "TOKEN").then(|| variable.to_string());
        let mut r = Reader::default();
        let sources = Sources { beside: Path::new("/nowhere"), variable: &variable };
        let found = secret(&mut r, &Tree::Text(text.into()), sources);
        r.finish(found).map_err(|faults| faults[0].detail.clone())
    }

    #[test]
    fn a_secret_is_written_out_or_in_a_variable_or_a_file() {
        let value = "0123456789abcdef";
        assert_eq!(read_as(value, "").unwrap().value, value);
        for variable in [value.to_string(), format!("{value}\n"), format!("{value}\r\n")] {
            assert_eq!(read_as("env:TOKEN", &variable).unwrap().value, value);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, format!("{value}\n")).unwrap();
        let found = read_as(&format!("file:{}", path.display()), "").unwrap();
        assert_eq!((found.value.as_str(), found.file.as_deref()), (value, Some(&*path)));
    }

    #[test]
    fn a_text_that_looks_like_a_reference_is_refused() {
        for text in [
            "${ADMIN_TOKEN_OF_MINE}",
            "$ADMIN_TOKEN_OF_MINE",
            "prefix-${ADMIN_TOKEN}",
            "{{ admin.token.value }}",
            "%ADMIN_TOKEN_OF_MINE%",
            "ENV:ADMIN_TOKEN_OF_MINE",
            "Env:ADMIN_TOKEN_OF_MINE",
            "env=ADMIN_TOKEN_OF_MINE",
            "<your-admin-token-here>",
        ] {
            let why = read_as(text, "").unwrap_err();
            assert!(why.starts_with("looks like a reference; write \"env:NAME\""), "{text}: {why}");
        }
        for text in ["File:/run/secrets/admin", "/run/secrets/admin-token", "./secrets/admin-token"]
        {
            let why = read_as(text, "").unwrap_err();
            assert!(
                why.starts_with("looks like a reference; write \"file:PATH\""),
                "{text}: {why}"
            );
        }
        // Given by reference it is taken as it is.
        assert_eq!(
            read_as("env:TOKEN", "/9j/4AAQSkZJRgABAQ==").unwrap().value,
            "/9j/4AAQSkZJRgABAQ=="
        );
    }

    #[test]
    fn a_fault_names_the_source_and_never_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "canary\n\n").unwrap();
        let file = format!("file:{}", path.display());
        let shown = path.display();
        for (text, variable, why) in [
            ("canary", "", "the text holds 6 characters; at least 16 are needed".to_string()),
            ("", "", "the text is empty".into()),
            ("canary canary canary", "", format!("the text {ONLY_VISIBLE}")),
            ("env:NONE", "", "the environment variable NONE is not set".into()),
            ("env:TOKEN", "", "the environment variable TOKEN is empty".into()),
            (
                "env:TOKEN",
                "canary",
                "the environment variable TOKEN holds 6 characters; at least 16 are needed".into(),
            ),
            (&file, "", format!("the file {shown} {ONLY_VISIBLE}")),
            (
                "file:gone",
                "",
                "the file /nowhere/gone: No such file or directory (os error 2)".into(),
            ),
        ] {
            assert_eq!(read_as(text, variable).unwrap_err(), why, "{text}");
        }
    }
}
