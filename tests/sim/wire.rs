//! Wire: the requests and responses of the simulated clients, and the connection they go by.

#[path = "../../perf/load/responses.rs"]
mod responses;

use std::net::SocketAddr;

use corelane::base::ids::MonotonicNs;
use corelane::net::inbound::{Flow, FrameBuffers, Inbound};
use corelane::protocol::frame;
use corelane::protocol::reader::{DecodeError, Reader};
use corelane::protocol::writer::Writer;
use corelane::ring::IoError;
use corelane::ring::sim::{SimClient, World};
pub use responses::Fetched as FetchedPartition;
use responses::Produced;

const PRODUCE: (i16, i16) = (0, responses::PRODUCE_VERSION);
const FETCH: (i16, i16) = (1, responses::FETCH_VERSION);
const INIT_PRODUCER_ID: (i16, i16) = (22, 4);

/// Largest answer believed.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A connection, its unread bytes and the numbers of its requests.
pub struct Link {
    client: SimClient,
    inbound: Inbound,
    buffers: FrameBuffers,
    correlation_next: i32,
}

impl Link {
    pub fn connect(world: &World, address: SocketAddr) -> Result<Self, IoError> {
        let client = world.connect(address)?;
        Ok(Self {
            client,
            inbound: Inbound::default(),
            buffers: FrameBuffers::default(),
            correlation_next: 0,
        })
    }

    /// Sends a request and returns its correlation id.
    fn send(&mut self, (key, version): (i16, i16), body: impl FnOnce(&mut Writer<'_>)) -> i32 {
        let correlation_id = self.correlation_next;
        self.correlation_next += 1;
        let mut frame = Vec::new();
        let at = frame::begin(&mut frame);
        let mut writer = Writer::new(&mut frame, false);
        writer.i16(key);
        writer.i16(version);
        writer.i32(correlation_id);
        writer.string("sim");
        writer.flexible = true;
        writer.no_tagged_fields();
        body(&mut writer);
        frame::end(&mut frame, at, 0);
        self.client.write(&frame);
        correlation_id
    }

    /// The next whole response and its correlation id.
    pub fn receive(&mut self) -> Option<(i32, Vec<u8>)> {
        let mut answer = None;
        let handle = |frame: &[u8], _| {
            answer = Some(frame.to_vec());
            Flow::Pause
        };
        let (bytes, now) = (self.client.read(), MonotonicNs::default());
        let outcome = self.inbound.push(&bytes, now, &mut self.buffers, |_| ANSWER_BYTES_MAX, handle);
        outcome.expect("the broker sends frames");
        let answer = answer?;
        let correlation_id = Reader::new(&answer, true).i32().expect("a response has a header");
        Some((correlation_id, answer))
    }

    /// The broker or the network ended the connection, and nothing whole is left to read.
    pub fn has_ended(&self) -> bool {
        self.client.ended().is_some()
    }

    // ---- Requests ----------------------------------------------------------------------------

    pub fn produce(&mut self, topic: &str, timeout_ms: i32, batches: &[(i32, &[u8])]) -> i32 {
        self.send(PRODUCE, |writer| {
            writer.nullable_string(None);
            writer.i16(-1);
            writer.i32(timeout_ms);
            writer.array(1);
            writer.string(topic);
            writer.array(batches.len());
            for (partition, batch) in batches {
                writer.i32(*partition);
                writer.bytes(batch);
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
            writer.no_tagged_fields();
        })
    }

    pub fn fetch(&mut self, topic: &str, max_wait_ms: i32, bytes_max: i32, from: &[(i32, i64)]) -> i32 {
        self.send(FETCH, |writer| {
            writer.i32(-1);
            writer.i32(max_wait_ms);
            writer.i32(1);
            writer.i32(i32::MAX);
            writer.i8(0);
            writer.i32(0);
            writer.i32(-1);
            writer.array(1);
            writer.string(topic);
            writer.array(from.len());
            for (partition, offset) in from {
                writer.i32(*partition);
                writer.i32(-1);
                writer.i64(*offset);
                writer.i32(-1);
                writer.i64(-1);
                writer.i32(bytes_max);
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
            writer.array(0);
            writer.string("");
            writer.no_tagged_fields();
        })
    }

    pub fn init_producer_id(&mut self) -> i32 {
        self.send(INIT_PRODUCER_ID, |writer| {
            writer.nullable_string(None);
            writer.i32(60_000);
            writer.i64(-1);
            writer.i16(-1);
            writer.no_tagged_fields();
        })
    }
}

// ---- Responses -------------------------------------------------------------------------------

pub fn read_produced(answer: &[u8]) -> Result<Vec<Produced>, DecodeError> {
    let mut partitions = Vec::new();
    responses::read_produce(answer, |partition| partitions.push(partition))?;
    Ok(partitions)
}

pub fn read_fetched(answer: &[u8]) -> Result<Vec<FetchedPartition<'_>>, DecodeError> {
    let mut partitions = Vec::new();
    let (_, error) = responses::read_fetch(answer, |partition| partitions.push(partition))?;
    assert_eq!(error, 0, "a fetch without a session has no error of its own");
    Ok(partitions)
}

pub fn read_producer_id(answer: &[u8]) -> Result<Result<(i64, i16), i16>, DecodeError> {
    let mut reader = Reader::new(answer, true);
    // Correlation id, the header's tags, throttle time.
    reader.i32()?;
    reader.skip_tagged_fields()?;
    reader.i32()?;
    let error = reader.i16()?;
    let producer = (reader.i64()?, reader.i16()?);
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(if error == 0 { Ok(producer) } else { Err(error) })
}
