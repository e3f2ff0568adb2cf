#![doc = include_str!("ARCHITECTURE.md")]

// The modules stand in the order in which a Produce request meets them; each imports only from
// modules below it (tests/tidy.rs).
pub mod tuning;
pub mod server;
pub mod console;
pub mod shard;
pub mod net;
pub mod api;
pub mod coordinator;
pub mod control;
pub mod catalog;
pub mod partition;
pub mod log;
pub mod ring;
pub mod protocol;
pub mod metrics;
pub mod base;
