//! The cluster's settings on one node: what it runs with, what the log says, how they change.
//!
//! ```text
//! cluster.toml: round_trip_ms = 100      counts when the cluster is founded, and never again
//! log: Set(round_trip_ms 300)            every node writes 300 into its data directory, then the
//!                                        change is answered; status names n1, n2, n3 for a restart
//! next start of n1                       its timers allow 300 ms: it is named no more
//! ```
//!
//! openraft's timers are fixed when a node starts, so a change can't reach a process that runs.
//! Nodes with different values work together meanwhile: the timers of the larger value are only
//! more patient.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::member::{Member, TIDIER};
use super::policy_store::{WriteError, write_error};
use super::state::{Agreed, Made, Setting, What};
use crate::check::Name;
use crate::net::{ROUND_TRIP_MS, ROUND_TRIP_MS_BOUNDS};
use crate::placement::FormatLevel;

/// What the settings are, as a node sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsStatus {
    /// Their version; 0 before the first value, while each node goes by its configuration.
    pub version: u64,
    /// The round trip that Raft's timers are to allow, in milliseconds; none at version 0.
    pub round_trip_ms: Option<u64>,
    /// The nodes that run with another round trip until they are restarted.
    pub restart: Vec<Name>,
}

/// A change of the settings that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// The new value.
    pub setting: Setting,
    /// The version it was made for; none takes whatever is there.
    pub expected: Option<u64>,
    /// The name of the token that asks for it.
    pub by: String,
}

/// The answer to a change of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetOutcome {
    /// The settings after it.
    pub settings: SettingsStatus,
    /// Whether it changed anything.
    pub changed: bool,
    /// Nodes that hadn't written it down when the answer was given.
    pub pending: Vec<String>,
}

/// The round trip that a node was configured with, and the one it runs with.
pub(super) struct RoundTripSetting {
    configured: Option<u64>,
    runs_with: u64,
    noted: Mutex<Noted>,
}

/// What this process has done about the log's value.
struct Noted {
    /// The value as it lies in the data directory.
    kept: Option<u64>,
    /// The value that log lines were written about.
    told: Option<u64>,
}

/// What there is to do about the log's value.
struct News {
    for_disk: bool,
    for_log_lines: bool,
}

impl RoundTripSetting {
    /// Returns that of a node whose configuration and whose data directory say so, in
    /// milliseconds. The data directory wins.
    pub fn new(configured: Option<u64>, kept: Option<u64>) -> Self {
        let ms = kept.or(configured).unwrap_or(ROUND_TRIP_MS);
        // A value out of bounds would keep Raft from starting.
        let runs_with = ms.clamp(*ROUND_TRIP_MS_BOUNDS.start(), *ROUND_TRIP_MS_BOUNDS.end());
        Self { configured, runs_with, noted: Mutex::new(Noted { kept, told: None }) }
    }

    /// The round trip that the running timers allow, in milliseconds.
    pub fn runs_with(&self) -> u64 {
        self.runs_with
    }

    /// Takes note of the log's value; returns what is to be done about it, once.
    fn note(&self, ms: u64) -> News {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        News {
            for_disk: noted.kept.replace(ms) != Some(ms),
            for_log_lines: noted.told.replace(ms) != Some(ms),
        }
    }

    /// What a log line says of the log's value where this node was told or runs with another one.
    fn differences(&self, logged: u64) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(configured) = self.configured.filter(|configured| *configured != logged) {
            said.push(format!(
                "[cluster] round_trip_ms = {configured} in the configuration is ignored: the \
                 cluster's log says {logged}; to change it: tidegate cluster set \
                 round_trip_ms={configured}"
            ));
        }
        if logged != self.runs_with {
            said.push(format!(
                "the cluster's round_trip_ms is {logged}; this node's timers allow {} until it is \
                 restarted",
                self.runs_with
            ));
        }
        said
    }
}

impl Member {
    /// Writes down what the log says for the next start of this node, and warns where it says
    /// something else than the configuration. Does nothing while old entries are applied again
    /// after a start.
    pub(super) async fn keep_settings(&self) {
        let view = self.raft.view();
        let logged = view.state.agreed().and_then(|agreed| agreed.settings.round_trip_ms());
        let Some(ms) = logged.filter(|_| self.recovered.load(Ordering::Relaxed)) else { return };
        let news = self.round_trip.note(ms);
        if news.for_disk
            && let Err(error) = self.raft.keep_round_trip(ms).await
        {
            tracing::error!(%error, "round_trip_ms can't be written down for the next start");
        }
        if news.for_log_lines {
            self.round_trip.differences(ms).iter().for_each(|said| tracing::warn!("{said}"));
        }
    }

    /// Gives the settings their first value, as the leader of a cluster that an older program
    /// founded.
    pub(super) async fn seed_settings(&self) {
        let view = self.raft.view();
        let Some(agreed) = view.state.agreed() else { return };
        if agreed.level == FormatLevel::FIRST || agreed.settings.version > 0 {
            return;
        }
        let setting = Setting::RoundTripMs(self.round_trip.runs_with());
        if let Err(error) =
            self.propose(What::Set { expected: Some(0), setting }, TIDIER.into()).await
        {
            tracing::debug!(%error, "the settings have no value yet");
        }
    }

    /// The settings, as this node sees them.
    pub(super) fn look_at_settings(&self) -> SettingsStatus {
        let view = self.raft.view();
        view.state.agreed().map(of).unwrap_or_default()
    }

    /// Changes a setting; returns once every node that can be reached has written it down, and
    /// names the others.
    pub(super) async fn change_setting(
        &self,
        change: SettingChange,
    ) -> Result<SetOutcome, WriteError> {
        let SettingChange { setting, expected, by } = change;
        let done =
            self.propose(What::Set { expected, setting }, by.clone()).await.map_err(write_error)?;
        let Made::Settings { version, changed } = done.made else {
            return Err(WriteError::Storage("a setting made no version".into()));
        };
        let pending = self.pending(done.at).await;
        tracing::info!(version, by, changed, ?pending, "set {setting}");
        // Of this change, whatever came after it or has not reached this node yet.
        let Setting::RoundTripMs(ms) = setting;
        let settings =
            SettingsStatus { version, round_trip_ms: Some(ms), ..self.look_at_settings() };
        Ok(SetOutcome { settings, changed, pending })
    }
}

fn of(agreed: &Agreed) -> SettingsStatus {
    let name = |(id, _)| agreed.members.get(id).map(|member| member.name.clone());
    SettingsStatus {
        version: agreed.settings.version,
        round_trip_ms: agreed.settings.round_trip_ms(),
        restart: agreed.awaiting_restart().filter_map(name).collect(),
    }
}

impl SettingsStatus {
    /// What a status warns of; none where every node runs with what the log says.
    pub(super) fn warning(&self) -> Option<String> {
        let names: Vec<_> = self.restart.iter().map(Name::as_str).collect();
        let (ms, last) = (self.round_trip_ms?, names.last()?);
        Some(match names.len() {
            1 => format!(
                "round_trip_ms is {ms}, and {last} runs with another value until it is restarted"
            ),
            _ => format!(
                "round_trip_ms is {ms}, and {} run with another value until they are restarted",
                names.join(", ")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_round_trip_wins_over_the_configured_one() {
        let runs_with = |configured, kept| RoundTripSetting::new(configured, kept).runs_with();
        assert_eq!(runs_with(None, None), 100);
        assert_eq!(runs_with(Some(200), None), 200);
        assert_eq!(runs_with(Some(200), Some(300)), 300);
        // What another program wrote must not keep Raft from starting.
        assert_eq!((runs_with(None, Some(0)), runs_with(None, Some(9_000))), (50, 300));
    }

    #[test]
    fn a_difference_to_the_log_names_both_values() {
        let said =
            |configured, kept, logged| RoundTripSetting::new(configured, kept).differences(logged);
        assert!(said(Some(100), Some(100), 100).is_empty() && said(None, None, 100).is_empty());
        let ignored = "[cluster] round_trip_ms = 100 in the configuration is ignored: the \
                       cluster's log says 300; to change it: tidegate cluster set \
                       round_trip_ms=100";
        assert_eq!(said(Some(100), Some(300), 300), [ignored]);
        let running = "the cluster's round_trip_ms is 300; this node's timers allow 100 until it \
                       is restarted";
        assert_eq!(said(None, Some(100), 300), [running]);
        assert_eq!(said(Some(100), None, 300), [ignored, running]);
    }

    #[test]
    fn a_warning_names_the_nodes_to_restart() {
        let name = |text: &&str| Name::new(text).unwrap();
        let warning = |names: &[&str]| {
            let restart = names.iter().map(name).collect();
            SettingsStatus { version: 2, round_trip_ms: Some(300), restart }.warning()
        };
        assert_eq!(warning(&[]), None);
        let one = "round_trip_ms is 300, and n2 runs with another value until it is restarted";
        assert_eq!(warning(&["n2"]).as_deref(), Some(one));
        let two =
            "round_trip_ms is 300, and n1, n2 run with another value until they are restarted";
        assert_eq!(warning(&["n1", "n2"]).as_deref(), Some(two));
    }
}
