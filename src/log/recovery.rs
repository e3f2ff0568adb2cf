//! Recovery: from what a crash left to a lane that is served. The normal start.
//!
//! Order:    flush every file and directory that is read (a killed process leaves bytes that read back
//!           but aren't durable) -> newest intact image -> redo of the journal behind it -> a group of
//!           a new incarnation made durable -> blocks with an image written again -> served. Until
//!           that last group nothing on disk changes.
//! Promises: reads the image and the journal, never the segments: time is O(partitions + journal).
//! Never:    cuts anything that was durable (`verdict`); a lane that can't be replayed stays as it is.

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::cycle::Cycle;
use super::damage::mend_last_row;
use super::directory::lane_dir;
use super::disk::{Disk, failed};
use super::files::Files;
use super::format::{BLOCK_BYTES, EntryHeader, EntryKind, ImageHeader, blocks_up};
use super::image::{FoundImage, create_image, find_images, redo_of_image};
use super::jobs::Jobs;
use super::journal::{FreeFile, Journal, JournalFile};
use super::journal_chain::{ReplayEnd, find_files, replay};
use super::lane::Lane;
use super::materialise::Staging;
use super::mutation::{self, Mutation};
use super::options::{LaneError, LaneOptions, RecoveryReport};
use super::partition_log::PartitionLog;
use super::place::Place;
use super::prewrite;
use super::read::Reads;
use super::redo::{Finished, Redo};
use super::replay::FoundFile;
use super::scrub::Scrub;
use super::segment::partitions_dir;
use super::shrink::Shrinks;
use super::stats::LaneStats;
use crate::base::ids::MonotonicNs;
use crate::ring::{IoError, OpenMode, Ring, WriteMode};

/// One in so many descriptors is for reads through the page cache; such a file takes two.
const CACHED_FILES_SHARE: u32 = 4;
const DESCRIPTORS_EACH: u32 = 2;
/// The first start waits for one file of this size only.
const FIRST_FILE_BYTES_MAX: u64 = 4 << 20;

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
        let redone = redo_from(&mut disk, &dir, &options, newest, &files);
        // An image whose flush failed reads back like any other. Where no entry calls it durable,
        // nothing was written over what the older one needs, and that one is taken.
        let confirms = |redo: &Redo| {
            redo.image_durable >= newest.header.generation.get()
                || mutation::is(Mutation::TrustUnconfirmedImage)
        };
        let (image, (mut redo, end)) = match (redone, images.get(1)) {
            (Ok(redone), Some(older)) if !confirms(&redone.0) => {
                (older, redo_from(&mut disk, &dir, &options, older, &files)?)
            }
            // An earlier recovery went on from the older one, and found damage there.
            (Err(LaneError::Damaged { what }), Some(older)) => {
                let redone = redo_from(&mut disk, &dir, &options, older, &files).ok();
                let redone = redone.filter(|(redo, _)| !confirms(redo));
                (older, redone.ok_or(LaneError::Damaged { what })?)
            }
            (redone, _) => (newest, redone?),
        };
        let finished = redo.finish();
        report.clean = redo.clean;
        report.partitions_count = redo.partitions.len();
        report.groups_count = end.groups_count;
        report.journal_bytes = end.bytes;
        report.tail_bytes = redo.tail_bytes;
        report.torn_group = end.torn.clone();
        report.batches_cut_count = finished.cuts.len();
        for damage in &finished.damaged {
            mend_last_row(&mut disk, redo.partitions.get_mut(damage.log).expect("just found"), damage.end);
        }
        let journal = make_journal(&mut disk, &dir, &options, &image.header, end, &files)?;
        let opened = disk.ring.now();
        let mut lane = assemble(options, dir, journal, redo, image, opened);
        lane.plan_missing_files(&files);
        lane.finish_recovery(ring, &finished)?;
        lane.clear_unfinished_dirs(ring)?;
        report.damaged = lane.damaged(&finished.damaged);
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

    fn finish_recovery(&mut self, ring: &mut Ring, finished: &Finished) -> Result<(), LaneError> {
        self.restore_queues();
        let incarnation = self.journal.incarnation;
        self.journal.push_entry(EntryHeader::new(EntryKind::Recovered, 0, 0, incarnation), &[]);
        for (log, place) in &finished.cuts {
            let header = EntryHeader::new(EntryKind::Cut, log.0, place.segment, place.position);
            self.journal.push_entry(header, &[]);
        }
        for damage in &finished.damaged {
            self.push_damage(damage);
        }
        self.make_room_for_last_group(ring)?;
        self.wait_until_durable(ring)?;
        self.repair_blocks(ring)?;
        self.events.clear();
        Ok(())
    }

    /// Everything queued so far is durable then.
    pub(super) fn wait_until_durable(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        let item = self.journal.item_next;
        while self.journal.item_durable < item {
            let now = ring.now();
            self.turn(ring, now);
            if !self.jobs.is_any_in_flight() {
                let what = format!(
                    "the journal of lane {} has no room for the group that ends its recovery; enlarge it",
                    self.options.lane.0
                );
                return Err(LaneError::Options { what });
            }
            self.wait_for_job(ring)?;
        }
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
        if let Some(completion) = self.jobs.wait(ring) {
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
        let rest =
            self.journal.used.back().map_or(0, |file| file.bytes.saturating_sub(self.journal.position));
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
            // Of a damaged partition every file stays: it may be of use.
            if !partition.leftovers.is_empty() && partition.damage.is_none() {
                self.cycle.leftovers.push_back(log);
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

/// Redo of everything behind an image.
fn redo_from(
    disk: &mut Disk<'_>,
    dir: &Path,
    options: &LaneOptions,
    image: &FoundImage,
    files: &[FoundFile],
) -> Result<(Redo, ReplayEnd), LaneError> {
    let mut redo = redo_of_image(image, options)?;
    redo.wall_ms = disk.ring.wall_now().0;
    let end = replay(disk, dir, image, files, u64::from(options.group_bytes_max), &mut redo)?;
    Ok((redo, end))
}

fn make_journal(
    disk: &mut Disk<'_>,
    dir: &Path,
    options: &LaneOptions,
    image: &ImageHeader,
    end: ReplayEnd,
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
    journal.incarnation = known + u64::from(!mutation::is(Mutation::ReuseIncarnation));
    journal.touched = end.touched;
    let file_bytes = options.journal_bytes / u64::from(options.journal_files_count);
    let file_bytes = file_bytes - file_bytes % 4096;
    let small = FIRST_FILE_BYTES_MAX.min(file_bytes);
    let wanted = |number: u32| if number == 0 { small } else { file_bytes };
    for file in &end.used {
        let first = file.first.expect("a replayed file begins with a group");
        journal.used.push_back(JournalFile {
            number: file.number,
            file: file.file,
            // One that was cut may end within its last group.
            bytes: blocks_up(file.bytes),
            incarnation: first.incarnation,
            group_first: first.number,
            previous_checksum: first.previous_checksum,
            dirty_count: 0,
            logs: Vec::new(),
        });
    }
    for file in found {
        let in_use = end.used.iter().any(|used| used.number == file.number);
        if !in_use && file.ready && file.bytes >= wanted(file.number) {
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
    opened: MonotonicNs,
) -> Lane {
    let damaged_count = redo.partitions.iter().filter(|partition| partition.damage.is_some()).count() as u64;
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
        files: Files::new(options.files_open_max - options.files_open_max / CACHED_FILES_SHARE, false),
        cached_files: Files::new(options.files_open_max / CACHED_FILES_SHARE / DESCRIPTORS_EACH, true),
        jobs: Jobs::new(options.owner),
        staging: Staging::default(),
        checkpoint: Checkpoint::new(image),
        cycle: Cycle::default(),
        reads: Reads::new(options.reads_max),
        scrub: Scrub::default(),
        shrinks: Shrinks::default(),
        opened,
        clean: None,
        segment_next: redo.segment_next,
        log_next: redo.log_next,
        damaged_count,
        debts_count: 0,
        fenced: None,
        events: Vec::new(),
        now: MonotonicNs(0),
        room_wanted: None,
        stats: LaneStats::default(),
        options,
    }
}
