//! Case: a broker for one row of bad inputs, and the two assertions that every row shares.

use super::broker::Broker;
use super::messages::{FetchHead, FetchPart, Topic, batch, fetch, produce};
use super::wire::Wire;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequestData,
};
use corelane::protocol::cold::create_topics_response::CreateTopicsResponseData;
use corelane::protocol::cold::text;
use std::path::{Path, PathBuf};

/// What the broker's memory may grow by for other reasons: its own pools, the allocator's pages of each
/// size, and the second client's.
const SLACK_BYTES: usize = 12 * 1024 * 1024;

/// A row of inputs against a broker of its own.
pub struct Case {
    pub broker: Broker,
    folder: PathBuf,
    /// Peak of resident memory before the bad input.
    peak_before: usize,
    sent_bytes: usize,
    /// What the row may cost besides.
    allowed_bytes: usize,
    bystander_records: i64,
}

impl Case {
    /// `name` is the test's; settings as of `corelane start --set`.
    pub fn new(name: &str, settings: &[&str]) -> Self {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = tmp.join(format!("bad-input-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        let broker = Broker::start(&folder.join("data"), settings);
        let mut case =
            Self { broker, folder, peak_before: 0, sent_bytes: 0, allowed_bytes: 0, bystander_records: 0 };
        case.create_topic("bystander", 1, &[]);
        case.create_topic("target123", 2, &[]);
        case.fill_pools();
        case.bystander_works();
        case.peak_before = case.peak_bytes();
        case
    }

    /// The broker's folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(&self.broker.address)
    }

    /// Makes a topic with settings; anything but success is the test's mistake.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let configs = settings.iter().map(|(name, value)| CreatableTopicConfig {
            name: text(name),
            value: Some(text(value)),
            ..CreatableTopicConfig::default()
        });
        let topic = CreatableTopic {
            name: text(name),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequestData {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..CreateTopicsRequestData::default()
        };
        let answer: CreateTopicsResponseData = self.connect().ask(ApiKey::CreateTopics, 5, &request);
        assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0].error_message);
    }

    /// Good traffic until every pool of fixed size is in use: their pages are not the bad input's.
    fn fill_pools(&self) {
        self.create_topic("filling", 1, &[]);
        let mut wire = self.connect();
        let records = batch(&[&vec![b'v'; 200_000]]);
        for offset in 0..32 {
            let topic = Topic::named("filling");
            assert_eq!(produce(&mut wire, 9, topic, 0, &records).error, 0);
            assert_eq!(fetch(&mut wire, FetchHead::default(), topic, FetchPart::at(0, offset)).error, 0);
        }
    }

    /// A second client completes a Produce and a Fetch.
    pub fn bystander_works(&mut self) {
        let mut wire = self.connect();
        let topic = Topic::named("bystander");
        let value = self.bystander_records.to_be_bytes();
        let produced = produce(&mut wire, 9, topic, 0, &batch(&[&value]));
        assert_eq!((produced.error, produced.base_offset), (0, self.bystander_records));
        let head = FetchHead { min_bytes: 1, max_wait_ms: 30_000, ..FetchHead::default() };
        let answer = fetch(&mut wire, head, topic, FetchPart::at(0, self.bystander_records));
        let records = &answer.partitions[0].records;
        assert!(records.windows(8).any(|window| window == value), "the record that was just acknowledged");
        self.bystander_records += 1;
    }

    /// Counts what a connection has sent.
    pub fn sent(&mut self, wire: &Wire) {
        self.sent_bytes += wire.sent_bytes;
    }

    /// Allows the row a cost that is known and has a limit of its own.
    pub fn allow(&mut self, bytes: usize) {
        self.allowed_bytes += bytes;
    }

    /// The bad input is over: memory never grew by more than what was sent, and others still work.
    pub fn finish(mut self) {
        self.bystander_works();
        let peak = self.peak_bytes();
        assert!(
            peak <= self.peak_before + self.sent_bytes + self.allowed_bytes + SLACK_BYTES,
            "the broker's memory grew from {} to {peak} bytes though only {} were sent",
            self.peak_before,
            self.sent_bytes
        );
    }

    /// The most memory that was ever resident: what was given back in between counts too.
    fn peak_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.broker.pid()));
        let status = status.expect("the broker is alive");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a field of every process");
        let kib: usize = line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB");
        kib * 1024
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the broker's log:\n{}", self.broker.log());
        }
        self.broker.kill();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
