//! Power cut: load, a cut at some moment, recovery, comparison; on the same disk many times over.

use crate::broker::Broker;
use crate::disk::{Fault, Model, Operation};
use crate::load::{Besides, Running, Topic, Worker};
use crate::machine::{Filesystem, Machine};
use crate::results::{self, RunResult};
use crate::verify::{Findings, verify};
use corelane::base::random::Random;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Cuts on one filesystem before it is made anew.
const CUTS_PER_FILESYSTEM: u64 = 20;

/// Cuts from one look by `corelane log verify` to the next.
const CUTS_PER_LOG_VERIFY: u64 = 10;

/// The load lasts at most so long.
const LOAD_MS_MAX: u64 = 1500;

/// A cut with the n-th write or flush comes within so many of them.
const OPERATIONS_MAX_LOG2: u64 = 12;

const FLUSH_US_MAX: u64 = 10_000;

/// A client waits so long for an answer; a killed broker's connections end at once.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// The disk answers flushes and doesn't do them.
    IgnoreFlush,
}

#[derive(clap::Args)]
pub struct Options {
    /// Cuts of each filesystem, shared by the models; those done before with the same storage modules count.
    #[arg(long, default_value_t = 100)]
    cuts: u64,
    #[arg(long, value_delimiter = ',', value_enum, default_value = "ext4,xfs")]
    fs: Vec<Filesystem>,
    #[arg(long, value_delimiter = ',', value_enum, default_value = "drop,subset,torn")]
    models: Vec<Model>,
    /// Logical sectors of the disk, in bytes.
    #[arg(long, default_value_t = 512)]
    sector: u32,
    /// A deliberate mistake of the disk, which must be seen to lose records.
    #[arg(long, value_enum)]
    control: Option<Control>,
    /// Runs from this seed on, whatever was done before.
    #[arg(long)]
    seed: Option<u64>,
}

/// What all blocks of one filesystem and model have in common.
struct Plan {
    filesystem: Filesystem,
    model: Model,
    sector_bytes: u32,
    control: Option<Control>,
}

pub fn run(options: &Options) -> bool {
    let mut queue = Vec::new();
    for (filesystem, model) in options.fs.iter().flat_map(|fs| options.models.iter().map(move |m| (*fs, *m)))
    {
        let plan = Plan { filesystem, model, sector_bytes: options.sector, control: options.control };
        let wanted = options.cuts.div_ceil(options.models.len() as u64);
        // The first loss proves a control; that takes a few cuts on one filesystem.
        let wanted = if plan.control.is_some() { CUTS_PER_FILESYSTEM } else { wanted };
        let (done, seed) = match options.seed {
            None if plan.control.is_none() => results::done_before(&plan.result()),
            seed => (0, seed.unwrap_or(0)),
        };
        if done > 0 {
            println!("{}: {done} cuts were done before", plan.name());
        }
        let mut left = wanted.saturating_sub(done);
        let mut seed = seed;
        while left > 0 {
            let cuts = left.min(CUTS_PER_FILESYSTEM);
            queue.push((seed / CUTS_PER_FILESYSTEM, plan.clone(), seed, cuts));
            (left, seed) = (left - cuts, seed + cuts);
        }
    }
    // A run that is interrupted has something of each kind.
    queue.sort_by_key(|(round, ..)| *round);
    let mut clean = true;
    for (_, plan, seed, cuts) in queue {
        let result = run_block(&plan, seed, cuts);
        println!(
            "{}: seeds {seed} to {}: {} cuts, {} acknowledged, {} lost, {} wrong, {:.1} s per cut",
            plan.name(),
            result.seed_end - 1,
            result.cuts,
            result.acknowledged,
            result.lost,
            result.wrong,
            result.seconds / result.cuts as f64
        );
        results::append(&result);
        clean &= match plan.control {
            None => result.lost == 0 && result.wrong == 0,
            Some(_) => result.lost > 0,
        };
    }
    clean
}

impl Clone for Plan {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl Plan {
    fn name(&self) -> String {
        let control = self.control.map_or(String::new(), |control| format!(" {control:?}"));
        format!("{} {:?}{control}", self.filesystem.name(), self.model)
    }

    fn result(&self) -> RunResult {
        RunResult {
            filesystem: self.filesystem.name().to_string(),
            model: format!("{:?}", self.model).to_lowercase(),
            sector_bytes: self.sector_bytes,
            control: self.control.map(|Control::IgnoreFlush| "ignore-flush".to_string()),
            ..RunResult::new("power-cut")
        }
    }
}

/// Topics and producers of a new filesystem.
pub fn workers(random: &mut Random, patience: Duration) -> Vec<Worker> {
    let mut topic = |name: &str, partitions| {
        Topic::new(name, random.next_u64(), partitions).with("retention.bytes", "4194304")
    };
    let steady = topic("steady", 4);
    let trimmed = topic("trimmed", 2);
    let relaxed = topic("relaxed", 1).with("ack.durability", "relaxed");
    let of = |besides, topics, seed| Worker::new(besides, topics, seed, patience);
    vec![
        of(Besides::Commit, vec![steady], random.next_u64()),
        of(Besides::Trim, vec![trimmed], random.next_u64()),
        of(Besides::Churn, Vec::new(), random.next_u64()),
        of(Besides::Nothing, vec![relaxed], random.next_u64()),
    ]
}

/// Small files everywhere, so that they are rolled, sealed, recycled and deleted between two cuts.
pub fn settings(shards: u64) -> Vec<&'static str> {
    let mut settings = vec![
        "log.retention.check.interval.ms=200",
        "offsets.topic.num.partitions=2",
        "tail.pool.bytes=4194304",
    ];
    if shards > 1 && std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        settings.push("cores=0,1");
    }
    settings
}

struct Block {
    plan: Plan,
    machine: Machine,
    settings: Vec<&'static str>,
    workers: Vec<Worker>,
    result: RunResult,
    /// Of the broker's log, when it was started last.
    log_bytes: usize,
    /// While the disk was healthy.
    fenced_before_cut: bool,
}

/// Whether the broker said since `log_bytes` of its log that it writes no more.
fn is_fenced(broker: &Broker, log_bytes: usize) -> bool {
    broker.log().get(log_bytes..).is_some_and(|said| said.contains("the log directory is fenced"))
}

/// Some cuts on a filesystem of their own. Ends early with the first finding.
fn run_block(plan: &Plan, seed_first: u64, cuts: u64) -> RunResult {
    let dir = crate::dir();
    let machine = Machine::start(&dir, plan.filesystem, plan.sector_bytes, 1 << 30);
    std::fs::remove_file(machine.data.with_extension("log")).ok();
    let mut random = Random::new(seed_first);
    let result = RunResult { seed_first, seed_end: seed_first, ..plan.result() };
    let settings = settings(1 + (seed_first / CUTS_PER_FILESYSTEM) % 2);
    let workers = workers(&mut random, PATIENCE);
    let mut block = Block {
        plan: plan.clone(),
        machine,
        settings,
        workers,
        result,
        log_bytes: 0,
        fenced_before_cut: false,
    };

    let started = Instant::now();
    let mut broker = Broker::start(&block.machine.data, &block.settings);
    for worker in &mut block.workers {
        worker.create_topics(&broker.address).expect("a new broker answers");
    }
    block.machine.disk.set_ignores_flush(plan.control == Some(Control::IgnoreFlush));
    for seed in seed_first..seed_first + cuts {
        block.result.seed_end = seed + 1;
        block.load_and_cut(broker, seed);
        let Some(recovered) = block.recover(seed) else { break };
        broker = recovered;
        if (seed + 1).is_multiple_of(CUTS_PER_LOG_VERIFY) {
            let Some(started) = block.log_verify(broker) else { break };
            broker = started;
        }
        if seed + 1 == seed_first + cuts {
            broker.kill();
            break;
        }
    }
    block.result.seconds = started.elapsed().as_secs_f64();
    block.result
}

impl Block {
    fn load_and_cut(&mut self, mut broker: Broker, seed: u64) {
        let mut random = Random::new(seed ^ 0x006d_6f6d_656e_7421);
        let running = Running::start(std::mem::take(&mut self.workers), &broker.address, false);
        let disk = &self.machine.disk;
        if random.chance(1, 2) {
            // Slow flushes: more is written behind one that isn't done.
            let delay = Duration::from_micros(random.below(FLUSH_US_MAX));
            disk.set_fault(Operation::Flush, Fault { fails: None, delay });
        }
        let load_ms = random.below(LOAD_MS_MAX);
        if random.chance(1, 2) {
            std::thread::sleep(Duration::from_millis(load_ms));
            self.fenced_before_cut = is_fenced(&broker, self.log_bytes);
        } else {
            let operations_max = 1 << random.below(OPERATIONS_MAX_LOG2 + 1);
            disk.cut_at(1 + random.below(operations_max));
            disk.wait_for_cut(Duration::from_millis(2 * LOAD_MS_MAX));
        }
        disk.cut();
        disk.heal();
        // A broker without its disk may do what it likes, but acknowledge.
        std::thread::sleep(Duration::from_millis(random.below(30)));
        broker.kill();
        self.result.acknowledged += running.progress();
        self.workers = running.stop();
        self.result.cuts += 1;
    }

    /// Brings the disk back and the broker up; `None` after a finding.
    fn recover(&mut self, seed: u64) -> Option<Broker> {
        let mut random = Random::new(seed ^ 0x0072_6563_6f76_6572);
        let mut model_seed = seed;
        if random.chance(1, 6) {
            // The power goes again while the filesystem or the broker recovers.
            self.power_on(model_seed);
            self.machine.disk.cut_at(1 + random.below(300));
            if self.machine.mount().is_ok() {
                drop(quietly(|| Broker::start(&self.machine.data, &self.settings)));
            }
            self.machine.disk.cut();
            self.result.recovery_cuts += 1;
            model_seed = seed ^ 1 << 63;
        }
        self.power_on(model_seed);
        if let Err(error) = self.machine.mount() {
            return self.finding(seed, &[format!("the filesystem is gone: {error}")], self.everything(), 0);
        }
        self.log_bytes = self.broker_log_bytes();
        let started = quietly(|| Broker::start(&self.machine.data, &self.settings));
        let Some(broker) = started else {
            return self.finding(seed, &["the broker doesn't start".to_string()], self.everything(), 0);
        };
        let Findings { read, lost, mut wrong, unacknowledged, mut samples } =
            verify(&broker.address, &self.workers);
        if is_fenced(&broker, self.log_bytes) || std::mem::take(&mut self.fenced_before_cut) {
            wrong += 1;
            samples.push("the log directory is fenced, and the disk is healthy".to_string());
        }
        self.result.read += read;
        self.result.unacknowledged += unacknowledged;
        if lost + wrong > 0 {
            return self.finding(seed, &samples, lost, wrong);
        }
        Some(broker)
    }

    /// What is lost when nobody can be asked for it.
    fn everything(&self) -> u64 {
        self.workers.iter().map(Worker::acknowledged).sum::<u64>().max(1)
    }

    fn broker_log_bytes(&self) -> usize {
        std::fs::metadata(self.machine.data.with_extension("log")).map_or(0, |log| log.len() as usize)
    }

    fn power_on(&mut self, model_seed: u64) {
        self.machine.take_down();
        self.result.unflushed_writes += self.machine.disk.power_on(self.plan.model, model_seed) as u64;
        self.machine.attach();
    }

    /// Stops the broker, lets `corelane log verify` look at its folder, and starts it again.
    fn log_verify(&mut self, mut broker: Broker) -> Option<Broker> {
        if quietly(|| broker.stop()).is_none() {
            return self.finding(
                self.result.seed_end - 1,
                &["the broker doesn't stop cleanly".to_string()],
                0,
                1,
            );
        }
        let verified = Command::new(env!("CARGO_BIN_EXE_corelane"))
            .args(["log", "verify"])
            .arg(&self.machine.data)
            .output()
            .expect("the binary was built with the tests");
        if !verified.status.success() {
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            return self.finding(self.result.seed_end - 1, &[format!("log verify: {said}")], 0, 1);
        }
        self.result.folders_verified += 1;
        Some(Broker::start(&self.machine.data, &self.settings))
    }

    /// Counts, tells and keeps what was found. The broker ends with it.
    fn finding(&mut self, seed: u64, samples: &[String], lost: u64, wrong: u64) -> Option<Broker> {
        self.result.lost += lost;
        self.result.wrong += wrong;
        eprintln!("{}: seed {seed}: {lost} lost, {wrong} wrong", self.plan.name());
        samples.iter().take(20).for_each(|what| eprintln!("  {what}"));
        if self.plan.control.is_none() {
            let kept = crate::dir().join(format!("found-{}-{seed}", self.plan.name().replace(' ', "-")));
            keep(&self.machine, &kept);
            eprintln!("  the disk after recovery and the broker's log are kept in {}", kept.display());
        }
        None
    }
}

/// Runs what may well panic without its message.
fn quietly<T>(run: impl FnOnce() -> T) -> Option<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(hook);
    outcome.ok()
}

fn keep(machine: &Machine, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder under target");
    let log = machine.data.with_extension("log");
    let image = crate::dir().join("live");
    for from in [log, image] {
        let copied = Command::new("cp").args(["--sparse=always"]).arg(&from).arg(to).status();
        assert!(copied.is_ok_and(|status| status.success()), "{} can't be kept", from.display());
    }
}
