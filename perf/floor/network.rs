//! Network: one ring that tells which sockets may be read or written and which file operations ended.
//!
//! Sockets are polled by the ring and read by plain calls, straight to where the bytes are to be: a receive
//! of the ring would have to name that place before it is known how many bytes come.

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const ENTRIES_COUNT: u32 = 1024;
/// Owners of completions, above the 32 bits of their index.
const LISTENER: u64 = 0;
const SOCKET: u64 = 1;
const FILE: u64 = 2;
const IGNORED: u64 = 3;

/// What a turn brought.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The socket may be read or written, until it says that it would block.
    Ready(usize),
    File {
        index: usize,
        result: i32,
    },
}

pub struct Network {
    pub ring: IoUring,
    listener: TcpListener,
    /// By index, which is never given out twice.
    sockets: Vec<Option<Socket>>,
}

struct Socket {
    stream: TcpStream,
    /// Answers, of which the first bytes are sent.
    out: Vec<u8>,
    sent_bytes: usize,
}

/// What reading a socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Bytes(usize),
    WouldBlock,
    Closed,
}

fn user_data(owner: u64, index: usize) -> u64 {
    owner << 32 | index as u64
}

impl Network {
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES_COUNT)?;
        let mut network = Self { ring, listener, sockets: Vec::new() };
        let fd = network.listener.as_raw_fd();
        network.poll(fd, user_data(LISTENER, 0));
        Ok(network)
    }

    fn poll(&mut self, fd: i32, user_data: u64) {
        let flags = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
        let poll = opcode::PollAdd::new(types::Fd(fd), flags as u32).multi(true).build();
        // SAFETY: a poll names no memory.
        unsafe { self.push(&poll.user_data(user_data)) }
    }

    /// # Safety
    ///
    /// Memory that the operation names lives until its completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit().expect("the kernel takes what is in the queue");
        }
    }

    /// Marks a file operation; its completion comes as `Event::File`.
    pub fn file_operation(entry: squeue::Entry, index: usize) -> squeue::Entry {
        entry.user_data(user_data(FILE, index))
    }

    /// Waits until something happened and adds it to `events`.
    pub fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
        let completions: Vec<cqueue::Entry> = self.ring.completion().collect();
        for completion in completions {
            let index = (completion.user_data() & u64::from(u32::MAX)) as usize;
            match completion.user_data() >> 32 {
                LISTENER => self.accept()?,
                SOCKET => events.push(Event::Ready(index)),
                FILE => events.push(Event::File { index, result: completion.result() }),
                _ => {}
            }
            self.poll_on(&completion, index);
        }
        Ok(())
    }

    /// A poll that the kernel ended goes on.
    fn poll_on(&mut self, completion: &cqueue::Entry, index: usize) {
        if cqueue::more(completion.flags()) {
            return;
        }
        let fd = match completion.user_data() >> 32 {
            LISTENER => Some(self.listener.as_raw_fd()),
            SOCKET => self.sockets[index].as_ref().map(|socket| socket.stream.as_raw_fd()),
            _ => None,
        };
        if let Some(fd) = fd {
            self.poll(fd, completion.user_data());
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.poll(stream.as_raw_fd(), user_data(SOCKET, self.sockets.len()));
            self.sockets.push(Some(Socket { stream, out: Vec::new(), sent_bytes: 0 }));
        }
    }

    /// Reads into `place`.
    pub fn receive(&mut self, index: usize, place: &mut [u8]) -> Received {
        use std::io::Read;
        let Some(socket) = &mut self.sockets[index] else { return Received::Closed };
        match socket.stream.read(place) {
            Ok(bytes) if bytes > 0 => Received::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::WouldBlock,
            // A client that is gone is no failure.
            Ok(_) | Err(_) => Received::Closed,
        }
    }

    pub fn close(&mut self, index: usize) {
        if self.sockets[index].take().is_some() {
            let remove = opcode::PollRemove::new(user_data(SOCKET, index)).build();
            // SAFETY: it names no memory.
            unsafe { self.push(&remove.user_data(user_data(IGNORED, 0))) }
        }
    }

    /// Where answers are put; they leave with the next `flush`. Those of a closed socket go nowhere.
    pub fn out(&mut self, index: usize) -> Option<&mut Vec<u8>> {
        self.sockets[index].as_mut().map(|socket| &mut socket.out)
    }

    pub fn fd(&self, index: usize) -> Option<i32> {
        self.sockets[index].as_ref().map(|socket| socket.stream.as_raw_fd())
    }

    /// Sends answers; the rest goes when the socket is ready again. True when all is sent.
    pub fn flush(&mut self, index: usize) -> bool {
        use std::io::Write;
        let Some(socket) = &mut self.sockets[index] else { return true };
        while socket.sent_bytes < socket.out.len() {
            match socket.stream.write(&socket.out[socket.sent_bytes..]) {
                Ok(bytes) => socket.sent_bytes += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => break,
            }
        }
        socket.out.clear();
        socket.sent_bytes = 0;
        true
    }
}
