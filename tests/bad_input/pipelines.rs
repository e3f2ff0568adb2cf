//! Pipelines: many requests whose answers nobody reads.

use super::case::Case;
use super::messages::{FetchHead, FetchPart, Topic, batch, fetch_frame, produce};
use super::wire::{correlation_id, request_frame};

/// After the pipeline was taken as far as it was: the answers come in order, or the connection is closed.
fn answers_ascend(wire: &mut super::wire::Wire) -> i32 {
    let mut count = 0;
    while let Ok(answer) = wire.try_answer() {
        assert_eq!(correlation_id(&answer), count);
        count += 1;
        if count == REQUESTS {
            break;
        }
    }
    count
}

const REQUESTS: i32 = 10_000;

#[test]
fn row_16_ten_thousand_unread_answers_cost_bounded_memory() {
    let mut case = Case::new("row16", &[]);
    let mut wire = case.connect();
    let requests: Vec<u8> = (0..REQUESTS).flat_map(|id| request_frame(18, 0, id, &[])).collect();
    let sent = wire.send_what_is_taken(&requests);
    case.bystander_works();
    case.sent(&wire);
    let count = answers_ascend(&mut wire);
    // What was taken wholly is answered, unless the broker gave the connection up.
    assert!(count > 0, "{sent} bytes were taken");
    case.finish();
}

#[test]
fn row_16_ten_thousand_unread_fetches_cost_bounded_memory() {
    let mut case = Case::new("row16fetch", &[]);
    case.create_topic("large", 1, &[]);
    let value = vec![7; 300_000];
    let mut writer = case.connect();
    assert_eq!(produce(&mut writer, 9, Topic::named("large"), 0, &batch(&[&value])).error, 0);
    case.sent(&writer);
    let mut wire = case.connect();
    let part = [FetchPart::at(0, 0)];
    let mut requests = Vec::new();
    for id in 0..REQUESTS {
        let mut frame = fetch_frame(12, FetchHead::default(), Topic::named("large"), &part);
        frame[8..12].copy_from_slice(&id.to_be_bytes());
        requests.extend_from_slice(&frame);
    }
    wire.send_what_is_taken(&requests);
    case.bystander_works();
    case.sent(&wire);
    for expected in 0..50 {
        match wire.try_answer() {
            Ok(answer) => assert_eq!(correlation_id(&answer), expected),
            Err(_) => break,
        }
    }
    case.finish();
}

#[test]
fn row_16_requests_that_wait_cost_no_more_than_a_few_of_them() {
    let mut case = Case::new("row16waits", &[]);
    const PARTITIONS: i32 = 100;
    case.create_topic("quiet", PARTITIONS, &[]);
    // Each is nearly as large as may be, and waits.
    let parts: Vec<FetchPart> = (0..30_000).map(|index| FetchPart::at(index % PARTITIONS, 0)).collect();
    let head = FetchHead { max_wait_ms: 200, min_bytes: 1, ..FetchHead::default() };
    let frame = fetch_frame(12, head, Topic::named("quiet"), &parts);
    let mut wire = case.connect();
    let sent = wire.send_what_is_taken(&frame.repeat(40));
    assert!(sent > frame.len(), "one is taken, however large");
    case.bystander_works();
    // It goes on as answers leave.
    for _ in 0..3 {
        wire.answer();
    }
    case.sent(&wire);
    case.allow(30_000 * 1024);
    case.finish();
}
