//! Stop: ends a lane in order, so that the next start has nothing to redo.

use std::collections::VecDeque;

use super::cycle::Phase;
use super::disk::Disk;
use super::format::{EntryHeader, EntryKind};
use super::lane::Lane;
use super::options::{LaneError, LogId};
use super::place::Place;
use crate::base::ids::WallMs;
use crate::ring::{IoError, Ring};

/// Partitions looked at between two completions, so that many that need nothing don't hold up jobs.
const LOOKS_MAX: usize = 1_024;
/// Files cut at once: twice the workers that the kernel runs such operations on, so that these are busy.
const CUTS_MAX: usize = 32;

impl Lane {
    /// Brings everything to its segment, gives active segments their exact length, makes an image of
    /// it durable, and then the entry that says so. Blocks. The lane takes nothing afterwards.
    ///
    /// Errors: `Io` where a write or flush failed, or space or descriptors are short: the next start recovers
    /// as after a crash.
    pub fn clean_stop(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        self.clean_cancel();
        self.journal.make_urgent();
        self.drive(ring, Self::is_idle)?;
        self.settle(ring)?;
        self.trim_active(ring)?;
        self.write_last_image(ring)?;
        self.journal.push_entry(EntryHeader::new(EntryKind::CleanStop, 0, 0, 0), &[]);
        let item = self.journal.item_next;
        self.drive(ring, |lane| lane.journal.item_durable >= item)?;
        self.fenced = Some("the lane was stopped".to_owned());
        self.shrinks.close(ring);
        for file in self.journal.used.drain(..) {
            ring.close(file.file);
        }
        for file in self.journal.free.drain(..) {
            ring.close(file.file);
        }
        Ok(())
    }

    /// Materialises and flushes every partition, as many at once as there may be jobs.
    fn settle(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        let mut logs: VecDeque<LogId> = self.partitions.iter().map(|partition| partition.number).collect();
        let refusals_count = self.stats.space_refusals_count;
        while !logs.is_empty() {
            for _ in 0..logs.len().min(LOOKS_MAX) {
                if !self.materialises_more() {
                    break;
                }
                let log = logs.pop_front().expect("counted");
                if let Some(target) = self.unsettled(log) {
                    self.materialise_start(ring, log, Some(target), true);
                    // Looked at again behind the others: it may be busy with another job now.
                    logs.push_back(log);
                }
            }
            self.step(ring)?;
            // Trying again could go on for ever.
            if self.stats.space_refusals_count > refusals_count {
                return Err(self.short());
            }
        }
        // Seals of what was just written, drops, an image that was begun.
        self.drive(ring, |lane| {
            lane.is_idle() && lane.cycle.seals.is_empty() && matches!(lane.cycle.phase, Phase::Idle)
        })
    }

    /// Up to where the partition must still be written or flushed.
    fn unsettled(&self, log: LogId) -> Option<Place> {
        let partition = self.partitions.get(log).filter(|partition| partition.dropping.is_none())?;
        let ends = partition.ends;
        (partition.is_dirty() || ends.flushed < ends.written).then_some(ends.durable)
    }

    /// Cuts the zeros behind the last batch of each active segment.
    fn trim_active(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        // Nothing works on them any more, and the files to cut need descriptors.
        self.files.shrink(ring, 0);
        self.cached_files.shrink(ring, 0);
        let mut padded = Vec::new();
        for partition in self.partitions.iter().filter(|partition| partition.dropping.is_none()) {
            let active = partition.active();
            if active.padded && active.created && active.bytes > 0 {
                padded.push((partition.number, (active.log_path(&partition.dir), active.bytes)));
            }
        }
        let mut disk = Disk::new(ring, self.options.owner);
        for some in padded.chunks(CUTS_MAX) {
            let (logs, cuts): (Vec<_>, Vec<_>) = some.iter().cloned().unzip();
            if let Err(error) = disk.cut_files(&cuts) {
                self.fence(error.to_string());
                return Err(error);
            }
            for log in logs {
                self.partitions.get_mut(log).expect("just listed").active_mut().padded = false;
            }
        }
        Ok(())
    }

    fn write_last_image(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        if self.checkpoint.item_imaged == self.journal.item_next && self.journal.used.len() == 1 {
            return Ok(());
        }
        let generation = self.checkpoint.generation;
        self.image_begin();
        self.drive(ring, |lane| lane.checkpoint.generation > generation)
    }

    /// Goes on until `done`.
    fn drive(&mut self, ring: &mut Ring, done: impl Fn(&Self) -> bool) -> Result<(), LaneError> {
        while !done(self) {
            self.step(ring)?;
        }
        Ok(())
    }

    /// One turn and, where something is in flight, one completion.
    fn step(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        let now = ring.now();
        self.turn(ring, now);
        let more = self.housekeep(ring, now, WallMs(0));
        self.turn(ring, now);
        let waits = self.cycle.paused_until.is_some() || self.jobs.retry_at.is_some();
        if let Some(completion) = self.jobs.wait(ring) {
            self.set_now(ring.now());
            self.complete_job(ring, completion);
        } else if !more && self.fenced.is_none() && waits {
            return Err(self.short());
        }
        match &self.fenced {
            Some(what) => Err(LaneError::Io { what: what.clone(), error: IoError::Os(5) }),
            None => Ok(()),
        }
    }

    fn short(&self) -> LaneError {
        let what =
            format!("lane {} can't be stopped in order: no space or no descriptors", self.options.lane.0);
        LaneError::Io { what, error: IoError::NoSpace }
    }
}
