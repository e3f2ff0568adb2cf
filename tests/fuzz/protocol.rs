//! Protocol: frames, headers, the views of hot messages, record batches, codecs.

use crate::recorded;
use corelane::base::checksum::crc32c;
use corelane::base::ids::{MonotonicNs, ProducerEpoch, ProducerId};
use corelane::net::inbound::{Flow, FrameBuffers, Inbound};
use corelane::protocol::api_versions::ApiVersionsRequest;
use corelane::protocol::batch_body::{batch_records, recompress};
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::{Codec, Codecs};
use corelane::protocol::fetch_request::FetchRequest;
use corelane::protocol::frame::{Split, split};
use corelane::protocol::header::RequestHeader;
use corelane::protocol::produce_request::ProduceRequest;
use corelane::protocol::record::RecordHeader;
use corelane::protocol::record_batch::{BatchHeader, CRC_START, validate};
use corelane::protocol::writer::Writer;

const LIMIT_BYTES: usize = 4096;

/// The first byte of an input chooses a version; the rest is the body.
fn version_and_body(input: &[u8]) -> (i16, &[u8]) {
    input.split_first().map_or((0, input), |(version, body)| (i16::from(*version % 24) - 1, body))
}

fn with_version(version: i16, body: Vec<u8>) -> Vec<u8> {
    [&[(version + 1) as u8][..], &body].concat()
}

pub fn frame(input: &[u8]) {
    let mut rest = input;
    while let Ok(Split::Frame { frame, rest: behind }) = split(rest, LIMIT_BYTES) {
        assert!((8..=LIMIT_BYTES).contains(&frame.len()));
        assert_eq!(frame.len() + behind.len() + 4, rest.len());
        rest = behind;
    }
}

/// The same frames come out whether the stream comes whole or in pieces.
pub fn inbound(input: &[u8]) {
    let whole = frames_of(&[input]);
    let cut = input.first().map_or(1, |byte| usize::from(*byte % 61) + 1);
    let pieces: Vec<&[u8]> = input.chunks(cut).collect();
    assert_eq!(frames_of(&pieces), whole);
}

fn frames_of(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut inbound, mut buffers) = (Inbound::default(), FrameBuffers::default());
    let mut frames = Vec::new();
    for piece in pieces {
        let flow = inbound.push(
            piece,
            MonotonicNs::default(),
            &mut buffers,
            |_| LIMIT_BYTES,
            |frame, _| {
                frames.push(frame.to_vec());
                Flow::Continue
            },
        );
        if flow.is_err() {
            return (frames, true);
        }
        assert!(inbound.pending_bytes() <= LIMIT_BYTES + 4, "no more than one frame is kept");
    }
    (frames, false)
}

pub fn header(input: &[u8]) {
    if let Ok((header, body)) = RequestHeader::parse(input) {
        assert!(header.client_id.len() + body.len() + 8 <= input.len());
    }
}

pub fn api_versions(input: &[u8]) {
    let (version, body) = version_and_body(input);
    if let Ok(request) = ApiVersionsRequest::parse(version, body) {
        request.has_legal_software_names();
    }
}

pub fn produce(input: &[u8]) {
    let (version, body) = version_and_body(input);
    let Ok(request) = ProduceRequest::parse(version, body) else { return };
    let mut bytes = 0;
    let mut count = 0;
    for topic in request.topics() {
        for partition in topic.partitions() {
            bytes += partition.records.map_or(0, <[u8]>::len);
            count += 1;
        }
    }
    assert!(bytes + count * 5 <= body.len(), "what is seen is in the body");
}

pub fn fetch(input: &[u8]) {
    let (version, body) = version_and_body(input);
    let Ok(request) = FetchRequest::parse(version, body) else { return };
    let count: usize = request.topics().map(|topic| topic.partitions().count()).sum();
    let forgotten: usize = request.forgotten_topics().map(|topic| topic.partitions().count()).sum();
    assert!(count * 16 + forgotten * 4 <= body.len(), "what is seen is in the body");
}

pub fn batch(input: &[u8]) {
    let Ok(header) = validate(input) else { return };
    assert_eq!(header.size_bytes(), Some(input.len()));
    let (mut codecs, mut buffer) = (Codecs::default(), Vec::new());
    if let Ok(records) = batch_records(input, LIMIT_BYTES, &mut codecs, &mut buffer) {
        let whole = records.flatten().inspect(|record| record.headers().for_each(drop)).count();
        assert!(whole <= header.records_count.get() as usize);
    }
    // What could be recompressed is a batch again, with the same records.
    if let Ok(again) = recompress(input, Codec::Lz4, LIMIT_BYTES, &mut codecs) {
        let header_again = validate(&again).expect("a batch of our own");
        assert_eq!(header_again.records_count.get(), header.records_count.get());
        let outcome = recompress(&again, Codec::None, LIMIT_BYTES, &mut codecs);
        assert!(outcome.is_ok(), "what was written can be read: {outcome:?}");
    }
}

/// Half of the damaged batches get a right checksum and length, so that what is behind them is reached.
pub fn reseal_batch(input: &mut [u8]) {
    if input.len() <= CRC_START + 40 || input[input.len() - 1] & 1 == 0 {
        return;
    }
    let length = (input.len() - 12) as u32;
    input[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&input[CRC_START..]);
    input[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

/// The first byte chooses the codec.
pub fn decompress(input: &[u8]) {
    let Some((codec, body)) = input.split_first() else { return };
    let codec = Codec::ALL[usize::from(*codec) % Codec::ALL.len()];
    let mut codecs = Codecs::default();
    let mut out = b"before".to_vec();
    let outcome = codecs.decompress(codec, body, LIMIT_BYTES, &mut out);
    assert!(outcome.is_err() || out.len() <= LIMIT_BYTES + 6);
    assert!(out.starts_with(b"before"));
    // A context that failed serves the next as well.
    let mut squeezed = Vec::new();
    codecs.compress(codec, b"after", &mut squeezed);
    let mut again = Vec::new();
    assert_eq!(codecs.decompress(codec, &squeezed, LIMIT_BYTES, &mut again), Ok(()));
    assert_eq!(again, b"after");
}

// ---- Valid inputs ----------------------------------------------------------------------------

pub fn frame_seeds() -> Vec<Vec<u8>> {
    let old = [0, 0, 0, 8, 0, 0, 0, 5, 0, 2, b'm', b'e', 0xaa];
    let new = [0, 0, 0, 9, 0, 0, 0, 5, 0, 2, b'm', b'e', 1, 7, 1, 0, 0xaa];
    let framed = |body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], body].concat();
    vec![
        old.to_vec(),
        new.to_vec(),
        framed(&old),
        [framed(&old), framed(&new), framed(&[7; 300])].concat(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]
}

pub fn api_versions_seeds() -> Vec<Vec<u8>> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, true);
    writer.string("corelane-load");
    writer.string("1.0.0");
    writer.no_tagged_fields();
    vec![with_version(0, Vec::new()), with_version(3, body)]
}

fn one_batch(codec: Codec, count: usize) -> Vec<u8> {
    let producer = count.is_multiple_of(2).then_some((ProducerId(7), ProducerEpoch(0), 3));
    let mut builder = BatchBuilder::new(BatchOptions { codec, producer, ..BatchOptions::default() });
    for index in 0..count {
        let headers = [RecordHeader { key: "h", value: (index % 2 == 0).then_some(b"1") }];
        let key = (index % 3 > 0).then_some(&b"key"[..]);
        builder.push(1000 + index as i64, key, Some(&[b'v'; 20]), &headers[..index % 2]);
    }
    builder.finish(&mut Codecs::default())
}

pub fn batch_seeds() -> Vec<Vec<u8>> {
    let sizes = Codec::ALL.iter().flat_map(|codec| [1, 2, 30].map(|count| one_batch(*codec, count)));
    sizes.collect()
}

pub fn decompress_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, codec) in Codec::ALL.into_iter().enumerate() {
        for input in [&b""[..], b"a", &b"the log end offset ".repeat(50)] {
            let mut seed = vec![number as u8];
            Codecs::default().compress(codec, input, &mut seed);
            seeds.push(seed);
        }
    }
    seeds
}

pub fn produce_seeds() -> Vec<Vec<u8>> {
    [3, 8, 9, 12, 13]
        .map(|version| {
            let mut body = Vec::new();
            let mut writer = Writer::new(&mut body, version >= 9);
            writer.nullable_string((version == 12).then_some("transaction"));
            writer.i16(-1);
            writer.i32(1000);
            writer.array(1);
            if version >= 13 {
                writer.raw(&[5; 16])
            } else {
                writer.string("topic")
            }
            writer.array(2);
            for (partition, records) in [(0, Some(one_batch(Codec::None, 2))), (1, None)] {
                writer.i32(partition);
                writer.nullable_bytes(records.as_deref());
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
            writer.no_tagged_fields();
            ProduceRequest::parse(version, &body).expect("a seed is valid");
            with_version(version, body)
        })
        .to_vec()
}

pub fn fetch_seeds() -> Vec<Vec<u8>> {
    [4, 7, 11, 12, 13, 15, 17, 18]
        .map(|version| {
            let mut body = Vec::new();
            let mut writer = Writer::new(&mut body, version >= 12);
            if version < 15 {
                writer.i32(-1);
            }
            for number in [500, 1, 1 << 20] {
                writer.i32(number);
            }
            writer.i8(0);
            if version >= 7 {
                writer.i32(7);
                writer.i32(2);
            }
            writer.array(1);
            if version >= 13 {
                writer.raw(&[5; 16])
            } else {
                writer.string("topic")
            }
            writer.array(2);
            for partition in 0..2 {
                writer.i32(partition);
                if version >= 9 {
                    writer.i32(4);
                }
                writer.i64(9);
                if version >= 12 {
                    writer.i32(-1);
                }
                if version >= 5 {
                    writer.i64(-1);
                }
                writer.i32(4096);
                writer.no_tagged_fields();
            }
            writer.no_tagged_fields();
            if version >= 7 {
                writer.array(1);
                if version >= 13 {
                    writer.raw(&[6; 16])
                } else {
                    writer.string("forgotten")
                }
                writer.array(1);
                writer.i32(5);
                writer.no_tagged_fields();
            }
            if version >= 11 {
                writer.string("rack");
            }
            writer.no_tagged_fields();
            FetchRequest::parse(version, &body).expect("a seed is valid");
            with_version(version, body)
        })
        .to_vec()
}

#[test]
fn what_clients_sent_is_read() {
    for (name, frame) in recorded("header") {
        assert!(RequestHeader::parse(&frame).is_ok(), "{name}");
    }
    for (name, input) in recorded("api_versions") {
        let (version, body) = version_and_body(&input);
        // A version we don't serve is answered without a look at its body.
        assert!(version > 3 || ApiVersionsRequest::parse(version, body).is_ok(), "{name}");
    }
    for (name, input) in recorded("produce") {
        let (version, body) = version_and_body(&input);
        assert!(ProduceRequest::parse(version, body).is_ok(), "{name}");
    }
    for (name, input) in recorded("fetch") {
        let (version, body) = version_and_body(&input);
        assert!(FetchRequest::parse(version, body).is_ok(), "{name}");
    }
    let mut codecs = Codecs::default();
    for (name, batch) in recorded("batch") {
        let mut buffer = Vec::new();
        assert!(validate(&batch).is_ok(), "{name}");
        let records = batch_records(&batch, LIMIT_BYTES, &mut codecs, &mut buffer).expect("whole records");
        let is_first = |record: &[u8]| matches!(record, b"the log end offset" | b"a line");
        let first = records.flatten().next().and_then(|record| record.value);
        assert!(first.is_some_and(is_first), "{name}");
    }
}

/// A header that is always right: kept here so that the offsets above are checked.
const _: () = assert!(size_of::<BatchHeader>() == 61);
