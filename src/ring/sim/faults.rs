//! Faults: what the simulated world does wrong, and how often.

/// Chances are per million operations. The default is a correct machine with seeded latencies.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A read fails with EIO; the buffer's content is undefined.
    pub read_error_ppm: u32,
    /// A write fails with EIO; any of its sectors may have been written.
    pub write_error_ppm: u32,
    /// A write ends after some whole blocks and says so.
    pub short_write_ppm: u32,
    /// A flush fails with EIO. What it covered is never flushed by a later one that succeeds: the
    /// kernel counts it as clean.
    pub flush_error_ppm: u32,
    /// A write completes without error and was dropped.
    pub lost_write_ppm: u32,
    /// A write completes without error and went to another block of the same file.
    pub misdirected_write_ppm: u32,
    /// A read returns data with one flipped bit.
    pub read_flip_ppm: u32,
    /// The disk's size; writes and allocations beyond it fail with ENOSPC.
    pub capacity_bytes: Option<u64>,
    /// The process has no descriptor left: every open fails, that of a directory to be flushed, too.
    pub no_descriptors: bool,
    /// A chunk of a connection's bytes resets the connection instead of arriving.
    pub disconnect_ppm: u32,
    /// Latency of a disk operation: uniform between these, and `slow_ns` once in a while.
    pub disk_min_ns: u64,
    pub disk_max_ns: u64,
    pub slow_ns: u64,
    pub slow_ppm: u32,
    /// Latency of a chunk on the network.
    pub network_min_ns: u64,
    pub network_max_ns: u64,
}

/// Something that the disk did wrong and called done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lie {
    pub kind: LieKind,
    pub path: String,
    /// What the operation was for.
    pub position: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LieKind {
    /// A write that was dropped.
    Lost,
    /// A write that went to this position instead.
    Misdirected { to: u64 },
    /// A read that gave this byte of the file back with a flipped bit.
    Flipped { at: u64 },
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            read_error_ppm: 0,
            write_error_ppm: 0,
            short_write_ppm: 0,
            flush_error_ppm: 0,
            lost_write_ppm: 0,
            misdirected_write_ppm: 0,
            read_flip_ppm: 0,
            capacity_bytes: None,
            no_descriptors: false,
            disconnect_ppm: 0,
            disk_min_ns: 20_000,
            disk_max_ns: 2_000_000,
            slow_ns: 50_000_000,
            slow_ppm: 1_000,
            network_min_ns: 20_000,
            network_max_ns: 500_000,
        }
    }
}
