//! Decide: what a request for change becomes: records to commit, or a refusal.

use std::collections::BTreeMap;

use super::broker_config::{self, Layer};
use super::image::Catalog;
use super::record::{MetadataRecord, Replica};
use super::topic_name::{self, NameError};
use crate::base::ids::{LeaderEpoch, NodeId, PartitionId, TopicId};
use crate::partition::topic_config::{self, SettingError, SettingType, TopicConfig};

/// Partitions of one topic: a bound on what one request can make the broker hold.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 100_000;

/// A topic as a client asks for it.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    pub name: String,
    /// -1: the broker's default (KIP-464).
    pub partitions_count: i32,
    /// -1: the broker's default.
    pub replication_factor: i16,
    /// Replicas by partition; given instead of the two counts.
    pub assignments: Vec<(PartitionId, Vec<NodeId>)>,
    pub settings: BTreeMap<String, String>,
    /// Internal topics are made by the broker only.
    pub internal: bool,
}

/// Why a change is refused. The client's mistakes, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Name(NameError),
    /// Kafka refuses `a.b` when `a_b` exists.
    NameCollides {
        existing: String,
    },
    TopicExists,
    UnknownTopic,
    PartitionsCount(String),
    ReplicationFactor(String),
    Assignment(String),
    Request(String),
    Setting(SettingError),
    TooManyPartitions,
    InternalTopic,
    /// The control thread or its store is going down.
    NotAvailable,
}

/// What becomes of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOp {
    Set(String),
    /// Back to the default.
    Delete,
    /// To or from a list.
    Append(String),
    Subtract(String),
    /// Not an operation, and why.
    Invalid(String),
}

/// What becomes of the settings that a topic, a broker or the cluster has of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsChange {
    /// Exactly these are left.
    All(BTreeMap<String, String>),
    Each(Vec<(String, SettingOp)>),
}

impl SettingsChange {
    /// Names that are given a value, or added to or taken from a list.
    pub fn names_given(&self) -> Vec<&str> {
        match self {
            Self::All(settings) => settings.keys().map(String::as_str).collect(),
            Self::Each(ops) => {
                let given = ops.iter().filter(|(_, op)| *op != SettingOp::Delete);
                given.map(|(name, _)| name.as_str()).collect()
            }
        }
    }

    /// What `current` becomes. `lists` has the settings that are lists with the values in force, which
    /// those begin with that aren't in `current`; `no_list` words what is wrong with any other.
    fn applied(
        &self,
        current: &BTreeMap<String, String>,
        lists: &BTreeMap<&str, String>,
        no_list: impl Fn(&str, &str) -> String,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let ops = match self {
            Self::All(settings) => return Ok(settings.clone()),
            Self::Each(ops) => ops,
        };
        let mut settings = current.clone();
        for (name, op) in ops {
            let list = |what: &str| {
                let in_force = lists
                    .get(name.as_str())
                    .ok_or_else(|| Refusal::Setting(SettingError(no_list(what, name))))?;
                let items = current.get(name).unwrap_or(in_force).split(',').map(str::trim);
                Ok::<_, Refusal>(items.filter(|item| !item.is_empty()).collect::<Vec<_>>())
            };
            match op {
                SettingOp::Invalid(why) => return Err(Refusal::Request(why.clone())),
                SettingOp::Set(value) => {
                    settings.insert(name.clone(), value.clone());
                }
                SettingOp::Delete => {
                    settings.remove(name);
                }
                SettingOp::Append(value) => {
                    let mut items = list("append")?;
                    for added in value.split(',').map(str::trim) {
                        if !items.contains(&added) {
                            items.push(added);
                        }
                    }
                    settings.insert(name.clone(), items.join(","));
                }
                SettingOp::Subtract(value) => {
                    let mut items = list("subtract")?;
                    items.retain(|item| value.split(',').all(|gone| gone.trim() != *item));
                    settings.insert(name.clone(), items.join(","));
                }
            }
        }
        Ok(settings)
    }
}

/// What a topic turned out to be when it was created.
#[derive(Clone, Debug)]
pub struct CreatedTopic {
    pub topic_id: TopicId,
    pub partitions_count: i32,
    pub replication_factor: i16,
    pub records: Vec<MetadataRecord>,
}

/// Defaults for counts given as -1.
#[derive(Clone, Copy, Debug)]
pub struct CreationDefaults {
    pub partitions_count: i32,
    pub replication_factor: i16,
}

impl Catalog {
    /// Records that create `topic` under `topic_id`, in the lanes with the fewest partitions.
    pub fn create_topic(
        &self,
        topic: &NewTopic,
        topic_id: TopicId,
        defaults: CreationDefaults,
    ) -> Result<CreatedTopic, Refusal> {
        topic_name::validate(&topic.name).map_err(Refusal::Name)?;
        if topic_name::is_internal(&topic.name) && !topic.internal {
            return Err(Refusal::InternalTopic);
        }
        if self.topic(&topic.name).is_some() {
            return Err(Refusal::TopicExists);
        }
        let key = topic_name::collision_key(&topic.name);
        if let Some(existing) = self.topics().find(|other| topic_name::collision_key(&other.name) == key) {
            return Err(Refusal::NameCollides { existing: existing.name.to_string() });
        }
        let (partitions_count, replication_factor) = self.shape(topic, defaults)?;
        TopicConfig::check(&topic.settings).map_err(Refusal::Setting)?;
        let mut records = vec![MetadataRecord::TopicCreated {
            name: topic.name.clone(),
            topic_id,
            settings: topic.settings.clone(),
        }];
        records.extend(self.partition_records(topic_id, 0, partitions_count)?);
        Ok(CreatedTopic { topic_id, partitions_count, replication_factor, records })
    }

    /// Records that grow a topic to `partitions_count` partitions.
    pub fn create_partitions(
        &self,
        name: &str,
        partitions_count: i32,
        assignments: Option<&[Vec<NodeId>]>,
    ) -> Result<Vec<MetadataRecord>, Refusal> {
        let topic = self.topic(name).ok_or(Refusal::UnknownTopic)?;
        if topic_name::is_internal(name) {
            return Err(Refusal::InternalTopic);
        }
        let current = topic.partitions.len() as i32;
        if partitions_count <= current {
            return Err(Refusal::PartitionsCount(if partitions_count == current {
                format!("Topic already has {current} partition(s).")
            } else {
                format!(
                    "The topic {name} currently has {current} partition(s); {partitions_count} would not be an increase."
                )
            }));
        }
        if partitions_count > PARTITIONS_PER_TOPIC_MAX {
            return Err(Refusal::TooManyPartitions);
        }
        if let Some(assignments) = assignments {
            let added = (partitions_count - current) as usize;
            if assignments.len() != added {
                return Err(Refusal::Assignment(format!(
                    "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                    assignments.len()
                )));
            }
            for replicas in assignments {
                self.check_replicas(replicas)?;
            }
        }
        Ok(self.partition_records(topic.id, current, partitions_count)?.collect())
    }

    /// The record that changes a topic's own settings; none where they stay as they are.
    pub fn alter_topic(
        &self,
        name: &str,
        change: &SettingsChange,
    ) -> Result<Option<MetadataRecord>, Refusal> {
        topic_name::validate(name).map_err(Refusal::Name)?;
        let topic = self.topic(name).ok_or(Refusal::UnknownTopic)?;
        let lists = topic_config::SETTINGS.iter().filter(|setting| setting.kind == SettingType::List);
        let lists = lists.map(|setting| (setting.name, self.defaults().value_of(setting.name))).collect();
        let settings = change.applied(&topic.settings, &lists, |what, name| {
            format!("Can't {} to key {name} because its type is not LIST.", what.to_ascii_uppercase())
        })?;
        TopicConfig::check(&settings).map_err(Refusal::Setting)?;
        let changed = settings != topic.settings;
        Ok(changed.then_some(MetadataRecord::TopicSettingsChanged { topic_id: topic.id, settings }))
    }

    /// The record that changes the settings of this node, or of the whole cluster where there is none; no
    /// record where they stay as they are.
    pub fn alter_broker(
        &self,
        node: Option<NodeId>,
        change: &SettingsChange,
    ) -> Result<Option<MetadataRecord>, Refusal> {
        assert!(node.is_none_or(|node| node == self.node), "other nodes' settings aren't known here");
        let layer = if node.is_some() { Layer::Node } else { Layer::Cluster };
        let (current, in_force) = (self.broker.given(layer), self.broker.config_of(layer));
        let lists = broker_config::settings().filter(|setting| setting.kind == SettingType::List);
        let lists = lists.map(|setting| (setting.broker_name, in_force.value_of(setting))).collect();
        let settings = change.applied(current, &lists, |what, name| {
            format!("Config value {what} is not allowed for config key: {name}")
        })?;
        // What a newer version left here can be taken away, and is in nobody's way.
        let changed = settings.iter().filter(|(name, value)| current.get(*name) != Some(value));
        let (known, fixed): (Vec<_>, Vec<_>) =
            changed.partition(|(name, _)| broker_config::find(name).is_some());
        if !fixed.is_empty() {
            let names: Vec<&str> = fixed.iter().map(|(name, _)| name.as_str()).collect();
            let why = format!("Cannot update these configs dynamically: [{}]", names.join(", "));
            return Err(Refusal::Request(why));
        }
        let mut config = in_force;
        for (name, value) in known {
            let setting = broker_config::find(name).expect("partitioned by it");
            // Kafka calls this an invalid request, and only with topics an invalid config.
            config.set(setting, value).map_err(|error| Refusal::Request(error.0))?;
        }
        let is_change = settings != *current;
        Ok(is_change.then_some(MetadataRecord::BrokerSettingsChanged { node, settings }))
    }

    pub fn delete_topic(&self, topic_id: TopicId) -> Result<MetadataRecord, Refusal> {
        let topic = self.topic_by_id(topic_id).ok_or(Refusal::UnknownTopic)?;
        if topic_name::is_internal(&topic.name) {
            return Err(Refusal::InternalTopic);
        }
        Ok(MetadataRecord::TopicDeleted { topic_id })
    }

    fn partition_records(
        &self,
        topic_id: TopicId,
        from: i32,
        to: i32,
    ) -> Result<impl Iterator<Item = MetadataRecord>, Refusal> {
        let node = self.node;
        let lanes = self.directories.place((to - from) as usize, self.lanes_count.max(1))?;
        let records = (from..to).zip(lanes).map(move |(partition, lane)| MetadataRecord::PartitionCreated {
            topic_id,
            partition: PartitionId(partition),
            replicas: vec![Replica { node, lane }],
            leader_epoch: LeaderEpoch(0),
        });
        Ok(records)
    }

    fn shape(&self, topic: &NewTopic, defaults: CreationDefaults) -> Result<(i32, i16), Refusal> {
        if !topic.assignments.is_empty() {
            return self.shape_of_assignments(topic);
        }
        let partitions_count = match topic.partitions_count {
            -1 => defaults.partitions_count,
            count if count <= 0 => {
                return Err(Refusal::PartitionsCount(
                    "Number of partitions was set to an invalid non-positive value.".into(),
                ));
            }
            count => count,
        };
        if partitions_count > PARTITIONS_PER_TOPIC_MAX {
            return Err(Refusal::PartitionsCount(format!(
                "Number of partitions is over the limit of {PARTITIONS_PER_TOPIC_MAX}."
            )));
        }
        let replication_factor = match topic.replication_factor {
            -1 => defaults.replication_factor,
            factor if factor <= 0 => {
                return Err(Refusal::ReplicationFactor(
                    "Replication factor must be larger than 0, or -1 to use the default value.".into(),
                ));
            }
            factor => factor,
        };
        if replication_factor > 1 {
            return Err(Refusal::ReplicationFactor(format!(
                "Unable to replicate the partition {replication_factor} time(s): The target replication factor of {replication_factor} cannot be reached because only 1 broker(s) are registered."
            )));
        }
        Ok((partitions_count, replication_factor))
    }

    fn shape_of_assignments(&self, topic: &NewTopic) -> Result<(i32, i16), Refusal> {
        if topic.partitions_count != -1 || topic.replication_factor != -1 {
            return Err(Refusal::Request(
                "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.".into(),
            ));
        }
        let mut partitions: Vec<i32> = topic.assignments.iter().map(|(partition, _)| partition.0).collect();
        partitions.sort_unstable();
        if partitions.iter().enumerate().any(|(index, partition)| index as i32 != *partition) {
            return Err(Refusal::Assignment(
                "partitions should be a consecutive 0-based integer sequence".into(),
            ));
        }
        if partitions.len() > PARTITIONS_PER_TOPIC_MAX as usize {
            return Err(Refusal::TooManyPartitions);
        }
        for (_, replicas) in &topic.assignments {
            self.check_replicas(replicas)?;
        }
        Ok((partitions.len() as i32, 1))
    }

    fn check_replicas(&self, replicas: &[NodeId]) -> Result<(), Refusal> {
        match replicas {
            [] => Err(Refusal::Assignment("The manual partition assignment includes an empty replica list.".into())),
            [node] if *node == self.node => Ok(()),
            [node] => Err(Refusal::Assignment(format!(
                "The manual partition assignment includes broker {}, but no such broker is registered.",
                node.0
            ))),
            _ => Err(Refusal::Assignment(
                "The manual partition assignment includes more replicas than there are registered brokers, or one of them twice.".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{DirectoryId, LaneId};
    use crate::catalog::broker_config::BrokerSettings;

    fn catalog(lanes_count: u16) -> Catalog {
        let mut catalog = Catalog::new(NodeId(1), BrokerSettings::default());
        catalog.apply(&MetadataRecord::ClusterCreated { cluster_id: "c".into() });
        catalog.apply(&MetadataRecord::NodeStarted { node: NodeId(1), incarnation: 1, lanes_count });
        catalog.apply(&MetadataRecord::DirectoryOpened {
            node: NodeId(1),
            directory: DirectoryId([1; 16]),
            path: "/data".into(),
            lanes: (0..lanes_count).map(LaneId).collect(),
        });
        catalog
    }

    const DEFAULTS: CreationDefaults = CreationDefaults { partitions_count: 1, replication_factor: 1 };

    fn topic(name: &str, partitions_count: i32, replication_factor: i16) -> NewTopic {
        NewTopic { name: name.into(), partitions_count, replication_factor, ..NewTopic::default() }
    }

    fn create(catalog: &mut Catalog, topic: &NewTopic, id: u8) -> Result<CreatedTopic, Refusal> {
        let created = catalog.create_topic(topic, TopicId([id; 16]), DEFAULTS)?;
        created.records.iter().for_each(|record| catalog.apply(record));
        Ok(created)
    }

    #[test]
    fn partitions_spread_over_all_lanes() {
        let mut catalog = catalog(3);
        create(&mut catalog, &topic("t", 6, 1), 1).expect("created");
        let mut counts = [0; 3];
        for partition in &catalog.topic("t").expect("there").partitions {
            counts[usize::from(partition.replicas[0].lane.0)] += 1;
        }
        assert_eq!(counts, [2, 2, 2]);
    }

    #[test]
    fn wrong_requests_are_refused_by_kind() {
        let mut catalog = catalog(1);
        create(&mut catalog, &topic("a_b", -1, -1), 1).expect("defaults");
        let refused =
            |catalog: &Catalog, new: &NewTopic| catalog.create_topic(new, TopicId([9; 16]), DEFAULTS).err();
        assert_eq!(refused(&catalog, &topic("a_b", 1, 1)), Some(Refusal::TopicExists));
        assert!(matches!(refused(&catalog, &topic("a.b", 1, 1)), Some(Refusal::NameCollides { .. })));
        assert!(matches!(refused(&catalog, &topic("t", 0, 1)), Some(Refusal::PartitionsCount(_))));
        assert!(matches!(
            refused(&catalog, &topic("t", 1_000_000_000, 1)),
            Some(Refusal::PartitionsCount(_))
        ));
        assert!(matches!(refused(&catalog, &topic("t", 1, 0)), Some(Refusal::ReplicationFactor(_))));
        assert!(matches!(refused(&catalog, &topic("t", 1, 3)), Some(Refusal::ReplicationFactor(_))));
        assert!(matches!(refused(&catalog, &topic("..", 1, 1)), Some(Refusal::Name(_))));
        assert_eq!(refused(&catalog, &topic("__consumer_offsets", 1, 1)), Some(Refusal::InternalTopic));
        let both = NewTopic { assignments: vec![(PartitionId(0), vec![NodeId(1)])], ..topic("t", 1, 1) };
        assert!(matches!(refused(&catalog, &both), Some(Refusal::Request(_))));
        let gap = NewTopic { assignments: vec![(PartitionId(1), vec![NodeId(1)])], ..topic("t", -1, -1) };
        assert!(matches!(refused(&catalog, &gap), Some(Refusal::Assignment(_))));
        let other = NewTopic { assignments: vec![(PartitionId(0), vec![NodeId(7)])], ..topic("t", -1, -1) };
        assert!(matches!(refused(&catalog, &other), Some(Refusal::Assignment(_))));
        let bad =
            NewTopic { settings: BTreeMap::from([("segment.bytes".into(), "1".into())]), ..topic("t", 1, 1) };
        assert!(matches!(refused(&catalog, &bad), Some(Refusal::Setting(_))));
    }

    #[test]
    fn a_topic_grows_and_never_shrinks() {
        let mut catalog = catalog(2);
        create(&mut catalog, &topic("t", 2, 1), 1).expect("created");
        assert!(matches!(catalog.create_partitions("t", 2, None), Err(Refusal::PartitionsCount(_))));
        assert_eq!(catalog.create_partitions("u", 2, None), Err(Refusal::UnknownTopic));
        for record in catalog.create_partitions("t", 5, None).expect("grows") {
            catalog.apply(&record);
        }
        assert_eq!(catalog.topic("t").expect("there").partitions.len(), 5);
    }

    #[test]
    fn a_restart_gives_every_led_partition_a_new_leader_epoch() {
        let mut catalog = catalog(1);
        create(&mut catalog, &topic("t", 1, 1), 1).expect("created");
        catalog.apply(&MetadataRecord::NodeStarted { node: NodeId(1), incarnation: 2, lanes_count: 1 });
        assert_eq!(catalog.topic("t").expect("there").partitions[0].leader_epoch, LeaderEpoch(1));
    }

    #[test]
    fn settings_change_one_by_one_or_all_at_once() {
        let mut catalog = catalog(1);
        create(&mut catalog, &topic("t", 1, 1), 1).expect("created");
        let alter = |catalog: &mut Catalog, change: SettingsChange| {
            let record = catalog.alter_topic("t", &change)?;
            record.iter().for_each(|record| catalog.apply(record));
            Ok(record.is_some())
        };
        let each = |name: &str, op: SettingOp| SettingsChange::Each(vec![(name.to_owned(), op)]);
        let set = |name: &str, value: &str| each(name, SettingOp::Set(value.to_owned()));
        assert_eq!(alter(&mut catalog, set("retention.ms", "5")), Ok(true));
        assert_eq!(alter(&mut catalog, set("retention.ms", "5")), Ok(false), "nothing changes");
        assert_eq!(catalog.topic("t").map(|topic| topic.config.retention_ms), Some(5));
        let compact = SettingOp::Append("compact".to_owned());
        assert_eq!(alter(&mut catalog, each("cleanup.policy", compact)), Ok(true));
        let config = catalog.topic("t").map(|topic| topic.config.clone()).expect("exists");
        assert!(config.cleanup_compact && config.cleanup_delete);
        let delete = SettingOp::Subtract("delete".to_owned());
        assert_eq!(alter(&mut catalog, each("cleanup.policy", delete)), Ok(true));
        assert!(catalog.topic("t").is_some_and(|topic| !topic.config.cleanup_delete));
        assert_eq!(alter(&mut catalog, each("retention.ms", SettingOp::Delete)), Ok(true));
        assert!(catalog.topic("t").is_some_and(|topic| topic.config.retention_ms > 5));
        let all = BTreeMap::from([("segment.ms".to_owned(), "7".to_owned())]);
        assert_eq!(alter(&mut catalog, SettingsChange::All(all.clone())), Ok(true));
        assert_eq!(catalog.topic("t").map(|topic| topic.settings.clone()), Some(all));

        let refused = |result: Result<bool, Refusal>| result.expect_err("refused");
        assert!(matches!(refused(alter(&mut catalog, set("retention.ms", "no"))), Refusal::Setting(_)));
        assert!(matches!(refused(alter(&mut catalog, set("retention.mss", "1"))), Refusal::Setting(_)));
        let append = SettingOp::Append("1".to_owned());
        assert!(matches!(refused(alter(&mut catalog, each("retention.ms", append))), Refusal::Setting(_)));
        let invalid = each("retention.ms", SettingOp::Invalid("why".to_owned()));
        assert!(matches!(refused(alter(&mut catalog, invalid)), Refusal::Request(_)));
        let unknown = catalog.alter_topic("nowhere", &set("retention.ms", "1"));
        assert_eq!(unknown, Err(Refusal::UnknownTopic));
    }

    #[test]
    fn a_brokers_settings_are_inherited_by_topics_without_their_own() {
        let mut catalog = catalog(1);
        create(&mut catalog, &topic("inherits", 1, 1), 1).expect("created");
        let own = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
        create(&mut catalog, &NewTopic { settings: own, ..topic("own", 1, 1) }, 2).expect("created");
        let alter = |catalog: &mut Catalog, node: Option<NodeId>, name: &str, op: SettingOp| {
            let record = catalog.alter_broker(node, &SettingsChange::Each(vec![(name.to_owned(), op)]))?;
            record.iter().for_each(|record| catalog.apply(record));
            Ok::<_, Refusal>(record.is_some())
        };
        let set = |value: &str| SettingOp::Set(value.to_owned());
        let retention =
            |catalog: &Catalog, name: &str| catalog.topic(name).map(|topic| topic.config.retention_ms);
        let node = Some(NodeId(1));
        assert_eq!(alter(&mut catalog, None, "log.retention.ms", set("7")), Ok(true));
        assert_eq!(alter(&mut catalog, None, "log.retention.ms", set("7")), Ok(false), "nothing changes");
        assert_eq!((retention(&catalog, "inherits"), retention(&catalog, "own")), (Some(7), Some(5)));
        assert_eq!(alter(&mut catalog, node, "log.retention.ms", set("9")), Ok(true));
        assert_eq!((retention(&catalog, "inherits"), retention(&catalog, "own")), (Some(9), Some(5)));
        create(&mut catalog, &topic("later", 1, 1), 3).expect("created");
        assert_eq!(retention(&catalog, "later"), Some(9));
        // A topic that loses its own gets the broker's, not what was built in.
        let delete = SettingsChange::Each(vec![("retention.ms".to_owned(), SettingOp::Delete)]);
        let record = catalog.alter_topic("own", &delete).expect("legal").expect("a change");
        catalog.apply(&record);
        assert_eq!(retention(&catalog, "own"), Some(9));
        assert_eq!(alter(&mut catalog, node, "log.retention.ms", SettingOp::Delete), Ok(true));
        assert_eq!(retention(&catalog, "inherits"), Some(7));
        // Another node's are its own business.
        let settings = BTreeMap::from([("log.retention.ms".to_owned(), "1".to_owned())]);
        catalog.apply(&MetadataRecord::BrokerSettingsChanged { node: Some(NodeId(2)), settings });
        assert_eq!(retention(&catalog, "inherits"), Some(7));

        // A list begins with what is in force.
        let compact = SettingOp::Append("compact".to_owned());
        assert_eq!(alter(&mut catalog, None, "log.cleanup.policy", compact), Ok(true));
        assert_eq!(
            alter(&mut catalog, node, "log.cleanup.policy", SettingOp::Subtract("delete".to_owned())),
            Ok(true)
        );
        assert_eq!(catalog.broker.given(Layer::Cluster)["log.cleanup.policy"], "delete,compact");
        assert_eq!(catalog.broker.given(Layer::Node)["log.cleanup.policy"], "compact");
        assert!(
            catalog
                .topic("own")
                .is_some_and(|topic| topic.config.cleanup_compact && !topic.config.cleanup_delete)
        );
        let nothing = SettingsChange::All(BTreeMap::new());
        let record = catalog.alter_broker(node, &nothing).expect("legal").expect("a change");
        catalog.apply(&record);
        assert!(catalog.broker.given(Layer::Node).is_empty());
    }

    #[test]
    fn a_brokers_settings_are_refused_in_kafkas_words() {
        let catalog = catalog(1);
        let append = SettingOp::Append("1".to_owned());
        let each = |ops: &[(&str, &str)]| {
            let ops = ops.iter().map(|(name, value)| (name.to_string(), SettingOp::Set(value.to_string())));
            SettingsChange::Each(ops.collect())
        };
        let request = |why: &str| Err(Refusal::Request(why.to_owned()));
        for (change, refused) in [
            (
                each(&[("num.partitions", "3"), ("node.id", "7"), ("log.retention.ms", "x")]),
                request("Cannot update these configs dynamically: [node.id, num.partitions]"),
            ),
            (
                each(&[("max.connections", "5"), ("log.segment.bytes", "5")]),
                request(
                    "Invalid value 5 for configuration log.segment.bytes: Value must be at least 1048576",
                ),
            ),
            (
                SettingsChange::Each(vec![("log.retention.ms".to_owned(), append)]),
                Err(Refusal::Setting(SettingError(
                    "Config value append is not allowed for config key: log.retention.ms".to_owned(),
                ))),
            ),
            // What a setting that can't change was given at start isn't touched by this.
            (SettingsChange::Each(vec![("node.id".to_owned(), SettingOp::Delete)]), Ok(None)),
        ] {
            assert_eq!(catalog.alter_broker(Some(NodeId(1)), &change), refused);
            assert_eq!(catalog.alter_broker(None, &change), refused);
        }
    }

    #[test]
    fn a_deleted_topic_leaves_its_name_free() {
        let mut catalog = catalog(1);
        let created = create(&mut catalog, &topic("t", 1, 1), 1).expect("created");
        let record = catalog.delete_topic(created.topic_id).expect("exists");
        catalog.apply(&record);
        assert!(catalog.topic("t").is_none());
        assert_eq!(catalog.delete_topic(created.topic_id), Err(Refusal::UnknownTopic));
        create(&mut catalog, &topic("t", 1, 1), 2).expect("created again");
    }
}
