//! Run: one seed, from the first start of the broker to the last comparison.
//!
//! Faults and ends of the process come in rounds; then all is healed, and within a bound of simulated time
//! every producer must get its last batch acknowledged. At last the power goes once more, and what is
//! there is read from beginning to end.

use corelane::base::ids::MonotonicNs;
use corelane::base::random::Random;
use corelane::log::LaneError;
use corelane::ring::sim::Faults;

use crate::broker::Broker;
use crate::consumer::Consumer;
use crate::oracle::Oracle;
use crate::producer::Producer;
use crate::scenario::{End, Scenario};

/// Starts in a row that faults may make fail.
const FAILED_STARTS_MAX: u32 = 3;

/// Simulated time within which a healed broker serves everybody.
const LIVENESS_MS: u64 = 60_000;

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub acked_count: u64,
    pub seen_count: u64,
    pub starts_count: u64,
    pub simulated_ms: u64,
    pub trace: u64,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.acked_count += other.acked_count;
        self.seen_count += other.seen_count;
        self.starts_count += other.starts_count;
        self.simulated_ms += other.simulated_ms;
    }
}

struct Run {
    scenario: Scenario,
    random: Random,
    broker: Broker,
    oracle: Oracle,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
}

pub fn run(scenario: &Scenario) -> Report {
    let mut run = Run::new(scenario);
    let begun = run.broker.now();
    run.broker.start().expect("a healthy disk takes a new broker");
    for _ in 0..scenario.rounds_count {
        run.round();
    }
    run.heal();
    run.read_all();
    Report {
        acked_count: run.oracle.acked_count,
        seen_count: run.oracle.seen_count,
        starts_count: run.broker.starts_count,
        simulated_ms: run.broker.now().ms_since(begun),
        trace: run.oracle.trace,
    }
}

impl Run {
    fn new(scenario: &Scenario) -> Self {
        let idempotent = (0..scenario.idempotent_count).map(|index| (index, true));
        let plain = (0..scenario.plain_count).map(|index| (100 + index, false));
        let producers = idempotent
            .chain(plain)
            .map(|(index, is_idempotent)| Producer::new(scenario, index, is_idempotent));
        Self {
            scenario: scenario.clone(),
            random: Random::new(scenario.seed ^ 0x72_756e_2072_756e),
            broker: Broker::new(scenario),
            oracle: Oracle::default(),
            producers: producers.collect(),
            consumers: (0..scenario.consumers_count).map(|index| Consumer::new(scenario, index)).collect(),
        }
    }

    /// Lets everybody act until `end` or until `done`.
    fn step_until(&mut self, end: MonotonicNs, mut done: impl FnMut(&mut Self) -> bool) {
        while self.broker.now() < end && !done(self) {
            let mut wake_at = end;
            for producer in &mut self.producers {
                producer.step(&self.broker, &mut self.oracle);
                wake_at = wake_at.min(producer.wake_at);
            }
            for consumer in &mut self.consumers {
                consumer.step(&self.broker, &mut self.oracle);
                wake_at = wake_at.min(consumer.wake_at);
            }
            self.broker.step(wake_at);
        }
    }

    fn after_ms(&self, ms: u64) -> MonotonicNs {
        self.broker.now().plus_ms(ms)
    }

    // ---- Rounds ------------------------------------------------------------------------------

    fn round(&mut self) {
        self.start();
        self.broker.world.set_faults(self.scenario.faults.clone());
        let ends = &self.scenario.ends;
        let end = ends[self.random.below(ends.len() as u64) as usize];
        if end == End::PowerCutAtOperation {
            self.broker.world.power_cut_at(1 + self.random.below(500));
        }
        let round_ms = 1 + self.random.below(self.scenario.round_ms_max);
        let round_end = self.after_ms(round_ms);
        self.step_until(round_end, |run| !run.broker.is_up());
        if self.scenario.wall_jumps {
            let ms = self.random.below(20_000_000) as i64 - 10_000_000;
            self.broker.world.jump_wall(ms);
        }
        match end {
            End::PowerCut | End::PowerCutAtOperation => self.broker.power_cut(),
            End::Kill => self.broker.kill(),
            End::Stop => self.stop(),
        }
        assert!(!self.broker.is_up());
        let down_ms = self.random.below(20);
        let down_until = self.after_ms(down_ms);
        self.step_until(down_until, |_| false);
    }

    fn stop(&mut self) {
        self.broker.begin_stop();
        let bound = self.after_ms(LIVENESS_MS);
        self.step_until(bound, |run| run.broker.end_stop());
        assert!(!self.broker.is_up(), "the broker doesn't stop");
    }

    /// Starts the broker, which faults and ends of the power may make fail for a while.
    fn start(&mut self) {
        for _ in 0..FAILED_STARTS_MAX {
            if self.broker.is_up() {
                return;
            }
            if self.random.below(10) < self.scenario.recovery_cut_tenths {
                self.broker.world.power_cut_at(1 + self.random.below(60));
            }
            self.try_start();
        }
        if !self.broker.is_up() {
            self.broker.kill();
            self.broker.world.set_faults(Faults::default());
            self.broker.start().expect("a healed disk takes the broker again");
        }
    }

    fn try_start(&mut self) {
        let before = self.broker.world.ends_count();
        match self.broker.start() {
            Ok(()) => {}
            // A fault, or the power went.
            Err(LaneError::Io { .. }) => {
                if self.broker.world.ends_count() == before {
                    self.broker.kill();
                }
            }
            Err(error) => panic!("the broker doesn't recover: {error}"),
        }
    }

    // ---- The end -----------------------------------------------------------------------------

    /// No more faults: every producer gets what it sent acknowledged.
    fn heal(&mut self) {
        if self.broker.is_up() {
            self.broker.kill();
        }
        self.broker.world.set_faults(Faults::default());
        self.broker.start().expect("a healed disk takes the broker again");
        self.producers.iter_mut().for_each(|producer| producer.draining = true);
        let bound = self.after_ms(LIVENESS_MS);
        self.step_until(bound, |run| run.producers.iter().all(Producer::is_done));
        if let Some(open) = self.producers.iter().find(|producer| !producer.is_done()) {
            panic!("all is healed, and {} isn't done; {}", open.describe(), self.broker.describe());
        }
        self.producers.clear();
        self.consumers.clear();
        self.broker.power_cut();
        self.broker.start().expect("a healed disk takes the broker again");
    }

    /// Reads every partition from beginning to end and compares.
    fn read_all(&mut self) {
        let quiet = Scenario { rereads: false, think_ms_max: 0, ..self.scenario.clone() };
        self.consumers = vec![Consumer::new(&quiet, 1_000)];
        let bound = self.after_ms(LIVENESS_MS);
        self.step_until(bound, |run| run.consumers[0].is_at_end());
        let reader = &self.consumers[0];
        assert!(reader.is_at_end(), "the partitions can't be read to their ends");
        for partition in 0..self.scenario.partitions_count {
            let index = partition as usize;
            let end = reader.ends[index].expect("it is at its end");
            self.oracle.finish(partition, &reader.walked[index], end);
        }
    }
}
