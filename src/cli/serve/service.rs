//! Tells the service manager how the node is: systemd, for a unit of `Type=notify`.
//!
//! ```text
//! STATUS=not ready: no leader
//! READY=1, STATUS=ready                     /readyz says 200
//! READY=1, STATUS=not ready after 30 s: …   or it still doesn't: the node goes on, and so does what waits for the unit
//! STOPPING=1                                 SIGTERM
//! ```
//!
//! Without `NOTIFY_SOCKET`, which systemd sets, nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

/// A unit that others are ordered after must not hold them up for want of a majority of nodes.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often readiness is looked at before the node has been ready, and afterwards.
const FIRST_POLL: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_secs(1);

/// Follows readiness until the task is dropped. `unready` returns what the node waits for, or `None` once it is ready.
pub async fn follow(unready: impl Fn() -> Option<String>) {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        report(unready, send).await;
    }
}

/// Says that the node has been told to stop.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// A manager that doesn't listen is no reason for a node to end.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "can't tell the service manager how the node is");
    }
}

async fn report(unready: impl Fn() -> Option<String>, send: impl Fn(&[NotifyState<'_>])) {
    let mut said = String::new();
    let mut say = |what: String| {
        if said != what {
            send(&[NotifyState::Status(&what)]);
            said = what;
        }
    };
    let first_ready = async {
        while let Some(why) = unready() {
            say(format!("not ready: {why}"));
            tokio::time::sleep(FIRST_POLL).await;
        }
    };
    if tokio::time::timeout(READY_WITHIN, first_ready).await.is_err() {
        let seconds = READY_WITHIN.as_secs();
        let why = unready().unwrap_or_default();
        say(format!("not ready after {seconds} s: {why}"));
    } else {
        say("ready".into());
    }
    send(&[NotifyState::Ready]);
    loop {
        tokio::time::sleep(POLL).await;
        say(unready().map_or("ready".into(), |why| format!("not ready: {why}")));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use super::*;

    /// Returns what is sent within `seconds` where the node is ready from `from` to `until`.
    async fn sent(seconds: u64, from: u64, until: u64) -> Vec<String> {
        let (sent, now) = (RefCell::new(Vec::new()), Cell::new(0));
        let unready = || (!(from..until).contains(&now.get())).then(|| "no leader".to_string());
        let send = |states: &[NotifyState<'_>]| {
            let states = states.iter().map(|state| format!("{} {state}", now.get()));
            sent.borrow_mut().extend(states);
        };
        let clock = async {
            for second in 0..seconds {
                now.set(second);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = clock => {}
            () = report(unready, send) => {}
        }
        sent.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn the_unit_has_started_when_the_node_is_ready() {
        let said = ["0 STATUS=not ready: no leader", "3 STATUS=ready", "3 READY=1"];
        assert_eq!(sent(20, 3, u64::MAX).await, said);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_waits_for_others_lets_the_unit_start_after_30_s() {
        let said = sent(60, 40, u64::MAX).await;
        assert_eq!(said[0], "0 STATUS=not ready: no leader");
        assert_eq!(said[1], "29 STATUS=not ready after 30 s: no leader");
        assert_eq!(said[2], "29 READY=1");
        assert!(said[said.len() - 1].ends_with("STATUS=ready"), "{said:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_follows_the_node_and_is_said_once_each_time() {
        let said = sent(60, 0, 10).await;
        let said: Vec<_> = said.iter().map(|said| said.split_once(' ').unwrap().1).collect();
        assert_eq!(said, ["STATUS=ready", "READY=1", "STATUS=not ready: no leader"]);
    }
}
