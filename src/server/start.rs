//! Start: from a configuration to a serving broker, and back.
//!
//! Order: lock the log directories; the control thread opens its store and commits that this node
//! started, with the lanes its directories get; every shard makes its ring and recovers its lanes; only
//! then listeners open, port by port.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use super::config::{Config, Cores, FIELDS};
use super::descriptors;
use super::log_dirs::LogDirs;
use super::shard_thread::{self, Built, Peers, ShardSetup};
use super::watchdog::{self, Watched};
use crate::api::Endpoint;
use crate::api::describe_configs::FixedSetting;
use crate::base::ids::ShardId;
use crate::base::queue::{self, Receiver, Sender};
use crate::catalog::directories::DirectoryRefusal;
use crate::catalog::{Catalog, MetadataRecord};
use crate::console;
use crate::control::{Control, ControlHandle, ControlOptions, Opened, Post};
use crate::metrics::Cells;
use crate::metrics::directory::DirectoryCells;
use crate::ring::Waker;
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
    _log_dirs: LogDirs,
}

/// What the control thread hands to the others.
struct ControlStarted {
    records: Vec<MetadataRecord>,
    handles: Vec<ControlHandle>,
    refused: Vec<(usize, DirectoryRefusal)>,
}

/// What the control thread needs of the shards, once they are there.
struct Connected {
    posts: Vec<Post>,
    watched: Vec<Watched>,
    directories: Vec<&'static DirectoryCells>,
    stopping: Arc<AtomicBool>,
}

impl Broker {
    pub fn start(config: Config) -> Result<Self, String> {
        let began = Instant::now();
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let mut log_dirs = LogDirs::open(&config.log_dirs)?;
        let cores = placement(&config.cores)?;
        let shards_count = cores.len();
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
            &log_dirs,
            shards_count,
            connected_receiver,
            admin_listener,
            cells.clone(),
        )?;

        log_dirs.refuse(started.refused)?;
        let mut catalog = Catalog::new(config.node, config.broker_settings());
        started.records.iter().for_each(|record| catalog.apply(record));
        let lanes = log_dirs.lanes(&catalog);
        let files_open_max = descriptors::files_open_max(descriptors::raise_limit(), lanes.len());
        let (worker, jobs) = WorkerHandle::new();
        let mut threads = Vec::new();
        let mut building = Vec::new();
        for (index, core) in cores.iter().enumerate() {
            let setup = ShardSetup {
                id: ShardId(index as u16),
                core: *core,
                lanes: lanes
                    .iter()
                    .filter(|placed| usize::from(placed.lane.0) % shards_count == index)
                    .cloned()
                    .collect(),
                files_open_max,
                config: config.clone(),
                fixed_settings: fixed_settings(&config),
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
        log_dirs.fail(built.iter_mut().flat_map(|built| std::mem::take(&mut built.failed)).collect())?;
        let directories = log_dirs.watch(shards_count)?;
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
            let (endpoints, directories) = (endpoints.clone(), directories.clone());
            steps.serve(Peers { mailbox, endpoints, directories })?;
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let connected = Connected { posts, watched, directories, stopping: stopping.clone() };
        connected_sender
            .send(connected)
            .map_err(|_| "the control thread ended while starting".to_string())?;
        tracing::info!(
            shards = shards_count,
            directories = log_dirs.found().len(),
            lanes = lanes.len(),
            partitions = built.iter().map(|built| built.partitions_count).sum::<usize>(),
            recovery_ms,
            journal_read_bytes = recovered_bytes,
            start_ms = began.elapsed().as_millis() as u64,
            "serving"
        );
        Ok(Self { addresses, admin, shards: threads, stops, stopping, _log_dirs: log_dirs })
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

fn start_control(
    config: &Config,
    log_dirs: &LogDirs,
    shards_count: usize,
    connected: mpsc::Receiver<Connected>,
    admin: Option<TcpListener>,
    cells: Vec<&'static Cells>,
) -> Result<ControlStarted, String> {
    let options = ControlOptions {
        store: log_dirs.meta(),
        node: config.node,
        lanes_count: shards_count as u16,
        directories: log_dirs.found(),
        broker: config.broker_settings(),
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
            let (control, opened) = match Control::open(options).await {
                Ok(opened) => opened,
                Err(error) => {
                    sender.send(Err(error.to_string())).ok();
                    return;
                }
            };
            let handles = (0..shards_count).map(|shard| control.handle(shard)).collect();
            let Opened { records, refused } = opened;
            sender.send(Ok(ControlStarted { records, handles, refused })).ok();
            drop(sender);
            // The other threads start meanwhile; nothing else runs on this one yet.
            let Ok(connected) = connected.recv() else { return };
            let Connected { posts, watched, directories, stopping } = connected;
            tokio::spawn(watchdog::run(watched, move || stopping.load(Ordering::Relaxed)));
            if let Some(listener) = admin {
                let directories = directories.clone();
                tokio::spawn(async move {
                    if let Err(error) = console::serve(listener, cells, directories).await {
                        tracing::error!(%error, "the admin port ended");
                    }
                });
            }
            control.run(posts, directories).await;
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

/// The settings that need a restart, for DescribeConfigs.
fn fixed_settings(config: &Config) -> Vec<FixedSetting> {
    let settings = FIELDS.iter().map(|field| FixedSetting {
        name: field.name,
        given: config.given.get(field.name).cloned(),
        default: field.default,
        documentation: field.documentation,
    });
    settings.collect()
}
