//! Tests of `link`.

use super::*;
use crate::random::Seed;

#[test]
fn the_wait_between_attempts_is_at_least_half_and_differs() {
    let mut chance = Seed::from_number(1).fork("links", 0);
    let waits: Vec<_> = (0..100).map(|_| jittered(BACK_OFF_MIN, &mut chance)).collect();
    assert!(waits.iter().all(|wait| (BACK_OFF_MIN / 2..=BACK_OFF_MIN).contains(wait)));
    assert!(waits.iter().collect::<std::collections::BTreeSet<_>>().len() > 90);
}

#[test]
fn a_round_trip_is_the_least_of_the_last_four() {
    let mut trips = RoundTrips::default();
    let mut measure = |now: u64, took: u64| {
        let id = trips.begin(now);
        trips.end(id, now + took)
    };
    assert_eq!(measure(0, 80), Some(80));
    assert_eq!(measure(100, 900), Some(80));
    assert_eq!((measure(200, 120), measure(300, 130)), (Some(80), Some(80)));
    assert_eq!(measure(400, 140), Some(120), "the fast one is forgotten after four more");
    assert_eq!(trips.end(77, 500), None, "an answer to no ping");
    let (lost, next) = (trips.begin(600), trips.begin(700));
    assert_eq!(trips.end(next, 790), Some(90));
    assert_eq!(trips.end(lost, 800), None, "an answer that was overtaken");
}
