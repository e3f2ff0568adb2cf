//! How members come, stay and go.

use super::*;

#[test]
fn two_members_join_and_hear_their_assignments_once_they_are_durable() {
    let mut stage = Stage::new(Options::default());
    stage.is_prompt = false;
    let (leader, first) = stage.enter("one");
    let (follower, second) = stage.enter("two");
    assert!(stage.joined(first).is_none(), "the first rebalance waits for others");
    // The second came in during the delay, so there is another one.
    stage.pass_ms(5999);
    assert!(stage.joined(first).is_none());
    stage.pass_ms(1);
    let to_leader = stage.joined(first).expect("joined").clone();
    let to_follower = stage.joined(second).expect("joined").clone();
    assert_eq!((to_leader.error_code, to_leader.generation_id), (0, 1));
    assert_eq!(to_leader.leader.as_str(), leader);
    assert_eq!((to_follower.leader.as_str(), to_follower.members.len()), (leader.as_str(), 0));
    let mut told: Vec<_> =
        to_leader.members.iter().map(|m| (m.member_id.to_string(), &m.metadata[..])).collect();
    told.sort_by_key(|(_, metadata)| metadata.to_vec());
    assert_eq!(told, [(leader.clone(), &b"one"[..]), (follower.clone(), b"two")]);

    let waits = stage.send(5, sync(1, &follower, &[]));
    assert!(stage.synced(waits).is_none(), "followers wait for the leader");
    let leads = stage.send(5, sync(1, &leader, &[leader.clone(), follower.clone()]));
    assert!(stage.synced(leads).is_none() && stage.synced(waits).is_none(), "the record isn't durable yet");
    assert_eq!(stage.state(), "CompletingRebalance");
    stage.flush();
    assert_eq!(stage.synced(leads).expect("stored").assignment, leader.as_bytes());
    assert_eq!(stage.synced(waits).expect("stored").assignment, follower.as_bytes());
    assert_eq!((stage.state().as_str(), stage.log.len()), ("Stable", 1));
    assert_eq!(stage.heartbeat(1, &leader), 0);
}

#[test]
fn a_third_member_makes_everyone_join_again() {
    let mut stage = Stage::new(Options::default());
    let (members, generation) = stage.stable(2);
    let (third, newcomer) = stage.enter("s");
    assert!(stage.joined(newcomer).is_none(), "the others have to come first");
    for member in &members {
        assert_eq!(stage.heartbeat(generation, member), ErrorCode::RebalanceInProgress.number());
    }
    let late = stage.send(5, sync(generation, &members[0], &[]));
    assert_eq!(stage.synced(late).expect("refused").error_code, ErrorCode::RebalanceInProgress.number());
    let again: Vec<_> = members.iter().map(|member| stage.send(9, join(member, None, "s"))).collect();
    for reply in again.into_iter().chain([newcomer]) {
        let joined = stage.joined(reply).expect("all are here");
        assert_eq!((joined.generation_id, joined.leader.as_str()), (generation + 1, members[0].as_str()));
    }
    assert_eq!(stage.heartbeat(generation, &third), ErrorCode::IllegalGeneration.number());
    assert_eq!(stage.heartbeat(generation + 1, &third), 0);
}

#[test]
fn who_doesnt_join_again_in_time_is_out() {
    let mut stage = Stage::new(Options::default());
    let (members, generation) = stage.stable(2);
    let again = stage.send(9, join(&members[0], None, "changed"));
    for _ in 0..10 {
        // It lives and is told, and yet it doesn't come.
        let code = stage.heartbeat(generation, &members[1]);
        assert_eq!(code, ErrorCode::RebalanceInProgress.number());
        stage.pass_ms(6000);
    }
    let joined = stage.joined(again).expect("the rebalance timeout has passed");
    assert_eq!((joined.error_code, joined.members.len()), (0, 1));
    assert_eq!(stage.heartbeat(generation, &members[1]), ErrorCode::UnknownMemberId.number());
}

#[test]
fn a_silent_member_is_given_up_after_its_session() {
    let mut stage = Stage::new(Options::default());
    let (members, generation) = stage.stable(2);
    for _ in 0..9 {
        stage.pass_ms(u64::from(SESSION_MS as u32) / 10);
        assert_eq!(stage.heartbeat(generation, &members[0]), 0);
    }
    stage.pass_ms(u64::from(SESSION_MS as u32) / 10);
    assert_eq!(stage.heartbeat(generation, &members[0]), ErrorCode::RebalanceInProgress.number());
    assert_eq!(stage.heartbeat(generation, &members[1]), ErrorCode::UnknownMemberId.number());
    stage.pass_ms(u64::from(SESSION_MS as u32));
    assert_eq!(stage.state(), "Empty");
}

#[test]
fn who_joins_and_never_asks_for_its_assignment_is_out() {
    let mut stage = Stage::new(Options::default());
    let (leader, first) = stage.enter("s");
    let (lazy, _) = stage.enter("s");
    stage.pass_ms(6000);
    let generation = stage.joined(first).expect("joined").generation_id;
    stage.send(5, sync(generation, &leader, std::slice::from_ref(&leader)));
    assert_eq!(stage.state(), "Stable");
    for _ in 0..20 {
        let beats = [stage.heartbeat(generation, &leader), stage.heartbeat(generation, &lazy)];
        assert_eq!(beats, [0, 0]);
        stage.pass_ms(u64::from(REBALANCE_MS as u32) / 20);
    }
    assert_eq!(stage.heartbeat(generation, &lazy), ErrorCode::UnknownMemberId.number());
    assert_eq!(stage.heartbeat(generation, &leader), ErrorCode::RebalanceInProgress.number());
}

#[test]
fn the_last_to_leave_is_answered_when_the_empty_group_is_durable() {
    let mut stage = Stage::new(Options::default());
    let (members, _) = stage.stable(2);
    let answer = stage.leave(&[(&members[0], None), ("stranger", None)]);
    let codes: Vec<i16> = answer.members.iter().map(|member| member.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::UnknownMemberId.number()]);
    assert_eq!(stage.state(), "PreparingRebalance");
    stage.is_prompt = false;
    let before = stage.log.len();
    let last = stage.send(5, leave(&[(&members[1], None)]));
    assert_eq!(stage.state(), "Empty");
    assert!(!stage.answers.contains_key(&last));
    stage.flush();
    assert!(stage.answers.contains_key(&last));
    assert_eq!(stage.log.len(), before + 1);
}

#[test]
fn an_old_client_leaves_and_joins_with_the_oldest_versions() {
    let mut stage = Stage::new(Options::default());
    let first = stage.send(0, join("", None, "s"));
    stage.pass_ms(3000);
    let joined = stage.joined(first).expect("no id is asked for below version 4").clone();
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    let request = LeaveGroupRequestData {
        group_id: text("g"),
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    for expected in [ErrorCode::None, ErrorCode::UnknownMemberId] {
        match stage.ask(1, GroupRequest::Leave(request.clone())) {
            GroupResponse::Leave(response) => {
                assert_eq!((response.error_code, response.members.len()), (expected.number(), 0));
            }
            other => panic!("not a LeaveGroup response: {other:?}"),
        }
    }
}

#[test]
fn a_member_that_missed_its_answer_gets_it_again() {
    let mut stage = Stage::new(Options::default());
    let (leader, first) = stage.enter("s");
    let (follower, _) = stage.enter("s");
    stage.pass_ms(6000);
    let answer = stage.joined(first).cloned();
    let again = stage.send(9, join(&leader, None, "s"));
    assert_eq!(stage.joined(again).cloned(), answer);
    let members = [leader, follower];
    stage.sync_all(1, &members);
    let again = stage.send(9, join(&members[1], None, "s"));
    assert_eq!(stage.joined(again).expect("unchanged follower").generation_id, 1);
    let again = stage.send(5, sync(1, &members[1], &[]));
    assert_eq!(stage.synced(again).expect("stable").assignment, members[1].as_bytes());
    assert_eq!(stage.state(), "Stable");
}

#[test]
fn a_repeated_wait_ends_the_first() {
    let mut stage = Stage::new(Options::default());
    let (member, first) = stage.enter("s");
    let second = stage.send(9, join(&member, None, "s"));
    assert_eq!(stage.joined(first).expect("ended").error_code, ErrorCode::RebalanceInProgress.number());
    let (follower, _) = stage.enter("s");
    stage.pass_ms(9000);
    assert_eq!(stage.joined(second).expect("joined").error_code, 0);
    let waits = [stage.send(5, sync(1, &follower, &[])), stage.send(5, sync(1, &follower, &[]))];
    assert_eq!(stage.synced(waits[0]).expect("ended").error_code, ErrorCode::RebalanceInProgress.number());
    assert!(stage.synced(waits[1]).is_none());
}

#[test]
fn an_assignment_that_cant_be_stored_is_nobodys() {
    let mut stage = Stage::new(Options::default());
    stage.is_prompt = false;
    let (leader, _) = stage.enter("s");
    stage.pass_ms(3000);
    let leads = stage.send(5, sync(1, &leader, std::slice::from_ref(&leader)));
    stage.end_append(Err(ErrorCode::NotCoordinator));
    assert_eq!(stage.synced(leads).expect("failed").error_code, ErrorCode::NotCoordinator.number());
    assert_eq!(stage.state(), "PreparingRebalance");
    assert!(stage.log.is_empty());
}

#[test]
fn a_join_during_the_append_makes_the_assignment_void() {
    let mut stage = Stage::new(Options::default());
    stage.is_prompt = false;
    let (leader, _) = stage.enter("s");
    stage.pass_ms(3000);
    let leads = stage.send(5, sync(1, &leader, std::slice::from_ref(&leader)));
    stage.enter("s");
    assert_eq!(stage.synced(leads).expect("ended").error_code, ErrorCode::RebalanceInProgress.number());
    stage.flush();
    assert_eq!(stage.state(), "PreparingRebalance");
}

#[test]
fn a_group_that_never_was_leaves_nothing() {
    let mut stage = Stage::new(Options::default());
    stage.send(9, join("", None, "s"));
    assert_eq!(stage.coordinator.groups.len(), 1);
    stage.pass_ms(u64::from(SESSION_MS as u32));
    assert_eq!((stage.coordinator.groups.len(), stage.coordinator.names.len()), (0, 0));
    assert_eq!(stage.coordinator.next_deadline(), None);
}

#[test]
fn a_reloaded_group_goes_on_where_it_was() {
    let mut stage = Stage::new(Options::default());
    let (members, generation) = stage.stable(3);
    stage.coordinator = stage.replayed();
    let effects = stage.coordinator.start(stage.now, stage.wall());
    stage.play(effects);
    for member in &members {
        assert_eq!(stage.heartbeat(generation, member), 0);
        let again = stage.send(5, sync(generation, member, &[]));
        assert_eq!(stage.synced(again).expect("stable").assignment, member.as_bytes());
    }
    stage.pass_ms(u64::from(SESSION_MS as u32));
    assert_eq!(stage.state(), "Empty", "the sessions run after a reload");
}

#[test]
fn unloading_answers_everyone() {
    let mut stage = Stage::new(Options::default());
    stage.is_prompt = false;
    let (leader, _) = stage.enter("s");
    let (follower, _) = stage.enter("s");
    stage.pass_ms(6000);
    let waits = stage.send(5, sync(1, &follower, &[]));
    let commits = stage.send(9, commit(-1, "", 0, 1, ""));
    assert!(stage.answers.contains_key(&commits), "refused: the group has members");
    let leads = stage.send(5, sync(1, &leader, &[]));
    let unloaded = std::mem::replace(&mut stage.coordinator, Coordinator::new(Options::default(), 3));
    stage.play(unloaded.unload());
    for reply in [waits, leads] {
        assert_eq!(stage.synced(reply).expect("ended").error_code, ErrorCode::NotCoordinator.number());
    }
}
