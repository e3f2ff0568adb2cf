//! Lane: one journal and its checkpoint, the partitions in it, and what is going on on their disk.
//!
//! Owns:     all state of a lane. The jobs' steps live in their own files.
//! Promises: one file operation in flight per job, one job per partition; the first failed write or
//!           flush fences the lane for good.
//! Never:    blocks, but in `recover` and `clean_stop`.

use std::collections::VecDeque;
use std::path::PathBuf;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I32, I64, U32, U64};

use super::checkpoint::Checkpoint;
use super::clean::Clean;
use super::cycle::Cycle;
use super::files::Files;
use super::format::{CreatePayload, EntryHeader, EntryKind, RollPayload, rolled_id};
use super::jobs::Jobs;
use super::journal::Journal;
use super::materialise::Staging;
use super::mutation::{self, Mutation};
use super::options::{AppendError, Awaited, LaneEvent, LaneOptions, LogId, PartitionSettings, Sequence};
use super::partition_log::PartitionLog;
use super::partitions::{Partitions, WithNewest};
use super::place::Place;
use super::producers::ProducerTable;
use super::read::Reads;
use super::scrub::Scrub;
use super::segment::{self, Segment};
use super::shrink::Shrinks;
use super::stats::LaneStats;
use super::tail::TailPool;
use crate::base::ids::{LaneId, LeaderEpoch, MonotonicNs, Offset, TopicPartition, WallMs};
use crate::protocol::record_batch::BatchHeader;

pub struct Lane {
    pub(super) options: LaneOptions,
    /// `lanes/<n>`.
    pub(super) lane_dir: PathBuf,
    pub(super) journal: Journal,
    pub(super) partitions: Partitions,
    pub(super) pool: TailPool,
    pub(super) files: Files,
    /// Of segments that are read through the page cache.
    pub(super) cached_files: Files,
    pub(super) jobs: Jobs,
    pub(super) staging: Staging,
    pub(super) checkpoint: Checkpoint,
    pub(super) cycle: Cycle,
    pub(super) reads: Reads,
    pub(super) scrub: Scrub,
    pub(super) shrinks: Shrinks,
    /// When it was opened.
    pub(super) opened: MonotonicNs,
    /// The one cleaning in progress.
    pub(super) clean: Option<Clean>,
    pub(super) segment_next: u64,
    pub(super) log_next: u32,
    pub(super) damaged_count: u64,
    /// Partitions that will need an image entry before their next write.
    pub(super) debts_count: u64,
    pub(super) fenced: Option<String>,
    pub(super) events: Vec<LaneEvent>,
    pub(super) now: MonotonicNs,
    /// Bytes of the largest append refused as busy since there was last room for it.
    pub(super) room_wanted: Option<u64>,
    pub(super) stats: LaneStats,
}

impl Lane {
    // ---- Partitions --------------------------------------------------------------------------

    /// The partitions that aren't being dropped.
    pub fn partitions(&self) -> impl Iterator<Item = (LogId, TopicPartition)> {
        let lives = |partition: &&PartitionLog| partition.dropping.is_none();
        self.partitions.iter().filter(lives).map(|partition| (partition.number, partition.id))
    }

    pub fn find(&self, id: TopicPartition) -> Option<LogId> {
        self.partitions.find(id)
    }

    /// Metadata epoch of the create entry: the catalog decides about a partition unknown to it only
    /// once it has passed this epoch.
    pub fn metadata_epoch(&self, log: LogId) -> u64 {
        self.partition(log).metadata_epoch
    }

    /// Creates a partition; nothing on disk but the entry until its first bytes are materialised.
    ///
    /// Errors: `Busy` while the journal is full, or while a partition of this id is being dropped.
    /// After:  it may be appended to at once; it is durable once `durable()` has reached the sequence.
    pub fn create_partition(
        &mut self,
        id: TopicPartition,
        metadata_epoch: u64,
        settings: PartitionSettings,
        wall: WallMs,
    ) -> Result<(LogId, Sequence), AppendError> {
        if self.fenced.is_some() {
            return Err(AppendError::Fenced);
        }
        if self.partitions.find(id).is_some() || !self.has_journal_room(0) {
            return Err(self.busy(0));
        }
        let number = LogId(self.log_next);
        self.log_next += 1;
        let segment = self.take_segment_id();
        let payload = CreatePayload {
            topic_id: id.topic_id.0,
            partition: I32::new(id.partition.0),
            reserved: U32::ZERO,
            segment_bytes_max: U64::new(settings.segment_bytes_max),
            segment_ms_max: U64::new(settings.segment_ms_max),
            wall_ms: I64::new(wall.0),
        };
        let header = EntryHeader::new(EntryKind::Create, number.0, segment, metadata_epoch);
        let item = self.journal.push_entry(header, payload.as_bytes());
        let segments = VecDeque::from([Segment::new(segment, Offset(0), wall.0, settings.segment_bytes_max)]);
        let dir = segment::partition_dir(&self.lane_dir, id);
        let mut partition = PartitionLog::new(id, number, metadata_epoch, settings, dir, segments);
        partition.dir_made = false;
        self.partitions.insert(partition);
        Ok((number, Sequence(item + 1)))
    }

    /// Drops a partition: once the entry is durable its files are removed, their directory is
    /// flushed, and `LaneEvent::Dropped` comes. It takes no appends or plans from now on.
    pub fn drop_partition(&mut self, log: LogId, metadata_epoch: u64) -> Sequence {
        let partition = self.partitions.get_mut(log).expect("the caller drops what it was given");
        if let Some(item) = partition.dropping {
            return Sequence(item + 1);
        }
        let header = EntryHeader::new(EntryKind::Drop, log.0, 0, metadata_epoch);
        let item = self.journal.push_entry(header, &[]);
        partition.dropping = Some(item);
        self.cycle.drops.push_back((log, item));
        Sequence(item + 1)
    }

    /// New settings hold from the next append on. The caller says them again after a restart.
    pub fn set_settings(&mut self, log: LogId, settings: PartitionSettings) {
        if let Some(partition) = self.partitions.get_mut(log) {
            partition.settings = settings;
        }
    }

    pub(super) fn partition(&self, log: LogId) -> &PartitionLog {
        self.partitions.get(log).expect("the caller names a partition that it was given")
    }

    pub(super) fn take_segment_id(&mut self) -> u64 {
        let id = rolled_id(self.segment_next);
        self.segment_next = id + 1;
        id
    }

    // ---- Append ------------------------------------------------------------------------------

    /// Appends `batch`, with base offset and leader epoch patched in the copy.
    ///
    /// Precondition: a whole batch of magic 2 whose CRC was checked; `base_offset >= log_end`.
    /// Errors:  `Busy` when journal or tail pool are full (nothing written); `TooLarge` above a quarter
    ///          of the pool; `Offline` while it is dropped; `Fenced` after a failed write or flush.
    /// After:   readable up to `log_end`; durable only once `durable_end` has passed it. Where nobody
    ///          waits for that (`Awaited::No`), it may wait `COMPANY_MS` for a larger commit group.
    pub fn append(
        &mut self,
        log: LogId,
        batch: &[u8],
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
        wall: WallMs,
        awaited: Awaited,
    ) -> Result<Sequence, AppendError> {
        let mut header = *BatchHeader::view(batch).expect("the caller checked the batch");
        assert_eq!(header.size_bytes(), Some(batch.len()), "the caller passes exactly one batch");
        header.base_offset = base_offset.0.into();
        header.partition_leader_epoch = leader_epoch.0.into();
        self.check_append(log, batch.len())?;
        let delta = header.last_offset_delta.get();
        self.roll_if_due(log, batch.len() as u64, base_offset.plus(i64::from(delta)), wall);
        let partition = self.partitions.get_mut(log).expect("checked above");
        let place = partition.end();
        let clean = !partition.is_dirty();
        partition.note(&header, batch.len() as u64, wall.0, wall.0);
        let (head, rest) = (&header.as_bytes()[..PATCHED_BYTES], &batch[PATCHED_BYTES..]);
        partition.tail.append(&mut self.pool, log, place, base_offset, head, rest);
        if clean && !partition.in_debt && !place.position.is_multiple_of(4096) {
            partition.in_debt = true;
            self.debts_count += 1;
        }
        let item = self.journal.push_append(log, place, batch.len() as u64, partition.log_end);
        match awaited {
            Awaited::Yes => self.journal.make_urgent(),
            Awaited::No => self.cycle.waits.note(item, self.now),
        }
        self.journal.collect(&WithNewest { partitions: &self.partitions, log, place, head, rest });
        self.stats.appended_bytes += batch.len() as u64;
        self.stats.appends_count += 1;
        Ok(Sequence(item + 1))
    }

    /// Largest batch that this lane ever takes.
    pub fn batch_bytes_max(&self) -> usize {
        self.options.batch_bytes_max()
    }

    fn check_append(&mut self, log: LogId, bytes: usize) -> Result<(), AppendError> {
        if self.fenced.is_some() {
            return Err(AppendError::Fenced);
        }
        if bytes > self.batch_bytes_max() {
            return Err(AppendError::TooLarge);
        }
        let Some(partition) = self.partitions.get(log).filter(|partition| partition.is_online()) else {
            return Err(AppendError::Offline);
        };
        let wanted = partition.tail.room_wanted(partition.end(), bytes);
        if !self.has_journal_room(bytes as u64) || (wanted > 0 && !self.make_room(wanted)) {
            return Err(self.busy(bytes as u64));
        }
        Ok(())
    }

    fn busy(&mut self, bytes: u64) -> AppendError {
        self.room_wanted = self.room_wanted.max(Some(bytes));
        self.stats.busy_count += 1;
        AppendError::Busy
    }

    /// Room for `bytes` of appends.
    pub(super) fn has_journal_room(&self, bytes: u64) -> bool {
        self.journal.room_bytes(self.debts_count) >= EntryHeader::size_bytes(bytes as usize) as u64
    }

    /// Evicts the oldest blocks whose bytes are in their segments until `bytes` fit.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        while !self.pool.has_room(bytes) {
            let Some((log, number)) = self.pool.oldest() else { return false };
            let block = self.partitions.get(log).and_then(|partition| partition.tail.oldest());
            match block.filter(|(oldest, _)| *oldest == number) {
                None => self.pool.forget_oldest(),
                Some((_, end)) => {
                    let partition = self.partitions.get_mut(log).expect("its block was just seen");
                    if partition.ends.written < end && !mutation::is(Mutation::EvictUnwritten) {
                        return false;
                    }
                    partition.tail.pop_oldest(&mut self.pool);
                    self.pool.forget_oldest();
                }
            }
        }
        true
    }

    fn roll_if_due(&mut self, log: LogId, bytes: u64, last_offset: Offset, wall: WallMs) {
        let partition = self.partition(log);
        let active = partition.active();
        if active.bytes == 0 {
            return;
        }
        let age_ms = wall.0.saturating_sub(active.wall_ms).max(0) as u64;
        // Kafka's tools keep offsets of a segment relative to its base in 31 bits.
        let spans = last_offset.0 - active.base_offset.0 > i64::from(i32::MAX);
        let settings = partition.settings;
        if active.bytes + bytes > settings.segment_bytes_max || age_ms > settings.segment_ms_max || spans {
            self.roll(log, wall);
        }
    }

    /// Ends the active segment and begins a new one, unless it is empty or the journal is full.
    /// Sealing follows in the background.
    pub fn roll_active(&mut self, log: LogId, wall: WallMs) {
        if self.has_journal_room(0) {
            self.roll(log, wall);
        }
    }

    fn roll(&mut self, log: LogId, wall: WallMs) {
        let partition = self.partition(log);
        if partition.active().bytes == 0 || !partition.is_online() || self.fenced.is_some() {
            return;
        }
        let id = self.take_segment_id();
        let partition = self.partitions.get_mut(log).expect("seen above");
        let base_offset = partition.log_end;
        let payload = RollPayload { base_offset: I64::new(base_offset.0), wall_ms: I64::new(wall.0) };
        let header = EntryHeader::new(EntryKind::Roll, log.0, id, partition.active().bytes);
        let item = self.journal.push_entry(header, payload.as_bytes());
        let active = partition.active_mut();
        active.rolled = true;
        let ended = active.id;
        let bytes_max = partition.settings.segment_bytes_max;
        partition.segments.push_back(Segment::new(id, base_offset, wall.0, bytes_max));
        self.cycle.seals.push_back((log, ended, item));
        self.stats.rolls_count += 1;
    }

    // ---- Ends --------------------------------------------------------------------------------

    pub fn log_start(&self, log: LogId) -> Offset {
        self.partition(log).log_start
    }

    /// One past the last record appended.
    pub fn log_end(&self, log: LogId) -> Offset {
        self.partition(log).log_end
    }

    /// One past the last record that survives a power cut.
    pub fn durable_end(&self, log: LogId) -> Offset {
        self.partition(log).durable_end
    }

    /// Every operation whose sequence isn't larger is durable.
    pub fn durable(&self) -> Sequence {
        Sequence(self.journal.item_durable)
    }

    /// Kafka's OffsetForLeaderEpoch: the largest epoch not above `epoch`, and one past its last
    /// record. None when it is unknown (newer than any, or the log is empty).
    pub fn epoch_end(&self, log: LogId, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.partition(log).epoch_end(epoch)
    }

    /// The leader epoch of the newest batch.
    pub fn latest_epoch(&self, log: LogId) -> Option<LeaderEpoch> {
        self.partition(log).epochs.last().map(|(epoch, _)| *epoch)
    }

    /// The producers as appended: who answers from it waits until `durable_end` has passed.
    pub fn producers(&self, log: LogId) -> &ProducerTable {
        &self.partition(log).producers
    }

    /// Forgets producers without an open transaction whose newest batch is older than `timestamp`.
    pub fn expire_producers(&mut self, log: LogId, timestamp: i64) {
        if let Some(partition) = self.partitions.get_mut(log) {
            partition.producers.expire(timestamp);
        }
    }

    /// Moves the log start up to `offset` (at most to the log end) and deletes the segments below it
    /// once the entry is durable and no plan reads from them. DeleteRecords and retention.
    ///
    /// Errors: `Busy` while the journal is full; `Offline` while it is damaged; `Fenced`.
    pub fn advance_log_start(&mut self, log: LogId, offset: Offset) -> Result<Sequence, AppendError> {
        if self.fenced.is_some() {
            return Err(AppendError::Fenced);
        }
        if !self.partition(log).is_online() {
            return Err(AppendError::Offline);
        }
        if !self.has_journal_room(0) {
            return Err(self.busy(0));
        }
        let partition = self.partitions.get_mut(log).expect("the caller names what it was given");
        let before = partition.log_start;
        partition.advance_log_start(offset, self.journal.item_next);
        if partition.log_start == before {
            return Ok(Sequence(self.journal.item_next));
        }
        let header = EntryHeader::new(EntryKind::LogStart, log.0, 0, partition.log_start.0 as u64);
        let item = self.journal.push_entry(header, &[]);
        self.cycle.unlinks.push_back((log, item));
        Ok(Sequence(item + 1))
    }

    /// The segments, oldest first, without those being deleted.
    pub fn segments(&self, log: LogId) -> impl Iterator<Item = SegmentInfo> + Clone {
        let keeps = |segment: &&Segment| !segment.dropping;
        self.partition(log).segments.iter().filter(keeps).map(|segment| SegmentInfo {
            base_offset: segment.base_offset,
            end_offset: segment.end_offset,
            bytes: segment.bytes,
            max_timestamp: segment.max_timestamp.map(|(timestamp, _)| timestamp),
            begun: WallMs(segment.wall_ms),
            active: !segment.rolled,
            id: segment.id,
            sealed: segment.sealed,
        })
    }

    /// Bytes in memory that no space on disk is allocated for yet.
    pub fn unplaced_bytes(&self) -> u64 {
        self.partitions.iter().map(PartitionLog::unplaced_bytes).sum()
    }

    /// Bytes of disk space allocated since the lane was opened.
    pub fn allocated_bytes(&self) -> u64 {
        self.stats.allocated_bytes
    }

    pub fn id(&self) -> LaneId {
        self.options.lane
    }

    /// The owner byte of its operations' tokens.
    pub fn owner(&self) -> u8 {
        self.options.owner
    }

    /// Another lane of its log directory is fenced: this one takes nothing any more either.
    pub fn fence_with_directory(&mut self, what: &str) {
        if self.fenced.is_none() {
            self.fenced = Some(what.to_owned());
        }
    }

    /// Why the lane takes nothing any more.
    pub fn fenced(&self) -> Option<&str> {
        self.fenced.as_deref()
    }

    /// When the newest commit group was begun. Until `turn` is called next, it's the one that was made durable
    /// last.
    pub fn group_begun(&self) -> MonotonicNs {
        self.cycle.last_group
    }

    /// A commit group was begun within the last `ms`: somebody is being served.
    pub fn is_committing(&self, ms: u64) -> bool {
        self.now.ms_since(self.cycle.last_group) < ms
    }

    pub fn stats(&self) -> LaneStats {
        LaneStats {
            tail_bytes: self.pool.used_bytes() as u64,
            journal_used_bytes: self.journal.used_bytes(),
            journal_capacity_bytes: self.journal.capacity_bytes(),
            files_open_count: (self.files.len() + self.cached_files.len()) as u64,
            partitions_count: self.partitions.len() as u64,
            partitions_damaged_count: self.damaged_count,
            ..self.stats.clone()
        }
    }

    // ---- For the jobs ------------------------------------------------------------------------

    pub(super) fn fence(&mut self, what: String) {
        if self.fenced.is_none() {
            self.events.push(LaneEvent::Fenced { what: what.clone() });
            self.fenced = Some(what);
        }
    }

    /// Says how far the segment's file is flushed, and lets go of the journal files before it.
    pub(super) fn note_flushed(&mut self, log: LogId) {
        let Some(partition) = self.partitions.get_mut(log) else { return };
        let before = partition.ends.batch_flushed.0;
        partition.ends.flushed = partition.ends.written;
        partition.ends.batch_flushed = partition.ends.batch_written;
        let (end, _) = partition.ends.batch_flushed;
        if end == before {
            return;
        }
        let header = EntryHeader::new(EntryKind::Materialised, log.0, end.segment, end.position);
        // Nobody waits for it: without it a recovery only loads more than it must.
        self.journal.push_lazily(header, &[]);
        self.release_marks(log, end);
    }

    pub(super) fn release_marks(&mut self, log: LogId, end: Place) {
        let Some(partition) = self.partitions.get_mut(log) else { return };
        while let Some(mark) = partition.marks.front().filter(|mark| mark.end <= end) {
            if let Some(file) = self.journal.file_mut(mark.incarnation) {
                file.dirty_count -= 1;
            }
            partition.marks.pop_front();
        }
    }

    pub(super) fn clear_debt(&mut self, log: LogId) {
        if let Some(partition) = self.partitions.get_mut(log)
            && std::mem::take(&mut partition.in_debt)
        {
            self.debts_count -= 1;
        }
    }
}

/// Base offset, length and leader epoch: what the copy of a batch differs in.
const PATCHED_BYTES: usize = 16;

/// What retention and compaction decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base_offset: Offset,
    pub end_offset: Offset,
    pub bytes: u64,
    pub max_timestamp: Option<i64>,
    pub begun: WallMs,
    /// Appended to; `Lane::roll_active` first to delete it.
    pub active: bool,
    pub id: u64,
    /// Wholly in its file, with its index.
    pub sealed: bool,
}
