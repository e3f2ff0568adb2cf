//! Groups: what the APIs of consumer groups share: whom a request asks, and how answers are joined.

use super::Context;
use super::{delete_groups, describe_groups, heartbeat, join_group, leave_group, list_groups, offset_commit};
use super::{offset_fetch, sync_group};
use crate::coordinator::{GroupRequest, GroupResponse};
use crate::protocol::api_key::ApiKey;
use crate::protocol::cold::offset_commit_response::OffsetCommitResponseTopic;
use crate::protocol::cold::offset_fetch_response::OffsetFetchResponseTopics;
use crate::protocol::cold::{self, EncodeError};
use crate::protocol::reader::DecodeError;

/// One request for the coordinator of one group.
#[derive(Debug)]
pub struct Ask {
    pub group: String,
    pub request: GroupRequest,
}

/// What the handler answers itself, beside what coordinators answer.
#[derive(Debug)]
pub enum Kept {
    Nothing,
    RefusedCommits(Vec<OffsetCommitResponseTopic>),
    /// By group of the request.
    RefusedFetches(Vec<Vec<OffsetFetchResponseTopics>>),
}

#[derive(Debug)]
pub struct Asks {
    pub asks: Vec<Ask>,
    pub kept: Kept,
    /// Goes to every coordinator instead.
    pub of_everyone: Option<GroupRequest>,
}

impl Asks {
    pub fn of_groups(asks: Vec<Ask>) -> Self {
        Self { asks, kept: Kept::Nothing, of_everyone: None }
    }

    pub fn of_everyone(request: GroupRequest) -> Self {
        Self { asks: Vec::new(), kept: Kept::Nothing, of_everyone: Some(request) }
    }
}

/// Decodes a request about groups; `None` when the key isn't one of theirs.
pub fn ask(
    key: ApiKey,
    version: i16,
    body: &[u8],
    context: &Context<'_>,
) -> Option<Result<Asks, DecodeError>> {
    Some(match key {
        ApiKey::JoinGroup => join_group::ask(version, body),
        ApiKey::SyncGroup => sync_group::ask(version, body),
        ApiKey::Heartbeat => heartbeat::ask(version, body),
        ApiKey::LeaveGroup => leave_group::ask(version, body),
        ApiKey::OffsetCommit => offset_commit::ask(version, body, context),
        ApiKey::OffsetFetch => offset_fetch::ask(version, body, context),
        ApiKey::ListGroups => list_groups::ask(version, body),
        ApiKey::DescribeGroups => describe_groups::ask(version, body),
        ApiKey::DeleteGroups => delete_groups::ask(version, body),
        _ => return None,
    })
}

/// Joins the coordinators' answers into the response's body.
pub fn respond(
    key: ApiKey,
    version: i16,
    mut parts: Vec<GroupResponse>,
    kept: Kept,
    context: &Context<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match key {
        ApiKey::ListGroups => return cold::encode(version, &list_groups::join(parts), out),
        ApiKey::DescribeGroups => return cold::encode(version, &describe_groups::join(parts), out),
        ApiKey::DeleteGroups => return cold::encode(version, &delete_groups::join(parts), out),
        ApiKey::OffsetFetch => {
            let refused = match kept {
                Kept::RefusedFetches(refused) => refused,
                Kept::Nothing | Kept::RefusedCommits(_) => Vec::new(),
            };
            return cold::encode(version, &offset_fetch::join(version, parts, refused, context), out);
        }
        _ => {}
    }
    let only = parts.pop().expect("these requests name one group");
    match only {
        GroupResponse::Join(response) => cold::encode(version, &response, out),
        GroupResponse::Sync(response) => cold::encode(version, &response, out),
        GroupResponse::Heartbeat(response) => cold::encode(version, &response, out),
        GroupResponse::Leave(response) => cold::encode(version, &response, out),
        GroupResponse::OffsetCommit(_) => {
            let refused = match kept {
                Kept::RefusedCommits(refused) => refused,
                Kept::Nothing | Kept::RefusedFetches(_) => Vec::new(),
            };
            cold::encode(version, &offset_commit::join(only, refused, context), out)
        }
        GroupResponse::OffsetFetch(_)
        | GroupResponse::List(_)
        | GroupResponse::Describe(_)
        | GroupResponse::Delete(_) => unreachable!("joined above"),
    }
}
