//! ListGroups. Key 16, versions 0 to 5.
//!
//! Behaviour: the groups of every coordinator of this broker.
//! Versions:  v4 filter by state (KIP-518); v5 filter by type (KIP-848).
//! Deviations: none known.
//! Sources:   message schemas ListGroupsRequest, ListGroupsResponse.

use super::groups::Asks;
use crate::coordinator::{GroupRequest, GroupResponse};
use crate::protocol::cold;
use crate::protocol::cold::list_groups_response::ListGroupsResponseData;
use crate::protocol::reader::DecodeError;

/// Every shard is asked, and every coordinator on it.
pub fn ask(version: i16, body: &[u8]) -> Result<Asks, DecodeError> {
    Ok(Asks::of_everyone(GroupRequest::List(cold::decode(version, body)?)))
}

pub fn join(parts: Vec<GroupResponse>) -> ListGroupsResponseData {
    let mut joined = ListGroupsResponseData::default();
    for part in parts {
        match part {
            GroupResponse::List(response) => {
                joined.groups.extend(response.groups);
                joined.error_code = joined.error_code.max(response.error_code);
            }
            other => unreachable!("a coordinator answers what it is asked, not {other:?}"),
        }
    }
    joined
}
