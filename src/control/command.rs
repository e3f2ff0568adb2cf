//! Command: what shards ask of the control thread and what comes back.

use crate::base::ids::{NodeId, TopicId};
use crate::catalog::MetadataRecord;
use crate::catalog::decide::{NewTopic, Refusal, SettingsChange};

#[derive(Debug)]
pub enum ControlCommand {
    CreateTopics { topics: Vec<NewTopic>, validate_only: bool },
    DeleteTopics { topics: Vec<TopicRef> },
    CreatePartitions { topics: Vec<GrownTopic>, validate_only: bool },
    AlterConfigs { resources: Vec<AlteredResource>, validate_only: bool },
    ReserveProducerIds,
}

/// A topic by name, or by id when the name is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRef {
    pub name: String,
    pub topic_id: TopicId,
}

#[derive(Debug)]
pub struct GrownTopic {
    pub name: String,
    pub partitions_count: i32,
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// Whose settings are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    Topic(String),
    /// This node; without one, every broker of the cluster.
    Broker(Option<NodeId>),
}

#[derive(Debug)]
pub struct AlteredResource {
    pub resource: ConfigResource,
    pub change: SettingsChange,
}

#[derive(Debug, Default)]
pub struct TopicOutcome {
    pub topic: TopicRef,
    pub partitions_count: i32,
    pub replication_factor: i16,
}

#[derive(Debug)]
pub enum ControlOutcome {
    /// One per topic or other resource of the command, in its order.
    Topics(Vec<Result<TopicOutcome, Refusal>>),
    /// Ids `first..next` belong to the asker alone.
    ProducerIds { first: i64, next: i64 },
    /// The quorum didn't commit; nothing changed.
    NotCommitted,
}

impl ControlOutcome {
    /// The outcomes of topics; none where nothing was decided.
    pub fn into_topics(self) -> std::vec::IntoIter<Result<TopicOutcome, Refusal>> {
        match self {
            Self::Topics(outcomes) => outcomes.into_iter(),
            Self::ProducerIds { .. } | Self::NotCommitted => Vec::new().into_iter(),
        }
    }
}

#[derive(Debug)]
pub enum ControlEvent {
    /// Records were committed; `epoch` is the catalog's after them.
    Committed {
        records: Vec<MetadataRecord>,
        epoch: u64,
    },
    Reply {
        request: u64,
        outcome: ControlOutcome,
    },
}
