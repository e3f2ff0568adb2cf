//! Describe: what tools are told of groups, and how they delete them.

use super::Coordinator;
use super::group::{Group, State};
use super::member::Member;
use super::records::{group_record, offset_record};
use super::request::{GroupResponse, ReplyId, RequestContext};
use super::work::Change;
use crate::base::slab::Key;
use crate::protocol::cold::delete_groups_request::DeleteGroupsRequestData;
use crate::protocol::cold::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponseData};
use crate::protocol::cold::describe_groups_request::DescribeGroupsRequestData;
use crate::protocol::cold::describe_groups_response::{
    DescribeGroupsResponseData, DescribedGroup, DescribedGroupMember,
};
use crate::protocol::cold::list_groups_request::ListGroupsRequestData;
use crate::protocol::cold::list_groups_response::{ListGroupsResponseData, ListedGroup};
use crate::protocol::cold::{KafkaString, text};
use crate::protocol::error_code::ErrorCode;
use bytes::Bytes;

/// The one kind of group there is here (KIP-848).
const TYPE: &str = "classic";
/// First version of DescribeGroups that says a group doesn't exist (KIP-1043).
const NOT_FOUND_FROM: i16 = 6;

impl Coordinator {
    pub(super) fn list(&mut self, request: &ListGroupsRequestData, reply: ReplyId) {
        let matches = |filter: &[KafkaString], value: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.as_str().eq_ignore_ascii_case(value))
        };
        let is_wanted = |group: &&Group| {
            group.is_visible()
                && matches(&request.states_filter, group.state.name())
                && matches(&request.types_filter, TYPE)
        };
        let listed = |group: &Group| ListedGroup {
            group_id: text(&group.id),
            protocol_type: text(&group.protocol_type),
            group_state: text(group.state.name()),
            group_type: text(TYPE),
            ..Default::default()
        };
        let groups = self.names.values().filter_map(|key| self.groups.get(*key));
        let groups = groups.filter(is_wanted).map(listed).collect();
        let response = ListGroupsResponseData { groups, ..Default::default() };
        self.work.reply(reply, GroupResponse::List(response));
    }

    pub(super) fn describe(
        &mut self,
        context: RequestContext<'_>,
        request: &DescribeGroupsRequestData,
        reply: ReplyId,
    ) {
        let describe = |id: &KafkaString| {
            let group = self.find(id.as_str()).and_then(|key| self.groups.get(key));
            match group.filter(|group| group.is_visible()) {
                Some(group) => described(group),
                None => unknown(context.version, id),
            }
        };
        let groups = request.groups.iter().map(describe).collect();
        let response = DescribeGroupsResponseData { groups, ..Default::default() };
        self.work.reply(reply, GroupResponse::Describe(response));
    }

    pub(super) fn delete(&mut self, request: &DeleteGroupsRequestData, reply: ReplyId) {
        let mut response = DeleteGroupsResponseData::default();
        let mut groups = Vec::new();
        let mut records = Vec::new();
        for id in &request.groups_names {
            let checked = self.check_deletion(id.as_str());
            if let Ok(key) = checked {
                let group = self.groups.get_mut(key).expect("just found");
                group.go(State::Dead, self.work.wall);
                let offsets = group.offsets.iter();
                records.extend(
                    offsets.map(|(topic, partition, _)| offset_record(&group.id, topic, partition, None)),
                );
                records.push(group_record(&group.id, None));
                groups.push(key);
            }
            response.results.push(DeletableGroupResult {
                group_id: id.clone(),
                error_code: checked.err().unwrap_or(ErrorCode::None).number(),
                ..Default::default()
            });
        }
        let response = GroupResponse::Delete(response);
        if groups.is_empty() {
            return self.work.reply(reply, response);
        }
        self.work.append(records, Change::Deleted { groups }, vec![(reply, response)]);
    }

    fn check_deletion(&self, id: &str) -> Result<Key, ErrorCode> {
        if id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let key = self.find(id).ok_or(ErrorCode::GroupIdNotFound)?;
        let group = self.groups.get(key).expect("named groups exist");
        match group.state {
            State::Dead => Err(ErrorCode::GroupIdNotFound),
            State::Empty if !group.is_visible() && group.commits_in_flight == 0 => {
                Err(ErrorCode::GroupIdNotFound)
            }
            // Offsets on their way into the log would outlive the tombstones in front of them: retry.
            State::Empty if group.commits_in_flight > 0 => Err(ErrorCode::CoordinatorLoadInProgress),
            State::Empty if group.pending_members.is_empty() => Ok(key),
            _ => Err(ErrorCode::NonEmptyGroup),
        }
    }

    pub(super) fn settle_deletion(&mut self, groups: &[Key], outcome: Result<(), ErrorCode>) {
        for key in groups {
            match outcome {
                Ok(()) => {
                    if let Some(group) = self.groups.remove(*key) {
                        self.names.remove(&group.id);
                    }
                }
                Err(_) => {
                    if let Some(group) = self.groups.get_mut(*key) {
                        group.go(State::Empty, self.work.wall);
                    }
                }
            }
        }
    }
}

fn described(group: &Group) -> DescribedGroup {
    let is_stable = group.state == State::Stable;
    let protocol = group.protocol.as_deref().filter(|_| is_stable);
    let member = |member: &Member| DescribedGroupMember {
        member_id: text(&member.id),
        group_instance_id: member.instance_id.as_deref().map(text),
        client_id: text(&member.client_id),
        client_host: text(&member.client_host),
        member_metadata: protocol.map_or_else(Bytes::new, |protocol| member.metadata(Some(protocol))),
        member_assignment: member.assignment.clone(),
        ..Default::default()
    };
    DescribedGroup {
        group_id: text(&group.id),
        group_state: text(group.state.name()),
        protocol_type: text(&group.protocol_type),
        protocol_data: text(protocol.unwrap_or("")),
        members: group.members.values().map(member).collect(),
        ..Default::default()
    }
}

fn unknown(version: i16, id: &KafkaString) -> DescribedGroup {
    let mut group =
        DescribedGroup { group_id: id.clone(), group_state: text(State::Dead.name()), ..Default::default() };
    if version >= NOT_FOUND_FROM {
        group.error_code = ErrorCode::GroupIdNotFound.number();
        group.error_message = Some(text(&format!("Group {id} not found.")));
    }
    group
}
