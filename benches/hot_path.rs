//! Hot path: what a broker does to the bytes of every Produce and Fetch, without sockets and disks.
//!
//! Sketch, with the wide carry-less multiplication of current cores (50 bytes of CRC-32C per ns, a tenth of
//! that without): a batch of 1 KiB costs 35 ns, of 16 KiB 0.3 µs, of 1 MiB 20 µs; its header a cache line and
//! a dozen compares. Decoding a Produce request and encoding a Fetch response touch no record, so their time
//! follows the partitions, some 20 ns for each, whatever the bytes.

use std::hint::black_box;

use corelane::base::checksum::crc32c;
use corelane::base::ids::{CorrelationId, PartitionId, TopicId};
use corelane::base::random::Random;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::Codecs;
use corelane::protocol::error_code::ErrorCode;
use corelane::protocol::fetch_response::{
    FetchFrame, FetchPartitionResponse, FetchResponse, FetchResponseHead,
};
use corelane::protocol::produce_request::ProduceRequest;
use corelane::protocol::record_batch::{HEADER_BYTES, validate};
use corelane::protocol::writer::Writer;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [usize; 3] = [1 << 10, 16 << 10, 1 << 20];
const PARTITIONS: usize = 16;

/// Versions of clients of today: the last that names topics by name, and by id.
const PRODUCE_VERSIONS: [i16; 2] = [12, 13];
const FETCH_VERSIONS: [i16; 2] = [12, 18];

/// One batch of one record, as large as it says.
fn batch(bytes: usize) -> Vec<u8> {
    // What a record's own lengths and counts take, at most.
    const RECORD_BYTES: usize = 16;
    let mut value = vec![0; bytes - HEADER_BYTES - RECORD_BYTES];
    Random::new(1).fill(&mut value);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1_700_000_000_000, None, Some(&value), &[]);
    builder.finish(&mut Codecs::default())
}

fn produce_body(version: i16, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, true);
    writer.nullable_string(None);
    writer.i16(-1);
    writer.i32(30_000);
    writer.array(1);
    if version >= 13 {
        writer.uuid(TopicId([5; 16]));
    } else {
        writer.string("topic");
    }
    writer.array(PARTITIONS);
    for partition in 0..PARTITIONS {
        writer.i32(partition as i32);
        writer.bytes(batch);
        writer.no_tagged_fields();
    }
    writer.no_tagged_fields();
    writer.no_tagged_fields();
    body
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32c");
    for size in SIZES {
        let mut bytes = vec![0; size];
        Random::new(1).fill(&mut bytes);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| crc32c(black_box(&bytes)));
        });
    }
}

fn batch_check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch_check");
    for size in SIZES {
        let batch = batch(size);
        assert!(validate(&batch).is_ok(), "what is measured is the whole check");
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| validate(black_box(&batch)).is_ok());
        });
    }
}

/// Parses the request and visits each of its partitions.
fn produce_decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("produce_decode");
    let visit = |version, body: &[u8]| {
        let request = ProduceRequest::parse(version, body).expect("a valid request");
        let partitions = request.topics().flat_map(|topic| topic.partitions());
        partitions.map(|partition| partition.records.map_or(0, <[u8]>::len)).sum::<usize>()
    };
    for version in PRODUCE_VERSIONS {
        for size in [SIZES[0], SIZES[1]] {
            let batch = batch(size);
            let body = produce_body(version, &batch);
            assert_eq!(visit(version, &body), PARTITIONS * batch.len());
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(BenchmarkId::new(format!("v{version}"), size), |bencher| {
                bencher.iter(|| visit(version, black_box(&body)));
            });
        }
    }
}

/// Encodes all but the records into the buffers of the response before; the throughput is of the bytes encoded.
fn fetch_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fetch_encode");
    let encode = |reused, version, records_bytes| {
        let head = FetchResponseHead { throttle_ms: 0, error: ErrorCode::None, session_id: 7 };
        let mut response = FetchResponse::new(reused, version, CorrelationId(1), head, 1);
        response.topic("topic", TopicId([5; 16]), PARTITIONS);
        for partition in 0..PARTITIONS {
            response.partition(&FetchPartitionResponse {
                high_watermark: 1 << 40,
                last_stable_offset: 1 << 40,
                log_start_offset: 0,
                records_bytes,
                ..FetchPartitionResponse::failed(PartitionId(partition as i32), ErrorCode::None)
            });
        }
        response.finish()
    };
    for version in FETCH_VERSIONS {
        let mut frame = encode(FetchFrame::default(), version, 1 << 20);
        assert_eq!(
            (frame.holes.len(), frame.total_bytes),
            (PARTITIONS, frame.bytes.len() + (PARTITIONS << 20))
        );
        group.throughput(Throughput::Bytes(frame.bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("v{version}")), |bencher| {
            bencher.iter(|| {
                frame = encode(std::mem::take(&mut frame), version, black_box(1 << 20));
                frame.total_bytes
            });
        });
    }
}

criterion_group!(hot_path, checksum, batch_check, produce_decode, fetch_encode);
criterion_main!(hot_path);
