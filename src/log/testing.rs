//! Testing: record batches made to measure.

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::base::checksum::crc32c;
use crate::protocol::record_batch::{BatchHeader, CRC_START, HEADER_BYTES, LOG_OVERHEAD_BYTES};

/// A batch whose records are opaque bytes: the log doesn't look at them.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub base_offset: i64,
    pub records_count: i32,
    pub body_bytes: usize,
    pub fill: u8,
    pub timestamp: i64,
    pub producer: Option<(i64, i16, i32)>,
    pub leader_epoch: i32,
}

impl Batch {
    pub fn new(base_offset: i64, records_count: i32) -> Self {
        Self {
            base_offset,
            records_count,
            body_bytes: 40,
            fill: base_offset as u8,
            timestamp: 1_000,
            producer: None,
            leader_epoch: 0,
        }
    }

    pub fn produced_by(self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        Self { producer: Some((id, epoch, base_sequence)), ..self }
    }

    pub fn sized(self, body_bytes: usize) -> Self {
        Self { body_bytes, ..self }
    }

    pub fn at_time(self, timestamp: i64) -> Self {
        Self { timestamp, ..self }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut header = BatchHeader::read_from_bytes(&[0; HEADER_BYTES]).expect("61 bytes");
        let (id, epoch, sequence) = self.producer.unwrap_or((-1, -1, -1));
        header.base_offset = I64::new(self.base_offset);
        header.batch_length = I32::new((HEADER_BYTES - LOG_OVERHEAD_BYTES + self.body_bytes) as i32);
        header.partition_leader_epoch = I32::new(self.leader_epoch);
        header.magic = 2;
        header.last_offset_delta = I32::new(self.records_count - 1);
        header.base_timestamp = I64::new(self.timestamp);
        header.max_timestamp = I64::new(self.timestamp);
        header.producer_id = I64::new(id);
        header.producer_epoch = I16::new(epoch);
        header.base_sequence = I32::new(sequence);
        header.records_count = I32::new(self.records_count);
        let mut bytes = header.as_bytes().to_vec();
        // Never the same byte throughout: an exchanged block must show.
        bytes.extend((0..self.body_bytes).map(|index| self.fill.wrapping_add((index * 7) as u8)));
        let crc = crc32c(&bytes[CRC_START..]);
        bytes[17..21].copy_from_slice(U32::new(crc).as_bytes());
        bytes
    }
}
