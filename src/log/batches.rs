//! Batches: reads a segment file from its beginning, batch by batch. For dump and verify.

use super::disk::Disk;
use super::format::{blocks_down, blocks_up};
use crate::base::checksum::crc32c;
use crate::protocol::record_batch::{BatchHeader, CRC_START, HEADER_BYTES};
use crate::ring::{FileId, IoBuffer, IoError};

const WINDOW_BYTES: u64 = 1 << 20;

pub(super) struct Batches {
    file: FileId,
    /// Nothing is read from here on.
    end: u64,
    position: u64,
    buffer: Option<IoBuffer>,
    start: u64,
    bytes: u64,
}

/// What stands where a batch should be.
#[derive(Debug)]
pub(super) enum Broken {
    /// No header with a length that fits the segment.
    Header {
        position: u64,
    },
    /// The bytes don't have the header's CRC.
    Crc {
        position: u64,
    },
    Io {
        position: u64,
        error: IoError,
    },
}

impl Broken {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Header { position } => format!("no batch begins at {position}"),
            Self::Crc { position } => format!("the batch at {position} doesn't have its CRC"),
            Self::Io { position, error } => format!("{position} can't be read: {error}"),
        }
    }
}

impl Batches {
    pub(super) fn new(file: FileId, end: u64) -> Self {
        Self::starting_at(file, 0, end)
    }

    /// From the batch at `position` on.
    pub(super) fn starting_at(file: FileId, position: u64, end: u64) -> Self {
        Self { file, end, position, buffer: None, start: 0, bytes: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch, verified, with its position; None at the end.
    pub(super) fn next(&mut self, disk: &mut Disk<'_>) -> Result<Option<(u64, &[u8])>, Broken> {
        let position = self.position;
        if position >= self.end {
            return Ok(None);
        }
        let header = self.view(disk, position, HEADER_BYTES as u64)?;
        if header.is_empty() {
            // The file ends here; whoever knows how long it must be compares.
            self.end = position;
            return Ok(None);
        }
        let header = *BatchHeader::view(header).ok_or(Broken::Header { position })?;
        let fits = |size: &usize| header.magic == 2 && position + *size as u64 <= self.end;
        let size = header.size_bytes().filter(fits).ok_or(Broken::Header { position })? as u64;
        self.position += size;
        let batch = self.view(disk, position, size)?;
        if batch.len() as u64 != size {
            return Err(Broken::Header { position });
        }
        if crc32c(&batch[CRC_START..]) != header.crc.get() {
            return Err(Broken::Crc { position });
        }
        Ok(Some((position, batch)))
    }

    /// `bytes` from `position` on; fewer at the end of the file.
    fn view(&mut self, disk: &mut Disk<'_>, position: u64, bytes: u64) -> Result<&[u8], Broken> {
        let holds = self.start <= position && position + bytes <= self.start + self.bytes;
        if !holds || self.buffer.is_none() {
            let from = blocks_down(position);
            let wanted = blocks_up(position + bytes - from).max(WINDOW_BYTES) as usize;
            let buffer = match self.buffer.take() {
                Some(buffer) if buffer.len() >= wanted => buffer,
                _ => IoBuffer::new(wanted),
            };
            let (buffer, result) = disk.read(self.file, from, buffer);
            self.bytes = result.map_err(|error| Broken::Io { position, error })? as u64;
            self.start = from;
            self.buffer = Some(buffer);
        }
        let buffer = self.buffer.as_ref().expect("just read");
        let from = (position - self.start).min(self.bytes);
        Ok(&buffer[from as usize..(from + bytes).min(self.bytes) as usize])
    }
}
