//! Fetch: from a request to a frozen plan per partition, waiting where there is too little.
//!
//! A fetch is planned, then decided: enough to answer, or wait for progress and plan again. Once
//! answered its plans are streamed by `shard::stream`.

use super::command::{PartitionCommand, PlanCommand, PlanId, Planned};
use super::mail::Mail;
use super::request::{Origin, Pending, Request};
use super::storage::{Control, PlanOwner, PlanState};
use super::stream::Stream;
use super::timers::Timer;
use super::{Core, Shard, Work};
use crate::api::error_map;
use crate::api::fetch::{self, FetchAsk, PartitionAnswer};
use crate::api::fetch_session::{FetchContext, FetchTarget};
use crate::base::ids::{MonotonicNs, ShardId, TopicPartition};
use crate::base::slab::Key;
use crate::log::{Plan, PlanStart};
use crate::metrics::stages::Stage;
use crate::partition::read::ReadRefusal;
use crate::partition::waiters::ReplyTo;
use crate::protocol::error_code::ErrorCode;

#[derive(Debug)]
pub struct FetchState {
    pub context: FetchContext,
    min_bytes: usize,
    bytes_max: usize,
    deadline: MonotonicNs,
    has_timer: bool,
    parts: Vec<FetchPart>,
    phase: Phase,
    /// Set once the answer is on its way.
    pub stream: Option<Stream>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// So many parts have no outcome yet; `again` when one of them moved meanwhile.
    Planning {
        outstanding: u32,
        again: bool,
    },
    Waiting,
    Streaming,
}

#[derive(Debug)]
struct FetchPart {
    /// `None`: the topic or partition isn't known.
    place: Option<(TopicPartition, ShardId)>,
    error: Option<ErrorCode>,
    planned: Option<Planned>,
    watched: bool,
}

impl FetchState {
    /// The parts that a partition watches, or will when its answer is here, which none is from here on.
    fn take_watched(&mut self) -> Vec<(u32, TopicPartition, ShardId)> {
        let mut watched = Vec::new();
        let is_planning = matches!(self.phase, Phase::Planning { .. });
        for (index, part) in self.parts.iter_mut().enumerate() {
            let is_asked = is_planning && part.planned.is_none() && part.error.is_none();
            if (std::mem::take(&mut part.watched) || is_asked)
                && let Some((id, owner)) = part.place
            {
                watched.push((index as u32, id, owner));
            }
        }
        watched
    }
}

impl Core {
    /// Takes a decoded fetch over; planning needs the ring and happens later in the turn.
    pub fn begin_fetch(&mut self, origin: Origin, ask: FetchAsk) {
        let deadline = self.now.plus_ms(ask.wait_ms);
        let parts = ask.context.targets.iter().map(|target| self.fetch_part(target, ask.by_id)).collect();
        let state = FetchState {
            context: ask.context,
            min_bytes: ask.min_bytes,
            bytes_max: ask.bytes_max,
            deadline,
            has_timer: false,
            parts,
            phase: Phase::Waiting,
            stream: None,
        };
        if let [part] = &state.parts[..]
            && let Some((target, _)) = part.place
        {
            self.traces.set_about(origin.trace, target);
        }
        let key = self.keep(origin, Pending::Fetch(Box::new(state)));
        self.work.push_back(Work::Fetch(key));
    }

    fn fetch_part(&self, target: &FetchTarget, by_id: bool) -> FetchPart {
        let catalog = &self.metadata.catalog;
        let topic =
            if by_id { catalog.topic_by_id(target.topic.id) } else { catalog.topic(&target.topic.name) };
        let mut part = FetchPart { place: None, error: None, planned: None, watched: false };
        match topic {
            None if by_id => part.error = Some(ErrorCode::UnknownTopicId),
            None => part.error = Some(ErrorCode::UnknownTopicOrPartition),
            Some(topic) => {
                let id = TopicPartition { topic_id: topic.id, partition: target.partition };
                match self.owner(id) {
                    Some(owner) => part.place = Some((id, owner)),
                    None => part.error = Some(ErrorCode::UnknownTopicOrPartition),
                }
            }
        }
        part
    }

    fn fetch_mut(&mut self, request: Key) -> Option<&mut FetchState> {
        match &mut self.requests.get_mut(request)?.pending {
            Pending::Fetch(state) => Some(state),
            _ => None,
        }
    }

    /// A partition that a fetch waits for has moved.
    pub fn on_progress(&mut self, request: Key) {
        let Some(state) = self.fetch_mut(request) else { return };
        match &mut state.phase {
            Phase::Planning { again, .. } => *again = true,
            Phase::Waiting => self.work.push_back(Work::Fetch(request)),
            Phase::Streaming => {}
        }
    }

    /// A part's plan is ready, or refused.
    pub fn on_planned(&mut self, request: Key, part: u32, outcome: Result<Planned, ReadRefusal>) {
        let Some(state) = self.fetch_mut(request) else {
            // The connection closed meanwhile.
            if let Ok(Planned { plan: Some(plan), .. }) = outcome {
                self.release(plan);
            }
            return;
        };
        let Phase::Planning { outstanding, .. } = &mut state.phase else {
            unreachable!("plans arrive while planning")
        };
        *outstanding -= 1;
        let is_last = *outstanding == 0;
        let part = &mut state.parts[part as usize];
        match outcome {
            Ok(planned) => {
                part.watched = planned.watched;
                part.planned = Some(planned);
            }
            Err(refusal) => {
                part.error = Some(error_map::of_read(refusal));
                part.planned = match refusal {
                    ReadRefusal::OutOfRange { high_watermark, log_start } => {
                        Some(Planned { plan: None, bytes: 0, high_watermark, log_start, watched: false })
                    }
                    _ => None,
                };
            }
        }
        if is_last {
            self.decide_fetch(request);
        }
    }

    /// Everything is planned: answer or wait.
    fn decide_fetch(&mut self, request: Key) {
        let now = self.now;
        let state = self.fetch_mut(request).expect("called for a fetch");
        let Phase::Planning { again, .. } = state.phase else { unreachable!("planning has just ended") };
        let bytes: usize =
            state.parts.iter().filter_map(|part| part.planned).map(|planned| planned.bytes).sum();
        let has_error = state.parts.iter().any(|part| part.error.is_some());
        let enough = bytes >= state.min_bytes || has_error || now >= state.deadline || state.parts.is_empty();
        if enough {
            self.answer_fetch(request);
            return;
        }
        state.phase = Phase::Waiting;
        let (deadline, has_timer) = (state.deadline, std::mem::replace(&mut state.has_timer, true));
        if !has_timer {
            // Only a fetch that waits needs one: most are answered at once.
            self.timers.add(deadline, Timer::Fetch(request));
        }
        if again {
            self.work.push_back(Work::Fetch(request));
        }
    }

    fn answer_fetch(&mut self, request: Key) {
        self.unwatch(request);
        let Some(Request { origin, pending: Pending::Fetch(state) }) = self.requests.get_mut(request) else {
            unreachable!("called for a fetch")
        };
        state.phase = Phase::Streaming;
        self.traces.pass(origin.trace, Stage::Read, self.now);
        let (origin, mut left) = (*origin, state.bytes_max);
        // A fetch of very many partitions is kept once, not once per step.
        let (mut parts, context) = (std::mem::take(&mut state.parts), &mut state.context);
        let (session_id, incremental) = (context.session_id, context.incremental);
        let targets = std::mem::take(&mut context.targets);
        let mut answers = Vec::with_capacity(parts.len());
        let mut plans: Vec<PlanId> = Vec::new();
        let mut dropped: Vec<PlanId> = Vec::new();
        for (part, target) in parts.drain(..).zip(targets) {
            let planned = part.planned;
            let mut bytes = 0;
            if let Some(Planned { plan: Some(plan), bytes: planned_bytes, .. }) = planned {
                // The first plan is sent even if it is over the limit, so that the client gets on
                // (KIP-74); a later one that doesn't fit waits for the next fetch, whole.
                if plans.is_empty() || planned_bytes <= left {
                    bytes = planned_bytes;
                    left = left.saturating_sub(bytes);
                    plans.push(plan);
                } else {
                    dropped.push(plan);
                }
            }
            let error = part.error.unwrap_or(ErrorCode::None);
            let (high_watermark, log_start) =
                planned.map_or((-1, -1), |planned| (planned.high_watermark.0, planned.log_start.0));
            answers.push(PartitionAnswer { target, error, high_watermark, log_start, bytes });
        }
        drop(parts);
        if session_id != 0 {
            answers.retain(|answer| self.sessions.tell_answer(session_id, incremental, answer));
        }
        for plan in dropped {
            self.release(plan);
        }
        let reused = self.spare.take();
        let frame = fetch::respond(
            origin.version,
            origin.correlation_id,
            session_id,
            &answers,
            &self.context(origin),
            reused,
        );
        if plans.is_empty() {
            self.requests.remove(request);
            self.respond_frame(origin, frame.bytes);
            return;
        }
        let stream = Stream::new(frame, plans);
        self.fetch_mut(request).expect("still there").stream = Some(stream);
        if let Some(connection) = self.clients.connections.get_mut(origin.connection) {
            connection.outbound.stream(origin.turn, request);
            self.clients.mark_dirty(origin.connection);
        }
    }

    /// The fetch waits no longer: partitions forget it.
    fn unwatch(&mut self, request: Key) {
        let Some(state) = self.fetch_mut(request) else { return };
        let watched = state.take_watched();
        self.forget_watched(request, watched);
    }

    fn forget_watched(&mut self, request: Key, watched: Vec<(u32, TopicPartition, ShardId)>) {
        for (part, target, owner) in watched {
            let reply_to = ReplyTo { shard: self.id, request, part };
            if owner == self.id {
                if let Some(partition) = self.storage.partition_mut(target) {
                    partition.waiters.remove_fetch(reply_to);
                }
            } else {
                let (epoch, command) = (self.metadata.catalog.epoch(), PartitionCommand::Unwatch);
                self.mailbox.post(owner, Mail::Command { reply_to, epoch, target, command });
            }
        }
    }

    /// Gives up what a fetch holds, when its connection is gone.
    pub fn abandon_fetch(&mut self, request: Key, mut state: FetchState) {
        // Plans that are still asked for are released when they arrive: `on_planned`.
        let plans: Vec<PlanId> = match state.stream.take() {
            Some(stream) => self.give_up_stream(stream),
            None => state.parts.iter().filter_map(|part| part.planned?.plan).collect(),
        };
        for plan in plans {
            self.release(plan);
        }
        self.forget_watched(request, state.take_watched());
    }

    /// Ends a plan's lease, wherever it is held.
    pub fn release(&mut self, plan: PlanId) {
        if plan.shard == self.id {
            self.storage.release_plan(plan.held);
        } else {
            self.mailbox.post(plan.shard, Mail::Release { plan });
        }
    }

    /// The plan of a partition of this shard, as its owner tells it.
    pub fn planned(
        &mut self,
        key: Key,
        plan: Plan,
        watch_below_bytes: Option<usize>,
    ) -> Result<Planned, ReadRefusal> {
        let bytes = plan.bytes() as usize;
        let held = self.storage.plans.get_mut(key).expect("held until released");
        let (lane, log, owner) = (held.lane, held.log, held.owner);
        held.state = PlanState::Ready(plan);
        if bytes == 0 || self.storage.partition_of_log(lane, log).is_none() {
            // While the disk was asked, what was to be read went away.
            self.storage.release_plan(key);
        }
        let Some(partition) = self.storage.partition_of_log(lane, log) else {
            return Err(ReadRefusal::UnknownPartition);
        };
        let watched = watch_below_bytes.is_some_and(|below| bytes < below);
        if watched && let PlanOwner::Fetch(reply_to, _) = owner {
            partition.waiters.add_fetch(reply_to);
        }
        let high_watermark = partition.high_watermark();
        let plan = (bytes > 0).then_some(PlanId { shard: self.id, held: key });
        Ok(Planned {
            plan,
            bytes,
            high_watermark,
            log_start: self.storage.lanes[lane].log_start(log),
            watched,
        })
    }
}

impl Shard {
    /// Plans every part of a fetch, or plans it again.
    pub fn plan_fetch(&mut self, request: Key) {
        let (own, now, epoch) = (self.core.id, self.core.now, self.core.metadata.catalog.epoch());
        self.core.unwatch(request);
        let Some(state) = self.core.fetch_mut(request) else { return };
        if state.phase != Phase::Waiting {
            return;
        }
        let parts_count = state.parts.len() as u32;
        let trace = self.core.trace_of(request);
        self.core.traces.skip(trace, now);
        let state = self.core.fetch_mut(request).expect("found above");
        // One more than the parts, so that the last outcome can't decide before all are asked.
        state.phase = Phase::Planning { outstanding: parts_count + 1, again: false };
        let watch_below_bytes = (now < state.deadline).then_some(state.min_bytes);
        let mut left = state.bytes_max;
        for index in 0..parts_count {
            let state = self.core.fetch_mut(request).expect("not all are asked");
            let (part, target) = (&mut state.parts[index as usize], &state.context.targets[index as usize]);
            let (place, earlier) = (part.place, part.planned.take());
            let command = PlanCommand {
                leader_epoch: target.leader_epoch,
                offset: target.offset,
                bytes_max: target.bytes_max.min(left.max(1)),
                watch_below_bytes,
            };
            if let Some(Planned { plan: Some(plan), .. }) = earlier {
                self.core.release(plan);
            }
            let reply_to = ReplyTo { shard: own, request, part: index };
            let Some((target, owner)) = place else {
                self.core.fetch_part_known(request);
                continue;
            };
            if owner != own {
                let command = PartitionCommand::Plan(command);
                self.core.traces.hop(trace);
                self.core.mailbox.post(owner, Mail::Command { reply_to, epoch, target, command });
            } else if let Some(outcome) = self.plan(target, command, reply_to) {
                left = left.saturating_sub(outcome.map_or(0, |planned| planned.bytes));
                self.core.on_planned(request, index, outcome);
            }
        }
        self.core.fetch_part_known(request);
    }

    /// Plans a read of a partition of this shard; `None` when the disk has to be asked first.
    pub fn plan(
        &mut self,
        target: TopicPartition,
        command: PlanCommand,
        reply_to: ReplyTo,
    ) -> Option<Result<Planned, ReadRefusal>> {
        let core = &mut self.core;
        if core.metadata.catalog.is_offline(target) {
            return Some(Err(ReadRefusal::Offline));
        }
        let Some(partition) = core.storage.partition(target) else {
            return Some(Err(ReadRefusal::UnknownPartition));
        };
        let (lane, log, mut upto) = (partition.lane, partition.log, partition.high_watermark());
        let logs = &core.storage.lanes[lane];
        let (log_start, log_end) = (logs.log_start(log), logs.log_end(log));
        if core.storage.control == Control::ServeBeforeDurable {
            upto = log_end;
        }
        if let Err(refusal) = partition.check_fetch(command.leader_epoch, command.offset, log_start, log_end)
        {
            return Some(Err(refusal));
        }
        let key = core.storage.hold_plan(lane, log, PlanOwner::Fetch(reply_to, core.now));
        let start = if command.offset >= upto {
            PlanStart::Empty
        } else {
            core.storage.lanes[lane].plan(
                log,
                command.offset,
                upto,
                command.bytes_max as u64,
                true,
                key.to_u56(),
            )
        };
        match start {
            PlanStart::Ready(plan) => Some(core.planned(key, plan, command.watch_below_bytes)),
            PlanStart::Pending => None,
            PlanStart::Empty => {
                core.storage.plans.remove(key);
                let partition = core.storage.partition_mut(target).expect("found above");
                let watched = command.watch_below_bytes.is_some_and(|below| below > 0);
                if watched {
                    partition.waiters.add_fetch(reply_to);
                }
                Some(Ok(Planned { plan: None, bytes: 0, high_watermark: upto, log_start, watched }))
            }
            PlanStart::OutOfRange => {
                core.storage.plans.remove(key);
                Some(Err(ReadRefusal::OutOfRange { high_watermark: upto, log_start }))
            }
            PlanStart::Offline => {
                core.storage.plans.remove(key);
                Some(Err(ReadRefusal::Offline))
            }
        }
    }
}

impl Core {
    /// A part needs no plan, or all were asked: counts as one outcome.
    fn fetch_part_known(&mut self, request: Key) {
        let Some(state) = self.fetch_mut(request) else { return };
        if let Phase::Planning { outstanding, .. } = &mut state.phase {
            *outstanding -= 1;
            if *outstanding == 0 {
                self.decide_fetch(request);
            }
        }
    }
}
