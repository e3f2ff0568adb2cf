//! DescribeConfigs. Key 32, versions 1 to 4.
//!
//! Behaviour: the settings in force of topics (type 2) and this broker (type 4), with where each
//!            value comes from, what else would apply, and what it means.
//! Versions:  v1 synonyms; v3 types and documentation (KIP-569).
//! Deviations: broker loggers (type 8), client metrics (16) and groups (32) are answered empty.
//! Sources:   message schemas DescribeConfigsRequest, DescribeConfigsResponse; KIP-226.

use std::collections::BTreeMap;

use super::Context;
use crate::catalog::{Topic, topic_name};
use crate::partition::topic_config::{ACCEPTED_WITHOUT_EFFECT, SETTINGS, Setting, SettingType, TopicConfig};
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
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// A setting of this broker with its value in force, for tools.
#[derive(Clone, Debug)]
pub struct BrokerSetting {
    pub name: &'static str,
    pub value: String,
    pub is_default: bool,
    pub documentation: &'static str,
}

pub fn respond(
    request: &DescribeConfigsRequestData,
    broker: &[BrokerSetting],
    context: &Context<'_>,
) -> DescribeConfigsResponseData {
    let results = request.resources.iter().map(|resource| {
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match describe(resource, broker, context) {
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
    broker: &[BrokerSetting],
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
            Ok(of_topic(topic, &context.catalog.defaults))
        }
        BROKER => {
            let is_this = name.is_empty() || name == context.node().0.to_string();
            if is_this {
                Ok(broker.iter().map(of_broker).collect())
            } else {
                let message = format!(
                    "Unexpected broker id, expected {} or empty string, but received {name}",
                    context.node().0
                );
                Err((ErrorCode::InvalidRequest, message))
            }
        }
        kind if ANSWERED_EMPTY.contains(&kind) => Ok(Vec::new()),
        kind => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {kind}"))),
    }
}

/// Name, value and source of every setting of a topic with `settings` of its own.
fn in_force<'a>(
    settings: &'a BTreeMap<String, String>,
    defaults: &'a TopicConfig,
) -> impl Iterator<Item = (&'static str, String, i8, Option<&'static Setting>)> + 'a {
    let known = SETTINGS.iter().map(move |setting| match settings.get(setting.name) {
        Some(value) => (setting.name, value.clone(), SOURCE_TOPIC, Some(setting)),
        None => {
            let value = defaults.value_of(setting.name);
            let source = if value == setting.default { SOURCE_DEFAULT } else { SOURCE_STATIC_BROKER };
            (setting.name, value, source, Some(setting))
        }
    });
    let without_effect =
        ACCEPTED_WITHOUT_EFFECT.iter().map(move |(name, default)| match settings.get(*name) {
            Some(value) => (*name, value.clone(), SOURCE_TOPIC, None),
            None => (*name, (*default).to_string(), SOURCE_DEFAULT, None),
        });
    known.chain(without_effect)
}

fn of_topic(topic: &Topic, defaults: &TopicConfig) -> Vec<DescribeConfigsResourceResult> {
    in_force(&topic.settings, defaults)
        .map(|(name, value, source, setting)| {
            let mut synonyms = Vec::new();
            let mut synonym = |name: &str, value: &str, source: i8| {
                synonyms.push(DescribeConfigsSynonym {
                    name: text(name),
                    value: Some(text(value)),
                    source,
                    ..Default::default()
                });
            };
            if source == SOURCE_TOPIC {
                synonym(name, &value, SOURCE_TOPIC);
            }
            if let Some(setting) = setting {
                let of_broker = defaults.value_of(name);
                if of_broker != setting.default {
                    synonym(setting.broker_name, &of_broker, SOURCE_STATIC_BROKER);
                }
                synonym(setting.broker_name, setting.default, SOURCE_DEFAULT);
            }
            let documentation = setting.map_or(
                "Known to Apache Kafka; stored and shown, without effect in this version.",
                |setting| setting.documentation,
            );
            DescribeConfigsResourceResult {
                name: text(name),
                value: Some(text(&value)),
                config_source: source,
                synonyms,
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
    defaults: &TopicConfig,
) -> Vec<CreatableTopicConfigs> {
    in_force(settings, defaults)
        .map(|(name, value, source, _)| CreatableTopicConfigs {
            name: text(name),
            value: Some(text(&value)),
            config_source: source,
            ..Default::default()
        })
        .collect()
}

fn of_broker(setting: &BrokerSetting) -> DescribeConfigsResourceResult {
    let source = if setting.is_default { SOURCE_DEFAULT } else { SOURCE_STATIC_BROKER };
    DescribeConfigsResourceResult {
        name: text(setting.name),
        value: Some(text(&setting.value)),
        read_only: true,
        config_source: source,
        synonyms: vec![DescribeConfigsSynonym {
            name: text(setting.name),
            value: Some(text(&setting.value)),
            source,
            ..Default::default()
        }],
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
