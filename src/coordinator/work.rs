//! Work: what one step on a group may touch besides the group itself.

use super::group::Group;
use super::records::GroupRecord;
use super::request::{Effect, GroupResponse, PendingId, ReplyId};
use super::{Coordinator, Options};
use crate::base::ids::{MonotonicNs, WallMs};
use crate::base::random::Random;
use crate::base::slab::Key;
use crate::protocol::error_code::ErrorCode;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// One group, being changed.
pub(super) struct Step<'a> {
    pub key: Key,
    pub group: &'a mut Group,
    pub work: &'a mut Work,
}

#[derive(Debug)]
pub(super) struct Work {
    pub options: Options,
    pub now: MonotonicNs,
    pub wall: WallMs,
    random: Random,
    /// At most one per group for joining, one for syncing, and about one per member.
    pub timers: BTreeSet<Timer>,
    effects: Vec<Effect>,
    /// Appends that aren't durable yet. Bounded by the requests in flight.
    pub pending: BTreeMap<PendingId, PendingAppend>,
    next_pending: u64,
    /// The append of the current step, for an answer that has to wait for it.
    appended_now: Option<PendingId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    pub at: MonotonicNs,
    pub group: Key,
    pub kind: TimerKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKind {
    Join,
    Sync,
    Session(u64),
    Pending(u64),
}

#[derive(Debug)]
pub(super) struct PendingAppend {
    pub change: Change,
    pub replies: Vec<(ReplyId, GroupResponse)>,
}

/// What becomes true once its records are durable.
#[derive(Debug)]
pub(super) enum Change {
    /// The group already is what the records say; only answers wait.
    None,
    Assignment {
        group: Key,
        generation: i32,
        assignments: BTreeMap<String, Bytes>,
    },
    Offsets {
        group: Key,
        offsets: Vec<super::offsets::Commit>,
    },
    Deleted {
        groups: Vec<Key>,
    },
}

impl Work {
    pub fn new(options: Options, random: Random) -> Self {
        Self {
            options,
            now: MonotonicNs(0),
            wall: WallMs(0),
            random,
            timers: BTreeSet::new(),
            effects: Vec::new(),
            pending: BTreeMap::new(),
            next_pending: 0,
            appended_now: None,
        }
    }

    pub fn begin(&mut self, now: MonotonicNs, wall: WallMs) {
        assert!(self.effects.is_empty(), "the effects of the step before were taken");
        self.now = now;
        self.wall = wall;
        self.appended_now = None;
    }

    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub fn reply(&mut self, reply: ReplyId, response: GroupResponse) {
        self.effects.push(Effect::Reply { reply, response });
    }

    pub fn append(
        &mut self,
        records: Vec<GroupRecord>,
        change: Change,
        replies: Vec<(ReplyId, GroupResponse)>,
    ) {
        let then = PendingId(self.next_pending);
        self.next_pending += 1;
        self.pending.insert(then, PendingAppend { change, replies });
        self.appended_now = Some(then);
        self.effects.push(Effect::Append { records, time: self.wall, then });
    }

    /// Answers once the records of this step are durable; at once if it has none.
    pub fn reply_after_append(&mut self, reply: ReplyId, response: GroupResponse) {
        match self.appended_now.and_then(|id| self.pending.get_mut(&id)) {
            Some(append) => append.replies.push((reply, response)),
            None => self.reply(reply, response),
        }
    }

    pub fn add_timer(&mut self, group: Key, kind: TimerKind, at: MonotonicNs) {
        self.timers.insert(Timer { at, group, kind });
    }

    /// A new member's id: what names it, and a random UUID (version 4).
    pub fn member_id(&mut self, prefix: &str) -> String {
        // Client ids may be as long as a string can be; ids end up in records and responses.
        let end =
            prefix.char_indices().map(|(at, _)| at).chain([prefix.len()]).take_while(|at| *at <= 255).last();
        let prefix = &prefix[..end.unwrap_or(0)];
        let high = self.random.next_u64() & !0xf000 | 0x4000;
        let low = self.random.next_u64() & !(3 << 62) | 2 << 62;
        let (time, middle, version) = (high >> 32, high >> 16 & 0xffff, high & 0xffff);
        format!(
            "{prefix}-{time:08x}-{middle:04x}-{version:04x}-{:04x}-{:012x}",
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

impl Coordinator {
    pub(super) fn settle(&mut self, change: Change, outcome: Result<(), ErrorCode>) {
        match change {
            Change::None => {}
            Change::Assignment { group, generation, assignments } => {
                if self.groups.get(group).is_some() {
                    self.step(group).assignment_appended(generation, assignments, outcome);
                }
            }
            Change::Offsets { group, offsets } => {
                if let Some(live) = self.groups.get_mut(group) {
                    live.commits_in_flight -= 1;
                    if outcome.is_ok() {
                        live.offsets.apply(offsets);
                    }
                    self.drop_if_void(group);
                }
            }
            Change::Deleted { groups } => self.settle_deletion(&groups, outcome),
        }
    }
}
