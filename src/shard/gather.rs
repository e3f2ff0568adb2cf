//! Gather: requests that ask many partitions or coordinators and answer when all have.

use super::command::{PartitionCommand, PartitionOutcome};
use super::mail::Mail;
use super::request::{Origin, Pending, Request};
use super::{Core, Shard};
use crate::api::error_map::of_read;
use crate::api::groups::Kept;
use crate::api::{delete_records, describe_log_dirs, list_offsets, offset_for_leader_epoch};
use crate::base::ids::{LeaderEpoch, TopicPartition};
use crate::base::slab::Key;
use crate::coordinator::GroupResponse;
use crate::partition::waiters::ReplyTo;
use crate::protocol::cold::delete_records_request::DeleteRecordsRequestData;
use crate::protocol::cold::describe_log_dirs_request::DescribeLogDirsRequestData;
use crate::protocol::cold::list_offsets_request::ListOffsetsRequestData;
use crate::protocol::cold::offset_for_leader_epoch_request::OffsetForLeaderEpochRequestData;

/// A request that is about to ask around.
#[derive(Debug)]
pub enum Gathering {
    ListOffsets(ListOffsetsRequestData),
    EpochEnds(OffsetForLeaderEpochRequestData),
    DeleteRecords(DeleteRecordsRequestData),
    LogDirs(DescribeLogDirsRequestData),
}

/// A request that has asked, and the answers so far.
#[derive(Debug)]
pub enum Gather {
    ListOffsets(Round<ListOffsetsRequestData, list_offsets::Outcome>),
    EpochEnds(Round<OffsetForLeaderEpochRequestData, offset_for_leader_epoch::Outcome>),
    DeleteRecords(Round<DeleteRecordsRequestData, delete_records::Outcome>),
    LogDirs(Round<Vec<TopicPartition>, Option<u64>>),
    Groups { kept: Kept, parts: Vec<Option<GroupResponse>>, outstanding: u32 },
}

/// The partitions of a request, each of which is answered by its owner.
#[derive(Debug)]
pub struct Round<R, O> {
    request: R,
    outcomes: Vec<Option<O>>,
    outstanding: usize,
}

/// What each part asks of whom; `None` is answered already.
type Asks = Vec<Option<(TopicPartition, PartitionCommand)>>;

impl<R, O> Round<R, O> {
    /// `parts`: for each partition of the request, in its order, what to ask or its outcome.
    fn new(request: R, parts: Vec<Result<(TopicPartition, PartitionCommand), O>>) -> (Self, Asks) {
        let mut asks = Asks::new();
        let mut outcomes = Vec::new();
        for part in parts {
            let (ask, outcome) = match part {
                Ok(ask) => (Some(ask), None),
                Err(outcome) => (None, Some(outcome)),
            };
            asks.push(ask);
            outcomes.push(outcome);
        }
        // One more: that everybody was asked.
        let outstanding = asks.iter().flatten().count() + 1;
        (Self { request, outcomes, outstanding }, asks)
    }

    /// Takes an outcome, or the note that all were asked; true after the last.
    fn settle(&mut self, answer: Option<(u32, O)>) -> bool {
        if let Some((part, outcome)) = answer {
            self.outcomes[part as usize] = Some(outcome);
        }
        self.outstanding -= 1;
        self.outstanding == 0
    }

    fn into_outcomes(self) -> (R, Vec<O>) {
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.expect("all answered"));
        (self.request, outcomes.collect())
    }
}

impl Shard {
    pub fn gather(&mut self, origin: Origin, gathering: Gathering) {
        let (gather, asks) = self.core.ask(origin, gathering);
        let (own, epoch) = (self.core.id, self.core.metadata.catalog.epoch());
        let request = self.core.keep(origin, Pending::Gather(Box::new(gather)));
        for (part, ask) in asks.into_iter().enumerate() {
            let Some((target, command)) = ask else { continue };
            let reply_to = ReplyTo { shard: own, request, part: part as u32 };
            match self.core.owner(target) {
                Some(owner) if owner != own => {
                    self.core.mailbox.post(owner, Mail::Command { reply_to, epoch, target, command });
                }
                _ => self.execute(target, command, reply_to),
            }
        }
        self.core.settle_gather(request, None);
    }
}

impl Core {
    fn ask(&self, origin: Origin, gathering: Gathering) -> (Gather, Asks) {
        let context = self.context(origin);
        match gathering {
            Gathering::ListOffsets(request) => {
                let parts = request.topics.iter().flat_map(|topic| {
                    let name = topic.name.as_str();
                    topic.partitions.iter().map(move |partition| (name, partition))
                });
                let parts = parts.map(|(topic, partition)| {
                    let asked = list_offsets::ask(origin.version, topic, partition, &context);
                    asked.map(|(target, leader_epoch, query)| {
                        (target, PartitionCommand::ListOffset { leader_epoch, query })
                    })
                });
                let parts = parts.collect();
                let (round, asks) = Round::new(request, parts);
                (Gather::ListOffsets(round), asks)
            }
            Gathering::EpochEnds(request) => {
                let parts = request.topics.iter().flat_map(|topic| {
                    let name = topic.topic.as_str();
                    topic.partitions.iter().map(move |partition| (name, partition))
                });
                let parts = parts.map(|(topic, partition)| {
                    let asked = offset_for_leader_epoch::ask(topic, partition, &context);
                    asked.map(|(target, current)| {
                        let asked = LeaderEpoch(partition.leader_epoch);
                        (target, PartitionCommand::EpochEnd { current, asked })
                    })
                });
                let parts = parts.collect();
                let (round, asks) = Round::new(request, parts);
                (Gather::EpochEnds(round), asks)
            }
            Gathering::DeleteRecords(request) => {
                let parts = request.topics.iter().flat_map(|topic| {
                    let name = topic.name.as_str();
                    topic.partitions.iter().map(move |partition| (name, partition))
                });
                let parts = parts.map(|(topic, partition)| {
                    let asked = delete_records::ask(topic, partition, &context);
                    asked.map(|(target, before)| (target, PartitionCommand::DeleteRecords { before }))
                });
                let parts = parts.collect();
                let (round, asks) = Round::new(request, parts);
                (Gather::DeleteRecords(round), asks)
            }
            Gathering::LogDirs(request) => {
                let targets = describe_log_dirs::targets(&request, &context);
                let parts = targets.iter().map(|target| Ok((*target, PartitionCommand::Size))).collect();
                let (round, asks) = Round::new(targets, parts);
                (Gather::LogDirs(round), asks)
            }
        }
    }

    /// Takes one answer, or the note that all were asked, and responds after the last.
    pub fn settle_gather(&mut self, request: Key, answer: Option<(u32, PartitionOutcome)>) {
        let Some(Request { pending: Pending::Gather(gather), .. }) = self.requests.get_mut(request) else {
            return;
        };
        let is_last = match (&mut **gather, answer) {
            (Gather::ListOffsets(round), None) => round.settle(None),
            (Gather::EpochEnds(round), None) => round.settle(None),
            (Gather::DeleteRecords(round), None) => round.settle(None),
            (Gather::LogDirs(round), None) => round.settle(None),
            (Gather::ListOffsets(round), Some((part, PartitionOutcome::ListedOffset(outcome)))) => {
                round.settle(Some((part, outcome.map_err(of_read))))
            }
            (Gather::EpochEnds(round), Some((part, PartitionOutcome::EpochEnd(outcome)))) => {
                round.settle(Some((part, outcome.map_err(of_read))))
            }
            (Gather::DeleteRecords(round), Some((part, PartitionOutcome::DeletedRecords(outcome)))) => {
                round.settle(Some((part, outcome.map_err(of_read))))
            }
            (Gather::LogDirs(round), Some((part, PartitionOutcome::Size(size)))) => {
                round.settle(Some((part, size)))
            }
            (_, Some((_, outcome))) => unreachable!("nobody asked for {outcome:?}"),
            (Gather::Groups { .. }, None) => unreachable!("coordinators answer by `settle_group`"),
        };
        if is_last {
            self.respond_gathered(request);
        }
    }

    fn respond_gathered(&mut self, request: Key) {
        let Some(Request { origin, pending: Pending::Gather(gather) }) = self.requests.remove(request) else {
            unreachable!("the caller found it")
        };
        match *gather {
            Gather::ListOffsets(round) => {
                let (request, outcomes) = round.into_outcomes();
                self.respond_cold(origin, &list_offsets::respond(origin.version, &request, outcomes));
            }
            Gather::EpochEnds(round) => {
                let (request, outcomes) = round.into_outcomes();
                self.respond_cold(origin, &offset_for_leader_epoch::respond(&request, outcomes));
            }
            Gather::DeleteRecords(round) => {
                let (request, outcomes) = round.into_outcomes();
                self.respond_cold(origin, &delete_records::respond(&request, outcomes));
            }
            Gather::LogDirs(round) => {
                let (targets, sizes) = round.into_outcomes();
                let sizes: Vec<_> = targets.into_iter().zip(sizes).collect();
                let space = |id| self.directories.space(id);
                let response = describe_log_dirs::respond(&sizes, space, &self.context(origin));
                self.respond_cold(origin, &response);
            }
            Gather::Groups { .. } => unreachable!("coordinators answer by `settle_group`"),
        }
    }
}
