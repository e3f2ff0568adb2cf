//! Producers: what a partition remembers of each idempotent producer (KIP-98).
//!
//! The *appended* side: it runs ahead of what is durable. Whoever answers from it waits until
//! `durable_end` has passed the batch's last offset.

use std::collections::BTreeMap;

use zerocopy::byteorder::little_endian::{I16, I32, I64, U16, U32, U64};

use super::format::{ProducerBatchRow, ProducerRow};
use crate::base::ids::{Offset, ProducerEpoch, ProducerId};
use crate::protocol::record_batch::{BatchHeader, HEADER_BYTES};

/// Batches remembered per producer: as many as a Kafka client may have in flight.
pub const BATCHES_MAX: usize = 5;

/// A batch that a producer appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    pub base_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// Largest timestamp of the batch, ms.
    pub timestamp: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    pub epoch: ProducerEpoch,
    /// Oldest first, at most five. Empty after a marker of a newer epoch.
    pub batches: Vec<ProducerBatch>,
    /// Wall time at which it last appended, or its newest batch's timestamp if that is later, ms. A
    /// producer of old records, which Kafka forgets by their timestamps, is known as long as any other.
    pub seen_ms: i64,
    /// First offset of its open transaction.
    pub transaction_start: Option<Offset>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTable {
    producers: BTreeMap<ProducerId, Producer>,
}

impl ProducerTable {
    pub fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.producers.get(&id)
    }

    /// In the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }

    /// The batch has the last sequence of its producer.
    pub fn is_newest(&self, header: &BatchHeader) -> bool {
        let newest = header.producer().and_then(|(id, _)| self.get(id)?.batches.last());
        newest.is_some_and(|newest| newest.last_offset == header.last_offset())
    }

    /// The same producers with the same batches, whenever they were seen.
    #[cfg(test)]
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let known = |table: &Self| -> Vec<_> {
            let of =
                |(id, producer): (ProducerId, &Producer)| (id, Producer { seen_ms: 0, ..producer.clone() });
            table.iter().map(of).collect()
        };
        known(self) == known(other)
    }

    pub fn len(&self) -> usize {
        self.producers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// First offset of the oldest open transaction.
    pub fn transaction_start_min(&self) -> Option<Offset> {
        self.producers.values().filter_map(|producer| producer.transaction_start).min()
    }

    /// Forgets producers without an open transaction whose newest batch is older than `timestamp`.
    pub(super) fn expire(&mut self, timestamp: i64) {
        self.producers
            .retain(|_, producer| producer.seen_ms >= timestamp || producer.transaction_start.is_some());
    }

    /// Forgets the batches from `end` on, and producers of which nothing is left.
    pub(super) fn truncate_suffix(&mut self, end: Offset) {
        self.producers.retain(|_, producer| {
            let before = producer.batches.len();
            producer.batches.retain(|batch| batch.last_offset < end);
            producer.transaction_start = producer.transaction_start.filter(|start| *start < end);
            before == producer.batches.len() || !producer.batches.is_empty()
        });
    }

    /// Takes an appended batch in; called once per batch, in offset order.
    pub(super) fn note(&mut self, header: &BatchHeader, wall_ms: i64) {
        let Some((id, epoch)) = header.producer() else { return };
        let timestamp = header.max_timestamp.get();
        let seen_ms = timestamp.max(wall_ms);
        let producer = self.producers.entry(id).or_insert_with(|| Producer {
            epoch,
            batches: Vec::new(),
            seen_ms,
            transaction_start: None,
        });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        producer.seen_ms = seen_ms;
        if header.is_control() {
            // A marker ends the transaction, whichever way.
            producer.transaction_start = None;
            return;
        }
        if header.is_transactional() {
            producer.transaction_start.get_or_insert(header.base_offset());
        }
        if producer.batches.len() == BATCHES_MAX {
            producer.batches.remove(0);
        }
        producer.batches.push(ProducerBatch {
            base_sequence: header.base_sequence.get(),
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset(),
            last_offset: header.last_offset(),
            timestamp,
        });
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = ProducerRow> {
        self.producers.iter().map(|(id, producer)| producer.to_row(*id))
    }

    pub(super) fn insert_row(&mut self, row: &ProducerRow) {
        let (id, producer) = Producer::from_row(row);
        self.producers.insert(id, producer);
    }
}

impl Producer {
    fn to_row(&self, id: ProducerId) -> ProducerRow {
        let mut batches = [ProducerBatchRow {
            base_sequence: I32::ZERO,
            last_sequence: I32::ZERO,
            base_offset: I64::ZERO,
            last_offset: I64::ZERO,
            timestamp: I64::ZERO,
        }; BATCHES_MAX];
        for (row, batch) in batches.iter_mut().zip(&self.batches) {
            *row = ProducerBatchRow {
                base_sequence: I32::new(batch.base_sequence),
                last_sequence: I32::new(batch.last_sequence),
                base_offset: I64::new(batch.base_offset.0),
                last_offset: I64::new(batch.last_offset.0),
                timestamp: I64::new(batch.timestamp),
            };
        }
        ProducerRow {
            producer_id: I64::new(id.0),
            producer_epoch: I16::new(self.epoch.0),
            batches_count: U16::new(self.batches.len() as u16),
            reserved: U32::ZERO,
            seen_ms: I64::new(self.seen_ms),
            transaction_start: I64::new(self.transaction_start.map_or(-1, |offset| offset.0)),
            batches,
            reserved_end: U64::ZERO,
        }
    }

    fn from_row(row: &ProducerRow) -> (ProducerId, Self) {
        let count = usize::from(row.batches_count.get()).min(BATCHES_MAX);
        let batch = |row: &ProducerBatchRow| ProducerBatch {
            base_sequence: row.base_sequence.get(),
            last_sequence: row.last_sequence.get(),
            base_offset: Offset(row.base_offset.get()),
            last_offset: Offset(row.last_offset.get()),
            timestamp: row.timestamp.get(),
        };
        let start = row.transaction_start.get();
        let producer = Self {
            epoch: ProducerEpoch(row.producer_epoch.get()),
            batches: row.batches[..count].iter().map(batch).collect(),
            seen_ms: row.seen_ms.get(),
            transaction_start: (start >= 0).then_some(Offset(start)),
        };
        (ProducerId(row.producer_id.get()), producer)
    }
}

const _: () = assert!(HEADER_BYTES == 61);

#[cfg(test)]
mod tests {
    use super::super::testing::Batch;
    use super::*;
    use crate::base::random::Random;

    fn table(batches: &[Batch]) -> ProducerTable {
        let mut table = ProducerTable::default();
        for batch in batches {
            let bytes = batch.to_bytes();
            table.note(BatchHeader::view(&bytes).expect("a whole batch"), 0);
        }
        table
    }

    #[test]
    fn the_last_five_batches_are_remembered_and_survive_their_row() {
        let batches: Vec<_> = (0..7).map(|n| Batch::new(n * 2, 2).produced_by(9, 0, n as i32 * 2)).collect();
        let table = table(&batches);
        let producer = table.get(ProducerId(9)).expect("producer 9 wrote");
        let sequences: Vec<_> = producer.batches.iter().map(|batch| batch.base_sequence).collect();
        assert_eq!(sequences, [4, 6, 8, 10, 12]);
        assert_eq!(producer.batches[4].last_offset, Offset(13));

        let mut again = ProducerTable::default();
        table.rows().for_each(|row| again.insert_row(&row));
        assert_eq!(again, table);
    }

    /// A batch, and whose it is.
    type Plain = (i64, i16, ProducerBatch);

    #[test]
    fn it_holds_what_a_plain_list_of_batches_holds() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let (mut table, mut list) = (ProducerTable::default(), Vec::<Plain>::new());
            let mut seen = BTreeMap::new();
            let (mut offset, mut sequence) = (0, 0);
            for _ in 0..400 {
                match random.below(20) {
                    0..16 => {
                        let (id, epoch) = (random.below(6) as i64, i16::from(random.chance(1, 12)));
                        let (count, wall_ms) = (1 + random.below(3) as i32, random.below(10_000) as i64);
                        let batch = Batch::new(offset, count)
                            .at_time(random.below(10_000) as i64)
                            .produced_by(id, epoch, sequence);
                        let bytes = batch.to_bytes();
                        table.note(BatchHeader::view(&bytes).expect("a whole batch"), wall_ms);
                        let last_offset = Offset(offset + i64::from(count) - 1);
                        let stored = ProducerBatch {
                            base_sequence: sequence,
                            last_sequence: sequence + count - 1,
                            base_offset: Offset(offset),
                            last_offset,
                            timestamp: batch.timestamp,
                        };
                        list.retain(|(other, known, _)| *other != id || *known == epoch);
                        list.push((id, epoch, stored));
                        if list.iter().filter(|(other, ..)| *other == id).count() > 5 {
                            let oldest = list.iter().position(|(other, ..)| *other == id);
                            list.remove(oldest.expect("there are six"));
                        }
                        seen.insert(id, batch.timestamp.max(wall_ms));
                        offset += i64::from(count) + random.below(2) as i64;
                        sequence += count;
                    }
                    16 => {
                        let before = random.below(3_000) as i64;
                        table.expire(before);
                        list.retain(|(id, ..)| seen[id] >= before);
                    }
                    17 => {
                        offset -= random.below(offset.min(8) as u64 + 1) as i64;
                        table.truncate_suffix(Offset(offset));
                        list.retain(|(_, _, batch)| batch.last_offset.0 < offset);
                    }
                    _ => {
                        let rows: Vec<_> = table.rows().collect();
                        table = ProducerTable::default();
                        rows.iter().for_each(|row| table.insert_row(row));
                    }
                }
                let of = |(id, producer): (ProducerId, &Producer)| {
                    assert_eq!(producer.seen_ms, seen[&id.0]);
                    producer.batches.iter().map(|batch| (id.0, producer.epoch.0, *batch)).collect::<Vec<_>>()
                };
                let found: Vec<Plain> = table.iter().flat_map(of).collect();
                list.sort_by_key(|(id, ..)| *id);
                assert_eq!(found, list, "seed {seed}");
                assert!(table.iter().all(|(_, producer)| !producer.batches.is_empty()));
            }
        }
    }

    #[test]
    fn a_new_epoch_forgets_the_batches_of_the_old_one() {
        let table = table(&[Batch::new(0, 1).produced_by(9, 0, 0), Batch::new(1, 1).produced_by(9, 1, 0)]);
        let producer = table.get(ProducerId(9)).expect("producer 9 wrote");
        assert_eq!(producer.epoch, ProducerEpoch(1));
        assert_eq!(producer.batches.len(), 1);
    }

    #[test]
    fn batches_without_a_producer_leave_no_trace() {
        assert!(table(&[Batch::new(0, 3)]).is_empty());
    }
}
