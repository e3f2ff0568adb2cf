//! Producer: one connection that writes: its frames, what is in flight, when the next is meant to go.

use crate::frame_stream::FrameStream;
use crate::frames::ProduceFrame;
use crate::options::{Arrivals, Rate};
use crate::partitioning::Draw;
use crate::schedule::Schedule;
use crate::template::{Patch, Template};
use crate::verify::NOT_ACKNOWLEDGED;
use corelane::base::ids::{ProducerEpoch, ProducerId};
use corelane::ring::SocketId;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Frames up to this size are sent together when several are due.
const GATHER_FRAME_BYTES_MAX: usize = 4096;
const GATHER_BYTES_MAX: usize = 64 * 1024;

/// Which of a producer's buffers a send was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    Gathered,
    Frame(usize),
}

/// A request without answer yet.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub correlation_id: i32,
    pub intended_ns: u64,
    pub frame: usize,
    /// Of the frame's requests, from 0.
    pub index: usize,
}

/// What the load wants of every producer.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    pub in_flight_max: usize,
    /// Nothing is sent that is meant for later.
    pub end_ns: u64,
    /// Requests of each producer.
    pub requests_max: u64,
    /// Number and stamp the records of each request.
    pub is_numbered: bool,
    /// Keep what was acknowledged.
    pub is_recorded: bool,
}

pub struct Producer {
    pub address: SocketAddr,
    pub socket: Option<SocketId>,
    /// When to connect again; `None` when it is connected or gives up.
    pub retry_ns: Option<u64>,
    pub stream: FrameStream,
    pub schedule: Schedule,
    pub in_flight: VecDeque<Pending>,
    pub is_sending: bool,
    /// Its part of the rate, 1 when all have the same.
    pub rate_factor: f64,
    /// Draws the next frame; without it they are taken in turn.
    pub choice: Option<Draw>,
    /// Of an idempotent producer.
    pub identity: Option<(ProducerId, ProducerEpoch)>,
    frames: Vec<ProduceFrame>,
    next_frame: usize,
    /// Requests made of each frame, and of all.
    requests: Vec<usize>,
    requests_sum: u64,
    /// Base offsets answered, of each frame's partitions, request after request.
    acknowledged: Vec<Vec<i64>>,
    gathered: Vec<u8>,
    next_correlation_id: i32,
    /// Since when nothing but the schedule holds it back.
    free_since_ns: u64,
}

impl Producer {
    /// It sends as fast as it can until `begin`.
    pub fn new(address: SocketAddr, frames: Vec<ProduceFrame>) -> Self {
        let count = frames.len();
        Self {
            address,
            socket: None,
            retry_ns: None,
            stream: FrameStream::default(),
            schedule: Schedule::new(Rate::Max, 1, Arrivals::Constant, 0, (0, 1), 0),
            in_flight: VecDeque::new(),
            is_sending: false,
            rate_factor: 1.0,
            choice: None,
            identity: None,
            frames,
            next_frame: 0,
            requests: vec![0; count],
            requests_sum: 0,
            acknowledged: vec![Vec::new(); count],
            gathered: Vec::new(),
            next_correlation_id: 0,
            free_since_ns: 0,
        }
    }

    pub fn begin(&mut self, schedule: Schedule, now_ns: u64) {
        (self.schedule, self.free_since_ns) = (schedule, now_ns);
    }

    /// When it could send next; `None` while it waits for the broker.
    pub fn next_send_ns(&self, now_ns: u64, demand: &Demand) -> Option<u64> {
        let is_held = self.socket.is_none()
            || self.is_sending
            || self.in_flight.len() >= demand.in_flight_max
            || self.requests_sum >= demand.requests_max;
        let next_ns = self.schedule.next_ns(now_ns);
        (!is_held && next_ns < demand.end_ns).then_some(next_ns)
    }

    /// It has made all its requests and got their answers.
    pub fn is_done(&self, demand: &Demand) -> bool {
        self.requests_sum >= demand.requests_max && self.in_flight.is_empty()
    }

    /// What is due now, as one buffer to send; `lag` is told how late each request is by our own fault.
    pub fn take_due(
        &mut self,
        template: &Template,
        demand: &Demand,
        now_ns: u64,
        mut lag: impl FnMut(u64),
    ) -> Option<(Sending, Vec<u8>)> {
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.clear();
        while self.next_send_ns(now_ns, demand).is_some_and(|next_ns| next_ns <= now_ns) {
            let intended_ns = self.schedule.next_ns(now_ns);
            self.schedule.advance();
            lag(now_ns - intended_ns.max(self.free_since_ns).min(now_ns));
            let frame = self.prepare(template, demand, intended_ns);
            let bytes = &mut self.frames[frame].bytes;
            if bytes.len() > GATHER_FRAME_BYTES_MAX {
                self.gathered = gathered;
                self.is_sending = true;
                return Some((Sending::Frame(frame), std::mem::take(bytes)));
            }
            gathered.extend_from_slice(bytes);
            if gathered.len() >= GATHER_BYTES_MAX {
                break;
            }
        }
        if gathered.is_empty() {
            self.gathered = gathered;
            return None;
        }
        self.is_sending = true;
        Some((Sending::Gathered, gathered))
    }

    /// Makes the next frame a new request and puts it in flight.
    fn prepare(&mut self, template: &Template, demand: &Demand, intended_ns: u64) -> usize {
        let index = match &mut self.choice {
            Some(choice) => choice.next_place(),
            None => self.next_frame,
        };
        self.next_frame = (index + 1) % self.frames.len();
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let frame = &mut self.frames[index];
        frame.set_correlation_id(correlation_id);
        let request = self.requests[index];
        self.requests[index] += 1;
        self.requests_sum += 1;
        let first_number = (request * template.records_count()) as u64;
        let patch = Patch {
            number: demand.is_numbered.then_some((first_number, intended_ns)),
            producer: self.identity.map(|(id, epoch)| (id, epoch, sequence_of(first_number))),
        };
        if patch.number.is_some() || patch.producer.is_some() {
            frame.patch(template, &patch);
        }
        if demand.is_recorded {
            let partitions = frame.partitions.len();
            self.acknowledged[index].extend(std::iter::repeat_n(NOT_ACKNOWLEDGED, partitions));
        }
        self.in_flight.push_back(Pending { correlation_id, intended_ns, frame: index, index: request });
        index
    }

    /// The buffer of a send is back.
    pub fn sent(&mut self, sending: Sending, buffer: Vec<u8>, now_ns: u64) {
        match sending {
            Sending::Gathered => self.gathered = buffer,
            Sending::Frame(frame) => self.frames[frame].bytes = buffer,
        }
        self.is_sending = false;
        self.free_since_ns = now_ns;
    }

    /// The oldest request was answered.
    pub fn answered(&mut self, now_ns: u64) -> Option<Pending> {
        self.free_since_ns = now_ns;
        self.in_flight.pop_front()
    }

    /// Keeps the answer for one partition of a request.
    pub fn acknowledge(&mut self, pending: &Pending, partition: i32, base_offset: i64) {
        let partitions = &self.frames[pending.frame].partitions;
        if let Some(place) = partitions.iter().position(|other| *other == partition) {
            self.acknowledged[pending.frame][pending.index * partitions.len() + place] = base_offset;
        }
    }

    /// Batches of one request.
    pub fn batches_of(&self, pending: &Pending) -> usize {
        self.frames[pending.frame].partitions.len()
    }

    /// Bytes of each batch of one request.
    pub fn batch_bytes_of(&self, pending: &Pending) -> u64 {
        let frame = &self.frames[pending.frame];
        (frame.batches_bytes() / frame.partitions.len()) as u64
    }

    /// Partitions, and how many batches were made for each.
    pub fn batches(&self) -> impl Iterator<Item = (i32, usize)> {
        let frames = self.frames.iter().zip(&self.requests);
        frames.flat_map(|(frame, count)| frame.partitions.iter().map(|partition| (*partition, *count)))
    }

    /// Requests whose time came before `end_ns` and that were never sent.
    pub fn unsent(&mut self, end_ns: u64) -> u64 {
        let mut count = 0;
        while !self.schedule.is_max() && self.schedule.next_ns(0) < end_ns {
            self.schedule.advance();
            count += 1;
        }
        count
    }

    /// Base offsets by partition, batch after batch.
    pub fn ledger(&self) -> impl Iterator<Item = (i32, Vec<i64>)> {
        self.frames.iter().zip(&self.acknowledged).flat_map(|(frame, acknowledged)| {
            let count = frame.partitions.len();
            frame.partitions.iter().enumerate().map(move |(place, partition)| {
                (*partition, acknowledged.iter().skip(place).step_by(count).copied().collect())
            })
        })
    }
}

/// Sequence number of a producer's record `number` in its partition: it wraps from 2^31 - 1 to 0.
fn sequence_of(number: u64) -> i32 {
    (number % (1 << 31)) as i32
}

/// The partitions of each of `count` connections: even shares, or `at_least` where that is more.
pub fn shares(partitions: &[i32], count: usize, at_least: usize) -> Vec<Vec<i32>> {
    let share = partitions.len().div_ceil(count).max(at_least).min(partitions.len());
    (0..count)
        .map(|index| {
            let start = index * partitions.len() / count;
            partitions.iter().cycle().skip(start).take(share).copied().collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_connection() {
        for (partitions, count, at_least) in
            [(16, 4, 1), (16, 16, 1), (16, 256, 1), (1000, 100, 16), (7, 3, 1)]
        {
            let all: Vec<i32> = (0..partitions).collect();
            let shares = shares(&all, count, at_least);
            assert_eq!(shares.len(), count);
            let mut seen: Vec<i32> = shares.iter().flatten().copied().collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, all);
            for share in shares {
                assert!(share.len() >= at_least);
                let mut once = share.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), share.len(), "no partition twice on a connection");
            }
        }
    }
}
