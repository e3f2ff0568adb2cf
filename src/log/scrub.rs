//! Scrub: reads sealed segments again, slowly, and checks every byte against its checksum.
//!
//! Promises: a segment is looked at soon after it was sealed, and then once per interval; what isn't as it
//!           was written is told (`LaneEvent::Damage`), and a damaged index is made again.
//! Never:    reads faster than its rate, keeps a segment from being deleted for longer than one read.

use std::collections::VecDeque;

use super::format::{BLOCK_BYTES, IndexRow, blocks_down, blocks_up};
use super::jobs::{Done, Job};
use super::lane::Lane;
use super::options::{LaneEvent, LogId};
use super::read::{Verified, verified};
use super::reindex::Reindex;
use super::row_check::decode_index;
use super::segment::{Segment, VerifiedRun};
use crate::base::ids::MonotonicNs;
use crate::protocol::record_batch::BatchHeader;
use crate::ring::{FileId, IoBuffer, IoError, OpenMode, Ring};

/// Read at once; more for a larger batch.
const WINDOW_BYTES: usize = 256 << 10;
/// How long it waits for a descriptor.
const RETRY_MS: u64 = 500;
/// A start has better things to do.
const FIRST_ROUND_MS: u64 = 600_000;

#[derive(Default)]
pub(super) struct Scrub {
    /// Sealed and not looked at since.
    fresh: VecDeque<(LogId, u64)>,
    at: Option<At>,
    /// The segment that the round looked at last, while one goes on.
    round: Option<(LogId, u64)>,
    round_began: Option<MonotonicNs>,
    /// The rate allows no read before.
    next_at: MonotonicNs,
    in_flight: bool,
}

/// The segment being looked at.
struct At {
    log: LogId,
    segment: u64,
    /// As the index file has them; None where that isn't what was written.
    index: Option<Vec<IndexRow>>,
    /// As its batches say.
    found: Reindex,
    step: Step,
    /// None while it is being read into.
    buffer: Option<IoBuffer>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    OpenIndex,
    ReadIndex(FileId),
    OpenLog,
    Window,
}

/// One operation of it.
pub(super) struct ScrubRead {
    position: u64,
    asked_bytes: usize,
}

impl Scrub {
    pub(super) fn note_sealed(&mut self, log: LogId, segment: u64) {
        self.fresh.push_back((log, segment));
    }
}

impl Lane {
    /// Submits the next operation when it is time for one.
    pub(super) fn scrub_step(&mut self, ring: &mut Ring) {
        if self.scrub_at().is_none_or(|at| self.now < at) {
            return;
        }
        if self.scrub.at.is_none() && !self.scrub_begin() {
            return;
        }
        let at = self.scrub.at.as_mut().expect("just begun");
        let (log, segment) = (at.log, at.segment);
        if at.step == Step::Window && !self.files.is_open(segment) {
            at.step = Step::OpenLog;
        }
        // The lease holds while an operation is in flight only: deletion needn't wait for the rate.
        let found = self.partitions.get_mut(log).filter(|partition| partition.is_online());
        let found = found.and_then(|partition| partition.segment_mut(segment));
        match found.filter(|segment| segment.sealed && !segment.dropping) {
            Some(segment) => segment.leases += 1,
            None => {
                self.scrub_close(ring);
                return;
            }
        }
        self.scrub.in_flight = true;
        self.scrub_submit(ring);
    }

    /// When there is something to do for the scrub.
    pub(super) fn scrub_at(&self) -> Option<MonotonicNs> {
        if self.options.scrub_bytes_per_second == 0 || self.scrub.in_flight || self.fenced.is_some() {
            return None;
        }
        let works = self.scrub.at.is_some() || !self.scrub.fresh.is_empty() || self.scrub.round.is_some();
        let round_at = match self.scrub.round_began {
            Some(began) => began.plus_ms(self.options.scrub_interval_ms),
            None => self.opened.plus_ms(FIRST_ROUND_MS.min(self.options.scrub_interval_ms)),
        };
        Some(if works { self.scrub.next_at } else { round_at.max(self.scrub.next_at) })
    }

    /// Chooses the next segment. False when there is none.
    fn scrub_begin(&mut self) -> bool {
        let (log, segment) = match self.scrub.fresh.pop_front() {
            Some(fresh) => fresh,
            None => match self.scrub_next_of_round() {
                Some(next) => next,
                None => return false,
            },
        };
        let found = self.partitions.get(log).and_then(|partition| partition.segment(segment));
        let Some(found) = found.filter(|segment| segment.sealed) else { return false };
        self.scrub.at = Some(At {
            log,
            segment,
            index: None,
            found: Reindex::new(found),
            step: Step::OpenIndex,
            buffer: Some(IoBuffer::new(WINDOW_BYTES)),
        });
        true
    }

    fn scrub_next_of_round(&mut self) -> Option<(LogId, u64)> {
        let (log, behind) = match self.scrub.round {
            Some((log, segment)) => (log, Some(segment)),
            None => {
                self.scrub.round_began = Some(self.now);
                (LogId(0), None)
            }
        };
        let mut from = log.0;
        self.scrub.round = None;
        while let Some(partition) = self.partitions.next_from(from) {
            let is_next = |segment: &&Segment| {
                segment.sealed && (partition.number != log || behind.is_none_or(|behind| segment.id > behind))
            };
            if let Some(segment) = partition.segments.iter().find(is_next) {
                self.scrub.round = Some((partition.number, segment.id));
                return self.scrub.round;
            }
            from = partition.number.0 + 1;
        }
        self.stats.scrub_rounds_count += 1;
        None
    }

    fn scrub_submit(&mut self, ring: &mut Ring) {
        let mut at = self.scrub.at.take().expect("the caller chose a segment");
        let key = self.jobs.reserve();
        let token = self.jobs.token(key);
        let partition = self.partition(at.log);
        let segment = partition.leased(at.segment).expect("a leased segment stays");
        let mut read = ScrubRead { position: 0, asked_bytes: 0 };
        match at.step {
            Step::OpenIndex => ring.open(token, &segment.index_path(&partition.dir), OpenMode::Read),
            Step::OpenLog => ring.open(token, &segment.log_path(&partition.dir), OpenMode::Write),
            Step::ReadIndex(_) | Step::Window => {
                let index = match at.step {
                    Step::ReadIndex(file) => Some(file),
                    _ => None,
                };
                let file = index.or_else(|| self.files.pin(at.segment)).expect("opened before");
                let from = if index.is_some() { 0 } else { at.found.position() };
                read.position = blocks_down(from);
                let buffer = at.buffer.take().expect("nothing is being read");
                read.asked_bytes = buffer.len();
                ring.read(token, file, read.position, buffer, 0..read.asked_bytes);
            }
        }
        self.scrub.at = Some(at);
        self.put_new(key, Some(Job::Scrub(read)));
    }

    pub(super) fn scrub_done(&mut self, ring: &mut Ring, read: ScrubRead, done: Done) {
        self.scrub.in_flight = false;
        let mut at = self.scrub.at.take().expect("an operation belongs to a segment");
        self.release_lease(at.log, at.segment);
        let bytes = match done.outcome() {
            Ok(()) => Ok(read.asked_bytes),
            Err(IoError::Short { transferred_bytes }) => Ok(transferred_bytes),
            Err(error) => Err(error),
        };
        match (at.step, done) {
            (_, Done::Opened(Err(IoError::NoDescriptors))) => self.scrub.next_at = self.now.plus_ms(RETRY_MS),
            (Step::OpenIndex, Done::Opened(Ok(file))) => at.step = Step::ReadIndex(file),
            // Missing, or the disk refuses it: made again from the segment.
            (Step::OpenIndex, _) => at.step = Step::Window,
            (Step::ReadIndex(file), done) => {
                let buffer = done.into_buffer();
                ring.close(file);
                at.index = bytes.ok().and_then(|bytes| decode_index(&buffer[..bytes], at.segment));
                at.buffer = Some(buffer);
                at.step = Step::Window;
            }
            (Step::OpenLog, Done::Opened(Ok(file))) => {
                self.files.insert(ring, at.segment, file);
                self.files.unpin(at.segment);
                at.step = Step::Window;
            }
            (Step::OpenLog, done) => {
                let error = done.outcome().expect_err("an open file comes with its id");
                return self.scrub_tell(&at, &format!("it can't be opened: {error}"));
            }
            (Step::Window, done) => {
                self.files.unpin(at.segment);
                return self.scrub_window(ring, at, (read.position, bytes), done.into_buffer());
            }
        }
        self.scrub.at = Some(at);
    }

    fn scrub_window(
        &mut self,
        ring: &mut Ring,
        mut at: At,
        (position, bytes): (u64, Result<usize, IoError>),
        buffer: IoBuffer,
    ) {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return self.scrub_tell(&at, &format!("reading at {position} failed: {error}")),
        };
        self.stats.scrubbed_bytes += bytes as u64;
        let ns = bytes as u128 * 1_000_000_000 / u128::from(self.options.scrub_bytes_per_second);
        self.scrub.next_at = MonotonicNs(self.now.0 + ns as u64);
        let end = self.partition(at.log).leased(at.segment).expect("it was leased until now").bytes;
        let left = end - at.found.position();
        let data = buffer.get((at.found.position() - position) as usize..bytes).unwrap_or_default();
        let accepts = |header: &BatchHeader| {
            let size = at.found.size_of_next(header, end);
            size.is_some_and(|size| {
                at.found.note(header, size);
                true
            })
        };
        // In a window up to the segment's end, a batch that isn't whole never will be.
        let checked = verified(data, left, position + bytes as u64 >= end, accepts);
        at.buffer = Some(buffer);
        match checked {
            Verified::Bytes(_) if at.found.position() == end => self.scrub_end(ring, at),
            Verified::Bytes(_) => self.scrub.at = Some(at),
            Verified::Larger(batch_bytes) if batch_bytes <= left => {
                let window = blocks_up(batch_bytes) as usize + 2 * BLOCK_BYTES;
                at.buffer = Some(IoBuffer::new(window.next_multiple_of(WINDOW_BYTES)));
                self.scrub.at = Some(at);
            }
            Verified::Larger(_) | Verified::Damaged => {
                let position = at.found.position();
                self.scrub_damage(at, &format!("the batch at {position} isn't what was written"));
            }
        }
    }

    /// All batches are intact; is the index?
    fn scrub_end(&mut self, ring: &mut Ring, at: At) {
        self.stats.scrubbed_segments_count += 1;
        match &at.index {
            Some(rows) if at.found.has_rows(rows) => {}
            Some(_) => return self.scrub_damage(at, "the headers of its batches aren't those of its index"),
            None => self.reindexed(at.log, at.segment, at.found),
        }
        if let Some(segment) = self.partitions.get_mut(at.log).and_then(|log| log.segment_mut(at.segment)) {
            let run = VerifiedRun { from: 0, to: segment.bytes, next: segment.end_offset };
            segment.note_verified(run);
            segment.checked.note(0..segment.bytes);
        }
        self.scrub_close(ring);
    }

    fn scrub_damage(&mut self, at: At, what: &str) {
        self.stats.damage_count += 1;
        self.scrub_tell(&at, what);
    }

    fn scrub_tell(&mut self, at: &At, what: &str) {
        let partition = self.partition(at.log);
        let path = partition.segment(at.segment).map(|segment| segment.log_path(&partition.dir));
        let path = path.map_or_else(String::new, |path| path.display().to_string());
        self.events.push(LaneEvent::Damage { log: at.log, what: format!("{path}: {what}") });
    }

    /// Leaves a segment before its end.
    fn scrub_close(&mut self, ring: &mut Ring) {
        if let Some(At { step: Step::ReadIndex(file), .. }) = self.scrub.at.take() {
            ring.close(file);
        }
    }
}
