//! Block memory: what a tail block keeps its bytes in.
//!
//! From a device block on it is aligned and counted, so that full blocks are written to their segment
//! as they are, while fetches read them.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::format::BLOCK_BYTES;
use crate::ring::{BufferPiece, IoBuffer};

pub(super) enum BlockMemory {
    Small(Box<[u8]>),
    Aligned(Arc<IoBuffer>),
}

impl BlockMemory {
    pub(super) fn new(bytes: usize) -> Self {
        if bytes < BLOCK_BYTES {
            Self::Small(vec![0; bytes].into_boxed_slice())
        } else {
            Self::Aligned(Arc::new(IoBuffer::new(bytes)))
        }
    }

    /// Where in it the byte of `position` goes, so that device blocks of file and memory coincide.
    pub(super) fn skip_bytes(&self, position: u64) -> usize {
        match self {
            Self::Small(_) => 0,
            Self::Aligned(_) => (position % BLOCK_BYTES as u64) as usize,
        }
    }

    /// Nobody else reads it, so it may be written.
    pub(super) fn is_unshared(&self) -> bool {
        match self {
            Self::Small(_) => true,
            Self::Aligned(buffer) => Arc::strong_count(buffer) == 1,
        }
    }

    /// Precondition: it is unshared.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Aligned(buffer) => Arc::get_mut(buffer).expect("what is being written to disk is full"),
        }
    }

    /// Whole device blocks, shared.
    pub(super) fn piece(&self, range: Range<usize>) -> Option<BufferPiece> {
        match self {
            Self::Small(_) => None,
            Self::Aligned(buffer) => Some(BufferPiece { buffer: buffer.clone(), range }),
        }
    }
}

impl Deref for BlockMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Aligned(buffer) => buffer,
        }
    }
}
