//! DescribeLogDirs. Key 35, versions 1 to 5.
//!
//! Behaviour: every log directory with its space and the sizes of its partitions: of all, or of those
//!            asked for. A failed directory has code 56 and says nothing else, as in Kafka.
//! Versions:  v3 top-level error; v4 total and usable bytes (KIP-827); v5 cordoned directories (KIP-1066).
//! Deviations: offset lag is 0 and no replica is a future one: nothing moves between directories.
//! Sources:   message schemas DescribeLogDirsRequest, DescribeLogDirsResponse; KIP-113.

use std::collections::BTreeMap;

use super::Context;
use crate::base::ids::{DirectoryId, PartitionId, TopicPartition};
use crate::catalog::Topic;
use crate::catalog::directories::Directory;
use crate::protocol::cold::describe_log_dirs_request::DescribeLogDirsRequestData;
use crate::protocol::cold::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponseData, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::protocol::cold::text;
use crate::protocol::error_code::ErrorCode;

/// Bytes of a file system. Both are -1 while they aren't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: i64,
    pub usable_bytes: i64,
}

impl Space {
    pub const UNKNOWN: Self = Self { total_bytes: -1, usable_bytes: -1 };
}

/// Partitions whose sizes are asked for. Those that nobody knows are left out, as in Kafka.
pub fn targets(request: &DescribeLogDirsRequestData, context: &Context<'_>) -> Vec<TopicPartition> {
    let of = |topic: &Topic, partition: i32| TopicPartition {
        topic_id: topic.id,
        partition: PartitionId(partition),
    };
    match &request.topics {
        None => {
            let all = context.catalog.topics();
            all.flat_map(|topic| (0..topic.partitions.len()).map(move |index| of(topic, index as i32)))
                .collect()
        }
        Some(topics) => {
            let asked = topics.iter().flat_map(|asked| {
                let partitions = asked.partitions.iter();
                partitions.map(move |partition| context.partition(asked.topic.as_str(), *partition))
            });
            asked.filter_map(|found| Some(found.ok()?.1)).collect()
        }
    }
}

/// `sizes`: of each target, where its shard could tell.
pub fn respond(
    sizes: &[(TopicPartition, Option<u64>)],
    space: impl Fn(DirectoryId) -> Space,
    context: &Context<'_>,
) -> DescribeLogDirsResponseData {
    let results = context.catalog.directories.iter().map(|directory| {
        if directory.failed {
            return DescribeLogDirsResult {
                error_code: ErrorCode::KafkaStorageError.number(),
                log_dir: text(&directory.path),
                ..Default::default()
            };
        }
        let space = space(directory.id);
        DescribeLogDirsResult {
            log_dir: text(&directory.path),
            topics: topics_in(directory, sizes, context),
            total_bytes: space.total_bytes,
            usable_bytes: space.usable_bytes,
            ..Default::default()
        }
    });
    DescribeLogDirsResponseData { results: results.collect(), ..Default::default() }
}

fn topics_in(
    directory: &Directory,
    sizes: &[(TopicPartition, Option<u64>)],
    context: &Context<'_>,
) -> Vec<DescribeLogDirsTopic> {
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (target, size) in sizes {
        let is_here = context.catalog.lane_of(*target).is_some_and(|lane| directory.lanes.contains(&lane));
        let topic = context.catalog.topic_by_id(target.topic_id).filter(|_| is_here);
        let (Some(topic), Some(size)) = (topic, size) else { continue };
        topics.entry(&topic.name).or_default().push(DescribeLogDirsPartition {
            partition_index: target.partition.0,
            partition_size: i64::try_from(*size).unwrap_or(i64::MAX),
            ..Default::default()
        });
    }
    let topics = topics.into_iter();
    topics
        .map(|(name, partitions)| DescribeLogDirsTopic { name: text(name), partitions, ..Default::default() })
        .collect()
}
