//! Stamp: what a record's value says of itself, so that a reader can tell whether it is what was written.

use corelane::base::checksum::crc32c;

/// What stands at the front of each record's value, big-endian:
///
/// | at | bytes | field     | meaning                                                    |
/// |----|-------|-----------|------------------------------------------------------------|
/// |  0 |     4 | partition | the partition it was written to                            |
/// |  4 |     4 | stream    | the connection that wrote it                               |
/// |  8 |     8 | number    | of the record in its stream and partition, from 0          |
/// | 16 |     8 | sent_ns   | intended send time by the machine's monotonic clock, or 0  |
/// | 24 |     4 | crc       | CRC-32C of the value behind this field                     |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub partition: u32,
    pub stream: u32,
    pub number: u64,
    pub sent_ns: u64,
    pub crc: u32,
}

pub const STAMP_BYTES: usize = 28;

impl Stamp {
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(&self.partition.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes[24..].copy_from_slice(&self.crc.to_be_bytes());
        bytes
    }

    /// The stamp of a value, and whether the rest of the value is what was written.
    pub fn read(value: &[u8]) -> Option<(Self, bool)> {
        let (front, rest) = value.split_first_chunk::<STAMP_BYTES>()?;
        let u32_at = |at: usize| u32::from_be_bytes(front[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_be_bytes(front[at..at + 8].try_into().expect("8 bytes"));
        let stamp = Self {
            partition: u32_at(0),
            stream: u32_at(4),
            number: u64_at(8),
            sent_ns: u64_at(16),
            crc: u32_at(24),
        };
        Some((stamp, crc32c(rest) == stamp.crc))
    }
}
