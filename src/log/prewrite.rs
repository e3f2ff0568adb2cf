//! Prewrite: makes journal files whose blocks exist, so that a group is one device write.
//!
//! A file in use is never written with zeros: only one that has no group yet is prepared here.

use super::format::BLOCK_BYTES;
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
    OpenExisting,
    Write,
    Flush,
    FlushDir,
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

impl Lane {
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
            (Step::OpenNew, Err(IoError::Exists)) => {
                job.step = Step::OpenExisting;
                let path = self.lane_dir.join("journal").join(file_name(job.number));
                ring.open(self.jobs.token(key), &path, OpenMode::Write);
                return Some(job);
            }
            // It isn't in use yet: the journal goes on with the files it has.
            (
                Step::OpenNew | Step::OpenExisting | Step::Write,
                Err(IoError::NoSpace | IoError::NoDescriptors),
            ) => {
                self.checkpoint.prewrites.missing.push(job.number);
                self.checkpoint.prewrites.at_work = false;
                self.cycle.paused_until = Some(self.now.plus_ms(500));
                if let Some(file) = job.file {
                    ring.close(file);
                }
                return None;
            }
            (_, Err(error)) => {
                self.fence(format!(
                    "preparing a journal file of lane {} failed: {error}",
                    self.options.lane.0
                ));
                return None;
            }
            (Step::OpenNew | Step::OpenExisting, Ok(())) => {
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
                ring.flush_dir(self.jobs.token(key), &dir);
            }
            (Step::FlushDir, Ok(())) => {
                self.checkpoint.prewrites.at_work = false;
                let (number, file) = (job.number, job.file.expect("opened"));
                self.journal.free.push_back(FreeFile { number, file, bytes: self.journal_file_bytes() });
                return None;
            }
        }
        Some(job)
    }

    fn prewrite_write(&mut self, ring: &mut Ring, key: Key, mut job: Prewrite, zeros: IoBuffer) -> Prewrite {
        let bytes = (zeros.len() as u64).min(self.journal_file_bytes() - job.position) as usize;
        let position = job.position;
        job.position += bytes as u64;
        job.step = Step::Write;
        let file = job.file.expect("opened");
        ring.write(self.jobs.token(key), file, position, zeros, 0..bytes, WriteMode::Plain);
        job
    }
}
