//! Clients: the connections of one shard, from accept to close.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::net::SocketAddr;

use super::Core;
use super::stream::Filled;
use crate::base::ids::MonotonicNs;
use crate::base::slab::{Key, Slab};
use crate::catalog::image::Fnv;
use crate::net::Connection;
use crate::net::connection::Receiver;
use crate::net::inbound::{Flow, FrameBuffers, Inbound};
use crate::net::outbound::Next;
use crate::protocol::frame::FrameError;
use crate::ring::{FilePiece, IoError, ListenerId, ReceivedBytes, Ring, SocketId, Token};

/// Owner byte of the ring tokens of sends.
pub const TOKEN_OWNER: u8 = 0;

/// Requests of one connection that may be in flight before its reading pauses, and the number
/// below which it goes on.
const IN_FLIGHT_MAX: usize = 512;
const IN_FLIGHT_RESUME: usize = 256;

/// What those requests may cost, likewise. One request is always taken, however large.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
const IN_FLIGHT_BYTES_RESUME: usize = 4 << 20;

/// In steps of at most so much, so that a slow sender is seen to send.
const FILL_STEP_BYTES: usize = 1 << 20;
/// What is received of the next frame before it is known to be as large.
const HEAD_BYTES: u32 = 16 << 10;

/// A send takes about this much at most, so that a slow reader pins no more.
pub const SEND_BYTES_MAX: usize = 256 * 1024;

/// Streams are filled with about so much in a turn, of all connections: some milliseconds of copying. A
/// thousand readers that arrive at once then don't keep producers waiting until their sockets are full.
pub const FILL_BYTES_MAX: usize = 2 << 20;

/// A connection that takes no byte of a response for this long is closed.
const STALLED_MS_MAX: u64 = 30_000;

#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    pub request_bytes_max: usize,
    /// Requests that are decoded into memory of their own, since decoding amplifies.
    pub cold_request_bytes_max: usize,
    pub idle_ms_max: u64,
}

impl ClientLimits {
    /// Bytes that a frame which begins so may have.
    fn frame_bytes_max(&self, prefix: &[u8]) -> usize {
        const PRODUCE: [u8; 2] = [0, 0];
        match prefix.get(4..6) {
            Some(key) if key != PRODUCE => self.cold_request_bytes_max.min(self.request_bytes_max),
            _ => self.request_bytes_max,
        }
    }
}

/// Counted for the metrics page.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCounts {
    pub accepted: u64,
    pub refused: u64,
    pub malformed: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

pub struct Clients {
    pub connections: Slab<Connection<Key>>,
    sockets: HashMap<SocketId, Key, BuildHasherDefault<Fnv>>,
    listeners: Vec<ListenerId>,
    /// Connections with something to send or to go on reading, once each, oldest first.
    dirty: VecDeque<Key>,
    /// Those whose streams wait for the next turn.
    deferred: Vec<Key>,
    fill_bytes_left: usize,
    /// Windows of streams that are read, or were, before the one in front of them has left.
    pub windows_ahead_count: usize,
    limits: ClientLimits,
    frame_buffers: FrameBuffers,
    /// Traces of responses that have left; empty between calls.
    left: Vec<Key>,
    pub counts: ClientCounts,
    /// Draining: new connections are closed, requests in flight answered.
    pub draining: bool,
}

impl Clients {
    pub fn new(listeners: Vec<ListenerId>, limits: ClientLimits) -> Self {
        Self {
            connections: Slab::default(),
            sockets: HashMap::default(),
            listeners,
            dirty: VecDeque::new(),
            deferred: Vec::new(),
            fill_bytes_left: FILL_BYTES_MAX,
            windows_ahead_count: 0,
            limits,
            frame_buffers: FrameBuffers::default(),
            left: Vec::new(),
            counts: ClientCounts::default(),
            draining: false,
        }
    }

    /// Takes a connection, unless there are `count_max` already.
    pub fn accept(
        &mut self,
        ring: &mut Ring,
        listener: ListenerId,
        (socket, peer): (SocketId, SocketAddr),
        count_max: usize,
        now: MonotonicNs,
    ) {
        let full = self.connections.len() >= count_max;
        if full || self.draining {
            self.counts.refused += 1;
            ring.disconnect(socket);
            return;
        }
        self.counts.accepted += 1;
        let listener =
            self.listeners.iter().position(|known| *known == listener).expect("a listener of ours");
        let mut connection = Connection::new(socket, peer, listener, now);
        ring.receive_start(socket);
        connection.receiver = Receiver::Armed;
        let key = self.connections.insert(connection);
        self.sockets.insert(socket, key);
    }

    pub fn of_socket(&self, socket: SocketId) -> Option<Key> {
        self.sockets.get(&socket).copied()
    }

    pub fn mark_dirty(&mut self, connection: Key) {
        if let Some(state) = self.connections.get_mut(connection)
            && !std::mem::replace(&mut state.dirty, true)
        {
            self.dirty.push_back(connection);
        }
    }

    /// Streams may be filled again.
    pub fn begin_turn(&mut self) {
        self.fill_bytes_left = FILL_BYTES_MAX;
        for key in std::mem::take(&mut self.deferred) {
            self.mark_dirty(key);
        }
    }

    fn note_filled(&mut self, bytes: usize) {
        self.fill_bytes_left = self.fill_bytes_left.saturating_sub(bytes);
    }

    /// Streams wait for the next turn: it mustn't sleep.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Stops accepting; every connection closes once what it has in flight is answered.
    pub fn drain(&mut self, ring: &mut Ring) {
        self.draining = true;
        for listener in self.listeners.drain(..) {
            ring.listen_stop(listener);
        }
        let open: Vec<Key> = self.connections.iter().map(|(key, _)| key).collect();
        for key in open {
            self.connections.get_mut(key).expect("listed above").closing = true;
            self.mark_dirty(key);
        }
    }
}

impl Core {
    pub fn on_received(&mut self, ring: &Ring, socket: SocketId, bytes: &ReceivedBytes) {
        let Some(key) = self.clients.of_socket(socket) else { return };
        let received = ring.received(bytes);
        self.clients.counts.received_bytes += received.len() as u64;
        self.feed(ring, key, received);
    }

    /// Handles the frames that are whole in what `connection` has pending and `bytes`.
    fn feed(&mut self, ring: &Ring, key: Key, bytes: &[u8]) {
        let now = self.now;
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        connection.active_at = now;
        if connection.closing {
            return;
        }
        if connection.paused {
            // Reading was stopped, but bytes were on their way: they wait with the others.
            connection.inbound.keep(bytes, now, &mut self.clients.frame_buffers);
            return;
        }
        let mut inbound = std::mem::take(&mut connection.inbound);
        let limits = self.clients.limits;
        let limit = |prefix: &[u8]| limits.frame_bytes_max(prefix);
        let mut buffers = std::mem::take(&mut self.clients.frame_buffers);
        let handle = |frame: &[u8], since: MonotonicNs| self.on_frame(ring, key, frame, since);
        let result = inbound.push(bytes, now, &mut buffers, limit, handle);
        self.clients.frame_buffers = buffers;
        self.after_feed(key, inbound, result);
    }

    fn after_feed(&mut self, key: Key, inbound: Inbound, result: Result<Flow, FrameError>) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        connection.inbound = inbound;
        match result {
            Ok(Flow::Continue) if connection.wants_filling() => self.clients.mark_dirty(key),
            Ok(Flow::Continue) => {}
            Ok(Flow::Pause) => {
                connection.paused = true;
                self.clients.mark_dirty(key);
            }
            Err(error) => self.close_malformed(key, &error.to_string()),
        }
    }

    /// A client broke the protocol: its earlier requests are answered, then it is closed.
    pub fn close_malformed(&mut self, key: Key, why: &str) {
        self.clients.counts.malformed += 1;
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        if self.log_limit.allows(self.now) {
            tracing::warn!(peer = %connection.peer, why, "connection closed");
        }
        connection.closing = true;
        self.clients.mark_dirty(key);
    }

    /// Whether `connection` may hand over its next frame now.
    pub fn flow_of(&self, key: Key) -> Flow {
        match self.clients.connections.get(key) {
            Some(connection)
                if !connection.closing
                    && connection.outbound.len() < IN_FLIGHT_MAX
                    && connection.outbound.cost_bytes() < IN_FLIGHT_BYTES_MAX
                    && !self.storage.has_stalled() =>
            {
                Flow::Continue
            }
            _ => Flow::Pause,
        }
    }

    pub fn on_receive_ended(&mut self, ring: &mut Ring, socket: SocketId, result: Result<(), IoError>) {
        let Some(key) = self.clients.of_socket(socket) else { return };
        let connection = self.clients.connections.get_mut(key).expect("sockets and connections agree");
        connection.receiver = Receiver::Ended;
        if let Err(error) = result
            && error != IoError::Disconnected
        {
            tracing::debug!(peer = %connection.peer, %error, "receive failed");
        }
        self.drop_connection(ring, key);
    }

    pub fn on_receive_stopped(&mut self, socket: SocketId) {
        let Some(key) = self.clients.of_socket(socket) else { return };
        let connection = self.clients.connections.get_mut(key).expect("sockets and connections agree");
        connection.receiver = Receiver::Stopped;
        self.clients.mark_dirty(key);
    }

    /// A frame's buffer is full, or the connection ended.
    pub fn on_filled(
        &mut self,
        ring: &mut Ring,
        socket: SocketId,
        result: Result<(), IoError>,
        buffer: Vec<u8>,
    ) {
        let Some(key) = self.clients.of_socket(socket) else {
            return self.clients.frame_buffers.give(buffer);
        };
        let connection = self.clients.connections.get_mut(key).expect("sockets and connections agree");
        let Receiver::Filling { from } = connection.receiver else {
            panic!("no other receiver fills buffers")
        };
        self.clients.counts.received_bytes += (buffer.len() - from) as u64;
        connection.inbound.fill_end(buffer);
        if result.is_err() {
            return self.on_receive_ended(ring, socket, result);
        }
        connection.receiver = Receiver::Stopped;
        self.feed(ring, key, &[]);
        self.clients.mark_dirty(key);
    }

    pub fn on_sent(&mut self, ring: &mut Ring, token: Token, result: Result<(), IoError>, buffer: Vec<u8>) {
        let key = Key::from_u56(token.value());
        let now = self.now;
        self.spare.give(buffer);
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        connection.sending = false;
        connection.active_at = now;
        if result.is_err() {
            self.drop_connection(ring, key);
        } else {
            self.clients.mark_dirty(key);
            self.responses_left(key);
        }
    }

    /// What was taken of a connection's responses is with the kernel.
    fn responses_left(&mut self, key: Key) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        if connection.outbound.taken().is_empty() {
            return;
        }
        let mut left = std::mem::take(&mut self.clients.left);
        connection.outbound.take_left(&mut left);
        for trace in left.drain(..) {
            self.finish_trace(key, trace);
        }
        self.clients.left = left;
    }

    /// Ends a connection at once; what it had in flight is forgotten.
    pub fn drop_connection(&mut self, ring: &mut Ring, key: Key) {
        let Some(connection) = self.clients.connections.remove(key) else { return };
        self.clients.sockets.remove(&connection.socket);
        ring.disconnect(connection.socket);
        self.clients.frame_buffers.give(connection.inbound.into_buffer());
        connection.outbound.into_traces().for_each(|trace| self.traces.forget(trace));
        self.forget_requests_of(key);
    }

    /// Sends what is ready and goes on reading where there is room again.
    pub fn flush_clients(&mut self, ring: &mut Ring) {
        while let Some(key) = self.clients.dirty.pop_front() {
            if let Some(connection) = self.clients.connections.get_mut(key) {
                connection.dirty = false;
            }
            self.resume_reading(ring, key);
            self.flush_client(ring, key);
        }
    }

    fn resume_reading(&mut self, ring: &mut Ring, key: Key) {
        let may_resume = !self.storage.has_stalled();
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let outbound = &connection.outbound;
        let has_room = outbound.len() < IN_FLIGHT_RESUME && outbound.cost_bytes() < IN_FLIGHT_BYTES_RESUME;
        let waits = connection.paused && !connection.closing;
        if waits && may_resume && has_room {
            connection.paused = false;
            self.feed(ring, key, &[]);
        } else if connection.receiver == Receiver::Armed && (waits || connection.wants_filling()) {
            connection.receiver = Receiver::Stopping;
            ring.receive_stop(connection.socket);
        }
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        if connection.receiver == Receiver::Stopped && !connection.paused && !connection.closing {
            receive_next(ring, connection, &mut self.clients.frame_buffers);
        }
    }

    fn flush_client(&mut self, ring: &mut Ring, key: Key) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        if connection.sending {
            return;
        }
        let mut out = self.spare.take();
        while let Some(connection) = self.clients.connections.get_mut(key) {
            let request = match connection.outbound.take(&mut out, SEND_BYTES_MAX) {
                Next::Stream(request) if out.len() < SEND_BYTES_MAX => Some(*request),
                Next::Stream(_) | Next::Nothing => None,
            };
            for trace in connection.outbound.taken() {
                self.traces.begin_sending(*trace, self.now);
            }
            let Some(request) = request else { break };
            let trace = connection.outbound.next_trace();
            if self.clients.fill_bytes_left == 0 {
                self.clients.deferred.push(key);
                break;
            }
            self.traces.begin_sending(trace, self.now);
            let before = out.len();
            let filled = self.fill(request, &mut out);
            self.clients.note_filled(out.len() - before);
            match filled {
                Filled::Done => {
                    if let Some(connection) = self.clients.connections.get_mut(key) {
                        connection.outbound.stream_done();
                    }
                    if out.is_empty() {
                        // Its last bytes were those of a file.
                        self.responses_left(key);
                    }
                }
                Filled::File(piece) => {
                    self.clients.note_filled(piece.bytes);
                    self.spare.give(out);
                    self.send_piece(ring, key, piece);
                    return;
                }
                Filled::Full | Filled::Pending => break,
                Filled::Broken => {
                    // The length was announced and can't be kept: only closing is honest.
                    self.drop_connection(ring, key);
                    break;
                }
            }
        }
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        if !out.is_empty() {
            connection.sending = true;
            self.clients.counts.sent_bytes += out.len() as u64;
            ring.send(Token::new(TOKEN_OWNER, key.to_u56()), connection.socket, out, 0);
            return;
        }
        self.spare.give(out);
        let is_over = connection.closing && connection.outbound.is_empty();
        // Those without a byte.
        self.responses_left(key);
        if is_over {
            self.drop_connection(ring, key);
        }
    }

    fn send_piece(&mut self, ring: &mut Ring, key: Key, piece: FilePiece) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        connection.sending = true;
        self.clients.counts.sent_bytes += piece.bytes as u64;
        ring.send_file(Token::new(TOKEN_OWNER, key.to_u56()), connection.socket, piece);
    }

    /// Closes connections without traffic, and those that take no byte of what is owed to them.
    pub fn close_idle(&mut self, ring: &mut Ring) {
        let now = self.now;
        let idle_ms_max = self.clients.limits.idle_ms_max;
        let is_over = |connection: &Connection<Key>| {
            let idle_ms = now.ms_since(connection.active_at);
            let limit_ms = if connection.sending { STALLED_MS_MAX.min(idle_ms_max) } else { idle_ms_max };
            // A long poll isn't idle: its answer is being waited for.
            idle_ms >= limit_ms && (connection.sending || connection.outbound.is_empty())
        };
        let over: Vec<Key> = self
            .clients
            .connections
            .iter()
            .filter(|(_, connection)| is_over(connection))
            .map(|(key, _)| key)
            .collect();
        for key in over {
            self.drop_connection(ring, key);
        }
    }

    /// Marks every connection that waits for room, after room was made.
    pub fn resume_paused(&mut self) {
        let paused: Vec<Key> = self
            .clients
            .connections
            .iter()
            .filter(|(_, connection)| connection.paused)
            .map(|(key, _)| key)
            .collect();
        for key in paused {
            self.clients.mark_dirty(key);
        }
    }
}

/// Arms the receiver that suits what comes next. Precondition: none is armed.
fn receive_next(ring: &mut Ring, connection: &mut Connection<Key>, buffers: &mut FrameBuffers) {
    let socket = connection.socket;
    let missing_bytes = connection.inbound.missing_bytes();
    if connection.wants_filling() || (connection.large && missing_bytes > 0) {
        let buffer = connection.inbound.fill_begin(buffers);
        let from = buffer.len();
        ring.receive_into(socket, buffer, from + missing_bytes.min(FILL_STEP_BYTES));
        connection.receiver = Receiver::Filling { from };
        connection.large = true;
    } else if std::mem::take(&mut connection.large) {
        ring.receive_once(socket, HEAD_BYTES);
        connection.receiver = Receiver::Stopping;
    } else {
        ring.receive_start(socket);
        connection.receiver = Receiver::Armed;
    }
}
