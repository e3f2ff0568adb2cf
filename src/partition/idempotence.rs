//! Idempotence: is this batch new, a duplicate, or out of its producer's order (KIP-98, KIP-360)?

use crate::base::ids::ProducerEpoch;
use crate::log::{Producer, ProducerBatch};
use crate::protocol::record_batch::increment_sequence;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequenced {
    /// The next batch of its producer.
    New,
    /// Appended before: answered like the original, once the original is durable.
    Duplicate(ProducerBatch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceError {
    /// 45: a gap, or a duplicate older than the batches remembered.
    OutOfOrder,
    /// 47: a newer session of the same producer id has written.
    FencedEpoch,
}

/// Decides on a batch with `base_sequence..=last_sequence` of a producer in `epoch`. `past` is
/// `None` for a producer unknown to the partition: its first batch is accepted with any sequence,
/// as Kafka 4.3 does, since retention may have taken the earlier ones.
pub fn check_sequence(
    past: Option<&Producer>,
    epoch: ProducerEpoch,
    base_sequence: i32,
    last_sequence: i32,
) -> Result<Sequenced, SequenceError> {
    let Some(past) = past else { return Ok(Sequenced::New) };
    if epoch < past.epoch {
        return Err(SequenceError::FencedEpoch);
    }
    if epoch > past.epoch {
        // A new session begins at 0 wherever the old one was.
        return if base_sequence == 0 { Ok(Sequenced::New) } else { Err(SequenceError::OutOfOrder) };
    }
    let same =
        |batch: &&ProducerBatch| batch.base_sequence == base_sequence && batch.last_sequence == last_sequence;
    if let Some(original) = past.batches.iter().find(same) {
        return Ok(Sequenced::Duplicate(*original));
    }
    match past.batches.last() {
        Some(newest) if base_sequence != increment_sequence(newest.last_sequence, 1) => {
            Err(SequenceError::OutOfOrder)
        }
        _ => Ok(Sequenced::New),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Offset;

    fn batch(base_sequence: i32, last_sequence: i32) -> ProducerBatch {
        let offset = Offset(i64::from(base_sequence));
        ProducerBatch { base_sequence, last_sequence, base_offset: offset, last_offset: offset, timestamp: 0 }
    }

    fn producer(epoch: i16, batches: Vec<ProducerBatch>) -> Producer {
        Producer { epoch: ProducerEpoch(epoch), batches, seen_ms: 0, transaction_start: None }
    }

    fn check(epoch: i16, base: i32, last: i32, expected: Result<Sequenced, SequenceError>) {
        let past = producer(3, vec![batch(0, 4), batch(5, 5), batch(6, 9)]);
        assert_eq!(
            check_sequence(Some(&past), ProducerEpoch(epoch), base, last),
            expected,
            "{epoch} {base} {last}"
        );
    }

    #[test]
    fn every_case_has_kafkas_answer() {
        check(3, 10, 12, Ok(Sequenced::New));
        check(3, 11, 12, Err(SequenceError::OutOfOrder));
        check(3, 6, 9, Ok(Sequenced::Duplicate(batch(6, 9))));
        check(3, 0, 4, Ok(Sequenced::Duplicate(batch(0, 4))));
        check(3, 6, 8, Err(SequenceError::OutOfOrder));
        check(2, 10, 10, Err(SequenceError::FencedEpoch));
        check(4, 0, 0, Ok(Sequenced::New));
        check(4, 10, 10, Err(SequenceError::OutOfOrder));
    }

    #[test]
    fn an_unknown_producer_begins_anywhere() {
        assert_eq!(check_sequence(None, ProducerEpoch(0), 77, 80), Ok(Sequenced::New));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let past = producer(0, vec![batch(i32::MAX - 1, i32::MAX)]);
        assert_eq!(check_sequence(Some(&past), ProducerEpoch(0), 0, 1), Ok(Sequenced::New));
        assert_eq!(check_sequence(Some(&past), ProducerEpoch(0), 1, 1), Err(SequenceError::OutOfOrder));
    }
}
