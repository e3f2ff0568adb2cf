//! Frames larger than a receive buffer: their rest is received where it stays.

use super::{Machine, TURNS_MAX, batch_with, produce, produce_error, take_answer};
use crate::base::random::Random;
use crate::net::connection::Receiver;
use crate::ring::sim::Faults;

const MESSAGE_TOO_LARGE: i16 = 10;

impl Machine {
    fn fills(&self) -> bool {
        let connections = &self.shards[0].0.core.clients.connections;
        connections.iter().any(|(_, connection)| matches!(connection.receiver, Receiver::Filling { .. }))
    }
}

/// Small ones, some for which runs of receive buffers do, large ones, and one of several steps; all at once,
/// cut where the network pleases.
#[test]
fn frames_of_all_sizes_are_answered_in_order() {
    const TOO_LARGE_BYTES: usize = 3 << 20;
    let mut fills = 0;
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let mut machine = Machine::new(1, 1);
        let client = machine.connect();
        let sizes: Vec<usize> = (0..30)
            .map(|_| [100, 20_000, 100_000, 200_000, 400_000, TOO_LARGE_BYTES][random.below(6) as usize])
            .collect();
        for bytes in &sizes {
            client.write(&produce(0, &batch_with(*bytes)));
        }
        let mut received = Vec::new();
        for _ in 0..20 * TURNS_MAX {
            machine.world.advance(1);
            machine.turn(0);
            fills += usize::from(machine.fills());
            received.extend(client.read());
        }
        let answers = std::iter::from_fn(|| take_answer(&mut received));
        let errors: Vec<i16> = answers.map(|answer| produce_error(&answer)).collect();
        let expected: Vec<i16> =
            sizes.iter().map(|bytes| if *bytes == TOO_LARGE_BYTES { MESSAGE_TOO_LARGE } else { 0 }).collect();
        assert_eq!(errors, expected, "seed {seed}");
        assert!(received.is_empty(), "seed {seed}: no answer is cut");
    }
    assert!(fills > 0, "no buffer was filled");
}

#[test]
fn a_client_that_leaves_in_the_midst_of_a_frame_leaves_nothing_behind() {
    let mut machine = Machine::new(1, 1);
    let client = machine.connect();
    let frame = produce(0, &batch_with(400_000));
    let (front, last) = frame.split_at(frame.len() - 1);
    client.write(front);
    machine.turn_until(Machine::fills);
    machine.world.set_faults(Faults { disconnect_ppm: 1_000_000, ..machine.world.faults() });
    client.write(last);
    machine.turn_until(|machine| machine.shards[0].0.core.clients.is_empty());
    machine.world.set_faults(Faults { disconnect_ppm: 0, ..machine.world.faults() });
    let other = machine.connect();
    assert_eq!(machine.produce(&other, 0, &batch_with(400_000)), 0);
}
