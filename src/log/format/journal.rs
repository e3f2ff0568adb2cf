//! Journal formats: commit groups and the entries in them.

use std::mem::{offset_of, size_of};

use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checkpoint::SegmentRow;
use super::{Sealed, VERSION};

pub(in crate::log) const GROUP_MAGIC: [u8; 8] = *b"CLGROUP\0";

/// Commit group header: 96 bytes, little-endian, format version 1. Begins at a block; the payload
/// follows, then zeros to the next block. A group never spans files.
///
/// | at | bytes | field             | meaning                                              | valid        | since |
/// |----|-------|-------------------|------------------------------------------------------|--------------|-------|
/// |  0 |     8 | magic             | names the file type                                  | "CLGROUP\0"  | 1     |
/// |  8 |     2 | version           | of the group and its entries                         | 1            | 1     |
/// | 10 |     2 | reserved          |                                                      | 0            | 1     |
/// | 12 |     4 | header_checksum   | CRC-32C of these 96 bytes with this field 0          |              | 1     |
/// | 16 |    16 | log_id            | secret of the lane: client bytes can't forge it      | as the image | 1     |
/// | 32 |     8 | incarnation       | of the file: one more at every reuse and recovery    | >= 1         | 1     |
/// | 40 |     8 | number            | of the group in the lane, never reused once durable  | >= 1         | 1     |
/// | 48 |     8 | item_first        | number of the first entry's item                     |              | 1     |
/// | 56 |     8 | position          | of this header in its file: shows misdirected writes | whole blocks | 1     |
/// | 64 |     4 | file              | number of its file, likewise                         |              | 1     |
/// | 68 |     4 | payload_bytes     | of all entries                                       | <= 4 MiB     | 1     |
/// | 72 |     4 | entries_count     |                                                      | 0 in a mark  | 1     |
/// | 76 |     4 | previous_checksum | header_checksum of group `number - 1`                |              | 1     |
/// | 80 |     4 | payload_checksum  | CRC-32C of the payload                               |              | 1     |
/// | 84 |     8 | file_bytes        | of its file: a shorter one has lost groups           | whole blocks | 1     |
/// | 92 |     4 | reserved          |                                                      | 0            | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct GroupHeader {
    pub(in crate::log) magic: [u8; 8],
    pub(in crate::log) version: U16,
    pub(in crate::log) reserved: U16,
    pub(in crate::log) header_checksum: U32,
    pub(in crate::log) log_id: [u8; 16],
    pub(in crate::log) incarnation: U64,
    pub(in crate::log) number: U64,
    pub(in crate::log) item_first: U64,
    pub(in crate::log) position: U64,
    pub(in crate::log) file: U32,
    pub(in crate::log) payload_bytes: U32,
    pub(in crate::log) entries_count: U32,
    pub(in crate::log) previous_checksum: U32,
    pub(in crate::log) payload_checksum: U32,
    pub(in crate::log) file_bytes: U64,
    pub(in crate::log) reserved_end: U32,
}

const _: () = assert!(size_of::<GroupHeader>() == 96);
const _: () = assert!(offset_of!(GroupHeader, version) == 8);
const _: () = assert!(offset_of!(GroupHeader, header_checksum) == 12);
const _: () = assert!(offset_of!(GroupHeader, log_id) == 16);
const _: () = assert!(offset_of!(GroupHeader, incarnation) == 32);
const _: () = assert!(offset_of!(GroupHeader, number) == 40);
const _: () = assert!(offset_of!(GroupHeader, item_first) == 48);
const _: () = assert!(offset_of!(GroupHeader, position) == 56);
const _: () = assert!(offset_of!(GroupHeader, file) == 64);
const _: () = assert!(offset_of!(GroupHeader, payload_bytes) == 68);
const _: () = assert!(offset_of!(GroupHeader, entries_count) == 72);
const _: () = assert!(offset_of!(GroupHeader, previous_checksum) == 76);
const _: () = assert!(offset_of!(GroupHeader, payload_checksum) == 80);
const _: () = assert!(offset_of!(GroupHeader, file_bytes) == 84);

impl Sealed for GroupHeader {
    fn checksum_field(&mut self) -> &mut U32 {
        &mut self.header_checksum
    }
}

impl GroupHeader {
    pub(in crate::log) const BYTES: usize = size_of::<Self>();
}

pub(in crate::log) const READY_MAGIC: [u8; 8] = *b"CLREADY\0";

/// Ready stamp: 32 bytes, little-endian, format version 1, at the beginning of a journal file that
/// was prepared and has no group yet. Written after the file's name is durable in its directory.
///
/// | at | bytes | field           | meaning                                     | valid        | since |
/// |----|-------|-----------------|---------------------------------------------|--------------|-------|
/// |  0 |     8 | magic           | names the file type                         | "CLREADY\0"  | 1     |
/// |  8 |     2 | version         |                                             | 1            | 1     |
/// | 10 |     2 | reserved        |                                             | 0            | 1     |
/// | 12 |     4 | header_checksum | CRC-32C of these 32 bytes with this field 0 |              | 1     |
/// | 16 |    16 | log_id          | secret of the lane                          | as the image | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct ReadyStamp {
    pub(in crate::log) magic: [u8; 8],
    pub(in crate::log) version: U16,
    pub(in crate::log) reserved: U16,
    pub(in crate::log) header_checksum: U32,
    pub(in crate::log) log_id: [u8; 16],
}

const _: () = assert!(size_of::<ReadyStamp>() == 32);
const _: () = assert!(offset_of!(ReadyStamp, header_checksum) == 12);
const _: () = assert!(offset_of!(ReadyStamp, log_id) == 16);

impl Sealed for ReadyStamp {
    fn checksum_field(&mut self) -> &mut U32 {
        &mut self.header_checksum
    }
}

impl ReadyStamp {
    pub(in crate::log) fn new(log_id: [u8; 16]) -> Self {
        let mut stamp = Self {
            magic: READY_MAGIC,
            version: U16::new(VERSION),
            reserved: U16::ZERO,
            header_checksum: U32::ZERO,
            log_id,
        };
        stamp.seal();
        stamp
    }
}

/// Flag of an append entry: the rest of its item follows at the beginning of the next group, under
/// the same item number. It is the last entry of its group.
pub(in crate::log) const MORE_PIECES: u8 = 1;

/// Entry header: 32 bytes, little-endian, format version 1. The payload follows, then zeros to a
/// multiple of 8. Entries of a group are numbered from its `item_first` on; a piece that continues
/// an item keeps the item's number, and a touched entry has none.
///
/// | at | bytes | field         | meaning                                                    | valid     | since |
/// |----|-------|---------------|------------------------------------------------------------|-----------|-------|
/// |  0 |     1 | kind          | what happened, see [`EntryKind`]                           | 1 to 16   | 1     |
/// |  1 |     1 | flags         | bit 0: more pieces follow                                  | 0, 1      | 1     |
/// |  2 |     2 | reserved      |                                                            | 0         | 1     |
/// |  4 |     4 | payload_bytes | without the zeros behind it                                |           | 1     |
/// |  8 |     4 | log           | number of the partition in its lane                        |           | 1     |
/// | 12 |     4 | total_bytes   | of all pieces of an append; else 0                         |           | 1     |
/// | 16 |     8 | segment       | id                                                         |           | 1     |
/// | 24 |     8 | value         | by kind: a position, an offset, an epoch, an incarnation   |           | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub(in crate::log) struct EntryHeader {
    pub(in crate::log) kind: u8,
    pub(in crate::log) flags: u8,
    pub(in crate::log) reserved: U16,
    pub(in crate::log) payload_bytes: U32,
    pub(in crate::log) log: U32,
    pub(in crate::log) total_bytes: U32,
    pub(in crate::log) segment: U64,
    pub(in crate::log) value: U64,
}

const _: () = assert!(size_of::<EntryHeader>() == 32);
const _: () = assert!(offset_of!(EntryHeader, payload_bytes) == 4);
const _: () = assert!(offset_of!(EntryHeader, log) == 8);
const _: () = assert!(offset_of!(EntryHeader, total_bytes) == 12);
const _: () = assert!(offset_of!(EntryHeader, segment) == 16);
const _: () = assert!(offset_of!(EntryHeader, value) == 24);

impl EntryHeader {
    pub(in crate::log) const BYTES: usize = size_of::<Self>();

    pub(in crate::log) fn new(kind: EntryKind, log: u32, segment: u64, value: u64) -> Self {
        Self {
            kind: kind as u8,
            flags: 0,
            reserved: U16::ZERO,
            payload_bytes: U32::ZERO,
            log: U32::new(log),
            total_bytes: U32::ZERO,
            segment: U64::new(segment),
            value: U64::new(value),
        }
    }

    /// Header, payload and zeros.
    pub(in crate::log) const fn size_bytes(payload_bytes: usize) -> usize {
        Self::BYTES + payload_bytes.next_multiple_of(8)
    }
}

/// Storage operations, by the number that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::log) enum EntryKind {
    /// Payload: whole batches (all pieces together) at position `value` of `segment`. What the
    /// segment held from there on is gone.
    Append = 1,
    /// A partition and its first segment. `value`: metadata epoch. Payload: [`CreatePayload`].
    Create = 2,
    /// The partition is deleted. `value`: metadata epoch.
    Drop = 3,
    /// `segment` follows the newest one, whose final length is `value`. Payload: [`RollPayload`].
    Roll = 4,
    /// The log start moved to offset `value`; segments wholly below it are deleted.
    LogStart = 5,
    /// Payload: the bytes from the block at `value` up to the materialised end in that block.
    Image = 6,
    /// `segment` is in its file and flushed up to position `value`, a batch boundary.
    Materialised = 7,
    /// A recovery ended. `value`: the incarnation from here on. First entry of its group.
    Recovered = 8,
    /// Recovery cut an incomplete batch at position `value` of `segment`.
    Cut = 9,
    /// The lane was stopped in order; nothing is in the journal only.
    CleanStop = 10,
    /// The image of generation `value` is durable.
    ImageDurable = 11,
    /// First entry of a group. Payload: of each group from `value` up to this one, how many partitions it
    /// has operations for, then their numbers; 4 bytes each. Where groups are lost, it tells which
    /// partitions may have lost something.
    Touched = 12,
    /// Recovery found that durable records are missing behind position `value` of `segment`, which is
    /// its final length: another segment follows, and the partition is offline. Payload:
    /// [`DamagedPayload`].
    Damaged = 13,
    /// The operator accepts the loss: the partition goes on where its damage cut it.
    LossAccepted = 14,
    /// A file of `segment` with base offset `value` may be there from now on, and is no part of the log.
    CleanBegin = 15,
    /// `segment` takes the place of others, and is flushed with its index and its name. Payload:
    /// [`ReplacePayload`].
    Replace = 16,
}

impl EntryKind {
    pub(in crate::log) fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [EntryKind; 16] = [
            EntryKind::Append,
            EntryKind::Create,
            EntryKind::Drop,
            EntryKind::Roll,
            EntryKind::LogStart,
            EntryKind::Image,
            EntryKind::Materialised,
            EntryKind::Recovered,
            EntryKind::Cut,
            EntryKind::CleanStop,
            EntryKind::ImageDurable,
            EntryKind::Touched,
            EntryKind::Damaged,
            EntryKind::LossAccepted,
            EntryKind::CleanBegin,
            EntryKind::Replace,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Payload of a create entry: 48 bytes, little-endian, format version 1.
///
/// | at | bytes | field             | meaning                                | valid | since |
/// |----|-------|-------------------|----------------------------------------|-------|-------|
/// |  0 |    16 | topic_id          | the topic                              |       | 1     |
/// | 16 |     4 | partition         | its partition                          | >= 0  | 1     |
/// | 20 |     4 | reserved          |                                        | 0     | 1     |
/// | 24 |     8 | segment_bytes_max | settings at creation                   |       | 1     |
/// | 32 |     8 | segment_ms_max    | likewise                               |       | 1     |
/// | 40 |     8 | wall_ms           | of the first segment, since 1970       |       | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct CreatePayload {
    pub(in crate::log) topic_id: [u8; 16],
    pub(in crate::log) partition: I32,
    pub(in crate::log) reserved: U32,
    pub(in crate::log) segment_bytes_max: U64,
    pub(in crate::log) segment_ms_max: U64,
    pub(in crate::log) wall_ms: I64,
}

const _: () = assert!(size_of::<CreatePayload>() == 48);
const _: () = assert!(offset_of!(CreatePayload, partition) == 16);
const _: () = assert!(offset_of!(CreatePayload, segment_bytes_max) == 24);
const _: () = assert!(offset_of!(CreatePayload, wall_ms) == 40);

/// Payload of a roll entry: 16 bytes, little-endian, format version 1.
///
/// | at | bytes | field       | meaning                        | valid | since |
/// |----|-------|-------------|--------------------------------|-------|-------|
/// |  0 |     8 | base_offset | of the new segment             | >= 0  | 1     |
/// |  8 |     8 | wall_ms     | of the roll, since 1970        |       | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct RollPayload {
    pub(in crate::log) base_offset: I64,
    pub(in crate::log) wall_ms: I64,
}

const _: () = assert!(size_of::<RollPayload>() == 16);
const _: () = assert!(offset_of!(RollPayload, wall_ms) == 8);

/// Payload of a damaged entry: 24 bytes, little-endian, format version 1.
///
/// | at | bytes | field    | meaning                                                  | valid | since |
/// |----|-------|----------|----------------------------------------------------------|-------|-------|
/// |  0 |     8 | segment  | id of the segment that follows                           |       | 1     |
/// |  8 |     8 | log_end  | its base offset: the first one lost                      | >= 0  | 1     |
/// | 16 |     8 | lost_end | one past the last offset known to be lost; -1: not known | >= -1 | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct DamagedPayload {
    pub(in crate::log) segment: U64,
    pub(in crate::log) log_end: I64,
    pub(in crate::log) lost_end: I64,
}

const _: () = assert!(size_of::<DamagedPayload>() == 24);
const _: () = assert!(offset_of!(DamagedPayload, log_end) == 8);
const _: () = assert!(offset_of!(DamagedPayload, lost_end) == 16);
/// Payload of a replace entry: 96 bytes, little-endian, format version 1.
///
/// | at | bytes | field       | meaning                                             | valid      | since |
/// |----|-------|-------------|-----------------------------------------------------|------------|-------|
/// |  0 |    72 | row         | the new segment, sealed                             |            | 1     |
/// | 72 |     8 | first       | id of the first segment replaced                    |            | 1     |
/// | 80 |     8 | last        | id of the last one; all between them are replaced   | < segment  | 1     |
/// | 88 |     8 | first_dirty | offset up to which records are compacted            | >= 0       | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct ReplacePayload {
    pub(in crate::log) row: SegmentRow,
    pub(in crate::log) first: U64,
    pub(in crate::log) last: U64,
    pub(in crate::log) first_dirty: I64,
}

const _: () = assert!(size_of::<ReplacePayload>() == 96);
const _: () = assert!(offset_of!(ReplacePayload, first) == 72);
const _: () = assert!(offset_of!(ReplacePayload, first_dirty) == 88);
