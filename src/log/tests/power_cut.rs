//! Power cuts: random work, cut off at random, recovered, compared with what was acknowledged.
//!
//! [`super::seeds`] says how to run more of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::harness::*;
use super::seeds::run_seeds;
use crate::base::ids::Offset;
use crate::base::random::Random;
use crate::log::{AppendError, Control, LaneError, LaneOptions, LaneStats};
use crate::ring::Sleep;
use crate::ring::sim::Faults;

const CRASHES: u64 = 3;
const PARTITIONS_MAX: usize = 6;

pub(super) fn options_of(random: &mut Random, control: Control) -> LaneOptions {
    let mut options = small_options();
    options.journal_bytes = [256 << 10, 320 << 10, 512 << 10][random.below(3) as usize];
    options.tail_pool_bytes = [64 << 10, 128 << 10][random.below(2) as usize];
    options.control = control;
    options.scrub_bytes_per_second = [0, 0, 256 << 10, 64 << 20][random.below(4) as usize];
    options.scrub_interval_ms = 60_000;
    options
}

/// Some faults, or none: each seed has its own set.
fn faults_of(random: &mut Random) -> Faults {
    let mut rate = |ppm: u32| if random.chance(1, 4) { ppm } else { 0 };
    Faults {
        slow_ppm: rate(40_000),
        write_error_ppm: rate(3_000),
        short_write_ppm: rate(3_000),
        flush_error_ppm: rate(3_000),
        read_error_ppm: rate(3_000),
        ..Faults::default()
    }
}

/// One life of a machine, through some crashes. Returns what its lanes counted.
pub fn run(seed: u64, control: Control) -> LaneStats {
    let mut sum = LaneStats::default();
    let mut random = Random::new(seed);
    let options = options_of(&mut random, control);
    let mut harness = Harness::new(seed, options);
    harness.world.set_faults(faults_of(&mut random));
    let batch_bytes_max = [200, 2_000, 6_000][random.below(3) as usize];
    let mut names = 0;
    for _ in 0..CRASHES {
        let steps = 50 + random.below(400);
        if random.chance(2, 3) {
            harness.world.power_cut_at(1 + random.below(steps * 2));
        }
        for _ in 0..steps {
            step(&mut harness, &mut random, &mut names, batch_bytes_max);
            if harness.cut || harness.lane.fenced().is_some() {
                break;
            }
        }
        add(&mut sum, &harness.lane.stats());
        end(&mut harness, &mut random);
        harness.epoch += 1;
        restart(&mut harness, &mut random);
        harness.check_recovered();
    }
    harness.world.set_faults(Faults::default());
    // A healthy disk: what an earlier life began and no image tells of is finished, not taken for damage.
    harness.world.power_cut();
    let (ring, lane, _) = recover(&harness.world, &harness.options).expect("a healthy disk is recovered");
    (harness.ring, harness.lane, harness.cut) = (ring, lane, false);
    harness.events.clear();
    harness.check_recovered();
    harness.settle();
    assert_eq!(harness.lane.fenced(), None, "nothing failed");
    for index in 0..harness.partitions.len() {
        let model = &harness.partitions[index];
        assert_eq!(model.acked_end, model.end(), "everything becomes durable in the end");
        let start = model.log_start_wanted;
        harness.check_bytes(index, start, 10_000);
    }
    add(&mut sum, &harness.lane.stats());
    sum
}

fn add(sum: &mut LaneStats, stats: &LaneStats) {
    sum.recycled_files_count += stats.recycled_files_count;
    sum.image_entries_count += stats.image_entries_count;
    sum.seals_count += stats.seals_count;
    sum.scrubbed_segments_count += stats.scrubbed_segments_count;
    assert_eq!(stats.damage_count, 0, "the scrub finds damage where none is");
    sum.segments_deleted_count += stats.segments_deleted_count;
    sum.disk_reads_count += stats.disk_reads_count;
    sum.cache_read_bytes += stats.cache_read_bytes;
    sum.busy_count += stats.busy_count;
    sum.rolls_count += stats.rolls_count;
    sum.cleans_count += stats.cleans_count;
}

pub(super) fn step(harness: &mut Harness, random: &mut Random, names: &mut u8, batch_bytes_max: u64) {
    if random.chance(1, 4) {
        harness.clean_some();
    }
    match random.below(100) {
        0..60 => append(harness, random, batch_bytes_max),
        60..80 => harness.turn(Sleep::No),
        80..90 => {
            harness.housekeep();
            harness.turn_within_ms();
        }
        90..92 => create(harness, random, names),
        92 if random.chance(1, 4) => drop_one(harness, random),
        93 => {
            if let Some(index) = pick(harness, random) {
                let (log, wall) = (harness.partitions[index].log, harness.wall());
                harness.lane.roll_active(log, wall);
            }
        }
        94 => move_log_start(harness, random),
        95 => {
            if let Some(index) = pick(harness, random) {
                let model = &harness.partitions[index];
                let from = model.log_start_wanted
                    + random.below((model.end() - model.log_start_wanted).max(1) as u64) as i64;
                harness.check_bytes(index, from, 1 + random.below(20_000));
            }
        }
        96 => harness.world.advance(random.below(1_500)),
        97 => harness.settle(),
        98 | 99 => clean(harness, random),
        _ => {
            harness.housekeep();
        }
    }
}

/// Begins a cleaning, goes on with one, or gives it up.
fn clean(harness: &mut Harness, random: &mut Random) {
    if harness.clean.is_none()
        && let Some(index) = pick(harness, random)
    {
        harness.clean_begin(index, random);
    } else if random.chance(1, 10) {
        harness.lane.clean_cancel();
    } else if random.chance(1, 3) {
        harness.clean_through();
    }
}

fn pick(harness: &Harness, random: &mut Random) -> Option<usize> {
    let alive: Vec<_> =
        (0..harness.partitions.len()).filter(|index| harness.partitions[*index].dropped.is_none()).collect();
    (!alive.is_empty()).then(|| alive[random.below(alive.len() as u64) as usize])
}

fn append(harness: &mut Harness, random: &mut Random, batch_bytes_max: u64) {
    let Some(index) = pick(harness, random) else { return };
    let bytes_max = if random.chance(1, 40) { 30_000 } else { batch_bytes_max };
    let before = harness.partitions[index].next_sequence;
    match harness.append(index, random, bytes_max) {
        Ok(_) => {}
        Err(AppendError::Busy | AppendError::Fenced | AppendError::TooLarge) => {
            harness.partitions[index].next_sequence = before
        }
        Err(other) => panic!("append: {other:?}"),
    }
}

fn create(harness: &mut Harness, random: &mut Random, names: &mut u8) {
    let alive = harness.partitions.iter().filter(|model| model.dropped.is_none()).count();
    if alive < PARTITIONS_MAX && harness.lane.fenced().is_none() && *names < 200 {
        *names += 1;
        let segment_bytes_max = [4 << 10, 16 << 10, 64 << 10][random.below(3) as usize];
        // A full journal refuses it.
        harness.try_create(id(*names), segment_bytes_max).ok();
    }
}

fn drop_one(harness: &mut Harness, random: &mut Random) {
    if let Some(index) = pick(harness, random) {
        let log = harness.partitions[index].log;
        harness.partitions[index].dropped = Some(harness.lane.drop_partition(log, 2));
    }
}

fn move_log_start(harness: &mut Harness, random: &mut Random) {
    let Some(index) = pick(harness, random) else { return };
    let log = harness.partitions[index].log;
    // A relaxed topic's high watermark may lie above the durable end.
    let end = harness.lane.log_end(log).0;
    let model = &mut harness.partitions[index];
    if end > model.log_start_wanted {
        let start = model.log_start_wanted + 1 + random.below((end - model.log_start_wanted) as u64) as i64;
        if let Ok(sequence) = harness.lane.advance_log_start(log, Offset(start)) {
            model.log_start_wanted = start;
            model.log_start_sequence = sequence;
        }
    }
}

/// The process or the power ends.
pub(super) fn end(harness: &mut Harness, random: &mut Random) {
    let fenced = harness.cut || harness.lane.fenced().is_some();
    match random.below(10) {
        0 if !fenced => {
            // In order, unless the power goes meanwhile.
            if harness.lane.clean_stop(&mut harness.ring).is_err() {
                harness.world.power_cut();
            }
        }
        1..5 => harness.world.kill(),
        _ => harness.world.power_cut(),
    }
}

/// Recovers, through further cuts and faults.
fn restart(harness: &mut Harness, random: &mut Random) {
    // A flush that fails in a recovery, and a second recovery without a power cut in between, is beyond
    // what a process can know: the kernel calls the lost bytes clean.
    let faults = harness.world.faults();
    harness.world.set_faults(Faults { flush_error_ppm: 0, ..faults.clone() });
    for attempt in 0.. {
        if attempt < 4 && random.chance(1, 3) {
            harness.world.power_cut_at(1 + random.below(40));
        }
        if attempt == 4 {
            harness.world.set_faults(Faults::default());
        }
        match recover(&harness.world, &harness.options) {
            Ok((ring, lane, report)) => {
                // A power cut damages nothing: what it took was never durable.
                assert!(report.damaged.is_empty(), "{:?}", report.damaged);
                (harness.ring, harness.lane) = (ring, lane);
                harness.events.clear();
                harness.cut = false;
                harness.world.set_faults(faults);
                return;
            }
            // A cut that was asked for before may still come.
            Err(LaneError::Io { .. }) if attempt < 9 => {}
            Err(other) => panic!("recovery: {other}"),
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_any_crash() {
    run_seeds("engine", 300, |seed| {
        run(seed, Control::None);
    });
}

/// Seeds until a deliberate mistake loses something; None when none of them does.
fn seeds_until_caught(control: Control, seeds_max: u64) -> Option<u64> {
    (0..seeds_max).find(|seed| catch_unwind(AssertUnwindSafe(|| run(*seed, control))).is_err())
}

#[test]
fn acknowledging_before_the_flush_is_caught() {
    let caught = seeds_until_caught(Control::AcknowledgeBeforeFlush, 1_000);
    assert!(caught.is_some(), "the instrument is blind: 1,000 seeds lost nothing");
}

#[test]
fn recycling_before_the_flush_is_caught() {
    let caught = seeds_until_caught(Control::RecycleBeforeFlush, 1_000);
    assert!(caught.is_some(), "the instrument is blind: 1,000 seeds lost nothing");
}

#[test]
fn replacing_segments_before_the_flush_is_caught() {
    let caught = seeds_until_caught(Control::ReplaceBeforeFlush, 1_000);
    assert!(caught.is_some(), "the instrument is blind: 1,000 seeds lost nothing");
}

/// A run that never meets a path proves nothing about it.
#[test]
fn the_seeds_meet_every_path() {
    let mut sum = LaneStats::default();
    for seed in 0..40 {
        add(&mut sum, &run(seed, Control::None));
    }
    let least = [
        sum.recycled_files_count,
        sum.image_entries_count,
        sum.seals_count,
        sum.scrubbed_segments_count,
        sum.segments_deleted_count,
        sum.disk_reads_count,
        sum.cache_read_bytes,
        sum.busy_count,
        sum.rolls_count,
        sum.cleans_count,
    ];
    assert!(least.iter().all(|count| *count >= 20), "{sum:?}");
}
