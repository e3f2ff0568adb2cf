//! Checkpoint: the image of a lane, in two files that take turns.
//!
//! Owns:     the image being captured and written, and which file is the older one.
//! Promises: each row reflects exactly the entries in front of its `item`; an image is written only
//!           once all of them are durable; the file overwritten is never the newest durable image.
//! Never:    stops the lane: rows are captured a few at a time while appends go on.
//!
//! Every image holds the rows of all partitions; the entries that tell how far segments are flushed
//! (`Materialised`) are its delta in the journal. Partitions created, rolled or dropped while rows are
//! captured are found again by their entries, which lie behind the image's `replay_number`.

use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cycle::Phase;
use super::damage::Damage;
use super::format::{
    EntryHeader, EntryKind, EpochRow, IMAGE_MAGIC, ImageHeader, IndexRow, PartitionRow, ProducerRow,
    ROW_DAMAGED, ROW_DROPPING, Sealed, SegmentRow, VERSION, blocks_up,
};
use super::image::FoundImage;
use super::jobs::{Done, Job};
use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::{LogId, PartitionSettings};
use super::partition_log::{Ends, PartitionLog};
use super::place::Place;
use super::prewrite::Prewrites;
use super::segment::{self, Segment};
use crate::base::checksum::crc32c;
use crate::base::ids::{LeaderEpoch, Offset, PartitionId, TopicId, TopicPartition};
use crate::base::slab::Key;
use crate::ring::{FileId, IoBuffer, IoError, OpenMode, Ring, WriteMode};

const ROWS_PER_STEP: usize = 64;
const WRITE_BYTES_MAX: usize = 1 << 20;

/// The two image files of a lane.
pub(super) const IMAGE_FILES: [&str; 2] = ["checkpoint/0.image", "checkpoint/1.image"];

#[derive(Default)]
pub(super) struct Checkpoint {
    pub(super) prewrites: Prewrites,
    pub(super) generation: u64,
    /// Index of the newest durable image among [`IMAGE_FILES`].
    pub(super) newest: usize,
    state: State,
    /// What the newest image was made of: nothing has happened since if it is the same.
    pub(super) item_imaged: u64,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    Capturing(Capture),
    /// All rows are captured; entries before `item` must be durable first.
    Captured(Capture, CaptureEnd),
    Writing,
}

/// Where the journal stood when the last row was captured.
#[derive(Clone, Copy)]
struct CaptureEnd {
    item: u64,
    /// No group up to this one has an entry that isn't before `item`.
    group: u64,
}

struct Capture {
    cursor: u32,
    payload: Vec<u8>,
    rows_count: u32,
    replay_number: u64,
    replay_previous: u32,
    /// As of the moment at which the last row was captured: what is created later is in no row.
    segment_next: u64,
    log_next: u32,
}

pub(super) struct ImageWrite {
    file: Option<FileId>,
    buffer: Option<IoBuffer>,
    position: usize,
    created: bool,
    step: Step,
    replay_number: u64,
    item: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    OpenNew,
    Allocate,
    Write,
    Flush,
    FlushDir,
}

impl Checkpoint {
    pub(super) fn new(image: &FoundImage) -> Self {
        Self {
            generation: image.generation,
            newest: image.index,
            item_imaged: image.header.item_next.get(),
            ..Self::default()
        }
    }
}

impl Lane {
    /// Begins an image. It makes every journal file before the first one with unflushed bytes free.
    pub(super) fn image_begin(&mut self) {
        let used = &self.journal.used;
        let first = used.iter().find(|file| file.dirty_count > 0).or(used.back());
        let first = first.expect("a journal file is in use since recovery");
        self.checkpoint.state = State::Capturing(Capture {
            cursor: 0,
            payload: Vec::new(),
            rows_count: 0,
            replay_number: first.group_first,
            replay_previous: first.previous_checksum,
            segment_next: 0,
            log_next: 0,
        });
        self.cycle.phase = Phase::Imaging;
    }

    /// A deliberate mistake: the image frees journal files whose bytes aren't flushed.
    pub(super) fn image_begin_unchecked(&mut self) {
        self.image_begin();
        let last = self.journal.used.back().expect("a journal file is in use since recovery");
        if let State::Capturing(capture) = &mut self.checkpoint.state {
            capture.replay_number = last.group_first;
            capture.replay_previous = last.previous_checksum;
        }
    }

    /// Captures some more rows, or begins to write. Returns true when more can be done right away.
    pub(super) fn image_step(&mut self, ring: &mut Ring) -> bool {
        match std::mem::take(&mut self.checkpoint.state) {
            State::Capturing(mut capture) => {
                for _ in 0..ROWS_PER_STEP {
                    if !self.capture_row(&mut capture) {
                        capture.segment_next = self.segment_next;
                        capture.log_next = self.log_next;
                        let end =
                            CaptureEnd { item: self.journal.item_next, group: self.journal.group_next - 1 };
                        self.journal.make_urgent();
                        self.checkpoint.state = State::Captured(capture, end);
                        return true;
                    }
                }
                self.checkpoint.state = State::Capturing(capture);
                true
            }
            State::Captured(capture, end)
                if end.item <= self.journal.item_durable || mutation::is(Mutation::ImageBeforeEntries) =>
            {
                self.image_write(ring, capture, end);
                false
            }
            waiting => {
                self.checkpoint.state = waiting;
                false
            }
        }
    }

    fn capture_row(&mut self, capture: &mut Capture) -> bool {
        let Some(partition) = self.partitions.next_from(capture.cursor) else { return false };
        let log = partition.number;
        capture.cursor = log.0 + 1;
        capture.rows_count += 1;
        encode_partition(partition, self.journal.item_next, &mut capture.payload);
        true
    }

    fn image_write(&mut self, ring: &mut Ring, capture: Capture, end: CaptureEnd) {
        let mut header = ImageHeader {
            magic: IMAGE_MAGIC,
            version: U16::new(VERSION),
            reserved: U16::ZERO,
            header_checksum: U32::ZERO,
            log_id: self.journal.log_id,
            generation: U64::new(self.checkpoint.generation + 1),
            replay_number: U64::new(capture.replay_number),
            durable_number: U64::new(end.group),
            item_next: U64::new(end.item),
            segment_next: U64::new(capture.segment_next),
            log_next: U32::new(capture.log_next),
            replay_previous: U32::new(capture.replay_previous),
            incarnation: U64::new(self.journal.incarnation),
            payload_bytes: U64::new(capture.payload.len() as u64),
            payload_checksum: U32::new(crc32c(&capture.payload)),
            rows_count: U32::new(capture.rows_count),
            reserved_end: [0; 24],
        };
        let buffer = image_bytes(&mut header, &capture.payload);
        self.checkpoint.state = State::Writing;
        let key = self.jobs.reserve();
        ring.open(self.jobs.token(key), &self.image_path(), OpenMode::Write);
        let job = ImageWrite {
            file: None,
            buffer: Some(buffer),
            position: 0,
            created: false,
            step: Step::Open,
            replay_number: capture.replay_number,
            item: end.item,
        };
        self.put_new(key, Some(Job::Image(job)));
    }

    /// The older image: the one to overwrite.
    fn image_path(&self) -> std::path::PathBuf {
        let newest = self.checkpoint.newest;
        let older = if mutation::is(Mutation::OverwriteNewestImage) { newest } else { 1 - newest };
        self.lane_dir.join(IMAGE_FILES[older])
    }

    pub(super) fn image_done(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: ImageWrite,
        done: Done,
    ) -> Option<ImageWrite> {
        if self.fenced.is_some() {
            return None;
        }
        match (job.step, done.outcome()) {
            (Step::Open, Err(IoError::NotFound)) => {
                job.step = Step::OpenNew;
                job.created = true;
                ring.open(self.jobs.token(key), &self.image_path(), OpenMode::CreateNew);
            }
            // The newest image stays as it is: this one is made anew when there is space. On a file system that
            // reserves none, only the write finds out.
            (Step::Open | Step::OpenNew | Step::Allocate, Err(IoError::NoSpace | IoError::NoDescriptors))
            | (Step::Write, Err(IoError::NoSpace)) => {
                self.cycle.paused_until = Some(self.now.plus_ms(500));
                self.checkpoint.state = State::None;
                self.cycle.phase = Phase::Idle;
                if let Some(file) = job.file {
                    ring.close(file);
                }
                return None;
            }
            (Step::Open | Step::OpenNew, Ok(())) => {
                let Done::Opened(Ok(file)) = done else { panic!("an open file comes with its id") };
                job.file = Some(file);
                job.step = Step::Allocate;
                let bytes = job.buffer.as_ref().expect("not in flight").len() as u64;
                ring.allocate(self.jobs.token(key), file, 0, bytes);
            }
            // A filesystem that can't reserve space is written to without.
            (Step::Allocate, _) => {
                let buffer = job.buffer.take().expect("not in flight");
                self.image_write_next(ring, key, &mut job, buffer);
            }
            (_, Err(error)) => {
                self.fence(format!(
                    "write of the checkpoint of lane {} failed: {error}",
                    self.options.lane.0
                ));
                return None;
            }
            (Step::Write, Ok(())) => {
                let buffer = done.into_buffer();
                if job.position < buffer.len() {
                    self.image_write_next(ring, key, &mut job, buffer);
                } else {
                    self.stats.checkpoint_bytes += buffer.len() as u64;
                    job.step = Step::Flush;
                    ring.flush(self.jobs.token(key), job.file.expect("opened"));
                }
            }
            (Step::Flush, Ok(())) if job.created => {
                job.step = Step::FlushDir;
                self.jobs.flush_dir(ring, key, &self.lane_dir.join("checkpoint"));
            }
            (Step::Flush | Step::FlushDir, Ok(())) => {
                self.image_end(ring, &job);
                return None;
            }
        }
        Some(job)
    }

    fn image_write_next(&mut self, ring: &mut Ring, key: Key, job: &mut ImageWrite, buffer: IoBuffer) {
        let from = job.position;
        let to = buffer.len().min(from + WRITE_BYTES_MAX);
        job.position = to;
        job.step = Step::Write;
        let file = job.file.expect("opened");
        ring.write(self.jobs.token(key), file, from as u64, buffer, from..to, WriteMode::Plain);
    }

    fn image_end(&mut self, ring: &mut Ring, job: &ImageWrite) {
        ring.close(job.file.expect("opened"));
        self.checkpoint.generation += 1;
        self.checkpoint.newest = 1 - self.checkpoint.newest;
        self.checkpoint.state = State::None;
        self.checkpoint.item_imaged = job.item;
        // In front of whatever is written into the files that become free now.
        let header = EntryHeader::new(EntryKind::ImageDurable, 0, 0, self.checkpoint.generation);
        self.journal.push_lazily(header, &[]);
        self.cycle.phase = Phase::Idle;
        let free_before = self.journal.free.len();
        self.journal.recycle_before(job.replay_number);
        self.stats.recycled_files_count += (self.journal.free.len() - free_before) as u64;
        self.stats.checkpoints_count += 1;
    }
}

/// Header, rows and zeros to the next block.
pub(super) fn image_bytes(header: &mut ImageHeader, payload: &[u8]) -> IoBuffer {
    header.seal();
    let mut buffer = IoBuffer::new(blocks_up((ImageHeader::BYTES + payload.len()) as u64) as usize);
    buffer[..ImageHeader::BYTES].copy_from_slice(header.as_bytes());
    buffer[ImageHeader::BYTES..ImageHeader::BYTES + payload.len()].copy_from_slice(payload);
    buffer
}

// ---- Rows ------------------------------------------------------------------------------------

fn encode_partition(partition: &PartitionLog, item: u64, out: &mut Vec<u8>) {
    let index_rows_count: usize =
        partition.segments.iter().map(|segment| segment.unsealed_rows().len()).sum();
    let (flushed, flushed_offset) = partition.ends.batch_flushed;
    let row = PartitionRow {
        topic_id: partition.id.topic_id.0,
        partition: I32::new(partition.id.partition.0),
        log: U32::new(partition.number.0),
        item: U64::new(item),
        metadata_epoch: U64::new(partition.metadata_epoch),
        log_start: I64::new(partition.log_start.0),
        log_end: I64::new(partition.log_end.0),
        flushed_segment: U64::new(flushed.segment),
        flushed_position: U64::new(flushed.position),
        flushed_offset: I64::new(flushed_offset.0),
        segment_bytes_max: U64::new(partition.settings.segment_bytes_max),
        segment_ms_max: U64::new(partition.settings.segment_ms_max),
        flags: U32::new(
            if partition.dropping.is_some() { ROW_DROPPING } else { 0 }
                | if partition.damage.is_some() { ROW_DAMAGED } else { 0 },
        ),
        segments_count: U32::new(partition.segments.len() as u32),
        index_rows_count: U32::new(index_rows_count as u32),
        epochs_count: U32::new(partition.epochs.len() as u32),
        producers_count: U32::new(partition.producers.len() as u32),
        leftovers_count: U32::new(partition.leftovers.len() as u32),
        first_dirty: I64::new(partition.first_dirty.0),
        lost_end: I64::new(partition.damage.map_or(-1, Damage::to_disk)),
    };
    out.extend_from_slice(row.as_bytes());
    for segment in &partition.segments {
        out.extend_from_slice(segment.to_row().as_bytes());
    }
    for segment in &partition.segments {
        out.extend_from_slice(segment.unsealed_rows().as_bytes());
    }
    for (epoch, start) in &partition.epochs {
        let row = EpochRow {
            leader_epoch: I32::new(epoch.0),
            reserved: U32::ZERO,
            start_offset: I64::new(start.0),
        };
        out.extend_from_slice(row.as_bytes());
    }
    for row in partition.producers.rows() {
        out.extend_from_slice(row.as_bytes());
    }
    for leftover in &partition.leftovers {
        out.extend_from_slice(leftover.to_row().as_bytes());
    }
}

/// A partition as its row tells, and the item up to which the row reflects the journal.
pub(super) struct DecodedPartition {
    pub(super) partition: PartitionLog,
    pub(super) item: u64,
    pub(super) dropping: bool,
}

fn take<T>(bytes: &mut &[u8]) -> Option<T>
where
    T: FromBytes + KnownLayout + Immutable,
{
    let (value, rest) = T::read_from_prefix(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

/// The next partition of an image's payload; None when its bytes don't make one.
pub(super) fn decode_partition(bytes: &mut &[u8], lane_dir: &std::path::Path) -> Option<DecodedPartition> {
    let row: PartitionRow = take(bytes)?;
    let mut segment_rows = Vec::new();
    for _ in 0..row.segments_count.get() {
        segment_rows.push(take::<SegmentRow>(bytes)?);
    }
    let mut segments = std::collections::VecDeque::new();
    for segment_row in &segment_rows {
        let mut index_rows = Vec::new();
        for _ in 0..segment_row.index_rows_count.get() {
            index_rows.push(take::<IndexRow>(bytes)?);
        }
        segments.push_back(Segment::from_row(segment_row, index_rows));
    }
    if segments.is_empty() {
        return None;
    }
    let id = TopicPartition { topic_id: TopicId(row.topic_id), partition: PartitionId(row.partition.get()) };
    let settings = PartitionSettings {
        segment_bytes_max: row.segment_bytes_max.get(),
        segment_ms_max: row.segment_ms_max.get(),
    };
    let number = LogId(row.log.get());
    let partition_dir = segment::partition_dir(lane_dir, id);
    let mut partition =
        PartitionLog::new(id, number, row.metadata_epoch.get(), settings, partition_dir, segments);
    let flushed = Place::new(row.flushed_segment.get(), row.flushed_position.get());
    partition.segment_index(flushed.segment)?;
    let durable = partition.ends.durable;
    partition.ends = Ends { durable, ..Ends::all_at(flushed, Offset(row.flushed_offset.get())) };
    partition.log_start = Offset(row.log_start.get());
    partition.log_end = Offset(row.log_end.get());
    partition.durable_end = partition.log_end;
    if row.flags.get() & ROW_DAMAGED != 0 {
        partition.damage = Some(Damage::from_disk(row.lost_end.get()));
    }
    for _ in 0..row.epochs_count.get() {
        let row: EpochRow = take(bytes)?;
        partition.epochs.push((LeaderEpoch(row.leader_epoch.get()), Offset(row.start_offset.get())));
    }
    for _ in 0..row.producers_count.get() {
        let row = take::<ProducerRow>(bytes)?;
        if !mutation::is(Mutation::ForgetProducers) {
            partition.producers.insert_row(&row);
        }
    }
    for _ in 0..row.leftovers_count.get() {
        partition.leftovers.push(Segment::from_row(&take::<SegmentRow>(bytes)?, Vec::new()));
    }
    partition.first_dirty = Offset(row.first_dirty.get());
    Some(DecodedPartition { partition, item: row.item.get(), dropping: row.flags.get() & ROW_DROPPING != 0 })
}
