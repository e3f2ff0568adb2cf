//! Reindex: makes the index of a sealed segment again, where the file isn't what was written.
//!
//! Order: rows from the batches' headers -> the segment counts as unsealed, its rows in memory and in the
//! checkpoint -> sealed again, as any other. The read that found it waits for the rows only.

use zerocopy::IntoBytes;

use super::format::IndexRow;
use super::lane::Lane;
use super::options::{LogId, ReadError};
use super::read::{Read, Stage, Transferred};
use super::segment::Segment;
use crate::base::ids::Offset;
use crate::base::slab::Key;
use crate::protocol::record_batch::BatchHeader;
use crate::ring::Ring;

/// The rows so far.
pub(super) struct Reindex(Box<Segment>);

impl Reindex {
    pub(super) fn new(segment: &Segment) -> Self {
        let blank = Segment::new(segment.id, segment.base_offset, segment.wall_ms, 0);
        Self(Box::new(Segment { row_bytes: segment.row_bytes, ..blank }))
    }

    /// As if all in front of `row` were noted.
    pub(super) fn from_row(segment: &Segment, row: Option<&IndexRow>) -> Self {
        let mut rows = Self::new(segment);
        if let Some(row) = row {
            rows.0.bytes = row.position.get();
            rows.0.end_offset = Offset(row.base_offset.get());
        }
        rows
    }

    /// Where the next batch begins.
    pub(super) fn position(&self) -> u64 {
        self.0.bytes
    }

    /// Takes the batches in whose headers are in `data`, read from `position` on, up to `end`. False where
    /// none of these offsets begins.
    pub(super) fn take(&mut self, data: &[u8], position: u64, end: u64) -> bool {
        let before = self.0.bytes;
        while self.0.bytes < end {
            let at = (self.0.bytes - position) as usize;
            let Some(header) = data.get(at..).and_then(BatchHeader::view) else {
                return self.0.bytes > before;
            };
            let Some(bytes) = self.size_of_next(header, end) else { return false };
            self.note(header, bytes);
        }
        true
    }

    /// Bytes of the next batch, where it can be one of this segment, which has `end`.
    pub(super) fn size_of_next(&self, header: &BatchHeader, end: u64) -> Option<usize> {
        let size = header.size_bytes().filter(|size| self.0.bytes + *size as u64 <= end);
        let in_order = header.base_offset() >= self.0.end_offset && header.last_offset_delta.get() >= 0;
        size.filter(|_| header.magic == 2 && in_order)
    }

    pub(super) fn note(&mut self, header: &BatchHeader, bytes: usize) {
        self.0.note(header, bytes as u64, self.0.wall_ms);
    }

    pub(super) fn has_rows(&self, rows: &[IndexRow]) -> bool {
        self.0.rows.as_deref().unwrap_or_default().as_bytes() == rows.as_bytes()
    }

    fn into_rows(self) -> Option<Vec<IndexRow>> {
        self.0.rows
    }
}

impl Lane {
    /// A job that wanted the index reads the segment instead.
    pub(super) fn reindex_start(&mut self, ring: &mut Ring, key: Key, mut job: Read) -> Option<Read> {
        if let Some(file) = job.index_file.take() {
            ring.close(file);
        }
        let segment = self.partition(job.log).leased(job.segment).expect("a leased segment stays");
        job.stage = Stage::Reindex(Reindex::new(segment));
        self.read_open(ring, key, job)
    }

    pub(super) fn reindex_step(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Read,
        read: Transferred,
    ) -> Option<Read> {
        let Stage::Reindex(mut rows) = job.stage else { panic!("the caller looked") };
        let segment = self.partition(job.log).leased(job.segment).expect("a leased segment stays");
        let end = segment.bytes;
        let taken = rows.take(read.data(), read.position, end);
        job.buffer = Some(read.buffer);
        if taken && rows.position() < end {
            job.stage = Stage::Reindex(rows);
            return self.read_open(ring, key, job);
        }
        job.stage = Stage::Purpose;
        if !taken {
            let path = self.read_path(&job, "log");
            let what = format!("no batch begins at {} of {}", rows.position(), path.display());
            return self.read_fail(ring, job, ReadError::Damaged(what));
        }
        self.reindexed(job.log, job.segment, rows);
        self.read_with_rows(ring, key, job)
    }

    /// Another read may have been faster. Nothing is left to compare the headers with: they count as checked.
    pub(super) fn reindexed(&mut self, log: LogId, segment: u64, rows: Reindex) {
        let Some(partition) = self.partitions.get_mut(log) else { return };
        if let Some(leased) = partition.leased_mut(segment) {
            leased.checked.note(0..leased.bytes);
        }
        let Some(found) = partition.segment_mut(segment) else { return };
        if found.sealed {
            found.rows = rows.into_rows();
            found.sealed = false;
            self.cycle.seals.push_back((log, segment, 0));
            self.stats.indexes_rebuilt_count += 1;
        }
    }
}
