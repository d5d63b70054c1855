//! Openraft's own suite for stores.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::*;

struct InMemory;
struct InFiles;

fn opened(place: &Place) -> (LogStore, Machine) {
    let store = LogStore::open(place, NodeId(0)).unwrap();
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
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<TypeConfig>> {
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
async fn a_file_is_one_nodes_and_one_processes() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::Directory(directory.path().into());
    let store = LogStore::open(&place, NodeId(1)).unwrap();
    assert!(matches!(LogStore::open(&place, NodeId(1)), Err(OpenError::InUse(_))));
    let closed = store.closed();
    drop(store);
    closed.wait().await;
    let other = LogStore::open(&place, NodeId(2));
    assert!(matches!(other, Err(OpenError::OtherNode { found: NodeId(1), expected: NodeId(2) })));
    assert!(LogStore::open(&place, NodeId(1)).is_ok());
}
