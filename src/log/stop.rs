//! Stop: ends a lane in order, so that the next start has nothing to redo.

use super::cycle::Phase;
use super::disk::failed;
use super::format::{EntryHeader, EntryKind};
use super::lane::Lane;
use super::options::{LaneError, LogId};
use crate::base::ids::WallMs;
use crate::ring::{IoError, OpenMode, Ring};

impl Lane {
    /// Brings everything to its segment, gives active segments their exact length, makes an image of
    /// it durable, and then the entry that says so. Blocks. The lane takes nothing afterwards.
    ///
    /// Errors: `Io` where a write or flush failed: the next start recovers as after a crash.
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
        self.files.shrink(ring, 0);
        self.cached_files.shrink(ring, 0);
        self.shrinks.close(ring);
        for file in self.journal.used.drain(..) {
            ring.close(file.file);
        }
        for file in self.journal.free.drain(..) {
            ring.close(file.file);
        }
        Ok(())
    }

    /// Materialises and flushes every partition.
    fn settle(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        let logs: Vec<LogId> = self.partitions.iter().map(|partition| partition.number).collect();
        for log in logs {
            while let Some(partition) = self.partitions.get(log) {
                let (durable, ends) = (partition.ends.durable, partition.ends);
                if partition.dropping.is_some() || (!partition.is_dirty() && ends.flushed >= ends.written) {
                    break;
                }
                self.materialise_start(ring, log, Some(durable), true);
                self.step(ring)?;
            }
        }
        // Seals of what was just written, drops, an image that was begun.
        self.drive(ring, |lane| {
            lane.is_idle() && lane.cycle.seals.is_empty() && matches!(lane.cycle.phase, Phase::Idle)
        })
    }

    /// Cuts the zeros behind the last batch of each active segment.
    fn trim_active(&mut self, ring: &mut Ring) -> Result<(), LaneError> {
        let mut padded = Vec::new();
        for partition in self.partitions.iter().filter(|partition| partition.dropping.is_none()) {
            let active = partition.active();
            if active.padded && active.created && active.bytes > 0 {
                padded.push((partition.number, active.id, active.bytes, active.log_path(&partition.dir)));
            }
        }
        let mut disk = super::disk::Disk::new(ring, self.options.owner);
        for (log, segment, bytes, path) in padded {
            let fail = |error| failed("trimming", &path, error);
            let file = disk.open(&path, OpenMode::Write).map_err(fail)?;
            disk.truncate(file, bytes).map_err(fail)?;
            disk.flush(file).map_err(fail)?;
            disk.ring.close(file);
            let partition = self.partitions.get_mut(log).expect("just listed");
            partition.segment_mut(segment).expect("just listed").padded = false;
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
        if let Some(token) = self.jobs.any_in_flight() {
            let completion = ring.wait(token);
            self.set_now(ring.now());
            self.complete_job(ring, completion);
        } else if !more && self.fenced.is_none() && self.cycle.paused_until.is_some() {
            let what = format!("lane {} can't be stopped in order: no space", self.options.lane.0);
            return Err(LaneError::Io { what, error: IoError::NoSpace });
        }
        match &self.fenced {
            Some(what) => Err(LaneError::Io { what: what.clone(), error: IoError::Os(5) }),
            None => Ok(()),
        }
    }
}
