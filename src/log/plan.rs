//! Plan: which bytes answer a read, frozen, and how far they were handed out.

use std::collections::VecDeque;
use std::ops::Range;

use super::find::{FoundBatch, Target, Walk};
use super::lane::Lane;
use super::options::LogId;
use super::place::Place;
use super::read::Purpose;
use crate::base::ids::{Offset, Position};
use crate::ring::{FilePiece, IoBuffer};

/// Segments that one plan spans.
const RANGES_MAX: usize = 8;

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
    /// Where the next bytes begin, as far as that is known.
    pub(super) next: Option<Offset>,
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

    /// Marks a window as handed out.
    pub fn advance_window(&mut self, window: &Window) {
        self.advance(window.range.len() as u64);
        self.next = window.next;
    }

    /// Marks the next `bytes` as handed out. Precondition: no more than are left.
    pub fn advance(&mut self, bytes: u64) {
        let mut left = bytes;
        self.batch_bytes = None;
        self.next = None;
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

/// Bytes of a plan that were read from disk and verified: whole batches, but at the plan's very end, and
/// but where a piece of the page cache went before or may follow.
#[derive(Debug)]
pub struct Window {
    pub buffer: IoBuffer,
    /// Of the buffer.
    pub range: Range<usize>,
    /// The offset behind their last batch, where they end with one.
    pub(super) next: Option<Offset>,
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

/// What a plan's bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// To be looked at: read past the page cache, verified each time, whole batches.
    Memory,
    /// To be sent: from the page cache where they are there and were verified before.
    Socket,
}

/// The answer to `Lane::resolve`.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// So many bytes were appended to `out`; the plan has advanced by them.
    Copied(usize),
    /// The next bytes, in the page cache a moment ago; the plan has advanced by them. They stay there to
    /// be sent even when the plan is released.
    File(FilePiece),
    /// They are read from disk: `LaneEvent::Window` follows. At most one per plan at a time.
    Pending,
    /// The whole plan was handed out.
    Finished,
}

/// What a plan was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) log: LogId,
    pub(super) from: Target,
    pub(super) upto: Offset,
    pub(super) bytes_max: u64,
    pub(super) progress: bool,
}

impl Lane {
    /// Plans the bytes from the batch that contains `from` up to `upto` (exclusive, a batch boundary,
    /// at most `log_end`), at most `bytes_max`; with `progress`, the first batch whole however large.
    /// `read` names the answer where it is `Pending`: the disk is asked in the next `turn`.
    pub fn plan(
        &mut self,
        log: LogId,
        from: Offset,
        upto: Offset,
        bytes_max: u64,
        progress: bool,
        read: u64,
    ) -> PlanStart {
        let Some(partition) = self.partitions.get(log).filter(|partition| partition.is_online()) else {
            return PlanStart::Offline;
        };
        if from < partition.log_start || from > partition.log_end {
            return PlanStart::OutOfRange;
        }
        let upto = upto.min(partition.log_end);
        if from >= upto || (bytes_max == 0 && !progress) {
            return PlanStart::Empty;
        }
        let request = Request { log, from: Target::Offset(from), upto, bytes_max, progress };
        self.plan_from(request, None, read)
    }

    /// Plans the first batch that has a record of `timestamp` or later, as `plan` does; which record
    /// it is only the batch's records tell. `Empty` where there is none below `upto`.
    pub fn plan_at_timestamp(&mut self, log: LogId, timestamp: i64, upto: Offset, read: u64) -> PlanStart {
        let Some(partition) = self.partitions.get(log).filter(|partition| partition.is_online()) else {
            return PlanStart::Offline;
        };
        let upto = upto.min(partition.log_end);
        let from = Target::Timestamp(timestamp);
        self.plan_from(Request { log, from, upto, bytes_max: 0, progress: true }, None, read)
    }

    pub(super) fn plan_from(&mut self, request: Request, start: Option<FoundBatch>, read: u64) -> PlanStart {
        let start = match start {
            Some(start) => start,
            None => match self.find_batch(request.log, request.from) {
                Walk::Found(batch) => batch,
                Walk::End => return PlanStart::Empty,
                waits => return self.plan_later(request, None, request.from, waits, read),
            },
        };
        if start.base_offset >= request.upto {
            return PlanStart::Empty;
        }
        let partition = self.partition(request.log);
        let end = if request.upto == partition.log_end {
            partition.end()
        } else if request.upto == partition.durable_end {
            partition.ends.durable
        } else {
            match self.find_batch(request.log, Target::Offset(request.upto)) {
                Walk::Found(batch) => batch.place,
                Walk::End => self.partition(request.log).end(),
                waits => {
                    let target = Target::Offset(request.upto);
                    return self.plan_later(request, Some(start), target, waits, read);
                }
            }
        };
        let bytes_max = if request.progress { request.bytes_max.max(start.bytes) } else { request.bytes_max };
        self.plan_ready(request.log, start, end, bytes_max)
    }

    fn plan_ready(&mut self, log: LogId, first: FoundBatch, to: Place, bytes_max: u64) -> PlanStart {
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let mut plan = Plan {
            log,
            base_offset: first.base_offset,
            batch_bytes: Some(first.bytes),
            next: Some(first.base_offset),
            ranges: VecDeque::new(),
            leases: Vec::new(),
        };
        let from = first.place;
        let mut left = bytes_max;
        let mut at = from;
        for segment in partition.segments.iter_mut().skip_while(|segment| segment.id < from.segment) {
            let end = if segment.id == to.segment { to.position } else { segment.bytes };
            let start = if segment.id == from.segment { at.position } else { 0 };
            let bytes = end.saturating_sub(start).min(left);
            if bytes > 0 {
                plan.ranges.push_back(PlanRange { segment: segment.id, position: Position(start), bytes });
                plan.leases.push(segment.id);
                segment.leases += 1;
                left -= bytes;
            }
            if segment.id >= to.segment || left == 0 || plan.ranges.len() == RANGES_MAX {
                break;
            }
            at = Place::new(segment.id, end);
        }
        if plan.ranges.is_empty() { PlanStart::Empty } else { PlanStart::Ready(plan) }
    }

    fn plan_later(
        &mut self,
        request: Request,
        start: Option<FoundBatch>,
        target: Target,
        waits: Walk,
        read: u64,
    ) -> PlanStart {
        let (segment, purpose) = match waits {
            Walk::Disk(at) => (at.segment, Purpose::Plan { request, start, target, at, after: None }),
            Walk::Index(segment) => (segment, Purpose::Index { request, start }),
            Walk::Found(_) | Walk::End => panic!("nothing is to be waited for"),
        };
        self.read_later(read, request.log, segment, purpose);
        PlanStart::Pending
    }

    /// Gives the plan's segments back; they may be deleted now.
    pub fn release(&mut self, plan: Plan) {
        for segment in plan.leases {
            self.release_lease(plan.log, segment);
        }
    }

    pub(super) fn release_lease(&mut self, log: LogId, segment: u64) {
        let found = self.partitions.get_mut(log).and_then(|partition| partition.leased_mut(segment));
        found.expect("a leased segment stays").leases -= 1;
    }
}
