//! Record batches: none, two, old, corrupt, too large, in codecs nobody knows, and bombs.

use super::case::Case;
use super::messages::{Topic, batch, changed, compressed, produce, produce_frame, read_produce, sealed};
use super::wire::Wire;
use corelane::protocol::compression::{Codec, Codecs};
use corelane::protocol::record_batch::HEADER_BYTES;

const TOPIC: Topic<'static> = Topic { name: "bystander", id: corelane::base::ids::TopicId::NONE };

/// Each input is refused with its code, and nothing is written.
fn all_refused(case: &mut Case, inputs: &[(&str, Vec<u8>, i16)]) {
    let mut wire = case.connect();
    for (what, records, code) in inputs {
        let answer = produce(&mut wire, 9, TOPIC, 0, records);
        assert_eq!((answer.error, answer.base_offset), (*code, -1), "{what}");
        // Fails when something was written: its record would not be the next.
        case.bystander_works();
    }
    case.sent(&wire);
}

/// A message of format 1 as Kafka 0.10 wrote it: offset, size, crc, magic, attributes, time, key, value.
fn old_message(magic: u8) -> Vec<u8> {
    let mut message = vec![magic, 0];
    if magic == 1 {
        message.extend_from_slice(&[0; 8]);
    }
    message.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, b'v']);
    let mut crc = flate2::Crc::new();
    crc.update(&message);
    let size = (message.len() + 4) as u32;
    [&[0; 8][..], &size.to_be_bytes(), &crc.sum().to_be_bytes(), &message].concat()
}

#[test]
fn row_23_anything_but_one_batch_is_refused() {
    let mut case = Case::new("row23", &[]);
    let one = batch(&[b"v"]);
    let inputs = [
        ("empty", Vec::new(), 87),
        ("two batches", [one.clone(), one.clone()].concat(), 87),
        ("magic 0", old_message(0), 87),
        ("magic 1", old_message(1), 87),
        ("magic 1 in a batch", changed(one.clone(), |header| header.magic = 1), 87),
    ];
    all_refused(&mut case, &inputs);
    let mut wire = case.connect();
    wire.send(&produce_frame(9, -1, TOPIC, &[(0, None)]));
    assert_eq!(read_produce(9, &wire.answer())[0].error, 87, "null");
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_24_checksums_lengths_and_counts_must_agree() {
    let mut case = Case::new("row24", &[]);
    let one = || batch(&[b"first", b"second"]);
    let mut wrong_crc = one();
    wrong_crc[17] ^= 0x80;
    let mut inputs = vec![
        ("wrong checksum", wrong_crc, 2),
        ("length too large", changed(one(), |header| header.batch_length.set(i32::MAX)), 2),
        ("length negative", changed(one(), |header| header.batch_length.set(-1)), 2),
        ("length too small", changed(one(), |header| header.batch_length.set(48)), 2),
        ("cut", one()[..70].to_vec(), 2),
        ("half a header", one()[..30].to_vec(), 2),
        ("a byte behind", [one(), vec![0]].concat(), 2),
        ("no records", changed(one(), |header| header.records_count.set(0)), 87),
        ("one record too few", changed(one(), |header| header.records_count.set(1)), 87),
        ("2^31 - 1 records", changed(one(), |header| header.records_count.set(i32::MAX)), 87),
        ("negative count", changed(one(), |header| header.records_count.set(-1)), 87),
        ("negative delta", changed(one(), |header| header.last_offset_delta.set(-1)), 87),
        ("delta too large", changed(one(), |header| header.last_offset_delta.set(i32::MAX)), 87),
    ];
    for bit in [8 * 21, 8 * 40, 8 * 61, 8 * 70 + 3] {
        let mut flipped = one();
        flipped[bit / 8] ^= 1 << (bit % 8);
        inputs.push(("a flipped bit", flipped, 2));
    }
    all_refused(&mut case, &inputs);
    case.finish();
}

#[test]
fn row_25_control_batches_and_unknown_attributes_are_refused() {
    let mut case = Case::new("row25", &[]);
    let with = |attributes: i16| changed(batch(&[b"v"]), |header| header.attributes.set(attributes));
    let inputs = [
        ("control", with(0x20), 87),
        ("transactional control", with(0x30), 87),
        ("delete horizon", with(0x40), 87),
        ("bit 7", with(0x80), 87),
        ("sign bit", with(i16::MIN), 87),
    ];
    all_refused(&mut case, &inputs);
    case.finish();
}

#[test]
fn row_27_batches_over_the_topics_limits_are_refused() {
    let settings = ["tail.pool.bytes=16777216", "journal.bytes=33554432", "message.max.bytes=4000000"];
    let mut case = Case::new("row27", &settings);
    case.create_topic("small", 1, &[("max.message.bytes", "1000")]);
    case.create_topic("segment", 1, &[("max.message.bytes", "3000000"), ("segment.bytes", "1048576")]);
    let mut wire = case.connect();
    for (topic, bytes, code) in [
        ("small", 2000, 10),
        ("small", 100, 0),
        ("segment", 2 << 20, 18),
        ("segment", 4_000_000, 10),
        ("segment", 1 << 19, 0),
    ] {
        let answer = produce(&mut wire, 9, Topic::named(topic), 0, &batch(&[&vec![b'v'; bytes]]));
        assert_eq!(answer.error, code, "{topic} {bytes}");
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_28_codecs_of_the_wrong_version_or_unknown_are_refused() {
    let mut case = Case::new("row28", &[]);
    let mut wire = case.connect();
    let zstd = compressed(Codec::Zstd, &[b"v"]);
    for version in [3, 6] {
        assert_eq!(produce(&mut wire, version, TOPIC, 0, &zstd).error, 76, "zstd in version {version}");
        case.bystander_works();
    }
    case.sent(&wire);
    let with = |codec: i16| changed(batch(&[b"v"]), |header| header.attributes.set(codec));
    all_refused(&mut case, &[("codec 5", with(5), 87), ("codec 6", with(6), 87), ("codec 7", with(7), 87)]);
    case.finish();
}

/// A batch that says `codec` and holds `body`.
fn batch_with_body(codec: Codec, body: &[u8]) -> Vec<u8> {
    let mut lying = batch(&[b"v"]);
    lying.truncate(HEADER_BYTES);
    lying.extend_from_slice(body);
    let length = (lying.len() - 12) as i32;
    let lying = changed(lying, |header| {
        header.attributes.set(i16::from(codec.number()));
        header.batch_length.set(length);
    });
    sealed(lying)
}

fn squeezed(codec: Codec, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Codecs::default().compress(codec, body, &mut out);
    out
}

/// Produces to a topic that recompresses; the answer's code.
fn recompressed(wire: &mut Wire, records: &[u8]) -> i16 {
    produce(wire, 9, Topic::named("recompressing"), 0, records).error
}

#[test]
fn row_29_bombs_and_broken_streams_cost_bounded_memory_and_are_refused() {
    let mut case = Case::new("row29", &[]);
    case.create_topic("recompressing", 1, &[("compression.type", "gzip")]);
    case.create_topic("from-gzip", 1, &[("compression.type", "lz4")]);
    let mut wire = case.connect();
    // Well-formed streams of zeros, above what is ever decompressed. Snappy can't say so much in so little.
    let zeros = vec![0; 80 << 20];
    for (codec, topic) in
        [(Codec::Zstd, "recompressing"), (Codec::Lz4, "recompressing"), (Codec::Gzip, "from-gzip")]
    {
        let body = squeezed(codec, &zeros);
        let code = produce(&mut wire, 9, Topic::named(topic), 0, &batch_with_body(codec, &body)).error;
        assert!(code == 2 || code == 10, "{} bytes of {codec:?} are answered {code}", body.len());
        case.bystander_works();
    }
    drop(zeros);
    for codec in [Codec::Zstd, Codec::Lz4, Codec::Snappy] {
        let whole = squeezed(codec, &[7; 5000]);
        for end in [0, 1, whole.len() / 2, whole.len() - 1] {
            let code = recompressed(&mut wire, &batch_with_body(codec, &whole[..end]));
            assert!(code == 2, "{codec:?} cut at {end} is answered {code}");
        }
        // Whole, but no records.
        let code = recompressed(&mut wire, &batch_with_body(codec, &whole));
        assert!(code == 2 || code == 87, "{codec:?} without records is answered {code}");
        case.bystander_works();
    }
    // A zstd frame that announces a window of 2 GiB: magic, no single segment, exponent 21.
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3][..], &[1, 0, 0, b'v']].concat();
    assert_eq!(recompressed(&mut wire, &batch_with_body(Codec::Zstd, &window)), 2);
    // A snappy stream in xerial framing whose block says 2^32 - 1 bytes.
    let xerial = [
        &[0x82][..],
        b"SNAPPY",
        &[0, 0, 0, 0, 1, 0, 0, 0, 1],
        &[0, 0, 0, 5],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
    ]
    .concat();
    assert_eq!(recompressed(&mut wire, &batch_with_body(Codec::Snappy, &xerial)), 2);
    assert_eq!(recompressed(&mut wire, &compressed(Codec::Zstd, &[b"good"])), 0);
    // The worker decompresses one batch at a time, to 64 MiB at most; growing takes half as much beside it,
    // and the allocator gives back late.
    case.allow(2 * (64 << 20));
    case.sent(&wire);
    case.finish();
}
