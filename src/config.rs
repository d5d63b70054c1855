//! `cluster.toml`: read, checked, and turned into what one node needs to know.
//!
//! One file serves every node of a cluster; `--node` says which one this is. Paths in it are
//! relative to it. All faults come at once; a member that is unknown is one, with the nearest known
//! name.

mod auth;
mod forward_auth;
mod http;
mod nodes;
mod peers;
mod secret;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::check::Name;
use crate::input::{Fault, Reader, Tree};
use crate::net::{Certified, ROUND_TRIP_MS_BOUNDS};
use crate::placement::Weight;
use nodes::Entry;
use peers::PeerSecrets;

pub use auth::{
    ADMIN_VARIABLE, Role, TOKENS_MAX, Token, open_without_auth, read_again as read_tokens_again,
    unused_admin_variable,
};
pub use forward_auth::{ForwardAuth, Header, Origin};
pub use http::{HOST, HOSTS_MAX, Metrics, host};
pub use nodes::{
    ADDRESS_BYTES_MAX, ADVERTISED, LISTEN, NODES_MAX, SeedNode, advertised, listening, weight,
};
pub use peers::{PEER_VARIABLE, PeerKeySource, PeerSecret};
pub use secret::{SECRET_BYTES_MIN, Secret, Sources, secret};
pub use tls::Tls;

/// What one node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which entry of the policy's environments multiplies its limits.
    pub environment: Name,
    /// The cluster's name.
    pub cluster: Name,
    /// Milliseconds of the round trip between nodes that the cluster's timers are to allow, until
    /// the log says otherwise; none is [`ROUND_TRIP_MS`](crate::net::ROUND_TRIP_MS).
    pub round_trip_ms: Option<u64>,
    /// This node's id.
    pub node: Name,
    /// Where it listens for HTTP; port 0 lets the system choose.
    pub http: SocketAddr,
    /// Where it listens for peers, without `tls` on loopback; port 0 lets the system choose where
    /// it is the only node. None is nowhere.
    pub peer: Option<SocketAddr>,
    /// Where it keeps what must survive.
    pub data_dir: PathBuf,
    /// The policy of the very first start; none is the built-in one.
    pub policy_file: Option<PathBuf>,
    /// Who may do what; empty where no token is configured.
    pub tokens: Vec<Token>,
    /// The secrets by which nodes know each other, as they are configured; see
    /// [`Config::peer_keys`].
    pub peer_secrets: Vec<PeerSecret>,
    /// The files that those were read from.
    pub peer_secret_files: Vec<PathBuf>,
    /// Whether the file has the section `[peers]`, so that [`PEER_VARIABLE`] is not read.
    pub has_peers_section: bool,
    /// The digest of the nodes that the file lists; none where it lists one, or there is no file.
    pub founders: Option<[u8; 16]>,
    /// Who may read its metrics, where it has tokens.
    pub metrics: Metrics,
    /// Names under which callers reach it, beside IP addresses and what is advertised.
    pub hosts: Vec<String>,
    /// Whether it may be open to other machines without any token.
    pub insecure_no_auth: bool,
    /// Its certificates; none, and it speaks plain text.
    pub tls: Option<Tls>,
    /// Bounds.
    pub limits: Limits,
    /// How requests that a proxy asks about are read.
    pub forward_auth: ForwardAuth,
    /// What is logged, where nothing else says so.
    pub log_filter: Option<String>,
    /// All nodes of the file, in its order: the members of the cluster's first start.
    pub nodes: Vec<SeedNode>,
    /// This node, where it isn't among them.
    pub unlisted: Option<SeedNode>,
}

/// What is said of one node beside the file: it comes before what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Where it listens for HTTP; it is reached there unless something else is said.
    pub http: Option<SocketAddr>,
    /// Where clients reach it, as `HOST:PORT`.
    pub http_advertise: Option<String>,
    /// Where it listens for peers; they reach it there unless something else is said.
    pub peer: Option<SocketAddr>,
    /// Where peers reach it, as `HOST:PORT`.
    pub peer_advertise: Option<String>,
    /// Where it keeps what must survive.
    pub data_dir: Option<PathBuf>,
    /// How much of the load it takes, if it joins.
    pub weight: Option<Weight>,
    /// Names under which callers reach it: in place of those that the file lists.
    pub hosts: Option<Vec<String>>,
    /// Its tokens may come from elsewhere, so that an open address without `[auth]` is not judged
    /// here.
    pub may_have_tokens: bool,
    /// Whether it may be open to other machines without any token.
    pub insecure_no_auth: bool,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $default:expr, $bounds:expr;)*) => {
        /// Everything that has a bound, with the bound's name in `[limits]`.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        fn limits(r: &mut Reader, tree: &Tree) -> Option<Limits> {
            let mut fields = r.fields(tree)?;
            let defaults = Limits::default();
            let limits = Limits {
                $($name: fields
                    .optional(r, stringify!($name), |r, t| r.whole(t, $bounds))
                    .unwrap_or(defaults.$name),)*
            };
            fields.finish(r);
            Some(limits)
        }
    };
}

limits! {
    /// Threads that decide, each with a shard of its own; by default one per core.
    workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64), 1..=256;
    /// Open connections; further ones are closed at once.
    connections = 10_000, 1..=1_000_000;
    /// Bytes of the body of a check.
    body_bytes = 16 << 10, 1_024..=1 << 20;
    /// Bytes of the body of a batch.
    batch_body_bytes = 1 << 20, 1_024..=64 << 20;
    /// Bytes of a policy document.
    policy_body_bytes = 64 << 20, 1_024..=1 << 30;
    /// Bytes of a request's head.
    header_bytes = 16 << 10, 8_192..=1 << 20;
    /// Headers of a request.
    headers = 64, 8..=1_024;
    /// Milliseconds for a request's head to arrive.
    header_ms = 5_000, 100..=600_000;
    /// Milliseconds for a request's body to arrive.
    body_ms = 5_000, 100..=600_000;
    /// Milliseconds that a connection may be idle between requests.
    idle_ms = 60_000, 100..=86_400_000;
    /// Milliseconds at a stop in which `/readyz` says so and requests are still taken, so that
    /// balancers notice: longer than a balancer's check interval times the failures that it waits
    /// for.
    notice_ms = 500, 0..=600_000;
    /// Milliseconds for accepted requests to finish at a stop.
    drain_ms = 20_000, 100..=600_000;
    /// Tenants in memory that the policy doesn't name.
    unknown_tenants = 1_000_000, 1..=1_000_000_000;
    /// Tenants in memory that the policy names.
    named_tenants = 1_000_000, 1..=1_000_000_000;
    /// Buckets of one tenant.
    keys_per_tenant = 10_000, 1..=10_000_000;
    /// Buckets of all tenants; named ones have theirs beyond it, bounded by `keys_per_tenant`.
    keys = 4_000_000, 1..=4_000_000_000;
    /// Buckets that tenants share.
    shared_keys = 1_000_000, 1..=1_000_000_000;
    /// Request ids remembered, of all tenants.
    request_ids = 1_000_000, 1..=1_000_000_000;
}

impl Config {
    /// A node without a file: on loopback, with the built-in policy, data beside it.
    pub fn standalone() -> Self {
        let name = |text| Name::new(text).unwrap_or_else(|| unreachable!("{text} is a name"));
        let http = SocketAddr::from(([127, 0, 0, 1], 7070));
        Self {
            environment: name("production"),
            cluster: name("tidegate"),
            round_trip_ms: None,
            node: name("n1"),
            http,
            peer: None,
            data_dir: PathBuf::from("tidegate-data"),
            policy_file: None,
            tokens: Vec::new(),
            peer_secrets: Vec::new(),
            peer_secret_files: Vec::new(),
            has_peers_section: false,
            founders: None,
            metrics: Metrics::at(http.ip()),
            hosts: Vec::new(),
            insecure_no_auth: false,
            tls: None,
            limits: Limits::default(),
            forward_auth: ForwardAuth::default(),
            log_filter: None,
            nodes: vec![SeedNode {
                id: name("n1"),
                http: http.to_string(),
                peer: None,
                weight: Weight::ONE,
            }],
            unlisted: None,
        }
    }

    /// The same under another name, or elsewhere. `variable` looks up [`ADMIN_VARIABLE`] and
    /// [`PEER_VARIABLE`].
    pub fn standalone_as(
        node: Option<&str>,
        own: &Own,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Fault>> {
        let standalone = Self::standalone();
        let mut r = Reader::default();
        let id = match node {
            Some(node) => {
                r.member("node", |r| r.parsed(&Tree::Text(node.into()), Name::EXPECTED, Name::new))
            }
            None => Some(standalone.node.clone()),
        };
        let entry = id.map(|id| {
            let seed = SeedNode { id, ..standalone.nodes[0].clone() };
            let (http, data_dir) = (standalone.http, standalone.data_dir.clone());
            own.put(Entry {
                seed,
                http,
                has_http_advertised: false,
                peer: None,
                has_peer_advertised: false,
                data_dir,
                at: 0,
            })
        });
        let tokens = auth::from_variable(&mut r, &variable);
        let peer_secrets = peers::from_variable(&mut r, &variable);
        let entry = entry.inspect(|entry| {
            nodes::judge(&mut r, entry, false);
            if own.peer_advertise.is_some() && entry.peer.is_none() {
                r.fault_at("peer_advertise", "is of no use without peer");
            }
            if own.is_too_open(entry.http, &tokens) {
                r.fault_at("http", open_without_auth(entry.http));
            }
        });
        own.judge_tokens(&mut r, &tokens);
        let Entry { seed, http, peer, data_dir, .. } = r.finish(entry)?;
        let (nodes, insecure_no_auth) = (vec![seed.clone()], own.insecure_no_auth);
        let (metrics, hosts) = (Metrics::at(http.ip()), own.hosts.clone().unwrap_or_default());
        let own = Self { tokens, peer_secrets, metrics, hosts, insecure_no_auth, ..standalone };
        Ok(Self { node: seed.id, http, peer, data_dir, nodes, ..own })
    }

    /// Reads the file at `path` for the node `node`; without one, for the only node it lists. `own`
    /// is what is said of it beside the file. `variable` looks up what `env:NAME` stands for.
    pub fn load(
        path: &Path,
        node: Option<&str>,
        own: &Own,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Fault>> {
        let bytes = read_file(path)?;
        let beside = path.parent().unwrap_or(Path::new("."));
        Self::read_as(&bytes, beside, node, own, variable)
    }

    /// Reads the text of a file that lies in the directory `beside`.
    pub fn read(
        bytes: &[u8],
        beside: &Path,
        node: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Fault>> {
        Self::read_as(bytes, beside, node, &Own::default(), variable)
    }

    fn read_as(
        bytes: &[u8],
        beside: &Path,
        node: Option<&str>,
        own: &Own,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Fault>> {
        let tree = Tree::from_toml(bytes).map_err(|fault| vec![fault])?;
        let mut reader = Reader::default();
        let config = config(&mut reader, &tree, beside, (node, own), &variable);
        reader.finish(config)
    }
}

impl Config {
    /// Returns the keys by which this node and its peers know each other, the one to prove with
    /// first, and where that one is from. `kept` are those in its data directory.
    pub fn peer_keys(&self, kept: &[[u8; 32]]) -> (Vec<[u8; 32]>, PeerKeySource) {
        peers::keys(&self.peer_secrets, &self.tokens, kept)
    }
}

impl Config {
    /// Whether the keys from `source` are to be kept in the data directory: those that a later
    /// start without the same tokens or secret could not make. A list with `auth` means what is
    /// kept already.
    pub fn keeps_peer_keys(&self, source: PeerKeySource) -> bool {
        match source {
            PeerKeySource::AdminTokens => true,
            PeerKeySource::Configured => !self.peer_secrets.contains(&PeerSecret::Auth),
            PeerKeySource::Kept | PeerKeySource::Nowhere => false,
        }
    }
}

impl Own {
    /// Whether a node that listens at `http` with these tokens would be open to everybody on other
    /// machines, unasked.
    fn is_too_open(&self, http: SocketAddr, tokens: &[Token]) -> bool {
        tokens.is_empty()
            && !self.may_have_tokens
            && !self.insecure_no_auth
            && !http.ip().is_loopback()
    }

    /// Faults tokens beside the word that there are to be none.
    fn judge_tokens(&self, r: &mut Reader, tokens: &[Token]) {
        if let Some(token) = tokens.first().filter(|_| self.insecure_no_auth) {
            let name = &token.name;
            r.fault(format!(
                "--insecure-no-auth is for a node without tokens, and this one has the token {name}"
            ));
        }
    }

    /// The entry of the node, with what is said of it beside the list.
    fn put(&self, mut entry: Entry) -> Entry {
        let Self { http_advertise, peer_advertise, .. } = self;
        if let Some(http) = self.http {
            entry.http = http;
            if !entry.has_http_advertised {
                entry.seed.http = http.to_string();
            }
        }
        if let Some(peer) = self.peer {
            entry.peer = Some(peer);
            if !entry.has_peer_advertised {
                entry.seed.peer = Some(peer.to_string());
            }
        }
        if let Some(reached) = http_advertise {
            (entry.seed.http, entry.has_http_advertised) = (reached.clone(), true);
        }
        if let (Some(reached), true) = (peer_advertise, entry.peer.is_some()) {
            (entry.seed.peer, entry.has_peer_advertised) = (Some(reached.clone()), true);
        }
        if let Some(data_dir) = &self.data_dir {
            entry.data_dir.clone_from(data_dir);
        }
        entry.seed.weight = self.weight.unwrap_or(entry.seed.weight);
        entry
    }

    /// The entry of a node that no list has, if enough is said of it.
    fn entry(&self, id: &str, at: usize) -> Option<Entry> {
        let (id, http, peer, data_dir) =
            (Name::new(id)?, self.http?, self.peer?, self.data_dir.clone()?);
        let weight = self.weight.unwrap_or(Weight::ONE);
        let seed = SeedNode { id, http: http.to_string(), peer: Some(peer.to_string()), weight };
        let (has_http_advertised, has_peer_advertised, peer) = (false, false, Some(peer));
        Some(self.put(Entry {
            seed,
            http,
            has_http_advertised,
            peer,
            has_peer_advertised,
            data_dir,
            at,
        }))
    }
}

fn config(
    r: &mut Reader,
    tree: &Tree,
    beside: &Path,
    (node, own): (Option<&str>, &Own),
    variable: &impl Fn(&str) -> Option<String>,
) -> Option<Config> {
    let standalone = Config::standalone();
    let mut fields = r.fields(tree)?;
    let name = |r: &mut Reader, t: &Tree| r.parsed(t, Name::EXPECTED, Name::new);
    let environment = fields.optional(r, "environment", name).unwrap_or(standalone.environment);
    let mut round_trip_ms = None;
    let cluster = fields.optional(r, "cluster", |r, t| {
        let mut fields = r.fields(t)?;
        let cluster = fields.optional(r, "name", name);
        round_trip_ms =
            fields.optional(r, "round_trip_ms", |r, t| r.whole(t, ROUND_TRIP_MS_BOUNDS));
        fields.finish(r);
        cluster
    });
    let has_tls = fields.has("tls");
    let nodes = fields.required(r, "nodes", |r, t| nodes::read(r, t, beside, has_tls));
    let policy_file = fields.optional(r, "policy", |r, t| {
        let mut fields = r.fields(t)?;
        let file = fields.optional(r, "file", |r, t| Some(beside.join(r.text(t)?)));
        fields.finish(r);
        file
    });
    let has_auth = fields.has("auth");
    let sources = Sources { beside, variable };
    let (tokens, metrics) = match has_auth {
        true => fields.optional(r, "auth", |r, t| auth::read(r, t, sources)).unwrap_or_default(),
        false => {
            fields.optional(r, "auth", |_, _| Some(()));
            (auth::from_variable(r, variable), None)
        }
    };
    let has_peers_section = fields.has("peers");
    let peer_secrets = match has_peers_section {
        true => fields.optional(r, "peers", |r, t| peers::read(r, t, sources)).unwrap_or_default(),
        false => {
            fields.optional(r, "peers", |_, _| Some(()));
            PeerSecrets { secrets: peers::from_variable(r, variable), files: Vec::new() }
        }
    };
    let hosts = fields.optional(r, "http", http::read).unwrap_or_default();
    let tls = fields.optional(r, "tls", tls::read);
    let limits = fields.optional(r, "limits", limits).unwrap_or_default();
    let forward_auth = fields.optional(r, "forward_auth", forward_auth::read).unwrap_or_default();
    let log_filter = fields.optional(r, "log", log_filter).flatten();
    fields.finish(r);

    let mut nodes = nodes?;
    let chosen = chosen(r, &nodes, (node, own), has_tls)?;
    if !has_auth && own.is_too_open(chosen.http, &tokens) {
        let detail = open_without_auth(chosen.http);
        r.member("nodes", |r| r.item(chosen.at, |r| r.fault_at("http", detail)));
    }
    own.judge_tokens(r, &tokens);
    // As the file has it: what is said beside it may differ from node to node.
    let founders = peers::founders(nodes.iter().map(|entry| &entry.seed));
    let Entry { seed, http, peer, data_dir, at, .. } = chosen;
    let listed = nodes.get_mut(at).map(|entry| entry.seed = seed.clone());
    let cluster = cluster.unwrap_or(standalone.cluster);
    let us = Certified { cluster: cluster.clone(), node: seed.id.clone() };
    let tls = tls.and_then(|section| r.member("tls", |r| section.open(r, beside, us)));
    Some(Config {
        environment,
        cluster,
        round_trip_ms,
        node: seed.id.clone(),
        http,
        peer,
        data_dir,
        policy_file,
        tokens,
        peer_secrets: peer_secrets.secrets,
        peer_secret_files: peer_secrets.files,
        has_peers_section,
        founders,
        metrics: metrics.unwrap_or(Metrics::at(http.ip())),
        hosts: own.hosts.clone().unwrap_or(hosts),
        insecure_no_auth: own.insecure_no_auth,
        tls,
        limits,
        forward_auth,
        log_filter,
        nodes: nodes.into_iter().map(|entry| entry.seed).collect(),
        unlisted: listed.is_none().then_some(seed),
    })
}

/// `[log]`: the filter of the log.
fn log_filter(r: &mut Reader, tree: &Tree) -> Option<Option<String>> {
    let mut fields = r.fields(tree)?;
    let filter = fields.optional(r, "filter", |r, t| r.text(t).map(String::from));
    fields.finish(r);
    Some(filter)
}

/// The filter of the log in the file at `path`, whatever else is in it.
pub fn log_filter_in(path: &Path) -> Result<Option<String>, Vec<Fault>> {
    let bytes = read_file(path)?;
    let tree = Tree::from_toml(&bytes).map_err(|fault| vec![fault])?;
    let Tree::Map(sections) = &tree else { return Ok(None) };
    let Some((name, section)) = sections.iter().find(|(name, _)| name == "log") else {
        return Ok(None);
    };
    let mut r = Reader::default();
    let filter = r.member(name, |r| log_filter(r, section));
    r.finish(filter)
}

fn read_file(path: &Path) -> Result<Vec<u8>, Vec<Fault>> {
    std::fs::read(path).map_err(|e| vec![Fault::new("", format!("{}: {e}", path.display()))])
}

/// The node of that id, or the only one; one that isn't listed, if it is said where it is.
fn chosen(
    r: &mut Reader,
    nodes: &[Entry],
    (node, own): (Option<&str>, &Own),
    has_tls: bool,
) -> Option<Entry> {
    let found = match node {
        Some(id) => nodes.iter().find(|entry| entry.seed.id.as_str() == id),
        None if nodes.len() == 1 => nodes.first(),
        None => None,
    };
    let unlisted = || own.entry(node?, nodes.len());
    let found = found.cloned().map(|entry| own.put(entry)).or_else(unlisted);
    if let Some(entry) = &found {
        nodes::judge(r, entry, has_tls);
    } else {
        let which = node.map_or("say with --node which one this is".to_string(), |id| {
            format!("there is no node {id}")
        });
        let ids =
            nodes.iter().map(|entry| entry.seed.id.to_string()).collect::<Vec<_>>().join(", ");
        r.member("nodes", |r| r.fault(format!("{which}; the file lists {ids}")));
    }
    found
}

#[cfg(test)]
mod tests;
