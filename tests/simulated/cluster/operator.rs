//! Who runs the cluster: a node is admitted, one is drained and called back, one leaves and comes
//! back as another, one is stopped and started again, and where nodes die, one is given up that
//! won't come back; all of it while there are faults.
//!
//! An order is given again until it is known to be done, or refused. When the faults are over, the
//! cluster is to become what was ordered.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tidegate::random::Generator;

use super::door;
use super::world::{World, name};
use super::{FAULTS_END, FAULTS_FROM, HOSTS};

/// Between two orders, in milliseconds: the partitions of one may move yet when the next comes.
const PAUSE_MS: std::ops::Range<u64> = 300..2_500;
/// How long a stopped node stays so, in milliseconds.
const STOPPED_MS: std::ops::Range<u64> = 20..800;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
const PARTITIONS: u64 = 4096;

/// What only whoever runs the simulation can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A host gets a new disk, and a node that has to ask to be admitted.
    Come(usize),
    /// The process on a host has ended, and is started again.
    Start(usize),
    /// A host burns down.
    Die(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Join(usize),
    Leave(usize),
    Drain(usize),
    CallBack(usize),
    Restart(usize),
    /// A host burns down, and its node is given up.
    GiveUp(usize),
}

/// What becomes of an order.
enum Outcome {
    Done,
    Refused,
    Unknown,
}

struct Operator {
    world: World,
    chance: Generator,
    drained: BTreeSet<usize>,
    /// Who was to be drained by an order whose answer was lost: it may be carried out after the one
    /// that called them back.
    doubtful: BTreeSet<usize>,
}

impl World {
    /// Runs the cluster until it stands as it was ordered, after the faults.
    pub async fn operate(self) -> turmoil::Result {
        let chance = self.chance("operator", 0);
        let mut operator =
            Operator { world: self, chance, drained: BTreeSet::new(), doubtful: BTreeSet::new() };
        tokio::time::sleep(FAULTS_FROM - Duration::from_millis(500)).await;
        let mut order = Order::Join(HOSTS - 1);
        while turmoil::sim_elapsed().is_some_and(|now| now < FAULTS_END) {
            operator.give(order).await;
            operator.pause(PAUSE_MS).await;
            order = operator.some_order();
        }
        while !operator.world.books.seen().healed {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        for host in operator.drained.clone() {
            operator.give(Order::CallBack(host)).await;
        }
        operator.until_settled().await;
        operator.world.books.seen().settled = true;
        Ok(())
    }
}

impl Operator {
    async fn pause(&mut self, ms: std::ops::Range<u64>) {
        let ms = ms.start + self.chance.next_u64() % (ms.end - ms.start);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn some_order(&mut self) -> Order {
        let mut members = self.world.members();
        members.retain(|host| self.world.books.seen().nodes[*host].is_admitted);
        let node = members[(self.chance.next_u64() % members.len() as u64) as usize];
        if let Some(gone) = self.gone().filter(|_| self.chance.next_u64().is_multiple_of(2)) {
            return Order::Join(gone);
        }
        let dies =
            self.world.deaths && members.len() > 3 && self.chance.next_u64().is_multiple_of(4);
        match self.chance.next_u64() % 6 {
            _ if dies => Order::GiveUp(node),
            0..2 if members.len() > 3 => Order::Leave(node),
            2..4 => match self.drained.first() {
                Some(drained) => Order::CallBack(*drained),
                None => Order::Drain(node),
            },
            _ => Order::Restart(node),
        }
    }

    /// A host whose node has left, and whose process has ended.
    fn gone(&self) -> Option<usize> {
        let seen = self.world.books.seen();
        (0..HOSTS).find(|host| !seen.nodes[*host].is_wanted)
    }

    /// Gives an order until it is known what becomes of it.
    async fn give(&mut self, order: Order) {
        self.world.books.trace.note(format_args!("{order:?}"));
        match order {
            Order::Join(host) => {
                let mut seen = self.world.books.seen();
                let seat = &mut seen.nodes[host];
                (seat.is_wanted, seat.joins, seat.is_admitted) = (true, true, false);
                seen.deeds.push(Deed::Come(host));
            }
            Order::Restart(host) => self.restart(host).await,
            Order::Leave(host) => {
                self.world.books.seen().nodes[host].leaves = true;
                if !self.insist("DELETE", host, "").await {
                    self.world.books.seen().nodes[host].leaves = false;
                } else {
                    self.drained.remove(&host);
                }
            }
            Order::GiveUp(host) => {
                {
                    let mut seen = self.world.books.seen();
                    seen.deeds.push(Deed::Die(host));
                    (seen.nodes[host].is_wanted, seen.nodes[host].is_admitted) = (false, false);
                }
                // It won't come back. Whoever refuses does so since others can't be reached just
                // now.
                while !self.insist("DELETE", host, "?force").await {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
                self.drained.remove(&host);
            }
            Order::Drain(host) => {
                if self.insist("POST", host, "/drain").await {
                    self.drained.insert(host);
                }
            }
            Order::CallBack(host) => {
                if self.insist("DELETE", host, "/drain").await {
                    self.drained.remove(&host);
                }
            }
        }
        self.world.books.seen().orders_done += 1;
    }

    /// Stops a node as SIGTERM does, and starts it again once its process has ended.
    async fn restart(&mut self, host: usize) {
        let life = {
            let mut seen = self.world.books.seen();
            seen.nodes[host].stops = true;
            seen.nodes[host].life
        };
        loop {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let seat = self.world.books.seen().nodes[host];
            // Where it died meanwhile it begins anew without this.
            if seat.ended || seat.life != life {
                break;
            }
        }
        self.pause(STOPPED_MS).await;
        self.world.books.seen().deeds.push(Deed::Start(host));
    }

    /// Whether the order was carried out, in the end.
    async fn insist(&mut self, method: &str, host: usize, what: &str) -> bool {
        let path = format!("/v1/cluster/nodes/{}{what}", name(host));
        let mut asked_before = false;
        loop {
            let members = self.world.members();
            let via = members[(self.chance.next_u64() % members.len() as u64) as usize];
            match self.once(via, method, &path, asked_before).await {
                Outcome::Done => return true,
                // What may have been done before isn't undone by that: it is refused for want of
                // others who can be reached.
                Outcome::Refused if asked_before => {}
                Outcome::Refused => return false,
                Outcome::Unknown => {
                    asked_before = true;
                    if what == "/drain" {
                        self.doubtful.insert(host);
                    }
                }
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    async fn once(&self, via: usize, method: &str, path: &str, asked_before: bool) -> Outcome {
        let answer = door::order(via, method, path, "").await;
        let (told, outcome) = match &answer {
            Ok((200 | 202, _)) => ("done".into(), Outcome::Done),
            // Who was to leave before may have left.
            Ok((404, _)) if asked_before => ("gone".into(), Outcome::Done),
            Ok((status @ 400..500, said)) => {
                (format!("{status}, {}", said["detail"]), Outcome::Refused)
            }
            Ok((status, _)) => (status.to_string(), Outcome::Unknown),
            Err(error) => (error.kind().to_string(), Outcome::Unknown),
        };
        self.world.books.trace.note(format_args!("{method} {path} through n{}: {told}", via + 1));
        outcome
    }

    /// Waits until every member says that exactly those are there that should be, and that they
    /// share all partitions evenly.
    async fn until_settled(&self) {
        let members = self.world.members();
        for via in &members {
            let mut told = String::new();
            loop {
                let answer = door::request(*via, "GET", "/v1/cluster", "").await;
                let why = match answer {
                    Ok((200, status)) => unsettled(&status, &members),
                    Ok((status, _)) => Some(status.to_string()),
                    Err(error) => Some(error.kind().to_string()),
                };
                let Some(why) = why else { break };
                if why != told {
                    self.world.books.trace.note(format_args!("n{} is not settled: {why}", via + 1));
                }
                told = why;
                // Whoever is to leave and called back would stay.
                for host in members.iter().filter(|host| self.doubtful.contains(*host)) {
                    self.once(
                        *via,
                        "DELETE",
                        &format!("/v1/cluster/nodes/{}/drain", name(*host)),
                        true,
                    )
                    .await;
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        }
        // Those that have left are to have ended, too.
        while (0..HOSTS).any(|host| self.world.books.seen().nodes[host].leaves) {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }
}

/// What is not as it should be, if anything.
fn unsettled(status: &Value, members: &[usize]) -> Option<String> {
    let nodes = status["nodes"].as_array()?;
    let there: Vec<_> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let mut wanted: Vec<_> = members.iter().map(|host| name(*host).to_string()).collect();
    let mut sorted = there.clone();
    wanted.sort();
    sorted.sort();
    if sorted != wanted {
        return Some(format!("{sorted:?} are there, {wanted:?} should be"));
    }
    let count = members.len() as u64;
    let fair = PARTITIONS / count..=PARTITIONS.div_ceil(count);
    nodes.iter().find_map(|node| {
        let partitions = node["partitions"].as_u64().unwrap_or(0);
        let fine = node["state"] == "up" && fair.contains(&partitions);
        (!fine)
            .then(|| format!("{} is {}, with {partitions} partitions", node["id"], node["state"]))
    })
}
