//! Journal: turns storage operations into commit groups, durable in order.
//!
//! Owns:     the files, the queue of items that wait for a group, the two group buffers.
//! Promises: groups become durable in the order of their numbers; exactly one is in flight, so a valid
//!           group N+1 proves that N was durable; files are recycled strictly oldest first.
//! Never:    moves an item past another one, lets a group span files.
//! Called by the lane, which submits what is built here.

use std::collections::VecDeque;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use super::format::{
    BLOCK_BYTES, EntryHeader, EntryKind, GROUP_MAGIC, GroupHeader, MORE_PIECES, Sealed, VERSION, blocks_down,
    blocks_up,
};
use super::mutation::{self, Mutation};
use super::options::{LaneOptions, LogId};
use super::place::Place;
use super::touched::Touched;
use crate::base::checksum::RunningCrc32c;
use crate::base::copy::copy_past_cache;
use crate::base::ids::Offset;
use crate::metrics::tally::{Tally, copied};
use crate::ring::{FileId, IoBuffer};

/// A file's rest below this is left unused and the next file begun.
const REST_BYTES_MIN: u64 = 64 << 10;
/// An image entry in the journal: a block, its header, and the group that it may need for itself.
const IMAGE_ENTRY_BYTES: u64 = 2 * BLOCK_BYTES as u64 + 256;

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
    /// It has nothing to do but to prove the group before it.
    pub(super) is_mark: bool,
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
    open: Option<OpenGroup>,
    spare_buffers: Vec<IoBuffer>,
    spare_effects: Vec<Vec<Effect>>,
    pub(super) touched: Touched,
    group_bytes_max: u64,
}

/// Reads the bytes of an append item out of memory.
pub(super) trait TailBytes {
    /// Puts `bytes` from `place` of `log` on. All of it is in memory.
    fn put_tail(&self, log: LogId, place: Place, bytes: usize, payload: &mut Payload<'_>);
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
            open: None,
            // One is in flight while the other is filled.
            spare_buffers: vec![
                IoBuffer::new(group_bytes_max as usize),
                IoBuffer::new(group_bytes_max as usize),
            ],
            spare_effects: Vec::new(),
            touched: Touched::new(group_bytes_max),
            group_bytes_max,
        }
    }

    // ---- Queue -------------------------------------------------------------------------------

    /// Nothing waits for a group.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.queue.is_empty()
    }

    /// Something waits that somebody waits for.
    pub(super) fn is_urgent(&self) -> bool {
        let open = self.open.as_ref().map(|open| open.item_first);
        let first = open.or(self.queue.front().map(|queued| queued.number));
        first.is_some_and(|number| number < self.urgent_below)
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

    /// Queues `place..place + bytes`, a whole batch that ends before `end_offset`, as lazily.
    pub(super) fn push_append(&mut self, log: LogId, place: Place, bytes: u64, end_offset: Offset) -> u64 {
        let to = place.position + bytes;
        let item = Item::Append { log, segment: place.segment, from: place.position, to, end_offset };
        self.push(item, EntryHeader::size_bytes(bytes as usize) as u64)
    }

    /// Enough is gathered for a group of reasonable size.
    pub(super) fn is_group_large(&self) -> bool {
        let open_bytes = self.open.as_ref().map_or(0, |open| open.end as u64);
        open_bytes >= self.group_bytes_max / 4 || !self.queue.is_empty()
    }

    // ---- Space -------------------------------------------------------------------------------

    /// Bytes of all files that are ready.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.used.iter().map(|file| file.bytes).sum::<u64>()
            + self.free.iter().map(|file| file.bytes).sum::<u64>()
    }

    /// Bytes that appends can still take. A quarter of the journal, and an image entry for each of the
    /// `debts_count` partitions that will need one, stay free for what recycling itself has to write.
    pub(super) fn room_bytes(&self, debts_count: u64) -> u64 {
        let rest = self.used.back().map_or(0, |file| file.bytes - self.position);
        let free: u64 = self.free.iter().map(|file| file.bytes).sum();
        let space = Space {
            capacity_bytes: self.capacity_bytes(),
            left_bytes: rest + free,
            left_files_count: self.free.len() as u64 + 1,
            queued_bytes: self.queued_bytes + self.open.as_ref().map_or(0, |open| open.end as u64),
            group_bytes_max: self.group_bytes_max,
        };
        space.room_bytes(debts_count)
    }

    /// The room that recycling makes in the end: all files but one.
    pub(super) fn room_bytes_recycled(options: &LaneOptions) -> u64 {
        let files_count = u64::from(options.journal_files_count);
        let file_bytes = blocks_down(options.journal_bytes / files_count);
        let space = Space {
            capacity_bytes: file_bytes * files_count,
            left_bytes: file_bytes * (files_count - 1),
            left_files_count: files_count,
            queued_bytes: 0,
            group_bytes_max: u64::from(options.group_bytes_max),
        };
        space.room_bytes(0)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let before: u64 = self.used.iter().rev().skip(1).map(|file| file.bytes).sum();
        before + self.position
    }

    pub(super) fn file_mut(&mut self, incarnation: u64) -> Option<&mut JournalFile> {
        self.used.iter_mut().find(|file| file.incarnation == incarnation)
    }

    /// Lets the file written to end where it is, so that it can be recycled.
    pub(super) fn end_file(&mut self) {
        if self.open.is_none() && self.position > 0 {
            self.begin_file();
        }
    }

    /// Begins the next free file. False when none is free.
    fn begin_file(&mut self) -> bool {
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

    /// Moves what waits into the open group, as much as it takes.
    pub(super) fn collect(&mut self, tails: &impl TailBytes) {
        if self.queue.is_empty() {
            return;
        }
        if self.open.is_none() {
            self.open = self.open_group();
        }
        if let Some(mut open) = self.open.take() {
            self.fill(tails, &mut open);
            self.open = Some(open);
        }
    }

    /// Finishes the open group; an empty one where `mark` is set. None when there is nothing to
    /// write, a group is in flight, or no file has room.
    pub(super) fn build(&mut self, tails: &impl TailBytes, mark: bool) -> Option<Built> {
        if self.is_in_flight() {
            return None;
        }
        self.collect(tails);
        if self.open.is_none() && mark && self.queue.is_empty() {
            self.open = self.open_group();
        }
        let mut open = self.open.take()?;
        let bytes = blocks_up(open.end as u64) as usize;
        open.buffer[open.end..bytes].fill(0);
        self.seal_group(&mut open);
        let current = self.used.back().expect("an open group has its file");
        let built = Built {
            bytes,
            file: current.file,
            position: self.position,
            incarnation: current.incarnation,
            item_end: self.queue.front().map_or(self.item_next, |queued| queued.number),
            buffer: open.buffer,
            effects: open.effects,
            is_mark: open.items_count == 0,
        };
        self.touched.end_group(self.group_next, bytes as u64);
        self.position += bytes as u64;
        self.group_next += 1;
        Some(built)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.group_durable + 1 != self.group_next
    }

    /// The next group, empty, behind the one before it. None when no file has room.
    fn open_group(&mut self) -> Option<OpenGroup> {
        if self.group_limit() < self.group_bytes_wanted() && !self.begin_file() {
            return None;
        }
        let mut open = OpenGroup {
            buffer: self.spare_buffers.pop().expect("one group is in flight at most"),
            limit: self.group_limit() as usize,
            end: GroupHeader::BYTES,
            checksum: RunningCrc32c::default(),
            item_first: self.queue.front().map_or(self.item_next, |queued| queued.number),
            items_count: 0,
            effects: self.spare_effects.pop().unwrap_or_default(),
        };
        let (since, logs) = self.touched.name(self.group_next);
        let mut header = EntryHeader::new(EntryKind::Touched, 0, 0, since);
        header.payload_bytes = U32::new(size_of_val(logs) as u32);
        open.put_entry(&header, |payload| {
            for log in logs {
                payload.put(&log.to_le_bytes());
            }
        });
        Some(open)
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
        let touched = Touched::entry_bytes_max(self.group_bytes_max);
        blocks_up(touched + (GroupHeader::BYTES + EntryHeader::size_bytes(first as usize)) as u64)
    }

    fn fill(&mut self, tails: &impl TailBytes, open: &mut OpenGroup) {
        while let Some(queued) = self.queue.front_mut() {
            let space = open.limit - open.end;
            let left = match &queued.item {
                Item::Entry { header, payload } => {
                    if EntryHeader::size_bytes(payload.len()) > space {
                        break;
                    }
                    open.put_entry(header, |out| out.put(payload));
                    let kind = EntryKind::from_byte(header.kind).expect("an entry is made with a kind");
                    self.touched.note(kind, LogId(header.log.get()));
                    0
                }
                Item::Append { log, segment, from, to, end_offset } => {
                    let left = (to - from - queued.done_bytes) as usize;
                    let step = left.min(space.saturating_sub(EntryHeader::BYTES) & !7);
                    // Only what no group could hold whole is cut, and what stands first in a file's rest.
                    if step == 0 || (step < left && open.items_count > 0) {
                        break;
                    }
                    let place = Place::new(*segment, from + queued.done_bytes);
                    let mut header = EntryHeader::new(EntryKind::Append, log.0, *segment, place.position);
                    header.payload_bytes = U32::new(step as u32);
                    header.total_bytes = U32::new((to - from) as u32);
                    header.flags = if step < left { MORE_PIECES } else { 0 };
                    open.put_entry(&header, |out| tails.put_tail(*log, place, step, out));
                    let is_whole = step == left || mutation::is(Mutation::AckFirstPiece);
                    let end_offset = is_whole.then_some(*end_offset);
                    // Of a piece, too, nothing may go before the whole batch is in its segment.
                    open.note(Effect { log: *log, end: Place::new(*segment, *to), end_offset });
                    self.touched.note(EntryKind::Append, *log);
                    queued.done_bytes += step as u64;
                    left - step
                }
            };
            open.items_count += 1;
            let counted_bytes = if left == 0 { 0 } else { EntryHeader::size_bytes(left) as u64 };
            self.queued_bytes -= queued.counted_bytes - counted_bytes;
            queued.counted_bytes = counted_bytes;
            if left > 0 {
                break;
            }
            self.queue.pop_front();
        }
    }

    fn seal_group(&mut self, open: &mut OpenGroup) {
        let current = self.used.back().expect("an open group has its file");
        let mut header = GroupHeader {
            magic: GROUP_MAGIC,
            version: U16::new(VERSION),
            reserved: U16::ZERO,
            header_checksum: U32::ZERO,
            log_id: self.log_id,
            incarnation: U64::new(self.incarnation),
            number: U64::new(self.group_next),
            item_first: U64::new(open.item_first),
            position: U64::new(self.position),
            file: U32::new(current.number),
            payload_bytes: U32::new((open.end - GroupHeader::BYTES) as u32),
            entries_count: U32::new(open.items_count + 1),
            previous_checksum: U32::new(self.previous_checksum),
            payload_checksum: U32::new(open.checksum.value()),
            file_bytes: U64::new(current.bytes),
            reserved_end: U32::ZERO,
        };
        header.seal();
        self.previous_checksum = header.header_checksum.get();
        open.buffer[..GroupHeader::BYTES].copy_from_slice(header.as_bytes());
    }

    /// The group in flight is durable.
    pub(super) fn group_durable(&mut self, buffer: IoBuffer, mut effects: Vec<Effect>, item_end: u64) {
        effects.clear();
        self.spare_effects.push(effects);
        self.spare_buffers.push(buffer);
        self.group_durable += 1;
        assert_eq!(self.group_durable + 1, self.group_next, "exactly one group is in flight");
        assert!(item_end >= self.item_durable);
        self.item_durable = item_end;
    }
}

/// What the journal's room is reckoned from.
struct Space {
    capacity_bytes: u64,
    /// Not written to since they were free, in so many files.
    left_bytes: u64,
    left_files_count: u64,
    queued_bytes: u64,
    group_bytes_max: u64,
}

impl Space {
    fn room_bytes(&self, debts_count: u64) -> u64 {
        let groups_count = self.queued_bytes / self.group_bytes_max + 2;
        let touched = Touched::entry_bytes_max(self.group_bytes_max);
        let group = touched + (GroupHeader::BYTES + BLOCK_BYTES) as u64;
        let waiting = self.queued_bytes + groups_count * group;
        // Rests of files that groups may have to leave unused.
        let rest = REST_BYTES_MIN.min(self.group_bytes_max / 2) + BLOCK_BYTES as u64;
        let waste = self.left_files_count * rest;
        let images = (debts_count + 1) * (IMAGE_ENTRY_BYTES + touched);
        self.left_bytes.saturating_sub(waiting + waste + images + self.capacity_bytes / 4)
    }
}

/// The payload of an entry while it is put into the group's buffer, which only the device reads again:
/// the checksum is taken from where the bytes come from.
pub(super) struct Payload<'a> {
    left: &'a mut [u8],
    checksum: &'a mut RunningCrc32c,
}

/// Bytes copied and checksummed in one go: they stay in the nearest cache in between.
const STEP_BYTES: usize = 16 << 10;

impl Payload<'_> {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        for step in bytes.chunks(STEP_BYTES) {
            self.checksum.update(step);
            let (to, left) = std::mem::take(&mut self.left).split_at_mut(step.len());
            copy_past_cache(to, step);
            copied(Tally::CopyJournal, step.len());
            self.left = left;
        }
    }
}

/// The group that is being filled while the one before it is in flight.
struct OpenGroup {
    buffer: IoBuffer,
    /// As far as the file and the largest group let it grow.
    limit: usize,
    /// Header and entries so far.
    end: usize,
    /// Of the entries so far.
    checksum: RunningCrc32c,
    item_first: u64,
    /// Of the queue; the touched entry stands in front of them.
    items_count: u32,
    effects: Vec<Effect>,
}

/// Effects looked at for one of the same partition to join.
const EFFECTS_LOOKED_AT: usize = 16;

impl OpenGroup {
    /// Adds an entry with the payload that `fill` puts; the caller checked the space.
    fn put_entry(&mut self, header: &EntryHeader, fill: impl FnOnce(&mut Payload<'_>)) {
        let payload_bytes = header.payload_bytes.get() as usize;
        let out = &mut self.buffer[self.end..self.end + EntryHeader::size_bytes(payload_bytes)];
        let (out_header, out) = out.split_at_mut(EntryHeader::BYTES);
        out_header.copy_from_slice(header.as_bytes());
        self.checksum.update(out_header);
        let (out_payload, padding) = out.split_at_mut(payload_bytes);
        let mut payload = Payload { left: out_payload, checksum: &mut self.checksum };
        fill(&mut payload);
        assert!(payload.left.is_empty(), "an entry has the payload that its header says");
        padding.fill(0);
        self.checksum.update(padding);
        self.end += EntryHeader::size_bytes(payload_bytes);
    }

    /// Whole batches of a partition become durable together: one effect says so where it is near.
    fn note(&mut self, effect: Effect) {
        let near = self.effects.iter_mut().rev().take(EFFECTS_LOOKED_AT);
        match near.into_iter().find(|other| other.log == effect.log) {
            Some(other) if other.end_offset.is_some() && effect.end_offset.is_some() => *other = effect,
            _ => self.effects.push(effect),
        }
    }
}
