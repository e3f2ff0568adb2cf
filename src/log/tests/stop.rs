//! Stop tests: lanes with more partitions than a stop works on at once.

use super::harness::*;
use crate::base::ids::Offset;
use crate::base::random::Random;
use crate::log::{LaneError, LaneOptions, RecoveryReport};
use crate::ring::sim::{Faults, World};
use crate::ring::{IoError, Sleep};

const OPERATION_NS: u64 = 1_000_000;

/// Partitions that are only in memory, only in their padded segment, and in both.
fn many(count: u8) -> Harness {
    let roomy = LaneOptions { journal_bytes: 4 << 20, tail_pool_bytes: 1 << 20, ..small_options() };
    let mut harness = Harness::new(1, roomy);
    let steady =
        Faults { disk_min_ns: OPERATION_NS, disk_max_ns: OPERATION_NS, slow_ppm: 0, ..Faults::default() };
    harness.world.set_faults(steady);
    let mut random = Random::new(1);
    for number in 0..count {
        let index = harness.create(id(number), 1 << 20);
        harness.append(index, &mut random, 600).expect("there is room");
    }
    harness.settle();
    for index in (0..usize::from(count)).filter(|index| index % 3 > 0) {
        let log = harness.partitions[index].log;
        let durable = harness.lane.partition(log).ends.durable;
        assert!(harness.lane.materialise_start(&mut harness.ring, log, Some(durable), true));
        harness.settle();
        if index % 3 == 2 {
            harness.append(index, &mut random, 600).expect("there is room");
        }
    }
    harness
}

/// What a stop leaves, and what the next start finds.
fn check_stopped(mut harness: Harness) {
    for model in &harness.partitions {
        let partition = harness.lane.partition(model.log);
        let found =
            harness.world.read_file(&partition.active().log_path(&partition.dir)).expect("it was written");
        let expected: Vec<u8> = model.batches.iter().flat_map(|batch| batch.bytes.clone()).collect();
        assert_eq!(found.len(), expected.len(), "{}", model.id);
        assert!(found == expected, "{}: the segment is its batches", model.id);
    }
    harness.world.power_cut();
    let report = start_again(&mut harness);
    assert!(report.clean);
    assert_eq!(report.tail_bytes, 0, "nothing is to be written again");
}

/// Finds everything: all of it was durable before the stop began.
fn start_again(harness: &mut Harness) -> RecoveryReport {
    let (ring, lane, report) = recover(&harness.world, &harness.options).expect("it is intact");
    (harness.ring, harness.lane) = (ring, lane);
    for model in &mut harness.partitions {
        model.acked_end = model.end();
    }
    harness.check_recovered();
    report
}

#[test]
fn a_stop_brings_many_partitions_to_disk_several_at_once() {
    let mut harness = many(100);
    let began = harness.world.now();
    harness.lane.clean_stop(&mut harness.ring).expect("nothing fails");
    // The 33 that have no file yet need seven operations each, and all 100 three to be cut.
    let one_by_one_ms = 33 * 7 + 100 * 3;
    let took_ms = harness.world.now().ms_since(began);
    assert!(took_ms < one_by_one_ms / 3, "{took_ms} ms, and {one_by_one_ms} one by one");
    check_stopped(harness);
}

/// A stop of 40 partitions for each operation of its end, told to `harm` before.
fn each_operation_of_the_end(
    harm: impl Fn(&World, u64),
    mut check: impl FnMut(Harness, Result<(), LaneError>),
) {
    const PARTITIONS: u8 = 40;
    let operations_count = {
        let mut harness = many(PARTITIONS);
        let before = harness.world.operations_count();
        harness.lane.clean_stop(&mut harness.ring).expect("nothing fails");
        harness.world.operations_count() - before
    };
    // Each segment is opened, cut and flushed; an image and the last entry follow.
    let first = operations_count - u64::from(PARTITIONS) * 3 - 10;
    for number in first..=operations_count {
        let mut harness = many(PARTITIONS);
        harm(&harness.world, number);
        let stopped = harness.lane.clean_stop(&mut harness.ring);
        check(harness, stopped);
    }
}

fn stop_in_order(mut harness: Harness) {
    harness.settle();
    harness.lane.clean_stop(&mut harness.ring).expect("nothing fails any more");
    check_stopped(harness);
}

#[test]
fn a_stop_with_a_failed_operation_says_so_and_loses_nothing() {
    let (mut tolerated_count, mut clean_count) = (0, 0);
    let fail = |world: &World, number| world.fail_operation(number, IoError::Os(5));
    each_operation_of_the_end(fail, |mut harness, stopped| {
        if stopped.is_ok() {
            tolerated_count += 1;
            return check_stopped(harness);
        }
        assert!(harness.lane.fenced().is_some(), "nothing is tried again: {stopped:?}");
        harness.world.kill();
        let report = start_again(&mut harness);
        // The entry that says so may be on disk although its write failed: what it says is true.
        clean_count += usize::from(report.clean);
        assert!(clean_count <= 1, "{stopped:?}");
        stop_in_order(harness);
    });
    assert_eq!(tolerated_count, 1, "the image is written where no space could be reserved for it, too");
}

#[test]
fn a_power_cut_in_a_stop_loses_nothing() {
    let cut = |world: &World, number| world.power_cut_at(number);
    each_operation_of_the_end(cut, |mut harness, stopped| {
        assert!(stopped.is_err());
        start_again(&mut harness);
        stop_in_order(harness);
    });
}

#[test]
fn a_stop_without_space_says_so() {
    let mut harness = many(10);
    let capacity_bytes = Some(harness.world.used_bytes());
    harness.world.set_faults(Faults { capacity_bytes, ..harness.world.faults() });
    let stopped = harness.lane.clean_stop(&mut harness.ring);
    assert!(matches!(stopped, Err(LaneError::Io { error: IoError::NoSpace, .. })), "{stopped:?}");
    assert_eq!(harness.lane.fenced(), None);
    harness.world.kill();
    harness.world.set_faults(Faults { capacity_bytes: None, ..harness.world.faults() });
    start_again(&mut harness);
    stop_in_order(harness);
}

#[test]
fn a_stop_that_finds_no_descriptor_for_the_flush_of_a_directory_says_so() {
    let mut harness = many(1);
    let log = harness.partitions[0].log;
    let durable = harness.lane.partition(log).ends.durable;
    assert!(harness.lane.materialise_start(&mut harness.ring, log, Some(durable), true));
    while !harness.lane.partition(log).active().made {
        harness.turn(Sleep::Forever);
    }
    harness.world.set_faults(Faults { no_descriptors: true, ..harness.world.faults() });
    let stopped = harness.lane.clean_stop(&mut harness.ring);
    assert!(matches!(stopped, Err(LaneError::Io { .. })), "{stopped:?}");
    assert_eq!(harness.lane.fenced(), None);
    assert_eq!(harness.lane.durable_end(log), Offset(harness.partitions[0].end()));
}
