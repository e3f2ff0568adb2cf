//! The same lane on the kernel's files.

use super::harness::{OWNER, id, settings};
use crate::base::ids::{LaneId, LeaderEpoch, Offset, WallMs};
use crate::log::testing::Batch;
use crate::log::{Awaited, Lane, LaneEvent, LaneOptions, PlanStart, Resolved, Sink, prepare_dir, verify};
use crate::ring::{Ring, RingOptions, Sleep};

#[test]
fn appends_rolls_and_restarts_on_real_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut ring = Ring::kernel(&RingOptions::default()).expect("io_uring is there");
    let mut options = LaneOptions::new(dir.path().join("data"), LaneId(3), OWNER);
    options.journal_bytes = 4 << 20;
    options.tail_pool_bytes = 1 << 20;
    options.group_bytes_max = 256 << 10;
    let mut expected = Vec::new();
    for round in 0..3 {
        prepare_dir(&mut ring, &options.dir, OWNER).expect("it can be made");
        let (mut lane, report) = Lane::recover(&mut ring, options.clone()).expect("it is intact");
        assert_eq!(report.created, round == 0);
        assert_eq!(report.clean, round > 0);
        let log = match lane.find(id(1)) {
            Some(log) => log,
            None => lane.create_partition(id(1), 1, settings(300_000), WallMs(0)).expect("there is room").0,
        };
        let mut events = Vec::new();
        let target = lane.log_end(log).0 + 400;
        while lane.durable_end(log).0 < target {
            if lane.log_end(log).0 < target {
                let batch = Batch::new(lane.log_end(log).0, 1).sized(9_000);
                let (offset, epoch) = (Offset(batch.base_offset), LeaderEpoch(0));
                let appended = lane.append(log, &batch.to_bytes(), offset, epoch, WallMs(0), Awaited::Yes);
                if appended.is_ok() {
                    expected.extend(batch.to_bytes());
                }
            }
            let now = ring.now();
            lane.housekeep(&mut ring, now, WallMs(0));
            lane.turn(&mut ring, now);
            ring.turn(Sleep::Until(now.plus_ms(1)));
            while let Some(completion) = ring.next() {
                lane.complete(&mut ring, completion, &mut events);
            }
        }
        let found = read_all(&mut ring, &mut lane, log, events);
        assert!(found == expected, "round {round}: {} of {} bytes", found.len(), expected.len());
        lane.clean_stop(&mut ring).expect("nothing fails");
    }
    let report = verify(&mut ring, &options.dir, OWNER, &mut |_| {}).expect("the directory is there");
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.batches_count, 1_200);
}

fn read_all(ring: &mut Ring, lane: &mut Lane, log: crate::log::LogId, mut events: Vec<LaneEvent>) -> Vec<u8> {
    let mut found = Vec::new();
    let mut from = lane.log_start(log);
    let mut read = 0;
    events.clear();
    while from < lane.log_end(log) {
        read += 1;
        let mut plan = match lane.plan(log, from, lane.log_end(log), 100_000, true, read) {
            PlanStart::Ready(plan) => plan,
            PlanStart::Pending => match next_event(ring, lane) {
                LaneEvent::Planned { plan, .. } => plan.expect("nothing is damaged"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let mut bytes = Vec::new();
        loop {
            match lane.resolve(&mut plan, 50_000, Sink::Memory, &mut bytes, read) {
                Resolved::Finished => break,
                Resolved::Copied(_) => {}
                Resolved::File(_) => panic!("not asked for"),
                Resolved::Pending => match next_event(ring, lane) {
                    LaneEvent::Window { window, .. } => {
                        let window = window.expect("nothing is damaged");
                        bytes.extend_from_slice(&window.buffer[window.range.clone()]);
                        plan.advance_window(&window);
                        lane.give_back(window.buffer);
                    }
                    other => panic!("{other:?}"),
                },
            }
        }
        lane.release(plan);
        let batch_bytes = Batch::new(0, 1).sized(9_000).to_bytes().len();
        let whole = bytes.len() / batch_bytes;
        assert!(whole > 0);
        from = from.plus(whole as i64);
        bytes.truncate(whole * batch_bytes);
        found.extend(bytes);
    }
    found
}

fn next_event(ring: &mut Ring, lane: &mut Lane) -> LaneEvent {
    let mut events = Vec::new();
    loop {
        let now = ring.now();
        lane.turn(ring, now);
        ring.turn(Sleep::Until(now.plus_ms(5)));
        while let Some(completion) = ring.next() {
            lane.complete(ring, completion, &mut events);
        }
        events.retain(|event| !matches!(event, LaneEvent::Durable { .. } | LaneEvent::Room));
        if !events.is_empty() {
            return events.remove(0);
        }
    }
}
