//! Space: a filesystem that fills up, and one that retention keeps from filling up.

use crate::errors::{Bench, PATIENCE, SOME_RECORDS, answers};
use crate::load::{Besides, Running, Topic, Worker};
use crate::machine::Filesystem;
use corelane::base::random::Random;
use std::time::{Duration, Instant};

/// XFS isn't made smaller than 300 MiB.
const DISK_BYTES: u64 = 512 << 20;

/// What a filler leaves.
const LEFT_BYTES: u64 = 2 << 20;

/// The disk stays full for so long: requests reach their timeouts.
const FULL: Duration = Duration::from_secs(8);

#[derive(clap::Args)]
pub struct FullOptions {
    /// Times the disk is filled, on each filesystem.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    #[arg(long, value_delimiter = ',', value_enum, default_value = "ext4,xfs")]
    fs: Vec<Filesystem>,
    #[arg(long, default_value_t = 512)]
    sector: u32,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(clap::Args)]
pub struct RetentionOptions {
    /// How long is produced on each filesystem.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    #[arg(long, value_delimiter = ',', value_enum, default_value = "ext4,xfs")]
    fs: Vec<Filesystem>,
    #[arg(long, default_value_t = 512)]
    sector: u32,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

// ---- Full ------------------------------------------------------------------------------------

pub fn run_full(options: &FullOptions) -> bool {
    let mut clean = true;
    for filesystem in &options.fs {
        for seed in options.seed..options.seed + options.rounds {
            clean &= fill_and_free(options, *filesystem, seed);
        }
    }
    clean
}

fn fill_and_free(options: &FullOptions, filesystem: Filesystem, seed: u64) -> bool {
    let mut random = Random::new(seed ^ 0x6675_6c6c);
    let steady = Topic::new("steady", random.next_u64(), 4);
    let workers = vec![
        Worker::new(Besides::Commit, vec![steady], random.next_u64(), PATIENCE),
        Worker::new(Besides::Churn, Vec::new(), random.next_u64(), PATIENCE),
    ];
    let mut bench = Bench::new("full", filesystem, options.sector, DISK_BYTES, workers);
    (bench.result.seed_first, bench.result.seed_end, bench.result.cuts) = (seed, seed + 1, 1);
    let mut broker = bench.start_broker();
    for worker in &mut bench.workers {
        worker.create_topics(&broker.address).expect("a new broker answers");
    }
    let running = bench.begin_load(&broker);
    if !running.wait_for(SOME_RECORDS, PATIENCE) {
        bench.wrong("a healthy broker acknowledges nothing".to_string());
    }
    let (_, free) = bench.machine.space();
    let filled = bench.machine.fill(free.saturating_sub(LEFT_BYTES + random.below(16 << 20)));
    if let Err(error) = filled {
        // The load took the room first.
        bench.notes.push(format!("the filler is smaller: {error}"));
    }
    match wait_for_stall(&running) {
        None => bench.wrong("a full disk takes everything".to_string()),
        Some(taken) => bench.notes.push(format!("{taken} records until it was full")),
    }
    std::thread::sleep(FULL);
    if !answers(&broker) {
        bench.wrong("the broker is gone or silent when the disk is full".to_string());
    }
    let before = running.progress();
    let (_, free) = bench.machine.space();
    bench.machine.remove_filler();
    let freed = Instant::now();
    if running.wait_for(before + 1, PATIENCE) {
        bench
            .notes
            .push(format!("acknowledging again {} ms after there was room", freed.elapsed().as_millis()));
        if !running.wait_for(before + SOME_RECORDS, PATIENCE) {
            bench.wrong("with room again it stops again".to_string());
        }
    } else {
        bench.wrong(format!(
            "nothing is acknowledged {PATIENCE:?} after there was room; {free} bytes were free"
        ));
    }
    broker.kill();
    bench.end_load(running);
    let refusals = bench.refusals();
    bench.notes.push(format!("refusals by code: {refusals:?}"));
    bench.remount();
    let broker = bench.start_broker();
    bench.compare(&broker);
    drop(broker);
    bench.end()
}

/// Waits until nothing was acknowledged for a second; returns how much was, or `None` after a minute.
fn wait_for_stall(running: &Running) -> Option<u64> {
    let started = Instant::now();
    let from = running.progress();
    while started.elapsed() < PATIENCE {
        let before = running.progress();
        std::thread::sleep(Duration::from_secs(1));
        if running.progress() == before {
            return Some(before - from);
        }
    }
    None
}

// ---- Retention -------------------------------------------------------------------------------

pub fn run_retention(options: &RetentionOptions) -> bool {
    let mut clean = true;
    for filesystem in &options.fs {
        clean &= retain(options, *filesystem);
    }
    clean
}

fn retain(options: &RetentionOptions, filesystem: Filesystem) -> bool {
    let mut random = Random::new(options.seed ^ 0x7265_7461_696e);
    let mut bench = Bench::new("retention", filesystem, options.sector, DISK_BYTES, Vec::new());
    let (size, free) = bench.machine.space();
    // Half of the disk in records; journal, open segments and what isn't deleted yet need the rest.
    let kept = (free / 2 / 4).to_string();
    let steady = Topic::new("steady", random.next_u64(), 4).with("retention.bytes", &kept);
    bench.workers = vec![Worker::new(Besides::Commit, vec![steady], random.next_u64(), PATIENCE)];
    let mut broker = bench.start_broker();
    bench.workers[0].create_topics(&broker.address).expect("a new broker answers");
    let running = bench.begin_load(&broker);
    let started = Instant::now();
    let (mut free_min, mut stall_max) = (u64::MAX, Duration::ZERO);
    let (mut progress, mut progressed) = (0, Instant::now());
    let mut looked = started;
    while started.elapsed() < Duration::from_secs(60 * options.minutes) {
        std::thread::sleep(Duration::from_millis(10));
        if looked.elapsed() > Duration::from_millis(500) {
            looked = Instant::now();
            free_min = free_min.min(bench.machine.space().1);
        }
        if running.progress() > progress {
            (progress, progressed) = (running.progress(), Instant::now());
        }
        stall_max = stall_max.max(progressed.elapsed());
        if stall_max > PATIENCE {
            bench.wrong(format!("nothing is acknowledged for {PATIENCE:?}"));
            break;
        }
    }
    broker.kill();
    bench.end_load(running);
    let refusals = bench.refusals();
    if !refusals.is_empty() {
        bench.wrong(format!("refusals by code: {refusals:?}"));
    }
    bench.remount();
    let broker = bench.start_broker();
    bench.compare(&broker);
    drop(broker);
    bench.result.cuts = options.minutes;
    bench.notes.push(format!(
        "of {} MiB at least {} MiB were free, 4 times {} MiB are kept; longest pause {} ms",
        size >> 20,
        free_min >> 20,
        kept.parse::<u64>().unwrap_or(0) >> 20,
        stall_max.as_millis()
    ));
    bench.end()
}
