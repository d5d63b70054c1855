//! How a node comes by its identity: by its data, by the configuration, or by asking a cluster to
//! admit it.
//!
//! ```text
//! the folder is empty          POST /v1/cluster/nodes → its number, the cluster's name, members, tokens; written down, durably
//! it holds what was given      and nothing of the log: asked again, and the answer is the same, or newer
//! it holds a node              that is the node's identity, and --join is ignored
//! ```
//!
//! The node listens at its peer address before it asks, since the cluster dials it there first.
//!
//! With `--join`, a node that the file lists and whose folder is empty may be one of those that
//! form the cluster. So one line starts every node of a StatefulSet. Such a node runs, isn't ready,
//! and asks the others of the list (`cluster/lost.rs`) and the URL at once:
//!
//! ```text
//! all of the list are empty    they form the cluster
//! one names a cluster          that knows no such member: this run ends, and the next one asks to be admitted
//!                              that knows one whose data this node doesn't have: refused, or given up first with --rejoin
//! one doesn't answer           it waits
//! ```

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tidegate::check::Name;
use tidegate::cluster::claim::{Admitted, Claim, Found, StrangeToken, TokenDigest};
use tidegate::cluster::raft::{OpenError, Place};
use tidegate::cluster::{Member, Newcomer, SeedNode, peer_keys};
use tidegate::config::{Config, Role, Token, open_without_auth};
use tidegate::net::Listen;
use tidegate::node::reached_at;
use tidegate::peer::{BootId, Doorstep, Identity, Key, Lineage, VERSIONS};
use tidegate::placement::FormatLevel;

use super::super::Exit;
use super::super::client::{Client, Request, ServerArgs, encode};
use super::super::failure::Failure;

/// How long a cluster is asked that doesn't answer or has no leader.
const ASK_FOR: Duration = Duration::from_secs(30);
/// The same where a member has to be given up first: the others have to miss it for five seconds,
/// and then replace its vote.
const REJOIN_FOR: Duration = Duration::from_secs(120);
/// How long to wait before it is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// What the node that is asked may take beyond what any call may: it looks for the new node first.
const LOOKS_FOR: Duration = Duration::from_secs(15);
/// How long the URL is given to say whether there is a cluster. It may be this very node's, which
/// doesn't answer yet.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// How often it is asked that while this node waits for the others of its list.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long an earlier run of this process is given to close its files.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// How often that is looked at.
const CLOSED_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What a cluster gives a node that it admits.
struct Given {
    claim: Claim,
    lineage: Lineage,
    /// The keys of the peers; none from a node whose program is older than they are.
    keys: Option<Vec<Key>>,
    /// The round trip that the log says, in milliseconds.
    round_trip_ms: Option<u64>,
}

/// Which cluster to ask, and what else is known of the node.
pub struct Joining {
    /// Where to ask; none asks no cluster.
    pub url: Option<String>,
    /// Whether a member of its name whose data is lost is to be given up.
    pub rejoin: bool,
    /// Whether it is known that there is a cluster which this node is no member of.
    pub must_join: bool,
    /// The token to ask with, and the certificates to believe.
    pub server: ServerArgs,
    /// Whether there is a configuration: then it says which cluster this is.
    pub has_file: bool,
    /// Whether the node was told its name.
    pub is_named: bool,
}

/// What a node starts with.
pub struct Settled {
    /// Its configuration.
    pub config: Config,
    /// The names of the members, as far as they are known.
    pub members: Vec<Name>,
    /// What it does if it begins with nothing and finds a cluster there.
    pub newcomer: Newcomer,
}

/// What the URL says before this node takes part in anything.
enum There {
    /// No answer, or none that says so.
    Unknown(String),
    /// No cluster yet.
    Nothing,
    /// A cluster that this node is no member of, or a member that was never there under another
    /// number than the list's.
    Stranger,
    /// A cluster that this node is a member of, as the list has it, and was never there.
    Expected,
    /// A cluster with a member of its name that was there before.
    Lost(Row),
}

/// Returns the URL that `--join` means: it may leave the scheme out.
pub fn url_of(join: &str, has_tls: bool) -> String {
    match (join.contains("://"), has_tls) {
        (true, _) => join.into(),
        (false, true) => format!("https://{join}"),
        (false, false) => format!("http://{join}"),
    }
}

impl Joining {
    /// Finds out who the node is. It listens at `http`, and at the address of `peers`.
    pub async fn settle<P: Listen>(
        &self,
        config: Config,
        place: &Place,
        http: SocketAddr,
        peers: Option<&mut P>,
    ) -> Result<Settled, Failure> {
        let found = self.found(place).await?;
        let founds = !self.must_join && self.is_listed(&config, found.as_ref());
        let mut newcomer = Newcomer::Ends;
        let claim = match (found, &self.url) {
            (Some(found), Some(url)) if !found.is_blank || found.has_left => {
                tracing::info!(url, "the folder holds {} already: --join is ignored", found.claim);
                Some(found.claim)
            }
            (found, Some(url)) if founds && !self.is_stranger(url, &config, http).await? => {
                newcomer = if self.rejoin { Newcomer::Rejoins } else { Newcomer::Joins };
                found.map(|found| found.claim)
            }
            (found, Some(url)) => Some(self.ask(url, &config, place, found, http, peers).await?),
            (found, None) => found.map(|found| found.claim),
        };
        let (config, members) = self.as_claimed(config, claim)?;
        Ok(Settled { config, members, newcomer })
    }

    async fn found(&self, place: &Place) -> Result<Option<Found>, Failure> {
        let mut waited = Duration::ZERO;
        loop {
            match place.found() {
                Err(OpenError::InUse(_)) if self.must_join && waited < CLOSED_WITHIN => {
                    tokio::time::sleep(CLOSED_AGAIN_AFTER).await;
                    waited += CLOSED_AGAIN_AFTER;
                }
                found => return found.map_err(|error| Failure::Failed(error.to_string())),
            }
        }
    }

    /// Whether the node is one of those that the file lists, and was never admitted.
    fn is_listed(&self, config: &Config, found: Option<&Found>) -> bool {
        let was_admitted = found.is_some_and(|found| found.claim.admission.is_some());
        self.has_file && !was_admitted && config.nodes.iter().any(|node| node.id == config.node)
    }

    /// Whether the URL names a cluster which the node has to ask for admission. Where it says
    /// nothing, the others of the list are asked; a list of one has no others, so that its node
    /// waits for an answer.
    async fn is_stranger(
        &self,
        url: &str,
        config: &Config,
        http: SocketAddr,
    ) -> Result<bool, Failure> {
        let mut waited = Duration::ZERO;
        loop {
            match self.look(url, config, http).await? {
                There::Stranger => return Ok(true),
                There::Lost(row) if !self.rejoin => return Err(row.is_taken()),
                There::Lost(_) => return Ok(true),
                There::Nothing | There::Expected => return Ok(false),
                There::Unknown(_) if config.nodes.len() > 1 => return Ok(false),
                There::Unknown(why) if waited >= ASK_FOR => return Err(Failure::Unreachable(why)),
                There::Unknown(why) => tracing::warn!(url, why, "no answer about a cluster yet"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
            waited += LOOK_EVERY;
        }
    }

    /// Resolves once it is known that this node, which runs as one of its list and begins with
    /// nothing, has to join a cluster instead; or with the reason why it can't.
    pub async fn finds_cluster(
        &self,
        config: &Config,
        http: SocketAddr,
        member: &Member,
        newcomer: Newcomer,
    ) -> Result<(), Failure> {
        let Some(url) = self.url.as_ref().filter(|_| newcomer != Newcomer::Ends) else {
            return pending().await;
        };
        let looking = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let there = self.look(url, config, http).await;
                // It is a member like any other by now, and is what the URL tells of.
                if member.raft().listens() {
                    return pending().await;
                }
                match there {
                    Ok(There::Stranger) => return Ok(()),
                    Ok(There::Lost(row)) if !self.rejoin => return Err(row.is_taken()),
                    Ok(There::Lost(_)) => return Ok(()),
                    Ok(There::Nothing | There::Expected | There::Unknown(_)) => {}
                    // Whether the token or the certificates are wrong matters only if this node has
                    // to join.
                    Err(failure) => {
                        tracing::debug!(%failure, url, "the cluster can't be looked at")
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = member.is_to_join() => {
                tracing::info!(url, "there is a cluster that this node is no member of: it asks to \
                                     be admitted");
                Ok(())
            }
            found = looking => found,
        }
    }

    /// Asks the URL whether there is a cluster. Errs where the URL, the token or the certificates
    /// can't be right.
    async fn look(&self, url: &str, config: &Config, http: SocketAddr) -> Result<There, Failure> {
        if is_own(url, config, http) {
            return Ok(There::Nothing);
        }
        let client = self.server_at(url).client()?;
        let asking = blocking(move || client.send(Request::get("/v1/cluster"))?.read::<Seen>());
        let seen = match tokio::time::timeout(LOOK_WITHIN, asking).await {
            Err(_) => {
                return Ok(There::Unknown(format!("{url} doesn't answer within {LOOK_WITHIN:?}")));
            }
            Ok(Err(failure)) if failure.is_passing() => {
                return Ok(There::Unknown(failure.to_string()));
            }
            Ok(seen) => seen?,
        };
        let listed = config.nodes.iter().position(|node| node.id == config.node);
        Ok(match seen.row(&config.node) {
            _ if seen.nodes.is_empty() => There::Nothing,
            None => There::Stranger,
            Some(row) if row.boot.is_some() => There::Lost(row.clone()),
            Some(row) if listed.is_some_and(|at| at as u64 + 1 == row.number) => There::Expected,
            Some(_) => There::Stranger,
        })
    }

    fn server_at(&self, url: &str) -> ServerArgs {
        let ServerArgs { token, ca_cert, .. } = &self.server;
        ServerArgs { url: url.into(), token: token.clone(), ca_cert: ca_cert.clone() }
    }

    /// Asks to be admitted, and writes the answer down. Without an answer, what was given before
    /// still holds.
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
            return Err(Failure::Usage(
                "a node that joins says with --node how it is called".into(),
            ));
        }
        let Some(peers) = peers else {
            let why = "a node that joins says with --peer where the others reach it";
            return Err(Failure::Usage(why.into()));
        };
        let own = reached_at(config, http, peers.local_addr().ok());
        let before = found.map(|found| found.claim).filter(|claim| claim.admission.is_some());
        let Given { claim, lineage, keys, round_trip_ms } = match (
            self.until_answered(url, config, &own, peers).await,
            before,
        ) {
            (Ok(admitted), _) => admitted,
            (Err(failure), Some(before)) if failure.is_passing() => {
                tracing::warn!(%failure, "no cluster says anything newer than what this node was \
                                          told before");
                return Ok(before);
            }
            (Err(failure), _) => return Err(failure),
        };
        // With another secret it could speak with no member; a cluster that gives none may have
        // one.
        let own = config.peer_keys(&[]).0;
        let is_other = |given: &&Vec<Key>| !own.iter().any(|key| given.contains(&Key::new(*key)));
        if !config.peer_secrets.is_empty()
            && !own.is_empty()
            && let Some(_) = keys.as_ref().filter(|given| !given.is_empty()).filter(is_other)
        {
            let why = "the cluster has another peer secret than this node ([peers] secret, \
                       TIDEGATE_PEER_SECRET): with the cluster's, or none, start it again";
            return Err(Failure::Failed(why.into()));
        }
        let written = place.claim(&claim, &lineage);
        let written =
            written.and_then(|()| round_trip_ms.map_or(Ok(()), |ms| place.keep_round_trip(ms)));
        written.map_err(|error| Failure::Failed(error.to_string()))?;
        // Should this process end here, the cluster is asked again at the next start.
        let kept = match keys {
            Some(keys) => peer_keys::save(&config.data_dir, &keys),
            // A node of an older program knows no keys: one that was kept is of an earlier start.
            None => peer_keys::remove(&config.data_dir),
        };
        kept.map_err(|error| {
            Failure::Failed(format!("can't keep the keys of the peers: {error}"))
        })?;
        tracing::info!("admitted as {claim}");
        Ok(claim)
    }

    async fn until_answered<P: Listen>(
        &self,
        url: &str,
        config: &Config,
        own: &SeedNode,
        peers: &mut P,
    ) -> Result<Given, Failure> {
        let mut told = String::new();
        // An attempt may take long itself, since the cluster dials this node.
        let mut up = pin!(tokio::time::sleep(if self.rejoin { REJOIN_FOR } else { ASK_FOR }));
        loop {
            let failure = match self.once(url, config, own, peers).await {
                Err(Attempt::Later(failure)) => failure,
                Err(Attempt::Failed(failure)) => return Err(failure),
                Ok(admitted) => return Ok(admitted),
            };
            let why = failure.to_string();
            if why != told {
                tracing::warn!(url, why, "not admitted yet");
            }
            told = why;
            tokio::select! {
                biased;
                () = up.as_mut() => return Err(failure),
                () = tokio::time::sleep(ASK_AGAIN_AFTER) => {}
            }
        }
    }

    /// Asks once. The cluster's name and lineage come first: by them the nodes know the new one
    /// when they dial it.
    async fn once<P: Listen>(
        &self,
        url: &str,
        config: &Config,
        own: &SeedNode,
        peers: &mut P,
    ) -> Result<Given, Attempt> {
        let client = std::sync::Arc::new(self.server_at(url).client()?);
        let asks = client.clone();
        let seen = blocking(move || asks.send(Request::get("/v1/cluster"))?.read::<Seen>()).await?;
        if self.has_file && seen.name != config.cluster {
            return Err(Attempt::Failed(Failure::Failed(format!(
                "the cluster at {url} is {}, and this node's configuration is for {}",
                seen.name, config.cluster
            ))));
        }
        match seen.row(&config.node).filter(|row| row.boot.is_some()) {
            Some(row) if self.rejoin => return Err(give_up(client, row.clone()).await),
            Some(row) => return Err(Attempt::Failed(row.is_taken())),
            None => {}
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
            level: FormatLevel::OWN,
        };
        let admitted = tokio::select! {
            biased;
            admitted = admitting => admitted?,
            () = Doorstep::new(peers, us).greet() => unreachable!("it greets for as long as it is \
                                                                   polled"),
        };
        let keys = admitted.peer_keys().map_err(|error| Failure::Failed(error.to_string()))?;
        let round_trip_ms = admitted.round_trip_ms();
        Ok(Given { claim: admitted.claim().map_err(strange)?, lineage, keys, round_trip_ms })
    }

    /// The configuration of the node that the claim names.
    fn as_claimed(
        &self,
        mut config: Config,
        claim: Option<Claim>,
    ) -> Result<(Config, Vec<Name>), Failure> {
        let mut members: Vec<_> = config.nodes.iter().map(|node| node.id.clone()).collect();
        if let Some(Claim { name, cluster, admission: Some(admission), .. }) = claim {
            if !self.has_file {
                (config.cluster, config.environment) = (cluster, admission.environment);
                if !self.is_named {
                    rename(&mut config, name);
                }
                if config.peer.is_none() {
                    let why =
                        format!("{} has others: say with --peer where they reach it", config.node);
                    return Err(Failure::Usage(why));
                }
            }
            if config.tokens.is_empty() {
                // One that can't be understood must not be left out: without any, everybody may do
                // everything.
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

/// Whether `url` is this node's own: it has nothing to say that the node doesn't know.
fn is_own(url: &str, config: &Config, http: SocketAddr) -> bool {
    let listed =
        config.nodes.iter().find(|node| node.id == config.node).or(config.unlisted.as_ref());
    let at = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    at == http.to_string() || listed.is_some_and(|node| node.http == at)
}

/// Why one attempt to be admitted failed.
enum Attempt {
    /// It may be over in a moment.
    Later(Failure),
    /// It is worth no other one.
    Failed(Failure),
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        // The name of a new container may not lead to it yet.
        let may_pass = failure.is_passing() || failure.is_not_found_at_its_address();
        if may_pass { Self::Later(failure) } else { Self::Failed(failure) }
    }
}

/// Has the member of this node's name given up, whose data is lost. The leader refuses that for as
/// long as the member is heard of, and where its vote is needed for a majority.
async fn give_up(client: std::sync::Arc<Client>, row: Row) -> Attempt {
    if row.state == LEAVING {
        let why = format!(
            "the member {} (node {}), whose data is lost, is on its way out",
            row.id, row.number
        );
        return Attempt::Later(Failure::Unsafe(why));
    }
    let path = format!("/v1/cluster/nodes/{}?force=true", encode(row.id.as_str()));
    let given_up = blocking(move || client.send(Request::delete(path))).await;
    match given_up {
        Ok(_) => {
            tracing::warn!(node = %row.id, number = row.number, "a member whose data is lost was \
                                                                 given up");
            Attempt::Later(Failure::Unsafe(format!(
                "the member {} was given up and is on its way out",
                row.id
            )))
        }
        // What would be unsafe now may be safe once the others miss the member.
        Err(failure) if failure.exit() == Exit::Unsafe => Attempt::Later(failure),
        Err(failure) => failure.into(),
    }
}

/// Runs a call that blocks, on a thread that nothing waits for at the end of the process.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let asking = std::thread::Builder::new().name("join".into());
    // A caller that waits no more doesn't want the answer.
    let spawned = asking.spawn(move || drop(answer.send(call())));
    spawned.map_err(|error| Failure::Failed(error.to_string()))?;
    answered.await.unwrap_or_else(|_| Err(Failure::Failed("the call broke off".into())))
}

/// The cluster, as far as it matters here.
#[derive(Deserialize)]
struct Seen {
    name: Name,
    /// An earlier version doesn't say it, and its cluster never was made anew.
    #[serde(default)]
    lineage: Vec<String>,
    /// The members; none before the cluster has begun.
    #[serde(default)]
    nodes: Vec<Row>,
}

/// A member.
#[derive(Clone, Deserialize)]
struct Row {
    id: Name,
    number: u64,
    #[serde(default)]
    state: String,
    /// The life of its process that was there last.
    boot: Option<String>,
}

/// The state of a member that is to be none any more.
const LEAVING: &str = "leaving";

impl Row {
    /// Why a node without data can't be this member.
    fn is_taken(&self) -> Failure {
        let Self { id, number, .. } = self;
        Failure::Failed(format!(
            "{id} is a member already, as node {number}, and this node has none of its data. If \
             that data is lost, give the member up (tidegate cluster leave {id} --force), or start \
             this node with --join and --rejoin, which does so"
        ))
    }
}

impl Seen {
    fn row(&self, node: &Name) -> Option<&Row> {
        self.nodes.iter().find(|row| row.id == *node)
    }

    fn lineage(&self) -> Result<Lineage, Failure> {
        let numbers = self.lineage.iter().map(|number| u64::from_str_radix(number, 16));
        let strange =
            || Failure::Failed("what the cluster says of its lineage can't be understood".into());
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
mod tests;
