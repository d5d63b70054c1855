//! Saved counts as the first program wrote them.

use super::super::load;
use crate::check::PermitId;
use crate::clock::{Now, SECOND};
use crate::codec::golden::{NEVER, same};
use crate::limit::{
    Calendar, LeakyBucket, OnExceeded, Period, Permits, Quota, Rate, Rule, State, TokenBucket,
    Window,
};
use crate::placement::{Epoch, FormatLevel, Partition};
use crate::shard::{AccountRecord, PartitionSnapshot};

const KEPT: &[u8] = include_bytes!("../../../../tests/golden/formats/level-1/counts.state");

/// When it was saved.
const THEN: Now = Now { boot: 5_000 * SECOND, wall: 1_800_000_000 * SECOND };

/// A rule of each algorithm that has a bucket.
fn rules() -> Vec<Rule> {
    let rate = Rate::new(5, 60 * SECOND).unwrap();
    let window = Window { limit: 10, length: 60 * SECOND };
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    let calendar = Calendar { period: Period::Month, anchor_day: 15, zone };
    vec![
        Rule::TokenBucket(TokenBucket { rate, burst: 10, initial: 10 }),
        Rule::LeakyBucket(LeakyBucket { rate, burst: 4 }),
        Rule::FixedWindow(window),
        Rule::SlidingWindow(window),
        Rule::SlidingLog(window),
        Rule::Quota(Quota { limit: 1_000, calendar, on_exceeded: OnExceeded::Count }),
    ]
}

fn states() -> Vec<State> {
    let taken = |rule: &Rule| {
        let mut state = State::fresh(rule, THEN);
        state.take(rule, 3, THEN);
        state
    };
    rules().iter().map(taken).collect()
}

fn saved() -> PartitionSnapshot {
    let mut permits = Permits::default();
    permits.grant(PermitId { partition: 7, secret: 1 << 100 | 9 }, THEN.boot + 30 * SECOND);
    permits.grant(PermitId { partition: 7, secret: 2 }, THEN.boot + 60 * SECOND);
    let at = |number| Partition::new(number).unwrap();
    let lost = Now { boot: THEN.boot - SECOND, wall: THEN.wall - SECOND };
    let mut saved = PartitionSnapshot::at(THEN);
    saved.epochs = vec![(at(7), Epoch::new(3)), (at(4095), Epoch::new(1))];
    saved.lost = vec![(at(4095), lost)];
    let buckets = (1..).zip(states()).collect();
    saved.accounts =
        vec![AccountRecord { buckets, permits, ..AccountRecord::empty("acme".into()) }];
    saved.shared = (1 << 100..).zip(states()).collect();
    saved.overflow = states().into_iter().map(|state| (1, 1 << 90, state)).collect();
    saved
}

fn loaded(now: Now) -> PartitionSnapshot {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts.state");
    std::fs::write(&path, KEPT).unwrap();
    load(&path, now).unwrap_or_else(|e| panic!("{e}; {NEVER}")).unwrap()
}

#[test]
fn counts_that_the_first_program_saved_are_read_as_they_were() {
    same("the saved counts", &loaded(THEN), &saved());
}

#[test]
fn buckets_of_the_first_program_go_on_where_they_were() {
    // Twelve seconds later on both clocks: one unit of the rates has come back, nothing else has.
    let now = Now { boot: THEN.boot + 12 * SECOND, wall: THEN.wall + 12 * SECOND };
    let mut loaded = loaded(now);
    let mut left = Vec::new();
    for (rule, (_, state)) in rules().iter().zip(&mut loaded.accounts[0].buckets) {
        state.advance(rule, 0, now);
        left.push((rule.algorithm(), state.remaining(rule, now)));
    }
    let expected = vec![
        ("token_bucket", 8),
        ("leaky_bucket", 2),
        ("fixed_window", 7),
        ("sliding_window", 7),
        ("sliding_log", 7),
        ("quota", 997),
    ];
    same("what is left", &left, &expected);
    let permits = &loaded.accounts[0].permits;
    same("the permits that are out", &permits.flying(), &2);
    same("the last to expire", &permits.reset_after(now.boot), &(48 * SECOND));
}

/// Counts with an answer to a request id, as programs of format level 3 save them.
const KEPT_3: &[u8] = include_bytes!("../../../../tests/golden/formats/level-3/counts.state");

#[test]
fn counts_with_request_ids_are_read_and_written_as_they_were() {
    let mut state = saved();
    state.accounts.push(super::account());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counts.state");
    super::super::save(&path, state.clone(), FormatLevel::THIRD).unwrap();
    assert!(std::fs::read(&path).unwrap() == KEPT_3, "{NEVER}");
    let read = load(&path, THEN).unwrap_or_else(|e| panic!("{e}; {NEVER}")).unwrap();
    same("the saved counts", &read, &state);
}
