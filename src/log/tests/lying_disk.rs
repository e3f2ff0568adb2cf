//! A disk that lies: writes that are dropped or go elsewhere and are called done, reads with a flipped bit.
//! A few per life, beside kills, power cuts and restarts.
//!
//! What is asked of the engine: no read hands out bytes that weren't written, no log is silently shorter,
//! nothing panics or hangs.
//!
//! What isn't asked, since nothing on disk tells:
//!
//! - The newest groups of the journal, where no intact group stands behind them and no intact image counts
//!   them as durable: they look like a write that the crash tore. [`proofs`] finds what stands on disk; a flip
//!   in the read that recovery makes of it counts like one at rest. What a lost group said is then undone: a
//!   partition is there again that was dropped, its files gone, and reads and writes of these fail.
//! - Where a flip hid a group from one recovery, which said so, and not from the next: the log start of a
//!   partition found damaged may move on to where that group had asked for.
//!
//! What is only counted: lanes that refuse to start without calling it damage, and lanes that fence
//! themselves, over a file that is gone.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use zerocopy::FromBytes;

use super::harness::*;
use super::power_cut::{end, options_of, step};
use super::seeds::run_seeds;
use crate::base::checksum::crc32c;
use crate::base::random::Random;
use crate::log::format::{GROUP_MAGIC, GroupHeader, IMAGE_MAGIC, ImageHeader, Sealed};
use crate::log::mutation::{self, Mutation};
use crate::log::replay::{Group, item_end};
use crate::log::{Control, LaneError, LaneOptions, Sequence};
use crate::ring::sim::{Faults, Lie, LieKind, World};

const LIVES: u64 = 3;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    lost: u64,
    misdirected: u64,
    flipped: u64,
    /// Reads that refused bytes.
    refused_reads: u64,
    /// Found by the scrub.
    scrubbed: u64,
    damaged_partitions: u64,
    refused_recoveries: u64,
    /// Lanes that stay offline.
    lanes_offline: u64,
    /// Of these, those that don't call it damage.
    lanes_refused_otherwise: u64,
    /// Recoveries after which durable groups were gone and nothing could tell.
    tails_lost: u64,
    fenced: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.misdirected += other.misdirected;
        self.flipped += other.flipped;
        self.refused_reads += other.refused_reads;
        self.scrubbed += other.scrubbed;
        self.damaged_partitions += other.damaged_partitions;
        self.refused_recoveries += other.refused_recoveries;
        self.lanes_offline += other.lanes_offline;
        self.lanes_refused_otherwise += other.lanes_refused_otherwise;
        self.tails_lost += other.tails_lost;
        self.fenced += other.fenced;
    }
}

// ---- What stands on disk -------------------------------------------------------------------------

/// An intact group or image: everything before `item` was durable when it was written.
struct Proof {
    path: String,
    bytes: Range<u64>,
    item: u64,
    number: u64,
    incarnation: u64,
}

impl Proof {
    /// The read of it gave other bytes.
    fn was_flipped(&self, lies: &[Lie]) -> bool {
        lies.iter().any(|lie| match lie.kind {
            LieKind::Flipped { at } => lie.path == self.path && self.bytes.contains(&at),
            LieKind::Lost | LieKind::Misdirected { .. } => false,
        })
    }
}

fn proofs(world: &World, log_id: [u8; 16]) -> Vec<Proof> {
    let mut proofs = Vec::new();
    for path in world.files() {
        let Some(bytes) = world.read_file(Path::new(&path)) else { continue };
        if path.ends_with(".journal") {
            let groups = (0..bytes.len()).step_by(4096).filter_map(|at| group_at(&bytes, at, log_id));
            proofs.extend(groups.map(|(at, group)| Proof {
                path: path.clone(),
                bytes: at..at + group.size_bytes(),
                item: item_end(&group).expect("an intact group is well formed"),
                number: group.header.number.get(),
                incarnation: group.header.incarnation.get(),
            }));
        } else if path.ends_with(".image") {
            proofs.extend(image_of(&bytes, log_id).map(|header| Proof {
                path: path.clone(),
                bytes: 0..bytes.len() as u64,
                item: header.item_next.get(),
                number: header.durable_number.get(),
                incarnation: u64::MAX,
            }));
        }
    }
    // Of a history that an earlier recovery has ended.
    let newest: Vec<_> = proofs.iter().map(|proof| (proof.number, proof.incarnation)).collect();
    let ended = |proof: &Proof| {
        let goes_on = |(number, incarnation): &(u64, u64)| {
            *number <= proof.number && *incarnation > proof.incarnation && *incarnation != u64::MAX
        };
        newest.iter().any(goes_on)
    };
    proofs.retain(|proof| !ended(proof));
    proofs
}

fn group_at(bytes: &[u8], at: usize, log_id: [u8; 16]) -> Option<(u64, Group)> {
    let (header, rest) = GroupHeader::read_from_prefix(&bytes[at..]).ok()?;
    let here = header.magic == GROUP_MAGIC && header.log_id == log_id && header.position.get() == at as u64;
    let payload = rest.get(..header.payload_bytes.get() as usize).filter(|_| here && header.is_intact())?;
    let intact = crc32c(payload) == header.payload_checksum.get();
    intact.then(|| (at as u64, Group { header, payload: payload.to_vec() }))
}

fn image_of(bytes: &[u8], log_id: [u8; 16]) -> Option<ImageHeader> {
    let (header, rest) = ImageHeader::read_from_prefix(bytes).ok()?;
    let known = header.magic == IMAGE_MAGIC && header.log_id == log_id && header.is_intact();
    let payload = rest.get(..header.payload_bytes.get() as usize).filter(|_| known)?;
    (crc32c(payload) == header.payload_checksum.get()).then_some(header)
}

// ---- A machine with such a disk ------------------------------------------------------------------

/// Some of the lies, each seed its own.
fn lies_of(random: &mut Random) -> Faults {
    let mut rate = || if random.chance(1, 2) { [1_000, 4_000, 16_000][random.below(3) as usize] } else { 0 };
    Faults {
        lost_write_ppm: rate(),
        misdirected_write_ppm: rate(),
        read_flip_ppm: rate() * 2,
        ..Faults::default()
    }
}

fn run(seed: u64) -> Tally {
    let mut random = Random::new(seed);
    // What was verified once may be sent without another look: later lies are the clients' CRC's to find.
    let options = LaneOptions { verify_always: true, ..options_of(&mut random, Control::None) };
    let mut harness = Harness::new(seed, options);
    // Its reads may find it at any time; `finish` asks that there was something to find.
    harness.expects_damage = true;
    let log_id = harness.lane.journal.log_id;
    let lies = lies_of(&mut random);
    let batch_bytes_max = [200, 2_000, 6_000][random.below(3) as usize];
    let mut names = 0;
    let mut tally = Tally::default();
    for _ in 0..LIVES {
        harness.world.set_faults(lies.clone());
        let steps = 50 + random.below(400);
        let lies_max = harness.world.lies().len() as u64 + 1 + random.below(3);
        if random.chance(1, 2) {
            harness.world.power_cut_at(1 + random.below(steps * 2));
        }
        for _ in 0..steps {
            let refused = harness.damage_count;
            step(&mut harness, &mut random, &mut names, batch_bytes_max);
            let lies_count = harness.world.lies().len() as u64;
            if lies_count >= lies_max {
                harness.world.set_faults(Faults::default());
            }
            // Refused bytes don't end a life.
            harness.cut &= harness.damage_count == refused;
            if harness.cut || harness.lane.fenced().is_some() {
                break;
            }
        }
        tally.scrubbed += harness.lane.stats().damage_count;
        end(&mut harness, &mut random);
        harness.epoch += 1;
        if !restart(&mut harness, &mut random, &lies, log_id, &mut tally) {
            return finish(&harness, tally);
        }
    }
    harness.world.set_faults(Faults::default());
    harness.world.power_cut();
    if restart(&mut harness, &mut random, &Faults::default(), log_id, &mut tally) {
        harness.settle();
        if harness.lane.fenced().is_some() {
            tally.fenced += 1;
        }
        for index in 0..harness.partitions.len() {
            let model = &harness.partitions[index];
            let whole = model.acked_end == model.end() || harness.lane.fenced().is_some();
            assert!(whole, "everything becomes durable in the end");
            let start = model.log_start_wanted;
            harness.check_bytes(index, start, 10_000);
            harness.cut = false;
        }
        tally.scrubbed += harness.lane.stats().damage_count;
    }
    finish(&harness, tally)
}

fn finish(harness: &Harness, mut tally: Tally) -> Tally {
    tally.refused_reads += harness.damage_count;
    for lie in harness.world.lies() {
        match lie.kind {
            LieKind::Lost => tally.lost += 1,
            LieKind::Misdirected { .. } => tally.misdirected += 1,
            LieKind::Flipped { .. } => tally.flipped += 1,
        }
    }
    let told = tally.refused_reads + tally.scrubbed + tally.damaged_partitions + tally.refused_recoveries;
    let lies = tally.lost + tally.misdirected + tally.flipped;
    assert!(lies > 0 || told == 0, "damage where none is: {tally:?}");
    tally
}

/// Recovers, through further cuts and lies. False where the lane stays offline.
fn restart(
    harness: &mut Harness,
    random: &mut Random,
    lies: &Faults,
    log_id: [u8; 16],
    tally: &mut Tally,
) -> bool {
    for attempt in 0.. {
        let honest = attempt >= 4;
        harness.world.set_faults(match random.below(3) {
            _ if honest => Faults::default(),
            0 => Faults { read_flip_ppm: 0, ..lies.clone() },
            // What a flip took from sight is overwritten, and that write isn't lost at the same time.
            _ => Faults { read_flip_ppm: lies.read_flip_ppm * 4, ..Faults::default() },
        });
        if !honest && random.chance(1, 3) {
            harness.world.power_cut_at(1 + random.below(40));
        }
        let mut proofs = proofs(&harness.world, log_id);
        let told = harness.world.lies().len();
        let recovered = recover(&harness.world, &harness.options);
        let lies = harness.world.lies();
        let lied = !lies.is_empty();
        if !matches!(recovered, Err(LaneError::Damaged { .. } | LaneError::NewerVersion { .. })) {
            proofs.retain(|proof| !proof.was_flipped(&lies[told..]));
            let proven = proofs.iter().map(|proof| proof.item).max().unwrap_or(0);
            tally.tails_lost += u64::from(proven < harness.durable.0);
            assert!(proven >= harness.durable.0 || lied, "an honest disk keeps everything");
            harness.expect_no_more_than(Sequence(proven));
        }
        match recovered {
            Ok((ring, lane, report)) => {
                assert!(report.damaged.is_empty() || lied, "{:?}", report.damaged);
                tally.damaged_partitions += report.damaged.len() as u64;
                (harness.ring, harness.lane) = (ring, lane);
                harness.events.clear();
                harness.cut = false;
                // The entry that dropped it is among those lost.
                for (log, found) in harness.lane.partitions().collect::<Vec<_>>() {
                    let known = harness.partitions.iter().any(|model| model.id == found);
                    if !known && harness.lane.is_damaged(log) {
                        harness.lane.drop_partition(log, 3);
                    }
                }
                if !report.damaged.is_empty() {
                    harness.world.power_cut_at(1 << 40);
                    harness.accept_losses();
                }
                harness.check_recovered();
                return true;
            }
            // A cut that was asked for before may still come.
            Err(LaneError::Io { .. }) if attempt < 9 => {}
            Err(error) if lied => {
                tally.refused_recoveries += 1;
                if honest {
                    tally.lanes_offline += 1;
                    let damaged = matches!(error, LaneError::Damaged { .. } | LaneError::NewerVersion { .. });
                    tally.lanes_refused_otherwise += u64::from(!damaged);
                    return false;
                }
            }
            Err(other) => panic!("recovery: {other}"),
        }
    }
    unreachable!("the attempts end")
}

#[test]
fn a_lying_disk_is_found_out_or_changes_no_answer() {
    let sum = std::sync::Mutex::new(Tally::default());
    let runs = std::sync::atomic::AtomicU64::new(0);
    run_seeds("lying disk", 200, |seed| {
        let tally = run(seed);
        sum.lock().expect("nobody panics with it").add(&tally);
        runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    let sum = *sum.lock().expect("nobody panics with it");
    eprintln!("lying disk: {sum:?}");
    if runs.into_inner() > 100 {
        let least = [
            sum.lost,
            sum.misdirected,
            sum.flipped,
            sum.refused_reads,
            sum.scrubbed,
            sum.damaged_partitions,
            sum.refused_recoveries,
        ];
        assert!(least.iter().all(|count| *count > 0), "{sum:?}");
    }
}

/// Seeds beyond those of every run that have found something.
#[test]
fn what_was_found_once_stays_found() {
    for seed in [2_723, 4_811] {
        run(seed);
    }
}

/// The first of these seeds that finds a deliberate mistake.
fn found(mutation: Mutation, seeds_max: u64) -> Option<u64> {
    let fails =
        |seed: &u64| catch_unwind(AssertUnwindSafe(|| mutation::with(mutation, || run(*seed)))).is_err();
    (0..seeds_max).find(fails)
}

#[test]
fn believing_the_disk_is_caught() {
    for mutation in [Mutation::ServeUnverified, Mutation::SkipPayloadChecksum, Mutation::EndAtFirstBadGroup] {
        assert!(found(mutation, 400).is_some(), "{mutation:?}: the instrument is blind");
    }
}
