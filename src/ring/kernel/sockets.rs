//! Sockets: connections, their receivers and sends.
//!
//! A socket has at most one receiver armed (multishot, from the receive buffers; or into a buffer of the
//! caller's) and one send in flight. It is closed when it was disconnected and both have completed.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};
use nix::sys::socket::{Shutdown, SockaddrStorage, shutdown};

use super::listeners::{raw_address, stream_socket};
use super::receive_buffers::GROUP;
use super::{Entry, IGNORED, KernelRing, OPERATION, Operation, outcome};
use crate::base::slab::Key;
use crate::ring::{Completion, IoError, ReceivedBytes, SocketId, Token};

/// One submission of a send; more is sent in several. The kernel copies it within the submission, and on
/// loopback does the receiver's part, too: a larger one would hold everybody else up.
const SEND_BYTES_MAX: usize = 256 << 10;

pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    receiving: Option<Key>,
    /// `receive_stop` was called on the receiver that is armed.
    stopping: bool,
    pub(super) sending: Option<Key>,
    pub(super) disconnected: bool,
}

/// A connection attempt and the memory the kernel reads. Boxed: the kernel has its address.
pub(super) struct Connecting {
    descriptor: OwnedFd,
    address: SockaddrStorage,
}

/// A buffer that is filled up to `end`.
pub(super) struct Filling {
    socket: SocketId,
    buffer: Vec<u8>,
    end: usize,
}

/// A send, and how far it is.
pub(super) struct Sending {
    pub(super) token: Token,
    pub(super) socket: SocketId,
    pub(super) buffer: Vec<u8>,
    pub(super) position: usize,
}

impl Socket {
    /// The ring ends: nothing is armed again.
    pub(super) fn end(&mut self) {
        self.disconnected = true;
    }
}

impl KernelRing {
    pub(super) fn insert_socket(&mut self, descriptor: OwnedFd) -> SocketId {
        let socket =
            Socket { descriptor, receiving: None, stopping: false, sending: None, disconnected: false };
        SocketId(self.sockets.insert(socket).to_u56())
    }

    pub(super) fn socket(&mut self, socket: SocketId) -> &mut Socket {
        self.sockets.get_mut(Key::from_u56(socket.0)).expect("the caller holds an open socket")
    }

    pub fn connect(&mut self, token: Token, address: SocketAddr) {
        let descriptor = match stream_socket(address) {
            Ok(descriptor) => descriptor,
            Err(errno) => {
                let result = Err(IoError::from_errno(errno as i32));
                self.completions.push_back(Completion::Connected { token, result });
                return;
            }
        };
        let connecting = Box::new(Connecting { descriptor, address: address.into() });
        let (pointer, bytes) = raw_address(&connecting.address);
        let entry = opcode::Connect::new(Fd(connecting.descriptor.as_raw_fd()), pointer, bytes).build();
        self.submit(Operation::Connect { token, connecting }, entry);
    }

    pub(super) fn connected(&mut self, token: Token, connecting: Connecting, result: Result<u32, IoError>) {
        let result = result.map(|_| self.insert_socket(connecting.descriptor));
        self.completions.push_back(Completion::Connected { token, result });
    }

    // ---- Receiving ---------------------------------------------------------------------------

    /// Of a socket whose receiver is about to be armed.
    fn receiver_descriptor(&mut self, socket: SocketId) -> Fd {
        let state = self.socket(socket);
        assert!(state.receiving.is_none(), "one receiver is armed at a time");
        assert!(!state.disconnected, "a disconnected socket receives nothing");
        Fd(state.descriptor.as_raw_fd())
    }

    /// `stopping`: it ends without being asked to.
    fn arm_receiver(&mut self, socket: SocketId, operation: Operation, entry: squeue::Entry, stopping: bool) {
        let key = self.submit(operation, entry);
        let state = self.socket(socket);
        state.receiving = Some(key);
        state.stopping = stopping;
    }

    pub fn receive_start(&mut self, socket: SocketId) {
        let descriptor = self.receiver_descriptor(socket);
        let entry = opcode::RecvMulti::new(descriptor, GROUP).build();
        self.arm_receiver(socket, Operation::Receive { socket }, entry, false);
    }

    pub fn receive_once(&mut self, socket: SocketId, bytes: u32) {
        let descriptor = self.receiver_descriptor(socket);
        let entry = opcode::Recv::new(descriptor, std::ptr::null_mut(), bytes).buf_group(GROUP).build();
        let entry = entry.flags(squeue::Flags::BUFFER_SELECT);
        self.arm_receiver(socket, Operation::Receive { socket }, entry, true);
    }

    pub fn receive_into(&mut self, socket: SocketId, buffer: Vec<u8>, end: usize) {
        assert!(buffer.len() < end && end <= buffer.capacity(), "the buffer has room");
        self.submit_filling(Filling { socket, buffer, end });
    }

    fn submit_filling(&mut self, mut filling: Filling) {
        let socket = filling.socket;
        let descriptor = self.receiver_descriptor(socket);
        let bytes = filling.end - filling.buffer.len();
        let room = &mut filling.buffer.spare_capacity_mut()[..bytes];
        // With MSG_WAITALL the kernel goes on by itself after a part, in most cases.
        let entry = opcode::Recv::new(descriptor, room.as_mut_ptr().cast(), bytes as u32)
            .flags(libc::MSG_WAITALL)
            .build();
        self.arm_receiver(socket, Operation::ReceiveInto(filling), entry, false);
    }

    pub(super) fn receive_into_completed(&mut self, mut filling: Filling, result: Result<u32, IoError>) {
        let socket = filling.socket;
        let state = self.socket(socket);
        state.receiving = None;
        let disconnected = state.disconnected;
        let result = match result {
            Ok(0) => Err(IoError::Disconnected),
            Ok(bytes) => {
                let filled_bytes = filling.buffer.len() + bytes as usize;
                assert!(filled_bytes <= filling.end, "the kernel receives what there is room for");
                // SAFETY: the kernel has written so many bytes behind those that were there, and there is room
                // for `end`.
                unsafe { filling.buffer.set_len(filled_bytes) };
                Ok(())
            }
            Err(IoError::Os(libc::EINTR | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(error),
        };
        let result = if disconnected { Err(IoError::Disconnected) } else { result };
        if result.is_ok() && filling.buffer.len() < filling.end {
            self.submit_filling(filling);
            return;
        }
        let buffer = filling.buffer;
        self.completions.push_back(Completion::Filled { socket, result, buffer });
        self.close_socket_if_idle(socket);
    }

    pub fn receive_stop(&mut self, socket: SocketId) {
        let state = self.socket(socket);
        if let Some(key) = state.receiving {
            state.stopping = true;
            self.cancel(key);
        }
    }

    fn cancel(&mut self, key: Key) {
        let operation = CancelBuilder::user_data(OPERATION | key.to_u56());
        self.push(opcode::AsyncCancel2::new(operation).build().user_data(IGNORED));
    }

    pub fn received(&self, bytes: &ReceivedBytes) -> &[u8] {
        self.receive_buffers.bytes(bytes)
    }

    pub fn received_done(&mut self, bytes: ReceivedBytes) {
        self.receive_buffers.give_back(bytes);
    }

    /// One completion of a receiver: bytes, or its end, or both.
    pub(super) fn receive_completed(&mut self, socket: SocketId, entry: &Entry) {
        let run = self.receive_buffers.take(entry);
        let state = self.sockets.get_mut(Key::from_u56(socket.0)).expect("kept while a receiver is armed");
        let (stopping, disconnected) = (state.stopping, state.disconnected);
        let armed = cqueue::more(entry.flags);
        let key = if armed { state.receiving } else { state.receiving.take() };
        match run {
            Some(bytes) if disconnected => self.receive_buffers.give_back(bytes),
            Some(bytes) => self.completions.push_back(Completion::Received { socket, bytes }),
            None => {}
        }
        match (armed, key) {
            // The cancellation missed it: it was running just then.
            (true, Some(key)) if stopping || disconnected => self.cancel(key),
            (true, _) => {}
            (false, _) => self.receiver_finished(socket, stopping, disconnected, outcome(entry.result)),
        }
    }

    fn receiver_finished(
        &mut self,
        socket: SocketId,
        stopping: bool,
        disconnected: bool,
        result: Result<u32, IoError>,
    ) {
        let completion = match result {
            Ok(0) => Completion::ReceiveEnded { socket, result: Ok(()) },
            _ if disconnected => Completion::ReceiveEnded { socket, result: Err(IoError::Disconnected) },
            // Stopped, and the last bytes came on the way.
            Ok(_) | Err(IoError::Os(libc::EINTR | libc::EAGAIN)) if stopping => {
                Completion::ReceiveStopped { socket }
            }
            // The kernel ends a receiver when its completion queue overflows: go on.
            Ok(_) | Err(IoError::Os(libc::EINTR | libc::EAGAIN)) => {
                self.receive_start(socket);
                return;
            }
            Err(IoError::Os(libc::ECANCELED | libc::ENOBUFS)) => Completion::ReceiveStopped { socket },
            Err(error) => Completion::ReceiveEnded { socket, result: Err(error) },
        };
        self.completions.push_back(completion);
        self.close_socket_if_idle(socket);
    }

    // ---- Sending -----------------------------------------------------------------------------

    pub(super) fn begin_send(&mut self, socket: SocketId) {
        let state = self.socket(socket);
        assert!(state.sending.is_none(), "one send is in flight at a time");
        assert!(!state.disconnected, "a disconnected socket sends nothing");
    }

    pub fn send(&mut self, token: Token, socket: SocketId, buffer: Vec<u8>, from: usize) {
        assert!(from <= buffer.len());
        self.begin_send(socket);
        if from == buffer.len() {
            self.completions.push_back(Completion::Sent { socket, token, result: Ok(()), buffer });
            return;
        }
        self.submit_send(Sending { token, socket, buffer, position: from });
    }

    fn submit_send(&mut self, sending: Sending) {
        let socket = sending.socket;
        let descriptor = Fd(self.socket(socket).descriptor.as_raw_fd());
        let rest = &sending.buffer[sending.position..];
        let bytes = rest.len().min(SEND_BYTES_MAX) as u32;
        // With MSG_WAITALL the kernel goes on by itself after a part, in most cases.
        let entry = opcode::Send::new(descriptor, rest.as_ptr(), bytes)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        let key = self.submit(Operation::Send(sending), entry);
        self.socket(socket).sending = Some(key);
    }

    pub(super) fn send_completed(&mut self, mut sending: Sending, result: Result<u32, IoError>) {
        let socket = sending.socket;
        let state = self.socket(socket);
        state.sending = None;
        let disconnected = state.disconnected;
        let result = match result {
            Ok(bytes) => {
                sending.position += bytes as usize;
                assert!(sending.position <= sending.buffer.len(), "the kernel sends what it was given");
                Ok(())
            }
            Err(IoError::Os(libc::EINTR | libc::EAGAIN)) => Ok(()),
            Err(IoError::Os(libc::ECANCELED)) if disconnected => Err(IoError::Disconnected),
            Err(error) => Err(error),
        };
        let rest_bytes = sending.buffer.len() - sending.position;
        let result = if disconnected && rest_bytes > 0 { Err(IoError::Disconnected) } else { result };
        if result.is_ok() && rest_bytes > 0 {
            self.submit_send(sending);
            return;
        }
        let Sending { token, buffer, .. } = sending;
        self.completions.push_back(Completion::Sent { socket, token, result, buffer });
        self.close_socket_if_idle(socket);
    }

    // ---- Ending ------------------------------------------------------------------------------

    pub fn disconnect(&mut self, socket: SocketId) {
        let state = self.socket(socket);
        assert!(!state.disconnected, "a socket is disconnected once");
        state.disconnected = true;
        let (receiving, sending) = (state.receiving, state.sending);
        // Fails only when the peer has ended the connection already.
        shutdown(state.descriptor.as_raw_fd(), Shutdown::Both).ok();
        for key in [receiving, sending].into_iter().flatten() {
            self.cancel(key);
        }
        self.close_socket_if_idle(socket);
    }

    pub(super) fn close_socket_if_idle(&mut self, socket: SocketId) {
        let state = self.socket(socket);
        if !state.disconnected || state.receiving.is_some() || state.sending.is_some() {
            return;
        }
        let state = self.sockets.remove(Key::from_u56(socket.0)).expect("looked up just now");
        let entry = opcode::Close::new(Fd(state.descriptor.into_raw_fd())).build();
        self.push(entry.user_data(IGNORED));
    }
}
