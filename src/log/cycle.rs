//! Cycle: housekeeping. What to materialise, when to checkpoint, which journal file to recycle.
//!
//! Owns:     the queues of work and the one recycling cycle.
//! Promises: recycling a file happens in this order: all its bytes are in their segments, these are
//!           flushed, new directory entries too (`materialise`); an image that reflects all of that is
//!           durable (`checkpoint`); only then the file is free. Strictly oldest first.
//! Never:    does more per call than a few submissions; touches a file itself.
//! Called by the shard between turns, and by `clean_stop`.

use std::collections::VecDeque;

use super::jobs::Job;
use super::lane::Lane;
use super::mutation::{self, Mutation};
use super::options::LogId;
use super::place::Place;
use crate::base::ids::{MonotonicNs, WallMs};
use crate::base::slab::Key;
use crate::ring::Ring;

/// Candidates looked at per call.
const STEPS_MAX: usize = 16;
/// A group that nothing follows for so long is proven by an empty one behind it: from then on a
/// flipped bit in it is damage, and no longer looks like a torn write.
const PROOF_MS: u64 = 1_000;
/// An append that nobody waits for waits so long for company in its commit group: what a crash may
/// take from a relaxed topic.
const COMPANY_MS: u64 = 5;

#[derive(Default)]
pub(super) struct Cycle {
    pub(super) phase: Phase,
    /// Partitions with enough bytes for an extent, oldest first.
    pub(super) candidates: VecDeque<LogId>,
    /// Dropped partitions, ended segments and moved log starts, with the entry to be durable first.
    pub(super) drops: VecDeque<(LogId, u64)>,
    pub(super) seals: VecDeque<(LogId, u64, u64)>,
    pub(super) unlinks: VecDeque<(LogId, u64)>,
    /// Partitions with files that are no part of their log.
    pub(super) leftovers: VecDeque<LogId>,
    /// Jobs that wait for an image entry.
    pub(super) parked: Vec<(Key, u64)>,
    /// No space or no descriptors until then.
    pub(super) paused_until: Option<MonotonicNs>,
    pub(super) waits: Waits,
    /// The newest group is an empty one.
    pub(super) proven: bool,
    pub(super) last_group: MonotonicNs,
    pub(super) idle_since: MonotonicNs,
}

/// Appends that wait for a group without anybody waiting for them.
#[derive(Default)]
pub(super) struct Waits {
    /// When the oldest of them came, and the item number of the newest.
    open: Option<(MonotonicNs, u64)>,
}

impl Waits {
    pub(super) fn note(&mut self, item: u64, now: MonotonicNs) {
        let since = self.open.map_or(now, |(since, _)| since);
        self.open = Some((since, item));
    }

    /// A group has taken the items below `item_end`; the others wait from now on.
    pub(super) fn taken(&mut self, item_end: u64, now: MonotonicNs) {
        self.open = self.open.filter(|(_, item)| *item >= item_end).map(|(_, item)| (now, item));
    }

    fn since(&self) -> Option<MonotonicNs> {
        self.open.map(|(since, _)| since)
    }
}

#[derive(Default, Debug)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// Bytes of the oldest journal file are being brought to their segments: these partitions'.
    Forcing { incarnation: u64, logs: Vec<LogId> },
    /// An image is being written.
    Imaging,
}

impl Lane {
    /// One bounded step of background work. Returns true when more could be done right away; false
    /// when everything waits for a completion, for new bytes, or for time.
    pub fn housekeep(&mut self, ring: &mut Ring, now: MonotonicNs, _wall: WallMs) -> bool {
        self.set_now(now);
        if self.fenced.is_some() {
            return false;
        }
        self.resume_parked(ring);
        self.jobs.retry_unopened(ring);
        self.prewrite_start(ring);
        self.start_drops(ring);
        self.start_unlinks(ring);
        self.start_leftovers(ring);
        self.clean_poll(ring);
        self.prove_idle(ring);
        self.scrub_step(ring);
        self.shrink_step(ring);
        if self.cycle.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        self.cycle.paused_until = None;
        self.start_seals(ring);
        let more = self.cycle_step(ring);
        self.relieve_pool(ring);
        self.start_candidates(ring);
        more && self.fenced.is_none()
    }

    /// When the next call has something to do by time alone.
    pub fn wake_at(&self) -> Option<MonotonicNs> {
        let proof = self.wants_proof().then(|| self.cycle.last_group.plus_ms(PROOF_MS));
        let company =
            self.cycle.waits.since().filter(|_| self.takes_groups()).map(|since| since.plus_ms(COMPANY_MS));
        let (retry, shrink) = (self.jobs.retry_at, self.shrinks.wake_at());
        let times = [proof, company, self.cycle.paused_until, retry, self.scrub_at(), shrink];
        times.into_iter().flatten().min()
    }

    pub(super) fn resume_parked(&mut self, ring: &mut Ring) {
        let durable = self.journal.item_durable;
        let mut index = 0;
        while let Some((key, item)) = self.cycle.parked.get(index).copied() {
            if item < durable {
                self.cycle.parked.swap_remove(index);
                self.materialise_resume(ring, key);
            } else {
                index += 1;
            }
        }
    }

    /// A group may begin: none is in flight.
    fn takes_groups(&self) -> bool {
        self.fenced.is_none() && !self.journal.is_in_flight()
    }

    /// Something waits for a group and needn't wait longer.
    pub(super) fn is_group_due(&self) -> bool {
        let waited = |since| self.now.ms_since(since) >= COMPANY_MS || self.room_wanted.is_some();
        let company =
            self.cycle.waits.since().is_some_and(|since| waited(since) || self.journal.is_group_large());
        self.takes_groups() && (self.journal.is_urgent() || company)
    }

    fn prove_idle(&mut self, ring: &mut Ring) {
        let quiet = self.now.ms_since(self.cycle.last_group) >= PROOF_MS;
        if quiet && self.wants_proof() {
            self.group_start(ring, true);
        }
    }

    fn wants_proof(&self) -> bool {
        let unproven = !self.cycle.proven || !self.journal.is_empty();
        unproven && self.fenced.is_none() && self.has_journal_room(0)
    }

    fn start_candidates(&mut self, ring: &mut Ring) {
        for _ in 0..STEPS_MAX {
            if !self.materialises_more() {
                return;
            }
            let Some(log) = self.cycle.candidates.pop_front() else { return };
            if let Some(partition) = self.partitions.get_mut(log) {
                partition.candidate = false;
                self.materialise_start(ring, log, None, false);
            }
        }
    }

    /// The oldest blocks must go before the pool is full: what they hold is written first.
    fn relieve_pool(&mut self, ring: &mut Ring) {
        self.forget_stale_blocks();
        if self.pool.used_bytes() * 2 < self.pool.limit_bytes() {
            return;
        }
        for index in 0..STEPS_MAX {
            let Some((log, number)) = self.pool.nth_oldest(index) else { return };
            let Some(partition) = self.partitions.get(log) else { continue };
            let block = partition.tail.oldest().filter(|(oldest, _)| *oldest == number);
            // A block further behind, or one that is gone.
            let Some((_, end)) = block else { continue };
            if partition.ends.written < end {
                self.materialise_start(ring, log, Some(end), false);
            }
        }
    }

    /// Blocks of dropped partitions and of bytes cut leave their place in the order behind.
    fn forget_stale_blocks(&mut self) {
        for _ in 0..STEPS_MAX {
            let Some((log, number)) = self.pool.oldest() else { return };
            let block = self.partitions.get(log).and_then(|partition| partition.tail.oldest());
            if block.is_some_and(|(oldest, _)| oldest <= number) {
                return;
            }
            self.pool.forget_oldest();
        }
    }

    // ---- Recycling ---------------------------------------------------------------------------

    fn is_recycling_due(&self) -> bool {
        let half_full = self.journal.used_bytes() * 2 > self.journal.capacity_bytes();
        self.journal.used.len() > 1 && (half_full || self.refuses() || self.journal.free.is_empty())
    }

    /// An append was refused: without recycling it would be refused for ever.
    fn refuses(&self) -> bool {
        self.room_wanted.is_some_and(|bytes| !self.has_journal_room(self.journal_room_wanted(bytes)))
    }

    fn cycle_step(&mut self, ring: &mut Ring) -> bool {
        match &mut self.cycle.phase {
            Phase::Idle => {
                // The only file in use can be recycled, too, once another one follows it.
                if self.journal.used.len() == 1 && self.refuses() {
                    self.journal.end_file();
                }
                if self.is_recycling_due() {
                    self.begin_forcing();
                    return true;
                }
                false
            }
            Phase::Forcing { .. } => self.force_step(ring),
            Phase::Imaging => self.image_step(ring),
        }
    }

    fn begin_forcing(&mut self) {
        if self.options.control == super::options::Control::RecycleBeforeFlush {
            self.image_begin_unchecked();
            return;
        }
        let oldest = self.journal.used.front_mut().expect("recycling is due");
        let mut logs = std::mem::take(&mut oldest.logs);
        logs.sort_unstable();
        logs.dedup();
        self.cycle.phase = Phase::Forcing { incarnation: oldest.incarnation, logs };
    }

    fn force_step(&mut self, ring: &mut Ring) -> bool {
        let Phase::Forcing { incarnation, mut logs } = std::mem::take(&mut self.cycle.phase) else {
            panic!("only called while forcing");
        };
        let mut steps_left = STEPS_MAX;
        logs.retain(|log| {
            if steps_left == 0 {
                return true;
            }
            steps_left -= 1;
            let Some(target) = self.target_in(*log, incarnation) else { return false };
            self.materialise_start(ring, *log, Some(target), true);
            true
        });
        // Those not looked at come first next time.
        if !logs.is_empty() {
            let looked_at = STEPS_MAX.min(logs.len());
            logs.rotate_left(looked_at);
            self.cycle.phase = Phase::Forcing { incarnation, logs };
            return false;
        }
        let clean = self.journal.file_mut(incarnation).is_none_or(|file| file.dirty_count == 0);
        assert!(clean, "every partition with bytes in the file was forced");
        self.image_begin();
        true
    }

    /// Up to where a partition must be written so that the file isn't needed for it.
    fn target_in(&self, log: LogId, incarnation: u64) -> Option<Place> {
        let partition = self.partitions.get(log)?;
        let mark = partition.marks.iter().find(|mark| mark.incarnation == incarnation)?;
        let ends = &partition.ends;
        // The file may hold a piece of a batch only: the whole batch must go.
        let cut = ends.written >= mark.end && ends.batch_written.0 < mark.end;
        Some(if cut { ends.durable } else { mark.end })
    }

    // ---- Work with files ---------------------------------------------------------------------

    fn start_drops(&mut self, ring: &mut Ring) {
        for _ in 0..self.cycle.drops.len().min(STEPS_MAX) {
            let (log, item) = self.cycle.drops.pop_front().expect("counted");
            let hurries = mutation::is(Mutation::DropBeforeDurable);
            if (item >= self.journal.item_durable && !hurries) || !self.drop_start(ring, log) {
                self.cycle.drops.push_back((log, item));
            }
        }
    }

    fn start_seals(&mut self, ring: &mut Ring) {
        for _ in 0..self.cycle.seals.len().min(STEPS_MAX) {
            let (log, segment, item) = self.cycle.seals.pop_front().expect("counted");
            if item >= self.journal.item_durable || !self.seal_start(ring, log, segment) {
                self.cycle.seals.push_back((log, segment, item));
            }
        }
    }

    fn start_unlinks(&mut self, ring: &mut Ring) {
        for _ in 0..self.cycle.unlinks.len().min(STEPS_MAX) {
            let (log, item) = self.cycle.unlinks.pop_front().expect("counted");
            let hurries = mutation::is(Mutation::UnlinkBeforeDurable);
            if (item >= self.journal.item_durable && !hurries) || !self.unlink_start(ring, log) {
                self.cycle.unlinks.push_back((log, item));
            }
        }
    }

    fn start_leftovers(&mut self, ring: &mut Ring) {
        for _ in 0..self.cycle.leftovers.len().min(STEPS_MAX) {
            let log = self.cycle.leftovers.pop_front().expect("counted");
            if !self.leftovers_start(ring, log) {
                self.cycle.leftovers.push_back(log);
            }
        }
    }

    /// Nothing is in flight, and no append or entry that matters waits for a group.
    pub fn is_idle(&self) -> bool {
        let waits = self.journal.is_urgent() || self.cycle.waits.since().is_some();
        self.jobs.is_empty() && !waits && !self.journal.is_in_flight()
    }

    pub(super) fn put_new(&mut self, key: Key, job: Option<Job>) {
        self.jobs.put(key, job);
    }
}
