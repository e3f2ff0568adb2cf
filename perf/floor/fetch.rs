//! Fetch: answers each request with one batch of 1 MiB, from memory, from the page cache, or from the disk.
//!
//! Batches lie in the order in which one reader that takes the partitions by turns asks for them: batch `k` is
//! number `k / partitions` of partition `k % partitions`.

use crate::disk::{MIB, Region, open_direct, prepare};
use crate::frames::{Frame, Frames};
use crate::handshake::{Handshake, Refusal};
use crate::network::{Event, Network, Received};
use crate::{FetchOptions, Source};
use corelane::base::ids::{PartitionId, TopicId};
use corelane::base::random::Random;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::Codecs;
use corelane::protocol::error_code::ErrorCode;
use corelane::protocol::fetch_request::FetchRequest;
use corelane::protocol::fetch_response::{
    FetchFrame, FetchPartitionResponse, FetchResponse, FetchResponseHead,
};
use corelane::protocol::header::RequestHeader;
use io_uring::{opcode, types};
use std::collections::VecDeque;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

const RECORD_BYTES: usize = 1024;
/// Reads in flight or waiting to be asked for.
const AHEAD_COUNT: usize = 4;

/// A batch of exactly 1 MiB and the number of its records.
fn batch() -> (Vec<u8>, usize) {
    let mut random = Random::new(1);
    let mut values = vec![0; MIB];
    random.fill(&mut values);
    let built = |last_bytes: usize| {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let mut count = 1;
        while builder.size_bytes() + 2 * (RECORD_BYTES + 20) < MIB {
            builder.push(0, None, Some(&values[count * RECORD_BYTES..][..RECORD_BYTES]), &[]);
            count += 1;
        }
        builder.push(0, None, Some(&values[..last_bytes]), &[]);
        (builder.finish(&mut Codecs::default()), count)
    };
    // The last record fills up: one byte more of it is one byte more of the batch, but where its length's varint grows.
    let missing = MIB - built(RECORD_BYTES).0.len();
    let found = (RECORD_BYTES + missing - 2..=RECORD_BYTES + missing)
        .map(built)
        .find(|(batch, _)| batch.len() == MIB);
    found.expect("a value of some length fills the batch")
}

/// What is where in the log.
struct Layout {
    partitions: usize,
    batches_count: usize,
    records_per_batch: usize,
}

impl Layout {
    fn end_offset(&self) -> usize {
        self.batches_count / self.partitions * self.records_per_batch
    }

    fn base_offset(&self, batch: usize) -> usize {
        batch / self.partitions * self.records_per_batch
    }

    /// The batch with that offset; none at the end.
    fn batch_at(&self, partition: usize, offset: usize) -> Option<usize> {
        let is_there = partition < self.partitions && offset < self.end_offset();
        is_there.then(|| offset / self.records_per_batch * self.partitions + partition)
    }
}

pub fn run(listen: SocketAddr, options: &FetchOptions) -> Result<(), Refusal> {
    let (batch, records_per_batch) = batch();
    let batches_count = options.file_mib / options.partitions * options.partitions;
    let layout = Layout { partitions: options.partitions, batches_count, records_per_batch };
    let fill = |index: usize, bytes: &mut [u8]| {
        bytes.copy_from_slice(&batch);
        // In front of what the checksum covers.
        bytes[..8].copy_from_slice(&(layout.base_offset(index) as i64).to_be_bytes());
    };
    let path = options.file.as_deref();
    let mut network;
    let records = match options.source {
        Source::Memory => {
            let mut region = Region::new(batches_count * MIB)?;
            region.bytes().chunks_mut(MIB).enumerate().for_each(|(index, bytes)| fill(index, bytes));
            network = Network::listen(listen)?;
            Records::Memory(region)
        }
        Source::Sendfile => {
            let path = path.ok_or("sendfile needs --file")?;
            prepare(path, batches_count, false, fill)?;
            network = Network::listen(listen)?;
            Records::Sendfile(File::open(path)?)
        }
        Source::Direct => {
            let path = path.ok_or("direct reads need --file")?;
            prepare(path, batches_count, true, fill)?;
            network = Network::listen(listen)?;
            Records::Direct(Ahead::new(open_direct(path)?, batches_count, &mut network)?)
        }
    };
    let handshake = Handshake::new(listen, options.partitions, layout.end_offset() as i64);
    let mut floor =
        Floor { network, handshake, layout, records, clients: Vec::new(), scratch: vec![0; 64 * 1024] };
    let mut events = Vec::new();
    loop {
        floor.network.turn(&mut events)?;
        for event in events.drain(..) {
            floor.see(event)?;
        }
    }
}

enum Records {
    Memory(Region),
    Sendfile(File),
    Direct(Ahead),
}

#[derive(Default)]
struct Client {
    frames: Frames,
    answer: Option<Answer>,
}

/// A Fetch answer on its way. The part in front of the records goes through the socket's own queue.
struct Answer {
    behind: Vec<u8>,
    batch: usize,
    sent_bytes: usize,
}

struct Floor {
    network: Network,
    handshake: Handshake,
    layout: Layout,
    records: Records,
    clients: Vec<Client>,
    scratch: Vec<u8>,
}

impl Floor {
    fn see(&mut self, event: Event) -> Result<(), Refusal> {
        match event {
            Event::Ready(index) => {
                if self.clients.len() <= index {
                    self.clients.resize_with(index + 1, Client::default);
                }
                self.read(index)?;
                self.send(index)
            }
            Event::File { index, result } => {
                let Records::Direct(ahead) = &mut self.records else {
                    return Err("no read was asked for".into());
                };
                ahead.completed(index, result)?;
                (0..self.clients.len()).try_for_each(|client| self.send(client))
            }
        }
    }

    fn read(&mut self, index: usize) -> Result<(), Refusal> {
        let Self { network, handshake, layout, clients, scratch, .. } = self;
        loop {
            let bytes = match network.receive(index, scratch) {
                Received::Bytes(bytes) => bytes,
                Received::WouldBlock => return Ok(()),
                Received::Closed => {
                    network.close(index);
                    clients[index].answer = None;
                    return Ok(());
                }
            };
            let Client { frames, answer } = &mut clients[index];
            let mut outcome = Ok(());
            frames.feed(
                &scratch[..bytes],
                false,
                |_| false,
                |frame| {
                    if let (Frame::Cold(frame), Some(out)) = (frame, network.out(index))
                        && outcome.is_ok()
                    {
                        outcome =
                            take(frame, handshake, layout, out).map(|new| *answer = new.or(answer.take()));
                    }
                },
            )?;
            outcome?;
        }
    }

    /// Sends as much as the socket takes and the source has.
    fn send(&mut self, index: usize) -> Result<(), Refusal> {
        let Self { network, records, clients, .. } = self;
        if !network.flush(index) {
            return Ok(());
        }
        let (Some(answer), Some(fd)) = (&mut clients[index].answer, network.fd(index)) else { return Ok(()) };
        while answer.sent_bytes < MIB {
            let (at, left_bytes) = (answer.sent_bytes, MIB - answer.sent_bytes);
            let position = answer.batch * MIB + at;
            let sent = match records {
                Records::Memory(region) => send_from(fd, region.at(position), left_bytes),
                Records::Sendfile(file) => {
                    let mut position = position as i64;
                    // SAFETY: both are open, and the position is our own.
                    unsafe { libc::sendfile(fd, file.as_raw_fd(), &raw mut position, left_bytes) }
                }
                Records::Direct(ahead) => match ahead.batch(answer.batch, network) {
                    Some(slot) => send_from(fd, ahead.region.at(slot * MIB + at), left_bytes),
                    None => return Ok(()),
                },
            };
            match usize::try_from(sent) {
                Ok(bytes) if bytes > 0 => answer.sent_bytes += bytes,
                _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock => {
                    return Ok(());
                }
                _ => {
                    network.close(index);
                    return Ok(());
                }
            }
        }
        if let Records::Direct(ahead) = records {
            ahead.done(network);
        }
        let behind = clients[index].answer.take().expect("just sent").behind;
        network.out(index).into_iter().for_each(|out| out.extend_from_slice(&behind));
        network.flush(index);
        Ok(())
    }
}

fn send_from(fd: i32, start: *const u8, bytes: usize) -> isize {
    // SAFETY: the callers' regions hold that many bytes from there, and are not written meanwhile.
    unsafe { libc::send(fd, start.cast(), bytes, libc::MSG_NOSIGNAL) }
}

/// Answers a request: all of it to `out`, or the part of a Fetch answer that is in front of the records.
fn take(
    frame: &[u8],
    handshake: &mut Handshake,
    layout: &Layout,
    out: &mut Vec<u8>,
) -> Result<Option<Answer>, Refusal> {
    let (header, body) = RequestHeader::parse(frame).map_err(|_| "not a request header")?;
    if header.key != ApiKey::Fetch {
        handshake.answer(&header, body, out)?;
        return Ok(None);
    }
    let request = FetchRequest::parse(header.version, body)?;
    let topic = request.topics().next().ok_or("a Fetch request without a topic")?;
    let mut found = topic.partitions().filter_map(|wanted| {
        let (partition, offset) =
            (usize::try_from(wanted.partition.0).ok()?, usize::try_from(wanted.fetch_offset).ok()?);
        layout.batch_at(partition, offset).map(|batch| (wanted.partition, batch))
    });
    // At the end of every partition the client waits for ever: nothing is written here.
    let Some((partition, batch)) = found.next() else { return Ok(None) };
    let response = fetch_response(&header, topic.name, partition, layout.end_offset() as i64);
    let (front, behind) = response.bytes.split_at(response.holes[0].at);
    out.extend_from_slice(front);
    Ok(Some(Answer { behind: behind.to_vec(), batch, sent_bytes: 0 }))
}

fn fetch_response(
    header: &RequestHeader<'_>,
    topic: &str,
    partition: PartitionId,
    end_offset: i64,
) -> FetchFrame {
    let head = FetchResponseHead { throttle_ms: 0, error: ErrorCode::None, session_id: 0 };
    let mut response =
        FetchResponse::new(FetchFrame::default(), header.version, header.correlation_id, head, 1);
    response.topic(topic, TopicId::NONE, 1);
    response.partition(&FetchPartitionResponse {
        high_watermark: end_offset,
        last_stable_offset: end_offset,
        log_start_offset: 0,
        records_bytes: MIB,
        ..FetchPartitionResponse::failed(partition, ErrorCode::None)
    });
    response.finish()
}

/// Reads batches one behind the other before they are asked for.
struct Ahead {
    file: File,
    batches_count: usize,
    region: Region,
    /// Oldest first: the batch, and whether it is there. The buffer of a batch follows from its place in the order of reads.
    reads: VecDeque<(usize, bool)>,
    first_slot: usize,
    next: usize,
}

impl Ahead {
    fn new(file: File, batches_count: usize, network: &mut Network) -> Result<Self, Refusal> {
        let region = Region::new(AHEAD_COUNT * MIB)?;
        let registered = libc::iovec { iov_base: region.at(0).cast(), iov_len: AHEAD_COUNT * MIB };
        // SAFETY: the region lives as long as the process.
        unsafe { network.ring.submitter().register_buffers(&[registered])? };
        Ok(Self { file, batches_count, region, reads: VecDeque::new(), first_slot: 0, next: 0 })
    }

    /// The buffer with the batch once it is there. Another one than was expected makes it begin again there.
    fn batch(&mut self, batch: usize, network: &mut Network) -> Option<usize> {
        match self.reads.front() {
            Some((first, is_there)) if *first == batch => is_there.then_some(self.first_slot),
            _ if self.reads.iter().all(|(_, is_there)| *is_there) => {
                (self.next, self.first_slot) = (batch, 0);
                self.reads.clear();
                self.fill(network);
                None
            }
            _ => None,
        }
    }

    /// The oldest batch was sent.
    fn done(&mut self, network: &mut Network) {
        self.reads.pop_front();
        self.first_slot = (self.first_slot + 1) % AHEAD_COUNT;
        self.fill(network);
    }

    fn fill(&mut self, network: &mut Network) {
        while self.reads.len() < AHEAD_COUNT.min(self.batches_count) {
            let slot = (self.first_slot + self.reads.len()) % AHEAD_COUNT;
            let fd = types::Fd(self.file.as_raw_fd());
            let read = opcode::ReadFixed::new(fd, self.region.at(slot * MIB), MIB as u32, 0)
                .offset((self.next * MIB) as u64)
                .build();
            // SAFETY: nobody looks at the buffer until the read is noted as there.
            unsafe { network.push(&Network::file_operation(read, slot)) };
            self.reads.push_back((self.next, false));
            self.next = (self.next + 1) % self.batches_count;
        }
    }

    fn completed(&mut self, slot: usize, result: i32) -> Result<(), Refusal> {
        if result != MIB as i32 {
            return Err(format!("a read gave {result}").into());
        }
        let place = (slot + AHEAD_COUNT - self.first_slot) % AHEAD_COUNT;
        self.reads[place].1 = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane::protocol::record_batch::validate;

    #[test]
    fn the_batch_is_a_valid_one_of_exactly_one_mib() {
        let (batch, records_count) = batch();
        assert_eq!(batch.len(), MIB);
        assert_eq!(validate(&batch).expect("valid").records_count.get() as usize, records_count);
    }

    #[test]
    fn a_reader_that_takes_partitions_by_turns_reads_the_file_in_order() {
        let layout = Layout { partitions: 4, batches_count: 12, records_per_batch: 10 };
        let mut offsets = [0; 4];
        for batch in 0..12 {
            let partition = batch % 4;
            assert_eq!(layout.batch_at(partition, offsets[partition]), Some(batch));
            assert_eq!(layout.base_offset(batch), offsets[partition]);
            offsets[partition] += 10;
        }
        assert_eq!((layout.end_offset(), layout.batch_at(0, 30), layout.batch_at(4, 0)), (30, None, None));
    }
}
