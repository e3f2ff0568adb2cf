//! Redo: applies journal entries to partitions, in journal order.
//!
//! Promises: idempotent. An entry that the partition's row reflects changes nothing that is known of
//!           the partition; its bytes are loaded all the same where the segment doesn't have them yet.
//! Never:    asks the catalog, touches a file.
//! Called by recovery only.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use zerocopy::FromBytes;

use super::format::{CreatePayload, EntryKind, RollPayload};
use super::options::{LogId, PartitionSettings};
use super::partition_log::{Ends, Mark, PartitionLog};
use super::partitions::Partitions;
use super::place::Place;
use super::replay::Entry;
use super::segment::{self, Segment};
use super::tail::TailPool;
use crate::base::ids::{Offset, PartitionId, TopicId, TopicPartition};

/// Why an intact journal can't be applied: durable bytes are missing elsewhere.
pub(super) struct Contradiction(pub(super) String);

pub(super) struct Redo {
    pub(super) lane_dir: PathBuf,
    pub(super) partitions: Partitions,
    pub(super) pool: TailPool,
    /// By partition: its row reflects the entries before this item.
    pub(super) reflected: BTreeMap<LogId, u64>,
    /// By partition: up to here its bytes were read as batches.
    pub(super) scans: BTreeMap<LogId, Place>,
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
        self.scans.insert(partition.number, partition.ends.batch_flushed.0);
        self.partitions.insert(partition);
    }

    pub(super) fn is_reflected(&self, log: LogId, item: u64) -> bool {
        self.reflected.get(&log).is_some_and(|reflected| item < *reflected)
    }

    /// Applies an entry; `incarnation` is its file's.
    pub(super) fn apply(&mut self, entry: &Entry<'_>, incarnation: u64) -> Result<(), Contradiction> {
        self.clean = entry.kind == EntryKind::CleanStop;
        let log = LogId(entry.header.log.get());
        match entry.kind {
            EntryKind::Recovered | EntryKind::CleanStop => return Ok(()),
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
            EntryKind::Drop => {
                self.partition(log).dropping = Some(entry.item);
                Ok(())
            }
            EntryKind::Roll => self.roll(entry, log, place),
            EntryKind::LogStart => {
                if !self.is_reflected(log, entry.item) {
                    self.partition(log).advance_log_start(Offset(place.position as i64), 0);
                }
                Ok(())
            }
            EntryKind::Image => {
                self.image(entry, log, place);
                Ok(())
            }
            EntryKind::Materialised => self.materialised(log, place),
            EntryKind::CleanBegin => {
                self.clean_begin(entry, log);
                Ok(())
            }
            EntryKind::Replace => self.replace(entry, log),
            EntryKind::Cut => {
                self.cut(log, place);
                Ok(())
            }
            EntryKind::Create | EntryKind::Recovered | EntryKind::CleanStop | EntryKind::ImageDurable => {
                unreachable!("handled above")
            }
        }
    }

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
        let partition = self.partition(log);
        if partition.active().bytes != place.position {
            let have = partition.active().bytes;
            let what = format!("{}: segment ends at {have}, its roll says {}", partition.id, place.position);
            return Err(Contradiction(what));
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

    fn append(
        &mut self,
        entry: &Entry<'_>,
        log: LogId,
        place: Place,
        incarnation: u64,
    ) -> Result<(), Contradiction> {
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let end = place.plus(entry.payload.len() as u64);
        let (flushed, _) = partition.ends.batch_flushed;
        if partition.segment(place.segment).is_none() || end <= flushed {
            return Ok(());
        }
        let from = place.max(flushed);
        self.cut(log, from);
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let have = partition.tail.end().unwrap_or(flushed);
        let follows = from == have
            || (from.position == 0 && partition.is_final_end(have) && from.segment > have.segment);
        if !follows {
            let what = format!("{}: bytes at {from:?} don't follow {have:?}", partition.id);
            return Err(Contradiction(what));
        }
        let bytes = &entry.payload[(from.position - place.position) as usize..];
        partition.tail.extend(&mut self.pool, log, from, bytes, bytes.len());
        self.tail_bytes += bytes.len() as u64;
        let whole = Place::new(place.segment, end.position);
        match partition.marks.back_mut() {
            Some(mark) if mark.incarnation == incarnation => mark.end = mark.end.max(whole),
            _ => partition.marks.push_back(Mark { incarnation, end: whole }),
        }
        self.scan(log);
        Ok(())
    }

    /// Reads the whole batches among the bytes loaded; those that the row doesn't reflect are taken
    /// into the partition as if they were appended now.
    fn scan(&mut self, log: LogId) {
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let scan = self.scans.get_mut(&log).expect("inserted with the partition");
        while let Some(end) = partition.tail.end() {
            if partition.is_final_end(*scan)
                && let Some(index) = partition.segment_index(scan.segment)
                && let Some(next) = partition.segments.get(index + 1)
            {
                *scan = Place::new(next.id, 0);
            }
            let Some(header) = partition.tail.header(*scan) else { return };
            let Some(size) = header.size_bytes() else { return };
            let batch_end = scan.plus(size as u64);
            if scan.segment == end.segment && batch_end > end {
                return;
            }
            partition.tail.mark_batch(*scan, header.base_offset(), batch_end.position);
            if *scan == partition.end() {
                let wall_ms = partition.active().wall_ms;
                partition.note(&header, size as u64, wall_ms);
            }
            *scan = batch_end;
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

    fn materialised(&mut self, log: LogId, place: Place) -> Result<(), Contradiction> {
        let partition = self.partitions.get_mut(log).expect("looked up before");
        let (mut at, mut offset) = partition.ends.batch_flushed;
        if place <= at || partition.segment(place.segment).is_none() {
            return Ok(());
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
                let what = format!("{}: flushed up to {place:?}, but {at:?} is in no entry", partition.id);
                return Err(Contradiction(what));
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
        }
        partition.tail.drop_before(&mut self.pool, at);
        while partition.marks.front().is_some_and(|mark| mark.end <= at) {
            partition.marks.pop_front();
        }
        Ok(())
    }

    // ---- The end -----------------------------------------------------------------------------

    /// Cuts incomplete batches and sets the ends. Returns the places cut.
    pub(super) fn finish(&mut self) -> Result<Vec<(LogId, Place)>, Contradiction> {
        let mut cuts = Vec::new();
        let logs: Vec<_> = self.partitions.iter().map(|partition| partition.number).collect();
        for log in logs {
            self.scan(log);
            let partition = self.partitions.get_mut(log).expect("just listed");
            let end = partition.end();
            let have = partition.tail.end();
            if have.is_some_and(|have| have > end) {
                cuts.push((log, end));
                self.cut(log, end);
            }
            let partition = self.partitions.get_mut(log).expect("just listed");
            let (flushed, offset) = partition.ends.batch_flushed;
            let reached = partition.tail.end().unwrap_or(flushed).max(flushed);
            let complete = reached == end
                || (end.position == 0 && partition.is_final_end(reached))
                || partition.dropping.is_some();
            if !complete {
                let what = format!(
                    "{}: bytes {reached:?} to {end:?} were durable and are in no journal entry",
                    partition.id
                );
                return Err(Contradiction(what));
            }
            while partition.marks.front().is_some_and(|mark| mark.end <= flushed) {
                partition.marks.pop_front();
            }
            // Else recycling would wait for bytes that never come.
            assert!(partition.marks.iter().all(|mark| mark.end <= end), "marks end at what was replayed");
            partition.durable_end = partition.log_end;
            partition.ends = Ends { durable: end, ..Ends::all_at(flushed, offset) };
        }
        Ok(cuts)
    }
}
