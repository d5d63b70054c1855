//! Tests of `config`.

use super::*;

fn read(text: &str, node: Option<&str>) -> Result<Config, Vec<String>> {
    let variable = |name: &str| (name == "TOKEN").then(|| "open-sesame-of-the-cave".to_string());
    Config::read(text.as_bytes(), Path::new("/etc/tidegate"), node, variable)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

const TWO: &str = r#"
        environment = "development"
        [cluster]
        name = "demo"
        [[nodes]]
        id = "n1"
        http = "127.0.0.1:7071"
        peer = "127.0.0.1:7171"
        data_dir = "data/n1"
        [[nodes]]
        id = "n2"
        http = "127.0.0.1:7072"
        peer = "127.0.0.1:7172"
        peer_advertise = "127.0.0.1:7272"
    "#;

#[test]
fn one_file_serves_every_node_and_paths_are_relative_to_it() {
    let n1 = read(TWO, Some("n1")).unwrap();
    assert_eq!((n1.http.port(), n1.peer.unwrap().port()), (7071, 7171));
    assert_eq!(n1.data_dir, Path::new("/etc/tidegate/data/n1"));
    let n2 = read(TWO, Some("n2")).unwrap();
    assert_eq!((n2.http.port(), n2.peer.unwrap().port()), (7072, 7172));
    assert_eq!(n2.data_dir, Path::new("/etc/tidegate/data/n2"));
    assert_eq!((&n1.nodes, n1.cluster.as_str()), (&n2.nodes, "demo"));
    assert_eq!(n1.nodes[1].peer.as_deref(), Some("127.0.0.1:7272"));
    assert_eq!(
        read(TWO, Some("n9")).unwrap_err(),
        ["nodes: there is no node n9; the file lists n1, n2"]
    );
    assert!(read(TWO, None).unwrap_err()[0].contains("--node"));
}

#[test]
fn tokens_come_from_the_file_or_the_environment_and_are_never_shown() {
    let text = format!(
        "{TWO}\n[auth]\nadmin_tokens = [\"env:TOKEN\"]\n[[auth.tokens]]\nname = \"ci\"\nrole = \
         \"read\"\nvalue = \"the-eyes-of-the-ci\"\n"
    );
    let config = read(&text, Some("n1")).unwrap();
    let expected = [
        Token::new("admin-1", Role::Admin, "open-sesame-of-the-cave"),
        Token::new("ci", Role::Read, "the-eyes-of-the-ci"),
    ];
    assert_eq!(config.tokens, expected);
    assert!(!format!("{config:?}").contains("sesame"));
    let unset =
        read(&format!("{TWO}\n[auth]\nadmin_tokens = [\"env:NOPE\"]\n"), Some("n1")).unwrap_err();
    assert_eq!(unset, ["auth.admin_tokens[0]: the environment variable NOPE is not set"]);
}

#[test]
fn metrics_need_a_token_off_loopback_unless_auth_says_otherwise() {
    let with = |http: &str, metrics: &str| {
        let node = format!("[[nodes]]\nid = \"n1\"\nhttp = \"{http}\"\n");
        read(&format!("{node}[auth]\nadmin_tokens = [\"env:TOKEN\"]\n{metrics}"), None)
    };
    for (http, metrics, expected) in [
        ("127.0.0.1:7070", "", Metrics::Open),
        ("0.0.0.0:7070", "", Metrics::Read),
        ("127.0.0.1:7070", "metrics = \"read\"", Metrics::Read),
        ("0.0.0.0:7070", "metrics = \"open\"", Metrics::Open),
    ] {
        assert_eq!(with(http, metrics).unwrap().metrics, expected, "{http} {metrics}");
    }
    let faults = with("127.0.0.1:7070", "metrics = \"none\"").unwrap_err();
    assert_eq!(faults, ["auth.metrics: \"none\" is not one of open, read"]);
}

#[test]
fn what_is_said_beside_the_file_replaces_its_hosts() {
    let text = format!("{TWO}\n[http]\nhosts = [\"Gateway.example.\", \"tidegate\"]\n");
    assert_eq!(read(&text, Some("n1")).unwrap().hosts, ["gateway.example", "tidegate"]);
    let own = Own { hosts: Some(vec!["other".into()]), ..Own::default() };
    let config = Config::read_as(text.as_bytes(), Path::new("/"), Some("n1"), &own, |_| None);
    assert_eq!(config.unwrap().hosts, ["other"]);
    let faults = read(&format!("{TWO}\n[http]\nhosts = [\"a:7070\"]\n"), Some("n1")).unwrap_err();
    let why =
        "http.hosts[0]: \"a:7070\" is not a host name without a port, such as gateway.example";
    assert_eq!(faults, [why]);
}

#[test]
fn an_open_address_without_auth_is_refused() {
    let open = "[[nodes]]\nid = \"n1\"\nhttp = \"0.0.0.0:7070\"\n";
    let faults = read(open, None).unwrap_err();
    assert!(
        faults[0].starts_with("nodes[0].http: 0.0.0.0:7070 is not a loopback address"),
        "{faults:?}"
    );
    assert!(read(&format!("{open}\n[auth]\nadmin_tokens = [\"env:TOKEN\"]\n"), None).is_ok());
}

#[test]
fn unknown_members_are_faults_with_a_suggestion() {
    let faults = read(&format!("{TWO}\n[limits]\nkeys_per_tennant = 5\n"), Some("n1")).unwrap_err();
    assert_eq!(faults, ["limits.keys_per_tennant: unknown member; did you mean keys_per_tenant?"]);
}

#[test]
fn a_round_trip_of_50_to_300_ms_may_be_set() {
    let with = |ms: &str| {
        let named = format!("name = \"demo\"\nround_trip_ms = {ms}");
        read(&TWO.replace("name = \"demo\"", &named), Some("n1")).map(|n1| n1.round_trip_ms)
    };
    assert_eq!(read(TWO, Some("n1")).unwrap().round_trip_ms, None);
    assert_eq!((with("50"), with("300")), (Ok(Some(50)), Ok(Some(300))));
    for refused in ["49", "301", "\"100\""] {
        let faults = with(refused).unwrap_err();
        assert!(faults[0].starts_with("cluster.round_trip_ms: "), "{faults:?}");
    }
}

#[test]
fn a_cluster_may_go_without_a_name_and_a_node_without_a_file() {
    for unnamed in
        [TWO.replace("[cluster]\n        name = \"demo\"", ""), TWO.replace("name = \"demo\"", "")]
    {
        assert_eq!(read(&unnamed, Some("n1")).unwrap().cluster.as_str(), "tidegate");
    }
    let standalone = Config::standalone();
    let [seed] = standalone.nodes.as_slice() else { panic!("{:?}", standalone.nodes) };
    assert_eq!(
        (&seed.id, seed.http.as_str(), &seed.peer),
        (&standalone.node, "127.0.0.1:7070", &None)
    );
    assert_eq!(standalone.peer, None);
}

#[test]
fn what_is_said_beside_the_list_is_where_a_node_listens_and_where_it_is_reached() {
    let own = Own {
        http: Some("127.0.0.1:8072".parse().unwrap()),
        peer: Some("127.0.0.1:8172".parse().unwrap()),
        ..Own::default()
    };
    let read = |own: &Own| {
        let read = Config::read_as(TWO.as_bytes(), Path::new("/etc"), Some("n2"), own, |_| None);
        let config = read.map_err(|faults| faults[0].to_string())?;
        let SeedNode { http, peer, .. } = config.nodes[1].clone();
        Ok::<_, String>((config.http.port(), config.peer.unwrap().port(), http, peer.unwrap()))
    };
    // What the file advertises is still where the node is reached, wherever it listens.
    let said = (8072, 8172, "127.0.0.1:8072".to_string(), "127.0.0.1:7272".to_string());
    assert_eq!(read(&own), Ok(said));
    let own = Own {
        http_advertise: Some("limits.example:80".into()),
        peer_advertise: Some("n2.example:7171".into()),
        ..own
    };
    let said = (8072, 8172, "limits.example:80".to_string(), "n2.example:7171".to_string());
    assert_eq!(read(&own), Ok(said));
    let far = Own { peer_advertise: Some("192.0.2.1:7171".into()), ..Own::default() };
    let why = "peer_advertise: 192.0.2.1:7171 is not a loopback address: peers talk in plain text";
    assert!(read(&far).unwrap_err().starts_with(why), "{:?}", read(&far));
    let alone = Config::standalone_as(None, &far, |_| None).unwrap_err();
    assert_eq!(alone[0].to_string(), "peer_advertise: is of no use without peer");
}

#[test]
fn which_node_this_is_comes_second_to_what_is_wrong_with_the_list() {
    let faults = read(&TWO.replace("127.0.0.1:7072", "localhost"), Some("n2")).unwrap_err();
    assert!(faults.len() == 1 && faults[0].starts_with("nodes[1].http: "), "{faults:?}");
}

#[test]
fn the_sample_file_is_three_nodes_on_this_machine() {
    let sample = include_str!("../../cluster.toml");
    for (id, http, peer) in [("n1", 7071, 7171), ("n2", 7072, 7172), ("n3", 7073, 7173)] {
        let config = read(sample, Some(id)).unwrap();
        assert_eq!((config.http.port(), config.peer.unwrap().port()), (http, peer), "{id}");
        assert_eq!(config.data_dir, Path::new("/etc/tidegate/data").join(id));
        assert_eq!(config.nodes.len(), 3);
    }
}
