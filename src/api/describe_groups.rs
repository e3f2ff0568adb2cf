//! DescribeGroups. Key 15, versions 0 to 6.
//!
//! Behaviour: state and members of each group named.
//! Versions:  v3 authorised operations; v4 static members; v6 code 69 and a message for an unknown group.
//! Deviations: none known.
//! Sources:   message schemas DescribeGroupsRequest, DescribeGroupsResponse; KIP-1043.

use super::groups::{Ask, Asks};
use crate::coordinator::{GroupRequest, GroupResponse};
use crate::protocol::cold;
use crate::protocol::cold::describe_groups_request::DescribeGroupsRequestData;
use crate::protocol::cold::describe_groups_response::DescribeGroupsResponseData;
use crate::protocol::reader::DecodeError;

/// One request per group: each has its own coordinator.
pub fn ask(version: i16, body: &[u8]) -> Result<Asks, DecodeError> {
    let request: DescribeGroupsRequestData = cold::decode(version, body)?;
    let one = |group: &cold::KafkaString| Ask {
        group: group.as_str().to_string(),
        request: GroupRequest::Describe(DescribeGroupsRequestData {
            groups: vec![group.clone()],
            ..request.clone()
        }),
    };
    Ok(Asks::of_groups(request.groups.iter().map(one).collect()))
}

pub fn join(parts: Vec<GroupResponse>) -> DescribeGroupsResponseData {
    let groups = parts.into_iter().flat_map(|part| match part {
        GroupResponse::Describe(response) => response.groups,
        other => unreachable!("a coordinator answers what it is asked, not {other:?}"),
    });
    DescribeGroupsResponseData { groups: groups.collect(), ..Default::default() }
}
