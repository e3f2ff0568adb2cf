//! Watchdog: notices, from outside, a shard that makes no turn while mail or its ring waits for it.
//!
//! A shard that sleeps through its wake-up would be silent for ever, since wakes after the first
//! find it already woken; one that hangs in a turn can't say so itself. The control thread looks
//! at every shard: mail at two looks in a row and no turn between them is told and counted, and
//! the shard is woken whatever its sleep protocol says; likewise where a runtime sleeps for the shard's
//! ring, and the ring has something for it. (A read or write of a file that hangs is
//! not seen here: its shard goes on turning, and sees it itself, in `shard::room`.)

use std::time::Duration;

use crate::base::queue::Watch;
use crate::metrics::Cells;
use crate::metrics::inventory::Metric;
use crate::ring::Waker;
use crate::shard::mail::Mail;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// One shard as the watchdog sees it.
pub struct Watched {
    queues: Vec<Watch<Mail>>,
    waker: Waker,
    cells: &'static Cells,
    /// Turns at the last look, where mail waited then.
    waited_at: Option<u64>,
    wakes_count: u64,
}

impl Watched {
    pub fn new(queues: Vec<Watch<Mail>>, waker: Waker, cells: &'static Cells) -> Self {
        Self { queues, waker, cells, waited_at: None, wakes_count: 0 }
    }

    /// True when the shard made no turn since the last look although mail waited for it all along;
    /// it was woken then.
    fn look(&mut self) -> bool {
        let turns = self.cells.get(Metric::Turns);
        let waits = self.queues.iter().any(|queue| !queue.is_empty()) || self.waker.has_work();
        let before = std::mem::replace(&mut self.waited_at, waits.then_some(turns));
        if !waits || before != Some(turns) {
            return false;
        }
        self.waker.wake_by_force();
        self.wakes_count += 1;
        self.cells.set(Metric::WatchdogWakes, self.wakes_count);
        true
    }
}

/// Looks until the runtime ends; `is_stopping` says that shards end and needn't take their mail.
pub async fn run(mut shards: Vec<Watched>, is_stopping: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !is_stopping() {
        looks.tick().await;
        for (shard, watched) in shards.iter_mut().enumerate() {
            if watched.look() && !is_stopping() && watched.wakes_count.is_power_of_two() {
                tracing::warn!(
                    shard,
                    wakes = watched.wakes_count,
                    "made no turn for {} ms while something waited for it: its core is taken by another process, or \
                     it hangs; the watchdog woke it",
                    LOOK_EVERY.as_millis()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::queue;
    use crate::ring::{Completion, Ring, RingOptions, Sleep};

    #[test]
    fn a_shard_that_sleeps_on_its_mail_is_woken_and_counted() {
        let cells = Cells::leaked();
        let (mut sender, mut receiver) = queue::channel(4);
        let (send_waker, waker) = std::sync::mpsc::channel();
        let (watch, looked) = (receiver.watch(), std::sync::mpsc::channel());
        let sleeper = std::thread::spawn(move || {
            let mut ring = Ring::kernel(&RingOptions::default()).expect("a ring");
            send_waker.send(ring.waker()).expect("the test waits for it");
            looked.1.recv().expect("the test says when");
            // Announces nothing and looks at no mail, as a shard with a broken sleep protocol.
            ring.turn(Sleep::Forever);
            assert!(matches!(ring.next(), Some(Completion::Woken)));
            receiver.try_receive()
        });
        let mut watched = Watched::new(vec![watch], waker.recv().expect("the thread starts"), cells);

        assert!(!watched.look(), "nothing waits");
        assert!(sender.try_send(Mail::Stop).is_ok());
        assert!(!watched.look(), "it may just have come");
        cells.set(Metric::Turns, 1);
        assert!(!watched.look(), "a turn was made");
        assert_eq!(cells.get(Metric::WatchdogWakes), 0);
        assert!(watched.look());
        assert_eq!(cells.get(Metric::WatchdogWakes), 1);

        looked.0.send(()).expect("the thread waits");
        assert!(matches!(sleeper.join().expect("the sleeper is woken"), Some(Mail::Stop)));
        assert!(!watched.look(), "the mail was taken");
    }
}
