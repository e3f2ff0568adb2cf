//! The load generator as it is used: against its own sink, and against a broker.

#[path = "../interop/broker.rs"]
#[allow(dead_code, reason = "the interop tests also stop and restart brokers")]
mod broker;
mod consume;
mod produce;
mod run;
mod sink;
