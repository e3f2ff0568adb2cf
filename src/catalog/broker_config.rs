//! Broker config: the settings of a broker that change while it runs, and the layers that give them.
//!
//! ```text
//!  of this node > of the whole cluster > given in the configuration > built in
//! ```
//!
//! The first two are committed records; what a topic has of its own goes over all of them.

use std::collections::BTreeMap;

use crate::partition::topic_config::{
    SETTINGS as TOPIC_SETTINGS, Setting, SettingError, SettingType, TopicConfig, number, setting,
};

/// Settings beside the defaults of topics, sorted by name.
const SETTINGS: &[Setting] = &[
    setting(
        "log.cleaner.backoff.ms",
        "log.cleaner.backoff.ms",
        SettingType::Long,
        "15000",
        "How often partitions to compact are looked for while there are none. Milliseconds, 1 or more.",
    ),
    setting(
        "log.cleaner.dedupe.buffer.size",
        "log.cleaner.dedupe.buffer.size",
        SettingType::Long,
        "134217728",
        "Memory for the keys of partitions being compacted, of all shards together: 24 bytes a key, taken as needed. Bytes, 1048576 or more.",
    ),
    setting(
        "log.cleaner.io.max.bytes.per.second",
        "log.cleaner.io.max.bytes.per.second",
        SettingType::Double,
        "1.7976931348623157E308",
        "Bytes that compaction reads and writes per second at most, of all shards together. More than 0.",
    ),
    setting(
        "max.connections",
        "max.connections",
        SettingType::Int,
        "10000",
        "Connections of all listeners together; further ones are closed at once. 1 or more.",
    ),
    setting(
        "producer.id.expiration.ms",
        "producer.id.expiration.ms",
        SettingType::Long,
        "86400000",
        "An idempotent producer is forgotten that long after it last appended, when log.retention.check.interval.ms next comes round. Milliseconds, 1 or more.",
    ),
];

/// Every setting of a broker that changes while it runs, with the name it has there in `broker_name`.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().chain(TOPIC_SETTINGS)
}

/// By the broker's name.
pub fn find(name: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.broker_name == name)
}

/// The values in force.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// What a topic without its own setting gets.
    pub topic_defaults: TopicConfig,
    pub cleaner_backoff_ms: u64,
    /// Of all shards together, as is the next.
    pub cleaner_map_bytes_max: usize,
    pub cleaner_io_bytes_per_second: f64,
    /// Of all shards together.
    pub connections_max: usize,
    /// A producer is forgotten that long after it last appended. What it appends then is taken as a
    /// new producer's.
    pub producer_expiry_ms: i64,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        let mut config = Self {
            topic_defaults: TopicConfig::default(),
            cleaner_backoff_ms: 0,
            cleaner_map_bytes_max: 0,
            cleaner_io_bytes_per_second: 0.0,
            connections_max: 0,
            producer_expiry_ms: 0,
        };
        for setting in SETTINGS {
            config.set(setting, setting.default).expect("defaults are valid");
        }
        config
    }
}

impl BrokerConfig {
    /// Checks and takes one setting.
    pub fn set(&mut self, setting: &Setting, value: &str) -> Result<(), SettingError> {
        let name = setting.broker_name;
        match name {
            "log.cleaner.backoff.ms" => self.cleaner_backoff_ms = number(name, value, 1, i64::MAX)? as u64,
            "log.cleaner.dedupe.buffer.size" => {
                self.cleaner_map_bytes_max = number(name, value, 1 << 20, i64::MAX)? as usize;
            }
            "log.cleaner.io.max.bytes.per.second" => self.cleaner_io_bytes_per_second = rate(name, value)?,
            "max.connections" => {
                self.connections_max = number(name, value, 1, i64::from(i32::MAX))? as usize;
            }
            "producer.id.expiration.ms" => self.producer_expiry_ms = number(name, value, 1, i64::MAX)?,
            _ => self.topic_defaults.set_default(setting, value)?,
        }
        Ok(())
    }

    /// These settings over `self`, which were checked when they were given.
    fn with(mut self, values: &BTreeMap<String, String>) -> Self {
        for (name, value) in values {
            // A setting of a newer version that this one doesn't know changes nothing here.
            if let Some(setting) = find(name) {
                self.set(setting, value).ok();
            }
        }
        self
    }

    /// The value of a setting as it would be given.
    pub fn value_of(&self, setting: &Setting) -> String {
        match setting.broker_name {
            "log.cleaner.backoff.ms" => self.cleaner_backoff_ms.to_string(),
            "log.cleaner.dedupe.buffer.size" => self.cleaner_map_bytes_max.to_string(),
            "log.cleaner.io.max.bytes.per.second" => {
                format!("{:?}", self.cleaner_io_bytes_per_second).replace('e', "E")
            }
            "max.connections" => self.connections_max.to_string(),
            "producer.id.expiration.ms" => self.producer_expiry_ms.to_string(),
            _ => self.topic_defaults.value_of(setting.name),
        }
    }
}

fn rate(name: &str, value: &str) -> Result<f64, SettingError> {
    let refuse = |why: &str| SettingError(format!("Invalid value {value} for configuration {name}: {why}"));
    let number: f64 = value.trim().parse().map_err(|_| refuse("Not a number of its type"))?;
    if number > 0.0 { Ok(number) } else { Err(refuse("Value must be more than 0")) }
}

/// Where a value was given; earlier ones go over later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// For this node, while it ran.
    Node,
    /// For every broker of the cluster, while it ran.
    Cluster,
    /// In the configuration that the broker was started with.
    Start,
}

impl Layer {
    pub const ALL: [Self; 3] = [Self::Node, Self::Cluster, Self::Start];
}

/// The values given in each layer, by the broker's names, and what they add up to.
#[derive(Clone, Debug, Default)]
pub struct BrokerSettings {
    of_node: BTreeMap<String, String>,
    of_cluster: BTreeMap<String, String>,
    at_start: BTreeMap<String, String>,
    start: BrokerConfig,
    config: BrokerConfig,
}

impl BrokerSettings {
    /// `start`: what the broker was started with, of which `given` was said and the rest is built in.
    pub fn new(start: BrokerConfig, given: BTreeMap<String, String>) -> Self {
        Self { config: start.clone(), start, at_start: given, ..Self::default() }
    }

    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    pub fn given(&self, layer: Layer) -> &BTreeMap<String, String> {
        match layer {
            Layer::Node => &self.of_node,
            Layer::Cluster => &self.of_cluster,
            Layer::Start => &self.at_start,
        }
    }

    /// The values that a setting was given, the one in force first.
    pub fn values(&self, name: &str) -> impl Iterator<Item = (Layer, &str)> {
        Layer::ALL.into_iter().filter_map(move |layer| Some((layer, self.given(layer).get(name)?.as_str())))
    }

    /// What would be in force if nothing went over `layer`.
    pub fn config_of(&self, layer: Layer) -> BrokerConfig {
        match layer {
            Layer::Node => self.config.clone(),
            Layer::Cluster => self.start.clone().with(&self.of_cluster),
            Layer::Start => self.start.clone(),
        }
    }

    /// These are all values of a layer from here on; of the node's where `is_node`, else of the cluster's.
    pub(super) fn replace(&mut self, is_node: bool, values: &BTreeMap<String, String>) {
        let layer = if is_node { &mut self.of_node } else { &mut self.of_cluster };
        layer.clone_from(values);
        self.config = self.config_of(Layer::Cluster).with(&self.of_node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn every_default_is_taken_and_told_as_it_is_written() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        let config = BrokerConfig::default();
        for setting in settings() {
            assert_eq!(config.value_of(setting), setting.default);
            assert_eq!(find(setting.broker_name).map(|found| found.name), Some(setting.name));
        }
        assert_eq!(config.connections_max, 10_000);
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_the_brokers_name() {
        for (name, value) in [
            ("log.cleaner.backoff.ms", "0"),
            ("log.cleaner.dedupe.buffer.size", "1048575"),
            ("log.cleaner.io.max.bytes.per.second", "NaN"),
            ("log.cleaner.io.max.bytes.per.second", "0"),
            ("log.retention.ms", "soon"),
            ("log.segment.bytes", "5"),
            ("max.connections", "0"),
            ("producer.id.expiration.ms", "0"),
        ] {
            let mut config = BrokerConfig::default();
            let SettingError(why) = config.set(find(name).expect("known"), value).expect_err(name);
            assert!(why.starts_with(&format!("Invalid value {value} for configuration {name}: ")), "{why}");
            assert_eq!(config, BrokerConfig::default());
        }
    }

    #[test]
    fn the_nodes_values_go_over_the_clusters_over_those_at_start() {
        let mut start = BrokerConfig::default();
        start.set(find("log.retention.ms").expect("known"), "1").expect("valid");
        let mut settings = BrokerSettings::new(start, values(&[("log.retention.ms", "1")]));
        let in_force = |settings: &BrokerSettings| settings.config().topic_defaults.retention_ms;
        let found = |settings: &BrokerSettings| {
            let values = settings.values("log.retention.ms");
            values.map(|(layer, value)| (layer, value.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(in_force(&settings), 1);
        settings.replace(true, &values(&[("log.retention.ms", "3")]));
        settings.replace(false, &values(&[("log.retention.ms", "2"), ("max.connections", "7")]));
        assert_eq!((in_force(&settings), settings.config().connections_max), (3, 7));
        let all = [(Layer::Node, "3"), (Layer::Cluster, "2"), (Layer::Start, "1")];
        assert_eq!(found(&settings), all.map(|(layer, value)| (layer, value.to_string())));
        settings.replace(true, &values(&[]));
        assert_eq!(in_force(&settings), 2);
        settings.replace(false, &values(&[("a.setting.of.a.newer.version", "1")]));
        assert_eq!((in_force(&settings), settings.config().connections_max), (1, 10_000));
    }
}
