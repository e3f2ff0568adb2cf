//! Outside: the sleeps of a ring whose thread waits in the event loop of another runtime.
//!
//! Owns:     the eventfd's registration with the ring, and the one timeout that ends such a sleep.
//! Promises: what a turn that sleeps would return for makes the eventfd readable: completions and
//!           work of the ring, the sleep's end, and wakes, whose eventfd is the same one.
//! Never:    polls another eventfd in this ring: a wake-up from inside an eventfd's wake-up may be
//!           dropped by the kernel (6.18 does), and all later ones with it.
//!
//! The kernel writes the eventfd only while a sleep is on, and only for the first work after none.
//! So a sleep begins with both the permission and a look behind it; what comes later is written,
//! and stays readable until somebody awaits it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use io_uring::opcode;
use io_uring::types::{TimeoutFlags, Timespec};

use super::{ALARM, IGNORED, KernelRing, Wait, wake};
use crate::base::ids::MonotonicNs;
use crate::ring::Sleep;

/// The timeout in the ring that ends a sleep. At most one; it may ring early, for a sleep that ended before.
#[derive(Default)]
pub(super) struct Alarm {
    rings_at: Option<MonotonicNs>,
    /// Read by the kernel when it takes the entry, which may be later than its pushing.
    at: Box<Timespec>,
}

impl KernelRing {
    pub(super) fn register_eventfd(&mut self) -> std::io::Result<()> {
        self.ring.completion().disable_eventfd();
        self.ring.submitter().register_eventfd(self.wake.eventfd.as_raw_fd())
    }

    pub fn outside(&mut self, host: std::task::Waker) -> OwnedFd {
        assert!(self.alarm.is_some(), "the ring was made to sleep outside");
        // SAFETY: the ring lives longer than this borrow of its descriptor, which is duplicated.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        let outside = wake::Outside { ring: duplicate(ring), host };
        assert!(self.wake.outside.set(outside).is_ok(), "asked for once");
        duplicate(self.wake.eventfd.as_fd())
    }

    pub fn begin_outside_sleep(&mut self, sleep: Sleep) -> bool {
        self.submit_flushes();
        self.reap();
        let pause_end = self.rearm_listeners();
        match self.wait_for(sleep.at_most(pause_end)) {
            Wait::No => return false,
            Wait::AtMost(_) => self.set_alarm(sleep.at_most(pause_end)),
            Wait::Forever => {}
        }
        if self.must_enter() {
            self.enter(Wait::No);
        }
        self.ring.completion().enable_eventfd();
        // The permission is there before the look, as the kernel's work is before its look at it.
        fence(Ordering::SeqCst);
        let is_quiet = self.ring.completion().is_empty() && !self.must_enter();
        if !is_quiet {
            self.end_outside_sleep();
        }
        is_quiet
    }

    pub fn end_outside_sleep(&mut self) {
        self.ring.completion().disable_eventfd();
    }

    pub(super) fn alarm_rang(&mut self) {
        self.alarm.as_mut().expect("it was set").rings_at = None;
    }

    /// An alarm that rings earlier stays: most sleeps end before it, and so it is set seldom.
    fn set_alarm(&mut self, sleep: Sleep) {
        let Sleep::Until(end) = sleep else { unreachable!("an endless sleep has no alarm") };
        let alarm = self.alarm.as_mut().expect("the ring was made to sleep outside");
        if alarm.rings_at.is_some_and(|at| at <= end) {
            return;
        }
        *alarm.at = Timespec::new().sec(end.0 / 1_000_000_000).nsec((end.0 % 1_000_000_000) as u32);
        let (is_set, at) = (alarm.rings_at.replace(end).is_some(), std::ptr::from_ref(&*alarm.at));
        self.push(if is_set {
            // If it has just rung there is none to change, and its completion is there to be seen.
            opcode::TimeoutUpdate::new(ALARM, at).flags(TimeoutFlags::ABS).build().user_data(IGNORED)
        } else {
            opcode::Timeout::new(at).flags(TimeoutFlags::ABS).build().user_data(ALARM)
        });
    }
}

/// Gives a descriptor to a type that has no safe way to take it.
#[cfg(feature = "glommio")]
pub fn adopt<T: std::os::fd::FromRawFd>(descriptor: OwnedFd) -> T {
    // SAFETY: the descriptor is open, and owned by nobody else from here on.
    unsafe { T::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(descriptor)) }
}

fn duplicate(descriptor: BorrowedFd<'_>) -> OwnedFd {
    descriptor.try_clone_to_owned().expect("two descriptors are left at the start")
}
