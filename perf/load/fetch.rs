//! Fetch: readers that follow partitions over one or more connections, one long poll each.

use crate::Failure;
use crate::client::{Leaders, code_name, write_header};
use crate::descriptors;
use crate::frame_stream::FrameStream;
use crate::responses::{FETCH_VERSION, Fetched, read_fetch};
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::frame;
use corelane::protocol::record_batch::BatchHeader;
use corelane::protocol::writer::Writer;
use corelane::ring::{Completion, Ring, RingOptions, Sleep, SocketId, Token};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

/// A listener's queue holds so many at least.
const CONNECTS_AT_ONCE: usize = 128;

/// Pause before asking again where an error was answered.
const ERROR_PAUSE_NS: u64 = 50_000_000;

#[derive(Clone, Debug)]
pub struct FetchLimits {
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
    pub min_bytes: i32,
    pub max_wait_ms: i32,
}

/// Where a reader is in a partition.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub partition: i32,
    pub offset: i64,
    /// Nothing is read from here on.
    pub end: Option<i64>,
    /// Begins here again at the end of the log.
    pub again_from: Option<i64>,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }
}

impl Division {
    /// What each connection of a group reads of a leader's partitions.
    fn shares(&self, own: &[Reading]) -> Vec<Vec<Reading>> {
        let connections = self.connections.max(1);
        if self.partition_each {
            return own.iter().cycle().take(connections).map(|reading| vec![*reading]).collect();
        }
        let count = connections.min(own.len());
        (0..count).map(|index| own.iter().skip(index).step_by(count).copied().collect()).collect()
    }
}

/// What a reader tells.
pub enum Event<'a> {
    /// One whole batch; `records` of it were asked for.
    Batch { group: usize, partition: i32, batch: &'a [u8], records: u64 },
    /// The partition is read from its start again.
    Again { group: usize, partition: i32 },
}

/// How partitions are divided among connections.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// To each leader, of each group.
    pub connections: usize,
    /// Readers of everything, independent of each other.
    pub groups: usize,
    /// Each connection reads one partition, even where others read it, too.
    pub partition_each: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerCounts {
    pub all: u64,
    /// Those with records: the others are long polls that ended without.
    pub with_records: u64,
}

#[derive(Default)]
pub struct FetchCounts {
    pub answers: AnswerCounts,
    pub errors: BTreeMap<String, u64>,
}

pub struct Fetcher {
    ring: Ring,
    topic: String,
    limits: FetchLimits,
    readers: Vec<Reader>,
    sockets: HashMap<SocketId, usize>,
    pub counts: FetchCounts,
}

struct Reader {
    group: usize,
    address: SocketAddr,
    socket: Option<SocketId>,
    stream: FrameStream,
    readings: Vec<Reading>,
    /// The request's buffer; empty while it is being sent.
    request: Vec<u8>,
    is_sending: bool,
    /// An answer is outstanding.
    is_waiting: bool,
    correlation_id: i32,
    not_before_ns: u64,
}

impl Reader {
    fn new(group: usize, address: SocketAddr, readings: Vec<Reading>) -> Self {
        Self {
            group,
            address,
            socket: None,
            stream: FrameStream::default(),
            readings,
            request: Vec::new(),
            is_sending: false,
            is_waiting: false,
            correlation_id: 0,
            not_before_ns: 0,
        }
    }

    fn may_ask(&self) -> bool {
        self.socket.is_some() && !self.is_sending && !self.is_waiting && !self.is_done()
    }

    fn is_done(&self) -> bool {
        self.readings.iter().all(Reading::is_done)
    }

    fn encode(&mut self, topic: &str, limits: &FetchLimits) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.request);
        out.clear();
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let at = frame::begin(&mut out);
        write_header(&mut out, ApiKey::Fetch, FETCH_VERSION, self.correlation_id);
        let mut writer = Writer::new(&mut out, true);
        writer.i32(-1);
        writer.i32(limits.max_wait_ms);
        writer.i32(limits.min_bytes);
        writer.i32(limits.max_bytes);
        writer.i8(0);
        writer.i32(0);
        writer.i32(-1);
        writer.array(1);
        writer.string(topic);
        writer.array(self.readings.iter().filter(|reading| !reading.is_done()).count());
        for reading in self.readings.iter().filter(|reading| !reading.is_done()) {
            writer.i32(reading.partition);
            writer.i32(-1);
            writer.i64(reading.offset);
            writer.i32(-1);
            writer.i64(-1);
            writer.i32(limits.partition_max_bytes);
            writer.no_tagged_fields();
        }
        writer.no_tagged_fields();
        writer.array(0);
        writer.string("");
        writer.no_tagged_fields();
        frame::end(&mut out, at, 0);
        // A broker serves partitions in the order asked: each is first in its turn.
        self.readings.rotate_left(1);
        out
    }
}

impl Fetcher {
    /// Connects readers to each leader and divides `readings` among those of each group.
    pub fn connect(
        topic: &str,
        limits: FetchLimits,
        division: Division,
        leaders: &Leaders,
        readings: &[Reading],
    ) -> Result<Self, Failure> {
        let partitions: Vec<i32> = readings.iter().map(|reading| reading.partition).collect();
        let mut readers = Vec::new();
        for (address, own) in leaders.by_address(&partitions) {
            let own: Vec<Reading> =
                own.iter().filter_map(|p| readings.iter().find(|r| r.partition == *p)).copied().collect();
            for group in 0..division.groups {
                let shares = division.shares(&own).into_iter();
                readers.extend(shares.map(|share| Reader::new(group, address, share)));
            }
        }
        descriptors::reserve(readers.len())?;
        let options =
            RingOptions { entries_count: 1024, receive_buffers_count: 128, ..RingOptions::default() };
        let ring = Ring::kernel(&options)?;
        let mut fetcher = Self {
            ring,
            topic: topic.to_string(),
            limits,
            readers,
            sockets: HashMap::new(),
            counts: FetchCounts::default(),
        };
        fetcher.connect_all()?;
        Ok(fetcher)
    }

    fn connect_all(&mut self) -> Result<(), Failure> {
        let count = self.readers.len();
        for first in (0..count).step_by(CONNECTS_AT_ONCE) {
            let some = first..count.min(first + CONNECTS_AT_ONCE);
            let mut missing = some.len();
            for index in some {
                self.ring.connect(Token::new(0, index as u64), self.readers[index].address);
            }
            while missing > 0 {
                self.ring.turn(Sleep::Forever);
                while let Some(completion) = self.ring.next() {
                    let Completion::Connected { token, result } = completion else { continue };
                    let socket = result?;
                    let index = token.value() as usize;
                    self.readers[index].socket = Some(socket);
                    self.sockets.insert(socket, index);
                    self.ring.receive_start(socket);
                    missing -= 1;
                }
            }
        }
        Ok(())
    }

    pub fn connections(&self) -> usize {
        self.readers.len()
    }

    pub fn is_done(&self) -> bool {
        self.readers.iter().all(Reader::is_done)
    }

    pub fn now_ns(&mut self) -> u64 {
        self.ring.now().0
    }

    /// Asks where something is to be asked, sleeps until `until_ns` at most, and reads what came.
    pub fn turn(&mut self, until_ns: u64, each: &mut impl FnMut(u64, Event<'_>)) -> Result<(), Failure> {
        let now = self.now_ns();
        let mut wake_ns = until_ns;
        for index in 0..self.readers.len() {
            let reader = &mut self.readers[index];
            if !reader.may_ask() {
                continue;
            }
            if reader.not_before_ns > now {
                wake_ns = wake_ns.min(reader.not_before_ns);
                continue;
            }
            let request = reader.encode(&self.topic, &self.limits);
            (reader.is_sending, reader.is_waiting) = (true, true);
            let socket = reader.socket.expect("may ask");
            self.ring.send(Token::new(0, index as u64), socket, request, 0);
        }
        self.ring.turn(Sleep::Until(corelane::base::ids::MonotonicNs(wake_ns)));
        while let Some(completion) = self.ring.next() {
            self.complete(completion, each)?;
        }
        Ok(())
    }

    fn complete(
        &mut self,
        completion: Completion,
        each: &mut impl FnMut(u64, Event<'_>),
    ) -> Result<(), Failure> {
        match completion {
            Completion::Received { socket, bytes } => {
                let now = self.ring.now().0;
                let reader = &mut self.readers[self.sockets[&socket]];
                let Reader { group, stream, readings, is_waiting, correlation_id, not_before_ns, .. } =
                    reader;
                let counts = &mut self.counts;
                stream.feed(self.ring.received(&bytes), |frame| {
                    let errors_before = counts.errors.values().sum::<u64>();
                    let mut has_records = false;
                    let (answered, error) = read_fetch(frame, |fetched| {
                        has_records |= !fetched.records.is_empty();
                        read_partition(*group, readings, counts, now, &fetched, each);
                    })?;
                    if answered != *correlation_id {
                        return Err(Failure::new("an answer to a request that was not asked"));
                    }
                    count_error(counts, error);
                    counts.answers.all += 1;
                    counts.answers.with_records += u64::from(has_records);
                    if counts.errors.values().sum::<u64>() > errors_before {
                        *not_before_ns = now + ERROR_PAUSE_NS;
                    }
                    *is_waiting = false;
                    Ok(())
                })?;
                self.ring.received_done(bytes);
                Ok(())
            }
            Completion::Sent { token, buffer, result, .. } => {
                let reader = &mut self.readers[token.value() as usize];
                (reader.request, reader.is_sending) = (buffer, false);
                Ok(result?)
            }
            Completion::ReceiveStopped { socket } => {
                self.ring.receive_start(socket);
                Ok(())
            }
            Completion::ReceiveEnded { .. } => Err(Failure::new("the broker closed a reader's connection")),
            _ => Ok(()),
        }
    }
}

fn count_error(counts: &mut FetchCounts, code: i16) {
    if code != 0 {
        *counts.errors.entry(code_name(code)).or_default() += 1;
    }
}

/// Gives every whole batch of an answer to `each` and moves the reading behind it.
fn read_partition(
    group: usize,
    readings: &mut [Reading],
    counts: &mut FetchCounts,
    now: u64,
    fetched: &Fetched<'_>,
    each: &mut impl FnMut(u64, Event<'_>),
) {
    count_error(counts, fetched.error);
    let partition = fetched.partition;
    let Some(reading) = readings.iter_mut().find(|reading| reading.partition == partition) else {
        *counts.errors.entry("a partition that was not asked for".to_string()).or_default() += 1;
        return;
    };
    let mut rest = fetched.records;
    // The last batch of an answer may be cut.
    while let Some(size) = BatchHeader::view(rest).and_then(BatchHeader::size_bytes)
        && let Some((batch, behind)) = rest.split_at_checked(size)
    {
        rest = behind;
        let header = BatchHeader::view(batch).expect("seen just now");
        let last = header.last_offset().0;
        if last < reading.offset {
            continue;
        }
        let records = (last + 1 - reading.offset.max(header.base_offset().0)) as u64;
        reading.offset = last + 1;
        each(now, Event::Batch { group, partition, batch, records });
    }
    if let Some(start) = reading.again_from
        && fetched.error == 0
        && reading.offset >= fetched.high_watermark
    {
        reading.offset = start;
        each(now, Event::Again { group, partition });
    }
}
