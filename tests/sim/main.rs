//! Simulated broker: shards on a simulated machine, clients that speak Kafka's protocol to them, faults
//! and power cuts by seed, and an oracle. What is acknowledged is never lost; deliberate mistakes are found.
//!
//! `CORELANE_SEEDS=10000 cargo test --release --test sim nothing` runs more seeds, `CORELANE_SEED=7` one of them; see
//! `seeds` for a run that is kept.

mod broker;
mod consumer;
mod oracle;
mod producer;
mod run;
mod scenario;
#[path = "../../src/log/tests/seeds.rs"]
mod seeds;
mod wire;

use std::sync::Mutex;

use corelane::{log, shard};
use run::Report;
use scenario::{Controls, Scenario};

/// Seeds of a normal run.
const SEEDS_COUNT: u64 = 100;

/// Within so many seeds a deliberate mistake must have been found.
const CONTROL_SEEDS_MAX: u64 = 1_000;

/// Names the seed when its run ends in a panic.
struct Named(Scenario);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("CORELANE_SEED={} replays it: {:?}", self.0.seed, self.0);
        }
    }
}

fn run_seed(seed: u64, controls: Controls) -> Report {
    let named = Named(Scenario::new(seed, controls));
    run::run(&named.0)
}

#[test]
fn nothing_acknowledged_is_lost() {
    let total = Mutex::new((0, Report::default()));
    seeds::run_seeds("shards", SEEDS_COUNT, |seed| {
        let report = run_seed(seed, Controls::default());
        if seed % 100 == 0 {
            let again = run_seed(seed, Controls::default());
            assert_eq!(report.trace, again.trace, "seed {seed} runs the same way every time");
        }
        let mut total = total.lock().expect("nobody panics with it");
        total.0 += 1;
        total.1.add(&report);
    });
    let (seeds_count, total) = total.into_inner().expect("nobody panics with it");
    println!("{seeds_count} seeds: {total:#?}");
    assert!(seeds_count < 50 || total.acked_count > 100 * seeds_count, "the workload works");
    assert!(seeds_count < 50 || total.seen_count > 100 * seeds_count, "the consumers read");
}

/// Runs seeds until one fails, as it must.
fn check_found(controls: Controls) {
    let found = (0..CONTROL_SEEDS_MAX).find(|seed| {
        let scenario = Scenario::new(*seed, controls);
        std::panic::catch_unwind(|| run::run(&scenario)).is_err()
    });
    println!("{controls:?} was found by seed {found:?}");
    assert!(found.is_some(), "{controls:?} wasn't found within {CONTROL_SEEDS_MAX} seeds");
}

#[test]
fn an_acknowledgement_before_the_flush_is_found() {
    check_found(Controls { log: log::Control::AcknowledgeBeforeFlush, ..Controls::default() });
}

#[test]
fn a_duplicate_answered_before_its_original_is_durable_is_found() {
    let shard = shard::storage::Control::AnswerDuplicateAtOnce;
    check_found(Controls { shard, ..Controls::default() });
}

#[test]
fn a_read_of_what_is_not_durable_is_found() {
    check_found(Controls { shard: shard::storage::Control::ServeBeforeDurable, ..Controls::default() });
}
