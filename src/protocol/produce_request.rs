//! Produce request. Key 0, versions 3 to 13, as a view over its body.
//!
//! Versions:  v3 record batches of magic 2; v7 zstd (KIP-110); v9 flexible; v13 topic ids (KIP-516).
//! Sources:   message schema ProduceRequest.

use crate::base::ids::{PartitionId, TopicId};
use crate::protocol::reader::{DecodeError, Reader};

pub const VERSION_MIN: i16 = 3;
pub const VERSION_MAX: i16 = 13;

/// First version with compact lengths and tagged fields.
pub(in crate::protocol) const FLEXIBLE_FROM: i16 = 9;

/// First version that names topics by their id.
pub(in crate::protocol) const TOPIC_ID_FROM: i16 = 13;

/// A Produce request whose whole body was walked once, so that iterating can't fail.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRequest<'a> {
    pub version: i16,
    pub transactional_id: Option<&'a str>,
    /// 0, 1 or -1 (all); other values are sent by nobody and answered with code 21.
    pub acks: i16,
    pub timeout_ms: i32,
    topics_count: usize,
    /// From the first topic on.
    topics: Reader<'a>,
}

/// One topic of the request: named by `name` below version 13, by `id` from there on.
#[derive(Clone, Copy, Debug)]
pub struct ProduceTopic<'a> {
    pub name: &'a str,
    pub id: TopicId,
    partitions_count: usize,
    partitions: Reader<'a>,
}

/// One partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducePartition<'a> {
    pub partition: PartitionId,
    /// Record batches, unchecked.
    pub records: Option<&'a [u8]>,
}

impl<'a> ProduceRequest<'a> {
    pub fn parse(version: i16, body: &'a [u8]) -> Result<Self, DecodeError> {
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(DecodeError::Version);
        }
        let mut reader = Reader::new(body, version >= FLEXIBLE_FROM);
        let transactional_id = reader.nullable_string()?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topics_count = reader.array(2)?;
        let topics = reader;
        for _ in 0..topics_count {
            read_topic(version, &mut reader)?;
        }
        reader.skip_tagged_fields()?;
        reader.finish()?;
        Ok(Self { version, transactional_id, acks, timeout_ms, topics_count, topics })
    }

    pub fn topics_count(&self) -> usize {
        self.topics_count
    }

    pub fn topics(&self) -> impl ExactSizeIterator<Item = ProduceTopic<'a>> + use<'a> {
        let (version, mut reader) = (self.version, self.topics);
        (0..self.topics_count)
            .map(move |_| read_topic(version, &mut reader).expect("parse walked these bytes"))
    }
}

impl<'a> ProduceTopic<'a> {
    pub fn partitions_count(&self) -> usize {
        self.partitions_count
    }

    pub fn partitions(&self) -> impl ExactSizeIterator<Item = ProducePartition<'a>> + use<'a> {
        let mut reader = self.partitions;
        (0..self.partitions_count)
            .map(move |_| read_partition(&mut reader).expect("parse walked these bytes"))
    }
}

/// Reads one topic and leaves the reader behind it.
fn read_topic<'a>(version: i16, reader: &mut Reader<'a>) -> Result<ProduceTopic<'a>, DecodeError> {
    let has_id = version >= TOPIC_ID_FROM;
    let name = if has_id { "" } else { reader.string()? };
    let id = if has_id { reader.uuid()? } else { TopicId::NONE };
    let partitions_count = reader.array(5)?;
    let partitions = *reader;
    for _ in 0..partitions_count {
        read_partition(reader)?;
    }
    reader.skip_tagged_fields()?;
    Ok(ProduceTopic { name, id, partitions_count, partitions })
}

fn read_partition<'a>(reader: &mut Reader<'a>) -> Result<ProducePartition<'a>, DecodeError> {
    let partition = PartitionId(reader.i32()?);
    let records = reader.nullable_bytes()?;
    reader.skip_tagged_fields()?;
    Ok(ProducePartition { partition, records })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 8: no transactional id, acks -1, 1 s, topic "t", partition 7 with 2 bytes, partition 8 null.
    const OLD: &[u8] = &[
        0xff, 0xff, 0xff, 0xff, 0, 0, 3, 0xe8, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 2,
        b'a', b'b', 0, 0, 0, 8, 0xff, 0xff, 0xff, 0xff,
    ];
    /// The same in version 13, topic id 16 times 5, with an unknown tagged field in the partition.
    const NEW: &[u8] = &[
        0, 0xff, 0xff, 0, 0, 3, 0xe8, 2, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 3, 0, 0, 0, 7, 3,
        b'a', b'b', 1, 9, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0,
    ];

    #[test]
    fn both_encodings_give_the_same_partitions() {
        for (version, body, name, id) in [(8, OLD, "t", TopicId::NONE), (13, NEW, "", TopicId([5; 16]))] {
            let request = ProduceRequest::parse(version, body).expect("well formed");
            assert_eq!((request.acks, request.timeout_ms, request.transactional_id), (-1, 1000, None));
            let topics: Vec<_> = request.topics().collect();
            assert_eq!((topics.len(), topics[0].name, topics[0].id), (1, name, id));
            let partitions: Vec<_> = topics[0].partitions().map(|p| (p.partition.0, p.records)).collect();
            assert_eq!(partitions, [(7, Some(&b"ab"[..])), (8, None)]);
        }
    }

    #[test]
    fn every_truncation_and_every_tail_is_refused() {
        for (version, body) in [(8, OLD), (13, NEW)] {
            for end in 0..body.len() {
                assert!(ProduceRequest::parse(version, &body[..end]).is_err(), "{version} {end}");
            }
            let tail = [body, &[0]].concat();
            assert_eq!(ProduceRequest::parse(version, &tail).err(), Some(DecodeError::Trailing));
        }
        assert_eq!(ProduceRequest::parse(2, OLD).err(), Some(DecodeError::Version));
        assert_eq!(ProduceRequest::parse(14, NEW).err(), Some(DecodeError::Version));
    }
}
