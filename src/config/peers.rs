//! `[peers]`: the secret by which nodes know each other.
//!
//! ```toml
//! [peers]
//! secret = "file:/run/secrets/tidegate-peers"
//! secret = ["env:NEW_SECRET", "env:OLD_SECRET"]     # while it is changed, node by node
//! secret = ["env:NEW_SECRET", "auth"]               # the first secret of a cluster that had none
//! ```
//!
//! A node proves itself with the first of a list and accepts any. `auth` is the secret that a node
//! has without this section: the one that it keeps in its data directory (from its first start, or
//! from the cluster that admitted it), and the one that follows from the admin tokens that it has
//! now. A node without the section may be given a secret by the variable [`PEER_VARIABLE`]. With
//! neither, and with no admin token, a node has no secret.
//!
//! The secret itself isn't kept: a key of 32 bytes is derived from it (HKDF-SHA256).

use std::path::PathBuf;

use hkdf::Hkdf;
use sha2::{Digest, Sha256};

use super::auth::{Role, Token};
use super::nodes::SeedNode;
use super::secret::{self, Secret, Sources, secret};
use crate::input::{Reader, Tree};

/// The variable that holds the secret where the file has no `[peers]`.
pub const PEER_VARIABLE: &str = "TIDEGATE_PEER_SECRET";
/// Secrets of one list.
pub const PEER_SECRETS_MAX: usize = 8;
/// The word for the secret of a node without `[peers]`.
const AUTH: &str = "auth";

/// One item of the list.
#[derive(Clone, PartialEq, Eq)]
pub enum PeerSecret {
    /// A secret of its own, as the key that is derived from it.
    Key([u8; 32]),
    /// The secret that the node has without the section.
    Auth,
}

/// What the section says.
#[derive(Debug, Default)]
pub(super) struct PeerSecrets {
    pub secrets: Vec<PeerSecret>,
    /// The files that they were read from.
    pub files: Vec<PathBuf>,
}

/// Without the key.
impl std::fmt::Debug for PeerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(..)",
            Self::Auth => "Auth",
        })
    }
}

/// Where the keys of a node are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKeySource {
    /// From `[peers] secret` or the variable.
    Configured,
    /// From its data directory.
    Kept,
    /// From its admin tokens.
    AdminTokens,
    /// It has none.
    Nowhere,
}

/// Returns the keys of a node, the one to prove with first, and where that one is from. `kept` are
/// the keys in its data directory.
pub(super) fn keys(
    configured: &[PeerSecret],
    tokens: &[Token],
    kept: &[[u8; 32]],
) -> (Vec<[u8; 32]>, PeerKeySource) {
    let own = || kept.iter().copied().chain(of_admin_tokens(tokens));
    let all: Vec<_> = match configured {
        [] => own().collect(),
        items => items
            .iter()
            .flat_map(|item| match item {
                PeerSecret::Key(key) => vec![*key],
                PeerSecret::Auth => own().collect(),
            })
            .collect(),
    };
    let mut keys = Vec::new();
    for key in all {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let source = match (keys.is_empty(), configured.is_empty(), kept.is_empty()) {
        (true, ..) => PeerKeySource::Nowhere,
        (false, false, _) => PeerKeySource::Configured,
        (false, true, false) => PeerKeySource::Kept,
        (false, true, true) => PeerKeySource::AdminTokens,
    };
    (keys, source)
}

/// The key that follows from the admin tokens, in whatever order they are; none without any.
fn of_admin_tokens(tokens: &[Token]) -> Option<[u8; 32]> {
    let mut digests: Vec<_> =
        tokens.iter().filter(|token| token.role == Role::Admin).map(|token| token.sha256).collect();
    digests.sort_unstable();
    digests.dedup();
    (!digests.is_empty()).then(|| derived(&digests.concat(), b"tidegate peers: admin tokens"))
}

fn of_secret(secret: &str) -> [u8; 32] {
    derived(secret.as_bytes(), b"tidegate peers: secret")
}

fn derived(from: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let expanded = Hkdf::<Sha256>::new(None, from).expand(purpose, &mut key);
    debug_assert!(expanded.is_ok(), "a key is as long as one block of SHA-256");
    key
}

/// Reads the section.
pub(super) fn read(r: &mut Reader, tree: &Tree, sources: Sources<'_>) -> Option<PeerSecrets> {
    let mut fields = r.fields(tree)?;
    let secrets = fields.required(r, "secret", |r, t| match t {
        Tree::List(_) => {
            let secrets = r.list(t, PEER_SECRETS_MAX, |r, t| one(r, t, sources))?;
            if secrets.is_empty() && r.is_clean() {
                r.fault("lists no secret");
            }
            Some(secrets)
        }
        _ => one(r, t, sources).map(|secret| vec![secret]),
    });
    fields.finish(r);
    let (secrets, files): (_, Vec<_>) = secrets?.into_iter().unzip();
    Some(PeerSecrets { secrets, files: files.into_iter().flatten().collect() })
}

/// One secret, and the file that it was read from, if it was.
fn one(r: &mut Reader, tree: &Tree, sources: Sources<'_>) -> Option<(PeerSecret, Option<PathBuf>)> {
    match tree {
        Tree::Text(text) if text.as_str() == AUTH => Some((PeerSecret::Auth, None)),
        _ => {
            let Secret { value, file } = secret(r, tree, sources)?;
            Some((PeerSecret::Key(of_secret(&value)), file))
        }
    }
}

/// The secrets of a node whose file has no `[peers]`, if the variable for them is set: as in a
/// list, apart by white space. A fault where it is empty: a node without a secret takes any peer's
/// word.
pub(super) fn from_variable(
    r: &mut Reader,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<PeerSecret> {
    if variable(PEER_VARIABLE).is_none() {
        return Vec::new();
    }
    let secret = |word: Option<String>| {
        word.map_or(PeerSecret::Auth, |value| PeerSecret::Key(of_secret(&value)))
    };
    match secret::words_of_variable(PEER_VARIABLE, AUTH, variable) {
        Ok(words) if words.len() <= PEER_SECRETS_MAX => words.into_iter().map(secret).collect(),
        Ok(_) => {
            r.fault(format!(
                "the environment variable {PEER_VARIABLE} holds more than {PEER_SECRETS_MAX} \
                 secrets"
            ));
            Vec::new()
        }
        Err(detail) => {
            r.fault(detail);
            Vec::new()
        }
    }
}

/// The digest of the nodes of a list, by which two clusters that don't exist yet are told apart:
/// ids and where peers reach them, in the order that numbers them. None for a node alone.
pub(super) fn founders<'a>(nodes: impl Iterator<Item = &'a SeedNode>) -> Option<[u8; 16]> {
    let (mut hash, mut count) = (Sha256::new(), 0);
    for node in nodes {
        for text in [node.id.as_str(), node.peer.as_deref().unwrap_or_default()] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        count += 1;
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk().copied().filter(|_| count > 1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read_as(toml: &str) -> Result<Vec<PeerSecret>, String> {
        let tree = Tree::from_toml(toml.as_bytes()).unwrap();
        let variable =
            |name: &str| (name == "PEERS").then(|| "the-secret-of-the-peers".to_string());
        let mut r = Reader::default();
        let sources = Sources { beside: Path::new("/nowhere"), variable: &variable };
        let secrets = read(&mut r, &tree, sources);
        r.finish(secrets).map(|read| read.secrets).map_err(|faults| faults[0].to_string())
    }

    fn key(secret: &str) -> PeerSecret {
        PeerSecret::Key(of_secret(secret))
    }

    #[test]
    fn a_secret_or_a_list_of_them_is_read() {
        let of_variable = key("the-secret-of-the-peers");
        assert_eq!(read_as("secret = \"env:PEERS\""), Ok(vec![of_variable.clone()]));
        assert_eq!(read_as("secret = \"the-secret-of-the-peers\""), Ok(vec![of_variable.clone()]));
        let list = "secret = [\"another-secret-than-that\", \"env:PEERS\", \"auth\"]";
        assert_eq!(
            read_as(list),
            Ok(vec![key("another-secret-than-that"), of_variable, PeerSecret::Auth])
        );
        for (toml, fault) in [
            ("", "secret: is required"),
            ("secret = []", "secret: lists no secret"),
            ("secret = \"short\"", "secret: the text holds 5 characters; at least 16 are needed"),
            ("secret = [\"env:NOPE\"]", "secret[0]: the environment variable NOPE is not set"),
        ] {
            assert_eq!(read_as(toml), Err(fault.into()), "{toml}");
        }
        assert!(!format!("{:?}", key("the-secret-of-the-peers")).contains(char::is_numeric));
    }

    #[test]
    fn the_variable_holds_secrets_with_spaces_between() {
        let of_value = |value: &str| {
            let mut r = Reader::default();
            let secrets =
                from_variable(&mut r, &|name| (name == PEER_VARIABLE).then(|| value.into()));
            r.finish(Some(secrets)).map_err(|faults| faults[0].detail.clone())
        };
        assert!(from_variable(&mut Reader::default(), &|_| None).is_empty());
        for (value, why) in [
            (" ", "is empty"),
            ("${PEER_SECRET_OF_MINE}", "looks like a reference: give the secret itself"),
            ("file:/run/secrets/peers", "looks like a reference: give the secret itself"),
        ] {
            assert_eq!(
                of_value(value),
                Err(format!("the environment variable {PEER_VARIABLE} {why}"))
            );
        }
        assert_eq!(of_value("the-secret-of-the-peers\n"), Ok(vec![key("the-secret-of-the-peers")]));
        let both = vec![key("the-secret-of-the-peers"), PeerSecret::Auth];
        assert_eq!(of_value("the-secret-of-the-peers auth"), Ok(both));
        let short = "the environment variable TIDEGATE_PEER_SECRET holds 5 characters; at least 16 \
                     are needed";
        assert_eq!(of_value("the-secret-of-the-peers short"), Err(short.into()));
    }

    #[test]
    fn without_a_secret_it_follows_from_the_admin_tokens() {
        let admin = |value: &str| Token::new(value, Role::Admin, value);
        let reader = Token::new("r", Role::Read, "r");
        let (keys, source) = keys(&[], &[admin("a"), admin("b"), reader.clone()], &[]);
        assert_eq!((keys.len(), source), (1, PeerKeySource::AdminTokens));
        let again = super::keys(&[], &[admin("b"), admin("a")], &[]).0;
        assert_eq!(keys, again, "their order and other tokens don't matter");
        assert_ne!(keys, super::keys(&[], &[admin("a")], &[]).0);
        assert_eq!(super::keys(&[], &[reader], &[]), (vec![], PeerKeySource::Nowhere));
        // What the data directory holds comes first, so that tokens may be changed node by node.
        let kept = super::keys(&[], &[admin("c")], &keys);
        assert_eq!((kept.0.len(), kept.0[0], kept.1), (2, keys[0], PeerKeySource::Kept));
    }

    #[test]
    fn a_configured_secret_stands_alone_unless_auth_is_listed() {
        let (kept, PeerSecret::Key(own)) = ([7; 32], key("the-secret-of-the-peers")) else {
            panic!()
        };
        let only = keys(&[PeerSecret::Key(own)], &[], &[kept]);
        assert_eq!(only, (vec![own], PeerKeySource::Configured));
        let both = keys(&[PeerSecret::Key(own), PeerSecret::Auth], &[], &[kept, own]);
        assert_eq!(both.0, [own, kept]);
    }

    #[test]
    fn a_key_is_these_bytes_in_every_version_to_come() {
        let hex = |key: [u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let of_tokens =
            of_admin_tokens(&[Token::new("a", Role::Admin, "0123456789abcdef")]).unwrap();
        assert_eq!(
            hex(of_secret("0123456789abcdef")),
            "3ec51ee0655177fd216f51c1dbd0f3f6433406720badda6990fa03e003dec239"
        );
        assert_eq!(
            hex(of_tokens),
            "189f28e173e86a5fde6e1a100e678f73d3c23c5810fc0335e0fd1418e684c35c"
        );
    }
}
