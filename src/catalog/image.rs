//! Image: what the committed records add up to.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::rc::Rc;

use super::broker_config::BrokerSettings;
use super::directories::Directories;
use super::record::{MetadataRecord, Replica};
use crate::base::ids::{LaneId, LeaderEpoch, NodeId, PartitionId, TopicId, TopicPartition};
use crate::partition::topic_config::TopicConfig;

#[derive(Clone, Debug)]
pub struct Partition {
    pub replicas: Vec<Replica>,
    /// The broker that leads; the only replica until replication exists.
    pub leader: NodeId,
    pub leader_epoch: LeaderEpoch,
}

#[derive(Clone, Debug)]
pub struct Topic {
    /// Shared by every request in flight on the same shard that names it.
    pub name: Rc<str>,
    pub id: TopicId,
    /// Indexed by partition id: ids are dense from 0.
    pub partitions: Vec<Partition>,
    /// The settings given for this topic, as given.
    pub settings: BTreeMap<String, String>,
    /// The settings in force: the topic's over the broker's defaults.
    pub config: TopicConfig,
}

/// FNV-1a: deterministic, so that no decision depends on a random hash state.
#[derive(Default)]
pub struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        let mut hash = if self.0 == 0 { 0xcbf2_9ce4_8422_2325 } else { self.0 };
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug)]
pub struct Catalog {
    /// Number of records applied: a request that carries it can wait for it.
    epoch: u64,
    pub cluster_id: String,
    pub node: NodeId,
    pub incarnation: u64,
    /// Lanes of each log directory that take new partitions: one per shard.
    pub lanes_count: u16,
    /// Of this node.
    pub directories: Directories,
    pub producer_ids_next: i64,
    /// Of this node.
    pub broker: BrokerSettings,
    topics: BTreeMap<Rc<str>, Topic>,
    names: HashMap<TopicId, Rc<str>, BuildHasherDefault<Fnv>>,
}

impl Catalog {
    pub fn new(node: NodeId, broker: BrokerSettings) -> Self {
        Self {
            epoch: 0,
            cluster_id: String::new(),
            node,
            incarnation: 0,
            lanes_count: 0,
            directories: Directories::default(),
            producer_ids_next: 0,
            broker,
            topics: BTreeMap::new(),
            names: HashMap::default(),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What a topic without its own setting gets.
    pub fn defaults(&self) -> &TopicConfig {
        &self.broker.config().topic_defaults
    }

    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(self.names.get(&id)?)
    }

    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    pub fn topics_count(&self) -> usize {
        self.topics.len()
    }

    pub fn partition(&self, id: TopicId, partition: PartitionId) -> Option<&Partition> {
        self.topic_by_id(id)?.partitions.get(usize::try_from(partition.0).ok()?)
    }

    /// The lane of this node that holds the partition; `None` when it isn't on this node.
    pub fn lane_of(&self, id: TopicPartition) -> Option<LaneId> {
        let partition = self.partition(id.topic_id, id.partition)?;
        partition.replicas.iter().find(|replica| replica.node == self.node).map(|replica| replica.lane)
    }

    /// The partition is on this node, in a log directory that failed.
    pub fn is_offline(&self, id: TopicPartition) -> bool {
        self.lane_of(id).is_some_and(|lane| self.directories.is_failed(lane))
    }

    /// Applies a committed record. Records come from the quorum in order, so a record that
    /// contradicts the image is our own mistake.
    pub fn apply(&mut self, record: &MetadataRecord) {
        self.epoch += 1;
        match record {
            MetadataRecord::ClusterCreated { cluster_id } => {
                assert!(self.cluster_id.is_empty(), "a cluster is created once");
                self.cluster_id.clone_from(cluster_id);
            }
            MetadataRecord::NodeStarted { node, incarnation, lanes_count } => {
                assert!(*incarnation > self.incarnation, "incarnations grow");
                self.incarnation = *incarnation;
                self.lanes_count = *lanes_count;
                self.bump_leader_epochs(*node);
            }
            MetadataRecord::DirectoryOpened { node, directory, path, lanes } => {
                if *node == self.node {
                    self.directories.opened(*directory, path, lanes);
                }
            }
            MetadataRecord::TopicCreated { name, topic_id, settings } => {
                let config = self.defaults().with(settings);
                let name: Rc<str> = name.as_str().into();
                let topic = Topic {
                    name: name.clone(),
                    id: *topic_id,
                    partitions: Vec::new(),
                    settings: settings.clone(),
                    config,
                };
                assert!(self.topics.insert(name.clone(), topic).is_none(), "a name is created once");
                self.names.insert(*topic_id, name.clone());
            }
            MetadataRecord::PartitionCreated { topic_id, partition, replicas, leader_epoch } => {
                let name = self.names.get(topic_id).expect("a partition follows its topic");
                let topic = self.topics.get_mut(name).expect("names and topics agree");
                assert_eq!(topic.partitions.len(), partition.0 as usize, "partition ids are dense");
                let leader = replicas.first().expect("a partition has a replica").node;
                let partition = Partition { replicas: replicas.clone(), leader, leader_epoch: *leader_epoch };
                topic.partitions.push(partition);
                for replica in replicas.iter().filter(|replica| replica.node == self.node) {
                    self.directories.partition_came(replica.lane);
                }
            }
            MetadataRecord::TopicSettingsChanged { topic_id, settings } => {
                let config = self.defaults().with(settings);
                let name = self.names.get(topic_id).expect("a changed topic exists");
                let topic = self.topics.get_mut(name).expect("names and topics agree");
                topic.settings.clone_from(settings);
                topic.config = config;
            }
            MetadataRecord::BrokerSettingsChanged { node, settings } => {
                if node.is_none_or(|node| node == self.node) {
                    self.broker.replace(node.is_some(), settings);
                    let defaults = &self.broker.config().topic_defaults;
                    for topic in self.topics.values_mut() {
                        topic.config = defaults.with(&topic.settings);
                    }
                }
            }
            MetadataRecord::TopicDeleted { topic_id } => {
                let name = self.names.remove(topic_id).expect("a deleted topic existed");
                let topic = self.topics.remove(&name).expect("names and topics agree");
                let replicas = topic.partitions.iter().flat_map(|partition| &partition.replicas);
                for replica in replicas.filter(|replica| replica.node == self.node) {
                    self.directories.partition_went(replica.lane);
                }
            }
            MetadataRecord::ProducerIdsReserved { next } => {
                assert!(*next > self.producer_ids_next, "producer ids are never given out twice");
                self.producer_ids_next = *next;
            }
        }
    }

    fn bump_leader_epochs(&mut self, node: NodeId) {
        for topic in self.topics.values_mut() {
            for partition in topic.partitions.iter_mut().filter(|partition| partition.leader == node) {
                partition.leader_epoch.0 += 1;
            }
        }
    }
}
