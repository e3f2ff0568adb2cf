//! Lookups: of offsets and times, against a look at every batch.

use super::harness::*;
use crate::base::ids::Offset;
use crate::base::random::Random;
use crate::log::PlanStart;
use crate::protocol::record_batch::BatchHeader;

/// Base offset, one past the last offset, largest timestamp.
fn batches(harness: &Harness) -> Vec<(i64, i64, i64)> {
    let header = |bytes| BatchHeader::view(bytes).expect("a whole batch").max_timestamp.get();
    let model = &harness.partitions[0];
    model.batches.iter().map(|batch| (batch.base_offset, batch.end_offset, header(&batch.bytes))).collect()
}

fn found_at(harness: &mut Harness, timestamp: i64, read: u64) -> Option<i64> {
    let (log, end) = (harness.partitions[0].log, harness.partitions[0].end());
    let plan = match harness.lane.plan_at_timestamp(log, timestamp, Offset(end), read) {
        PlanStart::Ready(plan) => plan,
        PlanStart::Empty => return None,
        PlanStart::Pending => harness.planned(read).expect("nothing fails here"),
        other => panic!("{other:?}"),
    };
    let found = (plan.bytes() > 0).then_some(plan.base_offset.0);
    harness.lane.release(plan);
    found
}

fn check(harness: &mut Harness, random: &mut Random) {
    let batches = batches(harness);
    let (Some((_, end, _)), start) = (batches.last().copied(), harness.partitions[0].log_start_wanted) else {
        return;
    };
    let known = || batches.iter().filter(|(_, end, _)| *end > start);
    for number in 0..12 {
        let timestamp = 990 + random.below(end as u64 + 80) as i64;
        let plain = known().find(|(_, _, newest)| *newest >= timestamp).map(|(first, ..)| *first);
        let read = (1 << 40) + number;
        assert_eq!(found_at(harness, timestamp, read), plain, "the first batch at {timestamp} or later");
        if end > start {
            harness.check_lookup(0, start + random.below((end - start) as u64) as i64);
        }
    }
}

#[test]
fn offsets_and_times_are_found_where_a_look_at_every_batch_finds_them() {
    let mut reads_count = 0;
    for seed in 0..25 {
        let mut random = Random::new(seed);
        let mut harness = Harness::new(seed, small_options());
        let segment_bytes_max = [8 << 10, 40 << 10, 1 << 20][random.below(3) as usize];
        harness.create(id(1), segment_bytes_max);
        let batch_bytes_max = [300, 2_000][random.below(2) as usize];
        for _ in 0..8 {
            for _ in 0..random.below(40) {
                while harness.append(0, &mut random, batch_bytes_max).is_err() {
                    harness.housekeep();
                    harness.turn_within_ms();
                }
            }
            check(&mut harness, &mut random);
            harness.settle();
            if random.chance(1, 4) {
                let start = random.below(harness.partitions[0].end() as u64 + 1) as i64;
                let log = harness.partitions[0].log;
                let wanted = harness.partitions[0].log_start_wanted.max(start);
                harness.lane.advance_log_start(log, Offset(start)).expect("there is room");
                harness.partitions[0].log_start_wanted = wanted;
                harness.settle();
            }
            if random.chance(1, 3) {
                reads_count += harness.lane.stats().disk_reads_count;
                harness.lane.clean_stop(&mut harness.ring).expect("nothing fails here");
                (harness.ring, harness.lane, _) =
                    recover(&harness.world, &harness.options).expect("it starts");
                harness.events.clear();
            }
            check(&mut harness, &mut random);
        }
        reads_count += harness.lane.stats().disk_reads_count;
    }
    assert!(reads_count > 1_000, "{reads_count} reads from disk only");
}
