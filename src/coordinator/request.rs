//! Request: what the coordinator is asked and what it answers, in the messages of the protocol.

use super::records::GroupRecord;
use crate::base::ids::WallMs;
use crate::protocol::cold::delete_groups_request::DeleteGroupsRequestData;
use crate::protocol::cold::delete_groups_response::DeleteGroupsResponseData;
use crate::protocol::cold::describe_groups_request::DescribeGroupsRequestData;
use crate::protocol::cold::describe_groups_response::DescribeGroupsResponseData;
use crate::protocol::cold::heartbeat_request::HeartbeatRequestData;
use crate::protocol::cold::heartbeat_response::HeartbeatResponseData;
use crate::protocol::cold::join_group_request::JoinGroupRequestData;
use crate::protocol::cold::join_group_response::JoinGroupResponseData;
use crate::protocol::cold::leave_group_request::LeaveGroupRequestData;
use crate::protocol::cold::leave_group_response::LeaveGroupResponseData;
use crate::protocol::cold::list_groups_request::ListGroupsRequestData;
use crate::protocol::cold::list_groups_response::ListGroupsResponseData;
use crate::protocol::cold::offset_commit_request::OffsetCommitRequestData;
use crate::protocol::cold::offset_commit_response::OffsetCommitResponseData;
use crate::protocol::cold::offset_fetch_request::OffsetFetchRequestData;
use crate::protocol::cold::offset_fetch_response::OffsetFetchResponseData;
use crate::protocol::cold::sync_group_request::SyncGroupRequestData;
use crate::protocol::cold::sync_group_response::SyncGroupResponseData;
use crate::protocol::error_code::ErrorCode;

/// Names an answer; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyId(pub u64);

/// Names an append whose end the coordinator waits for. Ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PendingId(pub u64);

/// Who asks, and in which version of the API.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    pub version: i16,
    pub client_id: &'a str,
    /// Kafka prints an address as "/10.0.0.1".
    pub client_host: &'a str,
}

/// A request whose groups all belong to this coordinator. Topics have their names: where the version has
/// ids, the caller resolves them and keeps those it doesn't know.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRequest {
    Join(JoinGroupRequestData),
    Sync(SyncGroupRequestData),
    Heartbeat(HeartbeatRequestData),
    Leave(LeaveGroupRequestData),
    OffsetCommit(OffsetCommitRequestData),
    OffsetFetch(OffsetFetchRequestData),
    List(ListGroupsRequestData),
    Describe(DescribeGroupsRequestData),
    Delete(DeleteGroupsRequestData),
}

#[derive(Clone, Debug, PartialEq)]
pub enum GroupResponse {
    Join(JoinGroupResponseData),
    Sync(SyncGroupResponseData),
    Heartbeat(HeartbeatResponseData),
    Leave(LeaveGroupResponseData),
    OffsetCommit(OffsetCommitResponseData),
    OffsetFetch(OffsetFetchResponseData),
    List(ListGroupsResponseData),
    Describe(DescribeGroupsResponseData),
    Delete(DeleteGroupsResponseData),
}

/// What the coordinator wants done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Reply {
        reply: ReplyId,
        response: GroupResponse,
    },
    /// Append as one batch, with `time` as its records' timestamp; then call `appended` with `then`.
    Append {
        records: Vec<GroupRecord>,
        time: WallMs,
        then: PendingId,
    },
}

impl GroupResponse {
    /// Turns a success that waited for its records into the failure of their append.
    pub(super) fn fail(&mut self, error: ErrorCode) {
        let number = error.number();
        match self {
            Self::Join(response) => response.error_code = number,
            Self::Sync(response) => response.error_code = number,
            Self::Heartbeat(response) => response.error_code = number,
            Self::Leave(response) => response.error_code = number,
            Self::OffsetCommit(response) => {
                let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                for partition in partitions.filter(|partition| partition.error_code == 0) {
                    partition.error_code = number;
                }
            }
            Self::OffsetFetch(response) => response.error_code = number,
            Self::List(response) => response.error_code = number,
            Self::Describe(response) => {
                response.groups.iter_mut().for_each(|group| group.error_code = number);
            }
            Self::Delete(response) => {
                for result in response.results.iter_mut().filter(|result| result.error_code == 0) {
                    result.error_code = number;
                }
            }
        }
    }
}
