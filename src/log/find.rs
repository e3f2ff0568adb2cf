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

/// Looked at in the page cache at once, and how often in a row: some 0.1 ms.
const PEEK_BYTES: usize = 4 << 10;
const PEEKS_MAX: usize = 128;

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

/// Batches found on disk, and ends of what was handed out: a few of them.
pub(super) struct Hints {
    found: Vec<Option<Hint>>,
    /// At this offset of the log a batch begins there.
    boundaries: Vec<Option<(LogId, Offset, Place)>>,
}

impl Default for Hints {
    fn default() -> Self {
        Self { found: vec![None; HINTS_COUNT], boundaries: vec![None; HINTS_COUNT] }
    }
}

impl Hints {
    fn slot(log: LogId, offset: Offset) -> usize {
        let mixed = (offset.0 as u64 ^ (u64::from(log.0) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize % HINTS_COUNT
    }

    fn find(&self, log: LogId, offset: Offset) -> Option<FoundBatch> {
        let hint = self.found[Self::slot(log, offset)]?;
        (hint.log == log && hint.offset == offset).then_some(hint.batch)
    }

    pub(super) fn remember(&mut self, log: LogId, offset: Offset, batch: FoundBatch) {
        self.found[Self::slot(log, offset)] = Some(Hint { log, offset, batch });
    }

    fn boundary(&self, log: LogId, offset: Offset) -> Option<Place> {
        let (known, at, place) = self.boundaries[Self::slot(log, offset)]?;
        (known == log && at == offset).then_some(place)
    }

    pub(super) fn remember_boundary(&mut self, log: LogId, offset: Offset, place: Place) {
        self.boundaries[Self::slot(log, offset)] = Some((log, offset, place));
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

    /// The first batch wanted, as far as memory and the page cache tell.
    pub(super) fn find_batch(&mut self, log: LogId, target: Target) -> Walk {
        let walk = self.find_in_memory(log, target);
        self.walk_cached(log, target, walk)
    }

    fn find_in_memory(&self, log: LogId, target: Target) -> Walk {
        let partition = self.partition(log);
        match target {
            Target::Offset(offset) => {
                if let Some((place, _)) = partition.tail.batch_before(offset) {
                    return walk(partition, place, target);
                }
                let is_kept =
                    |place: &Place| partition.segment(place.segment).is_some_and(|segment| !segment.dropping);
                let hints = &self.reads.hints;
                if let Some(batch) = hints.find(log, offset).filter(|hint| is_kept(&hint.place)) {
                    return Walk::Found(batch);
                }
                if let Some(place) = hints.boundary(log, offset).filter(is_kept) {
                    return walk(partition, place, target);
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

impl Lane {
    /// Walks on through what the page cache has, as far as a few looks lead.
    fn walk_cached(&mut self, log: LogId, target: Target, walk: Walk) -> Walk {
        let mut walk = walk;
        let (mut after, mut bytes) = (None, [0; PEEK_BYTES]);
        for _ in 0..PEEKS_MAX {
            let Walk::Disk(at) = walk else { break };
            if self.verified_run(log, at).is_none() {
                break;
            }
            let Some(file) = self.cached_files.shared(at.segment) else { break };
            let count = file.peek(at.position, &mut bytes);
            let segment = self.partition(log).leased(at.segment).expect("found just now");
            let unchecked = segment.unchecked(at.position..at.position + count as u64);
            let count = unchecked.map_or(count, |gap| (gap.start - at.position) as usize);
            match self.scan((log, at.segment), target, at, &mut after, (at.position, &bytes[..count])) {
                Ok(Walk::Disk(next)) if next.segment != at.segment => {
                    after = None;
                    walk = Walk::Disk(next);
                }
                Ok(next) => walk = next,
                // Nothing there, or nothing sensible: the disk is asked.
                Err(_) => break,
            }
        }
        walk
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
