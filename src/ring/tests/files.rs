//! Files and directories, on both backends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{on_both, on_kernel, token};
use crate::base::random::Random;
use crate::ring::buffer::ALIGNMENT_BYTES;
use crate::ring::*;

const BLOCK: usize = ALIGNMENT_BYTES;

fn filled(blocks_count: usize, seed: u64) -> IoBuffer {
    let mut buffer = IoBuffer::new(blocks_count * BLOCK);
    Random::new(seed).fill(&mut buffer);
    buffer
}

fn opened(ring: &mut Ring, path: &Path, mode: OpenMode) -> Result<FileId, IoError> {
    ring.open(token(1), path, mode);
    match ring.wait(token(1)) {
        Completion::Opened { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

fn waited(ring: &mut Ring, token: Token) -> Result<(), IoError> {
    match ring.wait(token) {
        Completion::Done { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

fn written(
    ring: &mut Ring,
    file: FileId,
    position: u64,
    buffer: IoBuffer,
) -> (Result<(), IoError>, IoBuffer) {
    let range = 0..buffer.len();
    ring.write(token(2), file, position, buffer, range, WriteMode::Durable);
    transferred(ring, token(2))
}

fn read(
    ring: &mut Ring,
    file: FileId,
    position: u64,
    blocks_count: usize,
) -> (Result<(), IoError>, IoBuffer) {
    let buffer = IoBuffer::new(blocks_count * BLOCK);
    ring.read(token(3), file, position, buffer, 0..blocks_count * BLOCK);
    transferred(ring, token(3))
}

fn transferred(ring: &mut Ring, token: Token) -> (Result<(), IoError>, IoBuffer) {
    match ring.wait(token) {
        Completion::Transferred { result, buffer, .. } => (result, buffer),
        other => panic!("{other:?}"),
    }
}

fn names(ring: &mut Ring, dir: &Path) -> Vec<(String, bool, u64)> {
    let entries = ring.list_dir(dir).expect("the directory is there");
    entries.into_iter().map(|entry| (entry.name, entry.is_dir, entry.bytes)).collect()
}

fn file_in(dir: &Path) -> PathBuf {
    dir.join("file")
}

#[test]
fn a_file_gives_back_what_was_written() {
    on_both(|ring, dir| {
        let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        let (result, buffer) = written(ring, file, 0, filled(4, 1));
        assert_eq!(result, Ok(()));
        let (result, _) = written(ring, file, 4 * BLOCK as u64, filled(2, 2));
        assert_eq!(result, Ok(()));
        let (result, back) = read(ring, file, 0, 4);
        assert_eq!(result, Ok(()));
        assert_eq!(&back[..], &buffer[..]);
        ring.flush(token(4), file);
        assert_eq!(waited(ring, token(4)), Ok(()));
        ring.close(file);
        let file = opened(ring, &file_in(dir), OpenMode::Read).unwrap();
        assert_eq!(&read(ring, file, 4 * BLOCK as u64, 2).1[..], &filled(2, 2)[..]);
        ring.close(file);
    });
}

#[test]
fn a_part_of_a_buffer_is_transferred_alone() {
    on_both(|ring, dir| {
        let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        ring.write(token(2), file, 0, filled(4, 1), BLOCK..3 * BLOCK, WriteMode::Plain);
        assert_eq!(transferred(ring, token(2)).0, Ok(()));
        ring.read(token(3), file, 0, filled(3, 9), BLOCK..3 * BLOCK);
        let (result, back) = transferred(ring, token(3));
        assert_eq!(result, Ok(()));
        assert_eq!(&back[..BLOCK], &filled(3, 9)[..BLOCK]);
        assert_eq!(&back[BLOCK..], &filled(4, 1)[BLOCK..3 * BLOCK]);
    });
}

#[test]
fn pieces_are_written_one_behind_the_other() {
    on_both(|ring, dir| {
        let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        let (first, second) = (Arc::new(filled(3, 1)), Arc::new(filled(2, 2)));
        let piece = |buffer: &Arc<IoBuffer>, range| BufferPiece { buffer: buffer.clone(), range };
        let pieces = vec![piece(&first, BLOCK..3 * BLOCK), piece(&second, 0..BLOCK), piece(&first, 0..BLOCK)];
        ring.write_pieces(token(2), file, BLOCK as u64, pieces);
        assert_eq!(waited(ring, token(2)), Ok(()));
        assert_eq!(Arc::strong_count(&first), 1, "the ring lets go of what was written");
        let (result, back) = read(ring, file, BLOCK as u64, 4);
        assert_eq!(result, Ok(()));
        let expected = [&first[BLOCK..], &second[..BLOCK], &first[..BLOCK]].concat();
        assert!(back[..] == expected[..]);
    });
}

#[test]
fn a_read_past_the_end_is_short() {
    on_both(|ring, dir| {
        let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        written(ring, file, 0, filled(2, 1)).0.unwrap();
        assert_eq!(read(ring, file, 0, 4).0, Err(IoError::Short { transferred_bytes: 2 * BLOCK }));
        assert_eq!(read(ring, file, 8 * BLOCK as u64, 1).0, Err(IoError::Short { transferred_bytes: 0 }));
        ring.truncate(token(4), file, 5000);
        assert_eq!(waited(ring, token(4)), Ok(()));
        let (result, back) = read(ring, file, 0, 2);
        assert_eq!(result, Err(IoError::Short { transferred_bytes: 5000 }));
        assert_eq!(&back[..5000], &filled(2, 1)[..5000]);
    });
}

#[test]
fn open_tells_absent_from_present() {
    on_both(|ring, dir| {
        assert_eq!(opened(ring, &file_in(dir), OpenMode::Read), Err(IoError::NotFound));
        assert_eq!(opened(ring, &file_in(dir), OpenMode::Write), Err(IoError::NotFound));
        opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        assert_eq!(opened(ring, &file_in(dir), OpenMode::CreateNew), Err(IoError::Exists));
        assert!(opened(ring, &file_in(dir), OpenMode::Write).is_ok());
        assert_eq!(opened(ring, &dir.join("no/file"), OpenMode::CreateNew), Err(IoError::NotFound));
    });
}

#[test]
fn allocated_space_is_part_of_the_file_and_reads_as_zeros() {
    on_both(|ring, dir| {
        let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        ring.allocate(token(4), file, 0, 64 * BLOCK as u64);
        assert_eq!(waited(ring, token(4)), Ok(()));
        assert_eq!(names(ring, dir), [("file".to_string(), false, 64 * BLOCK as u64)]);
        written(ring, file, 2 * BLOCK as u64, filled(1, 1)).0.unwrap();
        assert_eq!(names(ring, dir), [("file".to_string(), false, 64 * BLOCK as u64)]);
        let (result, back) = read(ring, file, 0, 3);
        assert_eq!(result, Ok(()));
        assert!(back[..2 * BLOCK].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn truncate_grows_with_zeros_and_forgets_what_it_cut() {
    on_both(|ring, dir| {
        let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        written(ring, file, 0, filled(3, 1)).0.unwrap();
        for bytes in [100, 3 * BLOCK as u64] {
            ring.truncate(token(4), file, bytes);
            assert_eq!(waited(ring, token(4)), Ok(()));
        }
        let (result, back) = read(ring, file, 0, 3);
        assert_eq!(result, Ok(()));
        assert_eq!(&back[..100], &filled(3, 1)[..100]);
        assert!(back[100..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn directories_come_and_go() {
    on_both(|ring, dir| {
        let inner = dir.join("inner");
        ring.make_dir(token(1), &inner);
        assert_eq!(waited(ring, token(1)), Ok(()));
        ring.make_dir(token(1), &inner);
        assert_eq!(waited(ring, token(1)), Err(IoError::Exists));
        ring.make_dir(token(1), &dir.join("no/dir"));
        assert_eq!(waited(ring, token(1)), Err(IoError::NotFound));
        let file = opened(ring, &inner.join("b"), OpenMode::CreateNew).unwrap();
        opened(ring, &inner.join("a"), OpenMode::CreateNew).unwrap();
        ring.make_dir(token(1), &inner.join("c"));
        assert_eq!(waited(ring, token(1)), Ok(()));
        let expected = [("a", false), ("b", false), ("c", true)];
        assert_eq!(names(ring, &inner), expected.map(|(name, is_dir)| (name.to_string(), is_dir, 0)));
        ring.remove_dir(token(1), &inner);
        assert_eq!(waited(ring, token(1)), Err(IoError::Os(libc::ENOTEMPTY)));
        for name in ["a", "b"] {
            ring.remove_file(token(1), &inner.join(name));
            assert_eq!(waited(ring, token(1)), Ok(()));
        }
        ring.remove_file(token(1), &inner.join("a"));
        assert_eq!(waited(ring, token(1)), Err(IoError::NotFound));
        // A removed file lives on while it is open.
        written(ring, file, 0, filled(1, 1)).0.unwrap();
        assert_eq!(read(ring, file, 0, 1).0, Ok(()));
        ring.remove_dir(token(1), &inner.join("c"));
        assert_eq!(waited(ring, token(1)), Ok(()));
        ring.flush_dir(token(1), &inner);
        assert_eq!(waited(ring, token(1)), Ok(()));
        ring.remove_dir(token(1), &inner);
        assert_eq!(waited(ring, token(1)), Ok(()));
        ring.flush_dir(token(1), &inner);
        assert_eq!(waited(ring, token(1)), Err(IoError::NotFound));
        assert_eq!(ring.list_dir(&inner), Err(IoError::NotFound));
        assert_eq!(names(ring, dir), []);
    });
}

#[test]
fn every_operation_of_a_full_queue_completes_once() {
    on_both(|ring, dir| {
        let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        // Several times the entries of the queue, and closed while all are in flight.
        let count = 500;
        for value in 0..count {
            let (position, mode) = (value * BLOCK as u64, WriteMode::Plain);
            ring.write(token(value), file, position, filled(1, value), 0..BLOCK, mode);
            if value % 10 == 0 {
                ring.flush(token(1000 + value), file);
            }
        }
        ring.close(file);
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < count as usize + 50 {
            ring.turn(Sleep::Forever);
            while let Some(completion) = ring.next() {
                if let Completion::Transferred { token, buffer, .. } = &completion {
                    assert_eq!(&buffer[..], &filled(1, token.value())[..]);
                }
                match &completion {
                    Completion::Transferred { result, .. } | Completion::Done { result, .. } => {
                        assert_eq!(*result, Ok(()));
                    }
                    other => panic!("{other:?}"),
                }
                assert!(seen.insert(completion.token()));
            }
        }
        let file = opened(ring, &file_in(dir), OpenMode::Read).unwrap();
        for value in 0..count {
            assert_eq!(&read(ring, file, value * BLOCK as u64, 1).1[..], &filled(1, value)[..]);
        }
    });
}

#[test]
fn wait_keeps_the_completions_of_others_in_order() {
    on_both(|ring, dir| {
        let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        ring.write(token(10), file, 0, filled(1, 1), 0..BLOCK, WriteMode::Plain);
        ring.write(token(11), file, BLOCK as u64, filled(1, 1), 0..BLOCK, WriteMode::Plain);
        transferred(ring, token(10)).0.unwrap();
        ring.flush(token(12), file);
        assert_eq!(waited(ring, token(12)), Ok(()));
        assert_eq!(transferred(ring, token(11)).0, Ok(()));
        assert!(ring.next().is_none());
    });
}

#[test]
fn a_filesystem_without_direct_io_is_noticed_and_read_all_the_same() {
    on_kernel(|ring, dir| {
        opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
        assert!(!ring.direct_io_missing(), "the tests' directory has O_DIRECT");
        let file = opened(ring, Path::new("/proc/version"), OpenMode::Read).unwrap();
        assert!(ring.direct_io_missing());
        let (result, buffer) = read(ring, file, 0, 1);
        assert!(matches!(result, Err(IoError::Short { transferred_bytes: 1.. })));
        assert!(buffer.starts_with(b"Linux version"));
    });
}

#[test]
fn a_path_no_file_can_have_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    on_kernel(|ring, dir| {
        let path = dir.join(std::ffi::OsStr::from_bytes(b"a\0b"));
        assert_eq!(opened(ring, &path, OpenMode::Read), Err(IoError::Os(libc::EINVAL)));
        ring.make_dir(token(1), &path);
        assert_eq!(waited(ring, token(1)), Err(IoError::Os(libc::EINVAL)));
    });
}

/// The kernel may be writing into buffers when the ring goes: it waits for them.
#[test]
fn a_ring_can_go_with_everything_in_flight() {
    for _ in 0..20 {
        on_kernel(|ring, dir| {
            let file = opened(ring, &file_in(dir), OpenMode::CreateNew).unwrap();
            written(ring, file, 0, filled(64, 1)).0.unwrap();
            let (_, address) = ring.listen("127.0.0.1:0".parse().unwrap()).unwrap();
            ring.connect(token(1), address);
            let (mut accepted, mut connected) = (None, None);
            while accepted.is_none() || connected.is_none() {
                ring.turn(Sleep::Forever);
                while let Some(completion) = ring.next() {
                    match completion {
                        Completion::Accepted { socket, .. } => accepted = Some(socket),
                        Completion::Connected { result, .. } => connected = result.ok(),
                        other => panic!("{other:?}"),
                    }
                }
            }
            ring.receive_start(accepted.unwrap());
            ring.send(token(2), connected.unwrap(), vec![0; 16 << 20], 0);
            for index in 0..16 {
                let position = index * 4 * BLOCK as u64;
                ring.read(token(3), file, position, IoBuffer::new(4 * BLOCK), 0..4 * BLOCK);
            }
            ring.flush(token(4), file);
            ring.turn(Sleep::No);
            // Some submitted, some only queued.
            ring.flush_dir(token(5), dir);
            ring.flush(token(6), file);
        });
    }
}
