//! Template: one batch of records, from which those of all partitions are made, and what is patched in them.

use crate::keys::{KEY_BYTES, Keys};
use crate::stamp::{STAMP_BYTES, Stamp};
use corelane::base::checksum::crc32c;
use corelane::base::ids::{ProducerEpoch, ProducerId};
use corelane::base::random::Random;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::{Codec, Codecs};
use corelane::protocol::record::{RecordView, records};
use corelane::protocol::record_batch::{BatchHeader, CRC_START, HEADER_BYTES, LOG_OVERHEAD_BYTES};
use zerocopy::FromBytes;

/// How many records a batch has.
#[derive(Clone, Copy, Debug)]
pub enum BatchSize {
    Records(usize),
    /// As many as fit before compression, at least one.
    Bytes(usize),
}

impl BatchSize {
    /// `record_bytes`: of key and value.
    fn has_room(self, records_count: usize, size_bytes: usize, record_bytes: usize) -> bool {
        match self {
            Self::Records(wanted) => records_count < wanted.max(1),
            // Varints make a record at most 20 bytes longer than its key and value.
            Self::Bytes(bytes) => records_count == 0 || size_bytes + record_bytes + 20 <= bytes,
        }
    }
}

/// Where records have their keys from.
#[derive(Clone, Copy, Debug)]
pub enum RecordKeys {
    None,
    /// From the record's number, at each send.
    Numbered(Keys),
    /// Given once, when the partition's batch is made.
    Given,
}

/// What records are like.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    pub seed: u64,
    /// Of a value, at least [`STAMP_BYTES`].
    pub record_bytes: usize,
    pub keys: RecordKeys,
    pub size: BatchSize,
    pub timestamp_ms: i64,
    /// With one, half of each value is noise and half is always the same.
    pub codec: Codec,
}

pub struct Template {
    /// Not compressed, of no partition.
    batch: Vec<u8>,
    codec: Codec,
    /// Where each record's value begins in the batch.
    values_at: Vec<usize>,
    keys: RecordKeys,
    /// Where each record's key begins; empty without keys.
    keys_at: Vec<usize>,
}

/// What is changed before a send.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patch {
    /// Number of the first record, and the intended send time. Not of compressed batches.
    pub number: Option<(u64, u64)>,
    /// The producer, and the sequence number of the first record.
    pub producer: Option<(ProducerId, ProducerEpoch, i32)>,
}

impl Template {
    pub fn new(content: &Content) -> Self {
        let mut random = Random::new(content.seed);
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let mut value = vec![0; content.record_bytes];
        let has_keys = !matches!(content.keys, RecordKeys::None);
        let key = has_keys.then_some(&[0; KEY_BYTES][..]);
        let record_bytes = content.record_bytes + key.map_or(0, <[u8]>::len);
        let mut count = 0;
        while content.size.has_room(count, builder.size_bytes(), record_bytes) {
            count += 1;
            fill(&mut value[STAMP_BYTES..], content.codec, &mut random);
            let crc = crc32c(&value[STAMP_BYTES..]);
            let stamp = Stamp { partition: 0, stream: 0, number: 0, sent_ns: 0, crc };
            value[..STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
            builder.push(content.timestamp_ms, key, Some(&value), &[]);
        }
        let batch = builder.finish(&mut Codecs::default());
        let values_at = places(&batch, |record| record.value);
        let keys_at = places(&batch, |record| record.key);
        Self { batch, codec: content.codec, values_at, keys: content.keys, keys_at }
    }

    pub fn records_count(&self) -> usize {
        self.values_at.len()
    }

    /// Of a batch before compression.
    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// The batch of a partition, written by connection `stream`: its records are numbered from 0.
    /// `next_key` is asked where keys are given.
    pub fn batch_of(
        &self,
        partition: i32,
        stream: u32,
        codecs: &mut Codecs,
        mut next_key: impl FnMut() -> [u8; KEY_BYTES],
    ) -> Vec<u8> {
        let mut batch = self.batch.clone();
        for at in &self.values_at {
            let value = &mut batch[*at..][..8];
            value[..4].copy_from_slice(&partition.to_be_bytes());
            value[4..].copy_from_slice(&stream.to_be_bytes());
        }
        if let RecordKeys::Given = self.keys {
            for at in &self.keys_at {
                batch[*at..][..KEY_BYTES].copy_from_slice(&next_key());
            }
        }
        self.number(&mut batch, 0, 0);
        if self.codec != Codec::None {
            batch = compressed(&batch, self.codec, codecs);
        }
        seal(&mut batch);
        batch
    }

    /// Changes a batch made by `batch_of`.
    pub fn patch(&self, batch: &mut [u8], patch: &Patch) {
        if let Some((first_number, sent_ns)) = patch.number {
            assert!(self.codec == Codec::None, "records are patched where they stand");
            self.number(batch, first_number, sent_ns);
        }
        if let Some((id, epoch, sequence)) = patch.producer {
            let (header, _) = BatchHeader::mut_from_prefix(batch).expect("a batch has a header");
            header.producer_id.set(id.0);
            header.producer_epoch.set(epoch.0);
            header.base_sequence.set(sequence);
        }
        seal(batch);
    }

    /// Numbers the records from `first_number` on, stamps them, and gives them the keys of their numbers.
    fn number(&self, batch: &mut [u8], first_number: u64, sent_ns: u64) {
        for (number, at) in (first_number..).zip(&self.values_at) {
            let value = &mut batch[*at..][8..24];
            value[..8].copy_from_slice(&number.to_be_bytes());
            value[8..].copy_from_slice(&sent_ns.to_be_bytes());
        }
        let RecordKeys::Numbered(keys) = self.keys else { return };
        for (number, at) in (first_number..).zip(&self.keys_at) {
            batch[*at..][..KEY_BYTES].copy_from_slice(&keys.of(number));
        }
    }
}

/// Noise; where it is to be compressed, noise and the same words again and again, half and half.
fn fill(bytes: &mut [u8], codec: Codec, random: &mut Random) {
    let noise_bytes = if codec == Codec::None { bytes.len() } else { bytes.len() / 2 };
    let (noise, words) = bytes.split_at_mut(noise_bytes);
    random.fill(noise);
    for (byte, word) in words.iter_mut().zip(b"what compresses well ".iter().cycle()) {
        *byte = *word;
    }
}

fn compressed(batch: &[u8], codec: Codec, codecs: &mut Codecs) -> Vec<u8> {
    let mut out = batch[..HEADER_BYTES].to_vec();
    codecs.compress(codec, &batch[HEADER_BYTES..], &mut out);
    let length = out.len() - LOG_OVERHEAD_BYTES;
    let (header, _) = BatchHeader::mut_from_prefix(&mut out).expect("a batch has a header");
    header.batch_length.set(i32::try_from(length).expect("batches are below 2 GiB"));
    header.attributes.set(i16::from(codec.number()));
    out
}

fn seal(batch: &mut [u8]) {
    let crc = crc32c(&batch[CRC_START..]);
    let (header, _) = BatchHeader::mut_from_prefix(batch).expect("a batch has a header");
    header.crc.set(crc);
}

/// Position of a part of every record in an uncompressed batch.
fn places(batch: &[u8], part: for<'a> fn(&RecordView<'a>) -> Option<&'a [u8]>) -> Vec<usize> {
    let start = batch.as_ptr() as usize;
    records(i32::MAX, &batch[HEADER_BYTES..])
        .map_while(Result::ok)
        .filter_map(|record| part(&record).map(|bytes| bytes.as_ptr() as usize - start))
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use corelane::protocol::record_batch::validate;

    /// Records without keys, not compressed.
    pub fn content(seed: u64, record_bytes: usize, size: BatchSize) -> Content {
        Content { seed, record_bytes, keys: RecordKeys::None, size, timestamp_ms: 5, codec: Codec::None }
    }

    #[test]
    fn as_many_records_as_fit_are_taken() {
        for bytes in [10, 16_384, 1 << 20] {
            let template = Template::new(&content(1, 1024, BatchSize::Bytes(bytes)));
            assert!(template.records_count() == 1 || template.batch_bytes() <= bytes);
            assert!(template.batch_bytes() + 1044 > bytes);
        }
    }

    #[test]
    fn compressed_batches_are_half_as_large_and_hold_the_same_records() {
        let mut codecs = Codecs::default();
        for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::None) {
            let plain = content(7, 1024, BatchSize::Bytes(16_384));
            let template = Template::new(&Content { codec, keys: RecordKeys::Given, ..plain });
            let mut batch = template.batch_of(4, 3, &mut codecs, || [9; KEY_BYTES]);
            let ratio = template.batch_bytes() as f64 / batch.len() as f64;
            assert!((1.7..2.3).contains(&ratio), "{codec:?}: {ratio}");
            let producer = Some((ProducerId(6), ProducerEpoch(1), 30));
            template.patch(&mut batch, &Patch { producer, ..Patch::default() });
            let header = validate(&batch).expect("valid");
            assert_eq!((header.codec_number(), header.base_sequence.get()), (codec.number(), 30));
            let mut body = Vec::new();
            codecs
                .decompress(codec, &batch[HEADER_BYTES..], 1 << 20, &mut body)
                .expect("what was compressed");
            let count = header.records_count.get();
            assert_eq!(records(count, &body).count(), template.records_count());
            for record in records(count, &body) {
                let record = record.expect("well formed");
                let (stamp, is_whole) = record.value.and_then(Stamp::read).expect("a stamp");
                assert!(is_whole && (stamp.partition, stamp.stream) == (4, 3));
                assert_eq!(record.key, Some(&[9; KEY_BYTES][..]));
            }
        }
    }
}
