//! Redo: applies journal entries to partitions, in journal order.
//!
//! Promises: idempotent. An entry that the partition's row reflects changes nothing that is known of
//!           the partition; its bytes are loaded all the same where the segment doesn't have them yet.
//!           A partition whose durable bytes are missing is *stuck* at the last batch in front of them:
//!           what follows for it is passed over, unless an earlier recovery cut it there already.
//! Never:    asks the catalog, touches a file.
//! Called by recovery only.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use zerocopy::FromBytes;

use super::damage::Damage;
use super::format::{CreatePayload, DamagedPayload, EntryKind, RollPayload, rolled_id};
use super::journal_chain::Gap;
use super::mutation::{self, Mutation};
use super::options::{LogId, PartitionSettings};
use super::partition_log::{Ends, Mark, PartitionLog};
use super::partitions::Partitions;
use super::place::Place;
use super::replay::Entry;
use super::segment::{self, Segment};
use super::tail::TailPool;
use crate::base::ids::{Offset, PartitionId, TopicId, TopicPartition};
use crate::protocol::record_batch::BatchHeader;

/// Why the journal can't be applied to any partition of the lane.
pub(super) struct Contradiction(pub(super) String);

/// Durable bytes of a partition are missing.
pub(super) struct Stuck {
    pub(super) what: String,
    /// One past the last record that is known to have been there.
    pub(super) lost_end: Option<Offset>,
    /// All that shows it is bytes that follow nothing. They are the rest of a batch that an earlier
    /// recovery cut, if its cut comes: then nothing is missing, and the file with its first piece is free.
    pub(super) by_orphan: bool,
}

/// What redo left to be recorded.
#[derive(Default)]
pub(super) struct Finished {
    /// Incomplete batches that were cut, where.
    pub(super) cuts: Vec<(LogId, Place)>,
    /// Partitions found damaged now.
    pub(super) damaged: Vec<NewDamage>,
}

pub(super) struct NewDamage {
    pub(super) log: LogId,
    /// Where it was cut.
    pub(super) end: Place,
    pub(super) what: String,
}

pub(super) struct Redo {
    pub(super) lane_dir: PathBuf,
    pub(super) partitions: Partitions,
    pub(super) pool: TailPool,
    /// By partition: its row reflects the entries before this item.
    pub(super) reflected: BTreeMap<LogId, u64>,
    /// By partition: up to here its bytes were read as batches, and the offset that follows.
    pub(super) scans: BTreeMap<LogId, (Place, Offset)>,
    pub(super) stuck: BTreeMap<LogId, Stuck>,
    /// Wall time of the recovery.
    pub(super) wall_ms: i64,
    /// Partitions with a number from here on are made by entries only.
    pub(super) log_next: u32,
    pub(super) segment_next: u64,
    pub(super) clean: bool,
    /// The largest generation of an image that an entry calls durable.
    pub(super) image_durable: u64,
    pub(super) tail_bytes: u64,
}

impl Redo {
    pub(super) fn new(lane_dir: PathBuf, pool: TailPool, log_next: u32, segment_next: u64) -> Self {
        Self {
            lane_dir,
            partitions: Partitions::default(),
            pool,
            reflected: BTreeMap::new(),
            scans: BTreeMap::new(),
            stuck: BTreeMap::new(),
            wall_ms: 0,
            log_next,
            segment_next,
            clean: false,
            image_durable: 0,
            tail_bytes: 0,
        }
    }

    /// Takes a partition from its row.
    pub(super) fn insert(&mut self, partition: PartitionLog, item: u64) {
        self.reflected.insert(partition.number, item);
        self.scans.insert(partition.number, partition.ends.batch_flushed);
        self.partitions.insert(partition);
    }

    pub(super) fn is_reflected(&self, log: LogId, item: u64) -> bool {
        !mutation::is(Mutation::ApplyTwice)
            && self.reflected.get(&log).is_some_and(|reflected| item < *reflected)
    }

    /// Applies an entry; `incarnation` is its file's.
    pub(super) fn apply(&mut self, entry: &Entry<'_>, incarnation: u64) -> Result<(), Contradiction> {
        self.clean = entry.kind == EntryKind::CleanStop;
        let log = LogId(entry.header.log.get());
        match entry.kind {
            EntryKind::Recovered | EntryKind::CleanStop | EntryKind::Touched => return Ok(()),
            EntryKind::ImageDurable => {
                self.image_durable = self.image_durable.max(entry.header.value.get());
                return Ok(());
            }
            EntryKind::Create => return self.create(entry, log),
            _ => {}
        }
        if self.partitions.get(log).is_none() {
            if log.0 < self.log_next {
                // Dropped for good before the image: its drop entry comes further on.
                return Ok(());
            }
            return Err(Contradiction(format!("entry {} names partition {}, unknown", entry.item, log.0)));
        }
        let place = Place::new(entry.header.segment.get(), entry.header.value.get());
        match entry.kind {
            EntryKind::Append => self.append(entry, log, place, incarnation),
            EntryKind::Drop => self.partition(log).dropping = Some(entry.item),
            EntryKind::Roll => return self.roll(entry, log, place),
            EntryKind::LogStart => {
                if !self.is_reflected(log, entry.item) {
                    self.partition(log).advance_log_start(Offset(place.position as i64), 0);
                }
            }
            EntryKind::Image => self.image(entry, log, place),
            EntryKind::Materialised => self.materialised(log, place),
            EntryKind::Cut => self.cut_by_entry(log, place),
            EntryKind::Damaged => return self.damaged(entry, log, place),
            EntryKind::LossAccepted => {
                if !self.is_reflected(log, entry.item) {
                    self.partition(log).damage = None;
                }
            }
            EntryKind::CleanBegin => self.clean_begin(entry, log),
            EntryKind::Replace => return self.replace(entry, log),
            EntryKind::Create
            | EntryKind::Recovered
            | EntryKind::CleanStop
            | EntryKind::ImageDurable
            | EntryKind::Touched => unreachable!("handled above"),
        }
        Ok(())
    }

    // ---- Damage ------------------------------------------------------------------------------

    /// Groups are lost. Returns the partitions that may have lost something in them.
    pub(super) fn gap(&mut self, gap: &Gap) -> Result<Vec<LogId>, Contradiction> {
        let all = || self.partitions.iter().map(|partition| partition.number).collect();
        let mut suspects = gap.logs.clone().unwrap_or_else(all);
        suspects.retain(|log| !self.is_reflected(*log, gap.item_end.saturating_sub(1)));
        let counted = gap.log_next.checked_sub(1).map(LogId);
        if let Some(log) = suspects.iter().chain(&counted).find(|log| log.0 >= self.log_next) {
            let what = format!("{}, and partition {} of this lane was created in it", gap.what, log.0);
            return Err(Contradiction(what));
        }
        // Others were dropped for good before the image.
        suspects.retain(|log| self.partitions.get(*log).is_some());
        for log in &suspects {
            self.stick(*log, gap.what.clone());
        }
        Ok(suspects)
    }

    /// Bytes of the partition are missing behind those it has.
    pub(super) fn stick(&mut self, log: LogId, what: String) {
        self.scan(log);
        let (place, _) = self.scans[&log];
        self.cut(log, place);
        self.stuck.entry(log).or_insert(Stuck { what, lost_end: None, by_orphan: false });
    }

    /// An earlier recovery cut a batch at `place`: what was replayed of it is no part of the log.
    fn cut_by_entry(&mut self, log: LogId, place: Place) {
        self.cut(log, place);
        let flushed = self.partition(log).ends.batch_flushed;
        // It was read as batches from the middle on, where the row reflects what came in its place.
        if self.scans[&log].0 > place {
            self.scans.insert(log, flushed);
        }
        let reached = self.partitions.get(log).expect("looked up before").normal(self.scans[&log].0);
        if self.stuck.get(&log).is_some_and(|stuck| stuck.by_orphan) && reached >= place {
            self.stuck.remove(&log);
        }
    }

    /// An earlier recovery found the partition damaged and ended it at `place`.
    fn damaged(&mut self, entry: &Entry<'_>, log: LogId, place: Place) -> Result<(), Contradiction> {
        let Ok(payload) = DamagedPayload::read_from_bytes(entry.payload) else {
            return Err(Contradiction(format!("damaged entry {} has a strange length", entry.item)));
        };
        let next = payload.segment.get();
        self.segment_next = self.segment_next.max(next + 1);
        if self.is_reflected(log, entry.item) {
            return Ok(());
        }
        // A drop that stands in front of it was out of that recovery's sight.
        self.partition(log).dropping = None;
        let (reached, _) = self.scans[&log];
        if self.stuck.contains_key(&log) && reached < place {
            // More is missing than was then.
            return Ok(());
        }
        let is_behind = |segment: &Segment| segment.sealed && Place::new(segment.id, segment.bytes) > place;
        let partition = self.partition(log);
        if partition.segments.iter().any(is_behind) {
            // The row is of an image that no entry called durable then.
            let what =
                format!("entry {} ends partition {} at {place:?}, in a sealed segment", entry.item, log.0);
            return Err(Contradiction(what));
        }
        self.stuck.remove(&log);
        let end = (place, Offset(payload.log_end.get()));
        self.truncate(log, end, next, Damage::from_disk(payload.lost_end.get()).lost_end);
        Ok(())
    }

    /// The partition ends at `end`, segment `next` goes on there, and it is damaged.
    fn truncate(&mut self, log: LogId, end: (Place, Offset), next: u64, lost_end: Option<Offset>) {
        self.cut(log, end.0);
        let partition = self.partition(log);
        if partition.ends.batch_flushed.0 > end.0 {
            // More was known to be flushed than when the end was set.
            partition.ends.batch_flushed = end;
            partition.image = None;
            partition.head = None;
        }
        let known_end = (partition.log_end > end.1).then_some(partition.log_end);
        partition.truncate_suffix(end.0, end.1, next);
        partition.damage = Some(Damage { lost_end: lost_end.max(known_end) });
        self.scans.insert(log, (Place::new(next, 0), end.1));
    }

    // ---- Structure ---------------------------------------------------------------------------

    pub(super) fn partition(&mut self, log: LogId) -> &mut PartitionLog {
        self.partitions.get_mut(log).expect("looked up before")
    }

    fn create(&mut self, entry: &Entry<'_>, log: LogId) -> Result<(), Contradiction> {
        let first = entry.header.segment.get();
        self.segment_next = self.segment_next.max(first + 1);
        if log.0 < self.log_next {
            // The image knows it, or knows no more of it.
            return Ok(());
        }
        let Ok(payload) = CreatePayload::read_from_bytes(entry.payload) else {
            return Err(Contradiction(format!("create entry {} has a strange length", entry.item)));
        };
        let id = TopicPartition {
            topic_id: TopicId(payload.topic_id),
            partition: PartitionId(payload.partition.get()),
        };
        let settings = PartitionSettings {
            segment_bytes_max: payload.segment_bytes_max.get(),
            segment_ms_max: payload.segment_ms_max.get(),
        };
        // One of the same id was removed wholly before this one was made.
        if let Some(before) = self.partitions.find(id) {
            self.remove(before);
        }
        let segments = VecDeque::from([Segment::new(
            first,
            Offset(0),
            payload.wall_ms.get(),
            settings.segment_bytes_max,
        )]);
        let dir = segment::partition_dir(&self.lane_dir, id);
        self.log_next = log.0 + 1;
        self.insert(PartitionLog::new(id, log, entry.header.value.get(), settings, dir, segments), 0);
        Ok(())
    }

    fn remove(&mut self, log: LogId) {
        if let Some(mut partition) = self.partitions.remove(log) {
            partition.tail.clear(&mut self.pool);
        }
    }

    fn roll(&mut self, entry: &Entry<'_>, log: LogId, place: Place) -> Result<(), Contradiction> {
        self.segment_next = self.segment_next.max(place.segment + 1);
        if self.is_reflected(log, entry.item) {
            return Ok(());
        }
        let Ok(payload) = RollPayload::read_from_bytes(entry.payload) else {
            return Err(Contradiction(format!("roll entry {} has a strange length", entry.item)));
        };
        if self.stuck.contains_key(&log) {
            return Ok(());
        }
        let partition = self.partition(log);
        if partition.active().bytes != place.position {
            let have = partition.active().bytes;
            self.stick(log, format!("its segment ends at {have}, and at {} when it ended", place.position));
            return Ok(());
        }
        partition.active_mut().rolled = true;
        let bytes_max = partition.settings.segment_bytes_max;
        let base_offset = Offset(payload.base_offset.get());
        partition.segments.push_back(Segment::new(
            place.segment,
            base_offset,
            payload.wall_ms.get(),
            bytes_max,
        ));
        Ok(())
    }

    // ---- Bytes -------------------------------------------------------------------------------

    fn append(&mut self, entry: &Entry<'_>, log: LogId, place: Place, incarnation: u64) {
        if let Some(stuck) = self.stuck.get_mut(&log) {
            stuck.lost_end = stuck.lost_end.max(end_of_batch(entry));
            return;
        }
        let reflected = self.is_reflected(log, entry.item);
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let (flushed, _) = partition.ends.batch_flushed;
        let dead = mutation::is(Mutation::RedoIntoDeadSegment).then(|| partition.active());
        let Some(segment) = partition.segment(place.segment).or(dead) else { return };
        // What the row doesn't have of it, a recovery has cut.
        let kept_end = if reflected { segment.bytes } else { u64::MAX };
        let end = place.plus(entry.payload.len() as u64).min(Place::new(place.segment, kept_end));
        if end <= place.max(flushed) {
            return;
        }
        let from = place.max(flushed);
        self.cut(log, from);
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let have = partition.tail.end().unwrap_or(flushed);
        if !partition.leads_to(have, from) {
            self.stick(log, format!("bytes at {from:?} don't follow {have:?}"));
            self.stuck.get_mut(&log).expect("just put in").by_orphan = true;
            return self.append(entry, log, place, incarnation);
        }
        let within = (from.position - place.position) as usize..(end.position - place.position) as usize;
        let bytes = &entry.payload[within];
        partition.tail.extend(&mut self.pool, log, from, bytes, bytes.len());
        self.tail_bytes += bytes.len() as u64;
        let whole = Place::new(place.segment, end.position);
        match partition.marks.back_mut() {
            Some(mark) if mark.incarnation == incarnation => mark.end = mark.end.max(whole),
            _ => partition.marks.push_back(Mark { incarnation, end: whole }),
        }
        self.scan(log);
    }

    /// Reads the whole batches among the bytes loaded; those that the row doesn't reflect are taken
    /// into the partition as if they were appended now.
    fn scan(&mut self, log: LogId) {
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let scan = self.scans.get_mut(&log).expect("inserted with the partition");
        while let Some(end) = partition.tail.end() {
            let at = partition.normal(scan.0);
            let Some(header) = partition.tail.header(at) else { return };
            let Some(size) = header.size_bytes() else { return };
            let batch_end = at.plus(size as u64);
            if at.segment == end.segment && batch_end > end {
                return;
            }
            partition.tail.mark_batch(at, header.base_offset(), batch_end.position);
            if at == partition.end() {
                let wall_ms = partition.active().wall_ms;
                // When it was appended isn't known: its producer was here a moment ago.
                partition.note(&header, size as u64, wall_ms, self.wall_ms);
            }
            *scan = (batch_end, header.last_offset().plus(1));
        }
    }

    /// Forgets the bytes from `place` on; no file is needed for them any more.
    fn cut(&mut self, log: LogId, place: Place) {
        let partition = self.partitions.get_mut(log).expect("looked up before");
        partition.tail.cut(&mut self.pool, place);
        partition.marks.iter_mut().for_each(|mark| mark.end = mark.end.min(place));
    }

    fn image(&mut self, entry: &Entry<'_>, log: LogId, place: Place) {
        let partition = self.partition(log);
        let end = place.plus(entry.payload.len() as u64);
        // Of an end that was passed since, the rewrite was flushed: the image has served.
        if partition.ends.batch_flushed.0 == end {
            partition.head = Some((place, entry.payload.into()));
            partition.image = Some((end, entry.item));
        }
    }

    fn materialised(&mut self, log: LogId, place: Place) {
        if self.stuck.contains_key(&log) && place > self.scans[&log].0 {
            return;
        }
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let (mut at, mut offset) = partition.ends.batch_flushed;
        if place <= at || partition.segment(place.segment).is_none() {
            return;
        }
        while at < place {
            if partition.is_final_end(at)
                && let Some(index) = partition.segment_index(at.segment)
                && let Some(next) = partition.segments.get(index + 1)
            {
                at = Place::new(next.id, 0);
                continue;
            }
            let header = partition.tail.header(at).filter(|header| header.size_bytes().is_some());
            let Some(header) = header else {
                self.stick(log, format!("flushed up to {place:?}, but {at:?} is in no entry"));
                return;
            };
            at = at.plus(header.size_bytes().unwrap_or_default() as u64);
            offset = header.last_offset().plus(1);
        }
        partition.ends.batch_flushed = (at, offset);
        partition.image = None;
        partition.head = None;
        partition.dir_made = true;
        for segment in partition.segments.iter_mut().filter(|segment| segment.id <= place.segment) {
            segment.created = true;
            segment.padded = !segment.sealed;
        }
        partition.tail.drop_before(&mut self.pool, at);
        while partition.marks.front().is_some_and(|mark| mark.end <= at) {
            partition.marks.pop_front();
        }
    }

    // ---- The end -----------------------------------------------------------------------------

    /// Cuts incomplete batches and sets the ends. Partitions that are stuck now are damaged.
    pub(super) fn finish(&mut self) -> Finished {
        let mut finished = Finished::default();
        let logs: Vec<_> = self.partitions.iter().map(|partition| partition.number).collect();
        for log in logs {
            self.scan(log);
            if !mutation::is(Mutation::KeepIncompleteBatch) {
                self.cut_incomplete(log, &mut finished.cuts);
            }
            if let Some(stuck) = self.stuck.remove(&log)
                && self.partition(log).dropping.is_none()
            {
                let (place, offset) = self.scans[&log];
                let end = self.partition(log).normal(place);
                let next = rolled_id(self.segment_next);
                self.segment_next = next + 1;
                self.truncate(log, (end, offset), next, stuck.lost_end);
                finished.damaged.push(NewDamage { log, end, what: stuck.what });
            }
            let partition = self.partition(log);
            let end = partition.end();
            let (flushed, offset) = partition.ends.batch_flushed;
            let behind = partition.normal(flushed);
            while partition.marks.front().is_some_and(|mark| mark.end <= behind) {
                partition.marks.pop_front();
            }
            // Else recycling would wait for bytes that never come.
            assert!(partition.marks.iter().all(|mark| mark.end <= end), "marks end at what was replayed");
            partition.durable_end = partition.log_end;
            partition.ends = Ends { durable: end, ..Ends::all_at(flushed, offset) };
        }
        finished
    }

    /// A last batch of which pieces are missing was never durable. What else is missing was.
    fn cut_incomplete(&mut self, log: LogId, cuts: &mut Vec<(LogId, Place)>) {
        let partition = self.partition(log);
        let end = partition.end();
        if partition.tail.end().is_some_and(|have| have > end) {
            cuts.push((log, end));
            self.cut(log, end);
        }
        let partition = self.partition(log);
        let (flushed, _) = partition.ends.batch_flushed;
        let reached = partition.tail.end().unwrap_or(flushed).max(flushed);
        if partition.normal(reached) != end {
            self.stick(log, format!("bytes from {reached:?} up to {end:?} were durable and are in no entry"));
        }
    }
}

/// One past the last offset of the batch that the entry begins with, if it does begin with one.
fn end_of_batch(entry: &Entry<'_>) -> Option<Offset> {
    let header = BatchHeader::view(entry.payload)?;
    let whole = header.magic == 2 && header.size_bytes()? == entry.header.total_bytes.get() as usize;
    whole.then(|| header.last_offset().plus(1))
}
