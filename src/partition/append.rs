//! Append: may this batch be appended to this partition, and what if not?

use super::Partition;
use super::idempotence::{SequenceError, Sequenced, check_sequence};
use super::timestamps;
use crate::base::ids::WallMs;
use crate::log::{Producer, ProducerBatch};
use crate::partition::topic_config::CompressionType;
use crate::protocol::compression::Codec;
use crate::protocol::record_batch::BatchHeader;

/// Why a batch isn't appended, or not known to be. The client's mistakes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendRefusal {
    UnknownPartition,
    /// Larger than `max.message.bytes`.
    TooLarge,
    /// Larger than a segment can be.
    LargerThanSegment,
    /// Fewer in-sync replicas than `min.insync.replicas`, with acks=all.
    NotEnoughReplicas,
    /// The largest timestamp lies outside the window of the topic.
    Timestamp,
    Sequence(SequenceError),
    /// A transactional batch, without a transaction coordinator.
    NotInTransaction,
    /// The records can't be decompressed, where they have to be.
    Undecodable,
    /// The records aren't what the batch's header promises.
    MalformedRecords,
    /// Records without a key, for a compacted topic: places in the batch of the first of them, and how
    /// many there are.
    WithoutKey {
        first: Box<[i32]>,
        count: usize,
    },
    /// The log directory is fenced, full, or the partition offline: whether the batch is there is
    /// known after the restart.
    StorageError,
    /// Not durable within the time the producer gives.
    TimedOut,
}

/// What to do with a batch that was found in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// Appended before: answer like the original once that is durable.
    Duplicate(ProducerBatch),
}

impl Partition {
    /// Decides on a batch of `batch_bytes` whose bytes were verified. `replicas_count` is the number
    /// of in-sync replicas, the leader included.
    pub fn check_append(
        &self,
        header: &BatchHeader,
        batch_bytes: usize,
        past: Option<&Producer>,
        all_replicas: bool,
        replicas_count: u32,
        now: WallMs,
    ) -> Result<Verdict, AppendRefusal> {
        if all_replicas && replicas_count < self.config.min_insync_replicas {
            return Err(AppendRefusal::NotEnoughReplicas);
        }
        if batch_bytes > self.config.max_message_bytes as usize {
            return Err(AppendRefusal::TooLarge);
        }
        if batch_bytes > self.config.segment_bytes as usize {
            return Err(AppendRefusal::LargerThanSegment);
        }
        if header.is_transactional() {
            return Err(AppendRefusal::NotInTransaction);
        }
        if !timestamps::is_acceptable(&self.config, header.max_timestamp.get(), now) {
            return Err(AppendRefusal::Timestamp);
        }
        let Some((_, epoch)) = header.producer() else { return Ok(Verdict::Append) };
        let sequenced = check_sequence(past, epoch, header.base_sequence.get(), header.last_sequence());
        match sequenced.map_err(AppendRefusal::Sequence)? {
            Sequenced::New => Ok(Verdict::Append),
            Sequenced::Duplicate(original) => Ok(Verdict::Duplicate(original)),
        }
    }

    /// Whether every record needs a key, because records are compacted by it.
    pub fn needs_keys(&self) -> bool {
        self.config.cleanup_compact
    }

    /// The codec the batch has to be brought to before it is stored.
    pub fn codec_wanted(&self, header: &BatchHeader) -> Option<Codec> {
        let wanted = match self.config.compression_type {
            CompressionType::Producer => return None,
            CompressionType::Uncompressed => Codec::None,
            CompressionType::Gzip => Codec::Gzip,
            CompressionType::Snappy => Codec::Snappy,
            CompressionType::Lz4 => Codec::Lz4,
            CompressionType::Zstd => Codec::Zstd,
        };
        (wanted.number() != header.codec_number()).then_some(wanted)
    }
}
