//! Producer: a client that produces, with idempotence or without, and never gives an idempotent batch up.
//!
//! Promises: batches of a partition are sent in the order of their sequences; until its first batch in a
//!           partition is acknowledged nothing follows it, since a broker takes any sequence of a producer
//!           it doesn't know.

use std::collections::{BTreeMap, VecDeque};

use corelane::base::ids::{MonotonicNs, ProducerEpoch, ProducerId};
use corelane::base::random::Random;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::{Codec, Codecs};

use crate::broker::{Broker, TOPIC, address};
use crate::oracle::{BatchId, Oracle};
use crate::scenario::Scenario;
use crate::wire::{Link, read_produced, read_producer_id};

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const REQUEST_TIMED_OUT: i16 = 7;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;
const STORAGE_ERROR: i16 = 56;

/// An answer that takes longer is given up, with its connection.
const PATIENCE_MS: u64 = 5_000;

pub struct Producer {
    scenario: Scenario,
    random: Random,
    codecs: Codecs,
    is_idempotent: bool,
    id: Option<i64>,
    link: Option<Link>,
    /// Of the link, oldest first: answers come in this order.
    in_flight: VecDeque<Request>,
    /// A second connection, by which batches are sent again; its answers may get lost.
    side: Option<Link>,
    side_in_flight: VecDeque<(i32, BatchId)>,
    outboxes: Vec<Outbox>,
    pub wake_at: MonotonicNs,
    /// Makes no further batches.
    pub draining: bool,
    /// How often each error was answered.
    refusals: BTreeMap<i16, u64>,
}

struct Request {
    correlation_id: i32,
    sent_at: MonotonicNs,
    what: What,
}

enum What {
    ProducerId,
    Batches(Vec<BatchId>),
}

/// What a producer has to send to one partition.
struct Outbox {
    partition: i32,
    next_sequence: i32,
    /// Not acknowledged yet, in the order of their sequences. The first `sent` are on their way.
    batches: VecDeque<BatchId>,
    /// The newest that were made.
    recent: VecDeque<BatchId>,
    sent: usize,
    /// A batch was refused: what is on its way is awaited, then all of it is sent again.
    refused: bool,
    /// The broker knows the producer.
    known: bool,
}

/// A broker knows the last so many batches of a producer again.
const KNOWN_AGAIN_MAX: usize = 5;

impl Outbox {
    /// With one more behind it the oldest batch that isn't acknowledged would still be known again.
    fn has_room(&self) -> bool {
        self.recent.len() < KNOWN_AGAIN_MAX || self.batches.front() != self.recent.front()
    }

    fn add(&mut self, id: BatchId) {
        self.batches.push_back(id);
        self.recent.push_back(id);
        if self.recent.len() > KNOWN_AGAIN_MAX {
            self.recent.pop_front();
        }
    }
}

impl Producer {
    pub fn new(scenario: &Scenario, index: u64, is_idempotent: bool) -> Self {
        let mut random = Random::new(scenario.seed ^ (0x70_0000 + index));
        let mut outboxes = Vec::new();
        for partition in 0..scenario.partitions_count {
            if partition == 0 || random.chance(1, 2) {
                outboxes.push(Outbox {
                    partition,
                    next_sequence: 0,
                    batches: VecDeque::new(),
                    recent: VecDeque::new(),
                    sent: 0,
                    refused: false,
                    known: false,
                });
            }
        }
        Self {
            scenario: scenario.clone(),
            random,
            codecs: Codecs::default(),
            is_idempotent,
            id: None,
            link: None,
            in_flight: VecDeque::new(),
            side: None,
            side_in_flight: VecDeque::new(),
            outboxes,
            wake_at: MonotonicNs(0),
            draining: false,
            refusals: BTreeMap::new(),
        }
    }

    /// Everything it ever made is acknowledged, or given up.
    pub fn is_done(&self) -> bool {
        self.outboxes.iter().all(|outbox| outbox.batches.is_empty())
    }

    pub fn describe(&self) -> String {
        let waiting: Vec<(i32, usize)> =
            self.outboxes.iter().map(|outbox| (outbox.partition, outbox.batches.len())).collect();
        format!(
            "producer {:?} (connected: {}, batches by partition: {waiting:?}, requests in flight: {}, \
             refusals: {:?})",
            self.id,
            self.link.is_some(),
            self.in_flight.len(),
            self.refusals,
        )
    }

    pub fn step(&mut self, broker: &Broker, oracle: &mut Oracle) {
        self.receive(broker, oracle);
        let now = broker.now();
        if now < self.wake_at {
            return;
        }
        let oldest = self.in_flight.front().map(|request| now.ms_since(request.sent_at));
        let bored = self.scenario.impatient && oldest.is_some() && self.random.chance(1, 200);
        if bored || oldest.is_some_and(|ms| ms > PATIENCE_MS) {
            self.disconnect();
        }
        if self.link.is_none() {
            // Refused while the broker is down: again later.
            self.link = Link::connect(&broker.world, address()).ok();
        }
        let sent = self.link.is_some() && self.send(now, oracle);
        self.wake_at = match self.scenario.think_ms_max {
            0 if sent => now,
            // An answer wakes it earlier.
            0 => now.plus_ms(1 + self.random.below(20)),
            think_ms_max => now.plus_ms(1 + self.random.below(think_ms_max)),
        };
    }

    // ---- Sending -----------------------------------------------------------------------------

    /// False when nothing may be sent now.
    fn send(&mut self, now: MonotonicNs, oracle: &mut Oracle) -> bool {
        if self.is_idempotent && self.id.is_none() {
            if self.in_flight.is_empty() {
                let correlation_id = self.link.as_mut().expect("connected").init_producer_id();
                self.in_flight.push_back(Request { correlation_id, sent_at: now, what: What::ProducerId });
            }
            return false;
        }
        if self.in_flight.len() as u64 >= self.scenario.in_flight_max {
            return false;
        }
        let mut chosen = Vec::new();
        for index in 0..self.outboxes.len() {
            if self.random.chance(2, 3)
                && let Some(id) = self.next_of(index, oracle)
            {
                chosen.push(id);
            }
        }
        if chosen.is_empty() {
            return false;
        }
        let batches: Vec<(i32, &[u8])> =
            chosen.iter().map(|id| oracle.batch(*id)).map(|sent| (sent.partition, &sent.bytes[..])).collect();
        let timeout_ms = self.scenario.produce_timeout_ms;
        let correlation_id = self.link.as_mut().expect("connected").produce(TOPIC, timeout_ms, &batches);
        let what = What::Batches(chosen.clone());
        self.in_flight.push_back(Request { correlation_id, sent_at: now, what });
        if self.scenario.resends && self.random.chance(1, 3) {
            let id = chosen[self.random.below(chosen.len() as u64) as usize];
            self.send_again(id, now, oracle);
        }
        true
    }

    /// The batch that a partition is sent next, if it may be sent one now.
    fn next_of(&mut self, index: usize, oracle: &mut Oracle) -> Option<BatchId> {
        let outbox = &self.outboxes[index];
        if outbox.refused || (self.is_idempotent && !outbox.known && outbox.sent > 0) {
            return None;
        }
        if outbox.sent == outbox.batches.len() {
            if self.draining || !outbox.has_room() {
                return None;
            }
            self.make(index, oracle);
        }
        let outbox = &mut self.outboxes[index];
        outbox.sent += 1;
        Some(outbox.batches[outbox.sent - 1])
    }

    fn make(&mut self, index: usize, oracle: &mut Oracle) {
        let random = &mut self.random;
        let id = oracle.next_id();
        let outbox = &mut self.outboxes[index];
        let records_count = 1 + random.below(4) as i32;
        let producer = self.id.map(|id| (ProducerId(id), ProducerEpoch(0), outbox.next_sequence));
        let codec = if random.chance(1, 8) { Codec::Lz4 } else { Codec::None };
        let mut builder = BatchBuilder::new(BatchOptions { codec, producer, ..BatchOptions::default() });
        for _ in 0..records_count {
            let bytes_max = self.scenario.batch_bytes_max / records_count as u64;
            let mut value = vec![0; random.below(bytes_max) as usize];
            random.fill(&mut value);
            builder.push(id.0 as i64, None, Some(&value), &[]);
        }
        let bytes = builder.finish(&mut self.codecs);
        outbox.next_sequence += records_count;
        outbox.add(id);
        oracle.add(outbox.partition, bytes);
    }

    /// Sends a batch that is in flight once more: behind itself, or by another connection.
    fn send_again(&mut self, id: BatchId, now: MonotonicNs, oracle: &Oracle) {
        let sent = oracle.batch(id);
        let outbox = self.outboxes.iter().find(|outbox| outbox.batches.contains(&id));
        let Some(outbox) = outbox.filter(|outbox| outbox.known && self.is_idempotent) else { return };
        // By the side it may overtake what is in front of it: then that would be too old to be known again.
        let may_overtake = outbox.batches.front() != Some(&id);
        let batches = [(sent.partition, &sent.bytes[..])];
        let timeout_ms = self.scenario.produce_timeout_ms;
        match &mut self.side {
            Some(side) if !may_overtake && self.random.chance(3, 4) => {
                let correlation_id = side.produce(TOPIC, timeout_ms, &batches);
                self.side_in_flight.push_back((correlation_id, id));
            }
            _ => {
                let link = self.link.as_mut().expect("connected");
                let correlation_id = link.produce(TOPIC, timeout_ms, &batches);
                let what = What::Batches(vec![id]);
                self.in_flight.push_back(Request { correlation_id, sent_at: now, what });
            }
        }
    }

    fn disconnect(&mut self) {
        self.link = None;
        for request in std::mem::take(&mut self.in_flight) {
            if let (What::Batches(ids), false) = (request.what, self.is_idempotent) {
                ids.iter().for_each(|id| self.settle(*id));
            }
        }
        for outbox in &mut self.outboxes {
            (outbox.sent, outbox.refused) = (0, false);
        }
    }

    // ---- Answers -----------------------------------------------------------------------------

    fn receive(&mut self, broker: &Broker, oracle: &mut Oracle) {
        while let Some((correlation_id, body)) = self.link.as_mut().and_then(Link::receive) {
            let request = self.in_flight.pop_front().expect("every answer has its request");
            assert_eq!(request.correlation_id, correlation_id, "answers come in the order of requests");
            match request.what {
                What::ProducerId => self.on_producer_id(&body, oracle),
                What::Batches(ids) => self.on_produced(&ids, &body, oracle),
            }
            self.wake_at = self.wake_at.min(broker.now());
            self.send_refused_again();
        }
        if self.link.as_ref().is_some_and(Link::has_ended) {
            self.disconnect();
        }
        while let Some((correlation_id, body)) = self.side.as_mut().and_then(Link::receive) {
            let (asked, id) = self.side_in_flight.pop_front().expect("every answer has its request");
            assert_eq!(asked, correlation_id);
            let produced = read_produced(&body).expect("a response decodes");
            // It may have come too late, or before its original.
            if produced[0].error == NONE {
                self.on_acked(id, produced[0].base_offset, oracle);
            }
        }
        if self.side.as_ref().is_none_or(Link::has_ended) && self.scenario.resends {
            self.side_in_flight.clear();
            self.side = Link::connect(&broker.world, address()).ok();
        }
    }

    fn on_producer_id(&mut self, body: &[u8], oracle: &mut Oracle) {
        let (id, epoch) = read_producer_id(body).expect("a response decodes").expect("ids are plenty");
        assert_eq!(epoch, 0);
        oracle.producer_id(id);
        self.id = Some(id);
    }

    fn on_produced(&mut self, ids: &[BatchId], body: &[u8], oracle: &mut Oracle) {
        let produced = read_produced(body).expect("a response decodes");
        assert_eq!(produced.len(), ids.len(), "every partition has its answer");
        for (id, answer) in ids.iter().zip(produced) {
            oracle.note(answer.error as u64);
            assert_eq!(answer.partition, oracle.batch(*id).partition, "partitions are answered in order");
            match answer.error {
                NONE => self.on_acked(*id, answer.base_offset, oracle),
                error => self.on_refused(*id, error),
            }
        }
    }

    fn on_acked(&mut self, id: BatchId, base_offset: i64, oracle: &mut Oracle) {
        oracle.acked(id, base_offset);
        if let Some(outbox) = self.outboxes.iter_mut().find(|outbox| outbox.batches.contains(&id)) {
            outbox.known = true;
        }
        self.settle(id);
    }

    fn on_refused(&mut self, id: BatchId, error: i16) {
        let Some(outbox) = self.outboxes.iter_mut().find(|outbox| outbox.batches.contains(&id)) else {
            // Sent again, and acknowledged meanwhile.
            return;
        };
        match error {
            UNKNOWN_TOPIC_OR_PARTITION | REQUEST_TIMED_OUT | STORAGE_ERROR => {}
            OUT_OF_ORDER_SEQUENCE => {
                assert!(outbox.refused, "the broker lost what {id:?} follows, which it had acknowledged");
            }
            other => panic!("{id:?} was refused with {other}"),
        }
        outbox.refused = true;
        *self.refusals.entry(error).or_default() += 1;
        if !self.is_idempotent {
            self.settle(id);
        }
    }

    /// The batch isn't sent any more.
    fn settle(&mut self, id: BatchId) {
        for outbox in &mut self.outboxes {
            if let Some(index) = outbox.batches.iter().position(|other| *other == id) {
                outbox.batches.remove(index);
                outbox.sent -= usize::from(index < outbox.sent);
            }
        }
    }

    fn send_refused_again(&mut self) {
        let on_their_way: Vec<BatchId> = self
            .in_flight
            .iter()
            .filter_map(|request| match &request.what {
                What::Batches(ids) => Some(ids),
                What::ProducerId => None,
            })
            .flatten()
            .copied()
            .collect();
        for outbox in self.outboxes.iter_mut().filter(|outbox| outbox.refused) {
            if !outbox.batches.iter().any(|id| on_their_way.contains(id)) {
                (outbox.sent, outbox.refused) = (0, false);
            }
        }
    }
}
