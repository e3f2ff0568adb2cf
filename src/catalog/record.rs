//! Record: what the metadata quorum commits. Closed, serialised as JSON in the control store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::ids::{DirectoryId, LaneId, LeaderEpoch, NodeId, PartitionId, TopicId};

/// One replica of a partition: the broker that holds it and the lane it lives in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    pub node: NodeId,
    pub lane: LaneId,
}

/// Adding a field needs `#[serde(default)]`; a variant is never removed or renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataRecord {
    /// First record of a cluster.
    ClusterCreated {
        cluster_id: String,
    },
    /// A broker started: every partition it leads gets a new leader epoch, so that no epoch has
    /// two writer incarnations. `lanes_count`: lanes of each log directory that take new partitions,
    /// which is one for each of its shards.
    NodeStarted {
        node: NodeId,
        incarnation: u64,
        lanes_count: u16,
    },
    /// A log directory of a broker is found at `path` from here on and has these lanes besides those it
    /// had. Durable before such a lane is made: no number is given out twice, whatever is missing.
    DirectoryOpened {
        node: NodeId,
        directory: DirectoryId,
        path: String,
        lanes: Vec<LaneId>,
    },
    TopicCreated {
        name: String,
        topic_id: TopicId,
        settings: BTreeMap<String, String>,
    },
    PartitionCreated {
        topic_id: TopicId,
        partition: PartitionId,
        replicas: Vec<Replica>,
        leader_epoch: LeaderEpoch,
    },
    TopicDeleted {
        topic_id: TopicId,
    },
    /// All settings that a topic has of its own from here on.
    TopicSettingsChanged {
        topic_id: TopicId,
        settings: BTreeMap<String, String>,
    },
    /// All settings that a broker has from here on besides those it was started with; without a node
    /// every broker of the cluster has them, under its own.
    BrokerSettingsChanged {
        node: Option<NodeId>,
        settings: BTreeMap<String, String>,
    },
    /// Producer ids below `next` have been given out to some node, in blocks.
    ProducerIdsReserved {
        next: i64,
    },
}
