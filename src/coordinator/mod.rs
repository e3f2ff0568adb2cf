//! Coordinator: consumer groups of the classic protocol, as a pure state machine over the records of one
//! partition of `__consumer_offsets`.
//!
//! Owns:     groups with their members, generations and assignments, and the committed offsets.
//! Promises: no answer depends on a record that isn't durable: such answers are released by
//!           [`Coordinator::appended`]. The records are Kafka's, byte for byte; replaying them gives the
//!           groups back. Every request is answered exactly once.
//! Never:    reads a clock, draws randomness of the machine, touches log, ring or net.
//! Called by the shard that leads the partition. Requests that name groups of several partitions are
//! split, and their answers joined, by the caller.
//!
//! ```text
//!              join                    all joined, or the rebalance timeout
//!   Empty ───────────► PreparingRebalance ─────────────────► CompletingRebalance
//!     ▲                   │    ▲       ▲                            │      │
//!     └─── nobody left ───┘    │       └── join, leave, expiry ─────┘      │ leader's assignment
//!                              └── join, leave, expiry ── Stable ◄─────────┘ is durable
//! ```
//!
//! Deviations: a commit with a negative offset is refused with 42. A JoinGroup or SyncGroup that the same
//! member repeats while the first still waits ends the first with 27 (Kafka never answers it). Members that
//! don't know their id yet are at most [`PENDING_MEMBERS_MAX`] per group. Offsets don't expire yet.
//! Sources: KIP-62, KIP-134, KIP-345 (static members), KIP-394 (member ids), KIP-559, KIP-709, KIP-814.

mod describe;
mod group;
mod join;
mod member;
mod offsets;
pub mod records;
mod refuse;
mod request;
mod sync;
mod work;

use crate::base::ids::{MonotonicNs, WallMs};
use crate::base::random::Random;
use crate::base::slab::{Key, Slab};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::reader::DecodeError;
use group::{Group, State};
use records::{RecordKey, decode_group_value, decode_key, decode_offset_value};
use std::collections::BTreeMap;
use work::{Step, TimerKind, Work};

pub use records::GroupRecord;
pub use request::{Effect, GroupRequest, GroupResponse, PendingId, ReplyId, RequestContext};

/// Members per group that were given an id and haven't joined with it.
pub const PENDING_MEMBERS_MAX: usize = 4096;

/// Kafka's limits of classic groups, under Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `group.initial.rebalance.delay.ms`: how long the first members wait for others.
    pub initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_ms_max: i32,
    /// `group.max.size`
    pub members_count_max: usize,
    /// `offset.metadata.max.bytes`, counted in UTF-16 units as Kafka does.
    pub offset_metadata_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3000,
            session_timeout_ms_min: 6000,
            session_timeout_ms_max: 1_800_000,
            members_count_max: i32::MAX as usize,
            offset_metadata_max: 4096,
        }
    }
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Coordinator {
    groups: Slab<Group>,
    /// `names[id] == key` exactly when `groups[key].id == id`.
    names: BTreeMap<String, Key>,
    work: Work,
}

impl Coordinator {
    /// `seed` makes member ids; it differs at every load, or ids of expired members come back.
    pub fn new(options: Options, seed: u64) -> Self {
        Self { groups: Slab::default(), names: BTreeMap::new(), work: Work::new(options, Random::new(seed)) }
    }

    /// Applies one record of the log. Records of other kinds of groups are passed over.
    ///
    /// Precondition: in log order, before [`Coordinator::start`].
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        match decode_key(key)? {
            RecordKey::Offset { group, topic, partition } => {
                let offset = value.map(decode_offset_value).transpose()?;
                let key = self.find_or_create(&group);
                let group = self.groups.get_mut(key).expect("found or created");
                group.offsets.set(topic, partition, offset);
                self.drop_if_void(key);
            }
            RecordKey::Group { group } => {
                let value = value.map(decode_group_value).transpose()?;
                let key = self.find_or_create(&group);
                let group = self.groups.get_mut(key).expect("found or created");
                group.restore(value);
                self.drop_if_void(key);
            }
            RecordKey::Other(_) => {}
        }
        Ok(())
    }

    /// Ends the replay: members have their session timeout from here on to be heard of.
    pub fn start(&mut self, now: MonotonicNs, wall: WallMs) -> Vec<Effect> {
        self.work.begin(now, wall);
        let keys: Vec<Key> = self.groups.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.step(key).start();
        }
        self.work.take_effects()
    }

    /// Takes a request. Its answer is among the effects, now or later.
    pub fn handle(
        &mut self,
        now: MonotonicNs,
        wall: WallMs,
        context: RequestContext<'_>,
        request: GroupRequest,
        reply: ReplyId,
    ) -> Vec<Effect> {
        self.work.begin(now, wall);
        match request {
            GroupRequest::Join(request) => self.join(context, request, reply),
            GroupRequest::Sync(request) => self.sync(request, reply),
            GroupRequest::Heartbeat(request) => self.heartbeat(&request, reply),
            GroupRequest::Leave(request) => self.leave(context, &request, reply),
            GroupRequest::OffsetCommit(request) => self.commit(context, request, reply),
            GroupRequest::OffsetFetch(request) => self.fetch(context, &request, reply),
            GroupRequest::List(request) => self.list(&request, reply),
            GroupRequest::Describe(request) => self.describe(context, &request, reply),
            GroupRequest::Delete(request) => self.delete(&request, reply),
        }
        self.work.take_effects()
    }

    /// The records of an [`Effect::Append`] are durable, or never will be: then `outcome` is the code to
    /// answer with. In the order of the appends.
    pub fn appended(
        &mut self,
        now: MonotonicNs,
        wall: WallMs,
        id: PendingId,
        outcome: Result<(), ErrorCode>,
    ) -> Vec<Effect> {
        self.work.begin(now, wall);
        if let Some(append) = self.work.pending.remove(&id) {
            self.settle(append.change, outcome);
            for (reply, mut response) in append.replies {
                if let Err(error) = outcome {
                    response.fail(error);
                }
                self.work.reply(reply, response);
            }
        }
        self.work.take_effects()
    }

    /// When [`Coordinator::tick`] has something to do. May be early, never late.
    pub fn next_deadline(&self) -> Option<MonotonicNs> {
        self.work.timers.first().map(|timer| timer.at)
    }

    /// Does what is due: expires members, ends rebalances.
    pub fn tick(&mut self, now: MonotonicNs, wall: WallMs) -> Vec<Effect> {
        self.work.begin(now, wall);
        while let Some(timer) = self.work.timers.first().copied().filter(|timer| timer.at <= now) {
            self.work.timers.remove(&timer);
            // A timer of a group that is gone fires for nobody.
            if self.groups.get(timer.group).is_some() {
                self.fire(timer.group, timer.kind, timer.at);
                self.drop_if_void(timer.group);
            }
        }
        self.work.take_effects()
    }

    fn fire(&mut self, key: Key, kind: TimerKind, at: MonotonicNs) {
        let mut step = self.step(key);
        match kind {
            TimerKind::Join => step.join_timer_fired(at),
            TimerKind::Sync => step.sync_timer_fired(at),
            TimerKind::Session(number) => step.session_timer_fired(number, at),
            TimerKind::Pending(number) => step.pending_member_expired(number),
        }
    }

    /// Ends everything that waits with `NOT_COORDINATOR`: the partition has another leader.
    pub fn unload(mut self) -> Vec<Effect> {
        let keys: Vec<Key> = self.groups.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.step(key).end_waits(ErrorCode::NotCoordinator);
        }
        for append in std::mem::take(&mut self.work.pending).into_values() {
            for (reply, mut response) in append.replies {
                response.fail(ErrorCode::NotCoordinator);
                self.work.reply(reply, response);
            }
        }
        self.work.take_effects()
    }

    fn find(&self, id: &str) -> Option<Key> {
        self.names.get(id).copied()
    }

    fn find_or_create(&mut self, id: &str) -> Key {
        self.find(id).unwrap_or_else(|| {
            let key = self.groups.insert(Group::new(id.to_owned()));
            self.names.insert(id.to_owned(), key);
            key
        })
    }

    /// The group with what it may touch. Precondition: it exists.
    fn step(&mut self, key: Key) -> Step<'_> {
        Step { key, group: self.groups.get_mut(key).expect("named groups exist"), work: &mut self.work }
    }

    /// Forgets a group that nobody could tell from one that never was.
    fn drop_if_void(&mut self, key: Key) {
        if self.groups.get(key).is_some_and(Group::is_void) {
            let group = self.groups.remove(key).expect("looked up");
            self.names.remove(&group.id);
        }
    }

    /// Heartbeat and such fail alike when there is no such group: nobody is its member.
    fn find_live(&self, id: &str) -> Result<Key, ErrorCode> {
        if id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let key = self.find(id).ok_or(ErrorCode::UnknownMemberId)?;
        match self.groups.get(key).map(|group| group.state) {
            Some(State::Dead) => Err(ErrorCode::CoordinatorNotAvailable),
            _ => Ok(key),
        }
    }
}

/// The partition of `__consumer_offsets` that has the group: Java's string hash, as Kafka counts.
///
/// Precondition: `partitions_count > 0`.
pub fn partition_of_group(id: &str, partitions_count: i32) -> i32 {
    let hash = id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's absolute value: that of the smallest integer is 0.
    hash.checked_abs().unwrap_or(0) % partitions_count
}

#[cfg(test)]
mod tests;
