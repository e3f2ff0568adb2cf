//! Journal: turns storage operations into commit groups, durable in order.
//!
//! Owns:     the files, the queue of items that wait for a group, the one group buffer.
//! Promises: groups become durable in the order of their numbers; exactly one is in flight, so a valid
//!           group N+1 proves that N was durable; files are recycled strictly oldest first.
//! Never:    moves an item past another one, lets a group span files.
//! Called by the lane, which submits what is built here.

use std::collections::VecDeque;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use super::format::{
    BLOCK_BYTES, EntryHeader, EntryKind, GROUP_MAGIC, GroupHeader, MORE_PIECES, Sealed, VERSION, blocks_up,
};
use super::options::LogId;
use super::place::Place;
use crate::base::checksum::crc32c;
use crate::base::ids::Offset;
use crate::ring::{FileId, IoBuffer};

/// A file's rest below this is left unused and the next file begun.
const REST_BYTES_MIN: u64 = 64 << 10;

/// A storage operation that waits for its group.
pub(super) enum Item {
    /// Bytes `from..to` of a segment, in the tail's memory; whole batches.
    Append {
        log: LogId,
        segment: u64,
        from: u64,
        to: u64,
        end_offset: Offset,
    },
    Entry {
        header: EntryHeader,
        payload: Box<[u8]>,
    },
}

pub(super) struct Queued {
    pub(super) number: u64,
    pub(super) item: Item,
    /// Bytes of an append that are in earlier groups already.
    pub(super) done_bytes: u64,
    /// What of it is counted among the queue's bytes.
    counted_bytes: u64,
}

/// What becomes true of a partition once the group is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    pub(super) log: LogId,
    pub(super) end: Place,
    /// None while the batch's last piece is still to come.
    pub(super) end_offset: Option<Offset>,
}

/// A journal file in use.
pub(super) struct JournalFile {
    pub(super) number: u32,
    pub(super) file: FileId,
    pub(super) bytes: u64,
    pub(super) incarnation: u64,
    /// Its first group, and the checksum of the group before that one.
    pub(super) group_first: u64,
    pub(super) previous_checksum: u32,
    /// Partitions with unflushed bytes in it, and all that ever had some.
    pub(super) dirty_count: u32,
    pub(super) logs: Vec<LogId>,
}

/// A journal file that waits for its next incarnation.
pub(super) struct FreeFile {
    pub(super) number: u32,
    pub(super) file: FileId,
    pub(super) bytes: u64,
}

/// A group ready to be written.
pub(super) struct Built {
    pub(super) buffer: IoBuffer,
    pub(super) bytes: usize,
    pub(super) file: FileId,
    pub(super) position: u64,
    pub(super) incarnation: u64,
    /// Items below this are wholly in groups up to this one.
    pub(super) item_end: u64,
    pub(super) effects: Vec<Effect>,
    pub(super) entries_count: u32,
}

pub(super) struct Journal {
    pub(super) log_id: [u8; 16],
    /// Oldest first; the last one is written to.
    pub(super) used: VecDeque<JournalFile>,
    pub(super) free: VecDeque<FreeFile>,
    /// Where the next group begins in the last used file.
    pub(super) position: u64,
    pub(super) group_next: u64,
    pub(super) group_durable: u64,
    pub(super) previous_checksum: u32,
    pub(super) incarnation: u64,
    pub(super) item_next: u64,
    /// Items below this are durable.
    pub(super) item_durable: u64,
    queue: VecDeque<Queued>,
    /// Items below this are waited for by somebody: they don't wait for company.
    urgent_below: u64,
    queued_bytes: u64,
    pub(super) buffer: Option<IoBuffer>,
    group_bytes_max: u64,
    spare_effects: Vec<Effect>,
}

/// Reads the bytes of an append item out of memory.
pub(super) trait TailBytes {
    /// Fills `out` from `place` of `log` on. All of it is in memory.
    fn copy_tail(&self, log: LogId, place: Place, out: &mut [u8]);
}

impl Journal {
    pub(super) fn new(log_id: [u8; 16], group_bytes_max: u64) -> Self {
        Self {
            log_id,
            used: VecDeque::new(),
            free: VecDeque::new(),
            position: 0,
            group_next: 1,
            group_durable: 0,
            previous_checksum: 0,
            incarnation: 0,
            item_next: 0,
            item_durable: 0,
            queue: VecDeque::new(),
            urgent_below: 0,
            queued_bytes: 0,
            buffer: Some(IoBuffer::new(group_bytes_max as usize)),
            group_bytes_max,
            spare_effects: Vec::new(),
        }
    }

    // ---- Queue -------------------------------------------------------------------------------

    pub(super) fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Something waits that somebody waits for.
    pub(super) fn is_urgent(&self) -> bool {
        self.queue.front().is_some_and(|queued| queued.number < self.urgent_below)
    }

    /// Everything queued so far is waited for.
    pub(super) fn make_urgent(&mut self) {
        self.urgent_below = self.item_next;
    }

    fn push(&mut self, item: Item, size_bytes: u64) -> u64 {
        let number = self.item_next;
        self.item_next += 1;
        self.queued_bytes += size_bytes;
        self.queue.push_back(Queued { number, item, done_bytes: 0, counted_bytes: size_bytes });
        number
    }

    /// Queues an entry with its payload; returns its item number.
    pub(super) fn push_entry(&mut self, header: EntryHeader, payload: &[u8]) -> u64 {
        let number = self.push_lazily(header, payload);
        self.make_urgent();
        number
    }

    /// Queues an entry that goes with the next group that anything else asks for.
    pub(super) fn push_lazily(&mut self, mut header: EntryHeader, payload: &[u8]) -> u64 {
        header.payload_bytes = U32::new(payload.len() as u32);
        let size = EntryHeader::size_bytes(payload.len()) as u64;
        self.push(Item::Entry { header, payload: payload.into() }, size)
    }

    /// Queues `place..place + bytes`, whole batches that end before `end_offset`. Joins the waiting
    /// item `open` where the bytes follow it and both fit one group; returns the item's number.
    pub(super) fn push_append(
        &mut self,
        log: LogId,
        place: Place,
        bytes: u64,
        end_offset: Offset,
        open: Option<u64>,
    ) -> u64 {
        if let Some(number) = open
            && self.join(number, place, bytes, end_offset)
        {
            return number;
        }
        let to = place.position + bytes;
        let item = Item::Append { log, segment: place.segment, from: place.position, to, end_offset };
        let number = self.push(item, EntryHeader::size_bytes(bytes as usize) as u64);
        self.make_urgent();
        number
    }

    fn join(&mut self, number: u64, place: Place, bytes: u64, batch_end_offset: Offset) -> bool {
        let payload_bytes_max = self.group_bytes_max - (GroupHeader::BYTES + EntryHeader::BYTES + 8) as u64;
        let Some(first) = self.queue.front().map(|queued| queued.number) else { return false };
        let Some(queued) = number.checked_sub(first).and_then(|index| self.queue.get_mut(index as usize))
        else {
            return false;
        };
        debug_assert_eq!(queued.number, number);
        let Item::Append { segment, from, to, end_offset, .. } = &mut queued.item else { return false };
        // A piece of it is on its way already: joining for ever would keep it from ending.
        if queued.done_bytes > 0 || *segment != place.segment || *to != place.position {
            return false;
        }
        if *to + bytes - *from > payload_bytes_max {
            return false;
        }
        *to += bytes;
        *end_offset = batch_end_offset;
        let grown = EntryHeader::size_bytes((*to - *from) as usize) as u64 - queued.counted_bytes;
        queued.counted_bytes += grown;
        self.queued_bytes += grown;
        true
    }

    // ---- Space -------------------------------------------------------------------------------

    /// Bytes of all files that are ready.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.used.iter().map(|file| file.bytes).sum::<u64>()
            + self.free.iter().map(|file| file.bytes).sum::<u64>()
    }

    /// Bytes that groups can still take, without those of items that wait.
    pub(super) fn room_bytes(&self) -> u64 {
        let rest = self.used.back().map_or(0, |file| file.bytes - self.position);
        let free: u64 = self.free.iter().map(|file| file.bytes).sum();
        let groups_count = self.queued_bytes / self.group_bytes_max + 2;
        let waiting = self.queued_bytes + groups_count * (GroupHeader::BYTES + BLOCK_BYTES) as u64;
        (rest + free).saturating_sub(waiting)
    }

    /// Rests of files that groups may have to leave unused.
    pub(super) fn waste_bytes(&self) -> u64 {
        let rest = REST_BYTES_MIN.min(self.group_bytes_max / 2) + BLOCK_BYTES as u64;
        (self.free.len() as u64 + 1) * rest
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let before: u64 = self.used.iter().rev().skip(1).map(|file| file.bytes).sum();
        before + self.position
    }

    pub(super) fn file_mut(&mut self, incarnation: u64) -> Option<&mut JournalFile> {
        self.used.iter_mut().find(|file| file.incarnation == incarnation)
    }

    /// Begins the next free file. False when none is free.
    pub(super) fn begin_file(&mut self) -> bool {
        let Some(free) = self.free.pop_front() else { return false };
        self.incarnation += 1;
        self.used.push_back(JournalFile {
            number: free.number,
            file: free.file,
            bytes: free.bytes,
            incarnation: self.incarnation,
            group_first: self.group_next,
            previous_checksum: self.previous_checksum,
            dirty_count: 0,
            logs: Vec::new(),
        });
        self.position = 0;
        true
    }

    /// Frees the files before the one that begins with group `replay_number`: a durable image
    /// doesn't need them, nor does any other.
    pub(super) fn recycle_before(&mut self, replay_number: u64) {
        while self.used.len() > 1 && self.used[0].group_first < replay_number {
            let file = self.used.pop_front().expect("more than one");
            assert!(self.used[0].group_first <= replay_number, "an image begins with a file");
            self.free.push_back(FreeFile { number: file.number, file: file.file, bytes: file.bytes });
        }
    }

    // ---- Groups ------------------------------------------------------------------------------

    /// Builds the next group out of the items that wait; an empty one where `mark` is set. None
    /// when there is nothing to write, a group is in flight, or no file has room.
    pub(super) fn build(&mut self, tails: &impl TailBytes, mark: bool) -> Option<Built> {
        if self.queue.is_empty() && !mark {
            return None;
        }
        let mut buffer = self.buffer.take()?;
        let mut limit = self.group_limit();
        if limit < self.group_bytes_wanted() {
            if !self.begin_file() {
                self.buffer = Some(buffer);
                return None;
            }
            limit = self.group_limit();
        }
        let item_first = self.queue.front().map_or(self.item_next, |queued| queued.number);
        let mut effects = std::mem::take(&mut self.spare_effects);
        let (payload_end, entries_count) = self.fill(tails, &mut buffer[..limit as usize], &mut effects);
        let bytes = blocks_up(payload_end as u64) as usize;
        buffer[payload_end..bytes].fill(0);
        self.seal_group(&mut buffer[..bytes], payload_end, item_first, entries_count);
        let current = self.used.back().expect("a file has room for the group");
        let built = Built {
            bytes,
            file: current.file,
            position: self.position,
            incarnation: current.incarnation,
            item_end: self.queue.front().map_or(self.item_next, |queued| queued.number),
            buffer,
            effects,
            entries_count,
        };
        self.position += bytes as u64;
        self.group_next += 1;
        Some(built)
    }

    fn group_limit(&self) -> u64 {
        let rest = self.used.back().map_or(0, |file| file.bytes - self.position);
        rest.min(self.group_bytes_max)
    }

    /// The least that makes writing into the current file worth while: the first item, or as much
    /// of it as a reasonable piece.
    fn group_bytes_wanted(&self) -> u64 {
        let first = match self.queue.front() {
            Some(Queued { item: Item::Append { from, to, .. }, done_bytes, .. }) => {
                (to - from - done_bytes).min(REST_BYTES_MIN.min(self.group_bytes_max / 2))
            }
            Some(Queued { item: Item::Entry { payload, .. }, .. }) => payload.len() as u64,
            None => 0,
        };
        blocks_up((GroupHeader::BYTES + EntryHeader::size_bytes(first as usize)) as u64)
    }

    /// Moves items into the buffer. Returns the payload's end and the number of entries.
    fn fill(&mut self, tails: &impl TailBytes, buffer: &mut [u8], effects: &mut Vec<Effect>) -> (usize, u32) {
        let mut end = GroupHeader::BYTES;
        let mut entries_count = 0;
        while let Some(queued) = self.queue.front_mut() {
            let space = buffer.len() - end;
            let finished = match &queued.item {
                Item::Entry { header, payload } => {
                    let size = EntryHeader::size_bytes(payload.len());
                    if size > space {
                        break;
                    }
                    put_entry(&mut buffer[end..end + size], header, |out| out.copy_from_slice(payload));
                    end += size;
                    true
                }
                Item::Append { log, segment, from, to, end_offset } => {
                    let left = (to - from - queued.done_bytes) as usize;
                    let step = left.min(space.saturating_sub(EntryHeader::BYTES) & !7);
                    // Only what no group could hold whole is cut, and what stands first in a file's rest.
                    if step == 0 || (step < left && entries_count > 0) {
                        break;
                    }
                    let place = Place::new(*segment, from + queued.done_bytes);
                    let size = EntryHeader::size_bytes(step);
                    let mut header = EntryHeader::new(EntryKind::Append, log.0, *segment, place.position);
                    header.payload_bytes = U32::new(step as u32);
                    header.total_bytes = U32::new((to - from) as u32);
                    header.flags = if step < left { MORE_PIECES } else { 0 };
                    put_entry(&mut buffer[end..end + size], &header, |out| tails.copy_tail(*log, place, out));
                    end += size;
                    let end_offset = (step == left).then_some(*end_offset);
                    // Of a piece, too, nothing may go before the whole batch is in its segment.
                    effects.push(Effect { log: *log, end: Place::new(*segment, *to), end_offset });
                    queued.done_bytes += step as u64;
                    step == left
                }
            };
            entries_count += 1;
            let left = match &queued.item {
                Item::Append { from, to, .. } if !finished => {
                    EntryHeader::size_bytes((to - from - queued.done_bytes) as usize) as u64
                }
                _ => 0,
            };
            self.queued_bytes -= queued.counted_bytes - left;
            queued.counted_bytes = left;
            if !finished {
                break;
            }
            self.queue.pop_front();
        }
        (end, entries_count)
    }

    fn seal_group(&mut self, group: &mut [u8], payload_end: usize, item_first: u64, entries_count: u32) {
        let payload = &group[GroupHeader::BYTES..payload_end];
        let current = self.used.back().expect("a file has room for the group");
        let mut header = GroupHeader {
            magic: GROUP_MAGIC,
            version: U16::new(VERSION),
            reserved: U16::ZERO,
            header_checksum: U32::ZERO,
            log_id: self.log_id,
            incarnation: U64::new(self.incarnation),
            number: U64::new(self.group_next),
            item_first: U64::new(item_first),
            position: U64::new(self.position),
            file: U32::new(current.number),
            payload_bytes: U32::new(payload.len() as u32),
            entries_count: U32::new(entries_count),
            previous_checksum: U32::new(self.previous_checksum),
            payload_checksum: U32::new(crc32c(payload)),
            reserved_end: [0; 12],
        };
        header.seal();
        self.previous_checksum = header.header_checksum.get();
        group[..GroupHeader::BYTES].copy_from_slice(header.as_bytes());
    }

    /// The group in flight is durable.
    pub(super) fn group_durable(&mut self, buffer: IoBuffer, mut effects: Vec<Effect>, item_end: u64) {
        effects.clear();
        self.spare_effects = effects;
        self.buffer = Some(buffer);
        self.group_durable += 1;
        assert_eq!(self.group_durable + 1, self.group_next, "exactly one group is in flight");
        assert!(item_end >= self.item_durable);
        self.item_durable = item_end;
    }
}

fn put_entry(out: &mut [u8], header: &EntryHeader, fill: impl FnOnce(&mut [u8])) {
    let payload_end = EntryHeader::BYTES + header.payload_bytes.get() as usize;
    out[..EntryHeader::BYTES].copy_from_slice(header.as_bytes());
    fill(&mut out[EntryHeader::BYTES..payload_end]);
    out[payload_end..].fill(0);
}
