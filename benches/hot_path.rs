//! Hot path: what a broker does to the bytes of every Produce and Fetch, without sockets and disks.
//!
//! Sketch, with the wide carry-less multiplication of current cores (50 bytes of CRC-32C per ns, a tenth of
//! that without): a batch of 1 KiB costs 35 ns, of 16 KiB 0.3 µs, of 1 MiB 20 µs; its header a cache line and
//! a dozen compares. Decoding a Produce request and encoding a Fetch response touch no record, so their time
//! follows the partitions, some 20 ns for each, whatever the bytes.

mod fixtures;

use std::hint::black_box;
use std::time::{Duration, Instant};

use corelane::base::checksum::crc32c;
use corelane::base::ids::Offset;
use corelane::protocol::fetch_response::FetchFrame;
use corelane::protocol::record_batch::validate;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fixtures::log::Log;
use fixtures::{
    FETCH_VERSIONS, PRODUCE_VERSIONS, SHAPES, batch, encode_fetch, produce_body, random_bytes, visit_produce,
};

const PARTITIONS: usize = 16;

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32c");
    for size in [1 << 10, 16 << 10, 1 << 20] {
        let bytes = random_bytes(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| crc32c(black_box(&bytes)));
        });
    }
}

fn batch_check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch_check");
    for shape in SHAPES {
        let batch = batch(shape);
        assert!(validate(&batch).is_ok(), "what is measured is the whole check");
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(shape.name, |bencher| {
            bencher.iter(|| validate(black_box(&batch)).is_ok());
        });
    }
}

fn produce_decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("produce_decode");
    for version in PRODUCE_VERSIONS {
        for shape in SHAPES {
            let batch = batch(shape);
            let body = produce_body(version, &batch, PARTITIONS);
            assert_eq!(visit_produce(version, &body), PARTITIONS * batch.len());
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(BenchmarkId::new(format!("v{version}"), shape.name), |bencher| {
                bencher.iter(|| visit_produce(version, black_box(&body)));
            });
        }
    }
}

/// The copies into the tail and the commit group; what the disk and the lane do behind them isn't timed.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for shape in SHAPES {
        let batch = batch(shape);
        let mut log = Log::filled(&batch, 3);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(shape.name, |bencher| {
            bencher.iter_custom(|count| {
                let mut taken = Duration::ZERO;
                for _ in 0..count {
                    let started = Instant::now();
                    log.append(black_box(&batch));
                    taken += started.elapsed();
                    log.settle();
                }
                taken
            });
        });
    }
}

/// From an offset to the bytes of a plan, all in memory.
fn find(criterion: &mut Criterion) {
    let mut log = Log::filled(&batch(SHAPES[1]), 400);
    let offset = Offset(log.end().0 - 1000);
    criterion.bench_function("find/memory", |bencher| {
        bencher.iter(|| {
            let plan = log.plan(black_box(offset), 1).expect("memory has it");
            log.release(plan);
        });
    });
}

/// Encodes all but the records; the throughput is of the bytes encoded.
fn fetch_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fetch_encode");
    for version in FETCH_VERSIONS {
        let mut frame = encode_fetch(FetchFrame::default(), version, PARTITIONS, 1 << 20);
        assert_eq!(
            (frame.holes.len(), frame.total_bytes),
            (PARTITIONS, frame.bytes.len() + (PARTITIONS << 20))
        );
        group.throughput(Throughput::Bytes(frame.bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("v{version}")), |bencher| {
            bencher.iter(|| {
                frame = encode_fetch(std::mem::take(&mut frame), version, PARTITIONS, black_box(1 << 20));
                frame.total_bytes
            });
        });
    }
}

/// The records of a response: a plan and its bytes out of memory.
fn fetch_fill(criterion: &mut Criterion) {
    const BYTES: u64 = 256 << 10;
    let mut log = Log::filled(&batch(SHAPES[1]), 400);
    let offset = Offset(log.end().0 - 1000);
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("fetch_fill");
    group.throughput(Throughput::Bytes(BYTES));
    group.bench_function("memory", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut plan = log.plan(black_box(offset), BYTES).expect("memory has it");
            log.fill(&mut plan, &mut out);
            log.release(plan);
            out.len()
        });
    });
}

criterion_group!(hot_path, checksum, batch_check, produce_decode, append, find, fetch_encode, fetch_fill);
criterion_main!(hot_path);
