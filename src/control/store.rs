//! Store: the metadata quorum's log, vote and snapshot in one redb file, on a thread of its own.
//!
//! Owns:     the file and the thread that alone touches it.
//! Promises: vote, log and truncation are durable before their call or callback returns; openraft
//!           relies on it to never vote twice in a term and never lose a commit.
//! Never:    is waited for by the control thread's other tasks: it answers by channel.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{
    BasicNode, Entry, LogId, OptionalSend, RaftLogReader, SnapshotMeta, StorageError, StorageIOError, Vote,
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::quorum::MetadataLog;
use crate::catalog::MetadataRecord;

/// Log entries by index, as JSON.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Vote, purge point and snapshot, as JSON.
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");

const VOTE: &str = "vote";
const PURGED: &str = "purged";
const SNAPSHOT: &str = "snapshot";

type Job = Box<dyn FnOnce(&Database) + Send>;

#[derive(Clone)]
pub struct LogStore {
    jobs: mpsc::Sender<Job>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredSnapshot {
    pub meta: SnapshotMeta<u64, BasicNode>,
    pub records: Vec<MetadataRecord>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn storage_error(failure: Failure) -> StorageError<u64> {
    StorageIOError::write(&std::io::Error::other(failure)).into()
}

impl LogStore {
    /// The store, and its thread, which ends when the last clone of the store is dropped.
    pub fn open(path: &Path) -> Result<(Self, JoinHandle<()>), String> {
        let named = |error: Failure| format!("{}: {error}", path.display());
        let database = Database::create(path).map_err(|error| named(error.into()))?;
        make_tables(&database).map_err(named)?;
        let (jobs, receiver) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("store".into());
        let spawned = thread.spawn(move || {
            for job in receiver {
                job(&database);
            }
        });
        let thread = spawned.map_err(|error| named(error.into()))?;
        Ok((Self { jobs }, thread))
    }

    /// Runs `job` on the store's thread and waits for it without blocking this one.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StorageError<u64>> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |database| {
            sender.send(job(database)).ok();
        });
        let ended = || storage_error("the store's thread has ended".into());
        self.jobs.send(job).map_err(|_| ended())?;
        receiver.await.map_err(|_| ended())?.map_err(storage_error)
    }

    async fn put<T: Serialize>(&self, key: &'static str, value: &T) -> Result<(), StorageError<u64>> {
        let bytes = serde_json::to_vec(value).map_err(|error| storage_error(error.into()))?;
        self.run(move |database| {
            let write = database.begin_write()?;
            write.open_table(STATE)?.insert(key, bytes.as_slice())?;
            Ok(write.commit()?)
        })
        .await
    }

    async fn get<T: for<'a> Deserialize<'a> + Send + 'static>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, StorageError<u64>> {
        self.run(move |database| {
            let table = database.begin_read()?.open_table(STATE)?;
            let value = table.get(key)?;
            Ok(value.map(|value| serde_json::from_slice(value.value())).transpose()?)
        })
        .await
    }

    pub async fn read_snapshot(&self) -> Result<Option<StoredSnapshot>, StorageError<u64>> {
        self.get(SNAPSHOT).await
    }

    pub async fn write_snapshot(&self, snapshot: StoredSnapshot) -> Result<(), StorageError<u64>> {
        self.put(SNAPSHOT, &snapshot).await
    }
}

fn make_tables(database: &Database) -> Result<(), Failure> {
    let write = database.begin_write()?;
    write.open_table(LOG)?;
    write.open_table(STATE)?;
    Ok(write.commit()?)
}

fn append(database: &Database, entries: &[(u64, Vec<u8>)]) -> Result<(), Failure> {
    let write = database.begin_write()?;
    {
        let mut log = write.open_table(LOG)?;
        for (index, bytes) in entries {
            log.insert(*index, bytes.as_slice())?;
        }
    }
    Ok(write.commit()?)
}

/// Removes the entries of `range` and, for a purge, notes up to where.
fn remove(
    database: &Database,
    range: (Bound<u64>, Bound<u64>),
    purged: Option<Vec<u8>>,
) -> Result<(), Failure> {
    let write = database.begin_write()?;
    write.open_table(LOG)?.retain_in(range, |_, _| false)?;
    if let Some(purged) = purged {
        write.open_table(STATE)?.insert(PURGED, purged.as_slice())?;
    }
    Ok(write.commit()?)
}

impl RaftLogReader<MetadataLog> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<MetadataLog>>, StorageError<u64>> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.run(move |database| {
            let table = database.begin_read()?.open_table(LOG)?;
            let mut entries = Vec::new();
            for entry in table.range(range)? {
                entries.push(serde_json::from_slice(entry?.1.value())?);
            }
            Ok(entries)
        })
        .await
    }
}

impl RaftLogStorage<MetadataLog> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<MetadataLog>, StorageError<u64>> {
        let purged: Option<LogId<u64>> = self.get(PURGED).await?;
        let last = self
            .run(|database| {
                let table = database.begin_read()?.open_table(LOG)?;
                let last = table.last()?;
                let last: Option<Entry<MetadataLog>> =
                    last.map(|(_, value)| serde_json::from_slice(value.value())).transpose()?;
                Ok(last.map(|entry| entry.log_id))
            })
            .await?;
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        self.put(VOTE, vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        self.get(VOTE).await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<MetadataLog>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<MetadataLog>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        for entry in entries {
            let bytes = serde_json::to_vec(&entry).map_err(|error| storage_error(error.into()))?;
            rows.push((entry.log_id.index, bytes));
        }
        let job: Job = Box::new(move |database| {
            callback.log_io_completed(append(database, &rows).map_err(std::io::Error::other));
        });
        self.jobs.send(job).map_err(|_| storage_error("the store's thread has ended".into()))
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Result<(), StorageError<u64>> {
        let range = (Bound::Included(from.index), Bound::Unbounded);
        self.run(move |database| remove(database, range, None)).await
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Result<(), StorageError<u64>> {
        let range = (Bound::Unbounded, Bound::Included(upto.index));
        let purged = serde_json::to_vec(&upto).map_err(|error| storage_error(error.into()))?;
        self.run(move |database| remove(database, range, Some(purged))).await
    }
}
