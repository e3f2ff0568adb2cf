//! Shrink: gives the space of removed files back piece by piece.
//!
//! Why:      a filesystem that discards what is freed (`mount -o discard`) does so within the removal, and
//!           the disk does nothing else meanwhile: 20 ms for 64 MiB were measured, which every commit group
//!           waited for. So a large file is held open while its names are removed, and then cut shorter in
//!           steps, with pauses for others.
//! Promises: only files whose names are durably gone are cut: no crash finds one of them.
//! Never:    holds more than a few files, or up anything that depends on the removal.

use std::collections::VecDeque;

use super::jobs::{Done, Job};
use super::lane::Lane;
use crate::base::ids::MonotonicNs;
use crate::ring::{FileId, Ring};

/// Files held open for this; further ones are freed as the filesystem does it: what was removed must not
/// keep a small disk full.
const FILES_MAX: usize = 4;
/// A piece is followed by a pause of so many times as long as it took, unless all places are taken.
const PAUSES: u64 = 2;

#[derive(Default)]
pub(super) struct Shrinks {
    /// Open files without names, and their lengths.
    files: VecDeque<(FileId, u64)>,
    /// These, and those of removals still going on.
    pub(super) held_count: usize,
    /// The first one is being cut since.
    began: Option<MonotonicNs>,
    ready_at: MonotonicNs,
}

impl Shrinks {
    /// Takes a place for a file to be held open, if one is left.
    pub(super) fn take_place(&mut self) -> bool {
        let is_left = self.held_count < FILES_MAX;
        self.held_count += usize::from(is_left);
        is_left
    }

    /// Gives the place of a file back that couldn't be opened, or is closed.
    pub(super) fn give_place(&mut self) {
        self.held_count -= 1;
    }

    pub(super) fn add(&mut self, files: Vec<(FileId, u64)>) {
        self.files.extend(files);
    }

    /// When the next piece is due, if none is being cut.
    pub(super) fn wake_at(&self) -> Option<MonotonicNs> {
        (!self.files.is_empty() && self.began.is_none()).then_some(self.ready_at)
    }

    /// Lets go of all files: what is left of them is freed by the filesystem.
    pub(super) fn close(&mut self, ring: &mut Ring) {
        self.files.drain(..).for_each(|(file, _)| ring.close(file));
    }
}

impl Lane {
    pub(super) fn shrink_step(&mut self, ring: &mut Ring) {
        let Some((file, bytes)) = self.shrinks.files.front().copied() else { return };
        if self.shrinks.began.is_some() || self.now < self.shrinks.ready_at {
            return;
        }
        self.shrinks.began = Some(self.now);
        let key = self.jobs.reserve();
        ring.truncate(self.jobs.token(key), file, shorter(bytes, self.options.freed_bytes_max));
        self.put_new(key, Some(Job::Shrink));
    }

    pub(super) fn shrink_done(&mut self, ring: &mut Ring, done: &Done) {
        let began = self.shrinks.began.take().expect("one was being cut");
        let pauses = if self.shrinks.held_count < FILES_MAX { PAUSES } else { 0 };
        let pause = self.now.0.saturating_sub(began.0) * pauses;
        self.shrinks.ready_at = MonotonicNs(self.now.0 + pause);
        let (file, bytes) = self.shrinks.files.front_mut().expect("one was being cut");
        *bytes = shorter(*bytes, self.options.freed_bytes_max);
        // Nothing depends on a file without a name: where it can't be cut it is freed at once.
        if *bytes == 0 || done.outcome().is_err() {
            ring.close(*file);
            self.shrinks.files.pop_front();
            self.shrinks.give_place();
        }
    }
}

/// Whole pieces stay: they are whole blocks, so that nothing of the last one has to be zeroed.
fn shorter(bytes: u64, piece: u64) -> u64 {
    (bytes - 1) / piece * piece
}
