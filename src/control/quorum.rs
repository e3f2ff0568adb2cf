//! Quorum: the replicated log of metadata records. openraft with the log store of `store`.
//!
//! Owns:     the consensus engine and the state machine, which is the list of applied records.
//! Promises: `propose` returns after the records are durable on a majority and applied in order.
//! Never:    is named outside `control`: what the others see are records.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Config, EntryPayload, LogId, OptionalSend, Raft, RaftLogReader, RaftNetwork,
    RaftNetworkFactory, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StoredMembership, Vote,
};

use super::store::{LogStore, StoredSnapshot};
use crate::base::ids::NodeId;
use crate::catalog::MetadataRecord;

openraft::declare_raft_types!(
    /// A proposal is a run of records that are applied together; it has no answer but its commit.
    pub MetadataLog:
        D = Vec<MetadataRecord>,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Vec<u8>,
);

/// A follower suspects its leader after this; a single voter calls its election itself.
const ELECTION_TIMEOUT_MS: u64 = 3000;

/// How long the start waits for this node to lead, and for what was committed to be applied.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub enum QuorumError {
    /// The store can't be opened or read.
    Open(String),
    /// Consensus wasn't reached, or the store refused a commit.
    Commit(String),
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(why) => write!(f, "the control store can't be opened: {why}"),
            Self::Commit(why) => write!(f, "the metadata quorum doesn't commit: {why}"),
        }
    }
}

pub struct Quorum {
    raft: Raft<MetadataLog>,
    store_thread: JoinHandle<()>,
}

impl Quorum {
    /// Opens or makes the store, leads, and returns every committed record in order.
    pub async fn open(folder: &Path, node: NodeId) -> Result<(Self, Vec<MetadataRecord>), QuorumError> {
        let id = u64::try_from(node.0).map_err(|_| QuorumError::Open("node ids are not negative".into()))?;
        let (store, store_thread) =
            LogStore::open(&folder.join("control.redb")).map_err(QuorumError::Open)?;
        let machine =
            Machine::load(store.clone()).await.map_err(|error| QuorumError::Open(error.to_string()))?;
        let applied = machine.applied.clone();
        let config = Config {
            cluster_name: "corelane".into(),
            heartbeat_interval: ELECTION_TIMEOUT_MS / 6,
            election_timeout_min: ELECTION_TIMEOUT_MS / 2,
            election_timeout_max: ELECTION_TIMEOUT_MS,
            ..Config::default()
        };
        let config = Arc::new(config.validate().expect("the timeouts are in order"));
        let commit = |why: &dyn fmt::Display| QuorumError::Commit(why.to_string());
        let raft = Raft::new(id, config, NoPeers, store, machine).await.map_err(|error| commit(&error))?;
        if raft.is_initialized().await.map_err(|error| commit(&error))? {
            raft.trigger().elect().await.map_err(|error| commit(&error))?;
        } else {
            let members = BTreeMap::from([(id, BasicNode::default())]);
            raft.initialize(members).await.map_err(|error| commit(&error))?;
        }
        raft.wait(Some(LEAD_TIMEOUT)).current_leader(id, "start").await.map_err(|error| commit(&error))?;
        raft.ensure_linearizable().await.map_err(|error| commit(&error))?;
        let records = applied.lock().unwrap_or_else(PoisonError::into_inner).records.clone();
        Ok((Self { raft, store_thread }, records))
    }

    /// The records in the store of a stopped node.
    pub async fn read(folder: &Path) -> Result<Vec<MetadataRecord>, QuorumError> {
        let path = folder.join("control.redb");
        if !path.is_file() {
            return Err(QuorumError::Open(format!("{} is missing", path.display())));
        }
        let (mut store, store_thread) = LogStore::open(&path).map_err(QuorumError::Open)?;
        let open = |error: StorageError<u64>| QuorumError::Open(error.to_string());
        let stored = store.read_snapshot().await.map_err(open)?;
        let applied = stored.as_ref().and_then(|stored| stored.meta.last_log_id).map_or(0, |id| id.index + 1);
        let mut records = stored.map_or_else(Vec::new, |stored| stored.records);
        for entry in store.try_get_log_entries(applied..).await.map_err(open)? {
            if let EntryPayload::Normal(entry) = entry.payload {
                records.extend(entry);
            }
        }
        drop(store);
        store_thread.join().expect("the store's thread doesn't panic");
        Ok(records)
    }

    /// Ends the engine and closes the store.
    pub async fn close(self) {
        // An engine that has failed already is as good as shut down.
        self.raft.shutdown().await.ok();
        drop(self.raft);
        self.store_thread.join().expect("the store's thread doesn't panic");
    }

    /// Returns once the records are durable on a majority.
    pub async fn propose(&self, records: Vec<MetadataRecord>) -> Result<(), QuorumError> {
        let written = self.raft.client_write(records).await;
        written.map(|_| ()).map_err(|error| QuorumError::Commit(error.to_string()))
    }
}

#[derive(Clone, Debug, Default)]
struct Applied {
    last: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    records: Vec<MetadataRecord>,
}

/// The records applied so far. Only the control thread touches it; the lock is what openraft's
/// bounds on threads ask for.
#[derive(Clone)]
struct Machine {
    applied: Arc<Mutex<Applied>>,
    store: LogStore,
}

impl Machine {
    async fn load(store: LogStore) -> Result<Self, StorageError<u64>> {
        let machine = Self { applied: Arc::default(), store };
        if let Some(stored) = machine.store.read_snapshot().await? {
            machine.restore(stored.meta, &stored.records);
        }
        Ok(machine)
    }

    fn restore(&self, meta: SnapshotMeta<u64, BasicNode>, records: &[MetadataRecord]) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        *applied =
            Applied { last: meta.last_log_id, membership: meta.last_membership, records: records.to_vec() };
    }

    fn read<T>(&self, look: impl FnOnce(&Applied) -> T) -> T {
        look(&self.applied.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RaftSnapshotBuilder<MetadataLog> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<MetadataLog>, StorageError<u64>> {
        let (meta, records) = self.read(|applied| {
            let last =
                applied.last.map_or_else(String::new, |last| format!("{}-{}", last.leader_id, last.index));
            let meta = SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id: last,
            };
            (meta, applied.records.clone())
        });
        let snapshot = Box::new(serde_json::to_vec(&records).expect("records have string keys only"));
        self.store.write_snapshot(StoredSnapshot { meta: meta.clone(), records }).await?;
        Ok(Snapshot { meta, snapshot })
    }
}

impl RaftStateMachine<MetadataLog> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        Ok(self.read(|applied| (applied.last, applied.membership.clone())))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<u64>>
    where
        I: IntoIterator<Item = openraft::Entry<MetadataLog>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = Vec::new();
        for entry in entries {
            applied.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(records) => applied.records.extend(records),
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError<u64>> {
        let records: Vec<MetadataRecord> = serde_json::from_slice(&snapshot)
            .map_err(|error| openraft::StorageIOError::read_snapshot(Some(meta.signature()), &error))?;
        self.store.write_snapshot(StoredSnapshot { meta: meta.clone(), records: records.clone() }).await?;
        self.restore(meta.clone(), &records);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<MetadataLog>>, StorageError<u64>> {
        let stored = self.store.read_snapshot().await?;
        Ok(stored.map(|stored| {
            let snapshot = serde_json::to_vec(&stored.records).expect("records have string keys only");
            Snapshot { meta: stored.meta, snapshot: Box::new(snapshot) }
        }))
    }
}

/// A quorum of one has nobody to talk to; with more voters this is their transport.
struct NoPeers;

const ONLY_VOTER: &str = "this node is the only voter";

fn unreachable<E: std::error::Error>() -> RPCError<u64, BasicNode, E> {
    let why = std::io::Error::other(ONLY_VOTER);
    RPCError::Unreachable(Unreachable::new(&NetworkError::new(&why)))
}

impl RaftNetworkFactory<MetadataLog> for NoPeers {
    type Network = Self;

    async fn new_client(&mut self, _target: u64, _node: &BasicNode) -> Self {
        Self
    }
}

impl RaftNetwork<MetadataLog> for NoPeers {
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<MetadataLog>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        Err(unreachable())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote<u64>,
        _snapshot: Snapshot<MetadataLog>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<MetadataLog, Fatal<u64>>> {
        let why = std::io::Error::other(ONLY_VOTER);
        Err(StreamingError::Unreachable(Unreachable::new(&NetworkError::new(&why))))
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        Err(unreachable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    #[test]
    fn what_was_proposed_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let reserved = |next| MetadataRecord::ProducerIdsReserved { next };
        run(async {
            let (quorum, records) = Quorum::open(dir.path(), NodeId(1)).await.expect("opens");
            assert_eq!(records, []);
            quorum.propose(vec![reserved(1), reserved(2)]).await.expect("commits");
            quorum.propose(vec![reserved(3)]).await.expect("commits");
            quorum.close().await;
            let (quorum, records) = Quorum::open(dir.path(), NodeId(1)).await.expect("opens again");
            assert_eq!(records, [reserved(1), reserved(2), reserved(3)]);
            quorum.raft.trigger().snapshot().await.expect("asked for");
            let has_snapshot = |metrics: &openraft::RaftMetrics<u64, BasicNode>| metrics.snapshot.is_some();
            quorum.raft.wait(Some(LEAD_TIMEOUT)).metrics(has_snapshot, "snapshot").await.expect("built");
            quorum.close().await;
            let (quorum, records) =
                Quorum::open(dir.path(), NodeId(1)).await.expect("opens from its snapshot");
            assert_eq!(records.len(), 3);
            quorum.close().await;
        });
    }
}
