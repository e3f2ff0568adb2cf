//! Checkpoint formats: the image of a lane and the rows of its partitions.

use std::mem::{offset_of, size_of};

use zerocopy::byteorder::little_endian::{I16, I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Sealed;

pub(in crate::log) const IMAGE_MAGIC: [u8; 8] = *b"CLIMAGE\0";

/// Image header: 128 bytes, little-endian, format version 1. The partition rows follow, then
/// zeros to the next block. Two files take turns; the intact one with the larger generation holds.
///
/// | at  | bytes | field             | meaning                                              | valid       | since |
/// |-----|-------|-------------------|------------------------------------------------------|-------------|-------|
/// |   0 |     8 | magic             | names the file type                                  | "CLIMAGE\0" | 1     |
/// |   8 |     2 | version           | of the header and the rows                           | 1           | 1     |
/// |  10 |     2 | reserved          |                                                      | 0           | 1     |
/// |  12 |     4 | header_checksum   | CRC-32C of these 128 bytes with this field 0         |             | 1     |
/// |  16 |    16 | log_id            | secret of the lane                                   |             | 1     |
/// |  32 |     8 | generation        | one more in each image                               | >= 1        | 1     |
/// |  40 |     8 | replay_number     | first group to replay; the first of its file         | >= 1        | 1     |
/// |  48 |     8 | durable_number    | newest durable group: a bad one up to it is damage   | >= 0        | 1     |
/// |  56 |     8 | item_next         | no entry has a larger number yet                     |             | 1     |
/// |  64 |     8 | segment_next      | no segment has this id or a larger one yet           | >= 1        | 1     |
/// |  72 |     4 | log_next          | no partition has this number or a larger one yet     |             | 1     |
/// |  76 |     4 | replay_previous   | checksum of group `replay_number - 1`                |             | 1     |
/// |  80 |     8 | incarnation       | largest in use                                       |             | 1     |
/// |  88 |     8 | payload_bytes     | of all rows                                          |             | 1     |
/// |  96 |     4 | payload_checksum  | CRC-32C of all rows                                  |             | 1     |
/// | 100 |     4 | rows_count        | partitions                                           |             | 1     |
/// | 104 |    24 | reserved          |                                                      | 0           | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct ImageHeader {
    pub(in crate::log) magic: [u8; 8],
    pub(in crate::log) version: U16,
    pub(in crate::log) reserved: U16,
    pub(in crate::log) header_checksum: U32,
    pub(in crate::log) log_id: [u8; 16],
    pub(in crate::log) generation: U64,
    pub(in crate::log) replay_number: U64,
    pub(in crate::log) durable_number: U64,
    pub(in crate::log) item_next: U64,
    pub(in crate::log) segment_next: U64,
    pub(in crate::log) log_next: U32,
    pub(in crate::log) replay_previous: U32,
    pub(in crate::log) incarnation: U64,
    pub(in crate::log) payload_bytes: U64,
    pub(in crate::log) payload_checksum: U32,
    pub(in crate::log) rows_count: U32,
    pub(in crate::log) reserved_end: [u8; 24],
}

const _: () = assert!(size_of::<ImageHeader>() == 128);
const _: () = assert!(offset_of!(ImageHeader, header_checksum) == 12);
const _: () = assert!(offset_of!(ImageHeader, log_id) == 16);
const _: () = assert!(offset_of!(ImageHeader, generation) == 32);
const _: () = assert!(offset_of!(ImageHeader, segment_next) == 64);
const _: () = assert!(offset_of!(ImageHeader, replay_previous) == 76);
const _: () = assert!(offset_of!(ImageHeader, payload_bytes) == 88);
const _: () = assert!(offset_of!(ImageHeader, rows_count) == 100);

impl Sealed for ImageHeader {
    fn checksum_field(&mut self) -> &mut U32 {
        &mut self.header_checksum
    }
}

impl ImageHeader {
    pub(in crate::log) const BYTES: usize = size_of::<Self>();
}

/// Flag of a partition row: its drop entry is durable, its files are being removed.
pub(in crate::log) const ROW_DROPPING: u32 = 1;
/// Flag of a partition row: durable records behind its log end are missing, and it is offline.
pub(in crate::log) const ROW_DAMAGED: u32 = 2;

/// Partition row: 136 bytes, little-endian, format version 1. Segment rows, the index rows of the
/// unsealed segments in their order, leader epochs, producers and the segment rows of leftovers follow,
/// each as many as counted. A leftover is no part of the log: its files, if any, are to be removed.
///
/// | at  | bytes | field              | meaning                                                   | since |
/// |-----|-------|--------------------|-----------------------------------------------------------|-------|
/// |   0 |    16 | topic_id           |                                                           | 1     |
/// |  16 |     4 | partition          |                                                           | 1     |
/// |  20 |     4 | log                | number of the partition in its lane                       | 1     |
/// |  24 |     8 | item               | the row reflects every entry with a smaller number        | 1     |
/// |  32 |     8 | metadata_epoch     | of the create entry                                       | 1     |
/// |  40 |     8 | log_start          | offset                                                    | 1     |
/// |  48 |     8 | log_end            | offset, as of `item`                                      | 1     |
/// |  56 |     8 | flushed_segment    | segments up to here are in their files and flushed        | 1     |
/// |  64 |     8 | flushed_position   | up to here in that segment; a batch boundary              | 1     |
/// |  72 |     8 | flushed_offset     | offset of the batch that begins there                     | 1     |
/// |  80 |     8 | segment_bytes_max  | settings                                                  | 1     |
/// |  88 |     8 | segment_ms_max     | settings                                                  | 1     |
/// |  96 |     4 | flags              | bit 0: dropping, 1: damaged                               | 1     |
/// | 100 |     4 | segments_count     |                                                           | 1     |
/// | 104 |     4 | index_rows_count   |                                                           | 1     |
/// | 108 |     4 | epochs_count       |                                                           | 1     |
/// | 112 |     4 | producers_count    |                                                           | 1     |
/// | 116 |     4 | leftovers_count    |                                                           | 1     |
/// | 120 |     8 | first_dirty        | offset up to which records are compacted                  | 1     |
/// | 128 |     8 | lost_end           | if damaged: one past the last offset known to be lost; -1 | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct PartitionRow {
    pub(in crate::log) topic_id: [u8; 16],
    pub(in crate::log) partition: I32,
    pub(in crate::log) log: U32,
    pub(in crate::log) item: U64,
    pub(in crate::log) metadata_epoch: U64,
    pub(in crate::log) log_start: I64,
    pub(in crate::log) log_end: I64,
    pub(in crate::log) flushed_segment: U64,
    pub(in crate::log) flushed_position: U64,
    pub(in crate::log) flushed_offset: I64,
    pub(in crate::log) segment_bytes_max: U64,
    pub(in crate::log) segment_ms_max: U64,
    pub(in crate::log) flags: U32,
    pub(in crate::log) segments_count: U32,
    pub(in crate::log) index_rows_count: U32,
    pub(in crate::log) epochs_count: U32,
    pub(in crate::log) producers_count: U32,
    pub(in crate::log) leftovers_count: U32,
    pub(in crate::log) first_dirty: I64,
    pub(in crate::log) lost_end: I64,
}

const _: () = assert!(size_of::<PartitionRow>() == 136);
const _: () = assert!(offset_of!(PartitionRow, lost_end) == 128);
const _: () = assert!(offset_of!(PartitionRow, item) == 24);
const _: () = assert!(offset_of!(PartitionRow, flushed_segment) == 56);
const _: () = assert!(offset_of!(PartitionRow, flags) == 96);
const _: () = assert!(offset_of!(PartitionRow, producers_count) == 112);
const _: () = assert!(offset_of!(PartitionRow, first_dirty) == 120);

/// Flags of a segment row: its file exists and its directory entry is durable; a newer segment
/// follows, so its length is final; it is exact and has its index; it is below the log start.
pub(in crate::log) const SEGMENT_CREATED: u32 = 1;
pub(in crate::log) const SEGMENT_ROLLED: u32 = 2;
pub(in crate::log) const SEGMENT_SEALED: u32 = 4;
pub(in crate::log) const SEGMENT_DROPPING: u32 = 8;
/// Flag of a segment row: offsets are missing between its batches.
pub(in crate::log) const SEGMENT_SPARSE: u32 = 16;

/// Segment row: 72 bytes, little-endian, format version 1.
///
/// | at | bytes | field            | meaning                                            | since |
/// |----|-------|------------------|----------------------------------------------------|-------|
/// |  0 |     8 | segment          | id                                                 | 1     |
/// |  8 |     8 | base_offset      | of its first record                                | 1     |
/// | 16 |     8 | end_offset       | one past its last record                           | 1     |
/// | 24 |     8 | bytes            | appended so far; final when rolled                 | 1     |
/// | 32 |     8 | wall_ms          | of its first append, or of the roll before it      | 1     |
/// | 40 |     8 | max_timestamp    | largest so far, ms; -1: none                       | 1     |
/// | 48 |     8 | max_timestamp_at | base offset of the batch that has it               | 1     |
/// | 56 |     4 | flags            | bit 0 created, 1 rolled, 2 sealed, 3 dropping, 4 sparse | 1     |
/// | 60 |     4 | index_rows_count | of this segment among the partition's; 0 if sealed | 1     |
/// | 64 |     8 | row_bytes        | bytes per extent aimed at                          | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct SegmentRow {
    pub(in crate::log) segment: U64,
    pub(in crate::log) base_offset: I64,
    pub(in crate::log) end_offset: I64,
    pub(in crate::log) bytes: U64,
    pub(in crate::log) wall_ms: I64,
    pub(in crate::log) max_timestamp: I64,
    pub(in crate::log) max_timestamp_at: I64,
    pub(in crate::log) flags: U32,
    pub(in crate::log) index_rows_count: U32,
    pub(in crate::log) row_bytes: U64,
}

const _: () = assert!(size_of::<SegmentRow>() == 72);
const _: () = assert!(offset_of!(SegmentRow, bytes) == 24);
const _: () = assert!(offset_of!(SegmentRow, flags) == 56);
const _: () = assert!(offset_of!(SegmentRow, row_bytes) == 64);

/// Leader epoch row: 16 bytes, little-endian, format version 1.
///
/// | at | bytes | field        | meaning                                | since |
/// |----|-------|--------------|----------------------------------------|-------|
/// |  0 |     4 | leader_epoch |                                        | 1     |
/// |  4 |     4 | reserved     |                                        | 1     |
/// |  8 |     8 | start_offset | first offset appended in it            | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct EpochRow {
    pub(in crate::log) leader_epoch: I32,
    pub(in crate::log) reserved: U32,
    pub(in crate::log) start_offset: I64,
}

const _: () = assert!(size_of::<EpochRow>() == 16);
const _: () = assert!(offset_of!(EpochRow, start_offset) == 8);

/// Producer row: 200 bytes, little-endian, format version 1.
///
/// | at | bytes | field             | meaning                                              | since |
/// |----|-------|-------------------|------------------------------------------------------|-------|
/// |  0 |     8 | producer_id       |                                                      | 1     |
/// |  8 |     2 | producer_epoch    |                                                      | 1     |
/// | 10 |     2 | batches_count     | of the five below, oldest first                      | 1     |
/// | 12 |     4 | reserved          |                                                      | 1     |
/// | 16 |     8 | seen_ms           | wall time of its newest append, or that one's        | 1     |
/// |    |       |                   | largest timestamp if later                           |       |
/// | 24 |     8 | transaction_start | first offset of its open transaction; -1: none       | 1     |
/// | 32 |   160 | batches           | 5 times: base and last sequence (4 + 4), base and    | 1     |
/// |    |       |                   | last offset (8 + 8), largest timestamp (8)           |       |
/// | 192|     8 | reserved          |                                                      | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct ProducerRow {
    pub(in crate::log) producer_id: I64,
    pub(in crate::log) producer_epoch: I16,
    pub(in crate::log) batches_count: U16,
    pub(in crate::log) reserved: U32,
    pub(in crate::log) seen_ms: I64,
    pub(in crate::log) transaction_start: I64,
    pub(in crate::log) batches: [ProducerBatchRow; 5],
    pub(in crate::log) reserved_end: U64,
}

const _: () = assert!(size_of::<ProducerRow>() == 200);
const _: () = assert!(offset_of!(ProducerRow, batches) == 32);

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct ProducerBatchRow {
    pub(in crate::log) base_sequence: I32,
    pub(in crate::log) last_sequence: I32,
    pub(in crate::log) base_offset: I64,
    pub(in crate::log) last_offset: I64,
    pub(in crate::log) timestamp: I64,
}

const _: () = assert!(size_of::<ProducerBatchRow>() == 32);
