//! Damage: a partition of which durable records are missing.
//!
//! Promises: it takes no appends and no reads until the operator accepts the loss; a restart changes
//!           nothing about that. The others in its lane are served.
//!
//! Recovery ends its log in front of what is missing, with a `Damaged` entry; what was found behind that
//! is gone. Its beginning is kept and materialised as any other partition's.

use std::fmt;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I64, U64};

use super::batches::Batches;
use super::disk::Disk;
use super::format::{DamagedPayload, EntryHeader, EntryKind};
use super::lane::Lane;
use super::options::{LaneError, LogId};
use super::partition_log::PartitionLog;
use super::place::Place;
use super::redo::NewDamage;
use crate::base::ids::{Offset, TopicPartition};
use crate::protocol::record_batch::BatchHeader;
use crate::ring::{OpenMode, Ring};

/// Durable records behind the log end are missing. The partition takes no appends and no reads until the
/// operator accepts that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// One past the last of them, as far as that is known.
    pub(super) lost_end: Option<Offset>,
}

impl Damage {
    /// As it stands on disk: -1 where it isn't known.
    pub(super) fn to_disk(self) -> i64 {
        self.lost_end.map_or(-1, |offset| offset.0)
    }

    pub(super) fn from_disk(lost_end: i64) -> Self {
        Self { lost_end: (lost_end >= 0).then_some(Offset(lost_end)) }
    }
}

/// A partition of which durable records are missing: all from `log_end` on. It takes no appends and no
/// reads until the loss is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPartition {
    pub id: TopicPartition,
    pub log: LogId,
    pub log_end: Offset,
    /// One past the last record known to be lost; None where that isn't known.
    pub lost_end: Option<Offset>,
    /// What is missing.
    pub what: String,
}

impl fmt::Display for DamagedPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lost_end {
            Some(end) => write!(f, "records from offset {} up to {} are lost", self.log_end.0, end.0 - 1)?,
            None => write!(f, "records from offset {} on are lost, if there were any", self.log_end.0)?,
        }
        write!(f, ": {}", self.what)
    }
}

impl Lane {
    /// Durable records are missing, and the partition takes no appends and no reads.
    pub fn is_damaged(&self, log: LogId) -> bool {
        self.partition(log).damage.is_some()
    }

    /// The operator accepts that a damaged partition ends where it does. Blocks.
    /// After: it is online again, durably.
    pub fn accept_loss(&mut self, ring: &mut Ring, log: LogId) -> Result<(), LaneError> {
        let partition = self.partitions.get_mut(log).expect("the caller names what it was given");
        if partition.damage.take().is_some() {
            self.damaged_count -= 1;
        }
        self.journal.push_entry(EntryHeader::new(EntryKind::LossAccepted, log.0, 0, 0), &[]);
        self.wait_until_durable(ring)
    }

    pub(super) fn push_damage(&mut self, found: &NewDamage) {
        let partition = self.partition(found.log);
        let damage = partition.damage.expect("it was just found");
        let payload = DamagedPayload {
            segment: U64::new(partition.active().id),
            log_end: I64::new(partition.log_end.0),
            lost_end: I64::new(damage.to_disk()),
        };
        let (segment, position) = (found.end.segment, found.end.position);
        let header = EntryHeader::new(EntryKind::Damaged, found.log.0, segment, position);
        self.journal.push_entry(header, payload.as_bytes());
    }

    /// All partitions that are damaged, `new` and old.
    pub(super) fn damaged(&self, new: &[NewDamage]) -> Vec<DamagedPartition> {
        let told = |partition: &PartitionLog| {
            let damage = partition.damage.filter(|_| partition.dropping.is_none())?;
            let found = new.iter().find(|found| found.log == partition.number);
            let what = found.map_or("an earlier start found it", |found| &found.what).to_owned();
            let (log_end, lost_end) = (partition.log_end, damage.lost_end);
            Some(DamagedPartition { id: partition.id, log: partition.number, log_end, lost_end, what })
        };
        self.partitions.iter().filter_map(told).collect()
    }
}

/// Reckons the checksum and the largest timestamp of the row again in which a damaged partition was cut.
/// Where its batches can't be read the row stays as it is: `verify` tells.
pub(super) fn mend_last_row(disk: &mut Disk<'_>, partition: &mut PartitionLog, end: Place) {
    let flushed = partition.ends.batch_flushed.0;
    let path = match partition.segment(end.segment) {
        Some(segment) => segment.log_path(&partition.dir),
        None => return,
    };
    let (tail, dir_made) = (&partition.tail, partition.dir_made);
    let segment = partition.segments.iter_mut().find(|segment| segment.id == end.segment);
    let Some(row) = segment.and_then(|segment| segment.rows.as_mut()?.last_mut()) else { return };
    let mut headers = Vec::new();
    let mut at = Place::new(end.segment, row.position.get());
    if at < flushed && dir_made {
        let to = if flushed.segment == end.segment { flushed.position } else { end.position };
        let Ok(file) = disk.open(&path, OpenMode::Read) else { return };
        let mut batches = Batches::starting_at(file, at.position, to);
        while let Ok(Some((_, batch))) = batches.next(disk) {
            headers.push(*BatchHeader::view(batch).expect("a verified batch has a header"));
        }
        at.position = batches.position();
        disk.ring.close(file);
    }
    while at < end {
        let Some(header) = tail.header(at) else { return };
        let Some(size) = header.size_bytes() else { return };
        headers.push(header);
        at = at.plus(size as u64);
    }
    let segment = partition.segment_mut(end.segment).expect("found above");
    segment.reckon_last_row(&headers);
}
