//! Requests: what the sink knows of topics, and its answers to everything but Produce.

use crate::Failure;
use crate::responses::PRODUCE_VERSION;
use corelane::base::ids::PartitionId;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::api_versions::{self, ApiRange, Features};
use corelane::protocol::cold::{self, text};
use corelane::protocol::error_code::ErrorCode;
use corelane::protocol::frame;
use corelane::protocol::header::{RequestHeader, begin_response};
use corelane::protocol::produce_response::ProducePartitionResponse;
use std::net::SocketAddr;

use cold::create_topics_request::CreateTopicsRequestData;
use cold::create_topics_response::{CreatableTopicResult, CreateTopicsResponseData};
use cold::delete_topics_request::DeleteTopicsRequestData;
use cold::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponseData};
use cold::init_producer_id_request::InitProducerIdRequestData;
use cold::init_producer_id_response::InitProducerIdResponseData;
use cold::list_offsets_request::ListOffsetsRequestData;
use cold::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponseData, ListOffsetsTopicResponse,
};
use cold::metadata_request::MetadataRequestData;
use cold::metadata_response::{
    MetadataResponseBroker, MetadataResponseData, MetadataResponsePartition, MetadataResponseTopic,
};

/// Its only node.
const NODE: i32 = 1;

const fn range(key: i16, version_min: i16, version_max: i16) -> ApiRange {
    ApiRange { key, version_min, version_max }
}

/// What is served. Of Produce, only the version that `produce` sends.
const SERVED: &[ApiRange] = &[
    range(0, PRODUCE_VERSION, PRODUCE_VERSION),
    range(2, 1, 6),
    range(3, 0, 9),
    range(18, 0, api_versions::VERSION_MAX),
    range(19, 2, 5),
    range(20, 1, 4),
    range(22, 0, 4),
];

/// Topics with the log end of each partition.
pub struct Broker {
    address: SocketAddr,
    /// Of topics that are made without a number.
    partitions_default: i32,
    topics: Vec<Topic>,
    next_producer_id: i64,
}

struct Topic {
    /// Empty when it was deleted.
    name: String,
    ends: Vec<i64>,
}

/// Place of a topic, for good. One that isn't there has one, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPlace(usize);

impl Broker {
    pub fn new(address: SocketAddr, partitions_default: i32) -> Self {
        Self { address, partitions_default, topics: Vec::new(), next_producer_id: 0 }
    }

    pub fn place(&self, name: &str) -> TopicPlace {
        TopicPlace(self.topics.iter().position(|topic| topic.name == name).unwrap_or(usize::MAX))
    }

    pub fn name(&self, place: TopicPlace) -> &str {
        self.topics.get(place.0).map_or("", |topic| &topic.name)
    }

    /// As if `records` of them were appended.
    pub fn append(
        &mut self,
        topic: TopicPlace,
        partition: i32,
        records: i64,
    ) -> ProducePartitionResponse<'static> {
        let ends = self.topics.get_mut(topic.0).map(|topic| &mut topic.ends);
        let end = usize::try_from(partition).ok().and_then(|index| ends?.get_mut(index));
        let error = if end.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
        let mut response = ProducePartitionResponse::failed(PartitionId(partition), error, None);
        if let Some(end) = end {
            response.base_offset = *end;
            *end += records;
        }
        response
    }

    /// Answers one whole request.
    pub fn answer(
        &mut self,
        header: &RequestHeader<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let (key, version) = (header.key, header.version);
        let is_served = SERVED.iter().any(|served| {
            served.key == key.number() && (served.version_min..=served.version_max).contains(&version)
        });
        if !is_served && key != ApiKey::ApiVersions {
            return Err(Failure::new(format!("it doesn't serve {} version {version}", key.name())));
        }
        let at = begin_response(out, key, version, header.correlation_id);
        match key {
            ApiKey::ApiVersions if !is_served => api_versions::encode_unsupported_version(out, SERVED),
            ApiKey::ApiVersions => {
                let features = Features { supported: &[], finalized: &[], finalized_epoch: -1 };
                api_versions::encode_response(out, version, ErrorCode::None, SERVED, 0, features);
            }
            ApiKey::Metadata => cold::encode(version, &self.metadata(&cold::decode(version, body)?), out)?,
            ApiKey::CreateTopics => cold::encode(version, &self.create(&cold::decode(version, body)?), out)?,
            ApiKey::DeleteTopics => cold::encode(version, &self.delete(cold::decode(version, body)?), out)?,
            ApiKey::ListOffsets => cold::encode(version, &self.offsets(&cold::decode(version, body)?), out)?,
            ApiKey::InitProducerId => {
                cold::decode::<InitProducerIdRequestData>(version, body)?;
                self.next_producer_id += 1;
                let producer_id = self.next_producer_id;
                let response =
                    InitProducerIdResponseData { producer_id, producer_epoch: 0, ..Default::default() };
                cold::encode(version, &response, out)?;
            }
            _ => return Err(Failure::new(format!("it has no answer to {}", key.name()))),
        }
        frame::end(out, at, 0);
        Ok(())
    }

    fn metadata(&self, request: &MetadataRequestData) -> MetadataResponseData {
        let names: Vec<String> = match &request.topics {
            Some(topics) => {
                topics.iter().flat_map(|topic| &topic.name).map(|name| name.as_str().to_string()).collect()
            }
            None => {
                self.topics.iter().map(|topic| topic.name.clone()).filter(|name| !name.is_empty()).collect()
            }
        };
        let partition = |index: usize| MetadataResponsePartition {
            partition_index: index as i32,
            leader_id: NODE,
            leader_epoch: 0,
            replica_nodes: vec![NODE],
            isr_nodes: vec![NODE],
            ..Default::default()
        };
        let topic = |name: String| {
            let ends = self.ends(&name);
            let code = if ends.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
            MetadataResponseTopic {
                error_code: code.number(),
                name: Some(text(&name)),
                partitions: (0..ends.map_or(0, Vec::len)).map(partition).collect(),
                ..Default::default()
            }
        };
        let host = text(&self.address.ip().to_string());
        let port = i32::from(self.address.port());
        MetadataResponseData {
            brokers: vec![MetadataResponseBroker { node_id: NODE, host, port, ..Default::default() }],
            controller_id: NODE,
            topics: names.into_iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn ends(&self, name: &str) -> Option<&Vec<i64>> {
        self.topics.iter().find(|topic| topic.name == name).map(|topic| &topic.ends)
    }

    fn create(&mut self, request: &CreateTopicsRequestData) -> CreateTopicsResponseData {
        let mut response = CreateTopicsResponseData::default();
        for wanted in &request.topics {
            let name = wanted.name.as_str().to_string();
            let count =
                if wanted.num_partitions > 0 { wanted.num_partitions } else { self.partitions_default };
            let is_new = self.ends(&name).is_none();
            if is_new {
                self.topics.push(Topic { name, ends: vec![0; count as usize] });
            }
            let code = if is_new { ErrorCode::None } else { ErrorCode::TopicAlreadyExists };
            response.topics.push(CreatableTopicResult {
                name: wanted.name.clone(),
                error_code: code.number(),
                num_partitions: count,
                replication_factor: 1,
                ..Default::default()
            });
        }
        response
    }

    fn delete(&mut self, request: DeleteTopicsRequestData) -> DeleteTopicsResponseData {
        let mut response = DeleteTopicsResponseData::default();
        for name in request.topic_names {
            let found = self.topics.iter_mut().find(|topic| topic.name == name.as_str());
            let code = if found.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
            if let Some(topic) = found {
                // Its place stays: requests may be on their way there.
                topic.name.clear();
                topic.ends.clear();
            }
            let (name, error_code) = (Some(name), code.number());
            response.responses.push(DeletableTopicResult { name, error_code, ..Default::default() });
        }
        response
    }

    fn offsets(&self, request: &ListOffsetsRequestData) -> ListOffsetsResponseData {
        let mut response = ListOffsetsResponseData::default();
        for topic in &request.topics {
            let ends = self.ends(topic.name.as_str());
            let partition = |index: i32| {
                let end = ends.and_then(|ends| ends.get(index as usize));
                let code = if end.is_some() { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
                ListOffsetsPartitionResponse {
                    partition_index: index,
                    error_code: code.number(),
                    timestamp: -1,
                    // The first and the last: it has nothing in between.
                    offset: end.copied().unwrap_or(-1),
                    ..Default::default()
                }
            };
            response.topics.push(ListOffsetsTopicResponse {
                name: topic.name.clone(),
                partitions: topic.partitions.iter().map(|wanted| partition(wanted.partition_index)).collect(),
                ..Default::default()
            });
        }
        response
    }
}
