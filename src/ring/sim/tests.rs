//! What the simulated machine keeps, loses and gets wrong.

use std::collections::BTreeSet;

use super::*;
use crate::ring::buffer::ALIGNMENT_BYTES;
use crate::ring::{IoBuffer, Ring, WriteMode};

const BLOCK: usize = ALIGNMENT_BYTES;
const SEEDS_COUNT: u64 = 200;
const PATH: &str = "/file";

fn token() -> Token {
    Token::new(1, 1)
}

/// Blocking calls on a simulated ring, for tests that tell a story.
struct Process {
    ring: Ring,
}

impl Process {
    fn start(world: &World) -> Self {
        Self { ring: Ring::simulated(world) }
    }

    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, IoError> {
        self.ring.open(token(), Path::new(path), mode);
        match self.ring.wait(token()) {
            Completion::Opened { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }

    /// A new file whose name and first blocks of `byte` are durable.
    fn durable_file(&mut self, blocks_count: usize, byte: u8) -> FileId {
        let file = self.open(PATH, OpenMode::CreateNew).unwrap();
        self.write(file, 0, blocks_count, byte, WriteMode::Durable).unwrap();
        self.flush_dir("/").unwrap();
        file
    }

    fn submit_write(&mut self, file: FileId, position: u64, blocks_count: usize, byte: u8, mode: WriteMode) {
        let mut buffer = IoBuffer::new(blocks_count * BLOCK);
        buffer.fill(byte);
        self.ring.write(token(), file, position, buffer, 0..blocks_count * BLOCK, mode);
    }

    fn write(
        &mut self,
        file: FileId,
        position: u64,
        blocks_count: usize,
        byte: u8,
        mode: WriteMode,
    ) -> Result<(), IoError> {
        self.submit_write(file, position, blocks_count, byte, mode);
        self.result()
    }

    fn read(&mut self, file: FileId) -> Result<(), IoError> {
        self.ring.read(token(), file, 0, IoBuffer::new(BLOCK), 0..BLOCK);
        self.result()
    }

    fn flush(&mut self, file: FileId) -> Result<(), IoError> {
        self.ring.flush(token(), file);
        self.result()
    }

    fn flush_dir(&mut self, path: &str) -> Result<(), IoError> {
        self.ring.flush_dir(token(), Path::new(path));
        self.result()
    }

    fn truncate(&mut self, file: FileId, bytes: u64) -> Result<(), IoError> {
        self.ring.truncate(token(), file, bytes);
        self.result()
    }

    fn make_dir(&mut self, path: &str) -> Result<(), IoError> {
        self.ring.make_dir(token(), Path::new(path));
        self.result()
    }

    fn remove_file(&mut self, path: &str) -> Result<(), IoError> {
        self.ring.remove_file(token(), Path::new(path));
        self.result()
    }

    fn result(&mut self) -> Result<(), IoError> {
        match self.ring.wait(token()) {
            Completion::Transferred { result, .. } | Completion::Done { result, .. } => result,
            other => panic!("{other:?}"),
        }
    }
}

/// Tells a story on many worlds, cuts the power, and collects what is seen after it.
fn after_cuts<T: Ord>(story: fn(&World, &mut Process), look: fn(&World) -> T) -> BTreeSet<T> {
    let look_after = |seed| {
        let world = World::new(seed);
        story(&world, &mut Process::start(&world));
        world.power_cut();
        look(&world)
    };
    (0..SEEDS_COUNT).map(look_after).collect()
}

/// Waits for both operations in flight and says which completed first.
fn first_of_two(process: &mut Process) -> Token {
    let mut completed = Vec::new();
    while completed.len() < 2 {
        process.ring.turn(Sleep::Forever);
        completed.extend(std::iter::from_fn(|| process.ring.next()).filter_map(|done| done.token()));
    }
    completed[0]
}

fn contents(world: &World) -> Option<Vec<u8>> {
    world.read_file(Path::new(PATH))
}

fn length(world: &World) -> Option<usize> {
    contents(world).map(|bytes| bytes.len())
}

#[test]
fn a_durable_write_survives_with_the_length_it_needs() {
    let seen = after_cuts(
        |_, process| {
            process.durable_file(2, 1);
        },
        contents,
    );
    assert_eq!(seen, BTreeSet::from([Some(vec![1; 2 * BLOCK])]));
}

#[test]
fn an_unflushed_write_survives_in_any_part_and_tears_at_both_sizes() {
    let seen = after_cuts(
        |_, process| {
            let file = process.durable_file(2, 1);
            process.write(file, 0, 2, 2, WriteMode::Plain).unwrap();
        },
        |world| {
            let bytes = contents(world).unwrap();
            assert_eq!(bytes.len(), 2 * BLOCK);
            assert!(bytes.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
            bytes.chunks(512).map(|sector| sector[0]).collect::<Vec<u8>>()
        },
    );
    let whole = |byte: u8| vec![byte; 16];
    assert!(seen.contains(&whole(1)) && seen.contains(&whole(2)));
    assert!(seen.contains(&[vec![1; 8], vec![2; 8]].concat()), "torn at 4 KiB");
    assert!(seen.iter().any(|sectors| sectors[..8].iter().any(|byte| *byte != sectors[0])), "torn at 512 B");
}

#[test]
fn growth_is_lost_or_kept_apart_from_the_data() {
    let seen = after_cuts(
        |_, process| {
            let file = process.open(PATH, OpenMode::CreateNew).unwrap();
            process.flush_dir("/").unwrap();
            process.write(file, 0, 1, 2, WriteMode::Plain).unwrap();
        },
        |world| contents(world).map(|bytes| (bytes.len(), bytes.iter().all(|byte| *byte == 2))),
    );
    // Nothing; the length without (all of) the data; both.
    assert_eq!(seen, BTreeSet::from([Some((0, true)), Some((BLOCK, false)), Some((BLOCK, true))]));
}

#[test]
fn a_flush_covers_what_completed_before_it_was_submitted_and_nothing_else() {
    let flushed = after_cuts(
        |_, process| {
            let file = process.durable_file(1, 1);
            process.write(file, 0, 1, 2, WriteMode::Plain).unwrap();
            process.flush(file).unwrap();
        },
        contents,
    );
    assert_eq!(flushed, BTreeSet::from([Some(vec![2; BLOCK])]));
    let together = after_cuts(
        |_, process| {
            let file = process.durable_file(1, 1);
            process.submit_write(file, 0, 1, 2, WriteMode::Plain);
            let flush = Token::new(1, 2);
            process.ring.flush(flush, file);
            // Where the flush completed first nothing is to be seen.
            if first_of_two(process) == flush {
                process.flush(file).unwrap();
            }
        },
        contents,
    );
    assert!(together.contains(&Some(vec![1; BLOCK])));
}

#[test]
fn an_old_write_that_survives_never_covers_a_newer_durable_one() {
    let seen = after_cuts(
        |_, process| {
            let file = process.durable_file(1, 1);
            process.write(file, 0, 1, 2, WriteMode::Plain).unwrap();
            process.write(file, 0, 1, 3, WriteMode::Durable).unwrap();
        },
        contents,
    );
    assert_eq!(seen, BTreeSet::from([Some(vec![3; BLOCK])]));
}

#[test]
fn names_are_durable_by_the_flush_of_their_directory() {
    let kept = |world: &World| world.files();
    let unflushed = after_cuts(
        |_, process| {
            process.make_dir("/dir").unwrap();
            process.open("/dir/file", OpenMode::CreateNew).unwrap();
            process.flush_dir("/dir").unwrap();
        },
        kept,
    );
    assert_eq!(unflushed, BTreeSet::from([vec![], vec!["/dir/file".to_string()]]), "the parent is missing");
    let flushed = after_cuts(
        |_, process| {
            process.make_dir("/dir").unwrap();
            process.flush_dir("/").unwrap();
            process.open("/dir/file", OpenMode::CreateNew).unwrap();
            process.flush_dir("/dir").unwrap();
        },
        kept,
    );
    assert_eq!(flushed, BTreeSet::from([vec!["/dir/file".to_string()]]));
    let together = after_cuts(
        |_, process| {
            let flush = Token::new(1, 2);
            process.ring.open(token(), Path::new(PATH), OpenMode::CreateNew);
            process.ring.flush_dir(flush, Path::new("/"));
            if first_of_two(process) == flush {
                process.flush_dir("/").unwrap();
            }
        },
        kept,
    );
    assert!(together.contains(&vec![]), "the name was made after the flush was submitted");
}

#[test]
fn a_removal_comes_back_unless_its_directory_was_flushed() {
    let unflushed = after_cuts(
        |_, process| {
            process.durable_file(1, 1);
            process.remove_file(PATH).unwrap();
        },
        contents,
    );
    assert_eq!(unflushed, BTreeSet::from([None, Some(vec![1; BLOCK])]));
    let flushed = after_cuts(
        |_, process| {
            process.durable_file(1, 1);
            process.remove_file(PATH).unwrap();
            process.flush_dir("/").unwrap();
        },
        contents,
    );
    assert_eq!(flushed, BTreeSet::from([None]));
}

#[test]
fn a_truncation_is_durable_by_the_flush_of_its_file() {
    let unflushed = after_cuts(
        |_, process| {
            let file = process.durable_file(2, 1);
            process.truncate(file, 100).unwrap();
        },
        length,
    );
    assert_eq!(unflushed, BTreeSet::from([Some(100), Some(2 * BLOCK)]));
    let flushed = after_cuts(
        |_, process| {
            let file = process.durable_file(2, 1);
            process.truncate(file, 100).unwrap();
            process.flush(file).unwrap();
        },
        length,
    );
    assert_eq!(flushed, BTreeSet::from([Some(100)]));
}

#[test]
fn a_write_in_flight_at_the_cut_is_there_in_any_part() {
    let seen = after_cuts(
        |world, process| {
            let file = process.durable_file(2, 1);
            world.power_cut_at(1);
            assert_eq!(process.write(file, 0, 2, 2, WriteMode::Durable), Err(IoError::Os(libc::EIO)));
        },
        |world| contents(world).unwrap().iter().filter(|byte| **byte == 2).count() / 512,
    );
    assert!(seen.contains(&0) && seen.contains(&16) && seen.len() > 3, "{seen:?}");
}

#[test]
fn what_a_failed_flush_covered_is_durable_by_no_later_flush() {
    let seen = after_cuts(
        |world, process| {
            let file = process.durable_file(1, 1);
            process.write(file, 0, 1, 2, WriteMode::Plain).unwrap();
            world.fail_operation(1, IoError::Os(libc::EIO));
            assert_eq!(process.flush(file), Err(IoError::Os(libc::EIO)));
            process.flush(file).unwrap();
        },
        contents,
    );
    assert!(seen.contains(&Some(vec![1; BLOCK])));
}

#[test]
fn a_killed_process_leaves_bytes_that_are_there_and_not_durable() {
    let unflushed = after_cuts(
        |world, process| {
            let file = process.durable_file(1, 1);
            process.write(file, 0, 1, 2, WriteMode::Plain).unwrap();
            world.kill();
            assert_eq!(contents(world), Some(vec![2; BLOCK]));
            Process::start(world).open(PATH, OpenMode::Read).unwrap();
        },
        contents,
    );
    assert!(unflushed.contains(&Some(vec![1; BLOCK])));
    let flushed = after_cuts(
        |world, process| {
            let file = process.durable_file(1, 1);
            process.write(file, 0, 1, 2, WriteMode::Plain).unwrap();
            world.kill();
            let mut next = Process::start(world);
            let file = next.open(PATH, OpenMode::Read).unwrap();
            next.flush(file).unwrap();
        },
        contents,
    );
    assert_eq!(flushed, BTreeSet::from([Some(vec![2; BLOCK])]));
}

#[test]
fn after_the_end_everything_fails_and_buffers_come_back() {
    for end in [World::power_cut, World::kill] {
        let world = World::new(1);
        let mut process = Process::start(&world);
        let file = process.durable_file(1, 1);
        process.submit_write(file, 0, 1, 2, WriteMode::Durable);
        process.ring.turn(Sleep::No);
        end(&world);
        assert_eq!(process.result(), Err(IoError::Os(libc::EIO)));
        assert_eq!(process.write(file, 0, 1, 3, WriteMode::Plain), Err(IoError::Os(libc::EIO)));
        assert_eq!(process.flush(file), Err(IoError::Os(libc::EIO)));
        assert_eq!(process.make_dir("/dir"), Err(IoError::Os(libc::EIO)));
        assert_eq!(process.open(PATH, OpenMode::Read), Err(IoError::Os(libc::EIO)));
        assert_eq!(process.ring.list_dir(Path::new("/")), Err(IoError::Os(libc::EIO)));
        process.ring.close(file);
        assert!(Process::start(&world).open(PATH, OpenMode::Read).is_ok());
    }
}

#[test]
fn the_countdown_fails_the_one_operation() {
    let world = World::new(1);
    let mut process = Process::start(&world);
    let file = process.durable_file(1, 1);
    let before = world.operations_count();
    world.fail_operation(2, IoError::NoSpace);
    assert_eq!(process.read(file), Ok(()));
    assert_eq!(process.make_dir("/dir"), Err(IoError::NoSpace));
    assert_eq!(process.make_dir("/dir"), Ok(()));
    assert_eq!(world.operations_count(), before + 3);
}

#[test]
fn a_full_disk_refuses_until_space_returns() {
    let world = World::new(1);
    let mut process = Process::start(&world);
    let file = process.durable_file(4, 1);
    world.set_faults(Faults { capacity_bytes: Some(8 * BLOCK as u64), ..Faults::default() });
    let allocate = |process: &mut Process, blocks_count: usize| {
        process.ring.allocate(token(), file, 0, (blocks_count * BLOCK) as u64);
        process.result()
    };
    // The root directory takes a block.
    assert_eq!(allocate(&mut process, 8), Err(IoError::NoSpace));
    assert_eq!(allocate(&mut process, 7), Ok(()));
    assert_eq!(process.write(file, 6 * BLOCK as u64, 1, 2, WriteMode::Plain), Ok(()));
    assert_eq!(process.write(file, 7 * BLOCK as u64, 1, 2, WriteMode::Plain), Err(IoError::NoSpace));
    let other = process.open("/other", OpenMode::CreateNew).unwrap();
    process.remove_file(PATH).unwrap();
    assert_eq!(process.write(other, 0, 4, 2, WriteMode::Plain), Err(IoError::NoSpace), "still open");
    process.ring.close(file);
    assert_eq!(process.write(other, 0, 4, 2, WriteMode::Plain), Ok(()));
}

#[test]
fn every_fault_shows_itself() {
    let certain = 1_000_000;
    let world = World::new(1);
    let mut process = Process::start(&world);
    let file = process.durable_file(4, 1);
    let mut faulty = |faults: Faults, mode| {
        world.set_faults(faults);
        let result = process.write(file, 3 * BLOCK as u64, 1, 2, mode);
        let seen: Vec<u8> = contents(&world).unwrap().chunks(BLOCK).map(|block| block[0]).collect();
        world.set_faults(Faults::default());
        process.write(file, 0, 4, 1, WriteMode::Durable).unwrap();
        (result, seen)
    };
    let lost = Faults { lost_write_ppm: certain, ..Faults::default() };
    assert_eq!(faulty(lost, WriteMode::Durable), (Ok(()), vec![1, 1, 1, 1]));
    let misdirected = Faults { misdirected_write_ppm: certain, ..Faults::default() };
    let results: BTreeSet<_> = (0..50).map(|_| faulty(misdirected.clone(), WriteMode::Durable).1).collect();
    assert!(results.contains(&vec![2, 1, 1, 1]), "{results:?}");
    let short = Faults { short_write_ppm: certain, ..Faults::default() };
    assert_eq!(faulty(short, WriteMode::Plain).0, Err(IoError::Short { transferred_bytes: 0 }));
    let failed = Faults { write_error_ppm: certain, ..Faults::default() };
    assert_eq!(faulty(failed, WriteMode::Plain).0, Err(IoError::Os(libc::EIO)));
    world.set_faults(Faults { read_error_ppm: certain, ..Faults::default() });
    assert_eq!(process.read(file), Err(IoError::Os(libc::EIO)));
    world.set_faults(Faults { flush_error_ppm: certain, ..Faults::default() });
    assert_eq!(process.flush(file), Err(IoError::Os(libc::EIO)));
    assert_eq!(process.flush_dir("/"), Err(IoError::Os(libc::EIO)));
    world.set_faults(Faults { read_flip_ppm: certain, ..Faults::default() });
    process.ring.read(token(), file, 0, IoBuffer::new(BLOCK), 0..BLOCK);
    let Completion::Transferred { result, buffer, .. } = process.ring.wait(token()) else { panic!() };
    assert_eq!(result, Ok(()));
    assert_eq!(buffer.iter().map(|byte| (byte ^ 1).count_ones()).sum::<u32>(), 1);
}

#[test]
fn the_world_remembers_what_the_disk_lied_about() {
    let world = World::new(1);
    let mut process = Process::start(&world);
    let file = process.durable_file(4, 1);
    let certain = 1_000_000;
    for faults in [
        Faults { lost_write_ppm: certain, ..Faults::default() },
        Faults { misdirected_write_ppm: certain, ..Faults::default() },
    ] {
        world.set_faults(faults);
        for _ in 0..20 {
            process.write(file, BLOCK as u64, 1, 2, WriteMode::Durable).unwrap();
        }
    }
    let lies = world.lies();
    assert!(lies.iter().all(|lie| lie.path == PATH && lie.position == BLOCK as u64));
    let lost = lies.iter().filter(|lie| lie.kind == LieKind::Lost).count();
    // One that came back to its own block is no lie.
    let misdirected = lies.iter().filter(|lie| lie.kind == LieKind::Misdirected { to: 0 }).count();
    assert!(lost == 20 && (1..20).contains(&misdirected) && lies.len() == lost + misdirected, "{lies:?}");
}

#[test]
fn corruption_at_rest_outlives_a_cut() {
    let seen = after_cuts(
        |world, process| {
            process.durable_file(1, 1);
            world.corrupt(Path::new(PATH), 100, 0x10);
        },
        |world| contents(world).unwrap()[99..102].to_vec(),
    );
    assert_eq!(seen, BTreeSet::from([vec![1, 0x11, 1]]));
}

#[test]
fn the_clocks_move_apart() {
    let world = World::new(1);
    let mut ring = Ring::simulated(&world);
    let (now, wall) = (ring.now(), ring.wall_now());
    world.advance(1500);
    world.jump_wall(-3_600_000);
    ring.turn(Sleep::No);
    assert_eq!(ring.now().ms_since(now), 1500);
    assert_eq!(ring.wall_now().0, wall.0 + 1500 - 3_600_000);
    let deadline = ring.now().plus_ms(7);
    ring.turn(Sleep::Until(deadline));
    assert_eq!(ring.now(), deadline);
}

/// Everything a world does under faults, as text.
fn trace(seed: u64) -> String {
    let world = World::new(seed);
    world.set_faults(Faults {
        write_error_ppm: 50_000,
        short_write_ppm: 50_000,
        lost_write_ppm: 50_000,
        misdirected_write_ppm: 50_000,
        disconnect_ppm: 50_000,
        slow_ppm: 50_000,
        ..Faults::default()
    });
    let mut process = Process::start(&world);
    let mut trace = String::new();
    let file = process.open(PATH, OpenMode::CreateNew).unwrap();
    let (_, address) = process.ring.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let clients: Vec<SimClient> = (0..5).map(|_| world.connect(address).unwrap()).collect();
    for value in 0..300u64 {
        clients[value as usize % 5].write(&value.to_le_bytes());
        let (position, mode) = ((value * 7 % 16) * BLOCK as u64, WriteMode::Plain);
        process.ring.write(Token::new(2, value), file, position, IoBuffer::new(BLOCK), 0..BLOCK, mode);
        process.ring.turn(if value % 3 == 0 { Sleep::Forever } else { Sleep::No });
        let now = process.ring.now();
        while let Some(completion) = process.ring.next() {
            trace += &format!("{now:?} {completion:?}\n");
            match completion {
                Completion::Accepted { socket, .. } => process.ring.receive_start(socket),
                Completion::Received { bytes, .. } => process.ring.received_done(bytes),
                _ => {}
            }
        }
    }
    world.power_cut();
    trace += &format!("{:?}", contents(&world));
    trace
}

#[test]
fn the_same_seed_does_the_same_again_and_another_one_does_not() {
    for seed in 0..5 {
        assert!(trace(seed) == trace(seed));
    }
    assert!(trace(1) != trace(2));
}

#[test]
fn a_client_is_heard_answered_and_made_to_wait() {
    for seed in 0..50 {
        let world = World::new(seed);
        let mut ring = Ring::simulated(&world);
        assert_eq!(
            world.connect("127.0.0.1:1".parse().unwrap()).err(),
            Some(IoError::Os(libc::ECONNREFUSED))
        );
        let (_, address) = ring.listen("0.0.0.0:9092".parse().unwrap()).unwrap();
        assert_eq!(address.port(), 9092);
        let client = world.connect("127.0.0.1:9092".parse().unwrap()).unwrap();
        ring.turn(Sleep::No);
        let Some(Completion::Accepted { socket, .. }) = ring.next() else { panic!() };
        client.write(b"request");
        ring.receive_start(socket);
        let mut received = Vec::new();
        while received.len() < 7 {
            ring.turn(Sleep::Forever);
            while let Some(completion) = ring.next() {
                let Completion::Received { bytes, .. } = completion else { panic!() };
                received.extend_from_slice(ring.received(&bytes));
                ring.received_done(bytes);
            }
        }
        assert_eq!(received, b"request");
        // A response larger than the window waits for a client that reads.
        let response: Vec<u8> = (0..300_000u32).map(|value| value as u8).collect();
        ring.send(token(), socket, response.clone(), 0);
        ring.turn(Sleep::No);
        world.advance(100);
        ring.turn(Sleep::No);
        assert!(ring.next().is_none());
        let mut read = client.read();
        while read.len() < response.len() {
            world.advance(1);
            read.extend(client.read());
        }
        assert!(read == response);
        ring.turn(Sleep::No);
        assert!(matches!(ring.next(), Some(Completion::Sent { result: Ok(()), .. })));
        // The machine goes down: the client hears of it.
        assert_eq!(client.ended(), None);
        world.power_cut();
        assert_eq!(client.ended(), Some(Err(IoError::Disconnected)));
        ring.turn(Sleep::No);
        assert!(matches!(ring.next(), Some(Completion::ReceiveEnded { result: Err(_), .. })));
    }
}

#[test]
fn a_client_that_goes_ends_the_stream() {
    let world = World::new(1);
    let mut ring = Ring::simulated(&world);
    let (_, address) = ring.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = world.connect(address).unwrap();
    ring.turn(Sleep::No);
    let Some(Completion::Accepted { socket, .. }) = ring.next() else { panic!() };
    ring.receive_start(socket);
    ring.turn(Sleep::No);
    drop(client);
    ring.turn(Sleep::Forever);
    assert!(matches!(ring.next(), Some(Completion::ReceiveEnded { result: Ok(()), .. })));
}
