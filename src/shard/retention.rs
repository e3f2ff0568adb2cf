//! Retention: looks at the partitions of a shard now and then, moves log starts and forgets producers.
//!
//! A look over all partitions is spread over steps of housekeeping, so that it yields to traffic.

use super::Core;
use crate::base::ids::TopicPartition;
use crate::log::AppendError;
use crate::partition::retention::{Expired, expired};

/// Partitions looked at in one step.
const STEP_PARTITIONS: usize = 32;

impl Core {
    /// Begins a look at every partition; one that goes on ends first.
    pub fn begin_retention(&mut self) {
        if self.retained.is_empty() {
            self.retained = self.storage.all_partitions();
        }
    }

    /// One step; true while partitions are left to look at.
    pub fn step_retention(&mut self) -> bool {
        for _ in 0..STEP_PARTITIONS {
            let Some(target) = self.retained.pop() else { return false };
            if !self.retain(target) {
                // The journal is full: at the next look.
                self.retained.clear();
                return false;
            }
        }
        !self.retained.is_empty()
    }

    /// False when the journal takes no entry.
    fn retain(&mut self, target: TopicPartition) -> bool {
        let Some(partition) = self.storage.partition(target) else { return true };
        let (index, log) = (partition.lane, partition.log);
        let expiry_ms = self.metadata.catalog.broker.config().producer_expiry_ms;
        let expired_before = self.wall.0.saturating_sub(expiry_ms);
        self.storage.lanes[index].expire_producers(log, expired_before);
        let partition = self.storage.partition(target).expect("looked up above");
        let lane = &self.storage.lanes[index];
        let found = expired(lane.segments(log), &partition.config, partition.high_watermark(), self.wall);
        let Some(Expired { log_start, roll }) = found else { return true };
        let before = lane.log_start(log);
        let topic = partition.topic_name.clone();
        let lane = &mut self.storage.lanes[index];
        if roll {
            lane.roll_active(log, self.wall);
        }
        match lane.advance_log_start(log, log_start) {
            Ok(_) => {
                let partition = target.partition.0;
                tracing::info!(
                    topic = &*topic,
                    partition,
                    from = before.0,
                    to = log_start.0,
                    "retention moved the log start"
                );
                true
            }
            Err(AppendError::Busy) => false,
            Err(_) => true,
        }
    }
}
