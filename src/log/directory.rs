//! Directory: the layout of a log directory and its format version.

use std::path::{Path, PathBuf};

use super::disk::{Disk, failed};
use super::format::{BLOCK_BYTES, VERSION};
use super::options::LaneError;
use crate::base::ids::{DirectoryId, LaneId};
use crate::ring::{IoBuffer, IoError, OpenMode, Ring};

/// `<log dir>/format`: two lines of text, these prefixes with the version and the directory's id.
const FORMAT_FILE: &str = "format";
const FORMAT_PREFIX: &str = "corelane log directory, format version ";
const ID_PREFIX: &str = "directory.id=";

/// Makes what is missing of a log directory's layout, durably, and checks its format version. The id
/// is drawn once, and says from then on which directory this is.
///
/// Errors: `NewerVersion` where a newer program wrote it; `Damaged` where lanes are there and the
///         version or the id isn't; `Io`.
pub fn prepare_dir(ring: &mut Ring, dir: &Path, owner: u8) -> Result<DirectoryId, LaneError> {
    let mut disk = Disk::new(ring, owner);
    make_dirs(&mut disk, dir)?;
    let lanes = dir.join("lanes");
    let path = dir.join(FORMAT_FILE);
    let text = read_format(&mut disk, &path)?;
    let known = text.as_deref().and_then(|text| Some((version_of(text)?, id_of(text))));
    if let Some((version, _)) = known.filter(|(version, _)| *version > VERSION) {
        return Err(LaneError::NewerVersion { what: format!("log directory {}", dir.display()), version });
    }
    let id = match known {
        Some((_, Some(id))) => id,
        _ if disk.ring.list_dir(&lanes).is_ok_and(|entries| !entries.is_empty()) => {
            let what =
                format!("{} holds lanes but {} tells no version and id", dir.display(), path.display());
            return Err(LaneError::Damaged { what });
        }
        // Version and id are durable before the first lane is made.
        _ => write_format(&mut disk, dir, &path)?,
    };
    disk.make_dir(&lanes)?;
    disk.flush_dir(dir)?;
    Ok(id)
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

fn read_format(disk: &mut Disk<'_>, path: &Path) -> Result<Option<String>, LaneError> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(IoError::NotFound) => return Ok(None),
        Err(error) => return Err(failed("opening", path, error)),
    };
    let bytes = disk.read_all(file, BLOCK_BYTES as u64).map_err(|error| failed("reading", path, error))?;
    disk.ring.close(file);
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn version_of(text: &str) -> Option<u16> {
    text.lines().next()?.strip_prefix(FORMAT_PREFIX)?.trim().parse().ok()
}

fn id_of(text: &str) -> Option<DirectoryId> {
    DirectoryId::from_hex(text.lines().nth(1)?.strip_prefix(ID_PREFIX)?.trim())
}

fn write_format(disk: &mut Disk<'_>, dir: &Path, path: &Path) -> Result<DirectoryId, LaneError> {
    let mut id = DirectoryId([0; 16]);
    disk.ring.entropy(&mut id.0);
    let text = format!("{FORMAT_PREFIX}{VERSION}\n{ID_PREFIX}{}\n", id.to_hex());
    let mut buffer = IoBuffer::new(BLOCK_BYTES);
    buffer[..text.len()].copy_from_slice(text.as_bytes());
    disk.write_file(path, buffer, Some(text.len() as u64))?;
    disk.flush_dir(dir)?;
    Ok(id)
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
