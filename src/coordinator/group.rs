//! Group: members under one generation, and where they are in their partitions. Pure data and its rules.

use super::member::{Member, Protocol};
use super::offsets::Offsets;
use super::records::{GroupRecord, GroupValue, group_record};
use crate::base::ids::{MonotonicNs, WallMs};
use crate::protocol::error_code::ErrorCode;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    /// Its deletion isn't durable yet.
    Dead,
}

impl State {
    /// Kafka's name, as tools print it and filters write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

#[derive(Debug)]
pub(super) struct Group {
    pub id: String,
    pub state: State,
    /// Since when, by the wall clock.
    state_ms: i64,
    pub protocol_type: String,
    /// The chosen protocol; `None` while there is no generation.
    pub protocol: Option<String>,
    pub generation: i32,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// Member ids of static members by their instance id.
    statics: BTreeMap<String, String>,
    /// Ids given away (KIP-394), with the number of their timer.
    pub pending_members: BTreeMap<String, u64>,
    pub rebalance: Rebalance,
    pub offsets: Offsets,
    /// Commits whose records aren't durable yet.
    pub commits_in_flight: u32,
    /// The log has a record of the group itself.
    has_record: bool,
    next_number: u64,
}

/// What a rebalance waits for.
#[derive(Debug, Default)]
pub(super) struct Rebalance {
    /// The first of a group: it waits for more members.
    pub is_initial: bool,
    pub new_member_added: bool,
    pub join_timer: Option<JoinTimer>,
    pub sync_timer: Option<MonotonicNs>,
    /// Members of the generation that haven't synced.
    pub pending_sync: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JoinTimer {
    pub at: MonotonicNs,
    /// Of an initial rebalance: the delay that ends now and what may be added.
    pub initial: Option<(u64, u64)>,
}

impl Group {
    pub fn new(id: String) -> Self {
        Self {
            id,
            state: State::Empty,
            state_ms: -1,
            protocol_type: String::new(),
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            rebalance: Rebalance::default(),
            offsets: Offsets::default(),
            commits_in_flight: 0,
            has_record: false,
            next_number: 0,
        }
    }

    pub fn go(&mut self, state: State, wall: WallMs) {
        self.state = state;
        self.state_ms = wall.0;
    }

    /// Neither the log nor a client knows of it.
    pub fn is_void(&self) -> bool {
        !self.is_visible() && self.pending_members.is_empty() && self.commits_in_flight == 0
    }

    /// Has members or something durable.
    pub fn is_visible(&self) -> bool {
        !self.members.is_empty() || self.has_record || !self.offsets.is_empty() || self.state != State::Empty
    }

    pub fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub fn static_member(&self, instance_id: &str) -> Option<&str> {
        self.statics.get(instance_id).map(String::as_str)
    }

    /// Errors: `UnknownMemberId`; `FencedInstanceId` when another member took over the instance.
    pub fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_member(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current != member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    pub fn add(&mut self, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            protocol_type.clone_into(&mut self.protocol_type);
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), member.id.clone());
        }
        self.pending_members.remove(&member.id);
        self.members.insert(member.id.clone(), member);
    }

    pub fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.pending_members.remove(member_id);
        self.rebalance.pending_sync.remove(member_id);
        let member = self.members.remove(member_id)?;
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.oldest(|_| true);
        }
        Some(member)
    }

    /// The member that joined first among those that fit.
    fn oldest(&self, fits: impl Fn(&Member) -> bool) -> Option<String> {
        let fitting = self.members.values().filter(|member| fits(member));
        fitting.min_by_key(|member| member.number).map(|member| member.id.clone())
    }

    /// Whether a member with these protocols can be among the others.
    pub fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let is_common =
            |protocol: &Protocol| self.members.values().all(|member| member.supports(&protocol.name));
        self.protocol_type == protocol_type && protocols.iter().any(is_common)
    }

    pub fn all_have_joined(&self) -> bool {
        self.pending_members.is_empty() && self.members.values().all(|member| member.join.is_some())
    }

    pub fn joining_count(&self) -> usize {
        self.members.values().filter(|member| member.join.is_some()).count()
    }

    /// The longest of the members' rebalance timeouts.
    pub fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.timeouts.rebalance_ms).max();
        u64::try_from(longest.unwrap_or(0)).unwrap_or(0)
    }

    /// Keeps the leader if it has joined again, else chooses another that has; `false` if none has.
    pub fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |id: &String| self.members.get(id).is_some_and(|member| member.join.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let Some(other) = self.oldest(|member| member.join.is_some()) else { return false };
            self.leader = Some(other);
        }
        true
    }

    /// Begins the next generation with the members that are here.
    pub fn next_generation(&mut self, wall: WallMs) {
        // The largest generation is followed by 1; -1 and 0 have meanings of their own.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.choose_protocol();
        let is_empty = self.members.is_empty();
        self.go(if is_empty { State::Empty } else { State::CompletingRebalance }, wall);
        self.rebalance.pending_sync.clear();
    }

    /// Every member votes for the first it likes among those all know. Ties go to the leader's liking.
    pub fn choose_protocol(&self) -> Option<String> {
        let leader = self.members.get(self.leader.as_deref()?)?;
        let is_common =
            |protocol: &&Protocol| self.members.values().all(|member| member.supports(&protocol.name));
        let candidates: Vec<&str> =
            leader.protocols.iter().filter(is_common).map(|protocol| protocol.name.as_str()).collect();
        let mut votes = vec![0usize; candidates.len()];
        for member in self.members.values() {
            let place = |protocol: &Protocol| candidates.iter().position(|name| *name == protocol.name);
            if let Some(place) = member.protocols.iter().find_map(place) {
                votes[place] += 1;
            }
        }
        let most = *votes.iter().max()?;
        let winner = votes.iter().position(|count| *count == most)?;
        Some(candidates[winner].to_owned())
    }

    /// Puts `new_id` in the place of a static member and returns what it was.
    pub fn replace_static(&mut self, old_id: &str, new_id: &str) -> Option<Member> {
        let mut old = self.members.remove(old_id)?;
        let number = self.next_number();
        let new = Member {
            number,
            id: new_id.to_owned(),
            instance_id: old.instance_id.clone(),
            client_id: old.client_id.clone(),
            client_host: old.client_host.clone(),
            timeouts: old.timeouts,
            protocols: std::mem::take(&mut old.protocols),
            assignment: old.assignment.clone(),
            join: None,
            sync: None,
            session: Default::default(),
        };
        if let Some(instance_id) = &new.instance_id {
            self.statics.insert(instance_id.clone(), new_id.to_owned());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.to_owned());
        }
        if self.rebalance.pending_sync.remove(old_id) {
            self.rebalance.pending_sync.insert(new_id.to_owned());
        }
        self.members.insert(new_id.to_owned(), new);
        Some(old)
    }

    /// The group's record, with `assignments` instead of the members' own where given.
    pub fn make_record(&mut self, assignments: Option<&BTreeMap<String, Bytes>>) -> GroupRecord {
        self.has_record = true;
        let protocol = self.protocol.as_deref();
        let assignment = |member: &Member| match assignments {
            Some(given) => given.get(&member.id).cloned().unwrap_or_default(),
            None => member.assignment.clone(),
        };
        let value = GroupValue {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_ms: self.state_ms,
            members: self
                .members
                .values()
                .map(|member| member.to_value(protocol, assignment(member)))
                .collect(),
        };
        group_record(&self.id, Some(&value))
    }

    /// Becomes what its last record says; offsets have records of their own.
    pub fn restore(&mut self, value: Option<GroupValue>) {
        let offsets = std::mem::take(&mut self.offsets);
        *self = Self::new(std::mem::take(&mut self.id));
        self.offsets = offsets;
        let Some(value) = value else { return };
        self.has_record = true;
        self.state = if value.members.is_empty() { State::Empty } else { State::Stable };
        self.state_ms = value.state_ms;
        self.protocol_type = value.protocol_type;
        self.generation = value.generation;
        self.leader = value.leader;
        for member in value.members {
            let number = self.next_number();
            let member = Member::from_value(number, value.protocol.as_deref().unwrap_or(""), member);
            if let Some(instance_id) = &member.instance_id {
                self.statics.insert(instance_id.clone(), member.id.clone());
            }
            self.members.insert(member.id.clone(), member);
        }
        self.protocol = value.protocol;
    }
}
