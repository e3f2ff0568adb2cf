//! Sync: how an assignment reaches the members, and how members stay and go.

use super::Coordinator;
use super::group::State;
use super::join::failed_join;
use super::member::Member;
use super::request::{GroupResponse, ReplyId, RequestContext};
use super::work::{Change, Step, TimerKind};
use crate::base::ids::MonotonicNs;
use crate::protocol::cold::heartbeat_request::HeartbeatRequestData;
use crate::protocol::cold::heartbeat_response::HeartbeatResponseData;
use crate::protocol::cold::leave_group_request::{LeaveGroupRequestData, MemberIdentity};
use crate::protocol::cold::leave_group_response::{LeaveGroupResponseData, MemberResponse};
use crate::protocol::cold::sync_group_request::SyncGroupRequestData;
use crate::protocol::cold::sync_group_response::SyncGroupResponseData;
use crate::protocol::cold::{KafkaString, text};
use crate::protocol::error_code::ErrorCode;
use bytes::Bytes;
use std::collections::BTreeMap;

/// First version of LeaveGroup that names several members (KIP-345).
const LEAVE_MEMBERS_FROM: i16 = 3;

impl Coordinator {
    pub(super) fn sync(&mut self, request: SyncGroupRequestData, reply: ReplyId) {
        match self.find_live(request.group_id.as_str()) {
            Ok(key) => self.step(key).sync(request, reply),
            Err(error) => self.work.reply(reply, GroupResponse::Sync(failed_sync(error))),
        }
    }

    pub(super) fn heartbeat(&mut self, request: &HeartbeatRequestData, reply: ReplyId) {
        let beat =
            self.find_live(request.group_id.as_str()).and_then(|key| self.step(key).heartbeat(request));
        let error = beat.err().unwrap_or(ErrorCode::None);
        let response = HeartbeatResponseData { error_code: error.number(), ..Default::default() };
        self.work.reply(reply, GroupResponse::Heartbeat(response));
    }

    pub(super) fn leave(
        &mut self,
        context: RequestContext<'_>,
        request: &LeaveGroupRequestData,
        reply: ReplyId,
    ) {
        let key = match self.find_live(request.group_id.as_str()) {
            Ok(key) => key,
            Err(error) => {
                let response = LeaveGroupResponseData { error_code: error.number(), ..Default::default() };
                return self.work.reply(reply, GroupResponse::Leave(response));
            }
        };
        let mut response = LeaveGroupResponseData::default();
        if context.version >= LEAVE_MEMBERS_FROM {
            response.members = self.step(key).leave(&request.members);
        } else {
            let only = MemberIdentity { member_id: request.member_id.clone(), ..Default::default() };
            response.error_code = self.step(key).leave(&[only])[0].error_code;
        }
        self.work.reply_after_append(reply, GroupResponse::Leave(response));
        self.drop_if_void(key);
    }
}

impl Step<'_> {
    /// After a replay: everyone has one session to be heard of.
    pub(super) fn start(&mut self) {
        let sessions: Vec<(String, u64)> = self
            .group
            .members
            .values()
            .map(|member| (member.id.clone(), u64::try_from(member.timeouts.session_ms).unwrap_or(0)))
            .collect();
        for (member_id, session_ms) in sessions {
            self.extend_session(&member_id, session_ms);
        }
        if self.group.members.len() > self.work.options.members_count_max {
            self.prepare_rebalance();
        }
    }

    fn sync(&mut self, request: SyncGroupRequestData, reply: ReplyId) {
        if let Err(error) = self.check_sync(&request) {
            return self.work.reply(reply, GroupResponse::Sync(failed_sync(error)));
        }
        let member_id = request.member_id.as_str();
        self.group.rebalance.pending_sync.remove(member_id);
        if self.group.rebalance.pending_sync.is_empty() {
            self.group.rebalance.sync_timer = None;
        }
        if self.group.state == State::Stable {
            let response = self.synced(member_id);
            return self.work.reply(reply, GroupResponse::Sync(response));
        }
        let Some(member) = self.group.members.get_mut(member_id) else { return };
        if let Some(before) = member.sync.replace(reply) {
            let response = failed_sync(ErrorCode::RebalanceInProgress);
            self.work.reply(before, GroupResponse::Sync(response));
        }
        if self.group.is_leader(member_id) {
            self.store_assignment(&request);
        }
    }

    fn check_sync(&self, request: &SyncGroupRequestData) -> Result<(), ErrorCode> {
        let instance_id = request.group_instance_id.as_ref().map(KafkaString::as_str);
        self.group.check_member(request.member_id.as_str(), instance_id)?;
        if request.generation_id != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |said: &Option<KafkaString>, is: Option<&str>| {
            said.as_ref().is_some_and(|said| Some(said.as_str()) != is)
        };
        if differs(&request.protocol_type, Some(&self.group.protocol_type))
            || differs(&request.protocol_name, self.group.protocol.as_deref())
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.group.state {
            State::Empty | State::Dead => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// The leader has assigned. Members hear of it once it is durable.
    fn store_assignment(&mut self, request: &SyncGroupRequestData) {
        let mut assignments: BTreeMap<String, Bytes> =
            self.group.members.keys().map(|id| (id.clone(), Bytes::new())).collect();
        for assignment in &request.assignments {
            if let Some(place) = assignments.get_mut(assignment.member_id.as_str()) {
                *place = assignment.assignment.clone();
            }
        }
        let record = self.group.make_record(Some(&assignments));
        let generation = self.group.generation;
        let change = Change::Assignment { group: self.key, generation, assignments };
        self.work.append(vec![record], change, Vec::new());
    }

    pub(super) fn assignment_appended(
        &mut self,
        generation: i32,
        assignments: BTreeMap<String, Bytes>,
        outcome: Result<(), ErrorCode>,
    ) {
        // Someone may have joined or left meanwhile: then a newer generation is on its way.
        if self.group.state != State::CompletingRebalance || self.group.generation != generation {
            return;
        }
        if let Err(error) = outcome {
            self.drop_assignments(error);
            return self.prepare_or_complete();
        }
        self.group.go(State::Stable, self.work.wall);
        for (member_id, assignment) in assignments {
            if let Some(member) = self.group.members.get_mut(&member_id) {
                member.assignment = assignment;
            }
        }
        self.answer_syncs(None);
    }

    /// Nobody has an assignment any more; those that wait for one are told `error`.
    pub(super) fn drop_assignments(&mut self, error: ErrorCode) {
        self.group.members.values_mut().for_each(|member| member.assignment = Bytes::new());
        self.answer_syncs(Some(error));
    }

    fn answer_syncs(&mut self, error: Option<ErrorCode>) {
        let ids: Vec<String> = self.group.members.keys().cloned().collect();
        for member_id in ids {
            let response = error.map_or_else(|| self.synced(&member_id), failed_sync);
            let Some(member) = self.group.members.get_mut(&member_id) else { continue };
            let session_ms = member.timeouts.session_ms as u64;
            if let Some(reply) = member.sync.take() {
                self.work.reply(reply, GroupResponse::Sync(response));
                // While it waited its session could have passed unseen.
                self.extend_session(&member_id, session_ms);
            }
        }
    }

    fn synced(&self, member_id: &str) -> SyncGroupResponseData {
        let member = self.group.members.get(member_id);
        SyncGroupResponseData {
            protocol_type: Some(text(&self.group.protocol_type)),
            protocol_name: Some(text(self.group.protocol.as_deref().unwrap_or(""))),
            assignment: member.map(|member| member.assignment.clone()).unwrap_or_default(),
            ..Default::default()
        }
    }

    fn heartbeat(&mut self, request: &HeartbeatRequestData) -> Result<(), ErrorCode> {
        let member_id = request.member_id.as_str();
        let instance_id = request.group_instance_id.as_ref().map(KafkaString::as_str);
        self.group.check_member(member_id, instance_id)?;
        if request.generation_id != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.group.state {
            State::Empty | State::Dead => return Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.heard_of(member_id);
            }
        }
        if self.group.state == State::PreparingRebalance {
            Err(ErrorCode::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    /// The member lives: its session begins anew.
    pub(super) fn heard_of(&mut self, member_id: &str) {
        if let Some(member) = self.group.members.get(member_id) {
            let session_ms = member.timeouts.session_ms as u64;
            self.extend_session(member_id, session_ms);
        }
    }

    pub(super) fn extend_session(&mut self, member_id: &str, timeout_ms: u64) {
        let Some(member) = self.group.members.get_mut(member_id) else { return };
        let deadline = self.work.now.plus_ms(timeout_ms);
        member.session.deadline = deadline;
        // A timer that fires too early finds the deadline moved and follows it.
        if member.session.timer_at.is_none_or(|at| deadline < at) {
            member.session.timer_at = Some(deadline);
            self.work.add_timer(self.key, TimerKind::Session(member.number), deadline);
        }
    }

    pub(super) fn session_timer_fired(&mut self, number: u64, at: MonotonicNs) {
        let Some(member) = self.group.members.values_mut().find(|member| member.number == number) else {
            return;
        };
        if member.session.timer_at != Some(at) {
            return;
        }
        member.session.timer_at = None;
        if member.session.deadline > at {
            let deadline = member.session.deadline;
            member.session.timer_at = Some(deadline);
            return self.work.add_timer(self.key, TimerKind::Session(number), deadline);
        }
        // An excused member gets a new session with its answer.
        if !member.is_excused() {
            let member_id = member.id.clone();
            self.remove(&member_id);
            self.after_removal();
        }
    }

    pub(super) fn pending_member_expired(&mut self, number: u64) {
        let before = self.group.pending_members.len();
        self.group.pending_members.retain(|_, pending| *pending != number);
        if self.group.pending_members.len() < before {
            self.complete_if_all_joined();
        }
    }

    /// Members that joined and never asked for their assignment are out.
    pub(super) fn sync_timer_fired(&mut self, at: MonotonicNs) {
        if self.group.rebalance.sync_timer != Some(at) {
            return;
        }
        self.group.rebalance.sync_timer = None;
        let is_running = matches!(self.group.state, State::CompletingRebalance | State::Stable);
        let late = std::mem::take(&mut self.group.rebalance.pending_sync);
        if is_running && !late.is_empty() {
            late.iter().for_each(|member_id| self.remove(member_id));
            self.prepare_rebalance();
        }
    }

    fn leave(&mut self, leaving: &[MemberIdentity]) -> Vec<MemberResponse> {
        let mut responses = Vec::with_capacity(leaving.len());
        let mut has_left = false;
        for identity in leaving {
            let left = self.leave_one(identity);
            has_left |= left.is_ok();
            responses.push(MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code: left.err().unwrap_or(ErrorCode::None).number(),
                ..Default::default()
            });
        }
        if has_left {
            self.after_removal();
        }
        responses
    }

    fn leave_one(&mut self, identity: &MemberIdentity) -> Result<(), ErrorCode> {
        let member_id = identity.member_id.as_str();
        let instance_id = identity.group_instance_id.as_ref().map(KafkaString::as_str);
        if member_id.is_empty() {
            // Tools remove a static member by its instance alone.
            let found = instance_id.and_then(|id| self.group.static_member(id)).map(str::to_owned);
            self.remove(&found.ok_or(ErrorCode::UnknownMemberId)?);
            return Ok(());
        }
        if self.group.pending_members.remove(member_id).is_some() {
            return Ok(());
        }
        self.group.check_member(member_id, instance_id)?;
        self.remove(member_id);
        Ok(())
    }

    /// Takes a member out and ends what it waits for. The rebalance is the caller's.
    fn remove(&mut self, member_id: &str) {
        if let Some(member) = self.group.remove(member_id) {
            self.end_waits_of(member, ErrorCode::UnknownMemberId);
        }
    }

    fn after_removal(&mut self) {
        match self.group.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance => self.complete_if_all_joined(),
            State::Empty | State::Dead => {}
        }
    }

    pub(super) fn end_waits_of(&mut self, member: Member, error: ErrorCode) {
        if let Some(waiting) = member.join {
            // Without its id an expired member joins anew; a fenced one is told who it was.
            let id = if error == ErrorCode::UnknownMemberId { "" } else { member.id.as_str() };
            let response = failed_join(waiting.version, id, error);
            self.work.reply(waiting.reply, GroupResponse::Join(response));
        }
        if let Some(reply) = member.sync {
            self.work.reply(reply, GroupResponse::Sync(failed_sync(error)));
        }
    }

    /// Ends everything that waits in the group.
    pub(super) fn end_waits(&mut self, error: ErrorCode) {
        for member in std::mem::take(&mut self.group.members).into_values() {
            self.end_waits_of(member, error);
        }
    }
}

fn failed_sync(error: ErrorCode) -> SyncGroupResponseData {
    SyncGroupResponseData { error_code: error.number(), ..Default::default() }
}
