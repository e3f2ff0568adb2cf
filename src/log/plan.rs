//! Plan: which bytes answer a read, frozen, and how far they were handed out.

use std::collections::VecDeque;

use super::options::LogId;
use crate::base::ids::{Offset, Position};

/// A run of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRange {
    pub segment: u64,
    pub position: Position,
    pub bytes: u64,
}

/// Ranges of whole batches, the last of which may be cut. Its segments stay on disk until
/// `Lane::release`: a plan that is dropped instead keeps them for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a plan leases its segments until it is released"]
pub struct Plan {
    pub log: LogId,
    /// Base offset of the first batch, which contains the offset asked for.
    pub base_offset: Offset,
    /// Bytes of the batch that the plan begins with, until bytes were handed out.
    pub(super) batch_bytes: Option<u64>,
    pub(super) ranges: VecDeque<PlanRange>,
    /// Segments leased, in order.
    pub(super) leases: Vec<u64>,
}

impl Plan {
    /// Bytes not handed out yet.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.bytes).sum()
    }

    pub fn ranges(&self) -> impl Iterator<Item = &PlanRange> {
        self.ranges.iter()
    }

    /// Marks the next `bytes` as handed out. Precondition: no more than are left.
    pub fn advance(&mut self, bytes: u64) {
        let mut left = bytes;
        self.batch_bytes = None;
        while left > 0 {
            let range = self.ranges.front_mut().expect("no more is handed out than was planned");
            let step = left.min(range.bytes);
            range.position.0 += step;
            range.bytes -= step;
            left -= step;
            if range.bytes == 0 {
                self.ranges.pop_front();
            }
        }
    }
}

/// The answer to `Lane::plan`.
#[derive(Debug, PartialEq, Eq)]
pub enum PlanStart {
    Ready(Plan),
    /// The disk is asked where the batch begins: `LaneEvent::Planned` follows.
    Pending,
    /// Below the log start or above the end.
    OutOfRange,
    /// At the end: nothing to read now.
    Empty,
    /// The partition was found damaged, is being dropped, or its log directory is fenced.
    Offline,
}

/// The answer to `Lane::resolve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// So many bytes were appended to `out`; the plan has advanced by them.
    Copied(usize),
    /// They are read from disk: `LaneEvent::Window` follows. At most one per plan at a time.
    Pending,
    /// The whole plan was handed out.
    Finished,
}
