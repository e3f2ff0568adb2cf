//! Row check: holds the headers of a compacted segment against its index before anyone is led by them.
//!
//! What of a header its batch's CRC doesn't cover (base offset, length, leader epoch, magic) is known of a
//! dense segment: each batch begins where the one before it ended. In a sparse one any gap could be right,
//! and only the index can tell, extent by extent: `headers_checksum` covers all headers of a row.
//!
//! Owns:     which extents of a segment this process compared.
//! Promises: of a sealed sparse segment nothing is handed out, and no plan is led by a header, before the
//!           rows that it lies in were compared. Each row once: readers in its middle don't read it again.
//! Never:    checks the batches' bodies: the window that is handed out is checked against their CRCs.
//!
//! Where the index isn't what was written it is made again from the segment itself (`reindex`), and there
//! is nothing left to compare with: such a segment counts as compared.

use std::ops::Range;

use zerocopy::FromBytes;

use super::format::{BLOCK_BYTES, INDEX_MAGIC, IndexHeader, IndexRow, Sealed, VERSION, blocks_up};
use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::ReadError;
use super::read::{Purpose, Read, SCAN_BYTES, Stage, Transferred, WINDOW_BYTES};
use super::reindex::Reindex;
use super::segment::Segment;
use crate::base::checksum::crc32c;
use crate::base::slab::Key;
use crate::protocol::record_batch::HEADER_BYTES;
use crate::ring::Ring;

/// Runs of whole rows that were compared, ascending, with something between any two: never more of them
/// than half the rows of a segment.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckedRows(Vec<Range<u64>>);

impl CheckedRows {
    /// The first run of the bytes `wanted` that isn't in them.
    pub(super) fn first_gap(&self, wanted: Range<u64>) -> Option<Range<u64>> {
        let Range { start: mut from, end: mut to } = wanted;
        let mut known = self.0[self.0.partition_point(|known| known.end <= from)..].iter().peekable();
        if let Some(around) = known.next_if(|known| known.start <= from) {
            from = around.end;
        }
        if let Some(next) = known.next() {
            to = to.min(next.start);
        }
        (from < to).then_some(from..to)
    }

    pub(super) fn note(&mut self, run: Range<u64>) {
        let first = self.0.partition_point(|known| known.end < run.start);
        let behind = self.0.partition_point(|known| known.start <= run.end);
        let touched = &self.0[first..behind];
        let from = touched.first().map_or(run.start, |known| known.start.min(run.start));
        let to = touched.last().map_or(run.end, |known| known.end.max(run.end));
        self.0.splice(first..behind, std::iter::once(from..to));
    }
}

/// Consecutive rows being compared.
pub(super) struct RowCheck {
    /// As the index has them.
    expected: Vec<IndexRow>,
    /// As the headers say, so far.
    found: Reindex,
    from: u64,
    to: u64,
}

impl RowCheck {
    /// The rows that `wanted` lies in, of all `rows` of the segment.
    fn new(segment: &Segment, rows: &[IndexRow], wanted: &Range<u64>) -> Self {
        let first = rows.partition_point(|row| row.position.get() <= wanted.start).saturating_sub(1);
        let behind = rows.partition_point(|row| row.position.get() < wanted.end);
        let expected = rows.get(first..behind).unwrap_or_default().to_vec();
        let found = Reindex::from_row(segment, expected.first());
        let to = rows.get(behind).map_or(segment.bytes, |row| row.position.get());
        Self { expected, from: found.position(), found, to }
    }

    /// Position and size of the next read.
    pub(super) fn next_read(&self) -> (u64, u64) {
        let left = self.to.saturating_sub(self.found.position());
        (self.found.position(), left.clamp(HEADER_BYTES as u64, (WINDOW_BYTES - BLOCK_BYTES) as u64))
    }
}

impl Lane {
    /// What is to be read before the job's purpose can be.
    pub(super) fn stage_of(&self, job: &Read) -> Stage {
        let wanted = match &job.purpose {
            Purpose::Index { .. } => return Stage::Index,
            Purpose::Plan { at, .. } => at.position..blocks_up(at.position + SCAN_BYTES as u64),
            Purpose::Window { at, bytes, .. } => at.position..at.position + bytes,
        };
        let segment = self.partition(job.log).leased(job.segment).expect("a leased segment stays");
        let Some(gap) = segment.unchecked(wanted) else { return Stage::Purpose };
        match &segment.rows {
            Some(rows) => Stage::Rows(RowCheck::new(segment, rows, &gap)),
            None => Stage::Index,
        }
    }

    pub(super) fn index_step(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Read,
        read: Transferred,
    ) -> Option<Read> {
        let rows = decode_index(read.data(), job.segment);
        job.buffer = Some(read.buffer);
        let Some(rows) = rows else { return self.reindex_start(ring, key, job) };
        let file = job.index_file.take().expect("it was read from");
        ring.close(file);
        let partition = self.partitions.get_mut(job.log).expect("a leased segment stays");
        partition.leased_mut(job.segment).expect("a leased segment stays").rows = Some(rows);
        // One that was replaced keeps its rows as long as its leases.
        if partition.segment(job.segment).is_some() {
            self.reads.cache_rows(&mut self.partitions, job.log, job.segment);
        }
        self.read_with_rows(ring, key, job)
    }

    /// Goes on with what the rows were wanted for.
    pub(super) fn read_with_rows(&mut self, ring: &mut Ring, key: Key, job: Read) -> Option<Read> {
        match job.purpose {
            Purpose::Index { request, start } => self.read_replan(ring, job, request, start),
            Purpose::Plan { .. } | Purpose::Window { .. } => self.read_next(ring, key, job),
        }
    }

    pub(super) fn rows_step(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Read,
        read: Transferred,
    ) -> Option<Read> {
        let Stage::Rows(mut check) = job.stage else { panic!("the caller looked") };
        let taken = check.found.take(read.data(), read.position, check.to);
        job.buffer = Some(read.buffer);
        if taken && check.found.position() < check.to {
            job.stage = Stage::Rows(check);
            return self.read_open(ring, key, job);
        }
        job.stage = Stage::Purpose;
        if !taken || !check.found.has_rows(&check.expected) {
            let path = self.read_path(&job, "log");
            let what = match taken {
                true => "the headers there aren't those of its index".to_owned(),
                false => format!("no batch begins at {}", check.found.position()),
            };
            let what = format!("{} from {} to {}: {what}", path.display(), check.from, check.to);
            return self.read_fail(ring, job, ReadError::Damaged(what));
        }
        let partition = self.partitions.get_mut(job.log).expect("a leased segment stays");
        let segment = partition.leased_mut(job.segment).expect("a leased segment stays");
        segment.checked.note(check.from..check.to);
        self.read_next(ring, key, job)
    }
}

/// The rows of an index file; None where it isn't whole and of this segment.
pub(super) fn decode_index(bytes: &[u8], segment: u64) -> Option<Vec<IndexRow>> {
    let (header, rest) = IndexHeader::read_from_prefix(bytes).ok()?;
    let fits = header.magic == INDEX_MAGIC
        && header.version.get() == VERSION
        && header.is_intact()
        && header.segment.get() == segment;
    let row_bytes = rest.get(..header.rows_count.get() as usize * size_of::<IndexRow>())?;
    let trusts = mutation::is(Mutation::TrustDamagedIndex);
    if !trusts && (!fits || crc32c(row_bytes) != header.rows_checksum.get()) {
        return None;
    }
    row_bytes.chunks_exact(size_of::<IndexRow>()).map(|row| IndexRow::read_from_bytes(row).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    #[test]
    fn gaps_are_those_of_a_look_at_every_byte() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let (mut checked, mut plain) = (CheckedRows::default(), [false; 40]);
            for _ in 0..20 {
                let from = random.below(39);
                let to = from + 1 + random.below(40 - from);
                let is_known = |byte: &u64| plain[*byte as usize];
                let first = (from..to).find(|byte| !is_known(byte));
                let gap = first.map(|first| first..(first..to).find(is_known).unwrap_or(to));
                assert_eq!(checked.first_gap(from..to), gap, "seed {seed}: {checked:?}");
                if random.chance(1, 2) {
                    checked.note(from..to);
                    plain[from as usize..to as usize].fill(true);
                }
                assert!(checked.0.windows(2).all(|two| two[0].end < two[1].start), "seed {seed}");
            }
        }
    }
}
