//! Config changes: what IncrementalAlterConfigs and AlterConfigs share.
//!
//! Topics and brokers have settings that change: a broker's under its number, those of every broker of the
//! cluster under no name. Unlike Kafka, which keeps names that it doesn't know for plugins, there are none
//! here: such a name is refused, and so is one of Kafka's that has no effect here.

use std::collections::BTreeMap;

use super::Context;
use super::describe_configs::FixedSetting;
use super::error_map;
use crate::catalog::broker_config;
use crate::catalog::decide::{Refusal, SettingsChange};
use crate::control::command::{AlteredResource, ConfigResource, ControlCommand, ControlOutcome};
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
    fixed: &[FixedSetting],
    context: &Context<'_>,
) -> (Vec<AskedChange>, ControlCommand) {
    let mut asked: Vec<AskedChange> = Vec::new();
    let mut altered = Vec::new();
    let mut counts: BTreeMap<(i8, String), u32> = BTreeMap::new();
    for resource in &resources {
        *counts.entry((resource.kind, resource.name.clone())).or_default() += 1;
    }
    for Resource { kind, name, keys, change } in resources {
        let is_once = counts[&(kind, name.clone())] == 1;
        let target = check_once(is_once, keys)
            .and_then(|()| target(kind, &name, context))
            .and_then(|target| check_known(&target, &change, fixed).map(|()| target));
        let refused = match target {
            Ok(resource) => {
                altered.push(AlteredResource { resource, change });
                None
            }
            Err(refused) => Some(refused),
        };
        asked.push(AskedChange { kind, name, refused });
    }
    (asked, ControlCommand::AlterConfigs { resources: altered, validate_only })
}

fn invalid(why: String) -> Refused {
    (ErrorCode::InvalidRequest, Some(why))
}

fn check_once(is_once: bool, mut keys: Vec<String>) -> Result<(), Refused> {
    if !is_once {
        return Err(invalid("Each resource must appear at most once.".into()));
    }
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(invalid(format!("Error due to duplicate config keys: {}", twice[0]))),
        None => Ok(()),
    }
}

fn target(kind: i8, name: &str, context: &Context<'_>) -> Result<ConfigResource, Refused> {
    let node = context.node();
    match kind {
        TOPIC => Ok(ConfigResource::Topic(name.to_owned())),
        BROKER if name.is_empty() => Ok(ConfigResource::Broker(None)),
        BROKER if name == node.0.to_string() => Ok(ConfigResource::Broker(Some(node))),
        BROKER => Err(invalid(format!("Unexpected broker id, expected {}, but received {name}", node.0))),
        kind => Err(invalid(format!("Unexpected resource type {kind}"))),
    }
}

/// A setting of a topic is looked at where it is decided about; of those of a broker only some change.
fn check_known(
    target: &ConfigResource,
    change: &SettingsChange,
    fixed: &[FixedSetting],
) -> Result<(), Refused> {
    if let ConfigResource::Topic(_) = target {
        return Ok(());
    }
    let is_known =
        |name: &str| broker_config::find(name).is_some() || fixed.iter().any(|setting| setting.name == name);
    match change.names_given().into_iter().find(|name| !is_known(name)) {
        Some(name) => Err((ErrorCode::InvalidConfig, Some(format!("Unknown broker config name: {name}")))),
        None => Ok(()),
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
