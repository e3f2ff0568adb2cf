//! Random groups: every request is answered once, and the log says what the coordinator knows.

use super::*;

/// What the log is responsible for: offsets, and groups that don't rebalance.
fn durable(coordinator: &Coordinator, settled: &[String]) -> Vec<(String, Vec<String>, Option<String>)> {
    let mut all = Vec::new();
    for (id, key) in &coordinator.names {
        let group = coordinator.groups.get(*key).expect("named groups exist");
        let offsets: Vec<String> = group.offsets.iter().map(|offset| format!("{offset:?}")).collect();
        let members: Vec<String> = group
            .members
            .values()
            .map(|member| {
                let (assignment, subscription) =
                    (&member.assignment, member.metadata(group.protocol.as_deref()));
                let instance = &member.instance_id;
                format!("{} {instance:?} {assignment:?} {subscription:?} {:?}", member.id, member.timeouts)
            })
            .collect();
        let state = settled.contains(id).then(|| {
            format!(
                "{:?} {} {:?} {:?} {members:?}",
                group.state, group.generation, group.leader, group.protocol
            )
        });
        if state.is_some() || !offsets.is_empty() {
            all.push((id.clone(), offsets, state));
        }
    }
    all
}

fn in_group(group: &str, request: GroupRequest) -> GroupRequest {
    let group = text(group);
    match request {
        GroupRequest::Join(request) => GroupRequest::Join(request.with_group_id(group)),
        GroupRequest::Sync(request) => GroupRequest::Sync(request.with_group_id(group)),
        GroupRequest::Heartbeat(request) => GroupRequest::Heartbeat(request.with_group_id(group)),
        GroupRequest::Leave(request) => GroupRequest::Leave(request.with_group_id(group)),
        GroupRequest::OffsetCommit(request) => GroupRequest::OffsetCommit(request.with_group_id(group)),
        GroupRequest::Delete(request) => GroupRequest::Delete(request.with_groups_names(vec![group])),
        other => other,
    }
}

fn draw_request(random: &mut Random, members: &[String], generation: i32) -> GroupRequest {
    let none = String::new();
    let member =
        if members.is_empty() { &none } else { &members[random.below(members.len() as u64) as usize] };
    let instance = ["one", "two", "three"][random.below(3) as usize];
    match random.below(16) {
        0 => join("", None, "s"),
        1 => join("", Some(instance), "s"),
        2..=5 => join(member, None, ["s", "t"][random.below(2) as usize]),
        6 => join(member, Some(instance), "s"),
        7..=10 => sync(generation, member, members),
        11 => heartbeat(generation, member),
        12 => leave(&[(member, None)]),
        13 => commit(generation, member, random.below(3) as i32, random.below(100) as i64, "m"),
        14 => commit(-1, "", random.below(3) as i32, random.below(100) as i64, ""),
        _ => GroupRequest::Delete(Default::default()),
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut stage = Stage::new(Options { members_count_max: 4, ..Options::default() });
    stage.is_prompt = false;
    let mut known: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for _ in 0..400 {
        let group = ["a", "b"][random.below(2) as usize];
        let members = known.entry(group).or_default();
        let live = stage.coordinator.find(group).and_then(|key| stage.coordinator.groups.get(key));
        let generation = live.map_or(1, |live| live.generation);
        let version = if random.chance(1, 4) { 3 } else { 9 };
        let request = in_group(group, draw_request(&mut random, members, generation));
        stage.send(if matches!(request, GroupRequest::Join(_)) { version } else { 4 }, request);
        for answer in stage.answers.values() {
            if let GroupResponse::Join(joined) = answer {
                let id = joined.member_id.to_string();
                let here = stage.coordinator.find(group).and_then(|key| stage.coordinator.groups.get(key));
                if here.is_some_and(|here| {
                    here.members.contains_key(&id) || here.pending_members.contains_key(&id)
                }) && !members.contains(&id)
                {
                    members.push(id);
                }
            }
        }
        members.drain(..members.len().saturating_sub(6));
        match random.below(4) {
            0 => stage.pass_ms(random.below(4000)),
            1 if !stage.in_flight.is_empty() => stage.end_append(Ok(())),
            2 => stage.flush(),
            _ => {}
        }
    }
    stage.flush();
    let is_settled = |key: &Key| {
        let group = stage.coordinator.groups.get(*key).expect("named groups exist");
        matches!(group.state, State::Stable | State::Empty) && group.is_visible()
    };
    let settled: Vec<String> =
        stage.coordinator.names.iter().filter(|(_, key)| is_settled(key)).map(|(id, _)| id.clone()).collect();
    assert_eq!(durable(&stage.coordinator, &settled), durable(&stage.replayed(), &settled));
    // Without members left, everything that waits has an end.
    for _ in 0..20 {
        stage.pass_ms(600_000);
        stage.flush();
    }
    assert_eq!(stage.answers.len() as u64, stage.next_reply, "every request was answered");
    assert!(stage.coordinator.groups.iter().all(|(_, group)| group.state == State::Empty));
    assert_eq!(stage.coordinator.next_deadline(), None);
}

#[test]
fn random_groups_are_what_their_log_says() {
    let chosen = std::env::var("CORELANE_SEED").ok().map(|seed| seed.parse().expect("a number"));
    for seed in chosen.map_or(0..300, |seed: u64| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "replay with CORELANE_SEED={seed}");
    }
}
