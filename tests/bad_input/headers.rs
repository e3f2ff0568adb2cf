//! Headers: unknown keys and versions, strange client ids, repeated correlation ids.

use super::case::Case;
use super::wire::{answer_body, correlation_id, request_frame, request_frame_of};
use corelane::api::table;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::reader::Reader;
use corelane::protocol::writer::Writer;

const API_VERSIONS: i16 = 18;

fn each_closes(name: &str, requests: impl IntoIterator<Item = (i16, i16)>) {
    let mut case = Case::new(name, &[]);
    for (key, version) in requests {
        let mut wire = case.connect();
        wire.send(&request_frame(key, version, 1, &[0; 32]));
        case.bystander_works();
        wire.assert_closed((key, version));
        case.sent(&wire);
    }
    case.finish();
}

#[test]
fn row_08_unknown_keys_close() {
    each_closes("row08", [(-1, 0), (i16::MIN, 0), (999, 0), (i16::MAX, 9)]);
}

#[test]
fn row_09_an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let mut case = Case::new("row09", &[]);
    for version in [99, i16::MAX, -1] {
        let mut wire = case.connect();
        wire.send(&request_frame(API_VERSIONS, version, 5, &[0xff; 40]));
        case.bystander_works();
        let answer = wire.answer();
        assert_eq!(correlation_id(&answer), 5);
        let mut reader = Reader::new(answer_body(ApiKey::ApiVersions, 0, &answer), false);
        assert_eq!(reader.i16(), Ok(35));
        let count = reader.array(6).expect("ranges");
        let ranges: Vec<_> = (0..count)
            .map(|_| [reader.i16(), reader.i16(), reader.i16()].map(|number| number.expect("a range")))
            .collect();
        assert_eq!(reader.finish(), Ok(()));
        let ours = ranges.iter().find(|[key, _, _]| *key == API_VERSIONS).expect("its own range");
        let served = table::TABLE.iter().find(|served| served.key == ApiKey::ApiVersions).expect("served");
        assert_eq!(*ours, [API_VERSIONS, served.version_min, served.version_max]);
        case.sent(&wire);
    }
    case.finish();
}

#[test]
fn row_10_unsupported_versions_close() {
    let outside = table::TABLE.iter().filter(|served| served.key != ApiKey::ApiVersions).flat_map(|served| {
        [served.refused_below - 1, served.version_max + 1, -1].map(|v| (served.key.number(), v))
    });
    each_closes("row10", outside);
}

#[test]
fn row_11_apis_between_brokers_close() {
    // LeaderAndIsr, StopReplica, UpdateMetadata, ControlledShutdown, Vote, BeginQuorumEpoch, AlterPartition,
    // Envelope, FetchSnapshot, BrokerRegistration, BrokerHeartbeat, AllocateProducerIds.
    each_closes("row11", [4, 5, 6, 7, 52, 53, 56, 58, 59, 62, 63, 67].map(|key| (key, 0)));
}

#[test]
fn row_13_any_client_id_is_served_and_none_reaches_the_log_raw() {
    let mut case = Case::new("row13", &[]);
    let long = "x".repeat(i16::MAX as usize);
    for client_id in [None, Some(""), Some(long.as_str()), Some("line\nline \x1b[31mred\x07 \u{202e}x")] {
        let mut wire = case.connect();
        wire.send(&request_frame_of(API_VERSIONS, 0, 6, client_id, &[]));
        assert_eq!(correlation_id(&wire.answer()), 6);
        // Malformed, so that the broker has a reason to log it.
        wire.send(&request_frame_of(ApiKey::Metadata.number(), 9, 6, client_id, &[0xff; 16]));
        case.bystander_works();
        wire.assert_closed(client_id.map(str::len));
        case.sent(&wire);
    }
    let log = case.broker.log();
    for raw in ["\x1b[31m", "\x07", "\u{202e}", "line\nline"] {
        assert!(!log.contains(raw), "{raw:?} is in the log:\n{log}");
    }
    assert!(log.lines().all(|line| line.len() < 4096), "long names are cut");
    case.finish();
}

#[test]
fn row_14_illegal_software_names_are_refused() {
    let mut case = Case::new("row14", &[]);
    for (name, version) in
        [("", "1"), ("a b", "1"), ("-a", "1"), ("a", ""), ("a", "1\n"), ("é", "1"), ("a.", "1")]
    {
        let mut body = Vec::new();
        let mut writer = Writer::new(&mut body, true);
        writer.string(name);
        writer.string(version);
        writer.no_tagged_fields();
        let mut wire = case.connect();
        wire.send(&request_frame(API_VERSIONS, 3, 1, &body));
        case.bystander_works();
        let answer = wire.answer();
        assert_eq!(answer_body(ApiKey::ApiVersions, 3, &answer)[..2], [0, 42], "{name:?} {version:?}");
        case.sent(&wire);
    }
    case.finish();
}

#[test]
fn row_15_repeated_correlation_ids_are_echoed_in_the_order_of_requests() {
    let mut case = Case::new("row15", &[]);
    let ids = [5, 5, -1, i32::MIN, 0, i32::MAX, 5];
    let mut wire = case.connect();
    let requests: Vec<u8> = ids.iter().flat_map(|id| request_frame(API_VERSIONS, 0, *id, &[])).collect();
    wire.send(&requests);
    case.bystander_works();
    let answered = ids.map(|_| correlation_id(&wire.answer()));
    assert_eq!(answered, ids);
    case.sent(&wire);
    case.finish();
}
