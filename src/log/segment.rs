//! Segment: one file of a partition's log, and the rows that lead into it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I64, U32, U64};

use super::format::{
    IndexRow, SEGMENT_CREATED, SEGMENT_DROPPING, SEGMENT_ROLLED, SEGMENT_SEALED, SEGMENT_SPARSE, SegmentRow,
};
use super::row_check::CheckedRows;
use crate::base::checksum::crc32c;
use crate::base::ids::{Offset, TopicPartition};
use crate::protocol::record_batch::{BatchHeader, HEADER_BYTES};

/// A full segment has at most this many index rows: 16 KiB of memory and of checkpoint.
const ROWS_PER_SEGMENT: u64 = 512;
const ROW_BYTES_MIN: u64 = 4 << 10;

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) base_offset: Offset,
    /// One past the last record: the next segment's base offset.
    pub(super) end_offset: Offset,
    /// Appended; final once rolled.
    pub(super) bytes: u64,
    /// Wall time of the first append; of the roll until there is one.
    pub(super) wall_ms: i64,
    /// Largest timestamp and the base offset of its batch.
    pub(super) max_timestamp: Option<(i64, Offset)>,
    /// The file exists and its directory entry is durable.
    pub(super) created: bool,
    /// This process made the file. One that it finds instead, of a run whose flush failed, may never
    /// become durable, whatever a later flush says: it is removed and made again.
    pub(super) made: bool,
    /// A newer segment follows.
    pub(super) rolled: bool,
    /// The file has its exact length, and its index is beside it.
    pub(super) sealed: bool,
    /// Each batch begins with the offset behind the one before it: else it isn't what was written.
    pub(super) dense: bool,
    /// Below the log start: to be deleted once all items below `dropping_after` are durable. They are
    /// the one that moved the log start, and what says that the segment is wholly in its file: else a
    /// recovery would go on writing to a file that is gone.
    pub(super) dropping: bool,
    pub(super) dropping_after: u64,
    /// Bytes allocated ahead, as far as this process knows.
    pub(super) allocated: u64,
    /// The file ends with zeros: of its last block, and of the space allocated ahead.
    pub(super) padded: bool,
    /// Plans that read from it.
    pub(super) leases: u32,
    /// Read from disk and checked by this process.
    pub(super) verified: Option<VerifiedRun>,
    /// Compared with the index by this process, where that is asked for (`unchecked`).
    pub(super) checked: CheckedRows,
    /// Bytes per row aimed at.
    pub(super) row_bytes: u64,
    /// None when sealed and not in memory.
    pub(super) rows: Option<Vec<IndexRow>>,
}

/// A run of whole batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VerifiedRun {
    pub(super) from: u64,
    pub(super) to: u64,
    /// The offset behind the last batch.
    pub(super) next: Offset,
}

impl VerifiedRun {
    pub(super) fn contains(&self, position: u64) -> bool {
        (self.from..self.to).contains(&position)
    }

    /// The offset that follows `position`, where that is the run's end.
    pub(super) fn offset_at(&self, position: u64) -> Option<Offset> {
        (position == self.to).then_some(self.next)
    }
}

/// The files of a segment, as Kafka names them, with our id between.
pub(super) fn file_name(base_offset: Offset, id: u64, suffix: &str) -> String {
    format!("{:020}.{id}.{suffix}", base_offset.0)
}

/// What holds the directories of a lane's partitions. No other lane makes names in it: were it shared,
/// a failed flush by one lane would lose the names of another, whose own flush then succeeds.
pub(super) fn partitions_dir(lane_dir: &Path) -> PathBuf {
    lane_dir.join("partitions")
}

/// `<lane dir>/partitions/<topic id in hex>-<partition>`.
pub(super) fn partition_dir(lane_dir: &Path, id: TopicPartition) -> PathBuf {
    partitions_dir(lane_dir).join(format!("{}-{}", id.topic_id.to_hex(), id.partition.0))
}

impl Segment {
    pub(super) fn new(id: u64, base_offset: Offset, wall_ms: i64, segment_bytes_max: u64) -> Self {
        Self {
            id,
            base_offset,
            end_offset: base_offset,
            bytes: 0,
            wall_ms,
            max_timestamp: None,
            created: false,
            made: false,
            rolled: false,
            sealed: false,
            dense: true,
            dropping: false,
            dropping_after: 0,
            allocated: 0,
            padded: false,
            leases: 0,
            verified: None,
            checked: CheckedRows::default(),
            row_bytes: (segment_bytes_max / ROWS_PER_SEGMENT).max(ROW_BYTES_MIN),
            rows: Some(Vec::new()),
        }
    }

    /// The offset of the batch at `position`, where an index row begins there.
    pub(super) fn offset_at(&self, position: u64) -> Option<Offset> {
        let rows = self.rows.as_deref()?;
        let row = rows.binary_search_by_key(&position, |row| row.position.get()).ok()?;
        Some(Offset(rows[row].base_offset.get()))
    }

    /// The first run of the bytes `wanted` whose headers must be compared with the index before they are
    /// believed.
    pub(super) fn unchecked(&self, wanted: Range<u64>) -> Option<Range<u64>> {
        let comparable = self.sealed && !self.dense;
        let wanted = wanted.start..wanted.end.min(self.bytes);
        if comparable { self.checked.first_gap(wanted) } else { None }
    }

    /// Takes a run of whole batches that was checked. It only grows: a plan may stand anywhere in it.
    pub(super) fn note_verified(&mut self, run: VerifiedRun) {
        let Some(known) = &mut self.verified else {
            self.verified = Some(run);
            return;
        };
        if run.from > known.to || run.to < known.from {
            return;
        }
        known.from = known.from.min(run.from);
        if run.to > known.to {
            (known.to, known.next) = (run.to, run.next);
        }
    }

    pub(super) fn log_path(&self, partition_dir: &Path) -> PathBuf {
        partition_dir.join(file_name(self.base_offset, self.id, "log"))
    }

    pub(super) fn index_path(&self, partition_dir: &Path) -> PathBuf {
        partition_dir.join(file_name(self.base_offset, self.id, "index"))
    }

    /// Takes a batch in that was appended at the end.
    pub(super) fn note(&mut self, header: &BatchHeader, size_bytes: u64, wall_ms: i64) {
        assert!(!self.rolled, "only the newest segment is appended to");
        if self.bytes == 0 {
            self.wall_ms = wall_ms;
        }
        let timestamp = newest_of(header);
        let base_offset = header.base_offset();
        self.note_row(header);
        self.dense &= header.base_offset() == self.end_offset;
        if timestamp >= 0 && self.max_timestamp.is_none_or(|(max, _)| timestamp > max) {
            self.max_timestamp = Some((timestamp, base_offset));
        }
        self.bytes += size_bytes;
        self.end_offset = header.last_offset().plus(1);
    }

    fn note_row(&mut self, header: &BatchHeader) {
        let (position, base_offset) = (self.bytes, header.base_offset());
        let rows = self.rows.as_mut().expect("the newest segment has its rows in memory");
        let fits = |row: &IndexRow| {
            position - row.position.get() < self.row_bytes
                && base_offset.0 - row.base_offset.get() <= i64::from(u32::MAX)
        };
        if !rows.last().is_some_and(fits) {
            rows.push(IndexRow::new(position, base_offset));
        }
        rows.last_mut().expect("one was pushed where none was").note(header);
    }

    /// Ends the segment for good at `position`, where `offset` would begin. Of the row that `position` lies
    /// in, the checksum and the largest timestamp must be reckoned again.
    pub(super) fn truncate_suffix(&mut self, position: u64, offset: Offset) {
        assert!(position <= self.bytes && !self.sealed, "what is sealed is flushed");
        self.bytes = position;
        self.end_offset = offset;
        self.rolled = true;
        let rows = self.rows.as_mut().expect("an unsealed segment has its rows in memory");
        rows.retain(|row| row.position.get() < position);
        self.note_max_timestamp();
    }

    /// Makes the last row anew, from the headers of all batches in it.
    pub(super) fn reckon_last_row(&mut self, headers: &[BatchHeader]) {
        let Some(row) = self.rows.as_mut().and_then(|rows| rows.last_mut()) else { return };
        row.clear();
        headers.iter().for_each(|header| row.note(header));
        self.note_max_timestamp();
    }

    /// The largest timestamp, from the rows.
    pub(super) fn note_max_timestamp(&mut self) {
        let rows = self.rows.iter().flatten().filter(|row| row.max_timestamp.get() >= 0);
        let of_row = |row: &IndexRow| {
            let at = row.base_offset.get() + i64::from(row.max_timestamp_delta.get());
            (row.max_timestamp.get(), Offset(at))
        };
        self.max_timestamp = rows.map(of_row).reduce(|best, row| if row.0 > best.0 { row } else { best });
    }

    pub(super) fn to_row(&self) -> SegmentRow {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let (max_timestamp, max_timestamp_at) = self.max_timestamp.unwrap_or((-1, Offset(-1)));
        SegmentRow {
            segment: U64::new(self.id),
            base_offset: I64::new(self.base_offset.0),
            end_offset: I64::new(self.end_offset.0),
            bytes: U64::new(self.bytes),
            wall_ms: I64::new(self.wall_ms),
            max_timestamp: I64::new(max_timestamp),
            max_timestamp_at: I64::new(max_timestamp_at.0),
            flags: U32::new(
                flag(self.created, SEGMENT_CREATED)
                    | flag(self.rolled, SEGMENT_ROLLED)
                    | flag(self.sealed, SEGMENT_SEALED)
                    | flag(self.dropping, SEGMENT_DROPPING)
                    | flag(!self.dense, SEGMENT_SPARSE),
            ),
            index_rows_count: U32::new(self.unsealed_rows().len() as u32),
            row_bytes: U64::new(self.row_bytes),
        }
    }

    /// The rows that only the checkpoint has: a sealed segment's are in its index file.
    pub(super) fn unsealed_rows(&self) -> &[IndexRow] {
        match &self.rows {
            Some(rows) if !self.sealed => rows,
            _ => &[],
        }
    }

    pub(super) fn from_row(row: &SegmentRow, index_rows: Vec<IndexRow>) -> Self {
        let is = |flag: u32| row.flags.get() & flag != 0;
        let max_timestamp = row.max_timestamp.get();
        Self {
            id: row.segment.get(),
            base_offset: Offset(row.base_offset.get()),
            end_offset: Offset(row.end_offset.get()),
            bytes: row.bytes.get(),
            wall_ms: row.wall_ms.get(),
            max_timestamp: (max_timestamp >= 0)
                .then_some((max_timestamp, Offset(row.max_timestamp_at.get()))),
            created: is(SEGMENT_CREATED),
            made: false,
            rolled: is(SEGMENT_ROLLED),
            sealed: is(SEGMENT_SEALED),
            dropping: is(SEGMENT_DROPPING),
            dense: !is(SEGMENT_SPARSE),
            dropping_after: 0,
            allocated: 0,
            padded: !is(SEGMENT_SEALED),
            leases: 0,
            verified: None,
            checked: CheckedRows::default(),
            row_bytes: row.row_bytes.get().max(ROW_BYTES_MIN),
            rows: (!is(SEGMENT_SEALED)).then_some(index_rows),
        }
    }
}

impl IndexRow {
    fn new(position: u64, base_offset: Offset) -> Self {
        Self {
            position: U64::new(position),
            base_offset: I64::new(base_offset.0),
            max_timestamp: I64::new(-1),
            max_timestamp_delta: U32::ZERO,
            headers_checksum: U32::ZERO,
        }
    }

    /// As it was before its first batch.
    fn clear(&mut self) {
        *self = Self::new(self.position.get(), Offset(self.base_offset.get()));
    }

    /// Takes the next batch of its extent in.
    fn note(&mut self, header: &BatchHeader) {
        let timestamp = newest_of(header);
        if timestamp > self.max_timestamp.get() {
            self.max_timestamp = I64::new(timestamp);
            let delta = header.base_offset().0 - self.base_offset.get();
            self.max_timestamp_delta = U32::new(delta as u32);
        }
        self.headers_checksum = U32::new(chain(self.headers_checksum.get(), header));
    }
}

/// The largest timestamp of a batch's records; -1: none. An emptied batch keeps its time, but no record has it.
fn newest_of(header: &BatchHeader) -> i64 {
    if header.records_count.get() == 0 { -1 } else { header.max_timestamp.get() }
}

/// The next link of a row's checksum over batch headers.
pub(super) fn chain(previous: u32, header: &BatchHeader) -> u32 {
    let mut link = [0; 4 + HEADER_BYTES];
    link[..4].copy_from_slice(&previous.to_le_bytes());
    link[4..].copy_from_slice(header.as_bytes());
    crc32c(&link)
}
