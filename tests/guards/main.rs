//! Guards: what an event costs a broker in system calls and copies, against the bounds of `bounds.toml`.
//!
//! These are counted, not timed: a crowded machine changes the copies not at all, and the calls only as far
//! as it changes how many requests arrive together. `perf/README.md` says how the bounds are renewed.

mod bounds;
#[path = "../interop/broker.rs"]
#[allow(dead_code, reason = "the interop tests also stop and restart brokers")]
mod broker;
mod cost;
#[path = "../load/run.rs"]
#[allow(dead_code, reason = "the tests of the generator also look at what it refuses and says")]
mod run;
mod rows;
