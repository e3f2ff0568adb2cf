//! Record batches, both ways, against the second codec (without compression, which it doesn't have here).

use crate::draw::{Draw, for_seeds};
use bytes::{Bytes, BytesMut};
use corelane::base::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use corelane::protocol::batch_body::batch_records;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::Codecs;
use corelane::protocol::record::RecordHeader;
use corelane::protocol::record_batch::{BatchHeader, validate};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

fn draw_records(draw: &mut Draw) -> Vec<Record> {
    let producer =
        draw.maybe(|draw| (draw.below(1 << 40) as i64, draw.below(1000) as i16, draw.below(1000) as i32));
    let (producer_id, producer_epoch, first) = producer.unwrap_or((-1, -1, -1));
    let time = draw.below(1 << 41) as i64;
    let is_transactional = producer.is_some() && draw.chance();
    (0..1 + draw.below(20))
        .map(|index| {
            // The second codec keeps headers in a map: no repeated keys here.
            let names = draw.below(3);
            let headers: IndexMap<_, _> = (0..names)
                .map(|index| {
                    let name = format!("{index}{}", draw.text());
                    (StrBytes::from_string(name), draw.maybe(|draw| Bytes::from(draw.blob())))
                })
                .collect();
            Record {
                transactional: is_transactional,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 0,
                producer_id,
                producer_epoch,
                timestamp_type: TimestampType::Creation,
                offset: index as i64,
                // Without a producer too: the second codec begins a new batch where sequences don't ascend.
                sequence: first + index as i32,
                timestamp: time + draw.below(1000) as i64 - 500,
                key: draw.maybe(|draw| Bytes::from(draw.blob())),
                value: draw.maybe(|draw| Bytes::from(draw.blob())),
                headers,
            }
        })
        .collect()
}

fn build(records: &[Record]) -> Vec<u8> {
    let first = &records[0];
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: Offset(0),
        leader_epoch: LeaderEpoch(0),
        producer: (first.producer_id >= 0).then_some((
            ProducerId(first.producer_id),
            ProducerEpoch(first.producer_epoch),
            first.sequence,
        )),
        is_transactional: first.transactional,
        ..BatchOptions::default()
    });
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| RecordHeader { key: key.as_str(), value: value.as_deref() })
            .collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    builder.finish(&mut Codecs::default())
}

#[test]
fn what_we_build_the_second_codec_reads() {
    for_seeds(200, |draw| {
        let records = draw_records(draw);
        let batch = build(&records);
        let read = RecordBatchDecoder::decode(&mut Bytes::from(batch)).expect("readable").records;
        assert!(read == records, "{} records", records.len());
    });
}

#[test]
fn what_the_second_codec_builds_we_read() {
    for_seeds(200, |draw| {
        let records = draw_records(draw);
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut batch, &records, &options).expect("writable");
        let header: &BatchHeader = validate(&batch).expect("one whole batch");
        assert_eq!(header.last_offset().0, records.len() as i64 - 1);
        let mut buffer = Vec::new();
        let read = batch_records(&batch, 0, &mut Codecs::default(), &mut buffer).expect("not compressed");
        let mut count = 0;
        for (read, expected) in read.zip(&records) {
            let read = read.expect("well formed");
            assert_eq!(i64::from(read.offset_delta), expected.offset);
            assert_eq!(read.timestamp_delta + header.base_timestamp.get(), expected.timestamp);
            assert_eq!((read.key, read.value), (expected.key.as_deref(), expected.value.as_deref()));
            let headers: Vec<_> = read.headers().map(|header| (header.key, header.value)).collect();
            let expected: Vec<_> =
                expected.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            assert_eq!(headers, expected);
            count += 1;
        }
        assert_eq!(count, records.len());
    });
}
