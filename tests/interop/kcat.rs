//! kcat with Debian's librdkafka, the oldest in the field.

use std::io::Write;
use std::process::Stdio;

use crate::broker::Broker;
use crate::install::{self, run, skipped};
use crate::scratch;

const LINES: usize = 1_000_000;

#[test]
fn a_million_lines_come_back_byte_for_byte_with_every_codec() {
    let kcat = || install::kcat();
    if let Err(why) = kcat() {
        skipped("a_million_lines_come_back_byte_for_byte_with_every_codec", &why);
        return;
    }
    let dir = scratch("kcat");
    let broker = Broker::start(&dir.join("data"), &[]);
    let file = dir.join("lines.txt");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).expect("a file"));
    for line in 0..LINES {
        writeln!(out, "line {line} of a text that repeats itself, {}", line % 977).expect("written");
    }
    drop(out);
    let expected = std::fs::read(&file).expect("just written");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("lines-{codec}");
        let mut produce = kcat().expect("installed above");
        produce.args(["-b", &broker.address, "-P", "-t", &topic, "-p", "0", "-z", codec, "-l"]).arg(&file);
        run(&mut produce).unwrap_or_else(|error| panic!("{codec}: {error}\n{}", broker.log()));
        let mut consume = kcat().expect("installed above");
        consume.args(["-b", &broker.address, "-C", "-t", &topic, "-p", "0", "-o", "beginning", "-e", "-q"]);
        consume.args(["-X", "check.crcs=true"]).stderr(Stdio::inherit());
        let output = consume.output().expect("kcat runs");
        assert!(output.status.success(), "{codec}: {}", output.status);
        assert!(output.stdout == expected, "{codec}: {} bytes for {}", output.stdout.len(), expected.len());
    }
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn the_admin_port_tells_health_and_metrics() {
    let dir = scratch("admin");
    let broker = Broker::start(&dir.join("data"), &[]);
    let get = |path: &str| -> String {
        let mut stream = std::net::TcpStream::connect(&broker.admin).expect("the admin port");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        std::io::read_to_string(stream).expect("an answer")
    };
    assert!(get("/health").ends_with("ok\n"));
    let metrics = get("/metrics");
    assert!(metrics.contains("corelane_connections_open_count{shard=\"0\"} 0"), "{metrics}");
    assert!(metrics.contains("# EOF"), "{metrics}");
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn a_consumer_waits_and_gets_what_comes() {
    let Ok(mut consume) = install::kcat() else {
        skipped("a_consumer_waits_and_gets_what_comes", "kcat isn't there");
        return;
    };
    let dir = scratch("kcat-wait");
    let broker = Broker::start(&dir.join("data"), &[]);
    let produce = |text: &str| {
        let mut produce = install::kcat().expect("installed");
        let mut child = produce
            .args(["-b", &broker.address, "-P", "-t", "t"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("kcat");
        writeln!(child.stdin.take().expect("piped"), "{text}").expect("kcat reads");
        assert!(child.wait().expect("kcat ends").success());
    };
    produce("first");
    consume.args(["-b", &broker.address, "-C", "-t", "t", "-o", "beginning", "-c", "2", "-q"]);
    let child = consume.stdout(Stdio::piped()).spawn().expect("kcat");
    produce("second");
    let output = child.wait_with_output().expect("kcat ends after two records");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "first\nsecond\n");
    std::fs::remove_dir_all(&dir).ok();
}
