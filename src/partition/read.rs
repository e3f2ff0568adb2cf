//! Read: what may be read of a partition, and what it answers about its offsets.

use super::Partition;
use crate::base::ids::{LeaderEpoch, Offset};

/// Why a partition isn't read as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRefusal {
    UnknownPartition,
    OutOfRange {
        high_watermark: Offset,
        log_start: Offset,
    },
    /// The client knows an older leader epoch than the partition.
    FencedLeaderEpoch,
    /// The client knows a newer leader epoch than the partition.
    UnknownLeaderEpoch,
    /// The log directory is fenced, or the partition damaged.
    Offline,
    /// The journal is full for the moment.
    Busy,
}

/// An offset asked for by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    Earliest,
    Latest,
    MaxTimestamp,
    /// The first record with this timestamp or a later one, in ms.
    AtOrAfter(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// -1 where the offset was asked for by its place.
    pub timestamp: i64,
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

impl Partition {
    /// Compares the leader epoch a client believes in with the partition's (KIP-320).
    pub fn check_leader_epoch(&self, known: Option<LeaderEpoch>) -> Result<(), ReadRefusal> {
        match known {
            Some(known) if known < self.leader_epoch => Err(ReadRefusal::FencedLeaderEpoch),
            Some(known) if known > self.leader_epoch => Err(ReadRefusal::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// May a fetch begin at `offset`? Between the high watermark and the log end it may, and finds
    /// nothing yet.
    pub fn check_fetch(
        &self,
        known: Option<LeaderEpoch>,
        offset: Offset,
        log_start: Offset,
        log_end: Offset,
    ) -> Result<(), ReadRefusal> {
        self.check_leader_epoch(known)?;
        if (log_start..=log_end).contains(&offset) {
            Ok(())
        } else {
            Err(ReadRefusal::OutOfRange { high_watermark: self.high_watermark(), log_start })
        }
    }
}
