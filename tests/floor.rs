//! Floor: `corelane-load` takes the bare programs for brokers, so their cost can be compared with ours.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

struct Floor {
    process: Child,
    address: SocketAddr,
}

impl Floor {
    fn start(arguments: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-floor"));
        let process =
            command.args(["--listen", &address.to_string()]).args(arguments).spawn().expect("starts");
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "it listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, address }
    }

    /// Runs a short load, which must be valid, and returns how many records it counted.
    fn load(&self, arguments: &[&str]) -> u64 {
        let output = Command::new(env!("CARGO_BIN_EXE_corelane-load"))
            .args(arguments)
            .args([
                "--bootstrap",
                &self.address.to_string(),
                "--seconds",
                "0.3",
                "--warmup-seconds",
                "0",
                "--quiet",
            ])
            .args(["--delete-topic"])
            .output()
            .expect("runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
        result["records"].as_u64().expect("a count")
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

fn path_in(folder: &Path) -> String {
    folder.join("file").to_str().expect("utf-8").to_string()
}

#[test]
fn produce_answers_large_and_small_frames_flushed_and_not() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    for flush in ["none", "dsync", "fdatasync"] {
        let floor = Floor::start(&[
            "produce",
            "--file",
            &path_in(folder.path()),
            "--file-mib",
            "16",
            "--flush",
            flush,
        ]);
        for (batch_bytes, per_request) in [("1048576", "1"), ("16384", "1"), ("2048", "4")] {
            let shape = ["--batch-bytes", batch_bytes, "--partitions-per-request", per_request];
            assert!(floor.load(&[&["produce"], &shape[..]].concat()) > 0, "{flush} {shape:?}");
        }
    }
}

#[test]
fn request_answers_pipelined_tiny_requests() {
    let floor = Floor::start(&["request"]);
    let tiny = [
        "produce",
        "--connections",
        "64",
        "--in-flight",
        "16",
        "--record-bytes",
        "100",
        "--batch-records",
        "1",
    ];
    assert!(floor.load(&tiny) > 64 * 16);
}

#[test]
fn fetch_sends_every_batch_in_order_again_and_again() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    for source in ["memory", "sendfile", "direct"] {
        let floor = Floor::start(&[
            "fetch",
            "--file",
            &path_in(folder.path()),
            "--file-mib",
            "32",
            "--source",
            source,
        ]);
        // Batches whose offsets are behind those expected would not be counted.
        let records = floor.load(&["consume", "--connections", "1", "--again"]);
        assert!(records > 32 * 1000, "{source}: {records} records are more than the file has once");
    }
}
