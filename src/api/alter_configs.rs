//! AlterConfigs. Key 33, versions 0 to 2.
//!
//! Behaviour: replaces all settings of a topic, of this broker or of the cluster by those given: what
//!            isn't named falls back to its default. Deprecated in Kafka in favour of IncrementalAlterConfigs.
//! Versions:  v2 flexible.
//! Deviations: as IncrementalAlterConfigs.
//! Sources:   message schemas AlterConfigsRequest, AlterConfigsResponse; KIP-133.

use super::config_changes::{AskedChange, Resource, settle};
use crate::catalog::decide::SettingsChange;
use crate::control::command::ControlOutcome;
use crate::protocol::cold::alter_configs_request::AlterConfigsRequestData;
use crate::protocol::cold::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponseData};

pub fn resources(request: &AlterConfigsRequestData) -> Vec<Resource> {
    let resources = request.resources.iter().map(|resource| {
        let given = resource.configs.iter().filter_map(|config| {
            let value = config.value.as_ref()?;
            Some((config.name.as_str().to_owned(), value.as_str().to_owned()))
        });
        Resource {
            kind: resource.resource_type,
            name: resource.resource_name.as_str().to_owned(),
            keys: resource.configs.iter().map(|config| config.name.as_str().to_owned()).collect(),
            change: SettingsChange::All(given.collect()),
        }
    });
    resources.collect()
}

pub fn respond(asked: Vec<AskedChange>, outcome: ControlOutcome) -> AlterConfigsResponseData {
    let responses = settle(asked, outcome).map(|settled| AlterConfigsResourceResponse {
        error_code: settled.error_code,
        error_message: settled.error_message,
        resource_type: settled.kind,
        resource_name: settled.name,
        ..Default::default()
    });
    AlterConfigsResponseData { responses: responses.collect(), ..Default::default() }
}
