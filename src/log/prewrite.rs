//! Prewrite: makes journal files whose blocks exist, so that a group is one device write.
//!
//! A file in use is never written with zeros: only one that has no group yet is prepared here.

use std::path::PathBuf;

use zerocopy::IntoBytes;

use super::format::{BLOCK_BYTES, ReadyStamp};
use super::jobs::{Done, Job};
use super::journal::FreeFile;
use super::lane::Lane;
use crate::base::slab::Key;
use crate::ring::{FileId, IoBuffer, IoError, OpenMode, Ring, WriteMode};

const STEP_BYTES: u64 = 1 << 20;

pub(super) struct Prewrite {
    number: u32,
    file: Option<FileId>,
    position: u64,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    OpenNew,
    RemoveStale,
    GiveUp,
    Write,
    Flush,
    FlushDir,
    Stamp,
}

/// Files still to be made, by number; made one after the other.
#[derive(Default)]
pub(super) struct Prewrites {
    pub(super) missing: Vec<u32>,
    pub(super) at_work: bool,
}

pub(super) fn file_name(number: u32) -> String {
    format!("{number:04}.journal")
}

/// The first block of a file that is ready.
pub(super) fn stamp_block(log_id: [u8; 16]) -> IoBuffer {
    let mut buffer = IoBuffer::new(BLOCK_BYTES);
    let stamp = ReadyStamp::new(log_id);
    buffer[..stamp.as_bytes().len()].copy_from_slice(stamp.as_bytes());
    buffer
}

impl Lane {
    fn prewrite_path(&self, job: &Prewrite) -> PathBuf {
        self.lane_dir.join("journal").join(file_name(job.number))
    }

    pub(super) fn journal_file_bytes(&self) -> u64 {
        let bytes = self.options.journal_bytes / u64::from(self.options.journal_files_count);
        bytes - bytes % BLOCK_BYTES as u64
    }

    pub(super) fn prewrite_start(&mut self, ring: &mut Ring) {
        if self.checkpoint.prewrites.at_work || self.cycle.paused_until.is_some_and(|until| self.now < until)
        {
            return;
        }
        let Some(number) = self.checkpoint.prewrites.missing.pop() else { return };
        self.checkpoint.prewrites.at_work = true;
        let key = self.jobs.reserve();
        let path = self.lane_dir.join("journal").join(file_name(number));
        ring.open(self.jobs.token(key), &path, OpenMode::CreateNew);
        self.put_new(
            key,
            Some(Job::Prewrite(Prewrite { number, file: None, position: 0, step: Step::OpenNew })),
        );
    }

    pub(super) fn prewrite_step(
        &mut self,
        ring: &mut Ring,
        key: Key,
        mut job: Prewrite,
        done: Done,
    ) -> Option<Prewrite> {
        if self.fenced.is_some() {
            return None;
        }
        match (job.step, done.outcome()) {
            // Of a run that ended, perhaps by a failed flush, before the file was ready.
            (Step::OpenNew, Err(IoError::Exists)) => {
                job.step = Step::RemoveStale;
                ring.remove_file(self.jobs.token(key), &self.prewrite_path(&job));
                return Some(job);
            }
            (Step::RemoveStale, Ok(())) => {
                job.step = Step::OpenNew;
                ring.open(self.jobs.token(key), &self.prewrite_path(&job), OpenMode::CreateNew);
            }
            // It isn't in use yet: the journal goes on with the files it has.
            (Step::OpenNew, Err(IoError::NoSpace | IoError::NoDescriptors)) => {
                self.prewrite_later(job.number);
                return None;
            }
            // What it has taken of the space is given back: others need it more.
            (Step::Write, Err(IoError::NoSpace | IoError::Short { .. })) => {
                ring.close(job.file.take().expect("opened"));
                job.step = Step::GiveUp;
                ring.remove_file(self.jobs.token(key), &self.prewrite_path(&job));
                return Some(job);
            }
            (Step::GiveUp, Ok(())) => {
                self.prewrite_later(job.number);
                return None;
            }
            (_, Err(error)) => {
                self.fence(format!(
                    "preparing a journal file of lane {} failed: {error}",
                    self.options.lane.0
                ));
                return None;
            }
            (Step::OpenNew, Ok(())) => {
                let Done::Opened(Ok(file)) = done else { panic!("an open file comes with its id") };
                job.file = Some(file);
                let zeros = IoBuffer::new(STEP_BYTES.min(self.journal_file_bytes()) as usize);
                return Some(self.prewrite_write(ring, key, job, zeros));
            }
            (Step::Write, Ok(())) => {
                let zeros = done.into_buffer();
                if job.position < self.journal_file_bytes() {
                    return Some(self.prewrite_write(ring, key, job, zeros));
                }
                job.step = Step::Flush;
                ring.flush(self.jobs.token(key), job.file.expect("opened"));
            }
            (Step::Flush, Ok(())) => {
                job.step = Step::FlushDir;
                let dir = self.lane_dir.join("journal");
                self.jobs.flush_dir(ring, key, &dir);
            }
            (Step::FlushDir, Ok(())) => {
                job.step = Step::Stamp;
                let buffer = stamp_block(self.journal.log_id);
                let file = job.file.expect("opened");
                ring.write(self.jobs.token(key), file, 0, buffer, 0..BLOCK_BYTES, WriteMode::Durable);
            }
            (Step::Stamp, Ok(())) => {
                self.checkpoint.prewrites.at_work = false;
                let (number, file) = (job.number, job.file.expect("opened"));
                self.journal.free.push_back(FreeFile { number, file, bytes: self.journal_file_bytes() });
                return None;
            }
        }
        Some(job)
    }

    /// Space or descriptors are short.
    fn prewrite_later(&mut self, number: u32) {
        self.checkpoint.prewrites.missing.push(number);
        self.checkpoint.prewrites.at_work = false;
        self.cycle.paused_until = Some(self.now.plus_ms(500));
    }

    fn prewrite_write(&mut self, ring: &mut Ring, key: Key, mut job: Prewrite, zeros: IoBuffer) -> Prewrite {
        let bytes = (zeros.len() as u64).min(self.journal_file_bytes() - job.position) as usize;
        let position = job.position;
        job.position += bytes as u64;
        self.stats.allocated_bytes += bytes as u64;
        job.step = Step::Write;
        let file = job.file.expect("opened");
        ring.write(self.jobs.token(key), file, position, zeros, 0..bytes, WriteMode::Plain);
        job
    }
}
