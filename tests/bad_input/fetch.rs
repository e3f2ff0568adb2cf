//! Fetch: offsets, epochs, sessions, limits and partitions that are not.

use super::case::Case;
use super::messages::{FetchHead, FetchPart, Topic, batch, fetch, fetch_frame, produce, read_fetch};
use super::wire::Wire;
use corelane::base::ids::TopicId;
use corelane::protocol::api_key::ApiKey;
use corelane::protocol::cold::metadata_request::{MetadataRequestData, MetadataRequestTopic};
use corelane::protocol::cold::metadata_response::MetadataResponseData;
use corelane::protocol::cold::text;

const TOPIC: Topic<'static> = Topic { name: "bystander", id: TopicId::NONE };

/// The error of a fetch of one partition, the answer's own first.
fn error_of(wire: &mut Wire, head: FetchHead, part: FetchPart) -> i16 {
    let answer = fetch(wire, head, TOPIC, part);
    if answer.error != 0 { answer.error } else { answer.partitions[0].error }
}

#[test]
fn row_38_offsets_outside_the_log_are_refused() {
    let mut case = Case::new("row38", &[]);
    let mut wire = case.connect();
    for offset in [-1, i64::MIN, 1000, i64::MAX] {
        let head = FetchHead { min_bytes: 1, max_wait_ms: 30_000, ..FetchHead::default() };
        assert_eq!(error_of(&mut wire, head, FetchPart::at(0, offset)), 1, "{offset}");
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}

fn leader_epoch(wire: &mut Wire) -> i32 {
    let wanted = MetadataRequestTopic { name: Some(text("bystander")), ..MetadataRequestTopic::default() };
    let request = MetadataRequestData { topics: Some(vec![wanted]), ..MetadataRequestData::default() };
    let answer: MetadataResponseData = wire.ask(ApiKey::Metadata, 9, &request);
    answer.topics[0].partitions[0].leader_epoch
}

#[test]
fn row_39_other_leader_epochs_are_refused() {
    let mut case = Case::new("row39", &[]);
    // A restarted leader begins a new epoch.
    case.broker.stop();
    case.broker.restart();
    let mut wire = case.connect();
    let epoch = leader_epoch(&mut wire);
    assert!(epoch > 0, "the epoch after a restart is {epoch}");
    for (leader_epoch, code) in [(epoch - 1, 74), (epoch + 1, 75), (i32::MAX, 75), (epoch, 0), (-1, 0)] {
        let part = FetchPart { leader_epoch, ..FetchPart::at(0, 0) };
        assert_eq!(error_of(&mut wire, FetchHead::default(), part), code, "{leader_epoch} against {epoch}");
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_40_unknown_sessions_and_epochs_are_refused() {
    let mut case = Case::new("row40", &[]);
    let mut wire = case.connect();
    let part = FetchPart::at(0, 0);
    let session = |session_id, session_epoch| FetchHead { session_id, session_epoch, ..FetchHead::default() };
    for head in [session(12345, 1), session(-1, 1), session(i32::MAX, 7)] {
        assert_eq!(fetch(&mut wire, head, TOPIC, part).error, 70, "{head:?}");
        case.bystander_works();
    }
    let opened = fetch(&mut wire, session(0, 0), TOPIC, part);
    assert_eq!(opened.error, 0);
    assert_ne!(opened.session_id, 0);
    for epoch in [2, 7, i32::MAX] {
        assert_eq!(fetch(&mut wire, session(opened.session_id, epoch), TOPIC, part).error, 71, "{epoch}");
    }
    assert_eq!(fetch(&mut wire, session(opened.session_id, 1), TOPIC, part).error, 0);
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_42_strange_limits_still_make_progress() {
    let mut case = Case::new("row42", &[]);
    case.create_topic("t", 1, &[]);
    let mut wire = case.connect();
    let topic = Topic::named("t");
    let value = vec![b'v'; 200_000];
    for _ in 0..2 {
        assert_eq!(produce(&mut wire, 9, topic, 0, &batch(&[&value])).error, 0);
    }
    for max_bytes in [0, -1, i32::MIN, 1, i32::MAX] {
        for max_wait_ms in [0, i32::MAX] {
            for min_bytes in [0, 1, -1] {
                let head = FetchHead { max_bytes, max_wait_ms, min_bytes, ..FetchHead::default() };
                let part = FetchPart { max_bytes, ..FetchPart::at(0, 0) };
                let answer = fetch(&mut wire, head, topic, part);
                assert_eq!((answer.error, answer.partitions[0].error), (0, 0), "{head:?}");
                // One whole batch at least, whatever the limits.
                assert!(answer.partitions[0].records.len() > 200_000, "{head:?}");
            }
        }
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_42_a_wait_without_end_is_capped_and_disturbs_nobody() {
    let mut case = Case::new("row42wait", &[]);
    let mut wire = case.connect();
    let head = FetchHead { max_wait_ms: i32::MAX, min_bytes: i32::MAX, ..FetchHead::default() };
    case.create_topic("quiet", 1, &[]);
    wire.send(&fetch_frame(12, head, Topic::named("quiet"), &[FetchPart::at(0, 0)]));
    for _ in 0..5 {
        case.bystander_works();
    }
    case.sent(&wire);
    case.finish();
}

#[test]
fn row_42_a_million_partitions_cost_what_they_weigh() {
    let mut case = Case::new("row42million", &[]);
    // The first is within what a Fetch may have, the others over it.
    for count in [30_000, 100_000, 1_000_000] {
        let mut wire = case.connect();
        let parts: Vec<FetchPart> = (0..count).map(|partition| FetchPart::at(partition, 0)).collect();
        wire.send(&fetch_frame(12, FetchHead::default(), TOPIC, &parts));
        case.bystander_works();
        let answer = wire.try_answer();
        assert!(count > 30_000 || answer.is_ok(), "so many are still served");
        if let Ok(answer) = answer {
            let answer = read_fetch(12, &answer);
            assert_eq!((answer.error, answer.partitions.len()), (0, count as usize));
            assert!(answer.partitions.iter().skip(1).all(|partition| partition.error == 3));
        }
    }
    // What a partition costs while its request is answered, the answer included.
    case.allow(30_000 * 512);
    case.finish();
}

#[test]
fn row_43_unknown_ids_and_partitions_are_named_as_such() {
    let mut case = Case::new("row43", &[]);
    let mut wire = case.connect();
    for partition in [-1, 1, i32::MAX, i32::MIN] {
        assert_eq!(error_of(&mut wire, FetchHead::default(), FetchPart::at(partition, 0)), 3, "{partition}");
    }
    assert_eq!(
        fetch(&mut wire, FetchHead::default(), Topic::named("nobody"), FetchPart::at(0, 0)).partitions[0]
            .error,
        3
    );
    for id in [[9; 16], [0; 16]] {
        let topic = Topic { name: "", id: TopicId(id) };
        wire.send(&fetch_frame(13, FetchHead::default(), topic, &[FetchPart::at(0, 0)]));
        let answer = read_fetch(13, &wire.answer());
        assert_eq!(answer.partitions[0].error, 100, "{id:?}");
    }
    case.bystander_works();
    case.sent(&wire);
    case.finish();
}
