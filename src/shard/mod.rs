//! Shard: one core and what it owns: connections, lanes with their partitions, coordinators.
//!
//! Owns:     the ring and the turn over a closed set of events.
//! Promises: a turn is completions -> mail -> timers -> work -> commit groups -> sends -> submit
//!           once; no other thread sees a shard's state; mail and control events are applied in
//!           their order.
//! Never:    blocks, sleeps or reads a clock but through its ring.
//! Called by its host (`shard::host`), or by the simulator.

pub mod clients;
pub mod cold;
pub mod command;
pub mod compaction;
pub mod delete_records;
pub mod directories;
pub mod fetch;
pub mod gather;
#[cfg(feature = "glommio")]
pub mod glommio_host;
pub mod groups;
pub mod host;
pub mod log_limit;
pub mod mail;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod request;
pub mod retention;
pub mod room;
pub mod scan;
pub mod spare;
pub mod storage;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod trace;
pub mod worker;

use std::collections::VecDeque;

use crate::api::fetch_session::FetchSessions;
use crate::api::table::{Service, service};
use crate::api::{self, Context};
use crate::base::ids::{MonotonicNs, ShardId, TopicPartition, WallMs};
use crate::base::slab::{Key, Slab};
use crate::catalog::MetadataRecord;
use crate::control::command::ControlEvent;
use crate::coordinator;
use crate::metrics::slow::CLIENT_ID_BYTES_MAX;
use crate::metrics::stages::{Stage, StageCells, TracedApi};
use crate::net::inbound::Flow;
use crate::partition::append::AppendRefusal;
use crate::partition::offset_map::HashKey;
use crate::partition::waiters::ReplyTo;
use crate::protocol::api_key::ApiKey;
use crate::protocol::fetch_request::FetchRequest;
use crate::protocol::header::RequestHeader;
use crate::protocol::reader::DecodeError;
use crate::ring::{Completion, Ring, Sleep};
use clients::Clients;
use command::{PartitionCommand, PartitionOutcome};
use compaction::Compaction;
use delete_records::MovedLogStart;
use directories::Directories;
use gather::Gathering;
use groups::Groups;
use log_limit::LogLimit;
use mail::{Mail, Mailbox};
use metadata::Metadata;
use request::{Origin, Pending, Request};
use scan::Scan;
use spare::Spare;
use storage::{Appended, Storage};
use timers::{Timer, Timers};
use trace::{Times, Traces};

/// Memory that a byte of a request costs which isn't read in place, while it is decoded and answered: a
/// topic of two bytes becomes a hundred, but most bytes are of names.
const DECODED_BYTES_PER_BYTE: usize = 16;

/// The first look of retention comes sooner, as in Kafka: what a long pause left over goes at once.
const RETENTION_FIRST_MS: u64 = 30_000;

/// How often connections are looked through for idle and stalled ones.
const CONNECTIONS_LOOK_MS: u64 = 1000;

/// Work that needs the ring and was found while frames were handled.
#[derive(Debug)]
pub enum Work {
    Fetch(Key),
    Gather(Origin, Gathering),
    /// The next step of a scan, and going on in its plan.
    Scan(Key),
    ScanPlan(Key, Key),
}

/// Everything a shard owns but the ring, so that received bytes can be read in place meanwhile.
pub struct Core {
    pub id: ShardId,
    pub now: MonotonicNs,
    pub wall: WallMs,
    pub clients: Clients,
    pub requests: Slab<Request>,
    pub storage: Storage,
    pub metadata: Metadata,
    pub sessions: FetchSessions,
    pub groups: Groups,
    pub scans: Slab<Scan>,
    pub mailbox: Mailbox,
    pub timers: Timers,
    pub traces: Traces,
    pub work: VecDeque<Work>,
    pub spare: Spare,
    pub log_limit: LogLimit,
    pub directories: Directories,
    /// Partitions that retention has yet to look at.
    retained: Vec<TopicPartition>,
    /// Between two looks of retention.
    retention_check_ms: u64,
    pub compaction: Compaction,
    /// Log starts moved whose entries aren't durable yet.
    moved: Vec<MovedLogStart>,
    /// Mail that needs a newer catalog than this shard has applied.
    early: VecDeque<Mail>,
    /// Room came back in a lane since stalled batches were last tried.
    room: bool,
    stopping: bool,
}

pub struct Shard {
    pub ring: Ring,
    pub core: Core,
}

/// What a shard is made of.
pub struct ShardParts {
    pub id: ShardId,
    pub ring: Ring,
    pub clients: Clients,
    pub storage: Storage,
    pub metadata: Metadata,
    pub mailbox: Mailbox,
    pub directories: Directories,
    pub group_options: coordinator::Options,
    /// Between two looks.
    pub retention_check_ms: u64,
    /// Whether this shard compacts at all.
    pub is_cleaning: bool,
    pub stages: &'static StageCells,
    /// A request that takes so long is remembered.
    pub slow_ms: u64,
}

impl Shard {
    pub fn new(mut parts: ShardParts) -> Self {
        let (now, wall) = (parts.ring.now(), parts.ring.wall_now());
        for lane in &mut parts.storage.lanes {
            if parts.metadata.catalog.directories.is_failed(lane.id()) {
                lane.fence_with_directory("another lane of its log directory couldn't be recovered");
            }
        }
        let (rooms, room_of_lane) =
            parts.directories.rooms(parts.id, &parts.storage.lanes, &parts.metadata.catalog);
        parts.storage.mind_rooms(rooms, room_of_lane);
        parts.storage.reconcile(&parts.metadata.catalog, wall);
        let mut timers = Timers::default();
        timers.add(now.plus_ms(CONNECTIONS_LOOK_MS), Timer::Connections);
        timers.add(now.plus_ms(parts.retention_check_ms.min(RETENTION_FIRST_MS)), Timer::Retention);
        let sessions = FetchSessions::new(parts.id.0, parts.mailbox.shards_count() as u16);
        let mut seed = [0u8; 24];
        parts.ring.entropy(&mut seed);
        let number = |part: &[u8]| part.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let hash_key = HashKey(number(&seed[8..16]), number(&seed[16..]));
        let mut core = Core {
            id: parts.id,
            now,
            wall,
            clients: parts.clients,
            requests: Slab::default(),
            storage: parts.storage,
            metadata: parts.metadata,
            sessions,
            groups: Groups::new(parts.group_options, number(&seed[..8])),
            scans: Slab::default(),
            mailbox: parts.mailbox,
            timers,
            traces: Traces::new(parts.stages, parts.slow_ms),
            work: VecDeque::new(),
            spare: Spare::default(),
            log_limit: LogLimit::default(),
            directories: parts.directories,
            retained: Vec::new(),
            retention_check_ms: parts.retention_check_ms,
            compaction: Compaction::new(hash_key),
            moved: Vec::new(),
            early: VecDeque::new(),
            room: false,
            stopping: false,
        };
        if parts.is_cleaning {
            core.await_first_look();
        }
        for target in core.storage.all_partitions() {
            core.load_groups(target);
        }
        Self { ring: parts.ring, core }
    }

    /// One turn. True when something happened.
    pub fn turn(&mut self, sleep: Sleep) -> bool {
        let (mut busy, mut worked) = (false, self.core.clients.has_deferred());
        self.ring.turn(sleep);
        self.core.now = self.ring.now();
        self.core.traces.begin_turn(sleep, self.core.now);
        self.core.wall = self.ring.wall_now();
        self.core.look_at_directories();
        self.core.clients.begin_turn();
        while let Some(completion) = self.ring.next() {
            busy = true;
            self.on_completion(completion);
        }
        while let Some(mail) = self.core.mailbox.receive() {
            busy = true;
            self.on_mail(mail);
        }
        while let Some(timer) = self.core.timers.pop_due(self.core.now) {
            worked = true;
            self.on_timer(timer);
        }
        self.do_work();
        self.core.on_lane_events(&mut self.ring);
        self.core.settle_moved();
        self.core.create_waiting();
        self.core.retry_stalled();
        self.core.flush_clients(&mut self.ring);
        // Frames that were handled while connections resumed may have left work behind.
        self.do_work();
        self.core.on_lane_events(&mut self.ring);
        self.core.flush_clients(&mut self.ring);
        let mut now = self.core.now;
        if busy || worked {
            // A long turn isn't the disk's fault: groups begin at its end.
            now = self.ring.clock();
            self.core.traces.end_turn(self.core.now, now);
        }
        self.core.storage.turn(&mut self.ring, now);
        self.core.mailbox.flush();
        busy
    }

    fn do_work(&mut self) {
        while let Some(work) = self.core.work.pop_front() {
            match work {
                Work::Fetch(request) => self.plan_fetch(request),
                Work::Gather(origin, gathering) => self.gather(origin, gathering),
                Work::Scan(scan) => self.step_scan(scan),
                Work::ScanPlan(scan, plan) => self.core.resolve_scan(scan, plan),
            }
        }
    }

    /// When the next turn is due without anything happening.
    pub fn sleep(&self) -> Sleep {
        if self.core.clients.has_deferred() {
            return Sleep::No;
        }
        if self.core.mailbox.is_backed_up() {
            return Sleep::Until(self.core.now.plus_ms(1));
        }
        let due = [self.core.timers.next_at(), self.core.storage.wake_at(), self.core.compaction.wake_at()];
        due.into_iter().flatten().min().map_or(Sleep::Forever, Sleep::Until)
    }

    pub fn is_stopped(&self) -> bool {
        self.core.stopping && self.core.clients.is_empty()
    }

    fn on_completion(&mut self, completion: Completion) {
        let (ring, core) = (&mut self.ring, &mut self.core);
        match completion {
            Completion::Accepted { listener, socket, peer } => {
                let count_max = core.connections_max();
                core.clients.accept(ring, listener, (socket, peer), count_max, core.now);
            }
            Completion::AcceptFailed { error, .. } => {
                if core.log_limit.allows(core.now) {
                    tracing::warn!(%error, "a connection couldn't be accepted; raise the limit of open files");
                }
            }
            Completion::Received { socket, bytes } => {
                core.on_received(ring, socket, &bytes);
                ring.received_done(bytes);
            }
            Completion::ReceiveEnded { socket, result } => core.on_receive_ended(ring, socket, result),
            Completion::ReceiveStopped { socket } => core.on_receive_stopped(socket),
            Completion::Filled { socket, result, buffer } => core.on_filled(ring, socket, result, buffer),
            Completion::Sent { token, result, buffer, .. } => core.on_sent(ring, token, result, buffer),
            Completion::Opened { token, .. }
            | Completion::Transferred { token, .. }
            | Completion::Done { token, .. } => core.storage.complete(ring, token.owner(), completion),
            Completion::Connected { .. } => unreachable!("a shard doesn't connect to anyone yet"),
            // The mailbox is looked at every turn.
            Completion::Woken => {}
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Fetch(request) => self.core.on_progress(request),
            Timer::Connections => {
                self.core.close_idle(&mut self.ring);
                self.core.expire_produces();
                self.core.timers.add(self.core.now.plus_ms(CONNECTIONS_LOOK_MS), Timer::Connections);
            }
            Timer::Retention => {
                self.core.begin_retention();
                let next = self.core.now.plus_ms(self.core.retention_check_ms);
                self.core.timers.add(next, Timer::Retention);
            }
            Timer::Compaction => self.core.on_compaction_timer(),
            Timer::Groups => self.core.tick_groups(),
        }
    }

    fn on_mail(&mut self, mail: Mail) {
        let known = self.core.metadata.catalog.epoch();
        match mail {
            Mail::Control(ControlEvent::Committed { records, epoch }) => {
                self.core.on_committed(&records);
                assert_eq!(self.core.metadata.catalog.epoch(), epoch, "every shard applies every record");
                for mail in std::mem::take(&mut self.core.early) {
                    self.on_mail(mail);
                }
            }
            Mail::Control(ControlEvent::Reply { request, outcome }) => {
                self.core.on_control_reply(request, outcome);
            }
            Mail::Command { epoch, .. } if epoch > known => self.core.early.push_back(mail),
            Mail::Command { reply_to, target, mut command, .. } => {
                command.set_since(self.core.now);
                self.execute(target, command, reply_to);
            }
            Mail::Group { epoch, .. } if epoch > known => self.core.early.push_back(mail),
            Mail::Group { reply_to, mail, .. } => self.core.on_group_mail(reply_to, *mail),
            Mail::GroupReply { request, part, response } => {
                self.core.settle_group(request, Some((part, *response)));
            }
            Mail::Outcome { request, part, outcome, times } => {
                self.core.trace_answer(request, times, true);
                self.core.on_outcome(request, part, outcome);
            }
            Mail::Progress { request } => self.core.on_progress(request),
            Mail::Window { plan, bytes_max, reply_to } => self.on_window_asked(plan, bytes_max, reply_to),
            Mail::WindowDone { request, window, times } => {
                self.core.trace_answer(request, times, true);
                self.core.on_window(&mut self.ring, request, window);
            }
            Mail::Release { plan } => self.core.release(plan),
            Mail::DirectoryFailed { directory, what } => self.core.fail_directory(directory, &what),
            Mail::Recompressed { target, batch } => self.core.on_recompressed(target, batch),
            Mail::Stop => self.core.begin_stop(&mut self.ring),
        }
    }

    /// Carries a command for a partition of this shard out.
    pub fn execute(&mut self, target: TopicPartition, command: PartitionCommand, reply_to: ReplyTo) {
        if self.core.metadata.catalog.is_offline(target)
            && let Some(outcome) = command.refused_offline()
        {
            self.core.reply(reply_to, outcome);
            return;
        }
        let outcome = match command {
            PartitionCommand::Append { batch, append } => {
                match self.core.storage.append(target, &batch, append, reply_to, self.core.wall) {
                    Appended::Done(outcome) => PartitionOutcome::Appended(outcome),
                    Appended::Waiting => return,
                }
            }
            PartitionCommand::Plan(plan) => match self.plan(target, plan, reply_to) {
                Some(outcome) => PartitionOutcome::Planned(outcome),
                None => return,
            },
            PartitionCommand::Unwatch => {
                if let Some(partition) = self.core.storage.partition_mut(target) {
                    partition.waiters.remove_fetch(reply_to);
                }
                return;
            }
            PartitionCommand::ListOffset { leader_epoch, query } => {
                match self.list_offset(target, leader_epoch, query, reply_to) {
                    Some(outcome) => PartitionOutcome::ListedOffset(outcome),
                    None => return,
                }
            }
            PartitionCommand::EpochEnd { current, asked } => {
                PartitionOutcome::EpochEnd(self.core.epoch_end(target, current, asked))
            }
            PartitionCommand::Size => PartitionOutcome::Size(self.core.storage.size_bytes(target)),
            PartitionCommand::DeleteRecords { before } => {
                match self.core.delete_records(target, before, reply_to) {
                    Some(outcome) => PartitionOutcome::DeletedRecords(outcome),
                    None => return,
                }
            }
        };
        self.core.reply(reply_to, outcome);
    }
}

impl Core {
    /// What handlers may look at, for the listener a request came by.
    pub fn context(&self, origin: Origin) -> Context<'_> {
        let listener =
            self.clients.connections.get(origin.connection).map_or(0, |connection| connection.listener);
        Context {
            catalog: &self.metadata.catalog,
            endpoint: &self.metadata.endpoints[listener],
            auto_create_topics: self.metadata.auto_create_topics,
            offsets_partitions_count: self.metadata.offsets_partitions_count,
        }
    }

    /// The shard that hosts a partition's lane; `None` when it isn't on this node.
    pub fn owner(&self, id: TopicPartition) -> Option<ShardId> {
        let lane = self.metadata.catalog.lane_of(id)?;
        Some(ShardId(lane.0 % self.mailbox.shards_count() as u16))
    }

    /// This shard's part of `max.connections`.
    fn connections_max(&self) -> usize {
        self.metadata.catalog.broker.config().connections_max.div_ceil(self.mailbox.shards_count())
    }

    /// Sends an outcome, known at once, to whoever asked.
    pub fn reply(&mut self, reply_to: ReplyTo, outcome: PartitionOutcome) {
        self.reply_with(reply_to, outcome, Times::at(self.now));
    }

    /// Sends an outcome to whoever asked, and how long it took.
    pub fn reply_with(&mut self, reply_to: ReplyTo, outcome: PartitionOutcome, times: Times) {
        if reply_to.shard == self.id {
            self.trace_answer(reply_to.request, times, false);
            self.on_outcome(reply_to.request, reply_to.part, outcome);
        } else {
            let mail = Mail::Outcome { request: reply_to.request, part: reply_to.part, outcome, times };
            self.mailbox.post(reply_to.shard, mail);
        }
    }

    fn on_outcome(&mut self, request: Key, part: u32, outcome: PartitionOutcome) {
        match outcome {
            PartitionOutcome::Appended(outcome) => {
                self.settle_produce(request, part, outcome.map_err(api::produce::ProduceError::Append));
            }
            PartitionOutcome::Planned(outcome) => self.on_planned(request, part, outcome),
            PartitionOutcome::ListedOffset(_)
            | PartitionOutcome::EpochEnd(_)
            | PartitionOutcome::Size(_)
            | PartitionOutcome::DeletedRecords(_) => {
                self.settle_gather(request, Some((part, outcome)));
            }
        }
    }

    /// Handles one request frame, whose first byte came at `since`, up to what can be done without changing the
    /// ring.
    pub fn on_frame(&mut self, ring: &Ring, connection: Key, frame: &[u8], since: MonotonicNs) -> Flow {
        match RequestHeader::parse(frame) {
            Err(error) => self.close_malformed(connection, &error.to_string()),
            Ok((header, body)) => {
                if let Err(error) = self.on_request(ring, connection, &header, body, since) {
                    let name = header.key.name();
                    self.close_malformed(connection, &format!("{name} version {}: {error}", header.version));
                }
            }
        }
        self.flow_of(connection)
    }

    fn on_request(
        &mut self,
        ring: &Ring,
        connection: Key,
        header: &RequestHeader<'_>,
        body: &[u8],
        since: MonotonicNs,
    ) -> Result<(), RequestError> {
        let frame_cost_bytes = match header.key {
            ApiKey::ApiVersions => body.len(),
            _ => body.len() * DECODED_BYTES_PER_BYTE,
        };
        let traced = |core: &mut Self, version: i16, trace: Key| Origin {
            connection,
            turn: core.open_turn(connection, frame_cost_bytes, trace),
            key: header.key,
            version,
            correlation_id: header.correlation_id,
            trace,
        };
        let origin = |core: &mut Self, version: i16| traced(core, version, Key::NONE);
        match service(header.key, header.version) {
            Service::Unsupported => return Err(RequestError::Unsupported),
            Service::UnknownApiVersions => {
                let origin = origin(self, 0);
                self.respond(origin, |_, out| api::api_versions::respond_unsupported(out));
                return Ok(());
            }
            Service::Served => {}
        }
        match header.key {
            ApiKey::Produce => {
                let turn = crate::net::outbound::Turn::NONE;
                let (key, version, correlation_id) = (header.key, header.version, header.correlation_id);
                let trace = Key::NONE;
                self.note_client(connection, header.client_id);
                let origin = Origin { connection, turn, key, version, correlation_id, trace };
                self.on_produce(origin, body, since, ring)?;
            }
            ApiKey::Fetch => {
                let decoded_from = self.traces.time(body.len(), ring);
                let request = FetchRequest::parse(header.version, body)?;
                self.note_client(connection, header.client_id);
                let what = (TracedApi::Fetch, header.version);
                let trace = self.traces.begin(what, body.len(), since, self.now, decoded_from);
                let origin = traced(self, header.version, trace);
                self.on_fetch(origin, &request);
                if decoded_from.is_some() {
                    self.traces.pass(trace, Stage::Decode, ring.clock());
                }
            }
            ApiKey::ApiVersions => {
                let mut response = self.spare.take();
                let epoch = self.metadata.catalog.epoch();
                api::api_versions::respond(header.version, body, epoch, &mut response)?;
                let origin = origin(self, header.version);
                self.respond(origin, |_, out| out.extend_from_slice(&response));
                self.spare.give(response);
            }
            _ => {
                let origin = origin(self, header.version);
                if let Err(error) = self.on_cold(origin, header.client_id, body) {
                    self.withdraw(origin);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Remembers who asks, for the list of slow requests.
    fn note_client(&mut self, connection: Key, client_id: &str) {
        let Some(connection) = self.clients.connections.get_mut(connection) else { return };
        // A client calls itself the same as long as it's connected.
        if connection.client_id.is_empty() {
            let bytes = client_id.floor_char_boundary(CLIENT_ID_BYTES_MAX);
            connection.client_id = client_id[..bytes].to_string();
        }
    }

    fn on_fetch(&mut self, origin: Origin, request: &FetchRequest<'_>) {
        let mut sessions = std::mem::replace(&mut self.sessions, FetchSessions::new(0, 1));
        let ask = api::fetch::ask(request, &mut sessions, &self.context(origin));
        self.sessions = sessions;
        match ask {
            Ok(ask) => self.begin_fetch(origin, ask),
            Err(error) => {
                let reused = self.spare.take();
                let frame = api::fetch::respond_refused(
                    origin.version,
                    origin.correlation_id,
                    error,
                    request,
                    reused,
                );
                self.respond_frame(origin, frame.bytes);
            }
        }
    }

    /// The request turned out not to be one: its place in the order is given up.
    fn withdraw(&mut self, origin: Origin) {
        if let Some(connection) = self.clients.connections.get_mut(origin.connection) {
            connection.outbound.withdraw(origin.turn);
        }
    }

    /// What a closed connection had in flight: plans are released, waiters forgotten.
    pub fn forget_requests_of(&mut self, connection: Key) {
        let of_it = |request: &Request| request.origin.connection == connection;
        let keys: Vec<Key> =
            self.requests.iter().filter(|(_, request)| of_it(request)).map(|(key, _)| key).collect();
        for key in keys {
            let request = self.requests.remove(key).expect("listed above");
            if let Pending::Fetch(state) = request.pending {
                self.abandon_fetch(key, *state);
            }
        }
    }

    /// Applies committed records to the image and to the partitions that live here.
    fn on_committed(&mut self, records: &[MetadataRecord]) {
        for record in records {
            self.metadata.catalog.apply(record);
            match record {
                MetadataRecord::PartitionCreated { topic_id, partition, .. } => {
                    let id = TopicPartition { topic_id: *topic_id, partition: *partition };
                    self.storage.create(&self.metadata.catalog, id, self.wall);
                    self.load_groups(id);
                }
                MetadataRecord::TopicSettingsChanged { topic_id, .. } => {
                    let changed = self.storage.partitions_of(*topic_id);
                    self.storage.reconfigure(&self.metadata.catalog, changed);
                }
                MetadataRecord::BrokerSettingsChanged { .. } => {
                    let changed = self.storage.all_partitions();
                    self.storage.reconfigure(&self.metadata.catalog, changed);
                    self.reconfigure_compaction();
                }
                MetadataRecord::TopicDeleted { topic_id } => {
                    let epoch = self.metadata.catalog.epoch();
                    for id in self.storage.partitions_of(*topic_id) {
                        if let Some(partition) = self.storage.delete(id, epoch) {
                            self.refuse_waiters(partition, AppendRefusal::UnknownPartition);
                        }
                    }
                }
                MetadataRecord::ClusterCreated { .. }
                | MetadataRecord::NodeStarted { .. }
                | MetadataRecord::DirectoryOpened { .. }
                | MetadataRecord::TopicCreated { .. }
                | MetadataRecord::ProducerIdsReserved { .. } => {}
            }
        }
    }

    /// Takes no new connection and no new request; what is in flight is answered.
    fn begin_stop(&mut self, ring: &mut Ring) {
        self.stopping = true;
        self.clients.drain(ring);
    }
}

/// Why a frame isn't answered: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestError {
    Unsupported,
    Malformed(DecodeError),
}

impl From<DecodeError> for RequestError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsupported => f.write_str("not served in this version"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}
