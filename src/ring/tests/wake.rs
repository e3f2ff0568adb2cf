//! Sleeping and waking.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, poll};

use super::{on_both, options};
use crate::base::random::Random;
use crate::ring::*;

/// Sleeps until something happens; a wake that is lost fails the test rather than hang it.
fn sleep_long(ring: &mut Ring) {
    let deadline = ring.now().plus_ms(20_000);
    ring.turn(Sleep::Until(deadline));
    assert!(ring.now() < deadline, "nothing ended the sleep");
}

#[test]
fn a_sleep_ends_at_its_deadline() {
    on_both(|ring, _| {
        ring.turn(Sleep::No);
        let deadline = ring.now().plus_ms(3);
        // A turn may end early, never late without end.
        while ring.now() < deadline {
            ring.turn(Sleep::Until(deadline));
        }
        assert!(ring.next().is_none());
    });
}

#[test]
fn a_wake_while_awake_ends_the_next_sleep() {
    on_both(|ring, _| {
        let waker = ring.waker();
        for _ in 0..3 {
            waker.wake();
            waker.clone().wake();
            sleep_long(ring);
            assert!(matches!(ring.next(), Some(Completion::Woken)));
            assert!(ring.next().is_none());
        }
    });
}

#[test]
fn an_announced_sleep_forgets_wakes_before_it_and_no_later_one() {
    on_both(|ring, _| {
        let waker = ring.waker();
        waker.wake();
        ring.prepare_sleep();
        ring.turn(Sleep::No);
        assert!(ring.next().is_none());
        ring.prepare_sleep();
        waker.wake();
        sleep_long(ring);
        assert!(matches!(ring.next(), Some(Completion::Woken)));
        // The announcement ended with the turn.
        ring.turn(Sleep::No);
        waker.wake();
        sleep_long(ring);
        assert!(matches!(ring.next(), Some(Completion::Woken)));
    });
}

/// As a host does that sleeps for the ring in another runtime's event loop.
struct OutsideSleeper {
    ring: Ring,
    awaited: OwnedFd,
}

impl OutsideSleeper {
    fn new() -> Self {
        let options = RingOptions { sleeps_outside: true, ..options() };
        let mut ring = Ring::kernel(&options).expect("the tests' machine has io_uring");
        let awaited = ring.outside(std::task::Waker::noop().clone());
        Self { ring, awaited }
    }

    fn turn(&mut self, sleep: Sleep) {
        if self.ring.begin_outside_sleep(sleep) {
            let mut polled = [PollFd::new(self.awaited.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut polled, 60_000u16).expect("no signal comes");
            assert!(ready > 0, "nothing ended the sleep");
            nix::unistd::read(&self.awaited, &mut [0; 8]).expect("it is readable");
            self.ring.end_outside_sleep();
        }
        self.ring.turn(Sleep::No);
    }
}

#[test]
fn a_sleep_outside_ends_at_its_deadline_whatever_alarm_was_set_before() {
    let mut sleeper = OutsideSleeper::new();
    sleeper.ring.turn(Sleep::No);
    for (before_ms, ms) in [(0, 3), (3_600_000, 5), (1, 9), (9, 1)] {
        // A sleep that something else ended at once.
        let before = sleeper.ring.now().plus_ms(before_ms);
        if sleeper.ring.begin_outside_sleep(Sleep::Until(before)) {
            sleeper.ring.end_outside_sleep();
            sleeper.ring.turn(Sleep::No);
        }
        let deadline = sleeper.ring.now().plus_ms(ms);
        while sleeper.ring.now() < deadline {
            sleeper.turn(Sleep::Until(deadline));
        }
        assert!(sleeper.ring.next().is_none());
    }
}

#[test]
fn no_wake_up_of_another_thread_is_lost() {
    let mut ring = Ring::kernel(&options()).expect("the tests' machine has io_uring");
    let waker = ring.waker();
    no_wake_up_is_lost(waker, &mut ring, |ring| ring, Ring::turn);
}

#[test]
fn no_wake_up_of_a_sleep_outside_is_lost() {
    let mut sleeper = OutsideSleeper::new();
    let waker = sleeper.ring.waker();
    no_wake_up_is_lost(waker, &mut sleeper, |sleeper| &mut sleeper.ring, OutsideSleeper::turn);
}

/// Mail is a counter that another thread raises before each wake. A lost wake-up shows as a sleep
/// that reaches its far deadline while mail is there.
fn no_wake_up_is_lost<T>(
    waker: Waker,
    sleeper: &mut T,
    ring_of: impl Fn(&mut T) -> &mut Ring,
    turn: impl Fn(&mut T, Sleep),
) {
    const MAIL_COUNT: u64 = 200_000;
    const SEED: u64 = 11;
    let (mail, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let sender = {
        let (mail, seen) = (mail.clone(), seen.clone());
        std::thread::spawn(move || {
            let mut random = Random::new(SEED);
            for count in 1..=MAIL_COUNT {
                mail.store(count, Ordering::Relaxed);
                waker.wake();
                // Now and then nothing more comes until this is seen: no later wake covers for it.
                let must_be_seen = random.chance(1, 4);
                while must_be_seen && seen.load(Ordering::Acquire) < count {
                    std::thread::yield_now();
                }
                for _ in 0..random.below(400) {
                    std::hint::spin_loop();
                }
            }
        })
    };
    let mut read = 0;
    let mut random = Random::new(SEED + 1);
    while read < MAIL_COUNT {
        // Wakes shall come between the last look at the mail and the sleep, too.
        for _ in 0..random.below(400) {
            std::hint::spin_loop();
        }
        // Both ways to sleep, in turn: announced with a look at the mail, and not announced.
        let ring = ring_of(sleeper);
        let mut sleep = Sleep::Until(ring.now().plus_ms(30_000));
        if read % 2 == 0 {
            ring.prepare_sleep();
            if mail.load(Ordering::Relaxed) > read {
                sleep = Sleep::No;
            }
        }
        turn(sleeper, sleep);
        let ring = ring_of(sleeper);
        while let Some(completion) = ring.next() {
            assert!(matches!(completion, Completion::Woken));
        }
        let before = read;
        read = mail.load(Ordering::Relaxed);
        if let Sleep::Until(deadline) = sleep {
            assert!(read == before || ring.now() < deadline, "a wake-up was lost after {before}");
        }
        seen.store(read, Ordering::Release);
    }
    sender.join().expect("the sender ends");
}
