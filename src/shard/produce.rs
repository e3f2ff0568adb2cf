//! Produce: from a frame to appends, and from durable offsets to the response.

use super::Core;
use super::command::{AppendOptions, PartitionCommand, PartitionOutcome};
use super::mail::Mail;
use super::request::{Origin, Pending, Request};
use super::storage::Appended;
use super::trace::Times;
use crate::api::produce::{self, Accepted, ProduceError, ProducePart, ProduceState};
use crate::base::ids::{MonotonicNs, ShardId, TopicPartition};
use crate::base::slab::Key;
use crate::log::{LaneEvent, LogId};
use crate::metrics::stages::{Stage, TracedApi};
use crate::metrics::tally::{Tally, copied};
use crate::net::outbound::Turn;
use crate::partition::Partition;
use crate::partition::append::AppendRefusal;
use crate::partition::waiters::{AppendOutcome, ReplyTo};
use crate::protocol::produce_request::ProduceRequest;
use crate::protocol::reader::DecodeError;
use crate::ring::Ring;

impl Core {
    /// Appends every batch of the request; the response waits for the last to be durable.
    pub fn on_produce(
        &mut self,
        mut origin: Origin,
        body: &[u8],
        since: MonotonicNs,
        ring: &Ring,
    ) -> Result<(), DecodeError> {
        let decoded_from = self.traces.time(body.len(), ring);
        let request = ProduceRequest::parse(origin.version, body)?;
        let what = (TracedApi::Produce, origin.version);
        origin.trace = self.traces.begin(what, body.len(), since, self.now, decoded_from);
        // A request without a response keeps its place, too: what waits for room counts among what the
        // connection has in flight.
        origin.turn = self.open_turn(origin.connection, body.len(), origin.trace);
        let parts = Vec::with_capacity(request.topics_count());
        let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
        let deadline = self.now.plus_ms(timeout_ms);
        let state = ProduceState { acks: request.acks, parts, outstanding: 1, deadline };
        let silent = request.acks == 0;
        let pending = if silent { Pending::SilentProduce(state) } else { Pending::Produce(state) };
        let key = self.keep(origin, pending);
        for topic in request.topics() {
            let topic_key = produce::topic_key(origin.version, &topic, &self.context(origin));
            for partition in topic.partitions() {
                let accepted = produce::accept(&request, &topic_key, &partition, &self.context(origin));
                let part =
                    ProducePart { topic: topic_key.clone(), partition: partition.partition, outcome: None };
                if decoded_from.is_some() {
                    self.traces.pass(origin.trace, Stage::Decode, ring.clock());
                }
                if let Ok(accepted) = &accepted {
                    self.traces.set_about(origin.trace, accepted.target);
                }
                self.append_part(key, part, accepted, request.acks);
                if decoded_from.is_some() {
                    self.traces.pass(origin.trace, Stage::Append, ring.clock());
                }
            }
        }
        self.after_append(key);
        Ok(())
    }

    fn produce_mut(&mut self, request: Key) -> Option<&mut ProduceState> {
        match &mut self.requests.get_mut(request)?.pending {
            Pending::Produce(state) | Pending::SilentProduce(state) => Some(state),
            _ => None,
        }
    }

    fn append_part(
        &mut self,
        request: Key,
        part: ProducePart,
        accepted: Result<Accepted<'_>, ProduceError>,
        acks: i16,
    ) {
        let state = self.produce_mut(request).expect("kept above");
        let index = state.parts.len() as u32;
        state.parts.push(part);
        state.outstanding += 1;
        match accepted {
            Err(error) => self.settle_produce(request, index, Err(error)),
            Ok(accepted) => {
                let reply_to = ReplyTo { shard: self.id, request, part: index };
                let options = AppendOptions { all_replicas: acks == -1, silent: acks == 0, since: self.now };
                self.append(accepted, options, reply_to);
            }
        }
    }

    fn append(&mut self, accepted: Accepted<'_>, options: AppendOptions, reply_to: ReplyTo) {
        let (target, batch) = (accepted.target, accepted.batch);
        if self.metadata.catalog.is_offline(target) {
            self.on_appended(reply_to, Err(AppendRefusal::StorageError));
            return;
        }
        match self.owner(target) {
            Some(owner) if owner != self.id => {
                let command = PartitionCommand::Append { batch: batch.to_vec(), append: options };
                copied(Tally::CopyOtherShard, batch.len());
                let epoch = self.metadata.catalog.epoch();
                let trace = self.trace_of(reply_to.request);
                self.traces.hop(trace);
                self.mailbox.post(owner, Mail::Command { reply_to, epoch, target, command });
            }
            _ => match self.storage.append(target, batch, options, reply_to, self.wall) {
                Appended::Done(outcome) => self.on_appended(reply_to, outcome),
                Appended::Waiting => {}
            },
        }
    }

    /// An append's outcome, for this shard or another.
    pub fn on_appended(&mut self, reply_to: ReplyTo, outcome: Result<AppendOutcome, AppendRefusal>) {
        self.on_appended_with(reply_to, outcome, Times::at(self.now));
    }

    fn on_appended_with(
        &mut self,
        reply_to: ReplyTo,
        outcome: Result<AppendOutcome, AppendRefusal>,
        times: Times,
    ) {
        let is_own = reply_to.shard == self.id;
        let pending = self.requests.get(reply_to.request).filter(|_| is_own).map(|request| &request.pending);
        if matches!(pending, Some(Pending::GroupAppend { .. })) {
            self.on_group_appended(reply_to.request, outcome.map(|_| ()));
            return;
        }
        self.reply_with(reply_to, PartitionOutcome::Appended(outcome), times);
    }

    pub fn settle_produce(&mut self, request: Key, part: u32, outcome: Result<AppendOutcome, ProduceError>) {
        // A timed-out or forgotten request has no place for late outcomes.
        let Some(state) = self.produce_mut(request) else { return };
        if state.parts[part as usize].outcome.is_none() && state.settle(part, outcome) {
            self.respond_produce(request);
        }
    }

    /// All batches were handed over.
    fn after_append(&mut self, request: Key) {
        let Some(state) = self.produce_mut(request) else { return };
        state.outstanding -= 1;
        if state.outstanding == 0 {
            self.respond_produce(request);
        }
    }

    fn respond_produce(&mut self, request: Key) {
        let Some(Request { origin, pending }) = self.requests.remove(request) else { return };
        match pending {
            Pending::Produce(state) => {
                self.respond(origin, |core, out| state.respond(origin.version, &core.context(origin), out));
            }
            Pending::SilentProduce(state) => {
                self.respond_frame(origin, Vec::new());
                if state.has_error() {
                    self.close_malformed(origin.connection, "a produce with acks=0 failed");
                }
            }
            _ => unreachable!("called for a produce"),
        }
    }

    /// Answers produces whose timeout has passed. Looked for once a second instead of by a timer per
    /// request: nearly all are answered long before, and their timers would pile up.
    pub fn expire_produces(&mut self) {
        let now = self.now;
        let is_over = |request: &Request| match &request.pending {
            Pending::Produce(state) => state.deadline <= now,
            _ => false,
        };
        let over: Vec<Key> =
            self.requests.iter().filter(|(_, request)| is_over(request)).map(|(key, _)| key).collect();
        for request in over {
            self.on_produce_timeout(request);
        }
    }

    fn on_produce_timeout(&mut self, request: Key) {
        let Some(state) = self.produce_mut(request) else { return };
        let open: Vec<u32> = (0..state.parts.len() as u32)
            .filter(|part| state.parts[*part as usize].outcome.is_none())
            .collect();
        for part in open {
            self.settle_produce(request, part, Err(ProduceError::Append(AppendRefusal::TimedOut)));
        }
    }

    /// A partition's high watermark may have moved: lets go on who waited for it.
    pub fn on_durable(&mut self, lane: usize, log: LogId) {
        let logs = &self.storage.lanes[lane];
        let (durable_end, log_end) = (logs.durable_end(log), logs.log_end(log));
        let (group_begun, done) = (Some(logs.group_begun()), self.now);
        let Some(partition) = self.storage.partition_of_log(lane, log) else { return };
        partition.advance(durable_end, log_end);
        let high_watermark = partition.high_watermark();
        let id = partition.id;
        while let Some(waiter) =
            self.storage.partition_mut(id).and_then(|partition| partition.waiters.pop_produce(high_watermark))
        {
            let times = Times { arrived: waiter.since, group_begun, done };
            self.on_appended_with(waiter.reply_to, Ok(waiter.outcome), times);
        }
        self.wake_fetches(id);
    }

    fn wake_fetches(&mut self, id: TopicPartition) {
        let Some(partition) = self.storage.partition_mut(id) else { return };
        let waiters: Vec<ReplyTo> = partition.waiters.drain_fetch().collect();
        for waiter in waiters {
            self.progress(waiter.shard, waiter.request);
        }
    }

    pub fn progress(&mut self, shard: ShardId, request: Key) {
        if shard == self.id {
            self.on_progress(request);
        } else {
            self.mailbox.post(shard, Mail::Progress { request });
        }
    }

    /// A partition is gone or its lane fenced: nobody waits for it any more.
    pub fn refuse_waiters(&mut self, mut partition: Partition, refusal: AppendRefusal) {
        let produces: Vec<ReplyTo> =
            partition.waiters.drain_produce().map(|waiter| waiter.reply_to).collect();
        for reply_to in produces {
            self.on_appended(reply_to, Err(refusal.clone()));
        }
        let fetches: Vec<ReplyTo> = partition.waiters.drain_fetch().collect();
        for waiter in fetches {
            self.progress(waiter.shard, waiter.request);
        }
    }

    /// Lane events, until none is left: answering may cause others.
    pub fn on_lane_events(&mut self, ring: &mut Ring) {
        while !self.storage.events.is_empty() {
            for (lane, event) in std::mem::take(&mut self.storage.events) {
                self.on_lane_event(ring, lane, event);
            }
        }
    }

    fn on_lane_event(&mut self, ring: &mut Ring, lane: usize, event: LaneEvent) {
        match event {
            LaneEvent::Durable { log, .. } => self.on_durable(lane, log),
            LaneEvent::Room => self.room = true,
            LaneEvent::Planned { read, plan } => self.on_plan_found(read, plan),
            LaneEvent::Window { read, window } => self.on_window_read(ring, read, window),
            LaneEvent::Dropped { .. } => {}
            LaneEvent::Damage { log, what } => {
                let partition = self.storage.partition_of_log(lane, log).map(|partition| partition.id);
                let partition = partition.map_or_else(String::new, |id| id.to_string());
                tracing::error!(partition, "damaged on disk, reads of it answer with an error: {what}");
            }
            LaneEvent::Fenced { what } => self.on_fenced(lane, &what),
        }
    }

    /// Tries stalled batches again; connections read on once all found room.
    pub fn retry_stalled(&mut self) {
        if !std::mem::take(&mut self.room) {
            return;
        }
        let had_stalled = self.storage.has_stalled();
        for (reply_to, outcome) in self.storage.retry_stalled(self.wall) {
            self.on_appended(reply_to, outcome);
        }
        if had_stalled && !self.storage.has_stalled() {
            self.resume_paused();
        }
    }

    /// The worker has sent a batch back.
    pub fn on_recompressed(&mut self, target: TopicPartition, batch: Result<Vec<u8>, AppendRefusal>) {
        for (reply_to, outcome) in self.storage.rewritten(target, batch, self.wall) {
            self.on_appended(reply_to, outcome);
        }
        self.resume_paused();
    }

    /// The place of the next response of a connection.
    pub fn open_turn(&mut self, connection: Key, cost_bytes: usize, trace: Key) -> Turn {
        let connection = self.clients.connections.get_mut(connection).expect("its frame is being handled");
        connection.outbound.open(cost_bytes, trace)
    }
}
