//! Probe: how the disk under a directory takes the journal's group writes.
//!
//! Owns:     one small file for as long as it runs.
//! Promises: measures the very operation a commit group is: one durable O_DIRECT write into a
//!           pre-written file, one in flight.
//! Never:    leaves its file behind when it ends without error. Blocks: for start-up and commands.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::statfs::statfs;

use super::buffer::ALIGNMENT_BYTES;
use super::{
    Completion, FileId, IoBuffer, IoError, OpenMode, Ring, RingError, RingOptions, Token, WriteMode,
};

const FILE_NAME: &str = "flush-probe.tmp";
const FILE_BYTES: usize = 1 << 20;
const TOKEN_OWNER: u8 = 0;

/// What a directory's filesystem does when a file is overwritten, by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Blocks stay where they are: pre-writing the journal pays.
    InPlace,
    /// btrfs, ZFS, bcachefs, F2FS: every write takes new blocks, so pre-writing gains nothing and
    /// every flush writes metadata.
    Elsewhere,
    /// tmpfs, ramfs: nothing outlives a power cut, whatever is flushed.
    Memory,
}

#[derive(Clone, Debug)]
pub struct FlushProbe {
    /// Microseconds of each group write, smallest first.
    pub sorted_us: Vec<u64>,
    /// O_DIRECT works here; without it every transfer is copied through the page cache.
    pub direct_io: bool,
    pub overwrite: Overwrite,
}

#[derive(Debug)]
pub enum ProbeError {
    Ring(RingError),
    /// The operation on the probe's file, and why it failed.
    Io {
        what: &'static str,
        path: PathBuf,
        error: IoError,
    },
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Io { what, path, error } => write!(f, "{what} {} failed: {error}", path.display()),
        }
    }
}

impl std::error::Error for ProbeError {}

impl FlushProbe {
    /// The value below which `percent` of the writes stayed.
    pub fn percentile_us(&self, percent: usize) -> u64 {
        assert!(percent <= 100);
        self.sorted_us[(self.sorted_us.len() - 1) * percent / 100]
    }
}

/// Writes `writes_count` groups of so many bytes into a pre-written file in `dir`, each durable before
/// the next, and times them. 64 take some tens of milliseconds on a good disk.
///
/// Precondition: `writes_count > 0`; `group_bytes` is whole blocks, at most 1 MiB; `dir` is there and writable.
pub fn flush_probe(dir: &Path, writes_count: usize, group_bytes: usize) -> Result<FlushProbe, ProbeError> {
    assert!(writes_count > 0);
    assert!(0 < group_bytes && group_bytes <= FILE_BYTES && group_bytes.is_multiple_of(ALIGNMENT_BYTES));
    let overwrite = overwrite_of(dir)?;
    let options = RingOptions {
        entries_count: 8,
        receive_buffers_count: 1,
        receive_buffer_bytes: ALIGNMENT_BYTES as u32,
        descriptors_max: 8,
        sleeps_outside: false,
    };
    let ring = Ring::kernel(&options).map_err(ProbeError::Ring)?;
    let mut probe = Probe { ring, path: dir.join(FILE_NAME) };
    match probe.remove() {
        Ok(()) | Err(ProbeError::Io { error: IoError::NotFound, .. }) => {}
        Err(error) => return Err(error),
    }
    let file = probe.create()?;
    let measured = probe.measure(file, writes_count, group_bytes);
    probe.ring.close(file);
    probe.remove()?;
    let mut sorted_us = measured?;
    sorted_us.sort_unstable();
    Ok(FlushProbe { sorted_us, direct_io: !probe.ring.direct_io_missing(), overwrite })
}

struct Probe {
    ring: Ring,
    path: PathBuf,
}

impl Probe {
    fn create(&mut self) -> Result<FileId, ProbeError> {
        let token = Token::new(TOKEN_OWNER, 0);
        self.ring.open(token, &self.path, OpenMode::CreateNew);
        match self.ring.wait(token) {
            Completion::Opened { result, .. } => result.map_err(|error| self.failed("creating", error)),
            other => unreachable!("an open completes as opened, not as {other:?}"),
        }
    }

    fn remove(&mut self) -> Result<(), ProbeError> {
        let token = Token::new(TOKEN_OWNER, 0);
        self.ring.remove_file(token, &self.path);
        match self.ring.wait(token) {
            Completion::Done { result, .. } => result.map_err(|error| self.failed("removing", error)),
            other => unreachable!("a removal completes as done, not as {other:?}"),
        }
    }

    fn measure(
        &mut self,
        file: FileId,
        writes_count: usize,
        group_bytes: usize,
    ) -> Result<Vec<u64>, ProbeError> {
        let mut buffer = self.write(file, 0, IoBuffer::new(FILE_BYTES), FILE_BYTES)?;
        let mut position = 0;
        let mut times_us = Vec::with_capacity(writes_count);
        for number in 0..writes_count {
            if position + group_bytes > FILE_BYTES {
                position = 0;
            }
            // Not the bytes that are there: a disk may notice.
            buffer[..group_bytes].fill(number as u8 | 1);
            let start = Instant::now();
            buffer = self.write(file, position as u64, buffer, group_bytes)?;
            times_us.push(start.elapsed().as_micros() as u64);
            position += group_bytes;
        }
        Ok(times_us)
    }

    fn write(
        &mut self,
        file: FileId,
        position: u64,
        buffer: IoBuffer,
        bytes: usize,
    ) -> Result<IoBuffer, ProbeError> {
        let token = Token::new(TOKEN_OWNER, 0);
        self.ring.write(token, file, position, buffer, 0..bytes, WriteMode::Durable);
        match self.ring.wait(token) {
            Completion::Transferred { result: Ok(()), buffer, .. } => Ok(buffer),
            Completion::Transferred { result: Err(error), .. } => Err(self.failed("writing", error)),
            other => unreachable!("a write completes as transferred, not as {other:?}"),
        }
    }

    fn failed(&self, what: &'static str, error: IoError) -> ProbeError {
        ProbeError::Io { what, path: self.path.clone(), error }
    }
}

fn overwrite_of(dir: &Path) -> Result<Overwrite, ProbeError> {
    // Magic numbers of filesystems, of <linux/magic.h> and the filesystems' own sources.
    const BTRFS: u32 = 0x9123_683e;
    const ZFS: u32 = 0x2fc1_2fc1;
    const BCACHEFS: u32 = 0xca45_1a4e;
    const F2FS: u32 = 0xf2f5_2010;
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    let found = statfs(dir).map_err(|errno| ProbeError::Io {
        what: "looking at the filesystem of",
        path: dir.into(),
        error: IoError::from_errno(errno as i32),
    })?;
    // The kernel's type is as wide as a word; the numbers have 32 bits.
    Ok(match found.filesystem_type().0 as u32 {
        BTRFS | ZFS | BCACHEFS | F2FS => Overwrite::Elsewhere,
        TMPFS | RAMFS => Overwrite::Memory,
        _ => Overwrite::InPlace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_times_every_write_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("the tests' machine has a directory for them");
        // What a probe that was killed leaves is no obstacle.
        std::fs::write(dir.path().join(FILE_NAME), b"left over").expect("the directory is writable");
        let probe = flush_probe(dir.path(), 300, 3 * ALIGNMENT_BYTES).expect("the disk takes writes");
        assert_eq!(probe.sorted_us.len(), 300);
        assert!(probe.sorted_us.is_sorted());
        assert!(probe.percentile_us(0) <= probe.percentile_us(50));
        assert_eq!(probe.percentile_us(100), probe.sorted_us[299]);
        assert_eq!(std::fs::read_dir(dir.path()).expect("the directory is there").count(), 0);
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let error =
            flush_probe(Path::new("/no such directory"), 1, ALIGNMENT_BYTES).expect_err("nothing is there");
        assert!(error.to_string().contains("/no such directory"), "{error}");
        assert!(matches!(error, ProbeError::Io { error: IoError::NotFound, .. }));
    }

    #[test]
    fn memory_is_told_from_disks() {
        assert_eq!(overwrite_of(Path::new("/dev/shm")).ok(), Some(Overwrite::Memory));
    }
}
