//! Produce response. Key 0, versions 3 to 13, written piece by piece in the order of the request.
//!
//! Versions:  v5 log start offset; v8 errors of single records (KIP-467); v9 flexible; v10 current leader
//!            (KIP-951); v13 topic ids.
//! Deviations: node endpoints (KIP-951) are left out; clients then ask for Metadata, as before.
//! Sources:   message schema ProduceResponse.

use crate::base::ids::{LeaderEpoch, NodeId, PartitionId, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::produce_request::{FLEXIBLE_FROM, TOPIC_ID_FROM};
use crate::protocol::writer::Writer;

/// Outcome of one partition as it goes to the client.
#[derive(Clone, Copy, Debug)]
pub struct ProducePartitionResponse<'a> {
    pub partition: PartitionId,
    pub error: ErrorCode,
    /// -1 on error.
    pub base_offset: i64,
    /// -1 unless the topic's timestamps are log append times.
    pub log_append_time_ms: i64,
    /// -1 when unknown.
    pub log_start_offset: i64,
    pub record_errors: &'a [RecordError<'a>],
    pub error_message: Option<&'a str>,
    /// The leader to go to, with `NOT_LEADER_OR_FOLLOWER` or `FENCED_LEADER_EPOCH`.
    pub current_leader: Option<(NodeId, LeaderEpoch)>,
}

/// Why one record made its batch fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError<'a> {
    /// 0-based place of the record in its batch.
    pub batch_index: i32,
    pub message: Option<&'a str>,
}

impl<'a> ProducePartitionResponse<'a> {
    pub fn failed(partition: PartitionId, error: ErrorCode, error_message: Option<&'a str>) -> Self {
        Self {
            partition,
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: &[],
            error_message,
            current_leader: None,
        }
    }
}

/// Writes the body of a response. Every promised topic and partition must be written, then `finish` called.
#[derive(Debug)]
pub struct ProduceResponse<'a> {
    writer: Writer<'a>,
    version: i16,
    topics_left: usize,
    partitions_left: usize,
    topic_is_open: bool,
}

impl<'a> ProduceResponse<'a> {
    pub fn new(out: &'a mut Vec<u8>, version: i16, topics_count: usize) -> Self {
        let mut writer = Writer::new(out, version >= FLEXIBLE_FROM);
        writer.array(topics_count);
        Self { writer, version, topics_left: topics_count, partitions_left: 0, topic_is_open: false }
    }

    /// Begins a topic; of `name` and `id` the version has one.
    pub fn topic(&mut self, name: &str, id: TopicId, partitions_count: usize) {
        self.close_topic();
        assert!(self.topics_left > 0, "as many topics as promised");
        self.topics_left -= 1;
        self.partitions_left = partitions_count;
        self.topic_is_open = true;
        if self.version >= TOPIC_ID_FROM {
            self.writer.uuid(id);
        } else {
            self.writer.string(name);
        }
        self.writer.array(partitions_count);
    }

    pub fn partition(&mut self, partition: &ProducePartitionResponse<'_>) {
        assert!(self.partitions_left > 0, "as many partitions as promised");
        self.partitions_left -= 1;
        let writer = &mut self.writer;
        writer.i32(partition.partition.0);
        writer.i16(partition.error.number());
        writer.i64(partition.base_offset);
        writer.i64(partition.log_append_time_ms);
        if self.version >= 5 {
            writer.i64(partition.log_start_offset);
        }
        if self.version >= 8 {
            writer.array(partition.record_errors.len());
            for error in partition.record_errors {
                writer.i32(error.batch_index);
                writer.nullable_string(error.message);
                writer.no_tagged_fields();
            }
            writer.nullable_string(partition.error_message);
        }
        match partition.current_leader {
            Some((leader, epoch)) if self.version >= 10 => {
                writer.uvarint(1);
                writer.tag(0, 9);
                writer.i32(leader.0);
                writer.i32(epoch.0);
                writer.no_tagged_fields();
            }
            _ => writer.no_tagged_fields(),
        }
    }

    pub fn finish(mut self, throttle_ms: i32) {
        self.close_topic();
        assert!(self.topics_left == 0, "as many topics as promised");
        self.writer.i32(throttle_ms);
        self.writer.no_tagged_fields();
    }

    fn close_topic(&mut self) {
        assert!(self.partitions_left == 0, "as many partitions as promised");
        if self.topic_is_open {
            self.writer.no_tagged_fields();
            self.topic_is_open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_partition_in_versions_3_8_and_10() {
        let record_errors = [RecordError { batch_index: 2, message: None }];
        let partition = ProducePartitionResponse {
            record_errors: &record_errors,
            current_leader: Some((NodeId(1), LeaderEpoch(3))),
            ..ProducePartitionResponse::failed(PartitionId(7), ErrorCode::InvalidRecord, Some("no"))
        };
        let minus_one = [0xff; 8];
        for (version, expected) in [
            (
                3,
                [
                    &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 7, 0, 87][..],
                    &minus_one,
                    &minus_one,
                    &[0, 0, 0, 5],
                ]
                .concat(),
            ),
            (
                8,
                [
                    &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 7, 0, 87][..],
                    &minus_one,
                    &minus_one,
                    &minus_one,
                    &[0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0, 2, b'n', b'o', 0, 0, 0, 5],
                ]
                .concat(),
            ),
            (
                10,
                [
                    &[2, 2, b't', 2, 0, 0, 0, 7, 0, 87][..],
                    &minus_one,
                    &minus_one,
                    &minus_one,
                    &[
                        2, 0, 0, 0, 2, 0, 0, 3, b'n', b'o', 1, 0, 9, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0,
                        5, 0,
                    ],
                ]
                .concat(),
            ),
        ] {
            let mut out = Vec::new();
            let mut response = ProduceResponse::new(&mut out, version, 1);
            response.topic("t", TopicId::NONE, 1);
            response.partition(&partition);
            response.finish(5);
            assert_eq!(out, expected, "version {version}");
        }
    }
}
