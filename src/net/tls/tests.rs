//! Nodes with certificates of an authority made for the test, on loopback sockets.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::civil::{Date, date};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::check::Name;
use crate::net::{Carried, Dial, Listen, Network, Stream};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn certified(node: &str) -> Certified {
    Certified { cluster: name("demo"), node: name(node) }
}

/// The day on which the tests run, by the clock that rustls judges by.
fn today() -> Date {
    let now = rustls::pki_types::UnixTime::now().as_secs();
    let now = jiff::Timestamp::from_second(now.try_into().unwrap()).unwrap();
    now.to_zoned(jiff::tz::TimeZone::UTC).date()
}

fn authority() -> Authority {
    Authority::begin(&name("demo"), today()).unwrap()
}

fn own_as_of(authority: &Authority, node: &str, today: Date) -> Own {
    let hosts =
        [ServerName::try_from("localhost").unwrap(), ServerName::try_from("127.0.0.1").unwrap()];
    let Issued { certificate, key } = authority.issue(&certified(node), &hosts, today).unwrap();
    let chain = Chain::from_pem(certificate.as_bytes()).unwrap();
    Own::new(chain, PrivateKey::from_pem(key.as_bytes()).unwrap()).unwrap()
}

fn own(authority: &Authority, node: &str) -> Own {
    own_as_of(authority, node, today())
}

fn trusted(authority: &Authority) -> Trusted {
    Trusted::from_pem(authority.certificate().as_bytes()).unwrap()
}

/// The TLS of `node`, that shows what `signer` has signed and believes `believed`.
fn tls(node: &str, signer: &Authority, believed: &Authority) -> Tls {
    let own = own(signer, node);
    Tls::new(Material::new(&trusted(believed), &own, &own).unwrap())
}

/// What both ends get: the one that dials, and the one that is dialled.
async fn meet(
    dialling: &Tls,
    dialled: &Tls,
) -> (std::io::Result<TlsStream>, std::io::Result<TlsStream>) {
    let mut listener = dialled.peers(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap().to_string();
    let mut dial = dialling.network().dial(&address).unwrap();
    tokio::join!(dial.dial(), async {
        let (accepted, _) = listener.accept().await.unwrap();
        Accepted::unpack(accepted.pack().unwrap()).await
    })
}

#[tokio::test]
async fn both_ends_know_who_is_at_the_other_by_its_certificate() {
    let authority = authority();
    let (n1, n2) = (tls("n1", &authority, &authority), tls("n2", &authority, &authority));
    let (dialling, dialled) = meet(&n1, &n2).await;
    let (mut dialling, mut dialled) = (dialling.unwrap(), dialled.unwrap());
    assert_eq!(dialling.certified(), Some(&certified("n2")));
    assert_eq!(dialled.certified(), Some(&certified("n1")));
    dialling.write_all(b"hello").await.unwrap();
    dialling.flush().await.unwrap();
    let mut said = [0; 5];
    dialled.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
}

#[tokio::test]
async fn an_authority_that_isnt_ours_is_believed_by_neither_end() {
    let (ours, foreign) = (authority(), authority());
    let (n1, n2) = (tls("n1", &ours, &ours), tls("n2", &ours, &ours));
    // Who dials finds out by itself that the other has a foreign certificate.
    let (dialling, dialled) = meet(&n1, &tls("n2", &foreign, &foreign)).await;
    assert!(dialling.unwrap_err().to_string().starts_with("invalid peer certificate"));
    assert!(dialled.is_err());
    // Who believes both and shows a foreign one is through with its handshake before it is refused;
    // reading says so.
    let (dialling, dialled) = meet(&tls("n1", &foreign, &ours), &n2).await;
    assert!(dialled.unwrap_err().to_string().starts_with("invalid peer certificate"));
    assert!(dialling.unwrap().read_u8().await.is_err());
}

#[tokio::test]
async fn whoever_shows_no_certificate_is_refused() {
    let authority = authority();
    let n2 = tls("n2", &authority, &authority);
    let mut listener = n2.peers(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let (dialling, dialled) = tokio::join!(client(address, &authority, &[]), async {
        let (accepted, _) = listener.accept().await.unwrap();
        Accepted::unpack(accepted.pack().unwrap()).await
    });
    assert_eq!(dialled.unwrap_err().to_string(), "peer sent no certificates");
    // As TLS 1.3 has it, the client learns of it when it reads.
    assert!(dialling.unwrap().read_u8().await.is_err());
}

#[tokio::test]
async fn plain_text_and_a_broken_off_handshake_are_refused() {
    let authority = authority();
    let n2 = tls("n2", &authority, &authority);
    for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00", b""] {
        let mut listener = n2.peers(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let plain = async {
            let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            tcp.write_all(sent).await.unwrap();
            tcp.shutdown().await.unwrap();
            // There may be an alert to read, or the connection may be reset before.
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        };
        let refused = async {
            let (accepted, _) = listener.accept().await.unwrap();
            Accepted::unpack(accepted.pack().unwrap()).await.is_err()
        };
        assert!(tokio::join!(plain, refused).1, "{sent:?}");
    }
}

/// A client that believes `believed`, and speaks `protocols`.
async fn client(
    address: SocketAddr,
    believed: &Authority,
    protocols: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = Chain::from_pem(believed.certificate().as_bytes()).unwrap();
    roots.add(ca.certificates()[0].clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider());
    let config =
        config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let tcp = tokio::net::TcpStream::connect(address).await?;
    let localhost = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(localhost, tcp).await
}

#[tokio::test]
async fn at_the_door_only_the_node_shows_a_certificate_and_the_best_protocol_is_chosen() {
    let authority = authority();
    let n1 = tls("n1", &authority, &authority);
    for (offered, chosen) in [
        (&[&b"http/1.1"[..], b"h2"][..], Some(&b"h2"[..])),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let mut door = n1.door(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = door.local_addr().unwrap();
        let (client, served) = tokio::join!(client(address, &authority, offered), async {
            let (accepted, _) = door.accept().await.unwrap();
            Accepted::unpack(accepted.pack().unwrap()).await
        });
        assert_eq!(client.unwrap().get_ref().1.alpn_protocol(), chosen);
        assert_eq!(served.unwrap().certified(), None);
    }
}

#[tokio::test]
async fn new_material_is_for_the_connections_from_then_on() {
    let (before, after) = (authority(), authority());
    let (n1, n2) = (tls("n1", &before, &before), tls("n2", &before, &before));
    let (dialling, dialled) = meet(&n1, &n2).await;
    let (mut dialling, mut dialled) = (dialling.unwrap(), dialled.unwrap());
    let own = own(&after, "n2");
    n2.replace(Material::new(&trusted(&after), &own, &own).unwrap());
    assert!(meet(&n1, &n2).await.0.is_err());
    dialled.write_all(b"still here").await.unwrap();
    dialled.flush().await.unwrap();
    let mut said = [0; 10];
    tokio::time::timeout(Duration::from_secs(5), dialling.read_exact(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&said, b"still here");
}

#[tokio::test]
async fn while_both_are_believed_one_authority_takes_anothers_place() {
    let (old, new) = (authority(), authority());
    let both =
        Trusted::from_pem([old.certificate(), new.certificate()].concat().as_bytes()).unwrap();
    let of = |own: Own| Tls::new(Material::new(&both, &own, &own).unwrap());
    let (n1, n2) = (of(own(&old, "n1")), of(own(&new, "n2")));
    for (dialling, dialled) in [(&n1, &n2), (&n2, &n1)] {
        let (dialling, dialled) = meet(dialling, dialled).await;
        assert!(dialling.is_ok() && dialled.is_ok());
    }
}

#[test]
fn a_nodes_own_certificate_is_judged_as_its_peers_will() {
    let (ours, foreign) = (authority(), authority());
    let judged = |own: &Own, node: &str| {
        trusted(&ours).judge(own, &certified(node)).map_err(|error| error.to_string())
    };
    assert_eq!(judged(&own(&ours, "n1"), "n1"), Ok(()));
    assert_eq!(
        judged(&own(&ours, "n1"), "n2").unwrap_err(),
        "is for urn:tidegate:node:demo:n1, where urn:tidegate:node:demo:n2 is needed"
    );
    assert_eq!(
        judged(&own(&foreign, "n1"), "n1").unwrap_err(),
        "is not signed by an authority in `ca`"
    );
    let past = own_as_of(&ours, "n1", date(2020, 2, 29));
    assert_eq!(judged(&past, "n1").unwrap_err(), "has expired");
    assert_eq!(past.until().unwrap().to_string(), "2021-02-28T00:00:00Z");
    assert_eq!(
        judged(&own_as_of(&ours, "n1", date(2500, 1, 1)), "n1").unwrap_err(),
        "is not valid yet"
    );
}

#[test]
fn what_is_in_a_file_is_what_it_should_be() {
    let authority = authority();
    let Issued { certificate, key } = authority.issue(&certified("n1"), &[], today()).unwrap();
    let error = |found: Option<TlsError>| found.unwrap().to_string();
    assert_eq!(error(Trusted::from_pem(key.as_bytes()).err()), "has no certificate in it");
    assert_eq!(error(Chain::from_pem(b"").err()), "has no certificate in it");
    assert!(
        error(PrivateKey::from_pem(certificate.as_bytes()).err())
            .starts_with("has no private key in it")
    );
    let cut = &certificate[..certificate.len() / 2];
    assert!(error(Chain::from_pem(cut.as_bytes()).err()).starts_with("is not PEM"), "{cut}");
    let many = certificate.repeat(11);
    assert_eq!(
        error(Chain::from_pem(many.as_bytes()).err()),
        "has more than 10 certificates in it"
    );
    assert!(Trusted::from_pem(certificate.repeat(64).as_bytes()).is_ok());
    let other = authority.issue(&certified("n1"), &[], today()).unwrap().key;
    let chain = || Chain::from_pem(certificate.as_bytes()).unwrap();
    let mismatch = Own::new(chain(), PrivateKey::from_pem(other.as_bytes()).unwrap());
    assert_eq!(error(mismatch.err()), "is not the key of the certificate");
    let own = Own::new(chain(), PrivateKey::from_pem(key.as_bytes()).unwrap()).unwrap();
    assert_eq!(format!("{own:?}"), "Own(1 certificates)");
}

#[test]
fn an_authority_that_was_kept_signs_for_the_same_cluster_again() {
    let first = authority();
    let kept = Authority::from_pem(first.certificate(), &first.key()).unwrap();
    assert!(trusted(&first).judge(&own(&kept, "n4"), &certified("n4")).is_ok());
    let other = authority();
    assert!(matches!(
        Authority::from_pem(first.certificate(), &other.key()).err(),
        Some(AuthorityError::OtherKey)
    ));
    let node = first.issue(&certified("n1"), &[], today()).unwrap();
    assert!(matches!(
        Authority::from_pem(&node.certificate, &node.key).err(),
        Some(AuthorityError::NoAuthority)
    ));
    assert!(Authority::from_pem("nonsense", &first.key()).is_err());
    assert!(Authority::from_pem(first.certificate(), "nonsense").is_err());
}
