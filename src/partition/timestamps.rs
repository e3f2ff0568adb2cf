//! Timestamps: may a batch with these timestamps be appended (KIP-32, KIP-937)?

use crate::base::ids::WallMs;
use crate::partition::topic_config::{TimestampType, TopicConfig};

/// Kafka's "no timestamp".
pub const NO_TIMESTAMP: i64 = -1;

/// True when `timestamp_ms` lies in the window that the topic allows around the broker's clock.
/// Topics with LogAppendTime take any, since the broker's own replaces it.
pub fn is_acceptable(config: &TopicConfig, timestamp_ms: i64, now: WallMs) -> bool {
    if config.timestamp_type == TimestampType::LogAppendTime || timestamp_ms == NO_TIMESTAMP {
        return true;
    }
    let behind = now.0.saturating_sub(timestamp_ms);
    behind <= config.timestamp_before_max_ms && behind.saturating_neg() <= config.timestamp_after_max_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_closed_on_both_sides() {
        let mut config =
            TopicConfig { timestamp_before_max_ms: 10, timestamp_after_max_ms: 5, ..Default::default() };
        let now = WallMs(1000);
        let cases = [
            (990, true),
            (989, false),
            (1005, true),
            (1006, false),
            (-1, true),
            (i64::MIN, false),
            (i64::MAX, false),
        ];
        for (timestamp_ms, expected) in cases {
            assert_eq!(is_acceptable(&config, timestamp_ms, now), expected, "{timestamp_ms}");
        }
        config.timestamp_type = TimestampType::LogAppendTime;
        assert!(is_acceptable(&config, 0, now));
    }
}
