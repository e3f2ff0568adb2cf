//! Lines of real text with keys, headers and timestamps, written by each client and read by every other.
//!
//! `CORELANE_RECORDS=1000000` makes the file a million lines. Then each pair of writer and codec is read by
//! two clients only, the writer and another, to bound the time: that run took ten minutes.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::broker::Broker;
use crate::install::{self, run, skipped};
use crate::scratch;

const RECORDS: usize = 3000;

struct Client {
    name: &'static str,
    command: fn() -> Result<Command, String>,
    program: &'static str,
    codecs: &'static [&'static str],
}

const CLIENTS: [Client; 4] = [
    Client {
        name: "confluent",
        command: install::python,
        program: "records.py",
        codecs: &["none", "gzip", "snappy", "lz4", "zstd"],
    },
    Client {
        name: "aiokafka",
        command: install::python,
        program: "records.py",
        codecs: &["none", "gzip", "snappy", "lz4", "zstd"],
    },
    Client {
        name: "kafka_python",
        command: install::python,
        program: "records.py",
        codecs: &["none", "gzip", "snappy", "lz4", "zstd"],
    },
    // kafkajs decompresses gzip only.
    Client { name: "kafkajs", command: install::node, program: "records.js", codecs: &["none", "gzip"] },
];

/// Lines people wrote: the project's sources, with their empty lines, quotes, tabs and drawings.
fn text() -> Vec<String> {
    fn add(path: &Path, lines: &mut Vec<String>) {
        if path.is_dir() {
            let entries =
                std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
            let mut entries: Vec<PathBuf> = entries.collect();
            entries.sort();
            entries.iter().for_each(|entry| add(entry, lines));
        } else {
            // What isn't text has no lines.
            lines.extend(std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_string));
        }
    }
    let mut lines = Vec::new();
    add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut lines);
    lines
}

/// One JSON object a line, as the clients' programs print it: keys in order, nulls, repeated headers.
fn make(path: &Path, count: usize) {
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    for (index, value) in text().iter().cycle().take(count).enumerate() {
        let key = if index % 7 == 0 { "null".to_string() } else { format!("\"key {index}\"") };
        let headers = match index % 3 {
            0 => "[]",
            1 => "[[\"trace\",\"a1\"]]",
            _ => "[[\"h\",\"1\"],[\"h\",\"2\"]]",
        };
        let time = 1_700_000_000_000u64 + index as u64;
        let value = serde_json::to_string(value).expect("a string");
        writeln!(file, "{{\"h\":{headers},\"k\":{key},\"t\":{time},\"v\":{value}}}")
            .expect("room on the disk");
    }
    file.flush().expect("room on the disk");
}

/// Compares two files line by line, so that a difference names its record.
fn same(expected: &Path, got: &Path) -> Result<(), String> {
    let open = |path: &Path| BufReader::new(File::open(path).expect("the client wrote it"));
    let (mut expected, mut got) = (open(expected), open(got));
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for record in 0.. {
        left.clear();
        right.clear();
        expected.read_until(b'\n', &mut left).expect("readable");
        got.read_until(b'\n', &mut right).expect("readable");
        if left != right {
            let [left, right] = [&left, &right].map(|line| String::from_utf8_lossy(line));
            return Err(format!("record {record}: written {left} read {right}"));
        }
        if left.is_empty() {
            break;
        }
    }
    Ok(())
}

struct Run {
    broker: Broker,
    count: usize,
}

impl Run {
    fn call(&self, client: &Client, what: &str, topic: &str, file: &Path, codec: &str) {
        let program =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients").join(client.program);
        let mut command = (client.command)().expect("installed before");
        command.arg(program).args([client.name, what, &self.broker.address, topic]).arg(file);
        let began = Instant::now();
        run(command.args([&self.count.to_string(), codec])).unwrap_or_else(|error| {
            panic!("{topic} {what} by {}: {error}\n{}", client.name, self.broker.log())
        });
        eprintln!("{topic}: {what} by {} took {:.1} s", client.name, began.elapsed().as_secs_f64());
    }
}

#[test]
fn what_one_client_writes_every_other_reads() {
    let count = match std::env::var("CORELANE_RECORDS") {
        Ok(number) => number.parse().expect("CORELANE_RECORDS is a number"),
        Err(_) => RECORDS,
    };
    let readers_max = if count > RECORDS { 2 } else { CLIENTS.len() };
    let dir = scratch("records");
    // The records' times are long ago: retention would take them.
    let run = Run { broker: Broker::start(&dir.join("data"), &["log.retention.ms=-1"]), count };
    let file = dir.join("records.json");
    make(&file, count);
    let installed: Vec<&Client> = CLIENTS
        .iter()
        .filter(|client| match (client.command)() {
            Ok(_) => true,
            Err(why) => {
                skipped(&format!("what_one_client_writes_every_other_reads with {}", client.name), &why);
                false
            }
        })
        .collect();
    for writer in &installed {
        for codec in writer.codecs {
            let topic = format!("{}-{codec}", writer.name);
            run.call(writer, "produce", &topic, &file, codec);
            let others = installed.iter().filter(|reader| reader.name != writer.name);
            let others = others.filter(|reader| reader.codecs.contains(codec));
            for reader in std::iter::once(writer).chain(others).take(readers_max) {
                let read = dir.join(format!("{topic}-read-by-{}", reader.name));
                run.call(reader, "consume", &topic, &read, codec);
                same(&file, &read).unwrap_or_else(|error| panic!("{topic} read by {}: {error}", reader.name));
                std::fs::remove_file(&read).expect("read before");
            }
        }
    }
    std::fs::remove_dir_all(&dir).ok();
}
