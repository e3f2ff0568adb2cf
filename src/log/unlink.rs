//! Unlink: removes the files of deleted segments, of leftovers of cleanings, and of partitions.
//!
//! Order: entry durable -> no plan leases them -> files removed -> directory flushed -> forgotten, so
//! that the next image doesn't name them. A crash in between repeats all of it. Large files are held open
//! meanwhile, and freed later (`shrink`).

use std::collections::VecDeque;
use std::path::PathBuf;

use super::jobs::{Done, Job};
use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::{LaneEvent, LogId};
use super::segment::{Segment, partitions_dir};
use crate::base::slab::Key;
use crate::ring::{FileId, IoError, OpenMode, Ring};

pub(super) struct Unlink {
    log: LogId,
    removes: Removes,
    /// With the bytes of each.
    files: VecDeque<(PathBuf, u64)>,
    /// Large ones, open.
    large: Vec<(FileId, u64)>,
    step: Step,
}

#[derive(PartialEq, Eq)]
enum Removes {
    /// So many of the oldest segments.
    Segments(usize),
    /// Leftovers, by their ids.
    Leftovers(Vec<u64>),
    Partition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A large one is opened first.
    Remove,
    RemoveDir,
    FlushDir,
}

/// Of those queued: one that makes room is enough.
const UNLINKS_LOOKED_AT: usize = 16;

impl Lane {
    /// Begins to remove a dropped partition. False while a job or a plan uses it.
    pub(super) fn drop_start(&mut self, ring: &mut Ring, log: LogId) -> bool {
        let Some(partition) = self.partitions.get(log) else { return true };
        let mut all = partition.segments.iter().chain(&partition.leftovers);
        if partition.cleaning.is_some() {
            self.clean_cancel();
            return false;
        }
        if partition.busy || all.any(|segment| segment.leases > 0) {
            return false;
        }
        self.unlink_begin(ring, log, Removes::Partition);
        true
    }

    /// Removed segments are giving their space back, or will without waiting for anybody.
    pub fn is_freeing(&self) -> bool {
        let is_ready = |first: &Segment| first.dropping && first.sealed && first.leases == 0;
        let first = |(log, _): &(LogId, u64)| self.partitions.get(*log)?.segments.front();
        let mut queued = self.cycle.unlinks.iter().take(UNLINKS_LOOKED_AT).filter_map(first);
        self.shrinks.held_count > 0 || queued.any(is_ready)
    }

    /// Begins to remove the segments below the log start. True when nothing is left to do.
    pub(super) fn unlink_start(&mut self, ring: &mut Ring, log: LogId) -> bool {
        let Some(partition) = self.partitions.get(log) else { return true };
        if partition.dropping.is_some() || partition.segments.front().is_none_or(|first| !first.dropping) {
            return true;
        }
        // Unsealed ones are sealed first: their bytes may be in memory or on their way.
        let hurries = mutation::is(Mutation::UnlinkBeforeDurable);
        let durable = if hurries { u64::MAX } else { self.journal.item_durable };
        let is_ready = |segment: &&Segment| {
            segment.dropping && segment.dropping_after <= durable && segment.sealed && segment.leases == 0
        };
        let ready = partition.segments.iter().take_while(is_ready).count();
        if partition.busy || ready == 0 {
            let waits = partition.segments[0].sealed && partition.segments[0].dropping_after > durable;
            if waits {
                self.journal.make_urgent();
            }
            return false;
        }
        self.unlink_begin(ring, log, Removes::Segments(ready));
        false
    }

    /// Begins to remove what is no part of the log. True when nothing is left to do.
    pub(super) fn leftovers_start(&mut self, ring: &mut Ring, log: LogId) -> bool {
        let Some(partition) = self.partitions.get(log) else { return true };
        let durable = self.journal.item_durable;
        // A cleaning that ends comes here again.
        let idle = |leftover: &&Segment| partition.cleaning != Some(leftover.id);
        let is_ready = |leftover: &&Segment| leftover.dropping_after <= durable && leftover.leases == 0;
        let mut left = partition.leftovers.iter().filter(idle);
        if partition.dropping.is_some() || left.clone().next().is_none() {
            return true;
        }
        let ids: Vec<u64> = left.clone().filter(is_ready).map(|leftover| leftover.id).collect();
        if partition.busy || ids.is_empty() {
            if left.any(|leftover| leftover.dropping_after > durable) {
                self.journal.make_urgent();
            }
            return false;
        }
        self.unlink_begin(ring, log, Removes::Leftovers(ids));
        false
    }

    fn unlink_begin(&mut self, ring: &mut Ring, log: LogId, removes: Removes) {
        let partition = self.partitions.get_mut(log).expect("the caller looked it up");
        partition.busy = true;
        let mut files = VecDeque::new();
        let removed: Vec<&Segment> = match &removes {
            Removes::Segments(count) => partition.segments.iter().take(*count).collect(),
            Removes::Leftovers(ids) => {
                partition.leftovers.iter().filter(|leftover| ids.contains(&leftover.id)).collect()
            }
            Removes::Partition => partition.segments.iter().chain(&partition.leftovers).collect(),
        };
        for segment in removed {
            files.push_back((segment.log_path(&partition.dir), segment.bytes));
            files.push_back((segment.index_path(&partition.dir), 0));
            self.files.close(ring, segment.id);
            self.cached_files.close(ring, segment.id);
        }
        let key = self.jobs.reserve();
        let mut job = Unlink { log, removes, files, large: Vec::new(), step: Step::Remove };
        self.unlink_next(ring, key, &mut job);
        self.put_new(key, Some(Job::Unlink(job)));
    }

    /// The next file, or what comes once all are removed.
    fn unlink_next(&mut self, ring: &mut Ring, key: Key, job: &mut Unlink) {
        if let Some((path, bytes)) = job.files.front() {
            let is_large = *bytes > self.options.freed_bytes_max;
            if is_large && self.shrinks.take_place() {
                ring.open(self.jobs.token(key), path, OpenMode::Write);
            } else {
                ring.remove_file(self.jobs.token(key), path);
            }
            return;
        }
        let dir = self.partition(job.log).dir.clone();
        if job.removes == Removes::Partition {
            job.step = Step::RemoveDir;
            ring.remove_dir(self.jobs.token(key), &dir);
        } else {
            job.step = Step::FlushDir;
            self.jobs.flush_dir(ring, key, &dir);
        }
    }

    pub(super) fn unlink_done(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Unlink,
        done: Done,
    ) -> Option<Unlink> {
        if self.fenced.is_some() {
            if let Done::Opened(Ok(file)) = done {
                ring.close(file);
            }
            job.large.into_iter().for_each(|(file, _)| ring.close(file));
            return None;
        }
        if let Done::Opened(opened) = done {
            let (path, bytes) = job.files.front().expect("it was opened");
            match opened {
                Ok(file) => job.large.push((file, *bytes)),
                // It is just removed.
                Err(_) => self.shrinks.give_place(),
            }
            ring.remove_file(self.jobs.token(key), path);
            return Some(job);
        }
        // What is gone already is of a run before this one. A directory with strange files in it
        // stays: nothing depends on its absence.
        if let Err(error) = done.outcome().or_else(|error| match error {
            IoError::NotFound => Ok(()),
            _ if job.step == Step::RemoveDir => Ok(()),
            error => Err(error),
        }) {
            let dir = self.partition(job.log).dir.display().to_string();
            self.fence(format!("removing files of {dir} failed: {error}"));
            job.large.into_iter().for_each(|(file, _)| ring.close(file));
            return None;
        }
        match job.step {
            Step::Remove => {
                job.files.pop_front();
                self.unlink_next(ring, key, &mut job);
            }
            Step::RemoveDir => {
                job.step = Step::FlushDir;
                let parent = partitions_dir(&self.lane_dir);
                self.jobs.flush_dir(ring, key, &parent);
            }
            Step::FlushDir => {
                self.unlink_end(&job);
                self.shrinks.add(job.large);
                return None;
            }
        }
        Some(job)
    }

    fn unlink_end(&mut self, job: &Unlink) {
        if let Removes::Leftovers(ids) = &job.removes {
            let partition = self.partitions.get_mut(job.log).expect("a busy partition stays");
            partition.leftovers.retain(|leftover| !ids.contains(&leftover.id));
            partition.busy = false;
            return;
        }
        if let Removes::Segments(count) = job.removes {
            self.stats.segments_deleted_count += count as u64;
            // All of a sealed segment is flushed: where its end is the end of everything written, that
            // moves on to the segment that stays.
            while self.written_segment_index(job.log).is_some_and(|index| index < count) {
                self.enter_next_segment(job.log);
            }
            let partition = self.partitions.get_mut(job.log).expect("a busy partition stays");
            partition.segments.drain(..count);
            partition.busy = false;
            return;
        }
        let segments_count = self.partition(job.log).segments.len();
        self.stats.segments_deleted_count += segments_count as u64;
        self.clear_debt(job.log);
        let mut partition = self.partitions.remove(job.log).expect("a busy partition stays");
        partition.tail.clear(&mut self.pool);
        self.damaged_count -= u64::from(partition.damage.is_some());
        for mark in partition.marks.drain(..) {
            if let Some(file) = self.journal.file_mut(mark.incarnation) {
                file.dirty_count -= 1;
            }
        }
        self.events.push(LaneEvent::Dropped { log: job.log });
    }

    fn written_segment_index(&self, log: LogId) -> Option<usize> {
        let partition = self.partition(log);
        partition.segment_index(partition.ends.written.segment)
    }
}
