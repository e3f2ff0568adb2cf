//! Host: calls a shard's turn and sleeps between turns. The plain host: one pinned thread.
//!
//! Housekeeping gets a share of the turns while there is traffic, and everything while there is
//! none; a shard without either sleeps in its ring, or where its host sleeps (`glommio_host`).

use super::Shard;
#[cfg(feature = "glommio")]
use super::glommio_host::Executor;
use crate::log::{Lane, LaneError, LaneStats};
use crate::metrics::Cells;
use crate::metrics::inventory::Metric;
use crate::ring::{RingOptions, Sleep};

/// Turns with traffic per step of housekeeping.
const TURNS_PER_STEP: u32 = 4;

/// Turns per copy of counters to the cells.
const TURNS_PER_COUNT: u64 = 64;

/// Who hosts the shards of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    Plain,
    #[cfg(feature = "glommio")]
    Glommio,
}

impl HostKind {
    /// What a shard's ring must be made with.
    pub fn ring_options(self) -> RingOptions {
        RingOptions { sleeps_outside: self != Self::Plain, ..RingOptions::default() }
    }
}

/// Runs a shard on the thread that made it.
pub enum Runner {
    Plain,
    #[cfg(feature = "glommio")]
    Glommio(Executor),
}

impl Runner {
    pub fn new(kind: HostKind) -> Result<Self, String> {
        match kind {
            HostKind::Plain => Ok(Self::Plain),
            #[cfg(feature = "glommio")]
            HostKind::Glommio => Executor::new().map(Self::Glommio),
        }
    }

    /// Runs until the shard is stopped and its clients are gone.
    pub fn run(&self, shard: &mut Shard, cells: &Cells) {
        match self {
            Self::Plain => {
                let mut host = Host::default();
                while !shard.is_stopped() {
                    host.step(shard, cells, Sleep::Forever);
                }
            }
            #[cfg(feature = "glommio")]
            Self::Glommio(executor) => executor.run(shard, cells),
        }
        shard.count(cells);
    }
}

/// What goes on from turn to turn.
#[derive(Debug)]
pub struct Host {
    turns: u64,
    /// Turns since the last step of housekeeping.
    owed: u32,
    /// More is to be done right now.
    more: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self { turns: 0, owed: 0, more: true }
    }
}

impl Host {
    /// How long the next turn may sleep.
    pub fn sleep(&self, shard: &Shard) -> Sleep {
        if self.more { Sleep::No } else { shard.sleep() }
    }

    /// One turn and its share of housekeeping; it doesn't sleep longer than `sleep_max`.
    pub fn step(&mut self, shard: &mut Shard, cells: &Cells, sleep_max: Sleep) {
        let sleep = self.prepare_sleep(shard, cells).min(sleep_max);
        self.turn(shard, cells, sleep);
    }

    /// How long a sleep may be now; it is announced. The turn follows.
    pub fn prepare_sleep(&self, shard: &mut Shard, cells: &Cells) -> Sleep {
        if self.more {
            return Sleep::No;
        }
        // Counters are written before a sleep, so that an idle shard's are exact.
        shard.count(cells);
        shard.prepare_sleep()
    }

    /// The turn after `prepare_sleep`, and its share of housekeeping.
    pub fn turn(&mut self, shard: &mut Shard, cells: &Cells, sleep: Sleep) {
        let busy = shard.turn(sleep);
        self.turns += 1;
        cells.set(Metric::Turns, self.turns);
        self.owed += 1;
        if !busy || self.owed >= TURNS_PER_STEP {
            self.owed = 0;
            self.more = shard.housekeep() || busy;
        } else {
            self.more = true;
        }
        if self.turns.is_multiple_of(TURNS_PER_COUNT) {
            shard.count(cells);
        }
    }
}

impl Shard {
    /// Announces a sleep and says how long it may be: mail that was posted before is seen here,
    /// mail posted after wakes the ring.
    fn prepare_sleep(&mut self) -> Sleep {
        self.ring.prepare_sleep();
        if self.core.mailbox.is_empty() { self.sleep() } else { Sleep::No }
    }

    /// Makes everything durable and marks the stop as clean, but in lanes of failed directories: these
    /// were told of, and are recovered at the next start.
    pub fn stop(&mut self) -> Result<(), LaneError> {
        let lanes = self.core.storage.lanes.iter_mut().filter(|lane| lane.fenced().is_none());
        let stopped: Vec<_> = lanes.map(|lane| lane.clean_stop(&mut self.ring)).collect();
        stopped.into_iter().collect()
    }

    fn housekeep(&mut self) -> bool {
        let (now, wall) = (self.core.now, self.core.wall);
        let more = self.core.step_retention() | self.core.step_compaction(&mut self.ring);
        let more = self.core.storage.housekeep(&mut self.ring, now, wall) || more;
        if more {
            self.core.traces.keep_busy(now);
        }
        more
    }

    fn count(&self, cells: &Cells) {
        let clients = &self.core.clients;
        let counts = clients.counts;
        cells.set(Metric::ConnectionsOpen, clients.connections.len() as u64);
        cells.set(Metric::ConnectionsAccepted, counts.accepted);
        cells.set(Metric::ConnectionsRefused, counts.refused);
        cells.set(Metric::FramesMalformed, counts.malformed);
        cells.set(Metric::ReceivedBytes, counts.received_bytes);
        cells.set(Metric::SentBytes, counts.sent_bytes);
        cells.set(Metric::RequestsInFlight, self.core.requests.len() as u64);
        cells.set(Metric::Partitions, self.core.storage.partitions_count() as u64);
        cells.set(Metric::FetchSessions, self.core.sessions.len() as u64);
        cells.set(Metric::PlansHeld, self.core.storage.plans.len() as u64);
        let stats: Vec<LaneStats> = self.core.storage.lanes.iter().map(Lane::stats).collect();
        let sum = |of: fn(&LaneStats) -> u64| -> u64 { stats.iter().map(of).sum() };
        cells.set(Metric::CommitGroups, sum(|stats| stats.groups_count));
        cells.set(Metric::JournalBytes, sum(|stats| stats.group_bytes));
        cells.set(Metric::CacheReadBytes, sum(|stats| stats.cache_read_bytes));
        cells.set(Metric::TailBytes, sum(|stats| stats.tail_bytes));
        cells.set(Metric::PartitionsDamaged, sum(|stats| stats.partitions_damaged_count));
        cells.set(Metric::ScrubbedBytes, sum(|stats| stats.scrubbed_bytes));
        cells.set(Metric::DamageFound, sum(|stats| stats.damage_count));
        cells.set(Metric::IndexesRebuilt, sum(|stats| stats.indexes_rebuilt_count));
        let compaction = self.core.compaction.counts();
        cells.set(Metric::CleanerCleanings, compaction.cleanings);
        cells.set(Metric::CleanerReadBytes, sum(|stats| stats.cleaned_bytes));
        cells.set(Metric::CleanerWrittenBytes, sum(|stats| stats.cleaned_kept_bytes));
        cells.set(Metric::CleanerUncleanable, compaction.uncleanable);
        cells.set(Metric::CleanerMaxDirty, compaction.max_dirty_percent);
        cells.set(Metric::CleanerMapBytes, compaction.map_bytes);
        cells.set_tallies();
    }
}
