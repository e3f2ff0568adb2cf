//! Load: what is asked of the broker while its disk is cut off or fails, and what it answered.
//!
//! Each worker has topics of its own and one idempotent producer, which sends a refused or unanswered batch
//! again until it is acknowledged, as clients do. Between its batches it moves log starts, commits offsets,
//! and makes and deletes topics. Readers follow and remember how far they saw.

use crate::client::{Client, Gone, OFFSET_EARLIEST};
use crate::records::{Stream, cut_batches};
use corelane::base::random::Random;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Batches of one partition that may be unanswered: what the broker tells duplicates by.
const BATCHES_IN_FLIGHT: usize = 5;
const REQUESTS_IN_FLIGHT: usize = 4;
/// Requests between two administrative ones.
const REQUESTS_PER_PUMP: u64 = 20;
/// Topics of the worker that makes and deletes them.
const CHURNED_TOPICS: usize = 4;

pub const ERROR_OFFSET_OUT_OF_RANGE: i16 = 1;
const ERROR_UNKNOWN_TOPIC: i16 = 3;
pub const ERROR_COORDINATOR_LOADS: i16 = 14;
pub const ERROR_NOT_COORDINATOR: i16 = 16;
const ERROR_OUT_OF_ORDER: i16 = 45;

/// What is known of a partition.
#[derive(Clone, Debug)]
pub struct Partition {
    pub stream: Stream,
    /// Records below were sent at least once.
    pub sent_end: i64,
    /// Records below were acknowledged.
    pub acknowledged_end: i64,
    /// Records below were read by a consumer.
    pub seen_end: i64,
    pub delete_requested: i64,
    pub delete_acknowledged: i64,
    /// Number of the record with sequence 0.
    sequence_base: i64,
    /// Number of the next batch.
    next: i64,
    in_flight: usize,
    is_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Made, and nobody asked to delete it.
    There,
    /// A request to make or delete it was sent and not answered.
    Unknown,
    Deleted,
}

#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    /// Nothing acknowledged may be lost.
    pub is_durable: bool,
    pub settings: Vec<(String, String)>,
    pub retention_bytes: Option<u64>,
    pub life: Life,
    /// The worker's connection was told of the topic: like every client it asks before it produces.
    is_known: bool,
    pub partitions: Vec<Partition>,
}

impl Topic {
    pub fn new(name: &str, key: u64, partitions: i32) -> Self {
        let partition = |partition| Partition {
            stream: Stream { key, partition },
            sent_end: 0,
            acknowledged_end: 0,
            seen_end: 0,
            delete_requested: 0,
            delete_acknowledged: 0,
            sequence_base: 0,
            next: 0,
            in_flight: 0,
            is_refused: false,
        };
        // The records are of another time.
        let settings = vec![
            ("retention.ms".to_string(), "-1".to_string()),
            ("segment.bytes".to_string(), "1048576".to_string()),
        ];
        Self {
            name: name.to_string(),
            is_durable: true,
            settings,
            retention_bytes: None,
            life: Life::Unknown,
            is_known: false,
            partitions: (0..partitions).map(partition).collect(),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_string(), value.to_string()));
        match name {
            "ack.durability" => self.is_durable = value == "durable",
            "retention.bytes" => self.retention_bytes = value.parse().ok(),
            _ => {}
        }
        self
    }
}

/// What a worker does besides producing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    Nothing,
    /// Moves log starts.
    Trim,
    /// Commits offsets.
    Commit,
    /// Makes and deletes topics.
    Churn,
}

/// Offsets of a group in the first topic of its worker.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    pub group: String,
    pub requested: i64,
    pub acknowledged: i64,
}

pub struct Worker {
    pub topics: Vec<Topic>,
    pub commits: Commits,
    pub besides: Besides,
    /// Codes that were answered instead of an acknowledgement, with their counts.
    pub refusals: BTreeMap<i16, u64>,
    /// Answers that no broker may give.
    pub wrong: Vec<String>,
    session: Option<(i64, i16)>,
    random: Random,
    patience: Duration,
}

struct Sent {
    topic: usize,
    /// Partition, number of its first record, count.
    parts: Vec<(usize, i64, i64)>,
}

impl Worker {
    pub fn new(besides: Besides, topics: Vec<Topic>, seed: u64, patience: Duration) -> Self {
        let group = format!("group-of-{}", topics.first().map_or("churn", |topic| &topic.name));
        Self {
            topics,
            commits: Commits { group, ..Commits::default() },
            besides,
            refusals: BTreeMap::new(),
            wrong: Vec::new(),
            session: None,
            random: Random::new(seed),
            patience,
        }
    }

    pub fn acknowledged(&self) -> u64 {
        let durable = self.topics.iter().filter(|topic| topic.is_durable);
        durable.flat_map(|topic| &topic.partitions).map(|partition| partition.acknowledged_end as u64).sum()
    }

    /// Makes the topics that aren't there yet.
    pub fn create_topics(&mut self, address: &str) -> Result<(), Gone> {
        let mut client = Client::connect(address, self.patience)?;
        for topic in &mut self.topics {
            let code = client.create_topic(&topic.name, topic.partitions.len() as i32, &topic.settings)?;
            assert_eq!(code, 0, "{} can't be made", topic.name);
            topic.life = Life::There;
        }
        Ok(())
    }

    /// Produces until told to stop or the broker is gone.
    pub fn run(&mut self, address: &str, stop: &AtomicBool, progress: &AtomicU64) -> Result<(), Gone> {
        let mut client = Client::connect(address, self.patience)?;
        let mut admin = Client::connect(address, self.patience)?;
        self.begin(&mut client, &mut admin)?;
        while !stop.load(Ordering::Relaxed) {
            let refused = self.pump(&mut client, progress)?;
            match self.besides {
                Besides::Nothing => {}
                Besides::Trim => self.trim(&mut admin)?,
                Besides::Commit => self.commit(&mut admin)?,
                Besides::Churn => self.churn(&mut admin)?,
            }
            if refused || self.topics.is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// A new connection: what wasn't acknowledged is sent again; sometimes by a producer with a new id.
    fn begin(&mut self, client: &mut Client, admin: &mut Client) -> Result<(), Gone> {
        for topic in &mut self.topics {
            topic.is_known = false;
            if topic.life == Life::Unknown {
                let code = admin.delete_topic(&topic.name)?;
                if code == 0 || code == ERROR_UNKNOWN_TOPIC {
                    topic.life = Life::Deleted;
                }
            }
            for partition in &mut topic.partitions {
                partition.restart(topic.is_durable);
            }
        }
        self.topics.retain(|topic| topic.life != Life::Deleted);
        let mut partitions =
            self.topics.iter().filter(|topic| topic.is_durable).flat_map(|topic| &topic.partitions);
        let owes_nothing = partitions.all(|partition| partition.acknowledged_end == partition.sent_end);
        if self.session.is_none() || owes_nothing && self.random.chance(1, 4) {
            match client.init_producer_id()? {
                Ok(session) => {
                    self.session = Some(session);
                    let partitions = self.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                    partitions.for_each(|partition| partition.sequence_base = partition.acknowledged_end);
                }
                // The session before goes on.
                Err(code) => *self.refusals.entry(code).or_default() += 1,
            }
        }
        Ok(())
    }

    /// Some requests and all their answers; true when one was refused.
    fn pump(&mut self, client: &mut Client, progress: &AtomicU64) -> Result<bool, Gone> {
        if self.session.is_none() || self.topics.is_empty() {
            return Ok(true);
        }
        if self.topics.iter().any(|topic| !topic.is_known) {
            let names = client.topics()?;
            self.topics.iter_mut().for_each(|topic| topic.is_known = names.contains(&topic.name));
        }
        let mut in_flight = VecDeque::new();
        let mut left = REQUESTS_PER_PUMP;
        let mut refused = false;
        while left > 0 || !in_flight.is_empty() {
            while left > 0 && in_flight.len() < REQUESTS_IN_FLIGHT {
                left -= 1;
                if let Some(sent) = self.send(client)? {
                    in_flight.push_back(sent);
                }
            }
            let Some(sent) = in_flight.pop_front() else { break };
            refused |= self.receive(client, &sent, progress)?;
        }
        for topic in &mut self.topics {
            let refused = topic.partitions.iter_mut().filter(|partition| partition.is_refused);
            refused.for_each(|partition| partition.restart(topic.is_durable));
        }
        Ok(refused)
    }

    fn send(&mut self, client: &mut Client) -> Result<Option<Sent>, Gone> {
        let index = self.random.below(self.topics.len() as u64) as usize;
        let topic = &mut self.topics[index];
        if topic.life != Life::There || !topic.is_known {
            return Ok(None);
        }
        let mut batches = Vec::new();
        let mut parts = Vec::new();
        for (at, partition) in topic.partitions.iter_mut().enumerate() {
            let waits = partition.is_refused || partition.in_flight >= BATCHES_IN_FLIGHT;
            if waits || self.random.chance(1, 2) {
                continue;
            }
            let number = partition.next;
            let sequence = i32::try_from(number - partition.sequence_base).expect("a run is short");
            let producer = self.session.filter(|_| topic.is_durable).map(|(id, epoch)| (id, epoch, sequence));
            let batch = partition.stream.batch(number, producer);
            let count = partition.stream.count(number);
            batches.push((partition.stream.partition, batch));
            parts.push((at, number, count));
            partition.next += count;
            partition.sent_end = partition.sent_end.max(partition.next);
            partition.in_flight += 1;
        }
        if parts.is_empty() {
            return Ok(None);
        }
        client.send_produce(&topic.name, &batches)?;
        Ok(Some(Sent { topic: index, parts }))
    }

    fn receive(&mut self, client: &mut Client, sent: &Sent, progress: &AtomicU64) -> Result<bool, Gone> {
        let answers = client.receive_produced()?;
        let topic = &mut self.topics[sent.topic];
        let mut refused = false;
        for (at, number, count) in &sent.parts {
            let partition = &mut topic.partitions[*at];
            let place = format!("{}-{} record {number}", topic.name, partition.stream.partition);
            partition.in_flight -= 1;
            let Some(answer) = answers.iter().find(|answer| answer.partition == partition.stream.partition)
            else {
                self.wrong.push(format!("{place}: no answer for the partition"));
                continue;
            };
            if answer.error != 0 {
                // A producer's oldest batch can't be out of order: everything before it was acknowledged.
                if answer.error == ERROR_OUT_OF_ORDER && *number == partition.acknowledged_end {
                    self.wrong.push(format!("{place}: out of order, and it is the next"));
                }
                *self.refusals.entry(answer.error).or_default() += 1;
                partition.is_refused = true;
                refused = true;
            } else if !topic.is_durable {
                partition.acknowledged_end = number + count;
            } else if answer.base_offset != *number {
                self.wrong.push(format!("{place}: acknowledged at offset {}", answer.base_offset));
            } else {
                // One before it may have been answered with a timeout: it is there all the same, since this
                // one stands behind it.
                partition.acknowledged_end = partition.acknowledged_end.max(number + count);
                progress.fetch_add(*count as u64, Ordering::Relaxed);
            }
        }
        Ok(refused)
    }

    fn trim(&mut self, admin: &mut Client) -> Result<(), Gone> {
        let Some(topic) = self.topics.first_mut() else { return Ok(()) };
        let at = self.random.below(topic.partitions.len() as u64) as usize;
        let partition = &mut topic.partitions[at];
        let before = partition.acknowledged_end - self.random.below(5_000) as i64;
        if before <= partition.delete_acknowledged {
            return Ok(());
        }
        partition.delete_requested = partition.delete_requested.max(before);
        let code = admin.delete_records(&topic.name, partition.stream.partition, before)?;
        match code {
            0 => partition.delete_acknowledged = partition.delete_acknowledged.max(before),
            code => *self.refusals.entry(code).or_default() += 1,
        }
        Ok(())
    }

    fn commit(&mut self, admin: &mut Client) -> Result<(), Gone> {
        let Some(topic) = self.topics.first() else { return Ok(()) };
        self.commits.requested += 1;
        match admin.commit(&self.commits.group, &topic.name, self.commits.requested)? {
            0 => self.commits.acknowledged = self.commits.requested,
            ERROR_NOT_COORDINATOR => {
                admin.find_coordinator(&self.commits.group)?;
            }
            code => *self.refusals.entry(code).or_default() += 1,
        }
        Ok(())
    }

    fn churn(&mut self, admin: &mut Client) -> Result<(), Gone> {
        if let Some(at) = self.topic_to_delete() {
            let topic = &mut self.topics[at];
            topic.life = Life::Unknown;
            match admin.delete_topic(&topic.name)? {
                0 => {
                    self.topics.remove(at);
                }
                code => *self.refusals.entry(code).or_default() += 1,
            }
            return Ok(());
        }
        let free =
            churned_names().into_iter().find(|name| self.topics.iter().all(|topic| topic.name != *name));
        let Some(name) = free else { return Ok(()) };
        // Names come back with other records.
        let topic = Topic::new(&name, self.random.next_u64(), 1 + self.random.below(3) as i32);
        let (partitions, settings) = (topic.partitions.len() as i32, topic.settings.clone());
        self.topics.push(topic);
        match admin.create_topic(&name, partitions, &settings)? {
            0 => self.topics.last_mut().expect("pushed above").life = Life::There,
            code => *self.refusals.entry(code).or_default() += 1,
        }
        Ok(())
    }

    /// Any that is there, one in three times. Of what was asked in vain nothing is known before a restart: a
    /// broker whose disk failed may answer that it knows no such topic, and have it in its store.
    fn topic_to_delete(&mut self) -> Option<usize> {
        let all = self.topics.len() >= CHURNED_TOPICS;
        let there = |index: &usize| self.topics[*index].life == Life::There;
        let there: Vec<usize> = (0..self.topics.len()).filter(there).collect();
        let deletes = !there.is_empty() && (all || self.random.chance(1, 3));
        deletes.then(|| there[self.random.below(there.len() as u64) as usize])
    }
}

pub fn churned_names() -> Vec<String> {
    (0..CHURNED_TOPICS).map(|number| format!("churn-{number}")).collect()
}

impl Partition {
    /// What was refused or not answered is sent again, in order; on a relaxed topic never.
    fn restart(&mut self, is_durable: bool) {
        self.next = if is_durable { self.acknowledged_end } else { self.sent_end };
        self.in_flight = 0;
        self.is_refused = false;
    }
}

/// Workers and readers on threads of their own.
pub struct Running {
    stop: Arc<AtomicBool>,
    /// Records acknowledged since the load began.
    pub progress: Arc<AtomicU64>,
    workers: Vec<JoinHandle<(Worker, Option<Gone>)>>,
    reader: Option<JoinHandle<Reader>>,
}

impl Running {
    /// Until it is stopped or the broker is gone; with `persists`, connections are made again.
    pub fn start(workers: Vec<Worker>, address: &str, persists: bool) -> Self {
        let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let reader = workers.first().and_then(|worker| {
            let topic = worker.topics.first()?.clone();
            let (address, stop, patience) = (address.to_string(), stop.clone(), worker.patience);
            Some(std::thread::spawn(move || {
                let mut reader = Reader { topic, wrong: Vec::new() };
                while reader.follow(&address, patience, &stop).is_err()
                    && persists
                    && !stop.load(Ordering::Relaxed)
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                reader
            }))
        });
        let spawn = |mut worker: Worker| {
            let (address, stop, progress) = (address.to_string(), stop.clone(), progress.clone());
            std::thread::spawn(move || {
                loop {
                    let gone = worker.run(&address, &stop, &progress).err();
                    if gone.is_none() || !persists || stop.load(Ordering::Relaxed) {
                        return (worker, gone);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        };
        let workers = workers.into_iter().map(spawn).collect();
        Self { stop, progress, workers, reader }
    }

    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Waits until that many records are acknowledged; false when `patience` ends before.
    pub fn wait_for(&self, progress: u64, patience: Duration) -> bool {
        let started = std::time::Instant::now();
        while self.progress() < progress {
            if started.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Ends the load and returns the workers with what they know.
    pub fn stop(mut self) -> Vec<Worker> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.workers.drain(..).map(|worker| worker.join().expect("a worker doesn't panic"));
        let mut workers: Vec<Worker> = ended
            .map(|(mut worker, gone)| {
                if let Some(Gone::Nonsense(what)) = gone {
                    worker.wrong.push(format!("an answer that can't be read: {what}"));
                }
                worker
            })
            .collect();
        if let (Some(reader), Some(worker)) = (self.reader.take(), workers.first_mut()) {
            let reader = reader.join().expect("a reader doesn't panic");
            worker.wrong.extend(reader.wrong);
            for (partition, seen) in worker.topics[0].partitions.iter_mut().zip(&reader.topic.partitions) {
                partition.seen_end = partition.seen_end.max(seen.seen_end);
            }
        }
        workers
    }
}

/// On an idempotent partition record `n` stands at offset `n`.
pub fn is_at_its_place(base: i64, numbers: &[i64]) -> bool {
    numbers.iter().zip(base..).all(|(number, offset)| *number == offset)
}

/// A consumer at the end of a topic.
struct Reader {
    topic: Topic,
    wrong: Vec<String>,
}

impl Reader {
    fn follow(&mut self, address: &str, patience: Duration, stop: &AtomicBool) -> Result<(), Gone> {
        let mut client = Client::connect(address, patience)?;
        while !stop.load(Ordering::Relaxed) {
            let from: Vec<(i32, i64)> = self
                .topic
                .partitions
                .iter()
                .map(|partition| (partition.stream.partition, partition.seen_end))
                .collect();
            for fetched in client.fetch(&self.topic.name, 100, 1 << 20, &from)? {
                let partition = &mut self.topic.partitions[fetched.partition as usize];
                if fetched.error == ERROR_OFFSET_OUT_OF_RANGE {
                    let found = client.offset(&self.topic.name, fetched.partition, OFFSET_EARLIEST)?;
                    partition.seen_end = partition.seen_end.max(found.unwrap_or(0));
                    continue;
                }
                for batch in cut_batches(&fetched.records) {
                    match partition.stream.read(batch) {
                        // A batch is served whole, from its beginning.
                        Ok((base, numbers))
                            if base <= partition.seen_end && is_at_its_place(base, &numbers) =>
                        {
                            partition.seen_end = partition.seen_end.max(base + numbers.len() as i64);
                        }
                        Ok((base, _)) => self.wrong.push(format!(
                            "{}-{}: a consumer at {} was served a batch at {base}",
                            self.topic.name, fetched.partition, partition.seen_end
                        )),
                        Err(what) => {
                            self.wrong.push(format!("{}-{}: {what}", self.topic.name, fetched.partition));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
