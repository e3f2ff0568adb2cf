//! Heartbeat. Key 12, versions 0 to 4.
//!
//! Behaviour: a member stays in its group; 27 tells it that a rebalance began.
//! Versions:  v3 static members; v4 flexible.
//! Deviations: none known.
//! Sources:   message schemas HeartbeatRequest, HeartbeatResponse; KIP-62; KIP-345.

use super::groups::{Ask, Asks};
use crate::coordinator::GroupRequest;
use crate::protocol::cold;
use crate::protocol::cold::heartbeat_request::HeartbeatRequestData;
use crate::protocol::reader::DecodeError;

pub fn ask(version: i16, body: &[u8]) -> Result<Asks, DecodeError> {
    let request: HeartbeatRequestData = cold::decode(version, body)?;
    let group = request.group_id.as_str().to_string();
    Ok(Asks::of_groups(vec![Ask { group, request: GroupRequest::Heartbeat(request) }]))
}
