//! The sink: the generator runs against it as against a broker.

use crate::run::load;
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
