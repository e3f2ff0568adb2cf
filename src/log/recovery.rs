//! Recovery: from what a crash left to a lane that is served. The normal start.
//!
//! Order:    flush every file and directory that is read (a killed process leaves bytes that read back
//!           but aren't durable) -> newest intact image -> redo of the journal behind it -> a group of
//!           a new incarnation made durable -> blocks with an image written again -> served. Until
//!           that last group nothing on disk changes.
//! Promises: reads the image and the journal, never the segments: time is O(partitions + journal).
//! Never:    cuts anything that was durable (`verdict`); a lane that can't be replayed stays as it is.

use std::path::{Path, PathBuf};

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use super::checkpoint::{Checkpoint, IMAGE_FILES, decode_partition, image_bytes};
use super::cycle::Cycle;
use super::directory::lane_dir;
use super::disk::{Disk, failed};
use super::files::Files;
use super::format::{
    BLOCK_BYTES, EntryHeader, EntryKind, IMAGE_MAGIC, ImageHeader, Sealed, VERSION, blocks_up,
};
use super::jobs::Jobs;
use super::journal::{FreeFile, Journal, JournalFile};
use super::lane::Lane;
use super::materialise::Staging;
use super::options::{LaneError, LaneOptions, LogId, RecoveryReport};
use super::partition_log::PartitionLog;
use super::place::Place;
use super::prewrite;
use super::read::Reads;
use super::redo::{Contradiction, Redo};
use super::replay::{Chain, FirstGroup, FoundFile, Walker, entries, item_end};
use super::segment::partitions_dir;
use super::stats::LaneStats;
use super::tail::TailPool;
use super::verdict::{Found, Verdict, judge};
use crate::base::checksum::crc32c;
use crate::base::ids::MonotonicNs;
use crate::ring::{IoBuffer, IoError, OpenMode, Ring, WriteMode};

/// The first start waits for one file of this size only.
const FIRST_FILE_BYTES_MAX: u64 = 4 << 20;

/// An image as found on disk.
pub(super) struct FoundImage {
    pub(super) index: usize,
    /// The largest of both images: the next one has a larger one.
    pub(super) generation: u64,
    pub(super) header: ImageHeader,
    pub(super) payload: Vec<u8>,
}

/// Where replay ended.
pub(super) struct ReplayEnd {
    pub(super) chain: Chain,
    /// Files in the order of their groups.
    pub(super) used: Vec<FoundFile>,
    pub(super) position: u64,
    pub(super) item_next: u64,
    pub(super) groups_count: u64,
    pub(super) bytes: u64,
    pub(super) torn: Option<String>,
}

impl Lane {
    /// Opens a lane, or makes it where it is absent. Blocks. Precondition: `prepare_dir` succeeded.
    ///
    /// After: every record that was called durable is there again; a group of a new incarnation is
    ///        durable, so that no later recovery decides otherwise on what was torn.
    pub fn recover(ring: &mut Ring, mut options: LaneOptions) -> Result<(Self, RecoveryReport), LaneError> {
        options.group_bytes_max -= options.group_bytes_max % BLOCK_BYTES as u32;
        options.check()?;
        let dir = lane_dir(&options.dir, options.lane);
        let mut report = RecoveryReport::default();
        let mut disk = Disk::new(ring, options.owner);
        make_lane_dirs(&mut disk, &options.dir, &dir)?;
        let mut images = find_images(&mut disk, &dir, true)?;
        if disk.list_dir(&dir.join("journal"))?.is_empty() {
            // No group was ever written: what is there is of a first start that ended early.
            if images.first().is_some_and(|image| image.generation > 1) {
                let what = format!("{} has a checkpoint, but its journal files are gone", dir.display());
                return Err(LaneError::Damaged { what });
            }
            report.created = true;
            images = vec![create_image(&mut disk, &dir)?];
        }
        let newest = images.first().expect("a journal has an image");
        let files = find_files(&mut disk, &dir, &newest.header.log_id, OpenMode::Write)?;
        let redone = redo_from(&mut disk, &dir, &options, newest, &files)?;
        // An image whose flush failed reads back like any other. Where no entry calls it durable,
        // nothing was written over what the older one needs, and that one is taken.
        let confirmed = redone.0.image_durable >= newest.header.generation.get();
        let (image, (mut redo, end)) = match images.get(1).filter(|_| !confirmed) {
            Some(older) => (older, redo_from(&mut disk, &dir, &options, older, &files)?),
            None => (newest, redone),
        };
        let cuts = redo.finish().map_err(|Contradiction(what)| LaneError::Damaged { what })?;
        report.clean = redo.clean;
        report.partitions_count = redo.partitions.len();
        report.groups_count = end.groups_count;
        report.journal_bytes = end.bytes;
        report.tail_bytes = redo.tail_bytes;
        report.torn_group = end.torn.clone();
        report.batches_cut_count = cuts.len();
        let journal = make_journal(&mut disk, &dir, &options, &image.header, &end, &files)?;
        let mut lane = assemble(options, dir, journal, redo, image);
        lane.plan_missing_files(&files);
        lane.finish_recovery(ring, &cuts)?;
        lane.clear_unfinished_dirs(ring)?;
        Ok((lane, report))
    }

    /// Removes directories of partitions that have nothing in them that counts: of a run that ended,
    /// perhaps by a failed flush, before their names were known to be durable.
    fn clear_unfinished_dirs(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        let mut disk = Disk::new(ring, self.options.owner);
        for partition in self.partitions.iter().filter(|partition| !partition.dir_made) {
            let Ok(entries) = disk.ring.list_dir(&partition.dir) else { continue };
            for entry in entries {
                disk.remove_file(&partition.dir.join(entry.name))?;
            }
            disk.remove_dir(&partition.dir)?;
        }
        Ok(())
    }

    /// Journal files that aren't there at full size yet are prepared in the background.
    fn plan_missing_files(&mut self, found: &[FoundFile]) {
        let bytes = self.journal_file_bytes();
        let small = FIRST_FILE_BYTES_MAX.min(bytes);
        let is_ready = |number: u32| {
            let wanted = if number == 0 { small } else { bytes };
            let in_use = self.journal.used.iter().any(|file| file.number == number);
            let free = self.journal.free.iter().any(|file| file.number == number);
            in_use
                || free
                || found.iter().any(|file| file.number == number && file.ready && file.bytes >= wanted)
        };
        let count = self.options.journal_files_count + u32::from(small < bytes);
        self.checkpoint.prewrites.missing = (0..count).rev().filter(|number| !is_ready(*number)).collect();
    }

    fn finish_recovery(&mut self, ring: &mut Ring, cuts: &[(LogId, Place)]) -> Result<(), LaneError> {
        self.restore_queues();
        let incarnation = self.journal.incarnation;
        self.journal.push_entry(EntryHeader::new(EntryKind::Recovered, 0, 0, incarnation), &[]);
        for (log, place) in cuts {
            let header = EntryHeader::new(EntryKind::Cut, log.0, place.segment, place.position);
            self.journal.push_entry(header, &[]);
        }
        self.make_room_for_last_group(ring)?;
        let item = self.journal.item_next;
        while self.journal.item_durable < item {
            let now = ring.now();
            self.turn(ring, now);
            if self.jobs.any_in_flight().is_none() {
                let what = format!(
                    "the journal of lane {} has no room for the group that ends its recovery; enlarge it",
                    self.options.lane.0
                );
                return Err(LaneError::Options { what });
            }
            self.wait_for_job(ring)?;
        }
        self.repair_blocks(ring)?;
        self.events.clear();
        Ok(())
    }

    /// Writes the blocks again that have an image: a crash may have torn them, and they hold bytes
    /// that are read from disk.
    fn repair_blocks(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        let torn = |partition: &&PartitionLog| partition.head.is_some() && partition.dropping.is_none();
        let logs: Vec<_> = self.partitions.iter().filter(torn).map(|partition| partition.number).collect();
        for log in logs {
            let written = self.partition(log).ends.written;
            let block_end = Place::new(written.segment, blocks_up(written.position));
            let target = self.partition(log).ends.durable.min(block_end);
            while self.partition(log).ends.written < target && self.cycle.paused_until.is_none() {
                self.materialise_start(ring, log, Some(target), false);
                self.wait_for_job(ring)?;
            }
        }
        Ok(())
    }

    /// Waits for an operation in flight. Nothing else runs on the lane yet.
    fn wait_for_job(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        if let Some(token) = self.jobs.any_in_flight() {
            let completion = ring.wait(token);
            self.now = ring.now();
            self.complete_job(ring, completion);
        }
        match self.fenced.clone() {
            Some(what) => Err(LaneError::Io { what, error: IoError::Os(5) }),
            None => Ok(()),
        }
    }

    /// A crash during the first start may leave one full file and no other: then recovery prepares
    /// the next one itself.
    fn make_room_for_last_group(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        let rest = self.journal.used.back().map_or(0, |file| file.bytes - self.journal.position);
        if rest >= u64::from(self.options.group_bytes_max) || !self.journal.free.is_empty() {
            return Ok(());
        }
        let Some(number) = self.checkpoint.prewrites.missing.pop() else { return Ok(()) };
        let bytes = self.journal_file_bytes();
        let mut disk = Disk::new(ring, self.options.owner);
        let file = make_file(&mut disk, &self.lane_dir, (number, bytes), self.journal.log_id)?;
        self.journal.free.push_back(file);
        Ok(())
    }

    /// What the entries ask for and no run finished.
    fn restore_queues(&mut self) {
        let mut debts = Vec::new();
        for partition in self.partitions.iter() {
            let log = partition.number;
            if let Some(item) = partition.dropping {
                self.cycle.drops.push_back((log, item.min(self.journal.item_durable.saturating_sub(1))));
                continue;
            }
            for segment in partition.segments.iter().filter(|segment| segment.rolled && !segment.sealed) {
                self.cycle.seals.push_back((log, segment.id, 0));
            }
            if partition.segments.iter().any(|segment| segment.dropping) {
                self.cycle.unlinks.push_back((log, 0));
            }
            let inside = !partition.ends.written.position.is_multiple_of(4096);
            if partition.is_dirty() && inside && partition.head.is_none() {
                debts.push(log);
            }
        }
        for log in debts {
            self.partitions.get_mut(log).expect("just listed").in_debt = true;
            self.debts_count += 1;
        }
    }
}

fn make_lane_dirs(disk: &mut Disk<'_>, dir: &Path, lane_dir: &Path) -> Result<(), LaneError> {
    disk.make_dir(lane_dir)?;
    for made in [lane_dir.join("journal"), lane_dir.join("checkpoint"), partitions_dir(lane_dir)] {
        disk.make_dir(&made)?;
        disk.flush_dir(&made)?;
    }
    disk.flush_dir(lane_dir)?;
    disk.flush_dir(&dir.join("lanes"))
}

// ---- Images ----------------------------------------------------------------------------------

/// The newest intact image. None where the lane was never made.
pub(super) fn find_image(disk: &mut Disk<'_>, dir: &Path) -> Result<Option<FoundImage>, LaneError> {
    Ok(find_images(disk, dir, false)?.into_iter().next())
}

/// The intact images, newest first; flushed where the lane is to be served.
fn find_images(disk: &mut Disk<'_>, dir: &Path, flush: bool) -> Result<Vec<FoundImage>, LaneError> {
    let mut images = Vec::new();
    for (index, name) in IMAGE_FILES.iter().enumerate() {
        if let Some((header, payload)) = read_image(disk, &dir.join(name), flush)? {
            images.push(FoundImage { index, generation: header.generation.get(), header, payload });
        }
    }
    images.sort_by_key(|image| std::cmp::Reverse(image.generation));
    let Some(generation) = images.first().map(|newest| newest.generation) else {
        if disk.list_dir(&dir.join("journal"))?.is_empty() {
            return Ok(images);
        }
        // The first image is durable before the first journal file is made.
        let what = format!("{} has a journal but no intact checkpoint image", dir.display());
        return Err(LaneError::Damaged { what });
    };
    images.iter_mut().for_each(|image| image.generation = generation);
    Ok(images)
}

/// Redo of everything behind an image.
fn redo_from(
    disk: &mut Disk<'_>,
    dir: &Path,
    options: &LaneOptions,
    image: &FoundImage,
    files: &[FoundFile],
) -> Result<(Redo, ReplayEnd), LaneError> {
    let mut redo = redo_of_image(image, options)?;
    let end = replay(disk, dir, &image.header, files, |entry, incarnation| redo.apply(entry, incarnation))?;
    Ok((redo, end))
}

pub(super) fn read_image(
    disk: &mut Disk<'_>,
    path: &Path,
    flush: bool,
) -> Result<Option<(ImageHeader, Vec<u8>)>, LaneError> {
    let fail = |error| failed("reading", path, error);
    let file = match disk.open(path, if flush { OpenMode::Write } else { OpenMode::Read }) {
        Ok(file) => file,
        Err(IoError::NotFound) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if flush {
        disk.flush(file).map_err(|error| failed("flush of", path, error))?;
    }
    let first = disk.read_all(file, ImageHeader::BYTES as u64).map_err(fail)?;
    let header = ImageHeader::read_from_bytes(&first).ok().filter(|header| header.magic == IMAGE_MAGIC);
    let found = match header {
        Some(header) if header.version.get() > VERSION => {
            let version = header.version.get();
            return Err(LaneError::NewerVersion { what: path.display().to_string(), version });
        }
        Some(header) if header.is_intact() => {
            let bytes = ImageHeader::BYTES as u64 + header.payload_bytes.get();
            let mut payload = disk.read_all(file, bytes).map_err(fail)?;
            payload.drain(..ImageHeader::BYTES.min(payload.len()));
            let whole = payload.len() as u64 == header.payload_bytes.get()
                && crc32c(&payload) == header.payload_checksum.get();
            whole.then_some((header, payload))
        }
        _ => None,
    };
    disk.ring.close(file);
    Ok(found)
}

/// The first image of a new lane: it carries the journal's secret.
fn create_image(disk: &mut Disk<'_>, dir: &Path) -> Result<FoundImage, LaneError> {
    let mut log_id = [0; 16];
    disk.ring.entropy(&mut log_id);
    let mut header = ImageHeader {
        magic: IMAGE_MAGIC,
        version: U16::new(VERSION),
        reserved: U16::ZERO,
        header_checksum: U32::ZERO,
        log_id,
        generation: U64::new(1),
        replay_number: U64::new(1),
        durable_number: U64::ZERO,
        item_next: U64::ZERO,
        segment_next: U64::new(1),
        log_next: U32::ZERO,
        replay_previous: U32::ZERO,
        incarnation: U64::ZERO,
        payload_bytes: U64::ZERO,
        payload_checksum: U32::new(crc32c(&[])),
        rows_count: U32::ZERO,
        reserved_end: [0; 24],
    };
    let buffer = image_bytes(&mut header, &[]);
    // The second file has no image yet, but its name is durable from the beginning.
    disk.write_file(&dir.join(IMAGE_FILES[1]), IoBuffer::new(BLOCK_BYTES), None)?;
    disk.write_file(&dir.join(IMAGE_FILES[0]), buffer, None)?;
    disk.flush_dir(&dir.join("checkpoint"))?;
    Ok(FoundImage { index: 0, generation: 1, header, payload: Vec::new() })
}

pub(super) fn redo_of_image(image: &FoundImage, options: &LaneOptions) -> Result<Redo, LaneError> {
    let pool = TailPool::new(options.tail_pool_bytes as usize);
    let header = &image.header;
    let lane_dir = lane_dir(&options.dir, options.lane);
    let mut redo = Redo::new(lane_dir.clone(), pool, header.log_next.get(), header.segment_next.get());
    let mut rest = &image.payload[..];
    for row in 0..header.rows_count.get() {
        let Some(decoded) = decode_partition(&mut rest, &lane_dir) else {
            let what = format!("row {row} of the checkpoint image is malformed");
            return Err(LaneError::Damaged { what });
        };
        let mut partition = decoded.partition;
        partition.dropping = decoded.dropping.then_some(0);
        redo.insert(partition, decoded.item);
    }
    Ok(redo)
}

// ---- Journal ---------------------------------------------------------------------------------

/// The journal files, flushed where they may be written, with what they begin with.
pub(super) fn find_files(
    disk: &mut Disk<'_>,
    dir: &Path,
    log_id: &[u8; 16],
    mode: OpenMode,
) -> Result<Vec<FoundFile>, LaneError> {
    let journal_dir = dir.join("journal");
    let mut files = Vec::new();
    for entry in disk.list_dir(&journal_dir)? {
        let number = entry.name.strip_suffix(".journal").and_then(|stem| stem.parse().ok());
        let Some(number) = number else { continue };
        let path = journal_dir.join(&entry.name);
        let file = disk.open(&path, mode).map_err(|error| failed("opening", &path, error))?;
        if mode == OpenMode::Write {
            disk.flush(file).map_err(|error| failed("flush of", &path, error))?;
        }
        let mut found = FoundFile { number, file, bytes: entry.bytes, first: None, ready: false };
        let header =
            Walker::new(disk, *log_id).header(&found, 0).map_err(|error| failed("reading", &path, error))?;
        match header {
            Ok(header) => {
                found.ready = true;
                found.first = Some(FirstGroup {
                    number: header.number.get(),
                    incarnation: header.incarnation.get(),
                    previous_checksum: header.previous_checksum.get(),
                });
            }
            Err(Found::Newer) => {
                return Err(LaneError::NewerVersion {
                    what: path.display().to_string(),
                    version: VERSION + 1,
                });
            }
            Err(_) => {
                found.ready = Walker::new(disk, *log_id)
                    .is_stamped(&found)
                    .map_err(|error| failed("reading", &path, error))?;
            }
        }
        files.push(found);
    }
    Ok(files)
}

/// Walks the groups from the image's first one on.
pub(super) fn replay(
    disk: &mut Disk<'_>,
    dir: &Path,
    image: &ImageHeader,
    files: &[FoundFile],
    mut apply: impl FnMut(&super::replay::Entry<'_>, u64) -> Result<(), Contradiction>,
) -> Result<ReplayEnd, LaneError> {
    let mut walker = Walker::new(disk, image.log_id);
    let mut end = ReplayEnd {
        chain: Chain {
            number: image.replay_number.get(),
            previous_checksum: image.replay_previous.get(),
            incarnation: 0,
        },
        used: Vec::new(),
        position: 0,
        item_next: image.item_next.get(),
        groups_count: 0,
        bytes: 0,
        torn: None,
    };
    let mut current: Option<FoundFile> = None;
    loop {
        let here = match &current {
            Some(file) if end.position < file.bytes => walker.group(file, end.position, end.chain),
            _ => Err(Found::Nothing),
        };
        let group = match here {
            Ok(group) => group,
            Err(found) => {
                // The file may be full: does another one go on?
                let next = next_file(&mut walker, files, &end);
                match next {
                    Some((file, Ok(group))) => {
                        end.position = 0;
                        end.used.push(file.clone());
                        current = Some(file);
                        group
                    }
                    Some((_, Err(worse))) => {
                        return end_of_journal(
                            &mut walker,
                            dir,
                            image,
                            files,
                            current,
                            worst(found, worse),
                            end,
                        );
                    }
                    None => return end_of_journal(&mut walker, dir, image, files, current, found, end),
                }
            }
        };
        let incarnation = current.as_ref().and_then(|file| file.first).map_or(0, |first| first.incarnation);
        let damaged = |what: String| LaneError::Damaged { what: format!("{}: {what}", dir.display()) };
        let number = group.header.number.get();
        let malformed = || damaged(format!("group {number} is intact and malformed"));
        for entry in entries(&group).ok_or_else(malformed)? {
            apply(&entry, incarnation).map_err(|Contradiction(what)| damaged(what))?;
        }
        end.chain = Chain {
            number: number + 1,
            previous_checksum: group.header.header_checksum.get(),
            incarnation: group.header.incarnation.get(),
        };
        end.item_next = item_end(&group).ok_or_else(malformed)?;
        end.position += group.size_bytes();
        end.bytes += group.size_bytes();
        end.groups_count += 1;
    }
}

/// The file whose first group follows the chain, and that group or what is there instead.
fn next_file(
    walker: &mut Walker<'_, '_>,
    files: &[FoundFile],
    end: &ReplayEnd,
) -> Option<(FoundFile, Result<super::replay::Group, Found>)> {
    let follows = |first: &FirstGroup| {
        first.number == end.chain.number && first.previous_checksum == end.chain.previous_checksum
    };
    let file = files.iter().find(|file| file.first.as_ref().is_some_and(follows))?;
    let group = walker.group(file, 0, end.chain);
    Some((file.clone(), group))
}

fn worst(here: Found, next: Found) -> Found {
    match (here, next) {
        (Found::Unreadable, _) | (_, Found::Unreadable) => Found::Unreadable,
        (Found::Newer, _) | (_, Found::Newer) => Found::Newer,
        (Found::HeaderOnly, _) | (_, Found::HeaderOnly) => Found::HeaderOnly,
        (Found::Nothing, Found::Nothing) => Found::Nothing,
    }
}

/// No group follows: is it the end, a torn group, or damage?
fn end_of_journal(
    walker: &mut Walker<'_, '_>,
    dir: &Path,
    image: &ImageHeader,
    files: &[FoundFile],
    current: Option<FoundFile>,
    found: Found,
    mut end: ReplayEnd,
) -> Result<ReplayEnd, LaneError> {
    let number = end.chain.number;
    let counted = number <= image.durable_number.get();
    let unreadable = |error| failed("reading the journal in", dir, error);
    let mut later = false;
    for file in files {
        let from = match &current {
            Some(current) if current.number == file.number => end.position,
            _ => 0,
        };
        // Of the other files the first group tells: a later one there begins a file.
        let scanned = if from > 0 || current.as_ref().is_some_and(|current| current.number == file.number) {
            walker.any_later(file, from, number).map_err(unreadable)?
        } else {
            file.first.is_some_and(|first| first.number > number)
                && walker.any_later(file, 0, number).map_err(unreadable)?
        };
        later |= scanned;
    }
    let place = match &current {
        Some(file) => format!("{} at {}", prewrite::file_name(file.number), end.position),
        None => "no file".to_owned(),
    };
    match judge(found, counted, later) {
        Verdict::End => Ok(end),
        Verdict::Torn => {
            end.torn = Some(place);
            Ok(end)
        }
        Verdict::Damage => {
            let why = if later { "a later group is there" } else { "the checkpoint counts it as durable" };
            let what =
                format!("{}: group {number} ({place}) is missing or changed, but {why}", dir.display());
            Err(LaneError::Damaged { what })
        }
        Verdict::ReadError => Err(unreadable(IoError::Os(5))),
        Verdict::NewerVersion => {
            Err(LaneError::NewerVersion { what: format!("{}: {place}", dir.display()), version: VERSION + 1 })
        }
    }
}

fn make_journal(
    disk: &mut Disk<'_>,
    dir: &Path,
    options: &LaneOptions,
    image: &ImageHeader,
    end: &ReplayEnd,
    found: &[FoundFile],
) -> Result<Journal, LaneError> {
    let mut journal = Journal::new(image.log_id, u64::from(options.group_bytes_max));
    journal.group_next = end.chain.number;
    journal.group_durable = end.chain.number - 1;
    journal.previous_checksum = end.chain.previous_checksum;
    journal.item_next = end.item_next;
    journal.item_durable = end.item_next;
    journal.position = end.position;
    // No group, not even a torn one, was ever written under a larger number.
    let largest = found.iter().filter_map(|file| file.first).map(|first| first.incarnation).max();
    let known = end.chain.incarnation.max(image.incarnation.get()).max(largest.unwrap_or(0));
    journal.incarnation = known + 1;
    for file in &end.used {
        let first = file.first.expect("a replayed file begins with a group");
        journal.used.push_back(JournalFile {
            number: file.number,
            file: file.file,
            bytes: file.bytes,
            incarnation: first.incarnation,
            group_first: first.number,
            previous_checksum: first.previous_checksum,
            dirty_count: 0,
            logs: Vec::new(),
        });
    }
    let file_bytes = options.journal_bytes / u64::from(options.journal_files_count);
    let file_bytes = file_bytes - file_bytes % 4096;
    let small = FIRST_FILE_BYTES_MAX.min(file_bytes);
    for file in found {
        let in_use = end.used.iter().any(|used| used.number == file.number);
        let wanted = if file.number == 0 { small } else { file_bytes };
        if !in_use && file.ready && file.bytes >= wanted {
            journal.free.push_back(FreeFile { number: file.number, file: file.file, bytes: file.bytes });
        } else if !in_use {
            disk.ring.close(file.file);
        }
    }
    if journal.used.is_empty() && journal.free.is_empty() {
        journal.free.push_back(make_file(disk, dir, (0, small), image.log_id)?);
    }
    Ok(journal)
}

fn make_file(
    disk: &mut Disk<'_>,
    dir: &Path,
    (number, bytes): (u32, u64),
    log_id: [u8; 16],
) -> Result<FreeFile, LaneError> {
    let path: PathBuf = dir.join("journal").join(prewrite::file_name(number));
    let fail = |error| failed("preparing", &path, error);
    let file = disk.create(&path)?;
    disk.write_zeros(file, bytes).map_err(fail)?;
    disk.flush_dir(&dir.join("journal"))?;
    let stamp = prewrite::stamp_block(log_id);
    disk.write(file, 0, stamp, BLOCK_BYTES, WriteMode::Durable).1.map_err(fail)?;
    Ok(FreeFile { number, file, bytes })
}

fn assemble(
    options: LaneOptions,
    dir: PathBuf,
    mut journal: Journal,
    redo: Redo,
    image: &FoundImage,
) -> Lane {
    for partition in redo.partitions.iter() {
        for mark in &partition.marks {
            let file = journal.file_mut(mark.incarnation).expect("marks name files that were replayed");
            file.dirty_count += 1;
            file.logs.push(partition.number);
        }
    }
    Lane {
        lane_dir: dir,
        journal,
        partitions: redo.partitions,
        pool: redo.pool,
        files: Files::new(options.files_open_max),
        jobs: Jobs::new(options.owner),
        staging: Staging::default(),
        checkpoint: Checkpoint::new(image),
        cycle: Cycle::default(),
        reads: Reads::new(options.reads_max),
        segment_next: redo.segment_next,
        log_next: redo.log_next,
        debts_count: 0,
        fenced: None,
        events: Vec::new(),
        now: MonotonicNs(0),
        room_wanted: None,
        stats: LaneStats::default(),
        options,
    }
}
