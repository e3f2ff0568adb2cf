//! Protocol: Kafka's bytes to values and back. Frames, headers, hot messages as views, batches.
//!
//! Owns:     every big-endian byte.
//! Promises: decoders return errors and never panic; nothing is allocated by a length on the wire.
//! Never:    knows topics, files, sockets or time.

pub mod api_key;
pub mod api_versions;
pub mod batch_body;
pub mod batch_builder;
pub mod batch_filter;
pub mod cold;
pub mod compression;
pub mod error_code;
pub mod fetch_request;
pub mod fetch_response;
pub mod frame;
pub mod header;
pub mod produce_request;
pub mod produce_response;
pub mod reader;
pub mod record;
pub mod record_batch;
pub mod writer;
