//! Read: hands the bytes of plans out from memory or disk, and looks at the disk for what plans need.
//!
//! Owns:     the window buffers, the index rows of sealed segments kept in memory.
//! Promises: what is handed out is whole batches (only the plan's very end may be cut); bytes from disk
//!           were verified against their CRC after the read; a leased segment stays on disk.
//! Never:    evicts a tail block, blocks.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::files::Files;
use super::find::{FoundBatch, Hints, Target, Walk, walk};
use super::format::{BLOCK_BYTES, blocks_down, blocks_up};
use super::jobs::{Done, Job};
use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::{LaneEvent, LogId, ReadError};
use super::partition_log::PartitionLog;
use super::partitions::Partitions;
use super::place::Place;
use super::plan::{Plan, PlanStart, Request, Resolved, Sink, Window};
use super::reindex::Reindex;
use super::row_check::RowCheck;
use super::segment::VerifiedRun;
use crate::base::checksum::crc32c;
use crate::base::ids::Offset;
use crate::base::slab::Key;
use crate::metrics::tally;
use crate::protocol::record_batch::{BatchHeader, CRC_START, HEADER_BYTES};
use crate::ring::{FileId, FilePiece, IoBuffer, IoError, OpenMode, Ring};

/// A window of a segment.
pub(super) const WINDOW_BYTES: usize = 256 << 10;
/// Sent from the page cache at once.
const PIECE_BYTES_MAX: u64 = 256 << 10;
/// Buffers kept for the next reads: fresh memory costs more than what is read into it.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Read at once when only headers are looked at.
pub(super) const SCAN_BYTES: usize = 32 << 10;
/// Segments whose index rows are kept in memory after they were sealed.
const INDEXES_MAX: usize = 64;

pub(super) struct Read {
    read: u64,
    pub(super) log: LogId,
    /// Leased while the job lives.
    pub(super) segment: u64,
    pinned: bool,
    /// Through the page cache.
    cached: bool,
    pub(super) index_file: Option<FileId>,
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
    pub(super) buffer: Option<IoBuffer>,
    step: Step,
}

/// What the job reads now.
pub(super) enum Stage {
    /// The segment's index, for its rows.
    Index,
    /// The whole segment, to make the rows again, since the index isn't what was written.
    Reindex(Reindex),
    /// Rows of a sparse segment that the purpose leads to, and nobody compared yet.
    Rows(RowCheck),
    Purpose,
}

pub(super) enum Purpose {
    /// Finds the first batch of a plan, or the one behind its end.
    Plan {
        request: Request,
        start: Option<FoundBatch>,
        target: Target,
        at: Place,
        /// The offset behind the batch in front of `at`, where that was looked at.
        after: Option<Offset>,
    },
    /// Plans again with the segment's rows in memory.
    Index { request: Request, start: Option<FoundBatch> },
    /// About `bytes` of the plan from `at` on.
    Window { at: Place, bytes: u64, check: Check },
}

/// How a window is checked.
#[derive(Clone, Copy)]
pub(super) enum Check {
    /// Batch by batch. The plan has `left` in the segment; `batch_bytes` when the first batch is known to
    /// be as large.
    Batches {
        sink: Sink,
        left: u64,
        batch_bytes: Option<u64>,
        /// The offset that the first batch begins with, where that is known.
        after: Option<Offset>,
    },
    /// Not, or not again: exactly `bytes`, which may begin and end within batches. They end in front of
    /// `next`, where that is known.
    Known { next: Option<Offset> },
}

/// What a window turned out to be.
enum Checked {
    /// So many bytes may be handed out; `next`: the offset behind them, where that is known.
    Ready {
        bytes: u64,
        next: Option<Offset>,
    },
    /// So many are to be read instead, and checked so.
    Again {
        bytes: u64,
        check: Check,
    },
    Damaged,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Transfer { position: u64, asked_bytes: usize },
}

/// What a transfer brought.
pub(super) struct Transferred {
    /// Of the file.
    pub(super) position: u64,
    pub(super) buffer: IoBuffer,
    bytes: usize,
}

impl Transferred {
    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[..self.bytes]
    }
}

pub(super) struct Reads {
    waiting: VecDeque<Read>,
    reads_max: usize,
    /// Buffers in jobs or lent out.
    buffers_out: usize,
    /// Smallest first.
    buffers: Vec<IoBuffer>,
    kept_bytes: usize,
    pub(super) hints: Hints,
    /// Sealed segments with rows in memory, oldest use first.
    indexes: VecDeque<(LogId, u64)>,
}

impl Reads {
    pub(super) fn new(reads_max: u32) -> Self {
        Self {
            waiting: VecDeque::new(),
            reads_max: reads_max as usize,
            buffers_out: 0,
            buffers: Vec::new(),
            kept_bytes: 0,
            hints: Hints::default(),
            indexes: VecDeque::new(),
        }
    }

    /// Keeps the rows of a sealed segment in memory, and lets go of those kept longest.
    pub(super) fn cache_rows(&mut self, partitions: &mut Partitions, log: LogId, segment: u64) {
        self.indexes.retain(|entry| *entry != (log, segment));
        self.indexes.push_back((log, segment));
        if self.indexes.len() > INDEXES_MAX
            && let Some((log, segment)) = self.indexes.pop_front()
            && let Some(found) = partitions.get_mut(log).and_then(|partition| partition.segment_mut(segment))
            // Of one whose index is being made again these are the only rows.
            && found.sealed
        {
            found.rows = None;
        }
    }

    fn take_buffer(&mut self, bytes: usize) -> IoBuffer {
        self.buffers_out += 1;
        // More than a window for a larger batch: bounded by the largest one the lane takes.
        let fits = self.buffers.iter().position(|buffer| buffer.len() >= bytes);
        match fits {
            Some(index) => {
                let buffer = self.buffers.remove(index);
                self.kept_bytes -= buffer.len();
                buffer
            }
            None => IoBuffer::new(bytes.next_multiple_of(WINDOW_BYTES)),
        }
    }

    fn put_buffer(&mut self, buffer: IoBuffer) {
        self.buffers_out -= 1;
        self.kept_bytes += buffer.len();
        let index = self.buffers.partition_point(|kept| kept.len() < buffer.len());
        self.buffers.insert(index, buffer);
        // The smallest goes: larger ones serve every read.
        while self.buffers.len() > self.reads_max || self.kept_bytes > KEPT_BYTES_MAX {
            self.kept_bytes -= self.buffers.remove(0).len();
        }
    }
}

impl Lane {
    pub(super) fn read_later(&mut self, read: u64, log: LogId, segment: u64, purpose: Purpose) {
        // Filling the page cache costs several times what it saves the next reader, and its pages may be new
        // to a virtual machine: producers mustn't wait for it.
        let cached = !self.journal.is_in_flight()
            && match &purpose {
                Purpose::Plan { at, .. } => self.verified_run(log, *at).is_some(),
                Purpose::Window { check: Check::Known { .. }, .. } => true,
                _ => false,
            };
        let partition = self.partitions.get_mut(log).expect("looked up before");
        partition.leased_mut(segment).expect("what is read exists").leases += 1;
        self.reads.waiting.push_back(Read {
            read,
            log,
            segment,
            pinned: false,
            cached,
            index_file: None,
            purpose,
            stage: Stage::Purpose,
            buffer: None,
            step: Step::Open,
        });
    }

    // ---- Windows -----------------------------------------------------------------------------

    /// Hands out the plan's next bytes: appends at most `bytes_max` of them, or one whole batch, to
    /// `out` where they are in memory; for a socket, as a piece of a file where the page cache has them;
    /// else a window of the segment is read and `LaneEvent::Window` follows, and the caller advances the
    /// plan.
    pub fn resolve(
        &mut self,
        plan: &mut Plan,
        bytes_max: usize,
        sink: Sink,
        out: &mut Vec<u8>,
        read: u64,
    ) -> Resolved {
        let Some(range) = plan.ranges.front().copied() else { return Resolved::Finished };
        let partition = self.partition(plan.log);
        let place = Place::new(range.segment, range.position.0);
        let memory = partition.tail.batch_first().map(|(first, _)| first);
        if memory.is_some_and(|memory| place >= memory) {
            let bytes = whole_batches(partition, place, range.bytes, bytes_max as u64);
            let copied = partition.tail.copy_to(place, bytes as usize, out);
            assert_eq!(copied as u64, bytes, "what lies behind a batch in memory is in memory");
            self.stats.tail_read_bytes += bytes;
            tally::copied(tally::Tally::CopyTailRead, copied);
            plan.advance(bytes);
            return Resolved::Copied(copied);
        }
        // A batch that begins in memory ends the window: the file may not have it yet.
        let left = match memory {
            Some(memory) if memory.segment == place.segment => {
                range.bytes.min(memory.position - place.position)
            }
            _ => range.bytes,
        };
        let window_bytes = bytes_max.clamp(1, WINDOW_BYTES - BLOCK_BYTES) as u64;
        let segment = partition.leased(place.segment).expect("a leased segment stays");
        if let Some(run) = self.verified_run(plan.log, place).filter(|_| sink == Sink::Socket) {
            let left = left.min(run.to - place.position);
            let bytes = left.min(PIECE_BYTES_MAX);
            if let Some(file) = self.cached_files.shared(place.segment) {
                let piece = FilePiece { file, position: place.position, bytes: bytes as usize };
                if piece.is_resident() {
                    self.stats.cache_read_bytes += bytes;
                    plan.advance(bytes);
                    plan.next = run.offset_at(place.position + bytes);
                    return Resolved::File(piece);
                }
            }
            let bytes = left.min(window_bytes);
            let check = Check::Known { next: run.offset_at(place.position + bytes) };
            self.read_later(read, plan.log, place.segment, Purpose::Window { at: place, bytes, check });
            return Resolved::Pending;
        }
        let bytes = left.min(window_bytes);
        // A first batch that the plan wants whole and that is larger than a window is read at once.
        let batch_bytes = plan.batch_bytes.filter(|batch| (bytes + 1..=range.bytes).contains(batch));
        // The segment before may have lost its last records to compaction.
        let begins = place.position == 0;
        let after = if begins { segment.dense.then_some(segment.base_offset) } else { plan.next };
        let check = Check::Batches { sink, left: range.bytes, batch_bytes, after };
        self.read_later(read, plan.log, place.segment, Purpose::Window { at: place, bytes, check });
        Resolved::Pending
    }

    /// The run around `place` that was verified. It is read through the page cache: the first reader of a
    /// range reads past it, since most are the only one, and what isn't in the cache costs more that way.
    pub(super) fn verified_run(&self, log: LogId, place: Place) -> Option<VerifiedRun> {
        let segment = self.partition(log).leased(place.segment).expect("the caller found or leased it");
        segment.verified.filter(|run| run.contains(place.position) && !self.options.verify_always)
    }

    /// Takes the buffer of a window back. Windows wait while all buffers are out.
    pub fn give_back(&mut self, buffer: IoBuffer) {
        self.reads.put_buffer(buffer);
    }

    // ---- Jobs --------------------------------------------------------------------------------

    pub(super) fn reads_start(&mut self, ring: &mut Ring) {
        while self.reads.buffers_out < self.reads.reads_max {
            let Some(mut job) = self.reads.waiting.pop_front() else { return };
            job.buffer = Some(self.reads.take_buffer(WINDOW_BYTES));
            let key = self.jobs.reserve();
            let next = self.read_next(ring, key, job);
            self.put_new(key, next.map(Job::Read));
        }
    }

    pub(super) fn read_path(&self, job: &Read, suffix: &str) -> PathBuf {
        let partition = self.partition(job.log);
        let segment = partition.leased(job.segment).expect("a leased segment stays");
        partition.dir.join(super::segment::file_name(segment.base_offset, segment.id, suffix))
    }

    /// Goes on with what is to be read before the purpose, or with that.
    pub(super) fn read_next(&mut self, ring: &mut Ring, key: Key, mut job: Read) -> Option<Read> {
        job.stage = self.stage_of(&job);
        self.read_open(ring, key, job)
    }

    pub(super) fn read_open(&mut self, ring: &mut Ring, key: Key, mut job: Read) -> Option<Read> {
        job.step = Step::Open;
        if matches!(job.stage, Stage::Index) {
            let path = self.read_path(&job, "index");
            ring.open(self.jobs.token(key), &path, OpenMode::Read);
            return Some(job);
        }
        let (files, segment) = (self.files_of(&job), job.segment);
        let pinned = if job.pinned { Some(files.pinned(segment)) } else { files.pin(segment) };
        if let Some(file) = pinned {
            job.pinned = true;
            return self.read_transfer(ring, key, job, file);
        }
        let path = self.read_path(&job, "log");
        let mode = if job.cached { OpenMode::Cached } else { OpenMode::Write };
        ring.open(self.jobs.token(key), &path, mode);
        Some(job)
    }

    fn files_of(&mut self, job: &Read) -> &mut Files {
        if job.cached { &mut self.cached_files } else { &mut self.files }
    }

    /// Submits the read that the stage asks for.
    pub(super) fn read_transfer(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Read,
        file: FileId,
    ) -> Option<Read> {
        let (position, bytes) = match &job.stage {
            Stage::Index => (0, WINDOW_BYTES as u64),
            Stage::Reindex(rows) => (rows.position(), (WINDOW_BYTES - BLOCK_BYTES) as u64),
            Stage::Rows(check) => check.next_read(),
            Stage::Purpose => purpose_read(&job.purpose),
        };
        let from = blocks_down(position);
        let transfer_bytes = (blocks_up(position + bytes) - from) as usize;
        let mut buffer = job.buffer.take().expect("no transfer is in flight");
        if buffer.len() < transfer_bytes {
            self.reads.put_buffer(buffer);
            buffer = self.reads.take_buffer(transfer_bytes);
        }
        let transfer_bytes = transfer_bytes.min(buffer.len());
        job.step = Step::Transfer { position: from, asked_bytes: transfer_bytes };
        self.stats.disk_reads_count += 1;
        self.stats.disk_read_bytes += transfer_bytes as u64;
        ring.read(self.jobs.token(key), file, from, buffer, 0..transfer_bytes);
        Some(job)
    }

    pub(super) fn read_done(&mut self, ring: &mut Ring, key: Key, mut job: Read, done: Done) -> Option<Read> {
        let outcome = done.outcome();
        match (job.step, done) {
            (Step::Open, Done::Opened(Ok(file))) => {
                if matches!(job.stage, Stage::Index) {
                    job.index_file = Some(file);
                    return self.read_transfer(ring, key, job, file);
                }
                let file = self.files_of(&job).insert(ring, job.segment, file);
                job.pinned = true;
                self.read_transfer(ring, key, job, file)
            }
            // Without a descriptor nothing is known of the index: made again it would agree with any damage.
            (Step::Open, _)
                if matches!(job.stage, Stage::Index) && outcome != Err(IoError::NoDescriptors) =>
            {
                self.reindex_start(ring, key, job)
            }
            (Step::Open, _) => {
                let error = match outcome {
                    Err(IoError::NotFound) => {
                        ReadError::Damaged(format!("{} is missing", self.read_path(&job, "log").display()))
                    }
                    Err(error) => ReadError::Io(error),
                    Ok(()) => panic!("an open file comes with its id"),
                };
                self.read_fail(ring, job, error)
            }
            (Step::Transfer { position, asked_bytes }, done) => {
                let buffer = done.into_buffer();
                let bytes = match outcome {
                    Ok(()) => asked_bytes,
                    Err(IoError::Short { transferred_bytes }) => transferred_bytes,
                    Err(_) if matches!(job.stage, Stage::Index) => {
                        job.buffer = Some(buffer);
                        return self.reindex_start(ring, key, job);
                    }
                    Err(error) => {
                        job.buffer = Some(buffer);
                        return self.read_fail(ring, job, ReadError::Io(error));
                    }
                };
                self.read_transferred(ring, key, job, Transferred { position, buffer, bytes })
            }
        }
    }

    fn read_transferred(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Read,
        read: Transferred,
    ) -> Option<Read> {
        if let Purpose::Index { request, .. } | Purpose::Plan { request, .. } = job.purpose
            && self.partition(job.log).segment(job.segment).is_none()
        {
            // Replaced meanwhile: what was found leads nowhere.
            job.buffer = Some(read.buffer);
            return self.read_replan(ring, job, request, None);
        }
        match job.stage {
            Stage::Index => self.index_step(ring, key, job, read),
            Stage::Reindex(_) => self.reindex_step(ring, key, job, read),
            Stage::Rows(_) => self.rows_step(ring, key, job, read),
            Stage::Purpose => self.purpose_step(ring, key, job, read),
        }
    }

    fn purpose_step(&mut self, ring: &mut Ring, key: Key, mut job: Read, read: Transferred) -> Option<Read> {
        match job.purpose {
            Purpose::Index { .. } => panic!("its rows are all that is read for it"),
            Purpose::Plan { request, start, target, at, mut after } => {
                let place = (job.log, job.segment);
                let scanned = self.scan(place, target, at, &mut after, (read.position, read.data()));
                job.buffer = Some(read.buffer);
                match scanned {
                    Err(what) => self.read_fail(ring, job, ReadError::Damaged(what)),
                    Ok(Walk::Found(batch)) => {
                        if let Target::Offset(offset) = target {
                            self.reads.hints.remember(job.log, offset, batch);
                        }
                        let found_start = start.or((target == request.from).then_some(batch));
                        self.read_replan(ring, job, request, found_start)
                    }
                    Ok(Walk::Disk(next)) if next.segment == job.segment => {
                        job.purpose = Purpose::Plan { request, start, target, at: next, after };
                        self.read_next(ring, key, job)
                    }
                    // It goes on in another segment, or nowhere: from the beginning, with what is
                    // known now.
                    Ok(Walk::Disk(next)) => {
                        let read = job.read;
                        self.read_end(ring, job);
                        let purpose = Purpose::Plan { request, start, target, at: next, after: None };
                        self.read_later(read, request.log, next.segment, purpose);
                        None
                    }
                    Ok(Walk::Index(_) | Walk::End) => self.read_empty(ring, job, request),
                }
            }
            Purpose::Window { at, bytes: wanted, check } => {
                let skip = (at.position - read.position) as usize;
                let data = read.data().get(skip..).unwrap_or_default();
                match self.check_window(&job, at, wanted, check, data) {
                    Checked::Ready { bytes, next } => {
                        let window =
                            Ok(Window { buffer: read.buffer, range: skip..skip + bytes as usize, next });
                        // The buffer leaves with the event: it stays counted as out.
                        self.events.push(LaneEvent::Window { read: job.read, window });
                        self.read_end(ring, job);
                        None
                    }
                    Checked::Again { bytes, check } => {
                        job.buffer = Some(read.buffer);
                        job.purpose = Purpose::Window { at, bytes, check };
                        self.read_next(ring, key, job)
                    }
                    Checked::Damaged => {
                        job.buffer = Some(read.buffer);
                        let path = self.read_path(&job, "log");
                        let what =
                            format!("batch at {} of {} isn't what was written", at.position, path.display());
                        self.read_fail(ring, job, ReadError::Damaged(what))
                    }
                }
            }
        }
    }

    /// Judges `data`, which was read from `at` on.
    fn check_window(&mut self, job: &Read, at: Place, wanted: u64, check: Check, data: &[u8]) -> Checked {
        let (sink, left, batch_bytes, after) = match check {
            Check::Known { next } if data.len() as u64 >= wanted => {
                return Checked::Ready { bytes: wanted, next };
            }
            Check::Known { .. } => return Checked::Damaged,
            Check::Batches { sink, left, batch_bytes, after } => (sink, left, batch_bytes, after),
        };
        let partition = self.partitions.get_mut(job.log).expect("a leased segment stays");
        let segment = partition.leased(job.segment).expect("a leased segment stays");
        let mut next = after;
        let accepts = |header: &BatchHeader| {
            let accepted = partition.accepts(segment, header, next);
            next = Some(header.last_offset().plus(1));
            accepted
        };
        match verified(data, wanted, batch_bytes.is_some(), accepts) {
            Verified::Bytes(ready) => {
                let (to, next) = (at.position + ready, next.expect("a batch at least was looked at"));
                self.reads.hints.remember_boundary(job.log, next, Place::new(at.segment, to));
                // Rows of a sparse one are compared with its index, which a seal writes.
                let comparable = segment.dense || segment.sealed;
                if comparable && to <= partition.settled_end(segment) {
                    let run = VerifiedRun { from: at.position, to, next };
                    partition.leased_mut(job.segment).expect("just seen").note_verified(run);
                }
                Checked::Ready { bytes: ready.min(left), next: Some(next) }
            }
            // The plan ends within the batch. Clients throw such a piece away and ask for the batch again:
            // it isn't worth reading all of it.
            Verified::Larger(batch_bytes)
                if sink == Sink::Socket && (left + 1..=segment.bytes).contains(&batch_bytes) =>
            {
                match data.len() as u64 >= left {
                    true => Checked::Ready { bytes: left, next: None },
                    false => Checked::Again { bytes: left, check: Check::Known { next: None } },
                }
            }
            Verified::Larger(batch_bytes) if batch_bytes <= segment.bytes => {
                let batch_bytes = Some(batch_bytes);
                Checked::Again { bytes: wanted, check: Check::Batches { sink, left, batch_bytes, after } }
            }
            Verified::Larger(_) | Verified::Damaged => Checked::Damaged,
        }
    }

    /// Looks at the headers in `data`, which was read from `position` on, beginning at `at`.
    pub(super) fn scan(
        &self,
        (log, segment): (LogId, u64),
        target: Target,
        at: Place,
        after: &mut Option<Offset>,
        (position, data): (u64, &[u8]),
    ) -> Result<Walk, String> {
        let partition = self.partition(log);
        let segment = partition.leased(segment).expect("the caller found or leased it");
        let damaged = |at: Place| {
            let path = segment.log_path(&partition.dir);
            format!("no batch begins at {} of {}", at.position, path.display())
        };
        let mut at = at;
        loop {
            if at.position >= segment.bytes || partition.tail.header(at).is_some() {
                // The rest of the way leads through memory, or another segment.
                return Ok(walk(partition, at, target));
            }
            let header = data.get((at.position - position) as usize..).and_then(BatchHeader::view);
            let Some(header) = header else {
                // A window that doesn't even hold the header at its beginning is at the file's end.
                let moved = blocks_down(at.position) > position;
                return if moved { Ok(Walk::Disk(at)) } else { Err(damaged(at)) };
            };
            let size = header.size_bytes().filter(|size| at.position + *size as u64 <= segment.bytes);
            let known = after.or_else(|| segment.offset_at(at.position));
            let accepted = partition.accepts(segment, header, known);
            let Some(size) = size.filter(|_| accepted) else { return Err(damaged(at)) };
            if target.is_met_by(header, partition.log_start) {
                let base_offset = header.base_offset();
                return Ok(Walk::Found(FoundBatch { place: at, base_offset, bytes: size as u64 }));
            }
            *after = Some(header.last_offset().plus(1));
            at = at.plus(size as u64);
        }
    }

    pub(super) fn read_replan(
        &mut self,
        ring: &mut Ring,
        job: Read,
        request: Request,
        start: Option<FoundBatch>,
    ) -> Option<Read> {
        let read = job.read;
        // The lease goes after the plan has its own.
        let again = match self.partitions.get(request.log).filter(|partition| partition.dropping.is_none()) {
            Some(partition) => {
                // A segment that was replaced has no place in a new plan.
                let start = start.filter(|start| partition.segment(start.place.segment).is_some());
                self.plan_from(request, start, read)
            }
            None => PlanStart::Empty,
        };
        self.read_end(ring, job);
        match again {
            PlanStart::Ready(plan) => self.events.push(LaneEvent::Planned { read, plan: Ok(plan) }),
            PlanStart::Pending => {}
            PlanStart::Empty | PlanStart::OutOfRange | PlanStart::Offline => self.plan_empty(read, request),
        }
        None
    }

    fn read_empty(&mut self, ring: &mut Ring, job: Read, request: Request) -> Option<Read> {
        let read = job.read;
        self.read_end(ring, job);
        self.plan_empty(read, request);
        None
    }

    fn plan_empty(&mut self, read: u64, request: Request) {
        let plan = Plan {
            log: request.log,
            base_offset: request.upto,
            batch_bytes: None,
            next: None,
            ranges: VecDeque::new(),
            leases: Vec::new(),
        };
        self.events.push(LaneEvent::Planned { read, plan: Ok(plan) });
    }

    pub(super) fn read_fail(&mut self, ring: &mut Ring, job: Read, error: ReadError) -> Option<Read> {
        let read = job.read;
        self.events.push(match job.purpose {
            Purpose::Window { .. } => LaneEvent::Window { read, window: Err(error) },
            Purpose::Plan { .. } | Purpose::Index { .. } => LaneEvent::Planned { read, plan: Err(error) },
        });
        self.read_end(ring, job);
        None
    }

    fn read_end(&mut self, ring: &mut Ring, mut job: Read) {
        if let Some(buffer) = job.buffer.take() {
            self.reads.put_buffer(buffer);
        }
        if job.pinned {
            self.files_of(&job).unpin(job.segment);
        }
        if let Some(file) = job.index_file {
            ring.close(file);
        }
        self.release_lease(job.log, job.segment);
    }
}

/// Position and size of what a purpose reads.
fn purpose_read(purpose: &Purpose) -> (u64, u64) {
    match purpose {
        Purpose::Index { .. } => panic!("its rows are all that is read for it"),
        Purpose::Plan { at, .. } => (at.position, SCAN_BYTES as u64),
        Purpose::Window { at, bytes, check: Check::Known { .. } } => (at.position, *bytes),
        Purpose::Window { at, bytes, check: Check::Batches { batch_bytes, .. } } => {
            (at.position, batch_bytes.unwrap_or(*bytes).max(HEADER_BYTES as u64))
        }
    }
}

/// Bytes from `place` on that are whole batches, at most `bytes_max` or one batch; cut where the plan
/// is (`left`).
fn whole_batches(partition: &PartitionLog, place: Place, left: u64, bytes_max: u64) -> u64 {
    let mut bytes = 0;
    while bytes < left {
        let header = partition.tail.header(place.plus(bytes)).expect("batches in memory are whole");
        let size = header.size_bytes().expect("only whole batches are appended") as u64;
        if bytes > 0 && bytes + size > bytes_max {
            break;
        }
        bytes += size;
    }
    bytes.min(left)
}

pub(super) enum Verified {
    /// So many bytes are whole batches with good CRCs.
    Bytes(u64),
    /// The first batch is as large as this: read again.
    Larger(u64),
    Damaged,
}

/// Checks the batches in `data`, about `wanted` bytes of them. `whole`: the first batch was read wholly, if
/// the file has it. `accepts` judges what the CRC doesn't cover.
pub(super) fn verified(
    data: &[u8],
    wanted: u64,
    whole: bool,
    mut accepts: impl FnMut(&BatchHeader) -> bool,
) -> Verified {
    let mut ready = 0;
    while ready < wanted {
        let Some(header) = data.get(ready as usize..).and_then(BatchHeader::view) else {
            return if ready > 0 { Verified::Bytes(ready) } else { Verified::Damaged };
        };
        let Some(size) = header.size_bytes().filter(|_| header.magic == 2) else { return Verified::Damaged };
        let Some(batch) = data.get(ready as usize..ready as usize + size) else {
            return match ready {
                0 if whole => Verified::Damaged,
                0 => Verified::Larger(size as u64),
                _ => Verified::Bytes(ready),
            };
        };
        let intact =
            crc32c(&batch[CRC_START..]) == header.crc.get() || mutation::is(Mutation::ServeUnverified);
        let accepted = intact && (accepts(header) || mutation::is(Mutation::ServeUnverified));
        if !accepted {
            return Verified::Damaged;
        }
        ready += size as u64;
    }
    Verified::Bytes(ready)
}
