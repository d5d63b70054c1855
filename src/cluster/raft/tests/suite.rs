//! Openraft's own suite for stores.

use openraft::StorageError;
use openraft::storage::RaftLogStorage as _;
use openraft::testing::log::{StoreBuilder, Suite};

use super::super::types::Vote;
use super::*;
use crate::cluster::claim::Found;
use crate::peer::Lineage;

struct InMemory;
struct InFiles;

fn opened(place: &Place) -> (LogStore, Machine) {
    let store = LogStore::open(place, &claim(NodeId(0))).unwrap();
    let (machine, _) = Machine::new(store.clone());
    (store, machine)
}

impl StoreBuilder<TypeConfig, LogStore, Machine> for InMemory {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        let (store, machine) = opened(&Place::Memory);
        Ok(((), store, machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for InFiles {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let (store, machine) = opened(&Place::Directory(directory.path().into()));
        Ok((directory, store, machine))
    }
}

#[tokio::test]
async fn the_store_in_memory_does_what_openraft_asks_of_one() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_a_file_does_what_openraft_asks_of_one() {
    Suite::test_all(InFiles).await.unwrap();
}

#[tokio::test]
async fn a_node_whose_term_has_no_next_one_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::Directory(directory.path().into());
    let mut store = LogStore::open(&place, &claim(NodeId(1))).unwrap();
    store.save_vote(&Vote::new(u64::MAX, NodeId(2))).await.unwrap();
    let closed = store.closed();
    drop(store);
    closed.wait().await;
    let wire = Wire { own: NodeId(1), hub: Arc::default() };
    let started = Node::start(settings(NodeId(1), place), Arc::new(wire)).await;
    assert!(matches!(started, Err(StartError::Term(u64::MAX))));
}

#[tokio::test]
async fn a_file_is_one_nodes_and_one_processes() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::Directory(directory.path().into());
    assert_eq!(place.found().unwrap(), None);
    let store = LogStore::open(&place, &claim(NodeId(1))).unwrap();
    assert!(matches!(LogStore::open(&place, &claim(NodeId(1))), Err(OpenError::InUse(_))));
    assert!(matches!(place.found(), Err(OpenError::InUse(_))));
    let closed = store.closed();
    drop(store);
    closed.wait().await;
    let renamed = Claim { name: Name::new("n2").unwrap(), ..claim(NodeId(1)) };
    let why = LogStore::open(&place, &renamed).err().unwrap().to_string();
    let expected = "the data there is that of n1 of the cluster test (node 1); this is n2 of the \
                    cluster test (node 1)";
    assert_eq!(why, expected);
    // Nothing was written yet, so the place may still become another's; then no more.
    let first = Found {
        claim: claim(NodeId(1)),
        is_blank: true,
        has_left: false,
        lineage: Lineage::default(),
        level: Default::default(),
        round_trip_ms: None,
    };
    assert_eq!(place.found().unwrap(), Some(first.clone()));
    place.claim(&claim(NodeId(7)), &Lineage::default()).unwrap();
    place.claim(&claim(NodeId(1)), &Lineage::default()).unwrap();
    place.keep_round_trip(200).unwrap();
    assert_eq!(place.found().unwrap().unwrap().round_trip_ms, Some(200));
    assert!(place.found().unwrap().unwrap().is_blank);
    let mut store = LogStore::open(&place, &claim(NodeId(1))).unwrap();
    store.save_vote(&Vote::new(1, NodeId(1))).await.unwrap();
    store.leave().await.unwrap();
    store.keep_round_trip(300).await.unwrap();
    let closed = store.closed();
    drop(store);
    closed.wait().await;
    assert_eq!(
        place.found().unwrap(),
        Some(Found { is_blank: false, has_left: true, round_trip_ms: Some(300), ..first.clone() })
    );
    assert!(matches!(
        place.claim(&claim(NodeId(7)), &Lineage::default()),
        Err(OpenError::OtherNode { .. })
    ));
    let other = LogStore::open(&place, &claim(NodeId(2)));
    assert!(matches!(other, Err(OpenError::OtherNode { .. })));
    assert!(LogStore::open(&place, &claim(NodeId(1))).is_ok());
}
