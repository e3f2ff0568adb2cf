//! Directory: the layout of a log directory and its format version.

use std::path::{Path, PathBuf};

use super::disk::{Disk, failed};
use super::format::{BLOCK_BYTES, VERSION};
use super::options::LaneError;
use crate::base::ids::LaneId;
use crate::ring::{IoBuffer, IoError, OpenMode, Ring};

/// `<log dir>/format`: one line of text, this prefix and the version.
const FORMAT_FILE: &str = "format";
const FORMAT_PREFIX: &str = "corelane log directory, format version ";

/// Makes what is missing of a log directory's layout, durably, and checks its format version.
///
/// Errors: `NewerVersion` where a newer program wrote it; `Damaged` where lanes are there and the
///         version isn't; `Io`.
pub fn prepare_dir(ring: &mut Ring, dir: &Path, owner: u8) -> Result<(), LaneError> {
    let mut disk = Disk::new(ring, owner);
    make_dirs(&mut disk, dir)?;
    let lanes = dir.join("lanes");
    let path = dir.join(FORMAT_FILE);
    let version = read_version(&mut disk, &path)?;
    if let Some(version) = version {
        if version > VERSION {
            return Err(LaneError::NewerVersion {
                what: format!("log directory {}", dir.display()),
                version,
            });
        }
    } else {
        // The version is durable before the first lane is made.
        if disk.ring.list_dir(&lanes).is_ok_and(|entries| !entries.is_empty()) {
            let what = format!("{} holds lanes but {} tells no version", dir.display(), path.display());
            return Err(LaneError::Damaged { what });
        }
        let line = format!("{FORMAT_PREFIX}{VERSION}\n");
        let mut buffer = IoBuffer::new(BLOCK_BYTES);
        buffer[..line.len()].copy_from_slice(line.as_bytes());
        disk.write_file(&path, buffer, Some(line.len() as u64))?;
        disk.flush_dir(dir)?;
    }
    disk.make_dir(&lanes)?;
    disk.flush_dir(dir)
}

/// Makes `dir` and those of its parents that are missing.
fn make_dirs(disk: &mut Disk<'_>, dir: &Path) -> Result<(), LaneError> {
    if disk.ring.list_dir(dir).is_ok() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dirs(disk, parent)?;
    }
    disk.make_dir(dir)?;
    disk.flush_dir(parent.unwrap_or(Path::new(".")))
}

fn read_version(disk: &mut Disk<'_>, path: &Path) -> Result<Option<u16>, LaneError> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(IoError::NotFound) => return Ok(None),
        Err(error) => return Err(failed("opening", path, error)),
    };
    let bytes = disk.read_all(file, BLOCK_BYTES as u64).map_err(|error| failed("reading", path, error))?;
    disk.ring.close(file);
    let text = String::from_utf8_lossy(&bytes);
    let number = text.lines().next().and_then(|line| line.strip_prefix(FORMAT_PREFIX));
    Ok(number.and_then(|number| number.trim().parse().ok()))
}

/// The lanes of a log directory, in order.
pub fn list_lanes(ring: &mut Ring, dir: &Path) -> Result<Vec<LaneId>, LaneError> {
    let lanes = dir.join("lanes");
    let entries = ring.list_dir(&lanes).map_err(|error| failed("listing", &lanes, error))?;
    let mut ids: Vec<_> = entries
        .iter()
        .filter(|entry| entry.is_dir)
        .filter_map(|entry| entry.name.parse().ok().map(LaneId))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

pub(super) fn lane_dir(dir: &Path, lane: LaneId) -> PathBuf {
    dir.join("lanes").join(lane.0.to_string())
}
