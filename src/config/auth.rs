//! `[auth]`: who may ask for what, by the secrets that they show.
//!
//! ```toml
//! [auth]
//! admin_tokens = ["env:ADMIN_TOKEN"]                              # admin-1
//! tokens = [{ name = "ci", role = "read", value = "file:/run/secrets/ci" }]
//! ```
//!
//! A node without the section may be given one administrator's token by the variable
//! [`ADMIN_VARIABLE`]. Without either it listens on loopback alone, unless its operator says that
//! it is to be open to everybody.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::http::Metrics;
use super::secret::{self, Secret, Sources, secret};
use crate::check::Name;
use crate::input::{Fault, Reader, Tree};

/// Tokens in one file.
pub const TOKENS_MAX: usize = 1_024;
/// The variable that holds an administrator's token where nothing else configures one.
pub const ADMIN_VARIABLE: &str = "TIDEGATE_ADMIN_TOKEN";
/// The name of that token.
const ADMIN_NAME: &str = "env";

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decide.
    Check,
    /// See.
    Read,
    /// All.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Check, Self::Read, Self::Admin];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// A named token. The secret itself isn't kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// By which logs and the audit know it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The SHA-256 of the secret.
    pub sha256: [u8; 32],
    /// The file that the secret was read from, if it was.
    pub file: Option<PathBuf>,
}

impl Token {
    /// A token with this secret.
    pub fn new(name: impl Into<String>, role: Role, secret: &str) -> Self {
        Self {
            name: name.into(),
            role,
            sha256: Sha256::digest(secret.as_bytes()).into(),
            file: None,
        }
    }

    fn of(name: String, role: Role, secret: Secret) -> Self {
        Self { file: secret.file, ..Self::new(name, role, &secret.value) }
    }
}

/// Without the digest: a weak secret could be guessed from it.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, {:?})", self.name, self.role)
    }
}

/// Reads the section: the tokens, and who may read the metrics where that is said.
pub(super) fn read(
    r: &mut Reader,
    tree: &Tree,
    sources: Sources<'_>,
) -> Option<(Vec<Token>, Option<Metrics>)> {
    let mut fields = r.fields(tree)?;
    let metrics = fields.optional(r, "metrics", |r, t| r.choice(t, &Metrics::WORDS));
    let mut tokens = Vec::new();
    for (member, role) in
        [("admin_tokens", Role::Admin), ("read_tokens", Role::Read), ("check_tokens", Role::Check)]
    {
        let values =
            fields.optional(r, member, |r, t| r.list(t, TOKENS_MAX, |r, t| secret(r, t, sources)));
        for (i, value) in values.unwrap_or_default().into_iter().enumerate() {
            let name = format!("{}-{}", member.trim_end_matches("_tokens"), i + 1);
            tokens.push(Token::of(name, role, value));
        }
    }
    let roles = Role::ALL.map(|role| (role.word(), role));
    let named = fields.optional(r, "tokens", |r, t| {
        r.list(t, TOKENS_MAX, |r, t| {
            let mut fields = r.fields(t)?;
            let name = fields.required(r, "name", |r, t| r.parsed(t, Name::EXPECTED, Name::new));
            let role = fields.required(r, "role", |r, t| r.choice(t, &roles));
            let value = fields.required(r, "value", |r, t| secret(r, t, sources));
            fields.finish(r);
            Some(Token::of(name?.to_string(), role?, value?))
        })
    });
    tokens.extend(named.unwrap_or_default());
    fields.finish(r);
    if let Some(detail) = one_secret_twice(&tokens) {
        r.fault(detail);
    }
    if tokens.is_empty() && r.is_clean() {
        r.fault("has no token, so that no request could ever be admitted");
    }
    Some((tokens, metrics))
}

/// Names two tokens that have one secret: a caller that shows it would have either name and role.
fn one_secret_twice(tokens: &[Token]) -> Option<String> {
    let mut seen = BTreeMap::new();
    tokens.iter().find_map(|token| {
        let first = seen.insert(token.sha256, &token.name)?;
        Some(format!("the tokens {first} and {} have one secret; each needs its own", token.name))
    })
}

/// The token of a node that has no `[auth]`, if the variable for it is set and not empty.
pub(super) fn from_variable(
    r: &mut Reader,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<Token> {
    if variable(ADMIN_VARIABLE).is_none_or(|value| value.is_empty()) {
        return Vec::new();
    }
    match secret::of_variable(ADMIN_VARIABLE, variable) {
        Ok(value) => vec![Token::new(ADMIN_NAME, Role::Admin, &value)],
        Err(detail) => {
            r.fault(detail);
            Vec::new()
        }
    }
}

/// A warning where the variable [`ADMIN_VARIABLE`] holds a secret, and none of the node's `tokens`
/// has it.
pub fn unused_admin_variable(tokens: &[Token], value: &str) -> Option<String> {
    let digest: [u8; 32] = Sha256::digest(value.trim_end_matches(['\r', '\n']).as_bytes()).into();
    let is_unused = !value.is_empty() && tokens.iter().all(|token| token.sha256 != digest);
    is_unused.then(|| {
        format!(
            "{ADMIN_VARIABLE} is set and admits no caller: it makes a token only where no [auth] \
             is configured"
        )
    })
}

/// Why a node may not listen at `address` without any token, and the ways out.
pub fn open_without_auth(address: impl Display) -> String {
    format!(
        "{address} is not a loopback address, and without [auth] anybody could change the policy: \
         configure [auth] or set {ADMIN_VARIABLE}; or let everybody in with --insecure-no-auth \
         (TIDEGATE_INSECURE_NO_AUTH=true)"
    )
}

/// The tokens with those secrets that are in files read again. All faults where any file can't be
/// read or holds no secret: then none of the new secrets may count.
pub fn read_again(tokens: &[Token]) -> Result<Vec<Token>, Vec<Fault>> {
    let again = |token: &Token| match &token.file {
        Some(file) => of_file(token, file),
        None => Ok(token.clone()),
    };
    let (read, faulty): (Vec<_>, Vec<_>) = tokens.iter().map(again).partition(Result::is_ok);
    if !faulty.is_empty() {
        return Err(faulty.into_iter().filter_map(Result::err).collect());
    }
    let read: Vec<_> = read.into_iter().flatten().collect();
    match one_secret_twice(&read) {
        None => Ok(read),
        Some(detail) => Err(vec![Fault::new("auth", detail)]),
    }
}

fn of_file(token: &Token, file: &Path) -> Result<Token, Fault> {
    let value = secret::of_file(file);
    let value = value.map_err(|detail| Fault::new(format!("auth.{}", token.name), detail))?;
    Ok(Token { file: token.file.clone(), ..Token::new(token.name.clone(), token.role, &value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(secrets: &[(&str, Role, &str)]) -> Vec<Token> {
        secrets.iter().map(|(name, role, secret)| Token::new(*name, *role, secret)).collect()
    }

    #[test]
    fn one_secret_under_two_names_is_a_fault() {
        let two = tokens(&[("admin-1", Role::Admin, "one"), ("read-1", Role::Read, "one")]);
        let why = "the tokens admin-1 and read-1 have one secret; each needs its own";
        assert_eq!(one_secret_twice(&two).as_deref(), Some(why));
        let other = tokens(&[("admin-1", Role::Admin, "one"), ("read-1", Role::Read, "two")]);
        assert_eq!(one_secret_twice(&other), None);
        assert_eq!(read_again(&two).unwrap_err()[0].detail, why);
    }

    #[test]
    fn a_variable_that_makes_no_token_is_warned_of() {
        let own = tokens(&[("env", Role::Admin, "a-secret")]);
        assert_eq!(unused_admin_variable(&own, "a-secret\n"), None);
        assert_eq!(unused_admin_variable(&own, ""), None);
        let warning = unused_admin_variable(&own, "another").unwrap();
        assert!(
            warning.starts_with("TIDEGATE_ADMIN_TOKEN is set and admits no caller"),
            "{warning}"
        );
        assert!(!warning.contains("another"), "{warning}");
    }
}
