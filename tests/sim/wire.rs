//! Wire: the requests and responses of the simulated clients, and the connection they go by.

use std::net::SocketAddr;

use corelane::protocol::reader::{DecodeError, Reader};
use corelane::protocol::writer::Writer;
use corelane::ring::IoError;
use corelane::ring::sim::{SimClient, World};

const PRODUCE: (i16, i16) = (0, 9);
const FETCH: (i16, i16) = (1, 12);
const INIT_PRODUCER_ID: (i16, i16) = (22, 4);

/// A connection, its unread bytes and the numbers of its requests.
pub struct Link {
    client: SimClient,
    inbound: Vec<u8>,
    correlation_next: i32,
}

impl Link {
    pub fn connect(world: &World, address: SocketAddr) -> Result<Self, IoError> {
        Ok(Self { client: world.connect(address)?, inbound: Vec::new(), correlation_next: 0 })
    }

    /// Sends a request and returns its correlation id.
    fn send(&mut self, (key, version): (i16, i16), body: impl FnOnce(&mut Writer<'_>)) -> i32 {
        let correlation_id = self.correlation_next;
        self.correlation_next += 1;
        let mut frame = vec![0; 4];
        let mut writer = Writer::new(&mut frame, false);
        writer.i16(key);
        writer.i16(version);
        writer.i32(correlation_id);
        writer.string("sim");
        writer.flexible = true;
        writer.no_tagged_fields();
        body(&mut writer);
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.client.write(&frame);
        correlation_id
    }

    /// The next whole response: its correlation id and its body.
    pub fn receive(&mut self) -> Option<(i32, Vec<u8>)> {
        self.inbound.extend(self.client.read());
        let length = u32::from_be_bytes(*self.inbound.first_chunk()?) as usize;
        if self.inbound.len() < 4 + length {
            return None;
        }
        let rest = self.inbound.split_off(4 + length);
        let frame = std::mem::replace(&mut self.inbound, rest);
        let mut reader = Reader::new(&frame[4..], true);
        let correlation_id = reader.i32().expect("a response has a header");
        reader.skip_tagged_fields().expect("a response has a header");
        Some((correlation_id, reader.rest().to_vec()))
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

pub struct ProducedPartition {
    pub partition: i32,
    pub error: i16,
    pub base_offset: i64,
}

pub fn read_produced(body: &[u8]) -> Result<Vec<ProducedPartition>, DecodeError> {
    let mut reader = Reader::new(body, true);
    let mut partitions = Vec::new();
    for _ in 0..reader.array(2)? {
        reader.string()?;
        for _ in 0..reader.array(30)? {
            let partition = reader.i32()?;
            let error = reader.i16()?;
            let base_offset = reader.i64()?;
            reader.take(16)?;
            for _ in 0..reader.array(6)? {
                reader.i32()?;
                reader.nullable_string()?;
                reader.skip_tagged_fields()?;
            }
            reader.nullable_string()?;
            reader.skip_tagged_fields()?;
            partitions.push(ProducedPartition { partition, error, base_offset });
        }
        reader.skip_tagged_fields()?;
    }
    reader.i32()?;
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(partitions)
}

pub struct FetchedPartition {
    pub partition: i32,
    pub error: i16,
    pub high_watermark: i64,
    pub records: Vec<u8>,
}

pub fn read_fetched(body: &[u8]) -> Result<Vec<FetchedPartition>, DecodeError> {
    let mut reader = Reader::new(body, true);
    reader.i32()?;
    assert_eq!(reader.i16()?, 0, "a fetch without a session has no error of its own");
    reader.i32()?;
    let mut partitions = Vec::new();
    for _ in 0..reader.array(2)? {
        reader.string()?;
        for _ in 0..reader.array(30)? {
            let partition = reader.i32()?;
            let error = reader.i16()?;
            let high_watermark = reader.i64()?;
            reader.take(16)?;
            for _ in 0..reader.nullable_array(17)?.unwrap_or(0) {
                reader.take(16)?;
                reader.skip_tagged_fields()?;
            }
            reader.i32()?;
            let records = reader.nullable_bytes()?.unwrap_or_default().to_vec();
            reader.skip_tagged_fields()?;
            partitions.push(FetchedPartition { partition, error, high_watermark, records });
        }
        reader.skip_tagged_fields()?;
    }
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(partitions)
}

pub fn read_producer_id(body: &[u8]) -> Result<Result<(i64, i16), i16>, DecodeError> {
    let mut reader = Reader::new(body, true);
    reader.i32()?;
    let error = reader.i16()?;
    let producer = (reader.i64()?, reader.i16()?);
    reader.skip_tagged_fields()?;
    reader.finish()?;
    Ok(if error == 0 { Ok(producer) } else { Err(error) })
}
