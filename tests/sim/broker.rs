//! Broker: the shards of one simulated machine, from process to process.
//!
//! Owns:     the world, and what a control thread would have committed (its store is taken as durable).
//! Promises: a process begins as the server begins one: node started, lanes recovered, then listeners.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{OnceLock, mpsc};

use corelane::api::Endpoint;
use corelane::base::ids::{
    DirectoryId, LaneId, LeaderEpoch, MonotonicNs, NodeId, PartitionId, ShardId, TopicId,
};
use corelane::base::queue::{self, Receiver, Sender};
use corelane::base::random::Random;
use corelane::catalog::broker_config::{BrokerConfig, BrokerSettings};
use corelane::catalog::{Catalog, MetadataRecord, Replica};
use corelane::control::command::{ControlCommand, ControlEvent, ControlOutcome};
use corelane::control::{DetachedControl, PRODUCER_ID_BLOCK};
use corelane::coordinator;
use corelane::log::{Lane, LaneError, LaneOptions, prepare_dir};
use corelane::metrics::Cells;
use corelane::protocol::compression::Codecs;
use corelane::ring::sim::World;
use corelane::ring::{Ring, Sleep};
use corelane::shard::clients::{ClientLimits, Clients};
use corelane::shard::directories::Directories;
use corelane::shard::host::Host;
use corelane::shard::mail::{Mail, Mailbox, Peer, QUEUE_MAILS};
use corelane::shard::metadata::Metadata;
use corelane::shard::storage::Storage;
use corelane::shard::worker::{self, Job, WorkerHandle};
use corelane::shard::{Shard, ShardParts};

use crate::scenario::Scenario;

pub const TOPIC: &str = "t";
const NODE: NodeId = NodeId(1);

pub struct Broker {
    pub world: World,
    scenario: Scenario,
    records: Vec<MetadataRecord>,
    epoch: u64,
    process: Option<Process>,
    random: Random,
    pub starts_count: u64,
}

struct Process {
    shards: Vec<(Shard, Host)>,
    control: DetachedControl,
    /// For the worker, whose part is played here.
    jobs: mpsc::Receiver<Job>,
    codecs: Codecs,
    /// To every shard, from what isn't a shard.
    senders: Vec<Sender<Mail>>,
    /// The world's count when it began: with another one the process is gone.
    ends_count: u64,
}

pub fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 9092))
}

fn dir(directory: u16) -> PathBuf {
    PathBuf::from(format!("/data{directory}"))
}

/// Nobody reads them here.
fn cells() -> &'static Cells {
    static CELLS: OnceLock<&'static Cells> = OnceLock::new();
    CELLS.get_or_init(Cells::leaked)
}

impl Broker {
    pub fn new(scenario: &Scenario) -> Self {
        let world = World::new(scenario.seed);
        world.make_dirs(&PathBuf::from("/"));
        let topic_id = TopicId(*b"simulated topic!");
        let mut records = vec![
            MetadataRecord::ClusterCreated { cluster_id: "sim".into() },
            MetadataRecord::TopicCreated { name: TOPIC.into(), topic_id, settings: Default::default() },
        ];
        for directory in 0..scenario.directories_count {
            let of_it = |lane: &u16| lane % scenario.directories_count == directory;
            records.push(MetadataRecord::DirectoryOpened {
                node: NODE,
                directory: DirectoryId([directory as u8; 16]),
                path: dir(directory).display().to_string(),
                lanes: (0..scenario.lanes_count).filter(of_it).map(LaneId).collect(),
            });
        }
        for index in 0..scenario.partitions_count {
            let lane = LaneId(index as u16 % scenario.lanes_count);
            records.push(MetadataRecord::PartitionCreated {
                topic_id,
                partition: PartitionId(index),
                replicas: vec![Replica { node: NODE, lane }],
                leader_epoch: LeaderEpoch(0),
            });
        }
        Self {
            world,
            scenario: scenario.clone(),
            epoch: records.len() as u64,
            records,
            process: None,
            random: Random::new(scenario.seed ^ 0x62_726f_6b65_7221),
            starts_count: 0,
        }
    }

    pub fn now(&self) -> MonotonicNs {
        self.world.now()
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    fn commit(&mut self, record: MetadataRecord) {
        self.epoch += 1;
        self.records.push(record);
    }

    // ---- Begin -------------------------------------------------------------------------------

    /// Begins a process. Errors: a disk fault or the end of the power came before it served.
    pub fn start(&mut self) -> Result<(), LaneError> {
        assert!(self.process.is_none());
        self.starts_count += 1;
        let incarnation = self.starts_count;
        self.commit(MetadataRecord::NodeStarted {
            node: NODE,
            incarnation,
            lanes_count: self.scenario.lanes_count,
        });
        let ends_count = self.world.ends_count();
        // Another number of cores only changes which shard hosts which lane.
        let shards_count = 1 + self.random.below(self.scenario.shards_count_max) as usize;
        let (worker, jobs) = WorkerHandle::new();
        let mut rings = Vec::new();
        let mut storages = Vec::new();
        for shard in 0..shards_count {
            let mut ring = Ring::simulated(&self.world);
            let mut lanes = Vec::new();
            let ids: Vec<LaneId> = (0..self.scenario.lanes_count)
                .filter(|lane| usize::from(*lane) % shards_count == shard)
                .map(LaneId)
                .collect();
            for (index, lane) in ids.iter().enumerate() {
                let options = self.lane_options(*lane, Storage::token_owner(index));
                prepare_dir(&mut ring, &options.dir, options.owner)?;
                lanes.push(Lane::recover(&mut ring, options)?.0);
            }
            let id = ShardId(shard as u16);
            let mut storage = Storage::new(id, lanes, worker.clone());
            storage.control = self.scenario.controls.shard;
            rings.push(ring);
            storages.push(storage);
        }
        self.process = Some(self.make_process(rings, storages, jobs, ends_count));
        self.notice_end();
        Ok(())
    }

    fn lane_options(&self, lane: LaneId, owner: u8) -> LaneOptions {
        let scenario = &self.scenario;
        LaneOptions {
            journal_bytes: scenario.journal_bytes,
            journal_files_count: 4,
            group_bytes_max: scenario.group_bytes_max,
            tail_pool_bytes: scenario.tail_pool_bytes,
            files_open_max: 8,
            reads_max: 2,
            control: scenario.controls.log,
            ..LaneOptions::new(dir(lane.0 % scenario.directories_count), lane, owner)
        }
    }

    fn make_process(
        &self,
        mut rings: Vec<Ring>,
        storages: Vec<Storage>,
        jobs: mpsc::Receiver<Job>,
        ends_count: u64,
    ) -> Process {
        let shards_count = rings.len();
        let control = DetachedControl::default();
        let mut mailboxes = connect(&mut rings);
        let mut senders = Vec::new();
        for (_, receivers) in &mut mailboxes {
            let (sender, receiver) = queue::channel(QUEUE_MAILS);
            senders.push(sender);
            receivers.push(receiver);
        }
        let parts = rings.into_iter().zip(storages).zip(mailboxes).enumerate();
        let shards = parts.map(|(index, ((mut ring, storage), (peers, receivers)))| {
            let id = ShardId(index as u16);
            // On a machine without power nobody connects: listening may fail.
            let listeners = ring.listen(address()).map(|(listener, _)| listener).into_iter().collect();
            let metadata = Metadata::new(
                self.catalog(),
                control.handle(index),
                vec![Endpoint { host: "sim".into(), port: address().port() }],
                Vec::new(),
                false,
                1,
            );
            let shard = Shard::new(ShardParts {
                id,
                ring,
                clients: Clients::new(listeners, limits()),
                storage,
                metadata,
                mailbox: Mailbox::new(id, peers, receivers),
                directories: Directories::default(),
                group_options: coordinator::Options::default(),
                retention_check_ms: 300_000,
                is_cleaning: true,
                stages: &cells().stages,
                slow_ms: 100,
            });
            (shard, Host::default())
        });
        let shards: Vec<_> = shards.collect();
        assert_eq!(shards.len(), shards_count);
        Process { shards, control, jobs, codecs: Codecs::default(), senders, ends_count }
    }

    fn catalog(&self) -> Catalog {
        let mut start = BrokerConfig::default();
        start.topic_defaults.segment_bytes = self.scenario.segment_bytes;
        let mut catalog = Catalog::new(NODE, BrokerSettings::new(start, Default::default()));
        self.records.iter().for_each(|record| catalog.apply(record));
        catalog
    }

    // ---- Turns -------------------------------------------------------------------------------

    /// One turn of every shard. Time passes until something happens, at most to `until`.
    pub fn step(&mut self, until: MonotonicNs) {
        let Some(process) = &mut self.process else {
            let ms = until.ms_since(self.world.now()).clamp(1, 10);
            self.world.advance(ms);
            return;
        };
        let last = process.shards.len() - 1;
        let mut sleep = Sleep::Until(until);
        for (index, (shard, host)) in process.shards.iter_mut().enumerate() {
            // Only the last one may let time pass, and not over what another one waits for.
            let sleep_max = if index == last { sleep } else { Sleep::No };
            host.step(shard, cells(), sleep_max);
            sleep = sleep.min(host.sleep(shard));
        }
        self.serve_control();
        self.work();
        self.notice_end();
    }

    fn notice_end(&mut self) {
        let now = self.world.ends_count();
        if self.process.as_ref().is_some_and(|process| process.ends_count != now) {
            self.process = None;
        }
    }

    fn serve_control(&mut self) {
        let mut commands = Vec::new();
        let Some(process) = &mut self.process else { return };
        while let Some(command) = process.control.next_command() {
            commands.push(command);
        }
        for (shard, request, command) in commands {
            let (records, outcome) = self.decide(&command);
            records.iter().for_each(|record| self.commit(record.clone()));
            let epoch = self.epoch;
            let process = self.process.as_mut().expect("looked at above");
            if !records.is_empty() {
                for sender in &mut process.senders {
                    let records = records.clone();
                    post(sender, Mail::Control(ControlEvent::Committed { records, epoch }));
                }
            }
            post(&mut process.senders[shard], Mail::Control(ControlEvent::Reply { request, outcome }));
        }
    }

    /// One job, as the worker does it.
    fn work(&mut self) {
        let Some(process) = &mut self.process else { return };
        let Ok(job) = process.jobs.try_recv() else { return };
        let batch = worker::recompress(&job, &mut process.codecs);
        let mail = Mail::Recompressed { target: job.target, batch };
        post(&mut process.senders[usize::from(job.shard.0)], mail);
    }

    fn decide(&self, command: &ControlCommand) -> (Vec<MetadataRecord>, ControlOutcome) {
        match command {
            ControlCommand::ReserveProducerIds => {
                let first = self.catalog().producer_ids_next;
                let next = first + PRODUCER_ID_BLOCK;
                let records = vec![MetadataRecord::ProducerIdsReserved { next }];
                (records, ControlOutcome::ProducerIds { first, next })
            }
            other => panic!("no client of ours asks for {other:?}"),
        }
    }

    pub fn describe(&self) -> String {
        let Some(process) = &self.process else { return "the broker is down".into() };
        let lanes = process.shards.iter().flat_map(|(shard, _)| &shard.core.storage.lanes);
        let lanes: Vec<String> =
            lanes.map(|lane| format!("fenced: {:?}, {:?}", lane.fenced(), lane.stats())).collect();
        format!("{} starts, lanes: {lanes:#?}", self.starts_count)
    }

    // ---- Ends --------------------------------------------------------------------------------

    pub fn power_cut(&mut self) {
        self.world.power_cut();
        self.notice_end();
    }

    pub fn kill(&mut self) {
        self.world.kill();
        self.notice_end();
    }

    /// Tells the shards to stop; they are stepped until they have, then the process exits.
    pub fn begin_stop(&mut self) {
        if let Some(process) = &mut self.process {
            process.senders.iter_mut().for_each(|sender| post(sender, Mail::Stop));
        }
    }

    /// True once the process is gone.
    pub fn end_stop(&mut self) -> bool {
        let Some(process) = &mut self.process else { return true };
        if !process.shards.iter().all(|(shard, _)| shard.is_stopped()) {
            return false;
        }
        for (shard, _) in &mut process.shards {
            // A fault on the way makes it a stop without its mark.
            shard.stop().ok();
        }
        self.kill();
        true
    }
}

fn limits() -> ClientLimits {
    ClientLimits { request_bytes_max: 1 << 20, cold_request_bytes_max: 1 << 20, idle_ms_max: 600_000 }
}

fn post(sender: &mut Sender<Mail>, mail: Mail) {
    assert!(sender.try_send(mail).is_ok(), "a shard reads its mail every turn");
}

type Ends = (Vec<Option<Peer>>, Vec<Receiver<Mail>>);

/// A queue for every pair of shards.
fn connect(rings: &mut [Ring]) -> Vec<Ends> {
    let mut ends: Vec<Ends> = rings.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for from in 0..rings.len() {
        for to in 0..rings.len() {
            let peer = (from != to).then(|| {
                let (sender, receiver) = queue::channel(QUEUE_MAILS);
                ends[to].1.push(receiver);
                Peer { sender, waker: rings[to].waker() }
            });
            ends[from].0.push(peer);
        }
    }
    ends
}
