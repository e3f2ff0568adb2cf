//! Directory: numbers about one log directory that its shards, the control thread and the measurer of
//! disks tell each other. Each number has one writer; readers see some recent value.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::ids::DirectoryId;

/// How a log directory fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryState {
    Online = 0,
    /// Short of space: what doesn't fit is refused.
    Full = 1,
    /// Its disk hangs: producing is refused.
    Stalled = 2,
    /// Offline until a restart.
    Failed = 3,
}

/// One log directory's cells. Made once per start, before any shard.
pub struct DirectoryCells {
    /// `None` where it couldn't be opened.
    pub id: Option<DirectoryId>,
    pub path: String,
    total_bytes: AtomicU64,
    usable_bytes: AtomicU64,
    measures_count: AtomicU64,
    state: AtomicU64,
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
    claimed_bytes: AtomicU64,
    oldest_operation_ms: AtomicU64,
}

impl DirectoryCells {
    /// Cells that live as long as the process.
    pub fn leaked(id: Option<DirectoryId>, path: String, shards_count: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            id,
            path,
            total_bytes: AtomicU64::new(0),
            usable_bytes: AtomicU64::new(0),
            measures_count: AtomicU64::new(0),
            state: AtomicU64::new(0),
            shards: (0..shards_count).map(|_| ShardCells::default()).collect(),
        }))
    }

    // ---- Written by whoever measures the file system -----------------------------------------

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

    // ---- Written by each shard for itself ----------------------------------------------------

    /// The shard knows that the directory failed.
    pub fn set_failed(&self, shard: u16) {
        self.shards[usize::from(shard)].failed.store(1, Ordering::Relaxed);
    }

    /// Bytes that the shard's lanes may still want of the disk.
    pub fn set_claimed(&self, shard: u16, bytes: u64) {
        self.shards[usize::from(shard)].claimed_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How long the shard's oldest operation on the disk has been in flight.
    pub fn set_oldest_operation(&self, shard: u16, ms: u64) {
        self.shards[usize::from(shard)].oldest_operation_ms.store(ms, Ordering::Relaxed);
    }

    pub fn is_failed(&self) -> bool {
        self.shards.iter().any(|shard| shard.failed.load(Ordering::Relaxed) != 0)
    }

    /// Of all shards.
    pub fn claimed_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.claimed_bytes.load(Ordering::Relaxed)).sum()
    }

    pub fn oldest_operation_ms(&self) -> u64 {
        let of_shards = self.shards.iter().map(|shard| shard.oldest_operation_ms.load(Ordering::Relaxed));
        of_shards.max().unwrap_or(0)
    }

    // ---- Written by the first shard ----------------------------------------------------------

    pub fn set_state(&self, state: DirectoryState) {
        self.state.store(state as u64, Ordering::Relaxed);
    }

    /// The number of a [`DirectoryState`].
    pub fn state(&self) -> u64 {
        if self.is_failed() { DirectoryState::Failed as u64 } else { self.state.load(Ordering::Relaxed) }
    }
}
