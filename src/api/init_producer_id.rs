//! InitProducerId. Key 22, versions 0 to 5.
//!
//! Behaviour: gives an idempotent producer a fresh id from a block that the metadata quorum has
//!            durably reserved for this shard, so no id is ever given out twice.
//! Versions:  v3 a producer may name the id and epoch it had (KIP-360); v4 code 90.
//! Deviations: transactional ids are answered with 15 (retriable) until the transaction coordinator
//!            exists; an empty one with 42.
//! Sources:   message schemas InitProducerIdRequest, InitProducerIdResponse; KIP-98; KIP-360.

use crate::base::ids::{ProducerEpoch, ProducerId};
use crate::protocol::cold::init_producer_id_request::InitProducerIdRequestData;
use crate::protocol::cold::init_producer_id_response::InitProducerIdResponseData;
use crate::protocol::error_code::ErrorCode;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    FreshId,
    Refused(ErrorCode),
}

pub fn need(request: &InitProducerIdRequestData) -> Need {
    match &request.transactional_id {
        None if (request.producer_id < 0) != (request.producer_epoch < 0) => {
            Need::Refused(ErrorCode::InvalidRequest)
        }
        // An idempotent producer that lost its session gets a new id, as from Kafka.
        None => Need::FreshId,
        Some(id) if id.as_str().is_empty() => Need::Refused(ErrorCode::InvalidRequest),
        Some(_) => Need::Refused(ErrorCode::CoordinatorNotAvailable),
    }
}

pub fn respond(outcome: Result<(ProducerId, ProducerEpoch), ErrorCode>) -> InitProducerIdResponseData {
    match outcome {
        Ok((id, epoch)) => {
            InitProducerIdResponseData { producer_id: id.0, producer_epoch: epoch.0, ..Default::default() }
        }
        Err(error) => InitProducerIdResponseData {
            error_code: error.number(),
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        },
    }
}
