//! Start: from a configuration to a serving broker, and back.
//!
//! Order: lock the folder; the control thread opens its store and commits that this node started;
//! every shard makes its ring and recovers its lanes; only then listeners open, port by port.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use super::config::{Config, Cores, FIELDS};
use super::data_dir::DataDir;
use super::shard_thread::{self, Built, Peers, ShardSetup};
use super::watchdog::{self, Watched};
use crate::api::Endpoint;
use crate::api::describe_configs::BrokerSetting;
use crate::base::ids::{LaneId, ShardId};
use crate::base::queue::{self, Receiver, Sender};
use crate::catalog::MetadataRecord;
use crate::console;
use crate::control::{Control, ControlHandle, ControlOptions, Post};
use crate::log;
use crate::metrics::Cells;
use crate::partition::topic_config::SETTINGS;
use crate::ring::{Ring, RingOptions, Waker};
use crate::shard::mail::{Mail, Peer, QUEUE_MAILS};
use crate::shard::worker::{self, PostMail, WorkerHandle};

/// A broker that serves. Dropping it doesn't stop it: `stop` does.
pub struct Broker {
    /// Where each listener was bound, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    shards: Vec<JoinHandle<Result<(), String>>>,
    stops: Stops,
    stopping: Arc<AtomicBool>,
    _data_dir: DataDir,
}

/// What the control thread hands to the others.
struct ControlStarted {
    records: Vec<MetadataRecord>,
    handles: Vec<ControlHandle>,
}

/// What the control thread needs of the shards, once they are there.
struct Connected {
    posts: Vec<Post>,
    watched: Vec<Watched>,
    stopping: Arc<AtomicBool>,
}

impl Broker {
    pub fn start(config: Config) -> Result<Self, String> {
        let began = Instant::now();
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let data_dir = DataDir::open(&config.log_dir)?;
        let cores = placement(&config.cores)?;
        let shards_count = cores.len();
        let lanes = find_lanes(&config, shards_count)?;
        let admin_listener = match config.admin {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address)
                    .map_err(|error| format!("admin.listener {address} can't be bound: {error}"))?,
            ),
        };
        let admin = admin_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let cells: Vec<&'static Cells> = cores.iter().map(|_| Cells::leaked()).collect();
        let (connected_sender, connected_receiver) = mpsc::channel();
        let started = start_control(
            &config,
            &data_dir,
            shards_count,
            connected_receiver,
            admin_listener,
            cells.clone(),
        )?;

        let (worker, jobs) = WorkerHandle::new();
        let mut threads = Vec::new();
        let mut building = Vec::new();
        for (index, core) in cores.iter().enumerate() {
            let setup = ShardSetup {
                id: ShardId(index as u16),
                core: *core,
                lanes: lanes
                    .iter()
                    .copied()
                    .filter(|lane| usize::from(lane.0) % shards_count == index)
                    .collect(),
                config: config.clone(),
                broker_settings: broker_settings(&config),
                records: started.records.clone(),
                control: started.handles[index].clone(),
                worker: worker.clone(),
                cells: cells[index],
            };
            let (thread, steps) = shard_thread::spawn(setup)?;
            threads.push(thread);
            building.push(steps);
        }
        let mut built: Vec<Built> = Vec::new();
        for steps in &building {
            built.push(steps.built()?);
        }
        let recovered_bytes: u64 = built.iter().map(|built| built.journal_bytes).sum();
        let recovery_ms = built.iter().map(|built| built.recovery_ms).max().unwrap_or(0);
        let addresses = open_listeners(&config, &building)?;
        let endpoints = endpoints(&config, &addresses);
        let (peers, stops, posts, worker_posts) = connect(&built);
        let watched = peers.iter().zip(&built).zip(&cells).map(|(((_, receivers), built), cells)| {
            Watched::new(receivers.iter().map(Receiver::watch).collect(), built.waker.clone(), cells)
        });
        let watched: Vec<_> = watched.collect();
        let worker_thread = std::thread::Builder::new().name("worker".into());
        worker_thread
            .spawn(move || worker::run(jobs, worker_posts))
            .map_err(|error| format!("the worker thread can't be started: {error}"))?;
        for (steps, mailbox) in building.iter().zip(peers) {
            steps.serve(Peers { mailbox, endpoints: endpoints.clone() })?;
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let connected = Connected { posts, watched, stopping: stopping.clone() };
        connected_sender
            .send(connected)
            .map_err(|_| "the control thread ended while starting".to_string())?;
        tracing::info!(
            shards = shards_count,
            lanes = lanes.len(),
            partitions = built.iter().map(|built| built.partitions_count).sum::<usize>(),
            recovery_ms,
            journal_read_bytes = recovered_bytes,
            start_ms = began.elapsed().as_millis() as u64,
            "serving"
        );
        Ok(Self { addresses, admin, shards: threads, stops, stopping, _data_dir: data_dir })
    }

    /// Answers what is in flight, makes everything durable, marks the stop as clean, and ends.
    pub fn stop(mut self) -> Result<(), String> {
        self.stopping.store(true, Ordering::Relaxed);
        for (sender, waker) in &mut self.stops {
            // One mail ever goes this way, so there is room.
            sender.try_send(Mail::Stop).map_err(|_| "a shard was told to stop already".to_string())?;
            waker.wake();
        }
        for shard in self.shards {
            shard.join().map_err(|_| "a shard's thread ended in a panic".to_string())??;
        }
        Ok(())
    }
}

/// The core of each shard; `None` isn't pinned.
fn placement(cores: &Cores) -> Result<Vec<Option<usize>>, String> {
    let allowed: Vec<usize> = core_affinity::get_core_ids()
        .ok_or("the cores this process may use can't be read")?
        .into_iter()
        .map(|core| core.id)
        .collect();
    match cores {
        Cores::All => Ok(allowed.into_iter().map(Some).collect()),
        Cores::Unpinned => Ok(vec![None]),
        Cores::List(list) => match list.iter().find(|core| !allowed.contains(core)) {
            Some(core) => {
                Err(format!("cores: core {core} isn't among those this process may use: {allowed:?}"))
            }
            None => Ok(list.iter().copied().map(Some).collect()),
        },
    }
}

/// Owner of the tokens of a ring that looks through the folder before any shard exists.
const TOKEN_OWNER: u8 = 1;

/// The lanes on disk, and one per shard at least.
fn find_lanes(config: &Config, shards_count: usize) -> Result<Vec<LaneId>, String> {
    let mut ring = Ring::kernel(&RingOptions {
        receive_buffers_count: 1,
        receive_buffer_bytes: 4096,
        ..RingOptions::default()
    })
    .map_err(|error| error.to_string())?;
    log::prepare_dir(&mut ring, &config.log_dir, TOKEN_OWNER).map_err(|error| error.to_string())?;
    let mut lanes = log::list_lanes(&mut ring, &config.log_dir).map_err(|error| error.to_string())?;
    for lane in (0..shards_count).map(|lane| LaneId(lane as u16)) {
        if !lanes.contains(&lane) {
            lanes.push(lane);
        }
    }
    lanes.sort_unstable();
    Ok(lanes)
}

fn start_control(
    config: &Config,
    data_dir: &DataDir,
    shards_count: usize,
    connected: mpsc::Receiver<Connected>,
    admin: Option<TcpListener>,
    cells: Vec<&'static Cells>,
) -> Result<ControlStarted, String> {
    let options = ControlOptions {
        store: data_dir.meta(),
        node: config.node,
        lanes_count: shards_count as u16,
        defaults: config.topic_defaults.clone(),
        creation: config.creation,
    };
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name("control".into());
    let spawned = thread.spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                sender.send(Err(format!("the control thread's runtime can't be made: {error}"))).ok();
                return;
            }
        };
        runtime.block_on(async move {
            let (control, records) = match Control::open(options).await {
                Ok(opened) => opened,
                Err(error) => {
                    sender.send(Err(error.to_string())).ok();
                    return;
                }
            };
            let handles = (0..shards_count).map(|shard| control.handle(shard)).collect();
            sender.send(Ok(ControlStarted { records, handles })).ok();
            drop(sender);
            // The other threads start meanwhile; nothing else runs on this one yet.
            let Ok(Connected { posts, watched, stopping }) = connected.recv() else { return };
            tokio::spawn(watchdog::run(watched, move || stopping.load(Ordering::Relaxed)));
            if let Some(listener) = admin {
                tokio::spawn(async move {
                    if let Err(error) = console::serve(listener, cells).await {
                        tracing::error!(%error, "the admin port ended");
                    }
                });
            }
            control.run(posts).await;
        });
    });
    spawned.map_err(|error| format!("the control thread can't be started: {error}"))?;
    receiver.recv().map_err(|_| "the control thread ended while starting".to_string())?
}

/// Opens every listener on every shard: the first gets the port, the others share it.
fn open_listeners(config: &Config, building: &[shard_thread::Steps]) -> Result<Vec<SocketAddr>, String> {
    let mut addresses: Vec<SocketAddr> = config.listeners.iter().map(|listener| listener.address).collect();
    for steps in building {
        addresses = steps.listen(addresses)?;
    }
    Ok(addresses)
}

fn endpoints(config: &Config, addresses: &[SocketAddr]) -> Vec<Endpoint> {
    let with_port = config.advertised.iter().zip(addresses).map(|(advertised, bound)| Endpoint {
        host: advertised.host.clone(),
        port: if advertised.port == 0 { bound.port() } else { advertised.port },
    });
    with_port.collect()
}

/// The server's own way to each shard.
type Stops = Vec<(Sender<Mail>, Waker)>;

type Mailboxes = Vec<(Vec<Option<Peer>>, Vec<Receiver<Mail>>)>;

/// A queue for every pair of shards, and from the control thread and the server to each.
fn connect(built: &[Built]) -> (Mailboxes, Stops, Vec<Post>, Vec<PostMail>) {
    let mut peers: Vec<Vec<Option<Peer>>> = built.iter().map(|_| Vec::new()).collect();
    let mut receivers: Vec<Vec<Receiver<Mail>>> = built.iter().map(|_| Vec::new()).collect();
    for (from, peers) in peers.iter_mut().enumerate() {
        for (to, to_built) in built.iter().enumerate() {
            peers.push((from != to).then(|| {
                let (sender, receiver) = queue::channel(QUEUE_MAILS);
                receivers[to].push(receiver);
                Peer { sender, waker: to_built.waker.clone() }
            }));
        }
    }
    let mut stops = Vec::new();
    let mut posts: Vec<Post> = Vec::new();
    let mut worker_posts: Vec<PostMail> = Vec::new();
    for (receivers, built) in receivers.iter_mut().zip(built) {
        let (sender, receiver) = queue::channel(1);
        receivers.push(receiver);
        stops.push((sender, built.waker.clone()));
        let mut post = post_mail(receivers, &built.waker);
        posts.push(Box::new(move |event| post(Mail::Control(event))));
        worker_posts.push(post_mail(receivers, &built.waker));
    }
    (peers.into_iter().zip(receivers).collect(), stops, posts, worker_posts)
}

/// A queue of its own to a shard, for a thread that may wait for room in it.
fn post_mail(receivers: &mut Vec<Receiver<Mail>>, waker: &Waker) -> PostMail {
    let (mut sender, receiver) = queue::channel(QUEUE_MAILS);
    receivers.push(receiver);
    let waker = waker.clone();
    Box::new(move |mut mail| {
        // A shard takes its mail every turn; only one that hangs keeps its queue full.
        while let Err(back) = sender.try_send(mail) {
            mail = back;
            waker.wake();
            std::thread::yield_now();
        }
        waker.wake();
    })
}

/// The settings in force, for DescribeConfigs.
fn broker_settings(config: &Config) -> Vec<BrokerSetting> {
    let fields = FIELDS.iter().filter(|field| field.name != "log.segment.bytes").map(|field| {
        let value = config.settings.get(field.name).cloned().unwrap_or_else(|| field.default.to_string());
        BrokerSetting {
            name: field.name,
            is_default: value == field.default,
            value,
            documentation: field.documentation,
        }
    });
    let topic_defaults = SETTINGS.iter().map(|setting| {
        let value = config.topic_defaults.value_of(setting.name);
        BrokerSetting {
            name: setting.broker_name,
            is_default: value == setting.default,
            value,
            documentation: setting.documentation,
        }
    });
    fields.chain(topic_defaults).collect()
}
