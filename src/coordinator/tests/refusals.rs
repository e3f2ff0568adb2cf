//! What is refused, and with which code.

use super::*;

fn changed_join(change: impl FnOnce(&mut JoinGroupRequestData)) -> GroupRequest {
    match join("", None, "s") {
        GroupRequest::Join(mut request) => {
            change(&mut request);
            GroupRequest::Join(request)
        }
        other => other,
    }
}

#[test]
fn joins_are_refused_with_kafkas_codes() {
    let mut stage = Stage::new(Options { members_count_max: 2, ..Options::default() });
    stage.stable(2);
    for (expected, request) in [
        (ErrorCode::InvalidGroupId, changed_join(|join| join.group_id = text(""))),
        (ErrorCode::InvalidSessionTimeout, changed_join(|join| join.session_timeout_ms = 5999)),
        (ErrorCode::InvalidSessionTimeout, changed_join(|join| join.session_timeout_ms = 1_800_001)),
        (
            ErrorCode::UnknownMemberId,
            changed_join(|join| {
                join.member_id = text("stranger");
                join.group_id = text("another");
            }),
        ),
        (ErrorCode::GroupMaxSizeReached, join("", None, "s")),
        (ErrorCode::GroupMaxSizeReached, join("stranger", None, "s")),
        (
            ErrorCode::InvalidRequest,
            changed_join(|join| join.group_instance_id = Some(text(&"i".repeat(250)))),
        ),
        (ErrorCode::InvalidRequest, changed_join(|join| join.protocol_type = text(&"p".repeat(40_000)))),
        (ErrorCode::InvalidGroupId, changed_join(|join| join.group_id = text(&"g".repeat(40_000)))),
    ] {
        let reply = stage.send(9, request);
        assert_eq!(stage.joined(reply).expect("at once").error_code, expected.number());
    }
    assert_eq!(stage.state(), "Stable");
}

#[test]
fn protocols_must_be_common() {
    let mut stage = Stage::new(Options::default());
    for (protocol_type, has_protocols) in [("", true), ("consumer", false)] {
        let reply = stage.send(
            9,
            changed_join(|join| {
                join.protocol_type = text(protocol_type);
                join.protocols.truncate(usize::from(has_protocols));
            }),
        );
        let code = stage.joined(reply).expect("at once").error_code;
        assert_eq!(code, ErrorCode::InconsistentGroupProtocol.number());
    }
    assert_eq!(stage.coordinator.groups.len(), 0, "a refused join makes no group");
    stage.stable(1);
    for request in [
        changed_join(|join| join.protocol_type = text("connect")),
        changed_join(|join| join.protocols[0].name = text("sticky")),
    ] {
        let reply = stage.send(9, request);
        let code = stage.joined(reply).expect("at once").error_code;
        assert_eq!(code, ErrorCode::InconsistentGroupProtocol.number());
    }
}

#[test]
fn the_protocol_most_members_like_is_chosen() {
    let mut stage = Stage::new(Options::default());
    let likes = |names: &[&str]| {
        changed_join(|join| {
            let protocol = |name: &&str| JoinGroupRequestProtocol { name: text(name), ..Default::default() };
            join.protocols = names.iter().map(protocol).collect();
        })
    };
    let first = stage.send(3, likes(&["a", "b", "c"]));
    stage.send(3, likes(&["d", "c", "b"]));
    stage.send(3, likes(&["c", "b"]));
    stage.pass_ms(60_000);
    let joined = stage.joined(first).expect("joined");
    // Common are b (liked first by one) and c (by two).
    assert_eq!(joined.protocol_name.as_ref().map(|name| name.to_string()), Some("c".to_owned()));
}

#[test]
fn requests_of_strangers_and_of_other_generations_are_refused() {
    let mut stage = Stage::new(Options::default());
    let (members, generation) = stage.stable(1);
    let member = members[0].as_str();
    for (generation, member, expected) in [
        (generation, "stranger", ErrorCode::UnknownMemberId),
        (generation, "", ErrorCode::UnknownMemberId),
        (generation - 1, member, ErrorCode::IllegalGeneration),
        (generation + 1, member, ErrorCode::IllegalGeneration),
    ] {
        assert_eq!(stage.heartbeat(generation, member), expected.number());
        let reply = stage.send(5, sync(generation, member, &[]));
        assert_eq!(stage.synced(reply).expect("at once").error_code, expected.number());
        let commits = stage.ask(8, commit(generation, member, 0, 1, ""));
        let GroupResponse::OffsetCommit(response) = commits else { panic!("not a commit") };
        assert_eq!(response.topics[0].partitions[0].error_code, expected.number());
    }
    let GroupRequest::Sync(mut request) = sync(generation, member, &[]) else { unreachable!() };
    request.protocol_name = Some(text("sticky"));
    let reply = stage.send(5, GroupRequest::Sync(request));
    let code = stage.synced(reply).expect("at once").error_code;
    assert_eq!(code, ErrorCode::InconsistentGroupProtocol.number());
}

#[test]
fn groups_that_dont_exist_have_no_members() {
    let mut stage = Stage::new(Options::default());
    assert_eq!(stage.heartbeat(1, "m"), ErrorCode::UnknownMemberId.number());
    let reply = stage.send(5, sync(1, "m", &[]));
    assert_eq!(stage.synced(reply).expect("at once").error_code, ErrorCode::UnknownMemberId.number());
    assert_eq!(stage.leave(&[("m", None)]).error_code, ErrorCode::UnknownMemberId.number());
    assert_eq!(stage.state(), "Dead");
    assert_eq!(stage.coordinator.groups.len(), 0);
}
