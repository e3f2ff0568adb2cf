//! Frames that can't be, that never end, and streams of another protocol.

use super::case::Case;
use super::wire::{answer_body, request_frame};
use corelane::protocol::api_key::ApiKey;

const API_VERSIONS: i16 = 18;

/// Sends each input on a connection of its own, which must be closed without a word.
fn all_closed(case: &mut Case, inputs: &[Vec<u8>]) {
    for input in inputs {
        let mut wire = case.connect();
        wire.send(input);
        case.bystander_works();
        wire.assert_closed(&input[..input.len().min(16)]);
        case.sent(&wire);
    }
}

#[test]
fn row_01_negative_lengths_close() {
    let mut case = Case::new("row01", &[]);
    let inputs = [-1, i32::MIN, -5].map(|length: i32| length.to_be_bytes().to_vec());
    all_closed(&mut case, &inputs);
    case.finish();
}

#[test]
fn row_02_lengths_over_the_limit_close_before_anything_is_allocated() {
    let mut case = Case::new("row02", &["socket.request.max.bytes=16777216"]);
    let mut inputs = vec![16_777_217i32.to_be_bytes().to_vec(), i32::MAX.to_be_bytes().to_vec()];
    // Cold messages have a limit of their own: 1 MiB, of which only the header is sent.
    let mut metadata = request_frame(ApiKey::Metadata.number(), 9, 1, &[]);
    metadata[..4].copy_from_slice(&((1i32 << 20) + 1).to_be_bytes());
    inputs.push(metadata);
    all_closed(&mut case, &inputs);
    case.finish();
}

#[test]
fn row_03_a_length_and_then_silence_commits_nothing_and_ends_at_the_idle_limit() {
    let mut case = Case::new("row03", &["connections.max.idle.ms=500"]);
    for length in [100i32 << 20, 8] {
        let mut wire = case.connect();
        wire.send(&length.to_be_bytes());
        case.bystander_works();
        wire.assert_closed(length);
        case.sent(&wire);
    }
    // Above the limit nobody waits for the rest.
    all_closed(&mut case, &[(i32::MAX).to_be_bytes().to_vec()]);
    case.finish();
}

#[test]
fn row_04_frames_too_short_for_a_header_close() {
    let mut case = Case::new("row04", &[]);
    let inputs: Vec<Vec<u8>> = (0..8u8)
        .map(|length| [&[0, 0, 0, length][..], &[0, 18, 0, 0, 0, 0, 0, 1][..usize::from(length)]].concat())
        .collect();
    all_closed(&mut case, &inputs);
    case.finish();
}

#[test]
fn row_05_other_protocols_close_and_are_named_in_the_log() {
    let mut case = Case::new("row05", &[]);
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    // TLS handshake record, version 1.0, a client hello of 512 bytes.
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    all_closed(&mut case, &[http, tls, b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()]);
    let log = case.broker.log();
    for name in ["HTTP", "TLS", "SSH"] {
        assert!(log.contains(name), "{name} is named in the log:\n{log}");
    }
    case.finish();
}

#[test]
fn row_07_halves_of_requests_end_at_the_idle_limit() {
    let mut case = Case::new("row07", &["connections.max.idle.ms=500"]);
    let whole = request_frame(API_VERSIONS, 0, 1, &[]);
    let mut large = request_frame(ApiKey::Produce.number(), 9, 1, &vec![0; 1 << 20]);
    large[..4].copy_from_slice(&(64i32 << 20).to_be_bytes());
    for half in [&whole[..2], &whole[..7], &whole[..whole.len() - 1], &large] {
        let mut wire = case.connect();
        wire.send(half);
        case.bystander_works();
        wire.assert_closed(half.len());
        case.sent(&wire);
    }
    case.finish();
}

#[test]
fn row_07_a_request_that_comes_byte_by_byte_is_answered() {
    let mut case = Case::new("row07bytes", &[]);
    let mut wire = case.connect();
    for byte in request_frame(API_VERSIONS, 0, 7, &[]) {
        wire.send(&[byte]);
        case.bystander_works();
    }
    let answer = wire.answer();
    assert_eq!(answer_body(ApiKey::ApiVersions, 0, &answer)[..2], [0, 0]);
    case.sent(&wire);
    case.finish();
}
