//! Nodes with certificates are one limiter, and nobody else gets among them.

use std::fs;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;
use tidegate::check::Name;
use tidegate::net::tls::{
    Authority, Certified, Chain, Material, Own, PrivateKey, Tls, TlsStream, Trusted,
};
use tidegate::net::{Dial, Network};
use tidegate::peer::{
    BootId, Class, Frame, FrameCodec, FrameKind, Hello, Identity, Lineage, Marks, VERSIONS,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::Encoder;

use crate::harness::{Cluster, HUNDRED_A_DAY};
use crate::recovery::{offline, printed_line, wait_up};
use crate::rig::{Home, until};

/// HTTP stays plain, so that it can be asked as it is elsewhere.
const TLS: &str = "[tls]\nca = \"certs/ca.pem\"\ncert = \"certs/{node}.pem\"\nkey = \
                   \"certs/{node}.key\"\nhttp = false\n";

fn start() -> Cluster {
    let home = Home::empty();
    home.certify("--cluster test n1 n2 n3");
    Cluster::start_in(home, 3, HUNDRED_A_DAY, TLS)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Every node still decides what it owns, asked through every other, and is connected to them all.
fn assert_connected(cluster: &Cluster, prefix: &str) {
    cluster.assert_whole(prefix);
    for through in cluster.running() {
        let breakers = cluster.get(through, "/v1/cluster/breakers");
        let up = breakers["breakers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|breaker| breaker["connected"] == true);
        assert_eq!(up.count(), cluster.running().len() - 1, "{breakers}");
    }
}

#[test]
fn three_nodes_with_certificates_decide_exactly() {
    let cluster = start();
    for (i, tenant) in ["a", "b", "c", "d"].iter().enumerate() {
        assert_eq!(cluster.admitted(6, 150, |_| json!({"tenant": tenant})), 100, "{i}");
    }
    assert_connected(&cluster, "t");
    for i in 0..3 {
        assert!(cluster.node(i).process.out().contains("tls     peers, certificate until 20"));
    }
}

#[test]
fn a_node_that_shows_nothing_or_what_nobody_believes_stays_out_and_may_come_back() {
    let mut cluster = start();
    cluster.home().certify("--cluster test --dir foreign n3");
    let file = cluster.home().path("cluster.toml");
    let with = fs::read_to_string(&file).unwrap();
    let plain = with.replace(TLS, "");
    let foreign = with.replace("certs/", "foreign/");
    for (config, of_n3, of_n1) in [
        // It speaks plain text, and the others a handshake that looks to it like a frame of
        // hundreds of megabytes.
        (&plain, "a frame is longer than 1024 bytes", "received corrupt message of type"),
        (&foreign, "invalid peer certificate", "a peer was not let in"),
    ] {
        cluster.kill(2);
        let before = cluster.node(0).process.log().len();
        cluster.home().write("cluster.toml", config.as_bytes());
        cluster.begin(2);
        until("n3 finds nobody who believes it", || {
            let (n3, n1) = (cluster.node(2).process.log(), cluster.node(0).process.log());
            (n3.contains(of_n3) && n1[before..].contains(of_n1)).then_some(())
        });
        until("n3 knows that it is alone", || {
            let status = cluster.status(2);
            (status["leader"].is_null() && status["quorum"] == false).then_some(())
        });
        // The two others go on.
        let tenant = cluster.tenant_of(1, 0, "t");
        assert_eq!(cluster.check(0, json!({"tenant": tenant}))["allowed"], true);
        assert_eq!(cluster.status(0)["nodes"][2]["state"], "unreachable");
    }
    cluster.kill(2);
    cluster.home().write("cluster.toml", with.as_bytes());
    cluster.begin(2);
    (0..3).for_each(|i| cluster.wait_ready(i));
    until("n3 is asked again", || {
        let breakers = cluster.get(0, "/v1/cluster/breakers");
        (breakers["breakers"][1]["connected"] == true).then_some(())
    });
}

/// What dials as somebody who isn't a node: with an authority's signature on whatever it likes.
struct Outsider {
    signer: Authority,
    /// The cluster's authority.
    believed: Trusted,
    peer: String,
}

impl Outsider {
    fn new(cluster: &Cluster, folder: &str) -> Self {
        let text = |file: String| fs::read_to_string(cluster.home().path(&file)).unwrap();
        let (pem, key) = (text(format!("{folder}/ca.pem")), text(format!("{folder}/ca.key")));
        Self {
            signer: Authority::from_pem(&pem, &key).unwrap(),
            believed: Trusted::from_pem(text("certs/ca.pem".into()).as_bytes()).unwrap(),
            peer: cluster.peer(0),
        }
    }

    /// A connection under a certificate for `node` of `cluster`.
    async fn dial(&self, cluster: &str, node: &str) -> TlsStream {
        let certified = Certified { cluster: name(cluster), node: name(node) };
        // Node certificates are good from the day before.
        let today = jiff::civil::Date::from(
            jiff::Timestamp::from_second(rustls::pki_types::UnixTime::now().as_secs() as i64)
                .unwrap()
                .to_zoned(jiff::tz::TimeZone::UTC),
        );
        let issued = self.signer.issue(&certified, &[], today).unwrap();
        let chain = Chain::from_pem(issued.certificate.as_bytes()).unwrap();
        let own = Own::new(chain, PrivateKey::from_pem(issued.key.as_bytes()).unwrap()).unwrap();
        let tls = Tls::new(Material::new(&self.believed, &own, &own).unwrap());
        // With TLS 1.3 whoever dials is through before its own certificate is looked at.
        tls.network().dial(&self.peer).unwrap().dial().await.unwrap()
    }

    /// Dials under a certificate for `node` of `cluster`, sends these bytes, and reads until there
    /// is no more to read.
    async fn send(&self, cluster: &str, node: &str, bytes: &[u8]) {
        let mut stream = self.dial(cluster, node).await;
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await
        };
        // Whether it hears why, or is cut off, is a matter of time.
        let _ = tokio::time::timeout(Duration::from_secs(10), sent).await.unwrap();
    }
}

/// The greeting of a node that calls itself `node`.
fn greeting(node: &str) -> Vec<u8> {
    let who = Identity {
        cluster: name("test"),
        node: name(node),
        boot: BootId(9),
        versions: VERSIONS,
        lineage: Lineage::default(),
        level: tidegate::placement::FormatLevel::OWN,
    };
    let body = Hello { who, class: Class::Checks, marks: Marks::default() }.write();
    frame(Frame { kind: FrameKind::Hello, ttl_us: 0, id: 0, message: 0, body })
}

fn frame(frame: Frame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    FrameCodec::handshake().encode(frame, &mut bytes).unwrap();
    bytes.to_vec()
}

/// The length of a frame that is as long as a length can say.
fn giant() -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_u32(u32::MAX);
    bytes.put_slice(b"TG");
    bytes.to_vec()
}

#[tokio::test]
async fn whoever_isnt_a_node_is_refused_with_a_reason_and_harms_nobody() {
    let cluster = start();
    cluster.home().certify("--cluster test --dir foreign n3");
    let (ours, foreign) = (Outsider::new(&cluster, "certs"), Outsider::new(&cluster, "foreign"));
    let mut seen = cluster.node(0).process.log().len();
    let mut refused = |why: &str| {
        until(why, || cluster.node(0).process.log()[seen..].contains(why).then_some(()));
        seen = cluster.node(0).process.log().len();
    };

    foreign.send("test", "n3", &greeting("n3")).await;
    refused("invalid peer certificate");
    ours.send("test", "n3", &greeting("n2")).await;
    refused("it calls itself n2, and its certificate is for urn:tidegate:node:test:n3");
    ours.send("prod", "n2", &greeting("n2")).await;
    refused("it calls itself n2, and its certificate is for urn:tidegate:node:prod:n2");
    ours.send("test", "n9", &greeting("n9")).await;
    refused("node n9 is no member of this cluster");
    assert_connected(&cluster, "a");

    // A node's own certificate is no excuse for frames that are none.
    let whole = greeting("n3");
    ours.send("test", "n3", &whole[..whole.len() / 2]).await;
    refused("a peer was not let in");
    ours.send("test", "n3", &giant()).await;
    refused("a frame is longer than 1024 bytes");
    ours.send("test", "n3", &[greeting("n3"), giant()].concat()).await;
    refused("a frame is longer than 1048576 bytes");
    let stray = Frame { kind: FrameKind::Pong, ttl_us: 0, id: 0, message: 0, body: Bytes::new() };
    ours.send("test", "n3", &frame(stray)).await;
    refused("the peer's greeting can't be read");
    assert_connected(&cluster, "b");

    // Plain text, and silence.
    let mut plain = TcpStream::connect(&ours.peer).await.unwrap();
    plain.write_all(&greeting("n3")).await.unwrap();
    refused("received corrupt message of type");
    let _silent = TcpStream::connect(&ours.peer).await.unwrap();
    refused("the handshake took longer than 1s");
    assert_connected(&cluster, "c");
}

#[test]
fn a_node_joins_with_a_certificate_of_its_own_and_not_without() {
    let mut cluster = start();
    let line = cluster.joins(3, 0, &[]);
    // Without a file it speaks plain text, and isn't found.
    let mut plain = cluster.run_line(&line);
    assert_eq!(plain.end().code(), Some(1), "{}", plain.log());
    let log = plain.log();
    assert!(log.contains("n4 does not answer at "), "{log}");
    let why = "this cluster uses TLS, and the node there does not answer with TLS";
    assert!(
        log.contains(why)
            && log.contains("start it with a configuration (--config) that has [tls]"),
        "{log}"
    );
    cluster.home().certify("--cluster test n4");
    let words: Vec<_> = line.iter().map(String::as_str).collect();
    let node = cluster.home().run_words_as(&words, "n4").started();
    cluster.put(3, node);
    cluster.wait_seated(3, 0);
    cluster.wait_balanced(0);
    assert_connected(&cluster, "j");
}

#[test]
fn the_lines_that_recover_prints_with_the_file_work_under_tls() {
    let home = Home::empty();
    home.certify("--cluster test --host 127.0.0.1 n1 n2 n3");
    let mut cluster = Cluster::start_in(home, 3, HUNDRED_A_DAY, TLS);
    for i in [0, 1] {
        cluster.kill(i);
        fs::remove_dir_all(cluster.home().path(&format!("data/n{}", i + 1))).unwrap();
    }
    cluster.stop(2);
    let words = ["cluster", "recover", "--config", "cluster.toml", "--node", "n3", "--force"];
    let (code, data, notes) = offline(&cluster, &words);
    assert_eq!(code, 0, "{data}{notes}");
    cluster.begin(2);
    wait_up(&cluster, 2);
    for i in [0, 1] {
        cluster.start_line(i, &printed_line(&notes, i));
        cluster.wait_seated(i, 2);
    }
    assert_eq!(cluster.status(2)["nodes"].as_array().unwrap().len(), 3);
    // Where HTTP has TLS too, the line says whose certificates to believe.
    (0..3).for_each(|i| cluster.stop(i));
    let file = fs::read_to_string(cluster.home().path("cluster.toml")).unwrap();
    cluster.home().write("cluster.toml", file.replace("http = false\n", "").as_bytes());
    let (code, _, notes) = offline(&cluster, &words);
    assert_eq!(code, 0, "{notes}");
    let line = printed_line(&notes, 0).join(" ");
    assert!(line.contains(" --join https://127.0.0.1:"), "{line}");
    assert!(line.contains(" --ca-cert ") && line.ends_with("certs/ca.pem"), "{line}");
}
