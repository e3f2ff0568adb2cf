//! OffsetFetch. Key 9, versions 1 to 10.
//!
//! Behaviour: committed offsets of partitions, or of all when the topics are null; -1 where none is.
//! Versions:  v2 group error; v5 leader epoch; v7 stable offsets; v8 several groups (KIP-709); v9
//!            member epoch; v10 topic ids (KIP-848).
//! Deviations: without transactions every offset is stable.
//! Sources:   message schemas OffsetFetchRequest, OffsetFetchResponse.

use super::Context;
use super::groups::{Ask, Asks, Kept};
use crate::coordinator::{GroupRequest, GroupResponse};
use crate::protocol::cold;
use crate::protocol::cold::offset_fetch_request::{
    OffsetFetchRequestData, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use crate::protocol::cold::offset_fetch_response::{
    OffsetFetchResponseData, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use crate::protocol::cold::{text, topic_id, uuid};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::reader::DecodeError;

const GROUPS_FROM: i16 = 8;
const TOPIC_ID_FROM: i16 = 10;

/// One request per group: each has its own coordinator.
pub fn ask(version: i16, body: &[u8], context: &Context<'_>) -> Result<Asks, DecodeError> {
    let mut request: OffsetFetchRequestData = cold::decode(version, body)?;
    if version < GROUPS_FROM {
        let group = request.group_id.as_str().to_string();
        return Ok(Asks::of_groups(vec![Ask { group, request: GroupRequest::OffsetFetch(request) }]));
    }
    let mut asks = Vec::new();
    let mut refused = Vec::new();
    for mut group in std::mem::take(&mut request.groups) {
        let unknown = if version >= TOPIC_ID_FROM { name_topics(&mut group, context) } else { Vec::new() };
        refused.push(unknown);
        let name = group.group_id.as_str().to_string();
        let alone = OffsetFetchRequestData { groups: vec![group], ..request.clone() };
        asks.push(Ask { group: name, request: GroupRequest::OffsetFetch(alone) });
    }
    Ok(Asks { asks, kept: Kept::RefusedFetches(refused), of_everyone: None })
}

/// Gives the topics their names and returns the answers of those whose id nobody has.
fn name_topics(group: &mut OffsetFetchRequestGroup, context: &Context<'_>) -> Vec<OffsetFetchResponseTopics> {
    let Some(topics) = group.topics.take() else { return Vec::new() };
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    for mut topic in topics {
        match context.catalog.topic_by_id(topic_id(&topic.topic_id)) {
            Some(found) => {
                topic.name = text(&found.name);
                known.push(topic);
            }
            None => unknown.push(refuse(&topic)),
        }
    }
    group.topics = Some(known);
    unknown
}

fn refuse(topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|index| OffsetFetchResponsePartitions {
        partition_index: *index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(text("")),
        error_code: ErrorCode::UnknownTopicId.number(),
        ..Default::default()
    });
    OffsetFetchResponseTopics {
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
        ..Default::default()
    }
}

pub fn join(
    version: i16,
    parts: Vec<GroupResponse>,
    refused: Vec<Vec<OffsetFetchResponseTopics>>,
    context: &Context<'_>,
) -> OffsetFetchResponseData {
    let mut joined = OffsetFetchResponseData::default();
    let mut refused = refused.into_iter();
    for part in parts {
        let GroupResponse::OffsetFetch(mut response) = part else {
            unreachable!("a coordinator answers what it is asked")
        };
        if version < GROUPS_FROM {
            return response;
        }
        let unknown = refused.next().unwrap_or_default();
        for group in &mut response.groups {
            if version >= TOPIC_ID_FROM {
                // A committed topic that was deleted since has no id to be told by.
                group.topics.retain_mut(|topic| match context.catalog.topic(topic.name.as_str()) {
                    Some(found) => {
                        topic.topic_id = uuid(found.id);
                        true
                    }
                    None => false,
                });
                group.topics.extend(unknown.iter().cloned());
            }
        }
        joined.groups.extend(response.groups);
    }
    joined
}
