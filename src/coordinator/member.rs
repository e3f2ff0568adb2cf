//! Member: one consumer of a group.

use super::records::MemberValue;
use super::request::ReplyId;
use crate::base::ids::MonotonicNs;
use bytes::Bytes;

#[derive(Debug)]
pub(super) struct Member {
    /// Ascending with the order of joining; names the member's timer.
    pub number: u64,
    pub id: String,
    /// Of static members (KIP-345).
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub timeouts: Timeouts,
    /// In order of preference.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// A JoinGroup that waits for the others.
    pub join: Option<WaitingJoin>,
    /// A SyncGroup that waits for the leader's assignment.
    pub sync: Option<ReplyId>,
    pub session: Session,
}

/// One way to assign partitions the member knows, with what it tells the leader about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub session_ms: i32,
    pub rebalance_ms: i32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingJoin {
    pub reply: ReplyId,
    pub version: i16,
}

/// When the member is given up. Heartbeats only move `deadline`; the timer follows when it fires.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Session {
    pub deadline: MonotonicNs,
    pub timer_at: Option<MonotonicNs>,
    /// Has joined and doesn't know its id yet: it can't send heartbeats, so its wait is what expires.
    pub is_new: bool,
}

impl Member {
    /// What the member says about itself for `protocol`.
    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let found = self.protocols.iter().find(|known| Some(known.name.as_str()) == protocol);
        found.map(|known| known.metadata.clone()).unwrap_or_default()
    }

    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|known| known.name == protocol)
    }

    /// Waiting members need no heartbeat; new ones expire even so.
    pub fn is_excused(&self) -> bool {
        !self.session.is_new && (self.join.is_some() || self.sync.is_some())
    }

    pub fn to_value(&self, protocol: Option<&str>, assignment: Bytes) -> MemberValue {
        MemberValue {
            id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.timeouts.rebalance_ms,
            session_timeout_ms: self.timeouts.session_ms,
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    pub fn from_value(number: u64, protocol: &str, value: MemberValue) -> Self {
        Self {
            number,
            id: value.id,
            instance_id: value.instance_id,
            client_id: value.client_id,
            client_host: value.client_host,
            timeouts: Timeouts {
                session_ms: value.session_timeout_ms,
                rebalance_ms: value.rebalance_timeout_ms,
            },
            protocols: vec![Protocol { name: protocol.to_owned(), metadata: value.subscription }],
            assignment: value.assignment,
            join: None,
            sync: None,
            session: Session::default(),
        }
    }
}
