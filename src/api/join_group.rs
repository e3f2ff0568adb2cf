//! JoinGroup. Key 11, versions 0 to 9.
//!
//! Behaviour: the answer waits until all members joined or the rebalance timeout passed.
//! Versions:  v1 rebalance timeout; v4 member id first (KIP-394); v5 static members (KIP-345); v7 protocol type;
//!            v8 reason; v9 skip assignment (KIP-814).
//! Deviations: none known.
//! Sources:   message schemas JoinGroupRequest, JoinGroupResponse; KIP-62; KIP-134; KIP-394.

use super::groups::{Ask, Asks};
use crate::coordinator::GroupRequest;
use crate::protocol::cold;
use crate::protocol::cold::join_group_request::JoinGroupRequestData;
use crate::protocol::reader::DecodeError;

pub fn ask(version: i16, body: &[u8]) -> Result<Asks, DecodeError> {
    let request: JoinGroupRequestData = cold::decode(version, body)?;
    let group = request.group_id.as_str().to_string();
    Ok(Asks::of_groups(vec![Ask { group, request: GroupRequest::Join(request) }]))
}
