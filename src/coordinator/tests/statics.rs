//! Static members (KIP-345, KIP-814).

use super::*;

fn stable_statics(stage: &mut Stage) -> Vec<String> {
    let replies = [stage.send(9, join("", Some("one"), "s")), stage.send(9, join("", Some("two"), "s"))];
    stage.pass_ms(6000);
    let members: Vec<String> =
        replies.map(|reply| stage.joined(reply).expect("joined").member_id.to_string()).into();
    stage.sync_all(1, &members);
    members
}

#[test]
fn a_restarted_static_member_keeps_its_assignment_without_a_rebalance() {
    let mut stage = Stage::new(Options::default());
    let members = stable_statics(&mut stage);
    assert!(members[0].starts_with("one-"));
    let back = stage.send(9, join("", Some("two"), "s"));
    let joined = stage.joined(back).expect("at once").clone();
    assert_eq!((joined.error_code, joined.generation_id, stage.state().as_str()), (0, 1, "Stable"));
    assert_ne!(joined.member_id.as_str(), members[1]);
    let again = stage.send(5, sync(1, joined.member_id.as_str(), &[]));
    assert_eq!(stage.synced(again).expect("stable").assignment, members[1].as_bytes());
    assert_eq!(stage.heartbeat(1, &members[1]), ErrorCode::UnknownMemberId.number());
    let fenced = stage.send(9, join(&members[1], Some("two"), "s"));
    assert_eq!(stage.joined(fenced).expect("at once").error_code, ErrorCode::FencedInstanceId.number());
    let replayed = stage.replayed();
    let group = replayed.groups.get(replayed.names["g"]).expect("replayed");
    assert_eq!(group.static_member("two"), Some(joined.member_id.as_str()));
}

#[test]
fn a_restarted_static_leader_doesnt_assign() {
    for (version, is_told) in [(9, true), (8, false)] {
        let mut stage = Stage::new(Options::default());
        let members = stable_statics(&mut stage);
        let back = stage.send(version, join("", Some("one"), "s"));
        let joined = stage.joined(back).expect("at once");
        assert_eq!(joined.skip_assignment, is_told);
        let is_leader = joined.leader == joined.member_id;
        assert_eq!((is_leader, joined.members.len()), (is_told, if is_told { 2 } else { 0 }));
        assert!(is_told || joined.leader.as_str() == members[0]);
    }
}

#[test]
fn a_static_member_that_changed_makes_a_rebalance_only_if_the_protocol_does() {
    let mut stage = Stage::new(Options::default());
    stable_statics(&mut stage);
    let GroupRequest::Join(mut request) = join("", Some("two"), "s") else { unreachable!() };
    request.protocols.insert(0, JoinGroupRequestProtocol { name: text("sticky"), ..Default::default() });
    let back = stage.send(9, GroupRequest::Join(request));
    assert_eq!(stage.joined(back).expect("sticky isn't common").error_code, 0);
    assert_eq!(stage.state(), "Stable");
}

#[test]
fn tools_remove_a_static_member_by_its_instance() {
    let mut stage = Stage::new(Options::default());
    let members = stable_statics(&mut stage);
    let answer = stage.leave(&[("", Some("one")), ("", Some("none")), (&members[1], Some("one"))]);
    let codes: Vec<i16> = answer.members.iter().map(|member| member.error_code).collect();
    let unknown = ErrorCode::UnknownMemberId.number();
    assert_eq!(codes, [0, unknown, unknown]);
    assert_eq!(stage.heartbeat(1, &members[1]), ErrorCode::RebalanceInProgress.number());
}

#[test]
fn a_static_member_outlives_a_rebalance_it_misses() {
    let mut stage = Stage::new(Options::default());
    let members = stable_statics(&mut stage);
    let again = stage.send(9, join(&members[0], Some("one"), "changed"));
    for _ in 0..10 {
        stage.pass_ms(6000);
        stage.heartbeat(1, &members[1]);
    }
    let joined = stage.joined(again).expect("the rebalance timeout has passed");
    assert_eq!((joined.generation_id, joined.members.len()), (2, 2));
}
