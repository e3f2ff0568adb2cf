//! Batch filter: a batch with some of its records only, as Kafka's log cleaner writes it (KIP-534).
//!
//! Promises: what stays keeps its offset, time, headers, codec, producer and leader epoch; the batch keeps
//!           its base and last offset and its sequence. A batch that isn't changed keeps its bytes.
//! Never:    decides which records stay.

use crate::base::ids::{Offset, WallMs};
use crate::protocol::batch_body::{BodyError, batch_records};
use crate::protocol::compression::{Codec, Codecs};
use crate::protocol::record::RecordView;
use crate::protocol::record_batch::{
    BatchHeader, DELETE_HORIZON_ATTRIBUTE, HEADER_BYTES, LOG_OVERHEAD_BYTES, header_mut, seal,
};
use crate::protocol::writer::Writer;

/// What a batch without records is left as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// Nothing.
    Gone,
    /// Its header alone: it has the last sequence of its producer.
    Kept,
}

/// How tombstones and emptied batches are treated.
#[derive(Clone, Copy, Debug)]
pub struct FilterOptions {
    /// From when on a batch that gets its delete horizon now loses its tombstones.
    pub horizon: WallMs,
    pub emptied: Emptied,
    /// Uncompressed bytes of a batch at most.
    pub body_bytes_max: usize,
}

/// Appends `batch` to `out` with the records that `retains` names, or nothing.
///
/// `batch` is exactly one whole batch, whose bytes were verified.
pub fn filter_batch(
    batch: &[u8],
    options: FilterOptions,
    codecs: &mut Codecs,
    out: &mut Vec<u8>,
    mut retains: impl FnMut(Offset, &RecordView<'_>) -> bool,
) -> Result<(), BodyError> {
    let header = *BatchHeader::view(batch).expect("the caller gives a whole batch");
    let mut buffer = Vec::new();
    let base_offset = header.base_offset();
    let (mut kept, mut count, mut has_tombstone) = (Vec::new(), 0, false);
    for record in batch_records(batch, options.body_bytes_max, codecs, &mut buffer)? {
        let record = record.map_err(BodyError::Record)?;
        count += 1;
        if retains(base_offset.plus(i64::from(record.offset_delta)), &record) {
            has_tombstone |= record.value.is_none();
            kept.push(record);
        }
    }
    let gets_horizon = has_tombstone && header.delete_horizon().is_none() && !header.is_control();
    if kept.is_empty() && options.emptied == Emptied::Gone && !header.is_control() {
        return Ok(());
    }
    if (kept.len() == count && !gets_horizon) || header.is_control() {
        out.extend_from_slice(batch);
        return Ok(());
    }
    let at = out.len();
    out.extend_from_slice(&batch[..HEADER_BYTES]);
    if kept.is_empty() {
        write_emptied(&mut out[at..]);
    } else {
        let horizon = gets_horizon.then_some(options.horizon.0);
        write_kept(&header, &kept, horizon, codecs, out, at);
    }
    Ok(())
}

/// As Kafka's `writeEmptyHeader`: the largest time stays, that of the first record is unknown.
fn write_emptied(batch: &mut [u8]) {
    let header = header_mut(batch);
    header.batch_length.set((HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32);
    let attributes = header.attributes.get() & !(7 | DELETE_HORIZON_ATTRIBUTE);
    header.attributes.set(attributes | i16::from(Codec::None.number()));
    header.base_timestamp.set(-1);
    header.records_count.set(0);
    seal(batch);
}

/// Puts the records behind the header at `at`, and corrects it. With a `horizon` their times count from
/// there, since that is where it is stored.
fn write_kept(
    before: &BatchHeader,
    kept: &[RecordView<'_>],
    horizon: Option<i64>,
    codecs: &mut Codecs,
    out: &mut Vec<u8>,
    at: usize,
) {
    let base_before = before.base_timestamp.get();
    let base = horizon.unwrap_or(base_before);
    let (mut body, mut max_timestamp) = (Vec::new(), -1);
    for record in kept {
        let timestamp = base_before.wrapping_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        let mut front = Vec::with_capacity(11);
        let mut writer = Writer::new(&mut front, false);
        writer.i8(record.attributes);
        writer.varlong(timestamp.wrapping_sub(base));
        let length = front.len() + record.behind_time.len();
        let mut writer = Writer::new(&mut body, false);
        writer.varint(i32::try_from(length).expect("batches are bounded below 2 GiB"));
        writer.raw(&front);
        writer.raw(record.behind_time);
    }
    let codec = Codec::from_number(before.codec_number()).expect("its records were read");
    codecs.compress(codec, &body, out);
    let batch = &mut out[at..];
    let length = i32::try_from(batch.len() - LOG_OVERHEAD_BYTES).expect("batches are bounded below 2 GiB");
    let header = header_mut(batch);
    header.batch_length.set(length);
    header.records_count.set(i32::try_from(kept.len()).expect("as many as before at most"));
    if horizon.is_some() {
        header.attributes.set(header.attributes.get() | DELETE_HORIZON_ATTRIBUTE);
        header.base_timestamp.set(base);
    }
    if !before.is_log_append_time() {
        header.max_timestamp.set(max_timestamp);
    }
    seal(batch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{LeaderEpoch, ProducerEpoch, ProducerId};
    use crate::base::random::Random;
    use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
    use crate::protocol::record::RecordHeader;

    /// Offset, time, key, value.
    type Plain = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

    fn plain(batch: &[u8]) -> Vec<Plain> {
        let header = BatchHeader::view(batch).expect("whole");
        let mut buffer = Vec::new();
        let records = batch_records(batch, 1 << 20, &mut Codecs::default(), &mut buffer).expect("readable");
        let read = records.map(|record| {
            let record = record.expect("well formed");
            let headers: Vec<_> = record.headers().map(|header| header.key.to_string()).collect();
            assert_eq!(headers, ["h"]);
            (
                header.base_offset.get() + i64::from(record.offset_delta),
                header.base_timestamp.get() + record.timestamp_delta,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
            )
        });
        read.collect()
    }

    fn random_batch(random: &mut Random, codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions {
            codec,
            base_offset: Offset(random.below(1_000) as i64),
            leader_epoch: LeaderEpoch(3),
            producer: random.chance(1, 2).then_some((ProducerId(9), ProducerEpoch(1), 5)),
            ..BatchOptions::default()
        });
        for _ in 0..1 + random.below(20) {
            let key = [random.below(5) as u8];
            let value = vec![random.below(256) as u8; random.below(300) as usize];
            let time = 1_700_000_000_000 + random.below(10_000) as i64;
            let headers = [RecordHeader { key: "h", value: None }];
            let value = random.chance(2, 3).then_some(&value[..]);
            builder.push(time, random.chance(9, 10).then_some(&key[..]), value, &headers);
        }
        builder.finish(&mut Codecs::default())
    }

    const HORIZON: WallMs = WallMs(1_800_000_000_000);

    fn filter(batch: &[u8], emptied: Emptied, stays: &dyn Fn(&Plain) -> bool) -> Vec<u8> {
        let options = FilterOptions { horizon: HORIZON, emptied, body_bytes_max: 1 << 20 };
        let mut out = b"before".to_vec();
        filter_batch(batch, options, &mut Codecs::default(), &mut out, |offset, record| {
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            stays(&(offset.0, 0, key, value))
        })
        .expect("readable");
        out.split_off(6)
    }

    #[test]
    fn what_stays_is_as_it_was_in_every_codec() {
        let mut random = Random::new(11);
        for round in 0..600 {
            let codec = Codec::ALL[round % 5];
            let batch = random_batch(&mut random, codec);
            let mask = random.next_u64();
            let stays = |record: &Plain| mask >> (record.0 % 64) & 1 == 1 && record.2.is_some();
            let expected: Vec<Plain> = plain(&batch).into_iter().filter(stays).collect();
            let emptied = if random.chance(1, 2) { Emptied::Kept } else { Emptied::Gone };
            let filtered = filter(&batch, emptied, &stays);
            if expected.is_empty() && emptied == Emptied::Gone {
                assert!(filtered.is_empty());
                continue;
            }
            let (before, after) = (BatchHeader::view(&batch).expect("whole"), BatchHeader::view(&filtered));
            let after = after.expect("whole");
            assert_eq!(after.size_bytes(), Some(filtered.len()));
            let mut sealed = filtered.clone();
            seal(&mut sealed);
            assert!(sealed == filtered, "the checksum is right");
            assert_eq!(plain(&filtered), expected);
            assert_eq!(
                (after.base_offset(), after.last_offset()),
                (before.base_offset(), before.last_offset())
            );
            assert_eq!(
                (after.producer(), after.last_sequence()),
                (before.producer(), before.last_sequence())
            );
            assert_eq!(after.leader_epoch(), before.leader_epoch());
            let codec_after = if expected.is_empty() { Codec::None } else { codec };
            assert_eq!(after.codec_number(), codec_after.number());
            let newest = expected.iter().map(|record| record.1).max();
            assert_eq!(after.max_timestamp.get(), newest.unwrap_or(before.max_timestamp.get()));
            let has_tombstone = expected.iter().any(|record| record.3.is_none());
            assert_eq!(after.delete_horizon(), has_tombstone.then_some(HORIZON));
        }
    }

    #[test]
    fn an_unchanged_batch_keeps_its_bytes_and_a_horizon_its_time() {
        let mut random = Random::new(12);
        let mut with_horizon = 0;
        for round in 0..200 {
            let batch = random_batch(&mut random, Codec::ALL[round % 5]);
            let all = filter(&batch, Emptied::Gone, &|_| true);
            let is_tombstone = |record: &Plain| record.3.is_none();
            if !plain(&batch).iter().any(is_tombstone) {
                assert!(all == batch);
                continue;
            }
            with_horizon += 1;
            let again = filter(&all, Emptied::Gone, &|_| true);
            assert!(again == all, "a horizon is set once");
            let odd = filter(&all, Emptied::Kept, &|record| record.0 % 2 == 1);
            let expected: Vec<Plain> = plain(&batch).into_iter().filter(|record| record.0 % 2 == 1).collect();
            assert_eq!(plain(&odd), expected);
            let header = BatchHeader::view(&odd).expect("whole");
            assert_eq!(header.delete_horizon(), (!expected.is_empty()).then_some(HORIZON));
        }
        assert!(with_horizon > 50);
    }

    #[test]
    fn a_control_batch_stays_as_it_is() {
        let mut builder = BatchBuilder::new(BatchOptions { is_control: true, ..BatchOptions::default() });
        builder.push(5, Some(b"\0\0\0\x01"), None, &[RecordHeader { key: "h", value: None }]);
        let batch = builder.finish(&mut Codecs::default());
        assert!(filter(&batch, Emptied::Gone, &|_| false) == batch);
    }

    #[test]
    fn an_emptied_batch_can_be_filtered_again() {
        let batch = random_batch(&mut Random::new(13), Codec::Zstd);
        let emptied = filter(&batch, Emptied::Kept, &|_| false);
        assert_eq!(emptied.len(), HEADER_BYTES);
        assert!(filter(&emptied, Emptied::Kept, &|_| false) == emptied);
        assert!(filter(&emptied, Emptied::Gone, &|_| false).is_empty());
    }

    #[test]
    fn unreadable_records_are_an_error() {
        let mut batch = random_batch(&mut Random::new(14), Codec::None);
        header_mut(&mut batch).records_count.set(1_000);
        let options = FilterOptions { horizon: HORIZON, emptied: Emptied::Gone, body_bytes_max: 1 << 20 };
        let outcome = filter_batch(&batch, options, &mut Codecs::default(), &mut Vec::new(), |_, _| true);
        assert!(matches!(outcome, Err(BodyError::Record(_))));
    }
}
