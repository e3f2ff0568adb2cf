//! Unlink: removes the files of deleted segments and partitions.
//!
//! Order: entry durable -> no plan leases them -> files removed -> directory flushed -> forgotten, so
//! that the next image doesn't name them. A crash in between repeats all of it.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::jobs::{Done, Job};
use super::lane::Lane;
use super::options::{LaneEvent, LogId};
use super::segment::{Segment, partitions_dir};
use crate::base::slab::Key;
use crate::ring::{IoError, Ring};

pub(super) struct Unlink {
    log: LogId,
    /// The whole partition goes.
    drops: bool,
    files: VecDeque<PathBuf>,
    segments_count: usize,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Remove,
    RemoveDir,
    FlushDir,
}

impl Lane {
    /// Begins to remove a dropped partition. False while a job or a plan uses it.
    pub(super) fn drop_start(&mut self, ring: &mut Ring, log: LogId) -> bool {
        let Some(partition) = self.partitions.get(log) else { return true };
        let leased = partition.segments.iter().any(|segment| segment.leases > 0);
        if partition.busy || leased {
            return false;
        }
        let count = partition.segments.len();
        self.unlink_begin(ring, log, count, true);
        true
    }

    /// Begins to remove the segments below the log start. True when nothing is left to do.
    pub(super) fn unlink_start(&mut self, ring: &mut Ring, log: LogId) -> bool {
        let Some(partition) = self.partitions.get(log) else { return true };
        if partition.dropping.is_some() || partition.segments.front().is_none_or(|first| !first.dropping) {
            return true;
        }
        // Unsealed ones are sealed first: their bytes may be in memory or on their way.
        let durable = self.journal.item_durable;
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
        self.unlink_begin(ring, log, ready, false);
        false
    }

    fn unlink_begin(&mut self, ring: &mut Ring, log: LogId, segments_count: usize, drops: bool) {
        let partition = self.partitions.get_mut(log).expect("the caller looked it up");
        partition.busy = true;
        let mut files = VecDeque::new();
        for segment in partition.segments.iter().take(segments_count) {
            files.push_back(segment.log_path(&partition.dir));
            files.push_back(segment.index_path(&partition.dir));
            self.files.close(ring, segment.id);
        }
        let key = self.jobs.reserve();
        let path = files.front().expect("a segment at least").clone();
        ring.remove_file(self.jobs.token(key), &path);
        let job = Unlink { log, drops, files, segments_count, step: Step::Remove };
        self.put_new(key, Some(Job::Unlink(job)));
    }

    pub(super) fn unlink_done(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Unlink,
        done: Done,
    ) -> Option<Unlink> {
        if self.fenced.is_some() {
            return None;
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
            return None;
        }
        match job.step {
            Step::Remove => {
                job.files.pop_front();
                if let Some(path) = job.files.front() {
                    ring.remove_file(self.jobs.token(key), path);
                } else if job.drops {
                    job.step = Step::RemoveDir;
                    let dir = self.partition(job.log).dir.clone();
                    ring.remove_dir(self.jobs.token(key), &dir);
                } else {
                    job.step = Step::FlushDir;
                    let dir = self.partition(job.log).dir.clone();
                    self.jobs.flush_dir(ring, key, &dir);
                }
            }
            Step::RemoveDir => {
                job.step = Step::FlushDir;
                let parent = partitions_dir(&self.lane_dir);
                self.jobs.flush_dir(ring, key, &parent);
            }
            Step::FlushDir => {
                self.unlink_end(&job);
                return None;
            }
        }
        Some(job)
    }

    fn unlink_end(&mut self, job: &Unlink) {
        self.stats.segments_deleted_count += job.segments_count as u64;
        if !job.drops {
            // All of a sealed segment is flushed: where its end is the end of everything written, that
            // moves on to the segment that stays.
            while self.written_segment_index(job.log).is_some_and(|index| index < job.segments_count) {
                self.enter_next_segment(job.log);
            }
            let partition = self.partitions.get_mut(job.log).expect("a busy partition stays");
            partition.segments.drain(..job.segments_count);
            partition.busy = false;
            return;
        }
        self.clear_debt(job.log);
        let mut partition = self.partitions.remove(job.log).expect("a busy partition stays");
        partition.tail.clear(&mut self.pool);
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
