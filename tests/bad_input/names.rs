//! Names: topics that can't be, whichever way they are asked for.

use super::case::Case;
use super::messages::{Topic, batch, produce};
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::create_topics_request::{CreatableTopic, CreateTopicsRequestData};
use corelane::protocol::cold::create_topics_response::CreateTopicsResponseData;
use corelane::protocol::cold::metadata_request::{MetadataRequestData, MetadataRequestTopic};
use corelane::protocol::cold::metadata_response::MetadataResponseData;
use corelane::protocol::cold::text;

fn illegal_names() -> Vec<String> {
    let mut names: Vec<String> =
        ["", ".", "..", "../../etc", "a/b", "a\\b", "a\0b", "a b", "é", "名", "a:b", "a\nb", "%2e%2e"]
            .map(str::to_string)
            .to_vec();
    names.push("x".repeat(250));
    names.push("x".repeat(32_000));
    names
}

fn request_for(name: &str) -> CreateTopicsRequestData {
    let topic = CreatableTopic {
        name: text(name),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    CreateTopicsRequestData { topics: vec![topic], timeout_ms: 30_000, ..CreateTopicsRequestData::default() }
}

#[test]
fn row_44_illegal_names_are_not_created() {
    let mut case = Case::new("row44create", &[]);
    let mut wire = case.connect();
    for name in illegal_names() {
        let answer: CreateTopicsResponseData = wire.ask(ApiKey::CreateTopics, 5, &request_for(&name));
        assert_eq!(answer.topics[0].error_code, 17, "{name:?}");
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_44_names_whose_metrics_would_collide_are_not_created() {
    let mut case = Case::new("row44collide", &[]);
    case.create_topic("a_b", 1, &[]);
    let mut wire = case.connect();
    let answer: CreateTopicsResponseData = wire.ask(ApiKey::CreateTopics, 5, &request_for("a.b"));
    assert_eq!(answer.topics[0].error_code, 17);
    case.bystander_works();
    let answer: CreateTopicsResponseData = wire.ask(ApiKey::CreateTopics, 5, &request_for("a-b"));
    assert_eq!(answer.topics[0].error_code, 0);
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_44_illegal_names_are_not_created_by_looking_either() {
    let mut case = Case::new("row44look", &[]);
    let mut wire = case.connect();
    for name in illegal_names() {
        let wanted = MetadataRequestTopic { name: Some(text(&name)), ..MetadataRequestTopic::default() };
        let request = MetadataRequestData {
            topics: Some(vec![wanted]),
            allow_auto_topic_creation: true,
            ..MetadataRequestData::default()
        };
        let answer: MetadataResponseData = wire.ask(ApiKey::Metadata, 9, &request);
        assert_eq!(answer.topics[0].error_code, 17, "{name:?}");
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_44_illegal_names_are_not_written_to() {
    let mut case = Case::new("row44write", &[]);
    let mut wire = case.connect();
    for name in illegal_names() {
        let answer = produce(&mut wire, 9, Topic::named(&name), 0, &batch(&[b"v"]));
        assert!(matches!(answer.error, 3 | 17), "{name:?} is answered {}", answer.error);
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}
