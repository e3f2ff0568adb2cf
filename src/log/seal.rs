//! Seal: gives an ended segment its exact length and its index.
//!
//! Order: roll entry durable, all bytes flushed -> truncate -> index written -> both flushed ->
//! directory flushed -> the next image calls it sealed. A crash in between repeats all of it: the
//! rows are in the checkpoint until then.

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};

use super::format::{INDEX_MAGIC, IndexHeader, Sealed, VERSION, blocks_up};
use super::jobs::{Done, Job};
use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::LogId;
use super::place::Place;
use super::segment::Segment;
use crate::base::checksum::crc32c;
use crate::base::ids::Offset;
use crate::base::slab::Key;
use crate::ring::{FileId, IoBuffer, IoError, OpenMode, Ring, WriteMode};

pub(super) struct Seal {
    log: LogId,
    segment: u64,
    pinned: bool,
    index: Option<FileId>,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Truncate,
    FlushLog,
    OpenIndexNew,
    RemoveIndex,
    WriteIndex,
    FlushIndex,
    FlushDir,
}

/// The bytes of a segment's index file.
pub(super) fn index_bytes(segment: &Segment) -> IoBuffer {
    let rows = segment.rows.as_deref().unwrap_or_default().as_bytes();
    let (max_timestamp, max_timestamp_at) = segment.max_timestamp.unwrap_or((-1, Offset(-1)));
    let mut header = IndexHeader {
        magic: INDEX_MAGIC,
        version: U16::new(VERSION),
        reserved: U16::ZERO,
        header_checksum: U32::ZERO,
        segment: U64::new(segment.id),
        base_offset: I64::new(segment.base_offset.0),
        end_offset: I64::new(segment.end_offset.0),
        log_bytes: U64::new(segment.bytes),
        max_timestamp: I64::new(max_timestamp),
        max_timestamp_at: I64::new(max_timestamp_at.0),
        rows_count: U32::new(segment.rows.as_ref().map_or(0, Vec::len) as u32),
        rows_checksum: U32::new(crc32c(rows)),
        reserved_end: U64::ZERO,
    };
    header.seal();
    let mut buffer = IoBuffer::new(blocks_up((IndexHeader::BYTES + rows.len()) as u64) as usize);
    buffer[..IndexHeader::BYTES].copy_from_slice(header.as_bytes());
    buffer[IndexHeader::BYTES..IndexHeader::BYTES + rows.len()].copy_from_slice(rows);
    buffer
}

impl Lane {
    /// Begins to seal a segment whose roll is durable. False while its bytes aren't flushed or
    /// another job works on the partition.
    pub(super) fn seal_start(&mut self, ring: &mut Ring, log: LogId, segment: u64) -> bool {
        let Some(partition) = self.partitions.get_mut(log) else { return true };
        let Some(found) = partition.segment(segment) else { return true };
        if partition.dropping.is_some() || found.sealed {
            return true;
        }
        if partition.busy || partition.ends.batch_flushed.0 < Place::new(segment, found.bytes) {
            return false;
        }
        partition.busy = true;
        let key = self.jobs.reserve();
        let mut job = Seal { log, segment, pinned: false, index: None, step: Step::Open };
        match self.files.pin(segment) {
            Some(file) => {
                job.pinned = true;
                self.seal_truncate(ring, key, &mut job, file);
            }
            None => {
                let path = self.seal_path(&job, "log");
                ring.open(self.jobs.token(key), &path, OpenMode::Write);
            }
        }
        self.put_new(key, Some(Job::Seal(job)));
        true
    }

    fn seal_path(&self, job: &Seal, suffix: &str) -> std::path::PathBuf {
        let segment = self.seal_segment(job);
        let name = super::segment::file_name(segment.base_offset, segment.id, suffix);
        self.partition(job.log).dir.join(name)
    }

    fn seal_truncate(&mut self, ring: &mut Ring, key: Key, job: &mut Seal, file: FileId) {
        let bytes = self.seal_segment(job).bytes;
        job.step = Step::Truncate;
        ring.truncate(self.jobs.token(key), file, bytes);
    }

    pub(super) fn seal_done(&mut self, ring: &mut Ring, key: Key, mut job: Seal, done: Done) -> Option<Seal> {
        if self.fenced.is_some() {
            return self.seal_end(ring, job);
        }
        match (job.step, done.outcome()) {
            // Of a run that ended, perhaps by a failed flush, before it was sealed.
            (Step::OpenIndexNew, Err(IoError::Exists)) => {
                job.step = Step::RemoveIndex;
                let path = self.seal_path(&job, "index");
                ring.remove_file(self.jobs.token(key), &path);
            }
            (Step::Open | Step::OpenIndexNew, Err(IoError::NoSpace | IoError::NoDescriptors)) => {
                self.cycle.paused_until = Some(self.now.plus_ms(500));
                self.cycle.seals.push_back((job.log, job.segment, 0));
                return self.seal_end(ring, job);
            }
            // An index takes a block or five. Where not even these are left the segment stays
            // unsealed, its rows in the checkpoint.
            (Step::WriteIndex, Err(IoError::NoSpace | IoError::Short { .. })) => {
                self.cycle.paused_until = Some(self.now.plus_ms(500));
                self.cycle.seals.push_back((job.log, job.segment, 0));
                return self.seal_end(ring, job);
            }
            // An earlier run sealed and removed it, and ended before an image said so.
            (Step::Open, Err(IoError::NotFound)) if self.seal_segment(&job).dropping => {
                self.sealed(&job);
                return self.seal_end(ring, job);
            }
            (_, Err(error)) => {
                let path = self.seal_path(&job, "log");
                self.fence(format!("sealing {} failed: {error}", path.display()));
                return self.seal_end(ring, job);
            }
            (Step::Open, Ok(())) => {
                let Done::Opened(Ok(file)) = done else { panic!("an open file comes with its id") };
                let file = self.files.insert(ring, job.segment, file);
                job.pinned = true;
                self.seal_truncate(ring, key, &mut job, file);
            }
            (Step::Truncate, Ok(())) => {
                let file = self.files.pinned(job.segment);
                job.step = Step::FlushLog;
                if mutation::is(Mutation::SealWithoutFlush) {
                    let bytes = self.seal_segment(&job).bytes;
                    ring.truncate(self.jobs.token(key), file, bytes);
                } else {
                    ring.flush(self.jobs.token(key), file);
                }
            }
            (Step::FlushLog | Step::RemoveIndex, Ok(())) => {
                job.step = Step::OpenIndexNew;
                let path = self.seal_path(&job, "index");
                ring.open(self.jobs.token(key), &path, OpenMode::CreateNew);
            }
            (Step::OpenIndexNew, Ok(())) => {
                let Done::Opened(Ok(file)) = done else { panic!("an open file comes with its id") };
                job.index = Some(file);
                job.step = Step::WriteIndex;
                let buffer = index_bytes(self.seal_segment(&job));
                let bytes = buffer.len();
                ring.write(self.jobs.token(key), file, 0, buffer, 0..bytes, WriteMode::Plain);
            }
            (Step::WriteIndex, Ok(())) => {
                job.step = Step::FlushIndex;
                ring.flush(self.jobs.token(key), job.index.expect("opened"));
            }
            (Step::FlushIndex, Ok(())) if mutation::is(Mutation::SealWithoutDirFlush) => {
                self.sealed(&job);
                return self.seal_end(ring, job);
            }
            (Step::FlushIndex, Ok(())) => {
                job.step = Step::FlushDir;
                let dir = self.partition(job.log).dir.clone();
                self.jobs.flush_dir(ring, key, &dir);
            }
            (Step::FlushDir, Ok(())) => {
                self.sealed(&job);
                return self.seal_end(ring, job);
            }
        }
        Some(job)
    }

    fn seal_segment(&self, job: &Seal) -> &Segment {
        self.partition(job.log).segment(job.segment).expect("a segment being sealed stays")
    }

    fn sealed(&mut self, job: &Seal) {
        let partition = self.partitions.get_mut(job.log).expect("a busy partition stays");
        let segment = partition.segment_mut(job.segment).expect("stays");
        segment.sealed = true;
        segment.dropping_after = segment.dropping_after.max(self.journal.item_next);
        segment.padded = false;
        self.reads.cache_rows(&mut self.partitions, job.log, job.segment);
        self.scrub.note_sealed(job.log, job.segment);
        self.stats.seals_count += 1;
    }

    fn seal_end(&mut self, ring: &mut Ring, job: Seal) -> Option<Seal> {
        if job.pinned {
            self.files.unpin(job.segment);
        }
        if let Some(file) = job.index {
            ring.close(file);
        }
        if let Some(partition) = self.partitions.get_mut(job.log) {
            partition.busy = false;
        }
        None
    }
}
