//! Produce, versions 3 to 13.

use crate::draw::{Draw, for_seeds, text, through_the_second_codec};
use bytes::{Bytes, BytesMut};
use corelane::base::ids::{LeaderEpoch, NodeId, PartitionId};
use corelane::protocol::cold::{topic_id, uuid};
use corelane::protocol::error_code::ErrorCode;
use corelane::protocol::produce_request::{self, ProduceRequest};
use corelane::protocol::produce_response::{ProducePartitionResponse, ProduceResponse, RecordError};
use kacrab_protocol::generated::produce_request::*;
use kacrab_protocol::generated::produce_response::*;

fn draw_request(draw: &mut Draw, version: i16) -> ProduceRequestData {
    let is_flexible = version >= 9;
    let has_id = version >= 13;
    ProduceRequestData {
        transactional_id: draw.maybe(|draw| text(&draw.text())),
        acks: draw.i16(),
        timeout_ms: draw.i32(),
        topic_data: draw.list(4, |draw| TopicProduceData {
            name: text(&if has_id { String::new() } else { draw.text() }),
            topic_id: if has_id { uuid(draw.id()) } else { Default::default() },
            partition_data: draw.list(4, |draw| PartitionProduceData {
                index: draw.i32(),
                records: draw.maybe(|draw| Bytes::from(draw.blob())),
                _unknown_tagged_fields: draw.unknown_tags(is_flexible),
            }),
            _unknown_tagged_fields: draw.unknown_tags(is_flexible),
        }),
        _unknown_tagged_fields: draw.unknown_tags(is_flexible),
    }
}

/// The view's content, as the codec's type; unknown tagged fields are dropped.
fn owned(request: &ProduceRequest<'_>) -> ProduceRequestData {
    ProduceRequestData {
        transactional_id: request.transactional_id.map(text),
        acks: request.acks,
        timeout_ms: request.timeout_ms,
        topic_data: request
            .topics()
            .map(|topic| TopicProduceData {
                name: text(topic.name),
                topic_id: uuid(topic.id),
                partition_data: topic
                    .partitions()
                    .map(|partition| PartitionProduceData {
                        index: partition.partition.0,
                        records: partition.records.map(Bytes::copy_from_slice),
                        _unknown_tagged_fields: Vec::new(),
                    })
                    .collect(),
                _unknown_tagged_fields: Vec::new(),
            })
            .collect(),
        _unknown_tagged_fields: Vec::new(),
    }
}

fn without_unknown(mut request: ProduceRequestData) -> ProduceRequestData {
    request._unknown_tagged_fields.clear();
    for topic in &mut request.topic_data {
        topic._unknown_tagged_fields.clear();
        topic.partition_data.iter_mut().for_each(|partition| partition._unknown_tagged_fields.clear());
    }
    request
}

#[test]
fn requests_are_what_both_codecs_say() {
    for_seeds(40, |draw| {
        for version in produce_request::VERSION_MIN..=produce_request::VERSION_MAX {
            let expected = draw_request(draw, version);
            let mut bytes = BytesMut::new();
            expected.write(&mut bytes, version).expect("fits its version");
            type Second = kafka_protocol::messages::ProduceRequest;
            assert_eq!(through_the_second_codec::<Second>(version, &bytes), bytes);
            let request = ProduceRequest::parse(version, &bytes).expect("well formed");
            assert_eq!(owned(&request), without_unknown(expected), "version {version}");
            for end in (0..bytes.len()).rev().take(200) {
                assert!(ProduceRequest::parse(version, &bytes[..end]).is_err(), "version {version} at {end}");
            }
        }
    });
}

fn draw_response(draw: &mut Draw, version: i16) -> ProduceResponseData {
    let has_id = version >= 13;
    let error = |draw: &mut Draw| ErrorCode::ALL[draw.below(ErrorCode::ALL.len() as u64)];
    ProduceResponseData {
        responses: draw.list(3, |draw| TopicProduceResponse {
            name: text(&if has_id { String::new() } else { draw.text() }),
            topic_id: if has_id { uuid(draw.id()) } else { Default::default() },
            partition_responses: draw.list(3, |draw| PartitionProduceResponse {
                index: draw.i32(),
                error_code: error(draw).number(),
                base_offset: draw.i64(),
                log_append_time_ms: draw.i64(),
                log_start_offset: if version >= 5 { draw.i64() } else { -1 },
                record_errors: if version >= 8 {
                    draw.list(2, |draw| BatchIndexAndErrorMessage {
                        batch_index: draw.i32(),
                        batch_index_error_message: draw.maybe(|draw| text(&draw.text())),
                        ..Default::default()
                    })
                } else {
                    Vec::new()
                },
                error_message: if version >= 8 { draw.maybe(|draw| text(&draw.text())) } else { None },
                current_leader: if version >= 10 && draw.chance() {
                    LeaderIdAndEpoch {
                        leader_id: draw.below(9) as i32,
                        leader_epoch: draw.i32(),
                        ..Default::default()
                    }
                } else {
                    Default::default()
                },
                ..Default::default()
            }),
            ..Default::default()
        }),
        throttle_time_ms: draw.i32(),
        ..Default::default()
    }
}

/// Writes with our encoder what the codec's type says.
fn encode(version: i16, response: &ProduceResponseData) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ProduceResponse::new(&mut out, version, response.responses.len());
    for topic in &response.responses {
        writer.topic(topic.name.as_str(), topic_id(&topic.topic_id), topic.partition_responses.len());
        for partition in &topic.partition_responses {
            let record_errors: Vec<_> = partition
                .record_errors
                .iter()
                .map(|error| RecordError {
                    batch_index: error.batch_index,
                    message: error.batch_index_error_message.as_ref().map(|text| text.as_str()),
                })
                .collect();
            let leader = &partition.current_leader;
            writer.partition(&ProducePartitionResponse {
                partition: PartitionId(partition.index),
                error: ErrorCode::from_number(partition.error_code).expect("drawn from the list"),
                base_offset: partition.base_offset,
                log_append_time_ms: partition.log_append_time_ms,
                log_start_offset: partition.log_start_offset,
                record_errors: &record_errors,
                error_message: partition.error_message.as_ref().map(|text| text.as_str()),
                current_leader: (*leader != LeaderIdAndEpoch::default())
                    .then_some((NodeId(leader.leader_id), LeaderEpoch(leader.leader_epoch))),
            });
        }
    }
    writer.finish(response.throttle_time_ms);
    out
}

#[test]
fn responses_are_what_both_codecs_write() {
    for_seeds(40, |draw| {
        for version in produce_request::VERSION_MIN..=produce_request::VERSION_MAX {
            let response = draw_response(draw, version);
            let bytes = encode(version, &response);
            let mut expected = BytesMut::new();
            response.write(&mut expected, version).expect("fits its version");
            assert_eq!(bytes, expected, "version {version}");
            type Second = kafka_protocol::messages::ProduceResponse;
            assert_eq!(through_the_second_codec::<Second>(version, &bytes), bytes, "version {version}");
        }
    });
}
