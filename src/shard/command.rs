//! Command: what a partition is asked and what it answers, between shards and within one.

use crate::base::ids::{LeaderEpoch, Offset};
use crate::partition::append::AppendRefusal;
use crate::partition::waiters::AppendOutcome;

#[derive(Debug)]
pub enum PartitionCommand {
    /// Append a batch whose header and checksum were verified by the sender.
    Append {
        batch: Vec<u8>,
        append: AppendOptions,
    },
    Plan(PlanCommand),
    /// The next window of a plan given out before.
    Window {
        plan: PlanId,
        bytes_max: usize,
    },
    /// The plan is sent or given up; its lease ends.
    Release {
        plan: PlanId,
    },
    /// The fetch is answered; forget its waiter.
    Unwatch,
    ListOffset {
        leader_epoch: Option<LeaderEpoch>,
        timestamp: i64,
    },
    EpochEnd {
        current: Option<LeaderEpoch>,
        asked: LeaderEpoch,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct AppendOptions {
    /// acks=all: the in-sync replicas must be enough.
    pub all_replicas: bool,
    /// Nobody awaits an outcome.
    pub silent: bool,
}

/// A plan on the shard that owns the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanId(pub crate::base::slab::Key);

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
    /// Bytes of a window, or nothing when they can't be read any more.
    Window(Option<Vec<u8>>),
    ListedOffset(Result<ListedOffset, ReadRefusal>),
    EpochEnd(Result<(LeaderEpoch, Offset), ReadRefusal>),
}

#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// `None` when nothing is readable.
    pub plan: Option<PlanId>,
    pub bytes: usize,
    /// Size of the first batch: what progress costs at least.
    pub first_batch_bytes: usize,
    pub high_watermark: Offset,
    pub log_start: Offset,
    /// A waiter was registered.
    pub watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    pub timestamp: i64,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

/// Why a partition can't be read as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRefusal {
    UnknownPartition,
    OutOfRange {
        high_watermark: Offset,
        log_start: Offset,
    },
    FencedLeaderEpoch,
    UnknownLeaderEpoch,
    /// The log directory is fenced or the partition damaged.
    Offline,
}
