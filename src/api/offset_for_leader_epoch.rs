//! OffsetForLeaderEpoch. Key 23, versions 2 to 4.
//!
//! Behaviour: the largest epoch not above the asked one, and where it ended; -1 and -1 when it is
//!            older than everything known.
//! Versions:  v3 replica id; v4 flexible.
//! Deviations: none known.
//! Sources:   message schemas OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse; KIP-101;
//!            KIP-320.

use super::Context;
use crate::base::ids::{LeaderEpoch, Offset, TopicPartition};
use crate::protocol::cold::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequestData, OffsetForLeaderPartition,
};
use crate::protocol::cold::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponseData, OffsetForLeaderTopicResult,
};
use crate::protocol::error_code::ErrorCode;

pub type Outcome = Result<Option<(LeaderEpoch, Offset)>, ErrorCode>;

/// Which partition is asked, with the leader epoch the client believes in.
pub fn ask(
    topic: &str,
    partition: &OffsetForLeaderPartition,
    context: &Context<'_>,
) -> Result<(TopicPartition, Option<LeaderEpoch>), Outcome> {
    let (_, target) = context.partition(topic, partition.partition).map_err(Err)?;
    let epoch = (partition.current_leader_epoch >= 0).then_some(LeaderEpoch(partition.current_leader_epoch));
    Ok((target, epoch))
}

pub fn respond(
    request: &OffsetForLeaderEpochRequestData,
    outcomes: Vec<Outcome>,
) -> OffsetForLeaderEpochResponseData {
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let mut response = EpochEndOffset {
                partition: partition.partition,
                leader_epoch: -1,
                end_offset: -1,
                ..Default::default()
            };
            match outcomes.next().expect("one outcome per partition") {
                Ok(Some((epoch, end))) => (response.leader_epoch, response.end_offset) = (epoch.0, end.0),
                Ok(None) => {}
                Err(error) => response.error_code = error.number(),
            }
            response
        });
        OffsetForLeaderTopicResult {
            topic: topic.topic.clone(),
            partitions: partitions.collect(),
            ..Default::default()
        }
    });
    OffsetForLeaderEpochResponseData { topics: topics.collect(), ..Default::default() }
}
