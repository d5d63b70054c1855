//! A cluster at full speed for as long as a minute. Afterwards the same node must lead in the same
//! term, and every check must have been answered: a flood of checks costs nobody the lead.

use std::error::Error;
use std::time::Duration;

use serde::Serialize;

use super::{Scenario, Settings};
use crate::load::{Load, Phase};
use crate::server::{Server, Standing};

/// What a cluster bore.
#[derive(Clone, Debug, Serialize)]
pub struct Saturated {
    seconds: u32,
    connections: u32,
    decisions: u64,
    decisions_per_second: f64,
    forwarded_share: f64,
    p50_us: f64,
    p99_us: f64,
    /// The slowest answer.
    slowest_us: f64,
    /// Who led before and led after, in that term.
    leader: String,
    term: u64,
}

/// Loads all nodes of `cluster`. An error if any check wasn't answered 200, or if another leads
/// than before.
pub fn run(
    settings: &Settings,
    cluster: &mut Server,
) -> Result<Saturated, Box<dyn Error + Send + Sync>> {
    let mut load = Load::connect(cluster.addresses(), settings.plan(Scenario::Saturation))?;
    let worked = |load: &mut Load, phase, cluster: &mut Server| {
        load.run(phase).map_err(|error| format!("{error}{}", cluster.last_words()))
    };
    worked(&mut load, Phase::Fill, cluster)?;
    let before = agreed(&cluster.standings()?)?;
    let length = Duration::from_secs(u64::from(settings.saturation_seconds));
    let tally = worked(&mut load, Phase::For(length), cluster)?;
    let after = agreed(&cluster.standings()?)?;
    if before != after {
        let words = cluster.last_words();
        return Err(
            format!("{} led before, {} leads after{words}", said(&before), said(&after)).into()
        );
    }
    let percentile = |percent| {
        let found = tally.latencies.percentile(percent).ok_or("no call was answered");
        found.map(|latency| latency.as_secs_f64() * 1e6)
    };
    let (leader, term) = after;
    Ok(Saturated {
        seconds: settings.saturation_seconds,
        connections: settings.connections,
        decisions: tally.decisions,
        decisions_per_second: tally.decisions as f64 / tally.elapsed.as_secs_f64(),
        forwarded_share: tally.outcomes.forwarded_share().unwrap_or(0.0),
        p50_us: percentile(50)?,
        p99_us: percentile(99)?,
        slowest_us: percentile(100)?,
        leader,
        term,
    })
}

/// Who leads and in which term, if all nodes say the same.
fn agreed(standings: &[Standing]) -> Result<(String, u64), Box<dyn Error + Send + Sync>> {
    let [first, others @ ..] = standings else { return Err("a cluster without nodes".into()) };
    let leader = first.leader.clone().ok_or("a node knows of no leader")?;
    match others.iter().find(|other| (&other.leader, other.term) != (&first.leader, first.term)) {
        None => Ok((leader, first.term)),
        Some(other) => {
            let other = (other.leader.clone().unwrap_or_else(|| "nobody".to_owned()), other.term);
            Err(format!(
                "one node says that {} leads, another {}",
                said(&(leader, first.term)),
                said(&other)
            )
            .into())
        }
    }
}

fn said((leader, term): &(String, u64)) -> String {
    format!("{leader} in term {term}")
}

impl Saturated {
    pub fn text(&self) -> String {
        let Self { seconds, connections, decisions, leader, term, .. } = self;
        format!(
            "\n{seconds} s at full speed over {connections} connections: {decisions} checks, all \
             answered, {:.0} a second, {:.0} % forwarded; p50 {:.0} µs, p99 {:.0} µs, the slowest \
             {:.0} ms. {leader} led in term {term} before and after.\n",
            self.decisions_per_second,
            self.forwarded_share * 100.0,
            self.p50_us,
            self.p99_us,
            self.slowest_us / 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(leader: Option<&str>, term: u64) -> Standing {
        let leader = serde_json::json!(leader);
        serde_json::from_value(serde_json::json!({"leader": leader, "term": term, "nodes": []}))
            .unwrap()
    }

    #[test]
    fn nodes_agree_on_a_leader_and_a_term_or_it_is_said_who_doesnt() {
        let n1 = || standing(Some("n1"), 3);
        assert_eq!(agreed(&[n1(), n1(), n1()]).unwrap(), ("n1".to_owned(), 3));
        let said = agreed(&[n1(), standing(Some("n2"), 4)]).unwrap_err().to_string();
        assert_eq!(said, "one node says that n1 in term 3 leads, another n2 in term 4");
        assert!(agreed(&[n1(), standing(None, 3)]).is_err());
        assert!(agreed(&[standing(None, 3)]).is_err());
        assert!(agreed(&[]).is_err());
    }
}
