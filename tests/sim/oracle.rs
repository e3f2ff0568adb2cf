//! Oracle: what the clients were told, held against everything they are told later.
//!
//! Promises: a batch that was acknowledged, or that a consumer saw, stays where it is with its bytes;
//!           nothing is at two places; offsets are dense; a producer's sequences have no gap.
//! Never:    draws random numbers, looks into the broker.

use std::collections::{BTreeMap, BTreeSet};

use corelane::protocol::record_batch::BatchHeader;

/// Number of a batch, in the order in which they were made. It is the batch's base timestamp too, so
/// that a batch that is read tells which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId(pub usize);

pub struct SentBatch {
    pub partition: i32,
    pub bytes: Vec<u8>,
    /// Where it was found or acknowledged. Batches without a producer are sent once, so no batch is
    /// at two places.
    place: Option<i64>,
}

/// A batch that may neither change nor go.
#[derive(Clone, Copy)]
struct Committed {
    batch: BatchId,
    end: i64,
    /// Known once it was read.
    leader_epoch: Option<i32>,
}

#[derive(Default)]
struct PartitionHistory {
    committed: BTreeMap<i64, Committed>,
    high_watermark: i64,
}

#[derive(Default)]
pub struct Oracle {
    batches: Vec<SentBatch>,
    partitions: BTreeMap<i32, PartitionHistory>,
    producer_ids: BTreeSet<i64>,
    pub acked_count: u64,
    pub seen_count: u64,
    /// Of everything the clients were told, in order.
    pub trace: u64,
}

impl Oracle {
    pub fn add(&mut self, partition: i32, bytes: Vec<u8>) {
        self.batches.push(SentBatch { partition, bytes, place: None });
    }

    pub fn next_id(&self) -> BatchId {
        BatchId(self.batches.len())
    }

    pub fn batch(&self, id: BatchId) -> &SentBatch {
        &self.batches[id.0]
    }

    pub fn high_watermark(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |partition| partition.high_watermark)
    }

    pub fn note(&mut self, number: u64) {
        self.trace = (self.trace ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    }

    pub fn producer_id(&mut self, id: i64) {
        self.note(id as u64);
        assert!(self.producer_ids.insert(id), "producer id {id} was given out twice");
    }

    pub fn acked(&mut self, id: BatchId, base_offset: i64) {
        let partition = self.batches[id.0].partition;
        self.commit(partition, id, base_offset, None);
        let end = base_offset + records_count(&self.batches[id.0].bytes);
        self.raise(partition, end);
        self.acked_count += 1;
    }

    /// A fetch answered with a high watermark; `known` is what it was when the fetch was sent.
    pub fn told_high_watermark(&mut self, partition: i32, known: i64, told: i64) {
        self.note(told as u64);
        assert!(told >= known, "partition {partition}: the high watermark was {known}, now it is {told}");
        self.raise(partition, told);
    }

    fn raise(&mut self, partition: i32, end: i64) {
        let history = self.partitions.entry(partition).or_default();
        history.high_watermark = history.high_watermark.max(end);
    }

    /// A consumer read this batch; returns the offset behind it.
    pub fn seen(&mut self, partition: i32, bytes: &[u8]) -> i64 {
        let header = BatchHeader::view(bytes).expect("the caller cut whole batches");
        let base_offset = header.base_offset().0;
        let id = BatchId(header.base_timestamp.get() as usize);
        let sent = self.batches.get(id.0);
        let sent = sent.unwrap_or_else(|| panic!("{partition} at {base_offset}: nobody sent this"));
        assert_eq!(sent.partition, partition, "batch {id:?} at {base_offset} belongs elsewhere");
        // Base offset and leader epoch are the broker's.
        let same = bytes.len() == sent.bytes.len()
            && bytes[8..12] == sent.bytes[8..12]
            && bytes[16..] == sent.bytes[16..];
        assert!(same, "partition {partition}: batch {id:?} at {base_offset} has other bytes than were sent");
        self.commit(partition, id, base_offset, Some(header.leader_epoch().0));
        self.seen_count += 1;
        base_offset + records_count(bytes)
    }

    fn commit(&mut self, partition: i32, id: BatchId, base_offset: i64, leader_epoch: Option<i32>) {
        self.note(id.0 as u64);
        self.note(base_offset as u64);
        let sent = &mut self.batches[id.0];
        let place = *sent.place.get_or_insert(base_offset);
        assert_eq!(place, base_offset, "partition {partition}: {id:?} is at two places");
        let end = base_offset + records_count(&sent.bytes);
        let history = self.partitions.entry(partition).or_default();
        if let Some((before, found)) = history.committed.range(..base_offset).next_back() {
            let other = found.batch;
            assert!(found.end <= base_offset, "{other:?} at {before} and {id:?} at {base_offset} overlap");
        }
        if let Some((after, found)) = history.committed.range(base_offset + 1..).next() {
            let other = found.batch;
            assert!(end <= *after, "{id:?} at {base_offset} and {other:?} at {after} overlap");
        }
        let committed = history.committed.entry(base_offset);
        let found = committed.or_insert(Committed { batch: id, end, leader_epoch });
        assert_eq!(
            found.batch, id,
            "partition {partition}: what was committed at {base_offset} is another batch now"
        );
        if let Some(epoch) = leader_epoch {
            let known = *found.leader_epoch.get_or_insert(epoch);
            assert_eq!(known, epoch, "the leader epoch of the batch at {base_offset} changed");
        }
    }

    /// The partition was read from its beginning to its end, batch by batch.
    pub fn finish(&self, partition: i32, walked: &[i64], end: i64) {
        let empty = PartitionHistory::default();
        let history = self.partitions.get(&partition).unwrap_or(&empty);
        assert!(end >= history.high_watermark, "partition {partition} ends at {end}, too early");
        let there: BTreeSet<i64> = walked.iter().copied().collect();
        for (base_offset, committed) in &history.committed {
            let batch = committed.batch;
            assert!(there.contains(base_offset), "partition {partition}: {batch:?} at {base_offset} is lost");
        }
        let mut next_sequences: BTreeMap<i64, i32> = BTreeMap::new();
        let mut epoch_before = 0;
        for base_offset in walked {
            let committed = &history.committed[base_offset];
            let epoch = committed.leader_epoch.expect("it was read");
            assert!(epoch >= epoch_before, "partition {partition}: leader epochs go back at {base_offset}");
            epoch_before = epoch;
            let bytes = &self.batches[committed.batch.0].bytes;
            let header = BatchHeader::view(bytes).expect("a batch of ours");
            let Some((producer, _)) = header.producer() else { continue };
            let next = next_sequences.entry(producer.0).or_insert(0);
            assert_eq!(
                header.base_sequence.get(),
                *next,
                "partition {partition} at {base_offset}: sequences of producer {} have a gap",
                producer.0
            );
            *next = header.last_sequence() + 1;
        }
    }
}

fn records_count(batch: &[u8]) -> i64 {
    i64::from(BatchHeader::view(batch).expect("a whole batch").records_count.get())
}
