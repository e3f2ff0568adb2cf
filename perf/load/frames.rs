//! Frames: whole Produce requests, encoded once; what changes from send to send is patched in place.

use crate::client::write_header;
use crate::responses::PRODUCE_VERSION;
use crate::template::{Patch, Template};
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::frame;
use corelane::protocol::writer::Writer;
use std::ops::Range;

/// Length in front, API key, version.
const CORRELATION_AT: usize = 8;

/// A whole request of one batch for each of its partitions, and where they are.
pub struct ProduceFrame {
    /// Empty while it is being sent.
    pub bytes: Vec<u8>,
    pub partitions: Vec<i32>,
    batches_at: Vec<Range<usize>>,
}

impl ProduceFrame {
    /// `batch_of` makes the batch of a partition.
    pub fn new(topic: &str, acks: i16, partitions: &[i32], mut batch_of: impl FnMut(i32) -> Vec<u8>) -> Self {
        let mut bytes = Vec::new();
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
            let batch = batch_of(*partition);
            writer.i32(*partition);
            writer.length(Some(batch.len()));
            batches_at.push(writer.out.len()..writer.out.len() + batch.len());
            writer.raw(&batch);
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
        writer.no_tagged_fields();
        frame::end(&mut bytes, at, 0);
        // One is kept for every partition and connection.
        bytes.shrink_to_fit();
        Self { bytes, partitions: partitions.to_vec(), batches_at }
    }

    pub fn set_correlation_id(&mut self, correlation_id: i32) {
        self.bytes[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation_id.to_be_bytes());
    }

    pub fn patch(&mut self, template: &Template, patch: &Patch) {
        for at in &self.batches_at {
            template.patch(&mut self.bytes[at.clone()], patch);
        }
    }

    /// Bytes of all its batches.
    pub fn batches_bytes(&self) -> usize {
        self.batches_at.iter().map(Range::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KEY_BYTES, Keys};
    use crate::stamp::Stamp;
    use crate::template::tests::content;
    use crate::template::{BatchSize, Content, RecordKeys};
    use corelane::base::ids::{ProducerEpoch, ProducerId};
    use corelane::protocol::compression::Codecs;
    use corelane::protocol::header::RequestHeader;
    use corelane::protocol::produce_request::ProduceRequest;
    use corelane::protocol::record::records;
    use corelane::protocol::record_batch::{HEADER_BYTES, validate};

    #[test]
    fn a_frame_is_a_request_a_broker_accepts_after_every_patch() {
        let keys = Keys(50);
        let plain = content(7, 100, BatchSize::Records(200));
        let template = Template::new(&Content { keys: RecordKeys::Numbered(keys), ..plain });
        let mut codecs = Codecs::default();
        let batch_of = |partition| template.batch_of(partition, 3, &mut codecs, || [0; KEY_BYTES]);
        let mut frame = ProduceFrame::new("t", -1, &[4, 9], batch_of);
        for round in 0..3u64 {
            frame.set_correlation_id(round as i32);
            let sequence = round as i32 * 200;
            frame.patch(
                &template,
                &Patch {
                    number: Some((round * 200, 77)),
                    producer: Some((ProducerId(12), ProducerEpoch(1), sequence)),
                },
            );
            let (header, body) = RequestHeader::parse(&frame.bytes[4..]).expect("a header");
            assert_eq!((header.version, header.correlation_id.0), (PRODUCE_VERSION, round as i32));
            let request = ProduceRequest::parse(header.version, body).expect("a request");
            let topic = request.topics().next().expect("one topic");
            let partitions: Vec<_> = topic.partitions().collect();
            assert_eq!(partitions.iter().map(|p| p.partition.0).collect::<Vec<_>>(), [4, 9]);
            for partition in partitions {
                let batch = partition.records.expect("a batch");
                let header = validate(batch).expect("valid");
                assert_eq!((header.records_count.get(), header.base_sequence.get()), (200, sequence));
                assert_eq!(header.producer(), Some((ProducerId(12), ProducerEpoch(1))));
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
}
