//! Responses: the few fields of Produce and Fetch answers that a load needs, and the simulated clients of
//! tests/sim, which share this file.

use corelane::protocol::api_key::ApiKey;
use corelane::protocol::reader::{DecodeError, Reader};

/// Version of the Produce requests: flexible, named topics.
pub const PRODUCE_VERSION: i16 = 9;

/// Version of the Fetch requests: the last that names topics, flexible.
pub const FETCH_VERSION: i16 = 12;

/// One partition of a Produce answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    pub partition: i32,
    pub error: i16,
    pub base_offset: i64,
}

/// One partition of a Fetch answer.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    pub partition: i32,
    pub error: i16,
    pub high_watermark: i64,
    pub records: &'a [u8],
}

/// Correlation id of an answer, and what follows its header.
fn header(frame: &[u8], key: ApiKey, version: i16) -> Result<(i32, Reader<'_>), DecodeError> {
    let mut reader = Reader::new(frame, key.response_header_version(version) > 0);
    let correlation_id = reader.i32()?;
    reader.skip_tagged_fields()?;
    Ok((correlation_id, Reader::new(reader.rest(), key.is_flexible(version))))
}

/// Gives each partition of a Produce answer to `each`; returns the correlation id.
pub fn read_produce(frame: &[u8], mut each: impl FnMut(Produced)) -> Result<i32, DecodeError> {
    let (correlation_id, mut reader) = header(frame, ApiKey::Produce, PRODUCE_VERSION)?;
    for _ in 0..reader.array(2)? {
        reader.string()?;
        for _ in 0..reader.array(31)? {
            let (partition, error, base_offset) = (reader.i32()?, reader.i16()?, reader.i64()?);
            reader.take(16)?;
            for _ in 0..reader.array(6)? {
                reader.i32()?;
                reader.nullable_string()?;
                reader.skip_tagged_fields()?;
            }
            reader.nullable_string()?;
            reader.skip_tagged_fields()?;
            each(Produced { partition, error, base_offset });
        }
        reader.skip_tagged_fields()?;
    }
    reader.i32()?;
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(correlation_id)
}

/// Gives each partition of a Fetch answer to `each`; returns the correlation id and the answer's own error.
pub fn read_fetch<'a>(frame: &'a [u8], mut each: impl FnMut(Fetched<'a>)) -> Result<(i32, i16), DecodeError> {
    let (correlation_id, mut reader) = header(frame, ApiKey::Fetch, FETCH_VERSION)?;
    reader.i32()?;
    let error_code = reader.i16()?;
    reader.i32()?;
    for _ in 0..reader.array(2)? {
        reader.string()?;
        for _ in 0..reader.array(37)? {
            let (partition, error, high_watermark) = (reader.i32()?, reader.i16()?, reader.i64()?);
            reader.take(16)?;
            for _ in 0..reader.nullable_array(17)?.unwrap_or(0) {
                reader.take(16)?;
                reader.skip_tagged_fields()?;
            }
            reader.i32()?;
            let records = reader.nullable_bytes()?.unwrap_or_default();
            reader.skip_tagged_fields()?;
            each(Fetched { partition, error, high_watermark, records });
        }
        reader.skip_tagged_fields()?;
    }
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok((correlation_id, error_code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane::base::ids::{CorrelationId, PartitionId, TopicId};
    use corelane::protocol::error_code::ErrorCode;
    use corelane::protocol::fetch_response::{
        FetchFrame, FetchPartitionResponse, FetchResponse, FetchResponseHead,
    };
    use corelane::protocol::header::begin_response;
    use corelane::protocol::produce_response::{ProducePartitionResponse, ProduceResponse};

    #[test]
    fn a_produce_answer_is_read() {
        let mut out = Vec::new();
        begin_response(&mut out, ApiKey::Produce, PRODUCE_VERSION, CorrelationId(9));
        let mut response = ProduceResponse::new(&mut out, PRODUCE_VERSION, 1);
        response.topic("t", TopicId::NONE, 1);
        let failed = ProducePartitionResponse::failed(PartitionId(3), ErrorCode::CorruptMessage, Some("no"));
        response.partition(&failed);
        response.finish(0);
        let mut found = Vec::new();
        assert_eq!(read_produce(&out[4..], |produced| found.push(produced)), Ok(9));
        assert_eq!(found, [Produced { partition: 3, error: 2, base_offset: -1 }]);
        for end in 4..out.len() {
            assert!(read_produce(&out[4..end], |_| {}).is_err());
        }
    }

    #[test]
    fn a_fetch_answer_is_read() {
        let head = FetchResponseHead { throttle_ms: 0, error: ErrorCode::None, session_id: 0 };
        let mut response =
            FetchResponse::new(FetchFrame::default(), FETCH_VERSION, CorrelationId(9), head, 1);
        response.topic("t", TopicId::NONE, 1);
        let mut partition = FetchPartitionResponse::failed(PartitionId(3), ErrorCode::None);
        (partition.high_watermark, partition.records_bytes) = (8, 5);
        response.partition(&partition);
        let frame = response.finish();
        let (front, back) = frame.bytes.split_at(frame.holes[0].at);
        let bytes = [front, b"12345", back].concat();
        let mut found = Vec::new();
        let outcome = read_fetch(&bytes[4..], |fetched| {
            found.push((fetched.partition, fetched.high_watermark, fetched.records.to_vec()));
        });
        assert_eq!(outcome, Ok((9, 0)));
        assert_eq!(found, [(3, 8, b"12345".to_vec())]);
    }
}
