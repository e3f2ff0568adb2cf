//! The sink: the generator runs against it as against a broker.

use crate::run::{command, load, refused};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

pub struct Sink {
    child: Child,
    pub address: String,
}

impl Sink {
    pub fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-load"));
        command.args(["sink", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built with the tests");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut said).expect("its output");
        let address = said.trim_end().rsplit(' ').next().expect("it says where it listens").to_string();
        Self { child, address }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_generator_runs_against_its_sink() {
    let sink = Sink::start();
    let common =
        ["produce", "--bootstrap", &sink.address, "--quiet", "--seconds", "0.5", "--warmup-seconds", "0"];
    for (topic, further) in [
        ("large", &["--batch-bytes", "1048576"][..]),
        ("tiny", &["--batch-records", "1", "--record-bytes", "100", "--in-flight", "64"]),
        ("several", &["--partitions-per-request", "4", "--record-bytes", "30000", "--batch-records", "3"]),
        ("unanswered", &["--acks", "0"]),
        ("idempotent", &["--idempotent", "--partitioner", "sticky"]),
        ("numbered", &["--stamp", "--keys", "100", "--delete-topic"]),
    ] {
        let outcome = load(&[&common[..], &["--topic", topic], further].concat());
        assert!(outcome.is_valid(), "{topic}: {}", outcome.said);
        assert!(outcome.number("/records") > 0.0 && outcome.number("/latency/p50_us") > 0.0, "{topic}");
    }
}

#[test]
fn a_result_has_histograms_and_seconds_and_is_told() {
    let sink = Sink::start();
    let pid = sink.child.id().to_string();
    let arguments = ["produce", "--bootstrap", &sink.address, "--seconds", "2.1", "--warmup-seconds", "0"];
    let outcome = load(&[&arguments[..], &["--rate", "500", "--pid", &pid]].concat());
    for latency in ["/latency", "/generator_lag"] {
        assert!(outcome.text(&format!("{latency}/histogram")).starts_with("HISTF"), "{}", outcome.result);
    }
    let seconds = outcome.result["series"].as_array().expect("one row a second");
    assert!(seconds.len() >= 2 && seconds[0]["p99_us"].as_u64() > Some(0), "{seconds:?}");
    let lines = |word: &str| outcome.said.lines().filter(|line| line.contains(word)).count();
    // A line a second, and the result for people.
    assert!(lines(" s ") >= 2 && lines("in flight") >= 2, "{}", outcome.said);
    for words in ["records/s", "MiB/s", "p50", "p99.9", "max", "broker", "cpu-s", "valid"] {
        assert!(outcome.said.to_lowercase().contains(&words.to_lowercase()), "{words}: {}", outcome.said);
    }
}

#[test]
fn a_knee_doubles_its_rate_and_keeps_every_run() {
    let sink = Sink::start();
    let arguments =
        ["knee", "--bootstrap", &sink.address, "--quiet", "--seconds", "0.4", "--warmup-seconds", "0"];
    let search = ["--p99-ms", "60000", "--from-rate", "2000", "--runs-max", "3", "--record-bytes", "100"];
    let outcome = load(&[&arguments[..], &search].concat());
    assert_eq!(outcome.code, Some(2), "three runs never decide: {}", outcome.said);
    let runs = outcome.result["runs"].as_array().expect("all runs");
    assert_eq!(runs[0]["rate"], 2000.0);
    // A busy machine may not reach a rate, or be late itself.
    for pair in runs.windows(2) {
        let (rate, next) = (pair[0]["rate"].as_f64(), pair[1]["rate"].as_f64());
        match pair[0]["verdict"].as_str() {
            Some("under") => assert!(next > rate, "{}", outcome.said),
            Some("above") => assert!(next < rate, "{}", outcome.said),
            verdict => panic!("no run follows {verdict:?}: {}", outcome.said),
        }
    }
    let why = outcome.text("/invalid_because/0");
    match runs.last().expect("at least one")["verdict"].as_str() {
        Some("spoilt") => assert!(!why.is_empty()),
        _ => assert!(why.contains("--runs-max: not decided after 3 runs"), "{why}"),
    }
    assert!(outcome.text("/runs/0/latency/histogram").starts_with("HISTF"));
    assert!(outcome.said.contains("rate      2000"), "{}", outcome.said);
    let rated = [&arguments[..], &search, &["--rate", "5"]].concat();
    assert!(refused(&mut command(&rated)).contains("leave it out"));
}
