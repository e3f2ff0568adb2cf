//! Shards on a simulated machine, turned one by one, so that a test decides what happens in between.

mod ahead;
mod arriving;
mod broker_settings;
mod compaction;
mod counts;
mod directories;
mod fenced;
mod hosts;
mod large_frames;
mod plans;
mod producers;
mod room;
mod silent;
mod stages;
mod steady;

use std::net::SocketAddr;
use std::path::PathBuf;

use super::clients::{ClientLimits, Clients};
use super::directories::Directories;
use super::host::Host;
use super::mail::{Mail, Mailbox, Peer, QUEUE_MAILS};
use super::metadata::Metadata;
use super::room::RoomOptions;
use super::storage::Storage;
use super::worker::WorkerHandle;
use super::{Shard, ShardParts};
use crate::api::Endpoint;
use crate::base::ids::{
    DirectoryId, LaneId, LeaderEpoch, NodeId, PartitionId, ShardId, TopicId, TopicPartition,
};
use crate::base::queue::{self, Receiver, Sender};
use crate::catalog::broker_config::BrokerSettings;
use crate::catalog::{Catalog, MetadataRecord, Replica};
use crate::control::command::ControlEvent;
use crate::control::{ControlHandle, DetachedControl};
use crate::coordinator;
use crate::log::{Lane, LaneOptions, prepare_dir};
use crate::metrics::Cells;
use crate::metrics::directory::DirectoryCells;
use crate::metrics::stages::StageCells;
use crate::protocol::batch_builder::{BatchBuilder, BatchOptions};
use crate::protocol::compression::Codecs;
use crate::protocol::reader::Reader;
use crate::protocol::writer::Writer;
use crate::ring::sim::{SimClient, World};
use crate::ring::{ListenerId, Ring, Sleep};

const TOPIC_ID: TopicId = TopicId(*b"topic of a test!");
const NODE: NodeId = NodeId(1);

/// Turns in which anything that is going to happen has happened.
const TURNS_MAX: usize = 20_000;

/// Shards with a topic "t" that has a partition in each lane.
struct Machine {
    world: World,
    lanes_count: u16,
    /// Lane n lies in the directory n mod so many.
    directories_count: u16,
    directories: Vec<&'static DirectoryCells>,
    rooms: RoomOptions,
    /// A directory that couldn't be used at start.
    unused: Option<u16>,
    records: Vec<MetadataRecord>,
    shards: Vec<(Shard, Host)>,
    /// To every shard, from the control thread.
    senders: Vec<Sender<Mail>>,
    cells: &'static Cells,
    /// One per shard.
    stages: Vec<&'static StageCells>,
    _control: DetachedControl,
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 9092))
}

fn directory_id(directory: u16) -> DirectoryId {
    DirectoryId([directory as u8 + 1; 16])
}

fn directory_path(directory: u16) -> PathBuf {
    PathBuf::from(format!("/data{directory}"))
}

fn target(partition: i32) -> TopicPartition {
    TopicPartition { topic_id: TOPIC_ID, partition: PartitionId(partition) }
}

/// A topic "t" with a partition in each lane.
fn records(directories_count: u16, lanes_count: u16) -> Vec<MetadataRecord> {
    let mut records = vec![
        MetadataRecord::ClusterCreated { cluster_id: "test".into() },
        MetadataRecord::NodeStarted { node: NODE, incarnation: 1, lanes_count },
        MetadataRecord::TopicCreated { name: "t".into(), topic_id: TOPIC_ID, settings: Default::default() },
    ];
    records.extend((0..directories_count).map(|directory| MetadataRecord::DirectoryOpened {
        node: NODE,
        directory: directory_id(directory),
        path: directory_path(directory).display().to_string(),
        lanes: (directory..lanes_count).step_by(usize::from(directories_count)).map(LaneId).collect(),
    }));
    records.extend((0..lanes_count).map(|lane| MetadataRecord::PartitionCreated {
        topic_id: TOPIC_ID,
        partition: PartitionId(i32::from(lane)),
        replicas: vec![Replica { node: NODE, lane: LaneId(lane) }],
        leader_epoch: LeaderEpoch(0),
    }));
    records
}

/// A small lane.
fn recovered(ring: &mut Ring, dir: PathBuf, lane: LaneId, owner: u8) -> Lane {
    let options = LaneOptions {
        journal_bytes: 4 << 20,
        journal_files_count: 4,
        group_bytes_max: 1 << 20,
        tail_pool_bytes: 2 << 20,
        ..LaneOptions::new(dir, lane, owner)
    };
    prepare_dir(ring, &options.dir, owner).expect("no fault was asked for");
    Lane::recover(ring, options).expect("no fault was asked for").0
}

/// A shard without directories.
fn parts(
    id: ShardId,
    ring: Ring,
    listeners: Vec<ListenerId>,
    storage: Storage,
    (known, control): (Catalog, ControlHandle),
    mailbox: Mailbox,
) -> ShardParts {
    let limits =
        ClientLimits { request_bytes_max: 4 << 20, cold_request_bytes_max: 1 << 20, idle_ms_max: 600_000 };
    let endpoint = Endpoint { host: "test".into(), port: address().port() };
    ShardParts {
        id,
        ring,
        clients: Clients::new(listeners, limits),
        storage,
        metadata: Metadata::new(known, control, vec![endpoint], Vec::new(), false, 1),
        mailbox,
        directories: Directories::new(Vec::new(), RoomOptions::default()),
        group_options: coordinator::Options::default(),
        retention_check_ms: 300_000,
        is_cleaning: true,
        stages: &Cells::leaked().stages,
        slow_ms: 100,
    }
}

fn catalog(records: &[MetadataRecord]) -> Catalog {
    let mut catalog = Catalog::new(NODE, BrokerSettings::default());
    records.iter().for_each(|record| catalog.apply(record));
    catalog
}

impl Machine {
    fn new(shards_count: usize, lanes_count: u16) -> Self {
        Self::with_directories(1, shards_count, lanes_count)
    }

    fn with_directories(directories_count: u16, shards_count: usize, lanes_count: u16) -> Self {
        let world = World::new(1);
        world.make_dirs(&PathBuf::from("/"));
        let mut machine = Self {
            world,
            lanes_count,
            directories_count,
            directories: Vec::new(),
            unused: None,
            rooms: RoomOptions { free_bytes_min: 0, ..RoomOptions::default() },
            records: records(directories_count, lanes_count),
            shards: Vec::new(),
            senders: Vec::new(),
            cells: Cells::leaked(),
            stages: Vec::new(),
            _control: DetachedControl::default(),
        };
        machine.start(shards_count);
        machine
    }

    fn start(&mut self, shards_count: usize) {
        let mut rings: Vec<Ring> = (0..shards_count).map(|_| Ring::simulated(&self.world)).collect();
        self.senders.clear();
        self.stages.clear();
        let cells = |directory| {
            let path = directory_path(directory).display().to_string();
            DirectoryCells::leaked(Some(directory_id(directory)), path, shards_count)
        };
        let used = |directory: &u16| Some(*directory) != self.unused;
        self.directories = (0..self.directories_count).filter(used).map(cells).collect();
        for (index, (peers, mut receivers)) in connect(&mut rings).into_iter().enumerate() {
            let mut ring = rings.remove(0);
            let (sender, receiver) = queue::channel(QUEUE_MAILS);
            self.senders.push(sender);
            receivers.push(receiver);
            let stages = &Cells::leaked().stages;
            self.stages.push(stages);
            let id = ShardId(index as u16);
            let lanes: Vec<LaneId> = (0..self.lanes_count)
                .filter(|lane| usize::from(*lane) % shards_count == index)
                .map(LaneId)
                .collect();
            let recovered = lanes.iter().enumerate().map(|(index, lane)| {
                let owner = Storage::token_owner(index);
                recovered(&mut ring, directory_path(lane.0 % self.directories_count), *lane, owner)
            });
            let storage = Storage::new(id, recovered.collect(), WorkerHandle::new().0);
            // Clients reach the first shard, so that a test knows what has to be mailed.
            let listeners =
                if index == 0 { vec![ring.listen(address()).expect("the port is free").0] } else { vec![] };
            let mut known = catalog(&self.records);
            self.unused.into_iter().for_each(|directory| {
                known.directories.fail(directory_id(directory));
            });
            let shard = Shard::new(ShardParts {
                directories: Directories::new(self.directories.clone(), self.rooms),
                stages,
                ..parts(
                    id,
                    ring,
                    listeners,
                    storage,
                    (known, self._control.handle(index)),
                    Mailbox::new(id, peers, receivers),
                )
            });
            self.shards.push((shard, Host::default()));
        }
    }

    /// Stops cleanly and starts again: nothing of the log is in memory then.
    fn restart(&mut self) {
        let shards_count = self.shards.len();
        self.senders.iter_mut().for_each(|sender| assert!(sender.try_send(Mail::Stop).is_ok()));
        self.turn_until(|machine| machine.shards.iter().all(|(shard, _)| shard.is_stopped()));
        for (mut shard, _) in self.shards.drain(..) {
            shard.stop().expect("no fault was asked for");
        }
        self.world.kill();
        self.start(shards_count);
    }

    /// One turn of one shard; time passes a little.
    fn turn(&mut self, shard: usize) {
        let (shard, host) = &mut self.shards[shard];
        host.step(shard, self.cells, Sleep::No);
    }

    fn turn_until(&mut self, is_over: impl Fn(&Self) -> bool) {
        for _ in 0..TURNS_MAX {
            if is_over(self) {
                return;
            }
            (0..self.shards.len()).for_each(|shard| self.turn(shard));
        }
        panic!("what a test waits for didn't happen");
    }

    fn commit(&mut self, record: MetadataRecord) {
        self.records.push(record.clone());
        let epoch = catalog(&self.records).epoch();
        for sender in &mut self.senders {
            let event = ControlEvent::Committed { records: vec![record.clone()], epoch };
            assert!(sender.try_send(Mail::Control(event)).is_ok());
        }
    }

    fn connect(&self) -> SimClient {
        self.world.connect(address()).expect("the first shard listens")
    }

    /// Turns all shards until an answer is here; what follows its header.
    fn answer(&mut self, client: &SimClient) -> Vec<u8> {
        let mut received = Vec::new();
        for turn in 0..TURNS_MAX {
            // A batch may have to wait until others are in their segment: that takes the disk some time.
            self.world.advance(u64::from(turn % 100 == 99));
            (0..self.shards.len()).for_each(|shard| self.turn(shard));
            received.extend(client.read());
            if let Some(answer) = take_answer(&mut received) {
                return answer;
            }
        }
        panic!("no answer")
    }

    /// Produces a batch and returns the error of its answer.
    fn produce(&mut self, client: &SimClient, partition: i32, batch: &[u8]) -> i16 {
        client.write(&produce(partition, batch));
        produce_error(&self.answer(client))
    }

    fn plans_count(&self, shard: usize) -> usize {
        self.shards[shard].0.core.storage.plans.len()
    }
}

/// Takes the oldest answer out of what was received, where all of it is there: what follows its header.
fn take_answer(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let bytes = 4 + u32::from_be_bytes(*received.first_chunk()?) as usize;
    if received.len() < bytes {
        return None;
    }
    let rest = received.split_off(bytes);
    // Length, correlation id, no tagged fields.
    Some(std::mem::replace(received, rest).split_off(9))
}

fn produce_error(answer: &[u8]) -> i16 {
    let mut reader = Reader::new(answer, true);
    let mut read = || {
        reader.array(1)?;
        reader.string()?;
        reader.array(1)?;
        reader.i32()?;
        reader.i16()
    };
    read().expect("a well-formed Produce answer")
}

fn fetch_error(answer: &[u8]) -> i16 {
    let mut reader = Reader::new(answer, true);
    let mut read = || {
        // Throttle time, error and session.
        reader.take(10)?;
        reader.array(1)?;
        reader.string()?;
        reader.array(1)?;
        reader.i32()?;
        reader.i16()
    };
    read().expect("a well-formed Fetch answer")
}

fn batch(options: BatchOptions) -> Vec<u8> {
    let mut builder = BatchBuilder::new(options);
    builder.push(1_000, Some(b"key"), Some(b"value"), &[]);
    builder.finish(&mut Codecs::default())
}

/// One record, whose value has so many bytes.
fn batch_with(value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1_000, None, Some(&vec![b'x'; value_bytes]), &[]);
    builder.finish(&mut Codecs::default())
}

fn frame((key, version): (i16, i16), body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut frame = vec![0; 4];
    let mut writer = Writer::new(&mut frame, false);
    writer.i16(key);
    writer.i16(version);
    writer.i32(7);
    writer.string("test");
    writer.flexible = true;
    writer.no_tagged_fields();
    body(&mut writer);
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// A Produce of version 9 that waits long.
fn produce(partition: i32, batch: &[u8]) -> Vec<u8> {
    produce_with(-1, partition, batch)
}

fn produce_with(acks: i16, partition: i32, batch: &[u8]) -> Vec<u8> {
    produce_within(i32::MAX, acks, partition, batch)
}

fn produce_within(timeout_ms: i32, acks: i16, partition: i32, batch: &[u8]) -> Vec<u8> {
    frame((0, 9), |writer| {
        writer.nullable_string(None);
        writer.i16(acks);
        writer.i32(timeout_ms);
        writer.array(1);
        writer.string("t");
        writer.array(1);
        writer.i32(partition);
        writer.bytes(batch);
        (0..3).for_each(|_| writer.no_tagged_fields());
    })
}

/// A Fetch of version 12 that waits long.
fn fetch(partition: i32, offset: i64) -> Vec<u8> {
    fetch_at_most(1 << 20, partition, offset)
}

fn fetch_at_most(bytes_max: i32, partition: i32, offset: i64) -> Vec<u8> {
    fetch_within(i32::MAX, bytes_max, partition, offset)
}

fn fetch_within(wait_ms: i32, bytes_max: i32, partition: i32, offset: i64) -> Vec<u8> {
    frame((1, 12), |writer| {
        writer.i32(-1);
        writer.i32(wait_ms);
        writer.i32(1);
        writer.i32(i32::MAX);
        writer.i8(0);
        writer.i32(0);
        writer.i32(-1);
        writer.array(1);
        writer.string("t");
        writer.array(1);
        writer.i32(partition);
        writer.i32(-1);
        writer.i64(offset);
        writer.i32(-1);
        writer.i64(-1);
        writer.i32(bytes_max);
        (0..2).for_each(|_| writer.no_tagged_fields());
        writer.array(0);
        writer.string("");
        writer.no_tagged_fields();
    })
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
