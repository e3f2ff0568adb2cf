//! Records with keys, headers and timestamps, written by each client and read by every other.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        name: "kafka_python",
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
    Client { name: "kafkajs", command: install::node, program: "records.js", codecs: &["none", "gzip"] },
];

/// Lines as the clients' programs print them: keys in order, nulls, repeated headers.
fn make(path: &Path) -> String {
    let mut text = String::new();
    for index in 0..RECORDS {
        let key = if index % 7 == 0 { "null".to_string() } else { format!("\"key {index}\"") };
        let headers = match index % 3 {
            0 => "[]",
            1 => "[[\"trace\", \"a1\"]]",
            _ => "[[\"h\", \"1\"], [\"h\", \"2\"]]",
        };
        let time = 1_700_000_000_000u64 + index as u64;
        writeln!(text, "{{\"h\": {headers}, \"k\": {key}, \"t\": {time}, \"v\": \"value {index}\"}}")
            .expect("a string");
    }
    std::fs::write(path, &text).expect("a file");
    text.replace(": ", ":").replace(", ", ",")
}

fn call(
    client: &Client,
    what: &str,
    broker: &Broker,
    topic: &str,
    file: &Path,
    codec: &str,
) -> Result<String, String> {
    let program =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients").join(client.program);
    let mut command = (client.command)()?;
    command.arg(program).args([client.name, what, &broker.address, topic]).arg(file);
    run(command.args([&RECORDS.to_string(), codec]))
}

#[test]
fn what_one_client_writes_every_other_reads() {
    let dir = scratch("records");
    let broker = Broker::start(&dir.join("data"), &[]);
    let file = dir.join("records.json");
    let expected = make(&file);
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
            call(writer, "produce", &broker, &topic, &file, codec)
                .unwrap_or_else(|error| panic!("{topic}: {error}\n{}", broker.log()));
            // kafkajs decompresses gzip only.
            let readers = installed.iter().filter(|reader| reader.codecs.contains(codec));
            for reader in readers {
                let read = dir.join(format!("{topic}-read-by-{}", reader.name));
                call(reader, "consume", &broker, &topic, &read, codec)
                    .unwrap_or_else(|error| panic!("{topic} by {}: {error}\n{}", reader.name, broker.log()));
                let got = std::fs::read_to_string(&read).expect("the client wrote it");
                let got = got.replace(": ", ":").replace(", ", ",");
                assert!(got == expected, "{topic} read by {} differs", reader.name);
            }
        }
    }
    std::fs::remove_dir_all(&dir).ok();
}
