//! Handshake: what a client asks before and after the load, answered as far as `corelane-load` needs it.

use corelane::base::ids::{CorrelationId, TopicId};
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::api_versions::{ApiRange, Features, encode_response};
use corelane::protocol::cold::{self, text};
use corelane::protocol::error_code::ErrorCode;
use corelane::protocol::frame;
use corelane::protocol::header::{RequestHeader, begin_response};
use corelane::protocol::produce_request::ProduceRequest;
use corelane::protocol::produce_response::{ProducePartitionResponse, ProduceResponse};
use std::collections::HashMap;
use std::net::SocketAddr;

use cold::create_topics_request::CreateTopicsRequestData;
use cold::create_topics_response::{CreatableTopicResult, CreateTopicsResponseData};
use cold::delete_topics_request::DeleteTopicsRequestData;
use cold::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponseData};
use cold::list_offsets_request::ListOffsetsRequestData;
use cold::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponseData, ListOffsetsTopicResponse,
};
use cold::metadata_request::MetadataRequestData;
use cold::metadata_response::{
    MetadataResponseBroker, MetadataResponseData, MetadataResponsePartition, MetadataResponseTopic,
};

const NODE: i32 = 1;
const OFFSET_EARLIEST: i64 = -2;

/// Why a request is not answered.
pub type Refusal = Box<dyn std::error::Error>;

pub struct Handshake {
    address: SocketAddr,
    /// Every topic is there; one that was made has the partitions it was made with.
    partitions: HashMap<String, usize>,
    default_partitions: usize,
    /// Log end offset of every partition.
    end_offset: i64,
}

impl Handshake {
    pub fn new(address: SocketAddr, default_partitions: usize, end_offset: i64) -> Self {
        Self { address, partitions: HashMap::new(), default_partitions, end_offset }
    }

    /// Appends the answer to `out`.
    pub fn answer(
        &mut self,
        header: &RequestHeader<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let RequestHeader { key, version, correlation_id, .. } = *header;
        let at = begin_response(out, key, version, correlation_id);
        match key {
            ApiKey::ApiVersions => api_versions(version, out),
            ApiKey::Metadata => cold::encode(version, &self.metadata(&cold::decode(version, body)?), out)?,
            ApiKey::CreateTopics => cold::encode(version, &self.create(&cold::decode(version, body)?), out)?,
            ApiKey::DeleteTopics => cold::encode(version, &self.delete(&cold::decode(version, body)?), out)?,
            ApiKey::ListOffsets => cold::encode(version, &self.offsets(&cold::decode(version, body)?), out)?,
            _ => return Err(format!("{} is not answered", key.name()).into()),
        }
        frame::end(out, at, 0);
        Ok(())
    }

    fn metadata(&self, request: &MetadataRequestData) -> MetadataResponseData {
        let topics = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
        MetadataResponseData {
            brokers: vec![MetadataResponseBroker {
                node_id: NODE,
                host: text(&self.address.ip().to_string()),
                port: i32::from(self.address.port()),
                ..Default::default()
            }],
            controller_id: NODE,
            topics: topics
                .map(|name| MetadataResponseTopic {
                    name: Some(name.clone()),
                    partitions: (0..self.partitions_of(name.as_str())).map(led).collect(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    fn partitions_of(&self, name: &str) -> usize {
        self.partitions.get(name).copied().unwrap_or(self.default_partitions)
    }

    fn create(&mut self, request: &CreateTopicsRequestData) -> CreateTopicsResponseData {
        for topic in &request.topics {
            let partitions = usize::try_from(topic.num_partitions).unwrap_or(self.default_partitions);
            self.partitions.insert(topic.name.as_str().to_string(), partitions);
        }
        let names = request.topics.iter().map(|topic| topic.name.clone());
        let topics = names.map(|name| CreatableTopicResult { name, ..Default::default() }).collect();
        CreateTopicsResponseData { topics, ..Default::default() }
    }

    fn delete(&mut self, request: &DeleteTopicsRequestData) -> DeleteTopicsResponseData {
        let names = request.topic_names.iter().cloned();
        let responses =
            names.map(|name| DeletableTopicResult { name: Some(name), ..Default::default() }).collect();
        DeleteTopicsResponseData { responses, ..Default::default() }
    }

    fn offsets(&self, request: &ListOffsetsRequestData) -> ListOffsetsResponseData {
        let topics = request.topics.iter().map(|topic| ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|partition| ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    offset: if partition.timestamp == OFFSET_EARLIEST { 0 } else { self.end_offset },
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        });
        ListOffsetsResponseData { topics: topics.collect(), ..Default::default() }
    }
}

fn led(index: usize) -> MetadataResponsePartition {
    MetadataResponsePartition {
        partition_index: index as i32,
        leader_id: NODE,
        replica_nodes: vec![NODE],
        isr_nodes: vec![NODE],
        ..Default::default()
    }
}

/// The versions that `corelane-load` speaks, and some that Python scripts do.
fn api_versions(version: i16, out: &mut Vec<u8>) {
    let served = [
        (ApiKey::Produce, 3, 9),
        (ApiKey::Fetch, 4, 12),
        (ApiKey::ListOffsets, 1, 6),
        (ApiKey::Metadata, 1, 9),
        (ApiKey::ApiVersions, 0, 3),
        (ApiKey::CreateTopics, 2, 5),
        (ApiKey::DeleteTopics, 1, 4),
    ];
    let ranges = served.map(|(key, version_min, version_max)| ApiRange {
        key: key.number(),
        version_min,
        version_max,
    });
    let features = Features { supported: &[], finalized: &[], finalized_epoch: -1 };
    encode_response(out, version, ErrorCode::None, &ranges, 0, features);
}

/// The answer to a Produce request, whole: later ones of the connection get it with their correlation id.
pub fn produce_answer(version: i16, correlation_id: CorrelationId, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request = ProduceRequest::parse(version, body)?;
    let mut out = Vec::new();
    let at = begin_response(&mut out, ApiKey::Produce, version, correlation_id);
    let mut response = ProduceResponse::new(&mut out, version, request.topics_count());
    for topic in request.topics() {
        response.topic(topic.name, TopicId::NONE, topic.partitions_count());
        for partition in topic.partitions() {
            let mut answer = ProducePartitionResponse::failed(partition.partition, ErrorCode::None, None);
            answer.base_offset = 0;
            response.partition(&answer);
        }
    }
    response.finish(0);
    frame::end(&mut out, at, 0);
    Ok(out)
}
