//! Fetch request. Key 1, versions 4 to 18, as a view over its body.
//!
//! Versions:  v5 log start offset of followers; v7 sessions (KIP-227); v9 leader epoch (KIP-320); v11 rack
//!            (KIP-392); v12 flexible, last fetched epoch (KIP-595); v13 topic ids (KIP-516); v15 replica
//!            state (KIP-903); v17 directory id (KIP-853); v18 high watermark of followers (KIP-1166).
//! Sources:   message schema FetchRequest.

use crate::base::ids::{PartitionId, TopicId};
use crate::protocol::reader::{DecodeError, Reader};

pub const VERSION_MIN: i16 = 4;
pub const VERSION_MAX: i16 = 18;

/// First version with compact lengths and tagged fields.
pub(in crate::protocol) const FLEXIBLE_FROM: i16 = 12;

/// First version that names topics by their id.
pub(in crate::protocol) const TOPIC_ID_FROM: i16 = 13;

/// First version with sessions.
const SESSION_FROM: i16 = 7;

/// First version that names the replica in a tagged field.
const REPLICA_STATE_FROM: i16 = 15;

/// A Fetch request whose whole body was walked once, so that iterating can't fail.
#[derive(Clone, Copy, Debug)]
pub struct FetchRequest<'a> {
    pub version: i16,
    pub cluster_id: Option<&'a str>,
    /// -1 for consumers. Any client can write any number here: it proves nothing.
    pub replica_id: i32,
    /// -1 when unknown.
    pub replica_epoch: i64,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    /// 0 read uncommitted, 1 read committed.
    pub isolation_level: i8,
    /// 0 outside a session.
    pub session_id: i32,
    /// -1 outside a session, 0 to open one.
    pub session_epoch: i32,
    pub rack_id: &'a str,
    topics_count: usize,
    /// From the first topic on.
    topics: Reader<'a>,
    forgotten_count: usize,
    /// From the first forgotten topic on.
    forgotten: Reader<'a>,
}

/// One topic of the request: named by `name` below version 13, by `id` from there on.
#[derive(Clone, Copy, Debug)]
pub struct FetchTopic<'a> {
    pub name: &'a str,
    pub id: TopicId,
    version: i16,
    partitions_count: usize,
    partitions: Reader<'a>,
}

/// One partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    pub partition: PartitionId,
    /// -1 when the client doesn't know one.
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// Followers only; -1 otherwise.
    pub last_fetched_epoch: i32,
    /// Followers only; -1 otherwise.
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
    /// Followers only; all zero otherwise.
    pub replica_directory_id: TopicId,
    /// Followers only; `i64::MAX` when unknown.
    pub high_watermark: i64,
}

/// Partitions of one topic that leave the session.
#[derive(Clone, Copy, Debug)]
pub struct ForgottenTopic<'a> {
    pub name: &'a str,
    pub id: TopicId,
    partitions_count: usize,
    partitions: Reader<'a>,
}

impl<'a> FetchRequest<'a> {
    pub fn parse(version: i16, body: &'a [u8]) -> Result<Self, DecodeError> {
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(DecodeError::Version);
        }
        let mut reader = Reader::new(body, version >= FLEXIBLE_FROM);
        let mut request = Self::read_head(version, &mut reader)?;
        request.topics_count = reader.array(2)?;
        request.topics = reader;
        for _ in 0..request.topics_count {
            read_topic(version, &mut reader)?;
        }
        if version >= SESSION_FROM {
            request.forgotten_count = reader.array(2)?;
            request.forgotten = reader;
            for _ in 0..request.forgotten_count {
                read_forgotten(version, &mut reader)?;
            }
        }
        if version >= 11 {
            request.rack_id = reader.string()?;
        }
        reader.tagged_fields(|tag, field| request.read_tagged(tag, field))?;
        reader.finish()?;
        Ok(request)
    }

    /// The fields in front of the topics; the others have their defaults.
    fn read_head(version: i16, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let has_session = version >= SESSION_FROM;
        Ok(Self {
            version,
            cluster_id: None,
            replica_id: if version < REPLICA_STATE_FROM { reader.i32()? } else { -1 },
            replica_epoch: -1,
            max_wait_ms: reader.i32()?,
            min_bytes: reader.i32()?,
            max_bytes: reader.i32()?,
            isolation_level: reader.i8()?,
            session_id: if has_session { reader.i32()? } else { 0 },
            session_epoch: if has_session { reader.i32()? } else { -1 },
            rack_id: "",
            topics_count: 0,
            topics: *reader,
            forgotten_count: 0,
            forgotten: *reader,
        })
    }

    fn read_tagged(&mut self, tag: u32, field: &mut Reader<'a>) -> Result<(), DecodeError> {
        match tag {
            0 => self.cluster_id = field.nullable_string()?,
            1 if self.version >= REPLICA_STATE_FROM => {
                self.replica_id = field.i32()?;
                self.replica_epoch = field.i64()?;
                field.skip_tagged_fields()?;
            }
            _ => {}
        }
        Ok(())
    }

    pub fn topics_count(&self) -> usize {
        self.topics_count
    }

    pub fn topics(&self) -> impl ExactSizeIterator<Item = FetchTopic<'a>> + use<'a> {
        let (version, mut reader) = (self.version, self.topics);
        (0..self.topics_count)
            .map(move |_| read_topic(version, &mut reader).expect("parse walked these bytes"))
    }

    pub fn forgotten_topics(&self) -> impl ExactSizeIterator<Item = ForgottenTopic<'a>> + use<'a> {
        let (version, mut reader) = (self.version, self.forgotten);
        (0..self.forgotten_count)
            .map(move |_| read_forgotten(version, &mut reader).expect("parse walked these bytes"))
    }
}

impl<'a> FetchTopic<'a> {
    pub fn partitions_count(&self) -> usize {
        self.partitions_count
    }

    pub fn partitions(&self) -> impl ExactSizeIterator<Item = FetchPartition> + use<'a> {
        let (version, mut reader) = (self.version, self.partitions);
        (0..self.partitions_count)
            .map(move |_| read_partition(version, &mut reader).expect("parse walked these bytes"))
    }
}

impl<'a> ForgottenTopic<'a> {
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = PartitionId> + use<'a> {
        let mut reader = self.partitions;
        (0..self.partitions_count).map(move |_| PartitionId(reader.i32().expect("parse walked these bytes")))
    }
}

fn read_topic_name<'a>(version: i16, reader: &mut Reader<'a>) -> Result<(&'a str, TopicId), DecodeError> {
    if version >= TOPIC_ID_FROM { Ok(("", reader.uuid()?)) } else { Ok((reader.string()?, TopicId::NONE)) }
}

/// Reads one topic and leaves the reader behind it.
fn read_topic<'a>(version: i16, reader: &mut Reader<'a>) -> Result<FetchTopic<'a>, DecodeError> {
    let (name, id) = read_topic_name(version, reader)?;
    let partitions_count = reader.array(16)?;
    let partitions = *reader;
    for _ in 0..partitions_count {
        read_partition(version, reader)?;
    }
    reader.skip_tagged_fields()?;
    Ok(FetchTopic { name, id, version, partitions_count, partitions })
}

fn read_partition(version: i16, reader: &mut Reader<'_>) -> Result<FetchPartition, DecodeError> {
    let mut partition = FetchPartition {
        partition: PartitionId(reader.i32()?),
        current_leader_epoch: if version >= 9 { reader.i32()? } else { -1 },
        fetch_offset: reader.i64()?,
        last_fetched_epoch: if version >= 12 { reader.i32()? } else { -1 },
        log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
        partition_max_bytes: reader.i32()?,
        replica_directory_id: TopicId::NONE,
        high_watermark: i64::MAX,
    };
    reader.tagged_fields(|tag, field| {
        match tag {
            0 if version >= 17 => partition.replica_directory_id = field.uuid()?,
            1 if version >= 18 => partition.high_watermark = field.i64()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(partition)
}

fn read_forgotten<'a>(version: i16, reader: &mut Reader<'a>) -> Result<ForgottenTopic<'a>, DecodeError> {
    let (name, id) = read_topic_name(version, reader)?;
    let partitions_count = reader.array(4)?;
    let partitions = *reader;
    for _ in 0..partitions_count {
        reader.i32()?;
    }
    reader.skip_tagged_fields()?;
    Ok(ForgottenTopic { name, id, partitions_count, partitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 4: consumer, 500 ms, 1 byte, 64 KiB, read committed, topic "t", partition 3 from 9, 4 KiB.
    const OLD: &[u8] = &[
        0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0xf4, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1,
        0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0x10, 0,
    ];
    /// Version 18 of the same, in session 7 at epoch 2, forgetting partition 5, with cluster id "c".
    const NEW: &[u8] = &[
        0, 0, 1, 0xf4, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 2, 2, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
        5, 5, 5, 5, 5, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0, 0, 0, 2, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6,
        6, 6, 2, 0, 0, 0, 5, 0, 1, 2, 0, 2, 2, b'c', 1, 13, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0,
    ];

    #[test]
    fn both_encodings_give_the_same_partition() {
        let old = FetchRequest::parse(4, OLD).expect("well formed");
        assert_eq!((old.replica_id, old.max_wait_ms, old.min_bytes, old.max_bytes), (-1, 500, 1, 65536));
        assert_eq!((old.isolation_level, old.session_id, old.session_epoch), (1, 0, -1));
        let new = FetchRequest::parse(18, NEW).expect("well formed");
        assert_eq!((new.replica_id, new.replica_epoch, new.cluster_id), (1, 8, Some("c")));
        assert_eq!((new.session_id, new.session_epoch, new.rack_id), (7, 2, ""));
        for (request, name, id, epoch) in [(old, "t", TopicId::NONE, -1), (new, "", TopicId([5; 16]), 4)] {
            let topics: Vec<_> = request.topics().collect();
            assert_eq!((topics.len(), topics[0].name, topics[0].id), (1, name, id));
            let expected = FetchPartition {
                partition: PartitionId(3),
                current_leader_epoch: epoch,
                fetch_offset: 9,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                partition_max_bytes: 4096,
                replica_directory_id: TopicId::NONE,
                high_watermark: i64::MAX,
            };
            assert_eq!(topics[0].partitions().collect::<Vec<_>>(), [expected]);
        }
        let forgotten: Vec<_> =
            new.forgotten_topics().map(|topic| (topic.id, topic.partitions().collect())).collect();
        assert_eq!(forgotten, [(TopicId([6; 16]), vec![PartitionId(5)])]);
        assert_eq!(old.forgotten_topics().len(), 0);
    }

    #[test]
    fn every_truncation_and_every_tail_is_refused() {
        for (version, body) in [(4, OLD), (18, NEW)] {
            for end in 0..body.len() {
                assert!(FetchRequest::parse(version, &body[..end]).is_err(), "{version} {end}");
            }
            let tail = [body, &[0]].concat();
            assert_eq!(FetchRequest::parse(version, &tail).err(), Some(DecodeError::Trailing));
        }
        assert_eq!(FetchRequest::parse(3, OLD).err(), Some(DecodeError::Version));
        assert_eq!(FetchRequest::parse(19, NEW).err(), Some(DecodeError::Version));
    }
}
