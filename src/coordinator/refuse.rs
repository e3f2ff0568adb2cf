//! Refuse: the answer to a request that no coordinator takes.

use super::request::{GroupRequest, GroupResponse};
use crate::protocol::cold::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponseData};
use crate::protocol::cold::describe_groups_response::{DescribeGroupsResponseData, DescribedGroup};
use crate::protocol::cold::heartbeat_response::HeartbeatResponseData;
use crate::protocol::cold::join_group_response::JoinGroupResponseData;
use crate::protocol::cold::leave_group_response::LeaveGroupResponseData;
use crate::protocol::cold::list_groups_response::ListGroupsResponseData;
use crate::protocol::cold::offset_commit_response::{
    OffsetCommitResponseData, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::protocol::cold::offset_fetch_response::{
    OffsetFetchResponseData, OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use crate::protocol::cold::sync_group_response::SyncGroupResponseData;
use crate::protocol::cold::text;
use crate::protocol::error_code::ErrorCode;

impl GroupRequest {
    /// Answers every group of the request with `error`.
    pub fn refuse(self, error: ErrorCode) -> GroupResponse {
        let error_code = error.number();
        match self {
            Self::Join(request) => GroupResponse::Join(JoinGroupResponseData {
                error_code,
                generation_id: -1,
                member_id: request.member_id,
                ..Default::default()
            }),
            Self::Sync(_) => GroupResponse::Sync(SyncGroupResponseData { error_code, ..Default::default() }),
            Self::Heartbeat(_) => {
                GroupResponse::Heartbeat(HeartbeatResponseData { error_code, ..Default::default() })
            }
            Self::Leave(_) => {
                GroupResponse::Leave(LeaveGroupResponseData { error_code, ..Default::default() })
            }
            Self::OffsetCommit(request) => {
                let topics = request.topics.into_iter().map(|topic| {
                    let partition = |partition_index| OffsetCommitResponsePartition {
                        partition_index,
                        error_code,
                        ..Default::default()
                    };
                    OffsetCommitResponseTopic {
                        name: topic.name,
                        topic_id: topic.topic_id,
                        partitions: topic
                            .partitions
                            .iter()
                            .map(|asked| partition(asked.partition_index))
                            .collect(),
                        ..Default::default()
                    }
                });
                GroupResponse::OffsetCommit(OffsetCommitResponseData {
                    topics: topics.collect(),
                    ..Default::default()
                })
            }
            // Up to version 7 the error stands at each partition, where version 1 has it as well.
            Self::OffsetFetch(request) => {
                let groups = request.groups.into_iter().map(|group| OffsetFetchResponseGroup {
                    group_id: group.group_id,
                    error_code,
                    ..Default::default()
                });
                let partition = |partition_index: &i32| OffsetFetchResponsePartition {
                    partition_index: *partition_index,
                    committed_offset: -1,
                    metadata: Some(text("")),
                    error_code,
                    ..Default::default()
                };
                let topics = request.topics.into_iter().flatten().map(|topic| OffsetFetchResponseTopic {
                    name: topic.name,
                    partitions: topic.partition_indexes.iter().map(partition).collect(),
                    ..Default::default()
                });
                GroupResponse::OffsetFetch(OffsetFetchResponseData {
                    topics: topics.collect(),
                    groups: groups.collect(),
                    ..Default::default()
                })
            }
            Self::List(_) => GroupResponse::List(ListGroupsResponseData { error_code, ..Default::default() }),
            Self::Describe(request) => {
                let groups = request.groups.into_iter().map(|group_id| DescribedGroup {
                    error_code,
                    group_id,
                    ..Default::default()
                });
                GroupResponse::Describe(DescribeGroupsResponseData {
                    groups: groups.collect(),
                    ..Default::default()
                })
            }
            Self::Delete(request) => {
                let results = request.groups_names.into_iter().map(|group_id| DeletableGroupResult {
                    group_id,
                    error_code,
                    ..Default::default()
                });
                GroupResponse::Delete(DeleteGroupsResponseData {
                    results: results.collect(),
                    ..Default::default()
                })
            }
        }
    }
}
