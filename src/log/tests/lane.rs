//! Lane tests: one behaviour each.

use std::path::Path;

use super::harness::*;
use crate::base::ids::{LeaderEpoch, Offset};
use crate::base::random::Random;
use crate::log::{AppendError, Control, LaneError, LaneOptions, dump_dir, dump_file, verify};
use crate::ring::sim::World;
use crate::ring::{IoError, Ring, Sleep};

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
    let left: Vec<_> =
        harness.world.files().into_iter().filter(|path| path.contains("/partitions/")).collect();
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
fn the_space_of_a_large_file_is_given_back_in_pieces() {
    let (mut harness, _, index) = sealed(12, small_options(), 64 << 10, 1);
    let log = harness.partitions[index].log;
    let first = harness.lane.segments(log).next().expect("one is sealed");
    let (name, bytes) = (format!(".{}.log", first.id), first.bytes);
    harness.lane.advance_log_start(log, first.end_offset).expect("there is room");
    let exists = |harness: &Harness| harness.world.files().iter().any(|path| path.ends_with(&name));
    while exists(&harness) {
        harness.housekeep();
        harness.turn_within_ms();
    }
    // The name is gone, the bytes leave one piece after the other.
    let (mut used, mut freed, mut piece_max) = (harness.world.used_bytes(), 0, 0);
    for _ in 0..1_000 {
        harness.housekeep();
        harness.turn_within_ms();
        let now = harness.world.used_bytes();
        freed += used.saturating_sub(now);
        piece_max = piece_max.max(used.saturating_sub(now));
        used = now;
    }
    assert!(freed >= bytes / 4096 * 4096 && bytes > 60 << 10, "{freed} of {bytes}");
    // With the last piece the segment's index may go.
    assert!(piece_max <= 8 << 10, "{piece_max} at once");
}

#[test]
fn few_files_are_held_open_however_many_are_removed() {
    let mut harness = Harness::new(13, small_options());
    let mut random = Random::new(13);
    let indexes: Vec<usize> = (1..=30).map(|number| harness.create(id(number), 8 << 10)).collect();
    for index in &indexes {
        fill_sealed(&mut harness, *index, &mut random, 1);
    }
    for index in indexes {
        harness.lane.drop_partition(harness.partitions[index].log, 2);
    }
    let mut held_max = 0;
    for _ in 0..1_000 {
        harness.housekeep();
        harness.turn_within_ms();
        held_max = held_max.max(harness.lane.shrinks.held_count);
    }
    assert_eq!((held_max, harness.lane.shrinks.held_count), (4, 0));
    assert!(harness.world.files().iter().all(|path| !path.contains("/partitions/")));
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

/// A block that was flushed in part is written again; the process dies before the flush, and the
/// disk has made garbage of the whole block. (The power cuts of the simulated disk tear a write into
/// old and new sectors, which agree on the bytes that were there before: they can't show this.)
fn garble_a_rewritten_block(control: Control) {
    let options = LaneOptions { control, ..small_options() };
    let mut harness = Harness::new(7, options);
    let mut random = Random::new(7);
    let quiet = harness.create(id(1), 1 << 20);
    let busy = harness.create(id(2), 1 << 20);
    harness.append(quiet, &mut random, 1_000).expect("there is room");
    let log = harness.partitions[quiet].log;
    let mut flushed = 0;
    for round in 0..2 {
        while harness.lane.partition(log).ends.batch_flushed.0.position <= flushed {
            if harness.append(busy, &mut random, 6_000).is_err() {
                harness.turn_within_ms();
            }
            harness.housekeep();
            harness.turn(Sleep::No);
            let ends = harness.lane.partition(log).ends;
            if round == 1 && ends.written > ends.flushed {
                let path = harness.lane.partition(log).active().log_path(&harness.lane.partition(log).dir);
                harness.world.kill();
                let bytes = harness.world.read_file(&path).expect("it was written").len() as u64;
                let block = ends.flushed.position - ends.flushed.position % 4096;
                (block..bytes.min(block + 4096)).for_each(|at| harness.world.corrupt(&path, at, 0xff));
                let (ring, lane, _) = recover(&harness.world, &harness.options).expect("it is intact");
                (harness.ring, harness.lane) = (ring, lane);
                harness.check_recovered();
                harness.settle();
                harness.lane.clean_stop(&mut harness.ring).expect("nothing fails");
                let (ring, lane, _) = recover(&harness.world, &harness.options).expect("it is intact");
                (harness.ring, harness.lane) = (ring, lane);
                harness.check_recovered();
                return;
            }
        }
        flushed = harness.lane.partition(log).ends.batch_flushed.0.position;
        assert!(!flushed.is_multiple_of(4096), "the block is partial");
        while harness.append(quiet, &mut random, 1_000).is_err() {
            harness.housekeep();
            harness.turn_within_ms();
        }
    }
    panic!("the block was never written again");
}

#[test]
fn a_torn_rewrite_of_a_block_is_repaired_from_its_image() {
    garble_a_rewritten_block(Control::None);
}

#[test]
fn a_torn_rewrite_without_an_image_loses_what_was_there() {
    let outcome = std::panic::catch_unwind(|| garble_a_rewritten_block(Control::RewriteWithoutImage));
    assert!(outcome.is_err(), "the instrument is blind");
}

#[test]
fn the_rest_of_a_batch_that_was_cut_is_no_damage() {
    // The power goes while a batch of several groups and journal files is written. The files with its
    // first pieces are recycled, and what is replayed later begins within it.
    let mut rests_count = 0;
    for seed in 0..400 {
        let options = LaneOptions { journal_bytes: 1 << 20, tail_pool_bytes: 512 << 10, ..small_options() };
        let mut harness = Harness::new(seed, options);
        let mut random = Random::new(seed);
        let [torn, busy, quiet] = [1, 2, 3].map(|number| harness.create(id(number), 1 << 20));
        harness.settle();
        for _ in 0..random.below(30) {
            harness.append(busy, &mut random, 30_000).ok();
            harness.settle();
        }
        harness.world.power_cut_at(1 + random.below(8));
        if harness.append(torn, &mut random, 120_000).is_err() {
            continue;
        }
        harness.settle();
        harness.world.power_cut();
        let recover_again = |harness: &mut Harness| {
            let (ring, lane, report) = recover(&harness.world, &harness.options).expect("it is intact");
            assert_eq!(report.damaged, [], "seed {seed}");
            (harness.ring, harness.lane) = (ring, lane);
            harness.events.clear();
            harness.check_recovered();
            report
        };
        let was_cut = recover_again(&mut harness).batches_cut_count > 0;
        // Keeps the file with the rest of the batch in use.
        harness.append(quiet, &mut random, 200).ok();
        while harness.lane.stats().recycled_files_count == 0 || random.chance(3, 4) {
            let bytes_max = [200, 30_000, 120_000][random.below(3) as usize];
            harness.append(if random.chance(1, 3) { torn } else { busy }, &mut random, bytes_max).ok();
            harness.housekeep();
            harness.turn_within_ms();
        }
        harness.world.kill();
        recover_again(&mut harness);
        rests_count += u64::from(was_cut);
    }
    assert!(rests_count > 60, "{rests_count} batches were cut, and a file recycled behind it");
}

#[test]
fn every_failing_operation_is_survived_or_fences() {
    // The n-th file operation fails, for every n: nothing acknowledged is lost, nothing is
    // acknowledged after a failed write or flush, and a restart serves again.
    for error in [IoError::Os(5), IoError::NoSpace] {
        let mut fenced_count = 0;
        for number in 1.. {
            let mut harness = Harness::new(8, small_options());
            let before = harness.world.operations_count();
            harness.world.fail_operation(number, error);
            let mut random = Random::new(8);
            let indexes = [harness.create(id(1), 8 << 10), harness.create(id(2), 64 << 10)];
            for round in 0..400 {
                // Refused while the journal is full or the lane is fenced.
                harness.append(indexes[round % 2], &mut random, 3_000).ok();
                harness.housekeep();
                if round % 3 == 0 {
                    harness.turn(Sleep::No);
                } else {
                    harness.turn_within_ms();
                }
            }
            let done = harness.world.operations_count() - before < number;
            fenced_count += u64::from(harness.lane.fenced().is_some());
            harness.world.kill();
            let (ring, lane, _) = recover(&harness.world, &harness.options).expect("a restart serves again");
            (harness.ring, harness.lane) = (ring, lane);
            harness.check_recovered();
            if done {
                assert!(number > 100, "the run has operations enough");
                break;
            }
        }
        assert!(fenced_count > 0, "{error:?}");
    }
}

fn filled(seed: u64) -> Harness {
    let mut harness = Harness::new(seed, small_options());
    let mut random = Random::new(seed);
    let indexes = [harness.create(id(1), 8 << 10), harness.create(id(2), 1 << 20)];
    for round in 0..120 {
        while harness.append(indexes[round % 2], &mut random, 2_000).is_err() {
            harness.settle();
        }
        harness.settle();
    }
    harness
}

#[test]
fn verify_finds_nothing_after_a_crash_and_any_flipped_byte_of_a_sealed_segment() {
    let mut harness = filled(10);
    harness.world.kill();
    let mut ring = Ring::simulated(&harness.world);
    let mut check = |world: &crate::ring::sim::World| {
        world.advance(0);
        verify(&mut ring, &harness.options.dir, OWNER, &mut |_| {}).expect("the directory is there")
    };
    let report = check(&harness.world);
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.segments_count > 4 && report.batches_count > 20, "{report:?}");
    let files = harness.world.files();
    let sealed: Vec<_> = files.iter().filter(|path| path.ends_with(".index")).collect();
    assert!(sealed.len() > 3);
    for index in sealed.iter().take(2) {
        for suffix in ["log", "index"] {
            let path = index.replace(".index", &format!(".{suffix}"));
            let bytes = harness.world.read_file(path.as_ref()).expect("just listed");
            // Of an index the zeros behind the rows mean nothing.
            let used = bytes.iter().rposition(|byte| *byte != 0).expect("it isn't empty") as u64;
            for position in (0..=used).step_by(97) {
                harness.world.corrupt(path.as_ref(), position, 0x01);
                assert!(!check(&harness.world).problems.is_empty(), "{path} at {position}");
                harness.world.corrupt(path.as_ref(), position, 0x01);
            }
        }
    }
    assert_eq!(check(&harness.world).problems, Vec::<String>::new());
    harness.events.clear();
}

#[test]
fn dump_tells_of_every_file() {
    let mut harness = filled(11);
    harness.lane.clean_stop(&mut harness.ring).expect("nothing fails");
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    dump_dir(&mut harness.ring, &harness.options.dir, OWNER, &mut line).expect("it is intact");
    for path in harness.world.files() {
        if [".log", ".index", ".journal", ".image"].iter().any(|suffix| path.ends_with(suffix)) {
            dump_file(&mut harness.ring, path.as_ref(), OWNER, &mut line).expect("it is intact");
        }
    }
    for wanted in [
        "image generation",
        "partition 0",
        "clean stop",
        "append 1",
        "materialised",
        "extent at 0",
        "offsets 0..=",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    let batches = harness.partitions.iter().map(|model| model.batches.len()).sum::<usize>();
    let lines = text.lines().filter(|line| line.contains("offsets") && line.contains("codec")).count();
    assert_eq!(lines, batches, "every batch has its line");
}

#[test]
fn the_files_of_many_partitions_are_written_and_flushed_at_once() {
    let mut harness = Harness::new(17, small_options());
    let mut random = Random::new(17);
    let indexes: Vec<_> = (1..=40).map(|number| harness.create(id(number), 1 << 20)).collect();
    let mut jobs_max = 0;
    for round in 0..400 {
        while harness.append(indexes[round % 40], &mut random, 1_000).is_err() {
            harness.housekeep();
            jobs_max = jobs_max.max(harness.lane.jobs.materialising_count);
            harness.turn(Sleep::Forever);
        }
        harness.turn(Sleep::No);
    }
    assert_eq!(jobs_max, 32, "a journal file is free again after a few flushes, not after one of each");
    harness.settle();
    for index in indexes {
        harness.check_bytes(index, 0, 1 << 20);
    }
}

/// Whatever sizes are accepted, an append that was refused as busy finds room once the lane came to
/// rest a few times: nobody else would ever make it.
#[test]
fn a_busy_lane_makes_room() {
    let (mut refused_options, mut busy_count) = (0, 0);
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let journal_bytes = (256 << 10) << random.below(3);
        let options = LaneOptions {
            journal_bytes,
            journal_files_count: 4 + random.below(4) as u32,
            group_bytes_max: (16 << 10) << random.below(3),
            tail_pool_bytes: (64 << 10) << random.below(3),
            ..small_options()
        };
        let world = World::new(seed);
        world.make_dirs(Path::new("/"));
        if let Err(error) = recover(&world, &options) {
            assert!(matches!(error, LaneError::Options { .. }), "seed {seed}: {error}");
            refused_options += 1;
            continue;
        }
        let mut harness = Harness::new(seed, options);
        harness.settle();
        let batch_bytes_max = harness.lane.batch_bytes_max() as u64 - 512;
        let partitions_count = 1 + random.below(60) as u8;
        for number in 0..partitions_count {
            harness.create(id(number), 128 << 10);
        }
        for _ in 0..300 {
            let index = random.below(u64::from(partitions_count)) as usize;
            let bytes_max = if random.chance(1, 2) { batch_bytes_max } else { 2_000 };
            // A try evicts what is on disk, and what it finds behind that is written before the next.
            let mut tries_count = 0;
            while let Err(error) = harness.append(index, &mut random, bytes_max) {
                assert_eq!(error, AppendError::Busy, "seed {seed}");
                assert!(tries_count < 8, "seed {seed}: busy at rest, {:?}", harness.lane.stats());
                tries_count += 1;
                busy_count += 1;
                harness.settle();
            }
        }
    }
    assert!(refused_options > 0 && busy_count > 100, "{refused_options} refused, {busy_count} busy");
}

#[test]
fn what_was_verified_once_is_sent_from_the_page_cache() {
    for verify_always in [false, true] {
        // Sealed segments, and one that is appended to.
        let (mut harness, mut random, index) =
            sealed(10, LaneOptions { verify_always, ..small_options() }, 64 << 10, 3);
        for _ in 0..20 {
            while harness.append(index, &mut random, 2_000).is_err() {
                harness.settle();
            }
        }
        harness.settle();
        // Each other pass is for a socket; one in three looks finds the page cache cold.
        for _ in 0..8 {
            harness.check_bytes(index, 0, 1 << 20);
        }
        let stats = harness.lane.stats();
        let end =
            harness.lane.segments(harness.partitions[index].log).map(|segment| segment.bytes).sum::<u64>();
        if verify_always {
            assert_eq!(stats.cache_read_bytes, 0);
        } else {
            assert!(stats.cache_read_bytes > end, "{} of {end} bytes", stats.cache_read_bytes);
        }
    }
}

#[test]
fn the_page_cache_is_filled_only_while_no_commit_group_is_in_flight() {
    // More than memory holds.
    let (mut harness, mut random, index) = sealed(11, small_options(), 16 << 10, 12);
    let log = harness.partitions[index].log;
    let end = harness.lane.segments(log).next().expect("they are sealed").end_offset.0;
    harness.check_bytes(index, 0, 1 << 20);
    for (commits, cached_count) in [(true, 0), (false, 1)] {
        let mut plan = harness.plan(log, 0, end, 1 << 20).expect("there is something");
        // Some appends wait for company.
        while commits && !harness.lane.journal.is_in_flight() {
            harness.append(index, &mut random, 100).expect("there is room");
            let now = harness.ring.now();
            harness.lane.turn(&mut harness.ring, now);
        }
        assert_eq!(harness.lane.journal.is_in_flight(), commits);
        // What planning opened doesn't count.
        harness.lane.cached_files.shrink(&mut harness.ring, 0);
        // A socket's: it takes what was verified once without another look.
        harness.to_socket = false;
        harness.read(&mut plan, 64 << 10).expect("nothing fails");
        harness.lane.release(plan);
        assert_eq!(harness.lane.cached_files.len(), cached_count);
        harness.settle();
    }
}

/// A lane whose one partition has `count` sealed segments.
fn sealed(seed: u64, options: LaneOptions, segment_bytes: u64, count: usize) -> (Harness, Random, usize) {
    let mut harness = Harness::new(seed, options);
    let mut random = Random::new(seed);
    let index = harness.create(id(1), segment_bytes);
    fill_sealed(&mut harness, index, &mut random, count);
    (harness, random, index)
}

/// Appends until the partition has `count` sealed segments.
fn fill_sealed(harness: &mut Harness, index: usize, random: &mut Random, count: usize) {
    let log = harness.partitions[index].log;
    while harness.lane.segments(log).filter(|segment| segment.sealed).count() < count {
        harness.append(index, random, 2_000).ok();
        harness.lane.settle_rolled(&mut harness.ring, log, u64::MAX);
        harness.housekeep();
        harness.turn_within_ms();
        assert!(harness.lane.fenced().is_none());
    }
    harness.settle();
}

fn segment_files(harness: &Harness) -> Vec<String> {
    harness.world.files().into_iter().filter(|path| path.contains("/partitions/")).collect()
}

#[test]
fn a_cleaned_run_of_segments_reads_as_what_was_left_of_it() {
    let (mut harness, _, index) = sealed(20, small_options(), 8 << 10, 6);
    let log = harness.partitions[index].log;
    let end = harness.partitions[index].end();
    // One that was planned before keeps the bytes of before.
    let mut before = harness.plan(log, 0, end, 1 << 20).expect("there is something");
    let model = harness.partitions[index].clone();
    let segments: Vec<_> = harness.lane.segments(log).collect();
    assert!(harness.clean_run(index, segments[1].id, segments[3].id));
    assert!(!harness.lane.clean_begin(log, segments[0].id, segments[0].id), "one at a time");
    harness.clean_through();
    let gone = |harness: &Harness| {
        harness.partitions[index].batches.iter().filter(|batch| batch.gone.is_some()).count()
    };
    assert!(gone(&harness) > 3, "{} batches were taken", gone(&harness));
    let after: Vec<_> = harness.lane.segments(log).collect();
    assert_eq!(after.len(), segments.len() - 2);
    assert_eq!(after[1].base_offset, segments[1].base_offset);
    assert_eq!(after[1].end_offset, segments[3].end_offset);
    assert!(after.windows(2).all(|pair| pair[0].id < pair[1].id), "ids keep the order of offsets");
    let bytes: u64 = segments[1..4].iter().map(|segment| segment.bytes).sum();
    assert!(after[1].bytes < bytes && after[1].sealed);
    for from in 0..end {
        harness.check_bytes(index, from, 3_000);
    }
    let read = harness.read(&mut before, 8 << 10).expect("nothing fails");
    let all: Vec<u8> = model.batches.iter().flat_map(|batch| batch.bytes.clone()).collect();
    assert!(all.starts_with(&read) && !read.is_empty());
    let named = |harness: &Harness, segment: u64| {
        segment_files(harness).iter().filter(|path| path.contains(&format!(".{segment}."))).count()
    };
    harness.settle();
    assert_eq!(named(&harness, segments[1].id), 2, "what is leased stays");
    harness.lane.release(before);
    harness.settle();
    for segment in &segments[1..4] {
        assert_eq!(named(&harness, segment.id), 0, "what was replaced is removed");
    }
    harness.world.kill();
    let report = verify(&mut Ring::simulated(&harness.world), &harness.options.dir, OWNER, &mut |_| {});
    assert_eq!(report.expect("the directory is there").problems, Vec::<String>::new());
    let (ring, lane, _) = recover(&harness.world, &harness.options).expect("it is intact");
    (harness.ring, harness.lane) = (ring, lane);
    harness.check_recovered();
    assert_eq!(harness.lane.first_dirty(log), segments[3].end_offset);
    let again: Vec<_> = harness.lane.segments(log).map(|segment| segment.id).collect();
    assert_eq!(again, after.iter().map(|segment| segment.id).collect::<Vec<_>>());
    // What was cleaned is cleaned again, with its neighbours.
    assert!(harness.clean_run(index, again[0], again[2]));
    harness.clean_through();
    harness.check_bytes(index, 0, 5_000);
    harness.lane.clean_stop(&mut harness.ring).expect("nothing fails");
}

#[test]
fn a_cleaning_that_was_given_up_leaves_no_file() {
    for how in ["cancelled", "log start", "dropped", "killed"] {
        let (mut harness, _, index) = sealed(21, small_options(), 8 << 10, 4);
        let log = harness.partitions[index].log;
        let segments: Vec<_> = harness.lane.segments(log).collect();
        assert!(harness.clean_run(index, segments[1].id, segments[2].id));
        let output = format!(".{}.log", segments[2].id + 1);
        while !segment_files(&harness).iter().any(|path| path.ends_with(&output)) {
            harness.housekeep();
            harness.turn_within_ms();
        }
        match how {
            "cancelled" => harness.lane.clean_cancel(),
            "log start" => {
                let start = segments[1].end_offset;
                harness.partitions[index].log_start_wanted = start.0;
                harness.lane.advance_log_start(log, start).expect("there is room");
            }
            "dropped" => {
                harness.lane.drop_partition(log, 2);
            }
            _ => {
                harness.world.kill();
                let (ring, lane, _) = recover(&harness.world, &harness.options).expect("it is intact");
                (harness.ring, harness.lane) = (ring, lane);
                harness.check_recovered();
            }
        }
        harness.clean_through();
        (0..5).for_each(|_| harness.settle());
        assert!(!segment_files(&harness).iter().any(|path| path.ends_with(&output)), "{how}");
        match how {
            "dropped" => assert_eq!(segment_files(&harness), Vec::<String>::new()),
            _ => {
                let start = harness.partitions[index].log_start_wanted;
                harness.check_bytes(index, start, 1 << 20);
                // It can be done another time.
                let ids: Vec<_> = harness.lane.segments(log).map(|segment| segment.id).collect();
                assert!(harness.clean_run(index, ids[0], ids[1]), "{how}");
                harness.clean_through();
                harness.check_bytes(index, start, 1 << 20);
            }
        }
    }
}

#[test]
fn every_failing_operation_of_a_cleaning_is_survived_or_fences() {
    for error in [IoError::Os(5), IoError::NoSpace] {
        let (mut fenced_count, mut replaced_count) = (0, 0);
        for number in 1.. {
            let (mut harness, mut random, index) = sealed(22, small_options(), 8 << 10, 4);
            let log = harness.partitions[index].log;
            let segments: Vec<_> = harness.lane.segments(log).collect();
            let before = harness.world.operations_count();
            harness.world.fail_operation(number, error);
            assert!(harness.clean_run(index, segments[0].id, segments[2].id));
            harness.clean_through();
            harness.append(index, &mut random, 2_000).ok();
            for _ in 0..5 {
                if harness.lane.fenced().is_none() {
                    harness.settle();
                }
            }
            let done = harness.world.operations_count() - before < number;
            fenced_count += u64::from(harness.lane.fenced().is_some());
            replaced_count += harness.lane.stats().cleans_count;
            if harness.lane.fenced().is_none() {
                harness.check_bytes(index, 0, 1 << 20);
            }
            harness.world.kill();
            let (ring, lane, _) = recover(&harness.world, &harness.options).expect("a restart serves again");
            (harness.ring, harness.lane) = (ring, lane);
            harness.check_recovered();
            (0..5).for_each(|_| harness.settle());
            let segments_count = harness.lane.segments(log).count();
            let logs = segment_files(&harness).iter().filter(|path| path.ends_with(".log")).count();
            assert!(logs <= segments_count, "{error:?} {number}: {logs} files of {segments_count} segments");
            if done {
                assert!(number > 15, "the run has operations enough");
                break;
            }
        }
        assert!(fenced_count > 3 && replaced_count > 3, "{error:?} {fenced_count} {replaced_count}");
    }
}
