//! Produce: bytes are received straight into the buffer that is written, and checksummed there while they
//! are in the cache. Rows without a disk receive into the same place again and again.

use crate::disk::{BLOCK_BYTES, MIB, Region, open_direct, prepare};
use crate::frames::{Frame, Frames};
use crate::handshake::{Handshake, Refusal, produce_answer};
use crate::network::{Event, Network, Received};
use crate::{Flush, ProduceOptions};
use corelane::base::random::Random;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::header::RequestHeader;
use io_uring::{opcode, squeue, types};
use std::collections::VecDeque;
use std::fs::File;
use std::hint::black_box;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

/// Bytes that are checksummed while the cache of one core still has them.
const PIECE_BYTES: usize = 256 * 1024;
const BUFFERS_COUNT: usize = 8;
const PARTITIONS_DEFAULT: usize = 16;
/// Where the correlation id stands in an answer.
const CORRELATION_AT: usize = 4;

pub fn run(listen: SocketAddr, options: Option<&ProduceOptions>) -> Result<(), Refusal> {
    if let Some(options) = options {
        let mut random = Random::new(1);
        prepare(&options.file, options.file_mib, true, |_, bytes| random.fill(bytes))?;
    }
    let mut network = Network::listen(listen)?;
    let writer = options.map(|options| Writer::new(options, &mut network)).transpose()?;
    let mut floor = Floor {
        network,
        writer,
        handshake: Handshake::new(listen, PARTITIONS_DEFAULT, 0),
        clients: Vec::new(),
        scratch: vec![0; PIECE_BYTES],
        waiting: Vec::new(),
    };
    let mut events = Vec::new();
    loop {
        floor.network.turn(&mut events)?;
        for event in events.drain(..) {
            floor.see(event)?;
        }
        if let Some(writer) = &mut floor.writer {
            writer.end_turn(&mut floor.network);
        }
    }
}

struct Floor {
    network: Network,
    writer: Option<Writer>,
    handshake: Handshake,
    clients: Vec<Client>,
    scratch: Vec<u8>,
    /// Clients that found no buffer free.
    waiting: Vec<usize>,
}

#[derive(Default)]
struct Client {
    frames: Frames,
    /// To its first Produce request, and with another correlation id to all that follow.
    answer: Vec<u8>,
}

impl Floor {
    fn see(&mut self, event: Event) -> Result<(), Refusal> {
        match event {
            Event::Ready(index) => self.read(index),
            Event::File { index, result } => {
                let writer = self.writer.as_mut().expect("nobody else has file operations");
                writer.completed(index, result)?;
                while let Some(owed) = writer.next_durable() {
                    for (client, correlation_id) in &owed {
                        self.clients[*client].answer(&mut self.network, *client, *correlation_id);
                    }
                    for (client, _) in owed {
                        self.network.flush(client);
                    }
                }
                std::mem::take(&mut self.waiting).into_iter().try_for_each(|client| self.read(client))
            }
        }
    }

    /// Reads what the socket has, or as much as there are buffers for.
    fn read(&mut self, index: usize) -> Result<(), Refusal> {
        if self.clients.len() <= index {
            self.clients.resize_with(index + 1, Client::default);
        }
        while self.read_piece(index)? {}
        self.network.flush(index);
        Ok(())
    }

    /// Reads once; true when there may be more.
    fn read_piece(&mut self, index: usize) -> Result<bool, Refusal> {
        let Self { network, writer, handshake, clients, scratch, waiting } = self;
        let is_checksummed = writer.is_some();
        let place = match writer {
            None => Some(&mut scratch[..]),
            Some(writer) => writer.place(),
        };
        let Some(place) = place else {
            waiting.push(index);
            return Ok(false);
        };
        let bytes = match network.receive(index, place) {
            Received::Bytes(bytes) => bytes,
            Received::WouldBlock => return Ok(false),
            Received::Closed => {
                network.close(index);
                return Ok(false);
            }
        };
        let has_more = bytes == place.len();
        let client = &mut clients[index];
        let done = client.take(&place[..bytes], is_checksummed, |frame, answer| {
            let (header, body) = RequestHeader::parse(frame).map_err(|_| "not a request header")?;
            let Some(out) = network.out(index) else { return Ok(()) };
            if header.key != ApiKey::Produce {
                return handshake.answer(&header, body, out);
            }
            *answer = produce_answer(header.version, header.correlation_id, body)?;
            out.extend_from_slice(answer);
            Ok(())
        })?;
        match writer {
            Some(writer) => {
                let owes = writer.flush != Flush::None;
                writer.filled(network, bytes, done.iter().filter(|_| owes).map(|id| (index, *id)));
                if !owes {
                    done.into_iter().for_each(|id| client.answer(network, index, id));
                }
            }
            None => done.into_iter().for_each(|id| client.answer(network, index, id)),
        }
        Ok(has_more)
    }
}

impl Client {
    /// Cuts a piece; gives cold frames to `cold` and returns the correlation ids of the hot ones that ended.
    fn take(
        &mut self,
        piece: &[u8],
        is_checksummed: bool,
        mut cold: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Refusal>,
    ) -> Result<Vec<[u8; 4]>, Refusal> {
        let Self { frames, answer } = self;
        // Once the answer is known no Produce request is read any more.
        let has_answer = !answer.is_empty();
        let (mut done, mut outcome) = (Vec::new(), Ok(()));
        let is_hot = |key| has_answer && key == ApiKey::Produce.number();
        frames.feed(piece, is_checksummed, is_hot, |frame| match frame {
            Frame::Hot { correlation_id, crc } => {
                black_box(crc);
                done.push(correlation_id);
            }
            Frame::Cold(frame) if outcome.is_ok() => outcome = cold(frame, answer),
            Frame::Cold(_) => {}
        })?;
        outcome.map(|()| done)
    }

    fn answer(&self, network: &mut Network, index: usize, correlation_id: [u8; 4]) {
        let Some(out) = network.out(index) else { return };
        let at = out.len();
        out.extend_from_slice(&self.answer);
        out[at + CORRELATION_AT..][..4].copy_from_slice(&correlation_id);
    }
}

/// Correlation ids of requests, with their clients, that are answered when what they sent is durable.
type Owed = Vec<(usize, [u8; 4])>;

/// One buffer on its way to the file.
struct Group {
    buffer: usize,
    operations_left: usize,
    owed: Owed,
}

/// Writes buffers one behind the other, round and round. A part of a buffer is written only when answers
/// depend on it and nothing else is on its way; the next group forms meanwhile.
struct Writer {
    file: File,
    file_bytes: usize,
    flush: Flush,
    region: Region,
    free: Vec<usize>,
    open: Option<usize>,
    open_bytes: usize,
    owed: Owed,
    groups: VecDeque<Group>,
    position: usize,
}

impl Writer {
    fn new(options: &ProduceOptions, network: &mut Network) -> Result<Self, Refusal> {
        let region = Region::new(BUFFERS_COUNT * MIB)?;
        let registered = libc::iovec { iov_base: region.at(0).cast(), iov_len: BUFFERS_COUNT * MIB };
        // SAFETY: the region lives as long as the writer, and that as long as the process.
        unsafe { network.ring.submitter().register_buffers(&[registered])? };
        Ok(Self {
            file: open_direct(&options.file)?,
            file_bytes: options.file_mib * MIB,
            flush: options.flush,
            region,
            free: (0..BUFFERS_COUNT).collect(),
            open: None,
            open_bytes: 0,
            owed: Vec::new(),
            groups: VecDeque::new(),
            position: 0,
        })
    }

    /// Where the next bytes go; none while every buffer is on its way.
    fn place(&mut self) -> Option<&mut [u8]> {
        if self.open.is_none() {
            self.open = self.free.pop();
        }
        let start = self.open? * MIB + self.open_bytes;
        let bytes = PIECE_BYTES.min(MIB - self.open_bytes);
        Some(&mut self.region.bytes()[start..start + bytes])
    }

    /// The first bytes of the place were written; `owed` ended in them.
    fn filled(&mut self, network: &mut Network, bytes: usize, owed: impl Iterator<Item = (usize, [u8; 4])>) {
        self.owed.extend(owed);
        self.open_bytes += bytes;
        if self.open_bytes == MIB {
            self.write(network);
        }
    }

    fn end_turn(&mut self, network: &mut Network) {
        if !self.owed.is_empty() && self.groups.is_empty() {
            self.write(network);
        }
    }

    /// Puts the open buffer on its way.
    fn write(&mut self, network: &mut Network) {
        let buffer = self.open.take().expect("it has bytes");
        let bytes = self.open_bytes.next_multiple_of(BLOCK_BYTES);
        self.open_bytes = 0;
        if self.position + bytes > self.file_bytes {
            self.position = 0;
        }
        let fd = types::Fd(self.file.as_raw_fd());
        let flags = if self.flush == Flush::Dsync { libc::RWF_DSYNC } else { 0 };
        let write = opcode::WriteFixed::new(fd, self.region.at(buffer * MIB), bytes as u32, 0)
            .offset(self.position as u64)
            .rw_flags(flags)
            .build();
        self.position += bytes;
        let is_flushed_apart = self.flush == Flush::Fdatasync;
        let link = if is_flushed_apart { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
        // SAFETY: nobody writes to a buffer that isn't open, and it is free again after the completion.
        unsafe { network.push(&Network::file_operation(write.flags(link), buffer)) };
        if is_flushed_apart {
            let flush = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            // SAFETY: it names no memory.
            unsafe { network.push(&Network::file_operation(flush, buffer)) };
        }
        let operations_left = 1 + usize::from(is_flushed_apart);
        self.groups.push_back(Group { buffer, operations_left, owed: std::mem::take(&mut self.owed) });
    }

    fn completed(&mut self, buffer: usize, result: i32) -> Result<(), Refusal> {
        if result < 0 {
            return Err(std::io::Error::from_raw_os_error(-result).into());
        }
        let group = self.groups.iter_mut().find(|group| group.buffer == buffer);
        group.expect("it is on its way").operations_left -= 1;
        Ok(())
    }

    /// The answers that may go now, of the oldest group; its buffer is free.
    fn next_durable(&mut self) -> Option<Owed> {
        if self.groups.front()?.operations_left > 0 {
            return None;
        }
        let group = self.groups.pop_front()?;
        self.free.push(group.buffer);
        Some(group.owed)
    }
}
