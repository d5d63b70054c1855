//! The state machine as openraft wants it: hands entries to [`State::apply`], and lets others look
//! at the state.
//!
//! The state is in memory. What makes it durable is the log, and the snapshot that stands for the
//! log's beginning; after a restart openraft installs the snapshot and applies the rest.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};

use super::snapshot::{Builder, Sealed};
use super::store::LogStore;
use super::types::{Address, LogId, Membership, Snapshot, SnapshotData, SnapshotMeta, TypeConfig};
use crate::cluster::state::{LogIndex, State};
use crate::placement::NodeId;
use crate::watch;

/// The state, and how much of the log it comes from.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The last entry applied; 0 before the first.
    pub applied: LogIndex,
    /// The state after it.
    pub state: State,
    /// Who gets the log by then: the members, and for a while those that have left.
    pub nodes: BTreeMap<NodeId, Address>,
}

/// See the module.
pub struct Machine {
    state: State,
    applied: Option<LogId>,
    membership: Membership,
    store: LogStore,
    view: watch::Sender<Arc<View>>,
}

impl Machine {
    /// A machine without a state yet, whose snapshots are kept in `store`; and where its state can
    /// be looked at.
    pub fn new(store: LogStore) -> (Self, watch::Receiver<Arc<View>>) {
        let (view, seen) = watch::channel(Arc::default());
        let (state, applied, membership) = (State::default(), None, Membership::default());
        (Self { state, applied, membership, store, view }, seen)
    }

    fn show(&self) {
        let applied = LogIndex(self.applied.as_ref().map_or(0, |id| id.index));
        let nodes =
            self.membership.membership().nodes().map(|(id, address)| (*id, address.clone()));
        self.view.send_replace(Arc::new(View {
            applied,
            state: self.state.clone(),
            nodes: nodes.collect(),
        }));
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut answers = Vec::new();
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let answer = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(command) => {
                    Some(self.state.apply(LogIndex(entry.log_id.index), &command))
                }
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(entry.log_id), membership);
                    None
                }
            };
            self.applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        // Seen before it is answered: who was answered reads what was written.
        self.show();
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state.clone(),
            applied: self.applied,
            membership: self.membership.clone(),
            store: self.store.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<()> {
        // Read before anything is replaced: a snapshot that means nothing here must not cost the
        // state.
        let state = State::decode(&data).map_err(io::Error::other)?;
        let sealed = Sealed::new(meta, &data).map_err(io::Error::other)?;
        self.store.publish(sealed, state.level()).await?;
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.show();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(sealed) = self.store.snapshot().await? else { return Ok(None) };
        let (meta, snapshot) = sealed.open().map_err(io::Error::other)?;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}
