//! Groups: starts commit groups and makes their effects true when they are durable.

use super::jobs::{Done, GroupWrite, Job};
use super::journal::{Effect, Journal};
use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::LaneEvent;
use super::partition_log::Mark;
use crate::base::ids::MonotonicNs;
use crate::ring::{Ring, WriteMode};

/// This share of the tail pool and of the journal is free when room is announced: each time it comes,
/// connections stop and go on reading, and what is refused is copied.
const ROOM_SHARE: usize = 8;

impl Lane {
    /// Starts a commit group when none is in flight and entries wait, and the reads that wait.
    pub fn turn(&mut self, ring: &mut Ring, now: MonotonicNs) {
        self.set_now(now);
        if self.is_group_due() {
            self.group_start(ring, false);
        }
        self.reads_start(ring);
    }

    /// Submits the next group; an empty one when `mark` is set and nothing waits.
    pub(super) fn group_start(&mut self, ring: &mut Ring, mark: bool) {
        let Some(built) = self.journal.build(&self.partitions, mark) else { return };
        for effect in &built.effects {
            self.mark_file(effect, built.incarnation);
        }
        self.cycle.waits.taken(built.item_end, self.now);
        self.stats.groups_count += 1;
        self.stats.group_bytes += built.bytes as u64;
        self.cycle.proven = built.is_mark;
        self.cycle.last_group = self.now;
        let group = GroupWrite { item_end: built.item_end, effects: built.effects, submitted: self.now };
        if self.options.control == super::options::Control::AcknowledgeBeforeFlush {
            self.apply_effects(&group.effects);
        }
        let key = self.jobs.reserve();
        let token = self.jobs.token(key);
        ring.write(token, built.file, built.position, built.buffer, 0..built.bytes, WriteMode::Durable);
        self.jobs.put(key, Some(Job::Group(group)));
    }

    /// The file holds bytes of the partition up to the effect's end.
    fn mark_file(&mut self, effect: &Effect, incarnation: u64) {
        let Some(partition) = self.partitions.get_mut(effect.log) else { return };
        match partition.marks.back_mut() {
            Some(mark) if mark.incarnation == incarnation => mark.end = effect.end,
            _ => {
                partition.marks.push_back(Mark { incarnation, end: effect.end });
                let file = self.journal.file_mut(incarnation).expect("the group was built in a used file");
                file.dirty_count += 1;
                file.logs.push(effect.log);
            }
        }
    }

    pub(super) fn group_done(&mut self, group: GroupWrite, done: Done) {
        if let Err(error) = done.outcome()
            && !mutation::is(Mutation::IgnoreFailedGroup)
        {
            self.fence(format!("write of the journal of lane {} failed: {error}", self.options.lane.0));
            return;
        }
        if self.fenced.is_some() {
            // Another write failed meanwhile: nothing more is acknowledged.
            return;
        }
        self.stats.note_flush(self.now.0.saturating_sub(group.submitted.0));
        self.apply_effects(&group.effects);
        self.cycle.idle_since = self.now;
        self.journal.group_durable(done.into_buffer(), group.effects, group.item_end);
    }

    fn apply_effects(&mut self, effects: &[Effect]) {
        let extent_bytes = self.extent_bytes();
        for effect in effects {
            let Some(end_offset) = effect.end_offset else { continue };
            let Some(partition) = self.partitions.get_mut(effect.log) else { continue };
            assert!(partition.ends.durable <= effect.end, "groups become durable in order");
            assert!(partition.durable_end <= end_offset && end_offset <= partition.log_end);
            partition.ends.durable = effect.end;
            partition.durable_end = end_offset;
            let written = partition.ends.written;
            let large = written.segment != effect.end.segment
                || effect.end.position - written.position >= extent_bytes;
            if large && !std::mem::replace(&mut partition.candidate, true) {
                self.cycle.candidates.push_back(effect.log);
            }
            self.events.push(LaneEvent::Durable { log: effect.log, durable_end: end_offset });
        }
    }

    /// The room in the journal that is waited for after `bytes` were refused; never more than
    /// recycling surely makes.
    pub(super) fn journal_room_wanted(&self, bytes: u64) -> u64 {
        let share = self.journal.capacity_bytes() / ROOM_SHARE as u64;
        bytes.max(share.min(Journal::room_bytes_recycled(&self.options) / 2))
    }

    /// Tells, once, that what was refused as busy has room again.
    pub(super) fn note_room(&mut self) {
        let Some(bytes) = self.room_wanted else { return };
        if self.fenced.is_some() || !self.has_journal_room(self.journal_room_wanted(bytes)) {
            return;
        }
        let pool_bytes = (bytes as usize).max(self.pool.limit_bytes() / ROOM_SHARE);
        if self.make_room(pool_bytes) {
            self.room_wanted = None;
            self.events.push(LaneEvent::Room);
        }
    }
}
