//! Client: Kafka requests on a blocking socket; a broker that is gone or silent is an error, not a panic.

use crate::responses::{self, Produced};
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::{self, Message, text};
use corelane::protocol::frame;
use corelane::protocol::reader::Reader;
use corelane::protocol::writer::Writer;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cold::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequestData};
use cold::create_topics_response::CreateTopicsResponseData;
use cold::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequestData, DeleteRecordsTopic};
use cold::delete_records_response::DeleteRecordsResponseData;
use cold::delete_topics_request::DeleteTopicsRequestData;
use cold::delete_topics_response::DeleteTopicsResponseData;
use cold::find_coordinator_request::FindCoordinatorRequestData;
use cold::find_coordinator_response::FindCoordinatorResponseData;
use cold::init_producer_id_request::InitProducerIdRequestData;
use cold::init_producer_id_response::InitProducerIdResponseData;
use cold::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequestData, ListOffsetsTopic};
use cold::list_offsets_response::ListOffsetsResponseData;
use cold::metadata_request::MetadataRequestData;
use cold::metadata_response::MetadataResponseData;
use cold::offset_commit_request::{
    OffsetCommitRequestData, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use cold::offset_commit_response::OffsetCommitResponseData;
use cold::offset_fetch_request::{OffsetFetchRequestData, OffsetFetchRequestTopic};
use cold::offset_fetch_response::OffsetFetchResponseData;

pub const OFFSET_LATEST: i64 = -1;
pub const OFFSET_EARLIEST: i64 = -2;

/// Largest answer believed.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Time a Produce has in the broker.
const PRODUCE_TIMEOUT_MS: i32 = 5_000;

/// Why there is no answer.
#[derive(Debug)]
pub enum Gone {
    /// Nothing came within the client's patience.
    Silent,
    Closed(#[allow(dead_code, reason = "printed")] String),
    /// An answer came that isn't one.
    Nonsense(String),
}

impl From<std::io::Error> for Gone {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Silent,
            _ => Self::Closed(error.to_string()),
        }
    }
}

fn nonsense(error: impl std::fmt::Debug) -> Gone {
    Gone::Nonsense(format!("{error:?}"))
}

pub struct Client {
    socket: TcpStream,
}

/// One partition of a Fetch answer.
pub struct Fetched {
    pub partition: i32,
    pub error: i16,
    pub records: Vec<u8>,
}

impl Client {
    pub fn connect(address: &str, patience: Duration) -> Result<Self, Gone> {
        let address: SocketAddr = address.parse().expect("the broker said where it listens");
        let socket = TcpStream::connect_timeout(&address, patience)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Self { socket })
    }

    fn send(&mut self, key: ApiKey, version: i16, body: impl FnOnce(&mut Writer<'_>)) -> Result<(), Gone> {
        let mut out = Vec::new();
        let at = frame::begin(&mut out);
        let mut writer = Writer::new(&mut out, false);
        writer.i16(key.number());
        writer.i16(version);
        writer.i32(0);
        writer.string("faulty-disk");
        if key.request_header_version(version) > 1 {
            writer.i8(0);
        }
        writer.flexible = key.is_flexible(version);
        body(&mut writer);
        frame::end(&mut out, at, 0);
        Ok(self.socket.write_all(&out)?)
    }

    fn receive(&mut self) -> Result<Vec<u8>, Gone> {
        let mut prefix = [0; frame::LENGTH_BYTES];
        self.socket.read_exact(&mut prefix)?;
        let mut answer = vec![0; frame::frame_bytes(prefix, ANSWER_BYTES_MAX).map_err(nonsense)?];
        self.socket.read_exact(&mut answer)?;
        Ok(answer)
    }

    fn ask<Q: Message, A: Message>(&mut self, key: ApiKey, version: i16, request: &Q) -> Result<A, Gone> {
        let mut body = Vec::new();
        cold::encode(version, request, &mut body).expect("a request of its version");
        self.send(key, version, |writer| writer.raw(&body))?;
        let answer = self.receive()?;
        let mut reader = Reader::new(&answer, key.response_header_version(version) > 0);
        reader.i32().map_err(nonsense)?;
        reader.skip_tagged_fields().map_err(nonsense)?;
        cold::decode(version, reader.rest()).map_err(nonsense)
    }

    // ---- Records -----------------------------------------------------------------------------

    pub fn send_produce(&mut self, topic: &str, batches: &[(i32, Vec<u8>)]) -> Result<(), Gone> {
        self.send(ApiKey::Produce, responses::PRODUCE_VERSION, |writer| {
            writer.nullable_string(None);
            writer.i16(-1);
            writer.i32(PRODUCE_TIMEOUT_MS);
            writer.array(1);
            writer.string(topic);
            writer.array(batches.len());
            for (partition, batch) in batches {
                writer.i32(*partition);
                writer.bytes(batch);
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
            writer.no_tagged_fields();
        })
    }

    pub fn receive_produced(&mut self) -> Result<Vec<Produced>, Gone> {
        let answer = self.receive()?;
        let mut partitions = Vec::new();
        responses::read_produce(&answer, |partition| partitions.push(partition)).map_err(nonsense)?;
        Ok(partitions)
    }

    pub fn fetch(
        &mut self,
        topic: &str,
        max_wait_ms: i32,
        bytes_max: i32,
        from: &[(i32, i64)],
    ) -> Result<Vec<Fetched>, Gone> {
        self.send(ApiKey::Fetch, responses::FETCH_VERSION, |writer| {
            writer.i32(-1);
            writer.i32(max_wait_ms);
            writer.i32(1);
            writer.i32(i32::MAX);
            writer.i8(0);
            writer.i32(0);
            writer.i32(-1);
            writer.array(1);
            writer.string(topic);
            writer.array(from.len());
            for (partition, offset) in from {
                writer.i32(*partition);
                writer.i32(-1);
                writer.i64(*offset);
                writer.i32(-1);
                writer.i64(-1);
                writer.i32(bytes_max);
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
            writer.array(0);
            writer.string("");
            writer.no_tagged_fields();
        })?;
        let answer = self.receive()?;
        let mut partitions = Vec::new();
        let each = |fetched: responses::Fetched<'_>| {
            partitions.push(Fetched {
                partition: fetched.partition,
                error: fetched.error,
                records: fetched.records.to_vec(),
            });
        };
        responses::read_fetch(&answer, each).map_err(nonsense)?;
        Ok(partitions)
    }

    /// Offset of a partition, or the code of its refusal.
    pub fn offset(&mut self, topic: &str, partition: i32, which: i64) -> Result<Result<i64, i16>, Gone> {
        let wanted = ListOffsetsPartition {
            partition_index: partition,
            current_leader_epoch: -1,
            timestamp: which,
            ..ListOffsetsPartition::default()
        };
        let wanted =
            ListOffsetsTopic { name: text(topic), partitions: vec![wanted], ..ListOffsetsTopic::default() };
        let request = ListOffsetsRequestData {
            replica_id: -1,
            topics: vec![wanted],
            ..ListOffsetsRequestData::default()
        };
        let answer: ListOffsetsResponseData = self.ask(ApiKey::ListOffsets, 6, &request)?;
        let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        let found = found.ok_or_else(|| nonsense("ListOffsets without the partition"))?;
        Ok(if found.error_code == 0 { Ok(found.offset) } else { Err(found.error_code) })
    }

    /// Producer id and epoch, or the code of the refusal.
    pub fn init_producer_id(&mut self) -> Result<Result<(i64, i16), i16>, Gone> {
        let request = InitProducerIdRequestData {
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequestData::default()
        };
        let answer: InitProducerIdResponseData = self.ask(ApiKey::InitProducerId, 4, &request)?;
        Ok(if answer.error_code == 0 {
            Ok((answer.producer_id, answer.producer_epoch))
        } else {
            Err(answer.error_code)
        })
    }

    /// Moves a log start; the code of the answer.
    pub fn delete_records(&mut self, topic: &str, partition: i32, before: i64) -> Result<i16, Gone> {
        let part = DeleteRecordsPartition {
            partition_index: partition,
            offset: before,
            ..DeleteRecordsPartition::default()
        };
        let wanted =
            DeleteRecordsTopic { name: text(topic), partitions: vec![part], ..DeleteRecordsTopic::default() };
        let request = DeleteRecordsRequestData {
            topics: vec![wanted],
            timeout_ms: 30_000,
            ..DeleteRecordsRequestData::default()
        };
        let answer: DeleteRecordsResponseData = self.ask(ApiKey::DeleteRecords, 2, &request)?;
        let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        found.map(|found| found.error_code).ok_or_else(|| nonsense("DeleteRecords without the partition"))
    }

    // ---- Topics and groups -------------------------------------------------------------------

    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        settings: &[(String, String)],
    ) -> Result<i16, Gone> {
        let configs = settings.iter().map(|(name, value)| CreatableTopicConfig {
            name: text(name),
            value: Some(text(value)),
            ..CreatableTopicConfig::default()
        });
        let new = CreatableTopic {
            name: text(topic),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequestData {
            topics: vec![new],
            timeout_ms: 30_000,
            ..CreateTopicsRequestData::default()
        };
        let answer: CreateTopicsResponseData = self.ask(ApiKey::CreateTopics, 5, &request)?;
        let found = answer.topics.first().ok_or_else(|| nonsense("CreateTopics without the topic"))?;
        Ok(found.error_code)
    }

    pub fn delete_topic(&mut self, topic: &str) -> Result<i16, Gone> {
        let request = DeleteTopicsRequestData {
            topic_names: vec![text(topic)],
            timeout_ms: 30_000,
            ..DeleteTopicsRequestData::default()
        };
        let answer: DeleteTopicsResponseData = self.ask(ApiKey::DeleteTopics, 4, &request)?;
        let found = answer.responses.first().ok_or_else(|| nonsense("DeleteTopics without the topic"))?;
        Ok(found.error_code)
    }

    /// Names of all topics that are there.
    pub fn topics(&mut self) -> Result<Vec<String>, Gone> {
        let request = MetadataRequestData { topics: None, ..MetadataRequestData::default() };
        let answer: MetadataResponseData = self.ask(ApiKey::Metadata, 9, &request)?;
        let names = answer.topics.iter().filter(|topic| topic.error_code == 0);
        Ok(names.filter_map(|topic| Some(topic.name.as_ref()?.as_str().to_string())).collect())
    }

    /// Asks for the coordinator of a group, which makes the topic of committed offsets.
    pub fn find_coordinator(&mut self, group: &str) -> Result<i16, Gone> {
        let request =
            FindCoordinatorRequestData { key: text(group), ..FindCoordinatorRequestData::default() };
        let answer: FindCoordinatorResponseData = self.ask(ApiKey::FindCoordinator, 3, &request)?;
        Ok(answer.error_code)
    }

    /// Commits an offset for a group without members; the code of the answer.
    pub fn commit(&mut self, group: &str, topic: &str, offset: i64) -> Result<i16, Gone> {
        let part = OffsetCommitRequestPartition {
            partition_index: 0,
            committed_offset: offset,
            committed_leader_epoch: -1,
            ..OffsetCommitRequestPartition::default()
        };
        let wanted = OffsetCommitRequestTopic {
            name: text(topic),
            partitions: vec![part],
            ..OffsetCommitRequestTopic::default()
        };
        let request = OffsetCommitRequestData {
            group_id: text(group),
            generation_id_or_member_epoch: -1,
            topics: vec![wanted],
            ..OffsetCommitRequestData::default()
        };
        let answer: OffsetCommitResponseData = self.ask(ApiKey::OffsetCommit, 8, &request)?;
        let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        found.map(|found| found.error_code).ok_or_else(|| nonsense("OffsetCommit without the partition"))
    }

    /// The committed offset, -1 without one, or the code of the refusal.
    pub fn committed(&mut self, group: &str, topic: &str) -> Result<Result<i64, i16>, Gone> {
        let wanted = OffsetFetchRequestTopic {
            name: text(topic),
            partition_indexes: vec![0],
            ..OffsetFetchRequestTopic::default()
        };
        let request = OffsetFetchRequestData {
            group_id: text(group),
            topics: Some(vec![wanted]),
            ..OffsetFetchRequestData::default()
        };
        let answer: OffsetFetchResponseData = self.ask(ApiKey::OffsetFetch, 7, &request)?;
        if answer.error_code != 0 {
            return Ok(Err(answer.error_code));
        }
        let found = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
        let found = found.ok_or_else(|| nonsense("OffsetFetch without the partition"))?;
        Ok(if found.error_code == 0 { Ok(found.committed_offset) } else { Err(found.error_code) })
    }
}
