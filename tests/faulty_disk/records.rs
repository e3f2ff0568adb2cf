//! Records: batches whose bytes follow from their stream and the number of their first record.
//!
//! A partition has one producer, which numbers its records and never gives one up. So on an idempotent
//! partition record `n` stands at offset `n`: nothing else can be lost, doubled or out of order unseen.

use corelane::base::ids::{ProducerEpoch, ProducerId};
use corelane::base::random::Random;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::Codecs;
use corelane::protocol::record::records;
use corelane::protocol::record_batch::{BatchHeader, HEADER_BYTES, validate};

/// One partition of one life of a topic: a topic made again has another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub key: u64,
    pub partition: i32,
}

/// Key, partition and number stand before the content.
const STAMP_BYTES: usize = 20;

const BATCH_RECORDS_MAX: u64 = 60;

/// 2026-01-01: records have a time of their own, so that a batch sent again is the same.
const BASE_TIMESTAMP_MS: i64 = 1_767_225_600_000;

impl Stream {
    fn random(&self, number: i64, what: u64) -> Random {
        Random::new(self.key ^ (self.partition as u64) << 48 ^ (number as u64) << 2 ^ what)
    }

    fn value(&self, number: i64) -> Vec<u8> {
        let mut random = self.random(number, 0);
        // Mostly small; some span several blocks of the disk.
        let content = if random.chance(1, 50) { random.below(20_000) } else { random.below(400) };
        let mut value = vec![0; STAMP_BYTES + content as usize];
        value[..8].copy_from_slice(&self.key.to_be_bytes());
        value[8..12].copy_from_slice(&self.partition.to_be_bytes());
        value[12..20].copy_from_slice(&number.to_be_bytes());
        random.fill(&mut value[STAMP_BYTES..]);
        value
    }

    /// How many records the batch has that begins with `number`.
    pub fn count(&self, number: i64) -> i64 {
        1 + self.random(number, 1).below(BATCH_RECORDS_MAX) as i64
    }

    /// The batch that begins with `number`; always the same bytes for the same producer and sequence.
    pub fn batch(&self, number: i64, producer: Option<(i64, i16, i32)>) -> Vec<u8> {
        let producer = producer.map(|(id, epoch, sequence)| (ProducerId(id), ProducerEpoch(epoch), sequence));
        let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
        for number in number..number + self.count(number) {
            builder.push(BASE_TIMESTAMP_MS + number, None, Some(&self.value(number)), &[]);
        }
        builder.finish(&mut Codecs::default())
    }

    /// Reads a batch of this stream: its base offset, and the number of each record.
    pub fn read(&self, batch: &[u8]) -> Result<(i64, Vec<i64>), String> {
        let header = BatchHeader::view(batch).ok_or("a batch without header")?;
        let base = header.base_offset().0;
        // The broker's own fields lie outside the checksum; a client sends a base offset of 0.
        let mut sent = batch.to_vec();
        sent[..8].fill(0);
        validate(&sent).map_err(|error| format!("offset {base}: {error:?}"))?;
        let count = header.records_count.get();
        let mut numbers = Vec::new();
        for (index, record) in records(count, &batch[HEADER_BYTES..]).enumerate() {
            let record = record.map_err(|error| format!("offset {base}: {error:?}"))?;
            let value = record.value.unwrap_or_default();
            let stamp = value.get(12..STAMP_BYTES).and_then(|bytes| bytes.try_into().ok());
            let number = stamp.map_or(-1, i64::from_be_bytes);
            if record.offset_delta as usize != index || value != self.value(number) {
                return Err(format!("offset {base} + {index}: not a record that was sent here"));
            }
            numbers.push(number);
        }
        Ok((base, numbers))
    }
}

/// Cuts the whole batches of a fetched range; what follows them is the part of one.
pub fn cut_batches(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut batches = Vec::new();
    while let Some(size) = BatchHeader::view(bytes).and_then(BatchHeader::size_bytes) {
        let Some((batch, rest)) = bytes.split_at_checked(size) else { break };
        batches.push(batch);
        bytes = rest;
    }
    batches
}
