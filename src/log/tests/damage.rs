//! Damage at rest: bytes changed, lost or unreadable while nothing runs. Recovery says so or gives
//! everything back, and never serves bytes that weren't written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::harness::*;
use crate::base::ids::Offset;
use crate::base::random::Random;
use crate::log::verdict::{Found, Later, Verdict, judge};
use crate::log::{LaneError, LaneEvent, LaneOptions, PlanStart};
use crate::ring::sim::World;

const JOURNAL: &str = "/data/lanes/0/journal/0000.journal";

fn options() -> LaneOptions {
    LaneOptions { journal_bytes: 1 << 20, ..small_options() }
}

// ---- The table of `verdict`, on a disk -----------------------------------------------------------

/// A stopped machine whose group at `position` of the journal is the only one for partition 0 but its
/// first.
struct Scene {
    harness: Harness,
    position: u64,
    /// Groups behind it, that must be lost with it so that nothing names it.
    behind: Vec<u64>,
}

fn scene(counted: bool, later: Later) -> Scene {
    let mut harness = Harness::new(9, options());
    let mut random = Random::new(9);
    let indexes = [harness.create(id(1), 1 << 20), harness.create(id(2), 1 << 20)];
    for index in indexes {
        harness.append(index, &mut random, 2_000).expect("there is room");
        harness.settle();
    }
    let position = harness.lane.journal.position;
    harness.append(indexes[0], &mut random, 2_000).expect("there is room");
    harness.settle();
    if counted {
        harness.lane.image_begin();
        harness.settle();
    }
    let mut behind = Vec::new();
    for _ in 0..if later == Later::Silent { 24 } else { usize::from(later == Later::Names) } {
        behind.push(harness.lane.journal.position);
        harness.append(indexes[1], &mut random, 2_000).expect("there is room");
        harness.settle();
    }
    // The last one stays.
    behind.pop();
    harness.world.kill();
    Scene { harness, position, behind }
}

fn damage(world: &World, found: Found, position: u64) {
    let path = Path::new(JOURNAL);
    match found {
        // In the header: its length.
        Found::Nothing => world.corrupt(path, position + 68, 0x10),
        // In the payload.
        Found::HeaderOnly => world.corrupt(path, position + 140, 0x10),
        Found::Unreadable => world.break_page(path, position),
        Found::Short => world.cut_file(path, position),
        // The version.
        Found::Newer => world.corrupt(path, position + 8, 0x02),
    }
}

const FOUND: [Found; 5] = [Found::Nothing, Found::HeaderOnly, Found::Short, Found::Unreadable, Found::Newer];

#[test]
fn every_case_of_the_table_is_met_on_disk() {
    for later in [Later::None, Later::Names, Later::Silent] {
        for counted in [false, true] {
            let scene = scene(counted, later);
            for found in FOUND {
                let what = format!("{found:?}, counted {counted}, later {later:?}");
                let copy = scene.harness.recovered_copy(scene.harness.world.copy_disk(1), |world| {
                    damage(world, found, scene.position);
                    for position in scene.behind.iter().filter(|_| found != Found::Short) {
                        damage(world, Found::Nothing, *position);
                    }
                });
                // What is behind it is lost with it, in a file that is cut.
                let met = if found == Found::Short { Later::None } else { later };
                let verdict = judge(found, counted, met);
                match (verdict, copy) {
                    (Verdict::End | Verdict::Torn, Ok((copy, report))) => {
                        assert_eq!(report.torn_group.is_some(), verdict == Verdict::Torn, "{what}");
                        assert!(report.damaged.is_empty(), "{what}");
                        let log = copy.partitions[0].log;
                        let first_end = copy.partitions[0].batches[0].end_offset;
                        assert_eq!(copy.lane.log_end(log).0, first_end, "{what}");
                    }
                    (Verdict::Gap, Ok((mut copy, report))) => {
                        let damaged: Vec<_> = report.damaged.iter().map(|damage| damage.id).collect();
                        assert!(damaged.contains(&id(1)), "{what}");
                        // Where a group names the others, they are served.
                        let alone = later == Later::Names;
                        assert!(!alone || damaged == [id(1)], "{what}: {damaged:?}");
                        copy.accept_losses();
                        copy.check_recovered();
                    }
                    (Verdict::Damage, Err(LaneError::Damaged { .. })) => {}
                    (Verdict::ReadError, Err(LaneError::Io { .. })) => {}
                    (Verdict::NewerVersion, Err(LaneError::NewerVersion { .. })) => {}
                    (_, Ok((_, report))) => panic!("{what}: {verdict:?}, but it is served: {report:?}"),
                    (_, Err(error)) => panic!("{what}: {verdict:?}, but {error}"),
                }
            }
        }
    }
}

#[test]
fn a_damaged_partition_is_offline_alone_until_its_loss_is_accepted() {
    let scene = scene(false, Later::Names);
    let change = |world: &World| damage(world, Found::HeaderOnly, scene.position);
    let copied = scene.harness.recovered_copy(scene.harness.world.copy_disk(2), change);
    let (mut harness, report) = copied.expect("the others are served");
    let first_end = harness.partitions[0].batches[0].end_offset;
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].log_end.0, first_end);
    let logs = [harness.partitions[0].log, harness.partitions[1].log];
    let mut random = Random::new(3);

    // It stays so through restarts, whether its journal was recycled or not.
    for round in 0..3 {
        let start = harness.lane.plan(logs[0], Offset(0), Offset(first_end), 1_000, true, 1);
        assert_eq!(start, PlanStart::Offline, "round {round}");
        assert!(harness.append(0, &mut random, 100).is_err(), "round {round}");
        harness.append(1, &mut random, 2_000).expect("the other one is served");
        if round == 1 {
            harness.lane.image_begin();
        }
        harness.settle();
        harness.world.kill();
        let (ring, lane, report) = recover(&harness.world, &harness.options).expect("it starts again");
        (harness.ring, harness.lane) = (ring, lane);
        assert_eq!(report.damaged.len(), 1, "round {round}");
    }

    assert_eq!(harness.accept_losses(), 1);
    harness.settle();
    for _ in 0..10 {
        harness.append(0, &mut random, 2_000).expect("it is online again");
    }
    harness.settle();
    for index in 0..2 {
        harness.check_bytes(index, 0, 64 << 10);
    }
    harness.world.power_cut();
    let (ring, lane, report) = recover(&harness.world, &harness.options).expect("it starts again");
    (harness.ring, harness.lane) = (ring, lane);
    assert!(report.damaged.is_empty());
    harness.check_recovered();
}

// ---- Any byte of any file ------------------------------------------------------------------------

/// A stopped machine with sealed and active segments, indexes, two images, recycled journal files.
fn full_machine() -> Harness {
    let mut harness = Harness::new(11, small_options());
    let mut random = Random::new(11);
    let indexes =
        [harness.create(id(1), 16 << 10), harness.create(id(2), 128 << 10), harness.create(id(3), 1 << 20)];
    for round in 0..260 {
        let index = indexes[if round % 50 == 7 { 2 } else { round % 2 }];
        while harness.append(index, &mut random, 3_000).is_err() {
            harness.housekeep();
            harness.turn_within_ms();
        }
        if round % 4 == 0 {
            harness.housekeep();
            harness.turn_within_ms();
        }
    }
    harness.settle();
    harness.world.advance(1_100);
    harness.turn_within_ms();
    harness.settle();
    harness.world.kill();
    harness.expects_damage = true;
    harness
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    LaneOffline,
    PartitionOffline,
    /// A read refused the bytes.
    Refused,
    /// Every answer was as before.
    NoChange,
}

fn outcome_of(harness: &Harness, change: impl FnOnce(&World)) -> Outcome {
    let (mut copy, _) = match harness.recovered_copy(harness.world.copy_disk(5), change) {
        Ok(copied) => copied,
        Err(LaneError::Damaged { .. } | LaneError::NewerVersion { .. }) => return Outcome::LaneOffline,
        Err(other) => panic!("a changed byte isn't reported as such: {other}"),
    };
    let offline = copy.accept_losses();
    copy.check_recovered();
    for index in 0..copy.partitions.len() {
        let (start, end) = (copy.partitions[index].log_start_wanted, copy.partitions[index].end());
        for eighth in 1..8 {
            copy.check_lookup(index, start + (end - start) * eighth / 8);
            copy.cut = false;
        }
    }
    match (offline, copy.damage_count) {
        (0, 0) => Outcome::NoChange,
        (0, _) => Outcome::Refused,
        (_, _) => Outcome::PartitionOffline,
    }
}

/// Files of a kind: the last part of their name.
fn kind_of(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn lane_files(harness: &Harness) -> Vec<(String, u64)> {
    let files = harness.world.files().into_iter().filter(|path| path.contains("/lanes/0/"));
    let sized = |path: String| {
        let bytes = harness.world.read_file(Path::new(&path)).expect("just listed").len() as u64;
        (path, bytes)
    };
    files.map(sized).collect()
}

/// Says what was changed when an assertion fails.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after a change of {}", self.0);
        }
    }
}

type Outcomes = BTreeMap<(String, Outcome), u64>;

/// Changes each of `files` at every `step`th place of so many per byte, and counts what came of it.
fn change_all(
    harness: &Harness,
    files: &[(String, u64)],
    (step, places_per_byte): (u64, u64),
    change: impl Fn(&World, &Path, u64),
) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for (path, bytes) in files {
        let file = PathBuf::from(path);
        for place in (step / 2..bytes * places_per_byte).step_by(step as usize) {
            let _told = Told(format!("{path}, place {place}"));
            let outcome = outcome_of(harness, |world| change(world, &file, place));
            *outcomes.entry((kind_of(path).to_owned(), outcome)).or_default() += 1;
        }
    }
    outcomes
}

/// With every bit, one file of each kind is enough: the largest.
fn files_for(harness: &Harness, step: u64) -> Vec<(String, u64)> {
    let mut files = lane_files(harness);
    if step == 1 {
        files.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let mut kinds = std::collections::BTreeSet::new();
        files.retain(|(path, _)| kinds.insert(kind_of(path).to_owned()));
    }
    files
}

/// `CORELANE_DAMAGE_STEP=1` flips every bit of a file of each kind; without it every 4,999th of every file.
#[test]
fn a_flipped_bit_is_found_or_changes_no_answer() {
    let harness = full_machine();
    let step = every(4_999);
    let outcomes = change_all(&harness, &files_for(&harness, step), (step, 8), flip);
    eprintln!("flipped bits: {outcomes:#?}");
    for kind in ["log", "journal"] {
        let found =
            |((of, outcome), _): (&(String, Outcome), &u64)| of == kind && *outcome != Outcome::NoChange;
        assert!(outcomes.iter().any(found), "no flip in a .{kind} was found: the instrument is blind");
    }
}

/// `CORELANE_DAMAGE_STEP=1` cuts a file of each kind to every length; without it to every 4,999th.
#[test]
fn a_cut_file_is_found_or_changes_no_answer() {
    let harness = full_machine();
    let step = every(4_999);
    let outcomes = change_all(&harness, &files_for(&harness, step), (step, 1), World::cut_file);
    eprintln!("cut files: {outcomes:#?}");
    let found = |((_, outcome), _): (&(String, Outcome), &u64)| *outcome != Outcome::NoChange;
    assert!(outcomes.iter().any(found), "no cut was found: the instrument is blind");
}

/// A little of everything in this file.
pub fn check_all() {
    let harness = full_machine();
    let files = lane_files(&harness);
    change_all(&harness, &files, (4_999, 8), flip);
    change_all(&harness, &files, (4_999, 1), World::cut_file);
    let indexes: Vec<_> = files.into_iter().filter(|(path, _)| kind_of(path) == "index").collect();
    change_all(&harness, &indexes, (101, 8), flip);
    every_case_of_the_table_is_met_on_disk();
}

#[test]
fn recovery_of_an_unchanged_disk_changes_no_answer() {
    let harness = full_machine();
    assert_eq!(outcome_of(&harness, |_| {}), Outcome::NoChange);
}

#[test]
fn a_damaged_index_is_made_again_from_its_segment() {
    for damage in [
        (|world, path| world.corrupt(path, 70, 1)) as fn(&World, &Path),
        |world, path| world.cut_file(path, 0),
        |world, path| world.break_page(path, 0),
    ] {
        let harness = full_machine();
        let is_index = |(path, _): &(String, u64)| path.ends_with(".index");
        let indexes: Vec<_> = lane_files(&harness).into_iter().filter(is_index).collect();
        assert!(indexes.len() > 10);
        let before: Vec<_> =
            indexes.iter().map(|(path, _)| harness.world.read_file(Path::new(path))).collect();
        let copied = harness.recovered_copy(harness.world.copy_disk(4), |world| {
            indexes.iter().for_each(|(path, _)| damage(world, Path::new(path)));
        });
        let (mut copy, _) = copied.expect("no index is read by recovery");
        copy.expects_damage = false;
        copy.check_recovered();
        // Every offset is found, which asks for every index.
        for index in 0..copy.partitions.len() {
            for batch in copy.partitions[index].batches.clone() {
                copy.check_bytes(index, batch.base_offset, 1);
            }
        }
        // Those that no checkpoint calls sealed yet are sealed again anyway.
        assert!(copy.lane.stats().indexes_rebuilt_count > indexes.len() as u64 / 2);
        copy.settle();
        let after: Vec<_> = indexes.iter().map(|(path, _)| copy.world.read_file(Path::new(path))).collect();
        assert!(before == after, "the same bytes again");
    }
}

#[test]
fn the_scrub_finds_a_flipped_bit_of_any_sealed_segment() {
    let mut harness = full_machine();
    harness.options.scrub_bytes_per_second = 1 << 20;
    harness.options.scrub_interval_ms = 60_000;
    // Sealed, and its index knows its headers.
    let is_sealed = |(path, _): &(String, u64)| {
        let index = path.replace(".log", ".index");
        path.ends_with(".log") && harness.world.read_file(Path::new(&index)).is_some()
    };
    let segments: Vec<_> = lane_files(&harness).into_iter().filter(is_sealed).collect();
    assert!(segments.len() > 10);
    for (number, (path, bytes)) in segments.iter().enumerate() {
        let position = bytes * number as u64 / segments.len() as u64;
        let change = |world: &World| world.corrupt(Path::new(path), position, 0x40);
        let copied = harness.recovered_copy(harness.world.copy_disk(6), change);
        let (mut copy, _) = copied.expect("segments aren't read by recovery");
        scrub_round(&mut copy);
        let told = copy.events.iter().filter_map(|event| match event {
            LaneEvent::Damage { what, .. } => Some(what),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        let is_it = |what: &&String| what.contains(path.as_str());
        assert!(!told.is_empty() && told.iter().all(is_it), "{path} at {position}: {told:?}");
    }
}

#[test]
fn the_scrub_makes_a_damaged_index_again() {
    let mut harness = full_machine();
    harness.options.scrub_bytes_per_second = 1 << 20;
    harness.options.scrub_interval_ms = 60_000;
    let is_index = |(path, _): &(String, u64)| path.ends_with(".index");
    let (path, _) = lane_files(&harness).into_iter().find(is_index).expect("segments were sealed");
    let before = harness.world.read_file(Path::new(&path));
    let change = |world: &World| world.corrupt(Path::new(&path), 80, 1);
    let (mut copy, _) = harness.recovered_copy(harness.world.copy_disk(7), change).expect("it isn't read");
    scrub_round(&mut copy);
    copy.settle();
    assert!(copy.world.read_file(Path::new(&path)) == before);
}

#[test]
fn rows_that_no_index_has_stay_in_memory() {
    let mut harness = Harness::new(12, options());
    let index = harness.create(id(1), 1 << 20);
    let log = harness.partitions[index].log;
    harness.append(0, &mut Random::new(12), 2_000).expect("there is room");
    let segment = harness.lane.segments(log).next().expect("a partition has a segment").id;
    let mut is_kept = |sealed: bool| {
        let lane = &mut harness.lane;
        lane.partitions.get_mut(log).and_then(|log| log.segment_mut(segment)).expect("there").sealed = sealed;
        (segment..segment + 65).for_each(|other| lane.reads.cache_rows(&mut lane.partitions, log, other));
        lane.partition(log).segment(segment).expect("there").rows.is_some()
    };
    // As that of a segment whose index is being made again.
    assert!(is_kept(false));
    assert!(!is_kept(true));
}

fn scrub_round(harness: &mut Harness) {
    harness.settle();
    harness.world.advance(61_000);
    for _ in 0..100_000 {
        if harness.lane.stats().scrub_rounds_count > 0 {
            return;
        }
        harness.housekeep();
        harness.turn_within_ms();
    }
    panic!("the round doesn't end");
}
