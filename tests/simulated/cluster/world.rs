//! Nodes on their hosts: how one lives, from its first call for admission to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidegate::check::Name;
use tidegate::cluster::claim::{Admitted, Claim};
use tidegate::cluster::raft::{Medium, Place};
use tidegate::cluster::{Member, Newcomer};
use tidegate::config::{Config, Role, SeedNode, Token};
use tidegate::node::{Node, Parts, Workers};
use tidegate::peer::{BootId, Doorstep, Identity, Lineage, VERSIONS};
use tidegate::placement::Weight;
use tidegate::policy::Document;
use tidegate::random::{Generator, Seed};

use super::books::Books;
use super::door::{self, TOKEN};
use super::permits::Permits;
use super::{FIRST, HOSTS, POLICY};
use crate::sim::{self, Simulated, SimulatedClock, SimulatedListener};

pub const HTTP: u16 = 7070;
pub const PEER: u16 = 7171;
/// How often a node's table is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a node waits before it asks again to be admitted.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// All that a run consists of, for whoever takes part in it. Copies are the same one.
#[derive(Clone)]
pub struct World {
    pub seed: u64,
    pub media: Vec<Medium>,
    /// Whether nodes die, and may be given up.
    pub deaths: bool,
    pub books: Books,
    pub permits: Permits,
    /// Where nodes leave their counts as they stop.
    pub folder: PathBuf,
}

pub fn name(host: usize) -> Name {
    Name::new(&format!("n{}", host + 1)).unwrap()
}

fn listed(host: usize) -> SeedNode {
    let at = |port: u16| format!("n{}:{port}", host + 1);
    SeedNode { id: name(host), http: at(HTTP), peer: Some(at(PEER)), weight: Weight::ONE }
}

impl World {
    /// Chance of its own for one who takes part.
    pub fn chance(&self, whose: &str, index: u64) -> Generator {
        Seed::from_number(self.seed).fork(whose, index)
    }

    /// Where the counts of a node are while it is stopped.
    pub fn state_file(&self, host: usize) -> PathBuf {
        self.folder.join(format!("n{}.counts", host + 1))
    }

    /// One life of the node on a host. Its process stays until whoever runs the simulation ends it.
    pub async fn live(self, own: usize) -> turmoil::Result {
        let life = self.books.begins(own);
        let ended = self.live_on(own, life).await;
        let (may_end, asked) = {
            let seen = self.books.seen();
            (seen.nodes[own].stops || seen.nodes[own].leaves, seen.nodes[own].stops)
        };
        self.books.trace.note(format_args!("n{} has ended: {ended:?}", own + 1));
        // A node ends by itself only where its disk fails, or it has left.
        let fine = self.media[own].is_off() || may_end && (ended.is_ok() || !asked);
        self.books.check(fine, || format!("n{} has ended: {ended:?}", own + 1));
        if !self.media[own].is_off() {
            self.books.seen().nodes[own].ended = true;
        }
        std::future::pending().await
    }

    async fn live_on(&self, own: usize, life: u64) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let listener = SimulatedListener::bind(HTTP).await.map_err(|e| text(&e))?;
        let mut peers = SimulatedListener::bind(PEER).await.map_err(|e| text(&e))?;
        let place = Place::Medium(self.media[own].clone());
        let mut config = Config::standalone();
        config.node = name(own);
        (config.limits.workers, config.limits.notice_ms, config.limits.drain_ms) = (1, 0, 3_000);
        config.tokens = vec![Token::new("ops", Role::Admin, TOKEN)];
        config.nodes = (0..FIRST).map(listed).collect();
        if self.books.seen().nodes[own].joins {
            let claim = self.claimed(own, life, &place, &mut peers).await?;
            {
                let mut seen = self.books.seen();
                seen.numbers.insert(claim.node.0, own);
                seen.nodes[own].is_admitted = true;
            }
            config.cluster = claim.cluster;
            config.environment =
                claim.admission.ok_or("it was there from the beginning")?.environment;
            config.nodes = vec![listed(own)];
        }
        let parts = Parts {
            config,
            listener,
            peers: Some(peers),
            network: Simulated,
            clock: Arc::new(SimulatedClock::up_for(Duration::from_secs(1_000 * (own as u64 + 1)))),
            seed: sim::node_seed(self.seed, own as u64 + 1, life),
            place,
            initial: Box::new(|| Document::from_toml(POLICY)),
            newcomer: Newcomer::default(),
            peer_keys: Default::default(),
            state_file: Some(self.state_file(own)),
            statistics_file: None,
            workers: Workers::Tasks,
        };
        let node = Node::start(parts).await.map_err(|e| text(&e))?;
        let member = node.member().clone();
        let stop = async {
            while !self.books.seen().nodes[own].stops {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            ended = node.run(stop) => ended.map_err(|e| text(&e)),
            () = self.look_at(&member) => unreachable!("it looks for as long as it is polled"),
        }
    }

    /// Who the node is that joins: what its data says, or what a member answers.
    async fn claimed(
        &self,
        own: usize,
        life: u64,
        place: &Place,
        peers: &mut SimulatedListener,
    ) -> Result<Claim, String> {
        let mut chance = self.chance("whom to ask", (own as u64) << 32 | life);
        loop {
            let found = place.found().map_err(|error| error.to_string())?;
            if let Some(found) = found.filter(|found| !found.is_blank) {
                return Ok(found.claim);
            }
            let via = (chance.next_u64() % HOSTS as u64) as usize;
            if let Some(claim) = self.asked(own, via, peers).await {
                place.claim(&claim, &Lineage::default()).map_err(|error| error.to_string())?;
                self.books.trace.note(format_args!("admitted as {claim}"));
                return Ok(claim);
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// Asks one member to be admitted, standing on the doorstep meanwhile.
    async fn asked(&self, own: usize, via: usize, peers: &mut SimulatedListener) -> Option<Claim> {
        let (_, cluster) = door::request(via, "GET", "/v1/cluster", "").await.ok()?;
        let cluster = Name::new(cluster["name"].as_str()?)?;
        let us = Identity {
            cluster,
            node: name(own),
            boot: BootId(1),
            versions: VERSIONS,
            lineage: Lineage::default(),
            level: tidegate::placement::FormatLevel::OWN,
        };
        let listed = listed(own);
        let body = json!({"id": listed.id, "http": listed.http, "peer": listed.peer}).to_string();
        let answer = tokio::select! {
            biased;
            answer = door::order(via, "POST", "/v1/cluster/nodes", &body) => answer,
            () = Doorstep::new(peers, us).greet() => unreachable!("it greets for as long as it is \
                                                                   polled"),
        };
        let told =
            answer.as_ref().map_or_else(ToString::to_string, |(status, said)| match said["detail"]
                .as_str()
            {
                Some(why) => format!("{status}, {why}"),
                None => status.to_string(),
            });
        self.books.trace.note(format_args!(
            "n{} asks n{} to be admitted: {told}",
            own + 1,
            via + 1
        ));
        let (_, said) = answer.ok().filter(|(status, _)| [200, 201].contains(status))?;
        serde_json::from_value::<Admitted>(said).ok()?.claim().ok()
    }

    /// Notes which partitions move, from whom to whom, by the table that the node goes by.
    async fn look_at(&self, member: &Member) {
        let mut known = None;
        loop {
            let places = member.in_force().places().load().clone();
            if known != Some(places.version()) {
                known = Some(places.version());
                let mut seen = self.books.seen();
                let host = |number: u64| match number {
                    1..=3 => Some(number as usize - 1),
                    _ => seen.numbers.get(&number).copied(),
                };
                let moving = places.table().moves();
                let moving = moving.filter_map(|(_, row, moving)| {
                    Some((host(row.owner.node.0)?, host(moving.to.node.0)?))
                });
                let moving: std::collections::BTreeSet<_> = moving.collect();
                seen.moves += u64::from(!moving.is_empty());
                seen.moving = moving;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
