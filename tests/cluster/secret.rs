//! Nodes know each other by a secret: a stranger on the machine gets in nowhere, whatever it greets
//! as.

use std::os::unix::fs::MetadataExt;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tidegate::check::Name;
use tidegate::peer::{
    BootId, Class, Frame, FrameCodec, FrameKind, Hello, Identity, Lineage, Marks, VERSIONS,
};
use tidegate::placement::FormatLevel;
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::harness::{Cluster, HUNDRED_A_DAY, TOKEN, with_token};
use crate::recovery::{offline, printed_line, wait_up};
use crate::rig::{Home, until};

const SECRET: &str = "the-secret-of-the-peers";
const NEXT: &str = "the-next-secret-of-them";

fn peers(secrets: &[&str]) -> String {
    format!("[peers]\nsecret = {secrets:?}\n")
}

fn start(sections: &str) -> Cluster {
    Cluster::with_auth(3, HUNDRED_A_DAY, sections, TOKEN)
}

/// Puts other sections in the place of those in the configuration.
fn configure(cluster: &Cluster, from: &str, to: &str) {
    let file = cluster.home().path("cluster.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    cluster.home().write("cluster.toml", text.replace(from, to).as_bytes());
}

fn are_connected(cluster: &Cluster, i: usize) -> bool {
    let breakers = cluster.get(i, "/v1/cluster/breakers");
    let up =
        breakers["breakers"].as_array().unwrap().iter().filter(|peer| peer["connected"] == true);
    up.count() == cluster.running().len() - 1
}

fn wait_whole(cluster: &Cluster) {
    for i in cluster.running() {
        until("every node is connected to all others", || are_connected(cluster, i).then_some(()));
        wait_up(cluster, i);
    }
}

fn logged(cluster: &Cluster, i: usize, text: &str) {
    until(text, || cluster.node(i).process.log().contains(text).then_some(()));
}

/// What greets as the node n2 of the cluster.
fn hello(class: Class, marks: Marks) -> Hello {
    let name = |text| Name::new(text).unwrap();
    let who = Identity {
        cluster: name("test"),
        node: name("n2"),
        boot: BootId(9),
        versions: VERSIONS,
        lineage: Lineage::default(),
        level: FormatLevel::OWN,
    };
    Hello { who, class, marks }
}

fn frame(kind: FrameKind, body: impl Into<Bytes>) -> Frame {
    Frame { kind, ttl_us: 1_000_000, id: 1, message: 0, body: body.into() }
}

/// Sends these frames to a node, and returns the last that it answers.
async fn speaks(address: &str, frames: Vec<Frame>) -> Option<Frame> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut framed = Framed::new(stream, FrameCodec::handshake());
    let mut last = None;
    for frame in frames {
        framed.send(frame).await.unwrap();
        last = framed.next().await.and_then(Result::ok);
    }
    last
}

#[tokio::test]
async fn a_stranger_that_greets_as_a_member_is_refused() {
    let mut cluster = start(&with_token());
    wait_whole(&cluster);
    assert!(cluster.node(0).process.out().contains("peers   by secret (from the admin tokens)"));
    let (address, term) = (cluster.peer(0), cluster.status(0)["term"].clone());
    for class in Class::ALL {
        // As a program that knows no secret, which hopes to be taken for an older one.
        let greeting = hello(class, Marks::default()).write();
        let refused = speaks(&address, vec![frame(FrameKind::Hello, greeting)]).await.unwrap();
        let why = String::from_utf8(refused.body.to_vec()).unwrap();
        assert_eq!(refused.kind, FrameKind::Refusal);
        assert!(why.starts_with("node n2 gives no proof that it knows the peer secret"), "{why}");
        // As one that makes its proof up. It is shown none.
        let greeting = hello(class, Marks { nonce: Some([1; 32]), ..Marks::default() }).write();
        let frames = vec![frame(FrameKind::Hello, greeting), frame(FrameKind::Proof, vec![2; 32])];
        let refused = speaks(&address, frames).await.unwrap();
        let why = String::from_utf8(refused.body.to_vec()).unwrap();
        assert_eq!(refused.kind, FrameKind::Refusal);
        assert!(why.starts_with("node n2 knows another peer secret than this node"), "{why}");
        // As one that goes on without.
        let greeting = hello(class, Marks { nonce: Some([1; 32]), ..Marks::default() }).write();
        let frames =
            vec![frame(FrameKind::Hello, greeting), frame(FrameKind::Request, vec![0; 64])];
        assert_eq!(speaks(&address, frames).await, None);
    }
    logged(&cluster, 0, "a peer was not let in");
    logged(&cluster, 0, "refused the peer: node n2 gives no proof that it knows the peer secret");
    assert_eq!(cluster.status(0)["term"], term);
    (0..3).for_each(|i| cluster.kill(i));
    (0..3).for_each(|i| cluster.begin(i));
    wait_whole(&cluster);
}

#[tokio::test]
async fn bytes_of_a_greeting_are_no_proof() {
    let cluster = start(&(with_token() + &peers(&[SECRET])));
    wait_whole(&cluster);
    let stream = TcpStream::connect(cluster.peer(0)).await.unwrap();
    let mut framed = Framed::new(stream, FrameCodec::handshake());
    let greeting = hello(Class::Raft, Marks { nonce: Some([1; 32]), ..Marks::default() }).write();
    framed.send(frame(FrameKind::Hello, greeting)).await.unwrap();
    let theirs = framed.next().await.unwrap().unwrap();
    assert_eq!(theirs.kind, FrameKind::Hello);
    let marks = Hello::read(&theirs.body).unwrap().marks;
    assert!(marks.nonce.is_some() && marks.cluster.is_some() && marks.founders.is_some());
    let mut bytes = BytesMut::from(&theirs.body[..]);
    bytes.truncate(32);
    framed.send(frame(FrameKind::Proof, bytes.freeze())).await.unwrap();
    assert_eq!(framed.next().await.unwrap().unwrap().kind, FrameKind::Refusal);
}

#[test]
fn a_secret_is_changed_node_by_node_without_a_gap() {
    let [old, both, new] =
        [&[SECRET][..], &[NEXT, SECRET], &[NEXT]].map(|secrets| with_token() + &peers(secrets));
    let accepts_both = with_token() + &peers(&[SECRET, NEXT]);
    let mut cluster = start(&old);
    let mut before = old;
    for sections in [accepts_both, both, new] {
        configure(&cluster, &before, &sections);
        for i in 0..3 {
            cluster.stop(i);
            cluster.begin(i);
            wait_whole(&cluster);
        }
        before = sections;
    }
    assert!(cluster.node(0).process.out().contains("peers   by secret ([peers] secret or"));
    assert!(
        !cluster.node(0).process.log().contains("peer secret"),
        "{}",
        cluster.node(0).process.log()
    );
}

#[test]
fn admin_tokens_are_changed_and_a_first_secret_is_set_node_by_node() {
    let mut cluster = start(&with_token());
    let tokens =
        with_token().replace(TOKEN, &format!("{TOKEN}\", \"another-token-of-an-administrator"));
    let listed = tokens.clone() + &peers(&["auth", SECRET]);
    let first = tokens.clone() + &peers(&[SECRET, "auth"]);
    let mut before = with_token();
    for (sections, said) in [
        (tokens.clone(), "by secret (peers.keys in the data directory)"),
        (listed, "by secret ([peers] secret or TIDEGATE_PEER_SECRET)"),
        (first, "by secret ([peers] secret or TIDEGATE_PEER_SECRET)"),
        (tokens + &peers(&[SECRET]), "by secret ([peers] secret or TIDEGATE_PEER_SECRET)"),
    ] {
        configure(&cluster, &before, &sections);
        for i in 0..3 {
            cluster.stop(i);
            cluster.begin(i);
            wait_whole(&cluster);
            assert!(cluster.node(i).process.out().contains(&format!("  peers   {said}\n")));
        }
        before = sections;
    }
}

#[test]
fn a_node_with_another_secret_stays_out_and_says_why() {
    let mut cluster = start(&(with_token() + &peers(&[SECRET])));
    cluster.stop(2);
    configure(&cluster, SECRET, NEXT);
    cluster.begin(2);
    let why = "knows another peer secret than this node";
    logged(&cluster, 2, &format!("the peer refused: node n3 {why}"));
    logged(&cluster, 0, &format!("refused the peer: node n3 {why}"));
    until("n3 says in its status why", || {
        let breakers = cluster.get(2, "/v1/cluster/breakers")["breakers"].clone();
        breakers[0]["why"].as_str().is_some_and(|said| said.contains(why)).then_some(())
    });
    until("n3 says why it is not ready", || {
        let ready = cluster.node(2).call("GET", "/readyz", "");
        (ready.status == 503 && ready.text().contains(why)).then_some(())
    });
    // The two others go on.
    assert_eq!(cluster.call(0, "PUT", "/v1/tenants/acme", json!({"tier": "free"})).status, 200);
    cluster.kill(2);
    configure(&cluster, NEXT, SECRET);
    cluster.begin(2);
    wait_whole(&cluster);
}

#[test]
fn a_node_that_is_admitted_is_given_the_secret_and_keeps_it() {
    let mut cluster = start(&(with_token() + &peers(&[SECRET])));
    cluster.join(3, 0);
    wait_whole(&cluster);
    let kept = cluster.home().path("data/n4/peers.keys");
    assert_eq!(std::fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&kept).unwrap().contains(SECRET));
    assert!(cluster.node(3).process.out().contains("by secret (peers.keys in the data directory)"));
    cluster.stop(3);
    let line = cluster.joins(3, 0, &[]);
    cluster.start_line(3, &line);
    wait_whole(&cluster);
    // Nothing of it is in what the node logs.
    let key = std::fs::read_to_string(&kept).unwrap().lines().nth(1).unwrap().to_string();
    assert!(key.len() == 64 && !cluster.node(3).process.log().contains(&key));
}

#[test]
fn a_node_that_was_given_up_ends_where_the_cluster_has_a_secret() {
    let mut cluster = start(&(with_token() + &peers(&[SECRET])));
    (0..3).for_each(|i| cluster.stop(i));
    let words = ["cluster", "recover", "--config", "cluster.toml", "--node", "n3", "--force"];
    let (code, _, notes) = offline(&cluster, &words);
    assert_eq!(code, 0, "{notes}");
    cluster.begin(2);
    wait_up(&cluster, 2);
    // It may end before it says where it listens.
    let mut old = cluster.home().run_words_as(&["serve"], "n1");
    let (code, log) = (old.end().code(), old.log());
    assert!(
        code == Some(1) && log.contains("the cluster was made anew without it, says n3"),
        "{log}"
    );
    // By the line that was printed it comes back, and is given the keys.
    std::fs::remove_dir_all(cluster.home().path("data/n1")).unwrap();
    cluster.start_line(0, &printed_line(&notes, 0));
    cluster.wait_seated(0, 2);
    wait_whole(&cluster);
}

#[test]
fn without_tokens_a_secret_is_given_to_nobody() {
    let mut cluster = Cluster::start_with(3, HUNDRED_A_DAY, &peers(&[SECRET]));
    let line = cluster.joins(3, 0, &[]);
    cluster.start_line(3, &line);
    logged(&cluster, 3, "the peer refused: node n4 gives no proof that it knows the peer secret");
    cluster.kill(3);
    // Its operator gives it the secret.
    cluster.home = std::mem::replace(&mut cluster.home, Home::empty())
        .set_variable("TIDEGATE_PEER_SECRET", SECRET);
    cluster.start_line(3, &line);
    cluster.wait_seated(3, 0);
    wait_whole(&cluster);
}

#[test]
fn two_clusters_of_one_name_on_the_same_addresses_do_not_mix() {
    let mut cluster = Cluster::configured(3, HUNDRED_A_DAY, "");
    cluster.begin(0);
    // A second list of the same name, in which n2 and n3 are those of the first.
    let first = std::fs::read_to_string(cluster.home().path("cluster.toml")).unwrap();
    let (_, peer) = cluster.ports(0);
    configure(&cluster, &format!("127.0.0.1:{peer}"), "127.0.0.1:9");
    cluster.begin(1);
    logged(&cluster, 1, "its configuration lists other [[nodes]] than that of this node");
    until("n1 says why it is not ready", || {
        let ready = cluster.node(0).call("GET", "/readyz", "").text();
        let says =
            ready.contains("the cluster has not formed") && ready.contains("other [[nodes]]");
        says.then_some(())
    });
    cluster.kill(1);
    cluster.home().write("cluster.toml", first.as_bytes());
    cluster.begin(1);
    cluster.begin(2);
    (0..3).for_each(|i| cluster.wait_ready(i));
    // A node of another cluster of the name, that has begun, at the address of n3.
    let mut other = Cluster::configured(3, HUNDRED_A_DAY, "");
    let order = [0, 1, 2];
    order.iter().for_each(|i| other.begin(*i));
    order.iter().for_each(|i| other.wait_ready(*i));
    cluster.stop(2);
    other.stop(2);
    other.takes_ports_of(2, &cluster);
    other.begin(2);
    logged(&cluster, 0, "it belongs to another cluster that is called test too");
}
