//! Tally: copies of records' bytes and system calls, by name, where they are made. Plain numbers of the
//! thread, which its shard stores in its cells; shards of one simulation share theirs.
//!
//! Not here: the kernel's own copies, which are the bytes received and sent; what the worker recompresses,
//! and what compaction and recovery move.

use std::cell::Cell;

/// Tallies that differ in a label only.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub label: &'static str,
    pub tallies: &'static [(Tally, &'static str)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Received bytes, to a buffer for the whole frame.
    CopyFrame,
    /// Those bytes, to a larger buffer.
    CopyFrameGrown,
    /// A batch, to the shard that owns its partition.
    CopyOtherShard,
    /// A batch, to wait for room or to be rewritten.
    CopyKept,
    /// A batch, to tail blocks.
    CopyTail,
    /// Entries, to the buffer of a commit group.
    CopyJournal,
    /// Tail blocks that aren't full, to the buffer of a segment's write.
    CopyStaging,
    /// Tail blocks, to a response.
    CopyTailRead,
    /// What was read from disk, to a response.
    CopyDiskRead,
    /// Parts of responses, to one send.
    CopySend,
    CallEnter,
    CallSendFile,
    CallFcntl,
    CallPeek,
    CallWake,
}

pub const TALLIES_COUNT: usize = Tally::CallWake as usize + 1;

pub const FAMILIES: [Family; 2] = [
    Family {
        name: "corelane_copied_bytes",
        help: "Bytes of records that the shard's thread copied in memory, by where to",
        label: "copy",
        tallies: &[
            (Tally::CopyFrame, "frame"),
            (Tally::CopyFrameGrown, "frame_grown"),
            (Tally::CopyOtherShard, "other_shard"),
            (Tally::CopyKept, "kept"),
            (Tally::CopyTail, "tail"),
            (Tally::CopyJournal, "journal"),
            (Tally::CopyStaging, "staging"),
            (Tally::CopyTailRead, "tail_read"),
            (Tally::CopyDiskRead, "disk_read"),
            (Tally::CopySend, "send"),
        ],
    },
    Family {
        name: "corelane_system_calls",
        help: "System calls of the shard's thread on the way of records",
        label: "call",
        tallies: &[
            (Tally::CallEnter, "io_uring_enter"),
            (Tally::CallSendFile, "sendfile"),
            (Tally::CallFcntl, "fcntl"),
            (Tally::CallPeek, "preadv2"),
            (Tally::CallWake, "eventfd_write"),
        ],
    },
];

thread_local! {
    static COUNTS: [Cell<u64>; TALLIES_COUNT] = const { [const { Cell::new(0) }; TALLIES_COUNT] };
}

/// So many bytes were copied.
pub fn copied(tally: Tally, bytes: usize) {
    add(tally, bytes as u64);
}

/// One call was made.
pub fn called(tally: Tally) {
    add(tally, 1);
}

fn add(tally: Tally, count: u64) {
    COUNTS.with(|counts| counts[tally as usize].set(counts[tally as usize].get() + count));
}

/// This thread's.
pub(super) fn counts() -> [u64; TALLIES_COUNT] {
    COUNTS.with(|counts| std::array::from_fn(|index| counts[index].get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tally_is_told_once() {
        let mut told: Vec<usize> =
            FAMILIES.iter().flat_map(|family| family.tallies).map(|(tally, _)| *tally as usize).collect();
        told.sort_unstable();
        assert_eq!(told, (0..TALLIES_COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn a_thread_counts_for_itself() {
        copied(Tally::CopyTail, 5);
        std::thread::spawn(|| copied(Tally::CopyTail, 7)).join().expect("it only counts");
        called(Tally::CallEnter);
        called(Tally::CallEnter);
        let counts = counts();
        assert_eq!((counts[Tally::CopyTail as usize], counts[Tally::CallEnter as usize]), (5, 2));
    }
}
