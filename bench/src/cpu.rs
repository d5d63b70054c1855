//! Processor time as the kernel books it, read from `/proc`: what a process spent, and what the
//! whole machine spent.
//!
//! Example: a server at 120 ticks before a run and 420 after it spent 3.00 s; over 500,000
//! decisions that is 6.0 µs each. The kernel counts in ticks of 10 ms, so a run of three seconds on
//! two cores is known to about half a percent. Work done in interrupts (some of loopback
//! networking) is booked to nobody; that holds for all candidates alike.

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

/// `USER_HZ`, the unit of `/proc` times on every Linux platform in use.
const TICKS_PER_SECOND: u64 = 100;

/// A `/proc` file that doesn't read as documented in proc(5).
#[derive(Debug)]
pub enum CpuError {
    Unreadable { path: String, cause: io::Error },
    Malformed { path: String },
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, .. } => write!(f, "cannot read {path}"),
            Self::Malformed { path } => write!(f, "{path} is not in the form that proc(5) gives"),
        }
    }
}

impl std::error::Error for CpuError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { cause, .. } => Some(cause),
            Self::Malformed { .. } => None,
        }
    }
}

/// What had been spent at one moment since the start of each; two of them bracket a run.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The server under test, all its processes together.
    pub server: Duration,
    /// This process, the load generator.
    pub own: Duration,
    /// Every process of the machine together.
    pub machine: Duration,
}

/// What was spent between two readings.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// By the server under test, all its processes together.
    pub server: Duration,
    /// By processes that have no part in the benchmark.
    pub others: Duration,
}

impl Reading {
    /// Reads all three, the server first: the time between the reads goes to nobody's account.
    pub fn take(server_pids: &[u32]) -> Result<Self, CpuError> {
        let server =
            server_pids.iter().map(|pid| process(&pid.to_string())).sum::<Result<_, _>>()?;
        Ok(Self { server, own: process("self")?, machine: machine()? })
    }

    pub fn since(&self, earlier: &Self) -> Spent {
        let server = self.server.saturating_sub(earlier.server);
        let own = self.own.saturating_sub(earlier.own);
        let machine = self.machine.saturating_sub(earlier.machine);
        Spent { server, others: machine.saturating_sub(server).saturating_sub(own) }
    }
}

/// User and system time of all threads of a process, the ended ones included.
fn process(pid: &str) -> Result<Duration, CpuError> {
    let path = format!("/proc/{pid}/stat");
    let text = read(&path)?;
    process_time(&text).ok_or(CpuError::Malformed { path })
}

/// User, nice and system time of all processors.
fn machine() -> Result<Duration, CpuError> {
    let path = "/proc/stat";
    let text = read(path)?;
    machine_time(&text).ok_or_else(|| CpuError::Malformed { path: path.to_owned() })
}

fn read(path: &str) -> Result<String, CpuError> {
    fs::read_to_string(path).map_err(|cause| CpuError::Unreadable { path: path.to_owned(), cause })
}

/// Fields 14 and 15 of `/proc/PID/stat`. Counted from the last parenthesis, since the command name
/// (field 2) may itself contain blanks and parentheses.
fn process_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11); // field 3 is the first one here
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    ticks(user.checked_add(system)?)
}

/// The `cpu` line's first three numbers; idle, waiting and interrupts are left out.
fn machine_time(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut fields = line.split_ascii_whitespace();
    let mut sum = 0_u64;
    for _ in 0..3 {
        sum = sum.checked_add(fields.next()?.parse().ok()?)?;
    }
    ticks(sum)
}

fn ticks(count: u64) -> Option<Duration> {
    Some(Duration::from_millis(count.checked_mul(1000 / TICKS_PER_SECOND)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat =
            "4242 (tidegate) S 1 4242 4242 0 -1 4194560 900 0 0 0 120 35 7 8 20 0 5 0 1000 1 2";
        assert_eq!(process_time(stat), Some(Duration::from_millis(1550)));
    }

    #[test]
    fn a_command_name_may_hold_blanks_and_parentheses() {
        let stat = "7 (a) b (c)) R 1 7 7 0 -1 0 0 0 0 0 3 4 0 0 20 0 1 0 9 0 0";
        assert_eq!(process_time(stat), Some(Duration::from_millis(70)));
    }

    #[test]
    fn a_line_cut_short_is_no_time() {
        for stat in ["", "7 (a) R 1 7", "7 (a", "7 (a) R 1 7 7 0 -1 0 0 0 0 0 x y 0"] {
            assert_eq!(process_time(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn the_machine_counts_user_nice_and_system_of_the_summary_line() {
        let stat = "cpu  100 20 30 9999 50 0 77 0 0 0\ncpu0 1 1 1 1\nctxt 5\n";
        assert_eq!(machine_time(stat), Some(Duration::from_millis(1500)));
        assert_eq!(machine_time("intr 5\n"), None);
    }

    #[test]
    fn others_are_what_neither_the_server_nor_the_generator_spent() {
        let at = |server, own, machine| Reading {
            server: Duration::from_millis(server),
            own: Duration::from_millis(own),
            machine: Duration::from_millis(machine),
        };
        let spent = at(400, 300, 1000).since(&at(100, 100, 200));
        assert_eq!(spent.server, Duration::from_millis(300));
        assert_eq!(spent.others, Duration::from_millis(300));
        // Ticks are rounded for each account by itself, so the parts may come out above the whole.
        assert_eq!(at(40, 40, 70).since(&at(0, 0, 0)).others, Duration::from_millis(0));
    }

    #[test]
    fn this_process_has_a_time_and_several_have_one_together() {
        let own = std::process::id();
        assert!(Reading::take(&[own]).is_ok());
        let twice = Reading::take(&[own, own]).unwrap();
        assert!(twice.server >= twice.own);
    }
}
