//! Format: every byte of our own on disk. Little-endian; each format has its table and its version.
//!
//! Owns:     layouts, magic numbers and versions of the journal, the checkpoint images and the indexes.
//! Promises: a change of a layout changes its version; sizes and positions are asserted when compiling.
//! Never:    reads or writes a file. Segments (`.log`) hold Kafka's record batches and nothing else.
//! Called by everything in `log` that touches bytes on disk.

mod checkpoint;
mod index;
mod journal;
mod segment_id;

pub(super) use checkpoint::{
    EpochRow, IMAGE_MAGIC, ImageHeader, PartitionRow, ProducerBatchRow, ProducerRow, ROW_DAMAGED,
    ROW_DROPPING, SEGMENT_CREATED, SEGMENT_DROPPING, SEGMENT_ROLLED, SEGMENT_SEALED, SEGMENT_SPARSE,
    SegmentRow,
};
pub(super) use index::{INDEX_MAGIC, IndexHeader, IndexRow};
pub(super) use journal::{
    CreatePayload, DamagedPayload, EntryHeader, EntryKind, GROUP_MAGIC, GroupHeader, MORE_PIECES,
    READY_MAGIC, ReadyStamp, ReplacePayload, RollPayload,
};
pub(super) use segment_id::{cleaned_id, generations_end, rolled_id};

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::base::checksum::crc32c;

/// The version of every format below. A file with a larger one is refused, never guessed at.
pub(super) const VERSION: u16 = 1;

/// Everything on disk but Kafka's bytes begins at a multiple of this.
pub(super) const BLOCK_BYTES: usize = crate::ring::buffer::ALIGNMENT_BYTES;

/// `bytes` up to the next whole block.
pub(super) const fn blocks_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// `bytes` down to the block that contains it.
pub(super) const fn blocks_down(bytes: u64) -> u64 {
    bytes - bytes % BLOCK_BYTES as u64
}

/// A fixed layout that begins with its magic and carries a checksum of itself.
pub(super) trait Sealed: FromBytes + IntoBytes + Immutable + KnownLayout + Copy {
    fn checksum_field(&mut self) -> &mut U32;

    fn computed_checksum(&self) -> u32 {
        let mut zeroed = *self;
        *zeroed.checksum_field() = U32::ZERO;
        crc32c(zeroed.as_bytes())
    }

    /// Fills the checksum in: the last step before the bytes are written.
    fn seal(&mut self) {
        let checksum = self.computed_checksum();
        *self.checksum_field() = U32::new(checksum);
    }

    fn is_intact(&self) -> bool {
        let mut copy = *self;
        copy.checksum_field().get() == self.computed_checksum()
    }
}
