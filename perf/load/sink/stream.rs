//! Stream: requests out of a connection's bytes, of which records are never looked at.
//!
//! A Produce is read as it comes: its front, then for each partition the batch's header, and behind it so
//! many bytes that are nobody's. Every step reads all it wants or nothing and is tried again with more bytes.

use super::requests::{Broker, TopicPlace};
use crate::Failure;
use crate::responses::PRODUCE_VERSION;
use corelane::base::ids::{CorrelationId, TopicId};
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::frame::{self, LENGTH_BYTES, REQUEST_BYTES_MIN};
use corelane::protocol::header::{HeaderError, RequestHeader, begin_response};
use corelane::protocol::produce_response::{ProducePartitionResponse, ProduceResponse};
use corelane::protocol::reader::{DecodeError, Reader};
use corelane::protocol::record_batch::{BatchHeader, HEADER_BYTES};

/// Largest request believed.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// Records from which the rest is thrown away by the kernel.
const LARGE_BYTES: usize = 64 << 10;

#[derive(Default)]
pub struct Stream {
    /// Received, and too little for the step they belong to.
    unread: Vec<u8>,
    step: Step,
    produce: Produce,
    /// The last records were large.
    is_large: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Step {
    #[default]
    Request,
    Topic,
    Partition,
    /// So many bytes of records.
    Records(usize),
    /// The tagged fields behind records, and whatever ends with them.
    Behind,
}

/// The Produce request that is being read.
#[derive(Default)]
struct Produce {
    correlation_id: i32,
    is_answered: bool,
    /// Of the frame, not read yet.
    left_bytes: usize,
    topics_left: usize,
    partitions_left: usize,
    /// Topics, and how many partitions of each.
    topics: Vec<(TopicPlace, usize)>,
    partitions: Vec<ProducePartitionResponse<'static>>,
}

impl Stream {
    /// Bytes that may be thrown away without a look at them.
    pub fn skipped_bytes(&self) -> usize {
        match self.step {
            Step::Records(bytes) => bytes,
            _ => 0,
        }
    }

    /// Precondition: `bytes <= skipped_bytes()`.
    pub fn skip(&mut self, bytes: usize) {
        let left_bytes = self.skipped_bytes() - bytes;
        self.produce.left_bytes -= bytes;
        self.step = if left_bytes > 0 { Step::Records(left_bytes) } else { Step::Behind };
    }

    /// What comes next will be thrown away, too, as far as one can tell.
    pub fn is_large(&self) -> bool {
        self.is_large
    }

    /// Reads `bytes` and appends answers to `out`.
    pub fn feed(&mut self, bytes: &[u8], broker: &mut Broker, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.unread.is_empty() {
            let read_bytes = self.read(bytes, broker, out)?;
            self.unread.extend_from_slice(&bytes[read_bytes..]);
        } else {
            let mut unread = std::mem::take(&mut self.unread);
            unread.extend_from_slice(bytes);
            let read_bytes = self.read(&unread, broker, out)?;
            unread.drain(..read_bytes);
            self.unread = unread;
        }
        Ok(())
    }

    /// Takes as many steps as it can; returns how many bytes they were.
    fn read(&mut self, bytes: &[u8], broker: &mut Broker, out: &mut Vec<u8>) -> Result<usize, Failure> {
        let mut rest = bytes;
        loop {
            if let Step::Records(bytes) = self.step {
                let skipped = bytes.min(rest.len());
                self.skip(skipped);
                rest = &rest[skipped..];
                if skipped < bytes {
                    break;
                }
            }
            let (step_bytes, is_whole) = match self.step {
                Step::Request => (rest, false),
                _ => {
                    let whole = self.produce.left_bytes;
                    (&rest[..rest.len().min(whole)], rest.len() >= whole)
                }
            };
            let taken = match self.take(step_bytes, broker, out) {
                Err(StepError::Short) if is_whole => {
                    return Err(Failure::new("a Produce request that ends inside a field"));
                }
                Err(StepError::Short) => break,
                Err(StepError::Broken(failure)) => return Err(failure),
                Ok(taken) => taken,
            };
            rest = &rest[taken..];
        }
        Ok(bytes.len() - rest.len())
    }

    /// One step; returns its bytes.
    fn take(&mut self, bytes: &[u8], broker: &mut Broker, out: &mut Vec<u8>) -> Result<usize, StepError> {
        if matches!(self.step, Step::Request) {
            return self.request(bytes, broker, out);
        }
        let mut reader = Reader::new(bytes, true);
        let is_end = match self.step {
            Step::Topic => {
                self.topic(&mut reader, broker)?;
                false
            }
            Step::Partition => {
                self.partition(&mut reader, broker)?;
                false
            }
            _ => self.behind(&mut reader)?,
        };
        let taken = bytes.len() - reader.rest().len();
        self.produce.left_bytes -= taken;
        if is_end {
            self.produce.end(broker, out)?;
        }
        Ok(taken)
    }

    fn request(&mut self, bytes: &[u8], broker: &mut Broker, out: &mut Vec<u8>) -> Result<usize, StepError> {
        let (prefix, behind) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(StepError::Short)?;
        let frame_bytes = frame::frame_bytes(*prefix, FRAME_BYTES_MAX).map_err(Failure::from)?;
        if behind.len() < REQUEST_BYTES_MIN {
            return Err(StepError::Short);
        }
        let (front, is_whole) = (&behind[..behind.len().min(frame_bytes)], behind.len() >= frame_bytes);
        let (header, body) = match RequestHeader::parse(front) {
            Err(HeaderError::Malformed(DecodeError::Truncated)) if !is_whole => return Err(StepError::Short),
            outcome => outcome.map_err(Failure::from)?,
        };
        if header.key != ApiKey::Produce {
            if !is_whole {
                return Err(StepError::Short);
            }
            broker.answer(&header, body, out)?;
            return Ok(LENGTH_BYTES + frame_bytes);
        }
        if header.version != PRODUCE_VERSION {
            return Err(Failure::new(format!("it serves Produce version {PRODUCE_VERSION} only")).into());
        }
        let (acks, topics_left, rest) = match produce_front(body) {
            Err(StepError::Short) if is_whole => {
                return Err(Failure::new("a Produce request that ends in its front").into());
            }
            front => front?,
        };
        let taken = front.len() - rest.len();
        self.produce.begin(header.correlation_id, acks != 0, topics_left, frame_bytes - taken);
        self.step = Step::Topic;
        Ok(LENGTH_BYTES + taken)
    }

    fn topic(&mut self, reader: &mut Reader<'_>, broker: &Broker) -> Result<(), StepError> {
        let place = broker.place(reader.string()?);
        let partitions = count(reader)?;
        self.produce.topics_left -= 1;
        self.produce.partitions_left = partitions;
        self.produce.topics.push((place, partitions));
        self.step = Step::Partition;
        Ok(())
    }

    fn partition(&mut self, reader: &mut Reader<'_>, broker: &mut Broker) -> Result<(), StepError> {
        let partition = reader.i32()?;
        let records_bytes = count(reader)?;
        if !(HEADER_BYTES..self.produce.left_bytes).contains(&records_bytes) {
            return Err(
                Failure::new("records shorter than a batch header, or longer than their request").into()
            );
        }
        let header = BatchHeader::view(reader.rest()).ok_or(StepError::Short)?;
        let records = i64::from(header.last_offset_delta.get()) + 1;
        let (place, _) = self.produce.topics.last().expect("a partition is of a topic");
        self.produce.partitions.push(broker.append(*place, partition, records));
        self.produce.partitions_left -= 1;
        self.is_large = records_bytes >= LARGE_BYTES;
        self.step = Step::Records(records_bytes);
        Ok(())
    }

    /// True at the request's end.
    fn behind(&mut self, reader: &mut Reader<'_>) -> Result<bool, StepError> {
        reader.skip_tagged_fields()?;
        if self.produce.partitions_left > 0 {
            self.step = Step::Partition;
            return Ok(false);
        }
        reader.skip_tagged_fields()?;
        if self.produce.topics_left > 0 {
            self.step = Step::Topic;
            return Ok(false);
        }
        reader.skip_tagged_fields()?;
        self.step = Step::Request;
        Ok(true)
    }
}

impl Produce {
    fn begin(
        &mut self,
        correlation_id: CorrelationId,
        is_answered: bool,
        topics_left: usize,
        left_bytes: usize,
    ) {
        (self.correlation_id, self.is_answered) = (correlation_id.0, is_answered);
        (self.topics_left, self.left_bytes) = (topics_left, left_bytes);
        self.topics.clear();
        self.partitions.clear();
    }

    fn end(&mut self, broker: &Broker, out: &mut Vec<u8>) -> Result<(), StepError> {
        if self.left_bytes > 0 {
            return Err(Failure::new("bytes follow a Produce request").into());
        }
        if !self.is_answered {
            return Ok(());
        }
        let at = begin_response(out, ApiKey::Produce, PRODUCE_VERSION, CorrelationId(self.correlation_id));
        let mut response = ProduceResponse::new(out, PRODUCE_VERSION, self.topics.len());
        let mut partitions = self.partitions.iter();
        for (place, count) in &self.topics {
            response.topic(broker.name(*place), TopicId::NONE, *count);
            partitions.by_ref().take(*count).for_each(|partition| response.partition(partition));
        }
        response.finish(0);
        frame::end(out, at, 0);
        Ok(())
    }
}

/// Acks, the number of topics, and what follows them.
fn produce_front(body: &[u8]) -> Result<(i16, usize, &[u8]), StepError> {
    let mut reader = Reader::new(body, true);
    reader.nullable_string()?;
    let acks = reader.i16()?;
    reader.i32()?;
    let topics = count(&mut reader)?;
    Ok((acks, topics, reader.rest()))
}

/// A compact length or count of at least 1: no request of a load has an empty list.
fn count(reader: &mut Reader<'_>) -> Result<usize, StepError> {
    match reader.uvarint()? {
        0 | 1 => Err(Failure::new("an empty list in a Produce request").into()),
        count => Ok(count as usize - 1),
    }
}

enum StepError {
    /// More bytes are needed.
    Short,
    Broken(Failure),
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        Self::Broken(failure)
    }
}

impl From<DecodeError> for StepError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Truncated => Self::Short,
            error => Self::Broken(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::ProduceFrame;
    use crate::responses::read_produce;
    use crate::template::tests::content;
    use crate::template::{BatchSize, Template};
    use corelane::protocol::compression::Codecs;

    fn broker() -> Broker {
        let mut broker = Broker::new("127.0.0.1:9".parse().expect("an address"), 1);
        // CreateTopics version 2 of topic "t" with 9 partitions.
        let create = [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0];
        let header = RequestHeader {
            key: ApiKey::CreateTopics,
            version: 2,
            correlation_id: CorrelationId(1),
            client_id: "",
        };
        assert!(broker.answer(&header, &create, &mut Vec::new()).is_ok());
        broker
    }

    /// Two requests for partitions 4 and 8, of which one isn't answered, and a question for versions.
    fn requests() -> Vec<u8> {
        let template = Template::new(&content(7, 50, BatchSize::Records(10)));
        let mut bytes = Vec::new();
        for (correlation_id, acks) in [(1, -1), (2, 0), (3, -1)] {
            let mut frame = ProduceFrame::new("t", acks, &[4, 8], |partition| {
                template.batch_of(partition, 3, &mut Codecs::default(), || [0; _])
            });
            frame.set_correlation_id(correlation_id);
            bytes.extend(frame.bytes);
        }
        bytes.extend([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 4, 0, 0]);
        bytes
    }

    /// Correlation ids, and base offsets of each partition.
    fn read(answers: &[u8]) -> Vec<(i32, Vec<(i32, i64)>)> {
        let mut rest = answers;
        let mut found = Vec::new();
        while let frame::Split::Frame { frame, rest: behind } = frame::split(rest, 1 << 20).expect("whole") {
            rest = behind;
            let mut partitions = Vec::new();
            let outcome =
                read_produce(frame, |produced| partitions.push((produced.partition, produced.base_offset)));
            let id = i32::from_be_bytes(frame[..4].try_into().expect("4 bytes"));
            assert!(outcome == Ok(id) || id == 4);
            found.push((id, partitions));
        }
        assert!(rest.is_empty());
        found
    }

    #[test]
    fn a_stream_cut_anywhere_gets_the_answers_of_a_broker() {
        let requests = requests();
        let expected = [(1, vec![(4, 0), (8, 0)]), (3, vec![(4, 20), (8, 20)]), (4, Vec::new())];
        for cut in 0..=requests.len() {
            let (mut broker, mut stream, mut out) = (broker(), Stream::default(), Vec::new());
            for part in [&requests[..cut], &requests[cut..]] {
                assert!(stream.feed(part, &mut broker, &mut out).is_ok(), "{cut}");
            }
            assert_eq!(read(&out), expected, "{cut}");
        }
    }

    #[test]
    fn records_that_are_thrown_away_are_as_good_as_read() {
        let requests = requests();
        let (mut broker, mut stream, mut out) = (broker(), Stream::default(), Vec::new());
        let mut rest = &requests[..];
        while !rest.is_empty() {
            let skipped = stream.skipped_bytes();
            if skipped > 0 {
                stream.skip(skipped);
                rest = &rest[skipped..];
            } else {
                assert!(stream.feed(&rest[..1], &mut broker, &mut out).is_ok());
                rest = &rest[1..];
            }
        }
        assert_eq!(read(&out).len(), 3);
    }

    #[test]
    fn broken_requests_end_the_connection() {
        let whole = requests();
        // An unknown key, an old version, a length within the front and one within the records.
        for (at, byte) in [(5, 99), (7, 8), (3, 40), (2, 1)] {
            let mut broken = whole.clone();
            broken[at] = byte;
            let outcome = Stream::default().feed(&broken, &mut broker(), &mut Vec::new());
            assert!(outcome.is_err(), "{at}");
        }
    }
}
