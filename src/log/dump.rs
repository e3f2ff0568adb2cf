//! Dump: files of a log directory as text, one fact a line. Reads only.

use std::path::Path;

use zerocopy::FromBytes;

use super::batches::Batches;
use super::checkpoint::decode_partition;
use super::directory::{lane_dir, list_lanes};
use super::disk::{Disk, failed};
use super::format::{BLOCK_BYTES, EntryKind, GROUP_MAGIC, GroupHeader, IndexHeader, ReplacePayload};
use super::image::{FoundImage, find_image, read_image};
use super::options::LaneError;
use super::partition_log::PartitionLog;
use super::replay::{Entry, FoundFile, Walker, entries};
use super::row_check::decode_index;
use super::touched;
use crate::protocol::record_batch::BatchHeader;
use crate::ring::{OpenMode, Ring};

const INDEX_BYTES_MAX: u64 = 1 << 20;

/// Takes the lines.
pub type Lines<'a> = &'a mut dyn FnMut(&str);

/// Dumps what the end of a file's name says it is: `.log`, `.index`, `.journal` or `.image`.
pub fn dump_file(ring: &mut Ring, path: &Path, owner: u8, lines: Lines<'_>) -> Result<(), LaneError> {
    let mut disk = Disk::new(ring, owner);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match name.rsplit('.').next() {
        Some("log") => dump_segment(&mut disk, path, lines),
        Some("index") => dump_index(&mut disk, path, lines),
        Some("journal") => dump_journal(&mut disk, path, lines),
        Some("image") => match read_image(&mut disk, path, false)? {
            Some((header, payload)) => dump_image(&FoundImage::new(0, header, payload), lines),
            None => {
                lines("not an intact image");
                Ok(())
            }
        },
        _ => Err(LaneError::Options {
            what: format!("{} is no .log, .index, .journal or .image", path.display()),
        }),
    }
}

/// Dumps the newest image and the journal of every lane.
pub fn dump_dir(ring: &mut Ring, dir: &Path, owner: u8, lines: Lines<'_>) -> Result<(), LaneError> {
    for lane in list_lanes(ring, dir)? {
        let mut disk = Disk::new(ring, owner);
        let lane_dir = lane_dir(dir, lane);
        lines(&format!("lane {}", lane.0));
        match find_image(&mut disk, &lane_dir)? {
            Some(image) => dump_image(&image, lines)?,
            None => lines("no image: the lane was never made"),
        }
        let journal_dir = lane_dir.join("journal");
        for entry in disk.list_dir(&journal_dir)? {
            lines(&format!("file {}, {} bytes", entry.name, entry.bytes));
            dump_journal(&mut disk, &journal_dir.join(&entry.name), lines)?;
        }
    }
    Ok(())
}

fn dump_segment(disk: &mut Disk<'_>, path: &Path, lines: Lines<'_>) -> Result<(), LaneError> {
    let file = disk.open(path, OpenMode::Read).map_err(|error| failed("opening", path, error))?;
    let mut batches = Batches::new(file, u64::MAX);
    loop {
        match batches.next(disk) {
            Ok(None) => break,
            Ok(Some((position, batch))) => {
                let header = BatchHeader::view(batch).expect("a verified batch has a header");
                let (first, last) = (header.base_offset().0, header.last_offset().0);
                lines(&format!(
                    "position {position} offsets {first}..={last} bytes {} leader epoch {} max timestamp {} \
                     codec {} producer {} epoch {} sequence {}{}{}",
                    batch.len(),
                    header.leader_epoch().0,
                    header.max_timestamp.get(),
                    header.codec_number(),
                    header.producer_id.get(),
                    header.producer_epoch.get(),
                    header.base_sequence.get(),
                    if header.is_transactional() { " transactional" } else { "" },
                    if header.is_control() { " control" } else { "" },
                ));
            }
            Err(broken) => {
                // The zeros of an active segment's last block end it, too.
                lines(&broken.describe());
                break;
            }
        }
    }
    disk.ring.close(file);
    Ok(())
}

fn dump_index(disk: &mut Disk<'_>, path: &Path, lines: Lines<'_>) -> Result<(), LaneError> {
    let fail = |error| failed("reading", path, error);
    let file = disk.open(path, OpenMode::Read).map_err(fail)?;
    let bytes = disk.read_all(file, INDEX_BYTES_MAX).map_err(fail)?;
    disk.ring.close(file);
    let header = IndexHeader::read_from_prefix(&bytes).ok().map(|(header, _)| header);
    let rows =
        header.and_then(|header| decode_index(&bytes, header.segment.get()).map(|rows| (header, rows)));
    let Some((header, rows)) = rows else {
        lines("not an intact index");
        return Ok(());
    };
    lines(&format!(
        "segment {} offsets {}..{} bytes {} max timestamp {} at {}",
        header.segment.get(),
        header.base_offset.get(),
        header.end_offset.get(),
        header.log_bytes.get(),
        header.max_timestamp.get(),
        header.max_timestamp_at.get(),
    ));
    for row in rows {
        lines(&format!(
            "extent at {} from offset {} max timestamp {} headers checksum {:08x}",
            row.position.get(),
            row.base_offset.get(),
            row.max_timestamp.get(),
            row.headers_checksum.get(),
        ));
    }
    Ok(())
}

fn dump_image(image: &FoundImage, lines: Lines<'_>) -> Result<(), LaneError> {
    let header = &image.header;
    lines(&format!(
        "image generation {} replays from group {}, durable group {}, next item {}, {} partitions",
        header.generation.get(),
        header.replay_number.get(),
        header.durable_number.get(),
        header.item_next.get(),
        header.rows_count.get(),
    ));
    let mut rest = &image.payload[..];
    for row in 0..header.rows_count.get() {
        let Some(decoded) = decode_partition(&mut rest, Path::new("")) else {
            return Err(LaneError::Damaged { what: format!("row {row} of the image is malformed") });
        };
        dump_partition(&decoded.partition, decoded.item, decoded.dropping, lines);
    }
    Ok(())
}

fn dump_partition(partition: &PartitionLog, item: u64, dropping: bool, lines: Lines<'_>) {
    let (flushed, offset) = partition.ends.batch_flushed;
    lines(&format!(
        "partition {} {}{}{} as of item {item}: offsets {}..{} flushed up to {} ({}:{}), {} producers",
        partition.number.0,
        partition.id,
        if dropping { " (dropping)" } else { "" },
        if partition.damage.is_some() { " (damaged)" } else { "" },
        partition.log_start.0,
        partition.log_end.0,
        offset.0,
        flushed.segment,
        flushed.position,
        partition.producers.len(),
    ));
    for segment in &partition.segments {
        lines(&format!(
            "  segment {} offsets {}..{} bytes {}{}{}{}",
            segment.id,
            segment.base_offset.0,
            segment.end_offset.0,
            segment.bytes,
            if segment.rolled { " rolled" } else { "" },
            if segment.sealed { " sealed" } else { "" },
            if segment.dropping { " dropping" } else { "" },
        ));
    }
    for leftover in &partition.leftovers {
        lines(&format!("  leftover segment {} at offset {}", leftover.id, leftover.base_offset.0));
    }
    for (epoch, start) in &partition.epochs {
        lines(&format!("  leader epoch {} from offset {}", epoch.0, start.0));
    }
}

/// Every intact group of the file, in the order of positions: those of earlier incarnations too.
fn dump_journal(disk: &mut Disk<'_>, path: &Path, lines: Lines<'_>) -> Result<(), LaneError> {
    let fail = |error| failed("reading", path, error);
    let file = disk.open(path, OpenMode::Read).map_err(fail)?;
    let first = disk.read_all(file, BLOCK_BYTES as u64).map_err(fail)?;
    let header = GroupHeader::read_from_prefix(&first).ok().map(|(header, _)| header);
    let Some(header) = header.filter(|header| header.magic == GROUP_MAGIC) else {
        lines("  no group");
        disk.ring.close(file);
        return Ok(());
    };
    let found = FoundFile { number: header.file.get(), file, bytes: u64::MAX, first: None, ready: true };
    let mut position = 0;
    let mut walker = Walker::new(disk, header.log_id);
    while let Some(group) = walker.next_intact(&found, &mut position).map_err(fail)? {
        lines(&format!(
            "  group {} at {} incarnation {} bytes {}",
            group.header.number.get(),
            group.header.position.get(),
            group.header.incarnation.get(),
            group.size_bytes(),
        ));
        for entry in entries(&group).unwrap_or_default() {
            lines(&describe(&entry));
        }
    }
    disk.ring.close(file);
    Ok(())
}

fn describe(entry: &Entry<'_>) -> String {
    let header = &entry.header;
    let (log, segment, value) = (header.log.get(), header.segment.get(), header.value.get());
    let bytes = entry.payload.len();
    let what = match entry.kind {
        EntryKind::Append => {
            format!("append {log} {segment}:{value} {bytes} of {} bytes", header.total_bytes.get())
        }
        EntryKind::Create => format!("create {log}, first segment {segment}, metadata epoch {value}"),
        EntryKind::Drop => format!("drop {log}, metadata epoch {value}"),
        EntryKind::Roll => format!("roll {log} to segment {segment}; the one before has {value} bytes"),
        EntryKind::LogStart => format!("log start {log} to offset {value}"),
        EntryKind::Image => format!("block image {log} {segment}:{value} {bytes} bytes"),
        EntryKind::Materialised => format!("materialised {log} up to {segment}:{value}"),
        EntryKind::Recovered => format!("recovered, incarnation {value}"),
        EntryKind::Cut => format!("cut {log} at {segment}:{value}"),
        EntryKind::CleanStop => "clean stop".to_owned(),
        EntryKind::ImageDurable => format!("image {value} is durable"),
        EntryKind::Touched => {
            let logs = touched::logs_since(entry.payload, value, value).unwrap_or_default();
            let logs: Vec<_> = logs.iter().map(|log| log.0.to_string()).collect();
            return format!("    groups since {value} were for partitions {}", logs.join(" "));
        }
        EntryKind::Damaged => format!("damaged {log}, cut at {segment}:{value}"),
        EntryKind::LossAccepted => format!("loss accepted {log}"),
        EntryKind::CleanBegin => format!("clean {log} into segment {segment} at offset {value}"),
        EntryKind::Replace => describe_replace(entry),
    };
    format!("    {} {what}", entry.item)
}

fn describe_replace(entry: &Entry<'_>) -> String {
    let log = entry.header.log.get();
    let Ok(payload) = ReplacePayload::read_from_bytes(entry.payload) else {
        return format!("replace {log}, malformed");
    };
    format!(
        "replace {log} segments {} to {} by {}, compacted up to offset {}",
        payload.first.get(),
        payload.last.get(),
        entry.header.segment.get(),
        payload.first_dirty.get(),
    )
}
