//! Network: connections between the rings of a world, and clients that a test plays by hand.
//!
//! Owns:     listeners, both ends of every connection, bytes on their way.
//! Promises: bytes of a connection arrive in order, cut at seeded places, with seeded delays; a
//!           sender waits while [`WINDOW_BYTES`] are on the way or unread, as with TCP.
//! Never:    delivers to a ring that died with its process: the other end sees a reset.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::{Event, Machine, Posted, RingIndex};
use crate::ring::{Completion, IoError, ListenerId, SocketId, Token};

/// Bytes of one direction that are on the way or arrived and unread.
const WINDOW_BYTES: usize = 128 * 1024;

/// The largest chunk that travels at once.
const CHUNK_BYTES_MAX: usize = 32 * 1024;

/// Ports given to listeners that ask for any, and to connecting ends.
const PORT_FIRST: u16 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndId(pub(super) u64);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Ring(RingIndex),
    Client,
}

pub(super) struct Network {
    listeners: BTreeMap<SocketAddr, Vec<(RingIndex, ListenerId)>>,
    ends: BTreeMap<EndId, End>,
    ends_count: u64,
    port_next: u16,
}

struct End {
    owner: Owner,
    peer: EndId,
    /// What the owner sends and how far it is. A client's has no token and grows.
    outgoing: Option<Outgoing>,
    on_the_way_bytes: usize,
    arrival_last_ns: u64,
    inbound: VecDeque<u8>,
    /// How the stream ends once `inbound` was read.
    ended: Option<Result<(), IoError>>,
    receiving: Option<Receiver>,
    /// Counts receivers armed, so that a stop on its way doesn't stop a later one.
    receivers_count: u64,
}

/// How what arrives is handed over.
pub(super) enum Receiver {
    Runs,
    /// One run of at most so many bytes.
    Once(usize),
    /// Until the buffer has so many bytes.
    Into(Vec<u8>, usize),
}

struct Outgoing {
    token: Option<Token>,
    buffer: Vec<u8>,
    position: usize,
}

/// What travels, or happens later.
pub(super) enum NetworkEvent {
    Connect { ring: RingIndex, token: Token, address: SocketAddr },
    Chunk { from: EndId, to: EndId, bytes: Vec<u8> },
    End { to: EndId },
    Reset { to: EndId },
    ReceiveStop { end: EndId, receivers_count: u64 },
}

impl Network {
    pub(super) fn new() -> Self {
        Self { listeners: BTreeMap::new(), ends: BTreeMap::new(), ends_count: 0, port_next: PORT_FIRST }
    }

    fn next_port(&mut self) -> u16 {
        self.port_next = self.port_next.checked_add(1).unwrap_or(PORT_FIRST);
        self.port_next
    }

    pub(super) fn listen(
        &mut self,
        ring: RingIndex,
        listener: ListenerId,
        mut address: SocketAddr,
    ) -> SocketAddr {
        if address.port() == 0 {
            address.set_port(self.next_port());
        }
        self.listeners.entry(address).or_default().push((ring, listener));
        address
    }

    pub(super) fn listen_stop(&mut self, ring: RingIndex, listener: ListenerId) {
        self.listeners.values_mut().for_each(|all| all.retain(|one| *one != (ring, listener)));
        self.listeners.retain(|_, all| !all.is_empty());
    }

    /// The listeners at an address; one at the unspecified address hears every address.
    fn listeners_at(&self, address: SocketAddr) -> Vec<(RingIndex, ListenerId)> {
        let at = |(bound, _): &(&SocketAddr, _)| {
            bound.port() == address.port() && (bound.ip() == address.ip() || bound.ip().is_unspecified())
        };
        self.listeners.iter().filter(at).flat_map(|(_, all)| all.iter().copied()).collect()
    }

    fn insert(&mut self, id: EndId, owner: Owner, peer: EndId) {
        let end = End {
            owner,
            peer,
            outgoing: None,
            on_the_way_bytes: 0,
            arrival_last_ns: 0,
            inbound: VecDeque::new(),
            ended: None,
            receiving: None,
            receivers_count: 0,
        };
        self.ends.insert(id, end);
    }

    fn owned(&mut self, id: EndId) -> &mut End {
        self.ends.get_mut(&id).expect("the caller holds an open socket")
    }
}

impl Machine {
    /// Connects at once: both ends exist, the accepting one is posted.
    pub(super) fn connect(&mut self, owner: Owner, address: SocketAddr) -> Result<EndId, IoError> {
        let listeners = self.network.listeners_at(address);
        if listeners.is_empty() {
            return Err(IoError::Os(libc::ECONNREFUSED));
        }
        let (ring, listener) = listeners[self.random.below(listeners.len() as u64) as usize];
        let (near, far) = (EndId(self.network.ends_count), EndId(self.network.ends_count + 1));
        self.network.ends_count += 2;
        self.network.insert(near, owner, far);
        self.network.insert(far, Owner::Ring(ring), near);
        let peer = SocketAddr::new(address.ip(), self.network.next_port());
        self.post(ring, Completion::Accepted { listener, socket: SocketId(far.0), peer });
        Ok(near)
    }

    pub(super) fn connect_later(&mut self, ring: RingIndex, token: Token, address: SocketAddr) {
        self.schedule_network(NetworkEvent::Connect { ring, token, address });
    }

    pub(super) fn run_network(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Connect { ring, token, address } => {
                let result = self.connect(Owner::Ring(ring), address).map(|end| SocketId(end.0));
                self.post(ring, Completion::Connected { token, result });
            }
            NetworkEvent::Chunk { from, to, bytes } => self.chunk_arrived(from, to, bytes),
            NetworkEvent::End { to } => self.end_arrived(to, Ok(())),
            NetworkEvent::Reset { to } => self.end_arrived(to, Err(IoError::Disconnected)),
            NetworkEvent::ReceiveStop { end: id, receivers_count } => {
                let Some(end) = self.network.ends.get_mut(&id) else { return };
                if end.receiving.is_some() && end.receivers_count == receivers_count {
                    self.stop_receiver(id);
                }
            }
        }
    }

    fn chunk_arrived(&mut self, from: EndId, to: EndId, bytes: Vec<u8>) {
        if let Some(sender) = self.network.ends.get_mut(&from) {
            sender.on_the_way_bytes -= bytes.len();
        }
        if self.hits(self.faults.disconnect_ppm) {
            self.end_arrived(from, Err(IoError::Disconnected));
            self.end_arrived(to, Err(IoError::Disconnected));
            return;
        }
        match self.network.ends.get_mut(&to) {
            Some(end) if end.ended.is_none() => {
                end.inbound.extend(bytes);
                self.deliver(to);
                self.pump(from);
            }
            // Nobody is there, or nobody listens any more.
            _ => self.schedule_network(NetworkEvent::Reset { to: from }),
        }
    }

    /// The stream ends: after what arrived when in order, at once with a reset.
    fn end_arrived(&mut self, to: EndId, how: Result<(), IoError>) {
        let Some(end) = self.network.ends.get_mut(&to) else { return };
        if matches!(end.ended, Some(Err(_))) {
            return;
        }
        end.ended = Some(how);
        if how.is_err() {
            end.inbound.clear();
            self.finish_send(to, Err(IoError::Disconnected));
        }
        self.deliver(to);
    }

    fn schedule_network(&mut self, event: NetworkEvent) {
        let (min, max) = (self.faults.network_min_ns, self.faults.network_max_ns);
        let at_ns = self.now_ns + self.between(min, max);
        self.schedule(at_ns, Event::Network(event));
    }

    /// Schedules what must not overtake what `from` sent before.
    fn schedule_in_order(&mut self, from: EndId, event: NetworkEvent) {
        let (min, max) = (self.faults.network_min_ns, self.faults.network_max_ns);
        let arrival_ns = self.now_ns + self.between(min, max);
        let end = self.network.owned(from);
        end.arrival_last_ns = end.arrival_last_ns.max(arrival_ns);
        let at_ns = end.arrival_last_ns;
        self.schedule(at_ns, Event::Network(event));
    }

    // ---- Receiving ---------------------------------------------------------------------------

    pub(super) fn receive(&mut self, id: EndId, receiver: Receiver) {
        let end = self.network.owned(id);
        assert!(end.receiving.is_none(), "one receiver is armed at a time");
        end.receiving = Some(receiver);
        end.receivers_count += 1;
        self.deliver(id);
    }

    pub(super) fn receive_stop(&mut self, id: EndId) {
        let end = self.network.owned(id);
        if end.receiving.is_some() {
            let receivers_count = end.receivers_count;
            self.schedule_network(NetworkEvent::ReceiveStop { end: id, receivers_count });
        }
    }

    fn stop_receiver(&mut self, id: EndId) {
        let end = self.network.owned(id);
        end.receiving = None;
        if let Owner::Ring(ring) = end.owner {
            self.post(ring, Completion::ReceiveStopped { socket: SocketId(id.0) });
        }
    }

    /// Tells how a receiver ended that goes on no further.
    pub(super) fn end_receiver(
        &mut self,
        ring: RingIndex,
        id: EndId,
        receiver: Receiver,
        result: Result<(), IoError>,
    ) {
        let socket = SocketId(id.0);
        let completion = match receiver {
            Receiver::Runs | Receiver::Once(_) => Completion::ReceiveEnded { socket, result },
            Receiver::Into(buffer, _) => Completion::Filled { socket, result, buffer },
        };
        self.post(ring, completion);
    }

    /// Gives what arrived to an armed receiver.
    fn deliver(&mut self, id: EndId) {
        let end = self.network.owned(id);
        let Owner::Ring(ring) = end.owner else { return };
        let run_bytes_max = match &mut end.receiving {
            None => return,
            Some(Receiver::Into(buffer, wanted)) => {
                let bytes = (*wanted - buffer.len()).min(end.inbound.len());
                buffer.extend(end.inbound.drain(..bytes));
                let is_full = buffer.len() == *wanted;
                let result = match end.ended {
                    _ if is_full => Ok(()),
                    Some(_) => Err(IoError::Disconnected),
                    None => return self.pump_peer(id),
                };
                let receiver = end.receiving.take().expect("matched");
                self.end_receiver(ring, id, receiver, result);
                return self.pump_peer(id);
            }
            Some(Receiver::Once(bytes)) => *bytes,
            Some(Receiver::Runs) => super::RECEIVE_BUFFER_BYTES,
        };
        self.deliver_runs(ring, id, run_bytes_max);
        self.pump_peer(id);
    }

    fn pump_peer(&mut self, id: EndId) {
        let peer = self.network.owned(id).peer;
        self.pump(peer);
    }

    /// Runs have seeded lengths.
    fn deliver_runs(&mut self, ring: RingIndex, id: EndId, run_bytes_max: usize) {
        while !self.network.owned(id).inbound.is_empty() {
            let Some(buffer_id) = self.rings[ring].free_buffers.pop() else {
                self.stop_receiver(id);
                break;
            };
            let available = self.network.owned(id).inbound.len();
            let available = available.min(super::RECEIVE_BUFFER_BYTES).min(run_bytes_max);
            let count = match self.random.chance(1, 2) {
                true => available,
                false => 1 + self.random.below(available as u64) as usize,
            };
            let bytes = self.network.owned(id).inbound.drain(..count).collect();
            self.rings[ring].posted.push_back(Posted::Received { socket: SocketId(id.0), buffer_id, bytes });
            if matches!(self.network.owned(id).receiving, Some(Receiver::Once(_))) {
                self.stop_receiver(id);
                break;
            }
        }
        let end = self.network.owned(id);
        if let (true, Some(result)) = (end.inbound.is_empty(), end.ended)
            && let Some(receiver) = end.receiving.take()
        {
            self.end_receiver(ring, id, receiver, result);
        }
    }

    // ---- Sending -----------------------------------------------------------------------------

    pub(super) fn send(&mut self, id: EndId, token: Token, buffer: Vec<u8>, from: usize) {
        let end = self.network.owned(id);
        assert!(end.outgoing.is_none(), "one send is in flight at a time");
        end.outgoing = Some(Outgoing { token: Some(token), buffer, position: from });
        match end.ended {
            Some(Err(error)) => self.finish_send(id, Err(error)),
            _ => self.pump(id),
        }
    }

    /// Sends on, as far as the window allows.
    fn pump(&mut self, id: EndId) {
        loop {
            let Some(end) = self.network.ends.get(&id) else { return };
            let Some(outgoing) = &end.outgoing else { return };
            let rest_bytes = outgoing.buffer.len() - outgoing.position;
            if rest_bytes == 0 {
                return self.finish_send(id, Ok(()));
            }
            let (to, on_the_way_bytes) = (end.peer, end.on_the_way_bytes);
            let unread_bytes = self.network.ends.get(&to).map_or(0, |peer| peer.inbound.len());
            let window_bytes = WINDOW_BYTES.saturating_sub(on_the_way_bytes + unread_bytes);
            let possible_bytes = rest_bytes.min(window_bytes).min(CHUNK_BYTES_MAX);
            if possible_bytes == 0 {
                return;
            }
            let count = match self.random.chance(1, 2) {
                true => possible_bytes,
                false => 1 + self.random.below(possible_bytes as u64) as usize,
            };
            let end = self.network.owned(id);
            let outgoing = end.outgoing.as_mut().expect("looked at above");
            let bytes = outgoing.buffer[outgoing.position..outgoing.position + count].to_vec();
            outgoing.position += count;
            end.on_the_way_bytes += count;
            self.schedule_in_order(id, NetworkEvent::Chunk { from: id, to, bytes });
        }
    }

    fn finish_send(&mut self, id: EndId, result: Result<(), IoError>) {
        let end = self.network.owned(id);
        let owner = end.owner;
        if let (Owner::Ring(ring), Some(Outgoing { token: Some(token), buffer, .. })) =
            (owner, end.outgoing.take())
        {
            self.post(ring, Completion::Sent { socket: SocketId(id.0), token, result, buffer });
        }
    }

    // ---- Ending ------------------------------------------------------------------------------

    pub(super) fn disconnect(&mut self, id: EndId) {
        let end = self.network.owned(id);
        let (owner, receiving, unread) = (end.owner, end.receiving.take(), !end.inbound.is_empty());
        let (peer, reset) = (end.peer, end.ended.is_some_and(|how| how.is_err()));
        let cut_short = end.outgoing.is_some();
        self.finish_send(id, Err(IoError::Disconnected));
        if let (Owner::Ring(ring), Some(receiver)) = (owner, receiving) {
            self.end_receiver(ring, id, receiver, Err(IoError::Disconnected));
        }
        // As TCP does: who closes with bytes unread resets, and what was on the way may be lost.
        match reset {
            true => {}
            false if unread || cut_short => {
                self.schedule_network(NetworkEvent::Reset { to: peer });
            }
            false => self.schedule_in_order(id, NetworkEvent::End { to: peer }),
        }
        self.network.ends.remove(&id);
    }

    /// The process died: its connections are reset, its listeners gone, and its rings told.
    pub(super) fn end_network(&mut self) {
        self.network.listeners.clear();
        let ids: Vec<EndId> = self.network.ends.keys().copied().collect();
        for id in ids {
            let end = self.network.owned(id);
            match end.owner {
                Owner::Ring(_) => {
                    let receiving = std::mem::take(&mut end.receiving);
                    self.finish_send(id, Err(IoError::Disconnected));
                    let end = self.network.ends.remove(&id).expect("looked up above");
                    if let (Owner::Ring(ring), Some(receiver)) = (end.owner, receiving) {
                        self.end_receiver(ring, id, receiver, Err(IoError::Disconnected));
                    }
                }
                Owner::Client => {
                    end.inbound.clear();
                    end.outgoing = None;
                    end.ended = Some(Err(IoError::Disconnected));
                }
            }
        }
    }

    // ---- Clients -----------------------------------------------------------------------------

    pub(super) fn client_write(&mut self, id: EndId, bytes: &[u8]) {
        let end = self.network.owned(id);
        if end.ended == Some(Err(IoError::Disconnected)) {
            return;
        }
        let outgoing =
            end.outgoing.get_or_insert_with(|| Outgoing { token: None, buffer: Vec::new(), position: 0 });
        outgoing.buffer.extend_from_slice(bytes);
        self.pump(id);
    }

    pub(super) fn client_read(&mut self, id: EndId) -> Vec<u8> {
        let end = self.network.owned(id);
        let (bytes, peer) = (end.inbound.drain(..).collect(), end.peer);
        self.pump(peer);
        bytes
    }

    pub(super) fn client_ended(&mut self, id: EndId) -> Option<Result<(), IoError>> {
        let end = self.network.owned(id);
        end.ended.filter(|_| end.inbound.is_empty())
    }
}
