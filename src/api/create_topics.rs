//! CreateTopics. Key 19, versions 2 to 7.
//!
//! Behaviour: each topic is decided for itself; a name given twice is refused with 42 both times.
//! Versions:  v4 counts of -1 (KIP-464); v5 the configuration in force; v7 topic ids.
//! Deviations: none known.
//! Sources:   message schemas CreateTopicsRequest, CreateTopicsResponse; KIP-4; KIP-525.

use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use super::describe_configs;
use super::error_map;
use crate::base::ids::{NodeId, PartitionId};
use crate::catalog::decide::{NewTopic, Refusal};
use crate::control::command::{ControlCommand, ControlOutcome, TopicOutcome};
use crate::protocol::cold::create_topics_request::{CreatableTopic, CreateTopicsRequestData};
use crate::protocol::cold::create_topics_response::{CreatableTopicResult, CreateTopicsResponseData};
use crate::protocol::cold::{text, uuid};

/// The command for the topics whose names are given once.
pub fn command(request: &CreateTopicsRequestData) -> ControlCommand {
    let twice = names_given_twice(request);
    let topics =
        request.topics.iter().filter(|topic| !twice.contains(topic.name.as_str())).map(new_topic).collect();
    ControlCommand::CreateTopics { topics, validate_only: request.validate_only }
}

/// Found in one pass: a request may have half a million topics.
fn names_given_twice(request: &CreateTopicsRequestData) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    request.topics.iter().map(|topic| topic.name.as_str()).filter(|name| !seen.insert(*name)).collect()
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let assignments = topic.assignments.iter().map(|assignment| {
        let nodes = assignment.broker_ids.iter().map(|node| NodeId(*node)).collect();
        (PartitionId(assignment.partition_index), nodes)
    });
    let settings = topic.configs.iter().filter_map(|config| {
        config.value.as_ref().map(|value| (config.name.as_str().to_string(), value.as_str().to_string()))
    });
    NewTopic {
        name: topic.name.as_str().to_string(),
        partitions_count: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments.collect(),
        settings: settings.collect(),
        internal: false,
    }
}

pub fn respond(
    request: &CreateTopicsRequestData,
    outcome: ControlOutcome,
    context: &Context<'_>,
) -> CreateTopicsResponseData {
    let mut outcomes = outcome.into_topics();
    let twice = names_given_twice(request);
    let topics = request.topics.iter().map(|topic| {
        let outcome = if twice.contains(topic.name.as_str()) {
            Err(Refusal::Request("Duplicate topic name.".into()))
        } else {
            outcomes.next().unwrap_or(Err(Refusal::NotAvailable))
        };
        result(topic, outcome, context)
    });
    CreateTopicsResponseData { topics: topics.collect(), ..Default::default() }
}

fn result(
    topic: &CreatableTopic,
    outcome: Result<TopicOutcome, Refusal>,
    context: &Context<'_>,
) -> CreatableTopicResult {
    let mut result = CreatableTopicResult {
        name: topic.name.clone(),
        num_partitions: -1,
        replication_factor: -1,
        ..Default::default()
    };
    match outcome {
        Ok(created) => {
            result.topic_id = uuid(created.topic.topic_id);
            result.num_partitions = created.partitions_count;
            result.replication_factor = created.replication_factor;
            let settings: BTreeMap<String, String> = new_topic(topic).settings;
            result.configs = Some(describe_configs::of_created_topic(&settings, &context.catalog.broker));
        }
        Err(refusal) => {
            let (code, message) = error_map::of_refusal(&refusal);
            result.error_code = code.number();
            result.error_message = message.map(|message| text(&message));
        }
    }
    result
}
