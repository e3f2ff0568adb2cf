//! Partition: the rules of one topic-partition on top of its log.
//!
//! Owns:     the settings in force, the high watermark, who waits for which offset.
//! Promises: `log_start <= high_watermark <= durable_end <= log_end` on durable topics; on relaxed
//!           ones the high watermark is the log end, and one made durable keeps what consumers saw.
//!           No waiter is answered before its offset is below the high watermark.
//! Never:    touches the ring, reads a clock, knows sockets or wire messages.
//! Called by the shard that owns the partition.

pub mod append;
pub mod compaction;
pub mod idempotence;
pub mod offset_map;
pub mod read;
pub mod retention;
pub mod timestamps;
pub mod topic_config;
pub mod waiters;

use std::rc::Rc;

use crate::base::ids::{LeaderEpoch, Offset, TopicPartition};
use crate::log::LogId;
use crate::partition::topic_config::{AckDurability, TopicConfig};
use waiters::Waiters;

pub struct Partition {
    pub id: TopicPartition,
    pub topic_name: Rc<str>,
    /// Index of the lane among those its shard hosts, and the log's slot in it.
    pub lane: usize,
    pub log: LogId,
    pub leader_epoch: LeaderEpoch,
    pub config: TopicConfig,
    pub waiters: Waiters,
    high_watermark: Offset,
}

impl Partition {
    /// A partition whose log was just recovered or created: everything in it is durable.
    pub fn new(
        id: TopicPartition,
        topic_name: Rc<str>,
        (lane, log): (usize, LogId),
        leader_epoch: LeaderEpoch,
        config: TopicConfig,
        log_end: Offset,
    ) -> Self {
        Self {
            id,
            topic_name,
            lane,
            log,
            leader_epoch,
            config,
            waiters: Waiters::default(),
            high_watermark: log_end,
        }
    }

    /// Consumers read below it.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn is_relaxed(&self) -> bool {
        self.config.ack_durability == AckDurability::Relaxed
    }

    /// Takes over the log's ends after an append (relaxed topics) or a flush; true when the high
    /// watermark moved and waiters have to be looked at.
    pub fn advance(&mut self, durable_end: Offset, log_end: Offset) -> bool {
        assert!(durable_end <= log_end);
        // It never goes back in an epoch: not even when a relaxed topic is made durable.
        let reached = if self.is_relaxed() { log_end } else { durable_end.max(self.high_watermark) };
        assert!(reached >= self.high_watermark && reached <= log_end);
        let moved = reached > self.high_watermark;
        self.high_watermark = reached;
        moved
    }
}
