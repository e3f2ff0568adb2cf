//! Check: what a broker needs of this machine and what would make it better, before it is started.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{major, minor};
use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;
use serde::Serialize;

use super::flush::{self, Flush};
use super::knob::{KNOBS, Knob, NOTHING_CHANGED, Place, Status};
use crate::ring::probe::{FlushProbe, Overwrite};
use crate::ring::{Ring, RingOptions};

/// With fewer a broker has hardly more than its own files.
const DESCRIPTORS_MIN: u64 = 256;
/// All that the ring uses without asking is in Linux 6.1.
const KERNEL_MIN: (u32, u32) = (6, 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Could be better.
    Off,
    /// This machine doesn't have it, and nothing is lost by that.
    Absent,
    /// Without it a broker doesn't start, or doesn't keep its promises.
    Missing,
}

#[derive(Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub verdict: Verdict,
    pub found: String,
    /// Of what is off or missing: what it costs, and how to fix it.
    pub cost: String,
    pub fix: String,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    /// Nothing essential is missing.
    pub is_fit: bool,
    pub lines: Vec<Line>,
    pub flushes: Vec<Flush>,
}

impl Line {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, found, "", "")
    }

    fn new(
        name: &str,
        verdict: Verdict,
        found: impl Into<String>,
        cost: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { name: name.to_string(), verdict, found: found.into(), cost: cost.into(), fix: fix.into() }
    }
}

/// Looks at everything. Changes nothing, but that each log directory has a small file while its drive is measured.
pub fn check(place: &Place) -> Report {
    let mut lines = vec![kernel()];
    lines.extend(rings(place.cores.len().max(1)));
    lines.push(descriptors());
    let mut flushes = Vec::new();
    for dir in &place.log_dirs {
        let (found, measured) = log_dir(dir);
        lines.extend(found);
        flushes.extend(measured);
    }
    lines.extend(KNOBS.iter().map(|knob| of_knob(knob, place)));
    let is_fit = lines.iter().all(|line| line.verdict != Verdict::Missing);
    Report { version: env!("CARGO_PKG_VERSION"), is_fit, lines, flushes }
}

/// Major and minor number of a release such as `6.18.44-fc`.
fn release_numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel() -> Line {
    let release = uname().map(|found| found.release().to_string_lossy().into_owned()).unwrap_or_default();
    match release_numbers(&release) {
        Some(found) if found >= KERNEL_MIN => Line::ok("kernel", format!("Linux {release}")),
        _ => Line::new(
            "kernel",
            Verdict::Off,
            format!("Linux '{release}'"),
            "older kernels than 6.1 lack what the ring uses, unless somebody added it",
            "use Linux 6.1 or newer",
        ),
    }
}

/// As many rings as there are shards, all at once, as they are at a start: the kernel refuses here what it would there.
fn rings(shards_count: usize) -> Vec<Line> {
    const NAME: &str = "io_uring";
    let mut made = Vec::with_capacity(shards_count);
    for _ in 0..shards_count {
        match Ring::kernel(&RingOptions::default()) {
            Ok(ring) => made.push(ring),
            Err(error) => {
                let found = format!("ring {} of {shards_count}: {}", made.len() + 1, error.what);
                return vec![Line::new(
                    NAME,
                    Verdict::Missing,
                    found,
                    "the broker doesn't start without it",
                    error.remedy,
                )];
            }
        }
    }
    let mut lines = vec![Line::ok(NAME, format!("{shards_count} made, one for each shard"))];
    for feature in made[0].features() {
        let found = format!("{}, of {}", feature.name, feature.since);
        lines.push(match feature.is_there {
            true => Line::ok(NAME, found),
            false => {
                Line::new(NAME, Verdict::Off, format!("without {found}"), feature.cost, "use a newer kernel")
            }
        });
    }
    lines
}

/// Of the hard limit: a start takes all of it.
fn descriptors() -> Line {
    const NAME: &str = "descriptors";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= DESCRIPTORS_MIN => Line::ok(NAME, hard.to_string()),
        found => Line::new(
            NAME,
            Verdict::Missing,
            found.map_or_else(|error| error.to_string(), |(_, hard)| hard.to_string()),
            "connections are closed as they come, and work on files waits",
            "corelane tune apply open-files",
        ),
    }
}

/// The directory, or as long as that isn't there the one that it will be made in.
fn nearest(dir: &Path) -> PathBuf {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

fn log_dir(dir: &Path) -> (Vec<Line>, Vec<Flush>) {
    let place = nearest(dir);
    let name = if place == dir {
        dir.display().to_string()
    } else {
        format!("{} (for {})", place.display(), dir.display())
    };
    let mut lines = Vec::new();
    match flush::measure(&place) {
        Ok((flushes, probe)) => {
            lines.push(filesystem(&place, &name, &probe));
            lines.push(direct_io(&probe));
            for flush in &flushes {
                let (kib, p50, p99, max) =
                    (flush.group_bytes >> 10, flush.p50_us, flush.p99_us, flush.max_us);
                let found = format!("{kib} KiB made durable: p50 {p50} us, p99 {p99} us, longest {max} us");
                lines.push(Line::ok("flush", found));
            }
            (lines, flushes)
        }
        Err(error) => {
            lines.push(Line::new(
                "filesystem",
                Verdict::Missing,
                format!("{name}: {error}"),
                "the log directory can't be written",
                "give the user that runs the broker a folder to write to, with log.dirs or --data",
            ));
            (lines, Vec::new())
        }
    }
}

fn filesystem(place: &Path, name: &str, probe: &FlushProbe) -> Line {
    const NAME: &str = "filesystem";
    let kind = filesystem_kind(place).unwrap_or_else(|| "a filesystem".to_string());
    let found = match statvfs(place) {
        Ok(stat) => {
            let (block, free) = (stat.block_size(), stat.blocks_available() * stat.fragment_size());
            format!("{kind} with blocks of {block} bytes, {} MiB free: {name}", free >> 20)
        }
        Err(error) => format!("{kind}, {error}: {name}"),
    };
    match probe.overwrite {
        Overwrite::InPlace => Line::ok(NAME, found),
        Overwrite::Elsewhere => Line::new(
            NAME,
            Verdict::Off,
            found,
            "it writes each block to a new place: every flush writes metadata, and pre-writing the journal gains nothing",
            "put the log directory on ext4 or XFS",
        ),
        Overwrite::Memory => Line::new(
            NAME,
            Verdict::Off,
            found,
            "it is memory: nothing outlives a power cut, whatever is acknowledged",
            "put the log directory on a drive",
        ),
    }
}

/// What the kernel's table of mounts says of the device of a directory.
fn filesystem_kind(place: &Path) -> Option<String> {
    let device = std::fs::metadata(place).ok()?.dev();
    let number = format!("{}:{}", major(device), minor(device));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(&number);
    let line = mounts.lines().rfind(of_device)?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_string)
}

fn direct_io(probe: &FlushProbe) -> Line {
    const NAME: &str = "direct I/O";
    if probe.direct_io {
        return Line::ok(NAME, "O_DIRECT works here");
    }
    Line::new(
        NAME,
        Verdict::Off,
        "this filesystem has no O_DIRECT",
        "every byte is copied through the page cache",
        "put the log directory on ext4 or XFS",
    )
}

fn of_knob(knob: &Knob, place: &Place) -> Line {
    let header = knob.header().unwrap_or_default();
    let fix = match header.lasts.as_str() {
        NOTHING_CHANGED => format!("not by a setting; see corelane tune list {}", knob.name),
        _ => format!("corelane tune apply {}", knob.name),
    };
    match knob.check(place) {
        Ok((Status::Ok, found)) => Line::ok(knob.name, found),
        Ok((Status::Absent, found)) => Line::new(knob.name, Verdict::Absent, found, "", ""),
        Ok((Status::Off, found)) => Line::new(knob.name, Verdict::Off, found, header.why, fix),
        Err(error) => Line::new(knob.name, Verdict::Off, error, header.why, "see the message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(release_numbers("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(release_numbers("5.15"), Some((5, 15)));
        assert_eq!(release_numbers("6"), None);
        assert_eq!(release_numbers(""), None);
        assert!(release_numbers("5.15.0").expect("numbers") < KERNEL_MIN);
        assert!(release_numbers("10.0").expect("numbers") > KERNEL_MIN);
    }

    #[test]
    fn a_folder_that_isnt_there_is_looked_for_above() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(nearest(&dir.path().join("a/b")), dir.path());
        assert_eq!(nearest(dir.path()), dir.path());
    }
}
