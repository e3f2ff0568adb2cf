//! Cold: requests that are decoded into values: metadata, topics, offsets, groups.

use super::gather::Gathering;
use super::request::{Origin, Pending, Request};
use super::{Core, Work};
use crate::api::config_changes::{self, Resource};
use crate::api::{self, init_producer_id};
use crate::base::ids::ProducerEpoch;
use crate::base::slab::Key;
use crate::control::command::{ControlCommand, ControlOutcome};
use crate::protocol::api_key::ApiKey;
use crate::protocol::cold::{self, Message};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame;
use crate::protocol::header;
use crate::protocol::reader::DecodeError;

impl Core {
    /// Answers `origin` with a body.
    pub fn respond(&mut self, origin: Origin, body: impl FnOnce(&Self, &mut Vec<u8>)) {
        let mut out = self.spare.take();
        let at = header::begin_response(&mut out, origin.key, origin.version, origin.correlation_id);
        body(self, &mut out);
        frame::end(&mut out, at, 0);
        self.respond_frame(origin, out);
    }

    pub fn respond_frame(&mut self, origin: Origin, response: Vec<u8>) {
        // A connection that closed meanwhile took its requests with it; this one was on its way.
        let Some(connection) = self.clients.connections.get_mut(origin.connection) else { return };
        connection.outbound.ready(origin.turn, response);
        self.clients.mark_dirty(origin.connection);
    }

    pub fn respond_cold<T: Message>(&mut self, origin: Origin, response: &T) {
        self.respond(origin, |_, out| {
            cold::encode(origin.version, response, out).expect("handlers fill what the version carries");
        });
    }

    /// Keeps a request until what it waits for arrives.
    pub fn keep(&mut self, origin: Origin, pending: Pending) -> Key {
        self.requests.insert(Request { origin, pending })
    }

    /// Decodes and answers, or begins to answer, a request of any key but the hot ones.
    pub fn on_cold(&mut self, origin: Origin, client_id: &str, body: &[u8]) -> Result<(), DecodeError> {
        let version = origin.version;
        match origin.key {
            ApiKey::Metadata => {
                let request: cold::metadata_request::MetadataRequestData = cold::decode(version, body)?;
                let topics = api::metadata::missing(&request, &self.context(origin));
                if topics.is_empty() {
                    let response = api::metadata::respond(version, &request, &self.context(origin));
                    self.respond_cold(origin, &response);
                } else {
                    let command = ControlCommand::CreateTopics { topics, validate_only: false };
                    self.ask_control(origin, Pending::Metadata(request), command);
                }
            }
            ApiKey::FindCoordinator => {
                let request: cold::find_coordinator_request::FindCoordinatorRequestData =
                    cold::decode(version, body)?;
                match api::find_coordinator::missing(&request, &self.context(origin)) {
                    None => {
                        let response =
                            api::find_coordinator::respond(version, &request, &self.context(origin));
                        self.respond_cold(origin, &response);
                    }
                    Some(topic) => {
                        let command =
                            ControlCommand::CreateTopics { topics: vec![topic], validate_only: false };
                        self.ask_control(origin, Pending::FindCoordinator(request), command);
                    }
                }
            }
            ApiKey::CreateTopics => {
                let request: cold::create_topics_request::CreateTopicsRequestData =
                    cold::decode(version, body)?;
                let command = api::create_topics::command(&request);
                self.ask_control(origin, Pending::CreateTopics(request), command);
            }
            ApiKey::DeleteTopics => {
                let request: cold::delete_topics_request::DeleteTopicsRequestData =
                    cold::decode(version, body)?;
                let command = api::delete_topics::command(version, &request);
                self.ask_control(origin, Pending::DeleteTopics(request), command);
            }
            ApiKey::CreatePartitions => {
                let request: cold::create_partitions_request::CreatePartitionsRequestData =
                    cold::decode(version, body)?;
                let command = api::create_partitions::command(&request);
                self.ask_control(origin, Pending::CreatePartitions(request), command);
            }
            ApiKey::AlterConfigs => {
                let request: cold::alter_configs_request::AlterConfigsRequestData =
                    cold::decode(version, body)?;
                let resources = api::alter_configs::resources(&request);
                self.alter_configs(origin, resources, request.validate_only);
            }
            ApiKey::IncrementalAlterConfigs => {
                let request: cold::incremental_alter_configs_request::IncrementalAlterConfigsRequestData =
                    cold::decode(version, body)?;
                let resources = api::incremental_alter_configs::resources(&request);
                self.alter_configs(origin, resources, request.validate_only);
            }
            ApiKey::InitProducerId => {
                let request: cold::init_producer_id_request::InitProducerIdRequestData =
                    cold::decode(version, body)?;
                self.init_producer_id(origin, &request);
            }
            ApiKey::DescribeCluster => {
                let request: cold::describe_cluster_request::DescribeClusterRequestData =
                    cold::decode(version, body)?;
                let response = api::describe_cluster::respond(&request, &self.context(origin));
                self.respond_cold(origin, &response);
            }
            ApiKey::DescribeConfigs => {
                let request: cold::describe_configs_request::DescribeConfigsRequestData =
                    cold::decode(version, body)?;
                let settings = &self.metadata.fixed_settings;
                let response = api::describe_configs::respond(&request, settings, &self.context(origin));
                self.respond_cold(origin, &response);
            }
            ApiKey::DescribeTopicPartitions => {
                let request: cold::describe_topic_partitions_request::DescribeTopicPartitionsRequestData =
                    cold::decode(version, body)?;
                let response = api::describe_topic_partitions::respond(&request, &self.context(origin));
                self.respond_cold(origin, &response);
            }
            ApiKey::ListOffsets => {
                let request = cold::decode(version, body)?;
                self.work.push_back(Work::Gather(origin, Gathering::ListOffsets(request)));
            }
            ApiKey::OffsetForLeaderEpoch => {
                let request = cold::decode(version, body)?;
                self.work.push_back(Work::Gather(origin, Gathering::EpochEnds(request)));
            }
            ApiKey::DescribeLogDirs => {
                let request = cold::decode(version, body)?;
                self.work.push_back(Work::Gather(origin, Gathering::LogDirs(request)));
            }
            ApiKey::DeleteRecords => {
                let request = cold::decode(version, body)?;
                self.work.push_back(Work::Gather(origin, Gathering::DeleteRecords(request)));
            }
            _ => self.on_group_request(origin, client_id, body)?,
        }
        Ok(())
    }

    fn ask_control(&mut self, origin: Origin, pending: Pending, command: ControlCommand) {
        let key = self.keep(origin, pending);
        self.metadata.control.send(key.to_u56(), command);
    }

    fn alter_configs(&mut self, origin: Origin, resources: Vec<Resource>, validate_only: bool) {
        let settings = &self.metadata.fixed_settings;
        let (asked, command) = config_changes::ask(resources, validate_only, settings, &self.context(origin));
        self.ask_control(origin, Pending::AlterConfigs(asked), command);
    }

    fn init_producer_id(
        &mut self,
        origin: Origin,
        request: &cold::init_producer_id_request::InitProducerIdRequestData,
    ) {
        match init_producer_id::need(request) {
            init_producer_id::Need::Refused(error) => {
                self.respond_cold(origin, &init_producer_id::respond(Err(error)));
            }
            init_producer_id::Need::FreshId => match self.metadata.take_producer_id() {
                Some(id) => {
                    self.respond_cold(origin, &init_producer_id::respond(Ok((id, ProducerEpoch(0)))));
                }
                None => self.ask_control(origin, Pending::InitProducerId, ControlCommand::ReserveProducerIds),
            },
        }
    }

    /// The control thread has decided; its commits arrived before.
    pub fn on_control_reply(&mut self, request: u64, outcome: ControlOutcome) {
        // The connection may have closed meanwhile.
        let Some(Request { origin, pending }) = self.requests.remove(Key::from_u56(request)) else { return };
        let version = origin.version;
        match pending {
            Pending::Metadata(request) => {
                let response = api::metadata::respond(version, &request, &self.context(origin));
                self.respond_cold(origin, &response);
            }
            Pending::FindCoordinator(request) => {
                let response = api::find_coordinator::respond(version, &request, &self.context(origin));
                self.respond_cold(origin, &response);
            }
            Pending::CreateTopics(request) => {
                let response = api::create_topics::respond(&request, outcome, &self.context(origin));
                self.respond_cold(origin, &response);
            }
            Pending::DeleteTopics(request) => {
                self.respond_cold(origin, &api::delete_topics::respond(version, &request, outcome));
            }
            Pending::CreatePartitions(request) => {
                self.respond_cold(origin, &api::create_partitions::respond(&request, outcome));
            }
            Pending::AlterConfigs(asked) if origin.key == ApiKey::AlterConfigs => {
                self.respond_cold(origin, &api::alter_configs::respond(asked, outcome));
            }
            Pending::AlterConfigs(asked) => {
                self.respond_cold(origin, &api::incremental_alter_configs::respond(asked, outcome));
            }
            Pending::InitProducerId => {
                let answer = match outcome {
                    ControlOutcome::ProducerIds { first, next } => {
                        Ok((self.metadata.reserve_producer_ids(first, next), ProducerEpoch(0)))
                    }
                    ControlOutcome::Topics(_) | ControlOutcome::NotCommitted => {
                        Err(ErrorCode::CoordinatorNotAvailable)
                    }
                };
                self.respond_cold(origin, &init_producer_id::respond(answer));
            }
            Pending::Produce(_)
            | Pending::SilentProduce(_)
            | Pending::Fetch(_)
            | Pending::Gather(_)
            | Pending::GroupAppend { .. } => {
                unreachable!("only requests to the control thread are answered by it")
            }
        }
    }
}
