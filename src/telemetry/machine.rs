//! How much of the machine this process uses, in percent of what it may use.
//!
//! Processor: the time used since the last sample, of the time that all cores together had, 0 to
//! 100. Memory: the resident set, of the least limit among the control groups that the process is
//! in (version 2 or 1) and the machine's memory. Both are read when a sample is taken, not when
//! somebody looks; what can't be read (no `/proc`) counts as zero.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// See the module. Percentages have one decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineLoad {
    /// Of the processor time that all cores had since the last sample.
    pub cpu_percent: f64,
    /// Of the memory that the process may use.
    pub memory_percent: f64,
}

/// Samples the load.
#[derive(Debug)]
pub struct Machine {
    cores: u64,
    last: Mutex<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Boot nanoseconds.
    at: u64,
    /// Processor time, in nanoseconds.
    processor: u64,
    load: MachineLoad,
}

impl Machine {
    /// Begins with nothing used, at boot time `now`.
    pub fn new(now: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let first = Sample { at: now, processor: 0, load: MachineLoad::default() };
        Self { cores, last: Mutex::new(first) }
    }

    /// Takes a sample at boot time `now`; the process has used `processor` nanoseconds so far.
    pub fn sample(&self, now: u64, processor: u64) {
        let memory_percent =
            percent(resident_bytes(Path::new("/proc")), memory_limit(Path::new("/")));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let had = now.saturating_sub(last.at).saturating_mul(self.cores);
        if had == 0 {
            return;
        }
        let cpu_percent = percent(processor.saturating_sub(last.processor), had).min(100.0);
        *last = Sample { at: now, processor, load: MachineLoad { cpu_percent, memory_percent } };
    }

    /// The load at the last sample.
    pub fn load(&self) -> MachineLoad {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).load
    }
}

/// With one decimal; 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => (u128::from(part) * 1_000 / u128::from(whole)) as f64 / 10.0,
    }
}

/// The resident set of this process.
fn resident_bytes(proc: &Path) -> u64 {
    kilobytes(&proc.join("self/status"), "VmRSS:").unwrap_or(0)
}

/// The least limit of memory that holds for this process; `root` is where `proc` and `sys` are.
fn memory_limit(root: &Path) -> u64 {
    let machine = kilobytes(&root.join("proc/meminfo"), "MemTotal:");
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| limits_of(root, line));
    machine.into_iter().chain(limits).min().unwrap_or(0)
}

/// The limits along one line of `/proc/self/cgroup`, such as `0::/system.slice/tidegate.service`.
fn limits_of(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        names if names.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let mount = root.join(mount);
    let folders = Path::new(group.trim_start_matches('/')).ancestors().map(|part| mount.join(part));
    let read = |folder: PathBuf| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok();
    folders.filter_map(read).collect()
}

/// The number of kilobytes behind `name` in a file of `/proc`, in bytes.
fn kilobytes(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_cores_is_counted_since_the_last_sample() {
        let machine = Machine { cores: 4, ..Machine::new(1_000) };
        assert_eq!(machine.load(), MachineLoad::default());
        machine.sample(2_000, 1_000);
        assert_eq!(machine.load().cpu_percent, 25.0);
        machine.sample(3_000, 1_010);
        assert_eq!(machine.load().cpu_percent, 0.2);
        // Two samples at one moment: nothing is known of the time between them.
        machine.sample(3_000, 5_000);
        assert_eq!(machine.load().cpu_percent, 0.2);
    }

    #[test]
    fn the_least_limit_of_the_groups_and_the_machine_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(memory_limit(root.path()), 0);
        write("proc/meminfo", "MemTotal:       2000 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_limit(root.path()), 2_000 * 1_024);
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(memory_limit(root.path()), 2_000 * 1_024);
        write("sys/fs/cgroup/a/memory.max", "1000000\n");
        assert_eq!(memory_limit(root.path()), 1_000_000);
        write("proc/self/cgroup", "5:cpu:/x\n4:memory,hugetlb:/c\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "900000\n");
        assert_eq!(memory_limit(root.path()), 900_000);
    }

    #[test]
    fn this_process_uses_some_memory_and_no_more_than_there_is() {
        let machine = Machine::new(0);
        machine.sample(1_000, 1);
        let used = machine.load().memory_percent;
        assert!((0.0..=100.0).contains(&used) && resident_bytes(Path::new("/proc")) > 0, "{used}");
    }
}
