//! Net: connections as state. Frames in, responses out in request order, limits, idleness.
//!
//! Owns:     the bytes of frames that aren't whole yet, the order of responses.
//! Promises: memory follows the bytes received, never a length announced; responses leave in the
//!           order of their requests.
//! Never:    knows what a frame means; submits an operation (the shard does).
//! Called by `shard::connections`.

pub mod connection;
pub mod inbound;
pub mod outbound;

pub use connection::Connection;
