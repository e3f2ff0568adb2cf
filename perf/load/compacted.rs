//! Compacted: what compaction left of a topic that `produce --keys` wrote.
//!
//! Promises: of every partition, up to its log end, exactly the last record of each key is there, at the
//!           offset at which it was written, with its content; anything else is a finding. So it passes once
//!           everything was compacted, and not before.

use crate::Failure;
use crate::client::{Client, OFFSET_EARLIEST, OFFSET_LATEST, offsets_at_leaders};
use crate::consume::read_to_end;
use crate::keys::Keys;
use crate::options::CompactedOptions;
use crate::stamp::Stamp;
use crate::verify::Findings;
use corelane::base::checksum::crc32c;
use corelane::protocol::record::{RecordView, records};
use corelane::protocol::record_batch::{BatchHeader, CRC_START, HEADER_BYTES};
use std::collections::BTreeMap;
use std::time::Instant;

/// Runs `corelane-load compacted`; true when nothing was found.
pub fn run(options: &CompactedOptions) -> Result<bool, Failure> {
    if options.keys == 0 {
        return Err(Failure::new("--keys: at least 1"));
    }
    let began = Instant::now();
    let leaders = Client::connect(&options.bootstrap)?.leaders(&options.topic)?;
    let partitions: Vec<i32> = (0..leaders.0.len() as i32).collect();
    let from = offsets_at_leaders(&leaders, &options.topic, &partitions, OFFSET_EARLIEST)?;
    let ends = offsets_at_leaders(&leaders, &options.topic, &partitions, OFFSET_LATEST)?;
    let mut checker = Checker::new(Keys(options.keys), &ends);
    read_to_end(&options.bootstrap, &options.topic, &from, |partition, batch| {
        checker.check(partition, batch)
    })?;
    let result = checker.finish();
    for what in &result.findings.samples {
        eprintln!("  {what}");
    }
    let is_valid = result.findings.count == 0 && result.records > 0;
    let report = serde_json::json!({
        "kind": "compacted",
        "valid": is_valid,
        "topic": options.topic,
        "keys": options.keys,
        "seconds": began.elapsed().as_secs_f64(),
        "written_records": ends.values().sum::<i64>(),
        "records": result.records,
        "batches": result.batches,
        "bytes": result.bytes,
        "findings": result.findings.count,
        "samples": result.findings.samples,
    });
    println!("{report}");
    Ok(is_valid)
}

struct Checker {
    keys: Keys,
    partitions: BTreeMap<i32, Expected>,
    result: Found,
}

/// What a partition has to hold, and how much of it was seen.
struct Expected {
    numbers: Vec<u64>,
    next: usize,
}

#[derive(Default)]
struct Found {
    records: u64,
    batches: u64,
    bytes: u64,
    findings: Findings,
}

impl Checker {
    /// `ends`: the partitions' log ends.
    fn new(keys: Keys, ends: &BTreeMap<i32, i64>) -> Self {
        let expected = |end: i64| Expected { numbers: keys.last_numbers(end.max(0) as u64), next: 0 };
        let partitions = ends.iter().map(|(partition, end)| (*partition, expected(*end))).collect();
        Self { keys, partitions, result: Found::default() }
    }

    /// `batch` is one whole batch, the next of its partition.
    fn check(&mut self, partition: i32, batch: &[u8]) {
        let header = BatchHeader::view(batch).expect("a reader gives whole batches");
        let base = header.base_offset().0;
        self.result.batches += 1;
        self.result.bytes += batch.len() as u64;
        if crc32c(&batch[CRC_START..]) != header.crc.get() {
            return self.result.findings.add(format!("partition {partition} offset {base}: wrong checksum"));
        }
        for record in records(header.records_count.get(), &batch[HEADER_BYTES..]) {
            let outcome = match &record {
                Ok(record) => self.check_record(partition, base + i64::from(record.offset_delta), record),
                Err(error) => Err(format!("partition {partition} batch {base}: {error}")),
            };
            self.result.records += 1;
            if let Err(what) = outcome {
                self.result.findings.add(what);
            }
        }
    }

    fn check_record(&mut self, partition: i32, offset: i64, record: &RecordView<'_>) -> Result<(), String> {
        let at = format!("partition {partition} offset {offset}");
        let number = u64::try_from(offset).map_err(|_| format!("{at}: below 0"))?;
        let (stamp, is_whole) =
            record.value.and_then(Stamp::read).ok_or(format!("{at}: a value shorter than its stamp"))?;
        if !is_whole || stamp.partition != partition as u32 {
            return Err(format!("{at}: the value is not what was written: {stamp:?}"));
        }
        if stamp.number != number {
            return Err(format!("{at}: holds record {}, which was written elsewhere", stamp.number));
        }
        if record.key != Some(&self.keys.of(number)) {
            return Err(format!("{at}: the key is not that of record {number}"));
        }
        let expected = self.partitions.get_mut(&partition).ok_or(format!("{at}: no such partition"))?;
        let left = &expected.numbers[expected.next..];
        let passed = left.iter().take_while(|other| **other < number).count();
        let is_last = left.get(passed) == Some(&number);
        expected.next += passed + usize::from(is_last);
        let lost = &left[..passed];
        self.result
            .findings
            .add_all(lost.iter().map(|lost| format!("partition {partition}: record {lost} is lost")));
        if is_last { Ok(()) } else { Err(format!("{at}: not the last record of its key, or there twice")) }
    }

    /// Everything was read: what is missing is lost.
    fn finish(mut self) -> Found {
        for (partition, expected) in &self.partitions {
            let lost = expected.numbers[expected.next..].iter();
            self.result
                .findings
                .add_all(lost.map(|lost| format!("partition {partition}: record {lost} is lost")));
        }
        self.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane::base::ids::Offset;
    use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
    use corelane::protocol::compression::Codecs;

    const KEYS: Keys = Keys(5);
    const END: i64 = 60;

    /// What a record of partition 3 is written with.
    fn value(number: u64) -> Vec<u8> {
        let content = b"content";
        let stamp = Stamp { partition: 3, stream: 0, number, sent_ns: 0, crc: crc32c(content) };
        [&stamp.to_bytes()[..], content].concat()
    }

    /// One batch a record, at `offset`.
    fn batch(offset: u64, key: u64, value: &[u8]) -> Vec<u8> {
        let options = BatchOptions { base_offset: Offset(offset as i64), ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.push(0, Some(&KEYS.of(key)), Some(value), &[]);
        builder.finish(&mut Codecs::default())
    }

    fn whole(number: u64) -> Vec<u8> {
        batch(number, number, &value(number))
    }

    fn findings(batches: &[Vec<u8>]) -> Vec<String> {
        let mut checker = Checker::new(KEYS, &BTreeMap::from([(3, END)]));
        batches.iter().for_each(|batch| checker.check(3, batch));
        checker.finish().findings.samples
    }

    #[test]
    fn exactly_the_last_record_of_every_key_is_expected() {
        let last = KEYS.last_numbers(END as u64);
        assert_eq!(last.len(), 5);
        let left = |numbers: &[u64]| numbers.iter().copied().map(whole).collect::<Vec<_>>();
        assert_eq!(findings(&left(&last)), Vec::<String>::new());
        let replaced = |at: usize, batch: Vec<u8>| {
            let mut batches = left(&last);
            batches[at] = batch;
            batches
        };
        let (mut broken, mut twice, early) = (value(last[2]), last.clone(), last[0] - 1);
        *broken.last_mut().expect("not empty") ^= 1;
        twice.insert(2, last[1]);
        for (batches, word) in [
            (left(&last[1..]), "is lost"),
            (left(&last[..4]), "is lost"),
            (left(&[&last[..2], &last[3..]].concat()), "is lost"),
            (left(&[&[early], &last[..]].concat()), "not the last"),
            (left(&twice), "twice"),
            (replaced(2, batch(last[2], last[2], &broken)), "not what was written"),
            (replaced(2, batch(last[2], last[2], &value(last[1]))), "written elsewhere"),
            (replaced(2, batch(last[2], last[1], &value(last[2]))), "the key is not"),
        ] {
            let found = findings(&batches);
            assert!(found.iter().any(|what| what.contains(word)), "{word}: {found:?}");
        }
    }
}
