//! Cold: the requests that another crate's codec reads, behind our door.

use corelane::api::table::TABLE;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::*;

macro_rules! keys {
    ($($key:ident => $module:ident::$Request:ident,)*) => {
        fn read(key: ApiKey, version: i16, body: &[u8]) {
            match key {
                $(ApiKey::$key => round_trip::<$module::$Request>(version, body),)*
                _ => {}
            }
        }

        fn default_body(key: ApiKey, version: i16) -> Option<Vec<u8>> {
            let mut body = Vec::new();
            match key {
                $(ApiKey::$key => encode(version, &$module::$Request::default(), &mut body).ok()?,)*
                _ => return None,
            }
            Some(body)
        }
    };
}

keys! {
    ListOffsets => list_offsets_request::ListOffsetsRequestData,
    Metadata => metadata_request::MetadataRequestData,
    OffsetCommit => offset_commit_request::OffsetCommitRequestData,
    OffsetFetch => offset_fetch_request::OffsetFetchRequestData,
    FindCoordinator => find_coordinator_request::FindCoordinatorRequestData,
    JoinGroup => join_group_request::JoinGroupRequestData,
    Heartbeat => heartbeat_request::HeartbeatRequestData,
    LeaveGroup => leave_group_request::LeaveGroupRequestData,
    SyncGroup => sync_group_request::SyncGroupRequestData,
    DescribeGroups => describe_groups_request::DescribeGroupsRequestData,
    ListGroups => list_groups_request::ListGroupsRequestData,
    CreateTopics => create_topics_request::CreateTopicsRequestData,
    DeleteTopics => delete_topics_request::DeleteTopicsRequestData,
    InitProducerId => init_producer_id_request::InitProducerIdRequestData,
    DescribeConfigs => describe_configs_request::DescribeConfigsRequestData,
    CreatePartitions => create_partitions_request::CreatePartitionsRequestData,
    DeleteGroups => delete_groups_request::DeleteGroupsRequestData,
    DescribeCluster => describe_cluster_request::DescribeClusterRequestData,
    DescribeLogDirs => describe_log_dirs_request::DescribeLogDirsRequestData,
    DescribeTopicPartitions => describe_topic_partitions_request::DescribeTopicPartitionsRequestData,
}

/// What is read can be written; a value its version can't carry is an error, never a panic.
fn round_trip<T: Message>(version: i16, body: &[u8]) {
    if let Ok(request) = decode::<T>(version, body) {
        let mut out = Vec::new();
        encode(version, &request, &mut out).ok();
    }
}

/// The first byte is the key's number, the second the version.
pub fn request(input: &[u8]) {
    let [key, version, body @ ..] = input else { return };
    let (key, version) = (i16::from(*key), i16::from(*version));
    let served = TABLE.iter().find(|served| served.key.number() == key);
    if let Some(served) = served.filter(|served| (served.version_min..=served.version_max).contains(&version))
    {
        read(served.key, version, body);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for served in TABLE {
        for version in served.version_min..=served.version_max {
            if let Some(body) = default_body(served.key, version) {
                let front = [served.key.number() as u8, version as u8];
                seeds.push([&front[..], &body].concat());
            }
        }
    }
    let metadata = ApiKey::Metadata.number() as u8;
    // Metadata 9 for topic "t"; Metadata 1 for topics "t" and "u".
    seeds.push([&[metadata, 9][..], &[2, 2, b't', 0, 1, 0, 0, 0]].concat());
    seeds.push([&[metadata, 1][..], &[0, 0, 0, 2, 0, 1, b't', 0, 1, b'u']].concat());
    seeds
}
