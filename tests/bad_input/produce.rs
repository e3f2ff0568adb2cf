//! Produce: acks nobody knows, silent failures, times outside the window, missing keys, unknown partitions.

use super::case::Case;
use super::messages::{Topic, batch, batch_of, changed, now_ms, produce, produce_frame, read_produce};
use corelane::base::ids::TopicId;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::cold::delete_topics_request::{DeleteTopicState, DeleteTopicsRequestData};
use corelane::protocol::cold::delete_topics_response::DeleteTopicsResponseData;
use corelane::protocol::cold::metadata_request::{MetadataRequestData, MetadataRequestTopic};
use corelane::protocol::cold::metadata_response::MetadataResponseData;
use corelane::protocol::cold::text;
use corelane::protocol::compression::{Codec, Codecs};

#[test]
fn row_21_acks_of_2_are_refused_for_every_partition() {
    let mut case = Case::new("row21", &[]);
    case.create_topic("t", 2, &[]);
    let records = batch(&[b"v"]);
    for acks in [2, -2, i16::MAX] {
        let mut wire = case.connect();
        let parts = [(0, Some(&records[..])), (1, Some(&records[..]))];
        wire.send(&produce_frame(9, acks, Topic::named("t"), &parts));
        case.bystander_works();
        let answer = read_produce(9, &wire.answer());
        let errors: Vec<_> = answer.iter().map(|part| (part.partition, part.error)).collect();
        assert_eq!(errors, [(0, 21), (1, 21)], "acks {acks}");
        case.sent(&wire);
    }
    case.finish();
}

#[test]
fn row_22_errors_nobody_waits_for_close() {
    let mut case = Case::new("row22", &[]);
    let good = batch(&[b"v"]);
    let mut corrupt = good.clone();
    corrupt[40] ^= 1;
    for (what, topic, partition, records) in [
        ("unknown topic", "nobody", 0, Some(&good[..])),
        ("unknown partition", "bystander", 7, Some(&good[..])),
        ("illegal name", "../x", 0, Some(&good[..])),
        ("wrong checksum", "bystander", 0, Some(&corrupt[..])),
        ("no batch", "bystander", 0, None),
    ] {
        let mut wire = case.connect();
        wire.send(&produce_frame(9, 0, Topic::named(topic), &[(partition, records)]));
        case.bystander_works();
        wire.assert_closed(what);
        case.sent(&wire);
    }
    case.finish();
}

#[test]
fn row_30_times_outside_the_window_are_refused_with_the_record() {
    let mut case = Case::new("row30", &[]);
    let window = [("message.timestamp.before.max.ms", "60000"), ("message.timestamp.after.max.ms", "60000")];
    case.create_topic("t", 1, &window);
    let mut wire = case.connect();
    for timestamp_ms in [now_ms() - 3_600_000, now_ms() + 3_600_000, 0, i64::MAX] {
        let records = batch_of(BatchOptions::default(), Some(b"k"), &[b"v"], timestamp_ms);
        let answer = produce(&mut wire, 9, Topic::named("t"), 0, &records);
        assert_eq!((answer.error, answer.record_errors), (32, vec![0]), "{timestamp_ms}");
        case.bystander_works();
    }
    assert_eq!(produce(&mut wire, 9, Topic::named("t"), 0, &batch(&[b"v"])).error, 0);
    case.sent(&wire);
    case.finish();
}

/// A batch of a record per key.
fn keyed(codec: Codec, keys: &[Option<&[u8]>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    for key in keys {
        builder.push(now_ms(), *key, Some(b"v"), &[]);
    }
    builder.finish(&mut Codecs::default())
}

#[test]
fn row_31_records_without_key_are_refused_by_compacted_topics() {
    let mut case = Case::new("row31", &[]);
    let mut wire = case.connect();
    for (name, settings) in [
        ("compact", &[("cleanup.policy", "compact")][..]),
        ("both", &[("cleanup.policy", "compact,delete")]),
        ("rewritten", &[("cleanup.policy", "compact"), ("compression.type", "lz4")]),
    ] {
        case.create_topic(name, 1, settings);
        for (index, codec) in (0..).zip(Codec::ALL) {
            let records = keyed(codec, &[Some(b"k"), None, Some(b""), None, None, None]);
            let answer = produce(&mut wire, 9, Topic::named(name), 0, &records);
            let found = (answer.error, answer.base_offset, answer.record_errors);
            assert_eq!(found, (87, -1, vec![1, 3, 4, 5]), "{name} {codec:?}");
            let why =
                format!("Compacted topic cannot accept message without key in topic partition {name}-0");
            let named = [1, 3, 4].map(|place| format!("RecordError(batchIndex={place}, message='{why}')"));
            let message = format!(
                "One or more records have been rejected due to 4 record errors in total, and only showing the \
                 first three errors at most: [{}]",
                named.join(", ")
            );
            assert_eq!(answer.message, Some(message), "{name} {codec:?}");
            let records = keyed(codec, &[Some(b"k"), Some(b"")]);
            let answer = produce(&mut wire, 9, Topic::named(name), 0, &records);
            let found = (answer.error, answer.base_offset, answer.record_errors);
            assert_eq!(found, (0, 2 * index, vec![]), "{name} {codec:?}");
        }
        case.bystander_works();
    }
    // A topic that isn't compacted takes them.
    let records = keyed(Codec::None, &[None, None]);
    assert_eq!(produce(&mut wire, 9, Topic::named("target123"), 0, &records).error, 0);
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_31_of_very_many_records_without_key_the_first_are_named() {
    let mut case = Case::new("row31many", &[]);
    case.create_topic("t", 1, &[("cleanup.policy", "compact")]);
    let mut wire = case.connect();
    let records = keyed(Codec::Zstd, &vec![None; 1_000_000]);
    let answer = produce(&mut wire, 9, Topic::named("t"), 0, &records);
    assert_eq!((answer.error, answer.record_errors), (87, (0..100).collect()));
    assert!(answer.message.is_some_and(|message| message.contains("due to 1000000 record errors")));
    case.bystander_works();
    case.sent(&wire);
    // The records decompressed, which has a limit of its own.
    case.allow(16 << 20);
    case.finish();
}

#[test]
fn row_43_unknown_ids_and_partitions_are_named_as_such() {
    let mut case = Case::new("row43produce", &[]);
    let records = batch(&[b"v"]);
    let mut wire = case.connect();
    for partition in [-1, 1, i32::MAX, i32::MIN] {
        let answer = produce(&mut wire, 9, Topic::named("bystander"), partition, &records);
        assert_eq!((answer.partition, answer.error, answer.base_offset), (partition, 3, -1));
    }
    for id in [[9; 16], [0; 16]] {
        let answer = produce(&mut wire, 13, Topic { name: "", id: TopicId(id) }, 0, &records);
        assert_eq!(answer.error, 100, "{id:?}");
    }
    case.bystander_works();
    case.sent(&wire);
    case.finish();
}

/// No request that clients send is answered 103: Produce and Fetch name a topic in one way per version.
/// DeleteTopics can name one in two ways, which Kafka refuses even where they belong together.
#[test]
fn row_43_a_topic_by_name_and_id_at_once_is_not_deleted() {
    let mut case = Case::new("row43delete", &[]);
    let mut wire = case.connect();
    let named = MetadataRequestTopic { name: Some(text("target123")), ..MetadataRequestTopic::default() };
    let request = MetadataRequestData { topics: Some(vec![named]), ..MetadataRequestData::default() };
    let known: MetadataResponseData = wire.ask(ApiKey::Metadata, 12, &request);
    let id = known.topics[0].topic_id;
    for name in ["bystander", "target123", "nobody"] {
        let state = DeleteTopicState { name: Some(text(name)), topic_id: id, ..DeleteTopicState::default() };
        let request = DeleteTopicsRequestData {
            topics: vec![state],
            timeout_ms: 30_000,
            ..DeleteTopicsRequestData::default()
        };
        let answer: DeleteTopicsResponseData = wire.ask(ApiKey::DeleteTopics, 6, &request);
        assert_eq!(answer.responses[0].error_code, 42, "{name}");
        case.bystander_works();
    }
    let again: MetadataResponseData = wire.ask(ApiKey::Metadata, 12, &request);
    assert_eq!((again.topics[0].error_code, again.topics[0].topic_id), (0, id));
    case.sent(&wire);
    case.finish();
}

#[test]
fn a_base_offset_of_the_clients_choice_is_refused() {
    let mut case = Case::new("baseoffset", &[]);
    let mut wire = case.connect();
    for offset in [1, -1, i64::MAX] {
        let records = changed(batch(&[b"v"]), |header| header.base_offset.set(offset));
        let answer = produce(&mut wire, 9, Topic::named("bystander"), 0, &records);
        assert_eq!(answer.error, 87, "{offset}");
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}
