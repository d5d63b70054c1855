//! `[auth]`: who may ask for what, by the secrets that they show.
//!
//! ```toml
//! [auth]
//! admin_tokens = ["env:ADMIN_TOKEN"]                              # admin-1
//! tokens = [{ name = "ci", role = "read", value = "file:/run/secrets/ci" }]
//! ```
//!
//! A node without the section may be given one administrator's token by the variable [`ADMIN_VARIABLE`]. Without either it
//! listens on loopback alone, unless its operator says that it is to be open to everybody.

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
        Self { name: name.into(), role, sha256: Sha256::digest(secret.as_bytes()).into(), file: None }
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
        let values = fields.optional(r, member, |r, t| r.list(t, TOKENS_MAX, |r, t| secret(r, t, sources)));
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
    if tokens.is_empty() && r.is_clean() {
        r.fault("has no token, so that no request could ever be admitted");
    }
    Some((tokens, metrics))
}

/// The token of a node that has no `[auth]`, if the variable for it is set and not empty.
pub(super) fn from_variable(r: &mut Reader, variable: &dyn Fn(&str) -> Option<String>) -> Vec<Token> {
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

/// Why a node may not listen at `address` without any token, and the ways out.
pub fn open_without_auth(address: impl Display) -> String {
    format!(
        "{address} is not a loopback address, and without [auth] anybody could change the policy: configure [auth] or set \
         {ADMIN_VARIABLE}; or let everybody in with --insecure-no-auth (TIDEGATE_INSECURE_NO_AUTH=true)"
    )
}

/// The tokens with those secrets that are in files read again. All faults where any file can't be read or holds no secret:
/// then none of the new secrets may count.
pub fn read_again(tokens: &[Token]) -> Result<Vec<Token>, Vec<Fault>> {
    let again = |token: &Token| match &token.file {
        Some(file) => of_file(token, file),
        None => Ok(token.clone()),
    };
    let (read, faulty): (Vec<_>, Vec<_>) = tokens.iter().map(again).partition(Result::is_ok);
    match faulty.is_empty() {
        true => Ok(read.into_iter().flatten().collect()),
        false => Err(faulty.into_iter().filter_map(Result::err).collect()),
    }
}

fn of_file(token: &Token, file: &Path) -> Result<Token, Fault> {
    let value = secret::of_file(file);
    let value = value.map_err(|detail| Fault::new(format!("auth.{}", token.name), detail))?;
    Ok(Token { file: token.file.clone(), ..Token::new(token.name.clone(), token.role, &value) })
}
