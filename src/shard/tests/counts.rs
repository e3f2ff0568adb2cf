//! What a shard counts is the sum over its lanes.

use super::{Machine, batch};
use crate::metrics::inventory::Metric;
use crate::protocol::batch_builder::BatchOptions;

#[test]
fn lanes_are_counted_together() {
    let mut machine = Machine::new(1, 3);
    let client = machine.connect();
    // The first lane has the most to count, the last one the least.
    for (partition, batches_count) in [(0, 3), (1, 2), (2, 1)] {
        for _ in 0..batches_count {
            assert_eq!(machine.produce(&client, partition, &batch(BatchOptions::default())), 0);
        }
    }
    machine.turn_until(|machine| {
        let lanes = || machine.shards[0].0.core.storage.lanes.iter().map(|lane| lane.stats());
        assert!(lanes().all(|stats| stats.groups_count > 0 && stats.tail_bytes > 0));
        machine.cells.get(Metric::CommitGroups) == lanes().map(|stats| stats.groups_count).sum::<u64>()
            && machine.cells.get(Metric::JournalBytes) == lanes().map(|stats| stats.group_bytes).sum::<u64>()
            && machine.cells.get(Metric::TailBytes) == lanes().map(|stats| stats.tail_bytes).sum::<u64>()
    });
}
