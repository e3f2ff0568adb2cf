//! The binary `corelane-floor`: one row's I/O and nothing else, so that a broker's CPU can be divided by it.
//!
//! It answers `corelane-load` as a broker would and keeps no promise of one: offsets are invented, frames of
//! all connections lie mixed in one file that nobody can read, records are always the same. One thread.

mod disk;
mod fetch;
mod frames;
mod handshake;
mod network;
mod produce;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "corelane-floor", about = "The least that a row's input and output costs.")]
struct Options {
    /// Address to listen on, which is also the one that clients are told.
    #[arg(long, global = true, default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Receive, checksum, write.
    Produce(ProduceOptions),
    /// Receive and answer.
    Request,
    /// Send the same records again and again.
    Fetch(FetchOptions),
}

#[derive(Args)]
pub struct ProduceOptions {
    /// Written round and round; made and filled at the start.
    #[arg(long)]
    pub file: PathBuf,
    #[arg(long, default_value_t = 1024)]
    pub file_mib: usize,
    #[arg(long, value_enum, default_value_t = Flush::Dsync)]
    pub flush: Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flush {
    /// Answered when received and checksummed; written later, never flushed.
    None,
    /// Answered after a write that is its own flush.
    Dsync,
    /// Answered after a write and a flush.
    Fdatasync,
}

#[derive(Args)]
pub struct FetchOptions {
    /// Made and filled at the start; not used when the source is memory.
    #[arg(long)]
    pub file: Option<PathBuf>,
    #[arg(long, default_value_t = 1024)]
    pub file_mib: usize,
    #[arg(long, default_value_t = 16)]
    pub partitions: usize,
    #[arg(long, value_enum, default_value_t = Source::Memory)]
    pub source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    Memory,
    /// The page cache, where the file still is from being written.
    Sendfile,
    /// The disk, 1 MiB a read, 4 reads in flight; for one reader, who takes the partitions by turns.
    Direct,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.mode {
        Mode::Produce(produce) => produce::run(options.listen, Some(produce)),
        Mode::Request => produce::run(options.listen, None),
        Mode::Fetch(fetch) => fetch::run(options.listen, fetch),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelane-floor: {error}");
            ExitCode::FAILURE
        }
    }
}
