//! Touched: which partitions the newest commit groups were for.
//!
//! Each group begins with the numbers of all partitions that each of the groups just before it was for.
//! Where groups are lost to damage, the first intact one behind them so tells whose records may be
//! missing: these partitions go offline, the others are served.

use std::collections::VecDeque;

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::U32;

use super::format::{BLOCK_BYTES, EntryHeader, EntryKind};
use super::mutation::{self, Mutation};
use super::options::LogId;

/// A group names the partitions of as many groups before it as have this many bytes together, or of the
/// one before it: what is lost at once is rarely larger.
const SPAN_BYTES: u64 = 16 * BLOCK_BYTES as u64;
const NAMED_BYTES_MAX: u64 = 16 << 10;
const NUMBER_BYTES: usize = size_of::<u32>();

struct Group {
    number: u64,
    bytes: u64,
    /// Of `logs`.
    count: usize,
}

pub(super) struct Touched {
    /// Oldest first.
    groups: VecDeque<Group>,
    /// Partitions of all these groups, group by group.
    logs: VecDeque<u32>,
    /// Partitions of the group being filled.
    open: Vec<u32>,
    /// What the group being filled says: of each group, how many partitions, and which.
    named: Vec<u32>,
    named_max: usize,
}

impl Touched {
    pub(super) fn new(group_bytes_max: u64) -> Self {
        Self {
            groups: VecDeque::new(),
            logs: VecDeque::new(),
            open: Vec::new(),
            named: Vec::new(),
            named_max: Self::bytes_max(group_bytes_max) as usize / NUMBER_BYTES,
        }
    }

    /// A sixteenth of a group at most, and some 4,000 partitions.
    const fn bytes_max(group_bytes_max: u64) -> u64 {
        let share = group_bytes_max / 16;
        if share < NAMED_BYTES_MAX { share } else { NAMED_BYTES_MAX }
    }

    /// Bytes that the entry takes of each group at most.
    pub(super) const fn entry_bytes_max(group_bytes_max: u64) -> u64 {
        EntryHeader::size_bytes(Self::bytes_max(group_bytes_max) as usize) as u64
    }

    /// The group being filled has an operation for this partition.
    pub(super) fn note(&mut self, kind: EntryKind, log: LogId) {
        let changes = match kind {
            EntryKind::Append
            | EntryKind::Create
            | EntryKind::Drop
            | EntryKind::Roll
            | EntryKind::LogStart
            | EntryKind::Image
            | EntryKind::Cut
            | EntryKind::Damaged
            | EntryKind::LossAccepted
            | EntryKind::Replace => true,
            // Without it a recovery only loads more than it must, or leaves a file behind.
            EntryKind::Materialised | EntryKind::CleanBegin => false,
            EntryKind::Recovered | EntryKind::CleanStop | EntryKind::ImageDurable | EntryKind::Touched => {
                false
            }
        };
        let names = changes && !mutation::is(Mutation::NameNobody);
        if names && self.open.last() != Some(&log.0) {
            self.open.push(log.0);
        }
    }

    /// The group being filled is this one.
    pub(super) fn end_group(&mut self, number: u64, bytes: u64) {
        self.open.sort_unstable();
        self.open.dedup();
        self.groups.push_back(Group { number, bytes, count: self.open.len() });
        self.logs.extend(self.open.drain(..));
        let mut behind: u64 = self.groups.iter().skip(1).map(|group| group.bytes).sum();
        while behind >= SPAN_BYTES {
            self.forget_oldest();
            behind -= self.groups.front().map_or(0, |group| group.bytes);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(group) = self.groups.pop_front() {
            self.logs.drain(..group.count);
        }
    }

    /// What a group lost is known from here on: the partitions `logs` of group `number` and those behind.
    pub(super) fn restart(&mut self, number: u64, logs: impl Iterator<Item = LogId>) {
        self.groups.clear();
        self.logs.clear();
        self.open.clear();
        self.open.extend(logs.map(|log| log.0));
        self.end_group(number, 0);
    }

    /// The entry that group `number` begins with: the oldest group it tells of, and its payload.
    pub(super) fn name(&mut self, number: u64) -> (u64, &[u32]) {
        while self.groups.len() + self.logs.len() > self.named_max {
            self.forget_oldest();
        }
        self.named.clear();
        let mut logs = self.logs.iter();
        for group in &self.groups {
            self.named.push(group.count as u32);
            self.named.extend(logs.by_ref().take(group.count));
        }
        (self.groups.front().map_or(number, |group| group.number), &self.named)
    }
}

/// The partitions that the groups from `number` on were for, by an entry that tells of those from `since`
/// on. None where it doesn't tell of all of them.
pub(super) fn logs_since(payload: &[u8], since: u64, number: u64) -> Option<Vec<LogId>> {
    let skipped = number.checked_sub(since)?;
    let mut numbers = payload.chunks_exact(NUMBER_BYTES).filter_map(|bytes| U32::read_from_bytes(bytes).ok());
    let mut logs = Vec::new();
    let mut group = 0;
    while let Some(count) = numbers.next() {
        let of_group = numbers.by_ref().take(count.get() as usize).map(|log| LogId(log.get()));
        if group < skipped {
            of_group.for_each(drop)
        } else {
            logs.extend(of_group)
        }
        group += 1;
    }
    logs.sort_unstable();
    logs.dedup();
    (skipped < group).then_some(logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What group `number` says of the groups from `from` on.
    fn named(touched: &mut Touched, number: u64, from: u64) -> Option<Vec<u32>> {
        let (since, numbers) = touched.name(number);
        let payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        logs_since(&payload, since, from).map(|logs| logs.iter().map(|log| log.0).collect())
    }

    fn group(touched: &mut Touched, number: u64, bytes: u64, logs: &[u32]) {
        for log in logs {
            touched.note(EntryKind::Append, LogId(*log));
        }
        touched.end_group(number, bytes);
    }

    #[test]
    fn a_group_names_the_partitions_of_those_before_it() {
        let mut touched = Touched::new(16 << 10);
        assert_eq!(named(&mut touched, 1, 0), None, "nothing is known of before the first");
        assert_eq!(named(&mut touched, 1, 1), None);
        group(&mut touched, 1, 4096, &[7, 3, 7]);
        assert_eq!(named(&mut touched, 2, 1), Some(vec![3, 7]));
        group(&mut touched, 2, 4096, &[]);
        group(&mut touched, 3, 4096, &[7, 5]);
        assert_eq!(named(&mut touched, 4, 1), Some(vec![3, 5, 7]));
        assert_eq!(named(&mut touched, 4, 2), Some(vec![5, 7]));
        assert_eq!(named(&mut touched, 4, 3), Some(vec![5, 7]));
        assert_eq!(named(&mut touched, 4, 4), None);
    }

    #[test]
    fn what_only_saves_work_isnt_named() {
        let mut touched = Touched::new(16 << 10);
        touched.note(EntryKind::Materialised, LogId(1));
        touched.note(EntryKind::Roll, LogId(2));
        touched.end_group(1, 4096);
        assert_eq!(named(&mut touched, 2, 1), Some(vec![2]));
    }

    #[test]
    fn older_groups_are_forgotten_by_bytes() {
        let mut touched = Touched::new(1 << 20);
        for number in 1..=20 {
            group(&mut touched, number, 4096, &[number as u32]);
        }
        assert_eq!(named(&mut touched, 21, 4), None, "the 16 before it have 64 KiB");
        assert_eq!(named(&mut touched, 21, 5).map(|logs| logs.len()), Some(16));
        group(&mut touched, 21, 1 << 20, &[99]);
        assert_eq!(named(&mut touched, 22, 20), None);
        assert_eq!(named(&mut touched, 22, 21), Some(vec![99]));
    }

    #[test]
    fn a_group_too_large_to_name_leaves_nothing_known() {
        let mut touched = Touched::new(16 << 10);
        group(&mut touched, 1, 4096, &(0..255).collect::<Vec<_>>());
        assert_eq!(named(&mut touched, 2, 1).map(|logs| logs.len()), Some(255));
        group(&mut touched, 2, 4096, &[256]);
        assert_eq!(named(&mut touched, 3, 1), None, "the older one goes");
        assert_eq!(named(&mut touched, 3, 2), Some(vec![256]));
        group(&mut touched, 3, 4096, &(0..300).collect::<Vec<_>>());
        assert_eq!(named(&mut touched, 4, 3), None);
    }

    #[test]
    fn a_payload_that_ends_early_is_read_as_far_as_it_goes() {
        let payload: Vec<u8> = [3u32, 1, 2].iter().flat_map(|number| number.to_le_bytes()).collect();
        for bytes in 0..payload.len() {
            assert!(logs_since(&payload[..bytes], 1, 1).is_none_or(|logs| logs.len() < 3));
        }
    }
}
