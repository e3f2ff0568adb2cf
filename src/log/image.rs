//! Image: finds the checkpoint's images on disk, makes the first one, and reads their rows.
//!
//! Used by recovery, dump and verify. `checkpoint` writes all later images.

use std::path::Path;

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use super::checkpoint::{IMAGE_FILES, decode_partition, image_bytes};
use super::directory::lane_dir;
use super::disk::{Disk, failed};
use super::format::{BLOCK_BYTES, IMAGE_MAGIC, ImageHeader, Sealed, VERSION};
use super::options::{LaneError, LaneOptions};
use super::redo::Redo;
use super::tail::TailPool;
use crate::base::checksum::crc32c;
use crate::ring::{IoBuffer, IoError, OpenMode};

/// What an intact image says was durable when it was written, whether it became durable itself or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// All groups up to this one.
    pub(super) group: u64,
    /// No group up to that one has this item or a later one.
    pub(super) item: u64,
    /// Nor did any of them make a partition with this number or a larger one.
    pub(super) log_next: u32,
}

/// An image as found on disk.
pub(super) struct FoundImage {
    pub(super) index: usize,
    /// The largest of both images: the next one has a larger one.
    pub(super) generation: u64,
    pub(super) counted: Counted,
    pub(super) header: ImageHeader,
    pub(super) payload: Vec<u8>,
}

impl FoundImage {
    pub(super) fn new(index: usize, header: ImageHeader, payload: Vec<u8>) -> Self {
        let counted = Counted {
            group: header.durable_number.get(),
            item: header.item_next.get(),
            log_next: header.log_next.get(),
        };
        Self { index, generation: header.generation.get(), counted, header, payload }
    }
}

/// The newest intact image. None where the lane was never made.
pub(super) fn find_image(disk: &mut Disk<'_>, dir: &Path) -> Result<Option<FoundImage>, LaneError> {
    Ok(find_images(disk, dir, false)?.into_iter().next())
}

/// The intact images, newest first; flushed where the lane is to be served.
pub(super) fn find_images(
    disk: &mut Disk<'_>,
    dir: &Path,
    flush: bool,
) -> Result<Vec<FoundImage>, LaneError> {
    let mut images = Vec::new();
    for (index, name) in IMAGE_FILES.iter().enumerate() {
        if let Some((header, payload)) = read_image(disk, &dir.join(name), flush)? {
            images.push(FoundImage::new(index, header, payload));
        }
    }
    let counted = images.iter().map(|image| image.counted).max_by_key(|counted| counted.group);
    images.sort_by_key(|image| std::cmp::Reverse(image.generation));
    let Some(generation) = images.first().map(|newest| newest.generation) else {
        if disk.list_dir(&dir.join("journal"))?.is_empty() {
            return Ok(images);
        }
        // The first image is durable before the first journal file is made.
        let what = format!("{} has a journal but no intact checkpoint image", dir.display());
        return Err(LaneError::Damaged { what });
    };
    for image in &mut images {
        image.generation = generation;
        image.counted = counted.unwrap_or_default();
    }
    Ok(images)
}

pub(super) fn read_image(
    disk: &mut Disk<'_>,
    path: &Path,
    flush: bool,
) -> Result<Option<(ImageHeader, Vec<u8>)>, LaneError> {
    let fail = |error| failed("reading", path, error);
    let file = match disk.open(path, if flush { OpenMode::Write } else { OpenMode::Read }) {
        Ok(file) => file,
        Err(IoError::NotFound) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if flush {
        disk.flush_found(file).map_err(|error| failed("flush of", path, error))?;
    }
    let first = disk.read_all(file, ImageHeader::BYTES as u64).map_err(fail)?;
    let header = ImageHeader::read_from_bytes(&first).ok().filter(|header| header.magic == IMAGE_MAGIC);
    let found = match header {
        Some(header) if header.version.get() > VERSION => {
            let version = header.version.get();
            return Err(LaneError::NewerVersion { what: path.display().to_string(), version });
        }
        Some(header) if header.is_intact() => {
            let bytes = ImageHeader::BYTES as u64 + header.payload_bytes.get();
            let mut payload = disk.read_all(file, bytes).map_err(fail)?;
            payload.drain(..ImageHeader::BYTES.min(payload.len()));
            let whole = payload.len() as u64 == header.payload_bytes.get()
                && crc32c(&payload) == header.payload_checksum.get();
            whole.then_some((header, payload))
        }
        _ => None,
    };
    disk.ring.close(file);
    Ok(found)
}

/// The first image of a new lane: it carries the journal's secret.
pub(super) fn create_image(disk: &mut Disk<'_>, dir: &Path) -> Result<FoundImage, LaneError> {
    let mut log_id = [0; 16];
    disk.ring.entropy(&mut log_id);
    let mut header = ImageHeader {
        magic: IMAGE_MAGIC,
        version: U16::new(VERSION),
        reserved: U16::ZERO,
        header_checksum: U32::ZERO,
        log_id,
        generation: U64::new(1),
        replay_number: U64::new(1),
        durable_number: U64::ZERO,
        item_next: U64::ZERO,
        segment_next: U64::new(1),
        log_next: U32::ZERO,
        replay_previous: U32::ZERO,
        incarnation: U64::ZERO,
        payload_bytes: U64::ZERO,
        payload_checksum: U32::new(crc32c(&[])),
        rows_count: U32::ZERO,
        reserved_end: [0; 24],
    };
    let buffer = image_bytes(&mut header, &[]);
    // The second file has no image yet, but its name is durable from the beginning.
    disk.write_file(&dir.join(IMAGE_FILES[1]), IoBuffer::new(BLOCK_BYTES), None)?;
    disk.write_file(&dir.join(IMAGE_FILES[0]), buffer, None)?;
    disk.flush_dir(&dir.join("checkpoint"))?;
    Ok(FoundImage::new(0, header, Vec::new()))
}

pub(super) fn redo_of_image(image: &FoundImage, options: &LaneOptions) -> Result<Redo, LaneError> {
    let pool = TailPool::new(options.tail_pool_bytes as usize);
    let header = &image.header;
    let lane_dir = lane_dir(&options.dir, options.lane);
    let mut redo = Redo::new(lane_dir.clone(), pool, header.log_next.get(), header.segment_next.get());
    let mut rest = &image.payload[..];
    for row in 0..header.rows_count.get() {
        let Some(decoded) = decode_partition(&mut rest, &lane_dir) else {
            let what = format!("row {row} of the checkpoint image is malformed");
            return Err(LaneError::Damaged { what });
        };
        let mut partition = decoded.partition;
        partition.dropping = decoded.dropping.then_some(0);
        redo.insert(partition, decoded.item);
    }
    Ok(redo)
}
