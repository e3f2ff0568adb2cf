//! Broker: the built binary as a child process, on a free port and in a folder of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct Broker {
    child: Child,
    pub address: String,
    pub admin: String,
    data: PathBuf,
    settings: Vec<String>,
    /// Kept so that the broker's later output has somewhere to go.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Broker {
    /// One unpinned shard and a small journal, unless `settings` say otherwise. `CORELANE_HOST` chooses its host.
    pub fn start(data: &Path, settings: &[&str]) -> Self {
        let mut all = vec!["cores=unpinned".to_string(), "journal.bytes=16777216".to_string()];
        all.push("group.initial.rebalance.delay.ms=100".to_string());
        all.push("admin.listener=127.0.0.1:0".to_string());
        all.extend(std::env::var("CORELANE_HOST").ok().map(|host| format!("host={host}")));
        all.extend(settings.iter().map(|setting| setting.to_string()));
        Self::start_on(data, "127.0.0.1:0", all)
    }

    fn start_on(data: &Path, listen: &str, settings: Vec<String>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
        command.arg("start").arg("--data").arg(data).arg("--listen").arg(listen);
        for setting in &settings {
            command.arg("--set").arg(setting);
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(data.with_extension("log"))
            .expect("the log file beside the data folder");
        let mut child = command
            // Huge pages would count 2 MiB for the first byte of each: tests measure memory more finely.
            .env("MIMALLOC_ALLOW_THP", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary was built with the tests");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("stop:") {
            let read = stdout.read_line(&mut said).expect("the broker's output");
            if read == 0 {
                let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
                panic!("the broker ended while starting:\n{said}\n{log}");
            }
        }
        let between = |from: &str, to: &str| -> String {
            let rest = said.split(from).nth(1).expect("the broker says where it listens");
            rest.split(to).next().expect("split gives one part").to_string()
        };
        Self {
            child,
            address: between("protocol on ", ","),
            admin: between("http://", "/"),
            data: data.to_path_buf(),
            settings,
            _stdout: stdout,
        }
    }

    #[allow(dead_code, reason = "the tests of bad input share this file and look at the process's memory")]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no chance to write anything.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }

    /// SIGTERM: drains, makes everything durable, ends with success.
    pub fn stop(&mut self) {
        let status =
            Command::new("kill").arg(self.child.id().to_string()).status().expect("kill is everywhere");
        assert!(status.success());
        let status = self.child.wait().expect("a child of ours");
        let log = std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
        assert!(status.success(), "a drained broker ends with success, not {status}\n{log}");
    }

    /// Starts again on the same folder and port.
    pub fn restart(&mut self) {
        let data = self.data.clone();
        let (address, settings) = (self.address.clone(), self.settings.clone());
        *self = Self::start_on(&data, &address, settings);
    }

    /// Starts again with further settings, over those it had.
    #[allow(dead_code, reason = "the tests of bad input share this file")]
    pub fn restart_with(&mut self, settings: &[&str]) {
        self.settings.extend(settings.iter().map(|setting| setting.to_string()));
        self.restart();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone after `kill` or `stop`: then there is nothing to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
