//! Compaction: keeps the last value of every key of the shard's compacted partitions.
//!
//! Owns:     the one partition being compacted, with the map of its keys, and how fast that may go.
//! Promises: one window of a segment per step of housekeeping; the dirtiest partition first; memory is the
//!           map, a window and what stays of it. A partition with a batch that can't be read is left alone
//!           from then on, as it is.
//!
//! As Kafka's log cleaner: the keys of the dirty part are read into the map; then all segments up to its end
//! are written anew, in groups, without the records that the map knows a later one for. What is compacted
//! and what stays is decided in `partition::compaction`; how segments are exchanged, in `log::clean`.

use std::collections::{BTreeSet, VecDeque};

use super::Core;
use super::storage::{PlanOwner, PlanState};
use super::timers::Timer;
use crate::base::ids::{MonotonicNs, Offset, TopicPartition, WallMs};
use crate::base::slab::Key;
use crate::log::{CleanState, LogId, ReadError, Resolved, Sink};
use crate::partition::compaction::{Cleanable, Group, KeyOffsets, cleanable, groups, is_roll_due};
use crate::partition::offset_map::{HashKey, OffsetMap};
use crate::partition::topic_config::TopicConfig;
use crate::protocol::batch_body::BodyError;
use crate::protocol::compression::Codecs;
use crate::protocol::record_batch::BatchHeader;
use crate::ring::Ring;

/// Partitions looked at in one step.
const STEP_PARTITIONS: usize = 32;
/// Bytes of a segment looked at in one step, or one larger batch.
const WINDOW_BYTES: usize = 252 << 10;
/// Producers were served if a commit group began within this time; compaction takes one part in so many of
/// the time then. A step takes up to a millisecond or so where batches are large.
const SERVED_MS: u64 = 10;
const SERVED_SHARE: u64 = 4;
/// How long segments may take to be sealed, or the log to take a cleaning, before it is given up.
const PATIENCE_MS: u64 = 30_000;

/// For the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionCounts {
    pub cleanings: u64,
    pub uncleanable: u64,
    pub max_dirty_percent: u64,
    pub map_bytes: u64,
}

pub struct Compaction {
    /// When the next look is due, if ever; a timer before it is of a time that was changed.
    next_look_at: MonotonicNs,
    hash_key: HashKey,
    look: Option<Look>,
    cleaning: Option<Cleaning>,
    uncleanable: BTreeSet<TopicPartition>,
    pace: Pace,
    codecs: Codecs,
    counts: CompactionCounts,
}

/// A look at every compacted partition.
#[derive(Default)]
struct Look {
    left: Vec<TopicPartition>,
    best: Option<(TopicPartition, Cleanable)>,
    dirty_ratio_max: f64,
}

struct Cleaning {
    target: TopicPartition,
    lane: usize,
    log: LogId,
    began: WallMs,
    /// The dirty part.
    dirty: Cleanable,
    keys: KeyOffsets,
    phase: Phase,
    /// Given up when the present phase doesn't begin until then.
    deadline: MonotonicNs,
    groups: VecDeque<Group>,
    /// Segments to be read in this phase.
    segments: VecDeque<u64>,
    reading: Option<Reading>,
    read_bytes: u64,
    kept_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The dirty segments are brought to their files.
    Settle,
    /// Their keys are read.
    Map,
    /// The next group is to begin.
    Begin,
    Copy(Group),
    /// Everything of the group was handed to the log.
    Finish(Group),
}

struct Reading {
    segment: u64,
    /// Of the next batch.
    position: u64,
    plan: Key,
    window: Window,
}

enum Window {
    None,
    Asked,
    Read(Result<Vec<u8>, ReadError>),
}

/// How a step went.
enum Step {
    /// The next one may follow.
    More,
    /// For something of the log.
    Waits,
    Done,
    /// Not now; at a later look, perhaps.
    GivenUp,
    /// Never again in this process.
    Uncleanable(String),
}

enum Next {
    Bytes(Vec<u8>),
    End,
    Step(Step),
}

/// `log.cleaner.io.max.bytes.per.second`, and the share of time beside producers.
#[derive(Default)]
struct Pace {
    ready_at: MonotonicNs,
    /// A step was refused until then.
    waits_until: Option<MonotonicNs>,
}

impl Pace {
    fn spend(&mut self, bytes: u64, per_second: f64, now: MonotonicNs) {
        let ns = bytes as f64 / per_second * 1e9;
        self.ready_at = MonotonicNs(self.ready_at.max(now).0.saturating_add(ns as u64));
    }

    /// A step went from `began` to `ended`: others have their share of the time now.
    fn rest(&mut self, began: MonotonicNs, ended: MonotonicNs) {
        let ns = ended.0.saturating_sub(began.0) * (SERVED_SHARE - 1);
        self.ready_at = self.ready_at.max(MonotonicNs(ended.0 + ns));
    }

    fn allows(&mut self, now: MonotonicNs) -> bool {
        self.waits_until = (self.ready_at > now).then_some(self.ready_at);
        self.waits_until.is_none()
    }
}

impl Compaction {
    pub fn new(hash_key: HashKey) -> Self {
        Self {
            next_look_at: MonotonicNs::default(),
            hash_key,
            look: None,
            cleaning: None,
            uncleanable: BTreeSet::new(),
            pace: Pace::default(),
            codecs: Codecs::default(),
            counts: CompactionCounts::default(),
        }
    }

    /// When a step has something to do by time alone.
    pub fn wake_at(&self) -> Option<MonotonicNs> {
        self.pace.waits_until.filter(|_| self.cleaning.is_some())
    }

    pub fn counts(&self) -> CompactionCounts {
        let map_bytes = self.cleaning.as_ref().map_or(0, |cleaning| cleaning.keys.size_bytes() as u64);
        CompactionCounts { uncleanable: self.uncleanable.len() as u64, map_bytes, ..self.counts }
    }

    /// The disk has read what was asked for.
    pub fn on_window(&mut self, window: Result<Vec<u8>, ReadError>) {
        let reading = self.cleaning.as_mut().and_then(|cleaning| cleaning.reading.as_mut());
        reading.expect("a plan that is given up has no windows").window = Window::Read(window);
    }
}

impl Core {
    /// A timer fired: looks, if that is due, and sees to the next look.
    pub fn on_compaction_timer(&mut self) {
        if self.now >= self.compaction.next_look_at {
            self.begin_compaction();
            self.await_look(self.next_look_at());
        }
    }

    pub fn await_first_look(&mut self) {
        self.await_look(self.next_look_at());
    }

    /// Settings may have changed: a look may be due sooner, and a speed of before holds nobody up.
    pub fn reconfigure_compaction(&mut self) {
        self.compaction.pace = Pace::default();
        let at = self.next_look_at();
        if at < self.compaction.next_look_at {
            self.await_look(at);
        }
    }

    fn next_look_at(&self) -> MonotonicNs {
        self.now.plus_ms(self.metadata.catalog.broker.config().cleaner_backoff_ms)
    }

    fn await_look(&mut self, at: MonotonicNs) {
        self.compaction.next_look_at = at;
        self.timers.add(at, Timer::Compaction);
    }

    /// Begins a look at every compacted partition, unless one is being compacted.
    pub fn begin_compaction(&mut self) {
        let compaction = &mut self.compaction;
        if compaction.cleaning.is_none() && compaction.look.is_none() {
            let left = self.storage.compacted_partitions();
            compaction.uncleanable.retain(|target| left.contains(target));
            compaction.look = Some(Look { left, ..Look::default() });
        }
    }

    /// One step; true while the next one may follow right away.
    pub fn step_compaction(&mut self, ring: &mut Ring) -> bool {
        if self.compaction.look.is_some() {
            return self.step_look();
        }
        let Some(mut cleaning) = self.compaction.cleaning.take() else { return false };
        if !self.compaction.pace.allows(self.now) {
            self.compaction.cleaning = Some(cleaning);
            return false;
        }
        let began = ring.clock();
        let step = match self.storage.partition(cleaning.target) {
            Some(partition) if partition.config.cleanup_compact => {
                let config = partition.config.clone();
                self.step_cleaning(ring, &mut cleaning, &config)
            }
            _ => Step::GivenUp,
        };
        if self.storage.lanes.iter().any(|lane| lane.is_committing(SERVED_MS)) {
            self.compaction.pace.rest(began, ring.clock());
        }
        match step {
            Step::More => self.compaction.cleaning = Some(cleaning),
            Step::Waits => {
                self.compaction.cleaning = Some(cleaning);
                return false;
            }
            Step::Done => {
                self.end_cleaning(cleaning, true);
                self.begin_compaction();
            }
            Step::GivenUp => self.end_cleaning(cleaning, false),
            Step::Uncleanable(what) => {
                let topic = self.storage.partition(cleaning.target).map(|found| found.topic_name.clone());
                let partition = cleaning.target.partition.0;
                tracing::error!(
                    topic = topic.as_deref(),
                    partition,
                    what,
                    "the partition isn't compacted any more; nothing of it was changed"
                );
                self.compaction.uncleanable.insert(cleaning.target);
                self.end_cleaning(cleaning, false);
                self.begin_compaction();
            }
        }
        true
    }

    // ---- Which one ---------------------------------------------------------------------------

    fn step_look(&mut self) -> bool {
        for _ in 0..STEP_PARTITIONS {
            let look = self.compaction.look.as_mut().expect("called while there is one");
            match look.left.pop() {
                Some(target) => self.look_at(target),
                None => {
                    self.choose();
                    return true;
                }
            }
        }
        true
    }

    fn look_at(&mut self, target: TopicPartition) {
        let Some(partition) = self.storage.partition(target) else { return };
        let (index, log) = (partition.lane, partition.log);
        let lane = &self.storage.lanes[index];
        let segments = lane.segments(log);
        let is_late =
            segments.clone().last().is_some_and(|last| is_roll_due(&last, &partition.config, self.wall));
        let (first_dirty, high_watermark) = (lane.first_dirty(log), partition.high_watermark());
        let found = cleanable(segments, &partition.config, first_dirty, high_watermark, self.wall);
        if is_late {
            self.storage.lanes[index].roll_active(log, self.wall);
        }
        let look = self.compaction.look.as_mut().expect("called while there is one");
        let Some(found) = found.filter(|_| !self.compaction.uncleanable.contains(&target)) else { return };
        look.dirty_ratio_max = look.dirty_ratio_max.max(found.dirty_ratio);
        let is_best = look.best.as_ref().is_none_or(|(_, best)| found.dirty_ratio > best.dirty_ratio);
        if found.is_due && is_best {
            look.best = Some((target, found));
        }
    }

    fn choose(&mut self) {
        let look = self.compaction.look.take().expect("called while there is one");
        self.compaction.counts.max_dirty_percent = (look.dirty_ratio_max * 100.0).round() as u64;
        let Some((target, dirty)) = look.best else { return };
        let Some(partition) = self.storage.partition(target) else { return };
        let bytes_max = self.metadata.catalog.broker.config().cleaner_map_bytes_max;
        let map = OffsetMap::new(bytes_max / self.mailbox.shards_count(), self.compaction.hash_key);
        self.compaction.cleaning = Some(Cleaning {
            target,
            lane: partition.lane,
            log: partition.log,
            began: self.wall,
            dirty,
            keys: KeyOffsets::new(map, dirty.first_dirty),
            phase: Phase::Settle,
            deadline: self.now.plus_ms(PATIENCE_MS),
            groups: VecDeque::new(),
            segments: VecDeque::new(),
            reading: None,
            read_bytes: 0,
            kept_bytes: 0,
        });
    }

    fn end_cleaning(&mut self, cleaning: Cleaning, is_done: bool) {
        if let Some(reading) = cleaning.reading {
            self.storage.release_plan(reading.plan);
        }
        self.storage.lanes[cleaning.lane].clean_cancel();
        if !is_done {
            return;
        }
        self.compaction.counts.cleanings += 1;
        let topic = self.storage.partition(cleaning.target).map(|found| found.topic_name.clone());
        tracing::info!(
            topic = topic.as_deref(),
            partition = cleaning.target.partition.0,
            from = cleaning.read_bytes,
            to = cleaning.kept_bytes,
            first_dirty = cleaning.keys.end().0,
            "compacted"
        );
    }

    // ---- One partition -----------------------------------------------------------------------

    fn step_cleaning(&mut self, ring: &mut Ring, cleaning: &mut Cleaning, config: &TopicConfig) -> Step {
        let log = cleaning.log;
        let lane = &mut self.storage.lanes[cleaning.lane];
        if lane.fenced().is_some() {
            return Step::GivenUp;
        }
        match cleaning.phase {
            Phase::Settle => {
                let dirty = cleaning.dirty;
                let is_dirty = |segment: &crate::log::SegmentInfo| {
                    segment.base_offset < dirty.end && segment.end_offset > dirty.first_dirty
                };
                let ids = lane.segments(log).filter(is_dirty).map(|segment| segment.id);
                cleaning.segments = ids.collect();
                let Some(last) = cleaning.segments.back().copied() else { return Step::GivenUp };
                if !lane.settle_rolled(ring, log, last) {
                    return self.waits(cleaning);
                }
                cleaning.phase = Phase::Map;
                Step::More
            }
            Phase::Map => match self.next_window(cleaning) {
                Next::Bytes(bytes) => self.map_window(cleaning, &bytes),
                Next::End => {
                    cleaning.keys.reach(cleaning.dirty.end);
                    self.begin_groups(cleaning, config)
                }
                Next::Step(step) => step,
            },
            Phase::Begin => {
                let Some(group) = cleaning.groups.front().copied() else { return Step::Done };
                // One that was given up may have an operation in flight still.
                if lane.clean_state() != CleanState::None || !lane.clean_begin(log, group.first, group.last) {
                    return self.waits(cleaning);
                }
                cleaning.groups.pop_front();
                let run = lane.segments(log).filter(|found| (group.first..=group.last).contains(&found.id));
                cleaning.segments = run.map(|segment| segment.id).collect();
                cleaning.phase = Phase::Copy(group);
                Step::More
            }
            Phase::Copy(group) => match lane.clean_state() {
                CleanState::None => Step::GivenUp,
                CleanState::Busy => Step::Waits,
                CleanState::Takes => match self.next_window(cleaning) {
                    Next::Bytes(bytes) => self.copy_window(ring, cleaning, config, &bytes),
                    Next::End => self.finish_group(ring, cleaning, group),
                    Next::Step(step) => step,
                },
            },
            Phase::Finish(group) => {
                if lane.clean_state() != CleanState::None {
                    return Step::Waits;
                }
                if lane.segments(log).any(|segment| segment.id == group.last) {
                    return Step::GivenUp;
                }
                cleaning.phase = Phase::Begin;
                cleaning.deadline = self.now.plus_ms(PATIENCE_MS);
                Step::More
            }
        }
    }

    fn waits(&self, cleaning: &Cleaning) -> Step {
        if self.now > cleaning.deadline { Step::GivenUp } else { Step::Waits }
    }

    /// The next whole batches of the segments to be read.
    fn next_window(&mut self, cleaning: &mut Cleaning) -> Next {
        loop {
            let Some(reading) = &mut cleaning.reading else {
                let Some(segment) = cleaning.segments.pop_front() else { return Next::End };
                let Some(plan) = self.storage.lanes[cleaning.lane].plan_segment(cleaning.log, segment) else {
                    return Next::Step(Step::GivenUp);
                };
                let held = self.storage.hold_plan(cleaning.lane, cleaning.log, PlanOwner::Compaction);
                self.storage.plans.get_mut(held).expect("just made").state = PlanState::Ready(plan);
                let window = Window::None;
                cleaning.reading = Some(Reading { segment, position: 0, plan: held, window });
                continue;
            };
            match std::mem::replace(&mut reading.window, Window::None) {
                Window::Asked => {
                    reading.window = Window::Asked;
                    return Next::Step(Step::Waits);
                }
                Window::Read(Ok(bytes)) => return Next::Bytes(bytes),
                Window::Read(Err(ReadError::Damaged(what))) => {
                    return Next::Step(Step::Uncleanable(what));
                }
                Window::Read(Err(error)) => {
                    tracing::warn!(%error, "compaction couldn't read; it is tried again");
                    return Next::Step(Step::GivenUp);
                }
                Window::None => {}
            }
            let mut bytes = Vec::new();
            match self.storage.resolve_plan(reading.plan, WINDOW_BYTES, Sink::Memory, &mut bytes) {
                Some(Resolved::Copied(_)) => return Next::Bytes(bytes),
                Some(Resolved::Pending) => {
                    reading.window = Window::Asked;
                    return Next::Step(Step::More);
                }
                Some(Resolved::Finished) => {
                    self.storage.release_plan(reading.plan);
                    cleaning.reading = None;
                }
                Some(Resolved::File(_)) => unreachable!("only a socket takes a piece of a file"),
                None => unreachable!("held until released"),
            }
        }
    }

    fn map_window(&mut self, cleaning: &mut Cleaning, bytes: &[u8]) -> Step {
        self.spend(bytes.len());
        for batch in batches(bytes) {
            match cleaning.keys.note(batch, &mut self.compaction.codecs) {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    // What is in the map is compacted now, the rest by the next cleaning.
                    cleaning.segments.clear();
                    if let Some(reading) = cleaning.reading.take() {
                        self.storage.release_plan(reading.plan);
                    }
                    let Some(partition) = self.storage.partition(cleaning.target) else {
                        return Step::GivenUp;
                    };
                    let config = partition.config.clone();
                    return self.begin_groups(cleaning, &config);
                }
                Err(error) => return self.unreadable(cleaning, error),
            }
            advance(cleaning, batch);
        }
        Step::More
    }

    fn begin_groups(&mut self, cleaning: &mut Cleaning, config: &TopicConfig) -> Step {
        let segments = self.storage.lanes[cleaning.lane].segments(cleaning.log);
        let bytes_max = u64::from(config.segment_bytes);
        cleaning.groups = groups(segments, cleaning.keys.end(), bytes_max).into();
        cleaning.phase = Phase::Begin;
        cleaning.deadline = self.now.plus_ms(PATIENCE_MS);
        Step::More
    }

    fn copy_window(
        &mut self,
        ring: &mut Ring,
        cleaning: &mut Cleaning,
        config: &TopicConfig,
        bytes: &[u8],
    ) -> Step {
        let mut kept = Vec::with_capacity(bytes.len());
        for batch in batches(bytes) {
            let header = BatchHeader::view(batch).expect("the log hands out whole batches");
            let is_newest = self.storage.lanes[cleaning.lane].producers(cleaning.log).is_newest(header);
            let codecs = &mut self.compaction.codecs;
            let filtered = cleaning.keys.filter(batch, config, is_newest, cleaning.began, codecs, &mut kept);
            if let Err(error) = filtered {
                return self.unreadable(cleaning, error);
            }
            advance(cleaning, batch);
        }
        self.spend(bytes.len() + kept.len());
        cleaning.read_bytes += bytes.len() as u64;
        cleaning.kept_bytes += kept.len() as u64;
        self.storage.lanes[cleaning.lane].clean_write(ring, &kept);
        Step::More
    }

    fn finish_group(&mut self, ring: &mut Ring, cleaning: &mut Cleaning, group: Group) -> Step {
        let lane = &mut self.storage.lanes[cleaning.lane];
        // Until the last group is exchanged the others have keys of before.
        let first_dirty: Offset = match cleaning.groups.is_empty() {
            true => cleaning.keys.end(),
            false => lane.first_dirty(cleaning.log),
        };
        lane.clean_finish(ring, first_dirty);
        cleaning.phase = Phase::Finish(group);
        Step::More
    }

    fn unreadable(&self, cleaning: &Cleaning, error: BodyError) -> Step {
        let reading = cleaning.reading.as_ref().expect("a batch was read");
        let lane = &self.storage.lanes[cleaning.lane];
        let path = lane.segment_path(cleaning.log, reading.segment).unwrap_or_default();
        Step::Uncleanable(format!("the batch at {} of {}: {error}", reading.position, path.display()))
    }

    fn spend(&mut self, bytes: usize) {
        let per_second = self.metadata.catalog.broker.config().cleaner_io_bytes_per_second;
        let per_second = per_second / self.mailbox.shards_count() as f64;
        self.compaction.pace.spend(bytes as u64, per_second, self.now);
    }
}

fn advance(cleaning: &mut Cleaning, batch: &[u8]) {
    let reading = cleaning.reading.as_mut().expect("a batch was read");
    reading.position += batch.len() as u64;
}

/// The batches of a window, which are whole.
fn batches(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let size = BatchHeader::view(rest)?.size_bytes().expect("the log hands out whole batches");
        let (batch, behind) = rest.split_at(size);
        rest = behind;
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_beside_producers_is_followed_by_three_times_as_long_for_them() {
        let mut pace = Pace::default();
        assert!(pace.allows(MonotonicNs(100)));
        pace.rest(MonotonicNs(100), MonotonicNs(150));
        assert!(!pace.allows(MonotonicNs(299)));
        assert_eq!(pace.waits_until, Some(MonotonicNs(300)));
        assert!(pace.allows(MonotonicNs(300)));
    }
}
