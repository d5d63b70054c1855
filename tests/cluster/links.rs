//! Slow links and cut ones: which node leads, what is written, and what every node says of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, HUNDRED_A_DAY};
use crate::net::Net;
use crate::rig::{instant, until};

/// The most that a write may take over links of 40 ms each way.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// The longest time until writes go on after the links of a leader became too slow.
const REPLACED_WITHIN: Duration = Duration::from_secs(5);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// So many nodes, all ready, whose links take so long each way from the beginning.
fn cluster(count: usize, delay: Duration, settings: &str) -> Cluster {
    let net = Net::new(count);
    net.delay_everywhere(delay);
    let cluster = Cluster::begin_over(net, count, HUNDRED_A_DAY, settings);
    (0..count).for_each(|i| cluster.wait_ready(i));
    cluster
}

/// The node that leads, as `via` sees it.
fn leader(cluster: &Cluster, via: usize) -> Option<usize> {
    let status = cluster.status(via);
    let number: usize = status["leader"].as_str()?.strip_prefix('n')?.parse().unwrap();
    Some(number - 1)
}

/// Writes through a node; returns the status, and how long that took.
fn write(cluster: &Cluster, through: usize, tenant: &str) -> (u16, Duration) {
    let begun = instant();
    let path = format!("/v1/tenants/{tenant}");
    let answer = cluster.call(through, "PUT", &path, json!({"tier": "free"}));
    (answer.status, instant() - begun)
}

/// Writes through all nodes in turn for `lasting`; every write has to be done. Returns how long
/// half of them took at most.
fn write_for(cluster: &Cluster, lasting: Duration) -> Duration {
    let (begun, mut took) = (instant(), Vec::new());
    let count = cluster.running().len();
    for i in 0.. {
        if instant() - begun > lasting {
            break;
        }
        let (status, lasted) = write(cluster, i % count, &format!("t{i}"));
        assert_eq!(status, 200, "write {i} after {lasted:?}: {}", cluster.status(i % count));
        took.push(lasted);
        std::thread::sleep(ms(100));
    }
    took.sort_unstable();
    took[took.len() / 2]
}

fn warnings(cluster: &Cluster, i: usize) -> Vec<String> {
    let warnings = cluster.status(i)["warnings"].clone();
    warnings.as_array().unwrap().iter().map(|text| text.as_str().unwrap().into()).collect()
}

/// What the nodes have logged.
fn logs(cluster: &Cluster) -> String {
    cluster.running().iter().map(|i| cluster.node(*i).process.log()).collect()
}

/// Writes through all nodes for some seconds. Each write must be done; in one of three rounds no
/// election happens and half of the writes take at most `bound`. Other tests may keep the machine
/// busy in a round; what the links can't bear fails in every round.
fn writes_without_an_election(
    cluster: &Cluster,
    lasting: Duration,
    bound: Duration,
    begin: impl Fn(&Cluster),
) {
    let mut rounds = Vec::new();
    for _ in 0..3 {
        begin(cluster);
        let before = cluster.status(0)["term"].clone();
        let took = write_for(cluster, lasting);
        let after = cluster.status(0)["term"].clone();
        if before == after && took <= bound {
            return;
        }
        rounds.push(format!("terms {before} to {after}, half of the writes within {took:?}"));
    }
    panic!(
        "an election, or writes above {bound:?}, in every round: {rounds:#?}: {}",
        logs(cluster)
    );
}

#[test]
fn a_leader_with_40_ms_each_way_stays_and_writes_go_on() {
    let cluster = cluster(3, ms(0), "");
    writes_without_an_election(&cluster, ms(5_000), WRITE_MAX, |cluster| {
        cluster.net().delay_everywhere(ms(0));
        let leader = until("a node leads", || leader(cluster, 0));
        cluster.net().delay_all_of(leader, ms(40));
    });
}

#[test]
fn a_leader_whose_links_alone_are_too_slow_is_replaced() {
    for delay in [60, 80, 150] {
        // The better of two tries counts: other tests may keep the machine busy during one.
        let first = replaced_after(ms(delay));
        if first > REPLACED_WITHIN {
            let second = replaced_after(ms(delay));
            assert!(second <= REPLACED_WITHIN, "{delay} ms each way: {first:?}, then {second:?}");
        }
    }
}

/// Slows all links of a leader down; returns how long it took until a write was done. The slow node
/// must follow another leader then.
fn replaced_after(delay: Duration) -> Duration {
    let cluster = cluster(3, ms(0), "");
    let old = leader(&cluster, 0).unwrap();
    let other = (old + 1) % 3;
    cluster.net().delay_all_of(old, delay);
    let begun = instant();
    until("another node leads", || leader(&cluster, other).filter(|new| *new != old));
    until("writes go on", || (write(&cluster, other, "after").0 == 200).then_some(()));
    let written = instant() - begun;
    // The slow node goes on: it writes through the new leader, and doesn't lead again.
    until("the slow node writes", || (write(&cluster, old, "slow").0 == 200).then_some(()));
    assert_ne!(leader(&cluster, other), Some(old));
    written
}

#[test]
fn forty_ms_on_all_links_are_only_slower() {
    let cluster = cluster(3, ms(40), "");
    writes_without_an_election(&cluster, ms(5_000), WRITE_MAX, |_| {});
    for i in 0..3 {
        assert_eq!(ready(&cluster, i), (200, "ready\n".into()), "n{}", i + 1);
        assert_eq!(warnings(&cluster, i), [] as [String; 0], "n{}", i + 1);
        // Within the deadline that checks have where they name none, whichever node owns the
        // tenant.
        for owner in 0..3 {
            let tenant = cluster.tenant_of(owner, i, &format!("far{i}-"));
            assert_eq!(cluster.check(i, json!({"tenant": tenant}))["allowed"], true);
        }
    }
}

#[test]
fn links_of_150_ms_each_way_need_round_trip_ms_of_300() {
    let slow = cluster(3, ms(150), "round_trip_ms = 300\n");
    // To the leader, from there to a majority, and the word of all nodes that it is in force: five
    // round trips of 300 ms leave two for the work.
    writes_without_an_election(&slow, ms(6_000), ms(1_500), |_| {});
    assert_eq!(slow.status(0)["round_trip_ms_max"], 345);
}

#[test]
fn links_that_are_all_too_slow_are_named_with_the_round_trip() {
    let cluster = cluster(3, ms(0), "");
    cluster.net().delay_everywhere(ms(150));
    for i in 0..3 {
        let said = until("the round trip is named", || {
            let warnings = warnings(&cluster, i);
            warnings.into_iter().find(|text| text.contains("that the timers allow"))
        });
        assert!(said.contains(" ms exceeds the 115 ms that the timers allow"), "{said}");
        let measured = cluster.status(i)["round_trip_ms"].as_u64().unwrap();
        assert!((300..1_000).contains(&measured), "{measured}");
        let unready = until("readyz names it", || {
            let (status, text) = ready(&cluster, i);
            (status == 503 && text.contains("that the timers allow")).then_some(text)
        });
        let sentence = unready.split("round trip ").nth(1).unwrap().trim_end();
        let numbers: Vec<_> =
            sentence.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).collect();
        let named: u64 = numbers[0].parse().unwrap();
        assert!((300..1_000).contains(&named), "{unready}");
        assert_eq!(sentence, format!("{named} ms exceeds the 115 ms that the timers allow"));
        let log = &cluster.node(i).process;
        until("the log names it", || log.log().contains("that the timers allow").then_some(()));
    }
    cluster.net().delay_everywhere(ms(0));
    (0..3).for_each(|i| cluster.wait_ready(i));
}

/// What `/readyz` says: its status, and its text.
fn ready(cluster: &Cluster, i: usize) -> (u16, String) {
    let answer = cluster.call(i, "GET", "/readyz", Value::Null);
    (answer.status, answer.text())
}

#[test]
fn of_five_split_in_two_and_three_the_minority_says_that_it_is_one() {
    let cluster = cluster(5, ms(0), "");
    let leader = leader(&cluster, 0).unwrap();
    // The leader is in the minority, so its follower there hears of a leader all the time.
    let minority = [leader, (leader + 1) % 5];
    let majority: Vec<_> = (0..5).filter(|i| !minority.contains(i)).collect();
    cluster.net().split(&minority, &majority);
    for i in minority {
        until("the minority is not ready", || (ready(&cluster, i).0 == 503).then_some(()));
    }
    let follower = minority[1];
    let said = until("its follower says why", || {
        let warnings = warnings(&cluster, follower);
        warnings.into_iter().find(|text| text.contains("has no majority"))
    });
    assert!(said.contains(&format!("the leader n{} has no majority", leader + 1)), "{said}");
    until("what is lost is said", || {
        let lost = "3 of 5 voters can't be reached: a majority is lost";
        warnings(&cluster, follower).iter().any(|text| text.starts_with(lost)).then_some(())
    });
    assert_eq!(cluster.status(follower)["leader"], Value::Null);
    until("the majority writes", || {
        (write(&cluster, majority[0], "majority").0 == 200).then_some(())
    });
    assert_eq!(write(&cluster, follower, "minority").0, 503);
    for i in minority {
        assert_eq!(ready(&cluster, i).0, 503, "n{} says that it is ready", i + 1);
    }
    cluster.net().heal();
    for i in 0..5 {
        until("all are ready again", || (ready(&cluster, i).0 == 200).then_some(()));
    }
    until("the minority has what was written", || {
        let policy = cluster.get(follower, "/v1/policy");
        policy["tenants"].get("majority").is_some().then_some(())
    });
    until("and writes", || (write(&cluster, follower, "after").0 == 200).then_some(()));
}

#[test]
fn a_node_without_a_link_to_the_leader_writes_through_a_third() {
    let cluster = cluster(3, ms(0), "");
    let leader = leader(&cluster, 0).unwrap();
    let (cut_off, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.net().cut(leader, cut_off);
    let (status, took) = write(&cluster, cut_off, "relayed");
    assert_eq!(status, 200, "after {took:?}");
    assert!(cluster.get(third, "/v1/policy")["tenants"].get("relayed").is_some());
    until("the cut link is seen", || {
        let member = cluster.member(cut_off, leader)?;
        (member["state"] == "unreachable").then_some(())
    });
    // An order about a member takes the same way.
    let path = format!("/v1/cluster/nodes/n{}/weight", third + 1);
    let weighed = cluster.call(cut_off, "PUT", &path, json!({"weight": 2}));
    assert_eq!(weighed.status, 200, "{}", weighed.text());
    assert_eq!(cluster.member(leader, third).unwrap()["weight"], 2);
    cluster.net().heal();
    (0..3).for_each(|i| cluster.wait_ready(i));
}
