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

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// A unit that others are ordered after must not hold them up for want of a majority of nodes.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often readiness is looked at before the node has been ready, and afterwards.
const FIRST_POLL: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_secs(1);

/// Says what a node waits for before it is ready; `None` while it is.
type Unready = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// What follows the node and reports to the manager.
pub struct Service {
    node: Arc<OnceLock<Unready>>,
    reporting: JoinHandle<()>,
}

impl Service {
    /// Begins to report, before there is a node: one that waits to be admitted is not ready either.
    pub fn follow() -> Self {
        let node = Arc::<OnceLock<Unready>>::default();
        let followed = node.clone();
        let reporting = tokio::spawn(async move {
            if std::env::var_os("NOTIFY_SOCKET").is_some() {
                let starting = || Some("starting".to_string());
                report(|| followed.get().map_or_else(starting, |unready| unready()), send).await;
            }
        });
        Self { node, reporting }
    }

    /// From now on reports what `unready` says.
    pub fn has_started(&self, unready: impl Fn() -> Option<String> + Send + Sync + 'static) {
        let _ = self.node.set(Box::new(unready));
    }

    /// Reports that the node has been told to stop, and nothing after that.
    pub fn stops(&self) {
        self.reporting.abort();
        send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

/// A node that has to join is started again, and another one reports on it.
impl Drop for Service {
    fn drop(&mut self) {
        self.reporting.abort();
    }
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
        // The two clocks of the test tick at once: either may be first.
        let at = said[1].split(' ').next().unwrap_or_default();
        assert!(["29", "30"].contains(&at), "{said:?}");
        assert_eq!(said[1], format!("{at} STATUS=not ready after 30 s: no leader"));
        assert_eq!(said[2], format!("{at} READY=1"));
        assert!(said[said.len() - 1].ends_with("STATUS=ready"), "{said:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_follows_the_node_and_is_said_once_each_time() {
        let said = sent(60, 0, 10).await;
        let said: Vec<_> = said.iter().map(|said| said.split_once(' ').unwrap().1).collect();
        assert_eq!(said, ["STATUS=ready", "READY=1", "STATUS=not ready: no leader"]);
    }
}
