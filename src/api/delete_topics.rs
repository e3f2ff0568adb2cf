//! DeleteTopics. Key 20, versions 1 to 6.
//!
//! Behaviour: by name, or from version 6 by id; an unknown name is 3, an unknown id 100.
//! Versions:  v5 error messages; v6 ids (KIP-516).
//! Deviations: none known.
//! Sources:   message schemas DeleteTopicsRequest, DeleteTopicsResponse.

use super::error_map;
use crate::catalog::decide::Refusal;
use crate::control::command::{ControlCommand, ControlOutcome, TopicRef};
use crate::protocol::cold::delete_topics_request::DeleteTopicsRequestData;
use crate::protocol::cold::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponseData};
use crate::protocol::cold::{text, topic_id, uuid};
use crate::protocol::error_code::ErrorCode;

fn asked(version: i16, request: &DeleteTopicsRequestData) -> Vec<TopicRef> {
    if version >= 6 {
        let by_either = |topic: &crate::protocol::cold::delete_topics_request::DeleteTopicState| TopicRef {
            name: topic.name.as_ref().map_or(String::new(), |name| name.as_str().to_string()),
            topic_id: topic_id(&topic.topic_id),
        };
        return request.topics.iter().map(by_either).collect();
    }
    let by_name = |name: &crate::protocol::cold::KafkaString| TopicRef {
        name: name.as_str().to_string(),
        ..TopicRef::default()
    };
    request.topic_names.iter().map(by_name).collect()
}

pub fn command(version: i16, request: &DeleteTopicsRequestData) -> ControlCommand {
    ControlCommand::DeleteTopics { topics: asked(version, request) }
}

pub fn respond(
    version: i16,
    request: &DeleteTopicsRequestData,
    outcome: ControlOutcome,
) -> DeleteTopicsResponseData {
    let mut outcomes = outcome.into_topics();
    let responses = asked(version, request).into_iter().map(|topic| {
        let outcome = outcomes.next().unwrap_or(Err(Refusal::NotAvailable));
        result(topic, outcome.map(|deleted| deleted.topic))
    });
    DeleteTopicsResponseData { responses: responses.collect(), ..Default::default() }
}

fn result(asked: TopicRef, outcome: Result<TopicRef, Refusal>) -> DeletableTopicResult {
    let named = |topic: &TopicRef| (!topic.name.is_empty()).then(|| text(&topic.name));
    match outcome {
        Ok(deleted) => DeletableTopicResult {
            name: named(&deleted),
            topic_id: uuid(deleted.topic_id),
            ..Default::default()
        },
        Err(refusal) => {
            let (mut code, message) = error_map::of_refusal(&refusal);
            if refusal == Refusal::UnknownTopic && asked.name.is_empty() {
                code = ErrorCode::UnknownTopicId;
            }
            DeletableTopicResult {
                name: named(&asked),
                topic_id: uuid(asked.topic_id),
                error_code: code.number(),
                error_message: message.map(|message| text(&message)),
                ..Default::default()
            }
        }
    }
}
