//! The binary `corelane-load`: an open-loop load generator for anything that speaks the Kafka protocol.
//!
//! Batches are encoded once and sent again and again; answers are counted, not kept. Latency is counted
//! from the intended send time, so a stalled broker can't hide its stall (coordinated omission). The
//! result is one JSON object on stdout; progress and a readable summary go to stderr. The method is in
//! perf/README.md.

mod answers;
mod client;
mod compacted;
mod consume;
mod descriptors;
mod fetch;
mod frame_stream;
mod frames;
mod keys;
mod knee;
mod load;
mod options;
mod partitioning;
mod preparation;
mod produce;
mod producer;
mod responses;
mod result;
mod schedule;
mod series;
mod sink;
mod stamp;
mod template;
mod usage;
mod verify;
mod window;

use clap::Parser;
use std::process::ExitCode;

/// Why a run could not be carried out; what it was and what happened.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn main() -> ExitCode {
    let outcome = match options::Options::parse().command {
        options::Command::Produce(options) => produce::run(&options).and_then(after(&options.common)),
        options::Command::Knee(options) => knee::run(&options).and_then(after(&options.produce.common)),
        options::Command::Consume(options) => consume::run(&options).and_then(after(&options.common)),
        options::Command::Compacted(options) => compacted::run(&options),
        options::Command::Sink(options) => sink::run(&options),
    };
    match outcome {
        // A run that measured nothing fit to quote, or whose records were not all there, fails.
        Ok(is_valid) => ExitCode::from(if is_valid { 0 } else { 2 }),
        Err(Failure(what)) => {
            eprintln!("corelane-load: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Cleans up behind a run, whose result it passes on.
fn after(common: &options::Common) -> impl FnOnce(bool) -> Result<bool, Failure> {
    move |is_valid| {
        if common.delete_topic {
            client::Client::connect(&common.bootstrap)?.delete_topic(&common.topic)?;
        }
        Ok(is_valid)
    }
}
