//! Fetch. Key 1, versions 4 to 18.
//!
//! Behaviour: waits at most max_wait_ms or until min_bytes are readable across all partitions; the
//!            first partition with data is answered with at least one whole batch, whatever the
//!            limits (KIP-74). Records below the high watermark only.
//! Versions:  v5 log start; v7 sessions (KIP-227); v9 leader epoch check; v12 flexible; v13 topic
//!            ids (KIP-516); v15 replica state (KIP-903); v16 current leader (KIP-951).
//! Deviations: a preferred read replica is never returned. A replica id is refused with 29: there
//!            is no replication stream in this protocol. Without transactions the last stable
//!            offset equals the high watermark.
//! Sources:   message schemas FetchRequest, FetchResponse; KIP-74; KIP-227; KIP-516.

use super::Context;
use super::error_map;
use super::fetch_session::{Answer, FetchContext, FetchSessions, FetchTarget, SessionRequest, TopicKey};
use crate::base::ids::{CorrelationId, LeaderEpoch, Offset, PartitionId, TopicId};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::fetch_request::FetchRequest;
use crate::protocol::fetch_response::{FetchFrame, FetchPartitionResponse, FetchResponse, FetchResponseHead};

/// Kafka's `fetch.max.bytes` of a broker: what one response has at most, one batch excepted.
const BYTES_MAX: usize = 57_671_680;

/// A longer wait is cut: no client asks for more, and a timer is held meanwhile.
const WAIT_MS_MAX: u64 = 3_600_000;

const TOPIC_ID_FROM: i16 = 13;

/// A decoded Fetch.
#[derive(Debug)]
pub struct FetchAsk {
    pub context: FetchContext,
    pub by_id: bool,
    pub wait_ms: u64,
    pub min_bytes: usize,
    pub bytes_max: usize,
}

/// Decodes the request and opens or continues its session; an error is answered for the whole.
pub fn ask(
    request: &FetchRequest<'_>,
    sessions: &mut FetchSessions,
    context: &Context<'_>,
) -> Result<FetchAsk, ErrorCode> {
    if request.replica_id >= 0 {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    let by_id = request.version >= TOPIC_ID_FROM;
    let mut targets = Vec::with_capacity(request.topics_count());
    for topic in request.topics() {
        let key = topic_key(by_id, topic.name, topic.id, context);
        targets.extend(topic.partitions().map(|partition| FetchTarget {
            topic: key.clone(),
            partition: partition.partition,
            offset: Offset(partition.fetch_offset),
            bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0).clamp(1, BYTES_MAX),
            leader_epoch:
                (partition.current_leader_epoch >= 0).then_some(LeaderEpoch(partition.current_leader_epoch)),
        }));
    }
    let mut forgotten: Vec<(TopicKey, PartitionId)> = Vec::new();
    for topic in request.forgotten_topics() {
        let key = topic_key(by_id, topic.name, topic.id, context);
        forgotten.extend(topic.partitions().map(|partition| (key.clone(), partition)));
    }
    let session = SessionRequest { id: request.session_id, epoch: request.session_epoch, by_id };
    let context = if request.version >= 7 {
        sessions.begin(session, targets, &forgotten).map_err(error_map::of_session)?
    } else {
        FetchContext { session_id: 0, incremental: false, targets }
    };
    Ok(FetchAsk {
        context,
        by_id,
        wait_ms: u64::try_from(request.max_wait_ms).unwrap_or(0).min(WAIT_MS_MAX),
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(BYTES_MAX),
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(BYTES_MAX),
    })
}

fn topic_key(by_id: bool, name: &str, id: TopicId, context: &Context<'_>) -> TopicKey {
    let known = if by_id { context.catalog.topic_by_id(id) } else { context.catalog.topic(name) };
    match known {
        Some(topic) => TopicKey { name: topic.name.clone(), id: topic.id },
        None => TopicKey { name: name.into(), id },
    }
}

/// What one partition is answered.
#[derive(Clone, Debug)]
pub struct PartitionAnswer {
    pub target: FetchTarget,
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub log_start: i64,
    /// Bytes of records that follow in the frame.
    pub bytes: usize,
}

impl FetchSessions {
    /// Remembers an answer in its session; false when an incremental response leaves it out.
    pub fn tell_answer(&mut self, session_id: i32, incremental: bool, answer: &PartitionAnswer) -> bool {
        let told = Answer {
            high_watermark: Offset(answer.high_watermark),
            log_start: Offset(answer.log_start),
            has_records: answer.bytes > 0,
            is_error: answer.error.is_error(),
        };
        let told = self.tell(session_id, &answer.target, told);
        told || !incremental
    }
}

/// The frame of a response, with a hole for each partition's records.
pub fn respond(
    version: i16,
    correlation_id: CorrelationId,
    session_id: i32,
    answers: &[PartitionAnswer],
    context: &Context<'_>,
    reused: Vec<u8>,
) -> FetchFrame {
    let frame = FetchFrame { bytes: reused, ..FetchFrame::default() };
    let head = FetchResponseHead { throttle_ms: 0, error: ErrorCode::None, session_id };
    let by_topic = || answers.chunk_by(|a, b| a.target.topic == b.target.topic);
    let mut response = FetchResponse::new(frame, version, correlation_id, head, by_topic().count());
    for answers in by_topic() {
        let topic = &answers[0].target.topic;
        response.topic(&topic.name, topic.id, answers.len());
        for answer in answers {
            let leader = context.catalog.partition(topic.id, answer.target.partition);
            let is_epoch_error =
                matches!(answer.error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
            response.partition(&FetchPartitionResponse {
                partition: answer.target.partition,
                error: answer.error,
                high_watermark: answer.high_watermark,
                last_stable_offset: answer.high_watermark,
                log_start_offset: answer.log_start,
                aborted_transactions: None,
                current_leader: leader
                    .filter(|_| is_epoch_error)
                    .map(|leader| (leader.leader, leader.leader_epoch)),
                records_bytes: answer.bytes,
            });
        }
    }
    response.finish()
}

/// The response to a fetch that is refused as a whole.
pub fn respond_refused(
    version: i16,
    correlation_id: CorrelationId,
    error: ErrorCode,
    request: &FetchRequest<'_>,
    reused: Vec<u8>,
) -> FetchFrame {
    let frame = FetchFrame { bytes: reused, ..FetchFrame::default() };
    let is_of_session = version >= 7 && error != ErrorCode::TopicAuthorizationFailed;
    let head_error = if is_of_session { error } else { ErrorCode::None };
    let head = FetchResponseHead { throttle_ms: 0, error: head_error, session_id: 0 };
    let topics_count = if is_of_session { 0 } else { request.topics_count() };
    let mut response = FetchResponse::new(frame, version, correlation_id, head, topics_count);
    for topic in request.topics().take(topics_count) {
        response.topic(topic.name, topic.id, topic.partitions_count());
        for partition in topic.partitions() {
            response.partition(&FetchPartitionResponse::failed(partition.partition, error));
        }
    }
    response.finish()
}
