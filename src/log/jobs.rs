//! Jobs: what a lane does on its disk in the background, one operation in flight each.

use std::path::{Path, PathBuf};

use super::checkpoint::ImageWrite;
use super::journal::Effect;
use super::lane::Lane;
use super::materialise::Materialise;
use super::prewrite::Prewrite;
use super::read::Read;
use super::scrub::ScrubRead;
use super::seal::Seal;
use super::unlink::Unlink;
use crate::base::ids::MonotonicNs;
use crate::base::slab::{Key, Slab};
use crate::ring::{Completion, FileId, IoBuffer, IoError, Ring, Token};

pub(super) struct GroupWrite {
    pub(super) item_end: u64,
    pub(super) effects: Vec<Effect>,
    pub(super) submitted: MonotonicNs,
}

pub(super) enum Job {
    Group(GroupWrite),
    Prewrite(Prewrite),
    Materialise(Materialise),
    Seal(Seal),
    Unlink(Unlink),
    Image(ImageWrite),
    Read(Read),
    Scrub(ScrubRead),
    /// An operation of the lane's cleaning, whose state is in the lane.
    Clean,
    /// A piece of the first of the lane's removed files is cut off.
    Shrink,
}

/// The result of a job's operation.
pub(super) enum Done {
    Opened(Result<FileId, IoError>),
    Transferred(Result<(), IoError>, IoBuffer),
    Other(Result<(), IoError>),
}

impl Done {
    /// The outcome of anything that was not an `open`.
    pub(super) fn outcome(&self) -> Result<(), IoError> {
        match self {
            Self::Opened(result) => result.map(|_| ()),
            Self::Transferred(result, _) | Self::Other(result) => *result,
        }
    }

    pub(super) fn into_buffer(self) -> IoBuffer {
        match self {
            Self::Transferred(_, buffer) => buffer,
            Self::Opened(_) | Self::Other(_) => panic!("a transfer gives its buffer back"),
        }
    }

    fn from_completion(completion: Completion) -> Self {
        match completion {
            Completion::Opened { result, .. } => Self::Opened(result),
            Completion::Transferred { result, buffer, .. } => Self::Transferred(result, buffer),
            Completion::Done { result, .. } => Self::Other(result),
            other => panic!("a lane submits file operations only, not what ended in {other:?}"),
        }
    }
}

/// A job, taken out while it is at work; its operation's submission while that is in flight.
struct Slot {
    job: Option<Job>,
    since: Option<MonotonicNs>,
    /// The directory that the operation flushes.
    dir: Option<PathBuf>,
}

#[derive(Default)]
pub(super) struct Jobs {
    slots: Slab<Slot>,
    owner: u8,
    pub(super) materialising_count: usize,
    pub(super) now: MonotonicNs,
    /// Directories that couldn't be opened for their flush, without descriptors: tried again then.
    unopened: Vec<Key>,
    pub(super) retry_at: Option<MonotonicNs>,
}

impl Jobs {
    pub(super) fn new(owner: u8) -> Self {
        Self { owner, ..Self::default() }
    }

    /// A key for a job that begins with `start`.
    pub(super) fn reserve(&mut self) -> Key {
        self.slots.insert(Slot { job: None, since: None, dir: None })
    }

    /// The token of a job's next operation.
    pub(super) fn token(&mut self, key: Key) -> Token {
        let slot = self.slots.get_mut(key).expect("the job has a slot");
        assert!(slot.since.is_none(), "a job has one operation in flight");
        slot.since = Some(self.now);
        Token::new(self.owner, key.to_u56())
    }

    /// Flushes a directory. That needs a descriptor for the moment: without one the flush isn't begun,
    /// and so not failed, and is tried until there is one.
    pub(super) fn flush_dir(&mut self, ring: &mut Ring, key: Key, dir: &Path) {
        ring.flush_dir(self.token(key), dir);
        let slot = self.slots.get_mut(key).expect("the job has a slot");
        slot.dir = Some(dir.to_path_buf());
    }

    /// True where the operation that ended is a flush of a directory that has to wait.
    fn keep_unopened(&mut self, key: Key, completion: &Completion) -> bool {
        let slot = self.slots.get_mut(key).expect("the caller found it");
        let waits = slot.dir.is_some()
            && matches!(completion, Completion::Done { result: Err(IoError::NoDescriptors), .. });
        if waits {
            self.unopened.push(key);
            self.retry_at = Some(self.now.plus_ms(RETRY_MS));
        } else {
            slot.dir = None;
        }
        waits
    }

    /// Tries the flushes that wait again when it is time.
    pub(super) fn retry_unopened(&mut self, ring: &mut Ring) {
        if self.retry_at.is_none_or(|at| self.now < at) {
            return;
        }
        self.retry_at = None;
        for key in std::mem::take(&mut self.unopened) {
            let dir = self.slots.get_mut(key).and_then(|slot| slot.dir.take()).expect("its job waits for it");
            self.flush_dir(ring, key, &dir);
        }
    }

    /// When the oldest operation in flight was submitted.
    pub(super) fn oldest(&self) -> Option<MonotonicNs> {
        // Those of a recovery, which has no time, aren't counted.
        self.slots.iter().filter_map(|(_, slot)| slot.since).filter(|since| since.0 > 0).min()
    }

    pub(super) fn put(&mut self, key: Key, job: Option<Job>) {
        match job {
            Some(job) => {
                let slot = self.slots.get_mut(key).expect("the job has a slot");
                slot.job = Some(job);
            }
            None => {
                self.slots.remove(key);
            }
        }
    }

    pub(super) fn take(&mut self, key: Key) -> Option<Job> {
        self.slots.get_mut(key)?.job.take()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn is_any_in_flight(&self) -> bool {
        self.slots.iter().any(|(_, slot)| slot.since.is_some())
    }

    /// Blocks until one of the operations in flight ends; `None` where there is none. Any of them: each
    /// job goes on as soon as its own has ended.
    pub(super) fn wait(&self, ring: &mut Ring) -> Option<Completion> {
        self.is_any_in_flight().then(|| ring.wait_any(self.owner))
    }
}

/// How long a flush of a directory waits for a descriptor.
const RETRY_MS: u64 = 500;

impl Lane {
    pub(super) fn set_now(&mut self, now: MonotonicNs) {
        self.now = now;
        self.jobs.now = now;
    }

    /// When the oldest operation in flight was submitted: a disk that hangs lets it grow old.
    pub fn oldest_operation(&self) -> Option<MonotonicNs> {
        self.jobs.oldest()
    }

    /// Takes a completion whose token has the lane's owner; what follows from it is in `events`.
    pub fn complete(
        &mut self,
        ring: &mut Ring,
        completion: Completion,
        events: &mut Vec<super::options::LaneEvent>,
    ) {
        self.set_now(ring.now());
        self.complete_job(ring, completion);
        self.note_room();
        events.append(&mut self.events);
    }

    pub(super) fn complete_job(&mut self, ring: &mut Ring, completion: Completion) {
        let Some(token) = completion.token() else { return };
        let key = Key::from_u56(token.value());
        let Some(slot) = self.jobs.slots.get_mut(key) else { return };
        slot.since = None;
        if self.jobs.keep_unopened(key, &completion) {
            return;
        }
        let Some(job) = self.jobs.take(key) else { return };
        let done = Done::from_completion(completion);
        let next = match job {
            Job::Group(group) => {
                self.group_done(group, done);
                None
            }
            Job::Prewrite(job) => self.prewrite_step(ring, key, job, done).map(Job::Prewrite),
            Job::Materialise(job) => self.materialise_done(ring, key, job, done).map(Job::Materialise),
            Job::Seal(job) => self.seal_done(ring, key, job, done).map(Job::Seal),
            Job::Unlink(job) => self.unlink_done(ring, key, job, done).map(Job::Unlink),
            Job::Image(job) => self.image_done(ring, key, job, done).map(Job::Image),
            Job::Read(job) => self.read_done(ring, key, job, done).map(Job::Read),
            Job::Scrub(read) => {
                self.scrub_done(ring, read, done);
                None
            }
            Job::Clean => {
                self.clean_done(ring, done);
                None
            }
            Job::Shrink => {
                self.shrink_done(ring, &done);
                None
            }
        };
        self.jobs.put(key, next);
    }
}
