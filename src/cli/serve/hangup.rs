//! SIGHUP: what can be read again is read again, and the process goes on.
//!
//! Certificates, the tokens that are in files, and the log filter of the configuration are; the
//! policy, addresses and limits never are. A line says what was read. What can't be read, or is
//! wrong, stays as it was, and an error says why.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tidegate::config::{Config, Tls, Token, log_filter_in, read_tokens_again};
use tidegate::http::Tokens;
use tidegate::input::Fault;
use tidegate::telemetry::log;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a hang-up reads again.
#[derive(Default)]
pub struct Reloaded {
    /// The node's certificates.
    tls: OnceLock<Tls>,
    /// The tokens, as they are, and where they are looked up.
    tokens: Mutex<Option<(Vec<Token>, Arc<Tokens>)>>,
    /// The log, and the configuration that has its filter.
    log: OnceLock<(log::Running, PathBuf)>,
}

/// Signals that end no process any more.
pub struct Hangups(Signal);

impl Hangups {
    /// From here on a hang-up doesn't end the process. Called within a runtime.
    pub fn catch() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Answers each of them, for as long as the process runs.
    pub async fn answer(mut self, reloaded: Arc<Reloaded>) {
        while self.0.recv().await.is_some() {
            let again = reloaded.clone();
            match tokio::task::spawn_blocking(move || again.read()).await {
                Ok(said) => said.log(),
                Err(error) => tracing::error!(%error, "SIGHUP: nothing was read again"),
            }
        }
    }
}

/// What became of a hang-up.
#[derive(Debug, Default)]
struct Said {
    read: Vec<String>,
    faults: Vec<Fault>,
}

impl Said {
    fn log(self) {
        for fault in &self.faults {
            tracing::error!(%fault, "SIGHUP: not read again: what is in force stays");
        }
        match (self.read.as_slice(), self.faults.is_empty()) {
            ([], true) => tracing::info!(
                "SIGHUP: there is nothing to read again: no certificates, no token in a file, no \
                 filter in [log]"
            ),
            ([], false) => {}
            (read, _) => tracing::info!("SIGHUP: read again: {}", read.join("; ")),
        }
    }

    fn note(&mut self, read: Result<String, Vec<Fault>>) {
        match read {
            Ok(read) => self.read.push(read),
            Err(faults) => self.faults.extend(faults),
        }
    }
}

impl Reloaded {
    /// The log's filter is in that file.
    pub fn log_of(&self, running: log::Running, config: PathBuf) {
        let _ = self.log.set((running, config));
    }

    /// The node has started with that configuration, and looks tokens up there.
    pub fn node_of(&self, config: &Config, tokens: Arc<Tokens>) {
        if config.tokens.iter().any(|token| token.file.is_some()) {
            // A run that has to join comes after one that has ended.
            *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((config.tokens.clone(), tokens));
        }
    }

    /// The node's certificates.
    pub fn certificates_of(&self, tls: &Tls) {
        let _ = self.tls.set(tls.clone());
    }

    /// Reads everything again. Files may be slow, so this is for a thread that may wait.
    fn read(&self) -> Said {
        let mut said = Said::default();
        if let Some(tls) = self.tls.get() {
            said.note(tls.reload().map(|until| match until {
                Some(until) => format!("the certificates (valid until {until})"),
                None => "the certificates".into(),
            }));
        }
        if let Some((tokens, known)) =
            &mut *self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
        {
            said.note(again(tokens, known));
        }
        if let Some((running, config)) = self.log.get() {
            said.note(log_filter_in(config).and_then(|filter| {
                let filter = filter.unwrap_or_else(|| log::FILTER_DEFAULT.into());
                let fault = |why: String| vec![Fault::new("log.filter", why)];
                running.set(&filter.parse().map_err(fault)?).map_err(fault)?;
                Ok(format!("the log filter, {filter}"))
            }));
        }
        said
    }
}

/// Reads the tokens again that are in files, all or none, and says which have another secret now.
fn again(tokens: &mut Vec<Token>, known: &Tokens) -> Result<String, Vec<Fault>> {
    let read = read_tokens_again(tokens)?;
    let changed = read.iter().zip(&*tokens).filter(|(new, old)| new.sha256 != old.sha256);
    let changed: Vec<_> = changed.map(|(new, _)| new.name.as_str()).collect();
    let said = match changed.as_slice() {
        [] => "the tokens in files, all as they were".into(),
        changed => format!("the tokens in files, of which {} changed", changed.join(", ")),
    };
    known.replace(&read);
    *tokens = read;
    Ok(said)
}
