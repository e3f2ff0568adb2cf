//! Rows: the loads of `perf/compare/rows.py` whose cost is bounded, each with a fixed number of requests.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::bounds;
use crate::broker::Broker;
use crate::cost::{Cost, Done, Page};
use crate::run::{Outcome, load};

/// A load, the requests that make its topic's files and buffers, and those that are counted after them.
struct Load {
    shape: &'static [&'static str],
    first_requests: u32,
    requests: u32,
    /// What of the result is an event.
    event: &'static str,
}

const P1: Load = Load {
    shape: &["--connections", "4", "--in-flight", "5", "--record-bytes", "1024", "--batch-bytes", "1048576"],
    first_requests: 16,
    requests: 64,
    event: "/records",
};
const P4: Load = Load {
    shape: &["--connections", "16", "--in-flight", "5", "--record-bytes", "1024", "--batch-bytes", "16384"],
    first_requests: 512,
    requests: 4096,
    event: "/records",
};
const P5: Load = Load {
    shape: &["--connections", "256", "--in-flight", "1", "--record-bytes", "100", "--batch-records", "1"],
    first_requests: 2048,
    requests: 16384,
    event: "/requests",
};

struct Machine {
    broker: Broker,
    done: Done,
    _dir: tempfile::TempDir,
}

/// What this thread starts shares one core: then the broker finds all that the generator had to send, and
/// the calls of an event don't depend on how idle the other cores are.
fn pin() {
    let mine = Pid::from_raw(0);
    let allowed = sched_getaffinity(mine).expect("the kernel tells");
    let core = (0..CpuSet::count()).rev().find(|core| allowed.is_set(*core) == Ok(true));
    let mut one = CpuSet::new();
    one.set(core.expect("this thread runs on one")).expect("a core that was told");
    sched_setaffinity(mine, &one).expect("a thread may ask for less");
}

impl Machine {
    fn start() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk");
        pin();
        let sizes = ["journal.bytes=134217728", "tail.pool.bytes=67108864"];
        let broker = Broker::start(&dir.path().join("data"), &sizes);
        Self { broker, done: Done::default(), _dir: dir }
    }

    /// Runs the generator until it has done all that it was told, which takes as long as it takes.
    fn load(&self, arguments: &[&str]) -> Outcome {
        let common = ["--bootstrap", &self.broker.address, "--quiet"];
        let all = ["--seconds", "300", "--warmup-seconds", "0"];
        let outcome = load(&[arguments, &common, &all].concat());
        assert!(outcome.is_valid(), "{arguments:?}: {}", outcome.said);
        outcome
    }

    fn produce(&mut self, load: &Load, durability: &str, requests: u32) -> Outcome {
        let setting = format!("ack.durability={durability}");
        let topic = ["produce", "--partitions", "16", "--topic-config", &setting];
        let outcome = self.load(&[&topic, load.shape, &["--requests", &requests.to_string()]].concat());
        self.done.written_bytes += outcome.number("/bytes");
        outcome
    }

    fn consume(&mut self) -> Outcome {
        let size = ["--max-bytes", "1048576", "--partition-max-bytes", "1048576"];
        let outcome = self.load(&[&["consume", "--connections", "1", "--to-end"], &size[..]].concat());
        self.done.read_bytes += outcome.number("/bytes");
        outcome
    }

    /// Holds what `run` costs against the row's bounds.
    fn check(&mut self, row: &str, event: &str, run: impl FnOnce(&mut Self) -> Outcome) {
        let before = Page::settled(&self.broker, &self.done);
        let outcome = run(self);
        let after = Page::settled(&self.broker, &self.done);
        let cost = Cost::between(&before, &after, outcome.number(event), outcome.number("/bytes"));
        bounds::check(row, &cost);
    }
}

fn check_produce(row: &str, load: &Load, durability: &str) {
    let mut machine = Machine::start();
    machine.produce(load, durability, load.first_requests);
    machine.check(row, load.event, |machine| machine.produce(load, durability, load.requests));
}

#[test]
fn p1_relaxed() {
    check_produce("P1-relaxed", &P1, "relaxed");
}

#[test]
fn p1_durable() {
    check_produce("P1-durable", &P1, "durable");
}

#[test]
fn p4_relaxed() {
    check_produce("P4-relaxed", &P4, "relaxed");
}

#[test]
fn p4_durable() {
    check_produce("P4-durable", &P4, "durable");
}

#[test]
fn p5_relaxed() {
    check_produce("P5-relaxed", &P5, "relaxed");
}

#[test]
fn p5_durable() {
    check_produce("P5-durable", &P5, "durable");
}

/// What was just written comes from memory as far as that reaches; the rest first from the disk, then
/// through the page cache, and from then on out of it.
#[test]
fn c1() {
    let mut machine = Machine::start();
    machine.produce(&P1, "relaxed", 2 * P1.requests);
    machine.check("C1-first", "/records", Machine::consume);
    machine.consume();
    machine.check("C1-again", "/records", Machine::consume);
}
