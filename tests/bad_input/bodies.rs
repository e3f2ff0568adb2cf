//! Bodies that end early, go on, or promise what they can't hold, in hot and cold messages alike.

use super::case::Case;
use super::messages::{FetchHead, FetchPart, Topic, batch, fetch_frame, produce_frame};
use super::wire::request_frame;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::COLD_BYTES_MAX;
use corelane::protocol::frame::LENGTH_BYTES;
use corelane::protocol::writer::Writer;

/// `frame` with `change` made to what follows its length, which is corrected.
fn with(frame: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut behind = frame[LENGTH_BYTES..].to_vec();
    change(&mut behind);
    [&(behind.len() as u32).to_be_bytes()[..], &behind].concat()
}

/// A Metadata request of version 9 for topic "target123".
fn metadata_frame() -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, true);
    writer.array(1);
    writer.string("target123");
    writer.no_tagged_fields();
    writer.raw(&[0, 0, 0]);
    writer.no_tagged_fields();
    request_frame(ApiKey::Metadata.number(), 9, 1, &body)
}

/// Well-formed requests of both kinds of codec, fixed and flexible.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let topic = Topic::named("target123");
    let records = batch(&[b"value"]);
    vec![
        ("produce 8", produce_frame(8, -1, topic, &[(0, Some(&records))])),
        ("produce 9", produce_frame(9, -1, topic, &[(0, Some(&records))])),
        ("fetch 11", fetch_frame(11, FetchHead::default(), topic, &[FetchPart::at(0, 0)])),
        ("fetch 12", fetch_frame(12, FetchHead::default(), topic, &[FetchPart::at(0, 0)])),
        ("metadata 9", metadata_frame()),
        ("heartbeat 0", request_frame(12, 0, 1, &[0, 1, b'g', 0, 0, 0, 1, 0, 1, b'm'])),
    ]
}

fn all_closed(case: &mut Case, inputs: Vec<(String, Vec<u8>)>) {
    for (what, input) in inputs {
        let mut wire = case.connect();
        wire.send(&input);
        wire.assert_closed(what);
        case.sent(&wire);
    }
}

#[test]
fn row_12_bodies_cut_at_every_length_close() {
    let mut case = Case::new("row12cut", &[]);
    for (name, frame) in samples() {
        let header_bytes = LENGTH_BYTES + 8;
        let cuts = header_bytes..frame.len();
        let inputs = cuts.map(|end| (format!("{name} cut at {end}"), with(&frame[..end], |_| {}))).collect();
        all_closed(&mut case, inputs);
        case.bystander_works();
    }
    case.finish();
}

#[test]
fn row_12_bytes_behind_the_message_close() {
    let mut case = Case::new("row12tail", &[]);
    let inputs = samples()
        .into_iter()
        .map(|(name, frame)| (name.to_string(), with(&frame, |behind| behind.push(0))))
        .collect();
    all_closed(&mut case, inputs);
    case.finish();
}

/// A flexible request's bytes behind its header, which is that of `sample`.
fn flexible(key: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    request_frame(key.number(), version, 1, body)
}

#[test]
fn row_12_lengths_that_can_not_be_close() {
    let mut case = Case::new("row12lengths", &[]);
    let long_varint = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let mut inputs = Vec::new();
    for (key, version) in
        [(ApiKey::Produce, 9), (ApiKey::Fetch, 12), (ApiKey::Metadata, 9), (ApiKey::CreateTopics, 5)]
    {
        // The varint of the first length has six bytes.
        inputs.push((
            format!("{key:?} varint"),
            flexible(key, version, &[&long_varint[..], &[0; 32]].concat()),
        ));
    }
    // Produce 9: no transactional id, acks, timeout, then 2^31 - 1 topics.
    let topics_max = [&[0, 0xff, 0xff, 0, 0, 0, 9][..], &[0x80, 0x80, 0x80, 0x80, 8]].concat();
    inputs.push(("produce 2^31-1 topics".to_string(), flexible(ApiKey::Produce, 9, &topics_max)));
    // Produce 8: the same with fixed lengths; then a negative count, then a negative string length.
    let head = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9];
    for (what, tail) in [
        ("2^31-1 topics", &[0x7f, 0xff, 0xff, 0xff][..]),
        ("-5 topics", &[0xff, 0xff, 0xff, 0xfb]),
        ("null topics", &[0xff, 0xff, 0xff, 0xff]),
        ("topic name of -2 bytes", &[0, 0, 0, 1, 0xff, 0xfe, 0, 0, 0, 0]),
        ("null topic name", &[0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0]),
        ("records of -2 bytes", &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]),
    ] {
        let body = [&head[..], tail].concat();
        inputs.push((format!("produce 8 {what}"), request_frame(ApiKey::Produce.number(), 8, 1, &body)));
    }
    // Metadata 1: 2^31 - 1 topics, and Metadata 9 the same.
    inputs.push(("metadata 1".to_string(), request_frame(3, 1, 1, &[0x7f, 0xff, 0xff, 0xff])));
    let metadata = [0x80, 0x80, 0x80, 0x80, 8, 0, 0, 0, 0];
    inputs.push(("metadata 9".to_string(), flexible(ApiKey::Metadata, 9, &metadata)));
    all_closed(&mut case, inputs);
    case.finish();
}

#[test]
fn row_12_names_that_are_not_utf8_close() {
    let mut case = Case::new("row12utf8", &[]);
    let mut inputs = Vec::new();
    for (name, frame) in samples() {
        if let Some(at) = frame.windows(9).position(|window| window == b"target123") {
            let mut broken = frame.clone();
            broken[at + 4] = 0xff;
            inputs.push((name.to_string(), broken));
        }
    }
    assert!(inputs.len() >= 5, "the samples name a topic");
    all_closed(&mut case, inputs);
    case.finish();
}

#[test]
fn row_12_a_million_tagged_fields_or_one_twice_close() {
    let mut case = Case::new("row12tags", &[]);
    let mut inputs = Vec::new();
    for (name, frame) in
        samples().into_iter().filter(|(name, _)| name.ends_with(" 9") || name.ends_with(" 12"))
    {
        // The last byte is the empty section of tagged fields of the whole message.
        let twice = with(&frame, |behind| {
            behind.pop();
            behind.extend_from_slice(&[2, 100, 1, 0, 100, 1, 0]);
        });
        inputs.push((format!("{name} duplicate tag"), twice));
        let promised = with(&frame, |behind| {
            behind.pop();
            behind.extend_from_slice(&[0xc0, 0x84, 0x3d, 0, 0]);
        });
        inputs.push((format!("{name} 10^6 tags promised"), promised));
    }
    all_closed(&mut case, inputs);
    case.finish();
}

/// `sample` with so many tagged fields behind it that nobody knows.
fn with_unknown_tags(sample: &[u8], count: u32) -> Vec<u8> {
    with(sample, |behind| {
        behind.pop();
        let mut writer = Writer::new(behind, true);
        writer.uvarint(count);
        for tag in 100..100 + count {
            writer.tag(tag, 1);
            writer.i8(0);
        }
    })
}

#[test]
fn row_12_a_million_unknown_tagged_fields_cost_what_they_weigh() {
    let mut case = Case::new("row12million", &[]);
    // The first is within what a cold message may have.
    for count in [200_000, 1_000_000] {
        for (_, sample) in
            samples().into_iter().filter(|(name, _)| name.ends_with(" 9") || name.ends_with(" 12"))
        {
            let mut wire = case.connect();
            wire.send(&with_unknown_tags(&sample, count));
            case.bystander_works();
            // Unknown tags are legal: it is answered, or refused as too much. Either way it ends.
            let answer = wire.try_answer();
            assert!(count > 200_000 || answer.is_ok(), "so many are still served");
        }
    }
    // The cold codec keeps unknown fields; that is why cold messages have a limit of their own.
    case.allow(32 * COLD_BYTES_MAX);
    case.finish();
}

/// Of all lists that a cold message can have, this one takes the fewest bytes per element.
#[test]
fn row_12_topics_of_two_bytes_cost_bounded_memory() {
    let mut case = Case::new("row12topics", &["auto.create.topics.enable=false"]);
    let count = COLD_BYTES_MAX / 2 - 64;
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, true);
    writer.array(count);
    for _ in 0..count {
        writer.string("");
        writer.no_tagged_fields();
    }
    writer.raw(&[0, 0, 0]);
    writer.no_tagged_fields();
    let frame = request_frame(ApiKey::Metadata.number(), 9, 1, &body);
    for _ in 0..3 {
        let mut wire = case.connect();
        wire.send(&frame);
        case.bystander_works();
        wire.answer();
        case.sent(&wire);
    }
    // The request and its answer, once, however many there were.
    case.allow(160 * COLD_BYTES_MAX);
    case.finish();
}
