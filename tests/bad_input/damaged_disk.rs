//! Damaged disk: bytes of a journal changed while the broker is stopped. The partition that lost records
//! is offline with Kafka's code, the others are served, and `accept-loss` is the way out.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::case::Case;
use super::messages::{FetchHead, FetchPart, Topic, batch, fetch, produce};

/// The only place of `needle` below `folder`; it was written once.
fn find(folder: &Path, needle: &[u8]) -> (PathBuf, usize) {
    let mut places = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the broker") {
        let path = entry.expect("a readable folder").path();
        let bytes = std::fs::read(&path).expect("a readable file");
        places.extend(bytes.windows(needle.len()).position(|at| at == needle).map(|at| (path, at)));
    }
    assert_eq!(places.len(), 1, "the journal has the record once: {places:?}");
    places.remove(0)
}

fn corelane(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_corelane")).args(arguments).output().expect("the binary");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_partition_that_lost_records_is_offline_alone_until_the_loss_is_accepted() {
    let mut case = Case::new("damaged", &[]);
    case.create_topic("harmed", 2, &[]);
    let topic = Topic::named("harmed");
    let lost = b"the record whose journal group is going to be damaged";
    let mut wire = case.connect();
    let mut append = |partition, value: &[u8]| {
        let produced = produce(&mut wire, 9, topic, partition, &batch(&[value]));
        (produced.error, produced.base_offset)
    };
    assert_eq!(append(0, b"kept"), (0, 0));
    assert_eq!(append(0, lost), (0, 1));
    assert_eq!(append(1, b"of the other partition"), (0, 0));
    assert_eq!(append(0, b"behind the lost one"), (0, 2));
    case.broker.kill();

    let data = case.data();
    let (path, at) = find(&data.join("lanes/0/journal"), lost);
    let mut bytes = std::fs::read(&path).expect("found above");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("a writable file");
    let dir = data.display().to_string();
    let (intact, said) = corelane(&["log", "verify", &dir]);
    assert!(!intact && said.contains("records from offset 1 on are lost"), "{said}");

    // Through two starts: the first one records what it found.
    for _ in 0..2 {
        case.broker.restart();
        let mut wire = case.connect();
        assert_eq!(produce(&mut wire, 9, topic, 0, &batch(&[b"refused"])).error, 56);
        let answer = fetch(&mut wire, FetchHead::default(), topic, FetchPart::at(0, 0));
        assert_eq!(answer.partitions[0].error, 56);
        assert_eq!(produce(&mut wire, 9, topic, 1, &batch(&[b"served"])).error, 0);
        case.bystander_works();
        assert!(case.broker.log().contains("corelane log accept-loss harmed-0"), "{}", case.broker.log());
        case.broker.kill();
    }

    let accept = ["log", "accept-loss", "--data", &dir, "--set", "journal.bytes=16777216"];
    let (accepted, said) = corelane(&[&accept[..], &["harmed-1"]].concat());
    assert!(!accepted && said.contains("isn't damaged"), "{said}");
    let (accepted, said) = corelane(&[&accept[..], &["harmed-0"]].concat());
    assert!(accepted && said.contains("records from offset 1 up to 2 are lost"), "{said}");
    case.broker.restart();
    let mut wire = case.connect();
    let produced = produce(&mut wire, 9, topic, 0, &batch(&[b"goes on"]));
    assert_eq!((produced.error, produced.base_offset), (0, 1));
    let answer = fetch(&mut wire, FetchHead::default(), topic, FetchPart::at(0, 0));
    let records = &answer.partitions[0].records;
    let holds = |value: &[u8]| records.windows(value.len()).any(|window| window == value);
    assert!(holds(b"kept") && holds(b"goes on"));
    assert!(!holds(b"behind the lost one") && !holds(&lost[..10]));
    case.broker.stop();
    let (intact, said) = corelane(&["log", "verify", &dir]);
    assert!(intact, "{said}");
}
