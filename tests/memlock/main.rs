//! A broker with hardly any lockable memory, as an unprivileged user: it serves with the 64 KiB that many
//! hosts give, and with none it says which limit is short and what to do.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const NOBODY: u32 = 65_534;

/// The broker in `dir`, limited; root is exempt from the limit and becomes somebody else.
fn broker(dir: &Path, memlock_bytes: u64) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--memlock={memlock_bytes}:{memlock_bytes}")).arg(dir.join("corelane"));
    command.args(["start", "--listen", "127.0.0.1:0", "--set", "admin.listener=", "--set", "cores=unpinned"]);
    command.args(["--set", "journal.bytes=16777216", "--data"]).arg(dir.join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// A folder, with the binary, that anybody may use.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let binary = dir.path().join("corelane");
    std::fs::copy(env!("CARGO_BIN_EXE_corelane"), &binary).expect("the binary was built with the tests");
    for (path, mode) in [(dir.path(), 0o777), (&binary, 0o755)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("they are ours");
    }
    dir
}

#[test]
fn little_lockable_memory_is_enough_and_none_is_told() {
    if let Err(error) = Command::new("prlimit").arg("--version").output() {
        println!("SKIPPED little_lockable_memory_is_enough_and_none_is_told: prlimit isn't there: {error}");
        return;
    }
    let dir = open_dir();
    let mut child = broker(dir.path(), 64 << 10).spawn().expect("prlimit runs");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut said).expect("its output");
    child.kill().expect("a child of ours");
    let output = child.wait_with_output().expect("a child of ours");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("serves the Kafka protocol"), "{said}{log}");

    let output = broker(dir.path(), 0).output().expect("prlimit runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{log}");
    assert!(log.contains("RLIMIT_MEMLOCK, which is 0 now") && log.contains("LimitMEMLOCK="), "{log}");
}
