//! Error map: the only place where our refusals become Kafka's codes and messages.

use super::fetch_session::SessionError;
use crate::catalog::decide::Refusal;
use crate::protocol::error_code::ErrorCode;

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

pub fn of_session(error: SessionError) -> ErrorCode {
    match error {
        SessionError::IdNotFound => ErrorCode::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
        SessionError::TopicIdMismatch => ErrorCode::FetchSessionTopicIdError,
    }
}
