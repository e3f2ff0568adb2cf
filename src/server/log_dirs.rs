//! Log dirs: the log directories as they are found at start, each locked by one process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::disks;
use crate::base::ids::LaneId;
use crate::catalog::Catalog;
use crate::catalog::directories::{DirectoryRefusal, FoundDirectory};
use crate::log;
use crate::metrics::directory::DirectoryCells;
use crate::ring::{Ring, RingOptions};

/// Keeps other processes out of a log directory for as long as it is held.
pub struct DirLock {
    _lock: Flock<File>,
}

impl DirLock {
    /// Makes the directory if needed and locks it.
    pub fn take(dir: &Path) -> Result<Self, String> {
        make_dir(dir).map_err(|error| format!("{} can't be made: {error}", dir.display()))?;
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| format!("{} can't be opened: {error}", path.display()))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, _)| {
            let mut owner = String::new();
            // The number is a help for the operator; without it the message says the same.
            file.read_to_string(&mut owner).ok();
            let owner = owner.trim();
            format!(
                "{} is in use by process {}; stop that one first, or choose another folder with --data",
                dir.display(),
                if owner.is_empty() { "unknown" } else { owner }
            )
        })?;
        // Not needed for the lock, which a full disk must not prevent.
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "the process's number can't be noted");
        }
        Ok(Self { _lock: lock })
    }
}

/// Makes a directory and its parents, each durable in its parent before anything is in it.
fn make_dir(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), make_dir)?;
    std::fs::create_dir(dir)?;
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// A log directory at start.
struct LogDir {
    path: PathBuf,
    /// What is in it, or why it isn't used.
    found: Result<FoundDirectory, String>,
    _lock: Option<DirLock>,
}

/// The log directories in the order of the configuration.
pub struct LogDirs {
    dirs: Vec<LogDir>,
}

/// A lane and the directory it lies in.
#[derive(Clone, Debug)]
pub struct PlacedLane {
    pub lane: LaneId,
    pub dir: PathBuf,
}

/// Owner of the tokens of a ring that looks through the directories before any shard exists.
const TOKEN_OWNER: u8 = 1;

impl LogDirs {
    /// Locks and looks through every directory. Only the first one, which holds the metadata, must be
    /// there.
    pub fn open(paths: &[PathBuf]) -> Result<Self, String> {
        let options =
            RingOptions { receive_buffers_count: 1, receive_buffer_bytes: 4096, ..RingOptions::default() };
        let mut ring = Ring::kernel(&options).map_err(|error| error.to_string())?;
        let dirs = Self { dirs: paths.iter().map(|path| open(&mut ring, path)).collect() };
        dirs.check_first()?;
        make_dir(&dirs.meta())
            .map_err(|error| format!("{} can't be made: {error}", dirs.meta().display()))?;
        Ok(dirs)
    }

    fn check_first(&self) -> Result<(), String> {
        match &self.dirs[0].found {
            Err(why) => Err(format!(
                "the first log directory holds the metadata, without which nothing can be served, and can't be \
                 used: {why}"
            )),
            Ok(_) => Ok(()),
        }
    }

    /// The folder of the metadata.
    pub fn meta(&self) -> PathBuf {
        self.dirs[0].path.join("meta")
    }

    /// Those that are there.
    pub fn found(&self) -> Vec<FoundDirectory> {
        self.dirs.iter().filter_map(|dir| dir.found.as_ref().ok().cloned()).collect()
    }

    /// Those of [`LogDirs::found`] that the metadata refuses, by their place there.
    pub fn refuse(&mut self, refused: Vec<(usize, DirectoryRefusal)>) -> Result<(), String> {
        let found: Vec<usize> =
            (0..self.dirs.len()).filter(|index| self.dirs[*index].found.is_ok()).collect();
        for (index, why) in refused {
            let dir = &mut self.dirs[found[index]];
            dir.found = Err(format!("{}: {why}", dir.path.display()));
        }
        self.check_first()
    }

    /// Every lane that is there, or is to be made.
    pub fn lanes(&self, catalog: &Catalog) -> Vec<PlacedLane> {
        let mut lanes = Vec::new();
        for dir in &self.dirs {
            let Ok(found) = &dir.found else { continue };
            let known = catalog.directories.get(found.id).expect("its record was committed");
            lanes.extend(known.lanes.iter().map(|lane| PlacedLane { lane: *lane, dir: dir.path.clone() }));
        }
        lanes.sort_unstable_by_key(|placed| placed.lane);
        lanes
    }

    /// Lanes that couldn't be recovered take their directories along. Tells of every directory that
    /// isn't used; an error when none is left.
    pub fn fail(&mut self, failed: Vec<(PlacedLane, String)>) -> Result<(), String> {
        for (placed, why) in failed {
            let dir = self.dirs.iter_mut().find(|dir| dir.path == placed.dir).expect("it has lanes");
            if dir.found.is_ok() {
                dir.found = Err(format!("{}: lane {}: {why}", dir.path.display(), placed.lane.0));
            }
        }
        let failures: Vec<&String> = self.dirs.iter().filter_map(|dir| dir.found.as_ref().err()).collect();
        if failures.len() == self.dirs.len() {
            let all: Vec<&str> = failures.iter().map(|why| why.as_str()).collect();
            return Err(format!("no log directory can be used: {}", all.join("; ")));
        }
        for why in failures {
            tracing::error!(
                why,
                "a log directory is offline, and so are its partitions; others go on; repair it, then restart"
            );
        }
        Ok(())
    }

    /// Cells for every directory; the space of those in use is measured from now on.
    pub fn watch(&self, shards_count: usize) -> Result<Vec<&'static DirectoryCells>, String> {
        let mut watched = Vec::new();
        for dir in &self.dirs {
            let id = dir.found.as_ref().ok().map(|found| found.id);
            let cells = DirectoryCells::leaked(id, dir.path.display().to_string(), shards_count);
            match id {
                Some(_) => disks::watch(dir.path.clone(), cells)?,
                None => cells.set_failed(0),
            }
            watched.push(cells);
        }
        Ok(watched)
    }
}

fn open(ring: &mut Ring, path: &Path) -> LogDir {
    match DirLock::take(path) {
        Ok(lock) => LogDir { path: path.to_path_buf(), found: look(ring, path), _lock: Some(lock) },
        Err(why) => LogDir { path: path.to_path_buf(), found: Err(why), _lock: None },
    }
}

fn look(ring: &mut Ring, path: &Path) -> Result<FoundDirectory, String> {
    let id = log::prepare_dir(ring, path, TOKEN_OWNER).map_err(|error| error.to_string())?;
    let lanes = log::list_lanes(ring, path).map_err(|error| error.to_string())?;
    // Whatever way the configuration writes it: it is the same directory at the next start.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    Ok(FoundDirectory { id, path: path.display().to_string(), lanes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_with_the_number_of_the_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = DirLock::take(dir.path()).expect("free");
        let refused = DirLock::take(dir.path()).err().expect("locked");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        DirLock::take(dir.path()).expect("free again");
    }

    fn open_all(paths: &[PathBuf]) -> Result<LogDirs, String> {
        LogDirs::open(paths)
    }

    #[test]
    fn only_the_first_directory_must_be_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let (good, file) = (dir.path().join("a/b"), dir.path().join("file"));
        std::fs::write(&file, "not a directory").expect("writable");
        let mut dirs = open_all(&[good.clone(), file.join("below")]).expect("the first is there");
        assert_eq!(dirs.found().len(), 1);
        let why = dirs.dirs[1].found.as_ref().expect_err("a file is in the way");
        assert!(why.contains("below"), "{why}");
        dirs.fail(Vec::new()).expect("one is enough");
        let placed = PlacedLane { lane: LaneId(3), dir: good.clone() };
        let none = dirs.fail(vec![(placed, "damaged".into())]).expect_err("the last one failed, too");
        assert!(none.contains("lane 3: damaged") && none.contains("below"), "{none}");
        drop(dirs);
        let refused = open_all(&[file, good]).err().expect("the first isn't there");
        assert!(refused.contains("metadata") && refused.contains("file"), "{refused}");
    }

    #[test]
    fn a_directory_keeps_its_id() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || open_all(&[dir.path().to_path_buf()]);
        let id = || open().expect("opens").found()[0].id;
        let format = dir.path().join("format");
        let first = id();
        assert_eq!(id(), first);
        std::fs::write(&format, "corelane log directory, format version 1\n").expect("writable");
        assert_ne!(id(), first, "nothing is in it yet: it gets a new one");
        std::fs::create_dir(dir.path().join("lanes/0")).expect("writable");
        id();
        std::fs::write(&format, "damaged").expect("writable");
        assert!(open().is_err_and(|why| why.contains("tells no version and id")));
    }
}
