//! Results: every run's figures in one file of the repository, and their sums.
//!
//! Runs of commits whose storage modules are the same are summed: their trees' hashes are kept.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One line of the file: so many faults with one filesystem and one crash model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunResult {
    pub command: String,
    pub commit: String,
    /// The work tree differed from the commit.
    pub dirty: bool,
    /// Trees of `src/log` and `src/ring`; with `+dirty` when the work tree differed there.
    pub storage: String,
    pub filesystem: String,
    pub model: String,
    pub sector_bytes: u32,
    /// A deliberate mistake of the disk: what is lost proves the instrument.
    pub control: Option<String>,
    pub seed_first: u64,
    /// Behind the last seed.
    pub seed_end: u64,
    pub cuts: u64,
    /// Further cuts, in the middle of a recovery.
    pub recovery_cuts: u64,
    /// Writes the disk had not flushed when the power went, of all cuts.
    pub unflushed_writes: u64,
    /// Records acknowledged on durable topics, each counted once.
    pub acknowledged: u64,
    /// Records read back, at every verification again.
    pub read: u64,
    /// Records found that were never acknowledged.
    pub unacknowledged: u64,
    pub lost: u64,
    pub wrong: u64,
    /// Times `corelane log verify` passed.
    pub folders_verified: u64,
    pub seconds: f64,
    /// What else a run has to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

impl RunResult {
    /// A result without figures, of the sources as they are.
    pub fn new(command: &str) -> Self {
        let changed = |paths: &[&str]| {
            let arguments = [&["status", "--porcelain", "--untracked-files=no", "--"], paths].concat();
            // The results themselves change with every run.
            git(&arguments).lines().any(|line| !line.ends_with("results.jsonl"))
        };
        let trees = git(&["rev-parse", "HEAD:src/log", "HEAD:src/ring"]);
        let mut storage = trees.lines().map(|tree| &tree[..12]).collect::<Vec<_>>().join("-");
        if changed(&["src/log", "src/ring"]) {
            storage.push_str("+dirty");
        }
        Self {
            command: command.to_string(),
            commit: git(&["rev-parse", "--short=12", "HEAD"]),
            dirty: changed(&["."]),
            storage,
            ..Self::default()
        }
    }

    /// Runs that may be summed have the same.
    fn kind(&self) -> (String, String, String, String, u32, Option<String>) {
        let command = self.command.clone();
        let (filesystem, model) = (self.filesystem.clone(), self.model.clone());
        (self.storage.clone(), command, filesystem, model, self.sector_bytes, self.control.clone())
    }

    fn add(&mut self, other: &Self) {
        self.seed_first = self.seed_first.min(other.seed_first);
        self.seed_end = self.seed_end.max(other.seed_end);
        self.cuts += other.cuts;
        self.recovery_cuts += other.recovery_cuts;
        self.unflushed_writes += other.unflushed_writes;
        self.acknowledged += other.acknowledged;
        self.read += other.read;
        self.unacknowledged += other.unacknowledged;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.folders_verified += other.folders_verified;
        self.seconds += other.seconds;
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faulty_disk/results.jsonl")
}

pub fn append(result: &RunResult) {
    let line = serde_json::to_string(result).expect("plain figures");
    let file_ = std::fs::OpenOptions::new().create(true).append(true).open(file());
    let written = file_.and_then(|mut file| writeln!(file, "{line}"));
    written.unwrap_or_else(|error| panic!("{}: {error}", file().display()));
}

fn read_all() -> Vec<RunResult> {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    text.lines().map(read).collect()
}

/// Cuts made before with the same sources and settings, and the seed behind theirs.
pub fn done_before(like: &RunResult) -> (u64, u64) {
    let of_kind = read_all().into_iter().filter(|result| result.kind() == like.kind());
    of_kind.fold((0, 0), |(cuts, seed), result| (cuts + result.cuts, seed.max(result.seed_end)))
}

/// Prints the sums of all runs, for each state of the storage modules.
pub fn summary() {
    let mut sums: BTreeMap<_, RunResult> = BTreeMap::new();
    let mut storages: Vec<String> = Vec::new();
    for result in read_all() {
        if !storages.contains(&result.storage) {
            storages.push(result.storage.clone());
        }
        let sum = sums.entry(result.kind());
        sum.and_modify(|sum| sum.add(&result)).or_insert(result);
    }
    for storage in storages {
        println!("\nstorage {storage}\n");
        println!(
            "| run | disk | model | cuts | in recovery | acknowledged | read back | lost | wrong | s per cut |"
        );
        println!("|---|---|---|---:|---:|---:|---:|---:|---:|---:|");
        for sum in sums.values().filter(|sum| sum.storage == storage) {
            let control = sum.control.as_ref().map_or(String::new(), |control| format!(" ({control})"));
            println!(
                "| {}{control} | {} {} | {} | {} | {} | {} | {} | {} | {} | {:.1} |",
                sum.command,
                sum.filesystem,
                sum.sector_bytes,
                sum.model,
                sum.cuts,
                sum.recovery_cuts,
                sum.acknowledged,
                sum.read,
                sum.lost,
                sum.wrong,
                sum.seconds / sum.cuts.max(1) as f64
            );
        }
    }
}
