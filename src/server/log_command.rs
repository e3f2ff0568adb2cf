//! Log command: `corelane log dump` and `corelane log verify` on the folder of a stopped broker.

use std::io::Write;
use std::path::Path;

use super::log_dirs::DirLock;
use crate::log;
use crate::ring::{Ring, RingOptions};

/// Owner of the ring tokens of these commands; nobody else is on their ring.
const TOKEN_OWNER: u8 = 1;

/// Bytes between two lines of progress.
const PROGRESS_BYTES: u64 = 256 << 20;

fn ring() -> Result<Ring, String> {
    let options =
        RingOptions { receive_buffers_count: 1, receive_buffer_bytes: 4096, ..RingOptions::default() };
    Ring::kernel(&options).map_err(|error| error.to_string())
}

/// Locks a folder that is there: nothing is made by looking.
fn lock(dir: &Path) -> Result<DirLock, String> {
    if !dir.join("lanes").is_dir() {
        return Err(format!("{} is no log directory: it has no lanes", dir.display()));
    }
    DirLock::take(dir)
}

/// Prints journals, checkpoints, segments and indexes readably: of a data folder, or one file of it.
pub fn dump(path: &Path) -> Result<(), String> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut failed = None;
    let mut line = |text: &str| {
        // A reader that has seen enough closes the pipe; the rest needn't be read for nobody.
        if let Err(error) = writeln!(out, "{text}") {
            failed.get_or_insert(error);
        }
    };
    let mut ring = ring()?;
    let dumped = if path.is_dir() {
        let _locked = lock(path)?;
        log::dump_dir(&mut ring, path, TOKEN_OWNER, &mut line)
    } else {
        log::dump_file(&mut ring, path, TOKEN_OWNER, &mut line)
    };
    dumped.map_err(|error| error.to_string())?;
    match failed {
        Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("writing: {error}")),
        _ => out.flush().or_else(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(format!("writing: {error}")),
        }),
    }
}

/// Checks every checksum and index of a data folder against the data; an error names the problems.
pub fn verify(dir: &Path) -> Result<(), String> {
    let _locked = lock(dir)?;
    let mut told_bytes = 0;
    let mut progress = |report: &log::VerifyReport| {
        if report.bytes >= told_bytes + PROGRESS_BYTES {
            told_bytes = report.bytes;
            eprintln!("{} segments, {} MiB checked", report.segments_count, report.bytes >> 20);
        }
    };
    let report =
        log::verify(&mut ring()?, dir, TOKEN_OWNER, &mut progress).map_err(|error| error.to_string())?;
    println!(
        "{} lanes, {} partitions, {} segments, {} batches in {} MiB, {} MiB of journal: {} problems",
        report.lanes_count,
        report.partitions_count,
        report.segments_count,
        report.batches_count,
        report.bytes >> 20,
        report.journal_bytes >> 20,
        report.problems.len()
    );
    if report.problems.is_empty() {
        return Ok(());
    }
    Err(format!("damaged:\n{}", report.problems.join("\n")))
}
