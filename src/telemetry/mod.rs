//! What a node says of itself while it runs: structured lines on standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging. `TIDEGATE_LOG` chooses what is logged (`info` by default, `tidegate=debug`, …), and `TIDEGATE_LOG_FORMAT=json`
/// one JSON object a line. No line holds a token or an API key.
pub fn start() {
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let json = std::env::var("TIDEGATE_LOG_FORMAT").is_ok_and(|format| format == "json");
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    // A second start in one process (a test) keeps the first.
    let _ = if json { builder.json().try_init() } else { builder.with_target(false).try_init() };
}
