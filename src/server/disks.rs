//! Disks: measures the space of every log directory, now and then.
//!
//! Each directory has a thread of its own: asking a disk that hangs takes until it doesn't.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use crate::metrics::directory::DirectoryCells;

/// Often enough that producing goes on within a second after space came back.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Measures once, then again and again until the process ends.
pub fn watch(path: PathBuf, cells: &'static DirectoryCells) -> Result<(), String> {
    measure(&path, cells);
    let thread = std::thread::Builder::new().name("disk".into());
    let spawned = thread.spawn(move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            measure(&path, cells);
        }
    });
    spawned.map(drop).map_err(|error| format!("the thread that measures a disk can't be started: {error}"))
}

fn measure(path: &PathBuf, cells: &DirectoryCells) {
    // What can't be asked now is asked again; the shards find out by themselves when the disk is gone.
    let Ok(found) = statvfs(path) else { return };
    let unit = found.fragment_size();
    cells.set_space(found.blocks() * unit, found.blocks_available() * unit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_the_space_of_its_file_system() {
        let cells = DirectoryCells::leaked(None, String::new(), 1);
        assert_eq!(cells.space(), None);
        measure(&PathBuf::from("/no such directory"), cells);
        assert_eq!(cells.space(), None);
        let dir = tempfile::tempdir().expect("a folder");
        measure(&dir.path().to_path_buf(), cells);
        let space = cells.space().expect("measured");
        assert!(0 < space.usable_bytes && space.usable_bytes <= space.total_bytes);
        assert_eq!(space.measures_count, 1);
    }
}
