//! Plans lease segments: whatever ends what they were made for, they end too.

use super::{Machine, batch, batch_with, fetch, fetch_at_most, fetch_error, target};
use crate::base::ids::ShardId;
use crate::base::slab::Key;
use crate::catalog::MetadataRecord;
use crate::partition::waiters::ReplyTo;
use crate::protocol::batch_builder::BatchOptions;
use crate::shard::scan::Reader;

/// Partition 1 is the second shard's; the client is the first one's.
const REMOTE: i32 = 1;

/// A client asks for `offset` of the second shard's partition and closes before that shard has a turn.
fn close_between_ask_and_answer(machine: &mut Machine, offset: i64) {
    let client = machine.connect();
    client.write(&fetch(REMOTE, offset));
    while machine.shards[0].0.core.requests.is_empty() {
        machine.turn(0);
    }
    drop(client);
    while !machine.shards[0].0.core.clients.is_empty() {
        machine.turn(0);
    }
    assert!(machine.shards[0].0.core.requests.is_empty(), "a connection takes its requests along");
}

#[test]
fn a_plan_that_comes_after_its_connection_closed_is_released() {
    let mut machine = Machine::new(2, 2);
    let client = machine.connect();
    assert_eq!(machine.produce(&client, REMOTE, &batch(BatchOptions::default())), 0);
    drop(client);
    machine.turn_until(|machine| machine.shards[0].0.core.clients.is_empty());
    close_between_ask_and_answer(&mut machine, 0);
    machine.turn(1);
    assert_eq!(machine.plans_count(1), 1, "the plan was made for nobody");
    machine.turn_until(|machine| machine.plans_count(1) == 0);
}

#[test]
fn a_plan_that_the_disk_begins_after_its_connection_closed_is_released() {
    for partition in [0, REMOTE] {
        let mut machine = Machine::new(2, 2);
        let client = machine.connect();
        assert_eq!(machine.produce(&client, partition, &batch(BatchOptions::default())), 0);
        drop(client);
        machine.restart();
        let client = machine.connect();
        client.write(&fetch(partition, 0));
        let owner = partition as usize;
        machine.turn_until(|machine| machine.plans_count(owner) == 1);
        drop(client);
        machine.turn_until(|machine| machine.shards[0].0.core.clients.is_empty());
        machine.turn_until(|machine| machine.plans_count(owner) == 0);
    }
}

#[test]
fn nobody_watches_for_a_closed_connection() {
    let mut machine = Machine::new(2, 2);
    close_between_ask_and_answer(&mut machine, 0);
    machine.turn(1);
    let partition = machine.shards[1].0.core.storage.partition(target(REMOTE)).expect("it lives there");
    assert!(partition.waiters.is_empty());
}

/// A machine whose log is on disk only, and a topic that is deleted after `ask` has made the disk look
/// for its beginning.
fn delete_while_the_disk_is_asked(ask: impl Fn(&mut Machine)) -> Machine {
    let mut machine = Machine::new(1, 1);
    let client = machine.connect();
    assert_eq!(machine.produce(&client, 0, &batch(BatchOptions::default())), 0);
    drop(client);
    machine.restart();
    ask(&mut machine);
    machine.turn_until(|machine| machine.plans_count(0) == 1);
    machine.commit(MetadataRecord::TopicDeleted { topic_id: target(0).topic_id });
    machine
}

#[test]
fn a_fetch_of_what_is_deleted_while_the_disk_is_asked_is_refused() {
    let client = std::cell::OnceCell::new();
    let mut machine = delete_while_the_disk_is_asked(|machine| {
        client.get_or_init(|| machine.connect()).write(&fetch(0, 0));
    });
    let answer = machine.answer(client.get().expect("connected above"));
    assert_eq!(fetch_error(&answer), 3);
    machine.turn_until(|machine| machine.plans_count(0) == 0);
    machine.turn_until(|machine| machine.world.files().iter().all(|path| !path.contains("/partitions/")));
}

#[test]
fn a_scan_of_what_is_deleted_while_the_disk_is_asked_ends() {
    let nobody = ReplyTo { shard: ShardId(0), request: Key { index: 99, generation: 0 }, part: 0 };
    let mut machine = delete_while_the_disk_is_asked(|machine| {
        machine.shards[0].0.core.begin_scan(target(0), Reader::Time { timestamp: 1, reply_to: nobody });
    });
    machine.turn_until(|machine| machine.plans_count(0) == 0 && machine.shards[0].0.core.scans.is_empty());
    machine.turn_until(|machine| machine.world.files().iter().all(|path| !path.contains("/partitions/")));
}

#[test]
fn a_plan_lives_until_its_last_piece_of_a_file_has_left() {
    let mut machine = Machine::new(1, 1);
    let client = machine.connect();
    let batch = batch_with(200_000);
    // The first one is followed, so that all of its blocks are written for good.
    for _ in 0..2 {
        assert_eq!(machine.produce(&client, 0, &batch), 0);
    }
    drop(client);
    machine.restart();
    let client = machine.connect();
    let from_cache = |machine: &Machine| machine.shards[0].0.core.storage.lanes[0].stats().cache_read_bytes;
    let sent = |machine: &Machine| machine.shards[0].0.core.clients.counts.sent_bytes as usize;
    let mut leaving_count = 0;
    // The first reads verify it and bring it to the page cache.
    for _ in 0..6 {
        client.write(&fetch_at_most(batch.len() as i32, 0, 0));
        let (cached_before, sent_before) = (from_cache(&machine), sent(&machine));
        let (mut answer_bytes, mut with_piece) = (0, None);
        while answer_bytes < batch.len() {
            machine.turn(0);
            answer_bytes += client.read().len();
            let sent = sent(&machine) - sent_before;
            let clients = &machine.shards[0].0.core.clients.connections;
            if from_cache(&machine) > cached_before && sent >= batch.len() {
                // Nothing behind the piece is on its way yet.
                let is_leaving = clients.iter().any(|(_, client)| client.sending)
                    && *with_piece.get_or_insert(sent) == sent;
                leaving_count += usize::from(is_leaving);
                let held = machine.plans_count(0) == 1;
                assert!(held || !is_leaving, "the file may go while some of it is on its way");
            }
        }
        machine.turn_until(|machine| machine.plans_count(0) == 0);
    }
    assert!(leaving_count > 0);
}
