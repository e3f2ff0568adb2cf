//! Quorum: the replicated log of metadata records.

use std::fmt;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::base::ids::NodeId;
use crate::catalog::MetadataRecord;

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

#[derive(Debug)]
pub enum QuorumError {
    /// The store can't be opened or read.
    Open(String),
    /// The store refused a commit.
    Commit(String),
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(why) => write!(f, "the control store can't be opened: {why}"),
            Self::Commit(why) => write!(f, "the control store can't be written: {why}"),
        }
    }
}

pub struct Quorum {
    database: Database,
}

impl Quorum {
    /// Opens or makes the store and returns every committed record in order.
    pub async fn open(store: &Path, _node: NodeId) -> Result<(Self, Vec<MetadataRecord>), QuorumError> {
        let open = |why: &dyn fmt::Display| QuorumError::Open(why.to_string());
        let database = Database::create(store.join("control.redb")).map_err(|error| open(&error))?;
        let mut records = Vec::new();
        let write = database.begin_write().map_err(|error| open(&error))?;
        write.open_table(RECORDS).map_err(|error| open(&error))?;
        write.commit().map_err(|error| open(&error))?;
        let read = database.begin_read().map_err(|error| open(&error))?;
        let table = read.open_table(RECORDS).map_err(|error| open(&error))?;
        for entry in table.iter().map_err(|error| open(&error))? {
            let (_, value) = entry.map_err(|error| open(&error))?;
            records.push(serde_json::from_slice(value.value()).map_err(|error| open(&error))?);
        }
        Ok((Self { database }, records))
    }

    /// Returns once the records are durable on a majority.
    pub async fn propose(&self, records: Vec<MetadataRecord>) -> Result<(), QuorumError> {
        let commit = |why: &dyn fmt::Display| QuorumError::Commit(why.to_string());
        let write = self.database.begin_write().map_err(|error| commit(&error))?;
        {
            let mut table = write.open_table(RECORDS).map_err(|error| commit(&error))?;
            let mut next =
                table.last().map_err(|error| commit(&error))?.map_or(0, |(key, _)| key.value() + 1);
            for record in records {
                let bytes = serde_json::to_vec(&record).expect("records have string keys only");
                table.insert(next, bytes.as_slice()).map_err(|error| commit(&error))?;
                next += 1;
            }
        }
        write.commit().map_err(|error| commit(&error))
    }
}
