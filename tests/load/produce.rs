//! Producers against a broker: what they write is there, and what can't be is refused.

use crate::broker::Broker;
use crate::run::{Outcome, command, load, refused};

const TOPIC: [&str; 2] = ["--topic", "written"];

fn broker() -> (tempfile::TempDir, Broker) {
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(&dir.path().join("data"), &[]);
    (dir, broker)
}

/// Half a second of load.
fn produce(broker: &Broker, further: &[&str]) -> Outcome {
    let common =
        ["produce", "--bootstrap", &broker.address, "--quiet", "--seconds", "0.5", "--warmup-seconds", "0"];
    load(&[&common[..], further].concat())
}

#[test]
fn idempotent_batches_are_taken_and_all_there() {
    let (_dir, broker) = broker();
    let further = ["--idempotent", "--verify", "--partitions-per-request", "2", "--in-flight", "8"];
    // The second run begins with sequences of its own, on the same partitions.
    for _ in 0..2 {
        let outcome = produce(&broker, &[&further[..], &TOPIC].concat());
        assert!(outcome.is_valid(), "{}", outcome.said);
        assert!(outcome.number("/verification/records") > 0.0);
    }
}

#[test]
fn compressed_batches_are_taken_and_read() {
    let (_dir, broker) = broker();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let outcome = produce(&broker, &["--compression", codec, "--idempotent", "--topic", codec]);
        assert!(outcome.is_valid(), "{codec}: {}", outcome.said);
        let ratio = outcome.number("/uncompressed_bytes") / outcome.number("/bytes");
        let expected = if codec == "none" { 0.999..1.001 } else { 1.6..2.4 };
        assert!(expected.contains(&ratio), "{codec}: {ratio}");
    }
}

#[test]
fn partitions_get_what_their_keys_bring() {
    let (_dir, broker) = broker();
    let keyed = ["--partitioner", "keyed", "--keys", "1000", "--key-distribution", "zipf:1.5", "--verify"];
    let size = ["--partitions", "16", "--batch-records", "2"];
    let outcome = produce(&broker, &[&keyed[..], &size, &TOPIC].concat());
    assert!(outcome.is_valid(), "{}", outcome.said);
    let batches = outcome.result["partition_batches"].as_object().expect("where a partitioner chose");
    let counts: Vec<u64> = batches.values().filter_map(serde_json::Value::as_u64).collect();
    // The first key alone has 0.39 of all, a sixteenth is 0.06: even a few batches tell which it is.
    let most = counts.iter().max().copied().unwrap_or(0) as f64 / counts.iter().sum::<u64>() as f64;
    assert!(counts.len() == 16 && most > 0.25, "{counts:?}");
}

#[test]
fn requests_are_counted_out() {
    let (_dir, broker) = broker();
    let size = ["--requests", "400", "--connections", "4", "--batch-records", "1", "--seconds", "60"];
    let outcome = load(
        &[&["produce", "--bootstrap", &broker.address, "--quiet", "--warmup-seconds", "0"], &size[..]]
            .concat(),
    );
    assert_eq!(outcome.number("/requests"), 400.0, "{}", outcome.said);
    assert!(outcome.number("/seconds") < 60.0);
}

#[test]
fn what_can_not_be_is_refused() {
    for (arguments, word) in [
        (&["--record-bytes", "27"][..], "--record-bytes: at least 28"),
        (&["--partitioner", "keyed"], "needs --keys"),
        (&["--partitioner", "sticky", "--keys", "5"], "leave --keys out"),
        (&["--keys", "5", "--key-distribution", "zipf:1"], "needs --partitioner keyed"),
        (&["--partitioner", "sticky", "--partitions-per-request", "2"], "one partition a request"),
        (&["--requests", "5", "--rate", "10"], "--requests needs --rate max"),
        (&["--idempotent", "--acks", "1"], "needs --acks all"),
        (&["--idempotent", "--reconnect"], "can't --reconnect"),
        (&["--compression", "lz4", "--verify"], "can't --verify"),
        (&["--compression", "lz4", "--stamp"], "can't --verify or --stamp"),
        (&["--compression", "lz4", "--keys", "5"], "add --partitioner keyed"),
    ] {
        let said = refused(&mut command(&[&["produce"], arguments].concat()));
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}
