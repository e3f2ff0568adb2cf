//! A broker's settings that change while it runs hold on every shard from then on.

use super::compaction::{counts, filled, until};
use super::{Machine, NODE, TOPIC_ID, batch};
use crate::catalog::MetadataRecord;
use crate::protocol::batch_builder::BatchOptions;

const MESSAGE_TOO_LARGE: i16 = 10;

impl Machine {
    /// These are all settings that this node, or without one the cluster, has from here on.
    pub(super) fn set_broker(&mut self, is_node: bool, settings: &[(&str, &str)]) {
        let settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        self.commit(MetadataRecord::BrokerSettingsChanged { node: is_node.then_some(NODE), settings });
        (0..self.shards.len()).for_each(|shard| self.turn(shard));
    }
}

#[test]
fn partitions_of_every_shard_obey_at_once_and_after_a_restart() {
    let mut machine = Machine::new(2, 2);
    let batch = batch(BatchOptions::default());
    let produced = |machine: &mut Machine| {
        let client = machine.connect();
        [0, 1].map(|partition| machine.produce(&client, partition, &batch))
    };
    assert_eq!(produced(&mut machine), [0, 0]);
    machine.set_broker(false, &[("message.max.bytes", "10")]);
    assert_eq!(produced(&mut machine), [MESSAGE_TOO_LARGE; 2]);
    machine.restart();
    assert_eq!(produced(&mut machine), [MESSAGE_TOO_LARGE; 2]);
    machine.set_broker(true, &[("message.max.bytes", "1000")]);
    assert_eq!(produced(&mut machine), [0, 0], "the node's own goes over the cluster's");
    machine.set_broker(true, &[]);
    let own = [("max.message.bytes".to_string(), "1000".to_string())].into();
    assert_eq!(produced(&mut machine), [MESSAGE_TOO_LARGE; 2]);
    machine.commit(MetadataRecord::TopicSettingsChanged { topic_id: TOPIC_ID, settings: own });
    assert_eq!(produced(&mut machine), [0, 0], "the topic's own goes over everything");
}

#[test]
fn a_connection_too_many_is_closed_and_those_before_stay() {
    let mut machine = Machine::new(1, 1);
    let first = machine.connect();
    let batch = batch(BatchOptions::default());
    assert_eq!(machine.produce(&first, 0, &batch), 0);
    machine.set_broker(false, &[("max.connections", "1")]);
    let second = machine.connect();
    machine.turn_until(|_| second.ended().is_some());
    assert_eq!(machine.produce(&first, 0, &batch), 0);
    machine.set_broker(false, &[]);
    let third = machine.connect();
    assert_eq!(machine.produce(&third, 0, &batch), 0);
}

#[test]
fn compaction_that_was_told_to_be_slow_is_told_to_be_fast() {
    let mut machine = filled(&[]);
    machine.set_broker(true, &[("log.cleaner.io.max.bytes.per.second", "1")]);
    machine.world.advance(16_000);
    // It would take a fifth of a second; so the second window waits for days.
    machine.pass(5_000);
    assert!(counts(&machine).map_bytes > 0);
    assert_eq!(counts(&machine).cleanings, 0);
    machine.set_broker(true, &[]);
    until(&mut machine, |machine| counts(machine).cleanings == 1);
}

#[test]
fn a_look_for_what_to_compact_comes_sooner_when_it_is_told_to() {
    let mut machine = filled(&[("cleanup.policy", "delete")]);
    machine.set_broker(true, &[("log.cleaner.backoff.ms", "86400000")]);
    // The look that was due before comes at its time, the next one in a day.
    machine.world.advance(16_000);
    (0..10).for_each(|_| machine.turn(0));
    let compact = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    let compact = compact.map(|(name, value)| (name.to_string(), value.to_string())).into();
    machine.commit(MetadataRecord::TopicSettingsChanged { topic_id: TOPIC_ID, settings: compact });
    machine.world.advance(60_000);
    machine.pass(5_000);
    assert_eq!(counts(&machine).cleanings, 0);
    machine.set_broker(true, &[("log.cleaner.backoff.ms", "1000")]);
    machine.world.advance(1_000);
    until(&mut machine, |machine| counts(machine).cleanings == 1);
}
