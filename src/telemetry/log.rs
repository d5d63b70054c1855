//! Log lines: structured, on standard error. A line that can't be written there (the other end of a pipe is closed, a disk is
//! full) is lost and counted; it never ends the process.
//!
//! What is logged names tenants, token names and paths; never a token, an API key or a query. Of
//! headers, only the request id is logged.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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

/// Prints text on standard output, as far as that takes it. What it doesn't take is lost and counted.
pub fn print(text: &str) {
    let _ = Lossy(io::stdout()).write_all(text.as_bytes());
}

/// Prints text on standard error, likewise.
pub fn print_error(text: &str) {
    let _ = Lossy(io::stderr()).write_all(text.as_bytes());
}

/// A stream of which a failure costs what was to be written, and nothing else. What is written at once is one line or more.
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

/// The HTTP/2 library's finer lines repeat paths and headers that it can't read, whatever is in them.
fn is_discreet(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || !line.target().starts_with("h2")
}

/// Starts logging.
pub fn start(format: Format, filter: &Filter) {
    let terminal = io::IsTerminal::is_terminal(&io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Lossy(io::stderr())).with_ansi(terminal);
    let all = tracing_subscriber::registry().with(EnvFilter::new(&filter.0)).with(filter_fn(is_discreet));
    // A second start in one process (a test) keeps the first.
    let _ = match format {
        Format::Json => all.with(lines.json()).try_init(),
        Format::Text => all.with(lines.with_target(false)).try_init(),
    };
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
        for bad in ["tidegate=loud", "a=b=c"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
