//! Series: latency over the whole window and second by second.

use crate::Failure;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde::Serialize;

/// Latencies above a minute count as a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Latencies in microseconds, 3 significant digits, 1 µs to 60 s.
pub struct Latencies(Histogram<u64>);

#[derive(Clone, Debug, Serialize)]
pub struct LatencyReport {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p99_9_us: u64,
    pub p99_99_us: u64,
    pub max_us: u64,
    /// The whole histogram: HdrHistogram's V2 encoding, deflated, base64.
    pub histogram: String,
}

impl Latencies {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are HdrHistogram's own"))
    }

    pub fn record_ns(&mut self, ns: u64) {
        self.0.saturating_record((ns / 1000).clamp(1, LATENCY_US_MAX));
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub fn percentile_us(&self, percentile: f64) -> u64 {
        self.0.value_at_percentile(percentile)
    }

    pub fn max_us(&self) -> u64 {
        self.0.max()
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn report(&self) -> Result<LatencyReport, Failure> {
        let mut encoded = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut encoded)
            .map_err(|error| Failure::new(format!("the histogram can't be encoded: {error}")))?;
        Ok(LatencyReport {
            count: self.0.len(),
            mean_us: self.0.mean(),
            p50_us: self.percentile_us(50.0),
            p90_us: self.percentile_us(90.0),
            p99_us: self.percentile_us(99.0),
            p99_9_us: self.percentile_us(99.9),
            p99_99_us: self.percentile_us(99.99),
            max_us: self.max_us(),
            histogram: base64(&encoded),
        })
    }
}

/// What happened in one second of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Second {
    /// Since the measured window began; negative while warming up.
    pub at: f64,
    pub records: u64,
    pub bytes: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Second {
    /// For its line; empty when nothing was measured.
    fn latency(&self) -> String {
        if self.max_us == 0 {
            return String::new();
        }
        let (p50, p99, max) = (millis(self.p50_us), millis(self.p99_us), millis(self.max_us));
        format!("p50 {p50} p99 {p99} max {max}  ")
    }
}

/// Seconds of a run, and the line printed for each.
pub struct Series {
    seconds: Vec<Second>,
    latencies: Latencies,
    records: u64,
    bytes: u64,
    next_ns: u64,
    measured_from_ns: u64,
    quiet: bool,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Series {
    pub fn new(start_ns: u64, measured_from_ns: u64, quiet: bool) -> Self {
        Self {
            seconds: Vec::new(),
            latencies: Latencies::new(),
            records: 0,
            bytes: 0,
            next_ns: start_ns + SECOND_NS,
            measured_from_ns,
            quiet,
        }
    }

    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    pub fn count(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
    }

    pub fn latency_ns(&mut self, ns: u64) {
        self.latencies.record_ns(ns);
    }

    /// Ends the second when it is over. `state` is what else the line says.
    pub fn tick(&mut self, now_ns: u64, state: impl FnOnce() -> String) {
        if now_ns < self.next_ns {
            return;
        }
        let at = (self.next_ns as f64 - self.measured_from_ns as f64) / SECOND_NS as f64;
        let second = Second {
            at,
            records: self.records,
            bytes: self.bytes,
            p50_us: self.latencies.percentile_us(50.0),
            p99_us: self.latencies.percentile_us(99.0),
            max_us: self.latencies.max_us(),
        };
        if !self.quiet {
            let mib = second.bytes as f64 / f64::from(1 << 20);
            let state = state();
            eprintln!(
                "{at:>6.0} s {:>9} records {mib:>8.1} MiB  {}{state}",
                second.records,
                second.latency()
            );
        }
        self.seconds.push(second);
        self.latencies.clear();
        (self.records, self.bytes) = (0, 0);
        self.next_ns += SECOND_NS;
    }

    pub fn into_seconds(self) -> Vec<Second> {
        self.seconds
    }
}

/// Microseconds as milliseconds.
pub fn millis(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1000.0)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= chunk.len() { DIGITS[index] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_equals_the_examples_of_its_rfc() {
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn an_encoded_histogram_has_the_known_front() {
        let mut latencies = Latencies::new();
        latencies.record_ns(5_000_000);
        let report = latencies.report().expect("encodes");
        assert!(report.histogram.starts_with("HISTF"), "{}", report.histogram);
        assert_eq!((report.count, report.p50_us, report.max_us), (1, 5003, 5003));
    }
}
