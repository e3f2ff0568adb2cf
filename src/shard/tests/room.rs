//! A disk that is full, that hangs, and a process without descriptors: nothing acknowledged is lost,
//! nothing is fenced, and all goes on by itself when the cause is gone.

use super::{Machine, batch, directory_path, fetch, fetch_error, produce, produce_error, produce_within};
use crate::base::ids::Offset;
use crate::base::random::Random;
use crate::log::{Lane, verify};
use crate::metrics::directory::DirectoryState;
use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
use crate::protocol::compression::Codecs;
use crate::ring::Ring;
use crate::ring::sim::{Faults, SimClient};

const STORAGE_ERROR: i16 = 56;
const TIMED_OUT: i16 = 7;

fn large_batch(random: &mut Random) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value: Vec<u8> = (0..1_000 + random.below(60_000)).map(|_| random.next_u64() as u8).collect();
    builder.push(1_000, Some(b"key"), Some(&value), &[]);
    builder.finish(&mut Codecs::default())
}

impl Machine {
    /// Plays the part of who measures disks.
    fn measure(&mut self) {
        let Some(free_bytes) = self.world.free_bytes() else { return };
        let total_bytes = self.world.faults().capacity_bytes.expect("it has a limit");
        self.directories.iter().for_each(|cells| cells.set_space(total_bytes, free_bytes));
    }

    fn limit_disk(&mut self, free_bytes: u64) {
        let capacity_bytes = Some(self.world.used_bytes() + free_bytes);
        self.world.set_faults(Faults { capacity_bytes, ..self.world.faults() });
        self.measure();
    }

    /// Lets time pass with everything at work in it.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.world.now().plus_ms(ms);
        while self.world.now() < end {
            (0..self.shards.len()).for_each(|shard| self.turn(shard));
            self.world.advance(1);
        }
    }

    fn is_fenced(&self) -> bool {
        let mut lanes = self.shards.iter().flat_map(|(shard, _)| &shard.core.storage.lanes);
        lanes.any(|lane| lane.fenced().is_some())
    }

    fn log_end(&self, partition: i32) -> i64 {
        let storage = &self.shards[0].0.core.storage;
        let known = storage.partition(super::target(partition)).expect("it lives there");
        storage.lanes[known.lane].log_end(known.log).0
    }

    /// Stops in order and checks every checksum of the first directory.
    fn stop_and_verify(&mut self) {
        for (shard, _) in &mut self.shards {
            shard.stop().expect("nothing is fenced");
        }
        let mut ring = Ring::simulated(&self.world);
        let report = verify(&mut ring, &directory_path(0), 1, &mut |_| {}).expect("it can be read");
        assert_eq!(report.problems, Vec::<String>::new());
    }
}

/// Produces until so many answers in a row refuse; how many were acknowledged.
fn fill(machine: &mut Machine, client: &SimClient, random: &mut Random) -> i64 {
    let (mut acked, mut refused) = (0, 0);
    while refused < 20 {
        match machine.produce(client, 0, &large_batch(random)) {
            0 => (acked, refused) = (acked + 1, 0),
            STORAGE_ERROR => refused += 1,
            other => panic!("{other}"),
        }
        machine.measure();
        assert!(acked < 10_000, "the disk is small");
    }
    acked
}

#[test]
fn a_full_disk_refuses_producing_and_nothing_else_and_goes_on_when_there_is_space() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut machine = Machine::new(1, 1);
        machine.turn_until(|machine| machine.shards[0].0.core.storage.lanes.iter().all(Lane::is_idle));
        machine.rooms.free_bytes_min = random.below(3) << 20;
        machine.restart();
        machine.limit_disk((4 << 20) + random.below(6 << 20));
        let client = machine.connect();
        let mut acked = fill(&mut machine, &client, &mut random);
        assert!(acked > 20, "seed {seed}: {acked}");
        machine.pass(1_500);
        assert!(!machine.is_fenced());
        assert_eq!(machine.shards[0].0.core.storage.lanes[0].unplaced_bytes() >> 20, 0, "it found its place");
        client.write(&fetch(0, 0));
        assert_eq!(fetch_error(&machine.answer(&client)), 0);
        drop(client);

        if random.chance(2, 3) {
            machine.world.power_cut();
            machine.shards.clear();
            machine.start(1);
            assert_eq!(machine.log_end(0), acked, "seed {seed}: what was acknowledged is there");
            machine.measure();
        }
        let client = machine.connect();
        machine.limit_disk(20 << 20);
        // The shard sees the measurement with the next request.
        assert_eq!(machine.produce(&client, 0, &large_batch(&mut random)), 0, "seed {seed}");
        acked += 1;
        machine.pass(1_500);
        assert_eq!(machine.log_end(0), acked);
        machine.stop_and_verify();
    }
}

#[test]
fn producing_waits_while_removed_files_give_their_space_back() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut machine = Machine::new(1, 1);
        machine.turn_until(|machine| machine.shards[0].0.core.storage.lanes.iter().all(Lane::is_idle));
        machine.limit_disk((4 << 20) + random.below(6 << 20));
        machine.restart();
        let client = machine.connect();
        for _ in 0..40 {
            assert_eq!(machine.produce(&client, 0, &large_batch(&mut random)), 0);
        }
        let wall = machine.shards[0].0.core.wall;
        let storage = &mut machine.shards[0].0.core.storage;
        let known = storage.partition(super::target(0)).expect("it lives there");
        let (lane, log) = (known.lane, known.log);
        storage.lanes[lane].roll_active(log, wall);
        let acked = 40 + fill(&mut machine, &client, &mut random);
        machine.pass(1_500);
        let lane = &mut machine.shards[0].0.core.storage.lanes[lane];
        lane.advance_log_start(log, Offset(40)).expect("the journal has room");
        machine.turn(0);
        client.write(&produce(0, &large_batch(&mut random)));
        machine.pass(2);
        assert!(client.read().is_empty(), "seed {seed}: it isn't refused, nor is there space yet");
        for _ in 0..20 {
            machine.pass(100);
            machine.measure();
        }
        assert_eq!(produce_error(&machine.answer(&client)), 0, "seed {seed}");
        machine.pass(1_500);
        assert_eq!(machine.log_end(0), acked + 1);
        assert!(!machine.is_fenced());
    }
}

#[test]
fn a_hung_disk_refuses_producing_until_it_answers_and_others_go_on() {
    let mut machine = Machine::with_directories(2, 1, 2);
    let client = machine.connect();
    assert_eq!(machine.produce(&client, 0, &batch(BatchOptions::default())), 0);
    machine.turn_until(|machine| machine.shards[0].0.core.storage.lanes.iter().all(Lane::is_idle));
    machine.world.freeze(&directory_path(0));
    let (patient, impatient) = (machine.connect(), machine.connect());
    patient.write(&produce(0, &batch(BatchOptions::default())));
    impatient.write(&produce_within(5_000, -1, 0, &batch(BatchOptions::default())));
    machine.pass(7_000);
    assert_eq!(produce_error(&machine.answer(&impatient)), TIMED_OUT);
    // Not old enough yet: it may be a slow one.
    assert_eq!(machine.directories[0].state(), DirectoryState::Online as u64);
    machine.pass(6_000);
    assert_eq!(machine.directories[0].state(), DirectoryState::Stalled as u64);
    assert!(machine.directories[0].oldest_operation_ms() > 10_000);
    let begun = machine.world.now();
    assert_eq!(machine.produce(&client, 0, &batch(BatchOptions::default())), STORAGE_ERROR);
    assert!(machine.world.now().ms_since(begun) < 1_000, "it is answered at once");
    client.write(&fetch(0, 0));
    assert_eq!(fetch_error(&machine.answer(&client)), 0, "what is in memory is read");
    assert_eq!(machine.produce(&client, 1, &batch(BatchOptions::default())), 0);
    assert_eq!(machine.directories[1].state(), DirectoryState::Online as u64);
    assert!(patient.read().is_empty());

    machine.world.thaw();
    assert_eq!(produce_error(&machine.answer(&patient)), 0);
    machine.pass(200);
    assert_eq!(machine.produce(&client, 0, &batch(BatchOptions::default())), 0);
    assert!(!machine.is_fenced());
    assert_eq!(machine.log_end(0), 4, "the impatient one's, too");
}

#[test]
fn who_waits_for_room_on_a_hung_disk_keeps_nobody_else_from_theirs() {
    let mut random = Random::new(1);
    let mut machine = Machine::with_directories(2, 1, 2);
    machine.turn_until(|machine| machine.shards[0].0.core.storage.lanes.iter().all(Lane::is_idle));
    machine.world.freeze(&directory_path(0));
    let flood = machine.connect();
    let batches: Vec<Vec<u8>> = (0..200).map(|_| large_batch(&mut random)).collect();
    batches.iter().for_each(|batch| flood.write(&produce(0, batch)));
    machine.pass(11_000);
    assert!(machine.shards[0].0.core.storage.has_waiting(), "the tail pool is full");
    let other = machine.connect();
    for _ in 0..3 {
        assert_eq!(machine.produce(&other, 1, &batch(BatchOptions::default())), 0);
    }

    machine.world.thaw();
    machine.pass(3_000);
    assert!(!machine.shards[0].0.core.storage.has_waiting());
    assert_eq!(machine.produce(&other, 0, &batch(BatchOptions::default())), 0);
    assert!(!machine.is_fenced());
}

#[test]
fn without_descriptors_nothing_is_fenced_and_work_waits() {
    let mut random = Random::new(2);
    let mut machine = Machine::new(1, 1);
    machine.turn_until(|machine| machine.shards[0].0.core.storage.lanes.iter().all(Lane::is_idle));
    let client = machine.connect();
    let mut acked = 0;
    for round in 0..6 {
        // For segments, indexes, images and the directories they are in.
        machine.world.set_faults(Faults { no_descriptors: round % 2 == 0, ..machine.world.faults() });
        for _ in 0..12 {
            assert_eq!(machine.produce(&client, 0, &large_batch(&mut random)), 0);
            acked += 1;
        }
        let storage = &mut machine.shards[0].0.core.storage;
        let log = storage.partition(super::target(0)).expect("it lives there").log;
        let wall = crate::base::ids::WallMs(0);
        storage.lanes[0].roll_active(log, wall);
        let end = storage.lanes[0].log_end(log);
        storage.lanes[0].advance_log_start(log, end).expect("the journal has room");
        machine.pass(1_200);
        assert!(!machine.is_fenced(), "round {round}");
    }
    machine.pass(2_000);
    assert_eq!(machine.log_end(0), acked);
    machine.stop_and_verify();
}

#[test]
fn a_journal_without_space_for_its_files_gives_back_what_it_took() {
    let mut machine = Machine::new(1, 1);
    let used_bytes = machine.world.used_bytes();
    machine.limit_disk(1_500 << 10);
    // Within this it begins a file more than once, and gives it up.
    machine.pass(1_700);
    assert!(!machine.is_fenced());
    assert!(machine.world.used_bytes() < used_bytes + (1 << 20) + (300 << 10), "one file fits, not two");
    let capacity =
        |machine: &Machine| machine.shards[0].0.core.storage.lanes[0].stats().journal_capacity_bytes;
    assert!(capacity(&machine) < 4 << 20);
    machine.limit_disk(20 << 20);
    machine.pass(2_000);
    assert!(capacity(&machine) >= 4 << 20);
    machine.stop_and_verify();
}
