//! How a node comes by who it is: by its data, by the configuration, or by asking a cluster to admit it.
//!
//! ```text
//! the folder is empty          POST /v1/cluster/nodes → its number, the cluster's name, members, tokens; written down, durably
//! it holds what was given      and nothing of the log: asked again, and the answer is the same, or newer
//! it holds a node              that is who it is, and nobody is asked
//! ```
//!
//! The node listens at its peer address before it asks, since the cluster looks for it there first.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tidegate::check::Name;
use tidegate::cluster::SeedNode;
use tidegate::cluster::claim::{Admitted, Claim, Found, StrangeToken, TokenDigest};
use tidegate::cluster::raft::Place;
use tidegate::config::{Config, Role, Token, open_without_auth};
use tidegate::net::Listen;
use tidegate::node::reached_at;
use tidegate::peer::{BootId, Doorstep, Identity, Lineage, VERSIONS};

use super::super::client::{Request, ServerArgs};
use super::super::failure::Failure;

/// How long a cluster is asked that doesn't answer or has no leader.
const ASK_FOR: Duration = Duration::from_secs(30);
/// How long to wait before it is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// What the node that is asked may take beyond what any call may: it looks for the new node first.
const LOOKS_FOR: Duration = Duration::from_secs(15);

/// Whom to ask, and what else is known of the node.
pub struct Joining {
    /// Where to ask; none asks nobody.
    pub url: Option<String>,
    /// As whom, and whose certificates to believe.
    pub server: ServerArgs,
    /// Whether there is a configuration: then it says which cluster this is.
    pub has_file: bool,
    /// Whether the node was told its name.
    pub is_named: bool,
}

impl Joining {
    /// Finds out who the node is; the answer is its configuration, and the names of the members as far as they are known.
    /// It listens at `http`, and at the address of `peers`.
    pub async fn settle<P: Listen>(
        &self,
        config: Config,
        place: &Place,
        http: SocketAddr,
        peers: Option<&mut P>,
    ) -> Result<(Config, Vec<Name>), Failure> {
        let found = place.found().map_err(|error| Failure::Failed(error.to_string()))?;
        let claim = match (found, &self.url) {
            (Some(found), Some(url)) if !found.is_blank || found.has_left => {
                tracing::info!(url, "the folder holds {} already: --join is ignored", found.claim);
                Some(found.claim)
            }
            (found, Some(url)) => Some(self.ask(url, &config, place, found, http, peers).await?),
            (found, None) => found.map(|found| found.claim),
        };
        self.as_claimed(config, claim)
    }

    /// Asks to be admitted, and writes the answer down. Where nobody answers, what was given before still holds.
    async fn ask<P: Listen>(
        &self,
        url: &str,
        config: &Config,
        place: &Place,
        found: Option<Found>,
        http: SocketAddr,
        peers: Option<&mut P>,
    ) -> Result<Claim, Failure> {
        if !self.is_named {
            return Err(Failure::Usage("a node that joins says with --node how it is called".into()));
        }
        let Some(peers) = peers else {
            let why = "a node that joins says with --peer where the others reach it";
            return Err(Failure::Usage(why.into()));
        };
        let own = reached_at(config, http, peers.local_addr().ok());
        let before = found.map(|found| found.claim).filter(|claim| claim.admission.is_some());
        let (claim, lineage) = match (self.until_answered(url, config, &own, peers).await, before) {
            (Ok(admitted), _) => admitted,
            (Err(failure), Some(before)) if failure.is_passing() => {
                tracing::warn!(%failure, "nobody says anything newer than what this node was told before");
                return Ok(before);
            }
            (Err(failure), _) => return Err(failure),
        };
        place.claim(&claim, &lineage).map_err(|error| Failure::Failed(error.to_string()))?;
        tracing::info!("admitted as {claim}");
        Ok(claim)
    }

    async fn until_answered<P: Listen>(
        &self,
        url: &str,
        config: &Config,
        own: &SeedNode,
        peers: &mut P,
    ) -> Result<(Claim, Lineage), Failure> {
        let (mut told, mut waited) = (String::new(), Duration::ZERO);
        loop {
            let failure = match self.once(url, config, own, peers).await {
                Err(failure) if failure.is_passing() && waited < ASK_FOR => failure.to_string(),
                outcome => return outcome,
            };
            if failure != told {
                tracing::warn!(url, why = failure, "not admitted yet");
            }
            told = failure;
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
            waited += ASK_AGAIN_AFTER;
        }
    }

    /// Asks once. The cluster's name and lineage come first: by them the nodes know the one that wants in when they look for it.
    async fn once<P: Listen>(
        &self,
        url: &str,
        config: &Config,
        own: &SeedNode,
        peers: &mut P,
    ) -> Result<(Claim, Lineage), Failure> {
        let ServerArgs { token, ca_cert, .. } = &self.server;
        let server = ServerArgs { url: url.into(), token: token.clone(), ca_cert: ca_cert.clone() };
        let client = std::sync::Arc::new(server.client()?);
        let asks = client.clone();
        let seen = blocking(move || asks.send(Request::get("/v1/cluster"))?.read::<Seen>()).await?;
        if self.has_file && seen.name != config.cluster {
            return Err(Failure::Failed(format!(
                "the cluster at {url} is {}, and this node's configuration is for {}",
                seen.name, config.cluster
            )));
        }
        let body = json!({"id": config.node, "http": own.http, "peer": own.peer, "weight": own.weight.get()});
        let admitting = blocking(move || {
            let request = Request::post("/v1/cluster/nodes").json(&body).wait(LOOKS_FOR);
            client.send(request)?.read::<Admitted>()
        });
        // Any run of it will do: the one that takes part gives itself a name of its own.
        let lineage = seen.lineage()?;
        let us = Identity {
            cluster: seen.name,
            node: config.node.clone(),
            boot: BootId(1),
            versions: VERSIONS,
            lineage: lineage.clone(),
        };
        let admitted = tokio::select! {
            biased;
            admitted = admitting => admitted?,
            () = Doorstep::new(peers, us).greet() => unreachable!("it greets for as long as it is polled"),
        };
        Ok((admitted.claim().map_err(strange)?, lineage))
    }

    /// The configuration of the node that the claim names.
    fn as_claimed(&self, mut config: Config, claim: Option<Claim>) -> Result<(Config, Vec<Name>), Failure> {
        let mut members: Vec<_> = config.nodes.iter().map(|node| node.id.clone()).collect();
        if let Some(Claim { name, cluster, admission: Some(admission), .. }) = claim {
            if !self.has_file {
                (config.cluster, config.environment) = (cluster, admission.environment);
                if !self.is_named {
                    rename(&mut config, name);
                }
                if config.peer.is_none() {
                    let why = format!("{} has others: say with --peer where they reach it", config.node);
                    return Err(Failure::Usage(why));
                }
            }
            if config.tokens.is_empty() {
                // One that can't be understood must not be left out: without any, everybody may do everything.
                let tokens = admission.tokens.into_iter().map(token);
                config.tokens = tokens.collect::<Result<_, _>>()?;
            }
            members = admission.members.into_iter().map(|member| member.name).collect();
        }
        if config.tokens.is_empty() && !config.insecure_no_auth && !config.http.ip().is_loopback() {
            return Err(Failure::Usage(open_without_auth(config.http)));
        }
        Ok((config, members))
    }
}

/// Calls a node that has no list of its own by the name that its data has.
fn rename(config: &mut Config, name: Name) {
    for node in config.nodes.iter_mut().filter(|node| node.id == config.node) {
        node.id = name.clone();
    }
    config.node = name;
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let called = tokio::task::spawn_blocking(call).await;
    called.unwrap_or_else(|error| Err(Failure::Failed(error.to_string())))
}

/// The cluster, as far as it matters here.
#[derive(Deserialize)]
struct Seen {
    name: Name,
    /// An earlier version doesn't say it, and its cluster never was made anew.
    #[serde(default)]
    lineage: Vec<String>,
}

impl Seen {
    fn lineage(&self) -> Result<Lineage, Failure> {
        let numbers = self.lineage.iter().map(|number| u64::from_str_radix(number, 16));
        let strange = || Failure::Failed("what the cluster says of its lineage can't be understood".into());
        Ok(Lineage::of(numbers.collect::<Result<Vec<_>, _>>().map_err(|_| strange())?))
    }
}

fn token(digest: TokenDigest) -> Result<Token, Failure> {
    let TokenDigest { name, role, sha256 } = digest;
    let known = Role::ALL.into_iter().find(|known| known.word() == role);
    let role = known.ok_or_else(|| strange(StrangeToken(name.clone())))?;
    Ok(Token { role, name, sha256, file: None })
}

fn strange(token: StrangeToken) -> Failure {
    Failure::Failed(token.to_string())
}

#[cfg(test)]
mod tests {
    use tidegate::placement::NodeId;

    use super::*;

    fn admitted(text: &str) -> Result<Claim, String> {
        let read: Admitted = serde_json::from_str(text).map_err(|error| error.to_string())?;
        read.claim().map_err(|token| token.to_string())
    }

    fn joining(is_named: bool) -> Joining {
        let server = ServerArgs { url: String::new(), token: None, ca_cert: None };
        Joining { url: None, server, has_file: false, is_named }
    }

    const ANSWER: &str = r#"{"id":"n4","number":57,"http":"127.0.0.1:7074","peer":"127.0.0.1:7174","cluster":"demo",
        "environment":"production","members":[{"id":"n1","number":1,"peer":"127.0.0.1:7171"}],
        "tokens":[{"name":"ops","role":"admin","sha256":"SUM"}]}"#;

    #[test]
    fn a_node_that_is_admitted_knows_who_it_is_whom_it_may_speak_with_and_who_may_ask() {
        let sum = Token::new("ops", Role::Admin, "sesame").sha256;
        let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        let claim = admitted(&ANSWER.replace("SUM", &hex)).unwrap();
        assert_eq!(claim.to_string(), "n4 of the cluster demo (node 57)");
        let admission = claim.admission.clone().unwrap();
        assert_eq!((admission.environment.as_str(), admission.members[0].number), ("production", NodeId(1)));
        let config = Config { peer: Some(([127, 0, 0, 1], 7174).into()), ..Config::standalone() };
        let (config, members) = joining(false).as_claimed(config, Some(claim)).unwrap();
        assert_eq!((config.node.as_str(), config.cluster.as_str()), ("n4", "demo"));
        assert_eq!(config.nodes[0].id.as_str(), "n4");
        assert_eq!(config.tokens, [Token::new("ops", Role::Admin, "sesame")]);
        assert_eq!(members.iter().map(Name::as_str).collect::<Vec<_>>(), ["n1"]);
    }

    #[test]
    fn a_token_that_is_not_understood_is_not_left_out() {
        let why = "what the cluster says of the token ops can't be understood";
        for sum in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            assert_eq!(admitted(&ANSWER.replace("SUM", sum)).unwrap_err(), why, "{sum}");
        }
        let claim = admitted(&ANSWER.replace("SUM", &"0".repeat(64)).replace("admin", "owner")).unwrap();
        let config = Config { peer: Some(([127, 0, 0, 1], 7174).into()), ..Config::standalone() };
        assert_eq!(joining(true).as_claimed(config, Some(claim)).err().unwrap().to_string(), why);
    }
}
