//! Worker: recompresses batches off the shards, for topics whose `compression.type` isn't the
//! producer's.
//!
//! Owns:     a thread's codec contexts.
//! Promises: jobs of one shard come back in their order.
//! Never:    touches a shard's state; a job is moved to it and its result moved back.
//! Called by the server, which starts it; reached through `WorkerHandle`.

use std::sync::mpsc;

use super::mail::Mail;
use crate::base::ids::{ShardId, TopicPartition};
use crate::protocol::batch_body;
use crate::protocol::compression::{Codec, Codecs};

/// A recompressed batch is at most this large before compression.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub struct Job {
    pub shard: ShardId,
    pub target: TopicPartition,
    pub batch: Vec<u8>,
    pub codec: Codec,
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

/// The batch in the codec that is wanted; `None` when it can't be decompressed.
pub fn recompress(job: &Job, codecs: &mut Codecs) -> Option<Vec<u8>> {
    batch_body::recompress(&job.batch, job.codec, DECOMPRESSED_BYTES_MAX, codecs).ok()
}

/// Works until every handle is dropped. `posts` has one entry per shard.
pub fn run(jobs: mpsc::Receiver<Job>, mut posts: Vec<PostMail>) {
    let mut codecs = Codecs::default();
    for job in jobs {
        let batch = recompress(&job, &mut codecs);
        posts[usize::from(job.shard.0)](Mail::Recompressed { target: job.target, batch });
    }
}
