//! Retention: how far the log start moves, by the rules of `retention.ms` and `retention.bytes`.
//!
//! As in Kafka whole segments go, the oldest first, as long as one is over its time or the rest is
//! over its size; never above the high watermark, and nothing of a topic that is compacted only.

use super::topic_config::TopicConfig;
use crate::base::ids::{Offset, WallMs};
use crate::log::SegmentInfo;

/// What retention asks of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Records below it go.
    pub log_start: Offset,
    /// The segment appended to is among them, and must be ended first.
    pub roll: bool,
}

/// `segments`: oldest first. None where nothing is over its time or size.
pub fn expired(
    segments: impl Iterator<Item = SegmentInfo> + Clone,
    config: &TopicConfig,
    high_watermark: Offset,
    wall: WallMs,
) -> Option<Expired> {
    if !config.cleanup_delete {
        return None;
    }
    let sum_bytes: u64 = segments.clone().map(|segment| segment.bytes).sum();
    let mut over_bytes = match u64::try_from(config.retention_bytes) {
        Ok(limit_bytes) => sum_bytes.saturating_sub(limit_bytes),
        Err(_) => 0,
    };
    let mut expired = None;
    for segment in segments {
        let newest = segment.max_timestamp.unwrap_or(segment.begun.0);
        let is_old = config.retention_ms >= 0 && wall.0.saturating_sub(newest) > config.retention_ms;
        let is_over = over_bytes > 0 && segment.bytes <= over_bytes;
        let is_empty = segment.bytes == 0 && segment.active;
        if is_empty || segment.end_offset > high_watermark || !(is_old || is_over) {
            break;
        }
        over_bytes = over_bytes.saturating_sub(segment.bytes);
        expired = Some(Expired { log_start: segment.end_offset, roll: segment.active });
    }
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMs = WallMs(1_000_000);

    /// Segments of 10 records each; (bytes, age of the newest record in ms).
    fn segments(parts: &[(u64, i64)]) -> Vec<SegmentInfo> {
        let count = parts.len();
        let segment = |(index, (bytes, age_ms)): (usize, &(u64, i64))| SegmentInfo {
            base_offset: Offset(index as i64 * 10),
            end_offset: Offset(index as i64 * 10 + if *bytes > 0 { 10 } else { 0 }),
            bytes: *bytes,
            max_timestamp: (*bytes > 0).then_some(NOW.0 - age_ms),
            begun: WallMs(NOW.0 - age_ms),
            active: index + 1 == count,
            id: index as u64,
            sealed: index + 1 < count,
        };
        parts.iter().enumerate().map(segment).collect()
    }

    fn log_start(parts: &[(u64, i64)], retention_ms: i64, retention_bytes: i64) -> Option<(i64, bool)> {
        let config = TopicConfig { retention_ms, retention_bytes, ..TopicConfig::default() };
        let expired = expired(segments(parts).into_iter(), &config, Offset(1_000), NOW);
        expired.map(|expired| (expired.log_start.0, expired.roll))
    }

    #[test]
    fn old_segments_go_from_the_oldest_on() {
        let parts = [(5, 900), (5, 600), (5, 300), (5, 0)];
        assert_eq!(log_start(&parts, 500, -1), Some((20, false)));
        assert_eq!(log_start(&parts, 900, -1), None, "as old as allowed is not too old");
        assert_eq!(log_start(&parts, -1, -1), None);
        // A young one keeps older ones behind it.
        assert_eq!(log_start(&[(5, 900), (5, 100), (5, 900), (5, 0)], 500, -1), Some((10, false)));
        // One from the future is not old.
        assert_eq!(log_start(&[(5, -900), (5, 900)], 500, -1), None);
    }

    #[test]
    fn the_active_segment_goes_when_all_of_it_is_old() {
        assert_eq!(log_start(&[(5, 900), (5, 800)], 500, -1), Some((20, true)));
        assert_eq!(log_start(&[(5, 900), (0, 900)], 500, -1), Some((10, false)), "an empty one stays");
        assert_eq!(log_start(&[(0, 900)], 500, -1), None);
    }

    #[test]
    fn segments_go_as_long_as_the_rest_is_large_enough() {
        let parts = [(4, 0), (3, 0), (2, 0), (1, 0)];
        assert_eq!(log_start(&parts, -1, 10), None);
        assert_eq!(log_start(&parts, -1, 7), None, "7 would be left with the first, 6 without");
        assert_eq!(log_start(&parts, -1, 6), Some((10, false)));
        assert_eq!(log_start(&parts, -1, 3), Some((20, false)));
        assert_eq!(log_start(&parts, -1, 0), Some((40, true)));
    }

    #[test]
    fn time_and_size_both_count() {
        assert_eq!(log_start(&[(4, 900), (3, 0), (2, 0), (1, 0)], 500, 3), Some((20, false)));
    }

    #[test]
    fn nothing_above_the_high_watermark_and_nothing_compacted_goes() {
        let parts = segments(&[(5, 900), (5, 900), (5, 900)]);
        let mut config = TopicConfig { retention_ms: 500, ..TopicConfig::default() };
        let all = expired(parts.clone().into_iter(), &config, Offset(29), NOW);
        assert_eq!(all, Some(Expired { log_start: Offset(20), roll: false }));
        config.cleanup_delete = false;
        assert_eq!(expired(parts.into_iter(), &config, Offset(30), NOW), None);
    }
}
