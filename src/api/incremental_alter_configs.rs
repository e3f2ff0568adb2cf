//! IncrementalAlterConfigs. Key 44, versions 0 to 1.
//!
//! Behaviour: sets, removes, appends to or subtracts from single settings of topics, of this broker, or of
//!            every broker of the cluster (a broker without name); each is decided for itself.
//! Versions:  v1 flexible.
//! Deviations: settings of brokers that Kafka changes and Corelane doesn't have are refused (40), as are
//!            unknown ones, which Kafka stores; `listeners` needs a restart (42); bounds are those of the
//!            configuration file, so retention has no values below -1; a list that is appended to begins
//!            with the value in force, not with the one built in; broker loggers, client metrics and
//!            groups are refused with 42.
//! Sources:   message schemas IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse; KIP-339; KIP-226.

use super::config_changes::{AskedChange, Resource, settle};
use crate::catalog::decide::{SettingOp, SettingsChange};
use crate::control::command::ControlOutcome;
use crate::protocol::cold::incremental_alter_configs_request::{
    AlterableConfig, IncrementalAlterConfigsRequestData,
};
use crate::protocol::cold::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponseData,
};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub fn resources(request: &IncrementalAlterConfigsRequestData) -> Vec<Resource> {
    let resources = request.resources.iter().map(|resource| Resource {
        kind: resource.resource_type,
        name: resource.resource_name.as_str().to_owned(),
        keys: resource.configs.iter().map(|config| config.name.as_str().to_owned()).collect(),
        change: SettingsChange::Each(
            resource.configs.iter().map(|config| (config.name.as_str().to_owned(), op(config))).collect(),
        ),
    });
    resources.collect()
}

fn op(config: &AlterableConfig) -> SettingOp {
    let value = config.value.as_ref().map(|value| value.as_str().to_owned());
    match (config.config_operation, value) {
        (DELETE, _) => SettingOp::Delete,
        (SET, Some(value)) => SettingOp::Set(value),
        (APPEND, Some(value)) => SettingOp::Append(value),
        (SUBTRACT, Some(value)) => SettingOp::Subtract(value),
        (SET | APPEND | SUBTRACT, None) => {
            SettingOp::Invalid(format!("Null value not supported for : {}", config.name.as_str()))
        }
        (other, _) => SettingOp::Invalid(format!("Unknown config operation {other}")),
    }
}

pub fn respond(asked: Vec<AskedChange>, outcome: ControlOutcome) -> IncrementalAlterConfigsResponseData {
    let responses = settle(asked, outcome).map(|settled| AlterConfigsResourceResponse {
        error_code: settled.error_code,
        error_message: settled.error_message,
        resource_type: settled.kind,
        resource_name: settled.name,
        ..Default::default()
    });
    IncrementalAlterConfigsResponseData { responses: responses.collect(), ..Default::default() }
}
