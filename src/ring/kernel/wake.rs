//! Wake: ends another thread's sleep in its ring, without a lost wake-up and without a syscall
//! when that ring is awake.
//!
//! Owns:     one word that says what the ring is doing, and the eventfd its ring polls.
//! Promises: a `wake` makes the current or the next sleep end, and everything written before the
//!           `wake` is seen by the thread that then takes the word.
//! Never:    drains the eventfd (the poll is edge-triggered), holds a lock.
//!
//! ```text
//!            wake                        wake: write the eventfd
//!   AWAKE ---------> WOKEN <--------------------------- ASLEEP
//!     ^                |                                  |
//!     +----- take -----+      AWAKE --- announce ---> ASLEEP
//! ```
//!
//! Every change is a read-modify-write of one word, so all of them have one order: a wake that
//! comes before the announcement leaves WOKEN there and the sleep is called off; one that comes
//! after it finds ASLEEP and writes the eventfd, which ends the sleep however late the write is.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const WOKEN: u8 = 2;

pub(super) struct WakeState {
    word: AtomicU8,
    pub(super) eventfd: EventFd,
    pub(super) outside: OnceLock<Outside>,
}

/// Of a ring whose thread sleeps in another runtime.
pub(super) struct Outside {
    pub(super) ring: OwnedFd,
    pub(super) host: std::task::Waker,
}

impl WakeState {
    /// Another ring's read of one that doesn't block may end at once, with nothing read.
    pub(super) fn new(sleeps_outside: bool) -> nix::Result<Self> {
        let blocks = if sleeps_outside { EfdFlags::empty() } else { EfdFlags::EFD_NONBLOCK };
        let eventfd = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | blocks)?;
        Ok(Self { word: AtomicU8::new(AWAKE), eventfd, outside: OnceLock::new() })
    }

    /// Announces a sleep. False, and nothing announced, when a wake came since the last `take`.
    pub(super) fn announce(&self) -> bool {
        let announced = self.word.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        announced.is_ok() || announced == Err(ASLEEP)
    }

    /// Announces a sleep and forgets wakes before it: their senders' state was written before, and
    /// the caller looks at that state after this call and before it sleeps.
    pub(super) fn announce_anew(&self) {
        self.word.swap(ASLEEP, Ordering::AcqRel);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Ends the announcement. True when a wake came since the last `take`.
    pub(super) fn take(&self) -> bool {
        if self.word.load(Ordering::Relaxed) == AWAKE {
            return false;
        }
        self.word.swap(AWAKE, Ordering::AcqRel) == WOKEN
    }

    fn wake(&self) {
        if self.word.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            self.end_sleep();
        }
    }

    fn end_sleep(&self) {
        // The counter would have to reach 2^64 - 1 to refuse; each write adds one.
        self.eventfd.write(1).expect("an eventfd far from its limit takes a write");
    }
}

#[derive(Clone)]
pub struct KernelWaker(pub(super) Arc<WakeState>);

impl KernelWaker {
    pub fn wake(&self) {
        self.0.wake();
    }

    pub fn wake_by_force(&self) {
        self.0.word.swap(WOKEN, Ordering::AcqRel);
        self.0.end_sleep();
        if let Some(outside) = self.0.outside.get() {
            outside.host.wake_by_ref();
        }
    }

    pub fn has_work(&self) -> bool {
        let Some(outside) = self.0.outside.get() else { return false };
        let mut looked = [PollFd::new(outside.ring.as_fd(), PollFlags::POLLIN)];
        poll(&mut looked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}
