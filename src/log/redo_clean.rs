//! Redo of cleanings: what a compaction began, and what it replaced.

use zerocopy::FromBytes;

use super::format::ReplacePayload;
use super::options::LogId;
use super::place::Place;
use super::redo::{Contradiction, Redo};
use super::replay::Entry;
use super::segment::Segment;
use crate::base::ids::Offset;

impl Redo {
    /// Its file is removed, unless the cleaning came to its end.
    pub(super) fn clean_begin(&mut self, entry: &Entry<'_>, log: LogId) {
        if self.is_reflected(log, entry.item) {
            return;
        }
        let (id, base_offset) = (entry.header.segment.get(), Offset(entry.header.value.get() as i64));
        let partition = self.partition(log);
        if partition.leased(id).is_none() {
            partition.leftovers.push(Segment::new(id, base_offset, 0, 0));
        }
    }

    pub(super) fn replace(&mut self, entry: &Entry<'_>, log: LogId) -> Result<(), Contradiction> {
        if self.is_reflected(log, entry.item) {
            return Ok(());
        }
        let Ok(payload) = ReplacePayload::read_from_bytes(entry.payload) else {
            return Err(Contradiction(format!("replace entry {} has a strange length", entry.item)));
        };
        let (first, last) = (payload.first.get(), payload.last.get());
        let partition = self.partition(log);
        let Some(run) = partition.run_of(first, last) else {
            // The entries that made them are lost.
            self.stick(log, format!("segments {first} to {last} were replaced, but aren't there"));
            return Ok(());
        };
        let next = &partition.segments[run.end() + 1];
        let behind = (Place::new(next.id, 0), next.base_offset);
        // What is replaced was flushed, whether the entry that says so is there or not. The end of a segment that goes is the beginning of what follows.
        if partition.ends.batch_flushed.0 < behind.0 {
            partition.ends.batch_flushed = behind;
            partition.image = None;
            partition.head = None;
        }
        partition.replace(run, Segment::from_row(&payload.row, Vec::new()), entry.item);
        partition.first_dirty = Offset(payload.first_dirty.get());
        let partition = self.partitions.get_mut(log).expect("looked up before");
        partition.tail.drop_before(&mut self.pool, behind.0);
        let scan = self.scans.get_mut(&log).expect("inserted with the partition");
        *scan = (*scan).max(behind);
        Ok(())
    }
}
