//! Seeds: runs a simulation over many seeds, on every core, and keeps what came of it.
//!
//! | variable             | meaning                                                                       |
//! |----------------------|-------------------------------------------------------------------------------|
//! | `CORELANE_SEED`      | replays one seed                                                              |
//! | `CORELANE_SEEDS`     | so many seeds instead of the normal run's                                     |
//! | `CORELANE_SEEDS_LOG` | a file: the run goes on behind the last seed that it names for the same       |
//! |                      | storage code, and appends one line when it ends, a JSON object                |
//!
//! The storage code is named by the hashes of `src/log` and `src/ring` in the last commit; a tree with
//! changes that aren't committed is `dirty`, and nothing is resumed from or for it.

use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PROGRESS: Duration = Duration::from_secs(20);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The storage code that runs, and its commit.
fn code() -> (String, String) {
    let storage = git(&["rev-parse", "HEAD:src/log", "HEAD:src/ring"]).replace('\n', "+");
    let clean = git(&["status", "--porcelain", "--", "src"]).is_empty();
    let storage = if clean && !storage.is_empty() { storage } else { "dirty".to_owned() };
    (storage, git(&["rev-parse", "HEAD"]))
}

/// One past the last seed of this simulation that the log names for this code.
fn resume(log: &str, simulation: &str, storage: &str) -> u64 {
    if storage == "dirty" {
        return 0;
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_this = lines.filter(|line| line["simulation"] == simulation && line["storage"] == storage);
    of_this.filter_map(|line| line["end"].as_u64()).max().unwrap_or(0)
}

/// Runs `run` for each seed and panics with the seeds that failed; `default_count` of them in a normal
/// run.
pub fn run_seeds(simulation: &str, default_count: u64, run: impl Fn(u64) + Sync) {
    if let Some(seed) = number("CORELANE_SEED") {
        return run(seed);
    }
    let count = number("CORELANE_SEEDS").unwrap_or(default_count);
    let Ok(log) = std::env::var("CORELANE_SEEDS_LOG") else {
        let failed = on_every_core(simulation, 0..count, &run);
        assert!(failed.is_empty(), "{simulation}: replay with CORELANE_SEED={}: {failed:?}", failed[0]);
        return;
    };
    let (storage, commit) = code();
    let start = resume(&log, simulation, &storage);
    let seeds = start..start + count;
    let began = Instant::now();
    let failed = on_every_core(simulation, seeds.clone(), &run);
    let line = json!({
        "simulation": simulation,
        "storage": storage,
        "commit": commit,
        "start": seeds.start,
        "end": seeds.end,
        "failed": failed,
        "seconds": began.elapsed().as_secs(),
    });
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("the log opens");
    writeln!(file, "{line}").expect("the log is written");
    assert!(failed.is_empty(), "{simulation}: replay with CORELANE_SEED={}: {failed:?}", failed[0]);
}

fn on_every_core(simulation: &str, seeds: Range<u64>, run: &(impl Fn(u64) + Sync)) -> Vec<u64> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    // A normal run shares its cores with other tests.
    let threads = if seeds.end - seeds.start > 1_000 { threads } else { 1 };
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let told = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| run(seed))).is_err() {
                        eprintln!("{simulation}: seed {seed} failed");
                        failed.lock().expect("nobody panics with it").push(seed);
                    }
                    let mut told = told.lock().expect("nobody panics with it");
                    if told.elapsed() > PROGRESS {
                        *told = Instant::now();
                        eprintln!("{simulation}: seed {seed} of {}", seeds.end);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("nobody panics with it");
    failed.sort_unstable();
    failed
}
