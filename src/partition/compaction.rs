//! Compaction: what of a log may be compacted, whether it is due, and which segments become one.
//!
//! As Kafka's log cleaner decides it (KIP-58, KIP-354, KIP-534). A log is *clean* up to its first dirty
//! offset: there each key has one record. Behind it comes the dirty part, and behind that what may not be
//! compacted yet: the active segment and those younger than `min.compaction.lag.ms`.
//!
//! One difference: the age of a record that `max.compaction.lag.ms` asks for is that of its append, not its
//! own timestamp, which the log doesn't keep for the first batch of a segment.

use super::offset_map::{Full, OffsetMap};
use super::topic_config::TopicConfig;
use crate::base::ids::{Offset, WallMs};
use crate::log::SegmentInfo;
use crate::protocol::batch_body::{BodyError, batch_records};
use crate::protocol::batch_filter::{Emptied, FilterOptions, filter_batch};
use crate::protocol::compression::Codecs;
use crate::protocol::record_batch::BatchHeader;

/// Uncompressed bytes of a batch at most: larger ones than a producer could have sent are refused.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A log that has something to compact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cleanable {
    pub first_dirty: Offset,
    /// The dirty part that may be compacted ends here.
    pub end: Offset,
    /// Bytes of that part, among those and the clean ones.
    pub dirty_ratio: f64,
    /// Over `min.cleanable.dirty.ratio` or `max.compaction.lag.ms`.
    pub is_due: bool,
}

/// `segments`: oldest first. `first_dirty`: as the last compaction left it.
pub fn cleanable(
    segments: impl Iterator<Item = SegmentInfo> + Clone,
    config: &TopicConfig,
    first_dirty: Offset,
    high_watermark: Offset,
    wall: WallMs,
) -> Option<Cleanable> {
    if !config.cleanup_compact {
        return None;
    }
    let log_start = segments.clone().next()?.base_offset;
    let first_dirty = first_dirty.max(log_start);
    let (mut clean_bytes, mut dirty_bytes, mut end) = (0, 0, first_dirty);
    let mut begun = None;
    for segment in segments {
        if segment.active || segment.end_offset > high_watermark {
            break;
        }
        if segment.end_offset <= first_dirty {
            clean_bytes += segment.bytes;
            continue;
        }
        let newest = segment.max_timestamp.unwrap_or(segment.begun.0);
        let lag_ms = config.min_compaction_lag_ms;
        if lag_ms > 0 && newest > wall.0.saturating_sub(lag_ms) {
            break;
        }
        begun.get_or_insert(segment.begun.0);
        dirty_bytes += segment.bytes;
        end = segment.end_offset;
    }
    if dirty_bytes == 0 {
        return None;
    }
    let dirty_ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes) as f64;
    let is_late = begun.is_some_and(|begun| wall.0.saturating_sub(begun) > lag_ms_max(config));
    let is_due = dirty_ratio > config.min_cleanable_dirty_ratio.value() || is_late;
    Some(Cleanable { first_dirty, end, dirty_ratio, is_due })
}

/// Kafka lets the smaller lag win where they contradict each other.
fn lag_ms_max(config: &TopicConfig) -> i64 {
    config.max_compaction_lag_ms.max(config.min_compaction_lag_ms)
}

/// The active segment has records over `max.compaction.lag.ms`: it is ended, so that they are compacted.
pub fn is_roll_due(active: &SegmentInfo, config: &TopicConfig, wall: WallMs) -> bool {
    let age_ms = wall.0.saturating_sub(active.begun.0);
    config.cleanup_compact && active.active && active.bytes > 0 && age_ms > lag_ms_max(config)
}

/// Consecutive segments that become one, by the ids of the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub first: u64,
    pub last: u64,
    pub end: Offset,
}

/// All segments with offsets below `end`, in groups of at most `bytes_max` (or one segment) whose
/// offsets fit Kafka's 31 bits.
pub fn groups(segments: impl Iterator<Item = SegmentInfo>, end: Offset, bytes_max: u64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let (mut bytes, mut base_offset) = (0, Offset(0));
    for segment in segments.take_while(|segment| !segment.active && segment.base_offset < end) {
        let spans = segment.end_offset.0 - base_offset.0 > i64::from(i32::MAX);
        match groups.last_mut().filter(|_| bytes + segment.bytes <= bytes_max && !spans) {
            Some(group) => (group.last, group.end) = (segment.id, segment.end_offset),
            None => {
                groups.push(Group { first: segment.id, last: segment.id, end: segment.end_offset });
                (bytes, base_offset) = (0, segment.base_offset);
            }
        }
        bytes += segment.bytes;
    }
    groups
}

/// What the dirty part of a log says about the keys.
pub struct KeyOffsets {
    map: OffsetMap,
    /// Records from here on aren't in the map, and stay.
    end: Offset,
}

impl KeyOffsets {
    pub fn new(map: OffsetMap, first_dirty: Offset) -> Self {
        Self { map, end: first_dirty }
    }

    /// One past the last record that was taken in.
    pub fn end(&self) -> Offset {
        self.end
    }

    pub fn size_bytes(&self) -> usize {
        self.map.size_bytes()
    }

    /// Takes the keys of a batch in. `Full` when the map has no room: those before are in it.
    pub fn note(&mut self, batch: &[u8], codecs: &mut Codecs) -> Result<Result<(), Full>, BodyError> {
        let header = BatchHeader::view(batch).expect("the log hands out whole batches");
        let behind = header.last_offset().plus(1);
        if behind <= self.end {
            return Ok(Ok(()));
        }
        if !header.is_control() {
            let mut buffer = Vec::new();
            for record in batch_records(batch, BODY_BYTES_MAX, codecs, &mut buffer)? {
                let record = record.map_err(BodyError::Record)?;
                let offset = header.base_offset().plus(i64::from(record.offset_delta));
                let Some(key) = record.key.filter(|_| offset >= self.end) else { continue };
                if self.map.put(key, offset).is_err() {
                    return Ok(Err(Full));
                }
                self.end = offset.plus(1);
            }
        }
        self.end = behind;
        Ok(Ok(()))
    }

    /// Takes the dirty part for read up to `end`, where no batch was left to tell.
    pub fn reach(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// Appends what stays of `batch` to `out`. `is_newest`: it has the last sequence of its producer.
    /// `now`: when the compaction began.
    pub fn filter(
        &self,
        batch: &[u8],
        config: &TopicConfig,
        is_newest: bool,
        now: WallMs,
        codecs: &mut Codecs,
        out: &mut Vec<u8>,
    ) -> Result<(), BodyError> {
        let header = BatchHeader::view(batch).expect("the log hands out whole batches");
        let options = FilterOptions {
            horizon: WallMs(now.0.saturating_add(config.delete_retention_ms)),
            emptied: if is_newest { Emptied::Kept } else { Emptied::Gone },
            body_bytes_max: BODY_BYTES_MAX,
        };
        let keeps_tombstones = header.delete_horizon().is_none_or(|horizon| now < horizon);
        filter_batch(batch, options, codecs, out, |offset, record| {
            if offset >= self.end {
                return true;
            }
            // Without a key: written before the topic was compacted. As in Kafka it goes.
            let Some(key) = record.key else { return false };
            let is_last = self.map.get(key).is_none_or(|last| offset >= last);
            is_last && (record.value.is_some() || keeps_tombstones)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;
    use crate::partition::offset_map::HashKey;
    use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
    use crate::protocol::compression::Codec;
    use std::collections::BTreeMap;

    const NOW: WallMs = WallMs(1_000_000);

    /// Segments of 10 records each; (bytes, age of its records in ms). The last one is active.
    fn segments(parts: &[(u64, i64)]) -> Vec<SegmentInfo> {
        let count = parts.len();
        let segment = |(index, (bytes, age_ms)): (usize, &(u64, i64))| SegmentInfo {
            base_offset: Offset(index as i64 * 10),
            end_offset: Offset(index as i64 * 10 + 10),
            bytes: *bytes,
            max_timestamp: (*bytes > 0).then_some(NOW.0 - age_ms),
            begun: WallMs(NOW.0 - age_ms),
            active: index + 1 == count,
            id: index as u64,
            sealed: index + 1 < count,
        };
        parts.iter().enumerate().map(segment).collect()
    }

    fn config(settings: &[(&str, &str)]) -> TopicConfig {
        let mut config = TopicConfig::default();
        config.set("cleanup.policy", "compact").expect("valid");
        settings.iter().for_each(|(name, value)| config.set(name, value).expect("valid"));
        config
    }

    /// First dirty offset, end, ratio in percent, due.
    type Expected = Option<(i64, i64, i64, bool)>;

    fn check(parts: &[(u64, i64)], settings: &[(&str, &str)], first_dirty: i64, expected: Expected) {
        let config = config(settings);
        let found = cleanable(segments(parts).into_iter(), &config, Offset(first_dirty), Offset(1_000), NOW);
        let found = found.map(|found| {
            let percent = (found.dirty_ratio * 100.0).round() as i64;
            (found.first_dirty.0, found.end.0, percent, found.is_due)
        });
        assert_eq!(found, expected, "{parts:?} {settings:?} {first_dirty}");
    }

    #[test]
    fn the_dirty_part_ends_before_what_is_active_or_young() {
        let parts = [(10, 900), (10, 800), (10, 700), (5, 0)];
        check(&parts, &[], 0, Some((0, 30, 100, true)));
        check(&parts, &[], 10, Some((10, 30, 67, true)));
        check(&parts, &[], 20, Some((20, 30, 33, false)));
        check(&parts, &[], 30, None);
        check(&parts, &[("min.compaction.lag.ms", "750")], 0, Some((0, 20, 100, true)));
        check(&parts, &[("min.compaction.lag.ms", "700")], 0, Some((0, 30, 100, true)));
        check(&parts, &[("min.compaction.lag.ms", "1000")], 0, None);
        check(&parts, &[("cleanup.policy", "delete")], 0, None);
        check(&parts, &[("cleanup.policy", "compact,delete")], 0, Some((0, 30, 100, true)));
        // A segment that is clean in part counts as dirty.
        check(&parts, &[], 15, Some((15, 30, 67, true)));
        check(&[(10, 0)], &[], 0, None);
        check(&[(0, 10), (10, 0)], &[], 0, None);
    }

    #[test]
    fn it_is_due_by_ratio_or_by_age() {
        let parts = [(70, 900), (30, 400), (5, 0)];
        check(&parts, &[("min.cleanable.dirty.ratio", "0.3")], 10, Some((10, 20, 30, false)));
        check(&parts, &[("min.cleanable.dirty.ratio", "0.29")], 10, Some((10, 20, 30, true)));
        check(&parts, &[("max.compaction.lag.ms", "400")], 10, Some((10, 20, 30, false)));
        check(&parts, &[("max.compaction.lag.ms", "399")], 10, Some((10, 20, 30, true)));
        let contradiction = [("max.compaction.lag.ms", "10"), ("min.compaction.lag.ms", "400")];
        check(&parts, &contradiction, 10, Some((10, 20, 30, false)));
        check(&parts, &[("min.cleanable.dirty.ratio", "1")], 0, Some((0, 20, 100, false)));
    }

    #[test]
    fn nothing_above_the_high_watermark_is_dirty() {
        let parts = segments(&[(10, 900), (10, 800), (5, 0)]);
        let found = cleanable(parts.into_iter(), &config(&[]), Offset(0), Offset(19), NOW);
        assert_eq!(found.map(|found| found.end), Some(Offset(10)));
    }

    #[test]
    fn an_active_segment_is_ended_when_its_records_are_late() {
        for (lag, age_ms, bytes, expected) in
            [("100", 101, 5, true), ("100", 100, 5, false), ("100", 101, 0, false)]
        {
            let parts = segments(&[(bytes, age_ms)]);
            let config = config(&[("max.compaction.lag.ms", lag)]);
            assert_eq!(is_roll_due(&parts[0], &config, NOW), expected, "{lag} {age_ms} {bytes}");
        }
        assert!(!is_roll_due(&segments(&[(5, 900)])[0], &config(&[]), NOW), "there is no lag by default");
    }

    #[test]
    fn groups_are_as_large_as_a_segment() {
        let of = |parts: &[(u64, i64)], end: i64, bytes_max: u64| -> Vec<(u64, u64)> {
            let groups = groups(segments(parts).into_iter(), Offset(end), bytes_max);
            groups.iter().map(|group| (group.first, group.last)).collect()
        };
        let parts = [(6, 0), (4, 0), (5, 0), (20, 0), (1, 0), (0, 0), (9, 0)];
        assert_eq!(of(&parts, 60, 10), [(0, 1), (2, 2), (3, 3), (4, 5)]);
        assert_eq!(of(&parts, 60, 100), [(0, 5)]);
        assert_eq!(of(&parts, 25, 100), [(0, 2)], "the one that is mapped in part belongs to it");
        assert_eq!(of(&parts, 20, 100), [(0, 1)]);
        assert_eq!(of(&parts, 0, 100), []);
        let mut far = segments(&parts);
        far[2].end_offset = Offset(1 << 31);
        let groups = groups(far.into_iter(), Offset(30), 100);
        assert_eq!(groups.len(), 2, "offsets of one file fit 31 bits");
    }

    /// A log of random keys, compacted again and again, against a map of what must be left.
    #[test]
    fn the_last_value_of_every_key_stays_and_no_other() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let config = config(&[("delete.retention.ms", "1000")]);
            let mut codecs = Codecs::default();
            let (mut log, mut newest) = (Vec::<Vec<u8>>::new(), None);
            let mut model: BTreeMap<u64, (i64, Option<u8>)> = BTreeMap::new();
            let (mut next, mut first_dirty, mut now, mut sequence) = (0, Offset(0), NOW, 0);
            for _ in 0..6 {
                for _ in 0..random.below(30) {
                    let batch = append(&mut random, next, sequence, &mut model);
                    let header = BatchHeader::view(&batch).expect("whole");
                    newest = header.producer().map(|_| header.last_offset()).or(newest);
                    sequence += header.records_count.get();
                    next = header.last_offset().0 + 1;
                    log.push(batch);
                }
                let bytes_max = if random.chance(1, 3) { 1 } else { 1 << 20 };
                let mut keys = KeyOffsets::new(OffsetMap::new(bytes_max, HashKey(seed, 1)), first_dirty);
                let mapped =
                    log.iter().try_for_each(|batch| keys.note(batch, &mut codecs).expect("readable"));
                let mut out = Vec::new();
                for batch in &log {
                    let last_offset = BatchHeader::view(batch).expect("whole").last_offset();
                    let is_newest = newest == Some(last_offset);
                    keys.filter(batch, &config, is_newest, now, &mut codecs, &mut out).expect("readable");
                }
                log = split(&out);
                first_dirty = keys.end();
                if mapped.is_ok() {
                    check_log(&log, &model, now);
                }
                now = WallMs(now.0 + random.below(1_500) as i64);
            }
            let mut ends = log.iter().map(|batch| BatchHeader::view(batch).expect("whole").last_offset());
            let is_there = newest.is_none_or(|newest| ends.any(|end| end == newest));
            assert!(is_there, "seed {seed}: the last sequence is in the log");
        }
    }

    fn append(
        random: &mut Random,
        base_offset: i64,
        sequence: i32,
        model: &mut BTreeMap<u64, (i64, Option<u8>)>,
    ) -> Vec<u8> {
        use crate::base::ids::{ProducerEpoch, ProducerId};
        let mut builder = BatchBuilder::new(BatchOptions {
            codec: Codec::ALL[random.below(5) as usize],
            base_offset: Offset(base_offset),
            producer: random.chance(1, 2).then_some((ProducerId(5), ProducerEpoch(0), sequence)),
            ..BatchOptions::default()
        });
        for index in 0..1 + random.below(6) as i64 {
            // Among the keys some that come often, and so many others that a small map is filled.
            let key = if random.chance(1, 2) { random.below(6) } else { random.below(400) };
            let value = random.chance(3, 4).then(|| random.below(256) as u8);
            let bytes = value.map(|value| [value]);
            let without_key = random.chance(1, 20);
            let key_bytes = key.to_string().into_bytes();
            let key_given = (!without_key).then_some(&key_bytes[..]);
            builder.push(1_000 + index, key_given, bytes.as_ref().map(|bytes| &bytes[..]), &[]);
            if !without_key {
                model.insert(key, (base_offset + index, value));
            }
        }
        builder.finish(&mut Codecs::default())
    }

    fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut batches, mut rest) = (Vec::new(), bytes);
        while let Some(header) = BatchHeader::view(rest) {
            let (batch, behind) = rest.split_at(header.size_bytes().expect("whole"));
            batches.push(batch.to_vec());
            rest = behind;
        }
        batches
    }

    /// Every key's newest record is there, unless a tombstone over its time; no older one is.
    fn check_log(log: &[Vec<u8>], model: &BTreeMap<u64, (i64, Option<u8>)>, now: WallMs) {
        let mut found = BTreeMap::new();
        for batch in log {
            let header = BatchHeader::view(batch).expect("whole");
            let mut buffer = Vec::new();
            let records = batch_records(batch, 1 << 20, &mut Codecs::default(), &mut buffer);
            for record in records.expect("readable") {
                let record = record.expect("well formed");
                let key = record.key.expect("those without key are gone");
                let key: u64 = std::str::from_utf8(key).expect("digits").parse().expect("digits");
                let offset = header.base_offset.get() + i64::from(record.offset_delta);
                let value = record.value.map(|value| value[0]);
                assert_eq!(found.insert(key, (offset, value)), None, "key {key} is there once");
                assert!(value.is_some() || header.delete_horizon().is_some_and(|horizon| now < horizon));
            }
        }
        for (key, newest) in model {
            match found.remove(key) {
                Some(record) => assert_eq!(record, *newest, "key {key}"),
                None => assert_eq!(newest.1, None, "key {key} is lost"),
            }
        }
        assert!(found.is_empty());
    }
}
