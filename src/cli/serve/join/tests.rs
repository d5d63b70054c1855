//! Tests of `join`.

use tidegate::placement::NodeId;

use super::*;

fn admitted(text: &str) -> Result<Claim, String> {
    let read: Admitted = serde_json::from_str(text).map_err(|error| error.to_string())?;
    read.claim().map_err(|token| token.to_string())
}

fn joining(is_named: bool) -> Joining {
    let server = ServerArgs { url: String::new(), token: None, ca_cert: None };
    Joining { url: None, rejoin: false, must_join: false, server, has_file: false, is_named }
}

const ANSWER: &str = r#"{"id":"n4","number":57,"http":"127.0.0.1:7074","peer":"127.0.0.1:7174","cluster":"demo",
        "environment":"production","members":[{"id":"n1","number":1,"peer":"127.0.0.1:7171"}],
        "tokens":[{"name":"ops","role":"admin","sha256":"SUM"}]}"#;

#[test]
fn a_node_that_is_admitted_knows_who_it_is_whom_it_may_speak_with_and_who_may_ask() {
    let sum = Token::new("ops", Role::Admin, "sesame").sha256;
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    let claim = admitted(&ANSWER.replace("SUM", &hex)).unwrap();
    assert_eq!(claim.to_string(), "n4 of the cluster demo (node 57)");
    let admission = claim.admission.clone().unwrap();
    assert_eq!(
        (admission.environment.as_str(), admission.members[0].number),
        ("production", NodeId(1))
    );
    let config = Config { peer: Some(([127, 0, 0, 1], 7174).into()), ..Config::standalone() };
    let (config, members) = joining(false).as_claimed(config, Some(claim)).unwrap();
    assert_eq!((config.node.as_str(), config.cluster.as_str()), ("n4", "demo"));
    assert_eq!(config.nodes[0].id.as_str(), "n4");
    assert_eq!(config.tokens, [Token::new("ops", Role::Admin, "sesame")]);
    assert_eq!(members.iter().map(Name::as_str).collect::<Vec<_>>(), ["n1"]);
}

#[test]
fn a_token_that_is_not_understood_is_not_left_out() {
    let why = "what the cluster says of the token ops can't be understood";
    for sum in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
        assert_eq!(admitted(&ANSWER.replace("SUM", sum)).unwrap_err(), why, "{sum}");
    }
    let claim =
        admitted(&ANSWER.replace("SUM", &"0".repeat(64)).replace("admin", "owner")).unwrap();
    let config = Config { peer: Some(([127, 0, 0, 1], 7174).into()), ..Config::standalone() };
    assert_eq!(joining(true).as_claimed(config, Some(claim)).err().unwrap().to_string(), why);
}
