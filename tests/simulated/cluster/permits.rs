//! Callers that hold permits while there are faults: however nodes die, no more are in flight than
//! allowed.
//!
//! A permit is certainly in flight from the answer that grants it to the moment its holder sends
//! the release, or to its time after the last check or renewal that was sent and answered. The node
//! knows of it for longer. So those that are in flight during the whole of another check's way
//! count against it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::door::{Answer, request};
use super::world::World;
use crate::sim::between;

pub const HOLDERS: usize = 12;
/// What the tier `busy` allows.
const MAX_CONCURRENT: usize = 3;
/// The time of each permit: what the `max_permit_ttl` of the tier allows.
const TTL: Duration = Duration::from_millis(1_000);
/// Few enough that each has more holders than permits.
const TENANTS: u64 = 3;
const PAUSE_MS: std::ops::Range<u64> = 5..60;
const HELD_MS: std::ops::Range<u64> = 20..900;

/// What was granted. Copies are the same ones.
#[derive(Clone, Default)]
pub struct Permits(Arc<Mutex<Granted>>);

#[derive(Default)]
struct Granted {
    of_tenants: BTreeMap<String, Vec<Held>>,
    renewed: usize,
}

/// From when to when a permit is certainly in flight.
struct Held {
    from: Duration,
    until: Duration,
}

impl Permits {
    /// Notes a permit that was granted between `sent` and `answered`. Returns its number, and how
    /// many others were in flight all that time.
    fn granted(&self, tenant: &str, sent: Duration, answered: Duration) -> (usize, usize) {
        let mut granted = self.0.lock().unwrap();
        let held = granted.of_tenants.entry(tenant.into()).or_default();
        let others = held.iter().filter(|held| held.from <= sent && held.until >= answered).count();
        held.push(Held { from: answered, until: sent + TTL });
        (held.len() - 1, others)
    }

    fn until(&self, tenant: &str, number: usize) -> Duration {
        self.0.lock().unwrap().of_tenants[tenant][number].until
    }

    fn set_until(&self, tenant: &str, number: usize, until: Duration) {
        let mut granted = self.0.lock().unwrap();
        if let Some(held) = granted.of_tenants.get_mut(tenant).and_then(|held| held.get_mut(number))
        {
            held.until = until;
        }
    }

    /// How many permits were granted, and how many renewed.
    pub fn shown(&self) -> (usize, usize) {
        let granted = self.0.lock().unwrap();
        (granted.of_tenants.values().map(Vec::len).sum(), granted.renewed)
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn told(answer: &Answer) -> String {
    match answer {
        Ok((status, said)) => format!("{status} {}", said["allowed"]),
        Err(error) => error.kind().to_string(),
    }
}

impl World {
    /// One of the callers that ask for permits and hold them.
    pub async fn hold(self, holder: u64) -> turmoil::Result {
        let mut chance = self.chance("holder", holder);
        loop {
            tokio::time::sleep(Duration::from_millis(between(&mut chance, PAUSE_MS))).await;
            let tenant = format!("b{}", between(&mut chance, 0..TENANTS));
            let ttl = json!({"ttl_ms": TTL.as_millis() as u64});
            let body =
                json!({"tenant": tenant, "tier": "busy", "permit": ttl, "deadline_ms": 1_000});
            let (via, sent) = (self.any_host(&mut chance), now());
            let answer = request(via, "POST", "/v1/check", &body.to_string()).await;
            let answered = now();
            self.books.trace.note(format_args!("{tenant} through n{}: {}", via + 1, told(&answer)));
            let granted =
                answer.ok().filter(|(status, said)| *status == 200 && said["allowed"] == true);
            let Some(id) =
                granted.and_then(|(_, said)| Some(said["permit"]["id"].as_str()?.to_string()))
            else {
                continue;
            };
            let (number, others) = self.permits.granted(&tenant, sent, answered);
            self.books.check(others < MAX_CONCURRENT, || {
                format!("{tenant} was granted {id} beside {others} permits in flight")
            });
            tokio::time::sleep(Duration::from_millis(between(&mut chance, HELD_MS))).await;
            let via = self.any_host(&mut chance);
            match between(&mut chance, 0..3) {
                0 => self.renew(via, (&tenant, number), &id).await,
                1 => {
                    let until = self.permits.until(&tenant, number);
                    self.permits.set_until(&tenant, number, until.min(now()));
                    drop(request(via, "DELETE", &format!("/v1/permits/{id}"), "").await);
                }
                _ => {}
            }
        }
    }

    async fn renew(&self, via: usize, (tenant, number): (&str, usize), id: &str) {
        let (sent, until) = (now(), self.permits.until(tenant, number));
        let body = json!({"ttl_ms": TTL.as_millis() as u64}).to_string();
        let answer = request(via, "POST", &format!("/v1/permits/{id}/renew"), &body).await;
        self.books.trace.note(format_args!(
            "{id} is renewed through n{}: {}",
            via + 1,
            told(&answer)
        ));
        match answer {
            Ok((200, _)) => {
                self.permits.set_until(tenant, number, until.max(sent + TTL));
                self.permits.0.lock().unwrap().renewed += 1;
            }
            Ok((404, _)) => {
                self.books
                    .check(now() > until, || format!("{id} of {tenant} is gone before its time"));
            }
            _ => {}
        }
    }
}
