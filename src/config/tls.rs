//! `[tls]`: the files of certificates and keys, whose they have to be, and whether HTTP is served
//! with them too.
//!
//! ```toml
//! [tls]
//! ca = "certs/ca.pem"             # who signs the certificates of the nodes
//! cert = "certs/{node}.pem"       # this node's, and what leads from it to ca
//! key = "certs/{node}.key"
//! ```
//!
//! `{node}` in a path is the node's id, so that one file serves every node. The three are for
//! peers. Clients are shown the same certificate, or that of `http_cert` and `http_key`, whoever
//! has signed it; with `http = false` they are answered in plain text.
//!
//! All of it is read and judged at start: what peers would refuse is a fault here, with the file's
//! name. The same files can be read again while the node runs ([`Tls::reload`]).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::input::{Fault, Fields, Reader, Tree};
use crate::net::tls::{self, Certified, Chain, Material, Own, PrivateKey, TlsError, Trusted};

/// Bytes of one file of certificates or of a key.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What stands for the node's id in a path.
const NODE: &str = "{node}";

/// What `[tls]` says, and what is in its files.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whether HTTP is served with TLS.
    pub http: bool,
    /// What was read last.
    pub tls: tls::Tls,
    /// Until when the certificate that is shown to peers is valid, as it was at start.
    pub until: Option<Timestamp>,
    files: Files,
    us: Certified,
}

impl Tls {
    /// The file with the authority that has signed what clients are shown; none where that is
    /// somebody else's business.
    pub fn client_ca(&self) -> Option<&Path> {
        self.files.door.is_none().then_some(&self.files.ca)
    }

    /// The files of this node's keys.
    pub fn keys(&self) -> impl Iterator<Item = &Path> {
        let door = self.files.door.iter().map(|(_, key)| key.as_path());
        std::iter::once(self.files.key.as_path()).chain(door)
    }

    /// Reads the files again, and puts what is in them in force; says until when this node's
    /// certificate is valid. Where something is wrong with them, what is in force stays.
    pub fn reload(&self) -> Result<Option<Timestamp>, Vec<Fault>> {
        let mut reader = Reader::within("tls");
        let opened = self.files.open(&mut reader, &self.us);
        let Opened { material, until } = reader.finish(opened)?;
        self.tls.replace(material);
        Ok(until)
    }
}

/// The section as it is written.
pub(super) struct Section {
    http: bool,
    files: Files,
}

/// Where the files are; of a section, with [`NODE`] where the node's id belongs.
#[derive(Clone, Debug)]
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    /// Another certificate for clients, and its key.
    door: Option<(PathBuf, PathBuf)>,
}

struct Opened {
    material: Material,
    until: Option<Timestamp>,
}

/// Reads the section, and no file yet.
pub(super) fn read(r: &mut Reader, tree: &Tree) -> Option<Section> {
    let mut fields = r.fields(tree)?;
    let ca = fields.required(r, "ca", path);
    let cert = fields.required(r, "cert", path);
    let key = fields.required(r, "key", path);
    let http = fields.optional(r, "http", |r, t| r.boolean(t)).unwrap_or(true);
    let door = door(r, &mut fields, http);
    fields.finish(r);
    Some(Section { http, files: Files { ca: ca?, cert: cert?, key: key?, door: door? } })
}

/// A certificate of their own for clients: none, or both files.
fn door(r: &mut Reader, fields: &mut Fields<'_>, http: bool) -> Option<Option<(PathBuf, PathBuf)>> {
    let (has_cert, has_key) = (fields.has("http_cert"), fields.has("http_key"));
    let cert = fields.optional(r, "http_cert", path);
    let key = fields.optional(r, "http_key", path);
    match (has_cert, has_key) {
        (false, false) => return Some(None),
        (true, false) => r.fault_at("http_key", "is required beside http_cert"),
        (false, true) => r.fault_at("http_cert", "is required beside http_key"),
        (true, true) if !http => r.fault_at("http_cert", "is of no use with http = false"),
        (true, true) => {}
    }
    Some(Some((cert?, key?)))
}

fn path(r: &mut Reader, tree: &Tree) -> Option<PathBuf> {
    r.parsed(tree, "a path", |text| (!text.is_empty()).then(|| text.into()))
}

impl Section {
    /// Reads the files of `us`; paths begin in the directory `beside`.
    pub(super) fn open(self, r: &mut Reader, beside: &Path, us: Certified) -> Option<Tls> {
        let files = self.files.of(beside, us.node.as_str());
        let Opened { material, until } = files.open(r, &us)?;
        Some(Tls { http: self.http, tls: tls::Tls::new(material), until, files, us })
    }
}

impl Files {
    fn of(&self, beside: &Path, node: &str) -> Self {
        let of = |path: &PathBuf| beside.join(path.to_string_lossy().replace(NODE, node));
        Self {
            ca: of(&self.ca),
            cert: of(&self.cert),
            key: of(&self.key),
            door: self.door.as_ref().map(|(cert, key)| (of(cert), of(key))),
        }
    }

    fn open(&self, r: &mut Reader, us: &Certified) -> Option<Opened> {
        let trusted = part(r, "ca", &self.ca, Trusted::from_pem);
        let own = pair(r, ("cert", &self.cert), ("key", &self.key));
        let door =
            self.door.as_ref().map(|(cert, key)| pair(r, ("http_cert", cert), ("http_key", key)));
        let (trusted, own) = (trusted?, own?);
        if let Err(error) = trusted.judge(&own, us) {
            r.fault_at("cert", format!("{} {error}", self.cert.display()));
            return None;
        }
        let door = door.unwrap_or(Some(own.clone()))?;
        match Material::new(&trusted, &own, &door) {
            Ok(material) => Some(Opened { material, until: own.until() }),
            Err(error) => {
                r.fault(error.to_string());
                None
            }
        }
    }
}

/// A certificate and its key.
fn pair(r: &mut Reader, cert: (&str, &Path), key: (&str, &Path)) -> Option<Own> {
    let chain = part(r, cert.0, cert.1, Chain::from_pem);
    let private = part(r, key.0, key.1, PrivateKey::from_pem);
    match Own::new(chain?, private?) {
        Ok(own) => Some(own),
        Err(error) => {
            r.fault_at(key.0, format!("{} {error}", key.1.display()));
            None
        }
    }
}

/// What `parse` makes of a file.
fn part<T>(
    r: &mut Reader,
    member: &str,
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, TlsError>,
) -> Option<T> {
    let said = match bytes(path) {
        Ok(bytes) => match parse(&bytes) {
            Ok(parsed) => return Some(parsed),
            Err(error) => format!("{} {error}", path.display()),
        },
        Err(error) => format!("{}: {error}", path.display()),
    };
    r.fault_at(member, said);
    None
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other(format!("has more than {FILE_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Name;
    use crate::config::Config;
    use crate::net::tls::Authority;

    /// A folder with an authority's certificate, and those of n1 and n2 of the cluster demo.
    struct Folder {
        dir: tempfile::TempDir,
        authority: Authority,
    }

    /// The day on which the tests run, by the clock that certificates are judged by.
    fn today() -> jiff::civil::Date {
        let now = rustls::pki_types::UnixTime::now().as_secs();
        let now = Timestamp::from_second(now.try_into().unwrap()).unwrap();
        now.to_zoned(jiff::tz::TimeZone::UTC).date()
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    impl Folder {
        fn new() -> Self {
            let authority = Authority::begin(&name("demo"), today()).unwrap();
            let folder = Self { dir: tempfile::tempdir().unwrap(), authority };
            folder.write("ca.pem", folder.authority.certificate());
            folder.issue("n1", "n1");
            folder.issue("n2", "n2");
            folder
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::write(self.dir.path().join(file), text).unwrap();
        }

        /// Writes a certificate for `node`, and its key, to the files of `files`.
        fn issue(&self, node: &str, files: &str) {
            let node = Certified { cluster: name("demo"), node: name(node) };
            let issued = self.authority.issue(&node, &[], today()).unwrap();
            self.write(&format!("{files}.pem"), &issued.certificate);
            self.write(&format!("{files}.key"), &issued.key);
        }

        fn read(&self, section: &str, node: &str) -> Result<Config, Vec<String>> {
            let text = format!(
                "[cluster]\nname = \"demo\"\n\
                 [[nodes]]\nid = \"n1\"\nhttp = \"127.0.0.1:7071\"\npeer = \"192.0.2.1:7171\"\n\
                 [[nodes]]\nid = \"n2\"\nhttp = \"127.0.0.1:7072\"\npeer = \"192.0.2.2:7171\"\n\
                 [tls]\n{section}\n"
            );
            let place = format!("{}/", self.dir.path().display());
            Config::read(text.as_bytes(), self.dir.path(), Some(node), |_| None).map_err(|faults| {
                faults.iter().map(|fault| fault.to_string().replace(&place, "")).collect()
            })
        }

        fn faults(&self, section: &str) -> Vec<String> {
            self.read(section, "n1").err().unwrap_or_default()
        }
    }

    const THREE: &str = "ca = \"ca.pem\"\ncert = \"{node}.pem\"\nkey = \"{node}.key\"\n";

    #[test]
    fn one_section_serves_every_node_and_peers_may_be_anywhere() {
        let folder = Folder::new();
        for (node, peer) in [("n1", "192.0.2.1:7171"), ("n2", "192.0.2.2:7171")] {
            let config = folder.read(THREE, node).unwrap();
            assert_eq!(config.peer, Some(peer.parse().unwrap()));
            let tls = config.tls.unwrap();
            assert!(tls.http && tls.until.is_some());
            assert_eq!(tls.client_ca(), Some(folder.dir.path().join("ca.pem").as_path()));
        }
        assert!(!folder.read(&format!("{THREE}http = false"), "n1").unwrap().tls.unwrap().http);
        folder.issue("n1", "public");
        let own = format!("{THREE}http_cert = \"public.pem\"\nhttp_key = \"public.key\"");
        assert_eq!(folder.read(&own, "n1").unwrap().tls.unwrap().client_ca(), None);
    }

    #[test]
    fn each_file_is_judged_at_start_and_all_faults_come_at_once() {
        let folder = Folder::new();
        folder.write("empty.pem", "");
        let none = "No such file or directory (os error 2)";
        assert_eq!(
            folder.faults("ca = \"empty.pem\"\ncert = \"{node}/none.pem\"\nkey = \"n1.pem\""),
            [
                "tls.ca: empty.pem has no certificate in it".to_string(),
                format!("tls.cert: n1/none.pem: {none}"),
                "tls.key: n1.pem has no private key in it (PKCS #8, PKCS #1 or SEC 1, not \
                 encrypted)"
                    .into(),
            ]
        );
        assert_eq!(
            folder.faults("ca = \"ca.pem\"\ncert = \"n1.pem\"\nkey = \"n2.key\""),
            ["tls.key: n2.key is not the key of the certificate"]
        );
        assert_eq!(
            folder.faults("ca = \"ca.pem\"\ncert = \"n2.pem\"\nkey = \"n2.key\""),
            ["tls.cert: n2.pem is for urn:tidegate:node:demo:n2, where urn:tidegate:node:demo:n1 \
              is needed"]
        );
        assert_eq!(
            folder.faults("ca = \"ca.pem\"\ncert = \"ca.pem\"\nkey = \"n1.key\""),
            ["tls.key: n1.key is not the key of the certificate"]
        );
        folder
            .write("foreign.pem", Authority::begin(&name("demo"), today()).unwrap().certificate());
        assert_eq!(
            folder.faults("ca = \"foreign.pem\"\ncert = \"n1.pem\"\nkey = \"n1.key\""),
            ["tls.cert: n1.pem is not signed by an authority in `ca`"]
        );
        folder.write("large.pem", &"x".repeat(1 << 20));
        assert_eq!(
            folder.faults(&THREE.replace("ca.pem", "large.pem")),
            ["tls.ca: large.pem has no certificate in it"]
        );
        folder.write("large.pem", &"x".repeat((1 << 20) + 1));
        assert_eq!(
            folder.faults(&THREE.replace("ca.pem", "large.pem")),
            ["tls.ca: large.pem: has more than 1048576 bytes"]
        );
    }

    #[test]
    fn a_section_that_says_too_little_or_too_much_is_a_fault() {
        let folder = Folder::new();
        assert_eq!(
            folder.faults(""),
            ["tls.ca: is required", "tls.cert: is required", "tls.key: is required"]
        );
        let with = |more: &str| folder.faults(&format!("{THREE}{more}"));
        assert_eq!(with("http_cert = \"n1.pem\""), ["tls.http_key: is required beside http_cert"]);
        assert_eq!(with("http_key = \"n1.key\""), ["tls.http_cert: is required beside http_key"]);
        assert_eq!(
            with("http = false\nhttp_cert = \"n1.pem\"\nhttp_key = \"n1.key\""),
            ["tls.http_cert: is of no use with http = false"]
        );
        assert_eq!(
            with("http_cert = \"n1.pem\"\nhttp_key = \"n2.key\""),
            ["tls.http_key: n2.key is not the key of the certificate"]
        );
        assert_eq!(with("htttp = true"), ["tls.htttp: unknown member; did you mean http?"]);
        assert_eq!(folder.faults(&THREE.replace("ca.pem", "")), ["tls.ca: \"\" is not a path"]);
    }

    #[test]
    fn the_sample_file_shows_a_section_that_is_taken() {
        let folder = Folder::new();
        std::fs::create_dir(folder.dir.path().join("certs")).unwrap();
        folder.write("certs/ca.pem", folder.authority.certificate());
        ["n1", "n2", "n3"].iter().for_each(|node| folder.issue(node, &format!("certs/{node}")));
        folder.issue("n1", "public");
        let sample = include_str!("../../cluster.toml");
        let (_, section) = sample.split_once("# [tls]\n").unwrap();
        let section: Vec<_> = section.lines().map_while(|line| line.strip_prefix("# ")).collect();
        assert_eq!(section.len(), 6);
        let text = format!("{sample}\n[tls]\n{}\n", section.join("\n"));
        for node in ["n1", "n2", "n3"] {
            let config =
                Config::read(text.as_bytes(), folder.dir.path(), Some(node), |_| None).unwrap();
            assert!(config.tls.unwrap().http, "{node}");
        }
    }

    #[test]
    fn files_that_changed_are_taken_and_those_that_broke_are_not() {
        let folder = Folder::new();
        let tls = folder.read(THREE, "n1").unwrap().tls.unwrap();
        folder.issue("n1", "n1");
        assert!(tls.reload().unwrap().is_some());
        folder.issue("n2", "n1");
        let faults = tls.reload().unwrap_err();
        assert!(faults.len() == 1 && faults[0].path == "tls.cert", "{faults:?}");
    }
}
