//! Produce. Key 0, versions 3 to 13; advertised from 0.
//!
//! Behaviour: each partition's batch is checked and appended for itself. acks=0 has no answer; any
//!            error then closes the connection. acks=1 and acks=all are both answered after the
//!            flush on durable topics.
//! Versions:  v7 zstd (KIP-110); v8 record errors (KIP-467); v9 flexible; v10 current leader
//!            (KIP-951); v13 topic ids (KIP-516).
//! Deviations: the records of topics that aren't compacted are not walked; of the records without key that
//!            a compacted topic refuses the first 100 of a batch are named; versions 0 to 2 are refused though
//!            advertised, as in Kafka (KAFKA-18659).
//! Sources:   message schemas ProduceRequest, ProduceResponse.

use super::Context;
use super::error_map;
use super::fetch_session::TopicKey;
use crate::base::ids::{MonotonicNs, PartitionId, TopicId, TopicPartition};
use crate::catalog::topic_name;
use crate::partition::append::AppendRefusal;
use crate::partition::waiters::AppendOutcome;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::produce_request::{ProducePartition, ProduceRequest, ProduceTopic};
use crate::protocol::produce_response::{ProducePartitionResponse, ProduceResponse, RecordError};
use crate::protocol::record_batch::{self, BatchError, BatchHeader};

/// Why a partition's batch is refused before or by its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProduceError {
    InvalidAcks,
    InvalidTopic,
    UnknownTopic,
    UnknownTopicId,
    /// Clients don't write internal topics.
    InternalTopic,
    Batch(BatchError),
    /// zstd before version 7.
    UnsupportedCodec,
    Append(AppendRefusal),
}

/// A Produce that waits for its partitions.
#[derive(Debug)]
pub struct ProduceState {
    pub acks: i16,
    pub parts: Vec<ProducePart>,
    /// Parts without an outcome.
    pub outstanding: u32,
    /// What isn't durable by then is answered with 7.
    pub deadline: MonotonicNs,
}

#[derive(Debug)]
pub struct ProducePart {
    pub topic: TopicKey,
    pub partition: PartitionId,
    pub outcome: Option<Result<AppendOutcome, ProduceError>>,
}

/// The batch of one partition, verified, and where it goes.
#[derive(Clone, Copy)]
pub struct Accepted<'a> {
    pub target: TopicPartition,
    pub header: &'a BatchHeader,
    pub batch: &'a [u8],
}

/// The topic that a request names, as the catalog knows it.
pub fn topic_key(version: i16, topic: &ProduceTopic<'_>, context: &Context<'_>) -> TopicKey {
    let known =
        if version >= 13 { context.catalog.topic_by_id(topic.id) } else { context.catalog.topic(topic.name) };
    match known {
        Some(known) => TopicKey { name: known.name.clone(), id: known.id },
        None if version >= 13 => TopicKey { name: "".into(), id: topic.id },
        None => TopicKey { name: topic.name.into(), id: TopicId::NONE },
    }
}

/// Checks everything that doesn't depend on the partition's state.
pub fn accept<'a>(
    request: &ProduceRequest<'_>,
    topic: &TopicKey,
    partition: &ProducePartition<'a>,
    context: &Context<'_>,
) -> Result<Accepted<'a>, ProduceError> {
    if !matches!(request.acks, -1..=1) {
        return Err(ProduceError::InvalidAcks);
    }
    let by_id = request.version >= 13;
    if !by_id && topic_name::validate(&topic.name).is_err() {
        return Err(ProduceError::InvalidTopic);
    }
    if topic_name::is_internal(&topic.name) {
        return Err(ProduceError::InternalTopic);
    }
    let unknown = if by_id { ProduceError::UnknownTopicId } else { ProduceError::UnknownTopic };
    let known = context.catalog.topic_by_id(topic.id).ok_or(unknown)?;
    let is_there = usize::try_from(partition.partition.0).is_ok_and(|index| index < known.partitions.len());
    if !is_there {
        return Err(ProduceError::UnknownTopic);
    }
    let batch = partition.records.unwrap_or(&[]);
    let header = record_batch::validate(batch).map_err(ProduceError::Batch)?;
    if header.codec_number() == ZSTD && request.version < 7 {
        return Err(ProduceError::UnsupportedCodec);
    }
    let target = TopicPartition { topic_id: topic.id, partition: partition.partition };
    Ok(Accepted { target, header, batch })
}

const ZSTD: u8 = 4;

impl ProduceState {
    /// True when this was the last outcome awaited.
    pub fn settle(&mut self, part: u32, outcome: Result<AppendOutcome, ProduceError>) -> bool {
        let part = &mut self.parts[part as usize];
        assert!(part.outcome.is_none(), "a part has one outcome");
        part.outcome = Some(outcome);
        self.outstanding -= 1;
        self.outstanding == 0
    }

    pub fn has_error(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.outcome, Some(Err(_))))
    }

    /// Appends the response's body. All parts are settled.
    pub fn respond(&self, version: i16, context: &Context<'_>, out: &mut Vec<u8>) {
        let by_topic = || self.parts.chunk_by(|a, b| a.topic == b.topic);
        let mut response = ProduceResponse::new(out, version, by_topic().count());
        for parts in by_topic() {
            response.topic(&parts[0].topic.name, parts[0].topic.id, parts.len());
            for part in parts {
                part.respond(context, &mut response);
            }
        }
        response.finish(0);
    }
}

impl ProducePart {
    fn respond(&self, context: &Context<'_>, response: &mut ProduceResponse<'_>) {
        match self.outcome.as_ref().expect("all parts are settled") {
            Ok(outcome) => response.partition(&ProducePartitionResponse {
                partition: self.partition,
                error: ErrorCode::None,
                base_offset: outcome.base_offset.0,
                log_append_time_ms: outcome.log_append_time_ms,
                log_start_offset: outcome.log_start.0,
                record_errors: &[],
                error_message: None,
                current_leader: None,
            }),
            Err(ProduceError::Append(AppendRefusal::WithoutKey { first, count })) => {
                self.respond_without_key(first, *count, response);
            }
            Err(error) => {
                let (code, message) = error_map::of_produce(error);
                let mut failed = ProducePartitionResponse::failed(self.partition, code, Some(message));
                let first = [RecordError { batch_index: 0, message: Some(message) }];
                if code == ErrorCode::InvalidTimestamp {
                    failed.record_errors = &first;
                }
                if code == ErrorCode::NotLeaderOrFollower {
                    let known = context.catalog.partition(self.topic.id, self.partition);
                    failed.current_leader = known.map(|known| (known.leader, known.leader_epoch));
                }
                response.partition(&failed);
            }
        }
    }

    /// In the words of Kafka's `LogValidator`.
    fn respond_without_key(&self, first: &[i32], count: usize, response: &mut ProduceResponse<'_>) {
        let message = format!(
            "Compacted topic cannot accept message without key in topic partition {}-{}",
            self.topic.name, self.partition.0
        );
        let errors: Vec<RecordError<'_>> =
            first.iter().map(|place| RecordError { batch_index: *place, message: Some(&message) }).collect();
        let shown: Vec<String> = first
            .iter()
            .take(3)
            .map(|place| format!("RecordError(batchIndex={place}, message='{message}')"))
            .collect();
        let all = format!(
            "One or more records have been rejected due to {count} record errors in total, and only showing the \
             first three errors at most: [{}]",
            shown.join(", ")
        );
        response.partition(&ProducePartitionResponse {
            record_errors: &errors,
            ..ProducePartitionResponse::failed(self.partition, ErrorCode::InvalidRecord, Some(&all))
        });
    }
}
