//! Receive buffers: memory the kernel picks from when bytes arrive, and nothing before.
//!
//! Owns:     the ring of free buffers that is shared with the kernel, and the buffers.
//! Promises: bytes of a run don't change until the run is given back.
//! Never:    allocates after it was made. Pages are committed as bytes arrive.
//!
//! Where the kernel can (Linux 6.12), it fills a buffer piece by piece, for several sockets, and
//! lets go of it when it is full; small requests then share a buffer:
//!
//! ```text
//!   buffer 3   |run of socket 8|run of 2|run of 8 |......free......|
//!              0                        used
//! ```
//!
//! A buffer goes back to the kernel when the kernel let go of it and every run was given back.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

use super::Entry;
use crate::ring::buffer::{ALIGNMENT_BYTES, IoBuffer};
use crate::ring::{ReceivedBytes, RingOptions};

/// The one buffer group of the ring.
pub(super) const GROUP: u16 = 0;

/// IOU_PBUF_RING_INC: fill buffers piece by piece.
const PIECE_BY_PIECE: u16 = 2;

/// The kernel's limit for a buffer ring.
const BUFFERS_COUNT_MAX: u16 = 1 << 15;

pub(super) struct ReceiveBuffers {
    /// The free list, shared with the kernel: `buffers.len()` entries.
    free: IoBuffer,
    memory: IoBuffer,
    buffer_bytes: u32,
    buffers: Vec<Buffer>,
    tail: u16,
    /// The kernel fills them piece by piece (Linux 6.12).
    pub(super) piece_by_piece: bool,
}

#[derive(Clone, Copy, Default)]
struct Buffer {
    used_bytes: u32,
    /// Runs delivered and not given back.
    runs_count: u32,
    /// The kernel puts no more bytes into it.
    let_go: bool,
}

impl ReceiveBuffers {
    /// Makes and registers the buffers; `receive_buffers_count` is rounded up to a power of two.
    pub(super) fn new(ring: &IoUring, options: &RingOptions, piece_by_piece: bool) -> io::Result<Self> {
        assert!((1..=BUFFERS_COUNT_MAX).contains(&options.receive_buffers_count));
        assert!(options.receive_buffer_bytes > 0);
        let count = options.receive_buffers_count.next_power_of_two();
        let entries_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let memory_bytes = usize::from(count) * options.receive_buffer_bytes as usize;
        let mut this = Self {
            free: IoBuffer::new(entries_bytes.next_multiple_of(ALIGNMENT_BYTES)),
            memory: IoBuffer::new(memory_bytes.next_multiple_of(ALIGNMENT_BYTES)),
            buffer_bytes: options.receive_buffer_bytes,
            buffers: vec![Buffer::default(); usize::from(count)],
            tail: 0,
            piece_by_piece: false,
        };
        this.piece_by_piece = this.register(ring, count, piece_by_piece)?;
        for id in 0..count {
            this.provide(id);
        }
        Ok(this)
    }

    /// Whether they are filled piece by piece, which was asked for.
    fn register(&mut self, ring: &IoUring, count: u16, piece_by_piece: bool) -> io::Result<bool> {
        let address = self.free.as_ptr() as u64;
        let register = |flags| {
            // SAFETY: the memory is page-aligned, holds `count` entries, and lives as long as this
            // value, which the ring outlives nowhere: they are dropped together, the ring first.
            unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, flags) }
        };
        if !piece_by_piece {
            return register(0).map(|()| false);
        }
        match register(PIECE_BY_PIECE) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => register(0).map(|()| false),
            result => result.map(|()| true),
        }
    }

    /// Gives a whole buffer to the kernel.
    fn provide(&mut self, id: u16) {
        self.buffers[usize::from(id)] = Buffer::default();
        let index = usize::from(self.tail) & (self.buffers.len() - 1);
        let position = usize::from(id) * self.buffer_bytes as usize;
        let address = self.memory[position..].as_ptr() as u64;
        let entries: *mut BufRingEntry = self.free.as_mut_ptr().cast();
        // SAFETY: `index` is below the count of entries that `free` was sized for, and is aligned
        // for them; the kernel reads an entry only after the tail below passed it. The references
        // end before. Fields are set one by one: entry 0 overlaps the tail.
        unsafe {
            let entry = &mut *entries.add(index);
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` points to the first entry, in whose reserved field the tail lies; it is
        // 2-byte aligned there and only accessed atomically.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The run a completion names, if it names one. Counts a buffer the kernel let go of.
    pub(super) fn take(&mut self, entry: &Entry) -> Option<ReceivedBytes> {
        let buffer_id = cqueue::buffer_select(entry.flags)?;
        let bytes = u32::try_from(entry.result).unwrap_or(0);
        let buffer = &mut self.buffers[usize::from(buffer_id)];
        let position = buffer.used_bytes;
        buffer.used_bytes += bytes;
        assert!(buffer.used_bytes <= self.buffer_bytes, "the kernel keeps to the buffer");
        buffer.let_go = !cqueue::buffer_more(entry.flags);
        buffer.runs_count += 1;
        let run = ReceivedBytes { buffer_id, position, bytes };
        if bytes == 0 {
            // An end or error that picked a buffer and put nothing into it.
            self.give_back(run);
            return None;
        }
        Some(run)
    }

    pub(super) fn bytes(&self, run: &ReceivedBytes) -> &[u8] {
        let start = usize::from(run.buffer_id) * self.buffer_bytes as usize + run.position as usize;
        &self.memory[start..start + run.bytes as usize]
    }

    pub(super) fn give_back(&mut self, run: ReceivedBytes) {
        let buffer = &mut self.buffers[usize::from(run.buffer_id)];
        assert!(buffer.runs_count > 0, "a run is given back once");
        buffer.runs_count -= 1;
        if buffer.let_go && buffer.runs_count == 0 {
            self.provide(run.buffer_id);
        }
    }
}
