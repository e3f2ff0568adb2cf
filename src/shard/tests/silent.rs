//! acks=0: no response, and yet no request is forgotten while it takes memory.

use super::{Machine, TURNS_MAX, batch_with, produce_with, target};
use crate::base::ids::Offset;

/// Partition 1 is the second shard's; the client is the first one's.
const REMOTE: i32 = 1;

#[test]
fn what_another_shard_has_yet_to_append_stops_its_connection() {
    const COUNT: usize = 100;
    let mut machine = Machine::new(2, 2);
    let client = machine.connect();
    let frame = produce_with(0, REMOTE, &batch_with(200_000));
    for _ in 0..COUNT {
        client.write(&frame);
    }
    let is_paused = |machine: &Machine| {
        machine.shards[0].0.core.clients.connections.iter().any(|(_, connection)| connection.paused)
    };
    for _ in 0..100 * TURNS_MAX {
        if is_paused(&machine) {
            break;
        }
        machine.turn(0);
    }
    // 8 MiB of them, of the 20 MB that came.
    let waiting_count = machine.shards[0].0.core.requests.len();
    assert!((30..60).contains(&waiting_count), "{waiting_count} requests wait");
    for end in 1..=COUNT as i64 {
        machine.turn_until(|machine| {
            let storage = &machine.shards[1].0.core.storage;
            let partition = storage.partition(target(REMOTE)).expect("it was created");
            storage.lanes[partition.lane].log_end(partition.log) >= Offset(end)
        });
    }
    machine.turn_until(|machine| machine.shards[0].0.core.requests.is_empty());
}
