//! Glommio host: runs a shard in an executor of glommio, which sleeps for it between its turns.
//!
//! Owns:     the executor of the shard's thread, and in it one task.
//! Promises: what `shard::host` promises; it decides there, too.
//! Never:    uses the executor for anything but sleeping: the shard's ring stays its own.
//!
//! What glommio 0.9.0 gets wrong shapes this file:
//! - It parks with a runnable task when its latency ring has an event just then (fixed, not released).
//!   So nothing here uses that ring: no queue for which latency matters, no timer (the shard's ring has one), no
//!   waker of another thread. If it parks so all the same, the watchdog wakes it (`Waker::wake_by_force`), once the
//!   task has run for the first time.
//! - A read that is polled again counts its pollers, and panics after 32,767. So a sleep is one read, awaited to its end.
//! - Its rings are looked at between tasks only, so shares and latency classes do nothing for a ring it doesn't know.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::Shard;
use super::host::Host;
use crate::metrics::Cells;
use crate::ring::{Sleep, adopt, retry_short_memory};

/// Registered buffers, the fewest it takes; the only read is of 8 bytes.
const IO_MEMORY_BYTES: usize = 64 * 1024;
/// Entries of each of its three rings.
const RING_ENTRIES_COUNT: usize = 128;
/// When a task gives way to others: there are none, and the timer is on the latency ring.
const PREEMPT_AFTER: Duration = Duration::from_secs(3600);

/// Made on the thread that it runs on, pinned or not, behind the shard's ring: that waits for locked memory
/// where an executor panics.
pub struct Executor(LocalExecutor);

impl Executor {
    pub fn new() -> Result<Self, String> {
        Self::preempting(PREEMPT_AFTER)
    }

    pub(in crate::shard) fn preempting(after: Duration) -> Result<Self, String> {
        let build = || {
            LocalExecutorBuilder::new(Placement::Unbound)
                .io_memory(IO_MEMORY_BYTES)
                .ring_depth(RING_ENTRIES_COUNT)
                .preempt_timer(after)
                .make()
                .map_err(std::io::Error::from)
        };
        let made = retry_short_memory(build).map_err(|error| {
            format!(
                "the shard's executor can't be made: {error}; host = glommio needs 512 KiB of \
                 RLIMIT_MEMLOCK for the first shard and 300 KiB for each, host = plain a fifth of that"
            )
        });
        made.map(Self)
    }

    /// Runs until the shard is stopped and its clients are gone.
    pub fn run(&self, shard: &mut Shard, cells: &Cells) {
        self.0.run(async {
            let task = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
            let awaited: BufferedFile = adopt(shard.ring.outside(task));
            let mut host = Host::default();
            while !shard.is_stopped() {
                let sleep = host.prepare_sleep(shard, cells);
                if shard.ring.begin_outside_sleep(sleep) {
                    awaited.read_at(0, 8).await.expect("an eventfd that blocks is read");
                    shard.ring.end_outside_sleep();
                }
                host.turn(shard, cells, Sleep::No);
            }
            awaited.close().await.expect("a descriptor that is open is closed");
        });
    }
}
