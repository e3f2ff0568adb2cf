//! FindCoordinator. Key 10, versions 0 to 6.
//!
//! Behaviour: this node coordinates every group. The offsets topic is made at the first request.
//!            Groups whose part of it is in a failed log directory: code 15.
//! Versions:  v1 key types; v4 several keys (KIP-699); v6 share groups (KIP-932).
//! Deviations: transactional ids (type 1) and share keys (type 2) are answered with 15, retriable,
//!            until their coordinators exist; see COVERAGE.md.
//! Sources:   message schemas FindCoordinatorRequest, FindCoordinatorResponse.

use super::Context;
use super::metadata::new_topic;
use crate::base::ids::{PartitionId, TopicPartition};
use crate::catalog::decide::NewTopic;
use crate::catalog::topic_name::OFFSETS_TOPIC;
use crate::coordinator::partition_of_group;
use crate::protocol::cold::find_coordinator_request::FindCoordinatorRequestData;
use crate::protocol::cold::find_coordinator_response::{Coordinator, FindCoordinatorResponseData};
use crate::protocol::cold::text;
use crate::protocol::error_code::ErrorCode;

const GROUP: i8 = 0;
const SHARE: i8 = 2;

/// The offsets topic, when it has to be made first.
pub fn missing(request: &FindCoordinatorRequestData, context: &Context<'_>) -> Option<NewTopic> {
    let is_needed = request.key_type == GROUP && context.catalog.topic(OFFSETS_TOPIC).is_none();
    is_needed.then(|| new_topic(OFFSETS_TOPIC, context))
}

/// A group whose partition of the offsets topic lies in a failed log directory has no coordinator.
fn check(group: &str, context: &Context<'_>) -> ErrorCode {
    let Some(topic) = context.catalog.topic(OFFSETS_TOPIC) else { return ErrorCode::CoordinatorNotAvailable };
    let partition = PartitionId(partition_of_group(group, topic.partitions.len() as i32));
    match context.catalog.is_offline(TopicPartition { topic_id: topic.id, partition }) {
        true => ErrorCode::CoordinatorNotAvailable,
        false => ErrorCode::None,
    }
}

pub fn respond(
    version: i16,
    request: &FindCoordinatorRequestData,
    context: &Context<'_>,
) -> FindCoordinatorResponseData {
    let error = match request.key_type {
        GROUP if context.catalog.topic(OFFSETS_TOPIC).is_some() => ErrorCode::None,
        GROUP..=SHARE => ErrorCode::CoordinatorNotAvailable,
        _ => ErrorCode::InvalidRequest,
    };
    let answer = |key: &str| {
        let error = if error.is_error() { error } else { check(key, context) };
        let mut coordinator = Coordinator {
            key: text(key),
            node_id: -1,
            port: -1,
            error_code: error.number(),
            ..Default::default()
        };
        if !error.is_error() {
            coordinator.node_id = context.node().0;
            coordinator.host = text(&context.endpoint.host);
            coordinator.port = i32::from(context.endpoint.port);
        }
        coordinator
    };
    if version >= 4 {
        let coordinators = request.coordinator_keys.iter().map(|key| answer(key.as_str())).collect();
        return FindCoordinatorResponseData { coordinators, ..Default::default() };
    }
    let only = answer(request.key.as_str());
    FindCoordinatorResponseData {
        error_code: only.error_code,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    }
}
