//! Kafka's own Java tools, with their own main classes and arguments.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::broker::Broker;
use crate::install::{self, run, skipped};
use crate::scratch;

pub const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
pub const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const PRODUCER_PERF: &str = "org.apache.kafka.tools.ProducerPerformance";
const CONSUMER_PERF: &str = "org.apache.kafka.tools.ConsumerPerformance";
pub const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const DUMP: &str = "org.apache.kafka.tools.DumpLogSegments";
const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";

pub fn tool(class: &str, arguments: &[&str]) -> Command {
    let mut command = install::java().expect("installed before");
    command.arg(class).args(arguments);
    command
}

pub fn check(class: &str, arguments: &[&str], broker: &Broker) -> String {
    run(&mut tool(class, arguments)).unwrap_or_else(|error| panic!("{error}\n{}", broker.log()))
}

fn produce(broker: &Broker, topic: &str, lines: &str) {
    let mut child = tool(PRODUCER, &["--bootstrap-server", &broker.address, "--topic", topic])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("java runs");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("the producer reads");
    assert!(child.wait().expect("the producer ends").success());
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn the_quickstart_works_with_its_own_commands() {
    if let Err(why) = install::java() {
        skipped("the_quickstart_works_with_its_own_commands", &why);
        return;
    }
    let dir = scratch("quickstart");
    let mut broker = Broker::start(&dir.join("data"), &[]);
    let server = broker.address.clone();
    let server = server.as_str();
    let topic = ["--bootstrap-server", server, "--topic", "quickstart-events"];

    check(TOPICS, &[&["--create", "--partitions", "2"], &topic[..]].concat(), &broker);
    let described = check(TOPICS, &[&["--describe"], &topic[..]].concat(), &broker);
    assert!(described.contains("PartitionCount: 2"), "{described}");
    assert_eq!(check(TOPICS, &["--list", "--bootstrap-server", server], &broker).trim(), "quickstart-events");
    let again = run(&mut tool(TOPICS, &[&["--create"], &topic[..]].concat()));
    assert!(again.is_err_and(|error| error.contains("already exists")));

    let lines: String = (0..20).map(|line| format!("event {line}\n")).collect();
    produce(&broker, "quickstart-events", &lines);
    let all = [&["--from-beginning", "--max-messages", "20", "--timeout-ms", "30000"], &topic[..]].concat();
    assert_eq!(sorted(&check(CONSUMER, &all, &broker)), sorted(&lines));

    // One group reads everything once, and goes on where it committed; another reads it again.
    let in_group = |group: &'static str, count: &'static str| {
        [
            &["--from-beginning", "--group", group, "--max-messages", count, "--timeout-ms", "30000"],
            &topic[..],
        ]
        .concat()
    };
    assert_eq!(sorted(&check(CONSUMER, &in_group("first", "20"), &broker)), sorted(&lines));
    produce(&broker, "quickstart-events", "one more\n");
    assert_eq!(check(CONSUMER, &in_group("first", "1"), &broker), "one more\n");
    assert_eq!(check(CONSUMER, &in_group("second", "21"), &broker).lines().count(), 21);

    produce(&broker, "quickstart-events", "a\nb\nc\n");
    let lag = |broker: &Broker| {
        let described =
            check(GROUPS, &["--bootstrap-server", server, "--describe", "--group", "first"], broker);
        let column = |line: &str| line.split_whitespace().nth(5).and_then(|lag| lag.parse::<u64>().ok());
        described.lines().filter_map(column).sum::<u64>()
    };
    assert_eq!(lag(&broker), 3);
    broker.kill();
    broker.restart();
    assert_eq!(lag(&broker), 3, "committed offsets survive SIGKILL");
    let listed = check(GROUPS, &["--bootstrap-server", server, "--list"], &broker);
    assert!(sorted(&listed).ends_with(&["first", "second"]), "{listed}");
    check(GROUPS, &["--bootstrap-server", server, "--delete", "--group", "second"], &broker);

    let configs = check(
        CONFIGS,
        &[
            "--bootstrap-server",
            server,
            "--describe",
            "--all",
            "--entity-type",
            "topics",
            "--entity-name",
            "quickstart-events",
        ],
        &broker,
    );
    assert!(configs.contains("max.message.bytes=1048588"), "{configs}");
    check(TOPICS, &[&["--alter", "--partitions", "5"], &topic[..]].concat(), &broker);
    check(TOPICS, &[&["--delete"], &topic[..]].concat(), &broker);
    assert!(!check(TOPICS, &["--list", "--bootstrap-server", server], &broker).contains("quickstart-events"));
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn topic_settings_are_obeyed() {
    if let Err(why) = install::java() {
        skipped("topic_settings_are_obeyed", &why);
        return;
    }
    let dir = scratch("settings");
    let data = dir.join("data");
    let mut broker = Broker::start(&data, &[]);
    let server = broker.address.clone();
    let create = |topic: &str, arguments: &[&str]| {
        run(&mut tool(
            TOPICS,
            &[&["--bootstrap-server", &server, "--create", "--topic", topic], arguments].concat(),
        ))
    };
    let replicated = create("replicated", &["--replication-factor", "3"]).expect_err("one broker");
    assert!(replicated.contains("replication factor of 3"), "{replicated}");
    let unknown = create("unknown", &["--config", "no.such.setting=1"]).expect_err("unknown setting");
    assert!(unknown.contains("Unknown topic config name"), "{unknown}");
    create("recompressed", &["--config", "compression.type=zstd"]).expect("created");
    create("stamped", &["--config", "message.timestamp.type=LogAppendTime"]).expect("created");
    create("strict", &["--config", "min.insync.replicas=2"]).expect("created");

    let acknowledged = dir.join("acknowledged").display().to_string();
    check("Numbered", &["produce", &server, "recompressed", "20000", "200", &acknowledged], &broker);
    let said = check("Numbered", &["verify", &server, "recompressed", &acknowledged], &broker);
    assert!(said.contains("read 20000 acknowledged 20000 problems 0"), "{said}");

    produce(&broker, "stamped", "now\n");
    let stamped =
        ["--bootstrap-server", &server, "--topic", "stamped", "--from-beginning", "--max-messages", "1"];
    let printed =
        check(CONSUMER, &[&stamped[..], &["--formatter-property", "print.timestamp=true"]].concat(), &broker);
    assert!(printed.starts_with("LogAppendTime:"), "{printed}");

    match install::kcat() {
        Err(why) => skipped("topic_settings_are_obeyed with too few replicas", &why),
        Ok(mut kcat) => {
            kcat.args([
                "-b",
                &server,
                "-P",
                "-t",
                "strict",
                "-X",
                "acks=all",
                "-X",
                "message.send.max.retries=0",
            ]);
            let mut child = kcat.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kcat runs");
            child.stdin.take().expect("piped").write_all(b"refused\n").expect("kcat reads");
            let output = child.wait_with_output().expect("kcat ends");
            let printed = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(printed.contains("Not enough in-sync replicas"), "{printed}");
        }
    }

    broker.stop();
    let dumped = check(DUMP, &["--files", &segments(&data).join(",")], &broker);
    assert!(dumped.contains("compresscodec: zstd"), "{dumped}");
    assert!(!dumped.contains("isvalid: false"), "{dumped}");
    std::fs::remove_dir_all(&dir).ok();
}

/// Every segment file below `data`.
pub fn segments(data: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut dirs = vec![data.join("lanes")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                files.push(path.display().to_string());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn after_a_clean_stop_kafkas_dump_tool_reads_every_segment() {
    if let Err(why) = install::java() {
        skipped("after_a_clean_stop_kafkas_dump_tool_reads_every_segment", &why);
        return;
    }
    let dir = scratch("dump");
    let data = dir.join("data");
    let mut broker = Broker::start(&data, &[]);
    let server = broker.address.clone();
    let make = [
        "--bootstrap-server",
        &server,
        "--create",
        "--topic",
        "dumped",
        "--partitions",
        "3",
        "--config",
        "segment.bytes=1048576",
    ];
    check(TOPICS, &make, &broker);
    let acknowledged = dir.join("acknowledged");
    let acknowledged_path = acknowledged.display().to_string();
    check("Numbered", &["produce", &server, "dumped", "9000", "1000", &acknowledged_path], &broker);
    broker.stop();
    let verified = run(Command::new(env!("CARGO_BIN_EXE_corelane")).args(["log", "verify"]).arg(&data));
    let verified = verified.unwrap_or_else(|error| panic!("{error}"));
    assert!(verified.contains(" 0 problems"), "{verified}");
    let own_dump = run(Command::new(env!("CARGO_BIN_EXE_corelane")).args(["log", "dump"]).arg(&data));
    assert!(own_dump.is_ok_and(|text| text.lines().count() > 100));
    let files = segments(&data);
    assert!(files.len() >= 9, "segments of 1 MiB rolled: {files:?}");
    let dumped = check(DUMP, &["--deep-iteration", "--files", &files.join(",")], &broker);
    assert_eq!(dumped.matches("isvalid: false").count(), 0);
    let records = dumped.lines().filter(|line| line.starts_with("| offset:")).count();
    assert_eq!(records, 9000);
    assert!(!dumped.contains("Found"), "the tool finds nothing wrong: {dumped}");
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn what_the_producer_perf_tool_writes_the_consumer_perf_tool_counts() {
    if let Err(why) = install::java() {
        skipped("what_the_producer_perf_tool_writes_the_consumer_perf_tool_counts", &why);
        return;
    }
    let dir = scratch("perf-tools");
    let broker = Broker::start(&dir.join("data"), &[]);
    let server = broker.address.as_str();
    let bootstrap = format!("bootstrap.servers={server}");
    check(
        TOPICS,
        &["--bootstrap-server", server, "--create", "--topic", "perf", "--partitions", "16"],
        &broker,
    );
    let produce =
        ["--topic", "perf", "--num-records", "10000", "--record-size", "1024", "--throughput", "-1"];
    let safely = ["--command-property", &bootstrap, "acks=all", "enable.idempotence=true"];
    let said = check(PRODUCER_PERF, &[&produce[..], &safely].concat(), &broker);
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("10000 records sent, ") && last.contains(" 99.9th."), "{said}");
    assert!(!said.contains("Exception"), "{said}");

    let consume = ["--bootstrap-server", server, "--topic", "perf", "--num-records", "10000"];
    let said = check(CONSUMER_PERF, &[&consume[..], &["--timeout", "60000"]].concat(), &broker);
    let row = said.lines().find(|line| line.starts_with("20")).unwrap_or_default();
    let columns: Vec<&str> = row.split(", ").collect();
    assert_eq!((columns.get(2), columns.get(4)), (Some(&"9.7656"), Some(&"10000")), "{said}");
    // The consumer tool may end before it sees a record too many.
    let ends = check(OFFSETS, &["--bootstrap-server", server, "--topic", "perf"], &broker);
    let ends: Vec<u64> = ends.lines().filter_map(|line| line.rsplit(':').next()?.parse().ok()).collect();
    assert_eq!((ends.len(), ends.iter().sum::<u64>()), (16, 10_000), "{ends:?}");
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn deleted_records_are_gone_and_stay_gone() {
    if let Err(why) = install::java() {
        skipped("deleted_records_are_gone_and_stay_gone", &why);
        return;
    }
    let dir = scratch("delete-records");
    let data = dir.join("data");
    let mut broker = Broker::start(&data, &[]);
    let server = broker.address.clone();
    let create = |topic: &str, config: &str| {
        let arguments = ["--bootstrap-server", &server, "--create", "--topic", topic, "--config", config];
        check(TOPICS, &arguments, &broker);
    };
    create("kept-short", "cleanup.policy=delete");
    create("by-key", "cleanup.policy=compact");
    let lines: String = (0..10).map(|line| format!("line {line}\n")).collect();
    produce(&broker, "kept-short", &lines);

    let wanted = dir.join("offsets.json");
    let delete = |broker: &Broker, topic: &str, offset: i64| {
        let partition = format!(r#"{{"topic":"{topic}","partition":0,"offset":{offset}}}"#);
        let json = format!(r#"{{"partitions":[{partition}],"version":1}}"#);
        std::fs::write(&wanted, json).expect("the scratch folder is writable");
        let file = wanted.display().to_string();
        check(DELETE_RECORDS, &["--bootstrap-server", &broker.address, "--offset-json-file", &file], broker)
    };
    let deleted = delete(&broker, "kept-short", 4);
    assert!(deleted.contains("low_watermark: 4"), "{deleted}");
    let beyond = delete(&broker, "kept-short", 11);
    assert!(beyond.contains("OffsetOutOfRangeException"), "{beyond}");
    let refused = delete(&broker, "by-key", 0);
    assert!(refused.contains("PolicyViolationException"), "{refused}");

    // It was durable before it was answered.
    broker.kill();
    broker.restart();
    let earliest = ["--bootstrap-server", &broker.address, "--topic", "kept-short", "--time", "earliest"];
    assert_eq!(check(OFFSETS, &earliest, &broker).trim(), "kept-short:0:4");
    let all = [
        "--bootstrap-server",
        &broker.address,
        "--topic",
        "kept-short",
        "--from-beginning",
        "--max-messages",
        "6",
        "--timeout-ms",
        "30000",
    ];
    assert_eq!(check(CONSUMER, &all, &broker), lines[lines.find("line 4").expect("written")..]);
    let everything = delete(&broker, "kept-short", -1);
    assert!(everything.contains("low_watermark: 10"), "{everything}");
    std::fs::remove_dir_all(&dir).ok();
}

/// What the offset tool says of the only partition.
fn offset_of(broker: &Broker, topic: &str, time: &str) -> i64 {
    let arguments = ["--bootstrap-server", &broker.address, "--topic", topic, "--time", time];
    let said = check(OFFSETS, &arguments, broker);
    said.trim().rsplit(':').next().and_then(|offset| offset.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn old_segments_leave_by_size_and_by_time() {
    if let Err(why) = install::java() {
        skipped("old_segments_leave_by_size_and_by_time", &why);
        return;
    }
    let dir = scratch("retention");
    let data = dir.join("data");
    let mut broker = Broker::start(&data, &["log.retention.check.interval.ms=50"]);
    let server = broker.address.clone();
    for (topic, config) in [("by-size", "retention.bytes=3000000"), ("by-time", "retention.ms=1")] {
        let create = ["--bootstrap-server", &server, "--create", "--topic", topic, "--config", config];
        check(TOPICS, &[&create[..], &["--config", "segment.bytes=1048576"]].concat(), &broker);
        let acknowledged = dir.join(topic).display().to_string();
        check("Numbered", &["produce", &server, topic, "9000", "1000", &acknowledged], &broker);
    }
    // All of it is old, the active segment too.
    assert!((0..60).any(|_| offset_of(&broker, "by-time", "earliest") == 9000), "{}", broker.log());
    assert_eq!(offset_of(&broker, "by-time", "latest"), 9000);
    // As much as 3 MB and no more than one segment beyond is left: the newest.
    assert!((0..60).any(|_| offset_of(&broker, "by-size", "earliest") >= 4_000), "{}", broker.log());
    let earliest = offset_of(&broker, "by-size", "earliest");
    assert!(earliest < 6_500, "{earliest}");

    broker.stop();
    let left: u64 =
        segments(&data).iter().map(|file| std::fs::metadata(file).map_or(0, |metadata| metadata.len())).sum();
    assert!((3_000_000..5_000_000).contains(&left), "{left} bytes are left on disk");
    broker.restart();
    assert_eq!(offset_of(&broker, "by-size", "earliest"), earliest);
    assert_eq!(offset_of(&broker, "by-time", "earliest"), 9000);
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn settings_change_while_the_broker_runs() {
    if let Err(why) = install::java() {
        skipped("settings_change_while_the_broker_runs", &why);
        return;
    }
    let dir = scratch("alter-configs");
    let mut broker = Broker::start(&dir.join("data"), &["log.retention.check.interval.ms=50"]);
    let server = broker.address.clone();
    check(TOPICS, &["--bootstrap-server", &server, "--create", "--topic", "changing"], &broker);
    produce(&broker, "changing", "one\ntwo\nthree\n");
    let configs = |arguments: &[&str]| {
        let mut command = tool(CONFIGS, &["--bootstrap-server", &server]);
        run(command.args(["--entity-type", "topics", "--entity-name", "changing"]).args(arguments))
    };
    let describe = || configs(&["--describe"]).expect("described");

    configs(&["--alter", "--add-config", "max.message.bytes=5000,segment.bytes=2000000"]).expect("altered");
    configs(&["--alter", "--delete-config", "segment.bytes"]).expect("altered");
    let described = describe();
    assert!(described.contains("max.message.bytes=5000"), "{described}");
    assert!(!described.contains("segment.bytes"), "{described}");
    let unknown = configs(&["--alter", "--add-config", "max.message.bites=1"]).expect_err("refused");
    assert!(unknown.contains("InvalidConfigurationException"), "{unknown}");
    let broken = configs(&["--alter", "--add-config", "retention.ms=soon"]).expect_err("refused");
    assert!(broken.contains("InvalidConfigurationException"), "{broken}");

    // What changed holds at once, and after a crash.
    configs(&["--alter", "--add-config", "retention.ms=1"]).expect("altered");
    assert!((0..60).any(|_| offset_of(&broker, "changing", "earliest") == 3), "{}", broker.log());
    broker.kill();
    broker.restart();
    let described = describe();
    assert!(
        described.contains("max.message.bytes=5000") && described.contains("retention.ms=1"),
        "{described}"
    );
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn settings_of_the_broker_change_while_it_runs() {
    if let Err(why) = install::java() {
        skipped("settings_of_the_broker_change_while_it_runs", &why);
        return;
    }
    let dir = scratch("alter-broker");
    let settings = ["cores=0,1", "log.retention.check.interval.ms=50", "log.segment.bytes=2000000"];
    let mut broker = Broker::start(&dir.join("data"), &settings);
    let server = broker.address.clone();
    let configs = |arguments: &[&str]| {
        run(tool(CONFIGS, &["--bootstrap-server", &server, "--entity-type"]).args(arguments))
    };
    let of_node = ["brokers", "--entity-name", "1"];
    let of_cluster = ["brokers", "--entity-default"];
    let alter = |of: &[&str], change: &[&str]| configs(&[of, &["--alter"], change].concat());
    for (topic, own) in [("kept", &["--config", "retention.ms=-1"][..]), ("inherits", &[])] {
        let create = ["--bootstrap-server", &server, "--create", "--partitions", "4", "--topic", topic];
        check(TOPICS, &[&create[..], own].concat(), &broker);
        produce(&broker, topic, "one\ntwo\nthree\n");
    }

    for (change, why) in [
        (
            "num.partitions=3",
            "InvalidRequestException: Cannot update these configs dynamically: [num.partitions]",
        ),
        (
            "log.retention.ms=soon",
            "InvalidRequestException: Invalid value soon for configuration log.retention.ms: ",
        ),
        ("no.such.setting=1", "InvalidConfigurationException: Unknown broker config name: no.such.setting"),
    ] {
        for of in [&of_node[..], &of_cluster[..]] {
            let refused = alter(of, &["--add-config", change]).expect_err(change);
            assert!(refused.contains(why), "{refused}");
        }
    }

    // What changes reaches the partitions of every shard, but not a topic with its own.
    alter(&of_cluster, &["--add-config", "log.retention.ms=1,max.connections=500"]).expect("altered");
    let earliest = |broker: &Broker, topic: &str| {
        let arguments = ["--bootstrap-server", &broker.address, "--topic", topic, "--time", "earliest"];
        let said = check(OFFSETS, &arguments, broker);
        said.lines().filter_map(|line| line.rsplit(':').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    assert!((0..60).any(|_| earliest(&broker, "inherits") == 3), "{}", broker.log());
    assert_eq!(earliest(&broker, "kept"), 0);
    alter(&of_node, &["--add-config", "log.retention.ms=3600000"]).expect("altered");

    let kept = |broker: &Broker| {
        let described = configs(&[&of_node[..], &["--describe", "--all"]].concat()).expect("described");
        let retention = "log.retention.ms=3600000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:log.retention.ms=3600000, DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=1, DEFAULT_CONFIG:log.retention.ms=604800000}";
        assert!(described.contains(retention), "{described}");
        let connections = "max.connections=500 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:max.connections=500, DEFAULT_CONFIG:max.connections=10000}";
        assert!(described.contains(connections), "{described}");
        let described = configs(&[&of_cluster[..], &["--describe"]].concat()).expect("described");
        assert!(described.contains("log.retention.ms=1 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=1}"), "{described}");
        let described =
            configs(&["topics", "--entity-name", "inherits", "--describe", "--all"]).expect("described");
        assert!(
            described.contains("retention.ms=3600000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:"),
            "{described}"
        );
        assert!(described.contains("segment.bytes=2000000 sensitive=false synonyms={STATIC_BROKER_CONFIG:log.segment.bytes=2000000, "), "{described}");
        // Records of this moment are no hour old.
        produce(broker, "inherits", "young\n");
    };
    kept(&broker);
    broker.kill();
    broker.restart();
    kept(&broker);
    assert_eq!(earliest(&broker, "inherits"), 3, "{}", broker.log());

    alter(&of_node, &["--delete-config", "log.retention.ms"]).expect("altered");
    assert!((0..60).any(|_| earliest(&broker, "inherits") == 5), "{}", broker.log());
    std::fs::remove_dir_all(&dir).ok();
}

/// Keys with the values that they have last in a reader's output; a key that is deleted has none.
fn by_key(text: &str) -> std::collections::BTreeMap<&str, Vec<&str>> {
    let mut values = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        values.entry(key).or_default().push(value);
    }
    values
}

#[test]
fn a_compacted_topic_keeps_the_last_value_of_every_key() {
    if let Err(why) = install::java() {
        skipped("a_compacted_topic_keeps_the_last_value_of_every_key", &why);
        return;
    }
    let dir = scratch("compaction");
    let data = dir.join("data");
    let mut broker = Broker::start(&data, &["log.cleaner.backoff.ms=50"]);
    let server = broker.address.clone();
    let configs = [
        "cleanup.policy=compact",
        "segment.bytes=1048576",
        "min.cleanable.dirty.ratio=0.01",
        "delete.retention.ms=0",
    ];
    let create: Vec<&str> = configs.iter().flat_map(|config| ["--config", config]).collect();
    let topic = ["--bootstrap-server", &server, "--topic", "state"];
    check(TOPICS, &[&["--create"], &topic[..], &create].concat(), &broker);

    // 40 keys, 300 values each, of which the last one counts; a null at the end deletes every fifth key.
    let padding = "x".repeat(500);
    let written = |lines: &str, properties: &[&str]| {
        let mut arguments = vec!["--bootstrap-server", &server, "--topic", "state"];
        for property in [&["parse.key=true", "key.separator==", "null.marker=NULL"], properties].concat() {
            arguments.extend(["--reader-property", property]);
        }
        let mut child = tool(PRODUCER, &arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let child = child.as_mut().expect("java runs");
        child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("the producer reads");
        assert!(child.wait().expect("the producer ends").success());
    };
    let mut lines = String::new();
    for round in 0..300 {
        (0..40).for_each(|key| lines.push_str(&format!("key-{key}=value {round} {padding}\n")));
    }
    (0..40).step_by(5).for_each(|key| lines.push_str(&format!("key-{key}=NULL\n")));
    written(&lines, &[]);
    // What ends the active segment, so that all before it may be compacted; twice, since a deletion goes in
    // the cleaning behind the one that found it.
    let filler = |name: &str| (0..2200).map(|_| format!("{name}={padding}\n")).collect::<String>();
    let read_all = || {
        let properties =
            ["--formatter-property", "print.key=true", "--formatter-property", "key.separator=="];
        let arguments = [&["--from-beginning", "--timeout-ms", "4000"], &topic[..], &properties].concat();
        // It ends by its timeout, which the tool calls an error.
        let output = tool(CONSUMER, &arguments).output().expect("java runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let cleaned = |text: &str| {
        let values = by_key(text);
        (0..40).all(|key| {
            let expected = usize::from(key % 5 != 0);
            values.get(format!("key-{key}").as_str()).map_or(0, Vec::len) == expected
        })
    };
    let mut text = String::new();
    for round in 0..20 {
        written(&filler(if round % 2 == 0 { "filler" } else { "other" }), &[]);
        text = read_all();
        if cleaned(&text) {
            break;
        }
    }
    assert!(cleaned(&text), "{} lines are left\n{}", text.lines().count(), broker.log());
    let last = format!("value 299 {padding}");
    let values = by_key(&text);
    for key in (0..40).filter(|key| key % 5 != 0) {
        assert_eq!(values[format!("key-{key}").as_str()], [&last], "key {key}");
    }

    // Kafka's own tool reads the segments, with their gaps; ours finds nothing wrong.
    broker.stop();
    let dumped = check(DUMP, &["--deep-iteration", "--files", &segments(&data).join(",")], &broker);
    assert!(!dumped.contains("isvalid: false"), "{dumped}");
    let records = dumped.lines().filter(|line| line.starts_with("| offset:")).count();
    assert!(records < 12_000, "{records} records are on disk");
    let verified = run(Command::new(env!("CARGO_BIN_EXE_corelane")).args(["log", "verify"]).arg(&data));
    let verified = verified.unwrap_or_else(|error| panic!("{error}"));
    assert!(verified.contains(" 0 problems"), "{verified}");
    broker.restart();
    assert!(cleaned(&read_all()), "and after a restart");

    // A record without key is refused.
    let end = offset_of(&broker, "state", "latest");
    let mut refused =
        tool(PRODUCER, &topic).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("java runs");
    refused.stdin.take().expect("piped").write_all(b"no key\n").expect("the producer reads");
    refused.wait().expect("the producer ends");
    assert_eq!(offset_of(&broker, "state", "latest"), end);
    std::fs::remove_dir_all(&dir).ok();
}
