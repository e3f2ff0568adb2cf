//! Records: keys and values of `__consumer_offsets`, Kafka's bytes.
//!
//! A key and a value each begin with a version of 2 bytes; all is big-endian, strings have a length of 2 bytes.
//!
//! | key version | key                                          | value versions read | written |
//! |-------------|----------------------------------------------|---------------------|---------|
//! | 0, 1        | group, topic, partition (4 bytes)             | 0 to 4              | 3, or 1 with an expiry |
//! | 2           | group                                        | 0 to 4              | 3       |
//! | 3 and above | of groups of other kinds                     | passed over         |         |
//!
//! Sources: Kafka's schemas OffsetCommitKey, OffsetCommitValue, GroupMetadataKey, GroupMetadataValue; KIP-915
//! (why nothing newer is written).

use crate::protocol::reader::{DecodeError, Reader};
use crate::protocol::writer::Writer;
use bytes::Bytes;

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const GROUP_VALUE: i16 = 3;
const OFFSET_VALUE: i16 = 3;
const OFFSET_VALUE_WITH_EXPIRY: i16 = 1;

/// First version of either value with compact lengths and tagged fields.
const FLEXIBLE_FROM: i16 = 4;

/// Newest version of either value.
const VALUE_MAX: i16 = 4;

/// A record to append; without a value it deletes its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKey {
    Offset {
        group: String,
        topic: String,
        partition: i32,
    },
    Group {
        group: String,
    },
    /// Of another kind of group, by its version.
    Other(i16),
}

/// Where a group is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    /// -1 when unknown.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_ms: i64,
    /// Of clients that ask for a retention of their own.
    pub expire_ms: Option<i64>,
}

/// A group as its last record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// -1 when unknown.
    pub state_ms: i64,
    pub members: Vec<MemberValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

pub fn decode_key(bytes: &[u8]) -> Result<RecordKey, DecodeError> {
    let mut reader = Reader::new(bytes, false);
    let key = match reader.i16()? {
        0 | OFFSET_KEY => RecordKey::Offset {
            group: reader.string()?.to_owned(),
            topic: reader.string()?.to_owned(),
            partition: reader.i32()?,
        },
        GROUP_KEY => RecordKey::Group { group: reader.string()?.to_owned() },
        other => return Ok(RecordKey::Other(other)),
    };
    reader.finish()?;
    Ok(key)
}

pub fn offset_record(
    group: &str,
    topic: &str,
    partition: i32,
    offset: Option<&CommittedOffset>,
) -> GroupRecord {
    let mut key = Vec::new();
    let mut writer = Writer::new(&mut key, false);
    writer.i16(OFFSET_KEY);
    writer.string(group);
    writer.string(topic);
    writer.i32(partition);
    GroupRecord { key, value: offset.map(encode_offset_value) }
}

pub fn group_record(group: &str, value: Option<&GroupValue>) -> GroupRecord {
    let mut key = Vec::new();
    let mut writer = Writer::new(&mut key, false);
    writer.i16(GROUP_KEY);
    writer.string(group);
    GroupRecord { key, value: value.map(encode_group_value) }
}

fn encode_offset_value(offset: &CommittedOffset) -> Vec<u8> {
    let mut value = Vec::new();
    let mut writer = Writer::new(&mut value, false);
    writer.i16(if offset.expire_ms.is_some() { OFFSET_VALUE_WITH_EXPIRY } else { OFFSET_VALUE });
    writer.i64(offset.offset);
    if offset.expire_ms.is_none() {
        writer.i32(offset.leader_epoch);
    }
    writer.string(&offset.metadata);
    writer.i64(offset.commit_ms);
    if let Some(expire_ms) = offset.expire_ms {
        writer.i64(expire_ms);
    }
    value
}

/// A reader behind the version, which is the second.
fn open_value(bytes: &[u8]) -> Result<(Reader<'_>, i16), DecodeError> {
    let mut reader = Reader::new(bytes, false);
    let version = reader.i16()?;
    if !(0..=VALUE_MAX).contains(&version) {
        return Err(DecodeError::Version);
    }
    Ok((Reader::new(reader.rest(), version >= FLEXIBLE_FROM), version))
}

pub fn decode_offset_value(bytes: &[u8]) -> Result<CommittedOffset, DecodeError> {
    let (mut reader, version) = open_value(bytes)?;
    let offset = CommittedOffset {
        offset: reader.i64()?,
        leader_epoch: if version >= 3 { reader.i32()? } else { -1 },
        metadata: reader.string()?.to_owned(),
        commit_ms: reader.i64()?,
        expire_ms: if version == 1 { Some(reader.i64()?).filter(|ms| *ms != -1) } else { None },
    };
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(offset)
}

fn encode_group_value(group: &GroupValue) -> Vec<u8> {
    let mut value = Vec::new();
    let mut writer = Writer::new(&mut value, false);
    writer.i16(GROUP_VALUE);
    writer.string(&group.protocol_type);
    writer.i32(group.generation);
    writer.nullable_string(group.protocol.as_deref());
    writer.nullable_string(group.leader.as_deref());
    writer.i64(group.state_ms);
    writer.array(group.members.len());
    for member in &group.members {
        writer.string(&member.id);
        writer.nullable_string(member.instance_id.as_deref());
        writer.string(&member.client_id);
        writer.string(&member.client_host);
        writer.i32(member.rebalance_timeout_ms);
        writer.i32(member.session_timeout_ms);
        writer.bytes(&member.subscription);
        writer.bytes(&member.assignment);
    }
    value
}

pub fn decode_group_value(bytes: &[u8]) -> Result<GroupValue, DecodeError> {
    let (mut reader, version) = open_value(bytes)?;
    let mut group = GroupValue {
        protocol_type: reader.string()?.to_owned(),
        generation: reader.i32()?,
        protocol: reader.nullable_string()?.map(str::to_owned),
        leader: reader.nullable_string()?.map(str::to_owned),
        state_ms: if version >= 2 { reader.i64()? } else { -1 },
        members: Vec::new(),
    };
    for _ in 0..reader.array(8)? {
        group.members.push(decode_member(&mut reader, version)?);
    }
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(group)
}

fn decode_member(reader: &mut Reader<'_>, version: i16) -> Result<MemberValue, DecodeError> {
    let id = reader.string()?.to_owned();
    let instance_id = if version >= 3 { reader.nullable_string()?.map(str::to_owned) } else { None };
    let client_id = reader.string()?.to_owned();
    let client_host = reader.string()?.to_owned();
    let rebalance_timeout_ms = if version >= 1 { Some(reader.i32()?) } else { None };
    let session_timeout_ms = reader.i32()?;
    let member = MemberValue {
        id,
        instance_id,
        client_id,
        client_host,
        // Old clients had one timeout for both.
        rebalance_timeout_ms: rebalance_timeout_ms.filter(|ms| *ms != -1).unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: Bytes::copy_from_slice(reader.bytes()?),
        assignment: Bytes::copy_from_slice(reader.bytes()?),
    };
    reader.skip_tagged_fields()?;
    Ok(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset() -> CommittedOffset {
        CommittedOffset { offset: 42, leader_epoch: 7, metadata: "m".into(), commit_ms: 258, expire_ms: None }
    }

    fn group() -> GroupValue {
        GroupValue {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("a".into()),
            state_ms: 5,
            members: vec![MemberValue {
                id: "a".into(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 45_000,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"as"),
            }],
        }
    }

    /// Bytes written out by hand from the schemas.
    #[test]
    fn an_offset_record_has_kafkas_bytes() {
        let record = offset_record("g", "t", 9, Some(&offset()));
        assert_eq!(record.key, [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 9]);
        let value = [0, 3, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 7, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(record.value.as_deref(), Some(&value[..]));
        assert_eq!(decode_offset_value(&value), Ok(offset()));
        assert_eq!(offset_record("g", "t", 9, None).value, None);
        let key = RecordKey::Offset { group: "g".into(), topic: "t".into(), partition: 9 };
        assert_eq!(decode_key(&record.key), Ok(key));
    }

    #[test]
    fn older_and_newer_offset_values_are_read() {
        let expiring = CommittedOffset { leader_epoch: -1, expire_ms: Some(259), ..offset() };
        let written = offset_record("g", "t", 9, Some(&expiring)).value.expect("has one");
        let v1 = [0, 1, 0, 0, 0, 0, 0, 0, 0, 42, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 1, 3];
        assert_eq!(written, v1);
        let bare = CommittedOffset { leader_epoch: -1, ..offset() };
        let v0 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 42, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 1, 2];
        let v4 = [0, 4, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 7, 2, b'm', 0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 1, 9];
        for (bytes, expected) in [(&v0[..], bare), (&v1, expiring), (&v4, offset())] {
            assert_eq!(decode_offset_value(bytes), Ok(expected));
            for end in 0..bytes.len() {
                assert!(decode_offset_value(&bytes[..end]).is_err());
            }
        }
        assert_eq!(decode_offset_value(&[0, 5, 0]), Err(DecodeError::Version));
    }

    #[test]
    fn a_group_record_has_kafkas_bytes() {
        let record = group_record("g", Some(&group()));
        assert_eq!(record.key, [0, 2, 0, 1, b'g']);
        let value = [
            &[0, 3, 0, 8][..],
            b"consumer",
            &[0, 0, 0, 3, 0, 5],
            b"range",
            &[0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1],
            &[0, 1, b'a', 0xff, 0xff, 0, 1, b'c', 0, 2, b'/', b'h', 0, 4, 0x93, 0xe0, 0, 0, 0xaf, 0xc8],
            &[0, 0, 0, 3, b's', b'u', b'b', 0, 0, 0, 2, b'a', b's'],
        ]
        .concat();
        assert_eq!(record.value.as_deref(), Some(&value[..]));
        assert_eq!(decode_group_value(&value), Ok(group()));
        assert_eq!(decode_key(&record.key), Ok(RecordKey::Group { group: "g".into() }));
        for end in 0..value.len() {
            assert!(decode_group_value(&value[..end]).is_err());
        }
    }

    #[test]
    fn keys_of_other_groups_are_told_apart() {
        assert_eq!(decode_key(&[0, 3, 1, 2, 3]), Ok(RecordKey::Other(3)));
        assert_eq!(decode_key(&[0]), Err(DecodeError::Truncated));
        assert_eq!(decode_key(&[0, 2, 0, 1, b'g', 0]), Err(DecodeError::Trailing));
    }
}
