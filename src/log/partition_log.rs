//! Partition log: one partition in its lane. Its segments, its tail, its ends.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::damage::Damage;
use super::format::{blocks_down, blocks_up};
use super::options::{LogId, PartitionSettings};
use super::place::Place;
use super::producers::ProducerTable;
use super::segment::Segment;
use super::tail::Tail;
use crate::base::ids::{LeaderEpoch, Offset, TopicPartition};
use crate::protocol::record_batch::BatchHeader;

/// How far the bytes of a partition have come. `batch_flushed <= flushed <= written <= durable <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// In a durable commit group; the end of a batch.
    pub(super) durable: Place,
    /// Written to the segment's file, if not flushed; any byte.
    pub(super) written: Place,
    /// Flushed in the segment's file, and the file's name in its directory; any byte.
    pub(super) flushed: Place,
    /// The last batch boundaries up to `written` and `flushed`, with their offsets. The journal keeps
    /// everything from `batch_flushed` on, and that is where recovery begins.
    pub(super) batch_written: (Place, Offset),
    pub(super) batch_flushed: (Place, Offset),
}

impl Ends {
    /// Everything before `place` is on disk and flushed.
    pub(super) fn all_at(place: Place, offset: Offset) -> Self {
        let batch = (place, offset);
        Self { durable: place, written: place, flushed: place, batch_written: batch, batch_flushed: batch }
    }
}

/// The journal file of this incarnation holds bytes of the partition up to `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) incarnation: u64,
    pub(super) end: Place,
}

pub(super) struct PartitionLog {
    pub(super) id: TopicPartition,
    pub(super) number: LogId,
    pub(super) metadata_epoch: u64,
    pub(super) settings: PartitionSettings,
    pub(super) dir: PathBuf,
    /// The directory exists and its entry is durable.
    pub(super) dir_made: bool,
    /// Oldest first, never empty; the last one is appended to.
    pub(super) segments: VecDeque<Segment>,
    /// No part of the log, or not yet: segments that were replaced, and outputs of cleanings. Their
    /// files are removed once nothing needs them.
    pub(super) leftovers: Vec<Segment>,
    /// The leftover that a cleaning writes now.
    pub(super) cleaning: Option<u64>,
    /// Up to here records are compacted.
    pub(super) first_dirty: Offset,
    pub(super) tail: Tail,
    pub(super) log_start: Offset,
    pub(super) log_end: Offset,
    pub(super) durable_end: Offset,
    pub(super) ends: Ends,
    /// First offset of each leader epoch, both ascending.
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(super) producers: ProducerTable,
    /// Journal files with unflushed bytes, oldest first.
    pub(super) marks: VecDeque<Mark>,
    /// An image entry up to this end was queued, under this item number.
    pub(super) image: Option<(Place, u64)>,
    /// After a recovery: the beginning of the block at `batch_flushed`, from its image. The block on
    /// disk may be torn.
    pub(super) head: Option<(Place, Box<[u8]>)>,
    /// Counted among those that will need an image entry before their next write.
    pub(super) in_debt: bool,
    /// A job works on its files.
    pub(super) busy: bool,
    /// Waits in the lane's queue for materialisation.
    pub(super) candidate: bool,
    /// Item number of its drop entry.
    pub(super) dropping: Option<u64>,
    pub(super) damage: Option<Damage>,
}

impl PartitionLog {
    pub(super) fn new(
        id: TopicPartition,
        number: LogId,
        metadata_epoch: u64,
        settings: PartitionSettings,
        dir: PathBuf,
        segments: VecDeque<Segment>,
    ) -> Self {
        let last = segments.back().expect("a partition has a segment");
        let offset = last.end_offset;
        let ends = Ends::all_at(Place::new(last.id, last.bytes), offset);
        Self {
            id,
            number,
            metadata_epoch,
            settings,
            dir,
            dir_made: segments.iter().any(|segment| segment.created),
            log_start: segments.front().map_or(offset, |first| first.base_offset),
            log_end: offset,
            durable_end: offset,
            segments,
            leftovers: Vec::new(),
            cleaning: None,
            first_dirty: Offset(0),
            tail: Tail::default(),
            ends,
            epochs: Vec::new(),
            producers: ProducerTable::default(),
            marks: VecDeque::new(),
            image: None,
            head: None,
            in_debt: false,
            busy: false,
            candidate: false,
            dropping: None,
            damage: None,
        }
    }

    /// Clients may append to it and read it.
    pub(super) fn is_online(&self) -> bool {
        self.dropping.is_none() && self.damage.is_none()
    }

    pub(super) fn active(&self) -> &Segment {
        self.segments.back().expect("a partition has a segment")
    }

    pub(super) fn active_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("a partition has a segment")
    }

    /// One past the last byte appended.
    pub(super) fn end(&self) -> Place {
        Place::new(self.active().id, self.active().bytes)
    }

    pub(super) fn segment_index(&self, id: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&id, |segment| segment.id).ok()
    }

    pub(super) fn segment(&self, id: u64) -> Option<&Segment> {
        self.segments.get(self.segment_index(id)?)
    }

    pub(super) fn segment_mut(&mut self, id: u64) -> Option<&mut Segment> {
        let index = self.segment_index(id)?;
        self.segments.get_mut(index)
    }

    /// A segment that has a lease, be it replaced meanwhile.
    pub(super) fn leased(&self, id: u64) -> Option<&Segment> {
        self.segment(id).or_else(|| self.leftovers.iter().find(|leftover| leftover.id == id))
    }

    pub(super) fn leased_mut(&mut self, id: u64) -> Option<&mut Segment> {
        match self.segment_index(id) {
            Some(index) => self.segments.get_mut(index),
            None => self.leftovers.iter_mut().find(|leftover| leftover.id == id),
        }
    }

    /// The places in `segments` of the consecutive ones from `first` to `last`.
    pub(super) fn run_of(&self, first: u64, last: u64) -> Option<RangeInclusive<usize>> {
        let run = self.segment_index(first)?..=self.segment_index(last)?;
        // The active one is never part of it.
        (first <= last && run.end() + 1 < self.segments.len()).then_some(run)
    }

    /// Puts `output` into the place of the segments `run`, by the entry `item`. They are leftovers from
    /// now on, and `output` no longer is.
    ///
    /// Precondition: everything up to the end of the run is flushed.
    pub(super) fn replace(&mut self, run: RangeInclusive<usize>, output: Segment, item: u64) {
        assert!(output.id > self.segments[*run.end()].id && output.id < self.segments[run.end() + 1].id);
        self.leftovers.retain(|leftover| leftover.id != output.id);
        let at = *run.start();
        for mut replaced in self.segments.drain(run) {
            replaced.dropping_after = item + 1;
            replaced.rows = None;
            self.leftovers.push(replaced);
        }
        self.segments.insert(at, output);
    }

    /// The segment that holds `offset`, by base offsets. Precondition: `log_start <= offset`.
    pub(super) fn segment_of(&self, offset: Offset) -> &Segment {
        let index = self.segments.partition_point(|segment| segment.base_offset <= offset);
        &self.segments[index.saturating_sub(1)]
    }

    /// Bytes wait in memory for their segment.
    pub(super) fn is_dirty(&self) -> bool {
        let (written, end) = (self.ends.written, self.end());
        // An empty new segment behind a wholly written one leaves nothing to write.
        written < end && !(end.position == 0 && self.is_final_end(written) && self.follows(written, end))
    }

    /// Bytes in memory that no space on disk is allocated for yet, in whole blocks.
    pub(super) fn unplaced_bytes(&self) -> u64 {
        let written = self.ends.written;
        let from = self.segment_index(written.segment).unwrap_or(0);
        let unplaced = |segment: &Segment| {
            let placed = if segment.id == written.segment { written.position } else { 0 };
            blocks_up(segment.bytes).saturating_sub(blocks_up(placed).max(segment.allocated))
        };
        self.segments.range(from..).map(unplaced).sum()
    }

    /// Up to here the segment's file is flushed and never written again: all of it, or whole blocks.
    pub(super) fn settled_end(&self, segment: &Segment) -> u64 {
        let flushed = self.ends.flushed;
        if segment.sealed || segment.id < flushed.segment {
            segment.bytes
        } else if segment.id == flushed.segment {
            blocks_down(flushed.position)
        } else {
            0
        }
    }

    /// `place` is the final end of a rolled segment.
    pub(super) fn is_final_end(&self, place: Place) -> bool {
        self.segment(place.segment).is_some_and(|segment| segment.rolled && segment.bytes == place.position)
    }

    /// The final end of a segment is the beginning of the one behind it.
    pub(super) fn normal(&self, place: Place) -> Place {
        let next = self.segment_index(place.segment).and_then(|index| self.segments.get(index + 1));
        next.filter(|_| self.is_final_end(place)).map_or(place, |next| Place::new(next.id, 0))
    }

    /// No byte of the log lies between these places.
    pub(super) fn leads_to(&self, from: Place, to: Place) -> bool {
        let mut at = from;
        // An empty segment ends where it begins.
        while at != to {
            let next = self.normal(at);
            if next == at {
                return false;
            }
            at = next;
        }
        true
    }

    /// Ends the log at `place`, which is `offset`; segment `next` goes on there. Nothing behind `place`
    /// is sealed.
    pub(super) fn truncate_suffix(&mut self, place: Place, offset: Offset, next: u64) {
        while self.segments.len() > 1 && self.active().id > place.segment {
            self.segments.pop_back();
        }
        let wall_ms = self.active().wall_ms;
        let is_whole = self.active().sealed && self.active().bytes == place.position;
        // The log start had passed it.
        let is_gone = self.active().id > place.segment;
        if place.position == 0 || is_gone {
            self.segments.pop_back();
        } else if !is_whole {
            self.active_mut().truncate_suffix(place.position, offset);
        }
        self.segments.push_back(Segment::new(next, offset, wall_ms, self.settings.segment_bytes_max));
        if self.segment(self.ends.batch_flushed.0.segment).is_none() {
            self.ends.batch_flushed = (Place::new(next, 0), offset);
        }
        self.log_end = offset;
        self.log_start = self.log_start.min(offset);
        self.epochs.retain(|(_, first)| *first < offset);
        self.producers.truncate_suffix(offset);
    }

    fn follows(&self, before: Place, behind: Place) -> bool {
        self.segment_index(before.segment).map(|index| index + 1) == self.segment_index(behind.segment)
    }

    /// Takes an appended batch into everything that is known of the log but its bytes: appended at
    /// `wall_ms`, by a producer that was seen at `seen_ms`.
    pub(super) fn note(&mut self, header: &BatchHeader, size_bytes: u64, wall_ms: i64, seen_ms: i64) {
        assert!(header.base_offset() >= self.log_end, "offsets only grow");
        self.active_mut().note(header, size_bytes, wall_ms);
        self.log_end = header.last_offset().plus(1);
        let epoch = header.leader_epoch();
        if self.epochs.last().is_none_or(|(last, _)| *last < epoch) {
            // One of which no record is left: Kafka forgets it here, too.
            self.epochs.pop_if(|(_, first)| *first >= header.base_offset());
            self.epochs.push((epoch, header.base_offset()));
        }
        self.producers.note(header, seen_ms);
    }

    /// Moves the batch boundary along with `written`, by the headers in memory.
    pub(super) fn advance_batch_written(&mut self) {
        let written = self.ends.written;
        let (mut place, mut offset) = self.ends.batch_written;
        if place.segment != written.segment {
            return;
        }
        while place < written {
            let Some(header) = self.tail.header(place) else { break };
            let size = header.size_bytes().expect("only whole batches are appended") as u64;
            if place.position + size > written.position {
                break;
            }
            place = place.plus(size);
            offset = header.last_offset().plus(1);
        }
        self.ends.batch_written = (place, offset);
    }

    /// The leader epoch that a batch at `offset` was appended in.
    pub(super) fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let index = self.epochs.partition_point(|(_, first)| *first <= offset).checked_sub(1)?;
        Some(self.epochs[index].0)
    }

    /// The header can be one of a batch of this segment, behind the offset `after` of it.
    ///
    /// The batch's CRC covers what stands behind it; base offset, length, leader epoch and magic in front
    /// of it are covered by this: the length by the CRC's range, the others by what is known of the log.
    pub(super) fn accepts(&self, segment: &Segment, header: &BatchHeader, after: Option<Offset>) -> bool {
        let (first, last) = (header.base_offset(), header.last_offset());
        let in_order = match after {
            None => first >= segment.base_offset,
            Some(after) if segment.dense => first == after,
            Some(after) => first >= after,
        };
        let inside = header.last_offset_delta.get() >= 0 && last < segment.end_offset;
        let epoch = self.epoch_at(first).is_none_or(|epoch| epoch == header.leader_epoch());
        header.magic == 2 && in_order && inside && epoch
    }

    /// Kafka's `endOffsetForEpoch`: the largest epoch not above `epoch`, and where it ends.
    pub(super) fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let (latest, _) = *self.epochs.last()?;
        if epoch == latest {
            return Some((latest, self.log_end));
        }
        if epoch > latest {
            return None;
        }
        let index = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let end = self.epochs[index].1;
        match index.checked_sub(1) {
            Some(before) => Some((self.epochs[before].0, end)),
            None => Some((epoch, end)),
        }
    }

    /// Moves the log start by the entry `item`; segments wholly below it are to be deleted. It never
    /// moves back.
    pub(super) fn advance_log_start(&mut self, offset: Offset, item: u64) {
        self.log_start = self.log_start.max(offset.min(self.log_end));
        let start = self.log_start;
        for segment in &mut self.segments {
            if !segment.dropping && segment.rolled && segment.end_offset <= start {
                segment.dropping = true;
                segment.dropping_after = segment.dropping_after.max(item + 1);
            }
        }
        // The epoch that the log start lies in stays, and begins there.
        let below = self.epochs.partition_point(|(_, first)| *first <= start).saturating_sub(1);
        self.epochs.drain(..below);
        if let Some((_, first)) = self.epochs.first_mut() {
            *first = (*first).max(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Batch;
    use super::*;
    use crate::base::ids::{PartitionId, TopicId};
    use crate::base::random::Random;

    /// First and one past the last offset of a batch, and its leader epoch.
    type Plain = (i64, i64, i32);

    fn partition() -> PartitionLog {
        let id = TopicPartition { topic_id: TopicId([1; 16]), partition: PartitionId(0) };
        let settings = PartitionSettings { segment_bytes_max: 1 << 20, segment_ms_max: u64::MAX };
        let segments = VecDeque::from([Segment::new(1, Offset(0), 0, 1 << 20)]);
        PartitionLog::new(id, LogId(1), 0, settings, PathBuf::new(), segments)
    }

    /// What a look at every batch answers.
    fn plain_epoch_end(batches: &[Plain], start: i64, epoch: i32) -> Option<(i32, i64)> {
        let (_, log_end, latest) = *batches.last()?;
        if epoch > latest {
            return None;
        }
        // What lies below the log start isn't known any more, but the epoch it lies in is.
        let kept = || batches.iter().filter(|(_, end, _)| *end > start || *end == log_end);
        let end =
            kept().find(|(_, _, other)| *other > epoch).map_or(log_end, |(first, ..)| (*first).max(start));
        let found = kept().map(|(_, _, other)| *other).filter(|other| *other <= epoch).max();
        Some((found.unwrap_or(epoch), end))
    }

    #[test]
    fn epochs_end_where_a_look_at_every_batch_says() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut partition = partition();
            let (mut batches, mut places) = (Vec::<Plain>::new(), Vec::new());
            let (mut start, mut epoch) = (0, 0);
            for step in 0..60 {
                let end = batches.last().map_or(0, |(_, end, _)| *end);
                match random.below(10) {
                    0..7 => {
                        epoch += i32::from(random.chance(1, 4)) * (1 + random.below(3) as i32);
                        let count = 1 + random.below(4) as i32;
                        let batch = Batch { leader_epoch: epoch, ..Batch::new(end, count) };
                        let bytes = batch.to_bytes();
                        let header = BatchHeader::view(&bytes).expect("a whole batch");
                        places.push(partition.end());
                        partition.note(header, bytes.len() as u64, 0, 0);
                        batches.push((end, end + i64::from(count), epoch));
                    }
                    7 => {
                        let to = random.below(end as u64 + 3) as i64;
                        partition.advance_log_start(Offset(to), step);
                        start = start.max(to.min(end));
                    }
                    // A cut behind the log start, at a batch.
                    _ => {
                        let kept = batches.partition_point(|(first, ..)| *first <= start);
                        let at = kept + random.below((batches.len() - kept) as u64 + 1) as usize;
                        if let Some((first, ..)) = batches.get(at).copied() {
                            partition.truncate_suffix(places[at], Offset(first), 100 + step);
                            batches.truncate(at);
                            places.truncate(at);
                            epoch = batches.last().map_or(epoch, |(_, _, epoch)| *epoch);
                        }
                    }
                }
                assert_eq!(partition.log_start.0, start);
                for asked in 0..epoch + 3 {
                    let found = partition.epoch_end(LeaderEpoch(asked)).map(|(epoch, end)| (epoch.0, end.0));
                    assert_eq!(found, plain_epoch_end(&batches, start, asked), "seed {seed}, epoch {asked}");
                }
                for (first, last, epoch) in batches.iter().filter(|(_, end, _)| *end > start) {
                    let offset = (*first).max(start).min(*last);
                    assert_eq!(partition.epoch_at(Offset(offset)), Some(LeaderEpoch(*epoch)));
                }
            }
        }
    }
}
