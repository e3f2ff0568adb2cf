//! Index format: what is known of a sealed segment beside its bytes.

use std::mem::{offset_of, size_of};

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Sealed;

pub(in crate::log) const INDEX_MAGIC: [u8; 8] = *b"CLINDEX\0";

/// Index header: 80 bytes, little-endian, format version 1. The rows follow, then zeros to the
/// next block.
///
/// | at | bytes | field            | meaning                                     | valid       | since |
/// |----|-------|------------------|---------------------------------------------|-------------|-------|
/// |  0 |     8 | magic            | names the file type                         | "CLINDEX\0" | 1     |
/// |  8 |     2 | version          | of the header and the rows                  | 1           | 1     |
/// | 10 |     2 | reserved         |                                             | 0           | 1     |
/// | 12 |     4 | header_checksum  | CRC-32C of these 80 bytes with this field 0 |             | 1     |
/// | 16 |     8 | segment          | id of the segment                           |             | 1     |
/// | 24 |     8 | base_offset      | of the segment                              | >= 0        | 1     |
/// | 32 |     8 | end_offset       | one past its last record                    | >= base     | 1     |
/// | 40 |     8 | log_bytes        | final length of the segment                 |             | 1     |
/// | 48 |     8 | max_timestamp    | largest of the segment, ms                  | -1: none    | 1     |
/// | 56 |     8 | max_timestamp_at | base offset of the batch that has it        |             | 1     |
/// | 64 |     4 | rows_count       |                                             |             | 1     |
/// | 68 |     4 | rows_checksum    | CRC-32C of all rows                         |             | 1     |
/// | 72 |     8 | reserved         |                                             | 0           | 1     |
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::log) struct IndexHeader {
    pub(in crate::log) magic: [u8; 8],
    pub(in crate::log) version: U16,
    pub(in crate::log) reserved: U16,
    pub(in crate::log) header_checksum: U32,
    pub(in crate::log) segment: U64,
    pub(in crate::log) base_offset: I64,
    pub(in crate::log) end_offset: I64,
    pub(in crate::log) log_bytes: U64,
    pub(in crate::log) max_timestamp: I64,
    pub(in crate::log) max_timestamp_at: I64,
    pub(in crate::log) rows_count: U32,
    pub(in crate::log) rows_checksum: U32,
    pub(in crate::log) reserved_end: U64,
}

const _: () = assert!(size_of::<IndexHeader>() == 80);
const _: () = assert!(offset_of!(IndexHeader, header_checksum) == 12);
const _: () = assert!(offset_of!(IndexHeader, segment) == 16);
const _: () = assert!(offset_of!(IndexHeader, log_bytes) == 40);
const _: () = assert!(offset_of!(IndexHeader, rows_count) == 64);

impl Sealed for IndexHeader {
    fn checksum_field(&mut self) -> &mut U32 {
        &mut self.header_checksum
    }
}

impl IndexHeader {
    pub(in crate::log) const BYTES: usize = size_of::<Self>();
}

/// Index row: 32 bytes, little-endian, format version 1. One per extent: a run of whole batches
/// that ends where the next row begins.
///
/// | at | bytes | field                  | meaning                                              | since |
/// |----|-------|------------------------|------------------------------------------------------|-------|
/// |  0 |     8 | position               | of the first batch                                   | 1     |
/// |  8 |     8 | base_offset            | of the first batch                                   | 1     |
/// | 16 |     8 | max_timestamp          | largest of the extent, ms; -1: none                  | 1     |
/// | 24 |     4 | max_timestamp_delta    | base offset of the batch that has it, minus the row's | 1    |
/// | 28 |     4 | headers_checksum       | CRC-32C chained over the 61-byte header of each batch | 1    |
///
/// The batches' own CRCs cover everything behind their headers, and the headers hold those CRCs:
/// so `headers_checksum` and the CRCs together cover every byte of the extent.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub(in crate::log) struct IndexRow {
    pub(in crate::log) position: U64,
    pub(in crate::log) base_offset: I64,
    pub(in crate::log) max_timestamp: I64,
    pub(in crate::log) max_timestamp_delta: U32,
    pub(in crate::log) headers_checksum: U32,
}

const _: () = assert!(size_of::<IndexRow>() == 32);
const _: () = assert!(offset_of!(IndexRow, base_offset) == 8);
const _: () = assert!(offset_of!(IndexRow, max_timestamp) == 16);
const _: () = assert!(offset_of!(IndexRow, max_timestamp_delta) == 24);
const _: () = assert!(offset_of!(IndexRow, headers_checksum) == 28);
