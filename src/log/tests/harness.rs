//! Harness: a lane on a simulated machine, and a model of what it must hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::base::ids::{
    LaneId, LeaderEpoch, MonotonicNs, Offset, PartitionId, TopicId, TopicPartition, WallMs,
};
use crate::base::random::Random;
use crate::log::testing::Batch;
use crate::log::{
    AppendError, Awaited, CleanState, Lane, LaneError, LaneEvent, LaneOptions, LogId, PartitionSettings,
    Plan, PlanStart, ProducerTable, ReadError, RecoveryReport, Resolved, Sequence, Sink, prepare_dir,
};
use crate::protocol::record_batch::BatchHeader;
use crate::ring::sim::World;
use crate::ring::{Ring, Sleep};

pub const OWNER: u8 = 7;

pub fn id(number: u8) -> TopicPartition {
    TopicPartition { topic_id: TopicId([number; 16]), partition: PartitionId(i32::from(number)) }
}

pub fn small_options() -> LaneOptions {
    LaneOptions {
        journal_bytes: 256 << 10,
        journal_files_count: 4,
        group_bytes_max: 16 << 10,
        tail_pool_bytes: 128 << 10,
        files_open_max: 8,
        reads_max: 2,
        freed_bytes_max: 4 << 10,
        ..LaneOptions::new(PathBuf::from("/data"), LaneId(0), OWNER)
    }
}

pub fn settings(segment_bytes_max: u64) -> PartitionSettings {
    PartitionSettings { segment_bytes_max, segment_ms_max: u64::MAX }
}

/// How many places lie between two that a test of damage changes: `CORELANE_DAMAGE_STEP`, if it is there.
pub fn every(default: u64) -> u64 {
    std::env::var("CORELANE_DAMAGE_STEP").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

pub fn flip(world: &World, file: &Path, bit: u64) {
    world.corrupt(file, bit / 8, 1 << (bit % 8));
}

/// A batch as it must be found again.
#[derive(Clone)]
pub struct Stored {
    pub base_offset: i64,
    pub end_offset: i64,
    pub bytes: Vec<u8>,
    /// Of its entry; 0 once a recovery found it.
    pub sequence: Sequence,
    /// What a cleaning supersedes it by.
    pub key: u64,
    /// A cleaning took it away: which one, and from which sequence on for good.
    pub gone: Option<(u64, Sequence)>,
}

/// A cleaning in progress.
pub struct ModelClean {
    pub log: LogId,
    pub number: u64,
    /// Id of the last segment that is replaced.
    pub last: u64,
    /// Base offsets of the batches taken away.
    pub removed: Vec<i64>,
    /// Bytes that stay and weren't handed over yet, batch by batch.
    pub kept: VecDeque<Vec<u8>>,
    pub first_dirty: i64,
    pub finished: bool,
}

#[derive(Clone)]
pub struct ModelPartition {
    pub id: TopicPartition,
    pub log: LogId,
    pub created: Sequence,
    pub batches: Vec<Stored>,
    pub acked_end: i64,
    pub log_start_wanted: i64,
    pub log_start_acked: i64,
    pub log_start_sequence: Sequence,
    pub dropped: Option<Sequence>,
    pub next_sequence: i32,
    /// A recovery found records missing, and the loss was accepted.
    pub lost: bool,
}

impl ModelPartition {
    pub fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.end_offset)
    }

    pub fn producers(&self) -> ProducerTable {
        let mut table = ProducerTable::default();
        for batch in &self.batches {
            table.note(BatchHeader::view(&batch.bytes).expect("a whole batch"), 0);
        }
        table
    }
}

pub struct Harness {
    pub world: World,
    pub ring: Ring,
    pub lane: Lane,
    pub options: LaneOptions,
    pub partitions: Vec<ModelPartition>,
    pub events: Vec<LaneEvent>,
    pub epoch: i32,
    /// The last durable sequence that was seen before the crash.
    pub durable: Sequence,
    pub reads_count: u64,
    /// The last plan was read for a socket: each other one is.
    pub to_socket: bool,
    /// A read found the power gone.
    pub cut: bool,
    /// Bytes on disk were changed: a read may find that, and how often one did.
    pub expects_damage: bool,
    pub damage_count: u64,
    pub clean: Option<ModelClean>,
    cleans_count: u64,
}

pub fn recover(world: &World, options: &LaneOptions) -> Result<(Ring, Lane, RecoveryReport), LaneError> {
    let mut ring = Ring::simulated(world);
    prepare_dir(&mut ring, &options.dir, OWNER)?;
    let (lane, report) = Lane::recover(&mut ring, options.clone())?;
    Ok((ring, lane, report))
}

impl Harness {
    pub fn new(seed: u64, options: LaneOptions) -> Self {
        let world = World::new(seed);
        world.make_dirs(&PathBuf::from("/"));
        let (ring, lane, _) = recover(&world, &options).expect("a new lane is made");
        Self {
            world,
            ring,
            lane,
            options,
            partitions: Vec::new(),
            events: Vec::new(),
            epoch: 0,
            durable: Sequence(0),
            reads_count: 0,
            to_socket: false,
            cut: false,
            expects_damage: false,
            damage_count: 0,
            clean: None,
            cleans_count: 0,
        }
    }

    /// The same model on a copy of the disk, on which nothing runs yet but what a recovery starts.
    pub fn recovered_copy(
        &self,
        world: World,
        change: impl FnOnce(&World),
    ) -> Result<(Self, RecoveryReport), LaneError> {
        change(&world);
        let (ring, lane, report) = recover(&world, &self.options)?;
        let harness = Self {
            world,
            ring,
            lane,
            options: self.options.clone(),
            partitions: self.partitions.clone(),
            events: Vec::new(),
            clean: None,
            ..*self
        };
        Ok((harness, report))
    }

    pub fn wall(&self) -> WallMs {
        WallMs(1_700_000_000_000)
    }

    pub fn create(&mut self, id: TopicPartition, segment_bytes_max: u64) -> usize {
        self.try_create(id, segment_bytes_max).expect("there is room")
    }

    pub fn try_create(&mut self, id: TopicPartition, segment_bytes_max: u64) -> Result<usize, AppendError> {
        let wall = self.wall();
        let (log, created) = self.lane.create_partition(id, 1, settings(segment_bytes_max), wall)?;
        self.partitions.push(ModelPartition {
            id,
            log,
            created,
            batches: Vec::new(),
            acked_end: 0,
            log_start_wanted: 0,
            log_start_acked: 0,
            log_start_sequence: Sequence(0),
            dropped: None,
            next_sequence: 0,
            lost: false,
        });
        Ok(self.partitions.len() - 1)
    }

    pub fn append(
        &mut self,
        index: usize,
        random: &mut Random,
        bytes_max: u64,
    ) -> Result<Sequence, AppendError> {
        let partition = &mut self.partitions[index];
        let count = 1 + random.below(4) as i32;
        let base_offset = partition.end();
        let mut batch = Batch::new(0, count)
            .sized(random.below(bytes_max) as usize)
            .at_time(1_000 + base_offset + random.below(50) as i64);
        if random.chance(1, 2) {
            batch = batch.produced_by(random.below(3) as i64, 0, partition.next_sequence);
            partition.next_sequence += count;
        }
        let bytes = batch.to_bytes();
        let (epoch, wall) = (LeaderEpoch(self.epoch), WallMs(1_700_000_000_000));
        let awaited = if random.chance(1, 4) { Awaited::No } else { Awaited::Yes };
        let sequence = self.lane.append(partition.log, &bytes, Offset(base_offset), epoch, wall, awaited)?;
        let patched = Batch { base_offset, leader_epoch: self.epoch, ..batch }.to_bytes();
        let end_offset = base_offset + i64::from(count);
        let key = random.below(4);
        let stored = Stored { base_offset, end_offset, bytes: patched, sequence, key, gone: None };
        partition.batches.push(stored);
        Ok(sequence)
    }

    /// One turn of the shard: completions, then what follows from them.
    pub fn turn(&mut self, sleep: Sleep) {
        self.ring.turn(sleep);
        while let Some(completion) = self.ring.next() {
            self.lane.complete(&mut self.ring, completion, &mut self.events);
        }
        let now = self.ring.now();
        if self.lane.fenced().is_none() {
            self.durable = self.lane.durable();
        }
        self.lane.turn(&mut self.ring, now);
        self.note_events();
    }

    pub fn turn_within_ms(&mut self) {
        let end = MonotonicNs(self.ring.now().0 + 1_000_000);
        self.turn(Sleep::Until(end));
    }

    pub fn housekeep(&mut self) -> bool {
        let now = self.ring.now();
        let wall = self.wall();
        self.lane.housekeep(&mut self.ring, now, wall)
    }

    fn note_events(&mut self) {
        for event in &self.events {
            if let LaneEvent::Durable { log, durable_end } = event {
                let found = self.partitions.iter_mut().find(|partition| partition.log == *log);
                let partition = found.expect("events name known partitions");
                assert!(durable_end.0 >= partition.acked_end, "durable ends only grow");
                partition.acked_end = durable_end.0;
            }
        }
        self.note_clean();
        self.events.retain(|event| {
            // The scrub tells of reads that fail, too: the power may be gone.
            let told = matches!(event, LaneEvent::Damage { .. }) && !self.expects_damage;
            let noted =
                matches!(event, LaneEvent::Durable { .. } | LaneEvent::Room | LaneEvent::Dropped { .. });
            !told && !noted
        });
    }

    /// A cleaning that has ended took its batches away, or was given up.
    fn note_clean(&mut self) {
        if self.lane.clean_state() != CleanState::None {
            return;
        }
        let Some(clean) = self.clean.take() else { return };
        let found = self.partitions.iter_mut().find(|partition| partition.log == clean.log);
        let Some(partition) = found.filter(|model| self.lane.find(model.id) == Some(model.log)) else {
            return;
        };
        if self.lane.segments(clean.log).any(|segment| segment.id == clean.last) {
            return;
        }
        let sequence = Sequence(self.lane.journal.item_next);
        for batch in &mut partition.batches {
            if clean.removed.contains(&batch.base_offset) {
                batch.gone = Some((clean.number, sequence));
            }
        }
    }

    /// Turns until nothing is left to do, or the lane is fenced.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let more = self.housekeep();
            // Asked before the turn: what it completes may be followed by more work.
            if self.lane.fenced().is_some() || (self.lane.is_idle() && !more) {
                return;
            }
            self.turn_within_ms();
        }
        panic!("the lane doesn't come to rest");
    }

    // ---- Cleaning ----------------------------------------------------------------------------

    /// Begins to clean a run of sealed segments, where there is one.
    pub fn clean_begin(&mut self, index: usize, random: &mut Random) -> bool {
        let log = self.partitions[index].log;
        self.lane.settle_rolled(&mut self.ring, log, u64::MAX);
        let sealed: Vec<_> = self.lane.segments(log).filter(|segment| segment.sealed).collect();
        if sealed.is_empty() || self.clean.is_some() {
            return false;
        }
        let first = random.below(sealed.len() as u64) as usize;
        let last = (first + random.below(3) as usize).min(sealed.len() - 1);
        self.clean_run(index, sealed[first].id, sealed[last].id)
    }

    /// Batches go that a later durable one has the key of.
    pub fn clean_run(&mut self, index: usize, first: u64, last: u64) -> bool {
        let model = &self.partitions[index];
        let log = model.log;
        let run: Vec<_> =
            self.lane.segments(log).filter(|segment| (first..=last).contains(&segment.id)).collect();
        let (from, to) = (run[0].base_offset.0, run[run.len() - 1].end_offset.0);
        let mut newest = BTreeMap::new();
        for batch in model.batches.iter().filter(|batch| batch.end_offset <= model.acked_end) {
            newest.insert(batch.key, batch.base_offset);
        }
        let here =
            |batch: &&Stored| batch.base_offset >= from && batch.end_offset <= to && batch.gone.is_none();
        let stays =
            |batch: &&Stored| newest.get(&batch.key).is_none_or(|newest| *newest <= batch.base_offset);
        let batches: Vec<&Stored> = model.batches.iter().filter(here).collect();
        let clean = ModelClean {
            log,
            number: self.cleans_count + 1,
            last,
            removed: batches.iter().filter(|batch| !stays(batch)).map(|batch| batch.base_offset).collect(),
            kept: batches.iter().filter(|batch| stays(batch)).map(|batch| batch.bytes.clone()).collect(),
            first_dirty: to,
            finished: false,
        };
        if !self.lane.clean_begin(log, first, last) {
            return false;
        }
        self.cleans_count += 1;
        self.clean = Some(clean);
        true
    }

    /// Hands over what the lane takes now.
    pub fn clean_some(&mut self) {
        while self.lane.clean_state() == CleanState::Takes
            && let Some(clean) = self.clean.as_mut().filter(|clean| !clean.finished)
        {
            match clean.kept.pop_front() {
                Some(bytes) => self.lane.clean_write(&mut self.ring, &bytes),
                None => {
                    clean.finished = true;
                    self.lane.clean_finish(&mut self.ring, Offset(clean.first_dirty));
                }
            }
        }
    }

    /// Cleans to the end, or until the lane is fenced.
    pub fn clean_through(&mut self) {
        for _ in 0..10_000 {
            if self.clean.is_none() || self.cut || self.lane.fenced().is_some() {
                return;
            }
            self.clean_some();
            self.housekeep();
            self.turn_within_ms();
        }
        let lane = &self.lane;
        panic!(
            "the cleaning doesn't end: {:?}, {:?}, {:?}",
            lane.clean_state(),
            lane.cycle.phase,
            lane.stats()
        );
    }

    /// Which of the batches that a cleaning took, perhaps, were there after a crash: all or none.
    fn settle_cleans(&mut self, index: usize, durable_before: Sequence) {
        let found: BTreeSet<i64> = self.base_offsets(index).into_iter().collect();
        let untold = self.cut || self.lane.fenced().is_some();
        let begun = self.clean.take_if(|clean| clean.log == self.partitions[index].log);
        let model = &mut self.partitions[index];
        let mut outcomes: BTreeMap<u64, BTreeSet<bool>> = BTreeMap::new();
        for batch in &mut model.batches {
            let is_begun = begun.as_ref().filter(|begun| begun.removed.contains(&batch.base_offset));
            if let Some(begun) = is_begun {
                batch.gone = Some((begun.number, Sequence(u64::MAX)));
            }
            let Some((number, sequence)) = batch.gone else { continue };
            if batch.end_offset <= model.log_start_wanted || sequence <= durable_before {
                batch.gone = Some((number, Sequence(0)));
                continue;
            }
            if untold {
                // The disk gave no answer: the next recovery tells.
                batch.gone = Some((number, Sequence(u64::MAX)));
                continue;
            }
            let is_there = found.contains(&batch.base_offset);
            outcomes.entry(number).or_default().insert(is_there);
            batch.gone = (!is_there).then_some((number, Sequence(0)));
        }
        assert!(outcomes.values().all(|seen| seen.len() == 1), "{}: old or new, not both", model.id);
    }

    /// Base offsets of all batches that are found.
    fn base_offsets(&mut self, index: usize) -> Vec<i64> {
        let (log, end) = (self.partitions[index].log, self.partitions[index].end());
        let mut from = self.partitions[index].log_start_wanted;
        let mut found = Vec::new();
        while from < end
            && let Some(mut plan) = self.plan(log, from, end, u64::MAX)
        {
            let bytes = self.read(&mut plan, 8 << 10);
            self.lane.release(plan);
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return found };
            let mut rest = &bytes[..];
            while let Some(header) = BatchHeader::view(rest) {
                // As a client, which asks again for what isn't all there; what is cut wasn't checked.
                let Some(size) = header.size_bytes().filter(|size| *size <= rest.len()) else { break };
                found.push(header.base_offset().0);
                from = header.last_offset().0 + 1;
                rest = &rest[size..];
            }
        }
        found
    }

    // ---- Reads -------------------------------------------------------------------------------

    fn wait_event<T>(
        &mut self,
        mut wanted: impl FnMut(&LaneEvent) -> bool,
        take: impl FnOnce(LaneEvent) -> T,
    ) -> Option<T> {
        for _ in 0..10_000 {
            if let Some(index) = self.events.iter().position(&mut wanted) {
                let event = self.events.remove(index);
                return Some(take(event));
            }
            if self.cut || self.lane.fenced().is_some() {
                return None;
            }
            self.turn_within_ms();
        }
        panic!("a read doesn't end");
    }

    /// A ready plan. None: nothing there, or fenced meanwhile.
    pub fn plan(&mut self, log: LogId, from: i64, upto: i64, bytes_max: u64) -> Option<Plan> {
        self.reads_count += 1;
        let read = self.reads_count;
        match self.lane.plan(log, Offset(from), Offset(upto), bytes_max, true, read) {
            PlanStart::Ready(plan) => Some(plan),
            PlanStart::Pending => self.planned(read),
            PlanStart::Empty => None,
            other => panic!("plan {from}..{upto} of {log:?}: {other:?}"),
        }
    }

    pub fn planned(&mut self, read: u64) -> Option<Plan> {
        let planned = self.wait_event(
            |event| matches!(event, LaneEvent::Planned { read: found, .. } if *found == read),
            |event| match event {
                LaneEvent::Planned { plan, .. } => plan,
                _ => unreachable!("matched"),
            },
        )?;
        self.unless_cut(planned)
    }

    /// A read fails with EIO once the power is gone, and for no other reason.
    fn unless_cut<T>(&mut self, result: Result<T, ReadError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(ReadError::Io(_)) => {
                self.cut = true;
                None
            }
            Err(ReadError::Damaged(_)) if self.expects_damage => {
                self.damage_count += 1;
                self.cut = true;
                None
            }
            Err(ReadError::Damaged(what)) => panic!("nothing is damaged, but {what}"),
        }
    }

    /// All bytes of a plan; None when fenced meanwhile.
    pub fn read(&mut self, plan: &mut Plan, window_bytes: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.to_socket = !self.to_socket;
        let sink = if self.to_socket { Sink::Socket } else { Sink::Memory };
        loop {
            self.reads_count += 1;
            let read = self.reads_count;
            match self.lane.resolve(plan, window_bytes, sink, &mut out, read) {
                Resolved::Finished => return Some(out),
                Resolved::File(piece) => {
                    let Some(bytes) = self.world.read_piece(&piece) else {
                        assert!(self.world.ends_count() > 0, "only a power cut takes a file that is sent");
                        self.cut = true;
                        return None;
                    };
                    out.extend_from_slice(&bytes);
                }
                Resolved::Copied(bytes) => assert!(bytes > 0),
                Resolved::Pending => {
                    let window = self.wait_event(
                        |event| matches!(event, LaneEvent::Window { read: found, .. } if *found == read),
                        |event| match event {
                            LaneEvent::Window { window, .. } => window,
                            _ => unreachable!("matched"),
                        },
                    )?;
                    let window = self.unless_cut(window)?;
                    assert!(!window.range.is_empty());
                    out.extend_from_slice(&window.buffer[window.range.clone()]);
                    plan.advance_window(&window);
                    self.lane.give_back(window.buffer);
                }
            }
        }
    }

    /// Looks an offset up, and compares where its batch begins.
    pub fn check_lookup(&mut self, index: usize, offset: i64) {
        let model = self.partitions[index].clone();
        let Some(mut plan) = self.plan(model.log, offset, model.end(), 1) else { return };
        let kept = model.batches.iter().find(|batch| batch.end_offset > offset && batch.gone.is_none());
        let (found, expected) = (plan.base_offset.0, kept.expect("an empty plan isn't one").base_offset);
        if self.expects_damage && found != expected {
            // A plan looks at headers only: what it found is checked when it's read.
            let read = self.read(&mut plan, 8 << 10);
            assert!(
                read.is_none(),
                "the batch that contains {offset}: {found} instead of {expected}, and it's read"
            );
        } else {
            assert_eq!(found, expected, "the batch that contains {offset}");
        }
        self.lane.release(plan);
    }

    /// Nothing has told yet whether a cleaning took it away: what could tell is damaged.
    fn is_open(&self, batch: &Stored) -> bool {
        self.expects_damage && batch.gone.is_some_and(|(_, sequence)| sequence == Sequence(u64::MAX))
    }

    /// Reads a partition from `from` to its end in pieces, and compares.
    pub fn check_bytes(&mut self, index: usize, from: i64, bytes_max: u64) {
        let (mut from, end) = (from, self.partitions[index].end());
        while from < end {
            let before = self.partitions[index].clone();
            let first = before.batches.partition_point(|batch| batch.end_offset <= from);
            let plan = self.plan(before.log, from, end, bytes_max);
            // What a cleaning took away meanwhile may be in the plan or not.
            let after = &self.partitions[index].batches[first..];
            let left: Vec<(Stored, bool)> = before.batches[first..]
                .iter()
                .zip(after)
                .filter(|(batch, _)| batch.gone.is_none() || self.is_open(batch))
                .map(|(batch, after)| (batch.clone(), after.gone.is_some()))
                .collect();
            let is_left = left.iter().any(|(_, optional)| !optional);
            let Some(mut plan) = plan.filter(|plan| plan.bytes() > 0) else {
                let excused = !is_left || self.cut || self.lane.fenced().is_some();
                assert!(excused, "{from} of {end} is readable");
                return;
            };
            let planned = plan.bytes();
            let base_offset = plan.base_offset.0;
            let bytes = self.read(&mut plan, 8 << 10);
            self.lane.release(plan);
            let Some(bytes) = bytes else { return };
            assert_eq!(bytes.len() as u64, planned);
            let mut rest = &bytes[..];
            let mut is_first = true;
            for (batch, optional) in left {
                let step = batch.bytes.len().min(rest.len());
                if optional && rest[..step] != batch.bytes[..step] {
                    continue;
                }
                if std::mem::take(&mut is_first) {
                    assert_eq!(base_offset, batch.base_offset, "the first batch from {from} on");
                }
                // A client throws a batch away that isn't all there, and asks for it again: nobody checked it.
                let size = BatchHeader::view(rest).and_then(|header| header.size_bytes());
                let cut = rest.len() < batch.bytes.len() || size.is_none_or(|size| size > rest.len());
                if self.expects_damage && cut && rest.len() < bytes.len() {
                    rest = &[];
                    break;
                }
                assert!(rest[..step] == batch.bytes[..step], "batch at {}", batch.base_offset);
                rest = &rest[step..];
                if step < batch.bytes.len() {
                    break;
                }
                from = batch.end_offset;
            }
            assert!(rest.is_empty(), "no bytes behind the log end");
        }
    }

    // ---- After a crash -----------------------------------------------------------------------

    /// No more is expected to be durable than what came before `proven`.
    pub fn expect_no_more_than(&mut self, proven: Sequence) {
        self.durable = self.durable.min(proven);
        for model in &mut self.partitions {
            let kept = model.batches.iter().rev().find(|batch| batch.sequence <= proven);
            model.acked_end = model.acked_end.min(kept.map_or(0, |batch| batch.end_offset));
        }
    }

    /// Accepts the loss of damaged partitions, and expects no more of them than they have.
    pub fn accept_losses(&mut self) -> usize {
        let mut count = 0;
        let durable_before = self.durable;
        for model in &mut self.partitions {
            let alive = self.lane.partitions().any(|(log, _)| log == model.log);
            if !alive || !self.lane.is_damaged(model.log) {
                continue;
            }
            count += 1;
            self.lane.accept_loss(&mut self.ring, model.log).expect("there is room");
            let end = self.lane.log_end(model.log).0;
            assert!(end <= model.end(), "{}: not more than was appended", model.id);
            model.lost = true;
            model.batches.retain(|batch| batch.base_offset < end);
            model.acked_end = model.end();
            // The entries that moved the log start or dropped it may be among those lost.
            model.log_start_wanted = model.log_start_wanted.min(end);
            model.log_start_acked = 0;
            model.log_start_sequence = Sequence(durable_before.0 + 1);
            model.dropped = None;
            // And those that ended a cleaning.
            for (_, sequence) in model.batches.iter_mut().filter_map(|batch| batch.gone.as_mut()) {
                *sequence = Sequence(u64::MAX);
            }
        }
        count
    }

    /// Compares what was recovered with what was acknowledged, and takes over what else survived.
    pub fn check_recovered(&mut self) {
        let alive: Vec<_> = self.lane.partitions().collect();
        for (log, found) in &alive {
            let known = self.partitions.iter().any(|model| model.log == *log && model.id == *found);
            assert!(known, "{found} with number {} was never created", log.0);
        }
        let durable_before = self.durable;
        let lane = &self.lane;
        for model in std::mem::take(&mut self.partitions) {
            let mut model = model;
            let is_there = alive.iter().any(|(log, _)| *log == model.log);
            let dropped = model.dropped.is_some_and(|sequence| sequence <= durable_before);
            assert!(!(is_there && dropped), "{}: dropped, and there again", model.id);
            if !is_there {
                let excused = model.dropped.is_some() || model.created > durable_before;
                assert!(excused, "{}: created durably, and gone", model.id);
                assert!(model.dropped.is_some() || model.acked_end == 0, "{}: acked and gone", model.id);
                continue;
            }
            model.dropped = None;
            let end = lane.log_end(model.log).0;
            assert!(end >= model.acked_end, "{}: acked up to {}, found {end}", model.id, model.acked_end);
            assert_eq!(lane.durable_end(model.log).0, end);
            assert!(end <= model.end());
            model.batches.retain(|batch| batch.base_offset < end);
            assert_eq!(model.end(), end, "{}: ends between batches", model.id);
            model.acked_end = end;
            let start = lane.log_start(model.log).0;
            if model.log_start_sequence <= durable_before {
                model.log_start_acked = model.log_start_wanted.min(end);
            }
            assert!(start >= model.log_start_acked, "{}: the log start moved back", model.id);
            // The entry that moved it may have been out of sight before.
            assert!(model.lost || start <= model.log_start_wanted.min(end));
            model.log_start_wanted = start;
            model.log_start_acked = start;
            if !model.lost {
                let (found, expected) = (lane.producers(model.log), model.producers());
                assert!(found.is_as(&expected), "{}: producers {found:?}, not {expected:?}", model.id);
            }
            self.partitions.push(model);
        }
        // What was recovered stays, where the disk is honest. Where it lies, the group that proved it may be
        // overwritten yet; numbers go on from the recovered ones.
        let settled = if self.expects_damage { &mut [][..] } else { &mut self.partitions[..] };
        for model in settled {
            model.created = Sequence(0);
            model.log_start_sequence = Sequence(0);
            model.batches.iter_mut().for_each(|batch| batch.sequence = Sequence(0));
        }
        self.durable = self.lane.durable();
        // Of a partition that is gone with it.
        let alive = |clean: &ModelClean| self.partitions.iter().any(|model| model.log == clean.log);
        self.clean = self.clean.take().filter(alive);
        for index in 0..self.partitions.len() {
            self.settle_cleans(index, durable_before);
            self.cut &= !self.expects_damage;
            let start = self.partitions[index].log_start_wanted;
            self.check_bytes(index, start, 64 << 10);
            self.cut &= !self.expects_damage;
        }
    }
}
