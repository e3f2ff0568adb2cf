//! Produce: writes at a schedule, or as fast as is acknowledged, and measures.

use crate::Failure;
use crate::client::{Client, OFFSET_LATEST, offsets_at_leaders};
use crate::consume::read_back;
use crate::load::Load;
use crate::options::{ProduceOptions, Rate};
use crate::preparation;
use crate::result::RunResult;
use crate::usage::Snapshot;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs `corelane-load produce`; true when the result is valid.
pub fn run(options: &ProduceOptions) -> Result<bool, Failure> {
    measure(options)?.publish()
}

/// One measurement, from the first connection to the last answer.
pub fn measure(options: &ProduceOptions) -> Result<RunResult, Failure> {
    let common = &options.common;
    preparation::check(options)?;
    // A late timer is lag of our own; without the privilege it is 50 µs.
    nix::sys::prctl::set_timerslack(1).ok();
    let mut client = Client::connect(&common.bootstrap)?;
    client.ensure_topic(
        &common.topic,
        options.partitions,
        options.replication_factor,
        &options.topic_config,
    )?;
    let leaders = client.leaders(&common.topic)?;
    let partitions: Vec<i32> = (0..leaders.0.len() as i32).collect();
    let from_offsets = offsets_at_leaders(&leaders, &common.topic, &partitions, OFFSET_LATEST)?;
    let started_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;

    let mut load = Load::prepare(options, &leaders.by_address(&partitions), started_unix_ms, &mut client)?;
    load.connect_all()?;
    load.begin();
    let (from_ns, end_ns) = load.window();
    load.run_until(from_ns)?;
    let before = (Snapshot::take(&common.pid)?, load.now_ns());
    load.run_until(end_ns)?;
    let after = (Snapshot::take(&common.pid)?, load.now_ns());
    load.drain()?;

    let seconds = (after.1 - before.1) as f64 / 1e9;
    let unsent_requests = load.give_up();
    let ledger = load.ledger();
    let uncompressed_bytes = load.uncompressed_bytes();
    let partition_batches = options.partitioner.map(|_| load.batches());
    let Load { counts, series, .. } = load;
    let verification = if options.verify {
        eprintln!("reading back");
        Some(read_back(&common.bootstrap, &common.topic, &from_offsets, ledger)?)
    } else {
        None
    };
    let mut result = RunResult {
        kind: "produce",
        valid: true,
        invalid_because: Vec::new(),
        version: env!("CARGO_PKG_VERSION"),
        started_unix_ms,
        options: describe(options),
        seconds,
        records: counts.records,
        bytes: counts.bytes,
        uncompressed_bytes: Some(uncompressed_bytes),
        requests: counts.requests,
        records_per_second: counts.records as f64 / seconds,
        mib_per_second: counts.bytes as f64 / seconds / f64::from(1 << 20),
        offered_records_per_second: match options.rate {
            Rate::Max => None,
            Rate::RecordsPerSecond(rate) => Some(rate),
        },
        errors: counts.errors,
        lost_requests: counts.lost_requests,
        unsent_requests,
        latency: Some(counts.latencies.report()?),
        generator_lag: match options.rate {
            Rate::Max => None,
            Rate::RecordsPerSecond(_) => Some(counts.lag.report()?),
        },
        broker: (!common.pid.is_empty())
            .then(|| before.0.usage(&after.0, counts.records, counts.bytes, counts.requests)),
        surroundings: before.0.surroundings(&after.0),
        partition_batches,
        groups: Vec::new(),
        polls: None,
        verification,
        series: series.into_seconds(),
    };
    result.invalid_because = invalid_because(&result);
    result.valid = result.invalid_because.is_empty();
    Ok(result)
}

/// Lag of its own from which the generator measures itself.
const LAG_P99_US_MAX: u64 = 1000;
/// Share of the requests due in the window that must have been acknowledged in it.
const ACHIEVED_MIN: f64 = 0.99;

/// How late the generator itself was, when that is too late.
pub fn lag_p99_us(result: &RunResult) -> Option<u64> {
    result.generator_lag.as_ref().map(|lag| lag.p99_us).filter(|p99_us| *p99_us > LAG_P99_US_MAX)
}

/// Whether what was due in the window was acknowledged in it.
pub fn is_rate_reached(result: &RunResult) -> bool {
    let due = result.latency.as_ref().map_or(0, |latency| latency.count) + result.unsent_requests;
    result.offered_records_per_second.is_none() || result.requests as f64 >= due as f64 * ACHIEVED_MIN
}

fn invalid_because(result: &RunResult) -> Vec<String> {
    let mut reasons = Vec::new();
    if !result.errors.is_empty() || result.lost_requests > 0 {
        reasons.push("requests failed or were never answered".to_string());
    }
    if let Some(p99_us) = lag_p99_us(result) {
        reasons.push(format!("the generator fell behind: its own lag is {p99_us} µs at p99"));
    }
    if !is_rate_reached(result) {
        reasons
            .push("the offered rate was not reached: latency grows with the length of the run".to_string());
    }
    if result.verification.as_ref().is_some_and(|verification| verification.findings.count > 0) {
        reasons.push("what was read back is not what was acknowledged".to_string());
    }
    if result.records == 0 {
        reasons.push("nothing was acknowledged".to_string());
    }
    reasons
}

pub fn describe(options: &ProduceOptions) -> serde_json::Value {
    serde_json::json!({
        "bootstrap": options.common.bootstrap,
        "topic": options.common.topic,
        "partitions": options.partitions,
        "topic_config": options.topic_config,
        "connections": options.common.connections,
        "in_flight": options.in_flight,
        "record_bytes": options.record_bytes,
        "batch_bytes": options.batch_bytes,
        "batch_records": options.batch_records,
        "keys": options.keys,
        "partitioner": options.partitioner.map(|partitioner| format!("{partitioner:?}")),
        "key_distribution": format!("{:?}", options.key_distribution),
        "compression": options.compression.codec().name(),
        "idempotent": options.idempotent,
        "requests": options.requests,
        "partitions_per_request": options.partitions_per_request,
        "arrivals": format!("{:?}", options.arrivals),
        "acks": options.acks.number(),
        "warmup_seconds": options.common.warmup_seconds,
        "seed": options.seed,
        "stamp": options.stamp,
        "verify": options.verify,
    })
}
