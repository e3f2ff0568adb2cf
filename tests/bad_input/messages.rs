//! Messages: Produce and Fetch as a client writes and reads them, in any version.

use super::wire::{Wire, answer_body, request_frame};
use corelane::base::checksum::crc32c;
use corelane::base::ids::TopicId;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::{Codec, Codecs};
use corelane::protocol::reader::Reader;
use corelane::protocol::record_batch::{BatchHeader, CRC_START};
use corelane::protocol::writer::Writer;
use zerocopy::FromBytes;

/// A topic by its name, or by its id in the versions that have one.
#[derive(Clone, Copy, Debug)]
pub struct Topic<'a> {
    pub name: &'a str,
    pub id: TopicId,
}

impl<'a> Topic<'a> {
    pub fn named(name: &'a str) -> Self {
        Self { name, id: TopicId::NONE }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("the clock is set").as_millis() as i64
}

/// A batch of one record per value, of now.
pub fn batch(values: &[&[u8]]) -> Vec<u8> {
    batch_of(BatchOptions::default(), Some(b"key"), values, now_ms())
}

pub fn batch_of(options: BatchOptions, key: Option<&[u8]>, values: &[&[u8]], timestamp_ms: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(options);
    for value in values {
        builder.push(timestamp_ms, key, Some(value), &[]);
    }
    builder.finish(&mut Codecs::default())
}

pub fn compressed(codec: Codec, values: &[&[u8]]) -> Vec<u8> {
    batch_of(BatchOptions { codec, ..BatchOptions::default() }, Some(b"key"), values, now_ms())
}

/// `batch` with a changed header and a right checksum.
pub fn changed(mut batch: Vec<u8>, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let (header, _) = BatchHeader::mut_from_prefix(&mut batch).expect("a batch");
    change(header);
    sealed(batch)
}

/// `batch` with a right checksum.
pub fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c(&batch[CRC_START..]);
    batch[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
    batch
}

pub fn produce_frame(version: i16, acks: i16, topic: Topic<'_>, parts: &[(i32, Option<&[u8]>)]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, version >= 9);
    writer.nullable_string(None);
    writer.i16(acks);
    writer.i32(30_000);
    writer.array(1);
    write_topic(&mut writer, version >= 13, topic);
    writer.array(parts.len());
    for (partition, records) in parts {
        writer.i32(*partition);
        writer.nullable_bytes(*records);
        writer.no_tagged_fields();
    }
    writer.no_tagged_fields();
    writer.no_tagged_fields();
    request_frame(ApiKey::Produce.number(), version, 1, &body)
}

fn write_topic(writer: &mut Writer<'_>, by_id: bool, topic: Topic<'_>) {
    if by_id {
        writer.uuid(topic.id);
    } else {
        writer.string(topic.name);
    }
}

/// One partition of a Produce answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    pub partition: i32,
    pub error: i16,
    pub base_offset: i64,
    /// Batch indexes of the records at fault.
    pub record_errors: Vec<i32>,
    pub message: Option<String>,
}

pub fn read_produce(version: i16, answer: &[u8]) -> Vec<Produced> {
    let body = answer_body(ApiKey::Produce, version, answer);
    let mut reader = Reader::new(body, version >= 9);
    let mut found = Vec::new();
    let mut read = || {
        for _ in 0..reader.array(2)? {
            if version >= 13 {
                reader.take(16).map(drop)?
            } else {
                reader.string().map(drop)?
            }
            for _ in 0..reader.array(22)? {
                let (partition, error, base_offset) = (reader.i32()?, reader.i16()?, reader.i64()?);
                reader.take(if version >= 5 { 16 } else { 8 })?;
                let (mut record_errors, mut message) = (Vec::new(), None);
                if version >= 8 {
                    for _ in 0..reader.array(5)? {
                        record_errors.push(reader.i32()?);
                        reader.nullable_string()?;
                        reader.skip_tagged_fields()?;
                    }
                    message = reader.nullable_string()?.map(str::to_owned);
                }
                reader.skip_tagged_fields()?;
                found.push(Produced { partition, error, base_offset, record_errors, message });
            }
            reader.skip_tagged_fields()?;
        }
        reader.i32()?;
        reader.skip_tagged_fields()?;
        reader.finish()
    };
    read().expect("a well-formed Produce answer");
    found
}

/// Produces to one partition and returns its answer.
pub fn produce(wire: &mut Wire, version: i16, topic: Topic<'_>, partition: i32, records: &[u8]) -> Produced {
    wire.send(&produce_frame(version, -1, topic, &[(partition, Some(records))]));
    let mut found = read_produce(version, &wire.answer());
    assert_eq!(found.len(), 1, "one partition was asked");
    found.remove(0)
}

/// What a Fetch asks, besides its partitions.
#[derive(Clone, Copy, Debug)]
pub struct FetchHead {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub session_id: i32,
    pub session_epoch: i32,
}

impl Default for FetchHead {
    fn default() -> Self {
        Self { max_wait_ms: 0, min_bytes: 0, max_bytes: 1 << 20, session_id: 0, session_epoch: -1 }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct FetchPart {
    pub partition: i32,
    pub leader_epoch: i32,
    pub offset: i64,
    pub max_bytes: i32,
}

impl FetchPart {
    pub fn at(partition: i32, offset: i64) -> Self {
        Self { partition, leader_epoch: -1, offset, max_bytes: 1 << 20 }
    }
}

pub fn fetch_frame(version: i16, head: FetchHead, topic: Topic<'_>, parts: &[FetchPart]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, version >= 12);
    if version < 15 {
        writer.i32(-1);
    }
    writer.i32(head.max_wait_ms);
    writer.i32(head.min_bytes);
    writer.i32(head.max_bytes);
    writer.i8(0);
    writer.i32(head.session_id);
    writer.i32(head.session_epoch);
    writer.array(1);
    write_topic(&mut writer, version >= 13, topic);
    writer.array(parts.len());
    for part in parts {
        writer.i32(part.partition);
        writer.i32(part.leader_epoch);
        writer.i64(part.offset);
        if version >= 12 {
            writer.i32(-1);
        }
        writer.i64(-1);
        writer.i32(part.max_bytes);
        writer.no_tagged_fields();
    }
    writer.no_tagged_fields();
    writer.array(0);
    writer.string("");
    writer.no_tagged_fields();
    request_frame(ApiKey::Fetch.number(), version, 1, &body)
}

/// A Fetch answer of version 11 or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchAnswer {
    pub error: i16,
    pub session_id: i32,
    pub partitions: Vec<Fetched>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub partition: i32,
    pub error: i16,
    pub records: Vec<u8>,
}

pub fn read_fetch(version: i16, answer: &[u8]) -> FetchAnswer {
    let body = answer_body(ApiKey::Fetch, version, answer);
    let mut reader = Reader::new(body, version >= 12);
    let mut found = FetchAnswer { error: 0, session_id: 0, partitions: Vec::new() };
    let mut read = || {
        reader.i32()?;
        (found.error, found.session_id) = (reader.i16()?, reader.i32()?);
        for _ in 0..reader.array(2)? {
            if version >= 13 {
                reader.take(16).map(drop)?
            } else {
                reader.string().map(drop)?
            }
            for _ in 0..reader.array(32)? {
                let (partition, error) = (reader.i32()?, reader.i16()?);
                reader.take(24)?;
                for _ in 0..reader.nullable_array(16)?.unwrap_or(0) {
                    reader.take(16)?;
                    reader.skip_tagged_fields()?;
                }
                reader.i32()?;
                let records = reader.nullable_bytes()?.unwrap_or_default().to_vec();
                reader.skip_tagged_fields()?;
                found.partitions.push(Fetched { partition, error, records });
            }
            reader.skip_tagged_fields()?;
        }
        reader.skip_tagged_fields()?;
        reader.finish()
    };
    read().expect("a well-formed Fetch answer");
    found
}

/// Fetches version 12 with one partition and returns its answer.
pub fn fetch(wire: &mut Wire, head: FetchHead, topic: Topic<'_>, part: FetchPart) -> FetchAnswer {
    wire.send(&fetch_frame(12, head, topic, &[part]));
    read_fetch(12, &wire.answer())
}
