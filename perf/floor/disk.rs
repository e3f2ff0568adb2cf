//! Disk: memory that the device may read and write, and the file, made and written before anything is measured.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

pub const BLOCK_BYTES: usize = 4096;
pub const MIB: usize = 1 << 20;

/// Whole pages of zeroes.
pub struct Region {
    start: *mut u8,
    bytes: usize,
}

impl Region {
    pub fn new(bytes: usize) -> io::Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), bytes })
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is as long and lives as long as `self`, which is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }

    /// For operations of the ring. Who writes there keeps what the device reads.
    pub fn at(&self, at: usize) -> *mut u8 {
        assert!(at < self.bytes);
        // SAFETY: inside the mapping.
        unsafe { self.start.add(at) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: nobody has the mapping but `self`.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

/// Opens the file past the page cache.
pub fn open_direct(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)
}

/// Makes the file of so many MiB, each as `fill` makes it, past the page cache or through it.
pub fn prepare(
    path: &Path,
    mib: usize,
    is_direct: bool,
    mut fill: impl FnMut(usize, &mut [u8]),
) -> io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, (mib * MIB) as i64)?;
    let file = if is_direct { open_direct(path)? } else { file };
    let mut region = Region::new(MIB)?;
    for index in 0..mib {
        fill(index, region.bytes());
        file.write_all_at(region.bytes(), (index * MIB) as u64)?;
    }
    file.sync_all()
}
