//! Scan: reads a partition of this shard batch by batch, for the broker itself.
//!
//! Two readers exist: a group coordinator that replays its records, and a lookup of an offset by
//! time. Each step reads one plan, so that a long scan yields to traffic.

use super::storage::{PlanOwner, PlanState};
use super::{Core, Shard, Work};
use crate::base::ids::{Offset, TopicPartition};
use crate::base::slab::Key;
use crate::log::{Plan, PlanStart, Resolved, Sink};
use crate::partition::waiters::ReplyTo;
use crate::protocol::record_batch::BatchHeader;

/// Bytes read per step.
const STEP_BYTES_MAX: u64 = 1 << 20;

/// Who reads, and is told of every batch and of the end.
#[derive(Debug)]
pub enum Reader {
    /// The coordinator of this partition of `__consumer_offsets`.
    Groups,
    /// The first record at or after a time.
    Time { timestamp: i64, reply_to: ReplyTo },
}

/// Whether a reader wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    More,
    Enough,
}

#[derive(Debug)]
pub struct Scan {
    pub target: TopicPartition,
    pub reader: Reader,
    next: Offset,
    /// The first step begins at the first batch with a record of this time instead.
    from_time: Option<i64>,
    upto: Offset,
    /// Bytes of the plan in progress, read so far.
    bytes: Vec<u8>,
}

impl Core {
    /// Begins to read `target` from its log start, or a time's first batch, to its high watermark.
    pub fn begin_scan(&mut self, target: TopicPartition, reader: Reader) {
        let Some(partition) = self.storage.partition(target) else { return };
        let upto = partition.high_watermark();
        let from = self.storage.lanes[partition.lane].log_start(partition.log);
        let from_time = match reader {
            Reader::Time { timestamp, .. } => Some(timestamp),
            Reader::Groups => None,
        };
        let scan = self.scans.insert(Scan { target, reader, next: from, from_time, upto, bytes: Vec::new() });
        self.work.push_back(Work::Scan(scan));
    }

    fn end_scan(&mut self, scan: Key, complete: bool) {
        let Some(scan) = self.scans.remove(scan) else { return };
        match scan.reader {
            Reader::Groups => self.groups_replayed(scan.target, complete),
            Reader::Time { reply_to, .. } => self.time_not_found(reply_to, complete),
        }
    }

    /// Hands the whole batches that were read to the reader; false when it has enough.
    fn feed_scan(&mut self, key: Key) -> bool {
        let scan = self.scans.get_mut(key).expect("scans end by `end_scan` only");
        let bytes = std::mem::take(&mut scan.bytes);
        let (mut at, upto) = (0, scan.upto);
        while let Some(header) = BatchHeader::view(&bytes[at..]) {
            let size_bytes = header.size_bytes().expect("the log holds whole batches");
            let Some(batch) = bytes.get(at..at + size_bytes) else { break };
            if header.base_offset() >= upto {
                self.end_scan(key, true);
                return false;
            }
            let next = header.last_offset().plus(1);
            let scan = self.scans.get_mut(key).expect("as above");
            scan.next = next;
            if self.read_batch(key, batch) == Want::Enough {
                self.scans.remove(key);
                return false;
            }
            at += size_bytes;
        }
        true
    }

    fn read_batch(&mut self, key: Key, batch: &[u8]) -> Want {
        let scan = self.scans.get(key).expect("as above");
        match scan.reader {
            Reader::Groups => self.replay_groups(scan.target, batch),
            Reader::Time { timestamp, reply_to } => self.look_for_time(batch, timestamp, reply_to),
        }
    }

    /// The disk has told where the plan of a scan begins, or failed to.
    pub fn on_scan_planned(&mut self, scan: Key, held: Key, plan: Option<Plan>) {
        match plan {
            Some(plan) => {
                self.hold_scan_plan(held, plan);
                self.work.push_back(Work::ScanPlan(scan, held));
            }
            None => {
                self.storage.plans.remove(held);
                self.end_scan(scan, false);
            }
        }
    }

    fn hold_scan_plan(&mut self, held: Key, plan: Plan) {
        self.storage.plans.get_mut(held).expect("held until released").state = PlanState::Ready(plan);
    }

    pub fn on_scan_window(&mut self, scan: Key, plan: Key, window: Option<&[u8]>) {
        match (window, self.scans.get_mut(scan)) {
            (Some(window), Some(state)) => {
                state.bytes.extend_from_slice(window);
                self.work.push_back(Work::ScanPlan(scan, plan));
            }
            _ => {
                self.storage.release_plan(plan);
                self.end_scan(scan, false);
            }
        }
    }

    /// Reads on in a plan until it ends or the disk is asked.
    pub fn resolve_scan(&mut self, scan: Key, plan: Key) {
        // A plan has its scan: that ends between plans only.
        let state = self.scans.get_mut(scan).expect("scans end by `end_scan` only");
        loop {
            match self.storage.resolve_plan(plan, usize::MAX, Sink::Memory, &mut state.bytes) {
                Some(Resolved::Copied(_)) => {}
                Some(Resolved::Pending) => return,
                Some(Resolved::Finished) => break,
                Some(Resolved::File(_)) => unreachable!("only a socket takes a piece of a file"),
                None => unreachable!("held until released"),
            }
        }
        self.storage.release_plan(plan);
        if self.feed_scan(scan) {
            self.work.push_back(Work::Scan(scan));
        }
    }
}

impl Shard {
    /// One step of a scan.
    pub fn step_scan(&mut self, scan: Key) {
        let core = &mut self.core;
        let Some(state) = core.scans.get_mut(scan) else { return };
        let (target, next, upto, from_time) = (state.target, state.next, state.upto, state.from_time.take());
        let Some(partition) = core.storage.partition(target) else {
            core.end_scan(scan, false);
            return;
        };
        let (lane, log) = (partition.lane, partition.log);
        if next >= upto {
            core.end_scan(scan, true);
            return;
        }
        let owner = PlanOwner::Scan(scan);
        let held = core.storage.hold_plan(lane, log, owner);
        let lane = &mut core.storage.lanes[lane];
        let read = held.to_u56();
        let start = match from_time {
            Some(timestamp) => lane.plan_at_timestamp(log, timestamp, upto, read),
            None => lane.plan(log, next, upto, STEP_BYTES_MAX, true, read),
        };
        match start {
            PlanStart::Ready(plan) => {
                core.hold_scan_plan(held, plan);
                core.resolve_scan(scan, held);
            }
            PlanStart::Pending => {}
            PlanStart::Empty => {
                core.storage.plans.remove(held);
                core.end_scan(scan, true);
            }
            PlanStart::OutOfRange | PlanStart::Offline => {
                core.storage.plans.remove(held);
                core.end_scan(scan, false);
            }
        }
    }
}
