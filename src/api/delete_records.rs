//! DeleteRecords. Key 21, versions 0 to 2.
//!
//! Behaviour: moves the log start of a partition up to an offset, or with -1 to the high watermark;
//!            answered with the log start once that is durable. Segments below it are deleted.
//! Versions:  v2 flexible.
//! Deviations: none known.
//! Sources:   message schemas DeleteRecordsRequest, DeleteRecordsResponse; KIP-107.

use super::Context;
use crate::base::ids::{Offset, TopicPartition};
use crate::catalog::topic_name;
use crate::protocol::cold::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequestData};
use crate::protocol::cold::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponseData, DeleteRecordsTopicResult,
};
use crate::protocol::error_code::ErrorCode;

const HIGH_WATERMARK: i64 = -1;

/// The log start of each partition of the request, in its order.
pub type Outcome = Result<Offset, ErrorCode>;

/// Which partition is asked, and below which offset its records go: the high watermark's where `None`.
pub fn ask(
    topic: &str,
    partition: &DeleteRecordsPartition,
    context: &Context<'_>,
) -> Result<(TopicPartition, Option<Offset>), Outcome> {
    if topic_name::is_internal(topic) {
        return Err(Err(ErrorCode::InvalidTopicException));
    }
    let (topic, target) = context.partition(topic, partition.partition_index).map_err(Err)?;
    if !topic.config.cleanup_delete {
        return Err(Err(ErrorCode::PolicyViolation));
    }
    let before = match partition.offset {
        HIGH_WATERMARK => None,
        offset if offset >= 0 => Some(Offset(offset)),
        _ => return Err(Err(ErrorCode::OffsetOutOfRange)),
    };
    Ok((target, before))
}

pub fn respond(request: &DeleteRecordsRequestData, outcomes: Vec<Outcome>) -> DeleteRecordsResponseData {
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let outcome = outcomes.next().expect("one outcome per partition");
            DeleteRecordsPartitionResult {
                partition_index: partition.partition_index,
                low_watermark: outcome.map_or(-1, |log_start| log_start.0),
                error_code: outcome.err().map_or(0, ErrorCode::number),
                ..Default::default()
            }
        });
        DeleteRecordsTopicResult {
            name: topic.name.clone(),
            partitions: partitions.collect(),
            ..Default::default()
        }
    });
    DeleteRecordsResponseData { topics: topics.collect(), ..Default::default() }
}
