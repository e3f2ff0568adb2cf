//! Lanes: a lane whose files rotted is recovered, or refused with what is wrong.

use crate::log_files;
use corelane::base::ids::{
    LaneId, LeaderEpoch, MonotonicNs, Offset, PartitionId, TopicId, TopicPartition, WallMs,
};
use corelane::log::{Awaited, Lane, LaneOptions, PartitionSettings, prepare_dir};
use corelane::protocol::batch_builder::{BatchBuilder, BatchOptions};
use corelane::protocol::compression::Codecs;
use corelane::ring::sim::World;
use corelane::ring::{Ring, Sleep};
use std::path::{Path, PathBuf};

const OWNER: u8 = 7;
const WALL: WallMs = WallMs(1_700_000_000_000);

fn options() -> LaneOptions {
    LaneOptions {
        journal_bytes: 256 << 10,
        journal_files_count: 4,
        group_bytes_max: 16 << 10,
        tail_pool_bytes: 128 << 10,
        files_open_max: 8,
        reads_max: 2,
        ..LaneOptions::new(PathBuf::from("/data"), LaneId(0), OWNER)
    }
}

/// A machine whose lane has partitions, sealed segments, an image, and a journal behind it; then killed.
pub fn lived_in() -> World {
    let world = World::new(3);
    world.make_dirs(Path::new("/"));
    let mut ring = Ring::simulated(&world);
    prepare_dir(&mut ring, Path::new("/data"), OWNER).expect("a new folder");
    let (mut lane, _) = Lane::recover(&mut ring, options()).expect("a new lane");
    let settings = PartitionSettings { segment_bytes_max: 8 << 10, segment_ms_max: u64::MAX };
    let mut logs = Vec::new();
    for number in 0..3 {
        let id =
            TopicPartition { topic_id: TopicId([number; 16]), partition: PartitionId(i32::from(number)) };
        logs.push((lane.create_partition(id, 1, settings, WALL).expect("room").0, 0));
    }
    for round in 0..60 {
        for (log, end) in &mut logs {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            builder.push(1000 + round, Some(b"key"), Some(&[round as u8; 700]), &[]);
            let batch = builder.finish(&mut Codecs::default());
            if lane.append(*log, &batch, Offset(*end), LeaderEpoch(0), WALL, Awaited::Yes).is_ok() {
                *end += 1;
            }
        }
        for _ in 0..10 {
            turn(&mut ring, &mut lane);
        }
    }
    world.kill();
    world
}

fn turn(ring: &mut Ring, lane: &mut Lane) {
    let end = MonotonicNs(ring.now().0 + 1_000_000);
    ring.turn(Sleep::Until(end));
    let mut events = Vec::new();
    while let Some(completion) = ring.next() {
        lane.complete(ring, completion, &mut events);
    }
    let now = ring.now();
    lane.turn(ring, now);
    lane.housekeep(ring, now, WALL);
}

/// Each 8 bytes of the input change one byte: which file, where, how.
pub fn recover(input: &[u8]) {
    recover_changed(input, |_, _| {});
}

/// The same, with checksums that are right again: what a mistake of the writer could look like.
pub fn recover_sealed(input: &[u8]) {
    recover_changed(input, |path, contents| {
        if let Some(kind) = log_files::kind_of(path) {
            log_files::reseal_contents(kind, contents);
        }
    });
}

fn recover_changed(input: &[u8], seal: impl Fn(&str, &mut [u8])) {
    let world = lived_in();
    let files = world.files();
    for change in input.chunks_exact(8).take(16) {
        let path = &files[usize::from(change[0]) % files.len()];
        let before = world.read_file(Path::new(path)).unwrap_or_default();
        let mut after = before.clone();
        let wanted = u32::from_be_bytes([change[1], change[2], change[3], change[4]]) as usize;
        if !after.is_empty() {
            let at = wanted % after.len();
            after[at] ^= change[5];
        }
        seal(path, &mut after);
        for (position, (old, new)) in
            before.iter().zip(&after).enumerate().filter(|(_, (old, new))| old != new)
        {
            world.corrupt(Path::new(path), position as u64, old ^ new);
        }
    }
    let mut ring = Ring::simulated(&world);
    if prepare_dir(&mut ring, Path::new("/data"), OWNER).is_err() {
        return;
    }
    if let Ok((mut lane, _)) = Lane::recover(&mut ring, options()) {
        for _ in 0..20 {
            turn(&mut ring, &mut lane);
        }
    }
}

/// The highest byte of every number in the headers at the front of each file, and two changes at once.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for file in 0..12 {
        for at in (3..160u8).step_by(4) {
            seeds.push(vec![file, 0, 0, 0, at, 0x7f, 0, 0]);
        }
        seeds.push(vec![file, 0, 0, 16, 72, 0x80, 0, 0, file, 0, 3, 0, 1, 0xff, 0, 0]);
    }
    seeds
}
