//! Materialise: writes tail bytes to their segment, and flushes it.
//!
//! Full blocks of the tail are written as they are, the rest by way of a staging buffer.
//!
//! Owns:     the staging buffers; one job per partition at a time.
//! Promises: the *block-image rule*. A block that is on disk in part is written again only while
//!           durable, unrecycled entries hold its whole new content: the appends from `batch_flushed`
//!           on are unrecycled anyway, and where that lies inside the block, an image entry with the
//!           bytes before it is made durable first. So a torn rewrite is always repaired by redo.
//! Never:    writes bytes that aren't durable in the journal.
//!
//! Orders of events that are survived (W write of a block, F flush, I its image, A append behind it):
//!
//! | crash after      | on disk                         | in the journal           | recovery                     |
//! |------------------|---------------------------------|--------------------------|------------------------------|
//! | W                | block torn                      | all of the block         | writes it again              |
//! | W F              | block                           | nothing of it            | nothing to do                |
//! | W F A            | block                           | A                        | loads A; I before a rewrite  |
//! | W F A I          | block                           | I and A: all of it       | writes it again, without I   |
//! | W F A I W'       | block torn                      | I and A: all of it       | writes it again              |
//! | W F A I W' F'    | block                           | perhaps I, perhaps A     | I's end is below: ignored    |

use std::collections::VecDeque;

use super::format::{BLOCK_BYTES, EntryHeader, EntryKind, blocks_down, blocks_up};
use super::jobs::{Done, Job};
use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::LogId;
use super::partition_log::PartitionLog;
use super::place::Place;
use super::segment::partitions_dir;
use crate::base::slab::Key;
use crate::metrics::tally;
use crate::ring::{FileId, IoBuffer, IoError, OpenMode, Ring, WriteMode};

/// Extents: large enough to be read back cheaply, small enough for a staging buffer.
const EXTENT_BYTES_MIN: u64 = 16 << 10;
const EXTENT_BYTES_MAX: u64 = 1 << 20;
/// Jobs at once: so many that their extents have this many bytes, and so does the staging memory kept.
const JOBS_BYTES: u64 = 4 * EXTENT_BYTES_MAX;
/// And these at least and at most. Each job waits for the flush of its file: with a thousand partitions
/// their number is what decides how soon a journal file is free again.
const JOBS_MIN: usize = 4;
const JOBS_MAX: usize = 32;
/// Space is reserved ahead by as much as the segment has, up to this.
const ALLOCATE_BYTES_MAX: u64 = 16 << 20;

/// Buffers of writes, kept for the next one: the one put last is behind.
#[derive(Default)]
pub(super) struct Staging {
    buffers: VecDeque<IoBuffer>,
    kept_bytes: u64,
}

impl Staging {
    pub(super) fn take(&mut self, bytes: u64) -> IoBuffer {
        let fitting = self.buffers.iter().enumerate().filter(|(_, buffer)| buffer.len() as u64 >= bytes);
        let smallest = fitting.min_by_key(|(_, buffer)| buffer.len()).map(|(index, _)| index);
        match smallest.and_then(|index| self.buffers.remove(index)) {
            Some(buffer) => {
                self.kept_bytes -= buffer.len() as u64;
                buffer
            }
            None => IoBuffer::new(bytes.next_power_of_two().max(BLOCK_BYTES as u64) as usize),
        }
    }

    /// Keeps the buffer of a write that had one of its own.
    fn put_own(&mut self, done: Done) {
        if let Done::Transferred(_, buffer) = done {
            self.put(buffer);
        }
    }

    /// Keeps a buffer; those that weren't used for longest go.
    pub(super) fn put(&mut self, buffer: IoBuffer) {
        self.kept_bytes += buffer.len() as u64;
        self.buffers.push_back(buffer);
        while self.kept_bytes > JOBS_BYTES {
            let oldest = self.buffers.pop_front().expect("their bytes are counted");
            self.kept_bytes -= oldest.len() as u64;
        }
    }
}

/// One partition's way to disk.
pub(super) struct Materialise {
    log: LogId,
    /// Everything up to here must be written, a partial block included.
    target: Option<Place>,
    /// And flushed.
    flush: bool,
    step: Step,
    /// The pinned file of this segment.
    pinned: Option<(u64, FileId)>,
    /// No space is reserved ahead: the disk had none for that.
    exact: bool,
    /// Bytes of the block at `written` that are on disk already, where they aren't in memory.
    head: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Decide,
    ReadHead,
    /// Parked until the image entry is durable.
    AwaitImage(u64),
    MakeDir,
    OpenExisting,
    OpenNew,
    RemoveStale,
    Allocate {
        end: u64,
    },
    Write {
        end: u64,
    },
    Flush,
    FlushDir,
    FlushParent,
}

impl Lane {
    /// Bytes that a partition gathers before they are written.
    pub(super) fn extent_bytes(&self) -> u64 {
        // Partitions with open marks are about the dirty ones.
        let dirty = self.journal.used.iter().map(|file| u64::from(file.dirty_count)).max().unwrap_or(0);
        (self.pool.limit_bytes() as u64 / 2 / dirty.max(1)).clamp(EXTENT_BYTES_MIN, EXTENT_BYTES_MAX)
    }

    /// Another job may begin.
    pub(super) fn materialises_more(&self) -> bool {
        let jobs_max = (JOBS_BYTES / self.extent_bytes()) as usize;
        self.jobs.materialising_count < jobs_max.clamp(JOBS_MIN, JOBS_MAX)
    }

    /// Begins a job unless one works on the partition. Returns whether it began.
    pub(super) fn materialise_start(
        &mut self,
        ring: &mut Ring,
        log: LogId,
        target: Option<Place>,
        flush: bool,
    ) -> bool {
        let materialises_more = self.materialises_more();
        let Some(partition) = self.partitions.get_mut(log) else { return false };
        if partition.busy || partition.dropping.is_some() || !materialises_more {
            return false;
        }
        partition.busy = true;
        self.jobs.materialising_count += 1;
        let job = Materialise {
            log,
            target,
            flush,
            step: Step::Decide,
            pinned: None,
            exact: false,
            head: Vec::new(),
        };
        let key = self.jobs.reserve();
        let next = self.materialise_decide(ring, key, job);
        self.jobs.put(key, next.map(Job::Materialise));
        true
    }

    fn materialise_end(&mut self, mut job: Materialise) -> Option<Materialise> {
        self.materialise_unpin(&mut job);
        self.jobs.materialising_count -= 1;
        if let Some(partition) = self.partitions.get_mut(job.log) {
            partition.busy = false;
        }
        None
    }

    fn materialise_unpin(&mut self, job: &mut Materialise) {
        if let Some((segment, _)) = job.pinned.take() {
            self.files.unpin(segment);
        }
    }

    /// Space or descriptors are short: nothing is fenced, it goes on later.
    fn materialise_pause(&mut self, job: Materialise) -> Option<Materialise> {
        self.cycle.paused_until = Some(self.now.plus_ms(PAUSE_MS));
        self.stats.space_refusals_count += 1;
        self.materialise_end(job)
    }

    fn materialise_fail(&mut self, job: Materialise, what: &str, error: IoError) -> Option<Materialise> {
        let path = self.partitions.get(job.log).map(|partition| partition.dir.display().to_string());
        self.fence(format!("{what} failed in {}: {error}", path.unwrap_or_default()));
        self.materialise_end(job)
    }

    /// Drives the parked job on once its image may be durable.
    pub(super) fn materialise_resume(&mut self, ring: &mut Ring, key: Key) -> bool {
        match self.jobs.take(key) {
            Some(Job::Materialise(mut job)) => {
                job.step = Step::Decide;
                let next = self.materialise_decide(ring, key, job);
                self.jobs.put(key, next.map(Job::Materialise));
                true
            }
            other => {
                assert!(other.is_none(), "only materialisation is parked");
                false
            }
        }
    }

    pub(super) fn materialise_done(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Materialise,
        done: Done,
    ) -> Option<Materialise> {
        let step = std::mem::replace(&mut job.step, Step::Decide);
        if self.fenced.is_some() {
            return self.materialise_end(job);
        }
        match (step, done.outcome()) {
            (Step::MakeDir, Ok(()) | Err(IoError::Exists)) => self.materialise_open_new(ring, key, job),
            (Step::OpenNew, Err(IoError::Exists)) if mutation::is(Mutation::UseStaleFile) => {
                let path = self.active_path(&job);
                job.step = Step::OpenExisting;
                ring.open(self.jobs.token(key), &path, OpenMode::Write);
                Some(job)
            }
            (Step::OpenNew, Err(IoError::Exists)) => {
                let path = self.active_path(&job);
                job.step = Step::RemoveStale;
                ring.remove_file(self.jobs.token(key), &path);
                Some(job)
            }
            (Step::RemoveStale, Ok(())) => self.materialise_open_new(ring, key, job),
            (Step::Allocate { .. }, Err(IoError::NoSpace)) if !job.exact => {
                job.exact = true;
                self.materialise_decide(ring, key, job)
            }
            // Nothing depends on it yet: its bytes stay in memory and in the journal.
            (Step::Write { .. }, Err(IoError::NoSpace)) => {
                self.staging.put_own(done);
                self.materialise_pause(job)
            }
            (
                Step::MakeDir | Step::OpenNew | Step::OpenExisting | Step::Allocate { .. },
                Err(IoError::NoSpace | IoError::NoDescriptors),
            ) => self.materialise_pause(job),
            (Step::OpenNew | Step::OpenExisting, Ok(())) => {
                let Done::Opened(Ok(file)) = done else { panic!("an open file comes with its id") };
                let partition = self.partitions.get_mut(job.log).expect("a busy partition stays");
                let segment = partition.ends.written.segment;
                partition.segment_mut(segment).expect("what is written to stays").made = true;
                job.pinned = Some((segment, self.files.insert(ring, segment, file)));
                self.materialise_decide(ring, key, job)
            }
            // A filesystem that can't reserve space is written to without.
            (Step::Allocate { end }, _) => {
                self.note_allocated(job.log, end);
                self.materialise_decide(ring, key, job)
            }
            (Step::ReadHead, outcome) => self.materialise_head_read(ring, key, job, outcome, done),
            (Step::Write { end }, Ok(())) => {
                self.staging.put_own(done);
                self.note_written(job.log, end);
                if mutation::is(Mutation::FlushedWhenWritten) {
                    self.note_flushed(job.log);
                }
                job.head.clear();
                self.materialise_decide(ring, key, job)
            }
            (Step::Flush, Ok(())) => self.materialise_flushed_file(ring, key, job),
            (Step::FlushDir, Ok(())) => self.materialise_flushed_dir(ring, key, job),
            (Step::FlushParent, Ok(())) => {
                self.partitions.get_mut(job.log).expect("a busy partition stays").dir_made = true;
                self.materialise_flushed(ring, key, job)
            }
            (Step::Decide | Step::AwaitImage(_), _) => panic!("nothing was in flight"),
            (step, Err(error)) => self.materialise_fail(job, step.name(), error),
        }
    }

    fn active_path(&self, job: &Materialise) -> std::path::PathBuf {
        let partition = self.partition(job.log);
        let segment = partition.segment(partition.ends.written.segment).expect("what is written to stays");
        segment.log_path(&partition.dir)
    }

    // ---- What next ---------------------------------------------------------------------------

    /// Decides on the next operation from the state of the partition alone.
    fn materialise_decide(&mut self, ring: &mut Ring, key: Key, mut job: Materialise) -> Option<Materialise> {
        let partition = self.partitions.get(job.log).expect("a busy partition stays");
        if self.fenced.is_some() || partition.dropping.is_some() {
            return self.materialise_end(job);
        }
        let written = partition.ends.written;
        let flushed = partition.ends.flushed;
        if partition.is_final_end(written) {
            // A rolled segment is flushed before the next one is begun.
            if flushed < written {
                return self.materialise_flush(ring, key, job);
            }
            if partition.segments.back().is_some_and(|last| last.id != written.segment) {
                self.enter_next_segment(job.log);
                self.materialise_unpin(&mut job);
                return self.materialise_decide(ring, key, job);
            }
        }
        if job.target.is_none_or(|target| written < target)
            && let Some(end) = self.write_end(partition, job.target)
        {
            return self.materialise_write(ring, key, job, end);
        }
        if job.flush && flushed < written {
            return self.materialise_flush(ring, key, job);
        }
        self.materialise_end(job)
    }

    /// Where the next write ends: at whole blocks, unless the segment ends or the target lies in the
    /// partial one. None when there is nothing worth a write.
    fn write_end(&self, partition: &PartitionLog, target: Option<Place>) -> Option<u64> {
        let written = partition.ends.written;
        let durable = partition.ends.durable;
        let segment = partition.segment(written.segment).expect("what is written to stays");
        let end = if durable.segment == written.segment { durable.position } else { segment.bytes };
        let is_final = |position: u64| segment.rolled && position == segment.bytes;
        let limit = end.min(blocks_down(written.position) + EXTENT_BYTES_MAX);
        if limit <= written.position {
            return None;
        }
        if is_final(limit) {
            return Some(limit);
        }
        let whole = blocks_down(limit);
        let wants_partial = limit == end
            && target.is_some_and(|target| target > Place::new(written.segment, whole.max(written.position)));
        if wants_partial {
            return Some(limit);
        }
        let enough = target.is_some()
            || partition.tail.begins_full_block(written, whole)
            || whole.saturating_sub(written.position) >= self.extent_bytes() / 2;
        (whole > written.position && enough).then_some(whole)
    }

    pub(super) fn enter_next_segment(&mut self, log: LogId) {
        let partition = self.partitions.get_mut(log).expect("a busy partition stays");
        let index = partition.segment_index(partition.ends.written.segment).expect("written to");
        let next = Place::new(partition.segments[index + 1].id, 0);
        let base_offset = partition.segments[index + 1].base_offset;
        partition.ends.written = next;
        partition.ends.flushed = next;
        partition.ends.batch_written = (next, base_offset);
        partition.ends.batch_flushed = (next, base_offset);
        partition.ends.durable = partition.ends.durable.max(next);
        partition.image = None;
        // A batch that recovery cut at the segment's beginning left its file with a mark up to there.
        self.release_marks(log, next);
    }

    // ---- Write -------------------------------------------------------------------------------

    /// Takes the next step towards writing up to `end`.
    fn materialise_write(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Materialise,
        end: u64,
    ) -> Option<Materialise> {
        let partition = self.partition(job.log);
        let written = partition.ends.written;
        let Some((_, file)) = job.pinned else { return self.materialise_open(ring, key, job) };
        let block = blocks_down(written.position);
        let head_bytes = (written.position - block) as usize;
        if job.head.len() != head_bytes {
            job.head.resize(head_bytes, 0);
            let start = Place::new(written.segment, block);
            let known =
                partition.head.as_ref().filter(|(place, head)| *place == start && head.len() == head_bytes);
            if let Some((_, head)) = known {
                job.head.copy_from_slice(head);
            } else if partition.tail.copy(start, &mut job.head) != head_bytes {
                let buffer = self.staging.take(BLOCK_BYTES as u64);
                job.step = Step::ReadHead;
                ring.read(self.jobs.token(key), file, block, buffer, 0..BLOCK_BYTES);
                return Some(job);
            }
        }
        if let Some(item) = self.image_wanted(&job, block) {
            job.step = Step::AwaitImage(item);
            self.cycle.parked.push((key, item));
            return Some(job);
        }
        let partition = self.partition(job.log);
        let (pieces, full_end) = partition.tail.full_blocks(written, end);
        // Full blocks first, as they are; the rest follows when it is wanted still.
        let end = if pieces.is_empty() { end } else { full_end };
        let end_block = blocks_up(end);
        let segment = partition.segment(written.segment).expect("what is written to stays");
        if end_block > segment.allocated {
            let wanted = if job.exact { 0 } else { segment.bytes };
            let ahead = wanted.clamp(end_block - block, ALLOCATE_BYTES_MAX);
            let to = blocks_up(block + ahead.min(partition.settings.segment_bytes_max)).max(end_block);
            let from = segment.allocated.max(block);
            job.step = Step::Allocate { end: to };
            ring.allocate(self.jobs.token(key), file, from, to - from);
            return Some(job);
        }
        job.step = Step::Write { end };
        self.stats.materialise_writes_count += 1;
        self.stats.materialised_bytes += end_block - block;
        if !pieces.is_empty() {
            ring.write_pieces(self.jobs.token(key), file, block, pieces);
            return Some(job);
        }
        let mut buffer = self.staging.take(end_block - block);
        let partition = self.partition(job.log);
        buffer[..head_bytes].copy_from_slice(&job.head);
        let bytes = (end - block) as usize;
        let copied = partition.tail.copy(written, &mut buffer[head_bytes..bytes]);
        assert_eq!(copied, bytes - head_bytes, "unwritten bytes are in memory");
        tally::copied(tally::Tally::CopyStaging, bytes);
        let write_bytes = (end_block - block) as usize;
        buffer[bytes..write_bytes].fill(0);
        ring.write(self.jobs.token(key), file, block, buffer, 0..write_bytes, WriteMode::Plain);
        Some(job)
    }

    /// The item to wait for before the block at `block` may be written again, if any; queues the
    /// image entry where there is none yet.
    fn image_wanted(&mut self, job: &Materialise, block: u64) -> Option<u64> {
        if self.options.control == super::options::Control::RewriteWithoutImage {
            return None;
        }
        let partition = self.partitions.get_mut(job.log).expect("a busy partition stays");
        let (kept_from, _) = partition.ends.batch_flushed;
        if kept_from.segment != partition.ends.written.segment || kept_from.position <= block {
            return None;
        }
        // The block was written before and flushed, and the journal may have let go of its beginning.
        // A recovery that found its image begins at the block's start and needs no other.
        if job.head.is_empty() {
            return None;
        }
        assert!(kept_from.position < block + BLOCK_BYTES as u64, "flushed never passes written");
        if let Some((end, item)) = partition.image
            && end == kept_from
        {
            return (item >= self.journal.item_durable).then_some(item);
        }
        let bytes = (kept_from.position - block) as usize;
        let header = EntryHeader::new(EntryKind::Image, job.log.0, kept_from.segment, block);
        let item = self.journal.push_entry(header, &job.head[..bytes]);
        partition.image = Some((kept_from, item));
        self.stats.image_entries_count += 1;
        self.clear_debt(job.log);
        Some(item)
    }

    fn materialise_head_read(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Materialise,
        outcome: Result<(), IoError>,
        done: Done,
    ) -> Option<Materialise> {
        let buffer = done.into_buffer();
        let head_bytes = job.head.len();
        let enough = match outcome {
            Ok(()) => Ok(()),
            // The file has its exact length since the lane was stopped in order.
            Err(IoError::Short { transferred_bytes }) if transferred_bytes >= head_bytes => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = enough {
            return self.materialise_fail(job, Step::ReadHead.name(), error);
        }
        job.head.copy_from_slice(&buffer[..head_bytes]);
        self.staging.put(buffer);
        self.materialise_decide(ring, key, job)
    }

    fn materialise_open(&mut self, ring: &mut Ring, key: Key, mut job: Materialise) -> Option<Materialise> {
        let partition = self.partition(job.log);
        let segment = partition.segment(partition.ends.written.segment).expect("what is written to stays");
        let (id, exists, dir_made) = (segment.id, segment.created || segment.made, partition.dir_made);
        let dir = partition.dir.clone();
        if let Some(file) = self.files.pin(id) {
            job.pinned = Some((id, file));
            return self.materialise_decide(ring, key, job);
        }
        if exists {
            let path = self.active_path(&job);
            job.step = Step::OpenExisting;
            ring.open(self.jobs.token(key), &path, OpenMode::Write);
        } else if dir_made {
            return self.materialise_open_new(ring, key, job);
        } else {
            job.step = Step::MakeDir;
            ring.make_dir(self.jobs.token(key), &dir);
        }
        Some(job)
    }

    fn materialise_open_new(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Materialise,
    ) -> Option<Materialise> {
        let path = self.active_path(&job);
        job.step = Step::OpenNew;
        ring.open(self.jobs.token(key), &path, OpenMode::CreateNew);
        Some(job)
    }

    fn note_allocated(&mut self, log: LogId, end: u64) {
        let partition = self.partitions.get_mut(log).expect("a busy partition stays");
        let id = partition.ends.written.segment;
        let segment = partition.segment_mut(id).expect("what is written to stays");
        self.stats.allocated_bytes += end - segment.allocated.min(end);
        segment.allocated = end;
        segment.padded = true;
    }

    fn note_written(&mut self, log: LogId, end: u64) {
        let partition = self.partitions.get_mut(log).expect("a busy partition stays");
        let place = Place::new(partition.ends.written.segment, end);
        assert!(place > partition.ends.written);
        partition.ends.written = place;
        partition.head = None;
        partition.advance_batch_written();
        self.clear_debt(log);
        let partition = self.partitions.get_mut(log).expect("seen above");
        if partition.is_dirty() && !end.is_multiple_of(BLOCK_BYTES as u64) && !partition.is_final_end(place) {
            partition.in_debt = true;
            self.debts_count += 1;
        }
    }

    // ---- Flush -------------------------------------------------------------------------------

    fn materialise_flush(&mut self, ring: &mut Ring, key: Key, mut job: Materialise) -> Option<Materialise> {
        let Some((_, file)) = job.pinned else { return self.materialise_open(ring, key, job) };
        self.stats.segment_flushes_count += 1;
        job.step = Step::Flush;
        ring.flush(self.jobs.token(key), file);
        Some(job)
    }

    fn materialise_flushed_file(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Materialise,
    ) -> Option<Materialise> {
        let partition = self.partition(job.log);
        let segment = partition.segment(partition.ends.written.segment).expect("what is written to stays");
        if segment.created || mutation::is(Mutation::ForgetDirFlush) {
            return self.materialise_flushed(ring, key, job);
        }
        let dir = partition.dir.clone();
        job.step = Step::FlushDir;
        self.jobs.flush_dir(ring, key, &dir);
        Some(job)
    }

    fn materialise_flushed_dir(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Materialise,
    ) -> Option<Materialise> {
        if self.partition(job.log).dir_made || mutation::is(Mutation::ForgetParentFlush) {
            return self.materialise_flushed(ring, key, job);
        }
        let parent = partitions_dir(&self.lane_dir);
        job.step = Step::FlushParent;
        self.jobs.flush_dir(ring, key, &parent);
        Some(job)
    }

    fn materialise_flushed(&mut self, ring: &mut Ring, key: Key, job: Materialise) -> Option<Materialise> {
        let partition = self.partitions.get_mut(job.log).expect("a busy partition stays");
        let id = partition.ends.written.segment;
        partition.segment_mut(id).expect("what is written to stays").created = true;
        self.note_flushed(job.log);
        self.materialise_decide(ring, key, job)
    }
}

/// How long materialisation waits for space or descriptors.
const PAUSE_MS: u64 = 500;

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Decide | Self::AwaitImage(_) => "materialisation",
            Self::ReadHead => "reading a block to complete it",
            Self::MakeDir => "making the directory",
            Self::OpenExisting | Self::OpenNew | Self::RemoveStale => "opening a segment",
            Self::Allocate { .. } => "reserving space for a segment",
            Self::Write { .. } => "write of a segment",
            Self::Flush => "flush of a segment",
            Self::FlushDir | Self::FlushParent => "flush of a directory",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_keeps_the_buffers_used_last_within_its_bytes() {
        let mut staging = Staging::default();
        for _ in 0..8 {
            staging.put(IoBuffer::new(EXTENT_BYTES_MAX as usize));
        }
        assert_eq!(staging.kept_bytes, JOBS_BYTES);
        staging.put(IoBuffer::new(BLOCK_BYTES));
        assert!(staging.kept_bytes <= JOBS_BYTES);
        assert_eq!(staging.take(1).len(), BLOCK_BYTES, "the smallest that fits");
        assert_eq!(staging.take(1).len() as u64, EXTENT_BYTES_MAX);
        while !staging.buffers.is_empty() {
            staging.take(1);
        }
        assert_eq!(staging.kept_bytes, 0);
    }
}
