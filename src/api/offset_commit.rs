//! OffsetCommit. Key 8, versions 2 to 10.
//!
//! Behaviour: offsets of partitions that exist are committed; others are answered with 3, or with 100
//!            where the topic was given by an id nobody has.
//! Versions:  v5 no retention time; v6 leader epoch; v7 static members; v10 topic ids (KIP-848).
//! Deviations: a negative offset is refused with 42.
//! Sources:   message schemas OffsetCommitRequest, OffsetCommitResponse.

use super::Context;
use super::groups::{Ask, Asks, Kept};
use crate::coordinator::{GroupRequest, GroupResponse};
use crate::protocol::cold;
use crate::protocol::cold::offset_commit_request::{OffsetCommitRequestData, OffsetCommitRequestTopic};
use crate::protocol::cold::offset_commit_response::{
    OffsetCommitResponseData, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::protocol::cold::{text, topic_id, uuid};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::reader::DecodeError;

const TOPIC_ID_FROM: i16 = 10;

pub fn ask(version: i16, body: &[u8], context: &Context<'_>) -> Result<Asks, DecodeError> {
    let mut request: OffsetCommitRequestData = cold::decode(version, body)?;
    let mut refused = Vec::new();
    let mut known = Vec::new();
    for mut topic in std::mem::take(&mut request.topics) {
        let found = if version >= TOPIC_ID_FROM {
            context.catalog.topic_by_id(topic_id(&topic.topic_id))
        } else {
            context.catalog.topic(topic.name.as_str())
        };
        let Some(found) = found else {
            let error = if version >= TOPIC_ID_FROM {
                ErrorCode::UnknownTopicId
            } else {
                ErrorCode::UnknownTopicOrPartition
            };
            refused.push(refuse(&topic, error));
            continue;
        };
        topic.name = text(&found.name);
        topic.topic_id = uuid(found.id);
        let count = found.partitions.len();
        let is_there = |index: i32| usize::try_from(index).is_ok_and(|index| index < count);
        let mut absent = topic.clone();
        absent.partitions.retain(|partition| !is_there(partition.partition_index));
        topic.partitions.retain(|partition| is_there(partition.partition_index));
        if !absent.partitions.is_empty() {
            refused.push(refuse(&absent, ErrorCode::UnknownTopicOrPartition));
        }
        if !topic.partitions.is_empty() {
            known.push(topic);
        }
    }
    request.topics = known;
    let group = request.group_id.as_str().to_string();
    let asks = vec![Ask { group, request: GroupRequest::OffsetCommit(request) }];
    Ok(Asks { asks, kept: Kept::RefusedCommits(refused), of_everyone: None })
}

fn refuse(topic: &OffsetCommitRequestTopic, error: ErrorCode) -> OffsetCommitResponseTopic {
    let partitions = topic.partitions.iter().map(|partition| OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code: error.number(),
        ..Default::default()
    });
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
        ..Default::default()
    }
}

pub fn join(
    part: GroupResponse,
    refused: Vec<OffsetCommitResponseTopic>,
    context: &Context<'_>,
) -> OffsetCommitResponseData {
    let GroupResponse::OffsetCommit(mut response) = part else {
        unreachable!("a coordinator answers what it is asked")
    };
    for topic in &mut response.topics {
        if let Some(found) = context.catalog.topic(topic.name.as_str()) {
            topic.topic_id = uuid(found.id);
        }
    }
    for topic in refused {
        match response
            .topics
            .iter_mut()
            .find(|other| other.name == topic.name && other.topic_id == topic.topic_id)
        {
            Some(other) => other.partitions.extend(topic.partitions),
            None => response.topics.push(topic),
        }
    }
    response
}
