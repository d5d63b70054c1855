//! Who asks: several callers at once while there are faults, and one who asks for all that is left
//! when they are over.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate::random::Generator;

use super::books::Against;
use super::door::{self, request};
use super::world::World;
use super::{HOSTS, LIMIT, OWN_LIMIT, SHARED};
use crate::sim::between;

pub const CALLERS: usize = 4;
/// Tenants that are asked before and after a node dies: about a third of them are that node's.
pub const ASKED_TWICE: u64 = 60;
/// Tenants of the default tier.
const TENANTS: u64 = 24;
/// Addresses that only tenants without limits of their own come from, and those that others come
/// from, too.
const ADDRESSES: u64 = 4;
const MIXED: u64 = 3;
/// Changes that are made while there are faults, at most: the history holds a hundred.
const WRITES_MAX: usize = 70;
/// Between two questions of a caller, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 5..90;
const AGAIN_AFTER: Duration = Duration::from_millis(40);

/// A check, and what it is counted against.
struct Check {
    tenant: String,
    tier: Option<&'static str>,
    address: Option<String>,
    cost: u64,
    against: Vec<Against>,
}

impl Check {
    /// Of a tenant with a limit of its own.
    fn of(tenant: String, limit: u64) -> Self {
        let own = Against { key: tenant.clone(), limit, shared: None };
        Self { tenant, tier: None, address: None, cost: 1, against: vec![own] }
    }

    /// Of one of several tenants that only their address limits.
    fn shared(tenant: u64, address: String) -> Self {
        let against =
            vec![Against { key: address.clone(), limit: SHARED, shared: Some("address") }];
        Self {
            tenant: format!("s{tenant}"),
            tier: Some("open"),
            address: Some(address),
            cost: 1,
            against,
        }
    }

    fn from(mut self, address: String) -> Self {
        self.against.push(Against { key: address.clone(), limit: SHARED, shared: Some("address") });
        Self { address: Some(address), ..self }
    }

    fn body(&self) -> String {
        let Self { tenant, tier, address, cost, .. } = self;
        let mut body = json!({"tenant": tenant, "cost": cost, "deadline_ms": 1_000});
        tier.iter().for_each(|tier| body["tier"] = json!(tier));
        address.iter().for_each(|address| body["ip"] = json!(address));
        body.to_string()
    }
}

fn address(i: u64) -> String {
    format!("203.0.113.{}", i + 1)
}

fn mixed(i: u64) -> String {
    format!("198.51.100.{}", i + 1)
}

impl World {
    /// Asks about one tenant; whether it was denied.
    async fn ask(&self, via: usize, check: &Check) -> bool {
        let Check { tenant, address, cost, .. } = check;
        let asked = self.books.asks(tenant);
        let answer = request(via, "POST", "/v1/check", &check.body()).await;
        let said = answer.as_ref().ok().filter(|(status, _)| *status == 200).map(|(_, said)| said);
        let told = match (&answer, said) {
            (_, Some(said)) => format!(
                "{} by {} under {}, version {}",
                if said["allowed"] == true { "allowed" } else { "denied" },
                said["node"].as_str().unwrap_or("nobody"),
                said["epoch"],
                said["policy_version"]
            ),
            (Ok((status, _)), None) => status.to_string(),
            (Err(error), None) => error.kind().to_string(),
        };
        let from = address.as_ref().map(|address| format!(" from {address}")).unwrap_or_default();
        self.books
            .trace
            .note(format_args!("{tenant}{from} for {cost} through n{}: {told}", via + 1));
        self.books.answered(&asked, *cost, &check.against, said)
    }

    /// Gives a tenant a limit of its own; whether that is known to be done, and in force on all
    /// nodes.
    async fn write(&self, via: usize, tenant: &str) -> Option<bool> {
        let limit =
            json!({"name": "day", "algorithm": "fixed_window", "limit": OWN_LIMIT, "window": "1d"});
        let body = json!({"limits": [limit]}).to_string();
        let answer = door::order(via, "PUT", &format!("/v1/tenants/{tenant}"), &body).await;
        let said = answer.ok().filter(|(status, _)| *status == 200).map(|(_, said)| said);
        let told = said.as_ref().map_or("no answer".into(), ToString::to_string);
        self.books.trace.note(format_args!("{tenant} is written through n{}: {told}", via + 1));
        let said = said?;
        self.books.wrote(tenant, &said);
        Some(said["pending"].as_array().is_some_and(Vec::is_empty))
    }

    /// Asks tenants once, and once more at `then`.
    pub async fn ask_twice(self, then: Duration) -> turmoil::Result {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for round in 0..2 {
            for i in 0..ASKED_TWICE {
                let denied = self.ask(0, &Check::of(format!("p{i}"), LIMIT)).await;
                self.books.check(round == 1 || !denied, || {
                    format!("p{i} was denied what nobody had taken")
                });
            }
            let now = turmoil::sim_elapsed().unwrap_or_default();
            tokio::time::sleep(then.saturating_sub(now)).await;
        }
        self.books.seen().done = true;
        Ok(())
    }

    /// The history that a node shows.
    async fn history(&self, via: usize) -> Option<Value> {
        let asked = self.books.asks("");
        let answer = request(via, "GET", "/v1/policy/history", "").await;
        let (_, history) = answer.ok().filter(|(status, _)| *status == 200)?;
        let version = history["version"].as_u64()?;
        self.books.trace.note(format_args!("n{} shows version {version}", via + 1));
        self.books.seen_from(&asked, via, version);
        Some(history)
    }

    /// One of the callers that ask all the time, each through any node.
    pub async fn call(self, caller: u64) -> turmoil::Result {
        let mut chance = self.chance("caller", caller);
        for i in 0u64.. {
            if self.books.seen().settled {
                break;
            }
            tokio::time::sleep(Duration::from_millis(between(&mut chance, PAUSE_MS))).await;
            let via = self.any_host(&mut chance);
            match between(&mut chance, 0..20) {
                0..12 => {
                    let tenant = format!("t{}", between(&mut chance, 0..TENANTS));
                    let mut check = Check::of(tenant, LIMIT);
                    check.cost = if between(&mut chance, 0..5) == 0 {
                        between(&mut chance, 2..5)
                    } else {
                        1
                    };
                    if between(&mut chance, 0..4) == 0 {
                        check = check.from(mixed(between(&mut chance, 0..MIXED)));
                    }
                    self.ask(via, &check).await;
                }
                12..16 => {
                    let address = address(between(&mut chance, 0..ADDRESSES));
                    self.ask(via, &Check::shared(between(&mut chance, 0..7), address)).await;
                }
                16..18 if self.books.seen().written.len() < WRITES_MAX => {
                    self.write(via, &format!("w{caller}-{i}")).await;
                }
                18 => drop(self.history(via).await),
                _ => {
                    let written = self.books.seen().written.clone();
                    let nth = between(&mut chance, 0..written.len().max(1) as u64) as usize;
                    if let Some(tenant) = written.values().nth(nth) {
                        self.ask(via, &Check::of(tenant.clone(), OWN_LIMIT)).await;
                    }
                }
            }
        }
        self.books.seen().silent += 1;
        Ok(())
    }

    /// Any host with a node, also one that is about to leave.
    pub fn any_host(&self, chance: &mut Generator) -> usize {
        let seen = self.books.seen();
        let there: Vec<_> = (0..HOSTS).filter(|host| seen.nodes[*host].is_wanted).collect();
        there[(chance.next_u64() % there.len() as u64) as usize]
    }

    /// The hosts on which a member is to be, and to stay.
    pub fn members(&self) -> Vec<usize> {
        let seen = self.books.seen();
        (0..HOSTS).filter(|host| seen.nodes[*host].is_wanted && !seen.nodes[*host].leaves).collect()
    }

    /// When the faults are over and the cluster stands: asks every node for all that there is, and
    /// looks at what each shows.
    pub async fn judge(self) -> turmoil::Result {
        while self.books.seen().silent < CALLERS {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        let members = self.members();
        // What one node is told is in force on all.
        for via in &members {
            for attempt in 0.. {
                if self.write(*via, &format!("last{via}-{attempt}")).await == Some(true) {
                    break;
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
        join_all(members.iter().map(|via| self.ask_for_all(*via, &members))).await;
        self.judge_history(&members).await;
        self.books.seen().done = true;
        Ok(())
    }

    /// Asks through one node until nothing is left of anything: the last word is a denial, of every
    /// limit, by every node.
    async fn ask_for_all(&self, via: usize, members: &[usize]) {
        let mut checks: Vec<Check> =
            (0..TENANTS).map(|i| Check::of(format!("t{i}"), LIMIT)).collect();
        let written = self.books.seen().written.clone();
        checks.extend(written.values().map(|tenant| Check::of(tenant.clone(), OWN_LIMIT)));
        // Each node is the first to be asked about some tenants that nobody has heard of.
        let mut fresh: Vec<_> = (0..2 * members.len()).collect();
        fresh.rotate_left(via);
        checks.extend(fresh.into_iter().map(|i| Check::of(format!("fresh{i}"), LIMIT)));
        let all = (0..ADDRESSES).map(address).chain((0..MIXED).map(mixed));
        checks.extend(all.enumerate().map(|(i, address)| Check::shared(i as u64, address)));
        for check in &checks {
            while !self.ask(via, check).await {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Every change that was answered stands in every node's history, and made the document that it
    /// was to make.
    async fn judge_history(&self, members: &[usize]) {
        let written = self.books.seen().written.clone();
        for via in members {
            let history = loop {
                if let Some(history) = self.history(*via).await {
                    break history;
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            };
            let versions = history["versions"].as_array().cloned().unwrap_or_default();
            for (version, tenant) in &written {
                let told = versions.iter().find(|past| past["version"] == json!(version));
                let is_told = told.is_some_and(|past| {
                    past["by"] == "ops" && past["what"] == json!(format!("put tenant {tenant}"))
                });
                self.books.check(is_told, || {
                    format!(
                        "{tenant} of version {version} is not in the history of n{}: {told:?}",
                        via + 1
                    )
                });
            }
            let numbers: Vec<_> =
                versions.iter().filter_map(|past| past["version"].as_u64()).collect();
            let is_whole =
                numbers.windows(2).all(|two| two[0] == two[1] + 1) && numbers.last() == Some(&2);
            self.books.check(is_whole, || format!("the history of n{} is {numbers:?}", via + 1));
        }
        for (i, (version, tenant)) in written.iter().enumerate() {
            let via = members[i % members.len()];
            let then = self.document(via, *version).await;
            let before = self.document(via, version - 1).await;
            let limit = &then["tenants"][tenant]["limits"][0]["limit"];
            let made = *limit == json!(OWN_LIMIT) && before["tenants"].get(tenant).is_none();
            self.books
                .check(made, || format!("version {version} doesn't hold what {tenant} was given"));
        }
        let last = written.keys().last().copied().unwrap_or(0);
        for via in members {
            let now = self.document(*via, last).await;
            for tenant in written.values() {
                let there = now["tenants"].get(tenant).is_some();
                self.books.check(there, || format!("{tenant} is not in force on n{}", via + 1));
            }
        }
        self.books.check(written.len() > 5, || format!("only {} changes were made", written.len()));
    }

    async fn document(&self, via: usize, version: u64) -> Value {
        loop {
            let answer = request(via, "GET", &format!("/v1/policy?version={version}"), "").await;
            if let Ok((200, document)) = answer {
                return document;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}
