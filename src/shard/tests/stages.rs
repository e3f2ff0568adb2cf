//! Where the time goes: what a shard tells of the stages of its requests, of slow ones, and of its own work.

use super::{Machine, batch, batch_with, fetch, fetch_error, produce, produce_error, take_answer};
use crate::metrics::stages::{Stage, StageCells, TracedApi};
use crate::protocol::batch_builder::BatchOptions;
use crate::ring::Sleep;
use crate::ring::sim::{Faults, SimClient};

const MS: u64 = 1_000_000;
/// What a stage has in a time in which nothing but turns and the network's way pass.
const SHORT_NS: u64 = 5 * MS;
/// Partition 1 is the second shard's; the client is the first one's.
const REMOTE: i32 = 1;

fn spent_ns(cells: &StageCells, api: TracedApi, stage: Stage) -> u64 {
    cells.stage(api, stage).sum_ns
}

/// The stages of all requests so far are their total, and `long` is the only one that took long.
fn check_stages(cells: &StageCells, api: TracedApi, long: &[Stage]) {
    let sum_ns: u64 = Stage::ALL.map(|stage| spent_ns(cells, api, stage)).iter().sum();
    assert_eq!(sum_ns, cells.total(api).sum_ns, "every moment belongs to one stage");
    for stage in Stage::ALL {
        let spent_ns = spent_ns(cells, api, stage);
        assert_eq!(spent_ns > SHORT_NS, long.contains(&stage), "{stage:?}: {spent_ns} ns");
    }
}

impl Machine {
    /// Every operation of a disk takes so long from now on.
    fn slow_disk(&mut self, ms: u64) {
        let (disk_min_ns, disk_max_ns) = (ms * MS, ms * MS);
        self.world.set_faults(Faults { disk_min_ns, disk_max_ns, ..self.world.faults() });
    }

    /// A machine that has begun everything it begins by itself.
    fn settled(shards_count: usize, lanes_count: u16) -> Self {
        let mut machine = Self::new(shards_count, lanes_count);
        machine.pass(2_000);
        machine
    }

    /// The next answer, once all of it has left.
    fn answered(&mut self, client: &SimClient) -> Vec<u8> {
        let mut received = Vec::new();
        for _ in 0..2_000 {
            self.pass(1);
            received.extend(client.read());
            if let Some(answer) = take_answer(&mut received) {
                self.pass(5);
                return answer;
            }
        }
        panic!("no answer")
    }

    fn produced(&mut self, client: &SimClient, partition: i32, batch: &[u8]) {
        client.write(&produce(partition, batch));
        assert_eq!(produce_error(&self.answered(client)), 0);
    }
}

#[test]
fn a_slow_flush_is_flush_and_nothing_else() {
    let mut machine = Machine::settled(1, 1);
    let client = machine.connect();
    machine.slow_disk(30);
    machine.produced(&client, 0, &batch(BatchOptions::default()));
    let cells = machine.stages[0];
    check_stages(cells, TracedApi::Produce, &[Stage::Flush]);
    let flush = cells.stage(TracedApi::Produce, Stage::Flush);
    assert_eq!(flush.count(), 1);
    assert!((30 * MS..40 * MS).contains(&flush.sum_ns), "{} ns", flush.sum_ns);
    assert_eq!((cells.total(TracedApi::Produce).count(), cells.hops(TracedApi::Produce)), (1, 0));
    assert!(cells.slow.requests().is_empty());
    assert!(machine.shards[0].0.core.traces.is_empty());
}

#[test]
fn who_comes_behind_a_group_in_flight_waits_in_the_queue_first() {
    let mut machine = Machine::settled(1, 1);
    let (first, second) = (machine.connect(), machine.connect());
    machine.slow_disk(30);
    first.write(&produce(0, &batch(BatchOptions::default())));
    machine.pass(10);
    machine.produced(&second, 0, &batch(BatchOptions::default()));
    let cells = machine.stages[0];
    check_stages(cells, TracedApi::Produce, &[Stage::Flush, Stage::Queue]);
    let (queue, flush) = (Stage::Queue, Stage::Flush);
    assert!((15 * MS..25 * MS).contains(&spent_ns(cells, TracedApi::Produce, queue)));
    assert!((60 * MS..75 * MS).contains(&spent_ns(cells, TracedApi::Produce, flush)));
}

#[test]
fn what_lives_on_another_shard_hops() {
    let mut machine = Machine::settled(2, 2);
    let client = machine.connect();
    machine.slow_disk(30);
    client.write(&produce(REMOTE, &batch(BatchOptions::default())));
    // The second shard is late: its mail waits.
    for _ in 0..20 {
        machine.turn(0);
        machine.world.advance(1);
    }
    assert_eq!(produce_error(&machine.answered(&client)), 0);
    let cells = machine.stages[0];
    check_stages(cells, TracedApi::Produce, &[Stage::Flush, Stage::Hop]);
    assert_eq!(cells.hops(TracedApi::Produce), 1);
    assert!((30 * MS..40 * MS).contains(&spent_ns(cells, TracedApi::Produce, Stage::Flush)));
    assert!((15 * MS..21 * MS).contains(&spent_ns(cells, TracedApi::Produce, Stage::Hop)));
    assert_eq!(machine.stages[1].total(TracedApi::Produce).count(), 0, "a request is its client's shard's");
}

#[test]
fn a_frame_that_comes_slowly_is_received_long() {
    let mut machine = Machine::settled(1, 1);
    let client = machine.connect();
    let frame = produce(0, &batch_with(40_000));
    client.write(&frame[..20_000]);
    machine.pass(40);
    client.write(&frame[20_000..]);
    assert_eq!(produce_error(&machine.answered(&client)), 0);
    check_stages(machine.stages[0], TracedApi::Produce, &[Stage::Receive]);
}

#[test]
fn a_response_behind_another_waits_for_it() {
    let mut machine = Machine::settled(1, 1);
    let client = machine.connect();
    machine.produced(&client, 0, &batch(BatchOptions::default()));
    machine.slow_disk(50);
    client.write(&produce(0, &batch(BatchOptions::default())));
    client.write(&fetch(0, 0));
    assert_eq!(produce_error(&machine.answered(&client)), 0);
    let cells = machine.stages[0];
    assert_eq!(cells.total(TracedApi::Fetch).count(), 1);
    check_stages(cells, TracedApi::Fetch, &[Stage::Respond]);
}

#[test]
fn a_fetch_that_waits_for_data_is_not_slow() {
    for (shards_count, partition) in [(1, 0), (2, REMOTE)] {
        let mut machine = Machine::settled(shards_count, 2);
        let (reader, writer) = (machine.connect(), machine.connect());
        reader.write(&fetch(partition, 0));
        machine.pass(5_000);
        machine.produced(&writer, partition, &batch(BatchOptions::default()));
        assert_eq!(fetch_error(&machine.answered(&reader)), 0);
        let cells = machine.stages[0];
        assert_eq!(cells.total(TracedApi::Fetch).count(), 1);
        check_stages(cells, TracedApi::Fetch, &[]);
        assert!(cells.slow.requests().is_empty());
        assert_eq!(cells.hops(TracedApi::Fetch) > 1, partition == REMOTE);
    }
}

#[test]
fn what_is_read_from_a_slow_disk_is_read_long() {
    for (shards_count, partition) in [(1, 0), (2, REMOTE)] {
        let mut machine = Machine::settled(shards_count, 2);
        let client = machine.connect();
        machine.produced(&client, partition, &batch(BatchOptions::default()));
        drop(client);
        machine.restart();
        machine.pass(2_000);
        machine.slow_disk(150);
        let client = machine.connect();
        client.write(&fetch(partition, 0));
        assert_eq!(fetch_error(&machine.answered(&client)), 0);
        let cells = machine.stages[0];
        check_stages(cells, TracedApi::Fetch, &[Stage::Read]);
        let [slow] = &cells.slow.requests()[..] else { panic!("it was slow") };
        assert_eq!((slow.api, &slow.partition), (TracedApi::Fetch, &Some(("t".to_string(), partition))));
    }
}

#[test]
fn a_slow_disk_is_why_a_request_was_slow() {
    let mut machine = Machine::settled(2, 2);
    let client = machine.connect();
    machine.produced(&client, 0, &batch(BatchOptions::default()));
    machine.slow_disk(150);
    let frame = produce(REMOTE, &batch(BatchOptions::default()));
    client.write(&frame);
    let begun = machine.shards[0].0.core.wall;
    assert_eq!(produce_error(&machine.answered(&client)), 0);
    assert!(machine.stages[1].slow.requests().is_empty());
    let [slow] = &machine.stages[0].slow.requests()[..] else { panic!("one was slow") };
    assert_eq!((slow.api, slow.version, slow.hops), (TracedApi::Produce, 9, 1));
    assert_eq!((&*slow.client_id, &slow.partition), ("test", &Some(("t".to_string(), REMOTE))));
    assert!(slow.bytes > 60 && slow.bytes < frame.len() as u64);
    assert!((150..160).contains(&(slow.wall_ms - begun.0)));
    assert_eq!(slow.stages_ns.iter().sum::<u64>(), slow.total_ns);
    assert!(slow.stages_ns[Stage::Flush as usize] * 100 > slow.total_ns * 95, "{slow:?}");
}

#[test]
fn a_connection_that_ends_leaves_no_trace() {
    let mut machine = Machine::settled(2, 2);
    let client = machine.connect();
    machine.slow_disk(30);
    for partition in [0, REMOTE] {
        client.write(&produce(partition, &batch(BatchOptions::default())));
        client.write(&fetch(partition, 0));
    }
    machine.pass(10);
    assert!(!machine.shards[0].0.core.traces.is_empty());
    drop(client);
    machine.pass(200);
    assert!(machine.shards[0].0.core.traces.is_empty());
}

#[test]
fn only_work_makes_a_shard_busy() {
    let mut machine = Machine::settled(1, 1);
    let sleep_until = |machine: &mut Machine, ms: u64| {
        let end = machine.world.now().plus_ms(ms);
        let mut turns_count = 0;
        while machine.world.now() < end {
            let (shard, host) = &mut machine.shards[0];
            host.step(shard, machine.cells, Sleep::Forever);
            turns_count += 1;
        }
        turns_count
    };
    sleep_until(&mut machine, 2_000);
    let idle_ns = machine.stages[0].busy_ns();
    assert!(sleep_until(&mut machine, 10_000) > 5, "it wakes for its timers");
    let busy_ns = machine.stages[0].busy_ns() - idle_ns;
    assert!(busy_ns < 100_000, "{busy_ns} ns of 10 s");
    let client = machine.connect();
    machine.produced(&client, 0, &batch(BatchOptions::default()));
    assert!(machine.stages[0].busy_ns() > idle_ns + busy_ns);
}
