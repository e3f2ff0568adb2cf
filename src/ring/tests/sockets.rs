//! Connections, on both backends. Both ends live on one ring.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;

use super::{on_both, token};
use crate::base::random::Random;
use crate::ring::*;

const ANY_PORT: &str = "127.0.0.1:0";

/// What a test knows of its sockets, kept by `step`.
#[derive(Default)]
struct Sockets {
    accepted: Vec<(SocketId, SocketAddr)>,
    connected: Vec<Result<SocketId, IoError>>,
    ends: BTreeMap<SocketId, End>,
    /// Runs not given back, oldest first.
    held: VecDeque<ReceivedBytes>,
    hold: bool,
    /// Receivers that ran out of buffers are left stopped, for the test to see.
    leave_stopped: bool,
}

#[derive(Default)]
struct End {
    received: Vec<u8>,
    runs_count: usize,
    ended: Option<Result<(), IoError>>,
    stopped_count: usize,
    sent: Vec<Result<(), IoError>>,
    filled: Vec<(Result<(), IoError>, Vec<u8>)>,
}

impl Sockets {
    fn end(&mut self, socket: SocketId) -> &mut End {
        self.ends.entry(socket).or_default()
    }

    /// One turn, until something happened.
    fn step(&mut self, ring: &mut Ring) {
        let deadline = ring.now().plus_ms(60_000);
        ring.turn(Sleep::Until(deadline));
        while let Some(completion) = ring.next() {
            match completion {
                Completion::Accepted { socket, peer, .. } => self.accepted.push((socket, peer)),
                Completion::Connected { result, .. } => self.connected.push(result),
                Completion::Received { socket, bytes } => {
                    let end = self.ends.entry(socket).or_default();
                    assert!(end.ended.is_none(), "nothing comes after the end");
                    end.received.extend_from_slice(ring.received(&bytes));
                    end.runs_count += 1;
                    match self.hold {
                        true => self.held.push_back(bytes),
                        false => ring.received_done(bytes),
                    }
                }
                Completion::ReceiveEnded { socket, result } => {
                    assert_eq!(self.end(socket).ended.replace(result), None);
                }
                Completion::ReceiveStopped { socket } => {
                    self.end(socket).stopped_count += 1;
                    if !self.leave_stopped {
                        ring.receive_start(socket);
                    }
                }
                Completion::Sent { socket, result, .. } => self.end(socket).sent.push(result),
                Completion::Filled { socket, result, buffer } => {
                    self.end(socket).filled.push((result, buffer));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(ring.now() < deadline, "nothing happened for a minute");
    }

    fn until(&mut self, ring: &mut Ring, mut condition: impl FnMut(&mut Self) -> bool) {
        while !condition(self) {
            self.step(ring);
        }
    }

    /// A connection: the accepted and the connecting end.
    fn pair(&mut self, ring: &mut Ring) -> (SocketId, SocketId) {
        let (listener, address) = ring.listen(ANY_PORT.parse().unwrap()).unwrap();
        ring.connect(token(1), address);
        self.until(ring, |sockets| !sockets.accepted.is_empty() && !sockets.connected.is_empty());
        ring.listen_stop(listener);
        (self.accepted.pop().unwrap().0, self.connected.pop().unwrap().unwrap())
    }
}

fn bytes_of(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    Random::new(seed).fill(&mut bytes);
    bytes
}

#[test]
fn large_sends_arrive_whole_and_in_order_both_ways() {
    on_both(|ring, _| {
        const SENDS_COUNT: usize = 4;
        const SEND_BYTES: usize = 1 << 20;
        let mut sockets = Sockets::default();
        let (server, client) = sockets.pair(ring);
        for (socket, peer, seed) in [(server, client, 1), (client, server, 100)] {
            ring.receive_start(peer);
            ring.send(token(seed), socket, bytes_of(seed, SEND_BYTES + 10), 10);
        }
        let mut started = [1, 1];
        let all_bytes = SENDS_COUNT * SEND_BYTES;
        while sockets.end(server).received.len() < all_bytes || sockets.end(client).received.len() < all_bytes
        {
            sockets.step(ring);
            for (index, (socket, seed)) in [(server, 1), (client, 100)].into_iter().enumerate() {
                if sockets.end(socket).sent.len() == started[index] && started[index] < SENDS_COUNT {
                    let seed = seed + started[index] as u64;
                    started[index] += 1;
                    ring.send(token(seed), socket, bytes_of(seed, SEND_BYTES + 10), 10);
                }
            }
        }
        sockets.until(ring, |sockets| sockets.ends.values().all(|end| end.sent.len() == SENDS_COUNT));
        for (socket, seed) in [(client, 1), (server, 100)] {
            let end = sockets.end(socket);
            assert!(end.sent.iter().all(Result::is_ok));
            let expected: Vec<u8> = (0..SENDS_COUNT as u64)
                .flat_map(|i| bytes_of(seed + i, SEND_BYTES + 10)[10..].to_vec())
                .collect();
            assert!(end.received == expected, "bytes came changed or out of order");
        }
    });
}

/// A file of `bytes`, in the page cache.
fn shared_file(ring: &mut Ring, dir: &Path, bytes: &[u8]) -> SharedFile {
    let path = dir.join("shared");
    let mut buffer = IoBuffer::new(bytes.len());
    buffer.copy_from_slice(bytes);
    ring.open(token(50), &path, OpenMode::CreateNew);
    let Completion::Opened { result: Ok(file), .. } = ring.wait(token(50)) else { panic!("it is made") };
    ring.write(token(51), file, 0, buffer, 0..bytes.len(), WriteMode::Durable);
    let Completion::Transferred { result: Ok(()), buffer, .. } = ring.wait(token(51)) else {
        panic!("it is written")
    };
    ring.close(file);
    ring.open(token(52), &path, OpenMode::Cached);
    let Completion::Opened { result: Ok(file), .. } = ring.wait(token(52)) else { panic!("it is there") };
    ring.read(token(53), file, 0, buffer, 0..bytes.len());
    assert!(matches!(ring.wait(token(53)), Completion::Transferred { result: Ok(()), .. }));
    let shared = ring.share(file).expect("there are descriptors");
    // The handle outlives the place in the table, and the name.
    ring.close(file);
    ring.remove_file(token(54), &path);
    assert!(matches!(ring.wait(token(54)), Completion::Done { result: Ok(()), .. }));
    shared
}

#[test]
fn pieces_of_a_file_arrive_whole_between_other_sends() {
    on_both(|ring, dir| {
        let bytes = bytes_of(7, 12 << 20);
        let file = shared_file(ring, dir, &bytes);
        let mut sockets = Sockets::default();
        let (server, client) = sockets.pair(ring);
        // Nobody receives yet: the socket's queue fills up in the midst of the first piece.
        let (first, second) = (1_000, 11 << 20);
        let piece = FilePiece { file: file.clone(), position: first, bytes: (second - first) as usize };
        let looks = (0..3).map(|_| piece.is_resident()).filter(|resident| *resident).count();
        assert!(looks > 0, "it was just read");
        ring.send_file(token(1), server, piece);
        ring.turn(Sleep::No);
        ring.receive_start(client);
        ring.receive_start(server);
        sockets.until(ring, |sockets| sockets.end(server).sent.len() == 1);
        ring.send(token(2), server, b"between".to_vec(), 0);
        sockets.until(ring, |sockets| sockets.end(server).sent.len() == 2);
        let piece = FilePiece { file, position: second, bytes: bytes.len() - second as usize };
        ring.send_file(token(3), server, piece);
        // The other direction works while a piece is on its way.
        ring.send(token(4), client, vec![9; 100_000], 0);
        let expected =
            [&bytes[first as usize..second as usize], b"between", &bytes[second as usize..]].concat();
        sockets.until(ring, |sockets| {
            sockets.end(client).received.len() >= expected.len()
                && sockets.end(server).received.len() >= 100_000
                && sockets.end(server).sent.len() == 3
                && sockets.end(client).sent.len() == 1
        });
        assert!(sockets.end(client).received == expected, "bytes came changed or out of order");
        assert!(sockets.end(server).sent.iter().all(Result::is_ok));
    });
}

#[test]
fn an_empty_send_completes() {
    on_both(|ring, _| {
        let mut sockets = Sockets::default();
        let (server, _) = sockets.pair(ring);
        ring.send(token(1), server, vec![1, 2, 3], 3);
        sockets.until(ring, |sockets| sockets.end(server).sent == [Ok(())]);
    });
}

#[test]
fn stopping_and_starting_a_receiver_loses_nothing() {
    on_both(|ring, _| {
        const COUNT: usize = 1 << 20;
        let mut sockets = Sockets { leave_stopped: true, ..Default::default() };
        let (server, client) = sockets.pair(ring);
        ring.send(token(1), client, bytes_of(1, COUNT), 0);
        ring.receive_start(server);
        let mut starts_count = 1;
        while sockets.end(server).received.len() < COUNT {
            // Stopped before, while and after bytes come; twice for one stop.
            ring.receive_stop(server);
            ring.receive_stop(server);
            sockets.until(ring, |sockets| sockets.end(server).stopped_count == starts_count);
            ring.receive_start(server);
            starts_count += 1;
            let runs_count = sockets.end(server).runs_count;
            if sockets.end(server).received.len() < COUNT {
                sockets.until(ring, |sockets| {
                    let end = sockets.end(server);
                    end.runs_count > runs_count || end.stopped_count == starts_count
                });
                // Out of buffers is a stop too.
                if sockets.end(server).stopped_count == starts_count {
                    ring.receive_start(server);
                    starts_count += 1;
                }
            }
        }
        assert!(sockets.end(server).received == bytes_of(1, COUNT));
        // Nothing armed: nothing happens.
        ring.receive_stop(server);
        sockets.until(ring, |sockets| sockets.end(server).stopped_count == starts_count);
        ring.receive_stop(server);
        ring.turn(Sleep::No);
        assert!(ring.next().is_none());
    });
}

/// Runs, single runs and whole buffers take turns, at seeded places.
#[test]
fn a_stream_goes_on_from_one_way_of_receiving_to_the_next() {
    on_both(|ring, _| {
        let mut sockets = Sockets { leave_stopped: true, ..Sockets::default() };
        let (server, client) = sockets.pair(ring);
        let expected = bytes_of(5, 3 << 20);
        ring.send(token(1), client, expected.clone(), 0);
        let mut random = Random::new(5);
        while sockets.end(server).received.len() < expected.len() {
            let end = sockets.end(server);
            let (have, stopped_count, filled_count) =
                (end.received.len(), end.stopped_count, end.filled.len());
            match random.below(3) {
                0 => {
                    ring.receive_start(server);
                    sockets.until(ring, |sockets| sockets.end(server).received.len() > have);
                    ring.receive_stop(server);
                    sockets.until(ring, |sockets| sockets.end(server).stopped_count > stopped_count);
                }
                1 => {
                    ring.receive_once(server, 3_000);
                    sockets.until(ring, |sockets| sockets.end(server).stopped_count > stopped_count);
                    let run_bytes = sockets.end(server).received.len() - have;
                    assert!((1..=3_000).contains(&run_bytes), "one run: {run_bytes}");
                }
                _ => {
                    // Behind what the buffer has already.
                    let bytes = (1 + random.below(700_000) as usize).min(expected.len() - have);
                    let mut buffer = Vec::with_capacity(3 + bytes);
                    buffer.extend_from_slice(b"abc");
                    ring.receive_into(server, buffer, 3 + bytes);
                    sockets.until(ring, |sockets| sockets.end(server).filled.len() > filled_count);
                    let end = sockets.end(server);
                    let (result, buffer) = end.filled.last().expect("just seen");
                    assert_eq!((*result, buffer.len(), &buffer[..3]), (Ok(()), 3 + bytes, &b"abc"[..]));
                    end.received.extend_from_slice(&buffer[3..]);
                }
            }
        }
        assert!(sockets.end(server).received == expected, "bytes came changed or out of order");
    });
}

/// The peer ends in the midst of it, or this side does.
#[test]
fn a_buffer_that_is_never_full_comes_back() {
    for by_peer in [true, false] {
        on_both(|ring, _| {
            let mut sockets = Sockets::default();
            let (server, client) = sockets.pair(ring);
            ring.receive_into(server, Vec::with_capacity(2_000), 2_000);
            ring.receive_start(client);
            ring.send(token(1), client, vec![7; 1_999], 0);
            sockets.until(ring, |sockets| sockets.end(client).sent.len() == 1);
            ring.disconnect(if by_peer { client } else { server });
            sockets.until(ring, |sockets| sockets.end(server).filled.len() == 1);
            let (result, buffer) = &sockets.end(server).filled[0];
            assert_eq!(*result, Err(IoError::Disconnected));
            assert!(buffer.iter().all(|byte| *byte == 7) && buffer.len() <= 1_999);
        });
    }
}

#[test]
fn without_free_buffers_a_receiver_stops_and_goes_on_later() {
    on_both(|ring, _| {
        const COUNT: usize = 1 << 20;
        let mut sockets = Sockets { leave_stopped: true, ..Default::default() };
        let (server, client) = sockets.pair(ring);
        ring.send(token(1), client, bytes_of(1, COUNT), 0);
        sockets.hold = true;
        ring.receive_start(server);
        sockets.until(ring, |sockets| sockets.end(server).stopped_count == 1);
        let received = sockets.end(server).received.len();
        assert!(received > 0 && received < COUNT);
        // What is held doesn't change while the rest arrives.
        let mut first = received;
        let held: Vec<ReceivedBytes> = sockets.held.drain(..).rev().collect();
        for run in held {
            let bytes = ring.received(&run);
            assert!(bytes == &sockets.end(server).received[first - bytes.len()..first]);
            first -= bytes.len();
            ring.received_done(run);
        }
        sockets.hold = false;
        ring.receive_start(server);
        while sockets.end(server).received.len() < COUNT {
            let stopped_count = sockets.end(server).stopped_count;
            sockets.step(ring);
            if sockets.end(server).stopped_count > stopped_count {
                ring.receive_start(server);
            }
        }
        assert!(sockets.end(server).received == bytes_of(1, COUNT));
    });
}

#[test]
fn a_peer_that_disconnects_in_order_ends_the_stream_after_its_bytes() {
    on_both(|ring, _| {
        let mut sockets = Sockets::default();
        let (server, client) = sockets.pair(ring);
        ring.receive_start(client);
        ring.send(token(1), client, bytes_of(1, 5000), 0);
        sockets.until(ring, |sockets| sockets.end(client).sent.len() == 1);
        ring.disconnect(client);
        sockets.until(ring, |sockets| sockets.end(client).ended.is_some());
        ring.receive_start(server);
        sockets.until(ring, |sockets| sockets.end(server).ended.is_some());
        assert_eq!(sockets.end(server).ended, Some(Ok(())));
        assert_eq!(sockets.end(server).received, bytes_of(1, 5000));
        // The first send may reach the peer's machine, a later one learns that nobody is there.
        while sockets.end(server).sent.last() != Some(&Err(IoError::Disconnected)) {
            let count = sockets.end(server).sent.len();
            ring.send(token(2), server, vec![1; 100], 0);
            sockets.until(ring, |sockets| sockets.end(server).sent.len() > count);
            // Lets a virtual clock move on; the kernel's does by itself.
            let soon = ring.now().plus_ms(1);
            ring.turn(Sleep::Until(soon));
        }
        ring.disconnect(server);
        ring.turn(Sleep::No);
        assert!(ring.next().is_none());
    });
}

/// Disconnects a socket that receives, with the send in flight that `start` submits.
fn disconnect_in_flight(start: impl Fn(&mut Ring, &Path, SocketId)) {
    on_both(|ring, dir| {
        let mut sockets = Sockets::default();
        let (server, client) = sockets.pair(ring);
        ring.receive_start(server);
        start(ring, dir, server);
        ring.turn(Sleep::No);
        ring.disconnect(server);
        sockets.until(ring, |sockets| {
            sockets.end(server).ended.is_some() && !sockets.end(server).sent.is_empty()
        });
        assert_eq!(sockets.end(server).sent, [Err(IoError::Disconnected)]);
        ring.receive_start(client);
        sockets.until(ring, |sockets| sockets.end(client).ended.is_some());
        ring.disconnect(client);
    });
}

#[test]
fn disconnect_ends_receiver_and_send_in_flight() {
    // More than any socket buffer holds, and nobody reads.
    disconnect_in_flight(|ring, _, server| ring.send(token(1), server, vec![0; 64 << 20], 0));
}

#[test]
fn disconnect_ends_receiver_and_piece_in_flight() {
    disconnect_in_flight(|ring, dir, server| {
        let file = shared_file(ring, dir, &bytes_of(8, 16 << 20));
        ring.send_file(token(1), server, FilePiece { file, position: 0, bytes: 16 << 20 });
    });
}

#[test]
fn many_connections_are_accepted_and_told_apart() {
    on_both(|ring, _| {
        const COUNT: usize = 150;
        let mut sockets = Sockets::default();
        let (_, address) = ring.listen(ANY_PORT.parse().unwrap()).unwrap();
        assert_ne!(address.port(), 0);
        for value in 0..COUNT {
            ring.connect(token(value as u64), address);
        }
        sockets.until(ring, |sockets| sockets.accepted.len() == COUNT && sockets.connected.len() == COUNT);
        for (index, socket) in sockets.connected.iter().enumerate() {
            ring.send(token(1), socket.unwrap(), vec![index as u8; index + 1], 0);
        }
        let accepted = sockets.accepted.clone();
        for (socket, _) in &accepted {
            ring.receive_start(*socket);
        }
        let bytes = COUNT * (COUNT + 1) / 2;
        while sockets.ends.values().map(|end| end.received.len()).sum::<usize>() < bytes {
            sockets.step(ring);
        }
        let peers: BTreeSet<SocketAddr> = accepted.iter().map(|(_, peer)| *peer).collect();
        assert_eq!(peers.len(), COUNT);
        let lengths: BTreeSet<usize> =
            accepted.iter().map(|(socket, _)| sockets.end(*socket).received.len()).collect();
        assert_eq!(lengths, (1..=COUNT).collect());
        for (socket, _) in &accepted {
            let received = &sockets.end(*socket).received;
            assert!(received.iter().all(|byte| usize::from(*byte) + 1 == received.len()));
        }
    });
}

#[test]
fn a_stopped_listener_refuses() {
    on_both(|ring, _| {
        let mut sockets = Sockets::default();
        let (listener, address) = ring.listen(ANY_PORT.parse().unwrap()).unwrap();
        ring.turn(Sleep::No);
        ring.listen_stop(listener);
        // Stopping takes the turns it takes; from some connection on, all are refused.
        while sockets.connected.last() != Some(&Err(IoError::Os(libc::ECONNREFUSED))) {
            let count = sockets.connected.len();
            ring.connect(token(1), address);
            sockets.until(ring, |sockets| sockets.connected.len() > count);
        }
        assert!(sockets.accepted.is_empty());
    });
}

#[test]
fn two_listeners_share_a_port() {
    on_both(|ring, _| {
        let mut sockets = Sockets::default();
        let (first, address) = ring.listen(ANY_PORT.parse().unwrap()).unwrap();
        let (second, again) = ring.listen(address).unwrap();
        assert_ne!(first, second);
        assert_eq!(address, again);
        ring.connect(token(1), address);
        sockets.until(ring, |sockets| sockets.accepted.len() == 1);
    });
}
