//! `tidegate cluster certs`: an authority for a cluster, and a certificate and a key for each of
//! its nodes.
//!
//! ```text
//! $ tidegate cluster certs --cluster demo n1 n2
//! FILE          WHAT
//! certs/ca.pem  the authority's certificate: every node and every client has it
//! certs/ca.key  the authority's key: whoever has it can be any node
//! certs/n1.pem  n1's certificate, for 365 days
//! certs/n1.key  n1's key: n1 alone has it
//! …
//! ```
//!
//! Where the authority is there already, it signs for more nodes. Nothing is ever overwritten: a
//! node's new certificate takes the old one's removal first. All files are made, or none.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rustls::pki_types::ServerName;
use serde_json::json;
use tidegate::check::Name;
use tidegate::clock::{Clock, SECOND, SystemClock};
use tidegate::config::NODES_MAX;
use tidegate::net::tls::{Authority, AuthorityError, Certified, NODE_DAYS};

use super::failure::Failure;
use super::output::{Column, Output};

/// The authority's files, but for their endings; so no node can have this id.
const CA: &str = "ca";
/// Names and addresses of one certificate beside those of the machine itself.
const HOSTS_MAX: usize = 64;
/// Under what every certificate is good for HTTP.
const OWN_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Make certificates: an authority for the cluster, and a certificate and a key for each node
#[derive(clap::Args)]
#[command(after_help = "\
They are for [tls] in cluster.toml, where the cluster has to have the same name. Where DIR holds the authority already, it signs for
more nodes. Nothing is overwritten. The authority's key belongs where no node is: whoever has it can be any node.

Examples:
  tidegate cluster certs --cluster demo n1 n2 n3
  tidegate cluster certs --cluster demo --host gateway.example --host 192.0.2.4 n4")]
pub struct CertsArgs {
    /// The nodes' ids
    #[arg(required = true, value_name = "NODE", value_parser = name, num_args = 1..=NODES_MAX)]
    nodes: Vec<Name>,
    /// Where the files are made
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// The cluster's name, as in [cluster] of cluster.toml
    #[arg(long, value_name = "NAME", default_value = "tidegate", value_parser = name)]
    cluster: Name,
    /// A name or an address by which clients reach these nodes over HTTP, beside localhost,
    /// 127.0.0.1 and ::1; once for each
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',', value_parser = host)]
    hosts: Vec<ServerName<'static>>,
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| format!("it has to be {}", Name::EXPECTED))
}

fn host(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text)
        .map(|host| host.to_owned())
        .map_err(|_| "it is no name of a host, and no IP address".into())
}

/// A file to be made.
struct Made {
    path: PathBuf,
    text: String,
    mode: u32,
    /// For people.
    what: String,
}

impl CertsArgs {
    /// Makes the files.
    pub fn run(self, out: &mut Output<'_>) -> Result<(), Failure> {
        self.judge()?;
        let now = Timestamp::from_second((SystemClock::new().now().wall / SECOND).cast_signed());
        let today = now.map_err(failed)?.to_zoned(TimeZone::UTC).date();
        fs::create_dir_all(&self.dir)
            .map_err(|e| Failure::Failed(format!("{}: {e}", self.dir.display())))?;
        let (authority, mut files) = self.authority(today)?;
        for node in &self.nodes {
            files.extend(self.node(&authority, node, today)?);
        }
        write_all(&files)?;
        self.show(&files, out)
    }

    fn judge(&self) -> Result<(), Failure> {
        for (i, node) in self.nodes.iter().enumerate() {
            if node.as_str() == CA {
                return Err(Failure::Usage(format!(
                    "{CA}.pem is the authority's: no node can be called {CA}"
                )));
            }
            if self.nodes[..i].contains(node) {
                return Err(Failure::Usage(format!("{node} is named twice")));
            }
        }
        match self.hosts.len() > HOSTS_MAX {
            true => Err(Failure::Usage(format!("at most {HOSTS_MAX} hosts fit in a certificate"))),
            false => Ok(()),
        }
    }

    fn path(&self, of: &str, ending: &str) -> PathBuf {
        self.dir.join(format!("{of}.{ending}"))
    }

    /// The authority that is there, or a new one with its files.
    fn authority(&self, today: Date) -> Result<(Authority, Vec<Made>), Failure> {
        let (pem, key) = (self.path(CA, "pem"), self.path(CA, "key"));
        let there = (kept(&pem)?, kept(&key)?);
        match there {
            (Some(certificate), Some(secret)) => {
                let unfit =
                    |error: AuthorityError| Failure::Failed(format!("{}: {error}", pem.display()));
                Ok((Authority::from_pem(&certificate, &secret).map_err(unfit)?, Vec::new()))
            }
            (None, None) => {
                let authority = Authority::begin(&self.cluster, today).map_err(failed)?;
                let what = "the authority's certificate: every node and every client has it";
                let secret = "the authority's key: whoever has it can be any node";
                let files = vec![
                    Made::public(pem, authority.certificate().into(), what.into()),
                    Made::secret(key, authority.key(), secret.into()),
                ];
                Ok((authority, files))
            }
            (Some(_), None) => Err(lacks(&key, &pem)),
            (None, Some(_)) => Err(lacks(&pem, &key)),
        }
    }

    /// A node's certificate and its key.
    fn node(&self, authority: &Authority, node: &Name, today: Date) -> Result<[Made; 2], Failure> {
        let own = OWN_HOSTS.iter().filter_map(|host| ServerName::try_from(*host).ok());
        let hosts: Vec<_> = own.chain(self.hosts.iter().cloned()).collect();
        let certified = Certified { cluster: self.cluster.clone(), node: node.clone() };
        let issued = authority.issue(&certified, &hosts, today).map_err(failed)?;
        let what = format!("{node}'s certificate, for {NODE_DAYS} days");
        Ok([
            Made::public(self.path(node.as_str(), "pem"), issued.certificate, what),
            Made::secret(
                self.path(node.as_str(), "key"),
                issued.key,
                format!("{node}'s key: {node} alone has it"),
            ),
        ])
    }

    fn show(&self, files: &[Made], out: &mut Output<'_>) -> Result<(), Failure> {
        let path = |made: &Made| made.path.display().to_string();
        if out.is_json() {
            let files: Vec<_> =
                files.iter().map(|made| json!({"file": path(made), "what": made.what})).collect();
            return out
                .json(&json!({"cluster": self.cluster.as_str(), "files": files}).to_string());
        }
        let columns = [Column::Left("FILE"), Column::Left("WHAT")];
        let rows: Vec<_> = files.iter().map(|made| vec![path(made), made.what.clone()]).collect();
        out.table(&columns, &rows)?;
        let dir = self.dir.display();
        out.note(&format!(
            "in cluster.toml:\n  [cluster]\n  name = \"{}\"\n  [tls]\n  ca = \"{dir}/{CA}.pem\"\n  \
             cert = \"{dir}/{{node}}.pem\"\n  key = \"{dir}/{{node}}.key\"",
            self.cluster
        ));
        Ok(())
    }
}

impl Made {
    fn public(path: PathBuf, text: String, what: String) -> Self {
        Self { path, text, mode: 0o644, what }
    }

    fn secret(path: PathBuf, text: String, what: String) -> Self {
        Self { path, text, mode: 0o600, what }
    }

    /// Makes the file, if it isn't there.
    fn make(&self) -> std::io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(self.mode).open(&self.path)
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn lacks(missing: &Path, there: &Path) -> Failure {
    Failure::Failed(format!("{} is there, and {} isn't", there.display(), missing.display()))
}

/// What is in a file; none where there is no such file.
fn kept(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", path.display()))),
    }
}

/// Makes all files. If one can't be made, those that were are removed.
fn write_all(files: &[Made]) -> Result<(), Failure> {
    for (i, made) in files.iter().enumerate() {
        let written = made.make().map_err(|error| (error, i));
        let written = written.and_then(|mut file| {
            file.write_all(made.text.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| (error, i + 1))
        });
        if let Err((error, begun)) = written {
            // What can't be removed either is of no use to anybody: its key was never shown to a
            // node.
            files[..begun].iter().for_each(|made| drop(fs::remove_file(&made.path)));
            return Err(Failure::Failed(match error.kind() {
                ErrorKind::AlreadyExists => {
                    format!("{} is there already, and nothing was made", made.path.display())
                }
                _ => format!("{}: {error}", made.path.display()),
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::{Server, words};
    use super::super::{Exit, Line};
    use super::*;

    /// Runs a line with the folder for DIR, and gives its exit, what it said, and how.
    fn ran(folder: &Path, line: &str) -> (Exit, String, String) {
        let line = line.replace("DIR", &folder.display().to_string());
        let ran = Server::replying([]).run(&format!("tidegate cluster certs {line}"));
        let dir = format!("{}/", folder.display());
        (ran.exit, ran.data.replace(&dir, ""), ran.notes.replace(&dir, ""))
    }

    fn files(folder: &Path) -> Vec<(String, u32)> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut files: Vec<_> = entries
            .map(|entry| {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                (entry.file_name().into_string().unwrap(), mode)
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn an_authority_and_each_node_get_a_certificate_for_all_and_a_key_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (exit, data, _) =
            ran(folder.path(), "--dir DIR --cluster demo n1 n2 --host gateway.example");
        assert_eq!(exit, Exit::Done);
        let made = files(folder.path());
        let names: Vec<_> = made.iter().map(|(file, _)| file.as_str()).collect();
        assert_eq!(names, ["ca.key", "ca.pem", "n1.key", "n1.pem", "n2.key", "n2.pem"]);
        for (file, mode) in &made {
            assert!(data.lines().any(|line| line.starts_with(file)), "{data}");
            // How much others may read of a certificate, the machine's umask has a say in.
            assert!(*mode == 0o600 || file.ends_with(".pem"), "{file} {mode:o}");
        }
    }

    #[test]
    fn a_node_is_added_later_and_what_is_there_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ran(folder.path(), "--dir DIR n1").0, Exit::Done);
        let text = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        let before = (text("ca.pem"), text("n1.key"));
        let (exit, data, notes) = ran(folder.path(), "--dir DIR n2 n1 n3");
        assert_eq!((exit, data.as_str()), (Exit::Failed, ""));
        assert_eq!(notes, "error: n1.pem is there already, and nothing was made\n");
        assert_eq!(files(folder.path()).len(), 4);
        let (exit, data, _) = ran(folder.path(), "--dir DIR n4");
        assert!(exit == Exit::Done && !data.contains("ca.pem"), "{data}");
        assert_eq!((text("ca.pem"), text("n1.key")), before);
        assert_eq!(files(folder.path()).len(), 6);
    }

    #[test]
    fn half_an_authority_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ran(folder.path(), "--dir DIR n1").0, Exit::Done);
        let (pem, key) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
        let kept = fs::read(&key).unwrap();
        fs::remove_file(&key).unwrap();
        assert_eq!(
            ran(folder.path(), "--dir DIR n2").2,
            "error: ca.pem is there, and ca.key isn't\n"
        );
        fs::rename(&pem, folder.path().join("old.pem")).unwrap();
        fs::write(&key, kept).unwrap();
        assert_eq!(
            ran(folder.path(), "--dir DIR n2").2,
            "error: ca.key is there, and ca.pem isn't\n"
        );
        assert_eq!(ran(&key, "--dir DIR n2").0, Exit::Failed);
        fs::copy(folder.path().join("n1.pem"), &pem).unwrap();
        let said = ran(folder.path(), "--dir DIR n2").2;
        assert_eq!(
            said,
            "error: ca.pem: the certificate is not that of an authority that may sign others\n"
        );
        assert!(!folder.path().join("n2.pem").exists());
    }

    #[test]
    fn a_line_that_makes_no_sense_is_misuse_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for line in ["--dir DIR ca", "--dir DIR n1 n2 n1"] {
            assert_eq!(ran(folder.path(), line).0, Exit::Usage, "{line}");
        }
        for line in ["", "n/1", "--cluster= n1", "--host http://h n1", "--host -h n1"] {
            let read = Line::read(words(&format!("tidegate cluster certs {line}")));
            assert_eq!(read.err().map(|error| error.exit_code()), Some(2), "{line}");
        }
        assert_eq!(files(folder.path()), []);
    }
}
