//! Log lines: structured, on standard error.
//!
//! What is logged names tenants, token names and paths; never a token, an API key or a query. Of
//! headers, only the request id is logged.

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

/// The HTTP/2 library's finer lines repeat paths and headers that it can't read, whatever is in them.
fn is_discreet(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || !line.target().starts_with("h2")
}

/// Starts logging.
pub fn start(format: Format, filter: &Filter) {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
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
