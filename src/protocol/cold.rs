//! Cold messages: every API but ApiVersions, Produce and Fetch, through the `kacrab-protocol` codec.
//!
//! Owns:     the one door to that crate; nothing else names it.
//! Promises: a request is read whole or refused; it is at most [`COLD_BYTES_MAX`] long, since decoding
//!           amplifies: 2 bytes on the wire can become 96 in memory.
//! Never:    decodes a Produce or a Fetch.

use crate::base::ids::TopicId;
use crate::protocol::reader::DecodeError;
use bytes::{Bytes, BytesMut};
use std::fmt;

/// Largest cold message that is decoded: as much as a batch of `__consumer_offsets` holds, where the
/// largest of them, the assignments of a group, have to fit anyway.
pub const COLD_BYTES_MAX: usize = 1024 * 1024;

/// A string of a cold message: UTF-8 over shared bytes.
pub use kacrab_protocol::KafkaString;
/// A uuid of a cold message.
pub use kacrab_protocol::KafkaUuid;

/// A message the cold codec knows.
pub trait Message: Sized {
    #[doc(hidden)]
    fn read_from(bytes: &mut Bytes, version: i16) -> kacrab_protocol::Result<Self>;
    #[doc(hidden)]
    fn write_to(&self, out: &mut BytesMut, version: i16) -> kacrab_protocol::Result<()>;
    #[doc(hidden)]
    fn bytes_of(&self, version: i16) -> kacrab_protocol::Result<usize>;
}

/// Decodes the body of a message of `version`; all of `body` must belong to it.
pub fn decode<T: Message>(version: i16, body: &[u8]) -> Result<T, DecodeError> {
    if body.len() > COLD_BYTES_MAX {
        return Err(DecodeError::TooLarge);
    }
    let mut bytes = Bytes::copy_from_slice(body);
    let message = T::read_from(&mut bytes, version).map_err(|error| blame(&error))?;
    if bytes.is_empty() { Ok(message) } else { Err(DecodeError::Trailing) }
}

/// A message holds a value its version can't carry: our own mistake, or a version nobody checked.
#[derive(Debug)]
pub struct EncodeError(kacrab_protocol::ProtocolError);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for EncodeError {}

/// Appends the body of `message` in `version` to `out`, which is unchanged after an error.
pub fn encode<T: Message>(version: i16, message: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let bytes = message.bytes_of(version).map_err(EncodeError)?;
    let mut body = BytesMut::with_capacity(bytes);
    message.write_to(&mut body, version).map_err(EncodeError)?;
    out.extend_from_slice(&body);
    Ok(())
}

pub fn text(value: &str) -> KafkaString {
    KafkaString::from(value.to_owned())
}

pub fn uuid(id: TopicId) -> KafkaUuid {
    let mut bytes = Bytes::copy_from_slice(&id.0);
    kacrab_protocol::uuid::read_uuid(&mut bytes).expect("16 bytes are a uuid")
}

pub fn topic_id(uuid: &KafkaUuid) -> TopicId {
    let mut bytes = BytesMut::with_capacity(16);
    kacrab_protocol::uuid::write_uuid(&mut bytes, uuid);
    let mut id = TopicId::NONE;
    id.0.copy_from_slice(&bytes);
    id
}

fn blame(error: &kacrab_protocol::ProtocolError) -> DecodeError {
    use kacrab_protocol::ProtocolError;
    match error {
        ProtocolError::Version(_) => DecodeError::Version,
        ProtocolError::String(_) | ProtocolError::Bytes(_) => DecodeError::Length,
        ProtocolError::Tagged(_) => DecodeError::TagOrder,
        ProtocolError::Primitive(_) => DecodeError::Truncated,
        _ => DecodeError::Value,
    }
}

/// Makes messages of the codec's request and response modules readable and writable here.
macro_rules! messages {
    ($($request:ident::$Request:ident, $response:ident::$Response:ident;)*) => {
        $(
            pub use kacrab_protocol::generated::{$request, $response};
            messages!(@one $request::$Request);
            messages!(@one $response::$Response);
        )*
    };
    (@one $module:ident::$Type:ident) => {
        impl Message for $module::$Type {
            fn read_from(bytes: &mut Bytes, version: i16) -> kacrab_protocol::Result<Self> {
                Self::read(bytes, version)
            }

            fn write_to(&self, out: &mut BytesMut, version: i16) -> kacrab_protocol::Result<()> {
                self.write(out, version)
            }

            fn bytes_of(&self, version: i16) -> kacrab_protocol::Result<usize> {
                self.encoded_len(version)
            }
        }
    };
}

messages! {
    list_offsets_request::ListOffsetsRequestData, list_offsets_response::ListOffsetsResponseData;
    metadata_request::MetadataRequestData, metadata_response::MetadataResponseData;
    offset_commit_request::OffsetCommitRequestData, offset_commit_response::OffsetCommitResponseData;
    offset_fetch_request::OffsetFetchRequestData, offset_fetch_response::OffsetFetchResponseData;
    find_coordinator_request::FindCoordinatorRequestData, find_coordinator_response::FindCoordinatorResponseData;
    join_group_request::JoinGroupRequestData, join_group_response::JoinGroupResponseData;
    heartbeat_request::HeartbeatRequestData, heartbeat_response::HeartbeatResponseData;
    leave_group_request::LeaveGroupRequestData, leave_group_response::LeaveGroupResponseData;
    sync_group_request::SyncGroupRequestData, sync_group_response::SyncGroupResponseData;
    describe_groups_request::DescribeGroupsRequestData, describe_groups_response::DescribeGroupsResponseData;
    list_groups_request::ListGroupsRequestData, list_groups_response::ListGroupsResponseData;
    create_topics_request::CreateTopicsRequestData, create_topics_response::CreateTopicsResponseData;
    delete_topics_request::DeleteTopicsRequestData, delete_topics_response::DeleteTopicsResponseData;
    delete_records_request::DeleteRecordsRequestData, delete_records_response::DeleteRecordsResponseData;
    init_producer_id_request::InitProducerIdRequestData, init_producer_id_response::InitProducerIdResponseData;
    offset_for_leader_epoch_request::OffsetForLeaderEpochRequestData, offset_for_leader_epoch_response::OffsetForLeaderEpochResponseData;
    describe_configs_request::DescribeConfigsRequestData, describe_configs_response::DescribeConfigsResponseData;
    alter_configs_request::AlterConfigsRequestData, alter_configs_response::AlterConfigsResponseData;
    incremental_alter_configs_request::IncrementalAlterConfigsRequestData, incremental_alter_configs_response::IncrementalAlterConfigsResponseData;
    create_partitions_request::CreatePartitionsRequestData, create_partitions_response::CreatePartitionsResponseData;
    delete_groups_request::DeleteGroupsRequestData, delete_groups_response::DeleteGroupsResponseData;
    offset_delete_request::OffsetDeleteRequestData, offset_delete_response::OffsetDeleteResponseData;
    describe_cluster_request::DescribeClusterRequestData, describe_cluster_response::DescribeClusterResponseData;
    describe_log_dirs_request::DescribeLogDirsRequestData, describe_log_dirs_response::DescribeLogDirsResponseData;
    describe_topic_partitions_request::DescribeTopicPartitionsRequestData, describe_topic_partitions_response::DescribeTopicPartitionsResponseData;
    describe_producers_request::DescribeProducersRequestData, describe_producers_response::DescribeProducersResponseData;
    list_config_resources_request::ListConfigResourcesRequestData, list_config_resources_response::ListConfigResourcesResponseData;
    elect_leaders_request::ElectLeadersRequestData, elect_leaders_response::ElectLeadersResponseData;
}

#[cfg(test)]
mod tests {
    use super::*;
    use heartbeat_request::HeartbeatRequestData;

    // HeartbeatRequest v0: group "g", generation 1, member "m".
    const HEARTBEAT: [u8; 10] = [0, 1, b'g', 0, 0, 0, 1, 0, 1, b'm'];

    #[test]
    fn a_message_is_read_whole_or_refused() {
        let request: HeartbeatRequestData = decode(0, &HEARTBEAT).expect("well formed");
        assert_eq!((request.group_id.as_str(), request.generation_id), ("g", 1));
        let mut out = b"before".to_vec();
        encode(0, &request, &mut out).expect("fits its version");
        assert_eq!(&out[6..], HEARTBEAT);
        for end in 0..HEARTBEAT.len() {
            assert!(decode::<HeartbeatRequestData>(0, &HEARTBEAT[..end]).is_err());
        }
        let trailing = [&HEARTBEAT[..], &[0]].concat();
        assert_eq!(decode::<HeartbeatRequestData>(0, &trailing), Err(DecodeError::Trailing));
        assert_eq!(decode::<HeartbeatRequestData>(9, &HEARTBEAT), Err(DecodeError::Version));
        let large = vec![0; COLD_BYTES_MAX + 1];
        assert_eq!(decode::<HeartbeatRequestData>(0, &large), Err(DecodeError::TooLarge));
    }

    #[test]
    fn uuids_keep_their_bytes() {
        let id = TopicId(*b"0123456789abcdef");
        assert_eq!(topic_id(&uuid(id)), id);
    }

    #[test]
    fn header_versions_equal_the_codecs_table() {
        use crate::protocol::api_key::ApiKey;
        use kacrab_protocol::version::{self, request_header_version, response_header_version};
        for key in ApiKey::ALL {
            let number = key.number();
            assert_eq!(ApiKey::from_number(number), Some(*key));
            let info = version::client_api_info(version::ApiKey::from_i16(number).expect("listed by both"));
            for version in info.min_version..=info.max_version {
                assert_eq!(key.request_header_version(version), request_header_version(number, version));
                assert_eq!(key.response_header_version(version), response_header_version(number, version));
            }
        }
    }
}
