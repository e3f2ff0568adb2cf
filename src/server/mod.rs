//! Server: the life of the process. Configuration, placement, start, drain, stop.
//!
//! Owns:     threads, signals, the configuration file and environment, the log directories' locks.
//! Promises: nothing is served before every lane has recovered; a second process on the same
//!           folder is refused; SIGTERM drains and leaves a clean-stop marker.
//! Never:    decides about requests.
//! Called by the binary.

pub mod config;
pub mod config_file;
pub mod descriptors;
pub mod disks;
pub mod log_command;
pub mod log_dirs;
pub mod shard_thread;
pub mod start;
pub mod watchdog;
