//! Load: all producers on one ring, from the first connection to the last answer.
//!
//! Owns:     the ring, the clock of the run, and what is counted.
//! Promises: a request is counted once, when it was answered; latency runs from its intended send time.
//! Called by `produce`.

use crate::Failure;
use crate::answers::Answers;
use crate::client::Client;
use crate::descriptors;
use crate::frame_stream::FrameStream;
use crate::options::{Acks, Partitioner, ProduceOptions, Rate};
use crate::preparation;
use crate::producer::{Demand, Pending, Producer, Sending};
use crate::schedule::Schedule;
use crate::series::{Latencies, Series};
use crate::template::Template;
use crate::verify::Ledger;
use corelane::base::ids::MonotonicNs;
use corelane::ring::{Completion, ReceivedBytes, Ring, RingOptions, Sleep, SocketId, Token};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

/// How long answers are waited for, and late requests sent, after the window's end.
const DRAIN_NS: u64 = 10_000_000_000;
/// Pause before connecting again.
const RETRY_NS: u64 = 100_000_000;

/// Owners of the ring's tokens.
const CONNECT: u8 = 0;
const SEND: u8 = 1;

pub struct Load<'a> {
    options: &'a ProduceOptions,
    ring: Ring,
    template: Template,
    producers: Vec<Producer>,
    sockets: HashMap<SocketId, usize>,
    demand: Demand,
    from_ns: u64,
    pub counts: Counts,
    pub series: Series,
}

pub struct Counts {
    /// In the measured window.
    pub records: u64,
    pub bytes: u64,
    pub requests: u64,
    pub latencies: Latencies,
    pub lag: Latencies,
    /// Over the whole run.
    pub errors: BTreeMap<String, u64>,
    pub lost_requests: u64,
}

impl<'a> Load<'a> {
    pub fn prepare(
        options: &'a ProduceOptions,
        leaders: &BTreeMap<SocketAddr, Vec<i32>>,
        timestamp_ms: u64,
        client: &mut Client,
    ) -> Result<Self, Failure> {
        let template = preparation::template(options, timestamp_ms);
        let partitions_count = leaders.values().map(Vec::len).sum();
        let partitioning = preparation::partitioning(options, partitions_count);
        let producers = preparation::producers(options, leaders, &template, partitioning.as_ref(), client)?;
        let producers_count = producers.len();
        let ring = Ring::kernel(&RingOptions { entries_count: 1024, ..RingOptions::default() })?;
        Ok(Self {
            options,
            ring,
            template,
            producers,
            sockets: HashMap::new(),
            demand: Demand {
                in_flight_max: options.in_flight.max(1),
                end_ns: 0,
                requests_max: options.requests.map_or(u64::MAX, |sum| sum.div_ceil(producers_count as u64)),
                is_numbered: options.verify
                    || options.stamp
                    || (options.keys.is_some() && options.partitioner != Some(Partitioner::Keyed)),
                is_recorded: options.verify,
            },
            from_ns: 0,
            counts: Counts {
                records: 0,
                bytes: 0,
                requests: 0,
                latencies: Latencies::new(),
                lag: Latencies::new(),
                errors: BTreeMap::new(),
                lost_requests: 0,
            },
            series: Series::new(0, 0, options.common.quiet),
        })
    }

    pub fn connect_all(&mut self) -> Result<(), Failure> {
        descriptors::reserve(self.producers.len())?;
        for index in 0..self.producers.len() {
            self.connect(index);
        }
        while self.producers.iter().any(|producer| producer.socket.is_none()) {
            self.ring.turn(Sleep::Forever);
            while let Some(completion) = self.ring.next() {
                if let Completion::Connected { result: Err(error), .. } = &completion {
                    return Err(Failure::new(format!("connecting: {error}")));
                }
                self.complete(completion)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) {
        let producer = &mut self.producers[index];
        producer.retry_ns = None;
        self.ring.connect(Token::new(CONNECT, index as u64), producer.address);
    }

    /// Starts the clock.
    pub fn begin(&mut self) {
        let options = self.options;
        let start_ns = self.ring.now().0;
        self.from_ns = start_ns + (options.common.warmup_seconds * 1e9) as u64;
        self.demand.end_ns = self.from_ns + (options.common.seconds * 1e9) as u64;
        self.series = Series::new(start_ns, self.from_ns, options.common.quiet);
        let records_per_request = self.template.records_count() * options.partitions_per_request.max(1);
        let count = self.producers.len();
        for (index, producer) in self.producers.iter_mut().enumerate() {
            let rate = match options.rate {
                Rate::Max => Rate::Max,
                Rate::RecordsPerSecond(rate) => Rate::RecordsPerSecond(rate * producer.rate_factor),
            };
            let (arrivals, seed) = (options.arrivals, options.seed);
            let place = (index, count);
            let schedule = Schedule::new(rate, records_per_request, arrivals, seed, place, start_ns);
            producer.begin(schedule, start_ns);
        }
    }

    pub fn run_until(&mut self, until_ns: u64) -> Result<(), Failure> {
        while self.ring.now().0 < until_ns
            && !self.producers.iter().all(|producer| producer.is_done(&self.demand))
        {
            if self.producers.iter().all(|producer| producer.socket.is_none() && producer.retry_ns.is_none())
            {
                // The last attempts to connect may still be under way.
                if !self.options.reconnect {
                    return Err(Failure::new("every connection was lost"));
                }
            }
            self.turn(until_ns)?;
        }
        Ok(())
    }

    /// Sends what is late and waits for answers.
    pub fn drain(&mut self) -> Result<(), Failure> {
        let give_up_ns = self.ring.now().0 + DRAIN_NS;
        loop {
            let now = self.ring.now().0;
            let is_idle = self.producers.iter().all(|producer| {
                let has_more =
                    !producer.schedule.is_max() && producer.schedule.next_ns(now) < self.demand.end_ns;
                producer.in_flight.is_empty()
                    && !producer.is_sending
                    && !(has_more && producer.socket.is_some())
            });
            if is_idle || now >= give_up_ns {
                return Ok(());
            }
            self.turn(give_up_ns)?;
        }
    }

    fn turn(&mut self, until_ns: u64) -> Result<(), Failure> {
        let mut wake_ns = until_ns.min(self.series.next_ns());
        for index in 0..self.producers.len() {
            wake_ns = wake_ns.min(self.pump(index));
        }
        self.ring.turn(Sleep::Until(MonotonicNs(wake_ns)));
        while let Some(completion) = self.ring.next() {
            self.complete(completion)?;
        }
        let now = self.ring.now().0;
        let (producers, counts) = (&self.producers, &self.counts);
        self.series.tick(now, || {
            let in_flight: usize = producers.iter().map(|producer| producer.in_flight.len()).sum();
            let errors: u64 = counts.errors.values().sum::<u64>() + counts.lost_requests;
            if errors > 0 {
                format!("in flight {in_flight} errors {errors}")
            } else {
                format!("in flight {in_flight}")
            }
        });
        Ok(())
    }

    /// Sends what is due of one producer; returns when it wants to be looked at again.
    fn pump(&mut self, index: usize) -> u64 {
        let now = self.ring.now().0;
        let producer = &mut self.producers[index];
        if let Some(retry_ns) = producer.retry_ns.filter(|_| !producer.is_sending) {
            if retry_ns > now {
                return retry_ns;
            }
            self.connect(index);
            return u64::MAX;
        }
        let is_measured = now >= self.from_ns;
        let lag = &mut self.counts.lag;
        let due = producer.take_due(&self.template, &self.demand, now, |lag_ns| {
            if is_measured {
                lag.record_ns(lag_ns);
            }
        });
        let Some((sending, buffer)) = due else {
            return producer.next_send_ns(now, &self.demand).unwrap_or(u64::MAX);
        };
        let socket = producer.socket.expect("what is due has a connection");
        self.ring.send(send_token(index, sending), socket, buffer, 0);
        u64::MAX
    }

    fn complete(&mut self, completion: Completion) -> Result<(), Failure> {
        match completion {
            Completion::Connected { token, result } => self.connected(token.value() as usize, result.ok()),
            Completion::Received { socket, bytes } => {
                if let Some(index) = self.sockets.get(&socket).copied() {
                    self.received(index, &bytes)?;
                }
                self.ring.received_done(bytes);
            }
            Completion::ReceiveStopped { socket } if self.sockets.contains_key(&socket) => {
                self.ring.receive_start(socket);
            }
            Completion::ReceiveEnded { socket, .. } => self.lost(socket),
            Completion::Sent { socket, token, result, buffer } => {
                let now = self.ring.now().0;
                let (index, sending) = sent_token(token);
                self.producers[index].sent(sending, buffer, now);
                if result.is_err() {
                    self.lost(socket);
                } else if self.options.acks == Acks::Never {
                    while let Some(pending) = self.producers[index].answered(now) {
                        let batches = self.producers[index].batches_of(&pending) as u64;
                        self.count(now, index, &pending, batches);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn connected(&mut self, index: usize, socket: Option<SocketId>) {
        let now = self.ring.now().0;
        let producer = &mut self.producers[index];
        let Some(socket) = socket else {
            producer.retry_ns = Some(now + RETRY_NS);
            return;
        };
        producer.socket = Some(socket);
        self.sockets.insert(socket, index);
        self.ring.receive_start(socket);
    }

    /// The connection is gone: what was in flight has no answer and maybe was written.
    fn lost(&mut self, socket: SocketId) {
        let Some(index) = self.sockets.remove(&socket) else { return };
        self.ring.disconnect(socket);
        let now = self.ring.now().0;
        let producer = &mut self.producers[index];
        producer.socket = None;
        producer.stream = FrameStream::default();
        self.counts.lost_requests += producer.in_flight.len() as u64;
        producer.in_flight.clear();
        if self.options.reconnect {
            producer.retry_ns = Some(now + RETRY_NS);
        }
    }

    fn received(&mut self, index: usize, bytes: &ReceivedBytes) -> Result<(), Failure> {
        let now = self.ring.now().0;
        let mut stream = std::mem::take(&mut self.producers[index].stream);
        let mut answers = Answers {
            producer: &mut self.producers[index],
            errors: &mut self.counts.errors,
            is_recorded: self.demand.is_recorded,
            now,
            done: Vec::new(),
        };
        let outcome = stream.feed(self.ring.received(bytes), |frame| answers.read(frame));
        let done = answers.done;
        self.producers[index].stream = stream;
        for (pending, batches) in done {
            self.count(now, index, &pending, batches);
        }
        outcome
    }

    /// Counts a request of which `batches` were acknowledged.
    fn count(&mut self, now: u64, index: usize, pending: &Pending, batches: u64) {
        let records = batches * self.template.records_count() as u64;
        let bytes = batches * self.producers[index].batch_bytes_of(pending);
        let latency_ns = now.saturating_sub(pending.intended_ns);
        self.series.count(records, bytes);
        self.series.latency_ns(latency_ns);
        if (self.from_ns..self.demand.end_ns).contains(&now) {
            self.counts.records += records;
            self.counts.bytes += bytes;
            self.counts.requests += 1;
        }
        if (self.from_ns..self.demand.end_ns).contains(&pending.intended_ns) {
            self.counts.latencies.record_ns(latency_ns);
        }
    }

    pub fn now_ns(&mut self) -> u64 {
        self.ring.now().0
    }

    /// The measured window: its first and last moment.
    pub fn window(&self) -> (u64, u64) {
        (self.from_ns, self.demand.end_ns)
    }

    /// Gives up on what is in flight; returns how many requests were never sent though their time came.
    pub fn give_up(&mut self) -> u64 {
        let end_ns = self.demand.end_ns;
        self.counts.lost_requests += self.producers.iter().map(|p| p.in_flight.len() as u64).sum::<u64>();
        self.producers.iter_mut().map(|producer| producer.unsent(end_ns)).sum()
    }

    /// What was acknowledged in the measured window, before compression.
    pub fn uncompressed_bytes(&self) -> u64 {
        self.counts.records / self.template.records_count() as u64 * self.template.batch_bytes() as u64
    }

    /// Batches made for each partition.
    pub fn batches(&self) -> BTreeMap<i32, usize> {
        let mut batches = BTreeMap::new();
        for (partition, count) in self.producers.iter().flat_map(Producer::batches) {
            *batches.entry(partition).or_default() += count;
        }
        batches
    }

    pub fn ledger(&self) -> Ledger {
        let mut ledger =
            Ledger { records_per_batch: self.template.records_count() as u64, ..Ledger::default() };
        if self.demand.is_recorded {
            for (stream, producer) in self.producers.iter().enumerate() {
                let batches =
                    producer.ledger().map(|(partition, offsets)| ((stream as u32, partition), offsets));
                ledger.batches.extend(batches);
            }
        }
        ledger
    }
}

fn send_token(index: usize, sending: Sending) -> Token {
    let buffer = match sending {
        Sending::Gathered => 0,
        Sending::Frame(frame) => frame as u64 + 1,
    };
    Token::new(SEND, (index as u64) << 32 | buffer)
}

fn sent_token(token: Token) -> (usize, Sending) {
    let index = (token.value() >> 32) as usize;
    match token.value() & u64::from(u32::MAX) {
        0 => (index, Sending::Gathered),
        buffer => (index, Sending::Frame(buffer as usize - 1)),
    }
}
