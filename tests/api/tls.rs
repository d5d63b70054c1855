//! HTTP under TLS: what the door shows, whom the command line believes, and certificates that
//! change while a node runs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::rig::{self, Home, Node, PATIENCE, instant, until};
use crate::support::unix_seconds;

const POLICY: &str = r#"
    default_tier = "free"
    [tiers.free]
    limits = [{ name = "day", algorithm = "fixed_window", limit = 100, window = "1d" }]
"#;

const TLS: &str = "[cluster]\nname = \"demo\"\n[tls]\nca = \"certs/ca.pem\"\ncert = \
                   \"certs/{node}.pem\"\nkey = \"certs/{node}.key\"\n";

/// A folder with certificates for n1, and the configuration that names them, and then `rest`.
fn home(rest: &str) -> Home {
    let home = Home::new(POLICY, &format!("{TLS}{rest}"));
    home.certify("--cluster demo n1");
    home
}

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// A connection to the node at `addr`, which is believed if `ca` has signed its certificate; with
/// the protocol both chose.
fn connect(addr: SocketAddr, ca: &Path, protocols: &[&str]) -> std::io::Result<Secured> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(tidegate::net::tls::provider());
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// Sends a request over HTTP/1.1 and reads all that comes.
fn ask(stream: &mut Secured, method: &str, path: &str, body: &str) -> String {
    let head = rig::head(method, path, &[("connection", "close")], body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// Runs a command against the node at `url`, believing `ca`.
fn command(home: &Home, url: &str, ca: Option<&str>, line: &str) -> Output {
    let mut command = rig::program();
    command.args(line.split_whitespace()).env("TIDEGATE_URL", url).current_dir(home.path(""));
    if let Some(ca) = ca {
        command.env("TIDEGATE_CACERT", ca);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn http_is_served_over_tls_to_whoever_believes_the_authority() {
    let home = home("");
    let node = home.start();
    assert!(
        node.process.out().contains(&format!("https://{}", node.addr)),
        "{}",
        node.process.out()
    );
    let ca = home.path("certs/ca.pem");
    let mut stream = connect(node.addr, &ca, &["http/1.1"]).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = ask(&mut stream, "POST", "/v1/check", r#"{"tenant":"acme"}"#);
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"remaining\":99"),
        "{answer}"
    );
    // Somebody else's signature is nobody's.
    home.certify("--cluster demo --dir foreign n1");
    let refused = connect(node.addr, &home.path("foreign/ca.pem"), &[]).err().unwrap();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    // Plain text isn't answered as HTTP, and harms nobody.
    let mut plain = rig::Wire::to(node.addr).unwrap();
    plain.send("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    plain.wait_closed();
    let mut stream = connect(node.addr, &ca, &[]).unwrap();
    assert!(ask(&mut stream, "GET", "/livez", "").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn clients_that_speak_http_2_are_answered_in_it() {
    let home = home("");
    let node = home.start();
    let mut stream = connect(node.addr, &home.path("certs/ca.pem"), &["h2", "http/1.1"]).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    // The preface, no settings, and on stream 1 a request for /livez without a body: GET, https,
    // the path, an authority.
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let headers = b"\x82\x87\x04\x06/livez\x01\x01x";
    request.extend([0, 0, headers.len() as u8, 1, 0x05, 0, 0, 0, 1]);
    request.extend(headers);
    stream.write_all(&request).unwrap();
    // The first byte of the answer's headers is `:status: 200` from HPACK's table.
    let status = loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == 1 {
            break payload[0];
        }
    };
    assert_eq!(status, 0x88);
}

#[test]
fn the_command_line_asks_whom_it_is_told_to_believe() {
    let home = home("");
    let node = home.start();
    home.certify("--cluster demo --dir foreign n1");
    let (https, http) = (format!("https://{}", node.addr), format!("http://{}", node.addr));
    let ran = |url: &str, ca, line| said(&command(&home, url, ca, line));
    let (code, text) = ran(&https, Some("certs/ca.pem"), "check acme");
    assert!(code == Some(0) && text.starts_with("allowed: acme"), "{text}");
    let flag = format!("check acme --cost 100 --url {https} --ca-cert certs/ca.pem");
    assert_eq!(ran(&http, None, &flag).0, Some(3));
    let (code, text) = ran(&https, None, "check acme");
    assert!(code == Some(2) && text.contains("--ca-cert"), "{text}");
    let (code, text) = ran(&https, Some("foreign/ca.pem"), "check acme");
    assert!(
        code == Some(1) && text.contains("signed by nobody whose certificate is in the file"),
        "{text}"
    );
    let (code, text) =
        ran(&https.replace("127.0.0.1", "127.0.0.2"), Some("certs/ca.pem"), "check acme");
    assert!(code != Some(0), "{text}");
    // What speaks TLS is no HTTP, and what speaks HTTP no TLS.
    let (code, text) = ran(&http, None, "check acme");
    assert!(code == Some(1) && text.contains("its URL begins with https:"), "{text}");
    let plain = Home::new(POLICY, "").start();
    let (code, text) = ran(&format!("https://{}", plain.addr), Some("certs/ca.pem"), "check acme");
    assert!(code == Some(1) && text.contains("it speaks no TLS"), "{text}");
}

#[test]
fn a_certificate_of_its_own_is_for_clients_alone() {
    let rest = "http_cert = \"public/n1.pem\"\nhttp_key = \"public/n1.key\"\n";
    let home = home(rest);
    home.certify("--cluster elsewhere --dir public n1");
    let node = home.start();
    assert!(connect(node.addr, &home.path("certs/ca.pem"), &[]).is_err());
    let mut stream = connect(node.addr, &home.path("public/ca.pem"), &[]).unwrap();
    assert!(ask(&mut stream, "GET", "/livez", "").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_handshake_has_as_long_as_a_head_and_no_stop_waits_for_it() {
    let home = home("[limits]\nheader_ms = 500\nnotice_ms = 0\ndrain_ms = 20000\n");
    let node = home.start();
    let mut slow = rig::Wire::to(node.addr).unwrap();
    slow.send(b"\x16\x03\x01").unwrap();
    let took = slow.wait_closed();
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&took), "{took:?}");
    let patient = Home::new(POLICY, &format!("{TLS}[limits]\nheader_ms = 60000\nnotice_ms = 0\n"));
    patient.certify("--cluster demo n1");
    let node = patient.start();
    let _begun = rig::Wire::to(node.addr).unwrap();
    let begun = instant();
    let (status, log) = node.stop();
    assert!(status.success() && instant() - begun < Duration::from_secs(10), "{status} {log}");
}

fn reload(node: &Node, said: &str) {
    let before = node.process.log().len();
    node.process.signal(Signal::HUP);
    until(said, || node.process.log()[before..].contains(said).then_some(()));
}

#[test]
fn certificates_are_read_again_at_sighup_and_broken_ones_are_not_taken() {
    let home = home("");
    let node = home.start();
    let (old, new) = (home.path("certs/ca.pem"), home.path("next/ca.pem"));
    home.certify("--cluster demo --dir next n1");
    let mut kept = connect(node.addr, &old, &["http/1.1"]).unwrap();
    for file in ["ca.pem", "n1.pem", "n1.key"] {
        fs::copy(home.path("certs").join(file), home.path(&format!("kept-{file}"))).unwrap();
        fs::copy(home.path("next").join(file), home.path("certs").join(file)).unwrap();
    }
    let old = home.path("kept-ca.pem");
    assert!(connect(node.addr, &old, &[]).is_ok());
    reload(&node, "SIGHUP: read again: the certificates (valid until ");
    assert!(connect(node.addr, &new, &[]).is_ok() && connect(node.addr, &old, &[]).is_err());
    // A connection that was there goes on.
    assert!(ask(&mut kept, "GET", "/livez", "").starts_with("HTTP/1.1 200 OK\r\n"));
    fs::write(home.path("certs/n1.key"), "nonsense").unwrap();
    reload(&node, "what is in force stays");
    assert!(
        node.process.log().contains("n1.key has no private key in it"),
        "{}",
        node.process.log()
    );
    assert!(connect(node.addr, &new, &[]).is_ok());
}

#[test]
fn metrics_say_when_the_certificates_expire() {
    let home = home("");
    let node = home.start();
    let mut stream = connect(node.addr, &home.path("certs/ca.pem"), &["http/1.1"]).unwrap();
    let text = ask(&mut stream, "GET", "/metrics", "");
    let now = unix_seconds() as f64;
    for shown in ["peer", "http"] {
        let series = format!("tidegate_certificate_expiry_seconds{{use=\"{shown}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        let at: f64 = value.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
        let days = (at - now) / 86_400.0;
        assert!((363.0..366.0).contains(&days), "{shown}: {days}");
    }
}

#[test]
fn a_node_whose_certificates_are_not_right_does_not_start() {
    let home = Home::new(POLICY, TLS);
    let refused = |why: &[&str]| {
        let mut process = home.run();
        assert_eq!(process.end().code(), Some(2));
        why.iter().for_each(|why| assert!(process.log().contains(why), "{}", process.log()));
    };
    refused(&["tls.ca: ", "tls.cert: ", "tls.key: ", "certs/n1.key: No such file"]);
    home.certify("--cluster other n1");
    refused(&["is for urn:tidegate:node:other:n1, where urn:tidegate:node:demo:n1 is needed"]);
    for file in ["n1.pem", "n1.key"] {
        fs::remove_file(home.path("certs").join(file)).unwrap();
    }
    home.certify("--cluster demo n1");
    fs::copy(home.path("certs/ca.key"), home.path("certs/n1.key")).unwrap();
    refused(&["tls.key: ", "n1.key is not the key of the certificate"]);
}
