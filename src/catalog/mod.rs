//! Catalog: the state of the cluster as a pure state machine over metadata records.
//!
//! Owns:     topics, their ids, partitions and settings; settings of brokers that change; the node and its log directories; producer ids.
//! Promises: the same records in the same order give the same image on every shard and node.
//! Never:    reads a clock, a file or a socket; knows wire messages or Kafka's codes.
//! Called by `control` (decide, then commit) and by every shard (apply deltas, look up).

pub mod broker_config;
pub mod decide;
pub mod directories;
pub mod image;
pub mod record;
pub mod topic_name;

pub use image::{Catalog, Partition, Topic};
pub use record::{MetadataRecord, Replica};
