//! Buffer: memory that direct I/O accepts, owned by one side at a time.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Alignment of position, length and memory of every read and write. 4 KiB is the physical sector
/// of current disks and a multiple of every logical one.
pub const ALIGNMENT_BYTES: usize = 4096;

/// From this size on a buffer is mapped by itself: an allocator may clear aligned memory by writing
/// to it, which commits pages nobody needs yet.
const MAPPED_BYTES_MIN: usize = 128 * 1024;

/// Zeroed memory aligned to [`ALIGNMENT_BYTES`], whose length is a multiple of it. From 128 KiB on,
/// pages are committed by the kernel as they are first touched.
pub struct IoBuffer {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: IoBuffer owns its memory alone, so moving it to another thread moves the only access.
unsafe impl Send for IoBuffer {}
// SAFETY: a shared IoBuffer is only read.
unsafe impl Sync for IoBuffer {}

/// Bytes of a buffer that are written to a file while others read them.
#[derive(Clone, Debug)]
pub struct BufferPiece {
    pub buffer: Arc<IoBuffer>,
    pub range: Range<usize>,
}

impl BufferPiece {
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

impl IoBuffer {
    /// Precondition: `bytes` is a positive multiple of the alignment.
    pub fn new(bytes: usize) -> Self {
        assert!(bytes > 0);
        assert!(bytes.is_multiple_of(ALIGNMENT_BYTES));
        if bytes >= MAPPED_BYTES_MIN {
            return Self { memory: Self::map(bytes), bytes };
        }
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not zero, asserted above.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { memory, bytes }
    }

    fn map(bytes: usize) -> NonNull<u8> {
        let length = NonZeroUsize::new(bytes).expect("asserted by the caller");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping without a fixed address touches no memory in use.
        let memory = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) };
        match memory {
            Ok(memory) => memory.cast(),
            Err(_) => handle_alloc_error(Self::layout(bytes)),
        }
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, ALIGNMENT_BYTES).expect("size is far below isize::MAX")
    }
}

impl Drop for IoBuffer {
    fn drop(&mut self) {
        if self.bytes >= MAPPED_BYTES_MIN {
            // SAFETY: `memory` is the start of a mapping of `bytes` made in `new`, ended only here.
            unsafe { munmap(self.memory.cast::<c_void>(), self.bytes) }
                .expect("a whole mapping can be ended");
            return;
        }
        // SAFETY: `memory` was allocated in `new` with this very layout and is freed only here.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.bytes)) }
    }
}

impl Deref for IoBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` points to `bytes` initialised bytes that this value owns.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.bytes) }
    }
}

impl DerefMut for IoBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the exclusive borrow of `self` makes it the only access.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.bytes) }
    }
}

impl std::fmt::Debug for IoBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoBuffer({} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_either_kind_is_zeroed_aligned_and_writable() {
        for bytes in [ALIGNMENT_BYTES, MAPPED_BYTES_MIN - ALIGNMENT_BYTES, MAPPED_BYTES_MIN, 1 << 22] {
            let mut buffer = IoBuffer::new(bytes);
            assert_eq!(buffer.len(), bytes);
            assert!(buffer.as_ptr().addr().is_multiple_of(ALIGNMENT_BYTES));
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            assert_eq!(buffer[bytes - 1], 7);
        }
    }
}
