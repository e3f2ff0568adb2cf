//! Cold readers: a window is read while the one before it leaves, within bounds.

use super::{Machine, batch_with, fetch};

const BATCHES_COUNT: usize = 40;

/// A machine with so many batches of 16 KiB on disk only, and their bytes.
fn cold() -> (Machine, Vec<u8>) {
    let mut machine = Machine::new(1, 1);
    let client = machine.connect();
    let batch = batch_with(16 << 10);
    let mut stored = Vec::new();
    for base_offset in 0..BATCHES_COUNT as i64 {
        assert_eq!(machine.produce(&client, 0, &batch), 0);
        stored.extend_from_slice(&base_offset.to_be_bytes());
        stored.extend_from_slice(&batch[8..12]);
        // The leader's epoch.
        stored.extend_from_slice(&0_i32.to_be_bytes());
        stored.extend_from_slice(&batch[16..]);
    }
    drop(client);
    machine.restart();
    (machine, stored)
}

fn ahead_count(machine: &Machine) -> usize {
    machine.shards[0].0.core.clients.windows_ahead_count
}

#[test]
fn a_window_is_read_while_the_one_before_it_leaves() {
    let (mut machine, stored) = cold();
    let reads_count = |machine: &Machine| machine.shards[0].0.core.storage.lanes[0].stats().disk_reads_count;
    let reads_before = reads_count(&machine);
    let client = machine.connect();
    client.write(&fetch(0, 0));
    machine.turn_until(|machine| ahead_count(machine) > 0);
    let connections = &machine.shards[0].0.core.clients.connections;
    assert!(connections.iter().any(|(_, client)| client.sending), "the one before it is on its way");
    let answer = machine.answer(&client);
    assert!(answer.windows(stored.len()).any(|bytes| bytes == stored), "every batch, in order");
    assert_eq!(ahead_count(&machine), 0);
    // 15 batches fit a window; the plan's beginning is looked up before.
    let windows_count = BATCHES_COUNT.div_ceil(15) as u64;
    assert_eq!(reads_count(&machine) - reads_before, 1 + windows_count, "no window is cut by what leaves");
}

#[test]
fn readers_that_stall_have_few_windows_ahead() {
    const READERS_COUNT: usize = 40;
    let (mut machine, stored) = cold();
    let readers: Vec<_> = (0..READERS_COUNT).map(|_| machine.connect()).collect();
    readers.iter().for_each(|reader| reader.write(&fetch(0, 0)));
    let is_sending = |machine: &Machine| {
        let connections = &machine.shards[0].0.core.clients.connections;
        connections.iter().filter(|(_, client)| client.sending).count()
    };
    machine.turn_until(|machine| is_sending(machine) == READERS_COUNT);
    for _ in 0..2_000 {
        machine.turn(0);
        assert!(ahead_count(&machine) <= 16);
    }
    assert_eq!(ahead_count(&machine), 16);
    // One goes without its answer, the others read on.
    let mut readers = readers.into_iter();
    drop(readers.next());
    for reader in readers {
        let answer = machine.answer(&reader);
        assert!(answer.windows(stored.len()).any(|bytes| bytes == stored));
    }
    machine.turn_until(|machine| machine.plans_count(0) == 0);
    assert_eq!(ahead_count(&machine), 0);
}
