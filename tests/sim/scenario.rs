//! Scenario: what a seed stands for. Each draws a subset of faults and features (swarm testing), so that
//! one that always interferes can't hide what the others would show.

use corelane::base::random::Random;
use corelane::log;
use corelane::ring::sim::Faults;
use corelane::shard::storage;

/// Deliberate mistakes, for the tests that prove the instrument.
#[derive(Clone, Copy, Debug, Default)]
pub struct Controls {
    pub log: log::Control,
    pub shard: storage::Control,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The power goes at once.
    PowerCut,
    /// The power goes with some operation of the disk in flight.
    PowerCutAtOperation,
    Kill,
    Stop,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub controls: Controls,
    pub rounds_count: u64,
    pub round_ms_max: u64,
    pub ends: Vec<End>,
    /// Probability, in tenths, that recovery is interrupted as well.
    pub recovery_cut_tenths: u64,
    pub shards_count_max: u64,
    pub lanes_count: u16,
    pub directories_count: u16,
    pub partitions_count: i32,
    pub journal_bytes: u64,
    pub group_bytes_max: u32,
    pub tail_pool_bytes: u64,
    pub segment_bytes: u32,
    pub idempotent_count: u64,
    pub plain_count: u64,
    pub consumers_count: u64,
    pub batch_bytes_max: u64,
    pub in_flight_max: u64,
    pub produce_timeout_ms: i32,
    /// Producers send batches again that are in flight.
    pub resends: bool,
    /// Producers give connections up while answers are owed.
    pub impatient: bool,
    /// Consumers go back to offsets they have read.
    pub rereads: bool,
    /// Milliseconds a client waits between two requests at most.
    pub think_ms_max: u64,
    pub wall_jumps: bool,
    pub faults: Faults,
}

impl Scenario {
    pub fn new(seed: u64, controls: Controls) -> Self {
        // Not the world's numbers: it is seeded with the same seed.
        let mut random = Random::new(seed ^ 0x7363_656e_6172_696f);
        let random = &mut random;
        let some = |random: &mut Random| random.chance(1, 2);
        let mut ends = vec![End::PowerCut];
        for end in [End::PowerCutAtOperation, End::PowerCutAtOperation, End::Kill, End::Stop] {
            if some(random) {
                ends.push(end);
            }
        }
        let journal_bytes = (256 << 10) << random.below(3);
        let tail_pool_bytes = (64 << 10) << random.below(3);
        let batch_bytes_max = 100 << random.below(8);
        Self {
            seed,
            controls,
            rounds_count: 1 + random.below(4),
            round_ms_max: 10 << random.below(5),
            ends,
            recovery_cut_tenths: if some(random) { 0 } else { 1 + random.below(5) },
            shards_count_max: 1 + random.below(2),
            lanes_count: 1 + random.below(3) as u16,
            partitions_count: 1 + random.below(4) as i32,
            journal_bytes,
            group_bytes_max: ((16 << 10) << random.below(3)).min(journal_bytes as u32 / 16),
            tail_pool_bytes: tail_pool_bytes.min(journal_bytes / 2),
            segment_bytes: (32 << 10) << random.below(5),
            idempotent_count: 1 + random.below(3),
            plain_count: random.below(2),
            consumers_count: random.below(3),
            batch_bytes_max,
            in_flight_max: 1 + random.below(5),
            produce_timeout_ms: if some(random) { 30_000 } else { 5 + random.below(100) as i32 },
            resends: some(random),
            impatient: some(random),
            rereads: some(random),
            think_ms_max: if some(random) { 0 } else { 1 + random.below(10) },
            wall_jumps: random.chance(1, 4),
            faults: draw_faults(random),
            directories_count: 1 + random.below(2) as u16,
        }
    }
}

fn draw_faults(random: &mut Random) -> Faults {
    let mut faults = Faults::default();
    if random.chance(1, 4) {
        faults.write_error_ppm = 200;
    }
    if random.chance(1, 4) {
        faults.short_write_ppm = 200;
    }
    if random.chance(1, 4) {
        faults.flush_error_ppm = 1_000;
    }
    if random.chance(1, 3) {
        faults.slow_ppm = 20_000;
        faults.slow_ns = 20_000_000;
    }
    if random.chance(1, 3) {
        faults.disk_max_ns = 200_000;
    }
    if random.chance(1, 3) {
        faults.disconnect_ppm = 2_000;
    }
    if random.chance(1, 3) {
        faults.network_max_ns = 5_000_000;
    }
    faults
}
