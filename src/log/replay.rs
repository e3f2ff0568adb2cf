//! Replay: walks the journal group by group, as it was written.
//!
//! Promises: gives back only groups that are intact and follow each other; reads, never writes.
//! Used by recovery, dump and verify: the same rules for all three.

use std::ops::Range;

use zerocopy::FromBytes;

use super::disk::Disk;
use super::format::{
    BLOCK_BYTES, EntryHeader, EntryKind, GROUP_MAGIC, GroupHeader, MORE_PIECES, READY_MAGIC, ReadyStamp,
    Sealed, VERSION, blocks_up,
};
use super::mutation::{self, Mutation};
use super::verdict::Found;
use crate::base::checksum::crc32c;
use crate::ring::{FileId, IoBuffer, IoError};

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;
/// No group is larger.
pub(super) const GROUP_BYTES_MAX: u64 = 4 << 20;

/// A journal file as found on disk.
#[derive(Clone, Debug)]
pub(super) struct FoundFile {
    pub(super) number: u32,
    pub(super) file: FileId,
    pub(super) bytes: u64,
    /// Of its first group, where that is one of this journal.
    pub(super) first: Option<FirstGroup>,
    /// It has a group, or the stamp that says that it was prepared.
    pub(super) ready: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FirstGroup {
    pub(super) number: u64,
    pub(super) incarnation: u64,
    pub(super) previous_checksum: u32,
    /// The file's length when it was written.
    pub(super) file_bytes: u64,
}

impl FirstGroup {
    pub(super) fn new(header: &GroupHeader) -> Self {
        Self {
            number: header.number.get(),
            incarnation: header.incarnation.get(),
            previous_checksum: header.previous_checksum.get(),
            file_bytes: header.file_bytes.get(),
        }
    }
}

/// What the chain says the next group is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) number: u64,
    pub(super) previous_checksum: u32,
    pub(super) incarnation: u64,
}

pub(super) struct Group {
    pub(super) header: GroupHeader,
    pub(super) payload: Vec<u8>,
}

impl Group {
    pub(super) fn size_bytes(&self) -> u64 {
        blocks_up((GroupHeader::BYTES + self.payload.len()) as u64)
    }
}

pub(super) struct Walker<'a, 'r> {
    pub(super) disk: &'a mut Disk<'r>,
    log_id: [u8; 16],
    window: Option<Window>,
}

struct Window {
    file: FileId,
    start: u64,
    /// Bytes of the buffer that the file has.
    bytes: usize,
    buffer: IoBuffer,
}

impl<'a, 'r> Walker<'a, 'r> {
    pub(super) fn new(disk: &'a mut Disk<'r>, log_id: [u8; 16]) -> Self {
        Self { disk, log_id, window: None }
    }

    /// Up to `bytes` of a file from the block at `position` on; fewer at its end.
    fn bytes(&mut self, file: FileId, position: u64, bytes: usize) -> Result<&[u8], IoError> {
        let holds = |window: &Window| {
            window.file == file
                && window.start <= position
                && position + bytes as u64 <= window.start + window.buffer.len() as u64
        };
        if !self.window.as_ref().is_some_and(holds) {
            let wanted = blocks_up(bytes as u64).max(WINDOW_BYTES as u64) as usize;
            let buffer = match self.window.take() {
                Some(window) if window.buffer.len() >= wanted => window.buffer,
                _ => IoBuffer::new(wanted),
            };
            let (buffer, result) = self.disk.read(file, position, buffer);
            self.window = Some(Window { file, start: position, bytes: result?, buffer });
        }
        let window = self.window.as_ref().expect("just read");
        let from = ((position - window.start) as usize).min(window.bytes);
        Ok(&window.buffer[from..window.bytes.min(from + bytes)])
    }

    /// The file begins with this lane's ready stamp.
    pub(super) fn is_stamped(&mut self, found: &FoundFile) -> Result<bool, IoError> {
        let log_id = self.log_id;
        let stamp = ReadyStamp::read_from_prefix(self.bytes(found.file, 0, BLOCK_BYTES)?);
        Ok(stamp.is_ok_and(|(stamp, _)| {
            stamp.magic == READY_MAGIC && stamp.log_id == log_id && stamp.is_intact()
        }))
    }

    /// The group header at `position`, where it is one of this journal, of this file, at its place.
    pub(super) fn header(
        &mut self,
        found: &FoundFile,
        position: u64,
    ) -> Result<Result<GroupHeader, Found>, IoError> {
        let log_id = self.log_id;
        let bytes = self.bytes(found.file, position, BLOCK_BYTES)?;
        let Ok((header, _)) = GroupHeader::read_from_prefix(bytes) else { return Ok(Err(Found::Nothing)) };
        if header.magic != GROUP_MAGIC || header.log_id != log_id {
            return Ok(Err(Found::Nothing));
        }
        if header.version.get() > VERSION {
            return Ok(Err(Found::Newer));
        }
        let here = header.position.get() == position && header.file.get() == found.number;
        let fits = u64::from(header.payload_bytes.get()) <= GROUP_BYTES_MAX;
        Ok(if header.is_intact() && here && fits { Ok(header) } else { Err(Found::Nothing) })
    }

    /// The group that follows `chain` at `position`, or what is there instead.
    pub(super) fn group(&mut self, found: &FoundFile, position: u64, chain: Chain) -> Result<Group, Found> {
        let header = match self.header(found, position) {
            Ok(header) => header?,
            Err(_) => return Err(Found::Unreadable),
        };
        let follows = header.number.get() == chain.number
            && (mutation::is(Mutation::SkipChain)
                || header.previous_checksum.get() == chain.previous_checksum
                    && header.incarnation.get() >= chain.incarnation);
        if !follows {
            return Err(Found::Nothing);
        }
        self.payload(found, position, header)
    }

    fn payload(&mut self, found: &FoundFile, position: u64, header: GroupHeader) -> Result<Group, Found> {
        let payload_bytes = header.payload_bytes.get() as usize;
        let bytes = match self.bytes(found.file, position, GroupHeader::BYTES + payload_bytes) {
            Ok(bytes) => bytes,
            Err(_) => return Err(Found::Unreadable),
        };
        let Some(payload) = bytes.get(GroupHeader::BYTES..GroupHeader::BYTES + payload_bytes) else {
            return Err(Found::HeaderOnly);
        };
        if crc32c(payload) != header.payload_checksum.get() && !mutation::is(Mutation::SkipPayloadChecksum) {
            return Err(Found::HeaderOnly);
        }
        Ok(Group { header, payload: payload.to_vec() })
    }

    /// The first intact group at `position` or behind it, whatever its number; moves `position` behind
    /// it. None at the end of the file.
    pub(super) fn next_intact(
        &mut self,
        found: &FoundFile,
        position: &mut u64,
    ) -> Result<Option<Group>, IoError> {
        while !self.bytes(found.file, *position, BLOCK_BYTES)?.is_empty() {
            let at = *position;
            *position += BLOCK_BYTES as u64;
            if let Ok(header) = self.header(found, at)?
                && let Ok(group) = self.payload(found, at, header)
            {
                *position = at + group.size_bytes();
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// The first intact group of `found` with a number above `number` that begins within `range`.
    pub(super) fn first_later(
        &mut self,
        found: &FoundFile,
        range: Range<u64>,
        number: u64,
    ) -> Result<Option<(u64, Group)>, IoError> {
        let mut position = range.start;
        while position < range.end {
            if let Ok(header) = self.header(found, position)?
                && header.number.get() > number
            {
                match self.payload(found, position, header) {
                    Ok(group) => return Ok(Some((position, group))),
                    Err(Found::Unreadable) => return Err(IoError::Os(EIO)),
                    Err(_) => {}
                }
            }
            position += BLOCK_BYTES as u64;
        }
        Ok(None)
    }
}

/// The device's error where only its fact was kept.
const EIO: i32 = 5;

/// An entry of a group, with the number of its item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) kind: EntryKind,
    pub(super) header: EntryHeader,
    pub(super) payload: &'a [u8],
    pub(super) item: u64,
}

/// The entries of an intact group. `None` where they don't fill it as counted: an intact group was
/// written so, and only a mistake of the writer explains it.
pub(super) fn entries(group: &Group) -> Option<Vec<Entry<'_>>> {
    let mut rest = &group.payload[..];
    let mut item = group.header.item_first.get();
    // The count is only compared with: a forged one must not decide how much is allocated.
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (header, _) = EntryHeader::read_from_prefix(rest).ok()?;
        let payload_bytes = header.payload_bytes.get() as usize;
        let payload = rest.get(EntryHeader::BYTES..EntryHeader::BYTES + payload_bytes)?;
        let kind = EntryKind::from_byte(header.kind)?;
        entries.push(Entry { kind, header, payload, item });
        if header.flags & MORE_PIECES == 0 && kind != EntryKind::Touched {
            item += 1;
        }
        rest = rest.get(EntryHeader::size_bytes(payload_bytes)..)?;
    }
    (entries.len() == group.header.entries_count.get() as usize).then_some(entries)
}

/// The number of the first item that isn't wholly in groups up to this one.
pub(super) fn item_end(group: &Group) -> Option<u64> {
    let entries = entries(group)?;
    Some(match entries.last() {
        Some(last) if last.header.flags & MORE_PIECES != 0 || last.kind == EntryKind::Touched => last.item,
        Some(last) => last.item + 1,
        None => group.header.item_first.get(),
    })
}
