//! Offsets: where groups are in their partitions.

use super::Coordinator;
use super::group::{Group, State};
use super::join::TEXT_BYTES_MAX;
use super::records::{CommittedOffset, offset_record};
use super::request::{GroupResponse, ReplyId, RequestContext};
use super::work::Change;
use crate::base::slab::Key;
use crate::protocol::cold::offset_commit_request::{OffsetCommitRequestData, OffsetCommitRequestPartition};
use crate::protocol::cold::offset_commit_response::{
    OffsetCommitResponseData, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::protocol::cold::offset_fetch_request::{
    OffsetFetchRequestData, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use crate::protocol::cold::offset_fetch_response::{
    OffsetFetchResponseData, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::protocol::cold::{KafkaString, KafkaUuid, text};
use crate::protocol::error_code::ErrorCode;
use std::collections::BTreeMap;

/// First version of OffsetCommit that knows of groups that don't exist (KIP-848).
const GROUP_NOT_FOUND_FROM: i16 = 9;
/// First version of OffsetFetch that asks for several groups (KIP-709).
const GROUPS_FROM: i16 = 8;
/// First version of OffsetFetch that can ask for all topics.
const ALL_TOPICS_FROM: i16 = 2;
/// Longest name of a topic.
const TOPIC_BYTES_MAX: usize = 249;

/// The durable offsets of one group.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Offsets {
    by_topic: BTreeMap<String, BTreeMap<i32, CommittedOffset>>,
}

/// One partition of a commit.
#[derive(Debug)]
pub(super) struct Commit {
    pub topic: String,
    pub partition: i32,
    pub offset: CommittedOffset,
}

impl Offsets {
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub fn set(&mut self, topic: String, partition: i32, offset: Option<CommittedOffset>) {
        match offset {
            Some(offset) => {
                self.by_topic.entry(topic).or_default().insert(partition, offset);
            }
            None => {
                if let Some(partitions) = self.by_topic.get_mut(&topic) {
                    partitions.remove(&partition);
                    if partitions.is_empty() {
                        self.by_topic.remove(&topic);
                    }
                }
            }
        }
    }

    pub fn apply(&mut self, commits: Vec<Commit>) {
        for commit in commits {
            self.set(commit.topic, commit.partition, Some(commit.offset));
        }
    }

    fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.by_topic.get(topic)?.get(&partition)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &CommittedOffset)> {
        self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(partition, offset)| (topic.as_str(), *partition, offset))
        })
    }
}

impl Coordinator {
    pub(super) fn commit(
        &mut self,
        context: RequestContext<'_>,
        request: OffsetCommitRequestData,
        reply: ReplyId,
    ) {
        match self.check_commit(context.version, &request) {
            Ok(()) => self.accept_commit(&request, reply),
            Err(error) => {
                let response = commit_response(&request, |_, _| error);
                self.work.reply(reply, GroupResponse::OffsetCommit(response));
            }
        }
    }

    fn check_commit(&self, version: i16, request: &OffsetCommitRequestData) -> Result<(), ErrorCode> {
        let group_id = request.group_id.as_str();
        if group_id.is_empty() || group_id.len() > TEXT_BYTES_MAX {
            return Err(ErrorCode::InvalidGroupId);
        }
        match self.find(group_id).and_then(|key| self.groups.get(key)) {
            Some(group) => check_committer(group, request),
            // Whoever assigns its partitions itself needs no group: one is made for its offsets.
            None if request.generation_id_or_member_epoch < 0 => Ok(()),
            None if version >= GROUP_NOT_FOUND_FROM => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    fn accept_commit(&mut self, request: &OffsetCommitRequestData, reply: ReplyId) {
        let metadata_max = self.work.options.offset_metadata_max;
        let check = |topic: &str, partition: &OffsetCommitRequestPartition| {
            check_partition(topic, partition, metadata_max)
        };
        let response = commit_response(request, check);
        let key = self.find_or_create(request.group_id.as_str());
        let commits = self.commits_of(request, check);
        self.keep_session(key, request.member_id.as_str());
        if commits.is_empty() {
            self.drop_if_void(key);
            return self.work.reply(reply, GroupResponse::OffsetCommit(response));
        }
        let group = self.groups.get_mut(key).expect("found or created");
        group.commits_in_flight += 1;
        let record =
            |commit: &Commit| offset_record(&group.id, &commit.topic, commit.partition, Some(&commit.offset));
        let records = commits.iter().map(record).collect();
        let change = Change::Offsets { group: key, offsets: commits };
        self.work.append(records, change, vec![(reply, GroupResponse::OffsetCommit(response))]);
    }

    /// Commits keep a member alive, except while the assignment is on its way.
    fn keep_session(&mut self, key: Key, member_id: &str) {
        let mut step = self.step(key);
        if matches!(step.group.state, State::Stable | State::PreparingRebalance) {
            step.heard_of(member_id);
        }
    }

    fn commits_of(
        &self,
        request: &OffsetCommitRequestData,
        check: impl Fn(&str, &OffsetCommitRequestPartition) -> ErrorCode,
    ) -> Vec<Commit> {
        let wall = self.work.wall.0;
        // Of versions 2 to 4; -1 is the broker's own retention.
        let expire_ms =
            (request.retention_time_ms != -1).then(|| wall.saturating_add(request.retention_time_ms));
        let mut commits = Vec::new();
        for topic in &request.topics {
            let name = topic.name.as_str();
            for partition in topic.partitions.iter().filter(|partition| !check(name, partition).is_error()) {
                let metadata = partition.committed_metadata.as_ref().map_or("", KafkaString::as_str);
                let offset = CommittedOffset {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: metadata.to_owned(),
                    commit_ms: wall,
                    expire_ms,
                };
                commits.push(Commit { topic: name.to_owned(), partition: partition.partition_index, offset });
            }
        }
        commits
    }

    pub(super) fn fetch(
        &mut self,
        context: RequestContext<'_>,
        request: &OffsetFetchRequestData,
        reply: ReplyId,
    ) {
        let mut response = OffsetFetchResponseData::default();
        if context.version >= GROUPS_FROM {
            response.groups = request.groups.iter().map(|group| self.fetch_group(group)).collect();
        } else {
            let only = self.fetch_group(&as_group(context.version, request));
            response.error_code = only.error_code;
            response.topics = only.topics.into_iter().map(as_old_topic).collect();
        }
        self.work.reply(reply, GroupResponse::OffsetFetch(response));
    }

    fn fetch_group(&self, asked: &OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
        let group = self.find(asked.group_id.as_str()).and_then(|key| self.groups.get(key));
        let none = Offsets::default();
        let offsets = group.map_or(&none, |group| &group.offsets);
        let topics = match &asked.topics {
            Some(topics) => topics.iter().map(|topic| fetch_topic(offsets, topic)).collect(),
            None => all_topics(offsets),
        };
        OffsetFetchResponseGroup { group_id: asked.group_id.clone(), topics, ..Default::default() }
    }
}

/// Who may commit: a member in its generation, and anyone to a group without members.
fn check_committer(group: &Group, request: &OffsetCommitRequestData) -> Result<(), ErrorCode> {
    let generation = request.generation_id_or_member_epoch;
    let instance_id = request.group_instance_id.as_ref().map(KafkaString::as_str);
    let is_member = generation >= 0 || !request.member_id.is_empty() || instance_id.is_some();
    match group.state {
        State::Dead => return Err(ErrorCode::CoordinatorNotAvailable),
        State::Empty if generation < 0 => return Ok(()),
        _ if is_member => {
            group.check_member(request.member_id.as_str(), instance_id)?;
            if generation != group.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        }
        _ => return Err(ErrorCode::UnknownMemberId),
    }
    if group.state == State::CompletingRebalance { Err(ErrorCode::RebalanceInProgress) } else { Ok(()) }
}

fn check_partition(topic: &str, partition: &OffsetCommitRequestPartition, metadata_max: usize) -> ErrorCode {
    let metadata = partition.committed_metadata.as_ref().map_or("", KafkaString::as_str);
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || partition.partition_index < 0 {
        ErrorCode::UnknownTopicOrPartition
    } else if metadata.len() > TEXT_BYTES_MAX || metadata.encode_utf16().count() > metadata_max {
        ErrorCode::OffsetMetadataTooLarge
    } else if partition.committed_offset < 0 {
        ErrorCode::InvalidRequest
    } else {
        ErrorCode::None
    }
}

fn commit_response(
    request: &OffsetCommitRequestData,
    code: impl Fn(&str, &OffsetCommitRequestPartition) -> ErrorCode,
) -> OffsetCommitResponseData {
    let mut response = OffsetCommitResponseData::default();
    for topic in &request.topics {
        let partition = |partition: &OffsetCommitRequestPartition| OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: code(topic.name.as_str(), partition).number(),
            ..Default::default()
        };
        response.topics.push(OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(partition).collect(),
            ..Default::default()
        });
    }
    response
}

/// A request for one group in the form of the newer ones.
fn as_group(version: i16, request: &OffsetFetchRequestData) -> OffsetFetchRequestGroup {
    let topics = request.topics.as_ref().map(|topics| {
        let topic = |topic: &crate::protocol::cold::offset_fetch_request::OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics {
                name: topic.name.clone(),
                partition_indexes: topic.partition_indexes.clone(),
                ..Default::default()
            }
        };
        topics.iter().map(topic).collect::<Vec<_>>()
    });
    // Before there was a null, nothing asked for was nothing.
    let topics = if version < ALL_TOPICS_FROM { Some(topics.unwrap_or_default()) } else { topics };
    OffsetFetchRequestGroup { group_id: request.group_id.clone(), topics, ..Default::default() }
}

fn as_old_topic(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
        ..Default::default()
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
        ..Default::default()
    }
}

fn fetch_topic(offsets: &Offsets, topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    let partition = |index: &i32| fetched(*index, offsets.get(topic.name.as_str(), *index));
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
        ..Default::default()
    }
}

/// All there are, by name; the caller adds ids where the version has them.
fn all_topics(offsets: &Offsets) -> Vec<OffsetFetchResponseTopics> {
    let topic = |(name, partitions): (&String, &BTreeMap<i32, CommittedOffset>)| OffsetFetchResponseTopics {
        name: text(name),
        topic_id: KafkaUuid::ZERO,
        partitions: partitions.iter().map(|(index, offset)| fetched(*index, Some(offset))).collect(),
        ..Default::default()
    };
    offsets.by_topic.iter().map(topic).collect()
}

/// A partition nothing was committed for has offset -1 and no error.
fn fetched(index: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: offset.map_or(-1, |offset| offset.offset),
        committed_leader_epoch: offset.map_or(-1, |offset| offset.leader_epoch),
        metadata: Some(text(offset.map_or("", |offset| offset.metadata.as_str()))),
        ..Default::default()
    }
}
