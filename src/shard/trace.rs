//! Trace: where the time of one request goes, and the shard's own busy time.
//!
//! A trace is a mark that moves on: each step of its request says which stage the time since the mark
//! belongs to, so the stages of a request add up to its total, whatever happened in between.
//!
//! Reading the clock costs as much as a dozen of such steps, so nearly all of them take the time of the
//! turn. Decoding and appending happen within a turn: the clock is read for them, but only for some requests.

use super::Core;
use crate::base::ids::{MonotonicNs, TopicPartition};
use crate::base::slab::{Key, Slab};
use crate::metrics::slow::SlowRequest;
use crate::metrics::stages::{Stage, StageCells, TracedApi};
use crate::ring::{Ring, Sleep};

/// Of so many requests one reads the clock.
const TIMED_EVERY: u32 = 8;
/// And each from this size on: it takes long enough.
const TIMED_BYTES_MIN: usize = 64 << 10;

/// The partition that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Nothing,
    One(TopicPartition),
    Many,
}

/// A request between its first byte and the last of its response.
#[derive(Debug)]
struct Trace {
    api: TracedApi,
    version: i16,
    bytes: u32,
    hops: u32,
    /// Bit by bit the stages that it came through.
    passed: u16,
    about: About,
    /// Up to here its time is told.
    mark: MonotonicNs,
    spent_ns: [u64; Stage::COUNT],
}

impl Trace {
    /// The time since the mark belongs to `stage`.
    fn pass(&mut self, stage: Stage, at: MonotonicNs) {
        self.spent_ns[stage as usize] += at.0.saturating_sub(self.mark.0);
        self.passed |= 1 << stage as usize;
        self.mark = self.mark.max(at);
    }
}

/// When another shard, or this one, had what it was asked at which stage. Shards of one machine have one
/// monotonic time.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub arrived: MonotonicNs,
    /// When the commit group was begun that made it durable.
    pub group_begun: Option<MonotonicNs>,
    pub done: MonotonicNs,
}

impl Times {
    /// Answered at once.
    pub fn at(now: MonotonicNs) -> Self {
        Self { arrived: now, group_begun: None, done: now }
    }
}

/// What a shard measures about itself.
pub struct Traces {
    cells: &'static StageCells,
    traces: Slab<Trace>,
    slow_ns: u64,
    /// Requests until one reads the clock.
    untimed: u32,
    /// The end of the last turn, where that did something.
    busy_since: Option<MonotonicNs>,
}

impl Traces {
    pub fn new(cells: &'static StageCells, slow_ms: u64) -> Self {
        cells.slow.set_limit_ms(slow_ms);
        let slow_ns = slow_ms.saturating_mul(1_000_000);
        Self { cells, traces: Slab::default(), slow_ns, untimed: 0, busy_since: None }
    }

    // ---- Busy time ---------------------------------------------------------------------------

    /// A turn begins: the ring is back from the kernel. What it did there for the turn before, sending
    /// above all, is work, too, where it had no leave to sleep.
    pub fn begin_turn(&mut self, sleep: Sleep, now: MonotonicNs) {
        if let Some(since) = self.busy_since.take()
            && sleep == Sleep::No
        {
            self.cells.add_busy(now.0.saturating_sub(since.0));
        }
    }

    /// A turn that did something ends.
    pub fn end_turn(&mut self, began: MonotonicNs, ended: MonotonicNs) {
        self.cells.add_busy(ended.0.saturating_sub(began.0));
        self.busy_since = Some(ended);
    }

    /// Housekeeping goes on after a turn that did nothing.
    pub fn keep_busy(&mut self, since: MonotonicNs) {
        self.busy_since.get_or_insert(since);
    }

    // ---- Requests ----------------------------------------------------------------------------

    /// The time at which a request begins to be decoded, where that is to be measured.
    pub fn time(&mut self, bytes: usize, ring: &Ring) -> Option<MonotonicNs> {
        let is_due = self.untimed == 0;
        self.untimed = if is_due { TIMED_EVERY - 1 } else { self.untimed - 1 };
        (is_due || bytes >= TIMED_BYTES_MIN).then(|| ring.clock())
    }

    /// A request whose first byte came at `since` is about to be handled.
    pub fn begin(
        &mut self,
        (api, version): (TracedApi, i16),
        bytes: usize,
        since: MonotonicNs,
        now: MonotonicNs,
        decoded_from: Option<MonotonicNs>,
    ) -> Key {
        let mut trace = Trace {
            api,
            version,
            bytes: bytes as u32,
            hops: 0,
            passed: 0,
            about: About::Nothing,
            mark: since,
            spent_ns: [0; Stage::COUNT],
        };
        trace.pass(Stage::Receive, now);
        if let Some(at) = decoded_from {
            trace.pass(Stage::Queue, at);
        }
        self.traces.insert(trace)
    }

    pub fn pass(&mut self, trace: Key, stage: Stage, at: MonotonicNs) {
        if let Some(trace) = self.traces.get_mut(trace) {
            trace.pass(stage, at);
        }
    }

    /// The response begins to leave; later calls change nothing.
    pub fn begin_sending(&mut self, trace: Key, at: MonotonicNs) {
        if let Some(trace) = self.traces.get_mut(trace)
            && trace.passed & 1 << Stage::Respond as usize == 0
        {
            trace.pass(Stage::Respond, at);
        }
    }

    /// A fetch has waited for data: that time belongs to no stage.
    pub fn skip(&mut self, trace: Key, at: MonotonicNs) {
        if let Some(trace) = self.traces.get_mut(trace) {
            trace.mark = trace.mark.max(at);
        }
    }

    /// Another shard was asked.
    pub fn hop(&mut self, trace: Key) {
        if let Some(trace) = self.traces.get_mut(trace) {
            trace.hops += 1;
        }
    }

    pub fn set_about(&mut self, trace: Key, target: TopicPartition) {
        if let Some(trace) = self.traces.get_mut(trace) {
            trace.about = match trace.about {
                About::Nothing => About::One(target),
                About::One(known) if known == target => About::One(target),
                About::One(_) | About::Many => About::Many,
            };
        }
    }

    /// What was asked of an owner is here; `from_other` when that is another shard.
    pub fn answered(&mut self, trace: Key, times: Times, from_other: bool, now: MonotonicNs) {
        let Some(trace) = self.traces.get_mut(trace) else { return };
        if from_other {
            trace.pass(Stage::Hop, times.arrived);
        }
        match (trace.api, times.group_begun) {
            (TracedApi::Fetch, _) => trace.pass(Stage::Read, times.done),
            (TracedApi::Produce, None) => trace.pass(Stage::Queue, times.done),
            (TracedApi::Produce, Some(begun)) => {
                trace.pass(Stage::Queue, begun);
                trace.pass(Stage::Flush, times.done);
            }
        }
        if from_other {
            trace.pass(Stage::Hop, now);
        }
    }

    /// The request's connection ended before its response had left.
    pub fn forget(&mut self, trace: Key) {
        self.traces.remove(trace);
    }

    /// The response has left: the request is counted. Where it was slow, it is returned.
    fn finish(&mut self, trace: Key, now: MonotonicNs) -> Option<Trace> {
        let found = self.traces.get_mut(trace)?;
        found.pass(Stage::Send, now);
        let mut total_ns = 0;
        let mut left = found.passed;
        while left != 0 {
            let stage = Stage::ALL[left.trailing_zeros() as usize];
            let spent_ns = found.spent_ns[stage as usize];
            self.cells.observe(found.api, stage, spent_ns);
            total_ns += spent_ns;
            left &= left - 1;
        }
        self.cells.observe_total(found.api, total_ns, u64::from(found.hops));
        let done = self.traces.remove(trace);
        done.filter(|_| total_ns >= self.slow_ns)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }
}

impl Core {
    /// The last byte of a response was handed to the kernel.
    pub fn finish_trace(&mut self, connection: Key, trace: Key) {
        let Some(slow) = self.traces.finish(trace, self.now) else { return };
        let client_id = self.clients.connections.get(connection).map(|connection| &*connection.client_id);
        let partition = match slow.about {
            About::One(target) => {
                let topic = self.metadata.catalog.topic_by_id(target.topic_id);
                let name = topic.map_or_else(|| target.topic_id.to_base64(), |topic| topic.name.to_string());
                Some((name, target.partition.0))
            }
            About::Nothing | About::Many => None,
        };
        self.traces.cells.slow.record(&SlowRequest {
            wall_ms: self.wall.0,
            api: slow.api,
            version: slow.version,
            client_id: client_id.unwrap_or_default().to_string(),
            partition,
            bytes: u64::from(slow.bytes),
            hops: u64::from(slow.hops),
            total_ns: slow.spent_ns.iter().sum(),
            stages_ns: slow.spent_ns,
        });
    }

    /// The trace of a request that waits.
    pub fn trace_of(&self, request: Key) -> Key {
        self.requests.get(request).map_or(Key::NONE, |request| request.origin.trace)
    }

    /// An owner's answer to a part of a request of this shard is here.
    pub fn trace_answer(&mut self, request: Key, times: Times, from_other: bool) {
        let trace = self.trace_of(request);
        self.traces.answered(trace, times, from_other, self.now);
    }
}
