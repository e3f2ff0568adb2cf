//! Log command: `corelane log dump`, `verify` and `accept-loss` on the folder of a stopped broker.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::config::Config;
use super::log_dirs::{DirLock, PlacedLane};
use super::shard_thread::lane_options;
use crate::base::ids::{PartitionId, TopicId, TopicPartition};
use crate::catalog::MetadataRecord;
use crate::control;
use crate::log::{self, Lane};
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

/// Checks every checksum and index of a data folder against the data, at most so many bytes per second; an
/// error names the problems.
pub fn verify(dir: &Path, bytes_per_second: Option<u64>) -> Result<(), String> {
    let _locked = lock(dir)?;
    let mut told_bytes = 0;
    let began = Instant::now();
    let mut progress = |report: &log::VerifyReport| {
        if report.bytes >= told_bytes + PROGRESS_BYTES {
            told_bytes = report.bytes;
            let percent = report.bytes * 100 / report.bytes_total.max(1);
            let (mib, problems) = (report.bytes >> 20, report.problems.len());
            eprintln!(
                "{percent} %: {mib} MiB of {} segments checked, {problems} problems",
                report.segments_count
            );
        }
        if let Some(rate) = bytes_per_second {
            let due = Duration::from_secs_f64(report.bytes as f64 / rate.max(1) as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
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

/// Lets a damaged partition go on without the records that are lost; says which these are. `name` is the
/// topic's, `-` and the partition's number.
pub fn accept_loss(config: &Config, name: &str) -> Result<(), String> {
    let mut locks = Vec::new();
    for dir in &config.log_dirs {
        locks.push(lock(dir)?);
    }
    let records =
        control::read_records(&config.log_dirs[0].join("meta")).map_err(|error| error.to_string())?;
    let id = find(&records, name).ok_or_else(|| format!("there is no partition {name}"))?;
    let mut ring = ring()?;
    for dir in &config.log_dirs {
        for lane in log::list_lanes(&mut ring, dir).map_err(|error| error.to_string())? {
            let options = lane_options(config, &PlacedLane { lane, dir: dir.clone() }, TOKEN_OWNER);
            let recovered = Lane::recover(&mut ring, options);
            let (mut lane, report) = recovered.map_err(|error| error.to_string())?;
            if let Some(damage) = report.damaged.iter().find(|damage| damage.id == id) {
                lane.accept_loss(&mut ring, damage.log).map_err(|error| error.to_string())?;
                println!("{name}: {damage}");
                println!("accepted: the next record gets offset {}", damage.log_end.0);
                return Ok(());
            }
        }
    }
    Err(format!("{name} isn't damaged: nothing was changed"))
}

/// The partition of that name, among topics that aren't deleted.
fn find(records: &[MetadataRecord], name: &str) -> Option<TopicPartition> {
    let (topic, number) = name.rsplit_once('-')?;
    let number: i32 = number.parse().ok()?;
    let mut found: Option<TopicId> = None;
    for record in records {
        match record {
            MetadataRecord::TopicCreated { name, topic_id, .. } if name == topic => found = Some(*topic_id),
            MetadataRecord::TopicDeleted { topic_id } if found == Some(*topic_id) => found = None,
            _ => {}
        }
    }
    found.map(|topic_id| TopicPartition { topic_id, partition: PartitionId(number) })
}
