//! Connection: one client's socket and what is in flight on it.

use std::net::SocketAddr;

use super::inbound::Inbound;
use super::outbound::Outbound;
use crate::base::ids::MonotonicNs;
use crate::ring::SocketId;

/// Of a frame that lacks so much the rest is received into its buffer.
const FILL_BYTES_MIN: usize = 128 << 10;

/// State of the receiver, as the ring reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    Armed,
    /// Stop was asked for, or it stops by itself after a run; bytes may still come.
    Stopping,
    /// The frame's buffer, with so many bytes in it, is with the ring until it is full.
    Filling {
        from: usize,
    },
    Stopped,
    /// The peer closed its side: answer what is in flight, then close.
    Ended,
}

/// `S` names a streamed response.
#[derive(Debug)]
pub struct Connection<S> {
    pub socket: SocketId,
    pub peer: SocketAddr,
    /// Index of the listener that accepted it: which addresses its responses name.
    pub listener: usize,
    pub inbound: Inbound,
    pub outbound: Outbound<S>,
    pub receiver: Receiver,
    /// A send is in flight.
    pub sending: bool,
    /// It is in its shard's list of connections to look after this turn.
    pub dirty: bool,
    /// Its last frame was received into a buffer of its own: the next one may well be.
    pub large: bool,
    /// Too much was in flight; frames wait in `inbound`.
    pub paused: bool,
    /// Nothing more is read; it closes once what is ready was sent.
    pub closing: bool,
    /// As its first Produce or Fetch said, cut where it's very long.
    pub client_id: String,
    /// Last time a byte came or a send completed.
    pub active_at: MonotonicNs,
}

impl<S> Connection<S> {
    pub fn new(socket: SocketId, peer: SocketAddr, listener: usize, now: MonotonicNs) -> Self {
        Self {
            socket,
            peer,
            listener,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            receiver: Receiver::Stopped,
            sending: false,
            dirty: false,
            large: false,
            paused: false,
            closing: false,
            client_id: String::new(),
            active_at: now,
        }
    }

    /// The frame that has begun is worth a receiver of its own, which copies nothing.
    pub fn wants_filling(&self) -> bool {
        self.inbound.missing_bytes() >= FILL_BYTES_MIN
    }
}
