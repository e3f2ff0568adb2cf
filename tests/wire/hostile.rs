//! Hostile: random bytes, and valid messages with a few bytes changed, are refused or read, never more.

use crate::draw::{Draw, for_seeds};
use corelane::protocol::api_versions::ApiVersionsRequest;
use corelane::protocol::batch_body::{batch_records, recompress};
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::{Codec, Codecs};
use corelane::protocol::fetch_request::FetchRequest;
use corelane::protocol::frame::split;
use corelane::protocol::header::RequestHeader;
use corelane::protocol::produce_request::ProduceRequest;
use corelane::protocol::record::records;
use corelane::protocol::record_batch::validate;
use std::hint::black_box;

/// Small numbers are frequent: they are plausible lengths.
fn noise(draw: &mut Draw) -> Vec<u8> {
    let mut bytes = vec![0; draw.below(120)];
    draw.0.fill(&mut bytes);
    let small = draw.below(10) as u64;
    for byte in &mut bytes {
        if draw.0.chance(small, 10) {
            *byte = [0, 0, 0, 1, 2, 3, 0xff, 0x7f][draw.below(8)];
        }
    }
    bytes
}

/// Reads everything there is to read.
fn read_all(version: i16, bytes: &[u8], codecs: &mut Codecs) {
    let parsed = ProduceRequest::parse(version, bytes);
    let count = parsed.map_or(0, |request| request.topics().flat_map(|topic| topic.partitions()).count());
    let parsed = FetchRequest::parse(version, bytes);
    let fetched = parsed.map_or(0, |request| {
        let forgotten = request.forgotten_topics().flat_map(|topic| topic.partitions()).count();
        forgotten + request.topics().flat_map(|topic| topic.partitions()).count()
    });
    assert!(count.max(fetched) <= bytes.len(), "no more partitions than bytes");
    black_box(ApiVersionsRequest::parse(version, bytes).is_ok());
    black_box(RequestHeader::parse(bytes).is_ok());
    assert!(split(bytes, 64).is_ok() || bytes.len() >= 4);
    let walked: usize = records(1000, bytes).flatten().map(|record| 1 + record.headers().count()).sum();
    assert!(walked <= bytes.len(), "no more records and headers than bytes");
    assert!(validate(bytes).is_err() || bytes.len() > 61);
    for codec in Codec::ALL {
        let mut out = Vec::new();
        let outcome = codecs.decompress(codec, bytes, 4096, &mut out);
        assert!(outcome.is_err() || out.len() <= 4096);
    }
}

#[test]
fn random_bytes_are_read_or_refused() {
    for_seeds(2000, |draw| {
        let mut codecs = Codecs::default();
        for version in [0, 3, 4, 8, 9, 12, 13, 18] {
            read_all(version, &noise(draw), &mut codecs);
        }
    });
}

#[test]
fn damaged_batches_are_read_or_refused() {
    for_seeds(500, |draw| {
        let mut codecs = Codecs::default();
        let codec = Codec::ALL[draw.below(5)];
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        for time in 0..1 + draw.below(10) {
            builder.push(time as i64, Some(&draw.blob()), None, &[]);
        }
        let mut batch = builder.finish(&mut codecs);
        for _ in 0..1 + draw.below(4) {
            let at = draw.below(batch.len() as u64);
            batch[at] ^= 1 << draw.below(8);
        }
        batch.truncate(batch.len() - draw.below(3));
        assert!(validate(&batch).is_err() || batch.len() > 61);
        let mut buffer = Vec::new();
        if let Ok(records) = batch_records(&batch, 1 << 20, &mut codecs, &mut buffer) {
            assert!(records.count() <= 1 << 20);
        }
        let outcome = recompress(&batch, Codec::Lz4, 1 << 20, &mut codecs);
        black_box(outcome.is_ok());
    });
}
