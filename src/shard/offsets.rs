//! Offsets: what a partition answers about its offsets, and reads whose place the disk knows.

use super::command::PartitionOutcome;
use super::scan::{Reader, Want};
use super::storage::PlanOwner;
use super::stream::StreamWindow;
use super::trace::Times;
use super::{Core, Shard};
use crate::base::ids::{LeaderEpoch, Offset, TopicPartition};
use crate::base::slab::Key;
use crate::log::{Plan, ReadError, Window};
use crate::partition::read::{ListedOffset, OffsetQuery, ReadRefusal};
use crate::partition::waiters::ReplyTo;
use crate::protocol::batch_body;
use crate::protocol::compression::Codecs;
use crate::protocol::record::Records;
use crate::protocol::record_batch::BatchHeader;
use crate::ring::Ring;

/// A batch decompresses to this much at most while a time is looked up.
const LOOKUP_BYTES_MAX: usize = 64 << 20;

fn first_at_or_after(header: &BatchHeader, records: Records<'_>, timestamp: i64) -> Option<(i64, Offset)> {
    for record in records.map_while(Result::ok) {
        let time = if header.is_log_append_time() {
            header.max_timestamp.get()
        } else {
            header.base_timestamp.get().wrapping_add(record.timestamp_delta)
        };
        if time >= timestamp {
            return Some((time, header.base_offset().plus(i64::from(record.offset_delta))));
        }
    }
    None
}

impl Shard {
    /// `None` when the disk is asked: the answer follows as an outcome.
    pub fn list_offset(
        &mut self,
        target: TopicPartition,
        known: Option<LeaderEpoch>,
        query: OffsetQuery,
        reply_to: ReplyTo,
    ) -> Option<Result<Option<ListedOffset>, ReadRefusal>> {
        let storage = &self.core.storage;
        let Some(partition) = storage.partition(target) else {
            return Some(Err(ReadRefusal::UnknownPartition));
        };
        if let Err(refusal) = partition.check_leader_epoch(known) {
            return Some(Err(refusal));
        }
        let lane = &storage.lanes[partition.lane];
        if lane.is_damaged(partition.log) {
            return Some(Err(ReadRefusal::Offline));
        }
        let at =
            |offset: Offset| ListedOffset { timestamp: -1, offset, leader_epoch: partition.leader_epoch };
        let timestamp = match query {
            OffsetQuery::Latest => return Some(Ok(Some(at(partition.high_watermark())))),
            OffsetQuery::Earliest => return Some(Ok(Some(at(lane.log_start(partition.log))))),
            OffsetQuery::MaxTimestamp => match lane.max_timestamp(partition.log) {
                None => return Some(Ok(None)),
                Some((timestamp, _)) => timestamp,
            },
            OffsetQuery::AtOrAfter(timestamp) => timestamp,
        };
        self.core.begin_scan(target, Reader::Time { timestamp, reply_to });
        None
    }
}

impl Core {
    pub fn epoch_end(
        &self,
        target: TopicPartition,
        current: Option<LeaderEpoch>,
        asked: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, ReadRefusal> {
        let partition = self.storage.partition(target).ok_or(ReadRefusal::UnknownPartition)?;
        partition.check_leader_epoch(current)?;
        let lane = &self.storage.lanes[partition.lane];
        if lane.is_damaged(partition.log) {
            return Err(ReadRefusal::Offline);
        }
        Ok(lane.epoch_end(partition.log, asked))
    }

    /// Looks through one batch for the first record at or after `timestamp`.
    pub fn look_for_time(&mut self, batch: &[u8], timestamp: i64, reply_to: ReplyTo) -> Want {
        let header = BatchHeader::view(batch).expect("scans read whole batches");
        if header.max_timestamp.get() < timestamp {
            return Want::More;
        }
        let mut buffer = Vec::new();
        let mut codecs = Codecs::default();
        let found = match batch_body::batch_records(batch, LOOKUP_BYTES_MAX, &mut codecs, &mut buffer) {
            Ok(records) => first_at_or_after(header, records, timestamp),
            // What can't be decompressed is found by its batch: the client will fail on it alone.
            Err(_) => Some((header.max_timestamp.get(), header.base_offset())),
        };
        let Some((timestamp, offset)) = found else { return Want::More };
        let listed = ListedOffset { timestamp, offset, leader_epoch: header.leader_epoch() };
        self.reply(reply_to, PartitionOutcome::ListedOffset(Ok(Some(listed))));
        Want::Enough
    }

    /// No record is that young, or the log couldn't be read to its end.
    pub fn time_not_found(&mut self, reply_to: ReplyTo, complete: bool) {
        let outcome = if complete { Ok(None) } else { Err(ReadRefusal::Offline) };
        self.reply(reply_to, PartitionOutcome::ListedOffset(outcome));
    }

    /// The disk has told where a plan begins.
    pub fn on_plan_found(&mut self, read: u64, plan: Result<Plan, ReadError>) {
        let key = Key::from_u56(read);
        let owner = self.storage.plans.get(key).expect("a plan is held until its events came").owner;
        if let Err(error) = &plan {
            tracing::error!(%error, "a read of the log failed");
        }
        match (owner, plan) {
            // What is on disk is enough to answer with: no waiter is needed.
            (PlanOwner::Fetch(reply_to, since), Ok(plan)) => {
                let outcome = self.planned(key, plan, None);
                let times = Times { arrived: since, ..Times::at(self.now) };
                self.reply_with(reply_to, PartitionOutcome::Planned(outcome), times);
            }
            (PlanOwner::Fetch(reply_to, _), Err(_)) => {
                self.storage.plans.remove(key);
                self.reply(reply_to, PartitionOutcome::Planned(Err(ReadRefusal::Offline)));
            }
            (PlanOwner::Scan(scan), plan) => self.on_scan_planned(scan, key, plan.ok()),
            (PlanOwner::Compaction, _) => unreachable!("it reads whole segments: the disk isn't asked"),
        }
    }

    /// The disk has read a window for a stream of this shard or another.
    pub fn on_window_read(&mut self, ring: &mut Ring, read: u64, window: Result<Window, ReadError>) {
        let key = Key::from_u56(read);
        let is_compaction =
            self.storage.plans.get(key).is_some_and(|held| matches!(held.owner, PlanOwner::Compaction));
        let error = window.as_ref().err().cloned();
        if let Some(error) = error.as_ref().filter(|_| !is_compaction) {
            tracing::error!(%error, "a read of the log failed");
        }
        let is_read = window.is_ok();
        let mut out = self.spare.take();
        let owner = self.storage.window_read(key, window.ok(), &mut out);
        let window = is_read.then_some(out);
        let (reply_to, since) = match owner {
            None => return,
            Some(PlanOwner::Fetch(reply_to, since)) => (reply_to, since),
            Some(PlanOwner::Scan(scan)) => {
                self.on_scan_window(scan, key, window.as_deref());
                return;
            }
            Some(PlanOwner::Compaction) => {
                self.compaction.on_window(error.map_or(Ok(window.unwrap_or_default()), Err));
                return;
            }
        };
        let window = window.map(StreamWindow::Copied);
        let times = Times { arrived: since, ..Times::at(self.now) };
        if reply_to.shard == self.id {
            self.trace_answer(reply_to.request, times, false);
            self.on_window(ring, reply_to.request, window);
        } else {
            let mail = super::mail::Mail::WindowDone { request: reply_to.request, window, times };
            self.mailbox.post(reply_to.shard, mail);
        }
    }
}
