//! Verify: what was read against what was written and acknowledged.
//!
//! Promises: every acknowledged record is found once, in the order of its stream, at the offset of its
//!           answer, with its content; offsets are dense; anything else is a finding.

use crate::stamp::Stamp;
use corelane::base::checksum::crc32c;
use corelane::protocol::record::records;
use corelane::protocol::record_batch::{BatchHeader, CRC_START, HEADER_BYTES};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// A request that was refused, or whose answer never came.
pub const NOT_ACKNOWLEDGED: i64 = -1;

/// Findings that are kept in words; all are counted.
const SAMPLES_MAX: usize = 20;

/// Records of one connection in one partition.
pub type StreamOf = (u32, i32);

/// What was sent: for each stream, for each of its batches in order, the base offset of the answer.
#[derive(Default)]
pub struct Ledger {
    pub records_per_batch: u64,
    pub batches: BTreeMap<StreamOf, Vec<i64>>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Verification {
    pub batches: u64,
    pub records: u64,
    /// Acknowledged batches of the ledger; 0 when there was none.
    pub acknowledged_batches: u64,
    /// Batches that were there though their answer never came or was an error.
    pub unacknowledged_batches_found: u64,
    #[serde(flatten)]
    pub findings: Findings,
}

impl Verification {
    /// What two checkers found.
    pub fn and(mut self, other: Self) -> Self {
        self.batches += other.batches;
        self.records += other.records;
        self.acknowledged_batches += other.acknowledged_batches;
        self.unacknowledged_batches_found += other.unacknowledged_batches_found;
        let count = self.findings.count + other.findings.count;
        self.findings.add_all(other.findings.samples.into_iter());
        self.findings.count = count;
        self
    }
}

/// What is not as it should be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    #[serde(rename = "findings")]
    pub count: u64,
    /// The first of them in words.
    pub samples: Vec<String>,
}

impl Findings {
    pub fn add(&mut self, what: String) {
        self.add_all(std::iter::once(what));
    }

    pub fn add_all(&mut self, all: impl Iterator<Item = String>) {
        for what in all {
            self.count += 1;
            if self.samples.len() < SAMPLES_MAX {
                self.samples.push(what);
            }
        }
    }
}

/// Checks batches as they are read, partition by partition in order.
pub struct Checker {
    ledger: Option<Ledger>,
    /// Number expected next of each stream.
    next: HashMap<StreamOf, u64>,
    /// Offset expected next of each partition.
    ends: HashMap<i32, i64>,
    verification: Verification,
}

impl Checker {
    /// With a ledger, what is read must be exactly what it acknowledges, and maybe what it doesn't.
    pub fn new(ledger: Option<Ledger>) -> Self {
        Self { ledger, next: HashMap::new(), ends: HashMap::new(), verification: Verification::default() }
    }

    fn find(&mut self, what: String) {
        self.verification.findings.add(what);
    }

    /// Forgets where the partition was, because its reader begins at its start again.
    pub fn restart(&mut self, partition: i32) {
        self.ends.remove(&partition);
        self.next.retain(|(_, of), _| *of != partition);
    }

    /// `batch` is one whole batch, the next of its partition.
    pub fn check(&mut self, partition: i32, batch: &[u8]) {
        let Some(header) = BatchHeader::view(batch) else {
            return self.find(format!("partition {partition}: a batch without header"));
        };
        let (base, last, count) =
            (header.base_offset().0, header.last_offset().0, header.records_count.get());
        self.verification.batches += 1;
        self.verification.records += count.max(0) as u64;
        if crc32c(&batch[CRC_START..]) != header.crc.get() {
            return self.find(format!("partition {partition} offset {base}: wrong checksum"));
        }
        if self.ends.insert(partition, last + 1).is_some_and(|end| end != base) {
            self.find(format!("partition {partition} offset {base}: not behind the batch before"));
        }
        match read_stamps(partition, count, &batch[HEADER_BYTES..]) {
            Ok(first) if last - base + 1 == i64::from(count) => {
                self.check_place((first.stream, partition), first.number, count as u64, base);
            }
            Ok(_) => self.find(format!("partition {partition} offset {base}: offsets are not dense")),
            Err(what) => self.find(format!("partition {partition} offset {base}: {what}")),
        }
    }

    /// The batch of `count` records from `number` on stands at `base`.
    fn check_place(&mut self, stream: StreamOf, number: u64, count: u64, base: i64) {
        let expected = self.next.insert(stream, number + count);
        let Some(ledger) = &self.ledger else {
            // Every run begins at 0; a reader may begin anywhere.
            if number != 0 && expected.is_some_and(|expected| expected != number) {
                self.find(format!("{stream:?} offset {base}: record {number} where {expected:?} belongs"));
            }
            return;
        };
        let per_batch = ledger.records_per_batch;
        let batches = ledger.batches.get(&stream);
        let (index, expected) = (number / per_batch, expected.unwrap_or(0) / per_batch);
        let known = batches.and_then(|batches| batches.get(index as usize)).copied();
        let Some(acknowledged) = known.filter(|_| number.is_multiple_of(per_batch) && count == per_batch)
        else {
            return self.find(format!("{stream:?} offset {base}: batch from {number} was never sent"));
        };
        if index < expected {
            return self
                .find(format!("{stream:?} offset {base}: batch {index} behind batch {}", expected - 1));
        }
        let lost = lost_between(batches, expected, index);
        if acknowledged == NOT_ACKNOWLEDGED {
            self.verification.unacknowledged_batches_found += 1;
        } else if acknowledged != base {
            self.find(format!("{stream:?} offset {base}: batch {index} was acknowledged at {acknowledged}"));
        }
        lost.into_iter().for_each(|what| self.find(format!("{stream:?}: {what}")));
    }

    /// Everything was read: what is missing is lost.
    pub fn finish(mut self) -> Verification {
        if let Some(ledger) = self.ledger.take() {
            for (stream, batches) in &ledger.batches {
                let acknowledged = batches.iter().filter(|base| **base != NOT_ACKNOWLEDGED).count();
                self.verification.acknowledged_batches += acknowledged as u64;
                let found = self.next.get(stream).copied().unwrap_or(0) / ledger.records_per_batch;
                for what in lost_between(Some(batches), found, batches.len() as u64) {
                    self.find(format!("{stream:?}: {what}"));
                }
            }
        }
        self.verification
    }
}

/// Acknowledged batches among those from `from` to `to`, which were not found.
fn lost_between(batches: Option<&Vec<i64>>, from: u64, to: u64) -> Vec<String> {
    let Some(batches) = batches else { return Vec::new() };
    (from..to)
        .zip(batches.get(from as usize..to as usize).unwrap_or_default())
        .filter(|(_, base)| **base != NOT_ACKNOWLEDGED)
        .map(|(index, base)| format!("batch {index}, acknowledged at offset {base}, is lost"))
        .collect()
}

/// The first record's stamp, when all records are of one stream, numbered on, and whole.
fn read_stamps(partition: i32, count: i32, body: &[u8]) -> Result<Stamp, String> {
    let mut first = None;
    for (index, record) in records(count, body).enumerate() {
        let record = record.map_err(|error| error.to_string())?;
        let (stamp, is_whole) =
            record.value.and_then(Stamp::read).ok_or("a value shorter than its stamp".to_string())?;
        let begin: &Stamp = first.get_or_insert(stamp);
        if !is_whole {
            return Err(format!("content of record {index} is not what was written"));
        }
        let expected = (partition as u32, begin.stream, begin.number + index as u64, index as i32);
        if (stamp.partition, stamp.stream, stamp.number, record.offset_delta) != expected {
            return Err(format!("record {index} is {stamp:?}, expected {expected:?}"));
        }
    }
    first.ok_or("a batch without records".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::tests::content;
    use crate::template::{BatchSize, Patch, Template};
    use corelane::protocol::compression::Codecs;

    /// Batch number `index` of stream 2 in partition 5, at `base`.
    fn batch(index: u64, base: i64) -> Vec<u8> {
        let template = Template::new(&content(1, 64, BatchSize::Records(10)));
        let mut batch = template.batch_of(5, 2, &mut Codecs::default(), || [0; _]);
        template.patch(&mut batch, &Patch { number: Some((index * 10, 0)), ..Patch::default() });
        batch[..8].copy_from_slice(&base.to_be_bytes());
        batch
    }

    fn findings(acknowledged: &[i64], read: &[Vec<u8>]) -> Vec<String> {
        let batches = BTreeMap::from([((2, 5), acknowledged.to_vec())]);
        let mut checker = Checker::new(Some(Ledger { records_per_batch: 10, batches }));
        for batch in read {
            checker.check(5, batch);
        }
        checker.finish().findings.samples
    }

    #[test]
    fn what_was_acknowledged_must_be_there_once_in_order_and_in_place() {
        let none: [String; 0] = [];
        assert_eq!(findings(&[0, 10], &[batch(0, 0), batch(1, 10)]), none);
        // Batches without answer may be there or not.
        assert_eq!(findings(&[0, -1, 10], &[batch(0, 0), batch(2, 10)]), none);
        assert_eq!(findings(&[0, -1, 20], &[batch(0, 0), batch(1, 10), batch(2, 20)]), none);
        for (acknowledged, read, word) in [
            (&[0, 10][..], vec![batch(0, 0)], "lost"),
            (&[0, 10, 20], vec![batch(0, 0), batch(2, 10)], "lost"),
            (&[0], vec![batch(0, 0), batch(0, 10)], "behind"),
            (&[-1, -1], vec![batch(1, 0), batch(0, 10)], "behind"),
            (&[0], vec![batch(0, 10)], "acknowledged at 0"),
            (&[0], vec![batch(0, 0), batch(1, 10)], "never sent"),
            (&[0, 20], vec![batch(0, 0), batch(1, 20)], "not behind the batch before"),
        ] {
            let found = findings(acknowledged, &read);
            assert!(found.iter().any(|what| what.contains(word)), "{word}: {found:?}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_batch_is_a_finding() {
        let whole = batch(0, 0);
        // Length and leader epoch are the reader's and the broker's.
        for bit in (0..8 * 8).chain(17 * 8..whole.len() * 8) {
            let mut broken = whole.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(!findings(&[0], &[broken]).is_empty(), "{bit}");
        }
    }
}
