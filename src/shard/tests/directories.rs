//! A log directory fails alone, and as a whole: on every shard, and no other directory.

use super::{Machine, batch, fetch, fetch_error, produce, produce_error};
use crate::log::Lane;
use crate::protocol::batch_builder::BatchOptions;
use crate::ring::IoError;

const STORAGE_ERROR: i16 = 56;

/// Directory 0 has lanes and partitions 0 and 2, directory 1 has 1 and 3. With two shards, the first
/// hosts 0 and 2 and the second 1 and 3; with three, each directory's lanes are on different ones.
fn machine(shards_count: usize) -> Machine {
    Machine::with_directories(2, shards_count, 4)
}

/// No operation of any lane is in flight.
fn is_quiet(machine: &Machine) -> bool {
    machine.shards.iter().all(|(shard, _)| shard.core.storage.lanes.iter().all(Lane::is_idle))
}

fn error_of_fetch(machine: &mut Machine, partition: i32) -> i16 {
    let client = machine.connect();
    client.write(&fetch(partition, 0));
    fetch_error(&machine.answer(&client))
}

#[test]
fn a_failed_write_fails_its_directory_on_every_shard_and_no_other() {
    for shards_count in [1, 2, 3] {
        let mut machine = machine(shards_count);
        let client = machine.connect();
        for partition in 0..4 {
            assert_eq!(machine.produce(&client, partition, &batch(BatchOptions::default())), 0);
        }
        // Nothing else is in flight: the next operation is the journal's.
        machine.turn_until(is_quiet);
        machine.world.fail_operation(1, IoError::Os(5));
        assert_eq!(machine.produce(&client, 0, &batch(BatchOptions::default())), STORAGE_ERROR);
        assert_eq!(machine.produce(&client, 2, &batch(BatchOptions::default())), STORAGE_ERROR);
        assert_eq!(error_of_fetch(&mut machine, 2), STORAGE_ERROR);
        for partition in [1, 3] {
            assert_eq!(machine.produce(&client, partition, &batch(BatchOptions::default())), 0);
            assert_eq!(error_of_fetch(&mut machine, partition), 0);
        }
        let lanes = machine.shards.iter().flat_map(|(shard, _)| &shard.core.storage.lanes);
        let mut fenced: Vec<(u16, bool)> = lanes.map(|lane| (lane.id().0, lane.fenced().is_some())).collect();
        fenced.sort_unstable();
        assert_eq!(fenced, [(0, true), (1, false), (2, true), (3, false)], "{shards_count} shards");
        assert!(machine.directories[0].is_failed() && !machine.directories[1].is_failed());

        // The rest stops clean, and a restart brings everything back.
        machine.restart();
        let client = machine.connect();
        for partition in 0..4 {
            assert_eq!(machine.produce(&client, partition, &batch(BatchOptions::default())), 0);
        }
    }
}

#[test]
fn who_waits_for_a_directory_that_fails_is_told_and_others_wait_on() {
    let mut machine = machine(3);
    let reader = machine.connect();
    let other = machine.connect();
    reader.write(&fetch(2, 0));
    other.write(&fetch(1, 0));
    for _ in 0..100 {
        (0..3).for_each(|shard| machine.turn(shard));
    }
    let client = machine.connect();
    machine.turn_until(is_quiet);
    machine.world.fail_operation(1, IoError::Os(5));
    client.write(&produce(0, &batch(BatchOptions::default())));
    assert_eq!(fetch_error(&machine.answer(&reader)), STORAGE_ERROR);
    assert_eq!(produce_error(&machine.answer(&client)), STORAGE_ERROR);
    assert!(other.read().is_empty());
    let late = machine.connect();
    assert_eq!(machine.produce(&late, 1, &batch(BatchOptions::default())), 0);
    assert_eq!(fetch_error(&machine.answer(&other)), 0);
}

#[test]
fn a_directory_that_is_not_used_leaves_the_others_watched() {
    let mut machine = Machine::with_directories(2, 1, 4);
    machine.unused = Some(0);
    machine.restart();
    let client = machine.connect();
    assert_eq!(machine.produce(&client, 0, &batch(BatchOptions::default())), STORAGE_ERROR);
    assert_eq!(error_of_fetch(&mut machine, 2), STORAGE_ERROR);
    assert_eq!(machine.produce(&client, 1, &batch(BatchOptions::default())), 0);
    // Nothing fits: whoever measures says so.
    machine.directories[0].set_space(1, 0);
    assert_eq!(machine.produce(&client, 1, &batch(BatchOptions::default())), STORAGE_ERROR);
}
