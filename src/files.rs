//! Files that only the user of this process may read: all that a node keeps.
//!
//! A data directory holds the secret of the cluster's hashes, the policy, and the key by which
//! nodes know each other. So the directory is made with mode 0700 and each file with 0600, whatever
//! the umask says; a start narrows the modes of what an earlier program left ([`narrow`]).

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The mode of a directory that is made here.
const DIRECTORY: u32 = 0o700;
/// The mode of a file that is made here.
const FILE: u32 = 0o600;
/// The bits by which others than the owner may do something.
const OTHERS: u32 = 0o077;
/// The bit of a directory such as `/tmp`, in which everybody makes files.
const STICKY: u32 = 0o1000;

/// Makes the directory `path` for its owner alone, and those above it as the umask says, where they
/// aren't there yet.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(DIRECTORY).create(path)
}

/// Makes the file `path` and empties it if it is there; it is private in either case.
pub fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE).open(path)?;
    make_private(&file)?;
    Ok(file)
}

/// Opens the file `path` to be read and written, and makes it where it isn't there yet; it is
/// private in either case if its owner runs this process.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE)
        .open(path)?;
    match make_private(&file) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        // Another user's file that may be written is of use all the same.
        Ok(()) | Err(_) => Ok(file),
    }
}

fn make_private(file: &File) -> io::Result<()> {
    match file.metadata()?.mode() & OTHERS {
        0 => Ok(()),
        _ => file.set_permissions(Permissions::from_mode(FILE)),
    }
}

/// Writes `parts`, one behind the other, to the file `path`: whole or not at all, and durably.
pub fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    use std::io::Write as _;
    let beside = path.with_extension("partial");
    let mut file = create(&beside)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Takes from all other users what they may do with the data directory `path` and its files
/// `names`, and returns a warning for each that can't be narrowed. Nothing is done where there is
/// no directory.
///
/// A directory in which other things lie is left as it is: it is not a node's alone.
pub fn narrow(path: &Path, names: &[&str]) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in names {
        let file = path.join(name);
        let Ok(found) = fs::symlink_metadata(&file) else { continue };
        if !found.is_file() || found.mode() & OTHERS == 0 {
            continue;
        }
        if let Err(error) = fs::set_permissions(&file, Permissions::from_mode(FILE)) {
            warnings.push(format!(
                "other users may read {}, and its mode can't be changed: {error}",
                file.display()
            ));
        }
    }
    let Ok(found) = fs::metadata(path) else { return warnings };
    let uid = rustix::process::geteuid().as_raw();
    let owner = found.uid();
    if owner != uid {
        warnings.push(format!(
            "the data directory {} belongs to uid {owner} and this process runs as uid {uid}: a \
             process of uid {owner} can't use the files that it makes",
            path.display(),
        ));
    }
    if !found.is_dir() || found.mode() & OTHERS == 0 {
        return warnings;
    }
    let mode = found.mode() & 0o7777;
    let said = |why: &str| {
        format!(
            "other users may look into the data directory {} (mode {mode:04o}): {why}",
            path.display()
        )
    };
    let is_own = |entry: &fs::DirEntry| names.iter().any(|name| entry.file_name() == *name);
    // The root of a volume has it.
    let is_foreign = |entry: &fs::DirEntry| !is_own(entry) && entry.file_name() != "lost+found";
    let holds_others =
        fs::read_dir(path).is_ok_and(|entries| entries.flatten().any(|entry| is_foreign(&entry)));
    if mode & STICKY != 0 {
        warnings.push(said("its mode is left as it is, since every user may make files in it"));
    } else if holds_others {
        warnings.push(said("its mode is left as it is, since it holds other files than a node's"));
    } else if let Err(error) = fs::set_permissions(path, Permissions::from_mode(DIRECTORY)) {
        warnings.push(said(&format!("its mode can't be changed: {error}")));
    }
    warnings
}

/// Returns the warning for a secret file that others than its owner may read; none where only the
/// owner may, or the file isn't there. `what` it is begins the sentence.
pub fn too_open(what: &str, path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o7777;
    (mode & OTHERS != 0).then(|| {
        let path = path.display();
        format!("{what} {path} can be used by other users (mode {mode:04o}): chmod 600 {path}")
    })
}

/// Says why the file `path` can't be used, and what to do where it, or its directory, belongs to
/// another user.
pub fn explain(path: &Path, error: &io::Error) -> String {
    explained(path, error, path.parent().unwrap_or(path))
}

/// Says the same of the directory `path`.
pub fn explain_directory(path: &Path, error: &io::Error) -> String {
    explained(path, error, path)
}

/// `directory` is the one that is a node's own: no command may change what is above it.
fn explained(path: &Path, error: &io::Error, directory: &Path) -> String {
    // The command is to work wherever it is pasted.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
    let (path, directory) = (absolute(path), absolute(directory));
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!("{}: {error}", path.display());
    }
    let found = path.ancestors().find_map(|at| Some((at, fs::metadata(at).ok()?.uid())));
    let process = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    match found {
        Some(found) => denied(&path, error, found, &directory, process),
        None => format!("{}: {error}", path.display()),
    }
}

/// `at` is the nearest to `path` that is there, and belongs to the user `owner`.
fn denied(
    path: &Path,
    error: &io::Error,
    (at, owner): (&Path, u32),
    directory: &Path,
    (uid, gid): (u32, u32),
) -> String {
    let cure = match (at.starts_with(directory), owner == uid) {
        (true, true) => format!("chmod -R u+rwX {}", directory.display()),
        (true, false) => format!("chown -R {uid}:{gid} {}", directory.display()),
        (false, _) => format!("install -d -m 700 -o {uid} -g {gid} {}", directory.display()),
    };
    format!(
        "{}: {error}: this process runs as uid {uid}, and {} belongs to uid {owner}: {cure}",
        path.display(),
        at.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/data");
        make_directory(&data).unwrap();
        assert_eq!(mode(&data), 0o700);
        let (made, opened) = (data.join("made"), data.join("opened"));
        for path in [&made, &opened] {
            fs::write(path, "before").unwrap();
            set(path, 0o644);
        }
        create(&made).unwrap();
        open(&opened).unwrap();
        assert_eq!((mode(&made), fs::read(&made).unwrap().len()), (0o600, 0));
        assert_eq!((mode(&opened), fs::read(&opened).unwrap().len()), (0o600, 6));
        replace(&made, &[b"who", b"le"]).unwrap();
        assert_eq!((mode(&made), fs::read(&made).unwrap()), (0o600, b"whole".to_vec()));
    }

    #[test]
    fn a_start_narrows_what_an_earlier_program_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("log"), "").unwrap();
        set(&file("log"), 0o644);
        set(folder.path(), 0o755);
        assert_eq!(narrow(folder.path(), &["log", "none"]), [""; 0]);
        assert_eq!((mode(folder.path()), mode(&file("log"))), (0o700, 0o600));
        // What isn't a node's alone is left, and told.
        fs::write(file("other"), "").unwrap();
        set(&file("other"), 0o644);
        set(folder.path(), 0o755);
        let warnings = narrow(folder.path(), &["log"]);
        assert!(warnings.len() == 1 && warnings[0].contains("(mode 0755)"), "{warnings:?}");
        assert_eq!((mode(folder.path()), mode(&file("other"))), (0o755, 0o644));
        assert_eq!(narrow(&file("nowhere"), &["log"]), [""; 0]);
    }

    #[test]
    fn a_secret_file_that_others_may_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("n1.key");
        fs::write(&key, "").unwrap();
        for (bits, told) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            set(&key, bits);
            assert_eq!(too_open("the key", &key).is_some(), told, "{bits:o}");
        }
        assert!(
            too_open("the key", &key).unwrap().ends_with(&format!("chmod 600 {}", key.display()))
        );
        assert_eq!(too_open("the key", &folder.path().join("none")), None);
    }

    #[test]
    fn an_error_names_both_users_and_the_cure() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let (data, above) = (Path::new("/var/lib/tidegate/n1"), Path::new("/var/lib/tidegate"));
        let log = data.join("raft.redb");
        let told =
            |path: &Path, at: &Path, owner| denied(path, &error, (at, owner), data, (65532, 65532));
        assert_eq!(
            told(&log, data, 0),
            "/var/lib/tidegate/n1/raft.redb: permission denied: this process runs as uid 65532, \
             and /var/lib/tidegate/n1 belongs to uid 0: chown -R 65532:65532 /var/lib/tidegate/n1"
        );
        // What is above the directory is not the node's to change.
        assert_eq!(
            told(data, above, 0),
            "/var/lib/tidegate/n1: permission denied: this process runs as uid 65532, and \
             /var/lib/tidegate belongs to uid 0: install -d -m 700 -o 65532 -g 65532 \
             /var/lib/tidegate/n1"
        );
        let own = told(data, data, 65532);
        assert!(
            own.ends_with("belongs to uid 65532: chmod -R u+rwX /var/lib/tidegate/n1"),
            "{own}"
        );
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(!explain(Path::new("/"), &full).contains("chown"));
    }
}
