//! Many producers with several requests in flight each: what instructions are counted on.

use super::{Machine, batch_with, produce, produce_error, take_answer};
use crate::ring::Sleep;

const CLIENTS: usize = 16;
const IN_FLIGHT: usize = 5;
const REQUESTS: usize = 1_000;
/// With its header a batch of 16 KiB, which is what clients send by default.
const VALUE_BYTES: usize = (16 << 10) - 80;

#[test]
fn a_thousand_produces_are_answered_each_in_its_turn() {
    let mut machine = Machine::new(1, 1);
    let frame = produce(0, &batch_with(VALUE_BYTES));
    let clients: Vec<_> = (0..CLIENTS).map(|_| machine.connect()).collect();
    let mut sent = 0;
    for client in clients.iter().cycle().take(CLIENTS * IN_FLIGHT) {
        client.write(&frame);
        sent += 1;
    }
    let mut received: Vec<Vec<u8>> = vec![Vec::new(); CLIENTS];
    let mut answered = 0;
    for turn in 0.. {
        assert!(turn < 1_000_000, "{answered} of {sent} are answered");
        // Asleep until something happens, as on a machine: instructions of empty turns say nothing.
        let (shard, host) = &mut machine.shards[0];
        host.step(shard, machine.cells, Sleep::Forever);
        for (client, received) in clients.iter().zip(&mut received) {
            received.extend(client.read());
            while let Some(answer) = take_answer(received) {
                assert_eq!(produce_error(&answer), 0);
                answered += 1;
                if sent < REQUESTS {
                    client.write(&frame);
                    sent += 1;
                }
            }
        }
        if answered == REQUESTS {
            break;
        }
    }
    let storage = &machine.shards[0].0.core.storage;
    let partition = storage.partition(super::target(0)).expect("it was created");
    assert_eq!(partition.high_watermark().0, REQUESTS as i64);
}
