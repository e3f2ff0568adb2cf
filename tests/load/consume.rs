//! Readers against a broker: groups that each read everything, and thousands of connections.

use crate::broker::Broker;
use crate::run::{command, load, outcome, refused};
use std::process::Command;

/// A broker, its folder, and how many records each of its topic's 4 partitions has.
fn written() -> (tempfile::TempDir, Broker, f64) {
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let arguments = ["produce", "--bootstrap", &broker.address, "--quiet", "--seconds", "0.5"];
    let size = ["--warmup-seconds", "0", "--rate", "800", "--batch-records", "1", "--partitions", "4"];
    let checked = ["--verify", "--stamp", "--connections", "1"];
    let outcome = load(&[&arguments[..], &size, &checked].concat());
    assert_eq!(outcome.number("/verification/findings"), 0.0, "{}", outcome.said);
    let records = outcome.number("/verification/records");
    assert!(records > 0.0 && records % 4.0 == 0.0, "{}", outcome.said);
    (dir, broker, records / 4.0)
}

#[test]
fn every_group_reads_everything() {
    let (_dir, broker, per_partition) = written();
    let arguments =
        ["consume", "--bootstrap", &broker.address, "--quiet", "--seconds", "3", "--warmup-seconds", "0"];
    let outcome = load(&[&arguments[..], &["--groups", "3", "--verify", "--latency"]].concat());
    assert!(outcome.is_valid(), "{}", outcome.said);
    for group in 0..3 {
        assert_eq!(outcome.number(&format!("/groups/{group}/records")), 4.0 * per_partition);
        assert!(outcome.number(&format!("/groups/{group}/latency/count")) > 0.0);
        assert!(outcome.text(&format!("/groups/{group}/latency/histogram")).starts_with("HIST"));
    }
    for sum in ["/records", "/verification/records", "/latency/count"] {
        assert_eq!(outcome.number(sum), 12.0 * per_partition, "{sum}");
    }
    assert_eq!(outcome.number("/polls/connections"), 12.0);
}

#[test]
fn a_reader_stops_at_the_end() {
    let (_dir, broker, per_partition) = written();
    let arguments = ["consume", "--bootstrap", &broker.address, "--quiet", "--warmup-seconds", "0"];
    let outcome = load(&[&arguments[..], &["--seconds", "60", "--to-end"]].concat());
    assert!(outcome.is_valid(), "{}", outcome.said);
    assert_eq!(outcome.number("/records"), 4.0 * per_partition);
    assert!(outcome.number("/seconds") < 60.0);
}

#[test]
fn a_thousand_connections_wait_for_one_partition_each() {
    let (_dir, broker, per_partition) = written();
    let arguments = format!(
        "consume --bootstrap {} --quiet --seconds 6 --warmup-seconds 0 --partition-each --connections 1000 \
         --max-wait-ms 60000",
        broker.address
    );
    // It has room for 100 until it makes more.
    let limited = |limits: &str| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{limits}; exec {} {arguments}", env!("CARGO_BIN_EXE_corelane-load")));
        shell
    };
    let outcome = outcome(&mut limited("ulimit -Sn 100"));
    assert!(outcome.is_valid(), "{}", outcome.said);
    assert_eq!(outcome.number("/polls/connections"), 1000.0);
    assert_eq!(outcome.number("/records"), 1000.0 * per_partition);
    assert!(outcome.number("/polls/with_records") >= 1000.0, "{}", outcome.said);
    // Each waits again, for longer than this runs.
    assert_eq!(outcome.number("/polls/empty"), 0.0);
    let said = refused(&mut limited("ulimit -n 500"));
    assert!(said.contains("hard limit (RLIMIT_NOFILE) is 500"), "{said}");
}

#[test]
fn what_can_not_be_is_refused() {
    for (arguments, word) in [
        (&["--groups", "0"][..], "--groups: at least 1"),
        (&["--again", "--to-end"], "leave --to-end out"),
        (&["--partition-each", "--verify"], "--partition-each can't --verify"),
    ] {
        let said = refused(&mut command(&[&["consume"], arguments].concat()));
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}
