//! Ctrl-C and SIGTERM end a benchmark by way of an ordinary error, so that every server it started
//! is dropped, and thereby killed, on the way out.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::clock;

/// How often a wait looks at the flag: soon for a person, rare beside 100,000 checks a second.
const LOOK_EVERY: Duration = Duration::from_millis(50);

static ASKED: AtomicBool = AtomicBool::new(false);

/// Listens from now on, on a thread of its own that lives as long as the process.
pub fn listen() -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Registered before this returns: a signal that comes a moment later must not find the default
    // handler.
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            ASKED.store(true, Ordering::Relaxed);
            // Keeps the handlers: a second signal must not kill the process before its children.
            std::future::pending::<()>().await;
        });
    })?;
    Ok(())
}

/// An error once a signal came.
pub fn check() -> Result<(), Box<dyn Error + Send + Sync>> {
    if ASKED.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
}

/// Returns at most `LOOK_EVERY` after a signal came; never otherwise.
pub async fn asked() {
    while !ASKED.load(Ordering::Relaxed) {
        clock::rest(LOOK_EVERY).await;
    }
}
