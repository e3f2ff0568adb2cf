//! Consume: reads a topic for a while and counts, or checks, what it gets.

use crate::Failure;
use crate::client::{Client, OFFSET_EARLIEST, OFFSET_LATEST, offsets_at_leaders};
use crate::fetch::{Division, Event, FetchLimits, Fetcher, Reading};
use crate::options::{ConsumeOptions, From};
use crate::result::{Polls, RunResult};
use crate::series::Series;
use crate::usage::Snapshot;
use crate::verify::{Checker, Ledger, Verification};
use crate::window::{Group, Window};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// How long a broker may give nothing while records are left to be read.
const PROGRESS_NS_MAX: u64 = 30_000_000_000;

/// Runs `corelane-load consume`; true when the result is valid.
pub fn run(options: &ConsumeOptions) -> Result<bool, Failure> {
    let common = &options.common;
    check(options)?;
    let mut fetcher = connect(options)?;
    let start_ns = fetcher.now_ns();
    let from_ns = start_ns + (common.warmup_seconds * 1e9) as u64;
    let end_ns = from_ns + (common.seconds * 1e9) as u64;
    let mut window = Window {
        from_ns,
        end_ns,
        series: Series::new(start_ns, from_ns, common.quiet),
        measures_latency: options.latency,
        groups: (0..options.groups).map(|_| Group::new(options.verify)).collect(),
    };
    read_until(&mut fetcher, &mut window, from_ns)?;
    let before = (Snapshot::take(&common.pid)?, fetcher.counts.answers, fetcher.now_ns());
    read_until(&mut fetcher, &mut window, end_ns)?;
    let after = (Snapshot::take(&common.pid)?, fetcher.counts.answers, fetcher.now_ns());
    let polls = Polls::between(fetcher.connections(), &before.1, &after.1);
    let (records, bytes, requests) = (window.records(), window.bytes(), polls.answers);
    let seconds = (after.2 - before.2) as f64 / 1e9;
    let verification = window.verification();
    let invalid_because = invalid_because(&fetcher, verification.as_ref(), records, options.partition_each);
    let result = RunResult {
        kind: "consume",
        valid: invalid_because.is_empty(),
        invalid_because,
        version: env!("CARGO_PKG_VERSION"),
        started_unix_ms: SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64,
        options: describe(options),
        seconds,
        records,
        bytes,
        uncompressed_bytes: None,
        requests,
        records_per_second: records as f64 / seconds,
        mib_per_second: bytes as f64 / seconds / f64::from(1 << 20),
        offered_records_per_second: None,
        errors: fetcher.counts.errors,
        lost_requests: 0,
        unsent_requests: 0,
        latency: window.latency()?,
        generator_lag: None,
        broker: (!common.pid.is_empty()).then(|| before.0.usage(&after.0, records, bytes, requests)),
        surroundings: before.0.surroundings(&after.0),
        partition_batches: None,
        groups: window.group_reports()?,
        polls: Some(polls),
        verification,
        series: window.series.into_seconds(),
    };
    result.publish()
}

fn invalid_because(
    fetcher: &Fetcher,
    verification: Option<&Verification>,
    records: u64,
    may_idle: bool,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if !fetcher.counts.errors.is_empty() {
        reasons.push("the broker answered errors".to_string());
    }
    if verification.is_some_and(|verification| verification.findings.count > 0) {
        reasons.push("what was read is not what was written".to_string());
    }
    if records == 0 && !may_idle {
        reasons.push("nothing was read".to_string());
    }
    reasons
}

/// Refuses what can't be, or can't be together.
fn check(options: &ConsumeOptions) -> Result<(), Failure> {
    if options.groups == 0 {
        return Err(Failure::new("--groups: at least 1"));
    }
    if options.to_end && options.again {
        return Err(Failure::new("--again never comes to the end: leave --to-end out"));
    }
    if options.partition_each && options.verify {
        let why = "several connections may read one partition, and each would be checked against the others";
        return Err(Failure::new(format!("--partition-each can't --verify: {why}")));
    }
    Ok(())
}

fn connect(options: &ConsumeOptions) -> Result<Fetcher, Failure> {
    let common = &options.common;
    let leaders = Client::connect(&common.bootstrap)?.leaders(&common.topic)?;
    let count =
        options.partitions.map_or(leaders.0.len(), |count| leaders.0.len().min(count.max(0) as usize));
    let partitions: Vec<i32> = (0..count as i32).collect();
    let earliest = offsets_at_leaders(&leaders, &common.topic, &partitions, OFFSET_EARLIEST)?;
    let latest = offsets_at_leaders(&leaders, &common.topic, &partitions, OFFSET_LATEST)?;
    let from = match options.from {
        From::Beginning => &earliest,
        From::End => &latest,
    };
    let readings: Vec<Reading> = partitions
        .iter()
        .map(|partition| Reading {
            partition: *partition,
            offset: from[partition],
            end: options.to_end.then(|| latest[partition]),
            again_from: options.again.then(|| earliest[partition]),
        })
        .collect();
    let limits = FetchLimits {
        max_bytes: options.max_bytes,
        partition_max_bytes: options.partition_max_bytes,
        min_bytes: options.min_bytes,
        max_wait_ms: options.max_wait_ms,
    };
    let division = Division {
        connections: common.connections,
        groups: options.groups,
        partition_each: options.partition_each,
    };
    Fetcher::connect(&common.topic, limits, division, &leaders, &readings)
}

fn read_until(fetcher: &mut Fetcher, window: &mut Window, until_ns: u64) -> Result<(), Failure> {
    while fetcher.now_ns() < until_ns && !fetcher.is_done() {
        let wake_ns = until_ns.min(window.series.next_ns());
        fetcher.turn(wake_ns, &mut |now, event| window.see(now, &event))?;
        let now = fetcher.now_ns();
        window.series.tick(now, String::new);
    }
    Ok(())
}

/// Reads from `from` to the log's end and checks everything against the ledger.
pub fn read_back(
    bootstrap: &str,
    topic: &str,
    from: &BTreeMap<i32, i64>,
    ledger: Ledger,
) -> Result<Verification, Failure> {
    let mut checker = Checker::new(Some(ledger));
    read_to_end(bootstrap, topic, from, |partition, batch| checker.check(partition, batch))?;
    Ok(checker.finish())
}

/// Gives every batch from `from` to the log's end to `each`, partition by partition in order.
pub fn read_to_end(
    bootstrap: &str,
    topic: &str,
    from: &BTreeMap<i32, i64>,
    mut each: impl FnMut(i32, &[u8]),
) -> Result<(), Failure> {
    let leaders = Client::connect(bootstrap)?.leaders(topic)?;
    let partitions: Vec<i32> = from.keys().copied().collect();
    let ends = offsets_at_leaders(&leaders, topic, &partitions, OFFSET_LATEST)?;
    let readings: Vec<Reading> = from
        .iter()
        .map(|(partition, offset)| Reading {
            partition: *partition,
            offset: *offset,
            end: Some(ends[partition]),
            again_from: None,
        })
        .collect();
    let limits =
        FetchLimits { max_bytes: 8 << 20, partition_max_bytes: 4 << 20, min_bytes: 1, max_wait_ms: 500 };
    let division = Division { connections: 2, groups: 1, partition_each: false };
    let mut fetcher = Fetcher::connect(topic, limits, division, &leaders, &readings)?;
    let mut progress_ns = fetcher.now_ns();
    while !fetcher.is_done() {
        let now = fetcher.now_ns();
        if now > progress_ns + PROGRESS_NS_MAX {
            return Err(Failure::new("reading back: the broker gives nothing more before the log's end"));
        }
        fetcher.turn(now + 1_000_000_000, &mut |now, event| {
            if let Event::Batch { partition, batch, .. } = event {
                progress_ns = now;
                each(partition, batch);
            }
        })?;
    }
    Ok(())
}

fn describe(options: &ConsumeOptions) -> serde_json::Value {
    serde_json::json!({
        "bootstrap": options.common.bootstrap,
        "topic": options.common.topic,
        "connections": options.common.connections,
        "warmup_seconds": options.common.warmup_seconds,
        "from": format!("{:?}", options.from),
        "max_bytes": options.max_bytes,
        "partition_max_bytes": options.partition_max_bytes,
        "min_bytes": options.min_bytes,
        "max_wait_ms": options.max_wait_ms,
        "again": options.again,
        "to_end": options.to_end,
        "groups": options.groups,
        "partition_each": options.partition_each,
    })
}
