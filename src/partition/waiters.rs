//! Waiters: requests that an advancing high watermark lets go on.

use std::collections::VecDeque;

use crate::base::ids::{MonotonicNs, Offset, ShardId};
use crate::base::slab::Key;

/// Where an outcome goes: a part of a request on some shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplyTo {
    pub shard: ShardId,
    pub request: Key,
    pub part: u32,
}

/// A produced batch that is answered once the high watermark reaches `end`.
#[derive(Clone, Copy, Debug)]
pub struct ProduceWaiter<T> {
    pub end: Offset,
    pub reply_to: ReplyTo,
    pub outcome: T,
    /// When its shard was asked.
    pub since: MonotonicNs,
}

/// Bounded by the requests in flight of all connections: each has at most one waiter per part.
#[derive(Default)]
pub struct Waiters {
    /// In the order of `end`, but for duplicates, whose end may lie earlier.
    produce: VecDeque<ProduceWaiter<AppendOutcome>>,
    fetch: Vec<ReplyTo>,
}

/// What a successful append answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    pub base_offset: Offset,
    /// -1 unless the topic uses LogAppendTime.
    pub log_append_time_ms: i64,
    pub log_start: Offset,
}

impl AppendOutcome {
    /// Of an append without an answer.
    pub const NONE: Self = Self { base_offset: Offset(-1), log_append_time_ms: -1, log_start: Offset(-1) };
}

impl Waiters {
    pub fn add_produce(&mut self, waiter: ProduceWaiter<AppendOutcome>) {
        // A duplicate waits for its original, whose end is at most that of the newest append, so
        // putting it last delays it by appends already in flight and no more.
        self.produce.push_back(waiter);
    }

    /// The next produce waiter that `high_watermark` has reached.
    pub fn pop_produce(&mut self, high_watermark: Offset) -> Option<ProduceWaiter<AppendOutcome>> {
        if self.produce.front()?.end > high_watermark {
            return None;
        }
        self.produce.pop_front()
    }

    /// All produce waiters, when their log can't become durable any more.
    pub fn drain_produce(&mut self) -> impl Iterator<Item = ProduceWaiter<AppendOutcome>> {
        self.produce.drain(..)
    }

    pub fn add_fetch(&mut self, reply_to: ReplyTo) {
        self.fetch.push(reply_to);
    }

    /// Forgets a fetch that was answered for another reason. Nothing happens when it isn't there.
    pub fn remove_fetch(&mut self, reply_to: ReplyTo) {
        if let Some(index) = self.fetch.iter().position(|waiter| *waiter == reply_to) {
            self.fetch.swap_remove(index);
        }
    }

    /// All fetch waiters: each looks again for itself and registers anew if it still waits.
    pub fn drain_fetch(&mut self) -> impl Iterator<Item = ReplyTo> {
        self.fetch.drain(..)
    }

    pub fn is_empty(&self) -> bool {
        self.produce.is_empty() && self.fetch.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply_to(part: u32) -> ReplyTo {
        ReplyTo { shard: ShardId(0), request: Key { index: 1, generation: 0 }, part }
    }

    fn waiter(end: i64, part: u32) -> ProduceWaiter<AppendOutcome> {
        let outcome =
            AppendOutcome { base_offset: Offset(end - 1), log_append_time_ms: -1, log_start: Offset(0) };
        ProduceWaiter { end: Offset(end), reply_to: reply_to(part), outcome, since: MonotonicNs(0) }
    }

    #[test]
    fn no_produce_waiter_leaves_before_its_offset() {
        let mut waiters = Waiters::default();
        waiters.add_produce(waiter(3, 0));
        waiters.add_produce(waiter(5, 1));
        waiters.add_produce(waiter(3, 2));
        assert!(waiters.pop_produce(Offset(2)).is_none());
        assert_eq!(waiters.pop_produce(Offset(3)).map(|waiter| waiter.reply_to.part), Some(0));
        assert!(waiters.pop_produce(Offset(4)).is_none());
        assert_eq!(waiters.pop_produce(Offset(5)).map(|waiter| waiter.reply_to.part), Some(1));
        assert_eq!(waiters.pop_produce(Offset(5)).map(|waiter| waiter.reply_to.part), Some(2));
        assert!(waiters.is_empty());
    }

    #[test]
    fn an_answered_fetch_leaves_nothing_behind() {
        let mut waiters = Waiters::default();
        waiters.add_fetch(reply_to(0));
        waiters.add_fetch(reply_to(1));
        waiters.remove_fetch(reply_to(0));
        waiters.remove_fetch(reply_to(7));
        assert_eq!(waiters.drain_fetch().collect::<Vec<_>>(), [reply_to(1)]);
        assert!(waiters.is_empty());
    }
}
