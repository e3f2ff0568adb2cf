//! Lane tests: one behaviour each.

use super::harness::*;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::random::Random;
use crate::ring::Sleep;

#[test]
fn an_append_is_durable_after_one_group_and_readable_at_once() {
    let mut harness = Harness::new(1, small_options());
    let mut random = Random::new(1);
    let index = harness.create(id(1), 1 << 20);
    harness.append(index, &mut random, 500).expect("there is room");
    assert_eq!(harness.partitions[index].acked_end, 0);
    harness.check_bytes(index, 0, 1 << 20);
    harness.settle();
    assert_eq!(harness.partitions[index].acked_end, harness.partitions[index].end());
}

#[test]
fn what_is_durable_survives_a_restart_with_its_epochs_and_producers() {
    let mut harness = Harness::new(2, small_options());
    let mut random = Random::new(2);
    let index = harness.create(id(1), 8 << 10);
    for round in 0..40 {
        harness.epoch = round / 10;
        harness.append(index, &mut random, 2_000).expect("there is room");
        harness.settle();
    }
    let log = harness.partitions[index].log;
    let epochs: Vec<_> = (0..5).map(|epoch| harness.lane.epoch_end(log, LeaderEpoch(epoch))).collect();
    harness.world.kill();
    let (ring, lane, report) = recover(&harness.world, &harness.options).expect("it is intact");
    assert!(!report.created && !report.clean);
    (harness.ring, harness.lane) = (ring, lane);
    harness.check_recovered();
    let again: Vec<_> = (0..5).map(|epoch| harness.lane.epoch_end(log, LeaderEpoch(epoch))).collect();
    assert_eq!(again, epochs);
    assert_eq!(epochs[4], None, "an epoch newer than any is unknown");
    assert_eq!(epochs[0].map(|(epoch, _)| epoch), Some(LeaderEpoch(0)));
}

#[test]
fn a_clean_stop_leaves_segments_that_are_batches_and_nothing_else() {
    let mut harness = Harness::new(3, small_options());
    let mut random = Random::new(3);
    let index = harness.create(id(1), 8 << 10);
    for _ in 0..60 {
        while harness.append(index, &mut random, 2_000).is_err() {
            harness.housekeep();
            harness.turn_within_ms();
        }
        harness.housekeep();
        harness.turn(Sleep::No);
    }
    harness.lane.clean_stop(&mut harness.ring).expect("nothing fails");
    let logs: Vec<_> = harness.world.files().into_iter().filter(|path| path.ends_with(".log")).collect();
    assert!(logs.len() > 3, "segments were rolled: {logs:?}");
    let mut found = Vec::new();
    for path in &logs {
        found.extend(harness.world.read_file(path.as_ref()).expect("just listed"));
    }
    let expected: Vec<u8> =
        harness.partitions[index].batches.iter().flat_map(|batch| batch.bytes.clone()).collect();
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "the segments are the batches back to back");
    let (ring, lane, report) = recover(&harness.world, &harness.options).expect("it is intact");
    assert!(report.clean);
    assert_eq!(report.tail_bytes, 0);
    (harness.ring, harness.lane) = (ring, lane);
    harness.partitions[index].acked_end = harness.partitions[index].end();
    harness.check_recovered();
}

#[test]
fn a_dropped_partition_leaves_no_file_and_its_name_may_come_again() {
    let mut harness = Harness::new(4, small_options());
    let mut random = Random::new(4);
    let index = harness.create(id(1), 8 << 10);
    for _ in 0..30 {
        harness.append(index, &mut random, 1_000).expect("there is room");
        harness.settle();
    }
    let log = harness.partitions[index].log;
    harness.lane.drop_partition(log, 2);
    harness.settle();
    harness.settle();
    let left: Vec<_> = harness.world.files().into_iter().filter(|path| path.contains("/topics/")).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(harness.lane.find(id(1)), None);
    harness.partitions.clear();
    let again = harness.create(id(1), 8 << 10);
    harness.append(again, &mut random, 1_000).expect("there is room");
    harness.settle();
    harness.check_bytes(again, 0, 1 << 20);
}

#[test]
fn segments_below_the_log_start_are_deleted() {
    let mut harness = Harness::new(5, small_options());
    let mut random = Random::new(5);
    let index = harness.create(id(1), 8 << 10);
    for _ in 0..80 {
        while harness.append(index, &mut random, 2_000).is_err() {
            harness.settle();
        }
        harness.settle();
    }
    let log = harness.partitions[index].log;
    let before = harness.lane.segments(log).count();
    let middle = harness.partitions[index].end() / 2;
    harness.lane.advance_log_start(log, Offset(middle)).expect("there is room");
    for _ in 0..10 {
        harness.settle();
    }
    assert_eq!(harness.lane.log_start(log), Offset(middle));
    let segments: Vec<_> = harness.lane.segments(log).collect();
    assert!(segments.len() < before);
    assert!(segments[0].end_offset > Offset(middle), "whole segments only");
    let files = harness.world.files().into_iter().filter(|path| path.ends_with(".log")).count();
    assert!(files <= segments.len());
    harness.check_bytes(index, middle, 16 << 10);
}

#[test]
fn timestamps_lead_to_the_first_batch_that_reaches_them() {
    let mut harness = Harness::new(6, small_options());
    let mut random = Random::new(6);
    let index = harness.create(id(1), 8 << 10);
    for _ in 0..80 {
        while harness.append(index, &mut random, 2_000).is_err() {
            harness.settle();
        }
        harness.settle();
    }
    harness.lane.clean_stop(&mut harness.ring).expect("nothing fails");
    let (ring, lane, _) = recover(&harness.world, &harness.options).expect("it is intact");
    (harness.ring, harness.lane) = (ring, lane);
    let model = harness.partitions[index].clone();
    let timestamp_of = |bytes: &[u8]| {
        crate::protocol::record_batch::BatchHeader::view(bytes).expect("a batch").max_timestamp.get()
    };
    for wanted in (900..1_400).step_by(7) {
        let expected = model.batches.iter().find(|batch| timestamp_of(&batch.bytes) >= wanted);
        let read = 1_000_000 + wanted as u64;
        let plan = match harness.lane.plan_at_timestamp(model.log, wanted, Offset(model.end()), read) {
            crate::log::PlanStart::Ready(plan) => Some(plan),
            crate::log::PlanStart::Pending => harness.planned(read),
            crate::log::PlanStart::Empty => None,
            other => panic!("{other:?}"),
        };
        let found = plan.as_ref().filter(|plan| plan.bytes() > 0).map(|plan| plan.base_offset.0);
        assert_eq!(found, expected.map(|batch| batch.base_offset), "timestamp {wanted}");
        if let Some(plan) = plan {
            harness.lane.release(plan);
        }
    }
    let largest = model.batches.iter().map(|batch| timestamp_of(&batch.bytes)).max();
    assert_eq!(harness.lane.max_timestamp(model.log).map(|(timestamp, _)| timestamp), largest);
}
