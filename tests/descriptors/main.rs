//! A process out of descriptors: accepting pauses, tells, and goes on. A binary of its own, because
//! descriptors belong to the whole process.

use std::fs::File;
use std::net::TcpStream;

use corelane::ring::{Completion, IoError, OpenMode, Ring, RingOptions, Sleep, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const LIMIT: u64 = 100;
const CLIENTS_COUNT: usize = 5;
const FREE_COUNT: usize = 2;

#[test]
fn accepting_without_descriptors_pauses_and_goes_on() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).unwrap();
    let mut ring = Ring::kernel(&RingOptions::default()).expect("the tests' machine has io_uring");
    let (_, address) = ring.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    // The kernel completes these before anybody accepts them.
    let clients: Vec<TcpStream> = (0..CLIENTS_COUNT).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut taken: Vec<File> = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len() - FREE_COUNT);

    let (mut accepted_count, mut failures) = (0, Vec::new());
    let mut collect = |ring: &mut Ring, failures: &mut Vec<IoError>| {
        ring.turn(Sleep::Forever);
        while let Some(completion) = ring.next() {
            match completion {
                Completion::Accepted { .. } => accepted_count += 1,
                Completion::AcceptFailed { error, .. } => failures.push(error),
                other => panic!("{other:?}"),
            }
        }
        accepted_count
    };
    while failures.is_empty() {
        collect(&mut ring, &mut failures);
    }
    assert_eq!(failures, [IoError::NoDescriptors]);
    assert_eq!(collect(&mut ring, &mut failures), FREE_COUNT);

    let token = Token::new(0, 0);
    ring.open(token, std::path::Path::new("/dev/null"), OpenMode::Read);
    let opened = ring.wait(token);
    assert!(matches!(opened, Completion::Opened { result: Err(IoError::NoDescriptors), .. }));

    // A directory that can't be opened wasn't flushed: this is told apart from a flush that failed.
    let flush = |ring: &mut Ring| {
        ring.flush_dir(token, std::path::Path::new("/tmp"));
        match ring.wait(token) {
            Completion::Done { result, .. } => result,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(flush(&mut ring), Err(IoError::NoDescriptors));

    // Space returns: the listener comes back by itself, out of a sleep without end.
    taken.clear();
    while collect(&mut ring, &mut failures) < CLIENTS_COUNT {}
    assert_eq!(flush(&mut ring), Ok(()));
    drop(clients);
}
