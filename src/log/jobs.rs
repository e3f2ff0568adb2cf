//! Jobs: what a lane does on its disk in the background, one operation in flight each.

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

/// A job, taken out while it is at work; `in_flight` while its operation is.
struct Slot {
    job: Option<Job>,
    in_flight: bool,
}

#[derive(Default)]
pub(super) struct Jobs {
    slots: Slab<Slot>,
    owner: u8,
    pub(super) materialising_count: usize,
}

impl Jobs {
    pub(super) fn new(owner: u8) -> Self {
        Self { owner, ..Self::default() }
    }

    /// A key for a job that begins with `start`.
    pub(super) fn reserve(&mut self) -> Key {
        self.slots.insert(Slot { job: None, in_flight: false })
    }

    /// The token of a job's next operation.
    pub(super) fn token(&mut self, key: Key) -> Token {
        let slot = self.slots.get_mut(key).expect("the job has a slot");
        assert!(!slot.in_flight, "a job has one operation in flight");
        slot.in_flight = true;
        Token::new(self.owner, key.to_u56())
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

    /// The token of some operation in flight: what a blocking wait may wait for.
    pub(super) fn any_in_flight(&self) -> Option<Token> {
        let in_flight =
            |(key, slot): (Key, &Slot)| slot.in_flight.then(|| Token::new(self.owner, key.to_u56()));
        self.slots.iter().find_map(in_flight)
    }
}

impl Lane {
    /// Takes a completion whose token has the lane's owner; what follows from it is in `events`.
    pub fn complete(
        &mut self,
        ring: &mut Ring,
        completion: Completion,
        events: &mut Vec<super::options::LaneEvent>,
    ) {
        self.now = ring.now();
        self.complete_job(ring, completion);
        self.note_room();
        events.append(&mut self.events);
    }

    pub(super) fn complete_job(&mut self, ring: &mut Ring, completion: Completion) {
        let Some(token) = completion.token() else { return };
        let key = Key::from_u56(token.value());
        let Some(slot) = self.jobs.slots.get_mut(key) else { return };
        slot.in_flight = false;
        let Some(job) = slot.job.take() else { return };
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
        };
        self.jobs.put(key, next);
    }
}
