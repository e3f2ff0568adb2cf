//! Delete records: moves a partition's log start, and tells when that is durable.

use super::Core;
use super::command::PartitionOutcome;
use crate::base::ids::{Offset, TopicPartition};
use crate::log::{AppendError, Sequence};
use crate::partition::read::ReadRefusal;
use crate::partition::waiters::ReplyTo;

/// A log start that was moved and isn't durable yet.
#[derive(Debug)]
pub struct MovedLogStart {
    lane: usize,
    durable_at: Sequence,
    log_start: Offset,
    reply_to: ReplyTo,
}

impl Core {
    /// Moves the log start up to `before`, or to the high watermark; `None`: the answer follows.
    pub fn delete_records(
        &mut self,
        target: TopicPartition,
        before: Option<Offset>,
        reply_to: ReplyTo,
    ) -> Option<Result<Offset, ReadRefusal>> {
        let Some(partition) = self.storage.partition(target) else {
            return Some(Err(ReadRefusal::UnknownPartition));
        };
        let (high_watermark, log, lane) = (partition.high_watermark(), partition.log, partition.lane);
        let before = before.unwrap_or(high_watermark);
        let logs = &mut self.storage.lanes[lane];
        if before > high_watermark {
            let log_start = logs.log_start(log);
            return Some(Err(ReadRefusal::OutOfRange { high_watermark, log_start }));
        }
        match logs.advance_log_start(log, before) {
            Ok(durable_at) => {
                let log_start = logs.log_start(log);
                self.moved.push(MovedLogStart { lane, durable_at, log_start, reply_to });
                None
            }
            // While the journal is full, too: the client tries again.
            Err(AppendError::Busy) => Some(Err(ReadRefusal::Busy)),
            Err(_) => Some(Err(ReadRefusal::Offline)),
        }
    }

    /// Answers those whose entry is durable by now, or never will be.
    pub fn settle_moved(&mut self) {
        let mut index = 0;
        while let Some(moved) = self.moved.get(index) {
            let lane = &self.storage.lanes[moved.lane];
            let outcome = if lane.durable() >= moved.durable_at {
                Ok(moved.log_start)
            } else if lane.fenced().is_some() {
                Err(ReadRefusal::Offline)
            } else {
                index += 1;
                continue;
            };
            let moved = self.moved.swap_remove(index);
            self.reply(moved.reply_to, PartitionOutcome::DeletedRecords(outcome));
        }
    }
}
