//! Log lines: structured, on standard error. A line that can't be written there (the other end of a
//! pipe is closed, a disk is full) is lost and counted; it never ends the process.
//!
//! What is logged names tenants, token names and paths; never a token, an API key or a query. Of
//! headers, only the request id is logged.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::input::nearest;

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged where nothing is said.
pub const FILTER_DEFAULT: &str = "info,openraft=error,rustls=error";

/// What is logged: `info`, `tidegate=debug`, `warn,tidegate::shard=trace`, ….
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

impl Default for Filter {
    fn default() -> Self {
        Self(FILTER_DEFAULT.into())
    }
}

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            judge(directive)?;
        }
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Lines that could not be written, of this process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines so far that could not be written: log lines, and what a node prints at its start.
pub fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Prints text on standard output, as far as that takes it. What it doesn't take is lost and
/// counted.
pub fn print(text: &str) {
    let _ = Lossy(io::stdout()).write_all(text.as_bytes());
}

/// Prints text on standard error, likewise.
pub fn print_error(text: &str) {
    let _ = Lossy(io::stderr()).write_all(text.as_bytes());
}

/// A stream of which a failure costs what was to be written, and nothing else. What is written at
/// once is one line or more.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.write_all(bytes).and_then(|()| self.0.flush()).is_err() {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count().max(1);
            LOST.fetch_add(lines as u64, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The levels, from the one that shows least.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The crates whose lines there are, as far as anybody looks for them.
const CRATES: [&str; 8] =
    ["tidegate", "openraft", "hyper", "h2", "rustls", "tokio", "axum", "tower"];

/// Refuses what can only be a slip. A word alone is a level, or else a target of which everything
/// is shown and of all others nothing: `debgu` would silence the log.
fn judge(directive: &str) -> Result<(), String> {
    // What is about spans and fields has a grammar of its own.
    if directive.contains(['[', '{']) {
        return Ok(());
    }
    let (target, level) = match directive.split_once('=') {
        Some((target, level)) => (Some(target), Some(level)),
        None if is_level(directive) => (None, Some(directive)),
        None => (Some(directive), None),
    };
    if let Some(level) = level.filter(|level| !is_level(level)) {
        let hint = nearest(&level.to_ascii_lowercase(), LEVELS.into_iter());
        let hint = hint.map_or_else(|| LEVELS.join(", "), |level| format!("did you mean {level}?"));
        return Err(format!("{level:?} in {directive:?} is not a level; {hint}"));
    }
    let Some(target) = target else { return Ok(()) };
    let root = target.split("::").next().unwrap_or_default();
    if CRATES.contains(&root) {
        return Ok(());
    }
    let words = LEVELS.into_iter().filter(|_| level.is_none()).chain(CRATES);
    match nearest(&root.to_ascii_lowercase(), words) {
        Some(near) => {
            Err(format!("{root:?} is neither a level nor a known target; did you mean {near}?"))
        }
        None if level.is_none() => Err(format!(
            "{directive:?} is not a level ({}); for a target write {directive}=LEVEL",
            LEVELS.join(", ")
        )),
        None => Ok(()),
    }
}

/// Levels may be written in any case, and as numbers from 0 to 5.
fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
        || matches!(text.as_bytes(), [b'0'..=b'5'])
}

/// The HTTP/2 library's finer lines repeat paths and headers that it can't read, whatever is in
/// them.
fn is_discreet(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || !line.target().starts_with("h2")
}

/// A log that is being written.
pub struct Running(reload::Handle<EnvFilter, Registry>);

impl Running {
    /// Logs by another filter from now on. The error says why the log can't be reached any more.
    pub fn set(&self, filter: &Filter) -> Result<(), String> {
        self.0.reload(EnvFilter::new(&filter.0)).map_err(|error| error.to_string())
    }
}

/// Starts logging.
pub fn start(format: Format, filter: &Filter) -> Running {
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    let lines =
        tracing_subscriber::fmt::layer().with_writer(|| Lossy(io::stderr())).with_ansi(terminal);
    let (filter, running) = reload::Layer::new(EnvFilter::new(&filter.0));
    let all = tracing_subscriber::registry().with(filter).with(filter_fn(is_discreet));
    // A second start in one process (a test) keeps the first.
    let _ = match format {
        Format::Json => all.with(lines.json()).try_init(),
        Format::Text => all.with(lines.with_target(false)).try_init(),
    };
    Running(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing.
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_can_not_be_written_is_lost_and_counted() {
        let before = lost_lines();
        Lossy(Broken).write_all(b"one\ntwo\n").unwrap();
        Lossy(Broken).write_all(b"no end of line").unwrap();
        assert!(lost_lines() >= before + 3);
        let mut taken = Vec::new();
        Lossy(&mut taken).write_all(b"a line\n").unwrap();
        assert_eq!(taken, b"a line\n");
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        for good in ["info", "tidegate=debug", "warn,tidegate::shard=trace", "off"] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for good in
            ["INFO", "warn,redb=debug", "tidegate", "tidegate::shard", "[span{a=1}]=debug", "3", ""]
        {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for (bad, hint) in [
            ("debgu", "did you mean debug?"),
            ("info,tidgate=debug", "did you mean tidegate?"),
            ("tidegate=loud", "off, error, warn, info, debug, trace"),
            ("tidegate=debgu", "did you mean debug?"),
            ("chatty", "for a target write chatty=LEVEL"),
            ("a=b=c", "is not a level"),
        ] {
            let why = bad.parse::<Filter>().unwrap_err();
            assert!(why.contains(hint), "{bad}: {why}");
        }
    }
}
