//! Batch body: the records of a batch, whatever their codec, and the change to another one.
//!
//! Promises: nothing above the caller's cap is decompressed; a body whose records don't agree with its
//!           header is an error.

use crate::protocol::compression::{Codec, Codecs, CompressionError};
use crate::protocol::reader::DecodeError;
use crate::protocol::record::{Records, records};
use crate::protocol::record_batch::{BatchHeader, HEADER_BYTES, LOG_OVERHEAD_BYTES, header_mut, seal};
use std::fmt;

/// Why a batch's records can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    UnknownCodec,
    Compression(CompressionError),
    Record(DecodeError),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCodec => f.write_str("unknown compression codec"),
            Self::Compression(error) => error.fmt(f),
            Self::Record(error) => write!(f, "malformed record: {error}"),
        }
    }
}

impl std::error::Error for BodyError {}

/// The records of `batch`, which begins with a whole one. A compressed body is decompressed into `buffer`.
pub fn batch_records<'a>(
    batch: &'a [u8],
    limit: usize,
    codecs: &mut Codecs,
    buffer: &'a mut Vec<u8>,
) -> Result<Records<'a>, BodyError> {
    let header = BatchHeader::view(batch).ok_or(BodyError::Record(DecodeError::Truncated))?;
    let body = uncompressed_body(header, batch, limit, codecs, buffer)?;
    Ok(records(header.records_count.get(), body))
}

/// The places of the records of `batch` that have no key, up to `places_max` of them, and their number.
/// Every record is walked.
pub fn records_without_key(
    batch: &[u8],
    places_max: usize,
    limit: usize,
    codecs: &mut Codecs,
) -> Result<(Vec<i32>, usize), BodyError> {
    let mut buffer = Vec::new();
    let (mut places, mut count) = (Vec::new(), 0);
    for (place, record) in (0..).zip(batch_records(batch, limit, codecs, &mut buffer)?) {
        if record.map_err(BodyError::Record)?.key.is_none() {
            count += 1;
            if places.len() < places_max {
                places.push(place);
            }
        }
    }
    Ok((places, count))
}

/// `batch` with its records in `codec`, header and checksum corrected. Every record is walked.
///
/// Precondition: `batch` is exactly one whole batch.
pub fn recompress(
    batch: &[u8],
    codec: Codec,
    limit: usize,
    codecs: &mut Codecs,
) -> Result<Vec<u8>, BodyError> {
    let header = BatchHeader::view(batch).ok_or(BodyError::Record(DecodeError::Truncated))?;
    let mut buffer = Vec::new();
    let body = uncompressed_body(header, batch, limit, codecs, &mut buffer)?;
    for record in records(header.records_count.get(), body) {
        record.map_err(BodyError::Record)?;
    }
    let mut out = batch[..HEADER_BYTES].to_vec();
    codecs.compress(codec, body, &mut out);
    let length = i32::try_from(out.len() - LOG_OVERHEAD_BYTES).expect("the cap is below 2 GiB");
    let header = header_mut(&mut out);
    header.batch_length.set(length);
    header.attributes.set(header.attributes.get() & !7 | i16::from(codec.number()));
    seal(&mut out);
    Ok(out)
}

fn uncompressed_body<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    limit: usize,
    codecs: &mut Codecs,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], BodyError> {
    let size_bytes = header.size_bytes().ok_or(BodyError::Record(DecodeError::Length))?;
    let body = batch.get(HEADER_BYTES..size_bytes).ok_or(BodyError::Record(DecodeError::Truncated))?;
    match Codec::from_number(header.codec_number()).ok_or(BodyError::UnknownCodec)? {
        Codec::None => Ok(body),
        codec => {
            buffer.clear();
            codecs.decompress(codec, body, limit, buffer).map_err(BodyError::Compression)?;
            Ok(buffer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::WallMs;
    use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
    use crate::protocol::record_batch::{set_log_append_time, validate};

    fn batch(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        for number in 0..50 {
            builder.push(1000 + number, Some(b"key"), Some(&[b'v'; 100]), &[]);
        }
        builder.finish(&mut Codecs::default())
    }

    fn offsets(batch: &[u8]) -> Vec<i32> {
        let mut buffer = Vec::new();
        let records = batch_records(batch, 1 << 20, &mut Codecs::default(), &mut buffer).expect("readable");
        records.map(|record| record.expect("well formed").offset_delta).collect()
    }

    #[test]
    fn a_batch_keeps_its_records_through_every_codec() {
        let mut codecs = Codecs::default();
        for from in Codec::ALL {
            for to in Codec::ALL {
                let before = batch(from);
                let after = recompress(&before, to, 1 << 20, &mut codecs).expect("readable");
                assert_eq!(after, batch(to), "{from:?} {to:?}");
                assert_eq!(validate(&after).map(BatchHeader::codec_number), Ok(to.number()));
                assert_eq!(offsets(&after), (0..50).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn records_without_key_are_found_by_their_places() {
        for codec in Codec::ALL {
            let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
            for key in [None, Some(&b"k"[..]), None, Some(b""), None] {
                builder.push(1000, key, Some(b"v"), &[]);
            }
            let batch = builder.finish(&mut Codecs::default());
            for (places_max, places) in [(2, vec![0, 2]), (9, vec![0, 2, 4])] {
                let found = records_without_key(&batch, places_max, 1 << 20, &mut Codecs::default());
                assert_eq!(found, Ok((places, 3)), "{codec:?}");
            }
        }
    }

    #[test]
    fn a_header_that_disagrees_with_its_records_is_noticed() {
        let mut codecs = Codecs::default();
        for codec in Codec::ALL {
            let mut lying = batch(codec);
            header_mut(&mut lying).records_count.set(51);
            let outcome = recompress(&lying, Codec::Zstd, 1 << 20, &mut codecs);
            assert_eq!(outcome, Err(BodyError::Record(DecodeError::Truncated)), "{codec:?}");
            header_mut(&mut lying).records_count.set(49);
            let outcome = recompress(&lying, Codec::Zstd, 1 << 20, &mut codecs);
            assert_eq!(outcome, Err(BodyError::Record(DecodeError::Trailing)), "{codec:?}");
        }
    }

    #[test]
    fn log_append_time_keeps_the_checksum_right() {
        let mut stamped = batch(Codec::Lz4);
        set_log_append_time(&mut stamped, WallMs(77));
        let header = BatchHeader::view(&stamped).expect("whole");
        assert!(header.is_log_append_time());
        assert_eq!(header.max_timestamp.get(), 77);
        let mut again = stamped.clone();
        seal(&mut again);
        assert_eq!(again, stamped);
    }
}
