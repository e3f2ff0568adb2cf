//! DescribeConfigs. Key 32, versions 1 to 4.
//!
//! Behaviour: the settings in force of topics (type 2) and this broker (type 4), with where each
//!            value comes from, what else would apply, and what it means. A broker without name: what
//!            the whole cluster was given while it ran.
//! Versions:  v1 synonyms; v3 types and documentation (KIP-569).
//! Deviations: a value given in hours or minutes is shown under its name in milliseconds; broker loggers (type 8), client metrics (16) and groups (32) are answered empty.
//! Sources:   message schemas DescribeConfigsRequest, DescribeConfigsResponse; KIP-226.

use std::collections::BTreeMap;

use super::Context;
use crate::catalog::broker_config::{self, BrokerSettings, Layer};
use crate::catalog::{Topic, topic_name};
use crate::partition::topic_config::{ACCEPTED_WITHOUT_EFFECT, SETTINGS, Setting, SettingType};
use crate::protocol::cold::create_topics_response::CreatableTopicConfigs;
use crate::protocol::cold::describe_configs_request::{DescribeConfigsRequestData, DescribeConfigsResource};
use crate::protocol::cold::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponseData, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::protocol::cold::text;
use crate::protocol::error_code::ErrorCode;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const ANSWERED_EMPTY: [i8; 3] = [8, 16, 32];

/// Kafka's `ConfigSource`.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_DEFAULT: i8 = 5;

fn source_of(layer: Layer) -> i8 {
    match layer {
        Layer::Node => 2,
        Layer::Cluster => 3,
        Layer::Start => 4,
    }
}

/// A setting of this broker that needs a restart.
#[derive(Clone, Debug)]
pub struct FixedSetting {
    pub name: &'static str,
    /// At the start, if it was.
    pub given: Option<String>,
    pub default: &'static str,
    pub documentation: &'static str,
}

pub fn respond(
    request: &DescribeConfigsRequestData,
    fixed: &[FixedSetting],
    context: &Context<'_>,
) -> DescribeConfigsResponseData {
    let results = request.resources.iter().map(|resource| {
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match describe(resource, fixed, context) {
            Ok(configs) => {
                let wanted = |config: &DescribeConfigsResourceResult| match &resource.configuration_keys {
                    Some(keys) if !keys.is_empty() => keys.contains(&config.name),
                    _ => true,
                };
                result.configs = configs.into_iter().filter(wanted).collect();
                for config in &mut result.configs {
                    if !request.include_synonyms {
                        config.synonyms.clear();
                    }
                    if !request.include_documentation {
                        config.documentation = None;
                    }
                }
            }
            Err((error, message)) => {
                result.error_code = error.number();
                result.error_message = Some(text(&message));
            }
        }
        result
    });
    DescribeConfigsResponseData { results: results.collect(), ..Default::default() }
}

fn describe(
    resource: &DescribeConfigsResource,
    fixed: &[FixedSetting],
    context: &Context<'_>,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => {
            topic_name::validate(name)
                .map_err(|error| (ErrorCode::InvalidTopicException, error.to_string()))?;
            let topic = context
                .catalog
                .topic(name)
                .ok_or_else(|| (ErrorCode::UnknownTopicOrPartition, String::new()))?;
            Ok(of_topic(topic, &context.catalog.broker))
        }
        BROKER if name.is_empty() => {
            let given = context.catalog.broker.given(Layer::Cluster);
            let given = broker_config::settings()
                .filter_map(|setting| Some((setting, given.get(setting.broker_name)?)));
            Ok(given.map(|(setting, value)| of_cluster(setting, value)).collect())
        }
        BROKER if name == context.node().0.to_string() => {
            let changing =
                broker_config::settings().map(|setting| of_broker(setting, &context.catalog.broker));
            Ok(fixed.iter().map(of_fixed).chain(changing).collect())
        }
        BROKER => {
            let node = context.node().0;
            let message =
                format!("Unexpected broker id, expected {node} or empty string, but received {name}");
            Err((ErrorCode::InvalidRequest, message))
        }
        kind if ANSWERED_EMPTY.contains(&kind) => Ok(Vec::new()),
        kind => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {kind}"))),
    }
}

/// Name, value and source of every setting of a topic with `settings` of its own.
fn in_force<'a>(
    settings: &'a BTreeMap<String, String>,
    broker: &'a BrokerSettings,
) -> impl Iterator<Item = (&'static str, String, i8, Option<&'static Setting>)> + 'a {
    let known = SETTINGS.iter().map(move |setting| match settings.get(setting.name) {
        Some(value) => (setting.name, value.clone(), SOURCE_TOPIC, Some(setting)),
        None => (setting.name, broker.config().value_of(setting), source(setting, broker), Some(setting)),
    });
    let without_effect =
        ACCEPTED_WITHOUT_EFFECT.iter().map(move |(name, default)| match settings.get(*name) {
            Some(value) => (*name, value.clone(), SOURCE_TOPIC, None),
            None => (*name, (*default).to_string(), SOURCE_DEFAULT, None),
        });
    known.chain(without_effect)
}

/// Where the broker's value in force comes from.
fn source(setting: &Setting, broker: &BrokerSettings) -> i8 {
    broker.values(setting.broker_name).next().map_or(SOURCE_DEFAULT, |(layer, _)| source_of(layer))
}

fn synonym(name: &str, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym { name: text(name), value: Some(text(value)), source, ..Default::default() }
}

/// The values that a broker has for a setting, the one in force first.
fn synonyms(setting: &Setting, broker: &BrokerSettings) -> Vec<DescribeConfigsSynonym> {
    let name = setting.broker_name;
    let given = broker.values(name).map(|(layer, value)| synonym(name, value, source_of(layer)));
    given.chain([synonym(name, setting.default, SOURCE_DEFAULT)]).collect()
}

fn of_topic(topic: &Topic, broker: &BrokerSettings) -> Vec<DescribeConfigsResourceResult> {
    in_force(&topic.settings, broker)
        .map(|(name, value, source, setting)| {
            let own = (source == SOURCE_TOPIC).then(|| synonym(name, &value, SOURCE_TOPIC));
            let of_broker = setting.map(|setting| synonyms(setting, broker));
            let documentation = setting.map_or(
                "Known to Apache Kafka; stored and shown, without effect in this version.",
                |setting| setting.documentation,
            );
            DescribeConfigsResourceResult {
                name: text(name),
                value: Some(text(&value)),
                config_source: source,
                synonyms: own.into_iter().chain(of_broker.into_iter().flatten()).collect(),
                config_type: setting.map_or(0, |setting| config_type(setting.kind)),
                documentation: Some(text(documentation)),
                ..Default::default()
            }
        })
        .collect()
}

/// The settings in force as CreateTopics tells them.
pub fn of_created_topic(
    settings: &BTreeMap<String, String>,
    broker: &BrokerSettings,
) -> Vec<CreatableTopicConfigs> {
    in_force(settings, broker)
        .map(|(name, value, source, _)| CreatableTopicConfigs {
            name: text(name),
            value: Some(text(&value)),
            config_source: source,
            ..Default::default()
        })
        .collect()
}

fn of_broker(setting: &Setting, broker: &BrokerSettings) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: text(setting.broker_name),
        value: Some(text(&broker.config().value_of(setting))),
        config_source: source(setting, broker),
        synonyms: synonyms(setting, broker),
        config_type: config_type(setting.kind),
        documentation: Some(text(setting.documentation)),
        ..Default::default()
    }
}

/// What the whole cluster was given, without what a node has over it or below.
fn of_cluster(setting: &Setting, value: &str) -> DescribeConfigsResourceResult {
    let source = source_of(Layer::Cluster);
    DescribeConfigsResourceResult {
        name: text(setting.broker_name),
        value: Some(text(value)),
        config_source: source,
        synonyms: vec![synonym(setting.broker_name, value, source)],
        config_type: config_type(setting.kind),
        documentation: Some(text(setting.documentation)),
        ..Default::default()
    }
}

fn of_fixed(setting: &FixedSetting) -> DescribeConfigsResourceResult {
    let default = synonym(setting.name, setting.default, SOURCE_DEFAULT);
    let given = setting.given.as_ref().map(|value| synonym(setting.name, value, source_of(Layer::Start)));
    let synonyms: Vec<_> = given.into_iter().chain([default]).collect();
    DescribeConfigsResourceResult {
        name: text(setting.name),
        value: synonyms[0].value.clone(),
        read_only: true,
        config_source: synonyms[0].source,
        synonyms,
        config_type: config_type(SettingType::Text),
        documentation: Some(text(setting.documentation)),
        ..Default::default()
    }
}

/// Kafka's `ConfigType` numbers.
fn config_type(kind: SettingType) -> i8 {
    match kind {
        SettingType::Text => 2,
        SettingType::Int => 3,
        SettingType::Long => 5,
        SettingType::Double => 6,
        SettingType::List => 7,
    }
}
