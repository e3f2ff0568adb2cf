//! Fetch, versions 4 to 18.

use crate::draw::{Draw, for_seeds, text, through_the_second_codec};
use bytes::{Bytes, BytesMut};
use corelane::base::ids::{CorrelationId, LeaderEpoch, NodeId, PartitionId, ProducerId};
use corelane::protocol::cold::{topic_id, uuid};
use corelane::protocol::error_code::ErrorCode;
use corelane::protocol::fetch_request::{self, FetchRequest};
use corelane::protocol::fetch_response::{self as ours, FetchFrame, FetchPartitionResponse, FetchResponse};
use kacrab_protocol::generated::fetch_request::*;
use kacrab_protocol::generated::fetch_response::{
    AbortedTransaction, FetchResponseData, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};

fn draw_request(draw: &mut Draw, version: i16) -> FetchRequestData {
    let is_flexible = version >= 12;
    let has_id = version >= 13;
    FetchRequestData {
        cluster_id: if is_flexible { draw.maybe(|draw| text(&draw.text())) } else { None },
        replica_id: if version <= 14 { draw.i32() } else { -1 },
        replica_state: if version >= 15 && draw.chance() {
            ReplicaState {
                replica_id: draw.i32(),
                replica_epoch: draw.i64(),
                _unknown_tagged_fields: draw.unknown_tags(true),
            }
        } else {
            ReplicaState::default()
        },
        max_wait_ms: draw.i32(),
        min_bytes: draw.i32(),
        max_bytes: draw.i32(),
        isolation_level: draw.i8(),
        session_id: if version >= 7 { draw.i32() } else { 0 },
        session_epoch: if version >= 7 { draw.i32() } else { -1 },
        topics: draw.list(3, |draw| FetchTopic {
            topic: text(&if has_id { String::new() } else { draw.text() }),
            topic_id: if has_id { uuid(draw.id()) } else { Default::default() },
            partitions: draw.list(4, |draw| draw_partition(draw, version)),
            _unknown_tagged_fields: draw.unknown_tags(is_flexible),
        }),
        forgotten_topics_data: if version >= 7 {
            draw.list(3, |draw| ForgottenTopic {
                topic: text(&if has_id { String::new() } else { draw.text() }),
                topic_id: if has_id { uuid(draw.id()) } else { Default::default() },
                partitions: draw.list(4, Draw::i32),
                _unknown_tagged_fields: draw.unknown_tags(is_flexible),
            })
        } else {
            Vec::new()
        },
        rack_id: text(&if version >= 11 { draw.text() } else { String::new() }),
        _unknown_tagged_fields: draw.unknown_tags(is_flexible),
    }
}

fn draw_partition(draw: &mut Draw, version: i16) -> FetchPartition {
    FetchPartition {
        partition: draw.i32(),
        current_leader_epoch: if version >= 9 { draw.i32() } else { -1 },
        fetch_offset: draw.i64(),
        last_fetched_epoch: if version >= 12 { draw.i32() } else { -1 },
        log_start_offset: if version >= 5 { draw.i64() } else { -1 },
        partition_max_bytes: draw.i32(),
        replica_directory_id: if version >= 17 && draw.chance() {
            uuid(draw.id())
        } else {
            Default::default()
        },
        high_watermark: if version >= 18 { draw.i64() } else { i64::MAX },
        _unknown_tagged_fields: draw.unknown_tags(version >= 12),
    }
}

fn without_unknown(mut request: FetchRequestData) -> FetchRequestData {
    request._unknown_tagged_fields.clear();
    request.replica_state._unknown_tagged_fields.clear();
    for topic in &mut request.topics {
        topic._unknown_tagged_fields.clear();
        topic.partitions.iter_mut().for_each(|partition| partition._unknown_tagged_fields.clear());
    }
    request.forgotten_topics_data.iter_mut().for_each(|topic| topic._unknown_tagged_fields.clear());
    request
}

fn owned(request: &FetchRequest<'_>) -> FetchRequestData {
    let is_tagged = request.version >= 15;
    FetchRequestData {
        cluster_id: request.cluster_id.map(text),
        replica_id: if is_tagged { -1 } else { request.replica_id },
        replica_state: ReplicaState {
            replica_id: if is_tagged { request.replica_id } else { -1 },
            replica_epoch: request.replica_epoch,
            ..ReplicaState::default()
        },
        max_wait_ms: request.max_wait_ms,
        min_bytes: request.min_bytes,
        max_bytes: request.max_bytes,
        isolation_level: request.isolation_level,
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        topics: request
            .topics()
            .map(|topic| FetchTopic {
                topic: text(topic.name),
                topic_id: uuid(topic.id),
                partitions: topic.partitions().map(owned_partition).collect(),
                _unknown_tagged_fields: Vec::new(),
            })
            .collect(),
        forgotten_topics_data: request
            .forgotten_topics()
            .map(|topic| ForgottenTopic {
                topic: text(topic.name),
                topic_id: uuid(topic.id),
                partitions: topic.partitions().map(|partition| partition.0).collect(),
                _unknown_tagged_fields: Vec::new(),
            })
            .collect(),
        rack_id: text(request.rack_id),
        _unknown_tagged_fields: Vec::new(),
    }
}

fn owned_partition(partition: fetch_request::FetchPartition) -> FetchPartition {
    FetchPartition {
        partition: partition.partition.0,
        current_leader_epoch: partition.current_leader_epoch,
        fetch_offset: partition.fetch_offset,
        last_fetched_epoch: partition.last_fetched_epoch,
        log_start_offset: partition.log_start_offset,
        partition_max_bytes: partition.partition_max_bytes,
        replica_directory_id: uuid(partition.replica_directory_id),
        high_watermark: partition.high_watermark,
        _unknown_tagged_fields: Vec::new(),
    }
}

#[test]
fn requests_are_what_both_codecs_say() {
    for_seeds(40, |draw| {
        for version in fetch_request::VERSION_MIN..=fetch_request::VERSION_MAX {
            let expected = draw_request(draw, version);
            let mut bytes = BytesMut::new();
            expected.write(&mut bytes, version).expect("fits its version");
            type Second = kafka_protocol::messages::FetchRequest;
            assert_eq!(through_the_second_codec::<Second>(version, &bytes), bytes, "version {version}");
            let request = FetchRequest::parse(version, &bytes).expect("well formed");
            assert_eq!(owned(&request), without_unknown(expected), "version {version}");
            for end in (0..bytes.len()).rev().take(200) {
                assert!(FetchRequest::parse(version, &bytes[..end]).is_err(), "version {version} at {end}");
            }
        }
    });
}

fn draw_response(draw: &mut Draw, version: i16) -> FetchResponseData {
    let has_id = version >= 13;
    let error = |draw: &mut Draw| ErrorCode::ALL[draw.below(ErrorCode::ALL.len() as u64)].number();
    FetchResponseData {
        throttle_time_ms: draw.i32(),
        error_code: if version >= 7 { error(draw) } else { 0 },
        session_id: if version >= 7 { draw.i32() } else { 0 },
        responses: draw.list(3, |draw| FetchableTopicResponse {
            topic: text(&if has_id { String::new() } else { draw.text() }),
            topic_id: if has_id { uuid(draw.id()) } else { Default::default() },
            partitions: draw.list(3, |draw| PartitionData {
                partition_index: draw.i32(),
                error_code: error(draw),
                high_watermark: draw.i64(),
                last_stable_offset: draw.i64(),
                log_start_offset: if version >= 5 { draw.i64() } else { -1 },
                aborted_transactions: draw.maybe(|draw| {
                    draw.list(3, |draw| AbortedTransaction {
                        producer_id: draw.i64(),
                        first_offset: draw.i64(),
                        ..Default::default()
                    })
                }),
                current_leader: if version >= 12 && draw.chance() {
                    LeaderIdAndEpoch {
                        leader_id: draw.below(9) as i32,
                        leader_epoch: draw.i32(),
                        ..Default::default()
                    }
                } else {
                    Default::default()
                },
                records: Some(Bytes::from(draw.blob())),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Writes with our encoder what the codec's type says, holes filled.
fn encode(version: i16, response: &FetchResponseData) -> Vec<u8> {
    let head = ours::FetchResponseHead {
        throttle_ms: response.throttle_time_ms,
        error: ErrorCode::from_number(response.error_code).expect("drawn from the list"),
        session_id: response.session_id,
    };
    let correlation_id = CorrelationId(7);
    let reused =
        FetchFrame { bytes: vec![9; 5], holes: vec![ours::Hole { at: 0, bytes: 1 }], total_bytes: 1 };
    let mut writer = FetchResponse::new(reused, version, correlation_id, head, response.responses.len());
    let mut records = Vec::new();
    for topic in &response.responses {
        writer.topic(topic.topic.as_str(), topic_id(&topic.topic_id), topic.partitions.len());
        for partition in &topic.partitions {
            encode_partition(&mut writer, partition);
            records.extend(partition.records.clone().filter(|records| !records.is_empty()));
        }
    }
    let frame = writer.finish();
    let mut out = Vec::new();
    let mut at = 0;
    assert_eq!(frame.holes.len(), records.len());
    for (hole, records) in frame.holes.iter().zip(records) {
        assert_eq!(hole.bytes, records.len());
        out.extend_from_slice(&frame.bytes[at..hole.at]);
        out.extend_from_slice(&records);
        at = hole.at;
    }
    out.extend_from_slice(&frame.bytes[at..]);
    assert_eq!(out.len(), frame.total_bytes);
    out
}

fn encode_partition(writer: &mut FetchResponse, partition: &PartitionData) {
    let aborted: Option<Vec<_>> = partition.aborted_transactions.as_ref().map(|list| {
        let ours = |transaction: &AbortedTransaction| ours::AbortedTransaction {
            producer_id: ProducerId(transaction.producer_id),
            first_offset: transaction.first_offset,
        };
        list.iter().map(ours).collect()
    });
    let leader = &partition.current_leader;
    writer.partition(&FetchPartitionResponse {
        partition: PartitionId(partition.partition_index),
        error: ErrorCode::from_number(partition.error_code).expect("drawn from the list"),
        high_watermark: partition.high_watermark,
        last_stable_offset: partition.last_stable_offset,
        log_start_offset: partition.log_start_offset,
        aborted_transactions: aborted.as_deref(),
        current_leader: (*leader != LeaderIdAndEpoch::default())
            .then_some((NodeId(leader.leader_id), LeaderEpoch(leader.leader_epoch))),
        records_bytes: partition.records.as_ref().map_or(0, Bytes::len),
    });
}

#[test]
fn responses_are_what_both_codecs_write() {
    for_seeds(40, |draw| {
        for version in fetch_request::VERSION_MIN..=fetch_request::VERSION_MAX {
            let response = draw_response(draw, version);
            let frame = encode(version, &response);
            let mut body = BytesMut::new();
            response.write(&mut body, version).expect("fits its version");
            let header_bytes = if version >= 12 { 9 } else { 8 };
            assert_eq!(
                i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize,
                frame.len() - 4
            );
            assert_eq!(&frame[4..8], [0, 0, 0, 7]);
            assert_eq!(&frame[header_bytes..], body, "version {version}");
            type Second = kafka_protocol::messages::FetchResponse;
            assert_eq!(through_the_second_codec::<Second>(version, &body), body, "version {version}");
        }
    });
}
