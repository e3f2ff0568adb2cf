//! Storage: the lanes a shard hosts and the partitions in them.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::command::AppendOptions;
use super::room::{Admission, Room};
use super::worker::{self, Chore, Job, WorkerHandle};
use crate::base::ids::{MonotonicNs, Offset, ShardId, TopicPartition, WallMs};
use crate::base::slab::{Key, Slab};
use crate::catalog::Catalog;
use crate::catalog::image::Fnv;
use crate::log::{
    AppendError, Awaited, Lane, LaneEvent, LogId, PartitionSettings, Plan, Resolved, Sink, Window,
};
use crate::metrics::directory::DirectoryState;
use crate::metrics::tally::{Tally, copied};
use crate::partition::Partition;
use crate::partition::append::{AppendRefusal, Verdict};
use crate::partition::topic_config::TimestampType;
use crate::partition::waiters::{AppendOutcome, ProduceWaiter, ReplyTo};
use crate::protocol::compression::{Codec, Codecs};
use crate::protocol::record_batch::{self, BatchHeader};
use crate::ring::{Completion, Ring};

/// Replicas of every partition, the leader included, until replication exists.
const REPLICAS_COUNT: u32 = 1;

/// Bytes that may wait behind batches with the worker before connections stop reading.
const REWRITING_BYTES_MAX: usize = 8 << 20;

/// Owner byte of the first lane's ring tokens; the shard's own sockets have 0.
const LANE_TOKEN_OWNER_FIRST: u8 = 1;

/// A batch that found no room in the journal; its connection doesn't read on until it has.
struct Stalled {
    target: TopicPartition,
    batch: Vec<u8>,
    options: AppendOptions,
    reply_to: ReplyTo,
    rewrite: Rewrite,
}

/// Whether a batch may have to go through the worker first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewrite {
    Wanted,
    Done,
}

/// A deliberate mistake, for tests that prove that their instrument sees it. Nothing but a test asks for
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Control {
    #[default]
    None,
    /// Answers a duplicate before its original is durable.
    AnswerDuplicateAtOnce,
    /// Lets consumers read what isn't durable.
    ServeBeforeDurable,
}

/// How an append went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    Done(Result<AppendOutcome, AppendRefusal>),
    /// The outcome follows through the waiters, or when there is room.
    Waiting,
}

/// Whom the events of a plan are for.
#[derive(Clone, Copy, Debug)]
pub enum PlanOwner {
    /// A part of a fetch, here or on another shard, and when it was asked for here.
    Fetch(ReplyTo, MonotonicNs),
    /// A scan of this shard.
    Scan(Key),
    /// This shard's compaction.
    Compaction,
}

/// How one try to append went.
enum Tried {
    Appended(Appended),
    /// The journal or the tail pool of the lane is full; nothing was written.
    NoRoom(usize),
}

/// A plan given out.
pub struct HeldPlan {
    pub lane: usize,
    pub log: LogId,
    pub owner: PlanOwner,
    pub state: PlanState,
}

/// Where a plan that is held stands.
pub enum PlanState {
    /// The disk is asked where it begins; nobody knows its id yet.
    Starting,
    Ready(Plan),
    /// A window of it is being read from disk.
    Reading(Plan),
    /// Released while a window was being read: its lease ends when that completes.
    Abandoned(Plan),
}

pub struct Storage {
    pub lanes: Vec<Lane>,
    slots: Vec<Option<Partition>>,
    by_id: HashMap<TopicPartition, u32, BuildHasherDefault<Fnv>>,
    by_log: HashMap<(usize, LogId), u32, BuildHasherDefault<Fnv>>,
    pub plans: Slab<HeldPlan>,
    /// By lane: a disk that hangs makes nobody of another one wait.
    stalled: Vec<VecDeque<Stalled>>,
    /// One per log directory with lanes here, and by lane which.
    rooms: Vec<Room>,
    room_of_lane: Vec<Option<usize>>,
    /// Partitions whose creation found no room in the journal.
    uncreated: Vec<TopicPartition>,
    pub events: Vec<(usize, LaneEvent)>,
    lane_events: Vec<LaneEvent>,
    /// By partition with a batch at the worker: that one in front, the others behind it.
    rewriting: HashMap<TopicPartition, VecDeque<Stalled>, BuildHasherDefault<Fnv>>,
    rewriting_bytes: usize,
    shard: ShardId,
    worker: WorkerHandle,
    /// None but in a test of tests.
    pub control: Control,
}

impl Storage {
    /// Owner byte of the ring tokens of the `index`th lane.
    pub fn token_owner(index: usize) -> u8 {
        LANE_TOKEN_OWNER_FIRST + u8::try_from(index).expect("a shard hosts few lanes")
    }

    pub fn new(shard: ShardId, lanes: Vec<Lane>, worker: WorkerHandle) -> Self {
        Self {
            stalled: lanes.iter().map(|_| VecDeque::new()).collect(),
            lanes,
            slots: Vec::new(),
            by_id: HashMap::default(),
            by_log: HashMap::default(),
            plans: Slab::default(),
            rooms: Vec::new(),
            room_of_lane: Vec::new(),
            uncreated: Vec::new(),
            events: Vec::new(),
            lane_events: Vec::new(),
            rewriting: HashMap::default(),
            rewriting_bytes: 0,
            shard,
            worker,
            control: Control::None,
        }
    }

    /// Opens every partition of the catalog that lives in a lane hosted here: recovered ones as
    /// they are, others (a crash came between commit and creation, or they are new) empty. Logs the
    /// catalog says are deleted are dropped; `epoch` is the catalog's.
    pub fn reconcile(&mut self, catalog: &Catalog, wall: WallMs) {
        let recovered: Vec<(usize, LogId, TopicPartition)> = self
            .lanes
            .iter()
            .enumerate()
            .flat_map(|(lane, logs)| logs.partitions().map(move |(log, id)| (lane, log, id)))
            .collect();
        for (lane, log, id) in recovered {
            match catalog.partition(id.topic_id, id.partition) {
                Some(_) => self.open(catalog, lane, log, id),
                None => {
                    self.lanes[lane].drop_partition(log, catalog.epoch());
                }
            }
        }
        for topic in catalog.topics() {
            for index in 0..topic.partitions.len() {
                let partition = crate::base::ids::PartitionId(index as i32);
                self.create(catalog, TopicPartition { topic_id: topic.id, partition }, wall);
            }
        }
    }

    /// Creates the log of a partition that lives here and has none yet; where the journal has no
    /// room now, `create_waiting` does it later, and until then the partition isn't known here.
    pub fn create(&mut self, catalog: &Catalog, id: TopicPartition, wall: WallMs) {
        let Some(lane) = self.lane_of(catalog, id) else { return };
        if self.by_id.contains_key(&id) {
            return;
        }
        let settings = Self::settings(catalog, id);
        match self.lanes[lane].create_partition(id, catalog.epoch(), settings, wall) {
            Ok((log, _)) => self.open(catalog, lane, log, id),
            // It is created after the restart.
            Err(AppendError::Fenced) => {}
            Err(_) => self.uncreated.push(id),
        }
    }

    /// The settings of these partitions have changed: they hold from the next request on.
    pub fn reconfigure(&mut self, catalog: &Catalog, changed: Vec<TopicPartition>) {
        for id in changed {
            let Some(topic) = catalog.topic_by_id(id.topic_id) else { continue };
            let settings = Self::settings(catalog, id);
            let Some(partition) = self.partition_mut(id) else { continue };
            partition.config = topic.config.clone();
            let (lane, log) = (partition.lane, partition.log);
            self.lanes[lane].set_settings(log, settings);
        }
    }

    /// Tries creations again that found no room; returns the partitions that exist now.
    pub fn create_waiting(&mut self, catalog: &Catalog, wall: WallMs) -> Vec<TopicPartition> {
        let waiting = std::mem::take(&mut self.uncreated);
        for id in &waiting {
            self.create(catalog, *id, wall);
        }
        waiting.into_iter().filter(|id| self.by_id.contains_key(id)).collect()
    }

    /// When a lane's housekeeping has something to do by time alone.
    pub fn wake_at(&self) -> Option<MonotonicNs> {
        self.lanes.iter().filter_map(Lane::wake_at).min()
    }

    fn settings(catalog: &Catalog, id: TopicPartition) -> PartitionSettings {
        let topic = catalog.topic_by_id(id.topic_id).expect("a partition's topic is in the catalog");
        PartitionSettings {
            segment_bytes_max: u64::from(topic.config.segment_bytes),
            segment_ms_max: topic.config.segment_ms,
        }
    }

    fn lane_of(&self, catalog: &Catalog, id: TopicPartition) -> Option<usize> {
        let hosted = catalog.lane_of(id)?;
        self.lanes.iter().position(|lane| lane.id() == hosted)
    }

    fn open(&mut self, catalog: &Catalog, lane: usize, log: LogId, id: TopicPartition) {
        let topic = catalog.topic_by_id(id.topic_id).expect("checked by the caller");
        let known = catalog.partition(id.topic_id, id.partition).expect("checked by the caller");
        self.lanes[lane].set_settings(log, Self::settings(catalog, id));
        let log_end = self.lanes[lane].log_end(log);
        let partition = Partition::new(
            id,
            topic.name.clone(),
            (lane, log),
            known.leader_epoch,
            topic.config.clone(),
            log_end,
        );
        let slot = self.slots.len() as u32;
        self.slots.push(Some(partition));
        self.by_id.insert(id, slot);
        self.by_log.insert((lane, log), slot);
    }

    /// Drops a deleted partition; whoever waits for it is returned.
    pub fn delete(&mut self, id: TopicPartition, epoch: u64) -> Option<Partition> {
        let slot = self.by_id.remove(&id)?;
        let mut partition = self.slots[slot as usize].take().expect("found by its id");
        self.by_log.remove(&(partition.lane, partition.log));
        for stalled in self.rewriting.remove(&id).into_iter().flatten() {
            self.rewriting_bytes -= stalled.batch.len();
            // It is answered with the partition's own waiters.
            let (end, outcome) = (Offset(i64::MAX), AppendOutcome::NONE);
            let (reply_to, since) = (stalled.reply_to, stalled.options.since);
            partition.waiters.add_produce(ProduceWaiter { end, reply_to, outcome, since });
        }
        self.lanes[partition.lane].drop_partition(partition.log, epoch);
        Some(partition)
    }

    /// Ids of the partitions of a topic that live here.
    pub fn partitions_of(&self, topic_id: crate::base::ids::TopicId) -> Vec<TopicPartition> {
        let mut ids: Vec<TopicPartition> =
            self.by_id.keys().filter(|id| id.topic_id == topic_id).copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Every partition that lives here, in the order of their ids.
    pub fn all_partitions(&self) -> Vec<TopicPartition> {
        let mut ids: Vec<TopicPartition> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Those whose records are compacted.
    pub fn compacted_partitions(&self) -> Vec<TopicPartition> {
        let compacted = self.slots.iter().flatten().filter(|partition| partition.config.cleanup_compact);
        compacted.map(|partition| partition.id).collect()
    }

    pub fn partition(&self, id: TopicPartition) -> Option<&Partition> {
        self.slots[*self.by_id.get(&id)? as usize].as_ref()
    }

    pub fn partition_mut(&mut self, id: TopicPartition) -> Option<&mut Partition> {
        self.slots[*self.by_id.get(&id)? as usize].as_mut()
    }

    pub fn partition_of_log(&mut self, lane: usize, log: LogId) -> Option<&mut Partition> {
        self.slots[*self.by_log.get(&(lane, log))? as usize].as_mut()
    }

    /// Bytes of a partition's segments; `None` where it doesn't live here.
    pub fn size_bytes(&self, id: TopicPartition) -> Option<u64> {
        let partition = self.partition(id)?;
        let segments = self.lanes[partition.lane].segments(partition.log);
        Some(segments.map(|segment| segment.bytes).sum())
    }

    pub fn partitions_count(&self) -> usize {
        self.by_id.len()
    }

    /// Appends a verified batch, or finds out why not.
    pub fn append(
        &mut self,
        target: TopicPartition,
        batch: &[u8],
        options: AppendOptions,
        reply_to: ReplyTo,
        wall: WallMs,
    ) -> Appended {
        let lane = self.partition(target).map(|partition| partition.lane);
        if let Some(lane) = lane.filter(|lane| !self.stalled[*lane].is_empty()) {
            if self.room(lane).is_some_and(|room| room.admit(batch.len() as u64) == Admission::Refuse) {
                return Appended::Done(Err(AppendRefusal::StorageError));
            }
            self.stall(lane, target, batch, options, reply_to, Rewrite::Wanted);
            return Appended::Waiting;
        }
        if self.rewriting.contains_key(&target) {
            let rewrite = Rewrite::Wanted;
            self.wait_behind_worker(Stalled { target, batch: batch.to_vec(), options, reply_to, rewrite });
            return Appended::Waiting;
        }
        self.append_or_stall(target, batch, options, reply_to, wall, Rewrite::Wanted)
    }

    fn append_or_stall(
        &mut self,
        target: TopicPartition,
        batch: &[u8],
        options: AppendOptions,
        reply_to: ReplyTo,
        wall: WallMs,
        rewrite: Rewrite,
    ) -> Appended {
        match self.append_now(target, batch, options, reply_to, wall, rewrite) {
            Tried::Appended(appended) => appended,
            Tried::NoRoom(lane) => {
                self.stall(lane, target, batch, options, reply_to, rewrite);
                Appended::Waiting
            }
        }
    }

    /// Behind the batch that is with the worker, so that the partition keeps its order.
    fn wait_behind_worker(&mut self, stalled: Stalled) {
        self.rewriting_bytes += stalled.batch.len();
        copied(Tally::CopyKept, stalled.batch.len());
        self.rewriting.entry(stalled.target).or_default().push_back(stalled);
    }

    fn stall(
        &mut self,
        lane: usize,
        target: TopicPartition,
        batch: &[u8],
        options: AppendOptions,
        reply_to: ReplyTo,
        rewrite: Rewrite,
    ) {
        self.stalled[lane].push_back(Stalled { target, batch: batch.to_vec(), options, reply_to, rewrite });
        copied(Tally::CopyKept, batch.len());
    }

    fn append_now(
        &mut self,
        target: TopicPartition,
        batch: &[u8],
        options: AppendOptions,
        reply_to: ReplyTo,
        wall: WallMs,
        rewrite: Rewrite,
    ) -> Tried {
        let header = BatchHeader::view(batch).expect("the batch was verified");
        let Some(slot) = self.by_id.get(&target) else {
            return Tried::Appended(Appended::Done(Err(AppendRefusal::UnknownPartition)));
        };
        let partition = self.slots[*slot as usize].as_mut().expect("found by its id");
        let room = self.room_of_lane.get(partition.lane).copied().flatten();
        let room = room.map(|room| &mut self.rooms[room]);
        match room.as_ref().map_or(Admission::Take, |room| room.admit(batch.len() as u64)) {
            Admission::Take => {}
            Admission::Wait => return Tried::NoRoom(partition.lane),
            Admission::Refuse => return Tried::Appended(Appended::Done(Err(AppendRefusal::StorageError))),
        }
        let lane = &mut self.lanes[partition.lane];
        if lane.fenced().is_some() || lane.is_damaged(partition.log) {
            // Nothing becomes durable any more: a duplicate would wait for its original for ever.
            return Tried::Appended(Appended::Done(Err(AppendRefusal::StorageError)));
        }
        let past = header.producer().and_then(|(id, _)| lane.producers(partition.log).get(id));
        let verdict =
            partition.check_append(header, batch.len(), past, options.all_replicas, REPLICAS_COUNT, wall);
        let log_start = lane.log_start(partition.log);
        let mut outcome = AppendOutcome { base_offset: Offset(-1), log_append_time_ms: -1, log_start };
        let end = match verdict {
            Err(refusal) => return Tried::Appended(Appended::Done(Err(refusal))),
            Ok(Verdict::Duplicate(original)) => {
                outcome.base_offset = original.base_offset;
                if self.control == Control::AnswerDuplicateAtOnce {
                    return Tried::Appended(Appended::Done(Ok(outcome)));
                }
                original.last_offset.plus(1)
            }
            Ok(Verdict::Append) => {
                if rewrite == Rewrite::Wanted {
                    let codec = partition.codec_wanted(header);
                    let mut chore = Chore { codec, needs_keys: partition.needs_keys() };
                    if chore.needs_keys && header.codec_number() == Codec::None.number() {
                        if let Err(refusal) = worker::check_keys(batch, &mut Codecs::default()) {
                            return Tried::Appended(Appended::Done(Err(refusal)));
                        }
                        chore.needs_keys = false;
                    }
                    if chore.codec.is_some() || chore.needs_keys {
                        self.send_to_worker(target, batch, chore, options, reply_to);
                        return Tried::Appended(Appended::Waiting);
                    }
                }
                let stamped = (partition.config.timestamp_type == TimestampType::LogAppendTime).then(|| {
                    outcome.log_append_time_ms = wall.0;
                    let mut bytes = batch.to_vec();
                    copied(Tally::CopyKept, batch.len());
                    record_batch::set_log_append_time(&mut bytes, wall);
                    bytes
                });
                outcome.base_offset = lane.log_end(partition.log);
                let bytes = stamped.as_deref().unwrap_or(batch);
                let awaited = if partition.is_relaxed() { Awaited::No } else { Awaited::Yes };
                let (base_offset, epoch) = (outcome.base_offset, partition.leader_epoch);
                let appended = lane.append(partition.log, bytes, base_offset, epoch, wall, awaited);
                match appended {
                    Ok(_) => room.into_iter().for_each(|room| room.took(bytes.len() as u64)),
                    Err(AppendError::Busy) => return Tried::NoRoom(partition.lane),
                    Err(AppendError::TooLarge) => {
                        return Tried::Appended(Appended::Done(Err(AppendRefusal::LargerThanSegment)));
                    }
                    Err(AppendError::Offline | AppendError::Fenced) => {
                        return Tried::Appended(Appended::Done(Err(AppendRefusal::StorageError)));
                    }
                }
                lane.log_end(partition.log)
            }
        };
        if partition.advance(lane.durable_end(partition.log), lane.log_end(partition.log)) {
            // A relaxed topic: readers see it at once.
            let durable_end = lane.durable_end(partition.log);
            let (lane, log) = (partition.lane, partition.log);
            self.events.push((lane, LaneEvent::Durable { log, durable_end }));
        }
        if options.silent || end <= partition.high_watermark() {
            return Tried::Appended(Appended::Done(Ok(outcome)));
        }
        partition.waiters.add_produce(ProduceWaiter { end, reply_to, outcome, since: options.since });
        Tried::Appended(Appended::Waiting)
    }

    /// From here on the partition's appends wait in a queue, until the worker has answered them all.
    fn send_to_worker(
        &mut self,
        target: TopicPartition,
        batch: &[u8],
        chore: Chore,
        options: AppendOptions,
        reply_to: ReplyTo,
    ) {
        let queue = self.rewriting.entry(target).or_default();
        // The front of the queue is with the worker; its bytes are not kept twice.
        let rewrite = Rewrite::Wanted;
        queue.push_front(Stalled { target, batch: Vec::new(), options, reply_to, rewrite });
        self.worker.send(Job { shard: self.shard, target, batch: batch.to_vec(), chore });
        copied(Tally::CopyKept, batch.len());
    }

    /// Appends what the worker sent back, and what waited behind it as far as it goes.
    pub fn rewritten(
        &mut self,
        target: TopicPartition,
        batch: Result<Vec<u8>, AppendRefusal>,
        wall: WallMs,
    ) -> Vec<(ReplyTo, Result<AppendOutcome, AppendRefusal>)> {
        let mut outcomes = Vec::new();
        // A partition that was deleted meanwhile has taken its queue along.
        let Some(mut queue) = self.rewriting.remove(&target) else { return outcomes };
        let first = queue.pop_front().expect("its front was with the worker");
        let mut settle = |stalled: &Stalled, appended: Appended| {
            if let Appended::Done(outcome) = appended {
                outcomes.push((stalled.reply_to, outcome));
            }
        };
        let appended = match batch {
            Err(refusal) => Appended::Done(Err(refusal)),
            Ok(batch) => {
                self.append_or_stall(target, &batch, first.options, first.reply_to, wall, Rewrite::Done)
            }
        };
        settle(&first, appended);
        while let Some(next) = queue.pop_front() {
            self.rewriting_bytes -= next.batch.len();
            let appended = self.append(target, &next.batch, next.options, next.reply_to, wall);
            settle(&next, appended);
            if let Some(again) = self.rewriting.get_mut(&target) {
                // The next one is with the worker: the others stay behind it.
                again.append(&mut queue);
                break;
            }
        }
        outcomes
    }

    /// Batches wait for room, or too many for the worker: connections don't read on. Nobody waits with
    /// those that wait for a disk that hangs.
    pub fn has_stalled(&self) -> bool {
        let waits = |(lane, queue): (usize, &VecDeque<Stalled>)| {
            !queue.is_empty() && self.state(lane) != DirectoryState::Stalled
        };
        self.stalled.iter().enumerate().any(waits) || self.rewriting_bytes > REWRITING_BYTES_MAX
    }

    /// Batches wait for room, be it on a disk that hangs.
    #[cfg(test)]
    pub fn has_waiting(&self) -> bool {
        self.stalled.iter().any(|queue| !queue.is_empty())
    }

    /// Tries the batches that found no room again, by lane in their order; returns outcomes known now.
    pub fn retry_stalled(&mut self, wall: WallMs) -> Vec<(ReplyTo, Result<AppendOutcome, AppendRefusal>)> {
        let mut outcomes = Vec::new();
        for lane in 0..self.stalled.len() {
            self.retry_lane(lane, wall, &mut outcomes);
        }
        outcomes
    }

    fn retry_lane(
        &mut self,
        lane: usize,
        wall: WallMs,
        outcomes: &mut Vec<(ReplyTo, Result<AppendOutcome, AppendRefusal>)>,
    ) {
        while let Some(stalled) = self.stalled[lane].pop_front() {
            let Stalled { target, ref batch, options, reply_to, rewrite } = stalled;
            if self.rewriting.contains_key(&target) {
                self.wait_behind_worker(stalled);
                continue;
            }
            match self.append_now(target, batch, options, reply_to, wall, rewrite) {
                Tried::NoRoom(_) => {
                    self.stalled[lane].push_front(stalled);
                    return;
                }
                Tried::Appended(Appended::Done(outcome)) => outcomes.push((reply_to, outcome)),
                Tried::Appended(Appended::Waiting) => {}
            }
        }
    }

    // ---- Log directories ---------------------------------------------------------------------

    /// From now on appends mind the room of the lanes' directories: one for each lane, by index.
    pub fn mind_rooms(&mut self, rooms: Vec<Room>, room_of_lane: Vec<Option<usize>>) {
        assert_eq!(room_of_lane.len(), self.lanes.len());
        (self.rooms, self.room_of_lane) = (rooms, room_of_lane);
    }

    fn room(&self, lane: usize) -> Option<&Room> {
        Some(&self.rooms[(*self.room_of_lane.get(lane)?)?])
    }

    fn state(&self, lane: usize) -> DirectoryState {
        self.room(lane).map_or(DirectoryState::Online, Room::state)
    }

    /// Looks at how the disks fare. True where there may be room for what waits.
    pub fn look_at_rooms(&mut self, now: MonotonicNs) -> bool {
        let mut measured = false;
        for (index, room) in self.rooms.iter_mut().enumerate() {
            let lanes = self.lanes.iter().zip(&self.room_of_lane);
            measured |= room.look(now, lanes.filter(|(_, room)| **room == Some(index)).map(|(lane, _)| lane));
        }
        measured && self.has_stalled()
    }

    /// Everyone who waits for a lane that will never make anything durable again.
    pub fn drain_produce_waiters(&mut self, lane: usize) -> Vec<ReplyTo> {
        let of_lane = self.slots.iter_mut().flatten().filter(|partition| partition.lane == lane);
        of_lane
            .flat_map(|partition| partition.waiters.drain_produce())
            .map(|waiter| waiter.reply_to)
            .collect()
    }

    /// Every fetch that waits for a partition of the lane.
    pub fn drain_fetch_waiters(&mut self, lane: usize) -> Vec<ReplyTo> {
        let of_lane = self.slots.iter_mut().flatten().filter(|partition| partition.lane == lane);
        of_lane.flat_map(|partition| partition.waiters.drain_fetch()).collect()
    }

    // ---- Plans -------------------------------------------------------------------------------

    /// A place for a plan that begins.
    pub fn hold_plan(&mut self, lane: usize, log: LogId, owner: PlanOwner) -> Key {
        self.plans.insert(HeldPlan { lane, log, owner, state: PlanState::Starting })
    }

    /// Hands out the next bytes of a plan, as `Lane::resolve` does; `None` when it isn't there.
    pub fn resolve_plan(
        &mut self,
        held: Key,
        bytes_max: usize,
        sink: Sink,
        out: &mut Vec<u8>,
    ) -> Option<Resolved> {
        let HeldPlan { lane, state, .. } = self.plans.get_mut(held)?;
        let PlanState::Ready(mut plan) = std::mem::replace(state, PlanState::Starting) else {
            unreachable!("one window at a time")
        };
        let resolved = self.lanes[*lane].resolve(&mut plan, bytes_max, sink, out, held.to_u56());
        *state = match resolved {
            Resolved::Pending => PlanState::Reading(plan),
            Resolved::Copied(_) | Resolved::File(_) | Resolved::Finished => PlanState::Ready(plan),
        };
        Some(resolved)
    }

    /// Ends a plan's lease, at once or with the read in progress.
    pub fn release_plan(&mut self, held: Key) {
        let Some(HeldPlan { lane, state, .. }) = self.plans.get_mut(held) else { return };
        match std::mem::replace(state, PlanState::Starting) {
            PlanState::Ready(plan) => {
                self.lanes[*lane].release(plan);
                self.plans.remove(held);
            }
            PlanState::Reading(plan) => *state = PlanState::Abandoned(plan),
            PlanState::Starting | PlanState::Abandoned(_) => {
                unreachable!("a plan is released once, by who was given its id")
            }
        }
    }

    /// The window that was asked for is here, or can't be read; appends it to `out`. Whom it is for,
    /// `None` when the plan was released meanwhile.
    pub fn window_read(&mut self, held: Key, window: Option<Window>, out: &mut Vec<u8>) -> Option<PlanOwner> {
        let HeldPlan { lane, owner, state, .. } = self.plans.get_mut(held).expect("held while it is read");
        let (lane, owner) = (*lane, *owner);
        match std::mem::replace(state, PlanState::Starting) {
            PlanState::Reading(mut plan) => {
                if let Some(window) = &window {
                    out.extend_from_slice(&window.buffer[window.range.clone()]);
                    copied(Tally::CopyDiskRead, window.range.len());
                    plan.advance_window(window);
                }
                *state = PlanState::Ready(plan);
            }
            PlanState::Abandoned(plan) => {
                self.lanes[lane].release(plan);
                self.plans.remove(held);
            }
            PlanState::Starting | PlanState::Ready(_) => unreachable!("a window is awaited"),
        }
        if let Some(window) = window {
            self.lanes[lane].give_back(window.buffer);
        }
        self.plans.get(held).map(|_| owner)
    }

    /// Starts commit groups where entries wait and none is in flight.
    pub fn turn(&mut self, ring: &mut Ring, now: MonotonicNs) {
        for lane in &mut self.lanes {
            lane.turn(ring, now);
        }
    }

    /// Takes the completion of one of the lanes' operations; its events are in `events`.
    pub fn complete(&mut self, ring: &mut Ring, owner: u8, completion: Completion) {
        // A lane that couldn't be recovered may have left something in flight.
        let Some(lane) = self.lanes.iter().position(|lane| lane.owner() == owner) else { return };
        self.lanes[lane].complete(ring, completion, &mut self.lane_events);
        self.events.extend(self.lane_events.drain(..).map(|event| (lane, event)));
    }

    /// One bounded step of housekeeping per lane; true when more is to be done right now.
    pub fn housekeep(&mut self, ring: &mut Ring, now: MonotonicNs, wall: WallMs) -> bool {
        let mut more = false;
        for lane in &mut self.lanes {
            more |= lane.housekeep(ring, now, wall);
        }
        more
    }
}
