//! Request: what is in flight between a frame and its response.

use super::fetch::FetchState;
use super::gather::Gather;
use crate::api::config_changes::AskedChange;
use crate::api::produce::ProduceState;
use crate::base::ids::CorrelationId;
use crate::base::slab::Key;
use crate::coordinator::PendingId;
use crate::net::outbound::Turn;
use crate::protocol::api_key::ApiKey;
use crate::protocol::cold;

/// Where a response goes and how it is framed.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub connection: Key,
    pub turn: Turn,
    pub key: ApiKey,
    pub version: i16,
    pub correlation_id: CorrelationId,
    /// `Key::NONE` where its time isn't measured.
    pub trace: Key,
}

impl Origin {
    /// Of what the broker asks itself: no connection has this key.
    pub const INTERNAL: Self = Self {
        connection: Key::NONE,
        turn: Turn::NONE,
        key: ApiKey::OffsetCommit,
        version: 0,
        correlation_id: CorrelationId(0),
        trace: Key::NONE,
    };
}

/// A request that couldn't be answered at once.
#[derive(Debug)]
pub struct Request {
    pub origin: Origin,
    pub pending: Pending,
}

/// What a request waits for.
#[derive(Debug)]
pub enum Pending {
    Produce(ProduceState),
    /// acks=0: nothing is answered, but an error closes the connection.
    SilentProduce(ProduceState),
    Fetch(Box<FetchState>),
    /// Topics are being created.
    Metadata(cold::metadata_request::MetadataRequestData),
    FindCoordinator(cold::find_coordinator_request::FindCoordinatorRequestData),
    /// The control thread's decision.
    CreateTopics(cold::create_topics_request::CreateTopicsRequestData),
    DeleteTopics(cold::delete_topics_request::DeleteTopicsRequestData),
    CreatePartitions(cold::create_partitions_request::CreatePartitionsRequestData),
    /// Of either key that changes settings.
    AlterConfigs(Vec<AskedChange>),
    /// A block of producer ids.
    InitProducerId,
    /// Records of a group coordinator; nobody but the coordinator waits.
    GroupAppend {
        partition: i32,
        then: PendingId,
    },
    /// Answers of partitions or of coordinators.
    Gather(Box<Gather>),
}
