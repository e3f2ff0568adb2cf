//! Many readers at once: each turn fills some of their answers only.

use super::{Machine, batch_with, fetch};
use crate::shard::clients::{FILL_BYTES_MAX, SEND_BYTES_MAX};

#[test]
fn no_turn_is_spent_on_readers_alone() {
    // As many as a simulated ring has buffers for in a turn.
    const READERS_COUNT: usize = 16;
    let mut machine = Machine::new(1, 1);
    let client = machine.connect();
    let batch = batch_with(240_000);
    assert_eq!(machine.produce(&client, 0, &batch), 0);
    let readers: Vec<_> = (0..READERS_COUNT).map(|_| machine.connect()).collect();
    machine.turn_until(|machine| machine.shards[0].0.core.clients.connections.len() == READERS_COUNT + 1);
    readers.iter().for_each(|reader| reader.write(&fetch(0, 0)));
    machine.world.advance(1_000);
    let sent = |machine: &Machine| machine.shards[0].0.core.clients.counts.sent_bytes as usize;
    let mut answered_bytes = 0;
    while answered_bytes < READERS_COUNT * batch.len() {
        let before = sent(&machine);
        machine.turn(0);
        let turn_bytes = sent(&machine) - before;
        assert!(turn_bytes < FILL_BYTES_MAX + SEND_BYTES_MAX, "{turn_bytes} bytes in one turn");
        answered_bytes += readers.iter().map(|reader| reader.read().len()).sum::<usize>();
    }
}
