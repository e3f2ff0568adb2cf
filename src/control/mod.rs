//! Control: decides and commits changes of metadata, on the control thread.
//!
//! Owns:     the metadata quorum and its store, and the image that decisions are taken on.
//! Promises: a reply follows the durable commit of what it says, and every shard is sent a commit
//!           before the asker is sent the reply.
//! Never:    runs on a shard's thread; touches the data path.
//! Called by `server` (open, run) and, through `ControlHandle`, by every shard.

pub mod command;
pub mod quorum;
mod store;

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::base::ids::{DirectoryId, NodeId, TopicId};
use crate::catalog::broker_config::BrokerSettings;
use crate::catalog::decide::{CreationDefaults, Refusal};
use crate::catalog::directories::{DirectoryRefusal, FoundDirectory};
use crate::catalog::{Catalog, MetadataRecord};
use crate::metrics::directory::DirectoryCells;
use command::{ConfigResource, ControlCommand, ControlEvent, ControlOutcome, TopicOutcome, TopicRef};
use quorum::{Quorum, QuorumError};

/// Producer ids reserved for a shard at a time, as many as Kafka reserves for a broker.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

pub struct ControlOptions {
    /// Folder of the control store.
    pub store: PathBuf,
    pub node: NodeId,
    pub lanes_count: u16,
    /// The log directories that are there.
    pub directories: Vec<FoundDirectory>,
    /// What this node was started with.
    pub broker: BrokerSettings,
    pub creation: CreationDefaults,
}

/// What every shard begins with.
pub struct Opened {
    /// Every committed record.
    pub records: Vec<MetadataRecord>,
    /// The log directories that aren't what the metadata says, by index, and why.
    pub refused: Vec<(usize, DirectoryRefusal)>,
}

/// Sends an event to one shard; called on the control thread.
pub type Post = Box<dyn FnMut(ControlEvent) + Send>;

/// A shard's way to the control thread.
#[derive(Clone)]
pub struct ControlHandle {
    shard: usize,
    sender: mpsc::UnboundedSender<Envelope>,
}

struct Envelope {
    shard: usize,
    request: u64,
    command: ControlCommand,
}

impl ControlHandle {
    /// Sends a command; the answer comes back to this shard as `ControlEvent::Reply` with
    /// `request`. Commands outstanding are bounded by the requests a shard has in flight.
    pub fn send(&self, request: u64, command: ControlCommand) {
        // A send fails only after the control thread has ended, which ends the process.
        self.sender.send(Envelope { shard: self.shard, request, command }).ok();
    }
}

/// The other end of handles without a control thread: whoever plays its part takes their commands.
pub struct DetachedControl {
    sender: mpsc::UnboundedSender<Envelope>,
    receiver: mpsc::UnboundedReceiver<Envelope>,
}

impl Default for DetachedControl {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver }
    }
}

impl DetachedControl {
    pub fn handle(&self, shard: usize) -> ControlHandle {
        ControlHandle { shard, sender: self.sender.clone() }
    }

    /// The next command that was sent, with its shard and the number its answer must carry.
    pub fn next_command(&mut self) -> Option<(usize, u64, ControlCommand)> {
        let envelope = self.receiver.try_recv().ok()?;
        Some((envelope.shard, envelope.request, envelope.command))
    }
}

/// The metadata records in the store of a stopped node, from below `folder`. Blocks.
pub fn read_records(folder: &Path) -> Result<Vec<MetadataRecord>, QuorumError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| QuorumError::Open(error.to_string()))?;
    runtime.block_on(Quorum::read(folder))
}

/// Ends the control thread when told to or dropped.
pub struct Control {
    options: ControlOptions,
    quorum: Quorum,
    catalog: Catalog,
    sender: mpsc::UnboundedSender<Envelope>,
    receiver: mpsc::UnboundedReceiver<Envelope>,
}

impl Control {
    /// Opens the store, and commits that this node started with the lanes that its log directories get.
    pub async fn open(options: ControlOptions) -> Result<(Self, Opened), QuorumError> {
        let (quorum, mut records) = Quorum::open(&options.store, options.node).await?;
        let mut catalog = Catalog::new(options.node, options.broker.clone());
        records.iter().for_each(|record| catalog.apply(record));
        let mut started = Vec::new();
        if catalog.cluster_id.is_empty() {
            started.push(MetadataRecord::ClusterCreated { cluster_id: random_id().to_base64() });
        }
        started.push(MetadataRecord::NodeStarted {
            node: options.node,
            incarnation: catalog.incarnation + 1,
            lanes_count: options.lanes_count,
        });
        let outcomes = catalog.directories.open(options.node, &options.directories, options.lanes_count);
        let mut refused = Vec::new();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(record) => started.extend(record),
                Err(refusal) => refused.push((index, refusal)),
            }
        }
        quorum.propose(started.clone()).await?;
        started.iter().for_each(|record| catalog.apply(record));
        records.extend(started);
        let (sender, receiver) = mpsc::unbounded_channel();
        Ok((Self { options, quorum, catalog, sender, receiver }, Opened { records, refused }))
    }

    pub fn handle(&self, shard: usize) -> ControlHandle {
        ControlHandle { shard, sender: self.sender.clone() }
    }

    /// Serves commands until the process ends. `posts` has one entry per shard; `directories` are the
    /// log directories that new partitions may go to as long as nobody has told that they failed.
    pub async fn run(mut self, mut posts: Vec<Post>, directories: Vec<&'static DirectoryCells>) {
        while let Some(envelope) = self.receiver.recv().await {
            let known: Vec<DirectoryId> = self.catalog.directories.iter().map(|known| known.id).collect();
            let serves = |id| directories.iter().any(|cells| cells.id == Some(id) && !cells.is_failed());
            for id in known.into_iter().filter(|id| !serves(*id)) {
                self.catalog.directories.fail(id);
            }
            let decision = self.decide(envelope.command);
            let outcome = self.commit(decision, &mut posts).await;
            let reply = ControlEvent::Reply { request: envelope.request, outcome };
            posts[envelope.shard](reply);
        }
    }

    async fn commit(&mut self, decision: Decision, posts: &mut [Post]) -> ControlOutcome {
        if decision.records.is_empty() {
            return decision.outcome;
        }
        if let Err(error) = self.quorum.propose(decision.records.clone()).await {
            tracing::error!(%error, "the metadata quorum didn't commit; the change is refused");
            return ControlOutcome::NotCommitted;
        }
        decision.records.iter().for_each(|record| self.catalog.apply(record));
        for post in posts {
            let (records, epoch) = (decision.records.clone(), self.catalog.epoch());
            post(ControlEvent::Committed { records, epoch });
        }
        decision.outcome
    }

    /// Pure but for fresh topic ids.
    fn decide(&self, command: ControlCommand) -> Decision {
        match command {
            ControlCommand::CreateTopics { topics, validate_only } => {
                self.decide_each(topics, validate_only, |image, topic| {
                    let created = image.create_topic(&topic, random_id(), self.options.creation)?;
                    let outcome = TopicOutcome {
                        topic: TopicRef { name: topic.name, topic_id: created.topic_id },
                        partitions_count: created.partitions_count,
                        replication_factor: created.replication_factor,
                    };
                    Ok((outcome, created.records))
                })
            }
            ControlCommand::DeleteTopics { topics } => self.decide_each(topics, false, |image, topic| {
                if !topic.name.is_empty() && topic.topic_id != TopicId::NONE {
                    // They may not belong together: nothing is deleted that the client may not mean.
                    let why = "You may not specify both topic name and topic id.";
                    return Err(Refusal::Request(why.to_string()));
                }
                let found = match &topic.name {
                    name if !name.is_empty() => image.topic(name),
                    _ => image.topic_by_id(topic.topic_id),
                };
                let found = found.ok_or(Refusal::UnknownTopic)?;
                let record = image.delete_topic(found.id)?;
                let topic = TopicRef { name: found.name.to_string(), topic_id: found.id };
                Ok((TopicOutcome { topic, partitions_count: 0, replication_factor: 0 }, vec![record]))
            }),
            ControlCommand::CreatePartitions { topics, validate_only } => {
                self.decide_each(topics, validate_only, |image, topic| {
                    let records = image.create_partitions(
                        &topic.name,
                        topic.partitions_count,
                        topic.assignments.as_deref(),
                    )?;
                    let topic = TopicRef { name: topic.name, topic_id: TopicId::NONE };
                    Ok((TopicOutcome { topic, partitions_count: 0, replication_factor: 0 }, records))
                })
            }
            ControlCommand::AlterConfigs { resources, validate_only } => {
                self.decide_each(resources, validate_only, |image, altered| {
                    let record = match &altered.resource {
                        ConfigResource::Topic(name) => image.alter_topic(name, &altered.change)?,
                        ConfigResource::Broker(node) => image.alter_broker(*node, &altered.change)?,
                    };
                    Ok((TopicOutcome::default(), record.into_iter().collect()))
                })
            }
            ControlCommand::ReserveProducerIds => {
                let first = self.catalog.producer_ids_next;
                let next = first + PRODUCER_ID_BLOCK;
                Decision {
                    outcome: ControlOutcome::ProducerIds { first, next },
                    records: vec![MetadataRecord::ProducerIdsReserved { next }],
                }
            }
        }
    }

    /// Decides each item on the image that the items before it leave behind.
    fn decide_each<T>(
        &self,
        items: Vec<T>,
        validate_only: bool,
        decide: impl Fn(&Catalog, T) -> Result<(TopicOutcome, Vec<MetadataRecord>), Refusal>,
    ) -> Decision {
        let mut image = self.catalog.clone();
        let mut records = Vec::new();
        let mut outcomes = Vec::new();
        for item in items {
            outcomes.push(decide(&image, item).map(|(outcome, decided)| {
                decided.iter().for_each(|record| image.apply(record));
                records.extend(decided);
                outcome
            }));
        }
        if validate_only {
            records.clear();
        }
        Decision { outcome: ControlOutcome::Topics(outcomes), records }
    }
}

struct Decision {
    outcome: ControlOutcome,
    records: Vec<MetadataRecord>,
}

/// A random id as Kafka draws them: never one that begins with `-`, which command lines would take
/// for an option.
fn random_id() -> TopicId {
    use std::io::Read;
    loop {
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .expect("/dev/urandom is readable on every Linux");
        // Version 4, variant 1 (RFC 9562).
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = TopicId(bytes);
        if !id.to_base64().starts_with('-') {
            return id;
        }
    }
}
