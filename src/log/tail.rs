//! Tail: the newest bytes of every partition, in blocks of memory from one bounded pool.
//!
//! Owns:     the blocks and the order in which they were taken.
//! Promises: a block leaves memory only after its bytes, and the whole batch at its end, were written
//!           to the segment; so every batch is whole in memory or whole on disk.
//! Never:    grows past the pool's bytes, but in recovery, where the journal bounds it.
//! Called by the lane: append, group building, materialisation, reads.

use std::collections::VecDeque;

use super::block_memory::BlockMemory;
use super::format::BLOCK_BYTES;
use super::options::LogId;
use super::place::Place;
use crate::base::copy::copy_past_cache;
use crate::base::ids::Offset;
use crate::metrics::tally::{Tally, copied};
use crate::protocol::record_batch::{BatchHeader, HEADER_BYTES};
use crate::ring::{BufferPiece, PIECES_COUNT_MAX};

/// Block sizes are the powers of two from the first to the last.
const TAIL_BLOCK_BYTES_MIN: usize = 1 << 10;
const TAIL_BLOCK_BYTES_MAX: usize = 64 << 10;
const CLASSES_COUNT: usize = (TAIL_BLOCK_BYTES_MAX / TAIL_BLOCK_BYTES_MIN).ilog2() as usize + 1;

/// A batch from this size on has left the caches before anybody fetches it, and would only drive out its
/// source, which the journal reads next.
const PAST_CACHE_BYTES_MIN: usize = 256 << 10;

const _: () = assert!(TAIL_BLOCK_BYTES_MIN << (CLASSES_COUNT - 1) == TAIL_BLOCK_BYTES_MAX);

fn class_of(bytes: usize) -> usize {
    let size = bytes.clamp(TAIL_BLOCK_BYTES_MIN, TAIL_BLOCK_BYTES_MAX).next_power_of_two();
    (size / TAIL_BLOCK_BYTES_MIN).ilog2() as usize
}

/// Memory for blocks: used and free together never pass the limit.
pub(super) struct TailPool {
    limit_bytes: usize,
    /// Largest block: 64 KiB, less in a small pool.
    block_bytes_max: usize,
    used_bytes: usize,
    free_bytes: usize,
    free: [Vec<BlockMemory>; CLASSES_COUNT],
    /// Every block in the order of its taking; an entry whose block is gone is skipped.
    order: VecDeque<(LogId, u64)>,
    taken_count: u64,
}

impl TailPool {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            block_bytes_max: (limit_bytes / 32 + 1)
                .next_power_of_two()
                .clamp(TAIL_BLOCK_BYTES_MIN, TAIL_BLOCK_BYTES_MAX),
            used_bytes: 0,
            free_bytes: 0,
            free: Default::default(),
            order: VecDeque::new(),
            taken_count: 0,
        }
    }

    pub(super) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Room for `bytes` in fresh blocks, whatever their classes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.used_bytes + bytes.next_multiple_of(self.block_bytes_max) <= self.limit_bytes
    }

    /// The block taken first of those that may still be there.
    pub(super) fn oldest(&self) -> Option<(LogId, u64)> {
        self.nth_oldest(0)
    }

    pub(super) fn nth_oldest(&self, index: usize) -> Option<(LogId, u64)> {
        self.order.get(index).copied()
    }

    pub(super) fn forget_oldest(&mut self) {
        self.order.pop_front();
    }

    fn take(&mut self, class: usize, log: LogId) -> (BlockMemory, u64) {
        let size = TAIL_BLOCK_BYTES_MIN << class;
        let memory = match self.free[class].pop() {
            Some(memory) => {
                self.free_bytes -= size;
                memory
            }
            None => {
                self.give_back_to_allocator(size);
                BlockMemory::new(size)
            }
        };
        self.used_bytes += size;
        self.taken_count += 1;
        self.order.push_back((log, self.taken_count));
        (memory, self.taken_count)
    }

    /// Frees blocks of other sizes until `size` more bytes fit below the limit.
    fn give_back_to_allocator(&mut self, size: usize) {
        for class in (0..CLASSES_COUNT).rev() {
            while self.used_bytes + self.free_bytes + size > self.limit_bytes {
                if self.free[class].pop().is_none() {
                    break;
                }
                self.free_bytes -= TAIL_BLOCK_BYTES_MIN << class;
            }
        }
    }

    fn put(&mut self, memory: BlockMemory) {
        let size = memory.len();
        self.used_bytes -= size;
        // What was cut while it was being written is freed when that ends.
        if memory.is_unshared() && self.used_bytes + self.free_bytes + size <= self.limit_bytes {
            self.free_bytes += size;
            self.free[class_of(size)].push(memory);
        }
    }
}

struct Block {
    number: u64,
    segment: u64,
    /// Position of its first byte in the segment, which is `memory[skip]`.
    start: u64,
    skip: usize,
    len: usize,
    /// Position and base offset of the first batch that begins in the block; where none does, of the one
    /// that fills it or of one in front of that. Of the oldest blocks it may not be known.
    batch_first: Option<(u64, Offset)>,
    /// Where the last batch that has bytes in the block ends: once the segment's file holds
    /// everything up to here, the block may go.
    batch_end: u64,
    memory: BlockMemory,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.len as u64
    }

    fn spare_bytes(&self) -> usize {
        self.memory.len() - self.skip - self.len
    }

    /// Its memory from `position` on, to be written as it is: only where the block is full, ends at `end` or
    /// before, and has device blocks where the file has them.
    fn full_piece(&self, position: u64, end: u64) -> Option<BufferPiece> {
        let is_full = self.spare_bytes() == 0 && self.end() <= end;
        if !is_full || !position.is_multiple_of(BLOCK_BYTES as u64) {
            return None;
        }
        self.memory.piece(self.index(position)..self.memory.len())
    }

    /// Where the byte of `position` is.
    fn index(&self, position: u64) -> usize {
        self.skip + (position - self.start) as usize
    }
}

/// The blocks of one partition, oldest first. Within a segment they follow each other without gaps.
#[derive(Default)]
pub(super) struct Tail {
    blocks: VecDeque<Block>,
}

impl Tail {
    /// Bytes that an append of `bytes` at `place` takes from the pool at most.
    pub(super) fn room_wanted(&self, place: Place, bytes: usize) -> usize {
        match bytes.saturating_sub(self.spare_bytes(place)) {
            0 => 0,
            // The first of the blocks may begin anywhere in a device block.
            rest => rest + BLOCK_BYTES,
        }
    }

    fn spare_bytes(&self, place: Place) -> usize {
        match self.blocks.back() {
            Some(block)
                if block.segment == place.segment
                    && block.end() == place.position
                    && block.memory.is_unshared() =>
            {
                block.spare_bytes()
            }
            _ => 0,
        }
    }

    fn resident_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.len).sum()
    }

    /// Appends a whole batch: `head`, then `rest`. The caller checked the pool's room.
    pub(super) fn append(
        &mut self,
        pool: &mut TailPool,
        log: LogId,
        place: Place,
        base_offset: Offset,
        head: &[u8],
        rest: &[u8],
    ) {
        let batch_end = place.position + (head.len() + rest.len()) as u64;
        self.extend(pool, log, place, head, head.len() + rest.len());
        self.extend(pool, log, place.plus(head.len() as u64), rest, rest.len());
        self.mark_batch(place, base_offset, batch_end);
    }

    /// Adds bytes of unknown structure: a block's beginning, or a piece of a batch.
    pub(super) fn extend(
        &mut self,
        pool: &mut TailPool,
        log: LogId,
        place: Place,
        mut bytes: &[u8],
        wanted: usize,
    ) {
        let mut place = place;
        let is_large = bytes.len() >= PAST_CACHE_BYTES_MIN;
        while !bytes.is_empty() {
            if self.spare_bytes(place) == 0 {
                self.add_block(pool, log, place, wanted.max(bytes.len()));
            }
            let block = self.blocks.back_mut().expect("a block with room was added");
            let step = bytes.len().min(block.spare_bytes());
            let from = block.skip + block.len;
            let to = &mut block.memory.bytes_mut()[from..from + step];
            if is_large {
                copy_past_cache(to, &bytes[..step])
            } else {
                to.copy_from_slice(&bytes[..step])
            }
            copied(Tally::CopyTail, step);
            block.len += step;
            block.batch_end = block.batch_end.max(block.end());
            bytes = &bytes[step..];
            place = place.plus(step as u64);
        }
    }

    fn add_block(&mut self, pool: &mut TailPool, log: LogId, place: Place, wanted: usize) {
        // A busy partition gets larger blocks: as much as it has in memory already.
        let size = wanted.max(self.resident_bytes()).min(pool.block_bytes_max);
        let (memory, number) = pool.take(class_of(size), log);
        self.blocks.push_back(Block {
            number,
            segment: place.segment,
            start: place.position,
            skip: memory.skip_bytes(place.position),
            len: 0,
            batch_first: None,
            batch_end: place.position,
            memory,
        });
    }

    /// Says that a batch lies at `place..batch_end`.
    pub(super) fn mark_batch(&mut self, place: Place, base_offset: Offset, batch_end: u64) {
        for block in self.blocks.iter_mut().rev() {
            if block.segment != place.segment || block.end() <= place.position {
                break;
            }
            block.batch_end = block.batch_end.max(batch_end);
            if block.batch_first.is_none_or(|(position, _)| position < block.start) {
                block.batch_first = Some((place.position, base_offset));
            }
        }
    }

    /// Forgets everything from `place` on.
    pub(super) fn cut(&mut self, pool: &mut TailPool, place: Place) {
        while let Some(block) = self.blocks.back_mut() {
            if block.segment < place.segment
                || (block.segment == place.segment && block.start < place.position)
            {
                if block.segment == place.segment && block.end() > place.position {
                    block.len = (place.position - block.start) as usize;
                    block.batch_end = block.batch_end.min(place.position);
                    block.batch_first = block.batch_first.filter(|(at, _)| *at < place.position);
                    self.mark_last();
                }
                break;
            }
            let block = self.blocks.pop_back().expect("just seen");
            pool.put(block.memory);
        }
    }

    /// What begins in the last block was cut: its bytes are of a batch that begins in the block before, or
    /// further in front. A walk that wants it may as well start there.
    fn mark_last(&mut self) {
        let known = self.blocks.iter().rev().nth(1).map(|before| (before.segment, before.batch_first));
        let Some(last) = self.blocks.back_mut().filter(|last| last.batch_first.is_none()) else { return };
        last.batch_first = known.filter(|(segment, _)| *segment == last.segment).and_then(|(_, first)| first);
    }

    /// Forgets the blocks that end before `place`.
    pub(super) fn drop_before(&mut self, pool: &mut TailPool, place: Place) {
        while self.oldest().is_some_and(|(_, end)| end <= place) {
            self.pop_oldest(pool);
        }
    }

    pub(super) fn clear(&mut self, pool: &mut TailPool) {
        for block in self.blocks.drain(..) {
            pool.put(block.memory);
        }
    }

    /// Number of the oldest block, and the place up to which the file must hold everything before
    /// it may go.
    pub(super) fn oldest(&self) -> Option<(u64, Place)> {
        self.blocks.front().map(|block| (block.number, Place::new(block.segment, block.batch_end)))
    }

    pub(super) fn pop_oldest(&mut self, pool: &mut TailPool) {
        if let Some(block) = self.blocks.pop_front() {
            pool.put(block.memory);
        }
    }

    /// The first byte in memory, of whatever batch.
    pub(super) fn start(&self) -> Option<Place> {
        self.blocks.front().map(|block| Place::new(block.segment, block.start))
    }

    /// One past the last byte in memory.
    pub(super) fn end(&self) -> Option<Place> {
        self.blocks.back().map(|block| Place::new(block.segment, block.end()))
    }

    /// The first whole batch in memory.
    pub(super) fn batch_first(&self) -> Option<(Place, Offset)> {
        self.blocks.iter().find_map(|block| {
            let (position, offset) = block.batch_first.filter(|(position, _)| *position >= block.start)?;
            Some((Place::new(block.segment, position), offset))
        })
    }

    /// A batch in memory whose base offset is at most `offset`: where a walk towards it starts.
    pub(super) fn batch_before(&self, offset: Offset) -> Option<(Place, Offset)> {
        let start = self.start()?;
        let known =
            self.blocks.partition_point(|block| block.batch_first.is_none_or(|(_, first)| first <= offset));
        self.blocks.range(..known).rev().find_map(|block| {
            let (position, first) = block.batch_first?;
            let place = Place::new(block.segment, position);
            (place >= start).then_some((place, first))
        })
    }

    fn index_of(&self, place: Place) -> Option<usize> {
        let index = self.blocks.partition_point(|block| Place::new(block.segment, block.end()) <= place);
        let block = self.blocks.get(index)?;
        (block.segment == place.segment && block.start <= place.position).then_some(index)
    }

    /// Calls `put` with the pieces of `bytes` from `place` on, as far as they follow in the segment; returns
    /// how many bytes these were.
    pub(super) fn visit(&self, place: Place, bytes: usize, mut put: impl FnMut(&[u8])) -> usize {
        let Some(mut index) = self.index_of(place) else { return 0 };
        let mut position = place.position;
        let mut done = 0;
        while let Some(block) = self.blocks.get(index)
            && block.segment == place.segment
            && block.start <= position
            && done < bytes
        {
            let from = block.index(position);
            let step = ((block.end() - position) as usize).min(bytes - done);
            put(&block.memory[from..from + step]);
            done += step;
            position += step as u64;
            index += 1;
        }
        done
    }

    /// `full_blocks` has something.
    pub(super) fn begins_full_block(&self, place: Place, end: u64) -> bool {
        let block = self.index_of(place).map(|index| &self.blocks[index]);
        block.is_some_and(|block| block.full_piece(place.position, end).is_some())
    }

    /// The memory of the full blocks from `place` on that end at `end` or before, to be written as it is, and
    /// where the last one ends. Empty where `place` isn't at a device block, or its block isn't full.
    pub(super) fn full_blocks(&self, place: Place, end: u64) -> (Vec<BufferPiece>, u64) {
        let mut pieces = Vec::new();
        let mut position = place.position;
        let first = self.index_of(place).unwrap_or(self.blocks.len());
        let here = self.blocks.range(first..).take_while(|block| block.segment == place.segment);
        for block in here.take(PIECES_COUNT_MAX) {
            let Some(piece) = block.full_piece(position, end) else { break };
            pieces.push(piece);
            position = block.end();
        }
        (pieces, position)
    }

    /// Copies bytes from `place` on into `out`, as many as follow in the segment; returns how many.
    pub(super) fn copy(&self, place: Place, mut out: &mut [u8]) -> usize {
        self.visit(place, out.len(), |piece| {
            let (to, left) = std::mem::take(&mut out).split_at_mut(piece.len());
            to.copy_from_slice(piece);
            out = left;
        })
    }

    /// Appends up to `bytes` from `place` on to `out`; returns how many.
    pub(super) fn copy_to(&self, place: Place, bytes: usize, out: &mut Vec<u8>) -> usize {
        self.visit(place, bytes, |piece| out.extend_from_slice(piece))
    }

    /// The header of the batch at `place`, when it is whole in memory.
    pub(super) fn header(&self, place: Place) -> Option<BatchHeader> {
        let mut bytes = [0; HEADER_BYTES];
        (self.copy(place, &mut bytes) == HEADER_BYTES)
            .then(|| *BatchHeader::view(&bytes).expect("as many bytes as a header"))
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::super::testing::Batch;
    use super::*;
    use crate::base::random::Random;

    const LOG: LogId = LogId(1);

    /// A batch as it was appended.
    struct Plain {
        place: Place,
        base_offset: Offset,
        bytes: Vec<u8>,
    }

    impl Plain {
        fn end(&self) -> Place {
            self.place.plus(self.bytes.len() as u64)
        }
    }

    struct Model {
        pool: TailPool,
        tail: Tail,
        batches: Vec<Plain>,
        end: Place,
        offset: i64,
        /// Blocks on their way to disk, and what they must hold until they are there.
        in_flight: Vec<(Vec<BufferPiece>, Vec<u8>)>,
    }

    impl Model {
        fn append(&mut self, random: &mut Random) {
            if random.chance(1, 10) && self.end.position > 0 {
                self.end = Place::new(self.end.segment + 1 + random.below(2), 0);
            }
            let most = if random.chance(1, 8) { 9_000 } else { 900 };
            let batch = Batch::new(self.offset, 1 + random.below(3) as i32);
            let bytes = batch.sized(random.below(most) as usize).to_bytes();
            while !self.pool.has_room(self.tail.room_wanted(self.end, bytes.len())) {
                self.pop();
            }
            let (place, base_offset) = (self.end, Offset(self.offset));
            if random.chance(1, 2) {
                let (head, rest) = bytes.split_at(16);
                self.tail.append(&mut self.pool, LOG, place, base_offset, head, rest);
            } else {
                // As recovery does: in pieces, and known to be a batch at the end.
                let mut at = place;
                for piece in bytes.chunks(1 + random.below(3_000) as usize) {
                    self.tail.extend(&mut self.pool, LOG, at, piece, piece.len());
                    at = at.plus(piece.len() as u64);
                }
                self.tail.mark_batch(place, base_offset, at.position);
            }
            self.end = place.plus(bytes.len() as u64);
            self.offset += i64::from(batch.records_count);
            self.batches.push(Plain { place, base_offset, bytes });
        }

        fn pop(&mut self) {
            let (_, end) = self.tail.oldest().expect("a full pool has blocks");
            self.tail.pop_oldest(&mut self.pool);
            // Whoever pops was told what must be on disk: whole batches, up to there.
            let start = self.tail.start();
            let gone = |batch: &&Plain| start.is_none_or(|start| batch.place < start);
            assert!(self.batches.iter().filter(gone).all(|batch| batch.end() <= end));
        }

        fn cut(&mut self, random: &mut Random) {
            let kept = self.batches.len() - random.below(self.batches.len().min(12) as u64) as usize;
            let cut: Vec<Plain> = self.batches.drain(kept..).collect();
            let Some(first) = cut.first() else { return };
            self.tail.cut(&mut self.pool, first.place);
            (self.end, self.offset) = (first.place, first.base_offset.0);
            if self.tail.end().is_none() {
                // All that is known is on disk.
                self.batches.clear();
            }
        }

        /// Bytes of the model from `place` on, as many as follow in its segment.
        fn bytes_from(&self, place: Place, count: usize) -> Vec<u8> {
            let here = self.batches.iter().filter(|batch| batch.place.segment == place.segment);
            let behind = here.filter(|batch| batch.end() > place).flat_map(|batch| {
                let skip = place.position.saturating_sub(batch.place.position) as usize;
                &batch.bytes[skip..]
            });
            behind.copied().take(count).collect()
        }

        /// Full blocks are lent to a write, and given back later, whatever happens to the tail meanwhile.
        fn lend(&mut self, random: &mut Random) {
            if random.chance(1, 2) || self.in_flight.len() > 8 {
                let kept = self.in_flight.len() / 2;
                for (pieces, expected) in self.in_flight.drain(kept..) {
                    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes().to_vec()).collect();
                    assert!(bytes == expected, "memory changed while it was written");
                }
            }
            let Some(start) = self.tail.start() else { return };
            let block = start.position.next_multiple_of(BLOCK_BYTES as u64) + 4096 * random.below(4);
            let place = Place::new(start.segment, block);
            let end = block + random.below(40_000);
            let (pieces, full_end) = self.tail.full_blocks(place, end);
            assert_eq!(self.tail.begins_full_block(place, end), !pieces.is_empty());
            let expected = self.bytes_from(place, (full_end - block) as usize);
            assert!(full_end <= end.max(block) && full_end.is_multiple_of(BLOCK_BYTES as u64));
            let aligned =
                |piece: &BufferPiece| piece.range.start % BLOCK_BYTES + piece.range.end % BLOCK_BYTES == 0;
            assert!(pieces.iter().all(aligned));
            self.in_flight.push((pieces, expected));
        }

        fn check(&self, random: &mut Random) {
            let Some(start) = self.tail.start() else { return };
            assert_eq!(self.tail.end(), self.batches.last().map(Plain::end));
            let resident = || self.batches.iter().filter(|batch| batch.place >= start);
            let first = resident().next().map(|batch| (batch.place, batch.base_offset));
            assert_eq!(self.tail.batch_first(), first);
            for batch in resident() {
                let header = self.tail.header(batch.place).expect("it is in memory");
                assert_eq!(header.as_bytes(), &batch.bytes[..HEADER_BYTES]);
            }
            let picked = &self.batches[random.below(self.batches.len() as u64) as usize];
            let place = picked.place.plus(random.below(picked.bytes.len() as u64));
            let count = random.below(12_000) as usize;
            let expected = if place < start { Vec::new() } else { self.bytes_from(place, count) };
            let (mut copied, mut appended) = (vec![0; count], vec![7]);
            let copied_count = self.tail.copy(place, &mut copied);
            assert!(copied[..copied_count] == expected, "{place:?} in {start:?}");
            assert_eq!(self.tail.copy_to(place, count, &mut appended), expected.len());
            assert!(appended[1..] == expected);
            // A walk from there meets the batch that has the offset, wherever that is in memory.
            let wanted = Offset(random.below(self.offset as u64 + 2) as i64);
            match self.tail.batch_before(wanted) {
                Some(found) => {
                    assert!(found.1 <= wanted, "{found:?} lies behind {wanted:?}");
                    assert!(resident().any(|batch| (batch.place, batch.base_offset) == found));
                }
                None => assert!(first.is_none_or(|(_, offset)| offset > wanted), "{wanted:?} of {first:?}"),
            }
        }
    }

    #[test]
    fn it_holds_what_a_plain_list_of_batches_holds() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let mut model = Model {
                // Blocks of one to four device blocks.
                pool: TailPool::new((64 << 10) << (seed % 3)),
                tail: Tail::default(),
                batches: Vec::new(),
                end: Place::new(1, random.below(5_000)),
                offset: random.below(100) as i64,
                in_flight: Vec::new(),
            };
            for _ in 0..300 {
                match random.below(20) {
                    0..12 => model.append(&mut random),
                    12 if model.tail.oldest().is_some() => model.pop(),
                    13..16 if !model.batches.is_empty() => model.cut(&mut random),
                    16 if !model.batches.is_empty() => {
                        let index = random.below(model.batches.len() as u64) as usize;
                        let place = model.batches[index].place;
                        let before = model.tail.start();
                        model.tail.drop_before(&mut model.pool, place);
                        let after = model.tail.start();
                        let kept = model.batches[index..]
                            .iter()
                            .filter(|batch| before.is_some_and(|at| at <= batch.place));
                        assert!(
                            kept.map(|batch| batch.place).all(|place| after.is_some_and(|at| at <= place))
                        );
                    }
                    _ => {}
                }
                assert!(model.pool.used_bytes() <= model.pool.limit_bytes());
                model.lend(&mut random);
                model.check(&mut random);
            }
            model.tail.clear(&mut model.pool);
            assert_eq!(model.pool.used_bytes(), 0, "seed {seed}");
        }
    }
}
