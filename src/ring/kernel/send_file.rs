//! Sending from the page cache: `sendfile(2)` by the shard's own thread, as far as the socket takes it.
//!
//! The ring has no such operation, and its splice always goes to a worker thread. The socket refuses to
//! block for the length of the call only: an operation of the ring on a socket that never blocks would
//! end with EAGAIN instead of waiting. All calls and all submissions are this thread's.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use io_uring::{opcode, types::Fd};
use nix::errno::Errno;

use super::{KernelRing, Operation, io_error};
use crate::metrics::tally::{Tally, called};
use crate::ring::shared_file::{FilePiece, SharedFile, SharedFileKind};
use crate::ring::{Completion, FileId, IoError, SocketId, Token};

/// Apart from each other as far as the kernel's smallest usual read-ahead.
const PROBE_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub struct CachedDescriptor(OwnedFd);

/// A piece on its way, and how far it is.
pub(super) struct SendingFile {
    token: Token,
    socket: SocketId,
    piece: FilePiece,
}

impl CachedDescriptor {
    pub fn is_resident(&self, position: u64, bytes: usize) -> bool {
        let end = position + bytes as u64;
        let probes = (position..end).step_by(PROBE_BYTES as usize).chain([end - 1]);
        probes.into_iter().all(|at| self.peek(at, &mut [0]) == 1)
    }

    pub fn peek(&self, position: u64, out: &mut [u8]) -> usize {
        called(Tally::CallPeek);
        let memory = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
        // SAFETY: the memory is borrowed for as long as the call takes.
        let read = unsafe {
            libc::preadv2(self.0.as_raw_fd(), &raw const memory, 1, position as i64, libc::RWF_NOWAIT)
        };
        usize::try_from(read).unwrap_or(0)
    }
}

impl KernelRing {
    /// `None` when no descriptor is left.
    pub fn share(&mut self, file: FileId) -> Option<SharedFile> {
        let descriptor = self.files.clone_descriptor(file).ok()?;
        Some(SharedFile(SharedFileKind::Kernel(Arc::new(CachedDescriptor(descriptor)))))
    }

    pub fn send_file(&mut self, token: Token, socket: SocketId, piece: FilePiece) {
        assert!(piece.bytes > 0, "a piece has bytes");
        self.begin_send(socket);
        self.send_file_on(SendingFile { token, socket, piece });
    }

    /// Sends on as far as the socket takes it, and waits for its room.
    fn send_file_on(&mut self, mut sending: SendingFile) {
        let id = sending.socket;
        let socket = self.socket(id).descriptor.as_raw_fd();
        match sending.send(socket) {
            Ok(true) => self.send_file_ended(sending, Ok(())),
            Ok(false) => {
                let entry = opcode::PollAdd::new(Fd(socket), libc::POLLOUT as u32).build();
                let key = self.submit(Operation::SendFile(sending), entry);
                self.socket(id).sending = Some(key);
            }
            Err(error) => self.send_file_ended(sending, Err(error)),
        }
    }

    /// The socket has room, or the wait for it ended otherwise.
    pub(super) fn send_file_woken(&mut self, sending: SendingFile, result: Result<u32, IoError>) {
        let state = self.socket(sending.socket);
        state.sending = None;
        if state.disconnected {
            return self.send_file_ended(sending, Err(IoError::Disconnected));
        }
        match result {
            Ok(_) | Err(IoError::Os(libc::EINTR | libc::EAGAIN)) => self.send_file_on(sending),
            Err(error) => self.send_file_ended(sending, Err(error)),
        }
    }

    fn send_file_ended(&mut self, sending: SendingFile, result: Result<(), IoError>) {
        let SendingFile { token, socket, .. } = sending;
        self.completions.push_back(Completion::Sent { socket, token, result, buffer: Vec::new() });
        self.close_socket_if_idle(socket);
    }
}

impl SendingFile {
    /// True once all is sent, false when the socket is full.
    fn send(&mut self, socket: RawFd) -> Result<bool, IoError> {
        let SharedFileKind::Kernel(file) = &self.piece.file.0 else {
            panic!("a file of the simulation isn't sent by the kernel");
        };
        set_blocking(socket, false)?;
        let result = loop {
            let mut position = self.piece.position as i64;
            called(Tally::CallSendFile);
            // SAFETY: both descriptors are open for the call, the position is this frame's.
            let sent =
                unsafe { libc::sendfile(socket, file.0.as_raw_fd(), &raw mut position, self.piece.bytes) };
            match sent {
                // The file is shorter than it was planned to be.
                0 => break Err(IoError::Short { transferred_bytes: 0 }),
                1.. => {
                    self.piece.position += sent as u64;
                    self.piece.bytes -= sent as usize;
                    if self.piece.bytes == 0 {
                        break Ok(true);
                    }
                }
                _ => match Errno::last() {
                    Errno::EAGAIN => break Ok(false),
                    Errno::EINTR => {}
                    errno => break Err(io_error(&errno.into())),
                },
            }
        };
        set_blocking(socket, true)?;
        result
    }
}

/// Sockets of the ring have no other status flag.
fn set_blocking(socket: RawFd, blocking: bool) -> Result<(), IoError> {
    let flags = if blocking { 0 } else { libc::O_NONBLOCK };
    called(Tally::CallFcntl);
    // SAFETY: passes no memory; the socket is open.
    match unsafe { libc::fcntl(socket, libc::F_SETFL, flags) } {
        0 => Ok(()),
        _ => Err(io_error(&Errno::last().into())),
    }
}
