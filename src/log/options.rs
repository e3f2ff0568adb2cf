//! Options: what a lane is given and what it reports; its limits and its errors.

use std::fmt;
use std::path::PathBuf;

use super::damage::DamagedPartition;
use super::format::{BLOCK_BYTES, EntryHeader};
use super::journal::Journal;
use super::plan::{Plan, Window};
use crate::base::ids::{LaneId, Offset};
use crate::ring::IoError;

/// Slot of a partition in its lane. Never reused within the life of the lane, restarts included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u32);

/// Position in the lane's stream of storage operations: durable when `lane.durable() >= it`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// A deliberate mistake, for tests that prove that their instrument sees it. Nothing but a test asks for
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Control {
    #[default]
    None,
    /// Calls a commit group durable when its write is submitted.
    AcknowledgeBeforeFlush,
    /// Rewrites a partial block without its image in the journal.
    RewriteWithoutImage,
    /// Recycles a journal file before the segments that hold its bytes are flushed.
    RecycleBeforeFlush,
    /// Replaces segments by one that isn't flushed.
    ReplaceBeforeFlush,
}

#[derive(Clone, Debug)]
pub struct LaneOptions {
    /// The log directory; the lane lives below `lanes/<lane>/`.
    pub dir: PathBuf,
    pub lane: LaneId,
    /// Owner of the ring tokens of all the lane's operations.
    pub owner: u8,
    /// Bytes of all journal files. At least twice the tail pool.
    pub journal_bytes: u64,
    /// At least 4.
    pub journal_files_count: u32,
    /// Largest commit group with its header. At most 4 MiB and one journal file.
    pub group_bytes_max: u32,
    /// Tail blocks in memory, of all partitions together. A batch is at most a quarter of it.
    pub tail_pool_bytes: u64,
    /// Segment files held open.
    pub files_open_max: u32,
    /// Reads of segments in flight; further ones wait.
    pub reads_max: u32,
    /// Sealed segments are looked at again at this rate; 0: never.
    pub scrub_bytes_per_second: u64,
    /// All of them, once in this time.
    pub scrub_interval_ms: u64,
    /// Larger files are given back in pieces of so many bytes once they are removed; whole blocks.
    pub freed_bytes_max: u64,
    /// What was verified once is verified again each time, and nothing is sent from the page cache.
    pub verify_always: bool,
    /// None but in a test of tests.
    pub control: Control,
}

impl LaneOptions {
    /// The defaults of a laptop: 128 MiB of journal, 32 MiB of tail.
    pub fn new(dir: PathBuf, lane: LaneId, owner: u8) -> Self {
        Self {
            dir,
            lane,
            owner,
            journal_bytes: 128 << 20,
            journal_files_count: 4,
            group_bytes_max: 1 << 20,
            tail_pool_bytes: 32 << 20,
            files_open_max: 256,
            reads_max: 16,
            scrub_bytes_per_second: 0,
            scrub_interval_ms: 7 * 86_400_000,
            freed_bytes_max: 1 << 20,
            verify_always: false,
            control: Control::None,
        }
    }

    /// Largest batch that a lane of this size ever takes.
    pub(super) fn batch_bytes_max(&self) -> usize {
        (self.tail_pool_bytes / 4).min(self.journal_bytes / 4) as usize
    }

    /// Refuses options that contradict each other.
    pub(super) fn check(&self) -> Result<(), LaneError> {
        let refuse = |what: &str| Err(LaneError::Options { what: what.to_owned() });
        let file_bytes = self.journal_bytes / u64::from(self.journal_files_count.max(1));
        if self.journal_files_count < 4 {
            return refuse("a journal has at least 4 files");
        }
        if self.journal_bytes < 2 * self.tail_pool_bytes {
            return refuse("the journal is at least twice the tail pool");
        }
        if !self.group_bytes_max.is_multiple_of(4096) || !(16 << 10..=4 << 20).contains(&self.group_bytes_max)
        {
            return refuse("a commit group has 16 KiB to 4 MiB, whole blocks");
        }
        if u64::from(self.group_bytes_max) > file_bytes {
            return refuse("a commit group fits a journal file");
        }
        if self.freed_bytes_max == 0 || !self.freed_bytes_max.is_multiple_of(BLOCK_BYTES as u64) {
            return refuse("files are given back in whole blocks");
        }
        if self.tail_pool_bytes < 64 << 10 {
            return refuse("the tail pool has at least 64 KiB");
        }
        if Journal::room_bytes_recycled(self) < EntryHeader::size_bytes(self.batch_bytes_max()) as u64 {
            return refuse(
                "a batch has room in a journal that was recycled: it is larger, or its groups are smaller",
            );
        }
        if self.files_open_max < 8 || self.reads_max == 0 {
            return refuse("a lane holds at least 8 files open and reads at least one");
        }
        Ok(())
    }
}

/// Whether somebody waits for an append to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    Yes,
    /// `ack.durability=relaxed`: it was acknowledged from memory.
    No,
}

/// Settings of a partition that shape its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSettings {
    /// Kafka's `segment.bytes`: a batch that would pass it begins a new segment.
    pub segment_bytes_max: u64,
    /// Kafka's `segment.ms`: an append that long after the segment's first one begins a new one.
    pub segment_ms_max: u64,
}

/// Why an append was refused; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// The journal or the tail pool is full for now: again after `LaneEvent::Room` or next turn.
    Busy,
    /// The batch is larger than a lane of this size takes.
    TooLarge,
    /// The partition is being dropped or was found damaged.
    Offline,
    /// A write or flush failed: the log directory takes nothing until a restart.
    Fenced,
}

/// Why bytes weren't read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Bytes on disk aren't what was written; the message names file and position.
    Damaged(String),
    Io(IoError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "damaged: {what}"),
            Self::Io(error) => write!(f, "read failed: {error}"),
        }
    }
}

/// Why a lane isn't served. For the operator: what happened, to what, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneError {
    /// The environment refused an operation.
    Io { what: String, error: IoError },
    /// Written by a newer version of this program.
    NewerVersion { what: String, version: u16 },
    /// Durable bytes are missing or changed. Nothing was cut.
    Damaged { what: String },
    /// The options contradict each other or the directory.
    Options { what: String },
}

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::NewerVersion { what, version } => write!(
                f,
                "{what} has format version {version}, newer than this program knows; start the version that wrote it"
            ),
            Self::Damaged { what } => write!(
                f,
                "{what}; nothing was cut and the lane stays offline; repair the disk or restore the directory"
            ),
            Self::Options { what } => f.write_str(what),
        }
    }
}

/// What recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The lane was made just now.
    pub created: bool,
    /// The last entry says that the lane was stopped in order.
    pub clean: bool,
    pub partitions_count: usize,
    pub groups_count: u64,
    pub journal_bytes: u64,
    /// Bytes that were in the journal only and are in memory again.
    pub tail_bytes: u64,
    /// A torn last group was cut: its file and position. It was never acknowledged.
    pub torn_group: Option<String>,
    /// Partitions whose last batch was incomplete and cut. It was never acknowledged.
    pub batches_cut_count: usize,
    /// Partitions that are offline because durable records are missing.
    pub damaged: Vec<DamagedPartition>,
}

/// What happened in a lane since the last call.
#[derive(Debug)]
pub enum LaneEvent {
    /// Records below `durable_end` survive a power cut.
    Durable { log: LogId, durable_end: Offset },
    /// A plan that was `Pending` is ready.
    Planned { read: u64, plan: Result<Plan, ReadError> },
    /// A window that was `Pending`: the plan's next bytes. Say `plan.advance_window(&window)`, and give the
    /// buffer back with `Lane::give_back`.
    Window { read: u64, window: Result<Window, ReadError> },
    /// Room came back after an append was refused as `Busy`.
    Room,
    /// The partition's files are gone and their directory is flushed.
    Dropped { log: LogId },
    /// The scrub found what isn't as it was written: file and position.
    Damage { log: LogId, what: String },
    /// A write or flush failed: nothing more is acknowledged until a restart.
    Fenced { what: String },
}
