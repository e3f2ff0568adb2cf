//! Sink: a broker that keeps nothing, so that the generator's own ceiling can be seen.
//!
//! Owns:     one thread, an epoll, the connections.
//! Promises: every Produce is acknowledged with the offsets a broker would give; records are thrown away by
//!           the kernel, so that a byte costs the sink less than it costs the generator.
//! Never:    checks a batch, keeps a record, serves Fetch.

mod requests;
mod stream;

use crate::Failure;
use crate::options::SinkOptions;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use requests::Broker;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use stream::Stream;

/// One receive. More than a socket's buffer holds gains nothing.
const RECEIVE_BYTES: usize = 4 << 20;
/// Receives of small requests stay in the core's cache.
const READ_BYTES: usize = 256 << 10;
/// What is read in front of records that are thrown away: copying more of them is in vain.
const FRONT_BYTES: usize = 4 << 10;
/// Receives of one connection before the others have their turn.
const RECEIVES_PER_TURN: usize = 16;
/// Answers that wait for a client that doesn't read; it isn't read from meanwhile.
const ANSWERS_BYTES_MAX: usize = 1 << 20;

const LISTENER: u64 = u64::MAX;

/// Runs `corelane-load sink` until it is killed.
pub fn run(options: &SinkOptions) -> Result<bool, Failure> {
    let listener = TcpListener::bind(&options.listen)
        .map_err(|error| Failure::new(format!("{}: {error}", options.listen)))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    println!("corelane-load: the sink listens on {address}");
    let mut sink = Sink {
        epoll,
        listener,
        connections: HashMap::new(),
        next_id: 0,
        broker: Broker::new(address, options.partitions),
        memory: vec![0; RECEIVE_BYTES],
    };
    loop {
        sink.turn()?;
    }
}

struct Sink {
    epoll: Epoll,
    listener: TcpListener,
    connections: HashMap<u64, Connection>,
    next_id: u64,
    broker: Broker,
    memory: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    stream: Stream,
    answers: Vec<u8>,
    /// Of `answers`.
    sent_bytes: usize,
    interest: EpollFlags,
}

impl Sink {
    fn turn(&mut self) -> Result<(), Failure> {
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            if event.data() == LISTENER {
                self.accept()?;
            } else {
                self.serve(event.data());
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), Failure> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let (id, interest) = (self.next_id, EpollFlags::EPOLLIN);
            self.next_id += 1;
            self.epoll.add(&socket, EpollEvent::new(interest, id))?;
            let connection = Connection {
                socket,
                stream: Stream::default(),
                answers: Vec::new(),
                sent_bytes: 0,
                interest,
            };
            self.connections.insert(id, connection);
        }
    }

    /// Reads, answers, and closes what can't go on.
    fn serve(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let outcome =
            connection.receive(&mut self.memory, &mut self.broker).and_then(|goes_on| match goes_on {
                true => connection.send(&self.epoll, id).map(|()| true),
                false => Ok(false),
            });
        if let Err(Failure(what)) = &outcome {
            eprintln!("corelane-load: the sink closes a connection: {what}");
        }
        if !matches!(outcome, Ok(true)) {
            self.connections.remove(&id);
        }
    }
}

impl Connection {
    /// False when the client has closed it.
    fn receive(&mut self, memory: &mut [u8], broker: &mut Broker) -> Result<bool, Failure> {
        for _ in 0..RECEIVES_PER_TURN {
            if self.answers.len() - self.sent_bytes > ANSWERS_BYTES_MAX {
                break;
            }
            let skipped = self.stream.skipped_bytes();
            let (wanted, received) = if skipped > 0 {
                let wanted = skipped.min(memory.len());
                (wanted, self.discard(&mut memory[..wanted]))
            } else {
                let wanted = if self.stream.is_large() { FRONT_BYTES } else { READ_BYTES };
                (wanted, self.socket.read(&mut memory[..wanted]))
            };
            let count = match received {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Clients are killed at any time.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if skipped > 0 {
                self.stream.skip(count);
            } else {
                self.stream.feed(&memory[..count], broker, &mut self.answers)?;
            }
            if count < wanted {
                break;
            }
        }
        Ok(true)
    }

    /// Receives without a copy: the kernel frees the bytes where they are, `memory` only has their length.
    fn discard(&self, memory: &mut [u8]) -> std::io::Result<usize> {
        Ok(recv(self.socket.as_raw_fd(), memory, MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT)?)
    }

    fn send(&mut self, epoll: &Epoll, id: u64) -> Result<(), Failure> {
        while self.sent_bytes < self.answers.len() {
            match self.socket.write(&self.answers[self.sent_bytes..]) {
                Ok(count) => self.sent_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let left = self.answers.len() - self.sent_bytes;
        if left == 0 {
            self.answers.clear();
            self.sent_bytes = 0;
        }
        let mut interest = EpollFlags::EPOLLIN;
        interest.set(EpollFlags::EPOLLOUT, left > 0);
        interest.set(EpollFlags::EPOLLIN, left <= ANSWERS_BYTES_MAX);
        if interest != self.interest {
            self.interest = interest;
            epoll.modify(self.socket.as_fd(), &mut EpollEvent::new(interest, id))?;
        }
        Ok(())
    }
}
