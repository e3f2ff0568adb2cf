//! Data dir: the folder of one node, locked by one process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Held for the life of the process.
pub struct DataDir {
    pub path: PathBuf,
    _lock: Flock<File>,
}

impl DataDir {
    /// Makes the folder if needed and locks it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let meta = path.join("meta");
        std::fs::create_dir_all(&meta).map_err(|error| {
            format!("{} can't be made: {error}; choose another with --data", meta.display())
        })?;
        let lock_path = meta.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| format!("{} can't be opened: {error}", lock_path.display()))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, _)| {
            let mut owner = String::new();
            // The number is a help for the operator; without it the message says the same.
            file.read_to_string(&mut owner).ok();
            let owner = owner.trim();
            format!(
                "{} is in use by process {}; stop that one first, or choose another folder with --data",
                path.display(),
                if owner.is_empty() { "unknown" } else { owner }
            )
        })?;
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(|error| format!("{} can't be written: {error}", lock_path.display()))?;
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    pub fn meta(&self) -> PathBuf {
        self.path.join("meta")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_with_the_number_of_the_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = DataDir::open(dir.path()).expect("free");
        let refused = DataDir::open(dir.path()).err().expect("locked");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        DataDir::open(dir.path()).expect("free again");
    }
}
