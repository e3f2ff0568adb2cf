//! Command: what a partition is asked and what it answers, between shards and within one.

use crate::base::ids::{LeaderEpoch, MonotonicNs, Offset, ShardId};
use crate::base::slab::Key;
use crate::partition::append::AppendRefusal;
use crate::partition::read::{ListedOffset, OffsetQuery, ReadRefusal};
use crate::partition::waiters::AppendOutcome;

#[derive(Debug)]
pub enum PartitionCommand {
    /// Append a batch whose header and checksum were verified by the sender.
    Append {
        batch: Vec<u8>,
        append: AppendOptions,
    },
    Plan(PlanCommand),
    /// The fetch is answered; forget its waiter.
    Unwatch,
    ListOffset {
        leader_epoch: Option<LeaderEpoch>,
        query: OffsetQuery,
    },
    EpochEnd {
        current: Option<LeaderEpoch>,
        asked: LeaderEpoch,
    },
    /// Bytes of its segments.
    Size,
    /// Below the high watermark where `before` is None.
    DeleteRecords {
        before: Option<Offset>,
    },
}

impl PartitionCommand {
    /// It has arrived where it's carried out.
    pub fn set_since(&mut self, now: MonotonicNs) {
        if let Self::Append { append, .. } = self {
            append.since = now;
        }
    }

    /// What is answered while the partition's log directory is offline; `None` where nobody waits.
    pub fn refused_offline(&self) -> Option<PartitionOutcome> {
        Some(match self {
            Self::Append { .. } => PartitionOutcome::Appended(Err(AppendRefusal::StorageError)),
            Self::Plan(_) => PartitionOutcome::Planned(Err(ReadRefusal::Offline)),
            Self::Unwatch => return None,
            Self::ListOffset { .. } => PartitionOutcome::ListedOffset(Err(ReadRefusal::Offline)),
            Self::EpochEnd { .. } => PartitionOutcome::EpochEnd(Err(ReadRefusal::Offline)),
            Self::Size => PartitionOutcome::Size(None),
            Self::DeleteRecords { .. } => PartitionOutcome::DeletedRecords(Err(ReadRefusal::Offline)),
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct AppendOptions {
    /// acks=all: the in-sync replicas must be enough.
    pub all_replicas: bool,
    /// acks=0: the outcome is known once the batch has its offset.
    pub silent: bool,
    /// When the partition's shard was asked.
    pub since: MonotonicNs,
}

/// A plan, by the shard that holds it and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanId {
    pub shard: ShardId,
    pub held: Key,
}

#[derive(Clone, Copy, Debug)]
pub struct PlanCommand {
    pub leader_epoch: Option<LeaderEpoch>,
    pub offset: Offset,
    pub bytes_max: usize,
    /// Register a waiter when less than this is readable.
    pub watch_below_bytes: Option<usize>,
}

#[derive(Debug)]
pub enum PartitionOutcome {
    Appended(Result<AppendOutcome, AppendRefusal>),
    Planned(Result<Planned, ReadRefusal>),
    ListedOffset(Result<Option<ListedOffset>, ReadRefusal>),
    EpochEnd(Result<Option<(LeaderEpoch, Offset)>, ReadRefusal>),
    Size(Option<u64>),
    /// The log start, durable.
    DeletedRecords(Result<Offset, ReadRefusal>),
}

#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// `None` when nothing is readable.
    pub plan: Option<PlanId>,
    pub bytes: usize,
    pub high_watermark: Offset,
    pub log_start: Offset,
    /// A waiter was registered.
    pub watched: bool,
}
