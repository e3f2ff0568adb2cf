//! Record: what the metadata quorum commits. Closed, serialised as JSON in the control store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::ids::{LaneId, LeaderEpoch, NodeId, PartitionId, TopicId};

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
    /// two writer incarnations.
    NodeStarted {
        node: NodeId,
        incarnation: u64,
        lanes_count: u16,
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
    /// Producer ids below `next` have been given out to some node, in blocks.
    ProducerIdsReserved {
        next: i64,
    },
}
