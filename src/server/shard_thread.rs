//! Shard thread: makes a shard on its own core, step by step with the server, and runs it.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::config::Config;
use super::log_dirs::PlacedLane;
use crate::api::Endpoint;
use crate::api::describe_configs::FixedSetting;
use crate::base::ids::{DirectoryId, ShardId, TopicPartition};
use crate::base::queue::Receiver;
use crate::catalog::{Catalog, MetadataRecord};
use crate::control::ControlHandle;
use crate::coordinator;
use crate::log::{Lane, LaneOptions};
use crate::metrics::Cells;
use crate::metrics::directory::DirectoryCells;
use crate::protocol::cold::COLD_BYTES_MAX;
use crate::ring::{ListenerId, Ring, Waker};
use crate::shard::clients::{ClientLimits, Clients};
use crate::shard::directories::Directories;
use crate::shard::host::Runner;
use crate::shard::mail::{Mail, Mailbox, Peer};
use crate::shard::metadata::Metadata;
use crate::shard::room::RoomOptions;
use crate::shard::storage::Storage;
use crate::shard::worker::WorkerHandle;
use crate::shard::{Shard, ShardParts};

/// Files of a lane's journal.
const JOURNAL_FILES_COUNT: u32 = 4;
/// A batch of the default `message.max.bytes` and what came with it, in one device write.
const GROUP_BYTES_MAX: u64 = 4 << 20;

pub struct ShardSetup {
    pub id: ShardId,
    pub core: Option<usize>,
    pub lanes: Vec<PlacedLane>,
    /// Segment files that each lane keeps open.
    pub files_open_max: u32,
    pub config: Config,
    pub fixed_settings: Vec<FixedSetting>,
    pub records: Vec<MetadataRecord>,
    pub control: ControlHandle,
    pub worker: WorkerHandle,
    pub cells: &'static Cells,
}

/// A shard whose lanes have recovered.
pub struct Built {
    pub waker: Waker,
    pub partitions_count: usize,
    pub journal_bytes: u64,
    pub recovery_ms: u64,
    /// Lanes that couldn't be recovered, and why.
    pub failed: Vec<(PlacedLane, String)>,
}

/// The last thing a shard needs before it serves.
pub struct Peers {
    pub mailbox: (Vec<Option<Peer>>, Vec<Receiver<Mail>>),
    pub endpoints: Vec<Endpoint>,
    pub directories: Vec<&'static DirectoryCells>,
}

/// The server's side of the steps.
pub struct Steps {
    built: mpsc::Receiver<Result<Built, String>>,
    listen: mpsc::Sender<Vec<SocketAddr>>,
    listening: mpsc::Receiver<Result<Vec<SocketAddr>, String>>,
    serve: mpsc::Sender<Peers>,
}

const ENDED: &str = "a shard's thread ended while starting";

impl Steps {
    pub fn built(&self) -> Result<Built, String> {
        self.built.recv().map_err(|_| ENDED.to_string())?
    }

    /// Listens on `addresses` and returns them with the ports they got.
    pub fn listen(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
        self.listen.send(addresses).map_err(|_| ENDED.to_string())?;
        self.listening.recv().map_err(|_| ENDED.to_string())?
    }

    pub fn serve(&self, peers: Peers) -> Result<(), String> {
        self.serve.send(peers).map_err(|_| ENDED.to_string())
    }
}

type Spawned = (JoinHandle<Result<(), String>>, Steps);

pub fn spawn(setup: ShardSetup) -> Result<Spawned, String> {
    let (built_sender, built) = mpsc::channel();
    let (listen, listen_receiver) = mpsc::channel::<Vec<SocketAddr>>();
    let (listening_sender, listening) = mpsc::channel();
    let (serve, serve_receiver) = mpsc::channel();
    let name = format!("shard-{}", setup.id.0);
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            if let Some(core) = setup.core
                && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
            {
                tracing::warn!(core, "the shard couldn't be pinned; it runs where the kernel puts it");
            }
            let (runner, mut ring, storage) = match recover(&setup) {
                Ok((runner, ring, storage, built)) => {
                    built_sender.send(Ok(built)).ok();
                    (runner, ring, storage)
                }
                Err(error) => {
                    built_sender.send(Err(error)).ok();
                    return Ok(());
                }
            };
            let Ok(addresses) = listen_receiver.recv() else { return Ok(()) };
            let listeners = match listen_all(&mut ring, &addresses) {
                Ok((listeners, bound)) => {
                    listening_sender.send(Ok(bound)).ok();
                    listeners
                }
                Err(error) => {
                    listening_sender.send(Err(error)).ok();
                    return Ok(());
                }
            };
            let Ok(peers) = serve_receiver.recv() else { return Ok(()) };
            serve_until_stopped(setup, &runner, ring, storage, listeners, peers)
        })
        .map_err(|error| format!("the thread {name} can't be started: {error}"))?;
    Ok((thread, Steps { built, listen, listening, serve }))
}

fn recover(setup: &ShardSetup) -> Result<(Runner, Ring, Storage, Built), String> {
    let host = setup.config.host;
    let mut ring = Ring::kernel(&host.ring_options()).map_err(|error| error.to_string())?;
    let runner = Runner::new(host)?;
    let began = Instant::now();
    let mut lanes = Vec::new();
    let mut built = Built {
        waker: ring.waker(),
        partitions_count: 0,
        journal_bytes: 0,
        recovery_ms: 0,
        failed: Vec::new(),
    };
    for (index, placed) in setup.lanes.iter().enumerate() {
        let options = LaneOptions {
            files_open_max: setup.files_open_max,
            ..lane_options(&setup.config, placed, Storage::token_owner(index))
        };
        match Lane::recover(&mut ring, options) {
            Ok((lane, report)) => {
                if let Some(torn) = &report.torn_group {
                    let lane = placed.lane.0;
                    tracing::info!(lane, torn, "a torn last group was cut; it was never acknowledged");
                }
                for damage in &report.damaged {
                    let partition = named(&setup.records, damage.id);
                    tracing::error!(
                        partition,
                        "offline: {damage}; restore it, or `corelane log accept-loss {partition}`"
                    );
                }
                built.partitions_count += report.partitions_count;
                built.journal_bytes += report.journal_bytes;
                lanes.push(lane);
            }
            Err(error) => built.failed.push((placed.clone(), error.to_string())),
        }
    }
    built.recovery_ms = began.elapsed().as_millis() as u64;
    Ok((runner, ring, Storage::new(setup.id, lanes, setup.worker.clone()), built))
}

/// The lane's share of what the configuration allows.
pub fn lane_options(config: &Config, placed: &PlacedLane, token_owner: u8) -> LaneOptions {
    LaneOptions {
        journal_bytes: config.journal_bytes,
        journal_files_count: JOURNAL_FILES_COUNT,
        tail_pool_bytes: config.tail_pool_bytes.min(config.journal_bytes / 2),
        group_bytes_max: GROUP_BYTES_MAX.min(config.journal_bytes / u64::from(JOURNAL_FILES_COUNT)) as u32,
        verify_always: config.verify_always,
        scrub_bytes_per_second: config.scrub_bytes_per_second,
        scrub_interval_ms: config.scrub_interval_ms,
        ..LaneOptions::new(placed.dir.clone(), placed.lane, token_owner)
    }
}

/// Topic and partition as an operator names them: `orders-0`.
fn named(records: &[MetadataRecord], id: TopicPartition) -> String {
    let created = records.iter().find_map(|record| match record {
        MetadataRecord::TopicCreated { name, topic_id, .. } if *topic_id == id.topic_id => Some(name),
        _ => None,
    });
    created.map_or_else(|| id.to_string(), |name| format!("{name}-{}", id.partition.0))
}

fn listen_all(
    ring: &mut Ring,
    addresses: &[SocketAddr],
) -> Result<(Vec<ListenerId>, Vec<SocketAddr>), String> {
    let mut listeners = Vec::new();
    let mut bound = Vec::new();
    for address in addresses {
        let (listener, address) = ring.listen(*address).map_err(|error| {
            format!("{address} can't be listened on: {error}; stop what uses the port or set listeners")
        })?;
        listeners.push(listener);
        bound.push(address);
    }
    Ok((listeners, bound))
}

fn serve_until_stopped(
    setup: ShardSetup,
    runner: &Runner,
    ring: Ring,
    storage: Storage,
    listeners: Vec<ListenerId>,
    peers: Peers,
) -> Result<(), String> {
    let config = setup.config;
    let mut catalog = Catalog::new(config.node, config.broker_settings());
    setup.records.iter().for_each(|record| catalog.apply(record));
    let known: Vec<DirectoryId> = catalog.directories.iter().map(|known| known.id).collect();
    for id in known.into_iter().filter(|id| peers.directories.iter().all(|cells| cells.id != Some(*id))) {
        catalog.directories.fail(id);
    }
    let limits = ClientLimits {
        request_bytes_max: config.request_bytes_max,
        cold_request_bytes_max: COLD_BYTES_MAX,
        idle_ms_max: config.idle_ms_max,
    };
    let rooms = RoomOptions { free_bytes_min: config.free_bytes_min, stall_ms: config.stall_ms };
    let metadata = Metadata::new(
        catalog,
        setup.control,
        peers.endpoints,
        setup.fixed_settings,
        config.auto_create_topics,
        config.offsets_partitions_count,
    );
    let (others, receivers) = peers.mailbox;
    let mut shard = Shard::new(ShardParts {
        id: setup.id,
        ring,
        clients: Clients::new(listeners, limits),
        storage,
        metadata,
        mailbox: Mailbox::new(setup.id, others, receivers),
        retention_check_ms: config.retention_check_ms,
        is_cleaning: config.is_cleaning,
        stages: &setup.cells.stages,
        slow_ms: config.slow_ms,
        directories: Directories::new(peers.directories, rooms),
        group_options: coordinator::Options {
            initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
            session_timeout_ms_min: i32::try_from(config.group_session_timeout_min_ms).unwrap_or(i32::MAX),
            session_timeout_ms_max: i32::try_from(config.group_session_timeout_max_ms).unwrap_or(i32::MAX),
            members_count_max: config.group_size_max,
            ..coordinator::Options::default()
        },
    });
    runner.run(&mut shard, setup.cells);
    shard.stop().map_err(|error| error.to_string())
}
