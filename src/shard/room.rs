//! Room: whether a log directory takes more bytes now. Its disk may be short of space, or hang.
//!
//! Owns:     what this shard's lanes may still take of the disk's space: their claim.
//! Promises: the claims of all shards, of bytes in memory that need a place on disk, stay below the free
//!           space less a reserve; so what was acknowledged always finds its place.
//! Never:    asks the disk: its space is measured elsewhere, and told in cells.

use crate::base::ids::MonotonicNs;
use crate::log::Lane;
use crate::metrics::directory::{DirectoryCells, DirectoryState};

#[derive(Clone, Copy, Debug)]
pub struct RoomOptions {
    /// Free bytes of a disk that appends leave alone.
    pub free_bytes_min: u64,
    /// An operation this old means that the disk hangs.
    pub stall_ms: u64,
}

impl Default for RoomOptions {
    fn default() -> Self {
        Self { free_bytes_min: 64 << 20, stall_ms: 10_000 }
    }
}

/// With room for less than a batch of the default `message.max.bytes` a directory counts as full; with
/// room for two it no longer does.
const BATCH_BYTES: u64 = 1 << 20;

/// Between two looks at the lanes: a look walks through their operations in flight.
const LOOK_MS: u64 = 50;

/// Whether bytes are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Take,
    /// Removed files are giving their space back just now.
    Wait,
    /// At once, so that a client may try elsewhere or later.
    Refuse,
}

pub struct Room {
    options: RoomOptions,
    shard: u16,
    cells: &'static DirectoryCells,
    /// The measurement seen last, and what the lanes had ever allocated by then.
    measures_count: u64,
    allocated_bytes: u64,
    claimed_bytes: u64,
    /// Space was being given back since the measurement seen last: the next one may find more.
    freeing: bool,
    looked_at: Option<MonotonicNs>,
    told: DirectoryState,
}

impl Room {
    pub fn new(shard: u16, cells: &'static DirectoryCells, options: RoomOptions) -> Self {
        Self {
            options,
            shard,
            cells,
            measures_count: 0,
            allocated_bytes: 0,
            claimed_bytes: 0,
            freeing: false,
            looked_at: None,
            told: DirectoryState::Online,
        }
    }

    pub fn state(&self) -> DirectoryState {
        let enough_bytes = if self.told == DirectoryState::Full { 2 * BATCH_BYTES } else { BATCH_BYTES };
        if self.cells.is_failed() {
            DirectoryState::Failed
        } else if self.cells.oldest_operation_ms() > self.options.stall_ms {
            DirectoryState::Stalled
        } else if self.has_space(enough_bytes) {
            DirectoryState::Online
        } else {
            DirectoryState::Full
        }
    }

    /// May `bytes` be appended?
    pub fn admit(&self, bytes: u64) -> Admission {
        let works = matches!(self.state(), DirectoryState::Online | DirectoryState::Full);
        match self.has_space(bytes) {
            true if works => Admission::Take,
            false if works && self.freeing => Admission::Wait,
            _ => Admission::Refuse,
        }
    }

    fn has_space(&self, bytes: u64) -> bool {
        let Some(space) = self.cells.space() else { return true };
        let wanted = self.options.free_bytes_min.saturating_add(self.cells.claimed_bytes());
        space.usable_bytes >= wanted.saturating_add(bytes)
    }

    /// `bytes` were appended, and want a place on disk.
    pub fn took(&mut self, bytes: u64) {
        self.claim(self.claimed_bytes + bytes);
    }

    fn claim(&mut self, bytes: u64) {
        self.claimed_bytes = bytes;
        self.cells.set_claimed(self.shard, bytes);
    }

    /// Looks at the lanes of the directory and at what others told; called every turn. True where the space
    /// was measured anew: who waits for it may try again.
    pub fn look<'a>(&mut self, now: MonotonicNs, lanes: impl Iterator<Item = &'a Lane> + Clone) -> bool {
        let measured = self.cells.space().filter(|space| space.measures_count != self.measures_count);
        if let Some(space) = measured {
            self.measures_count = space.measures_count;
            let allocated_bytes: u64 = lanes.clone().map(Lane::allocated_bytes).sum();
            // What was allocated since the look before may be in the measurement, or not yet.
            let since = allocated_bytes - self.allocated_bytes;
            self.allocated_bytes = allocated_bytes;
            self.claim(lanes.clone().map(Lane::unplaced_bytes).sum::<u64>() + since);
            self.freeing = false;
        }
        self.freeing |= lanes.clone().any(Lane::is_freeing);
        if self.looked_at.is_none_or(|before| now.ms_since(before) >= LOOK_MS) {
            self.looked_at = Some(now);
            let oldest = lanes.filter_map(Lane::oldest_operation).min();
            self.cells.set_oldest_operation(self.shard, oldest.map_or(0, |since| now.ms_since(since)));
            self.tell();
        }
        measured.is_some()
    }

    /// Says once what is the matter, and once that it is over. One shard speaks for all.
    fn tell(&mut self) {
        let state = self.state();
        if state == DirectoryState::Full && self.freeing {
            // Nobody is refused yet.
            return;
        }
        if std::mem::replace(&mut self.told, state) == state || self.shard != 0 {
            return;
        }
        self.cells.set_state(state);
        let directory = self.cells.path.as_str();
        match state {
            DirectoryState::Online => tracing::info!(directory, "the log directory takes records again"),
            DirectoryState::Full => tracing::warn!(
                directory,
                "the disk is nearly full: producing is refused until space is free; reading and deleting go on"
            ),
            DirectoryState::Stalled => tracing::warn!(
                directory,
                "the disk hasn't answered for {} ms: producing is refused until it does; check the disk",
                self.cells.oldest_operation_ms()
            ),
            // Told with its reason when it happened.
            DirectoryState::Failed => {}
        }
    }
}
