//! Compacted segments on a damaged disk: what of a header no CRC covers is compared with the index before
//! any byte or plan depends on it.

use std::path::PathBuf;

use super::harness::*;
use crate::base::ids::Offset;
use crate::base::random::Random;
use crate::log::{LogId, PlanStart};
use crate::protocol::record_batch::{BatchHeader, CRC_START};
use crate::ring::sim::{Faults, World};

/// A stopped machine, whose partition begins with a compacted segment of many rows.
struct Scene {
    harness: Harness,
    log: LogId,
    segment: u64,
    path: PathBuf,
    /// Of its batches.
    positions: Vec<u64>,
    bytes: u64,
}

fn scene(batches_count: usize) -> Scene {
    let mut harness = Harness::new(31, small_options());
    let mut random = Random::new(31);
    let index = harness.create(id(1), 16 << 10);
    while harness.partitions[index].batches.len() < batches_count {
        while harness.append(index, &mut random, 1_200).is_err() {
            harness.settle();
        }
    }
    harness.settle();
    let log = harness.partitions[index].log;
    while !harness.lane.settle_rolled(&mut harness.ring, log, u64::MAX) {
        harness.settle();
    }
    harness.settle();
    // Every third batch is superseded by a last one, none of the others.
    for (number, batch) in (1..).zip(&mut harness.partitions[index].batches) {
        batch.key = if number % 3 == 2 { 0 } else { number };
    }
    harness.partitions[index].batches.last_mut().expect("some were appended").key = 0;
    let segments: Vec<_> = harness.lane.segments(log).filter(|segment| segment.sealed).collect();
    let (first, last) = (segments[0].id, segments[segments.len() - 1].id);
    assert!(harness.clean_run(index, first, last));
    harness.clean_through();
    harness.settle();
    let cleaned = harness.lane.segments(log).next().expect("a partition has a segment");
    let path = harness.lane.segment_path(log, cleaned.id).expect("it is there");
    harness.world.kill();
    harness.expects_damage = true;
    let file = harness.world.read_file(&path).expect("it was written");
    let mut positions = Vec::new();
    let mut at = 0;
    while let Some(header) = BatchHeader::view(&file[at..]) {
        positions.push(at as u64);
        at += header.size_bytes().expect("a whole batch");
    }
    assert_eq!((file.len(), at as u64), (at, cleaned.bytes));
    assert!(positions.len() > batches_count / 3);
    Scene { harness, log, segment: cleaned.id, path, positions, bytes: cleaned.bytes }
}

impl Scene {
    fn copy(&self, change: impl FnOnce(&World)) -> Harness {
        let copied = self.harness.recovered_copy(self.harness.world.copy_disk(3), change);
        copied.expect("segments aren't read by recovery").0
    }

    fn flipped(&self, bit: u64) -> Harness {
        self.copy(|world| flip(world, &self.path, bit))
    }

    fn middle(&self) -> i64 {
        let model = &self.harness.partitions[0].batches;
        model[model.len() / 3].base_offset
    }

    fn rows_count(&self, harness: &mut Harness) -> u64 {
        harness.check_lookup(0, self.middle());
        let segment = harness.lane.partition(self.log).segment(self.segment).expect("it is there");
        segment.rows.as_ref().expect("a lookup needs them").len() as u64
    }
}

/// The first batch of `timestamp` or later, and its bytes: as they were written, or refused.
fn check_time(harness: &mut Harness, timestamp: i64) {
    let model = harness.partitions[0].clone();
    let kept = model.batches.iter().filter(|batch| batch.gone.is_none());
    let newest = |bytes: &[u8]| BatchHeader::view(bytes).expect("a whole batch").max_timestamp.get();
    let expected = kept.clone().find(|batch| newest(&batch.bytes) >= timestamp);
    let expected = expected.expect("the caller asks for a time that there is");
    harness.reads_count += 1;
    let read = harness.reads_count;
    let plan = match harness.lane.plan_at_timestamp(model.log, timestamp, Offset(model.end()), read) {
        PlanStart::Ready(plan) => Some(plan),
        PlanStart::Pending => harness.planned(read),
        other => panic!("{other:?}"),
    };
    let Some(mut plan) = plan else { return };
    assert_eq!(plan.base_offset.0, expected.base_offset, "the first batch at {timestamp} or later");
    let bytes = harness.read(&mut plan, 8 << 10);
    harness.lane.release(plan);
    assert!(bytes.is_none_or(|bytes| bytes == expected.bytes), "the batch at {}", expected.base_offset);
}

/// Reads a copy in one of several orders: each begins elsewhere, with nothing checked. True: something
/// was refused.
fn is_refused(scene: &Scene, copy: &mut Harness, order: usize) -> bool {
    let (start, middle, end) = (0, scene.middle(), copy.partitions[0].end());
    match order % 4 {
        0 => copy.check_bytes(0, start, 64 << 10),
        // Each fetch ends within a row, and the next one begins there.
        1 => copy.check_bytes(0, middle, 700),
        2 => {
            for seventh in 1..7 {
                check_time(copy, 1_000 + end * seventh / 7);
                copy.cut = false;
            }
        }
        _ => {
            for offset in [middle + 40, middle, start + 9] {
                copy.check_lookup(0, offset);
                copy.cut = false;
                copy.check_bytes(0, offset, 3_000);
                copy.cut = false;
            }
        }
    }
    copy.cut = false;
    copy.check_bytes(0, start, 5_000);
    copy.damage_count > 0
}

/// `CORELANE_DAMAGE_STEP=1` flips every bit that no CRC covers in every header; without it every 7th.
#[test]
fn a_flipped_bit_of_a_header_is_found_before_it_leads_anywhere() {
    let scene = scene(140);
    let of_batch = |position: &u64| position * 8..(position + CRC_START as u64) * 8;
    for (order, bit) in scene.positions.iter().flat_map(of_batch).step_by(every(7) as usize).enumerate() {
        let mut copy = scene.flipped(bit);
        assert!(is_refused(&scene, &mut copy, order), "bit {bit}, order {order}: it wasn't found");
    }
}

/// As above, of all bytes; without `CORELANE_DAMAGE_STEP` every 1,999th.
#[test]
fn a_flipped_bit_of_a_compacted_segment_is_found() {
    let scene = scene(140);
    for (order, bit) in (0..scene.bytes * 8).step_by(every(1_999) as usize).enumerate() {
        let mut copy = scene.flipped(bit);
        assert!(is_refused(&scene, &mut copy, order), "bit {bit}, order {order}: it wasn't found");
    }
}

#[test]
fn an_unchanged_compacted_segment_is_served_in_any_order() {
    let scene = scene(140);
    for order in 0..4 {
        let mut copy = scene.copy(|_| {});
        copy.expects_damage = false;
        assert!(!is_refused(&scene, &mut copy, order));
    }
}

/// A base offset near the end of the segment becomes one that fits as well.
fn late_bit(scene: &Scene) -> u64 {
    scene.positions[scene.positions.len() - 3] * 8 + 7 * 8
}

#[test]
fn a_plan_that_was_made_before_leads_to_nothing_unchecked() {
    let scene = scene(300);
    let end = scene.harness.partitions[0].end();
    for changed in [false, true] {
        for how in ["as it is", "rows forgotten", "index lost", "replaced", "replaced, index lost"] {
            let mut copy = scene.copy(|_| {});
            let mut plan = copy.plan(scene.log, 0, end, scene.bytes).expect("there is something");
            if how.contains("replaced") {
                assert!(copy.clean_run(0, scene.segment, scene.segment));
                copy.clean_through();
                assert!(copy.lane.partition(scene.log).segment(scene.segment).is_none());
            } else if how != "as it is" {
                let partition = copy.lane.partitions.get_mut(scene.log).expect("it is there");
                partition.segment_mut(scene.segment).expect("it is there").rows = None;
            }
            let is_lost = how.contains("index lost");
            if is_lost {
                copy.world.cut_file(&scene.path.with_extension("index"), 0);
            }
            if changed {
                flip(&copy.world, &scene.path, late_bit(&scene));
            }
            let bytes = copy.read(&mut plan, 8 << 10);
            copy.lane.release(plan);
            let written = scene.harness.world.read_file(&scene.path).expect("it was written");
            match changed {
                // Only the index could tell that it was another offset.
                true if is_lost => assert!(bytes.is_some_and(|bytes| bytes != written), "{how}"),
                true => assert!(bytes.is_none() && copy.damage_count == 1, "{how}"),
                false => assert!(bytes.is_some_and(|bytes| bytes == written), "{how}"),
            }
            assert_eq!(copy.lane.stats().indexes_rebuilt_count, u64::from(how == "index lost"), "{how}");
            copy.cut = false;
            copy.settle();
        }
    }
}

#[test]
fn no_lookup_is_led_past_the_batch_that_it_wants() {
    let scene = scene(300);
    let file = scene.harness.world.read_file(&scene.path).expect("it was written");
    let (mut after, mut cases_count) = (0, 0);
    for position in &scene.positions {
        let header = BatchHeader::view(&file[*position as usize..]).expect("a whole batch");
        let (first, last) = (header.base_offset().0, header.last_offset().0);
        // Moved to the offset before, it fits as well, and ends before the one that is asked for.
        if first % 2 == 1 && first > after {
            cases_count += 1;
            scene.flipped(position * 8 + 7 * 8).check_lookup(0, last);
        }
        after = last + 1;
    }
    assert!(cases_count > 20, "{cases_count} batches behind a gap");
}

#[test]
fn each_row_is_compared_once() {
    let scene = scene(300);
    let (middle, start) = (scene.middle(), 0);
    // The same reads, where all rows were compared before.
    let read = |is_checked: bool| {
        let mut copy = scene.copy(|_| {});
        copy.expects_damage = false;
        let rows_count = scene.rows_count(&mut scene.copy(|_| {}));
        if is_checked {
            let partition = copy.lane.partitions.get_mut(scene.log).expect("it is there");
            let segment = partition.segment_mut(scene.segment).expect("it is there");
            segment.checked.note(0..segment.bytes);
        }
        copy.check_bytes(0, middle, 700);
        copy.check_bytes(0, start, 700);
        let stats = copy.lane.stats();
        (stats.disk_reads_count, stats.disk_read_bytes, rows_count)
    };
    let ((plain_count, plain_bytes, _), (count, bytes, rows_count)) = (read(true), read(false));
    assert!(rows_count > 12, "{rows_count} rows");
    let batches_count = scene.positions.len() as u64;
    assert!(plain_count > batches_count / 2, "{plain_count} reads: not in small fetches");
    let (more, more_bytes) = (count - plain_count, bytes - plain_bytes);
    assert!((1..=rows_count).contains(&more), "{more} reads for {rows_count} rows");
    // Each read begins and ends with a block that may be in another one, too.
    let blocks_bytes = more * 2 * 4_096;
    assert!(more_bytes >= scene.bytes, "{more_bytes} of {}", scene.bytes);
    assert!(more_bytes <= scene.bytes + blocks_bytes, "{more_bytes} of {} in {more}", scene.bytes);
}

#[test]
fn an_index_that_cant_be_opened_for_now_isnt_made_again() {
    let scene = scene(140);
    let mut copy = scene.copy(|_| {});
    let end = copy.partitions[0].end();
    let mut plan = copy.plan(scene.log, 0, end, scene.bytes).expect("there is something");
    let partition = copy.lane.partitions.get_mut(scene.log).expect("it is there");
    let segment = partition.segment_mut(scene.segment).expect("it is there");
    (segment.rows, segment.checked) = (None, Default::default());
    copy.world.set_faults(Faults { no_descriptors: true, ..copy.world.faults() });
    assert!(copy.read(&mut plan, 8 << 10).is_none());
    copy.world.set_faults(Faults { no_descriptors: false, ..copy.world.faults() });
    (copy.cut, copy.expects_damage) = (false, false);
    let bytes = copy.read(&mut plan, 8 << 10).expect("there are some again");
    assert_eq!(bytes.len() as u64, scene.bytes);
    assert_eq!(copy.lane.stats().indexes_rebuilt_count, 0);
    copy.lane.release(plan);
}

#[test]
fn the_scrub_leaves_nothing_to_compare_but_where_it_found_damage() {
    let scene = scene(140);
    for changed in [false, true] {
        let mut scrubbed = scene.copy(|world| {
            if changed {
                flip(world, &scene.path, late_bit(&scene));
            }
        });
        scrubbed.options.scrub_bytes_per_second = 1 << 20;
        scrubbed.options.scrub_interval_ms = 60_000;
        scrubbed.world.kill();
        let (ring, lane, _) = recover(&scrubbed.world, &scrubbed.options).expect("it starts");
        (scrubbed.ring, scrubbed.lane) = (ring, lane);
        scrubbed.settle();
        scrubbed.world.advance(61_000);
        while scrubbed.lane.stats().scrub_rounds_count == 0 {
            scrubbed.housekeep();
            scrubbed.turn_within_ms();
        }
        let segment = scrubbed.lane.partition(scene.log).segment(scene.segment).expect("it is there");
        let unchecked = segment.unchecked(0..scene.bytes);
        assert_eq!(unchecked.is_some(), changed);
        assert_eq!(segment.verified.is_some(), !changed);
        scrubbed.cut = false;
        scrubbed.check_bytes(0, 0, 64 << 10);
        assert_eq!(scrubbed.damage_count > 0, changed);
    }
}
