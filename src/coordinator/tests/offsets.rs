//! Commits, and groups that are deleted.

use super::*;
use crate::protocol::cold::delete_groups_request::DeleteGroupsRequestData;
use crate::protocol::cold::list_groups_request::ListGroupsRequestData;
use crate::protocol::cold::offset_fetch_request::{
    OffsetFetchRequestData, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};

fn committed(stage: &mut Stage, request: GroupRequest) -> i16 {
    match stage.ask(9, request) {
        GroupResponse::OffsetCommit(response) => response.topics[0].partitions[0].error_code,
        other => panic!("not an OffsetCommit response: {other:?}"),
    }
}

/// Partition 0 of "t", asked for in the old and in the new form, and among all topics.
fn fetched(stage: &mut Stage) -> (i64, String) {
    let topic = OffsetFetchRequestTopic { name: text("t"), partition_indexes: vec![0], ..Default::default() };
    let old = OffsetFetchRequestData { group_id: text("g"), topics: Some(vec![topic]), ..Default::default() };
    let GroupResponse::OffsetFetch(old) = stage.ask(5, GroupRequest::OffsetFetch(old)) else { panic!() };
    let old = &old.topics[0].partitions[0];
    let topic =
        OffsetFetchRequestTopics { name: text("t"), partition_indexes: vec![0], ..Default::default() };
    let named =
        OffsetFetchRequestGroup { group_id: text("g"), topics: Some(vec![topic]), ..Default::default() };
    let all = OffsetFetchRequestGroup { group_id: text("g"), topics: None, ..Default::default() };
    let new = OffsetFetchRequestData { groups: vec![named, all], ..Default::default() };
    let GroupResponse::OffsetFetch(new) = stage.ask(9, GroupRequest::OffsetFetch(new)) else { panic!() };
    let first = &new.groups[0].topics[0].partitions[0];
    assert_eq!((first.committed_offset, &first.metadata), (old.committed_offset, &old.metadata));
    assert_eq!((first.error_code, old.error_code), (0, 0));
    let is_among_all =
        new.groups[1].topics.iter().flat_map(|topic| &topic.partitions).any(|p| p.partition_index == 0);
    assert_eq!(is_among_all, old.committed_offset >= 0);
    (first.committed_offset, first.metadata.as_ref().map_or_else(String::new, |text| text.to_string()))
}

#[test]
fn a_commit_is_seen_once_it_is_durable() {
    let mut stage = Stage::new(Options::default());
    assert_eq!(fetched(&mut stage), (-1, String::new()));
    stage.is_prompt = false;
    let first = stage.send(9, commit(-1, "", 0, 5, "note"));
    assert!(!stage.answers.contains_key(&first));
    assert_eq!(fetched(&mut stage).0, -1);
    stage.flush();
    assert!(stage.answers.contains_key(&first));
    assert_eq!(fetched(&mut stage), (5, "note".to_owned()));
    let lost = stage.send(9, commit(-1, "", 0, 6, ""));
    stage.end_append(Err(ErrorCode::NotCoordinator));
    let Some(GroupResponse::OffsetCommit(response)) = stage.answers.get(&lost) else { panic!() };
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::NotCoordinator.number());
    assert_eq!(fetched(&mut stage).0, 5);
}

#[test]
fn commits_are_refused_with_kafkas_codes() {
    let mut stage = Stage::new(Options::default());
    for (request, expected) in [
        (commit(-1, "", 0, 1, &"é".repeat(4096)), ErrorCode::None),
        (commit(-1, "", 0, 1, &"é".repeat(4097)), ErrorCode::OffsetMetadataTooLarge),
        (commit(-1, "", 0, -1, ""), ErrorCode::InvalidRequest),
        (commit(-1, "", -1, 1, ""), ErrorCode::UnknownTopicOrPartition),
        (commit(-1, "m", 0, 1, ""), ErrorCode::None),
        (commit(3, "m", 0, 1, ""), ErrorCode::UnknownMemberId),
    ] {
        assert_eq!(committed(&mut stage, request), expected.number());
    }
    let (members, generation) = stage.stable(1);
    for (request, expected) in [
        (commit(generation, &members[0], 0, 7, ""), ErrorCode::None),
        (commit(-1, "", 0, 8, ""), ErrorCode::UnknownMemberId),
        (commit(-1, &members[0], 0, 8, ""), ErrorCode::IllegalGeneration),
        (commit(generation + 1, &members[0], 0, 8, ""), ErrorCode::IllegalGeneration),
        (commit(generation, "stranger", 0, 8, ""), ErrorCode::UnknownMemberId),
    ] {
        assert_eq!(committed(&mut stage, request), expected.number());
    }
    assert_eq!(fetched(&mut stage).0, 7);
}

#[test]
fn a_commit_in_a_generation_of_an_unknown_group_depends_on_the_version() {
    for (version, expected) in [(8, ErrorCode::IllegalGeneration), (9, ErrorCode::GroupIdNotFound)] {
        let mut stage = Stage::new(Options::default());
        let GroupResponse::OffsetCommit(response) = stage.ask(version, commit(1, "m", 0, 1, "")) else {
            panic!()
        };
        assert_eq!(response.topics[0].partitions[0].error_code, expected.number());
    }
}

#[test]
fn a_commit_between_join_and_sync_has_to_wait() {
    let mut stage = Stage::new(Options::default());
    let (member, _) = stage.enter("s");
    stage.pass_ms(3000);
    let code = committed(&mut stage, commit(1, &member, 0, 1, ""));
    assert_eq!(code, ErrorCode::RebalanceInProgress.number());
}

#[test]
fn commits_keep_a_member_alive() {
    let mut stage = Stage::new(Options::default());
    let (members, generation) = stage.stable(1);
    for offset in 0..5 {
        stage.pass_ms(9000);
        assert_eq!(committed(&mut stage, commit(generation, &members[0], 0, offset, "")), 0);
    }
    assert_eq!(stage.state(), "Stable");
}

fn delete(stage: &mut Stage) -> ReplyId {
    let request = DeleteGroupsRequestData { groups_names: vec![text("g")], ..Default::default() };
    stage.send(2, GroupRequest::Delete(request))
}

fn deleted(stage: &Stage, reply: ReplyId) -> Option<i16> {
    match stage.answers.get(&reply)? {
        GroupResponse::Delete(response) => Some(response.results[0].error_code),
        other => panic!("not a DeleteGroups response: {other:?}"),
    }
}

#[test]
fn only_an_empty_group_is_deleted_and_nothing_of_it_is_left() {
    let mut stage = Stage::new(Options::default());
    let reply = delete(&mut stage);
    assert_eq!(deleted(&stage, reply), Some(ErrorCode::GroupIdNotFound.number()));
    let (members, generation) = stage.stable(1);
    assert_eq!(committed(&mut stage, commit(generation, &members[0], 0, 7, "")), 0);
    let reply = delete(&mut stage);
    assert_eq!(deleted(&stage, reply), Some(ErrorCode::NonEmptyGroup.number()));
    stage.leave(&[(&members[0], None)]);
    stage.is_prompt = false;

    let fails = delete(&mut stage);
    let rejoin = stage.send(9, join("", None, "s"));
    let code = stage.joined(rejoin).expect("at once").error_code;
    assert_eq!(code, ErrorCode::CoordinatorNotAvailable.number());
    assert_eq!(fetched(&mut stage).0, 7, "the deletion isn't durable");
    stage.end_append(Err(ErrorCode::NotCoordinator));
    assert_eq!(deleted(&stage, fails), Some(ErrorCode::NotCoordinator.number()));
    assert_eq!(stage.state(), "Empty");

    let reply = delete(&mut stage);
    assert_eq!(deleted(&stage, reply), None);
    stage.flush();
    assert_eq!(deleted(&stage, reply), Some(0));
    assert_eq!(fetched(&mut stage).0, -1);
    assert_eq!((stage.coordinator.groups.len(), stage.replayed().groups.len()), (0, 0));
}

#[test]
fn a_commit_on_its_way_holds_up_a_deletion() {
    let mut stage = Stage::new(Options::default());
    stage.is_prompt = false;
    stage.send(9, commit(-1, "", 0, 5, ""));
    let reply = delete(&mut stage);
    assert_eq!(deleted(&stage, reply), Some(ErrorCode::CoordinatorLoadInProgress.number()));
    stage.flush();
    let reply = delete(&mut stage);
    stage.flush();
    assert_eq!(deleted(&stage, reply), Some(0));
    assert_eq!(stage.replayed().groups.len(), 0);
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut stage = Stage::new(Options::default());
    stage.stable(1);
    let mut listed = |states: &[&str], types: &[&str]| {
        let filter = |names: &[&str]| names.iter().map(|name| text(name)).collect();
        let request = ListGroupsRequestData {
            states_filter: filter(states),
            types_filter: filter(types),
            ..Default::default()
        };
        match stage.ask(5, GroupRequest::List(request)) {
            GroupResponse::List(response) => response.groups.len(),
            other => panic!("not a ListGroups response: {other:?}"),
        }
    };
    assert_eq!(listed(&[], &[]), 1);
    assert_eq!(listed(&["stable", "Empty"], &["Classic"]), 1);
    assert_eq!(listed(&["Empty"], &[]), 0);
    assert_eq!(listed(&[], &["consumer"]), 0);
}
