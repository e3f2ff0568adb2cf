//! Sleeping and waking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Mail is a counter that another thread raises before each wake. A lost wake-up shows as a sleep
/// that reaches its far deadline while mail is there.
#[test]
fn no_wake_up_of_another_thread_is_lost() {
    const MAIL_COUNT: u64 = 200_000;
    const SEED: u64 = 11;
    let mut ring = Ring::kernel(&options()).expect("the tests' machine has io_uring");
    let (mail, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let sender = {
        let (mail, seen, waker) = (mail.clone(), seen.clone(), ring.waker());
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
        let mut sleep = Sleep::Until(ring.now().plus_ms(30_000));
        if read % 2 == 0 {
            ring.prepare_sleep();
            if mail.load(Ordering::Relaxed) > read {
                sleep = Sleep::No;
            }
        }
        ring.turn(sleep);
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
