//! Tests of the coordinator: a group with its log, played by hand and at random.

mod offsets;
mod random;
mod rebalance;
mod refusals;
mod statics;

use super::*;
use crate::protocol::cold::heartbeat_request::HeartbeatRequestData;
use crate::protocol::cold::join_group_request::{JoinGroupRequestData, JoinGroupRequestProtocol};
use crate::protocol::cold::join_group_response::JoinGroupResponseData;
use crate::protocol::cold::leave_group_request::{LeaveGroupRequestData, MemberIdentity};
use crate::protocol::cold::leave_group_response::LeaveGroupResponseData;
use crate::protocol::cold::offset_commit_request::{
    OffsetCommitRequestData, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::protocol::cold::sync_group_request::{SyncGroupRequestAssignment, SyncGroupRequestData};
use crate::protocol::cold::sync_group_response::SyncGroupResponseData;
use crate::protocol::cold::text;
use bytes::Bytes;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;

/// A coordinator, its clock, its log and the answers it gave.
struct Stage {
    coordinator: Coordinator,
    now: MonotonicNs,
    log: Vec<GroupRecord>,
    /// Appends that aren't durable yet, oldest first.
    in_flight: Vec<(PendingId, Vec<GroupRecord>)>,
    answers: BTreeMap<ReplyId, GroupResponse>,
    next_reply: u64,
    /// Appends become durable at once.
    is_prompt: bool,
}

impl Stage {
    fn new(options: Options) -> Self {
        Self {
            coordinator: Coordinator::new(options, 1),
            now: MonotonicNs(1_000_000_000),
            log: Vec::new(),
            in_flight: Vec::new(),
            answers: BTreeMap::new(),
            next_reply: 0,
            is_prompt: true,
        }
    }

    fn wall(&self) -> WallMs {
        WallMs(1_700_000_000_000 + (self.now.0 / 1_000_000) as i64)
    }

    fn play(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { reply, response } => {
                    assert!(reply.0 < self.next_reply, "only what was asked is answered");
                    assert!(self.answers.insert(reply, response).is_none(), "answered once");
                }
                Effect::Append { records, then, .. } => self.in_flight.push((then, records)),
            }
        }
        if self.is_prompt {
            self.flush();
        }
    }

    /// Everything in flight becomes durable, in order.
    fn flush(&mut self) {
        while !self.in_flight.is_empty() {
            self.end_append(Ok(()));
        }
    }

    /// The oldest append ends.
    fn end_append(&mut self, outcome: Result<(), ErrorCode>) {
        let (then, records) = self.in_flight.remove(0);
        if outcome.is_ok() {
            self.log.extend(records);
        }
        let effects = self.coordinator.appended(self.now, self.wall(), then, outcome);
        self.play(effects);
    }

    /// Lets time pass, doing what is due when it is due.
    fn pass_ms(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while let Some(deadline) = self.coordinator.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            let effects = self.coordinator.tick(self.now, self.wall());
            self.play(effects);
        }
        self.now = end;
    }

    fn send(&mut self, version: i16, request: GroupRequest) -> ReplyId {
        let reply = ReplyId(self.next_reply);
        self.next_reply += 1;
        let context = RequestContext { version, client_id: "client", client_host: "/127.0.0.1" };
        let effects = self.coordinator.handle(self.now, self.wall(), context, request, reply);
        self.play(effects);
        reply
    }

    fn ask(&mut self, version: i16, request: GroupRequest) -> GroupResponse {
        let reply = self.send(version, request);
        self.answers.get(&reply).cloned().expect("answered at once")
    }

    fn joined(&self, reply: ReplyId) -> Option<&JoinGroupResponseData> {
        match self.answers.get(&reply)? {
            GroupResponse::Join(response) => Some(response),
            other => panic!("not a JoinGroup response: {other:?}"),
        }
    }

    fn synced(&self, reply: ReplyId) -> Option<&SyncGroupResponseData> {
        match self.answers.get(&reply)? {
            GroupResponse::Sync(response) => Some(response),
            other => panic!("not a SyncGroup response: {other:?}"),
        }
    }

    fn heartbeat(&mut self, generation: i32, member: &str) -> i16 {
        match self.ask(4, heartbeat(generation, member)) {
            GroupResponse::Heartbeat(response) => response.error_code,
            other => panic!("not a Heartbeat response: {other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> LeaveGroupResponseData {
        match self.ask(5, leave(members)) {
            GroupResponse::Leave(response) => response,
            other => panic!("not a LeaveGroup response: {other:?}"),
        }
    }

    /// A member joins as clients do, up to its wait for the others: asks for an id, comes back with it.
    fn enter(&mut self, subscription: &'static str) -> (String, ReplyId) {
        let first = self.send(9, join("", None, subscription));
        let response = self.joined(first).expect("told its id at once");
        assert_eq!(response.error_code, ErrorCode::MemberIdRequired.number());
        let member = response.member_id.to_string();
        let reply = self.send(9, join(&member, None, subscription));
        (member, reply)
    }

    /// A stable group of `count` members; the first is the leader. Each is assigned its own id.
    fn stable(&mut self, count: usize) -> (Vec<String>, i32) {
        let entered: Vec<_> = (0..count).map(|_| self.enter("s")).collect();
        while self.joined(entered[0].1).is_none() {
            self.pass_ms(1000);
        }
        let generation = self.joined(entered[0].1).expect("joined").generation_id;
        let members: Vec<String> = entered.into_iter().map(|(member, _)| member).collect();
        self.sync_all(generation, &members);
        (members, generation)
    }

    fn sync_all(&mut self, generation: i32, members: &[String]) {
        for member in members.iter().rev() {
            let assignments = if *member == members[0] { members } else { &[] };
            self.send(5, sync(generation, member, assignments));
        }
    }

    fn state(&mut self) -> String {
        let request = crate::protocol::cold::describe_groups_request::DescribeGroupsRequestData {
            groups: vec![text("g")],
            ..Default::default()
        };
        match self.ask(6, GroupRequest::Describe(request)) {
            GroupResponse::Describe(response) => response.groups[0].group_state.to_string(),
            other => panic!("not a DescribeGroups response: {other:?}"),
        }
    }

    /// A coordinator made from the log alone.
    fn replayed(&self) -> Coordinator {
        let mut coordinator = Coordinator::new(Options::default(), 2);
        for record in &self.log {
            coordinator.replay(&record.key, record.value.as_deref()).expect("our own record");
        }
        coordinator
    }
}

fn join(member: &str, instance: Option<&str>, subscription: &'static str) -> GroupRequest {
    GroupRequest::Join(JoinGroupRequestData {
        group_id: text("g"),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        member_id: text(member),
        group_instance_id: instance.map(text),
        protocol_type: text("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: text("range"),
            metadata: Bytes::from_static(subscription.as_bytes()),
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// Every member named is assigned its own id.
fn sync(generation: i32, member: &str, members: &[String]) -> GroupRequest {
    let assignment = |member: &String| SyncGroupRequestAssignment {
        member_id: text(member),
        assignment: Bytes::copy_from_slice(member.as_bytes()),
        ..Default::default()
    };
    GroupRequest::Sync(SyncGroupRequestData {
        group_id: text("g"),
        generation_id: generation,
        member_id: text(member),
        protocol_type: Some(text("consumer")),
        protocol_name: Some(text("range")),
        assignments: members.iter().map(assignment).collect(),
        ..Default::default()
    })
}

fn heartbeat(generation: i32, member: &str) -> GroupRequest {
    GroupRequest::Heartbeat(HeartbeatRequestData {
        group_id: text("g"),
        generation_id: generation,
        member_id: text(member),
        ..Default::default()
    })
}

fn leave(members: &[(&str, Option<&str>)]) -> GroupRequest {
    let identity = |(member, instance): &(&str, Option<&str>)| MemberIdentity {
        member_id: text(member),
        group_instance_id: instance.map(text),
        ..Default::default()
    };
    GroupRequest::Leave(LeaveGroupRequestData {
        group_id: text("g"),
        members: members.iter().map(identity).collect(),
        ..Default::default()
    })
}

fn commit(generation: i32, member: &str, partition: i32, offset: i64, metadata: &str) -> GroupRequest {
    GroupRequest::OffsetCommit(OffsetCommitRequestData {
        group_id: text("g"),
        generation_id_or_member_epoch: generation,
        member_id: text(member),
        topics: vec![OffsetCommitRequestTopic {
            name: text("t"),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_metadata: Some(text(metadata)),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// Numbers computed with Java's `String.hashCode`.
#[test]
fn groups_are_placed_as_kafka_places_them() {
    for (id, hash) in [("", 0), ("abc", 96354), ("group", 98_629_247), ("é漢", 233 * 31 + 0x6f22)] {
        assert_eq!(partition_of_group(id, i32::MAX), hash, "{id}");
        assert_eq!(partition_of_group(id, 50), hash % 50, "{id}");
    }
    // A string whose hash is the smallest integer, which has no absolute value.
    assert_eq!(partition_of_group("polygenelubricants", 50), 0);
}
