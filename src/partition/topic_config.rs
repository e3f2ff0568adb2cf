//! Topic config: every setting a topic knows, its default, bounds and documentation, in one table.
//!
//! The broker's defaults are the same settings under Kafka's broker names (`log.` and friends), so
//! one table answers CreateTopics, DescribeConfigs and the configuration file.

use std::collections::BTreeMap;

/// `ack.durability`: when an acknowledgement is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckDurability {
    /// After the flush: an acknowledged record survives a power cut.
    Durable,
    /// After the append in memory, Kafka's meaning.
    Relaxed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What the broker stores: the producer's codec or one of its own choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// A share between 0 and 1, in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(u32);

impl Ratio {
    const ONE: f64 = 1e9;

    pub fn value(self) -> f64 {
        f64::from(self.0) / Self::ONE
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub ack_durability: AckDurability,
    pub cleanup_compact: bool,
    pub cleanup_delete: bool,
    pub compression_type: CompressionType,
    pub max_message_bytes: u32,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub delete_retention_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub min_cleanable_dirty_ratio: Ratio,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: u32,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    pub segment_bytes: u32,
    pub segment_ms: u64,
}

impl Default for TopicConfig {
    fn default() -> Self {
        let mut config = Self {
            ack_durability: AckDurability::Durable,
            cleanup_compact: false,
            cleanup_delete: true,
            compression_type: CompressionType::Producer,
            max_message_bytes: 0,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: 0,
            timestamp_after_max_ms: 0,
            delete_retention_ms: 0,
            max_compaction_lag_ms: 0,
            min_cleanable_dirty_ratio: Ratio(0),
            min_compaction_lag_ms: 0,
            min_insync_replicas: 1,
            retention_bytes: 0,
            retention_ms: 0,
            segment_bytes: 0,
            segment_ms: 0,
        };
        for setting in SETTINGS {
            config.set(setting.name, setting.default).expect("defaults are valid");
        }
        config
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingType {
    Int,
    Long,
    Double,
    Text,
    List,
}

/// One setting of a topic.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    /// The broker's setting that gives a topic its default.
    pub broker_name: &'static str,
    pub kind: SettingType,
    pub default: &'static str,
    pub documentation: &'static str,
}

pub(crate) const fn setting(
    name: &'static str,
    broker_name: &'static str,
    kind: SettingType,
    default: &'static str,
    documentation: &'static str,
) -> Setting {
    Setting { name, broker_name, kind, default, documentation }
}

/// Sorted by name. Settings that Kafka knows and that have no effect here yet are in
/// [`ACCEPTED_WITHOUT_EFFECT`].
pub const SETTINGS: &[Setting] = &[
    setting(
        "ack.durability",
        "ack.durability",
        SettingType::Text,
        "durable",
        "When a record is acknowledged: 'durable' after the flush, so that it survives a power cut; 'relaxed' after the append in memory: a power cut or a killed process may take the records of the last milliseconds. Corelane's own setting.",
    ),
    setting(
        "cleanup.policy",
        "log.cleanup.policy",
        SettingType::List,
        "delete",
        "What happens to old segments: 'delete' discards them by time and size, 'compact' keeps the last value of every key, or both.",
    ),
    setting(
        "compression.type",
        "compression.type",
        SettingType::Text,
        "producer",
        "Codec in which batches are stored: 'producer' keeps the producer's; 'uncompressed', 'gzip', 'snappy', 'lz4' and 'zstd' recompress where it differs.",
    ),
    setting(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        SettingType::Long,
        "86400000",
        "How long a compacted topic keeps a record without value, which deletes its key, after the compaction that found it first, in ms. 0 or more.",
    ),
    setting(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        SettingType::Long,
        "9223372036854775807",
        "A record of a compacted topic is compacted at the latest so many ms after it was appended, whatever the share of dirty bytes. 1 or more, and not below min.compaction.lag.ms.",
    ),
    setting(
        "max.message.bytes",
        "message.max.bytes",
        SettingType::Int,
        "1048588",
        "Largest record batch accepted, in bytes, after compression and with its header. 0 or more.",
    ),
    setting(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        SettingType::Long,
        "3600000",
        "How far a record's timestamp may be ahead of the broker's clock, in ms, with CreateTime. 0 or more.",
    ),
    setting(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        SettingType::Long,
        "9223372036854775807",
        "How far a record's timestamp may be behind the broker's clock, in ms, with CreateTime. 0 or more.",
    ),
    setting(
        "message.timestamp.type",
        "log.message.timestamp.type",
        SettingType::Text,
        "CreateTime",
        "Whose clock a record's timestamp is: the producer's (CreateTime) or the broker's at append (LogAppendTime).",
    ),
    setting(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        SettingType::Double,
        "0.5",
        "A partition of a compacted topic is compacted when the bytes written since are a larger share of it. 0 to 1.",
    ),
    setting(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        SettingType::Long,
        "0",
        "A record of a compacted topic stays uncompacted for so many ms. 0 or more.",
    ),
    setting(
        "min.insync.replicas",
        "min.insync.replicas",
        SettingType::Int,
        "1",
        "In-sync replicas that a produce request with acks=all needs; with fewer it is refused. 1 or more.",
    ),
    setting(
        "retention.bytes",
        "log.retention.bytes",
        SettingType::Long,
        "-1",
        "Bytes of a partition after which the oldest segments are deleted; -1 is no limit.",
    ),
    setting(
        "retention.ms",
        "log.retention.ms",
        SettingType::Long,
        "604800000",
        "Age in ms after which segments are deleted; -1 is no limit.",
    ),
    setting(
        "segment.bytes",
        "log.segment.bytes",
        SettingType::Int,
        "1073741824",
        "Size of a segment file in bytes, at which a new one begins. 1048576 or more, as in Kafka 4.",
    ),
    setting(
        "segment.ms",
        "log.roll.ms",
        SettingType::Long,
        "604800000",
        "Age in ms of a segment's first record, at which a new segment begins. 1 or more.",
    ),
];

/// Kafka's topic settings that are stored and described, but change nothing in this version.
pub const ACCEPTED_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("file.delete.delay.ms", "60000"),
    ("flush.messages", "9223372036854775807"),
    ("flush.ms", "9223372036854775807"),
    ("follower.replication.throttled.replicas", ""),
    ("index.interval.bytes", "4096"),
    ("leader.replication.throttled.replicas", ""),
    ("local.retention.bytes", "-2"),
    ("local.retention.ms", "-2"),
    ("preallocate", "false"),
    ("remote.storage.enable", "false"),
    ("segment.index.bytes", "10485760"),
    ("segment.jitter.ms", "0"),
    ("unclean.leader.election.enable", "false"),
];

/// A value that a setting refuses, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError(pub String);

impl TopicConfig {
    /// These settings over `self`. Unknown names and values were refused when they were given.
    pub fn with(&self, settings: &BTreeMap<String, String>) -> Self {
        let mut config = self.clone();
        for (name, value) in settings {
            // A setting of a newer version that this one doesn't know changes nothing here.
            config.set(name, value).ok();
        }
        config
    }

    /// Checks settings before they are taken.
    pub fn check(settings: &BTreeMap<String, String>) -> Result<(), SettingError> {
        let mut config = Self::default();
        settings.iter().try_for_each(|(name, value)| config.set(name, value))?;
        config.check_lags()
    }

    /// Settings that contradict each other.
    pub fn check_lags(&self) -> Result<(), SettingError> {
        let (min, max) = (self.min_compaction_lag_ms, self.max_compaction_lag_ms);
        if min <= max {
            return Ok(());
        }
        Err(SettingError(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
        )))
    }

    /// Checks and takes one setting by its topic name.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        self.take(name, name, value)
    }

    /// Checks and takes a default for topics, which a refusal calls by the broker's name.
    pub fn set_default(&mut self, setting: &Setting, value: &str) -> Result<(), SettingError> {
        self.take(setting.name, setting.broker_name, value)
    }

    fn take(&mut self, setting: &str, name: &str, value: &str) -> Result<(), SettingError> {
        match setting {
            "ack.durability" => {
                self.ack_durability = choose(
                    name,
                    value,
                    &[("durable", AckDurability::Durable), ("relaxed", AckDurability::Relaxed)],
                )?;
            }
            "cleanup.policy" => self.set_cleanup(name, value)?,
            "compression.type" => {
                self.compression_type = choose(
                    name,
                    value,
                    &[
                        ("producer", CompressionType::Producer),
                        ("uncompressed", CompressionType::Uncompressed),
                        ("gzip", CompressionType::Gzip),
                        ("snappy", CompressionType::Snappy),
                        ("lz4", CompressionType::Lz4),
                        ("zstd", CompressionType::Zstd),
                    ],
                )?;
            }
            "delete.retention.ms" => self.delete_retention_ms = number(name, value, 0, i64::MAX)?,
            "max.compaction.lag.ms" => self.max_compaction_lag_ms = number(name, value, 1, i64::MAX)?,
            "min.cleanable.dirty.ratio" => self.min_cleanable_dirty_ratio = ratio(name, value)?,
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = number(name, value, 0, i64::MAX)?,
            "max.message.bytes" => {
                self.max_message_bytes = number(name, value, 0, i64::from(i32::MAX))? as u32
            }
            "message.timestamp.after.max.ms" => {
                self.timestamp_after_max_ms = number(name, value, 0, i64::MAX)?
            }
            "message.timestamp.before.max.ms" => {
                self.timestamp_before_max_ms = number(name, value, 0, i64::MAX)?
            }
            "message.timestamp.type" => {
                self.timestamp_type = choose(
                    name,
                    value,
                    &[
                        ("CreateTime", TimestampType::CreateTime),
                        ("LogAppendTime", TimestampType::LogAppendTime),
                    ],
                )?;
            }
            "min.insync.replicas" => {
                self.min_insync_replicas = number(name, value, 1, i64::from(i32::MAX))? as u32
            }
            "retention.bytes" => self.retention_bytes = number(name, value, -1, i64::MAX)?,
            "retention.ms" => self.retention_ms = number(name, value, -1, i64::MAX)?,
            "segment.bytes" => {
                self.segment_bytes = number(name, value, SEGMENT_BYTES_MIN, i64::from(i32::MAX))? as u32
            }
            "segment.ms" => self.segment_ms = number(name, value, 1, i64::MAX)? as u64,
            _ if ACCEPTED_WITHOUT_EFFECT.iter().any(|(known, _)| *known == setting) => {}
            _ => return Err(SettingError(format!("Unknown topic config name: {name}"))),
        }
        Ok(())
    }

    /// The value of a setting as it would be given.
    ///
    /// Precondition: `name` is in [`SETTINGS`].
    pub fn value_of(&self, name: &str) -> String {
        match name {
            "ack.durability" => match self.ack_durability {
                AckDurability::Durable => "durable".into(),
                AckDurability::Relaxed => "relaxed".into(),
            },
            "cleanup.policy" => match (self.cleanup_compact, self.cleanup_delete) {
                (true, true) => "compact,delete".into(),
                (true, false) => "compact".into(),
                _ => "delete".into(),
            },
            "compression.type" => match self.compression_type {
                CompressionType::Producer => "producer".into(),
                CompressionType::Uncompressed => "uncompressed".into(),
                CompressionType::Gzip => "gzip".into(),
                CompressionType::Snappy => "snappy".into(),
                CompressionType::Lz4 => "lz4".into(),
                CompressionType::Zstd => "zstd".into(),
            },
            "delete.retention.ms" => self.delete_retention_ms.to_string(),
            "max.compaction.lag.ms" => self.max_compaction_lag_ms.to_string(),
            "min.cleanable.dirty.ratio" => format!("{:?}", self.min_cleanable_dirty_ratio.value()),
            "min.compaction.lag.ms" => self.min_compaction_lag_ms.to_string(),
            "max.message.bytes" => self.max_message_bytes.to_string(),
            "message.timestamp.after.max.ms" => self.timestamp_after_max_ms.to_string(),
            "message.timestamp.before.max.ms" => self.timestamp_before_max_ms.to_string(),
            "message.timestamp.type" => match self.timestamp_type {
                TimestampType::CreateTime => "CreateTime".into(),
                TimestampType::LogAppendTime => "LogAppendTime".into(),
            },
            "min.insync.replicas" => self.min_insync_replicas.to_string(),
            "retention.bytes" => self.retention_bytes.to_string(),
            "retention.ms" => self.retention_ms.to_string(),
            "segment.bytes" => self.segment_bytes.to_string(),
            "segment.ms" => self.segment_ms.to_string(),
            other => unreachable!("{other} is in no table"),
        }
    }

    fn set_cleanup(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let (mut compact, mut delete) = (false, false);
        for policy in value.split(',').map(str::trim) {
            match policy {
                "compact" => compact = true,
                "delete" => delete = true,
                _ => {
                    return Err(SettingError(format!(
                        "Invalid value {value} for configuration {name}: String must be one of: compact, delete"
                    )));
                }
            }
        }
        (self.cleanup_compact, self.cleanup_delete) = (compact, delete);
        Ok(())
    }
}

/// Kafka 4.0's lower bound (KIP-1030).
const SEGMENT_BYTES_MIN: i64 = 1024 * 1024;

pub(crate) fn number(name: &str, value: &str, min: i64, max: i64) -> Result<i64, SettingError> {
    let refuse = |why: String| SettingError(format!("Invalid value {value} for configuration {name}: {why}"));
    let number: i64 = value.trim().parse().map_err(|_| refuse("Not a number of its type".into()))?;
    if number < min {
        return Err(refuse(format!("Value must be at least {min}")));
    }
    if number > max {
        return Err(refuse(format!("Value must be no more than {max}")));
    }
    Ok(number)
}

fn ratio(name: &str, value: &str) -> Result<Ratio, SettingError> {
    let refuse = |why: &str| SettingError(format!("Invalid value {value} for configuration {name}: {why}"));
    let number: f64 = value.trim().parse().map_err(|_| refuse("Not a number of its type"))?;
    if !(0.0..=1.0).contains(&number) {
        return Err(refuse("Value must be between 0 and 1"));
    }
    Ok(Ratio((number * Ratio::ONE).round() as u32))
}

fn choose<T: Copy>(name: &str, value: &str, choices: &[(&str, T)]) -> Result<T, SettingError> {
    choices.iter().find(|(text, _)| *text == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
        SettingError(format!(
            "Invalid value {value} for configuration {name}: String must be one of: {}",
            names.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_sorted_and_their_defaults_are_taken() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        let config = TopicConfig::default();
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.ack_durability, AckDurability::Durable);
        for setting in SETTINGS {
            assert_eq!(config.value_of(setting.name), setting.default);
        }
    }

    #[test]
    fn values_out_of_range_and_unknown_names_are_refused() {
        let cases = [
            ("segment.bytes", "1048575"),
            ("segment.bytes", "x"),
            ("min.insync.replicas", "0"),
            ("cleanup.policy", "compact,burn"),
            ("compression.type", "brotli"),
            ("min.cleanable.dirty.ratio", "1.1"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("max.compaction.lag.ms", "0"),
            ("no.such.setting", "1"),
        ];
        for (name, value) in cases {
            let mut config = TopicConfig::default();
            assert!(config.set(name, value).is_err(), "{name}={value}");
            assert_eq!(config, TopicConfig::default(), "a refused value changes nothing");
        }
    }

    #[test]
    fn lags_that_contradict_each_other_are_refused() {
        let lags = |min: &str, max: &str| {
            let setting = |name: &str, value: &str| (name.to_string(), value.to_string());
            TopicConfig::check(&BTreeMap::from([
                setting("min.compaction.lag.ms", min),
                setting("max.compaction.lag.ms", max),
            ]))
        };
        assert!(lags("5", "5").is_ok());
        assert!(lags("6", "5").is_err());
    }

    #[test]
    fn a_topics_settings_go_over_the_brokers() {
        let mut broker = TopicConfig::default();
        broker.set("retention.ms", "5").expect("valid");
        let settings = BTreeMap::from([("cleanup.policy".to_string(), "compact,delete".to_string())]);
        let topic = broker.with(&settings);
        assert!(topic.cleanup_compact && topic.cleanup_delete);
        assert_eq!(topic.retention_ms, 5);
    }
}
