//! Ids and units: one type per meaning, so that the compiler notices an exchange.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of a record in a partition. Kafka's offset: `0 <= offset`, -1 means "none" on the wire only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

/// Byte address inside a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// Epoch of a partition's leader. Bumped at every change of leadership and at every restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LeaderEpoch(pub i32);

/// Id of a producer session (KIP-98); -1 on the wire means a producer without idempotence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

/// Epoch of a producer id, bumped to fence the session before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(pub i16);

/// Position of a request in its connection, chosen by the client and echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CorrelationId(pub i32);

/// Number of a broker in the cluster (`node.id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub i32);

/// 0-based number of a shard of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Number of a lane among those of all log directories of a node; never reused, survives restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId(pub u16);

/// Random id of a log directory, in its `format` file (Kafka's `directory.id`): tells a mount that was
/// swapped, whatever its path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectoryId(pub [u8; 16]);

/// Universally unique id of a topic (KIP-516); all zero means "none" on the wire only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct TopicId(pub [u8; 16]);

/// 0-based number of a partition in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PartitionId(pub i32);

/// One partition of one topic, by the topic's id: a deleted and re-created name is another topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic_id: TopicId,
    pub partition: PartitionId,
}

/// Milliseconds since 1970 by the wall clock; used for record timestamps only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMs(pub i64);

/// Nanoseconds of the monotonic clock; used for every duration and timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonotonicNs(pub u64);

impl MonotonicNs {
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Whole milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

impl Offset {
    pub fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }
}

impl TopicId {
    pub const NONE: Self = Self([0; 16]);

    /// Kafka's printed form: URL-safe base64 of the 16 bytes without padding, 22 characters.
    pub fn to_base64(self) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::with_capacity(22);
        for group in self.0.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte))
                << (8 * (3 - group.len()));
            for index in 0..=group.len() {
                let six = (bits >> (18 - 6 * index)) & 63;
                text.push(char::from(ALPHABET[six as usize]));
            }
        }
        text
    }

    /// Lower-case hexadecimal, for directory names: 32 characters, never a path.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Inverse of [`TopicId::to_hex`].
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl DirectoryId {
    /// As Kafka prints it.
    pub fn to_base64(self) -> String {
        TopicId(self.0).to_base64()
    }

    pub fn to_hex(self) -> String {
        TopicId(self.0).to_hex()
    }

    pub fn from_hex(text: &str) -> Option<Self> {
        TopicId::from_hex(text).map(|id| Self(id.0))
    }
}

impl fmt::Debug for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{}", self.topic_id, self.partition.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_prints_as_kafka_prints_a_uuid() {
        // Kafka's Uuid.METADATA_TOPIC_ID (0, 1) prints as this.
        let mut bytes = [0; 16];
        bytes[15] = 1;
        assert_eq!(TopicId(bytes).to_base64(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn topic_id_survives_its_directory_name() {
        let id = TopicId(*b"0123456789abcdef");
        assert_eq!(TopicId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(TopicId::from_hex("zz"), None);
        assert_eq!(TopicId::from_hex(&"é".repeat(16)), None);
    }
}
