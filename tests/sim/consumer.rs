//! Consumer: a client that reads every partition, on and on, and tells the oracle what it saw.

use corelane::base::ids::MonotonicNs;
use corelane::base::random::Random;
use corelane::protocol::record_batch::BatchHeader;

use crate::broker::{Broker, TOPIC, address};
use crate::oracle::Oracle;
use crate::scenario::Scenario;
use crate::wire::{FetchedPartition, Link, read_fetched};

const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const STORAGE_ERROR: i16 = 56;

const PATIENCE_MS: u64 = 5_000;

pub struct Consumer {
    scenario: Scenario,
    random: Random,
    link: Option<Link>,
    asked: Option<Asked>,
    positions: Vec<i64>,
    /// Base offsets of everything read, by partition, and the end that was told; for the last reader.
    pub walked: Vec<Vec<i64>>,
    pub ends: Vec<Option<i64>>,
    pub wake_at: MonotonicNs,
}

struct Asked {
    correlation_id: i32,
    at: MonotonicNs,
    /// Partition, offset asked for, and the high watermark known then.
    partitions: Vec<(i32, i64, i64)>,
}

impl Consumer {
    pub fn new(scenario: &Scenario, index: u64) -> Self {
        let partitions_count = scenario.partitions_count as usize;
        Self {
            scenario: scenario.clone(),
            random: Random::new(scenario.seed ^ (0x63_0000 + index)),
            link: None,
            asked: None,
            positions: vec![0; partitions_count],
            walked: vec![Vec::new(); partitions_count],
            ends: vec![None; partitions_count],
            wake_at: MonotonicNs(0),
        }
    }

    /// Every partition was read to the end that was told with its last answer.
    pub fn is_at_end(&self) -> bool {
        self.positions.iter().zip(&self.ends).all(|(position, end)| *end == Some(*position))
    }

    pub fn step(&mut self, broker: &Broker, oracle: &mut Oracle) {
        self.receive(broker, oracle);
        let now = broker.now();
        if now < self.wake_at {
            return;
        }
        self.wake_at = now.plus_ms(1 + self.random.below(1 + self.scenario.think_ms_max));
        if self.asked.as_ref().is_some_and(|asked| now.ms_since(asked.at) > PATIENCE_MS) {
            self.disconnect();
        }
        if self.link.is_none() {
            self.link = Link::connect(&broker.world, address()).ok();
        }
        if self.link.is_some() && self.asked.is_none() {
            self.ask(now, oracle);
        }
    }

    fn ask(&mut self, now: MonotonicNs, oracle: &Oracle) {
        let random = &mut self.random;
        let mut partitions = Vec::new();
        for (partition, position) in self.positions.iter_mut().enumerate() {
            if self.scenario.rereads && *position > 0 && random.chance(1, 20) {
                *position = random.below(*position as u64 + 1) as i64;
            }
            let partition = partition as i32;
            partitions.push((partition, *position, oracle.high_watermark(partition)));
        }
        let from: Vec<(i32, i64)> =
            partitions.iter().map(|(partition, position, _)| (*partition, *position)).collect();
        let max_wait_ms = random.below(50) as i32;
        let bytes_max = 1 + random.below(64 << 10) as i32;
        let link = self.link.as_mut().expect("connected");
        let correlation_id = link.fetch(TOPIC, max_wait_ms, bytes_max, &from);
        self.asked = Some(Asked { correlation_id, at: now, partitions });
    }

    fn disconnect(&mut self) {
        self.link = None;
        self.asked = None;
    }

    fn receive(&mut self, broker: &Broker, oracle: &mut Oracle) {
        while let Some((correlation_id, body)) = self.link.as_mut().and_then(Link::receive) {
            let asked = self.asked.take().expect("every answer has its request");
            assert_eq!(asked.correlation_id, correlation_id);
            let fetched = read_fetched(&body).expect("a response decodes");
            assert_eq!(fetched.len(), asked.partitions.len(), "every partition has its answer");
            for (answer, (partition, position, known)) in fetched.iter().zip(&asked.partitions) {
                assert_eq!(answer.partition, *partition);
                self.on_fetched(answer, *position, *known, oracle);
            }
            self.wake_at = self.wake_at.min(broker.now());
        }
        if self.link.as_ref().is_some_and(Link::has_ended) {
            self.disconnect();
        }
    }

    fn on_fetched(&mut self, answer: &FetchedPartition, position: i64, known: i64, oracle: &mut Oracle) {
        let partition = answer.partition;
        oracle.note(answer.error as u64);
        match answer.error {
            NONE => {}
            UNKNOWN_TOPIC_OR_PARTITION | STORAGE_ERROR => return,
            other => panic!("a fetch of partition {partition} from {position} was refused with {other}"),
        }
        oracle.told_high_watermark(partition, known, answer.high_watermark);
        let index = partition as usize;
        self.ends[index] = Some(answer.high_watermark);
        let (mut at, mut next) = (0, position);
        // The last batch may be cut: it is asked for again.
        while let Some(bytes) = whole_batch(&answer.records[at..]) {
            let base_offset = BatchHeader::view(bytes).expect("it is whole").base_offset().0;
            let is_first = at == 0;
            assert!(
                base_offset == next || (is_first && base_offset < next),
                "partition {partition}: offset {next} was next, {base_offset} came"
            );
            next = oracle.seen(partition, bytes);
            assert!(
                next > position,
                "partition {partition}: the batch at {base_offset} ends before {position}"
            );
            assert!(next <= answer.high_watermark, "only what is committed is read");
            self.walked[index].push(base_offset);
            at += bytes.len();
        }
        self.positions[index] = next;
    }
}

/// The first batch in `bytes`, if all of it is there.
fn whole_batch(bytes: &[u8]) -> Option<&[u8]> {
    let size_bytes = BatchHeader::view(bytes)?.size_bytes().expect("the broker sends batches");
    bytes.get(..size_bytes)
}
