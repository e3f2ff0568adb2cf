//! LeaveGroup. Key 13, versions 0 to 5.
//!
//! Behaviour: members leave at once and a rebalance begins.
//! Versions:  v3 several members (KIP-345); v5 reason (KIP-800).
//! Deviations: none known.
//! Sources:   message schemas LeaveGroupRequest, LeaveGroupResponse; KIP-345; KIP-800.

use super::groups::{Ask, Asks};
use crate::coordinator::GroupRequest;
use crate::protocol::cold;
use crate::protocol::cold::leave_group_request::LeaveGroupRequestData;
use crate::protocol::reader::DecodeError;

pub fn ask(version: i16, body: &[u8]) -> Result<Asks, DecodeError> {
    let request: LeaveGroupRequestData = cold::decode(version, body)?;
    let group = request.group_id.as_str().to_string();
    Ok(Asks::of_groups(vec![Ask { group, request: GroupRequest::Leave(request) }]))
}
