//! Answers: what a producer learns from the answers to its requests.

use crate::Failure;
use crate::client::code_name;
use crate::producer::{Pending, Producer};
use crate::responses::read_produce;
use std::collections::BTreeMap;

/// Reads the answers of one producer.
pub struct Answers<'a> {
    pub producer: &'a mut Producer,
    /// By Kafka's name.
    pub errors: &'a mut BTreeMap<String, u64>,
    pub is_recorded: bool,
    pub now: u64,
    /// Requests answered, and how many of their batches were acknowledged.
    pub done: Vec<(Pending, u64)>,
}

impl Answers<'_> {
    pub fn read(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let Some(pending) = self.producer.answered(self.now) else {
            return Err(Failure::new("an answer to nothing"));
        };
        let mut acknowledged = 0;
        let correlation_id = read_produce(frame, |produced| {
            if produced.error != 0 {
                *self.errors.entry(code_name(produced.error)).or_default() += 1;
                return;
            }
            acknowledged += 1;
            if self.is_recorded {
                self.producer.acknowledge(&pending, produced.partition, produced.base_offset);
            }
        })?;
        if correlation_id != pending.correlation_id {
            return Err(Failure::new("answers come out of order"));
        }
        self.done.push((pending, acknowledged));
        Ok(())
    }
}
