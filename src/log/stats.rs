//! Stats: what a lane counts.

/// Upper bounds of the flush latency buckets, microseconds; the last bucket has none.
pub const FLUSH_BUCKETS_US: [u64; 11] =
    [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 51_200, 204_800];

/// Counters since the lane was opened, and the present size of its pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    pub appends_count: u64,
    pub appended_bytes: u64,
    /// Appends and creations refused for now.
    pub busy_count: u64,
    pub groups_count: u64,
    /// Written to the journal, with headers and padding.
    pub group_bytes: u64,
    /// Time from a group's submission to its durability, by [`FLUSH_BUCKETS_US`].
    pub flush_buckets: [u64; FLUSH_BUCKETS_US.len() + 1],
    pub flush_ns_sum: u64,
    pub materialised_bytes: u64,
    /// Disk space taken for segments and journal files.
    pub allocated_bytes: u64,
    pub materialise_writes_count: u64,
    pub segment_flushes_count: u64,
    pub image_entries_count: u64,
    pub checkpoints_count: u64,
    pub checkpoint_bytes: u64,
    pub recycled_files_count: u64,
    pub rolls_count: u64,
    pub seals_count: u64,
    pub segments_deleted_count: u64,
    /// Indexes that weren't what was written, and were made again from their segments.
    pub indexes_rebuilt_count: u64,
    /// Looked at by the scrub.
    pub scrubbed_bytes: u64,
    pub scrubbed_segments_count: u64,
    pub scrub_rounds_count: u64,
    /// Times that it found something that isn't as it was written.
    pub damage_count: u64,
    /// Runs of segments replaced by compacted ones, their bytes, and the bytes that stayed.
    pub cleans_count: u64,
    pub cleaned_bytes: u64,
    pub cleaned_kept_bytes: u64,
    pub disk_reads_count: u64,
    pub disk_read_bytes: u64,
    pub tail_read_bytes: u64,
    /// Sent from the page cache.
    pub cache_read_bytes: u64,
    /// Times that the disk had no space, or the process no descriptor, for a segment.
    pub space_refusals_count: u64,
    pub tail_bytes: u64,
    pub journal_used_bytes: u64,
    pub journal_capacity_bytes: u64,
    pub files_open_count: u64,
    pub partitions_count: u64,
    pub partitions_damaged_count: u64,
}

impl LaneStats {
    pub(super) fn note_flush(&mut self, ns: u64) {
        let us = ns / 1_000;
        let bucket = FLUSH_BUCKETS_US.iter().position(|bound| us <= *bound).unwrap_or(FLUSH_BUCKETS_US.len());
        self.flush_buckets[bucket] += 1;
        self.flush_ns_sum += ns;
    }
}
