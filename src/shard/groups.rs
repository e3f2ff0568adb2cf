//! Groups: the coordinators of the partitions of `__consumer_offsets` that live on this shard.
//!
//! A coordinator decides; this file carries its effects out: appends its records, releases answers
//! when they are durable, wakes it at its deadlines.

use std::collections::BTreeMap;

use super::Core;
use super::command::AppendOptions;
use super::gather::Gather;
use super::mail::Mail;
use super::request::{Origin, Pending, Request};
use super::scan::{Reader, Want};
use super::storage::Appended;
use super::timers::Timer;
use crate::api;
use crate::api::groups::Ask;
use crate::base::ids::{LeaderEpoch, MonotonicNs, Offset, PartitionId, ShardId, TopicPartition};
use crate::base::random::Random;
use crate::base::slab::{Key, Slab};
use crate::catalog::topic_name::OFFSETS_TOPIC;
use crate::coordinator::{
    Coordinator, Effect, GroupRequest, GroupResponse, Options, PendingId, ReplyId, RequestContext,
    partition_of_group,
};
use crate::partition::append::AppendRefusal;
use crate::partition::waiters::ReplyTo;
use crate::protocol::batch_body;
use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
use crate::protocol::compression::{Codec, Codecs};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::reader::DecodeError;

/// Records of one batch of group state decompress to this much at most.
const REPLAY_BYTES_MAX: usize = 64 << 20;

/// A request about groups on its way to its coordinator.
#[derive(Debug)]
pub struct GroupMail {
    /// Of `__consumer_offsets`; `None` asks every coordinator of the shard.
    pub partition: Option<i32>,
    pub version: i16,
    pub client_id: String,
    pub client_host: String,
    pub request: GroupRequest,
}

enum Hosted {
    /// Its log is being replayed; requests wait, bounded by those in flight.
    Loading {
        coordinator: Box<Coordinator>,
        waiting: Vec<(ReplyTo, GroupMail)>,
    },
    Ready(Box<Coordinator>),
}

pub struct Groups {
    options: Options,
    hosted: BTreeMap<i32, Hosted>,
    replies: Slab<ReplyTo>,
    random: Random,
    codecs: Codecs,
    /// The earliest timer that is armed.
    armed: Option<MonotonicNs>,
}

impl Groups {
    pub fn new(options: Options, seed: u64) -> Self {
        Self {
            options,
            hosted: BTreeMap::new(),
            replies: Slab::default(),
            random: Random::new(seed),
            codecs: Codecs::default(),
            armed: None,
        }
    }
}

impl Core {
    /// Creations that found no room are tried every turn until they do.
    pub fn create_waiting(&mut self) {
        for id in self.storage.create_waiting(&self.metadata.catalog, self.wall) {
            self.load_groups(id);
        }
    }

    /// Loads the coordinator of a partition of `__consumer_offsets` that lives here.
    pub fn load_groups(&mut self, target: TopicPartition) {
        let is_offsets = self
            .metadata
            .catalog
            .topic_by_id(target.topic_id)
            .is_some_and(|topic| &*topic.name == OFFSETS_TOPIC);
        if !is_offsets || self.storage.partition(target).is_none() {
            return;
        }
        let seed = self.groups.random.next_u64();
        let coordinator = Box::new(Coordinator::new(self.groups.options, seed));
        let hosted = Hosted::Loading { coordinator, waiting: Vec::new() };
        self.groups.hosted.insert(target.partition.0, hosted);
        self.begin_scan(target, Reader::Groups);
    }

    /// Applies one batch of a coordinator's log.
    pub fn replay_groups(&mut self, target: TopicPartition, batch: &[u8]) -> Want {
        let Some(Hosted::Loading { coordinator, .. }) = self.groups.hosted.get_mut(&target.partition.0)
        else {
            return Want::Enough;
        };
        let mut buffer = Vec::new();
        let records = match batch_body::batch_records(
            batch,
            REPLAY_BYTES_MAX,
            &mut self.groups.codecs,
            &mut buffer,
        ) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(partition = target.partition.0, %error, "a batch of group state can't be read");
                return Want::More;
            }
        };
        for record in records {
            let replayed = record.and_then(|record| match record.key {
                Some(key) => coordinator.replay(key, record.value),
                None => Ok(()),
            });
            if let Err(error) = replayed {
                tracing::error!(partition = target.partition.0, %error, "a record of group state is passed over");
            }
        }
        Want::More
    }

    /// The log was replayed: requests that waited are handled.
    pub fn groups_replayed(&mut self, target: TopicPartition, complete: bool) {
        let partition = target.partition.0;
        let Some(Hosted::Loading { mut coordinator, waiting }) = self.groups.hosted.remove(&partition) else {
            return;
        };
        if !complete {
            tracing::error!(partition, "group state can't be loaded: its groups stay unavailable");
            for (reply_to, mail) in waiting {
                self.answer_group(reply_to, mail.request.refuse(ErrorCode::NotCoordinator));
            }
            return;
        }
        let effects = coordinator.start(self.now, self.wall);
        self.groups.hosted.insert(partition, Hosted::Ready(coordinator));
        self.run_effects(partition, effects);
        for (reply_to, mail) in waiting {
            self.on_group_mail(reply_to, mail);
        }
    }

    /// Decodes a request about groups and asks their coordinators; false for any other key.
    pub fn on_group_request(
        &mut self,
        origin: Origin,
        client_id: &str,
        body: &[u8],
    ) -> Result<(), DecodeError> {
        let asks = api::groups::ask(origin.key, origin.version, body, &self.context(origin));
        let asks = asks.ok_or(DecodeError::Version)??;
        let peer = self.clients.connections.get(origin.connection).map(|connection| connection.peer.ip());
        let client_host = peer.map_or_else(String::new, |ip| format!("/{ip}"));
        let mail = |partition: Option<i32>, request: GroupRequest| GroupMail {
            partition,
            version: origin.version,
            client_id: client_id.to_string(),
            client_host: client_host.clone(),
            request,
        };
        let parts_count =
            if asks.of_everyone.is_some() { self.mailbox.shards_count() } else { asks.asks.len() };
        let gather = Gather::Groups {
            kept: asks.kept,
            parts: (0..parts_count).map(|_| None).collect(),
            outstanding: parts_count as u32 + 1,
        };
        let key = self.keep(origin, Pending::Gather(Box::new(gather)));
        if let Some(request) = asks.of_everyone {
            for shard in 0..parts_count {
                let reply_to = ReplyTo { shard: self.id, request: key, part: shard as u32 };
                self.send_group_mail(ShardId(shard as u16), reply_to, mail(None, request.clone()));
            }
        }
        for (part, Ask { group, request }) in asks.asks.into_iter().enumerate() {
            let reply_to = ReplyTo { shard: self.id, request: key, part: part as u32 };
            match self.coordinator_of(&group) {
                Some((partition, owner)) => {
                    self.send_group_mail(owner, reply_to, mail(Some(partition), request))
                }
                // No group was ever made: a client asks its coordinator before it asks the group.
                None => self.answer_group(reply_to, request.refuse(ErrorCode::NotCoordinator)),
            }
        }
        self.settle_group(key, None);
        Ok(())
    }

    fn coordinator_of(&self, group: &str) -> Option<(i32, ShardId)> {
        let topic = self.metadata.catalog.topic(OFFSETS_TOPIC)?;
        let partition = partition_of_group(group, topic.partitions.len() as i32);
        let owner = self.owner(TopicPartition { topic_id: topic.id, partition: PartitionId(partition) })?;
        Some((partition, owner))
    }

    fn send_group_mail(&mut self, owner: ShardId, reply_to: ReplyTo, mail: GroupMail) {
        if owner == self.id {
            self.on_group_mail(reply_to, mail);
        } else {
            let epoch = self.metadata.catalog.epoch();
            self.mailbox.post(owner, Mail::Group { reply_to, epoch, mail: Box::new(mail) });
        }
    }

    pub fn on_group_mail(&mut self, reply_to: ReplyTo, mail: GroupMail) {
        let Some(partition) = mail.partition else {
            self.ask_every_coordinator(reply_to, &mail);
            return;
        };
        match self.groups.hosted.get_mut(&partition) {
            None => self.answer_group(reply_to, mail.request.refuse(ErrorCode::NotCoordinator)),
            Some(Hosted::Loading { waiting, .. }) => waiting.push((reply_to, mail)),
            Some(Hosted::Ready(coordinator)) => {
                let reply = ReplyId(self.groups.replies.insert(reply_to).to_u56());
                let context = RequestContext {
                    version: mail.version,
                    client_id: &mail.client_id,
                    client_host: &mail.client_host,
                };
                let effects = coordinator.handle(self.now, self.wall, context, mail.request, reply);
                self.run_effects(partition, effects);
            }
        }
    }

    /// ListGroups: every coordinator answers at once, so their answers are joined here.
    fn ask_every_coordinator(&mut self, reply_to: ReplyTo, mail: &GroupMail) {
        let mut answers = Vec::new();
        let nobody = ReplyId(u64::MAX);
        for hosted in self.groups.hosted.values_mut() {
            let context = RequestContext {
                version: mail.version,
                client_id: &mail.client_id,
                client_host: &mail.client_host,
            };
            match hosted {
                Hosted::Loading { .. } => {
                    answers.push(mail.request.clone().refuse(ErrorCode::CoordinatorLoadInProgress));
                }
                Hosted::Ready(coordinator) => {
                    let effects =
                        coordinator.handle(self.now, self.wall, context, mail.request.clone(), nobody);
                    answers.extend(effects.into_iter().filter_map(|effect| match effect {
                        Effect::Reply { response, .. } => Some(response),
                        Effect::Append { .. } => None,
                    }));
                }
            }
        }
        let joined = api::list_groups::join(answers);
        self.answer_group(reply_to, GroupResponse::List(joined));
    }

    fn run_effects(&mut self, partition: i32, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { reply, response } => {
                    let reply_to = self.groups.replies.remove(Key::from_u56(reply.0));
                    self.answer_group(reply_to.expect("each request is answered once"), response);
                }
                Effect::Append { records, time, then } => {
                    let options = BatchOptions {
                        codec: Codec::None,
                        base_offset: Offset(0),
                        leader_epoch: LeaderEpoch(0),
                        producer: None,
                        is_transactional: false,
                        is_control: false,
                    };
                    let mut builder = BatchBuilder::new(options);
                    for record in &records {
                        builder.push(time.0, Some(&record.key), record.value.as_deref(), &[]);
                    }
                    let batch = builder.finish(&mut self.groups.codecs);
                    self.append_group_records(partition, &batch, then);
                }
            }
        }
        self.arm_groups();
    }

    fn append_group_records(&mut self, partition: i32, batch: &[u8], then: PendingId) {
        let topic = self.metadata.catalog.topic(OFFSETS_TOPIC).expect("its coordinator is hosted");
        let target = TopicPartition { topic_id: topic.id, partition: PartitionId(partition) };
        let request = Request { origin: Origin::INTERNAL, pending: Pending::GroupAppend { partition, then } };
        let request = self.requests.insert(request);
        let reply_to = ReplyTo { shard: self.id, request, part: 0 };
        let options = AppendOptions { all_replicas: true, silent: false, since: self.now };
        if let Appended::Done(outcome) = self.storage.append(target, batch, options, reply_to, self.wall) {
            self.on_group_appended(request, outcome.map(|_| ()));
        }
    }

    /// A coordinator's records are durable, or never will be.
    pub fn on_group_appended(&mut self, request: Key, outcome: Result<(), AppendRefusal>) {
        let Some(Request { pending: Pending::GroupAppend { partition, then }, .. }) =
            self.requests.remove(request)
        else {
            unreachable!("the caller looked")
        };
        let outcome = outcome.map_err(api::error_map::of_group_append);
        let Some(Hosted::Ready(coordinator)) = self.groups.hosted.get_mut(&partition) else { return };
        let effects = coordinator.appended(self.now, self.wall, then, outcome);
        self.run_effects(partition, effects);
    }

    pub fn tick_groups(&mut self) {
        self.groups.armed = None;
        let due: Vec<i32> = self
            .groups
            .hosted
            .iter()
            .filter_map(|(partition, hosted)| match hosted {
                Hosted::Ready(coordinator) => {
                    coordinator.next_deadline().filter(|at| *at <= self.now).map(|_| *partition)
                }
                Hosted::Loading { .. } => None,
            })
            .collect();
        for partition in due {
            let Some(Hosted::Ready(coordinator)) = self.groups.hosted.get_mut(&partition) else { continue };
            let effects = coordinator.tick(self.now, self.wall);
            self.run_effects(partition, effects);
        }
        self.arm_groups();
    }

    /// Arms a timer for the earliest deadline, unless an earlier one is armed.
    fn arm_groups(&mut self) {
        let deadlines = self.groups.hosted.values().filter_map(|hosted| match hosted {
            Hosted::Ready(coordinator) => coordinator.next_deadline(),
            Hosted::Loading { .. } => None,
        });
        let Some(at) = deadlines.min() else { return };
        if self.groups.armed.is_none_or(|armed| at < armed) {
            self.groups.armed = Some(at);
            self.timers.add(at, Timer::Groups);
        }
    }

    fn answer_group(&mut self, reply_to: ReplyTo, response: GroupResponse) {
        if reply_to.shard == self.id {
            self.settle_group(reply_to.request, Some((reply_to.part, response)));
        } else {
            let mail = Mail::GroupReply {
                request: reply_to.request,
                part: reply_to.part,
                response: Box::new(response),
            };
            self.mailbox.post(reply_to.shard, mail);
        }
    }

    /// Takes one coordinator's answer, or the note that all were asked.
    pub fn settle_group(&mut self, request: Key, answer: Option<(u32, GroupResponse)>) {
        let Some(Request { pending: Pending::Gather(gather), .. }) = self.requests.get_mut(request) else {
            return;
        };
        let Gather::Groups { parts, outstanding, .. } = &mut **gather else { return };
        if let Some((part, response)) = answer {
            parts[part as usize] = Some(response);
        }
        *outstanding -= 1;
        if *outstanding > 0 {
            return;
        }
        let Some(Request { origin, pending: Pending::Gather(gather) }) = self.requests.remove(request) else {
            unreachable!("found above")
        };
        let Gather::Groups { kept, parts, .. } = *gather else { unreachable!("found above") };
        let parts = parts.into_iter().map(|part| part.expect("all answered")).collect();
        self.respond(origin, |core, out| {
            api::groups::respond(origin.key, origin.version, parts, kept, &core.context(origin), out)
                .expect("coordinators fill what the version carries");
        });
    }
}
