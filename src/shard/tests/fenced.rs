//! A lane whose journal failed answers at once, whatever it is asked.

use super::{Machine, batch};
use crate::base::ids::{ProducerEpoch, ProducerId};
use crate::protocol::batch_builder::BatchOptions;
use crate::ring::sim::Faults;

const STORAGE_ERROR: i16 = 56;

fn sequenced(sequence: i32) -> Vec<u8> {
    let producer = Some((ProducerId(7), ProducerEpoch(0), sequence));
    batch(BatchOptions { producer, ..BatchOptions::default() })
}

#[test]
fn a_duplicate_of_what_never_became_durable_is_refused_at_once() {
    let mut machine = Machine::new(1, 1);
    let client = machine.connect();
    assert_eq!(machine.produce(&client, 0, &sequenced(0)), 0);
    machine.world.set_faults(Faults { write_error_ppm: 1_000_000, ..Faults::default() });
    assert_eq!(machine.produce(&client, 0, &sequenced(1)), STORAGE_ERROR);
    let lane = &machine.shards[0].0.core.storage.lanes[0];
    assert!(lane.fenced().is_some());
    // The producer asks again, and goes on.
    assert_eq!(machine.produce(&client, 0, &sequenced(1)), STORAGE_ERROR);
    assert_eq!(machine.produce(&client, 0, &sequenced(2)), STORAGE_ERROR);
    // What was durable before is answered likewise: the partition is offline until a restart.
    assert_eq!(machine.produce(&client, 0, &sequenced(0)), STORAGE_ERROR);
}
