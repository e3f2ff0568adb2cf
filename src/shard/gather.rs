//! Gather: requests that ask many partitions or coordinators and answer when all have.

use super::command::{PartitionCommand, PartitionOutcome};
use super::mail::Mail;
use super::request::{Origin, Pending, Request};
use super::{Core, Shard};
use crate::api::groups::Kept;
use crate::api::{list_offsets, offset_for_leader_epoch};
use crate::base::ids::TopicPartition;
use crate::base::slab::Key;
use crate::coordinator::GroupResponse;
use crate::partition::waiters::ReplyTo;
use crate::protocol::cold::list_offsets_request::ListOffsetsRequestData;
use crate::protocol::cold::offset_for_leader_epoch_request::OffsetForLeaderEpochRequestData;

/// A request that is about to ask around.
#[derive(Debug)]
pub enum Gathering {
    ListOffsets(ListOffsetsRequestData),
    EpochEnds(OffsetForLeaderEpochRequestData),
}

/// A request that has asked, and the answers so far.
#[derive(Debug)]
pub enum Gather {
    ListOffsets {
        request: ListOffsetsRequestData,
        outcomes: Vec<Option<list_offsets::Outcome>>,
        outstanding: u32,
    },
    EpochEnds {
        request: OffsetForLeaderEpochRequestData,
        outcomes: Vec<Option<offset_for_leader_epoch::Outcome>>,
        outstanding: u32,
    },
    Groups {
        kept: Kept,
        parts: Vec<Option<GroupResponse>>,
        outstanding: u32,
    },
}

/// What each part asks of whom; `None` is answered already.
type Asks = Vec<Option<(TopicPartition, PartitionCommand)>>;

impl Shard {
    pub fn gather(&mut self, origin: Origin, gathering: Gathering) {
        let (gather, asks) = match gathering {
            Gathering::ListOffsets(request) => self.core.ask_list_offsets(origin, request),
            Gathering::EpochEnds(request) => self.core.ask_epoch_ends(origin, request),
        };
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
    fn ask_list_offsets(&self, origin: Origin, request: ListOffsetsRequestData) -> (Gather, Asks) {
        let context = self.context(origin);
        let mut outcomes = Vec::new();
        let mut asks = Asks::new();
        for topic in &request.topics {
            for partition in &topic.partitions {
                match list_offsets::ask(origin.version, topic.name.as_str(), partition, &context) {
                    Ok((target, leader_epoch, query)) => {
                        asks.push(Some((target, PartitionCommand::ListOffset { leader_epoch, query })));
                        outcomes.push(None);
                    }
                    Err(outcome) => {
                        asks.push(None);
                        outcomes.push(Some(outcome));
                    }
                }
            }
        }
        let outstanding = asks.iter().flatten().count() as u32 + 1;
        (Gather::ListOffsets { request, outcomes, outstanding }, asks)
    }

    fn ask_epoch_ends(&self, origin: Origin, request: OffsetForLeaderEpochRequestData) -> (Gather, Asks) {
        let context = self.context(origin);
        let mut outcomes = Vec::new();
        let mut asks = Asks::new();
        for topic in &request.topics {
            for partition in &topic.partitions {
                match offset_for_leader_epoch::ask(topic.topic.as_str(), partition, &context) {
                    Ok((target, current)) => {
                        let asked = crate::base::ids::LeaderEpoch(partition.leader_epoch);
                        asks.push(Some((target, PartitionCommand::EpochEnd { current, asked })));
                        outcomes.push(None);
                    }
                    Err(outcome) => {
                        asks.push(None);
                        outcomes.push(Some(outcome));
                    }
                }
            }
        }
        let outstanding = asks.iter().flatten().count() as u32 + 1;
        (Gather::EpochEnds { request, outcomes, outstanding }, asks)
    }

    /// Takes one answer, or the note that all were asked, and responds after the last.
    pub fn settle_gather(&mut self, request: Key, answer: Option<(u32, PartitionOutcome)>) {
        let Some(Request { pending: Pending::Gather(gather), .. }) = self.requests.get_mut(request) else {
            return;
        };
        let outstanding = match (&mut **gather, answer) {
            (Gather::ListOffsets { outcomes, outstanding, .. }, answer) => {
                if let Some((part, PartitionOutcome::ListedOffset(outcome))) = answer {
                    outcomes[part as usize] = Some(list_offsets::settle(outcome));
                }
                outstanding
            }
            (Gather::EpochEnds { outcomes, outstanding, .. }, answer) => {
                if let Some((part, PartitionOutcome::EpochEnd(outcome))) = answer {
                    outcomes[part as usize] = Some(outcome.map_err(crate::api::error_map::of_read));
                }
                outstanding
            }
            (Gather::Groups { .. }, _) => unreachable!("coordinators answer by `settle_group`"),
        };
        *outstanding -= 1;
        if *outstanding == 0 {
            self.respond_gathered(request);
        }
    }

    fn respond_gathered(&mut self, request: Key) {
        let Some(Request { origin, pending: Pending::Gather(gather) }) = self.requests.remove(request) else {
            unreachable!("the caller found it")
        };
        match *gather {
            Gather::ListOffsets { request, outcomes, .. } => {
                let outcomes = outcomes.into_iter().map(|outcome| outcome.expect("all answered")).collect();
                self.respond_cold(origin, &list_offsets::respond(origin.version, &request, outcomes));
            }
            Gather::EpochEnds { request, outcomes, .. } => {
                let outcomes = outcomes.into_iter().map(|outcome| outcome.expect("all answered")).collect();
                self.respond_cold(origin, &offset_for_leader_epoch::respond(&request, outcomes));
            }
            Gather::Groups { .. } => unreachable!("coordinators answer by `settle_group`"),
        }
    }
}
