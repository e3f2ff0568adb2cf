//! Sockets: listeners, connections.

use std::net::SocketAddr;

use super::KernelRing;
use crate::ring::{IoError, ListenerId, ReceivedBytes, SocketId, Token};

impl KernelRing {
    pub fn listen(&mut self, _address: SocketAddr) -> Result<(ListenerId, SocketAddr), IoError> {
        Err(IoError::Os(libc::EOPNOTSUPP))
    }

    pub fn listen_stop(&mut self, _listener: ListenerId) {}

    pub fn connect(&mut self, _token: Token, _address: SocketAddr) {}

    pub fn receive_start(&mut self, _socket: SocketId) {}

    pub fn receive_stop(&mut self, _socket: SocketId) {}

    pub fn received(&self, _bytes: &ReceivedBytes) -> &[u8] {
        &[]
    }

    pub fn received_done(&mut self, _bytes: ReceivedBytes) {}

    pub fn send(&mut self, _token: Token, _socket: SocketId, _buffer: Vec<u8>, _from: usize) {}

    pub fn disconnect(&mut self, _socket: SocketId) {}
}
