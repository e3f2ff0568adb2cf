//! Metadata. Key 3, versions 0 to 13.
//!
//! Behaviour: topics by name or id, all topics for a null list (an empty list in version 0), brokers,
//!            controller, cluster. Unknown names are created when the client and the broker allow it;
//!            the answer then waits for the commit instead of saying 5 first, as Kafka does. A partition
//!            in a failed log directory has code 5, no leader and an offline replica.
//! Versions:  v1 null means all; v4 auto-creation flag; v8 authorised operations (v8 to 10 also the
//!            cluster's); v10 topic ids; v12 lookup by id; v13 top-level error.
//! Deviations: none known.
//! Sources:   message schemas MetadataRequest, MetadataResponse; KIP-516; KIP-430.

use super::{CLUSTER_OPERATIONS, Context, NO_LEADER, OPERATIONS_UNKNOWN, TOPIC_OPERATIONS};
use crate::base::ids::TopicId;
use crate::catalog::decide::NewTopic;
use crate::catalog::{Topic, topic_name};
use crate::protocol::cold::metadata_request::MetadataRequestData;
use crate::protocol::cold::metadata_response::{
    MetadataResponseBroker, MetadataResponseData, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::protocol::cold::{text, topic_id, uuid};
use crate::protocol::error_code::ErrorCode;

/// Topics to create before `respond` can answer.
pub fn missing(request: &MetadataRequestData, context: &Context<'_>) -> Vec<NewTopic> {
    if !request.allow_auto_topic_creation || !context.auto_create_topics {
        return Vec::new();
    }
    let names = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
    names
        .map(|name| name.as_str())
        .filter(|name| context.catalog.topic(name).is_none() && topic_name::validate(name).is_ok())
        .map(|name| new_topic(name, context))
        .collect()
}

/// A topic as the broker creates it by itself.
pub fn new_topic(name: &str, context: &Context<'_>) -> NewTopic {
    let internal = topic_name::is_internal(name);
    let mut topic = NewTopic {
        name: name.to_string(),
        partitions_count: -1,
        replication_factor: -1,
        internal,
        ..NewTopic::default()
    };
    if internal {
        topic.partitions_count = context.offsets_partitions_count;
        topic.settings =
            [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "104857600")]
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .into();
    }
    topic
}

pub fn respond(version: i16, request: &MetadataRequestData, context: &Context<'_>) -> MetadataResponseData {
    let wants_all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let include = request.include_topic_authorized_operations;
    let mut response = MetadataResponseData {
        brokers: vec![MetadataResponseBroker {
            node_id: context.node().0,
            host: text(&context.endpoint.host),
            port: i32::from(context.endpoint.port),
            ..Default::default()
        }],
        cluster_id: Some(text(&context.catalog.cluster_id)),
        controller_id: context.node().0,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response.topics = if wants_all {
        context.catalog.topics().map(|topic| found(topic, include, context)).collect()
    } else {
        let asked = request.topics.iter().flatten();
        asked
            .map(|asked| match (&asked.name, topic_id(&asked.topic_id)) {
                // As in Kafka, an id counts more than a name beside it.
                (Some(name), TopicId::NONE) => by_name(name.as_str(), include, context),
                (_, id) => by_id(id, include, context),
            })
            .collect()
    };
    response
}

fn by_name(name: &str, include: bool, context: &Context<'_>) -> MetadataResponseTopic {
    match context.catalog.topic(name) {
        Some(topic) => found(topic, include, context),
        None => {
            let error = if topic_name::validate(name).is_ok() {
                ErrorCode::UnknownTopicOrPartition
            } else {
                ErrorCode::InvalidTopicException
            };
            MetadataResponseTopic {
                error_code: error.number(),
                name: Some(text(name)),
                is_internal: topic_name::is_internal(name),
                topic_authorized_operations: OPERATIONS_UNKNOWN,
                ..Default::default()
            }
        }
    }
}

fn by_id(id: TopicId, include: bool, context: &Context<'_>) -> MetadataResponseTopic {
    match context.catalog.topic_by_id(id) {
        Some(topic) => found(topic, include, context),
        None => MetadataResponseTopic {
            error_code: ErrorCode::UnknownTopicId.number(),
            name: None,
            topic_id: uuid(id),
            topic_authorized_operations: OPERATIONS_UNKNOWN,
            ..Default::default()
        },
    }
}

fn found(topic: &Topic, include: bool, context: &Context<'_>) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| {
        let nodes: Vec<i32> = partition.replicas.iter().map(|replica| replica.node.0).collect();
        let offline_replicas = context.offline_replicas(partition);
        let is_led = !offline_replicas.contains(&partition.leader.0);
        let error = if is_led { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
        MetadataResponsePartition {
            error_code: error.number(),
            partition_index: index as i32,
            leader_id: if is_led { partition.leader.0 } else { NO_LEADER },
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: nodes.clone(),
            isr_nodes: nodes,
            offline_replicas,
            ..Default::default()
        }
    });
    MetadataResponseTopic {
        name: Some(text(&topic.name)),
        topic_id: uuid(topic.id),
        is_internal: topic_name::is_internal(&topic.name),
        partitions: partitions.collect(),
        topic_authorized_operations: if include { TOPIC_OPERATIONS } else { OPERATIONS_UNKNOWN },
        ..Default::default()
    }
}
