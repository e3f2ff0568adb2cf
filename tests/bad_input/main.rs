//! Bad input: whatever a client sends, the answer is Kafka's or the connection closes; memory follows
//! the bytes received; and others go on meanwhile.
//!
//! Each test is one row of inputs and has a broker of its own. [`Case`](case::Case) makes the three
//! assertions: the answer is the test's; `finish` compares the broker's peak memory with the bytes it was
//! sent; and a second client produces and fetches while the bad input is in progress.

#[allow(dead_code, reason = "shared with the tests of clients, which use all of it")]
#[path = "../interop/broker.rs"]
mod broker;
mod bodies;
mod case;
mod create_topics;
mod damaged_disk;
mod fetch;
mod frames;
mod headers;
mod messages;
mod names;
mod pipelines;
mod produce;
mod record_batches;
mod sequences;
mod wire;
