//! Candidates in turns: in every round each of them warms up and is then measured, under its own
//! load.
//!
//! Candidates may share a server: what is measured then differs in what is asked of it. All of a
//! server's processes count, whichever of them a check goes through.

use std::error::Error;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::cpu::Reading;
use crate::load::{Load, Phase};
use crate::report::Round;
use crate::server::Server;

/// Before every measured run: long enough for caches and branch predictors, and for a processor to
/// raise its clock.
const WARM_UP: Duration = Duration::from_millis(500);

/// A candidate in a scenario: the connections to its server.
pub struct Contender {
    pub name: &'static str,
    /// Which of the servers it is measured on.
    pub server: usize,
    pub load: Load,
}

/// The candidates of a scenario by name, each with its rounds.
pub type Measured = Vec<(&'static str, Vec<Round>)>;

/// Measures every candidate `rounds` times for `length`.
pub fn measure(
    scenario: &str,
    servers: &mut [Server],
    contenders: &mut [Contender],
    rounds: u32,
    length: Duration,
) -> Result<Measured, Box<dyn Error + Send + Sync>> {
    let mut measured: Measured =
        contenders.iter().map(|contender| (contender.name, Vec::new())).collect();
    for number in 1..=rounds {
        for (contender, (name, of)) in contenders.iter_mut().zip(&mut measured) {
            let server = &mut servers[contender.server];
            let round = one(&mut contender.load, server, length)
                .map_err(|error| format!("{name}: {error}{}", server.last_words()))?;
            let Round { cpu_us_per_decision, decisions_per_second, p50_us, .. } = round;
            eprintln!(
                "{scenario} {number}/{rounds} {name}: {cpu_us_per_decision:.2} µs, \
                 {decisions_per_second:.0}/s, p50 {p50_us:.0} µs",
            );
            of.push(round);
        }
    }
    Ok(measured)
}

fn one(
    load: &mut Load,
    server: &Server,
    length: Duration,
) -> Result<Round, Box<dyn Error + Send + Sync>> {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let pids = server.pids();
    load.run(Phase::For(WARM_UP))?;
    // Between two phases no call is under way: all that the server spends here is spent on the
    // answers counted.
    let before = Reading::take(&pids)?;
    let tally = load.run(Phase::For(length))?;
    let spent = Reading::take(&pids)?.since(&before);
    Round::new(&tally, spent, processors).ok_or_else(|| "no call was answered".into())
}
