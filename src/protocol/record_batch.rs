//! Record batch: Kafka's format v2 (magic 2), the unit that is produced, stored, and fetched.
//!
//! The bytes between `base_offset` and `crc` (offset, length, leader epoch, magic) lie outside the
//! checksum, so a broker assigns offset and epoch without touching it.

use crate::base::checksum::crc32c;
use crate::base::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, WallMs};
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
/// | 27 |     8 | base_timestamp         | of the first record, or the delete horizon, ms    |        |
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

/// Position of the magic in the formats 0, 1 and 2 alike.
const MAGIC_AT: usize = 16;

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

    /// From when on the tombstones in it may go (KIP-534). The first record's time is stored there, then.
    pub fn delete_horizon(&self) -> Option<WallMs> {
        let is_set = self.attributes.get() & DELETE_HORIZON_ATTRIBUTE != 0;
        is_set.then(|| WallMs(self.base_timestamp.get()))
    }

    pub fn is_control(&self) -> bool {
        self.attributes.get() & 0x20 != 0
    }
}

/// `sequence + count` in Kafka's wrapping arithmetic over 0..=2^31-1.
pub fn increment_sequence(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (1 << 31)) as i32
}

/// Set by a compaction.
pub(in crate::protocol) const DELETE_HORIZON_ATTRIBUTE: i16 = 0x40;

/// Attribute bits a client may set: codec, timestamp type, transactional, control.
const CLIENT_ATTRIBUTES: i16 = 0x3f;

/// Why bytes are not one batch a client may write. The code Kafka answers with is named for each; the
/// mapping itself is the API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// No bytes at all: `INVALID_RECORD`.
    Missing,
    /// Another batch follows the first: `INVALID_RECORD`.
    SecondBatch,
    /// Message format 0 or 1: `INVALID_RECORD`.
    OldMagic,
    /// No message format: `CORRUPT_MESSAGE`.
    UnknownMagic,
    /// The length field and the bytes disagree: `CORRUPT_MESSAGE`.
    Length,
    /// CRC-32C is wrong: `CORRUPT_MESSAGE`.
    Checksum,
    /// Record count and last offset delta disagree, or there is no record: `INVALID_RECORD`.
    Counts,
    /// The base offset is not 0: `INVALID_RECORD`.
    BaseOffset,
    /// A control batch: `INVALID_RECORD`.
    Control,
    /// Attribute bits without a meaning, or that only a broker sets: `INVALID_RECORD`.
    Attributes,
    /// Codec 5 to 7: `INVALID_RECORD`.
    UnknownCodec,
    /// A producer id without sequence or epoch, or a transaction without producer: `INVALID_RECORD`.
    Sequence,
    /// The client claims log append time: `INVALID_TIMESTAMP`.
    TimestampType,
}

impl std::fmt::Display for BatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no record batch",
            Self::SecondBatch => "there is more than one record batch",
            Self::OldMagic => "the record batch is of message format 0 or 1",
            Self::UnknownMagic => "the record batch is of an unknown message format",
            Self::Length => "the record batch's length is wrong",
            Self::Checksum => "the record batch's checksum is wrong",
            Self::Counts => "the record batch's record count and offsets disagree",
            Self::BaseOffset => "the record batch's base offset is not 0",
            Self::Control => "clients do not write control batches",
            Self::Attributes => "the record batch has unknown attributes",
            Self::UnknownCodec => "the record batch has an unknown compression codec",
            Self::Sequence => "the record batch's producer id, epoch and sequence disagree",
            Self::TimestampType => "producers do not set log append time",
        })
    }
}

impl std::error::Error for BatchError {}

/// Checks that `bytes` are exactly one whole batch a client may write, and returns its header.
///
/// Does not look into the records, nor at sizes, sequences or timestamps, which depend on the topic.
pub fn validate(bytes: &[u8]) -> Result<&BatchHeader, BatchError> {
    if bytes.is_empty() {
        return Err(BatchError::Missing);
    }
    // Older formats are shorter but keep their magic at the same place.
    match bytes.get(MAGIC_AT) {
        Some(2) => {}
        Some(0 | 1) => return Err(BatchError::OldMagic),
        Some(_) => return Err(BatchError::UnknownMagic),
        None => return Err(BatchError::Length),
    }
    let header = BatchHeader::view(bytes).ok_or(BatchError::Length)?;
    let size_bytes = header.size_bytes().ok_or(BatchError::Length)?;
    let (batch, behind) = bytes.split_at_checked(size_bytes).ok_or(BatchError::Length)?;
    if !behind.is_empty() {
        return Err(second(behind));
    }
    if crc32c(&batch[CRC_START..]) != header.crc.get() {
        return Err(BatchError::Checksum);
    }
    validate_header(header)?;
    Ok(header)
}

fn second(behind: &[u8]) -> BatchError {
    let is_batch = BatchHeader::view(behind)
        .is_some_and(|next| next.magic == 2 && next.size_bytes().is_some_and(|bytes| bytes <= behind.len()));
    if is_batch { BatchError::SecondBatch } else { BatchError::Length }
}

fn validate_header(header: &BatchHeader) -> Result<(), BatchError> {
    if header.attributes.get() & !CLIENT_ATTRIBUTES != 0 {
        return Err(BatchError::Attributes);
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.codec_number() > 4 {
        return Err(BatchError::UnknownCodec);
    }
    if header.is_log_append_time() {
        return Err(BatchError::TimestampType);
    }
    if header.base_offset.get() != 0 {
        return Err(BatchError::BaseOffset);
    }
    let count = header.records_count.get();
    if count <= 0 || header.last_offset_delta.get() != count - 1 {
        return Err(BatchError::Counts);
    }
    let is_sequenced = header.base_sequence.get() >= 0 && header.producer_epoch.get() >= 0;
    match header.producer() {
        Some(_) if !is_sequenced => Err(BatchError::Sequence),
        None if header.is_transactional() => Err(BatchError::Sequence),
        _ => Ok(()),
    }
}

/// Makes `time` the time of every record, as topics with log append time demand, and corrects the checksum.
///
/// Records keep their deltas: readers take the header's largest timestamp for all of them.
/// Precondition: `batch` is exactly one whole batch.
pub fn set_log_append_time(batch: &mut [u8], time: WallMs) {
    let header = header_mut(batch);
    header.attributes.set(header.attributes.get() | 0x08);
    header.max_timestamp.set(time.0);
    seal(batch);
}

/// Writes the checksum of `batch`, which is exactly one whole batch.
pub(in crate::protocol) fn seal(batch: &mut [u8]) {
    let crc = crc32c(&batch[CRC_START..]);
    header_mut(batch).crc.set(crc);
}

pub(in crate::protocol) fn header_mut(batch: &mut [u8]) -> &mut BatchHeader {
    let (header, _) = BatchHeader::mut_from_prefix(batch).expect("a whole batch has a header");
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
    use crate::protocol::compression::Codecs;

    fn batch() -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(5, None, Some(b"a"), &[]);
        builder.push(9, None, Some(b"b"), &[]);
        builder.finish(&mut Codecs::default())
    }

    /// A batch changed by `change` and with a right checksum again.
    fn changed(change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
        let mut batch = batch();
        change(header_mut(&mut batch));
        seal(&mut batch);
        batch
    }

    #[test]
    fn each_wrong_field_has_its_error() {
        assert!(validate(&batch()).is_ok());
        for (expected, bytes) in [
            (BatchError::Missing, Vec::new()),
            (BatchError::SecondBatch, [batch(), batch()].concat()),
            (BatchError::Length, [batch(), vec![0; 70]].concat()),
            (BatchError::OldMagic, changed(|header| header.magic = 1)),
            (BatchError::UnknownMagic, changed(|header| header.magic = 3)),
            (BatchError::Length, changed(|header| header.batch_length.set(48))),
            (BatchError::Length, changed(|header| header.batch_length.set(i32::MAX))),
            (BatchError::Length, changed(|header| header.batch_length.set(-1))),
            (BatchError::Counts, changed(|header| header.records_count.set(0))),
            (BatchError::Counts, changed(|header| header.records_count.set(3))),
            (BatchError::Counts, changed(|header| header.last_offset_delta.set(-1))),
            (BatchError::Counts, changed(|header| header.records_count.set(i32::MIN))),
            (BatchError::BaseOffset, changed(|header| header.base_offset.set(1))),
            (BatchError::Control, changed(|header| header.attributes.set(0x20))),
            (BatchError::Attributes, changed(|header| header.attributes.set(0x40))),
            (BatchError::Attributes, changed(|header| header.attributes.set(i16::MIN))),
            (BatchError::UnknownCodec, changed(|header| header.attributes.set(5))),
            (BatchError::TimestampType, changed(|header| header.attributes.set(8))),
            (BatchError::Sequence, changed(|header| header.attributes.set(0x10))),
            (BatchError::Sequence, changed(|header| header.producer_id.set(1))),
        ] {
            assert_eq!(validate(&bytes).err(), Some(expected));
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_behind_the_checksum_is_noticed() {
        let batch = batch();
        for end in 1..batch.len() {
            assert_eq!(validate(&batch[..end]).err(), Some(BatchError::Length), "{end}");
        }
        for bit in CRC_START * 8..batch.len() * 8 {
            let mut broken = batch.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(validate(&broken).err(), Some(BatchError::Checksum), "{bit}");
        }
    }
}
