//! Metrics: numbers that a shard writes and others read.
//!
//! Owns:     the cells and the inventory of their names.
//! Promises: a cell has one writer, which stores without a locked instruction; readers see some
//!           recent value.
//! Never:    formats on a shard.

pub mod directory;
pub mod inventory;
pub mod slow;
pub mod stages;
pub mod tally;

use std::sync::atomic::{AtomicU64, Ordering};

use inventory::{METRICS, Metric};
use stages::StageCells;
use tally::{TALLIES_COUNT, Tally};

/// One shard's cells, on cache lines of their own.
#[repr(align(128))]
pub struct Cells {
    numbers: [AtomicU64; METRICS.len()],
    tallies: [AtomicU64; TALLIES_COUNT],
    pub stages: StageCells,
}

impl Cells {
    /// Cells that live as long as the process: they are made once per shard.
    pub fn leaked() -> &'static Self {
        Box::leak(Box::new(Self {
            numbers: std::array::from_fn(|_| AtomicU64::new(0)),
            tallies: std::array::from_fn(|_| AtomicU64::new(0)),
            stages: StageCells::new(),
        }))
    }

    /// Called by the cell's one writer: the owning shard, for `WatchdogWakes` the watchdog.
    pub fn set(&self, metric: Metric, value: u64) {
        self.numbers[metric as usize].store(value, Ordering::Relaxed);
    }

    pub fn get(&self, metric: Metric) -> u64 {
        self.numbers[metric as usize].load(Ordering::Relaxed)
    }

    /// What the calling thread, which is the shard's, has tallied so far.
    pub fn set_tallies(&self) {
        for (cell, count) in self.tallies.iter().zip(tally::counts()) {
            cell.store(count, Ordering::Relaxed);
        }
    }

    pub fn tallied(&self, tally: Tally) -> u64 {
        self.tallies[tally as usize].load(Ordering::Relaxed)
    }
}
