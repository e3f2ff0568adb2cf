//! ListOffsets. Key 2, versions 1 to 11.
//!
//! Behaviour: earliest (-2), latest (-1: the high watermark), largest timestamp (-3), earliest local
//!            (-4), and the first record at or after a time. No such record is offset -1.
//! Versions:  v2 isolation level; v4 leader epoch; v7 largest timestamp (KIP-734); v8 earliest local
//!            (KIP-405); v9 latest tiered (KIP-1005); v11 earliest pending upload (KIP-1023).
//! Deviations: nothing is tiered, so -5 and -6 are answered with offset -1.
//! Sources:   message schemas ListOffsetsRequest, ListOffsetsResponse.

use super::Context;
use crate::base::ids::{LeaderEpoch, TopicPartition};
use crate::partition::read::{ListedOffset, OffsetQuery};
use crate::protocol::cold::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequestData};
use crate::protocol::cold::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponseData, ListOffsetsTopicResponse,
};
use crate::protocol::error_code::ErrorCode;

const LEADER_EPOCH_FROM: i16 = 4;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// One answer per partition of the request, in its order.
pub type Outcome = Result<Option<ListedOffset>, ErrorCode>;

/// What a partition is asked, or what is answered without asking.
pub fn ask(
    version: i16,
    topic: &str,
    partition: &ListOffsetsPartition,
    context: &Context<'_>,
) -> Result<(TopicPartition, Option<LeaderEpoch>, OffsetQuery), Outcome> {
    let (_, target) = context.partition(topic, partition.partition_index).map_err(Err)?;
    let since = |first: i16, query: OffsetQuery| {
        if version >= first { Ok(query) } else { Err(Err(ErrorCode::UnsupportedVersion)) }
    };
    let query = match partition.timestamp {
        LATEST => OffsetQuery::Latest,
        EARLIEST => OffsetQuery::Earliest,
        MAX_TIMESTAMP => since(7, OffsetQuery::MaxTimestamp)?,
        EARLIEST_LOCAL => since(8, OffsetQuery::Earliest)?,
        LATEST_TIERED if version >= 9 => return Err(Ok(None)),
        EARLIEST_PENDING_UPLOAD if version >= 11 => return Err(Ok(None)),
        time if time >= 0 => OffsetQuery::AtOrAfter(time),
        _ => return Err(Err(ErrorCode::UnsupportedVersion)),
    };
    let epoch = (partition.current_leader_epoch >= 0).then_some(LeaderEpoch(partition.current_leader_epoch));
    Ok((target, epoch, query))
}

pub fn respond(
    version: i16,
    request: &ListOffsetsRequestData,
    outcomes: Vec<Outcome>,
) -> ListOffsetsResponseData {
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let mut response = ListOffsetsPartitionResponse {
                partition_index: partition.partition_index,
                timestamp: -1,
                offset: -1,
                leader_epoch: -1,
                ..Default::default()
            };
            match outcomes.next().expect("one outcome per partition") {
                Ok(Some(listed)) => {
                    response.timestamp = listed.timestamp;
                    response.offset = listed.offset.0;
                    if version >= LEADER_EPOCH_FROM {
                        response.leader_epoch = listed.leader_epoch.0;
                    }
                }
                Ok(None) => {}
                Err(error) => response.error_code = error.number(),
            }
            response
        });
        ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: partitions.collect(),
            ..Default::default()
        }
    });
    ListOffsetsResponseData { topics: topics.collect(), ..Default::default() }
}
