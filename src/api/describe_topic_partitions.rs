//! DescribeTopicPartitions. Key 75, version 0.
//!
//! Behaviour: partitions of topics in the order of their names, in pages (KIP-966); offline ones as in
//!            Metadata.
//! Versions:  only one.
//! Deviations: eligible leader replicas are empty: there is one replica.
//! Sources:   message schemas DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse.

use super::{Context, NO_LEADER, OPERATIONS_UNKNOWN, TOPIC_OPERATIONS};
use crate::catalog::{Topic, topic_name};
use crate::protocol::cold::describe_topic_partitions_request::DescribeTopicPartitionsRequestData;
use crate::protocol::cold::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponseData, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use crate::protocol::cold::{text, uuid};
use crate::protocol::error_code::ErrorCode;

/// Kafka's `max.request.partition.size.limit`.
const PARTITIONS_PER_PAGE_MAX: usize = 2000;

pub fn respond(
    request: &DescribeTopicPartitionsRequestData,
    context: &Context<'_>,
) -> DescribeTopicPartitionsResponseData {
    let mut names: Vec<&str> = if request.topics.is_empty() {
        context.catalog.topics().map(|topic| &*topic.name).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    names.sort_unstable();
    names.dedup();
    let (from_topic, mut from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), usize::try_from(cursor.partition_index).unwrap_or(0)),
        None => ("", 0),
    };
    let mut left =
        usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PARTITIONS_PER_PAGE_MAX);
    let mut response = DescribeTopicPartitionsResponseData::default();
    for name in names.into_iter().filter(|name| *name >= from_topic) {
        let from = if name == from_topic { std::mem::take(&mut from_partition) } else { 0 };
        let Some(topic) = context.catalog.topic(name) else {
            response.topics.push(unknown(name));
            continue;
        };
        if left == 0 {
            response.next_cursor = Some(cursor(name, from));
            break;
        }
        let to = topic.partitions.len().min(from.saturating_add(left));
        response.topics.push(page(topic, from, to, context));
        left -= to.saturating_sub(from);
        if to < topic.partitions.len() {
            response.next_cursor = Some(cursor(name, to));
            break;
        }
    }
    response
}

fn cursor(name: &str, partition: usize) -> Box<Cursor> {
    Box::new(Cursor { topic_name: text(name), partition_index: partition as i32, ..Default::default() })
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = if topic_name::validate(name).is_ok() {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    };
    DescribeTopicPartitionsResponseTopic {
        error_code: error.number(),
        name: Some(text(name)),
        topic_authorized_operations: OPERATIONS_UNKNOWN,
        ..Default::default()
    }
}

fn page(
    topic: &Topic,
    from: usize,
    to: usize,
    context: &Context<'_>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions.iter().enumerate().take(to).skip(from).map(|(index, partition)| {
        let nodes: Vec<i32> = partition.replicas.iter().map(|replica| replica.node.0).collect();
        let offline_replicas = context.offline_replicas(partition);
        let is_led = !offline_replicas.contains(&partition.leader.0);
        let error = if is_led { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
        DescribeTopicPartitionsResponsePartition {
            error_code: error.number(),
            partition_index: index as i32,
            leader_id: if is_led { partition.leader.0 } else { NO_LEADER },
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: nodes.clone(),
            isr_nodes: nodes,
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            offline_replicas,
            ..Default::default()
        }
    });
    DescribeTopicPartitionsResponseTopic {
        name: Some(text(&topic.name)),
        topic_id: uuid(topic.id),
        is_internal: topic_name::is_internal(&topic.name),
        partitions: partitions.collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}
