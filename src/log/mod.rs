//! Log: the storage of one log directory, in lanes.
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

mod options;
mod plan;

pub use options::{
    AppendError, LaneError, LaneEvent, LaneOptions, LogId, PartitionSettings, ReadError, RecoveryReport,
    Sequence,
};
pub use plan::{Plan, PlanRange, PlanStart, Resolved};
