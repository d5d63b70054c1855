//! What happened in a simulation, line by line, and what should not have.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use twox_hash::XxHash3_64;

/// The trace of one run; copies are the same one.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    text: String,
    faults: Vec<String>,
}

/// Lines that are shown where something went wrong, unless the environment asks for more.
const LAST_LINES: usize = 200;

impl Trace {
    /// Notes that something happened on a host, now.
    pub fn note(&self, what: impl std::fmt::Display) {
        self.note_at(turmoil::sim_elapsed().unwrap_or_default(), what);
    }

    /// The same, for whoever stands outside of all hosts.
    pub fn note_at(&self, at: Duration, what: impl std::fmt::Display) {
        let _ = writeln!(self.0.lock().unwrap().text, "{:>10.3} s  {what}", at.as_secs_f64());
    }

    /// Notes that something happened that never should. A panic in a host's task would go
    /// unnoticed.
    pub fn violation(&self, what: impl std::fmt::Display) {
        self.note(format_args!("VIOLATION: {what}"));
        self.0.lock().unwrap().faults.push(what.to_string());
    }

    /// Panics, with the last lines, if something happened that never should.
    pub fn assert_sound(&self) {
        let fault = self.0.lock().unwrap().faults.first().cloned();
        if let Some(fault) = fault {
            self.fail(&fault);
        }
    }

    /// Panics with the last lines.
    pub fn fail(&self, why: &str) -> ! {
        let text = self.text();
        let lines: Vec<_> = text.lines().collect();
        let asked =
            std::env::var("TIDEGATE_SIM_LINES").ok().map(|text| text.parse().expect("a number"));
        let last = &lines[lines.len().saturating_sub(asked.unwrap_or(LAST_LINES))..];
        panic!("{why}; it ended so:\n{}", last.join("\n"));
    }

    /// Ends a run: returns its trace. Panics, with the last lines, if something happened that never
    /// should. Prints the trace's digest where the environment asks for it: two programs that print
    /// the same one have run the same simulation.
    pub fn end(&self) -> String {
        self.assert_sound();
        let text = self.text();
        if std::env::var_os("TIDEGATE_SIM_DIGEST").is_some() {
            let (thread, digest) = (std::thread::current(), XxHash3_64::oneshot(text.as_bytes()));
            let test = thread.name().unwrap_or("a test");
            eprintln!("digest {digest:016x} of {} lines: {test}", text.lines().count());
        }
        text
    }

    /// All of it.
    fn text(&self) -> String {
        self.0.lock().unwrap().text.clone()
    }
}
