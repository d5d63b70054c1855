//! `[[nodes]]`: who the nodes are, where each listens, and where the others reach it.
//!
//! A node listens on `http` and `peer`, and is reached there unless `http_advertise` and
//! `peer_advertise` say otherwise: behind a load balancer, or in a container. A node alone needs no
//! `peer`, and the system may choose its ports (port 0); of several, each has to be found by the
//! others.
//!
//! ```text
//! http = "localhost:7071"            listens on 127.0.0.1; a listening address is an IP address or `localhost`
//! peer = "192.0.2.1:7171"            listens there, and the others dial it
//! peer = "n1.example:7171"           the others dial the name; it listens on all addresses, without [tls] on 127.0.0.1
//! peer_advertise = "n1.example:7171" the same beside a `peer` that says where it listens
//! ```
//!
//! Names are stored as names and resolved at each dial. Without `[tls]` peers talk in plain text,
//! so their addresses are loopback ones, and a name has to lead to one when it is dialled. The list
//! seeds the first start; afterwards the replicated membership is the truth.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::check::Name;
use crate::input::{Fields, Reader, Tree};
use crate::placement::{WEIGHT_MAX, Weight};

/// Nodes in one file.
pub const NODES_MAX: usize = 256;
/// Bytes of an address at which a node is reached.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// What an address looks like at which a node listens.
pub const LISTEN: &str = "an IP address or localhost, and a port, such as 127.0.0.1:7071";
/// The same of `peer`, which may be a name.
const PEER: &str =
    "a host and a port, such as 127.0.0.1:7171 or n1.example:7171, of at most 256 bytes";
/// What an address looks like at which a node is reached.
pub const ADVERTISED: &str =
    "a host and a port, such as gateway.example:7071, of at most 256 bytes";

/// A node of the cluster's first start, as others reach it. Addresses are `host:port`, of at most
/// [`ADDRESS_BYTES_MAX`] bytes; no two nodes have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedNode {
    /// Its id.
    pub id: Name,
    /// Where its door is; port 0 where a node alone lets the system choose.
    pub http: String,
    /// Where other nodes reach it; none only where there are no others.
    pub peer: Option<String>,
    /// How much of the load it takes, beside the others: one of weight 2 owns twice what one of
    /// weight 1 owns.
    pub weight: Weight,
}

/// One item of the list.
#[derive(Clone)]
pub(super) struct Entry {
    pub seed: SeedNode,
    /// Where it listens for HTTP.
    pub http: SocketAddr,
    /// Whether the list says, apart from that, where clients reach it.
    pub has_http_advertised: bool,
    /// Where it listens for peers.
    pub peer: Option<SocketAddr>,
    /// Whether the list says, apart from that, where peers reach it: by `peer_advertise`, or by a
    /// name in `peer`.
    pub has_peer_advertised: bool,
    pub data_dir: PathBuf,
    /// Its place in the list.
    pub at: usize,
}

/// What holds for all nodes of a list.
#[derive(Clone, Copy)]
struct Rules {
    /// There is but one.
    is_alone: bool,
    /// Peers show certificates.
    has_tls: bool,
}

/// What the nodes before have taken.
#[derive(Default)]
struct Taken {
    ids: Vec<Name>,
    /// Whose each address is, in words.
    addresses: BTreeMap<String, String>,
}

/// All nodes, in their order; none where one can't be read.
pub(super) fn read(
    r: &mut Reader,
    tree: &Tree,
    beside: &Path,
    has_tls: bool,
) -> Option<Vec<Entry>> {
    let is_alone = matches!(tree, Tree::List(items) if items.len() == 1);
    let rules = Rules { is_alone, has_tls };
    let mut taken = Taken::default();
    let mut listed = 0;
    let nodes = r.list(tree, NODES_MAX, |r, tree| {
        let at = listed;
        listed += 1;
        let entry = entry(r, tree, beside, at, rules)?;
        taken.take(r, &entry);
        Some(entry)
    })?;
    if listed == 0 {
        r.fault("lists no node");
    } else if nodes.iter().all(|entry| entry.seed.weight == Weight::NONE) {
        r.fault("no node has a weight: nobody would own anything");
    }
    (listed > 0 && nodes.len() == listed).then_some(nodes)
}

fn entry(r: &mut Reader, tree: &Tree, beside: &Path, at: usize, rules: Rules) -> Option<Entry> {
    let Rules { is_alone, .. } = rules;
    let mut fields = r.fields(tree)?;
    let id = fields.required(r, "id", |r, t| r.parsed(t, Name::EXPECTED, Name::new));
    let http = fields.required(r, "http", |r, t| listen(r, t, is_alone));
    if !is_alone && !fields.has("peer") {
        r.fault_at("peer", "is required where there are several nodes");
    }
    let is_dialled = fields.has("peer_advertise");
    let peer = fields.optional(r, "peer", |r, t| peer(r, t, rules, is_dialled));
    let http_advertise =
        fields.optional(r, "http_advertise", |r, t| r.parsed(t, ADVERTISED, advertised));
    let peer_advertise = peer_advertise(r, &mut fields, rules);
    let data_dir = fields.optional(r, "data_dir", |r, t| Some(beside.join(r.text(t)?)));
    let weight = fields.optional(r, "weight", weight).unwrap_or(Weight::ONE);
    fields.finish(r);
    let (id, http) = (id?, http?);
    if peer.is_none() && !is_alone {
        return None;
    }
    let (peer, named) = peer.map_or((None, None), |peer| (Some(peer.listens), peer.name));
    let peer_advertised = peer_advertise.or(named);
    let entry = Entry {
        http,
        has_http_advertised: http_advertise.is_some(),
        peer,
        has_peer_advertised: peer_advertised.is_some(),
        data_dir: data_dir.unwrap_or_else(|| beside.join("data").join(id.as_str())),
        seed: SeedNode {
            http: http_advertise.unwrap_or_else(|| http.to_string()),
            peer: peer.map(|peer| peer_advertised.unwrap_or_else(|| peer.to_string())),
            id,
            weight,
        },
        at,
    };
    Some(entry)
}

/// How much of the load a node takes.
pub fn weight(r: &mut Reader, tree: &Tree) -> Option<Weight> {
    let number = r.whole(tree, 0..=u64::from(WEIGHT_MAX))?;
    u8::try_from(number).ok().and_then(Weight::new)
}

/// Where a node listens. Port 0 is any port, which others couldn't know.
fn listen(r: &mut Reader, tree: &Tree, is_alone: bool) -> Option<SocketAddr> {
    let address = r.parsed(tree, LISTEN, listening)?;
    is_known(r, address, is_alone)
}

fn is_known(r: &mut Reader, address: SocketAddr, is_alone: bool) -> Option<SocketAddr> {
    if address.port() == 0 && !is_alone {
        r.fault("port 0 is for a node alone: the others would not know where it listens");
        return None;
    }
    Some(address)
}

/// Returns the address of a text such as `192.0.2.1:7071`, `[::1]:7071` or `localhost:7071`, which
/// is 127.0.0.1; none where a node can't listen there. A name is none: at the next start it might
/// lead elsewhere.
pub fn listening(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let port = text.strip_prefix("localhost:")?;
    let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok())??;
    Some((Ipv4Addr::LOCALHOST, port).into())
}

/// What `peer` says.
struct Peer {
    listens: SocketAddr,
    /// The name by which the others dial it, if it is one.
    name: Option<String>,
}

/// Where a node listens for peers, and the name by which they dial it. Unless it `is_dialled`
/// elsewhere, the others have to be able to dial it.
fn peer(r: &mut Reader, tree: &Tree, rules: Rules, is_dialled: bool) -> Option<Peer> {
    let is_one = |text: &str| listening(text).is_some() || advertised(text).is_some();
    let text = r.parsed(tree, PEER, |text| is_one(text).then(|| text.to_string()))?;
    let Some(address) = listening(&text) else {
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse().ok())?;
        let listens = match rules.has_tls {
            true => (Ipv6Addr::UNSPECIFIED, port).into(),
            false => (Ipv4Addr::LOCALHOST, port).into(),
        };
        return Some(Peer { listens, name: Some(text) });
    };
    let listens = is_known(r, address, rules.is_alone)?;
    match rules.has_tls {
        false if !listens.ip().to_canonical().is_loopback() => r.fault(far(listens)),
        true if listens.ip().is_unspecified() && !is_dialled => r.fault(everywhere(listens)),
        _ => return Some(Peer { listens, name: None }),
    }
    None
}

/// Faults what can't be of a node of which something is said beside the list.
pub(super) fn judge(r: &mut Reader, entry: &Entry, has_tls: bool) {
    if let Some(peer) = entry.peer {
        let dialled = entry.seed.peer.as_deref().and_then(|dialled| dialled.parse().ok());
        let dialled = dialled.filter(|dialled| *dialled != peer);
        match has_tls {
            false if !peer.ip().to_canonical().is_loopback() => r.fault_at("peer", far(peer)),
            true if peer.ip().is_unspecified() && !entry.has_peer_advertised => {
                r.fault_at("peer", everywhere(peer));
            }
            _ => {
                r.member("peer_advertise", |r| {
                    dialled.is_none_or(|at| can_be_dialled(r, at, has_tls))
                });
            }
        }
    }
    if entry.peer == Some(entry.http) && entry.http.port() != 0 {
        r.fault_at("peer", format!("{} is the http address too", entry.http));
    }
}

/// Whether the others can dial an address, and may without `[tls]`; faults it where not.
fn can_be_dialled(r: &mut Reader, address: SocketAddr, has_tls: bool) -> bool {
    let is_far = !has_tls && !address.ip().to_canonical().is_loopback();
    match (is_far, address.ip().is_unspecified()) {
        (false, false) => return true,
        (true, _) => r.fault(far(address)),
        (false, true) => r.fault(everywhere(address)),
    }
    false
}

fn everywhere(address: SocketAddr) -> String {
    format!(
        "{address} is all addresses of the machine, which no other node can dial: peer_advertise \
         (--peer-advertise) says where the others reach it"
    )
}

fn far(address: SocketAddr) -> String {
    format!(
        "{address} is not a loopback address: peers talk in plain text, and that is for loopback \
         addresses (127.0.0.0/8, ::1) alone; with [tls] they may be anywhere (`tidegate cluster \
         certs` makes certificates)"
    )
}

/// Where the others dial: a name, which is judged when it is dialled, or an address.
fn peer_advertise(r: &mut Reader, fields: &mut Fields<'_>, rules: Rules) -> Option<String> {
    if fields.has("peer_advertise") && !fields.has("peer") {
        r.fault_at("peer_advertise", "is of no use without peer");
    }
    fields.optional(r, "peer_advertise", |r, t| {
        let dialled = r.parsed(t, ADVERTISED, advertised)?;
        match dialled.parse() {
            Ok(address) => can_be_dialled(r, address, rules.has_tls).then_some(dialled),
            Err(_) => Some(dialled),
        }
    })
}

/// A host's name or address, and a port, in one way of writing it.
pub fn advertised(text: &str) -> Option<String> {
    if text.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() > 0).then(|| address.to_string());
    }
    let (host, port) = text.rsplit_once(':')?;
    let is_name = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let is_port =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    (is_name && is_port).then(|| text.to_string())
}

impl Taken {
    /// Notes what a node takes, and faults what is no longer free.
    fn take(&mut self, r: &mut Reader, entry: &Entry) {
        let SeedNode { id, http, peer, .. } = &entry.seed;
        if self.ids.contains(id) {
            r.fault_at("id", format!("there is a node {id} already"));
        }
        self.ids.push(id.clone());
        for (member, address) in [("http", Some(http)), ("peer", peer.as_ref())] {
            let Some(address) = address.filter(|address| !address.ends_with(":0")) else {
                continue;
            };
            if let Some(whose) = self.addresses.get(address) {
                r.fault_at(member, format!("{address} is the {whose} already"));
            }
            self.addresses.insert(address.clone(), format!("{member} address of {id}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(toml: &str) -> Result<Vec<Entry>, Vec<String>> {
        list_with(toml, false)
    }

    fn list_with(toml: &str, has_tls: bool) -> Result<Vec<Entry>, Vec<String>> {
        let tree = Tree::from_toml(toml.as_bytes()).unwrap();
        let mut r = Reader::default();
        let mut fields = r.fields(&tree).unwrap();
        let nodes = fields
            .required(&mut r, "nodes", |r, t| read(r, t, Path::new("/etc/tidegate"), has_tls));
        r.finish(nodes).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    /// The only fault of a list.
    fn fault(toml: &str) -> String {
        let faults = list(toml).err().unwrap_or_default();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.into_iter().next().unwrap()
    }

    /// Two nodes; `first` and `second` are what each says beside its id.
    fn two(first: &str, second: &str) -> String {
        format!("[[nodes]]\nid = \"n1\"\n{first}\n[[nodes]]\nid = \"n2\"\n{second}\n")
    }

    const FIRST: &str = "http = \"127.0.0.1:7071\"\npeer = \"127.0.0.1:7171\"";

    #[test]
    fn a_weight_is_a_number_up_to_sixteen_and_somebody_has_one() {
        let second = "http = \"127.0.0.1:7072\"\npeer = \"127.0.0.1:7172\"";
        let weights = |first: &str, other: &str| {
            two(&format!("{FIRST}\n{first}"), &format!("{second}\n{other}"))
        };
        let nodes = list(&weights("", "weight = 16")).unwrap();
        let seen: Vec<_> = nodes.iter().map(|node| node.seed.weight.get()).collect();
        assert_eq!(seen, [1, 16]);
        assert_eq!(list(&weights("weight = 0", "")).unwrap()[0].seed.weight, Weight::NONE);
        let nobody = "nodes: no node has a weight: nobody would own anything";
        assert_eq!(fault(&weights("weight = 0", "weight = 0")), nobody);
        assert!(
            fault(&weights("weight = 17", ""))
                .starts_with("nodes[0].weight: 17 is not a whole number from 0 to 16")
        );
    }

    #[test]
    fn nodes_are_reached_where_they_listen_unless_they_say_otherwise() {
        let nodes = list(&two(
            FIRST,
            "http = \"127.0.0.1:7072\"\npeer = \"127.0.0.1:7172\"\n\
             http_advertise = \"n2.example:80\"\npeer_advertise = \"[::1]:7272\"",
        ))
        .unwrap();
        let seeds: Vec<_> = nodes.iter().map(|node| &node.seed).collect();
        assert_eq!((seeds[0].id.as_str(), seeds[0].http.as_str()), ("n1", "127.0.0.1:7071"));
        assert_eq!(seeds[0].peer.as_deref(), Some("127.0.0.1:7171"));
        assert_eq!((seeds[1].id.as_str(), seeds[1].http.as_str()), ("n2", "n2.example:80"));
        assert_eq!(seeds[1].peer.as_deref(), Some("[::1]:7272"));
        assert_eq!(nodes[1].peer, Some("127.0.0.1:7172".parse().unwrap()));
        assert_eq!(nodes[1].data_dir, Path::new("/etc/tidegate/data/n2"));
    }

    #[test]
    fn a_node_alone_needs_no_peer_address_and_may_take_any_port() {
        let alone = list("[[nodes]]\nid = \"n1\"\nhttp = \"127.0.0.1:0\"").unwrap();
        assert_eq!((alone[0].peer, alone[0].seed.peer.as_deref()), (None, None));
        let alone =
            list("[[nodes]]\nid = \"n1\"\nhttp = \"127.0.0.1:0\"\npeer = \"127.0.0.1:0\"").unwrap();
        assert_eq!(alone[0].seed.peer.as_deref(), Some("127.0.0.1:0"));
    }

    #[test]
    fn each_of_several_nodes_has_to_be_found_by_the_others() {
        let second = |lines: &str| fault(&two(FIRST, lines));
        for (lines, expected) in [
            (
                "http = \"127.0.0.1:7072\"",
                "nodes[1].peer: is required where there are several nodes",
            ),
            (
                "http = \"127.0.0.1:7072\"\npeer = \"127.0.0.1:0\"",
                "nodes[1].peer: port 0 is for a node alone: the others would not know where it \
                 listens",
            ),
            (
                "http = \"127.0.0.1:0\"\npeer = \"127.0.0.1:7172\"",
                "nodes[1].http: port 0 is for a node alone: the others would not know where it \
                 listens",
            ),
            (
                "http = \"127.0.0.1:7071\"\npeer = \"127.0.0.1:7172\"",
                "nodes[1].http: 127.0.0.1:7071 is the http address of n1 already",
            ),
            (
                "http = \"127.0.0.1:7072\"\npeer = \"127.0.0.1:7171\"",
                "nodes[1].peer: 127.0.0.1:7171 is the peer address of n1 already",
            ),
            (
                "http = \"127.0.0.1:7171\"\npeer = \"127.0.0.1:7172\"",
                "nodes[1].http: 127.0.0.1:7171 is the peer address of n1 already",
            ),
            (
                "http = \"127.0.0.1:7072\"\npeer = \"127.0.0.1:7072\"",
                "nodes[1].peer: 127.0.0.1:7072 is the http address of n2 already",
            ),
        ] {
            assert_eq!(second(lines), expected);
        }
    }

    #[test]
    fn peers_talk_in_plain_text_on_loopback_addresses_alone() {
        for far in ["192.0.2.1:7171", "0.0.0.0:7171", "[2001:db8::1]:7171"] {
            for member in ["peer", "peer_advertise"] {
                let peer = if member == "peer" { "" } else { "peer = \"127.0.0.1:7171\"\n" };
                let toml = format!(
                    "[[nodes]]\nid = \"n1\"\nhttp = \"127.0.0.1:7071\"\n{peer}{member} = \"{far}\""
                );
                let why = format!(
                    "nodes[0].{member}: {far} is not a loopback address: peers talk in plain"
                );
                assert!(fault(&toml).starts_with(&why), "{}", fault(&toml));
            }
        }
        let without =
            "[[nodes]]\nid = \"n1\"\nhttp = \"127.0.0.1:0\"\npeer_advertise = \"127.0.0.1:7171\"";
        assert_eq!(fault(without), "nodes[0].peer_advertise: is of no use without peer");
    }

    #[test]
    fn with_tls_peers_are_anywhere_that_can_be_dialled() {
        let with = |peer: &str| {
            list_with(&two(FIRST, &format!("http = \"127.0.0.1:7072\"\n{peer}")), true)
        };
        for (peer, dialled) in [
            ("peer = \"192.0.2.2:7171\"", "192.0.2.2:7171"),
            ("peer = \"0.0.0.0:7171\"\npeer_advertise = \"n2.example:7272\"", "n2.example:7272"),
            ("peer = \"[::]:7171\"\npeer_advertise = \"[2001:db8::2]:7171\"", "[2001:db8::2]:7171"),
        ] {
            assert_eq!(with(peer).unwrap()[1].seed.peer.as_deref(), Some(dialled));
        }
        for all in ["0.0.0.0:7171", "[::]:7171"] {
            let faults = with(&format!("peer = \"{all}\"")).err().unwrap();
            let why = format!(
                "nodes[1].peer: {all} is all addresses of the machine, which no other node can dial"
            );
            assert!(faults.len() == 1 && faults[0].starts_with(&why), "{faults:?}");
            let advertised = format!("peer = \"192.0.2.2:7171\"\npeer_advertise = \"{all}\"");
            let faults = with(&advertised).err().unwrap();
            let why = format!("nodes[1].peer_advertise: {all} is all addresses of the machine");
            assert!(faults.len() == 1 && faults[0].starts_with(&why), "{faults:?}");
        }
        let faults = with("peer = \"192.0.2.2:7171\"\npeer_advertise = \"n2\"").err().unwrap();
        assert!(
            faults[0].starts_with("nodes[1].peer_advertise: \"n2\" is not a host and a port"),
            "{faults:?}"
        );
    }

    #[test]
    fn a_name_is_dialled_as_a_name_and_listened_for_everywhere_or_on_loopback() {
        for (has_tls, listens) in [(true, "[::]:7171"), (false, "127.0.0.1:7171")] {
            let list = |lines: &str| {
                let second = format!("http = \"localhost:7072\"\n{lines}");
                list_with(
                    &two("http = \"localhost:7071\"\npeer = \"localhost:7170\"", &second),
                    has_tls,
                )
            };
            let nodes = list("peer = \"n2.example:7171\"").unwrap();
            assert_eq!(nodes[1].peer, Some(listens.parse().unwrap()));
            assert_eq!(nodes[1].seed.peer.as_deref(), Some("n2.example:7171"));
            assert_eq!(nodes[1].http, "127.0.0.1:7072".parse().unwrap());
            assert_eq!(nodes[0].seed.peer.as_deref(), Some("127.0.0.1:7170"));
            let both = "peer = \"127.0.0.1:7171\"\npeer_advertise = \"n2.example:7272\"";
            let nodes = list(both).unwrap();
            assert_eq!(nodes[1].peer, Some("127.0.0.1:7171".parse().unwrap()));
            assert_eq!(nodes[1].seed.peer.as_deref(), Some("n2.example:7272"));
        }
        let why = fault(&two(FIRST, "http = \"n2.example:7072\"\npeer = \"127.0.0.1:7172\""));
        assert!(
            why.starts_with("nodes[1].http: \"n2.example:7072\" is not an IP address or localhost"),
            "{why}"
        );
    }

    #[test]
    fn a_node_listens_on_addresses_and_on_localhost() {
        for (text, address) in [
            ("localhost:7071", "127.0.0.1:7071"),
            ("[::]:0", "[::]:0"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(listening(text), Some(address.parse().unwrap()), "{text}");
        }
        for bad in
            ["localhost", "localhost:", "localhost:+1", "localhost:65536", "n1:7071", "Localhost:1"]
        {
            assert_eq!(listening(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_advertised_is_a_host_and_a_port() {
        for good in ["n1:80", "n-1.example.com:65535", "192.0.2.1:1", "[2001:db8::1]:7070", "a_b:7"]
        {
            assert_eq!(advertised(good).as_deref(), Some(good));
        }
        assert_eq!(advertised("[0:0::1]:7070").as_deref(), Some("[::1]:7070"));
        let long = format!("{}:7070", "a".repeat(ADDRESS_BYTES_MAX - 4));
        for bad in [
            "",
            "n1",
            ":80",
            "n1:",
            "n1:0",
            "n1:65536",
            "n1:+80",
            "::1:80",
            "[::1]",
            "1.2.3:80",
            "http://n1:80",
            "n1:80/",
            "n 1:80",
            "n1\u{7}:80",
            "größe:80",
            &long,
        ] {
            assert_eq!(advertised(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ids_are_told_apart_and_an_earlier_fault_moves_no_path() {
        let second = "http = \"127.0.0.1:7072\"\npeer = \"127.0.0.1:7172\"";
        assert_eq!(
            fault(&two(FIRST, second).replace("n2", "n1")),
            "nodes[1].id: there is a node n1 already"
        );
        let faults =
            list(&format!("[[nodes]]\nid = \"a b\"\n{FIRST}\n{}", two(FIRST, "http = \"x\"")))
                .err()
                .unwrap();
        let paths: Vec<_> = faults.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
        assert_eq!(paths, ["nodes[0].id", "nodes[2].http", "nodes[2].peer"]);
    }

    #[test]
    fn there_are_1_to_256_nodes() {
        assert_eq!(fault("nodes = []"), "nodes: lists no node");
        let many = |count: u16| -> String {
            let node = |i| {
                format!(
                    "[[nodes]]\nid = \"n{i}\"\nhttp = \"127.0.0.1:{}\"\npeer = \"127.0.0.1:{}\"\n",
                    7_000 + i,
                    8_000 + i
                )
            };
            (0..count).map(node).collect()
        };
        assert_eq!(list(&many(256)).unwrap().len(), 256);
        assert_eq!(fault(&many(257)), "nodes: has 257 items; at most 256 are allowed");
    }
}
