//! Error map: the only place where our refusals become Kafka's codes and messages.

use super::fetch_session::SessionError;
use super::produce::ProduceError;
use crate::catalog::decide::Refusal;
use crate::partition::append::AppendRefusal;
use crate::partition::idempotence::SequenceError;
use crate::partition::read::ReadRefusal;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::record_batch::BatchError;

/// Code and message of a refused change of metadata.
pub fn of_refusal(refusal: &Refusal) -> (ErrorCode, Option<String>) {
    match refusal {
        Refusal::Name(error) => (ErrorCode::InvalidTopicException, Some(error.to_string())),
        Refusal::NameCollides { existing } => (
            ErrorCode::InvalidTopicException,
            Some(format!("Topic name collides with existing topic: {existing}")),
        ),
        Refusal::TopicExists => (ErrorCode::TopicAlreadyExists, Some("Topic already exists.".into())),
        Refusal::UnknownTopic => (ErrorCode::UnknownTopicOrPartition, None),
        Refusal::PartitionsCount(why) => (ErrorCode::InvalidPartitions, Some(why.clone())),
        Refusal::ReplicationFactor(why) => (ErrorCode::InvalidReplicationFactor, Some(why.clone())),
        Refusal::Assignment(why) => (ErrorCode::InvalidReplicaAssignment, Some(why.clone())),
        Refusal::Request(why) => (ErrorCode::InvalidRequest, Some(why.clone())),
        Refusal::Setting(error) => (ErrorCode::InvalidConfig, Some(error.0.clone())),
        Refusal::TooManyPartitions => {
            (ErrorCode::InvalidPartitions, Some("Too many partitions for one topic.".into()))
        }
        Refusal::InternalTopic => {
            (ErrorCode::InvalidTopicException, Some("The topic is internal to the broker.".into()))
        }
        Refusal::NotAvailable => (ErrorCode::BrokerNotAvailable, None),
    }
}

/// Code and message of a refused batch.
pub fn of_produce(error: &ProduceError) -> (ErrorCode, &'static str) {
    match error {
        ProduceError::InvalidAcks => (ErrorCode::InvalidRequiredAcks, "acks must be 0, 1 or -1 (all)"),
        ProduceError::InvalidTopic => (ErrorCode::InvalidTopicException, "the topic name is not legal"),
        ProduceError::InternalTopic => {
            (ErrorCode::InvalidTopicException, "clients do not write internal topics")
        }
        ProduceError::UnknownTopic => {
            (ErrorCode::UnknownTopicOrPartition, "this server does not host this topic-partition")
        }
        ProduceError::UnknownTopicId => {
            (ErrorCode::UnknownTopicId, "this server does not host this topic id")
        }
        ProduceError::UnsupportedCodec => {
            (ErrorCode::UnsupportedCompressionType, "zstd needs Produce version 7 or later")
        }
        ProduceError::Batch(error) => of_batch(*error),
        ProduceError::Append(refusal) => of_append(refusal),
    }
}

fn of_batch(error: BatchError) -> (ErrorCode, &'static str) {
    match error {
        BatchError::Missing => (ErrorCode::InvalidRecord, "the partition has no record batch"),
        BatchError::SecondBatch => (ErrorCode::InvalidRecord, "the partition has more than one record batch"),
        BatchError::OldMagic => (ErrorCode::InvalidRecord, "only record batches of magic 2 are accepted"),
        BatchError::UnknownMagic => (ErrorCode::CorruptMessage, "the record batch has an unknown magic"),
        BatchError::Length => (ErrorCode::CorruptMessage, "the record batch has a wrong length"),
        BatchError::Checksum => (ErrorCode::CorruptMessage, "the record batch's checksum is wrong"),
        BatchError::Counts => {
            (ErrorCode::InvalidRecord, "the record batch's count and offsets contradict each other")
        }
        BatchError::BaseOffset => (ErrorCode::InvalidRecord, "the record batch's base offset is not 0"),
        BatchError::Control => (ErrorCode::InvalidRecord, "clients do not write control batches"),
        BatchError::Attributes => (ErrorCode::InvalidRecord, "the record batch has unknown attributes"),
        BatchError::UnknownCodec => (ErrorCode::InvalidRecord, "the record batch has an unknown codec"),
        BatchError::Sequence => (
            ErrorCode::InvalidRecord,
            "the record batch's producer id, epoch and sequence contradict each other",
        ),
        BatchError::TimestampType => (ErrorCode::InvalidTimestamp, "producers do not set log append time"),
    }
}

fn of_append(refusal: &AppendRefusal) -> (ErrorCode, &'static str) {
    match refusal {
        AppendRefusal::UnknownPartition => {
            (ErrorCode::UnknownTopicOrPartition, "this server does not host this topic-partition")
        }
        AppendRefusal::TooLarge => {
            (ErrorCode::MessageTooLarge, "the record batch is larger than max.message.bytes")
        }
        AppendRefusal::LargerThanSegment => {
            (ErrorCode::RecordListTooLarge, "the record batch is larger than segment.bytes")
        }
        AppendRefusal::NotEnoughReplicas => {
            (ErrorCode::NotEnoughReplicas, "fewer in-sync replicas than min.insync.replicas")
        }
        AppendRefusal::Timestamp => {
            (ErrorCode::InvalidTimestamp, "a timestamp is outside the window the topic allows")
        }
        AppendRefusal::Sequence(SequenceError::OutOfOrder) => {
            (ErrorCode::OutOfOrderSequenceNumber, "the batch does not follow its producer's last")
        }
        AppendRefusal::Sequence(SequenceError::FencedEpoch) => {
            (ErrorCode::InvalidProducerEpoch, "a newer session of the producer has written")
        }
        AppendRefusal::NotInTransaction => {
            (ErrorCode::InvalidTxnState, "the producer has no transaction on this partition")
        }
        AppendRefusal::Undecodable => (ErrorCode::CorruptMessage, "the records can't be decompressed"),
        AppendRefusal::MalformedRecords => {
            (ErrorCode::InvalidRecord, "the records contradict the record batch's header")
        }
        AppendRefusal::WithoutKey { .. } => {
            (ErrorCode::InvalidRecord, "a compacted topic's records have keys")
        }
        AppendRefusal::StorageError => (ErrorCode::KafkaStorageError, "the log directory can't be written"),
        AppendRefusal::TimedOut => (ErrorCode::RequestTimedOut, "not durable within the request's timeout"),
    }
}

/// What a client of a group is told when its group's records weren't appended.
pub fn of_group_append(refusal: AppendRefusal) -> ErrorCode {
    match refusal {
        AppendRefusal::NotEnoughReplicas | AppendRefusal::TimedOut => ErrorCode::CoordinatorNotAvailable,
        AppendRefusal::TooLarge | AppendRefusal::LargerThanSegment => ErrorCode::InvalidCommitOffsetSize,
        AppendRefusal::UnknownPartition | AppendRefusal::StorageError => ErrorCode::NotCoordinator,
        AppendRefusal::Timestamp
        | AppendRefusal::Sequence(_)
        | AppendRefusal::NotInTransaction
        | AppendRefusal::Undecodable
        | AppendRefusal::MalformedRecords
        | AppendRefusal::WithoutKey { .. } => ErrorCode::UnknownServerError,
    }
}

pub fn of_read(refusal: ReadRefusal) -> ErrorCode {
    match refusal {
        ReadRefusal::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        ReadRefusal::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadRefusal::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
        ReadRefusal::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        ReadRefusal::Offline => ErrorCode::KafkaStorageError,
        ReadRefusal::Busy => ErrorCode::RequestTimedOut,
    }
}

pub fn of_session(error: SessionError) -> ErrorCode {
    match error {
        SessionError::IdNotFound => ErrorCode::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
        SessionError::TopicIdMismatch => ErrorCode::FetchSessionTopicIdError,
    }
}
