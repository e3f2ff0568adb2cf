//! Result: the one JSON object of a run, and the same for people.

use crate::Failure;
use crate::fetch::AnswerCounts;
use crate::series::{LatencyReport, Second, millis};
use crate::usage::{Surroundings, Usage};
use crate::verify::Verification;
use crate::window::GroupReport;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
pub struct RunResult {
    /// `produce` or `consume`.
    pub kind: &'static str,
    /// False when the figures are not fit to be quoted, or records were not as they should be.
    pub valid: bool,
    pub invalid_because: Vec<String>,
    pub version: &'static str,
    pub started_unix_ms: u64,
    pub options: serde_json::Value,
    /// Length of the measured window.
    pub seconds: f64,
    pub records: u64,
    /// Of record batches, headers included.
    pub bytes: u64,
    /// The same before compression, of what was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncompressed_bytes: Option<u64>,
    pub requests: u64,
    pub records_per_second: f64,
    pub mib_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_records_per_second: Option<f64>,
    /// Over the whole run, by Kafka's name.
    pub errors: BTreeMap<String, u64>,
    /// Requests whose answer never came.
    pub lost_requests: u64,
    /// Requests whose time came and that were never sent.
    pub unsent_requests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyReport>,
    /// How late requests were sent that nothing but the generator itself held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_lag: Option<LatencyReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<Usage>,
    pub surroundings: Surroundings,
    /// Batches made for each partition over the whole run, where a partitioner chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_batches: Option<BTreeMap<i32, usize>>,
    /// Of readers: each group by itself, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polls: Option<Polls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    pub series: Vec<Second>,
}

/// What readers asked in the measured window, and what came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Polls {
    pub connections: usize,
    pub answers: u64,
    /// Answers with records: somebody who waited was woken, or found what was there.
    pub with_records: u64,
    /// Long polls that ended without.
    pub empty: u64,
}

impl Polls {
    pub fn between(connections: usize, before: &AnswerCounts, after: &AnswerCounts) -> Self {
        let (answers, with_records) = (after.all - before.all, after.with_records - before.with_records);
        Self { connections, answers, with_records, empty: answers - with_records }
    }
}

impl RunResult {
    /// Prints the result and says whether it is valid.
    pub fn publish(&self) -> Result<bool, Failure> {
        self.summarise();
        println!("{}", serde_json::to_string(self)?);
        Ok(self.valid)
    }

    fn summarise(&self) {
        eprintln!(
            "{}: {:.0} records/s, {:.1} MiB/s over {:.1} s; {} requests",
            self.kind, self.records_per_second, self.mib_per_second, self.seconds, self.requests
        );
        if let Some(latency) = &self.latency {
            eprintln!(
                "  latency  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
                millis(latency.p50_us),
                millis(latency.p90_us),
                millis(latency.p99_us),
                millis(latency.p99_9_us),
                millis(latency.max_us)
            );
        }
        if let Some(usage) = &self.broker {
            eprintln!(
                "  broker   {:.3} cpu-s: {:.4} a million records, {:.4} a GiB, {:.2} µs a request; {:.1} MiB resident",
                usage.cpu_seconds,
                usage.cpu_seconds_per_million_records,
                usage.cpu_seconds_per_gib,
                usage.cpu_micros_per_request,
                usage.rss_bytes_after as f64 / f64::from(1 << 20)
            );
        }
        if let Some(polls) = &self.polls {
            eprintln!(
                "  polls    {} connections, {} answers: {} with records, {} empty",
                polls.connections, polls.answers, polls.with_records, polls.empty
            );
        }
        eprintln!(
            "  beside   generator {:.2} cpu-s, kernel threads {:.2} cpu-s, others {:.2} cpu-s, steal {:.2} s",
            self.surroundings.generator_cpu_seconds,
            self.surroundings.kernel_cpu_seconds,
            self.surroundings.other_cpu_seconds,
            self.surroundings.steal_seconds
        );
        if let Some(verification) = &self.verification {
            eprintln!(
                "  verified {} records in {} batches, {} findings",
                verification.records, verification.batches, verification.findings.count
            );
            verification.findings.samples.iter().for_each(|sample| eprintln!("    {sample}"));
        }
        for (name, count) in &self.errors {
            eprintln!("  error    {name}: {count}");
        }
        if self.valid {
            eprintln!("  valid");
        }
        for reason in &self.invalid_because {
            eprintln!("  NOT VALID: {reason}");
        }
    }
}
