//! Compaction of a topic on a simulated machine, from the client's batches to what is left of them.

use std::path::Path;

use super::{Machine, TOPIC_ID, target};
use crate::catalog::MetadataRecord;
use crate::log::SegmentInfo;
use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
use crate::protocol::compression::Codecs;
use crate::shard::compaction::CompactionCounts;

/// A compacted topic with segments of a mebibyte, and eleven batches of four keys in it: three segments
/// that are full and one that isn't.
pub(super) fn filled(settings: &[(&str, &str)]) -> Machine {
    let mut machine = Machine::new(1, 1);
    let all = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    let all = all.iter().chain(settings).map(|(name, value)| (name.to_string(), value.to_string()));
    machine.commit(MetadataRecord::TopicSettingsChanged { topic_id: TOPIC_ID, settings: all.collect() });
    let client = machine.connect();
    for round in 0..11u8 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for key in 0..4u8 {
            builder.push(1_000, Some(&[key]), Some(&vec![round; 70_000]), &[]);
        }
        let batch = builder.finish(&mut Codecs::default());
        assert_eq!(machine.produce(&client, 0, &batch), 0);
    }
    drop(client);
    machine
}

/// Turns, a millisecond each: the disk is slow.
pub(super) fn until(machine: &mut Machine, is_over: impl Fn(&Machine) -> bool) {
    for _ in 0..20_000 {
        if is_over(machine) {
            return;
        }
        machine.world.advance(1);
        machine.turn(0);
    }
    panic!("what a test waits for didn't happen");
}

pub(super) fn counts(machine: &Machine) -> CompactionCounts {
    machine.shards[0].0.core.compaction.counts()
}

fn segments(machine: &Machine) -> Vec<SegmentInfo> {
    let storage = &machine.shards[0].0.core.storage;
    let partition = storage.partition(target(0)).expect("it lives here");
    storage.lanes[0].segments(partition.log).collect()
}

#[test]
fn the_dirty_part_shrinks_to_the_last_value_of_every_key() {
    for from_memory in [true, false] {
        let mut machine = filled(&[]);
        if !from_memory {
            machine.restart();
        }
        let before = segments(&machine);
        assert_eq!(before.len(), 4);
        machine.world.advance(16_000);
        until(&mut machine, |machine| counts(machine).cleanings == 1);
        let after = segments(&machine);
        // Each is as large as a group may be. The last of the nine batches there stays whole.
        let bytes: Vec<u64> = after.iter().map(|segment| segment.bytes).collect();
        assert_eq!(bytes, [0, 0, before[0].bytes / 3, before[3].bytes]);
        let offsets = |segments: &[SegmentInfo]| -> Vec<_> {
            segments.iter().map(|segment| (segment.base_offset, segment.end_offset)).collect()
        };
        assert_eq!(offsets(&after), offsets(&before));
        assert_eq!(after[3], before[3], "what is appended to is left alone");
        assert_eq!(machine.plans_count(0), 0);
        assert_eq!(counts(&machine).map_bytes, 0, "the map is given back");
        // There is nothing more to do, at the next look too.
        machine.world.advance(16_000);
        (0..200).for_each(|_| machine.turn(0));
        assert_eq!(counts(&machine).cleanings, 1);
        machine.restart();
        assert_eq!(segments(&machine), after);
    }
}

#[test]
fn what_is_young_or_of_another_policy_stays() {
    for settings in [("min.compaction.lag.ms", "9000000000000"), ("cleanup.policy", "delete")] {
        let mut machine = filled(&[settings]);
        let before = segments(&machine).iter().map(|segment| segment.bytes).sum::<u64>();
        machine.world.advance(16_000);
        (0..500).for_each(|_| machine.turn(0));
        assert_eq!(segments(&machine).iter().map(|segment| segment.bytes).sum::<u64>(), before);
        assert_eq!(counts(&machine).cleanings, 0);
    }
}

#[test]
fn a_partition_with_a_damaged_batch_is_left_as_it_is() {
    let mut machine = filled(&[]);
    machine.restart();
    let before = segments(&machine);
    let path =
        machine.world.files().into_iter().find(|path| path.ends_with(&format!(".{}.log", before[1].id)));
    machine.world.corrupt(Path::new(&path.expect("it was sealed")), 500_000, 0x10);
    machine.world.advance(16_000);
    until(&mut machine, |machine| counts(machine).uncleanable == 1);
    machine.world.advance(40_000);
    (0..500).for_each(|_| machine.turn(0));
    assert_eq!(segments(&machine), before);
    assert_eq!(counts(&machine).cleanings, 0);
    assert_eq!(machine.plans_count(0), 0);
    // One that is deleted isn't counted any more.
    machine.commit(MetadataRecord::TopicDeleted { topic_id: TOPIC_ID });
    machine.world.advance(16_000);
    until(&mut machine, |machine| counts(machine).uncleanable == 0);
}

#[test]
fn a_topic_deleted_while_it_is_compacted_leaves_nothing() {
    let mut machine = filled(&[("max.compaction.lag.ms", "1000")]);
    machine.world.advance(16_000);
    until(&mut machine, |machine| counts(machine).map_bytes > 0);
    machine.commit(MetadataRecord::TopicDeleted { topic_id: TOPIC_ID });
    let of_partitions = |path: &String| path.contains("/partitions/");
    until(&mut machine, |machine| !machine.world.files().iter().any(of_partitions));
    assert_eq!(machine.plans_count(0), 0);
    assert_eq!(counts(&machine).map_bytes, 0);
}
