//! Mail: what shards, the control thread and workers say to a shard. Everything is moved, nothing
//! shared.
//!
//! Each pair has its own bounded queue. When a queue is full the sender keeps the mail and tries
//! again every turn; what it keeps is bounded by the requests in flight of its connections.

use std::collections::VecDeque;

use super::command::{PartitionCommand, PartitionOutcome, PlanId};
use super::groups::GroupMail;
use super::stream::StreamWindow;
use super::trace::Times;
use crate::base::ids::{DirectoryId, ShardId, TopicPartition};
use crate::base::queue::{Receiver, Sender};
use crate::base::slab::Key;
use crate::control::command::ControlEvent;
use crate::coordinator::GroupResponse;
use crate::partition::append::AppendRefusal;
use crate::partition::waiters::ReplyTo;
use crate::ring::Waker;

#[derive(Debug)]
pub enum Mail {
    /// Of the control thread.
    Control(ControlEvent),
    /// A command for a partition of the receiving shard, which needs the catalog at `epoch`.
    Command {
        reply_to: ReplyTo,
        epoch: u64,
        target: TopicPartition,
        command: PartitionCommand,
    },
    /// The answer to a `Command` of the receiving shard.
    Outcome {
        request: Key,
        part: u32,
        outcome: PartitionOutcome,
        times: Times,
    },
    /// A fetch of the receiving shard may get further: a partition it waits for moved.
    Progress {
        request: Key,
    },
    /// The next window of a plan that the receiving shard holds, and its answer.
    Window {
        plan: PlanId,
        bytes_max: usize,
        reply_to: ReplyTo,
    },
    WindowDone {
        request: Key,
        window: Option<StreamWindow>,
        times: Times,
    },
    /// A plan that the receiving shard holds is done with.
    Release {
        plan: PlanId,
    },
    /// A request about groups whose coordinators are on the receiving shard.
    Group {
        reply_to: ReplyTo,
        epoch: u64,
        mail: Box<GroupMail>,
    },
    GroupReply {
        request: Key,
        part: u32,
        response: Box<GroupResponse>,
    },
    /// A lane on another shard failed, and with it the whole log directory: why.
    DirectoryFailed {
        directory: DirectoryId,
        what: String,
    },
    /// The worker is done with the batch that the partition waits for.
    Recompressed {
        target: TopicPartition,
        batch: Result<Vec<u8>, AppendRefusal>,
    },
    /// Stop: answer what is in flight, make everything durable, end.
    Stop,
}

/// Mails that one queue holds; a turn's worth of requests to one peer.
pub const QUEUE_MAILS: usize = 1024;

/// The way to one other shard.
pub struct Peer {
    pub sender: Sender<Mail>,
    pub waker: Waker,
}

pub struct Mailbox {
    own: ShardId,
    /// By shard; `None` at our own place.
    peers: Vec<Option<Peer>>,
    kept: Vec<VecDeque<Mail>>,
    posted: Vec<bool>,
    /// From every other shard, the control thread and the workers.
    receivers: Vec<Receiver<Mail>>,
}

impl Mailbox {
    pub fn new(own: ShardId, peers: Vec<Option<Peer>>, receivers: Vec<Receiver<Mail>>) -> Self {
        let kept = peers.iter().map(|_| VecDeque::new()).collect();
        let posted = vec![false; peers.len()];
        Self { own, peers, kept, posted, receivers }
    }

    pub fn shards_count(&self) -> usize {
        self.peers.len()
    }

    /// Sends at the end of the turn at the latest; mails of one pair keep their order.
    pub fn post(&mut self, to: ShardId, mail: Mail) {
        assert!(to != self.own, "a shard talks to itself by calls");
        let to = usize::from(to.0);
        self.kept[to].push_back(mail);
        self.posted[to] = true;
    }

    /// Hands over what was posted and wakes the receivers. Called once per turn.
    pub fn flush(&mut self) {
        for (to, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            let mut handed_over = false;
            while let Some(mail) = self.kept[to].pop_front() {
                if let Err(mail) = peer.sender.try_send(mail) {
                    self.kept[to].push_front(mail);
                    break;
                }
                handed_over = true;
            }
            if handed_over {
                peer.waker.wake();
            }
            self.posted[to] = !self.kept[to].is_empty();
        }
    }

    /// Mail waits that a full queue didn't take: the shard must not sleep for long.
    pub fn is_backed_up(&self) -> bool {
        self.posted.iter().any(|posted| *posted)
    }

    /// Nothing to receive. Checked between announcing a sleep and sleeping.
    pub fn is_empty(&mut self) -> bool {
        self.receivers.iter_mut().all(|receiver| receiver.is_empty())
    }

    /// The next mail of anyone.
    pub fn receive(&mut self) -> Option<Mail> {
        self.receivers.iter_mut().find_map(|receiver| receiver.try_receive())
    }
}
