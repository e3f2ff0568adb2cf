//! Client: the few requests before and after the load, one at a time on a blocking socket.

use crate::Failure;
use corelane::base::ids::{ProducerEpoch, ProducerId};
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::{self, Message, text};
use corelane::protocol::error_code::ErrorCode;
use corelane::protocol::frame;
use corelane::protocol::reader::Reader;
use corelane::protocol::writer::Writer;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use cold::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequestData};
use cold::create_topics_response::CreateTopicsResponseData;
use cold::delete_topics_request::DeleteTopicsRequestData;
use cold::delete_topics_response::DeleteTopicsResponseData;
use cold::init_producer_id_request::InitProducerIdRequestData;
use cold::init_producer_id_response::InitProducerIdResponseData;
use cold::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequestData, ListOffsetsTopic};
use cold::list_offsets_response::ListOffsetsResponseData;
use cold::metadata_request::{MetadataRequestData, MetadataRequestTopic};
use cold::metadata_response::MetadataResponseData;

/// What the load calls itself.
pub const CLIENT_ID: &str = "corelane-load";

/// How long a broker may take to start, or a topic to get its leaders.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Largest answer believed.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub const OFFSET_LATEST: i64 = -1;
pub const OFFSET_EARLIEST: i64 = -2;

pub struct Client {
    socket: TcpStream,
}

/// Leaders of a topic's partitions, by partition number.
pub struct Leaders(pub Vec<SocketAddr>);

impl Leaders {
    /// Each leader with its partitions.
    pub fn by_address(&self, partitions: &[i32]) -> BTreeMap<SocketAddr, Vec<i32>> {
        let mut leaders = BTreeMap::<_, Vec<i32>>::new();
        for partition in partitions {
            leaders.entry(self.0[*partition as usize]).or_default().push(*partition);
        }
        leaders
    }
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let found = address.to_socket_addrs().map_err(|error| Failure::new(format!("{address}: {error}")))?;
    found.into_iter().next().ok_or_else(|| Failure::new(format!("{address}: no such host")))
}

/// Calls `attempt` until it gives a value or the time is over; `None` means "not yet".
fn until_ready<T>(what: &str, mut attempt: impl FnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
    let started = Instant::now();
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if started.elapsed() > READY_TIMEOUT {
            return Err(Failure::new(format!("{what}: not ready after {} s", READY_TIMEOUT.as_secs())));
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

impl Client {
    pub fn connect(address: &str) -> Result<Self, Failure> {
        Self::connect_to(resolve(address)?)
    }

    pub fn connect_to(address: SocketAddr) -> Result<Self, Failure> {
        let socket =
            TcpStream::connect(address).map_err(|error| Failure::new(format!("{address}: {error}")))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(READY_TIMEOUT))?;
        Ok(Self { socket })
    }

    fn request<Q: Message, A: Message>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &Q,
    ) -> Result<A, Failure> {
        let mut out = Vec::new();
        let at = frame::begin(&mut out);
        write_header(&mut out, key, version, 0);
        cold::encode(version, request, &mut out)?;
        frame::end(&mut out, at, 0);
        self.socket.write_all(&out)?;
        let answer = self.read_frame()?;
        let mut reader = Reader::new(&answer, key.response_header_version(version) > 0);
        reader.i32()?;
        reader.skip_tagged_fields()?;
        Ok(cold::decode(version, reader.rest())?)
    }

    fn read_frame(&mut self) -> Result<Vec<u8>, Failure> {
        let mut prefix = [0; frame::LENGTH_BYTES];
        self.socket.read_exact(&mut prefix)?;
        let mut answer = vec![0; frame::frame_bytes(prefix, ANSWER_BYTES_MAX)?];
        self.socket.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Makes the topic unless it is there.
    pub fn ensure_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        replication_factor: i16,
        settings: &[String],
    ) -> Result<(), Failure> {
        let mut new = CreatableTopic {
            name: text(topic),
            num_partitions: partitions,
            replication_factor,
            ..CreatableTopic::default()
        };
        for setting in settings {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| Failure::new(format!("--topic-config {setting}: NAME=VALUE is expected")))?;
            let (name, value) = (text(name), Some(text(value)));
            new.configs.push(CreatableTopicConfig { name, value, ..CreatableTopicConfig::default() });
        }
        let request = CreateTopicsRequestData {
            topics: vec![new],
            timeout_ms: 30_000,
            ..CreateTopicsRequestData::default()
        };
        let answer: CreateTopicsResponseData = self.request(ApiKey::CreateTopics, 5, &request)?;
        let Some(topic_answer) = answer.topics.first() else {
            return Err(Failure::new("CreateTopics: an answer without the topic"));
        };
        match ErrorCode::from_number(topic_answer.error_code) {
            Some(ErrorCode::None | ErrorCode::TopicAlreadyExists) => Ok(()),
            _ => {
                let code = code_name(topic_answer.error_code);
                let message = topic_answer.error_message.as_ref().map_or("", |message| message.as_str());
                Err(Failure::new(format!("CreateTopics {topic}: {code} {message}")))
            }
        }
    }

    pub fn delete_topic(&mut self, topic: &str) -> Result<(), Failure> {
        let request = DeleteTopicsRequestData {
            topic_names: vec![text(topic)],
            timeout_ms: 30_000,
            ..DeleteTopicsRequestData::default()
        };
        let answer: DeleteTopicsResponseData = self.request(ApiKey::DeleteTopics, 4, &request)?;
        match answer.responses.first() {
            Some(topic_answer) if topic_answer.error_code == 0 => Ok(()),
            Some(topic_answer) => {
                Err(Failure::new(format!("DeleteTopics {topic}: {}", code_name(topic_answer.error_code))))
            }
            None => Err(Failure::new("DeleteTopics: an answer without the topic")),
        }
    }

    /// An id of an idempotent producer, as soon as the broker gives one.
    pub fn producer_id(&mut self) -> Result<(ProducerId, ProducerEpoch), Failure> {
        until_ready("a producer id", || {
            let request = InitProducerIdRequestData {
                transaction_timeout_ms: 60_000,
                producer_id: -1,
                producer_epoch: -1,
                ..InitProducerIdRequestData::default()
            };
            let answer: InitProducerIdResponseData = self.request(ApiKey::InitProducerId, 4, &request)?;
            match ErrorCode::from_number(answer.error_code) {
                Some(ErrorCode::None) => {
                    Ok(Some((ProducerId(answer.producer_id), ProducerEpoch(answer.producer_epoch))))
                }
                // It is still starting.
                Some(ErrorCode::CoordinatorLoadInProgress | ErrorCode::CoordinatorNotAvailable) => Ok(None),
                _ => Err(Failure::new(format!("InitProducerId: {}", code_name(answer.error_code)))),
            }
        })
    }

    /// The leaders, once every partition has one.
    pub fn leaders(&mut self, topic: &str) -> Result<Leaders, Failure> {
        until_ready(&format!("leaders of {topic}"), || {
            let wanted = MetadataRequestTopic { name: Some(text(topic)), ..MetadataRequestTopic::default() };
            let request =
                MetadataRequestData { topics: Some(vec![wanted]), ..MetadataRequestData::default() };
            let answer: MetadataResponseData = self.request(ApiKey::Metadata, 9, &request)?;
            leaders_of(&answer)
        })
    }

    /// One offset per partition given: the log's start or end. Waits until each is served.
    pub fn offsets(&mut self, topic: &str, partitions: &[i32], which: i64) -> Result<Vec<i64>, Failure> {
        until_ready(&format!("offsets of {topic}"), || {
            let of = |partition: &i32| ListOffsetsPartition {
                partition_index: *partition,
                current_leader_epoch: -1,
                timestamp: which,
                ..ListOffsetsPartition::default()
            };
            let wanted = ListOffsetsTopic {
                name: text(topic),
                partitions: partitions.iter().map(of).collect(),
                ..ListOffsetsTopic::default()
            };
            let request = ListOffsetsRequestData {
                replica_id: -1,
                topics: vec![wanted],
                ..ListOffsetsRequestData::default()
            };
            let answer: ListOffsetsResponseData = self.request(ApiKey::ListOffsets, 6, &request)?;
            let found: BTreeMap<i32, i64> = answer
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .filter(|partition| partition.error_code == 0)
                .map(|partition| (partition.partition_index, partition.offset))
                .collect();
            Ok(partitions.iter().map(|partition| found.get(partition).copied()).collect())
        })
    }
}

/// Offsets of partitions at their leaders, in the order of `partitions`.
pub fn offsets_at_leaders(
    leaders: &Leaders,
    topic: &str,
    partitions: &[i32],
    which: i64,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let mut offsets = BTreeMap::new();
    for (address, own) in leaders.by_address(partitions) {
        let found = Client::connect_to(address)?.offsets(topic, &own, which)?;
        offsets.extend(own.into_iter().zip(found));
    }
    Ok(offsets)
}

fn leaders_of(answer: &MetadataResponseData) -> Result<Option<Leaders>, Failure> {
    let Some(topic) = answer.topics.first() else { return Ok(None) };
    if topic.error_code != 0 || topic.partitions.is_empty() {
        return Ok(None);
    }
    let mut leaders = BTreeMap::new();
    for partition in &topic.partitions {
        let broker = answer.brokers.iter().find(|broker| broker.node_id == partition.leader_id);
        let (0, Some(broker)) = (partition.error_code, broker) else { return Ok(None) };
        let address = resolve(&format!("{}:{}", broker.host.as_str(), broker.port))?;
        leaders.insert(partition.partition_index, address);
    }
    Ok(Some(Leaders(leaders.into_values().collect())))
}

/// Name of an error code, or its number when nobody knows it.
pub fn code_name(number: i16) -> String {
    ErrorCode::from_number(number).map_or_else(|| number.to_string(), |code| code.name().to_string())
}

/// Appends a request header; the correlation id stands 4 bytes behind its start.
pub fn write_header(out: &mut Vec<u8>, key: ApiKey, version: i16, correlation_id: i32) {
    let mut writer = Writer::new(out, false);
    writer.i16(key.number());
    writer.i16(version);
    writer.i32(correlation_id);
    writer.string(CLIENT_ID);
    if key.request_header_version(version) > 1 {
        writer.i8(0);
    }
}
