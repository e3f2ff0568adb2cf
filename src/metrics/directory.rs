//! Directory: numbers about one log directory that its shards, the control thread and the measurer of
//! disks tell each other. Each number has one writer; readers see some recent value.

use std::sync::atomic::{AtomicU64, Ordering};

/// One log directory's cells. Made once per start, before any shard.
pub struct DirectoryCells {
    total_bytes: AtomicU64,
    usable_bytes: AtomicU64,
    measures_count: AtomicU64,
    shards: Box<[ShardCells]>,
}

/// A file system's space, and how often it was measured by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredSpace {
    pub total_bytes: u64,
    pub usable_bytes: u64,
    pub measures_count: u64,
}

/// What one shard says of its lanes in the directory.
#[derive(Default)]
#[repr(align(128))]
struct ShardCells {
    failed: AtomicU64,
}

impl DirectoryCells {
    /// Cells that live as long as the process.
    pub fn leaked(shards_count: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            total_bytes: AtomicU64::new(0),
            usable_bytes: AtomicU64::new(0),
            measures_count: AtomicU64::new(0),
            shards: (0..shards_count).map(|_| ShardCells::default()).collect(),
        }))
    }

    /// Written by whoever measures the file system.
    pub fn set_space(&self, total_bytes: u64, usable_bytes: u64) {
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.usable_bytes.store(usable_bytes, Ordering::Relaxed);
        // A reader that sees the count sees what was measured, or something newer.
        self.measures_count.fetch_add(1, Ordering::Release);
    }

    /// What was measured last; `None` before the first time.
    pub fn space(&self) -> Option<MeasuredSpace> {
        let measures_count = self.measures_count.load(Ordering::Acquire);
        (measures_count > 0).then(|| MeasuredSpace {
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            usable_bytes: self.usable_bytes.load(Ordering::Relaxed),
            measures_count,
        })
    }

    /// Written by the shard when it knows that the directory failed.
    pub fn set_failed(&self, shard: u16) {
        self.shards[usize::from(shard)].failed.store(1, Ordering::Relaxed);
    }

    pub fn is_failed(&self) -> bool {
        self.shards.iter().any(|shard| shard.failed.load(Ordering::Relaxed) != 0)
    }
}
