//! Fetch response. Key 1, versions 4 to 18: everything but the records, which stay where they are.
//!
//! ```text
//! bytes   | length, header, topic, partition 0, n |              | tags, partition 1, m |         | tags |
//! holes                                           | n bytes here |                      | m bytes |
//! ```
//!
//! Promises: the frame's length counts the holes; whoever sends the frame fills them in order.
//! Never:    copies records; sends a null record field (KAFKA-18646: librdkafka refuses it).
//!
//! Versions:  v5 log start offset; v7 session and top-level error; v11 preferred read replica; v12 flexible,
//!            current leader (KIP-951); v13 topic ids.
//! Deviations: the preferred read replica is always -1; diverging epoch, snapshot id and node endpoints are
//!            left out.
//! Sources:   message schema FetchResponse.

use crate::base::ids::{CorrelationId, LeaderEpoch, NodeId, PartitionId, ProducerId, TopicId};
use crate::protocol::api_key::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::fetch_request::{FLEXIBLE_FROM, TOPIC_ID_FROM};
use crate::protocol::frame;
use crate::protocol::header::begin_response;
use crate::protocol::writer::Writer;

/// Where records go: in front of `bytes[at]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    pub at: usize,
    pub bytes: usize,
}

/// A whole response frame without its records. Holes ascend by `at` and are never empty.
#[derive(Debug, Default)]
pub struct FetchFrame {
    pub bytes: Vec<u8>,
    pub holes: Vec<Hole>,
    /// Bytes to send in all, length in front and holes included.
    pub total_bytes: usize,
}

/// What a response says before its topics.
#[derive(Clone, Copy, Debug)]
pub struct FetchResponseHead {
    pub throttle_ms: i32,
    /// Not sent below version 7.
    pub error: ErrorCode,
    /// Not sent below version 7; 0 outside a session.
    pub session_id: i32,
}

/// One partition of the response.
#[derive(Clone, Copy, Debug)]
pub struct FetchPartitionResponse<'a> {
    pub partition: PartitionId,
    pub error: ErrorCode,
    /// -1 on error.
    pub high_watermark: i64,
    /// -1 on error.
    pub last_stable_offset: i64,
    /// -1 on error.
    pub log_start_offset: i64,
    /// `None` for readers of uncommitted records. Sorted by first offset.
    pub aborted_transactions: Option<&'a [AbortedTransaction]>,
    /// The leader to go to, with `NOT_LEADER_OR_FOLLOWER` or `FENCED_LEADER_EPOCH`.
    pub current_leader: Option<(NodeId, LeaderEpoch)>,
    pub records_bytes: usize,
}

/// A transaction whose records the client must skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: ProducerId,
    pub first_offset: i64,
}

impl FetchPartitionResponse<'_> {
    pub fn failed(partition: PartitionId, error: ErrorCode) -> Self {
        Self {
            partition,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: None,
            current_leader: None,
            records_bytes: 0,
        }
    }
}

/// Writes a response. Every promised topic and partition must be written, then `finish` called.
#[derive(Debug)]
pub struct FetchResponse {
    frame: FetchFrame,
    version: i16,
    topics_left: usize,
    partitions_left: usize,
    topic_is_open: bool,
}

impl FetchResponse {
    /// Begins the frame. The buffers of `reused` are emptied and kept.
    pub fn new(
        mut reused: FetchFrame,
        version: i16,
        correlation_id: CorrelationId,
        head: FetchResponseHead,
        topics_count: usize,
    ) -> Self {
        reused.bytes.clear();
        reused.holes.clear();
        begin_response(&mut reused.bytes, ApiKey::Fetch, version, correlation_id);
        let mut writer = Writer::new(&mut reused.bytes, version >= FLEXIBLE_FROM);
        writer.i32(head.throttle_ms);
        if version >= 7 {
            writer.i16(head.error.number());
            writer.i32(head.session_id);
        }
        writer.array(topics_count);
        Self { frame: reused, version, topics_left: topics_count, partitions_left: 0, topic_is_open: false }
    }

    /// Begins a topic; of `name` and `id` the version has one.
    pub fn topic(&mut self, name: &str, id: TopicId, partitions_count: usize) {
        self.close_topic();
        assert!(self.topics_left > 0, "as many topics as promised");
        self.topics_left -= 1;
        self.partitions_left = partitions_count;
        self.topic_is_open = true;
        let has_id = self.version >= TOPIC_ID_FROM;
        let mut writer = self.writer();
        if has_id {
            writer.uuid(id);
        } else {
            writer.string(name);
        }
        writer.array(partitions_count);
    }

    /// Writes a partition and leaves a hole for its records.
    pub fn partition(&mut self, partition: &FetchPartitionResponse<'_>) {
        assert!(self.partitions_left > 0, "as many partitions as promised");
        self.partitions_left -= 1;
        let version = self.version;
        let mut writer = self.writer();
        writer.i32(partition.partition.0);
        writer.i16(partition.error.number());
        writer.i64(partition.high_watermark);
        writer.i64(partition.last_stable_offset);
        if version >= 5 {
            writer.i64(partition.log_start_offset);
        }
        write_aborted(&mut writer, partition.aborted_transactions);
        if version >= 11 {
            writer.i32(-1);
        }
        writer.length(Some(partition.records_bytes));
        if partition.records_bytes > 0 {
            let at = self.frame.bytes.len();
            self.frame.holes.push(Hole { at, bytes: partition.records_bytes });
        }
        self.write_partition_tags(partition);
    }

    fn write_partition_tags(&mut self, partition: &FetchPartitionResponse<'_>) {
        let mut writer = self.writer();
        match partition.current_leader {
            Some((leader, epoch)) if writer.flexible => {
                writer.uvarint(1);
                writer.tag(1, 9);
                writer.i32(leader.0);
                writer.i32(epoch.0);
                writer.no_tagged_fields();
            }
            _ => writer.no_tagged_fields(),
        }
    }

    /// The frame with its length.
    pub fn finish(mut self) -> FetchFrame {
        self.close_topic();
        assert!(self.topics_left == 0, "as many topics as promised");
        self.writer().no_tagged_fields();
        let holes_bytes = self.frame.holes.iter().map(|hole| hole.bytes).sum();
        self.frame.total_bytes = frame::end(&mut self.frame.bytes, 0, holes_bytes);
        self.frame
    }

    fn close_topic(&mut self) {
        assert!(self.partitions_left == 0, "as many partitions as promised");
        if self.topic_is_open {
            self.writer().no_tagged_fields();
            self.topic_is_open = false;
        }
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::new(&mut self.frame.bytes, self.version >= FLEXIBLE_FROM)
    }
}

fn write_aborted(writer: &mut Writer<'_>, aborted: Option<&[AbortedTransaction]>) {
    writer.length(aborted.map(<[_]>::len));
    for transaction in aborted.unwrap_or_default() {
        writer.i64(transaction.producer_id.0);
        writer.i64(transaction.first_offset);
        writer.no_tagged_fields();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_counts_the_holes() {
        for (version, head_bytes, between) in [(4, 53, 0), (12, 59, 1)] {
            let head = FetchResponseHead { throttle_ms: 0, error: ErrorCode::None, session_id: 0 };
            let mut response = FetchResponse::new(FetchFrame::default(), version, CorrelationId(1), head, 1);
            response.topic("t", TopicId::NONE, 2);
            let full = FetchPartitionResponse {
                records_bytes: 100,
                error: ErrorCode::None,
                ..FetchPartitionResponse::failed(PartitionId(0), ErrorCode::None)
            };
            response.partition(&full);
            response.partition(&FetchPartitionResponse::failed(PartitionId(1), ErrorCode::OffsetOutOfRange));
            let frame = response.finish();
            assert_eq!(frame.total_bytes, frame.bytes.len() + 100);
            let length = i32::from_be_bytes([frame.bytes[0], frame.bytes[1], frame.bytes[2], frame.bytes[3]]);
            assert_eq!(length as usize + 4, frame.total_bytes);
            assert_eq!(frame.holes.len(), 1, "an empty record field has no hole");
            let hole = frame.holes[0];
            assert_eq!((hole.at, hole.bytes), (head_bytes, 100));
            // Behind the hole: the tags of the first partition, then the second one.
            assert_eq!(frame.bytes[hole.at + between..][..6], [0, 0, 0, 1, 0, 1]);
        }
    }
}
