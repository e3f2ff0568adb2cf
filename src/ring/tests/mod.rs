//! The contract: one set of checks that both backends pass.

mod files;
mod sockets;
mod wake;

use std::path::Path;

use super::*;

/// How many simulated worlds a check sees.
const SEEDS_COUNT: u64 = 20;

/// Runs a check on the kernel and on the simulated twin, in an empty directory each.
fn on_both(check: impl Fn(&mut Ring, &Path)) {
    on_kernel(&check);
    for seed in 0..SEEDS_COUNT {
        println!("seed {seed}");
        let world = sim::World::new(seed);
        world.make_dirs(Path::new("/data"));
        check(&mut Ring::simulated(&world), Path::new("/data"));
    }
}

/// On the kernel as it is, and with what the oldest supported one has.
fn on_kernel(check: impl Fn(&mut Ring, &Path)) {
    for make in [Ring::kernel, Ring::as_on_old_kernel] {
        let dir = tempfile::tempdir().expect("the tests' machine has a directory for them");
        let mut ring = make(&options()).expect("the tests' machine has io_uring");
        check(&mut ring, dir.path());
    }
}

fn options() -> RingOptions {
    RingOptions {
        entries_count: 64,
        receive_buffers_count: 16,
        receive_buffer_bytes: 16 * 1024,
        ..Default::default()
    }
}

fn token(value: u64) -> Token {
    Token::new(7, value)
}

#[test]
fn a_ring_says_which_features_of_newer_kernels_it_goes_without() {
    let ring = Ring::as_on_old_kernel(&options()).expect("the tests' machine has io_uring");
    assert_eq!(ring.features().len(), 2);
    assert!(ring.features().iter().all(|feature| !feature.is_there));
}
