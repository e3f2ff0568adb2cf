//! Interop: unmodified clients and tools against the built binary.
//!
//! Each test has its own broker, port and folder. Clients are installed under `target/interop` from
//! their registries; what can't be installed is SKIPPED, loudly.

mod broker;
mod directories;
mod install;
mod java_tools;
mod kcat;
mod kill;
mod records;

use std::path::PathBuf;

/// A folder of the test's own on the disk the project is built on.
pub fn scratch(name: &str) -> PathBuf {
    let dir = install::root().join("scratch").join(format!("{name}-{}", std::process::id()));
    std::fs::remove_dir_all(&dir).ok();
    std::fs::create_dir_all(&dir).expect("a folder under target");
    dir
}
