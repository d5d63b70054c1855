use openraft::raft::VoteRequest;

use super::super::network::{Post, Reply, Request, Traffic};
use super::super::types::Vote;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_any_node_is_seen_by_all_and_their_states_are_the_same_bytes() {
    let cluster = Cluster::in_memory(3).await;
    for (i, node) in cluster.all().iter().enumerate() {
        let done =
            node.propose(put(10 + i as u128, &format!("t-{i}"), None), WITHIN).await.unwrap();
        assert_eq!(done.made, Made::Version(2 + i as u64));
    }
    cluster.settle(4).await;
    let states: BTreeSet<_> =
        cluster.all().iter().map(|n| n.view().state.encode().unwrap()).collect();
    assert_eq!(states.len(), 1);
    let leader = cluster.leader().await;
    assert!(leader.contact_age().await.unwrap() < Duration::from_millis(400));
    assert_eq!(leader.members().values().filter(|votes| **votes).count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_proposed_again_through_another_node_is_done_once() {
    let cluster = Cluster::in_memory(3).await;
    let admit = command(99, What::Admit(member("n4")));
    let first = cluster.hub.node(2).propose(admit.clone(), WITHIN).await.unwrap();
    let again = cluster.hub.node(3).propose(admit, WITHIN).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(cluster.hub.node(1).view().state.agreed().unwrap().members.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_changes_nothing_makes_no_entry_through_any_node() {
    let cluster = Cluster::in_memory(3).await;
    let first = cluster.hub.node(1).propose(put(10, "t", None), WITHIN).await.unwrap();
    cluster.settle(2).await;
    for (request, node) in (20..).zip(cluster.all()) {
        let done = node.propose(put(request, "t", Some(2)), WITHIN).await.unwrap();
        assert_eq!((done.made, done.at >= first.at), (Made::Version(2), true));
        let stale = node.propose(put(request + 10, "t", Some(1)), WITHIN).await;
        assert_eq!(stale, Err(ProposeError::Refused(Refusal::Stale { expected: 1, actual: 2 })));
    }
    assert_eq!(cluster.hub.node(2).propose(put(10, "t", None), WITHIN).await.unwrap(), first);
    let view = cluster.leader().await.view();
    let agreed = view.state.agreed().unwrap();
    assert_eq!((agreed.version, agreed.history.iter().count(), agreed.audit.len()), (2, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_writes_at_once_with_and_without_preconditions_all_take_effect_once() {
    let cluster = Cluster::in_memory(3).await;
    let nodes = cluster.all();
    let mut writes = tokio::task::JoinSet::new();
    for i in 0..1_000u32 {
        let node = nodes[i as usize % 3].clone();
        writes.spawn(async move {
            // Some write for the version they read, and read again when somebody else was quicker.
            let tenant = format!("t-{i}");
            let mut attempt = 0u128;
            loop {
                attempt += 1;
                let expected = (i % 100 == 0).then(|| node.view().state.agreed().unwrap().version);
                let request = u128::from(i + 1) << 64 | attempt;
                match node.propose(put(request, &tenant, expected), WITHIN * 3).await {
                    Ok(_) => return,
                    Err(ProposeError::Refused(Refusal::Stale { .. })) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        });
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap();
    }
    cluster.settle(1_001).await;
    for node in cluster.all() {
        let view = node.view();
        let agreed = view.state.agreed().unwrap();
        assert_eq!((agreed.version, agreed.document.tenants.len()), (1_001, 1_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_refuses_writes_and_what_it_did_not_answer_never_appears() {
    let cluster = Cluster::in_memory(3).await;
    let old = cluster.leader().await;
    cluster.hub.isolate(old.id());
    let lost = old.propose(put(50, "lost", None), Duration::from_millis(300)).await;
    assert_eq!(lost, Err(ProposeError::Unknown));
    let new = cluster.leader_but(Some(old.id())).await;
    new.propose(put(51, "kept", None), WITHIN).await.unwrap();
    // By now its lease is over: it says so, instead of taking what it can't keep.
    assert!(old.contact_age().await.unwrap() > Duration::from_millis(400));
    let refused = old.propose(put(52, "refused", None), Duration::from_millis(300)).await;
    assert_eq!(refused, Err(ProposeError::NoLeader));
    let term = new.term();
    drop((old, new));
    cluster.hub.heal();
    cluster.settle(2).await;
    let leader = cluster.leader().await;
    leader.propose(put(53, "after", None), WITHIN).await.unwrap();
    cluster.settle(3).await;
    for node in cluster.all() {
        let view = node.view();
        let tenants: Vec<_> =
            view.state.agreed().unwrap().document.tenants.keys().map(ToString::to_string).collect();
        assert_eq!(tenants, ["after", "kept"]);
    }
    // Whoever comes back asks before it calls an election (Pre-Vote): nobody is deposed.
    assert_eq!(leader.term(), term);
}

#[tokio::test]
async fn who_led_before_its_restart_leads_in_a_later_term_and_who_votes_alone_at_once() {
    for nodes in [1, 3] {
        let directory = tempfile::tempdir().unwrap();
        let place = |id: u64| Place::Directory(directory.path().join(format!("n{id}")));
        let mut cluster = Cluster::start(nodes, place).await;
        cluster.begin().await;
        let led = cluster.leader().await;
        let (id, term) = (led.id(), led.term());
        drop(led);
        cluster.stop(id).await;
        cluster.join(id.0, place(id.0)).await;
        let leader = cluster.leader().await;
        assert!(leader.term() > term, "{nodes} nodes: term {} after {term}", leader.term());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_all_nodes_were_restarted() {
    let directory = tempfile::tempdir().unwrap();
    let place = |id: u64| Place::Directory(directory.path().join(id.to_string()));
    let mut cluster = Cluster::start(3, place).await;
    cluster.begin().await;
    for i in 0..20u128 {
        cluster.hub.node(1).propose(put(10 + i, &format!("t-{i}"), None), WITHIN).await.unwrap();
    }
    // One of them comes back from a snapshot and the log behind it, two from the log alone.
    let node = cluster.hub.node(1);
    node.write_snapshot().await.unwrap();
    for i in 20..30u128 {
        node.propose(put(10 + i, &format!("t-{i}"), None), WITHIN).await.unwrap();
    }
    drop(node);
    cluster.settle(31).await;
    let before = cluster.hub.node(2).view().state.encode().unwrap();
    for id in 1..=3 {
        cluster.stop(NodeId(id)).await;
    }
    for id in 1..=3 {
        cluster.join(id, place(id)).await;
    }
    for node in cluster.all() {
        node.recovered(WITHIN).await.unwrap();
        assert_eq!(node.view().state.encode().unwrap(), before, "node {}", node.id());
    }
    cluster.hub.node(3).propose(put(90, "more", Some(31)), WITHIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_gets_a_snapshot_in_parts_when_the_log_is_purged_and_can_vote() {
    let mut cluster = Cluster::in_memory(3).await;
    let leader = cluster.leader().await;
    // A policy of more than a frame.
    let tenants: Vec<_> = (0..30_000).map(|i| format!(r#""tenant-{i}":{{"tier":"t1"}}"#)).collect();
    let policy =
        POLICY.replace("\"tiers\"", &format!("\"tenants\":{{{}}},\"tiers\"", tenants.join(",")));
    assert!(policy.len() > PART_BYTES);
    let edit = Edit::Replace(policy);
    leader.propose(command(5, What::Edit { expected: None, edit }), WITHIN).await.unwrap();
    for i in 0..30u128 {
        leader.propose(put(10 + i, &format!("t-{i}"), None), WITHIN).await.unwrap();
    }
    leader.write_snapshot().await.unwrap();
    let purged = async {
        while leader.log_reaches().0 < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, purged).await.expect("the log is not purged");
    cluster.join(4, Place::Memory).await;
    leader.add_learners(&cluster.seeds()).await.unwrap();
    cluster.settle(32).await;
    let new = cluster.hub.node(4);
    assert_eq!(new.view().state.encode().unwrap(), leader.view().state.encode().unwrap());
    assert!(!leader.members()[&NodeId(4)]);
    let out = leader.members().into_keys().find(|id| *id != leader.id() && id.0 != 4).unwrap();
    let voters = (1..=4).map(NodeId).filter(|id| *id != out).collect();
    leader.change_voters(voters).await.unwrap();
    leader.forget([out].into()).await.unwrap();
    assert_eq!(leader.members().values().filter(|votes| **votes).count(), 3);
    cluster.hub.isolate(out);
    new.propose(put(90, "more", None), WITHIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_does_not_begin_while_a_node_is_silent_or_has_a_log() {
    let cluster = Cluster::start(3, |_| Place::Memory).await;
    let begin = || {
        command(
            1,
            What::Begin {
                secret: Secret::new(1, 2).into(),
                document: POLICY.into(),
                members: vec![member("n1")],
            },
        )
    };
    let seeds = cluster.seeds();
    // Only the first in the list begins.
    cluster.hub.node(2).bootstrap(&seeds, begin(), WITHIN).await.unwrap();
    assert!(cluster.hub.node(2).view().state.agreed().is_none());
    cluster.hub.isolate(NodeId(3));
    let silent = cluster.hub.node(1).bootstrap(&seeds, begin(), WITHIN).await;
    assert!(matches!(silent, Err(BootstrapError::Silent { node: NodeId(3), .. })), "{silent:?}");
    cluster.hub.heal();
    let alone = vec![seeds[2].clone()];
    cluster.hub.node(3).bootstrap(&alone, begin(), WITHIN).await.unwrap();
    let taken = cluster.hub.node(1).bootstrap(&seeds, begin(), WITHIN).await;
    assert!(matches!(taken, Err(BootstrapError::NotEmpty(NodeId(3)))), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_one_votes() {
    let cluster = Cluster::in_memory(2).await;
    assert_eq!(cluster.hub.node(1).members(), [(NodeId(1), true), (NodeId(2), false)].into());
    cluster.hub.node(2).propose(put(7, "acme", None), WITHIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_a_leader_is_certainly_not_done_and_one_too_large_neither() {
    let cluster = Cluster::start(1, |_| Place::Memory).await;
    let node = cluster.hub.node(1);
    assert_eq!(
        node.propose(put(1, "acme", None), Duration::from_millis(100)).await,
        Err(ProposeError::NoLeader)
    );
    let edit = Edit::Replace(" ".repeat(COMMAND_BYTES_MAX));
    let large = node.propose(command(2, What::Edit { expected: None, edit }), WITHIN).await;
    assert!(matches!(large, Err(ProposeError::TooLarge { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_the_end_of_raft_hears_of_it() {
    let cluster = Cluster::in_memory(1).await;
    let node = cluster.hub.node(1);
    let waiting = tokio::time::timeout(Duration::from_millis(50), node.failed()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    node.raft().shutdown().await.unwrap();
    tokio::time::timeout(WITHIN, node.failed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_another_node_is_not_answered_in_its_place() {
    let cluster = Cluster::start(2, |_| Place::Memory).await;
    // What was meant for node 3 ends up at node 2, whose address node 3 once had.
    let misled = cluster.hub.node(2);
    cluster.hub.nodes.lock().unwrap().insert(NodeId(3), misled);
    let seeds = [1, 3].map(|id| (NodeId(id), Address::new(format!("n{id}"), "")));
    let what = What::Begin {
        secret: Secret::new(1, 2).into(),
        document: POLICY.into(),
        members: Vec::new(),
    };
    let refused = cluster.hub.node(1).bootstrap(&seeds, command(1, what), WITHIN).await;
    let why = refused.unwrap_err().to_string();
    assert!(why.ends_with("this is node 2, not node 3"), "{why}");
}

/// Has a follower ask its leader, once in a while, until `seen` says that it has seen enough.
async fn ask_until(follower: &Node, seen: impl AsyncFn(&Node) -> bool) {
    let asking = async {
        while !seen(follower).await {
            follower.ask_contact(Duration::from_millis(200)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WITHIN, asking).await.expect("it is not seen");
}

async fn is_in_contact(node: &Node) -> bool {
    node.contact_age().await.is_some_and(|age| age < Duration::from_millis(400))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_knows_that_its_leader_has_no_majority() {
    let cluster = Cluster::in_memory(5).await;
    let leader = cluster.leader().await;
    let all = cluster.all();
    let mut others = all.iter().filter(|node| node.id() != leader.id());
    let follower = others.next().unwrap();
    assert_eq!(follower.contact_age().await, None, "nothing is known before the leader was asked");
    ask_until(follower, is_in_contact).await;
    for other in others {
        cluster.hub.unlink(leader.id(), other.id());
        cluster.hub.unlink(follower.id(), other.id());
    }
    ask_until(follower, async |node| !is_in_contact(node).await).await;
    assert_eq!(follower.missing(), Missing::Majority(leader.id()));
    assert!(!is_in_contact(&leader).await && leader.missing() == Missing::Own);
    cluster.hub.heal();
    ask_until(follower, is_in_contact).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_reaches_the_leader_through_a_third_node() {
    let cluster = Cluster::in_memory(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.all().into_iter().find(|node| node.id() != leader.id()).unwrap();
    cluster.hub.unlink(leader.id(), follower.id());
    let done = follower.propose(put(60, "relayed", None), WITHIN).await.unwrap();
    assert_eq!(done.made, Made::Version(2));
    assert!(leader.view().state.agreed().unwrap().version == 2);
    // Where no node reaches the leader, nothing is done, and that is known.
    for other in cluster.all().iter().filter(|node| node.id() != leader.id()) {
        cluster.hub.unlink(leader.id(), other.id());
        cluster.hub.unlink(follower.id(), other.id());
    }
    let refused = follower.propose(put(61, "refused", None), Duration::from_secs(1)).await;
    assert_eq!(refused, Err(ProposeError::NoLeader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_slower_than_a_heartbeat_allows_is_replaced() {
    let cluster = Cluster::in_memory(3).await;
    let old = cluster.leader().await;
    // A heartbeat has 50 ms: one of 60 ms is heard by every follower, and answered too late.
    cluster.hub.slow_down(old.id(), Duration::from_millis(30));
    let new = cluster.leader_but(Some(old.id())).await;
    new.propose(put(70, "new", None), WITHIN).await.unwrap();
    old.propose(put(71, "slow", None), WITHIN).await.unwrap();
    assert_eq!(cluster.leader_but(Some(old.id())).await.id(), new.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_of_the_highest_term_of_all_does_no_harm() {
    let cluster = Cluster::in_memory(3).await;
    let terms = || cluster.all().iter().map(|node| node.term()).max().unwrap();
    let before = terms();
    let wire = Wire { own: NodeId(2), hub: cluster.hub.clone() };
    let post = Post::new(NodeId(2), Arc::new(wire), Timers::default());
    let ask = async |to: u64, term: u64| {
        let request = Request::Vote(VoteRequest::new(Vote::new(term, NodeId(2)), None));
        post.call(NodeId(to), &Address::default(), Traffic::Raft, &request, WITHIN).await
    };
    for to in [1, 3] {
        let refused = ask(to, u64::MAX).await.unwrap_err().to_string();
        assert!(refused.contains("refused a message of term 18446744073709551615"), "{refused}");
        assert!(matches!(ask(to, before).await, Ok(Reply::Vote(_))), "what can be is answered");
    }
    assert_eq!(terms(), before);
    cluster.hub.node(3).propose(put(10, "t", None), WITHIN).await.unwrap();
    cluster.settle(2).await;
}
