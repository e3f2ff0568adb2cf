//! Api: one file per Kafka API key. A handler takes a request and returns commands; it takes
//! outcomes and returns a response.
//!
//! Owns:     the table of keys and versions, the only map from our errors to Kafka's codes.
//! Promises: pure functions of request, catalog and outcomes.
//! Never:    touches log, ring or net; decides by a name the client chooses.
//! Called by `shard`.

pub mod alter_configs;
pub mod api_versions;
pub mod config_changes;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_topic_partitions;
pub mod error_map;
pub mod fetch;
pub mod fetch_session;
pub mod find_coordinator;
pub mod groups;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;
pub mod table;

use crate::base::ids::{NodeId, PartitionId, TopicPartition};
use crate::catalog::{Catalog, Partition, Replica, Topic};
use crate::protocol::error_code::ErrorCode;

/// Where clients of one listener find a broker. The one place that turns node ids into addresses,
/// so that a listener may name its nodes differently.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

/// What every handler may look at.
pub struct Context<'a> {
    pub catalog: &'a Catalog,
    /// This node, as the listener of the request advertises it.
    pub endpoint: &'a Endpoint,
    pub auto_create_topics: bool,
    pub offsets_partitions_count: i32,
}

impl Context<'_> {
    pub fn node(&self) -> NodeId {
        self.catalog.node
    }

    /// The replicas of a partition whose log directories failed: only this node's are known here.
    pub fn offline_replicas(&self, partition: &Partition) -> Vec<i32> {
        let is_offline = |replica: &&Replica| {
            replica.node == self.node() && self.catalog.directories.is_failed(replica.lane)
        };
        partition.replicas.iter().filter(is_offline).map(|replica| replica.node.0).collect()
    }

    /// A partition as a request names it, with its topic.
    pub fn partition(&self, topic: &str, partition: i32) -> Result<(&Topic, TopicPartition), ErrorCode> {
        let topic = self.catalog.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let id = TopicPartition { topic_id: topic.id, partition: PartitionId(partition) };
        let known = self.catalog.partition(id.topic_id, id.partition);
        known.map(|_| (topic, id)).ok_or(ErrorCode::UnknownTopicOrPartition)
    }
}

/// The leader of a partition without one: its log directory failed.
pub const NO_LEADER: i32 = -1;

/// "Not asked for" in the fields of authorised operations.
pub const OPERATIONS_UNKNOWN: i32 = i32::MIN;
/// All operations on a topic, as a bit field by operation number (KIP-430): without an authoriser
/// everyone may do everything.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// All operations on the cluster.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

#[cfg(test)]
mod tests;
