//! Clean: writes a segment that takes the place of consecutive sealed ones. For compaction, which
//! decides what stays.
//!
//! Owns:     the one cleaning in progress: its output's file and the bytes that wait to be written.
//! Promises: a crash at any point leaves the old segments or the new one. The sources are leased, so they
//!           stay until the end; the partition isn't busy meanwhile: appends, materialisation, seals and
//!           reads go on.
//! Never:    looks into a batch but at its header.
//!
//! Order: begin entry durable -> output written, truncated to its length, flushed -> index written and
//! flushed -> directory flushed -> replace entry. The segments are exchanged in memory when that entry is
//! queued, as with every entry, since a checkpoint row captured behind it reflects it; what was replaced is
//! removed (`unlink`) once the entry is durable and no plan reads from it.
//!
//! | crash after              | on disk                     | recovery                                     |
//! |--------------------------|-----------------------------|----------------------------------------------|
//! | begin durable            | perhaps a torn output       | it is a leftover: removed                    |
//! | replace queued           | both, flushed               | old segments; the output is a leftover       |
//! | replace durable          | both                        | new segment; the old ones are leftovers      |
//! | some old files removed   | new one, some of the old    | the same: a missing file is removed already  |
//! | an image without them    | new one                     | nothing to do                                |
//!
//! In the second case readers may have seen the output: its records have the offsets and bytes that they
//! had before, and those it lacks were superseded by ones that are durable.

use std::path::PathBuf;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I64, U64};

use super::format::{
    BLOCK_BYTES, EntryHeader, EntryKind, ReplacePayload, blocks_up, cleaned_id, generations_end,
};
use super::jobs::{Done, Job};
use super::lane::Lane;
use super::options::{Control, LogId};
use super::partition_log::PartitionLog;
use super::place::Place;
use super::plan::{Plan, PlanRange};
use super::seal::index_bytes;
use super::segment::Segment;
use crate::base::ids::{Offset, Position};
use crate::base::slab::Key;
use crate::protocol::record_batch::BatchHeader;
use crate::ring::{FileId, IoError, OpenMode, Ring, Token, WriteMode};

/// Written at once.
const WRITE_BYTES: usize = 256 << 10;

/// Where the lane's cleaning stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanState {
    /// There is none.
    None,
    /// Something is being written.
    Busy,
    /// It takes the next batches.
    Takes,
}

pub(super) struct Clean {
    log: LogId,
    /// The first and the last segment to be replaced.
    sources: (u64, u64),
    /// All of them: a leftover may have an id between theirs.
    leased: Vec<u64>,
    /// Grows like a segment that is appended to.
    output: Segment,
    file: Option<FileId>,
    index: Option<FileId>,
    /// Batches, of which those before `from` are written.
    pending: Vec<u8>,
    from: usize,
    /// Bytes in the file.
    written: u64,
    /// All batches were handed over; up to here the log is compacted with them.
    first_dirty: Option<Offset>,
    cancelled: bool,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Until the begin entry is durable.
    AwaitBegin(u64),
    Open,
    RemoveStale,
    /// Nothing is in flight.
    Ready,
    Write {
        bytes: usize,
    },
    Truncate,
    FlushLog,
    OpenIndex,
    RemoveIndex,
    WriteIndex,
    FlushIndex,
    FlushDir,
    /// Until the journal has room.
    AwaitRoom,
}

impl Clean {
    fn left(&self) -> usize {
        self.pending.len() - self.from
    }
}

impl Lane {
    /// Up to here the log was compacted.
    pub fn first_dirty(&self, log: LogId) -> Offset {
        self.partition(log).first_dirty
    }

    /// The file of a segment, for messages.
    pub fn segment_path(&self, log: LogId, segment: u64) -> Option<PathBuf> {
        let partition = self.partitions.get(log)?;
        Some(partition.segment(segment)?.log_path(&partition.dir))
    }

    /// Leads rolled segments to their files, so that they can be sealed. True when all up to `last` are.
    pub fn settle_rolled(&mut self, ring: &mut Ring, log: LogId, last: u64) -> bool {
        let Some(partition) = self.partitions.get(log) else { return false };
        let unsealed = |segment: &&Segment| segment.id <= last && segment.rolled && !segment.sealed;
        // The oldest, so that its seal finds the partition idle before the next one is written.
        let Some(segment) = partition.segments.iter().find(unsealed) else { return true };
        let end = Place::new(segment.id, segment.bytes);
        if self.fenced.is_none() && partition.ends.batch_flushed.0 < end {
            self.materialise_start(ring, log, Some(end), true);
        }
        false
    }

    /// All bytes of one sealed segment.
    pub fn plan_segment(&mut self, log: LogId, segment: u64) -> Option<Plan> {
        let partition = self.partitions.get_mut(log).filter(|partition| partition.is_online())?;
        let found = partition.segment_mut(segment).filter(|found| found.sealed && !found.dropping)?;
        let (base_offset, bytes) = (found.base_offset, found.bytes);
        let mut plan =
            Plan { log, base_offset, batch_bytes: None, next: None, ranges: [].into(), leases: Vec::new() };
        if bytes > 0 {
            found.leases += 1;
            plan.leases.push(segment);
            plan.ranges.push_back(PlanRange { segment, position: Position(0), bytes });
        }
        Some(plan)
    }

    // ---- What the owner says -----------------------------------------------------------------

    /// Begins to replace the segments from `first` to `last` by one. False where that can't be now: they
    /// aren't all sealed, or are being deleted; another cleaning goes on; the journal is full.
    ///
    /// After: batches are given by `clean_write` while the state is `Takes`, `clean_finish` follows the
    ///        last. The end, which may come at any time, is a state of `None`; the segments are gone from
    ///        `segments` if they were replaced.
    pub fn clean_begin(&mut self, log: LogId, first: u64, last: u64) -> bool {
        if self.fenced.is_some() || self.clean.is_some() {
            return false;
        }
        if !self.has_journal_room(0) {
            self.room_wanted = self.room_wanted.max(Some(0));
            return false;
        }
        if !self.leave_written_segment(log, last) {
            return false;
        }
        let Some(partition) = self.partitions.get_mut(log) else { return false };
        let Some(run) = partition.run_of(first, last).filter(|_| may_replace(partition, first, last)) else {
            return false;
        };
        let taken = partition.leftovers.iter().map(|leftover| leftover.id);
        let taken = taken.filter(|id| (last..generations_end(last)).contains(id)).max().unwrap_or(last);
        let Some(id) = cleaned_id(last, taken) else { return false };
        let sources = partition.segments.range_mut(run);
        let (mut bytes, mut ends, mut leased) = (0, None, Vec::new());
        for source in sources {
            source.leases += 1;
            leased.push(source.id);
            bytes += source.bytes;
            let (base_offset, _, _) = ends.unwrap_or((source.base_offset, source.end_offset, 0));
            ends = Some((base_offset, source.end_offset, source.wall_ms));
        }
        let (base_offset, end_offset, wall_ms) = ends.expect("a run has a segment");
        let bytes_max = bytes.max(partition.settings.segment_bytes_max);
        let mut output = Segment::new(id, base_offset, wall_ms, bytes_max);
        partition.leftovers.push(output.clone());
        partition.cleaning = Some(id);
        output.end_offset = end_offset;
        let header = EntryHeader::new(EntryKind::CleanBegin, log.0, id, base_offset.0 as u64);
        let item = self.journal.push_entry(header, &[]);
        self.clean = Some(Clean {
            log,
            sources: (first, last),
            leased,
            output,
            file: None,
            index: None,
            pending: Vec::new(),
            from: 0,
            written: 0,
            first_dirty: None,
            cancelled: false,
            step: Step::AwaitBegin(item),
        });
        true
    }

    pub fn clean_state(&self) -> CleanState {
        match &self.clean {
            None => CleanState::None,
            Some(clean) if clean.step == Step::Ready && clean.left() < WRITE_BYTES => CleanState::Takes,
            Some(_) => CleanState::Busy,
        }
    }

    /// Whole batches, in the order of their offsets. Precondition: the state is `Takes`.
    pub fn clean_write(&mut self, ring: &mut Ring, batches: &[u8]) {
        let clean = self.clean.as_mut().expect("the caller asked for the state");
        let (end_offset, wall_ms) = (clean.output.end_offset, clean.output.wall_ms);
        let mut rest = batches;
        while let Some(header) = BatchHeader::view(rest) {
            let size = header.size_bytes().expect("the caller gives whole batches");
            clean.output.note(header, size as u64, wall_ms);
            rest = &rest[size..];
        }
        assert!(rest.is_empty(), "the caller gives whole batches");
        assert!(clean.output.end_offset <= end_offset, "a cleaning adds no offsets");
        clean.output.end_offset = end_offset;
        clean.pending.extend_from_slice(batches);
        self.clean_next(ring);
    }

    /// The batches given are all. Precondition: the state is `Takes`.
    pub fn clean_finish(&mut self, ring: &mut Ring, first_dirty: Offset) {
        let clean = self.clean.as_mut().expect("the caller asked for the state");
        clean.first_dirty = Some(first_dirty);
        self.clean_next(ring);
    }

    /// Gives the cleaning up, if any.
    pub fn clean_cancel(&mut self) {
        if let Some(clean) = &mut self.clean {
            clean.cancelled = true;
        }
    }

    /// Where the end of `last` is the end of everything written, that moves on to what follows.
    fn leave_written_segment(&mut self, log: LogId, last: u64) -> bool {
        while let Some(partition) = self.partitions.get(log) {
            let (written, flushed) = (partition.ends.written, partition.ends.flushed);
            if written.segment > last {
                return true;
            }
            let left = flushed == written && partition.is_final_end(written) && !partition.busy;
            if !left || partition.active().id == written.segment {
                return false;
            }
            self.enter_next_segment(log);
        }
        false
    }

    // ---- Steps -------------------------------------------------------------------------------

    /// Goes on where nothing in flight will.
    pub(super) fn clean_poll(&mut self, ring: &mut Ring) {
        let Some(clean) = &mut self.clean else { return };
        let durable = self.journal.item_durable;
        match clean.step {
            Step::AwaitBegin(item) if item < durable && !clean.cancelled => self.clean_open(ring),
            Step::AwaitBegin(_) | Step::Ready | Step::AwaitRoom if clean.cancelled => {
                self.clean_end(ring);
            }
            Step::AwaitRoom => self.clean_replace(ring),
            _ => {}
        }
    }

    fn clean_token(&mut self, step: Step) -> Token {
        let key = self.clean_key(step);
        self.jobs.token(key)
    }

    fn clean_key(&mut self, step: Step) -> Key {
        self.clean.as_mut().expect("only called while there is one").step = step;
        let key = self.jobs.reserve();
        self.put_new(key, Some(Job::Clean));
        key
    }

    fn clean_path(&self, is_index: bool) -> PathBuf {
        let clean = self.clean.as_ref().expect("only called while there is one");
        let dir = &self.partition(clean.log).dir;
        if is_index { clean.output.index_path(dir) } else { clean.output.log_path(dir) }
    }

    fn clean_open(&mut self, ring: &mut Ring) {
        let (path, token) = (self.clean_path(false), self.clean_token(Step::Open));
        ring.open(token, &path, OpenMode::CreateNew);
    }

    fn clean_open_index(&mut self, ring: &mut Ring) {
        let (path, token) = (self.clean_path(true), self.clean_token(Step::OpenIndex));
        ring.open(token, &path, OpenMode::CreateNew);
    }

    /// The next operation, where there is one to do.
    fn clean_next(&mut self, ring: &mut Ring) {
        let Some(clean) = self.clean.as_mut().filter(|clean| clean.step == Step::Ready) else { return };
        let possible = self.partitions.get(clean.log).is_some_and(|partition| {
            partition.dropping.is_none() && may_replace(partition, clean.sources.0, clean.sources.1)
        });
        if clean.cancelled || !possible {
            self.clean_end(ring);
            return;
        }
        let ends = clean.first_dirty.is_some();
        if clean.left() >= WRITE_BYTES || (ends && clean.left() > 0) {
            self.clean_write_some(ring);
        } else if ends {
            let (file, bytes) = (clean.file.expect("opened"), clean.output.bytes);
            if self.options.control == Control::ReplaceBeforeFlush {
                self.clean_open_index(ring);
                return;
            }
            let token = self.clean_token(Step::Truncate);
            ring.truncate(token, file, bytes);
        }
    }

    fn clean_write_some(&mut self, ring: &mut Ring) {
        let clean = self.clean.as_mut().expect("only called while there is one");
        let bytes = clean.left().min(WRITE_BYTES);
        let write_bytes = blocks_up(bytes as u64) as usize;
        let mut buffer = self.staging.take(WRITE_BYTES as u64);
        buffer[..bytes].copy_from_slice(&clean.pending[clean.from..clean.from + bytes]);
        buffer[bytes..write_bytes].fill(0);
        clean.from += bytes;
        // Less than what was taken in at once is moved to the front; else what is written would stay in
        // memory, since the rest is rarely nothing.
        if clean.left() < WRITE_BYTES {
            clean.pending.drain(..clean.from);
            // What one large batch took is given back.
            clean.pending.shrink_to(2 * WRITE_BYTES);
            clean.from = 0;
        }
        let (file, position) = (clean.file.expect("opened"), clean.written);
        let token = self.clean_token(Step::Write { bytes });
        ring.write(token, file, position, buffer, 0..write_bytes, WriteMode::Plain);
    }

    pub(super) fn clean_done(&mut self, ring: &mut Ring, done: Done) {
        let clean = self.clean.as_mut().expect("an operation has its cleaning");
        let step = std::mem::replace(&mut clean.step, Step::Ready);
        let outcome = done.outcome();
        match done {
            Done::Opened(Ok(file)) if step == Step::Open => clean.file = Some(file),
            Done::Opened(Ok(file)) => clean.index = Some(file),
            Done::Transferred(_, buffer) if matches!(step, Step::Write { .. }) => self.staging.put(buffer),
            _ => {}
        }
        if self.fenced.is_some() {
            self.clean_end(ring);
            return;
        }
        match (step, outcome) {
            (Step::Open, Err(IoError::Exists)) => {
                let (path, token) = (self.clean_path(false), self.clean_token(Step::RemoveStale));
                ring.remove_file(token, &path);
            }
            (Step::OpenIndex, Err(IoError::Exists)) => {
                let (path, token) = (self.clean_path(true), self.clean_token(Step::RemoveIndex));
                ring.remove_file(token, &path);
            }
            // Nothing of the log is in the output yet: it is removed, and tried again another time.
            (
                Step::Open | Step::OpenIndex | Step::Write { .. } | Step::WriteIndex,
                Err(IoError::NoSpace | IoError::NoDescriptors),
            ) => {
                self.stats.space_refusals_count += 1;
                self.clean_end(ring);
            }
            (_, Err(error)) => {
                let path = self.clean_path(false);
                self.fence(format!("cleaning into {} failed: {error}", path.display()));
                self.clean_end(ring);
            }
            (Step::RemoveStale, Ok(())) => self.clean_open(ring),
            (Step::Open, Ok(())) => self.clean_next(ring),
            (Step::Write { bytes }, Ok(())) => {
                self.clean.as_mut().expect("seen above").written += bytes as u64;
                self.clean_next(ring);
            }
            (Step::Truncate, Ok(())) => {
                let file = self.clean.as_ref().and_then(|clean| clean.file).expect("opened");
                let token = self.clean_token(Step::FlushLog);
                ring.flush(token, file);
            }
            (Step::FlushLog | Step::RemoveIndex, Ok(())) => self.clean_open_index(ring),
            (Step::OpenIndex, Ok(())) => {
                let clean = self.clean.as_mut().expect("seen above");
                let (file, buffer) = (clean.index.expect("opened"), index_bytes(&clean.output));
                let bytes = buffer.len();
                let token = self.clean_token(Step::WriteIndex);
                ring.write(token, file, 0, buffer, 0..bytes, WriteMode::Plain);
            }
            (Step::WriteIndex, Ok(())) => {
                if self.options.control == Control::ReplaceBeforeFlush {
                    self.clean_replace(ring);
                    return;
                }
                let file = self.clean.as_ref().and_then(|clean| clean.index).expect("opened");
                let token = self.clean_token(Step::FlushIndex);
                ring.flush(token, file);
            }
            (Step::FlushIndex, Ok(())) => {
                let log = self.clean.as_ref().expect("seen above").log;
                let dir = self.partition(log).dir.clone();
                let key = self.clean_key(Step::FlushDir);
                self.jobs.flush_dir(ring, key, &dir);
            }
            (Step::FlushDir, Ok(())) => self.clean_replace(ring),
            (Step::AwaitBegin(_) | Step::Ready | Step::AwaitRoom, Ok(())) => panic!("nothing was in flight"),
        }
    }

    fn clean_replace(&mut self, ring: &mut Ring) {
        let room_wanted = size_of::<ReplacePayload>() as u64;
        if !self.has_journal_room(room_wanted) {
            // Said like an append that was refused: else nothing might make room.
            self.room_wanted = self.room_wanted.max(Some(room_wanted));
            self.clean.as_mut().expect("only called while there is one").step = Step::AwaitRoom;
            return;
        }
        let clean = self.clean.as_mut().expect("only called while there is one");
        let (log, (first, last)) = (clean.log, clean.sources);
        let first_dirty = clean.first_dirty.expect("all batches were handed over");
        let partition = self.partitions.get_mut(log).expect("its sources are leased");
        let run = partition.run_of(first, last).filter(|_| may_replace(partition, first, last));
        let Some(run) = run.filter(|_| partition.dropping.is_none()) else {
            self.clean_end(ring);
            return;
        };
        let mut output = clean.output.clone();
        (output.created, output.made, output.rolled, output.sealed) = (true, true, true, true);
        let (id, kept_bytes) = (output.id, output.bytes);
        let payload = ReplacePayload {
            row: output.to_row(),
            first: U64::new(first),
            last: U64::new(last),
            first_dirty: I64::new(first_dirty.0),
        };
        let header = EntryHeader::new(EntryKind::Replace, log.0, id, 0);
        let item = self.journal.push_entry(header, payload.as_bytes());
        let source_bytes: u64 = partition.segments.range(run.clone()).map(|source| source.bytes).sum();
        let behind = Place::new(partition.segments[run.end() + 1].id, 0);
        partition.replace(run, output, item);
        partition.first_dirty = first_dirty;
        // What of the old segments is in memory mustn't be found any more.
        partition.tail.drop_before(&mut self.pool, behind);
        self.reads.cache_rows(&mut self.partitions, log, id);
        self.stats.cleans_count += 1;
        self.stats.cleaned_bytes += source_bytes;
        self.stats.cleaned_kept_bytes += kept_bytes;
        self.clean_end(ring);
    }

    fn clean_end(&mut self, ring: &mut Ring) {
        let clean = self.clean.take().expect("only called while there is one");
        clean.file.into_iter().chain(clean.index).for_each(|file| ring.close(file));
        let partition = self.partitions.get_mut(clean.log).expect("its sources are leased");
        partition.cleaning = None;
        for source in clean.leased {
            partition.leased_mut(source).expect("a leased segment stays").leases -= 1;
        }
        self.cycle.leftovers.push_back(clean.log);
    }
}

/// The segments from `first` to `last` are sealed, and stay.
fn may_replace(partition: &PartitionLog, first: u64, last: u64) -> bool {
    let mut run = partition.segments.iter().filter(|segment| (first..=last).contains(&segment.id));
    run.all(|segment| segment.sealed && !segment.dropping)
}

const _: () = assert!(WRITE_BYTES.is_multiple_of(BLOCK_BYTES));
