//! DeleteGroups. Key 42, versions 0 to 2.
//!
//! Behaviour: empty groups and their offsets are deleted; one with members is refused with 68.
//! Versions:  v2 flexible.
//! Deviations: none known.
//! Sources:   message schemas DeleteGroupsRequest, DeleteGroupsResponse; KIP-229.

use super::groups::{Ask, Asks};
use crate::coordinator::{GroupRequest, GroupResponse};
use crate::protocol::cold;
use crate::protocol::cold::delete_groups_request::DeleteGroupsRequestData;
use crate::protocol::cold::delete_groups_response::DeleteGroupsResponseData;
use crate::protocol::reader::DecodeError;

/// One request per group: each has its own coordinator.
pub fn ask(version: i16, body: &[u8]) -> Result<Asks, DecodeError> {
    let request: DeleteGroupsRequestData = cold::decode(version, body)?;
    let one = |group: &cold::KafkaString| Ask {
        group: group.as_str().to_string(),
        request: GroupRequest::Delete(DeleteGroupsRequestData {
            groups_names: vec![group.clone()],
            ..DeleteGroupsRequestData::default()
        }),
    };
    Ok(Asks::of_groups(request.groups_names.iter().map(one).collect()))
}

pub fn join(parts: Vec<GroupResponse>) -> DeleteGroupsResponseData {
    let results = parts.into_iter().flat_map(|part| match part {
        GroupResponse::Delete(response) => response.results,
        other => unreachable!("a coordinator answers what it is asked, not {other:?}"),
    });
    DeleteGroupsResponseData { results: results.collect(), ..Default::default() }
}
