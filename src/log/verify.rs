//! Verify: checks every checksum of a log directory. Reads only; the broker must be stopped.
//!
//! Uses the code of recovery for images, journal and redo: there are no second rules.

use std::path::Path;

use super::batches::Batches;
use super::directory::{lane_dir, list_lanes};
use super::disk::Disk;
use super::image::{find_image, redo_of_image};
use super::journal_chain::{find_files, replay};
use super::options::{LaneError, LaneOptions};
use super::partition_log::PartitionLog;
use super::row_check::decode_index;
use super::segment::{Segment, chain};
use crate::base::ids::{LaneId, Offset};
use crate::protocol::record_batch::BatchHeader;
use crate::ring::{IoError, OpenMode, Ring};

/// An index file is at most as large as one read.
const INDEX_BYTES_MAX: u64 = 1 << 20;
const PROGRESS_BYTES: u64 = 1 << 20;

/// What was looked at so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    pub lanes_count: usize,
    pub partitions_count: usize,
    pub segments_count: usize,
    pub batches_count: u64,
    /// Of segments; the journal comes on top.
    pub bytes: u64,
    /// Of the segments of the lanes known so far.
    pub bytes_total: u64,
    pub journal_bytes: u64,
    /// Each names its file and what is wrong with it. Empty: everything is as it was written.
    pub problems: Vec<String>,
}

/// Checks all lanes of a log directory. `progress` is called after every MiB, and may take its time.
///
/// Errors: only what keeps it from looking at all. What it finds damaged is in the report.
pub fn verify(
    ring: &mut Ring,
    dir: &Path,
    owner: u8,
    progress: &mut dyn FnMut(&VerifyReport),
) -> Result<VerifyReport, LaneError> {
    let mut report = VerifyReport::default();
    for lane in list_lanes(ring, dir)? {
        let mut disk = Disk::new(ring, owner);
        if let Err(error) = verify_lane(&mut disk, dir, lane, owner, &mut report, progress) {
            report.problems.push(format!("lane {}: {error}", lane.0));
        }
        report.lanes_count += 1;
        progress(&report);
    }
    Ok(report)
}

fn verify_lane(
    disk: &mut Disk<'_>,
    dir: &Path,
    lane: LaneId,
    owner: u8,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(&VerifyReport),
) -> Result<(), LaneError> {
    let lane_dir = lane_dir(dir, lane);
    let Some(image) = find_image(disk, &lane_dir)? else { return Ok(()) };
    let files = find_files(disk, &lane_dir, &image.header.log_id, OpenMode::Read)?;
    let options = LaneOptions::new(dir.to_owned(), lane, owner);
    let mut redo = redo_of_image(&image, &options)?;
    let group_bytes_max = u64::from(options.group_bytes_max);
    let walked = replay(disk, &lane_dir, &image, &files, group_bytes_max, &mut redo);
    for file in &files {
        disk.ring.close(file.file);
    }
    report.journal_bytes += walked?.bytes;
    let found = redo.finish().damaged;
    let alive = || redo.partitions.iter().filter(|partition| partition.dropping.is_none());
    for partition in alive() {
        let kept = partition.segments.iter().filter(|segment| !segment.dropping);
        report.bytes_total += kept.map(|segment| materialised_bytes(partition, segment)).sum::<u64>();
    }
    for partition in alive() {
        for segment in partition.segments.iter().filter(|segment| !segment.dropping) {
            verify_segment(disk, partition, segment, report, progress);
        }
        if partition.damage.is_some() {
            let what = found.iter().find(|damage| damage.log == partition.number);
            let what = what.map_or("the loss isn't accepted yet", |damage| &damage.what);
            let end = partition.log_end.0;
            report.problems.push(format!("{}: records from offset {end} on are lost: {what}", partition.id));
        }
        report.partitions_count += 1;
    }
    Ok(())
}

fn verify_segment(
    disk: &mut Disk<'_>,
    partition: &PartitionLog,
    segment: &Segment,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(&VerifyReport),
) {
    let end = materialised_bytes(partition, segment);
    if end == 0 {
        return;
    }
    report.segments_count += 1;
    let path = segment.log_path(&partition.dir);
    let mut problems = Vec::new();
    let mut problem = |what: String| problems.push(format!("{}: {what}", path.display()));
    let rows = if segment.sealed { read_rows(disk, partition, segment) } else { Ok(segment.rows.clone()) };
    let rows = rows.unwrap_or_else(|what| {
        problem(what);
        None
    });
    let rows = rows.unwrap_or_default();
    if segment.sealed {
        match exact_bytes(disk, &path) {
            Some(bytes) if bytes != segment.bytes => {
                problem(format!("it has {bytes} bytes, {} were written", segment.bytes));
            }
            _ => {}
        }
    }
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) => {
            problem(format!("can't be opened: {error}"));
            report.problems.append(&mut problems);
            return;
        }
    };
    let mut batches = Batches::new(file, end);
    let mut told = 0;
    let mut offset_min = segment.base_offset;
    let mut row = 0;
    let mut headers_checksum = 0;
    loop {
        match batches.next(disk) {
            Ok(None) => break,
            Err(broken) => {
                problem(broken.describe());
                break;
            }
            Ok(Some((position, batch))) => {
                let header = BatchHeader::view(batch).expect("a verified batch has a header");
                if header.base_offset() < offset_min {
                    problem(format!("the batch at {position} repeats offset {}", header.base_offset().0));
                }
                offset_min = Offset(header.last_offset().0 + 1);
                report.batches_count += 1;
                if position - told >= PROGRESS_BYTES {
                    report.bytes += position - told;
                    told = position;
                    progress(report);
                }
                while rows.get(row + 1).is_some_and(|next| next.position.get() <= position) {
                    if rows[row].headers_checksum.get() != headers_checksum {
                        problem(format!("the headers of extent {row} aren't what was written"));
                    }
                    row += 1;
                    headers_checksum = 0;
                }
                headers_checksum = chain(headers_checksum, header);
            }
        }
    }
    // The last extent of an unsealed segment goes on in the journal.
    let whole = batches.position() == segment.bytes;
    if whole && rows.get(row).is_some_and(|row| row.headers_checksum.get() != headers_checksum) {
        problem(format!("the headers of extent {row} aren't what was written"));
    }
    disk.ring.close(file);
    report.problems.append(&mut problems);
    report.bytes += end - told;
    progress(report);
}

/// What a segment's file must hold. The rest is in the journal, and was checked there.
fn materialised_bytes(partition: &PartitionLog, segment: &Segment) -> u64 {
    let flushed = partition.ends.batch_flushed.0;
    match segment.id.cmp(&flushed.segment) {
        std::cmp::Ordering::Less => segment.bytes,
        std::cmp::Ordering::Equal => flushed.position,
        std::cmp::Ordering::Greater => 0,
    }
}

fn exact_bytes(disk: &mut Disk<'_>, path: &Path) -> Option<u64> {
    let (dir, name) = (path.parent()?, path.file_name()?.to_string_lossy().into_owned());
    let entries = disk.list_dir(dir).ok()?;
    entries.iter().find(|entry| entry.name == name).map(|entry| entry.bytes)
}

fn read_rows(
    disk: &mut Disk<'_>,
    partition: &PartitionLog,
    segment: &Segment,
) -> Result<Option<Vec<super::format::IndexRow>>, String> {
    let path = segment.index_path(&partition.dir);
    let fail = |error: IoError| format!("its index {} can't be read: {error}", path.display());
    let file = disk.open(&path, OpenMode::Read).map_err(fail)?;
    let bytes = disk.read_all(file, INDEX_BYTES_MAX).map_err(fail);
    disk.ring.close(file);
    match decode_index(&bytes?, segment.id) {
        Some(rows) => Ok(Some(rows)),
        None => Err(format!("its index {} isn't what was written", path.display())),
    }
}
