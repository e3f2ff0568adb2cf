//! CreateTopics: topics that can't be made as they are asked for.

use super::case::Case;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequestData,
};
use corelane::protocol::cold::create_topics_response::CreateTopicsResponseData;
use corelane::protocol::cold::text;

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic { name: text(name), num_partitions: 1, replication_factor: 1, ..CreatableTopic::default() }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(partition, brokers)| CreatableReplicaAssignment {
        partition_index: *partition,
        broker_ids: brokers.to_vec(),
        ..CreatableReplicaAssignment::default()
    });
    CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: assignments.collect(),
        ..topic(name)
    }
}

fn configured(name: &str, setting: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig {
        name: text(setting),
        value: value.map(text),
        ..CreatableTopicConfig::default()
    };
    CreatableTopic { configs: vec![config], ..topic(name) }
}

/// Codes of the topics asked for, in one request.
fn codes(case: &mut Case, topics: Vec<CreatableTopic>) -> Vec<i16> {
    let request =
        CreateTopicsRequestData { topics, timeout_ms: 30_000, ..CreateTopicsRequestData::default() };
    let mut wire = case.connect();
    let answer: CreateTopicsResponseData = wire.ask(ApiKey::CreateTopics, 5, &request);
    case.sent(&wire);
    case.bystander_works();
    answer.topics.iter().map(|topic| topic.error_code).collect()
}

#[test]
fn row_45_counts_that_can_not_be_are_refused() {
    let mut case = Case::new("row45counts", &[]);
    for (partitions, replicas, code) in [
        (0, 1, 37),
        (-2, 1, 37),
        (i32::MIN, 1, 37),
        (1_000_000_000, 1, 37),
        (i32::MAX, 1, 37),
        (1, 0, 38),
        (1, -2, 38),
        (1, 2, 38),
        (1, i16::MAX, 38),
    ] {
        let asked = CreatableTopic { num_partitions: partitions, replication_factor: replicas, ..topic("t") };
        assert_eq!(codes(&mut case, vec![asked]), [code], "{partitions} {replicas}");
    }
    case.finish();
}

#[test]
fn row_45_broken_assignments_are_refused() {
    let mut case = Case::new("row45assign", &[]);
    for (what, asked, allowed) in [
        ("unknown broker", assigned("t", &[(0, &[99])]), &[39][..]),
        ("broker twice", assigned("t", &[(0, &[1, 1])]), &[39]),
        ("partition 0 missing", assigned("t", &[(1, &[1])]), &[39]),
        ("partition twice", assigned("t", &[(0, &[1]), (0, &[1])]), &[39]),
        ("negative partition", assigned("t", &[(-1, &[1])]), &[39]),
        ("no replica", assigned("t", &[(0, &[])]), &[39]),
        ("both given", CreatableTopic { num_partitions: 1, ..assigned("t", &[(0, &[1])]) }, &[42]),
    ] {
        let found = codes(&mut case, vec![asked]);
        assert!(found.len() == 1 && allowed.contains(&found[0]), "{what}: {found:?}");
    }
    case.finish();
}

#[test]
fn row_45_duplicates_and_bad_settings_are_refused() {
    let mut case = Case::new("row45other", &[]);
    let twice = codes(&mut case, vec![topic("t"), topic("t")]);
    assert!(!twice.is_empty() && twice.iter().all(|code| *code == 42), "{twice:?}");
    assert_eq!(codes(&mut case, vec![topic("bystander")]), [36]);
    for (setting, value) in [
        ("no.such.setting", Some("1")),
        ("retention.ms", Some("yes")),
        ("retention.ms", Some("-2")),
        ("max.message.bytes", Some("-1")),
        ("cleanup.policy", Some("shred")),
        ("compression.type", Some("arj")),
        ("min.insync.replicas", Some("0")),
        ("", Some("1")),
    ] {
        let found = codes(&mut case, vec![configured("t", setting, value)]);
        assert_eq!(found, [40], "{setting}={value:?}");
    }
    case.finish();
}

#[test]
fn row_45_ten_thousand_topics_in_one_request_cost_bounded_memory() {
    let mut case = Case::new("row45many", &[]);
    let many = (0..10_000).map(|index| CreatableTopic { num_partitions: 0, ..topic(&format!("t{index}")) });
    let found = codes(&mut case, many.collect());
    assert!(found.iter().all(|code| *code == 37));
    case.finish();
}
