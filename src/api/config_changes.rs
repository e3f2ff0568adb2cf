//! Config changes: what IncrementalAlterConfigs and AlterConfigs share.
//!
//! Only topics have settings that change; every setting of a broker needs a restart, which is what
//! Kafka answers for such ones.

use std::collections::BTreeMap;

use super::Context;
use super::describe_configs::BrokerSetting;
use super::error_map;
use crate::catalog::decide::{Refusal, SettingsChange};
use crate::control::command::{AlteredTopic, ControlCommand, ControlOutcome};
use crate::protocol::cold::{KafkaString, text};
use crate::protocol::error_code::ErrorCode;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// An error of one resource, with its message.
pub type Refused = (ErrorCode, Option<String>);

/// One resource of a request.
#[derive(Debug)]
pub struct Resource {
    pub kind: i8,
    pub name: String,
    /// Names that are changed.
    pub keys: Vec<String>,
    pub change: SettingsChange,
}

/// A resource that was asked for: the control thread decides about it, unless it is refused already.
#[derive(Debug)]
pub struct AskedChange {
    pub kind: i8,
    pub name: String,
    refused: Option<Refused>,
}

/// What the control thread is to decide, and what is answered then.
pub fn ask(
    resources: Vec<Resource>,
    validate_only: bool,
    broker: &[BrokerSetting],
    context: &Context<'_>,
) -> (Vec<AskedChange>, ControlCommand) {
    let mut asked: Vec<AskedChange> = Vec::new();
    let mut topics = Vec::new();
    let mut counts: BTreeMap<(i8, String), u32> = BTreeMap::new();
    for resource in &resources {
        *counts.entry((resource.kind, resource.name.clone())).or_default() += 1;
    }
    for resource in resources {
        let is_once = counts[&(resource.kind, resource.name.clone())] == 1;
        let refused = refusal(&resource, is_once, broker, context);
        asked.push(AskedChange { kind: resource.kind, name: resource.name.clone(), refused });
        if asked.last().is_some_and(|asked| asked.refused.is_none()) {
            topics.push(AlteredTopic { name: resource.name, change: resource.change });
        }
    }
    (asked, ControlCommand::AlterTopics { topics, validate_only })
}

fn refusal(
    resource: &Resource,
    is_once: bool,
    broker: &[BrokerSetting],
    context: &Context<'_>,
) -> Option<Refused> {
    let invalid = |why: String| Some((ErrorCode::InvalidRequest, Some(why)));
    if !is_once {
        return invalid("Each resource must appear at most once.".into());
    }
    let mut keys: Vec<&String> = resource.keys.iter().collect();
    keys.sort_unstable();
    if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return invalid(format!("Error due to duplicate config keys: {}", twice[0]));
    }
    match resource.kind {
        TOPIC => None,
        BROKER if !resource.name.is_empty() && resource.name != context.node().0.to_string() => {
            let node = context.node().0;
            invalid(format!("Unexpected broker id, expected {node}, but received {}", resource.name))
        }
        BROKER => {
            let unknown = keys.iter().find(|key| broker.iter().all(|setting| setting.name != key.as_str()));
            match unknown {
                Some(key) => {
                    Some((ErrorCode::InvalidConfig, Some(format!("Unknown broker config name: {key}"))))
                }
                None if keys.is_empty() => None,
                None => {
                    let names: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
                    invalid(format!("Cannot update these configs dynamically: Set({})", names.join(", ")))
                }
            }
        }
        kind => invalid(format!("Unexpected resource type {kind}")),
    }
}

/// A resource with its outcome, in the fields that both responses have.
pub struct Settled {
    pub kind: i8,
    pub name: KafkaString,
    pub error_code: i16,
    pub error_message: Option<KafkaString>,
}

/// The resources in the order of the request.
pub fn settle(asked: Vec<AskedChange>, outcome: ControlOutcome) -> impl Iterator<Item = Settled> {
    let mut outcomes = outcome.into_topics();
    asked.into_iter().map(move |asked| {
        let refused = asked.refused.or_else(|| {
            let outcome = outcomes.next().unwrap_or(Err(Refusal::NotAvailable));
            outcome.err().map(|refusal| error_map::of_refusal(&refusal))
        });
        let (code, message) = refused.unwrap_or((ErrorCode::None, None));
        Settled {
            kind: asked.kind,
            name: text(&asked.name),
            error_code: code.number(),
            error_message: message.map(|message| text(&message)),
        }
    })
}
