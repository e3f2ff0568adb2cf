//! Log: the storage of a log directory, in lanes.
//!
//! Owns:     every byte on disk below a log directory but `meta/`; the tail of every partition in memory.
//! Promises: what an event calls durable is found again after any crash, at its offset, with its bytes;
//!           offsets of a partition are dense; a file-system action happens after its entry is durable.
//! Never:    reads a clock (time comes in), retries a failed write or flush, asks the catalog.
//! Called by the shard that hosts the lane, on its core.
//!
//! A *lane* is one journal and its checkpoint. The bytes of an append take this way:
//!
//! ```text
//! append -> tail blocks (memory) -> commit group -> journal, durable -> answer
//!                 |                                    |
//!                 +--- materialised in the background -+--> segment, flushed -> journal file recycled
//! ```
//!
//! Between the ends of a partition holds, in offsets:
//! `log_start <= materialised <= durable_end <= log_end`.

mod batches;
mod block_memory;
mod checkpoint;
mod clean;
mod cycle;
mod damage;
mod directory;
mod disk;
mod dump;
mod files;
mod find;
mod format;
mod groups;
mod image;
mod jobs;
mod journal;
mod journal_chain;
mod lane;
mod materialise;
mod mutation;
mod options;
mod partition_log;
mod partitions;
mod place;
mod plan;
mod prewrite;
mod producers;
mod read;
mod recovery;
mod reindex;
mod redo;
mod redo_clean;
mod replay;
mod row_check;
mod scrub;
mod seal;
mod segment;
mod shrink;
mod stats;
mod stop;
mod tail;
mod touched;
mod unlink;
mod verdict;
mod verify;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use clean::CleanState;
pub use damage::DamagedPartition;
pub use directory::{list_lanes, prepare_dir};
pub use dump::{dump_dir, dump_file};
pub use lane::{Lane, SegmentInfo};
pub use options::{
    AppendError, Awaited, Control, LaneError, LaneEvent, LaneOptions, LogId, PartitionSettings, ReadError,
    RecoveryReport, Sequence,
};
pub use plan::{Plan, PlanRange, PlanStart, Resolved, Sink, Window};
pub use producers::{Producer, ProducerBatch, ProducerTable};
pub use stats::{FLUSH_BUCKETS_US, LaneStats};
pub use verify::{VerifyReport, verify};
