//! Listeners: sockets that accept until they are stopped.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, setsockopt, sockopt,
};

use super::{Entry, IGNORED, KernelRing, OPERATION, Operation};
use crate::base::ids::MonotonicNs;
use crate::base::slab::Key;
use crate::ring::{Completion, IoError, ListenerId};

/// Connections the kernel completes before they are accepted.
const BACKLOG_COUNT: i32 = 1024;

/// Without a free descriptor accepting fails at once, over and over: pause before the next try.
const ACCEPT_PAUSE_MS: u64 = 100;

pub(super) struct Listener {
    /// None once it was stopped and nothing is in flight.
    descriptor: Option<OwnedFd>,
    accepting: Option<Key>,
    stopped: bool,
    retry_at: Option<MonotonicNs>,
}

impl Listener {
    /// The ring ends: nothing is armed again.
    pub(super) fn end(&mut self) {
        self.stopped = true;
        self.retry_at = None;
    }
}

impl KernelRing {
    pub fn listen(&mut self, address: SocketAddr) -> Result<(ListenerId, SocketAddr), IoError> {
        let (descriptor, bound) = bound_socket(address).map_err(|errno| IoError::from_errno(errno as i32))?;
        let listener = ListenerId(self.listeners.len() as u32);
        let descriptor = Some(descriptor);
        self.listeners.push(Listener { descriptor, accepting: None, stopped: false, retry_at: None });
        self.arm_accept(listener);
        Ok((listener, bound))
    }

    pub fn listen_stop(&mut self, listener: ListenerId) {
        let state = &mut self.listeners[listener.0 as usize];
        assert!(!state.stopped, "a listener is stopped once");
        state.stopped = true;
        state.retry_at = None;
        match state.accepting {
            Some(key) => {
                let accept = CancelBuilder::user_data(OPERATION | key.to_u56());
                self.push(opcode::AsyncCancel2::new(accept).build().user_data(IGNORED));
            }
            None => state.descriptor = None,
        }
    }

    fn arm_accept(&mut self, listener: ListenerId) {
        let state = &mut self.listeners[listener.0 as usize];
        let descriptor = state.descriptor.as_ref().expect("an accepting listener is open").as_raw_fd();
        let entry = opcode::AcceptMulti::new(Fd(descriptor)).flags(libc::SOCK_CLOEXEC).build();
        let key = self.submit(Operation::Accept { listener }, entry);
        self.listeners[listener.0 as usize].accepting = Some(key);
    }

    /// Arms again what was paused, and says when the next pause ends.
    pub(super) fn rearm_listeners(&mut self) -> Option<MonotonicNs> {
        for index in 0..self.listeners.len() {
            if self.listeners[index].retry_at.is_some_and(|at| at <= self.now) {
                self.listeners[index].retry_at = None;
                self.arm_accept(ListenerId(index as u32));
            }
        }
        self.listeners.iter().filter_map(|listener| listener.retry_at).min()
    }

    pub(super) fn accepted(&mut self, listener: ListenerId, entry: &Entry) {
        let more = cqueue::more(entry.flags);
        let retry_at = self.now.plus_ms(ACCEPT_PAUSE_MS);
        let state = &mut self.listeners[listener.0 as usize];
        if !more {
            state.accepting = None;
        }
        let stopped = state.stopped;
        match super::outcome(entry.result) {
            Ok(descriptor) => {
                // SAFETY: the kernel accepted this descriptor for us just now; nothing else owns it.
                let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) };
                // A peer that is gone already has no name: nobody needs to hear of it.
                if let (false, Ok(peer)) = (stopped, peer_of(&descriptor)) {
                    let socket = self.insert_socket(descriptor);
                    self.completions.push_back(Completion::Accepted { listener, socket, peer });
                }
            }
            Err(_) if stopped => {}
            Err(error) if must_pause(error) => {
                self.completions.push_back(Completion::AcceptFailed { listener, error });
                state.retry_at = (!more).then_some(retry_at);
                return;
            }
            // The connection failed before it was accepted (ECONNABORTED and network errors).
            Err(_) => {}
        }
        if !more && stopped {
            self.listeners[listener.0 as usize].descriptor = None;
        } else if !more {
            self.arm_accept(listener);
        }
    }
}

fn must_pause(error: IoError) -> bool {
    matches!(
        error,
        IoError::NoDescriptors | IoError::Os(libc::ENOMEM | libc::ENOBUFS | libc::EINVAL | libc::EBADF)
    )
}

fn bound_socket(address: SocketAddr) -> nix::Result<(OwnedFd, SocketAddr)> {
    let descriptor = stream_socket(address)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    setsockopt(&descriptor, sockopt::ReusePort, &true)?;
    socket::bind(descriptor.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(&descriptor, Backlog::new(BACKLOG_COUNT)?)?;
    let bound = address_of(&socket::getsockname::<SockaddrStorage>(descriptor.as_raw_fd())?)?;
    Ok((descriptor, bound))
}

/// A TCP socket with TCP_NODELAY, which accepted sockets inherit from their listener.
pub(super) fn stream_socket(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&descriptor, sockopt::TcpNoDelay, &true)?;
    Ok(descriptor)
}

fn peer_of(descriptor: &OwnedFd) -> nix::Result<SocketAddr> {
    address_of(&socket::getpeername::<SockaddrStorage>(descriptor.as_raw_fd())?)
}

fn address_of(storage: &SockaddrStorage) -> nix::Result<SocketAddr> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(address), _) => Ok(SocketAddr::V4((*address).into())),
        (_, Some(address)) => Ok(SocketAddr::V6((*address).into())),
        _ => Err(nix::Error::EAFNOSUPPORT),
    }
}

/// What the kernel needs of an address, for as long as an operation uses it.
pub(super) fn raw_address(storage: &SockaddrStorage) -> (*const libc::sockaddr, libc::socklen_t) {
    (storage.as_ptr(), storage.len())
}
