//! SyncGroup. Key 14, versions 0 to 5.
//!
//! Behaviour: the leader brings the assignment; every member's answer waits for it to be durable.
//! Versions:  v3 static members; v5 protocol type and name (KIP-559).
//! Deviations: none known.
//! Sources:   message schemas SyncGroupRequest, SyncGroupResponse; KIP-62; KIP-559.

use super::groups::{Ask, Asks};
use crate::coordinator::GroupRequest;
use crate::protocol::cold;
use crate::protocol::cold::sync_group_request::SyncGroupRequestData;
use crate::protocol::reader::DecodeError;

pub fn ask(version: i16, body: &[u8]) -> Result<Asks, DecodeError> {
    let request: SyncGroupRequestData = cold::decode(version, body)?;
    let group = request.group_id.as_str().to_string();
    Ok(Asks::of_groups(vec![Ask { group, request: GroupRequest::Sync(request) }]))
}
