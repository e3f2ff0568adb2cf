//! Options: what the command line says.

use crate::partitioning::KeyDistribution;
use clap::{Args, Parser, Subcommand, ValueEnum};
use corelane::protocol::compression::Codec;

#[derive(Parser)]
#[command(name = "corelane-load", about = "Open-loop load on a Kafka-compatible broker.")]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Write records at a fixed rate, or as fast as they are acknowledged.
    Produce(ProduceOptions),
    /// Find the highest rate whose p99 stays under a limit.
    Knee(KneeOptions),
    /// Read records with long polls.
    Consume(ConsumeOptions),
    /// Check what compaction left of a topic that one `produce --keys` wrote: the last record of every key.
    Compacted(CompactedOptions),
    /// Acknowledge every Produce and keep nothing, until killed: shows what the generator itself can do.
    Sink(SinkOptions),
}

#[derive(Args, Clone)]
pub struct Common {
    /// Any broker of the cluster, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    #[arg(long, default_value = "load")]
    pub topic: String,
    /// Connections to each leader.
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Length of the measured window.
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// Load before the measured window.
    #[arg(long, default_value_t = 5.0)]
    pub warmup_seconds: f64,
    /// Broker process whose CPU time and memory are measured; may be given several times.
    #[arg(long)]
    pub pid: Vec<u32>,
    /// Delete the topic when everything is done.
    #[arg(long)]
    pub delete_topic: bool,
    /// Print no line per second.
    #[arg(long)]
    pub quiet: bool,
}

#[derive(Args, Clone)]
pub struct ProduceOptions {
    #[command(flatten)]
    pub common: Common,
    /// Partitions of the topic when it has to be made; an existing one is used as it is.
    #[arg(long, default_value_t = 16)]
    pub partitions: i32,
    #[arg(long, default_value_t = 1)]
    pub replication_factor: i16,
    /// Setting of the topic when it has to be made, NAME=VALUE; may be given several times.
    #[arg(long)]
    pub topic_config: Vec<String>,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 5)]
    pub in_flight: usize,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// Batches are as many records as fit, before compression.
    #[arg(long, default_value_t = 16384)]
    pub batch_bytes: usize,
    /// Records of a batch, instead of as many as fit.
    #[arg(long)]
    pub batch_records: Option<usize>,
    /// Batches of a request, each for another partition.
    #[arg(long, default_value_t = 1)]
    pub partitions_per_request: usize,
    /// Records a second over all connections, or `max`: the next request as soon as one was answered.
    #[arg(long, default_value = "max")]
    pub rate: Rate,
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    pub arrivals: Arrivals,
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub acks: Acks,
    /// End when each connection has got its share of so many answers, warm-up included, or at the window's end.
    #[arg(long)]
    pub requests: Option<u64>,
    /// Seed of the records' content and of Poisson arrivals.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number the records and give each a key, one of so many a partition, evenly and without order. For
    /// `compacted` the topic must be new, and its partitions a multiple of the connections.
    #[arg(long)]
    pub keys: Option<u64>,
    /// Choose each batch's partition as a client does, among all partitions of the connection's leader.
    /// Without it each connection has partitions of its own and takes them in turn.
    #[arg(long, value_enum)]
    pub partitioner: Option<Partitioner>,
    /// How often each of the keys occurs: uniform, or zipf:EXPONENT.
    #[arg(long, default_value = "uniform")]
    pub key_distribution: KeyDistribution,
    /// Compress the batches, whose content then shrinks to about half.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub compression: Compression,
    /// Give each connection a producer id and number its batches, so that none is written twice.
    #[arg(long)]
    pub idempotent: bool,
    /// Number the records, and read everything back afterwards: every acknowledged record must be there
    /// once, in order, at its offset, with its content.
    #[arg(long)]
    pub verify: bool,
    /// Write the intended send time into every record, for `consume --latency`.
    #[arg(long)]
    pub stamp: bool,
    /// Connect again after a connection was lost, and go on.
    #[arg(long)]
    pub reconnect: bool,
}

#[derive(Args)]
pub struct KneeOptions {
    #[command(flatten)]
    pub produce: ProduceOptions,
    /// The limit, from the intended send time to the answer.
    #[arg(long)]
    pub p99_ms: f64,
    /// Records a second of the first run. The rate doubles until p99 is above the limit.
    #[arg(long, default_value_t = 10_000.0)]
    pub from_rate: f64,
    /// The knee is known when the next higher rate tried is above it by this share at most.
    #[arg(long, default_value_t = 0.05)]
    pub precision: f64,
    /// Runs after which the search ends in any case.
    #[arg(long, default_value_t = 30)]
    pub runs_max: usize,
}

#[derive(Args)]
pub struct ConsumeOptions {
    #[command(flatten)]
    pub common: Common,
    /// Read only the first partitions of the topic.
    #[arg(long)]
    pub partitions: Option<i32>,
    #[arg(long, value_enum, default_value_t = From::Beginning)]
    pub from: From,
    /// Most bytes of one answer.
    #[arg(long, default_value_t = 1024 * 1024)]
    pub max_bytes: i32,
    /// Most bytes of one partition in an answer.
    #[arg(long, default_value_t = 1024 * 1024)]
    pub partition_max_bytes: i32,
    #[arg(long, default_value_t = 1)]
    pub min_bytes: i32,
    #[arg(long, default_value_t = 500)]
    pub max_wait_ms: i32,
    /// Readers of everything, each with connections and statistics of its own.
    #[arg(long, default_value_t = 1)]
    pub groups: usize,
    /// Each connection reads one partition, even where others read it, too: with many connections and a
    /// long `--max-wait-ms`, as many idle long polls.
    #[arg(long)]
    pub partition_each: bool,
    /// Begin again at the log's start when its end is reached.
    #[arg(long)]
    pub again: bool,
    /// Stop where the log ended when reading began, or at the window's end.
    #[arg(long)]
    pub to_end: bool,
    /// Check every batch's checksum, and every record's place, order and content.
    #[arg(long)]
    pub verify: bool,
    /// Measure from the time that `produce --stamp` wrote into the records, on the same machine.
    #[arg(long)]
    pub latency: bool,
}

#[derive(Args)]
pub struct CompactedOptions {
    /// Any broker of the cluster, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    #[arg(long, default_value = "load")]
    pub topic: String,
    /// As given to `produce`.
    #[arg(long)]
    pub keys: u64,
}

#[derive(Args)]
pub struct SinkOptions {
    /// Where to listen; port 0 takes a free one, which the first line on stdout names.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub listen: String,
    /// Partitions of topics that are made without a number.
    #[arg(long, default_value_t = 16)]
    pub partitions: i32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    Max,
    RecordsPerSecond(f64),
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Self::RecordsPerSecond(rate)),
            _ => Err("a number of records per second above 0, or max".to_string()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Partitioner {
    /// Any partition for each batch.
    Sticky,
    /// The partition of the key: `--keys` are those of the whole topic, and decide by their murmur2 hash.
    Keyed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd => Codec::Zstd,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// Equal gaps.
    Constant,
    /// Gaps as of many independent clients.
    Poisson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    All,
    #[value(name = "1")]
    Leader,
    /// No answer: a request counts when it is in the socket's queue.
    #[value(name = "0")]
    Never,
}

impl Acks {
    pub fn number(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::Never => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    Beginning,
    End,
}
