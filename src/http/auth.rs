//! Tokens and roles: who may decide, see, and change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, Method, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::config::{Metrics, Role, Token};

/// The header of our own that carries a token.
const OWN_HEADER: &str = "x-tidegate-token";

/// The name of whoever is in: a token's, or `anyone` where there are no tokens.
#[derive(Clone, Debug)]
pub struct Caller(pub String);

/// A token's name, role, and the SHA-256 of its secret.
type Known = (String, Role, [u8; 32]);

/// The tokens of a node, as digests.
pub struct Tokens {
    known: ArcSwap<Vec<Known>>,
    deciding_needs_one: bool,
    metrics: Metrics,
}

impl Tokens {
    /// These tokens, with the metrics open.
    pub fn new(tokens: &[Token]) -> Self {
        Self {
            known: ArcSwap::from_pointee(known(tokens)),
            deciding_needs_one: tokens.iter().any(|t| t.role == Role::Check),
            metrics: Metrics::Open,
        }
    }

    /// The same tokens; where there are any, `metrics` says which callers may read the metrics.
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Puts other secrets in the place of these tokens' own. Names and roles must be as they were.
    pub fn replace(&self, tokens: &[Token]) {
        self.known.store(Arc::new(known(tokens)));
    }

    /// All of them: name, role and the secret's SHA-256, which admits no request.
    pub fn digests(&self) -> Arc<Vec<Known>> {
        self.known.load_full()
    }

    fn is_empty(&self) -> bool {
        self.known.load().is_empty()
    }

    /// Lets a decision call in: anybody, unless there are tokens for deciding.
    pub fn admit_decision(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if !self.deciding_needs_one {
            return Ok(());
        }
        match self.identify(headers)? {
            (_, Role::Check | Role::Admin) => Ok(()),
            (name, Role::Read) => Err(wrong_role(&name, "deciding")),
        }
    }

    /// Lets a proxy's question in, which carries its token in a header of our own: `Authorization`
    /// is the end user's.
    pub fn admit_proxy(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut own = HeaderMap::new();
        if let Some(token) = headers.get(OWN_HEADER) {
            own.insert(OWN_HEADER, token.clone());
        }
        self.admit_decision(&own)
    }

    /// Lets any other call in: `read` for looking, `admin` for the rest. Without tokens every
    /// caller may do everything; what web pages send has been refused before (`site`).
    pub fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.is_empty() {
            return Ok(Caller("anyone".into()));
        }
        let looking = matches!(*method, Method::GET | Method::HEAD);
        match self.identify(headers)? {
            (name, Role::Admin) => Ok(Caller(name)),
            (name, Role::Read) if looking => Ok(Caller(name)),
            (name, _) => {
                Err(wrong_role(&name, if looking { "reading" } else { "changing anything" }))
            }
        }
    }

    /// Lets a call for a back-up in. It needs the role `admin`, since the cluster's secret is in a
    /// back-up. A node without tokens gives none: every caller could have the secret.
    pub fn admit_backup(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.is_empty() {
            let detail = "configure [auth] to take back-ups: the secret of the cluster is in them; \
                          of a node that is stopped, `tidegate backup --data-dir DIR` takes one";
            return Err(Problem::new(403, detail, "forbidden"));
        }
        match self.identify(headers)? {
            (name, Role::Admin) => Ok(Caller(name)),
            (name, _) => Err(wrong_role(&name, "back-ups")),
        }
    }

    /// Lets a call for the metrics in: they name tenants, so it may need the role `read` or
    /// `admin`.
    pub fn admit_metrics(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match self.metrics {
            Metrics::Read => self.admit(&Method::GET, headers).map(drop),
            Metrics::Open => Ok(()),
        }
    }

    /// The token that the request carries. Every token is compared, in constant time.
    fn identify(&self, headers: &HeaderMap) -> Result<(String, Role), Problem> {
        let own = headers.get(OWN_HEADER).map(|value| value.as_bytes());
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        let Some(given) = own.or(bearer) else {
            return Err(unauthorized("a token is needed"));
        };
        let given: [u8; 32] = Sha256::digest(given).into();
        let mut found = None;
        for (name, role, digest) in self.known.load().iter() {
            if bool::from(digest.ct_eq(&given)) {
                found = Some((name.clone(), *role));
            }
        }
        found.ok_or_else(|| unauthorized("the token is not known"))
    }
}

fn known(tokens: &[Token]) -> Vec<Known> {
    tokens.iter().map(|token| (token.name.clone(), token.role, token.sha256)).collect()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(401, detail, "unauthorized").with_header(header::WWW_AUTHENTICATE, "Bearer")
}

fn wrong_role(name: &str, what: &str) -> Problem {
    Problem::new(403, format!("the role of token {name} is not for {what}"), "forbidden")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    fn tokens() -> Tokens {
        let token = |name: &str, role| Token::new(name, role, &format!("{name}-secret"));
        Tokens::new(&[token("c", Role::Check), token("r", Role::Read), token("a", Role::Admin)])
    }

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        headers
    }

    fn status(problem: Problem) -> u16 {
        problem.into_response().status().as_u16()
    }

    #[test]
    fn every_role_opens_its_own_doors() {
        let t = tokens();
        for (token, decide, get, put) in [
            ("c-secret", 0, 403, 403),
            ("r-secret", 403, 0, 403),
            ("a-secret", 0, 0, 0),
            ("x", 401, 401, 401),
        ] {
            assert_eq!(t.admit_decision(&with(token)).err().map_or(0, status), decide, "{token}");
            assert_eq!(t.admit(&Method::GET, &with(token)).err().map_or(0, status), get, "{token}");
            assert_eq!(t.admit(&Method::PUT, &with(token)).err().map_or(0, status), put, "{token}");
        }
        assert_eq!(t.admit_decision(&HeaderMap::new()).err().map_or(0, status), 401);
    }

    #[test]
    fn without_a_check_token_deciding_needs_none_and_ignores_what_is_sent() {
        let t = Tokens::new(&[Token::new("a", Role::Admin, "s")]);
        assert!(t.admit_decision(&with("whatever")).is_ok());
        assert_eq!(t.admit(&Method::GET, &HeaderMap::new()).err().map_or(0, status), 401);
    }

    #[test]
    fn a_header_of_our_own_may_carry_the_token() {
        let mut headers = with("an end user's");
        headers.insert("x-tidegate-token", "a-secret".parse().unwrap());
        assert_eq!(tokens().admit(&Method::PUT, &headers).unwrap().0, "a");
    }

    #[test]
    fn without_tokens_there_are_no_back_ups() {
        let problem = Tokens::new(&[]).admit_backup(&HeaderMap::new()).err().unwrap();
        assert!(
            format!("{problem:?}").contains("configure [auth] to take back-ups"),
            "{problem:?}"
        );
        assert_eq!(status(problem), 403);
        assert_eq!(tokens().admit_backup(&with("r-secret")).err().map_or(0, status), 403);
        assert_eq!(tokens().admit_backup(&with("a-secret")).err().map_or(0, status), 0);
    }

    #[test]
    fn metrics_need_a_token_that_reads_where_auth_says_so() {
        let t = tokens().with_metrics(Metrics::Read);
        for (token, expected) in [("c-secret", 403), ("r-secret", 0), ("a-secret", 0), ("x", 401)] {
            assert_eq!(t.admit_metrics(&with(token)).err().map_or(0, status), expected, "{token}");
            assert!(tokens().admit_metrics(&with(token)).is_ok(), "{token}");
        }
        let open = Tokens::new(&[]).with_metrics(Metrics::Read);
        assert!(open.admit_metrics(&HeaderMap::new()).is_ok());
    }
}
