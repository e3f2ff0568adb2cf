//! Table: every API key served, with its versions. ApiVersions advertises it, the router obeys it,
//! the tidy test holds it against COVERAGE.md and the api files.

use crate::protocol::api_key::ApiKey;
use crate::protocol::api_versions::ApiRange;

#[derive(Clone, Copy, Debug)]
pub struct Served {
    pub key: ApiKey,
    /// Versions advertised.
    pub version_min: i16,
    pub version_max: i16,
    /// Versions below are advertised but refused: librdkafka takes a Produce range that starts
    /// above 0 for a broker without message formats (KAFKA-18659).
    pub refused_below: i16,
}

const fn served(key: ApiKey, version_min: i16, version_max: i16) -> Served {
    Served { key, version_min, version_max, refused_below: version_min }
}

pub const TABLE: &[Served] = &[
    Served { key: ApiKey::Produce, version_min: 0, version_max: 13, refused_below: 3 },
    served(ApiKey::Fetch, 4, 18),
    served(ApiKey::ListOffsets, 1, 11),
    served(ApiKey::Metadata, 0, 13),
    served(ApiKey::OffsetCommit, 2, 10),
    served(ApiKey::OffsetFetch, 1, 10),
    served(ApiKey::FindCoordinator, 0, 6),
    served(ApiKey::JoinGroup, 0, 9),
    served(ApiKey::Heartbeat, 0, 4),
    served(ApiKey::LeaveGroup, 0, 5),
    served(ApiKey::SyncGroup, 0, 5),
    served(ApiKey::DescribeGroups, 0, 6),
    served(ApiKey::ListGroups, 0, 5),
    served(ApiKey::ApiVersions, 0, 4),
    served(ApiKey::CreateTopics, 2, 7),
    served(ApiKey::DeleteTopics, 1, 6),
    served(ApiKey::DeleteRecords, 0, 2),
    served(ApiKey::InitProducerId, 0, 5),
    served(ApiKey::OffsetForLeaderEpoch, 2, 4),
    served(ApiKey::DescribeConfigs, 1, 4),
    served(ApiKey::AlterConfigs, 0, 2),
    served(ApiKey::DescribeLogDirs, 1, 5),
    served(ApiKey::CreatePartitions, 0, 3),
    served(ApiKey::DeleteGroups, 0, 2),
    served(ApiKey::IncrementalAlterConfigs, 0, 1),
    served(ApiKey::DescribeCluster, 0, 2),
    served(ApiKey::DescribeTopicPartitions, 0, 0),
];

/// How a request's key and version are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Served,
    /// ApiVersions in a version we don't know: answered in version 0 with code 35 (KIP-511).
    UnknownApiVersions,
    /// Anything else: the connection is closed.
    Unsupported,
}

pub fn service(key: ApiKey, version: i16) -> Service {
    let entry = TABLE.iter().find(|entry| entry.key == key);
    match entry {
        Some(entry) if (entry.refused_below..=entry.version_max).contains(&version) => Service::Served,
        Some(entry) if entry.key == ApiKey::ApiVersions => Service::UnknownApiVersions,
        _ => Service::Unsupported,
    }
}

pub fn ranges() -> Vec<ApiRange> {
    TABLE
        .iter()
        .map(|entry| ApiRange {
            key: entry.key.number(),
            version_min: entry.version_min,
            version_max: entry.version_max,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_versions_are_decided_as_kafka_decides() {
        assert!(TABLE.is_sorted_by_key(|entry| entry.key.number()));
        let cases = [
            (ApiKey::Produce, 2, Service::Unsupported),
            (ApiKey::Produce, 3, Service::Served),
            (ApiKey::Produce, 14, Service::Unsupported),
            (ApiKey::Fetch, -1, Service::Unsupported),
            (ApiKey::ApiVersions, 99, Service::UnknownApiVersions),
            (ApiKey::ApiVersions, -1, Service::UnknownApiVersions),
            (ApiKey::SaslHandshake, 0, Service::Unsupported),
        ];
        for (key, version, expected) in cases {
            assert_eq!(service(key, version), expected, "{key:?} {version}");
        }
    }
}
