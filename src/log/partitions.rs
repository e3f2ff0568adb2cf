//! Partitions: all partitions of a lane, by number and by id.

use std::collections::BTreeMap;

use super::journal::{Payload, TailBytes};
use super::options::LogId;
use super::partition_log::PartitionLog;
use super::place::Place;
use crate::base::ids::TopicPartition;

/// Numbers aren't reused, so a number costs 8 bytes for good.
#[derive(Default)]
pub(super) struct Partitions {
    slots: Vec<Option<Box<PartitionLog>>>,
    by_id: BTreeMap<TopicPartition, LogId>,
}

impl Partitions {
    pub(super) fn get(&self, log: LogId) -> Option<&PartitionLog> {
        self.slots.get(log.0 as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, log: LogId) -> Option<&mut PartitionLog> {
        self.slots.get_mut(log.0 as usize)?.as_deref_mut()
    }

    pub(super) fn find(&self, id: TopicPartition) -> Option<LogId> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn insert(&mut self, partition: PartitionLog) {
        let index = partition.number.0 as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.by_id.insert(partition.id, partition.number);
        let before = self.slots[index].replace(Box::new(partition));
        assert!(before.is_none(), "a partition number is given once");
    }

    pub(super) fn remove(&mut self, log: LogId) -> Option<Box<PartitionLog>> {
        let partition = self.slots.get_mut(log.0 as usize)?.take()?;
        if self.by_id.get(&partition.id) == Some(&log) {
            self.by_id.remove(&partition.id);
        }
        Some(partition)
    }

    /// In the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PartitionLog> {
        self.slots.iter().filter_map(|slot| slot.as_deref())
    }

    /// The first partition with a number of at least `from`.
    pub(super) fn next_from(&self, from: u32) -> Option<&PartitionLog> {
        self.slots.get(from as usize..)?.iter().find_map(|slot| slot.as_deref())
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

impl TailBytes for Partitions {
    fn put_tail(&self, log: LogId, place: Place, bytes: usize, payload: &mut Payload<'_>) {
        let partition = self.get(log).expect("a partition outlives its waiting items");
        let put = partition.tail.visit(place, bytes, |piece| payload.put(piece));
        assert_eq!(put, bytes, "bytes stay in memory until they are written to the segment");
    }
}

/// The batch that was appended just now, which is still in the processor's cache as the client sent it, and
/// all that waits before it.
pub(super) struct WithNewest<'a> {
    pub(super) partitions: &'a Partitions,
    pub(super) log: LogId,
    pub(super) place: Place,
    /// The batch in two parts: what the broker patched, and the rest.
    pub(super) head: &'a [u8],
    pub(super) rest: &'a [u8],
}

impl TailBytes for WithNewest<'_> {
    fn put_tail(&self, log: LogId, place: Place, bytes: usize, payload: &mut Payload<'_>) {
        let is_newest = log == self.log && place.segment == self.place.segment;
        if !is_newest || place.position < self.place.position {
            return self.partitions.put_tail(log, place, bytes, payload);
        }
        let from = (place.position - self.place.position) as usize;
        let to = from + bytes;
        let head_bytes = self.head.len();
        payload.put(&self.head[from.min(head_bytes)..to.min(head_bytes)]);
        payload.put(&self.rest[from.max(head_bytes) - head_bytes..to.max(head_bytes) - head_bytes]);
    }
}
