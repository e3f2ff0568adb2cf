//! Sequences: what an idempotent producer may not say.

use super::case::Case;
use super::messages::{Produced, Topic, batch, batch_of, changed, now_ms, produce};
use super::wire::Wire;
use corelane::base::ids::{ProducerEpoch, ProducerId};
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::batch_builder::BatchOptions;
use corelane::protocol::cold::init_producer_id_request::InitProducerIdRequestData;
use corelane::protocol::cold::init_producer_id_response::InitProducerIdResponseData;

fn producer_id(wire: &mut Wire) -> ProducerId {
    let request = InitProducerIdRequestData {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequestData::default()
    };
    let answer: InitProducerIdResponseData = wire.ask(ApiKey::InitProducerId, 4, &request);
    assert_eq!(answer.error_code, 0);
    ProducerId(answer.producer_id)
}

/// A batch of two records from `sequence` on.
fn sequenced(producer: ProducerId, sequence: i32) -> Vec<u8> {
    let producer = Some((producer, ProducerEpoch(0), sequence));
    batch_of(BatchOptions { producer, ..BatchOptions::default() }, Some(b"k"), &[b"a", b"b"], now_ms())
}

fn send(wire: &mut Wire, records: &[u8]) -> Produced {
    produce(wire, 9, Topic::named("t"), 0, records)
}

#[test]
fn row_26_producers_without_a_sequence_are_refused() {
    let mut case = Case::new("row26", &[]);
    case.create_topic("t", 1, &[]);
    let mut wire = case.connect();
    let id = producer_id(&mut wire).0;
    let of = |epoch: i16, sequence: i32| {
        changed(batch(&[b"v"]), |header| {
            header.producer_id.set(id);
            header.producer_epoch.set(epoch);
            header.base_sequence.set(sequence);
        })
    };
    for (epoch, sequence) in [(0, -1), (0, i32::MIN), (-1, 0), (-1, -1)] {
        assert_eq!(send(&mut wire, &of(epoch, sequence)).error, 87, "{epoch} {sequence}");
        case.bystander_works();
    }
    assert_eq!(send(&mut wire, &of(0, 0)).error, 0);
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_32_gaps_and_duplicates_are_told_apart() {
    let mut case = Case::new("row32", &[]);
    case.create_topic("t", 1, &[]);
    let mut wire = case.connect();
    let producer = producer_id(&mut wire);
    for index in 0..8 {
        let answer = send(&mut wire, &sequenced(producer, index * 2));
        assert_eq!((answer.error, answer.base_offset), (0, i64::from(index) * 2));
    }
    // A gap, and a step back into the middle of a batch.
    for sequence in [18, 1000, 15, i32::MAX] {
        assert_eq!(send(&mut wire, &sequenced(producer, sequence)).error, 45, "{sequence}");
        case.bystander_works();
    }
    // The last five again: the first answer again.
    for index in 3..8 {
        let answer = send(&mut wire, &sequenced(producer, index * 2));
        assert_eq!((answer.error, answer.base_offset), (0, i64::from(index) * 2), "batch {index} again");
    }
    for index in 0..3 {
        let answer = send(&mut wire, &sequenced(producer, index * 2));
        assert!(matches!(answer.error, 45 | 46), "batch {index} again is answered {}", answer.error);
    }
    let answer = send(&mut wire, &sequenced(producer, 16));
    assert_eq!((answer.error, answer.base_offset), (0, 16), "nothing was written meanwhile");
    case.sent(&wire);
    case.finish();
}
