//! Window: what readers got in the measured time, group by group.

use crate::Failure;
use crate::fetch::Event;
use crate::series::{Latencies, LatencyReport, Series};
use crate::stamp::{STAMP_BYTES, Stamp};
use crate::verify::{Checker, Verification};
use corelane::protocol::record::records;
use corelane::protocol::record_batch::{BatchHeader, HEADER_BYTES};
use serde::Serialize;

pub struct Window {
    pub from_ns: u64,
    pub end_ns: u64,
    pub series: Series,
    pub measures_latency: bool,
    pub groups: Vec<Group>,
}

/// Counts of one reader of everything.
pub struct Group {
    records: u64,
    bytes: u64,
    latencies: Latencies,
    checker: Option<Checker>,
}

#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    pub records: u64,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyReport>,
}

impl Group {
    pub fn new(is_checked: bool) -> Self {
        let checker = is_checked.then(|| Checker::new(None));
        Self { records: 0, bytes: 0, latencies: Latencies::new(), checker }
    }
}

impl Window {
    pub fn see(&mut self, now: u64, event: &Event<'_>) {
        let (group, partition, batch, records) = match event {
            Event::Batch { group, partition, batch, records } => (*group, *partition, *batch, *records),
            Event::Again { group, partition } => {
                self.groups[*group].checker.iter_mut().for_each(|checker| checker.restart(*partition));
                return;
            }
        };
        let group = &mut self.groups[group];
        let is_measured = (self.from_ns..self.end_ns).contains(&now);
        self.series.count(records, batch.len() as u64);
        if is_measured {
            group.records += records;
            group.bytes += batch.len() as u64;
        }
        if self.measures_latency
            && let Some(sent_ns) = sent_ns(batch)
        {
            let ns = now.saturating_sub(sent_ns);
            self.series.latency_ns(ns);
            if is_measured {
                group.latencies.record_ns(ns);
            }
        }
        if let Some(checker) = &mut group.checker {
            checker.check(partition, batch);
        }
    }

    /// Of all groups.
    pub fn records(&self) -> u64 {
        self.groups.iter().map(|group| group.records).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.bytes).sum()
    }

    /// Of all groups; `None` where it isn't measured.
    pub fn latency(&self) -> Result<Option<LatencyReport>, Failure> {
        if !self.measures_latency {
            return Ok(None);
        }
        let mut all = Latencies::new();
        self.groups.iter().for_each(|group| all.add(&group.latencies));
        all.report().map(Some)
    }

    /// Each by itself; empty when there is only one.
    pub fn group_reports(&self) -> Result<Vec<GroupReport>, Failure> {
        if self.groups.len() == 1 {
            return Ok(Vec::new());
        }
        let report = |group: &Group| {
            let latency = self.measures_latency.then(|| group.latencies.report()).transpose()?;
            Ok(GroupReport { records: group.records, bytes: group.bytes, latency })
        };
        self.groups.iter().map(report).collect()
    }

    /// What was found in all groups; `None` where nothing was checked.
    pub fn verification(&mut self) -> Option<Verification> {
        let checkers = self.groups.iter_mut().filter_map(|group| group.checker.take());
        checkers.map(Checker::finish).reduce(Verification::and)
    }
}

/// Intended send time of a batch; `None` for one without.
fn sent_ns(batch: &[u8]) -> Option<u64> {
    let count = BatchHeader::view(batch)?.records_count.get();
    let first = records(count, batch.get(HEADER_BYTES..)?).next()?.ok()?;
    let (front, _) = first.value?.split_at_checked(STAMP_BYTES)?;
    // Without its content, which would be checksummed.
    let (stamp, _) = Stamp::read(front)?;
    (stamp.sent_ns > 0).then_some(stamp.sent_ns)
}
