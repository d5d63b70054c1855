//! Tests of `node`.

use super::*;
use crate::config::Limits;

/// What shipped manifests and the documents give a node to stop: `stop_grace_period`,
/// `TimeoutStopSec`, `terminationGracePeriodSeconds`.
const GRACE: Duration = Duration::from_secs(45);
/// `notice_ms` in shipped manifests.
const NOTICE: Duration = Duration::from_secs(10);

#[test]
fn notice_and_hand_over_fit_into_the_time_that_supervisors_give() {
    let hand_over = Duration::from_millis(Limits::default().drain_ms);
    let slowest = NOTICE + hand_over + STEP_DOWN_MAX + REQUESTS_MIN + CUT_MAX + PEERS_DRAIN_MAX;
    // What is left is for the disk.
    assert!(slowest + Duration::from_secs(3) <= GRACE, "{slowest:?}");
}
