//! Batch builder: records into one batch, for what the broker writes itself and for tests and load.
//!
//! Promises: the bytes are what Kafka's own producer could have sent.

use crate::base::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use crate::protocol::compression::{Codec, Codecs};
use crate::protocol::record::{RecordHeader, write_record};
use crate::protocol::record_batch::{BatchHeader, HEADER_BYTES, LOG_OVERHEAD_BYTES, seal};
use zerocopy::IntoBytes;

/// What a batch has besides its records.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    pub codec: Codec,
    pub base_offset: Offset,
    /// -1 until a leader appends it.
    pub leader_epoch: LeaderEpoch,
    /// Producer and sequence number of the first record.
    pub producer: Option<(ProducerId, ProducerEpoch, i32)>,
    pub is_transactional: bool,
    pub is_control: bool,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            codec: Codec::None,
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch(-1),
            producer: None,
            is_transactional: false,
            is_control: false,
        }
    }
}

/// Collects records; their offsets are dense and begin at the base offset.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    body: Vec<u8>,
    records_count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    pub fn new(options: BatchOptions) -> Self {
        Self { options, body: Vec::new(), records_count: 0, base_timestamp: -1, max_timestamp: -1 }
    }

    pub fn is_empty(&self) -> bool {
        self.records_count == 0
    }

    /// Bytes of the batch if it were finished now without compression.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Adds a record; `timestamp_ms` is the producer's time of it.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader<'_>],
    ) {
        if self.records_count == 0 {
            self.base_timestamp = timestamp_ms;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        let delta = timestamp_ms.wrapping_sub(self.base_timestamp);
        write_record(&mut self.body, delta, self.records_count, key, value, headers);
        self.records_count += 1;
    }

    /// The batch. Precondition: at least one record.
    pub fn finish(self, codecs: &mut Codecs) -> Vec<u8> {
        assert!(self.records_count > 0, "a batch has a record");
        let mut batch = vec![0; HEADER_BYTES];
        codecs.compress(self.options.codec, &self.body, &mut batch);
        let header = self.header(batch.len());
        batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        seal(&mut batch);
        batch
    }

    fn header(&self, size_bytes: usize) -> BatchHeader {
        let options = &self.options;
        let (producer_id, producer_epoch, base_sequence) =
            options.producer.unwrap_or((ProducerId(-1), ProducerEpoch(-1), -1));
        let attributes = i16::from(options.codec.number())
            | i16::from(options.is_transactional) << 4
            | i16::from(options.is_control) << 5;
        let batch_length = i32::try_from(size_bytes - LOG_OVERHEAD_BYTES).expect("batches are below 2 GiB");
        BatchHeader {
            base_offset: options.base_offset.0.into(),
            batch_length: batch_length.into(),
            partition_leader_epoch: options.leader_epoch.0.into(),
            magic: 2,
            crc: 0.into(),
            attributes: attributes.into(),
            last_offset_delta: (self.records_count - 1).into(),
            base_timestamp: self.base_timestamp.into(),
            max_timestamp: self.max_timestamp.into(),
            producer_id: producer_id.0.into(),
            producer_epoch: producer_epoch.0.into(),
            base_sequence: base_sequence.into(),
            records_count: self.records_count.into(),
        }
    }
}
