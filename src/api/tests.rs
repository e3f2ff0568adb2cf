//! Every cold response is encoded in every version that is served: the codec refuses a field that
//! the version doesn't carry, so a handler that fills one is found here and not by a client.

use std::collections::BTreeMap;

use super::describe_configs::FixedSetting;
use super::*;
use crate::base::ids::{DirectoryId, LaneId, LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicId};
use crate::catalog::MetadataRecord;
use crate::catalog::broker_config::{self, BrokerConfig, BrokerSettings};
use crate::catalog::decide::{CreationDefaults, NewTopic, Refusal};
use crate::control::command::{ConfigResource, ControlCommand, ControlOutcome, TopicOutcome, TopicRef};
use crate::coordinator::GroupRequest;
use crate::partition::read::ListedOffset;
use crate::protocol::api_key::ApiKey;
use crate::protocol::cold::{self, Message, text, uuid};
use crate::protocol::error_code::ErrorCode;

const TOPIC: TopicId = TopicId([7; 16]);
const UNKNOWN: TopicId = TopicId([8; 16]);

const DIRECTORY: DirectoryId = DirectoryId([1; 16]);

fn catalog() -> Catalog {
    let mut catalog = Catalog::new(NodeId(1), BrokerSettings::default());
    catalog.apply(&MetadataRecord::ClusterCreated { cluster_id: "cluster".into() });
    catalog.apply(&MetadataRecord::NodeStarted { node: NodeId(1), incarnation: 1, lanes_count: 1 });
    catalog.apply(&MetadataRecord::DirectoryOpened {
        node: NodeId(1),
        directory: DIRECTORY,
        path: "/data".into(),
        lanes: vec![LaneId(0)],
    });
    let defaults = CreationDefaults { partitions_count: 2, replication_factor: 1 };
    let settings = BTreeMap::from([("retention.ms".to_string(), "5".to_string())]);
    let topic = NewTopic {
        name: "topic".into(),
        partitions_count: -1,
        replication_factor: -1,
        settings,
        ..NewTopic::default()
    };
    let created = catalog.create_topic(&topic, TOPIC, defaults).expect("a legal topic");
    created.records.iter().for_each(|record| catalog.apply(record));
    catalog
}

fn endpoint() -> Endpoint {
    Endpoint { host: "host".into(), port: 9092 }
}

fn context<'a>(catalog: &'a Catalog, endpoint: &'a Endpoint) -> Context<'a> {
    Context { catalog, endpoint, auto_create_topics: true, offsets_partitions_count: 50 }
}

/// Encodes what `respond` makes in every served version, and decodes it again.
fn check<T: Message + std::fmt::Debug>(key: ApiKey, respond: impl Fn(i16, &Context<'_>) -> T) {
    let catalog = catalog();
    let endpoint = endpoint();
    let context = context(&catalog, &endpoint);
    let served = table::TABLE.iter().find(|served| served.key == key).expect("a served key");
    for version in served.version_min..=served.version_max {
        let response = respond(version, &context);
        let mut out = Vec::new();
        cold::encode(version, &response, &mut out)
            .unwrap_or_else(|error| panic!("{key:?} version {version}: {error}\n{response:?}"));
        let read: Result<T, _> = cold::decode(version, &out);
        assert!(read.is_ok(), "{key:?} version {version}: {:?}", read.err());
    }
}

#[test]
fn metadata_and_cluster_fit_every_version() {
    use cold::metadata_request::{MetadataRequestData, MetadataRequestTopic};
    check(ApiKey::Metadata, |version, context| {
        let by = |name: Option<&str>, id: TopicId| MetadataRequestTopic {
            name: name.map(text),
            topic_id: uuid(id),
            ..Default::default()
        };
        let mut topics = vec![
            by(Some("topic"), TopicId::NONE),
            by(Some("absent"), TopicId::NONE),
            by(Some(".."), TopicId::NONE),
        ];
        if version >= 12 {
            topics.extend([by(None, TOPIC), by(None, UNKNOWN)]);
        }
        let request = MetadataRequestData {
            topics: Some(topics),
            include_topic_authorized_operations: version >= 8,
            include_cluster_authorized_operations: (8..=10).contains(&version),
            ..Default::default()
        };
        metadata::respond(version, &request, context)
    });
    check(ApiKey::DescribeCluster, |version, context| {
        let request = cold::describe_cluster_request::DescribeClusterRequestData {
            include_cluster_authorized_operations: true,
            include_fenced_brokers: version >= 2,
            ..Default::default()
        };
        describe_cluster::respond(&request, context)
    });
    check(ApiKey::DescribeTopicPartitions, |_, context| {
        let request = cold::describe_topic_partitions_request::DescribeTopicPartitionsRequestData {
            response_partition_limit: 1,
            ..Default::default()
        };
        describe_topic_partitions::respond(&request, context)
    });
    for key_type in [0, 1, 9] {
        check(ApiKey::FindCoordinator, |version, context| {
            let request = cold::find_coordinator_request::FindCoordinatorRequestData {
                key: text("group"),
                key_type,
                coordinator_keys: vec![text("group")],
                ..Default::default()
            };
            find_coordinator::respond(version, &request, context)
        });
    }
}

#[test]
fn log_directories_fit_every_version() {
    use cold::describe_log_dirs_request::{DescribableLogDirTopic, DescribeLogDirsRequestData};
    use describe_log_dirs::{Space, respond, targets};
    let ask = |topic: &str, partitions: &[i32]| DescribableLogDirTopic {
        topic: text(topic),
        partitions: partitions.to_vec(),
        ..Default::default()
    };
    check(ApiKey::DescribeLogDirs, |_, context| {
        let of = |index| TopicPartition { topic_id: TOPIC, partition: PartitionId(index) };
        let none = DescribeLogDirsRequestData { topics: Some(Vec::new()), ..Default::default() };
        assert_eq!(targets(&none, context), []);
        let all = DescribeLogDirsRequestData { topics: None, ..Default::default() };
        assert_eq!(targets(&all, context), [of(0), of(1)]);
        let topics = Some(vec![ask("topic", &[1, 9]), ask("absent", &[0])]);
        let some = DescribeLogDirsRequestData { topics, ..Default::default() };
        assert_eq!(targets(&some, context), [of(1)]);
        let space = |id| {
            assert_eq!(id, DIRECTORY);
            Space { total_bytes: 7, usable_bytes: 5 }
        };
        let response = respond(&[(of(0), None), (of(1), Some(9))], space, context);
        let directory = &response.results[0];
        assert_eq!((directory.error_code, directory.log_dir.as_str()), (0, "/data"));
        assert_eq!((directory.total_bytes, directory.usable_bytes), (7, 5));
        let partition = &directory.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.partition_size), (1, 9));
        response
    });
}

#[test]
fn a_failed_directory_is_seen_in_every_answer() {
    let mut catalog = catalog();
    catalog.directories.fail(DIRECTORY);
    let endpoint = endpoint();
    let context = context(&catalog, &endpoint);
    let of = TopicPartition { topic_id: TOPIC, partition: PartitionId(0) };
    let described =
        describe_log_dirs::respond(&[(of, Some(9))], |_| describe_log_dirs::Space::UNKNOWN, &context);
    let directory = &described.results[0];
    assert_eq!((directory.error_code, directory.topics.len(), directory.total_bytes), (56, 0, -1));
    let all = cold::metadata_request::MetadataRequestData { topics: None, ..Default::default() };
    let answer = metadata::respond(13, &all, &context);
    let partition = &answer.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id), (5, -1));
    assert_eq!((&partition.offline_replicas[..], &partition.replica_nodes[..]), (&[1][..], &[1][..]));
    let page = cold::describe_topic_partitions_request::DescribeTopicPartitionsRequestData {
        response_partition_limit: 9,
        ..Default::default()
    };
    let answer = describe_topic_partitions::respond(&page, &context);
    let partition = &answer.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id), (5, -1));
    assert_eq!(partition.offline_replicas, [1]);
}

#[test]
fn changes_of_topics_fit_every_version() {
    let outcome = || {
        let created = TopicOutcome {
            topic: TopicRef { name: "new".into(), topic_id: TOPIC },
            partitions_count: 1,
            replication_factor: 1,
        };
        ControlOutcome::Topics(vec![Ok(created), Err(Refusal::TopicExists)])
    };
    check(ApiKey::CreateTopics, |_, context| {
        use cold::create_topics_request::{CreatableTopic, CreateTopicsRequestData};
        let topic = |name: &str| CreatableTopic { name: text(name), ..Default::default() };
        let topics = vec![topic("new"), topic("old"), topic("twice"), topic("twice")];
        let request = CreateTopicsRequestData { topics, ..Default::default() };
        create_topics::respond(&request, outcome(), context)
    });
    check(ApiKey::DeleteTopics, |version, _| {
        use cold::delete_topics_request::{DeleteTopicState, DeleteTopicsRequestData};
        let by_id = DeleteTopicState { topic_id: uuid(UNKNOWN), ..Default::default() };
        let by_name = DeleteTopicState { name: Some(text("new")), ..Default::default() };
        let request = DeleteTopicsRequestData {
            topics: vec![by_name, by_id],
            topic_names: vec![text("new"), text("old")],
            ..Default::default()
        };
        delete_topics::respond(version, &request, outcome())
    });
    check(ApiKey::CreatePartitions, |_, _| {
        use cold::create_partitions_request::{CreatePartitionsRequestData, CreatePartitionsTopic};
        let topic = |name: &str| CreatePartitionsTopic { name: text(name), count: 9, ..Default::default() };
        let request =
            CreatePartitionsRequestData { topics: vec![topic("new"), topic("old")], ..Default::default() };
        create_partitions::respond(&request, outcome())
    });
    check(ApiKey::InitProducerId, |_, _| init_producer_id::respond(Ok((ProducerId(5), ProducerEpoch(0)))));
    check(ApiKey::InitProducerId, |_, _| init_producer_id::respond(Err(ErrorCode::CoordinatorNotAvailable)));
}

#[test]
fn offsets_and_configs_fit_every_version() {
    check(ApiKey::ListOffsets, |version, _| {
        use cold::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequestData, ListOffsetsTopic};
        let partitions = vec![ListOffsetsPartition::default(); 3];
        let topics = vec![ListOffsetsTopic { name: text("topic"), partitions, ..Default::default() }];
        let request = ListOffsetsRequestData { topics, ..Default::default() };
        let listed = ListedOffset { timestamp: 5, offset: Offset(6), leader_epoch: LeaderEpoch(7) };
        list_offsets::respond(
            version,
            &request,
            vec![Ok(Some(listed)), Ok(None), Err(ErrorCode::FencedLeaderEpoch)],
        )
    });
    check(ApiKey::OffsetForLeaderEpoch, |_, _| {
        use cold::offset_for_leader_epoch_request as ask;
        let partitions = vec![ask::OffsetForLeaderPartition::default(); 3];
        let topics =
            vec![ask::OffsetForLeaderTopic { topic: text("topic"), partitions, ..Default::default() }];
        let request = ask::OffsetForLeaderEpochRequestData { topics, ..Default::default() };
        let outcomes =
            vec![Ok(Some((LeaderEpoch(1), Offset(2)))), Ok(None), Err(ErrorCode::UnknownLeaderEpoch)];
        offset_for_leader_epoch::respond(&request, outcomes)
    });
    check(ApiKey::DescribeConfigs, |version, context| {
        use cold::describe_configs_request::{DescribeConfigsRequestData, DescribeConfigsResource};
        let resource = |resource_type: i8, name: &str| DescribeConfigsResource {
            resource_type,
            resource_name: text(name),
            ..Default::default()
        };
        let resources = vec![
            resource(2, "topic"),
            resource(2, "absent"),
            resource(4, "1"),
            resource(4, "9"),
            resource(4, ""),
            resource(77, ""),
        ];
        let request = DescribeConfigsRequestData {
            resources,
            include_synonyms: true,
            include_documentation: version >= 3,
            ..Default::default()
        };
        let fixed =
            [FixedSetting { name: "node.id", given: Some("1".into()), default: "1", documentation: "d" }];
        describe_configs::respond(&request, &fixed, context)
    });
}

/// Value and source of a setting, with what else it was given.
type Described = (String, i8, bool, Vec<(String, String, i8)>);

fn described(catalog: &Catalog, resource_type: i8, resource: &str) -> BTreeMap<String, Described> {
    use cold::describe_configs_request::{DescribeConfigsRequestData, DescribeConfigsResource};
    let endpoint = endpoint();
    let context = context(catalog, &endpoint);
    let resource =
        DescribeConfigsResource { resource_type, resource_name: text(resource), ..Default::default() };
    let request = DescribeConfigsRequestData {
        resources: vec![resource],
        include_synonyms: true,
        ..Default::default()
    };
    let said =
        |value: &Option<cold::KafkaString>| value.as_ref().map_or(String::new(), |value| value.to_string());
    let configs = describe_configs::respond(&request, FIXED, &context).results.remove(0).configs;
    let configs = configs.into_iter().map(|config| {
        let synonyms = config.synonyms.iter();
        let synonyms = synonyms.map(|found| (found.name.to_string(), said(&found.value), found.source));
        let found = (said(&config.value), config.config_source, config.read_only, synonyms.collect());
        (config.name.to_string(), found)
    });
    configs.collect()
}

const FIXED: &[FixedSetting] =
    &[FixedSetting { name: "num.partitions", given: None, default: "1", documentation: "" }];

fn described_as(value: &str, source: i8, synonyms: &[(&str, &str, i8)]) -> Described {
    let own = |(name, value, source): &(&str, &str, i8)| (name.to_string(), value.to_string(), *source);
    (value.to_string(), source, false, synonyms.iter().map(own).collect())
}

#[test]
fn every_value_says_where_it_comes_from() {
    let mut start = BrokerConfig::default();
    let segment_bytes = broker_config::find("log.segment.bytes").expect("known");
    start.set(segment_bytes, "2000000").expect("valid");
    let given = BTreeMap::from([("log.segment.bytes".to_string(), "2000000".to_string())]);
    let mut catalog = Catalog::new(NodeId(1), BrokerSettings::new(start, given));
    let settings = BTreeMap::from([("retention.ms".to_string(), "5".to_string())]);
    catalog.apply(&MetadataRecord::TopicCreated { name: "topic".into(), topic_id: TOPIC, settings });
    for (node, value) in [(Some(NodeId(1)), "9"), (None, "7")] {
        let settings = [("log.retention.ms", value), ("log.roll.ms", "3600000")];
        let settings = settings.iter().filter(|(name, _)| node.is_none() || *name == "log.retention.ms");
        let settings = settings.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        catalog.apply(&MetadataRecord::BrokerSettingsChanged { node, settings });
    }
    const BUILT_IN: (&str, &str, i8) = ("log.retention.ms", "604800000", 5);
    let of_broker = [("log.retention.ms", "9", 2), ("log.retention.ms", "7", 3), BUILT_IN];
    let broker = described(&catalog, 4, "1");
    assert_eq!(broker["log.retention.ms"], described_as("9", 2, &of_broker));
    let (_, source, read_only, synonyms) = &broker["num.partitions"];
    assert_eq!((*source, *read_only, synonyms.len()), (5, true, 1));
    assert_eq!(broker["max.connections"], described_as("10000", 5, &[("max.connections", "10000", 5)]));
    let started = [("log.segment.bytes", "2000000", 4), ("log.segment.bytes", "1073741824", 5)];
    assert_eq!(broker["log.segment.bytes"], described_as("2000000", 4, &started));

    let topic = described(&catalog, 2, "topic");
    let own = [&[("retention.ms", "5", 1)], &of_broker[..]].concat();
    assert_eq!(topic["retention.ms"], described_as("5", 1, &own));
    let inherited = [("log.roll.ms", "3600000", 3), ("log.roll.ms", "604800000", 5)];
    assert_eq!(topic["segment.ms"], described_as("3600000", 3, &inherited));
    assert_eq!(topic["segment.bytes"], described_as("2000000", 4, &started));

    let cluster = described(&catalog, 4, "");
    assert_eq!(cluster.len(), 2);
    assert_eq!(cluster["log.retention.ms"], described_as("7", 3, &[("log.retention.ms", "7", 3)]));
}

#[test]
fn of_the_settings_of_brokers_those_that_change_are_asked_for() {
    use cold::alter_configs_request::{AlterConfigsRequestData, AlterConfigsResource, AlterableConfig};
    let catalog = catalog();
    let endpoint = endpoint();
    let context = context(&catalog, &endpoint);
    let resource = |resource_type: i8, resource: &str, name: &str| {
        let config = AlterableConfig { name: text(name), value: Some(text("5")), ..Default::default() };
        AlterConfigsResource {
            resource_type,
            resource_name: text(resource),
            configs: vec![config],
            ..Default::default()
        }
    };
    let request = AlterConfigsRequestData {
        resources: vec![
            resource(4, "1", "no.such.setting"),
            resource(4, "", "max.connections"),
            resource(4, "9", "max.connections"),
            resource(2, "topic", "retention.ms"),
            resource(77, "", "max.connections"),
        ],
        validate_only: true,
        ..Default::default()
    };
    let (asked, command) = config_changes::ask(alter_configs::resources(&request), true, FIXED, &context);
    let ControlCommand::AlterConfigs { resources, validate_only: true } = command else { panic!() };
    let targets: Vec<_> = resources.into_iter().map(|altered| altered.resource).collect();
    assert_eq!(targets, [ConfigResource::Broker(None), ConfigResource::Topic("topic".into())]);
    let outcome = ControlOutcome::Topics(vec![Ok(TopicOutcome::default()), Err(Refusal::UnknownTopic)]);
    let responses = alter_configs::respond(asked, outcome).responses;
    let codes: Vec<i16> = responses.iter().map(|response| response.error_code).collect();
    assert_eq!(codes, [40, 0, 42, 3, 42]);
}

#[test]
fn refusals_of_group_requests_fit_every_version() {
    let catalog = catalog();
    let endpoint = endpoint();
    let context = context(&catalog, &endpoint);
    let requests: [(ApiKey, GroupRequest); 9] = [
        (ApiKey::JoinGroup, GroupRequest::Join(Default::default())),
        (ApiKey::SyncGroup, GroupRequest::Sync(Default::default())),
        (ApiKey::Heartbeat, GroupRequest::Heartbeat(Default::default())),
        (ApiKey::LeaveGroup, GroupRequest::Leave(Default::default())),
        (ApiKey::OffsetCommit, GroupRequest::OffsetCommit(Default::default())),
        (ApiKey::OffsetFetch, GroupRequest::OffsetFetch(Default::default())),
        (ApiKey::ListGroups, GroupRequest::List(Default::default())),
        (ApiKey::DescribeGroups, GroupRequest::Describe(Default::default())),
        (ApiKey::DeleteGroups, GroupRequest::Delete(Default::default())),
    ];
    for (key, request) in requests {
        let served = table::TABLE.iter().find(|served| served.key == key).expect("a served key");
        for version in served.version_min..=served.version_max {
            let refused = request.clone().refuse(ErrorCode::NotCoordinator);
            let mut out = Vec::new();
            groups::respond(key, version, vec![refused], groups::Kept::Nothing, &context, &mut out)
                .unwrap_or_else(|error| panic!("{key:?} version {version}: {error}"));
        }
    }
}
