//! Stages: where the time of Produce and Fetch requests goes, and how long a shard worked.
//!
//! The shard adds to these cells directly: a load and a store without a locked instruction, as cheap as
//! memory of its own, so nothing is copied for a page that nobody reads.

use std::sync::atomic::{AtomicU64, Ordering};

use super::slow::SlowCells;

/// The requests whose time is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracedApi {
    Produce = 0,
    Fetch = 1,
}

impl TracedApi {
    pub const ALL: [Self; 2] = [Self::Produce, Self::Fetch];

    pub fn name(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::Fetch => "Fetch",
        }
    }
}

/// What a request spends its time with. Every moment from its first byte to the last of its response belongs
/// to one stage, but the wait of a fetch for data, which belongs to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Receive = 0,
    Decode,
    Append,
    Queue,
    Hop,
    Flush,
    Read,
    Respond,
    Send,
}

impl Stage {
    pub const COUNT: usize = 9;

    pub const ALL: [Self; Self::COUNT] = [
        Self::Receive,
        Self::Decode,
        Self::Append,
        Self::Queue,
        Self::Hop,
        Self::Flush,
        Self::Read,
        Self::Respond,
        Self::Send,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Decode => "decode",
            Self::Append => "append",
            Self::Queue => "queue",
            Self::Hop => "hop",
            Self::Flush => "flush",
            Self::Read => "read",
            Self::Respond => "respond",
            Self::Send => "send",
        }
    }

    /// Whether requests of the API can spend time so.
    pub fn is_of(self, api: TracedApi) -> bool {
        match self {
            Self::Append | Self::Flush => api == TracedApi::Produce,
            Self::Read => api == TracedApi::Fetch,
            _ => true,
        }
    }
}

/// Said of the histogram of stages.
pub const STAGE_HELP: &str = "Where requests spent their time, from the first byte to the last of the response. \
    receive: from the first byte until the request is read, the pause of a connection with too much in flight included. \
    decode (header, checks and checksum) and append (into memory) are measured for one request in eight and for large ones; \
    of the others they count as queue. queue: waiting for room, for the turn to end, for the commit group before; with decode \
    and append Kafka's RequestQueueTimeMs and LocalTimeMs. hop: mail to the shard that owns the partition, and back. \
    flush: from the commit group's write to its durability; Kafka's RemoteTimeMs, or its log flush. \
    read: finding and reading what a fetch asks for; its wait for data counts nowhere. respond: waiting for the responses before \
    it; Kafka's ResponseQueueTimeMs. send: until the kernel has all of it; Kafka's ResponseSendTimeMs. \
    Times are those of the shard's turns, but for decode and append";

/// Two buckets for every doubling, in microseconds: 1, 2, 3, 4, 6, 8, 12 and so on.
const BOUNDED_COUNT: usize = 46;

/// Upper bounds of the buckets in microseconds, each included; one more bucket has no bound.
pub const BOUNDS_US: [u64; BOUNDED_COUNT] = {
    let mut bounds = [0; BOUNDED_COUNT];
    let mut index = 0;
    while index < BOUNDED_COUNT {
        bounds[index] = match index {
            0 => 1,
            _ if index % 2 == 1 => 2 << (index / 2),
            _ => 3 << (index / 2 - 1),
        };
        index += 1;
    }
    bounds
};

const _: () = assert!(BOUNDS_US[BOUNDED_COUNT - 1] == 8_388_608);

fn bucket_of(ns: u64) -> usize {
    // The bound belongs to the bucket below it.
    let us = ns.saturating_sub(1) / 1_000;
    if us < 2 {
        return us as usize;
    }
    let exponent = us.ilog2();
    let half = us >> (exponent - 1) & 1;
    (2 * exponent as usize + half as usize).min(BOUNDED_COUNT)
}

fn add(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

/// How often which time was spent.
pub struct HistogramCells {
    buckets: [AtomicU64; BOUNDED_COUNT + 1],
    sum_ns: AtomicU64,
}

/// A histogram as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramRead {
    /// By [`BOUNDS_US`], the last without bound.
    pub buckets: [u64; BOUNDED_COUNT + 1],
    pub sum_ns: u64,
}

impl HistogramRead {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl HistogramCells {
    fn new() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }

    fn observe(&self, ns: u64) {
        if ns == 0 {
            // What begins and ends within one turn, as most stages do.
            add(&self.buckets[0], 1);
            return;
        }
        add(&self.buckets[bucket_of(ns)], 1);
        add(&self.sum_ns, ns);
    }

    pub fn read(&self) -> HistogramRead {
        HistogramRead {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed)),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

/// Of one API.
struct ApiCells {
    stages: [HistogramCells; Stage::COUNT],
    total: HistogramCells,
    hops: AtomicU64,
}

/// One shard's.
pub struct StageCells {
    apis: [ApiCells; TracedApi::ALL.len()],
    busy_ns: AtomicU64,
    pub slow: SlowCells,
}

impl StageCells {
    pub(super) fn new() -> Self {
        Self {
            apis: std::array::from_fn(|_| ApiCells {
                stages: std::array::from_fn(|_| HistogramCells::new()),
                total: HistogramCells::new(),
                hops: AtomicU64::new(0),
            }),
            busy_ns: AtomicU64::new(0),
            slow: SlowCells::new(),
        }
    }

    // ---- Written by the shard ----------------------------------------------------------------

    pub fn observe(&self, api: TracedApi, stage: Stage, ns: u64) {
        self.apis[api as usize].stages[stage as usize].observe(ns);
    }

    /// A request is done, and had been at work for so long.
    pub fn observe_total(&self, api: TracedApi, ns: u64, hops: u64) {
        let cells = &self.apis[api as usize];
        cells.total.observe(ns);
        if hops > 0 {
            add(&cells.hops, hops);
        }
    }

    pub fn add_busy(&self, ns: u64) {
        add(&self.busy_ns, ns);
    }

    // ---- Read by others ----------------------------------------------------------------------

    pub fn stage(&self, api: TracedApi, stage: Stage) -> HistogramRead {
        self.apis[api as usize].stages[stage as usize].read()
    }

    pub fn total(&self, api: TracedApi) -> HistogramRead {
        self.apis[api as usize].total.read()
    }

    /// Mails to other shards, each of which was answered.
    pub fn hops(&self, api: TracedApi) -> u64 {
        self.apis[api as usize].hops.load(Ordering::Relaxed)
    }

    pub fn busy_ns(&self) -> u64 {
        self.busy_ns.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_of_the_next_bound() {
        assert!(BOUNDS_US.is_sorted());
        let check = |ns: u64| {
            let wanted = BOUNDS_US.iter().position(|bound| ns <= bound * 1_000).unwrap_or(BOUNDED_COUNT);
            assert_eq!(bucket_of(ns), wanted, "{ns} ns");
        };
        for bound in BOUNDS_US {
            (bound * 1_000 - 1..=bound * 1_000 + 1).for_each(check);
        }
        [0, 1, 1_500, u64::MAX].into_iter().for_each(check);
    }

    #[test]
    fn a_histogram_tells_count_and_sum() {
        let cells = StageCells::new();
        for ns in [5, 5_000, 20_000_000_000] {
            cells.observe(TracedApi::Fetch, Stage::Read, ns);
        }
        let read = cells.stage(TracedApi::Fetch, Stage::Read);
        assert_eq!((read.count(), read.sum_ns, read.buckets[BOUNDED_COUNT]), (3, 20_000_005_005, 1));
        assert_eq!(cells.stage(TracedApi::Produce, Stage::Read).count(), 0);
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
            assert!(STAGE_HELP.contains(stage.name()));
        }
    }
}
