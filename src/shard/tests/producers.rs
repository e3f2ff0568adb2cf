//! Producers are forgotten after their time.

use super::Machine;
use crate::base::ids::{ProducerEpoch, ProducerId};
use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
use crate::protocol::compression::Codecs;

const OUT_OF_ORDER: i16 = 45;
const DAY_MS: u64 = 86_400_000;
/// Records may be old: what counts is when they came.
const RECORD_MS: i64 = 1_000;

fn sequenced(sequence: i32) -> Vec<u8> {
    let producer = Some((ProducerId(7), ProducerEpoch(0), sequence));
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    builder.push(RECORD_MS, None, Some(b"value"), &[]);
    builder.finish(&mut Codecs::default())
}

/// Whether a batch in the middle of a producer's sequence is taken as a new producer's.
fn is_forgotten_after(ms: u64, settings: &[(&str, &str)]) -> bool {
    let mut machine = Machine::new(1, 1);
    let client = machine.connect();
    assert_eq!(machine.produce(&client, 0, &sequenced(0)), 0);
    machine.set_broker(false, settings);
    // An operation in flight would look like one that hangs.
    machine.pass(3_000);
    machine.world.advance(ms);
    machine.pass(1_000);
    let client = machine.connect();
    match machine.produce(&client, 0, &sequenced(5)) {
        0 => true,
        OUT_OF_ORDER => false,
        other => panic!("error {other}"),
    }
}

#[test]
fn a_producer_is_known_for_a_day_after_it_last_appended() {
    assert!(!is_forgotten_after(DAY_MS / 2, &[]));
    assert!(is_forgotten_after(DAY_MS + 3_600_000, &[]));
    assert!(is_forgotten_after(DAY_MS / 2, &[("producer.id.expiration.ms", "3600000")]));
}
