//! `tidegate cluster backup`: all that a cluster can be made anew of, in one file; and what is in
//! such a file.
//!
//! ```text
//! $ tidegate cluster backup monday.backup
//! cluster      demo, by n1 with Tidegate 0.1.0
//! made         2026-11-30T06:00:00Z, at entry 4711
//! policy       version 12, names 12 tenants
//! counters     40 of long limits, 3 tenants have them
//! members      n1 (node 1), n2 (node 2), n3 (node 3)
//! ```
//!
//! With `--data-dir` it is made of the data of a node that is stopped, and no node is asked: so a
//! node without `[auth]` is backed up, which gives no back-up over HTTP. `tidegate backup` is the
//! same command.
//!
//! The file is complete or not there: it is written beside its place, made durable and renamed; and
//! it is read once more before that, checksum and all.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::clock::{Clock as _, SystemClock};
use tidegate::cluster::backup::offline::{self, OfflineError};
use tidegate::cluster::backup::{BACKUP_BYTES_MAX, BackUpError, Backup, read};
use tidegate::cluster::raft::OpenError;
use tidegate::cluster::state::Member;
use tidegate::placement::NodeId;

use super::super::client::{Request, ServerArgs};
use super::super::failure::Failure;
use super::super::output::Output;
use super::super::serve::STATE_FILE;

/// How long a back-up of a large cluster may take before its first byte comes.
const MADE_WITHIN: std::time::Duration = std::time::Duration::from_secs(300);
/// The name of standard output.
const STDOUT: &str = "-";

/// Back the cluster up into a file, or show what is in one
#[derive(clap::Args)]
#[command(after_help = "\
In it are the policy with its history, the lists, the audit log, the members, and what was counted of quotas and of windows of an
hour or longer. It takes an administrator's token, and the file is to be kept like one: the secret of the cluster's hashes is in it.
Where a node can't be asked for its counts there is no back-up, but with --partial. --show asks no node.

With --data-dir it is a back-up of the node whose data is there, and which is stopped. Its counts are in it if it was stopped with
SIGTERM. A node without [auth] gives no other back-up. Without FILE it goes to standard output.

Examples:
  tidegate cluster backup monday.backup
  tidegate cluster backup monday.backup --data-dir tidegate-data
  tidegate cluster backup - | ssh safe 'cat > monday.backup'
  tidegate cluster backup --show monday.backup -o json")]
pub struct BackupArgs {
    /// The file; - is standard output
    #[arg(value_name = "FILE", required_unless_present = "data_dir")]
    file: Option<PathBuf>,
    /// Back up the stopped node whose data is in this folder, rather than ask a node
    #[arg(long, value_name = "FOLDER", conflicts_with = "show")]
    data_dir: Option<PathBuf>,
    /// Take what can be had, and say what is missing
    #[arg(long, conflicts_with = "show")]
    partial: bool,
    /// Show what is in the file, and whether it is whole
    #[arg(long)]
    show: bool,
}

impl BackupArgs {
    /// Makes it, or shows it.
    pub fn run(self, server: &ServerArgs, out: &mut Output<'_>) -> Result<(), Failure> {
        let file = self.file.as_deref().unwrap_or(Path::new(STDOUT));
        if self.show {
            return show(&load(file)?, out);
        }
        if self.file.is_none() && std::io::stdout().is_terminal() {
            let why = "a back-up is no text for a terminal: name a FILE, or send standard output \
                       elsewhere";
            return Err(Failure::Usage(why.into()));
        }
        let bytes = match &self.data_dir {
            Some(directory) => self.of_stopped(directory, out)?,
            None => self.of_running(server)?,
        };
        let backup = read(&bytes).map_err(|error| {
            Failure::Failed(format!("the back-up that was made can't be used: {error}"))
        })?;
        if file == Path::new(STDOUT) {
            warn(&backup, out);
            return out.bytes(&bytes);
        }
        write(file, &bytes)
            .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
        show(&backup, out)
    }

    /// Asks a node for a back-up of its cluster.
    fn of_running(&self, server: &ServerArgs) -> Result<Vec<u8>, Failure> {
        let path =
            if self.partial { "/v1/cluster/backup?partial=true" } else { "/v1/cluster/backup" };
        let request = Request::get(path).accept("application/octet-stream").wait(MADE_WITHIN);
        let (bytes, _) = server.client()?.fetch(request, BACKUP_BYTES_MAX as u64)?;
        Ok(bytes)
    }

    /// Makes a back-up of the stopped node with its data in `directory`.
    fn of_stopped(&self, directory: &Path, out: &mut Output<'_>) -> Result<Vec<u8>, Failure> {
        let made = offline::back_up(directory, STATE_FILE, SystemClock::new().now(), self.partial);
        let offline = made.map_err(|error| failure(directory, error))?;
        if offline.unconfirmed > 0 {
            out.note(&format!(
                "warning: whether a majority had the last {} entries of the log is not known: they \
                 are in it",
                offline.unconfirmed
            ));
        }
        Ok(offline.bytes)
    }
}

/// Why there is no back-up of that data, and what to do.
fn failure(directory: &Path, error: OfflineError) -> Failure {
    match error {
        OfflineError::Open(error @ OpenError::InUse(_)) => {
            Failure::Unsafe(format!("{error}: stop the node first"))
        }
        OfflineError::Empty => Failure::Usage(format!("{}: {error}", directory.display())),
        OfflineError::BackUp(BackUpError::Missing(names)) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            Failure::Failed(format!(
                "{}: the counts of {} are not there: a node saves its counts when it is stopped \
                 with SIGTERM, and only those of its own partitions; with --partial the back-up is \
                 made without them",
                directory.display(),
                names.join(", ")
            ))
        }
        error => Failure::Failed(format!("{}: {error}", directory.display())),
    }
}

/// The back-up in a file.
pub fn load(path: &Path) -> Result<Backup, Failure> {
    let failed =
        |why: &dyn std::fmt::Display| Failure::Failed(format!("{}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
    if length > BACKUP_BYTES_MAX as u64 {
        return Err(failed(&format!(
            "it is larger than {BACKUP_BYTES_MAX} bytes, and no back-up is"
        )));
    }
    read(&std::fs::read(path).map_err(|error| failed(&error))?).map_err(|error| failed(&error))
}

/// Writes the file, for its owner's eyes, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name of its own, so that two that are made at a time don't write into each other.
    let beside = folder.join(format!(".{name}.{}.partial", std::process::id()));
    let written = (|| {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // What it failed of says more than that it can't be tidied up.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Says what isn't in it.
pub fn warn(backup: &Backup, out: &mut Output<'_>) {
    for name in &backup.header.missing {
        out.note(&format!("warning: what {name} had counted is not in it"));
    }
}

/// When it was made, for people.
pub fn time(backup: &Backup) -> String {
    let seconds = i64::try_from(backup.header.time / 1_000_000_000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "never".into(), |time| time.to_string())
}

/// Members, for programs.
pub fn members<'m>(members: impl Iterator<Item = (NodeId, &'m Member)>) -> Vec<Value> {
    let member = |(id, member): (NodeId, &Member)| json!({"id": member.name, "number": id.0, "http": member.http, "peer": member.peer});
    members.map(member).collect()
}

fn show(backup: &Backup, out: &mut Output<'_>) -> Result<(), Failure> {
    let header = &backup.header;
    let Some(agreed) = backup.state.agreed() else { return Ok(()) };
    let (tenants, counted) = (agreed.document.tenants.len(), backup.accounts());
    if out.is_json() {
        let text = json!({
            "cluster": header.cluster,
            "by": header.by,
            "program": header.program,
            "made": time(backup),
            "applied": header.applied.0,
            "policy_version": agreed.version,
            "tenants": tenants,
            "tenants_counted": counted,
            "counters": backup.counters(),
            "members": members(agreed.members.iter()),
            "missing": header.missing,
        });
        out.json(&text.to_string())?;
    } else {
        let members =
            agreed.members.iter().map(|(id, member)| format!("{} (node {id})", member.name));
        out.facts(&[
            (
                "cluster",
                format!("{}, by {} with Tidegate {}", header.cluster, header.by, header.program),
            ),
            ("made", format!("{}, at entry {}", time(backup), header.applied.0)),
            ("policy", format!("version {}, names {tenants} tenants", agreed.version)),
            (
                "counters",
                format!("{} of long limits, {counted} tenants have them", backup.counters()),
            ),
            ("members", members.collect::<Vec<_>>().join(", ")),
        ])?;
    }
    warn(backup, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_or_not_at_all_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.backup");
        std::fs::write(&path, "before").unwrap();
        write(&path, b"after").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"after");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let elsewhere = folder.path().join("none").join("a.backup");
        assert!(write(&elsewhere, b"after").is_err());
        let occupied = folder.path().join("folder");
        std::fs::create_dir_all(occupied.join("full")).unwrap();
        assert!(write(&occupied, b"after").is_err());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            2,
            "nothing is left beside it"
        );
    }
}
