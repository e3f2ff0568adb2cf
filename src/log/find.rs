//! Find: the batch that holds an offset or a time, as far as memory tells; else, what of the disk
//! must be looked at first.

use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::LogId;
use super::partition_log::PartitionLog;
use super::place::Place;
use crate::base::ids::Offset;
use crate::protocol::record_batch::BatchHeader;

/// Batches found on disk that are remembered: where a consumer's next plan begins.
const HINTS_COUNT: usize = 256;

/// A batch, by its place and header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundBatch {
    pub(super) place: Place,
    pub(super) base_offset: Offset,
    pub(super) bytes: u64,
}

/// The first batch wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// That ends at this offset or later.
    Offset(Offset),
    /// With this timestamp or a later one, not below the log start.
    Timestamp(i64),
}

impl Target {
    pub(super) fn is_met_by(self, header: &BatchHeader, log_start: Offset) -> bool {
        match self {
            Self::Offset(offset) => header.last_offset() >= offset,
            Self::Timestamp(timestamp) => {
                header.max_timestamp.get() >= timestamp && header.last_offset() >= log_start
            }
        }
    }
}

pub(super) enum Walk {
    Found(FoundBatch),
    /// The header there is on disk.
    Disk(Place),
    /// The rows of this sealed segment are on disk.
    Index(u64),
    /// No batch meets the target.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hint {
    log: LogId,
    offset: Offset,
    batch: FoundBatch,
}

/// Batches found on disk, a few of them.
pub(super) struct Hints(Vec<Option<Hint>>);

impl Default for Hints {
    fn default() -> Self {
        Self(vec![None; HINTS_COUNT])
    }
}

impl Hints {
    fn slot(log: LogId, offset: Offset) -> usize {
        let mixed = (offset.0 as u64 ^ (u64::from(log.0) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize % HINTS_COUNT
    }

    fn find(&self, log: LogId, offset: Offset) -> Option<FoundBatch> {
        let hint = self.0[Self::slot(log, offset)]?;
        (hint.log == log && hint.offset == offset).then_some(hint.batch)
    }

    pub(super) fn remember(&mut self, log: LogId, offset: Offset, batch: FoundBatch) {
        self.0[Self::slot(log, offset)] = Some(Hint { log, offset, batch });
    }
}

impl Lane {
    /// The largest timestamp and the base offset of the batch that has it.
    pub fn max_timestamp(&self, log: LogId) -> Option<(i64, Offset)> {
        let partition = self.partitions.get(log)?;
        let kept = partition.segments.iter().filter(|segment| !segment.dropping);
        let known = kept.filter_map(|segment| segment.max_timestamp);
        // Of equal ones Kafka names the first.
        known.reduce(|best, other| if other.0 > best.0 { other } else { best })
    }

    pub(super) fn find_batch(&self, log: LogId, target: Target) -> Walk {
        let partition = self.partition(log);
        match target {
            Target::Offset(offset) => {
                if let Some((place, _)) = partition.tail.batch_before(offset) {
                    return walk(partition, place, target);
                }
                if let Some(batch) = self.reads.hints.find(log, offset).filter(|hint| {
                    partition.segment(hint.place.segment).is_some_and(|segment| !segment.dropping)
                }) {
                    return Walk::Found(batch);
                }
                let segment = partition.segment_of(offset);
                let Some(rows) = &segment.rows else { return Walk::Index(segment.id) };
                let row = rows.partition_point(|row| row.base_offset.get() <= offset.0).checked_sub(1);
                let late = usize::from(mutation::is(Mutation::WrongIndexFloor));
                let row = row.map(|row| (row + late).min(rows.len() - 1));
                let position = row.map_or(0, |row| rows[row].position.get());
                walk(partition, Place::new(segment.id, position), target)
            }
            Target::Timestamp(timestamp) => find_timestamp(partition, timestamp),
        }
    }
}

/// Walks through memory from the batch at `place` to the one wanted.
pub(super) fn walk(partition: &PartitionLog, place: Place, target: Target) -> Walk {
    let mut place = place;
    loop {
        let Some(index) = partition.segment_index(place.segment) else { return Walk::End };
        let segment = &partition.segments[index];
        if place.position >= segment.bytes {
            match partition.segments.get(index + 1) {
                Some(next) => place = Place::new(next.id, 0),
                None => return Walk::End,
            }
            continue;
        }
        let Some(header) = partition.tail.header(place) else { return Walk::Disk(place) };
        let bytes = header.size_bytes().expect("only whole batches are appended") as u64;
        if target.is_met_by(&header, partition.log_start) {
            return Walk::Found(FoundBatch { place, base_offset: header.base_offset(), bytes });
        }
        place = place.plus(bytes);
    }
}

fn find_timestamp(partition: &PartitionLog, timestamp: i64) -> Walk {
    let kept = partition.segments.iter().filter(|segment| !segment.dropping);
    for segment in kept {
        if segment.max_timestamp.is_none_or(|(max, _)| max < timestamp) {
            continue;
        }
        let Some(rows) = &segment.rows else { return Walk::Index(segment.id) };
        let row = rows.iter().find(|row| row.max_timestamp.get() >= timestamp);
        let position = row.map_or(0, |row| row.position.get());
        return walk(partition, Place::new(segment.id, position), Target::Timestamp(timestamp));
    }
    Walk::End
}
