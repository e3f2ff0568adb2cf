//! Faulty disk: the built broker on ext4 and XFS over a disk that loses power, fails, hangs and fills up.
//!
//! A command for root with /dev/fuse and loop devices, apart from `cargo test --all-targets`:
//!
//! ```sh
//! cargo test --release --test faulty_disk --features faulty-disk -- power-cut --cuts 1000 --fs ext4,xfs
//! ```
//!
//! # The recipe
//!
//! ```text
//! broker ── ext4 or XFS with its journal ── loop device, direct I/O ── one file by FUSE ── `disk.rs`
//!              a real kernel's writes and flushes                          what is durable, what isn't yet
//! ```
//!
//! The loop driver turns the filesystem's flushes into fsync of the file, and its forced writes into a
//! write and an fsync. A power cut makes every operation fail, with nothing more written; the broker is
//! killed, the filesystem unmounted; then the disk holds what was flushed and what the crash model keeps
//! of the rest. It is attached and mounted again, which replays the filesystem's journal, and the broker
//! recovers on it and is asked for everything.
//!
//! # The crash models
//!
//! | model  | of the writes since the last flush                                                |
//! |--------|-----------------------------------------------------------------------------------|
//! | drop   | none survives                                                                     |
//! | subset | each 4 KiB block with a chance, whatever the order of writing                     |
//! | torn   | each sector of 512 bytes with a chance, whatever the order of writing             |
//! | prefix | those up to some moment survive, the last of them in part                         |
//! | all    | all survive: what was never acknowledged is there                                 |
//!
//! A torn block of XFS's own directories and trees is beyond XFS itself (its journal holds changes, not whole
//! blocks), so `torn` keeps or drops those as a whole; ext4's journal holds whole blocks and needs no mercy.
//!
//! Outside of the model: a disk that lies about its flushes (`--control ignore-flush`, which must be seen to
//! lose records, or this instrument is broken), and damage to what was flushed.
//!
//! The seed draws the moments and what survives; threads and clocks do the rest, so a seed names a run and
//! doesn't replay it. Figures are appended to `results.jsonl`; `summary` adds them up.

#[allow(dead_code, reason = "shared with the tests of clients, which use all of it")]
#[path = "../interop/broker.rs"]
mod broker;
mod client;
mod disk;
mod errors;
mod load;
mod machine;
mod power_cut;
mod records;
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with others, whose tests it has; without a harness they are no tests"
)]
#[path = "../../perf/load/responses.rs"]
mod responses;
mod results;
mod space;
mod verify;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "The built broker on a disk that loses power, fails, hangs and fills up")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cuts the power under load, again and again, and compares what is there with what was acknowledged.
    PowerCut(power_cut::Options),
    /// Fails the n-th write, flush or read under load.
    Errors(errors::ErrorsOptions),
    /// Freezes the disk for some seconds under load, and kills the broker while it is frozen.
    Freeze(errors::Options),
    /// Fills the filesystem up under load and makes room again.
    Full(space::FullOptions),
    /// Produces for minutes near a topic's size limit on a small disk.
    Retention(space::RetentionOptions),
    /// Adds up the results of all runs.
    Summary,
}

/// Where disks and mounts are.
fn dir() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/faulty-disk")
}

fn main() -> ExitCode {
    let clean = match Arguments::parse().command {
        Command::PowerCut(options) => power_cut::run(&options),
        Command::Errors(options) => errors::run_errors(&options),
        Command::Freeze(options) => errors::run_freeze(&options),
        Command::Full(options) => space::run_full(&options),
        Command::Retention(options) => space::run_retention(&options),
        Command::Summary => {
            results::summary();
            true
        }
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
