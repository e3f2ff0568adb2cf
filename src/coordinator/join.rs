//! Join: how members come in, and the rebalance that follows.

use super::group::{JoinTimer, State};
use super::member::{Member, Protocol, Session, Timeouts, WaitingJoin};
use super::request::{GroupResponse, ReplyId, RequestContext};
use super::work::{Change, Step, TimerKind};
use super::{Coordinator, PENDING_MEMBERS_MAX};
use crate::base::ids::MonotonicNs;
use crate::protocol::cold::join_group_request::JoinGroupRequestData;
use crate::protocol::cold::join_group_response::{JoinGroupResponseData, JoinGroupResponseMember};
use crate::protocol::cold::text;
use crate::protocol::error_code::ErrorCode;
use bytes::Bytes;

/// First version in which a new member is given an id and asked to come back with it (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// First version whose answers may lack a protocol (KIP-559).
const NULL_PROTOCOL_FROM: i16 = 7;
/// First version in which a replaced static leader is told not to assign (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;
/// How long a member that doesn't know its id may wait for its first answer, as in Kafka.
const NEW_MEMBER_TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// Kafka's limit for names of instances.
const INSTANCE_ID_BYTES_MAX: usize = 249;
/// Longest string of a record.
pub(super) const TEXT_BYTES_MAX: usize = i16::MAX as usize;

/// A JoinGroup request, taken apart.
pub(super) struct Joining {
    version: i16,
    reply: ReplyId,
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    timeouts: Timeouts,
    protocol_type: String,
    protocols: Vec<Protocol>,
}

impl Joining {
    fn new(context: RequestContext<'_>, request: JoinGroupRequestData, reply: ReplyId) -> Self {
        // Version 0 has one timeout for both.
        let rebalance_ms = match request.rebalance_timeout_ms {
            -1 => request.session_timeout_ms,
            timeout_ms => timeout_ms.max(0),
        };
        let protocol = |name: &str, metadata: Bytes| Protocol { name: name.to_owned(), metadata };
        Self {
            version: context.version,
            reply,
            member_id: request.member_id.as_str().to_owned(),
            instance_id: request.group_instance_id.as_ref().map(|id| id.as_str().to_owned()),
            client_id: context.client_id.to_owned(),
            client_host: context.client_host.to_owned(),
            timeouts: Timeouts { session_ms: request.session_timeout_ms, rebalance_ms },
            protocol_type: request.protocol_type.as_str().to_owned(),
            protocols: request
                .protocols
                .iter()
                .map(|known| protocol(known.name.as_str(), known.metadata.clone()))
                .collect(),
        }
    }

    fn waiting(&self) -> WaitingJoin {
        WaitingJoin { reply: self.reply, version: self.version }
    }

    /// Names that can't be written into a record are the client's mistake.
    fn has_writable_names(&self) -> bool {
        let names = self.protocols.iter().map(|protocol| &protocol.name).chain([&self.protocol_type]);
        names.chain([&self.client_id, &self.client_host]).all(|name| name.len() <= TEXT_BYTES_MAX)
            && self.instance_id.as_ref().is_none_or(|id| id.len() <= INSTANCE_ID_BYTES_MAX)
    }
}

impl Coordinator {
    pub(super) fn join(
        &mut self,
        context: RequestContext<'_>,
        request: JoinGroupRequestData,
        reply: ReplyId,
    ) {
        let group_id = request.group_id.as_str().to_owned();
        let joining = Joining::new(context, request, reply);
        let member_id = joining.member_id.clone();
        match self.check_join(&group_id, &joining) {
            Ok(()) => {
                let key = self.find_or_create(&group_id);
                self.step(key).join(joining);
                self.drop_if_void(key);
            }
            Err(error) => {
                let response = failed_join(joining.version, &member_id, error);
                self.work.reply(reply, GroupResponse::Join(response));
            }
        }
    }

    fn check_join(&self, group_id: &str, joining: &Joining) -> Result<(), ErrorCode> {
        if group_id.is_empty() || group_id.len() > TEXT_BYTES_MAX {
            return Err(ErrorCode::InvalidGroupId);
        }
        let options = &self.work.options;
        let range = options.session_timeout_ms_min..=options.session_timeout_ms_max;
        if !range.contains(&joining.timeouts.session_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        if !joining.has_writable_names() {
            return Err(ErrorCode::InvalidRequest);
        }
        match self.find(group_id).and_then(|key| self.groups.get(key)) {
            Some(group) if group.state == State::Dead => Err(ErrorCode::CoordinatorNotAvailable),
            None if !joining.member_id.is_empty() => Err(ErrorCode::UnknownMemberId),
            _ => Ok(()),
        }
    }
}

impl Step<'_> {
    fn join(&mut self, joining: Joining) {
        if !self.has_room(&joining.member_id) {
            self.remove_quietly(&joining.member_id);
            return self.refuse(&joining, "", ErrorCode::GroupMaxSizeReached);
        }
        if !self.group.supports(&joining.protocol_type, &joining.protocols) {
            return self.refuse(&joining, &joining.member_id, ErrorCode::InconsistentGroupProtocol);
        }
        if joining.member_id.is_empty() {
            self.join_new(joining);
        } else if self.group.pending_members.contains_key(&joining.member_id) {
            // Only dynamic members are asked to come back.
            if joining.instance_id.is_some() {
                return self.refuse(&joining, &joining.member_id, ErrorCode::UnknownMemberId);
            }
            let member_id = joining.member_id.clone();
            self.add_and_rebalance(member_id, joining);
        } else {
            self.join_again(joining);
        }
    }

    /// Kafka counts those that wait while a rebalance is prepared, so that a group whose limit was
    /// lowered loses the members that come last.
    fn has_room(&self, member_id: &str) -> bool {
        let max = self.work.options.members_count_max;
        let member = self.group.members.get(member_id);
        match self.group.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                member.is_some_and(|member| member.join.is_some()) || self.group.joining_count() < max
            }
            State::CompletingRebalance | State::Stable => member.is_some() || self.group.members.len() < max,
        }
    }

    fn remove_quietly(&mut self, member_id: &str) {
        if let Some(member) = self.group.remove(member_id) {
            self.end_waits_of(member, ErrorCode::UnknownMemberId);
        }
    }

    fn join_new(&mut self, joining: Joining) {
        let prefix = joining.instance_id.as_deref().unwrap_or(&joining.client_id);
        let new_id = self.work.member_id(prefix);
        let old_id = joining.instance_id.as_deref().and_then(|id| self.group.static_member(id));
        if let Some(old_id) = old_id.map(str::to_owned) {
            return self.take_over(&old_id, new_id, joining);
        }
        if joining.instance_id.is_some() || joining.version < MEMBER_ID_REQUIRED_FROM {
            return self.add_and_rebalance(new_id, joining);
        }
        if self.group.pending_members.len() >= PENDING_MEMBERS_MAX {
            return self.refuse(&joining, "", ErrorCode::GroupMaxSizeReached);
        }
        let number = self.group.next_number();
        self.group.pending_members.insert(new_id.clone(), number);
        let at = self.work.now.plus_ms(joining.timeouts.session_ms as u64);
        self.work.add_timer(self.key, TimerKind::Pending(number), at);
        self.refuse(&joining, &new_id, ErrorCode::MemberIdRequired);
    }

    /// A member that has an id sends JoinGroup: since it was told to, since something changed, or since it
    /// missed an answer. The last gets the answer again.
    fn join_again(&mut self, joining: Joining) {
        if let Err(error) = self.group.check_member(&joining.member_id, joining.instance_id.as_deref()) {
            return self.refuse(&joining, &joining.member_id, error);
        }
        let member = &self.group.members[&joining.member_id];
        let is_unchanged = member.protocols == joining.protocols;
        let is_leader = self.group.is_leader(&joining.member_id);
        match self.group.state {
            State::PreparingRebalance => self.update_and_rebalance(joining),
            State::CompletingRebalance if is_unchanged => self.answer_join_again(&joining),
            // The leader comes back when what it assigns from has changed, such as a topic's partitions.
            State::Stable if is_unchanged && !is_leader => self.answer_join_again(&joining),
            State::CompletingRebalance | State::Stable => self.update_and_rebalance(joining),
            State::Empty | State::Dead => {
                self.refuse(&joining, &joining.member_id, ErrorCode::UnknownMemberId);
            }
        }
    }

    fn answer_join_again(&mut self, joining: &Joining) {
        let response = self.joined(&joining.member_id);
        self.work.reply(joining.reply, GroupResponse::Join(response));
    }

    fn add_and_rebalance(&mut self, member_id: String, joining: Joining) {
        if self.group.state == State::PreparingRebalance && self.group.rebalance.is_initial {
            self.group.rebalance.new_member_added = true;
        }
        let number = self.group.next_number();
        let member = Member {
            number,
            id: member_id.clone(),
            instance_id: joining.instance_id.clone(),
            client_id: joining.client_id.clone(),
            client_host: joining.client_host.clone(),
            timeouts: joining.timeouts,
            protocols: joining.protocols.clone(),
            assignment: Bytes::new(),
            join: Some(joining.waiting()),
            sync: None,
            session: Session { is_new: true, ..Session::default() },
        };
        self.group.add(member, &joining.protocol_type);
        self.extend_session(&member_id, NEW_MEMBER_TIMEOUT_MS);
        self.prepare_or_complete();
    }

    fn update_and_rebalance(&mut self, joining: Joining) {
        self.update(&joining.member_id.clone(), joining);
        self.prepare_or_complete();
    }

    /// The member waits again, with what it says about itself now.
    fn update(&mut self, member_id: &str, joining: Joining) {
        let Some(member) = self.group.members.get_mut(member_id) else { return };
        let before = member.join.replace(joining.waiting());
        member.protocols = joining.protocols;
        member.timeouts = joining.timeouts;
        if let Some(before) = before {
            let response = failed_join(before.version, member_id, ErrorCode::RebalanceInProgress);
            self.work.reply(before.reply, GroupResponse::Join(response));
        }
    }

    /// A static member came back without its id: it takes the place of what it was (KIP-345).
    fn take_over(&mut self, old_id: &str, new_id: String, joining: Joining) {
        let old_leader = self.group.leader.clone();
        let Some(old) = self.group.replace_static(old_id, &new_id) else { return };
        self.end_waits_of(old, ErrorCode::FencedInstanceId);
        let (reply, version) = (joining.reply, joining.version);
        let session_ms = joining.timeouts.session_ms as u64;
        self.update(&new_id, joining);
        self.extend_session(&new_id, session_ms);
        match self.group.state {
            State::Stable if self.group.choose_protocol() == self.group.protocol => {
                self.keep_generation(&new_id, old_leader, version, reply);
            }
            State::Stable => self.prepare_or_complete(),
            // The leader may assign to the old id: everyone comes again.
            State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance | State::Empty | State::Dead => self.complete_if_all_joined(),
        }
    }

    /// Nothing changed but an id: no rebalance, the record says so, then the member is answered.
    fn keep_generation(&mut self, member_id: &str, old_leader: Option<String>, version: i16, reply: ReplyId) {
        if let Some(member) = self.group.members.get_mut(member_id) {
            member.join = None;
        }
        let mut response = self.joined(member_id);
        if version >= SKIP_ASSIGNMENT_FROM {
            response.skip_assignment = self.group.is_leader(member_id);
        } else {
            // Older clients assign when they find themselves the leader: they are told of the old one.
            response.leader = text(old_leader.as_deref().unwrap_or(""));
            response.members.clear();
        }
        let record = self.group.make_record(None);
        self.work.append(vec![record], Change::None, vec![(reply, GroupResponse::Join(response))]);
    }

    /// Begins a rebalance, or ends the one that goes on if this was what it waited for.
    pub(super) fn prepare_or_complete(&mut self) {
        match self.group.state {
            State::Empty | State::Stable | State::CompletingRebalance => self.prepare_rebalance(),
            State::PreparingRebalance | State::Dead => self.complete_if_all_joined(),
        }
    }

    pub(super) fn prepare_rebalance(&mut self) {
        if self.group.state == State::CompletingRebalance {
            self.drop_assignments(ErrorCode::RebalanceInProgress);
        }
        self.group.rebalance.sync_timer = None;
        let is_initial = self.group.state == State::Empty;
        self.group.rebalance.is_initial = is_initial;
        self.group.rebalance.new_member_added = false;
        self.group.go(State::PreparingRebalance, self.work.wall);
        if is_initial {
            let delay_ms = self.work.options.initial_rebalance_delay_ms;
            let remaining_ms = self.group.rebalance_timeout_ms().saturating_sub(delay_ms);
            self.set_join_timer(delay_ms, Some((delay_ms, remaining_ms)));
        } else if self.group.all_have_joined() {
            self.complete_join();
        } else {
            self.set_join_timer(self.group.rebalance_timeout_ms(), None);
        }
    }

    fn set_join_timer(&mut self, after_ms: u64, initial: Option<(u64, u64)>) {
        let at = self.work.now.plus_ms(after_ms);
        self.group.rebalance.join_timer = Some(JoinTimer { at, initial });
        self.work.add_timer(self.key, TimerKind::Join, at);
    }

    /// An initial rebalance ends by time alone.
    pub(super) fn complete_if_all_joined(&mut self) {
        let is_preparing = self.group.state == State::PreparingRebalance;
        if is_preparing && !self.group.rebalance.is_initial && self.group.all_have_joined() {
            self.complete_join();
        }
    }

    pub(super) fn join_timer_fired(&mut self, at: MonotonicNs) {
        let Some(timer) = self.group.rebalance.join_timer.filter(|timer| timer.at == at) else { return };
        self.group.rebalance.join_timer = None;
        match timer.initial {
            // Whoever came in meanwhile is given as much time again, up to the rebalance timeout.
            Some((delay_ms, remaining_ms)) if self.group.rebalance.new_member_added && remaining_ms > 0 => {
                self.group.rebalance.new_member_added = false;
                let next_ms = self.work.options.initial_rebalance_delay_ms.min(remaining_ms);
                self.set_join_timer(next_ms, Some((next_ms, remaining_ms.saturating_sub(delay_ms))));
            }
            _ => self.complete_join(),
        }
    }

    /// Closes the door: those that haven't joined are out, the others get the new generation.
    fn complete_join(&mut self) {
        self.group.rebalance.join_timer = None;
        let is_late = |member: &&Member| member.join.is_none() && member.instance_id.is_none();
        let late: Vec<String> =
            self.group.members.values().filter(is_late).map(|member| member.id.clone()).collect();
        for member_id in late {
            self.remove_quietly(&member_id);
        }
        if !self.group.members.is_empty() && !self.group.elect_joined_leader() {
            // Only static members that haven't come again: their sessions decide.
            return self.set_join_timer(self.group.rebalance_timeout_ms(), None);
        }
        self.group.next_generation(self.work.wall);
        if self.group.members.is_empty() {
            let record = self.group.make_record(None);
            return self.work.append(vec![record], Change::None, Vec::new());
        }
        self.answer_joins();
        let at = self.work.now.plus_ms(self.group.rebalance_timeout_ms());
        self.group.rebalance.sync_timer = Some(at);
        self.work.add_timer(self.key, TimerKind::Sync, at);
    }

    fn answer_joins(&mut self) {
        let ids: Vec<String> = self.group.members.keys().cloned().collect();
        for member_id in ids {
            let response = self.joined(&member_id);
            let Some(member) = self.group.members.get_mut(&member_id) else { continue };
            member.session.is_new = false;
            let (waiting, session_ms) = (member.join.take(), member.timeouts.session_ms as u64);
            if let Some(waiting) = waiting {
                self.work.reply(waiting.reply, GroupResponse::Join(response));
            }
            self.group.rebalance.pending_sync.insert(member_id.clone());
            self.extend_session(&member_id, session_ms);
        }
    }

    /// The answer of the current generation; the leader is told of all members.
    fn joined(&self, member_id: &str) -> JoinGroupResponseData {
        let group = &self.group;
        let member = |member: &Member| JoinGroupResponseMember {
            member_id: text(&member.id),
            group_instance_id: member.instance_id.as_deref().map(text),
            metadata: member.metadata(group.protocol.as_deref()),
            ..Default::default()
        };
        let members = if group.is_leader(member_id) {
            group.members.values().map(member).collect()
        } else {
            Vec::new()
        };
        JoinGroupResponseData {
            generation_id: group.generation,
            protocol_type: Some(text(&group.protocol_type)),
            protocol_name: Some(text(group.protocol.as_deref().unwrap_or(""))),
            leader: text(group.leader.as_deref().unwrap_or("")),
            member_id: text(member_id),
            members,
            ..Default::default()
        }
    }

    fn refuse(&mut self, joining: &Joining, member_id: &str, error: ErrorCode) {
        let response = failed_join(joining.version, member_id, error);
        self.work.reply(joining.reply, GroupResponse::Join(response));
    }
}

pub(super) fn failed_join(version: i16, member_id: &str, error: ErrorCode) -> JoinGroupResponseData {
    JoinGroupResponseData {
        error_code: error.number(),
        protocol_name: (version < NULL_PROTOCOL_FROM).then(|| text("")),
        member_id: text(member_id),
        ..Default::default()
    }
}
