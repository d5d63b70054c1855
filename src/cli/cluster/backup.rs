//! `tidegate cluster backup`: all that a cluster can be made anew of, in one file; and what is in such a file.
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
//! The file is complete or not there: it is written beside its place, made durable and renamed; and it is read once more before that,
//! checksum and all.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::cluster::backup::{BACKUP_BYTES_MAX, Backup, read};
use tidegate::cluster::state::Member;
use tidegate::placement::NodeId;

use super::super::client::{Request, ServerArgs};
use super::super::failure::Failure;
use super::super::output::Output;

/// How long a back-up of a large cluster may take before its first byte comes.
const MADE_WITHIN: std::time::Duration = std::time::Duration::from_secs(300);
/// The name of standard output.
const STDOUT: &str = "-";

/// Back the cluster up into a file, or show what is in one
#[derive(clap::Args)]
#[command(after_help = "\
In it are the policy with its history, the lists, the audit log, the members, and what was counted of quotas and of windows of an
hour or longer. It takes an administrator's token, and the file is to be kept like one: the secret of the cluster's hashes is in it.
Where a node can't be asked for its counts there is no back-up, but with --partial. --show asks nobody.

Examples:
  tidegate cluster backup monday.backup
  tidegate cluster backup - | ssh safe 'cat > monday.backup'
  tidegate cluster backup --show monday.backup -o json")]
pub struct BackupArgs {
    /// The file; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
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
        if self.show {
            return show(&load(&self.file)?, out);
        }
        let path = if self.partial { "/v1/cluster/backup?partial=true" } else { "/v1/cluster/backup" };
        let request = Request::get(path).accept("application/octet-stream").wait(MADE_WITHIN);
        let (bytes, _) = server.client()?.fetch(request, BACKUP_BYTES_MAX as u64)?;
        let backup = read(&bytes)
            .map_err(|error| Failure::Failed(format!("what the node sent can't be used: {error}")))?;
        if self.file == Path::new(STDOUT) {
            warn(&backup, out);
            return out.bytes(&bytes);
        }
        write(&self.file, &bytes)
            .map_err(|error| Failure::Failed(format!("{}: {error}", self.file.display())))?;
        show(&backup, out)
    }
}

/// The back-up in a file.
pub fn load(path: &Path) -> Result<Backup, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::Failed(format!("{}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
    if length > BACKUP_BYTES_MAX as u64 {
        return Err(failed(&format!("it is larger than {BACKUP_BYTES_MAX} bytes, and no back-up is")));
    }
    read(&std::fs::read(path).map_err(|error| failed(&error))?).map_err(|error| failed(&error))
}

/// Writes the file, for its owner's eyes, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name of its own, so that two that are made at a time don't write into each other.
    let beside = folder.join(format!(".{name}.{}.partial", std::process::id()));
    let written = (|| {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
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
        let members = agreed.members.iter().map(|(id, member)| format!("{} (node {id})", member.name));
        out.facts(&[
            ("cluster", format!("{}, by {} with Tidegate {}", header.cluster, header.by, header.program)),
            ("made", format!("{}, at entry {}", time(backup), header.applied.0)),
            ("policy", format!("version {}, names {tenants} tenants", agreed.version)),
            ("counters", format!("{} of long limits, {counted} tenants have them", backup.counters())),
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
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
    }
}
