//! Inventory: every metric with its kind and meaning, in the order of its cell.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

#[derive(Debug)]
pub struct Described {
    pub metric: Metric,
    /// With its unit last; counters get `_total` from the exposition format.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

macro_rules! metrics {
    ($($variant:ident, $name:literal, $kind:ident, $help:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric { $($variant),* }

        pub const METRICS: &[Described] = &[
            $(Described { metric: Metric::$variant, name: $name, kind: Kind::$kind, help: $help }),*
        ];
    };
}

metrics! {
    Turns, "corelane_shard_turns", Counter, "Turns of the shard's loop.";
    WatchdogWakes, "corelane_watchdog_wakes", Counter, "Times the shard made no turn while mail or its ring waited for it, and was woken from outside.";
    ConnectionsOpen, "corelane_connections_open_count", Gauge, "Connections open now. Kafka: connection-count.";
    ConnectionsAccepted, "corelane_connections_accepted", Counter, "Connections accepted. Kafka: connection-creation-total.";
    ConnectionsRefused, "corelane_connections_refused", Counter, "Connections closed at once, over max.connections or while stopping.";
    FramesMalformed, "corelane_frames_malformed", Counter, "Connections closed because of what the client sent.";
    ReceivedBytes, "corelane_received_bytes", Counter, "Bytes received from clients. Kafka: incoming-byte-total.";
    SentBytes, "corelane_sent_bytes", Counter, "Bytes sent to clients. Kafka: outgoing-byte-total.";
    RequestsInFlight, "corelane_requests_in_flight_count", Gauge, "Requests that wait for something now.";
    Partitions, "corelane_partitions_count", Gauge, "Partitions of this shard. Kafka: PartitionCount.";
    FetchSessions, "corelane_fetch_sessions_count", Gauge, "Fetch sessions kept. Kafka: NumIncrementalFetchSessions.";
    PlansHeld, "corelane_plans_held_count", Gauge, "Reads of the log in progress; each keeps its segments on disk.";
    CommitGroups, "corelane_commit_groups", Counter, "Durable journal writes.";
    JournalBytes, "corelane_journal_written_bytes", Counter, "Bytes written to the journal.";
    CacheReadBytes, "corelane_cache_read_bytes", Counter, "Bytes of fetches sent from the page cache, without a copy of ours.";
    TailBytes, "corelane_tail_pool_bytes", Gauge, "Memory of tail blocks.";
    PartitionsDamaged, "corelane_partitions_damaged_count", Gauge, "Partitions offline because durable records are missing.";
    ScrubbedBytes, "corelane_scrubbed_bytes", Counter, "Bytes of sealed segments checked in the background.";
    DamageFound, "corelane_damage_found", Counter, "Times the background check found what is not as it was written; the log names file and position.";
    IndexesRebuilt, "corelane_indexes_rebuilt", Counter, "Indexes that were not what was written, made again from their segments.";
    CleanerCleanings, "corelane_cleaner_cleanings", Counter, "Compactions of a partition that came to their end.";
    CleanerReadBytes, "corelane_cleaner_read_bytes", Counter, "Bytes of segments that compaction has replaced.";
    CleanerWrittenBytes, "corelane_cleaner_written_bytes", Counter, "Bytes of the segments it has put in their place.";
    CleanerUncleanable, "corelane_cleaner_uncleanable_partitions_count", Gauge, "Partitions that aren't compacted any more, because a batch can't be read. Kafka: uncleanable-partitions-count.";
    CleanerMaxDirty, "corelane_cleaner_max_dirty_percent", Gauge, "Dirty share of the partition with the largest one, at the last look. Kafka: max-dirty-percent.";
    CleanerMapBytes, "corelane_cleaner_map_bytes", Gauge, "Memory of the keys of the partition being compacted.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_stands_at_its_cell_and_says_what_it_is() {
        for (index, described) in METRICS.iter().enumerate() {
            assert_eq!(described.metric as usize, index);
            assert!(described.help.ends_with('.'), "{}", described.name);
            let has_unit = ["_bytes", "_count", "_percent"].iter().any(|unit| described.name.ends_with(unit));
            assert!(has_unit || described.kind == Kind::Counter, "{}", described.name);
        }
    }
}
