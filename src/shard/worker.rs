//! Worker: decompresses batches off the shards, for topics whose `compression.type` isn't the
//! producer's, and for compacted ones, whose records must have keys.
//!
//! Owns:     a thread's codec contexts.
//! Promises: jobs of one shard come back in their order.
//! Never:    touches a shard's state; a job is moved to it and its result moved back.
//! Called by the server, which starts it; reached through `WorkerHandle`.

use std::sync::mpsc;

use super::mail::Mail;
use crate::base::ids::{ShardId, TopicPartition};
use crate::partition::append::AppendRefusal;
use crate::protocol::batch_body::{self, BodyError};
use crate::protocol::compression::{Codec, Codecs};

/// A recompressed batch is at most this large before compression.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Records that a refusal names at most: a batch of a mebibyte can have millions.
const PLACES_MAX: usize = 100;

#[derive(Debug)]
pub struct Job {
    pub shard: ShardId,
    pub target: TopicPartition,
    pub batch: Vec<u8>,
    pub chore: Chore,
}

/// What has to be done about a batch before it is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chore {
    /// It is stored in this codec instead of its own.
    pub codec: Option<Codec>,
    /// Its records must have keys.
    pub needs_keys: bool,
}

/// A shard's way to the worker. What is in it is bounded by the bytes that wait per shard.
#[derive(Clone)]
pub struct WorkerHandle {
    sender: mpsc::Sender<Job>,
}

impl WorkerHandle {
    pub fn new() -> (Self, mpsc::Receiver<Job>) {
        let (sender, receiver) = mpsc::channel();
        (Self { sender }, receiver)
    }

    pub fn send(&self, job: Job) {
        // The worker ends after the shards: it is there as long as one of them sends.
        self.sender.send(job).ok();
    }
}

/// Sends a mail to one shard and wakes it.
pub type PostMail = Box<dyn FnMut(Mail) + Send>;

/// The batch in the codec that is wanted.
pub fn recompress(job: &Job, codecs: &mut Codecs) -> Result<Vec<u8>, AppendRefusal> {
    if job.chore.needs_keys {
        check_keys(&job.batch, codecs)?;
    }
    match job.chore.codec {
        None => Ok(job.batch.clone()),
        Some(codec) => {
            batch_body::recompress(&job.batch, codec, DECOMPRESSED_BYTES_MAX, codecs).map_err(refuse)
        }
    }
}

/// Refuses a batch that has a record without key.
pub fn check_keys(batch: &[u8], codecs: &mut Codecs) -> Result<(), AppendRefusal> {
    let found = batch_body::records_without_key(batch, PLACES_MAX, DECOMPRESSED_BYTES_MAX, codecs);
    match found.map_err(refuse)? {
        (_, 0) => Ok(()),
        (places, count) => Err(AppendRefusal::WithoutKey { first: places.into(), count }),
    }
}

fn refuse(error: BodyError) -> AppendRefusal {
    match error {
        BodyError::UnknownCodec | BodyError::Compression(_) => AppendRefusal::Undecodable,
        BodyError::Record(_) => AppendRefusal::MalformedRecords,
    }
}

/// Works until every handle is dropped. `posts` has one entry per shard.
pub fn run(jobs: mpsc::Receiver<Job>, mut posts: Vec<PostMail>) {
    let mut codecs = Codecs::default();
    for job in jobs {
        let batch = recompress(&job, &mut codecs);
        posts[usize::from(job.shard.0)](Mail::Recompressed { target: job.target, batch });
    }
}
