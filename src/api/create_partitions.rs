//! CreatePartitions. Key 37, versions 0 to 3.
//!
//! Behaviour: grows topics; each is decided for itself.
//! Versions:  v3 may be answered with 89 by quotas, which don't exist here yet.
//! Deviations: none known.
//! Sources:   message schemas CreatePartitionsRequest, CreatePartitionsResponse; KIP-195.

use super::error_map;
use crate::base::ids::NodeId;
use crate::catalog::decide::Refusal;
use crate::control::command::{ControlCommand, ControlOutcome, GrownTopic};
use crate::protocol::cold::create_partitions_request::{CreatePartitionsRequestData, CreatePartitionsTopic};
use crate::protocol::cold::create_partitions_response::{
    CreatePartitionsResponseData, CreatePartitionsTopicResult,
};
use crate::protocol::cold::text;

pub fn command(request: &CreatePartitionsRequestData) -> ControlCommand {
    let topics = request.topics.iter().map(grown).collect();
    ControlCommand::CreatePartitions { topics, validate_only: request.validate_only }
}

fn grown(topic: &CreatePartitionsTopic) -> GrownTopic {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        let nodes = |ids: &Vec<i32>| ids.iter().map(|node| NodeId(*node)).collect();
        assignments.iter().map(|assignment| nodes(&assignment.broker_ids)).collect()
    });
    GrownTopic { name: topic.name.as_str().to_string(), partitions_count: topic.count, assignments }
}

pub fn respond(
    request: &CreatePartitionsRequestData,
    outcome: ControlOutcome,
) -> CreatePartitionsResponseData {
    let mut outcomes = outcome.into_topics();
    let results = request.topics.iter().map(|topic| {
        let mut result = CreatePartitionsTopicResult { name: topic.name.clone(), ..Default::default() };
        if let Err(refusal) = outcomes.next().unwrap_or(Err(Refusal::NotAvailable)) {
            let (code, message) = error_map::of_refusal(&refusal);
            result.error_code = code.number();
            result.error_message = message.map(|message| text(&message));
        }
        result
    });
    CreatePartitionsResponseData { results: results.collect(), ..Default::default() }
}
