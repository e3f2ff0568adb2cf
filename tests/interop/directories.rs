//! Several log directories: Kafka's own tools see where partitions lie, and one that fails takes only
//! its own along.

use std::path::{Path, PathBuf};

use crate::broker::Broker;
use crate::install::{self, run, skipped};
use crate::java_tools::{CONSUMER, TOPICS, check, tool};
use crate::scratch;

const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";

fn two_dirs(dir: &Path) -> (PathBuf, PathBuf, String) {
    let (first, second) = (dir.join("first"), dir.join("second"));
    let setting = format!("log.dirs={},{}", first.display(), second.display());
    (first, second, setting)
}

fn create(broker: &Broker, topic: &str, partitions: &str) {
    let arguments = ["--bootstrap-server", &broker.address, "--create", "--topic", topic];
    check(TOPICS, &[&arguments[..], &["--partitions", partitions]].concat(), broker);
}

fn produce(broker: &Broker, topic: &str, count: &str, acknowledged: &Path) {
    let path = acknowledged.display().to_string();
    check("Numbered", &["produce", &broker.address, topic, count, "500", &path], broker);
}

fn verify(broker: &Broker, topic: &str, acknowledged: &Path) {
    let path = acknowledged.display().to_string();
    let said = check("Numbered", &["verify", &broker.address, topic, &path], broker);
    assert!(said.contains("problems 0"), "{said}");
}

/// Directories of partitions below a log directory.
fn partitions_in(dir: &Path) -> usize {
    let lanes = std::fs::read_dir(dir.join("lanes")).into_iter().flatten().flatten();
    lanes.map(|lane| std::fs::read_dir(lane.path().join("partitions")).into_iter().flatten().count()).sum()
}

#[test]
fn a_directory_that_is_damaged_at_start_takes_only_its_partitions_along() {
    if let Err(why) = install::java() {
        skipped("a_directory_that_is_damaged_at_start_takes_only_its_partitions_along", &why);
        return;
    }
    let dir = scratch("directories");
    let (first, second, setting) = two_dirs(&dir);
    let mut broker = Broker::start(&dir.join("data"), &[&setting]);
    create(&broker, "spread", "4");
    let acknowledged = dir.join("acknowledged");
    produce(&broker, "spread", "4000", &acknowledged);
    let listed = ["--bootstrap-server", &broker.address, "--describe", "--topic-list", "spread"];
    let listed = check(LOG_DIRS, &listed, &broker);
    let sizes: Vec<u64> = listed
        .split(r#""size":"#)
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .collect();
    assert_eq!((sizes.len(), sizes.iter().all(|size| *size > 100_000)), (4, true), "{listed}");
    assert!(listed.contains(&first.display().to_string()), "{listed}");
    assert!(listed.contains(&second.display().to_string()), "{listed}");
    broker.stop();
    assert_eq!((partitions_in(&first), partitions_in(&second)), (2, 2));

    let format = second.join("format");
    let saved = std::fs::read(&format).expect("written at the first start");
    std::fs::write(&format, "damaged").expect("writable");
    broker.restart();
    assert!(broker.log().contains("tells no version and id"), "{}", broker.log());
    let server = broker.address.clone();
    let unavailable = ["--bootstrap-server", &server, "--describe", "--unavailable-partitions"];
    let described = check(TOPICS, &unavailable, &broker);
    assert_eq!(described.matches("Leader: none").count(), 2, "{described}");
    let described = check(LOG_DIRS, &["--bootstrap-server", &server, "--describe"], &broker);
    let json = described.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{described}"));
    assert!(json.contains("KafkaStorageException"), "{json}");
    assert_eq!(json.matches(r#""partition":"spread-"#).count(), 2, "{json}");
    // What lies in the other one is read and written; new topics go there.
    for partition in ["0", "2"] {
        let from = ["--topic", "spread", "--partition", partition, "--offset", "earliest"];
        let rest = ["--bootstrap-server", &server, "--max-messages", "10", "--timeout-ms", "30000"];
        let offsets = ["--formatter-property", "print.offset=true"];
        let read = check(CONSUMER, &[&from[..], &rest, &offsets].concat(), &broker);
        assert_eq!(read.matches("Offset:").count(), 10, "{read}");
    }
    create(&broker, "meanwhile", "2");
    let meanwhile = dir.join("meanwhile");
    produce(&broker, "meanwhile", "1000", &meanwhile);
    verify(&broker, "meanwhile", &meanwhile);

    broker.stop();
    assert_eq!((partitions_in(&first), partitions_in(&second)), (4, 2));
    std::fs::write(&format, saved).expect("writable");
    broker.restart();
    assert!(check(TOPICS, &unavailable, &broker).trim().is_empty());
    verify(&broker, "spread", &acknowledged);
    verify(&broker, "meanwhile", &meanwhile);

    // An empty mount point isn't taken for the disk that belongs there.
    broker.stop();
    let aside = dir.join("aside");
    std::fs::rename(&second, &aside).expect("one file system");
    broker.restart();
    assert!(broker.log().contains("isn't mounted"), "{}", broker.log());
    assert_eq!(partitions_in(&second), 0);
    broker.stop();
    std::fs::remove_dir_all(&second).expect("only a format file is there");
    std::fs::rename(&aside, &second).expect("one file system");
    broker.restart();
    verify(&broker, "spread", &acknowledged);

    // Without the first one nothing starts, and it says why.
    broker.stop();
    std::fs::write(first.join("format"), "damaged").expect("writable");
    let mut start = std::process::Command::new(env!("CARGO_BIN_EXE_corelane"));
    start.args(["start", "--listen", "127.0.0.1:0", "--set", "admin.listener=", "--set", &setting]);
    let refused = run(&mut start).expect_err("the first directory is damaged");
    assert!(refused.contains("the first log directory holds the metadata"), "{refused}");
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn directories_and_shards_change_from_start_to_start() {
    if let Err(why) = install::java() {
        skipped("directories_and_shards_change_from_start_to_start", &why);
        return;
    }
    let dir = scratch("directories-shards");
    let (_, second, both) = two_dirs(&dir);
    let one = both.split(',').next().expect("split gives one part").to_string();
    // The journals of four lanes are kept small.
    let mut broker = Broker::start(&dir.join("data"), &[&one]);
    let mut written = Vec::new();
    let shapes =
        [("cores=unpinned", &one), ("cores=0,1", &both), ("cores=unpinned", &both), ("cores=0,1", &both)];
    for (round, (cores, dirs)) in shapes.into_iter().enumerate() {
        if round > 0 {
            broker.kill();
            broker.restart_with(&[cores, dirs]);
        }
        let topic = format!("round-{round}");
        create(&broker, &topic, "3");
        let acknowledged = dir.join(&topic);
        produce(&broker, &topic, "1500", &acknowledged);
        written.push((topic, acknowledged));
        for (topic, acknowledged) in &written {
            verify(&broker, topic, acknowledged);
        }
        let everything = tool(TOPICS, &["--bootstrap-server", &broker.address, "--describe"]);
        let described = run(&mut { everything }).unwrap_or_else(|error| panic!("{error}"));
        assert!(!described.contains("none"), "{described}");
    }
    broker.stop();
    assert!(partitions_in(&second) >= 4, "new partitions went where the fewest were");
    std::fs::remove_dir_all(&dir).ok();
}
