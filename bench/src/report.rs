//! From the rounds of a scenario to the figures that are compared, and those to a table or JSON.
//!
//! Absolute figures are medians over the rounds. One candidate is the base of the others: the bare
//! service, or a node alone. A ratio to it is the median of the rounds' own ratios, since the two
//! runs of a round follow each other and share the machine's mood: with 6.0, 9.0 and 6.2 µs against
//! 5.0, 7.5 and 5.0 the ratio is 1.20, whatever happened in round two. It can therefore differ a
//! little from the quotient of the medians beside it.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::cpu::Spent;
use crate::load::Tally;
use crate::stats::median;

/// Above this share of the machine's time spent by others, a run's figures are suspect.
const OTHERS_SHARE_MAX: f64 = 0.1;
/// Answers that differ by more than this in size aren't comparable without a word.
const SIZE_RATIO_MAX: f64 = 1.1;

/// One measured run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Round {
    /// User and system time of the server's processes, over the decisions they answered.
    pub cpu_us_per_decision: f64,
    pub decisions_per_second: f64,
    /// Of whole calls: a batch is one.
    pub p50_us: f64,
    pub p99_us: f64,
    /// Of the decisions that were looked at, from 0 to 1.
    pub denied_share: f64,
    /// Of the decisions whose answer was read whole, from 0 to 1: made by another node than the one
    /// asked.
    pub forwarded_share: f64,
    /// Head and body.
    pub answer_bytes: f64,
    /// Of the machine's processor time, from 0 to 1: what neither the server nor the generator
    /// spent.
    pub others_share: f64,
}

impl Round {
    /// `None` of a run without a single answer.
    pub fn new(tally: &Tally, spent: Spent, processors: usize) -> Option<Self> {
        if tally.decisions == 0 || tally.elapsed.is_zero() {
            return None;
        }
        let seconds = tally.elapsed.as_secs_f64();
        Some(Self {
            cpu_us_per_decision: micros(spent.server) / tally.decisions as f64,
            decisions_per_second: tally.decisions as f64 / seconds,
            p50_us: micros(tally.latencies.percentile(50)?),
            p99_us: micros(tally.latencies.percentile(99)?),
            denied_share: tally.outcomes.denied_share()?,
            forwarded_share: tally.outcomes.forwarded_share()?,
            answer_bytes: tally.bytes as f64 / tally.answers as f64,
            others_share: spent.others.as_secs_f64() / (seconds * processors as f64),
        })
    }
}

/// How many times the base's figure, and how much more of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratios {
    pub cpu_per_decision: f64,
    pub decisions_per_second: f64,
    pub p50: f64,
    pub p99: f64,
    pub p50_added_us: f64,
    pub p99_added_us: f64,
}

/// What is said of one candidate in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Result {
    pub candidate: &'static str,
    pub median: Round,
    /// Where the base was measured too.
    pub to_base: Option<Ratios>,
    pub rounds: Vec<Round>,
}

/// All candidates in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub scenario: &'static str,
    /// The candidate that the ratios are to.
    pub base: &'static str,
    pub results: Vec<Result>,
}

/// Everything that was measured, and under which settings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub rounds: u32,
    pub seconds: u32,
    pub connections: u32,
    pub tenants: u32,
    pub comparisons: Vec<Comparison>,
}

impl Comparison {
    /// The candidates that were `measured`, by their names, one of which may be the base. `None` if
    /// one has no round.
    pub fn new(
        scenario: &'static str,
        base: &'static str,
        measured: &[(&'static str, Vec<Round>)],
    ) -> Option<Self> {
        let to =
            measured.iter().find(|(candidate, _)| *candidate == base).map(|(_, rounds)| rounds);
        let results = measured
            .iter()
            .map(|(candidate, rounds)| {
                Some(Result {
                    candidate,
                    median: middle(rounds)?,
                    to_base: to.and_then(|base| ratios(rounds, base)),
                    rounds: rounds.clone(),
                })
            })
            .collect::<Option<_>>()?;
        Some(Self { scenario, base, results })
    }

    /// What being forwarded adds to the time of a call.
    fn added(&self) -> Vec<String> {
        let forwarded = self.results.iter().filter(|result| result.median.forwarded_share > 0.0);
        let added = forwarded.filter_map(|result| Some((result.candidate, result.to_base?)));
        added
            .map(|(candidate, Ratios { p50_added_us, p99_added_us, .. })| {
                let Self { scenario, base, .. } = self;
                format!(
                    "{scenario}: {candidate} adds {p50_added_us:.0} µs to the p50 of {base}, \
                     {p99_added_us:.0} µs to its p99."
                )
            })
            .collect()
    }

    /// What a reader must know before trusting the figures.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for result in &self.results {
            let busiest = result.rounds.iter().map(|round| round.others_share).fold(0.0, f64::max);
            if busiest > OTHERS_SHARE_MAX {
                warnings.push(format!(
                    "{} {}: other processes took up to {:.0} % of the machine; measure again when \
                     it is idle",
                    self.scenario,
                    result.candidate,
                    busiest * 100.0
                ));
            }
        }
        let sizes = self.results.iter().map(|result| result.median.answer_bytes);
        let (least, most) = sizes.fold((f64::INFINITY, 0.0), |(least, most), size| {
            (f64::min(least, size), f64::max(most, size))
        });
        if most > least * SIZE_RATIO_MAX {
            warnings.push(format!(
                "{}: answers of {least:.0} and of {most:.0} bytes are compared",
                self.scenario
            ));
        }
        warnings
    }
}

impl Report {
    pub fn table(&self) -> String {
        let results = || self.comparisons.iter().flat_map(|comparison| &comparison.results);
        // Where there are no other nodes, nothing is forwarded and there is nothing to show.
        let any_forwarded = results().any(|result| result.median.forwarded_share > 0.0);
        let base = match self.comparisons.iter().map(|comparison| comparison.base).reduce(same) {
            Some(base) if !base.is_empty() => format!("x {base}"),
            _ => "x base".to_owned(),
        };
        let mut head: Vec<_> =
            ["scenario", "candidate", "CPU µs/dec", &base, "dec/s", &base, "p50 µs", &base]
                .into_iter()
                .chain(["p99 µs", &base, "denied"])
                .map(str::to_owned)
                .collect();
        head.extend(any_forwarded.then(|| "forwarded".to_owned()));
        head.extend(["bytes", "others"].map(str::to_owned));
        let mut rows = vec![head];
        for comparison in &self.comparisons {
            rows.extend(
                comparison
                    .results
                    .iter()
                    .map(|result| result.row(comparison.scenario, any_forwarded)),
            );
        }
        let mut text = aligned(&rows);
        let Self { rounds, seconds, connections, tenants, .. } = self;
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "\nMedians of {rounds} rounds of {seconds} s, {connections} connections, {tenants} \
             tenants."
        );
        for added in self.comparisons.iter().flat_map(Comparison::added) {
            let _ = writeln!(text, "{added}");
        }
        for warning in self.comparisons.iter().flat_map(Comparison::warnings) {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }
}

impl Result {
    fn row(&self, scenario: &str, any_forwarded: bool) -> Vec<String> {
        let median = &self.median;
        let ratio = |of: fn(&Ratios) -> f64| {
            self.to_base.as_ref().map_or("-".to_owned(), |ratios| format!("{:.2}", of(ratios)))
        };
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let mut row = vec![
            scenario.to_owned(),
            self.candidate.to_owned(),
            format!("{:.2}", median.cpu_us_per_decision),
            ratio(|ratios| ratios.cpu_per_decision),
            format!("{:.0}", median.decisions_per_second),
            ratio(|ratios| ratios.decisions_per_second),
            format!("{:.0}", median.p50_us),
            ratio(|ratios| ratios.p50),
            format!("{:.0}", median.p99_us),
            ratio(|ratios| ratios.p99),
            percent(median.denied_share),
        ];
        row.extend(any_forwarded.then(|| percent(median.forwarded_share)));
        row.extend([format!("{:.0}", median.answer_bytes), percent(median.others_share)]);
        row
    }
}

/// The name that both have, or none.
fn same(one: &'static str, other: &'static str) -> &'static str {
    if one == other { one } else { "" }
}

/// Columns as wide as their widest cell; names to the left, figures to the right. All rows are of
/// one length.
fn aligned(rows: &[Vec<String>]) -> String {
    const NAMES: usize = 2;
    let mut widths = vec![0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if index < NAMES {
                write!(text, "{cell:<width$}  ")
            } else {
                write!(text, "{cell:>width$}  ")
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn middle(rounds: &[Round]) -> Option<Round> {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    Some(Round {
        cpu_us_per_decision: of(|round| round.cpu_us_per_decision)?,
        decisions_per_second: of(|round| round.decisions_per_second)?,
        p50_us: of(|round| round.p50_us)?,
        p99_us: of(|round| round.p99_us)?,
        denied_share: of(|round| round.denied_share)?,
        forwarded_share: of(|round| round.forwarded_share)?,
        answer_bytes: of(|round| round.answer_bytes)?,
        others_share: of(|round| round.others_share)?,
    })
}

fn ratios(rounds: &[Round], base: &[Round]) -> Option<Ratios> {
    let of = |figure: fn(&Round) -> f64| {
        median(rounds.iter().zip(base).map(|(round, base)| figure(round) / figure(base)))
    };
    let more = |figure: fn(&Round) -> f64| {
        median(rounds.iter().zip(base).map(|(round, base)| figure(round) - figure(base)))
    };
    Some(Ratios {
        cpu_per_decision: of(|round| round.cpu_us_per_decision)?,
        decisions_per_second: of(|round| round.decisions_per_second)?,
        p50: of(|round| round.p50_us)?,
        p99: of(|round| round.p99_us)?,
        p50_added_us: more(|round| round.p50_us)?,
        p99_added_us: more(|round| round.p99_us)?,
    })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(cpu: f64) -> Round {
        Round {
            cpu_us_per_decision: cpu,
            decisions_per_second: 1000.0,
            p50_us: 400.0,
            p99_us: 1100.0,
            denied_share: 0.0,
            forwarded_share: 0.0,
            answer_bytes: 700.0,
            others_share: 0.02,
        }
    }

    fn compared(tidegate: &[Round], bare: &[Round]) -> Comparison {
        let measured = [("tidegate", tidegate.to_vec()), ("bare", bare.to_vec())];
        Comparison::new("two-limits", "bare", &measured).unwrap()
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios_and_what_is_added_that_of_their_differences() {
        let comparison = compared(&[6.0, 9.0, 6.2].map(round), &[5.0, 7.5, 5.0].map(round));
        let [tidegate, bare] = &comparison.results[..] else {
            panic!("two candidates: {comparison:?}")
        };
        assert!((tidegate.to_base.unwrap().cpu_per_decision - 1.2).abs() < 1e-9);
        assert!((tidegate.median.cpu_us_per_decision - 6.2).abs() < 1e-9);
        assert!((bare.to_base.unwrap().cpu_per_decision - 1.0).abs() < 1e-9);
        let slow = [450.0, 430.0, 900.0].map(|p50_us| Round { p50_us, ..round(5.0) });
        let added = compared(&slow, &[round(5.0); 3]).results[0].to_base.unwrap().p50_added_us;
        assert!((added - 50.0).abs() < 1e-9);
    }

    #[test]
    fn without_its_base_there_is_no_ratio() {
        let comparison = Comparison::new("hot", "bare", &[("tidegate", vec![round(6.0)])]).unwrap();
        assert_eq!(comparison.results[0].to_base, None);
        assert!(Comparison::new("hot", "bare", &[("bare", Vec::new())]).is_none());
    }

    fn report(comparisons: Vec<Comparison>) -> Report {
        Report { rounds: 1, seconds: 1, connections: 64, tenants: 100, comparisons }
    }

    #[test]
    fn what_is_forwarded_has_a_column_where_anything_is() {
        let alone = report(vec![compared(&[round(6.0)], &[round(5.0)])]).table();
        assert!(alone.contains("x bare") && !alone.contains("forwarded"), "{alone}");
        let three = Round { forwarded_share: 0.666, ..round(8.0) };
        let measured = [("alone", vec![round(5.0)]), ("three", vec![three])];
        let table = report(vec![Comparison::new("cluster", "alone", &measured).unwrap()]).table();
        assert!(
            table.contains("x alone") && table.contains("forwarded") && table.contains("67 %"),
            "{table}"
        );
    }

    #[test]
    fn a_run_is_divided_by_its_decisions_and_its_time() {
        let mut tally = Tally::new();
        tally.elapsed = Duration::from_secs(2);
        tally.answers = 1000;
        tally.decisions = 10_000;
        tally.bytes = 500_000;
        tally.outcomes.allowed = 10;
        tally.outcomes.by_asked = 10;
        tally.latencies.record(Duration::from_micros(200));
        let spent = Spent { server: Duration::from_millis(50), others: Duration::from_millis(400) };
        let round = Round::new(&tally, spent, 2).unwrap();
        assert!((round.cpu_us_per_decision - 5.0).abs() < 1e-9);
        assert!((round.decisions_per_second - 5000.0).abs() < 1e-9);
        assert!((round.answer_bytes - 500.0).abs() < 1e-9);
        assert!((round.others_share - 0.1).abs() < 1e-9);
        assert!(Round::new(&Tally::new(), spent, 2).is_none());
    }

    #[test]
    fn a_busy_machine_and_unequal_answers_are_said_aloud() {
        assert_eq!(compared(&[round(5.0)], &[round(5.0)]).warnings(), Vec::<String>::new());
        let busy = Round { others_share: 0.4, ..round(5.0) };
        let small = Round { answer_bytes: 300.0, ..round(5.0) };
        let warnings = compared(&[round(5.0), busy], &[small, small]).warnings();
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("tidegate: other processes took up to 40 %"), "{warnings:?}");
        assert!(warnings[1].contains("300 and of 700 bytes"), "{warnings:?}");
    }

    #[test]
    fn columns_line_up_where_letters_take_two_bytes() {
        let rows =
            [["a", "b", "µs"], ["long", "c", "100"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "a     b   µs\nlong  c  100\n");
    }
}
