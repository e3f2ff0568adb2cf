//! Errors: operations of the disk that fail or hang under load.
//!
//! After a failed write or flush the log directory takes nothing more: Produce answers 56, the process
//! stays and answers everything else. A hung disk gives no acknowledgement and no wrong answer; others are
//! served meanwhile. Healed and restarted, everything acknowledged is there.

use crate::broker::Broker;
use crate::client::Client;
use crate::disk::{Fails, Fault, Model, Operation};
use crate::load::{Running, Worker};
use crate::machine::{Filesystem, Machine};
use crate::power_cut::{settings, workers};
use crate::records::cut_batches;
use crate::results::{self, RunResult};
use crate::verify::verify;
use corelane::base::random::Random;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub const KAFKA_STORAGE_ERROR: i16 = 56;

/// What must come comes within this; long, so that a busy machine finds nothing wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Records acknowledged before a fault, and behind its end.
pub const SOME_RECORDS: u64 = 2_000;

const FREEZE: Duration = Duration::from_secs(5);
/// What was on its way when the disk froze.
const ON_THE_WAY: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct ErrorsOptions {
    #[command(flatten)]
    common: Options,
    /// What fails.
    #[arg(long, value_delimiter = ',', value_enum, default_value = "write,flush,read")]
    operations: Vec<Operation>,
}

#[derive(clap::Args)]
pub struct Options {
    /// Faults on each filesystem, and of each operation.
    #[arg(long, default_value_t = 12)]
    rounds: u64,
    #[arg(long, value_delimiter = ',', value_enum, default_value = "ext4,xfs")]
    fs: Vec<Filesystem>,
    /// Logical sectors of the disk, in bytes.
    #[arg(long, default_value_t = 512)]
    sector: u32,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// One broker on one disk, and what was found.
pub struct Bench {
    pub machine: Machine,
    pub settings: Vec<&'static str>,
    pub workers: Vec<Worker>,
    pub result: RunResult,
    pub notes: Vec<String>,
    started: Instant,
}

impl Bench {
    pub fn new(
        command: &str,
        filesystem: Filesystem,
        sector: u32,
        size_bytes: u64,
        workers: Vec<Worker>,
    ) -> Self {
        let machine = Machine::start(&crate::dir(), filesystem, sector, size_bytes);
        std::fs::remove_file(machine.data.with_extension("log")).ok();
        let result = RunResult {
            filesystem: filesystem.name().to_string(),
            sector_bytes: sector,
            ..RunResult::new(command)
        };
        Self { machine, settings: settings(1), workers, result, notes: Vec::new(), started: Instant::now() }
    }

    pub fn start_broker(&self) -> Broker {
        Broker::start(&self.machine.data, &self.settings)
    }

    pub fn begin_load(&mut self, broker: &Broker) -> Running {
        Running::start(std::mem::take(&mut self.workers), &broker.address, true)
    }

    pub fn end_load(&mut self, running: Running) {
        self.result.acknowledged += running.progress();
        self.workers = running.stop();
    }

    pub fn wrong(&mut self, what: String) {
        eprintln!("{} {}: wrong: {what}", self.result.command, self.result.filesystem);
        self.result.wrong += 1;
    }

    /// Reads everything back; true when all is well.
    pub fn compare(&mut self, broker: &Broker) -> bool {
        let findings = verify(&broker.address, &self.workers);
        self.result.read += findings.read;
        self.result.unacknowledged += findings.unacknowledged;
        self.result.lost += findings.lost;
        self.result.wrong += findings.wrong;
        findings.samples.iter().take(20).for_each(|what| eprintln!("  {what}"));
        findings.is_clean()
    }

    /// Takes the filesystem down and up again, as an operator does after an error.
    pub fn remount(&mut self) {
        self.machine.take_down();
        self.machine.attach();
        self.machine.mount().unwrap_or_else(|error| panic!("a healed disk can be mounted: {error}"));
    }

    /// What the load was refused with, and how often.
    pub fn refusals(&self) -> BTreeMap<i16, u64> {
        let mut sums = BTreeMap::new();
        for (code, count) in self.workers.iter().flat_map(|worker| &worker.refusals) {
            *sums.entry(*code).or_default() += count;
        }
        sums
    }

    pub fn forget_refusals(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.refusals.clear());
    }

    /// Prints and keeps the result; true when nothing was found.
    pub fn end(mut self) -> bool {
        self.result.seconds = self.started.elapsed().as_secs_f64();
        self.result.notes = (!self.notes.is_empty()).then(|| self.notes.join("; "));
        let result = &self.result;
        println!(
            "{} {} {}: {} faults, {} acknowledged, {} lost, {} wrong; {}",
            result.command,
            result.filesystem,
            result.model,
            result.cuts,
            result.acknowledged,
            result.lost,
            result.wrong,
            result.notes.as_deref().unwrap_or("")
        );
        results::append(result);
        result.lost == 0 && result.wrong == 0
    }
}

/// True while the broker answers on a new connection.
pub fn answers(broker: &Broker) -> bool {
    let patience = Duration::from_secs(10);
    Client::connect(&broker.address, patience).and_then(|mut client| client.topics()).is_ok()
}

// ---- Errors ----------------------------------------------------------------------------------

pub fn run_errors(options: &ErrorsOptions) -> bool {
    let mut clean = true;
    for filesystem in &options.common.fs {
        for operation in &options.operations {
            clean &= errors_of(&options.common, *filesystem, *operation);
        }
    }
    clean
}

fn errors_of(options: &Options, filesystem: Filesystem, operation: Operation) -> bool {
    let mut random = Random::new(options.seed ^ 0x6572_726f_7273);
    let workers = workers(&mut random, PATIENCE);
    let mut bench = Bench::new("errors", filesystem, options.sector, 1 << 30, workers);
    bench.result.model = format!("{operation:?}").to_lowercase();
    (bench.result.seed_first, bench.result.seed_end) = (options.seed, options.seed + options.rounds);
    let broker = bench.start_broker();
    for worker in &mut bench.workers {
        worker.create_topics(&broker.address).expect("a new broker answers");
    }
    let mut broker = Some(broker);
    let (mut refused, mut unnoticed) = (0, 0);
    for seed in options.seed..options.seed + options.rounds {
        let mut random = Random::new(seed ^ (operation as u64) << 32);
        let serving = broker.take().unwrap_or_else(|| bench.start_broker());
        match fail_once(&mut bench, serving, operation, &mut random) {
            true => refused += 1,
            false => unnoticed += 1,
        }
        bench.result.cuts += 1;
        bench.remount();
        let again = bench.start_broker();
        if !bench.compare(&again) {
            break;
        }
        broker = Some(again);
    }
    drop(broker);
    bench.notes.push(format!("answered with 56: {refused}, not noticed by a Produce: {unnoticed}"));
    bench.end()
}

/// One fault under load; the broker ends with it. True when a Produce was answered with 56.
fn fail_once(bench: &mut Bench, mut broker: Broker, operation: Operation, random: &mut Random) -> bool {
    bench.forget_refusals();
    let running = bench.begin_load(&broker);
    if !running.wait_for(SOME_RECORDS, PATIENCE) {
        bench.wrong("a healthy broker acknowledges nothing".to_string());
    }
    let nth_max = 1 << random.below(10);
    let nth = 1 + random.below(nth_max);
    let fails = [Fails::Nth(nth), Fails::From(nth), Fails::Chance(20)][random.below(3) as usize];
    bench.machine.disk.forget_failures();
    bench.machine.disk.set_fault(operation, Fault { fails: Some(fails), ..Fault::default() });
    if operation == Operation::Read {
        read_until_failure(bench, &broker);
    }
    if !bench.machine.disk.wait_for_failure(PATIENCE) {
        bench.wrong(format!("no {operation:?} within {PATIENCE:?}"));
    }
    // A broker whose write or flush failed acknowledges nothing more; one that isn't told goes on.
    std::thread::sleep(Duration::from_secs(1));
    let before = running.progress();
    std::thread::sleep(Duration::from_secs(1));
    let after = running.progress();
    if !answers(&broker) {
        bench.wrong(format!("the broker is gone after a failed {operation:?}"));
    }
    bench.machine.disk.heal();
    // The healed disk makes nobody forget: until a restart it stays refused.
    std::thread::sleep(Duration::from_millis(300));
    let healed = running.progress();
    broker.kill();
    bench.end_load(running);
    let is_refused = bench.refusals().contains_key(&KAFKA_STORAGE_ERROR);
    if is_refused && operation != Operation::Read && (before != after || after != healed) {
        bench.wrong(format!("after 56 acknowledgements went on: {before}, {after}, {healed}"));
    }
    if random.chance(1, 2) {
        // What a failed flush didn't take is really gone now.
        bench.machine.disk.cut();
        bench.machine.take_down();
        bench.machine.disk.power_on(Model::Subset, random.next_u64());
        bench.machine.attach();
        bench.machine.mount().unwrap_or_else(|error| panic!("after a cut it can be mounted: {error}"));
    }
    is_refused
}

/// Reads old records, which are on the disk alone, until a read of the disk failed.
fn read_until_failure(bench: &mut Bench, broker: &Broker) {
    let started = Instant::now();
    let disk = &bench.machine.disk;
    while disk.counts().failed == 0 && started.elapsed() < PATIENCE {
        let Ok(mut client) = Client::connect(&broker.address, PATIENCE) else { break };
        for partition in 0..4 {
            let Ok(Ok(mut at)) = client.offset("steady", partition, crate::client::OFFSET_EARLIEST) else {
                break;
            };
            while disk.counts().failed == 0 {
                let Ok(fetched) = client.fetch("steady", 0, 1 << 20, &[(partition, at)]) else { break };
                let batches =
                    fetched.first().map(|fetched| cut_batches(&fetched.records)).unwrap_or_default();
                let ends = batches.iter().filter_map(|batch| {
                    let header = corelane::protocol::record_batch::BatchHeader::view(batch)?;
                    Some(header.last_offset().0 + 1)
                });
                let Some(end) = ends.max() else { break };
                at = end;
            }
        }
    }
}

// ---- Freeze ----------------------------------------------------------------------------------

pub fn run_freeze(options: &Options) -> bool {
    let mut clean = true;
    for filesystem in &options.fs {
        clean &= freeze_on(options, *filesystem);
    }
    clean
}

fn freeze_on(options: &Options, filesystem: Filesystem) -> bool {
    let mut random = Random::new(options.seed ^ 0x6672_6565_7a65);
    let workers = workers(&mut random, Duration::from_secs(2));
    let mut bench = Bench::new("freeze", filesystem, options.sector, 1 << 30, workers);
    (bench.result.seed_first, bench.result.seed_end) = (options.seed, options.seed + options.rounds);
    let mut broker = bench.start_broker();
    for worker in &mut bench.workers {
        worker.create_topics(&broker.address).expect("a new broker answers");
    }
    let mut resumed_ms = Vec::new();
    for _ in 0..options.rounds {
        let running = bench.begin_load(&broker);
        if !running.wait_for(SOME_RECORDS, PATIENCE) {
            bench.wrong("a healthy broker acknowledges nothing".to_string());
        }
        resumed_ms.push(freeze_and_thaw(&mut bench, &broker, &running));
        kill_frozen(&bench, &mut broker, &mut random);
        bench.end_load(running);
        bench.result.cuts += 1;
        broker = bench.start_broker();
        if !bench.compare(&broker) {
            break;
        }
    }
    drop(broker);
    bench.notes.push(format!("acknowledging again after a thaw, ms: {resumed_ms:?}"));
    bench.end()
}

/// Returns the milliseconds from the thaw to the next acknowledgement.
fn freeze_and_thaw(bench: &mut Bench, broker: &Broker, running: &Running) -> u128 {
    bench.machine.disk.freeze();
    std::thread::sleep(ON_THE_WAY);
    let frozen = Instant::now();
    let before = running.progress();
    let (mut asked, mut answered) = (0, 0);
    while frozen.elapsed() < FREEZE {
        asked += 1;
        answered += u64::from(answers(broker));
        std::thread::sleep(Duration::from_millis(100));
    }
    let after = running.progress();
    bench.machine.disk.thaw();
    let thawed = Instant::now();
    if after != before {
        bench.wrong(format!("{} records were acknowledged by a frozen disk", after - before));
    }
    if answered < asked {
        bench.wrong(format!("of {asked} Metadata {answered} were answered while the disk was frozen"));
    }
    if !running.wait_for(after + 1, PATIENCE) {
        bench.wrong("a thawed disk isn't used again".to_string());
    }
    let resumed = thawed.elapsed().as_millis();
    if !running.wait_for(after + SOME_RECORDS, PATIENCE) {
        bench.wrong("a thawed broker stops again".to_string());
    }
    resumed
}

/// A process that waits for the disk can't die before the disk answers.
fn kill_frozen(bench: &Bench, broker: &mut Broker, random: &mut Random) {
    bench.machine.disk.freeze();
    std::thread::sleep(Duration::from_millis(random.below(1000)));
    std::thread::scope(|scope| {
        let killed = scope.spawn(|| broker.kill());
        std::thread::sleep(Duration::from_millis(500));
        bench.machine.disk.thaw();
        killed.join().expect("it dies once the disk answers");
    });
}
