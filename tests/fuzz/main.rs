//! Fuzz: readers of bytes that others wrote, fed with valid inputs that were damaged.
//!
//! A target is a function over bytes that must not panic, hang or allocate by a length it read. The normal
//! test command replays `corpus/<target>/` and then a fixed number of mutations from a fixed seed. With
//! `CORELANE_FUZZ_SECONDS=N` each target runs that long from a random seed, which is printed. An input that
//! makes a target panic is saved and named; corpus/README.md says how it becomes a regression.

mod cold;
mod lanes;
mod log_files;
mod mutate;
mod protocol;

use corelane::base::random::Random;
use mutate::Mutator;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// A reader of bytes and where its inputs come from.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Valid inputs.
    seeds: Vec<Vec<u8>>,
    /// Makes a damaged input get past its checksums; most need none.
    reseal: fn(&mut [u8]),
    /// Mutations of the normal test command.
    mutations_count: u64,
}

impl Target {
    fn new(name: &'static str, run: fn(&[u8]), seeds: Vec<Vec<u8>>) -> Self {
        Self { name, run, seeds, reseal: |_| {}, mutations_count: 20_000 }
    }

    /// Stored inputs. A target that reseals what another target takes as it is shares that one's.
    fn corpus(&self) -> Vec<Vec<u8>> {
        corpus(self.name.trim_end_matches("_sealed")).into_values().collect()
    }

    fn run_one(&self, input: &[u8]) {
        let guard = Saved { target: self.name, input };
        (self.run)(input);
        drop(guard);
    }

    /// Replays the corpus and the valid inputs, then damages them.
    fn fuzz(self) {
        let mut inputs = self.corpus();
        inputs.extend(self.seeds.iter().cloned());
        inputs.iter().for_each(|input| self.run_one(input));
        let seconds: Option<u64> = std::env::var("CORELANE_FUZZ_SECONDS")
            .ok()
            .map(|text| text.parse().expect("a number of seconds"));
        let seed = match std::env::var("CORELANE_SEED") {
            Ok(text) => text.parse().expect("a number"),
            Err(_) if seconds.is_some() => std::process::id().into(),
            Err(_) => 1,
        };
        let started = Instant::now();
        let mut mutator = Mutator::new(Random::new(seed), inputs);
        let mut count = 0u64;
        loop {
            let is_over = match seconds {
                Some(seconds) => started.elapsed() >= Duration::from_secs(seconds),
                None => count >= self.mutations_count,
            };
            if is_over {
                break;
            }
            let mut input = mutator.next_input();
            (self.reseal)(&mut input);
            self.run_one(&input);
            count += 1;
        }
        if seconds.is_some() {
            println!("{}: {count} inputs from CORELANE_SEED={seed}", self.name);
        }
    }
}

/// The stored inputs of `name` by their file names.
fn corpus(name: &str) -> BTreeMap<String, Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let paths = entries.map(|entry| entry.expect("an entry of the corpus").path());
    paths
        .map(|path| {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a file of the corpus"))
        })
        .collect()
}

/// The stored inputs of `name` that were valid when they were recorded.
fn recorded(name: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    let inputs = corpus(name).into_iter().filter(|(name, _)| !name.starts_with("panic-"));
    let inputs: Vec<_> = inputs.collect();
    assert!(!inputs.is_empty(), "{name} has recorded inputs");
    inputs.into_iter()
}

/// Saves the input when its target panics.
struct Saved<'a> {
    target: &'static str,
    input: &'a [u8],
}

impl Drop for Saved<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = format!("panic-{}-{:08x}", self.target, corelane::base::checksum::crc32c(self.input));
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            let outcome = std::fs::write(&path, self.input);
            eprintln!("the input of {} bytes is in {} ({outcome:?})", self.input.len(), path.display());
        }
    }
}

macro_rules! fuzz {
    ($($name:ident: $target:expr;)*) => {
        $(
            #[test]
            fn $name() {
                $target.fuzz();
            }
        )*
    };
}

fuzz! {
    frames_are_split_or_refused: Target::new("frame", protocol::frame, protocol::frame_seeds());
    streams_are_cut_alike_however_they_come: Target::new("inbound", protocol::inbound, protocol::frame_seeds());
    headers_are_read_or_refused: Target::new("header", protocol::header, protocol::frame_seeds());
    api_versions_requests_are_read_or_refused:
        Target::new("api_versions", protocol::api_versions, protocol::api_versions_seeds());
    produce_requests_are_read_or_refused:
        Target::new("produce", protocol::produce, protocol::produce_seeds());
    fetch_requests_are_read_or_refused: Target::new("fetch", protocol::fetch, protocol::fetch_seeds());
    batches_are_read_or_refused: Target {
        reseal: protocol::reseal_batch,
        ..Target::new("batch", protocol::batch, protocol::batch_seeds())
    };
    bodies_are_decompressed_or_refused:
        Target::new("decompress", protocol::decompress, protocol::decompress_seeds());
    cold_requests_are_read_or_refused: Target::new("cold", cold::request, cold::seeds());
    files_of_the_log_are_dumped_whatever_is_in_them: Target {
        mutations_count: 3000,
        ..Target::new("log_file", log_files::dump, log_files::seeds())
    };
    files_of_the_log_with_right_checksums_are_dumped_whatever_they_say: Target {
        reseal: log_files::reseal,
        mutations_count: 3000,
        ..Target::new("log_file_sealed", log_files::dump, log_files::seeds())
    };
    lanes_recover_or_refuse_whatever_rotted: Target {
        mutations_count: 150,
        ..Target::new("lane", lanes::recover, lanes::seeds())
    };
    lanes_recover_or_refuse_whatever_is_sealed_wrongly: Target {
        mutations_count: 150,
        ..Target::new("lane_sealed", lanes::recover_sealed, lanes::seeds())
    };
}
