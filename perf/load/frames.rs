//! Frames: whole Produce requests, encoded once; what changes from send to send is patched in place.

use crate::client::write_header;
use crate::keys::{KEY_BYTES, Keys};
use crate::responses::PRODUCE_VERSION;
use corelane::base::checksum::crc32c;
use corelane::base::random::Random;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::Codecs;
use corelane::protocol::frame;
use corelane::protocol::record::{RecordView, records};
use corelane::protocol::record_batch::{CRC_START, HEADER_BYTES};
use corelane::protocol::writer::Writer;

/// Length in front, API key, version.
const CORRELATION_AT: usize = 8;
/// Position of the checksum in a batch.
const CRC_AT: usize = 17;

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

/// How many records a batch has.
#[derive(Clone, Copy, Debug)]
pub enum BatchSize {
    Records(usize),
    /// As many as fit, at least one.
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

/// One batch of random values, from which those of all partitions are made.
pub struct Template {
    batch: Vec<u8>,
    /// Where each record's value begins in the batch.
    values_at: Vec<usize>,
    keys: Option<Keys>,
    /// Where each record's key begins; empty without keys.
    keys_at: Vec<usize>,
}

impl Template {
    /// Precondition: `record_bytes >= STAMP_BYTES`.
    pub fn new(
        seed: u64,
        record_bytes: usize,
        keys: Option<Keys>,
        size: BatchSize,
        timestamp_ms: i64,
    ) -> Self {
        let mut random = Random::new(seed);
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let mut value = vec![0; record_bytes];
        let key = keys.map(|_| [0; KEY_BYTES]);
        let key = key.as_ref().map(|key| &key[..]);
        let key_bytes = key.map_or(0, <[u8]>::len);
        let mut count = 0;
        while size.has_room(count, builder.size_bytes(), record_bytes + key_bytes) {
            count += 1;
            random.fill(&mut value[STAMP_BYTES..]);
            let crc = crc32c(&value[STAMP_BYTES..]);
            let stamp = Stamp { partition: 0, stream: 0, number: 0, sent_ns: 0, crc };
            value[..STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
            builder.push(timestamp_ms, key, Some(&value), &[]);
        }
        let batch = builder.finish(&mut Codecs::default());
        let values_at = places(&batch, |record| record.value);
        let keys_at = places(&batch, |record| record.key);
        Self { batch, values_at, keys, keys_at }
    }

    pub fn records_count(&self) -> usize {
        self.values_at.len()
    }

    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }
}

/// Position of a part of every record in an uncompressed batch.
fn places(batch: &[u8], part: for<'a> fn(&RecordView<'a>) -> Option<&'a [u8]>) -> Vec<usize> {
    let start = batch.as_ptr() as usize;
    records(i32::MAX, &batch[HEADER_BYTES..])
        .map_while(Result::ok)
        .filter_map(|record| part(&record).map(|bytes| bytes.as_ptr() as usize - start))
        .collect()
}

/// A whole request of one batch for each of its partitions, and where they are.
pub struct ProduceFrame {
    /// Empty while it is being sent.
    pub bytes: Vec<u8>,
    pub partitions: Vec<i32>,
    batches_at: Vec<usize>,
}

impl ProduceFrame {
    pub fn new(template: &Template, topic: &str, acks: i16, stream: u32, partitions: &[i32]) -> Self {
        let mut bytes = Vec::with_capacity(partitions.len() * (template.batch_bytes() + 16) + 128);
        let at = frame::begin(&mut bytes);
        write_header(&mut bytes, ApiKey::Produce, PRODUCE_VERSION, 0);
        let mut writer = Writer::new(&mut bytes, true);
        writer.nullable_string(None);
        writer.i16(acks);
        writer.i32(30_000);
        writer.array(1);
        writer.string(topic);
        writer.array(partitions.len());
        let mut batches_at = Vec::new();
        for partition in partitions {
            writer.i32(*partition);
            writer.length(Some(template.batch.len()));
            batches_at.push(writer.out.len());
            writer.raw(&template.batch);
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
        writer.no_tagged_fields();
        frame::end(&mut bytes, at, 0);
        let mut frame = Self { bytes, partitions: partitions.to_vec(), batches_at };
        frame.address(template, stream);
        frame
    }

    /// Writes partition and stream into every record, and numbers from 0.
    fn address(&mut self, template: &Template, stream: u32) {
        for (partition, at) in self.partitions.iter().zip(&self.batches_at) {
            for value_at in &template.values_at {
                let value = &mut self.bytes[at + value_at..][..8];
                value[..4].copy_from_slice(&partition.to_be_bytes());
                value[4..].copy_from_slice(&stream.to_be_bytes());
            }
        }
        self.number(template, 0, 0);
    }

    pub fn set_correlation_id(&mut self, correlation_id: i32) {
        self.bytes[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation_id.to_be_bytes());
    }

    /// Numbers the records of each batch from `first_number` on, stamps them, and gives them their keys.
    pub fn number(&mut self, template: &Template, first_number: u64, sent_ns: u64) {
        for at in &self.batches_at {
            for (number, value_at) in (first_number..).zip(&template.values_at) {
                let value = &mut self.bytes[at + value_at..][8..24];
                value[..8].copy_from_slice(&number.to_be_bytes());
                value[8..].copy_from_slice(&sent_ns.to_be_bytes());
            }
            let Some(keys) = template.keys else { continue };
            for (number, key_at) in (first_number..).zip(&template.keys_at) {
                self.bytes[at + key_at..][..KEY_BYTES].copy_from_slice(&keys.of(number));
            }
        }
        self.seal(template);
    }

    fn seal(&mut self, template: &Template) {
        for at in &self.batches_at {
            let batch = &mut self.bytes[*at..][..template.batch.len()];
            let crc = crc32c(&batch[CRC_START..]);
            batch[CRC_AT..CRC_START].copy_from_slice(&crc.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane::protocol::header::RequestHeader;
    use corelane::protocol::produce_request::ProduceRequest;
    use corelane::protocol::record_batch::validate;

    #[test]
    fn a_frame_is_a_request_a_broker_accepts_after_every_patch() {
        let keys = Keys(50);
        let template = Template::new(7, 100, Some(keys), BatchSize::Records(200), 5);
        let mut frame = ProduceFrame::new(&template, "t", -1, 3, &[4, 9]);
        for round in 0..3u64 {
            frame.set_correlation_id(round as i32);
            frame.number(&template, round * 200, 77);
            let (header, body) = RequestHeader::parse(&frame.bytes[4..]).expect("a header");
            assert_eq!((header.version, header.correlation_id.0), (PRODUCE_VERSION, round as i32));
            let request = ProduceRequest::parse(header.version, body).expect("a request");
            let topic = request.topics().next().expect("one topic");
            let partitions: Vec<_> = topic.partitions().collect();
            assert_eq!(partitions.iter().map(|p| p.partition.0).collect::<Vec<_>>(), [4, 9]);
            for partition in partitions {
                let batch = partition.records.expect("a batch");
                assert_eq!(validate(batch).expect("valid").records_count.get(), 200);
                for (index, record) in records(200, &batch[HEADER_BYTES..]).enumerate() {
                    let record = record.expect("well formed");
                    let value = record.value.expect("a value");
                    assert_eq!(record.key, Some(&keys.of(round * 200 + index as u64)[..]));
                    let (stamp, is_whole) = Stamp::read(value).expect("a stamp");
                    assert!(is_whole);
                    assert_eq!((stamp.partition, stamp.stream), (partition.partition.0 as u32, 3));
                    assert_eq!((stamp.number, stamp.sent_ns), (round * 200 + index as u64, 77));
                }
            }
        }
    }

    #[test]
    fn as_many_records_as_fit_are_taken() {
        for bytes in [10, 16_384, 1 << 20] {
            let template = Template::new(1, 1024, None, BatchSize::Bytes(bytes), 0);
            assert!(template.records_count() == 1 || template.batch_bytes() <= bytes);
            assert!(template.batch_bytes() + 1044 > bytes);
        }
    }
}
