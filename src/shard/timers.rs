//! Timers: what happens at a time, for one shard.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::ids::MonotonicNs;
use crate::base::slab::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A fetch has waited long enough; a key that no longer exists is ignored.
    Fetch(Key),
    /// Look for idle and stalled connections, and for produces over their time.
    Connections,
    /// Look for segments over their time or size.
    Retention,
    /// Look for partitions to compact.
    Compaction,
    /// Something of a group coordinator is due.
    Groups,
}

/// Bounded by the fetches that waited within the longest wait: a timer is dropped when it fires.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(MonotonicNs, Timer)>>,
}

impl Timers {
    pub fn add(&mut self, at: MonotonicNs, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    pub fn next_at(&self) -> Option<MonotonicNs> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub fn pop_due(&mut self, now: MonotonicNs) -> Option<Timer> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_not_before_their_time() {
        let mut timers = Timers::default();
        timers.add(MonotonicNs(20), Timer::Groups);
        timers.add(MonotonicNs(10), Timer::Connections);
        assert_eq!(timers.pop_due(MonotonicNs(9)), None);
        assert_eq!(timers.pop_due(MonotonicNs(25)), Some(Timer::Connections));
        assert_eq!(timers.pop_due(MonotonicNs(25)), Some(Timer::Groups));
        assert_eq!(timers.pop_due(MonotonicNs(25)), None);
    }
}
