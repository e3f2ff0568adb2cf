//! Shared file: a handle of an open file that outlives its place in the ring's table, and a run of it.
//!
//! Owns:     the descriptor, with the ring that opened it. Another shard may send from it.
//! Never:    waits for the disk, but in `send_file`.

use std::sync::Arc;

use super::kernel::CachedDescriptor;
use super::sim::SimInode;

/// Of a file opened with `OpenMode::Cached`; the bytes stay readable while a handle is held.
#[derive(Clone, Debug)]
pub struct SharedFile(pub(in crate::ring) SharedFileKind);

#[derive(Clone, Debug)]
pub(in crate::ring) enum SharedFileKind {
    Kernel(Arc<CachedDescriptor>),
    Sim(Arc<SimInode>),
}

/// A run of a file's bytes, to be sent from the page cache.
#[derive(Clone, Debug)]
pub struct FilePiece {
    pub file: SharedFile,
    pub position: u64,
    pub bytes: usize,
}

impl SharedFile {
    /// Copies bytes from `position` on as far as the page cache has them at once; returns how many. The
    /// simulated cache never has any.
    pub fn peek(&self, position: u64, out: &mut [u8]) -> usize {
        match &self.0 {
            SharedFileKind::Kernel(file) => file.peek(position, out),
            SharedFileKind::Sim(_) => 0,
        }
    }
}

impl FilePiece {
    /// The page cache has it: sending it doesn't wait for the disk. Asks about one page in so many,
    /// and says no when the cache is busy.
    pub fn is_resident(&self) -> bool {
        match &self.file.0 {
            SharedFileKind::Kernel(file) => file.is_resident(self.position, self.bytes),
            SharedFileKind::Sim(file) => file.is_resident(),
        }
    }
}
