//! Record batch: Kafka's format v2 (magic 2), the unit that is produced, stored, and fetched.
//!
//! The bytes between `base_offset` and `crc` (offset, length, leader epoch, magic) lie outside the
//! checksum, so a broker assigns offset and epoch without touching it.

use crate::base::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Record batch header: 61 bytes, big-endian, magic 2.
///
/// | at | bytes | field                  | meaning                                           | valid  |
/// |----|-------|------------------------|---------------------------------------------------|--------|
/// |  0 |     8 | base_offset            | offset of the first record; set by the broker     | >= 0   |
/// |  8 |     4 | batch_length           | bytes after this field                            | >= 49  |
/// | 12 |     4 | partition_leader_epoch | epoch of the leader that appended it              | >= -1  |
/// | 16 |     1 | magic                  | format                                            | 2      |
/// | 17 |     4 | crc                    | CRC-32C of everything from `attributes`           |        |
/// | 21 |     2 | attributes             | bits 0-2 codec, 3 log append time, 4 transactional, 5 control, 6 delete horizon | |
/// | 23 |     4 | last_offset_delta      | offset of the last record minus the base offset   | >= 0   |
/// | 27 |     8 | base_timestamp         | of the first record, ms                           |        |
/// | 35 |     8 | max_timestamp          | largest of the batch, ms                          |        |
/// | 43 |     8 | producer_id            | -1 without idempotence                            | >= -1  |
/// | 51 |     2 | producer_epoch         |                                                   | >= -1  |
/// | 53 |     4 | base_sequence          | sequence number of the first record               | >= -1  |
/// | 57 |     4 | records_count          | records that follow                               | >= 0   |
///
/// Source: Kafka's `DefaultRecordBatch`, KIP-98.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    pub base_offset: I64,
    pub batch_length: I32,
    pub partition_leader_epoch: I32,
    pub magic: i8,
    pub crc: U32,
    pub attributes: I16,
    pub last_offset_delta: I32,
    pub base_timestamp: I64,
    pub max_timestamp: I64,
    pub producer_id: I64,
    pub producer_epoch: I16,
    pub base_sequence: I32,
    pub records_count: I32,
}

pub const HEADER_BYTES: usize = 61;
/// Base offset and batch length: what precedes the bytes counted by `batch_length`.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// The checksum covers everything from here.
pub const CRC_START: usize = 21;

const _: () = assert!(size_of::<BatchHeader>() == HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(BatchHeader, crc) == 17);
const _: () = assert!(std::mem::offset_of!(BatchHeader, attributes) == CRC_START);
const _: () = assert!(std::mem::offset_of!(BatchHeader, records_count) == 57);

impl BatchHeader {
    /// The header at the start of `bytes`; `None` when they are fewer than 61. Checks nothing else.
    pub fn view(bytes: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Bytes of the whole batch; `None` when the length field is too small to be one.
    pub fn size_bytes(&self) -> Option<usize> {
        let length = usize::try_from(self.batch_length.get()).ok()?;
        (length >= HEADER_BYTES - LOG_OVERHEAD_BYTES).then_some(length + LOG_OVERHEAD_BYTES)
    }

    pub fn base_offset(&self) -> Offset {
        Offset(self.base_offset.get())
    }

    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.get() + i64::from(self.last_offset_delta.get()))
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.partition_leader_epoch.get())
    }

    /// The producer of an idempotent batch.
    pub fn producer(&self) -> Option<(ProducerId, ProducerEpoch)> {
        (self.producer_id.get() >= 0)
            .then_some((ProducerId(self.producer_id.get()), ProducerEpoch(self.producer_epoch.get())))
    }

    /// Sequence number of the last record; sequences wrap from 2^31 - 1 to 0.
    pub fn last_sequence(&self) -> i32 {
        increment_sequence(self.base_sequence.get(), self.last_offset_delta.get())
    }

    /// Codec number of the attributes: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd, 5 to 7 unknown.
    pub fn codec_number(&self) -> u8 {
        (self.attributes.get() & 7) as u8
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes.get() & 0x08 != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes.get() & 0x10 != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes.get() & 0x20 != 0
    }
}

/// `sequence + count` in Kafka's wrapping arithmetic over 0..=2^31-1.
pub fn increment_sequence(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (1 << 31)) as i32
}
